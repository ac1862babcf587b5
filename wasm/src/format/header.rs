//! The first two words of a record, and the flags in the second one.
//!
//! ```text
//!   0  length u32 (a multiple of 16; its low four bits count the unused bytes at the end) │ generation u32
//!   8  key length u16 │ value type u8 │ flags u8 │ clear epoch u32
//!
//! flags    7        6       5      4   3       2         1        0
//!          │ unused │ GRACE │ key kind │ CHUNK │ CHUNKED │ TAGGED │ EXPIRES │
//! ```

use crate::format::layout::GRAIN;

/// The record has an expiry.
pub const EXPIRES: u32 = 1;
/// The record has tags.
pub const TAGGED: u32 = 2;
/// The record is the head of a large value.
pub const CHUNKED: u32 = 4;
/// The record is a chunk of a large value.
pub const CHUNK: u32 = 8;
/// The record has a grace, and with it an expiry.
pub const GRACE: u32 = 64;
const KEY_KIND_SHIFT: u32 = 4;
const KEY_KIND_MASK: u32 = 3;

const _: () = assert!((EXPIRES | TAGGED | CHUNKED | CHUNK) >> KEY_KIND_SHIFT == 0);
const _: () = assert!(key_kind_flags(KEY_KIND_MASK) & GRACE == 0);

/// The flags of a key kind.
#[inline(always)]
pub const fn key_kind_flags(key_kind: u32) -> u32 {
    key_kind << KEY_KIND_SHIFT
}

/// The key kind among the flags of a record.
#[inline(always)]
pub const fn key_kind_of(flags: u32) -> u32 {
    flags >> KEY_KIND_SHIFT & KEY_KIND_MASK
}

/// The length field of a first word: the length, a multiple of sixteen, plus the number of unused bytes at the end, 0 to 15.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LengthField(pub u32);

impl LengthField {
    /// For a record that uses this many bytes.
    #[inline(always)]
    pub const fn of(bytes: u32) -> LengthField {
        let length = (bytes + GRAIN - 1) & !(GRAIN - 1);
        LengthField(length | (length - bytes))
    }

    /// Bytes that the record takes in the log.
    #[inline(always)]
    pub const fn length(self) -> u32 {
        self.0 & !(GRAIN - 1)
    }

    /// Bytes at the end of the record that it does not use.
    #[inline(always)]
    pub const fn unused(self) -> u32 {
        self.0 & (GRAIN - 1)
    }
}

/// The first word of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FirstWord(pub u64);

impl FirstWord {
    /// The length field of the mark behind the last record of a segment: longer than any segment.
    const END: LengthField = LengthField(0xFFFF_FFF0);

    #[inline(always)]
    pub const fn new(length: LengthField, generation: u32) -> FirstWord {
        FirstWord((generation as u64) << 32 | length.0 as u64)
    }

    /// The mark behind the last record of a segment.
    #[inline(always)]
    pub const fn end(generation: u32) -> FirstWord {
        FirstWord::new(FirstWord::END, generation)
    }

    /// A gap that is too short for a record.
    #[inline(always)]
    pub const fn gap(generation: u32) -> FirstWord {
        FirstWord::new(LengthField(GRAIN), generation)
    }

    #[inline(always)]
    pub const fn length(self) -> LengthField {
        LengthField(self.0 as u32)
    }

    #[inline(always)]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// The second word of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SecondWord(pub u64);

impl SecondWord {
    pub const fn new(key_length: u32, value_type: u8, flags: u32, clear_epoch: u32) -> SecondWord {
        SecondWord((clear_epoch as u64) << 32 | (flags as u64) << 24 | (value_type as u64) << 16 | key_length as u64)
    }

    #[inline(always)]
    pub const fn key_length(self) -> u32 {
        self.0 as u32 & 0xFFFF
    }

    #[inline(always)]
    pub const fn value_type(self) -> u8 {
        (self.0 >> 16) as u8
    }

    #[inline(always)]
    pub const fn flags(self) -> u32 {
        (self.0 >> 24) as u32 & 0xFF
    }

    #[inline(always)]
    pub const fn clear_epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    pub const fn is_tagged(self) -> bool {
        self.flags() & TAGGED != 0
    }
}
