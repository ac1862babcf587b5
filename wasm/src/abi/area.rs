//! The area of a thread: the memory in which a call finds bytes as arguments, and leaves all results but the number that it
//! returns.
//!
//! ```text
//! area  0                                                                                       184 KiB        216 KiB
//!       │ participant │ tag block │ out │ key │ group │ tags │ list of chunks │ value │ unused  │ ◄── stack    │
//!
//! out   0 u32   bits 0–7 value type, 8 in chunks, 9 stale 32 u32   generation ─────────┘
//!       4 u32   word: tag bytes, key word …               36 u32   clear epoch
//!       8 f64   version                                   40 u32   address of the changes / 4
//!      16 f64   number: expiry, sum …                     44 u32   changes, low half
//!      24 u64   entry at its highest heat ─── stamp ─┐    48 u32   inside: a call has begun and not returned
//!                                                         52 u32   seat of the owner of a claim, 56 u32 its tenure
//!                                                         60 u32   start of a claim: sequence, 64 u32 clear epoch
//!                                                         68 u32   class of the bucket
//!                                                         72 f64   two more numbers: a grace, of an increment or a limit
//! ```
//!
//! The stack grows down towards the other parts of the same area. So a stack that grew a little too deep would not reach the
//! area of another thread.
//!
//! A call can be cut off anywhere: the JavaScript stack may end within it, or the host may terminate the script that made
//! it. Then `inside` stays 1. The host reads `inside` before each call, and calls [`recover`](super::join::recover) when it
//! is not 0.

use core::mem::{MaybeUninit, offset_of, size_of};
use core::slice;

use crate::entries::read::Stamp;
use crate::entries::tags::{Block, GIVEN_HEADER, LENGTH_BYTES, MAX_BLOCK, MAX_PREFIX};
use crate::format::hash::hash;
use crate::format::layout::{
    MAX_KEY, MAX_RECORD, MAX_SIZE, MAX_TAG_NAME, MAX_TAGS, MAX_VALUE, PAGE, WORD, participants,
};
use crate::index::key::{Beginning, Key};
use crate::index::prefetch::GROUP;
use crate::participant::participant::{Host, Participant};

/// Bytes of an area. The areas of all seats fit below the largest region into the 4 GiB of a memory.
pub const AREA_BYTES: usize = 216 << 10;
/// Bytes of the stack, at the end of the area. A test measures what the deepest call needs.
pub const STACK_BYTES: usize = 32 << 10;
/// Bytes of the tags part: the most tags of the deepest namespace, behind its prefix.
pub const TAGS_BYTES: usize =
    (GIVEN_HEADER + MAX_PREFIX + MAX_TAGS * (LENGTH_BYTES + MAX_TAG_NAME)).next_multiple_of(WORD) as usize;
/// Words of `{total, place …}` for the largest value. A region that takes such a value has chunks of `MAX_RECORD`, and a
/// smaller region has smaller chunks but also smaller values.
const LIST_WORDS: usize = 4 + (MAX_VALUE / (MAX_RECORD - 64)) as usize;

/// Words of a key's slot in a group; the last one is spare. A longer key is in no group.
pub const SLOT_WORDS: usize = 25;

/// A key is passed as `length << KEY_KIND_BITS | key kind`; its bytes are in the key part.
pub const KEY_KIND_BITS: u32 = 2;

#[link(wasm_import_module = "host")]
unsafe extern "C" {
    /// Milliseconds.
    safe fn now() -> f64;
    /// 1 is proof that nobody living owns the seat; the seat is the caller's until `release`.
    safe fn take(seat: u32) -> u32;
    safe fn release(seat: u32);
    /// Waits a little; 0 when the time for waiting is over.
    safe fn pause(attempt: u32) -> u32;
}

/// The imports of the module, which JavaScript provides.
pub struct Javascript;

impl Host for Javascript {
    fn now(&self) -> f64 {
        now()
    }

    fn take(&self, seat: u32) -> bool {
        take(seat) != 0
    }

    fn release(&self, seat: u32) {
        release(seat)
    }

    fn pause(&self, attempt: u32) -> bool {
        pause(attempt) != 0
    }
}

/// Results beside the one number that a call returns; drawn above. `contract.rs` tells what each call writes.
#[repr(C, align(8))]
pub struct Out {
    pub value_type: u32,
    pub word: u32,
    pub version: f64,
    pub number: f64,
    pub stamp: OutStamp,
    pub inside: u32,
    pub owner_seat: u32,
    pub owner_tenure: u32,
    pub start_sequence: u32,
    pub start_clear_epoch: u32,
    pub class: u32,
    pub more: [f64; 2],
}

/// A stamp and its proof. The entry and the generation lie side by side: near caches compare the stamp word by word.
#[repr(C)]
pub struct OutStamp {
    pub entry: u64,
    pub generation: u32,
    pub clear_epoch: u32,
    pub changes_at: u32,
    pub changes: u32,
}

/// The keys of a group of lookups. No other call changes them.
#[repr(C, align(8))]
pub struct Group {
    /// As keys are passed.
    pub keys: [u32; GROUP],
    pub hashes: [u64; GROUP],
    pub slots: [[u64; SLOT_WORDS]; GROUP],
}

#[repr(C, align(8))]
pub struct Area {
    pub participant: MaybeUninit<Participant<Javascript>>,
    pub block: Block,
    pub out: Out,
    pub key: [u64; MAX_KEY as usize / 8 + 1],
    pub group: Group,
    pub tags: [u64; TAGS_BYTES / 8],
    pub list: [u64; LIST_WORDS],
    pub value: [u64; MAX_RECORD as usize / 8 + 2],
}

const _: () = assert!(STACK_BYTES + size_of::<Area>() <= AREA_BYTES);
const _: () = assert!(MAX_BLOCK as usize <= TAGS_BYTES);
/// The module's own data lies in the first page.
const _: () = {
    let areas = participants(MAX_SIZE) as u64 * AREA_BYTES as u64;
    assert!((PAGE as u64 + areas).next_multiple_of(PAGE as u64) + MAX_SIZE as u64 <= 4 << 30);
};
/// The out part is as drawn.
const _: () = {
    assert!(offset_of!(Out, value_type) == 0 && offset_of!(Out, word) == 4);
    assert!(offset_of!(Out, version) == 8 && offset_of!(Out, number) == 16 && offset_of!(Out, stamp) == 24);
    assert!(offset_of!(OutStamp, entry) == 0 && offset_of!(OutStamp, generation) == 8);
    assert!(offset_of!(OutStamp, clear_epoch) == 12);
    assert!(offset_of!(OutStamp, changes_at) == 16 && offset_of!(OutStamp, changes) == 20);
    assert!(offset_of!(Out, inside) == 48 && offset_of!(Out, owner_seat) == 52 && offset_of!(Out, class) == 68);
    assert!(offset_of!(Out, more) == 72);
};

/// The parts of an area that one call works with, borrowed separately.
///
/// While it lives, `inside` is 1.
pub struct Call<'a> {
    pub me: &'a Participant<Javascript>,
    pub block: &'a mut Block,
    pub out: &'a mut Out,
    pub key: *mut u64,
    pub group: &'a mut Group,
    pub tags: *mut u64,
    pub list: &'a mut [u64; LIST_WORDS],
    pub value: *mut u8,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        // SAFETY: a reference is valid. Volatile, so that the compiler does not merge this store with the store of 1. The
        // compiler may see no access to memory between the two, but a call between them may run out of stack.
        unsafe { (&raw mut self.out.inside).write_volatile(0) }
    }
}

/// The most beginnings of keys for one walk: one for each key kind.
pub const MAX_BEGINNINGS: usize = 4;

const KIND_MASK: u32 = (1 << KEY_KIND_BITS) - 1;

fn length_in_slot(key: u32) -> u32 {
    (key >> KEY_KIND_BITS).min((SLOT_WORDS as u32 - 1) * 8)
}

/// The area at `address`.
pub fn area(address: u32) -> *mut Area {
    address as usize as *mut Area
}

/// Begins a call of the participant whose area lies at `address`.
pub fn call<'a>(address: u32) -> Call<'a> {
    let area = area(address);
    // SAFETY: the host passes the address of an area that it has attached and that belongs to the calling thread alone.
    // Calls never nest, as the imported functions do not call back.
    unsafe {
        // Before anything is called. Volatile like the store in `drop`, for the same reason.
        (&raw mut (*area).out.inside).write_volatile(1);
        Call {
            me: (*area).participant.assume_init_ref(),
            block: &mut (*area).block,
            out: &mut (*area).out,
            key: (&raw mut (*area).key).cast(),
            group: &mut (*area).group,
            tags: (&raw mut (*area).tags).cast(),
            list: &mut (*area).list,
            value: (&raw mut (*area).value).cast(),
        }
    }
}

impl Call<'_> {
    /// The key in the area. Fills its last word up with zeros.
    #[inline(always)]
    pub fn key(&self, key: u32) -> Key<'static> {
        let length = (key >> KEY_KIND_BITS).min(MAX_KEY);
        // SAFETY: the key part has a spare word behind the longest key, and stays as it is during the call.
        let words = unsafe {
            self.key.cast::<u8>().add(length as usize).cast::<u64>().write_unaligned(0);
            slice::from_raw_parts(self.key, length.div_ceil(8) as usize)
        };
        Key::new(words, length, key & KIND_MASK, self.me.seed)
    }

    /// Hashes the first `count` keys of the group. Fills their last words up with zeros.
    pub fn hash_group(&mut self, count: u32) -> &[u64] {
        let Group { keys, hashes, slots } = &mut *self.group;
        let count = (count as usize).min(GROUP);
        for ((&key, hash), slot) in keys.iter().zip(hashes.iter_mut()).zip(slots).take(count) {
            let length = length_in_slot(key);
            if length % 8 != 0 {
                slot[length as usize / 8] &= (1 << (length % 8 * 8)) - 1;
            }
            *hash = self::hash(slot, length, key & KIND_MASK, self.me.seed);
        }
        &hashes[..count]
    }

    /// Key number `i` of the group, which [`Call::hash_group`] has hashed.
    pub fn group_key(&self, i: u32) -> Key<'_> {
        let i = i as usize % GROUP;
        let Group { keys, hashes, slots } = &*self.group;
        let length = length_in_slot(keys[i]);
        Key { words: &slots[i][..length.div_ceil(8) as usize], length, kind: keys[i] & KIND_MASK, hash: hashes[i] }
    }

    /// The first `length` bytes of the value part.
    pub fn value(&self, length: u32) -> &'static [u8] {
        // SAFETY: within the value part, which has a spare word for copies in whole words.
        unsafe { slice::from_raw_parts(self.value, length.min(MAX_RECORD) as usize) }
    }

    /// The whole tags part.
    pub fn tags(&self) -> &'static [u8] {
        // SAFETY: the whole tags part is initialised memory, and stays as it is during the call.
        unsafe { slice::from_raw_parts(self.tags.cast::<u8>(), TAGS_BYTES) }
    }

    /// The first beginnings in the tags part: for each its key word in eight bytes, and its bytes, filled up to whole words.
    pub fn beginnings(&self, count: u32) -> ([Beginning<'static>; MAX_BEGINNINGS], usize) {
        // SAFETY: as in `tags`.
        let mut rest: &[u64] = unsafe { slice::from_raw_parts(self.tags, TAGS_BYTES / 8) };
        let mut beginnings = [Beginning { kind: 0, length: 0, words: &[] }; MAX_BEGINNINGS];
        let count = (count as usize).min(MAX_BEGINNINGS);
        for beginning in beginnings.iter_mut().take(count) {
            let Some((key, after)) = rest.split_first() else {
                break;
            };
            let length = (*key as u32 >> KEY_KIND_BITS).min(MAX_KEY);
            let words;
            (words, rest) = after.split_at((length as usize).div_ceil(8).min(after.len()));
            *beginning = Beginning { kind: *key as u32 & KIND_MASK, length, words };
        }
        (beginnings, count)
    }

    /// Builds the tag block from the tags part; an empty one unless `tagged`.
    pub fn take_tags(&mut self, tagged: bool) {
        let given = if tagged { self.tags() } else { &[] };
        self.me.tag_block(given, self.block);
    }

    /// Writes the stamp and its proof to the out part: where the change counter of the bucket lies, and its value `changes`.
    #[inline(always)]
    pub fn put_stamp(&mut self, stamp: &Stamp, changes: u64) {
        let region = &self.me.region;
        self.out.stamp = OutStamp {
            entry: stamp.entry,
            generation: stamp.generation,
            clear_epoch: stamp.clear_epoch,
            // Little-endian: the low half comes first.
            changes_at: region.word(region.geometry.changes(stamp.bucket())) as *const _ as u32 / 4,
            changes: changes as u32,
        };
    }
}
