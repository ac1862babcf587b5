//! One thread in a region: attaching and leaving, cleaning up after dead participants, the lock of a bucket, and whether a
//! record is still current.

pub mod lock;
#[allow(clippy::module_inception)]
pub mod participant;
pub mod recover;
pub mod validity;
