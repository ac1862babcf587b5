//! A record about to be stored: its parts, writing them into reserved space, and renewing the record when a `clear` or an
//! invalidation comes before it is published.

use crate::entries::tags::Block;
use crate::format::header::{EXPIRES, GRACE, SecondWord, TAGGED, key_kind_flags};
use crate::format::layout::WORD;
use crate::format::record::{Space, header_bytes, optional_flags, words};
use crate::index::key::Key;
use crate::participant::participant::{Host, Participant};

/// A record about to be written.
pub struct Draft<'a> {
    pub value_type: u8,
    /// CHUNKED or nothing.
    pub flags: u32,
    pub version: u64,
    /// Milliseconds; infinity for never.
    pub expiry: f64,
    /// Milliseconds after the expiry for which the record is kept as a stale one; zero for none.
    pub grace: f64,
    pub tags: &'a Block,
    pub value: &'a [u8],
}

impl Draft<'_> {
    /// Bytes that the record of `key` will use.
    pub(crate) fn bytes(&self, key: &Key) -> u64 {
        (header_bytes(optional_flags(self.expiry, self.grace)) + self.tags.length() + words(key.length)) as u64
            + self.value.len() as u64
    }
}

impl<H: Host> Participant<H> {
    /// Writes everything but the first word of the record, which `reserve` has written.
    pub(crate) fn write(&self, space: &Space, key: &Key, draft: &Draft) {
        let region = &self.region;
        let mut flags = draft.flags | key_kind_flags(key.kind) | optional_flags(draft.expiry, draft.grace);
        let mut at = space.at + header_bytes(flags);
        if flags & EXPIRES != 0 {
            space.fill_optional(region, draft.expiry.to_bits());
        }
        if flags & GRACE != 0 {
            space.fill_grace(region, draft.grace);
        }
        if draft.tags.length() > 0 {
            flags |= TAGGED;
            // SAFETY: the block is that long, in whole words.
            unsafe { region.copy_in(draft.tags.as_ptr(), at, draft.tags.length()) };
            at += draft.tags.length();
        }
        for &word in key.words {
            region.fill(at, word);
            at += WORD;
        }
        // SAFETY: a slice is readable.
        unsafe { region.copy_in(draft.value.as_ptr(), at, draft.value.len() as u32) };
        space.fill_second(region, SecondWord::new(key.length, draft.value_type, flags, self.clear_epoch()));
        space.fill_hash_and_version(region, key.hash, draft.version);
    }

    /// Makes an unpublished record current again when a `clear` or an invalidation came after it was written. Otherwise the
    /// record would be a miss from the beginning, and could replace a value that was stored after the `clear`.
    pub(crate) fn renew(&self, space: &Space) {
        if !self.is_renewed(space)
            && let Some(record) = space.record(&self.region)
        {
            self.renew_tags(&record);
            space.fill_second(&self.region, record.second_in(self.clear_epoch()));
        }
    }

    /// Whether nothing has invalidated the record since it was written or renewed.
    pub(crate) fn is_renewed(&self, space: &Space) -> bool {
        let second = space.second(&self.region);
        if !second.is_tagged() {
            return second.clear_epoch() == self.clear_epoch();
        }
        // When foreign bytes have destroyed the record, there is nothing to renew: lookups will not accept it.
        space.record(&self.region).is_none_or(|record| self.is_current(&record))
    }
}
