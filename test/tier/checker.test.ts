/** The checker finds a violation of each rule, and accepts histories that are right, at the border of each rule. */

import { describe, expect, test } from "vitest";
import { check } from "./checker.mjs";

const KINDS = { a: "register", s: "source", n: "counter" };
const base = { lease: 100, slack: 0, recovery: 50, flights: "host", kinds: KINDS };

const write = (value: string | null, called: number, returned: number, more = {}) => ({
  host: 0,
  key: "a",
  value,
  called,
  returned,
  ok: true,
  ...more,
});
const change = (version: number, changed: number, called: number, returned: number, more = {}) => ({
  host: 0,
  key: "s",
  version,
  changed,
  called,
  returned,
  ok: true,
  how: "delete",
  ...more,
});
const read = (value: unknown, called: number, more = {}) => ({
  host: 1,
  who: "h1p0",
  key: "a",
  value,
  called,
  returned: called + 1,
  until: called + 1,
  count: 1,
  ...more,
});
const added = (result: number, called: number, returned: number, more = {}) => ({
  host: 0,
  key: "n",
  result,
  called,
  returned,
  ok: true,
  ...more,
});

function rules(history: object): string[] {
  const nothing = { reads: [], writes: [], changes: [], increments: [], loads: [] };
  return check({ ...base, ...nothing, ...history }).violations.map(({ rule }: { rule: string }) => rule);
}

describe("registers", () => {
  const writes = [write("1", 0, 10), write("2", 200, 210)];

  test("a value may be read until the lease after the write that replaced it has returned", () => {
    expect(rules({ writes, reads: [read("1", 310)] })).toEqual([]);
    expect(rules({ writes, reads: [read("1", 311)] })).toEqual(["stale"]);
    expect(rules({ writes, reads: [read("2", 1_000)] })).toEqual([]);
  });

  test("writes at the same time may take effect in either order", () => {
    const both = [write("1", 0, 50), write("2", 40, 90)];
    expect(rules({ writes: both, reads: [read("1", 1_000)] })).toEqual([]);
    expect(rules({ writes: both, reads: [read("2", 1_000)] })).toEqual([]);
    expect(rules({ writes: [write("1", 0, 39), write("2", 40, 90)], reads: [read("1", 1_000)] })).toEqual(["stale"]);
  });

  test("no value is read that was not written yet, or never", () => {
    expect(rules({ writes, reads: [read("2", 198)] })).toEqual(["invented"]);
    expect(rules({ writes, reads: [read("2", 199)] })).toEqual([]);
    expect(rules({ writes, reads: [read("3", 500)] })).toEqual(["invented"]);
  });

  test("a read that finds nothing loses a write, unless it may have been cut off", () => {
    expect(rules({ writes, reads: [read(null, 110)] })).toEqual([]);
    expect(rules({ writes, reads: [read(null, 111)] })).toEqual(["lost"]);
    const windows = [{ what: "stall", host: 1, from: 0, to: 10 }];
    expect(rules({ writes, windows, reads: [read(null, 111)] })).toEqual([]);
    expect(rules({ writes, windows, reads: [read(null, 111, { final: true })] })).toEqual(["lost"]);
    expect(
      rules({ writes, windows: [{ what: "stall", host: 0, from: 0, to: 300 }], reads: [read(null, 111)] }),
    ).toEqual(["lost"]);
    expect(
      rules({ writes, windows: [{ what: "stop", host: 1, who: "h1p1", from: 0, to: 300 }], reads: [read(null, 111)] }),
    ).toEqual(["lost"]);
    expect(rules({ writes, windows: [{ what: "restart", from: 0, to: 300 }], reads: [read(null, 111)] })).toEqual([]);
    // The death of another participant cuts nobody off.
    const death = { what: "kill", host: 1, from: 0, to: 300, isDeath: true };
    expect(rules({ writes, windows: [death], reads: [read(null, 111)] })).toEqual(["lost"]);
    // Long after the disturbance there is no excuse any more.
    expect(rules({ writes, windows, reads: [read(null, 400)] })).toEqual(["lost"]);
  });

  test("a deleted value is not served after the bound, and its absence is right", () => {
    const deleted = [write("1", 0, 10), write(null, 200, 210)];
    expect(rules({ writes: deleted, reads: [read("1", 310), read(null, 900)] })).toEqual([]);
    expect(rules({ writes: deleted, reads: [read("1", 311)] })).toEqual(["stale"]);
    expect(rules({ writes: [...deleted, write("2", 300, 310)], reads: [read(null, 411)] })).toEqual(["lost"]);
  });

  test("a server that lost its data: absence is right, what was lost is not served after the bound", () => {
    const losses = [{ from: 300, to: 320 }];
    expect(rules({ writes, losses, reads: [read(null, 800), read("2", 420)] })).toEqual([]);
    expect(rules({ writes, losses, reads: [read("2", 421)] })).toEqual(["stale"]);
    expect(rules({ writes: [...writes, write("3", 330, 340)], losses, reads: [read(null, 441)] })).toEqual(["lost"]);
    // The write may have come before the loss or after it.
    expect(rules({ writes: [write("1", 290, 330)], losses, reads: [read(null, 900), read("1", 900)] })).toEqual([]);
  });

  test("a write whose end is unknown may have happened or not, until nothing of it can arrive any more", () => {
    const unknown = write("2", 200, 210, { ok: false });
    const later = write("3", 5_000, 5_010);
    expect(rules({ writes: [write("1", 0, 10), unknown], reads: [read("1", 900), read("2", 900)] })).toEqual([]);
    expect(rules({ writes: [unknown, write("3", 300, 310)], reads: [read("2", 900)] })).toEqual([]);
    expect(rules({ writes: [unknown, later], reads: [read("2", 5_111)] })).toEqual(["stale"]);
    // A chain of faults holds its bytes back.
    const windows = [
      { what: "stall", host: 0, from: 205, to: 1_500 },
      { what: "pause", from: 4_400, to: 5_000 },
    ];
    expect(rules({ writes: [unknown, later], windows, reads: [read("2", 5_111)] })).toEqual([]);
  });

  test("a host reads its own writes at once", () => {
    const here = { host: 0, who: "h0p1" };
    expect(rules({ writes, reads: [read("1", 210, here), read("1", 211)] })).toEqual([]);
    expect(rules({ writes, reads: [read("1", 211, here)] })).toEqual(["own"]);
    expect(rules({ writes: [write("1", 0, 10)], reads: [read(null, 11, here), read(null, 10, here)] })).toEqual([
      "own",
    ]);
    const windows = [{ what: "stall", host: 0, from: 0, to: 10 }];
    expect(rules({ writes: [write("1", 0, 10)], windows, reads: [read(null, 11, here)] })).toEqual([]);
  });

  test("a value is not served after its ttl and the bound", () => {
    const short = [write("1", 0, 10, { ttl: 300 })];
    expect(rules({ writes: short, reads: [read("1", 410), read(null, 900), read(null, 299)] })).toEqual([]);
    expect(rules({ writes: short, reads: [read("1", 411)] })).toEqual(["expired"]);
    expect(rules({ writes: short, reads: [read(null, 290)] })).toEqual(["lost"]);
  });
});

describe("sources", () => {
  const at = (version: number, called: number) => read(version, called, { key: "s" });
  const changes = [change(1, 0, 1, 10), change(2, 100, 101, 110)];

  test("an overtaken version is not served after the bound", () => {
    expect(rules({ changes, reads: [at(1, 210), at(2, 900), at(2, 100)] })).toEqual([]);
    expect(rules({ changes, reads: [at(1, 211)] })).toEqual(["overtaken"]);
    expect(rules({ changes, reads: [at(0, 211)] })).toEqual(["overtaken"]);
  });

  test("a host does not read a version that it has changed itself", () => {
    const here = { key: "s", host: 0, who: "h0p1" };
    expect(rules({ changes, reads: [read(1, 110, here), read(2, 111, here)] })).toEqual([]);
    expect(rules({ changes, reads: [read(1, 111, here)] })).toEqual(["own"]);
  });

  test("a version that is not in the source is invented", () => {
    expect(rules({ changes, reads: [at(3, 500)] })).toEqual(["invented"]);
    expect(rules({ changes, reads: [at(2, 98)] })).toEqual(["invented"]);
  });

  test("a change that the tier was not told of for certain replaces nothing; the next one does", () => {
    const untold = [changes[0], change(2, 100, 101, 110, { ok: false })];
    expect(rules({ changes: untold, reads: [at(1, 900)] })).toEqual([]);
    expect(rules({ changes: [...untold, change(3, 200, 201, 210)], reads: [at(1, 311)] })).toEqual(["overtaken"]);
  });

  test("a version that `set` may bring late is replaced only by what was called later", () => {
    const set = change(2, 100, 101, 110, { ok: false, how: "set" });
    expect(rules({ changes: [set, change(3, 200, 201, 210)], reads: [at(2, 900)] })).toEqual([]);
    expect(rules({ changes: [set, change(3, 5_000, 5_001, 5_010)], reads: [at(2, 5_111)] })).toEqual(["overtaken"]);
  });

  test("two loads at once", () => {
    const load = (host: number, from: number, to: number) => ({ host, key: "s", from, to });
    const loads = [load(1, 0, 50), load(1, 40, 60)];
    expect(rules({ loads })).toEqual(["loads"]);
    expect(rules({ loads: [load(1, 0, 50), load(1, 50, 60)] })).toEqual([]);
    expect(rules({ loads: [load(1, 0, 50), load(2, 40, 60)] })).toEqual([]);
    expect(rules({ loads: [load(1, 0, 50), load(2, 40, 60)], flights: "all" })).toEqual(["loads"]);
    expect(rules({ loads, changes: [change(1, 10, 11, 20)] })).toEqual([]);
    expect(rules({ loads, windows: [{ what: "kill", host: 1, from: 20, to: 21 }] })).toEqual([]);
    expect(rules({ loads, windows: [{ what: "kill", host: 0, from: 20, to: 21 }] })).toEqual(["loads"]);
    // A long load, and two short ones beside it.
    expect(rules({ loads: [load(1, 0, 90), load(1, 10, 20), load(1, 30, 40)] })).toEqual(["loads", "loads"]);
  });
});

describe("counters", () => {
  test("results are different, and neither too small nor too large", () => {
    expect(rules({ increments: [added(1, 0, 10), added(2, 20, 30)] })).toEqual([]);
    expect(rules({ increments: [added(1, 0, 10), added(1, 5, 12)] })).toEqual(["count"]);
    expect(rules({ increments: [added(2, 0, 10), added(1, 20, 30)] })).toEqual(["count", "count"]);
    expect(rules({ increments: [added(1, 0, 10), added(0, 15, 20, { ok: false }), added(3, 40, 50)] })).toEqual([]);
    // A command that was sent twice counts twice.
    expect(rules({ increments: [added(1, 0, 10), added(3, 40, 50)] })).toEqual(["count"]);
  });

  test("reads", () => {
    const increments = [added(1, 0, 10), added(2, 20, 30)];
    const at = (value: number | null, called: number, more = {}) => read(value, called, { key: "n", ...more });
    expect(rules({ increments, reads: [at(1, 130), at(2, 900), at(null, 100)] })).toEqual([]);
    expect(rules({ increments, reads: [at(1, 131)] })).toEqual(["stale"]);
    expect(rules({ increments, reads: [at(1, 31, { host: 0 }), at(2, 31, { host: 0 })] })).toEqual(["own"]);
    expect(rules({ increments, reads: [at(3, 900)] })).toEqual(["invented"]);
    expect(rules({ increments, reads: [at(null, 900)] })).toEqual(["stale"]);
  });
});

test("participants that differ in the end", () => {
  const writes = [write("1", 0, 50), write("2", 40, 90)];
  const reads = [read("1", 900, { final: true }), read("2", 900, { final: true, who: "h0p0" })];
  expect(rules({ writes, reads })).toEqual(["apart"]);
  expect(rules({ writes, reads: [reads[0], { ...reads[1], value: "1" }] })).toEqual([]);
});

test("nothing, read by who may be cut off, is no measure of staleness beyond the lease", () => {
  const nothing = { changes: [], increments: [], loads: [] };
  const windows = [{ what: "cut", host: 1, who: "h1p0", from: 0, to: 1_000, isDeath: false }];
  const ages = (more: object) => {
    const history = {
      ...base,
      ...nothing,
      slack: 5,
      writes: [write("1", 0, 10)],
      reads: [read(null, 112), read(null, 60)],
    };
    const { staleness, excused } = check({ ...history, ...more });
    return [staleness.max, excused];
  };
  expect(ages({ windows })).toEqual([50, 1]);
  expect(ages({})).toEqual([102, 0]);
});

test("what participants have found is a violation, and the staleness is measured", () => {
  expect(rules({ failures: [{ rule: "stuck" }] })).toEqual(["stuck"]);
  const writes = [write("1", 0, 10), write("2", 200, 210)];
  const nothing = { changes: [], increments: [], loads: [] };
  const { staleness, reads } = check({
    ...base,
    ...nothing,
    writes,
    reads: [read("1", 230), read("1", 260, { count: 7 }), read("2", 900)],
  });
  const worst = { age: 50, read: read("1", 260, { count: 7 }) };
  expect({ staleness, reads }).toEqual({ staleness: { count: 2, p50: 50, p99: 50, max: 50, worst }, reads: 9 });
});
