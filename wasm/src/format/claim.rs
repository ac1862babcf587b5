//! The words of a claim. A claim says who loads a key, or who holds a lock. What is done with claims: `coordinate/claims.rs`.
//!
//! ```text
//! owner   63       48 47    16 15     8 7     0
//!         │ seat + 1 │ tenure │ unused │ state │        seat + 1 = 0: the claim is free
//!
//! token   63                2 1        0
//!         │ token          │ WAITED │ OVERTAKEN │       only these two bits change as long as it has the same owner
//!
//! start   │ clear epoch u32 │ global invalidation sequence u32 │
//!
//! free ──► reserved ──► loading, locked or pending ──► free
//!             ▲                 │
//!             └─────────────────┘  the owner is dead: another participant takes the claim
//! ```
//!
//! `tenure` says which owner of the seat it is: see `Seat` in `participant/recover.rs`.

use crate::format::layout::{MAX_SIZE, participants};

/// What a claim is for, or how far it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ClaimState {
    /// Its owner is writing the other words.
    Reserved = 1,
    /// Its owner loads the key.
    Loading = 2,
    /// Its owner holds the lock.
    Locked = 3,
    /// Its owner waits for the lock: only to be listed.
    Pending = 4,
}

impl ClaimState {
    pub const ALL: [ClaimState; 4] =
        [ClaimState::Reserved, ClaimState::Loading, ClaimState::Locked, ClaimState::Pending];
}

/// The word that says who owns a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner(pub u64);

impl Owner {
    pub const FREE: Owner = Owner(0);
    const SEAT_SHIFT: u32 = 48;
    const TENURE_SHIFT: u32 = 16;

    pub fn new(seat: u32, tenure: u32, state: ClaimState) -> Owner {
        Owner((seat as u64 + 1) << Owner::SEAT_SHIFT | (tenure as u64) << Owner::TENURE_SHIFT | state as u64)
    }

    /// The seat of the owner; `None` when the claim is free.
    pub fn seat(self) -> Option<u32> {
        ((self.0 >> Owner::SEAT_SHIFT) as u32).checked_sub(1)
    }

    pub fn tenure(self) -> u32 {
        (self.0 >> Owner::TENURE_SHIFT) as u32
    }

    /// Whether this owner of a seat owns the claim, whatever its state.
    pub fn is_of(self, seat: u32, tenure: u32) -> bool {
        self.seat() == Some(seat) && self.tenure() == tenure
    }

    pub fn is(self, state: ClaimState) -> bool {
        self.0 as u16 == state as u16
    }
}

// The fields are as drawn, and wide enough for every seat.
const _: () = assert!(Owner::TENURE_SHIFT + u32::BITS == Owner::SEAT_SHIFT);
const _: () = assert!(participants(MAX_SIZE) < 1 << (u64::BITS - Owner::SEAT_SHIFT));

/// The word with the token of a claim. A token is never zero, and no two claims have the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token(pub u64);

impl Token {
    /// The claim was overtaken: its load is not stored any more, or its lock was stolen.
    pub const OVERTAKEN: u64 = 1;
    /// Another participant waits for the claim.
    pub const WAITED: u64 = 2;
    const SHIFT: u32 = 2;

    pub fn new(token: u64) -> Token {
        Token(token << Token::SHIFT)
    }

    pub fn token(self) -> u64 {
        self.0 >> Token::SHIFT
    }

    pub fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }
}

/// What had been invalidated when a claim was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// The global invalidation sequence.
    pub sequence: u32,
    pub clear_epoch: u32,
}

impl Start {
    pub fn of(word: u64) -> Start {
        Start { sequence: word as u32, clear_epoch: (word >> 32) as u32 }
    }

    pub fn word(self) -> u64 {
        (self.clear_epoch as u64) << 32 | self.sequence as u64
    }
}
