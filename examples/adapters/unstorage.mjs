/**
 * Four processes with a storage of unstorage over one memory: what one process stores, all have, until its time is over or one of
 * them removes it.
 *
 *     node examples/adapters/unstorage.mjs
 *
 * It prints:
 *
 *     4 processes have stored visitor:1, visitor:2, visitor:3, visitor:4
 *     each of them has read 4 items
 *     the items expire in 60 seconds
 *     after clear: 0 items
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { destroyCache, openCache } from "cache-machine";
import driver from "cache-machine/unstorage";
import { createStorage } from "unstorage";

const cache = openCache("example-unstorage", { size: "8mb" });
const storage = createStorage({ driver: driver({ cache, ttl: 60 }) });

if (process.send === undefined) {
  const workers = [1, 2, 3, 4].map((number) => fork(fileURLToPath(import.meta.url), [`${number}`]));
  const ended = Promise.all(workers.map((worker) => once(worker, "exit")));
  await Promise.all(workers.map((worker) => once(worker, "message")));
  const keys = (await storage.getKeys("visitor")).sort();
  console.log(`${workers.length} processes have stored ${keys.join(", ")}`);

  for (const worker of workers) worker.send("read");
  const counts = await Promise.all(workers.map((worker) => once(worker, "message")));
  console.log(`each of them has read ${[...new Set(counts.map(([count]) => count))].join()} items`);
  await ended;

  const { ttl } = await storage.getMeta("visitor:1");
  console.log(`the items expire in ${Math.ceil(ttl)} seconds`);
  await storage.clear();
  console.log(`after clear: ${(await storage.getKeys()).length} items`);
  destroyCache("example-unstorage");
} else {
  const number = process.argv[2];
  await storage.setItem(`visitor:${number}`, { number, pid: process.pid });
  process.once("message", async () => {
    const items = await storage.getItems(["visitor:1", "visitor:2", "visitor:3", "visitor:4"]);
    process.send(items.filter(({ value }) => value !== null).length);
    process.disconnect();
  });
  process.send("stored");
}
