/** The near cache by itself, over a memory in which the test plays the engine: what proves a value, and what is kept. */

import { createHash } from "node:crypto";
import { describe, expect, test, vi } from "vitest";
import { type Engine, OUT_CHANGES, OUT_CHANGES_AT, OUT_EPOCH, OUT_STAMP, STAMP } from "../src/engine.ts";
import { ROOT, type Scope } from "../src/namespace.ts";
import { extraOf, Near } from "../src/near.ts";
import { hashText } from "../src/text.ts";

// The secret of the near cache's hash is the same each time, so that a failure can be repeated: `SEED=2 npx vitest …` has another.
vi.hoisted(() => {
  let state = Number(process.env.SEED ?? 1);
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return mixed ^ (mixed >>> 14);
  };
  vi.spyOn(crypto, "getRandomValues").mockImplementation((array) => {
    const words = array as unknown as Int32Array;
    for (let i = 0; i < words.length; i++) words[i] = next();
    return array;
  });
});

// The engine itself is played here.
vi.mock("../src/wasm.ts", () => ({ BUILD: "", NO_HOST: {}, instantiate: undefined }));

const CLEAR_EPOCH_AT = 128;
const NEAR_HITS_AT = 192;
/** Of the n-th key: an entry in eight bytes, the generation of a segment in four, and the changes of a bucket in four. */
const entryAt = (n: number): number => 1024 + n * 8;
const generationAt = (n: number): number => 512 + (n % 16) * 8 + 4;
const changesAt = (n: number): number => 768 + (n % 16) * 8;

type Keep = (n: number, bytes?: number, scope?: Scope) => void;
type Found = (n: number, scope?: Scope) => boolean;

interface Play {
  near: Near;
  view: DataView;
  out: Int32Array;
  keep: Keep;
  /** Whether a `get` finds the value near, perhaps after a glance at the index. */
  found: Found;
  /** Whether the engine was asked for that glance since the last question. */
  asked(): boolean;
}

/** @param size of the cache that the engine has, in bytes */
function play(entries: number, size = 1 << 30): Play {
  const memory = { buffer: new SharedArrayBuffer(1 << 20) };
  const view = new DataView(memory.buffer);
  const out = new Int32Array(16);
  const engine = { out, region: { memory, size }, clearEpochAt: CLEAR_EPOCH_AT, nearHitsAt: NEAR_HITS_AT };
  const near = new Near(entries, engine as unknown as Engine);
  let glances = 0;
  let seen = 0;
  const keep: Keep = (n, bytes = 1, scope = ROOT) => {
    view.setBigUint64(entryAt(n), BigInt(n) * 0x1_0000_0001n + 0x4000_0000_0000n, true);
    stamp(n);
    out[OUT_CHANGES] = 0;
    near.keep(`key ${n}`, scope, out, n, extraOf(scope.id, Infinity, undefined), bytes, false);
  };
  const stamp = (n: number): void => {
    out[OUT_STAMP] = view.getInt32(entryAt(n), true);
    out[OUT_STAMP + 1] = view.getInt32(entryAt(n) + 4, true);
    out[OUT_STAMP + 2] = view.getInt32(generationAt(n), true);
    out[OUT_EPOCH] = view.getInt32(CLEAR_EPOCH_AT, true);
    out[OUT_CHANGES_AT] = changesAt(n) / 4;
  };
  const glance = (n: number): void => {
    glances++;
    stamp(n);
    out[OUT_CHANGES] = view.getInt32(changesAt(n), true);
  };
  const found: Found = (n, scope = ROOT) => {
    const slot = near.find(`key ${n}`, scope);
    if (slot < 0) return false;
    if (!near.isCurrent(slot)) {
      glance(n);
      if (!near.renew(slot)) return false;
    }
    return near.value(slot) === n;
  };
  const asked = (): boolean => {
    const did = glances > seen;
    seen = glances;
    return did;
  };
  return { near, view, out, keep, found, asked };
}

describe("a value is current", () => {
  test("while nothing changes, and each time counts as a hit", () => {
    const { view, keep, found, asked } = play(64);
    keep(1);
    expect([found(1), asked()]).toEqual([true, true]);
    for (let i = 1; i <= 3; i++) {
      expect([found(1), asked()]).toEqual([true, false]);
      expect(view.getFloat64(NEAR_HITS_AT, true)).toBe(i);
    }
    expect(found(2)).toBe(false);
  });

  test("in its namespace only", () => {
    const { keep, found } = play(64);
    // The same salt, so that only the id tells them apart.
    const [first, second]: [Scope, Scope] = [
      { ...ROOT, id: "1:a" },
      { ...ROOT, id: "1:b" },
    ];
    keep(1, 1, first);
    expect([ROOT, first, second].map((scope) => found(1, scope))).toEqual([false, true, false]);
    keep(1);
    keep(1, 1, second);
    expect([ROOT, first, second].map((scope) => found(1, scope))).toEqual([true, true, true]);
  });

  test("for no other key of the same hash", () => {
    // Keys at random: those that count up hardly ever meet.
    const key = (n: number): string => createHash("sha256").update(`${n}`).digest("latin1").slice(0, 8);
    const byHash = new Map<number, number>();
    let pair: number[] = [];
    for (let n = 0; pair.length === 0; n++) {
      const hash = hashText(key(n), 8);
      const other = byHash.get(hash);
      if (other !== undefined) pair = [other, n];
      byHash.set(hash, n);
    }
    const [first, second] = pair as [number, number];
    const { near } = play(64);
    near.keep(key(first), ROOT, new Int32Array(16).fill(1), first, undefined, 1, false);
    expect(near.find(key(first), ROOT)).not.toBe(-1);
    expect(near.find(key(second), ROOT)).toBe(-1);
    near.keep(key(second), ROOT, new Int32Array(16).fill(1), second, undefined, 1, false);
    expect([first, second].map((n) => near.value(near.find(key(n), ROOT)))).toEqual([first, second]);
  });

  test("until its bucket is changed, and when the engine sees the same entry, again", () => {
    const { view, keep, found, asked } = play(64);
    keep(1);
    keep(2);
    expect([found(1), found(2), asked()]).toEqual([true, true, true]);
    for (const changes of [1, 0xffff_ffff]) {
      view.setUint32(changesAt(1), changes, true);
      expect([found(1), asked()]).toEqual([true, true]);
      expect([found(1), asked()]).toEqual([true, false]);
      expect([found(2), asked()]).toEqual([true, false]);
    }
  });

  test("not before the engine has proved it", () => {
    const { near, out, keep } = play(64);
    keep(1);
    const slot = near.find("key 1", ROOT);
    expect(near.isCurrent(slot)).toBe(false);
    // The count before, which the engine puts out when it cannot tell.
    out[OUT_CHANGES] = -1;
    expect([near.renew(slot), near.isCurrent(slot)]).toEqual([true, false]);
    out[OUT_CHANGES] = 0;
    expect([near.renew(slot), near.isCurrent(slot)]).toEqual([true, true]);
  });

  const changed = (view: DataView): void => view.setUint32(changesAt(1), view.getUint32(changesAt(1), true) + 1, true);
  const changes: [string, (view: DataView) => void][] = [
    ["the low half of its entry", (view) => view.setUint32(entryAt(1), 7, true)],
    ["the high half of its entry", (view) => view.setUint32(entryAt(1) + 4, 7, true)],
    ["the generation of its segment", (view) => view.setUint32(generationAt(1), 7, true)],
    ["the clear epoch", (view) => view.setUint32(CLEAR_EPOCH_AT, 7, true)],
  ];
  test.each(changes)("until somebody changes %s", (what, change) => {
    const { view, keep, found } = play(64);
    keep(1);
    expect(found(1) && found(1)).toBe(true);
    change(view);
    if (what !== "the clear epoch") changed(view);
    expect(found(1)).toBe(false);
    expect(view.getFloat64(NEAR_HITS_AT, true)).toBe(1);
    keep(1);
    expect(found(1)).toBe(true);
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
});

describe("what is kept", () => {
  const among = (found: Found, count: number): number =>
    Array.from({ length: count }, (_, n) => found(n)).filter(Boolean).length;

  test("grows to the number of entries it was made for, and then what is used stays", () => {
    const { keep, found } = play(4096);
    for (let n = 0; n < 1000; n++) keep(n);
    // Four to a set, which is filled to a half: in the mean 40 of a thousand find theirs taken.
    expect(among(found, 1000)).toBeGreaterThan(910);
    for (let n = 1000; n < 50_000; n++) {
      keep(n);
      if (n % 10 === 0) for (let used = 0; used < 1000; used++) found(used);
    }
    expect(among(found, 1000)).toBeGreaterThan(905);
  }, 60_000);

  test("finds all of it again when it has grown", () => {
    const { keep, found } = play(65_536);
    const scopes = [ROOT, { ...ROOT, id: "1:n", salt: 77 }];
    for (let n = 0; n < 10_000; n++) keep(n, 1, scopes[n % 2]);
    const lost = Array.from({ length: 10_000 }, (_, n) => n).filter((n) => !found(n, scopes[n % 2]));
    // Those that found no room while there were fewer slots.
    expect(lost.length).toBeLessThan(800);
    expect(found(0, scopes[1])).toBe(false);
  });

  test("finds keys that only differ before their last characters, in any namespace, and what was kept until then", () => {
    const { near, out, keep, found } = play(4096);
    const scopes = [ROOT, { ...ROOT, id: "1:n", salt: 77 }];
    const names = Array.from({ length: 500 }, (_, n) => `user:${n}:the profile`);
    for (let n = 0; n < 100; n++) keep(n);
    for (const [n, key] of names.entries()) {
      const scope = scopes[n % 2] as Scope;
      near.keep(key, scope, out, n, extraOf(scope.id, Infinity, undefined), 1, false);
    }
    const at = names.map((key, n) => near.find(key, scopes[n % 2] as Scope));
    expect(at.filter((slot, n) => slot >= 0 && near.value(slot) === n).length).toBeGreaterThan(450);
    expect(among(found, 100)).toBeGreaterThan(80);
  });

  test("is nothing when everything was cleared, and the room is free again", () => {
    const { near, view, keep, found } = play(64);
    for (let n = 0; n < 8; n++) keep(n, 8192);
    expect(among(found, 8)).toBe(8);
    view.setUint32(CLEAR_EPOCH_AT, 1, true);
    expect(among(found, 8)).toBe(0);
    keep(8, 64 * 1024);
    expect(found(8)).toBe(true);
    expect(near.find("key 0", ROOT)).toBe(-1);
  });

  test.each([
    ["1 KiB for each of the entries", 64, 1 << 30, 64 * 1024],
    ["half of the cache", 4096, 1 << 20, 1 << 19],
  ])("is at most %s, and what is not used goes first", (_, entries, size, budget) => {
    const { keep, found } = play(entries, size);
    keep(0, budget + 1);
    expect(found(0)).toBe(false);
    for (let n = 1; n <= 8; n++) keep(n, budget / 8);
    const used = [1, 2, 3, 4];
    expect(used.map((n) => found(n))).toEqual([true, true, true, true]);
    // The hand goes round until it comes to those that were not used.
    for (let n = 9; n <= 12; n++) for (let tries = 0; tries < 64; tries++) keep(n, budget / 8);
    expect(used.filter((n) => found(n)).length).toBeGreaterThanOrEqual(3);
    // No more than there is room for.
    for (const n of used) keep(n, 1);
    for (let n = 20; n < 400; n++) for (let tries = 0; tries < 64; tries++) keep(n, budget / 8);
    const kept = Array.from({ length: 400 }, (_, n) => n).filter((n) => n > 4 && found(n));
    expect(kept.length).toBeLessThanOrEqual(8);
    expect(kept.length).toBeGreaterThan(3);
  });
});

/** Keys that a hash of few characters, or of all of them in a way that can be foreseen, does not tell apart. */
const families: [string, (n: number) => string][] = [
  ["in their last characters", (n) => `user:${n}`],
  ["before their last 8 characters", (n) => `user:${n}:profile-`],
  ["before their last 32 characters", (n) => `user:${n}:${"of the profile ".repeat(3)}`],
  ["in the first of 4,096 characters", (n) => `${1000 + n}`.padEnd(4096, "x")],
  ["in the middle of 4,096 characters", (n) => `${"a".repeat(2046)}${1000 + n}${"b".repeat(2046)}`],
  ["in every 8th character", (n) => [...`${1000 + n}`].map((digit) => `${digit}.......`).join("")],
  ["in every 512th character", (n) => [...`${1000 + n}`].map((digit) => digit + "x".repeat(511)).join("")],
  ["in their length", (n) => "a".repeat(1 + 8 * n)],
  ["in their length, of zeros", (n) => "\0".repeat(n)],
  [
    "in one bit of many characters",
    (n) => [...Array(40).keys()].map((i) => ((n >> (i % 10)) & 1 ? "á" : "a")).join(""),
  ],
  ["in one Chinese character", (n) => `${String.fromCharCode(0x4e00 + n)}的资料`],
  ["in the high bytes of their characters", (n) => String.fromCharCode(n << 7).repeat(9)],
  // What one group of four characters did to a hash of multiplications and shifts, the next one undid.
  [
    "in ways that cancelled",
    (n) => {
      const units = Array.from({ length: 32 }, (_, i) => 0x61 + (i % 26));
      for (let i = 0; i < 7; i++) {
        for (const at of (n >> i) & 1 ? [i * 4 + 3, i * 4 + 5, i * 4 + 7] : []) (units[at] as number) ^= 0x80;
      }
      return "!".repeat(n >> 7) + String.fromCharCode(...units);
    },
  ],
];

describe("keys are found again, as many as of any others, when they differ", () => {
  test.each(families)("%s", (_, name) => {
    const { near, out } = play(4096);
    const keys = [...new Set(Array.from({ length: 512 }, (_, n) => name(n)))];
    expect(keys.length).toBe(512);
    out[OUT_STAMP] = 1;
    // What found no place while the near cache looked at few characters is kept again when it is read again.
    for (let round = 0; round < 2; round++) {
      for (const [n, key] of keys.entries()) near.keep(key, ROOT, out, n, undefined, 1, false);
    }
    const found = keys.filter((key, n) => {
      const slot = near.find(key, ROOT);
      return slot >= 0 && near.value(slot) === n;
    });
    // Four to a set, which is filled to a half: in the mean 20 of 512 find theirs taken.
    expect(found.length).toBeGreaterThan(450);
  });
});

test("what was kept is found again when more characters are looked at, and when all are", () => {
  const { near, out } = play(4096);
  out[OUT_STAMP] = 1;
  const before = Array.from({ length: 64 }, (_, n) => `kept when few characters were looked at: ${n}`);
  for (const [n, key] of before.entries()) near.keep(key, ROOT, out, n, undefined, 1, false);
  const lost = (): number => before.filter((key, n) => near.value(near.find(key, ROOT)) !== n).length;
  const few = lost();
  for (const suffix of ["8 chars.", "at last more than thirty-two characters"]) {
    for (let n = 0; n < 32; n++) near.keep(`${n}${suffix}`, ROOT, out, n, undefined, 1, false);
    // Of 256 sets four or so fill up, with a few of these in them.
    expect(lost()).toBeLessThanOrEqual(few + 12);
  }
});

test("the hash of one thread does not tell that of another", async () => {
  vi.resetModules();
  const { hashText: other } = await import("../src/text.ts");
  const texts = Array.from({ length: 32 }, (_, n) => `key ${n}`);
  expect(texts.filter((text) => other(text, 8) === hashText(text, 8))).toEqual([]);
  // Not even which texts are in one set: of so many pairs, 1 of 65,536 is in both, were they at random.
  const inOneSet = (hash: typeof hashText, n: number): boolean =>
    ((hash(`${n}`, 8) ^ hash(`${n + 777}`, 8)) & 255) === 0;
  const both = Array.from({ length: 100_000 }, (_, n) => n).filter((n) => inOneSet(hashText, n) && inOneSet(other, n));
  expect(both.length).toBeLessThan(100);
});

test("the hash of texts that differ in their last characters spreads over the lowest bits", () => {
  for (const [count, slots] of [
    [1000, 1024],
    [100_000, 131_072],
  ] as const) {
    const taken = new Set(Array.from({ length: count }, (_, n) => hashText(`user:${100_000 + n}`, 8) & (slots - 1)));
    // As many as of numbers at random: slots × (1 - e^(-count / slots)).
    expect(taken.size).toBeGreaterThan(0.9 * slots * (1 - Math.exp(-count / slots)));
  }
});
