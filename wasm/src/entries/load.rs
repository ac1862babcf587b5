//! Loading a key: who claims it, and whether what was loaded may still be stored.

use crate::coordinate::claims::{Claim, Making};
use crate::coordinate::locks::{Claimed, FRESH, WAIT};
use crate::format::claim::{ClaimState, Token};
use crate::format::record::Space;
use crate::index::key::Key;
use crate::participant::lock::{Busy, Held};
use crate::participant::participant::{Host, Participant};

impl<H: Host> Participant<H> {
    /// Claims the load of `key`. The lease of the claim ends at `deadline`, `now` is the present time of the same clock. With
    /// `WAIT`, and when another participant loads the key already, this one is registered as one that waits.
    pub fn claim(&self, key: &Key, flags: u32, deadline: f64, now: f64) -> Result<Claimed, Busy> {
        let mut held = self.lock(key.hash)?;
        let claimed = self.claim_locked(&mut held, key, flags, deadline, now);
        self.unlock(held);
        self.claiming.set(None);
        claimed
    }

    fn claim_locked(&self, held: &mut Held, key: &Key, flags: u32, deadline: f64, now: f64) -> Result<Claimed, Busy> {
        if flags & FRESH == 0 && self.find_locked(key)?.is_some_and(|hit| self.is_live(&hit.record)) {
            return Ok(Claimed::Present);
        }
        let other = self.find_claim(key.hash, ClaimState::Loading);
        // After a `clear` the other's result is not stored any more, so nobody has to wait for it.
        let stands =
            |other: &Claim| self.deadline_of_claim(other.number) > now && other.start.clear_epoch == self.clear_epoch();
        if let Some(other) = other.filter(stands) {
            if flags & WAIT != 0 {
                self.flag_claim(other.number, other.token, Token::WAITED);
                self.register(held);
            }
            return Ok(Claimed::Taken(other));
        }
        let state = ClaimState::Loading;
        let making = Making { hash: key.hash, state, deadline, name: &[], overtakes: other };
        // Last, so that the flag is there from the moment on at which the lock is free.
        held.set_claimed(true);
        Ok(self.make(held, &making).map_or(Claimed::Full, Claimed::Claimed))
    }

    /// Whether what was loaded under a claim may be stored: the claim is this participant's, and was not overtaken. The bucket of
    /// the key is locked, or a wrong `true` is corrected later.
    pub(crate) fn may_store(&self, key: &Key, number: u32, token: u64) -> bool {
        self.is_own_claim(number, token)
            && self.hash_of_claim(number) == key.hash
            && !self.claim_token(number).has(Token::OVERTAKEN)
    }

    /// Whether what was loaded is outdated: a `clear`, or an invalidation of one of the record's tags, came after the claim was
    /// made. The record was renewed after the caller began to store it, so it knows of all of them. One that comes later makes the
    /// record a miss.
    pub(crate) fn is_outdated(&self, number: u32, space: &Space) -> bool {
        let start = self.start_of_claim(number);
        let second = space.second(&self.region);
        second.clear_epoch() != start.clear_epoch
            || second.is_tagged()
                && space.record(&self.region).is_some_and(|record| self.invalidated_since(&record, start.sequence))
    }
}
