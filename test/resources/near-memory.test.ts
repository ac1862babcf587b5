/**
 * The near cache takes as much heap as `stats` says, stays within its bounds, and keeps nothing else in memory: no text that a
 * key or value was cut from, and nothing after `clear` and `close`.
 */

import { execFileSync } from "node:child_process";
import path from "node:path";
import { describe, expect, test } from "vitest";

const MIB = 1 << 20;

/** Runs code in a process of its own, and returns what the code returns. In the code, `heap()` is the bytes in use. */
function run<T>(code: string, flags: string[] = []): T {
  const program = `
    const { createCache, attachCache } = require(${JSON.stringify(path.resolve("dist/index.js"))});
    const heap = () => {
      for (let i = 0; i < 4; i++) gc();
      const { heapUsed, external } = process.memoryUsage();
      return heapUsed + external;
    };
    /** Reads all keys until they are in the near cache: four times, because the first reads make an entry hot. */
    const readAll = (cache, keyOf, count) => {
      for (let round = 0; round < 4; round++) for (let i = 0; i < count; i++) cache.get(keyOf(i));
    };
    console.log(JSON.stringify((() => { ${code} })()));`;
  const out = execFileSync(process.execPath, ["--expose-gc", ...flags, "-e", program], {
    encoding: "utf8",
    timeout: 120_000,
    maxBuffer: MIB,
  });
  return JSON.parse(out.trim().split("\n").at(-1) as string) as T;
}

interface Usage {
  grown: number;
  entries: number;
  bytes: number;
}

/** Reads `count` values. Returns by how many bytes the heap has grown, and what `stats` says. */
function measure(value: string, options: object, count: number, key = "'key ' + i"): Usage {
  return run<Usage>(
    `
    const cache = createCache({ size: "128mb", nearCache: 0 });
    const value = (i) => (${value});
    const keyOf = (i) => ${key};
    for (let i = 0; i < ${count}; i++) cache.set(keyOf(i), value(i));
    const reader = attachCache(cache.handle, { nearCacheSize: "64mb", ...${JSON.stringify(options)} });
    // The first reads compile code and make hidden classes. These bytes are not part of the measurement.
    cache.set("first", value(0));
    for (let i = 0; i < 4; i++) reader.get("first");
    const before = heap();
    readAll(reader, keyOf, ${count});
    const grown = heap() - before;
    return { grown, ...reader.stats().near };`,
  );
}

describe("texts in the near cache are flat", () => {
  const cut = "('/' + 'x'.repeat(15_000) + '/' + String(1e9 + i).padStart(20, '0')).slice(-21)";
  const texts: [string, string][] = [
    ["cut from long texts", cut],
    ["cut from a text that was cut from another", `(${cut} + 'y'.repeat(15_000)).slice(0, 21)`],
    ["cut from texts of two bytes a character", `('€'.repeat(8_000) + String(1e9 + i).padStart(20, '€')).slice(-21)`],
    ["joined from several texts", `['user', 'of', 'the', 'application', String(1e9 + i)].join(':') + ':' + ${cut}`],
    ["cut from the text of a Buffer", `Buffer.from('x'.repeat(15_000) + (1e9 + i)).toString().slice(-21)`],
    ["cut from a text outside of the heap", `Buffer.alloc(2 ** 20 + 20, String(1e9 + i)).latin1Slice().slice(-21)`],
  ];
  test.each(texts)("keys that are %s do not keep other texts in memory", (_, text) => {
    const count = text.includes("2 ** 20") ? 200 : 4000;
    const { grown, entries } = measure("i", {}, count, text);
    expect(entries).toBeGreaterThan(0.9 * count);
    expect(grown).toBeLessThan(2.5 * MIB);
  });

  test.each(texts)("values, and texts within values, that are %s do not keep other texts in memory", (_, text) => {
    const count = text.includes("2 ** 20") ? 200 : 4000;
    for (const value of [text, `{ a: ${text}, list: [${text}], within: { b: ${text} } }`, `new Map([[1, ${text}]])`]) {
      for (const frozenObjects of [false, true]) {
        const { grown } = measure(value, { frozenObjects }, count);
        expect(grown / count, value).toBeLessThan(1500);
      }
    }
  });

  test.each(texts)("namespaces and tags that are %s do not keep other texts in memory", (_, text) => {
    const { grown, entries } = run<Usage>(`
      const cache = createCache({ size: "64mb" });
      const count = 200;
      const text = (i) => ${text};
      // 400 texts of 15 kB are 6 MB, if something keeps them.
      const parts = [];
      const before = heap();
      for (let i = 0; i < count; i++) {
        const part = cache.namespace(text(i));
        part.set("key", i, { tags: [text(count + i)] });
        for (let n = 0; n < 4; n++) part.get("key");
        parts.push(part);
      }
      return { grown: heap() - before, ...cache.stats().near };`);
    expect(entries).toBeGreaterThan(180);
    expect(grown).toBeLessThan(4 * MIB);
  });
});

describe("estimated bytes of the near cache", () => {
  const values: [string, string, object?][] = [
    ["short texts", "'value ' + i"],
    ["texts", "String(i).padEnd(300, 'x')"],
    ["texts of two bytes a character", "String(i).padEnd(300, '€')"],
    ["texts that are ASCII except for one character", "String(i).padEnd(300, 'x') + '€'"],
    ["numbers", "i + 0.5"],
    ["whole numbers", "i"],
    ["large bigints", "10n ** 100n + BigInt(i)"],
    ["objects of one shape", "{ id: i, name: 'the name of ' + i, score: i / 3, flag: true, none: null }"],
    [
      "objects within objects",
      "{ id: i, at: { x: i + 0.5, y: { z: 'text of z ' + i } }, tags: ['red', 'green', 'a tag ' + i] }",
    ],
    ["objects of many shapes", "{ ['name ' + i]: i, ['other name ' + i]: 'text' + i }"],
    [
      "objects with a few of many property names",
      "Object.fromEntries([0, 1, 2, 3, 4].map((n) => ['name ' + ((i * 7919 + n * 104729) % 500), i]))",
    ],
    ["arrays of whole numbers", "Array.from({ length: 50 }, (_, n) => n + i)"],
    ["arrays of numbers", "Array.from({ length: 50 }, (_, n) => n + i + 0.5)"],
    ["arrays of texts", "Array.from({ length: 20 }, (_, n) => 'the text ' + n + ' of ' + i)"],
    ["arrays of objects", "Array.from({ length: 20 }, (_, n) => ({ id: n + i, text: 'the text ' + n + ' of ' + i }))"],
    [
      "objects whose property names are data",
      "Object.fromEntries(Array.from({ length: 20 }, (_, n) => ['user ' + (n + i * 20), { id: n, at: i }]))",
    ],
    ["objects of 300 properties", "Object.fromEntries(Array.from({ length: 300 }, (_, n) => ['field ' + n, n + i]))"],
  ];
  const frozen: [string, string][] = [
    ["Maps", "new Map(Array.from({ length: 20 }, (_, n) => ['the key ' + n + ' of ' + i, n]))"],
    ["Sets", "new Set(Array.from({ length: 20 }, (_, n) => 'the item ' + n + ' of ' + i))"],
    ["Dates", "{ at: new Date(i * 1e6), id: i }"],
    ["regular expressions", "{ at: new RegExp('the expression ' + i), id: i }"],
    ["errors", "new Error('the message of ' + i)"],
  ];
  const all = [
    ...values.map(([what, value]) => [what, value, {}] as const),
    ...[...values, ...frozen].map(([what, value]) => [`${what}, frozen`, value, { frozenObjects: true }] as const),
  ];
  test.each(all)("the bytes in stats are 0.5 to 1.6 times the growth of the heap: %s", (_, value, options) => {
    const { grown, entries, bytes } = measure(value, options, 4000);
    expect(entries).toBeGreaterThan(3000);
    console.log(`${_}: estimated ${(bytes / grown).toFixed(2)} of ${(grown / entries).toFixed(0)} bytes each`);
    expect(bytes / grown).toBeGreaterThan(0.5);
    expect(bytes / grown).toBeLessThan(1.6);
  });
});

describe("bounds of the near cache", () => {
  const json =
    "{ id: i, name: 'user ' + i, list: Array.from({ length: 30 }, (_, n) => ({ n: n + 0.5, text: 'text ' + n + i })) }";

  test("three near caches of a thread take at most an eighth of its heap limit together", () => {
    const { limit, most, kept } = run<{ limit: number; most: number; kept: number[] }>(
      `
      const limit = require("node:v8").getHeapStatistics().heap_size_limit;
      const caches = Array.from({ length: 3 }, () => createCache({ size: "256mb", nearCacheSize: "1gb" }));
      let most = 0;
      for (let i = 0; i < 30_000; i++) {
        const cache = caches[i % 3];
        cache.set("key " + i, ${json});
        for (let n = 0; n < 4; n++) cache.get("key " + i);
        if (i % 100 === 0) most = Math.max(most, caches.reduce((sum, cache) => sum + cache.stats().near.bytes, 0));
      }
      return { limit, most, kept: caches.map((cache) => cache.stats().near.entries) };`,
      ["--max-old-space-size=96"],
    );
    expect(most).toBeLessThanOrEqual(limit / 8);
    expect(most).toBeGreaterThan(limit / 12);
    // Each of the three caches has a part of it.
    for (const entries of kept) expect(entries).toBeGreaterThan(100);
  }, 60_000);

  test("the near cache of a worker takes at most an eighth of the worker's own heap limit", () => {
    const bytes = run<number>(
      `
      const { Worker } = require("node:worker_threads");
      const code = \`
        const { createCache } = require(\${JSON.stringify(require.resolve(${JSON.stringify(path.resolve("dist/index.js"))}))});
        const { workerData } = require("node:worker_threads");
        const cache = createCache({ size: "64mb", nearCacheSize: "64mb" });
        for (let i = 0; i < 20_000; i++) {
          cache.set("key " + i, "x".repeat(1000) + i);
          for (let n = 0; n < 4; n++) cache.get("key " + i);
        }
        Atomics.store(workerData, 0, cache.stats().near.bytes);
        Atomics.notify(workerData, 0);\`;
      const told = new Int32Array(new SharedArrayBuffer(4));
      const worker = new Worker(code, { eval: true, workerData: told, resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 4 } });
      Atomics.wait(told, 0, 0, 60_000);
      worker.unref();
      return told[0];`,
    );
    expect(bytes).toBeGreaterThan(2 * MIB);
    expect(bytes).toBeLessThan(8 * MIB);
  }, 90_000);

  test.each([
    // More than half of these keys find room. Otherwise the near cache would go into cooldown.
    ["an eighth of the size of the cache by default", "", 8 * MIB, 50_000],
    ["the bytes of the option nearCacheSize", "nearCacheSize: '3mb'", 3 * MIB, 18_000],
    ["the entries of the option nearCache", "nearCache: 1000", 1 * MIB, 1500],
  ])("the near cache takes at most %s", (_, options, most, count) => {
    const { entries, bytes, grown } = run<Usage>(`
      const filler = createCache({ size: "64mb", nearCache: 0 });
      for (let i = 0; i < 100_000; i++) filler.set("key " + i, "x".repeat(100) + i);
      const before = heap();
      const cache = attachCache(filler.handle, { ${options} });
      readAll(cache, (i) => "key " + i, ${count});
      return { grown: heap() - before, ...cache.stats().near };`);
    expect(bytes).toBeLessThanOrEqual(most);
    expect(grown).toBeLessThan(1.3 * most + MIB);
    if (options.includes("nearCache:")) expect(entries).toBeLessThanOrEqual(1000);
    expect(entries).toBeGreaterThan(900);
  });

  test("a cache and the near caches of four threads take less memory than four Maps", () => {
    const { maps, near } = run<{ maps: number; near: number }>(`
      const count = 100_000;
      const value = (i) => Buffer.from(String(i).padEnd(100, "x")).latin1Slice();
      const keyOf = (i) => Buffer.from("user:" + (100_000 + i)).latin1Slice();
      let before = heap();
      const map = new Map();
      for (let i = 0; i < count; i++) map.set(keyOf(i), value(i));
      const maps = 4 * (heap() - before);
      map.clear();
      const size = 24 << 20;
      const cache = createCache({ size, nearCache: 0 });
      for (let i = 0; i < count; i++) cache.set(keyOf(i), value(i));
      before = heap();
      const reader = attachCache(cache.handle);
      // More than half of these keys find room. Otherwise the near cache would go into cooldown.
      readAll(reader, keyOf, 18_000);
      const kept = reader.stats().near.entries;
      if (kept < 10_000) throw new Error("only " + kept + " entries are in the near cache");
      return { maps, near: size + 4 * (heap() - before) };`);
    console.log(`four Maps: ${maps >> 20} MiB; cache and four near caches: ${near >> 20} MiB`);
    expect(near).toBeLessThan(0.6 * maps);
  });
});

describe("the heap after clear and close", () => {
  const objects = "{ ['the name ' + i + 'x'.repeat(20_000)]: i, ['other ' + i]: { a: 'text ' + i } }";
  const shapes =
    "Object.fromEntries([['id', i], ...Array.from({ length: 20 }, (_, n) => ['field ' + n + ' of ' + (i % 2000), n])])";

  test.each([
    ["texts", "'x'.repeat(500) + i"],
    ["objects with long property names", objects],
    ["objects of many shapes, each met often", shapes],
  ])(
    "the near cache leaves nothing on the heap after clear and close, and takes what stats says before that: %s",
    (_, value) => {
      const left = run<{ kept: number; told: number; cleared: number; closed: number }>(
        `
      const cache = createCache({ size: "256mb", nearCacheSize: "24mb", nearCache: 100_000 });
      const value = (i) => (${value});
      const before = heap();
      for (let i = 0; i < 6000; i++) cache.set("key " + i, value(i));
      readAll(cache, (i) => "key " + i, 6000);
      const kept = heap() - before;
      const told = cache.stats().near.bytes;
      cache.clear();
      const cleared = heap() - before;
      for (let i = 0; i < 6000; i++) cache.set("key " + i, value(i));
      readAll(cache, (i) => "key " + i, 6000);
      cache.close();
      const closed = heap() - before;
      globalThis.cache = cache;
      return { kept, told, cleared, closed };`,
      );
      console.log(`${_}: ${Object.entries(left).map(([what, bytes]) => `${what} ${(bytes / MIB).toFixed(1)}`)} MiB`);
      expect(left.kept).toBeLessThan(1.5 * left.told + 4 * MIB);
      expect(left.told).toBeLessThanOrEqual(24 * MIB);
      expect(left.cleared).toBeLessThan(2 * MIB);
      expect(left.closed).toBeLessThan(2 * MIB);
    },
  );

  test("a near cache that is switched off leaves nothing on the heap", () => {
    const grown = run<number>(`
      const cache = createCache({ size: "256mb", nearCache: 0 });
      const before = heap();
      for (let i = 0; i < 6000; i++) cache.set("key " + i, (${objects}));
      readAll(cache, (i) => "key " + i, 6000);
      globalThis.cache = cache;
      return heap() - before;`);
    expect(grown).toBeLessThan(MIB);
  });
});
