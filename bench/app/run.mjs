/**
 * The application benchmark: a service of four processes, with a source that takes 5 ms and counts its calls, under zipfian requests.
 * Compares caches that get the same memory in total: `npm run bench:app`. Takes about five minutes on two cores. Needs Linux and
 * redis-server.
 *
 *   --only lru-cache,cache-machine   only these contenders
 *   --seconds 10                     length of the phase "warm"; the others depend on it
 *   --memory 32                      MiB in total, near caches and server included
 *   --keys 50000                     number of items, of about 1 kB each
 *   --out folder                     where app.md and app.json go (bench/results)
 *
 * The phases: *cold*, all processes start at once and are under load at once; *warming*, not shown; *warm*; *killed*, one process is
 * killed with SIGKILL and started again; *reloaded*, all processes are replaced one after another, as `pm2 reload` does.
 */

import { execFileSync, fork } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import autocannon from "autocannon";
import { destroyCache } from "../../dist/index.js";
import { zipfianOrder } from "../random.mjs";
import { describeMachine } from "../report.mjs";
import { startServers } from "../servers.mjs";
import { CONTENDERS } from "./contenders.mjs";

const PROCESSES = 4;
const CONNECTIONS = 16;
const SOURCE_MS = 5;
const MIB = 2 ** 20;
const HERE = path.dirname(fileURLToPath(import.meta.url));

const text = { type: "string" };
const { values: flags } = parseArgs({
  options: { only: text, seconds: text, memory: text, keys: text, out: text },
});
const only = flags.only?.split(",") ?? Object.keys(CONTENDERS);
for (const name of only) {
  if (!(name in CONTENDERS)) throw new Error(`unknown: ${name}; known are ${Object.keys(CONTENDERS).join(" ")}`);
}
const seconds = Number(flags.seconds ?? 10);
const memory = Number(flags.memory ?? 32) * MIB;
const keys = Number(flags.keys ?? 50_000);
const order = zipfianOrder(keys, 1 << 20, 42);

const folder = mkdtempSync(path.join(os.tmpdir(), "bench-app-"));
const children = new Set();
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

/** Starts a program of this folder; `ready` is its first message. */
function start(file, ...args) {
  const child = fork(path.join(HERE, file), args, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  children.add(child);
  const ended = new Promise((resolve) => child.once("exit", () => resolve(children.delete(child))));
  return { child, ended, ready: answer(child) };
}

/** The next message of a process. */
function answer(child) {
  return new Promise((resolve, reject) => {
    const failed = (code) => reject(new Error(`${child.spawnargs[1]} ended with ${code}`));
    child.once("exit", failed).once("message", (message) => {
      child.off("exit", failed);
      resolve(message);
    });
  });
}

/** Bytes of memory of a process, shared pages divided among those that share them. */
function memoryOf(pid) {
  return Number(/^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))[1]) * 1024;
}

/** The requests of one phase: they go to all services at once, each with its own connections. */
class Load {
  #next = 0;
  #running = [];
  #times = [];
  #failures = 0;
  #distinct = new Set();

  /** Sends requests to a service until {@link stop}. */
  to(port) {
    const instance = autocannon({
      url: `http://127.0.0.1:${port}`,
      connections: CONNECTIONS,
      duration: 3600,
      requests: [
        {
          setupRequest: (request) => {
            const number = order[this.#next++ & (order.length - 1)];
            this.#distinct.add(number);
            return { ...request, path: `/${number}` };
          },
        },
      ],
    });
    const one = { port, instance, stopped: false };
    instance.on("response", (_, status, __, time) => {
      if (status === 200) this.#times.push(time);
      else this.#failures++;
    });
    // A connection that is refused after the requests were stopped is no failed request.
    instance.on("reqError", () => (this.#failures += one.stopped ? 0 : 1));
    instance.on("error", () => {});
    this.#running.push(one);
  }

  /** Ends the requests to one service, or to all. */
  stop(port) {
    for (const one of this.#running) {
      if (port !== undefined && one.port !== port) continue;
      one.stopped = true;
      one.instance.stop();
    }
    this.#running = this.#running.filter(({ stopped }) => !stopped);
  }

  /** What was counted since the last call. */
  take(milliseconds) {
    const times = Float64Array.from(this.#times).sort();
    const at = (part) => times[Math.min(times.length - 1, Math.floor(times.length * part))];
    const result = {
      requests: times.length,
      perSecond: Math.round((times.length / milliseconds) * 1000),
      p50: at(0.5),
      p99: at(0.99),
      failures: this.#failures,
      distinct: this.#distinct.size,
    };
    this.#times = [];
    this.#failures = 0;
    this.#distinct.clear();
    return result;
  }
}

/** Measures one contender through all phases. */
async function measure(contender) {
  const { server = 0 } = CONTENDERS[contender];
  const name = `bench-app-${process.pid}`;
  const place = mkdtempSync(path.join(folder, "run-"));
  const redisArguments = ["--maxmemory", String(Math.floor(memory * server)), "--maxmemory-policy", "allkeys-lru"];
  const servers = await startServers(place, server > 0 ? ["redis"] : [], redisArguments);
  if (server > 0 && servers.sockets.redis === undefined) throw new Error("redis-server is not installed");
  const code = `import(${JSON.stringify(path.join(HERE, "contenders.mjs"))}).then(async (m) => { console.log(await m.heapBytes(${JSON.stringify(contender)})); process.exit(); })`;
  const bytesOfOne = Number(execFileSync(process.execPath, ["--expose-gc", "-e", code], { encoding: "utf8" }));
  const sourcePath = path.join(place, "source.sock");
  const source = start("source.mjs", sourcePath, String(SOURCE_MS));
  await source.ready;
  const calls = async () => {
    const answered = answer(source.child);
    source.child.send("calls");
    return (await answered).calls;
  };
  const options = { memory, processes: PROCESSES, bytesOfOne, name, redis: servers.sockets.redis };
  const startService = async () => {
    const service = start("service.mjs", JSON.stringify({ contender, source: sourcePath, options }));
    return { ...service, port: (await service.ready).port };
  };
  const load = new Load();
  const phases = {};
  const phase = async (title, length, run = () => {}) => {
    const before = await calls();
    load.take(1);
    const since = performance.now();
    await run();
    await sleep(Math.max(0, length * 1000 - (performance.now() - since)));
    const result = load.take(performance.now() - since);
    phases[title] = { ...result, calls: (await calls()) - before };
    const { perSecond, p50, p99, failures } = result;
    console.log(
      `  ${title.padEnd(9)} ${perSecond} requests/s, p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms, ` +
        `${phases[title].calls} calls of the source for ${result.distinct} items${failures > 0 ? `, ${failures} failed` : ""}`,
    );
  };

  const services = await Promise.all(Array.from({ length: PROCESSES }, startService));
  await phase("cold", seconds / 2, () => {
    for (const { port } of services) load.to(port);
  });
  await phase("warming", seconds * 1.5);
  await phase("warm", seconds);
  const processes = services.reduce((sum, { child }) => sum + memoryOf(child.pid), 0);
  const rss = { processes, server: servers.pids.redis === undefined ? 0 : memoryOf(servers.pids.redis) };
  await phase("killed", seconds / 2, async () => {
    const [victim] = services;
    load.stop(victim.port);
    victim.child.kill("SIGKILL");
    await victim.ended;
    services[0] = await startService();
    load.to(services[0].port);
  });
  await phase("reloaded", seconds, async () => {
    for (let i = 0; i < PROCESSES; i++) {
      const old = services[i];
      services[i] = await startService();
      load.to(services[i].port);
      load.stop(old.port);
      await sleep(100);
      old.child.send("stop");
      await old.ended;
    }
  });
  load.stop();
  await sleep(200);
  for (const { child } of services) child.send("stop");
  await Promise.all(services.map(({ ended }) => ended));
  source.child.disconnect();
  await source.ended;
  await servers.stop();
  if (CONTENDERS[contender].ours) destroyCache(name);
  return { phases, memory: rss, bytesOfOne };
}

/** The results as a page. */
function report(results) {
  const { node, processor, cores, load } = results.machine;
  const line = (cells) => `| ${cells.join(" | ")} |`;
  const versions = (name) => {
    const require = createRequire(path.join(HERE, "run.mjs"));
    const manifest = path.join(HERE, "node_modules", name, "package.json");
    return CONTENDERS[name].ours ? require("../../package.json").version : require(manifest).version;
  };
  const names = Object.keys(results.contenders);
  const rows = (title, columns) => [
    `## ${title}`,
    "",
    line(["", ...columns.map(([head]) => head)]),
    `|---|${columns.map(() => "---:|").join("")}`,
    ...names.map((name) =>
      line([
        CONTENDERS[name].ours ? `**${CONTENDERS[name].label}**` : CONTENDERS[name].label,
        ...columns.map(([, value]) => value(results.contenders[name])),
      ]),
    ),
    "",
  ];
  const phase = (title, name) =>
    rows(title, [
      ["requests/s", ({ phases }) => phases[name].perSecond.toLocaleString("en")],
      ["p50, ms", ({ phases }) => phases[name].p50.toFixed(2)],
      ["p99, ms", ({ phases }) => phases[name].p99.toFixed(2)],
      ["calls of the source", ({ phases }) => phases[name].calls.toLocaleString("en")],
      ["per 1,000 requests", ({ phases }) => ((phases[name].calls / phases[name].requests) * 1000).toFixed(1)],
    ]);
  const mib = (bytes) => `${(bytes / MIB).toFixed(0)} MiB`;
  return [
    "# A service with a cache",
    "",
    `An HTTP service of ${PROCESSES} processes answers with items of about 1 kB. Each comes from a source that takes ${SOURCE_MS} ms and counts ` +
      `its calls. The requests are zipfian (exponent 0.99) over ${keys.toLocaleString("en")} items, ${PROCESSES * CONNECTIONS} at a time, as fast as they are ` +
      `answered. Every cache has ${mib(memory)} in total: in the processes, shared, and in the server. Made by \`npm run bench:app\` with Node.js ` +
      `${node.slice(1)} on ${cores} cores of ${processor}, which the load, the source and the server use too (load average ${load.toFixed(1)} at the beginning).`,
    "",
    `Versions: ${names.map((name) => `${name} ${versions(name)}`).join(", ")}.`,
    "",
    ...phase("Cold: all processes start at once", "cold"),
    ...phase("Warm", "warm"),
    ...phase("One process was killed and started again", "killed"),
    ...phase("All processes are replaced, one after another", "reloaded"),
    ...rows("Memory of everything, when warm", [
      ["processes", ({ memory }) => mib(memory.processes)],
      ["server", ({ memory }) => (memory.server > 0 ? mib(memory.server) : "–")],
      ["bytes of one item in the heap", ({ bytesOfOne }) => (bytesOfOne > 0 ? bytesOfOne.toLocaleString("en") : "–")],
    ]),
    "Memory is the proportional set size of the processes, code and heap of Node.js included; pages that processes share count once.",
    "",
  ].join("\n");
}

const results = { machine: describeMachine(), contenders: {} };
for (const name of only) {
  console.log(CONTENDERS[name].label);
  results.contenders[name] = await measure(name);
}
const out = flags.out ?? path.join(HERE, "../results");
mkdirSync(out, { recursive: true });
writeFileSync(path.join(out, "app.json"), `${JSON.stringify(results, null, 2)}\n`);
writeFileSync(path.join(out, "app.md"), report(results));
console.log(`\n${path.join(out, "app.md")}`);
process.exit();
