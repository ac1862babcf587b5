//! The log: appending to segments, and making room in them.

pub mod append;
pub mod chunk;
pub mod evict;
