//! Claims, locks, waits and bells.

use wasm_bindgen::prelude::wasm_bindgen;

use crate::abi::area::{Call, call};
use crate::abi::contract::{BUSY, CLAIM_PENDING, CLAIMED, CLAIMS_FULL, PRESENT, TAKEN};
use crate::abi::entries::with_ring;
use crate::coordinate::claims::Claim;
use crate::coordinate::locks::Claimed;
use crate::format::layout::MAX_CLAIM_NAME;
use crate::participant::lock::Busy;

impl Call<'_> {
    fn put_claim(&mut self, claim: &Claim) {
        self.out.word = claim.number;
        self.out.version = claim.token as f64;
        self.out.owner_seat = claim.seat;
        self.out.owner_tenure = claim.tenure;
        self.out.start_sequence = claim.start.sequence;
        self.out.start_clear_epoch = claim.start.clear_epoch;
        self.out.class = claim.class;
    }

    fn answer(&mut self, claimed: Result<Claimed, Busy>) -> i32 {
        let code = match claimed {
            Ok(Claimed::Claimed(claim)) => {
                self.put_claim(&claim);
                CLAIMED
            }
            Ok(Claimed::Taken(claim)) => {
                self.put_claim(&claim);
                TAKEN
            }
            Ok(Claimed::Present) => PRESENT as i32,
            Ok(Claimed::Full) => CLAIMS_FULL,
            Err(Busy) => BUSY,
        };
        with_ring(self.me, code)
    }
}

/// Claims the load of the key: `CLAIMED`, `PRESENT` when it has a value, `TAKEN`, `CLAIMS_FULL` or `BUSY`. The claim is in the out part.
#[wasm_bindgen]
pub fn claim(address: u32, key: u32, flags: u32, deadline: f64, now: f64) -> i32 {
    let mut call = call(address);
    let claimed = call.me.claim(&call.key(key), flags, deadline, now);
    call.answer(claimed)
}

/// Claims the lock whose name is the key: `CLAIMED`, `TAKEN`, `CLAIMS_FULL` or `BUSY`. The claim is in the out part. The first
/// `name_bytes` of the value part are the name by which `next_lock` lists it.
#[wasm_bindgen]
pub fn claim_lock(address: u32, key: u32, flags: u32, name_bytes: u32) -> i32 {
    let mut call = call(address);
    let claimed = call.me.claim_lock(&call.key(key), flags, call.value(name_bytes));
    call.answer(claimed)
}

/// Frees a claim of this participant: `DONE`, or `UNEXPECTED` when it was not its own any more.
#[wasm_bindgen]
pub fn release(address: u32, number: u32, token: f64) -> i32 {
    let call = call(address);
    let released = call.me.release(number, token as u64);
    with_ring(call.me, !released as i32)
}

/// Frees a lock of this participant, or a request for one: `RELEASED_…`.
#[wasm_bindgen]
pub fn release_lock(address: u32, number: u32, token: f64) -> i32 {
    let call = call(address);
    let released = call.me.release_lock(number, token as u64);
    with_ring(call.me, released as i32)
}

/// If the lock whose name is the key is free, rings the first who waits for it: 1 when there is one that has not been rung, 0 when
/// not, or `BUSY`.
#[wasm_bindgen]
pub fn pass_lock(address: u32, key: u32) -> i32 {
    let call = call(address);
    let passed = call.me.pass_lock(&call.key(key)).map_or(BUSY, i32::from);
    with_ring(call.me, passed)
}

/// Registers this participant as one that waits for changes of its lock: the class as of `wait`, -1 busy, or -2 when the lock is not
/// its own any more.
#[wasm_bindgen]
pub fn listen(address: u32, number: u32, token: f64) -> i32 {
    let call = call(address);
    call.me.listen(number, token as u64).map_or(-1, |class| class.map_or(-2, |class| class as i32))
}

/// Renews the lease of a claim until `deadline`. False when the claim is not this participant's any more.
#[wasm_bindgen]
pub fn extend(address: u32, number: u32, token: f64, deadline: f64) -> bool {
    call(address).me.extend(number, token as u64, deadline)
}

/// Whether a claim stands: 0 it is gone, 1 it stands, 2 it was overtaken.
#[wasm_bindgen]
pub fn stands(address: u32, number: u32, token: f64) -> u32 {
    call(address).me.stands(number, token as u64) as u32
}

/// As `stands`, for those who wait: a claim is gone, too, when its owner is dead or its lease is over at `now`.
#[wasm_bindgen]
pub fn probe_claim(address: u32, number: u32, token: f64, now: f64) -> u32 {
    call(address).me.probe_claim(number, token as u64, now) as u32
}

/// Lets nobody join a claim of this participant any more: 1 when another one waits for it, else 0; -1 when it is not its own any
/// more.
#[wasm_bindgen]
pub fn close_claim(address: u32, number: u32, token: f64) -> i32 {
    call(address).me.close_claim(number, token as u64).map_or(-1, |waited| waited as i32)
}

/// Whether another participant waits for a claim, or has waited for it.
#[wasm_bindgen]
pub fn is_waited_for(address: u32, number: u32, token: f64) -> bool {
    call(address).me.is_waited_for(number, token as u64)
}

/// The number of the next lock, or request for one, from `cursor` on; -1 behind the last one. What it is, is in the out part,
/// and the first bytes of its name are in the value part.
#[wasm_bindgen]
pub fn next_lock(address: u32, cursor: u32) -> i32 {
    let call = call(address);
    // SAFETY: the value part is larger than a name, and nothing else refers to it during the call.
    let name = unsafe { &mut *call.value.cast::<[u64; MAX_CLAIM_NAME as usize / 8]>() };
    match call.me.next_lock(cursor, name) {
        Some(lock) => {
            call.out.word = lock.name_bytes;
            call.out.version = lock.token as f64;
            call.out.owner_seat = lock.seat;
            call.out.class = if lock.pending { CLAIM_PENDING } else { 0 };
            call.out.start_sequence = lock.thread as u32;
            call.out.start_clear_epoch = (lock.thread >> 32) as u32;
            lock.number as i32
        }
        None => -1,
    }
}

/// Registers this participant as one that waits for changes of the key: the class of the key's bucket, or -1 busy. The host looks
/// at the key afterwards.
#[wasm_bindgen]
pub fn wait(address: u32, key: u32) -> i32 {
    let call = call(address);
    call.me.wait(&call.key(key)).map_or(-1, |class| class as i32)
}

/// Takes a seat from the list of those that the host has to ring: -1 when the list is empty.
#[wasm_bindgen]
pub fn next_bell(address: u32) -> i32 {
    call(address).me.next_bell().map_or(-1, |seat| seat as i32)
}

/// A number that grows with each change of the counters of the tags in the tags part.
#[wasm_bindgen]
pub fn tag_changes(address: u32) -> f64 {
    let call = call(address);
    call.me.tag_changes(call.tags())
}
