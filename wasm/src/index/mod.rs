//! The index: buckets of one-word entries.

pub mod entry;
pub mod key;
pub mod prefetch;
pub mod probe;
