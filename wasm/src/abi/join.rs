//! Making a region, joining and leaving it, and what depends on the size of a region alone.

use wasm_bindgen::prelude::wasm_bindgen;

use crate::abi::area::{Javascript, area, call};
use crate::format::layout::{self, Geometry};
use crate::format::region::Region;
use crate::participant::participant::Participant;
use crate::participant::recover;

/// Seats of a region of `size` bytes: the threads that can have it open at once.
#[wasm_bindgen]
pub fn seats_of(size: u32) -> u32 {
    layout::participants(size)
}

/// Largest value in bytes that a region of `size` bytes takes.
#[wasm_bindgen]
pub fn max_value(size: u32) -> u32 {
    Geometry::of(size).map_or(0, |geometry| geometry.max_value)
}

/// Most bytes of key, tags and value together in one record of a region of `size` bytes; a larger value is written in
/// chunks.
#[wasm_bindgen]
pub fn max_inline(size: u32) -> u32 {
    Geometry::of(size).map_or(0, |geometry| geometry.max_record - 64)
}

/// Makes an empty cache of zeroed memory at `base`. The seed is 128 random bits. False when no region has that size.
#[wasm_bindgen]
pub fn format(base: u32, size: u32, seed_0: u32, seed_1: u32, seed_2: u32, seed_3: u32) -> bool {
    // SAFETY: the host passes a mapped range that nobody else sees yet.
    let region = unsafe { Region::new(base as usize as *mut u8, size) };
    let word = |low: u32, high: u32| (high as u64) << 32 | low as u64;
    region.map(|region| recover::format(&region, [word(seed_0, seed_1), word(seed_2, seed_3)])).is_some()
}

/// Joins the region at `base` in a seat that the caller owns by proof. False when no region has that size.
#[wasm_bindgen]
pub fn attach(address: u32, base: u32, size: u32, seat: u32) -> bool {
    // SAFETY: the host passes a mapped and formatted range and an area of its own.
    unsafe {
        let Some(region) = Region::new(base as usize as *mut u8, size) else {
            return false;
        };
        let area = area(address);
        // Before the first call of the new participant.
        (&raw mut (*area).out.inside).write_volatile(0);
        (&raw mut (*area).block).write(Participant::<Javascript>::no_tags());
        (*area).participant.write(Participant::attach(region, Javascript, seat % region.geometry.participants));
    }
    true
}

/// Looks at the region at `base` without joining it: has no seat and writes nothing there. False when no region has that size.
///
/// Such a participant may call only what writes nothing: `get` with `WANT_QUIET`, `read_chunk`, `next`, `residence`, and all of
/// `observe.rs` but `participants`. The host's `take` must answer 0.
#[wasm_bindgen]
pub fn spectate(address: u32, base: u32, size: u32) -> bool {
    // SAFETY: the host passes a mapped range of a region's size and an area of its own.
    unsafe {
        let Some(region) = Region::new(base as usize as *mut u8, size) else {
            return false;
        };
        let area = area(address);
        // Before the first call of the new participant.
        (&raw mut (*area).out.inside).write_volatile(0);
        (&raw mut (*area).block).write(Participant::<Javascript>::no_tags());
        (*area).participant.write(Participant::spectate(region, Javascript));
    }
    true
}

/// Leaves the region; the area may be attached again.
#[wasm_bindgen]
pub fn detach(address: u32) {
    call(address).me.detach()
}

/// Makes the participant usable again after a call that did not return. The host resets the stack pointer before. It may
/// have given up already what the participant held in the region, with atomic stores to its seat, as `Participant::recover`
/// does: JavaScript can make these where the stack has ended, because they are built in.
#[wasm_bindgen]
pub fn recover(address: u32) {
    call(address).me.recover()
}

/// Address of this participant's seat in the region.
#[wasm_bindgen]
pub fn seat_at(address: u32) -> u32 {
    let call = call(address);
    let me = call.me;
    me.region.word(me.region.geometry.seat(me.seat)) as *const _ as u32
}

/// Address of the counters of the region's tags: `TAG_COUNTER_WORDS` words of four bytes each.
#[wasm_bindgen]
pub fn tag_counters_at(address: u32) -> u32 {
    let call = call(address);
    let region = &call.me.region;
    region.word(region.geometry.tag_counter(0)) as *const _ as u32
}

/// How many counters of tags the region has, a power of two.
#[wasm_bindgen]
pub fn tag_counters(address: u32) -> u32 {
    call(address).me.region.geometry.tag_counters
}
