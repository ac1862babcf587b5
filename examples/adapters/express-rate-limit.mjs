/**
 * express-rate-limit in an Express application that four processes serve. With its own MemoryStore each process counts for itself,
 * so a client gets up to four times the limit. With a store on a shared cache they count together.
 *
 *     node examples/adapters/express-rate-limit.mjs
 *
 * It prints:
 *
 *     4 processes, 20 requests, a limit of 10
 *     MemoryStore: 20 allowed
 *     CacheMachineStore: 10 allowed
 *     after all processes were replaced: 0 allowed
 */

import cluster from "node:cluster";
import { once } from "node:events";
import { destroyCache, openCache } from "cache-machine";
import { CacheMachineStore } from "cache-machine/express-rate-limit";
import express from "express";
import { rateLimit } from "express-rate-limit";

const LIMIT = 10;
const REQUESTS = 20;

if (cluster.isPrimary) {
  // Each worker in turn gets a connection. The other way leaves the choice to the kernel.
  cluster.schedulingPolicy = cluster.SCHED_RR;

  const startAll = async () => {
    const workers = Array.from({ length: 4 }, () => cluster.fork());
    const [{ port }] = await Promise.all(workers.map(async (worker) => (await once(worker, "listening"))[0]));
    const stopAll = async () => {
      for (const worker of workers) worker.kill();
      await Promise.all(workers.map((worker) => once(worker, "exit")));
    };
    return { url: `http://127.0.0.1:${port}`, stopAll };
  };
  const allowed = async (url) => {
    const ask = async () => (await fetch(url, { headers: { connection: "close" } })).status;
    const statuses = await Promise.all(Array.from({ length: REQUESTS }, ask));
    return `${statuses.filter((status) => status === 200).length} allowed`;
  };

  const first = await startAll();
  console.log(`4 processes, ${REQUESTS} requests, a limit of ${LIMIT}`);
  console.log(`MemoryStore: ${await allowed(`${first.url}/alone`)}`);
  console.log(`CacheMachineStore: ${await allowed(`${first.url}/together`)}`);
  await first.stopAll();

  const second = await startAll();
  console.log(`after all processes were replaced: ${await allowed(`${second.url}/together`)}`);
  await second.stopAll();
  destroyCache("example-express-rate-limit");
} else {
  const cache = openCache("example-express-rate-limit", { size: "1mb" });
  const rule = { limit: LIMIT, windowMs: 60_000 };

  const app = express();
  app.get("/alone", rateLimit(rule), (_, response) => response.end());
  app.get("/together", rateLimit({ ...rule, store: new CacheMachineStore(cache) }), (_, response) => response.end());
  app.listen(0, "127.0.0.1");
}
