//! Models: the real engine on a region so small that everything in it happens within a few hundred accesses. The accesses at
//! which a participant can stop are tried one by one. Each participant is a task of shuttle (AWS Labs), which also has the
//! random and the probabilistic schedules (PCT: Burckhardt et al., ASPLOS 2010).
//!
//! A *plan* says who runs, for how many accesses to shared memory, and whether it dies then:
//!
//! ```text
//! A i │ B to its end │ A to its end        A sleeps before its i-th access until B has finished: A is a zombie
//! A i † │ B to its end                     A dies there
//! A i │ B j │ A to its end │ B …           both sleep; B may die there too
//! A i │ B j │ C … │ A … │ B …              a third one runs meanwhile
//! ```
//!
//! After each plan is checked: the answers are linearizable for each key, and a key is forgotten only if something was
//! evicted; the structure is valid; unless a participant died, the live bytes are exact; no living participant was reaped; a
//! new participant can change every key without waiting, and gets every segment back. In tests the generation in an entry has
//! two bits, so that it is the same again after four lives of a segment (M2).

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use cache_machine_core::{
    Expect, MIN_SIZE, MODEL_SIZE, Mismatch, NUMBER, Participant, Phase, Refused, format, inspect,
};
use shuttle::scheduler::{PctScheduler, RandomScheduler};

use crate::acts::*;
use crate::harness::*;
use crate::play::*;
use crate::stage::*;

// ---- all pairs of acts --------------------------------------------------------------------------------------

#[test]
fn every_pair_with_one_asleep_or_dead() {
    let _watchdog = Watchdog::new("every_pair_with_one_asleep_or_dead", 300);
    let mut random = Random::new(seed("every_pair_with_one_asleep_or_dead"));
    let tally = Arc::default();
    for scene in scenes() {
        for first in ACTS {
            for second in ACTS.iter().chain([&WRAP]) {
                let play = play(&scene, &[*first, *second], &tally);
                play.sample(scaled(10), &mut random, sleeps);
                play.sample(scaled(10), &mut random, dies);
            }
        }
    }
    told("one asleep or dead", &tally);
}

/// Both sleep, or one of them dies, at random accesses of both.
#[test]
fn every_pair_with_both_on_the_way() {
    let _watchdog = Watchdog::new("every_pair_with_both_on_the_way", 300);
    let mut random = Random::new(seed("every_pair_with_both_on_the_way"));
    let tally = Arc::default();
    for scene in scenes() {
        for first in ACTS {
            for second in ACTS {
                let play = play(&scene, &[*first, *second], &tally);
                let lengths = play.lengths();
                let mut random = Random::new(random.next());
                let mut left = scaled(16);
                play.plans(move |_| {
                    left = left.checked_sub(1)?;
                    let [i, j] = [0, 1].map(|who| random.below(lengths[who].max(1)));
                    Some(match left % 4 {
                        0 => vec![turn(0, i), turn(1, j), turn(0, TO_THE_END), turn(1, TO_THE_END)],
                        1 => vec![turn(0, i), death(1, j), turn(0, TO_THE_END)],
                        2 => vec![turn(0, i), turn(1, j), death(0, 1 + i), turn(1, TO_THE_END)],
                        // Both take several turns.
                        _ => (0..8)
                            .flat_map(|_| [turn(0, 1 + random.below(20)), turn(1, 1 + random.below(20))])
                            .collect(),
                    })
                });
            }
        }
    }
    told("both on the way", &tally);
}

#[test]
fn three_at_once() {
    let _watchdog = Watchdog::new("three_at_once", 300);
    let mut random = Random::new(seed("three_at_once"));
    let (tally, scenes) = (Arc::default(), scenes());
    for _ in 0..scaled(600) {
        let acts = [any(&mut random, ACTS), any(&mut random, ACTS), any(&mut random, ACTS)];
        let play = play(&any(&mut random, &scenes), &acts, &tally);
        let lengths = play.lengths();
        let mut random = Random::new(random.next());
        let mut left = 24;
        play.plans(move |_| {
            left -= 1;
            let [i, j] = [0, 1].map(|who| random.below(lengths[who].max(1)));
            let end = |who| turn(who, TO_THE_END);
            Some(match left {
                0 => return None,
                left => match left % 5 {
                    0 => vec![turn(0, i), turn(1, j), end(2), end(0), end(1)],
                    1 => vec![turn(0, i), turn(1, j), end(2), end(1), end(0)],
                    2 => vec![death(0, i), death(1, j), end(2)],
                    3 => vec![turn(0, i), death(1, j), end(2), end(0)],
                    _ => vec![death(0, i), turn(1, j), end(2), end(1)],
                },
            })
        });
    }
    told("three", &tally);
}

/// Schedules that shuttle chooses, which can switch at every access.
#[test]
fn random_and_probabilistic_schedules() {
    let _watchdog = Watchdog::new("random_and_probabilistic_schedules", 300);
    let mut random = Random::new(seed("random_and_probabilistic_schedules"));
    let (tally, scenes) = (Arc::default(), scenes());
    for round in 0..scaled(120) {
        let acts: Vec<Act> = (0..2 + round % 2).map(|_| any(&mut random, ACTS)).collect();
        let play = play(&any(&mut random, &scenes), &acts, &tally);
        let seed = random.next();
        stage().probing.set(true);
        if round % 3 == 0 {
            play.run(RandomScheduler::new_from_seed(seed, 10));
        } else {
            play.run(PctScheduler::new_from_seed(seed, 2 + round as usize % 3, 10));
        }
        stage().probing.set(false);
    }
    told("shuttle's schedules", &tally);
}

// ---- invariants by name, at every access ------------------------------------------------------------------------

/// Both sleep: the first at every access, and for each of these the second at about forty of its accesses.
fn both_on_the_way(play: &Play) {
    let lengths = play.lengths();
    let (step, mut i, mut j) = ((lengths[1] / scaled(40).max(1)).max(1), 0, 0);
    play.plans(move |_| {
        j += step;
        if j > lengths[1] {
            (i, j) = (i + 1, i % step);
        }
        (i < lengths[0]).then(|| vec![turn(0, i), turn(1, j), turn(0, TO_THE_END), turn(1, TO_THE_END)])
    });
}

/// A reader gets one whole value of its key, even if the segment begins another life meanwhile.
#[test]
fn i1_authentic() {
    everywhere(
        "i1",
        &scenes(),
        &[GET, GET_NEAR, GET_LARGE, GET_COUNTER],
        &[SET, SET_LARGE, RECLAIM, COMPACT, TOUCH_LARGE],
    );
}

/// An even version belongs to one number only, for every reader. An odd version proves nothing: the number may be changing.
#[test]
fn i1_a_version_stands_for_one_number() {
    const TWICE: Act = Act {
        name: "twice",
        act: |cache, _| {
            if let (Some(first), Some(second)) = (cache.peek(b"n"), cache.peek(b"n")) {
                let same = first.version == second.version && first.version & 1 == 0;
                assert!(!same || first.value == second.value, "{first:?} and {second:?}");
            }
        },
    };
    const COMPARED: Act = Act {
        name: "compared",
        act: |cache, _| {
            let Some(first) = cache.peek(b"n") else { return };
            let Some(second) = cache.peek(b"n") else { return };
            let new = 77.0f64.to_le_bytes().to_vec();
            put(cache, "n", new.clone(), NUMBER, Expect::Version(first.version));
            let stored = cache.peek(b"n").is_some_and(|got| got.value == new);
            assert!(!stored || first.value == second.value, "{second:?} was taken for {first:?}");
        },
    };
    everywhere("i1, twice", &scenes(), &[TWICE], &[INCREMENT, TOUCH_COUNTER, SET_NUMBER, COMPACT]);
    let tally = Arc::default();
    both_on_the_way(&play(&scenes()[0], &[INCREMENT, TWICE], &tally));
    // One increments, and dies while the other is between its two reads.
    let play = play(&scenes()[0], &[INCREMENT, COMPARED], &tally);
    let lengths = play.lengths();
    let mut left = lengths[0] * lengths[1] * 3;
    play.plans(move |_| {
        left = left.checked_sub(1)?;
        let (i, j) = (left / 3 % lengths[0], left / 3 / lengths[0]);
        Some(vec![turn(0, i), turn(1, j), death(0, 1 + left % 3), turn(1, TO_THE_END)])
    });
    told("a version", &tally);
}

/// A value that was replaced or removed does not come back: neither by a copy that was under way, nor by a writer that slept.
#[test]
fn i2_no_resurrection() {
    let changes = [SET, REMOVE, COMPARE_AND_SET, TOUCH, INVALIDATE, EXPIRE_TAGS, EXPIRE, RECLAIM, COMPACT];
    everywhere("i2", &scenes(), &changes, &changes);
}

#[test]
fn i3_one_live_entry_per_key() {
    let changes = [SET, ADD, REMOVE, SET_NUMBER, INCREMENT, SHRINK, COMPACT];
    everywhere("i3", &scenes(), &changes, &changes);
    // Two that take the same lock.
    let tally = Arc::default();
    for act in [ADD, SHRINK, REMOVE, INCREMENT] {
        both_on_the_way(&play(&scenes()[0], &[act, act], &tally));
    }
    told("i3, both on the way", &tally);
}

/// Every word of the region gets many wrong values: the worst result is a miss or a refusal.
#[test]
fn i4_any_bit_pattern_parses() {
    let _watchdog = Watchdog::new("i4", 300);
    let mut random = Random::new(seed("i4_any_bit_pattern_parses"));
    let mut words = 0;
    for scene in limited() {
        let geometry = World::holding(&scene.bytes).region().geometry;
        for at in (0..geometry.segment(geometry.segments)).step_by(8) {
            let word = |at: u32| u64::from_le_bytes(scene.bytes[at as usize..at as usize + 8].try_into().unwrap());
            let other = random.below(geometry.segment(geometry.segments) as u64 / 8) as u32 * 8;
            let (was, chance) = (word(at), random.next());
            // The empty parts of the header are large, and all alike.
            if was == 0 && at < 4096 && !at.is_multiple_of(64) {
                continue;
            }
            let patterns =
                [0, u64::MAX, chance, word(other), was ^ 1 << (chance % 64), was.wrapping_add(16), was << 32];
            for pattern in patterns {
                let world = World::holding(&scene.bytes);
                world.patience.store(1, SeqCst);
                world.bytes()[at as usize..at as usize + 8].copy_from_slice(&pattern.to_le_bytes());
                let mut cache = Cache::join(&world);
                let mut steps = accesses(|| {
                    for key in LOGGED {
                        cache.get(key.as_bytes());
                        cache.get_near(key.as_bytes());
                    }
                    let _ = cache.increment(b"n", 1.0, 0.0, &PLAIN);
                    let _ = cache.limit(LIMITED.as_bytes(), &RULE);
                    let _ = cache.touch(b"large", 1e9);
                    let _ = cache.set(b"large", &long(0));
                    let _ = cache.remove(b"a", Expect::Anything);
                    cache.keys();
                    cache.me.census();
                    cache.me.participants();
                    let _ = cache.me.validate();
                });
                steps += accesses(|| drop(cache.set(b"x", b"x")));
                steps += accesses(|| drop(cache.set(b"y", b"y")));
                assert!(steps < 400_000, "{}: {steps} accesses with {pattern:x} at {at}", scene.name);
                words += 1;
            }
        }
    }
    eprintln!("i4: {words} words");
}

/// A value that a near cache holds with a proof is what the cache holds. Both sleep, and the reader also asks the engine.
#[test]
fn i2_a_proof_is_of_what_is_there() {
    const READ: Act = Act {
        name: PROVED,
        act: |cache, _| {
            for get in [Cache::get_near, Cache::peek, Cache::get_near, Cache::peek, Cache::get_near] {
                got(cache, "a", get);
            }
        },
    };
    // The reader keeps the value anew, with a proof, while the other one is working.
    const KEEP: Act = Act {
        name: PROVED,
        act: |cache, me| {
            cache.forget_near();
            (READ.act)(cache, me);
        },
    };
    let _watchdog = Watchdog::new("i2_a_proof_is_of_what_is_there", 300);
    let tally = Arc::default();
    let scenes = scenes();
    for (scene, change) in [(0, SET), (0, REMOVE), (0, TOUCH), (3, RECLAIM)] {
        for read in [READ, KEEP] {
            let play = play(&scenes[scene], &[change, read], &tally);
            play.at_every(0, 1, sleeps);
            both_on_the_way(&play);
        }
    }
    // The reader comes first, and the other one does all of its work in between.
    play(&scenes[0], &[KEEP, SET], &tally).at_every(0, 1, sleeps);
    told("proofs", &tally);
}

/// A writer that sleeps while segments begin many lives does not write into the bytes of others when it wakes up.
#[test]
fn m1_bytes_are_exclusive() {
    everywhere("m1", &scenes()[1..], &[SET, SET_LARGE, INCREMENT, TOUCH, TOUCH_LARGE, ADD], &[WRAP]);
}

/// An entry with the same two bits of generation as four lives ago is not taken for the old one.
#[test]
fn m2_generation_aliasing_is_harmless() {
    let scenes = scenes();
    let world = World::holding(&scenes[3].bytes);
    let mut cache = Cache::join(&world);
    (WRAP.act)(&mut cache, 0);
    let lives = cache.audit().iter().filter(|each| each.generation > 5).count();
    assert!(lives >= 7, "the segments have to begin more lives than two bits can tell apart");
    everywhere("m2", &scenes[1..], &[GET, GET_NEAR, GET_LARGE, GET_COUNTER, WALK, COMPARE_AND_SET], &[WRAP]);
}

/// The same entry word comes back four lives of its segment later, for another value of the same key. A reader that slept
/// since it read the word, or in the middle of its copy, returns neither an unfinished value nor a mixture.
#[test]
fn m2_the_same_entry_comes_back() {
    const READ: Act = Act {
        name: "read",
        act: |cache, _| {
            let mut last = 0;
            for got in [cache.get(b"f"), cache.get(b"f")].into_iter().flatten() {
                let number = u64::from_le_bytes(got.value[..8].try_into().unwrap());
                assert!(got.value == number.to_le_bytes().repeat(11), "torn: {:?}", got.value);
                assert!(number >= last, "{number} after {last}");
                last = number;
            }
        },
    };
    const COME_BACK: Act = Act {
        name: "come back",
        act: |cache, _| {
            let first = cache.peek(b"f").unwrap().stamp;
            for i in 1..2_000u64 {
                cache.set(b"f", &i.to_le_bytes().repeat(11)).unwrap();
                let now = cache.peek(b"f").unwrap().stamp;
                if now.entry == first.entry && now.generation != first.generation {
                    return;
                }
            }
            panic!("the entry has not come back");
        },
    };
    let _watchdog = Watchdog::new("m2_the_same_entry_comes_back", 300);
    let world = World::new(MODEL_SIZE);
    Cache::join(&world).set(b"f", &[0; 88]).unwrap();
    let scene = Arc::new(Scene { name: "roomy", bytes: world.bytes().to_vec() });
    let tally = Arc::default();
    let play = play(&scene, &[READ, COME_BACK], &tally);
    play.at_every(0, 1, sleeps);
    // The other one sleeps in its last set.
    let lengths = play.lengths();
    let (mut i, mut before_the_end) = (0, 0);
    play.plans(move |_| {
        before_the_end += 3;
        if before_the_end > 120 {
            (i, before_the_end) = (i + 1, i % 3);
        }
        let plan = vec![turn(0, i), turn(1, lengths[1] - before_the_end), turn(0, TO_THE_END), turn(1, TO_THE_END)];
        (i < lengths[0] / 2).then_some(plan)
    });
    told("the same entry", &tally);
}

/// A participant dies while it opens, seals, reclaims or frees a segment: no segment is lost. (Every execution ends with that
/// check.)
#[test]
fn m3_segments_are_conserved() {
    let tally = everywhere("m3", &scenes(), &[RECLAIM, COMPACT, SET_LARGE, CLEAR], &[REAP, ADD, RECLAIM]);
    assert!(tally.deaths > 1_000);
}

/// A participant that dies after it opened a segment, and before the segment is in a lane, leaves a segment that nobody
/// appends to: it is sealed and reclaimed.
#[test]
fn m3_what_was_opened_for_no_lane_is_reclaimed() {
    for scene in &scenes()[1..] {
        for n in 0.. {
            let world = World::holding(&scene.bytes);
            let mut victim = Cache::join(&world);
            let died = dies_at(n, || (RECLAIM.act)(&mut victim, 0));
            world.kill(victim.me.seat);
            let mut survivor = Cache::join(&world);
            for i in 0..100u8 {
                survivor.set(&[b'z', i], &[i; 24]).unwrap();
            }
            let open = survivor.audit().iter().filter(|each| each.phase == Phase::Open).count();
            assert!(open <= 2, "{}: {open} segments are open after {n} accesses", scene.name);
            if !died {
                break;
            }
        }
    }
}

/// All sealed segments except one are pinned, each by another participant that sleeps: the one is reclaimed.
#[test]
fn m4_reclaim_progresses_with_one_unpinned() {
    for spare in 0..3 {
        let world = World::holding(&scenes()[3].bytes);
        let mut cache = Cache::join(&world);
        let sealed: Vec<u32> =
            cache.audit().iter().filter(|each| each.phase == Phase::Sealed).map(|each| each.segment).collect();
        let sleepers: Vec<Cache> = (0..3).map(|_| Cache::join(&world)).collect();
        let geometry = world.region().geometry;
        for (i, sleeper) in sleepers.iter().enumerate().filter(|(i, _)| *i != spare) {
            let at = geometry.seat(sleeper.me.seat) as usize + 8;
            world.bytes()[at..at + 8].copy_from_slice(&(sealed[i] as u64 + 1).to_le_bytes());
        }
        let lives = cache.audit();
        for i in 0..200u8 {
            cache.set(&[b'z', i], &[i; 24]).unwrap();
            assert_eq!(cache.get(&[b'z', i]).unwrap().value, [i; 24]);
        }
        for (i, segment) in sealed.iter().enumerate().take(3) {
            let same = cache.audit()[*segment as usize].generation == lives[*segment as usize].generation;
            assert_eq!(same, i != spare, "segment {segment}, pinned by {i}");
        }
        cache.check();
    }
}

/// Four participants sleep while they reclaim, and have used up the reserve for what they move. A fifth one can reclaim too.
#[test]
fn m4_a_crowd_of_reclaimers() {
    let mut random = Random::new(seed("m4_a_crowd_of_reclaimers"));
    let hot = |cache: &mut Cache, i: u8| {
        assert!(cache.set(&[b'p', i], &[i; 24]).is_ok());
        (0..3).for_each(|_| drop(cache.get(&[b'p', i])));
    };
    let tally = Arc::default();
    let play = play(&Arc::new(scene("hot", 3, Some(hot))), &[RECLAIM; 5], &tally);
    let lengths = play.lengths();
    let mut left = scaled(1_000);
    play.plans(move |_| {
        left = left.checked_sub(1)?;
        Some((0..4).map(|who| turn(who, random.below(lengths[0]))).chain([turn(4, TO_THE_END)]).collect())
    });
    told("a crowd", &tally);
}

/// The most accesses that a `get` may make, however often it is disturbed: sixteen attempts at a bucket, and eight at each
/// chunk.
const GET_LIMIT: u64 = 3_000;

/// A reader is disturbed by changes again and again, at each of its accesses in turn.
#[test]
fn l1_gets_are_bounded() {
    let _watchdog = Watchdog::new("l1", 300);
    let mut random = Random::new(seed("l1_gets_are_bounded"));
    const CHURN: Act = Act {
        name: "churn",
        act: |cache, me| {
            for i in 0..60u8 {
                let _ = cache.set(b"a", &[i, me as u8]);
                let _ = cache.set(b"large", &[i; 200]);
            }
            // The stores above are not logged. The clear is, and no key holds a value afterwards.
            dropped(&LOGGED, || cache.me.clear());
        },
    };
    let tally = Arc::default();
    for scene in scenes() {
        for get in [GET, GET_NEAR, GET_LARGE] {
            // The answers are not logged, so only the number of accesses is checked.
            let quiet =
                Act { act: |cache, _| drop((cache.get(b"a"), cache.get_near(b"a"), cache.get(b"large"))), ..get };
            let play = play(&scene, &[quiet, CHURN], &tally);
            let mut random = Random::new(random.next());
            let mut left = scaled(200);
            play.plans(move |_| {
                left = left.checked_sub(1)?;
                Some((0..200).flat_map(|_| [turn(0, 1 + random.below(12)), turn(1, 1 + random.below(300))]).collect())
            });
        }
    }
    let longest = &tally.lock().unwrap().longest;
    eprintln!("l1: {longest:?}");
    assert!(longest.iter().all(|(name, steps)| *name == "churn" || *steps < 3 * GET_LIMIT), "{longest:?}");
}

/// A change ends, at worst with `Busy`, whatever another participant holds while it sleeps for ever. (Every history checks that
/// a refused change changed nothing: P3.)
#[test]
fn l2_changes_are_bounded() {
    let changes = [SET, SET_LARGE, SHRINK, ADD, REMOVE, REMOVE_LARGE, INCREMENT, TOUCH, TOUCH_COUNTER, TOUCH_LARGE];
    let tally = everywhere("l2", &scenes(), &changes, &changes);
    assert!(tally.busy > 100, "no change met a lock that was held");
    assert!(tally.longest.values().all(|steps| *steps < 50_000), "{:?}", tally.longest);
}

/// A participant that sleeps is not reaped, wherever it sleeps. (Every execution ends with that check.)
#[test]
fn l3_the_living_are_not_reaped() {
    let tally = everywhere("l3", &scenes()[..2], ACTS, &[REAP, ATTACH, COME_AND_GO]);
    assert!(tally.executions > 1_000);
}

/// Many participants die in one region, one after the other.
#[test]
fn l4_damage_does_not_accumulate() {
    let _watchdog = Watchdog::new("l4", 300);
    let mut random = Random::new(seed("l4_damage_does_not_accumulate"));
    let mut deaths = 0;
    for scene in scenes() {
        let world = World::holding(&scene.bytes);
        world.patience.store(0, SeqCst);
        let mut survivor = Cache::join(&world);
        stage().set(vec![], 2, &world);
        for round in 0..scaled(4_000) {
            let mut victim = Cache::join(&world);
            let act = any(&mut random, ACTS);
            stage().seats.borrow_mut().resize(2, vec![]);
            stage().seats.borrow_mut()[1] = vec![victim.me.seat];
            let bits = random.below(11);
            deaths += dies_at(random.below(1 << bits), || (act.act)(&mut victim, 1)) as u64;
            // It is dead in either case, and so is the participant that it attached.
            stage().seats.borrow()[1].iter().for_each(|seat| world.kill(*seat));
            stage().log.borrow_mut().clear();
            if round % 16 == 0 {
                survivor.check_structure();
                assert!(survivor.set(b"a", b"again").is_ok() && survivor.get(b"a").is_some());
                assert!(survivor.set(b"large", &long(1)).is_ok() && survivor.get(b"large").is_some());
                survivor.remove(b"n", Expect::Anything).unwrap();
                assert_eq!(survivor.increment(b"n", 1.0, 0.0, &PLAIN), Ok(1.0));
            }
        }
        let lives = survivor.audit();
        survivor.me.clear();
        for i in 0..100u8 {
            survivor.set(&[b'z', i], &[i; 24]).unwrap();
        }
        for (before, after) in lives.iter().zip(survivor.audit()) {
            let recycled = before.generation != after.generation || matches!(before.phase, Phase::Free | Phase::Open);
            assert!(recycled, "a segment leaked: {before:?} is now {after:?}");
        }
    }
    eprintln!("l4: {deaths} deaths");
    assert!(deaths > 0);
}

/// One participant dies while it reclaims, the next one dies while it goes on with that, and the third one finishes.
#[test]
fn l5_reclaim_and_reap_can_be_done_again() {
    let _watchdog = Watchdog::new("l5", 300);
    let mut random = Random::new(seed("l5_reclaim_and_reap_can_be_done_again"));
    let tally = Arc::default();
    for scene in &scenes()[1..] {
        for first in [RECLAIM, COMPACT, SET_LARGE, ATTACH] {
            for second in [RECLAIM, REAP, ADD] {
                let play = play(scene, &[first, second, RECLAIM], &tally);
                let lengths = play.lengths();
                let mut random = Random::new(random.next());
                let mut left = scaled(400);
                play.plans(move |_| {
                    left = left.checked_sub(1)?;
                    let [i, j] = [0, 1].map(|who| random.below(lengths[who]));
                    Some(vec![death(0, i), death(1, j), turn(2, TO_THE_END)])
                });
            }
        }
    }
    told("l5", &tally);
}

/// A key that was read often is read without a single write, with a near cache and without.
#[test]
fn p1_a_hot_key_stops_writing() {
    let world = World::holding(&scenes()[2].bytes);
    let mut cache = Cache::join(&world);
    for _ in 0..4 {
        cache.get(b"a");
        cache.get_near(b"a");
    }
    let own = world.region().geometry.seat(cache.me.seat) as usize;
    let but_its_own_counters = || {
        let mut bytes = world.bytes().to_vec();
        bytes[own + 64..own + 128].fill(0);
        bytes
    };
    let before = but_its_own_counters();
    for _ in 0..100 {
        assert!(cache.get(b"a").is_some() && cache.get_near(b"a").is_some());
    }
    assert!(before == but_its_own_counters(), "reading a hot key wrote to the region");
}

/// Time passes during a read: a value that had expired when the read began is not returned.
#[test]
fn p2_expired_is_never_returned() {
    const TIME_PASSES: Act =
        Act { name: "time passes", act: |cache, _| dropped(&["a", "large"], || cache.world.set_clock(1_000.0)) };
    let mortal = Arc::new(furnished("roomy", 1, 500.0, None));
    everywhere("p2", &[mortal], &[GET, GET_NEAR, GET_LARGE, TIME_PASSES], &[TIME_PASSES, GET, GET_NEAR, GET_LARGE]);
}

/// A set is refused as too large, as unexpected, or because a participant sleeps with the lock: the old value stays.
#[test]
fn p3_a_refused_set_keeps_the_old() {
    const REFUSED: Act = Act {
        name: "refused",
        act: |cache, me| {
            assert_eq!(cache.set(b"a", &[1; 385]), Err(Refused::TooLarge));
            assert_eq!(cache.set(b"large", &[1; 385]), Err(Refused::TooLarge));
            put(cache, "n", short(me), TEXT, Expect::Absent);
            put(cache, "x", short(me), TEXT, Expect::Present);
        },
    };
    everywhere("p3", &scenes(), &[REFUSED, SET, SET_LARGE], &[REFUSED, SET, SET_LARGE]);
}

/// Increments while others move, touch, replace and increment the counter.
#[test]
fn p4_no_increment_is_lost() {
    let acts = [INCREMENT, TOUCH_COUNTER, COMPACT, RECLAIM, SET_NUMBER];
    everywhere("p4", &scenes(), &acts, &acts);
    let tally = Arc::default();
    both_on_the_way(&play(&scenes()[1], &[INCREMENT, COMPACT], &tally));
    both_on_the_way(&play(&scenes()[0], &[INCREMENT, INCREMENT], &tally));
    told("p4", &tally);
}

/// Requests at a limit while others ask it, move it, touch it, remove it and read it; two and three at once.
#[test]
fn p6_a_limit_lets_exactly_so_many_through() {
    let others = [ASK, TOUCH_LIMIT, REMOVE_LIMIT, COMPACT, RECLAIM];
    for scenes in [limited(), scenes()] {
        everywhere("p6", &scenes, &[ASK, READ_LIMIT, TOUCH_LIMIT], &others);
    }
    let mut random = Random::new(seed("p6_a_limit_lets_exactly_so_many_through"));
    let tally = Arc::default();
    for scene in [&limited()[0], &scenes()[0]] {
        both_on_the_way(&play(scene, &[ASK, ASK], &tally));
        both_on_the_way(&play(scene, &[ASK, READ_LIMIT], &tally));
        let play = play(scene, &[ASK, ASK, ASK], &tally);
        let lengths = play.lengths();
        let mut random = Random::new(random.next());
        let mut left = scaled(600);
        play.plans(move |_| {
            left = left.checked_sub(1)?;
            let [i, j] = [0, 1].map(|who| random.below(lengths[who].max(1)));
            let end = |who| turn(who, TO_THE_END);
            Some(match left % 3 {
                0 => vec![turn(0, i), turn(1, j), end(2), end(0), end(1)],
                1 => vec![turn(0, i), death(1, j), end(2), end(0)],
                _ => vec![death(0, i), death(1, j), end(2)],
            })
        });
    }
    told("p6", &tally);
}

/// A lock, a segment or an unfinished value of a dead participant blocks nobody.
#[test]
fn p5_what_the_dead_own_blocks_nobody() {
    let _watchdog = Watchdog::new("p5", 300);
    let tally = Arc::default();
    for scene in scenes() {
        for first in [SET_LARGE, SET, INCREMENT, TOUCH_LARGE, RECLAIM, COMPACT] {
            for second in [SET, SET_LARGE, INCREMENT, RECLAIM] {
                let play = play(&scene, &[first, second], &tally);
                play.at_every(0, 1, dies);
            }
        }
    }
    told("p5", &tally);
    assert_eq!(tally.lock().unwrap().busy, 0, "changes were refused because of the dead");
}

/// Attaching while others attach, and after a participant died while it attached.
#[test]
fn a1_attach() {
    everywhere("a1", &scenes(), &[ATTACH, COME_AND_GO], &[ATTACH, COME_AND_GO, REAP, SET, RECLAIM]);
}

/// A participant that dies while it formats a region leaves no region: nobody takes the unfinished one for a cache.
#[test]
fn a1_create() {
    let world = World::new(MODEL_SIZE);
    for n in 0.. {
        world.bytes().fill(0);
        let died = dies_at(n, || format(&world.region(), [7, 0]));
        let header: Vec<u64> =
            world.bytes()[..64].chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
        let expected = if died { Err(Mismatch::Foreign) } else { Ok(()) };
        assert_eq!(inspect(&header, MODEL_SIZE as u64), expected, "after {n} accesses");
        if !died {
            assert!(n > 10);
            break;
        }
    }
    Cache::join(&world).check();
}

/// A participant that dies between reserving space and writing its first word leaves a hole, which no walk can pass. The
/// records behind the hole are found by way of the index, and kept: overwriting one key for ever evicts nothing.
#[test]
fn l5_a_hole_costs_its_neighbours_nothing() {
    const GO_ROUND: Act = Act {
        name: "go round",
        act: |cache, me| {
            // The first of these lies behind the hole.
            put(cache, "x", short(me), TEXT, Expect::Anything);
            // With the seed of these regions this key is not in the bucket of `large`, which the sleeper may hold.
            for i in 0..150u8 {
                assert!(cache.set(&[b'c', me as u8], &[i; 24]).is_ok());
            }
        },
    };
    let changes = [SET, SET_LARGE, INCREMENT, TOUCH_LARGE, COMPACT];
    let cold = scene("sparse", 0, Some(|cache, i| assert!(cache.set(b"f", &[i; 24]).is_ok())));
    let scenes = [&scenes()[..2], &[Arc::new(cold)]].concat();
    let tally = everywhere("holes", &scenes, &changes, &[GO_ROUND]);
    assert_eq!(tally.evicting, 0, "what fits was evicted");
    // Only a death at one certain access makes a hole.
    let tally = Arc::default();
    for scene in &scenes {
        play(scene, &[SET, GO_ROUND], &tally).at_every(0, 1, dies);
    }
    assert_eq!(tally.lock().unwrap().evicting, 0, "what fits was evicted");
}

/// Makes what is left of a writer that dies between reserving space and writing its first word, in each open segment that
/// has no hole yet.
fn make_holes(cache: &Cache, holes: &mut HashSet<(u32, u32)>) {
    let region = &cache.me.region;
    for open in cache.audit().iter().filter(|segment| segment.phase == Phase::Open) {
        if holes.insert((open.segment, open.generation)) {
            // The first of a segment's meta words says how much of it is reserved.
            region.word(region.geometry.meta(open.segment)).fetch_add(64, SeqCst);
        }
    }
}

/// Every segment has a hole. Who writes a large value reclaims these segments, because none of them can have a chunk of that
/// value; and so it does not lose chunks of its own.
#[test]
fn l4_holes_everywhere_leave_room_for_large_values() {
    for size in [MODEL_SIZE, MIN_SIZE] {
        let world = World::new(size);
        world.patience.store(0, SeqCst);
        let mut cache = Cache::join(&world);
        let geometry = world.region().geometry;
        let value = vec![1; geometry.max_value.min(size / 8) as usize];
        for round in 0..8 {
            let mut holes = HashSet::new();
            for i in 0..size / 8 {
                cache.set(format!("{round} {i}").as_bytes(), &[i as u8; 24]).unwrap();
                if i % (geometry.segment_bytes() / 128) == 0 {
                    make_holes(&cache, &mut holes);
                }
                if holes.len() >= 2 * geometry.segments as usize {
                    break;
                }
            }
            assert!(holes.len() >= 2 * geometry.segments as usize);
            assert!(cache.set(b"large", &value).is_ok(), "{size}, round {round}");
            assert_eq!(cache.get(b"large").unwrap().value, value);
        }
        cache.check();
    }
}

/// The chunks of a value that is being written lie behind holes, and their writer goes round the whole cache.
#[test]
fn l4_own_chunks_behind_holes_stay() {
    let world = World::new(MIN_SIZE);
    let mut cache = Cache::join(&world);
    let mut holes = HashSet::new();
    let chunk = vec![1; cache.me.chunk_bytes() as usize];
    let key = OwnedKey::of(b"large");
    for round in 0..8u8 {
        let version = cache.me.version();
        let mut list = vec![8 * chunk.len() as u64];
        for number in 0..8 {
            cache.set(b"filler", &[round; 24]).unwrap();
            make_holes(&cache, &mut holes);
            list.push(cache.me.write_chunk(&key.with(cache.me.seed), version, number, &chunk).unwrap().0);
        }
        for i in 0..MIN_SIZE / 24 {
            cache.set(format!("flood {i}").as_bytes(), &[i as u8; 24]).unwrap();
        }
        let block = Participant::<TestHost>::no_tags();
        let key = key.with(cache.me.seed);
        let stored = cache.me.set_large(&key, TEXT, version, NEVER, 0.0, &block, &list, Expect::Anything);
        assert_eq!(stored, Ok(()), "round {round}");
        assert_eq!(cache.get(b"large").unwrap().value.len(), 8 * chunk.len());
        cache.check();
    }
}

/// A large value that is being written while others overwrite a key can be finished, however long its writer sleeps.
#[test]
fn l2_a_large_value_is_finished() {
    const OVERWRITE: Act = Act {
        name: "overwrite",
        act: |cache, me| {
            for i in 0..150u8 {
                let _ = cache.set(&[b'c', me as u8], &[i; 24]);
            }
        },
    };
    let tally = Arc::default();
    for scene in &scenes()[..2] {
        play(scene, &[SET_LARGE, OVERWRITE], &tally).at_every(0, 1, sleeps);
    }
    told("a large value", &tally);
    assert_eq!(tally.lock().unwrap().busy, 0, "its chunks were reclaimed");
}
