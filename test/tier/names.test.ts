/** The names of the tier's keys: they round-trip, never collide, and lie in the slots where the scripts need them. */

import fc from "fast-check";
import { createClient } from "redis";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Names } from "../../src/tier/names.ts";
import { endServers, NO_SERVER, SERVERS, startServer } from "./servers.ts";

vi.mock("../../src/index.ts", () => import("../../src/errors.ts"));

type Key = string | Uint8Array;

/** Keys that somebody may have chosen to harm. */
const HOSTILE: Key[] = [
  "",
  "}",
  "{",
  "{}",
  "}{",
  "a}b",
  "{a}",
  "\0",
  "\0:\0",
  ":",
  "b",
  "w",
  "n1:a",
  "n1:a:",
  "b:",
  "bQQ",
  "wAA",
  "__proto__",
  "constructor",
  "*",
  "?",
  "[a-z]",
  "\\",
  "\\*",
  "^",
  "\r\n",
  " ",
  "é",
  "\uFEFF",
  "\uFFFD",
  "😀",
  "\uD800",
  "\uDC00",
  "\uDC00\uD800",
  "a\uD83D",
  "x".repeat(4096),
  "é".repeat(2048),
  "\uD800".repeat(2048),
  new Uint8Array(0),
  Uint8Array.of(0),
  Uint8Array.of(0x7d),
  Uint8Array.of(0xff, 0xfe),
  Buffer.from("a"),
  Buffer.from("é"),
  new Uint8Array(4096).fill(0xff),
];
const PATHS: string[][] = [
  [],
  ["a"],
  ["a", "a"],
  ["aa"],
  ["n1:a"],
  ["}"],
  ["{"],
  [""],
  ["", ""],
  ["1"],
  ["*"],
  ["😀"],
  ["a:b"],
];

const text = fc.oneof(
  fc.string({ unit: "binary", maxLength: 12 }),
  fc.string({ unit: fc.constantFrom("{", "}", ":", "n", "b", "w", "1", "2", "a", "*", "\\", "\0"), maxLength: 12 }),
  fc.constantFrom("", "\uD800", "\uDC00x"),
);
const wellFormed = text.filter((each) => (each as unknown as { isWellFormed(): boolean }).isWellFormed());
const key: fc.Arbitrary<Key> = fc.oneof(text, fc.uint8Array({ maxLength: 12 }), fc.constantFrom(...HOSTILE));
const path = fc.oneof(fc.array(wellFormed, { maxLength: 3 }), fc.constantFrom(...PATHS));
/** Prefixes that the constructor takes. */
const prefix = wellFormed.filter((each) => {
  try {
    return new Names(each) instanceof Names;
  } catch {
    return false;
  }
});

/** The same for equal keys only. */
function identity(path: readonly string[], key: Key): string {
  return JSON.stringify([
    path,
    typeof key === "string" ? [...key].map((each) => each.codePointAt(0)) : { bytes: [...key] },
  ]);
}

/** The slot of a key, written from the specification of Redis Cluster: CRC16 (XMODEM) modulo 16384. */
function slotOf(name: string): number {
  const open = name.indexOf("{");
  const close = open < 0 ? -1 : name.indexOf("}", open + 1);
  let crc = 0;
  for (const byte of Buffer.from(close > open + 1 ? name.slice(open + 1, close) : name)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = ((crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1) & 0xffff) >>> 0;
  }
  return crc % 16384;
}

const names = new Names("cm:");

test("a key of every kind comes back as it was, in every scope", () => {
  for (const path of PATHS) {
    for (const key of HOSTILE) {
      const found = names.parse(names.value(path, key));
      expect(found?.kind).toBe("value");
      const { path: foundPath, key: foundKey } = found as unknown as { path: string[]; key: Key };
      expect(identity(foundPath, foundKey)).toBe(identity(path, key));
    }
  }
});

test("hostile keys and scopes never share a name", () => {
  const seen = new Map<string, string>();
  for (const path of PATHS) {
    for (const key of HOSTILE) {
      const id = identity(path, key);
      for (const name of [names.value(path, key), names.loading(path, key)]) {
        expect(seen.get(name) ?? id).toBe(id);
        seen.set(name, id);
      }
    }
  }
  expect(seen.size).toBe(2 * PATHS.length * HOSTILE.length);
});

test("every name is well-formed text, so UTF-8 can carry it", () => {
  fc.assert(
    fc.property(prefix, path, key, (prefix, path, key) => {
      for (const name of [new Names(prefix).value(path, key), new Names(prefix).loading(path, key)]) {
        expect(Buffer.from(name).toString()).toBe(name);
      }
    }),
    { numRuns: 2_000 },
  );
});

test("any two keys have the same name only if they are equal", () => {
  fc.assert(
    fc.property(prefix, path, key, path, key, (prefix, pathA, a, pathB, b) => {
      const any = new Names(prefix);
      const isSame = identity(pathA, a) === identity(pathB, b);
      expect(any.value(pathA, a) === any.value(pathB, b)).toBe(isSame);
      const found = any.parse(any.value(pathA, a)) as unknown as { path: string[]; key: Key };
      expect(identity(found.path, found.key)).toBe(identity(pathA, a));
    }),
    { numRuns: 5_000 },
  );
});

test("tags come back, and no tag has the name of a value, a loading key or the clock", () => {
  const tag = wellFormed.filter((each) => each !== "");
  fc.assert(
    fc.property(prefix, path, tag, path, tag, key, (prefix, pathA, a, pathB, b, key) => {
      const any = new Names(prefix);
      const name = any.tag(pathA, a);
      expect(any.parse(name)).toEqual({ kind: "tag", path: pathA, tag: a });
      expect(name === any.tag(pathB, b)).toBe(identity(pathA, a) === identity(pathB, b));
      expect([any.value(pathB, key), any.loading(pathB, key), any.clock]).not.toContain(name);
    }),
    { numRuns: 2_000 },
  );
});

test("names begin with the tracked prefixes if hosts follow them, and only then", () => {
  fc.assert(
    fc.property(prefix, path, key, (prefix, path, key) => {
      const any = new Names(prefix);
      const tracked = (name: string) => any.tracked.filter((each) => name.startsWith(each)).length;
      expect(tracked(any.value(path, key))).toBe(1);
      expect(tracked(any.tag(path, "t"))).toBe(1);
      expect(tracked(any.loading(path, key))).toBe(0);
      expect(tracked(any.clock)).toBe(0);
    }),
  );
});

test("a value and its loading key are partners, in one slot, whatever the prefix, the scope and the key are", () => {
  fc.assert(
    fc.property(prefix, path, key, (prefix, path, key) => {
      const any = new Names(prefix);
      const [value, loading] = [any.value(path, key), any.loading(path, key)];
      expect(slotOf(value)).toBe(slotOf(loading));
      expect(any.partner(value)).toBe(loading);
      expect(any.partner(loading)).toBe(value);
    }),
    { numRuns: 5_000 },
  );
});

test("all tags and the clock lie in one slot", () => {
  fc.assert(
    fc.property(prefix, path, wellFormed, (prefix, path, tag) => {
      const any = new Names(prefix);
      expect(slotOf(any.tag(path, tag))).toBe(slotOf(any.clock));
    }),
    { numRuns: 2_000 },
  );
});

test("values of a prefix without braces are spread over the slots", () => {
  const slots = new Set(Array.from({ length: 1_000 }, (_, i) => slotOf(names.value(["users"], `user:${i}`))));
  expect(slots.size).toBeGreaterThan(900);
});

test("names of others are nobody's", () => {
  const foreign = [
    "",
    "cm:",
    "cm:v:",
    "cm:v:{",
    "cm:v:{}",
    "cm:v:{:a",
    "cm:v:{xa}",
    "cm:v:{:a}x",
    "cm:l:{:a}",
    "cm:c:{t}",
    "cm:t:{t}",
    "cm:t:{t}:",
    "cm:t:{t}a",
    "cm:t:{u}:a",
    "xcm:v:{:a}",
    "cm:v:{n1:}",
    "cm:v:{n:a:b}",
    "cm:v:{n01:a:b}",
    "cm:v:{n1 :a:b}",
    "cm:v:{n+1:a:b}",
    "cm:v:{n1e0:a:b}",
    "cm:v:{n0x1:a:b}",
    "cm:v:{n-1:a:b}",
    "cm:v:{n9999999999999999:a:b}",
    // Base64 with padding, with spare bits, with the other alphabet, and with what is no base64.
    "cm:v:{bQQ==}",
    "cm:v:{bQR}",
    "cm:v:{b+/+/}",
    "cm:v:{b%}",
    // Well-formed text written as UTF-16, half a character, and a key that is too long.
    `cm:v:{w${Buffer.from("ab", "utf16le").toString("base64url")}}`,
    "cm:v:{wAA}",
    `cm:v:{:${"x".repeat(4097)}}`,
    `cm:v:{b${Buffer.alloc(4097).toString("base64url")}}`,
  ];
  for (const name of foreign) expect([name, names.parse(name)]).toEqual([name, undefined]);
});

test("parse survives any text, and reads no name that it would not write", () => {
  const any = fc.tuple(
    fc.constantFrom("cm:v:{", "cm:t:{t}", "cm:v:{n", "cm:v:{b", "cm:v:{w", ""),
    text,
    fc.constantFrom("}", ""),
  );
  fc.assert(
    fc.property(any, (parts) => {
      const name = parts.join("");
      const found = names.parse(name);
      if (found?.kind === "value") expect(names.value(found.path, found.key)).toBe(name);
      if (found?.kind === "tag") expect(names.tag(found.path, found.tag)).toBe(name);
    }),
    { numRuns: 5_000 },
  );
});

test("a key of 4,096 bytes fits, and a longer one does not", () => {
  for (const key of ["x".repeat(4097), "é".repeat(2049), "\uD800".repeat(2049), new Uint8Array(4097)]) {
    expect(names.fits(key)).toBe(false);
    expect(names.fits(key.slice(1) as string)).toBe(true);
    for (const name of [() => names.value([], key), () => names.loading([], key)]) {
      expect(name).toThrow(
        expect.objectContaining({
          code: "ERR_TOO_LARGE",
          message: expect.stringMatching(/^key: has .* limit is 4096/),
        }),
      );
    }
  }
});

test("what is no key is a TypeError", () => {
  for (const key of [
    undefined,
    null,
    1,
    {},
    [],
    new Uint16Array(1),
    new ArrayBuffer(1),
    new DataView(new ArrayBuffer(1)),
  ]) {
    for (const use of [() => names.fits(key as never), () => names.value([], key as never)]) {
      expect(use).toThrow(TypeError);
      expect(use).toThrow(/^key: must be a string or a Uint8Array/);
    }
  }
});

test("bytes of a larger buffer are those that the view shows", () => {
  const whole = Buffer.from("abcdef");
  expect(names.value([], whole.subarray(2, 4))).toBe(names.value([], Buffer.from("cd")));
});

test("a prefix is well-formed text of 1 to 255 bytes, and its first brace is closed behind text", () => {
  for (const prefix of [undefined, null, 1, {}, Buffer.from("a")]) {
    expect(() => new Names(prefix as never)).toThrow(/^prefix: must be a string, not /);
    expect(() => new Names(prefix as never)).toThrow(TypeError);
  }
  for (const prefix of ["", "\uD800", "x".repeat(256), "é".repeat(128), "{", "a{", "{}", "a{}b", "}{", "{}{a}"]) {
    expect(() => new Names(prefix)).toThrow(/^prefix: /);
    expect(() => new Names(prefix)).toThrow(RangeError);
  }
  for (const prefix of ["x".repeat(255), "}", "{a}", "{a}{", "a}b{c}:", " ", "\0", "*"]) {
    expect(new Names(prefix).tracked[0]).toBe(`${prefix}v:`);
  }
});

describe.skipIf(NO_SERVER)("on a real server", () => {
  let client: ReturnType<typeof createClient>;

  beforeAll(async () => {
    const server = await startServer({ server: SERVERS[0], config: ["cluster-enabled yes"] } as never);
    client = createClient({ socket: { path: server.path, tls: false } });
    await client.connect();
    await client.sendCommand(["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    await vi.waitFor(
      async () => expect(String(await client.sendCommand(["CLUSTER", "INFO"]))).toContain("cluster_state:ok"),
      30_000,
    );
  });
  afterAll(async () => {
    client?.destroy();
    await endServers();
  });

  test("the server computes the same slots", async () => {
    const all = PATHS.flatMap((path) => HOSTILE.flatMap((key) => [names.value(path, key), names.loading(path, key)]));
    all.push(names.clock, ...PATHS.map((path) => names.tag(path, "t")), new Names("a{b}c{").value([], "x"));
    const slots = await Promise.all(all.map((name) => client.sendCommand(["CLUSTER", "KEYSLOT", name])));
    expect(slots).toEqual(all.map(slotOf));
  });

  test("the pattern of a scope finds its keys and those of the scopes within, and no others", async () => {
    const prefixes = ["cm:", "c*:", "c?:", "[c]m:", "{c}:", "\\", "cm:v:"].map((prefix) => new Names(prefix));
    const written = prefixes.flatMap((each) => PATHS.map((path) => ({ each, path, name: each.value(path, "*}k") })));
    await Promise.all(written.map(({ name }) => client.set(name, "1")));
    await Promise.all(prefixes.flatMap((each) => PATHS.map((path) => client.set(each.loading(path, "k"), "1"))));
    for (const each of prefixes) {
      for (const path of PATHS) {
        const found = new Set<string>();
        for await (const batch of client.scanIterator({ MATCH: each.pattern(path), COUNT: 1_000 }))
          for (const name of batch) found.add(name);
        const within = (other: string[]) => path.every((name, i) => other[i] === name);
        const expected = written.filter((other) => other.each === each && within(other.path)).map(({ name }) => name);
        expect([...found].sort()).toEqual(expected.sort());
      }
    }
    const loads = new Set<string>();
    const match = prefixes[0]?.pattern(["a"], "loading") as string;
    for await (const batch of client.scanIterator({ MATCH: match, COUNT: 1_000 }))
      for (const name of batch) loads.add(name);
    expect([...loads].sort()).toEqual([names.loading(["a"], "k"), names.loading(["a", "a"], "k")].sort());
  });
});
