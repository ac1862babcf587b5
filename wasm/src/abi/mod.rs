//! The WebAssembly interface: plain numbers in, plain numbers out, bytes through a scratch area that belongs to one thread.
//!
//! Every thread that has a cache open has one *area* in memory private to its process ([`area`] draws it). The address of
//! the area is the first argument of nearly every call and stands for "this participant". Every number that both sides
//! need is in [`contract`].
//!
//! There are no mutable statics. Each instance of the module writes the module's data into the memory when it starts,
//! while other instances use the same bytes. So these bytes must be the same constants each time.

mod area;
mod contract;
mod coordinate;
mod entries;
mod join;
mod large;
mod observe;
