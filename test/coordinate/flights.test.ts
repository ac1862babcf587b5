/**
 * Tests what happens to loads when participants die, freeze, block or leave, in both reaches, and that of many calls at once only
 * one loads. What `getOrSet` promises while nobody dies is part of the conformance suite: src/testing/load-checks.ts.
 */

import { AsyncLocalStorage } from "node:async_hooks";
import type { Cache, LoadOptions } from "cache-machine";
import * as together from "cache-machine";
import { afterEach, describe, expect, test, vi } from "vitest";
import * as apart from "../host/apart.mjs";
import { type Failure, inTime, type Peer, Stage } from "./peers.ts";

const REACHES = ["threads", "processes"] as const;
let stages = 0;
let stage: Stage | undefined;

async function on(reach: "threads" | "processes", peers: number): Promise<[Cache, ...Peer[]]> {
  stage = new Stage(reach, `t-${process.pid}-flights-${stages++}`);
  return [stage.cache, ...(await stage.peers(peers))];
}

afterEach(async () => {
  await stage?.end();
  stage = undefined;
});

/** A loader that must not run. */
const never = (): never => {
  throw new Error("this loader must not run");
};

describe.each(REACHES)("in reach %s", (reach) => {
  test("a call waits for the load of another participant, and gets its value without loading", async () => {
    const [cache, owner, guest] = await on(reach, 2);
    const first = owner.getOrSet("key");
    await first.loading;
    const second = guest.getOrSet("key");
    const third = cache.getOrSet("key", never);
    await guest.arrived();
    await owner.finish(first, { n: 1 });
    expect(await Promise.all([first.value, second.value, inTime(third, "the third")])).toEqual([
      { n: 1 },
      { n: 1 },
      { n: 1 },
    ]);
    expect(second.hasLoaded).toBe(false);
  });

  test("a call elsewhere gets ERR_LOAD_FAILED with the name and the message of the loader's error, and loads nothing", async () => {
    const [, owner, guest] = await on(reach, 2);
    const first = owner.getOrSet("key");
    await first.loading;
    const second = guest.getOrSet("key");
    await guest.arrived();
    await owner.finish(first, undefined, "away");
    expect(((await first.value.catch((error) => error)) as Failure).message).toBe("away");
    const failure = (await second.value.catch((error) => error)) as Failure;
    expect(failure).toMatchObject({ code: "ERR_LOAD_FAILED", cause: { name: "TestError", message: "away" } });
    expect(second.hasLoaded).toBe(false);
  });

  test("Key stuck when the leader dies (golang/groupcache #139): after a kill in the loader the next one who waits loads", async () => {
    const [cache, owner, guest] = await on(reach, 2);
    const first = owner.getOrSet("key", { lease: 1e9 });
    await first.loading;
    const second = guest.getOrSet("key");
    await guest.arrived();
    let loads = 0;
    const third = cache.getOrSet("key", () => {
      loads++;
      return "by the third";
    });
    await owner.kill();
    // One of the two who wait loads.
    await Promise.race([second.loading, inTime(third, "the third")]);
    if (second.hasLoaded) await guest.finish(second, "by the second");
    const values = await Promise.all([second.value, inTime(third, "the third")]);
    expect(values[0]).toBe(values[1]);
    expect(loads + Number(second.hasLoaded)).toBe(1);
  });

  test("a call that comes after the death of an owner for whom nobody waited loads at once", async () => {
    const [cache, owner] = await on(reach, 1);
    await owner.getOrSet("key", { lease: 1e9 }).loading;
    await owner.kill();
    expect(
      await inTime(
        cache.getOrSet("key", () => "mine"),
        "the load",
      ),
    ).toBe("mine");
  });

  test("after the owner has closed the cache or left during its load, one who waits loads", async () => {
    const [cache, owner] = await on(reach, 1);
    await owner.getOrSet("key", { lease: 1e9 }).loading;
    const waiting = cache.getOrSet("key", () => "mine");
    await owner.leave();
    expect(await inTime(waiting, "the load")).toBe("mine");
  });

  test("Leases of 30 s (lua-resty-lock, Redisson): a load that takes many leases is not replaced", async () => {
    const [cache, owner] = await on(reach, 1);
    // On a busy machine the owner may not run for longer than a short lease, and then it is rightly replaced.
    let isReplaced = true;
    for (let lease = 60; isReplaced && lease < 4000; lease *= 4) {
      const first = owner.getOrSet(`key ${lease}`, { lease });
      await first.loading;
      isReplaced = false;
      const waiting = cache.getOrSet(`key ${lease}`, () => (isReplaced = true));
      await new Promise((resolve) => setTimeout(resolve, 4 * lease));
      await owner.finish(first, "slow");
      expect(await inTime(waiting, "the slow value")).toBe(isReplaced || "slow");
    }
    expect(isReplaced).toBe(false);
  });

  test("an owner whose event loop is blocked for longer than its lease is replaced, and its late result is refused", async () => {
    const [cache, owner] = await on(reach, 1);
    const first = owner.getOrSet("key", { lease: 50 });
    await first.loading;
    const blocked = owner.block(1000);
    expect(
      await inTime(
        cache.getOrSet("key", () => "replaced"),
        "the replacement",
      ),
    ).toBe("replaced");
    await blocked;
    await owner.finish(first, "late");
    // Who called the loader that was replaced gets what it has loaded.
    expect(await first.value).toBe("late");
    expect(cache.get("key")).toBe("replaced");
  });

  test("a change by any participant overtakes the load of any other: those who waited get the value, and it is not stored", async () => {
    const [cache, owner, guest] = await on(reach, 2);
    const first = owner.getOrSet("key");
    await first.loading;
    const second = guest.getOrSet("key");
    await guest.arrived();
    cache.delete("key");
    const later = cache.getOrSet("key", () => "new");
    expect(await inTime(later, "a load of its own")).toBe("new");
    await owner.finish(first, "overtaken");
    expect(await Promise.all([first.value, second.value])).toEqual(["overtaken", "overtaken"]);
    expect(await guest.call("get", "key")).toBe("new");
  });

  test("those who waited before the invalidation of a tag that is known only after loading get the value, and later calls do not", async () => {
    const [cache] = await on(reach, 0);
    const other = (stage as Stage).another();
    for (const method of ["invalidateTag", "expireTag"] as const) {
      let finish = (_: string): void => {};
      const load = (): Promise<string> => new Promise((resolve) => (finish = resolve));
      const before = [cache, cache, other].map((one) => one.getOrSet("key", load, { tags: () => ["late"] }));
      const first = finish;
      other[method]("late");
      const later = [cache, other].map((one) => one.getOrSet("key", () => "new", { ttl: 10_000 }));
      first("overtaken");
      expect(await inTime(Promise.all(before), "the value")).toEqual(["overtaken", "overtaken", "overtaken"]);
      expect(await inTime(Promise.all(later), "the new value")).toEqual(["new", "new"]);
      expect(other.get("key")).toBe("new");
      cache.delete("key");
    }
  });

  test("those who wait for an overtaken load go on when its owner dies", async () => {
    const [cache, owner, guest] = await on(reach, 2);
    const first = owner.getOrSet("key", { lease: 1e9 });
    await first.loading;
    const second = guest.getOrSet("key");
    await guest.arrived();
    cache.set("key", "set");
    await owner.kill();
    expect(await second.value).toBe("set");
    expect(second.hasLoaded).toBe(false);
  });

  test("many calls of one key by four participants run the loader once, and all get its value", async () => {
    const [cache, ...peers] = await on(reach, 4);
    const results = await Promise.all(peers.map((peer) => peer.crowd("key", 500, 50)));
    expect(new Set(results.flat()).size).toBe(1);
    expect(cache.get("loads")).toBe(1);
  });

  test("a participant that dies while it waits leaves nothing in the way of others", async () => {
    const [cache, owner, guest] = await on(reach, 2);
    const first = owner.getOrSet("key");
    await first.loading;
    guest.getOrSet("key");
    await guest.arrived();
    await guest.kill();
    await owner.finish(first, "value");
    expect(await first.value).toBe("value");
    expect(cache.get("key")).toBe("value");
    expect(
      await inTime(
        cache.getOrSet("other", () => 1),
        "another key",
      ),
    ).toBe(1);
  });

  test("a waiter elsewhere that gives up does not end the load, and one that times out gets ERR_TIMEOUT", async () => {
    const [cache, owner, guest] = await on(reach, 2);
    const first = owner.getOrSet("key");
    await first.loading;
    const controller = new AbortController();
    const here = cache.getOrSet("key", never, { signal: controller.signal });
    const there = guest.getOrSet("key", { timeout: 30 });
    controller.abort(new Error("gave up"));
    await expect(inTime(here, "the abort")).rejects.toThrow("gave up");
    expect(await there.value.catch((error) => error.code)).toBe("ERR_TIMEOUT");
    await owner.finish(first, "value");
    expect(await first.value).toBe("value");
    expect(cache.get("key")).toBe("value");
  });

  test("values of a load reach those who wait elsewhere, also undefined, and those that are not stored", async () => {
    const [cache, owner] = await on(reach, 1);
    const cases: [value: unknown, options: LoadOptions][] = [
      [undefined, {}],
      [null, {}],
      ["not stored", { ttl: 0 }],
      [{ short: true }, { ttl: 1 }],
      [{ list: [1, 2] }, { ttl: 10_000 }],
    ];
    for (const [value, options] of cases) {
      const first = owner.getOrSet("key", options);
      await first.loading;
      const here = cache.getOrSet("key", never);
      await owner.finish(first, value);
      expect(await inTime(here, "the value")).toEqual(value);
      cache.delete("key");
    }
  });

  test("more keys than there are claims are loaded by one call of getOrSetMany, and all values come back", async () => {
    const [cache] = await on(reach, 0);
    const keys = Array.from({ length: 1000 }, (_, i) => `key ${i}`);
    let most = 0;
    const values = await inTime(
      cache.getOrSetMany(keys, async (missing) => {
        most = Math.max(most, missing.length);
        await new Promise((resolve) => setTimeout(resolve, 5));
        return missing.map((key) => `value of ${key}`);
      }),
      "all values",
    );
    expect(values).toEqual(keys.map((key) => `value of ${key}`));
    expect(most).toBeGreaterThan(100);
  });

  test("a signal that a hundred calls share is listened to once", async () => {
    const [cache] = await on(reach, 0);
    const warnings: Error[] = [];
    const warn = (warning: Error): unknown => warnings.push(warning);
    process.on("warning", warn);
    const controller = new AbortController();
    const keys = Array.from({ length: 100 }, (_, i) => `key ${i}`);
    const many = cache.getOrSetMany(keys, () => new Promise<string[]>(() => {}), { signal: controller.signal });
    await new Promise((resolve) => setTimeout(resolve, 5));
    controller.abort(new Error("enough"));
    await expect(inTime(many, "the abort")).rejects.toThrow("enough");
    process.off("warning", warn);
    expect(warnings).toEqual([]);
  });
});

describe("a process that is stopped", () => {
  test("a frozen owner is replaced after its lease, and its late result is refused", async () => {
    const [cache, owner, guest] = await on("processes", 2);
    const first = owner.getOrSet("key", { lease: 100 });
    await first.loading;
    const second = guest.getOrSet("key", { lease: 100 });
    await guest.arrived();
    owner.signal("SIGSTOP");
    await second.loading;
    await guest.finish(second, "replaced");
    expect(await second.value).toBe("replaced");
    owner.signal("SIGCONT");
    await owner.finish(first, "late");
    expect(await first.value).toBe("late");
    expect(cache.get("key")).toBe("replaced");
  });

  test("those who wait for an overtaken load go on when its owner is frozen for longer than its lease", async () => {
    const [cache, owner, guest] = await on("processes", 2);
    const first = owner.getOrSet("key", { lease: 100 });
    await first.loading;
    const second = guest.getOrSet("key");
    await guest.arrived();
    cache.set("key", "set");
    owner.signal("SIGSTOP");
    expect(await second.value).toBe("set");
  });

  test("a waiter that is frozen gets the value when it goes on", async () => {
    const [, owner, guest] = await on("processes", 2);
    const first = owner.getOrSet("key");
    await first.loading;
    const second = guest.getOrSet("key");
    await guest.arrived();
    guest.signal("SIGSTOP");
    await owner.finish(first, "value");
    expect(await first.value).toBe("value");
    guest.signal("SIGCONT");
    expect(await second.value).toBe("value");
  });
});

test("10,000 calls of one key by four processes with two threads each run the loader once", async () => {
  stage = new Stage("processes", `t-${process.pid}-flights-${stages++}`);
  const peers = await stage.peers(4, 2);
  const results = await Promise.all(peers.map((peer) => peer.crowd("key", 1250, 100)));
  expect(results.flat()).toHaveLength(8);
  expect(new Set(results.flat()).size).toBe(1);
  expect(stage.cache.get("loads")).toBe(1);
});

describe("in one thread", () => {
  test("loaders that wait for each other by way of calls that others have begun are refused", async () => {
    const [cache] = await on("threads", 0);
    let goOn = (): void => {};
    const gate = new Promise<void>((resolve) => (goOn = resolve));
    // The loader of b was not started by the loader of a.
    const b = cache.getOrSet("b", async () => {
      await gate;
      return `b after ${await cache.getOrSet("a", never)}`;
    });
    const a = cache.getOrSet("a", async () => `a after ${await cache.getOrSet("b", never)}`);
    goOn();
    const results = await inTime(Promise.allSettled([a, b]), "no deadlock");
    for (const result of results) {
      expect(result.status === "rejected" && String(result.reason)).toContain("waits for this key itself");
    }
  });

  test("two openings of a cache by one thread notice a loader that asks for its own key", async () => {
    const one = together.createCache({ size: "1mb" });
    const other = together.attachCache(one.handle);
    try {
      await expect(
        inTime(
          one.getOrSet("key", () => other.getOrSet("key", () => 1)),
          "no deadlock",
        ),
      ).rejects.toThrow("itself");
      await expect(
        inTime(
          one.getOrSet("key", () => one.getOrSet("key", () => 1, { fresh: true })),
          "no deadlock",
        ),
      ).rejects.toThrow("itself");
      // The same key of another cache is another key.
      const another = together.createCache({ size: "1mb" });
      expect(await one.getOrSet("key", () => another.getOrSet("key", () => 5))).toBe(5);
      another.close();
    } finally {
      one.close();
      other.close();
    }
  });

  test("close of one of two openings of a thread releases the claims of its loads", async () => {
    const one = together.createCache({ size: "1mb" });
    const other = together.attachCache(one.handle);
    try {
      const first = one.getOrSet("key", () => new Promise<never>(() => {}), { lease: 1e9 });
      const second = other.getOrSet("key", () => "by the other");
      one.close();
      await expect(first).rejects.toMatchObject({ code: "ERR_CLOSED" });
      expect(await inTime(second, "the load")).toBe("by the other");
    } finally {
      one.close();
      other.close();
    }
  });

  test("a call that a loader has left behind is not refused when the loader is over", async () => {
    const [cache] = await on("threads", 0);
    let later: Promise<unknown> | undefined;
    await cache.getOrSet("key", () => {
      later = new Promise((resolve) => setTimeout(resolve, 5)).then(() =>
        cache.getOrSet("key", () => 2, { fresh: true }),
      );
      return 1;
    });
    expect(await inTime(later as Promise<unknown>, "the later call")).toBe(2);
  });

  test("a loader runs in the asynchronous context of the call that it belongs to, also after a wait", async () => {
    const [cache] = await on("threads", 0);
    const other = (stage as Stage).another();
    const context = new AsyncLocalStorage<string>();
    let fail = (_: Error): void => {};
    const first = cache.getOrSet("key", () => new Promise((_, reject) => (fail = reject)));
    first.catch(() => {});
    const waits = context.run("mine", () => other.getOrSet("key", () => context.getStore(), { fresh: true }));
    fail(new Error("away"));
    expect(await inTime(waits, "the second load")).toBe("mine");
    expect(context.getStore()).toBeUndefined();
  });

  test("fake timers do not stop a call that waits, nor its timeout", async () => {
    const [cache] = await on("threads", 0);
    const other = (stage as Stage).another();
    vi.useFakeTimers();
    try {
      let finish = (_: string): void => {};
      const first = cache.getOrSet("key", () => new Promise<string>((resolve) => (finish = resolve)));
      const waits = other.getOrSet("key", never);
      await expect(other.getOrSet("key", never, { timeout: 10 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
      finish("value");
      expect(await Promise.all([first, waits])).toEqual(["value", "value"]);
    } finally {
      vi.useRealTimers();
    }
  });

  test("what is not stored is not among the keys and values, and is gone after ten seconds of the cache's clock", async () => {
    let now = 1_000_000;
    const cache = apart.createCache({ size: "1mb", now: () => now });
    const other = apart.attachCache(cache.handle, { now: () => now });
    try {
      let finish = (_: number): void => {};
      const first = cache.getOrSet("key", () => new Promise<number>((resolve) => (finish = resolve)), { ttl: 0 });
      const waits = other.getOrSet("key", never);
      finish(7);
      expect(await inTime(Promise.all([first, waits]), "both")).toEqual([7, 7]);
      expect([cache.size, [...cache.keys()]]).toEqual([0, []]);
      now += 10_000;
      cache.set("a", 1);
      expect(cache.census().entries).toBe(1);
    } finally {
      cache.close();
      other.close();
    }
  });
});

test("a call that comes after an invalidation does not get what a process has published that died before it stored the value", async () => {
  const [cache, owner] = await on("processes", 1);
  const begun = new Promise<void>((resolve) => {
    owner.onLoad = () => resolve();
  });
  owner.dieBeforeStoring("key");
  await inTime(begun, "the load");
  const loads = { count: 0 };
  const load = (): string => `new ${++loads.count}`;
  const early = cache.getOrSet("key", load, { tags: ["tag"] });
  await inTime(cache.waitFor("storing"), "the owner stores");
  cache.invalidateTag("tag");
  const late = cache.getOrSet("key", load, { tags: ["tag"] });
  cache.set("go", true);
  await inTime(owner.ended, "the owner's death");
  expect(await inTime(early, "the early call")).toBe("old");
  expect(await inTime(late, "the late call")).toBe("new 1");
  expect(cache.get("key")).toBe("new 1");
});
