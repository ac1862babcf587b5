/**
 * The drivers for bentocache with the real bentocache: what it stores and finds, its tags, odd keys and values, what happens around
 * `disconnect`, and four processes that share a store. bentocache's own suite for drivers is in test/ecosystem/bentocache.test.ts.
 */

import fs from "node:fs";
import path from "node:path";
import { memory as memoryBus } from "@boringnode/bus/transports/memory";
import { BentoCache, bentostore } from "bentocache";
import { type Cache, CacheError, createCache, destroyCache, openCache } from "cache-machine";
import { cacheMachineDriver, cacheMachineL2Driver } from "cache-machine/bentocache";
import { acrossProcesses, type Store, type StoreMember, storeChecks } from "cache-machine/testing";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { endOthers, inTime, type Other, startProcess, until } from "../coordinate/others.ts";
import { execute, Projects } from "../package/projects.ts";
// @ts-expect-error The processes of the checks run this module, so it is JavaScript.
import { storeOf } from "./bentocache-store.mjs";
import { compile } from "./compile.ts";

const NAME = `t-${process.pid}-bentocache`;
const HOUR = 3_600_000;
const LAYERS = ["l1", "l2"] as const;
type Layer = (typeof LAYERS)[number];

afterEach(async () => {
  vi.useRealTimers();
  await endOthers();
  destroyCache(NAME);
});

/** A store of bentocache with one layer over the cache. */
function storeOver(cache: Cache, layer: Layer = "l1", options: object = {}) {
  const store = bentostore();
  if (layer === "l1") store.useL1Layer(cacheMachineDriver({ cache }));
  else store.useL2Layer(cacheMachineL2Driver({ cache }));
  return new BentoCache({ default: "store", stores: { store }, ...options });
}

/** The key under which a store with the default prefix keeps when a tag was invalidated, and the part of the cache that has it. */
const TAG_KEY = "___bc:t:news";
const entriesOf = (cache: Cache): Cache => cache.namespace("bentocache");

describe.each(LAYERS)("a store over the driver for %s", (layer) => {
  test("finds what it has stored, and nothing after its time, a removal or a clear", async () => {
    vi.useFakeTimers({ toFake: ["Date"] });
    const bento = storeOver(createCache({ size: "1mb" }), layer);
    await bento.set({ key: "a", value: { deep: [1, null, "x"] }, ttl: "1s" });
    await bento.setForever({ key: "b", value: 0 });
    await bento.set({ key: "c", value: false });
    expect(await bento.get({ key: "a" })).toEqual({ deep: [1, null, "x"] });
    expect([await bento.get({ key: "b" }), await bento.get({ key: "c" })]).toEqual([0, false]);
    vi.advanceTimersByTime(999);
    expect(await bento.has({ key: "a" })).toBe(true);
    vi.advanceTimersByTime(1);
    expect(await bento.has({ key: "a" })).toBe(false);
    // bentocache's default is half an hour.
    vi.advanceTimersByTime(HOUR);
    expect([await bento.get({ key: "b" }), await bento.get({ key: "c" })]).toEqual([0, undefined]);
    expect(await bento.pull("b")).toBe(0);
    expect(await bento.missing({ key: "b" })).toBe(true);
    for (const key of ["d", "e", "f"]) await bento.set({ key, value: key });
    await bento.deleteMany({ keys: ["d", "gone"] });
    expect([await bento.get({ key: "d" }), await bento.get({ key: "e" })]).toEqual([undefined, "e"]);
    await bento.clear();
    expect([await bento.get({ key: "e" }), await bento.get({ key: "f" })]).toEqual([undefined, undefined]);
  });

  test("an expired value is served for its grace while the factory fails, and refreshed when it does not", async () => {
    vi.useFakeTimers({ toFake: ["Date"] });
    const bento = storeOver(createCache({ size: "1mb" }), layer, { grace: "1h", timeout: "1h" });
    const ask = (factory: () => unknown) => bento.getOrSet({ key: "a", ttl: "1s", factory });
    const fail = (): never => {
      throw new Error("source is away");
    };
    expect(await ask(() => 1)).toBe(1);
    vi.advanceTimersByTime(2000);
    expect(await ask(fail)).toBe(1);
    // bentocache asks a source that has failed again after ten seconds.
    vi.advanceTimersByTime(12_000);
    expect(await ask(() => 2)).toBe(2);
    await bento.expire({ key: "a" });
    expect(await ask(fail)).toBe(2);
    vi.advanceTimersByTime(2 * HOUR);
    await expect(ask(fail)).rejects.toThrow("Factory has thrown an error");
  });

  test("namespaces are apart, and each is cleared with those within it and nothing else", async () => {
    const cache = createCache({ size: "1mb" });
    cache.set("of the program", 1);
    const bento = storeOver(cache, layer);
    const users = bento.namespace("users");
    const posts = users.namespace("posts");
    const all = [bento, users, posts, bento.namespace("use")];
    const fill = async () => {
      for (const [i, each] of all.entries()) await each.set({ key: "k", value: i });
    };
    const look = () => Promise.all(all.map((each) => each.get({ key: "k" })));
    await fill();
    expect(await look()).toEqual([0, 1, 2, 3]);
    expect(await bento.get({ key: "users:posts:k" })).toBe(2);
    await posts.clear();
    expect(await look()).toEqual([0, 1, undefined, 3]);
    await fill();
    await users.clear();
    expect(await look()).toEqual([0, undefined, undefined, 3]);
    await fill();
    await bento.clear();
    expect(await look()).toEqual([undefined, undefined, undefined, undefined]);
    expect(cache.get("of the program")).toBe(1);
    const driver = cacheMachineDriver({ cache }).factory({ cache });
    expect(() => driver.namespace("x".repeat(900)).namespace("y".repeat(100))).toThrow(RangeError);
  });

  test("odd keys are keys like others, and a clear of their namespace removes them", async () => {
    const odd = ["", "__proto__", "constructor", "\0", ":", "::", "\ud800", "\udc00a", "é".repeat(2000)];
    const long = ["x", "y", "\ud800", "\ud801"].map((end) => "x".repeat(10_000) + end);
    const bento = storeOver(createCache({ size: "4mb" }), layer);
    const space = bento.namespace("odd");
    const keys = [...odd, ...long];
    for (const [i, key] of keys.entries()) await space.set({ key, value: i });
    for (const [i, key] of keys.entries()) expect(await space.get({ key }), key.slice(0, 20)).toBe(i);
    for (const key of keys) expect(await bento.get({ key })).toBe(undefined);
    await space.delete({ key: long[1] as string });
    expect(await space.get({ key: long[1] as string })).toBe(undefined);
    await space.clear();
    for (const key of keys) expect(await space.get({ key }), key.slice(0, 20)).toBe(undefined);
  });

  test("a value that is too large is returned and not cached, and the one before it is gone", async () => {
    const bento = storeOver(createCache({ size: "1mb" }), layer);
    await bento.set({ key: "a", value: "small" });
    const large = "x".repeat(1 << 20);
    await bento.set({ key: "a", value: large });
    expect(await bento.get({ key: "a" })).toBe(undefined);
    expect(await bento.getOrSet({ key: "a", factory: () => large })).toBe(large);
    expect(await bento.getOrSet({ key: "a", factory: () => "loaded again" })).toBe("loaded again");
  });

  test("a tag that was invalidated stays so when its entry is evicted, or overwritten by one who had not seen it", async () => {
    const cache = createCache({ size: "1mb" });
    const entries = entriesOf(cache);
    const bento = storeOver(cache, layer);
    const store = () => bento.set({ key: "a", value: 1, tags: ["news"] });
    await store();
    expect(await bento.get({ key: "a" })).toBe(1);
    // What somebody who had just found no invalidation would store.
    const nothing = entries.get(TAG_KEY) ?? JSON.stringify({ value: 0, createdAt: Date.now() });
    expect(JSON.parse(nothing)).toMatchObject({ value: 0 });
    await bento.deleteByTag({ tags: ["news"] });
    expect(JSON.parse(entries.get(TAG_KEY)).value).toBeGreaterThan(0);
    entries.delete(TAG_KEY);
    expect(await bento.get({ key: "a" })).toBe(undefined);

    await new Promise((resolve) => setTimeout(resolve, 5));
    await store();
    expect(await bento.get({ key: "a" })).toBe(1);
    await bento.deleteByTag({ tags: ["news"] });
    const driver = cacheMachineDriver().factory({ cache, prefix: "bentocache" });
    expect(driver.set(TAG_KEY, nothing, 1000)).toBe(true);
    expect(await bento.get({ key: "a" })).toBe(undefined);
  });

  test("tags of all names are invalidated, each in its own namespace", async () => {
    vi.useFakeTimers({ toFake: ["Date"] });
    const bento = storeOver(createCache({ size: "4mb" }), layer);
    const space = bento.namespace("space");
    for (const tag of ["a", "", "\0", "\ud800", "x".repeat(300), "é".repeat(100)]) {
      await bento.set({ key: "k", value: 1, tags: [tag, "other"] });
      await space.set({ key: "k", value: 2, tags: [tag] });
      vi.advanceTimersByTime(10);
      await bento.deleteByTag({ tags: [tag] });
      expect(await bento.get({ key: "k" }), JSON.stringify(tag)).toBe(undefined);
      expect(await space.get({ key: "k" }), JSON.stringify(tag)).toBe(2);
      vi.advanceTimersByTime(10);
    }
  });

  test("with another serializer tags work, and no item that this serializer cannot read is made", async () => {
    const serializer = {
      serialize: (value: unknown) => `mine${JSON.stringify(value)}`,
      deserialize: (text: string) => {
        if (!text.startsWith("mine")) throw new Error("not mine");
        return JSON.parse(text.slice(4));
      },
    };
    const cache = createCache({ size: "1mb" });
    const bento = storeOver(cache, layer, { serializer });
    await bento.set({ key: "a", value: 1, tags: ["news"] });
    // As if another tag had the same counter.
    entriesOf(cache).invalidateTag(TAG_KEY);
    expect(await bento.get({ key: "a" })).toBe(1);
    await bento.deleteByTag({ tags: ["news"] });
    expect(await bento.get({ key: "a" })).toBe(undefined);
  });

  test("after disconnect the store finds nothing, and a request that was under way still gets its value", async () => {
    const make = layer === "l1" ? "useL1Layer" : "useL2Layer";
    const driver = (layer === "l1" ? cacheMachineDriver : cacheMachineL2Driver)({ name: NAME, size: "1mb" });
    const bento = new BentoCache({ default: "store", stores: { store: bentostore()[make](driver as never) } });
    const space = bento.namespace("space");
    await space.set({ key: "a", value: 1 });
    const mine = openCache(NAME);
    expect(mine.stats().participants).toBe(1);
    let finish = (_: string): void => {};
    const loading = bento.getOrSet({ key: "b", factory: () => new Promise<string>((resolve) => (finish = resolve)) });
    await new Promise((resolve) => setImmediate(resolve));
    await bento.disconnect();
    await bento.disconnect();
    finish("in time");
    expect(await inTime(loading, "a load during disconnect")).toBe("in time");
    expect(await space.get({ key: "a" })).toBe(undefined);
    await space.delete({ key: "a" });
    await bento.clear();
    expect(entriesOf(mine).size).toBe(1);
    mine.close();

    const cache = createCache({ size: "1mb" });
    const other = storeOver(cache, layer);
    await other.set({ key: "a", value: 1 });
    await other.disconnect();
    expect(cache.size + entriesOf(cache).size).toBe(1);
    cache.close();
    const closed = other.get({ key: "a" });
    // An L2 driver's errors are the cause of bentocache's own error.
    if (layer === "l1") await expect(closed).rejects.toThrow(CacheError);
    else await expect(closed).rejects.toMatchObject({ cause: { code: "ERR_CLOSED" } });
  });
});

test("with `serialize: false` values come back as the cache returns them, and tags are invalidated all the same", async () => {
  const cache = createCache({ size: "1mb" });
  const store = bentostore().useL1Layer(cacheMachineDriver({ cache, serialize: false }));
  const bento = new BentoCache({ default: "store", stores: { store }, grace: "1h" });
  const value = new Map([["since", new Date(0)]]);
  await bento.set({ key: "a", value, tags: ["news"] });
  const found = await bento.get({ key: "a" });
  expect(found).toEqual(value);
  found.clear();
  expect(await bento.get({ key: "a" })).toEqual(value);
  await bento.deleteByTag({ tags: ["news"] });
  entriesOf(cache).delete(TAG_KEY);
  expect(await bento.get({ key: "a", grace: false })).toBe(undefined);
});

test("the driver answers as those of bentocache where bentocache does not ask", () => {
  const { factory, options } = cacheMachineDriver({ cache: createCache({ size: "1mb" }), prefix: "p:" });
  const driver = factory(options);
  expect(driver.set("a", "1", -1)).toBe(true);
  expect(driver.get("a")).toBe(undefined);
  expect(driver.set("a", "1", 0)).toBe(true);
  expect(driver.getRemainingTtl("a")).toBe(Number.POSITIVE_INFINITY);
  expect(driver.set("a", "1", 1000)).toBe(true);
  expect(driver.getRemainingTtl("a")).toBeGreaterThan(0);
  expect(driver.getRemainingTtl("a")).toBeLessThanOrEqual(1000);
  expect([driver.pull("a"), driver.pull("a"), driver.delete("a")]).toEqual(["1", undefined, false]);
});

test("wrong options are refused by their names", () => {
  const cache = createCache({ size: "1mb" });
  const wrong: [object, RegExp][] = [
    [{ maxSize: "1mb" }, /options\.maxSize: there is no such option/],
    [{ cache: {} }, /options\.cache: must be a cache/],
    [{ cache, name: "a" }, /`cache` or `name`/],
    [{ size: "1mb" }, /belong to a `name`/],
    [{ cache, fallback: "threads" }, /belong to a `name`/],
    [{ cache, prefix: 1 }, /options\.prefix/],
    [{ cache, serialize: "no" }, /options\.serialize/],
  ];
  for (const [options, message] of wrong) {
    for (const make of [cacheMachineDriver, cacheMachineL2Driver]) {
      expect(() => make(options as never)).toThrow(message);
      expect(() => make(options as never)).toThrow(TypeError);
    }
  }
  expect(() => cacheMachineL2Driver({ cache, serialize: false })).toThrow(/options\.serialize/);
  expect(() => cacheMachineDriver(null as never)).toThrow(TypeError);
});

describe("in a program", () => {
  let projects: Projects;
  beforeAll(() => {
    projects = new Projects("bentocache");
  });
  afterAll(() => projects.remove());

  async function run(name: string, script: string): Promise<string[]> {
    const project = projects.linked(name);
    fs.writeFileSync(path.join(project, "main.mjs"), script);
    const { stdout, stderr } = await execute(process.execPath, ["--no-warnings", "main.mjs"], { cwd: project });
    return [stdout.trim(), stderr];
  }

  test("without options the drivers use the application's own cache", async () => {
    const script = `
      import { BentoCache, bentostore } from "bentocache";
      import { destroyCache, openCache } from "cache-machine";
      import { cacheMachineDriver } from "cache-machine/bentocache";
      const store = bentostore().useL1Layer(cacheMachineDriver());
      const bento = new BentoCache({ default: "store", stores: { store } });
      await bento.set({ key: "a", value: 1 });
      await bento.disconnect();
      console.log(openCache().namespace("bentocache").has("a"), destroyCache());`;
    expect(await run("application", script)).toEqual(["true true", ""]);
  });

  test("where processes cannot share a cache, `fallback` gives each its own", async () => {
    const script = `
      Object.defineProperty(process, "platform", { value: "darwin" });
      const { BentoCache, bentostore } = await import("bentocache");
      const { cacheMachineDriver } = await import("cache-machine/bentocache");
      for (const fallback of ["threads", undefined]) {
        const driver = cacheMachineDriver({ name: "fallback" + fallback, fallback });
        const bento = new BentoCache({ default: "store", stores: { store: bentostore().useL1Layer(driver) } });
        const use = async () => {
          await bento.set({ key: "a", value: 1 });
          return bento.get({ key: "a" });
        };
        console.log(await use().catch((error) => error.code));
      }`;
    expect(await run("mac", script)).toEqual(["1\nERR_UNSUPPORTED", ""]);
  });
});

/** A store of a machine: a memory of its own in front of an L2 that other machines have too, with a bus between them. */
function machine(server: Cache) {
  const store = bentostore()
    .useL1Layer(cacheMachineDriver({ cache: createCache({ size: "1mb" }) }))
    .useL2Layer(cacheMachineL2Driver({ cache: server }))
    .useBus({ options: {}, factory: memoryBus() });
  return new BentoCache({ default: "store", stores: { store } });
}

test("an invalidation that a machine learns of late removes nothing that was stored since", async () => {
  vi.useFakeTimers({ toFake: ["Date"] });
  const server = createCache({ size: "1mb" });
  const one = machine(server);
  await one.set({ key: "a", value: 1, tags: ["news"] });
  vi.advanceTimersByTime(10);
  await one.deleteByTag({ tags: ["news"] });
  vi.advanceTimersByTime(60_000);
  await one.set({ key: "a", value: 2, tags: ["news"] });
  vi.advanceTimersByTime(60_000);
  const two = machine(server);
  expect(await two.get({ key: "a" })).toBe(2);
  await Promise.all([one.disconnect(), two.disconnect()]);
});

test("a machine that has evicted what it knew of a tag asks the L2", async () => {
  vi.useFakeTimers({ toFake: ["Date"] });
  const server = createCache({ size: "1mb" });
  const cache = createCache({ size: "1mb" });
  const one = storeOver(server, "l2");
  const layers = bentostore()
    .useL1Layer(cacheMachineDriver({ cache }))
    .useL2Layer(cacheMachineL2Driver({ cache: server }));
  const two = new BentoCache({ default: "store", stores: { store: layers } });
  await two.deleteByTag({ tags: ["news"] });
  vi.advanceTimersByTime(60_000);
  await one.set({ key: "a", value: 1, tags: ["news"] });
  vi.advanceTimersByTime(60_000);
  // Without a bus the second machine hears nothing of this.
  await one.deleteByTag({ tags: ["news"] });
  entriesOf(cache).clear();
  expect(await two.get({ key: "a" })).toBe(undefined);
});

test("the memories of two machines in front of one L2: a bus tells each of the other's changes", async () => {
  const server = createCache({ size: "1mb" });
  const [one, two] = [machine(server), machine(server)];
  const seen = async (key: string, value: unknown): Promise<void> => {
    let last: unknown;
    const look = async (): Promise<boolean> => (last = await two.get({ key })) === value;
    let is = await look();
    await until(
      () => {
        look().then((now) => (is = now));
        return is;
      },
      `the other machine sees ${String(value)}, and not ${String(last)}`,
    );
  };
  await one.set({ key: "a", value: 1, tags: ["news"] });
  await seen("a", 1);
  await one.set({ key: "a", value: 2, tags: ["news"] });
  await seen("a", 2);
  await one.deleteByTag({ tags: ["news"] });
  await seen("a", undefined);
  await new Promise((resolve) => setTimeout(resolve, 5));
  await two.set({ key: "a", value: 3, tags: ["news"] });
  await seen("a", 3);
  await one.delete({ key: "a" });
  await seen("a", undefined);
  await Promise.all([one.disconnect(), two.disconnect()]);
});

/** What a store of bentocache has. Its namespaces are beginnings of keys, so they are not as far apart as those checks want them. */
const has = {
  values: "json",
  members: ["delete", "has", "clear", "deleteMany", "invalidateTag", "getOrSet"] satisfies StoreMember[],
} as const;

describe.each(LAYERS)("the checks of cache-machine/testing over the driver for %s", (layer) => {
  const cache = createCache({ size: "4mb" });
  const open = (): Store => storeOf(cache, layer);
  for (const { name, run } of storeChecks({ ...has, open, tooLarge: 1 << 20 })) test(name, run);
});

describe("the checks of cache-machine/testing for processes that share an L1", () => {
  const module = new URL("bentocache-store.mjs", import.meta.url);
  for (const { name, run } of acrossProcesses(module, { ...has, env: { NAME, LAYER: "l1" } })) {
    test(name, () => {
      openCache(NAME, { size: "4mb" }).close();
      return run();
    });
  }
});

/** Four processes with a store over the same cache. `bento` in the functions that they run is the store of the process. */
async function fourProcesses() {
  openCache(NAME, { size: "4mb" }).close();
  const processes = [1, 2, 3, 4].map(() => startProcess(NAME));
  await Promise.all(
    processes.map((each) =>
      each.run(async (cache) => {
        // vitest would replace an `import` in this file by its own, which the other process does not have.
        // biome-ignore lint/security/noGlobalEval: the text is constant.
        const load = (module: string) => globalThis.eval(`import(${JSON.stringify(module)})`);
        const { BentoCache, bentostore } = await load("bentocache");
        const { cacheMachineDriver } = await load("cache-machine/bentocache");
        const store = bentostore().useL1Layer(cacheMachineDriver({ cache }));
        (globalThis as any).bento = new BentoCache({ default: "store", stores: { store } });
      }),
    ),
  );
  return processes;
}
declare const bento: BentoCache<any>;

describe("four processes with the driver as L1, without a bus", () => {
  test("have what one stores, removes, clears, expires and invalidates, as soon as that has returned", async () => {
    const processes = await fourProcesses();
    const [first, second] = processes as [Other, Other];
    const look = (key: string): Promise<unknown[]> =>
      Promise.all(processes.map((each) => each.run((_, key) => bento.get({ key }), key)));
    const four = (value: unknown) => [value, value, value, value];
    await first.run(() => bento.set({ key: "a", value: { n: 1 }, tags: ["news"] }));
    expect(await look("a")).toEqual(four({ n: 1 }));
    await second.run(() => bento.set({ key: "a", value: { n: 2 }, tags: ["news"] }));
    expect(await look("a")).toEqual(four({ n: 2 }));
    await first.run(() => bento.deleteByTag({ tags: ["news"] }));
    expect(await look("a")).toEqual(four(undefined));

    await first.run(() => bento.set({ key: "b", value: 1 }));
    await first.run(() => bento.namespace("space").set({ key: "c", value: 1 }));
    await second.run(() => bento.delete({ key: "b" }));
    expect(await look("b")).toEqual(four(undefined));
    expect(await look("space:c")).toEqual(four(1));
    await second.run(() => bento.namespace("space").clear());
    expect(await look("space:c")).toEqual(four(undefined));

    await first.run(() => bento.set({ key: "d", value: 1 }));
    await second.run(() => bento.expire({ key: "d" }));
    expect(await look("d")).toEqual(four(undefined));
    await first.run(() => bento.set({ key: "e", value: 1 }));
    await second.run(() => bento.clear());
    expect(await look("e")).toEqual(four(undefined));
  });

  test("no invalidation of a tag is lost while others find that there was none, and store that", async () => {
    const processes = await fourProcesses();
    for (let round = 1; round <= 50; round++) {
      const tag = `tag-${round}`;
      await processes[0]?.run((_, tags) => bento.set({ key: "k", value: 1, tags }), [tag]);
      const all = processes.map((each, i) =>
        each.run((_, i, tags) => (i === 0 ? bento.deleteByTag({ tags }) : bento.get({ key: "k" })), i, [tag]),
      );
      await Promise.all(all);
      const left = await Promise.all(processes.map((each) => each.run(() => bento.get({ key: "k" }))));
      expect(left, tag).toEqual([undefined, undefined, undefined, undefined]);
    }
  });

  test("getOrSet loads once in each process, and once in all of them within a lock of the cache", async () => {
    const processes = await fourProcesses();
    const cache = openCache(NAME);
    const plain = processes.map((each) =>
      each.run(async (cache) => {
        const factory = async () => {
          cache.increment("plain");
          // Waits for the factories of the others: if one process waited for another's, this would never end.
          const end = Date.now() + 30_000;
          while (cache.get("plain") < 4 && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 1));
          return cache.get("plain");
        };
        return Promise.all(Array.from({ length: 20 }, () => bento.getOrSet({ key: "plain", factory })));
      }),
    );
    expect((await Promise.all(plain)).flat()).toHaveLength(80);
    expect(cache.get("plain")).toBe(4);

    const locked = processes.map((each) =>
      each.run(async (cache) => {
        const getOrLoad = async (options: { key: string; factory: () => unknown }) => {
          const known = await bento.get({ key: options.key, grace: false });
          if (known !== undefined) return known;
          return cache.locks.request(options.key, () => bento.getOrSet(options));
        };
        const factory = async () => {
          cache.increment("locked");
          await new Promise((resolve) => setTimeout(resolve, 50));
          return "loaded";
        };
        return Promise.all(Array.from({ length: 20 }, () => getOrLoad({ key: "locked", factory })));
      }),
    );
    expect((await Promise.all(locked)).flat()).toEqual(Array.from({ length: 80 }, () => "loaded"));
    expect(cache.get("locked")).toBe(1);
    cache.close();
  });

  test("when the process that loads within the lock is killed, another one loads", async () => {
    const [first, second] = (await fourProcesses()) as [Other, Other];
    const cache = openCache(NAME);
    const dead = first.run((cache) =>
      cache.locks.request("k", () =>
        bento.getOrSet({
          key: "k",
          factory: () => {
            cache.set("is loading", true);
            return new Promise(() => {});
          },
        }),
      ),
    );
    dead.catch(() => {});
    await until(() => cache.has("is loading"), "the first process loads");
    const other = second.run((cache) =>
      cache.locks.request("k", () => bento.getOrSet({ key: "k", factory: () => "by another" })),
    );
    await first.kill();
    expect(await inTime(other, "a load after the death of the loader")).toBe("by another");
    cache.close();
  });
});

test("the types fit bentocache's without a cast", () => compile("bentocache.types.ts"));
