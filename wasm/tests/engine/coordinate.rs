//! Claims, locks, waits and bells: each rule alone. `claim_models.rs` shows them under deaths and in every order.

use std::sync::atomic::{AtomicU64, Ordering};

use cache_machine_core::{
    Busy, Claim, Claimed, Expect, FRESH, MODEL_SIZE, PENDING, Refused, Released, STEAL, Stands, WAIT,
};

use crate::harness::*;

/// A deadline that no test reaches.
const LATER: f64 = 1000.0;

fn made(claimed: Result<Claimed, Busy>) -> Claim {
    match claimed {
        Ok(Claimed::Claimed(claim)) => claim,
        other => panic!("not claimed: {other:?}"),
    }
}

fn is_taken(claimed: Result<Claimed, Busy>) -> bool {
    matches!(claimed, Ok(Claimed::Taken(_)))
}

fn commit(cache: &mut Cache, key: &[u8], claim: &Claim, tags: &[&str]) -> Result<u64, Refused> {
    cache.store(key, b"loaded", &With { tags, expect: Expect::Claim(claim.number, claim.token), ..PLAIN })
}

fn two(size: u32) -> (Cache, Cache) {
    let world = World::new(size);
    (Cache::join(&world), Cache::join(&world))
}

#[test]
fn a_key_is_claimed_by_one_and_free_again_after_its_store() {
    let (mut a, b) = two(MIB);
    let claim = made(a.claim(b"key", 0, LATER, 0.0));
    assert_eq!(a.me.stands(claim.number, claim.token), Stands::Stands);
    assert_eq!(b.claim(b"key", 0, LATER, 0.0), Ok(Claimed::Taken(claim)));
    assert!(is_taken(a.claim(b"key", 0, LATER, 0.0)), "also for the owner itself");
    made(b.claim(b"another key", 0, LATER, 0.0));
    commit(&mut a, b"key", &claim, &[]).unwrap();
    assert_eq!(b.me.stands(claim.number, claim.token), Stands::Gone);
    assert_eq!(b.claim(b"key", 0, LATER, 0.0), Ok(Claimed::Present));
    let fresh = made(b.claim(b"key", FRESH, LATER, 0.0));
    assert!(fresh.token > claim.token);
    assert_eq!(commit(&mut a, b"key", &claim, &[]), Err(Refused::Overtaken), "a claim is used once");
    assert_eq!(commit(&mut a, b"key", &fresh, &[]), Err(Refused::Overtaken), "a claim of another participant");
}

#[test]
fn a_released_claim_can_be_claimed_again() {
    let (mut a, b) = two(MIB);
    let claim = made(a.claim(b"key", 0, LATER, 0.0));
    assert!(!b.me.release(claim.number, claim.token), "by another participant");
    assert!(!a.me.release(claim.number, claim.token + 1), "with another token");
    assert!(a.me.release(claim.number, claim.token));
    assert!(!a.me.release(claim.number, claim.token), "twice");
    assert_eq!(commit(&mut a, b"key", &claim, &[]), Err(Refused::Overtaken));
    made(b.claim(b"key", 0, LATER, 0.0));
}

/// What counts as a change of the value of `key`.
type Change = (&'static str, fn(&mut Cache, &[u8]));
const CHANGES: &[Change] = &[
    ("set", |cache, key| _ = cache.set(key, b"new").unwrap()),
    ("add", |cache, key| _ = cache.store(key, b"new", &With { expect: Expect::Absent, ..PLAIN }).unwrap()),
    ("a large set", |cache, key| {
        _ = cache.set(key, &vec![7; 3 * cache.me.region.geometry.max_record as usize]).unwrap()
    }),
    ("increment", |cache, key| _ = cache.increment(key, 1.0, 0.0, &PLAIN).unwrap()),
    ("a delete of an absent key", |cache, key| _ = cache.remove(key, Expect::Anything).unwrap()),
    ("an expire of an absent key", |cache, key| assert!(!cache.expire(key).unwrap())),
    ("an increment in place", |cache, key| {
        // The number became absent only for those who load: it was there before the claim, and expired.
        cache.increment(key, 1.0, 0.0, &PLAIN).unwrap();
        cache.increment(key, 1.0, 0.0, &PLAIN).unwrap();
    }),
];

#[test]
fn every_change_of_a_key_overtakes_its_claim() {
    for &(name, change) in CHANGES {
        let (mut a, mut b) = two(MIB);
        let claim = made(a.claim(b"key", 0, LATER, 0.0));
        let other = made(a.claim(b"other", 0, LATER, 0.0));
        change(&mut b, b"key");
        assert_eq!(a.me.stands(claim.number, claim.token), Stands::Overtaken, "{name}");
        assert_eq!(commit(&mut a, b"key", &claim, &[]), Err(Refused::Overtaken), "{name}");
        assert_ne!(b.get(b"key").map(|got| got.value), Some(b"loaded".to_vec()), "{name}");
        // Who comes later starts a load of its own.
        let next = made(b.claim(b"key", FRESH, LATER, 0.0));
        assert_eq!(
            a.me.stands(claim.number, claim.token),
            Stands::Overtaken,
            "{name}: it stays until its owner frees it"
        );
        assert!(a.me.release(claim.number, claim.token));
        commit(&mut b, b"key", &next, &[]).unwrap();
        commit(&mut a, b"other", &other, &[]).unwrap();
    }
}

#[test]
fn changes_of_an_entry_that_is_there_overtake_a_fresh_claim() {
    let changes: &[Change] = &[
        ("a compare-and-set", |cache, key| {
            let version = cache.get(key).unwrap().version;
            cache.store(key, b"new", &With { expect: Expect::Version(version), ..PLAIN }).unwrap();
        }),
        ("a delete", |cache, key| assert!(cache.remove(key, Expect::Anything).unwrap())),
        ("an expire", |cache, key| assert!(cache.expire(key).unwrap())),
        ("an expire with a grace", |cache, key| {
            cache.store(key, b"new", &With { grace: NEVER, ..PLAIN }).unwrap();
            let claim = made(cache.claim(key, FRESH | WAIT, LATER, LATER));
            assert!(cache.expire(key).unwrap());
            assert_eq!(cache.me.stands(claim.number, claim.token), Stands::Overtaken);
        }),
        ("a take", |cache, key| {
            let version = cache.get(key).unwrap().version;
            assert!(cache.remove(key, Expect::Version(version)).unwrap());
        }),
        ("an increment of a number that was set", |cache, key| _ = cache.increment(key, 1.0, 0.0, &PLAIN).unwrap()),
        ("an increment in place", |cache, key| {
            cache.increment(key, 1.0, 0.0, &PLAIN).unwrap();
            let claim = made(cache.claim(key, FRESH | WAIT, LATER, LATER));
            cache.increment(key, 1.0, 0.0, &PLAIN).unwrap();
            assert_eq!(cache.me.stands(claim.number, claim.token), Stands::Overtaken);
        }),
    ];
    for &(name, change) in changes {
        let (mut a, mut b) = two(MIB);
        a.set_number(b"key", 1.0).unwrap();
        let claim = made(a.claim(b"key", FRESH, LATER, 0.0));
        change(&mut b, b"key");
        assert_eq!(a.me.stands(claim.number, claim.token), Stands::Overtaken, "{name}");
        assert_eq!(commit(&mut a, b"key", &claim, &[]), Err(Refused::Overtaken), "{name}");
    }
}

#[test]
fn a_change_that_is_refused_overtakes_nothing() {
    let (mut a, mut b) = two(MIB);
    b.set(b"key", b"old").unwrap();
    let claim = made(a.claim(b"key", FRESH, LATER, 0.0));
    let with = |expect| With { expect, ..PLAIN };
    assert_eq!(b.store(b"key", b"new", &with(Expect::Absent)), Err(Refused::Unexpected));
    assert_eq!(b.store(b"key", b"new", &with(Expect::Version(1234))), Err(Refused::Unexpected));
    assert_eq!(b.remove(b"key", Expect::Version(1234)), Ok(false));
    assert_eq!(b.increment(b"key", 1.0, 0.0, &PLAIN), Err(Refused::NotANumber));
    assert_eq!(b.touch(b"key", 5000.0), Ok(true), "another expiry is no other value");
    commit(&mut a, b"key", &claim, &[]).unwrap();
    let absent = made(a.claim(b"absent", 0, LATER, 0.0));
    assert_eq!(b.store(b"absent", b"new", &with(Expect::Present)), Err(Refused::Unexpected));
    assert_eq!(b.remove(b"absent", Expect::Version(2)), Ok(false));
    assert_eq!(b.touch(b"absent", 5000.0), Ok(false));
    commit(&mut a, b"absent", &absent, &[]).unwrap();
}

#[test]
fn a_value_loaded_before_a_clear_or_an_invalidation_of_its_tags_is_not_stored() {
    let (mut a, mut b) = two(MIB);
    let claim = made(a.claim(b"key", 0, LATER, 0.0));
    b.me.clear();
    assert_eq!(commit(&mut a, b"key", &claim, &[]), Err(Refused::Invalidated));
    assert_eq!(a.me.stands(claim.number, claim.token), Stands::Stands, "nobody has asked for the key since");
    let next = made(b.claim(b"key", 0, LATER, 0.0));
    assert_eq!(a.me.stands(claim.number, claim.token), Stands::Overtaken, "nobody waits for what is not stored");
    assert!(a.me.release(claim.number, claim.token) && b.me.release(next.number, next.token));

    let claim = made(a.claim(b"key", 0, LATER, 0.0));
    b.invalidate(&["one"]);
    assert_eq!(commit(&mut a, b"key", &claim, &["two", "one"]), Err(Refused::Invalidated));
    assert_eq!(a.get(b"key"), None);
    commit(&mut a, b"key", &claim, &["two"]).unwrap();

    // An expired tag counts like an invalidated one.
    let claim = made(a.claim(b"key", FRESH, LATER, 0.0));
    b.expire_tags(&["one"]);
    assert_eq!(commit(&mut a, b"key", &claim, &["two", "one"]), Err(Refused::Invalidated));
    commit(&mut a, b"key", &claim, &["two"]).unwrap();

    // What was invalidated before the claim does not count, whoever else is invalidated afterwards.
    let claim = made(a.claim(b"key", FRESH, LATER, 0.0));
    b.invalidate(&["two"]);
    commit(&mut a, b"key", &claim, &["one"]).unwrap();
    assert_eq!(b.get(b"key").unwrap().value, b"loaded");
}

#[test]
fn a_large_value_is_committed_and_refused_as_a_small_one() {
    let (mut a, mut b) = two(MIB);
    let large = vec![9; 3 * a.me.region.geometry.max_record as usize];
    let with = |claim: &Claim| With { expect: Expect::Claim(claim.number, claim.token), ..PLAIN };
    let claim = made(a.claim(b"key", 0, LATER, 0.0));
    a.store(b"key", &large, &with(&claim)).unwrap();
    assert_eq!(a.me.stands(claim.number, claim.token), Stands::Gone);
    let claim = made(a.claim(b"key", FRESH, LATER, 0.0));
    b.set(b"key", b"new").unwrap();
    assert_eq!(a.store(b"key", &large, &with(&claim)), Err(Refused::Overtaken));
    assert_eq!(b.get(b"key").unwrap().value, b"new");
    a.check();
}

#[test]
fn a_lease_that_is_over_is_taken_over_and_the_late_value_refused() {
    let (mut a, mut b) = two(MIB);
    let slow = made(a.claim(b"key", 0, 100.0, 0.0));
    assert!(is_taken(b.claim(b"key", 0, 200.0, 99.0)));
    assert!(a.me.extend(slow.number, slow.token, 150.0));
    assert!(is_taken(b.claim(b"key", 0, 200.0, 149.0)));
    let next = made(b.claim(b"key", 0, 250.0, 150.0));
    assert_eq!(a.me.stands(slow.number, slow.token), Stands::Overtaken);
    assert!(a.me.extend(slow.number, slow.token, 300.0), "it is its own still, to be freed");
    assert!(!b.me.extend(slow.number, slow.token, 300.0));
    assert!(is_taken(a.claim(b"key", 0, 300.0, 160.0)), "the new claim counts, not the overtaken one");
    assert_eq!(commit(&mut a, b"key", &slow, &[]), Err(Refused::Overtaken));
    commit(&mut b, b"key", &next, &[]).unwrap();
}

#[test]
fn the_claims_of_those_who_died_or_left_are_void() {
    for leaves in [false, true] {
        let world = World::new(MIB);
        let mut me = Cache::join(&world);
        let other = Cache::join(&world);
        let old = made(other.claim(b"key", 0, LATER, 0.0));
        made(other.claim(b"another key", 0, LATER, 0.0));
        made(other.claim_lock(b"lock", 0));
        if leaves {
            other.leave()
        } else {
            other.die()
        }
        let claim = made(me.claim(b"key", 0, LATER, 0.0));
        assert_eq!(me.me.stands(old.number, old.token), Stands::Gone);
        made(me.claim_lock(b"lock", 0));
        // A new owner of the same seat has nothing to do with the claims of the last one.
        let heir = Cache::join(&world);
        assert!(!heir.me.release(old.number, old.token));
        assert_eq!(heir.me.seat, old.seat);
        assert!(is_taken(heir.claim(b"key", 0, LATER, 0.0)));
        made(me.claim(b"another key", 0, LATER, 0.0));
        commit(&mut me, b"key", &claim, &[]).unwrap();
    }
}

/// As many keys as a set has claims, all in the set of the first one.
fn keys_of_a_set(cache: &Cache, count: usize) -> Vec<Vec<u8>> {
    let set = |key: &[u8]| cache.me.region.geometry.first_claim(cache.bucket(key));
    let wanted = set(b"0");
    (0..).map(|i: u64| i.to_string().into_bytes()).filter(|key| set(key) == wanted).take(count).collect()
}

#[test]
fn a_set_full_of_living_claims_refuses_another_one_until_one_is_free() {
    let world = World::new(MIB);
    let (a, b) = (Cache::join(&world), Cache::join(&world));
    let ways = a.me.region.geometry.claim_ways as usize;
    let keys = keys_of_a_set(&a, ways + 2);
    let claims: Vec<Claim> = keys[..ways].iter().map(|key| made(a.claim(key, 0, LATER, 0.0))).collect();
    assert_eq!(b.claim(&keys[ways], 0, LATER, 0.0), Ok(Claimed::Full));
    assert!(is_taken(b.claim(&keys[0], 0, LATER, 0.0)));
    // A lease that is over makes no room, because its owner has not freed it; and it is not overtaken in vain.
    assert_eq!(b.claim(&keys[0], 0, 2.0 * LATER, LATER), Ok(Claimed::Full));
    assert_eq!(a.me.stands(claims[0].number, claims[0].token), Stands::Stands);
    assert!(a.me.release(claims[3].number, claims[3].token));
    made(b.claim(&keys[ways], 0, LATER, 0.0));
    // The death of the others is proved before the set counts as full.
    a.die();
    made(b.claim(&keys[ways + 1], 0, LATER, 0.0));
}

#[test]
fn an_operation_that_was_cut_short_keeps_its_thread_s_claims_except_for_one_that_was_being_made() {
    let world = World::new(MODEL_SIZE);
    let mut me = Cache::join(&world);
    let other = Cache::join(&world);
    let load = made(me.claim(b"a", 0, LATER, 0.0));
    let lock = made(me.claim_lock(b"lock", 0));
    let mut n = 0;
    while dies_at(n, || made(me.claim(b"b", 0, LATER, 0.0))) {
        me.me.recover();
        assert_eq!(me.me.stands(load.number, load.token), Stands::Stands, "cut before access {n}");
        assert!(is_taken(other.claim_lock(b"lock", 0)), "cut before access {n}");
        // There is room for three claims: only if nothing is left of the one that was cut off, it can be made.
        let free = made(other.claim(b"b", 0, LATER, 0.0));
        assert!(other.me.release(free.number, free.token), "cut before access {n}");
        n += 1;
    }
    assert!(n > 10);
    commit(&mut me, b"a", &load, &[]).unwrap();
    assert!(me.me.release(lock.number, lock.token));
}

#[test]
fn a_lock_is_held_by_one_until_it_is_released_or_stolen() {
    let (a, mut b) = two(MIB);
    let held = made(a.claim_lock(b"lock", 0));
    assert_eq!(b.claim_lock(b"lock", 0), Ok(Claimed::Taken(held)));
    // A lock is no load of a key with the same bytes, and no change of the key overtakes it.
    made(b.claim(b"lock", 0, LATER, 0.0));
    b.set(b"lock", b"value").unwrap();
    assert_eq!(a.me.stands(held.number, held.token), Stands::Stands);
    let stolen = made(b.claim_lock(b"lock", STEAL));
    assert!(stolen.token > held.token);
    assert_eq!(a.me.stands(held.number, held.token), Stands::Overtaken);
    assert_eq!(a.claim_lock(b"lock", 0), Ok(Claimed::Taken(stolen)));
    assert!(a.me.release(held.number, held.token));
    assert_eq!(a.claim_lock(b"lock", 0), Ok(Claimed::Taken(stolen)), "the release of what was stolen frees nothing");
    assert!(b.me.release(stolen.number, stolen.token));
    made(a.claim_lock(b"lock", 0));
}

#[test]
fn locks_and_requests_are_listed_with_their_names_and_threads() {
    let (a, b) = two(MIB);
    assert_eq!(a.locks(), []);
    let long = [b'n'; 200];
    let held = made(a.claim_lock(&long, 0));
    made(a.claim(b"a load", 0, LATER, 0.0));
    let request = made(b.claim_lock(&long, PENDING));
    let listed = |token| a.locks().into_iter().find(|(lock, _)| lock.token == token).unwrap();
    assert_eq!(b.locks().len(), 2);
    let (lock, name) = listed(held.token);
    assert_eq!((lock.seat, lock.pending, lock.name_bytes, &name[..]), (a.me.seat, false, 200, &long[..80]));
    let (lock, _) = listed(request.token);
    assert_eq!((lock.seat, lock.pending), (b.me.seat, true));
    // Requests fill no set: the locks must find room.
    let ways = a.me.region.geometry.claim_ways;
    let requests = (0..ways).filter(|_| matches!(b.claim_lock(&long, PENDING), Ok(Claimed::Claimed(_)))).count();
    assert_eq!(requests as u32, ways / 2 - 1);
    b.die();
    assert_eq!(a.locks().len(), 1, "those of the dead are not listed");
    assert!(a.me.release(held.number, held.token));
    assert_eq!(a.locks(), []);
}

/// Foreign bytes: a request whose owner is dead and which is nobody's tenure, so that it stays when its owner was reaped.
#[test]
fn a_release_ends_where_the_queue_has_a_request_that_nobody_can_free() {
    let _watchdog = Watchdog::new("a request that nobody can free", 20);
    let (a, b) = two(MIB);
    let held = made(a.claim_lock(b"lock", 0));
    let (request, seat) = (made(b.claim_lock(b"lock", PENDING)), b.me.seat as u64);
    b.die();
    assert!(a.me.reap_if_dead(seat as u32));
    // The state `Pending` of the tenure 0, which a seat without an owner has: see `format/claim.rs`.
    let owner = (seat + 1) << 48 | 4;
    a.me.region.word(a.me.region.geometry.claim(request.number)).store(owner, Ordering::SeqCst);
    assert_ne!(a.me.release_lock(held.number, held.token), Released::Gone);
    made(a.claim_lock(b"lock", 0));
}

/// What rings those who wait for a value of `key`.
const RINGING: &[Change] = &[
    ("set", |cache, key| _ = cache.set(key, b"new").unwrap()),
    ("a large set", |cache, key| {
        _ = cache.set(key, &vec![7; 3 * cache.me.region.geometry.max_record as usize]).unwrap()
    }),
    ("increment", |cache, key| _ = cache.increment(key, 1.0, 0.0, &PLAIN).unwrap()),
    ("a commit", |cache, key| {
        let claim = made(cache.claim(key, FRESH, LATER, 0.0));
        commit(cache, key, &claim, &[]).unwrap();
    }),
    ("a release", |cache, key| {
        let claim = made(cache.claim(key, FRESH, LATER, 0.0));
        assert!(cache.me.release(claim.number, claim.token));
    }),
    ("clear", |cache, _| cache.me.clear()),
    ("invalidate", |cache, _| cache.invalidate(&["any"])),
    ("expire tags", |cache, _| cache.expire_tags(&["any"])),
];

#[test]
fn every_change_rings_those_who_wait_for_the_key_once() {
    for &(name, change) in RINGING {
        let world = World::new(MIB);
        let mut writer = Cache::join(&world);
        let (waiter, other, idle) = (Cache::join(&world), Cache::join(&world), Cache::join(&world));
        assert_eq!(waiter.me.wait(&OwnedKey::of(b"key").with(waiter.me.seed)), Ok(waiter.bucket(b"key") % 64));
        waiter.wait(b"key");
        other.wait(b"key");
        change(&mut writer, b"key");
        assert_eq!(writer.bells(), [waiter.me.seat, other.me.seat], "{name}");
        change(&mut writer, b"key");
        assert_eq!(writer.bells(), [], "{name}: they have not looked since");
        waiter.heard();
        change(&mut writer, b"key");
        assert_eq!(writer.bells(), [waiter.me.seat], "{name}");
        assert!(idle.bells().is_empty());
    }
}

#[test]
fn a_delete_and_an_increment_in_place_ring() {
    let (mut a, b) = two(MIB);
    a.increment(b"key", 1.0, 0.0, &PLAIN).unwrap();
    b.wait(b"key");
    a.increment(b"key", 1.0, 0.0, &PLAIN).unwrap();
    assert_eq!(a.bells(), [b.me.seat]);
    b.heard();
    assert!(a.remove(b"key", Expect::Anything).unwrap());
    assert_eq!(a.bells(), [b.me.seat]);
    b.heard();
    assert!(!a.remove(b"key", Expect::Anything).unwrap());
    assert_eq!(a.bells(), [], "nothing was there, so nothing has changed");
}

#[test]
fn an_expire_rings_with_a_grace_and_without() {
    for grace in [0.0, NEVER] {
        let (mut a, b) = two(MIB);
        a.store(b"key", b"value", &With { grace, ..PLAIN }).unwrap();
        b.wait(b"key");
        assert!(a.expire(b"key").unwrap());
        assert_eq!(a.bells(), [b.me.seat]);
        b.heard();
        assert!(!a.expire(b"key").unwrap());
        assert_eq!(a.bells(), [], "it had expired, so nothing has changed");
    }
}

#[test]
fn a_participant_is_rung_by_its_own_changes_too() {
    let (mut a, _) = two(MIB);
    a.wait(b"key");
    a.set(b"key", b"value").unwrap();
    assert_eq!(a.bells(), [a.me.seat]);
}

#[test]
fn nobody_is_rung_for_a_key_of_another_class_or_after_it_waits_no_more() {
    let world = World::new(MIB);
    let (mut a, b) = (Cache::join(&world), Cache::join(&world));
    let other = (0..).map(|i: u64| i.to_string().into_bytes()).find(|key| a.bucket(key) % 64 != a.bucket(b"key") % 64);
    b.wait(b"key");
    a.set(&other.unwrap(), b"value").unwrap();
    assert_eq!(a.bells(), []);
    b.wait_no_more();
    a.set(b"key", b"value").unwrap();
    a.me.clear();
    assert_eq!(a.bells(), []);
}

#[test]
fn a_set_costs_as_much_after_the_last_wait_and_the_last_claim_as_before_the_first() {
    let (mut a, b) = two(MIB);
    let mut cost = || {
        a.bells();
        accesses(|| a.set(b"key", b"value"))
    };
    cost();
    let plain = cost();
    b.wait(b"key");
    let claim = made(b.claim(b"key", FRESH, LATER, 0.0));
    assert!(cost() > plain);
    assert!(cost() > plain);
    b.wait_no_more();
    assert!(b.me.release(claim.number, claim.token));
    // This one finds nobody and removes the flags.
    assert!(cost() > plain);
    assert_eq!(cost(), plain);
}

#[test]
fn who_waits_for_a_claim_is_seen_by_its_owner_and_rung_when_it_is_free() {
    let (mut a, b) = two(MIB);
    let claim = made(a.claim(b"key", 0, LATER, 0.0));
    assert!(is_taken(b.claim(b"key", 0, LATER, 0.0)));
    assert!(!a.me.is_waited_for(claim.number, claim.token));
    assert!(is_taken(b.claim(b"key", WAIT, LATER, 0.0)));
    assert!(a.me.is_waited_for(claim.number, claim.token));
    assert!(!a.me.is_waited_for(claim.number, claim.token + 1));
    commit(&mut a, b"key", &claim, &[]).unwrap();
    assert_eq!(a.bells(), [b.me.seat]);
}

#[test]
fn who_died_or_left_is_not_rung() {
    for leaves in [false, true] {
        let world = World::new(MIB);
        let mut a = Cache::join(&world);
        let (b, c) = (Cache::join(&world), Cache::join(&world));
        b.wait(b"key");
        c.wait(b"key");
        if leaves {
            b.leave();
        } else {
            b.die();
            a.me.participants();
        }
        a.set(b"key", b"value").unwrap();
        a.me.clear();
        assert_eq!(a.bells(), [c.me.seat]);
        // Nor the next owner of the seat.
        let heir = Cache::join(&world);
        assert!(!heir.is_rung());
        a.set(b"key", b"value").unwrap();
        assert_eq!(a.bells(), []);
    }
}

#[test]
fn nobody_joins_a_claim_that_its_owner_has_closed_and_who_had_joined_is_counted() {
    for joined in [false, true] {
        let (a, b) = two(MIB);
        let claim = made(a.claim(b"key", 0, LATER, 0.0));
        if joined {
            assert!(is_taken(b.claim(b"key", WAIT, LATER, 0.0)));
        }
        assert_eq!(b.me.close_claim(claim.number, claim.token), None, "by another participant");
        assert_eq!(a.me.close_claim(claim.number, claim.token + 1), None, "with another token");
        assert_eq!(a.me.close_claim(claim.number, claim.token), Some(joined));
        let next = made(b.claim(b"key", WAIT, LATER, 0.0));
        assert_eq!(a.me.stands(claim.number, claim.token), Stands::Overtaken);
        assert_eq!(a.me.close_claim(claim.number, claim.token), Some(joined), "closed twice");
        assert!(a.me.release(claim.number, claim.token));
        assert_eq!(a.me.close_claim(claim.number, claim.token), None, "after its release");
        assert_eq!(a.me.stands(next.number, next.token), Stands::Stands);
    }
}

#[test]
fn an_operation_that_was_cut_short_keeps_its_thread_s_waits() {
    let (mut a, b) = two(MIB);
    b.wait(b"key");
    b.me.recover();
    a.set(b"key", b"value").unwrap();
    assert_eq!(a.bells(), [b.me.seat]);
}

#[test]
fn a_change_of_one_key_of_a_bucket_leaves_the_claim_of_another_one_to_be_overtaken_later() {
    let (mut a, b) = two(MIB);
    let bucket = a.bucket(b"key");
    let other = (0..).map(|i: u64| i.to_string().into_bytes()).find(|key| a.bucket(key) == bucket).unwrap();
    let (one, two) = (made(b.claim(b"key", 0, LATER, 0.0)), made(b.claim(&other, 0, LATER, 0.0)));
    a.set(b"key", b"value").unwrap();
    assert_eq!(b.me.stands(one.number, one.token), Stands::Overtaken);
    assert_eq!(b.me.stands(two.number, two.token), Stands::Stands);
    a.set(&other, b"value").unwrap();
    assert_eq!(b.me.stands(two.number, two.token), Stands::Overtaken);
}

#[test]
fn who_waits_finds_a_claim_gone_when_its_lease_is_over_or_its_owner_dead_also_when_it_was_overtaken() {
    for overtaken in [false, true] {
        let (a, mut b) = two(MIB);
        let claim = made(a.claim(b"key", 0, 100.0, 0.0));
        if overtaken {
            b.set(b"key", b"new").unwrap();
        }
        let stands = if overtaken { Stands::Overtaken } else { Stands::Stands };
        assert_eq!(b.me.probe_claim(claim.number, claim.token, 99.0), stands);
        assert_eq!(b.me.probe_claim(claim.number, claim.token + 1, 99.0), Stands::Gone, "another token");
        assert_eq!(b.me.probe_claim(claim.number, claim.token, 100.0), Stands::Gone, "the lease is over");
        assert!(a.me.extend(claim.number, claim.token, 200.0));
        assert_eq!(b.me.probe_claim(claim.number, claim.token, 100.0), stands, "it was renewed");
        a.die();
        assert_eq!(b.me.probe_claim(claim.number, claim.token, 100.0), Stands::Gone, "the owner is dead");
    }
}

#[test]
fn a_frozen_holder_of_the_bucket_s_lock_does_not_keep_a_claim_from_being_freed() {
    let world = World::new(MODEL_SIZE);
    world.patience.store(3, Ordering::SeqCst);
    let (me, waiter) = (Cache::join(&world), Cache::join(&world));
    let claim = made(me.claim(b"key", 0, LATER, 0.0));
    assert!(is_taken(waiter.claim(b"key", WAIT, LATER, 0.0)));
    // Frozen with the lock: it dies in the midst of a claim, and the host has no proof of it.
    let mut frozen = Cache::join(&world);
    let mut n = 0;
    loop {
        assert!(dies_at(n, || frozen.set(b"key", b"value")), "the set never held the lock");
        if waiter.me.wait(&OwnedKey::of(b"key").with(waiter.me.seed)).is_err() {
            break;
        }
        frozen.me.recover();
        n += 1;
    }
    assert!(me.me.release(claim.number, claim.token));
    assert_eq!(me.bells(), [waiter.me.seat]);
    assert_eq!(waiter.me.stands(claim.number, claim.token), Stands::Gone);
}

/// What a lock is for: a counter that is not atomic, and threads that add to it.
#[test]
fn a_counter_that_threads_guard_with_a_lock_is_exact() {
    let _watchdog = Watchdog::new("a_counter_that_threads_guard_with_a_lock_is_exact", 120);
    let world = World::new(MIB);
    let counter = AtomicU64::new(0);
    let sections = scaled(20_000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let cache = Cache::join(&world);
                let mut done = 0;
                while done < sections {
                    let Ok(Claimed::Claimed(lock)) = cache.claim_lock(b"lock", 0) else {
                        std::thread::yield_now();
                        continue;
                    };
                    // Not one access: two sections at the same time would lose an addition.
                    let was = counter.load(Ordering::Relaxed);
                    std::hint::spin_loop();
                    counter.store(was + 1, Ordering::Relaxed);
                    assert!(cache.me.release(lock.number, lock.token));
                    done += 1;
                }
                cache.leave();
            });
        }
    });
    assert_eq!(counter.into_inner(), 4 * sections);
}

/// Threads that load, change and clear a few keys: a value that is there was not loaded before a change of its key.
#[test]
fn threads_that_load_and_change_leave_no_value_that_was_overtaken() {
    let _watchdog = Watchdog::new("threads_that_load_and_change", 120);
    let world = World::new(MIB);
    // The source: who loads a key reads its number, who changes the key raises the number first and then deletes the key.
    let source: Vec<_> = (0..4).map(|_| AtomicU64::new(0)).collect();
    let rounds = scaled(30_000);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (world, source) = (&world, &source);
            scope.spawn(move || {
                let mut cache = Cache::join(world);
                let mut random = Random::new(thread);
                for _ in 0..rounds {
                    let i = random.below(4) as usize;
                    let key = [b'k', i as u8];
                    let tag: &[&str] = &[["t0", "t1", "t2", "t3"][i]];
                    let before = source[i].load(Ordering::SeqCst);
                    match random.below(16) {
                        0 => {
                            source[i].fetch_add(1, Ordering::SeqCst);
                            while cache.remove(&key, Expect::Anything).is_err() {}
                        }
                        1 => {
                            source[i].fetch_add(1, Ordering::SeqCst);
                            cache.invalidate(tag);
                        }
                        2 if random.chance(8) => {
                            source[i].fetch_add(1, Ordering::SeqCst);
                            cache.me.clear();
                        }
                        _ => match cache.get(&key) {
                            // Loaded after every change that was over when this thread looked at the source.
                            Some(got) => {
                                let number = u64::from_le_bytes(got.value[..].try_into().unwrap());
                                // Changes that have raised the number and not yet deleted the key: one for each other thread.
                                assert!(number + 3 >= before, "{number} is there, the source was at {before}");
                            }
                            None => {
                                if let Ok(Claimed::Claimed(claim)) = cache.claim(&key, 0, LATER, 0.0) {
                                    let number = source[i].load(Ordering::SeqCst);
                                    let expect = Expect::Claim(claim.number, claim.token);
                                    let with = With { tags: tag, expect, ..PLAIN };
                                    if cache.store(&key, &number.to_le_bytes(), &with).is_err() {
                                        cache.me.release(claim.number, claim.token);
                                    }
                                }
                            }
                        },
                    }
                }
                cache.leave();
            });
        }
    });
    let mut cache = Cache::join(&world);
    for (i, number) in source.iter().enumerate() {
        if let Some(got) = cache.get(&[b'k', i as u8]) {
            assert_eq!(u64::from_le_bytes(got.value[..].try_into().unwrap()), number.load(Ordering::SeqCst));
        }
    }
    cache.check();
}
