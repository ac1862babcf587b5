//! Where a new record and its entry go: the class of the record, and the way of the bucket.

use crate::format::layout::Class;
use crate::format::segment::State;
use crate::index::entry::{Entry, EntryState, fingerprint_of};
use crate::index::key::{Key, bucket_of};
use crate::index::probe::{entries_of, load_entry, resolve, ways_with};
use crate::participant::participant::{Host, Participant};
use crate::sync::{Acquire, Relaxed};

impl<H: Host> Participant<H> {
    /// The class of a new record of this key: main when the key was evicted lately, or when its entry already is in main.
    pub(crate) fn class_for(&self, key: &Key) -> Class {
        let geometry = &self.region.geometry;
        let bucket = bucket_of(geometry, key.hash);
        let fingerprint = fingerprint_of(key.hash);
        // Prefetch of the change counter's cache line; Acquire, so that the compiler keeps the load although its result is
        // unused.
        let _ = self.region.word(geometry.changes(bucket)).load(Acquire);
        for way in ways_with(&self.region, bucket, fingerprint) {
            let entry = Entry(self.region.word(geometry.entry(bucket, way)).load(Relaxed));
            if entry.fingerprint() != fingerprint {
                continue;
            }
            match entry.state() {
                EntryState::Empty => {}
                EntryState::Ghost if self.remembers(entry) => return Class::Main,
                EntryState::Ghost => {}
                _ => {
                    if let Some(segment) = geometry.segment_of(entry.at()) {
                        return State(self.region.word(geometry.state(segment)).load(Relaxed)).class();
                    }
                }
            }
        }
        Class::Small
    }

    /// Whether a ghost still counts. It does until as many segments of the small queue were sealed as the region has segments.
    fn remembers(&self, ghost: Entry) -> bool {
        ghost.ghost_age(self.ghost_clock()) <= self.region.geometry.segments as u64
    }

    /// The way of a bucket that a new entry takes, and the entry there: the ghost of the same key, else an empty way, else
    /// the oldest ghost, else an entry that is a miss already, else the coldest entry.
    pub(crate) fn choose_way(&self, key: &Key) -> (u32, Entry) {
        let geometry = &self.region.geometry;
        let bucket = bucket_of(geometry, key.hash);
        let clock = self.ghost_clock();
        let first = geometry.entry(bucket, 0);
        let mut best = (first, load_entry(&self.region, first));
        let mut best_worth = u64::MAX;
        for entry_at in entries_of(geometry, bucket) {
            let entry = load_entry(&self.region, entry_at);
            let worth = match entry.state() {
                EntryState::Ghost if entry.fingerprint() == fingerprint_of(key.hash) => 0,
                EntryState::Empty => 1,
                // Older ghosts are worth less, and every ghost less than a live entry.
                EntryState::Ghost => (1 << 40) - entry.ghost_age(clock),
                _ => (1 << 41) + entry.heat(),
            };
            if worth < best_worth {
                (best, best_worth) = ((entry_at, entry), worth);
            }
        }
        if best.1.is_live() { self.find_worthless(bucket).unwrap_or(best) } else { best }
    }

    /// An entry of a full bucket that is invalidated, expired (its grace as well) or foreign. Its heat says nothing any more.
    #[cold]
    fn find_worthless(&self, bucket: u32) -> Option<(u32, Entry)> {
        entries_of(&self.region.geometry, bucket).find_map(|entry_at| {
            let entry = load_entry(&self.region, entry_at);
            let usable = resolve(&self.region, entry_at, entry).is_some_and(|hit| self.is_usable(&hit.record));
            (!usable).then_some((entry_at, entry))
        })
    }
}
