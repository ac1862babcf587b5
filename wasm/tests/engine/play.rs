//! Plays one execution of a model and checks its result, and plays many of them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use cache_machine_core::{Counter, Expect, Phase, faults};
use shuttle::scheduler::Scheduler;
use shuttle::{Config, FailurePersistence, Runner};

use crate::acts::*;
use crate::harness::*;
use crate::history::{Did, Event, linearizable};
use crate::stage::*;

/// Makes a value `Send` that shuttle moves between its tasks. It stays in one thread.
pub struct Here<T>(pub T);
// SAFETY: shuttle's tasks are coroutines of one thread.
unsafe impl<T> Send for Here<T> {}
// SAFETY: shuttle's tasks are coroutines of one thread.
unsafe impl<T> Sync for Here<T> {}

impl<T> Here<T> {
    pub fn take(self) -> T {
        self.0
    }
}

/// Statistics over many executions.
#[derive(Default)]
pub struct Tally {
    pub executions: u64,
    pub deaths: u64,
    pub evicting: u64,
    pub busy: u64,
    /// The most accesses that each act made.
    pub longest: BTreeMap<&'static str, u64>,
}

/// Plays the plan that the stage holds, and checks the result.
pub fn execute(scene: &Scene, acts: &[Act], tally: &Mutex<Tally>) {
    let stage = stage();
    let plan = stage.plan.borrow().clone();
    let world = World::holding(&scene.bytes);
    world.patience.store(2, SeqCst);
    stage.set(plan.clone(), acts.len(), &world);
    let names: Vec<_> = acts.iter().map(|act| act.name).collect();
    let told = format!("{}: {} under {plan:?}", scene.name, names.join(" | "));

    let mut caches: Vec<Cache> = acts.iter().map(|_| Cache::join(&world)).collect();
    for (cache, act) in caches.iter_mut().zip(acts) {
        // So often that the key is in the near cache, with a proof.
        let times = [(GET_NEAR.name, 1), (PROVED, 6)].iter().find(|(name, _)| act.name == *name).map_or(0, |it| it.1);
        for _ in 0..times {
            cache.get_near(b"a");
        }
    }
    *stage.seats.borrow_mut() = caches.iter().map(|cache| vec![cache.me.seat]).collect();
    let incarnation = |seat: u32| {
        let at = world.region().geometry.seat(seat) as usize;
        u32::from_le_bytes(world.bytes()[at..at + 4].try_into().unwrap())
    };
    let incarnations: Vec<u32> = stage.seats.borrow().iter().map(|seats| incarnation(seats[0])).collect();
    let before = caches[0].count(Counter::Evictions);
    for key in LOGGED {
        let did = match caches[0].peek(key.as_bytes()) {
            Some(got) => {
                let version = Some(got.version);
                Did::Set { expect: Expect::Anything, value: held(got), version }
            }
            None => Did::Got(None),
        };
        let start = stage.tick();
        stage.log.borrow_mut().push((key, Event { start, end: stage.tick(), did }));
    }

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
                let result = catch_unwind(AssertUnwindSafe(|| attended(&mut cache, |cache| (act.act)(cache, me))));
                stage.current.set(None);
                if let Err(payload) = result
                    && !payload.is::<Death>()
                {
                    eprintln!("{told}: {} failed", act.name);
                    faults::before_access_shared(None);
                    resume_unwind(payload);
                }
            })
        })
        .collect();
    for task in tasks {
        task.join().unwrap();
    }
    faults::before_access_shared(None);

    // No living participant was reaped.
    let dead = stage.dead.borrow().clone();
    for (me, seats) in stage.seats.borrow().iter().enumerate().filter(|(me, _)| !dead[*me]) {
        let own = if acts[me].name == COME_AND_GO.name { 2 } else { 0 };
        assert_eq!(incarnation(seats[0]), incarnations[me] + own, "{told}: participant {me} was reaped alive");
    }
    let mut after = Cache::join(&world);
    assert_eq!(after.me.validate(), Ok(()), "{told}: the structure is broken");
    if !dead.contains(&true) {
        for each in after.audit() {
            assert!(
                each.accounted == each.found || each.phase == Phase::Free,
                "{told}: the live bytes are wrong: {each:?}"
            );
        }
    }
    let evicted = after.count(Counter::Evictions) != before;
    let may_forget = evicted || stage.cut_off.get();
    for key in LOGGED {
        let got = after.peek(key.as_bytes()).map(|got| (held(got.clone()), got.version));
        let start = stage.tick();
        stage.log.borrow_mut().push((key, Event { start, end: stage.tick(), did: Did::Got(got) }));
        let mut events: Vec<Event> =
            stage.log.borrow().iter().filter(|(of, _)| *of == key).map(|(_, event)| event.clone()).collect();
        events.sort_by_key(|event| event.start);
        assert!(linearizable(&events, may_forget), "{told}: {key} is not linearizable:\n{}", shown(&events));
    }
    // Whatever the dead held, a new participant waits for nobody, and gets all segments back.
    world.patience.store(0, SeqCst);
    for key in LOGGED {
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
    assert_eq!(after.me.validate(), Ok(()), "{told}: the structure is broken at the end");

    let mut tally = tally.lock().unwrap();
    tally.executions += 1;
    tally.deaths += dead.iter().filter(|dead| **dead).count() as u64;
    tally.evicting += evicted as u64;
    tally.busy += stage.refused.get();
    for (act, steps) in acts.iter().zip(stage.steps.borrow().iter()) {
        let longest = tally.longest.entry(act.name).or_default();
        *longest = (*longest).max(*steps);
    }
}

pub fn shown(events: &[Event]) -> String {
    events
        .iter()
        .map(|event| format!("  {event:?}\n").replace(", 7, 7, 7, 7, 7, 7, 7", "…").replace(", 0, 0, 0", "…"))
        .collect()
}

pub fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 512 << 10;
    config.silence_warnings = true;
    // A failure is reported with its plan, or with the seed of the whole run.
    config.failure_persistence = FailurePersistence::None;
    config
}

/// A scene, the acts of each participant in it, and the statistics.
#[derive(Clone)]
pub struct Play {
    pub scene: Arc<Scene>,
    pub acts: Vec<Act>,
    pub tally: Arc<Mutex<Tally>>,
}

impl Play {
    pub fn run(&self, scheduler: impl Scheduler + 'static) {
        let here = Here(self.clone());
        Runner::new(scheduler, config()).run(move || {
            let Here(play) = &here;
            execute(&play.scene, &play.acts, &play.tally);
        });
    }

    /// Plays all the plans that `next` gives. `next` gets the turns of the last plan that were as long as the plan said.
    pub fn plans(&self, mut next: impl FnMut(Option<&[bool]>) -> Option<Plan> + 'static) {
        let mut first = true;
        self.run(Planned {
            next: move || match std::mem::take(&mut first) {
                true => next(None),
                false => next(Some(&stage().reached.borrow())),
            },
        });
    }

    /// Plays a plan for every `step`th access of the first participant, beginning with access `start`.
    pub fn at_every(&self, start: u64, step: u64, plan: impl Fn(u64) -> Plan + 'static) {
        let mut at = start;
        self.plans(move |reached| {
            if reached.is_some_and(|reached| !reached[0]) {
                return None;
            }
            at += step;
            Some(plan(at - step))
        });
    }

    /// How many accesses each participant makes when they run one after the other.
    pub fn lengths(&self) -> Vec<u64> {
        let mut once = Some((0..self.acts.len()).map(|who| turn(who, TO_THE_END)).collect());
        self.plans(move |_| once.take());
        stage().steps.borrow().clone()
    }

    /// A sample of about `points` accesses; all of them, when there are not more.
    pub fn sample(&self, points: u64, random: &mut Random, plan: impl Fn(u64) -> Plan + 'static) {
        let step = (self.lengths()[0] / points.max(1)).max(1);
        self.at_every(random.below(step), step, plan);
    }
}

pub fn sleeps(at: u64) -> Plan {
    vec![turn(0, at), turn(1, TO_THE_END), turn(0, TO_THE_END)]
}

pub fn dies(at: u64) -> Plan {
    vec![death(0, at), turn(1, TO_THE_END)]
}

pub fn told(what: &str, tally: &Mutex<Tally>) {
    let tally = tally.lock().unwrap();
    let Tally { executions, deaths, evicting, busy, longest } = &*tally;
    eprintln!("{what}: {executions} executions, {deaths} deaths, {evicting} with evictions, {busy} busy; {longest:?}");
}

pub fn play(scene: &Arc<Scene>, acts: &[Act], tally: &Arc<Mutex<Tally>>) -> Play {
    Play { scene: scene.clone(), acts: acts.to_vec(), tally: tally.clone() }
}

pub fn any<T: Clone>(random: &mut Random, from: &[T]) -> T {
    from[random.below(from.len() as u64) as usize].clone()
}

/// Plays all pairs of acts: the first participant sleeps or dies at every access, and the second one runs meanwhile. With a
/// `SCALE` below 3 only every third access is played, beginning with another one in each run.
pub fn everywhere(name: &'static str, scenes: &[Arc<Scene>], firsts: &[Act], seconds: &[Act]) -> Tally {
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
