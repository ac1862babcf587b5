//! Claims: who loads a key, and who holds a lock. A claim lies in a table that nothing is evicted from. A claim whose owner has
//! left or is dead is void: whoever finds it may take it.
//!
//! Everything about the claims of a key happens under the lock of its bucket, with three exceptions: the owner renews its lease
//! without the lock, it asks without the lock whether its claim stands, and it may free its claim without the lock when somebody
//! frozen holds the lock. Buckets share sets, so a claim is taken by a compare-and-swap of its owner word. From then until its owner
//! word is free again, only its owner writes to it; others change nothing but the two flags of the token word, by a
//! compare-and-swap that the token protects when the claim is freed and taken meanwhile.
//!
//! The rules:
//!
//! 1. At most one claim of a key is held by a living owner and not overtaken.
//! 2. A change of the key's value marks that claim OVERTAKEN before it changes the entry, under the same lock.
//! 3. The store of a load (`Expect::Claim`) checks the mark under the same lock. So either the store comes before the change, or
//!    it is refused.
//! 4. An overtaken claim stays until its owner frees it, because others still wait for what its owner will hand out.
//!
//! The token is a fencing token (Kleppmann 2016, Chubby's sequencers, OSDI '06): it grows with each claim, so that whoever gets a late
//! message of an owner can tell. The lease is that of Gray and Cheriton (SOSP '89), for loads only.

use crate::coordinate::bells::class_of;
use crate::format::claim::{ClaimState, Owner, Start, Token};
use crate::format::layout::{
    CLAIM_DEADLINE, CLAIM_HASH, CLAIM_NAME, CLAIM_NAME_BYTES, CLAIM_OWNER, CLAIM_SEQUENCE_AT, CLAIM_START, CLAIM_TOKEN,
    MAX_CLAIM_NAME,
};
use crate::index::key::bucket_of;
use crate::participant::lock::Held;
use crate::participant::participant::{Host, Participant};
use crate::sync::{AcqRel, Acquire, Relaxed, Release, SeqCst, Word, fence};

/// Tokens are exact as JavaScript numbers.
const TOKEN_MASK: u64 = (1 << 53) - 1;

/// A claim as a participant found or made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    pub number: u32,
    pub token: u64,
    /// The owner: its seat, and which owner of that seat.
    pub seat: u32,
    pub tenure: u32,
    pub start: Start,
    /// The class of its bucket, for those that wait.
    pub class: u32,
}

/// How a claim is made.
pub(crate) struct Making<'a> {
    pub hash: u64,
    pub state: ClaimState,
    pub deadline: f64,
    pub name: &'a [u8],
    /// The claim that the new one overtakes.
    pub overtakes: Option<Claim>,
}

/// Whether a claim stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Stands {
    /// It was freed, or its owner has left.
    Gone = 0,
    Stands = 1,
    /// A change of the key, another claim after the lease, or a theft has overtaken it.
    Overtaken = 2,
}

/// A claim as [`Participant::next_claim`] saw it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Seen {
    pub number: u32,
    pub token: u64,
    pub seat: u32,
    pub state: ClaimState,
    pub hash: u64,
    /// Milliseconds of the clock of leases.
    pub deadline: f64,
    pub overtaken: bool,
    pub name_bytes: u32,
}

impl<H: Host> Participant<H> {
    /// The next claim whose number is `cursor` or higher and whose owner has not left: loads, locks and requests, also those of
    /// participants that are dead and not reaped. Copies the first bytes of its name. Writes nothing to the region.
    pub fn next_claim(&self, cursor: u32, name: &mut [u64; MAX_CLAIM_NAME as usize / 8]) -> Option<Seen> {
        (cursor..self.region.geometry.claims()).find_map(|number| {
            let owner = self.claim_owner(number);
            let seat = owner.seat()?;
            let state = ClaimState::ALL.into_iter().find(|&state| owner.is(state))?;
            if state == ClaimState::Reserved || self.is_void(owner) {
                return None;
            }
            let (token, hash) = self.load_token_and_hash(number);
            let (deadline, name_bytes) = (self.deadline_of_claim(number), self.name_bytes_of_claim(number));
            // SAFETY: the name has that many bytes and is aligned.
            unsafe {
                self.region.copy_out(self.claim_at(number) + CLAIM_NAME, name.as_mut_ptr().cast(), MAX_CLAIM_NAME)
            };
            // Orders the loads above before those below, which show that the claim was the same meanwhile.
            fence(Acquire);
            let same = self.claim_owner(number) == owner && self.claim_token(number).token() == token.token();
            let overtaken = token.has(Token::OVERTAKEN);
            same.then_some(Seen { number, token: token.token(), seat, state, hash, deadline, overtaken, name_bytes })
        })
    }

    /// A word of a claim. The number is bounded, so that a number from outside cannot lead out of the table.
    pub(crate) fn claim_word(&self, number: u32, word: u32) -> &Word {
        self.region.word(self.claim_at(number) + word)
    }

    fn claim_at(&self, number: u32) -> u32 {
        let geometry = &self.region.geometry;
        geometry.claim(number.min(geometry.claims() - 1))
    }

    pub(crate) fn claim_owner(&self, number: u32) -> Owner {
        // Acquire: pairs with the Release in `make` and `free_own`. Whoever sees the owner sees the words that it has written.
        Owner(self.claim_word(number, CLAIM_OWNER).load(Acquire))
    }

    pub(crate) fn claim_token(&self, number: u32) -> Token {
        // Acquire: pairs with the Release in `make` and `flag_claim`.
        Token(self.claim_word(number, CLAIM_TOKEN).load(Acquire))
    }

    /// The numbers of the claims that keys of a bucket can use.
    pub(crate) fn claims_of(&self, bucket: u32) -> core::ops::Range<u32> {
        let first = self.region.geometry.first_claim(bucket);
        first..first + self.region.geometry.claim_ways
    }

    fn own(&self, state: ClaimState) -> Owner {
        Owner::new(self.seat, self.tenure.get(), state)
    }

    /// Whether a claim with this owner word may be taken: it is free, its owner has left, a call of this participant that was
    /// cut off has left it, or foreign bytes were written.
    #[inline(never)]
    fn is_void(&self, owner: Owner) -> bool {
        let known = ClaimState::ALL.into_iter().any(|state| owner.is(state));
        match owner.seat() {
            None => true,
            Some(seat) => !known || self.has_left(seat, owner.tenure()) || owner == self.own(ClaimState::Reserved),
        }
    }

    /// Takes a claim whose owner word is `seen`. False when another participant was faster.
    fn reserve_claim(&self, number: u32, seen: Owner) -> bool {
        let mine = self.own(ClaimState::Reserved);
        let reserved = self.claim_word(number, CLAIM_OWNER).compare_exchange(seen.0, mine.0, AcqRel, Relaxed).is_ok();
        if reserved {
            // Before the next token: see `load_token_and_hash`.
            self.claim_word(number, CLAIM_HASH).store(0, Relaxed);
        }
        reserved
    }

    /// The token and the hash of a claim. When the hash is that of a key whose bucket is locked, the token belongs to it. A claim
    /// that was freed and taken meanwhile for a key of another bucket has no hash before it gets its token.
    fn load_token_and_hash(&self, number: u32) -> (Token, u64) {
        // The token first.
        (self.claim_token(number), self.claim_word(number, CLAIM_HASH).load(Relaxed))
    }

    /// Frees a claim of this participant. A participant that dies in between leaves a claim that is void.
    #[inline(never)]
    pub(crate) fn free_own(&self, number: u32) {
        // Sequentially consistent: when no lock is held, this pairs with `ring_all` and `register` as a change does.
        self.claim_word(number, CLAIM_OWNER).store(Owner::FREE.0, SeqCst);
    }

    /// Frees a void claim, if no other participant takes it first.
    fn free_void(&self, number: u32, seen: Owner) {
        if seen.seat().is_some() && self.reserve_claim(number, seen) {
            self.free_own(number);
        }
    }

    /// The claims of a bucket that are not void. Frees the others on the way.
    pub(crate) fn living(&self, bucket: u32) -> impl Iterator<Item = (u32, Owner)> {
        self.claims_of(bucket).filter_map(move |number| Some((number, self.living_owner(number)?)))
    }

    /// The owner of a claim, unless the claim is void. Then frees it.
    #[inline(never)]
    fn living_owner(&self, number: u32) -> Option<Owner> {
        let owner = self.claim_owner(number);
        let void = self.is_void(owner);
        if void {
            self.free_void(number, owner);
        }
        (!void).then_some(owner)
    }

    #[inline(never)]
    pub(crate) fn describe(&self, number: u32, owner: Owner, token: Token, hash: u64) -> Claim {
        Claim {
            number,
            token: token.token(),
            seat: owner.seat().unwrap_or(0),
            tenure: owner.tenure(),
            start: Start::of(self.claim_word(number, CLAIM_START).load(Relaxed)),
            class: class_of(bucket_of(&self.region.geometry, hash)),
        }
    }

    /// The claim of `hash` in this state that has a living owner and is not overtaken. Its bucket is locked. Asks for the proof of death of
    /// an owner that has not left.
    #[inline(never)]
    pub(crate) fn find_claim(&self, hash: u64, state: ClaimState) -> Option<Claim> {
        let bucket = bucket_of(&self.region.geometry, hash);
        self.living(bucket).find_map(|(number, owner)| {
            let (token, claimed) = self.load_token_and_hash(number);
            if !owner.is(state) || claimed != hash || token.has(Token::OVERTAKEN) {
                return None;
            }
            if owner.seat().is_some_and(|seat| self.reap_if_dead(seat)) {
                self.free_void(number, owner);
                return None;
            }
            Some(self.describe(number, owner, token, hash))
        })
    }

    /// Sets a flag of a claim, unless the claim was freed and taken meanwhile.
    #[inline(never)]
    pub(crate) fn flag_claim(&self, number: u32, token: u64, flag: u64) {
        let word = self.claim_word(number, CLAIM_TOKEN);
        // The two flags are set once each, so one attempt more than there are flags is enough.
        for _ in 0..3 {
            let seen = Token(word.load(Acquire));
            if seen.token() != token || seen.has(flag) {
                return;
            }
            // Release: pairs with the Acquire in `claim_token`.
            if word.compare_exchange(seen.0, seen.0 | flag, AcqRel, Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Before a change of the value of a key whose bucket is locked: marks the claim of the key.
    #[inline(always)]
    pub(crate) fn overtake(&self, held: &mut Held, hash: u64) {
        if held.is_claimed() {
            self.overtake_claims(held, hash)
        }
    }

    #[cold]
    fn overtake_claims(&self, held: &mut Held, hash: u64) {
        let geometry = &self.region.geometry;
        let bucket = self.bucket_of(held);
        let mut any = false;
        for (number, owner) in self.living(bucket) {
            let (token, claimed) = self.load_token_and_hash(number);
            if owner.is(ClaimState::Loading) && bucket_of(geometry, claimed) == bucket {
                any = true;
                if claimed == hash {
                    self.flag_claim(number, token.token(), Token::OVERTAKEN);
                }
            }
        }
        held.set_claimed(any);
    }

    /// Makes a claim in the set of the bucket whose lock is held. `None` when living participants hold all its claims.
    #[inline(never)]
    pub(crate) fn make(&self, held: &Held, making: &Making) -> Option<Claim> {
        let number = self.allocate(self.bucket_of(held))?;
        // Computed once: this code runs seldom, and its size counts.
        let (region, claim_at) = (self.region, self.claim_at(number));
        let word = |at| region.word(claim_at + at);
        let sequence = region.word(CLAIM_SEQUENCE_AT);
        let mut token = 0;
        while token == 0 {
            token = sequence.fetch_add(1, Relaxed).wrapping_add(1) & TOKEN_MASK;
        }
        // Read now, so that every invalidation and every `clear` that is not over comes after the start.
        let start = Start { sequence: self.invalidations(), clear_epoch: self.clear_epoch() };
        // Release: pairs with the Acquire in `claim_token`.
        word(CLAIM_TOKEN).store(Token::new(token).0, Release);
        word(CLAIM_HASH).store(making.hash, Relaxed);
        word(CLAIM_DEADLINE).store(making.deadline.to_bits(), Relaxed);
        word(CLAIM_START).store(start.word(), Relaxed);
        word(CLAIM_NAME_BYTES).store(making.name.len() as u32 as u64, Relaxed);
        // SAFETY: a slice is readable.
        unsafe {
            region.copy_in(making.name.as_ptr(), claim_at + CLAIM_NAME, (making.name.len() as u32).min(MAX_CLAIM_NAME))
        };
        if let Some(old) = making.overtakes {
            self.flag_claim(old.number, old.token, Token::OVERTAKEN);
        }
        let owner = self.own(making.state);
        // Release: pairs with the Acquire in `claim_owner`.
        word(CLAIM_OWNER).store(owner.0, Release);
        Some(self.describe(number, owner, Token::new(token), making.hash))
    }

    /// How many claims of a set are in this state.
    pub(crate) fn count_claims(&self, bucket: u32, state: ClaimState) -> u32 {
        self.living(bucket).filter(|(_, owner)| owner.is(state)).count() as u32
    }

    /// Reserves a claim of the set of `bucket`.
    #[inline(never)]
    fn allocate(&self, bucket: u32) -> Option<u32> {
        // Proofs of death cost much more than a look, so they come second.
        [false, true].into_iter().find_map(|prove| {
            self.claims_of(bucket).find(|&number| {
                let owner = self.claim_owner(number);
                let free = self.is_void(owner) || prove && owner.seat().is_some_and(|seat| self.reap_if_dead(seat));
                if free {
                    // First: when this call is cut off, `recover` frees what it has reserved.
                    self.claiming.set(Some(number));
                }
                free && self.reserve_claim(number, owner)
            })
        })
    }

    /// Whether a claim is this participant's, and its token still `token`.
    #[inline(never)]
    pub(crate) fn is_own_claim(&self, number: u32, token: u64) -> bool {
        let owner = self.claim_owner(number);
        owner.is_of(self.seat, self.tenure.get())
            && !owner.is(ClaimState::Reserved)
            && self.claim_token(number).token() == token
    }

    pub(crate) fn hash_of_claim(&self, number: u32) -> u64 {
        self.claim_word(number, CLAIM_HASH).load(Relaxed)
    }

    pub(crate) fn start_of_claim(&self, number: u32) -> Start {
        Start::of(self.claim_word(number, CLAIM_START).load(Relaxed))
    }

    /// Frees a claim of this participant and rings those who wait for its key. False when the claim was not its own any more.
    pub fn release(&self, number: u32, token: u64) -> bool {
        if !self.is_own_claim(number, token) {
            return false;
        }
        match self.lock(self.hash_of_claim(number)) {
            Ok(mut held) => {
                self.free_own(number);
                self.ring(&mut held);
                self.unlock(held);
            }
            Err(_) => {
                // Whoever holds the lock is frozen. Only the owner frees a claim, so it needs no lock for that.
                self.free_own(number);
                self.ring_all();
            }
        }
        true
    }

    /// Renews the lease of a claim until `deadline`. False when the claim is not this participant's any more.
    pub fn extend(&self, number: u32, token: u64, deadline: f64) -> bool {
        let own = self.is_own_claim(number, token);
        if own {
            self.claim_word(number, CLAIM_DEADLINE).store(deadline.to_bits(), Relaxed);
        }
        own
    }

    pub(crate) fn deadline_of_claim(&self, number: u32) -> f64 {
        f64::from_bits(self.claim_word(number, CLAIM_DEADLINE).load(Relaxed))
    }

    /// Whether a claim stands. Takes no lock, and asks for no proof of death.
    pub fn stands(&self, number: u32, token: u64) -> Stands {
        // The owner first: if it belongs to a later claim, that claim's token is seen afterwards.
        let owner = self.claim_owner(number);
        let seen = self.claim_token(number);
        if seen.token() != token || owner.is(ClaimState::Reserved) || self.is_void(owner) {
            Stands::Gone
        } else if seen.has(Token::OVERTAKEN) {
            Stands::Overtaken
        } else {
            Stands::Stands
        }
    }

    /// As [`stands`](Participant::stands), for those who wait for the claim: it is gone, too, when its owner is dead or its lease
    /// is over at `now`. Then [`claim`](Participant::claim) takes over.
    pub fn probe_claim(&self, number: u32, token: u64, now: f64) -> Stands {
        let stands = self.stands(number, token);
        let is_over = stands != Stands::Gone
            && (self.deadline_of_claim(number) <= now
                || self.claim_owner(number).seat().is_some_and(|seat| self.reap_if_dead(seat)));
        if is_over { Stands::Gone } else { stands }
    }

    /// Before the owner of a claim releases it without a store: from now on nobody joins it, so whoever waits for it has been
    /// counted. Returns whether anybody waits, `None` when the claim is not its own any more.
    pub fn close_claim(&self, number: u32, token: u64) -> Option<bool> {
        if !self.is_own_claim(number, token) {
            return None;
        }
        // Others join under this lock. When its holder is frozen, one of them may join unseen: it finds no outcome and loads.
        let held = self.lock(self.hash_of_claim(number)).ok();
        self.flag_claim(number, token, Token::OVERTAKEN);
        let waited = self.is_waited_for(number, token);
        if let Some(held) = held {
            self.unlock(held);
        }
        Some(waited)
    }

    /// Whether another participant waits for a claim, or has waited for it.
    pub fn is_waited_for(&self, number: u32, token: u64) -> bool {
        let seen = self.claim_token(number);
        seen.token() == token && seen.has(Token::WAITED)
    }

    /// The bytes of the name of a claim.
    pub(crate) fn name_bytes_of_claim(&self, number: u32) -> u32 {
        self.claim_word(number, CLAIM_NAME_BYTES).load(Relaxed) as u32
    }
}
