/**
 * The performance targets, and whether a run reached them. A target that was not measured (its peer is not installed, or its
 * part was left out) is neither reached nor missed.
 */

import { ADAPTERS } from "./adapters.mjs";
import { median, ratio } from "./coordinator.mjs";

const STRINGS = ["s16", "s100", "s1k"];

/** Throughput of `id` as a multiple of the throughput of `other`, for each set of data. */
const times = (id, other, workload, data) => (results) =>
  data.map((dataName) => ratio(results.speed?.[dataName]?.[workload], id, other));

/** Throughput of `id` as a multiple of the fastest peer that returns copies too. */
const timesFastestCopy = (id, workload, dataName) => (results) => {
  const measured = results.speed?.[dataName]?.[workload] ?? {};
  const copies = Object.keys(measured).filter((peer) => !ADAPTERS[peer].ours && !ADAPTERS[peer].shares);
  const fastest = copies.sort((a, b) => measured[a].ns - measured[b].ns)[0];
  return [fastest && ratio(measured, id, fastest)];
};

const togetherWith = (id, other) => (results) => {
  const { [id]: mine, [other]: theirs } = results.together?.processes.mixed ?? {};
  if (!mine || !theirs) return [undefined];
  return [median(mine.rounds.together.map((both, round) => both / theirs.rounds.together[round]))];
};

const atLeast = (bound, unit, measure, aim) => ({
  goal: `≥ ${bound}${unit}${aim ? ` (aim ${aim})` : ""}`,
  measure,
  show: (value) => value.toFixed(value < 10 ? 2 : 1),
  reached: (value) => value >= bound,
  unit,
});
const lru = (bound, id, workload, data, aim) => atLeast(bound, " × lru-cache", times(id, "lru", workload, data), aim);
const lmdb = (bound, id, workload, data) => atLeast(bound, " × lmdb", times(id, "lmdb", workload, data));

/** Difference between the hit ratios of this package and of a policy in percentage points, for each trace. */
const above = (policy) => (results) =>
  Object.values(results.hits?.traces ?? { none: {} })
    .map((trace) => 100 * (trace.ours - trace[policy]))
    .map((points) => (Number.isNaN(points) ? undefined : points));

const TARGETS = [
  [
    "get, strings 16 B · 100 B · 1 KiB, near cache on",
    lru(1, "near", "get", STRINGS, 1.3),
    lmdb(2.5, "near", "get", STRINGS),
  ],
  ["get, strings of 100 B, key built per call, near cache on", lru(1.3, "near", "built", ["s100"])],
  [
    "get, strings 16 B · 100 B · 1 KiB, near cache off",
    lru(0.75, "far", "get", STRINGS),
    lmdb(2, "far", "get", STRINGS),
  ],
  ["get, string of 16 KiB, near cache off", lmdb(3, "far", "get", ["s16k"])],
  [
    "get, object, frozen and shared",
    lru(1, "frozen", "get", ["object"], 1.3),
    atLeast(4, " × lmdb without its cache", times("frozen", "lmdb-msgpack", "get", ["object"])),
  ],
  ["get, object, copied", atLeast(1.3, " × the fastest peer that copies", timesFastestCopy("near", "get", "object"))],
  ["get, miss, strings 16 B · 100 B · 1 KiB", lru(0.6, "near", "miss", STRINGS)],
  [
    "set, strings 16 B · 100 B · 1 KiB",
    lru(0.8, "near", "set", STRINGS),
    lmdb(10, "near", "set", STRINGS),
    atLeast(4, " × node-shared-cache", times("near", "node-shared-cache", "set", STRINGS)),
  ],
  [
    "95 % get, 5 % set, two processes together",
    atLeast(1.8, " × one process alone", (results) => [results.together?.processes.mixed.near?.gain]),
    atLeast(5, " × lmdb's two", togetherWith("near", "lmdb")),
  ],
  [
    "set while reclaim runs all the time",
    atLeast(0.5, " × set without it", (results) => [results.reclaim && ratio(results.reclaim.set, "always", "none")]),
    {
      goal: "p99.9 < 20 × the median",
      measure: ({ reclaim }) => [reclaim && reclaim.latency.always.p999 / reclaim.latency.always.p50],
      show: (value) => `${value.toFixed(1)} × the median`,
      reached: (value) => value < 20,
    },
  ],
  [
    "memory, 100,000 × 100 B, once for all processes",
    {
      goal: "< 200 B per entry",
      measure: ({ memory }) => [memory && memory.smallest.bytes / memory.smallest.held],
      show: (value) => `${value.toFixed(0)} B`,
      reached: (value) => value < 200,
    },
  ],
  [
    "hit ratio on traces",
    {
      goal: "within 1 point of the reference S3-FIFO",
      measure: above("s3fifo"),
      show: (value) => `${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(1)}`,
      reached: (value) => value >= -1,
      unit: " points",
    },
    {
      goal: "above LRU",
      measure: above("lru"),
      show: (value) => `${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(1)}`,
      reached: (value) => value > 0,
      unit: " points",
    },
  ],
];

const loopsOf = (results) => results.coordinate?.loops ?? {};

/** Time of a loop as a multiple of the time of another, within the rounds. */
const timesLoop = (id, other) => (results) => {
  const { [id]: mine, [other]: theirs } = loopsOf(results);
  return [mine && theirs && median(mine.rounds.map((ns, round) => ns / theirs.rounds[round]))];
};

/** Nanoseconds that a loop takes more than another, within the rounds. */
const moreThan = (id, other) => (results) => {
  const { [id]: mine, [other]: theirs } = loopsOf(results);
  return [mine && theirs && median(mine.rounds.map((ns, round) => ns - theirs.rounds[round]))];
};

const atMost = (bound, unit, measure, { goal = `≤ ${bound}${unit}`, scale = 1 } = {}) => ({
  goal,
  measure: (results) => measure(results).map((value) => value && value / scale),
  show: (value) => value.toFixed(value < 10 ? 2 : 0),
  reached: (value) => value <= bound,
  unit,
});
const loopTime = (id) => (results) => [loopsOf(results)[id]?.ns];
const between = (id, share) => (results) => [results.coordinate?.between[id]?.[share]];
const micros = (bound, id, share) =>
  atMost(bound, " µs", between(id, share), { goal: `${share} < ${bound} µs`, scale: 1e3 });
const millis = (bound, id, share) =>
  atMost(bound, " ms", between(id, share), { goal: `${share} < ${bound} ms`, scale: 1e6 });

/** A label of waking.mjs. */
const WAITFOR = "set → waitFor in another process";

/** The targets of coordination.mjs and waking.mjs. */
export const COORDINATION = [
  ["getOrSet, a hit", atMost(100, " ns", moreThan("getOrSet", "get"), { goal: "≤ 100 ns more than get" })],
  ["get ?? await getOrSet, a hit", atMost(1.05, " × get", timesLoop("getThenGetOrSet", "get"))],
  ["set, 64 wait for other keys in another process", atMost(1.25, " × set", timesLoop("setOthersWait", "set"))],
  ["set, 64 wait for other keys in this thread", atMost(1.25, " × set", timesLoop("setOwnWait", "set"))],
  ["a lock that nobody holds, taken and given back", atMost(5, " µs", loopTime("lock"), { scale: 1e3 })],
  ["a lock, handed over between processes", micros(200, "handover", "p50")],
  ["rateLimit, gcra", atMost(1.5, " × increment", timesLoop("gcra", "increment"))],
  [WAITFOR, micros(100, WAITFOR, "p50"), millis(5, WAITFOR, "p99")],
  ["a load's end → getOrSet in another process", micros(100, "joined", "p50"), millis(5, "joined", "p99")],
  ["kill -9 of the loading process → another one loads", millis(200, "killedLoad", "p99")],
];

/** `[{ what, goal, measured, reached: true | false | undefined }]`. */
export function evaluate(results, list = [...TARGETS, ...COORDINATION]) {
  return list.flatMap(([what, ...criteria]) =>
    criteria.map(({ goal, measure, show, reached, unit = "" }) => {
      const values = measure(results);
      if (values.some((value) => value === undefined)) return { what, goal, measured: "not measured" };
      const met = values.filter(reached).length;
      const measured = values.map(show).join(" · ") + unit;
      return { what, goal, measured, reached: met === values.length, met, of: values.length };
    }),
  );
}
