//! Models of claims, locks, waits and bells. The plans are those of `models.rs`: a participant sleeps or dies before each of its
//! accesses, and one or two others run meanwhile. All keys and locks share one set of three claims.
//!
//! After each plan is checked:
//!
//! - A claim or a lock has one holder at a time, unless it was overtaken or stolen.
//! - The value that is there at the end was not loaded under a claim that a change, a `clear` or an invalidation of its tag came
//!   after. A store that was refused was refused for a reason.
//! - Whoever waits, and whose last look has not seen the value that is there, is rung; and somebody has its seat on the list of bells.
//!   Whoever waits for a claim is rung when the claim is free. When a lock is free, somebody in its queue is rung.
//! - A holder that listens is rung by a theft.
//! - Nothing is left of the dead: a new participant waits for nobody, and gets every claim of the set.

use std::cell::RefCell;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use cache_machine_core::{
    Busy, Claim, Claimed, Expect, FRESH, MODEL_SIZE, PENDING, Refused, Released, STEAL, Stands, WAIT, faults,
};
use shuttle::Runner;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};

use crate::harness::*;
use crate::history::NO_END;
use crate::play::{Here, any, config, dies, sleeps};
use crate::stage::*;

/// The key that is loaded, the name of the lock, and a key in the other bucket.
const KEY: &[u8] = b"k";
const LOCK: &[u8] = b"l";

/// A claim or a lock that a participant got.
#[derive(Clone, Debug)]
struct Holding {
    who: usize,
    name: &'static [u8],
    token: u64,
    /// When its owner began to make it.
    begun: u64,
    /// When the claim was made for certain, and when its owner began to give it up.
    from: u64,
    until: u64,
    /// When its owner had given it up.
    over: u64,
}

/// What an operation does that comes between the beginning of a load and its store.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    /// Overtakes the claim, and leaves another value, or none.
    Replaces,
    /// Leaves no value.
    Invalidates,
    /// Leaves no value. A claim from before it can be taken over.
    Clears,
    /// Overtakes the claim.
    TakesOver,
}

#[derive(Clone, Debug)]
struct Change {
    who: Option<usize>,
    name: &'static [u8],
    start: u64,
    /// `NO_END` when it did nothing for certain.
    end: u64,
    kind: Kind,
}

#[derive(Default)]
struct Diary {
    holdings: Vec<Holding>,
    changes: Vec<Change>,
    rung: HashSet<u32>,
    /// Seats that wait for `KEY`, and the value that they have seen last.
    looks: Vec<(u32, Option<Vec<u8>>)>,
    /// Seats that wait for the claim with a token.
    joined: Vec<(u32, u64)>,
    /// Seats that are in the queue for the lock at the end.
    queued: Vec<u32>,
    /// Seats that hold the lock at the end, the lock, and if they listen, whether it stood when they last looked.
    guards: Vec<(u32, Claim, Option<Stands>)>,
    /// Stores that were refused: the token, and when.
    refused: Vec<(u64, u64)>,
}

std::thread_local! {
    static DIARY: RefCell<Diary> = RefCell::default();
}

fn diary<R>(write: impl FnOnce(&mut Diary) -> R) -> R {
    DIARY.with_borrow_mut(write)
}

fn tick() -> u64 {
    stage().tick()
}

#[derive(Clone, Copy)]
struct Act {
    name: &'static str,
    act: fn(&mut Cache, usize),
}

/// Notes an operation that overtakes or invalidates, also if the participant dies in it. `done` says whether it did.
fn change<R>(name: &'static [u8], kind: Kind, act: impl FnOnce() -> R, done: impl FnOnce(&R) -> bool) -> R {
    let start = tick();
    let at = diary(|diary| {
        diary.changes.push(Change { who: stage().current.get(), name, start, end: NO_END, kind });
        diary.changes.len() - 1
    });
    let result = act();
    if done(&result) {
        let end = tick();
        diary(|diary| diary.changes[at].end = end);
    }
    result
}

fn changes<R>(act: impl FnOnce() -> Result<R, Refused>) {
    let _ = change(KEY, Kind::Replaces, act, Result::is_ok);
}

fn is_made(claimed: &Result<Claimed, Busy>) -> bool {
    matches!(claimed, Ok(Claimed::Claimed(_)))
}

fn hold(who: usize, name: &'static [u8], token: u64, begun: u64) {
    let from = tick();
    diary(|diary| diary.holdings.push(Holding { who, name, token, begun, from, until: NO_END, over: NO_END }));
}

/// The claim is another participant's, and this one waits for it. It looks again, because the claim may be over by now.
fn join(cache: &Cache, claim: &Claim) {
    if cache.me.stands(claim.number, claim.token) != Stands::Gone {
        diary(|diary| diary.joined.push((cache.me.seat, claim.token)));
    }
}

/// Gives a claim up. `done` says whether it is over afterwards.
fn give_up<R>(token: u64, act: impl FnOnce() -> R, done: impl FnOnce(&R) -> bool) -> R {
    let mark = |over: bool| {
        let now = tick();
        diary(|diary| {
            let holding = diary.holdings.iter_mut().find(|holding| holding.token == token).unwrap();
            *(if over { &mut holding.over } else { &mut holding.until }) = now;
        });
    };
    mark(false);
    let result = act();
    if done(&result) {
        mark(true);
    }
    result
}

fn release(cache: &Cache, claim: &Claim) {
    give_up(claim.token, || assert!(cache.me.release(claim.number, claim.token)), |()| true);
}

fn release_lock(cache: &Cache, lock: &Claim) {
    give_up(lock.token, || assert_ne!(cache.me.release_lock(lock.number, lock.token), Released::Gone), |()| true);
}

fn loaded(token: u64) -> Vec<u8> {
    (token << 8 | 0x4C).to_le_bytes().to_vec()
}

/// Claims the load of the key, and stores a value with the tag `t` if it gets the claim.
fn load(cache: &mut Cache, me: usize, flags: u32, now: f64) {
    let begun = tick();
    let claimed = match now {
        0.0 => cache.claim(KEY, flags, 100.0, now),
        _ => change(KEY, Kind::TakesOver, || cache.claim(KEY, flags, 100.0, now), is_made),
    };
    match claimed {
        Ok(Claimed::Claimed(claim)) => {
            hold(me, KEY, claim.token, begun);
            let with = With { tags: &["t"], expect: Expect::Claim(claim.number, claim.token), ..PLAIN };
            if let Err(refused) = give_up(claim.token, || cache.store(KEY, &loaded(claim.token), &with), Result::is_ok)
            {
                if refused != Refused::Busy {
                    assert!(matches!(refused, Refused::Overtaken | Refused::Invalidated), "{refused:?}");
                    let now = tick();
                    diary(|diary| diary.refused.push((claim.token, now)));
                }
                release(cache, &claim);
            }
        }
        Ok(Claimed::Taken(claim)) if flags & WAIT != 0 => join(cache, &claim),
        _ => {}
    }
}

fn lock(cache: &mut Cache, me: usize, flags: u32) {
    let begun = tick();
    let claimed = match flags & STEAL {
        0 => cache.claim_lock(LOCK, flags),
        _ => change(LOCK, Kind::TakesOver, || cache.claim_lock(LOCK, flags), is_made),
    };
    match claimed {
        Ok(Claimed::Claimed(claim)) => {
            hold(me, LOCK, claim.token, begun);
            release_lock(cache, &claim);
        }
        Ok(Claimed::Taken(claim)) => join(cache, &claim),
        Ok(_) | Err(Busy) => {}
    }
}

const LOAD: Act = Act { name: "load", act: |cache, me| load(cache, me, FRESH | WAIT, 0.0) };
const LOAD_ABSENT: Act = Act { name: "load absent", act: |cache, me| load(cache, me, WAIT, 0.0) };
const TAKE_OVER: Act = Act { name: "take over", act: |cache, me| load(cache, me, FRESH, 100.0) };
const SET: Act = Act { name: "set", act: |cache, me| changes(|| cache.set(KEY, &[me as u8; 16])) };
const ADD: Act = Act {
    name: "add",
    act: |cache, me| changes(|| cache.store(KEY, &[me as u8; 16], &With { expect: Expect::Absent, ..PLAIN })),
};
const SET_LARGE: Act = Act { name: "set large", act: |cache, me| changes(|| cache.set(KEY, &[me as u8; 200])) };
const REMOVE: Act = Act { name: "remove", act: |cache, _| changes(|| cache.remove(KEY, Expect::Anything)) };
const INCREMENT: Act = Act {
    name: "increment twice",
    act: |cache, _| {
        for _ in 0..2 {
            changes(|| cache.increment(KEY, 1.0, 0.0, &PLAIN));
        }
    },
};
const CLEAR: Act = Act { name: "clear", act: |cache, _| change(KEY, Kind::Clears, || cache.me.clear(), |()| true) };
const INVALIDATE: Act =
    Act { name: "invalidate", act: |cache, _| change(KEY, Kind::Invalidates, || cache.invalidate(&["t"]), |()| true) };
const HOLD: Act = Act { name: "lock", act: |cache, me| lock(cache, me, WAIT) };
const ROB: Act = Act { name: "steal", act: |cache, me| lock(cache, me, STEAL) };
const REQUEST: Act = Act {
    name: "request",
    act: |cache, _| {
        if let Ok(Claimed::Claimed(claim)) = cache.claim_lock(LOCK, PENDING) {
            assert_eq!(cache.me.release_lock(claim.number, claim.token), Released::Free);
        }
        cache.locks();
    },
};
/// Waits for the lock as TypeScript does: makes a request, tries to get the lock, and tries again after a ring. Goes with its request,
/// or stays in the queue.
const QUEUE: Act = Act {
    name: "queue",
    act: |cache, me| {
        let Ok(Claimed::Claimed(request)) = cache.claim_lock(LOCK, PENDING) else { return };
        for _ in 0..3 {
            let begun = tick();
            match cache.claim_lock(LOCK, 0) {
                Ok(Claimed::Claimed(lock)) => {
                    hold(me, LOCK, lock.token, begun);
                    assert_eq!(cache.me.release_lock(request.number, request.token), Released::Free);
                    return release_lock(cache, &lock);
                }
                Ok(Claimed::Taken(_)) if !cache.is_rung() => return diary(|diary| diary.queued.push(cache.me.seat)),
                Ok(Claimed::Taken(_)) => cache.heard(),
                // Then TypeScript tries again later, without a ring.
                _ => break,
            }
        }
        assert_eq!(cache.me.release_lock(request.number, request.token), Released::Free);
    },
};
/// Leaves a free lock to the one who is next.
const PASS: Act = Act {
    name: "pass",
    act: |cache, _| {
        let _ = cache.me.pass_lock(&OwnedKey::of(LOCK).with(cache.me.seed));
    },
};
/// Holds the lock long enough to hear of a theft.
const GUARD: Act = Act {
    name: "guard",
    act: |cache, me| {
        let begun = tick();
        if let Ok(Claimed::Claimed(lock)) = cache.claim_lock(LOCK, 0) {
            hold(me, LOCK, lock.token, begun);
            let listens = matches!(cache.me.listen(lock.number, lock.token), Ok(Some(_)));
            let stands = listens.then(|| cache.me.stands(lock.number, lock.token));
            diary(|diary| diary.guards.push((cache.me.seat, lock, stands)));
        }
    },
};
/// Waits for the key as TypeScript does: registers, looks, and looks again after each ring.
const AWAIT: Act = Act {
    name: "wait",
    act: |cache, _| {
        let key = OwnedKey::of(KEY);
        if cache.me.wait(&key.with(cache.me.seed)).is_err() {
            return;
        }
        let mut seen = cache.peek(KEY).map(|got| got.value);
        for _ in 0..2 {
            if cache.is_rung() {
                cache.heard();
                seen = cache.peek(KEY).map(|got| got.value);
            }
        }
        diary(|diary| diary.looks.push((cache.me.seat, seen)));
    },
};
/// Loads of other keys, which use the same set and the other bucket.
const OTHERS: Act = Act {
    name: "others",
    act: |cache, _| {
        // The clear epoch: see `layout.rs`.
        let world = cache.world.clone();
        let epoch = || word(&world, 128);
        for key in [b"a", b"b", b"c", b"d"] {
            let before = epoch();
            if let Ok(Claimed::Claimed(claim)) = cache.claim(key, FRESH, 100.0, 0.0) {
                let expect = Expect::Claim(claim.number, claim.token);
                let stored = cache.store(key, b"other", &With { expect, ..PLAIN });
                // Nobody changes these keys. Only who claims one after a `clear` overtakes a load from before.
                assert!(stored != Err(Refused::Overtaken) || epoch() != before);
                if stored.is_err() {
                    assert!(cache.me.release(claim.number, claim.token));
                }
            }
        }
    },
};
const REAP: Act = Act { name: "reap", act: |cache, _| assert!(cache.me.participants() <= 6) };

const ACTS: &[Act] = &[
    LOAD,
    LOAD_ABSENT,
    TAKE_OVER,
    SET,
    ADD,
    SET_LARGE,
    REMOVE,
    INCREMENT,
    CLEAR,
    INVALIDATE,
    HOLD,
    ROB,
    REQUEST,
    QUEUE,
    PASS,
    GUARD,
    AWAIT,
    OTHERS,
    REAP,
];

/// A region with or without the key.
fn scene(present: bool) -> Vec<u8> {
    let world = World::new(MODEL_SIZE);
    let mut cache = Cache::join(&world);
    let buckets: HashSet<u32> = [b"a", b"b", b"c", b"d"].map(|key| cache.bucket(key)).into();
    assert_eq!(buckets.len(), 2, "the other keys are in both buckets");
    if present {
        cache.increment(KEY, 1.0, 0.0, &PLAIN).unwrap();
    }
    cache.leave();
    world.bytes().to_vec()
}

fn word(world: &World, at: u32) -> u64 {
    u64::from_le_bytes(world.bytes()[at as usize..at as usize + 8].try_into().unwrap())
}

/// Plays the plan that the stage holds, and checks the result.
fn execute(scene: &[u8], acts: &[Act]) {
    let stage = stage();
    let plan = stage.plan.borrow().clone();
    let world = World::holding(scene);
    world.patience.store(2, SeqCst);
    stage.set(plan.clone(), acts.len(), &world);
    DIARY.take();
    let told = format!("{} under {plan:?}", acts.iter().map(|act| act.name).collect::<Vec<_>>().join(" | "));

    let caches: Vec<Cache> = acts.iter().map(|_| Cache::join(&world)).collect();
    let seats: Vec<u32> = caches.iter().map(|cache| cache.me.seat).collect();
    *stage.seats.borrow_mut() = seats.iter().map(|seat| vec![*seat]).collect();
    let bell = stage.clone();
    faults::before_access_shared(Some(Rc::new(move || bell.access())));
    let tasks: Vec<_> = caches
        .into_iter()
        .enumerate()
        .map(|(me, cache)| {
            let here = Here((cache, acts[me], told.clone()));
            shuttle::thread::spawn(move || {
                let (mut cache, act, told) = here.take();
                let stage = self::stage();
                stage.current.set(Some(me));
                let result = catch_unwind(AssertUnwindSafe(|| (act.act)(&mut cache, me)));
                stage.current.set(None);
                let Err(payload) = result else {
                    return diary(|diary| diary.rung.extend(cache.bells()));
                };
                if !payload.is::<Death>() {
                    eprintln!("{told}: {} failed", act.name);
                    faults::before_access_shared(None);
                    resume_unwind(payload);
                }
                let now = tick();
                // It died with its change made.
                let done = act.name == SET.name && cache.peek(KEY).is_some_and(|got| got.value == [me as u8; 16]);
                diary(|diary| {
                    if let Some(change) = diary.changes.iter_mut().rfind(|change| done && change.who == Some(me)) {
                        change.end = now;
                    }
                    let own = diary.holdings.iter_mut().filter(|holding| holding.who == me);
                    own.for_each(|holding| holding.until = holding.until.min(now));
                });
            })
        })
        .collect();
    for task in tasks {
        task.join().unwrap();
    }
    faults::before_access_shared(None);
    check(&world, &stage, &seats, &told);
}

fn check(world: &Arc<World>, stage: &Stage, seats: &[u32], told: &str) {
    let diary = DIARY.take();
    let died = stage.dead.borrow().contains(&true);
    let geometry = world.region().geometry;
    let is_rung = |seat: u32| word(world, geometry.seat(seat) + 40) == 1;
    let lives = |seat: u32| !stage.dead.borrow()[seats.iter().position(|each| *each == seat).unwrap()];
    let mut after = Cache::join(world);
    assert_eq!(after.me.validate(), Ok(()), "{told}: the structure is broken");

    for (i, one) in diary.holdings.iter().enumerate() {
        for other in diary.holdings[i + 1..].iter().filter(|other| other.name == one.name) {
            assert_ne!(one.token, other.token, "{told}: a token was given twice");
            // Until something that overtakes has begun.
            let certain = |it: &Holding| {
                let overtaken =
                    diary.changes.iter().filter(|change| change.kind != Kind::Invalidates && change.name == it.name);
                // The clear epoch of a claim is read while it is made.
                let since = |change: &Change| if change.kind == Kind::Clears { it.begun } else { it.from };
                let overtaken = overtaken.filter(|change| change.end > since(change)).map(|change| change.start);
                it.until.min(overtaken.min().unwrap_or(NO_END))
            };
            let apart = certain(one) <= other.from || certain(other) <= one.from;
            assert!(apart, "{told}: held by two: {one:?} and {other:?}, {:?}", diary.changes);
        }
    }

    let value = after.peek(KEY).map(|got| got.value);
    let of_key = |change: &&Change| change.name == KEY;
    for holding in diary.holdings.iter().filter(|holding| holding.name == KEY) {
        if value.as_ref() == Some(&loaded(holding.token)) {
            let mut changes = diary.changes.iter().filter(of_key);
            let late = changes.find(|change| {
                // A value that was stored before somebody took the claim over may stay.
                let before = if change.kind == Kind::TakesOver { holding.until } else { NO_END };
                change.start > holding.from && change.end < before
            });
            assert!(late.is_none(), "{told}: {holding:?} was stored over {late:?}");
        }
    }
    for (token, when) in &diary.refused {
        let holding = diary.holdings.iter().find(|holding| holding.token == *token).unwrap();
        let reason = diary.changes.iter().any(|change| change.end > holding.begun && change.start < *when);
        assert!(reason, "{told}: {holding:?} was refused for nothing");
    }

    if !died {
        for (seat, seen) in &diary.looks {
            assert!(
                *seen == value || is_rung(*seat),
                "{told}: {seat} was not rung, and has seen {seen:?}, not {value:?}"
            );
        }
        for (i, seat) in seats.iter().enumerate() {
            assert!(!is_rung(*seat) || diary.rung.contains(seat), "{told}: nobody rings the bell of {i}");
        }
    }
    for (seat, token) in diary.joined.iter().filter(|(seat, _)| lives(*seat)) {
        let holding = diary.holdings.iter().find(|holding| holding.token == *token);
        let over = holding.is_some_and(|holding| holding.over != NO_END);
        assert!(!over || is_rung(*seat), "{told}: {seat} was not rung when {token} was over");
    }

    for (seat, lock, seen) in &diary.guards {
        let stands = after.me.stands(lock.number, lock.token);
        assert!(
            died || seen.is_none_or(|seen| seen == stands) || is_rung(*seat),
            "{told}: the holder {seat} has not heard of the theft"
        );
    }
    let is_held = diary.guards.iter().any(|(_, lock, _)| after.me.stands(lock.number, lock.token) == Stands::Stands);
    if !died && !is_held && !diary.queued.is_empty() {
        assert!(
            diary.queued.iter().any(|seat| is_rung(*seat)),
            "{told}: the lock is free, and nobody in the queue is rung"
        );
    }

    // Nothing is left of the dead, and the others have given everything up.
    for seat in diary.queued.iter().chain(diary.guards.iter().map(|(seat, ..)| seat)) {
        world.kill(*seat);
    }
    world.patience.store(0, SeqCst);
    let free = [after.claim(KEY, FRESH, 100.0, 0.0), after.claim_lock(LOCK, 0), after.claim(b"a", FRESH, 100.0, 0.0)];
    for claimed in free {
        match claimed {
            Ok(Claimed::Claimed(claim)) => assert!(after.me.release(claim.number, claim.token), "{told}"),
            other => panic!("{told}: something is left: {other:?}"),
        }
    }
    // The flag of the claims goes with the next change.
    after.set(KEY, b"after").unwrap();
    let control = word(world, geometry.bucket(after.bucket(KEY)) + 120);
    assert_eq!(control & 1 << 14, 0, "{told}: the flag stays");
}

#[derive(Clone)]
struct Play {
    scene: Arc<Vec<u8>>,
    acts: Vec<Act>,
}

fn play(scene: &Arc<Vec<u8>>, acts: &[Act]) -> Play {
    Play { scene: scene.clone(), acts: acts.to_vec() }
}

impl Play {
    fn run(&self, scheduler: impl Scheduler + 'static) {
        let here = Here(self.clone());
        Runner::new(scheduler, config()).run(move || {
            let Here(play) = &here;
            execute(&play.scene, &play.acts);
        });
    }

    fn plans(&self, mut next: impl FnMut(Option<&[bool]>) -> Option<Plan> + 'static) {
        let mut first = true;
        self.run(Planned {
            next: move || match std::mem::take(&mut first) {
                true => next(None),
                false => next(Some(&stage().reached.borrow())),
            },
        });
    }

    fn at_every(&self, start: u64, step: u64, plan: impl Fn(u64) -> Plan + 'static) {
        let mut at = start;
        self.plans(move |reached| {
            if reached.is_some_and(|reached| !reached[0]) {
                return None;
            }
            at += step;
            Some(plan(at - step))
        });
    }

    fn lengths(&self) -> Vec<u64> {
        let mut once = Some((0..self.acts.len()).map(|who| turn(who, TO_THE_END)).collect());
        self.plans(move |_| once.take());
        stage().steps.borrow().clone()
    }
}

/// One sleeps or dies before each of its accesses, and the other one runs meanwhile.
#[test]
fn every_pair_with_one_asleep_or_dead_at_every_access() {
    let _watchdog = Watchdog::new("claims: one asleep or dead", 300);
    for scene in [false, true].map(scene).map(Arc::new) {
        for first in ACTS {
            for second in ACTS {
                let play = play(&scene, &[*first, *second]);
                play.at_every(0, 1, sleeps);
                play.at_every(0, 1, dies);
            }
        }
    }
}

/// Both sleep, or one of them dies, at random accesses of both.
#[test]
fn every_pair_of_claims_with_both_on_the_way() {
    let _watchdog = Watchdog::new("claims: both on the way", 300);
    let mut random = Random::new(seed("every_pair_of_claims_with_both_on_the_way"));
    let scenes = [false, true].map(scene).map(Arc::new);
    for first in ACTS {
        for second in ACTS {
            let play = play(&any(&mut random, &scenes), &[*first, *second]);
            let lengths = play.lengths();
            let mut random = Random::new(random.next());
            let mut left = scaled(100);
            play.plans(move |_| {
                left = left.checked_sub(1)?;
                let [i, j] = [0, 1].map(|who| random.below(lengths[who].max(1)));
                Some(match left % 4 {
                    0 => vec![turn(0, i), turn(1, j), turn(0, TO_THE_END), turn(1, TO_THE_END)],
                    1 => vec![turn(0, i), death(1, j), turn(0, TO_THE_END)],
                    2 => vec![turn(0, i), turn(1, j), death(0, 1 + i), turn(1, TO_THE_END)],
                    _ => (0..8).flat_map(|_| [turn(0, 1 + random.below(20)), turn(1, 1 + random.below(20))]).collect(),
                })
            });
        }
    }
}

/// All claims of the set are void, because their owner has left. Two that meet them are on the way at the same time.
#[test]
fn what_is_left_of_the_dead_is_taken_by_one() {
    let _watchdog = Watchdog::new("claims: what is left of the dead", 300);
    let mut random = Random::new(seed("what_is_left_of_the_dead_is_taken_by_one"));
    let world = World::holding(&scene(false));
    let cache = Cache::join(&world);
    for claimed in [cache.claim(KEY, 0, 100.0, 0.0), cache.claim(b"a", 0, 100.0, 0.0), cache.claim_lock(LOCK, 0)] {
        assert!(is_made(&claimed));
    }
    cache.leave();
    let scene = Arc::new(world.bytes().to_vec());
    for acts in [[LOAD, OTHERS], [OTHERS, LOAD], [OTHERS, OTHERS], [HOLD, OTHERS], [OTHERS, HOLD]] {
        let play = play(&scene, &acts);
        let lengths = play.lengths();
        let mut random = Random::new(random.next());
        let mut left = scaled(20) * lengths[0];
        play.plans(move |_| {
            left = left.checked_sub(1)?;
            let (i, j) = (left % lengths[0], random.below(lengths[1]));
            Some(vec![turn(0, i), turn(1, j), turn(0, TO_THE_END), turn(1, TO_THE_END)])
        });
    }
}

#[test]
fn three_with_claims_at_once() {
    let _watchdog = Watchdog::new("claims: three", 300);
    let mut random = Random::new(seed("three_with_claims_at_once"));
    let scenes = [false, true].map(scene).map(Arc::new);
    for _ in 0..scaled(600) {
        let acts = [any(&mut random, ACTS), any(&mut random, ACTS), any(&mut random, ACTS)];
        let play = play(&any(&mut random, &scenes), &acts);
        let lengths = play.lengths();
        let mut random = Random::new(random.next());
        let mut left = 40;
        play.plans(move |_| {
            left -= 1;
            let [i, j] = [0, 1].map(|who| random.below(lengths[who].max(1)));
            let end = |who| turn(who, TO_THE_END);
            Some(match left {
                0 => return None,
                left => match left % 5 {
                    0 => vec![turn(0, i), turn(1, j), end(2), end(0), end(1)],
                    1 => vec![turn(0, i), turn(1, j), end(2), end(1), end(0)],
                    2 => vec![death(0, i), death(1, j), end(2)],
                    3 => vec![turn(0, i), death(1, j), end(2), end(0)],
                    _ => vec![death(0, i), turn(1, j), end(2), end(1)],
                },
            })
        });
    }
}

/// Schedules that shuttle chooses, which can switch at every access.
#[test]
fn claims_under_random_and_probabilistic_schedules() {
    let _watchdog = Watchdog::new("claims: shuttle", 300);
    let mut random = Random::new(seed("claims_under_random_and_probabilistic_schedules"));
    let scenes = [false, true].map(scene).map(Arc::new);
    for round in 0..scaled(300) {
        let acts: Vec<Act> = (0..2 + round % 2).map(|_| any(&mut random, ACTS)).collect();
        let play = play(&any(&mut random, &scenes), &acts);
        let seed = random.next();
        stage().probing.set(true);
        if round % 3 == 0 {
            play.run(RandomScheduler::new_from_seed(seed, 20));
        } else {
            play.run(PctScheduler::new_from_seed(seed, 2 + round as usize % 3, 20));
        }
        stage().probing.set(false);
    }
}
