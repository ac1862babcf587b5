//! The only access to atomics in this crate, so that the same code can run under a model checker.
//!
//! Shared memory is an array of 64-bit words. Under WebAssembly every atomic access is sequentially consistent, whatever its
//! ordering says. The orderings are written for the native build, for ARM64, and for the reader.
//!
//! With the feature `faults`, which only tests turn on, a test can install a hook that is called before every access of its
//! thread to shared memory. In the hook the test can kill or freeze the thread, or let another thread go first. A scheduler
//! such as shuttle's is called at the same place.
//!
//! With `--cfg loom` the words are loom's (Norris and Demsky, CDSChecker, OOPSLA 2013). loom also explores what the orderings
//! allow beyond interleaving: late stores and early loads. See `model` below.

pub use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
#[cfg(not(loom))]
pub use core::sync::atomic::fence;
#[cfg(loom)]
pub use loom::sync::atomic::fence;

#[cfg(all(feature = "faults", not(loom)))]
pub use faults::Word;
#[cfg(loom)]
pub use model::Word;

/// One 64-bit word of shared memory.
#[cfg(not(any(feature = "faults", loom)))]
pub type Word = core::sync::atomic::AtomicU64;

/// Stores to a word that only this participant writes, and whose readers accept a late value: statistics, and reserved space
/// before its record is published.
///
/// Under WebAssembly this is a plain store, about ten times cheaper than an atomic one. Aligned 64-bit stores do not tear in
/// any JavaScript engine that supports shared memory.
#[inline(always)]
pub fn store_own(word: &Word, value: u64) {
    #[cfg(target_arch = "wasm32")]
    // SAFETY: `as_ptr` is valid and aligned. Volatile, so that the compiler neither merges stores nor moves them across calls.
    unsafe {
        word.as_ptr().write_volatile(value)
    }
    #[cfg(not(target_arch = "wasm32"))]
    word.store(value, Relaxed)
}

/// Tells the processor that this is a spin loop.
#[inline(always)]
pub fn spin() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::hint::spin_loop();
}

/// Hooks that are called before accesses to shared memory.
#[cfg(feature = "faults")]
pub mod faults {
    use core::sync::atomic::{AtomicU64, Ordering};
    use std::boxed::Box;
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    type Hook = Rc<dyn Fn()>;

    std::thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
        static HAS_HOOK: Cell<bool> = const { Cell::new(false) };
    }

    /// Installs a hook that is called before each access of this thread to shared memory; `None` removes it. The hook may
    /// unwind: then neither that access nor any later one has happened, as if the thread had been killed there.
    pub fn before_access(hook: Option<Box<dyn FnMut()>>) {
        before_access_shared(hook.map(|hook| {
            let hook = RefCell::new(hook);
            Rc::new(move || hook.borrow_mut()()) as Hook
        }));
    }

    /// Like `before_access`, for a hook that may be called while it is running: by coroutines, which share a thread.
    pub fn before_access_shared(hook: Option<Hook>) {
        HAS_HOOK.set(hook.is_some());
        HOOK.set(hook);
    }

    #[inline(always)]
    pub(super) fn call_hook() {
        if HAS_HOOK.get() {
            let hook = HOOK.with_borrow(Clone::clone);
            if let Some(hook) = hook {
                hook();
            }
        }
    }

    /// An `AtomicU64` that calls the hook before each access.
    #[repr(transparent)]
    pub struct Word(AtomicU64);

    impl Word {
        #[inline(always)]
        pub fn load(&self, order: Ordering) -> u64 {
            call_hook();
            self.0.load(order)
        }

        #[inline(always)]
        pub fn store(&self, value: u64, order: Ordering) {
            call_hook();
            self.0.store(value, order)
        }

        #[inline(always)]
        pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            call_hook();
            self.0.fetch_add(value, order)
        }

        #[inline(always)]
        pub fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
            call_hook();
            self.0.fetch_max(value, order)
        }

        #[inline(always)]
        pub fn compare_exchange(&self, from: u64, to: u64, done: Ordering, failed: Ordering) -> Result<u64, u64> {
            call_hook();
            self.0.compare_exchange(from, to, done, failed)
        }

        #[inline(always)]
        pub fn compare_exchange_weak(&self, from: u64, to: u64, done: Ordering, failed: Ordering) -> Result<u64, u64> {
            call_hook();
            self.0.compare_exchange_weak(from, to, done, failed)
        }
    }
}

/// The words of a region in loom's memory model.
///
/// loom's atomics are large, and the search branches at each access to one. So a word is modelled by loom only between
/// [`Word::enter`] and [`Word::leave`], and only if a thread writes to it meanwhile. The other words do not change, so reading
/// them needs no model. Which words are written to is found by trying: when [`Word::is_missed`] becomes true for a word in an
/// execution, that execution does not count, and the search starts again with that word modelled. All modelled words are
/// made before the threads start, because their first values happened before everything else.
///
/// loom treats sequentially consistent accesses as acquire and release only, but models fences fully. So a thread that has
/// written a word with sequential consistency owes a fence, which is executed before its next sequentially consistent
/// access. This orders a write before a later read, as the handshake of writers and reclaimers needs. Weaker accesses in
/// between are not ordered by it.
#[cfg(loom)]
pub mod model {
    use core::cell::{Cell, UnsafeCell};
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::{AcqRel, Acquire, Relaxed, Release, SeqCst, fence};

    loom::thread_local! {
        static OWES: Cell<bool> = Cell::new(false);
    }

    /// The ordering that loom gets: sequential consistency becomes `less`, after the fence if one is owed.
    fn weaker(order: Ordering, less: Ordering) -> Ordering {
        if order != SeqCst {
            return order;
        }
        if OWES.with(|owes| owes.replace(less != Acquire)) {
            fence(SeqCst);
        }
        less
    }

    /// A word; see the description of this module.
    #[derive(Default)]
    pub struct Word {
        plain: AtomicU64,
        // Invariant: changed only while there is one thread.
        modelled: UnsafeCell<Option<loom::sync::atomic::AtomicU64>>,
        missed: AtomicBool,
    }

    // SAFETY: loom's threads take turns on one thread of the operating system.
    unsafe impl Sync for Word {}

    impl Word {
        /// Begins an execution. The word is modelled if it is `written` to. Otherwise a write to it counts as missed:
        /// see [`Word::is_missed`].
        pub fn enter(&self, written: bool) {
            self.missed.store(false, Relaxed);
            if written {
                let word = loom::sync::atomic::AtomicU64::new(self.plain.load(Relaxed));
                // SAFETY: there is one thread, and no reference to the content.
                unsafe { *self.modelled.get() = Some(word) };
            }
        }

        /// Ends an execution: the word keeps the last value that this thread can see.
        pub fn leave(&self) {
            // SAFETY: there is one thread, and no reference to the content.
            if let Some(word) = unsafe { (*self.modelled.get()).take() } {
                self.plain.store(word.load(Relaxed), Relaxed);
            }
        }

        /// Whether a thread wrote to the word although it was not modelled.
        pub fn is_missed(&self) -> bool {
            self.missed.load(Relaxed)
        }

        fn modelled(&self) -> Option<&loom::sync::atomic::AtomicU64> {
            #[cfg(feature = "faults")]
            super::faults::call_hook();
            // SAFETY: by the field's invariant.
            unsafe { (*self.modelled.get()).as_ref() }
        }

        fn miss(&self) -> &AtomicU64 {
            self.missed.store(true, Relaxed);
            &self.plain
        }

        pub fn load(&self, order: Ordering) -> u64 {
            match self.modelled() {
                Some(word) => word.load(weaker(order, Acquire)),
                None => self.plain.load(order),
            }
        }

        pub fn store(&self, value: u64, order: Ordering) {
            match self.modelled() {
                Some(word) => word.store(value, weaker(order, Release)),
                None => self.miss().store(value, order),
            }
        }

        pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            match self.modelled() {
                Some(word) => word.fetch_add(value, weaker(order, AcqRel)),
                None => self.miss().fetch_add(value, order),
            }
        }

        pub fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
            match self.modelled() {
                Some(word) => word.fetch_max(value, weaker(order, AcqRel)),
                None => self.miss().fetch_max(value, order),
            }
        }

        pub fn compare_exchange(&self, from: u64, to: u64, done: Ordering, failed: Ordering) -> Result<u64, u64> {
            match self.modelled() {
                Some(word) => word.compare_exchange(from, to, weaker(done, AcqRel), failed),
                None => self.miss().compare_exchange(from, to, done, failed),
            }
        }

        pub fn compare_exchange_weak(&self, from: u64, to: u64, done: Ordering, failed: Ordering) -> Result<u64, u64> {
            self.compare_exchange(from, to, done, failed)
        }
    }
}
