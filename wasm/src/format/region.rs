//! The shared region as words and bytes at offsets: the only module that does pointer arithmetic on it.
//!
//! Every offset that reaches this module was either computed from the [`Geometry`] or checked against it. Records are
//! checked by `Record::read`. Nothing that was read from the region is used as an offset unchecked.

use crate::format::layout::{Geometry, PAGE, WORD};
use crate::sync::{self, Relaxed, SeqCst, Word};

/// Up to this many bytes are copied word by word, more with one bulk copy. In `copy_out` the loads of the short copy are
/// atomic and need no fence under WebAssembly, while the bulk copy needs one.
const ATOMIC_COPY: u32 = 256;

/// A mapped region: a base address and a geometry.
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
    /// copy of it) is used, and all other uses of those bytes must go through this crate.
    pub unsafe fn new(base: *mut u8, size: u32) -> Option<Region> {
        debug_assert!((cfg!(loom) || base.addr() % 64 == 0) && size % PAGE == 0);
        Some(Region { base, geometry: Geometry::of(size)? })
    }

    #[inline(always)]
    fn pointer(&self, at: u32, bytes: u32) -> *mut u8 {
        debug_assert!(at as u64 + bytes as u64 <= self.geometry.size as u64, "{at} + {bytes} is outside of the region");
        // SAFETY: inside of the region by the module's rule, which debug builds and the fuzz tests check.
        unsafe { self.base.add(at as usize) }
    }

    /// The word at `at`, a multiple of eight.
    #[inline(always)]
    pub fn word(&self, at: u32) -> &Word {
        debug_assert!(at % WORD == 0);
        // loom's words are larger than eight bytes, so under loom the region is an array of them.
        let word = if cfg!(loom) {
            self.base.cast::<Word>().wrapping_add((at / WORD) as usize)
        } else {
            self.pointer(at, WORD).cast()
        };
        // SAFETY: inside of the region and aligned. A `Word` is an atomic, so other threads may change it meanwhile.
        unsafe { &*word }
    }

    /// Which of the sixteen words from `at` on have `top` as their highest sixteen bits: a bit for each.
    ///
    /// The loads are not atomic. The answer is right for a word whose highest bits do not change during the call, even if
    /// the load tears. For any other word the answer may be either.
    #[cfg(target_feature = "simd128")]
    #[inline(always)]
    pub fn words_with_top(&self, at: u32, top: u16) -> u32 {
        use core::arch::wasm32::*;
        let words = self.pointer(at, 128).cast::<v128>();
        // SAFETY: inside of the region.
        let pair = |i| unsafe { v128_load(words.add(i)) };
        // The highest sixteen bits of each of four words.
        let four = |i| u32x4_shr(i32x4_shuffle::<1, 3, 5, 7>(pair(i), pair(i + 1)), 16);
        let eight = |i| u16x8_eq(u16x8_narrow_i32x4(four(i), four(i + 2)), u16x8_splat(top));
        i8x16_bitmask(i8x16_narrow_i16x8(eight(0), eight(4))) as u32
    }

    /// Copies `bytes`, rounded up to eight, from `at` to `to`. Afterwards the caller must validate that the source was not
    /// recycled. Every load made here is ordered before the later loads of the caller.
    ///
    /// # Safety
    /// `to` must be aligned to eight and have room for `bytes` rounded up to eight.
    #[inline(always)]
    pub unsafe fn copy_out(&self, at: u32, to: *mut u8, bytes: u32) {
        if bytes <= ATOMIC_COPY || cfg!(not(target_arch = "wasm32")) {
            let mut i = 0;
            while i < bytes {
                // Relaxed: ordered by the fence below. Under WebAssembly it is sequentially consistent anyway.
                let word = self.word(at + i).load(Relaxed);
                // SAFETY: within `to` by this function's contract.
                unsafe { (to.add(i as usize) as *mut u64).write(word) };
                i += WORD;
            }
            // Pairs with the fence in `open_lane`, like the fence below.
            #[cfg(not(target_arch = "wasm32"))]
            sync::fence(SeqCst);
        } else {
            // SAFETY: the source is inside of the region, the target has room by this function's contract. A writer that
            // races with the copy makes the bytes garbage, but not the copy unsound: it is one opaque `memory.copy`.
            unsafe { core::ptr::copy_nonoverlapping(self.pointer(at, bytes), to, bytes as usize) };
            // Orders the plain loads of the copy before the caller's validating load. That load being Acquire would not do
            // it: Acquire orders only what comes later. Pairs with the fence in `open_lane`, which comes between the new
            // generation and the first byte of a recycled segment.
            sync::fence(SeqCst);
        }
    }

    /// Copies `bytes` from `from` into space that this participant has reserved and nobody reads yet. The compare-and-swap
    /// that publishes the record makes the bytes visible. Bytes of the last word behind `bytes` are undefined: only the short
    /// copy sets them to zero.
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
                i += WORD;
            }
        } else {
            // SAFETY: the source is valid by contract, the target inside of the region and reserved by this participant.
            unsafe { core::ptr::copy_nonoverlapping(from, self.pointer(at, bytes), bytes as usize) };
        }
    }

    /// Stores a word into reserved space that nobody reads before it is published.
    #[inline(always)]
    pub fn fill(&self, at: u32, value: u64) {
        sync::store_own(self.word(at), value)
    }

    /// Copies `bytes`, a multiple of eight, from one record to another, whose space this participant has reserved. Every load
    /// made here is ordered before the later accesses of the caller, which validate the source: the fences pair with the fence
    /// in `open_lane`, as in `copy_out`.
    pub fn copy_within(&self, from: u32, to: u32, bytes: u32) {
        debug_assert!(bytes % WORD == 0);
        if cfg!(target_arch = "wasm32") {
            // SAFETY: both are inside of the region. They do not overlap, because they lie in different records.
            unsafe {
                core::ptr::copy_nonoverlapping(self.pointer(from, bytes), self.pointer(to, bytes), bytes as usize)
            };
            sync::fence(SeqCst);
        } else {
            let mut i = 0;
            while i < bytes {
                self.fill(to + i, self.word(from + i).load(Relaxed));
                i += WORD;
            }
            sync::fence(SeqCst);
        }
    }
}
