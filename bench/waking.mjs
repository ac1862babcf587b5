/**
 * Measures how fast a process learns what another process does: from the call in one to the resolved promise in the other, one
 * thing at a time, so the machine is idle but for the two. `waitFor` of this cache is compared with what people use otherwise:
 * Redis pub/sub, and messages between two workers of node:cluster, which pass through their primary process.
 */

import { start } from "./coordinator.mjs";

const PARTICIPANT = new URL("waking-participant.mjs", import.meta.url);
/** Samples of each way. The first tenth is not counted: code is compiled, and pages are touched for the first time. */
const SAMPLES = 2000;

/** All results: percentiles in nanoseconds, by label. */
export async function waking(run) {
  const count = run.quick ? SAMPLES / 10 : SAMPLES;
  const results = {};
  for (const [label, measure] of Object.entries(WAYS)) {
    try {
      results[label] = percentiles(await measure(run, count));
    } catch (error) {
      run.leave(`${label}: ${error.message}`);
    }
  }
  await run.workspace.sweep();
  return results;
}

const WAYS = {
  "set → waitFor in another process": (run, count) =>
    between(count, { way: "cache", ...run.workspace.context("waking", "8mb") }),
  "set → waitFor in a worker of another process": (run, count) =>
    between(count, { way: "cache", inWorker: true, ...run.workspace.context("waking-worker", "8mb") }),
  "set → waitFor in a worker of this process": (_, count) => within(count, { command: "threads" }),
  "Redis PUBLISH → message in another process": (run, count) => {
    const { redis } = run.workspace.context("waking-redis", "1mb").sockets;
    if (redis === undefined) throw new Error("redis-server is not installed");
    return between(count, { way: "redis", socket: redis });
  },
  "node:cluster message → another worker": (_, count) => within(count, { command: "cluster" }),
};

/** Two processes: one waits, the other one changes something. Nanoseconds of each sample. */
async function between(count, options) {
  const [waiter, writer] = [start("waits", PARTICIPANT), start("writes", PARTICIPANT)];
  try {
    await waiter.ask("open", { ...options, waits: true });
    await writer.ask("open", { ...options, inWorker: false });
    const times = [];
    for (let i = 0; i < count; i++) {
      await waiter.ask("expect", { i });
      const from = await writer.ask("change", { i });
      times.push((await waiter.ask("woken")) - from);
    }
    return times;
  } finally {
    await Promise.all([waiter.end(), writer.end()]);
  }
}

/** One process that starts and measures the two by itself. */
async function within(count, { command }) {
  const participant = start(command, PARTICIPANT);
  try {
    return await participant.ask(command, { count });
  } finally {
    await participant.end();
  }
}

function percentiles(times) {
  const sorted = Float64Array.from(times.slice(times.length / 10)).sort();
  const at = (share) => sorted[Math.floor(sorted.length * share)];
  return { p50: at(0.5), p99: at(0.99), samples: sorted.length };
}
