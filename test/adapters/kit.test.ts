/**
 * Tests the kit of checks (cache-machine/testing): good stores pass, and each fault of a broken store is caught by the check that
 * names it, and by no check that has nothing to do with it.
 */

import { attachCache, type Cache, type CacheOptions, createCache } from "cache-machine";
import {
  type Check,
  type ConformancePart,
  conformance,
  type Store,
  type StoreMember,
  type StoreSubject,
  storeChecks,
} from "cache-machine/testing";
import { afterAll, describe, expect, test } from "vitest";
import { compile } from "./compile.ts";

/** Runs checks one after the other. Returns the names of those that failed, with the messages. */
async function failures(checks: Check[]): Promise<Map<string, string>> {
  const failed = new Map<string, string>();
  for (const { name, run } of checks) {
    try {
      await run();
    } catch (error) {
      failed.set(name, String((error as Error).stack));
    }
  }
  return failed;
}

// ---- A store over a Map --------------------------------------------------------------------------------------------------------

interface Entry {
  value: unknown;
  expiresAt: number;
  tags: string[];
}

let now = 0;

/** A store over a Map that keeps all promises. The broken ones differ in one method each. */
class MapStore implements Required<Store> {
  readonly entries: Map<string, Entry>;
  readonly loads = new Map<string, Promise<unknown>>();
  readonly hits = new Map<string, { count: number; until: number }>();
  closed = false;

  constructor(entries: Map<string, Entry> = new Map()) {
    this.entries = entries;
  }

  keyOf(key: string): string {
    return key;
  }
  isOver({ expiresAt }: Entry): boolean {
    return expiresAt <= now;
  }
  peek(key: string): Entry | undefined {
    if (this.closed) throw new Error("the store is closed");
    const entry = this.entries.get(this.keyOf(key));
    return entry === undefined || this.isOver(entry) ? undefined : entry;
  }
  get(key: string): unknown {
    return structuredClone(this.peek(key)?.value);
  }
  set(key: string, value: unknown, { ttl = Infinity, tags = [] }: { ttl?: number; tags?: string[] } = {}): unknown {
    if (this.closed) throw new Error("the store is closed");
    if (typeof value === "string" && value.length > 100_000) return this.entries.delete(this.keyOf(key));
    return this.entries.set(this.keyOf(key), { value: structuredClone(value), expiresAt: now + ttl, tags });
  }
  delete(key: string): unknown {
    const there = this.peek(key) !== undefined;
    this.entries.delete(this.keyOf(key));
    return there;
  }
  has(key: string): unknown {
    return this.peek(key) !== undefined;
  }
  clear(): unknown {
    return this.entries.clear();
  }
  getMany(keys: string[]): unknown {
    return keys.map((key) => this.get(key));
  }
  setMany(entries: [string, unknown, number?][]): unknown {
    for (const [key, value, ttl] of entries) this.set(key, value, ttl === undefined ? {} : { ttl });
    return true;
  }
  deleteMany(keys: string[]): unknown {
    return keys.map((key) => this.delete(key));
  }
  *keys(): Iterable<string> {
    for (const [key, entry] of this.entries) if (!this.isOver(entry)) yield key;
  }
  invalidateTag(tag: string): unknown {
    for (const [key, { tags }] of this.entries) if (tags.includes(tag)) this.entries.delete(key);
    return true;
  }
  getOrSet(key: string, load: () => unknown, options: { ttl?: number } = {}): unknown {
    if (this.has(key)) return this.get(key);
    let loading = this.loads.get(key);
    if (loading === undefined) {
      loading = (async () => {
        try {
          await this.set(key, await load(), options);
        } finally {
          this.loads.delete(key);
        }
        return this.get(key);
      })();
      this.loads.set(key, loading);
    }
    return loading;
  }
  hit(key: string, limit: number, window: number): boolean {
    let hits = this.hits.get(key);
    if (hits === undefined || hits.until <= now) this.hits.set(key, (hits = { count: 0, until: now + window }));
    return ++hits.count <= limit;
  }
  close(): unknown {
    this.closed = true;
    return true;
  }
}

/** Names of the members, all of which every store here has. */
const MEMBERS: StoreMember[] = [
  "delete",
  "has",
  "clear",
  "getMany",
  "setMany",
  "deleteMany",
  "keys",
  "invalidateTag",
  "getOrSet",
  "hit",
  "close",
];

/** A subject over a class of stores. Each namespace is a Map of its own. */
function subjectOf(make: (entries?: Map<string, Entry>) => Store, more: Partial<StoreSubject> = {}): StoreSubject {
  const spaces = new Map<string, Map<string, Entry>>();
  return {
    open: ({ namespace } = {}) => {
      if (namespace === undefined) return make();
      const entries = spaces.get(namespace) ?? new Map<string, Entry>();
      spaces.set(namespace, entries);
      return make(entries);
    },
    absent: undefined,
    values: "structured",
    members: MEMBERS,
    namespaces: true,
    tooLarge: 200_000,
    advance: (ms) => {
      now += ms;
    },
    ...more,
  };
}

test("a store over a Map passes all checks, at once, with promises, and in real time", async () => {
  const checks = storeChecks(subjectOf((entries) => new MapStore(entries)));
  expect(checks.length).toBeGreaterThan(100);
  expect(new Set(checks.map(({ name }) => name)).size).toBe(checks.length);
  expect([...(await failures(checks))]).toEqual([]);

  const late = subjectOf((entries) => {
    const store = new MapStore(entries);
    const later =
      (member: keyof Store) =>
      async (...args: unknown[]) => {
        await null;
        return (store[member] as (...args: unknown[]) => unknown)(...args);
      };
    return Object.fromEntries((["get", "set", ...MEMBERS] as const).map((name) => [name, later(name)])) as never;
  });
  expect([...(await failures(storeChecks(late)))]).toEqual([]);

  const timer = setInterval(() => (now = Date.now()), 1);
  now = Date.now();
  const { advance: _, ...inRealTime } = subjectOf((entries) => new MapStore(entries));
  try {
    expect([...(await failures(storeChecks({ ...inRealTime, minTtl: 50 })))]).toEqual([]);
  } finally {
    clearInterval(timer);
  }
});

test("a check of a member that is missing is skipped, and fails when the subject says that the member is there", async () => {
  const twoMembers = (): Store => {
    const store = new MapStore();
    return { get: (key) => store.get(key), set: (key, value, options) => store.set(key, value, options) };
  };
  const advance = (ms: number): void => {
    now += ms;
  };
  const skipped: string[] = [];
  const context = { skip: (why: string) => skipped.push(why) };
  const checks = storeChecks({ open: twoMembers, advance });
  for (const { run } of checks) await run(context);
  expect(skipped).toContain("the store has no has");
  expect(skipped).toContain("the store has no keys, no delete");
  expect(checks.length - skipped.length).toBeGreaterThan(30);

  const strict = storeChecks({ open: twoMembers, advance, members: ["has"] });
  expect(strict.length).toBe(checks.length - skipped.length + 1);
  expect([...(await failures(strict)).keys()]).toEqual(["has says whether there is a value"]);
  expect(() => storeChecks({} as never)).toThrow(new TypeError("open: must be a function that opens the store"));
});

test("the types fit stores as people write them, and the functions of test runners", () => {
  compile("kit.types.ts");
});

// ---- Broken stores -------------------------------------------------------------------------------------------------------------

/** What the store does wrong, the methods that do it, and the beginnings of the names of the checks that fail. */
const FAULTS: [string, (new (entries?: Map<string, Entry>) => Store) | Partial<StoreSubject>, string[]][] = [
  [
    "keeps the object that it gets",
    class extends MapStore {
      override set(key: string, value: unknown, options: { ttl?: number; tags?: string[] } = {}) {
        super.set(key, value, options);
        if (typeof value === "object") Object.assign(this.entries.get(key) ?? {}, { value });
        return true;
      }
    },
    ["an object that is changed after it was stored"],
  ],
  [
    "returns the object that it keeps",
    class extends MapStore {
      override get(key: string) {
        return this.peek(key)?.value;
      }
    },
    ["an object that was returned and is changed"],
  ],
  [
    "forgets the time to live",
    class extends MapStore {
      override isOver() {
        return false;
      }
    },
    [
      "a value whose time to live is over",
      "a value that is stored again has the new time",
      "setMany gives each value its own",
      "getOrSet loads again",
    ],
  ],
  [
    "lets values expire too early",
    class extends MapStore {
      override isOver({ expiresAt }: Entry) {
        return expiresAt - 1_000 <= now;
      }
    },
    [
      "a value whose time to live is over",
      "a value that is stored again has the new time",
      "setMany gives each value its own",
      "getOrSet loads again",
    ],
  ],
  [
    "keeps the old time to live",
    class extends MapStore {
      override set(key: string, value: unknown, options: { ttl?: number; tags?: string[] } = {}) {
        const { expiresAt } = this.entries.get(key) ?? {};
        super.set(key, value, options);
        if (expiresAt !== undefined) Object.assign(this.entries.get(key) ?? {}, { expiresAt });
        return true;
      }
    },
    ["a value whose time to live is over", "a value that is stored again has the new time"],
  ],
  [
    "says that it has what has expired",
    class extends MapStore {
      override has(key: string) {
        return this.entries.has(key);
      }
      override getOrSet(key: string, load: () => unknown, options?: { ttl?: number }) {
        if (this.peek(key) === undefined) this.entries.delete(key);
        return super.getOrSet(key, load, options);
      }
    },
    ["a value whose time to live is over"],
  ],
  [
    "drops the times to live of setMany",
    class extends MapStore {
      override setMany(entries: [string, unknown, number?][]) {
        return super.setMany(entries.map(([key, value]) => [key, value]));
      }
    },
    ["setMany gives each value its own"],
  ],
  [
    "answers that there was a value whenever something is deleted",
    class extends MapStore {
      override delete(key: string) {
        super.delete(key);
        return true;
      }
    },
    ["delete removes one value"],
  ],
  [
    "clears nothing",
    class extends MapStore {
      override clear() {
        return true;
      }
    },
    ["clear removes all values", "clear in one namespace"],
  ],
  [
    "clears the namespaces of others",
    class extends MapStore {
      static readonly all: Map<string, Entry>[] = [];
      constructor(entries?: Map<string, Entry>) {
        super(entries);
        (this.constructor as unknown as { all: Map<string, Entry>[] }).all.push(this.entries);
      }
      override clear() {
        for (const entries of (this.constructor as unknown as { all: Map<string, Entry>[] }).all) entries.clear();
        return true;
      }
    },
    ["clear in one namespace"],
  ],
  [
    "puts namespace and key together with a separator",
    subjectOf(() => new MapStore(), {
      open: prefixed(
        (namespace, key) => `${namespace}:${key}`,
        (namespace) => `${namespace}:`,
      ),
    }),
    ["a key in one namespace is another key", "clear in one namespace"],
  ],
  [
    "clears every namespace that begins alike",
    subjectOf(() => new MapStore(), {
      open: prefixed(
        (namespace, key) => `${namespace}\0${key}`,
        (namespace) => namespace,
      ),
    }),
    ["clear in one namespace"],
  ],
  [
    "lists the keys of all namespaces",
    subjectOf(() => new MapStore(), {
      open: prefixed(
        (namespace, key) => `${namespace}\0${key}`,
        (namespace) => `${namespace}\0`,
        true,
      ),
    }),
    ["keys of one namespace"],
  ],
  [
    "cuts keys off",
    class extends MapStore {
      override keyOf(key: string) {
        return key.slice(0, 250);
      }
    },
    [
      "a key is a key, whatever it looks like: keys of 10,000 characters",
      "a key is a key, whatever it looks like: keys of 5,000",
    ],
  ],
  [
    "turns keys into UTF-8",
    class extends MapStore {
      override keyOf(key: string) {
        return Buffer.from(key).toString();
      }
    },
    ["a key is a key, whatever it looks like: lone surrogates"],
  ],
  [
    "ends keys at NUL",
    class extends MapStore {
      override keyOf(key: string) {
        return key.split("\0")[0] as string;
      }
    },
    ["a key is a key, whatever it looks like: NUL"],
  ],
  [
    "takes keys for the same that differ in case",
    class extends MapStore {
      override keyOf(key: string) {
        return key.toLowerCase();
      }
      override *keys() {
        yield* [];
      }
    },
    [
      "a key is a key, whatever it looks like: keys that differ in case",
      "keys lists every key once",
      "keys lists what stays",
      "a value whose time to live is over",
      "keys of one namespace",
    ],
  ],
  [
    "normalizes the keys",
    class extends MapStore {
      override keyOf(key: string) {
        return key.normalize();
      }
    },
    ["a key is a key, whatever it looks like: keys that differ in case, or in the form of an accent"],
  ],
  [
    "takes the empty key for none",
    class extends MapStore {
      override get(key: string) {
        return key ? super.get(key) : undefined;
      }
    },
    ["a key is a key, whatever it looks like: the empty key", "a key in one namespace"],
  ],
  [
    "keeps values in a plain object",
    class extends MapStore {
      readonly object: Record<string, unknown> = {};
      override get(key: string) {
        return this.peek(key) === undefined && key in this.object ? String(this.object[key]) : super.get(key);
      }
    },
    ["a key is a key, whatever it looks like: names of Object.prototype"],
  ],
  [
    "takes a key for a pattern",
    class extends MapStore {
      override delete(key: string) {
        if (!/^[a-z]?[*?]$/.test(key)) return super.delete(key);
        const begin = key.slice(0, -1);
        const found = [...this.entries.keys()].filter((each) => each.startsWith(begin));
        for (const each of found) this.entries.delete(each);
        return found.length > 0;
      }
    },
    ["a key is a key, whatever it looks like: separators and wildcards"],
  ],
  [
    "stores values as JSON",
    class extends MapStore {
      override set(key: string, value: unknown, options?: { ttl?: number; tags?: string[] }) {
        let text: string | undefined;
        try {
          text = JSON.stringify(value);
        } catch {
          text = "null";
        }
        return super.set(key, text === undefined ? undefined : JSON.parse(text), options);
      }
    },
    ["a value comes back as it was: structured,"],
  ],
  [
    "takes text that looks like JSON for JSON",
    class extends MapStore {
      override get(key: string) {
        const value = super.get(key);
        return typeof value === "string" && value.startsWith("{") ? JSON.parse(value) : value;
      }
    },
    ["a value comes back as it was: text that looks like JSON"],
  ],
  [
    "takes falsy values for none",
    class extends MapStore {
      override get(key: string) {
        return super.get(key) || undefined;
      }
    },
    [
      "a value comes back as it was: empty text",
      "a value comes back as it was: zero",
      "a value comes back as it was: false",
      "a value comes back as it was: null",
      "a value comes back as it was: structured,",
    ],
  ],
  [
    "fails for a value that is too large",
    class extends MapStore {
      override set(key: string, value: unknown, options?: { ttl?: number; tags?: string[] }) {
        if (typeof value === "string" && value.length > 100_000) throw new RangeError("too large");
        return super.set(key, value, options);
      }
    },
    ["a value that is too large is not stored", "in place of a value that is too large"],
  ],
  [
    "keeps the old value when the new one is too large",
    class extends MapStore {
      override set(key: string, value: unknown, options?: { ttl?: number; tags?: string[] }) {
        return typeof value === "string" && value.length > 100_000 ? true : super.set(key, value, options);
      }
    },
    ["in place of a value that is too large"],
  ],
  [
    "leaves absent keys out of getMany",
    class extends MapStore {
      override getMany(keys: string[]) {
        return keys.filter((key) => this.has(key)).map((key) => this.get(key));
      }
    },
    ["getMany returns the values in the order", "a value whose time to live is over"],
  ],
  [
    "stores only the first hundred of setMany",
    class extends MapStore {
      override setMany(entries: [string, unknown, number?][]) {
        return super.setMany(entries.slice(0, 100));
      }
    },
    ["setMany stores all"],
  ],
  [
    "takes deleteMany of no keys for clear",
    class extends MapStore {
      override deleteMany(keys: string[]) {
        return keys.length === 0 ? this.clear() : super.deleteMany(keys);
      }
    },
    ["deleteMany removes these"],
  ],
  [
    "lists deleted keys",
    class extends MapStore {
      readonly ever = new Set<string>();
      override set(key: string, value: unknown, options?: { ttl?: number; tags?: string[] }) {
        this.ever.add(key);
        return super.set(key, value, options);
      }
      override *keys() {
        yield* this.ever;
      }
    },
    ["keys lists every key once", "a value whose time to live is over"],
  ],
  [
    "skips keys when others are deleted during the iteration",
    class extends MapStore {
      override *keys() {
        for (let i = 0; i < this.entries.size; i++) {
          const [key, entry] = [...this.entries][i] as [string, Entry];
          if (!this.isOver(entry)) yield key;
        }
      }
    },
    ["keys lists what stays there"],
  ],
  [
    "takes a tag for the beginning of tags",
    class extends MapStore {
      override invalidateTag(tag: string) {
        for (const [key, { tags }] of this.entries)
          if (tags.some((each) => each.startsWith(tag))) this.entries.delete(key);
        return true;
      }
    },
    ["invalidateTag removes the values with this tag"],
  ],
  [
    "keeps the old tags",
    class extends MapStore {
      override set(key: string, value: unknown, options: { ttl?: number; tags?: string[] } = {}) {
        return super.set(key, value, {
          ...options,
          tags: [...(this.entries.get(key)?.tags ?? []), ...(options.tags ?? [])],
        });
      }
    },
    ["a value that is stored again has the new tags"],
  ],
  [
    "keeps 64 tags",
    class extends MapStore {
      override set(key: string, value: unknown, options: { ttl?: number; tags?: string[] } = {}) {
        return super.set(key, value, { ...options, tags: (options.tags ?? []).slice(0, 64) });
      }
    },
    ["a value may have 128 tags"],
  ],
  [
    "loads for each call",
    class extends MapStore {
      override getOrSet(key: string, load: () => unknown, options?: { ttl?: number }) {
        this.loads.clear();
        return super.getOrSet(key, load, options);
      }
    },
    ["30 calls of getOrSet"],
  ],
  [
    "loads always",
    class extends MapStore {
      override async getOrSet(key: string, load: () => unknown, options?: { ttl?: number }) {
        const value = await load();
        this.set(key, value, options);
        return value;
      }
    },
    ["getOrSet loads what is absent", "30 calls of getOrSet", "getOrSet loads again"],
  ],
  [
    "keeps the error of a load",
    class extends MapStore {
      readonly failed = new Map<string, Promise<never>>();
      override getOrSet(key: string, load: () => unknown, options?: { ttl?: number }) {
        const failed = this.failed.get(key);
        if (failed) return failed;
        const loading = super.getOrSet(key, load, options);
        if (loading instanceof Promise) loading.catch(() => this.failed.set(key, loading as Promise<never>));
        return loading;
      }
    },
    ["an error of a load reaches the caller"],
  ],
  [
    "swallows the error of a load",
    class extends MapStore {
      override async getOrSet(key: string, load: () => unknown, options?: { ttl?: number }) {
        try {
          return await super.getOrSet(key, load, options);
        } catch {
          return undefined;
        }
      }
    },
    ["an error of a load reaches the caller"],
  ],
  [
    "lets one more through than the limit",
    class extends MapStore {
      override hit(key: string, limit: number, window: number) {
        return super.hit(key, limit + 1, window);
      }
    },
    ["of requests at the same time", "when the window is over"],
  ],
  [
    "never ends a window",
    class extends MapStore {
      override hit(key: string, limit: number) {
        return super.hit(key, limit, Infinity);
      }
    },
    ["when the window is over"],
  ],
  [
    "stores later, and not in the order of the calls",
    class extends MapStore {
      count = 0;
      override async set(key: string, value: unknown, options?: { ttl?: number; tags?: string[] }) {
        for (let turns = 50 - (this.count++ % 50); turns > 0; turns--) await null;
        return super.set(key, value, options);
      }
      override async setMany(entries: [string, unknown, number?][]) {
        for (const [key, value, ttl] of entries) await this.set(key, value, ttl === undefined ? {} : { ttl });
      }
    },
    ["of stores for one key that do not wait"],
  ],
  [
    "mixes up calls at the same time",
    class extends MapStore {
      last = "";
      override async get(key: string) {
        this.last = key;
        await null;
        return super.get(this.last);
      }
      override getMany(keys: string[]) {
        return keys.map((key) => super.get(key));
      }
      override getOrSet(key: string, load: () => unknown, options?: { ttl?: number }) {
        return this.has(key) ? super.get(key) : super.getOrSet(key, load, options);
      }
    },
    ["calls at the same time do not disturb"],
  ],
  [
    "hangs after close",
    class extends MapStore {
      override get(key: string) {
        return this.closed ? new Promise(() => {}) : super.get(key);
      }
    },
    ["after close, a call"],
  ],
  [
    "closes all stores at once",
    class extends MapStore {
      static isOpen = true;
      constructor(entries?: Map<string, Entry>) {
        super(entries);
        (this.constructor as unknown as { isOpen: boolean }).isOpen = true;
      }
      override peek(key: string) {
        if (!(this.constructor as unknown as { isOpen: boolean }).isOpen) throw new Error("closed");
        return super.peek(key);
      }
      override close() {
        (this.constructor as unknown as { isOpen: boolean }).isOpen = false;
        return true;
      }
    },
    ["closing one store does not close another"],
  ],
];

/** Opens stores whose namespaces are beginnings of the keys of one Map. */
function prefixed(
  join: (namespace: string, key: string) => string,
  begin: (namespace: string) => string,
  listsAll = false,
): StoreSubject["open"] {
  const entries = new Map<string, Entry>();
  return ({ namespace } = {}) => {
    if (namespace === undefined) return new MapStore();
    return new (class extends MapStore {
      override keyOf(key: string) {
        return join(namespace, key);
      }
      override clear() {
        for (const key of this.entries.keys()) if (key.startsWith(begin(namespace))) this.entries.delete(key);
        return true;
      }
      override *keys() {
        for (const key of super.keys()) {
          const isOwn = key.startsWith(join(namespace, ""));
          if (isOwn) yield key.slice(join(namespace, "").length);
          else if (listsAll) yield key;
        }
      }
    })(entries);
  };
}

describe("a store is caught that", () => {
  test.each(FAULTS)("%s", async (_, fault, expected) => {
    const subject = typeof fault === "function" ? subjectOf((entries) => new fault(entries)) : fault;
    const failed = await failures(storeChecks({ ...(subject as StoreSubject), timeout: 1_000 }));
    const names = [...failed.keys()];
    for (const beginning of expected) expect(names.filter((name) => name.startsWith(beginning))).not.toEqual([]);
    expect(names.filter((name) => !expected.some((beginning) => name.startsWith(beginning)))).toEqual([]);
  });
});

// ---- A cache -------------------------------------------------------------------------------------------------------------------

const cache = createCache({ size: "4mb" });
afterAll(() => cache.close());

describe("a cache is a store that", () => {
  const open = ({ namespace }: { namespace?: string } = {}, options?: CacheOptions): Store => {
    const opened = attachCache(cache.handle, options);
    const part: Cache = namespace === undefined ? opened : opened.namespace(namespace);
    return {
      get: (key) => part.get(key),
      set: (key, value, options) => part.trySet(key, value, options),
      delete: (key) => part.delete(key),
      has: (key) => part.has(key),
      clear: () => part.clear(),
      getMany: (keys) => part.getMany(keys),
      setMany: (entries) =>
        part.setMany(entries.map(([key, value, ttl]) => [key, value, ttl === undefined ? {} : { ttl }])),
      deleteMany: (keys) => part.deleteMany(keys),
      keys: () => part.keys(),
      invalidateTag: (tag) => part.invalidateTag(tag),
      getOrSet: (key, load, options) => part.getOrSet(key, load, options),
      hit: (key, limit, window) => part.rateLimit(key, { limit, window }).allowed,
      close: () => opened.close(),
    };
  };
  const subject: StoreSubject = {
    open,
    absent: undefined,
    values: "structured",
    namespaces: true,
    members: MEMBERS,
    tooLarge: 1 << 20,
    // The limit is 4,096 bytes.
    validKey: (key) => key.length < 1_000,
  };

  describe("passes all checks in real time", () => {
    for (const { name, run } of storeChecks(subject)) test(name, run);
  });
  describe("passes all checks with a clock", () => {
    const advance = (ms: number): void => {
      now += ms;
    };
    const withClock = {
      ...subject,
      open: (where?: { namespace?: string }) => open(where, { now: () => now }),
      advance,
    };
    for (const { name, run } of storeChecks(withClock)) test(name, run);
  });
});

// ---- The contract of a cache ---------------------------------------------------------------------------------------------------

/** A cache that hands each call on to another, but for the methods that it has itself. */
function wrapped(inner: Cache<any, any>, methods: Partial<Cache<any, any>> = {}): Cache<any, any> {
  const outer: Cache<any, any> = new Proxy(inner, {
    get(_, name) {
      const own = methods[name as keyof Cache];
      if (typeof own === "function") return own.bind(inner as never);
      const value = Reflect.get(inner, name, inner);
      if (typeof value !== "function") return value;
      return (...args: unknown[]) => {
        if (name === "forEach") {
          const [call, receiver] = args as [(...args: unknown[]) => void, unknown];
          return inner.forEach((each, key) => void call.call(receiver, each, key, outer));
        }
        const result = value.apply(inner, args);
        return result === inner ? outer : result;
      };
    },
  });
  return outer;
}

/** The checks of these parts for a wrapper. */
function contract(only: ConformancePart[], methods?: Partial<Cache<any, any>>): Check[] {
  const subject = {
    reach: "threads" as const,
    largest: 1 << 19,
    open: (options?: CacheOptions) => wrapped(attachCache(cache.handle, options), methods),
  };
  return conformance(subject, { only });
}

describe("the contract of a cache", () => {
  test("has a part for each name, and all parts together are the whole", () => {
    const subject = { reach: "threads" as const, largest: 1 << 19, open: () => attachCache(cache.handle) };
    const names = conformance(subject).map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    expect(names.length).toBeGreaterThan(150);
    const without = conformance(subject, { without: ["locks", "model"] }).map(({ name }) => name);
    const only = conformance(subject, { only: ["locks", "model"] }).map(({ name }) => name);
    expect([...without, ...only].sort()).toEqual([...names].sort());
    expect(only.length).toBeGreaterThan(5);
    expect(() => conformance(subject, { without: ["lock" as never] })).toThrow(
      /^lock: is no part\. The parts are map, changes, .*, model$/,
    );
  });

  test("is kept by a wrapper of a cache", async () => {
    const parts: ConformancePart[] = [
      "map",
      "changes",
      "numbers",
      "limits",
      "time",
      "values",
      "loading",
      "locks",
      "model",
    ];
    expect([...(await failures(contract(parts)))]).toEqual([]);
  });

  const faults: [string, ConformancePart, Partial<Cache<any, any>>, string][] = [
    [
      "add stores over a value",
      "changes",
      {
        add(this: Cache, key, value, options) {
          this.set(key, value, options);
          return true;
        },
      },
      "add stores only if the key is absent",
    ],
    [
      "increment is lost when it creates the counter",
      "numbers",
      {
        increment(this: Cache, key, by, options) {
          return this.has(key) ? this.update(key, (sum) => sum + by) : this.update(key, () => options?.initial ?? by);
        },
      } as Partial<Cache<any, any>>,
      "increment and decrement count from initial",
    ],
    [
      "touch forgets to say that there is no entry",
      "time",
      {
        touch(this: Cache, key, ttl) {
          this.touch(key, ttl);
          return true;
        },
      },
      "touch changes the ttl and nothing else",
    ],
    [
      "a rate limit lets one more through",
      "limits",
      {
        rateLimit(this: Cache, key, options) {
          return this.rateLimit(key, { ...options, limit: options.limit + 1 });
        },
      },
      "a rate limit lets exactly `limit` requests through",
    ],
  ];
  test.each(faults)("is broken when %s", async (_, part, methods, expected) => {
    const failed = await failures(contract([part], methods));
    expect([...failed.keys()].filter((name) => name.startsWith(expected))).toHaveLength(1);
  });
});
