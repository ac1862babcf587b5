//! One thread in a region: joining, dying, and the lock of a bucket.

pub mod lock;
#[allow(clippy::module_inception)]
pub mod participant;
pub mod recover;
