/** The simulated hosts: starts their processes, is the database for them, and keeps what they report. */

import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { now } from "./measure.mjs";

const DATABASE_MS = 20;
const END_MS = 3000;
const PROCESS = fileURLToPath(new URL("process.mjs", import.meta.url));

export class Hosts {
  /** All processes that were started, those of one host beside each other. */
  processes = [];
  /** Rejects when a process ends that nobody has ended. */
  failure;
  /** The price, as the database has it. The other products never change. */
  version = 0;
  #fail;
  #server;
  #books;
  #turn = 0;

  constructor(server, books) {
    this.#server = server;
    this.#books = books;
    this.failure = new Promise((_, reject) => (this.#fail = reject));
    this.failure.catch(() => {});
  }

  /** Starts a process of a host; resolves when it reads. */
  async start(host) {
    const child = fork(PROCESS, [host, this.#server.socket, String(this.#server.pid)], {
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    const one = { host, pid: child.pid, child, isStarting: true, isEnding: false, wasKilled: false, reports: [] };
    Object.assign(one, { memory: 0, server: 0, source: 0, version: 0, isGood: false, owns: false, leaseLeft: 0 });
    this.processes.push(one);
    this.processes.sort((a, b) => a.host.localeCompare(b.host));
    let complaint = "";
    child.stderr.on("data", (text) => (complaint += text));
    one.exit = once(child, "exit").then(([code]) => {
      if (!one.isEnding) this.#fail(new Error(`Process ${one.pid} of host ${host} ended with ${code}:\n${complaint}`));
    });
    const reads = new Promise((resolve) => (one.reads = resolve));
    child.on("message", ({ type, ...message }) => this.#hear[type](one, message));
    await Promise.race([reads, one.exit]);
    return one;
  }

  /** What the processes say, by its type. */
  #hear = {
    saw: (one, span) => this.#books.saw(one.pid, span),

    ask: (one, { id, product }) => {
      const answer = () => this.#tell(one, { type: "answer", id, value: product === "price" ? this.version : 0 });
      setTimeout(answer, DATABASE_MS);
    },

    wrote: (one, result) => one.wrote?.(result),

    state: (one, { version, first, last, ...state }) => {
      this.#books.saw(one.pid, { version, first, last });
      Object.assign(one, state, { version });
      one.reports.push({ at: now(), reads: readsOf(one) });
      one.reports = one.reports.slice(-10);
      one.isStarting = false;
      one.reads();
    },
  };

  #tell(one, order) {
    if (one.child.connected) one.child.send(order, () => {});
  }

  /** Tells all processes which process the server is. They end it if the driver is killed. */
  tellServer() {
    for (const one of this.alive()) this.#tell(one, { type: "server", pid: this.#server.pid });
  }

  alive(host) {
    return this.processes.filter((one) => !one.isEnding && (host === undefined || one.host === host));
  }

  owner(host) {
    return this.alive(host).find(({ owns }) => owns);
  }

  /** Changes the price: first in the database, then on the server, by a process of a host; resolves when that is over. */
  async write(one = this.#next()) {
    const version = ++this.version;
    const result = new Promise((resolve) => (one.wrote = resolve));
    this.#tell(one, { type: "write", version });
    const wrote = await Promise.race([result, one.exit.then(() => undefined)]);
    // A process that was killed cannot say whether its write was made.
    if (wrote !== undefined) this.#books.wrote({ version, ...wrote });
    return { version, ...wrote };
  }

  #next() {
    const all = this.alive();
    return all[this.#turn++ % all.length];
  }

  async kill(one) {
    one.isEnding = one.wasKilled = true;
    one.owns = one.isGood = false;
    one.child.kill("SIGKILL");
    await one.exit;
  }

  /** Ends all processes: each by itself, or with force after a while. */
  async end() {
    await Promise.all(
      this.alive().map(async (one) => {
        one.isEnding = true;
        this.#tell(one, { type: "end" });
        const force = setTimeout(() => one.child.kill("SIGKILL"), END_MS);
        await one.exit;
        clearTimeout(force);
      }),
    );
  }
}

/** How many reads of a process were answered. */
export function readsOf({ memory, server, source }) {
  return memory + server + source;
}

/** Reads per second, over about the last one. */
export function readsPerSecond({ reports }) {
  const [first, last] = [reports[0], reports.at(-1)];
  return first === undefined || first === last ? 0 : (1000 * (last.reads - first.reads)) / (last.at - first.at);
}
