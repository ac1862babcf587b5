/**
 * Tests large caches: a full cache, ten million writes of one key, and values of every size up to the largest. A cache takes exactly
 * the memory that was asked for, and gives it back. scale-mirror.mjs is the other process.
 */

import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { existsSync, statfsSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type CacheError, createCache, destroyCache, openCache } from "cache-machine";
import { afterEach, describe, expect, it } from "vitest";
import { inTime, resources } from "../crash/driver.mjs";
import { bytesOf, textOf } from "./scale-bytes.mjs";

const MIB = 1 << 20;
const MINUTE = 60_000;

/** Functions that run at the end of a test, also after a failure. */
const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup();
});

let names = 0;
function freshName(): string {
  const name = `t-${process.pid}-scale-${++names}`;
  cleanups.push(() => destroyCache(name));
  return name;
}

describe("a full cache", () => {
  it("a cache of 64 MiB takes 1,000,000 distinct keys, and keeps the latest ones", { timeout: 2 * MINUTE }, () => {
    const keys = 1_000_000;
    const cache = createCache<string>({ size: "64mb", nearCache: 0 });
    const textFor = (i: number) => `value of ${i}, ${"x".repeat(40 + (i % 40))}`;
    for (let i = 0; i < keys; i++) cache.set(`key ${i}`, textFor(i));
    const { evictions, capacity } = cache.stats();
    const { entries, bytes } = cache.census();
    expect(cache.validate()).toBe(0);
    expect(entries + evictions).toBe(keys);
    expect(bytes / capacity).toBeGreaterThan(0.9);
    let found = 0;
    let latest = 0;
    for (let i = 0; i < keys; i++) {
      const value = cache.get(`key ${i}`);
      if (value === undefined) continue;
      found++;
      if (i >= keys - 20_000) latest++;
      if (value !== textFor(i)) expect(value).toBe(textFor(i));
    }
    expect(found).toBe(entries);
    // A bucket of the index that overflows may have evicted some of them.
    expect(latest).toBeGreaterThan(19_900);
    cache.close();
  });

  it("a cache evicts nothing while one key is overwritten 10,000,000 times", { timeout: 2 * MINUTE }, () => {
    const cache = createCache<string>({ size: "64mb", nearCache: 0 });
    const others = 10_000;
    const textFor = (i: number) => `${i} `.repeat(20);
    for (let i = 0; i < others; i++) cache.set(`other ${i}`, textFor(i));
    const from = performance.now();
    const value = "a value of forty characters or thereabouts";
    for (let i = 0; i < 10_000_000; i++) cache.set("hot", value);
    console.log(`10,000,000 overwrites: ${((performance.now() - from) / 1_000).toFixed(1)} s`);
    for (let i = 0; i < others; i++) expect(cache.get(`other ${i}`)).toBe(textFor(i));
    expect(cache.get("hot")).toBe(value);
    const { evictions, reclaims } = cache.stats();
    expect([evictions, cache.census().entries, cache.validate()]).toEqual([0, others + 1, 0]);
    expect(reclaims).toBeGreaterThan(1_000);
    cache.close();
  });
});

describe("values of every size", () => {
  const max = 8 * MIB;
  const sizes = [0];
  for (let power = 1; power <= max; power *= 2) sizes.push(power - 1, power, power + 1);
  const inLimit = [...new Set(sizes)].filter((size) => size <= max);

  async function mirror(name: string): Promise<ChildProcess> {
    const child = fork(fileURLToPath(new URL("scale-mirror.mjs", import.meta.url)), [name]);
    cleanups.push(() => child.kill("SIGKILL"));
    await inTime(once(child, "message"), "the mirror starts");
    return child;
  }

  async function ask(child: ChildProcess, kind: string, size: number): Promise<unknown> {
    const answer = once(child, "message");
    child.send({ kind, size });
    const [message] = await inTime(answer, `${kind} of ${size}`);
    return message;
  }

  it("bytes of every size up to 8 MiB come back from another process unchanged, in a cache of 64 MiB", async () => {
    const name = freshName();
    const cache = openCache(name, { size: "64mb" });
    cleanups.push(() => cache.close());
    const child = await mirror(name);
    for (const size of inLimit) {
      const bytes = bytesOf(size);
      cache.set("bytes", bytes);
      expect(await ask(child, "bytes", size)).toEqual({ same: true, length: size });
      const back = cache.get("back") as Buffer;
      if (!bytes.equals(back)) expect.fail(`${size} bytes came back as ${back.length} others`);
    }
    expect(() => cache.set("bytes", bytesOf(max + 1))).toThrow(expect.objectContaining({ code: "ERR_TOO_LARGE" }));
    expect(bytesOf(max).equals(cache.get("bytes") as Buffer)).toBe(true);
    expect(cache.validate()).toBe(0);
  });

  it.each([
    ["of Latin-1", "text"],
    ["with characters beyond Latin-1", "wide"],
  ])("strings %s, of every size up to 2 Mi characters, come back from another process unchanged", async (_, kind) => {
    const name = freshName();
    const cache = openCache(name, { size: "64mb" });
    cleanups.push(() => cache.close());
    const child = await mirror(name);
    for (const size of inLimit.filter((size) => size <= 2 * MIB)) {
      const text = textOf(size, kind === "wide");
      cache.set(kind, text);
      expect(await ask(child, kind, size)).toEqual({ same: true, length: text.length });
      if (cache.get("back") !== text) expect.fail(`text of ${size} came back as another`);
    }
  });

  it.each([1, 2, 16])("the largest value of a cache of %i MiB is an eighth of its size", (mib) => {
    const cache = createCache({ size: mib * MIB });
    const largest = bytesOf((mib * MIB) / 8);
    for (let i = 0; i < 50; i++) {
      cache.set(`key ${i % 3}`, largest);
      expect(largest.equals(cache.get(`key ${i % 3}`))).toBe(true);
    }
    let error: CacheError | undefined;
    try {
      cache.set("key 0", bytesOf(largest.length + 1));
    } catch (thrown) {
      error = thrown as CacheError;
    }
    expect(error?.code).toBe("ERR_TOO_LARGE");
    expect([1, 2].filter((i) => cache.has(`key ${i}`) && !largest.equals(cache.get(`key ${i}`)))).toEqual([]);
    cache.close();
  });
});

describe("the memory", () => {
  it.each([
    ["1mb", MIB],
    ["64mb", 64 * MIB],
    [5_000_000, Math.ceil(5_000_000 / 65_536) * 65_536],
  ])("the file of a cache of %s in /dev/shm has exactly the size of the cache", (size, bytes) => {
    const name = freshName();
    const cache = openCache(name, { size });
    cleanups.push(() => cache.close());
    const stat = statSync(cache.handle.path);
    expect(cache.stats().size).toBe(bytes);
    expect(stat.size).toBe(bytes);
    // All blocks are reserved from the start, and no others.
    expect(stat.blocks * 512).toBe(bytes);
    for (let i = 0; i < bytes / 4_000; i++) cache.set(`key ${i}`, bytesOf(4_000));
    expect(statSync(cache.handle.path).blocks * 512).toBe(bytes);
  });

  it("the memory of a destroyed cache is free after its last participant has closed it", () => {
    const name = freshName();
    const free = () => {
      const { bfree, bsize } = statfsSync("/dev/shm");
      return (bfree * bsize) / MIB;
    };
    const before = free();
    const cache = openCache(name, { size: "512mb" });
    const { path, id } = cache.handle;
    cache.set("key", "value");
    expect(resources(id)).toMatchObject({ cacheFiles: 1, cacheMaps: 1 });
    expect(before - free()).toBeGreaterThan(400);
    expect(destroyCache(name)).toBe(true);
    expect(existsSync(path)).toBe(false);
    expect(cache.get("key")).toBe("value");
    cache.close();
    expect(resources(id)).toMatchObject({ cacheFiles: 0, cacheMaps: 0 });
    // Other programs use the file system too.
    expect(before - free()).toBeLessThan(100);
  });
});
