//! A key as the engine receives it, and the bucket it belongs to.

use crate::format::hash::{Seed, hash};
use crate::format::layout::Geometry;
use crate::format::record::Record;
use crate::format::region::Region;

/// Key kind of the keys of a namespace. The other three kinds are text, bytes and ill-formed text, which only the caller
/// tells apart.
pub const KEY_NAMESPACED: u32 = 3;

/// A key: whole words, the last one zero-padded.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    pub words: &'a [u64],
    /// Bytes of the key.
    pub length: u32,
    /// The key kind, two bits. Keys of different kinds are different keys.
    pub kind: u32,
    pub hash: u64,
}

impl<'a> Key<'a> {
    /// The key of the first `length` bytes of `words`, which are zero behind them.
    #[inline(always)]
    pub fn new(words: &'a [u64], length: u32, kind: u32, seed: Seed) -> Key<'a> {
        Key { words, length, kind, hash: hash(words, length, kind, seed) }
    }

    /// Whether this is the key of a record.
    #[inline(always)]
    pub(crate) fn matches(&self, region: &Region, record: &Record) -> bool {
        record.key_length == self.length && record.key_kind() == self.kind && record.key_equals(region, self.words)
    }
}

/// The number of the bucket that a hash belongs to.
#[inline(always)]
pub fn bucket_of(geometry: &Geometry, hash: u64) -> u32 {
    hash as u32 & (geometry.buckets - 1)
}
