/**
 * Tests the store for express-rate-limit: alone, against the MemoryStore of express-rate-limit, in Express, and in two and four
 * processes.
 */

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type Cache, createCache } from "cache-machine";
import { CacheMachineStore } from "cache-machine/express-rate-limit";
import express, { type Express } from "express";
import { MemoryStore, type Options, rateLimit } from "express-rate-limit";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { seeded } from "../contract/seeded.ts";
import { generator } from "../crash/checked-values.mjs";
import { compile } from "./compile.ts";
import { KEYS, LimitServers, limitChecks } from "./limits.ts";

const MINUTE = 60_000;
const START = 1_800_000_000_000;
let cache: Cache;

beforeEach(() => {
  cache = seeded(1, () => createCache({ size: "1mb" }));
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  cache.close();
});

function storeOf(windowMs: number, prefix?: string): CacheMachineStore {
  const store = new CacheMachineStore(cache, { prefix });
  store.init({ windowMs });
  return store;
}

test("the store fits the types of express-rate-limit", () => compile("express-rate-limit.types.ts"));

describe("the store", () => {
  beforeEach(() => void vi.useFakeTimers({ now: START }));

  test("the first hit begins a window, the others do not prolong it, and the next one begins another", () => {
    const store = storeOf(MINUTE);
    const end = new Date(START + MINUTE);
    expect(store.get("a")).toBe(undefined);
    expect(store.increment("a")).toEqual({ totalHits: 1, resetTime: end });
    vi.setSystemTime(START + MINUTE - 1);
    expect(store.increment("a")).toEqual({ totalHits: 2, resetTime: end });
    expect(store.get("a")).toEqual({ totalHits: 2, resetTime: end });
    expect(store.increment("b")).toEqual({ totalHits: 1, resetTime: new Date(START + 2 * MINUTE - 1) });
    vi.setSystemTime(START + MINUTE);
    expect(store.get("a")).toBe(undefined);
    expect(store.increment("a")).toEqual({ totalHits: 1, resetTime: new Date(START + 2 * MINUTE) });
  });

  test("a hit that is taken back counts no more, never below 0, and keeps the end of the window", () => {
    const store = storeOf(MINUTE);
    const end = new Date(START + MINUTE);
    store.increment("a");
    store.increment("a");
    vi.setSystemTime(START + 1000);
    store.decrement("a");
    expect(store.get("a")).toEqual({ totalHits: 1, resetTime: end });
    for (let i = 0; i < 3; i++) store.decrement("a");
    expect(store.get("a")).toEqual({ totalHits: 0, resetTime: end });
    expect(store.increment("a")).toEqual({ totalHits: 1, resetTime: end });
    store.decrement("absent");
    expect(store.get("absent")).toBe(undefined);
  });

  test("resetKey forgets one client, resetAll those of its prefix and nothing else", () => {
    const [one, other, same] = [storeOf(MINUTE, "one"), storeOf(MINUTE, "other"), storeOf(MINUTE, "one")];
    cache.set("a", "not a count");
    for (const store of [one, other]) for (const key of ["a", "b"]) store.increment(key);
    expect(same.increment("a").totalHits).toBe(2);
    one.resetKey("a");
    one.resetKey("absent");
    expect([one.get("a"), one.get("b")?.totalHits, other.get("a")?.totalHits]).toEqual([undefined, 1, 1]);
    one.resetAll();
    expect([one.get("b"), other.get("b")?.totalHits, cache.get("a")]).toEqual([undefined, 1, "not a count"]);
    expect(one.increment("b").totalHits).toBe(1);
  });

  test("shutdown leaves the counts and the cache as they are", () => {
    const store = storeOf(MINUTE);
    store.increment("a");
    store.shutdown();
    expect(store.increment("a").totalHits).toBe(2);
  });

  test("without init the window is the minute of express-rate-limit", () => {
    const store = new CacheMachineStore(cache);
    expect(store.increment("a").resetTime).toEqual(new Date(START + MINUTE));
  });

  test.each([0, -1])("in a window of %d ms every hit is the first", (windowMs) => {
    const store = storeOf(windowMs);
    for (let i = 0; i < 3; i++) {
      expect(store.increment("a")).toEqual({ totalHits: 1, resetTime: new Date(START + windowMs) });
    }
    expect(store.get("a")).toBe(undefined);
  });

  test.each([Infinity, Number.MAX_SAFE_INTEGER])("a window of %d ms has no time of reset, and counts", (windowMs) => {
    const store = storeOf(windowMs);
    store.increment("a");
    vi.setSystemTime(START + 1e12);
    expect(store.increment("a")).toEqual({ totalHits: 2, resetTime: undefined });
  });

  test("odd, long and hostile keys are counted apart", () => {
    const store = storeOf(MINUTE);
    for (const key of KEYS) expect(store.increment(key).totalHits).toBe(1);
    for (const key of KEYS) expect(store.get(key)?.totalHits).toBe(1);
    // Who knows how a long key is stored, cannot hit it by that name.
    for (const key of cache.namespace("rl:").keys()) {
      if (key.startsWith("\0sha256:")) expect(store.increment(key).totalHits).toBe(1);
    }
    expect(store.increment(undefined as never).totalHits).toBe(1);
    expect(store.increment("undefined").totalHits).toBe(2);
  });

  test("wrong arguments are errors that name them", () => {
    expect(() => new CacheMachineStore({} as Cache)).toThrow(
      new TypeError(
        "cache: must be a cache, as openCache, createCache or attachCache return it, or a tier, as openTier returns it",
      ),
    );
    expect(() => new CacheMachineStore(undefined as never)).toThrow(/^cache: must be a cache/);
    expect(() => new CacheMachineStore(cache, null as never)).toThrow("options: must be an object");
    expect(() => new CacheMachineStore(cache, { prefx: "" } as never)).toThrow(
      "options.prefx: there is no such option. The options are `prefix`.",
    );
    expect(() => new CacheMachineStore(cache, { prefix: 1 as never })).toThrow("options.prefix: must be a string");
    expect(() => new CacheMachineStore(cache, { prefix: "" })).toThrow("options.prefix: must not be empty");
    for (const windowMs of [Number.NaN, undefined, "1000"]) {
      expect(() => storeOf(windowMs as never)).toThrow(TypeError);
      expect(() => storeOf(windowMs as never)).toThrow("windowMs: must be a number");
    }
  });

  test("a closed cache is an error, not a request that went through", () => {
    const store = storeOf(MINUTE);
    cache.close();
    for (const call of ["increment", "decrement", "get", "resetKey", "resetAll"] as const) {
      expect(() => store[call]("a")).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    }
  });

  test("random calls have the same results as those of the MemoryStore", async () => {
    for (let seed = 1; seed <= 30; seed++) {
      const { below } = generator(seed);
      const [ours, theirs] = [storeOf(1000), new MemoryStore()];
      theirs.init({ windowMs: 1000 } as Options);
      for (let step = 0; step < 100; step++) {
        const key = `${below(3)}`;
        const call = (["increment", "increment", "get", "decrement", "resetKey"] as const)[below(5)] ?? "get";
        // The MemoryStore gives a client without hits a window when a hit is taken back; a cache has nothing to take back there.
        if (call === "decrement" && (await theirs.get(key)) === undefined) continue;
        const results = [ours[call](key), await theirs[call](key)].map((result) => result && { ...result });
        expect(results[0], `seed ${seed}, step ${step}: ${call} ${key}`).toEqual(results[1]);
        vi.advanceTimersByTime(below(400));
      }
      ours.resetAll();
      theirs.shutdown();
    }
  });
});

describe("in Express", () => {
  /** Runs an application while `use` asks it. */
  async function serve(app: Express, use: (ask: (where: string) => Promise<Response>) => Promise<void>): Promise<void> {
    const server = createServer(app).listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as AddressInfo;
    try {
      await use((where) => fetch(`http://127.0.0.1:${port}${where}`, { signal: AbortSignal.timeout(20_000) }));
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }

  test("limiters count apart by their prefixes, and express-rate-limit has nothing to warn of", async () => {
    const said = [vi.spyOn(console, "error"), vi.spyOn(console, "warn")];
    const store = (prefix: string) => new CacheMachineStore(cache, { prefix });
    const app = express();
    const all = rateLimit({ limit: 3, windowMs: MINUTE, standardHeaders: "draft-8", store: store("all:") });
    app.use(all);
    app.get("/login", rateLimit({ limit: 1, windowMs: MINUTE, store: store("login:") }), (_, res) => res.end("in"));
    app.get("/", (_, res) => res.end("hello"));
    await serve(app, async (ask) => {
      const first = await ask("/login");
      expect(first.status).toBe(200);
      expect(first.headers.get("ratelimit")).toMatch(/^"3-in-1min"; r=2; t=60$/);
      expect((await ask("/login")).status).toBe(429);
      expect((await ask("/")).status).toBe(200);
      const refused = await ask("/");
      expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "60"]);
      expect(await all.getKey("127.0.0.1")).toMatchObject({ totalHits: 4 });
      all.resetKey("127.0.0.1");
      expect((await ask("/")).status).toBe(200);
    });
    for (const spy of said) expect(spy.mock.calls).toEqual([]);
  });

  test("express-rate-limit tells of a request that two limiters with one prefix count twice", async () => {
    const said = vi.spyOn(console, "error").mockReturnValue();
    const app = express();
    for (let i = 0; i < 2; i++) app.use(rateLimit({ limit: 9, windowMs: MINUTE, store: new CacheMachineStore(cache) }));
    app.get("/", (_, res) => res.end());
    await serve(app, async (ask) => {
      expect((await ask("/")).headers.get("x-ratelimit-remaining")).toBe("7");
    });
    expect(said.mock.calls.flat()).toContainEqual(expect.objectContaining({ code: "ERR_ERL_DOUBLE_COUNT" }));
  });

  test("failed requests do not count with skipFailedRequests", async () => {
    const app = express();
    const store = new CacheMachineStore(cache);
    app.use(rateLimit({ limit: 1, windowMs: MINUTE, skipFailedRequests: true, store }));
    app.get("/bad", (_, res) => void res.status(400).end());
    app.get("/", (_, res) => res.end());
    await serve(app, async (ask) => {
      for (let i = 0; i < 3; i++) {
        expect((await ask("/bad")).status).toBe(400);
        await expect.poll(() => store.get("127.0.0.1")?.totalHits).toBe(0);
      }
      expect((await ask("/")).status).toBe(200);
      expect((await ask("/")).status).toBe(429);
    });
  });

  test("an error of the cache is an error of Express, unless passOnStoreError lets the request through", async () => {
    vi.spyOn(console, "error").mockReturnValue();
    const app = express();
    const closed = createCache({ size: "1mb" });
    app.use("/strict", rateLimit({ store: new CacheMachineStore(closed, { prefix: "a" }) }));
    app.use("/lax", rateLimit({ store: new CacheMachineStore(closed, { prefix: "b" }), passOnStoreError: true }));
    app.get(/./, (_, res) => res.end());
    closed.close();
    await serve(app, async (ask) => {
      expect((await ask("/strict")).status).toBe(500);
      expect((await ask("/lax")).status).toBe(200);
    });
  });
});

describe("in several processes", () => {
  let servers: LimitServers;
  beforeEach(() => {
    servers = new LimitServers("express");
  });
  afterEach(() => servers.stop());

  test("two processes count together, reset together, and a killed one leaves its counts", async () => {
    await servers.start("express", 2, 4);
    const left = async (index: number) =>
      (await servers.ask(index)).headers.get("ratelimit")?.match(/remaining=(\d+)/)?.[1];
    expect([await left(0), await left(1), await left(0)]).toEqual(["3", "2", "1"]);
    await servers.ask(1, "DELETE");
    expect([await left(0), await left(1)]).toEqual(["3", "2"]);
    await servers.kill(0);
    expect(await left(0)).toBe("1");
  });

  test("four processes together let through exactly as many requests as the limit says", async () => {
    await servers.start("express", 4, 150);
    expect(await servers.flood(100)).toEqual({ 200: 150, 429: 250 });
    const { allowed, counted } = await servers.hammer("fast", 10_000);
    expect(allowed).toBe(150);
    expect(servers.cache.namespace("rl:").get("fast")).toBe(counted);
  });
});

describe("the check of cache-machine/testing", () => {
  const checks = limitChecks("express");
  test("is there", () => expect(checks).toHaveLength(1));
  test.each(checks)("$name", ({ run }) => run());
});
