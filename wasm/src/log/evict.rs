//! Making room: S3-FIFO (Yang et al., SOSP 2023) over segments instead of single entries, and compaction.
//!
//! New records go to *small* segments. When one of those is reclaimed, what was read at least twice moves to *main*,
//! and the rest leaves a ghost in the index; a ghost that is set again goes to main at once. When a main segment is
//! reclaimed, what was read since moves on, one step colder, and the rest goes.
//!
//! A segment that is mostly dead bytes (overwritten, deleted) is compacted first, whatever its age: all of its live
//! records move. Without this, overwriting one key for ever would evict all the others.
//!
//! A segment is reclaimed in steps, a few records with each write, so that no write has to wait for a whole one. Between two
//! steps it is sealed as before, and nobody holds anything: how far it was gone through stands beside it, for whoever goes
//! on. What lies before that point is in no entry and can never be in one again at its place, because entries are only
//! made for what was appended while the segment was open, by writers whose hazards have been looked at.
//!
//! Every step can be interrupted and done again by another participant: a record that was moved or dropped is simply
//! not found in the index the second time.

use core::cell::OnceCell;

use crate::log::append::Purpose;
use crate::index::probe::{Entry, Hit, Kind, find_place, replace_any_heat, resolve};
use crate::format::layout::{Class, Counter, GHOST_CLOCK_AT, GRAIN, MAX_SEGMENTS, META_BUMP, META_EPOCH, META_SEALED, WAYS};
use crate::participant::lock::{Busy, Held};
use crate::participant::participant::{Host, Participant};
use crate::format::record::{CHUNK, CHUNKED, END, EXPIRES, HEADER, Place, Record, first_word};
use crate::format::segment::{Phase, State};
use crate::sync::{Acquire, Relaxed, SeqCst, fence};

/// Reads that an entry on probation needs to stay (the paper's `freq > 1`).
const PROMOTE: u64 = 2;

/// Bytes of a step that is as long as it takes.
pub(crate) const WHOLE: u32 = u32::MAX;

/// What came of a try to reclaim.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reclaimed {
    /// A segment was freed.
    Segment,
    /// A segment was gone through a step further.
    Step,
    /// Living participants hold on to everything that is sealed, or a patient one had better wait.
    Nothing,
}

/// How much is kept of a segment that is reclaimed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// What the policy says. When there is no room for what is to be kept while others reclaim as well, they are waited
    /// for: they are about to give segments back, and evicting what would have fitted helps nobody.
    Patient,
    /// What the policy says, as far as there is room.
    Firm,
    /// Nothing: too much was moved, or waited for, without making room.
    Relentless,
}

/// What happens to the live records of one victim.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    All,
    Hot,
    Nothing,
}

/// How a victim is walked.
#[derive(Clone, Copy)]
struct Plan {
    keep: Keep,
    pressure: Pressure,
}

struct Victim {
    segment: u32,
    state: State,
    plan: Plan,
}

/// How far a walk came.
enum Walked {
    All,
    /// To the end of its step.
    Part,
}

/// Why a walk had to stop.
enum Blocked {
    /// A living participant holds the lock of a bucket it needs, or is still writing the large value a chunk belongs to.
    Held,
    /// The same, after some records.
    Stuck,
    /// There is no room for what is to be kept.
    NoRoom,
}

/// The time of a walk, asked for when it comes to the first record that expires.
type Now = OnceCell<f64>;

/// The segments that one reclaim has tried in vain: pinned, blocked, or in the hands of somebody who lives. All of them
/// can be in here, so reclaiming goes on as long as there is one that nobody holds on to.
struct Tried([u64; MAX_SEGMENTS as usize / 64]);

impl Tried {
    fn add(&mut self, segment: u32) {
        self.0[(segment / 64) as usize] |= 1 << (segment % 64);
    }

    fn has(&self, segment: u32) -> bool {
        self.0[(segment / 64) as usize] >> (segment % 64) & 1 == 1
    }
}

impl<H: Host> Participant<H> {
    /// Frees one segment, or goes through about as many bytes of one as the `step` is long.
    pub(crate) fn reclaim(&self, pressure: Pressure, step: u32) -> Reclaimed {
        let begun = self.begun.take().and_then(|segment| self.begun(segment, pressure));
        let reclaimed = begun.as_ref().and_then(|victim| self.reclaim_this(victim, step));
        reclaimed.unwrap_or_else(|| self.reclaim_any(pressure, step, begun))
    }

    /// The same for whatever is worth least. Ends because no segment is tried twice.
    #[inline(never)]
    fn reclaim_any(&self, pressure: Pressure, step: u32, but: Option<Victim>) -> Reclaimed {
        let mut tried = Tried([0; MAX_SEGMENTS as usize / 64]);
        if let Some(victim) = but {
            tried.add(victim.segment);
        }
        while let Some(victim) = self.pick(&mut tried, pressure) {
            tried.add(victim.segment);
            if let Some(reclaimed) = self.reclaim_this(&victim, step) {
                return reclaimed;
            }
        }
        Reclaimed::Nothing
    }

    /// The same for one segment. `None` when another one is to be tried.
    fn reclaim_this(&self, victim: &Victim, step: u32) -> Option<Reclaimed> {
        let mine = self.claim(victim)?;
        let walked = if self.is_pinned(victim.segment) {
            Err(Blocked::Held)
        } else {
            self.walk(victim.segment, mine, victim.plan, step)
        };
        if let Ok(Walked::All) = walked {
            self.free(victim.segment, mine);
            self.count(Counter::Reclaims, 1);
            if victim.plan.keep == Keep::All {
                self.count(Counter::Compactions, 1);
            }
            return Some(Reclaimed::Segment);
        }
        // Put back as it was. What was already moved or dropped stays so.
        self.transfer(victim.segment, mine, mine.to(Phase::Sealed, 0, 0));
        match walked {
            Ok(_) => {
                self.begun.set(Some(victim.segment));
                Some(Reclaimed::Step)
            }
            Err(Blocked::NoRoom) => Some(Reclaimed::Nothing),
            // One step does not begin many segments that it cannot free.
            Err(Blocked::Stuck) if step != WHOLE => Some(Reclaimed::Nothing),
            Err(Blocked::Held | Blocked::Stuck) => None,
        }
    }

    /// A segment that was put back after a step, to be gone on with.
    fn begun(&self, segment: u32, pressure: Pressure) -> Option<Victim> {
        let state = State(self.region.word(self.region.geometry.state(segment)).load(Acquire));
        let progress = self.progress(segment);
        // A relentless reclaimer takes the oldest: what was begun may have been put back for a large value being written.
        let goes_on = state.phase() == Phase::Sealed && progress.offset() > 0 && pressure != Pressure::Relentless;
        goes_on.then(|| Victim { segment, state, plan: progress.plan(pressure) })
    }

    /// How far a segment was gone through by those who put it back. What lies before can never be live again at its place.
    fn progress(&self, segment: u32) -> Progress {
        Progress((self.region.word(self.region.geometry.meta(segment) + META_EPOCH).load(Relaxed) >> 32) as u32)
    }

    /// Remembers how far this participant came, which owns the RECLAIM state.
    fn set_progress(&self, segment: u32, progress: Progress) {
        let word = self.region.word(self.region.geometry.meta(segment) + META_EPOCH);
        word.store((progress.0 as u64) << 32 | word.load(Relaxed) as u32 as u64, Relaxed);
    }

    /// Chooses a segment by looking at the whole table: no lists, so nothing to repair.
    fn pick(&self, tried: &mut Tried, pressure: Pressure) -> Option<Victim> {
        let geometry = &self.region.geometry;
        let mut emptiest: Option<(i64, u32, State)> = None;
        let mut oldest: [Option<(u64, u32, State)>; 2] = [None; 2];
        let mut small_segments = 0;
        let epoch = self.clear_epoch();
        for segment in 0..geometry.segments {
            let state = State(self.region.word(geometry.state(segment)).load(Acquire));
            if state.phase() != Phase::Free && state.class() == Class::Small {
                small_segments += 1;
            }
            if tried.has(segment) {
                continue;
            }
            match state.phase() {
                Phase::Free => {}
                // Its opener died before it got into a lane.
                Phase::Open => {
                    if !self.in_a_lane(segment, state.generation()) && self.owner_is_gone(state) {
                        self.seal(segment, state);
                    } else {
                        tried.add(segment);
                    }
                }
                // Its reclaimer died on the way: go on where it stopped.
                Phase::Reclaim => {
                    if self.owner_is_gone(state) {
                        let progress = self.progress(segment);
                        // Nobody knows the plan of one who died in its first step.
                        let compact =
                            progress.offset() == 0 && self.is_mostly_dead(self.live_bytes(segment, state.generation()));
                        let progress = if compact { Progress::new(0, Keep::All) } else { progress };
                        return Some(Victim { segment, state, plan: progress.plan(pressure) });
                    }
                    tried.add(segment);
                }
                Phase::Sealed => {
                    if let Some(begun) = self.begun(segment, pressure) {
                        return Some(begun);
                    }
                    // What was sealed before the cache was cleared holds nothing, whatever the books say.
                    let cleared = self.region.word(geometry.meta(segment) + META_EPOCH).load(Relaxed) as u32 != epoch;
                    let live = if cleared { 0 } else { self.live_bytes(segment, state.generation()) };
                    if emptiest.is_none_or(|(least, ..)| live < least) {
                        emptiest = Some((live, segment, state));
                    }
                    let sealed = self.region.word(geometry.meta(segment) + META_SEALED).load(Relaxed);
                    let queue = &mut oldest[state.class() as usize];
                    if queue.is_none_or(|(first, ..)| sealed < first) {
                        *queue = Some((sealed, segment, state));
                    }
                }
            }
        }
        let (live, segment, state) = emptiest?;
        if self.is_mostly_dead(live) && pressure != Pressure::Relentless {
            return Some(Victim { segment, state, plan: Plan { keep: Keep::All, pressure } });
        }
        let [small, main] = oldest;
        let (_, segment, state) =
            if small_segments * 10 > geometry.segments { small.or(main) } else { main.or(small) }?;
        Some(Victim { segment, state, plan: Plan::by_age(pressure) })
    }

    /// Whether a segment with so many live bytes is worth compacting.
    fn is_mostly_dead(&self, live: i64) -> bool {
        live * 2 <= self.region.geometry.segment_bytes() as i64
    }

    /// SEALED (or a dead reclaimer's RECLAIM) → RECLAIM in this participant's name.
    fn claim(&self, victim: &Victim) -> Option<State> {
        let mine = victim.state.to(Phase::Reclaim, self.slot, self.epoch.get());
        self.transfer(victim.segment, victim.state, mine).then_some(mine)
    }

    fn transfer(&self, segment: u32, from: State, to: State) -> bool {
        // Sequentially consistent: comes before the look at the hazards.
        self.region.word(self.region.geometry.state(segment)).compare_exchange(from.0, to.0, SeqCst, Relaxed).is_ok()
    }

    /// Whether a living participant is still writing into the segment.
    fn is_pinned(&self, segment: u32) -> bool {
        (0..self.used_slots()).any(|slot| {
            self.hazard_of(slot).load(SeqCst) == segment as u64 + 1 && slot != self.slot && !self.bury(slot)
        })
    }

    /// The last step: gives the segment back in its next life. Only the owner of the RECLAIM state gets here, and no
    /// entry points into the segment any more.
    fn free(&self, segment: u32, mine: State) {
        self.region.word(self.region.geometry.meta(segment) + META_BUMP).store(0, Relaxed);
        fence(SeqCst);
        self.transfer(segment, mine, State::free(mine.generation().wrapping_add(1)));
    }

    /// Moves or drops the live records of a segment, from where the last walk stopped, until the `step` is over.
    fn walk(&self, segment: u32, mine: State, plan: Plan, step: u32) -> Result<Walked, Blocked> {
        let start = self.region.geometry.segment(segment);
        let from = self.progress(segment).offset().min(self.region.geometry.segment_bytes());
        let mut at = start + from;
        let walked = self.walk_on(segment, mine, plan, step, &mut at);
        // A relentless walk passes chunks that their writer may yet list; any other stops there (`walk_chunk`).
        if !matches!(walked, Ok(Walked::All)) && plan.keep != Keep::Nothing && at > start + from {
            self.set_progress(segment, Progress::new(at - start, plan.keep));
            return walked.map_err(|blocked| if let Blocked::Held = blocked { Blocked::Stuck } else { blocked });
        }
        walked
    }

    fn walk_on(&self, segment: u32, mine: State, plan: Plan, step: u32, at: &mut u32) -> Result<Walked, Blocked> {
        let geometry = &self.region.geometry;
        let (start, end) = (geometry.segment(segment), geometry.segment(segment + 1));
        let bump = self.region.word(geometry.meta(segment) + META_BUMP).load(Acquire);
        let used = start + bump.min(geometry.segment_bytes() as u64) as u32;
        let now = Now::new();
        let stop = at.saturating_add(step);
        while *at < used {
            let first = self.region.word(*at).load(Acquire);
            if first == first_word(END, mine.generation()) {
                return Ok(Walked::All);
            }
            if *at >= stop {
                return Ok(Walked::Part);
            }
            if first == first_word(GRAIN, mine.generation()) {
                // Left over by `fit`, too short for a record.
                *at += GRAIN;
                continue;
            }
            let length = first as u32 & !(GRAIN - 1);
            if first >> 32 != mine.generation() as u64 || length < HEADER || length > end - *at {
                // A writer died between its reservation and its first word: what comes after cannot be reached.
                return self.sweep(segment, mine, plan, &now).map(|()| Walked::All);
            }
            match Record::read(&self.region, *at, end) {
                Some(record) if record.has(CHUNK) => self.walk_chunk(&record, plan, mine.class())?,
                Some(record) => self.walk_record(&record, plan, mine.class(), &now)?,
                // Its writer died before the second word.
                None => {}
            }
            *at += length;
        }
        Ok(Walked::All)
    }

    /// Moves or drops every entry that needs a segment whose records cannot be walked, by way of the index. Slow, and only
    /// after a crash.
    #[cold]
    fn sweep(&self, segment: u32, mine: State, plan: Plan, now: &Now) -> Result<(), Blocked> {
        let geometry = &self.region.geometry;
        // Chunks of a value that is still being written stand in no index.
        if plan.keep != Keep::Nothing && self.is_pending(None) {
            return Err(Blocked::Held);
        }
        for bucket in 0..geometry.buckets {
            for way in 0..WAYS {
                let entry_at = geometry.bucket(bucket) + way * 8;
                let entry = Entry(self.region.word(entry_at).load(Acquire));
                if !self.needs(entry_at, entry, segment) {
                    continue;
                }
                self.salvage(entry_at, segment, mine, plan, now)?;
                // What is left cannot be saved.
                let entry = Entry(self.region.word(entry_at).load(Acquire));
                let held = self.hold(entry, bucket as u64)?;
                // Under the lock it is looked at again: its last holder may have replaced it.
                let entry = if held.is_some() { Entry(self.region.word(entry_at).load(Acquire)) } else { entry };
                if self.needs(entry_at, entry, segment) {
                    match resolve(&self.region, entry_at, entry) {
                        Some(hit) => drop(self.drop_entry(&hit, false)),
                        None => drop(replace_any_heat(&self.region, entry_at, entry, |_| Entry::EMPTY)),
                    }
                }
                self.let_go(held);
            }
        }
        Ok(())
    }

    /// What a walk would have done for one entry, and for the chunks of its value, had it come to them.
    fn salvage(&self, entry_at: u32, segment: u32, mine: State, plan: Plan, now: &Now) -> Result<(), Blocked> {
        let there = || resolve(&self.region, entry_at, Entry(self.region.word(entry_at).load(Acquire)));
        if let Some(hit) = there().filter(|hit| hit.segment == segment) {
            self.walk_record(&hit.record, plan, mine.class(), now)?;
        }
        if let Some(head) = there().filter(|hit| hit.record.has(CHUNKED)) {
            for i in 0..head.record.chunks() {
                let place = Place(self.region.word(head.record.chunk_place_at(i)).load(Acquire));
                match self.chunk_at(place) {
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
                let place = Place(self.region.word(head.chunk_place_at(i)).load(Acquire));
                self.region.geometry.segment_of(place.at()) == Some(segment)
            })
        };
        entry.is_live()
            && (self.region.geometry.segment_of(entry.at()) == Some(segment)
                || entry.kind() == Kind::Mutable
                    && resolve(&self.region, entry_at, entry)
                        .is_some_and(|hit| hit.record.has(CHUNKED) && has_chunk(&hit.record)))
    }

    /// Locks the bucket of an entry that is mutable: such a record must not change while it is copied, and nobody may
    /// change it after it was dropped. Does not wait: there are other segments.
    fn hold(&self, entry: Entry, hash: u64) -> Result<Option<Held>, Blocked> {
        if entry.kind() == Kind::Mutable {
            self.lock_briefly(hash).map(Some).map_err(|_| Blocked::Held)
        } else {
            Ok(None)
        }
    }

    fn let_go(&self, held: Option<Held>) {
        if let Some(held) = held {
            self.unlock(held);
        }
    }

    fn walk_record(&self, record: &Record, plan: Plan, class: Class, now: &Now) -> Result<(), Blocked> {
        let hash = record.hash(&self.region);
        let Some((entry_at, entry)) = find_place(&self.region, hash, record.at, record.generation) else {
            return Ok(());
        };
        let held = self.hold(entry, hash)?;
        // Under the lock the entry is looked for again: its last holder may have replaced it.
        let still_there = held.is_none() || find_place(&self.region, hash, record.at, record.generation).is_some();
        let mut result = Ok(());
        if let Some(hit) = resolve(&self.region, entry_at, entry).filter(|_| still_there) {
            if !self.is_current(record) {
                self.drop_entry(&hit, false);
            } else if record.has(EXPIRES) && record.expiry(&self.region) <= *now.get_or_init(|| self.host.now()) {
                if self.drop_entry(&hit, false) {
                    self.count(Counter::Expirations, 1);
                }
            } else {
                match destination(plan.keep, class, entry.freq()) {
                    Some(target) if self.move_record(&hit, target).is_ok() => {}
                    Some(_) if self.should_wait(plan) => result = Err(Blocked::NoRoom),
                    _ => self.evict(&hit, class),
                }
            }
        }
        self.let_go(held);
        result
    }

    /// Whether it helps to wait for room: somebody else is reclaiming, too.
    #[cold]
    fn should_wait(&self, plan: Plan) -> bool {
        let others_reclaim = |segment: u32| {
            let state = State(self.region.word(self.region.geometry.state(segment)).load(Acquire));
            state.phase() == Phase::Reclaim && state.owner() != self.slot && !self.owner_is_gone(state)
        };
        plan.pressure == Pressure::Patient && (0..self.region.geometry.segments).any(others_reclaim)
    }

    /// Segments of the small queue that were sealed so far. What main writes does not count: a ghost is to be remembered
    /// while as much goes through probation as the cache holds, as in the paper.
    pub(crate) fn ghost_clock(&self) -> u64 {
        self.region.word(GHOST_CLOCK_AT).load(Relaxed)
    }

    /// Takes an entry away for lack of room; from probation it leaves a ghost.
    pub(crate) fn evict(&self, hit: &Hit, class: Class) {
        self.set_evicting(true);
        if self.drop_entry(hit, class == Class::Small) {
            self.count(Counter::Evictions, 1);
        }
        self.set_evicting(false);
    }

    /// Takes an entry away. Mutable entries need their bucket's lock. False when it was not there any more.
    pub(crate) fn drop_entry(&self, hit: &Hit, leave_ghost: bool) -> bool {
        let clock = self.ghost_clock();
        let to = |entry: Entry| if leave_ghost { entry.ghost(clock) } else { Entry::EMPTY };
        self.retire_chunks(hit);
        let dropped = replace_any_heat(&self.region, hit.entry_at, hit.entry, to).is_some();
        if dropped {
            self.take_live(hit.segment, hit.generation, hit.record.length);
        }
        dropped
    }

    /// Copies a record to the open segment of another class and lets its entry point there. Err when there is no room;
    /// Ok also when the entry was replaced meanwhile, and the copy is dead.
    fn move_record(&self, hit: &Hit, (class, cool): (Class, u64)) -> Result<(), Busy> {
        let record = &hit.record;
        if record.length > self.region.geometry.max_record {
            // Foreign bytes.
            return Err(Busy);
        }
        let space = self.reserve(class, record.length_field(&self.region), Purpose::Relocate)?;
        self.region.copy_within(record.at + 8, space.at + 8, record.length - 8);
        let moved = replace_any_heat(&self.region, hit.entry_at, hit.entry, |entry| {
            let freq = entry.freq().saturating_sub(cool);
            Entry::live(entry.kind(), entry.0, space.generation, space.at, freq)
        });
        if moved.is_some() {
            self.add_live(&space, record.length);
            self.take_live(hit.segment, hit.generation, record.length);
        }
        self.withdraw();
        Ok(())
    }

    /// A chunk lives as long as its head lists it. Moving it changes one word of the head, under the bucket's lock.
    fn walk_chunk(&self, chunk: &Record, plan: Plan, class: Class) -> Result<(), Blocked> {
        let hash = chunk.hash(&self.region);
        if !self.may_be_listed(chunk, hash) {
            let pending = plan.keep != Keep::Nothing && self.is_pending(Some(chunk.version(&self.region)));
            return if pending { Err(Blocked::Held) } else { Ok(()) };
        }
        let held = self.lock_briefly(hash).map_err(|_| Blocked::Held)?;
        let mut result = Ok(());
        if let Some((head, place_at)) = self.head_of(chunk, hash) {
            match destination(plan.keep, class, head.entry.freq()) {
                Some((target, _)) if self.move_chunk(chunk, place_at, target).is_ok() => {}
                Some(_) if self.should_wait(plan) => result = Err(Blocked::NoRoom),
                _ => self.evict(&head, class),
            }
        }
        self.unlock(held);
        result
    }
}

/// How far a segment was gone through before it was put back, in steps of sixteen bytes, and whether all is kept of it.
#[derive(Clone, Copy)]
struct Progress(u32);

impl Progress {
    fn new(offset: u32, keep: Keep) -> Progress {
        Progress(offset | (keep == Keep::All) as u32)
    }

    fn offset(self) -> u32 {
        self.0 & !(GRAIN - 1)
    }

    /// The plan that the segment was begun with, unless there is no time for it any more.
    fn plan(self, pressure: Pressure) -> Plan {
        match pressure {
            Pressure::Patient | Pressure::Firm if self.0 & 1 == 1 => Plan { keep: Keep::All, pressure },
            _ => Plan::by_age(pressure),
        }
    }
}

impl Plan {
    /// For a segment whose turn it is.
    fn by_age(pressure: Pressure) -> Plan {
        Plan { keep: if pressure == Pressure::Relentless { Keep::Nothing } else { Keep::Hot }, pressure }
    }
}

/// Where a live record goes and by how much it cools, `None` when it is evicted.
fn destination(keep: Keep, class: Class, freq: u64) -> Option<(Class, u64)> {
    match (keep, class) {
        (Keep::Nothing, _) => None,
        (Keep::All, class) => Some((class, 0)),
        (Keep::Hot, Class::Small) if freq >= PROMOTE => Some((Class::Main, freq)),
        (Keep::Hot, Class::Main) if freq >= 1 => Some((Class::Main, 1)),
        (Keep::Hot, _) => None,
    }
}
