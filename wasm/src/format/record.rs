//! A record: one entry, or one chunk of a large value, as it lies in a segment. Immutable once published, except for
//! the two things named below.
//!
//! ```text
//!   0  length u32 (a multiple of 16, its low four bits count the unused bytes at the end) │ generation u32
//!   8  key length u16 │ type u8 │ flags u8 │ clear epoch u32
//!  16  hash of the key
//!  24  version
//!  32  [expiry, f64 milliseconds]                 if EXPIRES
//!      [tags: bytes u32 │ count u32 │ {slot u32 │ snapshot u32} × count │ names]    if TAGGED
//!      key, zero-padded to 8
//!      value
//! ```
//!
//! The first word is written before anything else, so that a walker can skip what was never finished; its generation
//! tells the walker where the records of an earlier life of the segment begin.
//!
//! A **large value** is a head record with CHUNKED whose value is `{total bytes u64 │ place of each chunk …}`, and
//! chunk records with CHUNK: at 32 the chunk's number, at 40 its bytes. A chunk carries the version of its head, so it
//! can never be taken for a chunk of another value.
//!
//! *Mutable* records (counters, and heads of large values whose chunks move) change one word at a time, and only under
//! the lock of their bucket.

use crate::format::layout::{GRAIN, MAX_KEY, MAX_TAGS};
use crate::format::region::Region;
use crate::sync::Acquire;

pub const EXPIRES: u32 = 1;
pub const TAGGED: u32 = 2;
pub const CHUNKED: u32 = 4;
pub const CHUNK: u32 = 8;
/// Two bits that tell keys of different kinds apart: text, bytes, ill-formed text.
pub const KEY_KIND_SHIFT: u32 = 4;

/// Bytes before the optional parts.
pub const HEADER: u32 = 32;
/// Bytes before the payload of a chunk.
pub const CHUNK_HEADER: u32 = 40;
/// The length field of the record that marks the end of a segment.
pub const END: u32 = 0xFFFF_FFF0;

const HASH: u32 = 16;
const VERSION: u32 = 24;

/// Rounds up to whole words.
#[inline(always)]
pub const fn words(bytes: u32) -> u32 {
    (bytes + 7) & !7
}

/// The length field of a record with `bytes` used bytes.
#[inline(always)]
pub const fn length_field(bytes: u32) -> u32 {
    let length = (bytes + GRAIN - 1) & !(GRAIN - 1);
    length | (length - bytes)
}

/// The first word of a record.
#[inline(always)]
pub const fn first_word(length_field: u32, generation: u32) -> u64 {
    (generation as u64) << 32 | length_field as u64
}

/// Space that a participant has reserved; its hazard names the segment until it says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    pub at: u32,
    /// Bytes reserved.
    pub room: u32,
    pub segment: u32,
    pub generation: u32,
}

/// What the first two words of a record say, checked against the bounds of its segment. Each was read once.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub at: u32,
    /// Bytes in the log, a multiple of sixteen.
    pub length: u32,
    pub generation: u32,
    pub key_length: u32,
    pub kind: u8,
    pub flags: u32,
    /// Clear epoch at which it was written.
    pub epoch: u32,
    tags_at: u32,
    pub key_at: u32,
    pub value_at: u32,
    pub value_length: u32,
}

impl Record {
    /// The record at `at` in a segment that ends at `end`; `None` when the bytes there are no record.
    ///
    /// Whatever this returns lies between `at` and `end`: reads through it cannot leave the segment.
    #[inline]
    pub fn read(region: &Region, at: u32, end: u32) -> Option<Record> {
        if at % GRAIN != 0 || at + HEADER > end {
            return None;
        }
        let first = region.word(at).load(Acquire);
        let field = first as u32;
        let (length, unused) = (field & !(GRAIN - 1), field & (GRAIN - 1));
        if length < HEADER || length > end - at {
            return None;
        }
        let used = length - unused;
        let second = region.word(at + 8).load(Acquire);
        let flags = (second >> 24) as u32 & 0xFF;
        let key_length = second as u32 & 0xFFFF;
        let mut next = HEADER;
        if flags & (EXPIRES | CHUNK) != 0 {
            next += 8;
        }
        let tags_at = next;
        if flags & TAGGED != 0 {
            if next + 8 > used {
                return None;
            }
            let sizes = region.word(at + next).load(Acquire);
            let (bytes, count) = (sizes as u32, (sizes >> 32) as u32);
            if bytes % 8 != 0 || bytes > used - next || count > MAX_TAGS || bytes < 8 + count * 8 {
                return None;
            }
            next += bytes;
        }
        if key_length > MAX_KEY || next + words(key_length) > used {
            return None;
        }
        let value = next + words(key_length);
        // The head of a large value has at least its total.
        if flags & CHUNKED != 0 && used - value < 8 {
            return None;
        }
        Some(Record {
            at,
            length,
            generation: (first >> 32) as u32,
            key_length,
            kind: (second >> 16) as u8,
            flags,
            epoch: (second >> 32) as u32,
            tags_at: at + tags_at,
            key_at: at + next,
            value_at: at + value,
            value_length: used - value,
        })
    }

    /// The length that the first word of a record in this space claims.
    #[inline(always)]
    pub fn claimed_length(region: &Region, space: &Space) -> u32 {
        (region.word(space.at).load(Acquire) as u32 & !(GRAIN - 1)).min(space.room)
    }

    /// The clear epoch in the second word of a record, when it has no tags.
    #[inline(always)]
    pub const fn untagged_epoch(second: u64) -> Option<u32> {
        if (second >> 24) as u32 & TAGGED == 0 { Some((second >> 32) as u32) } else { None }
    }

    /// The second word of a record with these fields.
    pub const fn second_word(key_length: u32, kind: u8, flags: u32, epoch: u32) -> u64 {
        (epoch as u64) << 32 | (flags as u64) << 24 | (kind as u64) << 16 | key_length as u64
    }

    /// The length field to give a copy: the original's, unless foreign bytes changed it since it was checked.
    pub fn length_field(&self, region: &Region) -> u32 {
        let field = region.word(self.at).load(Acquire) as u32;
        if field & !(GRAIN - 1) == self.length { field } else { self.length }
    }

    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub fn hash(&self, region: &Region) -> u64 {
        region.word(self.at + HASH).load(Acquire)
    }

    pub fn version(&self, region: &Region) -> u64 {
        region.word(self.at + VERSION).load(Acquire)
    }

    /// Where the version lies; it changes only in counters, under the bucket's lock.
    pub fn version_at(&self) -> u32 {
        self.at + VERSION
    }

    /// Milliseconds at which it expires, infinity when it does not.
    pub fn expiry(&self, region: &Region) -> f64 {
        if self.has(EXPIRES) { f64::from_bits(region.word(self.at + HEADER).load(Acquire)) } else { f64::INFINITY }
    }

    /// The bytes of the tag block: where it lies and how long it is, `(_, 0)` without tags.
    pub fn tags(&self) -> (u32, u32) {
        (self.tags_at, self.key_at - self.tags_at)
    }

    /// The tag slots and the snapshots of their counters taken when the record was written.
    pub fn tag_snapshots<'a>(&self, region: &'a Region) -> impl Iterator<Item = (u32, u32)> + use<'a> {
        let (at, bytes) = self.tags();
        let count = if bytes == 0 { 0 } else { ((region.word(at).load(Acquire) >> 32) as u32).min((bytes - 8) / 8) };
        (0..count).map(move |i| {
            let word = region.word(at + 8 + i * 8).load(Acquire);
            (word as u32, (word >> 32) as u32)
        })
    }

    /// Whether the key is `words`; the lengths and kinds are compared by the caller.
    #[inline(always)]
    pub fn key_equals(&self, region: &Region, words: &[u64]) -> bool {
        // Acquire, so that the load that validates comes after.
        words.iter().enumerate().all(|(i, &word)| region.word(self.key_at + i as u32 * 8).load(Acquire) == word)
    }

    /// Total bytes of a large value, from its head.
    pub fn total(&self, region: &Region) -> u64 {
        region.word(self.value_at).load(Acquire)
    }

    /// How many chunks a head lists.
    pub fn chunks(&self) -> u32 {
        (self.value_length / 8).saturating_sub(1)
    }

    /// Where the head keeps the place of chunk `i`.
    pub fn chunk_place_at(&self, i: u32) -> u32 {
        debug_assert!(i < self.chunks());
        self.value_at + 8 + i * 8
    }

    /// The number of a chunk.
    pub fn chunk_number(&self, region: &Region) -> u32 {
        region.word(self.at + HEADER).load(Acquire) as u32
    }
}

/// The place of a chunk: where it lies and in which life of its segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place(pub u64);

impl Place {
    pub fn new(at: u32, generation: u32) -> Place {
        Place((generation as u64) << 32 | at as u64)
    }

    pub fn at(self) -> u32 {
        self.0 as u32
    }

    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}
