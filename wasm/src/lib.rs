//! The core of cache-machine: a lock-free hash table over memory that threads and processes share.
//!
//! The structure is a segmented log with an index of single 64-bit words. Readers take no lock. They validate what
//! they have read by its index entry and the generation of its segment. A writer announces in its hazard word which segment
//! it writes into. The only locks are those of buckets: they keep writers of the same bucket apart. Any participant can
//! vanish or freeze between any two instructions: entries may then be lost, and writers may be refused with `Busy`. The
//! shared memory can hold any bytes: no access leaves the region, and every loop ends. Relatives: MICA (NSDI '14), Segcache
//! (NSDI '21), S3-FIFO (SOSP '23), Memshare (ATC '17).
//!
//! The same code is a WebAssembly module (`abi`, built with wasm-bindgen) and a native crate for its tests. Calls go down
//! only, from floor to floor and within a floor without a circle. `log` names the one ring there is:
//!
//! ```text
//! abi           what JavaScript calls: numbers in, numbers out
//!  └► entries      reading, storing, changing and removing entries
//!      ├► coordinate   who loads a key or holds a lock, and who waits for changes
//!      └► log          space in segments: appending, reclaiming, large values' chunks
//!          └► participant  one thread: its seat, its locks, and cleaning up after dead participants
//!              └► index        entries, keys, probing a bucket
//!                  └► format       the layout of the region, and the words that it is made of
//!                      └► sync         the only access to atomics
//! ```
#![cfg_attr(target_arch = "wasm32", no_std)]

#[cfg(target_arch = "wasm32")]
mod abi;
mod coordinate;
mod entries;
mod format;
mod index;
mod log;
mod participant;
mod sync;

pub use coordinate::claims::{Claim, Seen, Stands};
pub use coordinate::locks::{Claimed, FRESH, Listed, PENDING, Released, STEAL, WAIT};
#[cfg(feature = "faults")]
pub use entries::audit::Audited;
pub use entries::change::{Addition, NUMBER, Sum};
pub use entries::draft::Draft;
pub use entries::limit::{FIXED, GCRA, LIMIT, Rule, SLIDING, Verdict};
pub use entries::read::{
    Census, Found, Residence, Sight, Stamp, WANT_AFTER_FIND, WANT_QUIET, WANT_STALE, WANT_TAGS, WANT_VALUE,
};
pub use entries::store::{Expect, Refused};
pub use entries::tags::{Block, MAX_BLOCK};
pub use entries::validate::Broken;
pub use format::hash::Seed;
#[cfg(feature = "faults")]
pub use format::layout::MODEL_SIZE;
pub use format::layout::{Class, Counter, Geometry, LAYOUT_VERSION, MAX_KEY, MAX_SIZE, MIN_SIZE};
pub use format::record::Place;
pub use format::region::Region;
pub use format::segment::Phase;
pub use index::key::{Beginning, Key};
pub use index::prefetch::{GROUP, prefetch};
pub use participant::lock::{Busy, LockedBucket};
pub use participant::participant::{Host, Participant};
pub use participant::recover::{Mismatch, format, inspect};
#[cfg(feature = "faults")]
pub use sync::faults;
#[cfg(loom)]
pub use sync::model;

/// A panic is a bug. Under WebAssembly it becomes a trap; JavaScript turns the trap into an error and recovers.
#[cfg(target_arch = "wasm32")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

/// The engine never allocates. An allocator has to exist, because wasm-bindgen links `alloc`.
#[cfg(target_arch = "wasm32")]
struct NoHeap;

// SAFETY: null is the answer of an allocator that has no memory.
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
