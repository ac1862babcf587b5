/**
 * Measures what coordinates processes: loading once for all, locks, limits. What happens within one process is measured in
 * interleaved rounds, like everything else; what happens between processes by a clock that all processes of a machine share, one
 * thing at a time, so the machine is idle but for the two processes that take part.
 */

import { endRunning, median, start } from "./coordinator.mjs";
import { time } from "./report.mjs";
import { waking } from "./waking.mjs";

const PARTICIPANT = new URL("coordination-participant.mjs", import.meta.url);
const WAITERS = 64;
const WAKES = 1000;
const TURNS = 150;
/** Processes that are killed, so many at a time are started before. */
const KILLS = 100;
const BATCH = 10;
/** The part ends with an error after this time. */
const LIMIT_MS = 180_000;

/** All results of this part. */
export async function coordinate(run) {
  const watchdog = setTimeout(endRunning, LIMIT_MS);
  try {
    const scale = run.quick ? 0.1 : 1;
    const loops = await measureLoops(run);
    const between = {};
    for (const [label, result] of Object.entries(await waking(run))) between[label] = { label, ...result };
    Object.assign(between, await measureBetween(run, (count) => Math.max(BATCH, Math.round(count * scale))));
    for (const { label, p50, p99 } of Object.values(between)) {
      run.say(`${label.padEnd(60)}${time(p50).padStart(10)}  99 % within ${time(p99)}`);
    }
    await run.workspace.sweep();
    return { loops, between };
  } finally {
    clearTimeout(watchdog);
  }
}

/** What is measured within a process: its label, the loop, and the cache or limiter that it runs on. */
const LOOPS = {
  get: { label: "get", loop: "get", on: "quiet" },
  awaitGet: { label: "await get", loop: "awaitGet", on: "quiet" },
  getOrSet: { label: "await getOrSet, a hit", loop: "getOrSet", on: "quiet" },
  getThenGetOrSet: { label: "get ?? await getOrSet, a hit", loop: "getThenGetOrSet", on: "quiet" },
  set: { label: "set, nobody waits", loop: "set", on: "quiet" },
  setOthersWait: { label: `set, ${WAITERS} waits for other keys in another process`, loop: "set", on: "others" },
  setOwnWait: { label: `set, ${WAITERS} waits for other keys in this thread`, loop: "set", on: "own" },
  lock: { label: "locks.request, nobody else", loop: "lock", on: "quiet" },
  increment: { label: "increment with a ttl", loop: "increment", on: "quiet" },
  gcra: { label: "rateLimit, gcra", loop: "gcra", on: "quiet" },
  sliding: { label: "rateLimit, sliding", loop: "sliding", on: "quiet" },
  fixed: { label: "rateLimit, fixed", loop: "fixed", on: "quiet" },
  flexibleMemory: { label: "rate-limiter-flexible, memory (private)", loop: "consume", on: "memory", peer: true },
  flexibleCluster: { label: "rate-limiter-flexible, cluster", loop: "consume", on: "cluster", peer: true },
  flexibleRedis: { label: "rate-limiter-flexible, Redis", loop: "consume", on: "redis", peer: true },
};

async function measureLoops(run) {
  const participant = start("coordination", PARTICIPANT);
  const waiter = start("waits for 64 keys", PARTICIPANT);
  await openCaches(run, participant, waiter);
  const direct = (command, message) => participant.ask(command, message);
  const own = Object.keys(LOOPS).filter((id) => !LOOPS[id].peer);
  const { ends, ...peers } = await startPeers(run, participant);
  const times = await inRounds(run, { ...Object.fromEntries(own.map((id) => [id, direct])), ...peers });
  for (const each of [participant, waiter, ...ends]) await each.end();
  const results = {};
  for (const [id, rounds] of Object.entries(times)) {
    results[id] = { label: LOOPS[id].label, ns: median(rounds), rounds };
    run.say(`${LOOPS[id].label.padEnd(60)}${time(results[id].ns).padStart(10)}`);
  }
  return results;
}

/** Opens three caches with the same entries: one for whose keys nobody waits, and two in which others wait, or the participant. */
async function openCaches(run, participant, waiter) {
  for (const as of ["quiet", "others", "own"]) {
    const context = run.workspace.context(`coordinate-${as}`, "32mb");
    await participant.ask("open", { as, ...context });
    await participant.ask("fill", { as });
    if (as === "others") await waiter.ask("open", { as, ...context });
  }
  await waiter.ask("waiters", { on: "others", count: WAITERS });
  await participant.ask("waiters", { on: "own", count: WAITERS });
}

/** Measures all loops in turns: the times of each in all rounds, by id. */
async function inRounds(run, asks) {
  const ids = Object.keys(LOOPS).filter((id) => asks[id]);
  const ops = {};
  for (const id of ids) {
    const { loop, on } = LOOPS[id];
    ops[id] = (await asks[id]("calibrate", { loop, on, ms: run.ms })).ops;
  }
  const times = Object.fromEntries(ids.map((id) => [id, []]));
  for (let round = 0; round < run.rounds; round++) {
    for (const id of ids) {
      const { loop, on } = LOOPS[id];
      times[id].push((await asks[id]("measure", { loop, on, ops: ops[id] })).ns);
    }
  }
  return times;
}

/** Starts the limiters to compare with, those that are installed: a function that asks each, by id. */
async function startPeers(run, participant) {
  const found = { ends: [] };
  const attempt = async (id, open) => {
    try {
      found[id] = await open();
    } catch (error) {
      run.leave(`${LOOPS[id].label}: ${reason(error)}`);
    }
  };
  await attempt("flexibleMemory", async () => {
    await participant.ask("limiter", { as: "memory" });
    return (command, message) => participant.ask(command, message);
  });
  await attempt("flexibleCluster", async () => {
    const primary = start("rate-limiter-flexible, cluster", PARTICIPANT);
    found.ends.push(primary);
    await primary.ask("clusterLimiter");
    return (command, message) => primary.ask("inCluster", { message: { ...message, command } });
  });
  await attempt("flexibleRedis", async () => {
    const { redis } = run.workspace.context("coordinate-redis", "1mb").sockets;
    if (redis === undefined) throw new Error("redis-server is not installed");
    await participant.ask("limiter", { as: "redis", socket: redis });
    return (command, message) => participant.ask(command, message);
  });
  return found;
}

/** What happens between two processes: percentiles by label, in nanoseconds. */
async function measureBetween(run, scaled) {
  const context = { as: "shared", ...run.workspace.context("coordinate-between", "8mb") };
  const participants = [start("first", PARTICIPANT), start("second", PARTICIPANT)];
  for (const participant of participants) await participant.ask("open", context);
  const results = {
    joined: await wakes(participants, scaled(WAKES)),
    handover: await turns(participants, TURNS),
    killedLoad: await takeOvers(participants[0], context, "load", scaled(KILLS)),
    killedLock: await takeOvers(participants[0], context, "lock", scaled(KILLS / 2)),
  };
  for (const participant of participants) await participant.end();
  return results;
}

/** From the end of a loader in one process to the resolved `getOrSet` in another. */
async function wakes([owner, waiter], count) {
  const times = [];
  for (let i = 0; i < count; i++) {
    const message = { on: "shared", name: `wake:${i}` };
    await owner.ask("load", message);
    await waiter.ask("join", message);
    const finished = await owner.ask("finish", message);
    const { at, tookOver } = await waiter.ask("joined", message);
    if (tookOver !== 0) throw new Error(`${message.name} was loaded twice`);
    times.push(at - finished.at);
  }
  return percentiles("a load's end → getOrSet in another process", times);
}

/** From the end of a lock's callback in one process to the beginning of one in another. */
async function turns(participants, rounds) {
  const all = await Promise.all(participants.map((each) => each.ask("takeTurns", { on: "shared", rounds })));
  const held = all.flatMap((each, owner) => each.held.map(([from, to]) => ({ owner, from, to })));
  held.sort((a, b) => a.from - b.from);
  const times = [];
  for (const [i, { owner, from }] of held.entries()) {
    const before = held[i - 1];
    if (before?.to > from) throw new Error("two processes had the lock at the same time");
    if (before !== undefined && before.owner !== owner) times.push(from - before.to);
  }
  return percentiles("a lock's release → its next owner in another process", times);
}

/** From `kill -9` of the process that loads, or has the lock, to the loader or the callback in a process that waited. */
async function takeOvers(waiter, context, kind, count) {
  const times = [];
  for (let done = 0; done < count; done += BATCH) {
    const victims = Array.from({ length: BATCH }, () => start("victim", PARTICIPANT));
    const names = victims.map((_, i) => `${kind}:${done + i}`);
    await Promise.all(
      victims.map(async (victim, i) => {
        await victim.ask("open", context);
        await victim.ask(kind === "load" ? "load" : "hold", { on: "shared", name: names[i] });
      }),
    );
    for (const [i, victim] of victims.entries()) {
      await waiter.ask("join", { on: "shared", name: names[i], kind });
      const at = Number(process.hrtime.bigint());
      victim.kill();
      times.push((await waiter.ask("joined", { name: names[i] })).tookOver - at);
    }
  }
  const what = kind === "load" ? "the loading process → another one loads" : "a lock's owner → the next owner";
  return percentiles(`kill -9 of ${what}`, times);
}

/** Why something cannot be compared with, in a few words. */
function reason({ message }) {
  return /ERR_MODULE_NOT_FOUND/.test(message) ? "is not installed" : message.split("\n")[0];
}

/** Without the first tenth, in which code is compiled. */
function percentiles(label, times) {
  const sorted = Float64Array.from(times.slice(times.length / 10)).sort();
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  return { label, p50: at(0.5), p99: at(0.99), samples: sorted.length };
}
