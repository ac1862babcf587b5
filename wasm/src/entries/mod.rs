//! The operations of the engine: reading, storing, changing, and removing entries.

#[cfg(feature = "faults")]
pub mod audit;
pub mod change;
pub mod draft;
pub mod large;
pub mod limit;
pub mod load;
pub mod locked;
pub mod placement;
pub mod read;
pub mod store;
pub mod tags;
pub mod validate;
