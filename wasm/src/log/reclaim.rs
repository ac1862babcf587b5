//! Reclaiming: SEALED → RECLAIM → FREE, in steps.
//!
//! A writer that has crossed a mark walks a few records of a segment with each write, so that hardly any write has to wait
//! for a whole segment. Between two steps the segment is sealed as before, and nobody owns it. Its progress is stored beside
//! it, so that any participant can go on. No entry points to a place before the progress, and none ever will in this life of
//! the segment: entries are made only for records that were appended while the segment was open, and the walk has begun after
//! these writers had withdrawn their hazards or died.
//!
//! Every step can be interrupted, and done again by another participant: a record that was already moved or dropped is not
//! found in the index the second time.

use crate::format::layout::{Counter, META_BUMP};
use crate::format::segment::{Phase, State};
use crate::log::policy::{Keep, Pressure, Tried, Victim};
use crate::log::walk::{Blocked, Walked};
use crate::participant::participant::{Host, Participant};
use crate::sync::{Relaxed, SeqCst, fence};

/// The `step` of a reclaim that walks a whole segment.
pub(crate) const WHOLE: u32 = u32::MAX;

/// The result of a reclaim.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reclaimed {
    /// A segment was freed.
    Segment,
    /// A segment was walked a step further.
    Step,
    /// Nothing was freed: living participants hold on to every sealed segment, or the reclaimer should wait.
    Nothing,
}

impl<H: Host> Participant<H> {
    /// Frees one segment, or walks about `step` bytes of one. Prefers the segment that this participant has begun.
    pub(crate) fn reclaim(&self, pressure: Pressure, step: u32) -> Reclaimed {
        let begun = self.unfinished.take().and_then(|segment| self.resumable(segment, pressure));
        let reclaimed = begun.as_ref().and_then(|victim| self.reclaim_victim(victim, step));
        reclaimed.unwrap_or_else(|| self.reclaim_any(pressure, step, begun))
    }

    /// Frees or walks whichever segment the policy chooses, other than `except`. Ends because no segment is tried twice.
    #[inline(never)]
    fn reclaim_any(&self, pressure: Pressure, step: u32, except: Option<Victim>) -> Reclaimed {
        let mut tried = Tried::none();
        if let Some(victim) = except {
            tried.add(victim.segment);
        }
        while let Some(victim) = self.choose_victim(&mut tried, pressure) {
            tried.add(victim.segment);
            if let Some(reclaimed) = self.reclaim_victim(&victim, step) {
                return reclaimed;
            }
        }
        Reclaimed::Nothing
    }

    /// Frees or walks one segment; `None` when another segment should be tried.
    fn reclaim_victim(&self, victim: &Victim, step: u32) -> Option<Reclaimed> {
        let mine = self.claim_segment(victim)?;
        let walked = if self.is_pinned(victim.segment) {
            Err(Blocked::Held)
        } else {
            self.walk(victim.segment, mine, victim.plan, step)
        };
        if let Ok(Walked::All) = walked {
            self.free(victim.segment, mine);
            self.count(Counter::Reclaims, 1);
            if victim.plan.keep == Keep::All {
                self.count(Counter::Compactions, 1);
            }
            return Some(Reclaimed::Segment);
        }
        // Put back. Records that were already moved or dropped stay so.
        self.transfer(victim.segment, mine, mine.sealed());
        match walked {
            Ok(_) => {
                self.unfinished.set(Some(victim.segment));
                Some(Reclaimed::Step)
            }
            Err(Blocked::NoRoom) => Some(Reclaimed::Nothing),
            // The step has done its work here. Trying on would leave many segments begun and none freed.
            Err(Blocked::HeldLater) if step != WHOLE => Some(Reclaimed::Nothing),
            Err(Blocked::Held | Blocked::HeldLater) => None,
        }
    }

    /// SEALED, or the RECLAIM of a dead participant → RECLAIM in this participant's name.
    fn claim_segment(&self, victim: &Victim) -> Option<State> {
        let mine = victim.state.to(Phase::Reclaim, self.seat, self.incarnation.get());
        self.transfer(victim.segment, victim.state, mine).then_some(mine)
    }

    fn transfer(&self, segment: u32, from: State, to: State) -> bool {
        // Sequentially consistent: comes before the hazards and the entries are read. Pairs with `append`, which announces
        // its hazard before it loads this word, and with `has_its_chunks`.
        self.region.word(self.region.geometry.state(segment)).compare_exchange(from.0, to.0, SeqCst, Relaxed).is_ok()
    }

    /// Whether another living participant is still writing into the segment.
    fn is_pinned(&self, segment: u32) -> bool {
        (0..self.used_seats())
            .any(|seat| self.is_announced(seat, segment) && seat != self.seat && !self.reap_if_dead(seat))
    }

    /// RECLAIM → FREE: gives the segment back in its next life. This participant owns the RECLAIM state, and no entry points
    /// into the segment any more.
    fn free(&self, segment: u32, mine: State) {
        // Comes before the new life: the compare-and-swap in `transfer` is a Release. The fence has no partner of its own.
        self.region.word(self.region.geometry.meta(segment) + META_BUMP).store(0, Relaxed);
        fence(SeqCst);
        self.transfer(segment, mine, State::free(mine.generation().wrapping_add(1)));
    }
}
