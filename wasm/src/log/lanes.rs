//! Lanes: which segments writers append to, and sealing a segment, after which nobody appends to it. Each class has a few
//! lanes, so that writers on different processors do not meet at one segment.

use crate::format::layout::{
    Class, GHOST_CLOCK_AT, Geometry, META_BUMP, META_SEALING, META_SEQUENCE, SEAL_SEQUENCE_AT,
};
use crate::format::segment::{Lane, Sealing, State};
use crate::participant::participant::{Host, Participant};
use crate::sync::{Acquire, Relaxed, SeqCst};

/// Where the words of all lanes lie.
pub fn lanes(geometry: &Geometry) -> impl Iterator<Item = u32> {
    let of_class = move |class| (0..geometry.lanes(class)).map(move |lane| geometry.lane(class, lane));
    [Class::Small, Class::Main].into_iter().flat_map(of_class)
}

impl<H: Host> Participant<H> {
    /// Where the word of the lane lies that this participant appends to.
    pub(crate) fn lane_at(&self, class: Class) -> u32 {
        let geometry = &self.region.geometry;
        geometry.lane(class, self.seat % geometry.lanes(class))
    }

    /// Whether a lane names this segment in this life.
    pub(crate) fn is_in_a_lane(&self, segment: u32, generation: u32) -> bool {
        let lane = Lane::new(segment, generation);
        lanes(&self.region.geometry).any(|lane_at| Lane(self.region.word(lane_at).load(Acquire)) == lane)
    }

    /// How many lanes need another segment soon. At least one: this participant asks because its own lane does.
    pub(crate) fn lanes_nearly_full(&self) -> u32 {
        let geometry = &self.region.geometry;
        let is_nearly_full = |lane_at: u32| {
            let lane = Lane(self.region.word(lane_at).load(Relaxed));
            let bump = |segment| self.region.word(geometry.meta(segment) + META_BUMP).load(Relaxed);
            lane.segment(geometry.segments).is_some_and(|segment| bump(segment) >= geometry.nearly_full() as u64)
        };
        lanes(geometry).filter(|&lane_at| is_nearly_full(lane_at)).count().max(1) as u32
    }

    /// OPEN → SEALED, unless the segment has left `state` meanwhile.
    pub(crate) fn seal(&self, segment: u32, state: State) {
        let word = self.region.word(self.region.geometry.state(segment));
        if word.load(Acquire) != state.0 {
            return;
        }
        let sequence = self.region.word(SEAL_SEQUENCE_AT).fetch_add(1, Relaxed);
        if state.class() == Class::Small {
            self.region.word(GHOST_CLOCK_AT).fetch_add(1, Relaxed);
        }
        // A late store here can hit the next life of the segment. That life then looks older, younger or emptier than it is,
        // or its walk begins again. None of that loses a record.
        let meta = self.region.geometry.meta(segment);
        self.region.word(meta + META_SEQUENCE).store(sequence, Relaxed);
        self.region.word(meta + META_SEALING).store(Sealing::new(self.clear_epoch()).0, Relaxed);
        // Failing is harmless: another participant has sealed the segment.
        let _ = word.compare_exchange(state.0, state.sealed().0, SeqCst, Relaxed);
    }

    /// How many segments had been sealed when this one was.
    pub(crate) fn sequence(&self, segment: u32) -> u64 {
        self.region.word(self.region.geometry.meta(segment) + META_SEQUENCE).load(Relaxed)
    }

    /// How many segments were sealed so far: whatever is appended from now on lies in a segment whose `sequence` is no less,
    /// because nothing can be appended to a segment that somebody is sealing.
    pub(crate) fn sealed_so_far(&self) -> u64 {
        self.region.word(SEAL_SEQUENCE_AT).load(Relaxed)
    }

    /// The ghost clock: how many segments of the small queue were sealed so far. Two participants that seal one segment at
    /// the same time count it twice, which does no harm. Segments of main do not count. As in the paper, a ghost is remembered
    /// until as much has gone through the small queue as the cache holds.
    pub(crate) fn ghost_clock(&self) -> u64 {
        self.region.word(GHOST_CLOCK_AT).load(Relaxed)
    }
}
