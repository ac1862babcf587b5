//! Locks with names. A lock is a claim of its name: the name is hashed in a domain of its own, so it never meets a key. A lock has no
//! lease. It ends when its owner frees it or dies, or when it is stolen.

use crate::coordinate::claims::{Claim, Making};
use crate::format::claim::{ClaimState, Owner, Token};
use crate::format::hash::{LOCK, hash};
use crate::format::layout::{CLAIM_NAME, CLAIM_NAME_BYTES, MAX_CLAIM_NAME, SEAT_THREAD, WORD};
use crate::index::key::Key;
use crate::participant::lock::{Busy, Held};
use crate::participant::participant::{Host, Participant};
use crate::sync::{Acquire, Relaxed, fence};

/// Flag of a claim: a live entry of the key is no reason against it.
pub const FRESH: u32 = 1;
/// Flag of a claim: if another participant has claimed it, this one waits.
pub const WAIT: u32 = 2;
/// Flag of a lock: overtakes its holder.
pub const STEAL: u32 = 4;
/// Flag of a lock: only records that this participant waits for it, so that it is listed.
pub const PENDING: u32 = 8;

/// The answer of [`Participant::claim`] and [`Participant::claim_lock`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claimed {
    /// This participant has it now.
    Claimed(Claim),
    /// The key has a live entry.
    Present,
    /// Another one has it.
    Taken(Claim),
    /// Living participants hold all claims of the set.
    Full,
}

/// A lock, or a request for one, as [`Participant::next_lock`] lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listed {
    pub number: u32,
    pub token: u64,
    pub seat: u32,
    pub pending: bool,
    /// Process id in the low half, thread id in the high half.
    pub thread: u64,
    /// Bytes of the whole name; only the first `MAX_CLAIM_NAME` are kept.
    pub name_bytes: u32,
}

impl<H: Host> Participant<H> {
    /// Claims the lock with this name. The name is given as a key, and with the bytes by which it is listed.
    ///
    /// This participant is registered as one that waits in the bucket of the name, also when it gets the lock: so it hears of a
    /// theft.
    pub fn claim_lock(&self, name: &Key, flags: u32, listed: &[u8]) -> Result<Claimed, Busy> {
        let hash = hash(name.words, name.length, LOCK + name.kind, self.seed);
        let mut held = self.lock(hash)?;
        let making = Making { hash, state: ClaimState::Locked, deadline: f64::INFINITY, name: listed, overtakes: None };
        let result = if flags & PENDING != 0 {
            self.request(&held, making)
        } else {
            match self.find_claim(hash, ClaimState::Locked) {
                Some(holder) if flags & STEAL == 0 => {
                    if flags & WAIT != 0 {
                        self.flag_claim(holder.number, holder.token, Token::WAITED);
                    }
                    Claimed::Taken(holder)
                }
                holder => {
                    let made = self.make(&held, &Making { overtakes: holder, ..making });
                    if holder.is_some() {
                        self.ring(&mut held);
                    }
                    made.map_or(Claimed::Full, Claimed::Claimed)
                }
            }
        };
        if flags & WAIT != 0 || matches!(result, Claimed::Claimed(_)) {
            self.register(&mut held);
        }
        self.unlock(held);
        self.claiming.set(None);
        Ok(result)
    }

    /// Records a request for a lock. Requests take at most half of a set, so that locks find room.
    fn request(&self, held: &Held, making: Making) -> Claimed {
        if self.count_claims(self.bucket_of(held), ClaimState::Pending) >= self.region.geometry.claim_ways / 2 {
            return Claimed::Full;
        }
        let made = self.make(held, &Making { state: ClaimState::Pending, ..making });
        made.map_or(Claimed::Full, Claimed::Claimed)
    }

    /// The next lock or request of a living participant whose number is `cursor` or higher. Copies the first bytes of its name.
    /// Weakly consistent: each lock that it lists stood at one moment during the call.
    pub fn next_lock(&self, cursor: u32, name: &mut [u8; MAX_CLAIM_NAME as usize]) -> Option<Listed> {
        (cursor..self.region.geometry.claims()).find_map(|number| self.list(number, name))
    }

    fn list(&self, number: u32, name: &mut [u8; MAX_CLAIM_NAME as usize]) -> Option<Listed> {
        let owner = self.claim_owner(number);
        let seat = self.listed_seat(owner)?;
        let token = self.claim_token(number);
        let name_bytes = self.name_bytes_of_claim(number);
        if token.has(Token::OVERTAKEN) {
            return None;
        }
        for (at, bytes) in (CLAIM_NAME..).step_by(WORD as usize).zip(name.chunks_mut(WORD as usize)) {
            bytes.copy_from_slice(&self.claim_word(number, at).load(Acquire).to_le_bytes());
        }
        let thread = self.region.word(self.region.geometry.seat(seat) + SEAT_THREAD).load(Acquire);
        // Orders the loads above before those below, which show that the claim was the same meanwhile: a freed claim gets
        // another owner word first.
        fence(Acquire);
        let same = self.claim_owner(number) == owner && self.claim_token(number).token() == token.token();
        let pending = owner.is(ClaimState::Pending);
        same.then_some(Listed { number, token: token.token(), seat, pending, thread, name_bytes })
    }

    /// The seat of a living owner of a lock or of a request for one.
    fn listed_seat(&self, owner: Owner) -> Option<u32> {
        let seat = owner.seat()?;
        let listed = owner.is(ClaimState::Locked) || owner.is(ClaimState::Pending);
        (listed && !self.has_left(seat, owner.tenure()) && !self.reap_if_dead(seat)).then_some(seat)
    }
}
