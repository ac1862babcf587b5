//! Walks the whole structure and checks every invariant that can be checked while nobody else writes. For tests, fuzzing,
//! and for users who suspect damage.

use crate::format::header::{CHUNK, CHUNKED};
use crate::format::layout::{GRAIN, META_BUMP, WORD};
use crate::format::record::Record;
use crate::format::segment::{Lane, Phase, State};
use crate::index::entry::fingerprint_of;
use crate::index::key::bucket_of;
use crate::index::probe::{entries_of, load_entry, resolve};
use crate::log::lanes::lanes;
use crate::participant::participant::{Host, Participant};
use crate::sync::Acquire;

/// A broken invariant.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
#[repr(u32)]
pub enum Broken {
    /// An entry points outside of the segments, into another life, or at something that is not a record.
    Dangling = 1,
    /// The record of an entry belongs to another bucket, or has another fingerprint.
    Misplaced = 2,
    /// Two live entries have the same key.
    Duplicate = 3,
    /// The state word of a segment is one that the engine never writes, or two lanes name the segment.
    Segment = 4,
    /// A large value lists a chunk of another value.
    Chunk = 5,
    /// The state of an entry does not fit its record.
    EntryState = 6,
}

impl<H: Host> Participant<H> {
    /// Checks the structure. Only meaningful while nobody writes. Lost entries are not an error, because a cache may lose
    /// them.
    pub fn validate(&self) -> Result<(), Broken> {
        self.validate_segments()?;
        (0..self.region.geometry.buckets).try_for_each(|bucket| self.validate_bucket(bucket))
    }

    fn validate_segments(&self) -> Result<(), Broken> {
        let geometry = &self.region.geometry;
        for segment in 0..geometry.segments {
            let state = State(self.region.word(geometry.state(segment)).load(Acquire));
            let bump = self.region.word(geometry.meta(segment) + META_BUMP).load(Acquire);
            if !state.is_valid() || bump % GRAIN as u64 != 0 {
                return Err(Broken::Segment);
            }
            if state.phase() == Phase::Free && bump != 0 {
                return Err(Broken::Segment);
            }
            let named = Lane::new(segment, state.generation());
            let names = lanes(geometry).filter(|&at| Lane(self.region.word(at).load(Acquire)) == named).count();
            if names > 1 {
                return Err(Broken::Segment);
            }
        }
        Ok(())
    }

    fn validate_bucket(&self, bucket: u32) -> Result<(), Broken> {
        let geometry = &self.region.geometry;
        let entry = |at: u32| load_entry(&self.region, at);
        for entry_at in entries_of(geometry, bucket).filter(|&at| entry(at).is_live()) {
            let hit = resolve(&self.region, entry_at, entry(entry_at)).ok_or(Broken::Dangling)?;
            let record = &hit.record;
            if record.generation != hit.generation || record.has(CHUNK) {
                return Err(Broken::Dangling);
            }
            let hash = record.hash(&self.region);
            if bucket_of(geometry, hash) != bucket || fingerprint_of(hash) != hit.entry.fingerprint() {
                return Err(Broken::Misplaced);
            }
            if record.has(CHUNKED) && !hit.entry.is_mutable() {
                return Err(Broken::EntryState);
            }
            if record.has(CHUNKED) && self.is_current(record) {
                for i in 0..record.chunks() {
                    // A missing chunk makes the value a miss, which is allowed. A chunk of another value is not.
                    let chunk = self.chunk_at(record.chunk_place(&self.region, i));
                    if chunk.is_some_and(|(_, chunk)| chunk.version(&self.region) != record.version(&self.region)) {
                        return Err(Broken::Chunk);
                    }
                }
            }
            let twin = entries_of(geometry, bucket).filter(|&at| at > entry_at && entry(at).is_live()).any(|at| {
                resolve(&self.region, at, entry(at)).is_some_and(|other| self.has_same_key(record, &other.record))
            });
            if twin {
                return Err(Broken::Duplicate);
            }
        }
        Ok(())
    }

    fn has_same_key(&self, one: &Record, other: &Record) -> bool {
        let word = |at: u32, i: u32| self.region.word(at + i * WORD).load(Acquire);
        one.key_length == other.key_length
            && one.key_kind() == other.key_kind()
            && (0..one.key_length.div_ceil(WORD)).all(|i| word(one.key_at, i) == word(other.key_at, i))
    }
}
