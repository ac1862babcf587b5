/**
 * Keys and values come back as they were stored, on a runtime with `Buffer` and on one without. What cannot come back is
 * refused. Wrong bytes become a value or an error, and nothing worse. When fast-check finds a failure it prints `seed` and
 * `path`; given to `fc.assert`, they repeat the failure.
 */
import { deepStrictEqual } from "node:assert";
import { runInNewContext, runInThisContext } from "node:vm";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { KEY_BYTES, KEY_ILL_FORMED, KEY_STRING } from "../../src/engine/contract.ts";
import { CacheError } from "../../src/errors.ts";
import { ValueCodec } from "../../src/values/codec.ts";
import { deepFreeze } from "../../src/values/freeze.ts";
import { KEY_LIMIT, KEY_TOO_LONG, KeyCodec, keyKind, keyLength } from "../../src/values/key.ts";
import { bufferRuntime, plainRuntime, type Runtime } from "../../src/values/runtime.ts";

const runtimes: [string, Runtime][] = [
  ["with Buffer", bufferRuntime as Runtime],
  ["without Buffer", plainRuntime],
];

// Value types are part of the memory layout. The numbers stand here once more, so that no change of them is an accident.
const NUMBER = 1;
const LATIN1 = 2;
const UTF8 = 3;
const STRUCTURED = 32;
const JSON_TEXT = 40;

/** Shared memory, as in the cache. A method that cannot read or write shared memory fails here. */
function scratch(length = 65536): Uint8Array {
  return Buffer.from(new SharedArrayBuffer(length + 16), 8, length);
}

/** Encodes and decodes a value. Overwrites the memory before it returns, so that a result that shares this memory is wrong. */
function roundTrip(value: unknown, on: Runtime, target = scratch(), codec = new ValueCodec(undefined, on)): unknown {
  const length = codec.encode(value, target);
  const { type } = codec;
  if (codec.bytes !== undefined) {
    expect(length).toBeGreaterThan(target.length);
    expect(codec.bytes.length).toBe(length);
    return codec.decode(type, codec.bytes, 0, length);
  }
  const memory = scratch(length + 5);
  memory.set(target.subarray(0, length), 5);
  const result = codec.decode(type, memory, 5, length);
  memory.fill(0xa5);
  target.fill(0x5a);
  return result;
}

/** Text of any code units; ASCII and surrogates are more frequent. */
function utf16(maxLength: number): fc.Arbitrary<string> {
  const unit = fc.oneof(fc.integer({ min: 32, max: 126 }), fc.integer({ min: 0xd7f0, max: 0xe00f }), fc.nat(0xffff));
  return fc.array(unit, { maxLength, size: "max" }).map((units) => String.fromCharCode(...units));
}

const anyText = fc.oneof(utf16(30), utf16(200), fc.string(), fc.string({ minLength: 60, maxLength: 80 }));

/** Any data that comes back strictly equal. */
const anything: fc.Arbitrary<unknown> = fc
  .anything({
    key: fc.oneof(anyText, fc.constantFrom("constructor", "toJSON", "then", "hasOwnProperty", "length", "0", "name")),
    values: [
      anyText,
      fc.constantFrom(undefined, null, true, false, NaN, Infinity, -Infinity, 0, -0),
      fc.integer(),
      fc.double(),
      fc.bigInt({ min: -(2n ** 300n), max: 2n ** 300n }),
      fc.date({ noInvalidDate: true }),
      fc.constantFrom(/a/g, /[^/]\//iu),
    ],
    withMap: true,
    withSet: true,
    withTypedArray: true,
    withSparseArray: true,
    withNullPrototype: true,
    withBoxedValues: true,
    maxDepth: 4,
  })
  .filter((value) => value !== undefined && !fc.stringify(value).includes('["__proto__"]:'));

const ascii = "plain text ".repeat(10);
const texts: string[] = [
  ..."|a|key:1234567890123456|é|naïve café|\x80\x9f\x00\x7f\xff|…|\ufeff|\ufeffmark|😀|中文".split("|"),
  ...[`${ascii}…`, `\ufeff${ascii}`, `${ascii.repeat(90)}é`, `${ascii.repeat(90)}😀`],
  ...[20, 21, 63, 64, 512, 513].flatMap((length) => ["x".repeat(length), "é".repeat(length), "中".repeat(length)]),
  ...["\x85".repeat(5000), "中".repeat(9000)],
  ...["\ud800", "\udc00", "a\ud800b", "\udc00\ud800", `${ascii}\ud83d`, "\ud800".repeat(5000)],
];

/** A primitive value as part of a title: short, and with escapes for what cannot be printed. */
function shown(value: unknown): string {
  const text = typeof value === "string" ? JSON.stringify(value) : Object.is(value, -0) ? "-0" : String(value);
  const full = typeof value === "bigint" ? `${text}n` : text;
  return full.length <= 40 ? full : `${full.slice(0, 30)}… (${full.length} characters)`;
}

describe.each(runtimes)("keys on a runtime %s", (_name, on) => {
  const codec = new KeyCodec(on);
  const write = (key: string | Uint8Array, room = KEY_LIMIT + 8): [number, Uint8Array] => {
    const area = scratch(room);
    const written = codec.write(key, area);
    return [keyKind(written), area.slice(0, keyLength(written))];
  };
  it.each(texts.filter((text) => text.length < 1000).map((text) => [shown(text), text] as const))(
    "the key %s is read back",
    (_shown, text) => {
      const [kind, bytes] = write(text);
      expect(codec.read(kind, bytes, 0, bytes.length)).toBe(text);
      expect(kind).toBe(/\p{Surrogate}/u.test(text) ? KEY_ILL_FORMED : KEY_STRING);
      if (kind === KEY_STRING) expect([...bytes]).toEqual([...new TextEncoder().encode(text)]);
    },
  );

  it("any string is read back, two different strings never become the same bytes, and each runtime writes the same", () => {
    const text = fc.oneof(fc.string({ unit: "binary" }), utf16(60));
    fc.assert(
      fc.property(text, text, (a, b) => {
        const [kindA, bytesA] = write(a);
        const [kindB, bytesB] = write(b);
        expect(codec.read(kindA, bytesA, 0, bytesA.length)).toBe(a);
        expect(kindA === kindB && Buffer.from(bytesA).equals(bytesB)).toBe(a === b);
        const area = scratch(KEY_LIMIT);
        const written = new KeyCodec(plainRuntime).write(a, area);
        expect([kindA, ...bytesA]).toEqual([keyKind(written), ...area.subarray(0, keyLength(written))]);
      }),
    );
  });

  it("a key of bytes is read back as a copy", () => {
    const foreign = runInNewContext("new Uint8Array([1])") as Uint8Array;
    for (const key of [new Uint8Array([0, 255]), new Uint8Array(0), Buffer.from("abc"), foreign]) {
      const [kind, bytes] = write(key);
      expect(kind).toBe(KEY_BYTES);
      const read = codec.read(kind, bytes, 0, bytes.length) as Uint8Array;
      expect([...read]).toEqual([...key]);
      expect(read.buffer).not.toBe(bytes.buffer);
    }
  });

  it.each<[string, string | Uint8Array, number]>([
    ["ASCII, short", "abcdef", 6],
    ["UTF-8, short", "ééé", 6],
    ["UTF-16 with a lone surrogate, short", "abc\ud800", 8],
    ["ASCII", "a".repeat(30), 30],
    ["a Uint8Array", new Uint8Array(6), 6],
    ["ASCII, the longest", "a".repeat(4096), 4096],
    ["UTF-8, the longest", `${"é".repeat(2047)}ab`, 4096],
    ["UTF-16 with lone surrogates, the longest", "\ud800".repeat(2048), 4096],
  ])("a key fits into a target of exactly its length, and not into a shorter one: %s", (_what, key, length) => {
    const [kind, bytes] = write(key, length);
    expect(bytes.length).toBe(length);
    expect(codec.read(kind, bytes, 0, length)).toEqual(typeof key === "string" ? key : on.adopt(key));
    expect(codec.write(key, scratch(length - 1))).toBe(KEY_TOO_LONG);
  });

  it.each<[string, string | Uint8Array]>([
    ["4097 bytes of UTF-8", "a".repeat(4097)],
    ["4098 bytes of UTF-8", "é".repeat(2049)],
    ["12288 bytes of UTF-8", "中".repeat(4096)],
    ["4098 bytes of UTF-16", "\ud800".repeat(2049)],
    ["4097 bytes", new Uint8Array(4097)],
  ])("a key of %s is refused, and the error tells its length and the limit", (length, key) => {
    expect(codec.write(key, scratch())).toBe(KEY_TOO_LONG);
    const error = codec.tooLong(key);
    expect(error).toMatchObject({ name: "CacheError", code: "ERR_TOO_LARGE" });
    expect(error.message).toContain(`key: has ${length}`);
    expect(error.message).toContain("the limit is 4096.");
  });

  it("a key of another type is refused, and a key kind that does not exist gives no key", () => {
    const others = [1, null, undefined, {}, [], Symbol("x"), new Uint16Array(2), new ArrayBuffer(2)];
    for (const key of others) {
      expect(() => write(key as string)).toThrow(TypeError);
      expect(() => write(key as string)).toThrow("key: must be a string or a Uint8Array");
    }
    expect(codec.read(3, new Uint8Array(4), 0, 4)).toBeUndefined();
  });
});

const numbers: number[] = [
  ...[0, -0, 1, -1, 127, 128, 65535, 2147483648, 4294967296, 9007199254740992, 0.1, 5e-324, 1e308],
  ...[NaN, Infinity, -Infinity],
];
const bigints: bigint[] = [0n, 1n, 2n ** 63n, 3n ** 5000n, 2n ** 70000n].flatMap((n) => [n, -n, n - 1n]);
const views = [
  ...[Uint8Array, Uint8ClampedArray, Int8Array, Int16Array, Uint16Array, Int32Array, Uint32Array],
  ...[Float32Array, Float64Array, BigInt64Array, BigUint64Array, DataView],
] as unknown as Uint8ArrayConstructor[];

function rawBytes(view: ArrayBufferView): number[] {
  return [...new Uint8Array(view.buffer, view.byteOffset, view.byteLength)];
}

describe.each(runtimes)("values on a runtime %s", (_name, on) => {
  it.each([null, true, false, ...numbers, ...bigints, ...texts].map((value) => [shown(value), value] as const))(
    "the primitive value %s comes back unchanged, alone and within objects",
    (_shown, value) => {
      expect(roundTrip(value, on)).toBe(value);
      expect(roundTrip([value, { value }], on)).toStrictEqual([value, { value }]);
    },
  );

  it("a number is stored as the engine stores a counter: type 1, 8 bytes of float64", () => {
    const codec = new ValueCodec(undefined, on);
    const target = scratch();
    expect(codec.encode(12.5, target)).toBe(8);
    expect(codec.type).toBe(NUMBER);
    expect(new DataView(target.buffer, target.byteOffset).getFloat64(0, true)).toBe(12.5);
  });

  it.each(views.map((View) => [View.name, View] as const))(
    "a %s comes back with only the bytes that it shows, from private and from shared memory",
    (_name, View) => {
      for (const buffer of [new ArrayBuffer(40), new SharedArrayBuffer(40)]) {
        new Uint8Array(buffer).forEach((_, i, all) => {
          all[i] = i * 37;
        });
        // A DataView has no elements.
        const view: ArrayBufferView = new View(buffer as ArrayBuffer, 8, 16 / (View.BYTES_PER_ELEMENT ?? 1));
        for (const result of [roundTrip(view, on), (roundTrip({ view }, on) as { view: unknown }).view]) {
          expect(Object.getPrototypeOf(result)).toBe(View.prototype);
          const copy = result as ArrayBufferView;
          expect(rawBytes(copy)).toEqual(rawBytes(view));
          expect(copy.buffer).toBeInstanceOf(ArrayBuffer);
          expect([copy.byteOffset, copy.buffer.byteLength]).toEqual([0, 16]);
        }
      }
    },
  );

  it("a Uint8Array and an ArrayBuffer come back as what they are, and a Buffer too where the runtime has Buffer; elsewhere it comes back as a Uint8Array", () => {
    const nested = (roundTrip([Buffer.from("bytes")], on) as [Uint8Array])[0];
    for (const buffer of [roundTrip(Buffer.from("bytes"), on) as Uint8Array, nested]) {
      expect(Buffer.isBuffer(buffer)).toBe(on === bufferRuntime);
      expect(String.fromCharCode(...buffer)).toBe("bytes");
    }
    expect(Buffer.isBuffer(roundTrip(new Uint8Array(3), on))).toBe(false);
    const plain = roundTrip(new Uint8Array([1, 2]).buffer, on) as ArrayBuffer;
    expect(plain).toBeInstanceOf(ArrayBuffer);
    expect([...new Uint8Array(plain)]).toEqual([1, 2]);
  });

  it("encode hands out bytes that do not fit into the target, and decode does not copy bytes that it may own", () => {
    const codec = new ValueCodec(undefined, on);
    const plain = ["x", "é", "中", "x…"].map((text) => text.repeat(100));
    for (const value of [...plain, plain, 3n ** 200n, 1.5, 7n]) {
      for (const room of [0, 1, 7, 99]) expect(roundTrip(value, on, scratch(room), codec)).toStrictEqual(value);
    }
    for (const value of [new Uint8Array(100), new Float64Array(40), Buffer.alloc(640)]) {
      for (const room of [0, 99]) {
        expect(rawBytes(roundTrip(value, on, scratch(room), codec) as Uint8Array)).toEqual(rawBytes(value));
      }
      const target = scratch();
      const length = codec.encode(value, target);
      const own = new Uint8Array(target.subarray(0, length));
      const result = codec.decode(codec.type, own, 0, length, true) as Uint8Array;
      expect(result.buffer).toBe(own.buffer);
      expect(Buffer.isBuffer(result)).toBe(Buffer.isBuffer(value) && on === bufferRuntime);
      expect((codec.decode(codec.type, own, 0, length) as Uint8Array).buffer).not.toBe(own.buffer);
    }
  });

  it.each<[string, unknown]>([
    ["empty objects", [{}, [], new Map(), new Set(), Object.create(null)]],
    ["undefined within an object", { a: undefined, b: [undefined, null] }],
    ["properties with unusual names", Object.fromEntries([...texts, "4294967295", "1"].map((text, i) => [text, i]))],
    // biome-ignore lint/suspicious/noThenProperty: data may have it
    ["properties named like methods", { hasOwnProperty: 1, toJSON: 2, constructor: 3, toString: null, then: 5 }],
    ["70,000 properties", Object.fromEntries(Array.from({ length: 70000 }, (_, i) => [`k${i}`, i]))],
    [
      "Map",
      new Map<unknown, unknown>([
        [{ k: 1 }, new Map([["x", new Set([1])]])],
        [NaN, undefined],
        ["", null],
      ]),
    ],
    ["Set", new Set<unknown>([1, "1", null, undefined, new Set(), [1]])],
    ["Date", [0, -1, 1234567890123, 8.64e15, -8.64e15, NaN].map((time) => new Date(time))],
    ["RegExp", [/a\/b/giu, /(?:)/, /[\ud800]/, /\u{1f600}/u]],
    ["URLs", [new URL("http://localhost/a?b=c#d"), new URLSearchParams("a=1&b=2")]],
    ["boxed primitives", [Object(1), Object("s"), Object(false), Object(5n)]],
    ["a long array", Array.from({ length: 100000 }, (_, i) => i)],
  ])("data comes back unchanged: %s", (_what, value) => {
    expect(roundTrip(value, on)).toStrictEqual(value);
  });

  it("holes of an array come back, in time that depends on its items and not on its length", () => {
    const sparse: unknown[] = [1];
    sparse[3] = 3;
    sparse[100] = "x";
    sparse.length = 105;
    expect(roundTrip(sparse, on)).toStrictEqual(sparse);
    const vast: unknown[] = [];
    vast[4_000_000_000] = "far";
    vast.length = 2 ** 32 - 1;
    const back = roundTrip(vast, on) as unknown[];
    expect(back.length).toBe(2 ** 32 - 1);
    expect(Object.entries(back)).toEqual([["4000000000", "far"]]);
  });

  it("cycles and repeated references are still cycles and repeated references after decoding", () => {
    const date = new Date(5);
    const bytes = Buffer.from([1]);
    const list: unknown[] = [];
    const map = new Map<unknown, unknown>();
    const set = new Set<unknown>();
    const error = new Error("loop");
    const value: Record<string, unknown> = { date, same: date, list, map, set, bytes, again: [bytes], error };
    value.self = value;
    list.push(list, value);
    map.set(map, set);
    set.add(value).add(set);
    error.cause = error;
    const result = roundTrip(value, on) as typeof value;
    expect(result.self).toBe(result);
    expect(result.same).toBe(result.date);
    expect((result.again as unknown[])[0]).toBe(result.bytes);
    expect((result.list as unknown[])[0]).toBe(result.list);
    expect((result.list as unknown[])[1]).toBe(result);
    expect((result.map as typeof map).get(result.map)).toBe(result.set);
    expect([...(result.set as typeof set)]).toEqual([result, result.set]);
    expect((result.error as Error).cause).toBe(result.error);
    expect((result.error as Error).message).toBe("loop");
  });

  it("errors come back with their class, cause and fields", () => {
    class OddError extends Error {
      override readonly name = "OddError";
      readonly code = "ERR_ODD";
    }
    const odd = roundTrip(new OddError("odd", { cause: new RangeError("far") }), on) as OddError;
    expect(odd).toBeInstanceOf(Error);
    expect([odd.name, odd.message, odd.code, Object.keys(odd)]).toEqual(["OddError", "odd", "ERR_ODD", ["code"]]);
    expect(odd.cause).toBeInstanceOf(RangeError);
    const original = new TypeError("wrong");
    const { error } = roundTrip({ error: original }, on) as { error: TypeError };
    expect(error).toBeInstanceOf(TypeError);
    expect([error.stack, Object.keys(error)]).toEqual([original.stack, []]);
    const several = roundTrip(new AggregateError([new Error("one")], "several"), on) as AggregateError;
    expect(several).toBeInstanceOf(AggregateError);
    expect([several.message, several.errors.length, several.errors[0].message]).toEqual(["several", 1, "one"]);
    const strange = roundTrip(Object.assign(new Error(), { message: 5, stack: undefined, name: [1] }), on) as Error;
    expect([strange.message, strange.name]).toEqual(["5", "1"]);
  });

  it("class instances become plain objects, also within trees", () => {
    class Point {
      x = 1;
      #hidden = 2;
      get sum(): number {
        return this.x + this.#hidden;
      }
    }
    expect(roundTrip(new Point(), on)).toStrictEqual({ x: 1 });
    const getter = {
      get got() {
        return 3;
      },
      [Symbol("ignored")]: 1,
    };
    expect(roundTrip(getter, on)).toStrictEqual({ got: 3 });
    const parent = { children: [] as unknown[], [Symbol.toStringTag]: "Node" };
    parent.children.push(Object.assign(new Point(), { parent }));
    const tree = roundTrip(parent, on) as typeof parent;
    expect((tree.children[0] as { parent: unknown }).parent).toBe(tree);
  });

  it("toJSON is called once, wherever the object is within the value", () => {
    for (const plain of ["text", 0, null, false, 5n, [1], new Set([1]), { a: { toJSON: 1 } }]) {
      const item = { toJSON: () => plain };
      expect(roundTrip(item, on)).toStrictEqual(plain);
      const all = { item, list: [item], map: new Map([[item, item]]), set: new Set([item]) };
      const expected = { item: plain, list: [plain], map: new Map([[plain, plain]]), set: new Set([plain]) };
      expect(roundTrip(all, on)).toStrictEqual(expected);
    }
    expect(roundTrip([{ a: { toJSON: (key: string) => key } }], on)).toStrictEqual([{ a: "a" }]);
    expect(roundTrip([{ toJSON: () => undefined }], on)).toStrictEqual([undefined]);
    expect(() => roundTrip({ toJSON: () => undefined }, on)).toThrow("value: must not be undefined");
  });

  it.each<[string, unknown, string]>([
    ["undefined", undefined, "value: must not be undefined"],
    ["a function", () => 1, "value: a function"],
    ["a symbol", Symbol("s"), "value: a symbol"],
    ["a nested function", { user: { list: [1, { on() {} }] } }, "value.user.list[1].on: a function"],
    ["a nested symbol", { "odd key": [Symbol("s")] }, 'value["odd key"][0]: a symbol'],
    ["a symbol in a Map", { m: new Map([[1, [Symbol("s")]]]) }, "value.m.get(1)[0]: a symbol"],
    ["a function in a Set", new Set([() => 1]), "value: a function"],
    ["a function of an error", [Object.assign(new Error(), { retry() {} })], "value[0].retry: a function"],
    // biome-ignore lint/suspicious/noThenProperty: it is refused
    ["a thenable", { t: { then() {} } }, "value.t: an Object with a method named then cannot"],
    ["a Promise", Promise.resolve(), "value: a Promise cannot be stored. Await it"],
    ["a Promise of another realm", [runInNewContext("Promise.resolve()")], "value[0]: a Promise"],
    ["a WeakMap", { w: new WeakMap() }, "value.w: a WeakMap"],
    ["a WeakRef", [new WeakRef({})], "value[0]: a WeakRef"],
    ["an iterator", [new Map().keys()], "value[0]: a Map Iterator"],
    ["shared memory", [new SharedArrayBuffer(8)], "value[0]: a SharedArrayBuffer"],
    ["an object without properties", { h: new Headers() }, "value.h: a Headers"],
    ["a Proxy of a function", { p: new Proxy(() => 1, {}) }, "value.p: a function"],
    ["__proto__", JSON.parse('{"__proto__":1}'), "value: a property named __proto__"],
    ["a nested __proto__", JSON.parse('{"a":[{"__proto__":1}]}'), "value.a[0]: a property named __proto__"],
  ])("%s cannot be stored, and the error names its place", (_what, value, message) => {
    const codec = new ValueCodec(undefined, on);
    // If the value itself cannot be stored it is a wrong argument; if something within it cannot, it is wrong data.
    const isArgument = /^value: (?!a property)/.test(message) && !(value instanceof Set);
    const error = isArgument ? { name: "TypeError" } : { name: "CacheError", code: "ERR_DATA" };
    expect(() => codec.encode(value, scratch())).toThrow(expect.objectContaining(error));
    expect(() => codec.encode(value, scratch())).toThrow(message);
    expect(roundTrip({ after: 1 }, on, scratch(), codec)).toStrictEqual({ after: 1 });
  });

  it("objects of another realm come back as objects of this realm, with their class", () => {
    const source = `({ map: new Map([[1, new Set(["a"])]]), date: new Date(5), list: [1], plain: { a: 1 }, match: /x/g,
      bytes: new Uint8Array([1]), buffer: new ArrayBuffer(2), error: new TypeError("far") })`;
    const foreign = runInNewContext(source) as Record<string, object>;
    const { error, ...others } = runInThisContext(source) as Record<string, object>;
    const result = roundTrip(foreign, on) as Record<string, object>;
    expect(result).toMatchObject(others);
    expect(result.error).toBeInstanceOf(TypeError);
    expect((result.error as Error).message).toBe((error as Error).message);
    expect(roundTrip(foreign.bytes, on)).toStrictEqual(new Uint8Array([1]));
  });

  it("a value can have 512 levels, and a value with more is refused", () => {
    const nest = (levels: number): unknown => {
      let value: unknown = "core";
      for (let i = 0; i < levels; i++) value = [[value], { value }, new Map([[i, value]])][i % 3];
      return value;
    };
    expect(roundTrip(nest(512), on)).toBeDefined();
    const tooDeep = expect.objectContaining({ code: "ERR_DATA", message: expect.stringContaining("512 levels") });
    for (const levels of [513, 100_000]) expect(() => roundTrip(nest(levels), on)).toThrow(tooDeep);
    const endless = { toJSON: (): unknown => [{ ...endless }] };
    expect(() => roundTrip(endless, on)).toThrow(tooDeep);
  });

  it("a stack that runs out during decode is not reported as a damaged value", () => {
    const codec = new ValueCodec(undefined, on);
    const target = scratch();
    const value = [[[{ date: new Date(5), match: /a|b/, error: new Error("e"), bytes: Buffer.from("b") }]]];
    const length = codec.encode(value, target);
    const outcomes = new Set<string>();
    const descend = (): void => {
      try {
        descend();
      } catch {
        // The stack ran out below. Decode is tried at each level on the way up.
      }
      try {
        codec.decode(codec.type, target, 0, length);
        outcomes.add("value");
      } catch (error) {
        outcomes.add((error as Error).name);
        throw error;
      }
    };
    try {
      descend();
    } catch {}
    expect([...outcomes]).not.toContain("CacheError");
    expect(codec.decode(codec.type, target, 0, length)).toEqual(value.map(() => expect.anything()));
  });

  it("a getter can use the same codec and the same memory, and can change the value that is being encoded", () => {
    const codec = new ValueCodec(undefined, on);
    const target = scratch(300);
    const list: unknown[] = [1, 2, 3, 4];
    Object.defineProperty(list, 1, { enumerable: true, get: () => delete list[2] });
    const value: Record<string, unknown> = {
      list,
      get inner() {
        expect(() => codec.encode({ f: () => 1 }, target)).toThrow(CacheError);
        codec.encode({ large: "y".repeat(1000) }, target);
        target.fill(7);
        value.late = undefined;
        return codec.encode("text", target) + codec.encode("y".repeat(1000), target);
      },
      late: 1,
    };
    const result = roundTrip(value, on, target, codec) as typeof value;
    expect(result).toStrictEqual({ list: result.list, inner: 1004, late: undefined });
    expect(Object.entries(result.list as unknown[])).toEqual(Object.entries({ 0: 1, 1: true, 3: 4 }));
  });

  describe("JSON for plain data", () => {
    const typeOf = (value: unknown): number => {
      const codec = new ValueCodec(undefined, on);
      codec.encode(value, scratch());
      return codec.type;
    };

    it("plain data becomes JSON and comes back with its properties in the same order", () => {
      const key = fc
        .oneof(anyText, fc.constantFrom("toString", "constructor", "then", "length", "0"))
        .filter((text) => text !== "__proto__" && text !== "toJSON");
      const number = fc.double({ noNaN: true, noDefaultInfinity: true }).filter((value) => !Object.is(value, -0));
      const leaf = fc.oneof(anyText, number, fc.boolean(), fc.constant(null));
      const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
        tree: fc.oneof(
          fc.array(fc.oneof({ depthSize: "small" }, leaf, tie("tree")), { maxLength: 5 }),
          fc.dictionary(key, fc.oneof({ depthSize: "small" }, leaf, tie("tree")), {
            maxKeys: 5,
            noNullPrototype: true,
          }),
        ),
      }));
      fc.assert(
        fc.property(tree, (value) => {
          expect([LATIN1, UTF8, UTF8 + 1].map((text) => JSON_TEXT + text)).toContain(typeOf(value));
          const back = roundTrip(value, on);
          deepStrictEqual(back, value);
          expect(JSON.stringify(back)).toBe(JSON.stringify(value));
        }),
      );
    });

    const shared = {};
    const cycle: unknown[] = [];
    cycle.push([cycle]);
    const many = Array.from({ length: 100 }, (_, i) => ({ i }));
    let deep: unknown = 1;
    for (let i = 0; i < 65; i++) deep = { deep };
    it.each<[string, unknown]>([
      ["negative zero", [-0]],
      ["NaN", { a: NaN }],
      ["an infinite number", [Infinity]],
      ["undefined", { a: undefined }],
      ["a hole", Object.assign([1], { 2: 3 })],
      ["a bigint", [1n]],
      ["a Date", { at: new Date(0) }],
      ["a Map", [new Map()]],
      ["bytes", { bytes: new Uint8Array(1) }],
      ["a boxed number", [Object(1)]],
      ["an object without prototype", { a: Object.assign(Object.create(null), { b: 1 }) }],
      ["one object in two places", { a: shared, b: shared }],
      ["one of many objects in two places", [...many, many[0]]],
      ["the last of many objects in two places", [...many, many[99]]],
      ["a cycle", cycle],
      ["more than 64 levels", deep],
    ])("a value with %s does not become JSON", (_, value) => {
      expect(typeOf(value)).toBe(STRUCTURED + LATIN1);
      deepStrictEqual(roundTrip(value, on), value);
    });

    it("a value with 64 levels, and one with 100 objects, become JSON", () => {
      expect(typeOf((deep as { deep: unknown }).deep)).toBe(JSON_TEXT + LATIN1);
      expect(typeOf(many)).toBe(JSON_TEXT + LATIN1);
    });

    it.each([[{ x: 1 }], [[1]]])("what somebody has added to Object.prototype is no part of a value: %j", (what) => {
      const added = Object.prototype as { added?: unknown };
      let back: object | undefined;
      try {
        Object.defineProperty(added, "added", { value: what, enumerable: true, configurable: true, writable: true });
        back = roundTrip({ b: 1 }, on) as object;
      } finally {
        delete added.added;
      }
      expect(back).toStrictEqual({ b: 1 });
    });

    it("each getter and each trap of a proxy runs once", () => {
      let asked = 0;
      const value = {
        // JSON would lose the second answer.
        get once() {
          return asked++ === 0 ? 1 : new Date(0);
        },
        list: new Proxy([1, 2], {
          get: (list, key) => (key === "1" && asked++ > 1 ? undefined : Reflect.get(list, key)),
        }),
      };
      expect(roundTrip(value, on)).toEqual({ once: 1, list: [1, 2] });
      expect(asked).toBe(2);
    });

    it("a getter can use the same codec and the same memory", () => {
      const codec = new ValueCodec(undefined, on);
      const target = scratch(300);
      const value = {
        text: "x".repeat(200),
        get inner() {
          codec.encode({ large: "y".repeat(1000) }, target);
          target.fill(7);
          return codec.encode({ small: 1 }, target);
        },
      };
      expect(roundTrip(value, on, target, codec)).toEqual({ text: value.text, inner: 11 });
    });

    it("plain data that toJSON returns becomes JSON, too", () => {
      const point = { x: 1, toJSON: () => ({ x: 2, y: [3] }) };
      expect(typeOf(point)).toBe(JSON_TEXT + LATIN1);
      expect(roundTrip(point, on)).toEqual({ x: 2, y: [3] });
    });

    it("a toJSON of Array.prototype is called once", () => {
      const arrays = Array.prototype as unknown as { toJSON?: () => unknown };
      arrays.toJSON = () => new Date(0);
      try {
        expect(roundTrip({ list: [1] }, on)).toEqual({ list: new Date(0) });
      } finally {
        delete arrays.toJSON;
      }
    });
  });

  it("any data comes back, also from a codec that was used before, and from what the other runtime wrote", () => {
    const codec = new ValueCodec(undefined, on);
    const other = new ValueCodec(undefined, on === plainRuntime ? (bufferRuntime as Runtime) : plainRuntime);
    const target = scratch();
    fc.assert(
      fc.property(fc.oneof({ weight: 5, arbitrary: anything }, utf16(300)), (value) => {
        deepStrictEqual(roundTrip(value, on, target, codec), value);
        const length = other.encode(value, target);
        deepStrictEqual(codec.decode(other.type, other.bytes ?? target, 0, length), value);
      }),
      { numRuns: 2000 },
    );
  });

  describe("a codec of the user", () => {
    const json = {
      encode: (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value)),
      decode: (bytes: Uint8Array): unknown => JSON.parse(new TextDecoder().decode(bytes)),
    };

    it("the codec of the user gets objects only, and no binary data", () => {
      const refuse = { encode: (): never => expect.unreachable(), decode: (): never => expect.unreachable() };
      const codec = new ValueCodec(refuse, on);
      for (const value of ["text", 1, 2n, true, null]) expect(roundTrip(value, on, scratch(), codec)).toBe(value);
      expect([...(roundTrip(new Uint8Array([1]), on, scratch(), codec) as Uint8Array)]).toEqual([1]);
      const mine = new ValueCodec(json, on);
      expect(roundTrip({ a: new Date(0) }, on, scratch(), mine)).toStrictEqual({ a: "1970-01-01T00:00:00.000Z" });
      expect(roundTrip(["x".repeat(200)], on, scratch(50), mine)).toStrictEqual(["x".repeat(200)]);
    });

    it("the codec of the user can use the cache, and its bytes are copied", () => {
      const target = scratch();
      const codec: ValueCodec = new ValueCodec(
        {
          encode(value) {
            if ((value as { inner?: boolean }).inner) return new Uint8Array(3);
            codec.encode({ inner: true }, target);
            target.fill(9);
            return new Uint8Array([1, 2, 3, 4]);
          },
          decode: (bytes) => bytes,
        },
        on,
      );
      expect([...(roundTrip({}, on, target, codec) as Uint8Array)]).toEqual([1, 2, 3, 4]);
    });

    it("a codec that is missing or wrong is named in the error", () => {
      expect(() => new ValueCodec({} as never, on)).toThrow("codec: must");
      expect(() => new ValueCodec(null as never, on)).toThrow(TypeError);
      const wrong = new ValueCodec({ encode: () => "text" as never, decode: (bytes) => bytes }, on);
      expect(() => wrong.encode({}, scratch())).toThrow("codec.encode: must return a Uint8Array, not a string");
      const codec = new ValueCodec(json, on);
      const target = scratch();
      const length = codec.encode({}, target);
      const foreign = expect.objectContaining({ code: "ERR_DATA", message: expect.stringContaining("codec") });
      expect(() => new ValueCodec(undefined, on).decode(codec.type, target, 0, length)).toThrow(foreign);
      expect(() => codec.encode(() => 1, target)).toThrow("value: a function");
    });
  });

  describe("hostile bytes", () => {
    const damaged = expect.objectContaining({ name: "CacheError", code: "ERR_DATA" });
    const decodes = (type: number, bytes: Uint8Array): void => {
      const memory = scratch(bytes.length + 16);
      memory.set(bytes, 8);
      try {
        new ValueCodec(undefined, on).decode(type, memory, 8, bytes.length);
      } catch (error) {
        expect(error).toBeInstanceOf(CacheError);
      }
      expect(({} as Record<string, unknown>).polluted).toBeUndefined();
    };
    /** Decodes entries as `devalue` writes them. */
    const read = (entries: unknown): unknown => {
      const bytes = new TextEncoder().encode(typeof entries === "string" ? entries : JSON.stringify(entries));
      return new ValueCodec(undefined, on).decode(STRUCTURED + LATIN1, bytes, 0, bytes.length);
    };

    it("random bytes of any value type become a value or an error", () => {
      fc.assert(
        fc.property(fc.nat(255), fc.uint8Array({ maxLength: 300 }), (type, bytes) => decodes(type, bytes)),
        { numRuns: 3000 },
      );
    });

    it("structured text of valid parts in random order becomes a value or an error", () => {
      const index = fc.oneof(fc.integer({ min: -8, max: 12 }), fc.constantFrom(0.5, 1e9, 4294967295, -1e9));
      const odd = fc.constantFrom(null, true, "__proto__", "AAECAw==", "http://a/", "(", "gi", [[1]], { length: 1e9 });
      const part = fc.oneof(index, anyText, odd);
      const tag = fc.constantFrom(
        ..."Date Set Map RegExp Object BigInt null Uint8Array Float64Array Float16Array DataView".split(" "),
        ..."ArrayBuffer URL URLSearchParams Temporal.Instant Error Buffer constructor".split(" "),
        -7,
      );
      const key = fc.constantFrom("name", "message", "stack", "cause", "errors", "__proto__", "toJSON", "then", "a");
      const tagged = fc.tuple(tag, fc.array(part)).map(([tag, parts]) => [tag, ...parts]);
      const entry = fc.oneof(part, fc.array(index), fc.dictionary(key, part), tagged);
      fc.assert(
        fc.property(fc.array(entry, { minLength: 1, maxLength: 12 }), (entries) =>
          decodes(STRUCTURED + UTF8, new TextEncoder().encode(JSON.stringify(entries))),
        ),
        { numRuns: 5000 },
      );
    });

    it("text that is not the JSON of an object is an error, and a property named __proto__ is one, too", () => {
      const readJson = (text: string): unknown =>
        new ValueCodec(undefined, on).decode(JSON_TEXT + LATIN1, Buffer.from(text), 0, text.length);
      for (const text of ["", "{", "1", "null", '"text"', "[1,]", "{}{}", "undefined"]) {
        expect(() => readJson(text), text).toThrow(damaged);
      }
      const names = [
        "__proto__",
        "\\u005f_proto__",
        "__prot\\u006F__",
        "\\u005F\\u005f\\u0070\\u0072\\u006f\\u0074\\u006f__",
      ];
      for (const name of names) {
        for (const text of [`{"${name}":{"polluted":1}}`, `[1,{"a":[{"b":0,"${name}":null}]}]`]) {
          expect(() => readJson(text), text).toThrow("a property named __proto__");
        }
      }
      // As a text, the name is harmless, escaped or not.
      expect(readJson('["__proto__",{"a":"\\u005f_proto__"}]')).toEqual(["__proto__", { a: "__proto__" }]);
    });

    it("an encoded value that was changed or cut becomes a value or an error", () => {
      const change = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 });
      fc.assert(
        fc.property(anything, change, fc.nat(3), (value, changes, cut) => {
          const codec = new ValueCodec(undefined, on);
          const target = scratch();
          const length = codec.encode(value, target);
          const bytes = new Uint8Array(codec.bytes ?? target.subarray(0, length));
          for (const [at, byte] of changes) if (length > 0) bytes[at % length] = byte;
          decodes(codec.type, bytes.subarray(0, Math.max(0, length - cut)));
        }),
        { numRuns: 3000 },
      );
    });

    it("decode never reads beyond the length that it is given", () => {
      const codec = new ValueCodec(undefined, on);
      const target = scratch();
      const length = codec.encode({ text: "abc", more: [1, 2, 300, 1.5], date: new Date(0) }, target);
      for (let cut = 1; cut < length; cut++) {
        expect(() => codec.decode(codec.type, target, 0, length - cut)).toThrow(damaged);
      }
      expect(() => codec.decode(codec.type, target.subarray(0, length), 0, length + 1)).toThrow(damaged);
      expect(() => codec.decode(LATIN1, target.subarray(0, length), 1, length)).toThrow(damaged);
    });

    it.each<[string, unknown]>([
      ["empty text", ""],
      ["text that is not a list of entries", "{}"],
      ["a reference to nothing", [[5]]],
      ["an error that is its own data", [["Error", 0]]],
      ["an error whose data is a number", [["Error", 1], 5]],
      ["an error whose text would take minutes", '[["Error",1],{"message":2,"stack":3},[-7,4294967295],"s"]'],
      ["an error whose text is endless", '[["Error",1],{"name":0,"stack":0}]'],
      ["a Buffer whose data is a text", [["Buffer", 1], "text"]],
      ["a Buffer whose data is itself", '[["Buffer",1],["Buffer",0]]'],
      ["a view without a buffer", [["Uint8Array", 1], 1e9]],
      ["a view beyond its buffer", '[["Uint8Array",1,2,9],["ArrayBuffer","AAAA"]]'],
      ["a malformed regular expression", [["RegExp", "("]]],
      ["a malformed URL", [["URL", "//"]]],
      ["a bigint of letters", [["BigInt", "xyz"]]],
      ["an unknown type", [["Function", "return 1"]]],
      ["a property named __proto__", '[{"__proto__":1},{"polluted":1}]'],
    ])("damaged structured text is an error: %s", (_what, entries) => {
      expect(() => read(entries)).toThrow(damaged);
    });

    const fill = (part: string): string => part.repeat(250_000 / part.length);
    const list = (length: number, part: (i: number) => string): string =>
      Array.from({ length }, (_, i) => part(i)).join();
    it.each<[string, string]>([
      ["digits of a bigint", `[["BigInt","${fill("f")}"]]`],
      ["digits of a number", `[[1],${fill("9")}]`],
      ...["(", "(a|", "(?=", "(?<a>)|", "a{1,9}", "[a-z]", "\\\\1", "[[a]"].map((part): [string, string] => [
        `a regular expression of ${part}`,
        `[["RegExp","${fill(part)}"]]`,
      ]),
      ...["9", "1 ", "("].map((part): [string, string] => [`a date of ${part}`, `[["Date","${fill(part)}"]]`]),
      ...["a", "a/../", "xn--", "é."].map((part): [string, string] => [
        `a URL of ${part}`,
        `[["URL","http://a${fill(part)}"]]`,
      ]),
      ["parameters", `[["URLSearchParams","${fill("a&%41=")}"]]`],
      ["bytes", `[["ArrayBuffer","${fill("AAAA")}"]]`],
      ["properties", `[{${list(20_000, (i) => `"k${i}":-1`)}}]`],
      ["properties that are numbers", `[{${list(20_000, (i) => `"${(i * 2654435761) % 4294967295}":-1`)}}]`],
      ["properties of an error", `[["Error",1],{"\\u0000":2},{${list(20_000, (i) => `"k${i}":-1`)}}]`],
      ["one item of a Set, again and again", `[["Set",${fill("1,")}1],5]`],
      ["one entry of a Map, again and again", `[["Map",${fill("1,1,")}1,1],5]`],
      ["references", `[[${fill("0,")}0]]`],
      ["arrays that claim to be long", `[[${list(9_000, (i) => `${i + 1}`)}],${fill("[-7,4294967295],")}[]]`],
      ["one error in many places", `[[${list(9_000, (i) => `${i + 1}`)}],${list(9_000, () => '["Error",9001]')},{}]`],
    ])("250,000 characters are decoded in time in proportion to their length: %s", (_what, text) => {
      const from = performance.now();
      decodes(STRUCTURED + UTF8, new TextEncoder().encode(text));
      // This takes at most 0.2 s. If the time grew with the square of the length, it would take minutes.
      expect(performance.now() - from).toBeLessThan(10_000);
    });

    it("hostile text cannot use up the stack, the time or the memory", () => {
      const chain = (length: number, entry: (next: number) => unknown): unknown =>
        read(Array.from({ length }, (_, i) => (i < length - 1 ? entry(i + 1) : 1)));
      for (const tag of ["Set", "Error", 1]) {
        expect(() => chain(100_000, (next) => [tag, next])).toThrow("more than 512 levels");
      }
      expect(() => read(`[${"[".repeat(1e6)}${"]".repeat(1e6)}]`)).toThrow(damaged);
      // There are 300 objects, and 2 to the power of 300 paths through them.
      expect(chain(300, (next) => [next, next])).toHaveLength(2);
      expect(chain(300, (next) => ["Map", next, next])).toBeInstanceOf(Map);
      const before = process.memoryUsage().heapUsed;
      const sparse = read([Array.from({ length: 13000 }, (_, i) => i + 1), ...new Array(13000).fill([-7, 1e9])]);
      expect((sparse as unknown[])[12999]).toHaveLength(1e9);
      expect(process.memoryUsage().heapUsed - before).toBeLessThan(64 * 2 ** 20);
    });
  });
});

describe("value types", () => {
  it("isPrimitive is true for the types of primitive values only", () => {
    const codec = new ValueCodec();
    const isPrimitive = (value: unknown): boolean => {
      codec.encode(value, scratch());
      return codec.isPrimitive(codec.type);
    };
    for (const value of ["a", "…", `${ascii}…`, 1, 1n, 2n ** 99n, true, false, null]) {
      expect(isPrimitive(value)).toBe(true);
    }
    for (const value of [{}, ["…"], [`${ascii}…`], new Date(), Buffer.alloc(1), new ArrayBuffer(1), /a/]) {
      expect(isPrimitive(value)).toBe(false);
    }
    expect(codec.isPrimitive(0)).toBe(false);
  });
});

describe("frozen values", () => {
  it("deepFreeze freezes everything within a value", () => {
    const map = new Map([[{ k: 1 }, { v: 1 }]]);
    const set = new Set([{ s: 1 }]);
    const value = { list: [{ deep: 1 }], map, set, date: new Date(0), error: new Error("e", { cause: { c: 1 } }) };
    (value as Record<string, unknown>).self = value;
    expect(deepFreeze(value)).toBe(true);
    const inner = [...map.keys(), ...map.values(), ...set, value.list[0], value.error.cause];
    for (const object of [value, ...Object.values(value), ...inner]) expect(Object.isFrozen(object)).toBe(true);
    expect(() => map.set({ k: 2 }, { v: 2 })).toThrow(TypeError);
    expect(() => map.clear()).toThrow(TypeError);
    expect(() => set.add({ s: 2 })).toThrow(TypeError);
    expect(() => set.delete([...set][0] as { s: number })).toThrow(TypeError);
    expect(() => value.date.setFullYear(1999)).toThrow(TypeError);
    expect(() => value.list.push({ deep: 2 })).toThrow(TypeError);
    expect(map.size + set.size + value.date.getTime()).toBe(2);
    expect(deepFreeze(value)).toBe(true);
  });

  it("a frozen value can be stored, and equals the value before", () => {
    const make = (): unknown => ({ map: new Map([[1, [2]]]), set: new Set([1]), date: new Date(5), text: "t" });
    const value = make();
    deepFreeze(value);
    expect(roundTrip(value, bufferRuntime as Runtime)).toStrictEqual(make());
    expect(structuredClone(value)).toStrictEqual(make());
  });

  it("deepFreeze returns false for what cannot be frozen, and has no limit of levels", () => {
    for (const value of [
      new Uint8Array(1),
      Buffer.alloc(3),
      new ArrayBuffer(1),
      new URL("a:b"),
      new URLSearchParams(),
    ]) {
      expect(deepFreeze(value)).toBe(false);
      expect(deepFreeze({ a: [value] })).toBe(false);
    }
    expect(deepFreeze("text") && deepFreeze(null)).toBe(true);
    let deep: unknown = {};
    for (let i = 0; i < 100_000; i++) deep = [deep];
    expect(deepFreeze(deep)).toBe(true);
  });
});

describe("Buffers of a few kB, which share an ArrayBuffer", () => {
  const { copy } = bufferRuntime as Runtime;
  const source = Buffer.from(new SharedArrayBuffer(1 << 16));
  const filled = (length: number, byte: number): Buffer => copy(source.fill(byte), 3, length) as Buffer;

  it("have bytes of their own", () => {
    const copies = Array.from({ length: 60 }, (_, i) => filled(4096 + 83 * i, i));
    copies.forEach((bytes, i) => {
      expect(bytes.length).toBe(4096 + 83 * i);
      expect(bytes.every((byte) => byte === i)).toBe(true);
      expect(bytes.byteOffset % 8).toBe(0);
    });
    // Not every copy has an ArrayBuffer of its own, or this test says nothing.
    expect(new Set(copies.map(({ buffer }) => buffer)).size).toBeLessThan(20);
  });

  it("stay there when one of them is transferred to another thread", () => {
    const [one, other] = [filled(5000, 1), filled(5000, 2)];
    try {
      // Node.js 20 makes a copy, later versions refuse.
      structuredClone(one, { transfer: [one.buffer] });
    } catch (error) {
      expect((error as Error).name).toBe("DataCloneError");
    }
    expect(one[4999]).toBe(1);
    expect(other[4999]).toBe(2);
  });

  it("longer ones have an ArrayBuffer of their own", () => {
    const { buffer, byteLength } = filled(60_000, 1);
    expect(buffer.byteLength).toBe(byteLength);
  });
});
