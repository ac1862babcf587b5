//! The shared region as words and bytes at offsets: the only module that does pointer arithmetic on it.
//!
//! Every offset that reaches this module was either computed from the [`Geometry`] or checked against it (records are
//! checked by `record::Record::read`); nothing read from the region is used as an offset unchecked.

use crate::format::layout::{Geometry, PAGE};
use crate::sync::{self, Relaxed, SeqCst, Word};

/// Below this many bytes a copy out of the region goes word by word with atomic loads, which the validating load
/// cannot overtake; above, a bulk copy and one fence are cheaper.
const ATOMIC_COPY: u32 = 256;

/// A mapped region. Copyable: it is a base address and its geometry.
#[derive(Clone, Copy)]
pub struct Region {
    // Invariant: valid for reads and writes of `geometry.size` bytes, aligned to 64, for as long as the value lives.
    base: *mut u8,
    pub geometry: Geometry,
}

impl Region {
    /// The region of `size` bytes at `base`; `None` when `size` is no valid size.
    ///
    /// # Safety
    /// `base` must be aligned to 64 bytes and stay valid for reads and writes of `size` bytes while the value (or a
    /// copy of it) is used, and everybody else who uses those bytes must do so through this crate.
    pub unsafe fn new(base: *mut u8, size: u32) -> Option<Region> {
        debug_assert!((cfg!(loom) || base.addr() % 64 == 0) && size % PAGE == 0);
        Some(Region { base, geometry: Geometry::of(size)? })
    }

    #[inline(always)]
    fn pointer(&self, at: u32, bytes: u32) -> *mut u8 {
        debug_assert!(at as u64 + bytes as u64 <= self.geometry.size as u64, "{at} + {bytes} is outside of the region");
        // SAFETY: inside of the region by the module's rule, checked in debug builds and by the fuzz tests.
        unsafe { self.base.add(at as usize) }
    }

    /// The word at `at`, a multiple of eight.
    #[inline(always)]
    pub fn word(&self, at: u32) -> &Word {
        debug_assert!(at % 8 == 0);
        // Under loom a word is larger than what it stands for, and the region an array of them.
        let word = if cfg!(loom) {
            self.base.cast::<Word>().wrapping_add(at as usize / 8)
        } else {
            self.pointer(at, 8).cast()
        };
        // SAFETY: inside of the region and aligned; shared words are only ever accessed as atomics.
        unsafe { &*word }
    }

    /// A bit for each of the sixteen words from `at` on whose highest sixteen bits are `tag`.
    ///
    /// The loads are no atomics. A word whose highest bits are the same all the time is told right, however it is torn; of
    /// any other, what was there at some time of the call.
    #[cfg(target_feature = "simd128")]
    #[inline(always)]
    pub fn tagged(&self, at: u32, tag: u16) -> u32 {
        use core::arch::wasm32::*;
        let words = self.pointer(at, 128).cast::<v128>();
        // SAFETY: inside of the region.
        let pair = |i| unsafe { v128_load(words.add(i)) };
        // The upper half of each of four words, and of that the upper half.
        let four = |i| u32x4_shr(i32x4_shuffle::<1, 3, 5, 7>(pair(i), pair(i + 1)), 16);
        let eight = |i| u16x8_eq(u16x8_narrow_i32x4(four(i), four(i + 2)), u16x8_splat(tag));
        i8x16_bitmask(i8x16_narrow_i16x8(eight(0), eight(4))) as u32
    }

    /// Copies `bytes` (rounded up to eight) from `at` to `to`. The caller must validate afterwards that the source was
    /// not recycled; every load made here is ordered before a later atomic load.
    ///
    /// # Safety
    /// `to` must be aligned to eight and have room for `bytes` rounded up to eight.
    #[inline(always)]
    pub unsafe fn copy_out(&self, at: u32, to: *mut u8, bytes: u32) {
        if bytes <= ATOMIC_COPY || cfg!(not(target_arch = "wasm32")) {
            let mut i = 0;
            while i < bytes {
                // Relaxed suffices before the fence below; under WebAssembly it is sequentially consistent anyway.
                let word = self.word(at + i).load(Relaxed);
                // SAFETY: within `to` by this function's contract.
                unsafe { (to.add(i as usize) as *mut u64).write(word) };
                i += 8;
            }
            #[cfg(not(target_arch = "wasm32"))]
            sync::fence(SeqCst);
        } else {
            // SAFETY: source inside of the region, target by contract; a racing writer makes the bytes garbage, never
            // the copy unsound, because it is one opaque `memory.copy`.
            unsafe { core::ptr::copy_nonoverlapping(self.pointer(at, bytes), to, bytes as usize) };
            // Orders the plain loads of the copy before the caller's validating load; an acquire load would not.
            sync::fence(SeqCst);
        }
    }

    /// Copies `bytes` from `from` into space that this participant has reserved and nobody reads yet; the publishing
    /// CAS makes them visible. The last word is filled with zeros.
    ///
    /// # Safety
    /// `from` must be valid for `bytes`.
    #[inline(always)]
    pub unsafe fn copy_in(&self, from: *const u8, at: u32, bytes: u32) {
        if cfg!(not(target_arch = "wasm32")) || bytes <= ATOMIC_COPY {
            let mut i = 0;
            while i < bytes {
                // SAFETY: readable by contract.
                let word = unsafe {
                    let from = from.add(i as usize);
                    match bytes - i {
                        left @ 0..8 => {
                            (0..left).fold(0, |word, i| word | (from.add(i as usize).read() as u64) << (i * 8))
                        }
                        _ => from.cast::<u64>().read_unaligned(),
                    }
                };
                self.fill(at + i, word);
                i += 8;
            }
        } else {
            // SAFETY: as above; the target was reserved by this participant alone.
            unsafe { core::ptr::copy_nonoverlapping(from, self.pointer(at, bytes), bytes as usize) };
        }
    }

    /// Stores a word into reserved space that nobody reads before it is published.
    #[inline(always)]
    pub fn fill(&self, at: u32, value: u64) {
        sync::store_own(self.word(at), value)
    }

    /// Copies `bytes`, a multiple of eight, between two places of the region; the target is reserved space.
    pub fn copy_within(&self, from: u32, to: u32, bytes: u32) {
        debug_assert!(bytes % 8 == 0);
        if cfg!(target_arch = "wasm32") {
            // SAFETY: both inside of the region; they lie in different records, so they do not overlap.
            unsafe {
                core::ptr::copy_nonoverlapping(self.pointer(from, bytes), self.pointer(to, bytes), bytes as usize)
            };
            sync::fence(SeqCst);
        } else {
            let mut i = 0;
            while i < bytes {
                self.fill(to + i, self.word(from + i).load(Relaxed));
                i += 8;
            }
            sync::fence(SeqCst);
        }
    }
}
