//! The index: buckets of one-word entries.

pub mod probe;
