//! The queue for a lock, and who is rung when it is released or stolen: each rule alone.

use cache_machine_core::{Busy, Claim, Claimed, PENDING, Released, STEAL, WAIT};

use crate::harness::*;

fn made(claimed: Result<Claimed, Busy>) -> Claim {
    match claimed {
        Ok(Claimed::Claimed(claim)) => claim,
        other => panic!("not claimed: {other:?}"),
    }
}

fn take(cache: &Cache) -> Claim {
    made(cache.claim_lock(b"lock", 0))
}

fn release(cache: &Cache, lock: Claim) -> Released {
    cache.me.release_lock(lock.number, lock.token)
}

fn pass(cache: &Cache) -> Result<bool, Busy> {
    cache.me.pass_lock(&OwnedKey::of(b"lock").with(cache.me.seed))
}

fn join<const N: usize>() -> [Cache; N] {
    let world = World::new(MIB);
    std::array::from_fn(|_| Cache::join(&world))
}

#[test]
fn a_release_rings_the_one_who_has_waited_longest_and_nobody_else() {
    let [a, b, c] = join();
    let lock = take(&a);
    let first = made(c.claim_lock(b"lock", PENDING));
    made(b.claim_lock(b"lock", PENDING));
    made(b.claim_lock(b"another lock", PENDING));
    assert_eq!(release(&a, lock), Released::Passed);
    assert_eq!(a.bells(), [c.me.seat]);
    c.heard();
    let lock = take(&c);
    assert_eq!(release(&c, first), Released::Free, "its request, while it has the lock");
    assert_eq!(release(&c, lock), Released::Passed);
    assert_eq!(c.bells(), [b.me.seat]);
}

#[test]
fn a_release_passes_over_who_was_rung_and_has_not_looked() {
    let [a, b, c] = join();
    made(b.claim_lock(b"lock", PENDING));
    made(c.claim_lock(b"lock", PENDING));
    for rung in [vec![b.me.seat], vec![c.me.seat], vec![]] {
        assert_eq!(release(&a, take(&a)), Released::Passed);
        assert_eq!(a.bells(), rung);
    }
    b.heard();
    assert_eq!(release(&a, take(&a)), Released::Passed);
    assert_eq!(a.bells(), [b.me.seat]);
}

#[test]
fn a_release_rings_nobody_when_nobody_waits_or_its_own_thread_is_first_in_the_queue() {
    let [a, b] = join();
    assert_eq!(release(&a, take(&a)), Released::Free);
    let own = made(a.claim_lock(b"lock", PENDING));
    made(b.claim_lock(b"lock", PENDING));
    assert_eq!(release(&a, take(&a)), Released::Free);
    assert_eq!(a.bells(), []);
    assert_eq!(release(&a, own), Released::Free);
    assert_eq!(release(&a, take(&a)), Released::Passed);
    assert_eq!(a.bells(), [b.me.seat]);
}

#[test]
fn a_release_passes_over_the_dead_and_those_who_have_left() {
    let [a, b, c, d] = join();
    let lock = take(&a);
    for waiter in [&b, &c, &d] {
        made(waiter.claim_lock(b"lock", PENDING));
    }
    b.die();
    c.me.detach();
    assert_eq!(release(&a, lock), Released::Passed);
    assert_eq!(a.bells(), [d.me.seat]);
}

#[test]
fn a_release_rings_all_who_have_waited_when_there_is_no_request() {
    let [a, b, c] = join();
    let lock = take(&a);
    for waiter in [&b, &c] {
        assert_eq!(waiter.claim_lock(b"lock", WAIT), Ok(Claimed::Taken(lock)));
    }
    assert_eq!(release(&a, lock), Released::Passed);
    assert_eq!(a.bells(), [b.me.seat, c.me.seat]);
}

#[test]
fn a_holder_that_listens_is_rung_by_a_theft_and_its_release_rings_nobody() {
    let [a, b, c] = join();
    let lock = take(&a);
    made(c.claim_lock(b"lock", PENDING));
    assert!(a.me.listen(lock.number, lock.token).unwrap().is_some());
    assert_eq!(b.me.listen(lock.number, lock.token), Ok(None), "of another participant");
    let stolen = made(b.claim_lock(b"lock", STEAL));
    assert_eq!(b.bells(), [a.me.seat]);
    assert_eq!(release(&a, lock), Released::Stolen);
    assert_eq!(release(&a, lock), Released::Gone);
    assert_eq!(release(&a, stolen), Released::Gone, "of another participant");
    assert_eq!(a.bells(), []);
    assert_eq!(release(&b, stolen), Released::Passed);
}

#[test]
fn a_lock_is_passed_on_only_while_it_is_free() {
    let [a, b, c] = join();
    assert_eq!(pass(&a), Ok(false));
    made(b.claim_lock(b"lock", PENDING));
    take(&a);
    assert_eq!(pass(&a), Ok(false));
    assert_eq!(a.bells(), []);
    a.die();
    assert_eq!(pass(&b), Ok(false), "its own request");
    assert_eq!(pass(&c), Ok(true));
    assert_eq!(c.bells(), [b.me.seat]);
    assert_eq!(pass(&c), Ok(false), "it was rung");
}

#[test]
fn a_lock_that_was_not_waited_for_registers_and_rings_nobody() {
    let [a, b] = join();
    let lock = take(&a);
    made(b.claim_lock(b"lock", STEAL));
    assert_eq!(b.bells(), []);
    assert_eq!(release(&a, lock), Released::Stolen);
    assert_eq!(a.bells(), []);
}
