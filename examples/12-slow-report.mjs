/**
 * A slow report, computed once for all: four processes are asked for it at the same moment, twice each. One of them computes it,
 * and all others wait for it.
 *
 *     node examples/12-slow-report.mjs
 */

import { fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { destroyCache, openCache } from "cache-machine";

if (process.argv[2] === undefined) {
  const children = Array.from({ length: 4 }, () => fork(new URL(import.meta.url), ["child"]));
  await Promise.all(children.map((child) => once(child, "message")));
  for (const child of children) child.send("the report, please");
  await Promise.all(children.map((child) => once(child, "exit")));
  destroyCache("example-slow-report");
} else {
  const cache = openCache("example-slow-report", { size: "1mb" });
  const report = () => cache.getOrSet("report", compute, { ttl: 60_000 });

  process.send("ready");
  await once(process, "message");
  const [first, second] = await Promise.all([report(), report()]);
  console.log(`process ${process.pid} answers twice: ${first.total} and ${second.total}, computed by ${first.by}`);
  process.disconnect();
}

/** What takes long; it may be a query, a request to another service, or a task for a pool of threads. */
async function compute() {
  console.log(`process ${process.pid} computes the report`);
  await sleep(1000);
  return { total: 99.5, by: process.pid };
}
