//! The one door to the atomics, so that the same code can run under a model checker.
//!
//! Shared memory is an array of 64-bit words; nothing in this crate touches an atomic type except through this module.
//! Under WebAssembly every atomic access is sequentially consistent whatever its ordering says; the orderings are
//! written for the native build, for ARM64, and for the reader.

pub use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
pub use core::sync::atomic::fence;

/// One 64-bit word of shared memory.
pub type Word = core::sync::atomic::AtomicU64;

/// Stores to a word that only this participant ever writes, and whose readers accept a late value (statistics).
///
/// Under WebAssembly this is a plain store, about ten times cheaper than an atomic one; 64-bit aligned stores do not
/// tear on any engine that supports shared memory.
#[inline(always)]
pub fn store_own(word: &Word, value: u64) {
    #[cfg(target_arch = "wasm32")]
    // SAFETY: `as_ptr` is valid and aligned; volatile keeps the compiler from merging or moving it across calls.
    unsafe {
        word.as_ptr().write_volatile(value)
    }
    #[cfg(not(target_arch = "wasm32"))]
    word.store(value, Relaxed)
}

/// Tells the processor that this is a spin loop.
#[inline(always)]
pub fn spin() {
    core::hint::spin_loop()
}
