/** The programs of a run: the server, the network, and the processes of the simulated hosts. All of them end when the run ends. */

import { execFileSync, fork } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { destroyCache } from "../../dist/index.js";
import { startServers } from "../servers.mjs";
import { CONTENDERS } from "./contenders.mjs";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const children = new Set();
const caches = new Set();

/** The folder of the run, for sockets and files of the server. */
export const folder = mkdtempSync(path.join(os.tmpdir(), "bench-tier-"));

process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
  for (const name of caches) destroy(name);
  rmSync(folder, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

function destroy(name) {
  caches.delete(name);
  try {
    destroyCache(name);
  } catch {}
}

/** A program of this folder that does tasks: `{ id, task, args }` → `{ id, result }` or `{ id, error }`. */
export class Program {
  #child;
  #next = 0;
  #waiting = new Map();
  #ready;

  constructor(file, argument, execPath = process.execPath) {
    const child = fork(path.join(HERE, file), [JSON.stringify(argument)], {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
      serialization: "advanced",
      execPath,
    });
    this.#child = child;
    children.add(child);
    this.ended = new Promise((resolve) => child.once("exit", () => resolve(children.delete(child))));
    this.#ready = new Promise((resolve, reject) => {
      this.#waiting.set("ready", { resolve, reject });
      child.on("message", ({ id = "ready", result, error }) => {
        const { resolve, reject } = this.#waiting.get(id);
        this.#waiting.delete(id);
        if (error === undefined) resolve(result);
        else reject(new Error(error));
      });
      child.once("exit", (code, signal) => {
        for (const { reject } of this.#waiting.values()) reject(new Error(`${file} ended with ${signal ?? code}`));
      });
    });
    this.#ready.catch(() => {});
  }

  get pid() {
    return this.#child.pid;
  }

  ready() {
    return this.#ready;
  }

  ask(task, args = {}) {
    const id = this.#next++;
    const answer = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.#child.send({ id, task, args }, (error) => error && this.#waiting.get(id)?.reject(error));
    return answer;
  }

  async kill() {
    this.#child.kill("SIGKILL");
    await this.ended;
  }
}

/** The version of redis-server. */
export function serverVersion() {
  const text = execFileSync(process.env.REDIS_SERVER ?? "redis-server", ["--version"], { encoding: "utf8" });
  return /v=(\S+)/.exec(text)[1];
}

/** The server of one contender: a real one, with nothing in it. */
export class Server {
  #arguments;
  #servers;
  #folder = mkdtempSync(path.join(folder, "server-"));

  /** @param {boolean} isDurable whether what it acknowledged outlives its end */
  constructor(isDurable) {
    this.#arguments = isDurable ? ["--appendonly", "yes", "--appendfsync", "always"] : [];
  }

  async start() {
    rmSync(this.socket, { force: true });
    this.#servers = await startServers(this.#folder, ["redis"], this.#arguments);
    if (this.#servers.sockets.redis === undefined) throw new Error("redis-server does not start; is it installed?");
  }

  get socket() {
    return path.join(this.#folder, "redis.sock");
  }

  get pid() {
    return this.#servers.pids.redis;
  }

  /** Ends the server as a crash does. */
  stop() {
    return this.#servers.stop();
  }

  /** Microseconds of processor that the server has used. */
  cpu() {
    // Behind the name, which may have spaces: state is field 3, utime and stime are fields 14 and 15, in ticks of 10 ms.
    const fields = readFileSync(`/proc/${this.pid}/stat`, "latin1").split(") ")[1].split(" ");
    return (Number(fields[11]) + Number(fields[12])) * 10_000;
  }
}

/** A simulated host: processes that use the contender, with one memory for all of them or a part for each. */
export class Host {
  processes = [];
  #argument;
  #name;

  constructor(contender, options, name) {
    this.#name = `bench-tier-${process.pid}-${name}`;
    this.#argument = { contender, options: { ...options, host: this.#name } };
    if (CONTENDERS[contender].ours) caches.add(this.#name);
  }

  async start(count) {
    const started = Array.from({ length: count }, () => new Program("participant.mjs", this.#argument));
    await Promise.all(started.map((one) => one.ready()));
    await Promise.all(started.map((one) => one.ask("settle")));
    this.processes.push(...started);
    return started;
  }

  /** Kills one process, and starts another in its place. */
  async replace(victim) {
    await victim.kill();
    this.processes = this.processes.filter((one) => one !== victim);
    const [started] = await this.start(1);
    return started;
  }

  /** The process that listens to the server for this host; if there is none, the first. */
  async owner() {
    const pid = await this.processes[0].ask("owner");
    return this.processes.find((one) => one.pid === pid) ?? this.processes[0];
  }

  /** Asks all processes for the same, each with its place. */
  ask(task, args, first = 0) {
    return Promise.all(this.processes.map((one, i) => one.ask(task, { ...args, place: first + i })));
  }

  async stop() {
    await Promise.all(this.processes.map((one) => one.kill()));
    this.processes = [];
    destroy(this.#name);
  }
}

/** Bytes of memory of a process, shared pages divided among those that share them. */
export function memoryOf(pid) {
  return Number(/^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))[1]) * 1024;
}
