/**
 * Keys and values come back as they went in, on both kinds of host; what cannot come back is refused; and no bytes,
 * however wrong, do more than throw. fast-check prints the seed of a failure, to be given back as `{ seed, path }`.
 */
import { deepStrictEqual } from "node:assert";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { deepFreeze, NUMBER_TYPE, ValueCodec } from "../src/codec.ts";
import { CacheError } from "../src/errors.ts";
import { KEY_BYTES, KEY_ILL_FORMED, KEY_LIMIT, KEY_STRING, KeyCodec, keyKind, keyLength } from "../src/key.ts";
import { bufferHost, type Host, plainHost } from "../src/text.ts";

const hosts: [string, Host][] = [
  ["with Buffer", bufferHost as Host],
  ["without Buffer", plainHost],
];

/** Shared, as in the cache: whatever cannot read or write shared memory fails here. */
function scratch(length = 65536): Uint8Array {
  const memory = new SharedArrayBuffer(length + 16);
  return bufferHost === undefined ? new Uint8Array(memory, 8, length) : Buffer.from(memory, 8, length);
}

/** Through memory that is overwritten before the value is looked at, so that nothing may alias it. */
function roundTrip(
  value: unknown,
  on: Host,
  target: Uint8Array = scratch(),
  codec: ValueCodec = new ValueCodec(undefined, on),
): unknown {
  const length = codec.encode(value, target);
  const { type } = codec;
  expect(type).toBeGreaterThan(0);
  expect(type).toBeLessThan(256);
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

/** Any code units, ordinary ones and surrogates more often. */
function utf16(maxLength: number): fc.Arbitrary<string> {
  const unit = fc.oneof(fc.integer({ min: 32, max: 126 }), fc.integer({ min: 0xd7f0, max: 0xe00f }), fc.nat(0xffff));
  return fc.array(unit, { maxLength, size: "max" }).map((units) => String.fromCharCode(...units));
}

const text: fc.Arbitrary<string> = fc.oneof(
  utf16(30),
  utf16(200),
  fc.string(),
  fc.string({ minLength: 60, maxLength: 80 }),
);

/** All data that comes back strictly equal. */
const anything: fc.Arbitrary<unknown> = fc
  .anything({
    key: fc.oneof(
      text,
      fc.constantFrom("__proto__", "constructor", "toJSON", "hasOwnProperty", "length", "0", "id", "name"),
    ),
    values: [
      text,
      fc.constantFrom(undefined, null, true, false, NaN, Infinity, -Infinity, 0, -0),
      fc.integer(),
      fc.double(),
      fc.bigInt(),
      fc.bigInt({ min: -(2n ** 300n), max: 2n ** 300n }),
      fc.date({ noInvalidDate: true }),
      fc.constantFrom(/a/g, /[^/]\//iu),
    ],
    withMap: true,
    withSet: true,
    withTypedArray: true,
    withSparseArray: true,
    maxDepth: 4,
  })
  .filter((value) => value !== undefined);

const surrogates: string[] = [
  "\ud800",
  "\udc00",
  "a\ud800b",
  "\udc00\ud800",
  `${"x".repeat(100)}\ud83d`,
  "\ud800".repeat(5000),
];
const texts: string[] = [
  "",
  "a",
  "key:1234567890123456",
  "é",
  "naïve café",
  "\x80\x9f\x00\x7f\xff",
  "…",
  "\ufeff",
  "\ufeffmark",
  "😀",
  "中文",
  `${"plain text ".repeat(10)}…`,
  `\ufeff${"plain text ".repeat(10)}`,
  "é".repeat(70),
  "中".repeat(70),
  "a".repeat(20),
  "a".repeat(21),
  "a".repeat(63),
  "a".repeat(64),
  "é".repeat(63),
  "x".repeat(512),
  "x".repeat(513),
  `${"x".repeat(9000)}é`,
  `${"x".repeat(9000)}😀`,
  "\x85".repeat(5000),
  "中".repeat(9000),
  ...surrogates,
];

describe.each(hosts)("keys, %s", (_name, on) => {
  const codec = new KeyCodec(on);
  const write = (key: string | Uint8Array): [number, Uint8Array] => {
    const area = scratch(KEY_LIMIT + 8);
    const written = codec.write(key, area);
    return [keyKind(written), area.slice(0, keyLength(written))];
  };

  it.each(texts.filter((text) => text.length < 1000))("reads back %j", (text) => {
    const [kind, bytes] = write(text);
    expect(codec.read(kind, bytes, 0, bytes.length)).toBe(text);
    expect(kind).toBe(/\p{Surrogate}/u.test(text) ? KEY_ILL_FORMED : KEY_STRING);
    if (kind === KEY_STRING) expect([...bytes]).toEqual([...new TextEncoder().encode(text)]);
  });

  it("reads back any string, and never writes two strings alike", () => {
    const text = fc.oneof(fc.string({ unit: "binary" }), utf16(40));
    fc.assert(
      fc.property(text, text, (a, b) => {
        const [kindA, bytesA] = write(a);
        const [kindB, bytesB] = write(b);
        expect(codec.read(kindA, bytesA, 0, bytesA.length)).toBe(a);
        expect(kindA === kindB && Buffer.from(bytesA).equals(bytesB)).toBe(a === b);
      }),
    );
  });

  it("gives the same bytes on every host", () => {
    fc.assert(
      fc.property(utf16(60), (text) => {
        const area = scratch(KEY_LIMIT);
        const written = new KeyCodec(plainHost).write(text, area);
        const [kind, bytes] = write(text);
        expect([kind, ...bytes]).toEqual([keyKind(written), ...area.subarray(0, keyLength(written))]);
      }),
    );
  });

  it("keeps bytes, as a copy", () => {
    for (const key of [
      new Uint8Array([0, 255, 128]),
      new Uint8Array(0),
      Buffer.from("abc"),
      new Uint8Array(KEY_LIMIT),
    ]) {
      const [kind, bytes] = write(key);
      expect(kind).toBe(KEY_BYTES);
      const read = codec.read(kind, bytes, 0, bytes.length) as Uint8Array;
      expect([...read]).toEqual([...key]);
      expect(read.buffer).not.toBe(bytes.buffer);
    }
  });

  it("accepts exactly 4096 bytes", () => {
    for (const text of ["a".repeat(4096), `${"é".repeat(2047)}ab`, "\ud800".repeat(2048)]) {
      const [kind, bytes] = write(text);
      expect(bytes.length).toBe(KEY_LIMIT);
      expect(codec.read(kind, bytes, 0, bytes.length)).toBe(text);
    }
  });

  it.each([
    ["a".repeat(4097), "4097 bytes of UTF-8"],
    ["é".repeat(2049), "4098 bytes of UTF-8"],
    ["中".repeat(4096), "12288 bytes of UTF-8"],
    ["\ud800".repeat(2049), "4098 bytes of UTF-16"],
    [new Uint8Array(4097), "4097 bytes"],
  ])("refuses a key that is too long, telling length and limit", (key, told) => {
    const act = (): unknown => write(key);
    expect(act).toThrow(CacheError);
    expect(act).toThrow(expect.objectContaining({ code: "ERR_TOO_LARGE" }));
    expect(act).toThrow(told);
    expect(act).toThrow("4096");
  });

  it.each([
    1,
    null,
    undefined,
    {},
    [],
    Symbol("x"),
    new Uint16Array(2),
    new ArrayBuffer(2),
    new DataView(new ArrayBuffer(2)),
  ])("refuses a key of another type", (key) => {
    expect(() => write(key as string)).toThrow(TypeError);
    expect(() => write(key as string)).toThrow("key must be a string or a Uint8Array");
  });

  it("refuses a kind that does not exist", () => {
    expect(() => codec.read(3, new Uint8Array(4), 0, 4)).toThrow(expect.objectContaining({ code: "ERR_LAYOUT" }));
  });
});

const numbers: number[] = [
  0,
  -0,
  1,
  -1,
  127,
  128,
  -128,
  65535,
  2 ** 31 - 1,
  -(2 ** 31),
  2 ** 31,
  2 ** 32,
  2 ** 53,
  0.1,
  5e-324,
  1e308,
  NaN,
  Infinity,
  -Infinity,
];
const bigints: bigint[] = [
  0n,
  1n,
  -1n,
  255n,
  2n ** 63n - 1n,
  -(2n ** 63n),
  2n ** 63n,
  -(2n ** 63n) - 1n,
  2n ** 64n,
  -(2n ** 64n),
  16n ** 33n,
  3n ** 5000n,
  -(3n ** 5000n),
  2n ** 70000n,
];
const views = [
  Uint8Array,
  Uint8ClampedArray,
  Int8Array,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
  DataView,
] as const;

/** A view in the middle of a larger buffer: only its own bytes are the value. */
function middle(View: (typeof views)[number], buffer: ArrayBufferLike): ArrayBufferView {
  new Uint8Array(buffer).forEach((_, i, all) => {
    all[i] = i * 37;
  });
  const { BYTES_PER_ELEMENT: size = 1 } = View as { BYTES_PER_ELEMENT?: number };
  return new (View as Uint8ArrayConstructor)(buffer as ArrayBuffer, 8, 16 / size);
}

function rawBytes(view: ArrayBufferView): number[] {
  return [...new Uint8Array(view.buffer, view.byteOffset, view.byteLength)];
}

describe.each(hosts)("values, %s", (_name, on) => {
  it.each([null, true, false, ...numbers, ...bigints, ...texts])("keeps a primitive", (value) => {
    expect(roundTrip(value, on)).toBe(value);
    expect(roundTrip([value, { value }], on)).toStrictEqual([value, { value }]);
  });

  it("keeps numbers where the engine counts", () => {
    const codec = new ValueCodec(undefined, on);
    const target = scratch();
    expect(codec.encode(12.5, target)).toBe(8);
    expect(codec.type).toBe(NUMBER_TYPE);
    expect(new DataView(target.buffer, target.byteOffset).getFloat64(0, true)).toBe(12.5);
  });

  it.each(views)("keeps %o, alone and nested, from private and shared memory", (View) => {
    for (const buffer of [new ArrayBuffer(40), new SharedArrayBuffer(40)]) {
      const view = middle(View, buffer);
      for (const result of [roundTrip(view, on), (roundTrip({ view }, on) as { view: unknown }).view]) {
        expect(Object.getPrototypeOf(result)).toBe(View.prototype);
        const copy = result as ArrayBufferView;
        expect(rawBytes(copy)).toEqual(rawBytes(view));
        expect(copy.buffer).toBeInstanceOf(ArrayBuffer);
        expect(copy.byteOffset).toBe(0);
        expect(copy.buffer.byteLength).toBe(16);
      }
    }
  });

  it("keeps Buffer and Uint8Array apart, and an ArrayBuffer", () => {
    const buffer = roundTrip(Buffer.from("bytes"), on) as Uint8Array;
    expect(Buffer.isBuffer(buffer)).toBe(on === bufferHost);
    expect(String.fromCharCode(...buffer)).toBe("bytes");
    const nested = (roundTrip([Buffer.from("bytes")], on) as [Uint8Array])[0];
    expect(Buffer.isBuffer(nested)).toBe(on === bufferHost);
    expect(Buffer.isBuffer(roundTrip(new Uint8Array(3), on))).toBe(false);
    const plain = roundTrip(new Uint8Array([1, 2]).buffer, on) as ArrayBuffer;
    expect(plain).toBeInstanceOf(ArrayBuffer);
    expect([...new Uint8Array(plain)]).toEqual([1, 2]);
  });

  it("hands the bytes out when they do not fit, and takes owned bytes without a copy", () => {
    const codec = new ValueCodec(undefined, on);
    for (const value of [
      "x".repeat(100),
      "é".repeat(100),
      "中".repeat(100),
      `${"x".repeat(100)}…`,
      3n ** 200n,
      new Uint8Array(100),
      Buffer.alloc(100),
      ["x".repeat(100)],
      1.5,
      7n,
    ]) {
      for (const room of [0, 1, 7, 99]) {
        const result = roundTrip(value, on, scratch(room), codec);
        if (ArrayBuffer.isView(value)) expect([...(result as Uint8Array)]).toEqual([...value]);
        else expect(result).toStrictEqual(value);
      }
    }
    for (const value of [new Uint8Array(100), new Float64Array(4), Buffer.alloc(64)]) {
      const target = scratch();
      const length = codec.encode(value, target);
      const own = new Uint8Array(target.subarray(0, length));
      const result = codec.decode(codec.type, own, 0, length, true) as Uint8Array;
      expect(result.buffer).toBe(own.buffer);
      expect(Buffer.isBuffer(result)).toBe(Buffer.isBuffer(value) && on === bufferHost);
      expect((codec.decode(codec.type, own, 0, length) as Uint8Array).buffer).not.toBe(own.buffer);
    }
  });

  const proto: unknown = JSON.parse(
    '{"__proto__":{"polluted":true},"b":{"__proto__":1,"constructor":{"prototype":2}}}',
  );
  const structured: [string, unknown][] = [
    ["an empty object", {}],
    ["an empty array", []],
    ["undefined inside", { a: undefined, b: [undefined, null] }],
    ["numbers", { numbers }],
    ["bigints", bigints],
    ["texts", texts],
    ["keys of any kind", Object.fromEntries(texts.map((text, i) => [text, i]))],
    ["integer keys", { 2: "b", 1: "a", x: 0, 4294967295: 1 }],
    [
      "properties named like methods",
      { hasOwnProperty: 1, toJSON: 2, constructor: 3, toString: null, valueOf: 4, length: 5 },
    ],
    ["own __proto__ keys", proto],
    ["33 keys", Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`k${i}`, i]))],
    ["70,000 keys", Object.fromEntries(Array.from({ length: 70000 }, (_, i) => [`k${i}`, i]))],
    ["long keys", { ["k".repeat(3000)]: 1, ["é".repeat(600)]: { ["中".repeat(600)]: 2 } }],
    ["the same shape again and again", Array.from({ length: 300 }, (_, i) => ({ id: i, name: `n${i}`, at: { x: i } }))],
    ["a thousand shapes", Array.from({ length: 1000 }, (_, i) => ({ [`a${i}`]: i, [`b${i}`]: [i] }))],
    [
      "Map",
      new Map<unknown, unknown>([
        [1, "a"],
        [{ k: 1 }, new Map([["x", new Set([1])]])],
        [NaN, undefined],
        ["", null],
      ]),
    ],
    ["Set", new Set<unknown>([1, "1", null, undefined, new Set(), [1]])],
    [
      "Date",
      [new Date(0), new Date(-1), new Date(1234567890123), new Date(8.64e15), new Date(-8.64e15), new Date(NaN)],
    ],
    ["RegExp", [/a\/b/giu, /(?:)/, /[\ud800]/, /\u{1f600}/u]],
    ["a long array", Array.from({ length: 100000 }, (_, i) => i)],
    ["many objects", Array.from({ length: 5000 }, () => [])],
    ["strings around the window", Array.from({ length: 2000 }, (_, i) => "abcdefghijklmno".slice(0, i % 15))],
  ];
  it.each(structured)("keeps %s", (_what, value) => {
    const result = roundTrip(value, on);
    // vitest finds no object with an own __proto__ equal to another, node finds no two invalid dates equal.
    if (value === proto) deepStrictEqual(result, value);
    else expect(result).toStrictEqual(value);
  });

  it("does not pollute a prototype", () => {
    const result = roundTrip(proto, on) as Record<string, unknown>;
    expect(Object.getPrototypeOf(result)).toBe(Object.prototype);
    expect(Object.hasOwn(result, "__proto__")).toBe(true);
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
    expect(JSON.stringify(result)).toBe(JSON.stringify(proto));
  });

  it("keeps holes, in time that depends on the items", () => {
    const sparse: unknown[] = [1];
    sparse[3] = 3;
    sparse[100] = "x";
    sparse.length = 105;
    const result = roundTrip(sparse, on) as unknown[];
    expect(result).toStrictEqual(sparse);
    expect(Object.keys(result)).toEqual(Object.keys(sparse));
    const vast: unknown[] = [];
    vast[4_000_000_000] = "far";
    vast.length = 2 ** 32 - 1;
    const back = roundTrip(vast, on) as unknown[];
    expect(back.length).toBe(2 ** 32 - 1);
    expect(Object.entries(back)).toEqual([["4000000000", "far"]]);
    expect(roundTrip(new Array(1e9), on)).toHaveLength(1e9);
  });

  it("keeps cycles and repeated references", () => {
    const date = new Date(5);
    const bytes = new Uint8Array([1]);
    const value: Record<string, unknown> = {
      date,
      same: date,
      list: [],
      map: new Map(),
      set: new Set(),
      bytes,
      again: [bytes],
    };
    value.self = value;
    (value.list as unknown[]).push(value.list, value);
    (value.map as Map<unknown, unknown>).set(value.map, value.set);
    (value.set as Set<unknown>).add(value).add(value.set);
    const error = new Error("loop");
    error.cause = error;
    value.error = error;
    value.many = Array.from({ length: 50 }, () => ({ value }));
    const result = roundTrip(value, on) as typeof value;
    expect(result.self).toBe(result);
    expect(result.same).toBe(result.date);
    expect((result.again as unknown[])[0]).toBe(result.bytes);
    expect(result.list).toEqual([result.list, result]);
    expect((result.list as unknown[])[0]).toBe(result.list);
    expect((result.map as Map<unknown, unknown>).get(result.map)).toBe(result.set);
    expect([...(result.set as Set<unknown>)]).toEqual([result, result.set]);
    expect((result.error as Error).cause).toBe(result.error);
    for (const item of result.many as { value: unknown }[]) expect(item.value).toBe(result);
  });

  it("keeps errors with their kind, cause and fields", () => {
    class OddError extends Error {
      override readonly name = "OddError";
      readonly code = "ERR_ODD";
    }
    const odd = roundTrip(new OddError("odd", { cause: new RangeError("far") }), on) as OddError;
    expect(odd).toBeInstanceOf(Error);
    expect([odd.name, odd.message, odd.code]).toEqual(["OddError", "odd", "ERR_ODD"]);
    expect(odd.cause).toBeInstanceOf(RangeError);
    expect(Object.keys(odd)).toEqual(["code"]);
    const original = new TypeError("wrong");
    const result = roundTrip({ error: original }, on) as { error: TypeError };
    expect(result.error).toBeInstanceOf(TypeError);
    expect(result.error.stack).toBe(original.stack);
    expect(Object.keys(result.error)).toEqual([]);
    const several = roundTrip(new AggregateError([new Error("one")], "several"), on) as AggregateError;
    expect(several).toBeInstanceOf(AggregateError);
    expect([several.message, several.errors.length, several.errors[0].message]).toEqual(["several", 1, "one"]);
    const aborted = roundTrip(new DOMException("gone", "AbortError"), on) as Error;
    expect([aborted.name, aborted.message]).toEqual(["AbortError", "gone"]);
  });

  it("turns class instances into data, as toJSON says or as plain objects", () => {
    class Point {
      x = 1;
      #hidden = 2;
      get sum(): number {
        return this.x + this.#hidden;
      }
    }
    expect(roundTrip(new Point(), on)).toStrictEqual({ x: 1 });
    class Money {
      toJSON(): unknown {
        return { amount: 5, tags: new Set(["a"]) };
      }
    }
    const money = new Money();
    const shared = { n: 1 };
    expect(roundTrip([money, shared, shared], on)).toStrictEqual([{ amount: 5, tags: new Set(["a"]) }, shared, shared]);
    expect(roundTrip(new URL("http://localhost/a"), on)).toBe("http://localhost/a");
    expect(roundTrip(Object.assign(Object.create(null), { a: 1 }), on)).toStrictEqual({ a: 1 });
    expect(roundTrip([Object(1), Object("s"), Object(false), Object(5n)], on)).toStrictEqual([1, "s", false, 5n]);
    expect(
      roundTrip(
        {
          get got() {
            return 3;
          },
          [Symbol("ignored")]: 1,
        },
        on,
      ),
    ).toStrictEqual({ got: 3 });
  });

  it.each<[string, unknown, string]>([
    ["undefined", undefined, "value is undefined"],
    ["a function", () => 1, "value is a function"],
    ["a symbol", Symbol("s"), "value is a symbol"],
    ["a nested function", { user: { list: [1, { on() {} }] } }, "value.user.list[1].on is a function"],
    ["a nested symbol", { "odd key": [Symbol("s")] }, 'value["odd key"][0] is a symbol'],
    ["a symbol in a Map", { m: new Map([[1, [Symbol("s")]]]) }, "value.m<Map value>[0] is a symbol"],
    ["a function in a Set", new Set([() => 1]), "value<Set item> is a function"],
    ["a Promise", Promise.resolve(), "value is a Promise"],
    ["a WeakMap", { w: new WeakMap() }, "value.w is a WeakMap"],
    ["a WeakRef", [new WeakRef({})], "value[0] is a WeakRef"],
    ["an iterator", [new Map().keys()], "value[0] is a Map Iterator"],
    ["shared memory", [new SharedArrayBuffer(8)], "value[0] is a SharedArrayBuffer"],
    ["what shows nothing", { h: new Headers() }, "value.h is a Headers"],
    ["a Proxy of a function", { p: new Proxy(() => 1, {}) }, "value.p is a function"],
  ])("refuses %s, naming the place", (_what, value, told) => {
    const codec = new ValueCodec(undefined, on);
    expect(() => codec.encode(value, scratch())).toThrow(TypeError);
    expect(() => codec.encode(value, scratch())).toThrow(told);
    expect(roundTrip({ after: 1 }, on, scratch(), codec)).toStrictEqual({ after: 1 });
  });

  it("takes objects of another realm for what they are", () => {
    const source = `({ map: new Map([[1, new Set(["a"])]]), date: new Date(5), list: [1], plain: { a: 1 }, match: /x/g,
      bytes: new Uint8Array([1]), buffer: new ArrayBuffer(2), error: new TypeError("far") })`;
    const value = runInNewContext(source) as Record<string, object>;
    const result = roundTrip(value, on) as Record<string, object>;
    const { error, ...others } = result;
    expect(others).toStrictEqual({
      map: new Map([[1, new Set(["a"])]]),
      date: new Date(5),
      list: [1],
      plain: { a: 1 },
      match: /x/g,
      bytes: new Uint8Array([1]),
      buffer: new ArrayBuffer(2),
    });
    expect(error).toBeInstanceOf(TypeError);
    expect(roundTrip(value.bytes, on)).toStrictEqual(new Uint8Array([1]));
    expect(keyLength(new KeyCodec(on).write(value.bytes as Uint8Array, scratch()))).toBe(1);
    expect(() => roundTrip(runInNewContext("[Promise.resolve()]"), on)).toThrow("value[0] is a Promise");
  });

  it("keeps 500 levels and refuses more", () => {
    const nest = (levels: number): unknown => {
      let value: unknown = "core";
      for (let i = 0; i < levels; i++) value = i % 2 ? [value] : { value };
      return value;
    };
    expect(roundTrip(nest(500), on)).toBeDefined();
    expect(() => roundTrip(nest(501), on)).toThrow(RangeError);
    expect(() => roundTrip(nest(100_000), on)).toThrow("500 levels");
    class Endless {
      toJSON(): unknown {
        return [new Endless()];
      }
    }
    expect(() => roundTrip(new Endless(), on)).toThrow(RangeError);
  });

  it("does not call a value damaged when the stack is short", () => {
    const codec = new ValueCodec(undefined, on);
    const target = scratch();
    let value: unknown = 1;
    for (let i = 0; i < 400; i++) value = [value];
    const length = codec.encode(value, target);
    const outcomes = new Set<string>();
    const descend = (): void => {
      try {
        descend();
      } catch {
        // From the end of the stack upwards, until there is room again.
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
    expect(codec.decode(codec.type, target, 0, length)).toStrictEqual(value);
  });

  it("lets getters use the same codec and the same memory", () => {
    const codec = new ValueCodec(undefined, on);
    const target = scratch();
    const value = {
      first: "1".repeat(30),
      get inner() {
        codec.encode({ overwrites: "y".repeat(200) }, target);
        target.fill(7);
        return codec.encode("text", target);
      },
      last: [1, 2, 3],
    };
    expect(roundTrip(value, on, target, codec)).toStrictEqual({ first: "1".repeat(30), inner: 4, last: [1, 2, 3] });
    const failing = {
      get a() {
        try {
          codec.encode({ f: () => 1 }, target);
        } catch {}
        return 1;
      },
    };
    expect(roundTrip(failing, on, target, codec)).toStrictEqual({ a: 1 });
  });

  it("is not confused by getters that change what is being written", () => {
    const list: unknown[] = [1, 2, 3, 4];
    Object.defineProperty(list, 1, {
      enumerable: true,
      get: () => {
        delete list[2];
        return "got";
      },
    });
    expect(Object.entries(roundTrip(list, on) as unknown[])).toEqual([
      ["0", 1],
      ["1", "got"],
      ["3", 4],
    ]);
    const holes: unknown[] = new Array(6);
    holes[3] = 3;
    Object.defineProperty(holes, 1, {
      enumerable: true,
      get: () => {
        delete holes[3];
        return "got";
      },
    });
    expect(roundTrip(holes, on)).toHaveLength(6);
    const map = new Map<unknown, unknown>([
      [
        1,
        {
          get a() {
            map.set(2, "late");
            return 1;
          },
        },
      ],
    ]);
    expect(roundTrip(map, on)).toStrictEqual(
      new Map<unknown, unknown>([
        [1, { a: 1 }],
        [2, "late"],
      ]),
    );
    const object: Record<string, unknown> = {
      get a() {
        delete object.b;
        return 1;
      },
      b: 2,
    };
    expect(roundTrip(object, on)).toStrictEqual({ a: 1, b: undefined });
  });

  it("keeps any data", () => {
    fc.assert(
      fc.property(anything, (value) => {
        deepStrictEqual(roundTrip(value, on), value);
      }),
      { numRuns: 1000 },
    );
  });

  it("keeps any data with a codec that has seen other data", () => {
    const codec = new ValueCodec(undefined, on);
    const target = scratch();
    fc.assert(
      fc.property(anything, (value) => {
        deepStrictEqual(roundTrip(value, on, target, codec), value);
      }),
      { numRuns: 1000 },
    );
  });

  it("reads what the other host wrote", () => {
    const other = on === plainHost ? (bufferHost as Host) : plainHost;
    fc.assert(
      fc.property(fc.oneof(anything, utf16(300)), (value) => {
        const writer = new ValueCodec(undefined, other);
        const target = scratch();
        const length = writer.encode(value, target);
        deepStrictEqual(new ValueCodec(undefined, on).decode(writer.type, writer.bytes ?? target, 0, length), value);
      }),
      { numRuns: 500 },
    );
  });

  describe("with a codec of one's own", () => {
    const json = {
      encode: (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value)),
      decode: (bytes: Uint8Array): unknown => JSON.parse(new TextDecoder().decode(bytes)),
    };

    it("uses it for objects only", () => {
      const refuse = { encode: (): never => expect.unreachable(), decode: (): never => expect.unreachable() };
      const codec = new ValueCodec(refuse, on);
      for (const value of ["text", 1, 2n, true, null]) expect(roundTrip(value, on, scratch(), codec)).toBe(value);
      expect([...(roundTrip(new Uint8Array([1]), on, scratch(), codec) as Uint8Array)]).toEqual([1]);
      const mine = new ValueCodec(json, on);
      expect(roundTrip({ a: [1, new Date(0)] }, on, scratch(), mine)).toStrictEqual({
        a: [1, "1970-01-01T00:00:00.000Z"],
      });
      expect(roundTrip(["x".repeat(200)], on, scratch(50), mine)).toStrictEqual(["x".repeat(200)]);
    });

    it("gives it a copy, and survives its using the cache", () => {
      let kept: Uint8Array | undefined;
      const target = scratch();
      const codec: ValueCodec = new ValueCodec(
        {
          encode(value) {
            if ((value as { inner?: boolean }).inner) return new Uint8Array(3);
            codec.encode({ inner: true }, target);
            target.fill(9);
            return new Uint8Array([1, 2, 3, 4]);
          },
          decode(bytes) {
            kept = bytes;
            return "decoded";
          },
        },
        on,
      );
      expect(roundTrip({}, on, target, codec)).toBe("decoded");
      expect([...(kept as Uint8Array)]).toEqual([1, 2, 3, 4]);
    });

    it("says so when it is wrong or missing", () => {
      expect(() => new ValueCodec({} as never, on)).toThrow("codec must");
      expect(() => new ValueCodec(null as never, on)).toThrow(TypeError);
      const wrong = new ValueCodec({ encode: () => "text" as never, decode: (bytes) => bytes }, on);
      expect(() => wrong.encode({}, scratch())).toThrow(TypeError);
      expect(() => wrong.encode({}, scratch())).toThrow("codec.encode must return a Uint8Array, not a string");
      const codec = new ValueCodec(json, on);
      const target = scratch();
      const length = codec.encode({}, target);
      expect(() => new ValueCodec(undefined, on).decode(codec.type, target, 0, length)).toThrow(
        expect.objectContaining({ code: "ERR_UNSUPPORTED" }),
      );
      expect(() => codec.encode(() => 1, target)).toThrow("value is a function");
    });
  });

  describe("hostile bytes", () => {
    const decodes = (type: number, bytes: Uint8Array): void => {
      const memory = scratch(bytes.length + 16);
      memory.set(bytes, 8);
      const codec = new ValueCodec(undefined, on);
      try {
        codec.decode(type, memory, 8, bytes.length);
      } catch (error) {
        expect(error).toBeInstanceOf(CacheError);
      }
      expect(({} as Record<string, unknown>).polluted).toBeUndefined();
    };

    it("throw or become a value, whatever their type", () => {
      fc.assert(
        fc.property(fc.nat(255), fc.uint8Array({ maxLength: 300 }), (type, bytes) => decodes(type, bytes)),
        { numRuns: 3000 },
      );
    });

    it("throw or become a value, as structured data of valid tags", () => {
      const tag = fc.oneof(fc.integer({ min: 1, max: 70 }), fc.nat(255), fc.constantFrom(0xff, 0x80));
      fc.assert(
        fc.property(fc.array(tag, { maxLength: 200 }), (bytes) => decodes(32, new Uint8Array(bytes))),
        { numRuns: 5000 },
      );
    });

    it("throw or become a value when a good encoding was changed or cut", () => {
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

    it("never read beyond the length they are given", () => {
      const codec = new ValueCodec(undefined, on);
      const target = scratch();
      const length = codec.encode(
        { text: "abcdefgh", long: "x".repeat(80), more: [1, 2, 300, 1.5], date: new Date(0) },
        target,
      );
      for (let cut = 1; cut < length; cut++) {
        expect(() => codec.decode(32, target, 0, length - cut)).toThrow(CacheError);
      }
      expect(() => codec.decode(32, target.subarray(0, length), 0, length + 1)).toThrow(CacheError);
      expect(() => codec.decode(2, target.subarray(0, length), 1, length)).toThrow(CacheError);
    });

    it.each<[string, number[]]>([
      ["nested too deep", new Array(60000).fill(0).flatMap(() => [37, 1])],
      ["nested where only text may be", new Array(60000).fill(0).flatMap(() => [45, 64])],
      ["an array of four billion", [37, 0xff, 0xff, 0xff, 0xff, 0x0f]],
      ["a dictionary of four billion", [38, 0xff, 0xff, 0xff, 0xff, 0x0f]],
      ["a text of four billion", [2, 0xff, 0xff, 0xff, 0xff, 0x0f]],
      ["a reference to nothing", [36, 5]],
      ["a shape that was never defined", [40, 5]],
      ["a number without end", [47, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]],
      ["holes without items", [35, 5]],
      ["a broken expression", [45, 65, 0x28, 64]],
      ["an END alone", [43]],
    ])("%s: throws", (_what, bytes) => {
      const codec = new ValueCodec(undefined, on);
      expect(() => codec.decode(32, new Uint8Array(bytes), 0, bytes.length)).toThrow(
        expect.objectContaining({ code: "ERR_LAYOUT" }),
      );
    });

    it("cannot ask for much more memory than their own length", () => {
      const codec = new ValueCodec(undefined, on);
      // 13,000 arrays of a million holes each.
      const holes = [37, ...[0xc0, 0x84, 0x3d], 35, ...[0xc0, 0x84, 0x3d]];
      const bytes = new Uint8Array([37, 0xc8, 0x65, ...new Array(13000).fill(holes).flat()]);
      const before = process.memoryUsage().heapUsed;
      const result = codec.decode(32, bytes, 0, bytes.length) as unknown[];
      expect(result).toHaveLength(13000);
      expect(result[12999]).toHaveLength(1_000_000);
      expect(process.memoryUsage().heapUsed - before).toBeLessThan(64 * 2 ** 20);
    });
  });
});

describe("isCacheable", () => {
  it("is true for what nobody can change", () => {
    const codec = new ValueCodec();
    const target = scratch();
    for (const value of ["a", "…", `${"a".repeat(99)}…`, 1, 1n, 2n ** 99n, -(2n ** 99n), true, false, null]) {
      codec.encode(value, target);
      expect(codec.isCacheable(codec.type)).toBe(true);
    }
    for (const value of [{}, [], new Date(), new Uint8Array(1), Buffer.alloc(1), new ArrayBuffer(1), /a/]) {
      codec.encode(value, target);
      expect(codec.isCacheable(codec.type)).toBe(false);
    }
    expect(codec.isCacheable(0)).toBe(false);
  });
});

describe("deepFreeze", () => {
  it("freezes everything it can reach", () => {
    const value = {
      list: [{ deep: 1 }],
      map: new Map([[{ k: 1 }, { v: 1 }]]),
      set: new Set([{ s: 1 }]),
      date: new Date(0),
      error: new Error("e", { cause: { c: 1 } }),
    };
    (value as Record<string, unknown>).self = value;
    expect(deepFreeze(value)).toBe(true);
    const [[key, item]] = [...value.map] as [[object, object]];
    for (const object of [
      value,
      value.list,
      value.list[0],
      value.map,
      key,
      item,
      value.set,
      [...value.set][0],
      value.date,
      value.error,
      value.error.cause,
    ]) {
      expect(Object.isFrozen(object)).toBe(true);
    }
    for (const change of [
      () => value.map.set({ k: 2 }, { v: 2 }),
      () => value.map.clear(),
      () => value.set.add({ s: 2 }),
      () => value.set.delete([...value.set][0] as { s: number }),
      () => value.date.setFullYear(1999),
      () => value.list.push({ deep: 2 }),
    ]) {
      expect(change).toThrow(TypeError);
    }
    expect(value.map.size + value.set.size + value.date.getTime()).toBe(2);
    expect(deepFreeze(value)).toBe(true);
  });

  it("leaves a frozen value storable and equal", () => {
    const make = (): unknown => ({ map: new Map([[1, [2]]]), set: new Set([1]), date: new Date(5), text: "t" });
    const value = make();
    deepFreeze(value);
    expect(roundTrip(value, bufferHost as Host)).toStrictEqual(make());
    expect(structuredClone(value)).toStrictEqual(make());
  });

  it("tells that bytes cannot be frozen", () => {
    expect(deepFreeze({ a: [new Uint8Array(1)] })).toBe(false);
    expect(deepFreeze(Buffer.alloc(3))).toBe(false);
    expect(deepFreeze(new ArrayBuffer(1))).toBe(false);
    expect(deepFreeze("text")).toBe(true);
    expect(deepFreeze(null)).toBe(true);
  });

  it("has no depth limit", () => {
    let value: unknown = {};
    for (let i = 0; i < 100_000; i++) value = [value];
    expect(deepFreeze(value)).toBe(true);
  });
});
