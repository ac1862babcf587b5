//! The real engine in loom's memory model: two participants in a region of ten tiny segments. Each scene is played in all
//! ways that interleaving and the orderings of C11 allow, up to a number of preemptions. So missing fences and orderings are
//! found, which sequentially consistent schedules cannot show.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --features faults --test loom -- --nocapture`, best with its own `--target-dir`. Each
//! scene is searched with one preemption, then two and so on, until its time is over, and prints how far it came.
//! `LOOM_SECONDS=600` gives each scene more time, `LOOM_BOUND=2` starts with two preemptions.
#![cfg(all(loom, feature = "faults"))]

mod scenes;
mod stage;
