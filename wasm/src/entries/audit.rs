//! What tests ask of the engine and the engine does not need: it compares the live bytes of each segment with the bytes in it to
//! which the index leads, which is only meaningful while nobody writes, and tells whether an entry was invalidated since.

use std::vec::Vec;

use crate::format::header::CHUNKED;
use crate::format::layout::Class;
use crate::format::segment::{Phase, State};
use crate::index::key::Key;
use crate::index::probe::{Probe, entries_of, load_entry, probe, resolve};
use crate::participant::participant::{Host, Participant};
use crate::sync::Acquire;

/// The accounts of one segment, and what the index shows.
#[derive(Clone, Copy, Debug)]
pub struct Audited {
    pub segment: u32,
    pub phase: Phase,
    pub class: Class,
    pub generation: u32,
    /// Live bytes by the meta word of the segment.
    pub accounted: i64,
    /// Bytes of the records and chunks in the segment to which the index leads.
    pub found: i64,
}

impl<H: Host> Participant<H> {
    /// [`Participant::invalidated_since`] of the record of `key`, fresh or not; `None` when there is none.
    pub fn entry_invalidated_since(&self, key: &Key, start: u32) -> Option<bool> {
        match probe(&self.region, key) {
            Probe::Hit(hit) => Some(self.invalidated_since(&hit.record, start)),
            _ => None,
        }
    }

    /// Audits all segments.
    pub fn audit(&self) -> Vec<Audited> {
        let geometry = &self.region.geometry;
        let mut audit: Vec<Audited> = (0..geometry.segments)
            .map(|segment| {
                let state = State(self.region.word(geometry.state(segment)).load(Acquire));
                let (phase, class, generation) = (state.phase(), state.class(), state.generation());
                let accounted = self.live_bytes(segment, generation);
                Audited { segment, phase, class, generation, accounted, found: 0 }
            })
            .collect();
        for entry_at in (0..geometry.buckets).flat_map(|bucket| entries_of(geometry, bucket)) {
            let entry = load_entry(&self.region, entry_at);
            let Some(hit) = entry.is_live().then(|| resolve(&self.region, entry_at, entry)).flatten() else {
                continue;
            };
            audit[hit.segment as usize].found += hit.record.length as i64;
            for i in 0..if hit.record.has(CHUNKED) { hit.record.chunks() } else { 0 } {
                if let Some((segment, chunk)) = self.chunk_at(hit.record.chunk_place(&self.region, i)) {
                    audit[segment as usize].found += chunk.length as i64;
                }
            }
        }
        audit
    }
}
