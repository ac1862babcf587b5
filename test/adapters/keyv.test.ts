/** The store for Keyv: with Keyv 5 and 6, with and without Keyv's serialization, and below cache-manager and cacheable. */

import fs from "node:fs";
import path from "node:path";
import { Cacheable } from "cacheable";
import { Keyv as Keyv5 } from "keyv";
import { Keyv as Keyv6 } from "keyv6";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { createKeyv, KeyvCacheMachine } from "../../dist/adapters/keyv.js";
import { type Cache, CacheError, createCache, destroyCache, openCache } from "../../dist/index.js";
import { acrossProcesses, type StoreMember, storeChecks } from "../../dist/testing/index.js";
import { execute, Projects, root } from "../package/projects.ts";
import { compile } from "./compile.ts";
import { KINDS, storeOf } from "./keyv-store.mjs";

const NAME = `t-${process.pid}-keyv`;
const shared = openCache(NAME, { size: "16mb" });
const projects = new Projects("keyv");
let count = 0;

afterAll(() => {
  shared.close();
  destroyCache(NAME);
  projects.remove();
});

const MEMBERS: StoreMember[] = ["delete", "has", "clear", "getMany", "setMany", "deleteMany", "keys"];
/** cache-manager has neither `has` nor an iterator, and cacheable has no iterator. */
const MEMBERS_OF: Record<string, StoreMember[]> = {
  "5": MEMBERS,
  "6": MEMBERS,
  "5 plain": [...MEMBERS, "getOrSet"],
  "6 plain": [...MEMBERS, "getOrSet"],
  "cache-manager": ["delete", "clear", "getMany", "setMany", "deleteMany", "getOrSet"],
  cacheable: ["delete", "has", "clear", "getMany", "setMany", "deleteMany", "getOrSet"],
};
const STORE = new URL("keyv-store.mjs", import.meta.url);

describe.each(KINDS)("as a store: %s", (kind) => {
  const members = MEMBERS_OF[kind] as StoreMember[];
  const open = (options?: { namespace?: string }) => {
    return storeOf(shared, kind, options?.namespace ?? `alone-${kind}-${++count}`);
  };
  /** Keyv and the cache ask the same clock. */
  const advance = (ms: number): void => void vi.setSystemTime(Date.now() + ms);
  // Keyv 6 has no empty key.
  const validKey = (key: string): boolean => !kind.startsWith("6") || key !== "";
  beforeAll(() => void vi.useFakeTimers({ toFake: ["Date"] }));
  afterAll(() => void vi.useRealTimers());
  for (const { name, run } of storeChecks({ open, members, namespaces: true, validKey, advance, tooLarge: 3 << 20 }))
    test(name, run);
});

describe.each(["5", "6 plain", "cache-manager", "cacheable"])("as a store of four processes: %s", (kind) => {
  const members = MEMBERS_OF[kind] as StoreMember[];
  const checks = acrossProcesses(STORE, { members, env: { NAME, KIND: kind } });
  // What stands on Keyv hands on what Keyv does, but has loaders of its own.
  const onTop = ["what one stores, all read", "what one clears, none reads", "80 calls of getOrSet load once"];
  const made = /^\d/.test(kind) ? checks : checks.filter(({ name }) => onTop.some((each) => name.endsWith(each)));
  if (made.length < onTop.length) throw new Error("some of the checks have other names now");
  for (const { name, run } of made) test(name, run);
});

describe("as a store: Keyv 5 in one process and Keyv 6 in the other", () => {
  const members = MEMBERS_OF["6 plain"] as StoreMember[];
  const env = { NAME, KIND: "5 plain and 6 plain" };
  for (const { name, run } of acrossProcesses(STORE, { members, env, processes: 2 })) test(name, run);
});

/** What the tests below use of both versions. */
interface AnyKeyv {
  namespace: string | undefined;
  on(event: string, listener: (error: unknown) => void): unknown;
  get(key: string): Promise<unknown>;
  getMany(keys: string[]): Promise<unknown[]>;
  getRaw(key: string): Promise<any>;
  getManyRaw(keys: string[]): Promise<any[]>;
  set(key: string, value: unknown, ttl?: number): Promise<boolean>;
  setMany(entries: { key: string; value: unknown; ttl?: number }[]): Promise<unknown>;
  has(key: string): Promise<boolean>;
  delete(key: string | string[]): Promise<unknown>;
  clear(): Promise<void>;
  disconnect(): Promise<void>;
  iterator(): AsyncIterable<[string, unknown]>;
}
type KeyvClass = new (options: any) => AnyKeyv;

const VERSIONS: [version: string, Keyv: KeyvClass][] = [
  ["5", Keyv5 as unknown as KeyvClass],
  ["6", Keyv6 as unknown as KeyvClass],
];
const MODES = VERSIONS.flatMap(([version, Keyv]): [string, (cache: Cache, namespace?: string) => AnyKeyv][] => [
  [`Keyv ${version}`, (cache, namespace) => new Keyv({ store: new KeyvCacheMachine(cache, { namespace }) })],
  [`Keyv ${version} without serialization`, (cache, namespace) => createKeyv(cache, { Keyv, namespace })],
]);

async function list(keyv: AnyKeyv): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {};
  for await (const [key, value] of keyv.iterator()) found[key] = value;
  return found;
}

function errorsOf(keyv: AnyKeyv): unknown[] {
  const errors: unknown[] = [];
  keyv.on("error", (error) => errors.push(error));
  return errors;
}

describe.each(MODES)("%s", (_, open) => {
  test("an entry expires when Keyv says so, and without that when the cache says so", async () => {
    const cache = createCache({ size: "2mb", ttl: 50_000 });
    const keyv = open(cache);
    const left = async (ttl: number | undefined): Promise<number | undefined> => {
      await keyv.set("k", "v", ttl);
      const { expires } = (await keyv.getRaw("k")) ?? {};
      const [only] = remaining(cache);
      // What Keyv remembers of the expiry is about what the cache will do.
      if (expires !== undefined && expires !== null && only !== undefined) {
        expect(Math.abs(expires - Date.now() - only)).toBeLessThan(1000);
      }
      return only;
    };
    expect(await left(20_000)).toBeCloseTo(20_000, -4);
    for (const none of [undefined, 0, Number.NaN]) expect(await left(none)).toBeCloseTo(50_000, -4);
    await keyv.setMany([
      { key: "k", value: 1, ttl: 5_000 },
      { key: "l", value: 2 },
    ]);
    expect(remaining(cache)[0]).toBeGreaterThan(4_000);
    expect(remaining(cache)[0]).toBeLessThanOrEqual(5_000);
    expect(remaining(cache)[1]).toBeGreaterThan(49_000);
  });

  test("a key of any form, and a long one, is a key", async () => {
    const keyv = open(createCache({ size: "2mb" }));
    const long = "k".repeat(10_000);
    const keys = ["a:b", "__proto__", "\ud800", "\0", long, `${long}l`];
    for (const [i, key] of keys.entries()) expect(await keyv.set(key, i)).toBe(true);
    expect(await keyv.getMany(keys)).toEqual(keys.map((_, i) => i));
    for (const [i, key] of keys.entries()) {
      expect(await keyv.get(key)).toBe(i);
      expect(await keyv.has(key)).toBe(true);
      expect(await keyv.delete(key)).toBe(true);
      expect(await keyv.get(key)).toBe(undefined);
    }
  });

  test("a value that is too large is not stored, the old one is gone, and there is no error", async () => {
    const cache = createCache({ size: "2mb" });
    const keyv = open(cache);
    const errors = errorsOf(keyv);
    await keyv.set("k", "old");
    expect(await keyv.set("k", "x".repeat(2 ** 20))).toBe(false);
    expect(await keyv.get("k")).toBe(undefined);
    const many = [
      { key: "a", value: "x".repeat(2 ** 20) },
      { key: "b", value: "b" },
    ];
    expect(await keyv.setMany(many)).toEqual([false, true]);
    expect(await keyv.get("b")).toBe("b");
    expect(errors).toEqual([]);
  });

  test("a store that another participant is in the way of is no error, and other errors reach Keyv", async () => {
    const error = new CacheError("ERR_CLOSED", "closed");
    let isClosed = false;
    const storing = (): boolean => {
      if (isClosed) throw error;
      return false;
    };
    const keyv = open(busy(storing));
    const errors = errorsOf(keyv);
    expect(await keyv.set("k", "v")).toBe(false);
    expect(errors).toEqual([]);
    isClosed = true;
    expect(await keyv.set("k", "v")).toBe(false);
    expect(errors).toEqual([error]);
  });

  test("clear removes what is in the namespace, and nothing else", async () => {
    // With many counters no two of these namespaces share one by chance.
    const cache = createCache({ size: "64mb" });
    const [a, b] = [open(cache, "a"), open(cache, "b")];
    cache.set("k", "of the cache");
    cache.namespace("other").set("k", "of another namespace");
    for (const keyv of [a, b]) await keyv.set("k", 1);
    a.namespace = "inner";
    await a.set("k", 2);
    await a.clear();
    expect(await a.has("k")).toBe(false);
    a.namespace = undefined;
    if (a instanceof Keyv6) expect(await a.get("k")).toBe(1);
    await a.clear();
    expect(await a.has("k")).toBe(false);
    expect(await b.get("k")).toBe(1);
    expect([cache.get("k"), cache.namespace("other").get("k")]).toEqual(["of the cache", "of another namespace"]);
  });

  test("the iterator tells what is there, also while that changes", async () => {
    const keyv = open(createCache({ size: "2mb" }));
    const entries = Array.from({ length: 50 }, (_, i) => ({ key: `user:${i}`, value: { i } }));
    await keyv.setMany(entries);
    await keyv.set("k".repeat(5000), "its key is long");
    expect(await list(keyv)).toEqual(Object.fromEntries(entries.map(({ key, value }) => [key, value])));
    const seen = [];
    for await (const [key] of keyv.iterator()) {
      seen.push(key);
      await keyv.delete(key);
      await keyv.set("other", 1);
    }
    expect(new Set(seen).size).toBeGreaterThanOrEqual(50);
    expect(Object.keys(await list(keyv))).toEqual(["other"]);
    for await (const _ of keyv.iterator()) break;
  });

  test("disconnect leaves the cache open", async () => {
    const cache = createCache({ size: "2mb" });
    const keyv = open(cache);
    await keyv.disconnect();
    expect(await keyv.set("k", 1)).toBe(true);
    expect(await keyv.get("k")).toBe(1);
  });
});

/** The milliseconds that each entry of the cache has left, in the order of the keys. */
function remaining(cache: Cache): (number | undefined)[] {
  const plain = cache.namespace("keyv");
  const serialized = plain.namespace("serialized");
  const parts = [plain, serialized, serialized.namespace("keyv")];
  return parts.flatMap((part) => [...part.keys()].sort().map((key) => part.ttl(key)));
}

/** A cache in which `trySet` does this. */
function busy(trySet: () => boolean): Cache {
  const part = { namespace: () => part, trySet };
  return Object.assign(createCache({ size: "2mb" }), { namespace: () => part }) as unknown as Cache;
}

describe.each(VERSIONS)("createKeyv with Keyv %s", (_, Keyv) => {
  test("Keyv and the cache read the same entries", async () => {
    const cache = createCache({ size: "2mb" });
    const users = cache.namespace("users");
    const keyv = createKeyv(cache, { Keyv, namespace: "users" });
    const ada = { name: "Ada", born: new Date(0), roles: new Set(["author"]) };
    await keyv.set("1", ada, 60_000);
    expect(users.get("1")).toEqual(ada);
    expect(users.ttl("1")).toBeCloseTo(60_000, -3);

    expect(await users.getOrSet("2", () => ({ name: "Grace" }), { ttl: 30_000 })).toEqual({ name: "Grace" });
    expect(await keyv.get("2")).toEqual({ name: "Grace" });
    const raw = await keyv.getRaw("2");
    expect(raw.value).toEqual({ name: "Grace" });
    expect(raw.expires - Date.now()).toBeCloseTo(30_000, -3);
    expect((await keyv.getManyRaw(["2", "3"]))[1]).toBe(undefined);
    users.set("3", "a text", { tags: ["texts"] });
    expect((await keyv.getRaw("3")).expires).toBe(undefined);
    expect(await keyv.getMany(["3", "2"])).toEqual(["a text", { name: "Grace" }]);
    expect(await list(keyv)).toEqual({ "1": ada, "2": { name: "Grace" }, "3": "a text" });
    users.invalidateTag("texts");
    expect(await keyv.has("3")).toBe(false);
  });

  test("each read is a copy, null is a value, and undefined is none", async () => {
    const cache = createCache({ size: "2mb" });
    const keyv = createKeyv(cache, { Keyv });
    const value = { list: [1] };
    await keyv.set("k", value);
    value.list.push(2);
    (await keyv.get<{ list: number[] }>("k"))?.list.push(3);
    expect(await keyv.get("k")).toEqual({ list: [1] });
    expect(await keyv.set("k", null)).toBe(true);
    expect(await keyv.get("k")).toBe(null);
    expect(await keyv.has("k")).toBe(true);
    expect(await keyv.set("k", undefined)).toBe(true);
    expect(await keyv.has("k")).toBe(false);
  });

  test("the option ttl is the default of the Keyv", async () => {
    const cache = createCache({ size: "2mb" });
    const keyv = createKeyv(cache, { Keyv, ttl: 20_000 });
    await keyv.set("k", 1);
    expect(cache.namespace("keyv").ttl("k")).toBeCloseTo(20_000, -3);
  });

  test("a value that is no data is an error", async () => {
    const keyv: AnyKeyv = createKeyv(createCache({ size: "2mb" }), { Keyv });
    const errors = errorsOf(keyv);
    expect(await keyv.set("k", () => 1)).toBe(false);
    expect(errors).toEqual([expect.any(TypeError)]);
  });
});

describe("the store", () => {
  test("does everything before it returns", () => {
    const cache = createCache({ size: "2mb" });
    const store = new KeyvCacheMachine(cache);
    const part = cache.namespace("keyv").namespace("serialized");
    void store.setMany([
      { key: "a", value: "1" },
      { key: "b", value: "2" },
    ]);
    expect(part.getMany(["a", "b"])).toEqual(["1", "2"]);
    void store.deleteMany(["a"]);
    void store.delete("b");
    expect(part.size).toBe(0);
  });

  test("answers for many keys as each version wants it", async () => {
    const store = new KeyvCacheMachine(createCache({ size: "2mb" }));
    const three = ["a", "b", "c"].map((key) => ({ key, value: key }));
    await store.setMany(three);
    expect(await store.hasMany(["c", "d", "a"])).toEqual([true, false, true]);
    expect(await store.deleteMany(["a", "d"])).toBe(false);
    expect(await store.deleteMany(["b", "c"])).toBe(true);
    expect(store.capabilities).toMatchObject({ compatible: true, expires: true });
    await store.setMany(three);
    expect(await store.deleteMany(["a", "d", "b"])).toEqual([true, false, true]);
    expect(await store.getMany(["c", "a"])).toEqual(["c", undefined]);
  });

  test("takes a time for a time once Keyv 6 has asked what it can, and for milliseconds before", async () => {
    const cache = createCache({ size: "2mb" });
    const store = new KeyvCacheMachine(cache);
    const part = cache.namespace("keyv").namespace("serialized");
    await store.set("k", "v", 9_000);
    expect(part.ttl("k")).toBeCloseTo(9_000, -2);
    await store.set("k", "v", -1);
    expect(part.has("k")).toBe(false);
    expect(store.capabilities.expires).toBe(true);
    await store.set("k", "v", Date.now() + 9_000);
    expect(part.ttl("k")).toBeCloseTo(9_000, -3);
    await store.set("k", "v", Date.now() - 1);
    expect(part.has("k")).toBe(false);
    await store.set("k", "v", Infinity);
    expect(part.ttl("k")).toBe(Infinity);
  });

  test("with the other setting of the serialization finds nothing instead of nonsense", async () => {
    const cache = createCache({ size: "2mb" });
    const plain = createKeyv(cache, { Keyv: Keyv5 });
    const serialized = new Keyv5({ store: new KeyvCacheMachine(cache) });
    await plain.set("k", "plain");
    expect(await serialized.get("k")).toBe(undefined);
    await serialized.set("k", "serialized");
    expect(await plain.get("k")).toBe("plain");
  });

  test("refuses texts of a Keyv that serializes when it was told the opposite", async () => {
    const cache = createCache({ size: "2mb" });
    for (const Keyv of [Keyv5, Keyv6]) {
      const keyv: AnyKeyv = new Keyv({ store: new KeyvCacheMachine(cache, { serialization: false }) }) as any;
      const errors = errorsOf(keyv);
      expect(await keyv.set("k", "v")).toBe(false);
      expect(String(errors)).toContain("although the store has the option `serialization: false`");
    }
  });

  test("names the argument that is wrong", () => {
    const cache = createCache({ size: "2mb" });
    const wrong: [() => unknown, string][] = [
      [() => new KeyvCacheMachine(new Map() as any), "cache: must be a cache"],
      [() => new KeyvCacheMachine(cache, { ttl: 1 } as any), "options.ttl: there is no such option"],
      [() => new KeyvCacheMachine(cache, { namespace: 1 } as any), "options.namespace: must be a string"],
      [() => new KeyvCacheMachine(cache, { namespace: "" }), "options.namespace: must not be empty"],
      [() => new KeyvCacheMachine(cache, { serialization: "no" } as any), "options.serialization: must be a boolean"],
      [() => createKeyv(cache, { prefix: "p" } as any), "options.prefix: there is no such option"],
      [() => createKeyv(cache, { Keyv: {} } as any), "options.Keyv: must be the class Keyv"],
    ];
    for (const [run, message] of wrong) expect(run).toThrow(message);
  });
});

describe("the package keyv", () => {
  test("that is installed is used without the option Keyv, and cacheable takes the result as it is", async () => {
    const cache = createCache({ size: "2mb" });
    const keyv = createKeyv(cache, { namespace: "a" });
    expect(Object.getPrototypeOf(keyv).constructor.name).toBe("Keyv");
    const cacheable = new Cacheable({ primary: keyv });
    expect(cacheable.primary).toBe(keyv);
    await cacheable.set("k", { a: 1 });
    expect(cache.namespace("a").get("k")).toEqual({ a: 1 });
  });

  test("is not needed to import the store, and its absence is an error with a remedy", async () => {
    const folder = projects.create("without-keyv", { type: "module" });
    fs.cpSync(path.join(root, "dist"), path.join(folder, "dist"), { recursive: true });
    fs.mkdirSync(path.join(folder, "node_modules"));
    fs.symlinkSync(path.join(root, "node_modules/devalue"), path.join(folder, "node_modules/devalue"));
    const code = (load: string): string => `${load}
      const cache = createCache({ size: "2mb" });
      const store = new KeyvCacheMachine(cache);
      store.set("k", "v").then(() => store.get("k")).then((value) => console.log(value));
      try { createKeyv(cache); } catch (error) { console.log(error.message); }`;
    const programs = {
      "a.mjs": code(`import { createCache } from "./dist/index.js";
        import { createKeyv, KeyvCacheMachine } from "./dist/adapters/keyv.js";`),
      "a.cjs": code(`const { createCache } = require("./dist/index.cjs");
        const { createKeyv, KeyvCacheMachine } = require("./dist/adapters/keyv.cjs");`),
    };
    for (const [file, text] of Object.entries(programs)) {
      fs.writeFileSync(path.join(folder, file), text);
      const { status, stdout, stderr } = await execute(process.execPath, [file], { cwd: folder });
      expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
      expect(stdout).toMatch(/^createKeyv: there is no package `keyv` of version 5 or newer\. Install it, .*\nv\n$/);
    }
  });
});

test("the types fit those of Keyv 5 and 6, cache-manager and cacheable without a cast", () => compile("keyv.types.ts"));
