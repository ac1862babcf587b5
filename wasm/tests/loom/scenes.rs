//! The scenes: each furnishes a region so that the situation it tests arises within few accesses.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use cache_machine_core::{Busy, Claim, Claimed, Phase, Refused, Stands};
use loom::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

use crate::stage::*;

/// The key that a scene tests, and others.
const KEY: u64 = 1;
const OTHER: u64 = 2;
const THIRD: u64 = 3;

/// A message from one participant to the other that does not go through the cache.
fn message() -> (Rc<AtomicU64>, Rc<AtomicU64>) {
    let message = Rc::new(AtomicU64::new(0));
    (message.clone(), message)
}

/// A region with six segments full of fillers, the seventh open, and only the reserve free. Seat 3 opens segments from 1 on;
/// the seventh is segment 7, which is also the first that seat 1 opens when it is free again.
fn full_region(world: &Rc<World>) -> Rc<Cache> {
    let cache = Cache::join(world, 3);
    cache.fill(6);
    cache
}

// ---- reading ---------------------------------------------------------------------------------------------------------

/// A region in which the next `set` of seat 0 reclaims the segment of KEY, and writes to its first bytes.
fn about_to_be_reclaimed(world: &Rc<World>) -> (Rc<Cache>, Rc<Cache>) {
    let (writer, reader) = (Cache::join(world, 0), Cache::join(world, 1));
    writer.set(KEY, 1, 2).unwrap();
    writer.fill(6);
    writer.set(999, 7, 11).unwrap();
    assert_eq!(writer.in_phase(Phase::Free), 3);
    (writer, reader)
}

/// I1, I2: the bytes that a reader copies are reclaimed meanwhile, and written again by a `set` of the same key.
#[test]
fn get_while_its_bytes_are_reused() {
    explore("get_while_its_bytes_are_reused", |world| {
        let (writer, reader) = about_to_be_reclaimed(world);
        let (tell, told) = message();
        let last = reader.clone();
        play(
            move || {
                writer.set(KEY, 2, 2).unwrap();
                tell.store(1, Release);
            },
            move || {
                let known = told.load(Acquire);
                let got = reader.peek(KEY);
                assert!(got == Some(2) || known == 0 && matches!(got, None | Some(1)), "{known} {got:?}");
            },
            move || {
                assert_eq!(last.peek(KEY), Some(2));
                last.check();
            },
        )
    });
}

/// I1: the bytes that a reader copies are reclaimed meanwhile, and written again by a `set` of another key.
#[test]
fn get_while_another_takes_its_bytes() {
    explore("get_while_another_takes_its_bytes", |world| {
        let (writer, reader) = about_to_be_reclaimed(world);
        let last = reader.clone();
        play(
            move || writer.set(OTHER, 2, 2).unwrap(),
            move || {
                let got = reader.get(KEY);
                assert!(matches!(got, None | Some(1)), "{got:?}");
            },
            move || {
                assert_eq!((last.peek(KEY), last.peek(OTHER)), (None, Some(2)));
                last.check();
            },
        )
    });
}

/// I2: an entry that is being moved is found all the time.
#[test]
fn get_while_it_is_moved() {
    explore("get_while_it_is_moved", |world| {
        let last = full_region(world);
        last.set(KEY, 0, 2).unwrap();
        last.set(KEY, 0, 2).unwrap();
        last.set(KEY, 1, 2).unwrap();
        let (writer, reader) = (Cache::join(world, 1), Cache::join(world, 0));
        play(
            move || writer.set(OTHER, 2, 11).unwrap(),
            move || assert_eq!(reader.get(KEY), Some(1)),
            move || {
                assert_eq!((last.peek(KEY), last.peek(OTHER)), (Some(1), Some(2)));
                last.check();
            },
        )
    });
}

/// I2: a reader that knows that a `set` has returned does not see an older value.
#[test]
fn get_after_set() {
    explore("get_after_set", |world| {
        let (writer, reader) = (Cache::join(world, 0), Cache::join(world, 1));
        writer.set(KEY, 1, 1).unwrap();
        let (tell, told) = message();
        let last = reader.clone();
        play(
            move || {
                writer.set(KEY, 2, 1).unwrap();
                tell.store(1, Release);
                writer.set(KEY, 3, 1).unwrap();
            },
            move || {
                let known = told.load(Acquire);
                let got = reader.peek(KEY).expect("the key is there all the time");
                assert!(got > known, "{known} {got}");
                assert!(reader.peek(KEY).unwrap() >= got);
            },
            move || {
                assert_eq!(last.peek(KEY), Some(3));
                last.check();
            },
        )
    });
}

/// I2: a reader that knows that a `delete` has returned does not see the value.
#[test]
fn get_after_delete() {
    explore("get_after_delete", |world| {
        let (writer, reader) = (Cache::join(world, 0), Cache::join(world, 1));
        writer.set(KEY, 1, 1).unwrap();
        let (tell, told) = message();
        let last = reader.clone();
        play(
            move || {
                assert_eq!(writer.remove(KEY), Ok(true));
                tell.store(1, Release);
            },
            move || {
                let known = told.load(Acquire);
                let got = reader.get(KEY);
                assert!(got.is_none() || known == 0 && got == Some(1), "{known} {got:?}");
            },
            move || {
                assert_eq!(last.peek(KEY), None);
                last.check();
            },
        )
    });
}

// ---- the log ---------------------------------------------------------------------------------------------------------

/// Like `full_region`, with an open segment of which three quarters are dead.
fn full_of_dead_records(world: &Rc<World>) -> Rc<Cache> {
    let cache = full_region(world);
    for _ in 0..3 {
        cache.set(KEY, 0, 2).unwrap();
    }
    cache.remove(KEY).unwrap();
    cache
}

/// M1: one appends to a segment that the other fills, reclaims, opens again and writes to.
#[test]
fn append_while_it_is_reclaimed() {
    explore("append_while_it_is_reclaimed", |world| {
        let last = full_of_dead_records(world);
        let (one, two) = (Cache::join(world, 1), Cache::join(world, 0));
        play(
            move || one.set(OTHER, 2, 11).unwrap(),
            move || two.set(THIRD, 3, 2).unwrap(),
            move || {
                assert_eq!((last.peek(OTHER), last.peek(THIRD)), (Some(2), Some(3)));
                last.check();
            },
        )
    });
}

/// M1: the segment was sealed by a third participant, which has died since.
#[test]
fn append_while_it_is_reclaimed_by_a_third() {
    // Accesses after which the segment is sealed.
    static STEPS: OnceLock<u64> = OnceLock::new();
    let sealing = |cache: &Cache| {
        let _ = cache.set(KEY, 4, 11);
    };
    explore("append_while_it_is_reclaimed_by_a_third", move |world| {
        let steps = *STEPS.get_or_init(|| {
            let sealed = |steps: &u64| {
                let world = World::new();
                let (last, one) = (full_of_dead_records(&world), Cache::join(&world, 2));
                let before = last.in_phase(Phase::Sealed);
                one.dies_at(*steps, sealing);
                last.in_phase(Phase::Sealed) > before
            };
            (0..).find(sealed).unwrap()
        });
        let last = full_of_dead_records(world);
        let (one, two, third) = (Cache::join(world, 1), Cache::join(world, 0), Cache::join(world, 2));
        let both = play(
            move || one.set(OTHER, 2, 11).unwrap(),
            move || two.set(THIRD, 3, 2).unwrap(),
            move || {
                assert_eq!((last.peek(OTHER), last.peek(THIRD)), (Some(2), Some(3)));
                last.check_structure();
            },
        );
        both.and(move || {
            third.dies_at(steps, sealing);
        })
    });
}

/// M1: the writer has only just attached.
#[test]
fn join_and_append_while_it_is_reclaimed() {
    explore("join_and_append_while_it_is_reclaimed", |world| {
        let last = full_of_dead_records(world);
        let (one, joined) = (Cache::join(world, 1), world.clone());
        play(
            move || one.set(OTHER, 2, 11).unwrap(),
            move || Cache::join(&joined, 2).set(THIRD, 3, 2).unwrap(),
            move || {
                assert_eq!((last.peek(OTHER), last.peek(THIRD)), (Some(2), Some(3)));
                last.check();
            },
        )
    });
}

/// Two participants open the same lane: no segment is lost, and no record.
#[test]
fn opening_a_lane() {
    explore("opening_a_lane", |world| {
        let (one, two, last) = (Cache::join(world, 1), Cache::join(world, 0), Cache::join(world, 3));
        play(
            move || one.set(OTHER, 2, 1).unwrap(),
            move || two.set(THIRD, 3, 1).unwrap(),
            move || {
                assert_eq!((last.peek(OTHER), last.peek(THIRD)), (Some(2), Some(3)));
                assert_eq!(last.in_phase(Phase::Free), 9);
                last.check();
            },
        )
    });
}

/// One appends the last record that fits, the other seals the segment.
#[test]
fn sealing_a_segment() {
    explore("sealing_a_segment", |world| {
        let last = Cache::join(world, 3);
        last.set(KEY, 1, 11).unwrap();
        last.set(KEY, 1, 2).unwrap();
        let (one, two) = (Cache::join(world, 1), Cache::join(world, 0));
        play(
            move || one.set(OTHER, 2, 2).unwrap(),
            move || two.set(THIRD, 3, 2).unwrap(),
            move || {
                assert_eq!((last.peek(KEY), last.peek(OTHER), last.peek(THIRD)), (Some(1), Some(2), Some(3)));
                assert_eq!(last.in_phase(Phase::Free), 8);
                last.check();
            },
        )
    });
}

// ---- writers of one bucket -------------------------------------------------------------------------------------------

/// I3: two set a key that is absent.
#[test]
fn set_and_set() {
    explore("set_and_set", |world| {
        let (one, two, last) = (Cache::join(world, 1), Cache::join(world, 0), Cache::join(world, 3));
        last.set(OTHER, 1, 1).unwrap();
        let results = [const { Cell::new(false) }; 2].map(Rc::new);
        let [first, second] = results.clone();
        play(
            move || first.set(one.set(KEY, 2, 1).is_ok()),
            move || second.set(two.set(KEY, 3, 1).is_ok()),
            move || {
                let got = last.peek(KEY);
                let may = [results[0].get().then_some(2), results[1].get().then_some(3)];
                assert!(got.is_some() && may.contains(&got), "{got:?} {may:?}");
                last.check();
            },
        )
    });
}

/// I3: one replaces, the other removes.
#[test]
fn set_and_delete() {
    explore("set_and_delete", |world| {
        let (one, two, last) = (Cache::join(world, 1), Cache::join(world, 0), Cache::join(world, 3));
        last.set(KEY, 1, 1).unwrap();
        let (set, deleted) = (Rc::new(Cell::new(Ok(()))), Rc::new(Cell::new(Ok(false))));
        let (setting, deleting) = (set.clone(), deleted.clone());
        play(
            move || setting.set(one.set(KEY, 2, 1)),
            move || deleting.set(two.remove(KEY)),
            move || {
                match (set.take_ok(), deleted.take_ok(), last.peek(KEY)) {
                    (true, Some(true), None | Some(2)) | (false, Some(true), None) | (true, None, Some(2)) => {}
                    (false, None, Some(1)) => {}
                    other => panic!("{other:?}"),
                }
                last.check();
            },
        )
    });
}

trait TakeOk {
    type Said;
    fn take_ok(&self) -> Self::Said;
}

impl TakeOk for Cell<Result<(), cache_machine_core::Refused>> {
    type Said = bool;
    fn take_ok(&self) -> bool {
        self.replace(Ok(())).is_ok()
    }
}

impl TakeOk for Cell<Result<bool, cache_machine_core::Refused>> {
    type Said = Option<bool>;
    fn take_ok(&self) -> Option<bool> {
        self.replace(Ok(false)).ok()
    }
}

/// Increments, and counts the increments that succeeded.
fn increments(cache: Rc<Cache>, done: &Rc<Cell<u32>>) -> impl FnOnce() + 'static {
    let done = done.clone();
    move || {
        if cache.increment(KEY).is_ok() {
            done.set(done.get() + 1);
        }
    }
}

/// P4: two increment a counter.
#[test]
fn increment_and_increment() {
    explore("increment_and_increment", |world| {
        let (one, two, last) = (Cache::join(world, 1), Cache::join(world, 0), Cache::join(world, 3));
        last.increment(KEY).unwrap();
        let done = Rc::new(Cell::new(1));
        play(increments(one, &done), increments(two, &done), move || {
            assert_eq!(last.peek(KEY), Some((done.get() as f64).to_bits()));
            last.check();
        })
    });
}

/// P4: two increment a key that is absent, or a number that is not a counter yet.
#[test]
fn first_increments() {
    explore("first_increments", |world| {
        let (one, two, last) = (Cache::join(world, 1), Cache::join(world, 0), Cache::join(world, 3));
        last.set_number(KEY, 0.0).unwrap();
        let done = Rc::new(Cell::new(0));
        play(increments(one, &done), increments(two, &done), move || {
            assert_eq!(last.peek(KEY), Some((done.get() as f64).to_bits()));
            last.check();
        })
    });
}

/// I1: a version of a counter belongs to one number only.
#[test]
fn get_while_it_is_counted() {
    explore("get_while_it_is_counted", |world| {
        let (one, two, last) = (Cache::join(world, 1), Cache::join(world, 0), Cache::join(world, 3));
        last.increment(KEY).unwrap();
        let before = last.peek_version(KEY).unwrap();
        let (tell, told) = message();
        let again = last.clone();
        play(
            move || {
                one.increment(KEY).unwrap();
                tell.store(1, Release);
            },
            move || {
                let known = told.load(Acquire);
                let got = two.peek_version(KEY).unwrap();
                assert!(known == 0 || got.0 == 2f64.to_bits(), "{got:?}");
                // The version is odd while the number changes. Then it proves nothing.
                assert!(got.1 % 2 == 1 || (got == before) == (got.1 == before.1), "{before:?} {got:?}");
            },
            move || assert_eq!(again.peek(KEY), Some(2f64.to_bits())),
        )
    });
}

/// P4: one increments a counter that the other moves.
#[test]
fn increment_while_it_is_moved() {
    explore("increment_while_it_is_moved", |world| {
        let last = full_region(world);
        last.increment(KEY).unwrap();
        last.set(THIRD, 0, 2).unwrap();
        last.set(THIRD, 0, 2).unwrap();
        last.remove(THIRD).unwrap();
        let (one, two) = (Cache::join(world, 1), Cache::join(world, 0));
        let done = Rc::new(Cell::new(1));
        play(
            increments(two, &done),
            move || one.set(OTHER, 2, 11).unwrap(),
            move || {
                // When the reclaimer does not get the lock of the counter, it reclaims another segment.
                assert_eq!(last.peek(KEY), Some((done.get() as f64).to_bits()));
                assert_eq!(last.peek(OTHER), Some(2));
                last.check();
            },
        )
    });
}

// ---- the near cache --------------------------------------------------------------------------------------------------

/// A value in a near cache is served only as long as it is what the cache holds. One participant changes KEY by `change` and
/// sends a message; the other reads twice, with the value in its near cache or without.
fn near(name: &str, tag: Option<&'static str>, after: Option<u64>, change: fn(&Cache)) {
    near_kept(name, true, tag, after, change);
    near_kept(&format!("{name}, first"), false, tag, after, change);
}

fn near_kept(name: &str, kept: bool, tag: Option<&'static str>, after: Option<u64>, change: fn(&Cache)) {
    explore_for(name, 2, move |world| {
        let (one, two, last) = (Cache::join(world, 1), Cache::join(world, 0), Cache::join(world, 3));
        last.store(KEY, 1, 1, tag).unwrap();
        // So hot that no read raises the heat any more.
        for _ in 0..6 {
            assert_eq!(if kept { two.get_near(KEY) } else { last.get(KEY) }, Some(1));
        }
        let (tell, told) = message();
        let again = two.clone();
        play(
            move || {
                change(&one);
                tell.store(1, Release);
            },
            move || {
                let known = told.load(Acquire);
                let got = two.get_near(KEY);
                assert!(got == after || known == 0 && got == Some(1), "{known} {got:?}");
                let then = two.get_near(KEY);
                assert!(then == after || got == Some(1) && known == 0 && then == Some(1), "{known} {got:?} {then:?}");
            },
            move || {
                assert_eq!(again.get_near(KEY), after);
                assert_eq!(last.peek(KEY), after);
                last.check();
            },
        )
    });
}

#[test]
fn near_and_set() {
    near("near_and_set", None, Some(2), |cache| cache.set(KEY, 2, 1).unwrap());
}

#[test]
fn near_and_delete() {
    near("near_and_delete", None, None, |cache| assert_eq!(cache.remove(KEY), Ok(true)));
}

#[test]
fn near_and_clear() {
    near("near_and_clear", None, None, |cache| cache.me.clear());
}

#[test]
fn near_and_invalidate() {
    near("near_and_invalidate", Some("tag"), None, |cache| cache.invalidate("tag"));
}

/// The place of a record is reused by another value of the same key, while a near cache has the stamp of the old one.
#[test]
fn near_while_its_bytes_are_reused() {
    explore("near_while_its_bytes_are_reused", |world| {
        let (writer, reader) = about_to_be_reclaimed(world);
        assert_eq!(reader.get_near(KEY), Some(1));
        let (tell, told) = message();
        let last = reader.clone();
        play(
            move || {
                writer.set(KEY, 2, 2).unwrap();
                tell.store(1, Release);
            },
            move || {
                let known = told.load(Acquire);
                let got = reader.get_near(KEY);
                assert!(got == Some(2) || known == 0 && matches!(got, None | Some(1)), "{known} {got:?}");
            },
            move || assert_eq!(last.get_near(KEY), Some(2)),
        )
    });
}

// ---- large values ----------------------------------------------------------------------------------------------------

/// Fills the room that the segment under reclaim gives, so that the next `set` reclaims another one.
fn finish_begun_segment(cache: &Cache) {
    cache.set(OTHER, 2, 11).unwrap();
    cache.set(THIRD, 3, 11).unwrap();
}

/// A chunk is moved while it is read.
#[test]
fn get_while_its_chunk_is_moved() {
    explore("get_while_its_chunk_is_moved", |world| {
        let last = full_region(world);
        last.set_large(KEY, 1).unwrap();
        last.set(THIRD, 0, 2).unwrap();
        last.remove(THIRD).unwrap();
        let (one, two) = (Cache::join(world, 1), Cache::join(world, 0));
        finish_begun_segment(&one);
        play(
            move || one.set(OTHER, 4, 11).unwrap(),
            move || assert_eq!(two.peek(KEY), Some(1)),
            move || {
                assert_eq!((last.peek(KEY), last.peek(OTHER)), (Some(1), Some(4)));
                last.check();
            },
        )
    });
}

/// A chunk is moved while it is read, and its bytes are written again.
#[test]
fn get_while_the_bytes_of_its_chunk_are_reused() {
    explore("get_while_the_bytes_of_its_chunk_are_reused", |world| {
        let last = full_region(world);
        last.set_large(KEY, 1).unwrap();
        last.set(THIRD, 0, 2).unwrap();
        last.remove(THIRD).unwrap();
        let (one, two) = (Cache::join(world, 1), Cache::join(world, 0));
        finish_begun_segment(&one);
        play(
            move || {
                one.set(THIRD, 4, 11).unwrap();
                one.set(OTHER, 5, 11).unwrap();
            },
            move || assert_eq!(two.peek(KEY), Some(1)),
            move || {
                assert_eq!(last.peek(KEY), Some(1));
                last.check();
            },
        )
    });
}

/// A large value is stored while the segment of its chunk is reclaimed: it is there as a whole, or not at all.
#[test]
fn storing_a_large_value_while_its_chunk_is_reclaimed() {
    explore("storing_a_large_value_while_its_chunk_is_reclaimed", |world| {
        let last = full_region(world);
        let (one, two) = (Cache::join(world, 1), Cache::join(world, 0));
        let chunk = two.begin_large(KEY, 1);
        last.set(THIRD, 0, 2).unwrap();
        last.set(THIRD, 0, 2).unwrap();
        last.remove(THIRD).unwrap();
        finish_begun_segment(&one);
        let stored = Rc::new(Cell::new(false));
        let storing = stored.clone();
        play(
            move || one.set(OTHER, 4, 11).unwrap(),
            move || storing.set(two.end_large(KEY, chunk).is_ok()),
            move || {
                // The engine evicts a value that lost a chunk: a head without its chunk must not stay.
                let got = last.peek(KEY);
                assert!(got.is_none() || stored.get() && got == Some(1), "{} {got:?}", stored.get());
                assert_eq!(last.has(KEY), got.is_some());
                last.check();
            },
        )
    });
}

// ---- claims and bells ----------------------------------------------------------------------------------------------

fn made(claimed: Result<Claimed, Busy>) -> Claim {
    let Ok(Claimed::Claimed(claim)) = claimed else { panic!("{claimed:?}") };
    claim
}

/// C2: a loaded value is stored while its tag is invalidated, or everything is cleared, or its key is set. It is not there
/// afterwards.
fn committing(name: &str, change: fn(&Cache), after: Option<u64>) {
    explore(name, move |world| {
        let (one, two) = (Cache::join(world, 0), Cache::join(world, 1));
        let claim = made(one.claim(KEY));
        let last = two.clone();
        play(
            move || {
                let stored = one.commit(KEY, 1, &claim, "t");
                assert!(matches!(stored, Ok(()) | Err(Refused::Invalidated | Refused::Overtaken)), "{stored:?}");
            },
            move || {
                change(&two);
                let got = two.peek(KEY);
                assert_eq!(got, after);
            },
            move || {
                assert_eq!(last.peek(KEY), after);
                last.check();
            },
        )
    });
}

#[test]
fn committing_while_the_tag_is_invalidated() {
    committing("committing_while_the_tag_is_invalidated", |cache| cache.invalidate("t"), None);
}

#[test]
fn committing_while_everything_is_cleared() {
    committing("committing_while_everything_is_cleared", |cache| cache.me.clear(), None);
}

#[test]
fn committing_while_the_key_is_set() {
    committing("committing_while_the_key_is_set", |cache| cache.set(KEY, 2, 1).unwrap(), Some(2));
}

#[test]
fn committing_while_the_absent_key_is_removed() {
    committing("committing_while_the_absent_key_is_removed", |cache| _ = cache.remove(KEY).unwrap(), None);
}

/// C5: who registers and then looks has seen the change, or is rung.
fn waiting(name: &str, change: fn(&Cache)) {
    explore(name, move |world| {
        let (one, two) = (Cache::join(world, 0), Cache::join(world, 1));
        two.store(KEY, 1, 1, Some("t")).unwrap();
        let last = one.clone();
        let seen = Rc::new(Cell::new(None));
        let look = seen.clone();
        play(
            move || {
                one.wait(KEY);
                look.set(one.peek(KEY));
            },
            move || change(&two),
            move || assert!(last.is_rung() || seen.get() == last.peek(KEY), "not rung, and has seen {:?}", seen.get()),
        )
    });
}

#[test]
fn waiting_while_everything_is_cleared() {
    waiting("waiting_while_everything_is_cleared", |cache| cache.me.clear());
}

#[test]
fn waiting_while_a_tag_is_invalidated() {
    waiting("waiting_while_a_tag_is_invalidated", |cache| cache.invalidate("t"));
}

#[test]
fn waiting_while_the_key_is_set() {
    waiting("waiting_while_the_key_is_set", |cache| cache.set(KEY, 2, 1).unwrap());
}

/// C1: two participants claim one key at the same time. One gets it, and the other one is rung when it is free.
#[test]
fn claiming_one_key_at_once() {
    explore("claiming_one_key_at_once", |world| {
        let (one, two) = (Cache::join(world, 0), Cache::join(world, 1));
        let (last, waiter) = (one.clone(), Rc::new(Cell::new(false)));
        let waits = waiter.clone();
        play(
            move || {
                if let Ok(Claimed::Claimed(claim)) = one.claim(KEY) {
                    one.commit(KEY, 1, &claim, "t").unwrap();
                }
            },
            move || match two.claim(KEY) {
                Ok(Claimed::Claimed(claim)) => two.commit(KEY, 2, &claim, "t").unwrap(),
                Ok(Claimed::Taken(claim)) => {
                    waits.set(two.me.stands(claim.number, claim.token) != Stands::Gone);
                    let region = &two.me.region;
                    let rung = region.geometry.seat(two.me.seat) + 40;
                    // Known when this thread ends: whether it was rung until then.
                    waits.set(waits.get() && region.word(rung).load(Relaxed) == 0);
                }
                other => panic!("{other:?}"),
            },
            move || {
                assert!(last.peek(KEY).is_some());
                let rung = last.me.region.geometry.seat(1) + 40;
                assert!(!waiter.get() || last.me.region.word(rung).load(Relaxed) == 1, "nobody rang the waiter");
                last.check();
            },
        )
    });
}

/// C1: keys of two buckets take claims of the same set, one of which a dead participant has left.
#[test]
fn claiming_keys_of_two_buckets_in_one_set() {
    explore("claiming_keys_of_two_buckets_in_one_set", |world| {
        let (one, two, last) = (Cache::join(world, 0), Cache::join(world, 1), Cache::join(world, 2));
        let other = (2..).find(|key| one.bucket(*key) != one.bucket(KEY)).unwrap();
        made(last.claim(THIRD));
        last.me.detach();
        play(
            move || {
                let claim = made(one.claim(KEY));
                one.commit(KEY, 1, &claim, "t").unwrap();
            },
            move || {
                let claim = made(two.claim(other));
                two.commit(other, 2, &claim, "t").unwrap();
            },
            move || {
                assert_eq!((last.peek(KEY), last.peek(other)), (Some(1), Some(2)));
                last.check();
            },
        )
    });
}

// ---- deaths ---------------------------------------------------------------------------------------------------

/// One dies before its `n`th access and the other goes on, for some `n`, with all orders of what they can see of each other.
fn dying<const N: usize>(name: &str, steps: [u64; N], furnish: fn(&Rc<World>) -> Rc<Cache>, act: fn(&Cache)) {
    for n in steps {
        let deaths = Arc::new(AtomicBool::new(false));
        let died = deaths.clone();
        explore_for(&format!("{name}, step {n}"), N as u32 / 4, move |world| {
            let last = furnish(world);
            let (one, two) = (Cache::join(world, 1), Cache::join(world, 0));
            let died = died.clone();
            play(
                move || {
                    died.fetch_or(one.dies_at(n, act), Relaxed);
                },
                move || {
                    let _ = two.set(KEY, 3, 2);
                    let got = two.peek(KEY);
                    assert!(matches!(got, None | Some(1..=3)), "{got:?}");
                },
                move || {
                    last.check_structure();
                    // Nobody has to wait for what the dead one held.
                    last.set(KEY, 4, 2).unwrap();
                    assert_eq!(last.peek(KEY), Some(4));
                    last.check_structure();
                },
            )
        });
        assert!(deaths.load(Relaxed), "step {n}: nobody died");
    }
}

#[test]
fn dying_in_a_set() {
    let furnish = |world: &Rc<World>| {
        let last = Cache::join(world, 3);
        last.set(KEY, 1, 2).unwrap();
        last
    };
    dying("dying_in_a_set", [4, 8, 12, 16, 20, 24, 28, 32], furnish, |cache| {
        let _ = cache.set(KEY, 2, 2);
    });
}

#[test]
fn dying_while_reclaiming() {
    let furnish = |world: &Rc<World>| {
        let last = full_region(world);
        last.set(KEY, 0, 2).unwrap();
        last.set(KEY, 0, 2).unwrap();
        last.set(KEY, 1, 2).unwrap();
        last
    };
    dying("dying_while_reclaiming", [40, 80, 120, 160, 200, 240, 280, 320], furnish, |cache| {
        let _ = cache.set(OTHER, 2, 11);
    });
}
