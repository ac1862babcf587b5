/**
 * The metrics of one cache in four workers of `node:cluster`, with prom-client: each worker tells the numbers of the whole host, and
 * the `AggregatorRegistry` of the primary does not multiply them. One worker is killed, and no counter goes back.
 *
 *     node examples/18-metrics/main.mjs
 *
 * With `PORT=9100` it goes on until Ctrl-C, under a load of its own, for Prometheus to scrape http://127.0.0.1:9100/metrics.
 * dashboard.json is a dashboard for Grafana: import it there, and choose the data source.
 */

import cluster from "node:cluster";
import { once } from "node:events";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { destroyCache, openCache } from "cache-machine";
import { collectMetrics } from "cache-machine/prom-client";
import client from "prom-client";

const NAME = "example-metrics";
const WORKERS = 4;
const port = Number(process.env.PORT ?? 0);

if (cluster.isPrimary) await lead();
else serve();

/** A worker: answers the primary's questions for metrics, and reads pages. */
function serve() {
  const cache = openCache(NAME, { size: "8mb" });
  collectMetrics(cache, { client });
  // Ctrl-C is for the primary, which ends the workers.
  process.on("SIGINT", () => {});
  // In each worker: it answers the primary.
  new client.AggregatorRegistry();
  process.on("message", async ({ pages }) => {
    if (pages === undefined) return;
    for (let i = 0; i < pages; i++) await cache.getOrSet(`/page/${i}`, () => "x".repeat(500));
    process.send({ read: pages });
  });
  process.send({ ready: true });
}

async function lead() {
  const aggregator = new client.AggregatorRegistry();
  const server = createServer(async (_, response) => {
    try {
      const text = await aggregator.clusterMetrics();
      response.setHeader("Content-Type", aggregator.contentType).end(text);
    } catch (error) {
      response.writeHead(503).end(error.message);
    }
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${server.address().port}/metrics`;

  const workers = await Promise.all(Array.from({ length: WORKERS }, start));
  for (const worker of workers) await read(worker, 100);
  await show(`${WORKERS} workers, each of which has read 100 pages`, url);

  const [victim] = workers;
  victim.process.kill("SIGKILL");
  await once(victim, "exit");
  workers[0] = await start();
  await read(workers[0], 100);
  await show("one was killed, and its successor has read them too", url);

  if (port !== 0) await goOn(workers, url);
  server.close();
  for (const worker of workers) worker.kill();
  await Promise.all(workers.map((worker) => once(worker, "exit")));
  destroyCache(NAME);
}

async function start() {
  const worker = cluster.fork();
  await once(worker, "message");
  return worker;
}

/** Lets a worker read pages, and waits until it has. */
async function read(worker, pages) {
  worker.send({ pages });
  for (;;) if ((await once(worker, "message"))[0].read === pages) return;
}

/** Scrapes, and prints what was counted. */
async function show(what, url) {
  const text = await (await fetch(url)).text();
  const value = (metric) =>
    text
      .split("\n")
      .find((line) => line.startsWith(`cache_machine_${metric}`))
      ?.split(" ")
      .at(-1);
  const hits = value(`requests_total{cache="${NAME}",result="hit"}`);
  const misses = value(`requests_total{cache="${NAME}",result="miss"}`);
  console.log(
    `${what}: ${hits} hits, ${misses} misses, ${value("sets_total")} sets, ${value("participants")} participants`,
  );
}

/** A load to look at, until Ctrl-C. */
async function goOn(workers, url) {
  console.log(`${url}, until Ctrl-C`);
  const over = new AbortController();
  process.once("SIGINT", () => over.abort());
  while (!over.signal.aborted) {
    await Promise.all(workers.map((worker) => read(worker, Math.floor(Math.random() * 20_000))));
    await sleep(200);
  }
}
