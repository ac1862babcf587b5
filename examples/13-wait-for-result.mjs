/**
 * A result that takes minutes, here a second: a client computes it and posts it to whichever process of the service answers. The
 * requests that came before it wait, in every process, and all of them are answered the moment it is there.
 *
 *     node examples/13-wait-for-result.mjs
 */

import cluster from "node:cluster";
import { once } from "node:events";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { destroyCache, openCache } from "cache-machine";

if (cluster.isPrimary) {
  const workers = Array.from({ length: 3 }, () => cluster.fork());
  const [[{ port }]] = await Promise.all(workers.map((worker) => once(worker, "listening")));
  // node:cluster gives each new connection to the next worker.
  const request = async (options) => {
    const response = await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: "close" }, ...options });
    console.log(await response.text());
  };

  const early = Array.from({ length: 6 }, () => request());
  console.log("6 requests wait");
  await sleep(1000);
  await request({ method: "POST", body: "42" });
  await Promise.all(early);
  for (const worker of workers) worker.kill();
  await Promise.all(workers.map((worker) => once(worker, "exit")));
  destroyCache("example-wait");
} else {
  const cache = openCache("example-wait", { size: "1mb" });

  createServer(async (request, response) => {
    if (request.method === "POST") {
      cache.set("result", await text(request));
      return response.end(`process ${process.pid} has received the result`);
    }
    const gone = new AbortController();
    response.on("close", () => gone.abort());
    try {
      const result = await cache.waitFor("result", { timeout: 300_000, signal: gone.signal });
      response.end(`process ${process.pid} answers ${result}`);
    } catch (error) {
      // After five minutes there is still no result, or the client has left.
      response.writeHead(error.code === "ERR_TIMEOUT" ? 504 : 500).end(`${error.message}\n`);
    }
  }).listen(0, "127.0.0.1");
}
