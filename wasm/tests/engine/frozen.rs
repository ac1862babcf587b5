//! Participants that freeze for a long time before an access to shared memory, and then go on. Their locks are not stolen.
//! Reads never wait, and writers get `Busy` only for the bucket that is held. When the frozen participant wakes up, it
//! damages nothing and brings no old value back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use cache_machine_core::{Audited, Class, Expect, Participant, Phase, Refused};

use crate::harness::*;

fn bucket(cache: &Cache, key: &[u8]) -> u64 {
    OwnedKey::of(key).with(cache.me.seed).hash & (cache.me.region.geometry.buckets as u64 - 1)
}

/// Runs `act` in another thread, freezes it before its `n`th access, runs `meanwhile`, thaws the thread, and waits for its
/// end. False when the thread ended before its `n`th access.
fn freeze(world: &Arc<World>, n: u64, act: fn(&mut Cache), meanwhile: impl FnOnce()) -> bool {
    let ice = Ice::new();
    let over = Arc::new(AtomicBool::new(false));
    let thread = {
        let (world, ice, over) = (world.clone(), ice.clone(), over.clone());
        std::thread::spawn(move || {
            let mut cache = Cache::join(&world);
            ice.at(n);
            act(&mut cache);
            over.store(true, SeqCst);
            cache_machine_core::faults::before_access(None);
            cache.leave();
        })
    };
    let frozen = ice.await_frozen(|| over.load(SeqCst));
    if frozen {
        meanwhile();
    }
    ice.thaw();
    thread.join().unwrap();
    frozen
}

fn furnish(cache: &mut Cache) {
    for round in 0..4 {
        for i in 0..250u32 {
            cache.set(format!("plain {i}").as_bytes(), &[i as u8; 500]).unwrap();
            if i % 3 == 0 {
                cache.get(format!("plain {i}").as_bytes());
                cache.get(format!("plain {i}").as_bytes());
            }
        }
        for i in 0..30 {
            cache.increment(format!("counter {i}").as_bytes(), 1.0, 0.0, &PLAIN).unwrap();
        }
        for i in 0..3 {
            cache.set(format!("large {i}").as_bytes(), &[round; 20_000]).unwrap();
        }
        for i in 0..100u32 {
            cache.set(format!("passing {round} {i}").as_bytes(), &[i as u8; 2000]).unwrap();
        }
    }
}

struct Deed {
    name: &'static str,
    act: fn(&mut Cache),
    /// The keys whose buckets the operation may hold.
    holds: &'static [&'static str],
}

const DEEDS: &[Deed] = &[
    Deed {
        name: "get",
        act: |cache| {
            let got = cache.get(b"plain 3").map(|got| got.value);
            assert!(got.is_none_or(|value| value == [3; 500] || value == b"meanwhile"), "a torn value");
        },
        holds: &[],
    },
    Deed {
        name: "get of a large value",
        act: |cache| {
            let got = cache.get(b"large 1").map(|got| got.value);
            assert!(got.is_none_or(|value| value.len() == 20_000 && value.iter().all(|it| *it == 3)), "a torn value");
        },
        holds: &[],
    },
    Deed { name: "set", act: |cache| drop(cache.set(b"plain 3", b"frozen")), holds: &["plain 3"] },
    Deed { name: "remove", act: |cache| drop(cache.remove(b"plain 3", Expect::Anything)), holds: &["plain 3"] },
    Deed {
        name: "increment",
        act: |cache| drop(cache.increment(b"counter 3", 1.0, 0.0, &PLAIN)),
        holds: &["counter 3"],
    },
    Deed { name: "touch", act: |cache| drop(cache.touch(b"large 1", 1e9)), holds: &["large 1"] },
    Deed { name: "set over a large value", act: |cache| drop(cache.set(b"large 1", b"frozen")), holds: &["large 1"] },
    Deed { name: "large set", act: |cache| drop(cache.set(b"large 1", &[77; 20_000])), holds: &["large 1"] },
    Deed {
        name: "sets that reclaim",
        act: |cache| {
            for i in 0..40u8 {
                let _ = cache.set(&[i], &[i; 1000]);
            }
        },
        holds: &[],
    },
];

#[test]
fn the_frozen_hold_up_only_their_bucket() {
    let _watchdog = Watchdog::new("the_frozen_hold_up_nobody_but_their_bucket", 300);
    let mut random = Random::new(seed("the_frozen_hold_up_nobody_but_their_bucket"));
    let furnished = World::new(MIB);
    {
        let mut cache = Cache::join(&furnished);
        furnish(&mut cache);
        cache.leave();
    }
    for deed in DEEDS {
        let copy = || {
            let world = World::new(MIB);
            world.bytes().copy_from_slice(furnished.bytes());
            world
        };
        let total = accesses_of(&copy(), deed.act);
        let step = (total / scaled(100).max(1)).max(1);
        let mut n = random.below(step);
        let mut frozen = 0;
        loop {
            let world = copy();
            let mut cache = Cache::join(&world);
            world.patience.store(30, SeqCst);
            let mut stored = Vec::new();
            if !freeze(&world, n, deed.act, || stored = go_on(&mut cache, deed)) {
                break;
            }
            frozen += 1;
            // The zombie has finished: the values stored while it slept stay, and every bucket can be changed again.
            cache.check();
            afterwards(&mut cache, deed, &stored);
            n += if step == 1 { 1 } else { 1 + random.below(2 * step - 1) };
        }
        assert!(frozen > 0, "{}: no thread froze", deed.name);
        eprintln!("{}: {total} accesses, frozen {frozen} times", deed.name);
    }
}

fn accesses_of(world: &Arc<World>, act: fn(&mut Cache)) -> u64 {
    let mut cache = Cache::join(world);
    accesses(|| act(&mut cache))
}

/// What another participant does meanwhile. Returns the plain keys that it stored.
fn go_on(cache: &mut Cache, deed: &Deed) -> Vec<u32> {
    let held: Vec<u64> = deed.holds.iter().map(|key| bucket(cache, key.as_bytes())).collect();
    // A participant that reclaims may hold any bucket, but only one.
    let mut busy: HashMap<u64, u32> = HashMap::new();
    let mut stored = Vec::new();
    // New values for all keys: no old one may come back.
    for i in 0..250u32 {
        let key = format!("plain {i}").into_bytes();
        match cache.set(&key, b"meanwhile") {
            Ok(_) => stored.push(i),
            Err(Refused::Busy) => *busy.entry(bucket(cache, &key)).or_default() += 1,
            Err(refused) => panic!("{refused:?}"),
        }
    }
    // Other keys, twice the size of the region.
    for i in 0..2 * MIB / 4000 {
        let key = format!("flood {i}").into_bytes();
        match cache.set(&key, &[i as u8; 4000]) {
            Ok(_) => {}
            Err(Refused::Busy) => *busy.entry(bucket(cache, &key)).or_default() += 1,
            Err(refused) => panic!("{refused:?}"),
        }
    }
    let allowed = if held.is_empty() { 1 } else { 0 };
    let elsewhere: Vec<_> = busy.keys().filter(|bucket| !held.contains(bucket)).collect();
    assert!(elsewhere.len() <= allowed, "{}: busy buckets {busy:?}, of which {held:?} may be", deed.name);
    // Reads do not wait, whatever is held, and their values are whole.
    for i in 0..250 {
        if let Some(got) = cache.get(format!("plain {i}").as_bytes()) {
            let whole = got.value == b"meanwhile" || got.value == [i as u8; 500] || got.value == b"frozen";
            assert!(whole, "{}: plain {i}", deed.name);
        }
    }
    for i in 0..3 {
        if let Some(got) = cache.get(format!("large {i}").as_bytes()) {
            assert!(got.value == b"frozen" || got.value.iter().all(|byte| *byte == got.value[0]));
        }
    }
    stored
}

fn afterwards(cache: &mut Cache, deed: &Deed, stored: &[u32]) {
    for i in stored {
        let key = format!("plain {i}").into_bytes();
        if let Some(got) = cache.peek(&key) {
            // The set of the frozen participant may come late.
            let own = deed.holds.iter().any(|held| held.as_bytes() == key);
            assert!(got.value == b"meanwhile" || own && got.value == b"frozen", "{}: plain {i} is back", deed.name);
        }
    }
    for i in 0..250 {
        cache.set(format!("plain {i}").as_bytes(), b"afterwards").unwrap();
    }
    for i in 0..MIB / 4000 {
        cache.set(format!("flood {i}").as_bytes(), &[i as u8; 4000]).unwrap();
    }
    cache.check();
}

/// Writers freeze in the middle of large values that together are as large as the region. Their chunks are kept as long as
/// there is other room, and no longer.
#[test]
fn the_unfinished_large_values_do_not_fill_the_cache() {
    let world = World::new(MIB);
    let mut cache = Cache::join(&world);
    furnish(&mut cache);
    let chunk = vec![1; cache.me.chunk_bytes() as usize + 8];
    let whole = world.region().geometry.max_value;
    let mut lists = Vec::new();
    let unfinished: Vec<Cache> = (0..12)
        .map(|i| {
            let writer = Cache::join(&world);
            let key = OwnedKey::of(format!("unfinished {i}").as_bytes());
            let version = writer.me.version();
            let mut list = vec![0];
            for number in 0..whole / writer.me.chunk_bytes() {
                let bytes = &chunk[..writer.me.chunk_bytes() as usize];
                let place = writer.me.write_chunk(&key.with(writer.me.seed), version, number, bytes);
                list.push(place.unwrap().0);
                list[0] += bytes.len() as u64;
            }
            lists.push((version, list));
            writer
        })
        .collect();
    for i in 0..2 * MIB / 4000 {
        cache.set(format!("flood {i}").as_bytes(), &[i as u8; 4000]).unwrap();
    }
    // The first chunk may lie anywhere in its segment.
    for i in 0..6 {
        assert!(cache.set(b"large", &vec![3; whole as usize]).is_ok());
        cache.set(format!("between {i}").as_bytes(), &[i; 2000]).unwrap();
    }
    assert!(cache.set(b"large", &vec![3; whole as usize]).is_ok());
    assert_eq!(cache.get(b"large").unwrap().value.len(), whole as usize);
    for (i, mut writer) in unfinished.into_iter().enumerate() {
        // Too late for most writers. A value that is reported as stored is found.
        let (name, list) = (format!("unfinished {i}").into_bytes(), &lists[i]);
        let key = OwnedKey::of(&name);
        let block = Participant::<TestHost>::no_tags();
        let stored =
            writer.me.set_large(&key.with(writer.me.seed), TEXT, list.0, NEVER, 0.0, &block, &list.1, Expect::Anything);
        assert!(stored.is_err() || writer.get(&name).is_some());
        if stored.is_err() {
            writer.me.abandon_chunks(&list.1[1..]);
        }
        writer.leave();
    }
    cache.check();
    for key in cache.keys() {
        assert!(cache.peek(&key).is_some(), "a key without a value");
    }
}

/// A writer that sleeps between reading its lane and appending finds the segment open again, in another life: it appends
/// nothing there.
#[test]
fn a_zombie_does_not_write_into_another_life() {
    let _watchdog = Watchdog::new("a_zombie_does_not_write_into_another_life", 120);
    let open_segment = |cache: &Cache| {
        let open = |each: &Audited| each.phase == Phase::Open && each.class == Class::Small;
        cache.audit().into_iter().find(open).unwrap()
    };
    let mut met = 0;
    for n in 0.. {
        let world = World::new(MIB);
        world.patience.store(30, SeqCst);
        let mut cache = Cache::join(&world);
        furnish(&mut cache);
        let before = open_segment(&cache);
        let mut flood = 0;
        let go_on = || {
            for i in 0..4 * MIB / 2000 {
                // Busy is allowed: the sleeper may hold the bucket of this key.
                flood = i;
                let _ = cache.set(format!("flood {i}").as_bytes(), &[i as u8; 2000]);
                let after = open_segment(&cache);
                if after.segment == before.segment && after.generation != before.generation {
                    met += 1;
                    break;
                }
            }
        };
        if !freeze(&world, n, |cache| drop(cache.set(b"sleeper", &[9; 300])), go_on) {
            break;
        }
        cache.check();
        for i in flood.saturating_sub(20)..=flood {
            let got = cache.get(format!("flood {i}").as_bytes()).map(|got| got.value);
            assert!(got.is_none_or(|value| value == [i as u8; 2000]), "overwritten by a zombie");
        }
        cache.set(b"next", &[8; 300]).unwrap();
        assert!(cache.get(b"sleeper").is_none_or(|got| got.value == [9; 300]));
        assert_eq!(cache.get(b"next").unwrap().value, [8; 300]);
        cache.check();
    }
    assert!(met > 3, "the segment was opened again only {met} times");
}

/// A participant that sleeps with the lock of a large value's bucket does not keep the chunks of its older versions alive.
#[test]
fn dead_chunks_do_not_wait_for_their_lock() {
    let _watchdog = Watchdog::new("dead_chunks_do_not_wait_for_their_lock", 120);
    for n in 0.. {
        let world = World::new(MIB);
        world.patience.store(30, SeqCst);
        let mut cache = Cache::join(&world);
        for i in 0..20 {
            cache.set(b"large", &[i; 60_000]).unwrap();
        }
        let go_on = || {
            for i in 0..2 * MIB / 4000 {
                let key = format!("flood {i}").into_bytes();
                if bucket(&cache, &key) != bucket(&cache, b"large") {
                    cache.set(&key, &[i as u8; 4000]).unwrap();
                }
            }
        };
        if !freeze(&world, n, |cache| drop(cache.touch(b"large", 1e9)), go_on) {
            break;
        }
        cache.check();
    }
}

/// Reads need no lock: in a bucket that a frozen participant holds, they find the entries without waiting.
#[test]
fn reads_go_on_in_a_held_bucket() {
    let _watchdog = Watchdog::new("reads_go_on_in_a_held_bucket", 120);
    let deeds: [fn(&mut Cache); 3] = [
        |cache| drop(cache.set(b"plain", b"new")),
        |cache| drop(cache.increment(b"counter", 1.0, 0.0, &PLAIN)),
        |cache| drop(cache.touch(b"large", 1e9)),
    ];
    for deed in deeds {
        for n in 0.. {
            let world = World::new(MIB);
            let mut cache = Cache::join(&world);
            cache.set(b"plain", b"old").unwrap();
            cache.increment(b"counter", 1.0, 0.0, &PLAIN).unwrap();
            cache.set(b"large", &[1; 20_000]).unwrap();
            let reads = |cache: &mut Cache| {
                assert!(cache.get(b"plain").is_some() && cache.get_near(b"plain").is_some());
                assert!(cache.get(b"counter").is_some() && cache.get_near(b"counter").is_some());
                assert!(cache.get(b"large").is_some_and(|got| got.value == [1; 20_000]));
            };
            let usual = accesses(|| reads(&mut cache));
            // The first pause would fail.
            world.patience.store(0, SeqCst);
            let go_on = || assert!(accesses(|| reads(&mut cache)) <= usual + 16);
            if !freeze(&world, n, deed, go_on) {
                break;
            }
        }
    }
}
