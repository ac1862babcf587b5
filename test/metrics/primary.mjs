/** The primary of hosts.test.ts: four workers, of which it kills one; it prints the aggregated metrics before and after that. */

import cluster from "node:cluster";
import { once } from "node:events";
import client from "prom-client";

const WORKERS = 4;
cluster.setupPrimary({ exec: new URL("worker.mjs", import.meta.url).pathname });
const aggregator = new client.AggregatorRegistry();

async function start() {
  const worker = cluster.fork();
  await once(worker, "message");
  return worker;
}

async function work(worker, count) {
  worker.send({ count });
  for (;;) if ((await once(worker, "message"))[0].worked === count) return;
}

const workers = await Promise.all(Array.from({ length: WORKERS }, start));
await Promise.all(workers.map((worker, i) => work(worker, 100 * (i + 1))));
const before = await aggregator.clusterMetrics();

const [victim] = workers;
const gone = once(victim, "exit");
process.kill(victim.process.pid, "SIGKILL");
await gone;
// Workers that find the dead one at the same moment may count it once more: one of them is still freeing its seat.
let killed = "";
for (let tries = 0; tries < 100 && !/participants\{.*\} 4$/m.test(killed); tries++)
  killed = await aggregator.clusterMetrics();

await work(await start(), 50);
const replaced = await aggregator.clusterMetrics();
console.log(JSON.stringify({ before, killed, replaced }));
for (const worker of Object.values(cluster.workers)) worker.kill("SIGKILL");
