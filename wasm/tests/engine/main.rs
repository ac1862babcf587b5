//! The tests of the engine. They run natively, on a region on the heap: `cargo test --features faults`.
//!
//! `SEED=… cargo test …` replays a run, `SCALE=10 cargo test …` does ten times the work.
#![cfg(feature = "faults")]

mod acts;
mod claim_models;
mod coordinate;
mod crash;
mod frozen;
mod harness;
mod hashing;
mod history;
mod hostile;
mod interleave;
mod locks;
mod model;
mod models;
mod play;
mod promises;
mod spectate;
mod stage;
mod threads;
