/**
 * A limit for an API that four processes serve: 20 requests a minute for each client, whichever process gets them. Each answer
 * has the header fields that tell the client what is left.
 *
 * Its limits: it counts on this machine only. If the cache is so small that it evicts, a limit can be forgotten, and then more
 * requests go through, never fewer.
 *
 *     node examples/09-rate-limit.mjs
 */

import cluster from "node:cluster";
import { once } from "node:events";
import { createServer } from "node:http";
import { destroyCache, openCache, rateLimitHeaders } from "cache-machine";

const LIMIT = 20;
const REQUESTS = 60;

if (cluster.isPrimary) {
  // Each worker in turn gets a connection. The other way leaves the choice to the kernel.
  cluster.schedulingPolicy = cluster.SCHED_RR;
  const workers = Array.from({ length: 4 }, () => cluster.fork());
  const [{ port }] = await Promise.all(workers.map(async (worker) => (await once(worker, "listening"))[0]));

  const ask = async () => {
    const response = await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: "close" } });
    return { status: response.status, headers: response.headers, by: await response.text() };
  };
  const answers = await Promise.all(Array.from({ length: REQUESTS }, ask));
  const allowed = answers.filter(({ status }) => status === 200);
  const refused = answers.find(({ status }) => status === 429);
  console.log(`${new Set(answers.map(({ by }) => by)).size} processes answered ${REQUESTS} requests`);
  console.log(`${allowed.length} were allowed, ${REQUESTS - allowed.length} were refused`);
  console.log(`RateLimit-Policy: ${refused.headers.get("RateLimit-Policy")}`);
  console.log(`RateLimit: ${refused.headers.get("RateLimit")}`);
  console.log(`Retry-After: ${refused.headers.get("Retry-After")}`);

  for (const worker of workers) worker.kill();
  await Promise.all(workers.map((worker) => once(worker, "exit")));
  destroyCache("example-rate-limit");
} else {
  const cache = openCache("example-rate-limit", { size: "1mb" });
  const rule = { limit: LIMIT, window: 60_000, algorithm: "sliding" };

  createServer((request, response) => {
    const result = cache.rateLimit(`requests:${request.socket.remoteAddress}`, rule);
    response.writeHead(result.allowed ? 200 : 429, rateLimitHeaders(result, { name: "per-client" }));
    response.end(`${process.pid}`);
  }).listen(0, "127.0.0.1");
}
