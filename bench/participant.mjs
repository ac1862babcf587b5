/**
 * A participant: one process, or one of its workers, with one adapter and one set of data. It executes the commands of
 * coordinator.mjs, one at a time, and measures itself. The coordinator waits for each answer, so that only the participants
 * that are being measured run.
 */

import { readFileSync, statSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { parentPort, Worker, workerData } from "node:worker_threads";
import { ADAPTERS } from "./adapters.mjs";
import { DATA, entriesOf, freshEntries, freshKeys, lanes, loops, prepare, slowLoops } from "./workloads.mjs";

const gc = globalThis.gc ?? (() => {});
const send = parentPort ? (message) => parentPort.postMessage(message) : (message) => process.send(message);

let adapter;
let cache;
let data;
let sink = 0;
const workers = [];

const commands = {
  /** Opens the cache and prepares the data. */
  async open({ adapter: id, context, dataName, orderFile }) {
    adapter = ADAPTERS[id];
    const bytes = readFileSync(orderFile);
    // Copied: small files are read into a pooled ArrayBuffer at any offset.
    data = prepare(dataName, new Uint32Array(Uint8Array.from(bytes).buffer));
    cache = await adapter.open(told(context, dataName));
    return {};
  },

  /** Stores every entry once and reads each once, which fills the adapter's own caches. */
  async fill() {
    await store(entriesOf(data));
    return await commands.check();
  },

  /** Checks that every value read is the one that was stored. */
  async check() {
    const { keys, values, count } = data;
    const step = adapter.later ? 10 : 1;
    for (let i = 0; i < count; i += step) {
      const value = await cache.get(keys[i]);
      if (value === values[i]) continue;
      if (!isDeepStrictEqual(value, values[i]))
        throw new Error(`${keys[i]} came back as ${String(value).slice(0, 80)}`);
    }
    return {};
  },

  /** Runs a workload until it is compiled; returns how many operations take `ms` milliseconds. */
  async warm({ workload, ms, most = 1 << 21 }) {
    // A multiple of the lanes, so that each lane has the same number of operations.
    const width = adapter.lanes ?? 1;
    const whole = (ops) => Math.max(16, Math.ceil(Math.min(most, ops) / width)) * width;
    let ops = whole(16);
    for (;;) {
      const took = await timed(workload, 0, ops);
      const needed = (ops * ms * 1e6) / took;
      if (took >= ms * 1e6 || ops >= most) {
        ops = whole(needed);
        break;
      }
      ops = whole(took > ms * 1e5 ? needed * 1.2 : ops * 4);
    }
    // The loop is compiled again once its final length is known, and the caches should have seen the requests. The near cache
    // must also learn that it helps, because `fill` read every key only once.
    for (let i = 0; i < (adapter.later ? 4 : 16); i++) await timed(workload, ops * i, ops);
    return { ops };
  },

  /** Measures one round. Garbage collection evicts the processor's caches, so a quarter of the round runs unmeasured first. */
  async round({ workload, start, ops }) {
    gc();
    await timed(workload, start + ops, ops >> 2);
    return { ns: (await timed(workload, start, ops)) / ops };
  },

  /** Prepares a span, so that it begins on time. */
  async ready({ workload, start }) {
    gc();
    await timed(workload, start, adapter.later ? 1000 : 20_000);
    return {};
  },

  /** Counts the operations in `ms` milliseconds from `at` on; several participants are given the same moment. */
  async span({ workload, at, ms, start }) {
    const chunk = adapter.later ? 32 * (adapter.lanes ?? 1) : 1000;
    const begin = BigInt(at);
    const end = begin + BigInt(ms) * 1_000_000n;
    let now;
    while ((now = process.hrtime.bigint()) < begin);
    const began = now;
    let ops = 0;
    while (now < end) {
      await timed(workload, start + ops, chunk);
      ops += chunk;
      now = process.hrtime.bigint();
    }
    return { ops, ns: Number(now - began), late: Number(began - begin) };
  },

  /** Measures each operation by itself, in nanoseconds; `floor` is the time between two readings of the clock. */
  async latency({ workload, samples, start }) {
    const times = new Float64Array(samples);
    const loop = adapter.later ? slowLoops[workload] : loops[workload];
    gc();
    if (adapter.later) {
      for (let i = -1000; i < samples; i++) {
        const begin = performance.now();
        sink += await loop(cache, data, start + i + 1000, 1);
        if (i >= 0) times[i] = performance.now() - begin;
      }
    } else {
      for (let i = -20_000; i < samples; i++) {
        const begin = performance.now();
        sink += loop(cache, data, start + i + 20_000, 1);
        const took = performance.now() - begin;
        if (i >= 0) times[i] = took;
      }
    }
    const floor = new Float64Array(10_000);
    for (let i = 0; i < floor.length; i++) {
      const begin = performance.now();
      floor[i] = performance.now() - begin;
    }
    times.sort();
    floor.sort();
    const at = (share) => times[Math.min(samples - 1, Math.floor(samples * share))] * 1e6;
    return { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: times[samples - 1] * 1e6, floor: floor[5000] * 1e6 };
  },

  /** Measures loading, opening and the first get in microseconds, in a process that has run nothing else before. */
  async opening({ adapter: id, context, dataName, key }) {
    adapter = ADAPTERS[id];
    const micros = () => Number(process.hrtime.bigint()) / 1e3;
    const begin = micros();
    if (adapter.module) await import(adapter.module);
    const loaded = micros();
    cache = await adapter.open(told(context, dataName));
    const opened = micros();
    const value = key === undefined ? undefined : await cache.get(key);
    const got = micros();
    if (key !== undefined && value === undefined) throw new Error(`${key} is not there`);
    return { load: loaded - begin, open: opened - loaded, first: got - opened };
  },

  /** Measures the bytes that the entries take in this process and in the cache's files; only the cache refers to them. */
  async footprint({ adapter: id, context, dataName }) {
    const before = await loadedBytes(id, dataName);
    cache = await adapter.open(told(context, dataName));
    await store(freshEntries(dataName));
    const own = ownBytes() - before;
    return { own, file: fileBytes(cache.path), bytes: cache.census?.().bytes };
  },

  /** Measures the bytes that a process takes which has opened the cache and read everything, but stored nothing. */
  async readingFootprint({ adapter: id, context, dataName }) {
    const before = await loadedBytes(id, dataName);
    cache = await adapter.open(told(context, dataName));
    for (const key of freshKeys(dataName)) if ((await cache.get(key)) === undefined) throw new Error(`${key} is gone`);
    return { own: ownBytes() - before };
  },

  /**
   * Finds the smallest cache of this package that keeps 99.9 % of the entries, to one percent; in bytes. Not 100 %, because
   * a few of 100,000 entries are in an index bucket that overflows, also in somewhat larger caches.
   */
  async smallest({ dataName }) {
    const { createCache } = await import("../dist/index.js");
    const { keys: count } = DATA[dataName];
    const held = (size) => {
      const small = createCache({ size, nearCache: 0 });
      for (const [key, value] of freshEntries(dataName)) small.set(key, value);
      const entries = small.size;
      small.close();
      return entries;
    };
    const enough = (size) => held(size) >= count * 0.999;
    let [low, high] = [1 << 20, 1 << 20];
    while (!enough(high)) [low, high] = [high, high * 2];
    while (high - low > high / 100) {
      const middle = Math.ceil((low + high) / 2 / 65_536) * 65_536;
      if (middle === high) break;
      if (enough(middle)) high = middle;
      else low = middle;
    }
    return { bytes: high, held: held(high) };
  },

  async stats() {
    return cache.stats();
  },

  /** Starts workers that have the same cache; `tell` passes a command on to one of them. */
  async workers({ count }) {
    const handle = adapter.handle?.(cache) ?? (adapter.reach === "threads" ? cache.handle : undefined);
    for (let i = 0; i < count; i++) {
      const worker = new Worker(new URL(import.meta.url), { workerData: { handle } });
      const waiting = new Map();
      worker.on("message", ({ id, result, error }) => {
        const { resolve, reject } = waiting.get(id);
        waiting.delete(id);
        if (error === undefined) resolve(result);
        else reject(new Error(error));
      });
      worker.on("error", (error) => {
        for (const { reject } of waiting.values()) reject(error);
      });
      workers.push({ worker, waiting });
    }
    return {};
  },

  tell({ worker: number, message }) {
    const { worker, waiting } = workers[number];
    return new Promise((resolve, reject) => {
      const id = waiting.size + performance.now();
      waiting.set(id, { resolve, reject });
      worker.postMessage({ ...message, id });
    });
  },

  async close() {
    for (const { worker } of workers) await worker.terminate();
    await cache?.close?.();
    return {};
  },
};

/** The context that an adapter is opened with. */
function told(context, dataName) {
  const { type, keys: count, longest } = DATA[dataName];
  return { ...context, type, count, longest, handle: workerData?.handle };
}

async function store(entries) {
  if (cache.fill) await cache.fill(entries);
  else for (const [key, value] of entries) await cache.set(key, value);
}

/** Bytes that this process holds before it opens the cache: the module is loaded, and the entries have been made once. */
async function loadedBytes(id, dataName) {
  adapter = ADAPTERS[id];
  if (adapter.module) await import(adapter.module);
  for (const [key] of freshEntries(dataName)) sink += key.length;
  return ownBytes();
}

/** Bytes that this process holds on its heap and beside it. */
function ownBytes() {
  for (let i = 0; i < 3; i++) gc();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

function fileBytes(path) {
  if (!path) return undefined;
  const files = [path, `${path}-wal`, `${path}-shm`];
  return files.reduce((sum, file) => sum + (statSync(file, { throwIfNoEntry: false })?.blocks ?? 0) * 512, 0);
}

/** Nanoseconds; CPU time when `BENCH_CLOCK` says so, to compare this package with itself on a busy machine. */
const clock = process.env.BENCH_CLOCK === "cpu" ? cpuTime : () => Number(process.hrtime.bigint());

function cpuTime() {
  const { user, system } = process.cpuUsage();
  return (user + system) * 1000;
}

function timed(workload, start, ops) {
  if (adapter.later) return timedLater(workload, start, ops);
  const loop = loops[workload];
  const begin = clock();
  sink += loop(cache, data, start, ops);
  return clock() - begin;
}

async function timedLater(workload, start, ops) {
  const loop = adapter.lanes ? lanes(slowLoops[workload], adapter.lanes) : slowLoops[workload];
  const begin = clock();
  sink += await loop(cache, data, start, ops);
  return clock() - begin;
}

async function answer(message) {
  if (message.command === undefined) return;
  try {
    const result = await commands[message.command](message);
    if (Number.isNaN(sink)) throw new Error("a value that was read has no length");
    send({ id: message.id, result });
  } catch (error) {
    send({ id: message.id, error: error?.stack ?? String(error) });
  }
}

if (parentPort) {
  parentPort.on("message", answer);
} else {
  process.on("message", answer);
  process.on("disconnect", () => process.exit());
}
