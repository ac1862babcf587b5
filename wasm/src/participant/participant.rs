//! One thread that has the cache open: its slot in the region, and what it keeps for itself.
//!
//! A `Participant` lives in memory private to its thread; only its slot is shared. The slot's epoch names one
//! incarnation of it: when the epoch in the slot differs from the epoch in a lock, the lock's holder is gone.

use core::cell::Cell;

use crate::format::hash::Seed;
use crate::format::layout::{
    CLEAR_EPOCH_AT, COUNTERS, Class, Counter, NEXT_VERSION_AT, PARTICIPANT_COUNTERS, PARTICIPANT_HAZARD,
    PARTICIPANT_NEAR_HITS, PARTICIPANT_PENDING, SEED_AT,
};
use crate::format::region::Region;
use crate::sync::{Acquire, Relaxed, Release, SeqCst, Word, store_own};

/// What the engine needs from the outside: a clock, proof of death, and a way to wait.
///
/// None of these may panic or unwind: they are called while locks are held.
pub trait Host {
    /// Milliseconds; may be anybody's idea of time, so nothing but expiry depends on it.
    fn now(&self) -> f64;
    /// Proof of death: true when nobody living owns the slot and the caller owns it now, until [`Host::release`].
    /// Never a guess.
    fn take(&self, slot: u32) -> bool;
    fn release(&self, slot: u32);
    /// Waits a little for another participant, longer with each attempt; false when the time for waiting is over.
    fn pause(&self, attempt: u32) -> bool;
}

/// Versions are handed out in blocks, so that writers rarely meet at the counter.
const VERSION_BLOCK: u64 = 512;
/// Versions are exact as JavaScript numbers.
const VERSION_MASK: u64 = (1 << 53) - 1;

/// See the module's description.
pub struct Participant<H> {
    pub region: Region,
    pub host: H,
    pub slot: u32,
    /// Invariant: equals the epoch in the slot while this participant is attached.
    pub epoch: Cell<u32>,
    pub seed: Seed,
    next_version: Cell<u64>,
    last_version: Cell<u64>,
    /// A lane will soon need another segment, and this participant makes room for it, a step with each write.
    pub(crate) owes: Cell<bool>,
    /// The segment that its last step left half reclaimed, perhaps.
    pub(crate) begun: Cell<Option<u32>>,
    /// Whether an entry may be evicted that is not counted yet: what tests ask one who died.
    #[cfg(feature = "faults")]
    pub evicting: Cell<bool>,
}

impl<H: Host> Participant<H> {
    pub(crate) fn new(region: Region, host: H, slot: u32, epoch: u32) -> Participant<H> {
        let seed = [SEED_AT, SEED_AT + 8].map(|at| region.word(at).load(Relaxed));
        Participant {
            region,
            host,
            slot,
            epoch: Cell::new(epoch),
            seed,
            next_version: Cell::new(0),
            last_version: Cell::new(0),
            owes: Cell::new(false),
            begun: Cell::new(None),
            #[cfg(feature = "faults")]
            evicting: Cell::new(false),
        }
    }

    pub(crate) fn hazard_of(&self, slot: u32) -> &Word {
        self.region.word(self.region.geometry.participant(slot) + PARTICIPANT_HAZARD)
    }

    /// The version of the large value that the owner of a slot is writing: its chunks are kept although nothing lists
    /// them yet. Asked as a favour; the writer checks that all of them are there when it stores the head.
    pub(crate) fn pending_of(&self, slot: u32) -> &Word {
        self.region.word(self.region.geometry.participant(slot) + PARTICIPANT_PENDING)
    }

    /// Announces that this participant is writing into `segment`. Sequentially consistent: meets the reclaimer, who
    /// first changes the segment's state and then reads all hazards. One of the two sees the other.
    #[inline(always)]
    pub(crate) fn announce(&self, segment: u32) {
        self.hazard_of(self.slot).store(segment as u64 + 1, SeqCst)
    }

    /// Takes the announcement back. Release: everything written under it comes first.
    #[inline(always)]
    pub(crate) fn withdraw(&self) {
        self.hazard_of(self.slot).store(0, Release)
    }

    /// A version nobody else has: even, and never zero, which stands for "absent".
    pub fn version(&self) -> u64 {
        if self.next_version.get() == self.last_version.get() {
            let first = self.region.word(NEXT_VERSION_AT).fetch_add(VERSION_BLOCK, Relaxed) & VERSION_MASK & !1;
            self.next_version.set(first);
            self.last_version.set(first + VERSION_BLOCK);
        }
        let version = self.next_version.get();
        self.next_version.set(version + 2);
        if version == 0 { self.version() } else { version }
    }

    /// The lane this participant appends to.
    pub(crate) fn lane_at(&self, class: Class) -> u32 {
        let geometry = &self.region.geometry;
        geometry.lane(class, self.slot % geometry.lanes(class))
    }

    /// Adds to one of this participant's own counters.
    #[inline(always)]
    pub(crate) fn count(&self, counter: Counter, by: u64) {
        let at = self.region.geometry.participant(self.slot) + PARTICIPANT_COUNTERS + counter as u32 * 8;
        let word = self.region.word(at);
        store_own(word, word.load(Relaxed).wrapping_add(by))
    }

    /// Evictions are counted after they are done, so that the count never goes back; one who dies in between leaves it
    /// one short, which tests have to know.
    #[inline(always)]
    pub(crate) fn set_evicting(&self, _evicting: bool) {
        #[cfg(feature = "faults")]
        self.evicting.set(_evicting);
    }

    /// The sum of a counter over everybody who ever used a slot.
    pub fn sum(&self, counter: u32) -> u64 {
        let geometry = &self.region.geometry;
        (0..geometry.participants)
            .map(|slot| geometry.participant(slot) + PARTICIPANT_COUNTERS + counter.min(COUNTERS - 1) * 8)
            .fold(self.near_hits(counter), |sum: u64, at| sum.wrapping_add(self.region.word(at).load(Relaxed)))
    }

    /// Hits that no engine has seen; see [`PARTICIPANT_NEAR_HITS`].
    fn near_hits(&self, counter: u32) -> u64 {
        let participants = if counter == Counter::Hits as u32 { self.region.geometry.participants } else { 0 };
        (0..participants).fold(0, |sum: u64, slot| {
            let at = self.region.geometry.participant(slot) + PARTICIPANT_NEAR_HITS;
            sum.wrapping_add(f64::from_bits(self.region.word(at).load(Relaxed)) as u64)
        })
    }

    /// How often the cache was cleared; what was written in an earlier epoch is a miss.
    #[inline(always)]
    pub(crate) fn clear_epoch(&self) -> u32 {
        self.region.word(CLEAR_EPOCH_AT).load(Acquire) as u32
    }
}
