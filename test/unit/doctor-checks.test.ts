/** What `doctor` makes of facts: each check with facts that are fine, with those that are not, and at the border between them. */

import { describe, expect, test } from "vitest";
import { type Check, checkCache, checkMachine, clockShift } from "../../src/cli/doctor/checks.ts";
import type { CacheFacts, Look, MachineFacts } from "../../src/inspect/facts.ts";
import type { CacheFile } from "../../src/inspect/files.ts";
import type { Hold, SeatReport } from "../../src/inspect/reports.ts";

const MIB = 1 << 20;
const FILE: CacheFile = {
  path: "/dev/shm/cache-machine-1000-app.v6",
  name: "app",
  directory: "/dev/shm",
  uid: 1000,
  ours: true,
  layout: 6,
  boot: undefined,
  size: 4 * MIB,
  modified: new Date(0),
  state: "current",
  reason: undefined,
  users: 1,
  bells: [],
  orphans: [],
  identity: "1:1",
};
const SPACE = { size: 64 * MIB, free: 32 * MIB, inodes: 1000, caches: 4 * MIB, hidden: 0, isMemory: true };
const MACHINE: MachineFacts = {
  platform: "linux",
  arch: "x64",
  libc: "glibc",
  node: "22.0.0",
  permission: false,
  nativeError: undefined,
  wasm: undefined,
  procfs: true,
  descriptors: 1024,
  addressSpace: Infinity,
  memory: { group: "/sys/fs/cgroup/web", limit: 100 * MIB, used: 50 * MIB },
  directory: "/dev/shm",
  directoryError: undefined,
  space: SPACE,
  largest: [{ name: "core.dump", size: 9 * MIB, isCache: false }],
  files: [FILE],
  users: new Map(),
};
/** What a participant counts, and what the whole cache does. */
const NOTHING_COUNTED = { hits: 0, nearHits: 0, misses: 0, sets: 0, deletes: 0, evictions: 0 };
const STATS: Look["stats"] = {
  ...NOTHING_COUNTED,
  expirations: 0,
  reclaims: 0,
  capacity: 3 * MIB,
  used: 3 * MIB,
  size: 4 * MIB,
  participants: 1,
  seats: 64,
};
const SEAT: SeatReport = {
  seat: 0,
  pid: 100,
  threadId: 0,
  state: "alive",
  freezer: null,
  clock: 0,
  ...NOTHING_COUNTED,
  writing: false,
  hazard: null,
  waiting: false,
};
/** The wall clock at the two looks, which are 2 s apart. */
const [FIRST, SECOND] = [1_000_000_000, 1_000_002_000];
const seat = (more: Partial<SeatReport> = {}): SeatReport => ({ ...SEAT, ...more });
const look = (more: Partial<Look> = {}): Look => ({
  at: SECOND,
  stats: STATS,
  participants: [SEAT],
  holds: [],
  ...more,
});
const cache = (more: Partial<CacheFacts> = {}, second: Partial<Look> = {}, first: Partial<Look> = {}): CacheFacts => ({
  file: FILE,
  error: undefined,
  looks: [look({ at: FIRST, ...first }), look(second)],
  isNamed: true,
  clocks: [],
  groups: [],
  ...more,
});
const hold = (more: Partial<Hold> = {}): Hold => ({
  kind: "lock",
  seat: 0,
  pid: 100,
  threadId: 0,
  state: "frozen",
  ...more,
});

const find = (checks: readonly Check[], id: string): Check => {
  const found = checks.filter((each) => each.id === id);
  expect(found, id).toHaveLength(1);
  return found[0] as Check;
};
/** Compares the state, and looks for each text in what is said. */
function expectCheck({ state, detail, remedy }: Check, wanted: Check["state"], texts: readonly string[]): void {
  expect(state, detail).toBe(wanted);
  for (const text of texts) expect(`${detail} → ${remedy}`).toContain(text);
  // A problem without a remedy helps nobody, and a remedy without a problem misleads.
  if (state === "ok") expect(remedy).toBe("");
  else if (state !== "unknown") expect(remedy).not.toBe("");
}

describe("this machine", () => {
  test("is fine, and every check says so", () => {
    const checks = checkMachine(MACHINE);
    expect(checks.filter(({ state }) => state !== "ok")).toEqual([]);
    expect(new Set(checks.map(({ id }) => id)).size).toBe(checks.length);
  });

  const stale: CacheFile = { ...FILE, path: "/dev/shm/cache-machine-1000-app.v5", state: "stale layout", users: 0 };
  const boot: CacheFile = { ...FILE, path: "/var/x.v6.b", state: "other boot", users: 0 };
  const space = (more: Partial<typeof SPACE>): Partial<MachineFacts> => ({ space: { ...SPACE, ...more } });
  const memory = (used: number | undefined, limit = 100 * MIB): Partial<MachineFacts> => {
    return { memory: { group: "/sys/fs/cgroup/web", limit, used } };
  };
  test.each<[string, string, Partial<MachineFacts>, Check["state"], string[]]>([
    [
      "native",
      "does not load",
      { nativeError: { detail: "mounted noexec", remedy: "Move it." } },
      "problem",
      ["noexec"],
    ],
    ["node", "is the oldest that is supported", { node: "20.19.0" }, "ok", []],
    ["node", "is older by a minor", { node: "20.18.9" }, "problem", ["20.18.9", "20.19"]],
    ["node", "is older by a major, with a larger minor", { node: "18.99.0" }, "problem", ["18.99.0"]],
    ["node", "is newer, with a smaller minor", { node: "21.0.0", permission: true }, "ok", ["permission model"]],
    ["wasm", "is missing", { wasm: "is missing" }, "problem", ["is missing", "--jitless"]],
    ["procfs", "does not show this process", { procfs: false }, "warning", ["hidepid"]],
    ["descriptors", "just enough", { descriptors: 256 }, "ok", ["256"]],
    ["descriptors", "one too few", { descriptors: 255 }, "warning", ["255", "ulimit -n"]],
    ["descriptors", "unlimited", { descriptors: Infinity }, "ok", ["any number"]],
    ["descriptors", "not told", { descriptors: undefined }, "unknown", []],
    ["address-space", "just enough", { addressSpace: 11 * 2 ** 30 }, "ok", ["11 GiB"]],
    ["address-space", "too little", { addressSpace: 11 * 2 ** 30 - 1 }, "problem", ["ulimit -v"]],
    ["address-space", "not told", { addressSpace: undefined }, "unknown", []],
    [
      "directory",
      "refuses",
      { directoryError: { detail: "mode 0777", remedy: "chmod" } },
      "problem",
      ["0777", "chmod"],
    ],
    ["space", "does not tell", { space: undefined }, "unknown", ["/dev/shm"]],
    ["space", "just not full", { ...space({ free: MIB, size: 16 * MIB }) }, "ok", ["1 MiB of 16 MiB"]],
    ["space", "full", space({ free: MIB - 1 }), "problem", ["/dev/shm is full", "core.dump 9 MiB", "--shm-size"]],
    ["space", "nearly full", space({ free: 3 * MIB }), "warning", ["nearly full: 3 MiB of 64 MiB", "core.dump"]],
    ["space", "a disk that is nearly full", space({ free: 3 * MIB, isMemory: false }), "ok", []],
    ["space", "no file names", space({ inodes: 0 }), "problem", ["no room for another file name"]],
    ["space", "without a limit of file names", { space: { ...SPACE, inodes: undefined } }, "ok", []],
    ["space", "removed while open", space({ free: 0, hidden: 20 * MIB }), "problem", ["20 MiB in folders", "lsof +L1"]],
    [
      "space",
      "an unused cache",
      { ...space({ free: 0 }), largest: [{ name: "c.v6", size: 7 * MIB, isCache: true }] },
      "problem",
      ["c.v6 7 MiB, a cache that nobody has open"],
    ],
    ["memory", "not limited", { memory: undefined }, "ok", ["no control group"]],
    ["memory", "just enough", memory(90 * MIB), "ok", ["90 MiB are used"]],
    ["memory", "nearly used", memory(90 * MIB + 1), "warning", ["100 MiB are allowed", "--memory"]],
    ["memory", "what is used is not known", memory(undefined), "ok", ["100 MiB"]],
    ["memory", "as large as the caches", memory(0, 4 * MIB), "ok", []],
    ["memory", "smaller than the caches", memory(0, 4 * MIB - 1), "problem", ["caches take up to 4 MiB"]],
    ["memory", "smaller than caches on a disk", { ...memory(0, MIB), ...space({ isMemory: false }) }, "ok", []],
    [
      "stale",
      "unused",
      { files: [FILE, stale] },
      "problem",
      [`${stale.path}: nobody has it open, 4 MiB`, "rm --all-stale"],
    ],
    ["stale", "two unused", { files: [stale, stale] }, "problem", ["nobody has them open, 8 MiB"]],
    ["stale", "elsewhere", { files: [stale], directory: "/tmp/a b" }, "problem", ["rm --all-stale --path '/tmp/a b'"]],
    ["stale", "not known", { files: [{ ...stale, users: undefined }] }, "problem", ["nobody is known to have it open"]],
    ["stale", "of somebody else", { files: [{ ...stale, ours: false }] }, "ok", []],
    [
      "stale",
      "in use",
      { files: [{ ...stale, users: 2 }], users: new Map([[stale.path, [7, 8, 7]]]) },
      "warning",
      ["in use by processes 7, 8, which run another version", "Restart"],
    ],
    [
      "stale",
      "one in use, one not",
      { files: [stale, { ...stale, path: "/b.v5", users: 1 }], users: new Map([["/b.v5", [7]]]) },
      "problem",
      [`${stale.path}: nobody has it open, 4 MiB`, "/b.v5: in use by process 7,", "rm --all-stale. Restart"],
    ],
    ["boots", "left", { files: [boot] }, "problem", ["/var/x.v6.b: 4 MiB are wasted", "--all-stale"]],
    ["boots", "of somebody else", { files: [{ ...boot, ours: false }] }, "ok", []],
    [
      "foreign",
      "refused",
      { files: [{ ...FILE, reason: "mode 0644" }] },
      "problem",
      [FILE.path, "mode 0644", "rm <name>"],
    ],
    ["foreign", "another layout has its own check", { files: [{ ...stale, reason: "x" }] }, "ok", []],
    ["bells", "left", { files: [{ ...FILE, orphans: ["/a", "/b"] }] }, "ok", ["2, which the next opening"]],
  ])("%s: %s", (id, _, facts, state, texts) => {
    expectCheck(find(checkMachine({ ...MACHINE, ...facts }), id), state, texts);
  });
});

test("what no file in a folder of a disk takes is no news: there are other folders", () => {
  const full = { ...SPACE, free: 0, hidden: 20 * MIB, isMemory: false };
  expect(find(checkMachine({ ...MACHINE, space: full }), "space").remedy).not.toContain("lsof");
});

describe("a cache", () => {
  test("is fine, and every check says so", () => {
    const checks = checkCache(cache());
    expect(checks.filter(({ state }) => state !== "ok")).toEqual([]);
    expect(new Set(checks.map(({ id }) => id)).size).toBe(checks.length);
  });

  test("that cannot be looked at has one finding", () => {
    const checks = checkCache(cache({ error: "permission denied", looks: [] }));
    expect(checks).toHaveLength(1);
    expectCheck(checks[0] as Check, "unknown", ["permission denied", "as the user"]);
  });

  test("that was looked at once is judged by what one look tells", () => {
    const checks = checkCache(cache({ looks: [look({ participants: [seat({ state: "frozen" })] })] }));
    expect(Object.fromEntries(checks.map(({ id, state }) => [id, state]))).toEqual({
      open: "ok",
      frozen: "warning",
      dead: "ok",
      seats: "ok",
      evictions: "unknown",
      near: "unknown",
      clock: "unknown",
    });
  });

  const frozen = (more: Partial<SeatReport> = {}): SeatReport => seat({ state: "frozen", ...more });
  const participants = (...seats: SeatReport[]): Partial<Look> => ({ participants: seats });
  const many = (length: number, more: Partial<SeatReport> = {}): Partial<Look> => {
    return { participants: Array.from({ length }, (_, at) => seat({ seat: at, pid: at === 0 ? 7 : 9, ...more })) };
  };
  const mib = (used: number | undefined) => [{ group: "/g", limit: 100 * MIB, used, pids: [7, 8] }];
  test.each<[string, string, Partial<CacheFacts>, Partial<Look>, Check["state"], string[]]>([
    ["open", "replaced", { isNamed: false }, {}, "problem", [FILE.path, "removed or replaced", "restart"]],
    ["frozen", "idle", {}, participants(frozen()), "warning", ["process 100 is stopped", "kill -CONT 100"]],
    ["frozen", "a worker", {}, participants(frozen({ threadId: 3 })), "warning", ["process 100 (worker 3) is stopped"]],
    [
      "frozen",
      "unseen",
      {},
      participants(seat({ state: "unknown" })),
      "unknown",
      ["1 participant runs", "where they run"],
    ],
    [
      "frozen",
      "with a lock for which two wait",
      {},
      {
        ...participants(frozen()),
        holds: [
          hold({ name: "report", hash: "a" }),
          hold({ name: "report", hash: "a", seat: 1, pending: true }),
          hold({ name: "report", hash: "a", seat: 2, pending: true }),
          hold({ name: "other", hash: "b", seat: 2, pending: true }),
        ],
      },
      "problem",
      ['process 100 is stopped and holds the lock "report", for which 2 others wait', "kill -KILL 100"],
    ],
    [
      "frozen",
      "while it waits",
      {},
      { ...participants(frozen()), holds: [hold({ name: "report", hash: "a", pending: true })] },
      "warning",
      ["process 100 is stopped"],
    ],
    [
      "frozen",
      "with all that can be held",
      {},
      {
        ...participants(frozen({ writing: true, hazard: 5 })),
        holds: [
          hold({ kind: "load", hash: "ab" }),
          hold({ kind: "bucket", number: 4 }),
          hold({ kind: "segment", number: 5 }),
        ],
      },
      "problem",
      [
        "holds the load of a key (hash ab), bucket 4 of the index, segment 5 of the memory, a large value that is half written",
      ],
    ],
    [
      "frozen",
      "by version 2 of control groups",
      {},
      participants(frozen({ freezer: "/sys/fs/cgroup/w/cgroup.freeze" })),
      "warning",
      ["stopped by the freezer of its control group", "echo 0 > /sys/fs/cgroup/w/cgroup.freeze", "does not help"],
    ],
    [
      "frozen",
      "by version 1, beside one that a signal has stopped",
      {},
      participants(frozen({ freezer: "/sys/fs/cgroup/freezer/w/freezer.state" }), frozen({ seat: 1, pid: 7 })),
      "warning",
      ["echo THAWED > /sys/fs/cgroup/freezer/w/freezer.state", "kill -CONT 7)"],
    ],
    ["dead", "left", {}, participants(seat({ state: "dead" }), SEAT), "ok", ["1 (process 100): the next participant"]],
    ["seats", "all", {}, many(64), "problem", ["64 of 64", "nobody else can open", "process 9 has 63"]],
    ["seats", "nearly all", {}, many(58), "warning", ["58 of 64", "process 9 has 57"]],
    ["seats", "many", {}, many(57), "ok", ["57 of 64"]],
    ["seats", "of the dead are free", {}, many(64, { state: "dead" }), "ok", ["0 of 64"]],
    [
      "participants-memory",
      "just enough",
      { groups: mib(90 * MIB) },
      {},
      "ok",
      ["processes 7, 8: 90 MiB are used of 100 MiB"],
    ],
    [
      "participants-memory",
      "nearly used",
      { groups: mib(90 * MIB + 1) },
      {},
      "warning",
      ["processes 7, 8", "--memory"],
    ],
    ["participants-memory", "not told", { groups: mib(undefined) }, {}, "ok", ["100 MiB that are allowed"]],
  ])("%s: %s", (id, _, facts, second, state, texts) => {
    expectCheck(find(checkCache(cache(facts, second)), id), state, texts);
  });

  /** The finding about the size after a look with these counts. */
  test.each<[string, Partial<Look["stats"]>, Check["state"], string[]]>([
    [
      "half of the reads",
      { evictions: 20, hits: 499, misses: 501 },
      "problem",
      ["10 evictions a second, 49.9 % of 1,000"],
    ],
    ["most of the reads", { evictions: 20, hits: 500, misses: 500 }, "warning", ["50.0 % of 1,000 reads", "`ttl`"]],
    ["a few of the reads", { evictions: 20, hits: 800, misses: 200 }, "ok", ["80.0 %"]],
    ["nothing has to go", { evictions: 0, hits: 0, misses: 1000 }, "ok", []],
    ["too few reads to tell", { evictions: 20, hits: 0, misses: 99 }, "ok", []],
    ["just enough reads to tell", { evictions: 20, hits: 0, misses: 100 }, "problem", ["0.0 % of 100 reads"]],
    ["nothing was read", { evictions: 20 }, "ok", ["10 evictions a second, nothing was read"]],
  ])("evictions: %s", (_, counts, state, texts) => {
    expectCheck(find(checkCache(cache({}, { stats: { ...STATS, ...counts } })), "evictions"), state, texts);
  });

  test.each<[string, Partial<SeatReport>, Partial<SeatReport>, Check["state"], string[]]>([
    ["hardly any", {}, { hits: 1000, nearHits: 49 }, "problem", ["process 100: 4.9 % of 1,000 hits", "nearCache: 0"]],
    ["just enough", {}, { hits: 1000, nearHits: 50 }, "ok", ["1 participant "]],
    ["too few to tell", {}, { hits: 999, nearHits: 1 }, "ok", ["none was used enough"]],
    ["never one: it is off", {}, { hits: 5000, nearHits: 0 }, "ok", ["none was used enough"]],
    [
      "none now, hardly any before: it pauses",
      { hits: 10_000, nearHits: 100 },
      { hits: 20_000, nearHits: 100 },
      "warning",
      ["process 100: 0.5 % of 20,000 hits", "longer --interval"],
    ],
    ["none now, many before", { hits: 10_000, nearHits: 5000 }, { hits: 20_000, nearHits: 5000 }, "ok", []],
    ["another thread has the seat now", { pid: 99 }, { hits: 1000, nearHits: 1 }, "ok", ["none was used enough"]],
  ])("near hits: %s", (_, before, now, state, texts) => {
    const facts = cache({}, participants(seat(now)), participants(seat(before)));
    expectCheck(find(checkCache(facts), "near"), state, texts);
  });

  test.each<[string, number, number, Check["state"], string[]]>([
    ["as ours", FIRST + 500, SECOND - 500, "ok", ["1 participant "]],
    ["a second behind our first look", 1, FIRST - 1000, "ok", ["1 participant "]],
    ["more than that", 1, FIRST - 1001, "problem", ["process 100 is 3 s behind"]],
    ["a second ahead of our second look", 1, SECOND + 1000, "ok", ["1 participant "]],
    ["an hour ahead", 1, SECOND + 3_600_000, "problem", ["the clock of process 100 is 3,600 s ahead", "Give all"]],
    ["not asked meanwhile, and old", 5, 5, "ok", ["no participant has asked"]],
    ["never asked", 0, 0, "ok", ["no participant has asked"]],
  ])("clocks: %s", (_, before, now, state, texts) => {
    const facts = cache({}, participants(seat({ clock: now })), participants(seat({ clock: before })));
    expectCheck(find(checkCache(facts), "clock"), state, texts);
  });

  test.each<[string, CacheFacts["clocks"][number], string]>([
    [
      "libfaketime",
      { pid: 7, library: "/usr/lib/libfaketime.so.1", time: "-1h\x1b[2J" },
      "process 7 runs with /usr/lib/libfaketime.so.1 (FAKETIME=-1h\\x1b[2J)",
    ],
    ["a library that says nothing", { pid: 7, library: "/a", time: undefined }, "process 7 runs with /a: "],
    ["a time namespace", { pid: 7, library: undefined, time: undefined }, "process 7 is in another time namespace"],
  ])("clocks: %s", (_, clock, text) => {
    expectCheck(find(checkCache(cache({ clocks: [clock] })), "clock"), "problem", [text]);
  });
});

test("a clock is compared only when it was asked between two looks", () => {
  expect(clockShift(undefined, 0, 10_000, 20_000)).toBeUndefined();
  expect(clockShift(15_000, 15_000, 10_000, 20_000)).toBeUndefined();
  expect(clockShift(undefined, 15_000, 10_000, 20_000)).toBe(0);
  expect(clockShift(1, 8_999, 10_000, 20_000)).toBe(8_999 - 20_000);
  expect(clockShift(1, 21_001, 10_000, 20_000)).toBe(1_001);
});
