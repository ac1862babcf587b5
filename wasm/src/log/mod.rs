//! The log: appending records to segments, and making room for them.
//!
//! Calls go down, with one ring: appending may have to make room first, making room walks a segment, and the walk appends
//! copies of the records that are kept.
//!
//! ```text
//! append ─► reclaim ─► walk ─► append (Purpose::Relocate)
//!    │         └──► policy ─┐    └──► evict ─► chunk ─► accounting
//!    └──────────────────────┴──► lanes
//! ```
//!
//! The ring ends after one turn: appending for relocation never reclaims. It uses the reserve of free segments instead.

pub mod accounting;
pub mod append;
pub mod chunk;
pub mod evict;
pub mod lanes;
pub mod policy;
pub mod reclaim;
pub mod walk;
