/** The near cache by itself, over a memory in which the test plays the engine: what proves a value, and what is kept. */

import { describe, expect, test, vi } from "vitest";
import { type Engine, OUT_STAMP } from "../src/engine.ts";
import { ROOT, type Scope } from "../src/namespace.ts";
import { Near } from "../src/near.ts";
import { hashText } from "../src/text.ts";

// The engine itself is played here.
vi.mock("../src/wasm.ts", () => ({ BUILD: "", NO_HOST: {}, instantiate: undefined }));

const CLEAR_EPOCH_AT = 128;
const NEAR_HITS_AT = 192;
/** Of the n-th key: an entry in eight bytes, and the generation of a segment in four. */
const entryAt = (n: number): number => 1024 + n * 8;
const generationAt = (n: number): number => 512 + (n % 16) * 8 + 4;

function play(entries: number): { near: Near; view: DataView; keep: (n: number, bytes?: number) => void } {
  const memory = { buffer: new SharedArrayBuffer(1 << 20) };
  const view = new DataView(memory.buffer);
  const out = new Int32Array(16);
  const engine = { out, region: { memory }, clearEpochAt: CLEAR_EPOCH_AT, nearHitsAt: NEAR_HITS_AT };
  const near = new Near(entries, engine as unknown as Engine);
  const keep = (n: number, bytes = 1): void => {
    view.setBigUint64(entryAt(n), BigInt(n) * 0x1_0000_0001n + 0x4000_0000_0000n, true);
    stamp(n);
    near.keep(`key ${n}`, ROOT, out, n, undefined, bytes);
  };
  const stamp = (n: number): void => {
    out[OUT_STAMP] = view.getInt32(entryAt(n), true);
    out[OUT_STAMP + 1] = view.getInt32(entryAt(n) + 4, true);
    out[OUT_STAMP + 2] = entryAt(n) / 8;
    out[OUT_STAMP + 3] = generationAt(n) / 4;
    out[OUT_STAMP + 4] = view.getInt32(generationAt(n), true);
    out[OUT_STAMP + 5] = view.getInt32(CLEAR_EPOCH_AT, true);
  };
  return { near, view, keep };
}

const found = (near: Near, n: number, scope: Scope = ROOT): boolean => {
  const slot = near.find(`key ${n}`, scope);
  return slot >= 0 && near.isCurrent(slot) && near.value(slot) === n;
};

describe("a value is current", () => {
  test("while nothing changes, and each time counts as a hit", () => {
    const { near, view, keep } = play(64);
    keep(1);
    for (let i = 1; i <= 3; i++) {
      expect(found(near, 1)).toBe(true);
      expect(view.getFloat64(NEAR_HITS_AT, true)).toBe(i);
    }
    expect(found(near, 2)).toBe(false);
    expect(found(near, 1, { ...ROOT, id: "1:n" })).toBe(false);
  });

  test("for no other key of the same hash", () => {
    const byHash = new Map<number, number>();
    let pair: number[] = [];
    for (let n = 0; pair.length === 0; n++) {
      const other = byHash.get(hashText(`key ${n}`));
      if (other !== undefined) pair = [other, n];
      byHash.set(hashText(`key ${n}`), n);
    }
    const [first, second] = pair as [number, number];
    const { near } = play(64);
    near.keep(`key ${first}`, ROOT, new Int32Array(16).fill(1), first, undefined, 1);
    expect(near.find(`key ${first}`, ROOT)).not.toBe(-1);
    expect(near.find(`key ${second}`, ROOT)).toBe(-1);
  });

  const changes: [string, (view: DataView) => void][] = [
    ["the low half of its entry", (view) => view.setUint32(entryAt(1), 7, true)],
    ["the high half of its entry", (view) => view.setUint32(entryAt(1) + 4, 7, true)],
    ["the generation of its segment", (view) => view.setUint32(generationAt(1), 7, true)],
    ["the clear epoch", (view) => view.setUint32(CLEAR_EPOCH_AT, 7, true)],
  ];
  test.each(changes)("until somebody changes %s", (_, change) => {
    const { near, view, keep } = play(64);
    keep(1);
    expect(found(near, 1)).toBe(true);
    change(view);
    expect(found(near, 1)).toBe(false);
    expect(view.getFloat64(NEAR_HITS_AT, true)).toBe(1);
    keep(1);
    expect(found(near, 1)).toBe(true);
  });

  test("in no entry that reads as no number", () => {
    const { near, view, keep } = play(64);
    keep(1);
    for (const high of [0x7ff8_0000, 0xfff8_0001]) {
      view.setUint32(entryAt(1) + 4, high, true);
      expect(found(near, 1)).toBe(false);
    }
  });
});

describe("what is kept", () => {
  test("grows to the number of entries it was made for, and then what is used stays", () => {
    const { near, keep } = play(4096);
    for (let n = 0; n < 1000; n++) keep(n);
    // Two to a pair: in the mean 3 of a hundred find theirs taken.
    expect(Array.from({ length: 1000 }, (_, n) => found(near, n)).filter(Boolean).length).toBeGreaterThan(940);
    for (let n = 1000; n < 50_000; n++) {
      keep(n);
      if (n % 10 === 0) for (let used = 0; used < 1000; used++) found(near, used);
    }
    expect(Array.from({ length: 1000 }, (_, n) => found(near, n)).filter(Boolean).length).toBeGreaterThan(900);
  }, 60_000);

  test("is at most 256 bytes for each of the entries, and what is not used goes first", () => {
    const { near, keep } = play(64);
    const budget = 64 * 256;
    keep(0, budget + 1);
    expect(found(near, 0)).toBe(false);
    for (let n = 1; n <= 8; n++) keep(n, budget / 8);
    const used = [1, 2, 3, 4];
    expect(used.map((n) => found(near, n))).toEqual([true, true, true, true]);
    for (let n = 9; n <= 12; n++) keep(n, budget / 8);
    expect(used.map((n) => found(near, n))).toEqual([true, true, true, true]);
    // One may have made room in a pair rather than in bytes.
    expect([5, 6, 7, 8].filter((n) => found(near, n)).length).toBeLessThanOrEqual(1);
    // No more than there is room for.
    for (const n of used) keep(n, 1);
    for (let n = 20; n < 1000; n++) keep(n, budget / 8);
    const kept = Array.from({ length: 1000 }, (_, n) => n).filter((n) => n > 4 && found(near, n));
    expect(kept.length).toBeLessThanOrEqual(8);
    expect(kept.length).toBeGreaterThan(3);
  });
});

test("the hash of texts that differ in their last characters spreads over the lowest bits", () => {
  for (const [count, slots] of [
    [1000, 1024],
    [100_000, 131_072],
  ] as const) {
    const taken = new Set(Array.from({ length: count }, (_, n) => hashText(`user:${100_000 + n}`) & (slots - 1)));
    // As many as of numbers at random: slots × (1 - e^(-count / slots)).
    expect(taken.size).toBeGreaterThan(0.97 * slots * (1 - Math.exp(-count / slots)));
  }
});
