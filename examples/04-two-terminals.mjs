/**
 * Two programs that share a cache by its name. Run this in two terminals at the same time: both increment the same counter.
 *
 *     node examples/04-two-terminals.mjs
 */

import { setTimeout as sleep } from "node:timers/promises";
import { destroyCache, openCache } from "cache-machine";

const cache = openCache("example-terminals", { size: "1mb" });
const pause = Number(process.env.PAUSE_MS ?? 500);
cache.increment("running");
process.once("SIGINT", leave);

for (let i = 0; i < 20; i++) {
  const count = cache.increment("count");
  const before = cache.get("last");
  cache.set("last", process.pid);
  const who = before === undefined ? "nobody" : before === process.pid ? "this process" : `process ${before}`;
  console.log(`count ${count}, the count before was by ${who}`);
  await sleep(pause);
}

leave();

/** The last program removes the cache, which would otherwise stay until the machine restarts. */
function leave() {
  if (cache.decrement("running") === 0) destroyCache("example-terminals");
  process.exit();
}
