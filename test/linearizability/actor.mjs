/**
 * An actor of a test of linearizability: changes a few keys that all actors change, and records every operation. It may be killed,
 * terminated or stopped at any instruction. The operations are checked later, from the records of all actors.
 */
import { checkValue, generator, makeValue, Violation } from "../crash/checked-values.mjs";
import { ALL_KEYS, ALL_TAGGED, BUSY, DONE, NO, OP, PENDING, Recorder, YES } from "./recorder.mjs";
import { Stalls } from "./stalls.mjs";

/** The keys: plain ones, then large ones, then counters. */
const PLAIN = 6;
const LARGE = 2;
const COUNTERS = 4;
export const KEYS = PLAIN + LARGE + COUNTERS;
/** Number of keys with a tag: all but the counters, because `increment` sets no tags. */
export const TAGGED = PLAIN + LARGE;
const MINUTE = 60_000;
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
    if (!isCounter(key)) return checkValue(name(key), value, 0).sequence;
    if (!Number.isSafeInteger(value)) throw new Violation(`authentic: counter ${name(key)} holds ${String(value)}`);
    return value;
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
    else if (dice < 74) this.#increment(key);
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
    else if (dice < 7) this.#setMany(keys.filter((key) => !isCounter(key)));
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

export function isCounter(key) {
  return key >= PLAIN + LARGE;
}

export function name(key) {
  return `${isCounter(key) ? "count" : key >= PLAIN ? "large" : "plain"}:${key}`;
}
