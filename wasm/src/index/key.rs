//! A key as the engine receives it, and the bucket it belongs to.

use crate::format::hash::{Seed, TAG, hash};
use crate::format::layout::{Geometry, WORD};
use crate::format::record::Record;
use crate::format::region::Region;
use crate::sync::Acquire;

/// Key kind: text, in UTF-8.
pub const KEY_STRING: u32 = 0;
/// Key kind: bytes.
pub const KEY_BYTES: u32 = 1;
/// Key kind: text that UTF-8 cannot represent, in UTF-16.
pub const KEY_ILL_FORMED: u32 = 2;
/// Key kind: a key of a namespace, behind the prefix of the namespace. The only key kind that the engine itself tells apart.
pub const KEY_NAMESPACED: u32 = 3;

const _: () = assert!(KEY_STRING < KEY_BYTES && KEY_BYTES < KEY_ILL_FORMED && KEY_ILL_FORMED < KEY_NAMESPACED);
// Tags have a domain of their own.
const _: () = assert!(KEY_NAMESPACED < TAG);

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

/// How a key begins: its kind, and the first `length` bytes of `words`.
#[derive(Clone, Copy)]
pub struct Beginning<'a> {
    pub kind: u32,
    pub length: u32,
    pub words: &'a [u64],
}

impl Beginning<'_> {
    /// Whether the key of a record begins like this.
    pub(crate) fn matches(&self, region: &Region, record: &Record) -> bool {
        let whole = self.length as usize / 8;
        let rest = self.length % 8;
        record.key_length >= self.length
            && record.key_kind() == self.kind
            && self.words.get(..whole).is_some_and(|words| record.key_equals(region, words))
            && (rest == 0
                || self.words.get(whole).is_some_and(|word| {
                    // Acquire: ordered before the load that validates the record.
                    let there = region.word(record.key_at + whole as u32 * WORD).load(Acquire);
                    (there ^ word) << (64 - 8 * rest) == 0
                }))
    }
}

/// The number of the bucket that a hash belongs to.
#[inline(always)]
pub fn bucket_of(geometry: &Geometry, hash: u64) -> u32 {
    hash as u32 & (geometry.buckets - 1)
}
