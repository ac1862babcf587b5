/**
 * Tests the store for @fastify/rate-limit: alone, against the stores of the plugin, in Fastify, and in two and four processes.
 */

import { createRequire } from "node:module";
import rateLimit, { type RateLimitPluginOptions } from "@fastify/rate-limit";
import { type Cache, createCache } from "cache-machine";
import { createStore, type RateLimitStore, type RequestCount } from "cache-machine/fastify-rate-limit";
import Fastify, { type FastifyInstance } from "fastify";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { seeded } from "../contract/seeded.ts";
import { generator } from "../crash/checked-values.mjs";
import { compile } from "./compile.ts";
import { KEYS, LimitServers, limitChecks } from "./limits.ts";

const SECOND = 1000;
const START = 1_800_000_000_000;
/** The store that the plugin has for one process. */
const LocalStore: new (continueExceeding: boolean, exponentialBackoff: boolean) => RateLimitStore = createRequire(
  import.meta.url,
)("@fastify/rate-limit/store/LocalStore.js");
let cache: Cache;

beforeEach(() => {
  cache = seeded(1, () => createCache({ size: "1mb" }));
});
afterEach(() => {
  vi.useRealTimers();
  cache.close();
});

/** What a store answers. It has to answer exactly once, before the call returns. */
function answer(store: RateLimitStore, call: "incr" | "read", key: string, window: number, max: number): RequestCount {
  const answers: [Error | null, RequestCount | undefined][] = [];
  store[call](key, (error, result) => void answers.push([error, result]), window, max);
  expect(answers).toHaveLength(1);
  const [[error, result]] = answers as [[Error | null, RequestCount]];
  if (error !== null) throw error;
  return { current: result.current, ttl: result.ttl };
}
const hit = (store: RateLimitStore, key: string, window: number = SECOND, max = 2): RequestCount =>
  answer(store, "incr", key, window, max);
const read = (store: RateLimitStore, key: string): RequestCount => answer(store, "read", key, SECOND, 2);
const storeOf = (settings: object = {}, nameSpace?: string): RateLimitStore =>
  new (createStore(cache, { nameSpace }))(settings);

test("the store fits the types of @fastify/rate-limit", () => compile("fastify-rate-limit.types.ts"));

describe("the store", () => {
  beforeEach(() => void vi.useFakeTimers({ now: START }));

  test("the first request begins a window, the others do not prolong it, and the next one begins another", () => {
    const store = storeOf();
    expect(hit(store, "a")).toEqual({ current: 1, ttl: 1000 });
    vi.setSystemTime(START + 999);
    expect(hit(store, "a")).toEqual({ current: 2, ttl: 1 });
    expect(hit(store, "a")).toEqual({ current: 3, ttl: 1 });
    expect(hit(store, "b")).toEqual({ current: 1, ttl: 1000 });
    vi.setSystemTime(START + 1000);
    expect(hit(store, "a")).toEqual({ current: 1, ttl: 1000 });
  });

  test("reading neither counts nor prolongs", () => {
    const store = storeOf({ continueExceeding: true });
    expect(read(store, "a")).toEqual({ current: 0, ttl: 0 });
    hit(store, "a");
    vi.setSystemTime(START + 400);
    for (let i = 0; i < 5; i++) expect(read(store, "a")).toEqual({ current: 1, ttl: 600 });
    vi.setSystemTime(START + 1000);
    expect(read(store, "a")).toEqual({ current: 0, ttl: 0 });
  });

  test("with continueExceeding each refused request begins the window anew", () => {
    const store = storeOf({ continueExceeding: true });
    for (let i = 1; i <= 2; i++) hit(store, "a");
    for (let i = 3; i <= 6; i++) {
      vi.setSystemTime(START + (i - 2) * 900);
      expect(hit(store, "a")).toEqual({ current: i, ttl: 1000 });
      expect(read(store, "a")).toEqual({ current: i, ttl: 1000 });
    }
    vi.setSystemTime(START + 4 * 900 + 1000);
    expect(hit(store, "a").current).toBe(1);
  });

  test("with exponentialBackoff each refused request doubles the time, and the client waits as long as it was told", () => {
    const store = storeOf({ exponentialBackoff: true });
    expect(Array.from({ length: 6 }, () => hit(store, "a").ttl)).toEqual([1000, 1000, 1000, 2000, 4000, 8000]);
    vi.setSystemTime(START + 7999);
    expect(read(store, "a")).toEqual({ current: 6, ttl: 1 });
    vi.setSystemTime(START + 8000);
    expect(hit(store, "a").current).toBe(1);
    for (let i = 0; i < 80; i++) expect(hit(store, "b").ttl).toBeLessThanOrEqual(Number.MAX_SAFE_INTEGER);
    expect(hit(store, "b")).toEqual({ current: 81, ttl: Number.MAX_SAFE_INTEGER });
  });

  test("a window that ends while a refused request is counted goes on", () => {
    const counts = cache.namespace("fastify-rate-limit-");
    const namespace = vi.spyOn(cache, "namespace").mockReturnValue(counts);
    const store = storeOf({ continueExceeding: true });
    expect(namespace).toHaveBeenCalledOnce();
    for (let i = 0; i < 2; i++) hit(store, "a");
    const compareAndSet = counts.compareAndSet.bind(counts);
    vi.spyOn(counts, "compareAndSet").mockImplementationOnce((...args) => {
      vi.setSystemTime(START + 1000);
      return compareAndSet(...args);
    });
    expect(hit(store, "a").current).toBe(3);
    expect(read(store, "a")).toEqual({ current: 3, ttl: 1000 });
  });

  test("of two refused requests at once the later one sets the end", () => {
    const counts = cache.namespace("fastify-rate-limit-");
    vi.spyOn(cache, "namespace").mockReturnValue(counts);
    const [store, other] = [storeOf({ exponentialBackoff: true }), storeOf({ exponentialBackoff: true })];
    for (let i = 0; i < 2; i++) hit(store, "a");
    const compareAndSet = counts.compareAndSet.bind(counts);
    vi.spyOn(counts, "compareAndSet").mockImplementationOnce((...args) => {
      expect(hit(other, "a")).toEqual({ current: 4, ttl: 2000 });
      return compareAndSet(...args);
    });
    expect(hit(store, "a")).toEqual({ current: 3, ttl: 1000 });
    expect(read(store, "a")).toEqual({ current: 4, ttl: 2000 });
  });

  test.each([0, -1])("a window of %d ms is over at once", (window) => {
    const store = storeOf();
    for (let i = 0; i < 3; i++) expect(hit(store, "a", window)).toEqual({ current: 1, ttl: 0 });
  });

  test("routes, limiters without a route, and namespaces count apart; the same route of another store counts along", () => {
    const store = storeOf();
    const route = (method: string, url: string): RateLimitStore => store.child({ routeInfo: { method, url } });
    const stores = [
      store,
      ...[route("GET", "/a"), route("GET", "/a-b"), route("POST", "/a"), route("GET", "")],
      ...[store.child({ routeInfo: {} }), store.child({ routeInfo: {} })],
      storeOf({}, "another"),
    ];
    // Among them a key that begins as the rest of a longer route.
    for (const key of ["x", "-bx", "GET /a\0x", "1\0x"]) {
      for (const each of stores) expect(hit(each, key).current).toBe(1);
    }
    const second = storeOf();
    expect(hit(second, "x").current).toBe(2);
    expect(hit(second.child({ routeInfo: { method: "GET", url: "/a" } }), "x").current).toBe(2);
    expect(hit(second.child({ routeInfo: {} }), "x").current).toBe(2);
  });

  test("odd, long and hostile keys are counted apart", () => {
    const store = storeOf();
    for (const key of KEYS) expect(hit(store, key).current).toBe(1);
    for (const key of KEYS) expect(read(store, key).current).toBe(1);
    expect(hit(store, 7 as never).current).toBe(1);
    expect(hit(store, "7").current).toBe(2);
    const long = store.child({ routeInfo: { method: "GET", url: `/${"x".repeat(10_000)}` } });
    for (const key of KEYS) expect(hit(long, key).current).toBe(1);
  });

  test("wrong arguments are errors that name them", () => {
    expect(() => createStore({} as Cache)).toThrow(/^cache: must be a cache/);
    expect(() => createStore(cache, { namespace: "a" } as never)).toThrow("options.namespace: there is no such option");
    expect(() => createStore(cache, { nameSpace: 1 as never })).toThrow("options.nameSpace: must be a string");
    expect(() => createStore(cache, { nameSpace: "" })).toThrow("options.nameSpace: must not be empty");
    for (const window of [Number.NaN, null, "1000"]) {
      expect(() => hit(storeOf(), "a", window as never)).toThrow("timeWindow: must be a number of milliseconds");
    }
  });

  test("an error of the cache goes to the callback, once, and an error of the callback to its caller", () => {
    const store = storeOf();
    const thrown = new Error("of the callback");
    const callback = vi.fn(() => {
      throw thrown;
    });
    expect(() => store.incr("a", callback, 1000, 2)).toThrow(thrown);
    expect(callback).toHaveBeenCalledOnce();
    cache.close();
    for (const call of ["incr", "read"] as const) {
      expect(() => answer(store, call, "a", 1000, 2)).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    }
  });

  test.each([false, true])(
    "random requests have the same answers as those of the LocalStore, continueExceeding: %s",
    (continueExceeding) => {
      for (let seed = 1; seed <= 30; seed++) {
        const { below } = generator(seed);
        const pair = [storeOf({ continueExceeding }, `seed ${seed}`), new LocalStore(continueExceeding, false)];
        for (let step = 0; step < 100; step++) {
          const key = `${below(3)}`;
          const call = (["incr", "incr", "incr", "read"] as const)[below(4)] ?? "read";
          const [ours, theirs] = pair.map((store) => answer(store, call, key, SECOND, 3));
          expect(ours, `seed ${seed}, step ${step}: ${call} ${key}`).toEqual(theirs);
          vi.advanceTimersByTime(below(400));
        }
      }
    },
  );
});

describe("in Fastify", () => {
  const open: FastifyInstance[] = [];
  afterEach(async () => {
    for (const fastify of open.splice(0)) await fastify.close();
  });

  async function application(
    options: RateLimitPluginOptions,
    routes: (fastify: FastifyInstance) => void,
  ): Promise<FastifyInstance> {
    const fastify = Fastify();
    open.push(fastify);
    await fastify.register(rateLimit, { store: createStore(cache), ...options });
    fastify.get("/", async () => "hello");
    routes(fastify);
    return fastify;
  }

  test("a route with options of its own has a limit of its own, and refused clients are told when to come again", async () => {
    const fastify = await application({ max: 2, timeWindow: "1 minute" }, (app) => {
      app.get("/login", { config: { rateLimit: { max: 1, timeWindow: 5000 } } }, async () => "in");
    });
    const statuses = [];
    for (const url of ["/", "/login", "/", "/login", "/"]) statuses.push((await fastify.inject(url)).statusCode);
    expect(statuses).toEqual([200, 200, 200, 429, 429]);
    const { headers } = await fastify.inject("/");
    expect(headers).toMatchObject({ "x-ratelimit-limit": "2", "x-ratelimit-remaining": "0", "retry-after": "60" });
  });

  test("ban answers with 403 after so many refused requests", async () => {
    const banned: string[] = [];
    const options = {
      max: 1,
      ban: 1,
      timeWindow: 60_000,
      onBanReach: (_: unknown, key: string) => void banned.push(key),
    };
    const fastify = await application(options, () => {});
    const statuses = [];
    for (let i = 0; i < 4; i++) statuses.push((await fastify.inject("/")).statusCode);
    expect([statuses, banned]).toEqual([
      [200, 429, 403, 403],
      ["127.0.0.1", "127.0.0.1"],
    ]);
  });

  test("createRateLimit counts, and looks without counting", async () => {
    const fastify = await application({ global: false }, (app) => {
      const check = app.createRateLimit({ max: 2, timeWindow: 60_000 });
      app.get("/check", async (request) => check(request));
      app.get("/peek", async (request) => check(request, { increment: false }));
    });
    const left = async (url: string): Promise<number> => (await fastify.inject(url)).json().remaining;
    expect(await left("/peek")).toBe(2);
    expect([await left("/check"), await left("/peek"), await left("/peek"), await left("/check")]).toEqual([
      1, 1, 1, 0,
    ]);
  });

  test("an error of the cache is answered with 500, unless skipOnError lets the request through", async () => {
    const [strict, lax] = await Promise.all([application({}, () => {}), application({ skipOnError: true }, () => {})]);
    cache.close();
    const { statusCode, json } = await strict.inject("/");
    expect([statusCode, json().code]).toEqual([500, "ERR_CLOSED"]);
    expect((await lax.inject("/")).statusCode).toBe(200);
  });
});

describe("in several processes", () => {
  let servers: LimitServers;
  beforeEach(() => {
    servers = new LimitServers("fastify");
  });
  afterEach(() => servers.stop());

  test("two processes count together, for each route, and a killed one leaves its counts", async () => {
    await servers.start("fastify", 2, 4);
    const left = async (index: number, where = "/") =>
      (await servers.ask(index, "GET", where)).headers.get("x-ratelimit-remaining");
    expect([await left(0), await left(1), await left(0)]).toEqual(["3", "2", "1"]);
    expect([await left(0, "/own"), await left(1, "/own")]).toEqual(["2", "1"]);
    await servers.kill(0);
    expect([await left(0), await left(0, "/own")]).toEqual(["0", "0"]);
    expect((await servers.ask(0)).status).toBe(429);
  });

  test("four processes together let through exactly as many requests as the limit says", async () => {
    await servers.start("fastify", 4, 150);
    expect(await servers.flood(100)).toEqual({ 200: 150, 429: 250 });
    const { allowed, counted } = await servers.hammer("fast", 10_000);
    expect(allowed).toBe(150);
    expect(servers.cache.namespace("fastify-rate-limit-").get("\0fast")).toBe(counted);
  });
});

describe("the check of cache-machine/testing", () => {
  const checks = limitChecks("fastify");
  test("is there", () => expect(checks).toHaveLength(1));
  test.each(checks)("$name", ({ run }) => run());
});
