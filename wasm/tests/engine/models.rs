//! Models: the real engine on a region so small that everything in it happens within a few hundred accesses, and the places
//! where a participant can stop are gone through one by one. Each participant is a task of shuttle's (AWS Labs), which also
//! brings the random and the probabilistic schedules (PCT: Burckhardt et al., ASPLOS 2010).
//!
//! A *plan* says who runs, for how many accesses to shared memory, and whether it dies then:
//!
//! ```text
//! A i │ B to its end │ A to its end        A sleeps before its i-th access, for as long as B likes: the zombie
//! A i † │ B to its end                     A dies there
//! A i │ B j │ A to its end │ B …           both are in the middle; B may die there, too
//! A i │ B j │ C … │ A … │ B …              and a third one comes by
//! ```
//!
//! After each plan: what was answered is linearizable for each key, forgetting only if something was evicted; the structure is
//! valid and, unless somebody died, the books are right to the byte; nobody living was reaped; a newcomer can change
//! every key without waiting, and gets every segment back. In tests the generation in an index word has two bits, so
//! that it is the same again after four lives of a segment (M2).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use cache_machine_core::{Counter, Expect, MODEL_SIZE, Mismatch, NUMBER, Phase, Refused, faults, format, inspect};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Schedule, Scheduler, Task, TaskId};
use shuttle::sync::atomic::AtomicBool;
use shuttle::{Config, FailurePersistence, Runner};

use crate::harness::*;
use crate::history::{Change, Did, Event, NO_END, linearizable};

// ---- who runs --------------------------------------------------------------------------------------------------------

/// Runs a participant for some accesses; `dies` at the end of them.
#[derive(Clone, Copy, Debug)]
struct Turn {
    who: usize,
    steps: u64,
    dies: bool,
}

const TO_THE_END: u64 = u64::MAX;

fn turn(who: usize, steps: u64) -> Turn {
    Turn { who, steps, dies: false }
}

fn death(who: usize, steps: u64) -> Turn {
    Turn { who, steps, dies: true }
}

type Plan = Vec<Turn>;

/// What the tasks of one execution, which share a thread, know of it.
#[derive(Default)]
struct Stage {
    /// Whose code is running; `None` for what is not part of the play.
    current: Cell<Option<usize>>,
    plan: RefCell<Plan>,
    turn: Cell<usize>,
    /// Accesses left in this turn.
    left: Cell<u64>,
    /// Turns that lasted as long as they were meant to.
    reached: RefCell<Vec<bool>>,
    steps: RefCell<Vec<u64>>,
    dead: RefCell<Vec<bool>>,
    clock: Cell<u64>,
    log: RefCell<Vec<(&'static str, Event)>>,
    /// The slots of each participant, and the world in which its death can be proved.
    slots: RefCell<Vec<Vec<u32>>>,
    world: RefCell<Option<Arc<World>>>,
    /// What shuttle's own schedulers see of the accesses, when they choose instead of a plan.
    chosen: RefCell<Option<Arc<AtomicBool>>>,
    probing: Cell<bool>,
    /// Changes that were refused as `Busy` in the last execution.
    refused: Cell<u64>,
}

std::thread_local! {
    static STAGE: Rc<Stage> = Rc::default();
}

fn stage() -> Rc<Stage> {
    STAGE.with(Rc::clone)
}

/// The payload of a death.
struct Death;

impl Stage {
    fn set(&self, plan: Plan, participants: usize, world: &Arc<World>) {
        self.current.set(None);
        self.turn.set(0);
        self.left.set(plan.first().map_or(0, |turn| turn.steps));
        *self.reached.borrow_mut() = vec![false; plan.len()];
        *self.plan.borrow_mut() = plan;
        *self.steps.borrow_mut() = vec![0; participants];
        *self.dead.borrow_mut() = vec![false; participants];
        self.clock.set(0);
        self.refused.set(0);
        *self.chosen.borrow_mut() = self.probing.get().then(|| Arc::new(AtomicBool::new(false)));
        self.log.borrow_mut().clear();
        self.slots.borrow_mut().clear();
        *self.world.borrow_mut() = Some(world.clone());
    }

    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    fn next_turn(&self) {
        self.turn.set(self.turn.get() + 1);
        self.left.set(self.plan.borrow().get(self.turn.get()).map_or(TO_THE_END, |turn| turn.steps));
    }

    /// Called before every access to shared memory.
    fn access(&self) {
        let Some(me) = self.current.get() else { return };
        self.steps.borrow_mut()[me] += 1;
        let chosen = self.chosen.borrow().clone();
        if let Some(point) = chosen {
            point.load(SeqCst);
            self.current.set(Some(me));
            return;
        }
        let now = self.plan.borrow().get(self.turn.get()).copied();
        let Some(now) = now.filter(|turn| turn.who == me && turn.steps != TO_THE_END) else { return };
        if self.left.get() > 0 {
            self.left.set(self.left.get() - 1);
            return;
        }
        self.reached.borrow_mut()[self.turn.get()] = true;
        self.next_turn();
        if now.dies {
            self.dead.borrow_mut()[me] = true;
            let world = self.world.borrow().clone().unwrap();
            self.slots.borrow()[me].iter().for_each(|slot| world.kill(*slot));
            // Unwinding past the engine is what a kill is to it: it has no destructors.
            resume_unwind(Box::new(Death));
        }
        self.switch(me);
        // It may be the first of this participant's accesses in its next turn, too.
        let again = self.plan.borrow().get(self.turn.get()).copied();
        if again.is_some_and(|turn| turn.who == me && turn.steps != TO_THE_END) {
            self.left.set(self.left.get().saturating_sub(1));
        }
    }

    fn switch(&self, me: usize) {
        shuttle::thread::yield_now();
        self.current.set(Some(me));
    }
}

/// Lets the plan say who is next. Task 0 only starts the others and waits for them.
struct Planned<F> {
    next: F,
}

impl<F: FnMut() -> Option<Plan>> Scheduler for Planned<F> {
    fn new_execution(&mut self) -> Option<Schedule> {
        let plan = (self.next)()?;
        *stage().plan.borrow_mut() = plan;
        Some(Schedule::new(0))
    }

    fn next_task(&mut self, runnable: &[&Task], _: Option<TaskId>, _: bool) -> Option<TaskId> {
        let can = |id: TaskId| runnable.iter().any(|task| task.id() == id);
        if can(TaskId::from(0)) {
            return Some(TaskId::from(0));
        }
        let stage = stage();
        loop {
            let turn = stage.plan.borrow().get(stage.turn.get()).copied();
            match turn {
                Some(turn) if can(TaskId::from(turn.who + 1)) => return Some(TaskId::from(turn.who + 1)),
                // It is over already.
                Some(_) => stage.next_turn(),
                None => return runnable.first().map(|task| task.id()),
            }
        }
    }

    fn next_u64(&mut self) -> u64 {
        0
    }
}

// ---- what they do ----------------------------------------------------------------------------------------------------

#[derive(Clone, Copy)]
struct Act {
    name: &'static str,
    act: fn(&mut Cache, usize),
}

/// Logs an operation on a key: `died` is what it was about to do, should it die. `None` is `Busy`, which changes nothing.
fn log(key: &'static str, died: Change, act: impl FnOnce() -> Option<Did>) {
    let stage = stage();
    let start = stage.tick();
    let at = stage.log.borrow().len();
    stage.log.borrow_mut().push((key, Event { start, end: NO_END, did: Did::Died(died) }));
    let did = act();
    let end = stage.tick();
    let event = match did {
        Some(did) => Event { start, end, did },
        // Like a change that died before it did anything.
        None => {
            stage.refused.set(stage.refused.get() + 1);
            Event { start, end: NO_END, did: Did::Died(Change::Nothing) }
        }
    };
    stage.log.borrow_mut()[at].1 = event;
}

fn got(cache: &mut Cache, key: &'static str, get: fn(&mut Cache, &[u8]) -> Option<Got>) {
    log(key, Change::Nothing, || Some(Did::Got(get(cache, key.as_bytes()).map(|got| (got.value, got.version)))));
}

fn put(cache: &mut Cache, key: &'static str, value: Vec<u8>, kind: u8, expect: Expect) {
    log(key, Change::Put { expect, value: value.clone() }, || {
        match cache.store(key.as_bytes(), &value, &With { kind, expect, tags: tags_of(key), ..PLAIN }) {
            Ok(version) => Some(Did::Set { expect, value, version: Some(version) }),
            Err(Refused::Unexpected) => Some(Did::Set { expect, value, version: None }),
            Err(Refused::Busy) => None,
            Err(refused) => panic!("{refused:?}"),
        }
    });
}

fn tags_of(key: &str) -> &'static [&'static str] {
    if key == "a" { &["t"] } else { &[] }
}

fn removed(cache: &mut Cache, key: &'static str) {
    log(key, Change::Remove, || cache.remove(key.as_bytes(), Expect::Anything).ok().map(Did::Removed));
}

fn touched(cache: &mut Cache, key: &'static str) {
    log(key, Change::Nothing, || cache.touch(key.as_bytes(), 1e9).ok().map(Did::Touched));
}

fn dropped(keys: &[&'static str], act: impl FnOnce()) {
    let stage = stage();
    let start = stage.tick();
    let at = stage.log.borrow().len();
    for key in keys {
        stage.log.borrow_mut().push((key, Event { start, end: NO_END, did: Did::Died(Change::Remove) }));
    }
    act();
    let end = stage.tick();
    for (_, event) in &mut stage.log.borrow_mut()[at..at + keys.len()] {
        *event = Event { start, end, did: Did::Dropped };
    }
}

/// A value that says whose it is, and whose words all differ.
fn short(who: usize) -> Vec<u8> {
    (0..3u64).flat_map(|word| (who as u64 + 1 << 32 | word).to_le_bytes()).collect()
}

fn long(who: usize) -> Vec<u8> {
    (0..25u64).flat_map(|word| (who as u64 + 1 << 40 | word).to_le_bytes()).collect()
}

/// The keys that the acts are about.
const KEYS: [&str; 4] = ["a", "n", "large", "x"];

const GET: Act = Act { name: "get", act: |cache, _| got(cache, "a", Cache::get) };
const GET_NEAR: Act = Act {
    name: "get near",
    act: |cache, _| {
        got(cache, "a", Cache::get_near);
        got(cache, "a", Cache::get_near);
    },
};
const GET_LARGE: Act = Act { name: "get large", act: |cache, _| got(cache, "large", Cache::get) };
const GET_COUNTER: Act = Act { name: "get counter", act: |cache, _| got(cache, "n", Cache::get) };
const SET: Act = Act { name: "set", act: |cache, me| put(cache, "a", short(me), TEXT, Expect::Anything) };
const SET_LARGE: Act =
    Act { name: "set large", act: |cache, me| put(cache, "large", long(me), TEXT, Expect::Anything) };
const SHRINK: Act = Act { name: "shrink", act: |cache, me| put(cache, "large", short(me), TEXT, Expect::Anything) };
const SET_NUMBER: Act = Act {
    name: "set number",
    act: |cache, me| put(cache, "n", (me as f64 * 1000.0).to_le_bytes().to_vec(), NUMBER, Expect::Anything),
};
const ADD: Act = Act { name: "add", act: |cache, me| put(cache, "x", short(me), TEXT, Expect::Absent) };
const COMPARE_AND_SET: Act = Act {
    name: "compare and set",
    act: |cache, me| {
        let version = cache.peek(b"a").map_or(2, |got| got.version);
        put(cache, "a", short(me), TEXT, Expect::Version(version));
    },
};
const REMOVE: Act = Act { name: "remove", act: |cache, _| removed(cache, "a") };
const REMOVE_LARGE: Act = Act { name: "remove large", act: |cache, _| removed(cache, "large") };
const INCREMENT: Act = Act {
    name: "increment",
    act: |cache, _| {
        log("n", Change::Add(1.0), || {
            let sum = cache.increment(b"n", 1.0, 0.0, &PLAIN).ok()?;
            Some(Did::Incremented { by: 1.0, sum: Some(sum) })
        })
    },
};
const TOUCH: Act = Act { name: "touch", act: |cache, _| touched(cache, "a") };
const TOUCH_COUNTER: Act = Act { name: "touch counter", act: |cache, _| touched(cache, "n") };
const TOUCH_LARGE: Act = Act { name: "touch large", act: |cache, _| touched(cache, "large") };
const INVALIDATE: Act = Act { name: "invalidate", act: |cache, _| dropped(&["a"], || cache.invalidate(&["t"])) };
const CLEAR: Act = Act { name: "clear", act: |cache, _| dropped(&KEYS, || cache.me.clear()) };
/// A few new keys: in a full region they make room.
const RECLAIM: Act = Act {
    name: "reclaim",
    act: |cache, me| {
        for i in 0..6u8 {
            let _ = cache.set(&[b'r', me as u8, i], &[i; 24]);
        }
    },
};
/// One key again and again: what is dead makes room.
const COMPACT: Act = Act {
    name: "compact",
    act: |cache, me| {
        for i in 0..16u8 {
            let _ = cache.set(&[b'c', me as u8], &[i; 24]);
        }
    },
};
/// So much that every segment goes through more than four lives.
const WRAP: Act = Act {
    name: "wrap",
    act: |cache, me| {
        for i in 0..400u16 {
            let _ = cache.set(&[b'w', me as u8, i as u8, (i >> 8) as u8], &[i as u8; 24]);
        }
    },
};
const REAP: Act = Act { name: "reap", act: |cache, _| assert!(cache.me.participants() <= 6) };
const COME_AND_GO: Act = Act {
    name: "come and go",
    act: |cache, _| {
        cache.me.detach();
        cache.me.recover();
    },
};
/// Somebody else of the same thread comes, stores something, and leaves.
const ATTACH: Act = Act {
    name: "attach",
    act: |cache, me| {
        stage().slots.borrow_mut()[me].push(cache.world.next_slot());
        let mut other = Cache::join(&cache.world);
        put(&mut other, "x", short(me), TEXT, Expect::Anything);
        other.leave();
        stage().slots.borrow_mut()[me].pop();
    },
};
const WALK: Act = Act {
    name: "walk",
    act: |cache, _| {
        for key in cache.keys() {
            let known = KEYS.iter().any(|it| it.as_bytes() == key) || b"rcwfp".contains(&key[0]);
            assert!(known, "a key that nobody stored: {key:?}");
        }
        cache.me.census();
    },
};

const ACTS: &[Act] = &[
    GET,
    GET_NEAR,
    GET_LARGE,
    GET_COUNTER,
    SET,
    SET_LARGE,
    SHRINK,
    SET_NUMBER,
    ADD,
    COMPARE_AND_SET,
    REMOVE,
    REMOVE_LARGE,
    INCREMENT,
    TOUCH,
    TOUCH_COUNTER,
    TOUCH_LARGE,
    INVALIDATE,
    CLEAR,
    RECLAIM,
    COMPACT,
    REAP,
    COME_AND_GO,
    ATTACH,
    WALK,
];

// ---- where it happens ------------------------------------------------------------------------------------------------

struct Scene {
    name: &'static str,
    bytes: Vec<u8>,
}

/// Does `act` until the next time would make room: what the region held before that.
fn until_reclaim(cache: &mut Cache, mut act: impl FnMut(&mut Cache, u8)) -> Vec<u8> {
    for i in 0..200 {
        let before = (cache.world.bytes().to_vec(), cache.count(Counter::Reclaims));
        act(cache, i);
        if cache.count(Counter::Reclaims) > before.1 {
            return before.0;
        }
    }
    panic!("never full");
}

fn scene(name: &'static str, heat: u32, fill: Option<fn(&mut Cache, u8)>) -> Scene {
    furnished(name, heat, NEVER, fill)
}

fn furnished(name: &'static str, heat: u32, expiry: f64, fill: Option<fn(&mut Cache, u8)>) -> Scene {
    let world = World::new(MODEL_SIZE);
    let mut cache = Cache::join(&world);
    cache.store(b"a", &[7; 24], &With { tags: &["t"], expiry, ..PLAIN }).unwrap();
    cache.increment(b"n", 5.0, 0.0, &PLAIN).unwrap();
    cache.store(b"large", &[8; 200], &With { expiry, ..PLAIN }).unwrap();
    for _ in 0..heat {
        for key in KEYS {
            cache.get(key.as_bytes());
        }
    }
    let bytes = match fill {
        Some(fill) => until_reclaim(&mut cache, fill),
        None => world.bytes().to_vec(),
    };
    // The furnisher is still registered in there: whoever comes next takes its slot over, as after a crash.
    Scene { name, bytes }
}

/// A region with room, one that has to be compacted next, and full ones in which the keys are kept, or go.
fn scenes() -> Vec<Arc<Scene>> {
    let dead = |cache: &mut Cache, i: u8| assert!(cache.set(b"f", &[i; 24]).is_ok());
    let live = |cache: &mut Cache, i: u8| assert!(cache.set(&[b'p', i], &[i; 24]).is_ok());
    [scene("roomy", 1, None), scene("sparse", 1, Some(dead)), scene("hot", 3, Some(live)), scene("cold", 0, Some(live))]
        .map(Arc::new)
        .into()
}

// ---- one execution ---------------------------------------------------------------------------------------------------

/// Whatever shuttle wants to be sent between its tasks stays on one thread.
struct Here<T>(T);
// SAFETY: shuttle's tasks are coroutines of one thread.
unsafe impl<T> Send for Here<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Here<T> {}

impl<T> Here<T> {
    fn take(self) -> T {
        self.0
    }
}

/// What was seen over many executions.
#[derive(Default)]
struct Tally {
    executions: u64,
    deaths: u64,
    evicting: u64,
    busy: u64,
    /// The longest that each act took, in accesses.
    longest: BTreeMap<&'static str, u64>,
}

/// Plays the plan that the stage holds, and checks what came of it.
fn execute(scene: &Scene, acts: &[Act], tally: &Mutex<Tally>) {
    let stage = stage();
    let plan = stage.plan.borrow().clone();
    let world = World::holding(&scene.bytes);
    world.patience.store(2, SeqCst);
    stage.set(plan.clone(), acts.len(), &world);
    let names: Vec<_> = acts.iter().map(|act| act.name).collect();
    let told = format!("{}: {} under {plan:?}", scene.name, names.join(" | "));

    let mut caches: Vec<Cache> = acts.iter().map(|_| Cache::join(&world)).collect();
    for (cache, act) in caches.iter_mut().zip(acts).filter(|(_, act)| act.name == GET_NEAR.name) {
        let _ = (cache.get_near(b"a"), act);
    }
    *stage.slots.borrow_mut() = caches.iter().map(|cache| vec![cache.me.slot]).collect();
    let epoch = |slot: u32| {
        let at = world.region().geometry.participant(slot) as usize;
        u32::from_le_bytes(world.bytes()[at..at + 4].try_into().unwrap())
    };
    let epochs: Vec<u32> = stage.slots.borrow().iter().map(|slots| epoch(slots[0])).collect();
    let before = caches[0].count(Counter::Evictions);
    for key in KEYS {
        let did = match caches[0].peek(key.as_bytes()) {
            Some(got) => Did::Set { expect: Expect::Anything, value: got.value, version: Some(got.version) },
            None => Did::Got(None),
        };
        let start = stage.tick();
        stage.log.borrow_mut().push((key, Event { start, end: stage.tick(), did }));
    }

    let bell = stage.clone();
    faults::hang(Some(Rc::new(move || bell.access())));
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
                if let Err(payload) = result
                    && !payload.is::<Death>()
                {
                    eprintln!("{told}: {} failed", act.name);
                    faults::hang(None);
                    resume_unwind(payload);
                }
            })
        })
        .collect();
    for task in tasks {
        task.join().unwrap();
    }
    faults::hang(None);

    // Nobody living was reaped.
    let dead = stage.dead.borrow().clone();
    for (me, slots) in stage.slots.borrow().iter().enumerate().filter(|(me, _)| !dead[*me]) {
        let own = if acts[me].name == COME_AND_GO.name { 2 } else { 0 };
        assert_eq!(epoch(slots[0]), epochs[me] + own, "{told}: participant {me} was reaped alive");
    }
    let mut after = Cache::join(&world);
    assert_eq!(after.me.validate(), Ok(()), "{told}: the structure is broken");
    if !dead.contains(&true) {
        for each in after.audit() {
            assert!(each.booked == each.found || each.phase == Phase::Free, "{told}: the books are wrong: {each:?}");
        }
    }
    let evicted = after.count(Counter::Evictions) != before;
    // An eviction is counted after it was done, so one who died may have evicted what had to go.
    let may_forget = evicted || scene.name == "cold" && dead.contains(&true);
    for key in KEYS {
        let got = after.peek(key.as_bytes()).map(|got| (got.value, got.version));
        let start = stage.tick();
        stage.log.borrow_mut().push((key, Event { start, end: stage.tick(), did: Did::Got(got) }));
        let mut events: Vec<Event> =
            stage.log.borrow().iter().filter(|(of, _)| *of == key).map(|(_, event)| event.clone()).collect();
        events.sort_by_key(|event| event.start);
        assert!(linearizable(&events, may_forget), "{told}: {key} is not linearizable:\n{}", shown(&events));
    }
    // Whatever the dead held, a newcomer waits for nobody, and gets all the memory back.
    world.patience.store(0, SeqCst);
    for key in KEYS {
        let set = after.set(key.as_bytes(), b"after");
        assert!(set.is_ok(), "{told}: {key} cannot be set: {set:?}");
        assert_eq!(after.get(key.as_bytes()).map(|got| got.value).as_deref(), Some(&b"after"[..]), "{told}: {key}");
    }
    let lives = after.audit();
    after.me.clear();
    for i in 0..60u8 {
        let set = after.set(&[b'z', i], &[i; 24]);
        assert!(set.is_ok(), "{told}: no room for {i}: {set:?}");
    }
    for (before, after) in lives.iter().zip(after.audit()) {
        let recycled = before.generation != after.generation || matches!(before.phase, Phase::Free | Phase::Open);
        assert!(recycled && after.phase != Phase::Reclaim, "{told}: a segment leaked: {before:?} is now {after:?}");
    }
    assert_eq!(after.me.validate(), Ok(()), "{told}: the structure is broken in the end");

    let mut tally = tally.lock().unwrap();
    tally.executions += 1;
    tally.deaths += dead.iter().filter(|dead| **dead).count() as u64;
    tally.evicting += evicted as u64;
    tally.busy += stage.refused.get();
    if std::env::var_os("TELL_BUSY").is_some() && stage.refused.get() > 0 {
        eprintln!("busy: {told}");
    }
    for (act, steps) in acts.iter().zip(stage.steps.borrow().iter()) {
        let longest = tally.longest.entry(act.name).or_default();
        *longest = (*longest).max(*steps);
    }
}

fn shown(events: &[Event]) -> String {
    events
        .iter()
        .map(|event| format!("  {event:?}\n").replace(", 7, 7, 7, 7, 7, 7, 7", "…").replace(", 0, 0, 0", "…"))
        .collect()
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 512 << 10;
    config.silence_warnings = true;
    // What failed is told with its plan, or with the seed of the whole run.
    config.failure_persistence = FailurePersistence::None;
    config
}

/// A scene, who does what in it, and what was seen.
#[derive(Clone)]
struct Play {
    scene: Arc<Scene>,
    acts: Vec<Act>,
    tally: Arc<Mutex<Tally>>,
}

impl Play {
    fn run(&self, scheduler: impl Scheduler + 'static) {
        let here = Here(self.clone());
        Runner::new(scheduler, config()).run(move || {
            let Here(play) = &here;
            execute(&play.scene, &play.acts, &play.tally);
        });
    }

    /// Plays all the plans that `next` gives; it is told which turns of the last one were as long as they were meant to be.
    fn plans(&self, mut next: impl FnMut(Option<&[bool]>) -> Option<Plan> + 'static) {
        let mut first = true;
        self.run(Planned {
            next: move || match std::mem::take(&mut first) {
                true => next(None),
                false => next(Some(&stage().reached.borrow())),
            },
        });
    }

    /// Plays a plan for every `step`th access that the first one makes, from `start`.
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

    /// The accesses of each, one after the other.
    fn lengths(&self) -> Vec<u64> {
        let mut once = Some((0..self.acts.len()).map(|who| turn(who, TO_THE_END)).collect());
        self.plans(move |_| once.take());
        stage().steps.borrow().clone()
    }

    /// A sample of about `points` places; all of them, when there are no more.
    fn sample(&self, points: u64, random: &mut Random, plan: impl Fn(u64) -> Plan + 'static) {
        let step = (self.lengths()[0] / points.max(1)).max(1);
        self.at_every(random.below(step), step, plan);
    }
}

fn sleeps(at: u64) -> Plan {
    vec![turn(0, at), turn(1, TO_THE_END), turn(0, TO_THE_END)]
}

fn dies(at: u64) -> Plan {
    vec![death(0, at), turn(1, TO_THE_END)]
}

fn told(what: &str, tally: &Mutex<Tally>) {
    let tally = tally.lock().unwrap();
    let Tally { executions, deaths, evicting, busy, longest } = &*tally;
    eprintln!("{what}: {executions} executions, {deaths} deaths, {evicting} with evictions, {busy} busy; {longest:?}");
}

fn play(scene: &Arc<Scene>, acts: &[Act], tally: &Arc<Mutex<Tally>>) -> Play {
    Play { scene: scene.clone(), acts: acts.to_vec(), tally: tally.clone() }
}

fn any<T: Clone>(random: &mut Random, from: &[T]) -> T {
    from[random.below(from.len() as u64) as usize].clone()
}

// ---- everything with everything --------------------------------------------------------------------------------------

#[test]
fn every_pair_with_one_asleep_or_dead() {
    let _watchdog = Watchdog::new("every_pair_with_one_asleep_or_dead", 300);
    let mut random = Random::new(seed("every_pair_with_one_asleep_or_dead"));
    let tally = Arc::default();
    for scene in scenes() {
        for first in ACTS {
            for second in ACTS.iter().chain([&WRAP]) {
                let play = play(&scene, &[*first, *second], &tally);
                play.sample(scaled(10), &mut random, sleeps);
                play.sample(scaled(10), &mut random, dies);
            }
        }
    }
    told("one asleep or dead", &tally);
}

/// Two sleep, or one of them dies, at random places of both.
#[test]
fn every_pair_with_both_on_the_way() {
    let _watchdog = Watchdog::new("every_pair_with_both_on_the_way", 300);
    let mut random = Random::new(seed("every_pair_with_both_on_the_way"));
    let tally = Arc::default();
    for scene in scenes() {
        for first in ACTS {
            for second in ACTS {
                let play = play(&scene, &[*first, *second], &tally);
                let lengths = play.lengths();
                let mut random = Random::new(random.next());
                let mut left = scaled(16);
                play.plans(move |_| {
                    left = left.checked_sub(1)?;
                    let [i, j] = [0, 1].map(|who| random.below(lengths[who].max(1)));
                    Some(match left % 4 {
                        0 => vec![turn(0, i), turn(1, j), turn(0, TO_THE_END), turn(1, TO_THE_END)],
                        1 => vec![turn(0, i), death(1, j), turn(0, TO_THE_END)],
                        2 => vec![turn(0, i), turn(1, j), death(0, 1 + i), turn(1, TO_THE_END)],
                        // Back and forth.
                        _ => (0..8)
                            .flat_map(|_| [turn(0, 1 + random.below(20)), turn(1, 1 + random.below(20))])
                            .collect(),
                    })
                });
            }
        }
    }
    told("both on the way", &tally);
}

#[test]
fn three_at_once() {
    let _watchdog = Watchdog::new("three_at_once", 300);
    let mut random = Random::new(seed("three_at_once"));
    let (tally, scenes) = (Arc::default(), scenes());
    for _ in 0..scaled(600) {
        let acts = [any(&mut random, ACTS), any(&mut random, ACTS), any(&mut random, ACTS)];
        let play = play(&any(&mut random, &scenes), &acts, &tally);
        let lengths = play.lengths();
        let mut random = Random::new(random.next());
        let mut left = 24;
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
    told("three", &tally);
}

/// Schedules as shuttle chooses them, at every single access.
#[test]
fn random_and_probabilistic_schedules() {
    let _watchdog = Watchdog::new("random_and_probabilistic_schedules", 300);
    let mut random = Random::new(seed("random_and_probabilistic_schedules"));
    let (tally, scenes) = (Arc::default(), scenes());
    for round in 0..scaled(120) {
        let acts: Vec<Act> = (0..2 + round % 2).map(|_| any(&mut random, ACTS)).collect();
        let play = play(&any(&mut random, &scenes), &acts, &tally);
        let seed = random.next();
        stage().probing.set(true);
        if round % 3 == 0 {
            play.run(RandomScheduler::new_from_seed(seed, 10));
        } else {
            play.run(PctScheduler::new_from_seed(seed, 2 + round as usize % 3, 10));
        }
        stage().probing.set(false);
    }
    told("shuttle's schedules", &tally);
}

// ---- invariants by name, every place of each ------------------------------------------------------------------------

/// Every place at which the firsts can sleep or die, whatever the seconds do meanwhile. Without a `SCALE` of 3 it is every
/// third one, with another beginning in each run.
fn everywhere(name: &'static str, scenes: &[Arc<Scene>], firsts: &[Act], seconds: &[Act]) -> Tally {
    let _watchdog = Watchdog::new(name, 300);
    let mut random = Random::new(seed(name));
    let step = ((3.0 / scale()) as u64).max(1);
    let tally = Arc::default();
    for scene in scenes {
        for first in firsts {
            for second in seconds {
                let play = play(scene, &[*first, *second], &tally);
                play.at_every(random.below(step), step, sleeps);
                play.at_every(random.below(step), step, dies);
            }
        }
    }
    told(name, &tally);
    Arc::into_inner(tally).unwrap().into_inner().unwrap()
}

/// What a reader gets is one whole value of that key, even if its segment begins another life under it.
#[test]
fn i1_authentic() {
    everywhere(
        "i1",
        &scenes(),
        &[GET, GET_NEAR, GET_LARGE, GET_COUNTER],
        &[SET, SET_LARGE, RECLAIM, COMPACT, TOUCH_LARGE],
    );
}

/// What was replaced or removed does not come back: not by a copy that was on its way, not by a writer that slept.
#[test]
fn i2_no_resurrection() {
    let changes = [SET, REMOVE, COMPARE_AND_SET, TOUCH, INVALIDATE, RECLAIM, COMPACT];
    everywhere("i2", &scenes(), &changes, &changes);
}

#[test]
fn i3_one_live_entry_per_key() {
    let changes = [SET, ADD, REMOVE, SET_NUMBER, INCREMENT, SHRINK, COMPACT];
    everywhere("i3", &scenes(), &changes, &changes);
}

/// Every word of the region, with every kind of nonsense in it: nothing is worse than a miss or a refusal.
#[test]
fn i4_any_bit_pattern_parses() {
    let _watchdog = Watchdog::new("i4", 300);
    let mut random = Random::new(seed("i4_any_bit_pattern_parses"));
    let mut words = 0;
    for scene in scenes() {
        let geometry = World::holding(&scene.bytes).region().geometry;
        for at in (0..geometry.segment(geometry.segments)).step_by(8) {
            let word = |at: u32| u64::from_le_bytes(scene.bytes[at as usize..at as usize + 8].try_into().unwrap());
            let other = random.below(geometry.segment(geometry.segments) as u64 / 8) as u32 * 8;
            let (was, chance) = (word(at), random.next());
            // The empty parts of the header are many and alike.
            if was == 0 && at < 4096 && !at.is_multiple_of(64) {
                continue;
            }
            let patterns =
                [0, u64::MAX, chance, word(other), was ^ 1 << (chance % 64), was.wrapping_add(16), was << 32];
            for pattern in patterns {
                let world = World::holding(&scene.bytes);
                world.patience.store(1, SeqCst);
                world.bytes()[at as usize..at as usize + 8].copy_from_slice(&pattern.to_le_bytes());
                let mut cache = Cache::join(&world);
                let mut steps = accesses(|| {
                    for key in KEYS {
                        cache.get(key.as_bytes());
                        cache.get_near(key.as_bytes());
                    }
                    let _ = cache.increment(b"n", 1.0, 0.0, &PLAIN);
                    let _ = cache.touch(b"large", 1e9);
                    let _ = cache.set(b"large", &long(0));
                    let _ = cache.remove(b"a", Expect::Anything);
                    cache.keys();
                    cache.me.census();
                    cache.me.participants();
                    let _ = cache.me.validate();
                });
                steps += accesses(|| drop(cache.set(b"x", b"x")));
                steps += accesses(|| drop(cache.set(b"y", b"y")));
                assert!(steps < 400_000, "{}: {steps} accesses with {pattern:x} at {at}", scene.name);
                words += 1;
            }
        }
    }
    eprintln!("i4: {words} words");
}

/// A writer that sleeps while its segment goes through many lives writes into nobody else's bytes when it wakes up.
#[test]
fn m1_bytes_are_exclusive() {
    everywhere("m1", &scenes()[1..], &[SET, SET_LARGE, INCREMENT, TOUCH, TOUCH_LARGE, ADD], &[WRAP]);
}

/// Index words with the same two bits of generation as four lives ago prove nothing.
#[test]
fn m2_generation_aliasing_is_harmless() {
    let scenes = scenes();
    let world = World::holding(&scenes[3].bytes);
    let mut cache = Cache::join(&world);
    (WRAP.act)(&mut cache, 0);
    let lives = cache.audit().iter().filter(|each| each.generation > 5).count();
    assert!(lives >= 8, "the segments have to begin more lives than the hint can tell apart");
    everywhere("m2", &scenes[1..], &[GET, GET_NEAR, GET_LARGE, GET_COUNTER, WALK, COMPARE_AND_SET], &[WRAP]);
}

/// Whoever dies while it opens, seals, reclaims or frees: no segment is lost. (Every execution here ends with that check.)
#[test]
fn m3_segments_are_conserved() {
    let tally = everywhere("m3", &scenes(), &[RECLAIM, COMPACT, SET_LARGE, CLEAR], &[REAP, ADD, RECLAIM]);
    assert!(tally.deaths > 1_000);
}

/// All sealed segments but one are pinned, each by another participant who sleeps.
#[test]
fn m4_reclaim_progresses_with_one_unpinned() {
    for spare in 0..3 {
        let world = World::holding(&scenes()[3].bytes);
        let mut cache = Cache::join(&world);
        let sealed: Vec<u32> =
            cache.audit().iter().filter(|each| each.phase == Phase::Sealed).map(|each| each.segment).collect();
        let sleepers: Vec<Cache> = (0..3).map(|_| Cache::join(&world)).collect();
        let geometry = world.region().geometry;
        for (i, sleeper) in sleepers.iter().enumerate().filter(|(i, _)| *i != spare) {
            let at = geometry.participant(sleeper.me.slot) as usize + 8;
            world.bytes()[at..at + 8].copy_from_slice(&(sealed[i] as u64 + 1).to_le_bytes());
        }
        let lives = cache.audit();
        for i in 0..200u8 {
            cache.set(&[b'z', i], &[i; 24]).unwrap();
            assert_eq!(cache.get(&[b'z', i]).unwrap().value, [i; 24]);
        }
        for (i, segment) in sealed.iter().enumerate().take(3) {
            let same = cache.audit()[*segment as usize].generation == lives[*segment as usize].generation;
            assert_eq!(same, i != spare, "segment {segment}, pinned by {i}");
        }
        cache.check();
    }
}

/// The most accesses that any `get` may make, however often it is disturbed: sixteen looks at a bucket, and one at each
/// chunk eight times.
const GET_LIMIT: u64 = 3_000;

/// One who reads is disturbed by changes again and again, at all its accesses in turn.
#[test]
fn l1_gets_are_bounded() {
    let _watchdog = Watchdog::new("l1", 300);
    let mut random = Random::new(seed("l1_gets_are_bounded"));
    const CHURN: Act = Act {
        name: "churn",
        act: |cache, me| {
            for i in 0..60u8 {
                let _ = cache.set(b"a", &[i, me as u8]);
                let _ = cache.set(b"large", &[i; 200]);
            }
            // What it stored is not followed here.
            dropped(&KEYS, || cache.me.clear());
        },
    };
    let tally = Arc::default();
    for scene in scenes() {
        for get in [GET, GET_NEAR, GET_LARGE] {
            // The reader looks at other keys' answers than the ones it logs, so only the steps are of interest.
            let quiet =
                Act { act: |cache, _| drop((cache.get(b"a"), cache.get_near(b"a"), cache.get(b"large"))), ..get };
            let play = play(&scene, &[quiet, CHURN], &tally);
            let mut random = Random::new(random.next());
            let mut left = scaled(200);
            play.plans(move |_| {
                left = left.checked_sub(1)?;
                Some((0..200).flat_map(|_| [turn(0, 1 + random.below(12)), turn(1, 1 + random.below(300))]).collect())
            });
        }
    }
    let longest = &tally.lock().unwrap().longest;
    eprintln!("l1: {longest:?}");
    assert!(longest.iter().all(|(name, steps)| *name == "churn" || *steps < 3 * GET_LIMIT), "{longest:?}");
}

/// Whoever holds whatever, and sleeps for ever: a change ends, if only with `Busy`. (That a refused change changed nothing is
/// part of every history: P3.)
#[test]
fn l2_changes_are_bounded() {
    let changes = [SET, SET_LARGE, SHRINK, ADD, REMOVE, REMOVE_LARGE, INCREMENT, TOUCH, TOUCH_COUNTER, TOUCH_LARGE];
    let tally = everywhere("l2", &scenes(), &changes, &changes);
    assert!(tally.busy > 100, "nobody was in the way");
    assert!(tally.longest.values().all(|steps| *steps < 50_000), "{:?}", tally.longest);
}

/// Looking for the dead finds none among those who sleep, wherever they sleep. (Every execution ends with that check.)
#[test]
fn l3_the_living_are_not_reaped() {
    let tally = everywhere("l3", &scenes()[..2], ACTS, &[REAP, ATTACH, COME_AND_GO]);
    assert!(tally.executions > 1_000);
}

/// Deaths upon deaths in one region.
#[test]
fn l4_damage_does_not_accumulate() {
    let _watchdog = Watchdog::new("l4", 300);
    let mut random = Random::new(seed("l4_damage_does_not_accumulate"));
    let mut deaths = 0;
    for scene in scenes() {
        let world = World::holding(&scene.bytes);
        world.patience.store(0, SeqCst);
        let mut survivor = Cache::join(&world);
        stage().set(vec![], 2, &world);
        for round in 0..scaled(4_000) {
            let mut victim = Cache::join(&world);
            let act = any(&mut random, ACTS);
            stage().slots.borrow_mut().resize(2, vec![]);
            stage().slots.borrow_mut()[1] = vec![victim.me.slot];
            let bits = random.below(11);
            deaths += dies_at(random.below(1 << bits), || (act.act)(&mut victim, 1)) as u64;
            // Dead in either case, and whom it brought along.
            stage().slots.borrow()[1].iter().for_each(|slot| world.kill(*slot));
            stage().log.borrow_mut().clear();
            if round % 16 == 0 {
                survivor.check_structure();
                assert!(survivor.set(b"a", b"again").is_ok() && survivor.get(b"a").is_some());
                assert!(survivor.set(b"large", &long(1)).is_ok() && survivor.get(b"large").is_some());
                survivor.remove(b"n", Expect::Anything).unwrap();
                assert_eq!(survivor.increment(b"n", 1.0, 0.0, &PLAIN), Ok(1.0));
            }
        }
        let lives = survivor.audit();
        survivor.me.clear();
        for i in 0..100u8 {
            survivor.set(&[b'z', i], &[i; 24]).unwrap();
        }
        for (before, after) in lives.iter().zip(survivor.audit()) {
            let recycled = before.generation != after.generation || matches!(before.phase, Phase::Free | Phase::Open);
            assert!(recycled, "a segment leaked: {before:?} is now {after:?}");
        }
    }
    eprintln!("l4: {deaths} deaths");
    assert!(deaths > 0);
}

/// One dies while it makes room, the next one while it goes on from there, and the third one makes it.
#[test]
fn l5_reclaim_and_reap_can_be_done_again() {
    let _watchdog = Watchdog::new("l5", 300);
    let mut random = Random::new(seed("l5_reclaim_and_reap_can_be_done_again"));
    let tally = Arc::default();
    for scene in &scenes()[1..] {
        for first in [RECLAIM, COMPACT, SET_LARGE, ATTACH] {
            for second in [RECLAIM, REAP, ADD] {
                let play = play(scene, &[first, second, RECLAIM], &tally);
                let lengths = play.lengths();
                let mut random = Random::new(random.next());
                let mut left = scaled(400);
                play.plans(move |_| {
                    left = left.checked_sub(1)?;
                    let [i, j] = [0, 1].map(|who| random.below(lengths[who]));
                    Some(vec![death(0, i), death(1, j), turn(2, TO_THE_END)])
                });
            }
        }
    }
    told("l5", &tally);
}

/// A key that was read often is read without a single write, in the near cache and without.
#[test]
fn p1_a_hot_key_stops_writing() {
    let world = World::holding(&scenes()[2].bytes);
    let mut cache = Cache::join(&world);
    for _ in 0..4 {
        cache.get(b"a");
        cache.get_near(b"a");
    }
    let own = world.region().geometry.participant(cache.me.slot) as usize;
    let but_its_own_counters = || {
        let mut bytes = world.bytes().to_vec();
        bytes[own + 64..own + 128].fill(0);
        bytes
    };
    let before = but_its_own_counters();
    for _ in 0..100 {
        assert!(cache.get(b"a").is_some() && cache.get_near(b"a").is_some());
    }
    assert!(before == but_its_own_counters(), "reading a hot key wrote to the region");
}

/// Time passes while somebody reads: what had expired when the read began is not returned.
#[test]
fn p2_expired_is_never_returned() {
    const TIME_PASSES: Act =
        Act { name: "time passes", act: |cache, _| dropped(&["a", "large"], || cache.world.set_clock(1_000.0)) };
    let mortal = Arc::new(furnished("roomy", 1, 500.0, None));
    everywhere("p2", &[mortal], &[GET, GET_NEAR, GET_LARGE, TIME_PASSES], &[TIME_PASSES, GET, GET_NEAR, GET_LARGE]);
}

/// Refused as too large or as unexpected, or because somebody sleeps in the way: what was there is still there.
#[test]
fn p3_a_refused_set_keeps_the_old() {
    const REFUSED: Act = Act {
        name: "refused",
        act: |cache, me| {
            assert_eq!(cache.set(b"a", &[1; 385]), Err(Refused::TooLarge));
            assert_eq!(cache.set(b"large", &[1; 385]), Err(Refused::TooLarge));
            put(cache, "n", short(me), TEXT, Expect::Absent);
            put(cache, "x", short(me), TEXT, Expect::Present);
        },
    };
    everywhere("p3", &scenes(), &[REFUSED, SET, SET_LARGE], &[REFUSED, SET, SET_LARGE]);
}

/// Counting while the counter is moved, touched, replaced, and counted by others.
#[test]
fn p4_no_increment_is_lost() {
    let acts = [INCREMENT, TOUCH_COUNTER, COMPACT, RECLAIM, SET_NUMBER];
    everywhere("p4", &scenes(), &acts, &acts);
    // Both on the way, every place of both.
    let tally = Arc::default();
    let play = play(&scenes()[1], &[INCREMENT, COMPACT], &tally);
    let lengths = play.lengths();
    let (step, mut i, mut j) = ((lengths[1] / scaled(40).max(1)).max(1), 0, 0);
    play.plans(move |_| {
        j += step;
        if j > lengths[1] {
            (i, j) = (i + 1, i % step);
        }
        (i < lengths[0]).then(|| vec![turn(0, i), turn(1, j), turn(0, TO_THE_END), turn(1, TO_THE_END)])
    });
    told("p4", &tally);
}

/// What names an owner (a lock, a segment, a value half written) is void when its owner is dead.
#[test]
fn p5_what_the_dead_own_blocks_nobody() {
    let _watchdog = Watchdog::new("p5", 300);
    let tally = Arc::default();
    for scene in scenes() {
        for first in [SET_LARGE, SET, INCREMENT, TOUCH_LARGE, RECLAIM, COMPACT] {
            for second in [SET, SET_LARGE, INCREMENT, RECLAIM] {
                let play = play(&scene, &[first, second], &tally);
                play.at_every(0, 1, dies);
            }
        }
    }
    told("p5", &tally);
    assert_eq!(tally.lock().unwrap().busy, 0, "changes were refused because of the dead");
}

/// Coming, next to others who come, and after one who died while it came.
#[test]
fn a1_attach() {
    everywhere("a1", &scenes(), &[ATTACH, COME_AND_GO], &[ATTACH, COME_AND_GO, REAP, SET, RECLAIM]);
}

/// Whoever dies while it makes a region leaves none; and nobody takes the half of one for a whole.
#[test]
fn a1_create() {
    let world = World::new(MODEL_SIZE);
    for n in 0.. {
        world.bytes().fill(0);
        let died = dies_at(n, || format(&world.region(), 7));
        let header: Vec<u64> =
            world.bytes()[..64].chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
        let expected = if died { Err(Mismatch::Foreign) } else { Ok(()) };
        assert_eq!(inspect(&header, MODEL_SIZE as u64), expected, "after {n} accesses");
        if !died {
            assert!(n > 10);
            break;
        }
    }
    Cache::join(&world).check();
}

/// One who dies between reserving its space and saying how long it is leaves a hole, behind which nobody can walk. What
/// lies there is found by way of the index, moved and kept: overwriting one key for ever costs nobody anything.
#[test]
fn l5_a_hole_costs_its_neighbours_nothing() {
    const GO_ROUND: Act = Act {
        name: "go round",
        act: |cache, me| {
            for i in 0..150u8 {
                assert!(cache.set(&[b'c', me as u8], &[i; 24]).is_ok());
            }
        },
    };
    let changes = [SET, SET_LARGE, INCREMENT, TOUCH_LARGE, COMPACT];
    let tally = everywhere("holes", &scenes()[..2], &changes, &[GO_ROUND]);
    assert_eq!(tally.evicting, 0, "what fits was evicted");
}
