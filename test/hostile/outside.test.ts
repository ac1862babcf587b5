/**
 * Keys and values from the outside world: keys and JSON of clients, objects of other realms, objects that claim to be of
 * another class, and values that only another participant can read. Whatever comes, a read returns a value or a miss, or
 * throws an error that says why; a store succeeds or throws; and no other entry changes.
 */

import { deepStrictEqual } from "node:assert";
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { runInNewContext, runInThisContext } from "node:vm";
import { Worker } from "node:worker_threads";
import { type Cache, type CacheHandle, type Codec, createCache, type Key } from "cache-machine";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { seeded } from "../contract/seeded.ts";
import { LONG, ODD } from "./outside-keys.ts";
import { nest, read, SHAPES, store } from "./outside-worker.mjs";

const opened = new Set<Cache<any, Key>>();

afterEach(() => {
  for (const cache of opened) cache.close();
  opened.clear();
});

// Which tags share a counter depends on the cache's random seed, and a shared counter makes misses. With fixed seeds all runs
// are the same.
const SEED = Number(process.env.SEED ?? 20_261_126);
console.log(`outside: SEED=${SEED}`);
let caches = 0;

function create(options: Parameters<typeof createCache>[0] = {}): Cache<any, Key> {
  const cache = seeded(SEED + caches++, () => createCache<any, Key>({ size: "4mb", ...options }));
  opened.add(cache);
  return cache;
}

/** Checks that `run` throws a CacheError with this code, and with these texts in its message. */
function refused(run: () => unknown, code: string, ...texts: string[]): void {
  let found: unknown;
  try {
    found = run();
  } catch (error) {
    expect(error).toMatchObject({ name: "CacheError", code });
    for (const text of texts) expect((error as Error).message).toContain(text);
    return;
  }
  throw new Error(`nothing was thrown, but returned: ${String(found)}`);
}

/** The deepest namespace, with the longest names. Its prefix has the greatest possible length. */
function deepest(cache: Cache<any, Key>): Cache<any, Key> {
  const names = [..."abcdefghijklmno", "p".repeat(206)];
  return names.reduce((view, name) => view.namespace(name), cache);
}

// ---- keys ----------------------------------------------------------------------------------------------------------

/** Operations that read or remove, and what each returns for a key that no entry has. */
const MISSES: Record<string, [(cache: Cache<any, Key>, key: Key) => unknown, unknown]> = {
  get: [(cache, key) => cache.get(key), undefined],
  has: [(cache, key) => cache.has(key), false],
  delete: [(cache, key) => cache.delete(key), false],
  compareAndDelete: [(cache, key) => cache.compareAndDelete(key, 1), false],
  deleteMany: [(cache, key) => cache.deleteMany([key, "absent", key]), 0],
  // Nobody ever stores the key, so nobody is called.
  watch: [
    (cache, key) => cache.watch([key, "there"], () => expect.unreachable("a change"))[Symbol.dispose](),
    undefined,
  ],
  take: [(cache, key) => cache.take(key), undefined],
  ttl: [(cache, key) => cache.ttl(key), undefined],
  touch: [(cache, key) => cache.touch(key, 1000), false],
  getEntry: [(cache, key) => cache.getEntry(key), undefined],
  getStale: [(cache, key) => cache.getStale(key), undefined],
  expire: [(cache, key) => cache.expire(key), false],
  getMany: [(cache, key) => cache.getMany([key, "there", key]), [undefined, "whole", undefined]],
  getManyEntries: [
    (cache, key) => cache.getManyEntries([key, "there", key]).map((entry) => entry?.value),
    [undefined, "whole", undefined],
  ],
  hasMany: [(cache, key) => cache.hasMany([key, "there", key]), [false, true, false]],
  trySet: [(cache, key) => cache.trySet(key, "new"), false],
  "leased get": [(cache, key) => cache.leased({ until: Infinity }).get(key), undefined],
  "leased get without a lease": [(cache, key) => cache.leased({ until: 0 }).get(key), undefined],
};
/** Operations that store. Each is refused for a key that is too long. */
const STORES: Record<string, (cache: Cache<any, Key>, key: Key) => unknown> = {
  set: (cache, key) => cache.set(key, "new"),
  add: (cache, key) => cache.add(key, "new"),
  replace: (cache, key) => cache.replace(key, "new"),
  compareAndSet: (cache, key) => cache.compareAndSet(key, 0, "new"),
  getOrInsert: (cache, key) => cache.getOrInsert(key, "new"),
  getOrInsertComputed: (cache, key) =>
    cache.getOrInsertComputed(key, () => expect.unreachable("no entry has this key")),
  update: (cache, key) => cache.update(key, () => expect.unreachable("there is no entry to update")),
  setMany: (cache, key) => cache.setMany([[key, "new"]]),
  "set of what has expired": (cache, key) => cache.set(key, "new", { expiresAt: 1 }),
  "set that keeps": (cache, key) => cache.set(key, "new", { keepTtl: true, keepTags: true }),
  "replace that keeps": (cache, key) => cache.replace(key, "new", { keepTtl: true }),
  increment: (cache, key) => cache.increment(key),
  decrement: (cache, key) => cache.decrement(key),
  incrementEntry: (cache, key) => cache.incrementEntry(key),
  rateLimit: (cache, key) => cache.rateLimit(key, { limit: 1, window: 1000 }),
};
/** Members of a cache that take no key, and those that answer by a promise, which have tests of their own. */
const OTHERS = [
  ..."getOrSet getOrSetMany memoize".split(" "),
  ..."watchTag locks waitFor helped".split(" "),
  ..."constructor reach name destroyed handle invalidateTag namespace clear size keys values entries forEach".split(
    " ",
  ),
  ..."stats census".split(" "),
  ..."inspect close validate toJSON expireTag tagInvalidatedAt encode decode leased".split(" "),
];

const places: [string, (cache: Cache<any, Key>) => Cache<any, Key>][] = [
  ["the cache", (cache) => cache],
  ["a namespace", (cache) => cache.namespace("users")],
  ["the deepest namespace", deepest],
];
const nearCaches: [string, Parameters<typeof createCache>[0]][] = [
  ["with a near cache", {}],
  ["without a near cache", { nearCache: 0 }],
];

test("every member of a cache that takes a key is in the lists of this file", () => {
  const covered = new Set([...Object.keys(MISSES), ...Object.keys(STORES), ...OTHERS]);
  const members = Object.getOwnPropertyNames(Object.getPrototypeOf(create()));
  expect(members.filter((name) => !covered.has(name))).toEqual([]);
});

test.each(["get", "leased", "has", "delete", "ttl", "touch", "getEntry", "set", "add"])(
  "%s refuses a key of a wrong type also after it was compiled, in a process that goes on",
  { timeout: 240_000 },
  (name) => {
    const script = fileURLToPath(new URL("wrong-keys.mjs", import.meta.url));
    for (const scope of ["cache", "namespace"]) {
      for (const nearCache of ["0", "1000"]) {
        const answer = execFileSync(process.execPath, [script, name, scope, nearCache], { encoding: "utf8" });
        expect([scope, nearCache, answer.trim()]).toEqual([scope, nearCache, "all refused"]);
      }
    }
  },
);

describe.each(places)("keys in %s", (_, placed) => {
  test.each(nearCaches)(
    "keys that are too long are misses for reads and removals, and refused by stores, %s",
    (_, options) => {
      const cache = create(options);
      const view = placed(cache);
      view.set("there", "whole");
      for (const [what, key] of LONG) {
        for (let i = 0; i < 3; i++) {
          for (const [name, [use, expected]] of Object.entries(MISSES)) {
            expect(use(view, key), `${name}, ${what}`).toEqual(expected);
          }
          for (const [name, use] of Object.entries(STORES)) {
            expect(
              () => refused(() => use(view, key), "ERR_TOO_LARGE", "4096", "hash"),
              `${name}, ${what}`,
            ).not.toThrow();
          }
        }
      }
      expect([[...view], view.size, cache.validate()]).toEqual([[["there", "whole"]], 1, 0]);
    },
  );

  test.each(nearCaches)("unusual keys work like all others, %s", (_, options) => {
    const cache = create(options);
    const view = placed(cache);
    for (const [i, [what, key]] of ODD.entries()) {
      expect(view.get(key), what).toBeUndefined();
      view.set(key, i, { tags: [what], ttl: 60_000 });
    }
    expect(view.size).toBe(ODD.length);
    const found = new Map([...view].map(([key, value]) => [value, key]));
    for (const [i, [what, key]] of ODD.entries()) {
      expect(typeof key === "string" ? found.get(i) : [...(found.get(i) as Uint8Array)], what).toEqual(
        typeof key === "string" ? key : [...key],
      );
      for (let reads = 0; reads < 4; reads++) expect(view.get(key), what).toBe(i);
      expect(view.getEntry(key), what).toMatchObject({ value: i, tags: [what] });
      expect([view.has(key), view.ttl(key) !== undefined, view.touch(key, 60_000)], what).toEqual([true, true, true]);
      expect([view.increment(key), view.update(key, (n) => n + 1), view.take(key)], what).toEqual([
        i + 1,
        i + 2,
        i + 2,
      ]);
      expect([view.get(key), view.delete(key)], what).toEqual([undefined, false]);
    }
    expect([view.size, cache.size, cache.validate()]).toEqual([0, 0, 0]);
  });

  test.each(nearCaches)(
    "half of a surrogate pair as a prefix finds only keys that go on with another half, %s",
    (_, options) => {
      const cache = placed(create(options));
      // In UTF-8 the first two of their four bytes are the same, and in UTF-16 the first halves are not.
      const [grin, spiral] = ["\u{1f600} grin", "\u{1f300} spiral"];
      for (const key of [grin, spiral]) cache.set(key, 1);
      expect([...cache.keys({ prefix: grin.slice(0, 1) })]).toEqual([grin]);
      expect([...cache.keys({ prefix: spiral.slice(0, 1) })]).toEqual([spiral]);
    },
  );

  test.each(nearCaches)("a value that was read among many goes with its tags, %s", (_, options) => {
    const cache = placed(create(options));
    const keys = Array.from({ length: 40 }, (_, i) => `key ${i}`);
    for (const key of keys) cache.set(key, key, { tags: ["all", key] });
    for (let i = 0; i < 3; i++) expect(cache.getMany(keys)).toEqual(keys);
    cache.invalidateTag("key 7");
    expect([cache.get("key 7"), cache.get("key 8")]).toEqual([undefined, "key 8"]);
    cache.invalidateTag("all");
    expect(keys.map((key) => cache.get(key))).toEqual(keys.map(() => undefined));
    expect(cache.getMany(keys)).toEqual(keys.map(() => undefined));
  });

  test("keys and tags have the same limits in every namespace", () => {
    const cache = create();
    const view = placed(cache);
    const key = "k".repeat(4096);
    const tags = Array.from({ length: 16 }, (_, i) => `${i}`.padStart(256, "→".repeat(85)).slice(-86));
    expect(Buffer.byteLength(tags[0] as string)).toBe(256);
    for (const value of ["small", Buffer.alloc(300_000, 1)]) {
      view.set(key, value, { tags });
      expect(view.getEntry(key)).toMatchObject({ value, tags });
      expect(view.getEntry(key)?.tags).toEqual(tags);
      for (const tag of tags) {
        view.set(key, value, { tags });
        view.invalidateTag(tag);
        expect(view.has(key), tag).toBe(false);
      }
    }
    const options = [{ tags: Array.from({ length: 129 }, (_, i) => `${i}`) }, { tags: ["t".repeat(257)] }];
    for (const each of options) expect(() => view.set(key, 1, each)).toThrow(RangeError);
    expect(cache.validate()).toBe(0);
  });
});

test("waiting for a key that is too long ends by its timeout or its signal, as for any key that nobody stores", async () => {
  for (const [what, key] of LONG) {
    const cache = create();
    await expect(cache.waitFor(key, { timeout: 1 }), what).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(cache.waitFor(key, { signal }), what).rejects.toThrow("enough");
  }
});

test("getOrSet of a key that is too long is rejected, and calls no loader", async () => {
  let loads = 0;
  const load = (): number => ++loads;
  for (const [what, key] of LONG) {
    const cache = create();
    const error = { code: "ERR_TOO_LARGE", message: expect.stringMatching(/4096.*hash/s) };
    await expect(cache.getOrSet(key, load), what).rejects.toMatchObject(error);
    await expect(cache.getOrSet(key, load, { fresh: true, grace: 5 }), what).rejects.toMatchObject(error);
    await expect(
      cache.getOrSetMany(["short", key], () => [load(), load()]),
      what,
    ).rejects.toMatchObject(error);
    await expect(cache.memoize(load, { key: () => key })(), what).rejects.toMatchObject(error);
  }
  // Only the short key was loaded.
  expect(loads).toBeLessThanOrEqual(2 * LONG.length);
});

test("invalidating a tag of a namespace does not reach other namespaces, even if the tag has the greatest length", () => {
  const isolated = (): boolean => {
    const cache = create();
    const views = [cache, cache.namespace("a"), cache.namespace("a").namespace("b"), deepest(cache)];
    const present = () => views.map((each) => each.has("key")).join();
    for (const tag of ["t", "t".repeat(256)]) {
      for (const view of views) view.set("key", 1, { tags: [tag] });
      for (const [i, view] of views.entries()) {
        view.invalidateTag(tag);
        expect(view.has("key")).toBe(false);
        if (present() !== views.map((_, j) => j > i).join()) return false;
      }
    }
    for (const view of views) view.set("key", 1);
    cache.namespace("a").clear();
    return present() === "true,false,false,false";
  };
  // Two of the tags share a counter in one of about 13 caches, each of which has a secret of its own.
  expect(Array.from({ length: 8 }, isolated).filter(Boolean).length).toBeGreaterThan(2);
});

test("a namespace at the limits can be used, and one beyond them is refused", () => {
  const cache = create();
  expect(() => deepest(cache).namespace("q")).toThrow("16 deep");
  expect(cache.namespace("n".repeat(251)).set("k", 1).get("k")).toBe(1);
  expect(() => cache.namespace("n".repeat(252))).toThrow("255 bytes");
});

test("tags with unusual characters come back unchanged, and a tag that begins with U+FEFF is not the tag without it", () => {
  const cache = create();
  const odd = ["\ufeff", "\ufefftag", "tag\ufeff", "\0", "%00", "__proto__", "👩‍🚀", " ", "\u2028"];
  for (const view of [cache, cache.namespace("n")]) {
    view.set("k", 1, { tags: odd });
    expect(view.getEntry("k")?.tags).toEqual(odd);
    cache.set("plain", 1, { tags: ["tag"] });
    view.invalidateTag("\ufefftag");
    expect([view.has("k"), cache.has("plain")]).toEqual([false, true]);
  }
});

// ---- classes of objects --------------------------------------------------------------------------------------------------

/** For each class that comes back as such: code that makes an object of it, in any realm. */
const CLASSES: Record<string, string> = {
  Map: 'new Map([["a", 1], ["b", new Map()]])',
  Set: 'new Set([1, "a"])',
  Date: "new Date(5)",
  RegExp: "/a(b)?/g",
  Number: "Object(5)",
  String: 'Object("text")',
  Boolean: "Object(false)",
  BigInt: "Object(5n)",
  ArrayBuffer: "new Uint8Array([1, 2]).buffer",
  DataView: "new DataView(new ArrayBuffer(3))",
  Uint8Array: "new Uint8Array([1, 2])",
  Float64Array: "Float64Array.of(1.5)",
  BigInt64Array: "BigInt64Array.of(5n)",
  TypeError: 'new TypeError("wrong")',
  AggregateError: 'new AggregateError([new Error("inner")], "several")',
  URL: 'new URL("http://localhost/a")',
  URLSearchParams: 'new URLSearchParams("a=1")',
};
/** Classes that a new realm of `node:vm` lacks. */
const NOT_OF_THE_LANGUAGE = ["URL", "URLSearchParams"];
const make = (name: string): object => runInThisContext(CLASSES[name] as string) as object;

/** Stores a value alone and within others, and returns what was read. */
function roundTrips(value: unknown): unknown[] {
  const cache = create({ nearCache: 0 });
  const found = [
    cache.set("k", value).get("k"),
    (cache.set("k", { value }).get("k") as { value: unknown }).value,
    (cache.set("k", [1, value]).get("k") as unknown[])[1],
    (cache.set("k", new Map([["a", value]])).get("k") as Map<string, unknown>).get("a"),
  ];
  cache.close();
  return found;
}

/** Checks that the value comes back as an object of the class `name`, equal to the one of {@link CLASSES}. */
function isKept(value: unknown, name: string): void {
  const original = make(name);
  for (const found of roundTrips(value)) {
    expect(Object.getPrototypeOf(found), name).toBe(Object.getPrototypeOf(original));
    if (original instanceof Error) expect(String(found)).toBe(String(original));
    else deepStrictEqual(found, original);
  }
}

/** Names that an object may claim to have. */
const LIES = [
  ...Object.keys(CLASSES),
  "Array",
  "Object",
  "Error",
  "Promise",
  "Arguments",
  "Temporal.Instant",
  "x".repeat(99),
];

describe.each(Object.keys(CLASSES))("class %s", (name) => {
  test("an object of a built-in class comes back as an object of that class", () => isKept(make(name), name));

  test("an object that claims another name, or is of a subclass, comes back as what it is", () => {
    for (const lie of LIES) {
      isKept(Object.defineProperty(make(name), Symbol.toStringTag, { value: lie, configurable: true }), name);
      const original = make(name);
      class Own {}
      Object.setPrototypeOf(Own.prototype, Object.getPrototypeOf(original) as object);
      Object.defineProperty(Own.prototype, Symbol.toStringTag, { value: lie });
      // The methods of the subclass lie as well.
      for (const method of ["valueOf", "toString", "toISOString", "entries", "values", "size", "source", "flags"]) {
        if (!(original instanceof Error)) Object.defineProperty(Own.prototype, method, { get: () => () => "a lie" });
      }
      isKept(Object.setPrototypeOf(original, Own.prototype), name);
    }
  });

  test("an object comes back as what it is if its prototype or the object itself has a toJSON", () => {
    const prototype = Object.getPrototypeOf(make(name)) as { toJSON?: unknown };
    const before = Object.getOwnPropertyDescriptor(prototype, "toJSON");
    Object.defineProperty(prototype, "toJSON", { value: () => "JSON", configurable: true, writable: true });
    try {
      isKept(make(name), name);
    } finally {
      delete prototype.toJSON;
      if (before !== undefined) Object.defineProperty(prototype, "toJSON", before);
    }
    const own = make(name);
    Object.defineProperty(own, "toJSON", { value: () => "JSON" });
    isKept(own, name);
  });

  test.skipIf(NOT_OF_THE_LANGUAGE.includes(name))(
    "an object of another realm comes back as an object of this realm",
    () => {
      isKept(runInNewContext(CLASSES[name] as string), name);
    },
  );

  test("an object that only claims the name or has the prototype comes back as a plain object", () => {
    for (const fake of [
      { a: 1, [Symbol.toStringTag]: name },
      new (class {
        a = 1;
        readonly [Symbol.toStringTag] = name;
      })(),
      Object.assign(Object.create({ [Symbol.toStringTag]: name }), { a: 1 }),
      Object.assign(Object.create(null), { a: 1, [Symbol.toStringTag]: name }),
      runInNewContext(`({ a: 1, [Symbol.toStringTag]: "${name}" })`),
      // An object with the prototype of an error counts as an error. The toJSON of Date and URL throws for other objects.
      /Error|Date|URL$/.test(name)
        ? { a: 1 }
        : Object.assign(Object.create(Object.getPrototypeOf(make(name))), { a: 1 }),
    ]) {
      for (const found of roundTrips(fake)) expect({ ...(found as object) }).toEqual({ a: 1 });
    }
  });

  test("an object comes back as what it is if Object.prototype has additional properties", () => {
    const prototype = Object.prototype as unknown as Record<string, unknown>;
    // Without the names of descriptors (such as `value`): with these on it, nobody could define a property any more.
    const names = ["a", "b", "kind", "cause", "errors", "base", "polluted"];
    try {
      for (const each of names) Object.defineProperty(prototype, each, { get: () => 666, configurable: true });
      const found = roundTrips(make(name));
      for (const each of names) delete prototype[each];
      for (const one of found) {
        if (one instanceof Error) expect(String(one)).toBe(String(make(name)));
        else deepStrictEqual(one, make(name));
      }
    } finally {
      for (const each of names) delete prototype[each];
    }
  });
});

test("a decoded value has all its properties if Object.prototype has setters or constants of the same names", () => {
  const cache = create({ nearCache: 0 });
  const value = { setter: 1, constant: [2n], toString: new Date(0) };
  const prototype = Object.prototype as unknown as Record<string, unknown>;
  Object.defineProperty(prototype, "setter", { set: () => {}, configurable: true });
  Object.defineProperty(prototype, "constant", { value: 0, writable: false, configurable: true });
  try {
    for (const each of [value, { json: { setter: 1, constant: 2 } }]) {
      const found = cache.set("k", each).get("k");
      expect(JSON.stringify(Object.entries(found), (_, item) => (typeof item === "bigint" ? `${item}n` : item))).toBe(
        JSON.stringify(Object.entries(each), (_, item) => (typeof item === "bigint" ? `${item}n` : item)),
      );
    }
  } finally {
    delete prototype.setter;
    delete prototype.constant;
  }
});

// ---- errors --------------------------------------------------------------------------------------------------------

describe("errors", () => {
  const kept = <E extends Error>(error: E): E => {
    const [alone] = roundTrips(error) as [E];
    return alone;
  };

  test("an error with a toJSON comes back as an error, with the properties that toJSON returns", () => {
    // Like the errors of axios, whose own properties hold functions and sockets.
    class AxiosError extends Error {
      override readonly name = "AxiosError";
      code = "ERR_BAD_REQUEST";
      config = { transformRequest: [() => 1] };
      request = { on() {} };
      toJSON(): object {
        const { message, name, code, stack } = this;
        return { message, name, description: undefined, stack, config: { url: "/a" }, code, status: 404 };
      }
    }
    const original = new AxiosError("Request failed with status code 404");
    for (const found of roundTrips(original) as AxiosError[]) {
      expect(found).toBeInstanceOf(Error);
      expect([found.name, found.message, found.stack]).toEqual(["AxiosError", original.message, original.stack]);
      expect({ ...found }).toEqual({
        description: undefined,
        config: { url: "/a" },
        code: "ERR_BAD_REQUEST",
        status: 404,
      });
    }
    const text = kept(Object.assign(new RangeError("far"), { toJSON: undefined, distance: 5 }));
    expect([text instanceof RangeError, text.message, text.distance]).toEqual([true, "far", 5]);
    class Short extends TypeError {
      detail = 1;
      toJSON(): string {
        return "short";
      }
    }
    const short = kept(new Short("long"));
    expect([short instanceof TypeError, short.message, short.detail]).toEqual([true, "long", 1]);
  });

  test("an error of a subclass comes back in the nearest class that every runtime has, with its name", () => {
    class HttpError extends RangeError {
      override readonly name = "HttpError";
      readonly status = 404;
    }
    class NotFound extends HttpError {}
    const found = kept(new NotFound("no such page", { cause: new HttpError("inner") }));
    expect(found).toBeInstanceOf(RangeError);
    expect([found.name, found.status, Object.keys(found)]).toEqual(["HttpError", 404, ["status"]]);
    expect(found.cause).toBeInstanceOf(RangeError);
    expect(String(found)).toBe("HttpError: no such page");
  });

  test("an error comes back with the same enumerable properties", () => {
    const found = kept(Object.assign(new Error("several"), { errors: [1], cause: { a: 1 }, kind: "kind", "\0": [1] }));
    expect(Object.entries(found).sort()).toEqual([
      ["\0", [1]],
      ["cause", { a: 1 }],
      ["errors", [1]],
      ["kind", "kind"],
    ]);
    expect(Object.keys(kept(new AggregateError([1], "m", { cause: 2 })))).toEqual([]);
    const names = Object.getOwnPropertyNames(kept(new Error()));
    expect(names.sort()).toEqual(["stack"]);
  });

  test("a DOMException comes back as a DOMException, with its name, message and code", () => {
    const found = kept(new DOMException("gone", "AbortError"));
    expect(found).toBeInstanceOf(DOMException);
    expect([found.name, found.message, found.code]).toEqual(["AbortError", "gone", DOMException.ABORT_ERR]);
  });

  const { SuppressedError } = globalThis as unknown as { SuppressedError?: new (...args: unknown[]) => Error };
  test.skipIf(SuppressedError === undefined)("a SuppressedError comes back with both of its errors", () => {
    const Suppressed = SuppressedError as NonNullable<typeof SuppressedError>;
    const found = kept(new Suppressed(new Error("a"), new RangeError("b"), "both")) as Error & Record<string, Error>;
    expect(found).toBeInstanceOf(Suppressed);
    expect([found.error?.message, found.suppressed?.message]).toEqual(["a", "b"]);
  });
});

// ---- what is refused, and what is not kept -------------------------------------------------------------------------

describe("promises and thenables", () => {
  class Query {
    table = "users";
    // biome-ignore lint/suspicious/noThenProperty: that is what is refused
    then(): void {}
    toJSON(): string {
      return "a query";
    }
  }
  // biome-ignore lint/suspicious/noThenProperty: that is what is refused
  const plain = { then() {} };
  const promises = [
    Promise.resolve(1),
    runInNewContext("Promise.resolve(1)"),
    new Query(),
    plain,
    new (class extends Promise<void> {})(() => {}),
  ];
  test.each([
    ["without a codec", undefined],
    ["with a codec", { encode: () => new Uint8Array(1), decode: () => 1 } satisfies Codec],
  ])("promises and thenables are refused %s, and the message says to await them", (_, codec) => {
    const cache = create(codec && { codec });
    for (const value of promises) {
      expect(() => cache.set("k", value)).toThrow(TypeError);
      expect(() => cache.set("k", value)).toThrow("Await it");
      if (codec === undefined)
        refused(() => cache.set("k", { list: [value] }), "ERR_DATA", "value.list[0]", "Await it");
    }
    expect(cache.size).toBe(0);
    // biome-ignore lint/suspicious/noThenProperty: data may have it
    expect(create().set("k", { then: 5 }).get("k")).toEqual({ then: 5 });
  });
});

test("the properties that the guide names as not kept are not kept", () => {
  const cache = create();
  const match = /(?<year>\d+)/.exec("in 2027") as RegExpExecArray;
  const found = cache.set("k", match).get("k");
  expect([[...found], found.index, found.input, found.groups]).toEqual([
    ["2027", "2027"],
    undefined,
    undefined,
    undefined,
  ]);
  class Account {
    owner = "Ada";
    #balance = 5;
    get balance(): number {
      return this.#balance;
    }
  }
  expect(cache.set("k", new Account()).get("k")).toStrictEqual({ owner: "Ada" });
  expect(Reflect.ownKeys(cache.set("k", { a: 1, [Symbol("s")]: 2 }).get("k"))).toEqual(["a"]);
  const expression = /a/g;
  expression.test("aa");
  expect(cache.set("k", expression).get("k").lastIndex).toBe(0);
});

test("a regular expression with the flag g or y can be used by each reader of frozen objects", () => {
  const cache = create({ frozenObjects: true });
  for (const flags of ["g", "y", "gy", "", "i"]) {
    const expression = new RegExp("a", flags);
    cache.set("k", { list: [{ expression }] }).set("alone", expression);
    for (let reads = 0; reads < 5; reads++) {
      for (const found of [cache.get("k").list[0].expression as RegExp, cache.get("alone") as RegExp]) {
        const expected = [..."aab"].map(() => expression.exec("aab")?.index);
        expect([..."aab"].map(() => found.exec("aab")?.index)).toEqual(expected);
        expression.lastIndex = 0;
        if (/[gy]/.test(flags)) found.lastIndex = 1;
      }
    }
  }
  // A codec of the user can return objects of another realm. They are frozen as well.
  const foreign = { encode: () => new Uint8Array(1), decode: () => runInNewContext("new Map([[1, { a: 1 }]])") };
  const coded = create({ frozenObjects: true, codec: foreign }).set("k", {});
  expect(() => coded.get("k").set(1, 2)).toThrow("frozen");
  expect(Object.isFrozen(coded.get("k").get(1))).toBe(true);
});

// ---- JSON of clients -----------------------------------------------------------------------------------------------

test("any JSON that a client sends is stored and comes back, or is refused with ERR_DATA", () => {
  const cache = create({ nearCache: 0 });
  const key = fc.oneof(fc.string(), fc.constantFrom("__proto__", "constructor", "toJSON", "then", "length", "\0", "0"));
  const leaf = fc.oneof(fc.string({ unit: "binary" }), fc.double(), fc.boolean(), fc.constant(null));
  const { tree } = fc.letrec<{ tree: string }>((tie) => ({
    tree: fc.oneof(
      { depthSize: "small" },
      leaf.map((value) => JSON.stringify(value)),
      fc.array(tie("tree"), { maxLength: 4 }).map((items) => `[${items.join()}]`),
      fc
        .array(fc.tuple(key, tie("tree")), { maxLength: 4 })
        .map((entries) => `{${entries.map(([name, text]) => `${JSON.stringify(name)}:${text}`).join()}}`),
    ),
  }));
  let refusals = 0;
  fc.assert(
    fc.property(tree, fc.nat(700), (text, levels) => {
      const value: unknown = JSON.parse(`${'{"a":['.repeat(levels / 2)}${text}${"]}".repeat(levels / 2)}`);
      const isNamed = JSON.stringify(value).includes('"__proto__":');
      try {
        cache.set("k", value);
      } catch (error) {
        expect(error).toMatchObject({ name: "CacheError", code: "ERR_DATA" });
        expect(isNamed || levels > 400).toBe(true);
        refusals++;
        return;
      }
      expect(isNamed).toBe(false);
      deepStrictEqual(cache.get("k"), value);
    }),
    { numRuns: 1500 },
  );
  expect(refusals).toBeGreaterThan(100);
});

describe("levels of a value", () => {
  async function inWorker(cache: Cache, stackSizeMb: number, levels: number, what: string): Promise<unknown> {
    const file = new URL("outside-worker.mjs", import.meta.url);
    const worker = new Worker(file, {
      workerData: { handle: cache.handle, levels, what },
      resourceLimits: { stackSizeMb },
    });
    return new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
  }
  const all = (outcome: unknown) => Object.fromEntries(Object.keys(SHAPES).map((shape) => [shape, outcome]));
  const tooDeep = expect.stringMatching(/^CacheError ERR_DATA: value: more than 512 levels/);

  test("values of every shape with up to 512 levels are stored and read by threads with a stack of 1 MB and of 16 MB", {
    timeout: 120_000,
  }, async () => {
    const cache = create({ nearCache: 0 });
    const stacks = [1, 16];
    for (const stack of [undefined, ...stacks]) {
      const stored = stack === undefined ? store(cache, 512) : await inWorker(cache, stack, 512, "store");
      expect(stored).toEqual(all("done"));
      expect(read(cache, 512)).toEqual(all("done"));
      for (const reader of stacks) expect(await inWorker(cache, reader, 512, "read")).toEqual(all("done"));
      cache.clear();
    }
  });

  test("values of every shape with more than 512 levels are refused by threads with a stack of 1 MB and of 16 MB", {
    timeout: 120_000,
  }, async () => {
    const cache = create({ nearCache: 0 });
    for (const levels of [516, 1800, 6895]) {
      expect(store(cache, levels), `${levels}`).toEqual(all(tooDeep));
      for (const stack of [1, 16]) expect(await inWorker(cache, stack, levels, "store")).toEqual(all(tooDeep));
    }
    expect(cache.size).toBe(0);
  });

  test("levels within the key of a Map count, also for an object that is met there before it is met as a value", () => {
    const cache = create();
    const deep = nest("arrays", 300);
    expect(cache.set("k", new Map([[nest("objects", 300), deep]])).has("k")).toBe(true);
    let key: unknown = new Map([["the same", deep]]);
    for (let i = 0; i < 300; i++) key = [key];
    refused(() => cache.set("k", new Map([[key, deep]])), "ERR_DATA", "512 levels");
  });

  test("damaged JSON with more than 512 levels is refused, and walks skip its entry", () => {
    const cache = create({ nearCache: 0 });
    const region = memoryOf(cache);
    cache.set("other", "whole");
    for (const [what, text] of [
      ["JSON", `[${"[".repeat(600)}${"]".repeat(600)},"marker"]`],
      ["objects of JSON", `{"marker":${'{"a":'.repeat(600)}1${"}".repeat(600)}}`],
    ] as const) {
      // JSON of the same length, which is replaced in the memory.
      const harmless = `["marker${"x".repeat(text.length - 10)}"]`;
      expect(harmless.length).toBe(text.length);
      cache.set("k", JSON.parse(harmless));
      const at = region.indexOf(harmless);
      region.write(text, at, "latin1");
      refused(() => cache.get("k"), "ERR_DATA", "512 levels");
      expect([...cache], what).toEqual([["other", "whole"]]);
      cache.delete("k");
    }
  });
});

// ---- values that this participant cannot read --------------------------------------------------------------------------------------

/** The shared memory of a cache of reach `threads`. */
function memoryOf(cache: Cache): Buffer {
  const { memory, base } = cache.handle as CacheHandle & { memory: WebAssembly.Memory; base: number };
  return Buffer.from(memory.buffer, base);
}

describe("values that this participant cannot read", () => {
  /** Checks that reads of `k` are refused, that all other entries can be used, and that `k` can be replaced and removed. */
  function check(cache: Cache, ...texts: string[]): void {
    cache.set("before", 1).set("after", { whole: [2] });
    for (let i = 0; i < 3; i++) {
      refused(() => cache.get("k"), "ERR_DATA", ...texts);
      refused(() => cache.getEntry("k"), "ERR_DATA", ...texts);
      refused(() => cache.take("k"), "ERR_DATA", ...texts);
      refused(() => cache.update("k", () => expect.unreachable()), "ERR_DATA", ...texts);
      expect(cache.getMany(["before", "k", "after"])).toEqual([1, undefined, { whole: [2] }]);
      expect(new Map(cache)).toEqual(
        new Map<Key, unknown>([
          ["before", 1],
          ["after", { whole: [2] }],
        ]),
      );
      expect([...cache.values()]).toHaveLength(2);
      const seen: Key[] = [];
      cache.forEach((_, key) => void seen.push(key));
      expect(seen.sort()).toEqual(["after", "before"]);
      expect([[...cache.keys()].length, cache.size, cache.has("k"), cache.ttl("k")]).toEqual([3, 3, true, Infinity]);
      expect(cache.touch("k", Number.POSITIVE_INFINITY)).toBe(true);
    }
    expect(cache.set("k", "anew").get("k")).toBe("anew");
    expect([cache.delete("k"), cache.validate()]).toEqual([true, 0]);
  }
  const caches: [string, Parameters<typeof createCache>[0]][] = [
    ...nearCaches,
    ["with frozen objects", { frozenObjects: true }],
  ];

  test.each(caches)(
    "a value whose class this runtime lacks is refused and affects no other entry, %s",
    (_, options) => {
      class Instant {
        readonly #text: string;
        constructor(text: string) {
          this.#text = text;
        }
        static from(text: string): Instant {
          return new Instant(text);
        }
        toString(): string {
          return this.#text;
        }
        toJSON(): string {
          return "JSON";
        }
        get [Symbol.toStringTag](): string {
          return "Temporal.Instant";
        }
      }
      const world = globalThis as { Temporal?: unknown };
      const before = Object.getOwnPropertyDescriptor(world, "Temporal");
      const cache = create(options);
      try {
        Object.defineProperty(world, "Temporal", { value: { Instant }, configurable: true });
        cache.set("k", { at: new Instant("2027-01-31T00:00:00Z") });
        expect(String(cache.get("k").at)).toBe("2027-01-31T00:00:00Z");
        // Stored again, so that the near cache does not have it.
        cache.set("k", { at: new Instant("2027-01-31T00:00:00Z") });
        Object.defineProperty(world, "Temporal", { value: undefined, configurable: true });
        check(cache, "Instant");
        // Without the class nobody could read such an object. So it is stored as what its toJSON returns.
        expect(cache.set("k", [new Instant("x")]).get("k")).toEqual(["JSON"]);
      } finally {
        if (before === undefined) delete world.Temporal;
        else Object.defineProperty(world, "Temporal", before);
      }
    },
  );

  test.each(caches)(
    "a value with a newer syntax, an unknown class, or a property named __proto__ is refused and affects no other entry, %s",
    (_, options) => {
      const cache = create(options);
      const region = memoryOf(cache);
      for (const [value, from, to, ...texts] of [
        [{ match: /(?=marked)/ }, "(?=marked)", "(?^marked)", "Invalid regular expression"],
        [{ bytes: new Float32Array(2), marked: 1 }, '"Float32Array"', '"Float99Array"', "Float99Array"],
        // Both names have nine characters.
        [[{ __marked_: 1 }], '"__marked_"', '"__proto__"', "__proto__"],
      ] as [unknown, string, string, string][]) {
        cache.set("k", value);
        const at = region.indexOf(from);
        expect(at).toBeGreaterThan(0);
        region.write(to, at, "latin1");
        check(cache, ...texts);
        region.fill(0x20, at, at + from.length);
      }
    },
  );

  test.each(caches)(
    "reading a value that the codec fails to decode fails with ERR_DATA, with the error of the codec as its cause, %s",
    (_, options) => {
      const cause = new SyntaxError("not mine");
      const codec: Codec = {
        encode: () => Buffer.from("bytes"),
        decode() {
          throw cause;
        },
      };
      const cache = create({ ...options, codec });
      cache.set("k", { a: 1 });
      try {
        cache.get("k");
        expect.unreachable();
      } catch (error) {
        expect(error).toMatchObject({ name: "CacheError", code: "ERR_DATA", cause });
        expect((error as Error).message).toContain("codec.decode says: not mine");
      }
      expect([cache.getMany(["k"]), [...cache]]).toEqual([[undefined], []]);
      expect(cache.delete("k")).toBe(true);
    },
  );
});

// ---- time ----------------------------------------------------------------------------------------------------------

describe("time", () => {
  test("a bigint is stored and read in time in proportion to its length", () => {
    const cache = create({ size: "64mb", nearCache: 0 });
    // It has four million decimal digits. As decimal text it would take seconds.
    const large = (1n << 13_300_000n) - 12345n;
    const from = performance.now();
    for (const value of [large, -large, [large], new Map([[large, -large]]), Object(large)]) {
      deepStrictEqual(cache.set("k", value).get("k"), value);
    }
    // Twenty conversions. As decimal text they would take a minute.
    expect(performance.now() - from).toBeLessThan(10_000);
    for (const value of [0n, -0n, 1n, -1n, 255n, -256n, 2n ** 64n, -(2n ** 64n)]) {
      expect(cache.set("k", value).get("k")).toBe(value);
      expect(cache.set("k", { value }).get("k")).toEqual({ value });
    }
  });
});
