//! The state word of a segment. One compare-and-swap moves a segment to its next phase, with owner and generation in
//! the same word, so that whoever finds a segment in mid-change can tell who was changing it.
//!
//! ```text
//! state   63        32 31          16 15       4 3     2   0
//!         │ generation │ owner epoch  │ owner    │ class │ phase │
//!
//! FREE ──► OPEN ──► SEALED ──► RECLAIM ──► FREE, generation + 1
//!                     ▲           │
//!                     └───────────┘  pinned by a living participant, or gone through a step further: put back
//! ```

use crate::format::layout::Class;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Free = 0,
    Open = 1,
    Sealed = 2,
    Reclaim = 3,
}

/// The state word of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State(pub u64);

impl State {
    pub fn new(phase: Phase, class: Class, owner: u32, owner_epoch: u32, generation: u32) -> State {
        State(
            (generation as u64) << 32
                | (owner_epoch as u64 & 0xFFFF) << 16
                | (owner as u64 & 0xFFF) << 4
                | (class as u64) << 3
                | phase as u64,
        )
    }

    /// Free, at the beginning of a life. There is no life zero, so that zeroed bytes are never taken for a record.
    pub fn free(generation: u32) -> State {
        State::new(Phase::Free, Class::Small, 0, 0, if generation == 0 { 1 } else { generation })
    }

    /// Unknown bits count as reclaiming: such a segment is walked, and its walk ends at the first bad record.
    #[inline(always)]
    pub fn phase(self) -> Phase {
        match self.0 & 7 {
            0 => Phase::Free,
            1 => Phase::Open,
            2 => Phase::Sealed,
            _ => Phase::Reclaim,
        }
    }

    pub fn class(self) -> Class {
        if self.0 >> 3 & 1 == 0 { Class::Small } else { Class::Main }
    }

    pub fn owner(self) -> u32 {
        (self.0 >> 4) as u32 & 0xFFF
    }

    /// The low sixteen bits of the owner's epoch.
    pub fn owner_epoch(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline(always)]
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The same segment in another phase, owned by somebody.
    pub fn to(self, phase: Phase, owner: u32, owner_epoch: u32) -> State {
        State::new(phase, self.class(), owner, owner_epoch, self.generation())
    }
}
