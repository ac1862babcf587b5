//! Random schedules: a few threads of which only one runs at a time. At random accesses to shared memory another thread is
//! chosen. So a seed replays a run exactly, and windows of a few instructions are hit often. Afterwards the answers of all
//! operations are checked for linearizability.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

use cache_machine_core::{Expect, Refused, faults};

use crate::harness::*;
use crate::history::{Did, Event, linearizable};

// ---- the schedule ----------------------------------------------------------------------------------------------------

struct Baton {
    state: Mutex<(usize, Vec<bool>, Random)>,
    changed: Condvar,
}

impl Baton {
    fn new(threads: usize, random: Random) -> Arc<Baton> {
        Arc::new(Baton { state: Mutex::new((0, vec![true; threads], random)), changed: Condvar::new() })
    }

    /// Gives the turn to any thread that still runs, and waits until it is the turn of `me` again.
    fn pass(&self, me: usize) {
        let mut state = self.state.lock().unwrap();
        Baton::choose(&mut state);
        self.changed.notify_all();
        while state.0 != me {
            state = self.changed.wait(state).unwrap();
        }
    }

    fn begin(&self, me: usize) {
        let mut state = self.state.lock().unwrap();
        while state.0 != me {
            state = self.changed.wait(state).unwrap();
        }
    }

    fn end(&self, me: usize) {
        let mut state = self.state.lock().unwrap();
        state.1[me] = false;
        Baton::choose(&mut state);
        self.changed.notify_all();
    }

    fn choose(state: &mut (usize, Vec<bool>, Random)) {
        let running: Vec<usize> = (0..state.1.len()).filter(|thread| state.1[*thread]).collect();
        if !running.is_empty() {
            state.0 = running[state.2.below(running.len() as u64) as usize];
        }
    }

    /// Adds this thread to the schedule.
    fn join(self: &Arc<Baton>, me: usize, mut random: Random, patience: u64) {
        let baton = self.clone();
        let mut left = random.below(patience);
        faults::before_access(Some(Box::new(move || {
            if left == 0 {
                left = 1 + random.below(patience);
                baton.pass(me);
            }
            left -= 1;
        })));
    }
}

// ---- the scene -------------------------------------------------------------------------------------------------------

/// A full region whose lanes are nearly full, with the keys under test in its oldest segments.
fn furnish(random: &mut Random) -> Vec<u8> {
    let world = World::new(MIB);
    let mut cache = Cache::join(&world);
    for round in 0..3 {
        for i in 0..60u32 {
            let key = format!("key {i}").into_bytes();
            match i % 4 {
                0 | 1 => drop(cache.set(&key, &[round; 8])),
                2 => drop(cache.increment(&key, 1.0, 0.0, &PLAIN)),
                _ => drop(cache.set(&key, &[round; 8_800])),
            }
            for _ in 0..random.below(3) {
                cache.get(&key);
            }
            cache.set(format!("other {round} {i}").as_bytes(), &[0; 1200]).unwrap();
        }
    }
    for i in 0..random.below(30) {
        cache.set(format!("last {i}").as_bytes(), &[0; 400]).unwrap();
    }
    cache.leave();
    world.bytes().to_vec()
}

/// Runs one thread: operations on a few keys, and sets of other keys, which make it reclaim.
fn act(cache: &mut Cache, random: &mut Random, keys: &[u32], clock: &AtomicU64, log: &RefCell<Vec<(u32, Event)>>) {
    let mut version = 2;
    for i in 0..3 + random.below(3) {
        for _ in 0..random.below(3) {
            let _ = cache.set(&random.next().to_le_bytes(), &[1; 3_500]);
        }
        let number = keys[random.below(keys.len() as u64) as usize];
        let key = format!("key {number}").into_bytes();
        let start = clock.fetch_add(1, SeqCst);
        // Eight bytes, so that the value can be read as a number; sometimes a large value.
        let mut value = (1e6 + (random.below(1 << 30) * 8 + i) as f64).to_le_bytes().to_vec();
        let did = match random.below(12) {
            0..4 => {
                let got = if random.chance(2) { cache.get(&key) } else { cache.get_near(&key) };
                let got = got.map(|got| (got.value, got.version));
                version = got.as_ref().map_or(version, |got| got.1);
                Did::Got(got)
            }
            4 => Did::Removed(match cache.remove(&key, Expect::Anything) {
                Ok(removed) => removed,
                Err(_) => continue,
            }),
            5 | 6 if number % 4 == 2 => Did::Incremented { by: 1.0, sum: cache.increment(&key, 1.0, 0.0, &PLAIN).ok() },
            7 => Did::Touched(match cache.touch(&key, 1e9) {
                Ok(touched) => touched,
                Err(_) => continue,
            }),
            n => {
                let expect = match n {
                    8 => Expect::Absent,
                    9 => Expect::Present,
                    10 => Expect::Version(version),
                    _ => Expect::Anything,
                };
                let counter = number % 4 == 2;
                if number % 4 == 3 && random.chance(2) {
                    value = value.repeat(1_100);
                }
                let with =
                    With { value_type: if counter { cache_machine_core::NUMBER } else { TEXT }, expect, ..PLAIN };
                match cache.store(&key, &value, &with) {
                    Ok(version) => Did::Set { expect, value, version: Some(version) },
                    Err(Refused::Unexpected) => Did::Set { expect, value, version: None },
                    Err(Refused::Busy) => continue,
                    Err(refused) => panic!("{refused:?}"),
                }
            }
        };
        let end = clock.fetch_add(1, SeqCst);
        log.borrow_mut().push((number, Event { start, end, did }));
    }
}

#[test]
fn every_schedule_is_linearizable() {
    let _watchdog = Watchdog::new("every_schedule_is_linearizable", 240);
    let seed = seed("every_schedule_is_linearizable");
    let mut random = Random::new(seed);
    let mut furnished = Vec::new();
    for schedule in 0..scaled(400) {
        if schedule % 100 == 0 {
            furnished = furnish(&mut random);
        }
        let world = World::new(MIB);
        world.bytes().copy_from_slice(&furnished);
        let threads = 2 + random.below(3) as usize;
        let keys: Vec<u32> = (0..1 + random.below(3)).map(|_| random.below(60) as u32).collect();
        let baton = Baton::new(threads, random.clone());
        let patience = 8 << random.below(7);
        let clock = AtomicU64::new(0);
        let mut log: HashMap<u32, Vec<Event>> = HashMap::new();
        {
            // What the keys hold at first is an event too.
            let mut cache = Cache::join(&world);
            for key in &keys {
                let got = cache.peek(format!("key {key}").as_bytes()).map(|got| (got.value, got.version));
                let start = clock.fetch_add(2, SeqCst);
                let did = match got {
                    Some((value, version)) => Did::Set { expect: Expect::Anything, value, version: Some(version) },
                    None => Did::Got(None),
                };
                log.insert(*key, vec![Event { start, end: start + 1, did }]);
            }
            cache.leave();
        }
        let logs: Vec<Vec<(u32, Event)>> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads)
                .map(|me| {
                    let (world, baton, keys, clock) = (&world, &baton, &keys, &clock);
                    let mut random = Random::new(random.next());
                    scope.spawn(move || {
                        baton.begin(me);
                        let mut cache = Cache::join(world);
                        baton.join(me, random.clone(), patience);
                        let log = RefCell::new(Vec::new());
                        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                            act(&mut cache, &mut random, keys, clock, &log)
                        }));
                        faults::before_access(None);
                        cache.leave();
                        baton.end(me);
                        result.map(|()| log.into_inner())
                    })
                })
                .collect();
            let results: Vec<_> = handles.into_iter().map(|handle| handle.join().unwrap()).collect();
            results.into_iter().map(|result| result.expect("a thread failed")).collect()
        });
        for (key, event) in logs.into_iter().flatten() {
            log.entry(key).or_default().push(event);
        }
        let mut cache = Cache::join(&world);
        cache.check();
        for (key, mut events) in log {
            let got = cache.peek(format!("key {key}").as_bytes()).map(|got| (got.value, got.version));
            let start = clock.fetch_add(2, SeqCst);
            events.push(Event { start, end: start + 1, did: Did::Got(got) });
            events.sort_by_key(|event| event.start);
            if !linearizable(&events, true) {
                for event in &mut events {
                    // Large values would only make the output long.
                    if let Did::Set { value, .. } | Did::Got(Some((value, _))) = &mut event.did {
                        value.truncate(8);
                    }
                    eprintln!("{event:?}");
                }
                panic!("schedule {schedule}: key {key} is not linearizable");
            }
        }
    }
}
