/**
 * Keyv in four processes that share one memory: what one stores all read, a miss that 80 callers ask for is loaded once, and one
 * `clear` clears for all.
 *
 *     node examples/adapters/keyv.mjs
 *
 * It prints:
 *
 *     4 processes read: Ada, Ada, Ada, Ada
 *     80 callers in 4 processes: loaded 1 time
 *     Keyv reads what getOrSet has stored: 1000 rows
 *     after clear: undefined
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { destroyCache, openCache } from "cache-machine";
import { createKeyv } from "cache-machine/keyv";

const cache = openCache("example-keyv", { size: "8mb" });
const part = cache.namespace("users");
const keyv = createKeyv(cache, { namespace: "users" });

/** Takes a tenth of a second, and counts how often it runs in all processes together. */
async function report() {
  cache.increment("loads");
  await new Promise((resolve) => setTimeout(resolve, 100));
  return { rows: 1000 };
}

if (process.send === undefined) {
  await keyv.set("1", { name: "Ada" }, 60_000);
  const workers = Array.from({ length: 4 }, () => fork(fileURLToPath(import.meta.url)));
  const names = await Promise.all(
    workers.map(async (worker) => {
      const [[name]] = await Promise.all([once(worker, "message"), once(worker, "exit")]);
      return name;
    }),
  );
  console.log(`4 processes read: ${names.join(", ")}`);
  console.log(`80 callers in 4 processes: loaded ${cache.get("loads")} time`);
  console.log(`Keyv reads what getOrSet has stored: ${(await keyv.get("report")).rows} rows`);
  await keyv.clear();
  console.log(`after clear: ${await keyv.get("1")}`);
  destroyCache("example-keyv");
} else {
  const { name } = await keyv.get("1");
  await Promise.all(Array.from({ length: 20 }, () => part.getOrSet("report", report, { ttl: 60_000 })));
  process.send(name, () => process.disconnect());
}
cache.close();
