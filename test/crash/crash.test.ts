/**
 * Tests that participants which are killed, terminated or stopped at any moment do no harm to the others. The driver (driver.mjs)
 * starts and kills them. The survivors check everything that they read (actor.mjs).
 *
 * A seed determines all random choices. It is printed, and `CRASH_SEED=7 npx vitest run test/crash` uses it again. The moments of
 * death also depend on the scheduler, so a failure may need several runs to appear again; `npm run soak` makes many.
 * `CRASH_ROUNDS` is the number of deaths of each kind, 200 by default.
 */

import { Worker } from "node:worker_threads";
import { type Cache, createCache } from "cache-machine";
import { describe, expect, it } from "vitest";
import { crash, freeze, inTime } from "./driver.mjs";

const seed = Number(process.env.CRASH_SEED ?? Math.floor(Math.random() * 1e9));
const rounds = Number(process.env.CRASH_ROUNDS ?? 200);
console.log(`CRASH_SEED=${seed} CRASH_ROUNDS=${rounds}`);

/** Longer than any operation may wait (50 ms), and shorter than an operation that is stuck. */
const LONGEST_MS = 2_000;
const MINUTES = 60_000;

function tell(what: string, result: Record<string, unknown>): void {
  console.log(what, JSON.stringify(result));
}

describe.each([
  ["a roomy cache, which evicts nothing", true],
  ["a small cache, which reclaims memory all the time", false],
])("%s", (_, roomy) => {
  it(`a cache survives ${rounds / 2} processes that are killed while they write`, {
    timeout: 5 * MINUTES,
  }, async () => {
    const result = await crash({ how: "kill", reach: "processes", roomy, deaths: rounds / 2, seed });
    tell("kill -9", result);
    expect(result.deaths).toBe(rounds / 2);
    expect(result.longestMs).toBeLessThan(LONGEST_MS);
    expect(result.busy).toBeLessThan(result.survivorSteps / 1_000);
  });

  it.each(["processes", "threads"])(
    `a cache of reach %s survives ${rounds / 4} threads that are terminated while they write`,
    { timeout: 5 * MINUTES },
    async (reach) => {
      const result = await crash({ how: "terminate", reach, roomy, deaths: rounds / 4, seed });
      tell("terminate", result);
      expect(result.deaths).toBe(rounds / 4);
      expect(result.longestMs).toBeLessThan(LONGEST_MS);
      expect(result.busy).toBeLessThan(result.survivorSteps / 1_000);
    },
  );
});

it("a cache works while a process is frozen by SIGSTOP, and is sound after the process goes on", {
  timeout: 3 * MINUTES,
}, async () => {
  const result = await freeze({ rounds: rounds / 10, seed });
  tell("SIGSTOP", result);
  expect(result.frozen).toBe(rounds / 10);
  expect(result.longestMs).toBeLessThan(LONGEST_MS);
});

describe("a participant that stops while it holds the lock of a bucket, or reclaims a segment", () => {
  /** The changes of stopping-worker.mjs: a description of each, and its name there. */
  const changes = [
    ["set", "set"],
    ["set of a large value", "setLarge"],
    ["add", "add"],
    ["compareAndSet", "compareAndSet"],
    ["delete", "delete"],
    ["touch", "touch"],
    ["touch of a large value", "touchLarge"],
    ["increment", "increment"],
    ["sets that reclaim segments", "reclaim"],
  ] as const;
  const hour = { ttl: 3_600_000 };
  /** Upper limit for the calls of the clock in one change; only reclaiming has more. */
  const MOMENTS = 40;

  /** Stops a participant at its n-th call of the clock; undefined when its change calls the clock less often. */
  async function stopped(
    change: string,
    nth: number,
  ): Promise<{ cache: Cache; worker: Worker; wake(): Promise<unknown> } | undefined> {
    const cache = createCache({ size: "1mb" });
    cache.set("k", "kept", hour);
    cache.set("large", Buffer.alloc(100_000, "A"), hour);
    cache.increment("counter", 5, hour);
    // Reads make these entries hot, so that they are not evicted.
    for (let reads = 0; reads < 4; reads++) for (const key of ["k", "large", "counter"]) cache.get(key);
    const gate = new Int32Array(new SharedArrayBuffer(8));
    const workerData = { handle: cache.handle, gate, nth, change };
    const worker = new Worker(new URL("stopping-worker.mjs", import.meta.url), { workerData });
    const ended = new Promise((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
    });
    const stop = Promise.resolve(Atomics.waitAsync(gate, 0, 0).value).then(() => "stopped");
    if ((await inTime(Promise.race([stop, ended]), change)) !== "stopped") {
      Atomics.notify(gate, 0);
      await worker.terminate();
      cache.close();
      return undefined;
    }
    const wake = () => {
      Atomics.store(gate, 1, 1);
      Atomics.notify(gate, 1);
      return inTime(ended, `${change} wakes up`);
    };
    return { cache, worker, wake };
  }

  /** Writes more than three times the size of the cache: the longest write, and the number of ERR_BUSY. */
  function fill(cache: Cache): { busy: number; longestMs: number } {
    let busy = 0;
    let longestMs = 0;
    for (let i = 0; i < 700; i++) {
      const from = performance.now();
      try {
        cache.set(`other ${i}`, Buffer.alloc(4_000));
      } catch (error) {
        if ((error as { code?: string }).code !== "ERR_BUSY") throw error;
        busy++;
      }
      longestMs = Math.max(longestMs, performance.now() - from);
    }
    return { busy, longestMs };
  }

  it.each(changes)(
    "a participant that stops in the middle of %s blocks only the keys of one bucket",
    async (_, change) => {
      let moments = 0;
      for (let nth = 0; nth < MOMENTS; nth += change === "reclaim" ? 9 : 1, moments++) {
        const here = await stopped(change, nth);
        if (here === undefined) break;
        const { cache, worker, wake } = here;
        expect(cache.get("k")).toBe("kept");
        expect(cache.get("counter")).toBe(5);
        const { busy, longestMs } = fill(cache);
        // The locked bucket is one of a thousand, and each key is written once.
        expect(busy).toBeLessThan(10);
        expect(longestMs).toBeLessThan(LONGEST_MS);
        await wake();
        cache.set("k", "anew");
        cache.set("large", "anew");
        expect([cache.get("k"), cache.get("large"), cache.validate()]).toEqual(["anew", "anew", 0]);
        await worker.terminate();
        cache.close();
      }
      expect(moments).toBeGreaterThan(0);
    },
  );

  it.each(changes)("a participant that dies in the middle of %s leaves every key usable", async (_, change) => {
    let moments = 0;
    for (let nth = 0; nth < MOMENTS; nth += change === "reclaim" ? 9 : 1, moments++) {
      const here = await stopped(change, nth);
      if (here === undefined) break;
      const { cache, worker } = here;
      await worker.terminate();
      expect(["kept", "changed", undefined]).toContain(cache.get("k"));
      expect(cache.increment("counter")).toBeGreaterThanOrEqual(6);
      cache.set("k", "anew");
      cache.set("large", "anew");
      expect([cache.get("k"), cache.get("large")]).toEqual(["anew", "anew"]);
      expect(fill(cache).busy).toBe(0);
      expect(cache.validate()).toBe(0);
      expect(cache.stats().participants).toBe(1);
      cache.close();
    }
    expect(moments).toBeGreaterThan(0);
  });
});
