/** Tests `cache-machine/unstorage`: the driver under a real storage, by itself, beside unstorage's own driver, and in four processes. */

import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { fileURLToPath } from "node:url";
import { type Cache, CacheError, createCache, destroyCache, openCache } from "cache-machine";
import { acrossProcesses, type Store, type StoreMember, storeChecks } from "cache-machine/testing";
import driver, { type CacheMachineDriver, cacheMachineDriver } from "cache-machine/unstorage";
import { createStorage, normalizeKey, prefixStorage, restoreSnapshot, type Storage, snapshot } from "unstorage";
import memoryDriver from "unstorage/drivers/memory";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { inTime } from "../coordinate/others.ts";
import { compile } from "./compile.ts";
// @ts-expect-error The processes of the checks run this module, so it is JavaScript.
import { storeOf } from "./unstorage-store.mjs";

test("the driver fits the types of unstorage", () => compile("unstorage.types.ts"));

describe("a storage over the driver", () => {
  let cache: Cache;
  let ours: CacheMachineDriver;
  let storage: Storage;

  beforeEach(() => {
    cache = createCache({ size: "4mb" });
    ours = driver({ cache });
    storage = createStorage({ driver: ours });
  });
  afterEach(() => {
    vi.useRealTimers();
    cache.close();
  });

  const keys = async (base?: string, maxDepth?: number): Promise<string[]> => {
    return (await storage.getKeys(base, maxDepth === undefined ? {} : { maxDepth })).sort();
  };

  test("what is stored comes back: text, numbers, falsy values, objects, and null for what is absent", async () => {
    const values = { text: "a", zero: 0, no: false, nothing: null, object: { a: [1, { b: "c" }] }, empty: "" };
    for (const [key, value] of Object.entries(values)) await storage.setItem(key, value);
    for (const [key, value] of Object.entries(values)) expect(await storage.getItem(key), key).toEqual(value);
    expect(await storage.getItem("absent")).toBe(null);
    expect(await storage.hasItem("absent")).toBe(false);
    expect(await storage.hasItem("zero")).toBe(true);
    await storage.setItem("text", undefined as unknown as string);
    expect(await storage.hasItem("text")).toBe(false);
    await storage.setItem("json", { toJSON: () => ({ works: true }) });
    expect(await storage.getItem("json")).toEqual({ works: true });
  });

  test("raw values come back as they were, as copies", async () => {
    const bytes = new Uint8Array([1, 2, 3]);
    await storage.setItemRaw("bytes", bytes);
    bytes.fill(9);
    const read = await storage.getItemRaw<Uint8Array>("bytes");
    expect([...(read ?? [])]).toEqual([1, 2, 3]);
    read?.fill(8);
    expect([...((await storage.getItemRaw<Uint8Array>("bytes")) ?? [])]).toEqual([1, 2, 3]);
    await storage.setItemRaw("buffer", Buffer.from("ü"));
    expect((await storage.getItemRaw<Buffer>("buffer"))?.toString()).toBe("ü");
    await storage.setItemRaw("map", new Map([["a", new Date(5)]]));
    expect(await storage.getItemRaw("map")).toEqual(new Map([["a", new Date(5)]]));
    await storage.setItem("text", "not parsed: 5");
    expect(await storage.getItemRaw("text")).toBe("not parsed: 5");
    expect(await storage.getItemRaw("absent")).toBe(null);
    await expect(storage.setItemRaw("function", () => {})).rejects.toThrow(TypeError);
  });

  test("many items are stored and read at once, each with options of its own", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: 1_000_000 });
    await storage.setItems<string | number | object>(
      [
        { key: "a", value: 1 },
        { key: "b", value: { two: 2 }, options: { ttl: 10 } },
        { key: "c", value: "3", options: { ttl: 0 } },
      ],
      { ttl: 20 },
    );
    const read = async (): Promise<unknown[]> =>
      (await storage.getItems(["a", { key: "b" }, "c", "d"])).map((item) => item.value);
    expect(await storage.getItems(["a", "d"])).toEqual([
      { key: "a", value: 1 },
      { key: "d", value: null },
    ]);
    expect(await read()).toEqual([1, { two: 2 }, 3, null]);
    vi.setSystemTime(1_010_001);
    expect(await read()).toEqual([1, null, 3, null]);
    vi.setSystemTime(1_020_001);
    expect(await read()).toEqual([null, null, 3, null]);
  });

  test("a ttl is in seconds: that of the item, or of the driver, or of the cache; 0 is for ever, a negative one removes", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: 1_000_000 });
    const timed = createStorage({ driver: driver({ cache, base: "timed", ttl: 10 }) });
    const seconds = async (key: string): Promise<number | undefined> => (await timed.getMeta(key)).ttl;
    await timed.setItem("default", 1);
    await timed.setItem("own", 1, { ttl: 2.5 });
    await timed.setItem("none", 1, { ttl: 0 });
    await timed.setItem("null", 1, { ttl: null });
    await timed.setItem("ever", 1, { ttl: Number.POSITIVE_INFINITY });
    await timed.setItem("over", 1);
    await timed.setItem("over", 2, { ttl: -1 });
    expect(await Promise.all(["default", "own", "none", "null", "ever"].map(seconds))).toEqual([
      10,
      2.5,
      undefined,
      10,
      undefined,
    ]);
    expect(await timed.hasItem("over")).toBe(false);
    vi.setSystemTime(1_002_501);
    expect((await timed.getKeys()).sort()).toEqual(["default", "ever", "none", "null"]);
    vi.setSystemTime(1_010_001);
    expect((await timed.getKeys()).sort()).toEqual(["ever", "none"]);
    await expect(timed.setItem("wrong", 1, { ttl: "5" })).rejects.toThrow("ttl: must be a number of seconds");

    const expiring = createCache({ size: "1mb", ttl: 3000 });
    const own = createStorage({ driver: driver({ cache: expiring }) });
    await own.setItem("a", 1);
    await own.setItem("b", 1, { ttl: 0 });
    expect((await own.getMeta("a")).ttl).toBe(3);
    expect((await own.getMeta("b")).ttl).toBe(undefined);
    expiring.close();
  });

  test("keys are listed below a base and to a depth, and their meta data is not", async () => {
    const all = ["depth0_0", "depth0:depth1_0", "depth0:depth1_1", "depth0:depth1:depth2_0", "other:a"];
    for (const key of all) await storage.setItem(key, "x");
    await storage.setMeta("depth0_0", { mtime: new Date(5) });
    expect(await keys()).toEqual([...all].sort());
    expect(await keys("depth0")).toEqual(all.filter((key) => key.startsWith("depth0:")).sort());
    expect(await keys(undefined, 0)).toEqual(["depth0_0"]);
    expect(await keys(undefined, 1)).toEqual(["depth0:depth1_0", "depth0:depth1_1", "depth0_0", "other:a"]);
    expect(await keys("depth0", 1)).toEqual(["depth0:depth1_0", "depth0:depth1_1"]);
    expect(await keys("none")).toEqual([]);
    expect(await storage.getMeta("depth0_0")).toEqual({ mtime: new Date(5) });
    expect(await storage.getMeta("absent")).toEqual({});
    await storage.removeItem("depth0_0", { removeMeta: true });
    expect(await storage.getMeta("depth0_0")).toEqual({});
  });

  test("clear empties the storage, or what is below a base, and nothing else in the cache", async () => {
    cache.set("mine", 1);
    const other = createStorage({ driver: driver({ cache, base: "other" }) });
    await other.setItem("a", 1);
    for (const key of ["a", "b:1", "b:2", "bb:1"]) await storage.setItem(key, 1);
    // unstorage 1.17 never asks a driver for less than all of it.
    ours.clear("b:");
    expect(await keys()).toEqual(["a", "bb:1"]);
    await storage.clear();
    expect(await keys()).toEqual([]);
    expect(cache.get("mine")).toBe(1);
    expect(await other.getKeys()).toEqual(["a"]);
    await other.clear();
    await storage.setItem("a", 1);
    await other.clear();
    expect(await keys()).toEqual(["a"]);
  });

  test("long and hostile keys are items like others: stored, listed, and cleared below their base", async () => {
    const long = [`base:${"x".repeat(10_000)}`, `base:${"x".repeat(9999)}y`, `base:${"😀".repeat(2000)}`];
    long.push(`base:${"x".repeat(8000)}z`, `base:${"y".repeat(2000)}\ud800`, `base:${"y".repeat(2000)}\ud801`);
    const hostile = ["__proto__", "constructor", "a\0b", "\ud800", "base:\udc00", `base:${"\ud800".repeat(3000)}`, "$"];
    for (const key of [...long, ...hostile]) ours.setItem(key, key);
    for (const key of [...long, ...hostile]) {
      expect(ours.getItem(key), key.slice(0, 10)).toBe(key);
      expect(ours.hasItem(key)).toBe(true);
      expect(ours.getMeta(key)).toEqual({});
    }
    expect(ours.getItems(long.map((key) => ({ key }))).map(({ value }) => value)).toEqual(long);
    expect(ours.getKeys().sort()).toEqual([...long, ...hostile].sort());
    const below = [...long, ...hostile].filter((key) => key.startsWith("base:"));
    expect(ours.getKeys("base:").sort()).toEqual(below.sort());
    expect(ours.getKeys(`base:${"x".repeat(9000)}`)).toHaveLength(2);
    // The key under which a long one is stored is no key of another item.
    const [stored = ""] = [...ours.getInstance().keys({ prefix: "base:xxx" })];
    expect(ours.getItem(stored)).toBe(null);
    ours.removeItem(long[0] as string);
    expect(ours.getItem(long[0] as string)).toBe(null);
    ours.clear("base:");
    expect(ours.getKeys().sort()).toEqual(hostile.filter((key) => !key.startsWith("base:")).sort());
    await storage.setItem("/data/a.json?query", 1);
    expect(await storage.getItem("data:a.json")).toBe(1);
  });

  test("an item that is too large is absent afterwards, also when there was one, and others of the call are stored", async () => {
    const large = "x".repeat(1_000_000);
    await storage.setItem("a", "old");
    await storage.setItem("a", large);
    expect(await storage.getItem("a")).toBe(null);
    await storage.setItems([
      { key: "b", value: large },
      { key: "c", value: "stored" },
    ]);
    expect(await storage.getItem("b")).toBe(null);
    expect(await storage.getItem("c")).toBe("stored");
  });

  test("an item that cannot be stored because another participant is in the way is removed; when that fails too, it is an error", async () => {
    let isDeleteBusy = false;
    const busy = new Proxy(ours.getInstance(), {
      get(target, name) {
        const member = Reflect.get(target, name, target);
        if (typeof member !== "function") return member;
        return (...args: unknown[]) => {
          if (name === "trySet") return false;
          if (isDeleteBusy && name === "delete") throw new CacheError("ERR_BUSY", "in the way");
          return member.apply(target, args);
        };
      },
    });
    const standIn = { namespace: () => busy, incrementEntry() {} } as unknown as Cache;
    const other = createStorage({ driver: driver({ cache: standIn }) });
    await storage.setItem("a", "old");
    await other.setItem("a", "new");
    expect(await storage.getItem("a")).toBe(null);
    await storage.setItem("a", "old");
    isDeleteBusy = true;
    await expect(other.setItem("a", "new")).rejects.toThrow(expect.objectContaining({ code: "ERR_BUSY" }));
    await expect(other.removeItem("a")).rejects.toThrow(expect.objectContaining({ code: "ERR_BUSY" }));
  });

  test("errors of the cache are rejections", async () => {
    cache.close();
    await expect(storage.getItem("a")).rejects.toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    await expect(storage.setItem("a", 1)).rejects.toThrow(CacheError);
  });

  test("snapshots, prefixes and mounts of unstorage work over it", async () => {
    await restoreSnapshot(storage, { a: "1", "b:c": "2" }, "restored");
    expect(await snapshot(storage, "restored")).toEqual({ a: 1, "b:c": 2 });
    const prefixed = prefixStorage(storage, "restored:b");
    expect(await prefixed.getItem("c")).toBe(2);
    const mounted = createStorage().mount("cached", driver({ cache, base: "mounted" }));
    await mounted.setItem("cached:a:b", 1);
    await mounted.setItem("elsewhere", 1);
    expect((await mounted.getKeys()).sort()).toEqual(["cached:a:b", "elsewhere"]);
    expect(await mounted.getKeys("cached:a")).toEqual(["cached:a:b"]);
    expect(cache.namespace("unstorage:mounted").get("a:b")).toBe("1");
    await mounted.clear("cached");
    expect(await mounted.getKeys()).toEqual(["elsewhere"]);
  });

  test("changes made through the storage are watched, as with unstorage's own drivers that do not watch", async () => {
    const events: string[] = [];
    const unwatch = await storage.watch((event, key) => events.push(`${event} ${key}`));
    await storage.setItem("a", 1);
    await storage.removeItem("a");
    await unwatch();
    await storage.setItem("b", 1);
    expect(events).toEqual(["update a", "remove a"]);
  });

  test("answers random operations as unstorage's memory driver does", async () => {
    const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
    let state = seed;
    const random = (below: number): number => {
      state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
      return Math.floor((state / 2_147_483_648) * below);
    };
    const theirs = createStorage({ driver: memoryDriver() });
    const key = (): string => ["a", "a:b", "a:b:c", "d", "d:e$", "f:g"][random(6)] as string;
    const base = (): string | undefined => [undefined, "", "a", "a:b", "d", "f:g"][random(6)];
    for (let i = 0; i < 2000; i++) {
      const [k, b, n] = [key(), base(), random(4)];
      const operations: ((s: Storage) => Promise<unknown>)[] = [
        (s) => s.setItem(k, [i, "text", { i }, null][n] as number),
        (s) => s.setItem(k, `${i}`),
        (s) => s.getItem(k),
        (s) => s.hasItem(k),
        (s) => s.removeItem(k, { removeMeta: n === 0 }),
        (s) => s.getItems([k, "a", "d:e$"]),
        (s) => s.getKeys(b, { maxDepth: n }).then((all) => all.sort()),
        (s) => s.getKeys(b).then((all) => all.sort()),
        (s) => s.setItems([{ key: k, value: i }]),
        async (s) => s.getMeta(k),
        (s) => (n === 0 ? s.clear() : s.removeItem(k)),
      ];
      const operation = operations[random(operations.length)] as (typeof operations)[number];
      expect(await operation(storage), `seed ${seed}, operation ${i}`).toEqual(await operation(theirs));
    }
  });
});

const members: StoreMember[] = ["delete", "has", "clear", "getMany", "setMany", "keys", "close"];

describe("the checks of cache-machine/testing", () => {
  const cache = createCache({ size: "4mb" });
  let bases = 0;
  // unstorage normalizes keys, and has no item without one.
  const validKey = (key: string): boolean => normalizeKey(key) === key && key !== "" && !key.endsWith("$");
  const open = (): Store => storeOf({ cache, base: `${bases++}` });
  const subject = { members, open, values: "json" as const, validKey, tooLarge: 1 << 20 };
  // unstorage parses such a text, with every driver.
  const checks = storeChecks(subject).filter(({ name }) => !name.endsWith("text that looks like JSON"));
  for (const { name, run } of checks) test(name, run);
});

describe("the checks of cache-machine/testing for processes", () => {
  const NAME = `unstorage-kit-${process.pid}`;
  afterAll(() => void destroyCache(NAME));
  const module = new URL("unstorage-store.mjs", import.meta.url);
  for (const { name, run } of acrossProcesses(module, { members, env: { NAME } })) test(name, run);
});

describe("opening and closing", () => {
  const name = `unstorage-open-${process.pid}`;
  const files = (): string[] => fs.readdirSync("/dev/shm").filter((file) => file.includes(name));
  afterEach(() => void destroyCache(name));

  test("a named cache is opened at the first use, and closed by dispose, which removes nothing", async () => {
    const storage = createStorage({ driver: driver({ name, size: "1mb", driver: "cache-machine/unstorage" }) });
    expect(files()).toEqual([]);
    await storage.setItem("a", 1);
    const cache = openCache(name);
    expect(cache.stats().size).toBe(1024 * 1024);
    await storage.dispose();
    await storage.dispose();
    await expect(storage.getItem("a")).rejects.toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    const again = createStorage({ driver: driver({ name }) });
    expect(await again.getItem("a")).toBe(1);
    await again.dispose();
    cache.close();
    const never = driver({ name: `${name}-never` });
    never.dispose();
    expect(() => never.getItem("a")).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    expect(files()).toHaveLength(1);
  });

  test("a cache that was handed in stays open, and keeps its items", async () => {
    const cache = createCache({ size: "1mb" });
    const storage = createStorage({ driver: driver({ cache }) });
    await storage.setItem("a", 1);
    await storage.dispose();
    expect(await storage.getItem("a")).toBe(1);
    expect(cache.get("a")).toBe(undefined);
    cache.close();
  });

  test("a path is the directory of the cache", async () => {
    const folder = fs.mkdtempSync("/dev/shm/unstorage-path-");
    const ours = driver({ name, size: "1mb", path: folder });
    ours.setItem("a", "1");
    expect(fs.readdirSync(folder).some((file) => file.includes(name))).toBe(true);
    ours.dispose();
    fs.rmSync(folder, { recursive: true });
  });

  test("wrong options are named when the driver is created", () => {
    const cache = createCache({ size: "1mb" });
    const wrong: [options: object, message: RegExp][] = [
      [{ nam: "a" }, /nam: there is no such option/],
      [{ cache: {} }, /cache: must be a cache/],
      [{ name: 5 }, /name: must be a string/],
      [{ base: 5 }, /base: must be a string/],
      [{ ttl: "5" }, /ttl: must be a number/],
      [{ ttl: Number.NaN }, /ttl: must be a number/],
      [{ cache, name }, /cache, options\.name: one of the two/],
      [{ size: "1mb" }, /size: goes with options\.name/],
      [{ path: "/tmp" }, /path: goes with options\.name/],
      [{ fallback: "threads" }, /fallback: goes with options\.name/],
    ];
    for (const [options, message] of wrong) {
      expect(() => driver(options)).toThrow(message);
      expect(() => driver(options)).toThrow(TypeError);
    }
    expect(() => driver(null as unknown as undefined)).toThrow(TypeError);
    expect(() => driver({ name, fallback: "none" as "threads" }).getItem("a")).toThrow(/fallback: must be "threads"/);
    expect(driver).toBe(cacheMachineDriver);
    cache.close();
  });
});

describe("four processes", () => {
  const name = `unstorage-four-${process.pid}`;
  const processes: ChildProcess[] = [];
  let number = 0;

  beforeAll(async () => {
    for (let i = 0; i < 4; i++) {
      const script = fileURLToPath(new URL("unstorage-client.mjs", import.meta.url));
      const command = ["setpriv", "--pdeathsig", "KILL", process.execPath];
      const child = fork(script, [JSON.stringify({ name, parent: process.pid })], {
        execPath: command[0] as string,
        execArgv: command.slice(1),
        stdio: ["ignore", "inherit", "inherit", "ipc"],
      });
      processes.push(child);
    }
    await inTime(Promise.all(processes.map((child) => once(child, "message"))), "the start of the processes");
  });

  afterAll(async () => {
    for (const child of processes) child.kill("SIGKILL");
    await Promise.all(processes.map((child) => child.exitCode ?? child.signalCode ?? once(child, "exit")));
    destroyCache(name);
  });

  /** Calls a method of the storage in one process. */
  async function call(index: number, method: keyof Storage, ...args: unknown[]): Promise<any> {
    const child = processes[index] as ChildProcess;
    const mine = number++;
    const answered = new Promise<any>((resolve, reject) => {
      const listen = (message: { number: number; result: unknown; error?: string }): void => {
        if (message.number !== mine) return;
        child.off("message", listen);
        if (message.error === undefined) resolve(message.result);
        else reject(new Error(message.error));
      };
      child.on("message", listen);
    });
    child.send({ number: mine, method, args });
    return inTime(answered, `an answer to ${method}`);
  }

  const everywhere = (method: keyof Storage, ...args: unknown[]): Promise<any[]> => {
    return Promise.all(processes.map((_, i) => call(i, method, ...args)));
  };

  test("what one stores all have, and what one removes or clears is gone for all at once", async () => {
    await call(0, "setItem", "users:1", { name: "Ada" });
    expect(await everywhere("getItem", "users:1")).toEqual(Array(4).fill({ name: "Ada" }));
    expect((await everywhere("getMeta", "users:1")).every(({ ttl }) => ttl > 590 && ttl <= 600)).toBe(true);
    await call(1, "setItem", "users:2", 2);
    await call(2, "setItem", "other", 3);
    for (const keys of await everywhere("getKeys", "users")) expect(keys.sort()).toEqual(["users:1", "users:2"]);
    await call(3, "removeItem", "users:2");
    expect(await everywhere("hasItem", "users:2")).toEqual(Array(4).fill(false));
    await call(1, "clear");
    expect(await everywhere("getItem", "other")).toEqual(Array(4).fill(null));
  });

  test("all store at the same moment: nothing is lost or mixed, and the last value of a key is the same for all", async () => {
    const own = (index: number): { key: string; value: unknown }[] =>
      Array.from({ length: 200 }, (_, i) => ({ key: `own:${index}:${i}`, value: { index, i } }));
    await Promise.all(processes.map((_, i) => call(i, "setItems", [...own(i), { key: "same", value: i }])));
    expect(new Set(await everywhere("getItem", "same")).size).toBe(1);
    for (const keys of await everywhere("getKeys", "own")) expect(keys).toHaveLength(800);
    const all = [0, 1, 2, 3].flatMap(own);
    for (const items of await everywhere(
      "getItems",
      all.map(({ key }) => key),
    ))
      expect(items).toEqual(all);
  });

  test("a process that is killed leaves its items to the others", async () => {
    await call(3, "setItem", "left", "behind");
    const [, , , last] = processes as [ChildProcess, ChildProcess, ChildProcess, ChildProcess];
    last.kill("SIGKILL");
    await once(last, "exit");
    processes.pop();
    expect(await everywhere("getItem", "left")).toEqual(Array(3).fill("behind"));
  });
});
