//! Storing and removing. A complete record goes into the log first, under a hazard; then, under the lock of one bucket, a
//! single compare-and-swap makes it the entry's. Dying anywhere in between leaves dead bytes and nothing else.

use crate::log::append::Purpose;
use crate::index::probe::{Entry, Hit, Key, Kind, Probe, bucket_of, find_place, probe, replace_any_heat, resolve, still, ways_with};
use crate::format::layout::{Class, Counter, WAYS};
use crate::participant::lock::Busy;
use crate::participant::participant::{Host, Participant};
use crate::format::record::{CHUNKED, EXPIRES, HEADER, KEY_KIND_SHIFT, Record, Space, TAGGED, length_field, words};
use crate::sync::{Acquire, Relaxed};
use crate::entries::tags::Block;

/// Tries to change an entry under its bucket's lock. Only reclaiming and warming can interfere, a few times each.
pub(crate) const TRIES: u32 = 64;

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

/// A record about to be written.
pub struct Draft<'a> {
    pub kind: u8,
    /// CHUNKED or nothing.
    pub flags: u32,
    pub version: u64,
    /// Milliseconds, infinity for never.
    pub expiry: f64,
    pub tags: &'a Block,
    pub value: &'a [u8],
}

impl Draft<'_> {
    pub(crate) fn bytes(&self, key: &Key) -> u64 {
        let expiry = if self.expiry == f64::INFINITY { 0 } else { 8 };
        (HEADER + expiry + self.tags.length() + words(key.length)) as u64 + self.value.len() as u64
    }
}

impl<H: Host> Participant<H> {
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

    pub(crate) fn check_size(&self, bytes: u64) -> Result<(), Refused> {
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

    /// The queue a new record of this key belongs to: main when it was evicted lately and is wanted again, or when its
    /// entry already lives there.
    pub(crate) fn class_for(&self, key: &Key) -> Class {
        let geometry = &self.region.geometry;
        let number = bucket_of(geometry, key.hash);
        let bucket = geometry.bucket(number);
        let tag = key.hash >> 48;
        // Only raised when the entry is changed. Read here, it comes from memory together with the bucket. (An acquire load,
        // because compilers leave out others that nobody uses.)
        let _ = self.region.word(geometry.changes(number)).load(Acquire);
        for way in ways_with(&self.region, bucket, tag) {
            let entry = Entry(self.region.word(bucket + way * 8).load(Relaxed));
            if entry.tag() != tag {
                continue;
            }
            match entry.kind() {
                Kind::Empty => {}
                Kind::Ghost if self.remembers(entry) => return Class::Main,
                Kind::Ghost => {}
                _ => {
                    if let Some(segment) = geometry.segment_of(entry.at()) {
                        let state = self.region.word(geometry.state(segment)).load(Relaxed);
                        return crate::format::segment::State(state).class();
                    }
                }
            }
        }
        Class::Small
    }

    /// A ghost counts until the cache was filled once by what came after it.
    fn remembers(&self, ghost: Entry) -> bool {
        ghost.ghost_age(self.ghost_clock()) <= self.region.geometry.segments as u64
    }

    pub(crate) fn write(&self, space: &Space, key: &Key, draft: &Draft) {
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
        // SAFETY: a slice is readable.
        unsafe { region.copy_in(draft.value.as_ptr(), at, draft.value.len() as u32) };
        region.fill(space.at + 8, Record::second_word(key.length, draft.kind, flags, self.clear_epoch()));
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
            self.renew(space);
            let existing = self.find_locked(key)?;
            let live = existing.as_ref().filter(|hit| self.is_live(&hit.record));
            if !meets(expect, live.map(|hit| hit.record.version(&self.region))) {
                self.settle_version(live);
                return Err(Refused::Unexpected);
            }
            if !self.is_renewed(space) {
                continue;
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

    /// Makes a record that was overtaken by a `clear` or an invalidation before it was published one that comes after it.
    /// Otherwise it would be a miss from the beginning, and might replace what was stored since.
    pub(crate) fn renew(&self, space: &Space) {
        if !self.is_renewed(space)
            && let Some(record) = self.written(space)
        {
            self.renew_tags(&record);
            let word = Record::second_word(record.key_length, record.kind, record.flags, self.clear_epoch());
            self.region.fill(space.at + 8, word);
        }
    }

    fn is_renewed(&self, space: &Space) -> bool {
        if let Some(epoch) = Record::untagged_epoch(self.region.word(space.at + 8).load(Acquire)) {
            return epoch == self.clear_epoch();
        }
        // What reads as no record was changed by foreign bytes, and is found out when it is looked up.
        self.written(space).is_none_or(|record| self.is_current(&record))
    }

    /// The record that this participant has written.
    fn written(&self, space: &Space) -> Option<Record> {
        Record::read(&self.region, space.at, self.region.geometry.segment(space.segment + 1))
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
    pub(crate) fn put(&self, key: &Key, space: &Space, kind: Kind, existing: Option<&Hit>) -> bool {
        let (entry_at, from) = existing.map_or_else(|| self.roomiest(key), |hit| (hit.entry_at, hit.entry));
        // Read before the swap: afterwards nothing keeps the old record where it is.
        let victim = if existing.is_none() && from.is_live() { resolve(&self.region, entry_at, from) } else { None };
        if let Some(replaced) = existing.or(victim.as_ref()) {
            self.retire_chunks(replaced);
        }
        self.set_evicting(victim.is_some());
        // Only the heat may differ: a record that was moved meanwhile has another entry and is looked at again.
        let stored = replace_any_heat(&self.region, entry_at, from, |seen| {
            let freq = if existing.is_some() { seen.freq() } else { 0 };
            Entry::live(kind, key.hash, space.generation, space.at, freq)
        });
        if stored.is_some() {
            self.add_live(space, Record::claimed_length(&self.region, space));
            if let Some(replaced) = existing.or(victim.as_ref()) {
                self.take_live(replaced.segment, replaced.generation, replaced.record.length);
            }
            if victim.is_some_and(|victim| self.is_live(&victim.record)) {
                self.count(Counter::Evictions, 1);
            }
        }
        self.set_evicting(false);
        stored.is_some()
    }

    /// The way of a bucket that a new entry takes: the ghost of the same key, else an empty one, else the oldest ghost,
    /// else an entry that is a miss already, else the coldest.
    fn roomiest(&self, key: &Key) -> (u32, Entry) {
        let bucket = self.region.geometry.bucket(bucket_of(&self.region.geometry, key.hash));
        let clock = self.ghost_clock();
        let mut best = (bucket, Entry(self.region.word(bucket).load(Acquire)));
        let mut best_worth = u64::MAX;
        for way in 0..WAYS {
            let entry_at = bucket + way * 8;
            let entry = Entry(self.region.word(entry_at).load(Acquire));
            let worth = match entry.kind() {
                Kind::Ghost if entry.tag() == key.hash >> 48 => 0,
                Kind::Empty => 1,
                Kind::Ghost => (1 << 40) - entry.ghost_age(clock),
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
    pub(crate) fn find_locked(&self, key: &Key) -> Result<Option<Hit>, Busy> {
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
            let Some(hit) = self.find_locked(key)? else {
                return Ok(false);
            };
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
}

fn meets(expect: Expect, version: Option<u64>) -> bool {
    match (expect, version) {
        (Expect::Anything, _) | (Expect::Absent, None) | (Expect::Present, Some(_)) => true,
        // An odd version is one that its writer died with: it may belong to another number.
        (Expect::Version(wanted), Some(version)) => wanted == version && version & 1 == 0,
        _ => false,
    }
}
