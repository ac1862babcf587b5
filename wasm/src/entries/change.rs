//! Changing entries: incrementing numbers, and setting another expiry. Numbers in mutable records are incremented in place.
//! The first increment of a number that was `set`, every `touch` and every `expire` write a changed copy of the record.

use crate::entries::draft::Draft;
use crate::entries::locked::ATTEMPTS;
use crate::entries::store::Refused;
use crate::entries::tags::Block;
use crate::format::header::{CHUNKED, EXPIRES, GRACE, LengthField, SecondWord};
use crate::format::layout::Counter;
use crate::format::record::{CHANGING, HEADER, Record, Space, header_bytes, optional_flags, words};
use crate::index::entry::{Entry, EntryState};
use crate::index::key::Key;
use crate::index::probe::{Hit, Probe, is_valid, probe, replace_any_heat, warm};
use crate::log::append::Purpose;
use crate::participant::lock::{Busy, Held};
use crate::participant::participant::{Host, Participant};
use crate::sync::{Relaxed, SeqCst};

/// The value type of a number: the only value type that the engine itself reads, because it adds to numbers.
pub const NUMBER: u8 = 1;

/// The most that a copy with an expiry can need beyond the length of the original: the expiry, rounded up to `GRAIN`.
const GROWTH: u32 = 16;

/// What [`Participant::increment`] adds, and where the sum has to be.
#[derive(Clone, Copy, Debug)]
pub struct Addition {
    pub by: f64,
    /// What an absent number counts from.
    pub initial: f64,
    pub min: f64,
    pub max: f64,
}

impl Addition {
    /// The sum with `number`. NaN is outside of every range.
    fn to(&self, number: f64) -> Result<f64, Refused> {
        let sum = number + self.by;
        if sum >= self.min && sum <= self.max { Ok(sum) } else { Err(Refused::OutOfRange) }
    }
}

/// A number after an increment, and its entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sum {
    pub value: f64,
    pub version: u64,
    pub expiry: f64,
}

/// Why nothing was written into the space reserved for it.
pub(crate) enum Unfit {
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

impl<H: Host> Participant<H> {
    /// Adds to the number at `key`, or stores `initial + by`. Numbers that are incremented live in mutable records, where they
    /// change in place. A number that was `set` moves to a mutable record with its first increment. `Refused::OutOfRange` when
    /// the sum is outside of `min` and `max`.
    pub fn increment(&self, key: &Key, addition: &Addition, expiry: f64, tags: &Block) -> Result<Sum, Refused> {
        if let Some(sum) = self.increment_in_place(key, addition)? {
            return Ok(sum);
        }
        let version = self.version();
        let fresh = Draft { value_type: NUMBER, flags: 0, version, expiry, grace: 0.0, tags, value: &[0; 8] };
        let sum = self
            .rewrite(key, fresh.bytes(key), |held, space| self.increment_locked(held, key, addition, &fresh, space))?;
        self.count(Counter::Sets, 1);
        Ok(sum)
    }

    /// Calls `act` under the lock of `key`'s bucket, with reserved space: for `bytes`, or for a copy of the entry's record
    /// with an expiry, whichever is more. Reserves more space when another participant makes the entry longer meanwhile.
    pub(crate) fn rewrite<T>(
        &self,
        key: &Key,
        bytes: u64,
        act: impl Fn(&mut Held, &Space) -> Result<T, Unfit>,
    ) -> Result<T, Refused> {
        let max_record = self.region.geometry.max_record;
        let mut bytes = bytes;
        if let Probe::Hit(hit) = probe(&self.region, key) {
            bytes = bytes.max((hit.record.length + GROWTH).min(max_record) as u64);
        }
        for _ in 0..ATTEMPTS {
            self.check_size(bytes)?;
            let space = self.reserve(self.class_for(key), LengthField::of(bytes as u32), Purpose::Write)?;
            let result = self.lock(key.hash).map_err(Unfit::from).and_then(|mut held| {
                let result = act(&mut held, &space);
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

    /// Adds to the number at `key` if it is in a mutable record; `None` when there is no live number in a mutable record.
    fn increment_in_place(&self, key: &Key, addition: &Addition) -> Result<Option<Sum>, Refused> {
        // Without a number in a mutable record there is no reason to lock.
        match probe(&self.region, key) {
            Probe::Absent => return Ok(None),
            Probe::Hit(hit) if !hit.entry.is_mutable() && is_number(&hit.record) => return Ok(None),
            _ => {}
        }
        let mut held = self.lock(key.hash)?;
        let result = match self.find_locked(key) {
            Ok(Some(hit)) if self.is_live(&hit.record) => {
                if !is_number(&hit.record) {
                    Err(Refused::NotANumber)
                } else if hit.entry.is_mutable() {
                    self.add(&mut held, key, &hit, addition).map(Some)
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

    /// Adds to a number in a mutable record whose bucket is locked.
    fn add(&self, held: &mut Held, key: &Key, hit: &Hit, addition: &Addition) -> Result<Sum, Refused> {
        let word = self.region.word(hit.record.value_at);
        let value = addition.to(f64::from_bits(word.load(Relaxed)))?;
        let version = self.in_new_version(held, key, hit, || word.store(value.to_bits(), SeqCst));
        Ok(Sum { value, version, expiry: hit.record.expiry(&self.region) })
    }

    /// Calls `store`, which changes the mutable record of `key` whose bucket is locked, and gives the record a new version. The
    /// version has the CHANGING bit meanwhile, so that no reader takes the old value for that of the new version. A participant
    /// that dies in between leaves the bit set, and the next change or [`Participant::settle_version`] stores a version without
    /// it.
    ///
    /// Readers see the store of the bit, each store of `store`, which are SeqCst, and the store of the version in this order.
    /// They pair with three reads in `lookup`: an Acquire load of the version, `copy_out` of the value, which ends with a
    /// fence, and a second Acquire load of the version.
    pub(crate) fn in_new_version(&self, held: &mut Held, key: &Key, hit: &Hit, store: impl FnOnce()) -> u64 {
        self.overtake(held, key.hash);
        let version = self.region.word(hit.record.version_at());
        let next = self.version();
        version.store(next | CHANGING, SeqCst);
        store();
        version.store(next, SeqCst);
        warm(&self.region, hit.entry_at, hit.entry);
        self.ring(held);
        next
    }

    fn increment_locked(
        &self,
        held: &mut Held,
        key: &Key,
        addition: &Addition,
        fresh: &Draft,
        space: &Space,
    ) -> Result<Sum, Unfit> {
        for _ in 0..ATTEMPTS {
            let existing = self.find_locked(key)?;
            let live = existing.filter(|hit| self.is_live(&hit.record));
            let sum = match &live {
                None => {
                    let sum = addition.to(addition.initial)?;
                    let value = sum.to_bits().to_le_bytes();
                    let draft = Draft { value: &value, ..*fresh };
                    self.write(space, key, &draft);
                    space.shrink(&self.region, draft.bytes(key) as u32);
                    self.renew(space);
                    Sum { value: sum, version: fresh.version, expiry: fresh.expiry }
                }
                Some(hit) if !is_number(&hit.record) => return Err(Refused::NotANumber.into()),
                // Another participant has moved the number to a mutable record meanwhile. The reserved space stays dead.
                Some(hit) if hit.entry.is_mutable() => return Ok(self.add(held, key, hit, addition)?),
                Some(hit) => {
                    let sum = addition.to(f64::from_bits(self.region.word(hit.record.value_at).load(Relaxed)))?;
                    let expiry = hit.record.expiry(&self.region);
                    let Some(copy) = self.copy_record(hit, space, expiry, fresh.version)? else {
                        continue;
                    };
                    self.region.fill(copy.value_at, sum.to_bits());
                    Sum { value: sum, version: fresh.version, expiry }
                }
            };
            self.overtake(held, key.hash);
            if self.put(key, space, EntryState::Mutable, existing.as_ref()) {
                self.ring(held);
                return Ok(sum);
            }
        }
        Err(Refused::Busy.into())
    }

    /// Writes a copy of a record with another expiry and version, and the same grace, into reserved space, if it fits. `None` when the entry has left
    /// its record meanwhile. Whatever the caller has read of the record before this call is then not its own, either. The swap
    /// of the entry alone does not show that: it sees too few bits of the generation.
    fn copy_record(&self, hit: &Hit, space: &Space, expiry: f64, version: u64) -> Result<Option<Record>, Unfit> {
        let (region, record) = (&self.region, &hit.record);
        let (tags_at, _) = record.tags();
        let rest = record.value_at + record.value_length - tags_at;
        let grace = record.grace(region);
        let optional = optional_flags(expiry, grace);
        let start = header_bytes(optional);
        if start + words(rest) > space.room {
            return Err(Unfit::Needs(start + words(rest)));
        }
        if optional & EXPIRES != 0 {
            space.fill_optional(region, expiry.to_bits());
        }
        if optional & GRACE != 0 {
            space.fill_grace(region, grace);
        }
        region.copy_within(tags_at, space.at + start, words(rest));
        let flags = record.flags & !(EXPIRES | GRACE) | optional;
        space.fill_second(region, SecondWord::new(record.key_length, record.value_type, flags, record.clear_epoch));
        space.fill_hash_and_version(region, record.hash(region), version);
        space.shrink(region, start + rest);
        // A copy of foreign bytes may be no record. No refusal fits; after `Busy` the caller may try again.
        let copy = space.record(region).ok_or(Refused::Busy)?;
        Ok(is_valid(region, hit).then_some(copy))
    }

    /// Gives the entry of `key` another expiry; false when the entry is absent.
    pub fn touch(&self, key: &Key, expiry: f64) -> Result<bool, Refused> {
        if matches!(probe(&self.region, key), Probe::Absent) {
            return Ok(false);
        }
        self.rewrite(key, HEADER as u64, |_, space| self.touch_locked(key, expiry, space))
    }

    fn touch_locked(&self, key: &Key, expiry: f64, space: &Space) -> Result<bool, Unfit> {
        for _ in 0..ATTEMPTS {
            let Some(hit) = self.find_locked(key)?.filter(|hit| self.is_live(&hit.record)) else {
                return Ok(false);
            };
            if self.put_copy(key, &hit, expiry, space)? {
                return Ok(true);
            }
        }
        Err(Refused::Busy.into())
    }

    /// Lets the entry of `key` point to a copy of its record with another expiry. False when the entry has left its record
    /// meanwhile.
    fn put_copy(&self, key: &Key, hit: &Hit, expiry: f64, space: &Space) -> Result<bool, Unfit> {
        let version = hit.record.version(&self.region);
        let Some(copy) = self.copy_record(hit, space, expiry, version)? else {
            return Ok(false);
        };
        // The chunks of a large value stay where they are, and the copy of the head lists them. Only the bytes of the old
        // head are taken off the live bytes.
        let moved = replace_any_heat(&self.region, hit.entry_at, hit.entry, |entry| {
            Entry::live(entry.state(), key.hash, space.generation, space.at, entry.heat())
        });
        if moved.is_some() {
            self.add_live(space, copy.length);
            self.take_live(hit.segment, hit.generation, hit.record.length);
        }
        Ok(moved.is_some())
    }

    /// Lets the entry of `key` expire at `now`, in milliseconds: from then on it is stale for its grace. An entry without a grace
    /// is removed. False when there was no fresh entry.
    pub fn expire(&self, key: &Key, now: f64) -> Result<bool, Refused> {
        let mut held = self.lock(key.hash)?;
        let expired = self.expire_locked(&mut held, key, now, None);
        self.unlock(held);
        match expired {
            Ok(expired) => Ok(expired),
            Err(Unfit::Refused(refused)) => Err(refused),
            Err(Unfit::Needs(bytes)) => {
                self.rewrite(key, bytes as u64, |held, space| self.expire_locked(held, key, now, Some(space)))
            }
        }
    }

    /// Space is needed only for an entry with a grace.
    fn expire_locked(&self, held: &mut Held, key: &Key, now: f64, space: Option<&Space>) -> Result<bool, Unfit> {
        for _ in 0..ATTEMPTS {
            let fresh = self.find_locked(key)?.filter(|hit| self.is_live(&hit.record));
            // Also without a fresh entry, as in `remove_locked`: a load that has begun before must not store its value as fresh.
            self.overtake(held, key.hash);
            let Some(hit) = fresh else {
                return Ok(false);
            };
            let stays = hit.record.has(GRACE);
            let expired = match space {
                None if stays => return Err(Unfit::Needs(hit.record.length)),
                Some(space) if stays => self.put_copy(key, &hit, now, space)?,
                _ => self.drop_entry(&hit, false),
            };
            if expired {
                self.ring(held);
                if !stays {
                    self.count(Counter::Expirations, 1);
                }
                return Ok(true);
            }
        }
        Err(Refused::Busy.into())
    }
}

fn is_number(record: &Record) -> bool {
    record.value_type == NUMBER && record.value_length == 8 && !record.has(CHUNKED)
}
