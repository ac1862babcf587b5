//! Large values: written and read chunk by chunk. The list of the chunks written so far is in the area.

use wasm_bindgen::prelude::wasm_bindgen;

use crate::abi::area::call;
use crate::abi::contract::{BUSY, DONE, TOO_LARGE};
use crate::abi::entries::{answer, expectation};

/// Bytes of a large value in each of its chunks but the last.
#[wasm_bindgen]
pub fn chunk_bytes(address: u32) -> u32 {
    call(address).me.chunk_bytes()
}

/// Begins a large value of `total` bytes; its version is in the out part.
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

/// Stores the head that lists the `count` chunks that were written since `begin_large`.
#[wasm_bindgen]
#[allow(clippy::too_many_arguments)]
pub fn commit_large(
    address: u32,
    key: u32,
    value_type: u32,
    count: u32,
    new_version: f64,
    expiry: f64,
    grace: f64,
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
    let stored = call.me.set_large(
        &call.key(key),
        value_type as u8,
        new_version as u64,
        expiry,
        grace,
        call.block,
        list,
        expect,
    );
    answer(call.me, stored)
}

/// Gives up the `count` chunks that were written since `begin_large`.
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
