//! Locks with names. A lock is a claim of its name: the name is hashed in a domain of its own, so it never meets a key. A lock has no
//! lease. It ends when its owner frees it or dies, or when it is stolen.
//!
//! A participant that waits for a lock makes a second claim, its *request*, which is PENDING. Tokens grow, so the requests for a lock
//! form a queue. Who releases the lock rings the first of the queue, and nobody else. A lock is never handed over: it is free, and
//! who was rung claims it. So a participant that is frozen or dead never owns what it does not know of, and anybody may take the
//! lock that it leaves lying. One that was rung and has not looked since is passed over the next time.

use crate::coordinate::bells::class_of;
use crate::coordinate::claims::{Claim, Making};
use crate::format::claim::{ClaimState, Owner, Token};
use crate::format::hash::{LOCK, hash};
use crate::format::layout::{CLAIM_NAME, MAX_CLAIM_NAME, SEAT_THREAD};
use crate::index::key::{Key, bucket_of};
use crate::participant::lock::{Busy, Held};
use crate::participant::participant::{Host, Participant};
use crate::sync::{Acquire, fence};

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

/// The answer of [`Participant::release_lock`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Released {
    /// The claim was not this participant's any more.
    Gone = 0,
    /// It is free.
    Free = 1,
    /// It is free, and somebody who waits for it was rung, now or before.
    Passed = 2,
    /// It had been stolen.
    Stolen = 3,
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
    /// When the lock is taken and WAIT is given, this participant is registered as one that waits in the bucket of the name. A
    /// holder registers by `listen`, so that it hears of a theft.
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
        if flags & WAIT != 0 && !matches!(result, Claimed::Claimed(_)) {
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

    /// Frees a lock of this participant, or a request for one. When others wait for the lock, rings the first of them.
    pub fn release_lock(&self, number: u32, token: u64) -> Released {
        if !self.is_own_claim(number, token) {
            return Released::Gone;
        }
        let hash = self.hash_of_claim(number);
        let was_lock = self.claim_owner(number).is(ClaimState::Locked);
        let bucket = bucket_of(&self.region.geometry, hash);
        let Ok(mut held) = self.lock(hash) else {
            // As in `release`. Nobody claims the lock before its bucket is unlocked, but those who are rung now try again.
            let stolen = self.claim_token(number).has(Token::OVERTAKEN);
            self.free_own(number);
            return match (stolen, was_lock) {
                (true, _) => Released::Stolen,
                (_, false) => Released::Free,
                _ => {
                    self.pass(bucket, hash);
                    self.ring_all();
                    Released::Passed
                }
            };
        };
        let flags = self.claim_token(number);
        self.free_own(number);
        let released = if flags.has(Token::OVERTAKEN) {
            Released::Stolen
        } else {
            let first = if was_lock { self.pass(bucket, hash) } else { None };
            // Those who have waited without a request, because there was no room for it.
            if flags.has(Token::WAITED) {
                self.ring(&mut held);
            }
            if first.is_some() || flags.has(Token::WAITED) { Released::Passed } else { Released::Free }
        };
        self.unlock(held);
        released
    }

    /// If the lock with this name is free: rings the first who waits for it and has not been rung, as a release does. Returns
    /// whether somebody was rung.
    pub fn pass_lock(&self, name: &Key) -> Result<bool, Busy> {
        let hash = hash(name.words, name.length, LOCK + name.kind, self.seed);
        let held = self.lock(hash)?;
        let is_free = self.find_claim(hash, ClaimState::Locked).is_none();
        let passed = is_free && self.pass(bucket_of(&self.region.geometry, hash), hash) == Some(true);
        self.unlock(held);
        Ok(passed)
    }

    /// Rings the first in the queue for a free lock, or else the next one that has looked since it was rung. Returns whether
    /// somebody was rung; `None` when nobody waits, or this participant is the first itself.
    fn pass(&self, bucket: u32, hash: u64) -> Option<bool> {
        let (mut last, mut waits) = (0, false);
        while let Some(request) = self.next_request(bucket, hash, last) {
            if request.seat == self.seat {
                break;
            }
            // Also behind a dead one: foreign bytes may go on naming it after it was reaped.
            last = request.token;
            if self.reap_if_dead(request.seat) {
                continue;
            }
            waits = true;
            if self.ring_seat(request.seat) {
                return Some(true);
            }
        }
        waits.then_some(false)
    }

    /// The first request in the queue for a lock behind the one with the token `last`.
    fn next_request(&self, bucket: u32, hash: u64, last: u64) -> Option<Claim> {
        let requests = self.living(bucket).filter_map(|(number, owner)| {
            let is_request = owner.is(ClaimState::Pending) && self.hash_of_claim(number) == hash;
            is_request.then(|| self.describe(number, owner, self.claim_token(number), hash))
        });
        requests.filter(|request| request.token > last).min_by_key(|request| request.token)
    }

    /// Registers this participant, which holds a lock or has a request for it, as one that waits for changes of it. Returns the
    /// class as `wait` does; `None` when the claim is not its own any more.
    pub fn listen(&self, number: u32, token: u64) -> Result<Option<u32>, Busy> {
        if !self.is_own_claim(number, token) {
            return Ok(None);
        }
        let mut held = self.lock(self.hash_of_claim(number))?;
        self.register(&mut held);
        let class = class_of(self.bucket_of(&held));
        self.unlock(held);
        Ok(Some(class))
    }

    /// The next lock or request of a living participant whose number is `cursor` or higher. Copies the first bytes of its name.
    /// Weakly consistent: each lock that it lists stood at one moment during the call.
    pub fn next_lock(&self, cursor: u32, name: &mut [u64; MAX_CLAIM_NAME as usize / 8]) -> Option<Listed> {
        (cursor..self.region.geometry.claims()).find_map(|number| self.list(number, name))
    }

    fn list(&self, number: u32, name: &mut [u64; MAX_CLAIM_NAME as usize / 8]) -> Option<Listed> {
        let owner = self.claim_owner(number);
        let seat = self.listed_seat(owner)?;
        let token = self.claim_token(number);
        let name_bytes = self.name_bytes_of_claim(number);
        if token.has(Token::OVERTAKEN) {
            return None;
        }
        let at = self.region.geometry.claim(number) + CLAIM_NAME;
        // SAFETY: the name has that many bytes and is aligned.
        unsafe { self.region.copy_out(at, name.as_mut_ptr().cast(), MAX_CLAIM_NAME) };
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
