/**
 * Tests the limiter for rate-limiter-flexible: alone, against the RateLimiterMemory of rate-limiter-flexible, and in two and four
 * processes.
 */

import { type Cache, createCache } from "cache-machine";
import { createRateLimiter } from "cache-machine/rate-limiter-flexible";
import {
  BurstyRateLimiter,
  type RateLimiterAbstract,
  RateLimiterMemcache,
  RateLimiterMemory,
  RateLimiterRedis,
  RateLimiterRes,
  RateLimiterUnion,
} from "rate-limiter-flexible";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { seeded } from "../contract/seeded.ts";
import { generator } from "../crash/checked-values.mjs";
import { compile } from "./compile.ts";
import { KEYS, LimitServers, limitChecks } from "./limits.ts";

const START = 1_800_000_000_000;
const RateLimiterCacheMachine = createRateLimiter(RateLimiterMemcache);
type Options = Omit<ConstructorParameters<typeof RateLimiterCacheMachine>[0], "storeClient">;
let cache: Cache;

beforeEach(() => {
  vi.useFakeTimers({ now: START });
  cache = seeded(1, () => createCache({ size: "1mb" }));
});
afterEach(() => {
  vi.useRealTimers();
  cache.close();
});

const limiterOf = (options: Partial<Options> = {}): InstanceType<typeof RateLimiterCacheMachine> =>
  new RateLimiterCacheMachine({ storeClient: cache, points: 2, duration: 10, ...options });

type Method = "consume" | "penalty" | "reward" | "get" | "delete" | "block" | "set";
/** What a method resolves or is rejected with. Errors are thrown. */
async function outcome(limiter: RateLimiterAbstract, method: Method, ...args: unknown[]): Promise<unknown> {
  const show = (result: unknown) => (result instanceof RateLimiterRes ? result.toJSON() : result);
  const call = limiter[method] as (...args: unknown[]) => Promise<unknown>;
  return call.apply(limiter, args).then(show, (reason: unknown) => {
    if (!(reason instanceof RateLimiterRes)) throw reason;
    return { refused: reason.toJSON() };
  });
}
const points = (consumedPoints: number, msBeforeNext: number, remainingPoints = 0, isFirstInDuration = false) => ({
  consumedPoints,
  msBeforeNext,
  remainingPoints,
  isFirstInDuration,
});

test("the limiter has the types of rate-limiter-flexible's own", () => compile("rate-limiter-flexible.types.ts"));

describe("the limiter", () => {
  test("consumes points until there are none, and has all of them again after the duration", async () => {
    const limiter = limiterOf();
    expect(await outcome(limiter, "consume", "a")).toEqual(points(1, 10_000, 1, true));
    vi.setSystemTime(START + 4000);
    expect(await outcome(limiter, "consume", "a")).toEqual(points(2, 6000));
    expect(await outcome(limiter, "consume", "a")).toEqual({ refused: points(3, 6000) });
    expect(await outcome(limiter, "consume", "b", 2)).toEqual(points(2, 10_000, 0, true));
    vi.setSystemTime(START + 10_000);
    expect(await outcome(limiter, "get", "a")).toBe(null);
    expect(await outcome(limiter, "consume", "a")).toEqual(points(1, 10_000, 1, true));
  });

  test("a duration need not be whole seconds, and 0 is for ever", async () => {
    expect(await outcome(limiterOf({ duration: 0.25 }), "consume", "a")).toMatchObject({ msBeforeNext: 250 });
    vi.setSystemTime(START + 250);
    expect(await outcome(limiterOf({ duration: 0 }), "consume", "a")).toEqual(points(1, -1, 1, true));
    vi.setSystemTime(START + 1e12);
    expect(await outcome(limiterOf({ duration: 0 }), "consume", "a")).toEqual(points(2, -1));
    const custom = { customDuration: 3 };
    expect(await outcome(limiterOf(), "consume", "c", 1, custom)).toMatchObject({ msBeforeNext: 3000 });
  });

  test("blockDuration blocks once, from the request that was too many", async () => {
    const limiter = limiterOf({ points: 1, blockDuration: 60 });
    await limiter.consume("a");
    vi.setSystemTime(START + 9000);
    expect(await outcome(limiter, "consume", "a")).toMatchObject({ refused: { msBeforeNext: 60_000 } });
    vi.setSystemTime(START + 68_999);
    expect(await outcome(limiter, "consume", "a")).toMatchObject({ refused: { msBeforeNext: 1 } });
    vi.setSystemTime(START + 69_000);
    expect(await outcome(limiter, "consume", "a")).toEqual(points(1, 10_000, 0, true));
  });

  test("inMemoryBlockOnConsumed refuses without asking the cache", async () => {
    const limiter = limiterOf({ points: 1, inMemoryBlockOnConsumed: 2 });
    for (let i = 0; i < 10; i++) await outcome(limiter, "consume", "a");
    expect(cache.get("rlflx:a")).toBe(2);
    await limiter.delete("a");
    expect(await outcome(limiter, "consume", "a")).toMatchObject({ consumedPoints: 1 });
  });

  test("block, set, penalty, reward, get and delete do what they say", async () => {
    const limiter = limiterOf();
    expect(await outcome(limiter, "penalty", "a", 5)).toEqual(points(5, 10_000, 0, true));
    expect(await outcome(limiter, "reward", "a", 4)).toEqual(points(1, 10_000, 1));
    expect(await outcome(limiter, "get", "a")).toEqual(points(1, 10_000, 1));
    expect(await outcome(limiter, "block", "a", 30)).toMatchObject({ consumedPoints: 3, msBeforeNext: 30_000 });
    expect(await outcome(limiter, "consume", "a")).toEqual({ refused: points(4, 30_000) });
    expect(await outcome(limiter, "set", "a", 1, 0)).toMatchObject({ consumedPoints: 1, msBeforeNext: -1 });
    expect([await limiter.delete("a"), await limiter.delete("a"), await limiter.get("a")]).toEqual([true, false, null]);
    expect(await outcome(limiter, "reward", "new", 2)).toEqual(points(-2, 10_000, 4, true));
  });

  test("keyPrefix tells limiters apart, and says which entry a key is", async () => {
    await limiterOf({ keyPrefix: "login" }).consume("a");
    await limiterOf().consume("a", 2);
    await limiterOf({ keyPrefix: "" }).consume("a", 2);
    expect([cache.get("login:a"), cache.get("rlflx:a"), cache.get("a")]).toEqual([1, 2, 2]);
  });

  test("odd, long and hostile keys are counted apart", async () => {
    const limiter = limiterOf({ keyPrefix: "" });
    for (const key of KEYS) expect((await limiter.consume(key)).consumedPoints).toBe(1);
    for (const key of KEYS) expect((await limiter.get(key))?.consumedPoints).toBe(1);
    expect((await limiter.consume(7)).consumedPoints).toBe(1);
    expect((await limiter.consume("7")).consumedPoints).toBe(2);
  });

  test("works in a union and in a bursty limiter", async () => {
    const union = new RateLimiterUnion(limiterOf({ keyPrefix: "one", points: 1 }), limiterOf({ keyPrefix: "two" }));
    await union.consume("a");
    await expect(union.consume("a")).rejects.toMatchObject({ one: { consumedPoints: 2 } });
    const bursty = new BurstyRateLimiter(limiterOf({ points: 1 }), limiterOf({ keyPrefix: "burst", points: 1 }));
    await bursty.consume("b");
    await bursty.consume("b");
    await expect(bursty.consume("b")).rejects.toBeInstanceOf(RateLimiterRes);
  });

  test("wrong arguments are errors that name them", async () => {
    const message = "RateLimiterMemcache: must be the class of this name of rate-limiter-flexible";
    for (const other of [RateLimiterRedis, RateLimiterMemory, class {}, () => {}, {}, null, undefined]) {
      expect(() => createRateLimiter(other as never)).toThrow(new TypeError(message));
    }
    for (const client of [undefined, {}, new Map()]) {
      expect(() => limiterOf({ storeClient: client } as object)).toThrow(/^storeClient: must be a cache/);
    }
    expect(() => new RateLimiterCacheMachine(undefined as never)).toThrow(/^storeClient: must be a cache/);
    for (const wrong of [1.5, Number.NaN, "1.5", "x", null]) {
      await expect(limiterOf().consume("a", wrong as never)).rejects.toThrow("points: must be a whole number");
    }
    expect((await limiterOf().consume("a", "2" as never)).consumedPoints).toBe(2);
  });

  test("an error of the cache rejects, or goes to the insurance limiter", async () => {
    const strict = limiterOf();
    const insured = limiterOf({ insuranceLimiter: new RateLimiterMemory({ points: 1, duration: 1 }) });
    cache.close();
    const closed = expect.objectContaining({ code: "ERR_CLOSED" });
    await expect(strict.consume("a")).rejects.toEqual(closed);
    await expect(strict.penalty("a")).rejects.toEqual(closed);
    await expect(strict.get("a")).rejects.toEqual(closed);
    await expect(strict.set("a", 1, 1)).rejects.toEqual(closed);
    await expect(strict.block("a", 1)).rejects.toEqual(closed);
    await expect(strict.delete("a")).rejects.toEqual(closed);
    expect((await insured.consume("a")).consumedPoints).toBe(1);
    await expect(insured.consume("a")).rejects.toBeInstanceOf(RateLimiterRes);
  });

  test("random calls have the same results as those of the RateLimiterMemory", async () => {
    for (let seed = 1; seed <= 30; seed++) {
      const { below } = generator(seed);
      const options = { points: 3, duration: 2, blockDuration: seed % 2 === 0 ? 5 : 0, keyPrefix: `seed ${seed}` };
      const pair = [limiterOf(options), new RateLimiterMemory(options)];
      for (let step = 0; step < 100; step++) {
        const method = (
          ["consume", "consume", "consume", "penalty", "reward", "get", "delete", "block", "set"] as const
        )[below(9)];
        const key = `${below(3)}`;
        const rest = { block: [below(4)], set: [below(5), below(4)], get: [], delete: [] }[method as string];
        const args = [key, ...(rest ?? [1 + below(2)])];
        const results = [];
        for (const limiter of pair)
          results.push(await outcome(limiter as RateLimiterAbstract, method as Method, ...args));
        // The limiters for stores call those points the first ones that leave as many as were consumed.
        const [ours, theirs] = results.map((result) => JSON.stringify(result)?.replace(/"isFirstInDuration":\w+/, ""));
        expect(ours, `seed ${seed}, step ${step}: ${method} ${args}`).toEqual(theirs);
        await vi.advanceTimersByTimeAsync(below(900));
      }
    }
  });
});

describe("in several processes", () => {
  let servers: LimitServers;
  beforeEach(() => {
    vi.useRealTimers();
    servers = new LimitServers("flexible");
  });
  afterEach(() => servers.stop());

  test("two processes consume together, reset together, and a killed one leaves its points", async () => {
    await servers.start("flexible", 2, 3);
    const status = async (index: number) => (await servers.ask(index)).status;
    expect([await status(0), await status(1), await status(0), await status(1)]).toEqual([200, 200, 200, 429]);
    await servers.ask(1, "DELETE");
    expect([await status(0), await status(0), await status(1)]).toEqual([200, 200, 200]);
    await servers.kill(0);
    expect(await status(0)).toBe(429);
  });

  test("four processes together resolve exactly as many calls as there are points", async () => {
    await servers.start("flexible", 4, 150);
    expect(await servers.flood(100)).toEqual({ 200: 150, 429: 250 });
    const { allowed, counted } = await servers.hammer("fast", 10_000);
    expect(allowed).toBe(150);
    expect(servers.cache.get("rlflx:fast")).toBe(counted);
  });
});

describe("the check of cache-machine/testing", () => {
  const checks = limitChecks("flexible");
  test("is there", () => expect(checks).toHaveLength(1));
  test.each(checks)("$name", ({ run }) => run());
});
