//! The WebAssembly face: plain numbers in, plain numbers out, bytes through a scratch area that belongs to one thread.
//!
//! Every thread that has a cache open has one *area* in memory private to its process. Its address is the first
//! argument of nearly every call and stands for "this participant".
//!
//! ```text
//! area  0                                                                              128 KiB        160 KiB
//!       │ Area: participant, tag block │ out │ key │ tags │ list of chunks │ value │     │ ◄── stack    │
//!
//! out   0 kind │ chunked << 8   u32        24 entry, low, high             u32 × 2
//!       4 bytes in `tags`       u32        32 generation                   u32
//!       8 version               f64        36 clear epoch                  u32
//!      16 expiry or number      f64        40 address of the changes       / 4, u32
//!                                          44 changes, low half            u32
//!                                          48 inside: a call has begun and not returned    u32
//! ```
//!
//! The stack grows down towards the thread's own area, so a stack that were too deep would never reach another thread's.
//!
//! A call may be cut off anywhere: the JavaScript stack may end within it, or a host may terminate the script that made
//! it. Then `inside` stays 1. The host looks at it before each call; what it does then is told at [`recover`].
//!
//! A key is passed as `length << 2 | kind`, its bytes in the key part of the area. There are no mutable statics: every
//! instance writes the module's data anew when it starts, and finds the same constants there.

use core::mem::{MaybeUninit, size_of};
use core::slice;

use wasm_bindgen::prelude::wasm_bindgen;

use crate::entries::draft::Draft;
use crate::entries::read::Stamp;
use crate::entries::store::{Expect, Refused};
use crate::entries::tags::{Block, MAX_BLOCK};
use crate::format::layout::{
    self, Geometry, INSPECTED_BYTES, MAX_KEY, MAX_RECORD, MAX_SEGMENTS, MAX_VALUE, META_BUMP, WAYS,
};
use crate::format::region::Region;
use crate::format::segment::{Phase, State};
use crate::index::entry::{Entry, EntryState};
use crate::index::key::Key;
use crate::participant::participant::{Host, Participant};
use crate::participant::recover::{self, Mismatch};
use crate::sync::Relaxed;

const AREA_BYTES: usize = 160 << 10;
/// Room for the stack of a thread, at the end of its area. What the deepest call needs is measured by a test.
const STACK_BYTES: usize = 32 << 10;
/// The most tags of the deepest namespace, each with its prefix.
const TAGS_BYTES: usize = 12 << 10;
/// `{total, place …}` of the largest value in the smallest chunks that a region of its size has.
const LIST_WORDS: usize = 4 + (MAX_VALUE / (MAX_RECORD - 64)) as usize;

/// Results of calls that change something.
const DONE: i32 = 0;
const UNEXPECTED: i32 = 1;
const TOO_LARGE: i32 = 2;
const NOT_A_NUMBER: i32 = 3;
const BUSY: i32 = 4;

#[link(wasm_import_module = "host")]
unsafe extern "C" {
    /// Milliseconds.
    safe fn now() -> f64;
    /// Proof that nobody living owns a slot: 1, and the slot is the caller's until `release`.
    safe fn take(slot: u32) -> u32;
    safe fn release(slot: u32);
    /// Waits a little; 0 when the time for waiting is over.
    safe fn pause(attempt: u32) -> u32;
}

struct Javascript;

impl Host for Javascript {
    fn now(&self) -> f64 {
        now()
    }

    fn take(&self, slot: u32) -> bool {
        take(slot) != 0
    }

    fn release(&self, slot: u32) {
        release(slot)
    }

    fn pause(&self, attempt: u32) -> bool {
        pause(attempt) != 0
    }
}

#[repr(C, align(8))]
struct Out {
    kind: u32,
    tags: u32,
    version: f64,
    number: f64,
    stamp: OutStamp,
    inside: u32,
}

#[repr(C)]
struct OutStamp {
    entry: u64,
    generation: u32,
    epoch: u32,
    changes_at: u32,
    changes: u32,
}

#[repr(C, align(8))]
struct Area {
    participant: MaybeUninit<Participant<Javascript>>,
    block: Block,
    out: Out,
    key: [u64; MAX_KEY as usize / 8 + 1],
    tags: [u64; TAGS_BYTES / 8],
    list: [u64; LIST_WORDS],
    value: [u64; MAX_RECORD as usize / 8 + 2],
}

const _: () = assert!(STACK_BYTES + size_of::<Area>() <= AREA_BYTES);
const _: () = assert!(MAX_BLOCK as usize <= TAGS_BYTES);
/// What `segments` tells fits the value part.
const _: () = assert!(MAX_SEGMENTS * 16 <= MAX_RECORD);

/// The parts of an area that one call works with, borrowed separately.
///
/// While it lives, the area says that a call is under way.
struct Call<'a> {
    me: &'a Participant<Javascript>,
    block: &'a mut Block,
    out: &'a mut Out,
    key: *mut u64,
    tags: *mut u64,
    list: &'a mut [u64; LIST_WORDS],
    value: *mut u8,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        // SAFETY: a reference is valid. Volatile, so that the two stores are not merged: there may be no call that needs
        // memory between them, but there are calls that may run out of stack.
        unsafe { (&raw mut self.out.inside).write_volatile(0) }
    }
}

fn area(address: u32) -> *mut Area {
    address as usize as *mut Area
}

fn call<'a>(address: u32) -> Call<'a> {
    let area = area(address);
    // SAFETY: the host passes the address of an area it has attached, which belongs to the calling thread alone; calls
    // never nest, as the host functions do not call back.
    unsafe {
        // Before anything is called; the partner of the store in `drop`.
        (&raw mut (*area).out.inside).write_volatile(1);
        Call {
            me: (*area).participant.assume_init_ref(),
            block: &mut (*area).block,
            out: &mut (*area).out,
            key: (&raw mut (*area).key).cast(),
            tags: (&raw mut (*area).tags).cast(),
            list: &mut (*area).list,
            value: (&raw mut (*area).value).cast(),
        }
    }
}

impl Call<'_> {
    /// The key in the area, its last word filled up with zeros.
    #[inline(always)]
    fn key(&self, key: u32) -> Key<'static> {
        let length = (key >> 2).min(MAX_KEY);
        // SAFETY: the key part has a spare word behind the longest key, and stays as it is during the call.
        let words = unsafe {
            self.key.cast::<u8>().add(length as usize).cast::<u64>().write_unaligned(0);
            slice::from_raw_parts(self.key, length.div_ceil(8) as usize)
        };
        Key::new(words, length, key & 3, self.me.seed)
    }

    /// The first `length` bytes of the value part.
    fn value(&self, length: u32) -> &'static [u8] {
        // SAFETY: within the value part, which has a spare word for copies in whole words.
        unsafe { slice::from_raw_parts(self.value, length.min(MAX_RECORD) as usize) }
    }

    /// Builds the tag block from the tags part when there are tags.
    fn take_tags(&mut self, tagged: bool) {
        // SAFETY: the whole tags part is initialised memory.
        let given = unsafe { slice::from_raw_parts(self.tags.cast::<u8>(), if tagged { TAGS_BYTES } else { 0 }) };
        self.me.tag_block(given, self.block);
    }

    #[inline(always)]
    fn put_stamp(&mut self, stamp: &Stamp, changes: u64) {
        let region = &self.me.region;
        self.out.stamp = OutStamp {
            entry: stamp.entry,
            generation: stamp.generation,
            epoch: stamp.clear_epoch,
            // Little-endian: the low half comes first.
            changes_at: region.word(region.geometry.changes(stamp.bucket())) as *const _ as u32 / 4,
            changes: changes as u32,
        };
    }
}

fn expectation(expect: u32, version: f64) -> Expect {
    match expect {
        1 => Expect::Absent,
        2 => Expect::Present,
        3 => Expect::Version(version as u64),
        _ => Expect::Anything,
    }
}

fn code(result: Result<(), Refused>) -> i32 {
    match result {
        Ok(()) => DONE,
        Err(Refused::Unexpected) => UNEXPECTED,
        Err(Refused::TooLarge) => TOO_LARGE,
        Err(Refused::NotANumber) => NOT_A_NUMBER,
        Err(Refused::Busy) => BUSY,
    }
}

/// Version of the layout that this module reads and writes.
#[wasm_bindgen]
pub fn layout_version() -> u32 {
    layout::LAYOUT_VERSION
}

/// Smallest region in bytes.
#[wasm_bindgen]
pub fn min_size() -> f64 {
    layout::MIN_SIZE as f64
}

/// Largest region in bytes.
#[wasm_bindgen]
pub fn max_size() -> f64 {
    layout::MAX_SIZE as f64
}

/// Threads that can have a region of `size` bytes open at once.
#[wasm_bindgen]
pub fn participants_of(size: u32) -> u32 {
    layout::participants(size)
}

/// Bytes of a thread's area; the stack pointer starts at their end.
#[wasm_bindgen]
pub fn area_bytes() -> u32 {
    AREA_BYTES as u32
}

/// Where the out part of an area lies.
#[wasm_bindgen]
pub fn out_at(address: u32) -> u32 {
    // SAFETY: only computes an address.
    unsafe { &raw const (*area(address)).out as u32 }
}

/// Where the key part of an area lies: `MAX_KEY` bytes.
#[wasm_bindgen]
pub fn key_at(address: u32) -> u32 {
    // SAFETY: only computes an address.
    unsafe { &raw const (*area(address)).key as u32 }
}

/// Where the tags part of an area lies: 12 KiB.
#[wasm_bindgen]
pub fn tags_at(address: u32) -> u32 {
    // SAFETY: only computes an address.
    unsafe { &raw const (*area(address)).tags as u32 }
}

/// Where the value part of an area lies: `MAX_RECORD` bytes.
#[wasm_bindgen]
pub fn value_at(address: u32) -> u32 {
    // SAFETY: only computes an address.
    unsafe { &raw const (*area(address)).value as u32 }
}

/// Where the counters of the region's tags lie, eight bytes each, of which the first four count.
#[wasm_bindgen]
pub fn tag_counters_at(address: u32) -> u32 {
    let call = call(address);
    let region = &call.me.region;
    region.word(region.geometry.tag_counter(0)) as *const _ as u32
}

/// Where the clear epoch lies, four bytes.
#[wasm_bindgen]
pub fn clear_epoch_at(address: u32) -> u32 {
    call(address).me.region.word(layout::CLEAR_EPOCH_AT) as *const _ as u32
}

/// Where this participant's near cache counts its hits, as a double.
#[wasm_bindgen]
pub fn near_hits_at(address: u32) -> u32 {
    let call = call(address);
    let me = call.me;
    me.region.word(me.region.geometry.seat(me.seat) + layout::SEAT_NEAR_HITS) as *const _ as u32
}

/// Where this participant's slot in the region lies: its epoch, hazard and pending words; see `layout.rs`.
#[wasm_bindgen]
pub fn slot_at(address: u32) -> u32 {
    let call = call(address);
    let me = call.me;
    me.region.word(me.region.geometry.seat(me.seat)) as *const _ as u32
}

/// How many of the tags' counters there are, a power of two.
#[wasm_bindgen]
pub fn tag_counters(address: u32) -> u32 {
    call(address).me.region.geometry.tag_counters
}

/// Longest key in bytes.
#[wasm_bindgen]
pub fn max_key() -> u32 {
    MAX_KEY
}

/// Most tags of one entry; one of them is kept for a namespace.
#[wasm_bindgen]
pub fn max_tags() -> u32 {
    layout::MAX_TAGS
}

/// Longest tag in bytes.
#[wasm_bindgen]
pub fn max_tag() -> u32 {
    layout::MAX_TAG
}

/// Largest value in bytes that a region of `size` bytes takes.
#[wasm_bindgen]
pub fn max_value(size: u32) -> u32 {
    Geometry::of(size).map_or(0, |geometry| geometry.max_value)
}

/// Key, tags and value together may have this many bytes in one record; beyond, the value is written in chunks.
#[wasm_bindgen]
pub fn max_inline(size: u32) -> u32 {
    Geometry::of(size).map_or(0, |geometry| geometry.max_record - 64)
}

/// Makes an empty cache of zeroed memory at `base`; the seed is 128 random bits.
#[wasm_bindgen]
pub fn format(base: u32, size: u32, seed_0: u32, seed_1: u32, seed_2: u32, seed_3: u32) -> bool {
    // SAFETY: the host passes a mapped range that nobody else sees yet.
    let region = unsafe { Region::new(base as usize as *mut u8, size) };
    let word = |low: u32, high: u32| (high as u64) << 32 | low as u64;
    region.map(|region| recover::format(&region, [word(seed_0, seed_1), word(seed_2, seed_3)])).is_some()
}

/// Checks the first bytes of a region, copied to or lying at `header`: 0 when a region of `size` bytes of this layout
/// begins so, 1 foreign, 2 another layout version, 3 another size.
#[wasm_bindgen]
pub fn inspect(header: u32, size: f64) -> u32 {
    // SAFETY: the host passes an address aligned to eight with that many bytes.
    let words = unsafe { slice::from_raw_parts(header as usize as *const u64, INSPECTED_BYTES as usize / 8) };
    match recover::inspect(words, size as u64) {
        Ok(()) => 0,
        Err(Mismatch::Foreign) => 1,
        Err(Mismatch::Version(_)) => 2,
        Err(Mismatch::Size(_)) => 3,
    }
}

/// Joins the region at `base` in a slot that the caller owns by proof. False when `size` is impossible.
#[wasm_bindgen]
pub fn attach(address: u32, base: u32, size: u32, slot: u32) -> bool {
    // SAFETY: the host passes a mapped and formatted range and an area of its own.
    unsafe {
        let Some(region) = Region::new(base as usize as *mut u8, size) else {
            return false;
        };
        let area = area(address);
        // Before anything can run: the block is only ever read up to its length.
        (&raw mut (*area).out.inside).write_volatile(0);
        (&raw mut (*area).block).write(Participant::<Javascript>::no_tags());
        (*area).participant.write(Participant::attach(region, Javascript, slot % region.geometry.participants));
    }
    true
}

/// Leaves; the area may be attached again.
#[wasm_bindgen]
pub fn detach(address: u32) {
    call(address).me.detach()
}

/// Makes the participant usable again after a call that did not return. The host resets the stack pointer first. What the
/// participant held in the region it may have given up already, with the four stores of `Participant::recover` to its slot:
/// JavaScript can make them where the stack has ended and nothing can be called.
#[wasm_bindgen]
pub fn recover(address: u32) {
    call(address).me.recover()
}

/// A glance at the index: whether the key seems to be there. The stamp of the entry that is probably its own is in `out`.
#[wasm_bindgen]
pub fn find(address: u32, key: u32) -> bool {
    let mut call = call(address);
    let sight = call.me.find(&call.key(key));
    if let Some(sight) = &sight {
        call.put_stamp(&sight.stamp, sight.changes);
    }
    sight.is_some()
}

/// Looks the key up; the length of its value, or -1 for a miss. What `want` names is in the area.
#[wasm_bindgen]
pub fn get(address: u32, key: u32, want: u32) -> i32 {
    let mut call = call(address);
    // SAFETY: both parts of the area are large enough and aligned.
    match unsafe { call.me.get(&call.key(key), want, call.value, call.tags.cast()) } {
        Some(found) => {
            call.out.kind = found.value_type as u32 | (found.chunked as u32) << 8;
            call.out.tags = found.tags;
            call.out.version = found.version as f64;
            call.out.number = found.expiry;
            call.put_stamp(&found.stamp, 0);
            found.length.min(MAX_VALUE as u64) as i32
        }
        None => -1,
    }
}

/// Stores the first `length` bytes of the value part. `expect`: 0 anything, 1 absent, 2 present, 3 `version`.
#[wasm_bindgen]
#[allow(clippy::too_many_arguments)]
pub fn set(
    address: u32,
    key: u32,
    kind: u32,
    length: u32,
    expiry: f64,
    tagged: bool,
    expect: u32,
    version: f64,
) -> i32 {
    let mut call = call(address);
    call.take_tags(tagged);
    let draft = Draft {
        value_type: kind as u8,
        flags: 0,
        version: call.me.version(),
        expiry,
        tags: call.block,
        value: call.value(length),
    };
    code(call.me.set(&call.key(key), &draft, expectation(expect, version)))
}

/// Bytes of a large value in each of its chunks but the last.
#[wasm_bindgen]
pub fn chunk_bytes(address: u32) -> u32 {
    call(address).me.chunk_bytes()
}

/// Begins a large value of `total` bytes; its version is in `out`.
#[wasm_bindgen]
pub fn begin_large(address: u32, total: u32) {
    let call = call(address);
    call.list[0] = total as u64;
    call.out.version = call.me.version() as f64;
}

/// Writes chunk `number`: the first `length` bytes of the value part.
#[wasm_bindgen]
pub fn write_chunk(address: u32, key: u32, version: f64, number: u32, length: u32) -> i32 {
    let call = call(address);
    let (key, bytes) = (call.key(key), call.value(length));
    let Some(place) = call.list.get_mut(number as usize + 1) else {
        return TOO_LARGE;
    };
    match call.me.write_chunk(&key, version as u64, number, bytes) {
        Ok(at) => {
            *place = at.0;
            DONE
        }
        Err(_) => BUSY,
    }
}

/// Stores the head over the `count` chunks written since `begin_large`.
#[wasm_bindgen]
#[allow(clippy::too_many_arguments)]
pub fn commit_large(
    address: u32,
    key: u32,
    kind: u32,
    count: u32,
    new_version: f64,
    expiry: f64,
    tagged: bool,
    expect: u32,
    version: f64,
) -> i32 {
    let mut call = call(address);
    call.take_tags(tagged);
    let Some(list) = call.list.get(..count as usize + 1) else {
        return TOO_LARGE;
    };
    let expect = expectation(expect, version);
    code(call.me.set_large(&call.key(key), kind as u8, new_version as u64, expiry, call.block, list, expect))
}

/// Gives the `count` chunks written since `begin_large` up.
#[wasm_bindgen]
pub fn abandon_large(address: u32, count: u32) {
    let call = call(address);
    if let Some(places) = call.list.get(1..count as usize + 1) {
        call.me.abandon_chunks(places);
    }
}

/// Copies chunk `number` of this version of the key to the value part: its length, or -1 when that version is gone.
#[wasm_bindgen]
pub fn read_chunk(address: u32, key: u32, version: f64, number: u32) -> i32 {
    let call = call(address);
    // SAFETY: the value part has room for any record.
    match unsafe { call.me.read_chunk(&call.key(key), version as u64, number, call.value) } {
        Some(length) => length as i32,
        None => -1,
    }
}

/// Removes the key if it is as expected: 1 when it was, 0 when not, -1 busy.
#[wasm_bindgen]
pub fn remove(address: u32, key: u32, expect: u32, version: f64) -> i32 {
    let call = call(address);
    call.me.remove(&call.key(key), expectation(expect, version)).map_or(-1, |removed| removed as i32)
}

/// Adds to a number; the sum is in `out`.
#[wasm_bindgen]
pub fn increment(address: u32, key: u32, by: f64, initial: f64, expiry: f64, tagged: bool) -> i32 {
    let mut call = call(address);
    call.take_tags(tagged);
    code(call.me.increment(&call.key(key), by, initial, expiry, call.block).map(|sum| call.out.number = sum))
}

/// Gives the entry another expiry. 0 done, 1 absent, 2 too large, 4 busy.
#[wasm_bindgen]
pub fn touch(address: u32, key: u32, expiry: f64) -> i32 {
    let call = call(address);
    let touched = call.me.touch(&call.key(key), expiry);
    code(touched.and_then(|there| if there { Ok(()) } else { Err(Refused::Unexpected) }))
}

/// Makes every entry a miss.
#[wasm_bindgen]
pub fn clear(address: u32) {
    call(address).me.clear()
}

/// Makes every entry with one of the tags in the tags part a miss.
#[wasm_bindgen]
pub fn invalidate(address: u32) {
    let call = call(address);
    // SAFETY: the whole tags part is initialised memory.
    call.me.invalidate(unsafe { slice::from_raw_parts(call.tags.cast::<u8>(), TAGS_BYTES) })
}

/// The way of the next live entry at or after `cursor`, -1 behind the last. Its key is in the key part, and as
/// `length << 2 | kind` in `out.tags`.
#[wasm_bindgen]
pub fn next(address: u32, cursor: u32) -> i32 {
    let call = call(address);
    // SAFETY: the key part has room for any key.
    match unsafe { call.me.next(cursor, call.key.cast()) } {
        Some((way, length, kind)) => {
            call.out.tags = length << 2 | kind;
            way as i32
        }
        None => -1,
    }
}

/// The sum of a counter over all participants that ever were: the order of [`layout::Counter`].
#[wasm_bindgen]
pub fn counter(address: u32, counter: u32) -> f64 {
    call(address).me.sum(counter) as f64
}

/// Participants attached now.
#[wasm_bindgen]
pub fn participants(address: u32) -> u32 {
    call(address).me.participants()
}

/// Live entries, by walking the index; in `out.tags` how many of them belong to a namespace, in `out.number` the bytes
/// they take in the log.
#[wasm_bindgen]
pub fn census(address: u32) -> u32 {
    let call = call(address);
    let census = call.me.census();
    call.out.tags = census.namespaced;
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

/// Where the segments are in their lives: four numbers for each in the value part, `{phase │ class << 8, bytes appended,
/// live bytes, generation}`. How many segments there are.
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
        let told = [state.phase() as u32 | (state.class() as u32) << 8, used as u32, live as u32, state.generation()];
        // SAFETY: the value part has room for that many segments, asserted above.
        unsafe { call.value.cast::<[u32; 4]>().add(segment as usize).write(told) };
    }
    geometry.segments
}

/// How full the index is: two numbers for each of `parts` equal parts of it in the value part, `{entries, ghosts}`. The
/// entries that a part has room for.
#[wasm_bindgen]
pub fn occupancy(address: u32, parts: u32) -> u32 {
    let call = call(address);
    let region = &call.me.region;
    let geometry = &region.geometry;
    let parts = parts.clamp(1, geometry.buckets.min(MAX_RECORD / 8));
    let buckets = geometry.buckets / parts;
    for part in 0..parts {
        let mut told = [0u32; 2];
        for way in part * buckets * 16..(part + 1) * buckets * 16 {
            if way % 16 < WAYS {
                let entry = Entry(region.word(geometry.bucket(0) + way * 8).load(Relaxed));
                told[0] += entry.is_live() as u32;
                told[1] += (entry.state() == EntryState::Ghost) as u32;
            }
        }
        // SAFETY: the value part has room for that many parts.
        unsafe { call.value.cast::<[u32; 2]>().add(part as usize).write(told) };
    }
    buckets * WAYS
}

/// Checks every invariant while nobody writes: 0, or which one is broken.
#[wasm_bindgen]
pub fn validate(address: u32) -> u32 {
    call(address).me.validate().map_or_else(|broken| broken as u32, |()| 0)
}
