//! The lock of a bucket: one word, taken by one compare-and-swap that also says who took it and in which incarnation.
//! Readers never look at it, but for those that want a proof for their near cache.
//!
//! ```text
//! control  63       48 47             16 15      0
//!          │ owner + 1 │ owner's epoch   │ ticket │        owner 0 is free
//! ```
//!
//! When the holder vanishes, its lock is stolen by whoever needs it next, and only with proof: either the holder's slot
//! has another epoch by now (it was reaped, or left), or the host proves its death here and it is reaped. A holder that
//! is alive but frozen is never robbed: that would be memory-safe, but when it woke up its compare-and-swap could bring
//! an old value back. Everything done under the lock is one word at a time, so the thief finds a valid bucket.

use crate::index::probe::bucket_of;
use crate::format::layout::BUCKET_CONTROL;
use crate::participant::participant::{Host, Participant};
use crate::sync::{AcqRel, Acquire, Relaxed, Release, spin};

/// Polls before asking whether the holder is alive; a critical section is well under a microsecond.
const SPINS: u32 = if cfg!(feature = "faults") { 4 } else { 200 };

/// Another participant holds what is needed and did not let go in time.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Control(u64);

impl Control {
    fn owner(self) -> Option<u32> {
        ((self.0 >> 48) as u32).checked_sub(1)
    }

    fn epoch(self) -> u32 {
        (self.0 >> 16) as u32
    }

    fn held_by(self, slot: u32, epoch: u32) -> Control {
        Control((slot as u64 + 1) << 48 | (epoch as u64) << 16 | (self.0.wrapping_add(1) & 0xFFFF))
    }

    fn free(self) -> Control {
        Control(self.0 & 0xFFFF)
    }
}

/// A held bucket lock. Deliberately no destructor: a participant that dies runs none, so nothing may depend on one.
#[must_use = "a lock that is not unlocked stays held until its owner leaves"]
pub struct Held {
    control_at: u32,
    control: Control,
}

impl<H: Host> Participant<H> {
    /// Locks the bucket of `hash`. Ends because the host limits the waiting.
    pub(crate) fn lock(&self, hash: u64) -> Result<Held, Busy> {
        let mut attempt = 0;
        loop {
            if let Ok(held) = self.lock_briefly(hash) {
                return Ok(held);
            }
            if !self.host.pause(attempt) {
                return Err(Busy);
            }
            attempt += 1;
        }
    }

    /// Locks the bucket of `hash` if its holder lets go at once, or is dead: for whoever has something else to do.
    pub(crate) fn lock_briefly(&self, hash: u64) -> Result<Held, Busy> {
        let geometry = &self.region.geometry;
        let control_at = geometry.bucket(bucket_of(geometry, hash)) + BUCKET_CONTROL;
        let word = self.region.word(control_at);
        let mut holder = None;
        for spins in 0..2 * SPINS {
            let seen = Control(word.load(Relaxed));
            let free = match seen.owner() {
                None => true,
                // Left over from an operation of this thread that was cut short: a thread never waits for itself.
                Some(owner) => owner == self.slot || self.is_gone(owner, seen.epoch()),
            };
            if free {
                let mine = seen.held_by(self.slot, self.epoch.get());
                // Acquire: meets the release of `unlock`.
                if word.compare_exchange_weak(seen.0, mine.0, AcqRel, Relaxed).is_ok() {
                    return Ok(Held { control_at, control: mine });
                }
            }
            holder = seen.owner().or(holder);
            // In the middle, so that there is another try after the funeral.
            if spins == SPINS && !holder.is_some_and(|holder| self.bury(holder)) {
                break;
            }
            spin();
        }
        Err(Busy)
    }

    /// Whether nobody holds the lock of a bucket.
    #[inline(always)]
    pub(crate) fn is_unlocked(&self, bucket: u32) -> bool {
        // Acquire: meets the release of `unlock`.
        Control(self.region.word(self.region.geometry.bucket(bucket) + BUCKET_CONTROL).load(Acquire)).owner().is_none()
    }

    #[inline(always)]
    pub(crate) fn unlock(&self, held: Held) {
        // Release: everything done under the lock comes first. A plain store, as nobody robs the living.
        self.region.word(held.control_at).store(held.control.free().0, Release)
    }
}
