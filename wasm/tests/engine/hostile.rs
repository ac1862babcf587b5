//! Foreign bytes anywhere in the region, written between operations: the engine may miss, refuse and lose entries, but never
//! panic, hang or leave the region. Debug assertions are on, so an offset out of range is a panic here.

use std::cell::Cell;
use std::rc::Rc;

use cache_machine_core::{Claimed, Expect, MODEL_SIZE, Place, Rule, faults, prefetch};

use crate::acts::RULE;
use crate::harness::*;

/// Changes a few bytes somewhere: in the small tables at the beginning as often as in all the segments.
fn damage(world: &World, random: &mut Random) {
    let geometry = world.region().geometry;
    let borders = [
        0,
        512,
        4096,
        geometry.claim(0),
        geometry.tag_counter(0),
        geometry.state(0),
        geometry.meta(0),
        geometry.bucket(0),
        geometry.segments_at,
        geometry.size,
    ];
    let part = random.below(borders.len() as u64 - 1) as usize;
    let words = ((borders[part + 1] - borders[part]) / 8) as u64;
    let at = borders[part] as u64 + random.below(words) * 8;
    let from = random.below(geometry.size as u64 / 8) * 8;
    let bytes = world.bytes();
    let word = |at: u64| u64::from_le_bytes(bytes[at as usize..at as usize + 8].try_into().unwrap());
    let new = match random.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => random.next(),
        3 => word(from),
        4 => word(at).wrapping_add(random.below(64)).wrapping_sub(32),
        5 => word(at) ^ 0xFF << (8 * random.below(8)),
        _ => word(at) ^ 1 << random.below(64),
    };
    world.bytes()[at as usize..at as usize + 8].copy_from_slice(&new.to_le_bytes());
}

/// Damages the first words of live records, because most of what the engine reads from the region is there.
fn damage_a_record(world: &World, random: &mut Random) {
    let geometry = world.region().geometry;
    let way = random.below(geometry.buckets as u64 * 16);
    let entry_at = geometry.bucket(0) as usize + way as usize * 8;
    let entry = u64::from_le_bytes(world.bytes()[entry_at..entry_at + 8].try_into().unwrap());
    let at = (entry & 0xFFF_FFFF) * 16 + random.below(8) * 8;
    if at >= geometry.segments_at as u64 && at + 8 <= geometry.size as u64 {
        let bit = random.below(64);
        world.bytes()[(at + bit / 8) as usize] ^= 1 << (bit % 8);
    }
}

fn anything(cache: &mut Cache, random: &mut Random) {
    let key = format!("key {}", random.below(300)).into_bytes();
    let size = if random.chance(20) { random.below(40_000) } else { random.below(1_500) };
    let value = vec![random.next() as u8; size as usize];
    match random.below(54) {
        44..52 => coordinate(cache, random, &key),
        0..14 => drop(cache.set(&key, &value)),
        14..16 => {
            let expiry = cache.world.now() + random.below(100) as f64;
            drop(cache.store(&key, &value, &With { expiry, tags: &["one", "two"], expect: Expect::Present, ..PLAIN }));
        }
        40 => {
            let grace = if random.chance(2) { NEVER } else { random.below(100) as f64 };
            drop(cache.store(&key, &value, &With { grace, tags: &["one"], ..PLAIN }));
        }
        41 => drop(cache.get_stale(&key)),
        42 => drop(cache.expire(&key)),
        43 => cache.expire_tags(&["one"]),
        16..22 => drop(cache.get(&key)),
        22..28 => drop(cache.get_near(&key)),
        28..30 => drop(cache.remove(&key, Expect::Anything)),
        30..34 => drop(cache.increment(&key, 1.0, 0.0, &PLAIN)),
        34 => drop(cache.touch(&key, random.below(1000) as f64)),
        52..54 => {
            let limit = 1.0 + random.below(3) as f64;
            let rule = Rule { algorithm: 1 + random.below(3) as u32, limit, burst: limit, ..RULE };
            if let Ok(verdict) = cache.limit(&key[..5], &rule) {
                assert!((0.0..=limit).contains(&verdict.remaining), "{verdict:?}");
                assert!((0.0..=2000.0).contains(&verdict.retry_after), "{verdict:?}");
            }
        }
        35 => cache.invalidate(&["one"]),
        36 => drop(cache.keys()),
        37 => drop(cache.me.census()),
        38 => drop(cache.me.participants()),
        _ => {
            let _ = cache.me.validate();
            let _ = cache.me.find(&OwnedKey::of(&key).with(cache.me.seed));
            prefetch(&cache.me.region, &[OwnedKey::of(&key).with(cache.me.seed).hash; 3]);
            cache.keys_with(b"key 1");
            cache.me.abandon_chunks(&[Place(random.next()).0]);
            if random.chance(50) {
                cache.me.clear();
            }
        }
    }
}

/// Claims, locks and waits.
fn coordinate(cache: &mut Cache, random: &mut Random, key: &[u8]) {
    let flags = random.below(16) as u32;
    let claimed = match random.below(4) {
        0 => cache.claim_lock(key, flags),
        1 => {
            let _ = cache.me.wait(&OwnedKey::of(key).with(cache.me.seed));
            cache.locks();
            return drop(cache.bells());
        }
        _ => cache.claim(key, flags, 10.0, random.below(20) as f64),
    };
    if let Ok(Claimed::Claimed(claim) | Claimed::Taken(claim)) = claimed {
        cache.me.stands(claim.number, claim.token);
        cache.me.extend(claim.number, claim.token, random.below(20) as f64);
        let with = With { expect: Expect::Claim(claim.number, claim.token), tags: &["one"], ..PLAIN };
        match random.below(3) {
            0 => drop(cache.store(key, b"loaded", &with)),
            1 => drop(cache.me.release(claim.number, claim.token)),
            _ => {}
        }
    }
}

/// Every word of the claims, of the seats and of the locks of buckets gets many values, also ones that the engine itself could have
/// written.
#[test]
fn any_bit_pattern_of_a_claim_is_at_worst_a_claim_that_is_taken() {
    let _watchdog = Watchdog::new("any_bit_pattern_of_a_claim", 120);
    let mut random = Random::new(seed("any_bit_pattern_of_a_claim"));
    let world = World::new(MODEL_SIZE);
    let mut owner = Cache::join(&world);
    owner.claim(b"k", 0, 100.0, 0.0).unwrap();
    owner.claim_lock(b"l", 0).unwrap();
    owner.wait(b"k");
    owner.set(b"a", b"value").unwrap();
    let bytes = world.bytes().to_vec();
    let geometry = world.region().geometry;
    let word = |at: u32| u64::from_le_bytes(bytes[at as usize..at as usize + 8].try_into().unwrap());
    let controls = (0..geometry.buckets).map(|bucket| geometry.bucket(bucket) + 120);
    let places = (320..400).step_by(8).chain((4096..geometry.tag_counter(0)).step_by(8)).chain(controls);
    for at in places {
        let own = (owner.me.seat as u64 + 1) << 48 | 1 << 16;
        let chance = random.next();
        let was = word(at);
        let patterns =
            [0, 1, u64::MAX, chance, was ^ 1 << (chance % 64), was << 32, was >> 16, own, f64::NAN.to_bits()];
        for pattern in patterns.into_iter().chain((0..8).map(|state| own | state)) {
            let world = World::holding(&bytes);
            world.patience.store(1, std::sync::atomic::Ordering::SeqCst);
            // The owner of seat 0 lives.
            let owner = Cache::join(&world);
            world.bytes().copy_from_slice(&bytes);
            world.bytes()[at as usize..at as usize + 8].copy_from_slice(&pattern.to_le_bytes());
            let mut cache = Cache::join(&world);
            let steps = accesses(|| {
                for _ in 0..10 {
                    coordinate(&mut cache, &mut random, b"k");
                    let _ = cache.claim_lock(b"l", random.below(16) as u32);
                    let _ = cache.set(b"k", b"value");
                    let _ = cache.remove(b"a", Expect::Anything);
                    cache.me.clear();
                }
                cache.me.participants();
            });
            assert!(steps < 20_000, "{steps} accesses with {pattern:x} at {at}");
            drop(owner);
        }
    }
}

#[test]
fn hostile_bytes_stay_bytes() {
    let _watchdog = Watchdog::new("hostile_bytes_stay_bytes", 120);
    let mut random = Random::new(seed("hostile_bytes_stay_bytes"));
    for _ in 0..scaled(150) {
        let world = World::new(MIB);
        world.patience.store(2, std::sync::atomic::Ordering::SeqCst);
        let mut one = Cache::join(&world);
        let mut two = Cache::join(&world);
        for _ in 0..1200 {
            anything(&mut one, &mut random);
        }
        for i in 0..600 {
            match random.below(4) {
                0 => damage(&world, &mut random),
                1 => damage_a_record(&world, &mut random),
                _ => {}
            }
            anything(if i % 3 == 0 { &mut two } else { &mut one }, &mut random);
        }
    }
}

/// A region that holds random bytes behind a valid header is harmless.
#[test]
fn noise_behind_a_header_is_harmless() {
    let _watchdog = Watchdog::new("noise_is_no_cache_but_no_danger", 60);
    let mut random = Random::new(seed("noise_is_no_cache_but_no_danger"));
    for _ in 0..scaled(20) {
        let world = World::new(MIB);
        world.patience.store(2, std::sync::atomic::Ordering::SeqCst);
        for byte in &mut world.bytes()[64..] {
            *byte = random.next() as u8;
        }
        let mut cache = Cache::join(&world);
        for _ in 0..300 {
            anything(&mut cache, &mut random);
        }
    }
}

/// An entry that points nowhere looks as if it were being moved. Readers miss it, and the next writer removes it.
#[test]
fn an_entry_that_points_nowhere_is_removed() {
    let world = World::new(MIB);
    let geometry = world.region().geometry;
    // A bit of the place, or of the two generation bits that count in tests.
    for bit in 0..30 {
        let mut cache = Cache::join(&world);
        cache.set(b"key", b"old").unwrap();
        let bucket = OwnedKey::of(b"key").with(cache.me.seed).hash as u32 & (geometry.buckets - 1);
        let way = cache.me.find(&OwnedKey::of(b"key").with(cache.me.seed)).unwrap().stamp.way;
        assert_eq!(way / 16, bucket);
        world.bytes()[(geometry.bucket(0) + way * 8 + bit / 8) as usize] ^= 1 << (bit % 8);
        assert_eq!(cache.get(b"key"), None);
        cache.set(b"key", b"new").unwrap();
        assert_eq!(cache.get(b"key").unwrap().value, b"new");
        cache.remove(b"key", Expect::Anything).unwrap();
        assert_eq!(cache.get(b"key"), None);
        cache.leave();
    }
}

/// A record from another life of its segment is a miss, even if an entry points to it.
#[test]
fn a_record_of_another_life_is_a_miss() {
    let world = World::new(MIB);
    let mut cache = Cache::join(&world);
    cache.set(b"key", b"value").unwrap();
    let way = cache.me.find(&OwnedKey::of(b"key").with(cache.me.seed)).unwrap().stamp.way;
    let entry_at = (world.region().geometry.bucket(0) + way * 8) as usize;
    let entry = u64::from_le_bytes(world.bytes()[entry_at..entry_at + 8].try_into().unwrap());
    let generation_at = ((entry & 0xFFF_FFFF) * 16 + 4) as usize;
    for by in [1, 4, 255] {
        let there = world.bytes()[generation_at];
        world.bytes()[generation_at] = there.wrapping_add(by);
        assert_eq!(cache.get(b"key"), None);
        world.bytes()[generation_at] = there;
        assert_eq!(cache.get(b"key").unwrap().value, b"value");
    }
}

/// Where the record of a key lies.
fn record_of(cache: &Cache, key: &[u8]) -> usize {
    let way = cache.me.find(&OwnedKey::of(key).with(cache.me.seed)).unwrap().stamp.way;
    let entry_at = (cache.world.region().geometry.bucket(0) + way * 8) as usize;
    let entry = u64::from_le_bytes(cache.world.bytes()[entry_at..entry_at + 8].try_into().unwrap());
    (entry & 0xFFF_FFFF) as usize * 16
}

/// A record longer than any real one, but not longer than its segment: its value is cut off, and it is evicted rather than
/// moved, however hot it is.
#[test]
fn a_record_longer_than_any_real_one_is_not_moved() {
    let world = World::new(MIB);
    let mut cache = Cache::join(&world);
    cache.set(b"key", b"value").unwrap();
    let (at, max_record) = (record_of(&cache, b"key"), world.region().geometry.max_record);
    assert!(max_record + 1024 <= world.region().geometry.segment_bytes());
    world.bytes()[at..at + 4].copy_from_slice(&(max_record + 1024).to_le_bytes());
    for i in 0..5_000u32 {
        assert!(cache.get(b"key").is_none_or(|got| got.value.len() <= max_record as usize));
        cache.set(&i.to_le_bytes(), &[1; 1000]).unwrap();
    }
    assert!(cache.get(b"key").is_none());
}

/// A tag block that claims more bytes than its record has makes the record a miss, also where the sum of lengths wraps around.
#[test]
fn a_tag_block_longer_than_its_record_is_a_miss() {
    let world = World::new(MIB);
    let mut cache = Cache::join(&world);
    cache.store(b"key", b"value", &With { tags: &["tag"], ..PLAIN }).unwrap();
    let at = record_of(&cache, b"key") + 32;
    for bytes in [1 << 12, 1 << 20, 0xFFFF_FFE0u32, 0xFFFF_FFF8] {
        let there: [u8; 4] = world.bytes()[at..at + 4].try_into().unwrap();
        world.bytes()[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
        assert_eq!(cache.get(b"key"), None, "{bytes}");
        world.bytes()[at..at + 4].copy_from_slice(&there);
        assert_eq!(cache.get(b"key").unwrap().value, b"value");
    }
}

/// A participant changes a number, which copies its record. Meanwhile the number is moved away, another record lies in its place
/// for a while, and then the number is moved back to the same place, so many lives of the segment later that the entry is the
/// same again. The test itself writes what the other participants would have written. `change_it` returns the number that must
/// be there afterwards.
fn a_number_comes_back_during(change_it: impl Fn(&mut Cache) -> f64) {
    const LIVES: u32 = 4;
    let mut came_back = 0;
    'every: for leaves in 0.. {
        for stays in 1..6 {
            let world = World::new(MIB);
            let mut cache = Cache::join(&world);
            let geometry = world.region().geometry;
            let (key, value) = (OwnedKey::of(b"n"), 5.0f64.to_le_bytes());
            cache.set_number(b"n", 5.0).unwrap();
            // Fills the segment, so that no writer appends to it.
            for i in 0..40u32 {
                cache.set(&i.to_le_bytes(), &[1; 1000]).unwrap();
            }
            let way = cache.me.find(&key.with(cache.me.seed)).unwrap().stamp.way;
            let entry_at = (geometry.bucket(0) + way * 8) as usize;
            let at = record_of(&cache, b"n");
            // Where the number is meanwhile: the record of another number, which then is forgotten, with the key of this one.
            cache.set_number(b"m", 5.0).unwrap();
            let elsewhere = record_of(&cache, b"m");
            cache.remove(b"m", Expect::Anything).unwrap();
            world.bytes().copy_within(at + 16..at + 40, elsewhere + 16);
            let word = |at: usize| u64::from_le_bytes(world.bytes()[at..at + 8].try_into().unwrap());
            let here = word(entry_at);
            let there = here & !0xFFF_FFFF | elsewhere as u64 / 16;
            let state_at = geometry.state(geometry.segment_of(at as u32).unwrap()) as usize;
            let base = world.bytes().as_mut_ptr() as usize;
            // SAFETY: within the region, which outlives this. Its only other user is the call that runs this hook.
            let change = move |at: usize, bytes: &[u8]| unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), (base + at) as *mut u8, bytes.len())
            };
            // SAFETY: within the region, and aligned. Its only other user is the call that runs this hook.
            let entry = move || unsafe { ((base + entry_at) as *const u64).read() };
            let (accesses, back) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
            let (count, is_back) = (accesses.clone(), back.clone());
            faults::before_access(Some(Box::new(move || {
                count.set(count.get() + 1);
                if count.get() == leaves && entry() == here {
                    change(entry_at, &there.to_le_bytes());
                    change(at + 40, &100.0f64.to_le_bytes());
                    change(state_at + 4, &LIVES.to_le_bytes());
                } else if count.get() == leaves + stays && entry() == there {
                    change(at + 40, &value);
                    change(at + 4, &(1 + LIVES).to_le_bytes());
                    change(state_at + 4, &(1 + LIVES).to_le_bytes());
                    change(entry_at, &here.to_le_bytes());
                    is_back.set(true);
                }
            })));
            let expected = change_it(&mut cache);
            faults::before_access(None);
            if accesses.get() < leaves {
                break 'every;
            }
            came_back += back.get() as u32;
            let got = cache.get(b"n").map(|got| f64::from_le_bytes(got.value[..8].try_into().unwrap()));
            assert_eq!(got, Some(expected), "away from access {leaves} for {stays}");
        }
    }
    assert!(came_back > 50, "{came_back}");
}

#[test]
fn m2_a_number_comes_back_while_it_is_incremented() {
    a_number_comes_back_during(|cache| match cache.increment(b"n", 1.0, 0.0, &PLAIN) {
        Ok(sum) => {
            assert_eq!(sum, 6.0);
            sum
        }
        Err(_) => 5.0,
    });
}

#[test]
fn m2_a_number_comes_back_while_it_is_touched() {
    a_number_comes_back_during(|cache| {
        let _ = cache.me.touch(&OwnedKey::of(b"n").with(cache.me.seed), 1e18);
        5.0
    });
}
