/**
 * Compares this cache with others: `npm run bench`, or, when everything is built and installed,
 * `node --expose-gc bench/run.mjs [flags]`. Takes about twelve minutes on two cores.
 *
 *   --quick              the core in under a minute: Map, lru-cache, lmdb, this cache with and without its near cache;
 *                        get, miss and set of strings
 *   --only speed,hits    only these measurements (speed looking batches together reclaim latency memory opening hits
 *                        coordinate); writes no report without --out
 *   --data s100,object   only these data (s16 s100 few many s1k s16k cyrillic object buffer4k)
 *   --adapters near,lru  only these adapters (see adapters.mjs)
 *   --workloads get,set  only these workloads (get built miss set mixed uniform scan)
 *   --rounds 5 --ms 40   rounds, and milliseconds of each
 *   --seed 1             of the traces
 *   --cpu                by CPU time instead of the clock: for a busy machine, and only for speed without servers
 *   --out folder         where the report goes: report.md, report.json, speed.svg (bench/results, if nothing is left out)
 *   --from report.json   measures nothing, and writes the report from this file
 *   --write-readme       puts the table into README.md, between its markers
 */

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { ADAPTERS } from "./adapters.mjs";
import { chart } from "./chart.mjs";
import { coordinate } from "./coordination.mjs";
import { endAll, endRunning, ratio } from "./coordinator.mjs";
import { hits } from "./hit-ratio.mjs";
import { batches, latency, looking, memory, opening, probe, reclaim, speed, together } from "./measurements.mjs";
import { describeMachine, markdown, readmePart } from "./report.mjs";
import { startServers } from "./servers.mjs";
import { COORDINATION, evaluate } from "./targets.mjs";
import { DATA, WORKLOADS } from "./workloads.mjs";
import { createWorkspace } from "./workspace.mjs";

const PARTS = { speed, looking, batches, together, reclaim, latency, memory, opening, hits, coordinate };
const QUICK = {
  parts: ["speed"],
  data: ["s16", "s100", "s1k"],
  adapters: ["map", "lru", "near", "far", "lmdb"],
  workloads: ["get", "built", "miss", "set"],
};

const text = { type: "string" };
const { values: flags } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    only: text,
    data: text,
    adapters: text,
    workloads: text,
    rounds: text,
    ms: text,
    seed: text,
    out: text,
    from: text,
    cpu: { type: "boolean", default: false },
    "write-readme": { type: "boolean", default: false },
  },
});

function list(given, known, fallback) {
  const names = given?.split(",") ?? fallback;
  for (const name of names) {
    if (!(name in known)) throw new Error(`unknown: ${name}; known are ${Object.keys(known).join(" ")}`);
  }
  return names;
}

const say = (line = "") => console.log(line);
const README = fileURLToPath(new URL("../README.md", import.meta.url));
const MARKERS = /(<!-- bench:start -->)[\s\S]*?(<!-- bench:end -->)/;

/** Prints the results of one workload. */
function progress(dataName, workload, measured) {
  say(`${WORKLOADS[workload]}, ${DATA[dataName].label}`);
  const lmdb = dataName === "object" ? "lmdb-msgpack" : "lmdb";
  for (const [id, { ns }] of Object.entries(measured)) {
    const times = (other) => (ratio(measured, id, other)?.toFixed(2) ?? "").padStart(9);
    const label = ADAPTERS[id].label.padEnd(40);
    say(`  ${label}${ns.toFixed(0).padStart(8)} ns  × lru-cache${times("lru")}  × lmdb${times(lmdb)}`);
  }
}

/** Why an adapter cannot be measured, in a few words. */
function inShort(why) {
  if (/ERR_MODULE_NOT_FOUND|ERR_UNKNOWN_BUILTIN_MODULE|is not installed/.test(why)) return "is not installed";
  if (/NODE_MODULE_VERSION/.test(why)) return "was built for another version of Node.js";
  return why.split("\n")[0];
}

/** The settings of this run, from the flags; every measurement gets them. */
function plan() {
  const fallback = flags.quick ? QUICK : {};
  const skipped = [];
  const missing = new Map();
  return {
    parts: list(flags.only, PARTS, fallback.parts ?? Object.keys(PARTS)),
    quick: flags.quick,
    data: list(flags.data, DATA, fallback.data ?? Object.keys(DATA)),
    adapters: list(flags.adapters, ADAPTERS, fallback.adapters ?? Object.keys(ADAPTERS)),
    workloads: flags.workloads || flags.quick ? list(flags.workloads, WORKLOADS, fallback.workloads) : undefined,
    rounds: Number(flags.rounds ?? 5),
    ms: Number(flags.ms ?? 40),
    seed: Number(flags.seed ?? 1),
    skipped,
    missing,
    has: (id) => !missing.has(id),
    /** Records that an adapter was left out, and why; once for all its variants. */
    skip(id, why) {
      const line = `${ADAPTERS[id].label.split(",")[0]}: ${inShort(why)}`;
      if (skipped.includes(line)) return;
      skipped.push(line);
      say(`skipped: ${line}`);
    },
    /** Records that something else was left out. */
    leave(line) {
      skipped.push(line);
      say(`skipped: ${line}`);
    },
    say: (line) => say(`  ${line}`),
    progress,
  };
}

let interrupted = false;
/** Ends the participants, so that the measurement that waits for them fails and cleans up. */
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    process.exitCode = 130;
    interrupted = true;
    endAll();
  });
}

async function measure() {
  if (flags.cpu) process.env.BENCH_CLOCK = "cpu";
  const run = plan();
  const { rounds, ms, seed, skipped } = run;
  const results = {
    date: new Date().toISOString().slice(0, 16).replace("T", " "),
    machine: describeMachine(),
    settings: { rounds, ms, seed, clock: flags.cpu ? "cpu" : "wall" },
    skipped,
  };
  run.workspace = createWorkspace();
  let servers;
  try {
    if (run.adapters.some((id) => ADAPTERS[id].server) || run.parts.includes("coordinate")) {
      servers = await startServers(run.workspace.subfolder("servers"));
      run.workspace.useSockets(servers.sockets);
    }
    if (run.parts.some((name) => name !== "coordinate")) await probe(run);
    for (const name of run.parts) {
      if (interrupted) throw new Error("interrupted");
      const begin = performance.now();
      say(`\n${name}`);
      try {
        results[name] = await PARTS[name](run);
        if (name === "hits") sayHits(results.hits.traces);
        if (name === "coordinate") sayTargets(results);
      } catch (error) {
        // The other measurements still run.
        process.exitCode = 1;
        skipped.push(`the part ${name}, which failed: ${error.message.split("\n")[0]}`);
        console.error(error);
        await endRunning();
      }
      say(`  (${((performance.now() - begin) / 1000).toFixed(0)} s)`);
    }
  } finally {
    await endAll();
    await servers?.stop();
    await run.workspace.remove();
  }
  return results;
}

function sayHits(traces) {
  const percent = (value) => (100 * value).toFixed(1).padStart(6);
  for (const [name, { ours, s3fifo, lru }] of Object.entries(traces)) {
    say(`  ${name.padEnd(26)} ours ${percent(ours)}  S3-FIFO ${percent(s3fifo)}  LRU ${percent(lru)}`);
  }
}

function sayTargets(results) {
  for (const { what, goal, measured, reached } of evaluate(results, COORDINATION)) {
    say(`  ${reached ? "✓" : reached === false ? "✗" : "–"} ${what}: ${measured} (${goal})`);
  }
}

function write(results) {
  const folder = path.resolve(flags.out ?? fileURLToPath(new URL("results", import.meta.url)));
  mkdirSync(folder, { recursive: true });
  const files = { "report.md": markdown(results), "report.json": `${JSON.stringify(results, undefined, 1)}\n` };
  if (Object.values(results.speed?.s100?.get ?? {}).length > 0) files["speed.svg"] = chart(results);
  for (const [name, content] of Object.entries(files)) writeFileSync(path.join(folder, name), content);
  say(`\n${Object.keys(files).join(", ")} in ${folder}`);
}

function writeReadme(results) {
  if (!results.speed?.s100?.get) throw new Error("--write-readme: needs the part speed, with s100 in it");
  const before = readFileSync(README, "utf8");
  if (!MARKERS.test(before)) throw new Error("README.md: has no <!-- bench:start --> and <!-- bench:end -->");
  writeFileSync(
    README,
    before.replace(MARKERS, (_, start, end) => `${start}\n${readmePart(results)}\n${end}`),
  );
}

const results = flags.from ? JSON.parse(readFileSync(flags.from, "utf8")) : await measure();
// A report of a few measurements does not replace one of all of them.
if (flags.out || !(flags.quick || flags.only)) write(results);
if (flags["write-readme"]) writeReadme(results);
