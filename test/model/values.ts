/**
 * The keys, values, namespaces and options that sequences are drawn from. The first of each list are short, because a failing
 * sequence is shrunk to these and printed.
 */

import type { CacheOptions, IncrementOptions, Key, SetOptions } from "cache-machine";
import fc from "fast-check";
import { bytes, text, values } from "../../src/testing/samples.ts";

/** How to make a value. The text or bytes contain the position of the operation, so that no two operations store the same. */
export type Recipe =
  | { readonly serial: true }
  | { readonly data: unknown }
  | { readonly named: string }
  | { readonly text: number }
  | { readonly bytes: number };

/** Lengths around which a value is encoded or stored in another way, up to values in chunks. */
const LENGTHS = [0, 1, 20, 21, 300, 513, 5000, 16_400, 66_000, 100_000];
/** A length that no cache of these tests accepts. */
const TOO_LONG = 600_000;

const names = values().map(([name]) => name);

/** Makes a value: a new one with each call, and equal values for the same recipe and serial number. */
export function build(recipe: Recipe, serial: number): unknown {
  if ("serial" in recipe) return serial;
  if ("data" in recipe) return recipe.data;
  if ("text" in recipe) return text(recipe.text, serial);
  if ("bytes" in recipe) return bytes(recipe.bytes, serial);
  return values().find(([name]) => name === recipe.named)?.[1];
}

/** Values of all types, and sometimes one that is too large. */
export const recipe: fc.Arbitrary<Recipe> = fc.oneof(
  { weight: 6, arbitrary: fc.constant<Recipe>({ serial: true }) },
  { weight: 3, arbitrary: fc.record({ named: fc.constantFrom(...names) }) },
  { weight: 2, arbitrary: fc.record({ text: fc.constantFrom(...LENGTHS) }) },
  { weight: 2, arbitrary: fc.record({ bytes: fc.constantFrom(...LENGTHS) }) },
  {
    weight: 2,
    arbitrary: fc.record({ data: fc.oneof(fc.double(), fc.bigInt(), fc.string({ unit: "binary" }), fc.boolean()) }),
  },
  { weight: 1, arbitrary: fc.constantFrom<Recipe>({ text: TOO_LONG }, { bytes: TOO_LONG }) },
);

/**
 * Keys of all key kinds, few enough that a sequence uses them again. Some are prefixes of others, some have the same bytes but
 * another key kind, some have lone surrogates.
 */
const KEYS: readonly Key[] = [
  "a",
  "ab",
  "abc",
  "",
  new Uint8Array(0),
  Uint8Array.of(0x61),
  Uint8Array.of(0x61, 0x62),
  "\ud800",
  "\ud800x",
  // The bytes of "\ud800" in UTF-16.
  Uint8Array.of(0x00, 0xd8),
  "é",
  "__proto__",
  "\ud83d\ude00",
  "a key of more than twenty characters",
  "k".repeat(4096),
  bytes(4096, 1),
];

/** Mostly the first few keys. */
export const key: fc.Arbitrary<Key> = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...KEYS.slice(0, 3)) },
  { weight: 3, arbitrary: fc.constantFrom(...KEYS) },
);
/** Lists of keys, without the long ones. */
export const shortKeys: fc.Arbitrary<Key[]> = fc.array(fc.constantFrom(...KEYS.slice(0, -2)), { maxLength: 5 });

/** The namespaces, by path. */
export const NAMESPACES: readonly string[][] = [["n"], ["n", "m"], ["nm"], ["m"], ["m", "k"]];
/** The times to live of namespaces, by the last name of the path. */
export const NAMESPACE_TTLS: Readonly<Record<string, number>> = { m: 60 };

/** Beginnings of keys: of some of the keys above, and with half of a surrogate pair at their end. */
export const prefix: fc.Arbitrary<Key> = fc.constantFrom<Key>(
  "",
  "a",
  "ab",
  "abcd",
  "a key of more than",
  "\ud800",
  "\ud83d",
  "\ude00",
  "é",
  "k".repeat(4096),
  new Uint8Array(0),
  Uint8Array.of(0x61),
  Uint8Array.of(0x00),
  bytes(4096, 1).subarray(0, 100),
);

/** Paths of namespaces: none, a nested one, and names that begin with another name. */
export const path: fc.Arbitrary<string[]> = fc.oneof(
  { weight: 4, arbitrary: fc.constant<string[]>([]) },
  { weight: 2, arbitrary: fc.constantFrom(...NAMESPACES).map((names) => [...names]) },
);

/** Times to live: ordinary ones, one too small to change the clock when it is added, and two that never end. */
export const ttl: fc.Arbitrary<number> = fc.constantFrom(10, 1, 0.5, 100, 1e-9, 1e300, Number.POSITIVE_INFINITY);
/** Graces: none, ordinary ones, and one that never ends. */
export const grace: fc.Arbitrary<number> = fc.constantFrom(0, 20, 0.5, 200, Number.POSITIVE_INFINITY);
/** Lists of tags. */
const TAGS = ["t", "u", "a tag of more than thirty characters", "→"];
export const tags: fc.Arbitrary<string[]> = fc.array(fc.constantFrom(...TAGS), { maxLength: 3 });

/** Options with any of their members, or `undefined`. If the type has a member that is not listed, this does not compile. */
function optional<T extends object>(members: { [K in keyof T]-?: fc.Arbitrary<T[K]> }): fc.Arbitrary<T | undefined> {
  return fc.option(fc.record(members, { requiredKeys: [] }) as unknown as fc.Arbitrary<T>, { nil: undefined });
}

/**
 * Options of a store, without those that exclude each other. A time is a time to live when it is drawn: an operation adds
 * the present time.
 */
export const setOptions: fc.Arbitrary<SetOptions | undefined> = optional<SetOptions>({
  ttl,
  expiresAt: fc.constantFrom(10, 1, 100, 0, -1, -1000, 1e300, Number.POSITIVE_INFINITY),
  grace,
  tags,
  keepTtl: fc.boolean(),
  keepTags: fc.boolean(),
}).map((options) => {
  if (options === undefined) return undefined;
  const { ttl, expiresAt, grace, tags, keepTtl, keepTags } = options;
  return {
    ...(ttl !== undefined && { ttl }),
    ...(ttl === undefined && expiresAt !== undefined && { expiresAt }),
    ...(grace !== undefined && { grace }),
    ...(tags !== undefined && { tags }),
    ...(keepTtl !== undefined && { keepTtl: keepTtl && ttl === undefined && expiresAt === undefined }),
    ...(keepTags !== undefined && { keepTags: keepTags && tags === undefined }),
  };
});

export const incrementOptions: fc.Arbitrary<IncrementOptions | undefined> = optional<IncrementOptions>({
  initial: fc.constantFrom(5, -0, 0.5, -7),
  ttl,
  tags,
  min: fc.constantFrom(-5, 0, Number.NEGATIVE_INFINITY),
  max: fc.constantFrom(5, 40, Number.POSITIVE_INFINITY),
});

/** The options with which a participant opens the cache. The clock and the codec are the same for all participants. */
export type ReopenOptions = Omit<CacheOptions, "now" | "codec">;
export const reopenOptions: fc.Arbitrary<ReopenOptions | undefined> = optional<ReopenOptions>({
  nearCache: fc.constantFrom(0, 1, 65_536),
  frozenObjects: fc.boolean(),
  ttl,
  maxEntrySize: fc.constantFrom(300, "5kb", 1),
});
