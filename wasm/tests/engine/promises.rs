//! Promises of the documentation: what is kept, what is refused, and how many bytes an entry costs.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use cache_machine_core::{
    Addition, Class, Counter, Draft, Expect, FIXED, GCRA, GROUP, Geometry, Key, LAYOUT_VERSION, LIMIT, MAX_BLOCK,
    MAX_KEY, MODEL_SIZE, Mismatch, Participant, Phase, Refused, Rule, SLIDING, Verdict, WANT_VALUE, faults, inspect,
    prefetch,
};

use crate::harness::*;

fn name(prefix: &str, i: u64) -> Vec<u8> {
    format!("{prefix}:{i:012}").into_bytes()
}

fn overwrite_one_among(cache: &mut Cache, others: u64, times: u64) {
    for i in 0..others {
        cache.set(&name("other", i), &[i as u8; 100]).unwrap();
    }
    for i in 0..times {
        cache.set(b"the one", &i.to_le_bytes().repeat(12)).unwrap();
    }
    let lost = (0..others).filter(|i| cache.peek(&name("other", *i)).is_none_or(|got| got.value != [*i as u8; 100]));
    assert_eq!(lost.count(), 0, "overwriting one key evicted others");
    assert_eq!(cache.get(b"the one").unwrap().value, (times - 1).to_le_bytes().repeat(12));
    assert_eq!(cache.count(Counter::Evictions), 0);
    cache.check();
}

#[test]
fn overwriting_one_key_evicts_no_other() {
    let _watchdog = Watchdog::new("overwriting_one_key_evicts_no_other", 120);
    overwrite_one_among(&mut Cache::join(&World::new(8 * MIB)), 10_000, 1_000_000);
}

/// The full promise, run by hand: `cargo test --features faults -- --ignored --nocapture ten_million`.
#[test]
#[ignore = "ten times the work of the test above"]
fn ten_million_overwrites_evict_no_other() {
    let start = std::time::Instant::now();
    overwrite_one_among(&mut Cache::join(&World::new(64 * MIB)), 10_000, 10_000_000);
    eprintln!("10,000,000 overwrites in {:?}", start.elapsed());
}

#[test]
fn a_million_keys_pass_through() {
    let _watchdog = Watchdog::new("a_million_keys_pass_through", 120);
    let mut cache = Cache::join(&World::new(64 * MIB));
    for i in 0..1_000_000 {
        cache.set(&name("key", i), &[i as u8; 64]).unwrap();
    }
    // The last tenth is still there.
    let there = (900_000..1_000_000).filter(|i| cache.peek(&name("key", *i)).is_some()).count();
    assert!(there > 99_000, "{there} of the last 100,000");
    cache.check();
}

/// The hit ratio of a trace in which misses are set, and the hit ratio of a FIFO queue with as many bytes.
fn hits(cache: &mut Cache, trace: impl Iterator<Item = u64>, bytes: usize, capacity: usize) -> (f64, f64) {
    let (mut hits, mut fifo_hits, mut length) = (0, 0, 0);
    let (mut fifo, mut held) = (VecDeque::new(), HashSet::new());
    for key in trace {
        length += 1;
        match cache.get(&name("key", key)) {
            Some(_) => hits += 1,
            None => drop(cache.set(&name("key", key), &vec![7; bytes]).unwrap()),
        }
        if held.contains(&key) {
            fifo_hits += 1;
        } else {
            held.insert(key);
            fifo.push_back(key);
            if fifo.len() > capacity {
                held.remove(&fifo.pop_front().unwrap());
            }
        }
    }
    (hits as f64 / length as f64, fifo_hits as f64 / length as f64)
}

/// How many entries of a size fit into the segments of an empty region.
fn capacity(cache: &Cache, bytes: usize) -> usize {
    let geometry = cache.me.region.geometry;
    let record = (32 + 16 + bytes).next_multiple_of(16);
    (geometry.segment_bytes() as usize / record) * (geometry.segments - geometry.reserve) as usize
}

#[test]
fn a_scan_does_not_wash_the_hot_out() {
    let _watchdog = Watchdog::new("a_scan_does_not_wash_the_hot_out", 60);
    let mut cache = Cache::join(&World::new(4 * MIB));
    let room = capacity(&cache, 200);
    let hot = room as u64 / 3;
    let mut random = Random::new(seed("a_scan_does_not_wash_the_hot_out"));
    // Two of three accesses scan keys that are never read again.
    let trace: Vec<u64> = (0..300_000).map(|i| if i % 3 == 0 { random.below(hot) } else { 1_000_000 + i }).collect();
    let (ours, fifo) = hits(&mut cache, trace.into_iter(), 200, room);
    eprintln!("scan: {ours:.3} against {fifo:.3} of a FIFO");
    // A third of the accesses, without the first of each key: at best 0.319.
    assert!(ours > 0.29, "the hot third has to stay: {ours}");
    assert!(ours > fifo + 0.05);
    cache.check();
}

#[test]
fn a_skewed_load_hits_more_than_a_fifo() {
    let _watchdog = Watchdog::new("a_skewed_load_hits_more_than_a_fifo", 60);
    for part in [100, 30] {
        let mut cache = Cache::join(&World::new(2 * MIB));
        let room = capacity(&cache, 200);
        let keys = (room * part / 10) as f64;
        let mut random = Random::new(seed("a_skewed_load_hits_more_than_a_fifo"));
        // Approximately Zipf with exponent one.
        let trace: Vec<u64> = (0..400_000).map(|_| keys.powf(random.fraction()) as u64).collect();
        let (ours, fifo) = hits(&mut cache, trace.into_iter(), 200, room);
        let saved = 1.0 - (1.0 - ours) / (1.0 - fifo);
        eprintln!("zipf over {keys} keys in {room}: {ours:.4} against {fifo:.4}: {:.1} % of the misses", saved * 100.0);
        assert!(saved > 0.05, "{ours} against {fifo}");
    }
}

#[test]
fn every_size_comes_back() {
    let _watchdog = Watchdog::new("every_size_comes_back", 60);
    for size in [MIB, 64 * MIB] {
        let mut cache = Cache::join(&World::new(size));
        let geometry = cache.me.region.geometry;
        let mut random = Random::new(1);
        let edges = [geometry.max_record, cache.me.chunk_bytes(), 2 * cache.me.chunk_bytes(), geometry.max_value];
        let step = if size == MIB { 1 } else { 9 };
        let around = edges.into_iter().flat_map(|edge| (edge - 80..=edge + 20).step_by(step));
        // Twice, so that the second time the region is full.
        for bytes in (0..300).chain(around.clone()).chain(around).filter(|bytes| *bytes <= geometry.max_value) {
            let value: Vec<u8> = (0..bytes).map(|_| random.next() as u8).collect();
            cache.set(b"key", &value).unwrap();
            assert!(cache.get(b"key").unwrap().value == value, "{bytes} bytes in {size}");
        }
        cache.check();
    }
}

/// The largest values are stored while the region is full of entries that are hotter.
#[test]
fn the_largest_value_finds_room() {
    let _watchdog = Watchdog::new("the_largest_value_finds_room", 60);
    for size in [MIB, 16 * MIB] {
        let mut cache = Cache::join(&World::new(size));
        let keys = capacity(&cache, 500) as u64;
        for _ in 0..2 {
            for i in 0..keys {
                if cache.get(&name("key", i)).is_none() {
                    cache.set(&name("key", i), &[1; 500]).unwrap();
                }
                cache.get(&name("key", i));
                cache.get(&name("key", i / 2));
            }
        }
        let value = vec![9; cache.me.region.geometry.max_value as usize];
        for i in 0..20 {
            cache.set(&name("large", i % 3), &value).unwrap();
            assert!(cache.get(&name("large", i % 3)).unwrap().value == value);
            for i in 0..keys / 8 {
                cache.set(&name("other", i), &[2; 500]).unwrap();
                cache.get(&name("key", i));
            }
        }
        cache.check();
    }
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut cache = Cache::join(&World::new(MIB));
    let geometry = cache.me.region.geometry;
    let too_large = vec![1; geometry.max_value as usize + 1];
    let long_key = vec![b'k'; MAX_KEY as usize];
    let tags: Vec<String> = (0..17).map(|i| format!("{i:0256}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    for key in [&b"key"[..], &long_key] {
        cache.set(key, b"old").unwrap();
        assert_eq!(cache.set(key, &too_large), Err(Refused::TooLarge));
        assert_eq!(cache.get(key).unwrap().value, b"old");
        for expect in [Expect::Absent, Expect::Version(1 << 40)] {
            assert_eq!(cache.store(key, b"new", &With { expect, ..PLAIN }), Err(Refused::Unexpected));
            assert_eq!(cache.get(key).unwrap().value, b"old");
        }
        assert_eq!(cache.increment(key, 1.0, 0.0, &PLAIN), Err(Refused::NotANumber));
        assert_eq!(cache.get(key).unwrap().value, b"old");
    }
    // A record cannot be longer than half a segment of such a small region, and tags and keys are not split.
    let with = With { tags: &tags, ..PLAIN };
    assert_eq!(cache.store(&long_key, b"new", &with), Err(Refused::TooLarge));
    assert_eq!(cache.store(&long_key, &[0; 100_000], &with), Err(Refused::TooLarge));
    assert_eq!(cache.increment(b"counter", 1.0, 0.0, &with), Ok(1.0));
    assert_eq!(cache.increment(&[b'c'; MAX_KEY as usize], 1.0, 0.0, &with), Err(Refused::TooLarge));
    assert_eq!(cache.get(&long_key).unwrap().value, b"old");
    // With the same tags a shorter key fits.
    cache.store(b"key", b"new", &with).unwrap();
    cache.invalidate(&tags[16..]);
    assert_eq!(cache.get(b"key"), None);
    cache.check();
}

/// A counter whose writer died in an increment has an odd version: compare-and-set can still succeed afterwards.
#[test]
fn a_counter_left_odd_is_settled() {
    let world = World::new(MIB);
    let mut cache = Cache::join(&world);
    cache.increment(b"counter", 1.0, 0.0, &PLAIN).unwrap();
    for n in 0.. {
        let before = cache.get(b"counter").unwrap();
        let mut victim = Cache::join(&world);
        let died = dies_at(n, || victim.increment(b"counter", 1.0, 0.0, &PLAIN));
        victim.die();
        if !died {
            break;
        }
        // The version that was read before is still valid only if the number is unchanged.
        let with = With { value_type: cache_machine_core::NUMBER, expect: Expect::Version(before.version), ..PLAIN };
        let number = cache.get(b"counter").unwrap().number();
        if cache.store(b"counter", &number.to_le_bytes(), &with).is_ok() {
            assert_eq!(number, before.number());
        }
        let mut tries = 0;
        loop {
            let seen = cache.get(b"counter").unwrap();
            let with = With { value_type: cache_machine_core::NUMBER, expect: Expect::Version(seen.version), ..PLAIN };
            match cache.store(b"counter", &seen.number().to_le_bytes(), &with) {
                Ok(_) => break,
                Err(refused) => assert_eq!(refused, Refused::Unexpected),
            }
            tries += 1;
            assert!(tries < 3, "compare-and-set never succeeds");
        }
        cache.increment(b"counter", 1.0, 0.0, &PLAIN).unwrap();
    }
    cache.check_structure();
}

#[test]
fn the_price_of_an_entry() {
    let _watchdog = Watchdog::new("the_price_of_an_entry", 60);
    // Sizes vary a little, so that rounding to sixteen bytes costs the average.
    for (bytes, most) in [(8, 64.0), (32, 64.0), (100, 72.0), (300, 113.0), (1000, 255.0)] {
        let mut cache = Cache::join(&World::new(32 * MIB));
        for i in 0..32 * MIB as u64 / (bytes + 20) {
            cache.set(&name("key", i), &vec![1; (bytes + i * 7 % 16 - 8) as usize]).unwrap();
        }
        let kept = cache.me.census().entries as f64;
        // The whole region, with its index, tables and reserve, divided by the entries that it keeps. The index is an eighth
        // of the region, however few entries there are.
        let overhead = 32.0 * MIB as f64 / kept - (16 + bytes) as f64;
        eprintln!("{bytes} B values: {overhead:.1} B overhead with {kept} entries");
        assert!(overhead < most, "{overhead} bytes for an entry of {bytes} bytes");
    }
    let mut cache = Cache::join(&World::new(MIB));
    cache.set(&[b'k'; 16], &[0; 64]).unwrap();
    assert_eq!(
        cache.audit().iter().map(|each| each.accounted).sum::<i64>(),
        32 + 16 + 64,
        "bytes of one entry in the log"
    );
}

/// After a `clear` all the room is available at once.
#[test]
fn after_a_clear_everything_is_free() {
    let mut cache = Cache::join(&World::new(4 * MIB));
    let keys = capacity(&cache, 500) as u64;
    for round in 0..3 {
        for i in 0..keys * 7 / 10 {
            if cache.get(&name("key", i)).is_none() {
                cache.set(&name("key", i), &[1; 500]).unwrap();
            }
            cache.get(&name("key", i));
        }
        let lost = (0..keys * 7 / 10).filter(|i| cache.get(&name("key", *i)).is_none()).count();
        assert_eq!(lost, 0, "in round {round}");
        // Makes the policy move entries to main.
        for i in 0..keys {
            cache.set(&name("scan", i), &[1; 500]).unwrap();
        }
        let main = cache.audit().iter().filter(|each| each.class == Class::Main && each.phase == Phase::Sealed).count();
        assert!(main > 0);
        cache.me.clear();
        assert_eq!(cache.me.census().entries, 0);
    }
    cache.check();
}

/// Cleared entries make room before any entry that was stored since, even one that was never read.
#[test]
fn after_a_clear_the_cold_have_room() {
    let mut cache = Cache::join(&World::new(4 * MIB));
    let keys = capacity(&cache, 500) as u64;
    for i in 0..keys * 7 / 10 {
        cache.set(&name("key", i), &[1; 500]).unwrap();
        (0..3).for_each(|_| drop(cache.get(&name("key", i))));
    }
    // Moves the entries to main.
    for i in 0..keys {
        cache.set(&name("scan", i), &[1; 500]).unwrap();
    }
    cache.me.clear();
    for i in 0..keys * 7 / 10 {
        cache.set(&name("new", i), &[1; 500]).unwrap();
    }
    let lost = (0..keys * 7 / 10).filter(|i| cache.peek(&name("new", *i)).is_none()).count();
    assert_eq!(lost, 0);
    cache.check();
}

/// An entry that was read twice survives a scan, without being set again.
#[test]
fn what_was_read_twice_outlives_a_scan() {
    let mut cache = Cache::join(&World::new(4 * MIB));
    let keys = capacity(&cache, 500) as u64;
    for i in 0..keys / 10 {
        cache.set(&name("key", i), &[1; 500]).unwrap();
        (0..3).for_each(|_| drop(cache.get(&name("key", i))));
    }
    for i in 0..keys * 2 {
        cache.set(&name("scan", i), &[1; 500]).unwrap();
    }
    let lost = (0..keys / 10).filter(|i| cache.peek(&name("key", *i)).is_none()).count();
    assert_eq!(lost, 0);
    cache.check();
}

/// In a bucket full of hot entries that are invalid, new entries replace these first.
#[test]
fn the_invalid_are_replaced_first() {
    let mut cache = Cache::join(&World::new(MIB));
    let geometry = cache.me.region.geometry;
    let seed = cache.me.seed;
    let bucket = |key: &[u8]| OwnedKey::of(key).with(seed).hash & (geometry.buckets as u64 - 1);
    let same: Vec<Vec<u8>> = (0..).map(|i| name("key", i)).filter(|key| bucket(key) == 5).take(30).collect();
    for key in &same[..15] {
        cache.store(key, b"old", &With { tags: &["tag"], ..PLAIN }).unwrap();
        for _ in 0..4 {
            cache.get(key);
        }
    }
    cache.invalidate(&["tag"]);
    for key in &same[15..] {
        cache.set(key, b"new").unwrap();
    }
    let there = same[15..].iter().filter(|key| cache.get(key).is_some()).count();
    assert_eq!(there, 15);
    assert_eq!(cache.count(Counter::Evictions), 0);
    cache.check();
}

/// A full bucket gives the place of an entry whose grace is over to a new entry, rather than that of a stale or a fresh one.
#[test]
fn the_stale_are_not_replaced_first() {
    let world = World::new(MIB);
    let mut cache = Cache::join(&world);
    let geometry = cache.me.region.geometry;
    let seed = cache.me.seed;
    let bucket = |key: &[u8]| OwnedKey::of(key).with(seed).hash & (geometry.buckets as u64 - 1);
    let same: Vec<Vec<u8>> = (0..).map(|i| name("key", i)).filter(|key| bucket(key) == 5).take(16).collect();
    for (i, key) in same[..15].iter().enumerate() {
        let grace = if i == 7 { 10.0 } else { 100.0 };
        cache.store(key, b"old", &With { expiry: 50.0, grace, ..PLAIN }).unwrap();
        (0..if i == 7 { 4 } else { 1 }).for_each(|_| drop(cache.get(key)));
    }
    world.set_clock(60.0);
    cache.set(&same[15], b"new").unwrap();
    let there: Vec<bool> = same.iter().map(|key| cache.get_stale(key).is_some()).collect();
    assert_eq!(there, (0..16).map(|i| i != 7).collect::<Vec<_>>());
    assert_eq!(cache.count(Counter::Evictions), 0);
    // From here on there is nothing worthless: the coldest goes, and a stale one counts as evicted.
    let sixteenth = (1000..).map(|i| name("key", i)).find(|key| bucket(key) == 5 && !same.contains(key)).unwrap();
    (0..4).for_each(|_| drop(cache.get(&same[15])));
    cache.set(&sixteenth, b"new").unwrap();
    assert_eq!(same.iter().filter(|key| cache.get_stale(key).is_some()).count(), 14);
    assert_eq!(cache.count(Counter::Evictions), 1);
    cache.check();
}

/// A region in which every entry is hot still takes new entries, in a bounded number of accesses.
#[test]
fn full_of_hot_entries_still_takes_more() {
    let mut cache = Cache::join(&World::new(MIB));
    let keys = capacity(&cache, 500) as u64;
    let heat = |cache: &mut Cache| {
        for i in 0..keys {
            for _ in 0..4 {
                cache.get(&name("key", i));
            }
        }
    };
    for _ in 0..3 {
        for i in 0..keys {
            cache.set(&name("key", i), &[1; 500]).unwrap();
        }
        heat(&mut cache);
    }
    let mut most = 0;
    for i in 0..keys / 4 {
        heat(&mut cache);
        let accesses = accesses(|| cache.set(&name("new", i), &[1; 500]).unwrap());
        most = most.max(accesses);
    }
    eprintln!("at most {most} accesses for one set");
    // One append reclaims at most twenty segments of 16 KiB: 2 × 8 + 1 and the reserve of three.
    assert!(most < 100_000, "{most} accesses for one set");
    cache.check();
}

/// Reclaiming goes in steps: hardly any single write reclaims a whole segment, which has six hundred records here.
#[test]
fn writes_share_the_work_of_making_room() {
    let mut cache = Cache::join(&World::new(4 * MIB));
    let keys = capacity(&cache, 96) as u64;
    let mut random = Random::new(seed("writes_share_the_work_of_making_room"));
    let mut n = 0;
    let new = |_: &mut Random, n: u64| n;
    let old = |random: &mut Random, _: u64| random.below(keys * 2 / 5);
    for (what, next) in [("new", &new as &dyn Fn(&mut Random, u64) -> u64), ("old", &old)] {
        let (mut most, mut long) = (0, 0);
        for _ in 0..4 * keys {
            n += 1;
            let key = name(what, next(&mut random, n));
            let accesses = accesses(|| cache.set(&key, &[1; 30]).unwrap());
            if cache.count(Counter::Reclaims) > 60 {
                most = most.max(accesses);
                long += (accesses > 1000) as u64;
            }
        }
        eprintln!("{what}: at most {most} accesses for one set, {long} of {} with more than 1000", 4 * keys);
        assert!(long * 1000 < 4 * keys, "{long} sets took more than 1000 accesses");
    }
    cache.check();
}

/// A segment that one participant began to compact is finished by the next writer, and nothing that fits is evicted: neither
/// when the participant stops there for ever, nor when it dies there.
#[test]
fn what_one_began_others_finish() {
    let world = World::new(4 * MIB);
    let mut caches: Vec<Cache> = (0..3).map(|_| Cache::join(&world)).collect();
    let keys = capacity(&caches[0], 96) as u64 * 2 / 5;
    let mut random = Random::new(seed("what_one_began_others_finish"));
    let mut values = vec![0u64; keys as usize];
    let mut idle = Vec::new();
    for round in 0..scaled(300) {
        let at = random.below(caches.len() as u64) as usize;
        for i in 0..200 {
            let key = if round < 60 { (round * 200 + i) % keys } else { random.below(keys) };
            let value = round * 1000 + i;
            caches[at].set(&name("key", key), &value.to_le_bytes().repeat(4)).unwrap();
            values[key as usize] = value;
        }
        match random.below(12) {
            0 if idle.len() < 20 => idle.push(std::mem::replace(&mut caches[at], Cache::join(&world))),
            1 => {
                let key = random.below(keys);
                let died = dies_at(random.below(400), || drop(caches[at].set(&name("key", key), &[0; 32])));
                if died {
                    std::mem::replace(&mut caches[at], Cache::join(&world)).die();
                }
                // Overwritten at once, because nobody knows whether it was stored.
                let value = round * 1000 + 999;
                caches[at].set(&name("key", key), &value.to_le_bytes().repeat(4)).unwrap();
                values[key as usize] = value;
            }
            _ => {}
        }
    }
    assert_eq!(caches[0].count(Counter::Evictions), 0, "what fits was evicted");
    for (key, value) in values.iter().enumerate().filter(|(_, value)| **value != 0) {
        let got = caches[0].peek(&name("key", key as u64)).expect("a key is gone");
        assert_eq!(got.value, value.to_le_bytes().repeat(4), "key {key}");
    }
    caches[0].check_structure();
}

/// The writer of a large value does not reclaim ahead, and takes several segments one after the other. It still leaves free
/// segments for the records that have to be moved before the next segment is free.
#[test]
fn large_values_leave_room_to_move() {
    let world = World::new(MIB);
    let mut cache = Cache::join(&world);
    let mut random = Random::new(seed("large_values_leave_room_to_move"));
    let keys = capacity(&cache, 96) as u64 / 2;
    for key in 0..keys {
        cache.set(&name("key", key), &[0; 32]).unwrap();
    }
    let large = cache.me.region.geometry.max_value as usize;
    for i in 0..scaled(100) {
        // Overwriting at random leaves live records in every segment.
        for _ in 0..2 * keys {
            cache.set(&name("key", random.below(keys)), &[1; 32]).unwrap();
        }
        cache.set(b"large", &vec![i as u8; large]).unwrap();
        assert_eq!(cache.count(Counter::Evictions), 0, "round {i}: what fits was evicted");
    }
    (0..keys).for_each(|key| assert!(cache.peek(&name("key", key)).is_some(), "key {key} is gone"));
    cache.check();
}

/// A participant dies at any access while it begins to compact a segment. Another goes on, and nothing that fits is evicted,
/// although the plan of the dead one is stored nowhere.
#[test]
fn a_death_at_the_beginning_of_a_compaction() {
    let keys = capacity(&Cache::join(&World::seeded(MIB, 7)), 96) as u64 * 2 / 5;
    let overwrite = |(cache, random): &mut (Cache, Random)| {
        cache.set(&name("key", random.below(keys)), &[1; 32]).unwrap();
    };
    // Overwriting at random leaves live records in every segment.
    let prepare = |writes: u64| {
        let world = World::seeded(MIB, 7);
        let mut run = (Cache::join(&world), Random::new(7));
        for key in 0..keys {
            run.0.set(&name("key", key), &[0; 32]).unwrap();
        }
        (0..writes).for_each(|_| overwrite(&mut run));
        (world, run)
    };
    let (_world, mut run) = prepare(0);
    let (before, most) = (0..)
        .map(|i| (i, accesses(|| overwrite(&mut run))))
        .find(|(_, accesses)| *accesses > 200)
        .expect("a set that compacts");
    eprintln!("the first set that compacts is number {before}, with {most} accesses");
    for point in (0..most).step_by((most / scaled(200).max(1)).max(1) as usize) {
        let (world, mut run) = prepare(before);
        assert!(dies_at(point, || overwrite(&mut run)));
        std::mem::replace(&mut run.0, Cache::join(&world)).die();
        (0..2 * keys).for_each(|_| overwrite(&mut run));
        let (mut cache, _) = run;
        assert_eq!(cache.count(Counter::Evictions), 0, "died at access {point}: what fits was evicted");
        for key in 0..keys {
            assert!(cache.peek(&name("key", key)).is_some(), "died at access {point}: key {key} is gone");
        }
        cache.check_structure();
    }
}

/// As many participants as a small region takes, all writing, with hardly more segments than writers.
#[test]
fn a_crowd_in_a_small_region() {
    let _watchdog = Watchdog::new("a_crowd_in_a_small_region", 60);
    let world = World::new(MIB);
    let crowd = Geometry::of(MIB).unwrap().participants as u64;
    std::thread::scope(|scope| {
        for me in 0..crowd {
            let world = &world;
            scope.spawn(move || {
                let mut cache = Cache::join(world);
                for i in 0..scaled(400) {
                    cache
                        .set(&name("key", me * 1_000_000 + i), &vec![me as u8; 100 + (i * 37 % 3000) as usize])
                        .unwrap();
                    let mine = cache.get(&name("key", me * 1_000_000 + i / 2));
                    assert!(mine.is_none_or(|got| got.value.iter().all(|byte| *byte == me as u8)));
                }
                cache.leave();
            });
        }
    });
    Cache::join(&world).check();
}

/// Reading a hot key writes nothing: its cache line can stay in the cache of every core that reads it.
#[test]
fn a_hot_key_is_only_read() {
    let world = World::new(MIB);
    let mut cache = Cache::join(&world);
    cache.set(b"key", b"value").unwrap();
    let warming = accesses(|| cache.get(b"key"));
    for _ in 0..2 {
        cache.get(b"key");
    }
    // A write of the same bytes would be noticed too.
    assert_eq!(accesses(|| cache.get(b"key")), warming - 1);
    // Behind the header and the seats, where the statistics are.
    let shared = world.region().geometry.tag_counter(0) as usize..;
    let before = world.bytes()[shared.clone()].to_vec();
    cache.get(b"key").unwrap();
    cache.peek(b"key").unwrap();
    assert!(world.bytes()[shared] == before);
}

#[test]
fn only_a_region_of_this_layout_is_attached_to() {
    let header = |world: &World| -> Vec<u64> {
        world.bytes()[..64].chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
    };
    let world = World::new(MIB);
    let good = header(&world);
    assert_eq!(inspect(&good, MIB as u64), Ok(()));
    assert_eq!(inspect(&good, 2 * MIB as u64), Err(Mismatch::Size(MIB as u64)));
    assert_eq!(inspect(&good[..1], MIB as u64), Err(Mismatch::Version(0)));
    assert_eq!(inspect(&[0; 8], MIB as u64), Err(Mismatch::Foreign));
    assert_eq!(inspect(&[], MIB as u64), Err(Mismatch::Foreign));
    // A format that was cut short leaves no magic number, which is written last.
    let mut other = good.clone();
    other[1] += 1;
    assert_eq!(inspect(&other, MIB as u64), Err(Mismatch::Version(LAYOUT_VERSION + 1)));
}

/// Keys that the index cannot tell apart, because they share a bucket and a fingerprint, are different keys.
#[test]
fn keys_that_hash_alike_are_different() {
    let world = World::new(MIB);
    let mut cache = Cache::join(&world);
    let buckets = world.region().geometry.buckets as u64;
    let seen_by_the_index = |key: &Key| key.hash & (buckets - 1) | key.hash >> 48 << 48;
    let seed = cache.me.seed;
    // Found by trying, for the seed of these regions: one pair differs only in the key kind, the other only in the length.
    let kinds = ([35_444_012], [(7, 0), (7, 1)]);
    let lengths = ([82_008_995], [(7, 0), (8, 0)]);
    for (words, shapes) in [kinds, lengths] {
        let keys = shapes.map(|(length, kind)| Key::new(&words, length, kind, seed));
        assert_eq!(seen_by_the_index(&keys[0]), seen_by_the_index(&keys[1]), "find other keys for this seed");
        for (i, key) in keys.iter().enumerate() {
            assert_eq!(lookup(&cache, key), None);
            let value = [i as u8; 8];
            let draft = Draft {
                value_type: TEXT,
                flags: 0,
                version: cache.me.version(),
                expiry: NEVER,
                grace: 0.0,
                tags: &Participant::<TestHost>::no_tags(),
                value: &value,
            };
            cache.me.set(key, &draft, Expect::Absent).unwrap();
        }
        assert_eq!(keys.map(|key| lookup(&cache, &key)), [Some([0; 8]), Some([1; 8])]);
    }
    // Among so many keys of equal length some share a bucket and a fingerprint.
    let mut alike = HashMap::new();
    let found = (0..100_000u64).find_map(|i| {
        let key = OwnedKey::of(&i.to_le_bytes());
        alike.insert(seen_by_the_index(&key.with(seed)), i).map(|other| [other, i].map(u64::to_le_bytes))
    });
    let [one, other] = found.unwrap();
    cache.set(&one, b"one").unwrap();
    assert_eq!(cache.get(&other), None);
    cache.set(&other, b"other").unwrap();
    assert_eq!(cache.get(&one).unwrap().value, b"one");
    assert_eq!(cache.get(&other).unwrap().value, b"other");
    assert_eq!(cache.remove(&one, Expect::Anything), Ok(true));
    assert_eq!(cache.get(&other).unwrap().value, b"other");
    cache.check();
}

fn lookup(cache: &Cache, key: &Key) -> Option<[u8; 8]> {
    let (mut value, mut tags) = (vec![0u64; 8192], vec![0u64; MAX_BLOCK as usize / 8]);
    // SAFETY: room for any record and any tag block.
    let found = unsafe { cache.me.get(key, WANT_VALUE, value.as_mut_ptr().cast(), tags.as_mut_ptr().cast()) };
    found.map(|_| value[0].to_le_bytes())
}

/// Runs `act`, and `meanwhile` before its `n`th access to shared memory. False when there is no such access.
fn interrupted(n: u64, act: impl FnOnce(), meanwhile: impl FnOnce() + 'static) -> bool {
    let happened = Rc::new(Cell::new(false));
    let (mark, mut left, mut meanwhile) = (happened.clone(), n, Some(meanwhile));
    faults::before_access(Some(Box::new(move || {
        if left == 0 {
            faults::before_access(None);
            mark.set(true);
            meanwhile.take().unwrap()();
        }
        left = left.wrapping_sub(1);
    })));
    act();
    faults::before_access(None);
    happened.get()
}

/// A value that a near cache takes in during an invalidation is not served after the invalidation has returned.
#[test]
fn near_caches_hear_of_every_invalidation() {
    let invalidations: [fn(&mut Cache); 3] = [
        |cache| cache.me.clear(),
        |cache| cache.invalidate(&["another", "tag"]),
        |cache| cache.expire_tags(&["another", "tag"]),
    ];
    for invalidate in invalidations {
        for reader_first in [false, true] {
            for n in 0.. {
                let world = World::new(MIB);
                let (mut reader, mut writer) = (Cache::join(&world), Cache::join(&world));
                writer.store(b"key", b"value", &With { tags: &["tag"], ..PLAIN }).unwrap();
                assert!(reader.get_near(b"key").is_some() && reader.get_near(b"key").is_some());
                assert_eq!(reader.near_hits, 1);
                // A near cache that is still empty.
                let reader = Rc::new(RefCell::new(Cache::join(&world)));
                let other = reader.clone();
                let happened = if reader_first {
                    let read = || drop(reader.borrow_mut().get_near(b"key"));
                    interrupted(n, read, move || invalidate(&mut writer))
                } else {
                    interrupted(n, || invalidate(&mut writer), move || drop(other.borrow_mut().get_near(b"key")))
                };
                if !happened {
                    assert!(n > 0);
                    break;
                }
                assert_eq!(reader.borrow_mut().get_near(b"key"), None, "before access {n}");
            }
        }
    }
}

/// A key that a near cache holds is not read in the shared cache any more. So its entry has the most heat before that.
#[test]
fn what_is_near_is_hot_in_the_shared_cache() {
    let world = World::new(MIB);
    let mut cache = Cache::join(&world);
    cache.set(b"key", b"value").unwrap();
    while accesses(|| assert!(cache.get_near(b"key").is_some())) > 2 {}
    // Nothing is written any more, because the heat cannot rise further.
    let before = world.bytes()[world.region().geometry.bucket(0) as usize..].to_vec();
    cache.get(b"key").unwrap();
    assert!(world.bytes()[world.region().geometry.bucket(0) as usize..] == before);
}

/// A participant reads a key again and again while another evicts it: once the other one misses the key, the reader does too.
#[test]
fn what_was_evicted_is_in_no_near_cache() {
    let furnish = |sets: u64| {
        let world = World::seeded(MODEL_SIZE, 7);
        let mut writer = Cache::join(&world);
        writer.set(b"key", &[7; 16]).unwrap();
        for i in 0..sets {
            writer.set(&name("other", i), &[1; 80]).unwrap();
        }
        (world, writer)
    };
    let evicting = (0..).find(|i| furnish(i + 1).1.peek(b"key").is_none()).unwrap();
    let mut evicted = 0;
    for n in 0.. {
        let (world, mut writer) = furnish(evicting);
        let reader = Rc::new(RefCell::new(Cache::join(&world)));
        let other = reader.clone();
        let happened = interrupted(
            n,
            || assert!(writer.set(&name("other", evicting), &[1; 80]).is_ok()),
            move || (0..6).for_each(|_| drop(other.borrow_mut().get_near(b"key"))),
        );
        if !happened {
            break;
        }
        if writer.peek(b"key").is_none() {
            assert_eq!(reader.borrow_mut().get_near(b"key"), None, "before access {n}");
            evicted += 1;
        }
    }
    assert!(evicted > 10, "evicted {evicted} times");
}

/// An entry that is changed while the cache is cleared is gone like all others.
#[test]
fn a_clear_in_between_clears() {
    let changes: [fn(&mut Cache); 2] =
        [|cache| drop(cache.touch(b"number", 1e9)), |cache| drop(cache.increment(b"number", 1.0, 0.0, &PLAIN))];
    for change in changes {
        for n in 0.. {
            let world = World::new(MIB);
            let (mut cache, other) = (Cache::join(&world), Cache::join(&world));
            cache.set_number(b"number", 41.0).unwrap();
            if !interrupted(n, || change(&mut cache), move || other.me.clear()) {
                assert!(n > 20);
                break;
            }
            // An increment that came after the clear starts anew.
            assert!(cache.get(b"number").is_none_or(|got| got.number() == 1.0), "before access {n}");
        }
    }
}

/// The same stamp never stands for two values, however often the generation in the entry has wrapped around.
#[test]
fn no_stamp_stands_for_two_values() {
    let mut cache = Cache::join(&World::new(MIB));
    let mut stamps = HashMap::new();
    for i in 0..scaled(20_000) {
        cache.set(b"key", &[i as u8; 2000]).unwrap();
        for j in 0..i % 4 {
            cache.set(&name("other", j), &[0; 2000]).unwrap();
        }
        let stamp = cache.me.find(&OwnedKey::of(b"key").with(cache.me.seed)).unwrap().stamp;
        let earlier = stamps.insert((stamp.way, stamp.entry, stamp.generation, stamp.clear_epoch), i);
        assert_eq!(earlier, None, "value {i} has the stamp of an earlier one");
    }
}

/// A participant that gets the seat of a dead one inherits nothing else: neither its locks, nor its segment, nor the chunks of
/// the large value that it was writing. The new participant does nothing else here, so it repairs nothing in passing.
#[test]
fn a_new_owner_of_a_seat_inherits_nothing() {
    let _watchdog = Watchdog::new("a_new_owner_of_a_slot_inherits_nothing", 60);
    let deeds: [fn(&mut Cache); 3] = [
        |cache| drop(cache.set(b"key", b"value")),
        |cache| drop(cache.set(b"key", &[1; 20_000])),
        |cache| drop(cache.increment(b"key", 1.0, 0.0, &PLAIN)),
    ];
    for deed in deeds {
        let world = World::new(MIB);
        let mut cache = Cache::join(&world);
        let total = accesses(|| deed(&mut cache));
        for n in (0..total).step_by((total / scaled(40).max(1)).max(1) as usize) {
            let world = World::new(MIB);
            let (mut survivor, mut victim) = (Cache::join(&world), Cache::join(&world));
            let seat = victim.me.seat;
            dies_at(n, || deed(&mut victim));
            victim.die();
            let next = Cache::join(&world);
            assert_eq!(next.me.seat, seat);
            world.patience.store(0, SeqCst);
            survivor.set(b"key", b"after").unwrap();
            for i in 0..2 * MIB as u64 / 4000 {
                survivor.set(&name("flood", i), &[1; 4000]).unwrap();
            }
            crate::crash::assert_no_leak(&mut survivor);
            drop(next);
        }
    }
}

/// Expired entries make room for others, however often they were read.
#[test]
fn the_expired_make_room() {
    let world = World::new(4 * MIB);
    let mut cache = Cache::join(&world);
    let keys = capacity(&cache, 500) as u64 * 6 / 10;
    for round in 0..4 {
        let expiry = (round + 1) as f64 * 100.0;
        for i in 0..keys {
            cache.store(&name("key", round * keys + i), &[1; 500], &With { expiry, ..PLAIN }).unwrap();
            for _ in 0..3 {
                cache.get(&name("key", round * keys + i));
            }
        }
        let lost = (0..keys).filter(|i| cache.peek(&name("key", round * keys + i)).is_none()).count();
        assert_eq!(lost, 0, "in round {round}");
        world.set_clock(expiry);
    }
    assert_eq!(cache.count(Counter::Evictions), 0);
    assert!(cache.count(Counter::Expirations) > keys);
    cache.check();
}

/// Entries that are stale and within their grace are kept like fresh ones. When their grace is over, they make room for others.
#[test]
fn the_stale_are_kept_for_their_grace() {
    let world = World::new(4 * MIB);
    let mut cache = Cache::join(&world);
    let keys = capacity(&cache, 500) as u64 * 3 / 10;
    let stored = |cache: &mut Cache, prefix: &str, with: &With| {
        for i in 0..keys {
            cache.store(&name(prefix, i), &[1; 500], with).unwrap();
        }
    };
    stored(&mut cache, "stale", &With { expiry: 100.0, grace: 900.0, ..PLAIN });
    stored(&mut cache, "tagged", &With { grace: 800.0, tags: &["tag"], ..PLAIN });
    world.set_clock(200.0);
    cache.expire_tags(&["tag"]);
    let there = |cache: &mut Cache, prefix: &str| {
        (0..keys).filter(|i| cache.get_stale(&name(prefix, *i)).is_some_and(|got| got.stale)).count() as u64
    };
    // Every segment is reclaimed, more than once.
    for round in 0..8 {
        stored(&mut cache, "fresh", &PLAIN);
        assert_eq!([there(&mut cache, "stale"), there(&mut cache, "tagged")], [keys, keys], "in round {round}");
    }
    assert_eq!(cache.get(&name("stale", 0)), None);
    assert_eq!(cache.get(&name("tagged", 0)), None);
    assert_eq!(cache.me.census().entries as u64, keys);
    assert_eq!((cache.count(Counter::Evictions), cache.count(Counter::Expirations)), (0, 0));
    world.set_clock(1000.0);
    assert_eq!([there(&mut cache, "stale"), there(&mut cache, "tagged")], [0, 0]);
    stored(&mut cache, "more", &PLAIN);
    stored(&mut cache, "still more", &PLAIN);
    assert_eq!(cache.count(Counter::Evictions), 0);
    assert!(cache.count(Counter::Expirations) > keys);
    cache.check();
}

/// An expired tag makes an entry without a grace a miss at once, whatever another participant's clock says. With a grace the
/// entry is stale for that long.
#[test]
fn an_expired_tag_leaves_the_grace() {
    let world = World::new(MIB);
    let (mut cache, mut ahead) = (Cache::join(&world), Cache::join(&world));
    cache.store(b"none", b"value", &With { tags: &["tag"], ..PLAIN }).unwrap();
    cache.store(b"some", b"value", &With { tags: &["other", "tag"], grace: 50.0, ..PLAIN }).unwrap();
    cache.store(b"large", &[7; 20_000], &With { tags: &["tag"], grace: NEVER, ..PLAIN }).unwrap();
    world.set_clock(100.0);
    ahead.expire_tags(&["tag"]);
    world.set_clock(90.0);
    assert_eq!((cache.get_stale(b"none"), cache.get(b"some"), cache.get(b"large")), (None, None, None));
    assert!(cache.get_stale(b"some").is_some_and(|got| got.stale && got.value == b"value"));
    world.set_clock(149.0);
    assert!(cache.get_stale(b"some").is_some_and(|got| got.stale));
    world.set_clock(150.0);
    assert_eq!(cache.get_stale(b"some"), None);
    assert!(cache.get_stale(b"large").is_some_and(|got| got.stale && got.value == [7; 20_000]));
    // Stale entries are absent for those who change them.
    assert_eq!(cache.touch(b"large", NEVER), Ok(false));
    assert_eq!(cache.expire(b"large"), Ok(false));
    assert_eq!(cache.store(b"large", b"new", &With { expect: Expect::Present, ..PLAIN }), Err(Refused::Unexpected));
    cache.store(b"large", b"new", &With { expect: Expect::Absent, tags: &["tag"], ..PLAIN }).unwrap();
    assert!(cache.get_stale(b"large").is_some_and(|got| !got.stale));
    cache.invalidate(&["tag"]);
    assert_eq!(cache.get_stale(b"large"), None);
    cache.check();
}

/// An entry has room for 128 tags in the deepest namespace, and each of them invalidates it.
#[test]
fn an_entry_has_128_tags_of_its_own_and_16_of_its_namespaces() {
    let world = World::new(256 * MIB);
    let mut cache = Cache::join(&world);
    let prefix = [0xFF; 264];
    let visible: Vec<Vec<u8>> = (0..129).map(|i| format!("{i:0256}").into_bytes()).collect();
    let hidden: Vec<Vec<u8>> = (0..17).map(|i| format!("{i:X>256}").into_bytes()).collect();
    let given = |visible: &[Vec<u8>], hidden: &[Vec<u8>]| {
        let mut given = ((visible.len() + hidden.len()) as u16).to_le_bytes().to_vec();
        given.extend((prefix.len() as u16).to_le_bytes());
        given.extend(prefix);
        for (tags, flag) in [(visible, 0), (hidden, 1 << 15)] {
            for tag in tags {
                given.extend((tag.len() as u16 | flag).to_le_bytes());
                given.extend(tag);
            }
        }
        given
    };
    let all = given(&visible[..128], &hidden[..16]);
    let mut block = Participant::<TestHost>::no_tags();
    let (key, value) = (OwnedKey::of(b"key"), [9; 64]);
    let store = |cache: &Cache, block: &mut cache_machine_core::Block| {
        cache.me.tag_block(&all, block);
        let (version, expiry, grace) = (cache.me.version(), NEVER, 0.0);
        let draft = Draft { value_type: TEXT, flags: 0, version, expiry, grace, tags: block, value: &value };
        cache.me.set(&key.with(cache.me.seed), &draft, Expect::Anything).unwrap();
    };
    store(&cache, &mut block);
    assert_eq!(cache.get(b"key").unwrap().value, value);
    // Neither more tags, nor the same tags of other namespaces, nor the prefix in front of a hidden tag.
    cache.me.invalidate(&given(&visible[128..], &hidden[16..]), 1.0);
    cache.me.invalidate(&given(&hidden, &[]), 1.0);
    cache.me.invalidate(&given(&[], &visible), 1.0);
    assert!(cache.get(b"key").is_some());
    for i in 0..144 {
        let one = if i < 128 { given(&visible[i..i + 1], &[]) } else { given(&[], &hidden[i - 128..i - 127]) };
        cache.me.invalidate(&one, 2.0);
        assert_eq!(cache.get(b"key"), None, "tag {i}");
        assert_eq!(cache.me.tags_invalidated_at(&one), 2.0);
        store(&cache, &mut block);
        assert!(cache.get(b"key").is_some());
    }
    // What does not fit is left out.
    cache.me.tag_block(&given(&visible, &[]), &mut block);
    let with_129 = block.length();
    cache.me.tag_block(&given(&visible[..128], &[]), &mut block);
    assert_eq!(with_129, block.length());
    cache.check();
}

/// No tag empties a namespace: hidden tags have counters of their own, however many tags are invalidated.
#[test]
fn an_entry_of_a_namespace_survives_all_tags() {
    let world = World::new(MIB);
    let mut cache = Cache::join(&world);
    let given = |name: &[u8], flag: u16| {
        let length = (name.len() as u16 | flag).to_le_bytes();
        [&[1, 0, 0, 0], &length[..], name].concat()
    };
    let mut block = Participant::<TestHost>::no_tags();
    cache.me.tag_block(&given(b"namespace", 1 << 15), &mut block);
    let (version, key) = (cache.me.version(), OwnedKey::of(b"key"));
    let draft = Draft { value_type: TEXT, flags: 0, version, expiry: NEVER, grace: 0.0, tags: &block, value: b"value" };
    cache.me.set(&key.with(cache.me.seed), &draft, Expect::Anything).unwrap();
    for i in 0..16 * world.region().geometry.tag_counters {
        cache.me.invalidate(&given(format!("tag {i}").as_bytes(), 0), 1.0);
    }
    assert!(cache.get(b"key").is_some());
    cache.me.invalidate(&given(b"namespace", 1 << 15), 1.0);
    assert_eq!(cache.get(b"key"), None);
    cache.check();
}

/// Whether a tag was invalidated since a load began: by any of its tags, in either way, also when two participants invalidate
/// at the same time, or one of them dies, and when the sequence wraps around.
#[test]
fn what_was_invalidated_since() {
    let events: [fn(&mut Cache, &[&str]); 2] = [Cache::invalidate, Cache::expire_tags];
    let since = |cache: &Cache, key: &[u8], start| {
        cache.me.entry_invalidated_since(&OwnedKey::of(key).with(cache.me.seed), start).unwrap()
    };
    for first in [0, 5, 0xFFFF_FFFEu64, 0xFFFF_FFFF, 1 << 31] {
        for event in events {
            let world = World::new(MIB);
            let mut cache = Cache::join(&world);
            world.bytes()[384..392].copy_from_slice(&first.to_le_bytes());
            cache.store(b"key", b"value", &With { tags: &["one", "two"], ..PLAIN }).unwrap();
            cache.store(b"bare", b"value", &PLAIN).unwrap();
            event(&mut cache, &["one", "three"]);
            for _ in 0..3 {
                let start = cache.me.invalidations();
                assert!(!since(&cache, b"key", start) && !since(&cache, b"bare", start), "{first:X}");
                event(&mut cache, &["three"]);
                assert!(!since(&cache, b"key", start), "{first:X}");
                event(&mut cache, &["two"]);
                assert!(since(&cache, b"key", start) && !since(&cache, b"bare", start), "{first:X}");
            }
        }
    }
    for events in [events, [events[1], events[0]], [events[0], events[0]]] {
        for dies in [false, true] {
            for n in 0.. {
                let world = World::new(MIB);
                let (mut cache, mut other) = (Cache::join(&world), Cache::join(&world));
                cache.store(b"key", b"value", &With { tags: &["tag"], ..PLAIN }).unwrap();
                let starts = Rc::new(Cell::new([0; 2]));
                let seen = starts.clone();
                let mut meanwhile = move || {
                    let start = other.me.invalidations();
                    events[1](&mut other, &["tag"]);
                    seen.set([start, other.me.invalidations()]);
                };
                let happened = match dies {
                    false => interrupted(n, || events[0](&mut cache, &["tag"]), meanwhile),
                    true => {
                        let died = dies_at(n, || events[0](&mut cache, &["tag"]));
                        meanwhile();
                        died
                    }
                };
                if !happened {
                    break;
                }
                let [before, after] = starts.get();
                assert!(since(&cache, b"key", before), "access {n}");
                assert!(!dies || !since(&cache, b"key", after), "access {n}");
                assert_eq!(cache.get(b"key"), None);
            }
        }
    }
}

/// The time of an invalidation is there when the invalidation is, and never goes back.
#[test]
fn the_time_of_an_invalidation_is_the_latest() {
    let world = World::new(MIB);
    let mut cache = Cache::join(&world);
    assert_eq!(cache.tags_invalidated_at(&["one", "two"]), 0.0);
    for (clock, latest) in [(50.0, 50.0), (70.0, 70.0), (60.0, 70.0)] {
        world.set_clock(clock);
        cache.invalidate(&["one"]);
        assert_eq!(cache.tags_invalidated_at(&["one", "two"]), latest);
        assert_eq!(cache.tags_invalidated_at(&["two"]), 0.0);
    }
    cache.expire_tags(&["two"]);
    assert_eq!(cache.tags_invalidated_at(&["two"]), 0.0);
    for n in 0.. {
        let world = World::new(MIB);
        let (mut cache, mut other) = (Cache::join(&world), Cache::join(&world));
        cache.store(b"key", b"value", &With { tags: &["tag"], ..PLAIN }).unwrap();
        world.set_clock(100.0);
        let mut reader = Cache::join(&world);
        let meanwhile = move || {
            let seen = reader.get(b"key").is_none();
            assert!(!seen || reader.tags_invalidated_at(&["tag"]) == 100.0);
            reader.world.set_clock(120.0);
            other.invalidate(&["tag"]);
            assert_eq!(other.tags_invalidated_at(&["tag"]), 120.0);
        };
        if !interrupted(n, || cache.invalidate(&["tag"]), meanwhile) {
            break;
        }
        assert_eq!(cache.tags_invalidated_at(&["tag"]), 120.0, "access {n}");
    }
}

fn bytes_in_main(cache: &Cache) -> i64 {
    cache.audit().iter().filter(|each| each.class == Class::Main).map(|each| each.found).sum()
}

/// A key that is set again soon after it was evicted goes to main.
#[test]
fn ghosts_bring_keys_to_main() {
    let mut cache = Cache::join(&World::new(4 * MIB));
    let keys = capacity(&cache, 500) as u64 * 3 / 2;
    for i in 0..keys {
        cache.set(&name("key", i), &[1; 500]).unwrap();
    }
    assert_eq!(bytes_in_main(&cache), 0);
    let first = (0..keys).find(|i| cache.peek(&name("key", *i)).is_some()).unwrap();
    assert!(first > 100, "the oldest were evicted");
    cache.set(&name("key", first - 1), &[2; 500]).unwrap();
    assert!(bytes_in_main(&cache) > 500, "its ghost was forgotten");
}

/// A ghost is remembered by how much goes through the small queue, not by how much is written in main.
#[test]
fn ghosts_outlive_what_main_writes() {
    let mut cache = Cache::join(&World::new(4 * MIB));
    let keys = capacity(&cache, 500) as u64 * 3 / 2;
    for i in 0..keys {
        cache.set(&name("key", i), &[1; 500]).unwrap();
    }
    let first = (0..keys).find(|i| cache.peek(&name("key", *i)).is_some()).unwrap();
    // Written to main each time, because its entry is there. The old records are dead, and reclaimed before all others.
    for _ in 0..2 * keys {
        cache.set(&name("key", first - 1), &[2; 500]).unwrap();
    }
    let before = bytes_in_main(&cache);
    assert!((500..1_000).contains(&before), "{before}");
    assert!(cache.peek(&name("key", first + 1_000)).is_some(), "the small queue was reclaimed");
    cache.set(&name("key", first - 2), &[3; 500]).unwrap();
    assert!(bytes_in_main(&cache) > before + 500, "the other ghost was forgotten");
}

/// Entries that were hot and are not read any more are evicted in the end, when others are read.
#[test]
fn what_was_hot_cools() {
    let mut cache = Cache::join(&World::new(MIB));
    let keys = capacity(&cache, 500) as u64;
    let pass = |cache: &mut Cache, prefix: &str, count: u64| {
        for i in 0..count {
            cache.set(&name(prefix, i), &[1; 500]).unwrap();
            for _ in 0..3 {
                cache.get(&name(prefix, i));
            }
        }
    };
    pass(&mut cache, "old", keys / 2);
    pass(&mut cache, "new", keys * 4);
    let old = (0..keys / 2).filter(|i| cache.peek(&name("old", *i)).is_some()).count();
    assert_eq!(old, 0, "of {} that were hot once", keys / 2);
}

/// In a full bucket new entries replace cold ones.
#[test]
fn a_full_bucket_keeps_the_hot() {
    let mut cache = Cache::join(&World::new(MIB));
    let (buckets, seed) = (cache.me.region.geometry.buckets as u64, cache.me.seed);
    let bucket = |key: &[u8]| OwnedKey::of(key).with(seed).hash & (buckets - 1);
    let same: Vec<Vec<u8>> = (0..).map(|i| name("key", i)).filter(|key| bucket(key) == 5).take(20).collect();
    for key in &same[..15] {
        cache.set(key, b"value").unwrap();
    }
    for key in &same[..14] {
        cache.get(key);
    }
    for key in &same[15..] {
        cache.set(key, b"value").unwrap();
        assert!(cache.peek(key).is_some());
    }
    let lost = same[..14].iter().filter(|key| cache.peek(key).is_none()).count();
    assert_eq!(lost, 0, "hot entries were evicted for cold ones");
    assert_eq!(cache.count(Counter::Evictions), 5);
}

/// An increment out of its bounds is refused and changes nothing, whether the number is absent, was set or was counted.
#[test]
fn an_increment_stays_within_its_bounds() {
    let mut cache = Cache::join(&World::new(MIB));
    let addition = Addition { by: 3.0, initial: 4.0, min: -10.0, max: 10.0 };
    let refused = |cache: &mut Cache, by: f64, initial: f64| {
        let before = cache.peek(b"n");
        assert_eq!(cache.add(b"n", &Addition { by, initial, ..addition }, &PLAIN), Err(Refused::OutOfRange));
        assert_eq!(cache.peek(b"n"), before);
    };
    refused(&mut cache, 7.0, 4.0);
    refused(&mut cache, -15.0, 4.0);
    refused(&mut cache, f64::NAN, 4.0);
    cache.set_number(b"n", 4.0).unwrap();
    refused(&mut cache, 7.0, 0.0);
    for (by, sum) in [(3.0, 7.0), (3.0, 10.0), (-20.0, -10.0)] {
        let added = cache.add(b"n", &Addition { by, ..addition }, &PLAIN).unwrap();
        let got = cache.get(b"n").unwrap();
        assert_eq!((added.value, got.number()), (sum, sum));
        assert_eq!((added.version, added.expiry), (got.version, NEVER));
    }
    refused(&mut cache, -1.0, 0.0);
    refused(&mut cache, 21.0, 0.0);
    cache.set_number(b"n", f64::NAN).unwrap();
    assert_eq!(cache.add(b"n", &addition, &PLAIN), Err(Refused::OutOfRange));
    let mortal = cache.add(b"m", &addition, &With { expiry: 50.0, ..PLAIN }).unwrap();
    assert_eq!((mortal.value, mortal.expiry), (7.0, 50.0));
    cache.check();
}

/// A walk with a beginning finds the keys that begin so, byte by byte, and no others.
#[test]
fn a_walk_finds_the_keys_that_begin_so() {
    let mut cache = Cache::join(&World::new(MIB));
    let long = b"a key of more than three words";
    // The value of a short key lies behind it, as if the key went on.
    cache.set(b"a key", b" of more than three words").unwrap();
    cache.set(b"another", &[0; 24]).unwrap();
    for length in 0..=long.len() {
        cache.set(&long[..length], &long[length..]).unwrap();
        let mut other = long[..length].to_vec();
        other.push(b'~');
        cache.set(&other, b"").unwrap();
    }
    let all = cache.keys();
    assert_eq!(all.len(), 2 * long.len() + 3);
    for length in 0..=long.len() {
        let mut found = cache.keys_with(&long[..length]);
        let mut wanted: Vec<_> = all.iter().filter(|key| key.starts_with(&long[..length])).cloned().collect();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted, "{length} bytes");
    }
    assert_eq!(cache.keys_with(b"b"), Vec::<Vec<u8>>::new());
}

/// A prefetch changes nothing, whatever it meets.
#[test]
fn a_prefetch_changes_nothing() {
    let world = World::new(MIB);
    let mut cache = Cache::join(&world);
    (0..100u8).for_each(|i| drop(cache.set(&[i], &[i; 100])));
    let hashes: Vec<u64> = (50..50 + GROUP as u8).map(|i| OwnedKey::of(&[i]).with(cache.me.seed).hash).collect();
    let before = world.bytes().to_vec();
    prefetch(&cache.me.region, &hashes);
    prefetch(&cache.me.region, &[]);
    prefetch(&cache.me.region, &[0, u64::MAX]);
    assert!(before == world.bytes(), "a prefetch has written");
}

// ---- rate limits ------------------------------------------------------------------------------------------------

const RULE: Rule = Rule { algorithm: GCRA, limit: 10.0, window: 1000.0, burst: 10.0, cost: 1.0, peek: false };
const ALGORITHMS: [u32; 3] = [GCRA, FIXED, SLIDING];

fn at(cache: &mut Cache, time: f64, rule: &Rule) -> Verdict {
    cache.world.set_clock(time);
    cache.limit(b"limit", rule).unwrap()
}

/// As many requests as the limit go through at once, the next one is told when to come, and comes then.
#[test]
fn a_limit_lets_exactly_so_many_through() {
    for algorithm in ALGORITHMS {
        for (limit, window) in [(1.0, 1.0), (7.0, 60_000.0), (3.0, 1000.0), (1000.0, 60_000.0)] {
            let mut cache = Cache::join(&World::new(MIB));
            let rule = Rule { algorithm, limit, window, burst: limit, ..RULE };
            let start = 1.7e12;
            for i in 1..=limit as u32 {
                let verdict = at(&mut cache, start, &rule);
                assert!(verdict.allowed && verdict.retry_after == 0.0, "{i} of {rule:?}: {verdict:?}");
                assert_eq!(verdict.remaining, limit - i as f64);
            }
            let before = cache.peek(b"limit");
            let refused = at(&mut cache, start, &rule);
            assert!(!refused.allowed && refused.remaining == 0.0, "{rule:?}: {refused:?}");
            assert_eq!(cache.peek(b"limit"), before, "a refused request changes nothing");
            let first = match algorithm {
                GCRA => (window / limit).ceil(),
                FIXED => window,
                _ => (window + window / limit).ceil(),
            };
            assert_eq!(refused.retry_after, first, "{rule:?}");
            assert!(!at(&mut cache, start + first - 1.0, &rule).allowed);
            assert!(at(&mut cache, start + first, &rule).allowed);
            cache.check();
        }
    }
}

/// No more than the burst and what the rate gives goes through in any time, whatever the pace of the requests.
#[test]
fn the_generic_cell_rate_is_exact() {
    let mut random = Random::new(seed("the_generic_cell_rate_is_exact"));
    for _ in 0..scaled(200) {
        let limit = 1.0 + random.below(50) as f64;
        let window = 1.0 + random.below(5000) as f64;
        let burst = if random.chance(50) { limit } else { 1.0 + random.below(80) as f64 };
        let rule = Rule { limit, window, burst, ..RULE };
        let mut cache = Cache::join(&World::new(MIB));
        // The same in whole numbers: the theoretical arrival time, times `limit`.
        let (mut now, mut arrival) = (1_700_000_000_000i128, 0i128);
        for _ in 0..400 {
            now +=
                if random.chance(30) { random.below(1 + 2 * window as u64) as i128 } else { random.below(3) as i128 };
            let cost = 1 + if random.chance(20) { random.below(burst as u64) as i128 } else { 0 };
            let (limit, window, burst) = (limit as i128, window as i128, burst as i128);
            let next = arrival.max(now * limit) + cost * window;
            let allowed = next - now * limit <= burst * window;
            if allowed {
                arrival = next;
            }
            let verdict = at(&mut cache, now as f64, &Rule { cost: cost as f64, ..rule });
            assert_eq!(verdict.allowed, allowed, "{rule:?} at {now}");
            let left = (burst * window - (arrival.max(now * limit) - now * limit)) / window;
            assert_eq!(verdict.remaining as i128, left, "{rule:?} at {now}");
            let reset = (arrival.max(now * limit) + limit - 1) / limit;
            assert_eq!(verdict.reset_at as i128, reset, "{rule:?} at {now}");
        }
    }
}

/// Around the border of two windows no more goes through than the limit and the share of the time.
#[test]
fn a_sliding_window_has_no_double_limit_at_its_border() {
    let mut cache = Cache::join(&World::new(MIB));
    let rule = Rule { algorithm: SLIDING, limit: 100.0, ..RULE };
    at(&mut cache, 0.0, &rule);
    let burst = |cache: &mut Cache, time: f64| (0..200).filter(|_| at(cache, time, &rule).allowed).count();
    assert_eq!(burst(&mut cache, 999.0), 99);
    assert_eq!(burst(&mut cache, 1000.0), 0);
    assert_eq!(burst(&mut cache, 1010.0), 1);
    assert_eq!(burst(&mut cache, 1500.0), 49);
    assert_eq!(burst(&mut cache, 1999.0), 49);
    // Two windows later nothing is left of it.
    assert_eq!(burst(&mut cache, 4000.0), 100);
}

/// A fixed window begins with its first request. What is read of a limit, and when it may be forgotten.
#[test]
fn a_limit_is_an_entry() {
    for algorithm in ALGORITHMS {
        let mut cache = Cache::join(&World::new(MIB));
        let rule = Rule { algorithm, ..RULE };
        let verdict = at(&mut cache, 400.0, &Rule { peek: true, ..rule });
        assert_eq!((verdict.allowed, verdict.remaining, verdict.reset_at), (true, 10.0, 400.0));
        assert_eq!(cache.peek(b"limit"), None, "a look stores nothing");
        let first = at(&mut cache, 500.0, &rule);
        let got = cache.peek(b"limit").unwrap();
        assert_eq!(got.value_type, LIMIT);
        assert!(got.expiry >= first.reset_at);
        assert_eq!(at(&mut cache, 500.0, &Rule { peek: true, ..rule }).remaining, 9.0);
        assert_eq!(cache.peek(b"limit").unwrap(), got, "a look changes nothing");
        at(&mut cache, 600.0, &rule);
        let changed = cache.peek(b"limit").unwrap();
        assert!(changed.version > got.version && changed.value != got.value);
        // Another kind of value, and no number.
        assert_eq!(cache.increment(b"limit", 1.0, 0.0, &PLAIN), Err(Refused::NotANumber));
        cache.set(b"text", b"text").unwrap();
        assert_eq!(cache.limit(b"text", &rule), Err(Refused::NotALimit));
        cache.set_number(b"text", 1.0).unwrap();
        assert_eq!(cache.limit(b"text", &Rule { peek: true, ..rule }), Err(Refused::NotALimit));
        cache.increment(b"text", 1.0, 0.0, &PLAIN).unwrap();
        assert_eq!(cache.limit(b"text", &rule), Err(Refused::NotALimit));
        // What has expired is no other value.
        cache.touch(b"text", 650.0).unwrap();
        assert_eq!(at(&mut cache, 650.0, &rule).remaining, if algorithm == GCRA { 8.0 } else { 7.0 });
        assert!(cache.limit(b"text", &rule).unwrap().allowed);
        // Removed: it begins anew.
        assert!(cache.remove(b"limit", Expect::Anything).unwrap());
        assert_eq!(at(&mut cache, 700.0, &rule).remaining, 9.0);
        // Expired, and not reclaimed yet: the record serves again.
        let resting = at(&mut cache, 1e6, &rule);
        assert_eq!((resting.remaining, cache.peek(b"limit").unwrap().expiry >= resting.reset_at), (9.0, true));
        cache.me.clear();
        assert_eq!(at(&mut cache, 1e6, &rule).remaining, 9.0);
        // Another algorithm begins anew, another limit does not.
        let other = Rule { algorithm: if algorithm == GCRA { FIXED } else { GCRA }, ..rule };
        assert_eq!(at(&mut cache, 1e6, &other).remaining, 9.0);
        assert_eq!(at(&mut cache, 1e6, &Rule { limit: 20.0, burst: 20.0, ..other }).remaining, 18.0);
        cache.check();
    }
}

/// A clock that is set back, however far, neither frees a limit nor blocks it for longer than from that moment on.
#[test]
fn a_limit_survives_a_clock_that_is_set_back() {
    for algorithm in ALGORITHMS {
        for back in [1.0, 999.0, 1e3, 1e9] {
            let mut cache = Cache::join(&World::new(MIB));
            let rule = Rule { algorithm, ..RULE };
            (0..10).for_each(|_| assert!(at(&mut cache, 1e10, &rule).allowed));
            for peek in [true, false] {
                let verdict = at(&mut cache, 1e10 - back, &Rule { peek, ..rule });
                assert!(!verdict.allowed && verdict.remaining == 0.0, "{verdict:?}");
                assert!((1.0..=2.0 * RULE.window).contains(&verdict.retry_after), "{verdict:?}");
                assert!(verdict.reset_at <= 1e10 - back + 2.0 * RULE.window, "{verdict:?}");
            }
            let retry = at(&mut cache, 1e10 - back, &rule).retry_after;
            assert!(at(&mut cache, 1e10 - back + retry, &rule).allowed);
        }
    }
}

/// Whatever bytes stand in a limit, the answer is of this world.
#[test]
fn a_limit_of_any_bytes_answers_with_numbers() {
    let mut random = Random::new(seed("a_limit_of_any_bytes_answers_with_numbers"));
    for algorithm in ALGORITHMS {
        for _ in 0..scaled(400) {
            let world = World::new(MIB);
            let mut cache = Cache::join(&world);
            let rule = Rule { algorithm, ..RULE };
            at(&mut cache, 5000.0, &rule);
            let value = cache.peek(b"limit").unwrap().value;
            let place = world.bytes().windows(value.len()).rposition(|bytes| bytes == value).unwrap();
            let odd = [0.0, -1.0, 1e300, -1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 4999.0, 5e-324];
            for word in 1..7 {
                let bits = if random.chance(70) { odd[random.below(9) as usize].to_bits() } else { random.next() };
                world.bytes()[place + 8 * word..place + 8 * word + 8].copy_from_slice(&bits.to_le_bytes());
            }
            for _ in 0..3 {
                let verdict = cache.limit(b"limit", &rule).unwrap();
                assert!((0.0..=10.0).contains(&verdict.remaining), "{verdict:?}");
                assert!((0.0..=2000.0).contains(&verdict.retry_after), "{verdict:?}");
                assert!((5000.0..=7000.0).contains(&verdict.reset_at), "{verdict:?}");
            }
        }
    }
}

/// A participant that dies at any access of a request has counted it, or not, and nothing else.
#[test]
fn a_death_in_a_request_counts_it_or_not() {
    for algorithm in ALGORITHMS {
        for times in [vec![0.0], vec![0.0, 100.0, 1100.0], vec![0.0, 1e6]] {
            for n in 0.. {
                let world = World::new(MIB);
                let mut cache = Cache::join(&world);
                let rule = Rule { algorithm, ..RULE };
                let (last, before) = times.split_last().unwrap();
                before.iter().for_each(|time| assert!(at(&mut cache, *time, &rule).allowed));
                world.set_clock(*last);
                let free = cache.limit(b"limit", &Rule { peek: true, ..rule }).unwrap().remaining;
                let mut victim = Cache::join(&world);
                let died = dies_at(n, || victim.limit(b"limit", &rule));
                victim.die();
                let verdict = cache.limit(b"limit", &rule).unwrap();
                let uncounted = if died { free } else { free - 1.0 };
                assert!([uncounted - 1.0, free - 2.0].contains(&verdict.remaining), "{rule:?} {n}: {verdict:?}");
                cache.check_structure();
                if !died {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_store_that_keeps_the_expiry_is_refused_when_the_entry_was_touched_since() {
    let mut cache = Cache::join(&World::new(MIB));
    cache.store(b"key", b"old", &With { expiry: 1e9, ..PLAIN }).unwrap();
    let version = cache.get(b"key").unwrap().version;
    let keeps = With { expiry: 1e9, expect: Expect::Untouched(version), ..PLAIN };
    let other = With { expect: Expect::Untouched(version + 2), ..keeps };
    assert_eq!(cache.store(b"key", b"new", &other), Err(Refused::Unexpected));
    cache.touch(b"key", 2e9).unwrap();
    assert_eq!(cache.store(b"key", b"new", &keeps), Err(Refused::Unexpected));
    cache.touch(b"key", 1e9).unwrap();
    assert!(cache.store(b"key", b"new", &keeps).is_ok());
    assert_eq!(cache.get(b"key").unwrap().value, b"new");
}
