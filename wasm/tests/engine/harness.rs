//! What the tests share: a region on the heap, a host whose clock and proofs of death the test controls, and a cache over
//! them that takes keys and values, as `src/engine/engine.ts` does.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use cache_machine_core::{
    Addition, Audited, Beginning, Block, Busy, Claimed, Draft, Expect, Geometry, Host, Key, Listed, MAX_BLOCK, MAX_KEY,
    NUMBER, Participant, Phase, Refused, Region, Rule, Seed, Sight, Stamp, Sum, Verdict, WANT_AFTER_FIND, WANT_QUIET,
    WANT_STALE, WANT_TAGS, WANT_VALUE, faults, format,
};

pub const MIB: u32 = 1 << 20;
/// Any value type but [`NUMBER`].
pub const TEXT: u8 = 2;
pub const NEVER: f64 = f64::INFINITY;

/// Who owns a seat.
const NOBODY: u32 = 0;
const LIVING: u32 = 1;
/// Taken by the owner of seat `n`: `TAKEN + n`.
const TAKEN: u32 = 2;

/// Stands for the seat of a host that has none, and takes none.
const SPECTATOR: u32 = u32::MAX;

/// A region, who owns its seats, and the clock.
pub struct World {
    base: *mut u8,
    pub size: u32,
    seats: Vec<AtomicU32>,
    clock: AtomicU64,
    /// Pauses that the host grants before the time for waiting is over.
    pub patience: AtomicU32,
}

// SAFETY: the engine accesses the region through atomics, and the other fields are atomic.
unsafe impl Send for World {}
// SAFETY: the engine accesses the region through atomics, and the other fields are atomic.
unsafe impl Sync for World {}

impl World {
    pub fn new(size: u32) -> Arc<World> {
        World::seeded(size, 0x5EED)
    }

    pub fn seeded(size: u32, seed: u64) -> Arc<World> {
        let geometry = Geometry::of(size).unwrap();
        // SAFETY: the layout is not empty.
        let base = unsafe { alloc_zeroed(World::layout(size)) };
        let seats = (0..geometry.participants).map(|_| AtomicU32::new(NOBODY)).collect();
        let world = World { base, size, seats, clock: AtomicU64::new(0f64.to_bits()), patience: AtomicU32::new(2000) };
        format(&world.region(), [seed, 0]);
        Arc::new(world)
    }

    fn layout(size: u32) -> Layout {
        Layout::from_size_align(size as usize, 64).unwrap()
    }

    pub fn region(&self) -> Region {
        // SAFETY: allocated with this size and alignment, and freed after the last user of the world.
        unsafe { Region::new(self.base, self.size) }.unwrap()
    }

    /// The bytes of the region, for hostile tests that have no other thread running.
    #[allow(clippy::mut_from_ref)]
    pub fn bytes(&self) -> &mut [u8] {
        // SAFETY: allocated with this size, and no other thread uses the region meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.size as usize) }
    }

    pub fn now(&self) -> f64 {
        f64::from_bits(self.clock.load(SeqCst))
    }

    pub fn set_clock(&self, milliseconds: f64) {
        self.clock.store(milliseconds.to_bits(), SeqCst)
    }

    /// A region with these bytes, and nobody attached.
    pub fn holding(bytes: &[u8]) -> Arc<World> {
        let world = World::new(bytes.len() as u32);
        world.bytes().copy_from_slice(bytes);
        world
    }

    /// The seat that the next participant will have.
    pub fn next_seat(&self) -> u32 {
        self.seats.iter().position(|seat| seat.load(SeqCst) == NOBODY).expect("a free seat") as u32
    }

    /// Declares the owner of a seat dead: from now on its death can be proved, and the seats it had taken can be taken again.
    pub fn kill(&self, seat: u32) {
        for taken in &self.seats {
            let _ = taken.compare_exchange(TAKEN + seat, NOBODY, SeqCst, SeqCst);
        }
        self.seats[seat as usize].store(NOBODY, SeqCst);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // SAFETY: allocated in `seeded` with the same layout.
        unsafe { dealloc(self.base, World::layout(self.size)) }
    }
}

pub struct TestHost {
    world: Arc<World>,
    seat: u32,
}

impl Host for TestHost {
    fn now(&self) -> f64 {
        self.world.now()
    }

    fn take(&self, seat: u32) -> bool {
        self.seat != SPECTATOR
            && self.world.seats[seat as usize].compare_exchange(NOBODY, TAKEN + self.seat, SeqCst, SeqCst).is_ok()
    }

    fn release(&self, seat: u32) {
        let was = self.world.seats[seat as usize].swap(NOBODY, SeqCst);
        assert_eq!(was, TAKEN + self.seat, "released a seat that was not taken");
    }

    fn pause(&self, attempt: u32) -> bool {
        match attempt {
            0..20 => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_micros(50)),
        }
        attempt < self.world.patience.load(SeqCst)
    }
}

/// What a store says, other than key and value.
#[derive(Clone, Debug)]
pub struct With<'a> {
    pub value_type: u8,
    pub expiry: f64,
    pub grace: f64,
    pub tags: &'a [&'a str],
    pub expect: Expect,
}

pub const PLAIN: With = With { value_type: TEXT, expiry: NEVER, grace: 0.0, tags: &[], expect: Expect::Anything };

#[derive(Clone, Debug, PartialEq)]
pub struct Got {
    pub value: Vec<u8>,
    pub value_type: u8,
    pub version: u64,
    pub expiry: f64,
    pub stale: bool,
    pub tagged: bool,
    pub stamp: Stamp,
}

impl Got {
    pub fn number(&self) -> f64 {
        f64::from_le_bytes(self.value[..].try_into().unwrap())
    }
}

/// The error of a large value that was gone before all of it was read.
struct Replaced;

/// One participant.
pub struct Cache {
    pub me: Participant<TestHost>,
    pub world: Arc<World>,
    value: Vec<u64>,
    tags: Vec<u64>,
    /// A near cache of one value, like `src/near/near.ts`: what was read last, its key, and the stamp that proves it unchanged.
    near: HashMap<u64, Kept>,
    pub near_hits: u64,
}

/// A value in the near cache.
struct Kept {
    key: Vec<u8>,
    got: Got,
    /// Proves that the value is unchanged.
    sight: Sight,
    /// For each tag the number of its counter, and the snapshot of it.
    tags: Vec<(u32, u64)>,
}

/// A key with the words that the engine's [`Key`] borrows.
pub struct OwnedKey {
    words: Vec<u64>,
    length: u32,
}

impl OwnedKey {
    pub fn of(key: &[u8]) -> OwnedKey {
        let mut words = vec![0; key.len().div_ceil(8)];
        for (word, bytes) in words.iter_mut().zip(key.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(padded);
        }
        OwnedKey { words, length: key.len() as u32 }
    }

    pub fn with(&self, seed: Seed) -> Key<'_> {
        Key::new(&self.words, self.length, 0, seed)
    }
}

impl Cache {
    pub fn join(world: &Arc<World>) -> Cache {
        let free = |seat: &usize| world.seats[*seat].compare_exchange(NOBODY, LIVING, SeqCst, SeqCst).is_ok();
        let seat = (0..world.seats.len()).find(free).expect("a free seat") as u32;
        Cache::of(Participant::attach(world.region(), TestHost { world: world.clone(), seat }, seat), world)
    }

    /// Looks at the region without a seat. May only call what writes nothing.
    pub fn spectate(world: &Arc<World>) -> Cache {
        Cache::of(Participant::spectate(world.region(), TestHost { world: world.clone(), seat: SPECTATOR }), world)
    }

    fn of(me: Participant<TestHost>, world: &Arc<World>) -> Cache {
        // As large as a thread's area, so that an overflow is noticed.
        let value = vec![0; world.region().geometry.max_record as usize / 8];
        let tags = vec![0; MAX_BLOCK as usize / 8];
        Cache { me, world: world.clone(), value, tags, near: HashMap::new(), near_hits: 0 }
    }

    pub fn leave(self) {
        self.me.detach();
        self.world.kill(self.me.seat);
    }

    /// Dies: the seat stays claimed, and its death can be proved.
    pub fn die(self) {
        self.world.kill(self.me.seat);
    }

    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<u64, Refused> {
        self.store(key, value, &PLAIN)
    }

    /// Stores a value, in chunks if it is too large for one record. Returns its version.
    pub fn store(&mut self, key: &[u8], value: &[u8], with: &With) -> Result<u64, Refused> {
        let geometry = self.me.region.geometry;
        if value.len() > geometry.max_value as usize {
            return Err(Refused::TooLarge);
        }
        let key = OwnedKey::of(key);
        let block = self.block(with.tags);
        let key = key.with(self.me.seed);
        let version = self.me.version();
        let expiry = if with.grace > 0.0 { 16 } else { 8 * (with.expiry != NEVER) as u32 };
        let inline = 32 + expiry + block.length() + key.length.div_ceil(8) * 8 + value.len() as u32;
        if inline <= geometry.max_record {
            let padded = padded(value);
            let draft = Draft {
                value_type: with.value_type,
                flags: 0,
                version,
                expiry: with.expiry,
                grace: with.grace,
                tags: &block,
                value: &padded[..value.len()],
            };
            return self.me.set(&key, &draft, with.expect).map(|()| version);
        }
        let mut list = vec![value.len() as u64];
        let mut result = Ok(());
        for (number, chunk) in value.chunks(self.me.chunk_bytes() as usize).enumerate() {
            let padded = padded(chunk);
            match self.me.write_chunk(&key, version, number as u32, &padded[..chunk.len()]) {
                Ok(place) => list.push(place.0),
                Err(_) => {
                    result = Err(Refused::Busy);
                    break;
                }
            }
        }
        if result.is_ok() {
            let With { value_type, expiry, grace, expect, .. } = *with;
            result = self.me.set_large(&key, value_type, version, expiry, grace, &block, &list, expect);
        }
        if result.is_err() {
            self.me.abandon_chunks(&list[1..]);
        }
        result.map(|()| version)
    }

    pub fn set_number(&mut self, key: &[u8], number: f64) -> Result<u64, Refused> {
        self.store(key, &number.to_le_bytes(), &With { value_type: NUMBER, ..PLAIN })
    }

    pub fn get(&mut self, key: &[u8]) -> Option<Got> {
        self.lookup(key, WANT_VALUE)
    }

    /// Reads like [`Cache::get`], but through the near cache.
    pub fn get_near(&mut self, key: &[u8]) -> Option<Got> {
        let owned = OwnedKey::of(key);
        let hash = owned.with(self.me.seed).hash;
        let mut near = self.near.remove(&hash).filter(|kept| kept.key == key);
        if !near.as_ref().is_some_and(|kept| self.me.is_still(&kept.sight)) {
            let seen = self.me.find(&owned.with(self.me.seed))?;
            near = near.filter(|kept| kept.sight.stamp == seen.stamp).map(|kept| Kept { sight: seen, ..kept });
        }
        if let Some(kept) = near {
            let region = &self.me.region;
            let counter = |number: u32| region.word(region.geometry.tag_counter(number)).load(SeqCst);
            let has_its_tags = kept.tags.iter().all(|(number, snapshot)| counter(*number) == *snapshot);
            if has_its_tags && kept.got.expiry > self.world.now() {
                self.near_hits += 1;
                let got = kept.got.clone();
                self.near.insert(hash, kept);
                return Some(got);
            }
        }
        let got = self.lookup(key, WANT_VALUE | WANT_AFTER_FIND)?;
        if got.stamp.entry != 0 {
            // The tag block: its length, the number of tags, the snapshots, and the numbers of the counters, two to a word.
            let count = if got.tagged { (self.tags[0] >> 32) as usize } else { 0 };
            let counter = |i: usize| (self.tags[1 + count + i / 2] >> (i % 2 * 32)) as u32;
            let tags = (0..count).map(|i| (counter(i), self.tags[1 + i])).collect();
            let counted = self.me.region.word(self.me.region.geometry.changes(got.stamp.bucket())).load(Relaxed);
            let sight = Sight { stamp: got.stamp, changes: counted.wrapping_sub(1) };
            self.near.insert(hash, Kept { key: key.to_vec(), got: got.clone(), sight, tags });
        }
        Some(got)
    }

    pub fn forget_near(&mut self) {
        self.near.clear();
    }

    /// Reads without raising the heat of the entry.
    pub fn peek(&mut self, key: &[u8]) -> Option<Got> {
        self.lookup(key, WANT_VALUE | WANT_QUIET)
    }

    /// Reads an entry that is fresh, or stale and within its grace.
    pub fn get_stale(&mut self, key: &[u8]) -> Option<Got> {
        self.lookup(key, WANT_VALUE | WANT_STALE)
    }

    fn lookup(&mut self, key: &[u8], want: u32) -> Option<Got> {
        // A large value that was replaced while it was read is read again.
        for _ in 0..16 {
            if let Ok(found) = self.look_once(key, want) {
                return found;
            }
        }
        None
    }

    fn look_once(&mut self, key: &[u8], want: u32) -> Result<Option<Got>, Replaced> {
        let key = OwnedKey::of(key);
        let key = key.with(self.me.seed);
        let value: *mut u8 = self.value.as_mut_ptr().cast();
        // SAFETY: both buffers are large enough and aligned.
        let found = unsafe { self.me.get(&key, want | WANT_TAGS, value, self.tags.as_mut_ptr().cast()) };
        let Some(found) = found else { return Ok(None) };
        // SAFETY: initialised, and a value in one record is never longer than `max_record`.
        let scratch = unsafe { std::slice::from_raw_parts(value, 8 * self.value.len()) };
        let got = |value| Got {
            value,
            value_type: found.value_type,
            version: found.version,
            expiry: found.expiry,
            stale: found.stale,
            tagged: found.tags > 0,
            stamp: found.stamp,
        };
        if !found.chunked {
            return Ok(Some(got(scratch[..found.length as usize].to_vec())));
        }
        let chunk_bytes = self.me.chunk_bytes() as u64;
        let total = found.length.min(self.me.region.geometry.max_value as u64);
        let mut whole = Vec::new();
        while (whole.len() as u64) < total {
            let number = whole.len() as u64 / chunk_bytes;
            // SAFETY: initialised, and the buffer is large enough and aligned.
            let length = unsafe { self.me.read_chunk(&key, found.version, number as u32, value) }.ok_or(Replaced)?;
            if length as u64 != chunk_bytes.min(total - whole.len() as u64) {
                return Err(Replaced);
            }
            whole.extend_from_slice(&scratch[..length as usize]);
        }
        Ok(Some(got(whole)))
    }

    pub fn remove(&mut self, key: &[u8], expect: Expect) -> Result<bool, Refused> {
        self.me.remove(&OwnedKey::of(key).with(self.me.seed), expect).map_err(Refused::from)
    }

    pub fn increment(&mut self, key: &[u8], by: f64, initial: f64, with: &With) -> Result<f64, Refused> {
        let addition = Addition { by, initial, min: f64::NEG_INFINITY, max: f64::INFINITY };
        self.add(key, &addition, with).map(|sum| sum.value)
    }

    /// Increments within bounds.
    pub fn add(&mut self, key: &[u8], addition: &Addition, with: &With) -> Result<Sum, Refused> {
        let block = self.block(with.tags);
        self.me.increment(&OwnedKey::of(key).with(self.me.seed), addition, with.expiry, &block)
    }

    pub fn limit(&mut self, key: &[u8], rule: &Rule) -> Result<Verdict, Refused> {
        let block = self.block(&[]);
        self.me.limit(&OwnedKey::of(key).with(self.me.seed), rule, &block)
    }

    pub fn touch(&mut self, key: &[u8], expiry: f64) -> Result<bool, Refused> {
        self.me.touch(&OwnedKey::of(key).with(self.me.seed), expiry)
    }

    pub fn expire(&mut self, key: &[u8]) -> Result<bool, Refused> {
        self.me.expire(&OwnedKey::of(key).with(self.me.seed), self.world.now())
    }

    pub fn invalidate(&mut self, tags: &[&str]) {
        self.me.invalidate(&given(tags), self.world.now())
    }

    pub fn expire_tags(&mut self, tags: &[&str]) {
        self.me.expire_tags(&given(tags), self.world.now())
    }

    pub fn tags_invalidated_at(&self, tags: &[&str]) -> f64 {
        self.me.tags_invalidated_at(&given(tags))
    }

    pub fn bucket(&self, key: &[u8]) -> u32 {
        OwnedKey::of(key).with(self.me.seed).hash as u32 & (self.me.region.geometry.buckets - 1)
    }

    pub fn claim(&self, key: &[u8], flags: u32, deadline: f64, now: f64) -> Result<Claimed, Busy> {
        self.me.claim(&OwnedKey::of(key).with(self.me.seed), flags, deadline, now)
    }

    pub fn claim_lock(&self, name: &[u8], flags: u32) -> Result<Claimed, Busy> {
        self.me.claim_lock(&OwnedKey::of(name).with(self.me.seed), flags, name)
    }

    /// All locks and requests, with the bytes of their names that are kept.
    pub fn locks(&self) -> Vec<(Listed, Vec<u8>)> {
        let mut name = [0u64; 10];
        let mut locks = Vec::new();
        let mut cursor = 0;
        while let Some(lock) = self.me.next_lock(cursor, &mut name) {
            let bytes = name.iter().flat_map(|word| word.to_le_bytes());
            locks.push((lock, bytes.take(lock.name_bytes as usize).collect()));
            cursor = lock.number + 1;
        }
        locks
    }

    pub fn wait(&self, key: &[u8]) {
        self.me.wait(&OwnedKey::of(key).with(self.me.seed)).unwrap();
    }

    fn seat_word(&self, offset: u32) -> &faults::Word {
        self.me.region.word(self.me.region.geometry.seat(self.me.seat) + offset)
    }

    /// Waits for nothing any more, as JavaScript says it.
    pub fn wait_no_more(&self) {
        self.seat_word(32).store(0, SeqCst);
    }

    /// Has heard the bell, as JavaScript says it.
    pub fn heard(&self) {
        self.seat_word(40).store(0, SeqCst);
    }

    /// Whether somebody has rung this participant since it has looked.
    pub fn is_rung(&self) -> bool {
        self.seat_word(40).load(SeqCst) != 0
    }

    /// The seats whose bells this participant has to ring.
    pub fn bells(&self) -> Vec<u32> {
        let mut bells: Vec<u32> = std::iter::from_fn(|| self.me.next_bell()).collect();
        bells.sort();
        bells
    }

    fn block(&self, tags: &[&str]) -> Block {
        let mut block = Participant::<TestHost>::no_tags();
        self.me.tag_block(&given(tags), &mut block);
        block
    }

    /// The keys of all live entries.
    pub fn keys(&mut self) -> Vec<Vec<u8>> {
        self.keys_with(b"")
    }

    /// The keys of all live entries that begin with `prefix`.
    pub fn keys_with(&mut self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let owned = OwnedKey::of(prefix);
        let wanted = [Beginning { kind: 0, length: owned.length, words: &owned.words }];
        let mut buffer = vec![0u64; MAX_KEY as usize / 8];
        let mut keys = Vec::new();
        let mut cursor = 0;
        // SAFETY: room for the longest key.
        while let Some((way, length, _)) = unsafe { self.me.next(cursor, &wanted, buffer.as_mut_ptr().cast()) } {
            // SAFETY: initialised.
            let bytes = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), length as usize) };
            keys.push(bytes.to_vec());
            cursor = way + 1;
        }
        keys
    }

    pub fn count(&self, counter: cache_machine_core::Counter) -> u64 {
        self.me.sum(counter as u32)
    }

    /// Checks the structure, and that the live bytes are exact. For runs without deaths, while nobody writes.
    pub fn check(&self) {
        self.check_structure();
        for each in self.me.audit() {
            assert!(each.accounted == each.found || each.phase == Phase::Free, "the live bytes are wrong: {each:?}");
        }
    }

    /// Checks the structure only: a participant that dies can leave wrong live bytes.
    pub fn check_structure(&self) {
        assert_eq!(self.me.validate(), Ok(()), "the structure is broken");
    }

    pub fn audit(&self) -> Vec<Audited> {
        self.me.audit()
    }
}

fn padded(value: &[u8]) -> Vec<u8> {
    let mut padded = value.to_vec();
    padded.resize(value.len() + 8, 0xEE);
    padded
}

fn given(tags: &[&str]) -> Vec<u8> {
    let mut given = (tags.len() as u32).to_le_bytes().to_vec();
    for tag in tags {
        given.extend((tag.len() as u16).to_le_bytes());
        given.extend(tag.as_bytes());
    }
    given
}

// ---- interruptions ---------------------------------------------------------------------------------------------------

/// The payload of a simulated death.
struct Death;

/// Runs `act`, and lets the thread die before its `n`th access to shared memory, counted from zero. Whether it died.
pub fn dies_at<R>(n: u64, act: impl FnOnce() -> R) -> bool {
    let left = Rc::new(Cell::new(n));
    faults::before_access(Some(Box::new(move || match left.get() {
        // Unwinding through the engine has the effect of a kill, because the engine has no destructors.
        0 => resume_unwind(Box::new(Death)),
        n => left.set(n - 1),
    })));
    let result = catch_unwind(AssertUnwindSafe(act));
    faults::before_access(None);
    match result {
        Ok(_) => false,
        Err(payload) if payload.is::<Death>() => true,
        Err(payload) => resume_unwind(payload),
    }
}

/// Counts the accesses to shared memory that `act` makes.
pub fn accesses<R>(act: impl FnOnce() -> R) -> u64 {
    let count = Rc::new(Cell::new(0));
    let counter = count.clone();
    faults::before_access(Some(Box::new(move || counter.set(counter.get() + 1))));
    act();
    faults::before_access(None);
    count.get()
}

/// Stops a thread before its `n`th access until it is thawed.
pub struct Ice {
    frozen: AtomicBool,
    thawed: AtomicBool,
}

impl Ice {
    pub fn new() -> Arc<Ice> {
        Arc::new(Ice { frozen: AtomicBool::new(false), thawed: AtomicBool::new(false) })
    }

    /// Called in the thread that will freeze.
    pub fn at(self: &Arc<Ice>, n: u64) {
        let ice = self.clone();
        let mut left = n;
        faults::before_access(Some(Box::new(move || {
            if left == 0 {
                ice.frozen.store(true, SeqCst);
                while !ice.thawed.load(SeqCst) {
                    std::thread::yield_now();
                }
            }
            left = left.wrapping_sub(1);
        })));
    }

    /// Called in another thread: waits until the thread is frozen, or until `finished` says that it ended before its `n`th
    /// access.
    pub fn await_frozen(&self, finished: impl Fn() -> bool) -> bool {
        while !self.frozen.load(SeqCst) {
            if finished() {
                return self.frozen.load(SeqCst);
            }
            std::thread::yield_now();
        }
        true
    }

    pub fn thaw(&self) {
        self.thawed.store(true, SeqCst)
    }
}

// ---- chance and time -------------------------------------------------------------------------------------------------

/// splitmix64, to choose what to do next.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The seed of a test: `SEED` from the environment, else a new one. Printed, so that a failure can be replayed.
pub fn seed(test: &str) -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64 & 0xFFFF_FFFF
    });
    eprintln!("{test}: SEED={seed}");
    seed
}

/// How much of the usual work to do: `SCALE` from the environment, by default 1.
pub fn scale() -> f64 {
    std::env::var("SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1.0)
}

pub fn scaled(n: u64) -> u64 {
    (n as f64 * scale()) as u64
}

/// Aborts the process with a message when a test does not end.
pub struct Watchdog(Arc<AtomicBool>);

impl Watchdog {
    pub fn new(test: &'static str, seconds: u64) -> Watchdog {
        let done = Arc::new(AtomicBool::new(false));
        let watched = done.clone();
        let limit = Duration::from_secs((seconds as f64 * scale().max(1.0)) as u64);
        std::thread::spawn(move || {
            let start = Instant::now();
            while start.elapsed() < limit {
                if watched.load(SeqCst) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            eprintln!("watchdog: {test} hangs");
            std::process::abort();
        });
        Watchdog(done)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.store(true, SeqCst)
    }
}
