//! Many threads on one region. Every value names its key, so that each read can be checked by itself. Every thread yields at
//! random accesses, because threads on two cores alone would interleave too seldom.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use cache_machine_core::{Counter, Expect, Refused, faults};

use crate::harness::*;

const THREADS: u64 = 4;

/// `{key, writer, sequence, bytes computed from these …}`.
fn value_of(key: u64, writer: u64, sequence: u64, bytes: u64) -> Vec<u8> {
    let mut random = Random::new(key << 40 ^ writer << 32 ^ sequence);
    let mut value: Vec<u8> = [key, writer, sequence].iter().flat_map(|part| part.to_le_bytes()).collect();
    value.extend((0..bytes / 8).flat_map(|_| random.next().to_le_bytes()));
    value
}

/// Checks that a value is whole and belongs to `key`. Returns its writer and sequence.
fn authentic(key: u64, value: &[u8]) -> (u64, u64) {
    let part = |i: usize| u64::from_le_bytes(value[i * 8..i * 8 + 8].try_into().unwrap());
    let (writer, sequence) = (part(1), part(2));
    assert_eq!(part(0), key, "another key's value");
    assert!(value == value_of(key, writer, sequence, value.len() as u64 - 24), "a torn value of key {key}");
    (writer, sequence)
}

fn size(random: &mut Random) -> u64 {
    match random.below(30) {
        0 => 8_000 + random.below(30_000),
        1..6 => random.below(4_000),
        _ => random.below(300),
    }
}

/// Makes this thread yield before random accesses to shared memory.
fn yield_at_random(mut random: Random) {
    let mut steady = 0;
    faults::before_access(Some(Box::new(move || {
        if steady == 0 {
            steady = 1 + random.below(3_000);
            std::thread::yield_now();
        }
        steady -= 1;
    })));
}

/// Runs `act` in `THREADS` threads, each with its own participant.
fn together<T: Send>(world: &Arc<World>, seed: u64, act: impl Fn(u64, Cache, Random) -> T + Sync) -> Vec<T> {
    let start = std::sync::Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (act, start) = (&act, &start);
                scope.spawn(move || {
                    let cache = Cache::join(world);
                    start.wait();
                    let random = Random::new(seed ^ thread << 48);
                    yield_at_random(random.clone());
                    let result = act(thread, cache, random);
                    faults::before_access(None);
                    result
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Every key has one writer, which publishes its sequence after each change: no reader may see an older value.
#[test]
fn nothing_torn_and_nothing_resurrected() {
    let _watchdog = Watchdog::new("nothing_torn_nothing_back_from_the_dead", 120);
    let seed = seed("nothing_torn_nothing_back_from_the_dead");
    for size_mib in [1, 4] {
        let world = World::new(size_mib * MIB);
        let keys = 800 * size_mib as u64;
        let done: Vec<AtomicU64> = (0..keys).map(|_| AtomicU64::new(0)).collect();
        let (hits, near_hits) = (AtomicU64::new(0), AtomicU64::new(0));
        together(&world, seed, |me, mut cache, mut random| {
            let mut seen = vec![0; keys as usize];
            for i in 0..scaled(30_000) {
                let own = random.below(keys / THREADS) * THREADS + me;
                let sequence = i + 1;
                match random.below(10) {
                    0..3 => {
                        let value = value_of(own, me, sequence, size(&mut random));
                        match cache.set(&own.to_le_bytes(), &value) {
                            Ok(_) => done[own as usize].store(sequence, SeqCst),
                            // A large value may lose its chunks in a region as small as this.
                            Err(refused) => assert!(refused == Refused::Busy && value.len() > 8_000, "{refused:?}"),
                        }
                    }
                    3 => {
                        cache.remove(&own.to_le_bytes(), Expect::Anything).unwrap();
                        done[own as usize].store(sequence, SeqCst);
                    }
                    4 => drop(cache.touch(&own.to_le_bytes(), 1e9)),
                    _ => {
                        // Some keys are read more often than others.
                        let key = random.below(keys).min(random.below(keys));
                        let floor = done[key as usize].load(SeqCst).max(seen[key as usize]);
                        let name = key.to_le_bytes();
                        let got = if random.chance(2) { cache.get(&name) } else { cache.get_near(&name) };
                        if let Some(got) = got {
                            let (writer, sequence) = authentic(key, &got.value);
                            assert_eq!(writer, key % THREADS);
                            assert!(sequence >= floor, "key {key}: {sequence} after {floor}");
                            seen[key as usize] = sequence;
                            hits.fetch_add(1, SeqCst);
                        }
                    }
                }
            }
            near_hits.fetch_add(cache.near_hits, SeqCst);
            cache.leave();
        });
        Cache::join(&world).check();
        assert!(near_hits.load(SeqCst) > scaled(100), "hardly any hits of the near caches");
        assert!(hits.load(SeqCst) > scaled(1000), "hardly any hits");
    }
}

/// Counters among values that are overwritten all the time: the counters are moved again and again, and no increment is lost.
#[test]
fn no_increment_is_lost() {
    let _watchdog = Watchdog::new("no_increment_is_lost", 120);
    let seed = seed("no_increment_is_lost");
    let world = World::new(MIB);
    let rounds = scaled(20_000);
    let totals = together(&world, seed, |me, mut cache, mut random| {
        let mut totals = [0f64; 16];
        for i in 0..rounds {
            let counter = random.below(16);
            let by = 1.0 + random.below(5) as f64;
            cache.increment(format!("counter {counter}").as_bytes(), by, 0.0, &PLAIN).unwrap();
            totals[counter as usize] += by;
            if i % 2 == 0 {
                cache.set(format!("value {me} {}", random.below(10)).as_bytes(), &[me as u8; 1500]).unwrap();
            }
            if i % 16 == 0 {
                cache.touch(format!("counter {counter}").as_bytes(), 1e9).unwrap();
            }
        }
        cache.leave();
        totals
    });
    let mut cache = Cache::join(&world);
    cache.check();
    assert!(cache.count(Counter::Reclaims) > 100);
    for counter in 0..16 {
        let sum: f64 = totals.iter().map(|totals| totals[counter]).sum();
        let got = cache.get(format!("counter {counter}").as_bytes()).expect("a counter was evicted");
        assert_eq!(got.number(), sum, "counter {counter}");
    }
}

#[test]
fn at_most_one_wins() {
    let _watchdog = Watchdog::new("at_most_one_wins", 120);
    let seed = seed("at_most_one_wins");
    let world = World::new(MIB);
    // As many as fit, so that none is evicted.
    let rounds = scaled(3_000).min(4_000);
    let wins = together(&world, seed, |me, mut cache, mut random| {
        let mut wins = Vec::new();
        for round in 0..rounds {
            // The first to fill a key wins.
            let with = With { expect: Expect::Absent, ..PLAIN };
            match cache.store(format!("prize {round}").as_bytes(), &[me as u8], &with) {
                Ok(_) => wins.push(round),
                Err(refused) => assert_eq!(refused, Refused::Unexpected),
            }
            // Counts by compare-and-set: every success adds one.
            let mut tries = 0;
            while tries < 100 {
                tries += 1;
                let key = b"tally";
                match cache.get(key) {
                    None => drop(cache.store(key, &0u64.to_le_bytes(), &With { expect: Expect::Absent, ..PLAIN })),
                    Some(got) => {
                        let tally = u64::from_le_bytes(got.value[..].try_into().unwrap());
                        let with = With { expect: Expect::Version(got.version), ..PLAIN };
                        match cache.store(key, &(tally + 1).to_le_bytes(), &with) {
                            Ok(_) => break,
                            Err(refused) => assert_eq!(refused, Refused::Unexpected),
                        }
                    }
                }
            }
            assert!(tries < 100, "no compare-and-set succeeds");
            cache.set(format!("value {}", random.below(8)).as_bytes(), &[0; 2000]).unwrap();
        }
        cache.leave();
        wins
    });
    let mut cache = Cache::join(&world);
    cache.check();
    let evicted = cache.count(Counter::Evictions);
    assert_eq!(evicted, 0, "everything fits");
    let mut all: Vec<u64> = wins.concat();
    all.sort();
    let twice: Vec<u64> = all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    assert_eq!(twice, [], "won more than once");
    assert_eq!(all.len() as u64, rounds, "some keys were won by nobody");
    let tally = u64::from_le_bytes(cache.get(b"tally").unwrap().value[..].try_into().unwrap());
    assert_eq!(tally, THREADS * rounds);
}

/// Threads die at random accesses while others go on. Readers check what they get.
#[test]
fn the_living_go_on_among_the_dying() {
    let _watchdog = Watchdog::new("the_living_go_on_among_the_dying", 120);
    let seed = seed("the_living_go_on_among_the_dying");
    let world = World::new(MIB);
    let keys = 500;
    let over = AtomicBool::new(false);
    let deaths: u64 = std::thread::scope(|scope| {
        let dying: Vec<_> = (0..2u64)
            .map(|thread| {
                let (world, over) = (&world, &over);
                scope.spawn(move || {
                    let mut random = Random::new(seed ^ thread << 40);
                    let mut deaths = 0;
                    while !over.load(SeqCst) {
                        let mut cache = Cache::join(world);
                        let bits = random.below(16);
                        let died = dies_at(random.below(1 << bits), || {
                            for i in 0..100 {
                                let key = random.below(keys);
                                let value = value_of(key, 100 + thread, i, size(&mut random));
                                match random.below(4) {
                                    0 => drop(cache.increment(&(key + 10_000).to_le_bytes(), 1.0, 0.0, &PLAIN)),
                                    1 => drop(cache.remove(&key.to_le_bytes(), Expect::Anything)),
                                    _ => drop(cache.set(&key.to_le_bytes(), &value)),
                                }
                            }
                        });
                        deaths += died as u64;
                        // It is dead in either case.
                        cache.die();
                    }
                    deaths
                })
            })
            .collect();
        let living: Vec<_> = (0..2u64)
            .map(|thread| {
                let world = &world;
                scope.spawn(move || {
                    let mut cache = Cache::join(world);
                    let mut random = Random::new(seed ^ thread << 56);
                    for i in 0..scaled(40_000) {
                        let key = random.below(keys);
                        if random.chance(3) {
                            let value = value_of(key, thread, i, size(&mut random));
                            match cache.set(&key.to_le_bytes(), &value) {
                                Ok(_) => {}
                                Err(refused) => assert!(refused == Refused::Busy && value.len() > 8_000, "{refused:?}"),
                            }
                        } else if let Some(got) = cache.get(&key.to_le_bytes()) {
                            authentic(key, &got.value);
                        }
                    }
                    cache.leave();
                })
            })
            .collect();
        for thread in living {
            thread.join().unwrap();
        }
        over.store(true, SeqCst);
        dying.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(deaths > 10, "only {deaths} deaths");
    let mut cache = Cache::join(&world);
    cache.check_structure();
    crate::crash::assert_no_leak(&mut cache);
}

/// Many writers overwrite keys that fit easily: their compactions, all at the same time, evict nothing.
#[test]
fn overwriting_together_evicts_nothing() {
    let _watchdog = Watchdog::new("overwriting_together_evicts_nothing", 120);
    let seed = seed("overwriting_together_evicts_nothing");
    for size_mib in [1, 8] {
        let world = World::new(size_mib * MIB);
        // Two fifths of the region, at random, so that compaction always has something to move.
        let keys = size_mib as u64 * 1000;
        let value = |key: u64| vec![key as u8; 200 + (key * 31 % 270) as usize];
        together(&world, seed, |_, mut cache, mut random| {
            for _ in 0..scaled(30_000) {
                let key = random.below(keys);
                cache.set(&key.to_le_bytes(), &value(key)).unwrap();
            }
            cache.leave();
        });
        let mut cache = Cache::join(&world);
        for key in 0..keys {
            cache.set(&key.to_le_bytes(), &value(key)).unwrap();
        }
        let before = cache.count(Counter::Evictions);
        together(&world, seed, |_, mut cache, mut random| {
            for _ in 0..scaled(60_000) {
                let key = random.below(keys);
                cache.set(&key.to_le_bytes(), &value(key)).unwrap();
            }
            cache.leave();
        });
        let lost = (0..keys).filter(|key| cache.peek(&key.to_le_bytes()).is_none()).count();
        let evictions = cache.count(Counter::Evictions) - before;
        eprintln!(
            "{size_mib} MiB: {lost} lost, {evictions} evictions, {} compactions",
            cache.count(Counter::Compactions)
        );
        assert_eq!(lost, 0);
        cache.check();
    }
}
