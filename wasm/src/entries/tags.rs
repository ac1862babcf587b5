//! Invalidating many entries in one step: `clear` by an epoch, tags and namespaces by a table of counters.
//!
//! A record remembers the clear epoch, and for each of its tags the value of the tag's counter, at the time it was
//! written; when one of them has moved on, the record is a miss wherever it lies. Nothing is scanned. Tags whose hashes
//! meet in one counter invalidate each other's entries, which costs misses and nothing else.
//!
//! ```text
//! given by the caller   count u16 │ bytes of the namespace's prefix u16, then for each tag: length u16 (top bit: keep the
//!                       name out of the record) │ prefix and UTF-8
//! in the record         bytes u32 │ count u32 │ {counter u32 │ snapshot u32} × count │ names as above without the prefix,
//!                       zero-padded
//! ```

use crate::format::hash::{TAG, hash};
use crate::format::layout::{CLEAR_EPOCH_AT, MAX_TAG, MAX_TAG_NAME, MAX_TAGS};
use crate::participant::participant::{Host, Participant};
use crate::format::record::{Record, words};
use crate::sync::{Acquire, SeqCst};

pub const HIDDEN: u16 = 1 << 15;
/// Bytes that the tag block of a record can have.
pub const MAX_BLOCK: u32 = words(8 + MAX_TAGS * (8 + 2 + MAX_TAG_NAME));

/// The tag block of a record about to be written, in whole words.
pub struct Block {
    bytes: [u8; MAX_BLOCK as usize],
    length: u32,
}

impl Block {
    /// Length in bytes, a multiple of eight; zero without tags.
    pub fn length(&self) -> u32 {
        self.length
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }
}

/// The bytes of the prefix of the tags in a block given by the caller.
fn prefix(block: &[u8]) -> usize {
    block.first_chunk::<4>().map_or(0, |sizes| u32::from_le_bytes(*sizes) >> 16) as usize
}

/// The tags in a block given by the caller: `(hidden, name)`; ends early where the block is malformed.
fn given(block: &[u8]) -> impl Iterator<Item = (bool, &[u8])> {
    let mut rest = block.get(4..).unwrap_or(&[]);
    let count = block.first_chunk::<4>().map_or(0, |sizes| u32::from_le_bytes(*sizes) & 0xFFFF).min(MAX_TAGS);
    (0..count).map_while(move |_| {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let length = u16::from_le_bytes(*length);
        let (name, after) = after.split_at_checked((length & !HIDDEN) as usize)?;
        rest = after;
        (name.len() <= MAX_TAG as usize).then_some((length & HIDDEN != 0, name))
    })
}

impl<H: Host> Participant<H> {
    fn tag_slot(&self, name: &[u8]) -> u32 {
        let mut words = [0u64; MAX_TAG as usize / 8];
        for (word, bytes) in words.iter_mut().zip(name.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(padded);
        }
        hash(&words, name.len() as u32, TAG, self.seed) as u32 & (self.region.geometry.tags - 1)
    }

    /// Builds the tag block of a record from the caller's, taking the snapshots.
    pub fn tag_block(&self, tags: &[u8], out: &mut Block) {
        out.length = 0;
        let count = given(tags).count() as u32;
        if count == 0 {
            return;
        }
        let mut put = 8;
        for (_, name) in given(tags) {
            let slot = self.tag_slot(name);
            let snapshot = self.region.word(self.region.geometry.tag(slot)).load(SeqCst) as u32;
            out.bytes[put..put + 4].copy_from_slice(&slot.to_le_bytes());
            out.bytes[put + 4..put + 8].copy_from_slice(&snapshot.to_le_bytes());
            put += 8;
        }
        for (_, name) in given(tags).filter(|(hidden, _)| !hidden) {
            let name = name.get(prefix(tags)..).unwrap_or(&[]);
            let name = &name[..name.len().min(MAX_TAG_NAME as usize)];
            out.bytes[put..put + 2].copy_from_slice(&(name.len() as u16).to_le_bytes());
            out.bytes[put + 2..put + 2 + name.len()].copy_from_slice(name);
            put += 2 + name.len();
        }
        let length = words(put as u32);
        out.bytes[put..length as usize].fill(0);
        out.bytes[0..4].copy_from_slice(&length.to_le_bytes());
        out.bytes[4..8].copy_from_slice(&count.to_le_bytes());
        out.length = length;
    }

    /// An empty block; large, so callers keep one.
    pub fn no_tags() -> Block {
        Block { bytes: [0; MAX_BLOCK as usize], length: 0 }
    }

    /// Makes every entry with one of these tags a miss, everywhere and at once.
    pub fn invalidate(&self, tags: &[u8]) {
        for (_, name) in given(tags) {
            let at = self.region.geometry.tag(self.tag_slot(name));
            self.region.word(at).fetch_add(1, SeqCst);
        }
    }

    /// Makes every entry a miss, everywhere and at once.
    pub fn clear(&self) {
        self.region.word(CLEAR_EPOCH_AT).fetch_add(1, SeqCst);
    }

    /// Whether nothing has invalidated the record since it was written.
    #[inline]
    pub(crate) fn is_current(&self, record: &Record) -> bool {
        record.epoch == self.clear_epoch()
            && record.tag_snapshots(&self.region).all(|(slot, snapshot)| {
                let slot = slot & (self.region.geometry.tags - 1);
                self.region.word(self.region.geometry.tag(slot)).load(Acquire) as u32 == snapshot
            })
    }

    /// Takes the snapshots of an unpublished record's tags anew.
    pub(crate) fn renew_tags(&self, record: &Record) {
        let (at, _) = record.tags();
        for (i, (slot, _)) in (0u32..).zip(record.tag_snapshots(&self.region)) {
            let counter = self.region.geometry.tag(slot & (self.region.geometry.tags - 1));
            let snapshot = self.region.word(counter).load(SeqCst) << 32;
            self.region.fill(at + 8 + i * 8, snapshot | slot as u64);
        }
    }

    /// Copies a record's tag block out, as it lies there; returns its length in bytes.
    ///
    /// # Safety
    /// `to` must be aligned to eight and have room for [`MAX_BLOCK`] bytes.
    pub(crate) unsafe fn copy_tags(&self, record: &Record, to: *mut u8) -> u32 {
        let (at, bytes) = record.tags();
        let bytes = bytes.min(MAX_BLOCK);
        // SAFETY: by contract.
        unsafe { self.region.copy_out(at, to, bytes) };
        bytes
    }
}
