/** The bytes of the tier's values: they round-trip, other versions are told apart, and no bytes do more harm than an ERR_DATA. */

import { CacheError, createCache } from "cache-machine";
import fc from "fast-check";
import { afterAll, describe, expect, test, vi } from "vitest";
import {
  decodeBody,
  decodeHead,
  EXPIRES_AT,
  encodeEntry,
  encodeTags,
  FIXED,
  LARGEST,
  MARK,
  numberOf,
  putStamp,
  VERSION,
} from "../../src/tier/format.ts";

vi.mock("../../src/index.ts", () => import("cache-machine"));

const cache = createCache({ size: "1mb" });
afterAll(() => cache.close());

const codec = { encode: (value: unknown) => cache.encode(value), decode: (bytes: Uint8Array) => cache.decode(bytes) };
const PLAIN = { grace: 0, tags: [] };

function roundTrip(value: unknown): unknown {
  const bytes = encodeEntry(value, PLAIN, codec);
  return decodeBody(bytes, decodeHead(bytes), codec);
}

/** Reads bytes as a reader does. */
function read(bytes: Buffer): unknown {
  const head = decodeHead(bytes);
  return { ...head, value: decodeBody(bytes, head, codec) };
}

/** Checks that bytes are read, or refused as they should be. */
function survives(bytes: Buffer): boolean {
  try {
    read(bytes);
    return true;
  } catch (error) {
    expect(error).toBeInstanceOf(CacheError);
    expect(error).toMatchObject({
      code: "ERR_DATA",
      message: expect.stringMatching(/^key: its value on the server /),
    });
    return false;
  }
}

test("values of every type come back", () => {
  const values = [
    "",
    "text",
    "é😀\0",
    "\uD800",
    true,
    false,
    null,
    10n ** 40n,
    { a: [1, { b: null }] },
    new Map([[1, new Set(["x"])]]),
    new Date(0),
    Buffer.from([0, 255]),
    new Uint8Array(3),
    new Float64Array([Number.NaN, -0]),
  ];
  for (const value of values) expect(roundTrip(value)).toEqual(value);
});

test("numbers are text to which scripts can add, every one of them comes back as it was", () => {
  const numbers = [
    0,
    -0,
    1,
    -1,
    0.1,
    1e21,
    -1e21,
    5e-324,
    1.7976931348623157e308,
    2 ** 53,
    -(2 ** 53) + 1,
    Number.NaN,
    Infinity,
    -Infinity,
  ];
  for (const number of numbers) {
    expect(roundTrip(number)).toBe(number);
    const bytes = encodeEntry(number, PLAIN, codec);
    expect(decodeHead(bytes).isNumber).toBe(true);
    expect(bytes.toString("latin1", FIXED)).toBe(Object.is(number, -0) ? "-0" : String(number));
  }
  fc.assert(fc.property(fc.double(), (number) => Object.is(roundTrip(number), number)));
  for (const other of ["1", 1n, true, [1]]) {
    expect(decodeHead(encodeEntry(other, PLAIN, codec)).isNumber).toBe(false);
  }
});

test("numbers as the server's Lua prints them are read", () => {
  for (const text of ["0.10000000000000001", "1e+21", "-9007199254740991", "1e-07", "-0"])
    expect(numberOf(text)).toBe(Number(text));
  for (const text of [
    "",
    " ",
    "1 ",
    "0x10",
    "1_0",
    "inf",
    "nan",
    "-nan",
    "+1",
    "1.",
    ".5",
    "1e5",
    "--1",
    "1e+",
    "1\n",
  ]) {
    expect(() => numberOf(text)).toThrow(expect.objectContaining({ code: "ERR_DATA" }));
  }
});

test("the head says what was stored", () => {
  const tags = ["a", "é😀", "x".repeat(256), "\uFEFF", "__proto__"];
  const bytes = encodeEntry("body", { grace: 1.5, tags }, codec);
  putStamp(bytes, 1_795_729_948_370_491);
  bytes.writeDoubleLE(1_795_729_948_370.25, EXPIRES_AT);
  expect(decodeHead(bytes)).toEqual({
    isNumber: false,
    expiresAt: 1_795_729_948_370.25,
    stamp: 1_795_729_948_370_491,
    grace: 1.5,
    tags,
    length: FIXED + tags.reduce((sum, tag) => sum + 2 + Buffer.byteLength(tag), 0),
  });
  expect(decodeHead(encodeEntry(1, { grace: Infinity, tags: [] }, codec))).toMatchObject({
    isNumber: true,
    expiresAt: Infinity,
    stamp: 0,
    grace: Infinity,
    tags: [],
  });
});

test("the bytes are those of the drawing", () => {
  const bytes = encodeEntry(-12.5, { grace: 3, tags: ["ab"] }, codec);
  putStamp(bytes, 2);
  expect(bytes.toString("hex")).toBe(
    ["ca", "01", "01", "000000000000f07f", "0000000000000040", "0000000000000840", "0100", "0200", "6162"].join("") +
      Buffer.from("-12.5").toString("hex"),
  );
  expect([MARK, VERSION, EXPIRES_AT, FIXED]).toEqual([0xca, 1, 3, 29]);
});

test("a tag that is given twice is stored once", () => {
  expect(decodeHead(encodeEntry(1, { grace: 0, tags: ["a", "b", "a"] }, codec)).tags).toEqual(["a", "b"]);
});

test("tags are 128 at most, well-formed text of 1 to 256 bytes", () => {
  const many = (count: number) => Array.from({ length: count }, (_, i) => `tag ${i}`);
  expect(decodeHead(encodeEntry(1, { grace: 0, tags: many(128) }, codec)).tags).toEqual(many(128));
  expect(() => encodeTags(many(129))).toThrow(new RangeError("tags: at most 128 are allowed, not 129"));
  for (const tag of ["", "x".repeat(257), "é".repeat(129), "\uD800"])
    expect(() => encodeTags([tag])).toThrow(RangeError);
  for (const tag of [1, null, undefined, {}]) expect(() => encodeTags([tag as never])).toThrow(TypeError);
});

test("what a cache cannot store is refused as there", () => {
  for (const value of [undefined, () => 1, Symbol("s"), Promise.resolve()]) {
    expect(() => encodeEntry(value, PLAIN, codec)).toThrow(TypeError);
  }
  expect(() => encodeEntry({ a: () => 1 }, PLAIN, codec)).toThrow(expect.objectContaining({ code: "ERR_DATA" }));
});

test("a value that no server takes is too large, before it is copied", () => {
  const huge = { encode: () => ({ length: LARGEST - FIXED + 1 }) as Uint8Array, decode: codec.decode };
  expect(() => encodeEntry("x", PLAIN, huge)).toThrow(
    expect.objectContaining({ code: "ERR_TOO_LARGE", message: expect.stringContaining(`has ${LARGEST + 1} bytes`) }),
  );
});

describe("bytes of others", () => {
  const valid = encodeEntry({ a: 1 }, { grace: 5, tags: ["one", "two"] }, codec);

  /** Reads a changed copy of valid bytes. */
  function changed(change: (bytes: Buffer) => unknown): () => unknown {
    const copy = Buffer.from(valid);
    const result = change(copy);
    const bytes = Buffer.isBuffer(result) ? result : copy;
    return () => read(bytes);
  }

  test("of another program", () => {
    for (const bytes of ["", "a", "0", "{}", "\x80\x04", "é"].map((text) => Buffer.from(text, "latin1"))) {
      expect(() => read(bytes)).toThrow(
        "key: its value on the server is of another program. Give the tier another `prefix`, or delete the key.",
      );
    }
    expect(() => read(Buffer.from("é"))).toThrow("another program");
  });

  test.each([2, 3, 255])(
    "of version %i: the error names both versions and the remedy, however long the bytes are",
    (version) => {
      for (const length of [2, 3, FIXED, valid.length]) {
        expect(
          changed((bytes) => {
            bytes[1] = version;
            return bytes.subarray(0, length);
          }),
        ).toThrow(
          `key: its value on the server was stored by another version of cache-machine (version ${version} of the format; this one knows ` +
            "version 1). Use the same version on all hosts, or give each version another `prefix`.",
        );
      }
    },
  );

  test("with flags of another version", () => {
    for (const flags of [2, 3, 128, 255]) {
      expect(changed((bytes) => (bytes[2] = flags))).toThrow(`flags ${flags} of the format`);
    }
  });

  test("damaged", () => {
    expect(changed((bytes) => bytes.subarray(0, 1))).toThrow("damaged");
    expect(changed((bytes) => (bytes[1] = 0))).toThrow("damaged");
    expect(changed((bytes) => bytes.writeDoubleLE(-Infinity, 3))).toThrow("its expiry is no time");
    for (const stamp of [Number.NaN, -1, Infinity]) {
      expect(changed((bytes) => bytes.writeDoubleLE(stamp, 11))).toThrow("its stamp is no time");
    }
    for (const grace of [Number.NaN, -1, -Infinity]) {
      expect(changed((bytes) => bytes.writeDoubleLE(grace, 19))).toThrow("its grace is no time");
    }
    expect(changed((bytes) => bytes.writeUInt16LE(129, 27))).toThrow("it claims 129 tags");
    expect(changed((bytes) => bytes.writeUInt16LE(128, 27))).toThrow("damaged");
    for (const length of [0, 257, 65_535]) {
      expect(changed((bytes) => bytes.writeUInt16LE(length, FIXED))).toThrow("a tag has a wrong length");
    }
    expect(changed((bytes) => (bytes[FIXED + 2] = 0xff))).toThrow("a tag is no text");
    expect(changed((bytes) => bytes.subarray(0, FIXED + 10))).toThrow(expect.objectContaining({ code: "ERR_DATA" }));
    const number = encodeEntry(1, PLAIN, codec);
    number[FIXED] = 0x78;
    expect(() => read(number)).toThrow("its number is none");
    expect(() => read(number.subarray(0, FIXED))).toThrow("its number is none");
  });

  test("NaN as expiry is legal: the server knows it", () => {
    const bytes = Buffer.from(valid);
    bytes.writeDoubleLE(Number.NaN, 3);
    expect(decodeHead(bytes).expiresAt).toBe(Number.NaN);
  });

  test("cut off anywhere", () => {
    for (let length = 0; length < valid.length; length++) expect(survives(valid.subarray(0, length))).toBe(false);
    expect(survives(valid)).toBe(true);
  });

  test("each byte changed to each other one", () => {
    let read = 0;
    for (let at = 0; at < valid.length; at++) {
      for (let byte = 0; byte < 256; byte++) {
        const bytes = Buffer.from(valid);
        bytes[at] = byte;
        if (survives(bytes)) read++;
      }
    }
    // Numbers, letters of tags and of the body may be others.
    expect(read).toBeGreaterThan(valid.length);
  });

  test("random bytes behind a valid beginning", () => {
    const bytes = fc.tuple(fc.nat({ max: valid.length }), fc.uint8Array({ maxLength: 80 }));
    fc.assert(
      fc.property(bytes, ([kept, rest]) => {
        survives(Buffer.concat([valid.subarray(0, kept), rest]));
      }),
      { numRuns: 20_000 },
    );
  });

  test("an error of the codec is the cause of an ERR_DATA", () => {
    const failure = new SyntaxError("bad");
    const broken = {
      encode: codec.encode,
      decode: () => {
        throw failure;
      },
    };
    const head = decodeHead(valid);
    expect(() => decodeBody(valid, head, broken)).toThrow(
      expect.objectContaining({
        code: "ERR_DATA",
        cause: failure,
        message: expect.stringContaining("cannot be read here (bad)"),
      }),
    );
  });
});
