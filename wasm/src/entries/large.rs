//! Values too large for one record: chunks anywhere in the log, and a head that lists them.
//!
//! No contiguous space is ever needed, so a large value evicts no more than its own size. The chunks are written first
//! and belong to nobody until the head is published; a writer that dies before leaves dead chunks, which go when their
//! segments are reclaimed. A reader copies chunk by chunk and validates each: the generation in the head says which life
//! of the segment, the version in the chunk says which value.

use crate::log::append::Purpose;
use crate::index::probe::{Key, Probe, probe, still};
use crate::format::layout::Class;
use crate::participant::lock::Busy;
use crate::participant::participant::{Host, Participant};
use crate::format::record::{CHUNK, CHUNK_HEADER, CHUNKED, HEADER, Place, Record, Space, length_field};
use crate::format::segment::{Phase, State};
use crate::entries::store::{Draft, Expect, Refused};
use crate::sync::{Acquire, Relaxed, SeqCst};
use crate::entries::tags::Block;

/// Looks at a chunk before its reader starts the whole value again.
const LOOKS: u32 = 8;

impl<H: Host> Participant<H> {
    /// Bytes of a value in each of its chunks but the last.
    pub fn chunk_bytes(&self) -> u32 {
        self.region.geometry.max_record - CHUNK_HEADER
    }

    /// Writes chunk `number` of the value that will be `version` of `key`.
    pub fn write_chunk(&self, key: &Key, version: u64, number: u32, bytes: &[u8]) -> Result<Place, Busy> {
        self.pending_of(self.slot).store(version, Relaxed);
        let length = CHUNK_HEADER + bytes.len() as u32;
        let space = self.reserve(self.class_of_chunk(key, number), length_field(length), Purpose::Write)?;
        let region = &self.region;
        region.fill(space.at + 16, key.hash);
        region.fill(space.at + 24, version);
        region.fill(space.at + HEADER, number as u64);
        // SAFETY: a slice is readable.
        unsafe { region.copy_in(bytes.as_ptr(), space.at + CHUNK_HEADER, bytes.len() as u32) };
        region.fill(space.at + 8, Record::second_word(0, 0, CHUNK, 0));
        // Counted from now on, or the segment would look empty and be reclaimed before the head is there.
        self.add_live(&space, space.room);
        self.withdraw();
        Ok(Place::new(space.at, space.generation))
    }

    /// What is not read yet belongs on probation; but probation is a tenth of the region, and of a value that is larger
    /// the first chunks would be gone before the last were written.
    fn class_of_chunk(&self, key: &Key, number: u32) -> Class {
        let before = number as u64 * self.chunk_bytes() as u64;
        if before > self.region.geometry.size as u64 / 32 { Class::Main } else { self.class_for(key) }
    }

    /// Stores the head over chunks written before, `list` being `{total, place …}`. Refused like [`Participant::set`],
    /// and with `Busy` when so much was written meanwhile that a chunk is gone already.
    #[allow(clippy::too_many_arguments)]
    pub fn set_large(
        &self,
        key: &Key,
        kind: u8,
        version: u64,
        expiry: f64,
        tags: &Block,
        list: &[u64],
        expect: Expect,
    ) -> Result<(), Refused> {
        // SAFETY: any initialised words are bytes.
        let value = unsafe { core::slice::from_raw_parts(list.as_ptr().cast::<u8>(), size_of_val(list)) };
        let stored = self.set(key, &Draft { kind, flags: CHUNKED, version, expiry, tags, value }, expect);
        self.pending_of(self.slot).store(0, Relaxed);
        stored
    }

    /// Gives chunks up that no head will list.
    pub fn abandon_chunks(&self, places: &[u64]) {
        self.pending_of(self.slot).store(0, Relaxed);
        for place in places.iter().copied().map(Place) {
            if let Some((segment, chunk)) = self.chunk_at(place) {
                self.take_live(segment, place.generation(), chunk.length);
            }
        }
    }

    /// Whether the chunks that the head in `space` lists are there and stay: a reclaimer that is at work on the segment of
    /// one may have passed it already, when it belonged to nobody.
    pub(crate) fn has_its_chunks(&self, space: &Space) -> bool {
        let geometry = &self.region.geometry;
        let head = Record::read(&self.region, space.at, geometry.segment(space.segment + 1));
        head.is_some_and(|head| {
            (0..head.chunks()).all(|i| {
                let place = Place(self.region.word(head.chunk_place_at(i)).load(Acquire));
                self.chunk_at(place).is_some_and(|(segment, _)| {
                    // Sequentially consistent: meets `index::replace`.
                    let state = State(self.region.word(geometry.state(segment)).load(SeqCst));
                    matches!(state.phase(), Phase::Open | Phase::Sealed) && state.generation() == place.generation()
                })
            })
        })
    }

    /// Copies chunk `number` of `version` of `key`; its length, or `None` when that version is gone.
    ///
    /// # Safety
    /// `to` must be aligned to eight with room for `max_record` bytes.
    pub unsafe fn read_chunk(&self, key: &Key, version: u64, number: u32, to: *mut u8) -> Option<u32> {
        for _ in 0..LOOKS {
            let hit = match probe(&self.region, key) {
                Probe::Hit(hit) => hit,
                Probe::Absent => return None,
                Probe::Unsettled => continue,
            };
            let head = &hit.record;
            if !head.has(CHUNKED) || head.version(&self.region) != version || number >= head.chunks() {
                if still(&self.region, &hit) {
                    return None;
                }
                continue;
            }
            // Acquire: meets the store that moved the chunk, after its copy was complete.
            let place = Place(self.region.word(head.chunk_place_at(number)).load(Acquire));
            let Some((_, chunk)) = self.chunk_at(place) else {
                continue;
            };
            if chunk.version(&self.region) != version || chunk.chunk_number(&self.region) != number {
                continue;
            }
            let length = chunk.value_length.min(self.chunk_bytes());
            // SAFETY: by contract.
            unsafe { self.region.copy_out(chunk.value_at, to, length) };
            // The place says which life of the segment the chunk belongs to: still that one, still the chunk.
            if self.chunk_at(place).is_some_and(|(_, now)| now.length == chunk.length) {
                return Some(length);
            }
        }
        None
    }
}
