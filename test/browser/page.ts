/**
 * The part of browser.test.ts that runs in a page: the functions that the tests call, in `globalThis.tests`. The page's workers
 * run worker.ts.
 */

import { attachCache, type Cache, type CacheOptions, createCache } from "cache-machine";
import { seeded } from "../../src/testing/seeded.ts";
import { meetAs, type Report, runSuite } from "./suite.ts";
import type { Order } from "./worker.ts";

const MIB = 1 << 20;
const PATIENCE_MS = 20_000;

/** A worker of this page, which executes one order at a time. */
class Helper {
  readonly worker: Worker = new Worker("worker.js", { type: "module" });

  /** Sends an order; resolves to the answer, or rejects with the worker's error. */
  ask<T>(order: Order): Promise<T> {
    return new Promise((resolve, reject) => {
      this.worker.onmessage = ({ data }) => ("error" in data ? reject(new Error(data.error)) : resolve(data.value));
      this.worker.onerror = ({ message }) => reject(new Error(message));
      this.worker.postMessage(order);
    });
  }
}

async function until(reached: () => boolean, what: string): Promise<void> {
  for (const since = performance.now(); !reached(); await new Promise((resolve) => setTimeout(resolve))) {
    if (performance.now() - since > PATIENCE_MS) throw new Error(`timeout while waiting for ${what}`);
  }
}

/** Waits until this page watches `count` threads: these hold their Web Locks, and the page has requested the same locks. */
async function watches(count: number): Promise<void> {
  const { locks } = navigator;
  const me = await locks.request("me", async () => (await locks.query()).held?.find(({ name }) => name === "me"));
  for (const since = performance.now(); performance.now() - since < PATIENCE_MS; ) {
    const { held = [], pending = [] } = await locks.query();
    const isHeld = (name: string | undefined): boolean => held.some((lock) => lock.name === name);
    if (pending.filter(({ name, clientId }) => clientId === me?.clientId && isHeld(name)).length >= count) return;
  }
  throw new Error(`the page does not watch ${count} threads`);
}

const alone = (cache: Cache): Promise<void> => until(() => cache.stats().participants === 1, "all others to be gone");

const tests = {
  /** Runs the conformance suite in this thread. */
  conformance(seed: number, options: CacheOptions): Promise<Report> {
    const cache = seeded(seed, () => createCache({ size: "64mb" }));
    const open = (more?: CacheOptions): Cache => attachCache(cache.handle, more);
    return runSuite({ reach: "threads", largest: 8 * MIB, open }, options).finally(() => cache.close());
  },

  /** Runs the conformance suite in a worker. */
  conformanceInWorker(seed: number, options: CacheOptions): Promise<Report> {
    const cache = seeded(seed, () => createCache({ size: "64mb" }));
    const helper = new Helper();
    return helper.ask<Report>({ do: "suite", handle: cache.handle, largest: 8 * MIB, options }).finally(() => {
      helper.worker.terminate();
      cache.close();
    });
  },

  /** Runs the suite in several workers at once, in parts of one cache, then the concurrent checks in them and in the page. */
  async together(seed: number, workers: number): Promise<Report[]> {
    const cache = seeded(seed, () => createCache({ size: "128mb" }));
    const helpers = Array.from({ length: workers }, () => new Helper());
    const job = (number: number) => ({ handle: cache.handle, number, count: workers + 1, largest: MIB });
    const parts = await Promise.all(helpers.map((helper, i) => helper.ask<Report>({ do: "part", ...job(i + 1) })));
    const met = helpers.map((helper, i) => helper.ask<Report>({ do: "meet", ...job(i + 1) }));
    const all = [...parts, ...(await Promise.all([meetAs(job(0)), ...met]))];
    for (const { worker } of helpers) worker.terminate();
    cache.close();
    return all;
  },

  /**
   * Starts and terminates workers, more than the cache has seats. Returns the longest time until a worker was watched, and
   * until its seat was free again.
   */
  async comeAndGo(times: number): Promise<{ watchedMs: number; freeMs: number; broken: number }> {
    const cache = createCache({ size: "1mb" });
    let [watchedMs, freeMs] = [0, 0];
    for (let i = 0; i < times; i++) {
      const helper = new Helper();
      await helper.ask({ do: "attach", handle: cache.handle });
      const came = performance.now();
      if (cache.take("attached") !== true) throw new Error("the worker did not attach");
      await watches(1);
      const since = performance.now();
      helper.worker.terminate();
      await alone(cache);
      watchedMs = Math.max(watchedMs, since - came);
      freeMs = Math.max(freeMs, performance.now() - since);
    }
    const broken = cache.validate();
    cache.close();
    return { watchedMs, freeMs, broken };
  },

  /**
   * Starts a worker whose Web Lock is granted late, as on a slow machine, and terminates it. Returns the smallest number of
   * participants until the lock was granted, and the time that took.
   */
  async late(ms: number): Promise<{ fewest: number; tookMs: number }> {
    const cache = createCache({ size: "1mb" });
    const helper = new Helper();
    await helper.ask({ do: "delay", handle: cache.handle, ms });
    await helper.ask({ do: "attach", handle: cache.handle });
    const since = performance.now();
    let fewest = 2;
    let isWatched = false;
    const watched = watches(1).then(() => {
      isWatched = true;
    });
    await until(() => {
      fewest = Math.min(fewest, cache.stats().participants);
      return isWatched;
    }, "the late lock");
    await watched;
    const tookMs = performance.now() - since;
    helper.worker.terminate();
    await alone(cache);
    cache.close();
    return { fewest, tookMs };
  },

  /** Terminates workers that store without a pause; then the page uses all buckets and all memory of the cache. */
  async terminateWriters(writers: number): Promise<{ stored: number; wrong: string[]; broken: number }> {
    const cache = createCache({ size: "2mb" });
    const helpers = Array.from({ length: writers }, () => new Helper());
    await Promise.all(helpers.map((helper) => helper.ask({ do: "attach", handle: cache.handle })));
    await watches(writers);
    // The workers answer before they begin.
    await Promise.all(helpers.map((helper, number) => helper.ask({ do: "write", handle: cache.handle, number })));
    await until(() => cache.stats().sets > 5_000 * writers, "writers");
    for (const { worker } of helpers) worker.terminate();
    // The page reads and writes while the workers end, and after.
    const wrong: string[] = [];
    let rounds = 0;
    await until(() => {
      rounds++;
      for (let i = 0; i < 200; i++) {
        const key = `mine ${i}`;
        cache.set(key, { rounds, i });
        const value = cache.get(key);
        if (value !== undefined && (value.i !== i || value.rounds !== rounds)) wrong.push(key);
      }
      return cache.stats().participants === 1;
    }, "all writers to be gone");
    const stored = cache.stats().sets;
    // Locks every bucket, and fills the whole log again.
    for (let i = 0; i < 20_000; i++) cache.set(`key ${i}`, `value ${i}`.repeat(10));
    for (let i = 0; i < 20_000; i++) {
      const value = cache.get(`key ${i}`);
      if (value !== undefined && value !== `value ${i}`.repeat(10)) wrong.push(`key ${i}`);
    }
    const broken = cache.validate();
    cache.close();
    return { stored, wrong, broken };
  },

  /** A worker that never returns to its event loop is told by another thread that a worker has ended. */
  async tellTheBusy(): Promise<{ seen: number }> {
    const cache = createCache({ size: "1mb" });
    const [busy, other] = [new Helper(), new Helper()];
    for (const helper of [busy, other]) await helper.ask({ do: "attach", handle: cache.handle });
    await watches(2);
    const answer = busy.ask<{ seen: number }>({ do: "count", handle: cache.handle, until: 2 });
    await until(() => cache.get("counting") === true, "the other to count");
    other.worker.terminate();
    const seen = await answer;
    busy.worker.terminate();
    await alone(cache);
    cache.close();
    return seen;
  },

  /**
   * Starts workers at the same time, which then are busy counting participants. Returns the smallest number that any thread
   * counted, and the number of seats that two workers got.
   */
  async crowd(workers: number): Promise<{ fewest: number; lost: number }> {
    const cache = createCache({ size: "1mb" });
    const helpers = Array.from({ length: workers }, () => new Helper());
    await Promise.all(helpers.map((helper) => helper.ask({ do: "attach", handle: cache.handle })));
    const counts = helpers.map((helper) =>
      helper.ask<{ fewest: number }>({ do: "ask", handle: cache.handle, ms: 1000, count: workers + 1 }),
    );
    let fewest = workers + 1;
    for (const since = performance.now(); performance.now() - since < 1000; ) {
      fewest = Math.min(fewest, cache.stats().participants);
      // The page is busy too, for 20 ms at a time.
      for (const now = performance.now(); performance.now() - now < 20; );
      await new Promise((resolve) => setTimeout(resolve));
    }
    for (const count of await Promise.all(counts)) fewest = Math.min(fewest, count.fewest);
    const lost = workers - (cache.get("asked") ?? 0);
    await watches(workers);
    for (const { worker } of helpers) worker.terminate();
    await alone(cache);
    cache.close();
    return { fewest, lost };
  },

  /** Without Web Locks: whether the cache works, and its number of participants after a worker was terminated. */
  async withoutLocks(): Promise<{ locks: string; value: unknown; participants: number }> {
    const cache = createCache({ size: "1mb" });
    const helper = new Helper();
    await helper.ask({ do: "attach", handle: cache.handle });
    helper.worker.terminate();
    for (let i = 0; i < 50; i++) await new Promise((resolve) => setTimeout(resolve, 4));
    const { participants } = cache.stats();
    const value = cache.get("attached");
    cache.close();
    return { locks: typeof navigator.locks, value, participants };
  },
};

export type Tests = typeof tests;
Object.assign(globalThis, { tests });
