//! Participants that die before an access to shared memory: any access, of any operation. The survivor finds a valid
//! structure, each key with its old or its new value or none, and no lock that stays, and gets all segments back.

use std::collections::HashMap;
use std::sync::Arc;

use cache_machine_core::{Expect, NUMBER, Phase};

use crate::harness::*;

type Shadow = HashMap<Vec<u8>, Vec<u8>>;
/// Keys, and the values that they hold.
type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A region in use: only the reserve of segments is free, and the next lane that is full makes its writer reclaim. The region
/// holds plain records, counters, large values, heat, dead records and ghosts.
struct Furnished {
    bytes: Vec<u8>,
    shadow: Shadow,
}

fn text(random: &mut Random, bytes: u64) -> Vec<u8> {
    (0..bytes).map(|_| random.next() as u8).collect()
}

impl Furnished {
    fn new(random: &mut Random) -> Furnished {
        let world = World::new(MIB);
        let mut cache = Cache::join(&world);
        let mut shadow = Shadow::new();
        for round in 0..6 {
            for i in 0..300 {
                let (key, value) = (format!("plain {i}").into_bytes(), text(random, 50 + i * 2));
                if round == 0 || random.chance(3) {
                    cache.set(&key, &value).unwrap();
                    shadow.insert(key.clone(), value);
                }
                if i % 4 == 0 || i == 7 {
                    cache.get(&key);
                    cache.get(&key);
                }
            }
            for i in 0..20 {
                let key = format!("counter {i}").into_bytes();
                let sum = cache.increment(&key, 1.0, 0.0, &PLAIN).unwrap();
                shadow.insert(key, sum.to_le_bytes().to_vec());
            }
            for i in 0..4 {
                let (key, value) = (format!("large {i}").into_bytes(), text(random, 20_000 + i));
                cache.set(&key, &value).unwrap();
                shadow.insert(key, value);
            }
            for i in 0..100 {
                let (key, value) = (format!("passing {round} {i}").into_bytes(), text(random, 1000));
                cache.set(&key, &value).unwrap();
                shadow.insert(key, value);
            }
            cache.set_number(b"number", 41.0).unwrap();
            shadow.insert(b"number".to_vec(), 41f64.to_le_bytes().to_vec());
        }
        shadow.retain(|key, value| cache.peek(key).is_some_and(|got| got.value == *value));
        for key in ["plain 7", "plain 8", "counter 3", "large 1", "number"] {
            assert!(shadow.contains_key(key.as_bytes()), "{key} did not survive the furnishing");
        }
        cache.check();
        cache.leave();
        Furnished { bytes: world.bytes().to_vec(), shadow }
    }

    fn world(&self) -> Arc<World> {
        let world = World::new(MIB);
        world.bytes().copy_from_slice(&self.bytes);
        world
    }
}

/// An operation, and what it does to the keys it names: afterwards each may have the old or the new value, or none.
struct Deed {
    name: &'static str,
    act: fn(&mut Cache),
    changes: fn() -> Changes,
    /// Whether the operation reclaims, so that other keys may be evicted.
    reclaims: bool,
}

fn big(byte: u8) -> Vec<u8> {
    (0..20_000u32).map(|i| (i % 251) as u8 ^ byte).collect()
}

fn one(key: &str, value: Option<&[u8]>) -> Changes {
    vec![(key.as_bytes().to_vec(), value.map(<[u8]>::to_vec))]
}

fn number(value: f64) -> [u8; 8] {
    value.to_le_bytes()
}

const DEEDS: &[Deed] = &[
    Deed {
        name: "set of a new key",
        act: |cache| drop(cache.set(b"new", b"value")),
        changes: || one("new", Some(b"value")),
        reclaims: false,
    },
    Deed {
        name: "set over a value",
        act: |cache| drop(cache.set(b"plain 7", b"value")),
        changes: || one("plain 7", Some(b"value")),
        reclaims: false,
    },
    Deed {
        name: "set over a counter",
        act: |cache| drop(cache.set(b"counter 3", b"value")),
        changes: || one("counter 3", Some(b"value")),
        reclaims: false,
    },
    Deed {
        name: "set over a large value",
        act: |cache| drop(cache.set(b"large 1", b"value")),
        changes: || one("large 1", Some(b"value")),
        reclaims: false,
    },
    Deed {
        name: "refused set",
        act: |cache| drop(cache.store(b"counter 3", b"value", &With { expect: Expect::Version(2), ..PLAIN })),
        changes: Vec::new,
        reclaims: false,
    },
    Deed {
        name: "remove",
        act: |cache| drop(cache.remove(b"plain 7", Expect::Anything)),
        changes: || one("plain 7", None),
        reclaims: false,
    },
    Deed {
        name: "remove of a large value",
        act: |cache| drop(cache.remove(b"large 1", Expect::Anything)),
        changes: || one("large 1", None),
        reclaims: false,
    },
    Deed {
        name: "increment of a new key",
        act: |cache| drop(cache.increment(b"new", 1.0, 4.0, &PLAIN)),
        changes: || one("new", Some(&number(5.0))),
        reclaims: false,
    },
    Deed {
        name: "increment of a counter",
        act: |cache| drop(cache.increment(b"counter 3", 1.0, 0.0, &PLAIN)),
        changes: || one("counter 3", Some(&number(7.0))),
        reclaims: false,
    },
    Deed {
        name: "increment of a number",
        act: |cache| drop(cache.increment(b"number", 1.0, 0.0, &PLAIN)),
        changes: || one("number", Some(&number(42.0))),
        reclaims: false,
    },
    Deed {
        name: "touch of a value",
        act: |cache| drop(cache.touch(b"plain 7", 1e9)),
        changes: Vec::new,
        reclaims: false,
    },
    Deed {
        name: "touch of a counter",
        act: |cache| drop(cache.touch(b"counter 3", 1e9)),
        changes: Vec::new,
        reclaims: false,
    },
    Deed {
        name: "touch of a large value",
        act: |cache| drop(cache.touch(b"large 1", 1e9)),
        changes: Vec::new,
        reclaims: false,
    },
    Deed { name: "get", act: |cache| drop(cache.get(b"plain 8")), changes: Vec::new, reclaims: false },
    Deed { name: "clear", act: |cache| cache.me.clear(), changes: Vec::new, reclaims: true },
    Deed {
        name: "leaving and coming back",
        act: |cache| {
            cache.me.detach();
            cache.me.recover();
            cache.me.participants();
        },
        changes: Vec::new,
        reclaims: false,
    },
    Deed {
        name: "large set of a new key",
        act: |cache| drop(cache.set(b"new", &big(1))),
        changes: || one("new", Some(&big(1))),
        reclaims: true,
    },
    Deed {
        name: "large set over a large value",
        act: |cache| drop(cache.set(b"large 1", &big(2))),
        changes: || one("large 1", Some(&big(2))),
        reclaims: true,
    },
    Deed {
        name: "sets that reclaim",
        act: |cache| {
            for i in 0..40u8 {
                let _ = cache.set(&[i], &[i; 1000]);
            }
        },
        changes: || (0..40u8).map(|i| (vec![i], Some(vec![i; 1000]))).collect(),
        reclaims: true,
    },
];

/// Writes `times` the region's size in other keys. Every write has to be accepted.
fn flood(cache: &mut Cache, times: u32, name: u64) {
    for i in 0..times * MIB / 4000 {
        cache.set(format!("flood {name} {i}").as_bytes(), &[i as u8; 4000]).unwrap();
    }
}

/// Checks that no segment is lost: after a `clear` and many writes all segments have begun a new life, except for those that
/// were open in a lane, and so were sealed late or never.
pub fn assert_no_leak(cache: &mut Cache) {
    let before = cache.audit();
    cache.me.clear();
    flood(cache, 3, 0);
    let after = cache.audit();
    for (before, after) in before.iter().zip(&after) {
        let recycled = before.generation != after.generation || matches!(before.phase, Phase::Free | Phase::Open);
        assert!(recycled, "a segment leaked: {before:?} is now {after:?}");
        assert!(after.phase != Phase::Reclaim, "{after:?}");
    }
    assert!(after.iter().filter(|each| each.phase == Phase::Open).count() <= 2, "more open segments than lanes");
    cache.check_structure();
}

/// Checks that the keys of `changes` have their old or their new values, and all other keys their values. Returns how many of
/// the other keys are missing.
fn assert_authentic(cache: &mut Cache, shadow: &Shadow, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> usize {
    let mut missing = 0;
    for (key, value) in shadow {
        let change = changes.iter().find(|(changed, _)| changed == key);
        match (cache.peek(key), change) {
            (Some(got), None) => assert!(got.value == *value, "{} was changed", String::from_utf8_lossy(key)),
            (Some(got), Some((_, new))) => {
                assert!(got.value == *value || Some(got.value) == *new, "neither the old nor the new value")
            }
            (None, Some((_, None))) => {}
            (None, _) => missing += 1,
        }
    }
    for (key, new) in changes.iter().filter(|(key, _)| !shadow.contains_key(key)) {
        assert!(cache.peek(key).is_none_or(|got| Some(got.value) == *new), "neither nothing nor the new value");
    }
    missing
}

/// Lets a participant die before its `n`th access, and checks what the survivor finds. False when there is no `n`th access.
fn die_and_survive(furnished: &Furnished, deed: &Deed, n: u64) -> bool {
    let world = furnished.world();
    let mut survivor = Cache::join(&world);
    let mut victim = Cache::join(&world);
    let died = dies_at(n, || (deed.act)(&mut victim));
    victim.die();
    survivor.check_structure();
    let changes = (deed.changes)();
    let missing = assert_authentic(&mut survivor, &furnished.shadow, &changes);
    assert!(deed.reclaims || missing == 0, "{missing} other keys are gone");
    // Nobody waits for what the dead one held: the first pause would fail.
    world.patience.store(0, std::sync::atomic::Ordering::SeqCst);
    for (key, _) in &changes {
        survivor.set(key, b"after").unwrap();
        assert_eq!(survivor.get(key).unwrap().value, b"after");
    }
    survivor.touch(b"large 1", 1e10).unwrap();
    survivor.store(b"counter 3", &number(1.0), &With { value_type: NUMBER, ..PLAIN }).unwrap();
    assert_eq!(survivor.increment(b"counter 3", 2.0, 0.0, &PLAIN), Ok(3.0));
    flood(&mut survivor, 1, 1);
    survivor.check_structure();
    assert_authentic(&mut survivor, &HashMap::new(), &[]);
    for key in survivor.keys() {
        survivor.peek(&key);
    }
    assert_no_leak(&mut survivor);
    died
}

#[test]
fn any_access_can_be_the_last() {
    let _watchdog = Watchdog::new("any_access_can_be_the_last", 300);
    let mut random = Random::new(seed("any_access_can_be_the_last"));
    let furnished = Furnished::new(&mut random);
    for deed in DEEDS {
        let mut cache = Cache::join(&furnished.world());
        let total = accesses(|| (deed.act)(&mut cache));
        // All accesses; of the long operations, which copy much, a sample.
        let step = (total / scaled(150).max(1)).max(1);
        let mut n = random.below(step);
        let mut deaths = 0;
        while die_and_survive(&furnished, deed, n) {
            deaths += 1;
            n += if step == 1 { 1 } else { 1 + random.below(2 * step - 1) };
        }
        assert!(deaths > 0, "{}: nobody died", deed.name);
        eprintln!("{}: {total} accesses, {deaths} deaths", deed.name);
    }
}

/// Many deaths, also of participants that clean up after the dead. The possible values of each key are followed exactly: a
/// death leaves the old or the new value, and the one that is seen first stays.
#[test]
fn deaths_do_not_add_up() {
    let _watchdog = Watchdog::new("deaths_do_not_add_up", 120);
    let mut random = Random::new(seed("deaths_do_not_add_up"));
    let world = World::new(MIB);
    let mut survivor = Cache::join(&world);
    world.patience.store(0, std::sync::atomic::Ordering::SeqCst);
    // The values that each key may hold. Holding none is always allowed.
    let mut may: HashMap<u64, Vec<Vec<u8>>> = HashMap::new();
    let (mut deaths, mut stamp) = (0, 0u64);
    for round in 0..scaled(15_000) {
        let mut victim = Cache::join(&world);
        let (first, count) = (random.below(600), 1 + random.below(12));
        // Each operation of a round is known to have happened, not to have happened, or to have been cut short by the death.
        let doing = std::cell::Cell::new(None);
        let bits = random.below(14);
        let limit = if random.chance(8) { u64::MAX } else { random.below(1 << bits) };
        let died = dies_at(limit, || {
            for key in first..first + count {
                let name = key.to_le_bytes();
                stamp += 1;
                let size = match random.below(40) {
                    0 => 8_000 + random.below(20_000),
                    1..8 => random.below(5_000),
                    _ => random.below(400),
                };
                match random.below(10) {
                    0 => {
                        doing.set(Some((key, None)));
                        victim.remove(&name, Expect::Anything).unwrap();
                        may.insert(key, vec![]);
                    }
                    1 => {
                        let _ = victim.touch(&name, NEVER);
                    }
                    2 => {
                        let counter = 1_000 + key % 50;
                        let values = may.entry(counter).or_default();
                        doing.set(Some((counter, Some(stamp))));
                        let sum = victim.increment(&counter.to_le_bytes(), 1.0, stamp as f64 * 1e6, &PLAIN).unwrap();
                        *values = vec![number(sum).to_vec()];
                    }
                    3 => drop(victim.get(&name)),
                    _ => {
                        let value: Vec<u8> = (0..size).map(|i| (stamp + i) as u8).chain(stamp.to_le_bytes()).collect();
                        may.entry(key).or_default().push(value.clone());
                        doing.set(Some((key, Some(0))));
                        victim.set(&name, &value).unwrap();
                        may.insert(key, vec![value]);
                    }
                }
                doing.set(None);
            }
        });
        if died {
            deaths += 1;
            victim.die();
        } else {
            victim.leave();
        }
        if let Some((counter, Some(stamp))) = doing.get().filter(|(key, _)| *key >= 1_000) {
            // Incremented, started anew, or unchanged.
            let values = may.entry(counter).or_default();
            let more: Vec<_> = values.iter().map(|it| f64::from_le_bytes(it[..].try_into().unwrap()) + 1.0).collect();
            values.extend(more.into_iter().chain([stamp as f64 * 1e6 + 1.0]).map(|it| number(it).to_vec()));
        }
        if round % 8 == 0 {
            survivor.check_structure();
            for (key, values) in &mut may {
                match survivor.peek(&key.to_le_bytes()) {
                    None => values.clear(),
                    Some(got) => {
                        assert!(values.contains(&got.value), "key {key} holds what it cannot hold");
                        values.retain(|value| *value == got.value);
                    }
                }
            }
        }
    }
    assert!(deaths > 0);
    eprintln!("{deaths} deaths");
    assert_no_leak(&mut survivor);
}

/// A record that a dead writer left unfinished can read as a chunk of version zero. A seat whose participant writes no large
/// value has version zero too. Such a chunk is not kept.
#[test]
fn an_unfinished_chunk_is_nobodys() {
    let mut cache = Cache::join(&World::new(MIB));
    let key = OwnedKey::of(b"key");
    for number in 0..20 {
        cache.me.write_chunk(&key.with(cache.me.seed), 0, number, &[0; 8]).unwrap();
        flood(&mut cache, 1, number as u64);
    }
    assert_no_leak(&mut cache);
}
