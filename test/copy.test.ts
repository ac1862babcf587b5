/** Copies of plain data: equal to what they were made of, and with nothing in common. */

import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createCache } from "../dist/index.js";
import { copierOf, copy } from "../src/copy.ts";

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
console.log(`copy: SEED=${seed}`);

const leaf = fc.oneof(
  fc.string(),
  fc.double(),
  fc.boolean(),
  fc.constantFrom(null, undefined, -0, Number.NaN),
  fc.bigInt(),
);
/** What JSON.parse makes an object of, and assigning does not. */
const name = fc.string().filter((text) => text !== "__proto__");
const { data } = fc.letrec<{ data: unknown }>((tie) => ({
  data: fc.oneof(
    { depthSize: "medium", withCrossShrink: true },
    leaf,
    fc.array(tie("data"), { maxLength: 5 }),
    fc.dictionary(name, tie("data"), { maxKeys: 5, noNullPrototype: true }),
  ),
}));

/** All objects within a value, itself included. */
function objectsIn(value: unknown, found: Set<object> = new Set()): Set<object> {
  if (typeof value === "object" && value !== null && !found.has(value)) {
    found.add(value);
    for (const item of Object.values(value)) objectsIn(item, found);
  }
  return found;
}

describe("a copy", () => {
  test("equals its original and shares no object with it", () => {
    const check = (value: unknown): void => {
      const copier = copierOf(value);
      if (copier === undefined) {
        expect(typeof value === "object" && value !== null).toBe(false);
        return;
      }
      const copied = copy(value, copier);
      expect(isDeepStrictEqual(copied, value)).toBe(true);
      const originals = objectsIn(value);
      for (const object of objectsIn(copied)) expect(originals.has(object)).toBe(false);
    };
    fc.assert(fc.property(data, check), { seed, numRuns: 500 });
  });

  const shared = { a: 1 };
  const cyclic: { self?: unknown } = {};
  cyclic.self = cyclic;
  let deep: unknown = 1;
  for (let i = 0; i < 100; i++) deep = [deep];
  test.each<[string, unknown]>([
    ["one object in two places", [shared, shared]],
    ["a cycle", cyclic],
    ["what would be the prototype of the copy", JSON.parse('{ "__proto__": { "a": 1 } }')],
    ["holes", Object.assign([1], { 2: 3 })],
    ["billions of holes", Object.assign([], { length: 2 ** 32 - 1 })],
    ["properties of an array", Object.assign([1], { more: 2 })],
    ["a Map", { map: new Map() }],
    ["a Date", { at: new Date(0) }],
    ["bytes", { bytes: new Uint8Array(1) }],
    ["no prototype", Object.create(null)],
    ["an instance", new (class Point {})()],
    ["great depth", deep],
  ])("is not made of %s", (_, value) => {
    expect(copierOf(value)).toBeUndefined();
  });

  test("is what each get of a cache returns, also of what is near", () => {
    const cache = createCache({ size: "1mb" });
    const value = { id: 1, tags: ["a", "b"], address: { city: "Berlin", lines: [["x"], []] } };
    cache.set("key", value);
    const seen = new Set<object>();
    for (let i = 0; i < 4; i++) {
      const got = cache.get("key");
      expect(got).toEqual(value);
      for (const object of objectsIn(got)) {
        expect(seen.has(object)).toBe(false);
        seen.add(object);
      }
      got.address.lines[0].push(i);
      got.tags.length = 0;
      delete got.address.city;
    }
    cache.close();
  });
});
