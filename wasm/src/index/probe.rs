//! Looking for keys and records in their bucket, and replacing entries. A bucket is fifteen entries and a control word.
//!
//! Invariant: while a plain or mutable entry stands in the index, the segment that it points into is in the life in which
//! the record was written. Reclaiming removes the entries of a segment before it raises the generation. Therefore *the entry
//! still stands, and afterwards the generation is still the same* proves that everything read in between belongs to that
//! record, even if the sixteen generation bits of the entry have wrapped around.

use crate::format::layout::{Geometry, WAYS};
use crate::format::record::{Record, end_of_segment};
use crate::format::region::Region;
use crate::format::segment::{Phase, State};
use crate::index::entry::{Entry, EntryState, MAX_HEAT, fingerprint_of};
use crate::index::key::{Key, bucket_of};
use crate::sync::{AcqRel, Acquire, Relaxed, SeqCst};

/// The ways of a bucket that can hold an entry with this fingerprint. Without SIMD these are all ways. An entry that stands
/// there during the whole call is among them.
#[inline(always)]
pub fn ways_with(region: &Region, bucket: u32, fingerprint: u64) -> impl Iterator<Item = u32> {
    #[cfg(target_feature = "simd128")]
    return Ways(region.words_with_top(region.geometry.bucket(bucket), fingerprint as u16) & ((1 << WAYS) - 1));
    #[cfg(not(target_feature = "simd128"))]
    {
        let _ = (region, bucket, fingerprint);
        0..WAYS
    }
}

/// A bit for each way, taken from the lowest on.
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

/// Where the entries of a bucket lie.
pub fn entries_of(geometry: &Geometry, bucket: u32) -> impl Iterator<Item = u32> + use<> {
    let first = geometry.entry(bucket, 0);
    let next = geometry.entry(bucket, 1) - first;
    (0..WAYS).map(move |way| first + way * next)
}

/// The entry at `entry_at`. Acquire: pairs with the compare-and-swap in `replace`, which published its record.
#[inline(always)]
pub fn load_entry(region: &Region, entry_at: u32) -> Entry {
    Entry(region.word(entry_at).load(Acquire))
}

/// A record that was found through its entry, and is not validated yet.
#[derive(Clone, Copy, Debug)]
pub struct Hit {
    /// Where the entry lies.
    pub entry_at: u32,
    pub entry: Entry,
    pub segment: u32,
    pub generation: u32,
    pub record: Record,
}

/// The result of probing one bucket.
pub enum Probe {
    Hit(Hit),
    Absent,
    /// An entry was moved or removed during the probe, or points nowhere because of foreign bytes: probe again.
    Unsettled,
}

/// The record that `entry`, found at `entry_at`, points to. `None` when it points to no record: the entry was moved or
/// removed meanwhile, or foreign bytes were written.
#[inline(always)]
pub fn resolve(region: &Region, entry_at: u32, entry: Entry) -> Option<Hit> {
    let at = entry.at();
    let segment = region.geometry.segment_of(at)?;
    // Acquire: pairs with the compare-and-swap in `open_lane` that opened the segment before any record was written there.
    let state = State(region.word(region.geometry.state(segment)).load(Acquire));
    if !entry.has_generation(state.generation()) || state.phase() == Phase::Free {
        return None;
    }
    let record = Record::read(region, at, end_of_segment(&region.geometry, segment))?;
    if record.generation != state.generation() {
        return None;
    }
    Some(Hit { entry_at, entry, segment, generation: state.generation(), record })
}

/// Whether everything that was read through `hit` belongs to the record of its entry. The caller has read it with
/// `Region::copy_out`, `Region::copy_within` or Acquire loads, so all of that comes before the loads made here.
#[inline(always)]
pub fn is_valid(region: &Region, hit: &Hit) -> bool {
    Entry(region.word(hit.entry_at).load(SeqCst)).is_same(hit.entry) && is_same_life(region, hit)
}

#[inline(always)]
fn is_same_life(region: &Region, hit: &Hit) -> bool {
    State(region.word(region.geometry.state(hit.segment)).load(SeqCst)).generation() == hit.generation
}

/// Looks for `key` in its bucket, without a lock.
#[inline]
pub fn probe(region: &Region, key: &Key) -> Probe {
    let bucket = bucket_of(&region.geometry, key.hash);
    let fingerprint = fingerprint_of(key.hash);
    let mut settled = true;
    for way in ways_with(region, bucket, fingerprint) {
        let entry_at = region.geometry.entry(bucket, way);
        let entry = load_entry(region, entry_at);
        if entry.fingerprint() != fingerprint || !entry.is_live() {
            continue;
        }
        match resolve(region, entry_at, entry) {
            None => settled = false,
            Some(hit) if key.matches(region, &hit.record) => return Probe::Hit(hit),
            // The record of another key with the same fingerprint, or garbage because the segment was recycled meanwhile.
            Some(hit) => settled &= is_valid(region, &hit),
        }
    }
    if settled { Probe::Absent } else { Probe::Unsettled }
}

/// The answer of the index alone, without any record.
pub enum Glance {
    /// `(entry_at, entry, state of its segment)` of the first live entry with the key's fingerprint. It may belong to
    /// another key.
    Entry(u32, Entry, State),
    Absent,
    /// The entry was being moved: only `probe` can tell.
    Unsettled,
}

/// Looks for the entry of `key` without touching any record.
#[inline(always)]
pub fn find_entry(region: &Region, key: &Key) -> Glance {
    let bucket = bucket_of(&region.geometry, key.hash);
    let fingerprint = fingerprint_of(key.hash);
    for way in ways_with(region, bucket, fingerprint) {
        let entry_at = region.geometry.entry(bucket, way);
        let entry = load_entry(region, entry_at);
        if entry.fingerprint() == fingerprint && entry.is_live() {
            let Some(segment) = region.geometry.segment_of(entry.at()) else {
                return Glance::Unsettled;
            };
            // Acquire: pairs with the compare-and-swap in `transfer`. When a reclaim of the segment is seen to be over, the
            // next load of the entry sees what the reclaim has done to the entry.
            let state = State(region.word(region.geometry.state(segment)).load(Acquire));
            return match entry.has_generation(state.generation()) {
                true => Glance::Entry(entry_at, entry, state),
                false => Glance::Unsettled,
            };
        }
    }
    Glance::Absent
}

/// Raises the heat of an entry by one, if the entry still stands. Losing the race is harmless: another participant raised
/// the heat or replaced the entry.
#[inline(always)]
pub fn warm(region: &Region, entry_at: u32, entry: Entry) {
    if entry.heat() < MAX_HEAT {
        let warmer = entry.with_heat(entry.heat() + 1);
        let _ = region.word(entry_at).compare_exchange(entry.0, warmer.0, AcqRel, Relaxed);
    }
}

/// Replaces an entry; false when it does not stand any more.
fn replace(region: &Region, entry_at: u32, from: Entry, to: Entry) -> bool {
    // Publishes the record that `to` points to; pairs with the Acquire in `load_entry`. Sequentially consistent, because the
    // writer of a large value checks the segments of its chunks afterwards (`has_its_chunks`), while the reclaimer of these
    // segments has changed their state before it checks the entries (`may_be_listed`). One of the two sees the other.
    region.word(entry_at).compare_exchange(from.0, to.0, SeqCst, Relaxed).is_ok()
}

/// Replaces the entry `from`, whatever its heat is by now: readers may raise it meanwhile. Returns the entry that was
/// replaced; `None` when `from` does not stand any more.
///
/// The caller holds the lock of the bucket, or has the entry's segment in RECLAIM. The change is counted before it is made,
/// for near caches: see `Participant::find`. A participant that dies between the two has changed nothing.
pub fn replace_any_heat(region: &Region, entry_at: u32, from: Entry, to: impl Fn(Entry) -> Entry) -> Option<Entry> {
    // Release: pairs with the Acquire load of the change counter in `Participant::find`. A reader that sees the count also
    // sees that the lock is held or the segment is in RECLAIM, or, if that is over, the change itself. `replace` is a Release
    // too, so everybody sees the count before the change.
    let bucket = region.geometry.bucket_at(entry_at);
    region.word(region.geometry.changes(bucket)).fetch_add(1, AcqRel);
    let mut seen = from;
    // An attempt fails when a reader has raised the heat, which can happen three times. Only foreign bytes make all of
    // these attempts fail.
    for _ in 0..2 * MAX_HEAT + 2 {
        if replace(region, entry_at, seen, to(seen)) {
            return Some(seen);
        }
        seen = load_entry(region, entry_at);
        if !seen.is_same(from) {
            return None;
        }
    }
    None
}

/// Where the entry that points to the record at `at` lies, and the entry; `None` when no entry does.
pub fn find_place(region: &Region, hash: u64, at: u32, generation: u32) -> Option<(u32, Entry)> {
    let bucket = bucket_of(&region.geometry, hash);
    let wanted = Entry::live(EntryState::Plain, hash, generation, at, 0);
    ways_with(region, bucket, fingerprint_of(hash)).map(|way| region.geometry.entry(bucket, way)).find_map(|entry_at| {
        let entry = load_entry(region, entry_at);
        (entry.has_record_of(wanted) && entry.is_live()).then_some((entry_at, entry))
    })
}
