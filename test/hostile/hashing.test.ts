/**
 * Tests a cache against clients that choose their own keys and tags, and know everything but the seed of the cache. A rate limiter
 * counts correctly, and an invalidation does not affect other entries, also with keys that would collide in a weaker hash
 * (aimed-keys.mjs). `wasm/tests/engine/hashing.rs` tests the hash itself.
 */
import { type Cache, createCache } from "cache-machine";
import { describe, expect, test } from "vitest";
import { AimedKeys, weakHash } from "./aimed-keys.mjs";

const SEED = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));
console.log(`hashing: SEED=${SEED}`);
const aimed = new AimedKeys(SEED);
const siblings = (count: number): Buffer[] => aimed.siblings(count);

/** Number of requests of the first key that a limit of three allows, with requests of another key between any two. */
function letThrough(cache: Pick<Cache, "increment">, keys: readonly (string | Uint8Array)[]): number {
  const [victim, ...neighbours] = keys as [string, ...string[]];
  let passed = 0;
  for (const neighbour of neighbours) {
    if (cache.increment(victim) <= 3) passed++;
    // Often enough to make its entry as hot as possible.
    for (let i = 0; i < 4; i++) cache.increment(neighbour);
  }
  return passed;
}

const ASCII: string[] = aimed.asciiSiblings();
const families: [string, (string | Uint8Array)[]][] = [
  ["ordinary keys", Array.from({ length: 1024 }, (_, i) => `client:${i}`)],
  ["ids of 48 bytes", siblings(6)],
  ["ids of 48 bytes, as hexadecimal text", siblings(6).map((id) => id.toString("hex"))],
  ["ids of 88 bytes", siblings(11)],
  ["texts of 160 characters", ASCII],
];

test("all keys of a family are different, and have the same hash in the weak hash that they are made for", () => {
  for (const keys of [siblings(6), siblings(11), ASCII.map((key) => Buffer.from(key))]) {
    expect(new Set(keys.map((key) => key.toString("hex"))).size).toBe(keys.length);
    expect(new Set(keys.map(weakHash)).size).toBe(1);
  }
});

test("each cache has a random seed of 128 bits in its header", () => {
  const words = [1, 2].flatMap(() => {
    const cache = createCache({ size: "1mb" });
    const { memory, base } = cache.handle as unknown as { memory: WebAssembly.Memory; base: number };
    return [...new Uint32Array(memory.buffer, base + 24, 4)];
  });
  expect(new Set(words).size).toBe(8);
});

describe("a rate limiter beside keys that attackers choose", () => {
  test.each(families)(
    "a limit of three allows exactly three requests, beside counted keys of this family: %s",
    (_, keys) => {
      const cache = createCache({ size: "16mb" });
      expect(letThrough(cache, keys)).toBe(3);
      // The prefix of this namespace is five bytes and the name, so that the words of the key keep their alignment.
      expect(letThrough(cache.namespace("abc"), keys)).toBe(3);
      expect(cache.stats().evictions).toBe(0);
      cache.close();
    },
  );
});

test("an invalidation affects other entries only by chance, also with tags that attackers choose", () => {
  const cache = createCache({ size: "16mb" });
  for (const [i, tag] of ASCII.entries()) cache.set(i.toString(), i, { tags: [tag] });
  for (const tag of ASCII.slice(0, 32)) cache.invalidateTag(tag);
  const lost = ASCII.filter((_, i) => !cache.has(i.toString())).length;
  // Each of 32 × 992 pairs of tags shares one of 6,144 counters by chance: five pairs on average.
  expect(lost).toBeGreaterThanOrEqual(32);
  expect(lost).toBeLessThan(32 + 32);
  cache.close();
});
