/**
 * Drives a test of linearizability: participants change a few keys of one cache, while processes are killed, threads are terminated,
 * and a process is stopped while others fill the log several times. Then the recorded operations of all are checked.
 */
import { rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { destroyCache, openCache } from "cache-machine";
import { demand, generator, makeValue, Violation } from "../crash/checked-values.mjs";
import { forked, inTime, spawned, thread } from "../crash/driver.mjs";
import { mapJournal } from "../crash/journal.mjs";
import { isCounted, KEYS, name as nameOf, TAGGED } from "./actor.mjs";
import { contradiction, line } from "./checker.mjs";
import { Log, pagesOf } from "./recorder.mjs";
import { Stalls, sumOfStalls } from "./stalls.mjs";

const PARTICIPANT = fileURLToPath(new URL("participant.mjs", import.meta.url));
const CONTROL = new URL("control-thread.mjs", import.meta.url);
/** Maximum number of steps of a victim before it is killed. */
const MAX_STEPS = 200;
const FILLING = 4_000;
/** Operations between two pauses, so that all participants make progress on a machine with few processors. */
const BATCH = 32;
const PAUSE_MS = 3;

let runs = 0;

/**
 * Runs one round, and checks its operations.
 *
 * @param plan.roomy whether the cache is so large that it evicts nothing; otherwise it reclaims memory all the time
 * @param plan.clears whether participants sometimes clear the cache or invalidate a tag
 * @param plan.kills number of processes to kill
 * @param plan.terminations number of threads to terminate
 * @param plan.freezes number of times that a process is stopped and continued
 * @param plan.width number of victims of each kind that live at the same time, at most 4
 * @param plan.capacity number of events that each participant can record; the round ends when the log of one is full
 * @param plan.progress called with the kind of each death or freeze: `"kills"`, `"terminations"` or `"freezes"`
 * @param plan.until called to ask whether to end early
 * @throws {Violation} when no order of the operations explains their results
 */
export async function checkedRound(plan) {
  const { roomy, clears = false, kills = 0, terminations = 0, freezes = 0, width = 3, seed, progress, until } = plan;
  const { capacity = 1 << 16 } = plan;
  const name = `t-${process.pid}-round-${++runs}`;
  const file = `/dev/shm/${name}.log`;
  const random = generator(seed);
  const children = new Set();
  const counted = { kills: 0, terminations: 0, freezes: 0 };
  const begun = { kills: 0, terminations: 0, freezes: 0 };
  const wanted = { kills, terminations, freezes };
  const from = performance.now();
  let witness;
  let control;
  try {
    witness = openCache(name, { size: roomy ? 4 << 20 : 1 << 20 });
    const memory = mapJournal(file, pagesOf(capacity));
    const log = new Log(memory, capacity);
    const common = { roomy, clears, large: roomy ? 100_000 : 50_000, capacity, batch: BATCH, pauseMs: PAUSE_MS };
    const inThread = { ...common, log: memory, ...(seed % 2 ? { name } : { handle: witness.handle }) };
    const inProcess = { ...common, log: file, name };
    let incarnations = 0;
    const setup = (place, base) => ({
      ...base,
      id: place,
      place,
      incarnation: ++incarnations,
      seed: random.next(),
      near: random.below(3) > 0,
    });
    const surviving = (place, base, near) => ({ ...setup(place, base), survivor: true, near });
    const survivors = [
      thread(surviving(10, inThread, true), children, PARTICIPANT),
      thread(surviving(11, inThread, false), children, PARTICIPANT),
      forked(surviving(12, inProcess, true), children, PARTICIPANT),
    ];
    control = controlThread(common);
    await Promise.all(survivors.map((survivor) => inTime(survivor.ready, "a survivor starts")));
    await inTime(control.ready, "the control starts");
    const failed = Promise.race(survivors.map((survivor) => survivor.failed));
    const over = () => log.full || until?.() === true;
    const worked = async (place, steps, victim) => {
      const target = log.steps(place) + steps;
      const reached = async () => {
        while (log.steps(place) < target && victim.alive()) await new Promise((resolve) => setTimeout(resolve, 1));
      };
      await inTime(Promise.race([victim.failed, failed, reached()]), `participant ${place} works`);
    };

    /** Kills one victim after the other in a place of the log; the next one starts when the last one is gone. */
    const injector = async (kind, place, start) => {
      const mine = generator(random.next());
      for (let events = 0; begun[kind] < wanted[kind] && !over(); ) {
        begun[kind]++;
        const victim = start(place);
        await worked(place, 1 + mine.below(MAX_STEPS), victim);
        for (const instant = performance.now() + mine.random() * 0.3; performance.now() < instant; );
        await inTime(victim.kill(), "a victim ends");
        events = log.recordEnd(place, events);
        counted[kind]++;
        progress?.(kind);
      }
    };
    const stalls = new Stalls();
    let filled = 0;
    let busy = 0;
    const fill = () => {
      const before = witness.stats();
      for (let written = 0; written < 3 * before.capacity; written += FILLING) {
        const key = `f${(filled = (filled + 1) % (roomy ? 16 : 2_000))}`;
        const since = stalls.begin();
        try {
          witness.set(key, makeValue(0, key, 15, filled, FILLING));
        } catch (error) {
          if (error?.code !== "ERR_BUSY") throw error;
          busy++;
        }
        stalls.end(since, `fill ${key}`);
      }
      const stats = witness.stats();
      demand(stats.reclaims > before.reclaims + 20, "the log goes round while a process is stopped", () => stats);
    };
    const freezer = async (place) => {
      if (wanted.freezes === 0) return;
      const mine = generator(random.next());
      const frozen = spawned(setup(place, inProcess), children, PARTICIPANT);
      while (counted.freezes < wanted.freezes && !over()) {
        await worked(place, 1 + mine.below(MAX_STEPS), frozen);
        for (const instant = performance.now() + mine.random() * 0.3; performance.now() < instant; );
        await inTime(frozen.stopNow(), "a process is stopped");
        fill();
        frozen.wake();
        counted.freezes++;
        progress?.("freezes");
      }
      await worked(place, 1, frozen);
      await inTime(frozen.kill(), "the stopped process ends");
      log.recordEnd(place);
    };
    const killed = (place) => spawned(setup(place, inProcess), children, PARTICIPANT);
    const terminated = (place) => thread(setup(place, inThread), children, PARTICIPANT);
    const injectors = [freezer(8)];
    for (let i = 0; i < width; i++) {
      injectors.push(injector("kills", i, killed), injector("terminations", 4 + i, terminated));
    }
    await Promise.race([failed, Promise.all(injectors)]);
    const ranMs = performance.now() - from;
    log.stop();
    const reports = await inTime(Promise.all(survivors.map((survivor) => survivor.stop())), "the survivors stop");
    const idle = await inTime(control.stop(), "the control stops");
    const told = reports.map(({ report }) => report);
    const checking = performance.now();
    const operations = judge(log, { roomy, seed });
    const checkMs = performance.now() - checking;
    const after = checkAfterwards(witness, roomy);
    return {
      ...counted,
      operations,
      survivorSteps: told.reduce((sum, { steps }) => sum + steps, 0),
      busy: told.reduce((sum, report) => sum + report.busy, busy),
      ...sumOfStalls([...told, stalls.report]),
      control: sumOfStalls([idle]),
      ranMs: Math.round(ranMs),
      checkMs: Math.round(checkMs),
      ...after,
    };
  } finally {
    for (const child of children) await child.kill().catch(() => {});
    await control?.end();
    witness?.close();
    destroyCache(name);
    rmSync(file, { force: true });
  }
}

/** Starts a thread without a cache, whose delays show those that the machine causes. */
function controlThread({ batch, pauseMs, large }) {
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(CONTROL, { workerData: { gate, batch, pauseMs, large } });
  let began;
  let told;
  const ready = new Promise((resolve) => (began = resolve));
  const report = new Promise((resolve, reject) => {
    told = resolve;
    worker.once("error", reject);
  });
  report.catch(() => {});
  worker.on("message", (message) => (message.ready ? began() : told(message.report)));
  return {
    ready,
    stop() {
      Atomics.store(gate, 0, 1);
      return report;
    },
    async end() {
      await worker.terminate();
    },
  };
}

/** Checks the recorded operations of all participants; their number. */
function judge(log, { roomy, seed }) {
  const histories = log.read(KEYS, TAGGED);
  for (const [key, history] of histories.entries()) {
    const found = contradiction(history, { roomy, counter: isCounted(key) });
    if (found === undefined) continue;
    const path = join(tmpdir(), `cache-machine-round-${process.pid}-${runs}.txt`);
    const all = histories.map((events, number) => [
      `── ${nameOf(number)}`,
      ...events.sort((a, b) => a.invoked - b.invoked).map(line),
    ]);
    writeFileSync(path, all.flat().join("\n"));
    throw new Violation(
      [
        `not linearizable, seed ${seed}, ${roomy ? "roomy" : "tight"} cache, ${nameOf(key)}: ${found.why}`,
        "   called … returned │ place.incarnation │ operation → result",
        ...found.lines,
        `the whole history: ${path}`,
      ].join("\n"),
    );
  }
  return histories.reduce((sum, { length }) => sum + length, 0);
}

function checkAfterwards(cache, roomy) {
  const broken = cache.validate();
  const stats = cache.stats();
  demand(broken === 0, "the structure is sound after the deaths", () => ({ broken, stats }));
  demand(stats.participants === 1, "only the living are counted", () => stats);
  if (roomy) demand(stats.evictions === 0, "a roomy cache evicts nothing", () => stats);
  const { evictions, reclaims, compactions } = stats;
  return { evictions, reclaims, compactions };
}
