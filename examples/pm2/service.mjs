/**
 * Runs the service under pm2. This is a pm2 of its own with its home in a temporary folder, so that neither the user's pm2 nor another
 * run of this example is affected. It does not use the network.
 */

import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { processes } from "./settings.mjs";

/** Time limit for a process until it listens. */
const LISTEN_MS = 20_000;

export class Service {
  #home;
  #pm2;

  /** @param home the folder for the sockets, logs and lists of this pm2 */
  constructor(home) {
    this.#home = home;
  }

  /** Starts all processes and waits until each of them listens; returns the port. */
  async start() {
    // pm2 reads these when it is loaded.
    Object.assign(process.env, { PM2_HOME: this.#home, PM2_NO_INTERACTION: "true", PM2_DISABLE_VERSION_CHECK: "true" });
    const { default: pm2 } = await import("pm2");
    this.#pm2 = pm2;
    await this.#call("connect");
    const port = await freePort();
    await this.#call("start", {
      name: "docs",
      script: fileURLToPath(new URL("./server.mjs", import.meta.url)),
      exec_mode: "cluster",
      instances: processes,
      wait_ready: true,
      listen_timeout: LISTEN_MS,
      // Without pm2's instrumentation, which this example does not need.
      pmx: false,
      env: { PORT: String(port) },
    });
    return port;
  }

  /** The processes as `{ name, pid }`. */
  async list() {
    const list = await this.#call("list");
    return list.map(({ pid, pm2_env }) => ({ name: `docs-${pm2_env.NODE_APP_INSTANCE}`, pid }));
  }

  /** Ends all processes and pm2's daemon. */
  async stop() {
    if (this.#pm2 === undefined) return;
    await this.#call("killDaemon");
    this.#pm2.disconnect();
  }

  /** The error logs of all processes. */
  errors() {
    const logs = join(this.#home, "logs");
    if (!existsSync(logs)) return "";
    const files = readdirSync(logs).filter((file) => file.includes("error"));
    return files.map((file) => readFileSync(join(logs, file), "utf8")).join("");
  }

  #call(method, ...args) {
    return promisify(this.#pm2[method]).call(this.#pm2, ...args);
  }
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}
