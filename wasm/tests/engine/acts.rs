//! What participants do in the models, and the regions in which they do it. Operations on four keys are logged.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use cache_machine_core::{Counter, Expect, GCRA, LIMIT, MODEL_SIZE, NUMBER, Refused, Rule};

use crate::harness::*;
use crate::history::{Change, Did, Event, NO_END};
use crate::stage::stage;

#[derive(Clone, Copy)]
pub struct Act {
    pub name: &'static str,
    pub act: fn(&mut Cache, usize),
}

/// Lets a cache act, and notes whether it dies between an eviction and its count.
pub fn attended(cache: &mut Cache, act: impl FnOnce(&mut Cache)) {
    if let Err(death) = catch_unwind(AssertUnwindSafe(|| act(cache))) {
        let stage = stage();
        stage.cut_off.set(stage.cut_off.get() || cache.me.evicting.get());
        resume_unwind(death);
    }
}

/// Logs an operation on a key. `died` is logged instead if the participant dies: what it was about to do. The answer `None`
/// stands for `Busy`, which changes nothing.
pub fn log(key: &'static str, died: Change, act: impl FnOnce() -> Option<Did>) {
    let stage = stage();
    let start = stage.tick();
    let at = stage.log.borrow().len();
    stage.log.borrow_mut().push((key, Event { start, end: NO_END, did: Did::Died(died) }));
    let did = act();
    let end = stage.tick();
    let event = match did {
        Some(did) => Event { start, end, did },
        // Like a change whose participant died before it did anything.
        None => {
            stage.refused.set(stage.refused.get() + 1);
            Event { start, end: NO_END, did: Did::Died(Change::Nothing) }
        }
    };
    stage.log.borrow_mut()[at].1 = event;
}

pub fn got(cache: &mut Cache, key: &'static str, get: fn(&mut Cache, &[u8]) -> Option<Got>) {
    log(key, Change::Nothing, || Some(Did::Got(get(cache, key.as_bytes()).map(|got| (got.value, got.version)))));
}

pub fn put(cache: &mut Cache, key: &'static str, value: Vec<u8>, value_type: u8, expect: Expect) {
    log(key, Change::Put { expect, value: value.clone() }, || {
        let (tags, grace) = (tags_of(key), grace_of(key));
        match cache.store(key.as_bytes(), &value, &With { value_type, expect, tags, grace, ..PLAIN }) {
            Ok(version) => Some(Did::Set { expect, value, version: Some(version) }),
            Err(Refused::Unexpected) => Some(Did::Set { expect, value, version: None }),
            Err(Refused::Busy) => None,
            Err(refused) => panic!("{refused:?}"),
        }
    });
}

pub fn tags_of(key: &str) -> &'static [&'static str] {
    if key == "a" { &["t"] } else { &[] }
}

/// The tagged key has a grace, so that it becomes stale when it expires.
pub fn grace_of(key: &str) -> f64 {
    if key == "a" { 1e12 } else { 0.0 }
}

/// For reads without `getStale` an entry that expires is removed.
pub fn expired(cache: &mut Cache, key: &'static str) {
    log(key, Change::Remove, || cache.expire(key.as_bytes()).ok().map(Did::Removed));
}

pub fn removed(cache: &mut Cache, key: &'static str) {
    log(key, Change::Remove, || cache.remove(key.as_bytes(), Expect::Anything).ok().map(Did::Removed));
}

pub fn touched(cache: &mut Cache, key: &'static str) {
    log(key, Change::Nothing, || cache.touch(key.as_bytes(), 1e9).ok().map(Did::Touched));
}

pub fn dropped(keys: &[&'static str], act: impl FnOnce()) {
    let stage = stage();
    let start = stage.tick();
    let at = stage.log.borrow().len();
    for key in keys {
        stage.log.borrow_mut().push((key, Event { start, end: NO_END, did: Did::Died(Change::Remove) }));
    }
    act();
    let end = stage.tick();
    for (_, event) in &mut stage.log.borrow_mut()[at..at + keys.len()] {
        *event = Event { start, end, did: Did::Dropped };
    }
}

/// A value that names its writer, and whose words all differ.
pub fn short(who: usize) -> Vec<u8> {
    (0..3u64).flat_map(|word| ((who as u64 + 1) << 32 | word).to_le_bytes()).collect()
}

pub fn long(who: usize) -> Vec<u8> {
    (0..25u64).flat_map(|word| ((who as u64 + 1) << 40 | word).to_le_bytes()).collect()
}

/// The keys that are logged, but for [`LIMITED`].
pub const KEYS: [&str; 4] = ["a", "n", "large", "x"];
/// The key of a rate limit.
pub const LIMITED: &str = "l";
/// All keys that are logged.
pub const LOGGED: [&str; 5] = ["a", "n", "large", "x", LIMITED];
/// The rule of the limit. Time stands still in most models, so as many requests go through as the limit says.
pub const RULE: Rule = Rule { algorithm: GCRA, limit: 3.0, window: 1000.0, burst: 3.0, cost: 1.0, peek: false };

/// What a map holds for a key: of a limit the number of its requests, otherwise the value.
pub fn held(got: Got) -> Vec<u8> {
    if got.value_type != LIMIT {
        return got.value;
    }
    let word = |i: usize| u64::from_le_bytes(got.value[8 * i..8 * i + 8].try_into().unwrap());
    let state = if word(0) & 0x100 != 0 { 4 } else { 1 };
    let [start, count] = [state, state + 1].map(|i| f64::from_bits(word(i)));
    // The theoretical arrival time, counted in requests.
    (start * RULE.limit / RULE.window + count).to_le_bytes().to_vec()
}

pub const GET: Act = Act { name: "get", act: |cache, _| got(cache, "a", Cache::get) };
pub const GET_NEAR: Act = Act {
    name: "get near",
    act: |cache, _| {
        got(cache, "a", Cache::get_near);
        got(cache, "a", Cache::get_near);
    },
};
/// The name of the acts of a participant that has the key in its near cache, with a proof.
pub const PROVED: &str = "get near, proved";
pub const GET_LARGE: Act = Act { name: "get large", act: |cache, _| got(cache, "large", Cache::get) };
pub const GET_COUNTER: Act = Act { name: "get counter", act: |cache, _| got(cache, "n", Cache::get) };
pub const SET: Act = Act { name: "set", act: |cache, me| put(cache, "a", short(me), TEXT, Expect::Anything) };
pub const SET_LARGE: Act =
    Act { name: "set large", act: |cache, me| put(cache, "large", long(me), TEXT, Expect::Anything) };
pub const SHRINK: Act = Act { name: "shrink", act: |cache, me| put(cache, "large", short(me), TEXT, Expect::Anything) };
pub const SET_NUMBER: Act = Act {
    name: "set number",
    act: |cache, me| put(cache, "n", (me as f64 * 1000.0).to_le_bytes().to_vec(), NUMBER, Expect::Anything),
};
pub const ADD: Act = Act { name: "add", act: |cache, me| put(cache, "x", short(me), TEXT, Expect::Absent) };
pub const COMPARE_AND_SET: Act = Act {
    name: "compare and set",
    act: |cache, me| {
        let version = cache.peek(b"a").map_or(2, |got| got.version);
        put(cache, "a", short(me), TEXT, Expect::Version(version));
    },
};
pub const REMOVE: Act = Act { name: "remove", act: |cache, _| removed(cache, "a") };
pub const REMOVE_LARGE: Act = Act { name: "remove large", act: |cache, _| removed(cache, "large") };
pub const INCREMENT: Act = Act {
    name: "increment",
    act: |cache, _| {
        log("n", Change::Add(1.0), || {
            let sum = cache.increment(b"n", 1.0, 0.0, &PLAIN).ok()?;
            Some(Did::Incremented { by: 1.0, sum: Some(sum) })
        })
    },
};
/// Asks the rate limit twice.
pub const ASK: Act = Act {
    name: "ask",
    act: |cache, _| {
        for _ in 0..2 {
            log(LIMITED, Change::Ask, || {
                let verdict = cache.limit(LIMITED.as_bytes(), &RULE).ok()?;
                Some(Did::Asked { allowed: verdict.allowed, remaining: verdict.remaining })
            });
        }
    },
};
pub const READ_LIMIT: Act = Act {
    name: "read limit",
    act: |cache, _| {
        log(LIMITED, Change::Nothing, || {
            Some(Did::Got(cache.get(LIMITED.as_bytes()).map(|got| (held(got.clone()), got.version))))
        })
    },
};
pub const TOUCH_LIMIT: Act = Act { name: "touch limit", act: |cache, _| touched(cache, LIMITED) };
pub const REMOVE_LIMIT: Act = Act { name: "remove limit", act: |cache, _| removed(cache, LIMITED) };
pub const TOUCH: Act = Act { name: "touch", act: |cache, _| touched(cache, "a") };
pub const TOUCH_COUNTER: Act = Act { name: "touch counter", act: |cache, _| touched(cache, "n") };
pub const TOUCH_LARGE: Act = Act { name: "touch large", act: |cache, _| touched(cache, "large") };
pub const INVALIDATE: Act = Act { name: "invalidate", act: |cache, _| dropped(&["a"], || cache.invalidate(&["t"])) };
pub const EXPIRE_TAGS: Act = Act { name: "expire tags", act: |cache, _| dropped(&["a"], || cache.expire_tags(&["t"])) };
pub const EXPIRE: Act = Act { name: "expire", act: |cache, _| expired(cache, "a") };
pub const EXPIRE_LARGE: Act = Act { name: "expire large", act: |cache, _| expired(cache, "large") };
/// A stale value is a whole one that somebody has stored for the key: a participant, the scene, or the test in between.
pub const GET_STALE: Act = Act {
    name: "get stale",
    act: |cache, _| {
        if let Some(got) = cache.get_stale(b"a") {
            let known = got.value == [7; 24] || got.value == b"again" || (0..3).any(|who| got.value == short(who));
            assert!(known, "{got:?}");
        }
    },
};
pub const CLEAR: Act = Act { name: "clear", act: |cache, _| dropped(&LOGGED, || cache.me.clear()) };
/// Stores a few new keys, which makes a full region reclaim.
pub const RECLAIM: Act = Act {
    name: "reclaim",
    act: |cache, me| {
        for i in 0..6u8 {
            let _ = cache.set(&[b'r', me as u8, i], &[i; 24]);
        }
    },
};
/// Overwrites one key again and again, which makes the region compact.
pub const COMPACT: Act = Act {
    name: "compact",
    act: |cache, me| {
        for i in 0..16u8 {
            let _ = cache.set(&[b'c', me as u8], &[i; 24]);
        }
    },
};
/// Stores so much that every segment begins more than four lives.
pub const WRAP: Act = Act {
    name: "wrap",
    act: |cache, me| {
        for i in 0..400u16 {
            let _ = cache.set(&[b'w', me as u8, i as u8, (i >> 8) as u8], &[i as u8; 24]);
        }
    },
};
pub const REAP: Act = Act { name: "reap", act: |cache, _| assert!(cache.me.participants() <= 6) };
pub const COME_AND_GO: Act = Act {
    name: "come and go",
    act: |cache, _| {
        cache.me.detach();
        cache.me.recover();
    },
};
/// Another participant of the same thread attaches, stores a value, and detaches.
pub const ATTACH: Act = Act {
    name: "attach",
    act: |cache, me| {
        stage().seats.borrow_mut()[me].push(cache.world.next_seat());
        let mut other = Cache::join(&cache.world);
        attended(&mut other, |other| put(other, "x", short(me), TEXT, Expect::Anything));
        other.leave();
        stage().seats.borrow_mut()[me].pop();
    },
};
pub const WALK: Act = Act {
    name: "walk",
    act: |cache, _| {
        for key in cache.keys() {
            let known = LOGGED.iter().any(|it| it.as_bytes() == key) || b"rcwfp".contains(&key[0]);
            assert!(known, "the walk found a key that nobody stored: {key:?}");
        }
        cache.me.census();
    },
};

pub const ACTS: &[Act] = &[
    GET,
    GET_NEAR,
    GET_LARGE,
    GET_COUNTER,
    SET,
    SET_LARGE,
    SHRINK,
    SET_NUMBER,
    ADD,
    COMPARE_AND_SET,
    REMOVE,
    REMOVE_LARGE,
    INCREMENT,
    ASK,
    TOUCH,
    TOUCH_COUNTER,
    TOUCH_LARGE,
    INVALIDATE,
    EXPIRE_TAGS,
    EXPIRE,
    EXPIRE_LARGE,
    GET_STALE,
    CLEAR,
    RECLAIM,
    COMPACT,
    REAP,
    COME_AND_GO,
    ATTACH,
    WALK,
];

// ---- the regions ------------------------------------------------------------------------------------------------

pub struct Scene {
    pub name: &'static str,
    pub bytes: Vec<u8>,
}

/// Repeats `act` until the next repetition would reclaim. Returns the region as it was before that.
pub fn until_reclaim(cache: &mut Cache, mut act: impl FnMut(&mut Cache, u8)) -> Vec<u8> {
    for i in 0..200 {
        let before = (cache.world.bytes().to_vec(), cache.count(Counter::Reclaims));
        act(cache, i);
        if cache.count(Counter::Reclaims) > before.1 {
            return before.0;
        }
    }
    panic!("never full");
}

pub fn scene(name: &'static str, heat: u32, fill: Option<fn(&mut Cache, u8)>) -> Scene {
    furnished(name, heat, NEVER, fill)
}

pub fn furnished(name: &'static str, heat: u32, expiry: f64, fill: Option<fn(&mut Cache, u8)>) -> Scene {
    let world = World::new(MODEL_SIZE);
    let mut cache = Cache::join(&world);
    cache.store(b"a", &[7; 24], &With { tags: &["t"], expiry, grace: grace_of("a"), ..PLAIN }).unwrap();
    cache.increment(b"n", 5.0, 0.0, &PLAIN).unwrap();
    cache.store(b"large", &[8; 200], &With { expiry, ..PLAIN }).unwrap();
    for _ in 0..heat {
        for key in KEYS {
            cache.get(key.as_bytes());
        }
    }
    let bytes = match fill {
        Some(fill) => until_reclaim(&mut cache, fill),
        None => world.bytes().to_vec(),
    };
    // The participant that furnished the region is still registered: the next one takes over its seat, as after a crash.
    Scene { name, bytes }
}

/// The same regions, with a rate limit that has let one request through.
pub fn limited() -> Vec<Arc<Scene>> {
    let asked = |scene: &Arc<Scene>| {
        let world = World::holding(&scene.bytes);
        let mut cache = Cache::join(&world);
        assert!(cache.limit(LIMITED.as_bytes(), &RULE).unwrap().allowed);
        Arc::new(Scene { name: scene.name, bytes: world.bytes().to_vec() })
    };
    scenes().iter().map(asked).collect()
}

/// A region with free segments, one that will be compacted next, and full ones in which the keys are kept, or evicted.
pub fn scenes() -> Vec<Arc<Scene>> {
    let dead = |cache: &mut Cache, i: u8| assert!(cache.set(b"f", &[i; 24]).is_ok());
    let live = |cache: &mut Cache, i: u8| assert!(cache.set(&[b'p', i], &[i; 24]).is_ok());
    [scene("roomy", 1, None), scene("sparse", 1, Some(dead)), scene("hot", 3, Some(live)), scene("cold", 0, Some(live))]
        .map(Arc::new)
        .into()
}
