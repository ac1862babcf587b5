/**
 * Tests the near cache (src/near/near.ts) without an engine. The test writes into shared memory what the engine would write. It
 * checks which changes make a value stale, which entries are kept, and when reads ask the near cache at all.
 */

import { createHash } from "node:crypto";
import { describe, expect, test, vi } from "vitest";
import { OUT_CHANGES, OUT_CHANGES_AT, OUT_CLEAR_EPOCH, OUT_STAMP, STAMP_WORDS } from "../../src/engine/contract.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { extraOf, type Reader, Table, UNKNOWN } from "../../src/near/table.ts";
import { ROOT, type Scope } from "../../src/values/scope.ts";
import { hashText } from "../../src/values/text.ts";

// The secret of the near cache's hash is fixed, so that a failure can be repeated. `SEED=2 npx vitest …` sets another one.
const { next } = vi.hoisted(() => {
  let state = Number(process.env.SEED ?? 1);
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return mixed ^ (mixed >>> 14);
  };
  return { next };
});
vi.mock("../../src/system/random.ts", () => ({ fillRandom: (numbers: Int32Array) => numbers.map(next) }));

// The test takes the part of the engine.
vi.mock("../../src/engine/wasm.ts", () => ({ BUILD: "", NO_IMPORTS: {}, instantiate: undefined }));

const CLEAR_EPOCH_AT = 128;
const NEAR_HITS_AT = 192;
/** Offsets for the n-th key: its entry (8 bytes), the generation of its segment (4), and the change counter of its bucket (4). */
const entryAt = (n: number): number => 1024 + n * 8;
const generationAt = (n: number): number => 512 + (n % 16) * 8 + 4;
const changesAt = (n: number): number => 768 + (n % 16) * 8;

type Keep = (n: number, bytes?: number, scope?: Scope, key?: string) => void;
type Found = (n: number, scope?: Scope) => boolean;

interface Play {
  near: Table;
  view: DataView;
  out: Int32Array;
  keep: Keep;
  /** Whether a `get` finds the value in the near cache, perhaps after the engine has looked the entry up. */
  found: Found;
  /** Whether the engine has looked an entry up since the last call of `asked`. */
  asked(): boolean;
}

/** @param bytes maximum size of the near cache on the heap */
function play(entries: number, bytes = 1 << 30): Play {
  const memory = { buffer: new SharedArrayBuffer(1 << 24) };
  const view = new DataView(memory.buffer);
  const out = new Int32Array(16);
  const engine = {
    out,
    region: { memory, size: 1 << 30 },
    clearEpochAt: CLEAR_EPOCH_AT,
    nearHitsAt: NEAR_HITS_AT,
    areCurrent: () => true,
  };
  const near = new Table(entries, engine as unknown as Engine, bytes);
  let lookUps = 0;
  let seen = 0;
  const keep: Keep = (n, heap = 8, scope = ROOT, key = `key ${n}`) => {
    view.setBigUint64(entryAt(n), BigInt(n) * 0x1_0000_0001n + 0x4000_0000_0000n, true);
    stamp(n);
    out[OUT_CHANGES] = 0;
    const slot = near.place(key, scope, out);
    if (slot >= 0) near.put(slot, key, out, n, extraOf(scope.id, Infinity, undefined), heap, false);
  };
  const stamp = (n: number): void => {
    out[OUT_STAMP] = view.getInt32(entryAt(n), true);
    out[OUT_STAMP + 1] = view.getInt32(entryAt(n) + 4, true);
    out[OUT_STAMP + 2] = view.getInt32(generationAt(n), true);
    out[OUT_CLEAR_EPOCH] = view.getInt32(CLEAR_EPOCH_AT, true);
    out[OUT_CHANGES_AT] = changesAt(n) / 4;
  };
  const lookUp = (n: number): void => {
    lookUps++;
    stamp(n);
    out[OUT_CHANGES] = view.getInt32(changesAt(n), true);
  };
  const found: Found = (n, scope = ROOT) => {
    const value = near.read(`key ${n}`, reader(scope), UNKNOWN);
    if (value !== undefined) return value === n;
    const slot = near.found;
    if (slot < 0) return false;
    lookUp(n);
    return near.renew(slot) && valueAt(near, slot) === n;
  };
  const asked = (): boolean => {
    const did = lookUps > seen;
    seen = lookUps;
    return did;
  };
  return { near, view, out, keep, found, asked };
}

/** Reads a scope. The values of these tests do not expire, so nothing asks the clock. */
const reader = (scope: Scope): Reader => ({ scope, now: () => expect.unreachable("the clock") });

/** The value in a slot, which is either in the slot itself or in its extra object. */
const valueAt = (near: Table, slot: number): unknown => {
  const extra = near.extra(slot);
  return extra === undefined ? near.value(slot) : extra.value;
};

/** The slot that a read of the key finds; -1 if none. */
function slotOf(near: Table, key: string, scope = ROOT): number {
  expect(near.read(key, reader(scope), UNKNOWN)).toBeUndefined();
  return near.found;
}

describe("a value in the near cache", () => {
  test("a value is found, and counts as a hit, as long as nothing changes", () => {
    const { view, keep, found, asked } = play(64);
    keep(1);
    expect([found(1), asked()]).toEqual([true, true]);
    for (let i = 1; i <= 3; i++) {
      expect([found(1), asked()]).toEqual([true, false]);
      expect(view.getFloat64(NEAR_HITS_AT, true)).toBe(i);
    }
    expect(found(2)).toBe(false);
  });

  test("a value is found in its own namespace only", () => {
    const { keep, found } = play(64);
    // Both have the same salt, so that only the id differs.
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

  test("a key does not find the value of another key with the same hash", () => {
    // Random keys, because consecutive ones hardly ever have the same hash.
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
    const { near, keep } = play(64);
    keep(1, 8, ROOT, key(first));
    expect(slotOf(near, key(first))).not.toBe(-1);
    expect(slotOf(near, key(second))).toBe(-1);
    keep(2, 8, ROOT, key(second));
    expect([first, second].map((n) => near.value(slotOf(near, key(n))))).toEqual([1, 2]);
  });

  test("after a change in its bucket, a value is found again once the engine sees the same entry", () => {
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

  test("a value is not current before the engine has proved it", () => {
    const { near, out, keep } = play(64);
    keep(1);
    const slot = slotOf(near, "key 1");
    const read = (): unknown => near.read("key 1", reader(ROOT), UNKNOWN);
    // The engine puts out an older count when it cannot prove the entry.
    out[OUT_CHANGES] = -1;
    expect([near.renew(slot), read()]).toEqual([true, undefined]);
    out[OUT_CHANGES] = 0;
    expect([near.renew(slot), read()]).toEqual([true, 1]);
  });

  const changed = (view: DataView): void => view.setUint32(changesAt(1), view.getUint32(changesAt(1), true) + 1, true);
  const changes: [string, (view: DataView) => void][] = [
    ["the low half of its entry", (view) => view.setUint32(entryAt(1), 7, true)],
    ["the high half of its entry", (view) => view.setUint32(entryAt(1) + 4, 7, true)],
    ["the generation of its segment", (view) => view.setUint32(generationAt(1), 7, true)],
    ["the clear epoch", (view) => view.setUint32(CLEAR_EPOCH_AT, 7, true)],
  ];
  test.each(changes)("a value is not found after a change of %s", (what, change) => {
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

  test("a value is renewed if the engine puts out the same stamp, and with no other stamp", () => {
    const { near, out, keep } = play(64);
    keep(1);
    const slot = slotOf(near, "key 1");
    expect(near.renew(slot)).toBe(true);
    for (let at = OUT_STAMP; at < OUT_STAMP + STAMP_WORDS + 1; at++) {
      (out[at] as number)++;
      expect(near.renew(slot), `word ${at}`).toBe(false);
      (out[at] as number)--;
    }
    expect(near.renew(slot)).toBe(true);
  });
});

describe("the entries of the near cache", () => {
  const among = (found: Found, count: number, from = 0): number =>
    Array.from({ length: count }, (_, n) => found(from + n)).filter(Boolean).length;

  test("the near cache grows to its maximum number of entries, and then keeps the entries in use", () => {
    const { near, keep, found } = play(2000);
    for (let n = 0; n < 1000; n++) keep(n);
    // A set has four slots and is half full: on average 40 of 1,000 keys find no free slot.
    expect(among(found, 1000)).toBeGreaterThan(900);
    const kept = among(found, 1000);
    for (let n = 1000; n < 50_000; n++) {
      keep(n);
      keep(n);
      if (n % 10 === 0) for (let used = 0; used < 1000; used++) found(used);
      expect(near.usage.entries).toBeLessThanOrEqual(2000);
    }
    expect(among(found, 1000)).toBeGreaterThan(0.95 * kept);
    expect(near.usage.entries).toBeGreaterThan(1900);
  }, 60_000);

  test("the near cache finds all its entries again after it has grown", () => {
    const { keep, found } = play(65_536);
    const scopes = [ROOT, { ...ROOT, id: "1:n", salt: 77 }];
    const there = new Set<number>();
    for (let n = 0; n < 40_000; n++) {
      keep(n, 8, scopes[n % 2]);
      if (found(n, scopes[n % 2])) there.add(n);
    }
    // Some keys find all four slots of their set taken, until the table grows.
    expect(there.size).toBeGreaterThan(30_000);
    expect([...there].filter((n) => !found(n, scopes[n % 2]))).toEqual([]);
    expect(found(0, scopes[1])).toBe(false);
  });

  test("keys that differ only before their last characters are found, in any namespace", () => {
    const { near, keep } = play(4096);
    const scopes = [ROOT, { ...ROOT, id: "1:n", salt: 77 }];
    const names = Array.from({ length: 500 }, (_, n) => `user:${n}:the profile`);
    for (let n = 0; n < 100; n++) keep(n);
    // Twice, because the table is emptied when more characters are hashed.
    for (let i = 0; i < 2; i++) for (const [n, key] of names.entries()) keep(n, 8, scopes[n % 2], key);
    const at = names.map((key, n) => slotOf(near, key, scopes[n % 2]));
    expect(at.filter((slot, n) => slot >= 0 && valueAt(near, slot) === n).length).toBeGreaterThan(470);
  });

  test("after a clear no entry is found, and the room of the cleared entries is free again", () => {
    const { near, view, keep, found } = play(64, 1 << 20);
    for (let n = 0; n < 8; n++) keep(n, 1 << 17);
    expect(among(found, 8)).toBeGreaterThan(6);
    view.setUint32(CLEAR_EPOCH_AT, 1, true);
    expect(among(found, 8)).toBe(0);
    keep(8, 1 << 17);
    expect(found(8)).toBe(true);
    expect(slotOf(near, "key 0")).toBe(-1);
    expect(near.usage.entries).toBe(1);
    near.clear();
    expect([near.usage, found(8)]).toEqual([{ entries: 0, bytes: 0 }, false]);
    keep(8);
    near.close();
    keep(8);
    expect(near.usage).toEqual({ entries: 0, bytes: 0 });
  });

  test("the near cache never exceeds its maximum of bytes, table and keys included, and evicts unused entries first", () => {
    const budget = 1 << 20;
    const { near, keep, found } = play(4096, budget);
    keep(0, budget / 2);
    expect(found(0)).toBe(false);
    for (let n = 1; n <= 8; n++) keep(n, budget / 12);
    const used = [1, 2, 3, 4];
    expect(used.map((n) => found(n))).toEqual([true, true, true, true]);
    // CLOCK: the hand moves on until it finds entries that were not used.
    for (let n = 9; n <= 12; n++) for (let tries = 0; tries < 64; tries++) keep(n, budget / 12);
    expect(used.filter((n) => found(n)).length).toBeGreaterThanOrEqual(3);
    for (let n = 20; n < 400; n++) {
      for (let tries = 0; tries < 64; tries++) keep(n, budget / 12);
      expect(near.usage.bytes).toBeLessThanOrEqual(budget);
    }
    expect(among(found, 400)).toBeGreaterThan(3);
  });

  test("a large value makes room by evicting entries that were not read, and none that was", () => {
    // The table and 64 entries of 4,000 bytes each.
    const { near, keep, found } = play(4096, 64 * 4200 + 45_000);
    for (let n = 0; n < 64; n++) keep(n, 4000);
    const kept = Array.from({ length: 64 }, (_, n) => n).filter(
      (n) => near.read(`key ${n}`, reader(ROOT), UNKNOWN) !== undefined || near.found >= 0,
    );
    expect(kept.length).toBeGreaterThan(50);
    const read = kept.filter((_, i) => i % 2 === 0);
    expect(read.filter((n) => found(n))).toEqual(read);
    // It takes the room of about half of the others. The hand looks at 64 of 1,024 slots for each try.
    for (let tries = 0; tries < 16 && !found(100); tries++) for (let twice = 0; twice < 2; twice++) keep(100, 60_000);
    expect(found(100)).toBe(true);
    expect(read.filter((n) => found(n))).toEqual(read);
  });

  test("keys that have become hot replace older entries, and keys that are read once do not", () => {
    const { near, keep, found } = play(1 << 20, 1 << 20);
    for (let n = 0; n < 20_000; n++) keep(n);
    const { entries } = near.usage;
    expect(entries).toBeGreaterThan(5000);
    expect(among(found, 20_000, 100_000)).toBe(0);
    // A scan of keys that are never read again.
    for (let n = 20_000; n < 60_000; n++) keep(n);
    expect(among(found, 40_000, 20_000)).toBeLessThan(0.02 * entries);
    // Other keys become hot.
    for (let i = 0; i < 24; i++)
      for (let n = 60_000; n < 61_000; n++) if (!found(n)) for (let k = 0; k < 2; k++) keep(n);
    expect(among(found, 1000, 60_000)).toBeGreaterThan(900);
  });
});

describe("the cooldown of the near cache", () => {
  /** Reads keys like `get` does; returns how many of the reads did not ask the near cache. */
  function read({ near, keep, found }: Play, keys: Iterable<number>): number {
    let skipped = 0;
    for (const n of keys) {
      if (near.isCooling()) skipped++;
      else if (!found(n)) {
        near.missed(1);
        keep(n);
      }
    }
    return skipped;
  }
  let drawn = 1;
  const draw = (from: number): number => {
    drawn = (Math.imul(drawn, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((drawn / 2 ** 32) * from);
  };
  function* uniform(count: number, from: number): Iterable<number> {
    for (let i = 0; i < count; i++) yield draw(from);
  }
  function* scan(count: number, from: number): Iterable<number> {
    for (let i = 0; i < count; i++) yield i % from;
  }
  /** Half of the reads ask for a hundred keys. */
  function* hot(count: number, from: number): Iterable<number> {
    for (let i = 0; i < count; i++) yield draw(2) === 0 ? draw(100) : draw(from);
  }

  test.each<[string, (count: number) => Iterable<number>]>([
    ["of many keys, each as likely as any other", (count) => uniform(count, 1_000_000)],
    ["of many keys, one after the other", (count) => scan(count, 100_000)],
  ])(
    "reads hardly ever ask the near cache when it does not help: reads %s",
    (_, keys) => {
      const all = play(1000);
      read(all, keys(20_000));
      expect(read(all, keys(2_000_000)) / 2_000_000).toBeGreaterThan(0.95);
      // The useless entries are dropped, except the last one.
      for (let n = 1_000_000; !all.near.isCooling(); n++) read(all, [n]);
      expect(all.near.usage.entries).toBeLessThanOrEqual(1);
    },
    60_000,
  );

  test.each<[string, (count: number) => Iterable<number>]>([
    ["of few keys", (count) => uniform(count, 500)],
    ["of twice as many keys as fit, one after the other", (count) => scan(count, 2_000)],
    ["of which half are of a hundred keys, and half of a million", (count) => hot(count, 1_000_000)],
    ["of as many keys as fit, one after the other", (count) => scan(count, 500)],
  ])("reads always ask the near cache when it helps: reads %s", (_, keys) => {
    const all = play(1000);
    read(all, keys(20_000));
    expect(read(all, keys(200_000))).toBe(0);
  });

  test("reads always ask the near cache while it has free room", () => {
    const all = play(1 << 20);
    expect(read(all, scan(40_000, 40_000))).toBe(0);
    expect(read(all, scan(80_000, 40_000))).toBe(0);
  });

  test("reads seldom ask a near cache that fills up, when hardly any key is read again", () => {
    const all = play(1 << 20);
    read(all, uniform(100_000, 1 << 19));
    expect(read(all, uniform(1_000_000, 1 << 19)) / 1_000_000).toBeGreaterThan(0.7);
  });

  test("reads hardly ever ask the near cache when they never find anything in it", () => {
    const { near } = play(1000);
    let skipped = 0;
    for (let i = 0; i < 200_000; i++) {
      if (near.isCooling()) skipped++;
      else near.missed(1);
    }
    expect(skipped / 200_000).toBeGreaterThan(0.9);
  });

  test("reads ask the near cache again soon after the hot keys have changed", () => {
    const all = play(1000);
    read(all, uniform(1_000_000, 1_000_000));
    read(all, hot(300_000, 1_000_000));
    expect(read(all, hot(100_000, 1_000_000))).toBe(0);
    read(all, uniform(1_000_000, 1_000_000));
    expect(read(all, uniform(200_000, 1_000_000)) / 200_000).toBeGreaterThan(0.9);
    read(all, uniform(300_000, 500));
    expect(read(all, uniform(100_000, 500))).toBe(0);
  });
});

/** Families of keys that have equal hashes if only a few characters are hashed, or if the hash has no secret. */
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
  // In a hash of multiplications and shifts, the differences in one group of four characters would cancel those of the group before.
  [
    "in ways that cancel out",
    (n) => {
      const units = Array.from({ length: 32 }, (_, i) => 0x61 + (i % 26));
      for (let i = 0; i < 7; i++) {
        for (const at of (n >> i) & 1 ? [i * 4 + 3, i * 4 + 5, i * 4 + 7] : []) (units[at] as number) ^= 0x80;
      }
      return "!".repeat(n >> 7) + String.fromCharCode(...units);
    },
  ],
];

describe("families of similar keys", () => {
  test.each(families)("keys that differ %s are found as often as any others", (_, name) => {
    const { near, keep } = play(4096);
    const keys = [...new Set(Array.from({ length: 512 }, (_, n) => name(n)))];
    expect(keys.length).toBe(512);
    // The table is emptied when more characters are hashed, which happens at most twice.
    for (let round = 0; round < 4; round++) for (const [n, key] of keys.entries()) keep(n, 8, ROOT, key);
    const found = keys.filter((key, n) => {
      const slot = slotOf(near, key);
      return slot >= 0 && valueAt(near, slot) === n;
    });
    // A set has four slots and is half full: on average 20 of 512 keys find no free slot.
    expect(found.length).toBeGreaterThan(450);
  });
});

test("the hashes of one thread do not reveal those of another thread", async () => {
  vi.resetModules();
  const { hashText: other } = await import("../../src/values/text.ts");
  const texts = Array.from({ length: 32 }, (_, n) => `key ${n}`);
  expect(texts.filter((text) => other(text, 8) === hashText(text, 8))).toEqual([]);
  // Not even which texts share a set: with random hashes, 1 of 65,536 pairs shares a set in both threads.
  const inOneSet = (hash: typeof hashText, n: number): boolean =>
    ((hash(`${n}`, 8) ^ hash(`${n + 777}`, 8)) & 255) === 0;
  const both = Array.from({ length: 100_000 }, (_, n) => n).filter((n) => inOneSet(hashText, n) && inOneSet(other, n));
  expect(both.length).toBeLessThan(100);
});

test("the lowest bits of the hash spread evenly for texts that differ in their last characters", () => {
  for (const [count, slots] of [
    [1000, 1024],
    [100_000, 131_072],
  ] as const) {
    const taken = new Set(Array.from({ length: count }, (_, n) => hashText(`user:${100_000 + n}`, 8) & (slots - 1)));
    // The expected number for random hashes: slots × (1 - e^(-count / slots)).
    expect(taken.size).toBeGreaterThan(0.9 * slots * (1 - Math.exp(-count / slots)));
  }
});
