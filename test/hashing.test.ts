/**
 * Clients that choose their own keys and tags, and know all but the seed of the cache, against what an application builds of
 * it: a limiter keeps counting, an invalidation takes nobody else's entries, with the families of keys that cancel in XXH64's
 * round without the outer accumulator, as with any others. `wasm/tests/engine/hashing.rs` looks at the hash itself.
 */
import { type Cache, createCache } from "cache-machine";
import { describe, expect, test } from "vitest";
import { generator } from "./fixtures/crash-values.mjs";

const SEED = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));
console.log(`hashing: SEED=${SEED}`);
const { next } = generator(SEED);
const anyWord = (): bigint => (BigInt(next()) << 32n) | BigInt(next());

const WORD = 2n ** 64n;
const P1 = 0x9e37_79b1_85eb_ca87n;
const P2 = 0xc2b2_ae3d_27d4_eb4fn;
const times = (a: bigint, b: bigint): bigint => BigInt.asUintN(64, a * b);
const rotate = (word: bigint, by: bigint): bigint => BigInt.asUintN(64, (word << by) | (word >> (64n - by)));
/** Of an odd number, modulo 2⁶⁴: each step doubles the bits that are right. */
function inverse(odd: bigint): bigint {
  let found = odd;
  for (let step = 0; step < 6; step++) found = times(found, 2n + WORD - times(odd, found));
  return found;
}
const [P1_BACK, P2_BACK] = [inverse(P1), inverse(P2)];
/** What XXH64 makes of a word before it goes into the state, and back. */
const mixed = (word: bigint): bigint => times(rotate(times(word, P2), 31n), P1);
const unmixed = (word: bigint): bigint => times(rotate(times(word, P1_BACK), 33n), P2_BACK);
const twin = (word: bigint, bit: bigint): bigint => unmixed(mixed(word) ^ (1n << bit));
const bytesOf = (words: bigint[]): Buffer => Buffer.from(BigUint64Array.from(words).buffer);

/** All keys that differ from one of `count` words in pairs of neighbours: 2ⁿ⁻¹ of them. */
function siblings(count: number): Buffer[] {
  const words = Array.from({ length: count }, anyWord);
  return Array.from({ length: 2 ** (count - 1) }, (_, changed) => {
    const key = words.map(mixed);
    for (let i = 0; i < count - 1; i++) {
      if (((changed >> i) & 1) === 0) continue;
      (key[i] as bigint) ^= 1n << 36n;
      (key[i + 1] as bigint) ^= 1n << 63n;
    }
    return bytesOf(key.map(unmixed));
  });
}

/** The same of ten pairs that do not overlap, found by trying so that all of it is ASCII: 1,024 texts of 160 characters. */
function asciiSiblings(): string[] {
  const TOP_BITS = 0x8080_8080_8080_8080n;
  const alternatives = (bit: bigint): [bigint, bigint] => {
    for (;;) {
      const word = anyWord() & ~TOP_BITS;
      if ((twin(word, bit) & TOP_BITS) === 0n) return [word, twin(word, bit)];
    }
  };
  const pairs = Array.from({ length: 10 }, () => [alternatives(36n), alternatives(63n)]);
  return Array.from({ length: 1024 }, (_, changed) =>
    bytesOf(pairs.flatMap((pair, i) => pair.map((word) => word[(changed >> i) & 1] as bigint))).toString("latin1"),
  );
}

/** How many of the tries of the first key a limit of three lets through, with those of another key between each and the next. */
function letThrough(cache: Pick<Cache, "increment">, keys: readonly (string | Uint8Array)[]): number {
  const [victim, ...aimed] = keys as [string, ...string[]];
  let passed = 0;
  for (const neighbour of aimed) {
    if (cache.increment(victim) <= 3) passed++;
    // As often as makes its entry as hot as any.
    for (let i = 0; i < 4; i++) cache.increment(neighbour);
  }
  return passed;
}

const ASCII = asciiSiblings();
const families: [string, (string | Uint8Array)[]][] = [
  ["any keys", Array.from({ length: 1024 }, (_, i) => `client:${i}`)],
  ["ids of 48 bytes", siblings(6)],
  ["ids of 48 bytes, sent as hex and kept so", siblings(6).map((id) => id.toString("hex"))],
  ["ids of 88 bytes", siblings(11)],
  ["texts of 160 characters", ASCII],
];

test("the families are what they are said to be: the old round makes the same of all", () => {
  const round = (key: Uint8Array): bigint => {
    let state = 0x1234_5678_9abc_def0n;
    for (const word of new BigUint64Array(Uint8Array.from(key).buffer)) {
      state = BigInt.asUintN(64, times(rotate(state ^ mixed(word), 27n), P1) + 0x85eb_ca77_c2b2_ae63n);
    }
    return state;
  };
  for (const keys of [siblings(6), siblings(11), ASCII.map((key) => Buffer.from(key))]) {
    expect(new Set(keys.map((key) => key.toString("hex"))).size).toBe(keys.length);
    expect(new Set(keys.map(round)).size).toBe(1);
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
