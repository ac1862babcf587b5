/**
 * Two hosts with one Redis or Valkey behind them. Each host is simulated: a cache of its own name, and two processes that read prices
 * through it. You see a write arrive everywhere, the owner of a host killed, and the server killed and started again. At the end
 * stands how stale the reads were. It takes about 22 seconds, and needs the program `redis-server` or `valkey-server`.
 *
 *     npm install cache-machine redis
 *     node examples/17-tier/main.mjs
 *
 * process.mjs is what an application would do. The other files start it, measure and show.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { destroyCache } from "cache-machine";
import { createClient } from "redis";
import { Hosts, readsPerSecond } from "./hosts.mjs";
import { Books, now } from "./measure.mjs";
import { count, ms, Screen } from "./screen.mjs";
import { Commands, findServer, Server } from "./server.mjs";
import { printSummary } from "./summary.mjs";

const SECONDS = 22;
/** The default of the option `lease` of openTier: no read is staler. */
const LEASE_MS = 1000;
const WRITE_MS = 200;
const SERVER_AWAY_MS = 2500;
const WATCHDOG_MS = 15_000;
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 };

let program;
try {
  program = findServer();
} catch ({ message }) {
  console.error(message);
  process.exit(1);
}

const screen = new Screen();
const folder = mkdtempSync(join(tmpdir(), "tier-"));
const server = new Server(program, folder);
const books = new Books();
const hosts = new Hosts(server, books);
const stop = new AbortController();
let exitCode;
let isWriting = true;
for (const [signal, code] of Object.entries(EXIT_CODES)) {
  process.on(signal, () => {
    exitCode = code;
    stop.abort();
  });
}
process.stdout.on("error", () => stop.abort());

let began = now();
const seconds = () => (now() - began) / 1000;
const tell = (...lines) => screen.event(seconds(), ...lines);

try {
  const results = await run();
  screen.clear();
  exitCode = printSummary(screen, { books, hosts, lease: LEASE_MS, ...results }) ? 0 : 1;
} catch (error) {
  screen.clear();
  if (!stop.signal.aborted) screen.print(screen.red(error.stack));
  exitCode ??= 1;
} finally {
  await hosts.end();
  await server.kill();
  rmSync(folder, { recursive: true, force: true });
  destroyCache("example-tier-" + "A");
  destroyCache("example-tier-" + "B");
  screen.close();
}
process.exit(exitCode);

async function run() {
  await server.start();
  const client = createClient({ socket: { path: server.socket }, disableOfflineQueue: true });
  client.on("error", () => {});
  await client.connect();
  const commands = new Commands(client);
  const timers = [];
  try {
    screen.print(
      "",
      screen.bold("  Two hosts of two processes each, and one server behind them"),
      `  ${program}, process ${server.pid}`,
      "",
    );
    await Promise.race([Promise.all(["A", "A", "B", "B"].map((host) => hosts.start(host))), hosts.failure]);
    await until(isQuiet);
    began = now();
    const draw = () => screen.progress(seconds(), SECONDS, hosts.processes, serverLine(commands));
    timers.push(
      setInterval(draw, 100),
      setInterval(() => commands.ask(), 500),
    );
    const results = await Promise.race([story(), hosts.failure]);
    await commands.ask();
    return { ...results, commands: commands.count };
  } finally {
    for (const timer of timers) clearInterval(timer);
    isWriting = false;
    client.destroy();
  }
}

/** What happens, with the times at which it shall. */
async function story() {
  await reach(2);
  tell(
    "Everybody reads prices: from the memory of the host, or else from",
    "the server, or else from the database, which lies in the driver.",
  );
  await reach(3.5);
  await showWrite();
  await reach(5.5);
  tell(`From now on some process writes a new price every ${WRITE_MS} ms.`);
  const writing = writeOn();
  // Also when the story has ended by then.
  writing.catch(() => {});

  await reach(7.5);
  const owner = await killOwner("B");
  await reach(10);
  const { pid } = await hosts.start("B");
  tell(`Process ${pid} starts on host B, as a process manager would do it.`);

  await reach(12);
  const away = await restartServer();

  await reach(20);
  isWriting = false;
  await writing;
  await showWrite();
  await reach(SECONDS);
  return { owner, away };
}

/** One write, and when the processes see it. */
async function showWrite() {
  const [writer] = hosts.alive("A");
  const { version, error } = await hosts.write(writer);
  // The connection of this process may not be back yet.
  if (error === "ERR_UNREACHABLE") return pause(WRITE_MS).then(showWrite);
  const seenOn = (host) => hosts.alive(host).map(({ pid }) => books.seenAfter(pid, version));
  await until(() => ["A", "B"].every((host) => seenOn(host).every((after) => after !== undefined)));
  const [onA, onB] = ["A", "B"].map((host) => `on host ${host} after ${seenOn(host).map(ms).join(" and ")}`);
  tell(`Process ${writer.pid} of host A writes price #${version}. It is seen`, `${onA}, ${onB}.`);
}

async function writeOn() {
  while (isWriting) {
    await hosts.write();
    await pause(WRITE_MS);
  }
}

/** Kills the owner of a host, as `kill -9` does; when, and how long it took until the next one heard all changes. */
async function killOwner(host) {
  const victim = hosts.owner(host);
  const at = now();
  tell(screen.red(`kill -9 ${victim.pid}`) + `: that was the owner of host ${host}.`);
  await hosts.kill(victim);
  await until(() => hosts.owner(host));
  const took = hosts.owner(host).tookOver - at;
  const stale = books.staleness().at(-1) ?? 0;
  tell(`${hosts.owner(host).pid} took over after ${ms(took)}. The stalest read so far: ${ms(stale)}.`);
  return { at, took };
}

/** Kills the server and starts an empty one; how long it was away, what the reads did meanwhile, and when all was well again. */
async function restartServer() {
  const total = (name) => hosts.processes.reduce((sum, one) => sum + one[name], 0);
  const before = { memory: total("memory"), source: total("source") };
  const at = now();
  tell(screen.red(`kill -9 ${server.pid}`) + ": that was the server. Reads go on, writes are refused.");
  await server.kill();
  await pause(SERVER_AWAY_MS);
  await server.start();
  hosts.tellServer();
  const back = now();
  tell(`A new server has started as ${server.pid}, and is empty.`);
  const during = { memory: total("memory") - before.memory, source: total("source") - before.source };
  await until(isQuiet);
  const recovered = now() - back;
  tell(`Both hosts have their lease again, ${ms(recovered)} after the start.`);
  return { at, lasted: back - at, recovered, ...during };
}

/** Every host has an owner, and every process may use its memory. */
function isQuiet() {
  return ["A", "B"].every((host) => hosts.owner(host)) && hosts.alive().every(({ isGood }) => isGood);
}

function serverLine(commands) {
  const reads = hosts.alive().reduce((sum, one) => sum + readsPerSecond(one), 0);
  if (!server.isAlive) return `${screen.red("the server is away")}; ${count(reads)} reads/s`;
  return `server: ${count(commands.perSecond)} commands/s for ${count(reads)} reads/s`;
}

/** Waits for a moment of the story. */
function reach(second) {
  return pause(Math.max(0, 1000 * (second - seconds())));
}

function pause(time) {
  return sleep(time, undefined, { signal: stop.signal });
}

async function until(condition) {
  const end = now() + WATCHDOG_MS;
  while (!condition()) {
    if (now() > end) throw new Error(`not within ${ms(WATCHDOG_MS)}: ${condition}`);
    await pause(5);
  }
}
