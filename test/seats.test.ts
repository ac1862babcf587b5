/**
 * One place in a cache for each thread, however often and in whichever realm that thread opens it; what belongs to each
 * `Cache` object all the same; and handles that come from another realm.
 */

import { execFile } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { attachCache, type Cache, type CacheHandle, createCache, destroyCache, openCache } from "cache-machine";
import { afterAll, afterEach, describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const MODULE = pathToFileURL(path.join(root, "dist/index.js")).href;
const WATCHDOG_MS = 60_000;
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "cache-machine-seats-"));
const names: string[] = [];
const opened: Cache[] = [];

function keep(cache: Cache): Cache {
  opened.push(cache);
  return cache;
}

function newName(): string {
  names.push(`t-${process.pid}-seats-${names.length}`);
  return names.at(-1) as string;
}

afterEach(() => {
  for (const cache of opened.splice(0)) cache.close();
});

afterAll(() => {
  for (const name of names) destroyCache(name);
  fs.rmSync(scratch, { recursive: true, force: true });
});

/** What a script prints; errors and warnings are failures. */
async function run(body: string, ...flags: string[]): Promise<string> {
  const file = path.join(scratch, `script-${Math.random()}.mjs`);
  fs.writeFileSync(file, body);
  const args = ["--no-warnings", "--expose-gc", ...flags, file];
  const { stdout, stderr } = await promisify(execFile)(process.execPath, args, { timeout: WATCHDOG_MS });
  expect(stderr).toBe("");
  return stdout.trim();
}

/** The ways to open one cache again and again in one thread; the first is given up last. */
const REACHES: [string, () => { first: Cache; again: (options?: object) => Cache }][] = [
  [
    "threads",
    () => {
      const first = keep(createCache({ size: "1mb" }));
      let times = 0;
      // Each second time as it comes from another thread: structured clone makes new objects of a handle.
      const handle = (): CacheHandle => (++times % 2 ? first.handle : structuredClone(first.handle));
      return { first, again: (options) => keep(attachCache(handle(), options)) };
    },
  ],
  [
    "processes",
    () => {
      const name = newName();
      const first = keep(openCache(name, { size: "1mb" }));
      let times = 0;
      return {
        first,
        again: (options) => keep(++times % 2 ? openCache(name, options) : attachCache(first.handle, options)),
      };
    },
  ],
];

describe.each(REACHES)("one thread that opens a cache often, reach %s", (_, make) => {
  test("has one place, which the last one gives back", () => {
    const { first, again } = make();
    const many = Array.from({ length: 300 }, () => again());
    first.set("a", { b: [1] });
    expect(many.every((cache, i) => cache.set(`k${i}`, i).get(`k${i}`) === i)).toBe(true);
    expect([many[299]?.get("a"), many[7]?.stats().participants]).toEqual([{ b: [1] }, 1]);
    first.close();
    for (const cache of many.slice(1)) cache.close();
    expect([many[0]?.get("a"), many[0]?.stats().participants]).toEqual([{ b: [1] }, 1]);
    expect(() => first.get("a")).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    // Twice is once.
    first.close();
    expect(many[0]?.get("a")).toEqual({ b: [1] });
  });

  test("leaves each its own options", () => {
    const { first, again } = make();
    const time = { slow: 1_000, fast: 5_000 };
    const slow = again({ now: () => time.slow, ttl: 2_000, nearCache: 0 });
    const fast = again({ now: () => time.fast, frozenObjects: true, maxEntrySize: 100 });
    slow.set("a", { b: 1 });
    const reads: [string, (cache: Cache) => unknown, unknown, unknown][] = [
      ["get", (cache) => cache.get("a"), { b: 1 }, undefined],
      [
        "get, so often that it is near",
        (cache) => Array.from({ length: 9 }, () => cache.get("a")).at(-1),
        { b: 1 },
        undefined,
      ],
      ["has", (cache) => cache.has("a"), true, false],
      ["ttl", (cache) => cache.ttl("a"), 2_000, undefined],
      ["getEntry", (cache) => cache.getEntry("a")?.expiresAt, 3_000, undefined],
      ["size", (cache) => cache.size, 1, 0],
      ["stats", (cache) => cache.stats().entries, 1, 0],
      ["keys", (cache) => [...cache.keys()], ["a"], []],
      ["add", (cache) => cache.add("a", 1), false, true],
    ];
    for (const [what, read, atFirst, later] of reads) {
      slow.set("a", { b: 1 });
      // In turns, so that each call comes after one of the other's.
      expect([read(slow), read(fast), read(slow)], what).toEqual([atFirst, later, what === "add" ? false : atFirst]);
      if (what === "add") expect(fast.delete("a")).toBe(true);
    }
    slow.set("n", 1);
    expect([fast.increment("n"), slow.increment("n")]).toEqual([1, 2]);
    slow.set("t", 1);
    expect([fast.touch("t", 10), slow.touch("t", 10), slow.ttl("t")]).toEqual([false, true, 10]);
    slow.set("d", 1);
    expect([fast.delete("d"), slow.set("d", 2).delete("d")]).toEqual([false, true]);
    fast.set("f", { c: [] });
    expect([Object.isFrozen(fast.get("f")), Object.isFrozen(first.get("f"))]).toEqual([true, false]);
    expect(() => fast.set("g", "x".repeat(200))).toThrow(expect.objectContaining({ code: "ERR_TOO_LARGE" }));
    expect(first.set("g", "x".repeat(200)).get("g")).toHaveLength(200);
    expect(first.validate()).toBe(0);
  });

  test("may use and close the others while a value is encoded", () => {
    const { first, again } = make();
    const closing = again();
    const other = again();
    const value = {
      get a() {
        other.set("other", "x".repeat(1_000)).set("key of the other", { long: "y".repeat(500) });
        closing.close();
        first.close();
        expect(other.get("other")).toHaveLength(1_000);
        other.close();
        return "of the value";
      },
    };
    expect(() => closing.set("closed", value)).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    // Now nobody is there any more: a new one works.
    const { first: last } = make();
    expect(last.set("a", 1).stats()).toMatchObject({ participants: 1, entries: 1 });
  });

  test("stores what was asked for though the others store while it is encoded", () => {
    const { first, again } = make();
    const other = again();
    const value = {
      toJSON() {
        other.set("b", { inner: "b".repeat(300) }, { tags: ["t"], ttl: 5 });
        other.get("b");
        return { outer: "a" };
      },
    };
    first.set("a", value, { tags: ["u"] });
    expect([other.get("a"), first.get("b")]).toEqual([{ outer: "a" }, { inner: "b".repeat(300) }]);
    expect(first.getEntry("a")).toMatchObject({ tags: ["u"], expiresAt: Infinity });
  });
});

test("a cache that was destroyed and created again is another one, with another place", () => {
  const name = newName();
  const before = keep(openCache(name, { size: "1mb" })).set("a", "old");
  destroyCache(name);
  const after = keep(openCache(name, { size: "1mb" }));
  const alsoAfter = keep(openCache(name));
  expect([before.get("a"), after.get("a"), alsoAfter.set("a", "new").get("a"), before.get("a")]).toEqual([
    "old",
    undefined,
    "new",
    "old",
  ]);
  expect([before.stats().participants, after.stats().participants]).toEqual([1, 1]);
  expect(() => openCache(name, { size: "2mb" })).toThrow(expect.objectContaining({ code: "ERR_SIZE_MISMATCH" }));
  expect(after.get("a")).toBe("new");
});

test("what is forgotten without close gives back its share, and the last of it the place", async () => {
  const name = newName();
  const body = `
    import { createCache, attachCache, openCache } from ${JSON.stringify(MODULE)};
    import { readdirSync, readlinkSync } from "node:fs";
    const target = (fd) => { try { return readlinkSync("/proc/self/fd/" + fd); } catch { return ""; } };
    const files = () => readdirSync("/proc/self/fd").filter((fd) => target(fd).includes("${name}")).length;
    const settle = async () => { for (let i = 0; i < 5; i++) { gc(); await new Promise((resolve) => setTimeout(resolve, 5)); } };
    const forget = (times) => { for (let i = 0; i < times; i++) openCache("${name}", { size: "1mb", nearCache: 16 }).set("a", i); };
    forget(1);
    await settle();
    const before = files();
    const kept = (() => openCache("${name}"))();
    forget(100);
    await settle();
    const during = files() - before;
    console.log(kept.get("a"), kept.stats().participants, during);
    const threads = createCache({ size: "1mb" });
    (() => { for (let i = 0; i < 100; i++) attachCache(threads.handle).set("a", i); })();
    await settle();
    console.log(threads.get("a"), threads.stats().participants);
    kept.close();
    for (let i = 0; i < 100 && files() > before; i++) await settle();
    console.log(files() - before);`;
  expect(await run(body)).toBe("99 1 1\n99 1\n0");
});
