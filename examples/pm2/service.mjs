/**
 * Starts and stops the service under pm2: a pm2 of our own with its home in a temporary folder, so that neither the
 * user's pm2 nor another run of this example is touched. Nothing of it goes to the network.
 */

import { once } from "node:events";
import { mkdtempSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { processes } from "./settings.mjs";

/** Where this pm2 has its sockets, its logs and its lists. */
export const home = mkdtempSync(join(tmpdir(), "pm2-example-"));

/** Starts all processes and waits until each of them listens; returns the port. */
export async function startService(pm2) {
  const port = await freePort();
  await promisify(pm2.connect).call(pm2);
  await promisify(pm2.start).call(pm2, {
    name: "docs",
    script: fileURLToPath(new URL("./server.mjs", import.meta.url)),
    exec_mode: "cluster",
    instances: processes,
    wait_ready: true,
    listen_timeout: 20_000,
    kill_timeout: 3_000,
    // No instrumentation: this is about the cache.
    pmx: false,
    env: { PORT: String(port) },
  });
  return port;
}

/** pm2 as a module, which reads these when it is loaded. */
export async function loadPm2() {
  Object.assign(process.env, { PM2_HOME: home, PM2_NO_INTERACTION: "true", PM2_DISABLE_VERSION_CHECK: "true" });
  return (await import("pm2")).default;
}

/** The processes as `{ name, pid }`, in the order of their names. */
export async function listProcesses(pm2) {
  const list = await promisify(pm2.list).call(pm2);
  return list
    .map(({ pid, pm2_env }) => ({ name: `docs-${pm2_env.NODE_APP_INSTANCE}`, pid }))
    .sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
}

/** Ends all processes, then pm2's daemon. */
export async function stopService(pm2) {
  await promisify(pm2.killDaemon).call(pm2);
  pm2.disconnect();
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}
