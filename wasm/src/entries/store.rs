//! Storing and removing. First a complete record is written into the log, under a hazard. Then, under the lock of one
//! bucket, a single compare-and-swap lets the entry point to it. A participant that dies in between
//! has not changed the index: it leaves dead bytes, a hazard and perhaps a lock.

use crate::entries::draft::Draft;
use crate::entries::locked::ATTEMPTS;
use crate::format::header::{CHUNKED, LengthField};
use crate::format::layout::{Class, Counter};
use crate::format::record::{CHANGING, Record, Space};
use crate::index::entry::{Entry, EntryState};
use crate::index::key::Key;
use crate::index::probe::{Hit, Probe, find_place, is_valid, probe, replace_any_heat, resolve};
use crate::log::append::Purpose;
use crate::participant::lock::{Busy, Held};
use crate::participant::participant::{Host, Participant};

/// What a store or a removal expects to find.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Expect {
    Anything,
    Absent,
    Present,
    /// This version of the entry.
    Version(u64),
    /// This version of the entry, and the expiry that the new record has: the store keeps it, and a `touch` does not change the
    /// version.
    Untouched(u64),
    /// Anything, as long as the claim with this number and this token stands and nothing was invalidated since it was made.
    Claim(u32, u64),
}

/// Whether an entry with this version, or no entry, is as expected.
fn meets(expect: Expect, version: Option<u64>) -> bool {
    match (expect, version) {
        (Expect::Anything | Expect::Claim(..), _) | (Expect::Absent, None) | (Expect::Present, Some(_)) => true,
        // A version with this bit may belong to the old number or to the new one: its writer died while it changed the number.
        (Expect::Version(wanted) | Expect::Untouched(wanted), Some(version)) => {
            wanted == version && version & CHANGING == 0
        }
        _ => false,
    }
}

/// Why nothing was stored.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The entry is not as expected.
    Unexpected,
    /// Too large for a record, or for this cache.
    TooLarge,
    /// The entry is not a number.
    NotANumber,
    /// The sum of an increment is outside of its bounds.
    OutOfRange,
    /// The entry is not a rate limit.
    NotALimit,
    /// The claim of the load was overtaken, or is over.
    Overtaken,
    /// The value was loaded before a `clear`, or before an invalidation of one of its tags.
    Invalidated,
    Busy,
}

impl From<Busy> for Refused {
    fn from(_: Busy) -> Refused {
        Refused::Busy
    }
}

impl<H: Host> Participant<H> {
    /// Stores a complete value. When the store is refused, the old value stays.
    pub fn set(&self, key: &Key, draft: &Draft, expect: Expect) -> Result<(), Refused> {
        self.check_size(draft.bytes(key))?;
        match expect {
            Expect::Anything => {}
            Expect::Claim(number, token) if !self.may_store(key, number, token) => return Err(Refused::Overtaken),
            Expect::Claim(..) => {}
            _ if self.seems_expected(key, expect) => {}
            _ => return Err(Refused::Unexpected),
        }
        let space = self.reserve(self.class_for(key), LengthField::of(draft.bytes(key) as u32), Purpose::Write)?;
        self.write(&space, key, draft);
        let state = if draft.flags & CHUNKED != 0 { EntryState::Mutable } else { EntryState::Plain };
        let stored = self.publish(key, &space, state, expect);
        self.withdraw();
        if stored.is_ok() {
            self.count(Counter::Sets, 1);
        }
        stored
    }

    /// Refuses a record that will use more bytes than any record may.
    pub(crate) fn check_size(&self, bytes: u64) -> Result<(), Refused> {
        if bytes > self.region.geometry.max_record as u64 { Err(Refused::TooLarge) } else { Ok(()) }
    }

    /// Checks the expectation without the lock, so that a store that will be refused costs no space. A wrong `true` is
    /// corrected under the lock.
    fn seems_expected(&self, key: &Key, expect: Expect) -> bool {
        match probe(&self.region, key) {
            Probe::Unsettled => true,
            Probe::Absent => meets(expect, None),
            Probe::Hit(hit) => {
                let version = self.is_live(&hit.record).then(|| hit.record.version(&self.region));
                // A version that is changing may have to be settled, which needs the lock.
                meets(expect, version)
                    || version.is_some_and(|version| version & CHANGING != 0)
                    || !is_valid(&self.region, &hit)
            }
        }
    }

    /// Lets the entry of `key` point to the record in `space`, if the entry that stands is as expected.
    fn publish(&self, key: &Key, space: &Space, state: EntryState, expect: Expect) -> Result<(), Refused> {
        let mut held = self.lock(key.hash)?;
        let published = self.publish_locked(&mut held, key, space, state, expect);
        self.unlock(held);
        published
    }

    fn publish_locked(
        &self,
        held: &mut Held,
        key: &Key,
        space: &Space,
        state: EntryState,
        expect: Expect,
    ) -> Result<(), Refused> {
        for _ in 0..ATTEMPTS {
            self.renew(space);
            let existing = self.find_locked(key)?;
            let live = existing.as_ref().filter(|hit| self.is_live(&hit.record));
            if !meets(expect, live.map(|hit| hit.record.version(&self.region))) {
                self.settle_version(live);
                return Err(Refused::Unexpected);
            }
            if matches!(expect, Expect::Untouched(_)) && live.is_some_and(|hit| self.is_touched(&hit.record, space)) {
                return Err(Refused::Unexpected);
            }
            // A `clear` or an invalidation came after `renew`, so the entry that was found may be a miss by now.
            if !self.is_renewed(space) {
                continue;
            }
            let large = state == EntryState::Mutable;
            if large && !self.has_its_chunks(space) {
                return Err(Refused::Busy);
            }
            match expect {
                Expect::Claim(number, token) if !self.may_store(key, number, token) => return Err(Refused::Overtaken),
                Expect::Claim(number, _) if self.is_outdated(number, space) => return Err(Refused::Invalidated),
                Expect::Claim(..) => {}
                _ => self.overtake(held, key.hash),
            }
            if self.put(key, space, state, existing.as_ref()) {
                if let Expect::Claim(number, _) = expect {
                    self.free_own(number);
                }
                self.ring(held);
                if large && !self.has_its_chunks(space) {
                    self.evict_incomplete(key, space);
                }
                return Ok(());
            }
        }
        Err(Refused::Busy)
    }

    /// Whether a record has another expiry than the one in `space`, which is to keep it.
    #[cold]
    fn is_touched(&self, record: &Record, space: &Space) -> bool {
        space.record(&self.region).is_none_or(|new| new.expiry(&self.region) != record.expiry(&self.region))
    }

    /// Evicts the large value that was just stored: so much was written meanwhile that one of its chunks is gone already.
    #[cold]
    fn evict_incomplete(&self, key: &Key, space: &Space) {
        let place = find_place(&self.region, key.hash, space.at, space.generation);
        if let Some(hit) = place.and_then(|(entry_at, entry)| resolve(&self.region, entry_at, entry)) {
            self.evict(&hit, Class::Main);
        }
    }

    /// Tries once to let the entry of `key` point to `space`, in place of `existing`, or of the way that `choose_way` names.
    /// False when another participant has changed that entry meanwhile.
    pub(crate) fn put(&self, key: &Key, space: &Space, state: EntryState, existing: Option<&Hit>) -> bool {
        let (entry_at, from) = existing.map_or_else(|| self.choose_way(key), |hit| (hit.entry_at, hit.entry));
        // Resolved before the compare-and-swap: afterwards nothing keeps the old record in place.
        let victim = if existing.is_none() && from.is_live() { resolve(&self.region, entry_at, from) } else { None };
        if let Some(replaced) = existing.or(victim.as_ref()) {
            self.retire_chunks(replaced);
        }
        self.set_evicting(victim.is_some());
        // Only the heat may differ. When the record was moved meanwhile, its entry is another one: the caller probes again.
        let stored = replace_any_heat(&self.region, entry_at, from, |seen| {
            let heat = if existing.is_some() { seen.heat() } else { 0 };
            Entry::live(state, key.hash, space.generation, space.at, heat)
        });
        if stored.is_some() {
            self.add_live(space, space.claimed_length(&self.region));
            if let Some(replaced) = existing.or(victim.as_ref()) {
                self.take_live(replaced.segment, replaced.generation, replaced.record.length);
            }
            if victim.is_some_and(|victim| self.is_usable(&victim.record)) {
                self.count(Counter::Evictions, 1);
            }
        }
        self.set_evicting(false);
        stored.is_some()
    }

    /// Removes `key` if its entry is as expected. Whether there was a live entry that was removed.
    pub fn remove(&self, key: &Key, expect: Expect) -> Result<bool, Busy> {
        let mut held = self.lock(key.hash)?;
        let removed = self.remove_locked(&mut held, key, expect);
        self.unlock(held);
        if removed == Ok(true) {
            self.count(Counter::Deletes, 1);
        }
        removed
    }

    fn remove_locked(&self, held: &mut Held, key: &Key, expect: Expect) -> Result<bool, Busy> {
        for _ in 0..ATTEMPTS {
            let found = self.find_locked(key)?;
            let live = found.as_ref().is_some_and(|hit| self.is_live(&hit.record));
            // A removal that finds no live entry still comes after the start of a load, whose value must not be stored.
            if !live && meets(expect, None) {
                self.overtake(held, key.hash);
            }
            let Some(hit) = found else {
                return Ok(false);
            };
            if live && !meets(expect, Some(hit.record.version(&self.region))) {
                self.settle_version(Some(&hit));
                return Ok(false);
            }
            if live {
                self.overtake(held, key.hash);
            }
            if self.drop_entry(&hit, false) {
                self.ring(held);
                return Ok(live);
            }
        }
        Err(Busy)
    }
}
