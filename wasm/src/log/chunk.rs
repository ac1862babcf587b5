//! The chunks of large values in the log: who they belong to, and how they move. They stand in no index; what keeps a
//! chunk is the head that lists it, or, before there is one, the participant that is still writing the value.

use crate::log::append::Purpose;
use crate::index::probe::{Entry, Hit, Kind, bucket_of, resolve, still};
use crate::format::layout::{Class, WAYS};
use crate::participant::lock::Busy;
use crate::participant::participant::{Host, Participant};
use crate::format::record::{CHUNK, CHUNKED, Place, Record};
use crate::format::segment::{Phase, State};
use crate::sync::{Acquire, Relaxed, SeqCst};

impl<H: Host> Participant<H> {
    /// The chunk record at a place, if its segment is still in that life, and the segment.
    pub(crate) fn chunk_at(&self, place: Place) -> Option<(u32, Record)> {
        let geometry = &self.region.geometry;
        let segment = geometry.segment_of(place.at())?;
        let state = State(self.region.word(geometry.state(segment)).load(Acquire));
        if state.generation() != place.generation() || state.phase() == Phase::Free {
            return None;
        }
        let chunk = Record::read(&self.region, place.at(), geometry.segment(segment + 1))?;
        (chunk.has(CHUNK) && chunk.generation == place.generation()).then_some((segment, chunk))
    }

    /// The head that lists this chunk, and where it does. Needs the bucket's lock.
    pub(crate) fn head_of(&self, chunk: &Record, hash: u64) -> Option<(Hit, u32)> {
        let geometry = &self.region.geometry;
        let bucket = geometry.bucket(bucket_of(geometry, hash));
        let version = chunk.version(&self.region);
        (0..WAYS).map(|way| bucket + way * 8).find_map(|entry_at| {
            let entry = Entry(self.region.word(entry_at).load(Acquire));
            if entry.kind() != Kind::Mutable {
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
            let place_at = head.record.chunk_place_at(number);
            let place = Place(self.region.word(place_at).load(Acquire));
            (place == Place::new(chunk.at, chunk.generation)).then_some((head, place_at))
        })
    }

    /// Looks without the lock whether a chunk can belong to an entry: a frozen writer who holds the lock of a bucket must
    /// not keep the dead chunks of all its large values. A head that is published meanwhile is its writer's business.
    pub(crate) fn may_be_listed(&self, chunk: &Record, hash: u64) -> bool {
        let bucket = self.region.geometry.bucket(bucket_of(&self.region.geometry, hash));
        (0..WAYS).map(|way| bucket + way * 8).any(|entry_at| {
            // Sequentially consistent: meets `index::replace`.
            let entry = Entry(self.region.word(entry_at).load(SeqCst));
            entry.kind() == Kind::Mutable
                && resolve(&self.region, entry_at, entry).is_none_or(|head| {
                    head.record.version(&self.region) == chunk.version(&self.region) || !still(&self.region, &head)
                })
        })
    }

    /// Whether a living participant is still writing the large value of this version; of any version, if none is given.
    pub(crate) fn is_pending(&self, version: Option<u64>) -> bool {
        let is_meant = |pending: u64| pending != 0 && version.is_none_or(|version| version == pending);
        (0..self.used_slots())
            .any(|slot| is_meant(self.pending_of(slot).load(Relaxed)) && (slot == self.slot || !self.bury(slot)))
    }

    /// Copies a chunk to the open segment of another class and lets its head point there, whose bucket is locked.
    pub(crate) fn move_chunk(&self, chunk: &Record, place_at: u32, class: Class) -> Result<(), Busy> {
        if chunk.length > self.region.geometry.max_record {
            // Foreign bytes.
            return Err(Busy);
        }
        let space = self.reserve(class, chunk.length_field(&self.region), Purpose::Relocate)?;
        self.region.copy_within(chunk.at + 8, space.at + 8, chunk.length - 8);
        // Release: publishes the copy; meets the acquire load of whoever reads the chunk.
        self.region.word(place_at).store(Place::new(space.at, space.generation).0, SeqCst);
        self.add_live(&space, chunk.length);
        if let Some(segment) = self.region.geometry.segment_of(chunk.at) {
            self.take_live(segment, chunk.generation, chunk.length);
        }
        self.withdraw();
        Ok(())
    }

    /// Takes the chunks of a large value off the books, just before its head leaves the index: afterwards nothing keeps
    /// the list where it is. Its bucket is locked, so nobody else can take the head away meanwhile.
    pub(crate) fn retire_chunks(&self, hit: &Hit) {
        if hit.record.has(CHUNKED) && hit.entry.kind() == Kind::Mutable {
            for i in 0..hit.record.chunks() {
                let place = Place(self.region.word(hit.record.chunk_place_at(i)).load(Acquire));
                if let Some((segment, chunk)) = self.chunk_at(place) {
                    self.take_live(segment, place.generation(), chunk.length);
                }
            }
        }
    }
}
