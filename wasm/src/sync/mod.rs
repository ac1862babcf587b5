//! The one door to the atomics, so that the same code can run under a model checker.
//!
//! Shared memory is an array of 64-bit words; nothing in this crate touches an atomic type except through this module.
//! Under WebAssembly every atomic access is sequentially consistent whatever its ordering says; the orderings are
//! written for the native build, for ARM64, and for the reader.
//!
//! With the feature `faults`, which only tests turn on, the door has a bell: a test can have itself called before every
//! access that its thread makes to shared memory, and there die, freeze or let another thread go first. A scheduler such
//! as shuttle's would be called at the same place.
//!
//! With `--cfg loom` the words are loom's (Norris and Demsky, CDSChecker, OOPSLA 2013), which also explores what the
//! orderings allow beyond interleaving: late stores and early loads. See `model` below.

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
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::hint::spin_loop();
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
    pub(super) fn knock() {
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

/// The words of a region in loom's memory model.
///
/// loom's atomics are large, and each access to one is a place where the search branches. So a word is one of loom's only
/// between [`Word::enter`] and [`Word::leave`], and only those words are that somebody writes to meanwhile; the others do
/// not change, so that reading them needs no model. Which words those are is found out by trying: an execution in which
/// [`Word::is_missed`] becomes true for a word does not count, and the search starts again with that word among loom's.
/// All of them are made before the threads start, as their first values happened before everything.
///
/// loom takes sequentially consistent accesses for acquire and release only; fences it models fully. So a thread that wrote
/// a word with sequential consistency owes a fence, which comes before its next access of that kind: what it writes first
/// and reads second is in order, as in the handshake of writers and reclaimers, and accesses that ask for less in between
/// are not.
#[cfg(loom)]
pub mod model {
    use core::cell::{Cell, UnsafeCell};
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::{AcqRel, Acquire, Relaxed, Release, SeqCst, fence};

    loom::thread_local! {
        static OWES: Cell<bool> = Cell::new(false);
    }

    /// What loom is to make of an ordering: sequential consistency becomes `less`, after the fence if one is owed.
    fn weaker(order: Ordering, less: Ordering) -> Ordering {
        if order != SeqCst {
            return order;
        }
        if OWES.with(|owes| owes.replace(less != Acquire)) {
            fence(SeqCst);
        }
        less
    }

    /// A word; see the module's description.
    #[derive(Default)]
    pub struct Word {
        plain: AtomicU64,
        // Invariant: only changed while there is one thread.
        modelled: UnsafeCell<Option<loom::sync::atomic::AtomicU64>>,
        missed: AtomicBool,
    }

    // SAFETY: loom's threads take turns on one thread of the system.
    unsafe impl Sync for Word {}

    impl Word {
        /// From here on the word is in loom's hands if it is one of those `written` to, else it is to be left alone.
        pub fn enter(&self, written: bool) {
            self.missed.store(false, Relaxed);
            if written {
                let word = loom::sync::atomic::AtomicU64::new(self.plain.load(Relaxed));
                // SAFETY: there is one thread, and no reference to what is inside.
                unsafe { *self.modelled.get() = Some(word) };
            }
        }

        /// The end of that, with the last value that this thread can see.
        pub fn leave(&self) {
            // SAFETY: as above.
            if let Some(word) = unsafe { (*self.modelled.get()).take() } {
                self.plain.store(word.load(Relaxed), Relaxed);
            }
        }

        /// Whether somebody wrote to the word although it was not in loom's hands.
        pub fn is_missed(&self) -> bool {
            self.missed.load(Relaxed)
        }

        fn modelled(&self) -> Option<&loom::sync::atomic::AtomicU64> {
            #[cfg(feature = "faults")]
            super::faults::knock();
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
