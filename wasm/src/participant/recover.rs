//! Formatting a region, attaching to it and leaving it, and cleaning up after dead participants. Cleaning up follows three
//! local rules, and never scans the whole region:
//!
//! 1. reap a dead seat: clear its hazard, begin its next incarnation, free it ([`Participant::reap`]);
//! 2. adopt its segments: seal open ones that are in no lane, reclaim half-reclaimed ones again (`log/policy.rs`);
//! 3. steal its bucket locks one by one, when they are needed (`participant/lock.rs`).
//!
//! Rules 2 and 3 need one step of rule 1 only: that the seat is in its next incarnation. The next incarnation is begun by the
//! owner of the seat itself, or by a participant that holds the proof of death.

use crate::format::claim::Owner;
use crate::format::hash::Seed;
use crate::format::layout::{
    CLAIM_OWNER, HIGH_WATER_AT, LAYOUT_VERSION, MAGIC, MAGIC_AT, NEXT_VERSION_AT, SEAT_INCARNATION, SEED_AT, SIZE_AT,
    VERSION_AT, WORD,
};
use crate::format::region::Region;
use crate::format::segment::State;
use crate::participant::participant::{Host, Participant};
use crate::sync::{Acquire, Relaxed, Release, SeqCst, Word};

/// The first word of a seat.
///
/// ```text
/// seat    │ tenure u32 │ incarnation u32 │
/// ```
///
/// The incarnation begins anew when the seat is taken, when it is given up, and when its owner comes back after an operation that
/// was cut short. The tenure stays the same as long as the seat has the same owner: it is the incarnation with which the owner has
/// begun, and zero while nobody owns the seat. Locks of buckets and segments belong to an incarnation, because they must not outlive
/// the operation that was cut short. Claims belong to a tenure: a user's lock must outlive it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seat(u64);

impl Seat {
    fn new(tenure: u32, incarnation: u32) -> Seat {
        Seat((tenure as u64) << 32 | incarnation as u64)
    }

    fn free(incarnation: u32) -> Seat {
        Seat::new(0, incarnation)
    }

    fn tenure(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn incarnation(self) -> u32 {
        self.0 as u32
    }

    fn next_incarnation(self) -> u32 {
        self.incarnation().wrapping_add(1)
    }
}

/// Why a region cannot be attached to.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Mismatch {
    /// The region is not a cache.
    Foreign,
    /// The region has another layout version.
    Version(u32),
    /// The header names another size than the region has.
    Size(u64),
}

/// Makes an empty cache of zeroed memory that nobody else sees yet.
pub fn format(region: &Region, seed: Seed) {
    for segment in 0..region.geometry.segments {
        region.word(region.geometry.state(segment)).store(State::free(1).0, Relaxed);
    }
    region.word(NEXT_VERSION_AT).store(2, Relaxed);
    region.word(SEED_AT[0]).store(seed[0], Relaxed);
    region.word(SEED_AT[1]).store(seed[1], Relaxed);
    region.word(SIZE_AT).store(region.geometry.size as u64, Relaxed);
    region.word(VERSION_AT).store(LAYOUT_VERSION as u64, Relaxed);
    // Last, so that a region whose creator died here is not taken for a cache.
    region.word(MAGIC_AT).store(MAGIC, Release);
}

/// Checks the header of a region: `header` is its first words, `size` the size in bytes that the region really has.
pub fn inspect(header: &[u64], size: u64) -> Result<(), Mismatch> {
    let word = |at: u32| header.get((at / WORD) as usize).copied().unwrap_or(0);
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
    /// Attaches to the region in `seat`, which the caller owns by proof. What an earlier owner left in the seat is cleared.
    pub fn attach(region: Region, host: H, seat: u32) -> Participant<H> {
        let participant = Participant::new(region, host, seat, 0);
        participant.hazard_of(seat).store(0, SeqCst);
        participant.pending_of(seat).store(0, Relaxed);
        participant.forget_waits(seat);
        participant.begin_incarnation(|incarnation| incarnation.max(1));
        // Sequentially consistent: pairs with `used_seats`. A reclaimer that still loads the old mark, and so skips the
        // hazard of this seat, has changed the state of its segment before. This participant sees that in `append`.
        participant.region.word(HIGH_WATER_AT).fetch_max(seat as u64 + 1, SeqCst);
        // Reaps the dead.
        participant.participants();
        participant
    }

    /// Leaves the region. The caller gives the seat itself back afterwards.
    pub fn detach(&self) {
        self.withdraw();
        self.pending_of(self.seat).store(0, Relaxed);
        self.forget_waits(self.seat);
        self.begin_incarnation(|_| 0);
    }

    /// Makes this participant usable again after one of its operations was cut short by a stack overflow or a trap. As if
    /// the participant had died and come back, its locks of buckets can be taken and its segments adopted. Its waits and its claims
    /// stay, because the caller knows of them; except for a claim that was being made.
    pub fn recover(&self) {
        self.withdraw();
        self.pending_of(self.seat).store(0, Relaxed);
        self.begin_incarnation(|_| self.tenure.get());
        if let Some(claim) = self.claiming.take() {
            let owner = self.region.word(self.region.geometry.claim(claim) + CLAIM_OWNER);
            if Owner(owner.load(Relaxed)).is_of(self.seat, self.tenure.get()) {
                owner.store(Owner::FREE.0, SeqCst);
            }
        }
    }

    /// The first word of a seat.
    fn seat_word(&self, seat: u32) -> &Word {
        self.region.word(self.region.geometry.seat(seat) + SEAT_INCARNATION)
    }

    /// Nobody rings a seat that waits for nothing.
    fn forget_waits(&self, seat: u32) {
        self.interest_of(seat).store(0, SeqCst);
        self.ringing_of(seat).store(0, SeqCst);
    }

    /// Begins the next incarnation of this participant's seat; `tenure` gets that incarnation.
    fn begin_incarnation(&self, tenure: impl Fn(u32) -> u32) {
        let word = self.seat_word(self.seat);
        let incarnation = Seat(word.load(Relaxed)).next_incarnation();
        self.incarnation.set(incarnation);
        self.tenure.set(tenure(incarnation));
        // Release: pairs with the Acquire in `is_gone`. A participant that sees the next incarnation sees everything that was
        // done in the last one.
        word.store(Seat::new(self.tenure.get(), incarnation).0, Release);
    }

    /// Clears a dead participant's seat, which the caller owns by proof of death. May be cut short after any step, and done
    /// again by another participant.
    fn reap(&self, seat: u32) {
        let word = self.seat_word(seat);
        let seen = Seat(word.load(Acquire));
        if seen != Seat::free(seen.incarnation()) {
            self.hazard_of(seat).store(0, SeqCst);
            self.pending_of(seat).store(0, Relaxed);
            self.forget_waits(seat);
            word.store(Seat::free(seen.next_incarnation()).0, Release);
        }
    }

    /// Reaps the participant in a seat if it is provably dead. Returns true when no living participant owns the seat; false
    /// when there is no proof.
    pub fn reap_if_dead(&self, seat: u32) -> bool {
        if seat == self.seat || seat >= self.region.geometry.participants || !self.host.take(seat) {
            return false;
        }
        self.reap(seat);
        self.host.release(seat);
        true
    }

    fn is_owned(&self, seat: u32) -> bool {
        Seat(self.seat_word(seat).load(Acquire)).tenure() != 0
    }

    /// Whether this tenure of a seat is over.
    pub(crate) fn has_left(&self, seat: u32, tenure: u32) -> bool {
        seat >= self.region.geometry.participants || Seat(self.seat_word(seat).load(Acquire)).tenure() != tenure
    }

    /// Whether this incarnation of a seat is over.
    #[inline]
    pub(crate) fn is_gone(&self, seat: u32, incarnation: u32) -> bool {
        seat >= self.region.geometry.participants
            || Seat(self.seat_word(seat).load(Acquire)).incarnation() != incarnation
    }

    /// Whether the owner of a segment is gone. The state holds only sixteen bits of the incarnation: when they agree, this
    /// asks for proof of death.
    pub(crate) fn owner_is_gone(&self, state: State) -> bool {
        let seat = state.owner();
        if seat == self.seat {
            // This participant is neither opening nor reclaiming another segment when it asks. So an operation that was cut
            // short, or an earlier owner of the seat, has left this one.
            return true;
        }
        if seat >= self.region.geometry.participants {
            return true;
        }
        let incarnation = Seat(self.seat_word(seat).load(Acquire)).incarnation();
        incarnation as u16 != state.owner_incarnation() || self.reap_if_dead(seat)
    }

    /// 1 + the highest seat that was ever used. Seats from there on need not be scanned.
    pub(crate) fn used_seats(&self) -> u32 {
        // Sequentially consistent: pairs with `attach`.
        (self.region.word(HIGH_WATER_AT).load(SeqCst) as u32).min(self.region.geometry.participants)
    }

    /// How many participants are attached. Reaps the dead on the way.
    pub fn participants(&self) -> u32 {
        (0..self.used_seats()).filter(|&seat| self.is_owned(seat) && !self.reap_if_dead(seat)).count() as u32
    }
}
