/**
 * Writes the results of a run as Markdown: the whole report, and the part that stands in the README.
 */

import { readFileSync } from "node:fs";
import os from "node:os";
import { ADAPTERS, labelOf } from "./adapters.mjs";
import { ratio } from "./coordinator.mjs";
import { evaluate } from "./targets.mjs";
import { DATA, WORKLOADS } from "./workloads.mjs";

/** The properties of the machine that affect the results. */
export function describeMachine() {
  const read = (file, pattern) => {
    try {
      return readFileSync(file, "utf8").match(pattern)?.[1];
    } catch {
      return undefined;
    }
  };
  const [cpu] = os.cpus();
  return {
    node: process.version,
    v8: process.versions.v8,
    os: read("/etc/os-release", /^PRETTY_NAME="(.*)"$/m) ?? os.type(),
    kernel: os.release(),
    architecture: process.arch,
    processor: cpu?.model ?? "unknown processor",
    cores: os.cpus().length,
    memory: os.totalmem(),
    load: os.loadavg()[0],
  };
}

export function time(ns) {
  if (ns < 100) return `${ns.toFixed(1)} ns`;
  if (ns < 10_000) return `${Math.round(ns).toLocaleString("en")} ns`;
  if (ns < 1e6) return `${(ns / 1e3).toPrecision(3)} µs`;
  return `${(ns / 1e6).toPrecision(3)} ms`;
}

function multiple(value) {
  if (value === undefined) return "–";
  return value >= 10 ? value.toFixed(0) : value >= 1 ? value.toFixed(1) : value.toFixed(2);
}

const bytes = (value) => (value === undefined ? "–" : `${Math.round(value)} B`);

/** A Markdown table; the first `texts` columns are text, the others numbers. */
export function table(head, rows, texts = 1) {
  const line = (cells) => `| ${cells.join(" | ")} |`;
  const rule = `|${head.map((_, column) => (column < texts ? "---|" : "---:|")).join("")}`;
  return [line(head), rule, ...rows.map(line)].join("\n");
}

const bold = (id, text) => (ADAPTERS[id].ours ? `**${text}**` : text);
const named = (id, dataName) => `${bold(id, labelOf(id, dataName))} (${ADAPTERS[id].reach})`;
/** The lmdb adapter that this data is compared with. */
const lmdbFor = (dataName) => (dataName === "object" ? "lmdb-msgpack" : "lmdb");

/** "node v20.20.2, AMD EPYC, 2 cores …" */
export function machineLine({ node, v8, os: system, kernel, architecture, processor, cores, memory }) {
  const size = `${Math.round(memory / 2 ** 30)} GiB`;
  return `Node.js ${node} (V8 ${v8}), ${processor}, ${cores} cores, ${size}, ${system}, Linux ${kernel}, ${architecture}`;
}

export function markdown(results) {
  const { machine, settings, date, skipped } = results;
  const parts = [
    "# Speed",
    `${date}. ${machineLine(machine)}; load before the run ${machine.load.toFixed(1)}.`,
    `${settings.rounds} interleaved rounds of ${settings.ms} ms each; medians. Multiples are of throughput, taken within a ` +
      "round, so more than 1 is faster. 100,000 keys like `user:123456`, zipfian with exponent 0.99 (where it says so " +
      "fewer, so that all caches fit into memory), all of them stored. Each adapter runs in a process of its own. A private cache " +
      "returns the stored object itself, and no other thread has it. lmdb and SQLite run without fsync in /dev/shm; within a " +
      "loop that does not return to the event loop, lmdb reads from one snapshot, so it does not see what others store. " +
      "redis and memcached listen on a Unix socket and are asked through a minimal client, one request at a time or 64 at " +
      "once.",
  ];
  if (settings.clock === "cpu") parts.push("**By CPU time, not by the clock: not for publication.**");
  if (skipped.length) parts.push(skipped.map((line) => `- Skipped: ${line}`).join("\n"));
  parts.push(targets(results));
  for (const [dataName, workloads] of Object.entries(results.speed ?? {})) parts.push(speedTables(dataName, workloads));
  for (const part of [looking, batches, together, reclaim, latency, memory, opening, hits, coordinate]) {
    const text = results[part.name] && part(results[part.name]);
    if (text) parts.push(text);
  }
  return `${parts.join("\n\n")}\n`;
}

function targets(results) {
  const rows = evaluate(results).map(({ what, goal, measured, reached, met, of }) => [
    what,
    goal,
    measured,
    reached === undefined ? "–" : reached ? "yes" : met ? `${met} of ${of}` : "**no**",
  ]);
  return `## Targets\n\n${table(["operation", "target", "measured", "reached"], rows, 4)}`;
}

function speedTables(dataName, workloads) {
  const ids = [...new Set(Object.values(workloads).flatMap((measured) => Object.keys(measured)))];
  const cell = (measured, id) => {
    if (!measured[id]) return "–";
    const ratios = ["lru", lmdbFor(dataName)].map((other) => multiple(ratio(measured, id, other)));
    return `${time(measured[id].ns)} (${ratios.join(", ")})`;
  };
  const head = [DATA[dataName].label, ...Object.keys(workloads).map((name) => WORKLOADS[name])];
  const rows = ids.map((id) => [
    named(id, dataName),
    ...Object.values(workloads).map((measured) => cell(measured, id)),
  ]);
  const { label, keys } = DATA[dataName];
  const title = `## ${label[0].toUpperCase()}${label.slice(1)}, ${keys.toLocaleString("en")} keys`;
  return `${title}\n\nTime (× lru-cache, × ${labelOf(lmdbFor(dataName), dataName)}).\n\n${table(head, rows)}`;
}

function looking(all) {
  const rows = Object.entries(all).flatMap(([dataName, workloads]) =>
    Object.entries(workloads).map(([workload, { near, far }]) => [
      `${DATA[dataName].label}, ${DATA[dataName].keys.toLocaleString("en")} keys`,
      workload === "built" ? "zipfian" : WORKLOADS[workload].slice("get, ".length),
      time(near.ns),
      time(far.ns),
      ratio({ near, far }, "near", "far").toFixed(2),
    ]),
  );
  const head = ["get, key built per call", "asked for", "near cache on", "off", "× off"];
  const note =
    "Where reads hardly ever find a value in the near cache, it goes into cooldown: reads do not ask it, except in sampling windows from time to time. The rounds are short and begin with the first reads, so the first sampling windows, of up to 65,536 reads each, weigh more here than later ones.";
  return `## What the near cache gains and costs\n\n${note}\n\n${table(head, rows, 2)}`;
}

function batches(all) {
  const pairs = { getMany: "singles", scatteredMany: "scattered", rateLimit: "increment" };
  const rows = Object.entries(all).flatMap(([dataName, workloads]) =>
    Object.entries(workloads).map(([workload, { near, far }]) => {
      const other = workloads[pairs[workload]];
      const times = (id) => (other === undefined ? "" : (other[id].ns / workloads[workload][id].ns).toFixed(2));
      const what =
        dataName === "few" ? "1,000 keys" : `${DATA[dataName].label}, ${DATA[dataName].keys.toLocaleString("en")} keys`;
      return [what, WORKLOADS[workload], time(near.ns), times("near"), time(far.ns), times("far")];
    }),
  );
  const head = ["data", "operation", "near cache on", "× one by one", "off", "× one by one"];
  const note =
    "Nanoseconds for each key. The factor of `getMany` compares it with single gets of the same keys, that of `rateLimit` with `increment`.";
  return `## Many keys at once, and limits\n\n${note}\n\n${table(head, rows, 2)}`;
}

function together({ processes, workers }) {
  const block = (title, workloads) => {
    const ids = Object.keys(Object.values(workloads)[0] ?? {});
    const head = [title, ...Object.keys(workloads).flatMap((name) => [`${WORKLOADS[name]}: one`, "two", "two / one"])];
    const rows = ids.map((id) => [
      named(id, "s100"),
      ...Object.values(workloads).flatMap(({ [id]: { alone, together: both, gain } }) => [
        alone.toFixed(2),
        both.toFixed(2),
        multiple(gain),
      ]),
    ]);
    return table(head, rows);
  };
  return [
    "## One and two at once",
    "Operations per microsecond, strings of 100 B; lru-cache has a cache of its own in each of the two.",
    block("processes", processes),
    block("workers", workers),
  ].join("\n\n");
}

function reclaim({ cases, set, heavy, latency: times, stats }) {
  const rows = Object.entries(cases).map(([id, what]) => {
    const measured = set[id];
    if (!measured) return [what, "–", "–", "–", "–", "–", "–", "–"];
    const { p50, p99, p999, max } = times[id];
    const happened = stats.latency[id];
    return [
      what,
      time(measured.ns),
      multiple(ratio(set, id, "none")),
      time(heavy[id].ns),
      [p50, p99, p999].map(time).join(" · "),
      time(max),
      multiple(p999 / p50),
      happened ? `${happened.reclaims.toLocaleString("en")}, ${happened.evictions.toLocaleString("en")}` : "–",
    ];
  });
  const head = [
    "strings of 100 B, zipfian",
    "set",
    "× without reclaim",
    "50 % get, 50 % set",
    "set: p50 · p99 · p99.9",
    "longest",
    "p99.9 / p50",
    "segments reclaimed, entries evicted",
  ];
  const disturbed = stats.set.none?.reclaims
    ? "\n\nThe cache of the first line was to reclaim nothing, but it did. So the multiples above do not compare with a cache without reclaim."
    : "";
  return `## Writing while memory is reclaimed\n\n${table(head, rows)}${disturbed}`;
}

function latency(workloads) {
  const floor = Object.values(workloads.get)[0].floor;
  const ids = Object.keys(workloads.get);
  const head = [
    "strings of 100 B",
    ...Object.keys(workloads).flatMap((name) => [`${name}: p50`, "p99", "p99.9", "longest"]),
  ];
  const rows = ids.map((id) => [
    named(id, "s100"),
    ...Object.values(workloads).flatMap(({ [id]: { p50, p99, p999, max } }) => [p50, p99, p999, max].map(time)),
  ]);
  const note = `Each operation by itself. Each time contains one reading of the clock, which takes ${time(floor)}.`;
  return `## Latency\n\n${note}\n\n${table(head, rows)}`;
}

function memory({ count, entries, smallest }) {
  const rows = Object.entries(entries).map(([id, { shared, live, each }]) => {
    const once = ADAPTERS[id].ours ? smallest.bytes / smallest.held : shared;
    return [
      named(id, "s100"),
      bytes(once),
      bytes(live),
      bytes(each),
      bytes(each === undefined ? undefined : (once ?? 0) + 4 * each),
    ];
  });
  const head = [
    "bytes per entry",
    "once, for all",
    "of which entries",
    "in each process that has read everything",
    "four processes in all",
  ];
  const note =
    `${count.toLocaleString("en")} strings of 100 B under keys of 11 B. Once, for all: of cache-machine the smallest cache ` +
    `that holds 99.9 % of them (${(smallest.bytes / 2 ** 20).toFixed(1)} MiB, ${smallest.held.toLocaleString("en")} entries), ` +
    "with the index and all other tables; of lmdb and SQLite the files; of redis and memcached the growth of their process. In " +
    "each process: the growth of its heap, for cache-machine mainly the near cache.";
  return `## Memory\n\n${note}\n\n${table(head, rows)}`;
}

function opening(all) {
  const micro = (value) => (value === undefined ? "–" : time(value * 1000));
  const rows = Object.entries(all).map(([id, { load, create, attach, first }]) => [
    named(id, "s100"),
    ...[load, create, attach, first].map(micro),
  ]);
  const head = ["in a fresh process, or worker", "load the package", "create", "open an existing one", "first get"];
  return `## Opening\n\n${table(head, rows)}`;
}

function hits({ unit, size, count, seed, traces }) {
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  const rows = Object.entries(traces).map(([name, { held, ours, s3fifo, lru, clock }]) => [
    name,
    held.toLocaleString("en"),
    percent(ours),
    percent(s3fifo),
    percent(lru),
    percent(clock),
  ]);
  const note =
    `A cache of ${size >> 20} MiB; the reference policies have room for as many entries as this cache held on average on that trace. ` +
    `${count.toLocaleString("en")} requests each, seed ${seed}, the first third warms up; the traces are made for a ` +
    `cache of ${unit.toLocaleString("en")} entries (\`bench/traces.mjs\`).`;
  const head = ["trace", "entries", "cache-machine", "S3-FIFO", "LRU", "CLOCK"];
  return `## Hit ratio\n\n${note}\n\n${table(head, rows)}`;
}

function coordinate({ loops, between }) {
  const rows = Object.values(loops).map(({ label, ns }) => [label, time(ns)]);
  const waits = Object.values(between).map(({ label, p50, p99, samples }) => [
    label,
    ...[p50, p99].map(time),
    samples.toLocaleString("en"),
  ]);
  return [
    "## Coordination",
    "In one process, 1,024 keys with strings of 100 B, all of them near; limits for 1,024 clients, none of which is reached:",
    table(["operation", "time"], rows),
    "Between processes, on a machine that does nothing else meanwhile:",
    table(["from → to", "median", "99 % within", "samples"], waits),
  ].join("\n\n");
}

/** A table that compares adapters in some workloads: times, and multiples of the throughput of lmdb and lru-cache. */
function comparison(results, dataName, shown, names) {
  const workloads = results.speed[dataName];
  const lmdb = lmdbFor(dataName);
  const cells = (measured, id) =>
    measured?.[id]
      ? [time(measured[id].ns), multiple(ratio(measured, id, lmdb)), multiple(ratio(measured, id, "lru"))]
      : ["–", "–", "–"];
  const head = [DATA[dataName].label, ...names.flatMap((name) => [WORKLOADS[name], "× lmdb", "× lru-cache"])];
  const rows = shown
    .filter((id) => names.some((name) => workloads[name]?.[id]))
    .map((id) => [named(id, dataName), ...names.flatMap((name) => cells(workloads[name], id))]);
  return table(head, rows);
}

const SERVERS = ["sqlite", "sqlite-builtin", "redis", "memcached", "ipc"];

/** The text between the markers in the README. */
export function readmePart(results) {
  const { processor, cores, node } = results.machine;
  const parts = [
    "![Time per operation, on a logarithmic scale](bench/results/speed.svg)",
    `100,000 keys, zipfian, one process, Node.js ${node.slice(1)} on ${cores} cores of ${processor}; medians of ` +
      `${results.settings.rounds} interleaved rounds, throughput as a multiple of lmdb's and of lru-cache's in the same ` +
      "round. `npm run bench` makes the whole report: other sizes, two processes at once, latency, memory, hit ratio.",
    comparison(
      results,
      "s100",
      ["map", "lru", "near", "near-all", "far", "threads", "lmdb", "lmdb-batched", "sharedmap", ...SERVERS],
      ["get", "built", "set"],
    ),
  ];
  if (results.speed.few) {
    parts.push("With 1,000 keys, which the processor's caches hold:");
    parts.push(comparison(results, "few", ["map", "lru", "near", "far", "lmdb"], ["get", "built", "set"]));
  }
  if (results.speed.object) {
    const shown = ["map", "lru", "frozen", "near", "lmdb-cache", "lmdb-msgpack", "sharedmap", ...SERVERS];
    parts.push(comparison(results, "object", shown, ["get", "set"]));
  }
  parts.push(
    "With a key at hand, and for sets, a private cache is faster. " +
      "[All results, and what was aimed at and not reached](bench/results/report.md); " +
      "[where the nanoseconds go](docs/performance.md).",
  );
  return parts.join("\n\n");
}
