//! Values too large for one record: chunks anywhere in the log, and a head that lists them.
//!
//! No contiguous space is needed, so a large value evicts hardly more than its own size. The chunks are written first, and
//! nothing lists them until the head is published. A writer that dies before that leaves dead chunks, which go when their
//! segments are reclaimed. A reader copies chunk by chunk and validates each: the generation in the head tells in which
//! life of its segment the chunk was written, and the version in the chunk tells to which value it belongs.

use crate::entries::draft::Draft;
use crate::entries::store::{Expect, Refused};
use crate::entries::tags::Block;
use crate::format::header::{CHUNK, CHUNKED, LengthField, SecondWord};
use crate::format::layout::Class;
use crate::format::record::{CHUNK_HEADER, Place};
use crate::index::key::Key;
use crate::index::probe::{Probe, is_valid, probe};
use crate::log::append::Purpose;
use crate::participant::lock::Busy;
use crate::participant::participant::{Host, Participant};
use crate::sync::Relaxed;

/// Attempts to read a chunk before its reader starts the whole value again.
const ATTEMPTS: u32 = 8;

impl<H: Host> Participant<H> {
    /// Writes chunk `number` of the value that will be `version` of `key`.
    pub fn write_chunk(&self, key: &Key, version: u64, number: u32, bytes: &[u8]) -> Result<Place, Busy> {
        if number == 0 {
            self.pending_since.set(self.sealed_so_far());
        }
        self.pending_of(self.seat).store(version, Relaxed);
        let length = CHUNK_HEADER + bytes.len() as u32;
        let space = self.reserve(self.class_of_chunk(key, number), LengthField::of(length), Purpose::Write)?;
        let region = &self.region;
        space.fill_hash_and_version(region, key.hash, version);
        space.fill_optional(region, number as u64);
        // SAFETY: a slice is readable.
        unsafe { region.copy_in(bytes.as_ptr(), space.at + CHUNK_HEADER, bytes.len() as u32) };
        space.fill_second(region, SecondWord::new(0, 0, CHUNK, 0));
        // Live from now on, although no head lists it: otherwise the segment would look empty and be reclaimed first.
        self.add_live(&space, space.room);
        self.withdraw();
        Ok(space.place())
    }

    /// The class of a chunk. A value that was not read yet belongs to the small queue. But the small queue has only a tenth
    /// of the region. The first chunks of a value larger than that would be gone before the last ones were written, so only
    /// the chunks of the first part of a value go there: a thirty-second of the region.
    fn class_of_chunk(&self, key: &Key, number: u32) -> Class {
        let before = number as u64 * self.chunk_bytes() as u64;
        if before > self.region.geometry.size as u64 / 32 { Class::Main } else { self.class_for(key) }
    }

    /// Stores the head that lists chunks written before; `list` is `{total, place …}`. Refused like [`Participant::set`],
    /// and with `Busy` when so much was written meanwhile that a chunk is gone already.
    #[allow(clippy::too_many_arguments)]
    pub fn set_large(
        &self,
        key: &Key,
        value_type: u8,
        version: u64,
        expiry: f64,
        grace: f64,
        tags: &Block,
        list: &[u64],
        expect: Expect,
    ) -> Result<(), Refused> {
        // SAFETY: any initialised words are bytes.
        let value = unsafe { core::slice::from_raw_parts(list.as_ptr().cast::<u8>(), size_of_val(list)) };
        let stored = self.set(key, &Draft { value_type, flags: CHUNKED, version, expiry, grace, tags, value }, expect);
        self.pending_of(self.seat).store(0, Relaxed);
        stored
    }

    /// Gives up chunks that no head will list.
    pub fn abandon_chunks(&self, places: &[u64]) {
        self.pending_of(self.seat).store(0, Relaxed);
        for place in places.iter().copied().map(Place) {
            self.retire_chunk(place);
        }
    }

    /// Copies chunk `number` of `version` of `key`. Returns the length of the chunk; `None` when that version is gone, or when
    /// no attempt to read the chunk succeeded.
    ///
    /// # Safety
    /// `to` must be aligned to eight with room for `max_record` bytes.
    pub unsafe fn read_chunk(&self, key: &Key, version: u64, number: u32, to: *mut u8) -> Option<u32> {
        for _ in 0..ATTEMPTS {
            let hit = match probe(&self.region, key) {
                Probe::Hit(hit) => hit,
                Probe::Absent => return None,
                Probe::Unsettled => continue,
            };
            let head = &hit.record;
            if !head.has(CHUNKED) || head.version(&self.region) != version || number >= head.chunks() {
                if is_valid(&self.region, &hit) {
                    return None;
                }
                continue;
            }
            let place = head.chunk_place(&self.region, number);
            let Some((_, chunk)) = self.chunk_at(place) else {
                continue;
            };
            if chunk.version(&self.region) != version || chunk.chunk_number(&self.region) != number {
                continue;
            }
            let length = chunk.value_length.min(self.chunk_bytes());
            // SAFETY: by contract.
            unsafe { self.region.copy_out(chunk.value_at, to, length) };
            // The place names the life of the segment: in the same life the same chunk lies there.
            if self.chunk_at(place).is_some_and(|(_, now)| now.length == chunk.length) {
                return Some(length);
            }
        }
        None
    }
}
