//! What a cache does with its entries: look up, store, remove, count, keep for longer.
//!
//! Reading takes no lock: find the entry, copy, and check that the entry still stands and its segment is still in the
//! same life. Writing puts a complete record into the log first, under a hazard; then, under the lock of one bucket, a
//! single compare-and-swap makes it the entry's. Dying anywhere in between leaves dead bytes and nothing else.

use crate::alloc::Purpose;
use crate::index::{
    Entry, Glance, Hit, Key, Kind, Probe, bucket_of, find_entry, find_place, probe, replace_any_heat, resolve, still,
    warm,
};
use crate::layout::{Class, Counter, MAX_KEY, SEAL_SEQUENCE_AT, WAYS};
use crate::lock::Busy;
use crate::participant::{Host, Participant};
use crate::record::{CHUNKED, EXPIRES, HEADER, KEY_KIND_SHIFT, Record, Space, TAGGED, first_word, length_field, words};
use crate::sync::{Acquire, Relaxed, SeqCst};
use crate::tags::Block;

/// Looks at a bucket before a reader answers a miss. Each further look is owed to a writer that finished meanwhile.
const LOOKS: u32 = 16;
/// Tries to change an entry under its bucket's lock. Only reclaiming and warming can interfere, a few times each.
const TRIES: u32 = 64;

/// The type byte of a number: the one type the engine itself understands, because it counts.
pub const NUMBER: u8 = 1;

/// What a store expects to find.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Expect {
    Anything,
    Absent,
    Present,
    /// This version of the entry.
    Version(u64),
}

/// Why nothing was stored.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The entry is not as expected.
    Unexpected,
    /// Too large for a record, or for this cache.
    TooLarge,
    /// The entry is no number.
    NotANumber,
    Busy,
}

impl From<Busy> for Refused {
    fn from(_: Busy) -> Refused {
        Refused::Busy
    }
}

/// Why nothing was written into the space reserved for it.
enum Unfit {
    Refused(Refused),
    /// This many bytes are needed.
    Needs(u32),
}

impl From<Refused> for Unfit {
    fn from(refused: Refused) -> Unfit {
        Unfit::Refused(refused)
    }
}

impl From<Busy> for Unfit {
    fn from(_: Busy) -> Unfit {
        Unfit::Refused(Refused::Busy)
    }
}

/// The kind of keys that belong to a namespace; the engine only counts them apart.
const KEY_NAMESPACED: u32 = 3;

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

/// Proof that an entry is unchanged: as long as the same stamp comes back for the same key, what was decoded before is
/// still what the cache holds (but for its expiry). `entry` is zero when the entry may change in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    pub way: u32,
    pub entry: u64,
    pub generation: u32,
    pub invalidations: u32,
}

/// A record about to be written.
pub struct Draft<'a> {
    pub kind: u8,
    /// CHUNKED or nothing.
    pub flags: u32,
    pub version: u64,
    /// Milliseconds, infinity for never.
    pub expiry: f64,
    pub tags: &'a Block,
    /// Readable up to a multiple of eight.
    pub value: &'a [u8],
}

impl Draft<'_> {
    fn bytes(&self, key: &Key) -> u64 {
        let expiry = if self.expiry == f64::INFINITY { 0 } else { 8 };
        (HEADER + expiry + self.tags.length() + words(key.length)) as u64 + self.value.len() as u64
    }
}

impl<H: Host> Participant<H> {
    /// The entry's number within the index.
    fn way(&self, entry_at: u32) -> u32 {
        (entry_at - self.region.geometry.bucket(0)) / 8
    }

    fn stamp(&self, entry_at: u32, entry: Entry, generation: u32) -> Stamp {
        let kept = if entry.kind() == Kind::Plain { entry.with_freq(0).0 } else { 0 };
        Stamp { way: self.way(entry_at), entry: kept, generation, invalidations: 0 }
    }

    /// What the near cache asks first: the stamp of the entry that probably belongs to `key`, without touching its
    /// record. `None` is a miss. The caller compares stamp and key with what it has decoded before, and goes on with
    /// [`Participant::get`] and `WANT_AFTER_FIND` when they differ.
    #[inline(always)]
    pub fn find(&self, key: &Key) -> Option<Stamp> {
        let invalidations = self.epochs().1;
        match find_entry(&self.region, key) {
            Glance::Entry(entry_at, entry, generation) => {
                warm(&self.region, entry_at, entry);
                self.count(Counter::Hits, 1);
                Some(Stamp { invalidations, ..self.stamp(entry_at, entry, generation) })
            }
            Glance::Unsettled => {
                self.count(Counter::Hits, 1);
                Some(Stamp::default())
            }
            Glance::Absent => {
                self.count(Counter::Misses, 1);
                None
            }
        }
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
            // Before the record, so that an invalidation in between makes the stamp old rather than the value.
            let invalidations = self.epochs().1;
            let hit = match probe(&self.region, key) {
                Probe::Hit(hit) => hit,
                Probe::Absent => return None,
                Probe::Unsettled => continue,
            };
            let record = &hit.record;
            let expiry = record.expiry(&self.region);
            if !self.is_current(record) || (record.has(EXPIRES) && expiry <= self.host.now()) {
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
                stamp: Stamp { invalidations, ..self.stamp(hit.entry_at, hit.entry, hit.generation) },
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

    /// Foreign bytes may claim a record as long as its segment; the scratch area is only made for real ones.
    fn bounded(&self, length: u32) -> u32 {
        length.min(self.region.geometry.max_record)
    }

    /// Stores a complete value. When it is refused, whatever was there is still there.
    pub fn set(&self, key: &Key, draft: &Draft, expect: Expect) -> Result<(), Refused> {
        self.check_size(draft.bytes(key))?;
        if !matches!(expect, Expect::Anything) && !self.expected(key, expect) {
            return Err(Refused::Unexpected);
        }
        let space = self.reserve(self.class_for(key), length_field(draft.bytes(key) as u32), Purpose::Write)?;
        self.write(&space, key, draft);
        let kind = if draft.flags & CHUNKED != 0 { Kind::Mutable } else { Kind::Plain };
        let stored = self.publish(key, &space, kind, expect);
        self.withdraw();
        if stored.is_ok() {
            self.count(Counter::Sets, 1);
        }
        stored
    }

    fn check_size(&self, bytes: u64) -> Result<(), Refused> {
        if bytes > self.region.geometry.max_record as u64 { Err(Refused::TooLarge) } else { Ok(()) }
    }

    /// A first look without the lock, so that a store that will be refused costs no space.
    fn expected(&self, key: &Key, expect: Expect) -> bool {
        match probe(&self.region, key) {
            Probe::Unsettled => true,
            Probe::Absent => matches!(expect, Expect::Absent | Expect::Anything),
            Probe::Hit(hit) => {
                let version = self.is_live(&hit.record).then(|| hit.record.version(&self.region));
                // An odd version is to be settled, which needs the lock.
                meets(expect, version) || version.is_some_and(|version| version & 1 == 1) || !still(&self.region, &hit)
            }
        }
    }

    fn is_live(&self, record: &Record) -> bool {
        self.is_current(record) && !(record.has(EXPIRES) && record.expiry(&self.region) <= self.host.now())
    }

    /// The queue a new record of this key belongs to: main when it was evicted lately and is wanted again, or when its
    /// entry already lives there.
    pub(crate) fn class_for(&self, key: &Key) -> Class {
        let bucket = self.region.geometry.bucket(bucket_of(&self.region.geometry, key.hash));
        for way in 0..WAYS {
            let entry = Entry(self.region.word(bucket + way * 8).load(Relaxed));
            if entry.tag() != key.hash >> 48 {
                continue;
            }
            match entry.kind() {
                Kind::Empty => {}
                Kind::Ghost if self.remembers(entry) => return Class::Main,
                Kind::Ghost => {}
                _ => {
                    if let Some(segment) = self.region.geometry.segment_of(entry.at()) {
                        let state = self.region.word(self.region.geometry.state(segment)).load(Relaxed);
                        return crate::segment::State(state).class();
                    }
                }
            }
        }
        Class::Small
    }

    /// A ghost counts for as long as it takes to fill the cache once.
    fn remembers(&self, ghost: Entry) -> bool {
        ghost.ghost_age(self.region.word(SEAL_SEQUENCE_AT).load(Relaxed)) <= self.region.geometry.segments as u64
    }

    fn write(&self, space: &Space, key: &Key, draft: &Draft) {
        let region = &self.region;
        let mut flags = draft.flags | key.kind << KEY_KIND_SHIFT;
        let mut at = space.at + HEADER;
        if draft.expiry != f64::INFINITY {
            flags |= EXPIRES;
            region.fill(at, draft.expiry.to_bits());
            at += 8;
        }
        if draft.tags.length() > 0 {
            flags |= TAGGED;
            // SAFETY: the block is that long, in whole words.
            unsafe { region.copy_in(draft.tags.as_ptr(), at, draft.tags.length()) };
            at += draft.tags.length();
        }
        for &word in key.words {
            region.fill(at, word);
            at += 8;
        }
        // SAFETY: readable up to a multiple of eight, by the contract of `Draft`.
        unsafe { region.copy_in(draft.value.as_ptr(), at, draft.value.len() as u32) };
        region.fill(space.at + 8, Record::second_word(key.length, draft.kind, flags, self.epochs().0));
        region.fill(space.at + 16, key.hash);
        region.fill(space.at + 24, draft.version);
    }

    /// Makes the record in `space` the entry of `key`, if what is there is as expected.
    fn publish(&self, key: &Key, space: &Space, kind: Kind, expect: Expect) -> Result<(), Refused> {
        let held = self.lock(key.hash)?;
        let published = self.publish_locked(key, space, kind, expect);
        self.unlock(held);
        published
    }

    fn publish_locked(&self, key: &Key, space: &Space, kind: Kind, expect: Expect) -> Result<(), Refused> {
        for _ in 0..TRIES {
            let existing = self.find_locked(key)?;
            let live = existing.as_ref().filter(|hit| self.is_live(&hit.record));
            if !meets(expect, live.map(|hit| hit.record.version(&self.region))) {
                self.settle_version(live);
                return Err(Refused::Unexpected);
            }
            let large = kind == Kind::Mutable;
            if large && !self.has_its_chunks(space) {
                return Err(Refused::Busy);
            }
            if self.put(key, space, kind, existing.as_ref()) {
                if large && !self.has_its_chunks(space) {
                    self.give_up(key, space);
                }
                return Ok(());
            }
        }
        Err(Refused::Busy)
    }

    /// Evicts what was just stored: so much was written meanwhile that a part of it is gone already.
    #[cold]
    fn give_up(&self, key: &Key, space: &Space) {
        let place = find_place(&self.region, key.hash, space.at, space.generation);
        if let Some(hit) = place.and_then(|(entry_at, entry)| resolve(&self.region, entry_at, entry)) {
            self.evict(&hit, Class::Main);
        }
    }

    /// One try to let the entry of `key` point to `space`, in place of `existing` or of whatever is least worth keeping.
    fn put(&self, key: &Key, space: &Space, kind: Kind, existing: Option<&Hit>) -> bool {
        let (entry_at, from) = existing.map_or_else(|| self.roomiest(key), |hit| (hit.entry_at, hit.entry));
        // Read before the swap: afterwards nothing keeps the old record where it is.
        let victim = if existing.is_none() && from.is_live() { resolve(&self.region, entry_at, from) } else { None };
        if let Some(replaced) = existing.or(victim.as_ref()) {
            self.retire_chunks(replaced);
        }
        // Only the heat may differ: a record that was moved meanwhile has another entry and is looked at again.
        let stored = replace_any_heat(&self.region, entry_at, from, |seen| {
            let freq = if existing.is_some() { seen.freq() } else { 0 };
            Entry::live(kind, key.hash, space.generation, space.at, freq)
        });
        if stored.is_some() {
            let record = Record::read(&self.region, space.at, self.region.geometry.segment(space.segment + 1));
            self.add_live(space, record.map_or(0, |record| record.length));
            if let Some(replaced) = existing.or(victim.as_ref()) {
                self.take_live(replaced.segment, replaced.generation, replaced.record.length);
            }
            if victim.is_some_and(|victim| self.is_live(&victim.record)) {
                self.count(Counter::Evictions, 1);
            }
        }
        stored.is_some()
    }

    /// The way of a bucket that a new entry takes: the ghost of the same key, else an empty one, else the oldest ghost,
    /// else an entry that is a miss already, else the coldest.
    fn roomiest(&self, key: &Key) -> (u32, Entry) {
        let bucket = self.region.geometry.bucket(bucket_of(&self.region.geometry, key.hash));
        let sealed = self.region.word(SEAL_SEQUENCE_AT).load(Relaxed);
        let mut best = (bucket, Entry(self.region.word(bucket).load(Acquire)));
        let mut best_worth = u64::MAX;
        for way in 0..WAYS {
            let entry_at = bucket + way * 8;
            let entry = Entry(self.region.word(entry_at).load(Acquire));
            let worth = match entry.kind() {
                Kind::Ghost if entry.tag() == key.hash >> 48 => 0,
                Kind::Empty => 1,
                Kind::Ghost => (1 << 40) - entry.ghost_age(sealed),
                _ => (1 << 41) + entry.freq(),
            };
            if worth < best_worth {
                (best, best_worth) = ((entry_at, entry), worth);
            }
        }
        if best.1.is_live() { self.worthless(bucket).unwrap_or(best) } else { best }
    }

    /// An entry of a full bucket that is invalidated, expired or foreign. It may be hot from its better days.
    #[cold]
    fn worthless(&self, bucket: u32) -> Option<(u32, Entry)> {
        (0..WAYS).map(|way| bucket + way * 8).find_map(|entry_at| {
            let entry = Entry(self.region.word(entry_at).load(Acquire));
            let worth = resolve(&self.region, entry_at, entry).is_some_and(|hit| self.is_live(&hit.record));
            (!worth).then_some((entry_at, entry))
        })
    }

    /// The entry of `key`, with its bucket locked. Nobody else can add or replace entries now; reclaiming may still
    /// move or drop plain ones, and foreign bytes are thrown out on the way.
    fn find_locked(&self, key: &Key) -> Result<Option<Hit>, Busy> {
        for _ in 0..TRIES {
            match probe(&self.region, key) {
                Probe::Hit(hit) if still(&self.region, &hit) => return Ok(Some(hit)),
                Probe::Hit(_) => {}
                Probe::Absent => return Ok(None),
                Probe::Unsettled => self.mend(key.hash),
            }
        }
        Err(Busy)
    }

    /// Removes entries that point nowhere. By the index's invariant an entry that still stands after its segment was
    /// seen in another life cannot be real: somebody wrote foreign bytes.
    #[cold]
    fn mend(&self, hash: u64) {
        let bucket = self.region.geometry.bucket(bucket_of(&self.region.geometry, hash));
        for way in 0..WAYS {
            let entry_at = bucket + way * 8;
            let entry = Entry(self.region.word(entry_at).load(Acquire));
            if entry.is_live() && resolve(&self.region, entry_at, entry).is_none() {
                replace_any_heat(&self.region, entry_at, entry, |_| Entry::EMPTY);
            }
        }
    }

    /// Removes `key` if it is there in this version; true when it was.
    pub fn remove(&self, key: &Key, expect: Expect) -> Result<bool, Busy> {
        let held = self.lock(key.hash)?;
        let removed = self.remove_locked(key, expect);
        self.unlock(held);
        if removed == Ok(true) {
            self.count(Counter::Deletes, 1);
        }
        removed
    }

    fn remove_locked(&self, key: &Key, expect: Expect) -> Result<bool, Busy> {
        for _ in 0..TRIES {
            let Some(hit) = self.find_locked(key)? else { return Ok(false) };
            let live = self.is_live(&hit.record);
            if live && !meets(expect, Some(hit.record.version(&self.region))) {
                self.settle_version(Some(&hit));
                return Ok(false);
            }
            if self.drop_entry(&hit, false) {
                return Ok(live);
            }
        }
        Err(Busy)
    }

    /// Adds to the number at `key`, or makes it `initial + by`. Numbers that are counted live in mutable records, where
    /// adding is one store; a number that was `set` becomes one with its first increment.
    pub fn increment(&self, key: &Key, by: f64, initial: f64, expiry: f64, tags: &Block) -> Result<f64, Refused> {
        if let Some(sum) = self.increment_in_place(key, by)? {
            return Ok(sum);
        }
        let fresh = Draft { kind: NUMBER, flags: 0, version: self.version(), expiry, tags, value: &[0; 8] };
        let sum = self.rewrite(key, fresh.bytes(key), |space| self.increment_locked(key, by, initial, &fresh, space))?;
        self.count(Counter::Sets, 1);
        Ok(sum)
    }

    /// Does `act` under the lock of `key`'s bucket with space for a copy of the entry's record, with an expiry more than it
    /// has, or for `bytes`. Tried again with more space when another participant makes the entry longer meanwhile.
    fn rewrite<T>(&self, key: &Key, bytes: u64, act: impl Fn(&Space) -> Result<T, Unfit>) -> Result<T, Refused> {
        let max_record = self.region.geometry.max_record;
        let mut bytes = bytes;
        if let Probe::Hit(hit) = probe(&self.region, key) {
            bytes = bytes.max((hit.record.length + 16).min(max_record) as u64);
        }
        for _ in 0..TRIES {
            self.check_size(bytes)?;
            let space = self.reserve(self.class_for(key), length_field(bytes as u32), Purpose::Write)?;
            let result = self.lock(key.hash).map_err(Unfit::from).and_then(|held| {
                let result = act(&space);
                self.unlock(held);
                result
            });
            self.withdraw();
            match result {
                Ok(done) => return Ok(done),
                Err(Unfit::Refused(refused)) => return Err(refused),
                Err(Unfit::Needs(more)) => bytes = more as u64,
            }
        }
        Err(Refused::Busy)
    }

    fn increment_in_place(&self, key: &Key, by: f64) -> Result<Option<f64>, Refused> {
        // Without a live counter there is nothing to lock for.
        match probe(&self.region, key) {
            Probe::Absent => return Ok(None),
            Probe::Hit(hit) if hit.entry.kind() == Kind::Plain && is_number(&hit.record) => return Ok(None),
            _ => {}
        }
        let held = self.lock(key.hash)?;
        let result = match self.find_locked(key) {
            Ok(Some(hit)) if self.is_live(&hit.record) => {
                if !is_number(&hit.record) {
                    Err(Refused::NotANumber)
                } else if hit.entry.kind() == Kind::Mutable {
                    Ok(Some(self.add(&hit, by)))
                } else {
                    Ok(None)
                }
            }
            Ok(_) => Ok(None),
            Err(Busy) => Err(Refused::Busy),
        };
        self.unlock(held);
        if matches!(result, Ok(Some(_))) {
            self.count(Counter::Sets, 1);
        }
        result
    }

    /// Adds to a counter whose bucket is locked. The version is odd while the number changes, so that nobody takes the
    /// old number for the new version's; dying in between leaves it odd, and [`Participant::settle_version`] mends that.
    fn add(&self, hit: &Hit, by: f64) -> f64 {
        let value = self.region.word(hit.record.value_at);
        let version = self.region.word(hit.record.version_at());
        let next = self.version();
        version.store(next | 1, SeqCst);
        let sum = f64::from_bits(value.load(Relaxed)) + by;
        value.store(sum.to_bits(), SeqCst);
        version.store(next, SeqCst);
        warm(&self.region, hit.entry_at, hit.entry);
        sum
    }

    /// Gives a counter an even version when its last writer died while counting. Needs the bucket's lock.
    fn settle_version(&self, hit: Option<&Hit>) {
        if let Some(hit) = hit.filter(|hit| hit.entry.kind() == Kind::Mutable) {
            let version = self.region.word(hit.record.version_at());
            if version.load(Acquire) & 1 == 1 {
                version.store(self.version(), SeqCst);
            }
        }
    }

    fn increment_locked(&self, key: &Key, by: f64, initial: f64, fresh: &Draft, space: &Space) -> Result<f64, Unfit> {
        for _ in 0..TRIES {
            let existing = self.find_locked(key)?;
            let live = existing.filter(|hit| self.is_live(&hit.record));
            let sum = match &live {
                None => {
                    let sum = initial + by;
                    let value = sum.to_bits().to_le_bytes();
                    let draft = Draft { value: &value, ..*fresh };
                    self.write(space, key, &draft);
                    self.fit(space, draft.bytes(key) as u32);
                    sum
                }
                Some(hit) if !is_number(&hit.record) => return Err(Refused::NotANumber.into()),
                // Somebody else made it a counter meanwhile; the reserved space stays dead.
                Some(hit) if hit.entry.kind() == Kind::Mutable => return Ok(self.add(hit, by)),
                Some(hit) => {
                    let sum = f64::from_bits(self.region.word(hit.record.value_at).load(Relaxed)) + by;
                    let copy = self.copy_record(hit, space, hit.record.expiry(&self.region), fresh.version)?;
                    self.region.fill(copy.value_at, sum.to_bits());
                    if !still(&self.region, hit) {
                        continue;
                    }
                    sum
                }
            };
            if self.put(key, space, Kind::Mutable, existing.as_ref()) {
                return Ok(sum);
            }
        }
        Err(Refused::Busy.into())
    }

    /// Writes a copy of a record with another expiry into reserved space, if it fits. The caller validates the source
    /// afterwards.
    fn copy_record(&self, hit: &Hit, space: &Space, expiry: f64, version: u64) -> Result<Record, Unfit> {
        let (region, record) = (&self.region, &hit.record);
        let (tags_at, _) = record.tags();
        let rest = record.value_at + record.value_length - tags_at;
        let expires = if expiry == f64::INFINITY { 0 } else { EXPIRES };
        let start = if expires == 0 { HEADER } else { HEADER + 8 };
        if start + words(rest) > space.room {
            return Err(Unfit::Needs(start + words(rest)));
        }
        if expires != 0 {
            region.fill(space.at + HEADER, expiry.to_bits());
        }
        region.copy_within(tags_at, space.at + start, words(rest));
        let flags = record.flags & !EXPIRES | expires;
        region.fill(space.at + 8, Record::second_word(record.key_length, record.kind, flags, record.epoch));
        region.fill(space.at + 16, record.hash(region));
        region.fill(space.at + 24, version);
        self.fit(space, start + rest);
        // A copy of what was no record is none either; that cannot be mended by waiting, but it is not this caller's fault.
        Record::read(region, space.at, region.geometry.segment(space.segment + 1)).ok_or(Refused::Busy.into())
    }

    /// Shortens reserved space to `bytes`; the rest becomes a dead record, so that walks go on behind it.
    fn fit(&self, space: &Space, bytes: u32) {
        let field = length_field(bytes);
        let rest = space.room - (field & !15);
        if rest > 0 {
            let rest_at = space.at + (field & !15);
            self.region.fill(rest_at + 8, 0);
            self.region.word(rest_at).store(first_word(rest, space.generation), Relaxed);
        }
        // Last: until now a walker sees one record of the full length.
        self.region.word(space.at).store(first_word(field, space.generation), SeqCst);
    }

    /// Gives the entry of `key` another expiry, by a copy, because a record does not change. False when it is absent.
    pub fn touch(&self, key: &Key, expiry: f64) -> Result<bool, Refused> {
        if matches!(probe(&self.region, key), Probe::Absent) {
            return Ok(false);
        }
        self.rewrite(key, HEADER as u64, |space| self.touch_locked(key, expiry, space))
    }

    fn touch_locked(&self, key: &Key, expiry: f64, space: &Space) -> Result<bool, Unfit> {
        for _ in 0..TRIES {
            let Some(hit) = self.find_locked(key)?.filter(|hit| self.is_live(&hit.record)) else { return Ok(false) };
            let version = hit.record.version(&self.region);
            let copy = self.copy_record(&hit, space, expiry, version)?;
            // The chunks of a large value stay where they are and change hands; only the head's own bytes are retired.
            let moved = replace_any_heat(&self.region, hit.entry_at, hit.entry, |entry| {
                Entry::live(entry.kind(), key.hash, space.generation, space.at, entry.freq())
            });
            if moved.is_some() {
                self.add_live(space, copy.length);
                self.take_live(hit.segment, hit.generation, hit.record.length);
                return Ok(true);
            }
        }
        Err(Refused::Busy.into())
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
                let Some(hit) = resolve(&self.region, entry_at, entry) else { continue };
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
                if let Some(hit) = entry.is_live().then(|| resolve(&self.region, entry_at, entry)).flatten() {
                    if self.is_live(&hit.record) {
                        census.entries += 1;
                        census.bytes += hit.record.length as u64;
                        census.namespaced += (hit.record.flags >> KEY_KIND_SHIFT & 3 == KEY_NAMESPACED) as u32;
                        if hit.record.has(CHUNKED) {
                            census.bytes += hit.record.total(&self.region).min(self.region.geometry.max_value as u64);
                        }
                    }
                }
            }
        }
        census
    }
}

fn is_number(record: &Record) -> bool {
    record.kind == NUMBER && record.value_length == 8 && !record.has(CHUNKED)
}

fn meets(expect: Expect, version: Option<u64>) -> bool {
    match (expect, version) {
        (Expect::Anything, _) | (Expect::Absent, None) | (Expect::Present, Some(_)) => true,
        // An odd version is one that its writer died with: it may belong to another number.
        (Expect::Version(wanted), Some(version)) => wanted == version && version & 1 == 0,
        _ => false,
    }
}

