//! Where everything lies in the shared region. The sizes and offsets of everything but the parts of a record are defined here
//! and nowhere else. `format/record.rs` defines the parts of a record, and the file of each word's type defines the bits of
//! the word. TypeScript gets the numbers that it needs from `abi/contract.rs`.
//!
//! The geometry is a pure function of the region's size. It is never read from the region itself, so damaged bytes cannot
//! move a bound.
//!
//! ```text
//! region   0        4 KiB                                                                              size
//!          ├ header ┤ seats │ claims │ tag counters │ states │ metas │ changes │ index │ segments … │ (unused) ┤
//!
//! header   0 magic │ 8 layout version │ 16 size │ 24 hash seed, 128 bits
//!         64 next version        (fetch_add, one block of versions at a time)
//!        128 clear epoch         u32, read by every lookup
//!        192 seal sequence       (fetch_add, whenever a segment is sealed)
//!        200 ghost clock         (fetch_add, whenever a segment of the small queue is sealed)
//!        256 high-water mark     1 + the highest seat that was ever used, so that scans stay short
//!        320 claim sequence      (fetch_add: the tokens of claims)
//!        384 invalidations       (fetch_add, with each invalidation and each expiry of a tag: the low 32 bits are the sequence)
//!       1024 lanes               16 × 64 B, each a lane word: where writers append, see `format/segment.rs`
//!
//! seat (128 B)   first cache line    0 {incarnation u32 │ tenure u32}, see `Seat` in `participant/recover.rs`
//!                                    8 hazard: segment + 1, or 0
//!                                   16 version of the large value that the participant is writing, or 0
//!                                   24 hits of the participant's near cache, f64
//!                                   32 interest: a bit for each class of buckets that the participant waits for
//!                                   40 ringing: 1 from a ring until the participant looks, else 0
//!                                   48 {process id u32 │ thread id u32}, written by JavaScript
//!                                   56 the time by the participant's clock when it asked last, f64, written by JavaScript
//!                second cache line  64 eight statistics, u64 each, written by the participant only
//!
//! tag counter (24 B)   0 {sequence of the latest invalidation u32 │ sequence of the latest `expire_tags` u32}
//!                      8 time of the latest invalidation f64, 0 for never
//!                     16 time of the latest `expire_tags` f64, 0 for never
//!
//! claim (128 B)  0 owner, 8 hash of the key, 16 token: see `format/claim.rs`
//!               24 deadline, f64: milliseconds until which the owner of a load has renewed its lease; infinity for a lock
//!               32 {global invalidation sequence u32 │ clear epoch u32} when the claim was made
//!               40 bytes of the name u32 │ 48 name, 80 bytes: locks only
//!                A set is sixteen claims. All claims of keys of one bucket lie in one set.
//!
//! meta (32 B)    0 bump u64 │ 8 live bytes, see `Live` │ 16 seal sequence u64 │ 24 see `Sealing`
//!
//! changes  one u64 for each bucket, its change counter: raised before each change to an entry of the bucket, unless only
//!          the heat changes. The change counters lie apart from the buckets, so that one cache line holds those of eight
//!          buckets. A near cache reads them with each hit, and does not read the buckets.
//! ```

use core::mem::size_of;

/// `"cachemch"`, the first eight bytes of every region.
pub const MAGIC: u64 = u64::from_le_bytes(*b"cachemch");
/// Raised whenever two builds could not share a region.
pub const LAYOUT_VERSION: u32 = 6;

/// Bytes of a word: the unit of every atomic access.
pub const WORD: u32 = size_of::<u64>() as u32;

pub const MAGIC_AT: u32 = 0;
pub const VERSION_AT: u32 = 8;
pub const SIZE_AT: u32 = 16;
/// The two words of the hash seed.
pub const SEED_AT: [u32; 2] = [24, 32];
pub const NEXT_VERSION_AT: u32 = 64;
pub const CLEAR_EPOCH_AT: u32 = 128;
pub const SEAL_SEQUENCE_AT: u32 = 192;
pub const GHOST_CLOCK_AT: u32 = 200;
pub const HIGH_WATER_AT: u32 = 256;
pub const CLAIM_SEQUENCE_AT: u32 = 320;
pub const INVALIDATIONS_AT: u32 = 384;
const LANES_AT: u32 = 1024;
const LANE_BYTES: u32 = 64;
const MAX_LANES: u32 = 8;
const HEADER_BYTES: u32 = 4096;
/// Where the seats begin.
#[cfg(target_arch = "wasm32")]
pub const SEATS_AT: u32 = HEADER_BYTES;
/// Bytes at the start of a region that TypeScript reads to check the header.
#[cfg(target_arch = "wasm32")]
pub const INSPECTED_BYTES: u32 = 64;

pub const SEAT_BYTES: u32 = 128;
/// The incarnation and the tenure.
pub const SEAT_INCARNATION: u32 = 0;
pub const SEAT_HAZARD: u32 = 8;
pub const SEAT_PENDING: u32 = 16;
/// Hits of the near cache, which the engine never sees. A double, because JavaScript counts them.
pub const SEAT_NEAR_HITS: u32 = 24;
/// A bit for each class of buckets that the participant waits for.
pub const SEAT_INTEREST: u32 = 32;
/// Whether somebody has rung the participant and it has not looked yet.
pub const SEAT_RINGING: u32 = 40;
/// Process id and thread id, for people.
pub const SEAT_THREAD: u32 = 48;
/// The time by the participant's clock when it last asked it. A double, because JavaScript writes it.
pub const SEAT_CLOCK: u32 = 56;
pub const SEAT_COUNTERS: u32 = 64;

/// The statistics of a participant, in the order of their words in its seat.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Counter {
    Hits,
    Misses,
    Sets,
    Deletes,
    Evictions,
    Expirations,
    Reclaims,
    Compactions,
}
/// How many statistics a participant has.
pub const COUNTERS: u32 = 8;

/// Records start at multiples of this, so that 28 bits of an entry reach 4 GiB.
pub const GRAIN: u32 = 16;
/// A bucket is two cache lines: fifteen entries and the control word.
pub const BUCKET_BYTES: u32 = 128;
/// Words of a bucket: its ways and the control word.
pub const BUCKET_WORDS: u32 = BUCKET_BYTES / WORD;
/// Ways of a bucket: each holds one entry.
pub const WAYS: u32 = BUCKET_WORDS - 1;
pub const BUCKET_CONTROL: u32 = WAYS * WORD;

pub const CLAIM_BYTES: u32 = 128;
pub const CLAIM_OWNER: u32 = 0;
pub const CLAIM_HASH: u32 = 8;
pub const CLAIM_TOKEN: u32 = 16;
pub const CLAIM_DEADLINE: u32 = 24;
pub const CLAIM_START: u32 = 32;
pub const CLAIM_NAME_BYTES: u32 = 40;
pub const CLAIM_NAME: u32 = 48;
/// Bytes of the name of a lock that its claim keeps. Longer names are cut off.
pub const MAX_CLAIM_NAME: u32 = CLAIM_BYTES - CLAIM_NAME;
/// Claims of a set.
const CLAIM_WAYS: u32 = 16;

const STATE_BYTES: u32 = WORD;
const CHANGES_BYTES: u32 = WORD;
pub const TAG_COUNTER_BYTES: u32 = 3 * WORD;
/// Behind the sequences of a tag counter: the time of its latest invalidation.
pub const TAG_INVALIDATED_AT: u32 = WORD;
/// The time of its latest `expire_tags`.
pub const TAG_EXPIRED_AT: u32 = 2 * WORD;
pub const META_BYTES: u32 = 32;
/// Bytes that were appended to the segment; larger than the segment once an append did not fit.
pub const META_BUMP: u32 = 0;
pub const META_LIVE: u32 = 8;
/// The seal sequence when the segment was sealed. The oldest segment has the lowest.
pub const META_SEQUENCE: u32 = 16;
pub const META_SEALING: u32 = 24;

const _: () = assert!(COUNTERS == Counter::Compactions as u32 + 1);
const _: () = assert!(
    SEAT_COUNTERS + COUNTERS * WORD <= SEAT_BYTES
        && SEAT_THREAD + WORD <= SEAT_CLOCK
        && SEAT_CLOCK + WORD <= SEAT_COUNTERS
);
const _: () = assert!(META_SEALING + WORD <= META_BYTES);
const _: () = assert!(INVALIDATIONS_AT + WORD <= LANES_AT && LANES_AT + 2 * MAX_LANES * LANE_BYTES <= HEADER_BYTES);

/// Regions are whole WebAssembly pages.
pub const PAGE: u32 = 64 * 1024;
pub const MIN_SIZE: u32 = 1 << 20;
/// The size that stands for the region of the model checkers: two buckets and ten segments of a few records each, so
/// that a checker can explore everything that happens in it. Only for tests.
#[cfg(feature = "faults")]
pub const MODEL_SIZE: u32 = PAGE;
pub const MAX_SIZE: u32 = 3840 << 20;

/// More segments than any region has.
pub const MAX_SEGMENTS: u32 = 2048;

/// Longest key in bytes: 4096 of the user's, behind the prefix of a namespace.
pub const MAX_KEY: u32 = 4360;
/// Most tags that a user gives to one entry.
pub const MAX_VISIBLE_TAGS: u32 = 128;
/// Most tags of one entry: those of the user, and a hidden one for each of at most 16 namespaces that the entry is in.
pub const MAX_TAGS: u32 = MAX_VISIBLE_TAGS + 16;
/// Longest tag in bytes, including the prefix of its namespace.
pub const MAX_TAG: u32 = 520;
/// Longest name of a tag in bytes of UTF-8: the part of a tag that records keep.
pub const MAX_TAG_NAME: u32 = 256;
/// The largest record in bytes in a region of any size: it has to fit a thread's area.
pub const MAX_RECORD: u32 = 64 * 1024;
/// The largest value in bytes in a region of any size.
pub const MAX_VALUE: u32 = 256 << 20;

/// The two queues of S3-FIFO: new entries on probation, and entries that were read again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Class {
    Small = 0,
    Main = 1,
}

/// The geometry of a region of one size: how much there is of everything, and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub size: u32,
    /// Seats: the threads that can have the cache open at once.
    pub participants: u32,
    /// Sets of claims, a power of two.
    claim_sets: u32,
    /// Claims of a set.
    pub claim_ways: u32,
    /// Counters of tags, a power of two.
    pub tag_counters: u32,
    /// Buckets of the index, a power of two.
    pub buckets: u32,
    pub segments: u32,
    /// log2 of the bytes in a segment.
    pub segment_shift: u32,
    lanes: [u32; 2],
    /// Free segments that only relocation may use, so that a reclaim finds room for the records that it keeps.
    pub reserve: u32,
    /// Bytes that a step of reclaiming walks for each byte that is appended. With a pace of eight, the steps walk two
    /// segments while the last quarter of a segment is filled. Even if half of their records have to be moved, that frees one.
    pub pace: u32,
    /// Largest record in bytes, including its header.
    pub max_record: u32,
    /// Largest value in bytes.
    pub max_value: u32,
    claims_at: u32,
    tag_counters_at: u32,
    states_at: u32,
    metas_at: u32,
    changes_at: u32,
    index_at: u32,
    pub segments_at: u32,
}

const fn floor_power_of_two(n: u32) -> u32 {
    if n == 0 { 0 } else { 1 << n.ilog2() }
}

const fn clamp(n: u32, low: u32, high: u32) -> u32 {
    if n < low {
        low
    } else if n > high {
        high
    } else {
        n
    }
}

const fn align(n: u32, to: u32) -> u32 {
    (n + to - 1) & !(to - 1)
}

/// Threads that can have a region of `size` bytes open at once.
pub const fn participants(size: u32) -> u32 {
    clamp(size / PAGE, 64, 1024)
}

impl Geometry {
    /// The geometry of a region of `size` bytes; `None` when no region has that size.
    pub const fn of(size: u32) -> Option<Geometry> {
        #[cfg(feature = "faults")]
        if size == MODEL_SIZE {
            return Some(Geometry::model());
        }
        if size < MIN_SIZE || size > MAX_SIZE || size % PAGE != 0 {
            return None;
        }
        let participants = participants(size);
        let tag_counters = clamp(floor_power_of_two(size / 2048), 512, 65536);
        // At most an eighth of the region. Then there are about two words for each record, if records take about 130 bytes.
        let buckets = floor_power_of_two(size / 8 / BUCKET_BYTES);
        let wanted = clamp(floor_power_of_two(size / 1024), 64 << 10, 4 << 20);
        let segment = if wanted > floor_power_of_two(size / 64) { floor_power_of_two(size / 64) } else { wanted };

        let claim_sets = clamp(floor_power_of_two(size / (16 << 10)), 256, 65536) / CLAIM_WAYS;

        let claims_at = HEADER_BYTES + participants * SEAT_BYTES;
        let tag_counters_at = claims_at + claim_sets * CLAIM_WAYS * CLAIM_BYTES;
        let states_at = tag_counters_at + tag_counters * TAG_COUNTER_BYTES;
        let index_bytes = buckets * BUCKET_BYTES;
        let room = size - states_at - buckets * CHANGES_BYTES - index_bytes - 4096;
        let segments = room / (segment + STATE_BYTES + META_BYTES);
        let metas_at = align(states_at + segments * STATE_BYTES, 64);
        let changes_at = align(metas_at + segments * META_BYTES, 64);
        let index_at = align(changes_at + buckets * CHANGES_BYTES, BUCKET_BYTES);
        let segments_at = index_at + index_bytes;

        let small_lanes = clamp(segments / 64, 1, MAX_LANES);
        let main_lanes = clamp(small_lanes / 2, 1, MAX_LANES);
        Some(Geometry {
            size,
            participants,
            claim_sets,
            claim_ways: CLAIM_WAYS,
            tag_counters,
            buckets,
            segments,
            segment_shift: segment.ilog2(),
            lanes: [small_lanes, main_lanes],
            reserve: main_lanes + 2,
            pace: 8,
            max_record: clamp(segment / 4, 8 << 10, MAX_RECORD),
            max_value: if size / 8 < MAX_VALUE { size / 8 } else { MAX_VALUE },
            claims_at,
            tag_counters_at,
            states_at,
            metas_at,
            changes_at,
            index_at,
            segments_at,
        })
    }

    #[cfg(feature = "faults")]
    const fn model() -> Geometry {
        let (participants, tag_counters, buckets, segments, segment) = (6, 4, 2, 10, 256u32);
        // Both buckets share the one set.
        let claim_ways = 3;
        let claims_at = HEADER_BYTES + participants * SEAT_BYTES;
        let tag_counters_at = claims_at + claim_ways * CLAIM_BYTES;
        let states_at = tag_counters_at + tag_counters * TAG_COUNTER_BYTES;
        let metas_at = align(states_at + segments * STATE_BYTES, 64);
        let changes_at = align(metas_at + segments * META_BYTES, 64);
        let index_at = align(changes_at + buckets * CHANGES_BYTES, BUCKET_BYTES);
        Geometry {
            size: MODEL_SIZE,
            participants,
            claim_sets: 1,
            claim_ways,
            tag_counters,
            buckets,
            segments,
            segment_shift: segment.ilog2(),
            lanes: [1, 1],
            reserve: 3,
            // Low enough that a step is shorter than one of these small segments.
            pace: 2,
            max_record: 128,
            max_value: 384,
            claims_at,
            tag_counters_at,
            states_at,
            metas_at,
            changes_at,
            index_at,
            segments_at: index_at + buckets * BUCKET_BYTES,
        }
    }

    pub const fn segment_bytes(&self) -> u32 {
        1 << self.segment_shift
    }

    /// Fill level of a segment, in bytes, from which on its lane will soon need another segment.
    pub const fn nearly_full(&self) -> u32 {
        self.segment_bytes() / 4 * 3
    }

    /// Whether appending `length` bytes at `offset` in a segment crosses a mark. The marks are the multiples of a sixteenth
    /// of the segment, from three quarters on. Crossing a mark obliges the writer to reclaim. There are several marks,
    /// because the writer that crossed one may freeze.
    #[inline(always)]
    pub const fn passes_a_mark(&self, offset: u32, length: u32) -> bool {
        let to = offset + length;
        to >= self.nearly_full() && (offset ^ to) >> (self.segment_shift - 4) != 0
    }

    /// Where seat number `seat` lies.
    pub const fn seat(&self, seat: u32) -> u32 {
        HEADER_BYTES + seat * SEAT_BYTES
    }

    /// How many claims there are.
    pub const fn claims(&self) -> u32 {
        self.claim_sets * self.claim_ways
    }

    /// The number of the first of the `claim_ways` claims that keys of a bucket can use.
    pub const fn first_claim(&self, bucket: u32) -> u32 {
        (bucket & (self.claim_sets - 1)) * self.claim_ways
    }

    /// Where claim number `claim` lies.
    pub const fn claim(&self, claim: u32) -> u32 {
        self.claims_at + claim * CLAIM_BYTES
    }

    /// How many of the counters, the last ones, are those of namespaces: a quarter, and where there are few, 256 or half of them.
    pub const fn namespace_counters(&self) -> u32 {
        clamp(256, self.tag_counters / 4, self.tag_counters / 2)
    }

    /// Where counter number `counter` of the tags lies. The number is masked, so foreign bytes cannot lead out of the table.
    #[inline(always)]
    pub const fn tag_counter(&self, counter: u32) -> u32 {
        self.tag_counters_at + (counter & (self.tag_counters - 1)) * TAG_COUNTER_BYTES
    }

    /// Where the state word of a segment lies.
    pub const fn state(&self, segment: u32) -> u32 {
        self.states_at + segment * STATE_BYTES
    }

    /// Where the four meta words of a segment lie.
    pub const fn meta(&self, segment: u32) -> u32 {
        self.metas_at + segment * META_BYTES
    }

    /// Where the change counter of a bucket lies.
    pub const fn changes(&self, bucket: u32) -> u32 {
        self.changes_at + bucket * CHANGES_BYTES
    }

    /// Where a bucket lies.
    pub const fn bucket(&self, bucket: u32) -> u32 {
        self.index_at + bucket * BUCKET_BYTES
    }

    /// Where a way of a bucket lies: the entry in it.
    #[inline(always)]
    pub const fn entry(&self, bucket: u32, way: u32) -> u32 {
        self.bucket(bucket) + way * WORD
    }

    /// The bucket that the entry at `entry_at` belongs to.
    #[inline(always)]
    pub const fn bucket_at(&self, entry_at: u32) -> u32 {
        (entry_at - self.index_at) / BUCKET_BYTES
    }

    /// Where the bytes of a segment begin. For the number of segments: where the last segment ends.
    pub const fn segment(&self, segment: u32) -> u32 {
        self.segments_at + (segment << self.segment_shift)
    }

    /// The segment that holds the byte at `at`; `None` when `at` lies outside of all segments.
    #[inline(always)]
    pub const fn segment_of(&self, at: u32) -> Option<u32> {
        if at < self.segments_at {
            return None;
        }
        let segment = (at - self.segments_at) >> self.segment_shift;
        if segment < self.segments { Some(segment) } else { None }
    }

    /// How many lanes a class has.
    pub const fn lanes(&self, class: Class) -> u32 {
        self.lanes[class as usize]
    }

    /// Where the word of a lane lies.
    pub const fn lane(&self, class: Class, lane: u32) -> u32 {
        LANES_AT + (class as u32 * MAX_LANES + lane) * LANE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometry_fits_every_size() {
        let mut size = MIN_SIZE;
        while size < MAX_SIZE {
            let g = Geometry::of(size).unwrap();
            assert!(g.segment(g.segments) <= size, "{size}: {g:?}");
            assert!(g.segments_at % 64 == 0 && g.index_at % BUCKET_BYTES == 0);
            assert!(g.segments >= 48 && g.segments <= MAX_SEGMENTS, "{size}: {} segments", g.segments);
            assert!(g.max_record <= g.segment_bytes());
            assert!(g.segments > 4 * (g.lanes(Class::Small) + g.lanes(Class::Main) + g.reserve));
            // The head of the largest value lists all its chunks beside the longest key.
            let chunks = g.max_value.div_ceil(g.max_record - 64);
            assert!(chunks * 8 + MAX_KEY + 128 <= g.max_record, "{size}");
            // Bookkeeping stays a small part of the region.
            assert!(g.segments_at as u64 * 100 / (size as u64) < 20, "{size}: {}", g.segments_at);
            size += PAGE * (1 + size / (16 << 20));
        }
        assert_eq!(Geometry::of(MAX_SIZE + PAGE), None);
        assert_eq!(Geometry::of(MIN_SIZE - PAGE), None);
        assert_eq!(Geometry::of(MIN_SIZE + 1), None);
    }
}
