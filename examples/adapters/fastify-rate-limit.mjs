/**
 * @fastify/rate-limit in a Fastify application that four processes serve. They count together, also for a route with a limit of its
 * own, where each refused login doubles the time until the next one.
 *
 *     node examples/adapters/fastify-rate-limit.mjs
 *
 * It prints:
 *
 *     4 processes, 40 requests for /, a limit of 10: 10 allowed
 *     a login: 200
 *     a login: 200
 *     a login: 429, come again in 60 seconds
 *     a login: 429, come again in 120 seconds
 *     a login: 429, come again in 240 seconds
 */

import cluster from "node:cluster";
import { once } from "node:events";
import rateLimit from "@fastify/rate-limit";
import { destroyCache, openCache } from "cache-machine";
import { createStore } from "cache-machine/fastify-rate-limit";
import Fastify from "fastify";

const LIMIT = 10;
const REQUESTS = 40;

if (cluster.isPrimary) {
  // Each worker in turn gets a connection. The other way leaves the choice to the kernel.
  cluster.schedulingPolicy = cluster.SCHED_RR;
  const workers = Array.from({ length: 4 }, () => cluster.fork());
  const [{ port }] = await Promise.all(workers.map(async (worker) => (await once(worker, "listening"))[0]));
  const ask = (where) => fetch(`http://127.0.0.1:${port}${where}`, { headers: { connection: "close" } });

  const answers = await Promise.all(Array.from({ length: REQUESTS }, () => ask("/")));
  const allowed = answers.filter(({ status }) => status === 200).length;
  console.log(`4 processes, ${REQUESTS} requests for /, a limit of ${LIMIT}: ${allowed} allowed`);
  for (let i = 0; i < 5; i++) {
    const { status, headers } = await ask("/login");
    const wait = headers.get("retry-after");
    console.log(`a login: ${status}${wait === null ? "" : `, come again in ${wait} seconds`}`);
  }

  for (const worker of workers) worker.kill();
  await Promise.all(workers.map((worker) => once(worker, "exit")));
  destroyCache("example-fastify-rate-limit");
} else {
  const cache = openCache("example-fastify-rate-limit", { size: "1mb" });
  const fastify = Fastify();
  await fastify.register(rateLimit, { max: LIMIT, timeWindow: "1 minute", store: createStore(cache) });

  fastify.get("/", async () => "hello");
  const login = { max: 2, timeWindow: "1 minute", exponentialBackoff: true };
  fastify.get("/login", { config: { rateLimit: login } }, async () => "welcome");
  await fastify.listen({ port: 0, host: "127.0.0.1" });
}
