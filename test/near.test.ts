/** The near cache by itself, over a memory in which the test plays the engine: what proves a value, and what is kept. */

import { describe, expect, test, vi } from "vitest";
import { type Engine, OUT_EPOCH, OUT_STAMP, STAMP } from "../src/engine.ts";
import { ROOT, type Scope } from "../src/namespace.ts";
import { extraOf, Near } from "../src/near.ts";
import { hashText } from "../src/text.ts";

// The engine itself is played here.
vi.mock("../src/wasm.ts", () => ({ BUILD: "", NO_HOST: {}, instantiate: undefined }));

const CLEAR_EPOCH_AT = 128;
const NEAR_HITS_AT = 192;
/** Of the n-th key: an entry in eight bytes, and the generation of a segment in four. */
const entryAt = (n: number): number => 1024 + n * 8;
const generationAt = (n: number): number => 512 + (n % 16) * 8 + 4;

type Keep = (n: number, bytes?: number, scope?: Scope) => void;

/** @param size of the cache that the engine has, in bytes */
function play(entries: number, size = 1 << 30): { near: Near; view: DataView; out: Int32Array; keep: Keep } {
  const memory = { buffer: new SharedArrayBuffer(1 << 20) };
  const view = new DataView(memory.buffer);
  const out = new Int32Array(16);
  const engine = { out, region: { memory, size }, clearEpochAt: CLEAR_EPOCH_AT, nearHitsAt: NEAR_HITS_AT };
  const near = new Near(entries, engine as unknown as Engine);
  const keep: Keep = (n, bytes = 1, scope = ROOT) => {
    view.setBigUint64(entryAt(n), BigInt(n) * 0x1_0000_0001n + 0x4000_0000_0000n, true);
    stamp(n);
    near.keep(`key ${n}`, scope, out, n, extraOf(scope.id, Infinity, undefined, undefined), bytes);
  };
  const stamp = (n: number): void => {
    out[OUT_STAMP] = view.getInt32(entryAt(n), true);
    out[OUT_STAMP + 1] = view.getInt32(entryAt(n) + 4, true);
    out[OUT_STAMP + 2] = entryAt(n) / 8;
    out[OUT_STAMP + 3] = generationAt(n) / 4;
    out[OUT_STAMP + 4] = view.getInt32(generationAt(n), true);
    out[OUT_EPOCH] = view.getInt32(CLEAR_EPOCH_AT, true);
  };
  return { near, view, out, keep };
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
  });

  test("in its namespace only", () => {
    const { near, keep } = play(64);
    // The same salt, so that only the id tells them apart.
    const [first, second]: [Scope, Scope] = [
      { ...ROOT, id: "1:a" },
      { ...ROOT, id: "1:b" },
    ];
    keep(1, 1, first);
    expect([ROOT, first, second].map((scope) => found(near, 1, scope))).toEqual([false, true, false]);
    keep(1);
    keep(1, 1, second);
    expect([ROOT, first, second].map((scope) => found(near, 1, scope))).toEqual([true, true, true]);
  });

  test("for no other key of the same hash", () => {
    const byHash = new Map<number, number>();
    let pair: number[] = [];
    for (let n = 0; pair.length === 0; n++) {
      const hash = hashText(`key ${n}`, 8);
      const other = byHash.get(hash);
      if (other !== undefined) pair = [other, n];
      byHash.set(hash, n);
    }
    const [first, second] = pair as [number, number];
    const { near } = play(64);
    near.keep(`key ${first}`, ROOT, new Int32Array(16).fill(1), first, undefined, 1);
    expect(near.find(`key ${first}`, ROOT)).not.toBe(-1);
    expect(near.find(`key ${second}`, ROOT)).toBe(-1);
    near.keep(`key ${second}`, ROOT, new Int32Array(16).fill(1), second, undefined, 1);
    expect([first, second].map((n) => near.value(near.find(`key ${n}`, ROOT)))).toEqual([first, second]);
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

  test("when the engine looks it up anew and puts out the same stamp, and no other", () => {
    const { near, out, keep } = play(64);
    keep(1);
    const slot = near.find("key 1", ROOT);
    expect(near.renew(slot)).toBe(true);
    for (let at = OUT_STAMP; at < OUT_STAMP + STAMP + 1; at++) {
      (out[at] as number)++;
      expect(near.renew(slot), `word ${at}`).toBe(false);
      (out[at] as number)--;
    }
    expect(near.renew(slot)).toBe(true);
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
  const among = (near: Near, count: number): number =>
    Array.from({ length: count }, (_, n) => found(near, n)).filter(Boolean).length;

  test("grows to the number of entries it was made for, and then what is used stays", () => {
    const { near, keep } = play(4096);
    for (let n = 0; n < 1000; n++) keep(n);
    // Four to a set, which is filled to a half: in the mean 40 of a thousand find theirs taken.
    expect(among(near, 1000)).toBeGreaterThan(940);
    for (let n = 1000; n < 50_000; n++) {
      keep(n);
      if (n % 10 === 0) for (let used = 0; used < 1000; used++) found(near, used);
    }
    expect(among(near, 1000)).toBeGreaterThan(930);
  }, 60_000);

  test("finds all of it again when it has grown", () => {
    const { near, keep } = play(65_536);
    const scopes = [ROOT, { ...ROOT, id: "1:n", salt: 77 }];
    for (let n = 0; n < 10_000; n++) keep(n, 1, scopes[n % 2]);
    const lost = Array.from({ length: 10_000 }, (_, n) => n).filter((n) => !found(near, n, scopes[n % 2]));
    // Those that found no room while there were fewer slots.
    expect(lost.length).toBeLessThan(800);
    expect(found(near, 0, scopes[1])).toBe(false);
  });

  test("finds keys that only differ before their last characters, in any namespace, and what was kept until then", () => {
    const { near, out, keep } = play(4096);
    const scopes = [ROOT, { ...ROOT, id: "1:n", salt: 77 }];
    const names = Array.from({ length: 500 }, (_, n) => `user:${n}:the profile`);
    for (let n = 0; n < 100; n++) keep(n);
    for (const [n, key] of names.entries()) {
      const scope = scopes[n % 2] as Scope;
      near.keep(key, scope, out, n, extraOf(scope.id, Infinity, undefined, undefined), 1);
    }
    const at = names.map((key, n) => near.find(key, scopes[n % 2] as Scope));
    expect(at.filter((slot, n) => slot >= 0 && near.value(slot) === n).length).toBeGreaterThan(470);
    expect(among(near, 100)).toBeGreaterThan(90);
  });

  test("is nothing when everything was cleared, and the room is free again", () => {
    const { near, view, keep } = play(64);
    for (let n = 0; n < 8; n++) keep(n, 8192);
    expect(among(near, 8)).toBe(8);
    view.setUint32(CLEAR_EPOCH_AT, 1, true);
    expect(among(near, 8)).toBe(0);
    keep(8, 64 * 1024);
    expect(found(near, 8)).toBe(true);
    expect(near.find("key 0", ROOT)).toBe(-1);
  });

  test.each([
    ["1 KiB for each of the entries", 64, 1 << 30, 64 * 1024],
    ["half of the cache", 4096, 1 << 20, 1 << 19],
  ])("is at most %s, and what is not used goes first", (_, entries, size, budget) => {
    const { near, keep } = play(entries, size);
    keep(0, budget + 1);
    expect(found(near, 0)).toBe(false);
    for (let n = 1; n <= 8; n++) keep(n, budget / 8);
    const used = [1, 2, 3, 4];
    expect(used.map((n) => found(near, n))).toEqual([true, true, true, true]);
    // The hand goes round until it comes to those that were not used.
    for (let n = 9; n <= 12; n++) for (let tries = 0; tries < 64; tries++) keep(n, budget / 8);
    expect(used.filter((n) => found(near, n)).length).toBeGreaterThanOrEqual(3);
    // No more than there is room for.
    for (const n of used) keep(n, 1);
    for (let n = 20; n < 400; n++) for (let tries = 0; tries < 64; tries++) keep(n, budget / 8);
    const kept = Array.from({ length: 400 }, (_, n) => n).filter((n) => n > 4 && found(near, n));
    expect(kept.length).toBeLessThanOrEqual(8);
    expect(kept.length).toBeGreaterThan(3);
  });
});

test("the hash of texts that differ in their last characters spreads over the lowest bits", () => {
  for (const [count, slots] of [
    [1000, 1024],
    [100_000, 131_072],
  ] as const) {
    const taken = new Set(Array.from({ length: count }, (_, n) => hashText(`user:${100_000 + n}`, 8) & (slots - 1)));
    // As many as of numbers at random: slots × (1 - e^(-count / slots)).
    expect(taken.size).toBeGreaterThan(0.97 * slots * (1 - Math.exp(-count / slots)));
  }
});
