//! Reserving space in the log: writers append to the open segment of their lane with one fetch_add.
//!
//! A writer announces the segment in its hazard before it appends, and withdraws the announcement after its record is
//! published. A reclaimer changes the segment's state first, and reads the hazards second. Both do so with sequential
//! consistency, so one of them sees the other: bytes are never recycled under a writer, however long it is descheduled.

use crate::format::header::{FirstWord, LengthField};
use crate::format::layout::{Class, GRAIN, META_BUMP};
use crate::format::record::Space;
use crate::format::segment::{Lane, Phase, State};
use crate::log::policy::Pressure;
use crate::log::reclaim::{Reclaimed, WHOLE};
use crate::participant::lock::Busy;
use crate::participant::participant::{Host, Participant};
use crate::sync::{AcqRel, Acquire, Relaxed, SeqCst, fence};

/// Attempts to append before the writer pauses. The first attempt fails when the lane has no open segment with room. Each
/// later one fails only because another participant opened, filled or sealed a segment meanwhile.
const ROUNDS: u32 = 64;
/// Segments reclaimed for one append before reclaiming becomes relentless.
const PATIENT_RECLAIMS: u32 = 8;
/// Pauses of one append before reclaiming becomes firm. The first twenty or so are short.
const PATIENT_PAUSES: u32 = 48;
/// Pauses of one append before reclaiming becomes relentless. By then all that could be reclaimed is kept for large values
/// whose writers do not finish.
const FIRM_PAUSES: u32 = 64;

/// The purpose of reserved space. Relocation may use the reserve, and never starts another reclaim.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Write,
    Relocate,
}

impl<H: Host> Participant<H> {
    /// Reserves space for a record and writes its first word. On success the hazard of this participant names the segment
    /// until [`Participant::withdraw`]. Ends because the host limits the waiting.
    pub(crate) fn reserve(&self, class: Class, length_field: LengthField, purpose: Purpose) -> Result<Space, Busy> {
        let length = length_field.length();
        debug_assert!(length <= self.region.geometry.max_record);
        let lane_at = self.lane_at(class);
        if purpose == Purpose::Write && self.must_reclaim.get() {
            self.reclaim_ahead(length);
        }
        let mut attempt = 0;
        loop {
            for _ in 0..ROUNDS {
                // Acquire: pairs with the compare-and-swap in `open_lane`.
                let seen = Lane(self.region.word(lane_at).load(Acquire));
                if let Some((at, segment, generation)) = self.append(seen, length) {
                    // Before anything else, so that a walk can skip a record that is never finished. Ordered before the
                    // walk, which begins when the hazard is withdrawn, a Release, or when this participant is dead.
                    self.region.fill(at, FirstWord::new(length_field, generation).0);
                    return Ok(Space { at, room: length, segment, generation });
                }
                let pressure = match attempt {
                    0..PATIENT_PAUSES => Pressure::Patient,
                    PATIENT_PAUSES..FIRM_PAUSES => Pressure::Firm,
                    _ => Pressure::Relentless,
                };
                if !self.open_lane(class, lane_at, seen, purpose, pressure) {
                    break;
                }
            }
            if purpose == Purpose::Relocate || !self.host.pause(attempt) {
                return Err(Busy);
            }
            attempt += 1;
        }
    }

    /// Appends to the segment that a lane names, if that segment is still open in this life. Returns where the space lies,
    /// its segment and the generation.
    fn append(&self, lane: Lane, length: u32) -> Option<(u32, u32, u32)> {
        let geometry = &self.region.geometry;
        let segment = lane.segment(geometry.segments)?;
        let generation = lane.generation();
        self.announce(segment);
        // Sequentially consistent: pairs with `transfer`, which claims the segment before the hazards are read.
        let state = State(self.region.word(geometry.state(segment)).load(SeqCst));
        if state.phase() == Phase::Open && state.generation() == generation {
            // From here on the announcement keeps the segment in this life.
            let bump = self.region.word(geometry.meta(segment) + META_BUMP).fetch_add(length as u64, AcqRel);
            let bytes = geometry.segment_bytes() as u64;
            let room = if bump % GRAIN as u64 == 0 { bytes.saturating_sub(bump) } else { 0 };
            if length as u64 <= room {
                self.must_reclaim.set(self.must_reclaim.get() | geometry.passes_a_mark(bump as u32, length));
                return Some((geometry.segment(segment) + bump as u32, segment, generation));
            }
            if room > 0 {
                // The one append that crosses the end of the segment marks the end of its records. A walk that meets neither
                // a record nor this mark knows that a writer died before it wrote its first word.
                let at = geometry.segment(segment) + bump as u32;
                self.region.word(at).store(FirstWord::end(generation).0, Relaxed);
            }
            self.seal(segment, state);
        }
        self.withdraw();
        None
    }

    /// Puts a free segment into a lane whose word was `seen`. Returns whether the lane is worth another attempt: false when
    /// there is no free segment.
    #[cold]
    fn open_lane(&self, class: Class, lane_at: u32, seen: Lane, purpose: Purpose, pressure: Pressure) -> bool {
        let Some(segment) = self.free_segment(purpose, pressure) else {
            return false;
        };
        if self.region.word(lane_at).load(Acquire) != seen.0 {
            return true;
        }
        let word = self.region.word(self.region.geometry.state(segment));
        let free = State(word.load(Acquire));
        if free.phase() != Phase::Free {
            return true;
        }
        let open = State::new(Phase::Open, class, self.seat, self.incarnation.get(), free.generation());
        if word.compare_exchange(free.0, open.0, SeqCst, Relaxed).is_err() {
            return true;
        }
        // Orders the new generation before the first byte that is written into the segment. Pairs with the fence between a
        // reader's copy and its validating load (`Region::copy_out`). A release store would not do: the bytes come after it.
        fence(SeqCst);
        self.reset_live(segment, free.generation());
        // A participant that dies here leaves an open segment that is in no lane: the next reclaimer seals it.
        let lane = Lane::new(segment, free.generation());
        if self.region.word(lane_at).compare_exchange(seen.0, lane.0, AcqRel, Relaxed).is_err() {
            // Nobody can have appended to the segment, because it was in no lane in this life.
            let _ = word.compare_exchange(open.0, State::free(free.generation()).0, SeqCst, Relaxed);
        }
        true
    }

    /// Reclaims a step before the room is needed, in proportion to the bytes that are about to be appended. So a write
    /// hardly ever has to reclaim a whole segment.
    #[cold]
    fn reclaim_ahead(&self, length: u32) {
        if self.pending_of(self.seat).load(Relaxed) != 0 {
            // The chunks of the large value that this participant is writing would block the walk.
            return;
        }
        let enough = self.region.geometry.reserve + self.lanes_nearly_full();
        if self.unfinished.get().is_none() && self.count_free(enough - 1).0 >= enough
            // When nothing can be reclaimed, that may last: so this participant stops until it crosses the next mark.
            || self.reclaim(Pressure::Patient, self.region.geometry.pace * length) == Reclaimed::Nothing
        {
            self.must_reclaim.set(false);
        }
    }

    /// A free segment that may be used for this purpose, reclaimed first if necessary.
    fn free_segment(&self, purpose: Purpose, pressure: Pressure) -> Option<u32> {
        let reserve = if purpose == Purpose::Relocate { 0 } else { self.region.geometry.reserve };
        for round in 0..=2 * PATIENT_RECLAIMS + reserve {
            let (count, first) = self.count_free(reserve);
            if count > reserve {
                return first;
            }
            if purpose == Purpose::Relocate {
                return None;
            }
            // A segment of hot records is moved, which frees nothing. The records lose heat with it, so a later reclaim can
            // evict them, but that may take too long: after this many rounds nothing is kept.
            let pressure = if round < PATIENT_RECLAIMS { pressure } else { Pressure::Relentless };
            if self.reclaim(pressure, WHOLE) == Reclaimed::Nothing {
                return None;
            }
        }
        None
    }

    /// Counts the free segments, up to one more than `enough`, and names one of them. Participants start at different
    /// segments, so that they do not compete for the same one.
    fn count_free(&self, enough: u32) -> (u32, Option<u32>) {
        let geometry = &self.region.geometry;
        let start = self.seat.wrapping_mul(7) % geometry.segments;
        let mut count = 0;
        let mut found = None;
        for i in 0..geometry.segments {
            let segment = (start + i) % geometry.segments;
            if State(self.region.word(geometry.state(segment)).load(Relaxed)).phase() == Phase::Free {
                found = found.or(Some(segment));
                count += 1;
                if count > enough {
                    break;
                }
            }
        }
        (count, found)
    }
}
