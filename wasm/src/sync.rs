//! The one door to the atomics, so that the same code can run under a model checker.
//!
//! Shared memory is an array of 64-bit words; nothing in this crate touches an atomic type except through this module.
//! Under WebAssembly every atomic access is sequentially consistent whatever its ordering says; the orderings are
//! written for the native build, for ARM64, and for the reader.
//!
//! With the feature `faults`, which only tests turn on, the door has a bell: a test can have itself called before every
//! access that its thread makes to shared memory, and there die, freeze or let another thread go first. A scheduler such
//! as shuttle's would be called at the same place.

pub use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
pub use core::sync::atomic::fence;

#[cfg(feature = "faults")]
pub use faults::Word;

/// One 64-bit word of shared memory.
#[cfg(not(feature = "faults"))]
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

/// The bell at the door.
#[cfg(feature = "faults")]
pub mod faults {
    use core::sync::atomic::{AtomicU64, Ordering};
    use std::boxed::Box;
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    type Bell = Rc<dyn Fn()>;

    std::thread_local! {
        static BELL: RefCell<Option<Bell>> = const { RefCell::new(None) };
        static ARMED: Cell<bool> = const { Cell::new(false) };
    }

    /// Has `bell` called before each of this thread's accesses to shared memory, until it is called with `None`. It may
    /// unwind: then that access and all after it never happened, as if the thread had been killed there.
    pub fn ring(bell: Option<Box<dyn FnMut()>>) {
        hang(bell.map(|bell| {
            let bell = RefCell::new(bell);
            Rc::new(move || bell.borrow_mut()()) as Bell
        }));
    }

    /// The same for a bell that may be called while it is being called: by coroutines, which share a thread.
    pub fn hang(bell: Option<Bell>) {
        ARMED.set(bell.is_some());
        BELL.set(bell);
    }

    #[inline(always)]
    fn knock() {
        if ARMED.get() {
            let bell = BELL.with_borrow(Clone::clone);
            if let Some(bell) = bell {
                bell();
            }
        }
    }

    /// An `AtomicU64` behind the bell.
    #[repr(transparent)]
    pub struct Word(AtomicU64);

    impl Word {
        #[inline(always)]
        pub fn load(&self, order: Ordering) -> u64 {
            knock();
            self.0.load(order)
        }

        #[inline(always)]
        pub fn store(&self, value: u64, order: Ordering) {
            knock();
            self.0.store(value, order)
        }

        #[inline(always)]
        pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            knock();
            self.0.fetch_add(value, order)
        }

        #[inline(always)]
        pub fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
            knock();
            self.0.fetch_max(value, order)
        }

        #[inline(always)]
        pub fn compare_exchange(&self, from: u64, to: u64, done: Ordering, failed: Ordering) -> Result<u64, u64> {
            knock();
            self.0.compare_exchange(from, to, done, failed)
        }

        #[inline(always)]
        pub fn compare_exchange_weak(&self, from: u64, to: u64, done: Ordering, failed: Ordering) -> Result<u64, u64> {
            knock();
            self.0.compare_exchange_weak(from, to, done, failed)
        }
    }
}
