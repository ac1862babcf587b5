/**
 * Clients that choose their own keys and tags, and know all but the seed of the cache, against what an application builds of
 * it: a limiter keeps counting, an invalidation takes nobody else's entries, with the families of keys that cancel in XXH64's
 * round without the outer accumulator, as with any others. `wasm/tests/engine/hashing.rs` looks at the hash itself.
 */
import { type Cache, createCache } from "cache-machine";
import { describe, expect, test } from "vitest";
import { AimedKeys, oldRounds } from "./aimed-keys.mjs";

const SEED = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));
console.log(`hashing: SEED=${SEED}`);
const aimed = new AimedKeys(SEED);
const siblings = (count: number): Buffer[] => aimed.siblings(count);

/** How many of the tries of the first key a limit of three lets through, with those of another key between each and the next. */
function letThrough(cache: Pick<Cache, "increment">, keys: readonly (string | Uint8Array)[]): number {
  const [victim, ...neighbours] = keys as [string, ...string[]];
  let passed = 0;
  for (const neighbour of neighbours) {
    if (cache.increment(victim) <= 3) passed++;
    // As often as makes its entry as hot as any.
    for (let i = 0; i < 4; i++) cache.increment(neighbour);
  }
  return passed;
}

const ASCII: string[] = aimed.asciiSiblings();
const families: [string, (string | Uint8Array)[]][] = [
  ["any keys", Array.from({ length: 1024 }, (_, i) => `client:${i}`)],
  ["ids of 48 bytes", siblings(6)],
  ["ids of 48 bytes, sent as hex and kept so", siblings(6).map((id) => id.toString("hex"))],
  ["ids of 88 bytes", siblings(11)],
  ["texts of 160 characters", ASCII],
];

test("the families are what they are said to be: the old round makes the same of all", () => {
  for (const keys of [siblings(6), siblings(11), ASCII.map((key) => Buffer.from(key))]) {
    expect(new Set(keys.map((key) => key.toString("hex"))).size).toBe(keys.length);
    expect(new Set(keys.map(oldRounds)).size).toBe(1);
  }
});

test("each cache has 128 bits of its own, and nothing else stands there", () => {
  const words = [1, 2].flatMap(() => {
    const cache = createCache({ size: "1mb" });
    const { memory, base } = cache.handle as unknown as { memory: WebAssembly.Memory; base: number };
    return [...new Uint32Array(memory.buffer, base + 24, 4)];
  });
  expect(new Set(words).size).toBe(8);
});

describe("a limit of three lets three through, whoever else is counted", () => {
  test.each(families)("%s", (_, keys) => {
    const cache = createCache({ size: "16mb" });
    expect(letThrough(cache, keys)).toBe(3);
    // What stands before a key there is five bytes and the name, so that its words stay whole.
    expect(letThrough(cache.namespace("abc"), keys)).toBe(3);
    expect(cache.stats().evictions).toBe(0);
    cache.close();
  });
});

test("an invalidation takes those of its tag, and others only by chance", () => {
  const cache = createCache({ size: "16mb" });
  for (const [i, tag] of ASCII.entries()) cache.set(i.toString(), i, { tags: [tag] });
  for (const tag of ASCII.slice(0, 32)) cache.invalidateTag(tag);
  const lost = ASCII.filter((_, i) => !cache.has(i.toString())).length;
  // One of 8,192 counters for each of 32 × 992 pairs: four in the mean.
  expect(lost).toBeGreaterThanOrEqual(32);
  expect(lost).toBeLessThan(32 + 32);
  cache.close();
});
