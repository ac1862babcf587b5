/**
 * A user of a cache whose memory is being damaged. It uses every operation. The values may be wrong then, so it checks only that each
 * operation ends in time, with a result of the right type or with one of its documented errors.
 */
import { MALFORMED_TEXTS, SEGMENT_BYTES, SIZE } from "./attacker.mjs";

class Violation extends Error {
  name = "Violation";
}

function demand(holds, what, found) {
  if (!holds) throw new Violation(`${what}, but found ${typeof found} ${String(found).slice(0, 200)}`);
}

/** Maximum time of an operation. Most take microseconds, waiting takes at most 50 ms; the rest is for a busy machine. */
const LONGEST_MS = 5_000;

/** The number of entries in the index of a cache of 1 MiB; an iteration with more results does not end. */
const MAX_ENTRIES = 15 * 1024;
/** Maximum length of a key in bytes, and so also in characters. */
const MAX_KEY = 4096;
const MAX_TAGS = 128;

// The value cannot be decoded, or needs a codec that this participant does not have.
const DECODING = ["ERR_DATA"];
const WAITING = ["ERR_BUSY"];
// If no segment is free because of the damage, a set fails as if the value were too large.
const STORING = ["ERR_BUSY", "ERR_TOO_LARGE"];

// A promise. The cache may be closed before it is settled. A lock may be taken away, for the bytes say that it was stolen.
const LOADING = [...DECODING, ...STORING, "ERR_CLOSED", "ERR_LOAD", "AbortError"];
/** Promises that may be pending at once. A wait may be endless in damaged memory: a claim says that a living thread loads. */
const MOST_PENDING = 200;

const LARGE_TEXT = "0123456789".repeat(6_000);
const DEEP = Array.from({ length: 900 }, (_, i) => `[${i + 1}]`).join(",");

/** Functions that make values of every type and of random size. */
const VALUES = [
  () => "short",
  ({ below }) => "latin ÿ ".repeat(1 + below(300)),
  ({ below }) => "wide → ".repeat(1 + below(300)),
  () => "lone \ud800",
  ({ random }) => random() * 1e9,
  () => -0,
  () => 123456789012345678901234567890n,
  ({ below }) => [true, false, null][below(3)],
  ({ below }) => ({ list: [1, "two", null, { three: 3n }], text: "t".repeat(below(200)) }),
  () => new Map([[new Date(0), new Set([1, /a/g, new Error("e")])]]),
  () => {
    const cycle = { name: "cycle" };
    cycle.self = [cycle];
    return cycle;
  },
  ({ below }) => Buffer.alloc(below(3_000), "b"),
  () => Float64Array.of(1, Number.NaN, Infinity),
  () => BigInt64Array.of(1n, -1n),
  () => new Uint8ClampedArray(7),
  () => new DataView(new ArrayBuffer(5)),
  () => new ArrayBuffer(16),
  ({ below }) => Buffer.alloc(9_000 + below(100_000), "large"),
  ({ below }) => LARGE_TEXT.slice(0, 9_000 + below(50_000)),
  () => ({ large: LARGE_TEXT.slice(0, 20_000), list: [Buffer.alloc(3_000)] }),
  ({ below }) => MALFORMED_TEXTS[below(MALFORMED_TEXTS.length)],
  () => `[${DEEP},[]]`,
];

const KEYS = [
  ...Array.from({ length: 60 }, (_, i) => `k${i}`),
  ...Array.from({ length: 10 }, (_, i) => Buffer.from(`bytes ${i}`)),
  ...Array.from({ length: 4 }, (_, i) => `\ud800${i}`),
  ...Array.from({ length: 4 }, (_, i) => `é${i}`.repeat(200)),
];

/** A result of `get` must be undefined, or a value that some `set` could have stored. */
function checkValue(value) {
  demand(["undefined", "string", "number", "bigint", "boolean", "object"].includes(typeof value), "a value", value);
  // Bytes must be a copy, and not a view of the shared memory.
  if (ArrayBuffer.isView(value)) demand(!(value.buffer instanceof SharedArrayBuffer), "bytes of its own", value);
}

function checkKey(key) {
  const isKey = typeof key === "string" || key instanceof Uint8Array;
  demand(isKey && key.length <= MAX_KEY, "a key", key);
}

function checkEntry(entry) {
  if (entry === undefined) return;
  checkValue(entry.value);
  demand(typeof entry.version === "number" && entry.version >= 0, "a version", entry.version);
  demand(typeof entry.expiresAt === "number", "an expiry", entry.expiresAt);
  demand(Array.isArray(entry.tags) && entry.tags.length <= MAX_TAGS * 257, "tags", entry.tags);
  for (const tag of entry.tags) demand(typeof tag === "string", "a tag", tag);
}

function checkWalk(walk, check) {
  let seen = 0;
  for (const item of walk) {
    check(item);
    demand(++seen <= MAX_ENTRIES, "an end of the walk", seen);
  }
}

const checkBoolean = (value) => demand(typeof value === "boolean", "whether it did", value);
const checkCount = (value) => demand(Number.isInteger(value) && value >= 0, "a count", value);
const checkStats = ({ near, ...stats }) => {
  for (const [name, value] of Object.entries({ ...stats, ...near })) {
    demand(typeof value === "number" && value >= 0, name, value);
  }
  demand(stats.used <= stats.capacity && stats.capacity < stats.size, "bytes in use", stats.used);
  demand(stats.participants <= 64, "participants", stats.participants);
};

const checkCensus = ({ entries, bytes }) => {
  for (const [name, value] of Object.entries({ entries, bytes })) demand(value >= 0, name, value);
  demand(entries <= MAX_ENTRIES, "a number of entries", entries);
  // A record is not longer than its segment, and a large value at most an eighth of the cache.
  demand(bytes <= entries * (SEGMENT_BYTES + SIZE / 8), "bytes of entries", bytes);
};

/** The operations: the codes of their errors, the call, and the check of its result. `often` is the relative frequency. */
const USES = {
  get: { often: 20, codes: DECODING, run: (u) => u.cache.get(u.key()), check: checkValue },
  getEntry: { often: 5, codes: DECODING, run: (u) => u.cache.getEntry(u.key()), check: checkEntry },
  getMany: {
    often: 2,
    codes: [],
    run: (u) => u.cache.getMany([u.key(), u.key(), u.key()]),
    check: (values) => {
      demand(values.length === 3, "three values", values);
      values.forEach(checkValue);
    },
  },
  getManyEntries: {
    often: 1,
    codes: [],
    run: (u) => u.cache.getManyEntries([u.key(), u.key(), `limit ${u.random.below(4)}`]),
    check: (entries) => entries.forEach(checkEntry),
  },
  "keys with a prefix": {
    often: 0.3,
    codes: [],
    run: (u) => u.cache.keys({ prefix: "k" }),
    check: (keys) => checkWalk(keys, checkKey),
  },
  has: { often: 3, codes: [], run: (u) => u.cache.has(u.key()), check: checkBoolean },
  ttl: {
    often: 2,
    codes: [],
    run: (u) => u.cache.ttl(u.key()),
    check: (ttl) => demand(ttl === undefined || ttl > 0, "a time", ttl),
  },
  set: {
    often: 14,
    codes: STORING,
    run: (u) => u.cache.set(u.key(), u.value(), u.options()),
    check: (result, u) => demand(result === u.cache, "the cache", result),
  },
  setMany: {
    often: 1,
    codes: STORING,
    run: (u) =>
      u.cache.setMany([
        [u.key(), u.value()],
        [u.key(), u.value()],
      ]),
    check: (result, u) => demand(result === u.cache, "the cache", result),
  },
  add: { often: 3, codes: STORING, run: (u) => u.cache.add(u.key(), u.value(), u.options()), check: checkBoolean },
  replace: { often: 2, codes: STORING, run: (u) => u.cache.replace(u.key(), u.value()), check: checkBoolean },
  compareAndSet: {
    often: 3,
    codes: [...DECODING, ...STORING],
    run: (u) => {
      const key = u.key();
      const version = u.cache.getEntry(key)?.version ?? 0;
      // The damage may have made a version that is no valid argument.
      return u.cache.compareAndSet(key, Number.isSafeInteger(version) ? version : 1, u.value());
    },
    check: checkBoolean,
  },
  update: {
    often: 3,
    codes: [...DECODING, ...STORING],
    run: (u) => u.cache.update(u.key(), () => "updated", u.options()),
    check: (value) => demand(value === "updated", "the new value", value),
  },
  updateThatDeclines: {
    often: 1,
    codes: DECODING,
    run: (u) => u.cache.update(u.key(), (_, entry) => checkEntry(entry)),
    check: checkValue,
  },
  storeThatKeeps: {
    often: 4,
    // The tags may be damaged.
    codes: [...DECODING, ...STORING],
    run: (u) => {
      const options = { keepTtl: true, keepTags: true };
      return u.random.below(2)
        ? u.cache.set(u.key(), u.value(), options) === u.cache
        : u.cache.replace(u.key(), u.value(), options);
    },
    check: checkBoolean,
  },
  storeOfWhatHasExpired: {
    often: 1,
    codes: STORING,
    run: (u) => u.cache.replace(u.key(), u.value(), { expiresAt: 1 }),
    check: checkBoolean,
  },
  compareAndDelete: {
    often: 1,
    codes: [...DECODING, ...WAITING],
    run: (u) => {
      const key = u.key();
      const version = u.cache.getEntry(key)?.version ?? 0;
      return u.cache.compareAndDelete(key, Number.isSafeInteger(version) ? version : 1);
    },
    check: checkBoolean,
  },
  deleteMany: {
    often: 1,
    codes: WAITING,
    run: (u) => u.cache.deleteMany([u.key(), u.key()]),
    check: checkCount,
  },
  increment: {
    often: 4,
    codes: STORING,
    // Damaged numbers may be out of range.
    errors: [TypeError, RangeError],
    run: (u) => u.cache.increment(u.counter(), 1, u.random.below(2) ? { ttl: 1_000 } : undefined),
    check: (sum) => demand(typeof sum === "number", "a sum", sum),
  },
  incrementEntry: {
    often: 1,
    codes: STORING,
    // A damaged number may lie outside of the bounds.
    errors: [TypeError, RangeError],
    run: (u) => u.cache.incrementEntry(u.counter(), 1, { min: 0, max: 1e9 }),
    check: ({ value }) => demand(typeof value === "number", "a sum", value),
  },
  rateLimit: {
    often: 3,
    codes: STORING,
    errors: [TypeError],
    run: (u) => {
      const algorithm = ["gcra", "fixed", "sliding"][u.random.below(3)];
      return u.cache.rateLimit(`limit ${u.random.below(4)}`, { limit: 5, window: 1_000, algorithm });
    },
    check: ({ allowed, remaining, resetAfter, retryAfter }) => {
      checkBoolean(allowed);
      demand(remaining >= 0 && remaining <= 5 && Number.isInteger(remaining), "what remains", remaining);
      for (const time of [resetAfter, retryAfter]) demand(time >= 0 && time <= 2_000, "a time", time);
    },
  },
  hasMany: {
    often: 1,
    codes: [],
    run: (u) => u.cache.hasMany([u.key(), u.key()]),
    check: (found) => {
      demand(found.length === 2, "two answers", found);
      found.forEach(checkBoolean);
    },
  },
  getOrSet: {
    often: 3,
    // A loader that is called runs at once, and its end is looked at later.
    codes: [],
    run: (u) => u.later("getOrSet", LOADING, () => u.cache.getOrSet(u.key(), () => u.value(), u.options()), checkValue),
    check: () => {},
  },
  waitFor: {
    often: 1,
    codes: [],
    run: (u) => u.later("waitFor", LOADING, () => u.cache.waitFor(u.key()), checkValue),
    check: () => {},
  },
  lock: {
    often: 2,
    codes: [],
    run: (u) => {
      const options = { ifAvailable: u.random.below(2) === 0 };
      return u.later(
        "lock",
        LOADING,
        () => u.cache.locks.request(u.tag(), options, () => 1),
        (one) => demand(one === 1, "the result of the callback", one),
      );
    },
    check: () => {},
  },
  locks: {
    often: 0.3,
    codes: [],
    run: (u) => u.cache.locks.query(),
    check: ({ held, pending }) => {
      for (const { name } of [...held, ...pending]) demand(typeof name === "string", "the name of a lock", name);
    },
  },
  touch: { often: 3, codes: STORING, run: (u) => u.cache.touch(u.key(), 5_000), check: checkBoolean },
  take: { often: 3, codes: [...DECODING, ...WAITING], run: (u) => u.cache.take(u.key()), check: checkValue },
  delete: { often: 3, codes: WAITING, run: (u) => u.cache.delete(u.key()), check: checkBoolean },
  keys: {
    often: 0.3,
    codes: [],
    run: (u) => u.cache.keys(),
    check: (keys) => checkWalk(keys, checkKey),
  },
  entries: {
    often: 0.3,
    // Iteration leaves out values that cannot be decoded.
    codes: [],
    run: (u) => u.cache.entries(),
    check: (entries) =>
      checkWalk(entries, ([key, value]) => {
        checkKey(key);
        checkValue(value);
      }),
  },
  size: { often: 0.3, codes: [], run: (u) => u.cache.size, check: checkCount },
  stats: { often: 0.3, codes: [], run: (u) => u.cache.stats(), check: checkStats },
  census: { often: 0.3, codes: [], run: (u) => u.cache.census(), check: checkCensus },
  validate: { often: 0.3, codes: [], run: (u) => u.cache.validate(), check: checkCount },
  getStale: {
    often: 2,
    codes: DECODING,
    run: (u) => u.cache.getStale(u.key()),
    check: (entry) => {
      checkEntry(entry);
      if (entry !== undefined) checkBoolean(entry.stale);
    },
  },
  expire: { often: 1, codes: WAITING, run: (u) => u.cache.expire(u.key()), check: checkBoolean },
  expireTag: { often: 0.5, codes: [], run: (u) => u.cache.expireTag(u.tag()), check: () => {} },
  tagInvalidatedAt: {
    often: 0.5,
    codes: [],
    run: (u) => u.cache.tagInvalidatedAt(u.tag()),
    check: (time) => demand(typeof time === "number", "a time", time),
  },
  invalidateTag: { often: 0.5, codes: [], run: (u) => u.cache.invalidateTag(u.tag()), check: () => {} },
  namespace: {
    often: 3,
    codes: [...DECODING, ...STORING],
    run: (u) => {
      const view = u.cache.namespace("part").namespace("of part");
      view.set(u.key(), u.value(), u.options());
      checkEntry(view.getEntry(u.key()));
      return view.get(u.key());
    },
    check: checkValue,
  },
  namespaceKeys: {
    often: 0.2,
    codes: [],
    run: (u) => u.cache.namespace("part").namespace("of part").keys(),
    check: (keys) => checkWalk(keys, checkKey),
  },
  namespaceClear: { often: 0.2, codes: [], run: (u) => u.cache.namespace("part").clear(), check: () => {} },
  clear: { often: 0.02, codes: [], run: (u) => u.cache.clear(), check: () => {} },
  reopen: {
    often: 0.3,
    codes: ["ERR_LAYOUT", "ERR_BUSY"],
    run: (u) => {
      const guest = u.reopen();
      try {
        return guest.get("k1");
      } catch (error) {
        if (!DECODING.includes(error?.code)) throw error;
      } finally {
        guest.close();
      }
    },
    check: checkValue,
  },
};

export const USE_NAMES = Object.keys(USES);

/** One user of one cache. It calls `note(use)` before each operation, so that a watchdog can tell which one did not end. */
export class User {
  /** For each operation: number of calls, number of calls with a result, and number of errors by code. */
  report = Object.fromEntries(USE_NAMES.map((name) => [name, { runs: 0, found: 0, errors: {} }]));
  longestMs = 0;
  longestUse = "";
  #pending = 0;
  #wrong;
  #note;

  constructor(cache, { random, reopen = undefined, note = (_use) => {} }) {
    this.cache = cache;
    this.random = random;
    this.reopen = reopen;
    this.#note = note;
  }

  #pick(list) {
    return list[this.random.below(list.length)];
  }

  key = () => this.#pick(KEYS);
  counter = () => (this.random.below(8) === 0 ? this.key() : `c${this.random.below(8)}`);
  tag = () => `tag ${this.random.below(8)}`;
  value = () => this.#pick(VALUES)(this.random);
  options = () => {
    const { below } = this.random;
    return {
      ttl: below(3) === 0 ? 1 + below(100_000) : undefined,
      tags: below(3) === 0 ? [this.tag(), this.tag()] : undefined,
      grace: below(3) === 0 ? below(100_000) : undefined,
    };
  };

  /** Begins something that answers by a promise. What is wrong with the answer is thrown by a later operation. */
  later(name, codes, begin, check) {
    if (this.#pending >= MOST_PENDING) return undefined;
    this.#pending++;
    begin()
      .then(check, (error) => {
        if (!codes.includes(error?.code) && !codes.includes(error?.name)) throw error;
      })
      .catch((error) => {
        this.#wrong ??= new Violation(`${name} must not end like this: ${error?.stack ?? error}`, { cause: error });
      })
      .finally(() => this.#pending--);
    return true;
  }

  /** Checks after the cache was closed that every promise is settled, and that all answers were right. */
  async end() {
    for (let turns = 0; this.#pending > 0 && turns < 1_000; turns++) await new Promise((run) => setTimeout(run, 1));
    demand(this.#pending === 0, "no pending promise of a closed cache", this.#pending);
    if (this.#wrong !== undefined) throw this.#wrong;
  }

  /** Stores values of all types under all keys. */
  fill() {
    for (const key of KEYS) this.cache.set(key, this.value(), this.options());
    for (let i = 0; i < 8; i++) this.cache.increment(`c${i}`, i);
    const view = this.cache.namespace("part").namespace("of part");
    for (let i = 0; i < 10; i++) view.set(`k${i}`, this.value(), { tags: ["tag 1"] });
  }

  /** Calls a random operation. */
  step() {
    let left = this.random.random() * SHARES;
    this.use(USE_NAMES.find((name) => (left -= USES[name].often) < 0));
  }

  /** Calls the operation of that name. */
  use(name) {
    if (this.#wrong !== undefined) throw this.#wrong;
    if (name === "reopen" && this.reopen === undefined) return;
    const { codes, errors = [], run, check } = USES[name];
    const report = this.report[name];
    this.#note(USE_NAMES.indexOf(name));
    const from = performance.now();
    try {
      const result = run(this);
      check(result, this);
      if (result !== undefined && result !== false) report.found++;
    } catch (error) {
      const code = error?.name === "CacheError" ? error.code : undefined;
      const isKnown = codes.includes(code) || errors.includes(error?.constructor);
      if (!isKnown) throw new Violation(`${name} must not fail like this: ${error?.stack ?? error}`, { cause: error });
      const kind = code ?? error.name;
      report.errors[kind] = (report.errors[kind] ?? 0) + 1;
    }
    report.runs++;
    const ms = performance.now() - from;
    if (ms > this.longestMs) [this.longestMs, this.longestUse] = [ms, name];
    demand(ms < LONGEST_MS, `an end of ${name} in time`, ms);
  }
}

const SHARES = USE_NAMES.reduce((sum, name) => sum + USES[name].often, 0);
