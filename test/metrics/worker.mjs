/**
 * A process of hosts.test.ts: serves `/metrics` and works on the cache when it is asked to, as a process of node:cluster, of pm2, or
 * alone. `?n=100` of `/work` is how many sets, hits and misses it makes.
 */

import cluster from "node:cluster";
import { createServer } from "node:http";
import { openCache } from "cache-machine";
import { collectMetrics } from "cache-machine/prom-client";
import client from "prom-client";

const cache = openCache(process.env.CACHE, { size: "4mb" });
collectMetrics(cache, { client, census: 0 });

function work(count) {
  for (let i = 0; i < count; i++) cache.set(`${process.pid} ${i}`, { i });
  for (let i = 0; i < count; i++) cache.get(`${process.pid} ${i}`);
  for (let i = 0; i < count; i++) cache.get(`absent ${i}`);
}

const server = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  if (pathname === "/work") work(Number(searchParams.get("n")));
  response.end(pathname === "/metrics" ? await client.register.metrics() : String(process.pid));
});

if (cluster.isWorker) {
  // Answers the primary.
  new client.AggregatorRegistry();
  // The primary tells each worker by itself how much it is to work.
  process.on("message", ({ count }) => {
    if (count === undefined) return;
    work(count);
    process.send({ worked: count });
  });
  process.send({ ready: true });
} else {
  server.listen(0, "127.0.0.1", () => {
    const { port } = server.address();
    if (process.send !== undefined) process.send({ port, pid: process.pid });
    if (process.env.PORTS !== undefined) {
      // Under pm2 the processes tell their ports through the cache of the test.
      const ports = openCache(process.env.PORTS, { size: "1mb" });
      ports.set(`${process.pid}`, port);
    }
  });
}
