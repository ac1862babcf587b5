/**
 * The application of living-pm2.test.ts, which pm2 runs in several processes. Each process reads `application.json` when it starts:
 * it stands for the code of the application, which a deploy replaces. Pages are loaded once for all processes, and each load is a
 * line of `loads.txt`.
 */

import cluster from "node:cluster";
import { appendFileSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const { DIRECTORY, PORT, MODULE } = process.env;
const { openCache } = await import(MODULE);
const { name, size, version, watch } = JSON.parse(readFileSync(`${DIRECTORY}/application.json`, "utf8"));

const open = () => openCache(name, { path: DIRECTORY, size });
let whole = open();
const pages = () => (version === undefined ? whole : whole.namespace(version));

// The recipe of docs/operations.md. The old cache is not closed: loads in it go on, and it is closed when it is collected.
if (watch) setInterval(() => whole.destroyed && (whole = open()), 100);

async function load(key) {
  appendFileSync(`${DIRECTORY}/loads.txt`, `${whole.stats().size} ${version ?? "-"} ${key}\n`);
  await sleep(20);
  return { page: key, version };
}

const server = createServer(async (request, response) => {
  const key = request.url.slice(1);
  const { destroyed } = whole;
  const value = await pages().getOrSet(key, () => load(key), { ttl: 600_000 });
  response.end(JSON.stringify({ pid: process.pid, size: whole.stats().size, version, value, destroyed }));
});

// pm2 sends SIGINT once the next process is ready. `disconnect` closes the server, waits for its last answer, and waits until pm2 gives
// this process no more connections. With `server.close(() => process.exit())` the connection that is under way would be lost.
process.on("SIGINT", () => cluster.worker.disconnect());
cluster.worker.once("disconnect", () => process.exit());
server.listen(PORT, "127.0.0.1", () => process.send("ready"));
