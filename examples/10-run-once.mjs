/**
 * A job that only one of several processes should run. `add` stores only if the key is absent, so exactly one process gets the
 * claim. Here the first owner is killed; its claim expires, and another process runs the job.
 *
 * Its limits: an owner that takes longer than the ttl, or is stopped, loses its claim without knowing it. A claim can be evicted if
 * the cache is too small. So this avoids most double work, but not all: do not use it for work that must never run twice.
 *
 *     node examples/10-run-once.mjs
 */

import { fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { destroyCache, openCache } from "cache-machine";

const CLAIM_MS = 2_000;

if (process.argv[2] === undefined) {
  const children = Array.from({ length: 4 }, () => fork(new URL(import.meta.url), ["child"]));
  await Promise.all(children.map((child) => once(child, "exit")));
  console.log(`the report: ${openCache("example-run-once").get("report").value}`);
  destroyCache("example-run-once");
} else {
  const cache = openCache("example-run-once", { size: "1mb" });
  for (;;) {
    const done = cache.get("report");
    if (done?.value !== undefined) break;
    if (cache.add("report", { owner: process.pid }, { ttl: CLAIM_MS })) await run();
    else await sleep(CLAIM_MS / 40);
  }
  console.log(`process ${process.pid} has the report`);

  async function run() {
    const claim = cache.getEntry("report");
    if (claim?.value.owner !== process.pid) return;
    console.log(`process ${process.pid} runs the job`);
    if (cache.increment("runs") === 1) {
      console.log(`process ${process.pid} is killed`);
      process.kill(process.pid, "SIGKILL");
    }
    await sleep(CLAIM_MS / 8);
    // Stores the result only if this process still has the claim.
    const stored = cache.compareAndSet(
      "report",
      claim.version,
      { value: `made by ${process.pid}` },
      { ttl: 3_600_000 },
    );
    if (!stored) console.log(`process ${process.pid} was too slow: its claim has expired`);
  }
}
