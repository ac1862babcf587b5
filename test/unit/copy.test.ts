/** Copies of plain data equal their originals and share no object with them. */

import { execFileSync } from "node:child_process";
import path from "node:path";
import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createCache } from "../../dist/index.js";
import { copierOf, copy } from "../../src/near/copy.ts";
import { type Packed, Shapes, unpack } from "../../src/near/pack.ts";

const shapes = new Shapes();
const pack = (value: unknown): Packed | undefined => shapes.pack(value);

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
console.log(`copy: SEED=${seed}`);

const leaf = fc.oneof(
  fc.string(),
  fc.double(),
  fc.boolean(),
  fc.constantFrom(null, undefined, -0, Number.NaN),
  fc.bigInt(),
);
/** A name that an assignment can give to a property; `__proto__` would set the prototype instead. */
const name = fc.string().filter((text) => text !== "__proto__");
const { data } = fc.letrec<{ data: unknown }>((tie) => ({
  data: fc.oneof(
    { depthSize: "medium", withCrossShrink: true },
    leaf,
    fc.array(tie("data"), { maxLength: 5 }),
    fc.dictionary(name, tie("data"), { maxKeys: 5, noNullPrototype: true }),
  ),
}));

/** Returns all objects within a value, and the value itself. */
function objectsIn(value: unknown, found: Set<object> = new Set()): Set<object> {
  if (typeof value === "object" && value !== null && !found.has(value)) {
    found.add(value);
    for (const item of Object.values(value)) objectsIn(item, found);
  }
  return found;
}

/** Objects with few different names and values: there are few shapes, and many of them differ in only one part. */
const { similar } = fc.letrec<{ similar: object }>((tie) => ({
  similar: fc.dictionary(
    fc.constantFrom("a", "b", "__proto__", "1"),
    fc.oneof(
      { depthSize: "small", withCrossShrink: true },
      fc.constantFrom(1, "x", null, undefined),
      fc.array(fc.oneof(fc.constantFrom(1, null), tie("similar")), { maxLength: 5 }),
      tie("similar"),
    ),
    { maxKeys: 3, noNullPrototype: true },
  ),
}));

/** Names that need an escape in a JSON string, or that would become code if they were not escaped. */
const strange = fc.oneof(
  fc.string({ unit: "binary", maxLength: 4 }),
  fc.string({ unit: fc.constantFrom('"', "'", "`", "\\", "$", "{", "}", "\n", "\u2028", "\ud800", "]", ":", ",") }),
  fc.constantFrom(
    "get x",
    "...x",
    "constructor",
    "toString",
    '"});globalThis.broken=1;({"',
    "$" + "{globalThis.broken=1}",
  ),
);

/** Makes an object with these properties, also where an assignment would do something else (`__proto__`). */
function withOwn(entries: [string, unknown][]): object {
  const object = {};
  for (const [name, value] of entries) {
    Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
  }
  return object;
}

/** Whether a value was packed for a compiled function. */
const isCompiled = (packed: Packed | undefined): boolean => packed !== undefined && packed[0].name !== "copyPlanned";

/** Packs values of one shape until a function is compiled for it, but at most 20. Returns the last packed value. */
function packOften(make: () => unknown): Packed | undefined {
  let packed: Packed | undefined;
  for (let i = 0; i < 20 && !isCompiled(packed); i++) packed = pack(make());
  return packed;
}

describe("copies of plain data", () => {
  test("a copy equals its original and shares no object with it", () => {
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

  test("a copy of a packed value equals the value and shares no object with it, whatever was packed before", () => {
    let compiled = 0;
    const check = (value: object): void => {
      const original = structuredClone(value);
      const packed = pack(value);
      if (packed === undefined) {
        // Objects with this name are not packed. (structuredClone assigns it and may lose it.)
        expect(JSON.stringify(value)).toContain("__proto__");
        return;
      }
      if (isCompiled(packed)) compiled++;
      const first = unpack(packed);
      const second = unpack(packed);
      expect(isDeepStrictEqual(first, second)).toBe(true);
      expect(JSON.stringify(first)).toBe(JSON.stringify(value));
      if (!JSON.stringify(value).includes("__proto__")) expect(isDeepStrictEqual(first, original)).toBe(true);
      const objects = new Set([...objectsIn(value), ...objectsIn(first)]);
      expect(objects.size).toBe(objectsIn(value).size + objectsIn(first).size);
      for (const object of objectsIn(second)) expect(objects.has(object)).toBe(false);
    };
    fc.assert(fc.property(similar, check), { seed, numRuns: 3000 });
    expect(compiled).toBeGreaterThan(300);
  });

  test("a copy of a packed value has the same property names, and no property name is run as code", () => {
    const check = (names: string[]): void => {
      const make = (): object => withOwn(names.map((name, i) => [name, i % 2 === 0 ? i : withOwn([[name, i]])]));
      const packed = packOften(make);
      expect(isCompiled(packed)).toBe(!names.includes("__proto__"));
      if (packed === undefined) return;
      const copied = unpack(packed) as object;
      expect(Object.getPrototypeOf(copied)).toBe(Object.prototype);
      expect(isDeepStrictEqual(copied, make())).toBe(true);
      expect(Object.keys(copied)).toEqual(Object.keys(make()));
    };
    fc.assert(fc.property(fc.uniqueArray(strange, { maxLength: 4 }), check), { seed, numRuns: 500 });
    expect(globalThis).not.toHaveProperty("broken");
  });

  test("one function makes the copies of all values of a frequent shape", () => {
    const make = (id: number) => (): object => ({ id, at: { x: id, y: [id, "a"] }, all: [1, 2, 3, 4, id, { id }] });
    const [one, other] = [packOften(make(1)), pack(make(2)())];
    expect(one?.[0]).toBe(other?.[0]);
    expect(unpack(one as never)).toEqual(make(1)());
    expect(unpack(other as never)).toEqual(make(2)());
    expect(packOften(() => ({ id: 1 }))?.[0]).not.toBe(one?.[0]);
  });

  test("objects whose property names are data, with a thousand properties, or with 40 levels can be packed and copied", () => {
    for (let i = 0; i < 20_000; i++) {
      const value = { [`user ${i}`]: { n: i }, [`${i}`]: i };
      const packed = pack({ ...value });
      if (i % 100 === 0) expect(unpack(packed as never)).toEqual(value);
    }
    const many = (): object => Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`n${i}`, i]));
    const empty = (): object => Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`n${i}`, {}]));
    for (const make of [many, empty]) {
      const packed = packOften(make);
      expect(isCompiled(packed)).toBe(false);
      expect(unpack(packed as Packed)).toEqual(make());
    }
    const deep = (): object => {
      let value: object = { end: true };
      for (let i = 0; i < 40; i++) value = { value };
      return value;
    };
    expect(unpack(packOften(deep) as never)).toEqual(deep());
  });

  test("objects are copied where Node.js was started with --disallow-code-generation-from-strings", () => {
    const code = `
      const { createCache } = require(${JSON.stringify(path.resolve("dist/index.js"))});
      const cache = createCache({ size: "1mb" });
      for (let i = 0; i < 20; i++) cache.set("key " + i, { i, within: { list: [i] } });
      let sum = 0;
      for (let i = 0; i < 100; i++) sum += cache.get("key " + (i % 20)).within.list[0];
      console.log(sum);`;
    const flags = ["--disallow-code-generation-from-strings", "-e", code];
    expect(execFileSync(process.execPath, flags, { encoding: "utf8", timeout: 30_000 })).toBe("950\n");
  });

  const shared = { a: 1 };
  const shared2 = { n: 1 };
  const list = [1];
  const long = [1, 2, 3, 4, 5];
  const cyclic: { self?: unknown } = {};
  cyclic.self = cyclic;
  let deep: unknown = 1;
  for (let i = 0; i < 100; i++) deep = [deep];
  test.each<[string, unknown]>([
    ["one object in two places", [shared, shared]],
    ["a cycle", cyclic],
    ["a property named __proto__", JSON.parse('{ "__proto__": { "a": 1 } }')],
    ["holes", Object.assign([1], { 2: 3 })],
    ["billions of holes", Object.assign([], { length: 2 ** 32 - 1 })],
    ["an array with properties", Object.assign([1], { more: 2 })],
    ["a Map", { map: new Map() }],
    ["a Date", { at: new Date(0) }],
    ["bytes", { bytes: new Uint8Array(1) }],
    ["an object without prototype", Object.create(null)],
    ["a class instance", new (class Point {})()],
    ["a hundred levels", deep],
  ])("a value has no copier and is not packed if it has %s", (_, value) => {
    expect(copierOf(value)).toBeUndefined();
    expect(pack(value)).toBeUndefined();
    expect(pack({ value })).toBeUndefined();
  });

  test.each<[string, () => unknown, () => unknown]>([
    ["one object in two places", () => ({ a: { n: 1 }, b: { n: 1 } }), () => ({ a: shared2, b: shared2 })],
    ["one array in two places", () => ({ a: [1], b: [1] }), () => ({ a: list, b: list })],
    ["one long array in two places", () => ({ a: [1, 2, 3, 4, 5], b: [1, 2, 3, 4, 5] }), () => ({ a: long, b: long })],
    ["a Map", () => ({ a: {} }), () => ({ a: new Map() })],
    ["holes", () => ({ a: [1, 2] }), () => ({ a: Object.assign(new Array(2), { 1: 2 }) })],
  ])("a value with %s is not packed, even if there is a function for its shape", (_, plain, other) => {
    expect(packOften(plain)).toBeDefined();
    expect(pack(other())).toBeUndefined();
  });

  test("each get of a cache returns another copy, also from the near cache", () => {
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
