//! Looking at a region without a seat: what is seen, and that nothing is written, whatever state the region is in.

use cache_machine_core::{Class, Counter, FRESH, PENDING};

use crate::harness::*;

/// Makes every call that a spectator may make. Returns what it has seen, as text.
fn look(spectator: &mut Cache) -> String {
    let mut seen = String::new();
    for key in spectator.keys() {
        let residence = spectator.me.residence(&OwnedKey::of(&key).with(spectator.me.seed));
        seen += &format!("{key:?} {:?} {residence:?}\n", spectator.peek(&key).map(|got| got.value.len()));
    }
    let mut cursor = 0;
    while let Some(locked) = spectator.me.next_locked(cursor) {
        seen += &format!("{locked:?}\n");
        cursor = locked.bucket + 1;
    }
    let (mut cursor, mut name) = (0, [0; 10]);
    while let Some(claim) = spectator.me.next_claim(cursor, &mut name) {
        seen += &format!("{claim:?}\n");
        cursor = claim.number + 1;
    }
    let census = spectator.me.census();
    seen + &format!("{census:?} {:?} {:?}", spectator.me.sum(Counter::Sets as u32), spectator.me.validate())
}

#[test]
fn a_spectator_writes_nothing_whenever_a_writer_dies() {
    let _watchdog = Watchdog::new("a_spectator_writes_nothing_whenever_a_writer_dies", 120);
    let world = World::new(MIB);
    let mut cache = Cache::join(&world);
    for i in 0..200u32 {
        cache.store(&i.to_le_bytes(), &[i as u8; 90], &With { tags: &["tag"], expiry: 1000.0, ..PLAIN }).unwrap();
    }
    cache.set(b"large", &[7; 100_000]).unwrap();
    let mut locked = 0;
    // Stops looking where a change has fewer accesses than that.
    for n in 0.. {
        let mut writer = Cache::join(&world);
        let dead = dies_at(n, || writer.set(b"key", &[1; 300]));
        let before = world.bytes().to_vec();
        let seen = look(&mut Cache::spectate(&world));
        assert!(*world.bytes() == before[..], "it wrote after a death at access {n}");
        locked += seen.contains("LockedBucket") as u32;
        if !dead {
            break;
        }
        writer.die();
    }
    assert!(locked > 0, "no writer died with a lock");
}

#[test]
fn a_spectator_sees_locks_of_buckets_with_their_holders() {
    let world = World::new(MIB);
    let mut living = Cache::join(&world);
    living.set(b"key", b"value").unwrap();
    let spectator = Cache::spectate(&world);
    assert_eq!(spectator.me.next_locked(0), None);
    let bucket = living.bucket(b"key");
    let mut writer = Cache::join(&world);
    let mut n = 0;
    while dies_at(n, || writer.set(b"key", b"other")) && spectator.me.next_locked(0).is_none() {
        n += 1;
        let next = Cache::join(&world);
        std::mem::replace(&mut writer, next).die();
    }
    let locked = spectator.me.next_locked(0).expect("a writer died with the lock");
    assert_eq!((locked.bucket, locked.seat, locked.gone), (bucket, writer.me.seat, false));
    assert_eq!(spectator.me.next_locked(bucket).map(|locked| locked.bucket), Some(bucket));
    assert_eq!(spectator.me.next_locked(bucket + 1), None);
    writer.die();
    // Whoever reaps the dead lets its locks go, although nobody has taken them yet.
    living.me.participants();
    assert!(spectator.me.next_locked(0).is_some_and(|locked| locked.gone));
    living.set(b"key", b"third").unwrap();
    assert_eq!(spectator.me.next_locked(0), None);
}

#[test]
fn a_spectator_sees_claims_of_the_living_and_the_dead_and_none_that_are_void() {
    let world = World::new(MIB);
    let [owner, other] = [Cache::join(&world), Cache::join(&world)];
    owner.claim(b"loaded", FRESH, 500.0, 0.0).unwrap();
    owner.claim_lock(b"lock", 0).unwrap();
    other.claim_lock(b"lock", PENDING).unwrap();
    let spectator = Cache::spectate(&world);
    let claims = || {
        let (mut cursor, mut found, mut name) = (0, Vec::new(), [0; 10]);
        while let Some(claim) = spectator.me.next_claim(cursor, &mut name) {
            found.push((format!("{:?}", claim.state), claim.seat, claim.deadline == 500.0, claim.overtaken));
            cursor = claim.number + 1;
        }
        found.sort();
        found
    };
    let (one, two) = (owner.me.seat, other.me.seat);
    let state = |state: &str, seat, deadline| (state.to_string(), seat, deadline, false);
    let all = [state("Loading", one, true), state("Locked", one, false), state("Pending", two, false)];
    assert_eq!(claims(), all);
    world.kill(one);
    assert_eq!(claims(), all);
    other.me.participants();
    assert_eq!(claims(), [state("Pending", two, false)]);
}

#[test]
fn residence_tells_heat_class_and_bytes() {
    let world = World::new(MIB);
    let mut cache = Cache::join(&world);
    let spectator = Cache::spectate(&world);
    let residence = |key: &[u8]| spectator.me.residence(&OwnedKey::of(key).with(spectator.me.seed));
    assert_eq!(residence(b"key"), None);
    cache.set(b"key", &[1; 100]).unwrap();
    let found = residence(b"key").unwrap();
    assert_eq!((found.heat, found.class), (0, Class::Small));
    assert!(found.bytes > 100 && found.bytes < 100 + 64, "{}", found.bytes);
    for heat in 1..5 {
        cache.get(b"key").unwrap();
        assert_eq!(residence(b"key").unwrap().heat, heat.min(3));
    }
    cache.set(b"large", &[1; 100_000]).unwrap();
    assert!(residence(b"large").unwrap().bytes > 100_000);
}
