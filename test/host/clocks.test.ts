/**
 * Clocks that tests replace, that stand still, and that step: expiry follows the clock at each call, and no wait depends on
 * one alone.
 */

import { once } from "node:events";
import { runInNewContext } from "node:vm";
import { Worker } from "node:worker_threads";
import { type Cache, type CacheOptions, createCache } from "cache-machine";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { attachCache as attachApart } from "./apart.mjs";

const opened: Cache[] = [];

function open(options?: CacheOptions): Cache {
  const cache = createCache({ size: "1mb", ...options });
  opened.push(cache);
  return cache;
}

afterEach(() => {
  vi.useRealTimers();
  for (const cache of opened.splice(0)) cache.close();
});

describe("a replaced clock", () => {
  test("fake timers that are installed after a cache was opened move its time", () => {
    const cache = open();
    vi.useFakeTimers();
    cache.set("k", 1, { ttl: 1000 });
    vi.advanceTimersByTime(999);
    expect([cache.get("k"), cache.ttl("k")]).toEqual([1, 1]);
    vi.advanceTimersByTime(1);
    expect([cache.get("k"), cache.ttl("k"), cache.has("k")]).toEqual([undefined, undefined, false]);
  });

  test("fake timers that are removed after a cache was opened leave it with the real time", () => {
    vi.useFakeTimers({ now: 5 });
    const cache = open();
    cache.set("k", 1, { ttl: 1000 });
    expect(cache.getEntry("k")?.expiresAt).toBe(1005);
    vi.useRealTimers();
    expect(cache.get("k")).toBe(undefined);
    cache.set("k", 2, { ttl: 60_000 });
    expect(cache.getEntry("k")?.expiresAt).toBeGreaterThan(Date.now());
    expect(cache.get("k")).toBe(2);
  });

  test("a cache calls the Date.now of the moment, also after it was replaced, and refuses one that returns NaN", () => {
    const cache = open({ ttl: 10 });
    const { now } = Date;
    try {
      Date.now = () => 100;
      cache.set("k", 1);
      Date.now = () => 109;
      expect(cache.get("k")).toBe(1);
      Date.now = () => 110;
      expect(cache.get("k")).toBe(undefined);
      Date.now = () => Number.NaN;
      expect(() => cache.set("k", 1)).toThrow(/now: must return a number/);
    } finally {
      Date.now = now;
    }
  });
});

describe("while performance.now stands still", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });

  test.each<[string, (cache: Cache) => unknown]>([
    ["set", (cache) => cache.set("k", 2)],
    ["set of a large value", (cache) => cache.set("k", "x".repeat(100_000))],
    ["add", (cache) => cache.add("k2", 2) && cache.delete("k")],
    ["update", (cache) => cache.update("k", () => 2)],
    ["increment", (cache) => cache.increment("k")],
    ["touch", (cache) => cache.touch("k", 5)],
    ["delete", (cache) => cache.delete("k")],
    ["take", (cache) => cache.take("k")],
  ])("%s of a key whose bucket another thread holds ends with ERR_BUSY", async (_, change) => {
    const cache = open();
    cache.set("k", 1, { ttl: 60_000 });
    const gate = new SharedArrayBuffer(4);
    const worker = new Worker(new URL("clocks-holder.mjs", import.meta.url), {
      workerData: { handle: cache.handle, gate, key: "k" },
    });
    try {
      await once(worker, "message");
      expect(() => change(cache)).toThrow(expect.objectContaining({ code: "ERR_BUSY" }));
      expect(cache.get("k")).toBe(1);
    } finally {
      Atomics.store(new Int32Array(gate), 0, 1);
      Atomics.notify(new Int32Array(gate), 0);
      await once(worker, "exit");
    }
    // The other thread has counted from 1 to 2, and the cache goes on.
    expect(cache.get("k")).toBe(2);
  });

  test("update of a key that changes during each of its tries ends with ERR_BUSY", () => {
    const cache = open();
    let changes = 0;
    const contended = () =>
      cache.update("k", () => {
        cache.set("k", changes++);
        return "mine";
      });
    expect(contended).toThrow(expect.objectContaining({ code: "ERR_BUSY" }));
    expect(cache.get("k")).toBe(changes - 1);
  });
});

test("a step of the clock forwards ends the entries whose expiry it passes, and a step back prolongs their time", () => {
  let now = 1_000_000;
  const cache = open({ now: () => now });
  cache.set("k", 1, { ttl: 1000 });
  now -= 3_600_000;
  expect(cache.ttl("k")).toBe(3_601_000);
  now += 3_600_999;
  expect(cache.get("k")).toBe(1);
  now += 1;
  expect(cache.get("k")).toBe(undefined);
});

test("a clock that uses its own cache is refused, and the cache goes on afterwards", () => {
  let use: (() => unknown) | undefined;
  let refusals = 0;
  const cache: Cache = open({
    now: () => {
      try {
        // Once: `invalidateTag` asks the clock before the engine waits for it.
        const nested = use;
        use = undefined;
        nested?.();
      } catch (error) {
        refusals++;
        expect(String(error)).toContain("now: must not use the cache whose clock it is");
      }
      return Date.now();
    },
  });
  const uses: (() => unknown)[] = [
    () => cache.get("other key"),
    () => cache.set("other key", "other value"),
    () => cache.set("other key", { other: "value" }),
    () => cache.namespace("n").set("other", 1, { tags: ["t"] }),
    () => cache.increment("other"),
    () => cache.invalidateTag("other"),
    () => [...cache.keys()],
    () => cache.stats(),
    () => cache.census(),
  ];
  const operations: [string, () => unknown, unknown][] = [
    ["has", () => cache.has("k"), true],
    ["get", () => cache.get("k"), "kept"],
    ["touch", () => cache.touch("k", 60_000), true],
    ["increment", () => cache.increment("n"), 2],
    ["set", () => cache.set("k", "kept").get("k"), "kept"],
    ["ttl", () => typeof cache.ttl("k"), "number"],
  ];
  for (const nested of uses) {
    for (const [name, operation, expected] of operations) {
      cache.set("n", 1, { ttl: 60_000 });
      cache.set("k", "kept", { ttl: 60_000 });
      use = nested;
      expect(operation(), `${name}, ${nested}`).toEqual(expected);
      use = undefined;
      // The clock may have stored something only where it was asked before a call, when the engine did not wait for it.
      for (const [key, value] of cache) expect(["k", "n", "other key", "other"], String(value)).toContain(key);
      expect([cache.get("k"), cache.validate()]).toEqual(["kept", 0]);
    }
  }
  expect(refusals).toBeGreaterThan(uses.length);
});

test("a script that is terminated while the engine waits for its clock leaves nothing held, and the cache goes on", () => {
  for (const change of [
    (cache: Cache) => cache.increment("k"),
    (cache: Cache) => cache.set("k", "x".repeat(100_000)),
    (cache: Cache) => cache.get("k"),
    (cache: Cache) => cache.delete("k"),
  ]) {
    let looping = false;
    const cache = open({
      now: () => {
        while (looping);
        return Date.now();
      },
    });
    const other = attachApart(cache.handle);
    opened.push(other);
    cache.set("k", 1, { ttl: 60_000 });
    looping = true;
    expect(() => runInNewContext("change()", { change: () => change(cache) }, { timeout: 20 })).toThrow(
      expect.objectContaining({ code: "ERR_SCRIPT_EXECUTION_TIMEOUT" }),
    );
    looping = false;
    // The next use of the cache gives back what was held.
    expect(cache.get("k")).toBe(1);
    other.set("k", 2);
    expect([cache.get("k"), cache.increment("k"), cache.validate()]).toEqual([2, 3, 0]);
  }
});
