//! Invalidating and expiring many entries in one step: `clear` by the clear epoch, tags and namespaces by a table of counters.
//!
//! A record remembers the clear epoch in which it was written, and for each of its tags a snapshot of the tag's counter. When
//! one of them has changed, the record is no hit any more, wherever it lies (`participant/validity.rs`). Nothing is scanned.
//! Tags whose hashes choose the same counter invalidate and expire each other's entries, which costs misses and nothing else.
//!
//! A counter counts by the region's *invalidation sequence*, a number that each invalidation and each expiry of a tag takes from
//! one shared word. So whoever knows this sequence at some time can tell later whether a tag was invalidated since
//! (`Participant::invalidated_since`).
//!
//! ```text
//! given by the caller   count u16 │ bytes of the namespace's prefix u16 │ prefix, then for each tag: length u16 (highest bit:
//!                       a hidden tag, which has no prefix and whose name the record does not keep) │ UTF-8
//! in the record         bytes u32 │ count u32 │ snapshot u64 × count │ counter u32 × count, then for each tag that is not
//!                       hidden: length u16 │ UTF-8 without the prefix; then zeros up to a multiple of 8
//! ```

use crate::format::hash::{TAG, hash};
use crate::format::layout::{
    CLEAR_EPOCH_AT, INVALIDATIONS_AT, MAX_TAG, MAX_TAG_NAME, MAX_TAGS, MAX_VISIBLE_TAGS, TAG_EXPIRED_AT,
    TAG_INVALIDATED_AT, WORD,
};
use crate::format::record::{Record, TAG_BLOCK_HEADER, TAG_BYTES, TAG_SNAPSHOT, words};
use crate::participant::participant::{Host, Participant};
use crate::sync::{AcqRel, Relaxed, SeqCst};

/// The bit of a tag's length that marks a hidden tag: it has no prefix, and the record does not keep its name.
pub const HIDDEN: u16 = 1 << 15;
/// Bytes of the caller's block before the prefix.
pub const GIVEN_HEADER: u32 = 4;
/// Bytes of the length in front of a tag, in both blocks.
pub const LENGTH_BYTES: u32 = 2;
/// Longest prefix of a namespace's tags, in bytes.
pub const MAX_PREFIX: u32 = MAX_TAG - MAX_TAG_NAME;
/// Bytes that the tag block of a record can have.
pub const MAX_BLOCK: u32 =
    words(TAG_BLOCK_HEADER + MAX_TAGS * TAG_BYTES + MAX_VISIBLE_TAGS * (LENGTH_BYTES + MAX_TAG_NAME));

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

/// One of the two events of a tag: which half of the counter's first word has its sequence, and where its time lies.
#[derive(Clone, Copy)]
struct TagEvent {
    shift: u32,
    time_at: u32,
}

const INVALIDATED: TagEvent = TagEvent { shift: 0, time_at: TAG_INVALIDATED_AT };
const EXPIRED: TagEvent = TagEvent { shift: 32, time_at: TAG_EXPIRED_AT };

/// A tag in a block given by the caller.
struct Given<'a> {
    hidden: bool,
    /// The prefix of its namespace; empty for a hidden tag.
    prefix: &'a [u8],
    name: &'a [u8],
}

/// The tags in a block given by the caller. Ends early where the block is malformed, or has more visible tags than allowed.
fn given(block: &[u8]) -> impl Iterator<Item = Given<'_>> {
    let (sizes, rest) = block.split_first_chunk::<{ GIVEN_HEADER as usize }>().unwrap_or((&[0; 4], &[]));
    let sizes = u32::from_le_bytes(*sizes);
    let (count, bytes) = (sizes & 0xFFFF, sizes >> 16);
    let (prefix, mut rest) = rest.split_at_checked(bytes.min(MAX_PREFIX) as usize).unwrap_or((&[], &[]));
    let mut visible = 0;
    (0..count.min(MAX_TAGS)).map_while(move |_| {
        let (length, after) = rest.split_first_chunk::<{ LENGTH_BYTES as usize }>()?;
        let length = u16::from_le_bytes(*length);
        let hidden = length & HIDDEN != 0;
        let (name, after) = after.split_at_checked((length & !HIDDEN) as usize)?;
        rest = after;
        visible += !hidden as u32;
        let allowed = name.len() <= MAX_TAG_NAME as usize && visible <= MAX_VISIBLE_TAGS;
        allowed.then_some(Given { hidden, prefix: if hidden { &[] } else { prefix }, name })
    })
}

impl<H: Host> Participant<H> {
    /// The number of a tag's counter. Hidden tags have the last counters for themselves: otherwise a tag that shares the
    /// counter of a namespace would take all entries of the namespace with it, each time that it is invalidated.
    fn counter_of(&self, tag: &Given) -> u32 {
        let mut bytes = [0; MAX_TAG as usize];
        let (prefix, rest) = bytes.split_at_mut(tag.prefix.len());
        prefix.copy_from_slice(tag.prefix);
        rest[..tag.name.len()].copy_from_slice(tag.name);
        let length = tag.prefix.len() + tag.name.len();
        let mut words = [0u64; MAX_TAG as usize / 8];
        for (word, bytes) in words.iter_mut().zip(bytes[..length.next_multiple_of(8)].as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let geometry = &self.region.geometry;
        let visible = geometry.tag_counters - geometry.namespace_counters();
        let (first, count) = if tag.hidden { (visible, geometry.namespace_counters()) } else { (0, visible) };
        let hash = hash(&words, length as u32, TAG, self.seed) as u32;
        first + (hash as u64 * count as u64 >> 32) as u32
    }

    /// The first word of a counter, for a snapshot. Sequentially consistent: pairs with `mark`.
    fn snapshot_of(&self, counter: u32) -> u64 {
        self.region.word(self.region.geometry.tag_counter(counter)).load(SeqCst)
    }

    /// Builds the tag block of a record from the caller's block, with snapshots of the counters.
    pub fn tag_block(&self, tags: &[u8], out: &mut Block) {
        out.length = 0;
        let count = given(tags).count() as u32;
        if count == 0 {
            return;
        }
        let mut snapshot_at = TAG_BLOCK_HEADER as usize;
        let mut counter_at = snapshot_at + (count * TAG_SNAPSHOT) as usize;
        let mut put = snapshot_at + (count * TAG_BYTES) as usize;
        for tag in given(tags) {
            let counter = self.counter_of(&tag);
            out.bytes[snapshot_at..snapshot_at + 8].copy_from_slice(&self.snapshot_of(counter).to_le_bytes());
            out.bytes[counter_at..counter_at + 4].copy_from_slice(&counter.to_le_bytes());
            (snapshot_at, counter_at) = (snapshot_at + 8, counter_at + 4);
            if !tag.hidden {
                out.bytes[put..put + 2].copy_from_slice(&(tag.name.len() as u16).to_le_bytes());
                out.bytes[put + 2..put + 2 + tag.name.len()].copy_from_slice(tag.name);
                put += 2 + tag.name.len();
            }
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

    /// Makes every entry with one of these tags a miss, for all participants at once. `now` is in milliseconds; 0 leaves the
    /// times of the tags as they are.
    pub fn invalidate(&self, tags: &[u8], now: f64) {
        given(tags).for_each(|tag| self.mark(&tag, INVALIDATED, now));
        self.ring_all();
    }

    /// Makes every entry with one of these tags a stale one, for all participants at once. An entry without a grace is a miss.
    pub fn expire_tags(&self, tags: &[u8], now: f64) {
        given(tags).for_each(|tag| self.mark(&tag, EXPIRED, now));
        self.ring_all();
    }

    /// The time of the latest invalidation of any of these tags, in milliseconds; 0 when there was none. It may be that of
    /// another tag with the same counter.
    pub fn tags_invalidated_at(&self, tags: &[u8]) -> f64 {
        given(tags).map(|tag| self.tag_time(self.counter_of(&tag), INVALIDATED.time_at)).fold(0.0, f64::max)
    }

    /// A number that grows with each change of the counters of these tags.
    pub fn tag_changes(&self, tags: &[u8]) -> f64 {
        let counters = given(tags).map(|tag| self.region.geometry.tag_counter(self.counter_of(&tag)));
        // Sequentially consistent: pairs with the change in `mark`, as the look of a waiter does (`coordinate/bells.rs`).
        let words = counters.map(|at| self.region.word(at).load(SeqCst));
        words.map(|word| word as u32 as f64 + (word >> 32) as f64).sum()
    }

    /// Writes the next sequence, and `now`, to the counter of a tag. The compare-and-swap of the first word is what readers see
    /// as the event. A participant that dies before it has raised the time only.
    ///
    /// The sequence in a counter only moves forward: it is taken after the old word was loaded, and the compare-and-swap
    /// succeeds only while that word stands. An attempt fails only when another participant has marked a tag of this counter.
    fn mark(&self, tag: &Given, event: TagEvent, now: f64) {
        let at = self.region.geometry.tag_counter(self.counter_of(tag));
        let word = self.region.word(at);
        self.raise_time(at + event.time_at, now);
        loop {
            let seen = word.load(SeqCst);
            // Sequentially consistent: pairs with `invalidated_since`, which loads the sequence after the counters.
            let sequence = self.region.word(INVALIDATIONS_AT).fetch_add(1, SeqCst).wrapping_add(1) as u32;
            let next = seen & !((u32::MAX as u64) << event.shift) | (sequence as u64) << event.shift;
            // 0 is the sequence of a counter that nobody has marked, which entries may remember: the sequence that has wrapped
            // around to it is passed over. The same word again would be no event either. Sequentially consistent: pairs with the
            // loads in `counter` (`participant/validity.rs`), `snapshot_of` and `invalidated_since`.
            if sequence != 0 && next != seen && word.compare_exchange(seen, next, SeqCst, Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Raises a time to `now`, unless it is later already. Ends, because a failed attempt means that the time was raised.
    fn raise_time(&self, at: u32, now: f64) {
        let word = self.region.word(at);
        let mut seen = word.load(Relaxed);
        while !(f64::from_bits(seen) >= now) {
            match word.compare_exchange(seen, now.to_bits(), AcqRel, Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    /// Makes every entry a miss, for all participants at once.
    pub fn clear(&self) {
        self.region.word(CLEAR_EPOCH_AT).fetch_add(1, SeqCst);
        self.ring_all();
    }

    /// Takes new snapshots of the counters of an unpublished record's tags.
    pub(crate) fn renew_tags(&self, record: &Record) {
        for (i, (counter, _)) in (0u32..).zip(record.tag_snapshots(&self.region)) {
            record.fill_tag_snapshot(&self.region, i, self.snapshot_of(counter));
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
