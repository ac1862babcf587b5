//! The words about a segment: its state, which lane appends to it, and two of its meta words.
//!
//! ```text
//! state    63        32 31              16 15       4 3     2   0
//!          │ generation │ owner's          │ owner    │ class │ phase │
//!          │            │ incarnation      │          │       │       │
//!
//! lane     │ segment + 1, or 0  u32 │ generation u32 │          where writers append
//! live     │ generation u32 │ live bytes + 2³¹ u32   │          may fall below zero for a moment
//! sealing  │ progress u32   │ clear epoch u32        │          since the segment was sealed
//!
//! FREE ──► OPEN ──► SEALED ──► RECLAIM ──► FREE, generation + 1
//!  ▲        │         ▲           │
//!  │        │         └───────────┘  put back: the segment is pinned, or its walk is blocked or at the end of its step
//!  └────────┘                        given back unused: another participant has filled the lane meanwhile
//! ```
//!
//! One compare-and-swap moves a segment to its next phase. Owner and generation are in the same word, so a participant that
//! finds a segment in RECLAIM knows which seat reclaims it, and the low bits of the seat's incarnation.

use crate::format::layout::{Class, MAX_SIZE, participants};

/// The phases of a segment's life, as the state word holds them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Free = 0,
    Open = 1,
    Sealed = 2,
    Reclaim = 3,
}

const PHASE_MASK: u64 = 7;
const CLASS_SHIFT: u32 = 3;
const OWNER_SHIFT: u32 = 4;
const OWNER_MASK: u32 = 0xFFF;
const INCARNATION_SHIFT: u32 = 16;
const GENERATION_SHIFT: u32 = 32;

// The fields of the state word are as drawn: side by side, and wide enough for every seat.
const _: () = assert!(PHASE_MASK + 1 == 1 << CLASS_SHIFT && CLASS_SHIFT + 1 == OWNER_SHIFT);
const _: () =
    assert!(OWNER_MASK + 1 == 1 << (INCARNATION_SHIFT - OWNER_SHIFT) && INCARNATION_SHIFT + 16 == GENERATION_SHIFT);
const _: () = assert!(participants(MAX_SIZE) <= OWNER_MASK + 1);

/// The state word of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State(pub u64);

impl State {
    pub fn new(phase: Phase, class: Class, owner: u32, incarnation: u32, generation: u32) -> State {
        State(
            (generation as u64) << GENERATION_SHIFT
                | (incarnation as u16 as u64) << INCARNATION_SHIFT
                | ((owner & OWNER_MASK) as u64) << OWNER_SHIFT
                | (class as u64) << CLASS_SHIFT
                | phase as u64,
        )
    }

    /// A free segment at the beginning of a life. There is no life zero, so zeroed bytes are never taken for a record.
    pub fn free(generation: u32) -> State {
        State::new(Phase::Free, Class::Small, 0, 0, if generation == 0 { 1 } else { generation })
    }

    /// The phase. Unknown bits count as RECLAIM: foreign bytes wrote them, and reclaiming brings the segment back into use.
    #[inline(always)]
    pub fn phase(self) -> Phase {
        match self.0 & PHASE_MASK {
            0 => Phase::Free,
            1 => Phase::Open,
            2 => Phase::Sealed,
            _ => Phase::Reclaim,
        }
    }

    /// Whether the engine can have written this word.
    pub fn is_valid(self) -> bool {
        self.0 & PHASE_MASK <= Phase::Reclaim as u64 && self.generation() != 0
    }

    pub fn class(self) -> Class {
        if self.0 >> CLASS_SHIFT & 1 == 0 { Class::Small } else { Class::Main }
    }

    /// The seat of the participant that opened or reclaims the segment.
    pub fn owner(self) -> u32 {
        (self.0 >> OWNER_SHIFT) as u32 & OWNER_MASK
    }

    /// The low sixteen bits of the owner's incarnation.
    pub fn owner_incarnation(self) -> u16 {
        (self.0 >> INCARNATION_SHIFT) as u16
    }

    #[inline(always)]
    pub fn generation(self) -> u32 {
        (self.0 >> GENERATION_SHIFT) as u32
    }

    /// The same segment in another phase, owned by this incarnation of `owner`.
    pub fn to(self, phase: Phase, owner: u32, incarnation: u32) -> State {
        State::new(phase, self.class(), owner, incarnation, self.generation())
    }

    /// The same segment sealed, which nobody owns.
    pub fn sealed(self) -> State {
        self.to(Phase::Sealed, 0, 0)
    }
}

/// The word of a lane: the segment that its writers append to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lane(pub u64);

impl Lane {
    pub fn new(segment: u32, generation: u32) -> Lane {
        Lane((segment as u64 + 1) << 32 | generation as u64)
    }

    /// The segment; `None` when the lane has none yet, or names one that does not exist because of foreign bytes.
    #[inline(always)]
    pub fn segment(self, segments: u32) -> Option<u32> {
        ((self.0 >> 32) as u32).checked_sub(1).filter(|&segment| segment < segments)
    }

    #[inline(always)]
    pub fn generation(self) -> u32 {
        self.0 as u32
    }
}

/// The live bytes of a segment in one of its lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Live(pub u64);

impl Live {
    /// Added to the live bytes, so that a number below zero does not borrow from the generation beside it.
    const ZERO: u32 = 1 << 31;

    /// No live bytes, in this life of the segment.
    pub fn none(generation: u32) -> Live {
        Live((generation as u64) << 32 | Live::ZERO as u64)
    }

    #[inline(always)]
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub fn bytes(self) -> i64 {
        self.0 as u32 as i64 - Live::ZERO as i64
    }

    #[inline(always)]
    pub fn minus(self, bytes: u32) -> Live {
        Live(self.0.wrapping_sub(bytes as u64))
    }
}

/// Two facts about a sealed segment: the clear epoch in which it was sealed, and how far it was walked since then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sealing(pub u64);

impl Sealing {
    /// For a segment that is sealed in this clear epoch; nobody has walked it yet.
    pub fn new(clear_epoch: u32) -> Sealing {
        Sealing(clear_epoch as u64)
    }

    pub fn clear_epoch(self) -> u32 {
        self.0 as u32
    }

    /// See `log::policy::Progress`.
    pub fn progress(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub fn with_progress(self, progress: u32) -> Sealing {
        Sealing((progress as u64) << 32 | self.0 as u32 as u64)
    }
}
