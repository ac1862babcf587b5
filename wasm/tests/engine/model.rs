//! One participant and a plain map get the same operations, and have to give the same answers.
//!
//! A cache may forget. In the lossy runs a miss makes the map forget the value too; a value that comes back later is then as
//! wrong as a wrong value. In the exact runs everything fits, and nothing may be forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use cache_machine_core::{Expect, NUMBER, Refused};
use proptest::prelude::*;

use crate::harness::*;

const TAGS: [&str; 6] = ["a", "b", "red", "green", "blue", "a rather long tag, to move things about a little"];

#[derive(Clone, Copy, Debug)]
pub enum Wants {
    Anything,
    Absent,
    Present,
    ThisVersion,
    OtherVersion,
}

#[derive(Clone, Debug)]
pub enum Op {
    Set { key: u8, size: u32, ttl: u8, grace: u8, tags: u8, wants: Wants },
    SetNumber { key: u8, number: i16 },
    Get { key: u8 },
    Remove { key: u8, wants: Wants },
    Increment { key: u8, by: i16, ttl: u8, tags: u8 },
    Touch { key: u8, ttl: u8 },
    Expire { key: u8 },
    Invalidate { tags: u8 },
    ExpireTags { tags: u8 },
    Clear,
    Wait { by: u8 },
}

/// What the map holds for a key.
#[derive(Clone, Debug)]
struct Known {
    value: Vec<u8>,
    value_type: u8,
    expiry: f64,
    grace: f64,
    tags: u8,
    /// Its tags that have expired since it was stored.
    expired: u8,
    /// Its grace was over when a tag expired. If it was its own, then its grace begins again, unless it was dropped already.
    was_gone: bool,
    /// `None` after an increment, until the version is read.
    version: Option<u64>,
}

pub struct Model {
    pub cache: Cache,
    map: HashMap<u8, Known>,
    /// When each tag has last expired, and when it was last invalidated.
    expired_at: [f64; TAGS.len()],
    invalidated_at: [f64; TAGS.len()],
    lossy: bool,
    stamp: u64,
    pub forgotten: u64,
}

fn name(key: u8) -> Vec<u8> {
    // Keys of all lengths, including the empty key.
    (0..key as usize % 37).map(|i| key.wrapping_add(i as u8)).chain((key >= 37).then_some(key)).collect()
}

/// An entry without any of this.
fn nothing() -> Known {
    Known {
        value: Vec::new(),
        value_type: TEXT,
        expiry: NEVER,
        grace: 0.0,
        tags: 0,
        expired: 0,
        was_gone: false,
        version: None,
    }
}

fn each_tag(mask: u8) -> impl Iterator<Item = usize> {
    (0..TAGS.len()).filter(move |tag| mask >> tag & 1 == 1)
}

fn tags_of(mask: u8) -> Vec<&'static str> {
    TAGS.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1).map(|(_, tag)| *tag).collect()
}

impl Model {
    pub fn new(size: u32, lossy: bool) -> Model {
        Model::over(World::new(size), lossy)
    }

    fn over(world: Arc<World>, lossy: bool) -> Model {
        world.set_clock(1000.0);
        let never = [0.0; TAGS.len()];
        let (cache, map) = (Cache::join(&world), HashMap::new());
        Model { cache, map, expired_at: never, invalidated_at: never, lossy, stamp: 0, forgotten: 0 }
    }

    fn now(&self) -> f64 {
        self.cache.world.now()
    }

    fn expiry(&self, ttl: u8) -> f64 {
        if ttl == 0 { NEVER } else { self.now() + ttl as f64 }
    }

    /// A value that names the moment it was made, so that no two are equal.
    fn value(&mut self, size: u32) -> Vec<u8> {
        self.stamp += 1;
        let stamp = self.stamp.to_le_bytes();
        (0..size as usize).map(|i| stamp[i % 8] ^ (i / 8) as u8).collect()
    }

    /// When an entry has expired or will expire: by itself or by a tag.
    fn expires(&self, known: &Known) -> f64 {
        let expired = (0..TAGS.len()).filter(|tag| known.expired >> tag & 1 == 1);
        expired.fold(known.expiry, |first, tag| first.min(self.expired_at[tag]))
    }

    /// Whether an entry has expired, and its grace is over.
    fn is_gone(&self, known: &Known) -> bool {
        let (now, expires) = (self.now(), self.expires(known));
        expires <= now && now >= expires + known.grace
    }

    /// The entry of a key, fresh or stale.
    fn usable(&self, key: u8) -> Option<Known> {
        self.map.get(&key).filter(|known| !self.is_gone(known)).cloned()
    }

    /// The fresh entry of a key.
    fn known(&mut self, key: u8) -> Option<Known> {
        self.usable(key).filter(|known| self.expires(known) > self.now())
    }

    /// Reads an entry that may be stale, and compares.
    fn compare_stale(&mut self, key: u8) {
        match (self.usable(key), self.cache.get_stale(&name(key))) {
            (None, None) => {}
            (None, Some(_)) => panic!("key {key} is still there"),
            (Some(known), None) if known.was_gone => drop(self.map.remove(&key)),
            (Some(_), None) => self.forget(key, "no stale value"),
            (Some(known), Some(got)) => {
                assert!(got.value == known.value, "key {key} has a wrong value");
                assert_eq!(got.stale, self.expires(&known) <= self.now(), "key {key}, {known:?}");
            }
        }
    }

    fn forget(&mut self, key: u8, why: &str) {
        assert!(self.lossy, "lost key {key}: {why}");
        self.forgotten += 1;
        self.map.remove(&key);
    }

    /// Reads the key and compares.
    fn compare(&mut self, key: u8, quiet: bool) {
        let known = self.known(key);
        self.stamp += 1;
        let got = match quiet {
            true => self.cache.peek(&name(key)),
            false if self.stamp % 2 == 0 => self.cache.get(&name(key)),
            false => self.cache.get_near(&name(key)),
        };
        match (known, got) {
            (None, None) => {}
            (None, Some(got)) => panic!("key {key} came back as {} bytes", got.value.len()),
            (Some(_), None) => self.forget(key, "a miss"),
            (Some(known), Some(got)) => {
                assert!(got.value == known.value, "key {key} has a wrong value");
                assert_eq!((got.value_type, got.expiry), (known.value_type, known.expiry), "key {key}");
                assert!(known.version.is_none_or(|version| version == got.version), "key {key} has a wrong version");
                self.map.get_mut(&key).unwrap().version = Some(got.version);
            }
        }
    }

    fn expect(&mut self, key: u8, wants: Wants) -> Expect {
        let version = self.known(key).and_then(|known| known.version);
        match wants {
            Wants::Anything => Expect::Anything,
            Wants::Absent => Expect::Absent,
            Wants::Present => Expect::Present,
            Wants::ThisVersion => version.map_or(Expect::Version(4), Expect::Version),
            Wants::OtherVersion => Expect::Version(version.unwrap_or(2) + 2),
        }
    }

    /// Whether a change with this expectation should succeed, as far as the map knows.
    fn met(&mut self, key: u8, expect: Expect) -> bool {
        match (expect, self.known(key)) {
            (Expect::Anything, _) | (Expect::Absent, None) | (Expect::Present, Some(_)) => true,
            (Expect::Version(wanted), Some(known)) => known.version == Some(wanted),
            _ => false,
        }
    }

    pub fn apply(&mut self, op: &Op) {
        match *op {
            Op::Set { key, size, ttl, grace, tags, wants } => {
                let (expect, expiry) = (self.expect(key, wants), self.expiry(ttl));
                let value = self.value(size);
                let grace = grace as f64;
                let with = With { value_type: TEXT, expiry, grace, tags: &tags_of(tags), expect };
                let result = self.cache.store(&name(key), &value, &with);
                let known = Known { value, expiry, grace, tags, ..nothing() };
                self.stored(key, expect, result, known);
            }
            Op::SetNumber { key, number } => {
                let result = self.cache.set_number(&name(key), number as f64);
                let value = (number as f64).to_le_bytes().to_vec();
                let known = Known { value, value_type: NUMBER, ..nothing() };
                self.stored(key, Expect::Anything, result, known);
            }
            Op::Get { key } => self.compare(key, false),
            Op::Remove { key, wants } => {
                let expect = self.expect(key, wants);
                let should = self.known(key).is_some() && self.met(key, expect);
                match self.cache.remove(&name(key), expect).unwrap() {
                    removed if removed == should => {}
                    false => self.forget(key, "nothing to remove"),
                    true => panic!("removed key {key}, which was not there as {expect:?}"),
                }
                if should || self.known(key).is_none() {
                    self.map.remove(&key);
                }
            }
            Op::Increment { key, by, ttl, tags } => self.increment(key, by as f64, ttl, tags),
            Op::Touch { key, ttl } => {
                let expiry = self.expiry(ttl);
                match (self.cache.touch(&name(key), expiry), self.known(key)) {
                    (Ok(true), Some(_)) => self.map.get_mut(&key).unwrap().expiry = expiry,
                    (Ok(false), None) => {}
                    (Ok(false), Some(_)) => self.forget(key, "nothing to touch"),
                    // A record of the largest size has no room for the expiry.
                    (Err(Refused::TooLarge), Some(known)) => assert!(known.value.len() > 4000 && known.expiry == NEVER),
                    (result, known) => panic!("touch of key {key}: {result:?} for {known:?}"),
                }
            }
            Op::Expire { key } => match (self.cache.expire(&name(key)), self.known(key)) {
                (Ok(true), Some(_)) => self.map.get_mut(&key).unwrap().expiry = self.cache.world.now(),
                (Ok(false), None) => {}
                (Ok(false), Some(_)) => self.forget(key, "nothing to expire"),
                (result, known) => panic!("expire of key {key}: {result:?} for {known:?}"),
            },
            Op::Invalidate { tags } => {
                self.cache.invalidate(&tags_of(tags));
                self.map.retain(|_, known| known.tags & tags == 0);
                each_tag(tags).for_each(|tag| self.invalidated_at[tag] = self.cache.world.now());
                let latest = each_tag(tags).map(|tag| self.invalidated_at[tag]).fold(0.0, f64::max);
                assert_eq!(self.cache.tags_invalidated_at(&tags_of(tags)), latest);
            }
            Op::ExpireTags { tags } => {
                self.cache.expire_tags(&tags_of(tags));
                let gone = self.map.iter().filter(|(_, known)| self.is_gone(known)).map(|(key, _)| *key);
                for key in gone.collect::<Vec<_>>() {
                    self.map.get_mut(&key).unwrap().was_gone = true;
                }
                each_tag(tags).for_each(|tag| self.expired_at[tag] = self.cache.world.now());
                self.map.values_mut().for_each(|known| known.expired |= known.tags & tags);
            }
            Op::Clear => {
                self.cache.me.clear();
                self.map.clear();
            }
            Op::Wait { by } => self.cache.world.set_clock(self.now() + by as f64),
        }
        match *op {
            Op::Set { key, .. }
            | Op::SetNumber { key, .. }
            | Op::Remove { key, .. }
            | Op::Increment { key, .. }
            | Op::Touch { key, .. }
            | Op::Expire { key } => {
                self.compare_stale(key);
                self.compare(key, true);
                self.compare(key, false);
            }
            _ => {}
        }
    }

    fn stored(&mut self, key: u8, expect: Expect, result: Result<u64, Refused>, known: Known) {
        let should = self.met(key, expect);
        match result {
            Ok(version) => {
                if !should {
                    // Only a store that expected an absent key can succeed where the map has a value: the cache forgot it.
                    assert_eq!(expect, Expect::Absent, "stored key {key}");
                    self.forget(key, "absent for a store");
                }
                self.map.insert(key, Known { version: Some(version), ..known });
            }
            Err(Refused::Unexpected) => {
                if should {
                    self.forget(key, "not there as expected");
                }
            }
            Err(refused) => panic!("set of key {key}: {refused:?}"),
        }
    }

    fn increment(&mut self, key: u8, by: f64, ttl: u8, tags: u8) {
        let expiry = self.expiry(ttl);
        let with = With { expiry, tags: &tags_of(tags), ..PLAIN };
        let result = self.cache.increment(&name(key), by, 10.0, &with);
        let fresh = |sum: f64| {
            let value = sum.to_le_bytes().to_vec();
            Known { value, value_type: NUMBER, expiry, tags, ..nothing() }
        };
        match (result, self.known(key)) {
            (Ok(sum), Some(known)) if known.value_type == NUMBER => {
                let before = f64::from_le_bytes(known.value[..].try_into().unwrap());
                if sum == before + by {
                    self.map.insert(key, Known { value: sum.to_le_bytes().to_vec(), version: None, ..known });
                } else {
                    assert_eq!(sum, 10.0 + by, "increment of key {key} from {before} by {by}");
                    self.forget(key, "a counter started anew");
                    self.map.insert(key, fresh(sum));
                }
            }
            (Ok(sum), known) => {
                assert_eq!(sum, 10.0 + by, "increment of key {key}");
                if known.is_some() {
                    self.forget(key, "a counter in place of it");
                }
                self.map.insert(key, fresh(sum));
            }
            (Err(Refused::NotANumber), Some(known)) if known.value_type != NUMBER => {}
            (result, known) => panic!("increment of key {key}: {result:?} for {known:?}"),
        }
    }

    /// Checks that every key is as the map says, and that the structure and the live bytes are right.
    pub fn compare_all(&mut self) {
        self.cache.check();
        for key in self.map.keys().copied().collect::<Vec<_>>() {
            self.compare_stale(key);
            self.compare(key, true);
        }
        let mut keys = self.cache.keys();
        let now = self.now();
        let fresh = self.map.iter().filter(|(_, known)| self.expires(known) > now);
        let mut known: Vec<_> = fresh.map(|(key, _)| name(*key)).collect();
        keys.sort();
        known.sort();
        assert!(keys == known, "the iteration differs from the map");
        assert_eq!(self.cache.me.census().entries as usize, known.len());
    }
}

/// Sizes around every boundary in a region of 1 MiB, whose records have at most 8 KiB.
fn any_size() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0..200u32,
        4 => 200..3000u32,
        2 => 3000..8200u32,
        1 => 8000..8200u32,
        1 => 8200..60_000u32,
    ]
}

fn wants() -> impl Strategy<Value = Wants> {
    prop_oneof![
        6 => Just(Wants::Anything),
        1 => Just(Wants::Absent),
        1 => Just(Wants::Present),
        1 => Just(Wants::ThisVersion),
        1 => Just(Wants::OtherVersion),
    ]
}

fn ttl() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(0u8), 1 => 1..40u8]
}

fn tag_mask() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(0u8), 1 => 1..64u8]
}

fn op(keys: u8, size: impl Strategy<Value = u32> + 'static) -> impl Strategy<Value = Op> {
    let key = move || 0..keys;
    prop_oneof![
        12 => (key(), size, ttl(), ttl(), tag_mask(), wants())
            .prop_map(|(key, size, ttl, grace, tags, wants)| Op::Set { key, size, ttl, grace, tags, wants }),
        2 => (key(), any::<i16>()).prop_map(|(key, number)| Op::SetNumber { key, number }),
        8 => key().prop_map(|key| Op::Get { key }),
        3 => (key(), wants()).prop_map(|(key, wants)| Op::Remove { key, wants }),
        4 => (key(), any::<i16>(), ttl(), tag_mask())
            .prop_map(|(key, by, ttl, tags)| Op::Increment { key, by, ttl, tags }),
        2 => (key(), ttl()).prop_map(|(key, ttl)| Op::Touch { key, ttl }),
        1 => key().prop_map(|key| Op::Expire { key }),
        1 => tag_mask().prop_map(|tags| Op::Invalidate { tags }),
        1 => tag_mask().prop_map(|tags| Op::ExpireTags { tags }),
        1 => Just(Op::Clear),
        2 => (0..20u8).prop_map(|by| Op::Wait { by }),
    ]
}

fn run(model: &mut Model, ops: &[Op]) {
    for (i, op) in ops.iter().enumerate() {
        model.apply(op);
        if i % 32 == 0 {
            model.compare_all();
        }
    }
    model.compare_all();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: scaled(48) as u32, max_shrink_iters: 4096, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Far more keys than fit: reclaiming, promotion, ghosts and compaction happen all the time.
    #[test]
    fn many_keys_agree_with_a_map_that_forgets(ops in prop::collection::vec(op(250, any_size()), 1..1200)) {
        run(&mut Model::new(MIB, true), &ops);
    }

    /// Keys that fill at most a third of the region: segments are recycled all the time, and nothing is lost.
    #[test]
    fn few_keys_agree_with_a_map_exactly(ops in prop::collection::vec(op(40, 0..6000u32), 1..1200)) {
        run(&mut Model::new(MIB, false), &ops);
    }
}

fn any_op(random: &mut Random, keys: u64, sizes: fn(&mut Random) -> u32) -> Op {
    let key = random.below(keys) as u8;
    let ttl = if random.chance(4) { 1 + random.below(40) as u8 } else { 0 };
    let grace = if random.chance(3) { 1 + random.below(80) as u8 } else { 0 };
    let tags = if random.chance(4) { random.below(64) as u8 } else { 0 };
    let wants = match random.below(12) {
        0 => Wants::Absent,
        1 => Wants::Present,
        2 => Wants::ThisVersion,
        3 => Wants::OtherVersion,
        _ => Wants::Anything,
    };
    match random.below(2000) {
        0..800 => Op::Set { key, size: sizes(random), ttl, grace, tags, wants },
        800..900 => Op::SetNumber { key, number: random.next() as i16 },
        900..1400 => Op::Get { key },
        1400..1500 => Op::Remove { key, wants },
        1500..1750 => Op::Increment { key, by: random.next() as i16, ttl, tags },
        1750..1850 => Op::Touch { key, ttl },
        1850..1854 => Op::Invalidate { tags: 1 << random.below(6) },
        1854..1862 => Op::ExpireTags { tags: 1 << random.below(6) },
        1862..1880 => Op::Expire { key },
        1880..1881 => Op::Clear,
        _ => Op::Wait { by: random.below(20) as u8 },
    }
}

/// The lossy run over a longer time than the cases of proptest.
#[test]
fn a_long_life_agrees_with_a_map_that_forgets() {
    let _watchdog = Watchdog::new("a_long_life_agrees_with_a_map_that_forgets", 60);
    let mut random = Random::new(seed("a_long_life_agrees_with_a_map_that_forgets"));
    let mut model = Model::new(MIB, true);
    for i in 0..scaled(100_000) {
        let op = any_op(&mut random, 250, |random| match random.below(20) {
            0..10 => random.below(300) as u32,
            10..18 => random.below(4000) as u32,
            18 => 8000 + random.below(300) as u32,
            _ => random.below(MIB as u64 / 8 + 1) as u32,
        });
        model.apply(&op);
        if i % 500 == 0 {
            model.compare_all();
        }
    }
    model.compare_all();
    assert!(model.cache.near_hits > 100);
    assert!(model.forgotten > 0, "nothing was ever evicted: the region is too large for this test");
}

/// The exact run over a longer time, with values in chunks.
#[test]
fn a_long_life_agrees_with_a_map_exactly() {
    let _watchdog = Watchdog::new("a_long_life_agrees_with_a_map_exactly", 60);
    let mut random = Random::new(seed("a_long_life_agrees_with_a_map_exactly"));
    let mut model = Model::new(MIB, false);
    for i in 0..scaled(100_000) {
        let op = any_op(&mut random, 40, |random| match random.below(20) {
            0..10 => random.below(300) as u32,
            10..19 => random.below(4000) as u32,
            _ => random.below(20_000) as u32,
        });
        model.apply(&op);
        if i % 500 == 0 {
            model.compare_all();
        }
    }
    model.compare_all();
    assert!(model.cache.count(cache_machine_core::Counter::Reclaims) > 100, "no segment was ever recycled");
}

/// Numbers that wrap around change nothing: generations of sixteen and of thirty-two bits, the clear epoch, versions, the seal
/// sequence, and the invalidation sequence.
#[test]
fn nothing_happens_when_a_counter_wraps() {
    let _watchdog = Watchdog::new("nothing_happens_when_a_counter_wraps", 60);
    let mut random = Random::new(seed("nothing_happens_when_a_counter_wraps"));
    for generation in [0xFFFE, 0xFFFF_FFFE] {
        let world = World::new(MIB);
        let geometry = world.region().geometry;
        let put = |at: u32, word: u64| world.bytes()[at as usize..at as usize + 8].copy_from_slice(&word.to_le_bytes());
        for segment in 0..geometry.segments {
            put(geometry.state(segment), generation << 32);
        }
        // The next version, the clear epoch, the seal sequence, and the invalidations: see `layout.rs`.
        put(64, (1 << 53) - 2_000);
        put(128, 0xFFFF_FFF0);
        put(192, 0xFFF_FFC0);
        put(384, 0xFFFF_FFFE);
        let mut model = Model::over(world, true);
        for i in 0..scaled(15_000) {
            let sizes = |random: &mut Random| {
                if random.chance(20) { 20_000 } else { random.below(2_000) as u32 }
            };
            model.apply(&any_op(&mut random, 250, sizes));
            if i % 100 == 0 {
                model.compare_all();
            }
        }
    }
}
