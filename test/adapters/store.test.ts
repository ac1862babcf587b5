/**
 * What adapters have in common over a cache and over a tier, with a double of a tier (later.ts): over a cache the work is done in the
 * call itself, over a tier nothing is answered before the tier has answered, and its errors arrive. With a real server: tier.test.ts.
 */

import { type Cache, createCache } from "cache-machine";
import { cacheMachineDriver as bentocacheDriver } from "cache-machine/bentocache";
import { CacheMachineStore } from "cache-machine/express-rate-limit";
import { createStore, type RequestCount } from "cache-machine/fastify-rate-limit";
import { KeyvCacheMachine } from "cache-machine/keyv";
import { createCacheHandler, type NextCacheEntry } from "cache-machine/next";
import { createIncrementalCacheHandler } from "cache-machine/next/incremental";
import { createRateLimiter } from "cache-machine/rate-limiter-flexible";
import { storeChecks } from "cache-machine/testing";
import { CacheMachineStore as UndiciStore } from "cache-machine/undici";
import driver from "cache-machine/unstorage";
import { Keyv } from "keyv";
import { RateLimiterMemcache, RateLimiterMemory } from "rate-limiter-flexible";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { after, all, isPromise, rescued, run, type Steps } from "../../src/adapters/promises.ts";
import { seeded } from "../contract/seeded.ts";
import { later } from "./later.ts";

let cache: Cache<any, any>;
beforeEach(() => void (cache = seeded(1, () => createCache({ size: "8mb" }))));
afterEach(() => cache.close());

const HOUR = 3_600_000;

describe("what may be a promise", () => {
  const steps = function* (log: unknown[], values: unknown[]): Steps<string> {
    for (const value of values) {
      try {
        log.push(yield value);
      } catch (error) {
        log.push(`caught ${error}`);
      }
    }
    return "done";
  };

  test("goes on at once with what is none, and later with what is one", async () => {
    expect(after(1, (value) => value + 1)).toBe(2);
    const sum = after(Promise.resolve(1), (value) => value + 1);
    expect(isPromise(sum)).toBe(true);
    expect(await sum).toBe(2);
    expect(all([1, 2])).toEqual([1, 2]);
    expect(await all([1, Promise.resolve(2)])).toEqual([1, 2]);
  });

  test("an error is rescued, whether it is thrown or a rejection", async () => {
    const failing = (): never => {
      throw new Error("thrown");
    };
    const message = (error: unknown): string => (error as Error).message;
    expect(rescued(failing, message)).toBe("thrown");
    expect(await rescued(() => Promise.reject(new Error("rejected")), message)).toBe("rejected");
    expect(() => rescued(failing, failing)).toThrow("thrown");
  });

  test("steps run up to the first promise in the call itself, and get rejections as errors", async () => {
    const log: unknown[] = [];
    const noPromise = JSON.parse('{"then":4}');
    expect(run(steps(log, [1, "two", undefined, noPromise]))).toBe("done");
    expect(log).toEqual([1, "two", undefined, noPromise]);
    log.length = 0;
    const running = run(steps(log, [1, Promise.resolve(2), 3, Promise.reject(new Error("four")), Promise.resolve(5)]));
    expect(log).toEqual([1]);
    expect(await running).toBe("done");
    expect(log).toEqual([1, 2, 3, "caught Error: four", 5]);
  });

  test("an error of steps is thrown before the first promise, and a rejection after it", async () => {
    const failing = function* (value: unknown): Steps<void> {
      yield value;
      throw new Error("failed");
    };
    expect(() => run(failing(1))).toThrow("failed");
    const running = run(failing(Promise.resolve(1)));
    await expect(running).rejects.toThrow("failed");
  });
});

describe("over a cache the work is done in the call itself", () => {
  test("of the stores for rate limits", () => {
    const express = new CacheMachineStore(cache);
    expect(express.increment("a").totalHits).toBe(1);
    expect(express.get("a")?.totalHits).toBe(1);
    express.decrement("a");
    express.decrement("a");
    expect(express.get("a")?.totalHits).toBe(0);
    let counted: RequestCount | undefined;
    new (createStore(cache))({}).incr("a", (_, result) => void (counted = result), HOUR, 1);
    expect(counted?.current).toBe(1);
    const Limiter = createRateLimiter(RateLimiterMemcache);
    void new Limiter({ storeClient: cache, points: 5, duration: 60 }).consume("a");
    expect(cache.get("rlflx:a")).toBe(1);
  });

  test("of the others", () => {
    const items = driver({ cache });
    items.setItem("a", "1");
    expect(items.getItem("a")).toBe("1");
    expect(items.getKeys()).toEqual(["a"]);
    expect(items.getItems([{ key: "a" }])).toEqual([{ key: "a", value: "1" }]);
    void new KeyvCacheMachine(cache).set("a", "1");
    expect(cache.namespace("keyv").namespace("serialized").get("a")).toBe("1");
    void createCacheHandler({ cache }).updateTags(["a"]);
    expect(cache.namespace("next").tagInvalidatedAt("a")).toBeGreaterThan(0);
    const incremental = new (createIncrementalCacheHandler({ cache }))({});
    void incremental.set("/", { kind: "PAGES", html: "page" }, {});
    expect([...cache.namespace("next").namespace("entries").keys()]).toHaveLength(1);
  });
});

describe("over a tier", () => {
  test("the store for express-rate-limit counts, and tells when the server is away", async () => {
    const tier = later(cache);
    const store = new CacheMachineStore(tier) as CacheMachineStore<any>;
    store.init({ windowMs: HOUR });
    const counts = await Promise.all([store.increment("a"), store.increment("a")]);
    expect(counts.map(({ totalHits }) => totalHits)).toEqual([1, 2]);
    expect(counts[1]?.resetTime?.getTime()).toBeCloseTo(Date.now() + HOUR, -3);
    for (const left of [1, 0, 0]) {
      await store.decrement("a");
      expect((await store.get("a"))?.totalHits).toBe(left);
    }
    await store.decrement("b");
    expect(await store.get("b")).toBe(undefined);
    await store.resetKey("a");
    expect(await store.get("a")).toBe(undefined);
    await store.increment("a");
    await store.resetAll();
    expect(await store.get("a")).toBe(undefined);
    tier.server.away = true;
    await expect(store.increment("a")).rejects.toMatchObject({ code: "ERR_UNREACHABLE" });
    await expect(store.decrement("a")).rejects.toMatchObject({ code: "ERR_UNREACHABLE" });
  });

  test("the store for @fastify/rate-limit answers later, prolongs windows, and hands over errors", async () => {
    const tier = later(cache);
    const counts = cache.namespace("fastify-rate-limit-");
    const countedBy = (settings: object) => {
      const store = new (createStore(tier))(settings);
      return (max: number): Promise<RequestCount> =>
        new Promise((resolve, reject) => {
          let isReturned = false;
          const answer = (error: Error | null, result?: RequestCount): void => {
            if (!isReturned) reject(new Error("answered before the tier has"));
            else if (error === null) resolve(result as RequestCount);
            else reject(error);
          };
          store.incr("a", answer, 1000, max);
          isReturned = true;
        });
    };
    const plain = countedBy({});
    expect(await plain(1)).toMatchObject({ current: 1 });
    expect((await plain(1)).ttl).toBeLessThanOrEqual(1000);
    const doubling = countedBy({ exponentialBackoff: true });
    expect(await doubling(1)).toEqual({ current: 3, ttl: 2000 });
    expect(counts.ttl("\0a")).toBeGreaterThan(1000);
    expect(await doubling(1)).toEqual({ current: 4, ttl: 4000 });
    // The window ends between the count and the touch.
    tier.namespace = () => ({ ...later(counts), touch: async (key: string) => counts.delete(key) && false });
    const going = countedBy({ continueExceeding: true });
    expect(await going(1)).toEqual({ current: 5, ttl: 1000 });
    expect(counts.get("\0a")).toBe(5);
    const away = later(cache);
    away.server.away = true;
    const store = new (createStore(away))({});
    const error = await new Promise((resolve) => store.incr("a", resolve, 1000, 1));
    expect(error).toMatchObject({ code: "ERR_UNREACHABLE" });
    expect(await new Promise((resolve) => store.read("a", (...all) => resolve(all)))).toEqual([
      null,
      { current: 0, ttl: 0 },
    ]);
  });

  test("the limiter of rate-limiter-flexible consumes, blocks, and leaves the rest to its insurance", async () => {
    const tier = later(cache);
    const Limiter = createRateLimiter(RateLimiterMemcache);
    const limiter = new Limiter({
      storeClient: tier,
      points: 2,
      duration: 60,
      blockDuration: 600,
      insuranceLimiter: new RateLimiterMemory({ points: 1, duration: 60 }),
    });
    expect((await limiter.consume("a")).remainingPoints).toBe(1);
    expect((await limiter.consume("a")).remainingPoints).toBe(0);
    await expect(limiter.consume("a")).rejects.toMatchObject({ consumedPoints: 3 });
    expect((await limiter.get("a"))?.msBeforeNext).toBeGreaterThan(500_000);
    expect(await limiter.delete("a")).toBe(true);
    expect(await limiter.get("a")).toBe(null);
    tier.server.away = true;
    expect((await limiter.consume("a")).remainingPoints).toBe(0);
    await expect(limiter.consume("a")).rejects.toMatchObject({ consumedPoints: 2 });
  });

  test("Keyv emits the error of a write, and finds nothing, while the server is away", async () => {
    const tier = later(cache);
    const keyv = new Keyv({ store: new KeyvCacheMachine(tier) });
    const errors: any[] = [];
    keyv.on("error", (error) => errors.push(error));
    expect(await keyv.set("a", 1)).toBe(true);
    tier.server.away = true;
    expect(await keyv.get("a")).toBe(undefined);
    expect(await keyv.set("b", 1)).toBe(false);
    expect(errors).toMatchObject([{ code: "ERR_UNREACHABLE" }]);
    tier.server.away = false;
    expect(await keyv.get("a")).toBe(1);
    // More than the server takes; the double takes as much as its cache.
    expect(await keyv.set("a", "x".repeat(2 << 20))).toBe(false);
    expect(await keyv.get("a")).toBe(undefined);
    expect(errors).toHaveLength(1);
  });

  test("unstorage is told of a write that failed, and long keys are listed and cleared below their base", async () => {
    const tier = later(cache);
    const items = driver({ cache: tier }) as any;
    const long = `users:${"x".repeat(2000)}`;
    await items.setItems([
      { key: "users:1", value: "1" },
      { key: long, value: "long" },
      { key: "other", value: "2", options: { ttl: 60 } },
    ]);
    expect((await items.getKeys("users:")).sort()).toEqual(["users:1", long].sort());
    expect(await items.getItems([{ key: long }, { key: "none" }])).toEqual([
      { key: long, value: "long" },
      { key: "none", value: null },
    ]);
    expect((await items.getMeta("other")).ttl).toBeCloseTo(60, 0);
    await items.setItem("other", "2", { ttl: -1 });
    expect(await items.hasItem("other")).toBe(false);
    await items.clear("users:");
    expect(await items.getKeys()).toEqual([]);
    tier.server.away = true;
    await expect(items.setItem("a", "1")).rejects.toMatchObject({ code: "ERR_UNREACHABLE" });
    await expect(items.removeItem("a")).rejects.toMatchObject({ code: "ERR_UNREACHABLE" });
    expect(await items.getItem("users:1")).toBe(null);
  });

  test("the adapters that need answers at once say so", () => {
    expect(() => new UndiciStore(later(cache))).toThrow(/^cache: must be a cache, and is a tier/);
    expect(() => bentocacheDriver({ cache: later(cache) })).toThrow(/^options\.cache: must be a cache, and is a tier/);
  });
});

describe("the handlers for Next.js over a tier", () => {
  const nextTime = (): number => performance.timeOrigin + performance.now();
  /** For the handlers, what began in the millisecond of an invalidation was there before it. */
  const nextMillisecond = (): void => {
    for (const then = Date.now(); Date.now() < then + 2; );
  };
  const entry = (text: string, more: Partial<NextCacheEntry> = {}): Promise<NextCacheEntry> =>
    Promise.resolve({
      value: new Response(text).body as ReadableStream<Uint8Array>,
      tags: ["tag"],
      stale: 0,
      timestamp: nextTime(),
      expire: 3600,
      revalidate: 60,
      ...more,
    });
  const textOf = async (found: Promise<NextCacheEntry | undefined>): Promise<string | undefined> => {
    const { value } = (await found) ?? {};
    return value && new Response(value).text();
  };
  const page = (html: string): object => ({
    kind: "PAGES",
    html,
    pageData: {},
    headers: { "x-next-cache-tags": "tag" },
  });

  // The clock of the server has nothing to do with that of the host. Both handlers speak of the clock of Next.js in this process.
  test.each([0, 7 * HOUR, -7 * HOUR])(
    "compare times by the clock of the server, which is %d ms ahead",
    async (ahead) => {
      const tier = later(cache, { away: false, ahead, calls: [] });
      const handler = createCacheHandler({ cache: tier });
      const incremental = new (createIncrementalCacheHandler({ cache: tier }))({});
      const lastModified = nextTime();
      await handler.set("key", entry("one"));
      await incremental.set("/", page("one"), {});
      const found = (await handler.get("key", ["path"])) as NextCacheEntry;
      expect(Math.abs(found.timestamp - lastModified)).toBeLessThan(2000);
      const foundPage = await incremental.get("/", { kind: "PAGES", softTags: ["path"] });
      expect(Math.abs((foundPage?.lastModified as number) - lastModified)).toBeLessThan(2000);
      expect(await handler.getExpiration(["tag"])).toBe(0);

      await handler.updateTags(["tag"]);
      expect(await handler.get("key", [])).toBe(undefined);
      expect(await incremental.get("/", { kind: "PAGES" })).toBe(null);
      expect(Math.abs((await handler.getExpiration(["tag"])) - nextTime())).toBeLessThan(2000);

      // What began before the invalidation is not stored, and what began after it is.
      await handler.set("key", entry("too old", { timestamp: nextTime() - 5000 }));
      expect(await handler.get("key", [])).toBe(undefined);
      nextMillisecond();
      await handler.set("key", entry("two"));
      expect(await textOf(handler.get("key", []))).toBe("two");

      await incremental.revalidateTag(["tag"], { expire: 3600 });
      expect((await handler.get("key", []))?.revalidate).toBe(-1);
      // A tag of the path counts as well, though the entry does not have it.
      await handler.updateTags(["path"]);
      expect(await handler.get("key", ["path"])).toBe(undefined);
      expect(await textOf(handler.get("key", []))).toBe("two");
    },
  );

  test("what cannot be stored or read is not cached, and an invalidation that fails is told", async () => {
    const tier = later(cache);
    const handler = createCacheHandler({ cache: tier });
    const incremental = new (createIncrementalCacheHandler({ cache: tier }))({});
    await handler.set("key", entry("one"));
    tier.server.away = true;
    expect(await handler.get("key", [])).toBe(undefined);
    expect(await incremental.get("/", { kind: "PAGES" })).toBe(null);
    await handler.set("key", entry("two"));
    await incremental.set("/", page("two"), {});
    expect(await handler.getExpiration(["tag"])).toBe(Infinity);
    await expect(handler.updateTags(["tag"])).rejects.toMatchObject({ code: "ERR_UNREACHABLE" });
    await expect(incremental.revalidateTag("tag")).rejects.toMatchObject({ code: "ERR_UNREACHABLE" });
    tier.server.away = false;
    expect(await textOf(handler.get("key", []))).toBe("one");
    expect(await incremental.get("/", { kind: "PAGES" })).toBe(null);
  });

  test("as long as the time of the server is not known, nothing is found and nothing is stored", async () => {
    const tier = later(cache);
    const handler = createCacheHandler({ cache: tier });
    await handler.set("key", entry("one"));
    tier.server.ahead = undefined;
    expect(await handler.get("key", [])).toBe(undefined);
    await handler.set("key", entry("two"));
    tier.server.ahead = 0;
    expect(await textOf(handler.get("key", []))).toBe("one");
  });

  test("the tags of an entry are handed to the tier, in portions that it takes", async () => {
    const tier = later(cache);
    const handler = createCacheHandler({ cache: tier });
    const tags = Array.from({ length: 300 }, (_, i) => `tag ${i}`);
    await handler.set("key", entry("one", { tags }));
    expect(cache.namespace("next").getEntry("use cache key")?.tags).toEqual(tags.slice(0, 128));
    // A tier may forget after a day when a tag was invalidated.
    await handler.set("long", entry("one", { expire: 30 * 86_400 }));
    expect(cache.namespace("next").ttl("use cache long")).toBeLessThan(86_400_000);
    await handler.updateTags(["tag 299"]);
    expect(await handler.get("key", [])).toBe(undefined);
    await handler.updateTags(tags);
    expect(await handler.getExpiration(["tag 0"])).toBeGreaterThan(0);
  });

  test("a function opens the tier at the first use, once, and again after an error; not during a build", async () => {
    let opened = 0;
    let fails = true;
    const open = async () => {
      opened++;
      await new Promise((resolve) => setImmediate(resolve));
      if (fails) throw new Error("cannot be opened");
      return later(cache);
    };
    const handler = createCacheHandler({ cache: open });
    expect(opened).toBe(0);
    await expect(handler.get("key", [])).rejects.toThrow("cannot be opened");
    fails = false;
    await Promise.all([handler.set("key", entry("one")), handler.get("other", []), handler.getExpiration(["tag"])]);
    expect(await textOf(handler.get("key", []))).toBe("one");
    expect(opened).toBe(2);
    // Also one that opens a cache, at once.
    const once = createCacheHandler({ cache: () => cache });
    void once.updateTags(["a"]);
    expect(cache.namespace("next").tagInvalidatedAt("a")).toBeGreaterThan(0);
    const wrong = createCacheHandler({ cache: (async () => new Map()) as never });
    await expect(wrong.get("key", [])).rejects.toThrow("options.cache(): must be a cache");
    expect(() => createCacheHandler({ cache: open, name: "a" })).toThrow("`cache` and `name` exclude each other");

    process.env.NEXT_PHASE = "phase-production-build";
    try {
      const building = createCacheHandler({ cache: open });
      await building.set("key", entry("built"));
      expect(await textOf(building.get("key", []))).toBe("built");
      expect(opened).toBe(2);
    } finally {
      delete process.env.NEXT_PHASE;
    }
  });
});

describe.each(["", " plain"])("the checks of a store with Keyv%s over the double", (kind) => {
  const checks = storeChecks({
    open({ namespace = "store" } = {}) {
      const store = new KeyvCacheMachine(later(cache), { namespace, serialization: kind === "" });
      const keyv: any = new Keyv({ store, ...(kind === "" ? {} : { serialize: undefined, deserialize: undefined }) });
      return {
        get: (key) => keyv.get(key),
        set: (key, value, { ttl } = {}) => keyv.set(key, value, ttl),
        delete: (key) => keyv.delete(key),
        has: (key) => keyv.has(key),
        clear: () => keyv.clear(),
        getMany: (keys) => keyv.getMany(keys),
        setMany: (entries) => keyv.setMany(entries.map(([key, value, ttl]) => ({ key, value, ttl }))),
        deleteMany: (keys) => keyv.deleteMany(keys),
        async keys() {
          const keys: string[] = [];
          for await (const [key] of keyv.iterator()) if (key.length <= 1024) keys.push(key);
          return keys;
        },
      };
    },
    namespaces: true,
    members: ["delete", "has", "clear", "getMany", "setMany", "deleteMany", "keys"],
  });
  for (const { name, run } of checks) test(name, run);
});
