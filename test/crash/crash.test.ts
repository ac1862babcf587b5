/**
 * Participants that are killed, terminated or stopped at any instant do no harm to the others. Everything that the
 * survivors read is checked; see `actor.mjs` for what exactly.
 *
 * What is random follows from a seed, which is printed and can be given back: `CRASH_SEED=7 npx vitest run test/crash`.
 * The instants of death are the scheduler's, so a failure may need a few runs to come again; `npm run soak` makes many.
 * `CRASH_ROUNDS` is the number of deaths of each kind, 200 by default.
 */

import { Worker } from "node:worker_threads";
import { type Cache, createCache } from "cache-machine";
import { describe, expect, it } from "vitest";
import { crash, freeze, patient } from "./driver.mjs";

const seed = Number(process.env.CRASH_SEED ?? Math.floor(Math.random() * 1e9));
const rounds = Number(process.env.CRASH_ROUNDS ?? 200);
console.log(`CRASH_SEED=${seed} CRASH_ROUNDS=${rounds}`);

/** Far more than any operation may wait (50 ms), and less than what a stuck one would. */
const LONGEST_MS = 2_000;
const MINUTES = 60_000;

function tell(what: string, result: Record<string, unknown>): void {
  console.log(what, JSON.stringify(result));
}

const caches = [
  { roomy: true, what: "a roomy cache, where nothing may be missing" },
  { roomy: false, what: "a small cache, where space is reclaimed all the time" },
];

describe.each(caches)("in $what", ({ roomy }) => {
  it(`survives ${rounds / 2} processes killed in the middle of writing`, { timeout: 5 * MINUTES }, async () => {
    const result = await crash({ how: "kill", reach: "processes", roomy, deaths: rounds / 2, seed });
    tell("kill -9", result);
    expect(result.deaths).toBe(rounds / 2);
    expect(result.longestMs).toBeLessThan(LONGEST_MS);
    expect(result.busy).toBeLessThan(result.survivorSteps / 1_000);
  });

  it.each(["processes", "threads"])(
    `survives ${rounds / 4} threads terminated in the middle of writing, reach: %s`,
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

it("goes on while a process is stopped, and is whole when it wakes up", { timeout: 3 * MINUTES }, async () => {
  const result = await freeze({ rounds: rounds / 10, seed });
  tell("SIGSTOP", result);
  expect(result.frozen).toBe(rounds / 10);
  expect(result.longestMs).toBeLessThan(LONGEST_MS);
});

describe("a participant that stops while it holds a bucket or a segment", () => {
  const changes = ["set", "setLarge", "add", "compareAndSet", "delete", "touch", "touchLarge", "increment", "reclaim"];
  const hour = { ttl: 3_600_000 };
  /** Moments at which a change asks for the time; more than any change but reclaiming has. */
  const MOMENTS = 40;

  /** Stops a participant at its n-th look at the clock; undefined when its change has no such moment. */
  async function stopped(
    change: string,
    nth: number,
  ): Promise<{ cache: Cache; worker: Worker; wake(): Promise<unknown> } | undefined> {
    const cache = createCache({ size: "1mb" });
    cache.set("k", "kept", hour);
    cache.set("large", Buffer.alloc(100_000, "A"), hour);
    cache.increment("counter", 5, hour);
    // Warm, so that nothing evicts them.
    for (let reads = 0; reads < 4; reads++) for (const key of ["k", "large", "counter"]) cache.get(key);
    const gate = new Int32Array(new SharedArrayBuffer(8));
    const workerData = { handle: cache.handle, gate, nth, change };
    const worker = new Worker(new URL("stopping-worker.mjs", import.meta.url), { workerData });
    const ended = new Promise((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
    });
    const stop = Promise.resolve(Atomics.waitAsync(gate, 0, 0).value).then(() => "stopped");
    if ((await patient(Promise.race([stop, ended]), change)) !== "stopped") {
      Atomics.notify(gate, 0);
      await worker.terminate();
      cache.close();
      return undefined;
    }
    const wake = () => {
      Atomics.store(gate, 1, 1);
      Atomics.notify(gate, 1);
      return patient(ended, `${change} wakes up`);
    };
    return { cache, worker, wake };
  }

  /** Fills the cache more than three times over: how long that took at most, and what it was refused. */
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

  it.each(changes)("delays only the keys of one bucket, in: %s", async (change) => {
    let moments = 0;
    for (let nth = 0; nth < MOMENTS; nth += change === "reclaim" ? 9 : 1, moments++) {
      const here = await stopped(change, nth);
      if (here === undefined) break;
      const { cache, worker, wake } = here;
      expect(cache.get("k")).toBe("kept");
      expect(cache.get("counter")).toBe(5);
      const { busy, longestMs } = fill(cache);
      // One bucket of a thousand, of which each key is tried once.
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
  });

  it.each(changes)("leaves everything usable when it dies there, in: %s", async (change) => {
    for (let nth = 0; nth < MOMENTS; nth += change === "reclaim" ? 9 : 1) {
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
  });
});
