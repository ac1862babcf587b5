//! Who does it, and who waits for it: claims of loads and locks, and the bells of those that wait.

pub mod bells;
pub mod claims;
pub mod locks;
