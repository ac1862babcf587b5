//! The real engine in loom's memory model: two participants in a region of ten tiny segments, and for each scene all that
//! interleaving and the orderings of C11 allow, up to a number of preemptions. What sequentially consistent schedules
//! cannot show, fences and orderings that are missing, shows here.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --features faults --test loom -- --nocapture`, best with its own `--target-dir`. Each
//! scene is searched with one preemption, then two and so on, until its time is over, and says how far it came;
//! `LOOM_SECONDS=600` gives more time to each, `LOOM_BOUND=2` starts with two preemptions.
#![cfg(all(loom, feature = "faults"))]

mod scenes;
mod stage;
