/**
 * Runs the crash tests for as long as you like, in all kinds of caches. Processes are killed, threads are terminated, processes are
 * stopped and continued, and threads run out of stack in the middle of calls, all at random moments. The survivors check everything
 * that they read. The parts called `recorded` also record all operations, and check that they are linearizable. The first violation
 * ends the run with exit code 1. Nothing is left behind.
 *
 *   npm run soak -- --minutes 30 --seed 7
 *   npm run soak -- --minutes 45 --kills 10000 --terminations 10000 --freezes 1000 --log soak.jsonl
 *   npm run soak -- --seed 12 --only recorded-tight --round 50     (repeats the plan of a part that failed)
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { coordinate } from "../test/crash/coordination.mjs";
import { crash, freeze } from "../test/crash/driver.mjs";
import { opening } from "../test/host/native-arena.mjs";
import { checkedRound } from "../test/linearizability/driver.mjs";
import { BLOCKED_MS, MEASURED } from "../test/linearizability/stalls.mjs";

/** Time limit of a part that runs as a separate program. */
const FIXTURE_MS = 600_000;
/** The counts of such a part, before its own are added. */
const NOTHING = {
  kills: 0,
  terminations: 0,
  freezes: 0,
  busy: 0,
  longestMs: 0,
  unexplainedMs: 0,
  unexplained: 0,
  ours: 0,
};

/** Survivors pause, so that the processors start victims: every death needs a new start. */
const BRISK = { maxSteps: 300, pauseMs: 3 };
const KINDS = {
  "recorded-tight": { what: "recorded", roomy: false },
  "kill-tight": { what: "crash", how: "kill", reach: "processes", roomy: false },
  "recorded-roomy": { what: "recorded", roomy: true },
  "terminate-threads-tight": { what: "crash", how: "terminate", reach: "threads", roomy: false },
  "recorded-tight-cleared": { what: "recorded", roomy: false, clears: true },
  "kill-roomy": { what: "crash", how: "kill", reach: "processes", roomy: true },
  "recorded-roomy-cleared": { what: "recorded", roomy: true, clears: true },
  "terminate-roomy": { what: "crash", how: "terminate", reach: "processes", roomy: true },
  "freeze-tight": { what: "freeze" },
  "terminate-opening": { what: "opening" },
  "terminate-tight": { what: "crash", how: "terminate", reach: "processes", roomy: false },
  "terminate-threads-roomy": { what: "crash", how: "terminate", reach: "threads", roomy: true },
  "overflow-threads": { what: "overflow", reach: "threads" },
  "overflow-processes": { what: "overflow", reach: "processes" },
  "aimed-keys": { what: "aimed" },
  "coordinate-kill-tight": { what: "coordinate", how: "kill", reach: "processes", roomy: false },
  "coordinate-kill-roomy": { what: "coordinate", how: "kill", reach: "processes", roomy: true },
  "coordinate-freeze": { what: "coordinate", how: "freeze", reach: "processes", roomy: true },
  "coordinate-terminate": { what: "coordinate", how: "terminate", reach: "processes", roomy: true },
  "coordinate-threads": { what: "coordinate", how: "terminate", reach: "threads", roomy: true },
  "coordinate-terminate-tight": { what: "coordinate", how: "terminate", reach: "processes", roomy: false },
  "script-terminated": { what: "overflow", reach: "processes", how: "terminate" },
};

/** The numbers that are added up over the parts of a kind, and those of which the maximum counts. */
const SUMS = ["kills", "terminations", "freezes", "overflows", "steps", "operations", "busy", "violations"];
/** Those of coordination. */
const TOGETHER = ["loads", "joined", "waits", "sections", "granted", "limits"];
const STALLS = ["unexplained", "ours", "controlUnexplained"];
const MOSTS = ["longestMs", "unexplainedMs", "controlMs", "controlUnexplainedMs"];

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    seed: { type: "string", default: String(Math.floor(Math.random() * 1e9)) },
    /** One kind only, by its name. */
    only: { type: "string" },
    /** Deaths in a part, before its caches are checked as a whole and new ones are created. */
    round: { type: "string", default: "50" },
    /** The run also ends when all three counts are reached. */
    kills: { type: "string", default: "Infinity" },
    terminations: { type: "string", default: "Infinity" },
    freezes: { type: "string", default: "Infinity" },
    /** A file to which a line of JSON is appended for each part. */
    log: { type: "string" },
  },
});
const minutes = Number(values.minutes);
const round = Number(values.round);
const seed = Number(values.seed);
const wanted = {
  kills: Number(values.kills),
  terminations: Number(values.terminations),
  freezes: Number(values.freezes),
};
const counts = Object.values(wanted);
if (
  !(minutes > 0) ||
  !(round >= 1) ||
  !Number.isSafeInteger(seed) ||
  !counts.every((count) => count >= 0) ||
  (values.only !== undefined && KINDS[values.only] === undefined)
) {
  console.error(
    "usage: npm run soak -- [--minutes N] [--seed S] [--only KIND] [--round DEATHS]\n" +
      "                       [--kills N] [--terminations N] [--freezes N] [--log FILE]\n" +
      `kinds: ${Object.keys(KINDS).join(" ")}`,
  );
  process.exit(2);
}

if (!MEASURED.every((flag) => process.execArgv.includes(flag))) {
  // Starts itself again with the flags of V8 that the measurements need.
  const script = fileURLToPath(import.meta.url);
  const again = spawn(process.execPath, [...MEASURED, script, ...process.argv.slice(2), "--seed", String(seed)], {
    stdio: "inherit",
  });
  // A terminal sends Ctrl-C to both processes; the second signal does no harm.
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => again.kill(signal));
  again.once("exit", (code) => process.exit(code ?? 1));
} else {
  await soak();
}

async function soak() {
  const started = performance.now();
  const elapsed = () => (performance.now() - started) / 60_000;
  let interrupted = false;
  for (const signal of ["SIGINT", "SIGTERM"]) {
    process.on(signal, () => {
      interrupted = true;
    });
  }
  const over = () => interrupted || elapsed() >= minutes;
  const rows = new Map();
  const done = { kills: 0, terminations: 0, freezes: 0, operations: 0, violations: 0 };

  const live = process.stdout.isTTY;
  let shown = -Infinity;
  const show = (part) => {
    if (!live && performance.now() - shown < 10_000) return;
    shown = performance.now();
    const counts = Object.entries(done).map(([name, count]) => `${count.toLocaleString("en")} ${name}`);
    const line = [`${elapsed().toFixed(1)} of ${minutes} min`, part, ...counts].join(" │ ");
    if (live) process.stdout.write(`\r\x1b[K${line}`);
    else console.log(line);
  };

  console.log(`--seed ${seed} --minutes ${minutes} --round ${round}`);
  const names = values.only === undefined ? Object.keys(KINDS) : [values.only];
  const left = (kind) => Math.max(wanted[kind] - done[kind], 0);
  const enough = () => Object.keys(wanted).every((kind) => left(kind) === 0);
  for (let i = 0; !over() && !enough(); i++) {
    const name = names[i % names.length];
    const part = partOf(KINDS[name], left);
    // This kind has reached its counts; others may not have.
    if (part === undefined && names.every((other) => partOf(KINDS[other], left) === undefined)) break;
    if (part === undefined) continue;
    const from = performance.now();
    const partSeed = seed + i;
    const progress = (kind) => {
      done[kind]++;
      show(name);
    };
    const report = { part: name, seed: partSeed };
    const before = { ...done };
    try {
      const result = await part({ seed: partSeed, until: over, progress });
      done.operations += result.operations ?? 0;
      const { kills, terminations, freezes, longestMs, queuedMs, longestStep } = result;
      Object.assign(report, {
        ...{
          kills,
          terminations,
          freezes,
          overflows: result.overflows ?? 0,
          steps: result.survivorSteps,
          operations: result.operations ?? 0,
        },
        ...{ busy: result.busy, longestMs, queuedMs, longestStep, unexplainedMs: result.unexplainedMs },
        ...{ unexplainedStep: result.unexplainedStep, unexplained: result.unexplained, ours: result.ours },
        oursStep: result.oursStep,
        ...{ controlMs: result.control?.longestMs ?? 0, controlUnexplainedMs: result.control?.unexplainedMs ?? 0 },
        controlUnexplained: result.control?.unexplained ?? 0,
        violations: 0,
      });
      for (const column of TOGETHER) report[column] = result[column] ?? 0;
    } catch (error) {
      for (const kind of Object.keys(wanted)) report[kind] = done[kind] - before[kind];
      done.violations++;
      Object.assign(report, { violations: 1, broken: error.name === "Violation" ? error.message : error.stack });
      process.exitCode = 1;
    }
    report.seconds = Math.round((performance.now() - from) / 100) / 10;
    add(rows, name, report);
    if (values.log !== undefined) appendFileSync(values.log, `${JSON.stringify(report)}\n`);
    if (report.broken !== undefined) {
      console.error(`\nVIOLATION after ${elapsed().toFixed(1)} minutes: ${report.broken}`);
      console.error(`repeat with: npm run soak -- --seed ${partSeed} --only ${name} --round ${round}`);
      break;
    }
  }
  if (live) process.stdout.write("\r\x1b[K");
  table(rows, elapsed() * 60);
}

/** The function that runs a part of this kind; undefined when all its counts are reached. */
function partOf({ what, ...kind }, left) {
  const deaths = (of, most = round) => Math.min(most, left(of));
  if (what === "crash") {
    const of = kind.how === "kill" ? "kills" : "terminations";
    const wanted = deaths(of);
    if (wanted === 0) return undefined;
    return async ({ progress, ...plan }) => {
      const result = await crash({ ...kind, ...BRISK, ...plan, deaths: wanted, progress: () => progress(of) });
      return { ...result, kills: 0, terminations: 0, freezes: 0, [of]: result.deaths };
    };
  }
  if (what === "coordinate") {
    const of = { kill: "kills", terminate: "terminations", freeze: "freezes" }[kind.how];
    const wanted = deaths(of, kind.how === "freeze" ? Math.ceil(round / 10) : round);
    if (wanted === 0) return undefined;
    return async ({ progress, ...plan }) => {
      const result = await coordinate({ ...kind, ...plan, deaths: wanted, progress: () => progress(of) });
      return { ...NOTHING, ...result, [of]: result.deaths };
    };
  }
  if (what === "aimed") {
    const rounds = deaths("terminations");
    return rounds === 0 ? undefined : (plan) => aimed(rounds, plan);
  }
  if (what === "overflow") return (plan) => overflow(kind, plan);
  if (what === "opening") {
    const terminations = deaths("terminations");
    if (terminations === 0) return undefined;
    return async ({ seed, progress }) => {
      const result = await opening({ seed, terminations });
      for (let i = 0; i < result.terminations; i++) progress("terminations");
      return { ...result, kills: 0, freezes: 0, survivorSteps: 0, busy: 0 };
    };
  }
  const freezes = deaths("freezes", Math.ceil(round / (what === "recorded" ? 5 : 2)));
  if (what === "freeze") {
    if (freezes === 0) return undefined;
    return async ({ progress, ...plan }) => {
      const result = await freeze({ ...BRISK, ...plan, rounds: freezes, progress: () => progress("freezes") });
      return { ...result, kills: 0, terminations: 0, freezes: result.frozen };
    };
  }
  const [kills, terminations] = [deaths("kills"), deaths("terminations")];
  if (kills + terminations + freezes === 0) return undefined;
  return (plan) => checkedRound({ ...kind, ...plan, kills, terminations, freezes, width: 4, capacity: 1 << 17 });
}

/** Calls that the end of the stack or `node:vm` cuts off. */
async function overflow({ reach, how }, { seed }) {
  const plan = { reach, how, seed, name: `soak-${process.pid}`, shifts: round, stackSizeMb: 0.5 };
  const { overflows, operations, checks } = await fixture("test/host/overflow-main.mjs", plan);
  return { ...NOTHING, overflows, operations, survivorSteps: checks };
}

/** Keys that are chosen to collide with the keys of a rate limiter. */
async function aimed(rounds, { seed }) {
  const { terminations, operations } = await fixture("test/hostile/aimed-keys-main.mjs", {
    name: `soak-${process.pid}`,
    seed,
    rounds,
  });
  return { ...NOTHING, terminations, operations, survivorSteps: operations };
}

/** Runs a program of the tests, which makes its own checks; the JSON of its last line. */
async function fixture(file, plan) {
  const path = fileURLToPath(new URL(`../${file}`, import.meta.url));
  const child = spawn(process.execPath, [path, JSON.stringify(plan)], { stdio: ["ignore", "pipe", "pipe"] });
  const watchdog = setTimeout(() => child.kill("SIGKILL"), FIXTURE_MS);
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text) => {
      output += text;
    });
  const [code, signal] = await once(child, "close");
  clearTimeout(watchdog);
  if (code !== 0) throw new Error(`${file} ${JSON.stringify(plan)} ended with ${code ?? signal}: ${output}`);
  return JSON.parse(output.trim().split("\n").at(-1));
}

function add(rows, name, report) {
  for (const row of [name, "all"]) {
    const sums = rows.get(row) ?? { parts: 0, seconds: 0 };
    sums.parts++;
    sums.seconds = Math.round((sums.seconds + report.seconds) * 10) / 10;
    for (const column of [...SUMS, ...TOGETHER, ...STALLS]) sums[column] = (sums[column] ?? 0) + (report[column] ?? 0);
    for (const column of MOSTS) sums[column] = Math.max(sums[column] ?? 0, report[column] ?? 0);
    if ((report.unexplainedMs ?? 0) === sums.unexplainedMs) sums.worst = report.unexplainedStep;
    rows.set(row, sums);
  }
}

function table(rows, seconds) {
  const all = rows.get("all");
  if (all === undefined) return;
  rows.delete("all");
  rows.set("all", all);
  const pick = (row, columns) => Object.fromEntries(columns.map((column) => [column, row[column]]));
  const counts = [...rows].map(([name, row]) => [name, pick(row, ["parts", "seconds", ...SUMS])]);
  console.table(Object.fromEntries(counts));
  const together = [...rows].filter(([, row]) => row.loads > 0).map(([name, row]) => [name, pick(row, TOGETHER)]);
  if (together.length > 0) console.table(Object.fromEntries(together));
  const stalls = [...rows].map(([name, row]) => [
    name,
    {
      "longest ms": row.longestMs,
      "ms not queued": row.unexplainedMs,
      [`not queued > ${BLOCKED_MS} ms`]: row.unexplained,
      "of these by the cache": row.ours,
      "control ms": row.controlMs,
      "control ms not queued": row.controlUnexplainedMs,
      [`control > ${BLOCKED_MS} ms`]: row.controlUnexplained,
    },
  ]);
  console.log(
    "Delays of single operations. Queued: ready to run, but without a processor. Control: a thread without a cache.",
  );
  console.table(Object.fromEntries(stalls));
  const deaths = all.kills + all.terminations;
  console.log(
    `${(deaths / seconds).toFixed(1)} deaths a second; longest delay apart from waiting for a processor: ${all.worst}`,
  );
}
