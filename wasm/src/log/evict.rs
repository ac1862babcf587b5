//! Taking an entry out of the index: its chunks and its record are taken off the live bytes, and it may leave a ghost.

use crate::format::layout::{Class, Counter};
use crate::index::entry::Entry;
use crate::index::probe::{Hit, replace_any_heat};
use crate::participant::participant::{Host, Participant};

impl<H: Host> Participant<H> {
    /// Removes an entry for lack of room. An entry of the small queue leaves a ghost. Mutable entries need their bucket's
    /// lock.
    pub(crate) fn evict(&self, hit: &Hit, class: Class) {
        self.set_evicting(true);
        if self.drop_entry(hit, class == Class::Small) {
            self.count(Counter::Evictions, 1);
        }
        self.set_evicting(false);
    }

    /// Removes an entry; false when it did not stand any more. Mutable entries need their bucket's lock.
    pub(crate) fn drop_entry(&self, hit: &Hit, leave_ghost: bool) -> bool {
        let clock = self.ghost_clock();
        let to = |entry: Entry| if leave_ghost { entry.ghost(clock) } else { Entry::EMPTY };
        self.retire_chunks(hit);
        let dropped = replace_any_heat(&self.region, hit.entry_at, hit.entry, to).is_some();
        if dropped {
            self.take_live(hit.segment, hit.generation, hit.record.length);
        }
        dropped
    }
}
