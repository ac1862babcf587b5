/** Keys, values and options for sequences of operations: chosen by what is short to read in a shrunk case. */

import type { CacheOptions, IncrementOptions, Key, SetOptions } from "cache-machine";
import fc from "fast-check";
import { bytes, text, values } from "../contract/samples.ts";

/** How a value is made; as many times as it is needed, and never the same text or bytes for two operations. */
export type Recipe =
  | { readonly serial: true }
  | { readonly data: unknown }
  | { readonly kind: string }
  | { readonly text: number }
  | { readonly bytes: number };

/** The lengths at which the way of storing changes, up to chunks, and one that no cache here takes. */
const LENGTHS = [0, 1, 20, 21, 300, 513, 5000, 16_400, 66_000, 100_000];
const TOO_LONG = 600_000;

const kinds = values().map(([kind]) => kind);

/** Makes a value: a new one with each call, equal for the same recipe and serial number. */
export function build(recipe: Recipe, serial: number): unknown {
  if ("serial" in recipe) return serial;
  if ("data" in recipe) return recipe.data;
  if ("text" in recipe) return text(recipe.text, serial);
  if ("bytes" in recipe) return bytes(recipe.bytes, serial);
  return values().find(([kind]) => kind === recipe.kind)?.[1];
}

/** All kinds of values, and sometimes one that is too large. */
export const recipe: fc.Arbitrary<Recipe> = fc.oneof(
  { weight: 6, arbitrary: fc.constant<Recipe>({ serial: true }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom(...kinds) }) },
  { weight: 2, arbitrary: fc.record({ text: fc.constantFrom(...LENGTHS) }) },
  { weight: 2, arbitrary: fc.record({ bytes: fc.constantFrom(...LENGTHS) }) },
  {
    weight: 2,
    arbitrary: fc.record({ data: fc.oneof(fc.double(), fc.bigInt(), fc.string({ unit: "binary" }), fc.boolean()) }),
  },
  { weight: 1, arbitrary: fc.constantFrom<Recipe>({ text: TOO_LONG }, { bytes: TOO_LONG }) },
);

/** Keys of all kinds, few enough to meet again: prefixes of one another, a text and its bytes, ill-formed text. */
export const KEYS: readonly Key[] = [
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
  "a key of more than twenty characters",
  "k".repeat(4096),
  bytes(4096, 1),
];

/** Mostly the same few keys; the long ones rarely, which no shrunk case should need. */
export const key: fc.Arbitrary<Key> = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...KEYS.slice(0, 3)) },
  { weight: 3, arbitrary: fc.constantFrom(...KEYS) },
);
export const shortKeys: fc.Arbitrary<Key[]> = fc.array(fc.constantFrom(...KEYS.slice(0, -2)), { maxLength: 5 });

/** Namespaces: none, nested ones, and names of which one begins with the other. */
export const path: fc.Arbitrary<string[]> = fc.oneof(
  { weight: 4, arbitrary: fc.constant<string[]>([]) },
  { weight: 2, arbitrary: fc.constantFrom(["n"], ["n", "m"], ["nm"], ["m"]).map((names) => [...names]) },
);

/** Times to live: some that meet, one that is over as soon as it is added to the clock, and one without end. */
export const ttl: fc.Arbitrary<number> = fc.constantFrom(10, 1, 0.5, 100, 1e-9, 1e300, Number.POSITIVE_INFINITY);
const TAGS = ["t", "u", "a tag of more than thirty characters", "→"];
export const tags: fc.Arbitrary<string[]> = fc.array(fc.constantFrom(...TAGS), { maxLength: 3 });

/** Each member of an options type, or none of it. Without one that the type has it does not compile. */
function optional<T extends object>(members: { [K in keyof T]-?: fc.Arbitrary<T[K]> }): fc.Arbitrary<T | undefined> {
  return fc.option(fc.record(members, { requiredKeys: [] }) as unknown as fc.Arbitrary<T>, { nil: undefined });
}

export const setOptions: fc.Arbitrary<SetOptions | undefined> = optional<SetOptions>({ ttl, tags });
export const incrementOptions: fc.Arbitrary<IncrementOptions | undefined> = optional<IncrementOptions>({
  initial: fc.constantFrom(5, -0, 0.5, -7),
  ttl,
});

/** How a participant opens the cache again; the clock and the codec are those of the whole run. */
export type ReopenOptions = Omit<CacheOptions, "now" | "codec">;
export const reopenOptions: fc.Arbitrary<ReopenOptions | undefined> = optional<ReopenOptions>({
  nearCache: fc.constantFrom(0, 1, 65_536),
  frozenObjects: fc.boolean(),
  ttl,
  maxEntrySize: fc.constantFrom(300, "5kb", 1),
});
