/**
 * Measures how the time of an operation grows with the number of entries, and with the number of participants:
 *
 *   npm run bench:growth, or, when everything is built and installed, node --expose-gc bench/growth.mjs [flags]
 *
 *   --entries 1000,1000000   only these numbers of entries (1,000 to 10,000,000); none with `--entries ""`
 *   --participants 1,100     only these numbers of participants (1 to 1,000); none with `--participants ""`
 *   --adapters far,lru       only these adapters (near far lru lmdb)
 *   --rounds 7 --ms 60       rounds, and milliseconds of each
 *   --out folder             where growth.md, growth.json and growth.svg go (bench/results, if nothing is left out)
 *   --from growth.json       measures nothing, and writes the report from this file
 *
 * Entries: strings of 100 B under keys like `user:123456`, which are built for each call, so that no loop has them at hand.
 * Each cache is large enough to keep all of them. Participants: worker threads of one process that have opened the cache and
 * do nothing, while the main thread is measured. The whole needs 12 GiB of memory and takes about eight minutes on two cores.
 */

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { ADAPTERS } from "./adapters.mjs";
import { curves } from "./chart.mjs";
import { interleave, median, ratio, start } from "./coordinator.mjs";
import { describeMachine, machineLine, table, time } from "./report.mjs";
import { ascii, loops, madeEntries } from "./workloads.mjs";
import { createWorkspace } from "./workspace.mjs";

const ENTRIES = [1000, 10_000, 100_000, 1_000_000, 3_000_000, 10_000_000];
const PARTICIPANTS = [1, 10, 100, 300, 1000];
const IDS = ["near", "far", "lru", "lmdb"];
const WORKLOADS = {
  built: "get, zipfian",
  uniform: "get, uniform",
  setBuilt: "set, zipfian",
  setUniform: "set, uniform",
};
/** lmdb takes minutes to store more entries than this in random order. */
const MOST_IN_LMDB = 3_000_000;
/** Bytes of a cache for each entry. Entries take about 186 B. */
const ROOM = 320;
const SMALLEST = 4 << 20;

// ---- one participant with so many entries: a process that coordinator.mjs asks

const gc = globalThis.gc ?? (() => {});
let cache;
let data;
let sink = 0;

function timed(workload, from, ops) {
  const began = process.hrtime.bigint();
  sink += loops[workload](cache, data, from, ops);
  return Number(process.hrtime.bigint() - began);
}

const commands = {
  async open({ adapter, context, count, orderFile }) {
    const order = new Uint32Array(Uint8Array.from(readFileSync(orderFile)).buffer);
    const values = Array.from({ length: Math.min(count, 65_536) }, (_, i) => ascii(i, 100));
    data = { count, order, mask: order.length - 1, values, weigh: (value) => value?.length ?? 0 };
    cache = await ADAPTERS[adapter].open({ ...context, type: "text", count, longest: 100 });
    const entries = madeEntries(count, (i) => ascii(i, 100));
    if (cache.fill) await cache.fill(entries);
    else for (const [key, value] of entries) cache.set(key, value);
    return { evictions: cache.stats?.().evictions ?? 0 };
  },

  /** Runs a workload until it is compiled, and returns how many operations take `ms` milliseconds. */
  warm({ workload, ms }) {
    let ops = 1000;
    for (let took = 0; took < ms * 1e6; ops *= 2) took = timed(workload, 0, ops);
    for (let i = 1; i < 12; i++) timed(workload, i * ops, ops >> 1);
    return { ops: ops >> 1 };
  },

  round({ workload, start: from, ops }) {
    gc();
    timed(workload, from + ops, ops >> 2);
    const ns = timed(workload, from, ops) / ops;
    if (sink === 0) throw new Error("nothing was read");
    return { ns };
  },

  async close() {
    await cache?.close?.();
    return {};
  },
};

// ---- the coordinator

async function main() {
  const text = { type: "string" };
  const { values: flags } = parseArgs({
    options: { entries: text, participants: text, adapters: text, rounds: text, ms: text, out: text, from: text },
  });
  const numbers = (given, all) => (given === undefined ? all : given.split(",").filter(Boolean).map(Number));
  const settings = { rounds: Number(flags.rounds ?? 7), ms: Number(flags.ms ?? 60) };
  let results;
  if (flags.from) results = JSON.parse(readFileSync(flags.from, "utf8"));
  else {
    results = { date: new Date().toISOString().slice(0, 16).replace("T", " "), machine: describeMachine(), settings };
    results.entries = {};
    for (const count of numbers(flags.entries, ENTRIES)) {
      results.entries[count] = await withEntries(count, flags.adapters?.split(",") ?? IDS, settings);
    }
    results.participants = await withParticipants(numbers(flags.participants, PARTICIPANTS), settings);
  }
  const isWhole = [flags.entries, flags.participants, flags.adapters].every((flag) => flag === undefined);
  if (!flags.out && !isWhole) return;
  const folder = path.resolve(flags.out ?? fileURLToPath(new URL("results", import.meta.url)));
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, "growth.json"), `${JSON.stringify(results, undefined, 1)}\n`);
  writeFileSync(path.join(folder, "growth.md"), markdown(results));
  writeFileSync(path.join(folder, "growth.svg"), drawn(results));
}

/** Time of each operation with this many entries, by workload and adapter. */
async function withEntries(count, ids, settings) {
  const workspace = createWorkspace();
  const participants = {};
  const results = {};
  try {
    for (const id of ids) {
      if (id === "lmdb" && count > MOST_IN_LMDB) continue;
      const participant = start(`${id}, ${count} entries`, new URL(import.meta.url));
      participants[id] = participant;
      const size = Math.ceil(Math.max(SMALLEST, count * ROOM) / 65_536) * 65_536;
      const context = workspace.context(`growth-${id}-${count}`, size);
      const { evictions } = await participant.ask("open", {
        adapter: id,
        context,
        count,
        orderFile: workspace.orderOf(count),
      });
      // A few entries may be in an index bucket that overflows.
      if (evictions > count / 1000) throw new Error(`${id}: ${evictions} evictions, so its cache is too small`);
    }
    for (const workload of Object.keys(WORKLOADS)) {
      results[workload] = await interleave(participants, workload, settings);
      const cells = Object.entries(results[workload]).map(([id, { ns }]) => `${id} ${time(ns)}`);
      console.log(`${count} entries, ${WORKLOADS[workload]}: ${cells.join(", ")}`);
    }
  } finally {
    await endAllOf(participants);
    await workspace.remove();
  }
  return results;
}

async function endAllOf(participants) {
  for (const participant of Object.values(participants)) await participant.end();
}

/**
 * What the main thread does while so many threads have the caches open; each returns how many operations it has made. Reading a `Map`
 * of the same keys is the control: it shares nothing, so what it takes longer is the machine, and not the cache.
 */
const OPERATIONS = {
  "`Map`": ({ map, next }) => repeat(2000, () => map.get(`user:${next(KEPT)}`)),
  "get, near cache off": ({ far, next }) => repeat(2000, () => far.get(`user:${next(KEPT)}`)),
  set: ({ far, next }) => repeat(2000, () => far.set(`user:${next(KEPT)}`, VALUE)),
  "set, in a full cache": ({ full, next }) => repeat(2000, () => full.set(`user:${next(TOO_MANY)}`, VALUE)),
  increment: ({ far }) => repeat(2000, () => far.increment("count")),
  lock: async ({ far }) => {
    for (let i = 0; i < 200; i++) await far.locks.request("lock", () => {});
    return 200;
  },
  stats: ({ far }) => repeat(20, () => far.stats()),
};
/** A cache of 64 MiB keeps so many of these entries, and evicts if there are as many as the second number says. */
const KEPT = 100_000;
const TOO_MANY = 1_000_000;
const VALUE = "v".repeat(100);

function repeat(times, operation) {
  for (let i = 0; i < times; i++) operation();
  return times;
}

/** Median time of each operation by the number of participants. */
async function withParticipants(counts, { rounds }) {
  const results = {};
  if (counts.length === 0) return results;
  const { openCache, destroyCache } = await import("../dist/index.js");
  const names = ["kept", "full"].map((name) => `bench-${process.pid}-${name}`);
  const [far, full] = names.map((name) => openCache(name, { size: "64mb", nearCache: 0 }));
  const workers = [];
  try {
    for (let i = 0; i < KEPT; i++) far.set(`user:${i}`, VALUE);
    for (let i = 0; i < TOO_MANY; i++) full.set(`user:${i}`, VALUE);
    let at = 0;
    const map = new Map(Array.from({ length: KEPT }, (_, i) => [`user:${i}`, VALUE]));
    const cast = { far, full, map, next: (keys) => (at = (at + 618_033) % keys) };
    const timesOfEach = async () => {
      const times = {};
      for (const [name, operation] of Object.entries(OPERATIONS)) {
        times[name] = [];
        for (let round = 0; round < 10 * rounds; round++) {
          const began = process.hrtime.bigint();
          const made = await operation(cast);
          times[name].push(Number(process.hrtime.bigint() - began) / made);
        }
      }
      return times;
    };
    // Compiled code, and pages of memory that this process has touched, or the first row would be of a process that has just started.
    for (let i = 0; i < 3; i++) await timesOfEach();
    for (const count of counts) {
      while (workers.length < count - 1) workers.push(await idle(names));
      // Twice, because threads that have just started still compile and collect in the background.
      const [first, second] = [await timesOfEach(), await timesOfEach()];
      results[count] = Object.fromEntries(
        Object.keys(OPERATIONS).map((name) => [name, median([...first[name], ...second[name]])]),
      );
      const opened = [];
      for (let round = 0; round < rounds; round++) {
        const worker = await idle(names.slice(0, 1));
        opened.push(worker.took * 1e6);
        await worker.end();
      }
      results[count]["open, in a new thread"] = median(opened);
      console.log(
        `${count} participants: ${Object.entries(results[count])
          .map(([name, ns]) => `${name} ${time(ns)}`)
          .join(", ")}`,
      );
    }
  } finally {
    await Promise.all(workers.map((worker) => worker.end()));
    for (const open of [far, full]) open.close();
    for (const name of names) destroyCache(name);
  }
  return results;
}

/** Starts a thread that opens the caches and then does nothing. `took` are the milliseconds of the opening. */
async function idle(names) {
  const worker = new Worker(new URL(import.meta.url), { workerData: { names } });
  const took = await new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
  const end = () =>
    new Promise((resolve) => {
      worker.once("exit", resolve);
      worker.postMessage("end");
    });
  return { took, end };
}

// ---- the report

function counted(count) {
  return Number(count).toLocaleString("en");
}

function markdown({ date, machine, settings, entries, participants }) {
  const times = (value) => (value === undefined ? "–" : value.toFixed(2));
  const rows = Object.entries(WORKLOADS).flatMap(([workload, label]) =>
    Object.keys(entries).map((count) => {
      const all = entries[count][workload];
      const ratios = ["near", "far"].flatMap((id) => ["lru", "lmdb"].map((other) => times(ratio(all, id, other))));
      return [label, counted(count), ...IDS.map((id) => (all[id] ? time(all[id].ns) : "–")), ...ratios];
    }),
  );
  const head = ["", "entries", ...IDS.map((id) => ADAPTERS[id].label)];
  const parts = [
    "# Growth",
    `${date}. ${machineLine(machine)}; load before the run ${machine.load.toFixed(1)}.`,
    `${settings.rounds} interleaved rounds of ${settings.ms} ms each; medians. Strings of 100 B; each key is built for its call. ` +
      "Multiples are of throughput, taken within a round, so more than 1 is faster.",
    "![Time per operation by the number of entries](growth.svg)",
    "## By the number of entries",
    table([...head, "near × lru-cache", "near × lmdb", "off × lru-cache", "off × lmdb"], rows, 1),
  ];
  const counts = Object.keys(participants);
  if (counts.length > 0) {
    const names = Object.keys(participants[counts[0]]);
    parts.push(
      "## By the number of participants",
      "Participants are threads of one process. One of them is measured; the others have the caches open and do nothing. The full " +
        "cache has 64 MiB for a million entries, so each `set` evicts. `Map`, the control, is the reading of a private `Map` of as many " +
        "keys: what it takes longer is the machine.",
      table(
        ["participants", ...names],
        counts.map((count) => [counted(count), ...names.map((name) => time(participants[count][name]))]),
      ),
    );
  }
  return `${parts.join("\n\n")}\n`;
}

function drawn({ entries, machine }) {
  const counts = Object.keys(entries).map(Number);
  const panels = Object.entries(WORKLOADS).map(([workload, title]) => ({
    title,
    lines: IDS.map((id) => ({ id, points: counts.map((count) => [count, entries[count][workload][id]?.ns]) })),
  }));
  return curves(
    panels,
    `Time per operation by the number of entries, both logarithmic; strings of 100 B, Node.js ${machine.node.slice(1)}.`,
  );
}

// ---- who runs this file

if (isMainThread && process.send !== undefined) {
  process.on("message", async ({ id, command, ...message }) => {
    if (command === undefined) return;
    try {
      process.send({ id, result: await commands[command](message) });
    } catch (error) {
      process.send({ id, error: error.stack });
    }
  });
  process.on("disconnect", () => process.exit());
} else if (!isMainThread) {
  const { openCache } = await import("../dist/index.js");
  const began = performance.now();
  const opened = workerData.names.map((name) => openCache(name));
  const took = performance.now() - began;
  for (const each of opened) each.get("user:123456");
  parentPort.once("message", () => {
    for (const each of opened) each.close();
  });
  parentPort.postMessage(took);
} else await main();
