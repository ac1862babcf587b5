//! The lock of a bucket: one word, taken by one compare-and-swap that also says who took it, and in which incarnation.
//! Writers take it, and reclaimers for mutable entries. Lookups ignore it, except for those that want a proof for a near cache
//! (`Participant::find`).
//!
//! ```text
//! control  63       48 47                  16 15         14        13      0
//!          │ owner + 1 │ owner's incarnation │ WAITED_FOR │ CLAIMED │ ticket │        owner + 1 = 0: the lock is free
//! ```
//!
//! The two flags survive locking and unlocking. CLAIMED: the load of a key of this bucket may be claimed. WAITED_FOR: somebody
//! may wait for a key of this bucket. They are changed under the lock only, and a flag is set before the lock is free again. So a
//! flag may be set without need, but never missing. A flag without need costs a scan, and that scan removes it.
//!
//! When the holder vanishes, the next participant that needs the lock steals it, and only with proof: either the holder's
//! seat has another incarnation (the holder left, or was reaped), or the host proves the death and the holder is reaped now.
//! The lock of a holder that is alive but frozen is never stolen. Stealing it would be memory-safe, but when the holder wakes
//! up, its compare-and-swap could bring an old value back. Everything done under the lock changes one word at a time, so the
//! thief finds a valid bucket.

use crate::format::layout::{BUCKET_CONTROL, MAX_SIZE, participants};
use crate::index::key::bucket_of;
use crate::participant::participant::{Host, Participant};
use crate::sync::{AcqRel, Acquire, Relaxed, Release, spin};

/// Polls before the host is asked whether the holder is alive. A critical section takes well under a microsecond.
const SPINS: u32 = if cfg!(feature = "faults") { 4 } else { 200 };

/// A living participant holds what the caller needs, and has not let go of it in time.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Control(u64);

impl Control {
    const OWNER_SHIFT: u32 = 48;
    const INCARNATION_SHIFT: u32 = 16;
    const WAITED_FOR: u64 = 1 << 15;
    const CLAIMED: u64 = 1 << 14;
    const FLAGS: u64 = Control::WAITED_FOR | Control::CLAIMED;
    const TICKET_MASK: u64 = Control::CLAIMED - 1;

    /// The seat of the holder; `None` when the lock is free.
    fn owner(self) -> Option<u32> {
        ((self.0 >> Control::OWNER_SHIFT) as u32).checked_sub(1)
    }

    fn incarnation(self) -> u32 {
        (self.0 >> Control::INCARNATION_SHIFT) as u32
    }

    /// The same lock held, with the next ticket and the same flags. Because of the ticket, the word differs each time the lock
    /// is taken.
    fn held_by(self, seat: u32, incarnation: u32) -> Control {
        Control(
            (seat as u64 + 1) << Control::OWNER_SHIFT
                | (incarnation as u64) << Control::INCARNATION_SHIFT
                | (self.0 & Control::FLAGS)
                | (self.0.wrapping_add(1) & Control::TICKET_MASK),
        )
    }

    fn free(self) -> Control {
        Control(self.0 & (Control::FLAGS | Control::TICKET_MASK))
    }
}

// The fields are as drawn, side by side, and wide enough for every seat.
const _: () = assert!(
    Control::WAITED_FOR << 1 == 1 << Control::INCARNATION_SHIFT && Control::CLAIMED << 1 == Control::WAITED_FOR
);
const _: () = assert!(Control::INCARNATION_SHIFT + u32::BITS == Control::OWNER_SHIFT);
const _: () = assert!(participants(MAX_SIZE) < 1 << (u64::BITS - Control::OWNER_SHIFT));

/// A held bucket lock. It has no destructor on purpose: a participant that dies runs none, so nothing may depend on one.
#[must_use = "a lock that is not unlocked stays held until its owner leaves"]
pub struct Held {
    control_at: u32,
    control: Control,
}

impl Held {
    /// Whether the load of a key of the bucket may be claimed.
    #[inline(always)]
    pub(crate) fn is_claimed(&self) -> bool {
        self.control.0 & Control::CLAIMED != 0
    }

    /// Says whether the load of a key of the bucket may be claimed, from the moment on at which the lock is free again.
    pub(crate) fn set_claimed(&mut self, claimed: bool) {
        self.put_flag(Control::CLAIMED, claimed)
    }

    /// Whether somebody may wait for a key of the bucket.
    #[inline(always)]
    pub(crate) fn is_waited_for(&self) -> bool {
        self.control.0 & Control::WAITED_FOR != 0
    }

    /// Says whether somebody may wait for a key of the bucket, from the moment on at which the lock is free again.
    pub(crate) fn set_waited_for(&mut self, waited_for: bool) {
        self.put_flag(Control::WAITED_FOR, waited_for)
    }

    fn put_flag(&mut self, flag: u64, value: bool) {
        self.control.0 = if value { self.control.0 | flag } else { self.control.0 & !flag };
    }
}

/// A lock of a bucket that is held, as [`Participant::next_locked`] found it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockedBucket {
    pub bucket: u32,
    /// The seat of the holder. Foreign bytes may name any.
    pub seat: u32,
    /// Whether the holder has left, so that whoever needs the lock takes it.
    pub gone: bool,
    /// Another number each time the lock is taken, modulo 2¹⁴.
    pub ticket: u32,
}

impl<H: Host> Participant<H> {
    fn control_at(&self, bucket: u32) -> u32 {
        self.region.geometry.bucket(bucket) + BUCKET_CONTROL
    }

    /// Locks the bucket of `hash`. Ends because the host limits the waiting.
    #[inline(always)]
    pub(crate) fn lock(&self, hash: u64) -> Result<Held, Busy> {
        self.lock_briefly(hash).or_else(|Busy| self.lock_patiently(hash))
    }

    #[cold]
    fn lock_patiently(&self, hash: u64) -> Result<Held, Busy> {
        let mut attempt = 0;
        while self.host.pause(attempt) {
            if let Ok(held) = self.lock_briefly(hash) {
                return Ok(held);
            }
            attempt += 1;
        }
        Err(Busy)
    }

    /// Locks the bucket of `hash` if it is free, or if its holder soon unlocks it or is dead. For callers that can do
    /// something else instead of waiting.
    pub(crate) fn lock_briefly(&self, hash: u64) -> Result<Held, Busy> {
        let control_at = self.control_at(bucket_of(&self.region.geometry, hash));
        let word = self.region.word(control_at);
        let mut holder = None;
        for spins in 0..2 * SPINS {
            let seen = Control(word.load(Relaxed));
            let free = match seen.owner() {
                None => true,
                // A lock that names this seat was left by an operation that was cut short, or by an earlier owner of the seat:
                // no operation holds one lock while it takes another.
                Some(owner) => owner == self.seat || self.is_gone(owner, seen.incarnation()),
            };
            if free {
                let mine = seen.held_by(self.seat, self.incarnation.get());
                // Acquire: pairs with the Release in `unlock`.
                if word.compare_exchange_weak(seen.0, mine.0, AcqRel, Relaxed).is_ok() {
                    return Ok(Held { control_at, control: mine });
                }
            }
            holder = seen.owner().or(holder);
            // Asked in the middle of the polls, so that the lock is tried again after its holder was reaped.
            if spins == SPINS && !holder.is_some_and(|holder| self.reap_if_dead(holder)) {
                break;
            }
            spin();
        }
        Err(Busy)
    }

    /// The bucket whose lock is held.
    pub(crate) fn bucket_of(&self, held: &Held) -> u32 {
        self.region.geometry.bucket_at(held.control_at)
    }

    /// Whether nobody holds the lock of a bucket.
    #[inline(always)]
    pub(crate) fn is_unlocked(&self, bucket: u32) -> bool {
        // Acquire: pairs with the Release in `unlock`.
        Control(self.region.word(self.control_at(bucket)).load(Acquire)).owner().is_none()
    }

    /// The first bucket from `bucket` on whose lock is held. It may be free again when this returns.
    pub fn next_locked(&self, bucket: u32) -> Option<LockedBucket> {
        (bucket..self.region.geometry.buckets).find_map(|bucket| {
            let control = Control(self.region.word(self.control_at(bucket)).load(Relaxed));
            let seat = control.owner()?;
            let gone = self.is_gone(seat, control.incarnation());
            Some(LockedBucket { bucket, seat, gone, ticket: (control.0 & Control::TICKET_MASK) as u32 })
        })
    }

    #[inline(always)]
    pub(crate) fn unlock(&self, held: Held) {
        // Release: pairs with the Acquire in `lock_briefly` and `is_unlocked`; everything done under the lock comes before.
        // A plain store is enough, because the lock of a living holder is never stolen.
        self.region.word(held.control_at).store(held.control.free().0, Release)
    }
}
