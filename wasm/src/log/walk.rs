//! Walking a segment that is being reclaimed: its live records and chunks are moved or dropped one by one.

use core::cell::OnceCell;

use crate::format::header::{CHUNK, CHUNKED, FirstWord};
use crate::format::layout::{Class, Counter, GRAIN, META_BUMP};
use crate::format::record::{HEADER, Record, end_of_segment};
use crate::format::segment::{Phase, State};
use crate::index::entry::Entry;
use crate::index::probe::{Hit, entries_of, find_place, load_entry, replace_any_heat, resolve};
use crate::log::append::Purpose;
use crate::log::policy::{Keep, Plan, Pressure, Progress, destination};
use crate::participant::lock::{Busy, Held};
use crate::participant::participant::{Host, Participant};
use crate::participant::validity::Standing;
use crate::sync::{Acquire, SeqCst};

/// How far a walk came.
pub(crate) enum Walked {
    /// To the end of the segment.
    All,
    /// To the end of its step.
    Part,
}

/// Why a walk had to stop.
pub(crate) enum Blocked {
    /// At its first record: a living participant holds the lock of a bucket that the walk needs, or is still writing the
    /// large value that a chunk belongs to.
    Held,
    /// For the same reason, after it has walked some records.
    HeldLater,
    /// There is no room for the copy of a record that is to be kept.
    NoRoom,
}

/// The time of a walk, which is asked for at the first record that has an expiry.
type Now = OnceCell<f64>;

impl<H: Host> Participant<H> {
    /// Moves or drops the live records of a segment for about `step` bytes, from where the last walk of it stopped. `mine`
    /// is the RECLAIM state that this participant owns.
    pub(crate) fn walk(&self, segment: u32, mine: State, plan: Plan, step: u32) -> Result<Walked, Blocked> {
        let start = self.region.geometry.segment(segment);
        let from = self.progress(segment).offset().min(self.region.geometry.segment_bytes());
        let mut at = start + from;
        let walked = self.walk_on(segment, mine, plan, step, &mut at);
        // A walk that keeps nothing passes chunks that their writer may yet list, so it must not store its progress. Any other
        // walk stops at such chunks (`walk_chunk`).
        if !matches!(walked, Ok(Walked::All)) && plan.keep != Keep::Nothing && at > start + from {
            self.set_progress(segment, Progress::new(at - start, plan.keep));
            return walked.map_err(|blocked| if let Blocked::Held = blocked { Blocked::HeldLater } else { blocked });
        }
        walked
    }

    /// Walks from `at` on. Ends because every record that is passed has a length.
    fn walk_on(&self, segment: u32, mine: State, plan: Plan, step: u32, at: &mut u32) -> Result<Walked, Blocked> {
        let geometry = &self.region.geometry;
        let (start, end) = (geometry.segment(segment), end_of_segment(geometry, segment));
        // Acquire: pairs with the fetch_add in `append`.
        let bump = self.region.word(geometry.meta(segment) + META_BUMP).load(Acquire);
        let used = start + bump.min(geometry.segment_bytes() as u64) as u32;
        let now = Now::new();
        let stop = at.saturating_add(step);
        while *at < used {
            let first = FirstWord(self.region.word(*at).load(Acquire));
            if first == FirstWord::end(mine.generation()) {
                return Ok(Walked::All);
            }
            if *at >= stop {
                return Ok(Walked::Part);
            }
            if first == FirstWord::gap(mine.generation()) {
                // `Space::shrink` has left a gap that is too short for a record.
                *at += GRAIN;
                continue;
            }
            let length = first.length().length();
            if first.generation() != mine.generation() || length < HEADER || length > end - *at {
                // A writer died between its reservation and its first word: the records behind it cannot be reached.
                return self.sweep(segment, mine, plan, &now).map(|()| Walked::All);
            }
            match Record::read(&self.region, *at, end) {
                Some(record) if record.has(CHUNK) => self.walk_chunk(&record, plan, mine.class())?,
                Some(record) => self.walk_record(&record, plan, mine.class(), &now)?,
                // The writer died before it wrote the second word, or foreign bytes were written.
                None => {}
            }
            *at += length;
        }
        Ok(Walked::All)
    }

    /// Moves or drops a record, if an entry points to it.
    fn walk_record(&self, record: &Record, plan: Plan, class: Class, now: &Now) -> Result<(), Blocked> {
        let hash = record.hash(&self.region);
        let Some((entry_at, entry)) = find_place(&self.region, hash, record.at, record.generation) else {
            return Ok(());
        };
        let held = self.lock_if_mutable(entry, hash)?;
        // The entry is searched again under the lock: the last holder may have replaced it.
        let still_there = held.is_none() || find_place(&self.region, hash, record.at, record.generation).is_some();
        let mut result = Ok(());
        if let Some(hit) = resolve(&self.region, entry_at, entry).filter(|_| still_there) {
            match self.standing(record, || *now.get_or_init(|| self.host.now())) {
                Standing::Invalidated => drop(self.drop_entry(&hit, false)),
                Standing::Expired => {
                    if self.drop_entry(&hit, false) {
                        self.count(Counter::Expirations, 1);
                    }
                }
                Standing::Usable => match destination(plan.keep, class, entry.heat()) {
                    Some(target) if self.move_record(&hit, target).is_ok() => {}
                    Some(_) if self.should_wait(plan) => result = Err(Blocked::NoRoom),
                    _ => self.evict(&hit, class),
                },
            }
        }
        self.unlock_if_held(held);
        result
    }

    /// Moves a chunk, or evicts its value, if a head lists the chunk. Moving a chunk changes one word of the head, under the
    /// bucket's lock.
    fn walk_chunk(&self, chunk: &Record, plan: Plan, class: Class) -> Result<(), Blocked> {
        let hash = chunk.hash(&self.region);
        if !self.may_be_listed(chunk, hash) {
            let pending = plan.keep != Keep::Nothing && self.is_pending(chunk.version(&self.region));
            return if pending { Err(Blocked::Held) } else { Ok(()) };
        }
        let held = self.lock_briefly(hash).map_err(|_| Blocked::Held)?;
        let mut result = Ok(());
        if let Some((head, place_at)) = self.head_of(chunk, hash) {
            match destination(plan.keep, class, head.entry.heat()) {
                Some((target, _)) if self.move_chunk(chunk, place_at, target).is_ok() => {}
                Some(_) if self.should_wait(plan) => result = Err(Blocked::NoRoom),
                _ => self.evict(&head, class),
            }
        }
        self.unlock(held);
        result
    }

    /// Copies a record to an open segment of `class`, and lets its entry point to the copy, with `cooling` less heat. `Err`
    /// when there is no room. `Ok` also when the entry was replaced meanwhile: then the copy is dead.
    fn move_record(&self, hit: &Hit, (class, cooling): (Class, u64)) -> Result<(), Busy> {
        let record = &hit.record;
        if record.length > self.region.geometry.max_record {
            // Foreign bytes.
            return Err(Busy);
        }
        let space = self.reserve(class, record.length_field(&self.region), Purpose::Relocate)?;
        space.fill_from(&self.region, record);
        let moved = replace_any_heat(&self.region, hit.entry_at, hit.entry, |entry| {
            entry.moved(space.generation, space.at, entry.heat().saturating_sub(cooling))
        });
        if moved.is_some() {
            self.add_live(&space, record.length);
            self.take_live(hit.segment, hit.generation, record.length);
        }
        self.withdraw();
        Ok(())
    }

    /// Copies a chunk to an open segment of `class`, and lets its head list the copy. The caller holds the lock of
    /// the head's bucket.
    fn move_chunk(&self, chunk: &Record, place_at: u32, class: Class) -> Result<(), Busy> {
        if chunk.length > self.region.geometry.max_record {
            // Foreign bytes.
            return Err(Busy);
        }
        let space = self.reserve(class, chunk.length_field(&self.region), Purpose::Relocate)?;
        space.fill_from(&self.region, chunk);
        // Publishes the copy; pairs with the Acquire in `Record::chunk_place`.
        self.region.word(place_at).store(space.place().0, SeqCst);
        self.add_live(&space, chunk.length);
        if let Some(segment) = self.region.geometry.segment_of(chunk.at) {
            self.take_live(segment, chunk.generation, chunk.length);
        }
        self.withdraw();
        Ok(())
    }

    /// Whether a patient walk should wait for room: another living participant is reclaiming too.
    #[cold]
    fn should_wait(&self, plan: Plan) -> bool {
        let others_reclaim = |segment: u32| {
            let state = State(self.region.word(self.region.geometry.state(segment)).load(Acquire));
            state.phase() == Phase::Reclaim && state.owner() != self.seat && !self.owner_is_gone(state)
        };
        plan.pressure == Pressure::Patient && (0..self.region.geometry.segments).any(others_reclaim)
    }

    /// Locks the bucket of a mutable entry: its record must not change while it is copied or after it was dropped. Does not
    /// wait for the lock, because there are other segments.
    fn lock_if_mutable(&self, entry: Entry, hash: u64) -> Result<Option<Held>, Blocked> {
        if entry.is_mutable() { self.lock_briefly(hash).map(Some).map_err(|_| Blocked::Held) } else { Ok(None) }
    }

    fn unlock_if_held(&self, held: Option<Held>) {
        if let Some(held) = held {
            self.unlock(held);
        }
    }

    /// Moves or drops every entry that needs a segment whose records cannot be walked, by scanning the index. Slow, and
    /// needed only after a crash or foreign bytes.
    #[cold]
    fn sweep(&self, segment: u32, mine: State, plan: Plan, now: &Now) -> Result<(), Blocked> {
        let geometry = &self.region.geometry;
        // A scan of the index cannot find the chunks of a value that is still being written.
        if plan.keep != Keep::Nothing && self.may_have_pending_chunks(segment) {
            return Err(Blocked::Held);
        }
        for bucket in 0..geometry.buckets {
            for entry_at in entries_of(geometry, bucket) {
                let entry = load_entry(&self.region, entry_at);
                if !self.needs(entry_at, entry, segment) {
                    continue;
                }
                self.salvage(entry_at, segment, mine, plan, now)?;
                // An entry that still needs the segment cannot be saved. The number of its bucket serves as the hash.
                let entry = load_entry(&self.region, entry_at);
                let held = self.lock_if_mutable(entry, bucket as u64)?;
                // The entry is loaded again under the lock: the last holder may have replaced it.
                let entry = if held.is_some() { load_entry(&self.region, entry_at) } else { entry };
                if self.needs(entry_at, entry, segment) {
                    match resolve(&self.region, entry_at, entry) {
                        Some(hit) => drop(self.drop_entry(&hit, false)),
                        None => drop(replace_any_heat(&self.region, entry_at, entry, |_| Entry::EMPTY)),
                    }
                }
                self.unlock_if_held(held);
            }
        }
        Ok(())
    }

    /// Moves or drops one entry and the chunks of its value, as far as they lie in the segment. A walk would have done the
    /// same if it had reached them.
    fn salvage(&self, entry_at: u32, segment: u32, mine: State, plan: Plan, now: &Now) -> Result<(), Blocked> {
        let hit = || resolve(&self.region, entry_at, load_entry(&self.region, entry_at));
        if let Some(hit) = hit().filter(|hit| hit.segment == segment) {
            self.walk_record(&hit.record, plan, mine.class(), now)?;
        }
        if let Some(head) = hit().filter(|hit| hit.record.has(CHUNKED)) {
            for i in 0..head.record.chunks() {
                match self.chunk_at(head.record.chunk_place(&self.region, i)) {
                    Some((lies_in, chunk)) if lies_in == segment => self.walk_chunk(&chunk, plan, mine.class())?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Whether an entry has its record or a chunk of its value in this segment.
    fn needs(&self, entry_at: u32, entry: Entry, segment: u32) -> bool {
        let has_chunk = |head: &Record| {
            (0..head.chunks()).any(|i| {
                let place = head.chunk_place(&self.region, i);
                self.region.geometry.segment_of(place.at()) == Some(segment)
            })
        };
        entry.is_live()
            && (self.region.geometry.segment_of(entry.at()) == Some(segment)
                || entry.is_mutable()
                    && resolve(&self.region, entry_at, entry)
                        .is_some_and(|hit| hit.record.has(CHUNKED) && has_chunk(&hit.record)))
    }
}
