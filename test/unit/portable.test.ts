/**
 * Values as bytes for other places than a cache. Servers keep these bytes for longer than a version of the package lasts, so their
 * format is pinned here byte by byte. Any other bytes become a value or `ERR_DATA`, on a runtime with `Buffer` and on one without.
 */

import { type Cache, createCache } from "cache-machine";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { ValueCodec } from "../../src/values/codec.ts";
import { fromPortable, toPortable } from "../../src/values/portable.ts";
import { bufferRuntime, plainRuntime, type Runtime } from "../../src/values/runtime.ts";

const SEED = Number(process.env.SEED ?? 20_261_127);
console.log(`portable: SEED=${SEED}`);

const runtimes: [string, Runtime][] = [
  ["with Buffer", bufferRuntime as Runtime],
  ["without Buffer", plainRuntime],
];
/** What stands for an object of a codec in these tests. */
const custom = {
  encode: (value: unknown) => new TextEncoder().encode(`<${JSON.stringify(value)}>`),
  decode: (bytes: Uint8Array) => JSON.parse(new TextDecoder().decode(bytes).slice(1, -1)) as unknown,
};

/** Values, and their bytes in hexadecimal behind the version. */
const PINNED: [string, unknown, string][] = [
  ["a number", 1.5, "01000000000000f83f"],
  ["an empty text", "", "02"],
  ["a text of Latin-1", "aé", "0261e9"],
  ["a long text with a few other characters", `${"a".repeat(80)}€`, `03${"61".repeat(80)}e282ac`],
  ["a short text of other characters", "€", "04ac20"],
  ["null", null, "05"],
  ["true", true, "06"],
  ["false", false, "07"],
  ["a bigint", -255n, "082d6666"],
  ["a Uint8Array", Uint8Array.of(1, 2), "110102"],
  ["an Int16Array", Int16Array.of(-2), "14feff"],
  ["a Float64Array", Float64Array.of(1.5), "1a000000000000f83f"],
  ["a DataView", new DataView(Uint8Array.of(7).buffer), "1d07"],
  ["an ArrayBuffer", Uint8Array.of(7, 8).buffer, "1e0708"],
  ["a Map", new Map([["a", 1]]), `22${Buffer.from('[["Map",1,2],"a",1]').toString("hex")}`],
  ["an object", { a: [1, "é"] }, `2a${Buffer.from('{"a":[1,"é"]}', "latin1").toString("hex")}`],
];

describe.each(runtimes)("on a runtime %s", (_, on) => {
  const codec = new ValueCodec(undefined, on);

  test.each(PINNED)("%s has the bytes that servers have of it", (_, value, bytes) => {
    const encoded = toPortable(value, codec);
    expect(Buffer.from(encoded).toString("hex")).toBe(`01${bytes}`);
    expect([encoded.constructor, encoded.byteOffset, encoded.buffer.byteLength]).toEqual([
      Uint8Array,
      0,
      encoded.length,
    ]);
    expect(fromPortable(Buffer.from(`01${bytes}`, "hex"), codec)).toEqual(value);
  });

  test("an object of a codec has its bytes behind the version and the type 48", () => {
    const coded = new ValueCodec(custom, on);
    const encoded = toPortable({ a: 1 }, coded);
    expect(Buffer.from(encoded).toString("latin1")).toBe('\u00010<{"a":1}>');
    expect(fromPortable(encoded, coded)).toEqual({ a: 1 });
  });

  test("bytes may lie in shared memory, and a codec gets a private copy of them", () => {
    let got: Uint8Array | undefined;
    const keeping = {
      ...custom,
      decode(bytes: Uint8Array): unknown {
        got = bytes;
        return {};
      },
    };
    for (const value of ["text", "€".repeat(100), { a: [1] }, Uint8Array.of(1, 2), new Map([[1, 2]])]) {
      const encoded = toPortable(value, codec);
      const shared = new Uint8Array(new SharedArrayBuffer(encoded.length + 3), 3);
      shared.set(encoded);
      const decoded = fromPortable(shared, codec);
      shared.fill(0xff);
      expect(decoded).toEqual(value);
    }
    const coded = new ValueCodec(keeping, on);
    const encoded = toPortable({ a: 1 }, coded);
    fromPortable(encoded, coded);
    encoded.fill(0);
    expect(new TextDecoder().decode(got)).toBe('<{"a":1}>');
  });

  test("bytes of which another array is made by a subclass run none of its code", () => {
    class Lying extends Uint8Array {
      static override get [Symbol.species](): never {
        throw new Error("asked");
      }
      override subarray(): never {
        throw new Error("asked");
      }
    }
    for (const value of [Uint8Array.of(1), "text that is longer than a loop", { a: 1 }]) {
      const bytes = new Lying(toPortable(value, codec));
      expect(fromPortable(bytes, codec)).toEqual(value);
    }
  });

  test("an error of the runtime, for a value that is too large for it, is ERR_DATA with its cause", () => {
    const cause = new RangeError("Invalid string length");
    const small = new ValueCodec(undefined, {
      ...on,
      readLatin1: () => {
        throw cause;
      },
    });
    for (const value of ["text", 5n, { a: 1 }, new Map([[1, 2]])]) {
      const decode = (): unknown => fromPortable(toPortable(value, codec), small);
      expect(decode).toThrow(expect.objectContaining({ code: "ERR_DATA", cause }) as Error);
      expect(decode).toThrow("Invalid string length");
    }
  });

  /** Decodes hostile bytes. What is thrown must be ERR_DATA that says what to do. */
  const check = (bytes: Uint8Array): void => {
    for (const each of [codec, new ValueCodec(custom, on)]) {
      try {
        fromPortable(bytes, each);
      } catch (error) {
        const { name, code, message } = error as { name: string; code?: string; message: string };
        expect(`${name} ${code}`).toBe("CacheError ERR_DATA");
        expect(message).toMatch(/Store it again or delete it|ncode the value again/);
      }
    }
  };
  const of = (type: number, text: string): Uint8Array =>
    Buffer.concat([Uint8Array.of(1, type), Buffer.from(text, "latin1")]);
  const types = fc.oneof(fc.constantFrom(1, 2, 3, 4, 5, 8, 9, 17, 24, 26, 34, 35, 36, 42, 43, 44, 48), fc.nat(255));

  test("random bytes of every type become a value or ERR_DATA", () => {
    const bytes = fc.tuple(fc.constant(1), types, fc.uint8Array({ maxLength: 80 }));
    fc.assert(
      fc.property(bytes, ([version, type, rest]) => check(Uint8Array.of(version, type, ...rest))),
      { seed: SEED, numRuns: 5000 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 12 }), (bytes) => check(bytes)),
      { seed: SEED, numRuns: 2000 },
    );
  });

  test("values that were damaged or cut off become a value or ERR_DATA", () => {
    const value = fc.anything({
      withMap: true,
      withSet: true,
      withTypedArray: true,
      withSparseArray: true,
      withBigInt: true,
      withDate: true,
      withNullPrototype: true,
    });
    const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 });
    fc.assert(
      fc.property(value, damage, types, fc.nat(10), (value, changes, type, cut) => {
        let bytes: Uint8Array;
        try {
          bytes = toPortable(value, codec);
        } catch {
          // Such as `undefined`, and properties named `__proto__`.
          return;
        }
        for (const [at, byte] of changes) bytes[2 + (at % bytes.length)] = byte;
        check(bytes);
        check(bytes.subarray(0, bytes.length - cut));
        bytes[1] = type;
        check(bytes);
      }),
      { seed: SEED, numRuns: 3000 },
    );
  });

  test("hostile texts of devalue and of JSON end soon, with a value or ERR_DATA", () => {
    const deep = (open: string, close: string, levels: number): string => open.repeat(levels) + close.repeat(levels);
    const nested = Array.from({ length: 5000 }, (_, i) => [i + 1]);
    const texts = [
      deep("[", "]", 200_000),
      `${'{"a":'.repeat(100_000)}1${"}".repeat(100_000)}`,
      '{"__proto__":{"polluted":1}}',
      '{"\\u005f_proto__":1}',
      JSON.stringify(nested),
      "[[-7,4294967295,0,1],1]",
      "[[-7,1e300,5,0]]",
      '[["RegExp","(".repeat(9)]]',
      '[["RegExp","(a+)+$","g"]]',
      '[["Int32Array",1],["ArrayBuffer","AA=="]]',
      '[["BigInt",1],"zz"]',
      '[["Error",1],{"kind":2},"constructor"]',
      '[["constructor",1],1]',
      "[[0,0,0]]",
      "[-1]",
      "-1",
      "",
      "null",
    ];
    for (const text of texts) for (const type of [34, 42]) check(of(type, text));
    expect(({} as { polluted?: number }).polluted).toBeUndefined();
    // A bigint of many digits takes time in proportion to them.
    check(of(8, "f".repeat(100_000)));
  });
});

describe("a cache that encodes", () => {
  const opened: Cache[] = [];
  afterEach(() => {
    for (const cache of opened.splice(0)) cache.close();
  });
  const create = (options: Parameters<typeof createCache>[0] = {}): Cache => {
    const cache = createCache({ size: "4mb", ...options });
    opened.push(cache);
    return cache;
  };

  test("a codec, a getter and a toJSON may close the cache: the value is encoded, and then the cache is closed", () => {
    for (const closing of [0, 1, 2]) {
      const closes =
        <T>(value: T): (() => T) =>
        () => {
          cache.close();
          return value;
        };
      const codec = closing === 0 ? { ...custom, encode: closes(Uint8Array.of(5)) } : undefined;
      const cache: Cache = create({ codec });
      const value = [
        {},
        {
          get a(): number {
            cache.close();
            return 1;
          },
        },
        { toJSON: closes({ a: 1 }) },
      ][closing];
      const encoded = cache.encode(value);
      expect([...encoded.subarray(0, 2)]).toEqual([1, closing === 0 ? 48 : 42]);
      expect(() => cache.encode(1)).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }) as Error);
      expect(() => cache.decode(encoded)).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }) as Error);
    }
  });

  test("a value is encoded while another one is stored, and neither changes the other", () => {
    const cache = create();
    const inner: Uint8Array[] = [];
    const value = (name: string): object => ({
      before: "x".repeat(50),
      get encoded(): string {
        inner.push(cache.encode({ name, at: inner.length }), cache.encode("y".repeat(5000)));
        return name;
      },
    });
    cache.set("a", value("stored"));
    const outer = cache.encode(value("encoded"));
    expect(cache.get("a")).toEqual({ before: "x".repeat(50), encoded: "stored" });
    expect(cache.decode(outer)).toEqual({ before: "x".repeat(50), encoded: "encoded" });
    expect(inner.map((bytes) => cache.decode(bytes))).toEqual([
      { name: "stored", at: 0 },
      "y".repeat(5000),
      { name: "encoded", at: 2 },
      "y".repeat(5000),
    ]);
  });

  test("the clock of a cache must not encode with it", () => {
    let encodes = false;
    const cache: Cache = create({ now: () => (encodes ? cache.encode(1).length : 5) });
    cache.set("a", 1, { ttl: 5 });
    encodes = true;
    expect(() => cache.has("a")).toThrow("now: must not use the cache whose clock it is");
  });

  test("a value that is larger than the cache is encoded", () => {
    const cache = create();
    const bytes = new Uint8Array(5_000_000).fill(7);
    expect(() => cache.set("a", bytes)).toThrow(expect.objectContaining({ code: "ERR_TOO_LARGE" }) as Error);
    expect(Buffer.compare(cache.decode(cache.encode(bytes)), bytes)).toBe(0);
    const text = "€".repeat(3_000_000);
    expect(cache.decode(cache.encode({ text }))).toEqual({ text });
  });
});
