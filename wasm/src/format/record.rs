//! A record: one entry, or one chunk of a large value, as it lies in a segment. A record is immutable once published, with
//! the exceptions named below.
//!
//! ```text
//!   0  length u32 │ generation u32               see `header.rs`
//!   8  key length u16 │ value type u8 │ flags u8 │ clear epoch u32
//!  16  hash of the key
//!  24  version
//!  32  [expiry, f64 milliseconds]                 if EXPIRES; infinity only in a record with GRACE
//!  40  [grace, f64 milliseconds]                  if GRACE, which is never without EXPIRES
//!      [tags: bytes u32 │ count u32 │ snapshot u64 × count │ counter u32 × count │ names]    if TAGGED
//!      key, zero-padded to 8
//!      value
//! ```
//!
//! The first word is written before anything else, so that a walk can skip a record that was never finished. A first word
//! with another generation is a leftover from an earlier life of the segment, and not a record.
//!
//! A **large value** is a head record with CHUNKED, whose value is `{total bytes u64 │ place of each chunk …}`, and chunk
//! records with CHUNK: at 32 the chunk's number, at 40 its bytes. A chunk has the version of its head, so it cannot be taken
//! for a chunk of another value.
//!
//! *Mutable* records change one word at a time, and only under the lock of their bucket. There are three sorts: a number that is
//! incremented changes its value and its version, a rate limit also its expiry (`entries/limit.rs`), and the head of a large
//! value changes the places of chunks that are moved.

use crate::format::header::{CHUNK, CHUNKED, EXPIRES, FirstWord, GRACE, LengthField, SecondWord, TAGGED, key_kind_of};
use crate::format::layout::{GRAIN, Geometry, MAX_KEY, MAX_TAGS, WORD};
use crate::format::region::Region;
use crate::sync::{Acquire, Relaxed, SeqCst};

/// The lowest bit of a version: set while a number or a rate limit changes in place.
pub const CHANGING: u64 = 1;

/// Bytes before the optional parts.
pub const HEADER: u32 = 32;
/// Bytes that a record with an expiry has before its other optional parts.
pub const HEADER_WITH_EXPIRY: u32 = HEADER + WORD;
/// Bytes that a record with a grace has before its tags.
pub const HEADER_WITH_GRACE: u32 = HEADER_WITH_EXPIRY + WORD;
/// Bytes before the payload of a chunk.
pub const CHUNK_HEADER: u32 = HEADER + WORD;
/// Bytes of a tag block before the counters: its length, and the number of tags.
pub const TAG_BLOCK_HEADER: u32 = WORD;
/// Bytes of the snapshot of a tag's counter: its first word. All snapshots lie before the numbers of the counters.
pub const TAG_SNAPSHOT: u32 = WORD;
/// Bytes of a tag block for each tag, without the name: the snapshot, and the number of its counter.
pub const TAG_BYTES: u32 = TAG_SNAPSHOT + WORD / 2;

const SECOND: u32 = WORD;
const HASH: u32 = 2 * WORD;
const VERSION: u32 = 3 * WORD;
/// The first optional part: an expiry, or the number of a chunk.
const OPTIONAL: u32 = HEADER;
/// The grace, behind the expiry.
const GRACE_AT: u32 = HEADER_WITH_EXPIRY;

const _: () = assert!(VERSION + WORD == HEADER && HEADER % GRAIN == 0 && GRAIN == 2 * WORD);
// The second word has sixteen bits for the length of the key.
const _: () = assert!(MAX_KEY <= u16::MAX as u32);

/// Rounds bytes up to whole words.
#[inline(always)]
pub const fn words(bytes: u32) -> u32 {
    (bytes + WORD - 1) & !(WORD - 1)
}

/// Space for a record that a participant has reserved. The participant's hazard names the segment until `withdraw`.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    pub at: u32,
    /// Bytes reserved.
    pub room: u32,
    pub segment: u32,
    pub generation: u32,
}

impl Space {
    pub fn place(&self) -> Place {
        Place::new(self.at, self.generation)
    }

    /// Writes the first optional word: an expiry, or the number of a chunk.
    #[inline(always)]
    pub fn fill_optional(&self, region: &Region, word: u64) {
        region.fill(self.at + OPTIONAL, word)
    }

    #[inline(always)]
    pub fn fill_grace(&self, region: &Region, grace: f64) {
        region.fill(self.at + GRACE_AT, grace.to_bits())
    }

    #[inline(always)]
    pub fn fill_second(&self, region: &Region, second: SecondWord) {
        region.fill(self.at + SECOND, second.0)
    }

    #[inline(always)]
    pub fn fill_hash_and_version(&self, region: &Region, hash: u64, version: u64) {
        region.fill(self.at + HASH, hash);
        region.fill(self.at + VERSION, version);
    }

    /// Copies everything but the first word from a record of the same length.
    pub fn fill_from(&self, region: &Region, record: &Record) {
        region.copy_within(record.at + SECOND, self.at + SECOND, record.length - SECOND);
    }

    /// Shortens the record to `bytes`. The rest of the space becomes a dead record, so that a walk can go on behind it.
    pub fn shrink(&self, region: &Region, bytes: u32) {
        let field = LengthField::of(bytes);
        let rest = self.room - field.length();
        if rest > 0 {
            let rest_at = self.at + field.length();
            region.fill(rest_at + SECOND, 0);
            region.word(rest_at).store(FirstWord::new(LengthField(rest), self.generation).0, Relaxed);
        }
        // Last: until now a walk sees one record of the full length.
        region.word(self.at).store(FirstWord::new(field, self.generation).0, SeqCst);
    }

    #[inline(always)]
    pub fn second(&self, region: &Region) -> SecondWord {
        SecondWord(region.word(self.at + SECOND).load(Acquire))
    }

    /// The record that was written here; `None` when foreign bytes have made it unreadable.
    pub fn record(&self, region: &Region) -> Option<Record> {
        Record::read(region, self.at, end_of_segment(&region.geometry, self.segment))
    }

    /// The length that the first word of the record claims.
    #[inline(always)]
    pub fn claimed_length(&self, region: &Region) -> u32 {
        FirstWord(region.word(self.at).load(Acquire)).length().length().min(self.room)
    }
}

/// Bytes that a record with these flags has before its tags.
#[inline(always)]
pub const fn header_bytes(flags: u32) -> u32 {
    if flags & GRACE != 0 {
        HEADER_WITH_GRACE
    } else if flags & (EXPIRES | CHUNK) != 0 {
        HEADER_WITH_EXPIRY
    } else {
        HEADER
    }
}

/// The flags of the optional words of a record: milliseconds at which it expires, and its grace.
#[inline(always)]
pub fn optional_flags(expiry: f64, grace: f64) -> u32 {
    if grace > 0.0 {
        EXPIRES | GRACE
    } else if expiry != f64::INFINITY {
        EXPIRES
    } else {
        0
    }
}

/// Where a segment ends.
#[inline(always)]
pub const fn end_of_segment(geometry: &Geometry, segment: u32) -> u32 {
    geometry.segment(segment + 1)
}

/// What the first two words of a record say, checked against the bounds of its segment. Each word was read once.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub at: u32,
    /// Bytes in the log, a multiple of sixteen.
    pub length: u32,
    pub generation: u32,
    pub key_length: u32,
    pub value_type: u8,
    pub flags: u32,
    /// The clear epoch in which the record was written.
    pub clear_epoch: u32,
    tags_at: u32,
    pub key_at: u32,
    pub value_at: u32,
    pub value_length: u32,
}

impl Record {
    /// The record at `at` in a segment that ends at `end`; `None` when the bytes there are not a record.
    ///
    /// Every part of the record lies between `at` and `end`: reads through it cannot leave the segment. All loads in this
    /// file are Acquire, so that they are ordered before the load that validates the record (`is_valid`).
    #[inline]
    pub fn read(region: &Region, at: u32, end: u32) -> Option<Record> {
        if at % GRAIN != 0 || at + HEADER > end {
            return None;
        }
        let first = FirstWord(region.word(at).load(Acquire));
        let field = first.length();
        let (length, unused) = (field.length(), field.unused());
        if length < HEADER || length > end - at {
            return None;
        }
        let used = length - unused;
        let second = SecondWord(region.word(at + SECOND).load(Acquire));
        let flags = second.flags();
        let key_length = second.key_length();
        let mut next = header_bytes(flags);
        let tags_at = next;
        if flags & TAGGED != 0 {
            if next + TAG_BLOCK_HEADER > used {
                return None;
            }
            let sizes = region.word(at + next).load(Acquire);
            let (bytes, count) = (sizes as u32, (sizes >> 32) as u32);
            if bytes % WORD != 0
                || bytes > used - next
                || count > MAX_TAGS
                || bytes < TAG_BLOCK_HEADER + count * TAG_BYTES
            {
                return None;
            }
            next += bytes;
        }
        if key_length > MAX_KEY || next + words(key_length) > used {
            return None;
        }
        let value = next + words(key_length);
        // The head of a large value has at least its total.
        if flags & CHUNKED != 0 && used - value < WORD {
            return None;
        }
        Some(Record {
            at,
            length,
            generation: first.generation(),
            key_length,
            value_type: second.value_type(),
            flags,
            clear_epoch: second.clear_epoch(),
            tags_at: at + tags_at,
            key_at: at + next,
            value_at: at + value,
            value_length: used - value,
        })
    }

    /// The length field for a copy of this record: loaded again, or only the checked length if foreign bytes have changed it.
    pub fn length_field(&self, region: &Region) -> LengthField {
        let field = FirstWord(region.word(self.at).load(Acquire)).length();
        if field.length() == self.length { field } else { LengthField(self.length) }
    }

    /// The second word of this record, with another clear epoch.
    pub fn second_in(&self, clear_epoch: u32) -> SecondWord {
        SecondWord::new(self.key_length, self.value_type, self.flags, clear_epoch)
    }

    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    #[inline(always)]
    pub fn key_kind(&self) -> u32 {
        key_kind_of(self.flags)
    }

    pub fn hash(&self, region: &Region) -> u64 {
        region.word(self.at + HASH).load(Acquire)
    }

    pub fn version(&self, region: &Region) -> u64 {
        region.word(self.version_at()).load(Acquire)
    }

    /// Where the version lies. Only the versions of incremented numbers and of rate limits change, under the lock of the bucket.
    pub fn version_at(&self) -> u32 {
        self.at + VERSION
    }

    /// Where the expiry of a record with EXPIRES lies. Only that of a rate limit changes, under the lock of the bucket.
    pub fn expiry_at(&self) -> u32 {
        self.at + OPTIONAL
    }

    /// Milliseconds at which the record expires; infinity when it does not.
    pub fn expiry(&self, region: &Region) -> f64 {
        if self.has(EXPIRES) { f64::from_bits(region.word(self.at + OPTIONAL).load(Acquire)) } else { f64::INFINITY }
    }

    /// How long the record may be read when it is stale, in milliseconds; zero when it has no grace.
    pub fn grace(&self, region: &Region) -> f64 {
        if self.has(GRACE) { f64::from_bits(region.word(self.at + GRACE_AT).load(Acquire)) } else { 0.0 }
    }

    /// Where the tag block lies, and its length in bytes: zero without tags.
    pub fn tags(&self) -> (u32, u32) {
        (self.tags_at, self.key_at - self.tags_at)
    }

    /// Where the snapshot of tag number `i` lies.
    fn tag_snapshot_at(&self, i: u32) -> u32 {
        self.tags_at + TAG_BLOCK_HEADER + i * TAG_SNAPSHOT
    }

    /// Writes the snapshot of tag number `i` of a record that is not published yet.
    pub fn fill_tag_snapshot(&self, region: &Region, i: u32, snapshot: u64) {
        region.fill(self.tag_snapshot_at(i), snapshot)
    }

    /// For each tag the number of its counter, and the snapshot of the counter when the record was written or renewed.
    #[inline(always)]
    pub fn tag_snapshots<'a>(&self, region: &'a Region) -> impl Iterator<Item = (u32, u64)> + use<'a> {
        let (at, bytes) = self.tags();
        let claimed = |at| (region.word(at).load(Acquire) >> 32) as u32;
        let count = if bytes == 0 { 0 } else { claimed(at).min((bytes - TAG_BLOCK_HEADER) / TAG_BYTES) };
        let first = self.tag_snapshot_at(0);
        let counters = first + count * TAG_SNAPSHOT;
        (0..count).map(move |i| {
            let snapshot = region.word(first + i * TAG_SNAPSHOT).load(Acquire);
            // Two numbers to a word, the lower half first.
            let pair = region.word(counters + i / 2 * WORD).load(Acquire);
            ((pair >> (i % 2 * 32)) as u32, snapshot)
        })
    }

    /// Whether the key is `words`. The caller compares length and key kind.
    #[inline(always)]
    pub fn key_equals(&self, region: &Region, words: &[u64]) -> bool {
        // Acquire: ordered before the load that validates the record.
        words.iter().enumerate().all(|(i, &word)| region.word(self.key_at + i as u32 * WORD).load(Acquire) == word)
    }

    /// Total bytes of a large value, as its head says.
    pub fn total(&self, region: &Region) -> u64 {
        region.word(self.value_at).load(Acquire)
    }

    /// How many chunks the head of a large value lists.
    pub fn chunks(&self) -> u32 {
        (self.value_length / WORD).saturating_sub(1)
    }

    /// Where the head of a large value keeps the place of chunk `i`.
    pub fn chunk_place_at(&self, i: u32) -> u32 {
        debug_assert!(i < self.chunks());
        self.value_at + WORD + i * WORD
    }

    /// The place of chunk `i` of a large value. Acquire: pairs with the store in `move_chunk`, which comes after the copy.
    pub fn chunk_place(&self, region: &Region, i: u32) -> Place {
        Place(region.word(self.chunk_place_at(i)).load(Acquire))
    }

    /// The number of a chunk.
    pub fn chunk_number(&self, region: &Region) -> u32 {
        region.word(self.at + OPTIONAL).load(Acquire) as u32
    }
}

/// The place of a chunk: where it lies, and in which life of its segment.
///
/// ```text
/// place   │ generation u32 │ offset in the region u32 │
/// ```
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
