/**
 * An actor: a participant of the crash tests that uses all operations of a cache, and checks every result. It may be killed at any
 * instruction. Its successor with the same number continues with the state in the journal (journal.mjs).
 *
 * A *roomy* cache never evicts, so a stored entry must be found, and every counter is exact. A *tight* cache reclaims memory all
 * the time, so a miss is always allowed.
 */

import { Stalls } from "../linearizability/stalls.mjs";
import { checkValue, demand, generator, makeValue, Violation } from "./checked-values.mjs";
import { ACTORS, COUNTERS, OWN_KEYS } from "./journal.mjs";

/** Number of keys that all actors write, and how many of them, the first ones, have large values. */
const SHARED_KEYS = 40;
const LARGE_SHARED = 4;
const LARGE_OWN = 2;
/** The number of the own key that is also removed by its tag. */
const TAGGED_OWN = 3;
const BRIEF_KEYS = 16;
const MINUTE = 60_000;

export class Actor {
  /**
   * @param options.id number of this actor, 0 to 15
   * @param options.large bytes of the largest value it stores
   * @param options.roomy whether nothing is ever evicted
   */
  constructor(cache, journal, { id, seed, large, roomy }) {
    this.cache = cache;
    this.journal = journal;
    this.id = id;
    this.large = large;
    this.roomy = roomy;
    this.random = generator(seed);
    this.stalls = new Stalls();
    this.report = { steps: 0, busy: 0, misses: 0, hits: 0 };
  }

  /** The clock for the cache; it can be fixed, so that a value can contain the exact time of its expiry. */
  static clock = {
    fixed: 0,
    now: () => Actor.clock.fixed || Date.now(),
  };

  /** Checks that each own key has the state after the last operation of the dead predecessor, or the one before it. */
  inherit() {
    const { journal, id } = this;
    for (let key = 0; key < OWN_KEYS; key++) {
      const name = ownKey(id, key);
      const [done, begun] = [journal.done(id, key), journal.begun(id, key)];
      const state = this.#readOwn(id, key);
      demand(
        state === done ||
          state === begun ||
          (state < 0 && (this.#mayMiss(key) || done % 2 === 1 || begun % 2 === 1 || done === 0)),
        "a dead writer left its last value or the one it was writing",
        () => ({ name, state, done, begun }),
      );
      if (state >= 0) {
        journal.finish(id, key, state);
      } else if (begun > 0) {
        this.#patiently(() => this.cache.delete(name));
        journal.begin(id, key, begun | 1);
        journal.finish(id, key, begun | 1);
      }
    }
  }

  /** Whether an own key may be missing although it was not removed. A tag may share its counter with another tag. */
  #mayMiss(key) {
    return !this.roomy || key === TAGGED_OWN;
  }

  #patiently(change) {
    for (let tries = 0; ; tries++) {
      try {
        return change();
      } catch (error) {
        if (error?.code !== "ERR_BUSY" || tries === 50) throw error;
        this.report.busy++;
      }
    }
  }

  steps(count) {
    for (let i = 0; i < count; i++) this.step();
  }

  step() {
    const dice = this.random.below(100);
    const step =
      dice < 34
        ? "own"
        : dice < 50
          ? "count"
          : dice < 70
            ? "share"
            : dice < 80
              ? "churn"
              : dice < 85
                ? "brief"
                : "peek";
    const from = this.stalls.begin();
    try {
      this[step]();
    } catch (error) {
      if (error?.code !== "ERR_BUSY") throw error;
      this.report.busy++;
      this.busyStep = `${step} ${this.what}: ${error.message}`;
    }
    this.stalls.end(from, `${step} ${this.what}`);
    this.report.steps++;
    this.journal.stepped(this.id);
  }

  /** Changes an own key: no other actor changes it. */
  own() {
    const { cache, journal, id } = this;
    const key = this.#key(LARGE_OWN, OWN_KEYS);
    const name = ownKey(id, key);
    const before = journal.done(id, key);
    const there = before > 0 && before % 2 === 0;
    const sequence = Math.max(journal.begun(id, key), before) + 2;
    const stored = sequence & ~1;
    const removed = stored | 1;
    const size = key < LARGE_OWN ? this.#largeSize() : this.#size();
    const value = makeValue(this.random.below(4), name, id, stored >>> 1, size);
    const options = key === TAGGED_OWN ? { tags: [`own ${id}`, "all"] } : undefined;
    const verb = this.random.below(10);
    const mayMiss = this.#mayMiss(key);
    const told = () => ({ name, verb, before, sequence });
    this.what = `${name} ${verb} ${size}`;
    // The state before must be the last one, because no other actor changes the key.
    const known = this.#readOwn(id, key);
    demand(
      known === before || (known < 0 && (!there || mayMiss)) || (before === 0 && known < 0),
      "no resurrection: one's own key holds what was stored last",
      () => ({ ...told(), known }),
    );
    try {
      if (verb < 4) {
        journal.begin(id, key, stored);
        cache.set(name, value, options);
        journal.finish(id, key, stored);
      } else if (verb === 4) {
        journal.begin(id, key, removed);
        const was = cache.delete(name);
        journal.finish(id, key, removed);
        demand(was === there || (!was && mayMiss), "delete tells whether the key was there", told);
      } else if (verb === 5) {
        journal.begin(id, key, removed);
        const was = cache.take(name);
        if (was !== undefined) checkValue(name, was, 0);
        journal.finish(id, key, removed);
        demand((was !== undefined) === there || mayMiss, "take returns what was there", told);
      } else if (verb === 6) {
        journal.begin(id, key, stored);
        const added = cache.add(name, value, options);
        if (added) journal.finish(id, key, stored);
        demand(added === !there || (added && mayMiss), "add stores only if the key is absent", told);
      } else if (verb === 7) {
        const entry = cache.getEntry(name);
        if (entry === undefined) return;
        journal.begin(id, key, stored);
        const swapped = cache.compareAndSet(name, entry.version, value, options);
        if (swapped) journal.finish(id, key, stored);
        demand(swapped || mayMiss, "an entry that nobody changes keeps its version", told);
      } else if (verb === 8 && key === TAGGED_OWN) {
        journal.begin(id, key, removed);
        cache.invalidateTag(`own ${id}`);
        journal.finish(id, key, removed);
      } else {
        const was = cache.touch(name, this.random.below(2) ? Infinity : MINUTE * 10);
        demand(was === there || (!was && mayMiss), "touch tells whether the key was there", told);
      }
    } catch (error) {
      if (error?.code !== "ERR_BUSY") throw error;
      const kept = this.#readOwn(id, key);
      demand(kept === before || (kept < 0 && (!there || mayMiss)), "a failed change changes nothing", () => ({
        ...told(),
        kept,
      }));
      throw error;
    }
    const after = journal.done(id, key);
    const read = this.#readOwn(id, key);
    demand(
      read === after || (read < 0 && (after % 2 === 1 || after === 0 || mayMiss)),
      "one reads what one has stored",
      () => ({
        ...told(),
        after,
        read,
      }),
    );
  }

  /** Reads an actor's own key and checks the value: its state, -1 for a miss. Any actor may call this. */
  #readOwn(actor, key) {
    const { cache, journal } = this;
    const name = ownKey(actor, key);
    const done = journal.done(actor, key);
    const floor = journal.floor(actor, key);
    const now = Date.now();
    const value = this.random.below(4) === 0 ? cache.getEntry(name)?.value : cache.get(name);
    if (value === undefined) {
      this.report.misses++;
      // A miss is wrong only if the entry was there during the whole read.
      const stays = done > 0 && done % 2 === 0 && journal.begun(actor, key) === done;
      demand(!stays || this.#mayMiss(key), "what was stored is found", () => ({ name, done, has: cache.has(name) }));
      return -1;
    }
    this.report.hits++;
    const { writer, sequence } = checkValue(name, value, now);
    const state = sequence * 2;
    demand(writer === actor, "authentic: a value of another writer", () => ({ name, writer }));
    demand(state >= floor, "no resurrection: an older value came back", () => ({ name, state, floor, done }));
    const newest = journal.begun(actor, key);
    demand(state <= newest, "authentic: a value that was never stored", () => ({ name, state, newest }));
    journal.saw(actor, key, state);
    return state;
  }

  /** Changes a counter. An increment that has returned must not get lost. */
  count() {
    const { cache, journal, id } = this;
    const counter = this.random.below(COUNTERS);
    const name = `c${counter}`;
    const verb = this.random.below(4);
    this.what = `${name} ${verb}`;
    const floor = journal.counted(counter);
    let sum;
    if (verb === 0) {
      sum = cache.get(name) ?? (floor === 0 || !this.roomy ? 0 : -1);
    } else {
      journal.attempt(id, counter);
      try {
        if (verb === 1 && this.roomy) sum = cache.update(name, (was) => (was ?? 0) + 1);
        else sum = cache.increment(name);
      } catch (error) {
        journal.attempt(id, counter, -1);
        throw error;
      }
      journal.count(id, counter);
      demand(sum >= 1, "authentic: a counter holds a count", () => ({ name, sum }));
    }
    demand(sum >= floor || !this.roomy, "no increment is lost", () => ({ name, sum, floor }));
    const most = journal.attempted(counter);
    demand(Number.isInteger(sum) && sum <= most, "nothing is counted twice", () => ({ name, sum, most }));
  }

  /** Changes a shared key: all actors change it. */
  share() {
    const { cache, id } = this;
    const key = this.#key(LARGE_SHARED, SHARED_KEYS);
    const name = `s${key}`;
    const size = key < LARGE_SHARED ? this.#largeSize() : this.#size();
    const verb = this.random.below(8);
    this.what = `${name} ${verb} ${size}`;
    const value = makeValue(this.random.below(4), name, id, this.random.next(), size);
    const now = Date.now();
    if (verb < 3) cache.set(name, value, verb === 2 ? { tags: ["all", name] } : undefined);
    else if (verb === 3) cache.delete(name);
    else if (verb === 4) cache.add(name, value);
    else if (verb === 5) {
      cache.update(name, (old) => {
        if (old !== undefined) checkValue(name, old, now);
        return value;
      });
    } else if (verb === 6) {
      const old = cache.take(name);
      if (old !== undefined) checkValue(name, old, now);
    } else cache.invalidateTag(name);
  }

  /** Fills the log with entries that are hardly ever read. */
  churn() {
    const name = `w${this.random.below(this.roomy ? 300 : 20_000)}`;
    const now = Date.now();
    this.what = name;
    // The keys that end with 7 always have an empty value, which cannot contain a checksum.
    const empty = name.endsWith("7");
    const old = this.cache.get(name);
    if (empty) demand(old === undefined || old.length === 0, "authentic: an empty value is empty", () => ({ name }));
    else if (old !== undefined) checkValue(name, old, now);
    const value = empty
      ? Buffer.alloc(0)
      : makeValue(this.random.below(4), name, this.id, this.random.next(), this.#size());
    this.cache.set(name, value);
  }

  /** Stores an entry that expires after a few milliseconds. */
  brief() {
    const name = `b${this.random.below(BRIEF_KEYS)}`;
    const now = Date.now();
    this.what = name;
    const old = this.cache.get(name);
    if (old !== undefined) checkValue(name, old, now);
    const ttl = 1 + this.random.below(5);
    const { clock } = Actor;
    clock.fixed = Date.now();
    try {
      const expires = clock.fixed + ttl;
      this.cache.set(name, makeValue(this.random.below(4), name, this.id, this.random.next(), this.#size(), expires), {
        ttl,
      });
    } finally {
      clock.fixed = 0;
    }
  }

  /** Reads keys that other actors write. */
  peek() {
    const actor = this.random.below(ACTORS);
    this.what = `${actor}`;
    for (let i = 0; i < 3; i++) this.#readOwn(actor, this.#key(LARGE_OWN, OWN_KEYS));
    const name = `s${this.#key(LARGE_SHARED, SHARED_KEYS)}`;
    const now = Date.now();
    const value = this.cache.get(name);
    if (value !== undefined) checkValue(name, value, now);
  }

  /** The number of a random key. The first keys are large and slow, and are chosen rarely. */
  #key(large, all) {
    return this.random.below(16) ? large + this.random.below(all - large) : this.random.below(large);
  }

  #size() {
    return this.random.below(4) ? this.random.below(300) : this.random.below(5000);
  }

  #largeSize() {
    return this.random.below(3) ? this.random.below(this.large >>> 3) : this.random.below(this.large);
  }
}

function ownKey(actor, key) {
  return `o${actor}:${key}`;
}

/** The text of an error; one line for a violation. */
export function explain(error) {
  return error instanceof Violation ? `violation: ${error.message}` : `${error?.stack ?? error}`;
}
