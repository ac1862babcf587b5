/** The server of this example: a redis-server or valkey-server of its own, on a socket in a temporary folder, in memory only. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants, existsSync, rmSync } from "node:fs";
import { delimiter, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const NAMES = ["redis-server", "valkey-server"];
const START_MS = 10_000;
/** Where `scripts/install-redis-server.sh` puts them in a checkout. */
const TOOLS = fileURLToPath(new URL("../../.tools/bin", import.meta.url));

/** The path of a server program: `REDIS_SERVER`, or the first one in `PATH`. */
export function findServer() {
  const named = process.env.REDIS_SERVER;
  const folders = [...(process.env.PATH ?? "").split(delimiter), "/usr/bin", "/usr/local/bin", TOOLS];
  const files = named ? [named] : NAMES.flatMap((name) => folders.map((folder) => join(folder, name)));
  const program = files.find(isProgram);
  if (program !== undefined) return program;
  if (named) throw new Error(`REDIS_SERVER is ${named}, and that is no program.`);
  throw new Error(`This example starts a server of its own, and finds no ${NAMES.join(" and no ")}. Install one:

  apt install redis-server             Debian, Ubuntu
  dnf install valkey                   Fedora
  apk add valkey                       Alpine
  sh scripts/install-redis-server.sh   in a checkout, on Debian, without a service

or say where it is: REDIS_SERVER=/path/to/redis-server node examples/17-tier/main.mjs`);
}

function isProgram(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export class Server {
  #program;
  #folder;
  #child;

  constructor(program, folder) {
    this.#program = program;
    this.#folder = folder;
  }

  /** The socket on which the server listens. */
  get socket() {
    return join(this.#folder, "socket");
  }

  get pid() {
    return this.#child?.pid;
  }

  get isAlive() {
    return this.pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async start() {
    // The socket of a server that was killed is still there.
    rmSync(this.socket, { force: true });
    const settings = { port: "0", unixsocket: this.socket, save: "", appendonly: "no", dir: this.#folder };
    const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]);
    // In a process group of its own, because Ctrl-C is for the driver, which ends the server at the end.
    this.#child = spawn(this.#program, args, { detached: true, stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    for (const stream of [this.#child.stdout, this.#child.stderr]) stream.on("data", (text) => (said += text));
    let error;
    this.#child.on("error", (reason) => (error = reason));
    const end = performance.now() + START_MS;
    while (!existsSync(this.socket)) {
      if (error) throw error;
      if (!this.isAlive || performance.now() > end) throw new Error(`${this.#program} does not start:\n${said}`);
      await sleep(5);
    }
  }

  /** Kills the server, like a crash. It has saved nothing, so the next one starts empty. */
  async kill() {
    if (!this.isAlive) return;
    const exit = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await exit;
  }
}

/** How many commands the servers of this run have executed, without those of this object. */
export class Commands {
  #client;
  #own = 0;
  #earlier = 0;
  #now = 0;
  #before = { at: 0, count: 0 };
  perSecond = 0;

  constructor(client) {
    this.#client = client;
  }

  get count() {
    return this.#earlier + this.#now;
  }

  /** Asks the server. To be called about once a second. */
  async ask() {
    const info = await this.#client.sendCommand(["INFO", "stats"]).catch(() => "");
    const [, said] = /total_commands_processed:(\d+)/.exec(info) ?? [];
    if (said === undefined) return;
    const count = Number(said) - ++this.#own;
    if (count < this.#now) this.#restarted();
    this.#now = Number(said) - this.#own;
    const at = performance.now();
    if (this.#before.at > 0) this.perSecond = (1000 * (this.count - this.#before.count)) / (at - this.#before.at);
    this.#before = { at, count: this.count };
  }

  #restarted() {
    this.#earlier += this.#now;
    this.#own = 1;
  }
}
