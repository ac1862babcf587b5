//! Walks the whole structure and checks every invariant that can be checked while nobody else is writing. For tests,
//! fuzzing and whoever doubts.

use crate::index::probe::{Entry, Kind, bucket_of, resolve};
use crate::format::layout::{Class, META_BUMP, WAYS};
use crate::participant::participant::{Host, Participant};
use crate::format::record::{CHUNK, CHUNKED, KEY_KIND_SHIFT, Place};
use crate::format::segment::{Phase, State};
use crate::sync::Acquire;

/// A broken invariant, and where.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
#[repr(u32)]
pub enum Broken {
    /// An entry points outside of the segments, into another life, or at no record.
    Dangling = 1,
    /// An entry's record does not belong into its bucket, or has another tag.
    Misplaced = 2,
    /// Two live entries have the same key.
    Duplicate = 3,
    /// A segment's state word is none that the engine writes, or a lane names a segment twice.
    Segment = 4,
    /// A large value lists a chunk of another value.
    Chunk = 5,
    /// The kind of an entry does not fit its record.
    Kind = 6,
}

impl<H: Host> Participant<H> {
    /// Checks the structure. Only meaningful while nobody writes; lost entries are not an error, because a cache may
    /// lose them.
    pub fn validate(&self) -> Result<(), Broken> {
        self.validate_segments()?;
        (0..self.region.geometry.buckets).try_for_each(|bucket| self.validate_bucket(bucket))
    }

    fn validate_segments(&self) -> Result<(), Broken> {
        let geometry = &self.region.geometry;
        for segment in 0..geometry.segments {
            let word = self.region.word(geometry.state(segment)).load(Acquire);
            let state = State(word);
            let bump = self.region.word(geometry.meta(segment) + META_BUMP).load(Acquire);
            if word & 7 > Phase::Reclaim as u64 || state.generation() == 0 || bump % 16 != 0 {
                return Err(Broken::Segment);
            }
            if state.phase() == Phase::Free && bump != 0 {
                return Err(Broken::Segment);
            }
            let lanes = [Class::Small, Class::Main]
                .into_iter()
                .flat_map(|class| (0..geometry.lanes(class)).map(move |lane| geometry.lane(class, lane)))
                .filter(|&at| {
                    let lane = self.region.word(at).load(Acquire);
                    lane >> 32 == segment as u64 + 1 && lane as u32 == state.generation()
                })
                .count();
            if lanes > 1 {
                return Err(Broken::Segment);
            }
        }
        Ok(())
    }

    fn validate_bucket(&self, bucket: u32) -> Result<(), Broken> {
        let geometry = &self.region.geometry;
        let ways = || (0..WAYS).map(|way| geometry.bucket(bucket) + way * 8);
        let entry = |at: u32| Entry(self.region.word(at).load(Acquire));
        for entry_at in ways().filter(|&at| entry(at).is_live()) {
            let hit = resolve(&self.region, entry_at, entry(entry_at)).ok_or(Broken::Dangling)?;
            let record = &hit.record;
            if record.generation != hit.generation || record.has(CHUNK) {
                return Err(Broken::Dangling);
            }
            let hash = record.hash(&self.region);
            if bucket_of(geometry, hash) != bucket || hash >> 48 != hit.entry.tag() {
                return Err(Broken::Misplaced);
            }
            if record.has(CHUNKED) && hit.entry.kind() != Kind::Mutable {
                return Err(Broken::Kind);
            }
            if record.has(CHUNKED) && self.is_current(record) {
                for i in 0..record.chunks() {
                    let place = Place(self.region.word(record.chunk_place_at(i)).load(Acquire));
                    // One that is gone makes the value a miss, which is allowed; a chunk of another value is not.
                    let chunk = self.chunk_at(place);
                    if chunk.is_some_and(|(_, chunk)| chunk.version(&self.region) != record.version(&self.region)) {
                        return Err(Broken::Chunk);
                    }
                }
            }
            let twin = ways().filter(|&at| at > entry_at && entry(at).is_live()).any(|at| {
                resolve(&self.region, at, entry(at)).is_some_and(|other| {
                    other.record.key_length == record.key_length
                        && other.record.flags >> KEY_KIND_SHIFT & 3 == record.flags >> KEY_KIND_SHIFT & 3
                        && (0..record.key_length.div_ceil(8)).all(|i| {
                            self.region.word(record.key_at + i * 8).load(Acquire)
                                == self.region.word(other.record.key_at + i * 8).load(Acquire)
                        })
                })
            });
            if twin {
                return Err(Broken::Duplicate);
            }
        }
        Ok(())
    }
}
