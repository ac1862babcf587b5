/**
 * An actor of a test of linearizability: changes a few keys that all actors change, and records every operation. It may be killed,
 * terminated or stopped at any instruction. The operations are checked later, from the records of all actors.
 */
import { checkValue, generator, makeValue, Violation } from "../crash/checked-values.mjs";
import { ALL_KEYS, ALL_TAGGED, BOUND, BUSY, DONE, LIMIT, NO, OP, PENDING, Recorder, YES } from "./recorder.mjs";
import { Stalls } from "./stalls.mjs";

/** The keys: plain ones, then large ones, then counters, then a rate limit of each algorithm. */
const PLAIN = 6;
const LARGE = 2;
const COUNTERS = 4;
const ALGORITHMS = ["gcra", "fixed", "sliding"];
export const KEYS = PLAIN + LARGE + COUNTERS + ALGORITHMS.length;
/** Number of keys with a tag: all but the counters and the limits. */
export const TAGGED = PLAIN + LARGE;
const MINUTE = 60_000;
/** Milliseconds of a window of the rate limits: so long that nothing comes back during a test. */
const WINDOW = 1e12;
/** Maximum number of events that one step records. */
const EVENTS_PER_STEP = 4;

export class RecordingActor {
  #cache;
  #recorder;
  #log;
  #setup;
  #random;
  #seen = new Map();
  #what = "";
  stalls = new Stalls();
  report = { steps: 0, busy: 0 };

  /**
   * @param setup.place the place in the log where it records
   * @param setup.large bytes of the largest value
   * @param setup.clears whether it sometimes clears the cache
   * @param setup.roomy whether nothing may be evicted
   */
  constructor(cache, log, setup) {
    this.#cache = cache;
    this.#log = log;
    this.#recorder = new Recorder(log, setup.place, setup.incarnation, { near: setup.near });
    this.#setup = setup;
    this.#random = generator(setup.seed);
  }

  steps(count) {
    for (let i = 0; i < count; i++) this.#step();
  }

  #step() {
    const from = this.stalls.begin();
    const dice = this.#random.below(100);
    const key = this.#random.below(KEYS);
    // Without room to record its operations, an actor must not change the keys.
    if (dice < 8 || !this.#recorder.room(EVENTS_PER_STEP)) this.#churn();
    else if (this.#setup.clears && dice === 8 && this.#random.below(4) === 0) this.#clear();
    else if (dice < 14) this.#many(key);
    else if (isLimit(key)) this.#limit(key, dice);
    else if (isCounter(key)) this.#count(key, dice);
    else this.#change(key, dice);
    this.stalls.end(from, this.#what);
    this.report.steps++;
    this.#log.stepped(this.#setup.place);
  }

  /**
   * Executes and records one operation: nothing but `act` happens between its two stamps. `explain` turns the result of `act` into
   * `[outcome, result?, version?]`.
   */
  #do(op, key, argument, expected, act, explain) {
    this.#what = `${op} ${name(key)}`;
    const at = this.#recorder.begin(OP[op], key, argument, expected);
    let returned;
    try {
      returned = act(at);
    } catch (error) {
      if (error?.code !== "ERR_BUSY") throw error;
      this.report.busy++;
      this.#recorder.end(at, BUSY);
      return;
    }
    const stamp = this.#log.stamp();
    const [outcome, result, version] = explain(returned);
    this.#recorder.end(at, outcome, result, version, stamp);
  }

  /** The name of a value that was read; throws if no actor can have stored it. */
  #nameOf(key, value) {
    if (value === undefined) return undefined;
    if (isLimit(key)) return this.#usedOf(key, value);
    if (!isCounter(key)) return checkValue(name(key), value, 0).sequence;
    if (!Number.isSafeInteger(value)) throw new Violation(`authentic: counter ${name(key)} holds ${String(value)}`);
    return value;
  }

  /** How many requests a limit has let through, by its description. */
  #usedOf(key, { algorithm, startedAt, count, previous }) {
    if (algorithm !== algorithmOf(key) || previous !== 0 || !Number.isSafeInteger(count)) {
      throw new Violation(`authentic: limit ${name(key)} is ${algorithm} with ${count} and ${previous}`);
    }
    // GCRA counts whole windows by the time.
    return startedAt > Date.now() + WINDOW / 2 ? count + LIMIT : count;
  }

  #found(key, value, version) {
    return value === undefined ? [NO] : [YES, this.#nameOf(key, value), version];
  }

  #value(key, stamp) {
    const large = key >= PLAIN;
    const size = large
      ? this.#random.below(this.#setup.large)
      : this.#random.below(this.#random.below(8) ? 200 : 4_000);
    // Mostly text, because near caches keep it.
    const kind = [1, 1, 1, 2, 0, 3][this.#random.below(6)];
    return makeValue(kind, name(key), this.#setup.place, stamp, size);
  }

  /** A random number that hardly ever repeats, so that each sum identifies a state. */
  #amount() {
    return (this.#random.next() * 256 + this.#random.below(256)) * (this.#random.below(2) ? 1 : -1) + 1;
  }

  #options(key) {
    return this.#setup.clears && key < TAGGED ? { tags: ["tagged"] } : undefined;
  }

  #get(key) {
    const found = (value) => this.#found(key, value);
    this.#do("get", key, undefined, undefined, () => this.#cache.get(name(key)), found);
  }

  #getEntry(key) {
    const found = (entry) => {
      const told = this.#found(key, entry?.value, entry?.version);
      this.#seen.set(key, entry === undefined ? [undefined, 0] : told.slice(1));
      return told;
    };
    this.#do("getEntry", key, undefined, undefined, () => this.#cache.getEntry(name(key)), found);
  }

  /** The next value to store and its name: for a counter a number, otherwise the next stamp. */
  #next(key) {
    const id = isCounter(key) ? this.#amount() : this.#log.stamp();
    return [id, isCounter(key) ? id : this.#value(key, id)];
  }

  #compareAndSet(key) {
    if (this.#random.below(2) || !this.#seen.has(key)) this.#getEntry(key);
    const [expected, version] = this.#seen.get(key) ?? [undefined, 0];
    const [id, value] = this.#next(key);
    const swap = () => this.#cache.compareAndSet(name(key), version, value, this.#options(key));
    this.#do("compareAndSet", key, id, expected, swap, (done) => [done ? YES : NO, undefined, version]);
  }

  #compareAndDelete(key) {
    if (this.#random.below(2) || !this.#seen.has(key)) this.#getEntry(key);
    const [expected, version] = this.#seen.get(key) ?? [undefined, 0];
    if (version === 0) return;
    const remove = () => this.#cache.compareAndDelete(name(key), version);
    this.#do("compareAndDelete", key, undefined, expected, remove, (done) => [done ? YES : NO, undefined, version]);
  }

  #simply(op, key, act) {
    this.#do(op, key, undefined, undefined, act, (done) => [done ? YES : NO]);
  }

  #take(key) {
    const found = (value) => this.#found(key, value);
    this.#do("take", key, undefined, undefined, () => this.#cache.take(name(key)), found);
  }

  #touch(key) {
    this.#simply("touch", key, () => this.#cache.touch(name(key), this.#random.below(2) ? Infinity : MINUTE));
  }

  #store(op, key) {
    const [id, value] = this.#next(key);
    // All entries of a key have the same tags, so a replaced one may as well keep them.
    const keeps = op === "replace" && this.#random.below(2) === 0;
    const options = keeps ? { keepTtl: true, keepTags: true } : this.#options(key);
    const store = () => this.#cache[op](name(key), value, options);
    this.#do(op, key, id, undefined, store, (done) => [done === this.#cache ? DONE : done ? YES : NO]);
  }

  #update(key) {
    if (this.#random.below(8) === 0) this.#decline(key);
    const [id, value] = this.#next(key);
    let wasThere = false;
    const update = (at) =>
      this.#cache.update(
        name(key),
        (old, entry) => {
          wasThere = entry !== undefined;
          const next = isCounter(key) ? (old ?? 0) + id : value;
          this.#recorder.expect(at, this.#nameOf(key, old), isCounter(key) ? next : id);
          return next;
        },
        // An entry that is there keeps its tags.
        () => (wasThere ? undefined : this.#options(key)),
      );
    this.#do("update", key, id, undefined, update, () => [YES]);
  }

  /** An update that leaves the entry as it is: a read. */
  #decline(key) {
    const found = (value) => this.#found(key, value);
    this.#do("get", key, undefined, undefined, () => this.#cache.update(name(key), () => undefined), found);
  }

  #increment(key) {
    const [by, initial] = [this.#amount(), this.#amount()];
    const down = by < 0 && this.#random.below(2) === 0;
    const add = () =>
      down ? this.#cache.decrement(name(key), -by, { initial }) : this.#cache.increment(name(key), by, { initial });
    this.#do("increment", key, by, initial, add, (sum) => [DONE, sum]);
  }

  #incrementWithin(key) {
    const [by, initial] = [this.#amount(), this.#amount()];
    const add = () => {
      try {
        return this.#cache.incrementEntry(name(key), by, { initial, min: -BOUND, max: BOUND });
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        return undefined;
      }
    };
    this.#do("incrementWithin", key, by, initial, add, (sum) => (sum === undefined ? [NO] : [YES, sum.value]));
  }

  #rateLimit(key) {
    const cost = 1 + this.#random.below(1_000);
    const ask = () =>
      this.#cache.rateLimit(name(key), { limit: LIMIT, window: WINDOW, algorithm: algorithmOf(key), cost });
    const told = ({ allowed, remaining }) => [allowed ? YES : NO, LIMIT - remaining];
    this.#do("rateLimit", key, cost, undefined, ask, told);
  }

  #limit(key, dice) {
    if (dice < 26) this.#get(key);
    else if (dice < 36) this.#getEntry(key);
    else if (dice < 92) this.#rateLimit(key);
    else if (dice < 94) this.#simply("delete", key, () => this.#cache.delete(name(key)));
    else if (dice < 96) this.#compareAndDelete(key);
    else if (dice < 97) this.#take(key);
    else this.#touch(key);
  }

  #change(key, dice) {
    if (dice < 38) this.#get(key);
    else if (dice < 46) this.#getEntry(key);
    else if (dice < 60) this.#store("set", key);
    else if (dice < 64) this.#simply("delete", key, () => this.#cache.delete(name(key)));
    else if (dice < 68) this.#compareAndDelete(key);
    else if (dice < 72) this.#take(key);
    else if (dice < 78) this.#store("add", key);
    else if (dice < 83) this.#store("replace", key);
    else if (dice < 92) this.#compareAndSet(key);
    else if (dice < 97) this.#update(key);
    else this.#touch(key);
  }

  #count(key, dice) {
    if (dice < 30) this.#get(key);
    else if (dice < 38) this.#getEntry(key);
    else if (dice < 60) this.#increment(key);
    else if (dice < 74) this.#incrementWithin(key);
    else if (dice < 76) this.#store("set", key);
    else if (dice < 78) this.#simply("delete", key, () => this.#cache.delete(name(key)));
    else if (dice < 80) this.#compareAndDelete(key);
    else if (dice < 82) this.#take(key);
    else if (dice < 85) this.#store("add", key);
    else if (dice < 87) this.#store("replace", key);
    else if (dice < 92) this.#compareAndSet(key);
    else if (dice < 97) this.#update(key);
    else this.#touch(key);
  }

  /** Several keys in one call: recorded as one operation for each key, all with the stamps of the whole call. */
  #many(first) {
    const keys = [first, (first + 1) % KEYS, (first + 5) % KEYS];
    const dice = this.#random.below(8);
    if (dice < 5) this.#getMany(keys);
    else if (dice < 7) this.#setMany(keys.filter((key) => !isCounted(key)));
    else this.#deleteMany(keys);
  }

  #getMany(keys) {
    this.#what = `getMany ${keys}`;
    const stamp = this.#log.stamp();
    const places = keys.map((key) => this.#recorder.begin(OP.getMany, key, undefined, undefined, stamp));
    const values = this.#cache.getMany(keys.map(name));
    const now = this.#log.stamp();
    places.forEach((at, i) => {
      const [outcome, result] = this.#found(keys[i], values[i]);
      this.#recorder.end(at, outcome, result, undefined, now);
    });
  }

  #setMany(keys) {
    this.#what = `setMany ${keys}`;
    const named = keys.map((key) => this.#next(key));
    const stamp = this.#log.stamp();
    const places = keys.map((key, i) => this.#recorder.begin(OP.setMany, key, named[i][0], undefined, stamp));
    let outcome = DONE;
    try {
      this.#cache.setMany(
        keys.map((key, i) => [name(key), named[i][1]]),
        this.#options(0),
      );
    } catch (error) {
      if (error?.code !== "ERR_BUSY") throw error;
      this.report.busy++;
      // The first entries may have been stored, as if this participant had been cut off here.
      outcome = PENDING;
    }
    const now = this.#log.stamp();
    for (const at of places) this.#recorder.end(at, outcome, undefined, undefined, now);
  }

  #deleteMany(keys) {
    this.#what = `deleteMany ${keys}`;
    const stamp = this.#log.stamp();
    const places = keys.map((key) => this.#recorder.begin(OP.deleteMany, key, undefined, undefined, stamp));
    let outcome = DONE;
    try {
      this.#cache.deleteMany(keys.map(name));
    } catch (error) {
      if (error?.code !== "ERR_BUSY") throw error;
      this.report.busy++;
      // The first entries may have been removed, as if this participant had been cut off here.
      outcome = PENDING;
    }
    const now = this.#log.stamp();
    for (const at of places) this.#recorder.end(at, outcome, undefined, undefined, now);
  }

  #clear() {
    if (this.#random.below(3) === 0) {
      this.#do(
        "clear",
        ALL_KEYS,
        undefined,
        undefined,
        () => this.#cache.clear(),
        () => [DONE],
      );
    } else {
      this.#do(
        "clear",
        ALL_TAGGED,
        undefined,
        undefined,
        () => this.#cache.invalidateTag("tagged"),
        () => [DONE],
      );
    }
  }

  /** Fills the log: with entries that are hardly ever read in a tight cache, with the same few entries in a roomy one. */
  #churn() {
    const key = `f${this.#random.below(this.#setup.roomy ? 16 : 2_000)}`;
    this.#what = key;
    const old = this.#cache.get(key);
    if (old !== undefined) checkValue(key, old, 0);
    try {
      this.#cache.set(key, makeValue(0, key, this.#setup.place, this.report.steps, 1 + this.#random.below(4_000)));
    } catch (error) {
      if (error?.code !== "ERR_BUSY") throw error;
      this.report.busy++;
    }
  }
}

/** Whether the key holds a counter or a rate limit: what changes in place. */
export function isCounted(key) {
  return key >= PLAIN + LARGE;
}

function isCounter(key) {
  return isCounted(key) && !isLimit(key);
}

function isLimit(key) {
  return key >= PLAIN + LARGE + COUNTERS;
}

function algorithmOf(key) {
  return ALGORITHMS[key - PLAIN - LARGE - COUNTERS];
}

export function name(key) {
  const what = isLimit(key) ? "limit" : isCounter(key) ? "count" : key >= PLAIN ? "large" : "plain";
  return `${what}:${key}`;
}
