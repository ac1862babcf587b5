//! The live bytes of each segment: the bytes of the records and chunks in it to which the index leads, and of the chunks of
//! large values that are being written.
//!
//! Live bytes are exact as long as no participant dies and no call is cut off. After that they may be wrong until the segment
//! is reclaimed. Wrong live bytes only make the choice of a victim worse.

use crate::format::layout::META_LIVE;
use crate::format::record::Space;
use crate::format::segment::Live;
use crate::participant::participant::{Host, Participant};
use crate::sync::{Relaxed, Word};

/// Attempts to change the live bytes of a segment.
const ATTEMPTS: u32 = 10_000;

impl<H: Host> Participant<H> {
    fn live_word(&self, segment: u32) -> &Word {
        self.region.word(self.region.geometry.meta(segment) + META_LIVE)
    }

    /// Begins the accounts of a segment in a new life. The caller has opened it, and nobody else appends to it yet.
    pub(crate) fn reset_live(&self, segment: u32, generation: u32) {
        self.live_word(segment).store(Live::none(generation).0, Relaxed);
    }

    /// Adds `bytes` for a record that was just published in `space`. This participant's hazard still names the segment.
    pub(crate) fn add_live(&self, space: &Space, bytes: u32) {
        self.live_word(space.segment).fetch_add(bytes as u64, Relaxed);
    }

    /// Takes off `bytes` for a record that is no longer live. Does nothing when the segment is in another life by now.
    pub(crate) fn take_live(&self, segment: u32, generation: u32, bytes: u32) {
        let word = self.live_word(segment);
        let mut seen = Live(word.load(Relaxed));
        // Each failure is the success of another participant. So many failures happen only with foreign bytes.
        for _ in 0..ATTEMPTS {
            if seen.generation() != generation {
                return;
            }
            match word.compare_exchange_weak(seen.0, seen.minus(bytes).0, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = Live(now),
            }
        }
    }

    /// Live bytes of a segment. Below zero for a moment when a record is replaced before its writer has added its bytes.
    pub(crate) fn live_bytes(&self, segment: u32, generation: u32) -> i64 {
        let live = Live(self.live_word(segment).load(Relaxed));
        if live.generation() == generation { live.bytes() } else { 0 }
    }
}
