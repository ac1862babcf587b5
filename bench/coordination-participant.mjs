/**
 * A participant of the measurements of coordination.mjs: one process, which executes commands, several at a time if need be. It
 * measures loops within itself, and notes the times of what happens between processes by a clock that all of them share.
 */

import cluster from "node:cluster";
import { setTimeout as sleep } from "node:timers/promises";
import { openCache } from "../dist/index.js";

/** Number of keys, a power of two, and the bytes of their values. */
const KEYS = 1024;
const VALUE = "v".repeat(100);
const HOUR_MS = 3_600_000;
/** No limit of these measurements is ever reached. */
const LIMIT = 1e9;
/** How long a lock is held and then left alone, in milliseconds, so that the other process always waits when it is released. */
const HOLD_MS = 2;
const PAUSE_MS = 1;

/** Nanoseconds of the clock that all processes of a machine share. */
const now = () => Number(process.hrtime.bigint());
/** The clock of loops: CPU time when `BENCH_CLOCK` says so, for a busy machine. */
const clock = process.env.BENCH_CLOCK === "cpu" ? cpuTime : now;

function cpuTime() {
  const { user, system } = process.cpuUsage();
  return (user + system) * 1000;
}

const keys = Array.from({ length: KEYS }, (_, i) => `user:${i}`);
const clients = Array.from({ length: KEYS }, (_, i) => `client:${i}`);
const key = (i) => keys[i & (KEYS - 1)];
const client = (i) => clients[i & (KEYS - 1)];
const load = () => VALUE;
const nothing = () => {};

/** The caches of this process by what they are for, and the limiters to compare with. */
const caches = {};
const limiters = {};
/** Loads that are under way here, and waits for loads or locks, by key. */
const loads = new Map();
const waits = new Map();
let sink = 0;

/** What is measured: `ops` operations on a cache, or on a limiter. */
const loops = {
  get(cache, ops) {
    for (let i = 0; i < ops; i++) sink += cache.get(key(i)).length;
  },
  async awaitGet(cache, ops) {
    for (let i = 0; i < ops; i++) sink += (await cache.get(key(i))).length;
  },
  async getOrSet(cache, ops) {
    for (let i = 0; i < ops; i++) sink += (await cache.getOrSet(key(i), load)).length;
  },
  async getThenGetOrSet(cache, ops) {
    for (let i = 0; i < ops; i++) sink += (cache.get(key(i)) ?? (await cache.getOrSet(key(i), load))).length;
  },
  set(cache, ops) {
    for (let i = 0; i < ops; i++) cache.set(key(i), VALUE);
  },
  async lock(cache, ops) {
    for (let i = 0; i < ops; i++) await cache.locks.request("bench", nothing);
  },
  increment(cache, ops) {
    const options = { ttl: HOUR_MS };
    for (let i = 0; i < ops; i++) sink += cache.increment(client(i), 1, options);
  },
  gcra: limiting("gcra"),
  sliding: limiting("sliding"),
  fixed: limiting("fixed"),
  async consume(limiter, ops) {
    for (let i = 0; i < ops; i++) sink += (await limiter.consume(client(i))).consumedPoints;
  },
};

function limiting(algorithm) {
  const options = { limit: LIMIT, window: HOUR_MS, algorithm };
  const names = clients.map((name) => `${algorithm} ${name}`);
  return (cache, ops) => {
    for (let i = 0; i < ops; i++) sink += cache.rateLimit(names[i & (KEYS - 1)], options).remaining;
  };
}

const commands = {
  open({ as, name, size }) {
    caches[as] = openCache(name, { size });
  },

  /** Stores all keys, and reads them so often that the near cache has them. */
  fill({ as }) {
    const cache = caches[as];
    for (const each of keys) cache.set(each, VALUE);
    for (let reads = 0; reads < 8; reads++) for (const each of keys) sink += cache.get(each).length;
  },

  /** Opens a limiter of rate-limiter-flexible: in memory, or over Redis. */
  async limiter({ as, socket }) {
    const { RateLimiterMemory, RateLimiterRedis } = await import("rate-limiter-flexible");
    const options = { points: LIMIT, duration: HOUR_MS / 1000 };
    if (socket === undefined) {
      limiters[as] = new RateLimiterMemory(options);
    } else {
      const { Redis } = await import("ioredis");
      limiters[as] = new RateLimiterRedis({ ...options, storeClient: new Redis({ path: socket }) });
    }
  },

  /** Starts a worker of node:cluster with a limiter that asks this process for each request. */
  async clusterLimiter() {
    const { RateLimiterClusterMaster } = await import("rate-limiter-flexible");
    limiters.master = new RateLimiterClusterMaster();
    cluster.setupPrimary({ exec: process.argv[1] });
    limiters.worker = cluster.fork();
    await reply(limiters.worker);
    await reply(limiters.worker, { command: "limiterInCluster" });
  },
  async limiterInCluster() {
    const { RateLimiterCluster } = await import("rate-limiter-flexible");
    const options = { points: LIMIT, duration: HOUR_MS / 1000, keyPrefix: "bench", timeoutMs: 10_000 };
    limiters.cluster = new RateLimiterCluster(options);
    await limiters.cluster.consume("first");
  },
  inCluster: ({ message }) => reply(limiters.worker, message),

  /** Runs a loop for about `ms` milliseconds after it is compiled: how many operations that are. */
  async calibrate({ loop, on, ms }) {
    let ops = 16;
    for (;;) {
      const took = await timed(loop, on, ops);
      if (took >= ms * 1e6 || ops > 1 << 22) break;
      ops = Math.ceil(took > ms * 1e5 ? (ops * ms * 1.2e6) / took : ops * 4);
    }
    for (let i = 0; i < 3; i++) await timed(loop, on, ops);
    return { ops };
  },
  async measure({ loop, on, ops }) {
    globalThis.gc?.();
    await timed(loop, on, ops >> 2);
    return { ns: (await timed(loop, on, ops)) / ops };
  },

  /** Begins waits for keys that get no value. */
  waiters({ on, count }) {
    for (let i = 0; i < count; i++) caches[on].waitFor(`waited:${i}`).catch(nothing);
  },

  /** Takes a lock again and again while another process does the same: when it had it, as pairs of times. */
  async takeTurns({ on, rounds }) {
    const held = [];
    for (let i = 0; i < rounds; i++) {
      await caches[on].locks.request("turns", async () => {
        const since = now();
        await sleep(HOLD_MS);
        held.push([since, now()]);
      });
      await sleep(PAUSE_MS);
    }
    return { held };
  },

  /** Begins a load that goes on until `finish`. */
  async load({ on, name }) {
    let begun;
    const running = new Promise((resolve) => {
      begun = resolve;
    });
    const loading = { at: 0, finish: undefined, done: undefined };
    loads.set(name, loading);
    loading.done = caches[on].getOrSet(name, async () => {
      await new Promise((finish) => {
        loading.finish = finish;
        begun();
      });
      loading.at = now();
      return VALUE;
    });
    loading.done.catch(nothing);
    await running;
  },
  async finish({ name }) {
    const loading = loads.get(name);
    loads.delete(name);
    loading.finish();
    await loading.done;
    return { at: loading.at };
  },
  /** Holds a lock as long as this process lives. */
  hold: ({ on, name }) =>
    new Promise((resolve) => {
      caches[on].locks.request(name, () => {
        resolve();
        return new Promise(nothing);
      });
    }),

  /** Begins to wait for a load, or for a lock, of another process. */
  async join({ on, name, kind }) {
    const waiting = { at: 0, tookOver: 0, done: undefined };
    waits.set(name, waiting);
    const takeOver = () => {
      waiting.tookOver = now();
      return VALUE;
    };
    const cache = caches[on];
    const wait = kind === "lock" ? cache.locks.request(name, takeOver) : cache.getOrSet(name, takeOver);
    waiting.done = wait.then(() => {
      waiting.at = now();
    });
    // Until the wait has begun.
    await sleep(2);
  },
  /** When the wait was over, and when this process took over; 0 if it did not have to. */
  async joined({ name }) {
    const { done } = waits.get(name);
    await done;
    const { at, tookOver } = waits.get(name);
    waits.delete(name);
    return { at, tookOver };
  },

  close() {
    for (const cache of Object.values(caches)) cache.close();
  },
};

async function timed(loop, on, ops) {
  const begin = clock();
  await loops[loop](caches[on] ?? limiters[on], ops);
  return clock() - begin;
}

/** Sends a command to the worker; its answer. Without a command, waits until the worker listens. */
function reply(worker, message) {
  return new Promise((resolve, reject) => {
    const listener = ({ id, result, error }) => {
      // rate-limiter-flexible talks to its worker too.
      if (id !== 0) return;
      worker.off("message", listener);
      if (error === undefined) resolve(result);
      else reject(new Error(error));
    };
    worker.on("message", listener);
    if (message !== undefined) worker.send({ ...message, id: 0 });
  });
}

process.on("message", async (message) => {
  const { id, command } = message;
  if (!Object.hasOwn(commands, command)) return;
  try {
    const result = (await commands[command](message)) ?? {};
    if (Number.isNaN(sink)) throw new Error("a value that was read has no length");
    process.send({ id, result });
  } catch (error) {
    process.send({ id, error: error?.stack ?? String(error) });
  }
});
process.on("disconnect", () => process.exit());
// A worker of node:cluster loses messages that come before it listens.
if (cluster.isWorker) process.send({ id: 0, result: {} });
