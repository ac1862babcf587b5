//! Where everything lies in the shared region. Offsets, field widths and sizes have their home here and nowhere else:
//! not in another Rust module, and not in TypeScript.
//!
//! The geometry is a pure function of the region's size and is never read from the region itself, so damaged bytes
//! cannot move a bound.
//!
//! ```text
//! region   0        4 KiB                                                                              size
//!          ├ header ┤ participants │ tags │ states │ metas │ changes │ index  │ segments … │ (slack)    ┤
//!
//! header   0 magic │ 8 layout version │ 16 size │ 24 hash seed, 128 bits │ 40 boot id, 16 bytes, written by the host
//!         64 next version        (fetch_add, one block of versions at a time)
//!        128 clear epoch         u32, read by every get
//!        192 seal sequence       (fetch_add, one per sealed segment)
//!        200 ghost clock         (fetch_add, one per sealed segment of the small queue)
//!        256 high-water mark     participants ever used, so that scans stay short
//!       1024 lanes               16 × 64 B, each {segment + 1 u32 │ generation u32}: where writers append
//!
//! participant (128 B)            line one: 0 {state u32 │ epoch u32} │ 8 hazard (segment + 1, or 0)
//!                                          16 version of the large value it is writing, or 0
//!                                          24 hits of its near cache, f64
//!                                line two: eight counters, written by their owner only
//!
//! changes  one u64 for each bucket: raised before any entry of it changes, other than by its heat. Apart from the buckets,
//!          so that what the near caches look at is sixteen times denser than the index.
//! ```

/// `"cachemch"`, the first eight bytes of every region.
pub const MAGIC: u64 = u64::from_le_bytes(*b"cachemch");
/// Raised whenever two builds could not share a region.
pub const LAYOUT_VERSION: u32 = 5;

pub const MAGIC_AT: u32 = 0;
pub const VERSION_AT: u32 = 8;
pub const SIZE_AT: u32 = 16;
/// Sixteen bytes.
pub const SEED_AT: u32 = 24;
pub const NEXT_VERSION_AT: u32 = 64;
pub const CLEAR_EPOCH_AT: u32 = 128;
pub const SEAL_SEQUENCE_AT: u32 = 192;
pub const GHOST_CLOCK_AT: u32 = 200;
pub const HIGH_WATER_AT: u32 = 256;
const LANES_AT: u32 = 1024;
const LANE_BYTES: u32 = 64;
const MAX_LANES: u32 = 8;
const HEADER_BYTES: u32 = 4096;
/// Bytes at the start of a file that `inspect` wants to see.
#[cfg(target_arch = "wasm32")]
pub const INSPECTED_BYTES: u32 = 64;

pub const PARTICIPANT_BYTES: u32 = 128;
pub const PARTICIPANT_HAZARD: u32 = 8;
pub const PARTICIPANT_PENDING: u32 = 16;
/// What the owner read without asking the engine. As a double, because JavaScript counts it.
pub const PARTICIPANT_NEAR_HITS: u32 = 24;
pub const PARTICIPANT_COUNTERS: u32 = 64;

/// What a participant counts; the order of the words in its second line.
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
/// How many counters a participant has.
pub const COUNTERS: u32 = 8;

/// Records start at multiples of this, so that 28 bits of an index word reach 4 GiB.
pub const GRAIN: u32 = 16;
/// A bucket is two cache lines: fifteen entry words and the control word.
pub const BUCKET_BYTES: u32 = 128;
pub const WAYS: u32 = 15;
pub const BUCKET_CONTROL: u32 = WAYS * 8;

const STATE_BYTES: u32 = 8;
const CHANGES_BYTES: u32 = 8;
/// `{bump u64 │ live bytes + 2³¹ u32, generation u32 │ seal sequence u64 │ clear epoch when it was sealed u32, progress of
/// its reclaiming u32}`; the progress is the offset that was reached, its lowest bit says that all is kept.
pub const META_BYTES: u32 = 32;
pub const META_BUMP: u32 = 0;
pub const META_LIVE: u32 = 8;
pub const META_SEALED: u32 = 16;
pub const META_EPOCH: u32 = 24;

/// Regions are whole WebAssembly pages.
pub const PAGE: u32 = 64 * 1024;
pub const MIN_SIZE: u32 = 1 << 20;
/// The size that stands for a region so small that a model checker can go through all that happens in it: two buckets
/// and ten segments of a few records each. Only for tests.
#[cfg(feature = "faults")]
pub const MODEL_SIZE: u32 = PAGE;
pub const MAX_SIZE: u32 = 3840 << 20;

/// More segments than any region has.
pub const MAX_SEGMENTS: u32 = 2048;

/// Longest key in bytes: 4096, and in front of them the prefix of a namespace.
pub const MAX_KEY: u32 = 4360;
/// Most tags that one entry can carry: 16, and a hidden one for each namespace that it is in.
pub const MAX_TAGS: u32 = 32;
/// Longest tag in bytes, with the prefix of its namespace.
pub const MAX_TAG: u32 = 520;
/// Longest name of a tag in bytes of UTF-8: what is kept in the record.
pub const MAX_TAG_NAME: u32 = 256;
/// The largest record, whatever the size of the region: it has to fit a thread's scratch area.
pub const MAX_RECORD: u32 = 64 * 1024;
/// The largest value in bytes, whatever the size of the region.
pub const MAX_VALUE: u32 = 256 << 20;

/// The two queues of S3-FIFO: entries on probation, and entries that proved themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Class {
    Small = 0,
    Main = 1,
}

/// The places of everything in a region of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub size: u32,
    /// Threads that can have the cache open at once.
    pub participants: u32,
    /// Counters in the tag table, a power of two.
    pub tags: u32,
    /// Buckets of the index, a power of two.
    pub buckets: u32,
    pub segments: u32,
    /// log2 of the bytes in a segment.
    pub segment_shift: u32,
    lanes: [u32; 2],
    /// Free segments that only relocation may use, so that reclaiming can always finish.
    pub reserve: u32,
    /// Bytes that a step of reclaiming goes through for each byte that is appended. While the last quarter of a segment is
    /// filled, that is two segments: up to half of what is reclaimed may have to be moved.
    pub pace: u32,
    /// Largest record in bytes, header included.
    pub max_record: u32,
    /// Largest value in bytes.
    pub max_value: u32,
    tags_at: u32,
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
        let tags = clamp(floor_power_of_two(size / 2048), 512, 65536);
        // An eighth of the region at the most: two words for each live entry of about 130 bytes.
        let buckets = floor_power_of_two(size / 8 / BUCKET_BYTES);
        let wanted = clamp(floor_power_of_two(size / 1024), 64 << 10, 4 << 20);
        let segment = if wanted > floor_power_of_two(size / 64) { floor_power_of_two(size / 64) } else { wanted };

        let tags_at = HEADER_BYTES + participants * PARTICIPANT_BYTES;
        let states_at = tags_at + tags * 8;
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
            tags,
            buckets,
            segments,
            segment_shift: segment.ilog2(),
            lanes: [small_lanes, main_lanes],
            reserve: main_lanes + 2,
            pace: 8,
            max_record: clamp(segment / 4, 8 << 10, MAX_RECORD),
            max_value: if size / 8 < MAX_VALUE { size / 8 } else { MAX_VALUE },
            tags_at,
            states_at,
            metas_at,
            changes_at,
            index_at,
            segments_at,
        })
    }

    #[cfg(feature = "faults")]
    const fn model() -> Geometry {
        let (participants, tags, buckets, segments, segment) = (6, 4, 2, 10, 256u32);
        let tags_at = HEADER_BYTES + participants * PARTICIPANT_BYTES;
        let states_at = tags_at + tags * 8;
        let metas_at = align(states_at + segments * STATE_BYTES, 64);
        let changes_at = align(metas_at + segments * META_BYTES, 64);
        let index_at = align(changes_at + buckets * CHANGES_BYTES, BUCKET_BYTES);
        Geometry {
            size: MODEL_SIZE,
            participants,
            tags,
            buckets,
            segments,
            segment_shift: segment.ilog2(),
            lanes: [1, 1],
            reserve: 3,
            // A step is shorter than a segment there, too.
            pace: 2,
            max_record: 128,
            max_value: 384,
            tags_at,
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

    /// Bytes in a segment from where on its lane will soon need another one.
    pub const fn nearly_full(&self) -> u32 {
        self.segment_bytes() / 4 * 3
    }

    /// Whether `length` bytes more in a segment reach one of the last sixteenths of it. Whoever passes one of those sees to
    /// it that there are free segments; more than one, as it may pause for ever.
    #[inline(always)]
    pub const fn passes_a_mark(&self, offset: u32, length: u32) -> bool {
        let to = offset + length;
        to >= self.nearly_full() && (offset ^ to) >> (self.segment_shift - 4) != 0
    }

    /// Where participant `slot` has its two lines.
    pub const fn participant(&self, slot: u32) -> u32 {
        HEADER_BYTES + slot * PARTICIPANT_BYTES
    }

    /// Where the counter of tag slot `tag` lies.
    pub const fn tag(&self, tag: u32) -> u32 {
        self.tags_at + tag * 8
    }

    /// Where the state word of a segment lies.
    pub const fn state(&self, segment: u32) -> u32 {
        self.states_at + segment * STATE_BYTES
    }

    /// Where the bump offset, live bytes and seal sequence of a segment lie.
    pub const fn meta(&self, segment: u32) -> u32 {
        self.metas_at + segment * META_BYTES
    }

    /// Where the changes of a bucket are counted.
    pub const fn changes(&self, bucket: u32) -> u32 {
        self.changes_at + bucket * CHANGES_BYTES
    }

    /// Where bucket `bucket` lies.
    pub const fn bucket(&self, bucket: u32) -> u32 {
        self.index_at + bucket * BUCKET_BYTES
    }

    /// Where the bytes of a segment begin.
    pub const fn segment(&self, segment: u32) -> u32 {
        self.segments_at + (segment << self.segment_shift)
    }

    /// The segment that the byte at `at` belongs to, `None` when it lies outside all of them.
    #[inline(always)]
    pub const fn segment_of(&self, at: u32) -> Option<u32> {
        if at < self.segments_at {
            return None;
        }
        let segment = (at - self.segments_at) >> self.segment_shift;
        if segment < self.segments { Some(segment) } else { None }
    }

    /// Lanes of a class.
    pub const fn lanes(&self, class: Class) -> u32 {
        self.lanes[class as usize]
    }

    /// Where the lane word `lane` of a class lies.
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
