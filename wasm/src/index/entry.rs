//! An entry: one word of a bucket. One compare-and-swap changes fingerprint, place, generation and heat of an entry
//! together, so there is nothing to repair after a crash.
//!
//! ```text
//! entry   63          48 47  46 45   44 43        28 27                         0
//!         │ fingerprint │ heat │ state │ generation │ place in units of 16 bytes │
//! ghost   │ fingerprint │ 0    │ 3     │ 0          │ ghost clock                │
//!
//! state   0 empty │ 1 plain, an immutable record │ 2 mutable, changed under the lock │ 3 ghost: evicted lately
//! ```

use crate::format::layout::GRAIN;

const PLACE_BITS: u32 = 28;
const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;
const GENERATION_SHIFT: u32 = PLACE_BITS;
/// The low bits of the generation are a hint, which may wrap around without harm. In tests it wraps around all the time.
const GENERATION_MASK: u64 = if cfg!(feature = "faults") { 3 } else { 0xFFFF };
const STATE_SHIFT: u32 = 44;
const HEAT_SHIFT: u32 = 46;
const HEAT_MASK: u64 = 3 << HEAT_SHIFT;
const FINGERPRINT_SHIFT: u32 = 48;
/// What identifies the record of an entry: all but heat and state.
const RECORD_MASK: u64 = !0 << FINGERPRINT_SHIFT | GENERATION_MASK << GENERATION_SHIFT | PLACE_MASK;
/// The heat at which reads stop writing to an entry.
pub const MAX_HEAT: u64 = 3;

const _: () = assert!(MAX_HEAT << HEAT_SHIFT == HEAT_MASK && GENERATION_MASK <= 0xFFFF);
// The fields are as drawn, side by side.
const _: () = assert!(GENERATION_SHIFT + 16 == STATE_SHIFT && STATE_SHIFT + 2 == HEAT_SHIFT);
const _: () = assert!(HEAT_SHIFT + 2 == FINGERPRINT_SHIFT);
const _: () = assert!(GRAIN as u64 * (PLACE_MASK + 1) == 1 << 32);

/// What an entry stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryState {
    Empty,
    Plain,
    Mutable,
    Ghost,
}

/// The sixteen bits of a hash that an entry holds.
#[inline(always)]
pub fn fingerprint_of(hash: u64) -> u64 {
    hash >> FINGERPRINT_SHIFT
}

/// The word of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(pub u64);

impl Entry {
    pub const EMPTY: Entry = Entry(0);

    /// An entry that points to a record; `state` must be plain or mutable.
    pub fn live(state: EntryState, hash: u64, generation: u32, at: u32, heat: u64) -> Entry {
        debug_assert!(at % GRAIN == 0 && matches!(state, EntryState::Plain | EntryState::Mutable));
        Entry(
            fingerprint_of(hash) << FINGERPRINT_SHIFT
                | heat << HEAT_SHIFT
                | (state as u64) << STATE_SHIFT
                | (generation as u64 & GENERATION_MASK) << GENERATION_SHIFT
                | (at / GRAIN) as u64,
        )
    }

    /// This entry pointing to a copy of its record, with another heat.
    pub fn moved(self, generation: u32, at: u32, heat: u64) -> Entry {
        Entry::live(self.state(), self.0, generation, at, heat)
    }

    /// The ghost that this entry leaves behind when it is evicted: its fingerprint, and the ghost clock of that moment.
    pub fn ghost(self, clock: u64) -> Entry {
        Entry(self.fingerprint() << FINGERPRINT_SHIFT | (EntryState::Ghost as u64) << STATE_SHIFT | clock & PLACE_MASK)
    }

    #[inline(always)]
    pub fn fingerprint(self) -> u64 {
        self.0 >> FINGERPRINT_SHIFT
    }

    #[inline(always)]
    pub fn heat(self) -> u64 {
        self.0 >> HEAT_SHIFT & MAX_HEAT
    }

    #[inline(always)]
    pub fn state(self) -> EntryState {
        match self.0 >> STATE_SHIFT & 3 {
            0 => EntryState::Empty,
            1 => EntryState::Plain,
            2 => EntryState::Mutable,
            _ => EntryState::Ghost,
        }
    }

    /// Whether the entry points to a record.
    #[inline(always)]
    pub fn is_live(self) -> bool {
        matches!(self.state(), EntryState::Plain | EntryState::Mutable)
    }

    #[inline(always)]
    pub fn is_mutable(self) -> bool {
        self.state() == EntryState::Mutable
    }

    /// Where the record of a live entry lies.
    #[inline(always)]
    pub fn at(self) -> u32 {
        (self.0 & PLACE_MASK) as u32 * GRAIN
    }

    /// Whether the entry can belong to this generation of its segment: only the low bits of generations are compared.
    #[inline(always)]
    pub fn has_generation(self, generation: u32) -> bool {
        (self.0 >> GENERATION_SHIFT ^ generation as u64) & GENERATION_MASK == 0
    }

    /// The same entry with another heat.
    #[inline(always)]
    pub fn with_heat(self, heat: u64) -> Entry {
        Entry(self.0 & !HEAT_MASK | heat << HEAT_SHIFT)
    }

    /// Whether the two entries are equal except for the heat.
    #[inline(always)]
    pub fn is_same(self, other: Entry) -> bool {
        (self.0 ^ other.0) & !HEAT_MASK == 0
    }

    /// Whether the two entries point to the same record, whatever their heat and state.
    #[inline(always)]
    pub fn has_record_of(self, other: Entry) -> bool {
        (self.0 ^ other.0) & RECORD_MASK == 0
    }

    /// How far the ghost clock has advanced since this ghost was left.
    pub fn ghost_age(self, clock: u64) -> u64 {
        clock.wrapping_sub(self.0) & PLACE_MASK
    }
}
