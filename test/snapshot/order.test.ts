/**
 * The order of a snapshot: the hottest entries first, each once, whatever happens to it meanwhile. And what follows from it: a snapshot
 * that is cut off and a cache that is too small for it have what was read most.
 */

import { Worker } from "node:worker_threads";
import { type Cache, exportCache } from "cache-machine";
import { expect, test } from "vitest";
import { BLOCK_ENTRIES, HEAD_BYTES, HEADER_BYTES, readEntries, readHead } from "../../src/snapshot/format.ts";
import { Walk } from "../../src/snapshot/walk.ts";
import { ROOT } from "../../src/values/scope.ts";
import { bytesOf, closeEach, create, importBytes, SEED, WHOLE } from "./help.ts";

console.log(`snapshot order: SEED=${SEED}`);
closeEach();

/** The keys of a snapshot in their order, those in namespaces behind the name. */
function keysIn(bytes: Buffer): string[] {
  const keys: string[] = [];
  for (let at = 2 * HEADER_BYTES; at < bytes.length; ) {
    const head = readHead(bytes.subarray(at));
    if (head === undefined) throw new Error(`no block at ${at}`);
    const content = bytes.subarray(at + HEAD_BYTES, at + HEAD_BYTES + head.length);
    if (head.kind === BLOCK_ENTRIES) {
      for (const entry of readEntries(content)) {
        if (entry === undefined) throw new Error("no entry");
        // The id of a namespace begins with the length of its name.
        const name = Buffer.from(entry.namespace).toString().replace(/^\d+:/, "");
        keys.push(`${name}${name && "/"}${Buffer.from(entry.key)}`);
      }
    }
    at += HEAD_BYTES + head.length;
  }
  return keys;
}

/** Reads a key so often that the cache counts `reads` of them. */
function read(cache: Cache<any, any>, key: string, reads: number): void {
  for (let i = 0; i < reads; i++) cache.get(key);
}

const textOf = (i: number): string => `${i} `.padEnd(100, "x");

/** A cache in which every tenth entry was read four times. */
function filled(entries: number, size: string, value: (i: number) => unknown = textOf) {
  const cache = create({ size });
  for (let i = 0; i < entries; i++) cache.set(`key ${i}`, value(i));
  const hot: string[] = [];
  for (let i = 0; i < entries; i += 10) hot.push(`key ${i}`);
  for (const key of hot) read(cache, key, 4);
  // A few may be gone already, because their buckets were full.
  return { cache, hot: hot.filter((key) => cache.has(key)) };
}

test("what was read more often comes first, in namespaces as well", async () => {
  const cache = create();
  const inner = cache.namespace("n");
  const heats = new Map<string, number>();
  for (let i = 0; i < 4000; i++) {
    const place = i % 2 === 0 ? cache : inner;
    const heat = (i * 7) % 5;
    place.set(`${i}`, i);
    read(place, `${i}`, heat);
    heats.set(i % 2 === 0 ? `${i}` : `n/${i}`, Math.min(heat, 3));
  }
  const keys = keysIn(await bytesOf(cache));
  expect(keys.length).toBe(4000);
  expect(new Set(keys).size).toBe(4000);
  const order = keys.map((key) => heats.get(key) as number);
  expect(order).toEqual([...order].sort((a, b) => b - a));
  expect(new Set(order)).toEqual(new Set([0, 1, 2, 3]));
  // Of the same heat, those outside of namespaces come first.
  const hottest = keys.slice(0, order.lastIndexOf(3) + 1).map((key) => key.startsWith("n/"));
  expect(hottest).toEqual([...hottest].sort((a, b) => Number(a) - Number(b)));
  // A namespace alone has the same order.
  const alone = keysIn(await bytesOf(inner)).map((key) => heats.get(`n/${key}`) as number);
  expect(alone.length).toBe(2000);
  expect(alone).toEqual([...alone].sort((a, b) => b - a));
});

test("a snapshot that is cut off in the middle brings back what was read", async () => {
  const { cache, hot } = filled(20_000, "16mb");
  const bytes = await bytesOf(cache);
  const copy = create({ size: "16mb" });
  const result = await importBytes(copy, bytes.subarray(0, bytes.length / 2));
  expect(result.truncated).toBe(true);
  expect(result.entries).toBeLessThan(11_000);
  for (const key of hot) expect(copy.get(key), key).toBe(cache.get(key));
});

test("reads during the export change the order, and not how often an entry comes: once", async () => {
  const { cache } = filled(20_000, "16mb");
  let at = 0;
  let calls = 0;
  const parts: Buffer[] = [];
  const to = new WritableStream<Uint8Array>({ write: (part) => void parts.push(Buffer.from(part)) });
  const result = await exportCache(cache, to, {
    onProgress() {
      calls++;
      for (let n = 0; n < 3000; n++, at++) read(cache, `key ${at % 20_000}`, 1 + (at % 4));
    },
  });
  // Each entry was read while the export was under way.
  expect(at).toBeGreaterThan(20_000);
  expect(calls).toBeGreaterThan(20);
  const keys = keysIn(Buffer.concat(parts));
  expect(keys.length).toBe(20_000);
  expect(new Set(keys).size).toBe(20_000);
  expect(result).toMatchObject({ entries: 20_000, skipped: 0 });
});

test("entries that are overwritten during the export come once, with a value that they had", async () => {
  const { cache } = filled(20_000, "32mb");
  let at = 0;
  const bytes = await bytesOf(cache, {
    onProgress() {
      // Longer ones, so that records move to other places.
      for (let n = 0; n < 2000; n++, at++)
        cache.set(`key ${(at * 7) % 20_000}`, `new ${(at * 7) % 20_000}`.padEnd(300));
    },
  });
  expect(at).toBeGreaterThan(20_000);
  const keys = keysIn(bytes);
  expect([keys.length, new Set(keys).size]).toEqual([20_000, 20_000]);
  const copy = create({ size: "32mb" });
  expect(await importBytes(copy, bytes)).toMatchObject({ ...WHOLE, entries: 20_000 });
  let changed = 0;
  for (let i = 0; i < 20_000; i++) {
    const value = copy.get(`key ${i}`);
    if (value === textOf(i)) continue;
    expect(value).toBe(`new ${i}`.padEnd(300));
    changed++;
  }
  expect(changed).toBeGreaterThan(5000);
  expect(changed).toBeLessThan(20_000);
});

test("entries that go and come during the export cost no other its place", async () => {
  const { cache } = filled(20_000, "16mb");
  let calls = 0;
  const bytes = await bytesOf(cache, {
    onProgress() {
      const first = 10_000 + ((calls++ * 500) % 10_000);
      for (let i = first; i < first + 500; i++) {
        cache.delete(`key ${i}`);
        // Takes a way that has become free.
        cache.namespace("n").set(`other ${i}`, i);
      }
    },
  });
  const keys = keysIn(bytes);
  const stayed = keys.filter((key) => key.startsWith("key ") && Number(key.slice(4)) < 10_000);
  expect([stayed.length, new Set(stayed).size]).toEqual([10_000, 10_000]);
  expect(keys.length).toBe(new Set(keys).size);
  expect(keys.length).toBeLessThan(20_000);
});

test("a walk over a cache that was emptied passes all ways of a mark in one step", () => {
  const ways = 10_000;
  let isEmpty = false;
  let calls = 0;
  // As much of a view as a walk uses. Each way has a cold entry.
  const engine = {
    tags: Buffer.alloc(64),
    key: Buffer.from("a"),
    keyWord: 0,
    next: (cursor: number, count: number) => (++calls && !isEmpty && count === 3 && cursor < ways ? cursor : -1),
    residence: () => ({ heat: 0, class: 0 }),
  };
  const walk = new Walk({ scope: ROOT, engine, opening: { checkOpen() {}, options: { now: () => 0 } } } as any);
  for (let i = 0; i < ways + 2; i++) expect(walk.next()?.entry).toBe(undefined);
  expect(calls).toBe(ways + 2);
  isEmpty = true;
  for (let steps = 0; walk.next() !== undefined; steps++) expect(steps).toBeLessThan(20);
  expect(calls).toBe(ways + 3);
});

test("a large index grows the marks: entries behind the first ways are in the snapshot", async () => {
  const { cache, hot } = filled(300_000, "64mb");
  const keys = keysIn(await bytesOf(cache));
  expect(new Set(keys).size).toBe(cache.size);
  expect(keys.length).toBe(cache.size);
  // A look-up can warm another entry whose key has the same fingerprint, so a few cold ones may be among the hot ones.
  const first = new Set(keys.slice(0, hot.length + 20));
  expect(hot.filter((key) => !first.has(key))).toEqual([]);
});

test("a quarter of the size gets the hot entries, and evicts next to nothing of them", async () => {
  const { cache, hot } = filled(60_000, "16mb");
  const bytes = await bytesOf(cache);
  const small = create({ size: "4mb" });
  const result = await importBytes(small, bytes);
  const kept = hot.filter((key) => small.has(key)).length;
  console.log(`a quarter: ${kept} of ${hot.length} hot entries kept`, result);
  expect(result).toMatchObject({ present: 0, expired: 0, tooLarge: 0, busy: 0, damaged: 0, truncated: false });
  expect(result.entries + result.full).toBe(keysIn(bytes).length);
  // With the order of the index it was a quarter of them.
  expect(kept).toBeGreaterThan(hot.length * 0.95);
  expect(result.evicted).toBeLessThan(100);
  // It was filled, not left half empty.
  expect(result.entries).toBeGreaterThan(17_000);
  expect(small.size).toBe(result.entries - result.evicted);
  for (const [key, value] of small) expect(value).toBe(textOf(Number(key.slice(4))));
  expect(small.validate()).toBe(0);
});

test("large hot values are not given up for many small cold ones", async () => {
  const cache = create({ size: "64mb" });
  const large = Buffer.alloc(64_000);
  for (let i = 0; i < 20_000; i++) cache.set(`key ${i}`, i % 100 === 0 ? large : "x".repeat(100));
  const hot: string[] = [];
  for (let i = 0; i < 20_000; i += 100) hot.push(`key ${i}`);
  for (const key of hot) read(cache, key, 4);
  const small = create({ size: "16mb" });
  const result = await importBytes(small, await bytesOf(cache));
  const kept = hot.filter((key) => small.has(key)).length;
  console.log(`large and hot: ${kept} of ${hot.length} kept`, result);
  expect(result.full).toBeGreaterThan(0);
  expect(kept).toBeGreaterThan(hot.length * 0.9);
});

test("a full index is no full memory: what fits is added, although single buckets evict", async () => {
  const cache = create({ size: "16mb" });
  for (let i = 0; i < 100_000; i++) cache.set(`key ${i}`, i);
  const bytes = await bytesOf(cache);
  const count = keysIn(bytes).length;
  // Filled and emptied before, so that all of its memory is in use by nothing.
  const copy = create({ size: "16mb" });
  for (let i = 0; i < 250_000; i++) copy.set(`old ${i}`, i);
  copy.clear();
  const result = await importBytes(copy, bytes);
  expect(result).toMatchObject({ entries: count, full: 0 });
  expect(result.evicted).toBeLessThan(count / 100);
});

test("a cache that is full of what others have stored keeps it", async () => {
  const { cache } = filled(60_000, "16mb");
  const bytes = await bytesOf(cache);
  const busy = create({ size: "16mb" });
  for (let i = 0; i < 200_000; i++) busy.set(`own ${i}`, textOf(i));
  const result = await importBytes(busy, bytes);
  expect(result.entries + result.full).toBe(keysIn(bytes).length);
  expect(result.evicted).toBeLessThan(1000);
  expect(result.full).toBeGreaterThan(50_000);
});

test("another thread exports and imports in the same order", async () => {
  const { cache, hot } = filled(30_000, "8mb");
  const small = create({ size: "2mb" });
  const code = `
    const { workerData, parentPort } = require("node:worker_threads");
    import("cache-machine").then(async ({ attachCache, exportCache, importCache }) => {
      const { PassThrough } = require("node:stream");
      const pipe = new PassThrough();
      const [, result] = await Promise.all([
        exportCache(attachCache(workerData.cache), pipe),
        importCache(attachCache(workerData.small), pipe),
      ]);
      parentPort.postMessage(result);
    });`;
  const worker = new Worker(code, { eval: true, workerData: { cache: cache.handle, small: small.handle } });
  const result = await new Promise<any>((done, failed) => worker.once("message", done).once("error", failed));
  await worker.terminate();
  expect(result.full).toBeGreaterThan(15_000);
  expect(hot.filter((key) => small.has(key)).length).toBeGreaterThan(hot.length * 0.95);
});
