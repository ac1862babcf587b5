//! What the scenes share: a region whose words are modelled by loom once it is furnished, participants that take keys and
//! numbers, and the search.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_machine_core::{
    Addition, Block, Busy, Claim, Claimed, Draft, Expect, FRESH, Found, Geometry, Host, Key, MAX_BLOCK, MODEL_SIZE,
    NUMBER, Participant, Phase, Place, Refused, Region, Sight, WAIT, WANT_AFTER_FIND, WANT_QUIET, WANT_TAGS,
    WANT_VALUE, faults, format, model::Word,
};
use loom::thread;

/// Any value type but [`NUMBER`].
const TEXT: u8 = 2;
/// Words of the stack of a thread.
const STACK: usize = 0x4000;

/// Who owns a seat.
const NOBODY: u64 = 0;
const LIVING: u64 = 1;
const TAKEN: u64 = 2;

/// The words of a region, and behind them one word for the owner of each seat.
pub struct World {
    words: Vec<Word>,
    geometry: Geometry,
}

impl World {
    pub fn new() -> Rc<World> {
        let geometry = Geometry::of(MODEL_SIZE).unwrap();
        // Nothing lies behind the last segment.
        let count = geometry.segment(geometry.segments) / 8 + geometry.participants;
        let world = World { words: (0..count).map(|_| Word::default()).collect(), geometry };
        format(&world.region(), [0x5EED, 0]);
        Rc::new(world)
    }

    fn region(&self) -> Region {
        // SAFETY: under loom a region is an array of words, which lives as long as the world.
        unsafe { Region::new(self.words.as_ptr() as *mut u8, MODEL_SIZE) }.unwrap()
    }

    fn seat(&self, seat: u32) -> &Word {
        &self.words[(self.geometry.segment(self.geometry.segments) / 8 + seat) as usize]
    }
}

pub struct TestHost {
    world: Rc<World>,
}

impl Host for TestHost {
    fn now(&self) -> f64 {
        0.0
    }

    // A system call is a full barrier on both sides.
    fn take(&self, seat: u32) -> bool {
        let word = self.world.seat(seat);
        word.load(SeqCst) == NOBODY && word.compare_exchange(NOBODY, TAKEN, SeqCst, Relaxed).is_ok()
    }

    fn release(&self, seat: u32) {
        self.world.seat(seat).store(NOBODY, SeqCst)
    }

    fn pause(&self, attempt: u32) -> bool {
        thread::yield_now();
        attempt < 1
    }
}

/// A value in the near cache.
struct Kept {
    value: u64,
    /// Proves that the value is unchanged.
    sight: Sight,
    /// For each tag the number of its counter, and the snapshot of it.
    tags: Vec<(u32, u64)>,
}

/// An empty tag block. It is made on the heap, because the stacks of loom's threads are smaller than a block.
fn no_tags() -> Box<Block> {
    let layout = std::alloc::Layout::new::<Block>();
    // SAFETY: the layout is not empty, and zeros are an empty block.
    unsafe { Box::from_raw(std::alloc::alloc_zeroed(layout).cast()) }
}

/// One participant.
pub struct Cache {
    pub me: Participant<TestHost>,
    world: Rc<World>,
    scratch: RefCell<Vec<u64>>,
    none: Box<Block>,
    near: RefCell<Option<Kept>>,
}

impl Cache {
    pub fn join(world: &Rc<World>, seat: u32) -> Rc<Cache> {
        world.seat(seat).store(LIVING, SeqCst);
        let me = Participant::attach(world.region(), TestHost { world: world.clone() }, seat);
        let scratch = RefCell::new(vec![0; (MAX_BLOCK / 8 + world.geometry.max_record / 8) as usize]);
        let none = no_tags();
        // Fetches the first block of versions before the play.
        me.version();
        Rc::new(Cache { me, world: world.clone(), scratch, none, near: RefCell::new(None) })
    }

    fn key<'a>(&self, key: &'a [u64; 1]) -> Key<'a> {
        Key::new(key, 8, 0, self.me.seed)
    }

    /// Stores a value of `words` words that all are `value`.
    pub fn set(&self, key: u64, value: u64, words: usize) -> Result<(), Refused> {
        self.store(key, value, words, None)
    }

    pub fn store(&self, key: u64, value: u64, words: usize, tag: Option<&str>) -> Result<(), Refused> {
        let bytes = value.to_le_bytes().repeat(words);
        let mut block = None;
        if let Some(tag) = tag {
            let block: &mut Box<Block> = block.insert(no_tags());
            self.me.tag_block(&given(tag), block);
        }
        let tags = block.as_deref().unwrap_or(&self.none);
        let draft = Draft {
            value_type: TEXT,
            flags: 0,
            version: self.me.version(),
            expiry: f64::INFINITY,
            grace: 0.0,
            tags,
            value: &bytes,
        };
        self.me.set(&self.key(&[key]), &draft, Expect::Anything)
    }

    pub fn set_number(&self, key: u64, number: f64) -> Result<(), Refused> {
        let bytes = number.to_le_bytes();
        let draft = Draft {
            value_type: NUMBER,
            flags: 0,
            version: self.me.version(),
            expiry: f64::INFINITY,
            grace: 0.0,
            tags: &self.none,
            value: &bytes,
        };
        self.me.set(&self.key(&[key]), &draft, Expect::Anything)
    }

    /// Stores a value of two words in one chunk, as if it were large.
    pub fn set_large(&self, key: u64, value: u64) -> Result<(), Refused> {
        let chunk = self.begin_large(key, value);
        self.end_large(key, chunk)
    }

    /// Writes the chunk. Returns its version and place.
    pub fn begin_large(&self, key: u64, value: u64) -> (u64, Place) {
        let version = self.me.version();
        let bytes = value.to_le_bytes().repeat(2);
        (version, self.me.write_chunk(&self.key(&[key]), version, 0, &bytes).unwrap())
    }

    /// Stores the head, or gives the chunk up.
    pub fn end_large(&self, key: u64, (version, place): (u64, Place)) -> Result<(), Refused> {
        let list = [16, place.0];
        let key = [key];
        let key = self.key(&key);
        let stored = self.me.set_large(&key, TEXT, version, f64::INFINITY, 0.0, &self.none, &list, Expect::Anything);
        if stored.is_err() {
            self.me.abandon_chunks(&list[1..]);
        }
        stored
    }

    pub fn claim(&self, key: u64) -> Result<Claimed, Busy> {
        self.me.claim(&self.key(&[key]), FRESH | WAIT, 100.0, 0.0)
    }

    /// Stores a value that was loaded under a claim.
    pub fn commit(&self, key: u64, value: u64, claim: &Claim, tag: &str) -> Result<(), Refused> {
        let bytes = value.to_le_bytes();
        let mut block = no_tags();
        self.me.tag_block(&given(tag), &mut block);
        let draft = Draft {
            value_type: TEXT,
            flags: 0,
            version: self.me.version(),
            expiry: f64::INFINITY,
            grace: 0.0,
            tags: &block,
            value: &bytes,
        };
        self.me.set(&self.key(&[key]), &draft, Expect::Claim(claim.number, claim.token))
    }

    pub fn wait(&self, key: u64) {
        self.me.wait(&self.key(&[key])).unwrap();
    }

    /// Whether somebody has rung this participant.
    pub fn is_rung(&self) -> bool {
        self.me.region.word(self.me.region.geometry.seat(self.me.seat) + 40).load(SeqCst) != 0
    }

    pub fn bucket(&self, key: u64) -> u32 {
        self.key(&[key]).hash as u32 & (self.world.geometry.buckets - 1)
    }

    pub fn remove(&self, key: u64) -> Result<bool, Refused> {
        self.me.remove(&self.key(&[key]), Expect::Anything).map_err(Refused::from)
    }

    pub fn increment(&self, key: u64) -> Result<f64, Refused> {
        let one = Addition { by: 1.0, initial: 0.0, min: f64::NEG_INFINITY, max: f64::INFINITY };
        self.me.increment(&self.key(&[key]), &one, f64::INFINITY, &self.none).map(|sum| sum.value)
    }

    pub fn invalidate(&self, tag: &str) {
        self.me.invalidate(&given(tag), 1.0)
    }

    /// The value of `key`, without counting the read or raising the heat.
    pub fn peek(&self, key: u64) -> Option<u64> {
        self.lookup(key, WANT_VALUE | WANT_QUIET).map(|(value, _)| value)
    }

    /// The value of `key` and its version, without counting the read or raising the heat.
    pub fn peek_version(&self, key: u64) -> Option<(u64, u64)> {
        self.lookup(key, WANT_VALUE | WANT_QUIET).map(|(value, found)| (value, found.version))
    }

    pub fn get(&self, key: u64) -> Option<u64> {
        self.lookup(key, WANT_VALUE).map(|(value, _)| value)
    }

    /// Whether there is an entry for `key`, readable or not.
    pub fn has(&self, key: u64) -> bool {
        let mut tags = self.scratch.borrow_mut();
        // SAFETY: nothing is wanted, so nothing is written.
        unsafe { self.me.get(&self.key(&[key]), WANT_QUIET, tags.as_mut_ptr().cast(), std::ptr::null_mut()) }.is_some()
    }

    fn lookup(&self, key: u64, want: u32) -> Option<(u64, Found)> {
        let mut scratch = self.scratch.borrow_mut();
        let (value, tags) = scratch.split_at_mut((self.world.geometry.max_record / 8) as usize);
        let words = [key];
        let key = self.key(&words);
        for _ in 0..4 {
            // SAFETY: both buffers are large enough and aligned.
            let found = unsafe { self.me.get(&key, want, value.as_mut_ptr().cast(), tags.as_mut_ptr().cast()) }?;
            let length = if found.chunked {
                // SAFETY: the buffer is large enough and aligned.
                match unsafe { self.me.read_chunk(&key, found.version, 0, value.as_mut_ptr().cast()) } {
                    Some(length) => length as u64,
                    // The value was replaced while it was read.
                    None => continue,
                }
            } else {
                found.length
            };
            let words = &value[..length as usize / 8];
            assert!(!words.is_empty() && words.iter().all(|word| *word == words[0]), "torn: {words:?}");
            return Some((words[0], found));
        }
        None
    }

    /// Reads like [`Cache::get`], but through a near cache of one value, as `src/near/near.ts` does.
    pub fn get_near(&self, key: u64) -> Option<u64> {
        let mut near = self.near.take();
        if !near.as_ref().is_some_and(|kept| self.me.is_still(&kept.sight)) {
            let seen = self.me.find(&self.key(&[key]))?;
            near = near.filter(|kept| kept.sight.stamp == seen.stamp).map(|kept| Kept { sight: seen, ..kept });
        }
        let region = &self.me.region;
        let counter = |number: u32| region.word(region.geometry.tag_counter(number)).load(SeqCst);
        if let Some(kept) = near.filter(|kept| kept.tags.iter().all(|(number, snapshot)| counter(*number) == *snapshot))
        {
            let value = kept.value;
            *self.near.borrow_mut() = Some(kept);
            return Some(value);
        }
        let (value, found) = self.lookup(key, WANT_VALUE | WANT_TAGS | WANT_AFTER_FIND)?;
        if found.stamp.entry != 0 {
            // The tag block: its length, the number of tags, the snapshots, and the numbers of the counters, two to a word.
            let block = &self.scratch.borrow()[(self.world.geometry.max_record / 8) as usize..];
            let count = if found.tags > 0 { (block[0] >> 32) as usize } else { 0 };
            let counter = |i: usize| (block[1 + count + i / 2] >> (i % 2 * 32)) as u32;
            let tags = (0..count).map(|i| (counter(i), block[1 + i])).collect();
            let counted = region.word(region.geometry.changes(found.stamp.bucket())).load(Relaxed);
            let sight = Sight { stamp: found.stamp, changes: counted.wrapping_sub(1) };
            *self.near.borrow_mut() = Some(Kept { value, sight, tags });
        }
        Some(value)
    }

    /// Fills segments with entries that nobody reads, two each.
    pub fn fill(&self, segments: u64) {
        for i in 0..2 * segments {
            self.set(1000 + i, 7, 11).unwrap();
        }
    }

    pub fn in_phase(&self, phase: Phase) -> usize {
        self.me.audit().iter().filter(|each| each.phase == phase).count()
    }

    /// Checks the structure and the live bytes. Nobody writes meanwhile.
    pub fn check(&self) {
        self.check_structure();
        for each in self.me.audit() {
            assert!(each.accounted == each.found || each.phase == Phase::Free, "the live bytes are wrong: {each:?}");
        }
    }

    pub fn check_structure(&self) {
        assert_eq!(self.me.validate(), Ok(()), "the structure is broken");
    }

    /// Runs `act`, and dies before its `n`th access to shared memory. Whether there was such an access.
    pub fn dies_at(&self, n: u64, act: impl FnOnce(&Cache)) -> bool {
        struct Death;
        let me = thread::current().id();
        let left = Cell::new(n);
        // loom's threads share a thread of the operating system, and so the hook.
        faults::before_access_shared(Some(Rc::new(move || {
            if thread::current().id() == me {
                if left.get() == 0 {
                    faults::before_access_shared(None);
                    resume_unwind(Box::new(Death));
                }
                left.set(left.get() - 1);
            }
        })));
        let result = catch_unwind(AssertUnwindSafe(|| act(self)));
        faults::before_access_shared(None);
        match result {
            Ok(()) => false,
            Err(payload) if payload.is::<Death>() => {
                self.world.seat(self.me.seat).store(NOBODY, SeqCst);
                true
            }
            Err(payload) => resume_unwind(payload),
        }
    }
}

fn given(tag: &str) -> Vec<u8> {
    let mut given = 1u32.to_le_bytes().to_vec();
    given.extend((tag.len() as u16).to_le_bytes());
    given.extend(tag.as_bytes());
    given
}

// ---- the search ------------------------------------------------------------------------------------------------------

/// A play: what the threads do at the same time, and what must hold afterwards.
pub struct Play {
    pub acts: Vec<Box<dyn FnOnce()>>,
    pub end: Box<dyn FnOnce()>,
}

/// Two participants at once, then `end`.
pub fn play(one: impl FnOnce() + 'static, two: impl FnOnce() + 'static, end: impl FnOnce() + 'static) -> Play {
    Play { acts: vec![Box::new(one), Box::new(two)], end: Box::new(end) }
}

impl Play {
    /// Adds a third participant, which runs first where the search begins.
    pub fn and(mut self, third: impl FnOnce() + 'static) -> Play {
        self.acts.insert(0, Box::new(third));
        self
    }
}

/// The panic of an execution that wrote to words which are not modelled.
struct Again;

std::thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect(name))
}

/// Adds the words that were missed to the modelled ones. Whether there were any.
fn learn(words: &Mutex<BTreeSet<usize>>) -> bool {
    let Some(world) = WORLD.take() else { return false };
    let mut words = words.lock().unwrap();
    let before = words.len();
    words.extend((0..world.words.len()).filter(|i| world.words[*i].is_missed()));
    words.len() > before
}

/// Searches the executions of a scene with more and more preemptions. What `scene` does before it returns the play is not
/// searched.
pub fn explore(name: &str, scene: impl Fn(&Rc<World>) -> Play + Send + Sync + 'static) {
    explore_for(name, 1, scene);
}

/// Like `explore`, for one of `parts` parts of a scene, which share its time.
pub fn explore_for(name: &str, parts: u32, scene: impl Fn(&Rc<World>) -> Play + Send + Sync + 'static) {
    let scene = Arc::new(scene);
    let words: Arc<Mutex<BTreeSet<usize>>> = Arc::default();
    let count: Arc<AtomicU64> = Arc::default();
    let budget = Duration::from_secs(env("LOOM_SECONDS").unwrap_or(7)) / parts;
    let start = Instant::now();
    let mut report = String::new();
    for bound in env("LOOM_BOUND").unwrap_or(1) as usize..=6 {
        loop {
            let mut builder = loom::model::Builder::new();
            builder.max_threads = 4;
            builder.max_branches = 20_000;
            builder.preemption_bound = Some(bound);
            builder.checkpoint_interval = 16;
            builder.max_duration = Some(budget.saturating_sub(start.elapsed()));
            count.store(0, Relaxed);
            let (scene, known, counted) = (scene.clone(), words.clone(), count.clone());
            let result = catch_unwind(AssertUnwindSafe(|| builder.check(move || execute(&*scene, &known, &counted))));
            match result {
                Ok(()) => break,
                // This failure does not count: not all words were modelled.
                Err(_) if learn(&words) => {}
                Err(failure) => {
                    println!("{name}: fails with {bound} preemptions in execution {}", count.load(Relaxed));
                    resume_unwind(failure);
                }
            }
        }
        let over = start.elapsed() >= budget;
        let how = if over { "cut" } else { "complete" };
        report += &format!(", {bound} preemptions: {} {how}", count.load(Relaxed));
        if over {
            break;
        }
    }
    println!("{name}: {} words{report}", words.lock().unwrap().len());
}

fn execute(scene: &dyn Fn(&Rc<World>) -> Play, known: &Mutex<BTreeSet<usize>>, count: &AtomicU64) {
    count.fetch_add(1, Relaxed);
    faults::before_access_shared(None);
    let world = World::new();
    let Play { acts, end } = scene(&world);
    {
        let known = known.lock().unwrap();
        world.words.iter().enumerate().for_each(|(i, word)| word.enter(known.contains(&i)));
    }
    WORLD.set(Some(world.clone()));
    let start = |act| thread::Builder::new().stack_size(STACK).spawn(act).unwrap();
    let threads: Vec<_> = acts.into_iter().map(|act| start(Local(act).run())).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    if world.words.iter().any(Word::is_missed) {
        resume_unwind(Box::new(Again));
    }
    world.words.iter().for_each(Word::leave);
    end();
}

/// Makes a closure `Send`, which loom asks for although its threads take turns on one thread.
struct Local(Box<dyn FnOnce()>);

// SAFETY: the closure stays on its thread of the operating system.
unsafe impl Send for Local {}

impl Local {
    fn run(self) -> impl FnOnce() + Send + 'static {
        move || {
            let Local(act) = { self };
            act()
        }
    }
}
