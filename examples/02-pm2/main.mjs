/**
 * Two processes under pm2 share one cache. This example starts a pm2 of its own, so that yours is not affected. With yours, the
 * command would be `pm2 start server.mjs -i 2`.
 *
 *     node examples/02-pm2/main.mjs
 */

import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { destroyCache } from "cache-machine";

// pm2 reads this variable when it is loaded.
const home = (process.env.PM2_HOME = mkdtempSync(join(tmpdir(), "example-pm2-")));
const { default: pm2 } = await import("pm2");
const call = (method, ...args) => promisify(pm2[method]).call(pm2, ...args);

try {
  await call("connect");
  const port = await freePort();
  const script = fileURLToPath(new URL("server.mjs", import.meta.url));
  const env = { PORT: String(port) };
  await call("start", { name: "pages", script, exec_mode: "cluster", instances: 2, wait_ready: true, pmx: false, env });

  // pm2 gives each connection to the next process.
  const ask = async () => (await fetch(`http://127.0.0.1:${port}/a`, { headers: { connection: "close" } })).text();
  for (let i = 0; i < 4; i++) process.stdout.write(await ask());

  const [first] = await call("list");
  process.kill(first.pid, "SIGKILL");
  console.log(`process ${first.pid} is killed`);
  while ((await call("list")).some(({ pid, pm2_env }) => pid === first.pid || pm2_env.status !== "online"));
  for (let i = 0; i < 4; i++) process.stdout.write(await ask());
} finally {
  await call("killDaemon");
  pm2.disconnect();
  rmSync(home, { recursive: true, force: true });
  destroyCache("example-pm2");
}
// The client of pm2 would keep this process running.
process.exit();

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}
