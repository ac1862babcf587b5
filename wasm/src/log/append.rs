//! Space in the log: writers append to the open segment of their lane with one fetch_add.
//!
//! A writer announces the segment in its hazard word before it appends, and the announcement stays until its record is
//! published. The reclaimer changes the segment's state first and looks at the hazards second; both with sequential
//! consistency, so one of them sees the other, and bytes are never recycled under a writer, however long it sleeps.

use crate::log::evict::{Pressure, Reclaimed, WHOLE};
use crate::format::layout::{Class, GHOST_CLOCK_AT, META_BUMP, META_EPOCH, META_LIVE, META_SEALED, SEAL_SEQUENCE_AT};
use crate::participant::lock::Busy;
use crate::participant::participant::{Host, Participant};
use crate::format::record::{END, Space, first_word};
use crate::format::segment::{Phase, State};
use crate::sync::{AcqRel, Acquire, Relaxed, SeqCst, fence};

/// Times a lane is looked at before the writer pauses. Each round fails only because another participant opened,
/// filled or sealed a segment meanwhile.
const ROUNDS: u32 = 64;
/// Segments reclaimed for one append before reclaiming turns relentless, and before it gives up.
const PATIENCE: u32 = 8;
/// Pauses in which the writer hopes for the others; the first twenty or so are short.
const PATIENT: u32 = 48;
/// Pauses after which reclaiming turns relentless as well: by then all that could be reclaimed is kept for large values
/// that somebody is writing, and does not finish.
const FIRM: u32 = 64;

/// Who asks for space: relocation may use the reserve and never starts another reclaim.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Write,
    Relocate,
}

/// Live bytes are kept with this added, so that going below zero does not borrow from the generation beside them.
const NO_LIVE_BYTES: u32 = 1 << 31;
/// Tries to change the live bytes of a segment.
const BOOKINGS: u32 = 10_000;

fn no_live_bytes(generation: u32) -> u64 {
    (generation as u64) << 32 | NO_LIVE_BYTES as u64
}

fn lane_word(segment: u32, generation: u32) -> u64 {
    (segment as u64 + 1) << 32 | generation as u64
}

impl<H: Host> Participant<H> {
    /// Reserves space for a record with this length field and writes its first word. On success the hazard names the
    /// segment, until [`Participant::withdraw`].
    pub(crate) fn reserve(&self, class: Class, length_field: u32, purpose: Purpose) -> Result<Space, Busy> {
        let length = length_field & !15;
        debug_assert!(length <= self.region.geometry.max_record);
        let lane_at = self.lane_at(class);
        if purpose == Purpose::Write && self.owes.get() {
            self.pay(length);
        }
        let mut attempt = 0;
        loop {
            for _ in 0..ROUNDS {
                let seen = self.region.word(lane_at).load(Acquire);
                if let Some((at, segment, generation)) = self.append(seen, length) {
                    // Before anything else, so that a walker can step over a record that is never finished. No walker comes
                    // before the hazard is withdrawn, which is a release, or its owner is dead.
                    self.region.fill(at, first_word(length_field, generation));
                    return Ok(Space { at, room: length, segment, generation });
                }
                let pressure = match attempt {
                    0..PATIENT => Pressure::Patient,
                    PATIENT..FIRM => Pressure::Firm,
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

    /// Appends to the segment that a lane word names, if it is still open in that life.
    fn append(&self, lane: u64, length: u32) -> Option<(u32, u32, u32)> {
        let geometry = &self.region.geometry;
        let segment = ((lane >> 32) as u32).checked_sub(1).filter(|&segment| segment < geometry.segments)?;
        let generation = lane as u32;
        self.announce(segment);
        let state = State(self.region.word(geometry.state(segment)).load(SeqCst));
        if state.phase() == Phase::Open && state.generation() == generation {
            // The announcement holds the segment in this life from here on.
            let bump = self.region.word(geometry.meta(segment) + META_BUMP).fetch_add(length as u64, AcqRel);
            let bytes = geometry.segment_bytes() as u64;
            let room = if bump % 16 == 0 { bytes.saturating_sub(bump) } else { 0 };
            if length as u64 <= room {
                self.owes.set(self.owes.get() | geometry.passes_a_mark(bump as u32, length));
                return Some((geometry.segment(segment) + bump as u32, segment, generation));
            }
            if room > 0 {
                // The one append that crosses the end marks where the records end: a walker that finds no mark knows
                // that a writer died before its first word.
                let at = geometry.segment(segment) + bump as u32;
                self.region.word(at).store(first_word(END, generation), Relaxed);
            }
            self.seal(segment, state);
        }
        self.withdraw();
        None
    }

    pub(crate) fn seal(&self, segment: u32, state: State) {
        let word = self.region.word(self.region.geometry.state(segment));
        if word.load(Acquire) != state.0 {
            return;
        }
        let sequence = self.region.word(SEAL_SEQUENCE_AT).fetch_add(1, Relaxed);
        if state.class() == Class::Small {
            self.region.word(GHOST_CLOCK_AT).fetch_add(1, Relaxed);
        }
        // Late stores here can hit the next life of the segment; they only make that life look older or younger.
        let meta = self.region.geometry.meta(segment);
        self.region.word(meta + META_SEALED).store(sequence, Relaxed);
        self.region.word(meta + META_EPOCH).store(self.clear_epoch() as u64, Relaxed);
        let sealed = state.to(Phase::Sealed, 0, 0);
        let _ = word.compare_exchange(state.0, sealed.0, SeqCst, Relaxed);
    }

    /// Puts a fresh segment into a lane whose word was `seen`. True when the lane is worth another look.
    #[cold]
    fn open_lane(&self, class: Class, lane_at: u32, seen: u64, purpose: Purpose, pressure: Pressure) -> bool {
        let Some(segment) = self.free_segment(purpose, pressure) else {
            return false;
        };
        if self.region.word(lane_at).load(Acquire) != seen {
            return true;
        }
        let word = self.region.word(self.region.geometry.state(segment));
        let free = State(word.load(Acquire));
        if free.phase() != Phase::Free {
            return true;
        }
        let open = State::new(Phase::Open, class, self.slot, self.epoch.get(), free.generation());
        if word.compare_exchange(free.0, open.0, SeqCst, Relaxed).is_err() {
            return true;
        }
        // Orders the new generation before the first byte written into the segment; meets the fence between a reader's
        // copy and its validating load. A release store would not do: those bytes come after it.
        fence(SeqCst);
        let live = self.region.word(self.region.geometry.meta(segment) + META_LIVE);
        live.store(no_live_bytes(free.generation()), Relaxed);
        // Dying here leaves an open segment in no lane, with a dead owner: the next reclaimer seals it.
        let lane = lane_word(segment, free.generation());
        if self.region.word(lane_at).compare_exchange(seen, lane, AcqRel, Relaxed).is_err() {
            // Nobody could append to it, as it never was in a lane in this life.
            let _ = word.compare_exchange(open.0, State::free(free.generation()).0, SeqCst, Relaxed);
        }
        true
    }

    /// Reclaims a step ahead of need, in proportion to what is about to be appended, so that hardly ever one write has to
    /// empty a whole segment.
    #[cold]
    fn pay(&self, length: u32) {
        if self.pending_of(self.slot).load(Relaxed) != 0 {
            // The chunks of its own large value are in the way.
            return;
        }
        let enough = self.region.geometry.reserve + self.lanes_nearly_full();
        if self.begun.get().is_none() && self.count_free(enough - 1).0 >= enough
            // What stands in the way may stand there for long.
            || self.reclaim(Pressure::Patient, self.region.geometry.pace * length) == Reclaimed::Nothing
        {
            self.owes.set(false);
        }
    }

    /// How many lanes need another segment soon, this participant's among them.
    fn lanes_nearly_full(&self) -> u32 {
        let geometry = &self.region.geometry;
        let is_nearly_full = |lane_at: u32| {
            let segment = (self.region.word(lane_at).load(Relaxed) >> 32) as u32;
            let bump = |segment| self.region.word(geometry.meta(segment) + META_BUMP).load(Relaxed);
            segment
                .checked_sub(1)
                .filter(|&segment| segment < geometry.segments)
                .is_some_and(|segment| bump(segment) >= geometry.nearly_full() as u64)
        };
        let lanes = [Class::Small, Class::Main].into_iter();
        let lanes = lanes.flat_map(|class| (0..geometry.lanes(class)).map(move |lane| geometry.lane(class, lane)));
        lanes.filter(|&lane_at| is_nearly_full(lane_at)).count().max(1) as u32
    }

    /// A segment that is free and may be used for this purpose, after reclaiming if need be.
    fn free_segment(&self, purpose: Purpose, pressure: Pressure) -> Option<u32> {
        let reserve = if purpose == Purpose::Relocate { 0 } else { self.region.geometry.reserve };
        for round in 0..=2 * PATIENCE + reserve {
            let (count, first) = self.count_free(reserve);
            if count > reserve {
                return first;
            }
            if purpose == Purpose::Relocate {
                return None;
            }
            // Hot segments are moved rather than freed, and cool with every move; past the patience all goes.
            let pressure = if round < PATIENCE { pressure } else { Pressure::Relentless };
            if self.reclaim(pressure, WHOLE) == Reclaimed::Nothing {
                return None;
            }
        }
        None
    }

    /// Counts free segments up to one more than `enough`, and names one. Each participant starts looking elsewhere.
    fn count_free(&self, enough: u32) -> (u32, Option<u32>) {
        let geometry = &self.region.geometry;
        let start = self.slot.wrapping_mul(7) % geometry.segments;
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

    /// Whether some lane names this segment in this life.
    pub(crate) fn in_a_lane(&self, segment: u32, generation: u32) -> bool {
        let geometry = &self.region.geometry;
        [Class::Small, Class::Main].into_iter().any(|class| {
            (0..geometry.lanes(class)).any(|lane| {
                self.region.word(geometry.lane(class, lane)).load(Acquire) == lane_word(segment, generation)
            })
        })
    }

    /// Books `bytes` of a record that was just published in `space`, which this participant's hazard still names.
    ///
    /// Live bytes are exact as long as nobody dies. After a death they may be wrong until the segment is reclaimed, and
    /// then only the choice of a victim suffers.
    pub(crate) fn add_live(&self, space: &Space, bytes: u32) {
        self.region.word(self.region.geometry.meta(space.segment) + META_LIVE).fetch_add(bytes as u64, Relaxed);
    }

    /// Takes `bytes` of a record that is no longer live off the books. The segment may have been recycled since, which
    /// the generation tells.
    pub(crate) fn take_live(&self, segment: u32, generation: u32, bytes: u32) {
        let word = self.region.word(self.region.geometry.meta(segment) + META_LIVE);
        let mut seen = word.load(Relaxed);
        // Each failure is somebody else's success; far more of them than there can be participants are foreign bytes.
        for _ in 0..BOOKINGS {
            if (seen >> 32) as u32 != generation {
                return;
            }
            match word.compare_exchange_weak(seen, seen.wrapping_sub(bytes as u64), Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Live bytes of a segment as booked; below zero while a record was replaced before its writer had booked it.
    pub(crate) fn live_bytes(&self, segment: u32, generation: u32) -> i64 {
        let word = self.region.word(self.region.geometry.meta(segment) + META_LIVE).load(Relaxed);
        if (word >> 32) as u32 == generation { word as u32 as i64 - NO_LIVE_BYTES as i64 } else { 0 }
    }
}
