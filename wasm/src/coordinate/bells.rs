//! Waiting for changes. A participant that waits sets a bit in the `interest` of its seat, for the class of the bucket, and the
//! flag WAITED_FOR in the control word of the bucket. Both happen under the lock of the bucket. A change holds the same lock, so it
//! comes before the registration, and then the waiter sees it when it looks afterwards; or it comes after the registration, and then
//! it rings. No wake-up is lost in between.
//!
//! To ring is to raise `ringing` in the seat from 0 to 1. Whoever raised it lists the seat, and the caller in JavaScript wakes the
//! thread, outside of all locks. A seat that is ringing already was listed by another participant. The receiver sets `ringing` to
//! 0 before it looks at its keys. A participant that dies between raising and waking has lost a wake-up: therefore whoever waits
//! also looks by itself now and then.

use crate::index::key::{Key, bucket_of};
use crate::participant::lock::{Busy, Held};
use crate::participant::participant::{Host, Participant};
use crate::sync::{Relaxed, SeqCst, fence};

/// The class of a bucket: the bit of an interest that stands for it.
pub(crate) fn class_of(bucket: u32) -> u32 {
    bucket % u64::BITS
}

impl<H: Host> Participant<H> {
    /// Registers this participant as one that waits for changes of `key`. The caller looks at the key afterwards. Returns the class,
    /// whose bit the caller takes back when it waits for no key of that class any more.
    pub fn wait(&self, key: &Key) -> Result<u32, Busy> {
        let mut held = self.lock(key.hash)?;
        self.register(&mut held);
        self.unlock(held);
        Ok(class_of(bucket_of(&self.region.geometry, key.hash)))
    }

    /// Registers this participant as one that waits for changes in the bucket whose lock is held.
    #[inline(never)]
    pub(crate) fn register(&self, held: &mut Held) {
        let interest = self.interest_of(self.seat);
        // Only this participant writes to it. Both are sequentially consistent: they pair with the change and the load in
        // `ring_all`. Either the change is seen by the look that follows, or the interest is seen by `ring_all`.
        interest.store(interest.load(Relaxed) | 1 << class_of(self.bucket_of(held)), SeqCst);
        fence(SeqCst);
        held.set_waited_for(true);
    }

    /// After a change of a key in the bucket whose lock is held: rings all who wait for it.
    #[inline(always)]
    pub(crate) fn ring(&self, held: &mut Held) {
        if held.is_waited_for() {
            self.ring_class(held)
        }
    }

    #[cold]
    fn ring_class(&self, held: &mut Held) {
        let class = 1 << class_of(self.bucket_of(held));
        let mut any = false;
        for seat in 0..self.used_seats() {
            // Relaxed: the lock orders it after the registration.
            if self.interest_of(seat).load(Relaxed) & class != 0 {
                any = true;
                self.ring_seat(seat);
            }
        }
        held.set_waited_for(any);
    }

    /// After a change that no lock of a bucket orders: rings everybody who waits for anything. The change and the load are
    /// sequentially consistent: they pair with `register`.
    #[inline(never)]
    pub(crate) fn ring_all(&self) {
        for seat in 0..self.used_seats() {
            if self.interest_of(seat).load(SeqCst) != 0 {
                self.ring_seat(seat);
            }
        }
    }

    /// Rings a seat. False when it is being rung already, and has not looked since.
    #[inline(never)]
    pub(crate) fn ring_seat(&self, seat: u32) -> bool {
        // Sequentially consistent: pairs with the store of 0 by the receiver, which then looks at its keys. When this finds 1, that
        // store comes later, and so the receiver's look sees the change.
        let first = self.ringing_of(seat).fetch_max(1, SeqCst) == 0;
        if first {
            // There is room, unless calls were cut off before their bells were rung. Then a ring is lost, as after a death.
            if let Some(bell) = self.bells.get(self.bells_listed.get()) {
                bell.set(seat as u16);
                self.bells_listed.set(self.bells_listed.get() + 1);
            }
        }
        first
    }

    /// Takes a seat from the list of those whose bells the caller has to ring.
    pub fn next_bell(&self) -> Option<u32> {
        let last = self.bells_listed.get().checked_sub(1)?;
        self.bells_listed.set(last);
        self.bells.get(last).map(|bell| bell.get() as u32)
    }

    /// Whether the list is not empty.
    #[inline(always)]
    pub fn has_bells(&self) -> bool {
        self.bells_listed.get() > 0
    }
}
