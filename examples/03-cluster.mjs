/**
 * One cache for all workers of `node:cluster`. The first worker loads the settings, and the others read them from the cache. Then
 * one worker is killed, and its successor finds the settings in the cache too.
 *
 *     node examples/03-cluster.mjs
 */

import cluster from "node:cluster";
import { once } from "node:events";
import { destroyCache, openCache } from "cache-machine";

if (cluster.isPrimary) {
  const start = async () => {
    const worker = cluster.fork();
    const [message] = await once(worker, "message");
    console.log(`worker ${worker.process.pid}: ${message}`);
    return worker;
  };
  const workers = [await start(), await start(), await start()];

  const [victim, ...others] = workers;
  victim.process.kill("SIGKILL");
  await once(victim, "exit");
  console.log(`worker ${victim.process.pid} is killed`);
  others.push(await start());

  for (const worker of others) worker.kill();
  await Promise.all(others.map((worker) => once(worker, "exit")));
  destroyCache("example-cluster");
} else {
  const cache = openCache("example-cluster", { size: "4mb" });
  const { loadedBy } = await cache.getOrSet("settings", () => ({ theme: "dark", loadedBy: process.pid }));
  process.send(loadedBy === process.pid ? "loaded the settings" : `has the settings that ${loadedBy} loaded`);
}
