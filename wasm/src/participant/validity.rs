//! What a record is worth. It is *fresh*, and so a hit, if it has not expired, and neither a `clear`, nor an invalidation or an
//! expiry of one of its tags came after it was written. A record that has expired, by itself or by a tag, is *stale* for its
//! grace: it is a miss, but who asks for stale values may have it, and reclaiming keeps it. `entries/tags.rs` makes the tag block
//! of a record, and draws a tag's counter.
//!
//! ```text
//! written        expires: the earliest of its expiry         expires + grace
//! │   fresh      │ and the times of its expired tags  stale  │  gone
//! ```

use crate::format::header::{EXPIRES, GRACE};
use crate::format::layout::{INVALIDATIONS_AT, TAG_EXPIRED_AT};
use crate::format::record::Record;
use crate::participant::participant::{Host, Participant};
use crate::sync::{Acquire, SeqCst};

/// Whether a record is worth its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// Fresh, or stale and within its grace.
    Usable,
    /// Its grace is over, if it ever had one.
    Expired,
    /// Cleared or invalidated.
    Invalidated,
}

impl<H: Host> Participant<H> {
    /// Whether nothing has invalidated the record or expired one of its tags since it was written.
    #[inline]
    pub(crate) fn is_current(&self, record: &Record) -> bool {
        record.clear_epoch == self.clear_epoch()
            && record.tag_snapshots(&self.region).all(|(counter, snapshot)| self.counter(counter) == snapshot)
    }

    /// The sequences in a counter: of the latest invalidation in the low half, of the latest `expire_tags` in the high half.
    #[inline(always)]
    fn counter(&self, counter: u32) -> u64 {
        // Acquire: pairs with the compare-and-swap in `mark`.
        self.region.word(self.region.geometry.tag_counter(counter)).load(Acquire)
    }

    /// A time of a counter, in milliseconds: `TAG_INVALIDATED_AT` or `TAG_EXPIRED_AT`.
    pub(crate) fn tag_time(&self, counter: u32, time_at: u32) -> f64 {
        // Acquire: pairs with `mark`. A reader that has seen the sequence of an event sees its time, or a later one.
        f64::from_bits(self.region.word(self.region.geometry.tag_counter(counter) + time_at).load(Acquire))
    }

    /// Whether a lookup of the record is a hit: the record is fresh.
    pub(crate) fn is_live(&self, record: &Record) -> bool {
        self.is_current(record) && !(record.has(EXPIRES) && record.expiry(&self.region) <= self.host.now())
    }

    /// Whether the record is fresh, or stale and within its grace.
    #[cold]
    pub(crate) fn is_usable(&self, record: &Record) -> bool {
        self.standing(record, || self.host.now()) == Standing::Usable
    }

    /// What a record is worth; asks for the time at most once, and only if it can make a difference.
    pub(crate) fn standing(&self, record: &Record, now: impl FnOnce() -> f64) -> Standing {
        if record.clear_epoch != self.clear_epoch() {
            return Standing::Invalidated;
        }
        let mut expires = record.expiry(&self.region);
        let mut expired = false;
        for (counter, snapshot) in record.tag_snapshots(&self.region) {
            let sequences = self.counter(counter);
            if sequences as u32 != snapshot as u32 {
                return Standing::Invalidated;
            }
            if sequences != snapshot {
                expired = true;
                expires = expires.min(self.tag_time(counter, TAG_EXPIRED_AT));
            }
        }
        // Without a grace the time of an expired tag does not count: another participant's clock has told it.
        if expired && !record.has(GRACE) {
            return Standing::Expired;
        }
        // Not `>=`, so that foreign bytes which are no number count as expired.
        let usable = expires == f64::INFINITY || now() < expires + record.grace(&self.region);
        if usable { Standing::Usable } else { Standing::Expired }
    }

    /// The present invalidation sequence of the region: how many invalidations and expiries of tags there were, modulo 2³².
    pub fn invalidations(&self) -> u32 {
        // Sequentially consistent: pairs with `mark`.
        self.region.word(INVALIDATIONS_AT).load(SeqCst) as u32
    }

    /// Whether a tag of the record was invalidated or expired after the invalidation sequence was `start`. Sequences are
    /// compared by their distance to the present one, so that they may wrap around: a counter that nobody has marked for 2³²
    /// invalidations can answer with a wrong `true`.
    pub(crate) fn invalidated_since(&self, record: &Record, start: u32) -> bool {
        // The counters are loaded before the present sequence, so the sequences in them are not later than the present one. Both
        // loads are sequentially consistent: they pair with `mark`, which takes a sequence before it writes it to a counter.
        record.tag_snapshots(&self.region).any(|(counter, _)| {
            let sequences = self.region.word(self.region.geometry.tag_counter(counter)).load(SeqCst);
            let now = self.invalidations();
            let is_later = |sequence: u32| now.wrapping_sub(sequence) < now.wrapping_sub(start);
            is_later(sequences as u32) || is_later((sequences >> 32) as u32)
        })
    }
}
