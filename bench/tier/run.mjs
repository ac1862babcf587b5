/**
 * The benchmark of the tier: two simulated hosts of four processes each read and write values on one real server. Compares ways to keep
 * what was read on the hosts, which get the same memory per host: `npm run bench:tier`. Takes about a quarter of an hour on two cores. Needs Linux
 * and redis-server.
 *
 *   --only tier,server       only these contenders
 *   --parts speed,work,staleness,micro   only these parts
 *   --seconds 1.6            length of a measurement; the others depend on it
 *   --rounds 2               rounds of "speed"
 *   --memory 16              MiB per host; no memory of a host is as large as all values of 1 KiB
 *   --keys 20000             number of values
 *   --processes 4            of each host
 *   --writes 0.001,0.01,0.1  parts of the operations that are writes
 *   --nodes node,/path/node  programs of Node.js for "micro"
 *   --out folder             where tier.md and tier.json go (bench/results)
 *
 * The parts: *speed*, all processes operate as fast as they can; *work*, all contenders do the same operations at the same pace, and the
 * network counts the commands of each host; *staleness*, one host reads what the other writes, in peace and under faults; *micro*, what a
 * read of what the host has costs, compared with the cache itself.
 */

import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { zipfianOrder } from "../random.mjs";
import { describeMachine } from "../report.mjs";
import { CONTENDERS } from "./contenders.mjs";
import { folder, Host, memoryOf, Program, Server, serverVersion } from "./hosts.mjs";
import { report } from "./report.mjs";
import { compare, countStale, machineTime, PERIOD, quantile, WATCHED_KEYS } from "./staleness.mjs";
import { VALUES } from "./values.mjs";

const MIB = 2 ** 20;
const HERE = path.dirname(fileURLToPath(import.meta.url));
const PARTS = ["speed", "work", "staleness", "micro"];
/** Operations per second of each process in "work". */
const PACE = 1000;
/** Memory of a host, in MiB, that has room for everything in each process. */
const PLENTY = 256;

const text = { type: "string" };
const { values: flags } = parseArgs({
  options: {
    only: text,
    parts: text,
    seconds: text,
    rounds: text,
    memory: text,
    keys: text,
    processes: text,
    writes: text,
    nodes: text,
    out: text,
  },
});
const contenders = chosen("only", Object.keys(CONTENDERS));
const parts = chosen("parts", PARTS);
const seconds = Number(flags.seconds ?? 1.6);
const rounds = Number(flags.rounds ?? 2);
const memory = Number(flags.memory ?? 16) * MIB;
const keys = Number(flags.keys ?? 20_000);
const processes = Number(flags.processes ?? 4);
const writeParts = flags.writes?.split(",").map(Number) ?? [0.001, 0.01, 0.1];
/** Of these the one for which there is more than one measurement. */
const usualWrites = writeParts[Math.floor(writeParts.length / 2)];
const nodes = flags.nodes?.split(",") ?? [process.execPath];

const out = flags.out ?? path.join(HERE, "../results");
mkdirSync(out, { recursive: true });
const orderFile = path.join(folder, "order");
writeFileSync(orderFile, zipfianOrder(keys, 1 << 20, 42));

function chosen(flag, known) {
  const names = flags[flag]?.split(",") ?? known;
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length > 0) throw new Error(`--${flag} ${unknown}: unknown. Known are ${known.join(" ")}`);
  return names;
}

const sizes = new Map();

/** Bytes of heap that a contender takes for one value of this kind. */
function bytesOfOne(contender, kind) {
  const name = `${contender} ${kind}`;
  if (!sizes.has(name)) {
    const file = JSON.stringify(path.join(HERE, "contenders.mjs"));
    const code = `import(${file}).then(async (m) => {
      console.log(await m.heapBytes(${JSON.stringify(contender)}, ${JSON.stringify(kind)}));
      process.exit();
    })`;
    const out = execFileSync(process.execPath, ["--expose-gc", "-e", code], { encoding: "utf8" });
    sizes.set(name, Number(out));
  }
  return sizes.get(name);
}

function optionsFor(contender, kind, memory, server) {
  return { memory, processes, bytesOfOne: bytesOfOne(contender, kind), server };
}

/** Writes all values through the contender, in a process that ends then. */
async function fillServer(contender, kind, server) {
  const host = new Host(contender, optionsFor(contender, kind, 64 * MIB, server.socket), "fill");
  const [process] = await host.start(1);
  await process.ask("fill", { from: 0, to: keys, kind });
  await host.stop();
}

function sum(results, name) {
  return results.reduce((total, result) => total + result[name], 0);
}

/** All processes of both hosts operate as fast as they can. */
async function measureSpeed(contender, kind) {
  const server = new Server(false);
  await server.start();
  await fillServer(contender, kind, server);
  const options = optionsFor(contender, kind, memory, server.socket);
  const hosts = ["a", "b"].map((name) => new Host(contender, options, name));
  await Promise.all(hosts.map((host) => host.start(processes)));
  const operate = async (writes, limit) => {
    const since = performance.now();
    const cpu = server.cpu();
    const asked = hosts.map((host, i) => host.ask("run", { orderFile, kind, writes, ...limit }, i * processes));
    const results = (await Promise.all(asked)).flat();
    const ms = performance.now() - since;
    const reads = sum(results, "reads");
    return {
      readsPerSecond: Math.round((reads / ms) * 1000),
      /** Microseconds of processor per read: of the processes of the hosts, and of the server. */
      perRead: sum(results, "cpu") / reads,
      serverPerRead: (server.cpu() - cpu) / reads,
      missing: sum(results, "missing"),
      failed: sum(results, "failed"),
    };
  };
  await operate(0, { operations: keys });
  const result = {};
  for (const writes of writeParts) {
    result[writes] = await operate(writes, { seconds });
    const { readsPerSecond, perRead, missing, failed } = result[writes];
    console.log(
      `  ${VALUES[kind].label}, ${writes * 100} % writes: ${readsPerSecond} reads/s, ${perRead.toFixed(1)} µs of processor each` +
        (missing + failed > 0 ? `, ${missing} missing, ${failed} failed` : ""),
    );
  }
  result.memory = hosts[0].processes.reduce((total, { pid }) => total + memoryOf(pid), 0);
  result.serverMemory = memoryOf(server.pid);
  await Promise.all(hosts.map((host) => host.stop()));
  await server.stop();
  return result;
}

/** Starts the network between a server and hosts. */
async function startNetwork(server, count) {
  const sockets = Array.from({ length: count }, (_, i) => `${server.socket}-${i}`);
  const program = new Program("network.mjs", { server: server.socket, sockets });
  await program.ready();
  return { sockets, program };
}

/** Both hosts do a fixed sequence of operations at a fixed pace; the commands of the first are counted. */
async function measureWork(contender, kind, memory, writes) {
  const server = new Server(false);
  await server.start();
  await fillServer(contender, kind, server);
  const { sockets, program: network } = await startNetwork(server, 2);
  const hosts = sockets.map((socket, i) => new Host(contender, optionsFor(contender, kind, memory, socket), `${i}`));
  await Promise.all(hosts.map((host) => host.start(processes)));
  const step = async (task, args) => {
    const before = { ...(await network.ask("counts", { host: 0 })) };
    const results = await Promise.all(
      hosts.map((host, i) => host.ask(task, { orderFile, kind, ...args }, i * processes)),
    );
    const after = await network.ask("counts", { host: 0 });
    const commands = {};
    for (const name in after) if (after[name] > (before[name] ?? 0)) commands[name] = after[name] - (before[name] ?? 0);
    const [own] = results;
    return {
      reads: sum(own, "reads"),
      writes: sum(own, "writes"),
      missing: sum(own, "missing"),
      failed: sum(own, "failed"),
      error: own.find(({ error }) => error)?.error,
      ms: Math.max(...own.map(({ ms }) => ms)),
      commands,
      total: Object.values(commands).reduce((total, count) => total + count, 0),
    };
  };
  const cold = await step("run", { writes: 0, operations: Math.round(seconds * 4 * PACE) });
  await step("run", { writes: 0, operations: Math.round(seconds * 8 * PACE) });
  const warm = await step("pace", { writes, operations: Math.round(seconds * 6 * PACE), perSecond: PACE });
  await Promise.all(hosts.map((host) => host.stop()));
  await network.kill();
  await server.stop();
  const names = Object.entries(warm.commands).map(([name, count]) => `${name} ${count}`);
  console.log(
    `  ${memory / MIB} MiB, ${writes * 100} % writes: ${warm.total} commands for ${warm.reads} reads and ${warm.writes} writes ` +
      `(${names.join(", ")}), cold ${cold.total} for ${cold.reads}` +
      (warm.missing + warm.failed > 0 ? `; ${warm.missing} missing, ${warm.failed} failed, first ${warm.error}` : ""),
  );
  return { cold, warm };
}

/** What is done to the readers' host and to the server, in milliseconds since the phase began. */
const PHASES = {
  peace: () => [],
  killed: ({ kill }) => [0.1, 0.4, 0.7].map((at) => [at, kill]),
  cut: ({ cut }) => [0.1, 0.4, 0.7].map((at) => [at, cut]),
  frozen: ({ freeze, thaw, cut }) => [
    [0.1, freeze],
    [0.5, cut],
    [0.5, thaw],
  ],
  restarted: ({ stop, start }) => [
    [0.1, stop],
    [0.2, start],
    [0.5, stop],
    [0.6, start],
  ],
};

/** One process of a host writes, all processes of another read. */
async function measureStaleness(contender) {
  const server = new Server(true);
  await server.start();
  const { sockets, program: network } = await startNetwork(server, 2);
  const hosts = sockets.map((socket, i) => new Host(contender, optionsFor(contender, "small", memory, socket), `${i}`));
  const [readers, writers] = hosts;
  await Promise.all([readers.start(processes), writers.start(1)]);
  const [writer] = writers.processes;
  const length = seconds * 3000;
  let next = 0;
  const results = {};
  for (const phase in PHASES) {
    const before = await writer.ask("write", {
      since: machineTime() - next * 2,
      period: 2,
      from: next,
      to: next + WATCHED_KEYS,
    });
    await readers.ask("sweep", { from: next, to: next + WATCHED_KEYS });
    next += WATCHED_KEYS;
    const begun = machineTime() + 50;
    const to = next + Math.round(length / PERIOD);
    const schedule = { since: begun - next * PERIOD, period: PERIOD, until: begun + length + 300 };
    const watching = new Set();
    const watchers = [];
    const follow = (process) => {
      const watcher = process.ask("watch", schedule).then(
        (result) => watchers.push(result),
        // A process that was killed tells nothing.
        () => {},
      );
      watching.add(watcher);
    };
    for (const process of readers.processes) follow(process);
    const faults = PHASES[phase]({
      kill: async () => follow(await readers.replace(await readers.owner())),
      cut: () => network.ask("cut", { host: 0 }),
      freeze: () => network.ask("freeze", { host: 0 }),
      thaw: () => network.ask("thaw", { host: 0 }),
      stop: () => server.stop(),
      start: () => server.start(),
    });
    const writing = writer.ask("write", { ...schedule, from: next, to });
    for (const [at, run] of faults) {
      await sleep(Math.max(0, begun + at * length - machineTime()));
      await run();
    }
    const writes = await writing;
    await Promise.all(watching);
    await sleep(seconds * 1000);
    const from = to - WATCHED_KEYS;
    const swept = await readers.ask("sweep", { from, to });
    next = to;
    const { last, first } = compare(
      writes,
      watchers.map(({ seen }) => seen),
    );
    const at = (sorted) => ({ p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99), max: quantile(sorted, 1) });
    results[phase] = {
      writes: writes.length,
      unacknowledged: writes.filter(([, , acknowledged]) => Number.isNaN(acknowledged)).length,
      reads: watchers.reduce((total, { seen }) => total + seen.length / 4, 0),
      missing: sum(watchers, "missing"),
      failed: sum(watchers, "failed"),
      skipped: sum(watchers, "skipped"),
      longest: Math.max(...watchers.map(({ longest }) => longest)),
      samples: last.length,
      last: at(last),
      first: at(first),
      staleLater: swept.reduce((total, one) => total + countStale([...before, ...writes], from, one), 0),
      absentLater: swept.flat().filter(Number.isNaN).length,
      swept: swept.flat().length,
    };
    const { last: l, first: f, staleLater, missing, failed, longest, unacknowledged, reads, skipped } = results[phase];
    console.log(
      `  ${phase}: old until ${l.p50.toFixed(1)} / ${l.p99.toFixed(1)} / ${l.max.toFixed(1)} ms, new from ${f.p50.toFixed(1)} / ` +
        `${f.p99.toFixed(1)} / ${f.max.toFixed(1)} ms; ${reads} reads, ${missing} missing, ${failed} failed, ${skipped} skipped, longest ` +
        `${longest.toFixed(0)} ms; ${unacknowledged} writes unacknowledged; ${staleLater} stale ${seconds} s later`,
    );
  }
  await Promise.all(hosts.map((host) => host.stop()));
  await network.kill();
  await server.stop();
  return results;
}

/** Reads of what the host has, in one process, with each of the given programs of Node.js. */
async function measureMicro() {
  const results = [];
  for (const execPath of nodes) {
    const server = new Server(false);
    await server.start();
    const name = `bench-tier-${process.pid}-micro`;
    const program = new Program("micro.mjs", { server: server.socket, name, seconds }, execPath);
    await program.ready();
    const result = await program.ask("measure");
    await program.kill();
    await server.stop();
    results.push(result);
    const lines = Object.entries(result.ns).map(([what, ns]) => `${what} ${ns.toFixed(1)} ns`);
    console.log(`  Node.js ${result.node}: ${lines.join(", ")}`);
  }
  return results;
}

/** The contenders in turns: forwards, then backwards. */
function inTurns(round) {
  return round % 2 === 0 ? contenders : [...contenders].reverse();
}

const machine = describeMachine();
const settings = {
  seconds,
  rounds,
  memory,
  keys,
  processes,
  plenty: PLENTY * MIB,
  pace: PACE,
  writes: writeParts,
  usualWrites,
  contenders,
  server: serverVersion(),
};
const results = { machine, date: new Date().toISOString(), settings };

/** Measures one part, if it was asked for, and writes what there is up to now: what fails later does not lose it. */
async function part(name, measure) {
  if (!parts.includes(name)) return;
  results[name] = await measure();
  results.bytesOfOne = Object.fromEntries(sizes);
  writeFileSync(path.join(out, "tier.json"), `${JSON.stringify(results, null, 2)}\n`);
  writeFileSync(path.join(out, "tier.md"), report(results));
}

await part("micro", measureMicro);
await part("work", async () => {
  const rows = [];
  for (const [size, writes] of [...writeParts.map((writes) => [memory, writes]), [PLENTY * MIB, usualWrites]]) {
    const row = { memory: size, writes, contenders: {} };
    for (const name of contenders) {
      console.log(`work, ${name}`);
      row.contenders[name] = await measureWork(name, "large", size, writes);
    }
    rows.push(row);
  }
  return rows;
});
await part("staleness", async () => {
  const staleness = {};
  for (const name of contenders) {
    console.log(`staleness, ${name}`);
    staleness[name] = await measureStaleness(name);
  }
  return staleness;
});
await part("speed", async () => {
  const speed = {};
  for (const kind in VALUES) {
    speed[kind] = Object.fromEntries(contenders.map((name) => [name, []]));
    for (let round = 0; round < rounds; round++) {
      for (const name of inTurns(round)) {
        console.log(`speed, ${name}`);
        speed[kind][name].push(await measureSpeed(name, kind));
      }
    }
  }
  return speed;
});
console.log(`\n${path.join(out, "tier.md")}`);
process.exit();
