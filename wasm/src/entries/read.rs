//! Lookups: find the entry, copy the record, and check that the entry still stands and its segment is still in the same
//! life. A lookup takes no lock, never waits, and ends after a bounded number of attempts.

use crate::format::header::{CHUNKED, EXPIRES};
use crate::format::layout::{BUCKET_WORDS, CLEAR_EPOCH_AT, Class, Counter, MAX_KEY, WAYS, WORD};
use crate::format::record::Record;
use crate::format::segment::{Phase, State};
use crate::index::entry::{Entry, EntryState, MAX_HEAT};
use crate::index::key::{Beginning, KEY_NAMESPACED, Key, bucket_of};
use crate::index::probe::{Glance, Hit, Probe, entries_of, find_entry, is_valid, load_entry, probe, resolve, warm};
use crate::participant::participant::{Host, Participant};
use crate::sync::{Acquire, Relaxed};

/// Attempts of a lookup before it answers with a miss. An attempt fails only because another participant changed or moved the
/// entry meanwhile, or because of foreign bytes.
const ATTEMPTS: u32 = 16;

/// What [`Participant::census`] counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Census {
    /// Live entries.
    pub entries: u32,
    /// Live entries whose keys belong to a namespace.
    pub namespaced: u32,
    /// Bytes of the records of live entries, and of their chunks.
    pub bytes: u64,
}

/// How an entry lies in the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residence {
    pub heat: u32,
    pub class: Class,
    /// Bytes of its record, and of its chunks.
    pub bytes: u64,
}

/// A lookup copies the value.
pub const WANT_VALUE: u32 = 1;
/// A lookup copies the tag block.
pub const WANT_TAGS: u32 = 2;
/// A lookup is not counted and does not raise the heat: it is not a read of the user's.
pub const WANT_QUIET: u32 = 4;
/// [`Participant::find`] has counted this lookup as a hit and raised the heat already. Only a miss still corrects the counts.
pub const WANT_AFTER_FIND: u32 = 8;
/// A lookup also finds an entry that is stale and within its grace.
pub const WANT_STALE: u32 = 16;

/// The answer of a lookup, other than the copied bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    pub value_type: u8,
    /// A large value: `length` is its total, and its bytes are read chunk by chunk.
    pub chunked: bool,
    /// Expired, and within its grace. Only with `WANT_STALE`.
    pub stale: bool,
    pub length: u64,
    pub version: u64,
    pub expiry: f64,
    pub grace: f64,
    /// Bytes of the tag block, if it was wanted; else zero.
    pub tags: u32,
    /// Identifies the record for a near cache.
    pub stamp: Stamp,
}

/// Identifies a record. A value that was decoded earlier is still what the cache holds, except for its expiry, as long as
/// two things are true: the same stamp comes back for the same key, and the counters of its tags are those of the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The number of the entry's word in the index.
    pub way: u32,
    /// The entry, with its heat set to the highest; zero when the record may change in place.
    pub entry: u64,
    pub generation: u32,
    pub clear_epoch: u32,
}

impl Stamp {
    /// The bucket of the entry.
    pub fn bucket(&self) -> u32 {
        self.way / BUCKET_WORDS
    }
}

/// The answer of [`Participant::find`]: a stamp and its proof.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    pub stamp: Stamp,
    /// The stamp stays true as long as the change counter of the key's bucket has this value and the clear epoch is the
    /// stamp's. When that cannot be proved, this is the value before it, which the counter has left for good.
    pub changes: u64,
}

impl<H: Host> Participant<H> {
    /// Where the word with this number lies in the index.
    fn index_word_at(&self, word: u32) -> u32 {
        self.region.geometry.bucket(0) + word * WORD
    }

    /// The number of the word at `entry_at` in the index.
    fn way(&self, entry_at: u32) -> u32 {
        (entry_at - self.region.geometry.bucket(0)) / WORD
    }

    fn stamp(&self, entry_at: u32, entry: Entry, generation: u32) -> Stamp {
        let kept = if entry.state() == EntryState::Plain { entry.with_heat(MAX_HEAT).0 } else { 0 };
        Stamp { way: self.way(entry_at), entry: kept, generation, clear_epoch: 0 }
    }

    /// Answers the first question of a near cache: the stamp of the entry that probably belongs to `key`, without touching
    /// its record. `None` is a miss. The caller compares stamp and key with what it has decoded earlier. When they differ, it
    /// goes on with [`Participant::get`] and `WANT_AFTER_FIND`.
    ///
    /// The proof that the stamp stays true: the change counter is read first, then the entry, then that nobody holds the
    /// bucket's lock or reclaims the entry's segment, then the entry again. A participant that changes an entry holds the
    /// lock or the segment from before it raises the counter until after the change. If the counter that was read
    /// already includes a change, then either the lock or the segment was seen held, or the second load saw the change. If it
    /// does not include the change, the counter will have another value as soon as anybody can see the change.
    ///
    /// Reads from a near cache do not raise the heat of the entry, so only the hottest entries are proved.
    #[inline(always)]
    pub fn find(&self, key: &Key) -> Option<Sight> {
        let geometry = &self.region.geometry;
        let bucket = bucket_of(geometry, key.hash);
        // Acquire: pairs with the Release in `replace_any_heat`.
        let changes = self.region.word(geometry.changes(bucket)).load(Acquire);
        let clear_epoch = self.clear_epoch();
        match find_entry(&self.region, key) {
            Glance::Entry(entry_at, entry, state) => {
                warm(&self.region, entry_at, entry);
                self.count(Counter::Hits, 1);
                let stamp = Stamp { clear_epoch, ..self.stamp(entry_at, entry, state.generation()) };
                let proved = entry.heat() == MAX_HEAT
                    && self.is_unlocked(bucket)
                    && state.phase() != Phase::Reclaim
                    && load_entry(&self.region, entry_at).is_same(entry);
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

    /// Whether the stamp that was seen is still true. A near cache checks this with each read; its JavaScript makes these
    /// two loads itself (`Table.#isProved` in `src/near/table.ts`).
    pub fn is_still(&self, sight: &Sight) -> bool {
        let load = |at| self.region.word(at).load(Relaxed);
        // Relaxed: even so, a load sees every store that happened before this call.
        load(self.region.geometry.changes(sight.stamp.bucket())) == sight.changes
            && load(CLEAR_EPOCH_AT) as u32 == sight.stamp.clear_epoch
    }

    /// Looks `key` up, and copies what `want` asks for. Takes no lock and ends after a bounded number of attempts, whatever
    /// the others do. A lookup whose last attempt fails is a miss.
    ///
    /// # Safety
    /// `value` must be aligned to eight with room for `max_record` bytes, `tags` likewise for `MAX_BLOCK` bytes.
    pub unsafe fn get(&self, key: &Key, want: u32, value: *mut u8, tags: *mut u8) -> Option<Found> {
        // SAFETY: by contract.
        let found = unsafe { self.lookup(key, want, value, tags) };
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
    unsafe fn lookup(&self, key: &Key, want: u32, value: *mut u8, tags: *mut u8) -> Option<Found> {
        for _ in 0..ATTEMPTS {
            // Before the record is read, so that a `clear` in between makes the stamp old, and never an old value current.
            let clear_epoch = self.clear_epoch();
            let hit = match probe(&self.region, key) {
                Probe::Hit(hit) => hit,
                Probe::Absent => return None,
                Probe::Unsettled => continue,
            };
            let record = &hit.record;
            let expiry = record.expiry(&self.region);
            let stale = !self.is_current(record) || (record.has(EXPIRES) && expiry <= self.host.now());
            if stale && (want & WANT_STALE == 0 || !self.is_usable(record)) || !self.is_whole(record) {
                if is_valid(&self.region, &hit) {
                    return None;
                }
                continue;
            }
            let version = record.version(&self.region);
            let chunked = record.has(CHUNKED);
            let mut found = Found {
                value_type: record.value_type,
                chunked,
                stale,
                length: self.bounded(record.value_length) as u64,
                version,
                expiry,
                grace: record.grace(&self.region),
                tags: 0,
                stamp: Stamp { clear_epoch, ..self.stamp(hit.entry_at, hit.entry, hit.generation) },
            };
            if chunked {
                found.length = record.total(&self.region);
            } else if want & WANT_VALUE != 0 {
                // SAFETY: `value` has room for `max_record` bytes by contract.
                unsafe { self.region.copy_out(record.value_at, value, self.bounded(record.value_length)) };
            }
            if want & WANT_TAGS != 0 {
                // SAFETY: by contract.
                found.tags = unsafe { self.copy_tags(record, tags) };
            }
            // Pairs with the stores in `in_new_version`: what was read between two loads of the same version belongs to it. The
            // expiry was read before the first, so it is compared.
            if hit.entry.is_mutable()
                && (record.version(&self.region) != version
                    || record.expiry(&self.region).to_bits() != expiry.to_bits())
            {
                continue;
            }
            if !is_valid(&self.region, &hit) {
                continue;
            }
            if want & (WANT_QUIET | WANT_AFTER_FIND) == 0 {
                warm(&self.region, hit.entry_at, hit.entry);
            }
            return Some(found);
        }
        None
    }

    /// How the entry of `key` lies in the memory; `None` when it is absent, or was moved again and again meanwhile.
    pub fn residence(&self, key: &Key) -> Option<Residence> {
        for _ in 0..ATTEMPTS {
            let hit = match probe(&self.region, key) {
                Probe::Hit(hit) => hit,
                Probe::Absent => return None,
                Probe::Unsettled => continue,
            };
            let record = &hit.record;
            let state = State(self.region.word(self.region.geometry.state(hit.segment)).load(Acquire));
            let mut bytes = record.length as u64;
            if record.has(CHUNKED) {
                bytes += record.total(&self.region).min(self.region.geometry.max_value as u64);
            }
            if is_valid(&self.region, &hit) {
                return Some(Residence { heat: hit.entry.heat() as u32, class: state.class(), bytes });
            }
        }
        None
    }

    /// Whether a large value has as many chunks as its total needs. Foreign bytes may claim any total.
    fn is_whole(&self, record: &Record) -> bool {
        !record.has(CHUNKED) || {
            let total = record.total(&self.region);
            total <= self.region.geometry.max_value as u64
                && total.div_ceil(self.chunk_bytes() as u64) == record.chunks() as u64
        }
    }

    /// At most as many bytes as the caller's buffer holds. Foreign bytes may claim a record as long as its segment.
    fn bounded(&self, length: u32) -> u32 {
        length.min(self.region.geometry.max_record)
    }

    /// The next live entry at or after way `cursor` whose key begins with one of `beginnings`; copies its key. Returns the way,
    /// the key length and the key kind. Weakly consistent: entries that are stored or removed meanwhile may be seen or not; no
    /// other entry is missed or seen twice. Of the other keys nothing is copied.
    ///
    /// # Safety
    /// `key` must be aligned to eight with room for `MAX_KEY` bytes.
    pub unsafe fn next(&self, cursor: u32, beginnings: &[Beginning], key: *mut u8) -> Option<(u32, u32, u32)> {
        let words = self.region.geometry.buckets * BUCKET_WORDS;
        (cursor..words).filter(|way| way % BUCKET_WORDS < WAYS).find_map(|way| {
            let entry_at = self.index_word_at(way);
            for _ in 0..ATTEMPTS {
                let entry = load_entry(&self.region, entry_at);
                if !entry.is_live() {
                    return None;
                }
                let Some(hit) = resolve(&self.region, entry_at, entry) else {
                    continue;
                };
                let record = &hit.record;
                let wanted = beginnings.iter().any(|beginning| beginning.matches(&self.region, record));
                let live = wanted && self.is_live(record);
                if live {
                    // SAFETY: `Record::read` bounds the key by MAX_KEY.
                    unsafe { self.region.copy_out(record.key_at, key, record.key_length.min(MAX_KEY)) };
                }
                if is_valid(&self.region, &hit) {
                    return live.then_some((way, record.key_length, record.key_kind()));
                }
            }
            None
        })
    }

    /// Counts the live entries by walking the index.
    pub fn census(&self) -> Census {
        let geometry = &self.region.geometry;
        let live = |entry_at: u32| -> Option<Hit> {
            let entry = load_entry(&self.region, entry_at);
            let hit = if entry.is_live() { resolve(&self.region, entry_at, entry)? } else { return None };
            self.is_live(&hit.record).then_some(hit)
        };
        let mut census = Census::default();
        for bucket in 0..geometry.buckets {
            for entry_at in entries_of(geometry, bucket) {
                let Some(hit) = live(entry_at) else { continue };
                census.entries += 1;
                census.bytes += hit.record.length as u64;
                census.namespaced += (hit.record.key_kind() == KEY_NAMESPACED) as u32;
                if hit.record.has(CHUNKED) {
                    census.bytes += hit.record.total(&self.region).min(geometry.max_value as u64);
                }
            }
        }
        census
    }
}
