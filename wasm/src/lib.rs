//! The core of cache-machine: a lock-free hash table over memory that threads and processes share.
//!
//! A segmented log with an index of single 64-bit words. Readers take no lock and validate by generation; writers
//! announce themselves with a hazard word; a lock exists only where writers of one bucket meet. Any participant can
//! vanish or freeze between any two instructions, and any bytes can stand in the shared memory: the worst that comes of
//! it is a miss. Relatives: MICA (NSDI '14), Segcache (NSDI '21), S3-FIFO (SOSP '23), Memshare (ATC '17).
//!
//! The same code is a WebAssembly module ([`abi`], built with wasm-bindgen) and a native crate for its tests. Calls go
//! down only:
//!
//! ```text
//! abi ─► change, large ─► read, store, tags, validate ─► evict, alloc, chunk ─► recover, lock ─► index, segment, record ─► region ─► layout, sync
//! ```
#![cfg_attr(target_arch = "wasm32", no_std)]

#[cfg(target_arch = "wasm32")]
mod abi;
mod entries;
mod format;
mod index;
mod log;
mod participant;
mod sync;

#[cfg(feature = "faults")]
pub use entries::audit::Audited;
pub use entries::change::NUMBER;
pub use entries::read::{Census, Found, Sight, Stamp, WANT_AFTER_FIND, WANT_QUIET, WANT_TAGS, WANT_VALUE};
pub use entries::store::{Draft, Expect, Refused};
pub use entries::tags::{Block, MAX_BLOCK};
pub use entries::validate::Broken;
pub use format::hash::Seed;
#[cfg(feature = "faults")]
pub use format::layout::MODEL_SIZE;
pub use format::layout::{Class, Counter, Geometry, LAYOUT_VERSION, MAX_KEY, MAX_SIZE, MIN_SIZE};
pub use format::record::Place;
pub use format::region::Region;
pub use format::segment::Phase;
pub use index::probe::Key;
pub use participant::lock::Busy;
pub use participant::participant::{Host, Participant};
pub use participant::recover::{Mismatch, format, inspect};
#[cfg(feature = "faults")]
pub use sync::faults;
#[cfg(loom)]
pub use sync::model;

/// A panic is a bug; under WebAssembly it becomes a trap, which the caller turns into an error and recovers from.
#[cfg(target_arch = "wasm32")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

/// The engine never allocates; wasm-bindgen links `alloc`, which asks for an allocator to exist.
#[cfg(target_arch = "wasm32")]
struct NoHeap;

// SAFETY: a null answer is how an allocator says that it has no memory.
#[cfg(target_arch = "wasm32")]
unsafe impl core::alloc::GlobalAlloc for NoHeap {
    unsafe fn alloc(&self, _: core::alloc::Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: core::alloc::Layout) {}
}

#[cfg(target_arch = "wasm32")]
#[global_allocator]
static NO_HEAP: NoHeap = NoHeap;
