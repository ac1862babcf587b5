/**
 * Reads and writes of this cache beside a Map, lru-cache and lmdb, in one process and in interleaved rounds (A B C, A B
 * C …), because machines drift: compare the ratios, which are taken within a round, rather than the nanoseconds.
 *
 *   npm run bench                     about a minute
 *   ROUNDS=9 OPS=1000000 npm run bench
 */
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { open as openLmdb } from "lmdb";
import { LRUCache } from "lru-cache";
import { createCache, destroyCache, openCache } from "../dist/index.js";

const KEYS = 100_000;
const ROUNDS = Number(process.env.ROUNDS ?? 7);
const OPS = Number(process.env.OPS ?? 300_000);
/** lmdb commits each write by itself; it is measured over fewer of them. */
const SLOW = 20;
const SIZES = [16, 100, 1024];

/** A small generator with a seed, so that every run asks for the same keys (mulberry32). */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** `OPS` key numbers, zipfian with exponent 0.99, the popular ones scattered over the key space. */
function zipfian() {
  const next = random(42);
  const sums = new Float64Array(KEYS);
  let sum = 0;
  for (let i = 0; i < KEYS; i++) sums[i] = sum += 1 / (i + 1) ** 0.99;
  const scattered = Uint32Array.from({ length: KEYS }, (_, i) => i);
  for (let i = KEYS - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [scattered[i], scattered[j]] = [scattered[j], scattered[i]];
  }
  return Uint32Array.from({ length: OPS }, () => {
    const target = next() * sum;
    let low = 0;
    for (let high = KEYS - 1; low < high; ) {
      const middle = (low + high) >> 1;
      if (sums[middle] < target) low = middle + 1;
      else high = middle;
    }
    return scattered[low];
  });
}

const keys = Array.from({ length: KEYS }, (_, i) => `user:${100_000 + i}`);
const order = zipfian();
const folder = mkdtempSync(path.join(os.tmpdir(), "cache-machine-bench-"));
const name = `bench-${process.pid}`;
const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];
let sink = 0;

function candidates(bytes) {
  const size = bytes > 500 ? "256mb" : "64mb";
  const shared = openCache(`${name}-${bytes}`, { size });
  const plain = openCache(`${name}-${bytes}`, { nearCache: 0 });
  const threads = createCache({ size });
  const lru = new LRUCache({ max: 2 * KEYS });
  const map = new Map();
  const db = openLmdb({ path: path.join(folder, String(bytes)), encoding: "string", noSync: true });
  const all = {
    Map: map,
    "lru-cache": lru,
    "cache-machine": shared,
    "…without near cache": plain,
    "…thread reach": threads,
    lmdb: { get: (key) => db.get(key), set: (key, value) => db.putSync(key, value) },
  };
  const close = async () => {
    for (const cache of [shared, plain, threads]) cache.close();
    destroyCache(`${name}-${bytes}`);
    await db.close();
  };
  return { all, close };
}

const workloads = {
  "get, key at hand": (cache) => {
    for (let i = 0; i < OPS; i++) sink += cache.get(keys[order[i]]).length;
  },
  "get, key built per call": (cache) => {
    for (let i = 0; i < OPS; i++) sink += cache.get(`user:${100_000 + order[i]}`).length;
  },
  set: (cache, values, slow) => {
    const step = slow ? SLOW : 1;
    for (let i = 0; i < OPS; i += step) cache.set(keys[order[i]], values[i & 1023]);
  },
};

console.log(`node ${process.version}, ${os.cpus()[0]?.model ?? "unknown processor"}, ${os.cpus().length} cores`);
console.log(`${KEYS} keys, zipfian 0.99, ${OPS} operations × ${ROUNDS} rounds; median ns per operation\n`);
try {
  for (const bytes of SIZES) {
    const values = Array.from({ length: 1024 }, (_, i) => `${i}-`.padEnd(bytes, "x"));
    const { all, close } = candidates(bytes);
    for (const cache of Object.values(all)) for (const [i, key] of keys.entries()) cache.set(key, values[i & 1023]);
    for (const [workload, run] of Object.entries(workloads)) {
      const times = Object.fromEntries(Object.keys(all).map((peer) => [peer, []]));
      for (let round = 0; round <= ROUNDS; round++) {
        for (const [peer, cache] of Object.entries(all)) {
          const slow = workload === "set" && peer === "lmdb";
          const start = performance.now();
          run(cache, values, slow);
          const ns = ((performance.now() - start) * 1e6) / (slow ? OPS / SLOW : OPS);
          // The first round warms up.
          if (round > 0) times[peer].push(ns);
        }
      }
      console.log(`${workload}, strings of ${bytes} bytes`);
      const rows = Object.entries(times).map(([peer, measured]) => {
        const ratio = (other) => median(times[other].map((ns, round) => ns / measured[round])).toFixed(2);
        return { peer, ns: Math.round(median(measured)), "× lru-cache": ratio("lru-cache"), "× lmdb": ratio("lmdb") };
      });
      for (const row of [{ peer: "", ns: "ns", "× lru-cache": "× lru-cache", "× lmdb": "× lmdb" }, ...rows]) {
        const cells = [row.ns, row["× lru-cache"], row["× lmdb"]];
        console.log(`  ${row.peer.padEnd(22)}${cells.map((cell) => String(cell).padStart(13)).join("")}`);
      }
      console.log();
    }
    await close();
    globalThis.gc?.();
  }
} finally {
  for (const bytes of SIZES) destroyCache(`${name}-${bytes}`);
  rmSync(folder, { recursive: true, force: true });
}
if (sink === 0) throw new Error("nothing was read");
