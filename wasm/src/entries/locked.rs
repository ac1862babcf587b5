//! The entry of a key while its bucket is locked. No other writer can change entries of the bucket then. Reclaiming may still
//! move or drop plain entries, and reads may raise the heat of entries.

use crate::format::record::CHANGING;
use crate::index::entry::Entry;
use crate::index::key::{Key, bucket_of};
use crate::index::probe::{Hit, Probe, entries_of, is_valid, load_entry, probe, replace_any_heat, resolve};
use crate::participant::lock::Busy;
use crate::participant::participant::{Host, Participant};
use crate::sync::{Acquire, SeqCst};

/// Attempts to change an entry under the lock of its bucket. Only reclaiming and rising heat can interfere, a few times
/// each.
pub(crate) const ATTEMPTS: u32 = 64;

impl<H: Host> Participant<H> {
    /// The entry of `key`. Removes entries on the way that point nowhere, because of foreign bytes.
    pub(crate) fn find_locked(&self, key: &Key) -> Result<Option<Hit>, Busy> {
        for _ in 0..ATTEMPTS {
            match probe(&self.region, key) {
                Probe::Hit(hit) if is_valid(&self.region, &hit) => return Ok(Some(hit)),
                Probe::Hit(_) => {}
                Probe::Absent => return Ok(None),
                Probe::Unsettled => self.remove_dangling(key.hash),
            }
        }
        Err(Busy)
    }

    /// Removes the entries of a bucket that point nowhere. By the invariant of the index, an entry that still stands after
    /// its segment was seen in another life was not written by the engine: it is foreign bytes.
    #[cold]
    fn remove_dangling(&self, hash: u64) {
        let geometry = &self.region.geometry;
        for entry_at in entries_of(geometry, bucket_of(geometry, hash)) {
            let entry = load_entry(&self.region, entry_at);
            if entry.is_live() && resolve(&self.region, entry_at, entry).is_none() {
                replace_any_heat(&self.region, entry_at, entry, |_| Entry::EMPTY);
            }
        }
    }

    /// Gives a number in a mutable record a new version when its last writer died while it changed the number.
    pub(crate) fn settle_version(&self, hit: Option<&Hit>) {
        if let Some(hit) = hit.filter(|hit| hit.entry.is_mutable()) {
            let version = self.region.word(hit.record.version_at());
            if version.load(Acquire) & CHANGING != 0 {
                version.store(self.version(), SeqCst);
            }
        }
    }
}
