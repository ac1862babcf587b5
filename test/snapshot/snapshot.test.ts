/** Snapshots: what comes back of every kind of entry, what an import leaves alone, clocks, codecs, streams, wrong arguments. */

import {
  createReadStream,
  createWriteStream,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { PassThrough, Readable, Writable } from "node:stream";
import { pathToFileURL } from "node:url";
import { exportCache, importCache } from "cache-machine";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bytesOf, closeEach, create, folder, importBytes, SEED, WHOLE } from "./help.ts";

console.log(`snapshot: SEED=${SEED}`);
const directory = folder();
closeEach();
let files = 0;
const newFile = (): string => join(directory, `${++files}.snapshot`);

const VALUES: Record<string, unknown> = {
  number: 1.5,
  "minus zero": -0,
  "not a number": Number.NaN,
  empty: "",
  latin1: "aé",
  utf8: `${"a".repeat(80)}€`,
  utf16: "€",
  "lone surrogate": "\ud800x",
  null: null,
  true: true,
  false: false,
  bigint: -(2n ** 70n),
  buffer: Buffer.from([1, 2, 3]),
  bytes: Uint8Array.of(4, 5),
  floats: Float64Array.of(1.5, -0),
  view: new DataView(Uint8Array.of(7).buffer),
  "array buffer": Uint8Array.of(8).buffer,
  object: { a: [1, "é", { b: null }] },
  map: new Map<unknown, unknown>([["a", new Set([1])]]),
  date: new Date(5),
  error: new RangeError("no"),
  expression: /a+/gi,
  "10 MB": Buffer.alloc(10_000_000, "0123456789"),
  "a block": "x".repeat(65_536),
  "a little more than a block": "y".repeat(65_600),
};

describe("what comes back", () => {
  test("every type of value, with its very bytes, through a file and through streams of any pieces", async () => {
    const cache = create({ size: "128mb" });
    for (const [key, value] of Object.entries(VALUES)) cache.set(key, value);
    const file = newFile();
    const count = Object.keys(VALUES).length;
    const exported = await exportCache(cache, file);
    expect(exported).toEqual({ entries: count, bytes: statSync(file).size, skipped: 0 });
    for (const from of [file, pathToFileURL(file), createReadStream(file, { highWaterMark: 1000 })]) {
      const copy = create({ size: "128mb" });
      expect(await importCache(copy, from)).toMatchObject({ ...WHOLE, entries: count, bytes: exported.bytes });
      for (const [key, value] of Object.entries(VALUES)) {
        // Vitest compares large bytes for minutes.
        if (key !== "10 MB") expect(copy.get(key), key).toEqual(value);
        expect(Object.is(copy.get(key), -0), key).toBe(key === "minus zero");
        expect(Buffer.from(copy.encode(copy.get(key))).equals(cache.encode(value)), key).toBe(true);
      }
      expect(copy.size).toBe(count);
      expect(copy.validate()).toBe(0);
    }
  });

  test("every kind of key, in namespaces within one another", async () => {
    const cache = create();
    const keys = ["", "a", "é€", "\ud800", "x\udfff", Buffer.from([]), Buffer.from([255, 0]), "k".repeat(4096)];
    const places = [[], ["n"], ["n", "1:n"], ["ä€", "n", "n"]];
    for (const [p, path] of places.entries()) {
      const place = path.reduce((outer, name) => outer.namespace(name), cache);
      for (const [k, key] of keys.entries()) place.set(key, `${p} ${k}`, { tags: ["all", `tag ${p}`] });
    }
    const copy = create();
    expect(await importBytes(copy, await bytesOf(cache))).toMatchObject({ ...WHOLE, entries: 32 });
    for (const [p, path] of places.entries()) {
      const place = path.reduce((outer, name) => outer.namespace(name), copy);
      for (const [k, key] of keys.entries()) {
        expect(place.getEntry(key)).toMatchObject({ value: `${p} ${k}`, tags: ["all", `tag ${p}`] });
      }
      expect([...place.keys()].length).toBe(keys.length);
    }
    // Clearing reaches what is in the namespace, and nothing else.
    copy.namespace("n").clear();
    expect(copy.size).toBeGreaterThan(0);
    expect([copy.get("a"), copy.namespace("n").get("a"), copy.namespace("n").namespace("1:n").get("a")]).toEqual([
      "0 1",
      undefined,
      undefined,
    ]);
  });

  test("a namespace alone, which may come back in another one", async () => {
    const cache = create();
    cache.set("outside", 1);
    cache.namespace("us").set("other", 1);
    const users = cache.namespace("users");
    users.set("ann", 1, { tags: ["t"] });
    users.namespace("inner").set("bob", 2);
    const bytes = await bytesOf(users);
    const copy = create();
    expect(await importBytes(copy.namespace("new"), bytes)).toMatchObject({ ...WHOLE, entries: 2 });
    expect([...copy.keys()]).toEqual([]);
    expect(copy.namespace("new").get("ann")).toBe(1);
    expect(copy.namespace("new").namespace("inner").get("bob")).toBe(2);
    copy.namespace("new").invalidateTag("t");
    expect(copy.namespace("new").get("ann")).toBe(undefined);
    expect(await importBytes(copy, bytes)).toMatchObject({ ...WHOLE, entries: 2 });
    expect([copy.get("ann"), copy.namespace("inner").get("bob")]).toEqual([1, 2]);
  });

  test("tags can be invalidated, and grace begins with the expiry", async () => {
    let now = 1000;
    const clock = () => now;
    const cache = create({ now: clock });
    cache.set("tagged", 1, { tags: ["a", "b"] });
    cache.set("graceful", 2, { ttl: 100, grace: 1000 });
    cache.set("forever", 3, { grace: Infinity, tags: ["c"] });
    const copy = create({ now: clock });
    const bytes = await bytesOf(cache);
    expect(await importBytes(copy, bytes)).toMatchObject({ ...WHOLE, entries: 3 });
    copy.invalidateTag("b");
    expect(copy.get("tagged")).toBe(undefined);
    expect([copy.ttl("graceful"), copy.ttl("forever")]).toEqual([100, Infinity]);
    now += 200;
    expect([copy.get("graceful"), copy.getStale("graceful")]).toEqual([
      undefined,
      expect.objectContaining({ value: 2, stale: true }),
    ]);
    copy.expireTag("c");
    expect(copy.getStale("forever")).toMatchObject({ value: 3, stale: true });
    now += 1000;
    expect(copy.getStale("graceful")).toBe(undefined);
    // What has expired, also within its grace, is in no snapshot.
    expect(await importBytes(create({ now: clock }), await bytesOf(copy))).toMatchObject({ entries: 0 });
  });

  test("numbers go on counting, and rate limits go on limiting", async () => {
    let now = 1_000_000;
    const clock = () => now;
    const cache = create({ now: clock });
    cache.increment("counted", 5);
    cache.set("set", 7);
    const rules = (["gcra", "fixed", "sliding"] as const).map((algorithm) => ({ algorithm, limit: 10, window: 1000 }));
    for (const rule of rules) cache.namespace("limits").rateLimit(rule.algorithm, { ...rule, cost: 7 });
    now += 900;
    for (const rule of rules) cache.namespace("limits").rateLimit(rule.algorithm, { ...rule, cost: 2 });
    now += 300;
    // GCRA has drained a little, the fixed window is a new one, and the sliding one has a window before it.
    for (const rule of rules) cache.namespace("limits").rateLimit(rule.algorithm, { ...rule, cost: 1 });
    expect(cache.namespace("limits").get("sliding")).toMatchObject({ previous: 9, count: 1 });
    const copy = create({ now: clock });
    const bytes = await bytesOf(cache);
    const result = await importBytes(copy, bytes);
    expect(result).toMatchObject({ ...WHOLE, entries: 5 });
    expect([copy.increment("counted"), copy.increment("set")]).toEqual([6, 8]);
    for (const rule of rules) {
      const [mine, theirs] = [copy, cache].map((each) => each.namespace("limits"));
      expect(mine?.get(rule.algorithm), rule.algorithm).toEqual(theirs?.get(rule.algorithm));
      expect(mine?.ttl(rule.algorithm), rule.algorithm).toEqual(theirs?.ttl(rule.algorithm));
      for (let i = 0; i < 12; i++) {
        expect(mine?.rateLimit(rule.algorithm, rule)).toEqual(theirs?.rateLimit(rule.algorithm, rule));
        now += 70;
      }
    }
    expect(copy.validate()).toBe(0);
    // A limit that is there stays.
    const again = create({ now: clock });
    again.namespace("limits").rateLimit("gcra", { limit: 3, window: 100_000 });
    const before = again.namespace("limits").get("gcra");
    await importBytes(again, await bytesOf(cache));
    expect(again.namespace("limits").get("gcra")).toEqual(before);
  });

  test("locks, loads that are under way and what a tier keeps are no entries", async () => {
    const cache = create();
    const lock = await cache.locks.request("name", { ifAvailable: true }, async () => {
      const load = cache.getOrSet("loaded", () => new Promise((done) => setTimeout(done, 300, 1)));
      cache.namespace("tier values x").set("a", 1);
      cache.namespace("tier control x").set("lease", "sent");
      cache.namespace("users").namespace("tier values x").set("b", 2);
      const bytes = await bytesOf(cache);
      const copy = create();
      expect(await importBytes(copy, bytes)).toMatchObject({ ...WHOLE, entries: 1 });
      expect(copy.namespace("users").namespace("tier values x").get("b")).toBe(2);
      expect(await load).toBe(1);
      return "held";
    });
    expect(lock).toBe("held");
  });

  test("random entries come back as they are, several times", async () => {
    const entry = fc.record({
      path: fc.array(
        fc.string({ minLength: 1, maxLength: 8, unit: "binary" }).filter((name) => name.isWellFormed()),
        { maxLength: 3 },
      ),
      key: fc.oneof(
        fc.string({ maxLength: 30, unit: "binary" }),
        fc.uint8Array({ maxLength: 30 }).map((bytes) => Buffer.from(bytes)),
      ),
      value: fc.oneof(fc.string({ maxLength: 200 }), fc.double(), fc.uint8Array({ maxLength: 3000 }), fc.jsonValue()),
      tags: fc.array(fc.string({ minLength: 1, maxLength: 20 }), { maxLength: 4 }),
      grace: fc.constantFrom(0, 1, 60_000, Infinity),
      ttl: fc.constantFrom(1, 50_000, 3_600_000, Infinity),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(entry, { maxLength: 60 }),
        fc.integer({ min: 1, max: 70_000 }),
        fc.nat(40_000),
        async (list, piece, later) => {
          // The wall clock goes on like the clock of the caches.
          let now = Date.now();
          const clock = () => now;
          const wall = Date.now;
          Date.now = clock;
          const [cache, copy] = [create({ now: clock }), create({ now: clock })];
          const model = new Map<string, unknown>();
          for (const { path, key, value, ...options } of list) {
            path.reduce((outer, name) => outer.namespace(name), cache).set(key, value, options);
            model.set(JSON.stringify([path, key]), {
              path,
              key,
              value,
              expiresAt: now + options.ttl,
              tags: options.tags,
            });
          }
          const bytes = await bytesOf(cache);
          now += later;
          const result = await importBytes(copy, bytes, undefined, piece);
          let entries = 0;
          for (const each of model.values()) {
            const { path, key, value, expiresAt, tags } = each as any;
            const found = path.reduce((outer: any, name: string) => outer.namespace(name), copy).getEntry(key);
            if (expiresAt <= now) expect(found).toBe(undefined);
            else {
              expect(found).toMatchObject({ expiresAt, tags });
              expect(Buffer.from(copy.encode(found.value)).equals(cache.encode(value))).toBe(true);
              entries++;
            }
          }
          expect(result).toMatchObject({ ...WHOLE, entries, expired: model.size - entries });
          // An import of what is there adds nothing.
          expect(await importBytes(copy, bytes)).toMatchObject({ entries: 0, present: entries });
          expect(copy.validate()).toBe(0);
          cache.close();
          copy.close();
          Date.now = wall;
        },
      ),
      { seed: SEED, numRuns: 60 },
    );
  });
});

describe("what an import leaves alone", () => {
  test("an entry that is there stays, whatever the snapshot says", async () => {
    const cache = create();
    cache.set("a", "old").set("b", "old");
    const bytes = await bytesOf(cache);
    cache.set("a", "new");
    cache.delete("b");
    expect(await importBytes(cache, bytes)).toMatchObject({ ...WHOLE, entries: 1, present: 1 });
    expect([cache.get("a"), cache.get("b")]).toEqual(["new", "old"]);
  });

  test("a snapshot that is older than maxAge", async () => {
    const cache = create();
    cache.set("a", 1);
    const bytes = await bytesOf(cache);
    const copy = create();
    const { now } = Date;
    try {
      Date.now = () => now() + 10_000;
      expect(await importBytes(copy, bytes, { maxAge: 9000 })).toMatchObject({ outdated: true, entries: 0 });
      expect(copy.size).toBe(0);
      expect(await importBytes(copy, bytes, { maxAge: 20_000 })).toMatchObject({ outdated: false, entries: 1 });
      // A clock that was set back since the export: the snapshot counts as new.
      Date.now = () => now() - 10_000;
      copy.clear();
      expect(await importBytes(copy, bytes, { maxAge: 0 })).toMatchObject({ outdated: false, entries: 1 });
    } finally {
      Date.now = now;
    }
  });

  test("too large values are left out", async () => {
    const cache = create({ size: "16mb" });
    for (let i = 0; i < 1000; i++) cache.set(`key ${i}`, `${i} `.repeat(200));
    cache.set("large", Buffer.alloc(1_500_000));
    const file = newFile();
    await exportCache(cache, file);
    const smaller = create({ size: "8mb" });
    expect(await importCache(smaller, file)).toMatchObject({ ...WHOLE, entries: 1000, tooLarge: 1 });
    const picky = create({ size: "16mb", maxEntrySize: 500 });
    expect(await importCache(picky, file)).toMatchObject({ ...WHOLE, entries: 10, tooLarge: 991 });
  });
});

describe("clocks", () => {
  test("an entry expires at the moment of the wall clock at which it would have expired", async () => {
    const { now } = Date;
    const start = 1_700_000_000_000;
    let wall = start;
    try {
      Date.now = () => wall;
      const cache = create();
      cache.set("short", 1, { ttl: 1000 }).set("long", 2, { ttl: 100_000 }).set("ever", 3);
      const bytes = await bytesOf(cache);
      wall += 5000;
      const copy = create();
      expect(await importBytes(copy, bytes)).toMatchObject({ ...WHOLE, entries: 2, expired: 1 });
      expect([copy.ttl("long"), copy.ttl("ever")]).toEqual([95_000, Infinity]);
      // Set back by an hour: the moment stays the same, so the entry lives longer here.
      wall = start - 3_600_000;
      const back = create();
      await importBytes(back, bytes);
      expect(back.getEntry("short")?.expiresAt).toBe(start + 1000);
      // A clock that begins with the machine: a time of it means nothing after the next start, so the moment is kept.
      wall = start;
      const machine = (begin: number) => create({ now: () => wall - begin });
      const first = machine(start - 500_000);
      first.set("a", 1, { ttl: 60_000 });
      first.rateLimit("limit", { limit: 5, window: 60_000, algorithm: "fixed" });
      const before = await bytesOf(first);
      wall += 20_000;
      const second = machine(start + 19_000);
      expect(await importBytes(second, before)).toMatchObject({ ...WHOLE, entries: 2 });
      expect(second.ttl("a")).toBe(40_000);
      expect(second.rateLimit("limit", { limit: 5, window: 60_000, algorithm: "fixed" })).toMatchObject({
        remaining: 3,
        resetAfter: 40_000,
      });
      wall += 100_000;
      expect(await importBytes(machine(start), before)).toMatchObject({ expired: 2 });
    } finally {
      Date.now = now;
    }
  });

  test("a clock that throws, is no number, or uses the cache", async () => {
    const state = { now: () => 1 as any };
    const cache = create({ now: () => state.now() });
    cache.set("a", 1, { ttl: 100 });
    const bytes = await bytesOf(cache);
    for (const run of [() => bytesOf(cache), () => importBytes(cache, bytes)]) {
      state.now = () => {
        throw new Error("the clock");
      };
      await expect(run()).rejects.toThrow("the clock");
      state.now = () => "late";
      await expect(run()).rejects.toThrow(/^now: must return a number/);
      state.now = () => 1;
    }
    expect(cache.get("a")).toBe(1);
    expect(await importBytes(create(), bytes)).toMatchObject({ entries: 1 });
  });
});

describe("codecs", () => {
  const codec = (mark: number) => ({
    encode: (value: unknown) => Buffer.from(JSON.stringify(value)).map((byte) => byte ^ mark),
    decode: (bytes: Uint8Array) => JSON.parse(Buffer.from(bytes.map((byte) => byte ^ mark)).toString()) as unknown,
  });

  test("the same codec reads what it has written, and no value was decoded or encoded on the way", async () => {
    const calls: string[] = [];
    const spied = {
      encode(value: unknown) {
        calls.push("encode");
        return codec(7).encode(value);
      },
      decode(bytes: Uint8Array) {
        calls.push("decode");
        return codec(7).decode(bytes);
      },
    };
    const cache = create({ codec: spied });
    for (let i = 0; i < 50; i++) cache.set(`${i}`, { i });
    calls.length = 0;
    const copy = create({ codec: spied, frozenObjects: true });
    expect(await importBytes(copy, await bytesOf(cache))).toMatchObject({ ...WHOLE, entries: 50 });
    expect(calls).toEqual(["encode", "encode"]);
    expect(copy.get("7")).toEqual({ i: 7 });
    expect(Object.isFrozen(copy.get("7"))).toBe(true);
  });

  test("another codec, and none, are refused before anything is added", async () => {
    const cache = create({ codec: codec(7) });
    cache.set("a", { a: 1 }).set("text", "plain");
    const bytes = await bytesOf(cache);
    for (const [other, text] of [
      [create({ codec: codec(8) }), "with another `codec`"],
      [create(), "this cache has none"],
    ] as const) {
      await expect(importBytes(other, bytes)).rejects.toMatchObject({
        code: "ERR_DATA",
        message: expect.stringContaining(text),
      });
      expect(other.size).toBe(0);
    }
  });

  test("a codec whose bytes are different each time, one for its own data only, and one where there was none", async () => {
    let salt = 0;
    const salted = {
      encode: (value: unknown) => Buffer.concat([Buffer.of(++salt), codec(3).encode(value)]),
      decode: (bytes: Uint8Array) => codec(3).decode(bytes.subarray(1)),
    };
    const own = {
      encode(value: any) {
        if (value.own !== true) throw new Error("only my own");
        return Buffer.of(1);
      },
      decode: () => ({ own: true }),
    };
    for (const [each, value] of [
      [salted, { a: 1 }],
      [own, { own: true }],
    ] as const) {
      const [cache, copy] = [create({ codec: each }), create({ codec: each })];
      cache.set("a", value);
      expect(await importBytes(copy, await bytesOf(cache))).toMatchObject({ ...WHOLE, entries: 1 });
      expect(copy.get("a")).toEqual(value);
    }
    const plain = create();
    plain.set("a", { a: 1 });
    const copy = create({ codec: codec(7) });
    expect(await importBytes(copy, await bytesOf(plain))).toMatchObject({ entries: 1 });
    expect(copy.get("a")).toEqual({ a: 1 });
  });
});

describe("streams, files, signals", () => {
  const filled = (entries = 3000, options = {}) => {
    const cache = create({ size: "32mb", ...options });
    for (let i = 0; i < entries; i++) cache.set(`key ${i}`, `${i} `.repeat(200));
    return cache;
  };

  test("web streams, and streams that take little at a time", async () => {
    const cache = filled();
    const parts: Uint8Array[] = [];
    const result = await exportCache(cache, new WritableStream({ write: (part) => void parts.push(part) }));
    const from = new ReadableStream<Uint8Array>({
      start(controller) {
        for (const part of parts) controller.enqueue(part);
        controller.close();
      },
    });
    const copy = create({ size: "32mb" });
    expect(await importCache(copy, from)).toMatchObject({ ...WHOLE, entries: 3000, bytes: result.bytes });
    const pipe = new PassThrough({ highWaterMark: 10 });
    const other = create({ size: "32mb" });
    const [out, into] = await Promise.all([exportCache(cache, pipe), importCache(other, pipe)]);
    expect([out.entries, into.entries, other.size]).toEqual([3000, 3000, 3000]);
  });

  test("a slow stream holds the export back", async () => {
    const cache = filled();
    let pending = 0;
    let most = 0;
    const seen: number[] = [];
    const slow = new Writable({
      highWaterMark: 1,
      write(_chunk, _encoding, done) {
        most = Math.max(most, ++pending);
        setImmediate(() => {
          pending--;
          done();
        });
      },
    });
    const original = slow.write.bind(slow) as typeof slow.write;
    let queued = 0;
    slow.write = ((chunk: Uint8Array, ...rest: []) => {
      queued = Math.max(queued, slow.writableLength);
      return original(chunk, ...rest);
    }) as typeof slow.write;
    const result = await exportCache(cache, slow, { onProgress: ({ entries }) => void seen.push(entries) });
    expect(most).toBe(1);
    expect(queued).toBeLessThan(200_000);
    expect(result.bytes).toBeGreaterThan(2_000_000);
    expect(seen.length).toBeGreaterThan(20);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(seen.at(-1)).toBe(3000);
  });

  test("progress tells how far it is, and its error ends the export and the import", async () => {
    const cache = filled();
    const file = newFile();
    const progress: any[] = [];
    const result = await exportCache(cache, file, { onProgress: (each) => void progress.push(each) });
    expect(progress.at(-1)).toMatchObject({ entries: 3000, total: 3000 });
    const copy = create({ size: "32mb" });
    const read: any[] = [];
    await importCache(copy, file, { onProgress: (each) => void read.push(each) });
    expect(read.at(-1)).toEqual({ entries: 3000, bytes: result.bytes, total: result.bytes });
    const fails = () => {
      throw new Error("from progress");
    };
    const before = readFileSync(file);
    await expect(exportCache(cache, file, { onProgress: fails })).rejects.toThrow("from progress");
    expect(readFileSync(file).equals(before)).toBe(true);
    await expect(importCache(create(), file, { onProgress: fails })).rejects.toThrow("from progress");
  });

  test("a signal ends an export and an import, also while a stream does not go on", async () => {
    const cache = filled();
    const file = newFile();
    const reason = new Error("enough");
    await expect(exportCache(cache, file, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const during = (run: (signal: AbortSignal, stop: () => void) => Promise<unknown>) => {
      const controller = new AbortController();
      return expect(run(controller.signal, () => controller.abort(reason))).rejects.toBe(reason);
    };
    await during((signal, onProgress) => exportCache(cache, file, { signal, onProgress }));
    expect(readdirSync(directory).filter((name) => name.includes("tmp") || file.endsWith(name))).toEqual([]);
    const stuck = () => new Writable({ highWaterMark: 1, write() {} });
    await during((signal, stop) => {
      setTimeout(stop, 50);
      return exportCache(cache, stuck(), { signal });
    });
    await during((signal, stop) => {
      setTimeout(stop, 50);
      return exportCache(cache, new WritableStream({ write: () => new Promise(() => {}) }), { signal });
    });
    const bytes = await bytesOf(cache);
    const copy = create({ size: "32mb" });
    await during((signal, onProgress) => importBytes(copy, bytes, { signal, onProgress }, 50_000));
    expect(copy.size).toBeGreaterThan(0);
    expect(copy.size).toBeLessThan(3000);
    for (const from of [new Readable({ read() {} }), new ReadableStream<Uint8Array>({})]) {
      await during((signal, stop) => {
        setTimeout(stop, 50);
        return importCache(copy, from as Readable, { signal });
      });
    }
  });

  test("a stream that fails in the middle: its error, and for a file what was there", async () => {
    const cache = filled();
    let writes = 0;
    const failing = new Writable({
      write: (_chunk, _encoding, done) => done(++writes === 5 ? new Error("pipe") : null),
    });
    await expect(exportCache(cache, failing)).rejects.toThrow("pipe");
    expect(failing.destroyed).toBe(true);
    let pieces = 0;
    const web = new WritableStream({
      write() {
        if (++pieces === 5) throw new Error("web pipe");
      },
    });
    await expect(exportCache(cache, web)).rejects.toThrow("web pipe");
    await expect(exportCache(cache, createWriteStream("/dev/full"))).rejects.toMatchObject({ code: "ENOSPC" });
    const bytes = await bytesOf(cache);
    const broken = Readable.from(
      (function* () {
        yield bytes.subarray(0, 300_000);
        throw new Error("source");
      })(),
    );
    const copy = create({ size: "32mb" });
    await expect(importCache(copy, broken)).rejects.toThrow("source");
    expect(copy.size).toBeGreaterThan(100);
    for (const [key, value] of copy) expect(value).toBe(`${key.slice(4)} `.repeat(200));
    await expect(importCache(copy, Readable.from(["text", "text"]))).rejects.toThrow(
      /^from: the stream must give bytes/,
    );
  });

  test("a cache that is closed, cleared, or changed meanwhile", async () => {
    const cache = filled();
    const file = newFile();
    await expect(exportCache(cache, file, { onProgress: () => cache.close() })).rejects.toMatchObject({
      code: "ERR_CLOSED",
    });
    expect(existsSync(file)).toBe(false);
    await expect(exportCache(cache, file)).rejects.toMatchObject({ code: "ERR_CLOSED" });
    const other = filled();
    const bytes = await bytesOf(other);
    let calls = 0;
    const result = await exportCache(other, file, {
      onProgress() {
        if (++calls === 3) other.clear();
      },
    });
    expect(result.entries).toBeGreaterThan(100);
    expect(result.entries).toBeLessThan(3000);
    const closing = create({ size: "32mb" });
    await expect(importBytes(closing, bytes, { onProgress: () => closing.close() })).rejects.toMatchObject({
      code: "ERR_CLOSED",
    });
    await expect(importBytes(closing, bytes)).rejects.toMatchObject({ code: "ERR_CLOSED" });
  });

  test("a file is private, follows a link, and is nothing but a regular file in a folder that exists", async () => {
    const cache = filled(3);
    const file = newFile();
    await exportCache(cache, file);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const link = newFile();
    symlinkSync(file, link);
    writeFileSync(file, "old");
    await exportCache(cache, link);
    expect((await importCache(create(), file)).entries).toBe(3);
    await expect(exportCache(cache, directory)).rejects.toThrow(/^file: .* is not a regular file/);
    await expect(exportCache(cache, "/dev/null")).rejects.toThrow(/^file: .* is not a regular file/);
    expect(statSync("/dev/null").isFile()).toBe(false);
    await expect(exportCache(cache, join(directory, "missing", "file"))).rejects.toMatchObject({ code: "ENOENT" });
    await expect(importCache(cache, join(directory, "missing"))).rejects.toMatchObject({ code: "ENOENT" });
    await expect(importCache(cache, directory)).rejects.toMatchObject({ code: "EISDIR" });
  });
});

describe("wrong arguments", () => {
  const wrong: [string, (cache: any) => Promise<unknown>, string][] = [
    ["a Map", () => exportCache(new Map() as any, "x"), "cache: must be a Cache"],
    ["null", () => importCache(null as any, "x"), "cache: must be a Cache"],
    ["no target", (cache) => exportCache(cache, undefined as any), "to: must be the path of a file"],
    ["a number as target", (cache) => exportCache(cache, 1 as any), "to: must be the path of a file"],
    ["an object as source", (cache) => importCache(cache, {} as any), "from: must be the path of a file"],
    ["bytes as source", (cache) => importCache(cache, Buffer.of(1) as any), "from: must be the path of a file"],
    ["an unknown option", (cache) => exportCache(cache, "x", { onprogres: 1 } as any), "options.onprogres"],
    ["a wrong signal", (cache) => importCache(cache, "x", { signal: {} as any }), "signal: must be an AbortSignal"],
    [
      "a wrong callback",
      (cache) => exportCache(cache, "x", { onProgress: 1 as any }),
      "onProgress: must be a function",
    ],
    ["an age that is a text", (cache) => importCache(cache, "x", { maxAge: "1h" as any }), "maxAge: must be a number"],
    ["a negative age", (cache) => importCache(cache, "x", { maxAge: -1 }), "maxAge: must be 0 or more"],
    ["no age", (cache) => importCache(cache, "x", { maxAge: Number.NaN }), "maxAge: must be 0 or more"],
  ];

  test.each(wrong)("%s", async (_, run, text) => {
    const cache = create();
    cache.set("a", 1);
    const error = await run(cache).then(
      () => undefined,
      (each: unknown) => each as Error,
    );
    expect(
      error === undefined ? undefined : [error instanceof TypeError || error instanceof RangeError, error.message],
    ).toEqual([true, expect.stringContaining(text)]);
  });
});
