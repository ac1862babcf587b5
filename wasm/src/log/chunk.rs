//! The chunks of large values in the log, and what keeps them. No index entry points to a chunk. A chunk is kept by the head
//! that lists it, or, before there is a head, by the participant that is still writing the value.

use crate::format::header::{CHUNK, CHUNKED};
use crate::format::record::{CHUNK_HEADER, Place, Record, Space, end_of_segment};
use crate::format::segment::{Phase, State};
use crate::index::entry::Entry;
use crate::index::key::bucket_of;
use crate::index::probe::{Hit, entries_of, is_valid, load_entry, resolve};
use crate::participant::participant::{Host, Participant};
use crate::sync::{Acquire, Relaxed, SeqCst};

impl<H: Host> Participant<H> {
    /// Bytes of a large value in each of its chunks but the last.
    pub fn chunk_bytes(&self) -> u32 {
        self.region.geometry.max_record - CHUNK_HEADER
    }

    /// The segment and the record of the chunk at a place; `None` when the segment is in another life, or no chunk lies there.
    pub(crate) fn chunk_at(&self, place: Place) -> Option<(u32, Record)> {
        let geometry = &self.region.geometry;
        let segment = geometry.segment_of(place.at())?;
        let state = State(self.region.word(geometry.state(segment)).load(Acquire));
        if state.generation() != place.generation() || state.phase() == Phase::Free {
            return None;
        }
        let chunk = Record::read(&self.region, place.at(), end_of_segment(geometry, segment))?;
        (chunk.has(CHUNK) && chunk.generation == place.generation()).then_some((segment, chunk))
    }

    /// The head that lists this chunk, and where in the head the place of the chunk lies. Needs the bucket's lock.
    pub(crate) fn head_of(&self, chunk: &Record, hash: u64) -> Option<(Hit, u32)> {
        let geometry = &self.region.geometry;
        let version = chunk.version(&self.region);
        entries_of(geometry, bucket_of(geometry, hash)).find_map(|entry_at| {
            let entry = load_entry(&self.region, entry_at);
            if !entry.is_mutable() {
                return None;
            }
            let head = resolve(&self.region, entry_at, entry)?;
            let number = chunk.chunk_number(&self.region);
            if !head.record.has(CHUNKED)
                || head.record.version(&self.region) != version
                || number >= head.record.chunks()
            {
                return None;
            }
            let listed = head.record.chunk_place(&self.region, number);
            (listed == Place::new(chunk.at, chunk.generation)).then_some((head, head.record.chunk_place_at(number)))
        })
    }

    /// Whether an entry may list this chunk. Checked without the lock, because dead chunks must not be kept while a
    /// frozen writer holds the lock of their bucket. A head that is published meanwhile is checked by its
    /// writer (`has_its_chunks`).
    pub(crate) fn may_be_listed(&self, chunk: &Record, hash: u64) -> bool {
        let geometry = &self.region.geometry;
        entries_of(geometry, bucket_of(geometry, hash)).any(|entry_at| {
            // Sequentially consistent: pairs with `replace` in `index/probe.rs`.
            let entry = Entry(self.region.word(entry_at).load(SeqCst));
            entry.is_mutable()
                && resolve(&self.region, entry_at, entry).is_none_or(|head| {
                    head.record.version(&self.region) == chunk.version(&self.region) || !is_valid(&self.region, &head)
                })
        })
    }

    /// Whether a living participant is still writing the large value of this version.
    pub(crate) fn is_pending(&self, version: u64) -> bool {
        self.is_any_pending(|pending| pending == version, true)
    }

    /// Whether a sealed segment may have chunks of a large value that a living participant is still writing. Those of this
    /// participant lie only in segments that were sealed since it began. A wrong answer, after a late store in `seal`, loses a
    /// chunk of the caller, which `has_its_chunks` notices.
    pub(crate) fn may_have_pending_chunks(&self, segment: u32) -> bool {
        self.is_any_pending(|_| true, self.sequence(segment) >= self.pending_since.get())
    }

    /// Whether a living participant is writing a large value whose version is meant; `own` says whether one of this participant
    /// counts.
    fn is_any_pending(&self, is_meant: impl Fn(u64) -> bool, own: bool) -> bool {
        (0..self.used_seats()).any(|seat| {
            let pending = self.pending_of(seat).load(Relaxed);
            pending != 0 && is_meant(pending) && if seat == self.seat { own } else { !self.reap_if_dead(seat) }
        })
    }

    /// Whether the chunks that the head in `space` lists exist and stay. A reclaimer that is walking the segment of a chunk
    /// may already have passed the chunk, when nothing kept it.
    pub(crate) fn has_its_chunks(&self, space: &Space) -> bool {
        let geometry = &self.region.geometry;
        space.record(&self.region).is_some_and(|head| {
            (0..head.chunks()).all(|i| {
                let place = head.chunk_place(&self.region, i);
                self.chunk_at(place).is_some_and(|(segment, _)| {
                    // Sequentially consistent: pairs with `transfer`. The call that counts comes after `replace` in
                    // `index/probe.rs`.
                    let state = State(self.region.word(geometry.state(segment)).load(SeqCst));
                    matches!(state.phase(), Phase::Open | Phase::Sealed) && state.generation() == place.generation()
                })
            })
        })
    }

    /// Takes the chunks of a large value off the live bytes, just before its head leaves the index: afterwards nothing keeps
    /// the list in place. The caller holds the bucket's lock, so nobody else can remove the head meanwhile.
    pub(crate) fn retire_chunks(&self, hit: &Hit) {
        if hit.record.has(CHUNKED) && hit.entry.is_mutable() {
            for i in 0..hit.record.chunks() {
                self.retire_chunk(hit.record.chunk_place(&self.region, i));
            }
        }
    }

    /// Takes the chunk at a place off the live bytes.
    pub(crate) fn retire_chunk(&self, place: Place) {
        if let Some((segment, chunk)) = self.chunk_at(place) {
            self.take_live(segment, place.generation(), chunk.length);
        }
    }
}
