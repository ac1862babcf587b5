/**
 * Drives the crash tests: starts writers and kills them at random moments, one after the other, while survivors in other processes
 * and threads read and write. Then checks what is left. Also starts and ends the participants of other tests.
 */
import { fork, spawn } from "node:child_process";
import { fstatSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { createCache, destroyCache, openCache } from "cache-machine";
import * as apart from "../host/apart.mjs";
import { Stalls, sumOfStalls } from "../linearizability/stalls.mjs";
import { Actor } from "./actor.mjs";
import { checkValue, demand, generator, makeValue } from "./checked-values.mjs";
import { COUNTERS, Journal, mapJournal } from "./journal.mjs";

const PARTICIPANT = fileURLToPath(new URL("participant.mjs", import.meta.url));
/** Time limit for each step; only a step that hangs takes longer. */
const PATIENCE_MS = 60_000;
const MAX_STEPS = 1_000;

let runs = 0;

/**
 * Kills writers while others use the same cache, and checks the cache afterwards.
 *
 * @param plan.how `"kill"` kills processes with SIGKILL, `"terminate"` terminates threads
 * @param plan.reach `"processes"` or `"threads"`
 * @param plan.roomy whether the cache is so large that it evicts nothing; otherwise it reclaims memory all the time
 * @param plan.deaths number of writers to kill
 * @param plan.width number of writers that live at the same time
 * @param plan.maxSteps maximum number of steps of a writer before it is killed
 * @param plan.pauseMs pause of the survivors between batches, so that a machine with few processors can start more writers
 * @param plan.progress called with the number of deaths so far
 * @param plan.until called to ask whether to end early
 */
export async function crash(plan) {
  const { how, reach, roomy, deaths, width = 4, maxSteps = MAX_STEPS, pauseMs, seed, progress, until } = plan;
  const size = roomy ? 16 << 20 : how === "kill" ? 4 << 20 : 2 << 20;
  const large = roomy ? 200_000 : size / 10;
  const name = `t-${process.pid}-crash-${++runs}`;
  const file = `/dev/shm/${name}.journal`;
  const random = generator(seed);
  const before = resources();
  const options = { size, now: Actor.clock.now };
  const children = new Set();
  let witness;
  try {
    witness = reach === "threads" ? createCache(options) : openCache(name, options);
    const memory = mapJournal(file);
    const journal = new Journal(memory);
    const common = { roomy, large };
    const inThread = { ...common, handle: witness.handle, journal: memory };
    // Half of the runs open the cache by name, like an application; then the worker has to find the mapping of this process.
    if (reach === "processes" && seed % 2 === 0) Object.assign(inThread, { handle: undefined, name });
    const inProcess = { ...common, name, journal: file };

    const survivors = [];
    survivors.push(thread({ ...inThread, id: 15, seed: random.next(), survivor: true, pauseMs }, children));
    if (reach === "processes") {
      survivors.push(forked({ ...inProcess, id: 14, seed: random.next(), survivor: true, pauseMs }, children));
    } else {
      survivors.push(thread({ ...inThread, id: 14, seed: random.next(), survivor: true, pauseMs }, children));
    }
    await Promise.all(survivors.map((survivor) => inTime(survivor.ready, "a survivor starts")));
    const here = new Actor(witness, journal, { ...common, id: 13, seed: random.next() });
    here.inherit();

    // Only one writer with the same number lives at a time: its successor starts when it is gone.
    let dead = 0;
    let begun = 0;
    const failed = Promise.race(survivors.map((survivor) => survivor.failed));
    const writers = Array.from({ length: width }, async (_, id) => {
      const mine = generator(random.next() + id);
      while (begun < deaths && !until?.()) {
        begun++;
        const from = journal.steps(id);
        const target = from + 1 + mine.below(maxSteps);
        const setup = { id, seed: mine.next(), batch: 50 };
        const victim =
          how === "kill" ? spawned({ ...inProcess, ...setup }, children) : thread({ ...inThread, ...setup }, children);
        await inTime(
          Promise.race([victim.failed, reached(() => journal.steps(id) >= target, victim)]),
          `writer ${id} works (${journal.steps(id) - from} of ${target - from} steps)`,
        );
        for (const instant = performance.now() + mine.random() * 0.3; performance.now() < instant; );
        await inTime(victim.kill(), "a writer ends");
        dead++;
        progress?.(dead);
        here.steps(10);
      }
    });
    await Promise.race([failed, Promise.all(writers)]);
    const reports = await Promise.race([
      failed,
      inTime(Promise.all(survivors.map((survivor) => survivor.stop())), "the survivors stop"),
    ]);
    reports.push({ report: here.report, stalls: here.stalls.report, busyStep: here.busyStep });
    const after = checkAfterwards(witness, journal, { name, size, reach, roomy });
    const leaks = resources(witness.handle.id);
    if (reach === "processes") {
      demand(
        leaks.cacheFiles === 1 && leaks.cacheMaps >= 1 && leaks.cacheMaps <= 2,
        "the dead leave no descriptor and no mapping",
        () => leaks,
      );
    }
    demand(leaks.files <= before.files + 8, "no descriptor leaks", () => ({ before, leaks }));
    demand(leaks.maps <= before.maps + 20, "no mapping leaks", () => ({ before, leaks }));
    return { deaths: dead, steps: sumOf(journal), ...summary(reports), ...after, before, leaks };
  } finally {
    for (const child of children) await child.kill().catch(() => {});
    witness?.close();
    if (reach === "processes") destroyCache(name);
    rmSync(file, { force: true });
  }
}

/**
 * Stops a writer (SIGSTOP) at random moments, fills the whole cache several times, and lets the writer go on; then checks the
 * cache.
 */
export async function freeze({ rounds, maxSteps = MAX_STEPS, pauseMs, seed, progress, until }) {
  const size = 2 << 20;
  const name = `t-${process.pid}-freeze-${++runs}`;
  const file = `/dev/shm/${name}.journal`;
  const random = generator(seed);
  const children = new Set();
  const common = { roomy: false, large: size / 10 };
  let witness;
  try {
    witness = openCache(name, { size, now: Actor.clock.now });
    const memory = mapJournal(file);
    const journal = new Journal(memory);
    const survivor = thread(
      { ...common, id: 15, seed: random.next(), survivor: true, pauseMs, name, journal: memory },
      children,
    );
    await inTime(survivor.ready, "a survivor starts");
    const here = new Actor(witness, journal, { ...common, id: 13, seed: random.next() });
    here.inherit();
    const setup = { ...common, id: 0, seed: random.next(), batch: 50, name, journal: file };
    const writer = spawned(setup, children);
    const progressed = async (steps) => {
      const target = journal.steps(0) + steps;
      const moved = Promise.race([writer.failed, survivor.failed, reached(() => journal.steps(0) >= target, writer)]);
      await inTime(moved, "the writer works");
    };
    let filler = 0;
    const stalls = new Stalls();
    let busy = 0;
    let frozen = 0;
    for (; frozen < rounds && !until?.(); frozen++) {
      await progressed(1 + random.below(maxSteps));
      for (const instant = performance.now() + random.random() * 0.3; performance.now() < instant; );
      await inTime(writer.stopNow(), "the writer is stopped");
      const { capacity, reclaims } = witness.stats();
      for (let written = 0; written < 3 * capacity; written += 4_000) {
        const from = stalls.begin();
        try {
          const key = `w${(filler = (filler + 1) % 20_000)}`;
          witness.set(key, key.endsWith("7") ? Buffer.alloc(0) : makeValue(0, key, 13, filler, 4_000));
        } catch (error) {
          if (error?.code !== "ERR_BUSY") throw error;
          busy++;
        }
        stalls.end(from, "fill");
        if (written % 40_000 === 0) here.step();
      }
      const after = witness.stats();
      demand(after.reclaims > reclaims + 40, "the log goes round while a writer is stopped", () => after);
      demand(after.participants === 3, "a stopped writer counts as alive", () => after);
      writer.wake();
      progress?.(frozen + 1);
    }
    await progressed(200);
    await inTime(writer.kill(), "the writer ends");
    const reports = [await inTime(Promise.race([survivor.failed, survivor.stop()]), "the survivor stops")];
    reports.push({ report: here.report, stalls: here.stalls.report, busyStep: here.busyStep });
    reports.push({ report: { steps: 0, busy, misses: 0, hits: 0 }, stalls: stalls.report });
    const after = checkAfterwards(witness, journal, { name, size, reach: "processes", roomy: false });
    return { frozen, ...summary(reports), ...after };
  } finally {
    for (const child of children) await child.kill().catch(() => {});
    witness?.close();
    destroyCache(name);
    rmSync(file, { force: true });
  }
}

function sumOf(journal) {
  let sum = 0;
  for (let actor = 0; actor < 13; actor++) sum += journal.steps(actor);
  return sum;
}

function summary(reports) {
  const all = reports.map(({ report }) => report);
  return {
    survivorSteps: all.reduce((sum, report) => sum + report.steps, 0),
    busy: all.reduce((sum, report) => sum + report.busy, 0),
    busyStep: reports.map((report) => report.busyStep).find(Boolean),
    ...sumOfStalls(reports.map(({ stalls }) => stalls)),
    hitRatio: all.reduce((sum, r) => sum + r.hits, 0) / all.reduce((sum, r) => sum + r.hits + r.misses, 0),
  };
}

/** Checks a cache after all the deaths; nobody else may have it open. */
function checkAfterwards(cache, journal, { name, size, reach, roomy }) {
  const stats = cache.stats();
  const { entries } = cache.census();
  const sound = (when) => {
    const broken = cache.validate();
    demand(broken === 0, `the structure is sound ${when}`, () => ({ broken, stats: cache.stats() }));
  };
  sound("after the deaths");
  demand(stats.participants === 1, "only the living are counted", () => stats);
  if (roomy) demand(stats.evictions === 0, "a roomy cache evicts nothing", () => stats);
  for (let counter = 0; counter < COUNTERS; counter++) {
    const value = cache.get(`c${counter}`) ?? 0;
    const [least, most] = [journal.counted(counter), journal.attempted(counter)];
    demand(value <= most && (value >= least || !roomy), "counters hold every increment that returned", () => ({
      value,
      least,
      most,
    }));
  }
  let unreadable = 0;
  for (const key of cache.keys()) {
    const now = Date.now();
    const value = cache.get(key);
    if (value === undefined) unreadable += cache.has(key) ? 1 : 0;
    else if (typeof value !== "number" && value.length !== 0) checkValue(key, value, now);
  }
  demand(unreadable === 0, "what is listed can be read", () => ({ unreadable, entries }));

  // Writes twice the size of the cache.
  const block = 4_000;
  const blocks = Math.ceil((2 * size) / block);
  for (let i = 0; i < blocks; i++) cache.set(`r${i}`, makeValue(0, `r${i}`, 0, i, block));
  let recent = 0;
  for (let i = blocks - 20; i < blocks; i++) {
    const value = cache.get(`r${i}`);
    if (value !== undefined) recent += checkValue(`r${i}`, value, 0) ? 1 : 0;
  }
  demand(recent >= 18, "what was stored last is there", () => ({ recent }));
  const now = { ...cache.stats(), ...cache.census() };
  demand(now.used <= now.capacity && now.bytes <= now.used, "no segment is lost", () => now);
  demand(now.bytes > now.capacity / 2, "the whole cache is used", () => now);
  sound("after it was written anew");

  const { handle } = cache;
  const seats = handle.seats ?? handle.board.byteLength / 8;
  const guests = [];
  try {
    if (reach === "processes") while (guests.length < seats - 1) guests.push(apart.openCache(name, { nearCache: 0 }));
    demand(cache.stats().participants === guests.length + 1, "every seat can be claimed again", () => ({ seats }));
  } finally {
    for (const guest of guests) guest.close();
  }
  const { evictions, reclaims, compactions } = stats;
  return { evictions, reclaims, compactions, entries, seats };
}

/**
 * Counts the descriptors and mappings of this process: all of them, and those of the file with this identity (device and inode).
 * Private anonymous mappings are not counted, because V8 creates hundreds for worker threads (Node.js 26 about 700 for fifty idle
 * ones) at any time. The package's mappings are shared, or are mappings of a file.
 */
export function resources(identity = "") {
  const inode = identity.split(":")[1];
  const files = readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [String(fstatSync(Number(fd)).ino)];
    } catch {
      return [];
    }
  });
  const maps = readFileSync("/proc/self/maps", "latin1")
    .split("\n")
    .filter((line) => line[line.indexOf(" ") + 4] === "s" || !/ 00:00 0\b/.test(line));
  return {
    files: files.length,
    maps: maps.length,
    cacheFiles: files.filter((ino) => ino === inode).length,
    cacheMaps: maps.filter((line) => line.split(/ +/)[4] === inode).length,
  };
}

async function reached(condition, victim) {
  while (!condition() && victim.alive()) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** Waits for a promise with a time limit; `what` is part of the error message. */
export function inTime(promised, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`hangs: ${what}`)), PATIENCE_MS);
  });
  return Promise.race([promised, late]).finally(() => clearTimeout(timer));
}

/** Starts a participant as a thread; it is in `children` until it has ended. */
export function thread(setup, children, script = PARTICIPANT) {
  return child(new Worker(script, { workerData: setup, stderr: true }), setup, children, (worker) =>
    worker.terminate(),
  );
}

/** The beginning of a command line: the program is killed when this process ends, even if the program is stopped. */
export const KILLED_WITH_PARENT = ["setpriv", "--pdeathsig", "KILL"];

/** Starts a participant as a process with an IPC channel. */
export function forked(setup, children, script = PARTICIPANT) {
  const [execPath, ...execArgv] = [...KILLED_WITH_PARENT, process.execPath, ...process.execArgv];
  const started = fork(script, [told(setup)], { execPath, execArgv, stdio: ["ignore", "ignore", "pipe", "ipc"] });
  return child(started, setup, children, (process) => process.kill("SIGKILL"));
}

/** Starts a participant as a process without an IPC channel, to be killed or stopped. */
export function spawned(setup, children, script = PARTICIPANT) {
  const stdio = ["ignore", "ignore", "pipe"];
  const [command, ...args] = [...KILLED_WITH_PARENT, process.execPath, script, told(setup)];
  const started = spawn(command, args, { stdio });
  return child(started, setup, children, (process) => process.kill("SIGKILL"));
}

/** The setup of a process, as an argument of its command line. */
function told(setup) {
  return JSON.stringify({ ...setup, parent: process.pid });
}

/** The same interface for processes and threads. A participant that ends without being told to has failed. */
function child(started, { id, survivor }, children, end) {
  let told = false;
  let said = "";
  let report;
  let ready;
  let rested;
  started.stderr.on("data", (data) => (said += data));
  const gone = new Promise((resolve) => started.once("exit", (...how) => resolve(how)));
  const closed = started.kill ? new Promise((resolve) => started.once("close", resolve)) : gone;
  const failed = closed.then(async (how) => {
    children.delete(self);
    if (told) return new Promise(() => {});
    throw new Error(`participant ${id} ended by itself (${how ?? (await gone)}): ${said}`);
  });
  failed.catch(() => {});
  started.once("error", (error) => (said += error.stack));
  const readiness = new Promise((resolve) => (ready = resolve));
  const rest = new Promise((resolve) => (rested = resolve));
  started.on("message", (message) => {
    if (message.ready) ready();
    if (message.idle) rested();
    if (message.report) report = message;
  });
  const self = {
    failed,
    /** Fulfilled when it says that it is idle. */
    idle: rest,
    ready: survivor ? Promise.race([readiness, failed]) : undefined,
    alive: () => !told,
    async kill() {
      told = true;
      await end(started);
      await closed;
      children.delete(self);
      // It may have found a violation before it ended.
      if (said.includes("violation: ")) throw new Error(said);
    },
    async stopNow() {
      started.kill("SIGSTOP");
      // Waits until the kernel shows the process as stopped.
      while (!/\) T /.test(readFileSync(`/proc/${started.pid}/stat`, "latin1"))) await new Promise(setImmediate);
    },
    wake: () => started.kill("SIGCONT"),
    async stop() {
      told = true;
      if (started.send) started.send("stop");
      else started.postMessage("stop");
      await gone;
      if (report === undefined) throw new Error(`survivor ${id} ended without a report: ${said}`);
      return report;
    },
  };
  children.add(self);
  return self;
}
