//! Which segment is reclaimed next, and which of its records are kept: S3-FIFO (Yang et al., SOSP 2023) over segments
//! instead of single entries, and compaction.
//!
//! New records go to *small* segments. When a small segment is reclaimed, records that were read at least twice move to
//! *main*, and the others leave a ghost in the index. A key that is set again while its ghost stands goes to main at once.
//! When a main segment is reclaimed, records that were read since move on with less heat, and the others go.
//!
//! A segment that is mostly dead bytes (overwritten, deleted) is compacted first, whatever its age: all of its live records
//! move. Without compaction, overwriting one key for ever would evict all other keys.

use crate::format::layout::{Class, GRAIN, MAX_SEGMENTS, META_SEALING};
use crate::format::segment::{Phase, Sealing, State};
use crate::participant::participant::{Host, Participant};
use crate::sync::{Acquire, Relaxed, Word};

/// Reads that a record in the small queue needs to move to main (the paper's `freq > 1`).
const PROMOTE: u64 = 2;

/// How much is kept of a segment that is reclaimed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// What the policy says. When there is no room for what is to be kept while others reclaim too, the writer waits for
    /// them: they are about to free segments, and evicting records that would have fitted helps nobody.
    Patient,
    /// What the policy says, as far as there is room.
    Firm,
    /// Nothing: too much was moved, or waited for, without making room.
    Relentless,
}

/// Which live records of a victim are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    All,
    Hot,
    Nothing,
}

/// How a victim is walked.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub keep: Keep,
    pub pressure: Pressure,
}

impl Plan {
    /// For a segment that is reclaimed because of its age.
    fn by_age(pressure: Pressure) -> Plan {
        Plan { keep: if pressure == Pressure::Relentless { Keep::Nothing } else { Keep::Hot }, pressure }
    }
}

/// A segment to reclaim.
pub(crate) struct Victim {
    pub segment: u32,
    pub state: State,
    pub plan: Plan,
}

/// Where a live record moves to, and how much heat it loses; `None` when it is evicted.
pub(crate) fn destination(keep: Keep, class: Class, heat: u64) -> Option<(Class, u64)> {
    match (keep, class) {
        (Keep::Nothing, _) => None,
        (Keep::All, class) => Some((class, 0)),
        (Keep::Hot, Class::Small) if heat >= PROMOTE => Some((Class::Main, heat)),
        (Keep::Hot, Class::Main) if heat >= 1 => Some((Class::Main, 1)),
        (Keep::Hot, _) => None,
    }
}

/// How far a segment was walked before it was put back, and with which plan: the offset that was reached, a multiple of
/// sixteen, and in its lowest bit whether all live records are kept.
#[derive(Clone, Copy)]
pub(crate) struct Progress(u32);

impl Progress {
    pub fn new(offset: u32, keep: Keep) -> Progress {
        Progress(offset | (keep == Keep::All) as u32)
    }

    pub fn offset(self) -> u32 {
        self.0 & !(GRAIN - 1)
    }

    /// The plan that the segment was begun with, unless the pressure has risen too far for it.
    fn plan(self, pressure: Pressure) -> Plan {
        match pressure {
            Pressure::Patient | Pressure::Firm if self.0 & 1 == 1 => Plan { keep: Keep::All, pressure },
            _ => Plan::by_age(pressure),
        }
    }
}

/// The segments that one reclaim has tried in vain: pinned, blocked, or owned by a living participant. There is a bit for
/// every segment, so one reclaim can try every segment.
pub(crate) struct Tried([u64; MAX_SEGMENTS as usize / 64]);

impl Tried {
    pub fn none() -> Tried {
        Tried([0; MAX_SEGMENTS as usize / 64])
    }

    pub fn add(&mut self, segment: u32) {
        self.0[(segment / 64) as usize] |= 1 << (segment % 64);
    }

    fn has(&self, segment: u32) -> bool {
        self.0[(segment / 64) as usize] >> (segment % 64) & 1 == 1
    }
}

impl<H: Host> Participant<H> {
    fn sealing_word(&self, segment: u32) -> &Word {
        self.region.word(self.region.geometry.meta(segment) + META_SEALING)
    }

    /// How far a segment was walked before it was put back. What lies before that point cannot be live again in this life.
    pub(crate) fn progress(&self, segment: u32) -> Progress {
        Progress(Sealing(self.sealing_word(segment).load(Relaxed)).progress())
    }

    /// Stores how far this participant has walked a segment. It owns the RECLAIM state of the segment.
    pub(crate) fn set_progress(&self, segment: u32, progress: Progress) {
        let word = self.sealing_word(segment);
        word.store(Sealing(word.load(Relaxed)).with_progress(progress.0).0, Relaxed);
    }

    /// The victim to go on with, if `segment` was put back after a step; `None` when it has to be chosen like any other.
    pub(crate) fn resumable(&self, segment: u32, pressure: Pressure) -> Option<Victim> {
        let state = State(self.region.word(self.region.geometry.state(segment)).load(Acquire));
        let progress = self.progress(segment);
        // A relentless reclaimer takes the oldest segment instead: this one may have been put back because of a large value
        // that is being written.
        let goes_on = state.phase() == Phase::Sealed && progress.offset() > 0 && pressure != Pressure::Relentless;
        goes_on.then(|| Victim { segment, state, plan: progress.plan(pressure) })
    }

    /// Chooses the next victim by scanning the table of states. There are no lists, so there is nothing to repair after a
    /// crash. Segments that cannot be reclaimed are added to `tried`.
    pub(crate) fn choose_victim(&self, tried: &mut Tried, pressure: Pressure) -> Option<Victim> {
        let geometry = &self.region.geometry;
        let mut emptiest: Option<(i64, u32, State)> = None;
        let mut oldest: [Option<(u64, u32, State)>; 2] = [None; 2];
        let mut small_segments = 0;
        let clear_epoch = self.clear_epoch();
        for segment in 0..geometry.segments {
            let state = State(self.region.word(geometry.state(segment)).load(Acquire));
            if state.phase() != Phase::Free && state.class() == Class::Small {
                small_segments += 1;
            }
            if tried.has(segment) {
                continue;
            }
            match state.phase() {
                Phase::Free => {}
                // Seals a segment whose opener died before it put the segment into a lane.
                Phase::Open => {
                    if !self.is_in_a_lane(segment, state.generation()) && self.owner_is_gone(state) {
                        self.seal(segment, state);
                    } else {
                        tried.add(segment);
                    }
                }
                // Goes on with a segment whose reclaimer died.
                Phase::Reclaim => {
                    if self.owner_is_gone(state) {
                        let progress = self.progress(segment);
                        // The plan of a reclaimer that died in its first step was stored nowhere.
                        let compact =
                            progress.offset() == 0 && self.is_mostly_dead(self.live_bytes(segment, state.generation()));
                        let progress = if compact { Progress::new(0, Keep::All) } else { progress };
                        return Some(Victim { segment, state, plan: progress.plan(pressure) });
                    }
                    tried.add(segment);
                }
                Phase::Sealed => {
                    if let Some(begun) = self.resumable(segment, pressure) {
                        return Some(begun);
                    }
                    // In a segment that was sealed before the last `clear`, hardly any record can still be live, whatever its
                    // live bytes say: only one that its writer has renewed since.
                    let cleared = Sealing(self.sealing_word(segment).load(Relaxed)).clear_epoch() != clear_epoch;
                    let live = if cleared { 0 } else { self.live_bytes(segment, state.generation()) };
                    if emptiest.is_none_or(|(least, ..)| live < least) {
                        emptiest = Some((live, segment, state));
                    }
                    let sequence = self.sequence(segment);
                    let queue = &mut oldest[state.class() as usize];
                    if queue.is_none_or(|(first, ..)| sequence < first) {
                        *queue = Some((sequence, segment, state));
                    }
                }
            }
        }
        let (live, segment, state) = emptiest?;
        if self.is_mostly_dead(live) && pressure != Pressure::Relentless {
            return Some(Victim { segment, state, plan: Plan { keep: Keep::All, pressure } });
        }
        let [small, main] = oldest;
        let (_, segment, state) =
            if small_segments * 10 > geometry.segments { small.or(main) } else { main.or(small) }?;
        Some(Victim { segment, state, plan: Plan::by_age(pressure) })
    }

    /// Whether a segment with this many live bytes is worth compacting.
    fn is_mostly_dead(&self, live: i64) -> bool {
        live * 2 <= self.region.geometry.segment_bytes() as i64
    }
}
