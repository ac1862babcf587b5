//! Numbers about a whole cache. None of these calls changes an entry. Other participants may change entries meanwhile,
//! so no answer is a snapshot.

use wasm_bindgen::prelude::wasm_bindgen;

use crate::abi::area::call;
use crate::abi::contract::{
    CLAIM_SEEN_LOADING, CLAIM_SEEN_LOCKED, CLAIM_SEEN_OVERTAKEN, CLAIM_SEEN_PENDING, CLASS_SHIFT, SEGMENT_GENERATION,
    SEGMENT_LIVE, SEGMENT_OWNER, SEGMENT_STATE, SEGMENT_USED, SEGMENT_WORDS,
};
use crate::format::claim::ClaimState;
use crate::format::layout::{BUCKET_WORDS, MAX_CLAIM_NAME, MAX_RECORD, MAX_SEGMENTS, META_BUMP, WAYS, WORD};
use crate::format::segment::{Phase, State};
use crate::index::entry::{Entry, EntryState};
use crate::sync::Relaxed;

/// The words of all segments fit the value part.
const _: () = assert!(MAX_SEGMENTS * SEGMENT_WORDS * 4 <= MAX_RECORD);

/// The sum of a counter over all participants that ever were.
#[wasm_bindgen]
pub fn counter(address: u32, counter: u32) -> f64 {
    call(address).me.sum(counter) as f64
}

/// Participants that are attached now.
#[wasm_bindgen]
pub fn participants(address: u32) -> u32 {
    call(address).me.participants()
}

/// Live entries, by walking the index. In the out part: how many of them belong to a namespace, and the bytes that they
/// take in the log.
#[wasm_bindgen]
pub fn census(address: u32) -> u32 {
    let call = call(address);
    let census = call.me.census();
    call.out.word = census.namespaced;
    call.out.number = census.bytes as f64;
    census.entries
}

/// Bytes of all segments.
#[wasm_bindgen]
pub fn capacity(address: u32) -> f64 {
    let call = call(address);
    let geometry = &call.me.region.geometry;
    geometry.segments as f64 * geometry.segment_bytes() as f64
}

/// Bytes of the segments that are in use.
#[wasm_bindgen]
pub fn used(address: u32) -> f64 {
    let call = call(address);
    let region = &call.me.region;
    let geometry = &region.geometry;
    let in_use = |&segment: &u32| State(region.word(geometry.state(segment)).load(Relaxed)).phase() != Phase::Free;
    (0..geometry.segments).filter(in_use).count() as f64 * geometry.segment_bytes() as f64
}

/// Writes the state, the bytes and the generation of each segment to the value part. Returns how many segments there are.
#[wasm_bindgen]
pub fn segments(address: u32) -> u32 {
    let call = call(address);
    let region = &call.me.region;
    let geometry = &region.geometry;
    for segment in 0..geometry.segments {
        let state = State(region.word(geometry.state(segment)).load(Relaxed));
        let appended = region.word(geometry.meta(segment) + META_BUMP).load(Relaxed);
        let used = if state.phase() == Phase::Free { 0 } else { appended.min(geometry.segment_bytes() as u64) };
        let live = call.me.live_bytes(segment, state.generation()).clamp(0, used as i64);
        let mut words = [0; SEGMENT_WORDS as usize];
        words[SEGMENT_STATE as usize] = state.phase() as u32 | (state.class() as u32) << CLASS_SHIFT;
        words[SEGMENT_USED as usize] = used as u32;
        words[SEGMENT_LIVE as usize] = live as u32;
        words[SEGMENT_GENERATION as usize] = state.generation();
        words[SEGMENT_OWNER as usize] = if state.phase() == Phase::Reclaim { state.owner() + 1 } else { 0 };
        // SAFETY: the value part has room for that many segments, asserted above.
        unsafe { call.value.cast::<[u32; SEGMENT_WORDS as usize]>().add(segment as usize).write(words) };
    }
    geometry.segments
}

/// Writes how full the index is to the value part: for each of `parts` equal parts of it two numbers, `{entries, ghosts}`.
/// Returns how many entries a part has room for.
#[wasm_bindgen]
pub fn occupancy(address: u32, parts: u32) -> u32 {
    let call = call(address);
    let region = &call.me.region;
    let geometry = &region.geometry;
    let parts = parts.clamp(1, geometry.buckets.min(MAX_RECORD / 8));
    let buckets = geometry.buckets / parts;
    for part in 0..parts {
        let mut counts = [0u32; 2];
        for way in part * buckets * BUCKET_WORDS..(part + 1) * buckets * BUCKET_WORDS {
            if way % BUCKET_WORDS < WAYS {
                let entry = Entry(region.word(geometry.bucket(0) + way * WORD).load(Relaxed));
                counts[0] += entry.is_live() as u32;
                counts[1] += (entry.state() == EntryState::Ghost) as u32;
            }
        }
        // SAFETY: the value part has room for that many parts.
        unsafe { call.value.cast::<[u32; 2]>().add(part as usize).write(counts) };
    }
    buckets * WAYS
}

/// How the entry of the key lies in the memory: its heat, and its class above that, shifted by `CLASS_SHIFT`; -1 when it is absent.
/// Its bytes are in the out part.
#[wasm_bindgen]
pub fn residence(address: u32, key: u32) -> i32 {
    let call = call(address);
    match call.me.residence(&call.key(key)) {
        Some(residence) => {
            call.out.number = residence.bytes as f64;
            (residence.heat | (residence.class as u32) << CLASS_SHIFT) as i32
        }
        None => -1,
    }
}

/// The first bucket from `cursor` on whose lock is held, or -1. In the out part: the seat of the holder, the ticket of the lock, and
/// whether the holder has left.
#[wasm_bindgen]
pub fn next_locked_bucket(address: u32, cursor: u32) -> i32 {
    let call = call(address);
    match call.me.next_locked(cursor) {
        Some(locked) => {
            call.out.owner_seat = locked.seat;
            call.out.word = locked.ticket;
            call.out.class = locked.gone as u32;
            locked.bucket as i32
        }
        None => -1,
    }
}

/// The number of the next claim from `cursor` on whose owner has not left, or -1: loads, locks and requests for locks, also of
/// participants that are dead. What it is, is in the out part, and the first bytes of its name are in the value part.
#[wasm_bindgen]
pub fn next_claim(address: u32, cursor: u32) -> i32 {
    let call = call(address);
    // SAFETY: the value part is larger than a name, and nothing else refers to it during the call.
    let name = unsafe { &mut *call.value.cast::<[u64; MAX_CLAIM_NAME as usize / 8]>() };
    match call.me.next_claim(cursor, name) {
        Some(seen) => {
            let kind = match seen.state {
                ClaimState::Loading => CLAIM_SEEN_LOADING,
                ClaimState::Pending => CLAIM_SEEN_PENDING,
                _ => CLAIM_SEEN_LOCKED,
            };
            call.out.class = kind | if seen.overtaken { CLAIM_SEEN_OVERTAKEN } else { 0 };
            call.out.word = seen.name_bytes;
            call.out.version = seen.token as f64;
            call.out.number = seen.deadline;
            call.out.owner_seat = seen.seat;
            call.out.start_sequence = seen.hash as u32;
            call.out.start_clear_epoch = (seen.hash >> 32) as u32;
            seen.number as i32
        }
        None => -1,
    }
}

/// Checks every invariant while nobody writes: 0, or the number of the broken one.
#[wasm_bindgen]
pub fn validate(address: u32) -> u32 {
    call(address).me.validate().map_or_else(|broken| broken as u32, |()| 0)
}
