//! Every number that both Rust and TypeScript need. `scripts/build-wasm.mjs` turns these constants into
//! `src/engine/contract.ts`, so no such number is written down twice.
//!
//! The compiler computes the values, and puts them with their names and doc comments into a custom section of the linked
//! module. The build script reads that section. The module that is shipped has no custom sections.
//!
//! ```text
//! section "contract"   for each number: value u64, little-endian │ group, NUL │ name, NUL │ doc comment, lines, NUL
//! ```

use core::mem::{offset_of, size_of};

use crate::abi::area::{self, Area, Group, Out, OutStamp};
use crate::coordinate::{claims, locks};
use crate::entries::{change, limit, read, tags};
use crate::format::layout::{self, Class, Counter, WORD};
use crate::format::record;
use crate::format::segment::Phase;
use crate::index::{key, prefetch};

/// Defines constants, and lists each with its group, its name and its doc comment.
macro_rules! contract {
    ($($group:literal { $($(#[doc = $doc:literal])+ $name:ident: $type:ty = $value:expr;)+ })+) => {
        $($(
            $(#[doc = $doc])+
            #[allow(dead_code)]
            pub const $name: $type = $value;
        )+)+

        const NUMBERS: &[(u64, &str)] = &[$($(
            ($name as u64, concat!($group, "\0", stringify!($name), "\0", $($doc, "\n",)+ "\0")),
        )+)+];
    };
}

contract! {
    "The layout of a region" {
        /// Version of the layout: raised whenever two builds could not share a region.
        LAYOUT_VERSION: u32 = layout::LAYOUT_VERSION;
        /// Bytes of a WebAssembly page: sizes of regions are multiples of it.
        PAGE: u32 = layout::PAGE;
        /// Smallest region, in bytes.
        MIN_SIZE: u32 = layout::MIN_SIZE;
        /// Largest region, in bytes.
        MAX_SIZE: u32 = layout::MAX_SIZE;
        /// Seats of the smallest region. A region has a seat for each page, but at least these and at most `MAX_SEATS`.
        MIN_SEATS: u32 = layout::participants(layout::MIN_SIZE);
        /// Seats of the largest region.
        MAX_SEATS: u32 = layout::participants(layout::MAX_SIZE);
        /// The first word of every region.
        MAGIC: u64 = layout::MAGIC;
        /// Bytes at the start of a region that hold the three words below.
        INSPECTED_BYTES: u32 = layout::INSPECTED_BYTES;
        /// Where `MAGIC` lies, in words of eight bytes.
        HEADER_MAGIC: u32 = layout::MAGIC_AT / WORD;
        /// Where `LAYOUT_VERSION` lies, in words of eight bytes.
        HEADER_VERSION: u32 = layout::VERSION_AT / WORD;
        /// Where the size of the region lies, in words of eight bytes.
        HEADER_SIZE: u32 = layout::SIZE_AT / WORD;
        /// Where the clear epoch lies in a region, in bytes: it counts `clear`, in four bytes.
        CLEAR_EPOCH_AT: u32 = layout::CLEAR_EPOCH_AT;
        /// Where the global invalidation sequence lies in a region, in bytes: it counts invalidations, and the lower four bytes are
        /// used.
        INVALIDATIONS_AT: u32 = layout::INVALIDATIONS_AT;
        /// Where the seats begin in a region, in bytes.
        SEATS_AT: u32 = layout::SEATS_AT;
        /// Bytes of a seat.
        SEAT_BYTES: u32 = layout::SEAT_BYTES;
        /// Bytes of the name of a lock by which it is listed; longer names are cut off.
        MAX_CLAIM_NAME: u32 = layout::MAX_CLAIM_NAME;
    }
    "Where the words of a seat lie in it" {
        /// The incarnation of the participant. In words of four bytes. The word behind it is the tenure, 0 for a free seat.
        SEAT_INCARNATION: u32 = layout::SEAT_INCARNATION / 4;
        /// The hazard: 1 + the number of the segment that the participant writes into, or 0 for none. In words of four
        /// bytes.
        SEAT_HAZARD: u32 = layout::SEAT_HAZARD / 4;
        /// The version of the large value that the participant is writing, or 0: low half, high half. In words of four
        /// bytes.
        SEAT_PENDING: u32 = layout::SEAT_PENDING / 4;
        /// Hits of the participant's near cache: a double, written by JavaScript only. In bytes.
        SEAT_NEAR_HITS: u32 = layout::SEAT_NEAR_HITS;
        /// The classes of buckets that the participant waits for, a bit for each: low half, high half. In words of four bytes.
        SEAT_INTEREST: u32 = layout::SEAT_INTEREST / 4;
        /// 1 when somebody has rung the participant and it has not looked since, else 0: low half, high half. In words of four bytes.
        SEAT_RINGING: u32 = layout::SEAT_RINGING / 4;
        /// The process id and the thread id, written by JavaScript only, in four bytes each. In words of four bytes.
        SEAT_THREAD: u32 = layout::SEAT_THREAD / 4;
        /// The time by the participant's clock when it last asked it, in milliseconds; 0 before: a double, written by JavaScript only. In
        /// bytes.
        SEAT_CLOCK: u32 = layout::SEAT_CLOCK;
        /// The counters of the participant, by the numbers of `counter`. In units of eight bytes.
        SEAT_COUNTERS: u32 = layout::SEAT_COUNTERS / WORD;
    }
    "The area of a thread" {
        /// Where the areas begin in the memory, in bytes: behind the module's own data.
        AREAS_AT: u32 = layout::PAGE;
        /// Bytes of an area. The stack of the thread begins at its end and grows down.
        AREA_BYTES: u32 = area::AREA_BYTES as u32;
        /// Bytes of an area that are kept for the stack.
        STACK_BYTES: u32 = area::STACK_BYTES as u32;
        /// Where the out part lies in an area, in bytes.
        AREA_OUT: u32 = offset_of!(Area, out) as u32;
        /// Where the key part lies in an area, in bytes; it has `MAX_KEY` bytes.
        AREA_KEY: u32 = offset_of!(Area, key) as u32;
        /// Where the group part lies in an area, in bytes: the keys of a group as they are passed, in four bytes each.
        AREA_GROUP: u32 = offset_of!(Area, group) as u32;
        /// Where the slots of the group's keys lie in an area, in bytes.
        AREA_SLOTS: u32 = (offset_of!(Area, group) + offset_of!(Group, slots)) as u32;
        /// Keys of a group.
        GROUP: u32 = prefetch::GROUP as u32;
        /// Bytes of the longest key in a group, with the prefix of its namespace.
        SLOT_KEY: u32 = (area::SLOT_WORDS as u32 - 1) * 8;
        /// Bytes from one slot to the next.
        SLOT_BYTES: u32 = area::SLOT_WORDS as u32 * 8;
        /// Where the tags part lies in an area, in bytes; it has `TAGS_BYTES`.
        AREA_TAGS: u32 = offset_of!(Area, tags) as u32;
        /// Where the value part lies in an area, in bytes; it has `VALUE_BYTES`.
        AREA_VALUE: u32 = offset_of!(Area, value) as u32;
        /// Bytes of the out part.
        OUT_BYTES: u32 = size_of::<Out>() as u32;
        /// Bytes of the tags part: the most tags of the deepest namespace, behind its prefix.
        TAGS_BYTES: u32 = area::TAGS_BYTES as u32;
        /// Bytes of the value part: the longest record.
        VALUE_BYTES: u32 = layout::MAX_RECORD;
    }
    "Where results lie in the out part" {
        /// After `get`: the value type in the low byte, `CHUNKED` and `STALE`. In words of four bytes.
        OUT_TYPE: u32 = offset_of!(Out, value_type) as u32 / 4;
        /// After `get` with `WANT_TAGS`: bytes of the tag block. After `next`: the key word. After `census`: entries in
        /// namespaces. After `claim` and `claim_lock`: the number of the claim. After `next_lock`: bytes of the name. In words of four bytes.
        OUT_WORD: u32 = offset_of!(Out, word) as u32 / 4;
        /// After `get`, `increment` and `begin_large`: the version. After `limit`: `reset_at`. After `claim`, `claim_lock` and
        /// `next_lock`: the token. In units of eight bytes.
        OUT_VERSION: u32 = offset_of!(Out, version) as u32 / 8;
        /// After `get`: the expiry in milliseconds. After `increment`: the sum. After `limit`: `remaining`. After `census`: bytes.
        /// In units of eight bytes.
        OUT_NUMBER: u32 = offset_of!(Out, number) as u32 / 8;
        /// After `get` and `find`: the stamp, which identifies the record. The entry at its highest heat, low half and high
        /// half, both zero when the entry can change in place; then the generation of its segment. In words of four bytes.
        OUT_STAMP: u32 = (offset_of!(Out, stamp) + offset_of!(OutStamp, entry)) as u32 / 4;
        /// Words of the stamp.
        STAMP_WORDS: u32 = (offset_of!(OutStamp, clear_epoch) - offset_of!(OutStamp, entry)) as u32 / 4;
        /// After `get` and `find`: the clear epoch. In words of four bytes.
        OUT_CLEAR_EPOCH: u32 = (offset_of!(Out, stamp) + offset_of!(OutStamp, clear_epoch)) as u32 / 4;
        /// After `get` and `find`: where the changes of the entry's bucket are counted, as an index in the memory in units of
        /// four bytes. In words of four bytes.
        OUT_CHANGES_AT: u32 = (offset_of!(Out, stamp) + offset_of!(OutStamp, changes_at)) as u32 / 4;
        /// After `find`: the low half of the changes of the bucket. The stamp is true as long as this and the clear epoch
        /// stay the same. In words of four bytes.
        OUT_CHANGES: u32 = (offset_of!(Out, stamp) + offset_of!(OutStamp, changes)) as u32 / 4;
        /// After `get`: the grace in milliseconds. After `increment`: the expiry in milliseconds. After `limit`: `retry_after`, then
        /// `reset_after`. In units of eight bytes.
        OUT_MORE: u32 = offset_of!(Out, more) as u32 / 8;
        /// Not zero while a call is under way, and after a call that was cut off. In words of four bytes.
        OUT_INSIDE: u32 = offset_of!(Out, inside) as u32 / 4;
        /// After `claim`, `claim_lock` and `next_lock`: the seat of the owner. In words of four bytes.
        OUT_OWNER_SEAT: u32 = offset_of!(Out, owner_seat) as u32 / 4;
        /// After `claim` and `claim_lock`: which owner of that seat. In words of four bytes.
        OUT_OWNER_TENURE: u32 = offset_of!(Out, owner_tenure) as u32 / 4;
        /// After `claim`: the global invalidation sequence when the claim was made. After `next_lock`: the process id of the owner. In
        /// words of four bytes.
        OUT_START_SEQUENCE: u32 = offset_of!(Out, start_sequence) as u32 / 4;
        /// After `claim`: the clear epoch when the claim was made. After `next_lock`: the thread id of the owner. In words of four
        /// bytes.
        OUT_START_CLEAR_EPOCH: u32 = offset_of!(Out, start_clear_epoch) as u32 / 4;
        /// After `claim` and `claim_lock`: the class of the key's bucket. After `next_lock`: 0, or `CLAIM_PENDING`. In words of four
        /// bytes.
        OUT_CLASS: u32 = offset_of!(Out, class) as u32 / 4;
        /// Flag in `OUT_TYPE`: the value is in chunks.
        CHUNKED: u32 = 1 << 8;
        /// Flag in `OUT_TYPE`: the entry has expired, and is within its grace.
        STALE: u32 = 1 << 9;
    }
    "Keys, tags and values" {
        /// Longest key in bytes, with the prefix of its namespace.
        MAX_KEY: u32 = layout::MAX_KEY;
        /// A key is passed as `length << KEY_KIND_BITS | key kind`.
        KEY_KIND_BITS: u32 = area::KEY_KIND_BITS;
        /// Key kind of a string, as UTF-8.
        KEY_STRING: u32 = key::KEY_STRING;
        /// Key kind of bytes.
        KEY_BYTES: u32 = key::KEY_BYTES;
        /// Key kind of a string with lone surrogates, as UTF-16.
        KEY_ILL_FORMED: u32 = key::KEY_ILL_FORMED;
        /// Key kind of every key in a namespace.
        KEY_NAMESPACED: u32 = key::KEY_NAMESPACED;
        /// Most tags that a user gives to one entry.
        MAX_VISIBLE_TAGS: u32 = layout::MAX_VISIBLE_TAGS;
        /// Most tags of one entry, with a hidden one for each namespace that the entry is in.
        MAX_TAGS: u32 = layout::MAX_TAGS;
        /// Longest tag in bytes, with the prefix of its namespace.
        MAX_TAG: u32 = layout::MAX_TAG;
        /// Longest name of a tag in bytes, without that prefix: the record keeps the name.
        MAX_TAG_NAME: u32 = layout::MAX_TAG_NAME;
        /// Flag in the length of a tag: it has no prefix, and the record does not keep the name.
        TAG_HIDDEN: u32 = tags::HIDDEN as u32;
        /// Bytes of the tags part before the prefix: how many tags there are, and the bytes of the prefix, in two bytes each.
        TAGS_HEADER: u32 = tags::GIVEN_HEADER;
        /// Bytes of the length in front of each tag.
        TAG_LENGTH_BYTES: u32 = tags::LENGTH_BYTES;
        /// Bytes of a tag block before the snapshots: its length, and how many tags there are, in four bytes each.
        TAG_BLOCK_HEADER: u32 = record::TAG_BLOCK_HEADER;
        /// Bytes of a tag block for each tag: the snapshots of all counters, eight bytes each, then the numbers of all
        /// counters, four bytes each. The names follow.
        TAG_BYTES: u32 = record::TAG_BYTES;
        /// Words of four bytes of a tag's counter. The first two are what a snapshot holds.
        TAG_COUNTER_WORDS: u32 = layout::TAG_COUNTER_BYTES / 4;
        /// Value type of a number, a double: the engine understands it, because `increment` adds to it.
        NUMBER_TYPE: u32 = change::NUMBER as u32;
        /// Value type of a rate limit. Its value is a head and two states of three doubles each; one of them counts.
        LIMIT_TYPE: u32 = limit::LIMIT as u32;
        /// Bytes of the value of a rate limit.
        LIMIT_BYTES: u32 = limit::LIMIT_BYTES;
        /// In the head of a rate limit, whose low byte is the algorithm: the second state counts.
        LIMIT_SECOND: u32 = limit::SECOND_STATE as u32;
    }
    "Algorithms of rate limits" {
        /// The generic cell rate algorithm.
        LIMIT_GCRA: u32 = limit::GCRA;
        /// Windows that begin with their first request.
        LIMIT_FIXED: u32 = limit::FIXED;
        /// Two windows, the former weighted.
        LIMIT_SLIDING: u32 = limit::SLIDING;
    }
    "What a change expects to find" {
        /// An entry or none.
        ANYTHING: u32 = 0;
        /// No entry.
        ABSENT: u32 = 1;
        /// An entry.
        PRESENT: u32 = 2;
        /// The entry of the version that is passed along.
        VERSION: u32 = 3;
        /// The entry of the version that is passed along, with the expiry that is passed along.
        UNTOUCHED: u32 = 5;
        /// `CLAIM | number << CLAIM_SHIFT`: anything, as long as the claim stands whose token is passed along instead of a version, and
        /// nothing was invalidated since it was made.
        CLAIM: u32 = 4;
        /// See `CLAIM`.
        CLAIM_SHIFT: u32 = 8;
    }
    "Results of calls that change something" {
        /// It was done.
        DONE: i32 = 0;
        /// The entry is not what was expected.
        UNEXPECTED: i32 = 1;
        /// Key, tags and value are too long for one record, or a large value has too many chunks.
        TOO_LARGE: i32 = 2;
        /// The value is no number.
        NOT_A_NUMBER: i32 = 3;
        /// Another participant was in the way until the time for waiting was over.
        BUSY: i32 = 4;
        /// The sum is outside of its bounds.
        OUT_OF_RANGE: i32 = 10;
        /// The value is no rate limit.
        NOT_A_LIMIT: i32 = 11;
        /// The claim was overtaken, or is over.
        OVERTAKEN: i32 = 5;
        /// The value was loaded before a `clear`, or before an invalidation of one of its tags.
        INVALIDATED: i32 = 6;
        /// Added to a result: there are bells to ring, see `next_bell`.
        RING: i32 = 1 << 30;
    }
    "Results of `claim` and `claim_lock`; `PRESENT` and `BUSY` are two more" {
        /// This participant has it now.
        CLAIMED: i32 = 0;
        /// Another participant has it, and lives.
        TAKEN: i32 = 7;
        /// There is no room for another claim.
        CLAIMS_FULL: i32 = 8;
    }
    "What `claim` and `claim_lock` are asked for; these flags are added" {
        /// An entry of the key is no reason against the claim.
        CLAIM_FRESH: u32 = locks::FRESH;
        /// When another participant has it, this one is registered as one that waits.
        CLAIM_WAIT: u32 = locks::WAIT;
        /// The holder of the lock is overtaken.
        CLAIM_STEAL: u32 = locks::STEAL;
        /// Only records that this participant waits for the lock, so that it is listed.
        CLAIM_PENDING: u32 = locks::PENDING;
    }
    "Results of `release_lock`" {
        /// The lock was not this participant's any more.
        RELEASED_GONE: i32 = locks::Released::Gone as i32;
        /// It is free.
        RELEASED: i32 = locks::Released::Free as i32;
        /// It is free, and somebody who waits for it was rung.
        RELEASED_PASSED: i32 = locks::Released::Passed as i32;
        /// It had been stolen.
        RELEASED_STOLEN: i32 = locks::Released::Stolen as i32;
    }
    "Whether a claim `stands`" {
        /// It was freed, or its owner has left.
        GONE: u32 = claims::Stands::Gone as u32;
        /// It stands.
        STANDS: u32 = claims::Stands::Stands as u32;
        /// It was overtaken, and is not freed yet.
        WAS_OVERTAKEN: u32 = claims::Stands::Overtaken as u32;
    }
    "What `next_claim` has found" {
        /// The load of a key.
        CLAIM_SEEN_LOADING: u32 = 0;
        /// A lock.
        CLAIM_SEEN_LOCKED: u32 = 1;
        /// A request for a lock.
        CLAIM_SEEN_PENDING: u32 = 2;
        /// Added: it was overtaken.
        CLAIM_SEEN_OVERTAKEN: u32 = 4;
    }
    "What `get` is asked for; these flags are added" {
        /// The value is copied to the value part.
        WANT_VALUE: u32 = read::WANT_VALUE;
        /// The tag block is copied to the tags part.
        WANT_TAGS: u32 = read::WANT_TAGS;
        /// The read is not counted and does not raise the heat.
        WANT_QUIET: u32 = read::WANT_QUIET;
        /// `find` has counted the read as a hit already.
        WANT_AFTER_FIND: u32 = read::WANT_AFTER_FIND;
        /// An entry that is stale and within its grace is found, too.
        WANT_STALE: u32 = read::WANT_STALE;
    }
    "What `counter` is asked for" {
        /// Reads that found a value.
        COUNTER_HITS: u32 = Counter::Hits as u32;
        /// Reads that found none.
        COUNTER_MISSES: u32 = Counter::Misses as u32;
        /// Values stored.
        COUNTER_SETS: u32 = Counter::Sets as u32;
        /// Entries removed by request.
        COUNTER_DELETES: u32 = Counter::Deletes as u32;
        /// Entries that had to make room for others.
        COUNTER_EVICTIONS: u32 = Counter::Evictions as u32;
        /// Expired entries whose memory was taken back.
        COUNTER_EXPIRATIONS: u32 = Counter::Expirations as u32;
        /// Segments that were emptied.
        COUNTER_RECLAIMS: u32 = Counter::Reclaims as u32;
        /// Segments that were emptied by moving the records that lived in them.
        COUNTER_COMPACTIONS: u32 = Counter::Compactions as u32;
    }
    "What `segments` writes to the value part for each segment, in words of four bytes" {
        /// Words for each segment.
        SEGMENT_WORDS: u32 = 5;
        /// The phase in the low byte, and the class above it.
        SEGMENT_STATE: u32 = 0;
        /// Bytes appended.
        SEGMENT_USED: u32 = 1;
        /// Those of them that belong to live records.
        SEGMENT_LIVE: u32 = 2;
        /// The generation.
        SEGMENT_GENERATION: u32 = 3;
        /// 1 + the seat of the participant that empties the segment, or 0 for none.
        SEGMENT_OWNER: u32 = 4;
        /// The class is shifted by this many bits.
        CLASS_SHIFT: u32 = 8;
        /// Class of segments whose entries are on probation.
        CLASS_SMALL: u32 = Class::Small as u32;
        /// Class of segments whose entries were read again.
        CLASS_MAIN: u32 = Class::Main as u32;
        /// Phase of a segment that is not in use.
        PHASE_FREE: u32 = Phase::Free as u32;
        /// Phase of a segment that takes records.
        PHASE_OPEN: u32 = Phase::Open as u32;
        /// Phase of a segment that takes no more records.
        PHASE_SEALED: u32 = Phase::Sealed as u32;
        /// Phase of a segment that is being emptied.
        PHASE_RECLAIM: u32 = Phase::Reclaim as u32;
    }
}

/// All counters are in the contract.
const _: () = assert!(COUNTER_COMPACTIONS + 1 == layout::COUNTERS);

/// Bytes of the custom section.
const fn length(numbers: &[(u64, &str)]) -> usize {
    let (mut i, mut bytes) = (0, 0);
    while i < numbers.len() {
        bytes += 8 + numbers[i].1.len();
        i += 1;
    }
    bytes
}

/// The custom section, as drawn above.
const fn section<const N: usize>(numbers: &[(u64, &str)]) -> [u8; N] {
    let mut bytes = [0; N];
    let (mut at, mut i) = (0, 0);
    while i < numbers.len() {
        let (value, text) = numbers[i];
        let mut shift = 0;
        while shift < 64 {
            bytes[at] = (value >> shift) as u8;
            (at, shift) = (at + 1, shift + 8);
        }
        let mut j = 0;
        while j < text.len() {
            bytes[at] = text.as_bytes()[j];
            (at, j) = (at + 1, j + 1);
        }
        i += 1;
    }
    bytes
}

/// Not `#[used]`, which would put the bytes into the module's data as well.
#[allow(dead_code)]
#[unsafe(link_section = "contract")]
static SECTION: [u8; length(NUMBERS)] = section(NUMBERS);
