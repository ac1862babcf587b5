/**
 * The coordinator of the participants: starts them, asks one at a time, and ends them. Participants are measured in interleaved
 * rounds (A B C A B C …), because the speed of a machine drifts; only results of the same round are compared.
 */

import { fork } from "node:child_process";

const PARTICIPANT = new URL("participant.mjs", import.meta.url);
/** A participant that does not answer within this time is hung. */
const PATIENCE_MS = 120_000;
const running = new Set();
/** The caches of the adapter `ipc`, which asks its parent process, by name. */
const stores = new Map();

let over = false;

/** Ends all participants, and refuses to start others from now on. */
export function endAll() {
  over = true;
  return endRunning();
}

/** Kills the participants that still run. */
export async function endRunning() {
  const ends = [...running].map((child) => new Promise((resolve) => child.once("exit", resolve)));
  for (const child of running) child.kill("SIGKILL");
  await Promise.all(ends);
}

/** Starts a process; `ask(command, arguments)` resolves to its answer. */
export function start(label, file = PARTICIPANT) {
  if (over) throw new Error("the run is over");
  const child = fork(file, { execArgv: ["--expose-gc", "--max-old-space-size=12288"], serialization: "json" });
  running.add(child);
  let next = 0;
  const waiting = new Map();
  const fail = (error) => {
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  };
  child.on("message", (message) => {
    if (message.question !== undefined) return child.send(reply(message));
    const { id, result, error } = message;
    const asked = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) asked?.resolve(result);
    else asked?.reject(new Error(`${label}: ${error}`));
  });
  child.on("error", fail);
  child.on("exit", (code, signal) => {
    running.delete(child);
    fail(new Error(`${label}: ended with ${signal ?? code}`));
  });
  const ask = (command, message = {}) =>
    new Promise((resolve, reject) => {
      const watchdog = setTimeout(() => {
        child.kill("SIGKILL");
        reject(new Error(`${label}: ${command} did not end within ${PATIENCE_MS / 1000} s`));
      }, PATIENCE_MS);
      const settle = (done) => (value) => {
        clearTimeout(watchdog);
        done(value);
      };
      waiting.set(next, { resolve: settle(resolve), reject: settle(reject) });
      if (child.connected) child.send({ id: next++, command, ...message });
      else fail(new Error(`${label}: is gone`));
    });
  return {
    label,
    ask,
    /** One of its workers, after `ask("workers", { count })`. */
    worker: (number) => ({
      ask: (command, message = {}) => ask("tell", { worker: number, message: { command, ...message } }),
    }),
    kill: () => child.kill("SIGKILL"),
    async end() {
      await ask("close").catch(() => {});
      await new Promise((resolve) => {
        if (child.exitCode !== null || child.signalCode !== null) return resolve();
        const late = setTimeout(() => child.kill("SIGKILL"), 5_000);
        child.once("exit", () => {
          clearTimeout(late);
          resolve();
        });
        if (child.connected) child.disconnect();
      });
    },
  };
}

/** Answers a request of the adapter `ipc`. */
function reply({ question, store, key, value }) {
  if (!stores.has(store)) stores.set(store, new Map());
  const map = stores.get(store);
  if (value === undefined) return { answer: question, value: map.get(key) };
  map.set(key, value);
  return { answer: question };
}

export function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The turns of all rounds; each round begins with another id. */
function* turns(ids, rounds) {
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < ids.length; turn++) yield { round, id: ids[(turn + round) % ids.length] };
  }
}

/** Distance between the first requests of two rounds. */
const STRIDE = 77_777;

/** Measures one workload in interleaved rounds, by id: `{ near: { ns: median, rounds: [ns, …] }, … }`. */
export async function interleave(participants, workload, { rounds, ms }) {
  const ids = Object.keys(participants);
  const ops = {};
  for (const id of ids) ops[id] = (await participants[id].ask("warm", { workload, ms })).ops;
  const times = Object.fromEntries(ids.map((id) => [id, []]));
  for (const { round, id } of turns(ids, rounds)) {
    const { ns } = await participants[id].ask("round", { workload, start: round * STRIDE, ops: ops[id] });
    times[id].push(ns);
  }
  return Object.fromEntries(ids.map((id) => [id, { ns: median(times[id]), rounds: times[id] }]));
}

/** Attempts before giving up, because a busy machine may keep participants from beginning at the same time. */
const TRIES = 20;

/** Measures several participants that run at the same time: the sum of their operations per microsecond. */
async function atOnce(members, workload, ms, start) {
  for (let tries = 0; tries < TRIES; tries++) {
    const from = (i) => start + i * 500_000;
    for (const [i, member] of members.entries()) await member.ask("ready", { workload, start: from(i) + 300_000 });
    const at = String(process.hrtime.bigint() + 20_000_000n);
    const spans = await Promise.all(
      members.map((member, i) => member.ask("span", { workload, at, ms, start: from(i) })),
    );
    if (spans.some(({ ops, late }) => ops === 0 || late > Math.max(ms / 10, 4) * 1e6)) continue;
    return spans.reduce((sum, { ops, ns }) => sum + (ops / ns) * 1000, 0);
  }
  throw new Error(
    `${members.map(({ label }) => label).join(" and ")}: did not begin together; the machine is too busy`,
  );
}

/**
 * Measures one of a pair alone and both together, by id: operations per microsecond as medians and as rounds. `gain` is the
 * throughput of both as a multiple of the throughput of one.
 */
export async function pairs(teams, workload, { rounds, ms }) {
  const ids = Object.keys(teams);
  for (const id of ids) for (const member of teams[id]) await member.ask("warm", { workload, ms });
  const all = Object.fromEntries(ids.map((id) => [id, { alone: [], together: [] }]));
  for (const { round, id } of turns(ids, rounds)) {
    const spans = (members) => atOnce(members, workload, ms, round * STRIDE);
    all[id].alone.push(await spans(teams[id].slice(0, 1)));
    all[id].together.push(await spans(teams[id]));
  }
  return Object.fromEntries(
    ids.map((id) => {
      const { alone, together } = all[id];
      const gain = median(together.map((both, round) => both / alone[round]));
      return [id, { alone: median(alone), together: median(together), gain, rounds: all[id] }];
    }),
  );
}

/** Measures latencies in interleaved rounds: the medians of the percentiles, and the maximum of all rounds. */
export async function latencies(participants, workload, { rounds, samples }) {
  const ids = Object.keys(participants);
  const all = Object.fromEntries(ids.map((id) => [id, []]));
  for (const { round, id } of turns(ids, rounds)) {
    all[id].push(await participants[id].ask("latency", { workload, samples: samples(id), start: round * STRIDE }));
  }
  return Object.fromEntries(
    ids.map((id) => {
      const of = (name) => all[id].map((one) => one[name]);
      const percentiles = Object.fromEntries(["p50", "p99", "p999", "floor"].map((name) => [name, median(of(name))]));
      return [id, { ...percentiles, max: Math.max(...of("max")), samples: samples(id) * rounds }];
    }),
  );
}

/** Throughput of `id` as a multiple of the throughput of `other`: the median over the rounds. */
export function ratio(results, id, other) {
  const [mine, theirs] = [results?.[id], results?.[other]];
  if (!mine || !theirs) return undefined;
  return median(mine.rounds.map((ns, round) => theirs.rounds[round] / ns));
}
