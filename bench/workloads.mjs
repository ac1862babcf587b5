/**
 * The sets of data, and the loops that are measured. Each participant runs one adapter with one set of data, so that the calls
 * in these loops stay monomorphic.
 *
 * Every entry has a value of its own. References to a few shared values would measure the processor's cache instead.
 */

import { random, shuffled } from "./random.mjs";

const letters = random(7);
/** Random letters, from which values are cut. */
const BLOCK = Buffer.from(Uint8Array.from({ length: 1 << 17 }, () => 97 + Math.floor(letters() * 26)));
const CYRILLIC = Array.from({ length: 1 << 12 }, () => String.fromCharCode(0x430 + Math.floor(letters() * 32))).join(
  "",
);
const CITIES = ["Ankara", "Bergen", "Coimbra", "Dresden", "Espoo", "Faro", "Graz", "Haarlem"];

function bytes(i, length) {
  const value = Buffer.allocUnsafeSlow(length);
  BLOCK.copy(value, 0, (i * 7919) & 0xffff);
  value.latin1Write(`${100_000 + i}-`);
  return value;
}

/** Made from bytes, so that the string is flat: slices and concatenations are read more slowly. */
export const ascii = (i, length) => bytes(i, length).latin1Slice();

/** 100 bytes of UTF-8, 53 characters. */
function cyrillic(i) {
  const start = (i * 31) & 0x7ff;
  return Buffer.from(`${100_000 + i}${CYRILLIC.slice(start, start + 47)}`, "utf8").utf8Slice();
}

/** About 300 bytes of JSON. */
function nested(i) {
  return {
    id: i,
    name: ascii(i, 12),
    email: `${ascii(i + 1, 8)}@example.org`,
    active: i % 3 === 0,
    score: i / 7,
    roles: ["reader", "author", i % 2 ? "editor" : "owner"],
    profile: {
      city: CITIES[i & 7],
      language: "de",
      address: { street: ascii(i + 2, 12), number: i % 200, zip: 10_000 + (i % 80_000) },
      since: 1_700_000_000_000 + i,
    },
    settings: { theme: "dark", pageSize: 50 },
  };
}

const EVERY = ["get", "built", "miss", "set", "mixed"];
/** For data whose other workloads would only repeat the results of the strings. */
const KEYS = ["get", "built", "set"];
const VALUES = ["get", "miss", "set", "mixed"];
const PLAIN = ["get", "set"];

/**
 * The sets of data: number of keys, size of a cache of this package that evicts none of them, and the workloads that are worth
 * their time. Large values have fewer keys, so that all compared caches fit into memory at the same time. A few keys show the
 * cost of the operations; with many keys, memory latency dominates.
 */
export const DATA = {
  s16: {
    label: "strings of 16 B",
    type: "text",
    longest: 16,
    keys: 100_000,
    size: "64mb",
    workloads: EVERY,
    make: (i) => ascii(i, 16),
  },
  s100: {
    label: "strings of 100 B",
    type: "text",
    longest: 100,
    keys: 100_000,
    size: "64mb",
    workloads: EVERY,
    make: (i) => ascii(i, 100),
  },
  few: {
    label: "few strings of 100 B",
    type: "text",
    longest: 100,
    keys: 1000,
    size: "64mb",
    workloads: ["get", "built", "miss", "set"],
    make: (i) => ascii(i, 100),
  },
  many: {
    label: "many strings of 16 B",
    type: "text",
    longest: 16,
    keys: 400_000,
    size: "512mb",
    workloads: [],
    make: (i) => ascii(i, 16),
  },
  million: {
    label: "a million strings of 100 B",
    type: "text",
    longest: 100,
    keys: 1_000_000,
    size: "512mb",
    workloads: [],
    make: (i) => ascii(i, 100),
  },
  s1k: {
    label: "strings of 1 KiB",
    type: "text",
    longest: 1024,
    keys: 100_000,
    size: "256mb",
    workloads: EVERY,
    make: (i) => ascii(i, 1024),
  },
  s16k: {
    label: "strings of 16 KiB",
    type: "text",
    longest: 16384,
    keys: 10_000,
    size: "512mb",
    workloads: PLAIN,
    make: (i) => ascii(i, 16_384),
  },
  cyrillic: {
    label: "non-ASCII strings of 100 B",
    type: "text",
    longest: 100,
    keys: 100_000,
    size: "64mb",
    workloads: KEYS,
    make: cyrillic,
  },
  object: {
    label: "nested objects of 300 B",
    type: "object",
    longest: 400,
    keys: 100_000,
    size: "128mb",
    workloads: VALUES,
    make: nested,
  },
  buffer4k: {
    label: "Buffers of 4 KiB",
    type: "bytes",
    longest: 4096,
    keys: 20_000,
    size: "256mb",
    workloads: PLAIN,
    make: (i) => bytes(i, 4096),
  },
};

/** Reads something of a value, so that the compiler cannot remove the read. */
const weigh = {
  text: (value) => value.length,
  object: (value) => value.id + value.profile.city.length,
  bytes: (value) => value.length,
};

/** A flat copy of a string, like a key that came from a request. */
const flat = (text) => Buffer.from(text).latin1Slice();
const FIRST = 100_000;
const keyOf = (i) => flat(`user:${FIRST + i}`);

/** Everything that the loops need, made before anything is measured. */
export function prepare(name, order) {
  const { type, keys: count, make } = DATA[name];
  return {
    name,
    type,
    count,
    weigh: weigh[type],
    keys: Array.from({ length: count }, (_, i) => keyOf(i)),
    absent: Array.from({ length: count }, (_, i) => flat(`gone:${FIRST + i}`)),
    values: Array.from({ length: count }, (_, i) => make(i)),
    order,
    // The length of the order is a power of two.
    mask: order.length - 1,
  };
}

export const WORKLOADS = {
  get: "get",
  built: "get, key built per call",
  miss: "get, miss",
  set: "set",
  mixed: "95 % get, 5 % set",
  heavy: "50 % get, 50 % set",
  uniform: "get, each key as likely as any other",
  scan: "get, one key after the other",
  singles: "100 keys one by one",
  getMany: "100 keys at once",
  scattered: "100 keys one by one, each as likely as any other",
  scatteredMany: "100 keys at once, each as likely as any other",
  increment: "increment",
  rateLimit: "rateLimit",
};

/** Keys of a batch. */
const BATCH = 100;
const batchOf = (number) => Array.from({ length: BATCH }, (_, i) => `user:${FIRST + number(i)}`);
/** Counters and limits. Few, so that what is measured is the operation. */
const COUNTED = 1000;

/** The loops over a synchronous cache: `ops` operations, beginning with request `start`. Each returns a sum over the values read. */
export const loops = {
  get(cache, { keys, order, mask, weigh }, start, ops) {
    let sum = 0;
    for (let i = 0; i < ops; i++) sum += weigh(cache.get(keys[order[(start + i) & mask]]));
    return sum;
  },

  built(cache, { order, mask, weigh }, start, ops) {
    let sum = 0;
    for (let i = 0; i < ops; i++) sum += weigh(cache.get("user:" + (FIRST + order[(start + i) & mask])));
    return sum;
  },

  uniform(cache, { count, weigh }, start, ops) {
    let sum = 0;
    for (let i = 0; i < ops; i++) sum += weigh(cache.get("user:" + (FIRST + (mixed(start + i) % count))));
    return sum;
  },

  scan(cache, { count, weigh }, start, ops) {
    let sum = 0;
    for (let i = 0; i < ops; i++) sum += weigh(cache.get("user:" + (FIRST + ((start + i) % count))));
    return sum;
  },

  singles(cache, { order, mask, weigh }, start, ops) {
    let sum = 0;
    for (let at = start; at < start + ops; at += BATCH) {
      for (const key of batchOf((i) => order[(at + i) & mask])) sum += weigh(cache.get(key));
    }
    return sum;
  },

  getMany(cache, { order, mask, weigh }, start, ops) {
    let sum = 0;
    for (let at = start; at < start + ops; at += BATCH) {
      for (const value of cache.getMany(batchOf((i) => order[(at + i) & mask]))) sum += weigh(value);
    }
    return sum;
  },

  scattered(cache, { count, weigh }, start, ops) {
    let sum = 0;
    for (let at = start; at < start + ops; at += BATCH) {
      for (const key of batchOf((i) => mixed(at + i) % count)) sum += weigh(cache.get(key));
    }
    return sum;
  },

  scatteredMany(cache, { count, weigh }, start, ops) {
    let sum = 0;
    for (let at = start; at < start + ops; at += BATCH) {
      for (const value of cache.getMany(batchOf((i) => mixed(at + i) % count))) sum += weigh(value);
    }
    return sum;
  },

  increment(cache, _, start, ops) {
    let sum = 0;
    for (let i = 0; i < ops; i++) sum += cache.increment("count:" + ((start + i) % COUNTED));
    return sum;
  },

  rateLimit(cache, _, start, ops) {
    let sum = 1;
    for (let i = 0; i < ops; i++) {
      if (cache.rateLimit("limit:" + ((start + i) % COUNTED), { limit: 100, window: 1000 }).allowed) sum++;
    }
    return sum;
  },

  miss(cache, { absent, order, mask }, start, ops) {
    let sum = 1;
    for (let i = 0; i < ops; i++) if (cache.get(absent[order[(start + i) & mask]]) !== undefined) sum++;
    if (sum > 1) throw new Error("found what was never stored");
    return sum;
  },

  set(cache, { keys, values, order, mask, count }, start, ops) {
    let next = start % count;
    for (let i = 0; i < ops; i++) {
      cache.set(keys[order[(start + i) & mask]], values[next]);
      if (++next === count) next = 0;
    }
    return ops;
  },

  setBuilt(cache, { values, order, mask }, start, ops) {
    let next = start % values.length;
    for (let i = 0; i < ops; i++) {
      cache.set("user:" + (FIRST + order[(start + i) & mask]), values[next]);
      if (++next === values.length) next = 0;
    }
    return ops;
  },

  setUniform(cache, { values, count }, start, ops) {
    let next = start % values.length;
    for (let i = 0; i < ops; i++) {
      cache.set("user:" + (FIRST + (mixed(start + i) % count)), values[next]);
      if (++next === values.length) next = 0;
    }
    return ops;
  },

  mixed(cache, { keys, values, order, mask, count, weigh }, start, ops) {
    let sum = 0;
    let next = start % count;
    for (let i = 0; i < ops; i++) {
      const key = keys[order[(start + i) & mask]];
      if (i % 20 === 19) {
        cache.set(key, values[next]);
        if (++next === count) next = 0;
      } else {
        sum += weigh(cache.get(key));
      }
    }
    return sum + 1;
  },

  /** For a cache smaller than the data: a get may miss. */
  heavy(cache, { keys, values, order, mask, count, weigh }, start, ops) {
    let sum = 1;
    let next = start % count;
    for (let i = 0; i < ops; i++) {
      const key = keys[order[(start + i) & mask]];
      if (i & 1) {
        cache.set(key, values[next]);
        if (++next === count) next = 0;
      } else {
        const value = cache.get(key);
        if (value !== undefined) sum += weigh(value);
      }
    }
    return sum;
  },
};

/** Scatters a number over 32 bits (the finalizer of murmur3). */
function mixed(i) {
  let hash = Math.imul(i ^ (i >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** The same loops over an asynchronous cache. */
export const slowLoops = {
  async get(cache, { keys, order, mask, weigh }, start, ops) {
    let sum = 0;
    for (let i = 0; i < ops; i++) sum += weigh(await cache.get(keys[order[(start + i) & mask]]));
    return sum;
  },

  async built(cache, { order, mask, weigh }, start, ops) {
    let sum = 0;
    for (let i = 0; i < ops; i++) sum += weigh(await cache.get("user:" + (FIRST + order[(start + i) & mask])));
    return sum;
  },

  async miss(cache, { absent, order, mask }, start, ops) {
    for (let i = 0; i < ops; i++) {
      if ((await cache.get(absent[order[(start + i) & mask]])) !== undefined)
        throw new Error("found what was never stored");
    }
    return 1;
  },

  async set(cache, { keys, values, order, mask, count }, start, ops) {
    for (let i = 0; i < ops; i++) {
      await cache.set(keys[order[(start + i) & mask]], values[(start + i) % count]);
    }
    return ops;
  },

  async mixed(cache, { keys, values, order, mask, count, weigh }, start, ops) {
    let sum = 1;
    for (let i = 0; i < ops; i++) {
      const key = keys[order[(start + i) & mask]];
      if (i % 20 === 19) await cache.set(key, values[(start + i) % count]);
      else sum += weigh(await cache.get(key));
    }
    return sum;
  },
};

/** Runs a loop in several lanes at once, like a server that handles several requests. */
export function lanes(loop, width) {
  return async (cache, data, start, ops) => {
    const each = Math.ceil(ops / width);
    const sums = await Promise.all(
      Array.from({ length: width }, (_, lane) => loop(cache, data, start + lane * each, each)),
    );
    return sums.reduce((sum, part) => sum + part, 0);
  };
}

/** The entries in random order, for filling: neighbours in memory should not have neighbouring numbers. */
export function* entriesOf({ keys, values, count }) {
  for (const i of shuffled(count, random(11))) yield [keys[i], values[i]];
}

/** The same entries, made on demand, so that only the cache refers to them. */
export function freshEntries(name) {
  return madeEntries(DATA[name].keys, DATA[name].make);
}

/** This many entries in random order, made on demand. */
export function* madeEntries(count, make) {
  for (const i of shuffled(count, random(11))) yield [keyOf(i), make(i)];
}

/** The same keys as new strings: equal, not identical. */
export function* freshKeys(name) {
  for (let i = 0; i < DATA[name].keys; i++) yield keyOf(i);
}
