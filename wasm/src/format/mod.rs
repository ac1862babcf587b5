//! What lies where in the shared memory, and the words that it is made of.

pub mod claim;
pub mod hash;
pub mod header;
pub mod layout;
pub mod record;
pub mod region;
pub mod segment;
