//! The index: buckets of fifteen one-word entries and a control word. One compare-and-swap changes identity, place,
//! generation and heat of an entry together, so there is nothing to repair after a crash.
//!
//! ```text
//! entry   63            48 47  46 45  44 43            28 27                        0
//!         │ tag            │ freq │ kind │ generation     │ place in units of 16 bytes │
//!
//! kind    0 empty │ 1 plain, an immutable record │ 2 mutable, changed under the lock │ 3 ghost: evicted lately
//! ```
//!
//! Invariant: while an entry that is plain or mutable stands in the index, the segment it points into is in the life
//! in which the record was written. Reclaiming removes the entries of a segment before it raises the generation. So
//! *entry still there, then generation still the same* proves that everything read in between belongs to that record,
//! even if the sixteen generation bits of the entry have wrapped around.

use crate::format::hash::{Seed, hash};
use crate::format::layout::{BUCKET_BYTES, GRAIN, Geometry, WAYS};
use crate::format::record::{KEY_KIND_SHIFT, Record};
use crate::format::region::Region;
use crate::format::segment::{Phase, State};
use crate::sync::{AcqRel, Acquire, Relaxed, SeqCst};

const PLACE_BITS: u32 = 28;
const GENERATION_SHIFT: u32 = 28;
/// A hint that may wrap around without harm; in tests it does so all the time.
const GENERATION_MASK: u64 = if cfg!(feature = "faults") { 3 } else { 0xFFFF };
/// Place and generation.
const PLACE_MASK: u64 = GENERATION_MASK << GENERATION_SHIFT | (1 << PLACE_BITS) - 1;
const KIND_SHIFT: u32 = 44;
const FREQ_SHIFT: u32 = 46;
const TAG_SHIFT: u32 = 48;
const TAG_MASK: u64 = !0 << TAG_SHIFT;
const FREQ_MASK: u64 = 3 << FREQ_SHIFT;
/// Heat at which a key stops writing to its entry.
pub const MAX_FREQ: u64 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Empty,
    Plain,
    Mutable,
    Ghost,
}

/// One entry word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(pub u64);

impl Entry {
    pub const EMPTY: Entry = Entry(0);

    /// An entry for a record; `kind` must be plain or mutable.
    pub fn live(kind: Kind, hash: u64, generation: u32, at: u32, freq: u64) -> Entry {
        debug_assert!(at % GRAIN == 0 && matches!(kind, Kind::Plain | Kind::Mutable));
        Entry(
            (hash >> TAG_SHIFT) << TAG_SHIFT
                | freq << FREQ_SHIFT
                | (kind as u64) << KIND_SHIFT
                | (generation as u64 & GENERATION_MASK) << GENERATION_SHIFT
                | (at / GRAIN) as u64,
        )
    }

    /// What an evicted entry leaves behind: its tag and when that was, by the ghost clock.
    pub fn ghost(self, clock: u64) -> Entry {
        Entry((self.0 >> TAG_SHIFT) << TAG_SHIFT | 3 << KIND_SHIFT | clock & ((1 << PLACE_BITS) - 1))
    }

    #[inline(always)]
    pub fn tag(self) -> u64 {
        self.0 >> TAG_SHIFT
    }

    #[inline(always)]
    pub fn freq(self) -> u64 {
        self.0 >> FREQ_SHIFT & 3
    }

    #[inline(always)]
    pub fn kind(self) -> Kind {
        match self.0 >> KIND_SHIFT & 3 {
            0 => Kind::Empty,
            1 => Kind::Plain,
            2 => Kind::Mutable,
            _ => Kind::Ghost,
        }
    }

    /// Points to a record.
    #[inline(always)]
    pub fn is_live(self) -> bool {
        matches!(self.kind(), Kind::Plain | Kind::Mutable)
    }

    #[inline(always)]
    pub fn at(self) -> u32 {
        (self.0 as u32 & ((1 << PLACE_BITS) - 1)) * GRAIN
    }

    #[inline(always)]
    pub fn has_generation(self, generation: u32) -> bool {
        (self.0 >> GENERATION_SHIFT ^ generation as u64) & GENERATION_MASK == 0
    }

    /// The same entry with another heat.
    #[inline(always)]
    pub fn with_freq(self, freq: u64) -> Entry {
        Entry(self.0 & !FREQ_MASK | freq << FREQ_SHIFT)
    }

    /// Equal but for the heat.
    #[inline(always)]
    pub fn is_same(self, other: Entry) -> bool {
        (self.0 ^ other.0) & !FREQ_MASK == 0
    }

    /// How far the ghost clock went since this ghost was left.
    pub fn ghost_age(self, clock: u64) -> u64 {
        clock.wrapping_sub(self.0) & ((1 << PLACE_BITS) - 1)
    }
}

/// A key as the engine sees it: whole words, the last one zero-padded.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    pub words: &'a [u64],
    pub length: u32,
    /// Text, bytes or ill-formed text; keys of different kinds are different keys.
    pub kind: u32,
    pub hash: u64,
}

impl<'a> Key<'a> {
    /// `words` holds `length` bytes and zeros after them.
    #[inline(always)]
    pub fn new(words: &'a [u64], length: u32, kind: u32, seed: Seed) -> Key<'a> {
        Key { words, length, kind, hash: hash(words, length, kind, seed) }
    }

    #[inline(always)]
    fn matches(&self, region: &Region, record: &Record) -> bool {
        record.key_length == self.length
            && record.flags >> KEY_KIND_SHIFT & 3 == self.kind
            && record.key_equals(region, self.words)
    }
}

/// The bucket of a hash.
#[inline(always)]
pub fn bucket_of(geometry: &Geometry, hash: u64) -> u32 {
    hash as u32 & (geometry.buckets - 1)
}

/// The ways of a bucket that are worth a look for an entry with this tag: all, where there is no quick way to tell. An
/// entry that stands there throughout is among them.
#[inline(always)]
pub fn ways_with(region: &Region, bucket: u32, tag: u64) -> impl Iterator<Item = u32> {
    #[cfg(target_feature = "simd128")]
    return Ways(region.tagged(bucket, tag as u16) & ((1 << WAYS) - 1));
    #[cfg(not(target_feature = "simd128"))]
    {
        let _ = (region, bucket, tag);
        0..WAYS
    }
}

/// A bit for each way; from the lowest.
#[cfg(target_feature = "simd128")]
struct Ways(u32);

#[cfg(target_feature = "simd128")]
impl Iterator for Ways {
    type Item = u32;

    #[inline(always)]
    fn next(&mut self) -> Option<u32> {
        let way = self.0.trailing_zeros();
        self.0 &= self.0.wrapping_sub(1);
        (way < WAYS).then_some(way)
    }
}

/// A record found through its entry, not yet validated.
#[derive(Clone, Copy, Debug)]
pub struct Hit {
    /// Where the entry word lies.
    pub entry_at: u32,
    pub entry: Entry,
    pub segment: u32,
    pub generation: u32,
    pub record: Record,
}

/// What looking at one bucket found.
pub enum Probe {
    Hit(Hit),
    Absent,
    /// Something moved meanwhile: look again.
    Unsettled,
}

/// Resolves the entry word `entry` found at `entry_at` to its record; `None` when it points nowhere valid, because it
/// was taken away meanwhile or because somebody wrote foreign bytes.
#[inline(always)]
pub fn resolve(region: &Region, entry_at: u32, entry: Entry) -> Option<Hit> {
    let at = entry.at();
    let segment = region.geometry.segment_of(at)?;
    // Acquire: meets the release of the CAS that opened the segment, before any record was written into it.
    let state = State(region.word(region.geometry.state(segment)).load(Acquire));
    if !entry.has_generation(state.generation()) || state.phase() == Phase::Free {
        return None;
    }
    let record = Record::read(region, at, region.geometry.segment(segment + 1))?;
    if record.generation != state.generation() {
        return None;
    }
    Some(Hit { entry_at, entry, segment, generation: state.generation(), record })
}

/// Whether everything read through `hit` is the record the entry stands for. The caller's copies were made by
/// `Region::copy_out` or by atomic loads, so none of them can be ordered after the loads made here.
#[inline(always)]
pub fn still(region: &Region, hit: &Hit) -> bool {
    Entry(region.word(hit.entry_at).load(SeqCst)).is_same(hit.entry) && same_life(region, hit)
}

#[inline(always)]
fn same_life(region: &Region, hit: &Hit) -> bool {
    State(region.word(region.geometry.state(hit.segment)).load(SeqCst)).generation() == hit.generation
}

/// Looks for `key` in its bucket, without any lock.
#[inline]
pub fn probe(region: &Region, key: &Key) -> Probe {
    let bucket = region.geometry.bucket(bucket_of(&region.geometry, key.hash));
    let tag = key.hash >> TAG_SHIFT;
    let mut settled = true;
    for way in ways_with(region, bucket, tag) {
        let entry_at = bucket + way * 8;
        // Acquire: meets the CAS that published the record.
        let entry = Entry(region.word(entry_at).load(Acquire));
        if entry.tag() != tag || !entry.is_live() {
            continue;
        }
        match resolve(region, entry_at, entry) {
            None => settled = false,
            Some(hit) if key.matches(region, &hit.record) => return Probe::Hit(hit),
            // A record of another key with the same tag, or garbage because the segment was recycled under us.
            Some(hit) => settled &= still(region, &hit),
        }
    }
    if settled { Probe::Absent } else { Probe::Unsettled }
}

/// What a glance at the index alone says of a key.
pub enum Glance {
    /// `(entry_at, entry, state of its segment)` of the first live entry with the key's tag; perhaps another key's.
    Entry(u32, Entry, State),
    Absent,
    /// It was being moved: only a real look can tell.
    Unsettled,
}

/// Looks for the entry of `key` without touching any record.
#[inline(always)]
pub fn find_entry(region: &Region, key: &Key) -> Glance {
    let bucket = region.geometry.bucket(bucket_of(&region.geometry, key.hash));
    let tag = key.hash >> TAG_SHIFT;
    for way in ways_with(region, bucket, tag) {
        let entry_at = bucket + way * 8;
        let entry = Entry(region.word(entry_at).load(Acquire));
        if entry.tag() == tag && entry.is_live() {
            let Some(segment) = region.geometry.segment_of(entry.at()) else {
                return Glance::Unsettled;
            };
            let state = State(region.word(region.geometry.state(segment)).load(Acquire));
            return match entry.has_generation(state.generation()) {
                true => Glance::Entry(entry_at, entry, state),
                false => Glance::Unsettled,
            };
        }
    }
    Glance::Absent
}

/// Makes an entry one step hotter, if it still stands. Losing the race is fine: somebody else warmed or replaced it.
#[inline(always)]
pub fn warm(region: &Region, entry_at: u32, entry: Entry) {
    if entry.freq() < MAX_FREQ {
        let warmer = entry.with_freq(entry.freq() + 1);
        let _ = region.word(entry_at).compare_exchange(entry.0, warmer.0, AcqRel, Relaxed);
    }
}

/// Replaces an entry; false when it is not there any more.
fn replace(region: &Region, entry_at: u32, from: Entry, to: Entry) -> bool {
    // Publishes the record `to` points to; meets the acquire loads of `probe`. Sequentially consistent, because the writer
    // of a large value looks at the segments of its chunks afterwards (`has_its_chunks`), while their reclaimer has changed
    // those first and looks here second (`may_be_listed`). One of the two sees the other.
    region.word(entry_at).compare_exchange(from.0, to.0, SeqCst, Relaxed).is_ok()
}

/// Removes or moves an entry whose heat others may be raising at the same time: tries again while only the heat
/// changed, which readers can do three times. Returns the entry that was replaced.
///
/// The caller holds the lock of the bucket, or has the entry's segment in RECLAIM. The change is counted before it is made, for
/// near caches: `Participant::find`. Who dies in between has changed nothing.
pub fn replace_any_heat(region: &Region, entry_at: u32, from: Entry, to: impl Fn(Entry) -> Entry) -> Option<Entry> {
    // Release: who sees the count sees the lock held, or the segment in RECLAIM, or what was done under it. It comes before
    // the change for everybody, because the change is published by a release, too.
    let bucket = (entry_at - region.geometry.bucket(0)) / BUCKET_BYTES;
    region.word(region.geometry.changes(bucket)).fetch_add(1, AcqRel);
    let mut seen = from;
    for _ in 0..2 * MAX_FREQ + 2 {
        if replace(region, entry_at, seen, to(seen)) {
            return Some(seen);
        }
        seen = Entry(region.word(entry_at).load(Acquire));
        if !seen.is_same(from) {
            return None;
        }
    }
    None
}

/// The entry that points to the record at `at`, if one does.
pub fn find_place(region: &Region, hash: u64, at: u32, generation: u32) -> Option<(u32, Entry)> {
    let bucket = region.geometry.bucket(bucket_of(&region.geometry, hash));
    let tag = hash >> TAG_SHIFT;
    let place = Entry::live(Kind::Plain, hash, generation, at, 0).0 & (PLACE_MASK | TAG_MASK);
    ways_with(region, bucket, tag).map(|way| bucket + way * 8).find_map(|entry_at| {
        let entry = Entry(region.word(entry_at).load(Acquire));
        ((entry.0 ^ place) & (PLACE_MASK | TAG_MASK) == 0 && entry.is_live()).then_some((entry_at, entry))
    })
}
