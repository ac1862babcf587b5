//! Invalidating many entries in one step: `clear` by the clear epoch, tags and namespaces by a table of counters.
//!
//! A record remembers the clear epoch in which it was written, and for each of its tags a snapshot of the tag's counter. When
//! one of them has changed, the record is a miss, wherever it lies (`participant/validity.rs`). Nothing is scanned. Tags
//! whose hashes choose the same counter invalidate each other's entries, which costs misses and nothing else.
//!
//! ```text
//! given by the caller   count u16 │ bytes of the namespace's prefix u16, then for each tag: length u16 (highest bit: keep the
//!                       name out of the record, which makes it a hidden tag) │ prefix and UTF-8
//! in the record         bytes u32 │ count u32 │ {counter u32 │ snapshot u32} × count, then for each tag that is not
//!                       hidden: length u16 │ UTF-8 without the prefix; then zeros up to a multiple of 8
//! ```

use crate::format::hash::{TAG, hash};
use crate::format::layout::{CLEAR_EPOCH_AT, INVALIDATIONS_AT, MAX_TAG, MAX_TAG_NAME, MAX_TAGS, WORD};
use crate::format::record::{Record, TAG_BLOCK_HEADER, TAG_SNAPSHOT, words};
use crate::participant::participant::{Host, Participant};
use crate::sync::SeqCst;

/// The bit of a tag's length that keeps its name out of the record.
pub const HIDDEN: u16 = 1 << 15;
/// Bytes of the caller's block before the first tag.
pub const GIVEN_HEADER: u32 = 4;
/// Bytes of the length in front of a tag, in both blocks.
pub const LENGTH_BYTES: u32 = 2;
/// Bytes that the tag block of a record can have.
pub const MAX_BLOCK: u32 = words(TAG_BLOCK_HEADER + MAX_TAGS * (TAG_SNAPSHOT + LENGTH_BYTES + MAX_TAG_NAME));

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

/// Bytes of the prefix in front of each tag in a block given by the caller.
fn prefix(block: &[u8]) -> usize {
    block.first_chunk::<{ GIVEN_HEADER as usize }>().map_or(0, |sizes| u32::from_le_bytes(*sizes) >> 16) as usize
}

/// The tags in a block given by the caller: `(hidden, name)`. Ends early where the block is malformed.
fn given(block: &[u8]) -> impl Iterator<Item = (bool, &[u8])> {
    let mut rest = block.get(GIVEN_HEADER as usize..).unwrap_or(&[]);
    let count = block
        .first_chunk::<{ GIVEN_HEADER as usize }>()
        .map_or(0, |sizes| u32::from_le_bytes(*sizes) & 0xFFFF)
        .min(MAX_TAGS);
    (0..count).map_while(move |_| {
        let (length, after) = rest.split_first_chunk::<{ LENGTH_BYTES as usize }>()?;
        let length = u16::from_le_bytes(*length);
        let (name, after) = after.split_at_checked((length & !HIDDEN) as usize)?;
        rest = after;
        (name.len() <= MAX_TAG as usize).then_some((length & HIDDEN != 0, name))
    })
}

impl<H: Host> Participant<H> {
    /// The number of a tag's counter.
    fn counter_of(&self, name: &[u8]) -> u32 {
        let mut words = [0u64; MAX_TAG as usize / 8];
        for (word, bytes) in words.iter_mut().zip(name.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(padded);
        }
        hash(&words, name.len() as u32, TAG, self.seed) as u32 & (self.region.geometry.tag_counters - 1)
    }

    /// Builds the tag block of a record from the caller's block, with snapshots of the counters.
    pub fn tag_block(&self, tags: &[u8], out: &mut Block) {
        out.length = 0;
        let count = given(tags).count() as u32;
        if count == 0 {
            return;
        }
        let mut put = TAG_BLOCK_HEADER as usize;
        for (_, name) in given(tags) {
            let counter = self.counter_of(name);
            let snapshot = self.region.word(self.region.geometry.tag_counter(counter)).load(SeqCst) as u32;
            out.bytes[put..put + 4].copy_from_slice(&counter.to_le_bytes());
            out.bytes[put + 4..put + TAG_SNAPSHOT as usize].copy_from_slice(&snapshot.to_le_bytes());
            put += TAG_SNAPSHOT as usize;
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

    /// An empty block. Blocks are large, so callers keep one and use it again.
    pub fn no_tags() -> Block {
        Block { bytes: [0; MAX_BLOCK as usize], length: 0 }
    }

    /// A number that grows with each change of the counters of these tags.
    pub fn tag_changes(&self, tags: &[u8]) -> f64 {
        let counters = given(tags).map(|(_, name)| self.region.geometry.tag_counter(self.counter_of(name)));
        // Sequentially consistent: pairs with the change in `invalidate`, as the look of a waiter does (`coordinate/bells.rs`).
        let words = counters.map(|at| self.region.word(at).load(SeqCst));
        words.map(|word| word as u32 as f64 + (word >> 32) as f64).sum()
    }

    /// Makes every entry with one of these tags a miss, for all participants at once.
    pub fn invalidate(&self, tags: &[u8]) {
        for (_, name) in given(tags) {
            let at = self.region.geometry.tag_counter(self.counter_of(name));
            let sequence = self.region.word(INVALIDATIONS_AT).fetch_add(1, SeqCst).wrapping_add(1);
            self.region.word(at).fetch_max(sequence, SeqCst);
        }
        self.ring_all();
    }

    /// Makes every entry a miss, for all participants at once.
    pub fn clear(&self) {
        self.region.word(CLEAR_EPOCH_AT).fetch_add(1, SeqCst);
        self.ring_all();
    }

    /// Takes new snapshots of the counters of an unpublished record's tags.
    pub(crate) fn renew_tags(&self, record: &Record) {
        for (i, (counter, _)) in (0u32..).zip(record.tag_snapshots(&self.region)) {
            let at = self.region.geometry.tag_counter(counter);
            record.fill_tag_snapshot(&self.region, i, counter, self.region.word(at).load(SeqCst) as u32);
        }
    }

    /// Copies the tag block of a record, as it lies there. Returns its length in bytes.
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

const _: () = assert!(MAX_BLOCK % WORD == 0 && MAX_TAG % WORD == 0 && MAX_TAG < HIDDEN as u32);
