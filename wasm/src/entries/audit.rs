//! Compares the books with the truth, for tests: what the segments are said to hold with what the index finds in them.
//! Only meaningful while nobody writes.

use std::vec::Vec;

use crate::index::probe::{Entry, resolve};
use crate::format::layout::{Class, WAYS};
use crate::participant::participant::{Host, Participant};
use crate::format::record::{CHUNKED, Place};
use crate::format::segment::{Phase, State};
use crate::sync::Acquire;

/// One segment, as booked and as found.
#[derive(Clone, Copy, Debug)]
pub struct Audited {
    pub segment: u32,
    pub phase: Phase,
    pub class: Class,
    pub generation: u32,
    /// Live bytes as accounted for.
    pub booked: i64,
    /// Bytes of the records and chunks there that the index leads to.
    pub found: i64,
}

impl<H: Host> Participant<H> {
    pub fn audit(&self) -> Vec<Audited> {
        let geometry = &self.region.geometry;
        let mut audit: Vec<Audited> = (0..geometry.segments)
            .map(|segment| {
                let state = State(self.region.word(geometry.state(segment)).load(Acquire));
                let (phase, class, generation) = (state.phase(), state.class(), state.generation());
                let booked = self.live_bytes(segment, generation);
                Audited { segment, phase, class, generation, booked, found: 0 }
            })
            .collect();
        for way in (0..geometry.buckets * 16).filter(|way| way % 16 < WAYS) {
            let entry_at = geometry.bucket(0) + way * 8;
            let entry = Entry(self.region.word(entry_at).load(Acquire));
            let Some(hit) = entry.is_live().then(|| resolve(&self.region, entry_at, entry)).flatten() else {
                continue;
            };
            audit[hit.segment as usize].found += hit.record.length as i64;
            for i in 0..if hit.record.has(CHUNKED) { hit.record.chunks() } else { 0 } {
                let place = Place(self.region.word(hit.record.chunk_place_at(i)).load(Acquire));
                if let Some((segment, chunk)) = self.chunk_at(place) {
                    audit[segment as usize].found += chunk.length as i64;
                }
            }
        }
        audit
    }
}
