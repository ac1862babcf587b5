//! Looking things up: find the entry, copy, and check that the entry still stands and its segment is still in the same
//! life. No lock, no wait, and a bounded number of looks.

use crate::index::probe::{Entry, Glance, Key, Kind, MAX_FREQ, Probe, bucket_of, find_entry, probe, resolve, still, warm};
use crate::format::layout::{CLEAR_EPOCH_AT, Counter, MAX_KEY, WAYS};
use crate::participant::participant::{Host, Participant};
use crate::format::record::{CHUNKED, EXPIRES, KEY_KIND_SHIFT, Record};
use crate::format::segment::Phase;
use crate::sync::{Acquire, Relaxed};

/// Looks at a bucket before a reader answers a miss. Each further look is owed to a writer that finished meanwhile.
const LOOKS: u32 = 16;

/// The kind of keys that belong to a namespace; the engine only counts them apart.
pub const KEY_NAMESPACED: u32 = 3;

/// What [`Participant::census`] counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Census {
    pub entries: u32,
    /// Those of them whose keys belong to a namespace.
    pub namespaced: u32,
    /// Bytes of their records, and of their chunks.
    pub bytes: u64,
}

/// What a lookup is to bring.
pub const WANT_VALUE: u32 = 1;
pub const WANT_TAGS: u32 = 2;
/// Neither counted nor warmed: not a read of the user's.
pub const WANT_QUIET: u32 = 4;
/// [`Participant::find`] has counted and warmed already; only a miss is still to be counted.
pub const WANT_AFTER_FIND: u32 = 8;

/// The part of an answer that is not bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    pub kind: u8,
    /// A large value: `length` is its total, and its bytes come chunk by chunk.
    pub chunked: bool,
    pub length: u64,
    pub version: u64,
    pub expiry: f64,
    /// Bytes of the tag block, when it was wanted.
    pub tags: u32,
    /// What proves later that nothing changed: see [`Stamp`].
    pub stamp: Stamp,
}

/// What identifies a record: as long as the same stamp comes back for the same key, and the counters of its tags are
/// what the record remembers, what was decoded before is still what the cache holds (but for its expiry). `entry` is the
/// entry at its hottest, and zero when it may change in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    pub way: u32,
    pub entry: u64,
    pub generation: u32,
    /// The clear epoch.
    pub epoch: u32,
}

impl Stamp {
    /// The bucket of the entry.
    pub fn bucket(&self) -> u32 {
        self.way / (WAYS + 1)
    }
}

/// What [`Participant::find`] saw.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    pub stamp: Stamp,
    /// As long as the changes of the key's bucket count as many (and the clear epoch is the stamp's), the stamp stays true.
    /// Where that cannot be said, it is the count before, which never comes back.
    pub changes: u64,
}

impl<H: Host> Participant<H> {
    /// The entry's number within the index.
    fn way(&self, entry_at: u32) -> u32 {
        (entry_at - self.region.geometry.bucket(0)) / 8
    }

    fn stamp(&self, entry_at: u32, entry: Entry, generation: u32) -> Stamp {
        let kept = if entry.kind() == Kind::Plain { entry.with_freq(MAX_FREQ).0 } else { 0 };
        Stamp { way: self.way(entry_at), entry: kept, generation, epoch: 0 }
    }

    /// What the near cache asks first: the stamp of the entry that probably belongs to `key`, without touching its
    /// record. `None` is a miss. The caller compares stamp and key with what it has decoded before, and goes on with
    /// [`Participant::get`] and `WANT_AFTER_FIND` when they differ.
    ///
    /// The proof: the count of changes is read first, then the entry, then that nobody holds the bucket's lock or reclaims the
    /// entry's segment, then the entry again. Whoever changes an entry holds one of these from before the count to after the
    /// change. So if the count has the change, it was seen held, or the second look saw the change; and if not, the count
    /// will be another one as soon as anybody can see the change.
    ///
    /// What is near is read without making its entry hotter, so only the hottest ones are proved.
    #[inline(always)]
    pub fn find(&self, key: &Key) -> Option<Sight> {
        let geometry = &self.region.geometry;
        let bucket = bucket_of(geometry, key.hash);
        // Acquire: meets the release of `replace_any_heat`.
        let changes = self.region.word(geometry.changes(bucket)).load(Acquire);
        let epoch = self.clear_epoch();
        match find_entry(&self.region, key) {
            Glance::Entry(entry_at, entry, state) => {
                warm(&self.region, entry_at, entry);
                self.count(Counter::Hits, 1);
                let stamp = Stamp { epoch, ..self.stamp(entry_at, entry, state.generation()) };
                let proved = entry.freq() == MAX_FREQ
                    && self.is_unlocked(bucket)
                    && state.phase() != Phase::Reclaim
                    && Entry(self.region.word(entry_at).load(Acquire)).is_same(entry);
                Some(Sight { stamp, changes: if proved { changes } else { changes.wrapping_sub(1) } })
            }
            Glance::Unsettled => {
                self.count(Counter::Hits, 1);
                Some(Sight { stamp: Stamp::default(), changes: changes.wrapping_sub(1) })
            }
            Glance::Absent => {
                self.count(Counter::Misses, 1);
                None
            }
        }
    }

    /// Whether what was seen is still true. A near cache asks this with each read, and JavaScript makes these two loads itself
    /// (`isCurrent` in `src/near/near.ts`).
    pub fn is_still(&self, sight: &Sight) -> bool {
        let load = |at| self.region.word(at).load(Relaxed);
        // Relaxed: what others had stored when this call began is seen by any load made in it.
        load(self.region.geometry.changes(sight.stamp.bucket())) == sight.changes
            && load(CLEAR_EPOCH_AT) as u32 == sight.stamp.epoch
    }

    /// Looks `key` up; copies what `want` asks for. Takes no lock and ends after a bounded number of looks, whatever
    /// the others do; the last look that fails is a miss.
    ///
    /// # Safety
    /// `value` must be aligned to eight with room for `max_record` bytes, `tags` likewise for `MAX_BLOCK` bytes.
    pub unsafe fn get(&self, key: &Key, want: u32, value: *mut u8, tags: *mut u8) -> Option<Found> {
        // SAFETY: by contract.
        let found = unsafe { self.look(key, want, value, tags) };
        if want & (WANT_QUIET | WANT_AFTER_FIND) == 0 {
            self.count(if found.is_some() { Counter::Hits } else { Counter::Misses }, 1);
        } else if want & WANT_AFTER_FIND != 0 && found.is_none() {
            self.count(Counter::Hits, u64::MAX);
            self.count(Counter::Misses, 1);
        }
        found
    }

    /// # Safety
    /// As [`Participant::get`].
    #[inline(always)]
    unsafe fn look(&self, key: &Key, want: u32, value: *mut u8, tags: *mut u8) -> Option<Found> {
        for _ in 0..LOOKS {
            // Before the record, so that a clear in between makes the stamp old rather than the value.
            let epoch = self.clear_epoch();
            let hit = match probe(&self.region, key) {
                Probe::Hit(hit) => hit,
                Probe::Absent => return None,
                Probe::Unsettled => continue,
            };
            let record = &hit.record;
            let expiry = record.expiry(&self.region);
            if !self.is_whole(record) || !self.is_current(record) || (record.has(EXPIRES) && expiry <= self.host.now())
            {
                if still(&self.region, &hit) {
                    return None;
                }
                continue;
            }
            let version = record.version(&self.region);
            let chunked = record.has(CHUNKED);
            let mut found = Found {
                kind: record.kind,
                chunked,
                length: self.bounded(record.value_length) as u64,
                version,
                expiry,
                tags: 0,
                stamp: Stamp { epoch, ..self.stamp(hit.entry_at, hit.entry, hit.generation) },
            };
            if chunked {
                found.length = record.total(&self.region);
            } else if want & WANT_VALUE != 0 {
                // SAFETY: a record is never longer than `max_record`.
                unsafe { self.region.copy_out(record.value_at, value, self.bounded(record.value_length)) };
            }
            if want & WANT_TAGS != 0 {
                // SAFETY: by contract.
                found.tags = unsafe { self.copy_tags(record, tags) };
            }
            if hit.entry.kind() == Kind::Mutable && record.version(&self.region) != version {
                continue;
            }
            if !still(&self.region, &hit) {
                continue;
            }
            if want & (WANT_QUIET | WANT_AFTER_FIND) == 0 {
                warm(&self.region, hit.entry_at, hit.entry);
            }
            return Some(found);
        }
        None
    }

    /// Foreign bytes may claim any total for a large value; a real one has as many chunks as that takes.
    fn is_whole(&self, record: &Record) -> bool {
        !record.has(CHUNKED) || {
            let total = record.total(&self.region);
            total <= self.region.geometry.max_value as u64
                && total.div_ceil(self.chunk_bytes() as u64) == record.chunks() as u64
        }
    }

    /// Foreign bytes may claim a record as long as its segment; the scratch area is only made for real ones.
    fn bounded(&self, length: u32) -> u32 {
        length.min(self.region.geometry.max_record)
    }

    pub(crate) fn is_live(&self, record: &Record) -> bool {
        self.is_current(record) && !(record.has(EXPIRES) && record.expiry(&self.region) <= self.host.now())
    }

    /// The next live entry at or after way `cursor`; copies its key. Returns its way, key length and key kind. Weakly
    /// consistent: entries stored or removed meanwhile may or may not be seen, no other entry is missed or seen twice.
    ///
    /// # Safety
    /// `key` must be aligned to eight with room for `MAX_KEY` bytes.
    pub unsafe fn next(&self, cursor: u32, key: *mut u8) -> Option<(u32, u32, u32)> {
        let geometry = &self.region.geometry;
        (cursor..geometry.buckets * 16).filter(|way| way % 16 < WAYS).find_map(|way| {
            let entry_at = geometry.bucket(0) + way * 8;
            for _ in 0..LOOKS {
                let entry = Entry(self.region.word(entry_at).load(Acquire));
                if !entry.is_live() {
                    return None;
                }
                let Some(hit) = resolve(&self.region, entry_at, entry) else {
                    continue;
                };
                let record = &hit.record;
                let live = self.is_live(record);
                if live {
                    // SAFETY: `Record::read` bounds the key by MAX_KEY.
                    unsafe { self.region.copy_out(record.key_at, key, record.key_length.min(MAX_KEY)) };
                }
                if still(&self.region, &hit) {
                    return live.then_some((way, record.key_length, record.flags >> KEY_KIND_SHIFT & 3));
                }
            }
            None
        })
    }

    /// Counts by walking the index.
    pub fn census(&self) -> Census {
        let geometry = &self.region.geometry;
        let mut census = Census::default();
        for bucket in 0..geometry.buckets {
            for way in 0..WAYS {
                let entry_at = geometry.bucket(bucket) + way * 8;
                let entry = Entry(self.region.word(entry_at).load(Acquire));
                if let Some(hit) = entry.is_live().then(|| resolve(&self.region, entry_at, entry)).flatten()
                    && self.is_live(&hit.record)
                {
                    census.entries += 1;
                    census.bytes += hit.record.length as u64;
                    census.namespaced += (hit.record.flags >> KEY_KIND_SHIFT & 3 == KEY_NAMESPACED) as u32;
                    if hit.record.has(CHUNKED) {
                        census.bytes += hit.record.total(&self.region).min(self.region.geometry.max_value as u64);
                    }
                }
            }
        }
        census
    }
}
