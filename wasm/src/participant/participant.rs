//! One thread that has the cache open: its seat in the region, and its private state.
//!
//! A `Participant` lives in memory private to its thread; only its seat is shared. A seat has a new incarnation each time it
//! is taken or given up. When a lock names another incarnation than the seat, the holder of that lock is gone.

use core::cell::Cell;

use crate::format::hash::Seed;
use crate::format::layout::{
    CLEAR_EPOCH_AT, COUNTERS, Counter, MAX_SIZE, NEXT_VERSION_AT, SEAT_COUNTERS, SEAT_HAZARD, SEAT_INTEREST,
    SEAT_NEAR_HITS, SEAT_PENDING, SEAT_RINGING, SEED_AT, WORD, participants,
};
use crate::format::region::Region;
use crate::sync::{Acquire, Relaxed, Release, SeqCst, Word, store_own};

/// What the engine needs from its embedder: a clock, proof of death, and a way to wait.
///
/// None of these may panic or unwind, because a lock may be held during the call.
pub trait Host {
    /// Milliseconds. The clock may be wrong: only expiry depends on it.
    fn now(&self) -> f64;
    /// Asks for proof of death. True is proof, and never a guess: no living participant owns the seat, and the caller owns it
    /// until [`Host::release`]. False means that there is no proof.
    fn take(&self, seat: u32) -> bool;
    /// Gives up a seat that [`Host::take`] has answered with true.
    fn release(&self, seat: u32);
    /// Waits a little for another participant, longer with each attempt; false when the time for waiting is over.
    fn pause(&self, attempt: u32) -> bool;
}

/// Versions are handed out in blocks, so that writers rarely meet at the shared counter.
const VERSION_BLOCK: u64 = 512;
/// Versions are exact as JavaScript numbers.
const VERSION_MASK: u64 = (1 << 53) - 1;

/// The hazard word of a participant that writes into this segment.
const fn hazard(segment: u32) -> u64 {
    segment as u64 + 1
}

/// A thread that is attached to a region; see the description of this module.
pub struct Participant<H> {
    pub region: Region,
    pub host: H,
    pub seat: u32,
    /// Invariant: equals the incarnation in the seat while this participant is attached, but not between a call that was cut
    /// off and [`Participant::recover`], because the embedder may have raised the incarnation in the seat.
    pub incarnation: Cell<u32>,
    /// Says which owner of the seat this is: see `Seat` in `recover.rs`.
    pub(crate) tenure: Cell<u32>,
    pub seed: Seed,
    next_version: Cell<u64>,
    last_version: Cell<u64>,
    /// Whether a lane will soon need another segment. Then this participant reclaims a step with each write.
    pub(crate) must_reclaim: Cell<bool>,
    /// The segment that this participant's last step has left partly reclaimed.
    pub(crate) unfinished: Cell<Option<u32>>,
    /// How many segments had been sealed when this participant began the large value that it is writing.
    pub(crate) pending_since: Cell<u64>,
    /// The claim that is being made. The caller learns of it only when the call returns.
    pub(crate) claiming: Cell<Option<u32>>,
    /// Seats whose bells the caller has to ring, and how many they are.
    pub(crate) bells: [Cell<u16>; participants(MAX_SIZE) as usize],
    pub(crate) bells_listed: Cell<usize>,
    /// Whether an entry may be evicted and not counted yet: tests ask this of a participant that died.
    #[cfg(feature = "faults")]
    pub evicting: Cell<bool>,
}

impl<H: Host> Participant<H> {
    pub(crate) fn new(region: Region, host: H, seat: u32, incarnation: u32) -> Participant<H> {
        let seed = SEED_AT.map(|at| region.word(at).load(Relaxed));
        Participant {
            region,
            host,
            seat,
            incarnation: Cell::new(incarnation),
            tenure: Cell::new(0),
            seed,
            next_version: Cell::new(0),
            last_version: Cell::new(0),
            must_reclaim: Cell::new(false),
            unfinished: Cell::new(None),
            pending_since: Cell::new(0),
            claiming: Cell::new(None),
            bells: [const { Cell::new(0) }; _],
            bells_listed: Cell::new(0),
            #[cfg(feature = "faults")]
            evicting: Cell::new(false),
        }
    }

    /// A participant without a seat, for calls that write nothing. A lookup needs no seat: it copies, and checks afterwards.
    pub fn spectate(region: Region, host: H) -> Participant<H> {
        Participant::new(region, host, 0, 0)
    }

    pub(crate) fn hazard_of(&self, seat: u32) -> &Word {
        self.region.word(self.region.geometry.seat(seat) + SEAT_HAZARD)
    }

    /// The version of the large value that the participant in a seat is writing, or zero. Reclaimers keep the chunks of
    /// that value although no head lists them yet. A reclaimer may see the version too late and drop a chunk, so Relaxed
    /// accesses suffice: when the writer stores the head, it checks that no chunk is missing.
    pub(crate) fn pending_of(&self, seat: u32) -> &Word {
        self.region.word(self.region.geometry.seat(seat) + SEAT_PENDING)
    }

    /// The classes of buckets that the participant in a seat waits for: a bit for each. See `coordinate/bells.rs`.
    pub(crate) fn interest_of(&self, seat: u32) -> &Word {
        self.region.word(self.region.geometry.seat(seat) + SEAT_INTEREST)
    }

    /// 1 when somebody has rung the participant in a seat, and it has not looked since; else 0.
    pub(crate) fn ringing_of(&self, seat: u32) -> &Word {
        self.region.word(self.region.geometry.seat(seat) + SEAT_RINGING)
    }

    /// Announces that this participant is writing into `segment`. Sequentially consistent: pairs with `is_announced` of the
    /// reclaimer, who first changes the state of the segment and then reads all hazards. One of the two sees the other.
    #[inline(always)]
    pub(crate) fn announce(&self, segment: u32) {
        self.hazard_of(self.seat).store(hazard(segment), SeqCst)
    }

    /// Whether the participant in a seat has announced that it is writing into `segment`.
    pub(crate) fn is_announced(&self, seat: u32, segment: u32) -> bool {
        // Sequentially consistent: pairs with `announce`.
        self.hazard_of(seat).load(SeqCst) == hazard(segment)
    }

    /// Takes the announcement back. Release: pairs with `is_announced`; everything written under the announcement comes
    /// before.
    #[inline(always)]
    pub(crate) fn withdraw(&self) {
        self.hazard_of(self.seat).store(0, Release)
    }

    /// A version that no other write has: even, and never zero, which stands for "no version".
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

    /// Adds to one of this participant's own statistics.
    #[inline(always)]
    pub(crate) fn count(&self, counter: Counter, by: u64) {
        let at = self.region.geometry.seat(self.seat) + SEAT_COUNTERS + counter as u32 * WORD;
        let word = self.region.word(at);
        store_own(word, word.load(Relaxed).wrapping_add(by))
    }

    /// Tells the tests that an eviction is under way. Evictions are counted after they are done, so that the count never
    /// falls. A participant that dies between the two leaves the count one too low.
    #[inline(always)]
    pub(crate) fn set_evicting(&self, _evicting: bool) {
        #[cfg(feature = "faults")]
        self.evicting.set(_evicting);
    }

    /// The sum of a statistic over all participants that ever had a seat.
    pub fn sum(&self, counter: u32) -> u64 {
        let geometry = &self.region.geometry;
        (0..geometry.participants)
            .map(|seat| geometry.seat(seat) + SEAT_COUNTERS + counter.min(COUNTERS - 1) * WORD)
            .fold(self.near_hits(counter), |sum: u64, at| sum.wrapping_add(self.region.word(at).load(Relaxed)))
    }

    /// Hits of the near caches, when `counter` counts hits. The engine never sees them; see [`SEAT_NEAR_HITS`].
    fn near_hits(&self, counter: u32) -> u64 {
        let participants = if counter == Counter::Hits as u32 { self.region.geometry.participants } else { 0 };
        (0..participants).fold(0, |sum: u64, seat| {
            let at = self.region.geometry.seat(seat) + SEAT_NEAR_HITS;
            sum.wrapping_add(f64::from_bits(self.region.word(at).load(Relaxed)) as u64)
        })
    }

    /// How often the cache was cleared. A record that was written in an earlier clear epoch is a miss.
    #[inline(always)]
    pub(crate) fn clear_epoch(&self) -> u32 {
        // Acquire: pairs with the increment in `clear`.
        self.region.word(CLEAR_EPOCH_AT).load(Acquire) as u32
    }
}
