/**
 * A job that only one of several processes runs. Whoever gets the lock runs it; the others wait, and find that it is done. Here
 * the first owner of the lock is killed in the middle of the job: its lock is free again at once, and another process goes on.
 *
 * Its limits: all processes are on this machine. An owner that is stopped for a while keeps its lock. What is done can be
 * evicted if the cache is too small, so what must never run twice writes it to a database as well, with the lock's `fence`.
 *
 *     node examples/10-run-once.mjs
 */

import { fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { destroyCache, openCache } from "cache-machine";

if (process.argv[2] === undefined) {
  const children = Array.from({ length: 4 }, () => fork(new URL(import.meta.url), ["child"]));
  await Promise.all(children.map((child) => once(child, "exit")));
  console.log(`the report: ${openCache("example-run-once").get("report")}`);
  destroyCache("example-run-once");
} else {
  const cache = openCache("example-run-once", { size: "1mb" });
  await cache.locks.request("report", async ({ fence }) => {
    if (cache.has("report")) return;
    console.log(`process ${process.pid} runs the job, with fence ${fence}`);
    if (cache.increment("runs") === 1) {
      console.log(`process ${process.pid} is killed`);
      process.kill(process.pid, "SIGKILL");
    }
    await sleep(250);
    cache.set("report", `made by ${process.pid}`);
  });
  console.log(`process ${process.pid} has the report`);
}
