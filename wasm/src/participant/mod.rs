//! One thread in a region: attaching and leaving, what the living do for the dead, the lock of a bucket, and whether a
//! record still counts.

pub mod lock;
#[allow(clippy::module_inception)]
pub mod participant;
pub mod recover;
pub mod validity;
