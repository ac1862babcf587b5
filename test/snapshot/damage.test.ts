/**
 * Damaged, cut off and foreign snapshots. Whatever the bytes are, an import ends, with a result or with `ERR_DATA`, and adds nothing
 * but entries with the values that were exported. A damaged block costs its own entries only.
 */

import { type Cache, CacheError } from "cache-machine";
import { describe, expect, test } from "vitest";
import { crc32c } from "../../src/snapshot/crc32c.ts";
import {
  BLOCK_ENTRIES,
  BLOCK_HEADER,
  HEAD_BYTES,
  HEADER_BYTES,
  jsonBlock,
  newId,
  readHead,
  writeHead,
} from "../../src/snapshot/format.ts";
import { bytesOf, closeEach, create, importBytes, SEED, WHOLE } from "./help.ts";

console.log(`snapshot damage: SEED=${SEED}`);
closeEach();

const VALUES: Record<string, unknown> = { a: 1, b: "text", c: { d: [1, 2] }, e: Buffer.from("bytes"), f: null };

function small(): Cache<any, any> {
  const cache = create();
  for (const [key, value] of Object.entries(VALUES)) cache.set(key, value, { tags: ["t"], ttl: 1e9, grace: 5 });
  cache.namespace("n").set("a", "inner");
  return cache;
}

/** Three blocks of an entry each. */
function large(): Cache<any, any> {
  const cache = create();
  for (let i = 0; i < 3; i++) cache.set(`${i}`, `${i}`.repeat(40_000));
  return cache;
}

/** Imports into an emptied cache, and checks that every entry in it has the value that the original has. */
async function tryImport(copy: Cache<any, any>, bytes: Uint8Array, original: Cache<any, any>) {
  copy.clear();
  copy.namespace("n").clear();
  const result = await importBytes(copy, bytes).catch((error: unknown) => {
    if (error instanceof CacheError && error.code === "ERR_DATA") return undefined;
    throw error;
  });
  let entries = 0;
  for (const [mine, theirs] of [
    [copy, original],
    [copy.namespace("n"), original.namespace("n")],
  ] as const) {
    for (const key of mine.keys()) {
      entries++;
      const [found, there] = [mine.getEntry(key), theirs.getEntry(key)];
      const isSame = Buffer.from(mine.encode(found?.value)).equals(theirs.encode(there?.value));
      expect([key, isSame, found?.expiresAt, found?.tags]).toEqual([key, true, there?.expiresAt, there?.tags]);
    }
  }
  expect(entries).toBe(result?.entries ?? 0);
  return result;
}

/** A generator of random numbers from 0 to 1 (mulberry32), always the same for a seed. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

describe("CRC-32C", () => {
  test("has the values of RFC 3720, also piece by piece", () => {
    const bytes = (length: number, of: (i: number) => number) => Uint8Array.from({ length }, (_, i) => of(i));
    expect(crc32c(bytes(32, () => 0))).toBe(0x8a9136aa);
    expect(crc32c(bytes(32, () => 0xff))).toBe(0x62a8ab43);
    expect(crc32c(bytes(32, (i) => i))).toBe(0x46dd794e);
    expect(crc32c(bytes(32, (i) => 31 - i))).toBe(0x113fdb5c);
    expect(crc32c(Buffer.from("123456789"))).toBe(0xe3069283);
    expect(crc32c(new Uint8Array(0))).toBe(0);
    const long = bytes(1000, (i) => i * 7);
    for (const cut of [0, 1, 7, 8, 9, 500, 1000]) {
      expect(crc32c(long, cut, 1000, crc32c(long, 0, cut))).toBe(crc32c(long));
    }
  });
});

describe("damaged", () => {
  test("each byte of a small snapshot changed in turn costs at most the block that it is in", {
    timeout: 240_000,
  }, async () => {
    const original = small();
    const bytes = await bytesOf(original);
    const head = readHead(bytes.subarray(2 * HEADER_BYTES));
    const endAt = 2 * HEADER_BYTES + HEAD_BYTES + (head?.length as number);
    const copy = create();
    const next = random(SEED);
    for (let at = 0; at < bytes.length; at++) {
      const before = bytes[at] as number;
      bytes[at] = before ^ (1 + Math.floor(next() * 255));
      const result = await tryImport(copy, bytes, original);
      const isOfEntries = at >= 2 * HEADER_BYTES && at < endAt;
      const isOfEnd = at >= endAt && at < endAt + HEAD_BYTES;
      expect([at, result?.entries, result?.damaged, result?.truncated]).toEqual([
        at,
        isOfEntries ? 0 : 6,
        isOfEntries ? 1 : 0,
        isOfEnd,
      ]);
      bytes[at] = before;
    }
    expect(await tryImport(copy, bytes, original)).toMatchObject({ ...WHOLE, entries: 6 });
  });

  test("of three blocks the other two are added, whichever byte of a head is changed", async () => {
    const original = large();
    const bytes = await bytesOf(original);
    const copy = create();
    const heads: number[] = [];
    for (
      let at = 2 * HEADER_BYTES;
      at < bytes.length;
      at += HEAD_BYTES + (readHead(bytes.subarray(at))?.length as number)
    )
      heads.push(at);
    expect(heads.length).toBe(4);
    const next = random(SEED);
    for (const start of heads.slice(0, 3)) {
      const places = Array.from({ length: HEAD_BYTES }, (_, i) => start + i);
      for (let i = 0; i < 30; i++) places.push(start + HEAD_BYTES + Math.floor(next() * 40_000));
      for (const at of places) {
        const before = bytes[at] as number;
        bytes[at] = before ^ (1 << Math.floor(next() * 8));
        expect([at, await tryImport(copy, bytes, original)]).toEqual([
          at,
          expect.objectContaining({ ...WHOLE, entries: 2, damaged: 1 }),
        ]);
        bytes[at] = before;
      }
    }
  });

  test("cut off anywhere: what was whole is added", async () => {
    for (const original of [small(), large()]) {
      const bytes = await bytesOf(original);
      const copy = create();
      const next = random(SEED + 1);
      for (let i = 0; i < 150; i++) {
        const length = i === 0 ? bytes.length - 1 : Math.floor(next() * bytes.length);
        const result = await tryImport(copy, bytes.subarray(0, length), original);
        // One header is enough.
        if (length < HEADER_BYTES) expect([length, result]).toEqual([length, undefined]);
        else expect([length, result?.truncated]).toEqual([length, true]);
        if (length === bytes.length - 1)
          expect(result?.entries).toBe([...original.keys()].length + original.namespace("n").size);
      }
    }
  });

  test("pieces that are missing, doubled, in another order, or in between", async () => {
    const original = large();
    const bytes = await bytesOf(original);
    const copy = create();
    const next = random(SEED + 2);
    const place = () => 2 * HEADER_BYTES + Math.floor(next() * (bytes.length - 2 * HEADER_BYTES));
    for (let i = 0; i < 150; i++) {
      const [a, b] = [place(), place()].sort((x, y) => x - y) as [number, number];
      const changed = [
        [bytes.subarray(0, a), bytes.subarray(b)],
        [bytes.subarray(0, b), bytes.subarray(a)],
        [bytes.subarray(0, a), Buffer.from("in between"), bytes.subarray(a)],
        [
          bytes.subarray(0, 2 * HEADER_BYTES),
          bytes.subarray(a, b),
          bytes.subarray(2 * HEADER_BYTES, a),
          bytes.subarray(b),
        ],
      ][i % 4] as Uint8Array[];
      await tryImport(copy, Buffer.concat(changed), original);
    }
  });

  test("a snapshot within a value is never taken for the one around it", async () => {
    const inner = create();
    inner.set("0", "of the inner one");
    const original = create();
    // Its first block of entries has the same number as the one around it.
    original.set("0", (await bytesOf(inner)).subarray(2 * HEADER_BYTES));
    const bytes = await bytesOf(original);
    const copy = create();
    for (
      let at = 2 * HEADER_BYTES;
      at < bytes.length;
      at += HEAD_BYTES + (readHead(bytes.subarray(at))?.length ?? bytes.length)
    ) {
      const before = bytes[at] as number;
      bytes[at] = 0;
      await tryImport(copy, bytes, original);
      bytes[at] = before;
    }
  });
});

describe("foreign", () => {
  const zip = Buffer.from("504b0304140000000800", "hex");
  test.each([
    ["nothing", Buffer.alloc(0), "is empty"],
    ["a text", Buffer.from("a text that is no snapshot\n".repeat(1000)), "is not a snapshot"],
    ["a zip file", Buffer.concat([zip, Buffer.alloc(20_000, 7)]), "is not a snapshot"],
    ["zeros", Buffer.alloc(20_000), "is not a snapshot"],
  ])("%s", async (_, bytes, text) => {
    const copy = create();
    await expect(importBytes(copy, bytes)).rejects.toMatchObject({
      code: "ERR_DATA",
      message: expect.stringContaining(text),
    });
    expect(copy.size).toBe(0);
  });

  test("a damaged beginning, and a snapshot of a newer version", async () => {
    const bytes = await bytesOf(small());
    const damaged = Buffer.from(bytes);
    damaged[100] = (damaged[100] as number) ^ 1;
    damaged[HEADER_BYTES + 100] = (damaged[HEADER_BYTES + 100] as number) ^ 1;
    await expect(importBytes(create(), damaged)).rejects.toMatchObject({
      code: "ERR_DATA",
      message: expect.stringContaining("damaged or cut off"),
    });
    const id = newId();
    for (const header of [
      { format: 2, values: 1, writer: "cache-machine 9" },
      { format: 1, values: 2 },
      {},
      { format: 1, values: 1 },
    ]) {
      const both = [0, 1].map((number) => jsonBlock(BLOCK_HEADER, number, id, header, HEADER_BYTES));
      const error = importBytes(create(), Buffer.concat([...both, bytes.subarray(2 * HEADER_BYTES)]));
      await expect(error).rejects.toMatchObject({
        code: "ERR_DATA",
        message: expect.stringMatching(
          header.values === 1 && header.format === 1 ? /header of .* is damaged/ : /reads format 1\.1/,
        ),
      });
    }
  });

  test("contents that no export writes, with checksums that are right", { timeout: 240_000 }, async () => {
    const original = small();
    const bytes = await bytesOf(original);
    const id = (readHead(bytes) as { id: Uint8Array }).id;
    const length = readHead(bytes.subarray(2 * HEADER_BYTES))?.length as number;
    const copy = create();
    const next = random(SEED + 3);
    for (let i = 0; i < 3000; i++) {
      const block = Buffer.from(bytes.subarray(2 * HEADER_BYTES, 2 * HEADER_BYTES + HEAD_BYTES + length));
      for (let changes = 1 + Math.floor(next() * 4); changes > 0; changes--) {
        block[HEAD_BYTES + Math.floor(next() * length)] = Math.floor(next() * 256);
      }
      writeHead(block, BLOCK_ENTRIES, 0, id, crc32c(block, HEAD_BYTES));
      copy.clear();
      const result = await importBytes(copy, Buffer.concat([bytes.subarray(0, 2 * HEADER_BYTES), block]));
      expect(result.truncated).toBe(true);
      for (const key of copy.keys()) {
        try {
          copy.get(key);
          if (i % 7 === 0) copy.rateLimit(key, { limit: 3, window: 1000 });
        } catch (error) {
          expect(["ERR_DATA", undefined]).toContain((error as CacheError).code);
        }
      }
    }
    expect(copy.validate()).toBe(0);
  });
});
