//! Coming, leaving, and what the living do for the dead. Three local rules and no global pass:
//!
//! 1. reap a dead slot: clear its hazard, raise its epoch, free it ([`Participant::reap`]);
//! 2. adopt its segments: open ones in no lane are sealed, half-reclaimed ones walked again (`evict`);
//! 3. steal its bucket locks one by one, when they are needed (`lock`).
//!
//! Raising the epoch is the one step that the other two rules look at, and it happens only with the proof of death in
//! hand, by the owner itself, or never.

use crate::format::hash::Seed;
use crate::format::layout::{HIGH_WATER_AT, LAYOUT_VERSION, MAGIC, MAGIC_AT, NEXT_VERSION_AT, SEED_AT, SIZE_AT, VERSION_AT};
use crate::participant::participant::{Host, Participant};
use crate::format::region::Region;
use crate::format::segment::State;
use crate::sync::{Acquire, Relaxed, Release, SeqCst};

const FREE: u64 = 0;
const CLAIMED: u64 = 1;

fn slot_word(claimed: u64, epoch: u32) -> u64 {
    claimed << 32 | epoch as u64
}

/// Why a region cannot be attached to.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Mismatch {
    /// Not a cache at all.
    Foreign,
    /// A cache of another layout version.
    Version(u32),
    /// Its header names another size than it has.
    Size(u64),
}

/// Makes an empty cache of zeroed memory. Nobody else may see the region yet.
pub fn format(region: &Region, seed: Seed) {
    for segment in 0..region.geometry.segments {
        region.word(region.geometry.state(segment)).store(State::free(1).0, Relaxed);
    }
    region.word(NEXT_VERSION_AT).store(2, Relaxed);
    region.word(SEED_AT).store(seed[0], Relaxed);
    region.word(SEED_AT + 8).store(seed[1], Relaxed);
    region.word(SIZE_AT).store(region.geometry.size as u64, Relaxed);
    region.word(VERSION_AT).store(LAYOUT_VERSION as u64, Relaxed);
    // Last, so that a half-made region is recognised as none.
    region.word(MAGIC_AT).store(MAGIC, Release);
}

/// Checks the first words of a region or of a file: `header` is what they hold, `size` what the file has.
pub fn inspect(header: &[u64], size: u64) -> Result<(), Mismatch> {
    let word = |at: u32| header.get(at as usize / 8).copied().unwrap_or(0);
    if word(MAGIC_AT) != MAGIC {
        Err(Mismatch::Foreign)
    } else if word(VERSION_AT) != LAYOUT_VERSION as u64 {
        Err(Mismatch::Version(word(VERSION_AT) as u32))
    } else if word(SIZE_AT) != size {
        Err(Mismatch::Size(word(SIZE_AT)))
    } else {
        Ok(())
    }
}

impl<H: Host> Participant<H> {
    /// Joins the region in `slot`, which the caller owns by proof; whatever an earlier owner left there is cleared.
    pub fn attach(region: Region, host: H, slot: u32) -> Participant<H> {
        let participant = Participant::new(region, host, slot, 0);
        participant.hazard_of(slot).store(0, SeqCst);
        participant.pending_of(slot).store(0, Relaxed);
        participant.raise_epoch(CLAIMED);
        // Sequentially consistent, like the hazards that are only looked at up to here.
        participant.region.word(HIGH_WATER_AT).fetch_max(slot as u64 + 1, SeqCst);
        participant.participants();
        participant
    }

    /// Leaves. The caller gives the slot itself back afterwards.
    pub fn detach(&self) {
        self.withdraw();
        self.pending_of(self.slot).store(0, Relaxed);
        self.raise_epoch(FREE);
    }

    /// Makes this participant usable again after an operation that was cut short inside of it (a stack overflow, a
    /// trap): as if it had died and come back, so its locks can be taken and its segments adopted.
    pub fn recover(&self) {
        self.withdraw();
        self.pending_of(self.slot).store(0, Relaxed);
        self.raise_epoch(CLAIMED);
    }

    fn raise_epoch(&self, claimed: u64) {
        let word = self.region.word(self.region.geometry.participant(self.slot));
        let epoch = (word.load(Relaxed) as u32).wrapping_add(1);
        self.epoch.set(epoch);
        word.store(slot_word(claimed, epoch), Release);
    }

    /// Clears a dead participant's slot. The caller owns the slot by proof of death. May be cut short at any step and
    /// done again by another.
    fn reap(&self, slot: u32) {
        let word = self.region.word(self.region.geometry.participant(slot));
        let seen = word.load(Acquire);
        if seen != slot_word(FREE, seen as u32) {
            self.hazard_of(slot).store(0, SeqCst);
            self.pending_of(slot).store(0, Relaxed);
            word.store(slot_word(FREE, (seen as u32).wrapping_add(1)), Release);
        }
    }

    /// Reaps the owner of a slot if it is provably dead. True when nobody living owns the slot now.
    pub fn bury(&self, slot: u32) -> bool {
        if slot == self.slot || slot >= self.region.geometry.participants || !self.host.take(slot) {
            return false;
        }
        self.reap(slot);
        self.host.release(slot);
        true
    }

    fn is_claimed(&self, slot: u32) -> bool {
        self.region.word(self.region.geometry.participant(slot)).load(Acquire) >> 32 != FREE
    }

    /// Whether the incarnation `epoch` of a slot is over.
    #[inline]
    pub(crate) fn is_gone(&self, slot: u32, epoch: u32) -> bool {
        slot >= self.region.geometry.participants
            || self.region.word(self.region.geometry.participant(slot)).load(Acquire) as u32 != epoch
    }

    /// The same for the owner of a segment, of whose epoch only sixteen bits are known; asks for proof when they agree.
    pub(crate) fn owner_is_gone(&self, state: State) -> bool {
        let slot = state.owner();
        if slot == self.slot {
            // This thread is not inside of another reclaim: what it owns was left by an operation cut short.
            return true;
        }
        if slot >= self.region.geometry.participants {
            return true;
        }
        let word = self.region.word(self.region.geometry.participant(slot)).load(Acquire);
        word as u16 != state.owner_epoch() || self.bury(slot)
    }

    /// Slots that were ever used; the others need no look.
    pub(crate) fn used_slots(&self) -> u32 {
        (self.region.word(HIGH_WATER_AT).load(SeqCst) as u32).min(self.region.geometry.participants)
    }

    /// Participants attached now; the dead are reaped on the way.
    pub fn participants(&self) -> u32 {
        (0..self.used_slots()).filter(|&slot| self.is_claimed(slot) && !self.bury(slot)).count() as u32
    }
}
