//! Reading and changing entries.

use wasm_bindgen::prelude::wasm_bindgen;

use crate::abi::area::{Call, Javascript, KEY_KIND_BITS, call};
use crate::abi::contract::{
    ABSENT, BUSY, CHUNKED, CLAIM, CLAIM_SHIFT, DONE, INVALIDATED, NOT_A_LIMIT, NOT_A_NUMBER, OUT_OF_RANGE, OVERTAKEN,
    PRESENT, RING, STALE, TOO_LARGE, UNEXPECTED, UNTOUCHED, VERSION,
};
use crate::entries::change::Addition;
use crate::entries::draft::Draft;
use crate::entries::limit::Rule;
use crate::entries::read::Found;
use crate::entries::store::{Expect, Refused};
use crate::format::layout::MAX_VALUE;
use crate::index::prefetch::prefetch;
use crate::participant::participant::Participant;

/// Turns the number of an expectation, and a version or a token, into the expectation.
pub fn expectation(expect: u32, version: f64) -> Expect {
    match expect & ((1 << CLAIM_SHIFT) - 1) {
        ABSENT => Expect::Absent,
        PRESENT => Expect::Present,
        VERSION => Expect::Version(version as u64),
        UNTOUCHED => Expect::Untouched(version as u64),
        CLAIM => Expect::Claim(expect >> CLAIM_SHIFT, version as u64),
        _ => Expect::Anything,
    }
}

/// Adds `RING` to a result that is not negative, when the host has bells to ring.
pub fn with_ring(me: &Participant<Javascript>, result: i32) -> i32 {
    if result >= 0 && me.has_bells() { result | RING } else { result }
}

/// Turns the result of a change into its number, with `RING` when the host has bells to ring.
pub fn answer(me: &Participant<Javascript>, result: Result<(), Refused>) -> i32 {
    with_ring(me, code(result))
}

/// Turns a result into its number.
fn code(result: Result<(), Refused>) -> i32 {
    match result {
        Ok(()) => DONE,
        Err(Refused::Unexpected) => UNEXPECTED,
        Err(Refused::TooLarge) => TOO_LARGE,
        Err(Refused::NotANumber) => NOT_A_NUMBER,
        Err(Refused::OutOfRange) => OUT_OF_RANGE,
        Err(Refused::NotALimit) => NOT_A_LIMIT,
        Err(Refused::Overtaken) => OVERTAKEN,
        Err(Refused::Invalidated) => INVALIDATED,
        Err(Refused::Busy) => BUSY,
    }
}

/// Looks the key up in the index alone: whether it seems to be there. The stamp of the entry that is probably the key's is
/// in the out part.
#[wasm_bindgen]
pub fn find(address: u32, key: u32) -> bool {
    let mut call = call(address);
    let sight = call.me.find(&call.key(key));
    if let Some(sight) = &sight {
        call.put_stamp(&sight.stamp, sight.changes);
    }
    sight.is_some()
}

/// Looks the key up: the length of its value, or -1 for a miss. The parts that `want` asks for are in the area.
#[wasm_bindgen]
pub fn get(address: u32, key: u32, want: u32) -> i32 {
    let mut call = call(address);
    // SAFETY: both parts of the area are large enough and aligned.
    let found = unsafe { call.me.get(&call.key(key), want, call.value, call.tags.cast()) };
    put_found(&mut call, found)
}

/// Begins lookups of the first `count` keys of the group part: hashes them, and waits for their buckets and records together.
/// [`get_in_group`] follows for each.
#[wasm_bindgen]
pub fn prefetch_group(address: u32, count: u32) {
    let mut call = call(address);
    let me = call.me;
    prefetch(&me.region, call.hash_group(count));
}

/// As [`get`], for key number `i` of the group part.
#[wasm_bindgen]
pub fn get_in_group(address: u32, i: u32, want: u32) -> i32 {
    let mut call = call(address);
    // SAFETY: both parts of the area are large enough and aligned.
    let found = unsafe { call.me.get(&call.group_key(i), want, call.value, call.tags.cast()) };
    put_found(&mut call, found)
}

/// Writes the answer of a lookup to the out part.
#[inline(always)]
fn put_found(call: &mut Call, found: Option<Found>) -> i32 {
    match found {
        Some(found) => {
            let flag = |is: bool, flag: u32| if is { flag } else { 0 };
            let flags = flag(found.chunked, CHUNKED) | flag(found.stale, STALE);
            call.out.value_type = found.value_type as u32 | flags;
            call.out.word = found.tags;
            call.out.version = found.version as f64;
            call.out.number = found.expiry;
            call.out.more[0] = found.grace;
            call.put_stamp(&found.stamp, 0);
            found.length.min(MAX_VALUE as u64) as i32
        }
        None => -1,
    }
}

/// Stores the first `length` bytes of the value part, with the tags in the tags part if `tagged`.
#[wasm_bindgen]
#[allow(clippy::too_many_arguments)]
pub fn set(
    address: u32,
    key: u32,
    value_type: u32,
    length: u32,
    expiry: f64,
    grace: f64,
    tagged: bool,
    expect: u32,
    version: f64,
) -> i32 {
    let mut call = call(address);
    call.take_tags(tagged);
    let draft = Draft {
        value_type: value_type as u8,
        flags: 0,
        version: call.me.version(),
        expiry,
        grace,
        tags: call.block,
        value: call.value(length),
    };
    answer(call.me, call.me.set(&call.key(key), &draft, expectation(expect, version)))
}

/// Removes the key if its entry is as expected: 1 when a live entry was removed, 0 when there was none or it was not as
/// expected, -1 busy.
#[wasm_bindgen]
pub fn remove(address: u32, key: u32, expect: u32, version: f64) -> i32 {
    let call = call(address);
    let removed = call.me.remove(&call.key(key), expectation(expect, version));
    with_ring(call.me, removed.map_or(-1, |removed| removed as i32))
}

/// Adds to a number, or stores `initial + by` with the expiry and the tags; the sum, its version and its expiry are in the
/// out part.
#[wasm_bindgen]
#[allow(clippy::too_many_arguments)]
pub fn increment(address: u32, key: u32, by: f64, initial: f64, min: f64, max: f64, expiry: f64, tagged: bool) -> i32 {
    let mut call = call(address);
    call.take_tags(tagged);
    let sum = call.me.increment(&call.key(key), &Addition { by, initial, min, max }, expiry, call.block);
    answer(
        call.me,
        sum.map(|sum| {
            call.out.number = sum.value;
            call.out.version = sum.version as f64;
            call.out.more[0] = sum.expiry;
        }),
    )
}

/// Judges a request at the rate limit of the key, and counts it unless `peek`: `DONE` when it may go through, `UNEXPECTED`
/// when it may not; the other answers are in the out part. A new limit gets the tags.
#[wasm_bindgen]
#[allow(clippy::too_many_arguments)]
pub fn limit(
    address: u32,
    key: u32,
    algorithm: u32,
    limit: f64,
    window: f64,
    burst: f64,
    cost: f64,
    peek: bool,
    tagged: bool,
) -> i32 {
    let mut call = call(address);
    call.take_tags(tagged);
    let rule = Rule { algorithm, limit, window, burst, cost, peek };
    answer(
        call.me,
        call.me.limit(&call.key(key), &rule, call.block).and_then(|verdict| {
            call.out.number = verdict.remaining;
            call.out.version = verdict.reset_at;
            call.out.more = [verdict.retry_after, verdict.reset_after];
            if verdict.allowed { Ok(()) } else { Err(Refused::Unexpected) }
        }),
    )
}

/// Gives the entry another expiry; `UNEXPECTED` when the key is absent.
#[wasm_bindgen]
pub fn touch(address: u32, key: u32, expiry: f64) -> i32 {
    let call = call(address);
    answer(call.me, there(call.me.touch(&call.key(key), expiry)))
}

/// Lets the entry expire at `now`; `UNEXPECTED` when there is no fresh entry.
#[wasm_bindgen]
pub fn expire(address: u32, key: u32, now: f64) -> i32 {
    let call = call(address);
    answer(call.me, there(call.me.expire(&call.key(key), now)))
}

/// The result of a change of an entry that may not be there.
fn there(result: Result<bool, Refused>) -> Result<(), Refused> {
    result.and_then(|there| if there { Ok(()) } else { Err(Refused::Unexpected) })
}

/// Makes every entry a miss.
#[wasm_bindgen]
pub fn clear(address: u32) -> i32 {
    let call = call(address);
    call.me.clear();
    with_ring(call.me, DONE)
}

/// Makes every entry with one of the tags in the tags part a miss. With a `now` of 0 the times of the tags stay as they are.
#[wasm_bindgen]
pub fn invalidate(address: u32, now: f64) -> i32 {
    let call = call(address);
    call.me.invalidate(call.tags(), now);
    with_ring(call.me, DONE)
}

/// Makes every entry with one of the tags in the tags part a stale one.
#[wasm_bindgen]
pub fn expire_tags(address: u32, now: f64) -> i32 {
    let call = call(address);
    call.me.expire_tags(call.tags(), now);
    with_ring(call.me, DONE)
}

/// The time of the latest invalidation of any of the tags in the tags part; 0 when there was none.
#[wasm_bindgen]
pub fn tag_times(address: u32) -> f64 {
    let call = call(address);
    call.me.tags_invalidated_at(call.tags())
}

/// The way of the next live entry at or after `cursor` whose key begins with one of the `count` beginnings in the tags part, or
/// -1 behind the last one. Its key is in the key part, its key word in the out part.
#[wasm_bindgen]
pub fn next(address: u32, cursor: u32, count: u32) -> i32 {
    let call = call(address);
    let (beginnings, count) = call.beginnings(count);
    // SAFETY: the key part has room for any key.
    match unsafe { call.me.next(cursor, &beginnings[..count], call.key.cast()) } {
        Some((way, length, kind)) => {
            call.out.word = length << KEY_KIND_BITS | kind;
            way as i32
        }
        None => -1,
    }
}
