//! Whether a record is live: it has not expired, and neither a `clear` nor an invalidation of one of its tags came after it
//! was written. `entries/tags.rs` makes the tag block of a record.

use crate::format::header::EXPIRES;
use crate::format::layout::INVALIDATIONS_AT;
use crate::format::record::Record;
use crate::participant::participant::{Host, Participant};
use crate::sync::Acquire;

impl<H: Host> Participant<H> {
    /// Whether nothing has invalidated the record since it was written.
    #[inline]
    pub(crate) fn is_current(&self, record: &Record) -> bool {
        record.clear_epoch == self.clear_epoch()
            && record.tag_snapshots(&self.region).all(|(counter, snapshot)| {
                // Acquire: pairs with the increment in `invalidate`.
                self.region.word(self.region.geometry.tag_counter(counter)).load(Acquire) as u32 == snapshot
            })
    }

    /// The global invalidation sequence: how many invalidations there were, modulo 2³².
    pub fn invalidations(&self) -> u32 {
        // Acquire: pairs with the increment in `invalidate`.
        self.region.word(INVALIDATIONS_AT).load(Acquire) as u32
    }

    /// Whether one of the record's tags was invalidated after the global invalidation sequence was `start`, as far as the
    /// snapshots of the record tell. They tell it of everything that comes before the record was renewed.
    pub(crate) fn invalidated_since(&self, record: &Record, start: u32) -> bool {
        let now = self.invalidations();
        record.tag_snapshots(&self.region).any(|(_, latest)| now.wrapping_sub(latest) < now.wrapping_sub(start))
    }

    /// Whether a lookup of the record is a hit: nothing has invalidated it, and it has not expired.
    pub(crate) fn is_live(&self, record: &Record) -> bool {
        self.is_current(record) && !(record.has(EXPIRES) && record.expiry(&self.region) <= self.host.now())
    }
}
