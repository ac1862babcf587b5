//! Changing what is there: counting, and another expiry. Numbers that are counted change in place; everything else is
//! copied with the change, because a record does not change.

use crate::log::append::Purpose;
use crate::index::probe::{Entry, Hit, Key, Kind, Probe, probe, replace_any_heat, still, warm};
use crate::format::layout::Counter;
use crate::participant::lock::Busy;
use crate::participant::participant::{Host, Participant};
use crate::format::record::{CHUNKED, EXPIRES, HEADER, Record, Space, first_word, length_field, words};
use crate::entries::store::{Draft, Refused, TRIES};
use crate::sync::{Acquire, Relaxed, SeqCst};
use crate::entries::tags::Block;

/// The type byte of a number: the one type the engine itself understands, because it counts.
pub const NUMBER: u8 = 1;

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

impl<H: Host> Participant<H> {
    /// Adds to the number at `key`, or makes it `initial + by`. Numbers that are counted live in mutable records, where
    /// adding is one store; a number that was `set` becomes one with its first increment.
    pub fn increment(&self, key: &Key, by: f64, initial: f64, expiry: f64, tags: &Block) -> Result<f64, Refused> {
        if let Some(sum) = self.increment_in_place(key, by)? {
            return Ok(sum);
        }
        let fresh = Draft { kind: NUMBER, flags: 0, version: self.version(), expiry, tags, value: &[0; 8] };
        let sum =
            self.rewrite(key, fresh.bytes(key), |space| self.increment_locked(key, by, initial, &fresh, space))?;
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
    pub(crate) fn settle_version(&self, hit: Option<&Hit>) {
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
                    self.renew(space);
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
            let Some(hit) = self.find_locked(key)?.filter(|hit| self.is_live(&hit.record)) else {
                return Ok(false);
            };
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
}

fn is_number(record: &Record) -> bool {
    record.kind == NUMBER && record.value_length == 8 && !record.has(CHUNKED)
}
