//! Rate limits: how many requests one key has had lately, and whether one more may go through. A limit is an entry with a
//! mutable record. Its state changes in place under the lock of its bucket, as a counted number does.
//!
//! ```text
//! value   0 head     bits 0–7 algorithm │ bit 8 which state counts
//!         8 state 0  start │ count │ previous, three f64
//!        32 state 1  the same
//! ```
//!
//! A change writes the state that does not count, and then the head. So a participant that dies in between has changed
//! nothing, and no reader takes words of two states together.
//!
//! | algorithm | start | count | previous |
//! |---|---|---|---|
//! | GCRA | a time | requests whose regular times follow `start` | – |
//! | fixed window | of the window | requests in the window | – |
//! | sliding window | of the window | requests in the window | requests in the window before |
//!
//! GCRA is the generic cell rate algorithm (ATM Forum, Traffic Management Specification 4.0, 1996) in the form of throttled
//! (Brandur Leach). Its one variable, the theoretical arrival time, is `start + count × window / limit`. As two numbers it is
//! exact for whole milliseconds: nothing is divided before the comparison. The sliding window is the counter that Cloudflare
//! describes: requests of the window before count by the part of that window that the sliding one still covers.
//!
//! The time is asked for under the lock, so a limit sees times in the order of its requests. When the clock was set back
//! nevertheless, a state that lies ahead of the clock counts as one that begins now: nothing is forgotten, and nobody waits
//! longer than after a request of this moment.

use crate::entries::change::Unfit;
use crate::entries::draft::Draft;
use crate::entries::locked::ATTEMPTS;
use crate::entries::store::Refused;
use crate::entries::tags::Block;
use crate::format::header::{CHUNKED, EXPIRES};
use crate::format::layout::{Counter, WORD};
use crate::format::record::{Record, Space};
use crate::index::entry::EntryState;
use crate::index::key::Key;
use crate::index::probe::Hit;
use crate::participant::lock::{Busy, Held};
use crate::participant::participant::{Host, Participant};
use crate::sync::{Acquire, Relaxed, SeqCst};

/// The value type of a rate limit.
pub const LIMIT: u8 = 9;
/// The generic cell rate algorithm.
pub const GCRA: u32 = 1;
/// Windows that begin with their first request.
pub const FIXED: u32 = 2;
/// Two windows, the former weighted.
pub const SLIDING: u32 = 3;

/// Bit of the head: the second state counts.
pub const SECOND_STATE: u64 = 1 << 8;
const ALGORITHM_MASK: u64 = 0xFF;
/// Words of a state.
const STATE_WORDS: usize = 3;
/// Words of the value: the head and two states.
const WORDS: usize = 1 + 2 * STATE_WORDS;
/// Bytes of the value of a limit.
pub const LIMIT_BYTES: u32 = WORDS as u32 * WORD;

/// What a request asks for. All numbers but `window` are whole and at least 1.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub algorithm: u32,
    /// Requests in a window.
    pub limit: f64,
    /// Milliseconds.
    pub window: f64,
    /// Requests that may come at once; `limit` except with GCRA.
    pub burst: f64,
    /// As how many requests this one counts; at most `burst`.
    pub cost: f64,
    /// Only look: the request is not counted.
    pub peek: bool,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    pub allowed: bool,
    /// Requests that may follow at once; a whole number.
    pub remaining: f64,
    /// When the limit says nothing any more, if no request follows; in milliseconds of the clock.
    pub reset_at: f64,
    /// Milliseconds until then.
    pub reset_after: f64,
    /// Milliseconds until the same request would be allowed; 0 when it is allowed.
    pub retry_after: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    start: f64,
    count: f64,
    previous: f64,
}

impl State {
    /// A state that says nothing.
    fn fresh(now: f64) -> State {
        State { start: now, count: 0.0, previous: 0.0 }
    }

    fn words(self) -> [u64; STATE_WORDS] {
        [self.start, self.count, self.previous].map(f64::to_bits)
    }
}

/// The largest whole number that is not above `x`, which is not negative.
fn floor(x: f64) -> f64 {
    x as i64 as f64
}

/// The smallest whole number that is not below `x`; 0 for a negative one and for NaN.
fn ceil(x: f64) -> f64 {
    let below = floor(x.max(0.0));
    if below < x { below + 1.0 } else { below }
}

impl Rule {
    /// Judges a request at `now`. The state to store, if it differs.
    fn judge(&self, state: State, now: f64) -> (Verdict, Option<State>) {
        let (mut state, repaired) = match self.algorithm {
            FIXED => self.roll(state, now, 1.0),
            SLIDING => self.slide(state, now),
            _ => self.drain(state, now),
        };
        let mut free = self.free(&state, now);
        // Foreign bytes may make `free` anything but more than `burst`.
        let allowed = self.cost <= free;
        let retry_after = if allowed { 0.0 } else { ceil(self.retry(&state, now)) };
        let counts = allowed && !self.peek;
        if counts {
            self.count(&mut state);
            free = self.free(&state, now);
        }
        let reset_after = ceil(self.reset(&state, now));
        let verdict =
            Verdict { allowed, remaining: floor(free.max(0.0)), reset_at: now + reset_after, reset_after, retry_after };
        (verdict, (counts || repaired && !self.peek).then_some(state))
    }

    /// The state of GCRA at `now`, and whether it was ahead of the clock.
    fn drain(&self, state: State, now: f64) -> (State, bool) {
        let ahead = self.ahead(&state, now);
        let repaired = ahead > self.burst * self.window;
        match repaired {
            true => (State { count: self.burst, ..State::fresh(now) }, true),
            false if ahead > 0.0 => (state, false),
            // NaN is fresh too.
            false => (State::fresh(now), false),
        }
    }

    /// How far the theoretical arrival time lies ahead, times `limit`. A request moves it by `window`.
    fn ahead(&self, state: &State, now: f64) -> f64 {
        (state.start - now) * self.limit + state.count * self.window
    }

    /// The state of a window at `now`: a fresh one after `windows` of them, and one that begins now if it was ahead of the clock.
    fn roll(&self, state: State, now: f64, windows: f64) -> (State, bool) {
        // Written so that NaN is fresh too. Foreign bytes may be negative.
        let is_over = !(now - state.start < windows * self.window && state.count >= 0.0 && state.previous >= 0.0);
        if is_over {
            return (State::fresh(now), false);
        }
        (State { start: state.start.min(now), ..state }, state.start > now)
    }

    /// The state of a sliding window at `now`, and whether it was ahead of the clock.
    fn slide(&self, state: State, now: f64) -> (State, bool) {
        let (state, repaired) = self.roll(state, now, 2.0);
        if now - state.start >= self.window {
            let next = State { start: state.start + self.window, count: 0.0, previous: state.count };
            return (next, repaired);
        }
        (state, repaired)
    }

    /// Counts this request.
    fn count(&self, state: &mut State) {
        state.count += self.cost;
        if self.algorithm == GCRA && state.count >= self.limit {
            // So many requests take a whole number of windows, so the state stays exact and its numbers stay small.
            let windows = floor(state.count / self.limit);
            state.start += windows * self.window;
            state.count -= windows * self.limit;
        }
    }

    /// Milliseconds that are left of the window.
    fn left(&self, state: &State, now: f64) -> f64 {
        state.start + self.window - now
    }

    /// Requests that may go through now.
    fn free(&self, state: &State, now: f64) -> f64 {
        let &Rule { limit, window, burst, .. } = self;
        match self.algorithm {
            FIXED => limit - state.count,
            SLIDING => ((limit - state.count) * window - state.previous * self.left(state, now)) / window,
            _ => (burst * window - self.ahead(state, now)) / window,
        }
    }

    /// Milliseconds until the state says nothing.
    fn reset(&self, state: &State, now: f64) -> f64 {
        match self.algorithm {
            GCRA => self.ahead(state, now) / self.limit,
            SLIDING if state.count > 0.0 => self.left(state, now) + self.window,
            _ if state.count > 0.0 || state.previous > 0.0 => self.left(state, now),
            _ => 0.0,
        }
    }

    /// Milliseconds until the request may go through, which may not now.
    fn retry(&self, state: &State, now: f64) -> f64 {
        let &Rule { limit, window, burst, cost, .. } = self;
        let &State { count, previous, .. } = state;
        let left = self.left(state, now);
        match self.algorithm {
            FIXED => left,
            // In this window: when the sliding one covers of the window before only as much as this window has room for.
            SLIDING if count + cost <= limit => left - window * (limit - count - cost) / previous,
            SLIDING => left + window - window * (limit - cost) / count,
            _ => (self.ahead(state, now) + (cost - burst) * window) / limit,
        }
    }

    /// When an entry may be forgotten that is stored now. It may be later than necessary, so that not every request has to
    /// move it.
    fn expiry(&self, verdict: &Verdict, now: f64) -> f64 {
        let longest = if self.algorithm == GCRA { self.burst * self.window / self.limit } else { 0.0 };
        verdict.reset_at.max(now + longest)
    }
}

impl<H: Host> Participant<H> {
    /// Judges a request, and counts it if it may go through. `Refused::NotALimit` when another kind of value stands there.
    pub fn limit(&self, key: &Key, rule: &Rule, tags: &Block) -> Result<Verdict, Refused> {
        let verdict = match self.limit_in_place(key, rule)? {
            Some(verdict) => verdict,
            None => {
                let fresh = self.fresh_limit(tags);
                self.rewrite(key, fresh.bytes(key), |held, space| self.limit_locked(held, key, rule, &fresh, space))?
            }
        };
        if verdict.allowed && !rule.peek {
            self.count(Counter::Sets, 1);
        }
        Ok(verdict)
    }

    fn fresh_limit<'a>(&self, tags: &'a Block) -> Draft<'a> {
        const ZEROS: &[u8] = &[0; LIMIT_BYTES as usize];
        Draft { value_type: LIMIT, flags: 0, version: self.version(), expiry: 0.0, grace: 0.0, tags, value: ZEROS }
    }

    /// Judges a request at the limit that stands at `key`; `None` when a record has to be written first.
    fn limit_in_place(&self, key: &Key, rule: &Rule) -> Result<Option<Verdict>, Refused> {
        // Without a look before the lock: nearly every request finds its limit.
        let mut held = self.lock(key.hash)?;
        let result = self.find_locked(key).map_err(Refused::from).and_then(|found| {
            let now = self.time_of_limits()?;
            match self.standing_limit(found.as_ref(), now)? {
                Some(hit) => Ok(Some(self.judge_in_place(&mut held, key, hit, rule, now))),
                None if rule.peek => Ok(Some(rule.judge(State::fresh(now), now).0)),
                None => Ok(None),
            }
        });
        self.unlock(held);
        result
    }

    /// The time. An error of the host's clock is NaN, and then nothing may be changed.
    fn time_of_limits(&self) -> Result<f64, Refused> {
        let now = self.host.now();
        if now.is_nan() { Err(Refused::Busy) } else { Ok(now) }
    }

    /// The limit among what was found under the lock. One that has expired says nothing, but its record serves again.
    fn standing_limit<'a>(&self, found: Option<&'a Hit>, now: f64) -> Result<Option<&'a Hit>, Refused> {
        let Some(hit) = found.filter(|hit| self.is_current(&hit.record)) else {
            return Ok(None);
        };
        match is_limit(hit) {
            true => Ok(Some(hit)),
            false if has_expired(self.expiry_of(hit), now) => Ok(None),
            false => Err(Refused::NotALimit),
        }
    }

    fn expiry_of(&self, hit: &Hit) -> f64 {
        hit.record.expiry(&self.region)
    }

    fn judge_in_place(&self, held: &mut Held, key: &Key, hit: &Hit, rule: &Rule, now: f64) -> Verdict {
        let expiry = self.expiry_of(hit);
        let head = self.region.word(hit.record.value_at).load(Acquire);
        let counts = !has_expired(expiry, now) && head & ALGORITHM_MASK == rule.algorithm as u64;
        let state = if counts { self.state_of(&hit.record, head) } else { State::fresh(now) };
        let (verdict, next) = rule.judge(state, now);
        if let Some(next) = next {
            self.in_new_version(held, key, hit, || {
                self.store_limit(&hit.record, rule, head, next, &verdict, now, expiry)
            });
        }
        verdict
    }

    /// Where the words of the state lie that counts by this head.
    fn state_at(&self, record: &Record, head: u64) -> u32 {
        let second = if head & SECOND_STATE != 0 { STATE_WORDS as u32 * WORD } else { 0 };
        record.value_at + WORD + second
    }

    fn state_of(&self, record: &Record, head: u64) -> State {
        let at = self.state_at(record, head);
        let [start, count, previous] = [0, 1, 2].map(|i| f64::from_bits(self.region.word(at + i * WORD).load(Acquire)));
        State { start, count, previous }
    }

    /// Writes the next state beside the one that counts, and lets it count. The expiry comes first: a participant that dies
    /// here leaves a limit that lasts too long, and none that is forgotten too early. Readers take all of it together, by the
    /// version (`add`).
    #[allow(clippy::too_many_arguments)]
    fn store_limit(
        &self,
        record: &Record,
        rule: &Rule,
        head: u64,
        next: State,
        verdict: &Verdict,
        now: f64,
        expiry: f64,
    ) {
        if verdict.reset_at > expiry && record.has(EXPIRES) {
            self.region.word(record.expiry_at()).store(rule.expiry(verdict, now).to_bits(), SeqCst);
        }
        let head = (head ^ SECOND_STATE) & SECOND_STATE | rule.algorithm as u64;
        let at = self.state_at(record, head);
        for (i, bits) in (0..).zip(next.words()) {
            let word = self.region.word(at + i * WORD);
            // Most words of the state before the last one are the same.
            if word.load(Relaxed) != bits {
                word.store(bits, SeqCst);
            }
        }
        self.region.word(record.value_at).store(head, SeqCst);
    }

    fn limit_locked(
        &self,
        held: &mut Held,
        key: &Key,
        rule: &Rule,
        fresh: &Draft,
        space: &Space,
    ) -> Result<Verdict, Unfit> {
        for _ in 0..ATTEMPTS {
            let existing = self.find_locked(key)?;
            let now = self.time_of_limits()?;
            // Another participant has stored the limit meanwhile. The reserved space stays dead.
            if let Some(hit) = self.standing_limit(existing.as_ref(), now)? {
                return Ok(self.judge_in_place(held, key, hit, rule, now));
            }
            let (verdict, next) = rule.judge(State::fresh(now), now);
            let mut value = [0; LIMIT_BYTES as usize];
            let words = [rule.algorithm as u64].into_iter().chain(next.unwrap_or(State::fresh(now)).words());
            for (bytes, word) in value.chunks_exact_mut(8).zip(words) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            let draft = Draft { value: &value, expiry: rule.expiry(&verdict, now), ..*fresh };
            self.write(space, key, &draft);
            space.shrink(&self.region, draft.bytes(key) as u32);
            self.renew(space);
            self.overtake(held, key.hash);
            if self.put(key, space, EntryState::Mutable, existing.as_ref()) {
                self.ring(held);
                return Ok(verdict);
            }
        }
        Err(Busy.into())
    }
}

fn has_expired(expiry: f64, now: f64) -> bool {
    expiry <= now
}

fn is_limit(hit: &Hit) -> bool {
    let record = &hit.record;
    hit.entry.is_mutable() && record.value_type == LIMIT && record.value_length == LIMIT_BYTES && !record.has(CHUNKED)
}
