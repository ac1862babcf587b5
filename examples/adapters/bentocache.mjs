/**
 * bentocache in four processes with one memory as their L1, and without a bus: what one process stores or invalidates, all see. A lock
 * of the cache lets one of 80 callers load.
 *
 *     node examples/adapters/bentocache.mjs
 *
 * It prints:
 *
 *     process 4711: 20 answers, CHF 0.94
 *     process 4712: 20 answers, CHF 0.94
 *     process 4713: 20 answers, CHF 0.94
 *     process 4714: 20 answers, CHF 0.94
 *     80 callers in 4 processes: loaded 1 time
 *     after deleteByTag: undefined
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { BentoCache, bentostore } from "bentocache";
import { destroyCache, openCache } from "cache-machine";
import { cacheMachineDriver } from "cache-machine/bentocache";

const cache = openCache("example-bentocache", { size: "8mb" });
const store = bentostore().useL1Layer(cacheMachineDriver({ cache }));
const bento = new BentoCache({ default: "main", stores: { main: store } });

async function getOrLoad(options) {
  const known = await bento.get({ key: options.key, grace: false });
  return known ?? cache.locks.request(options.key, () => bento.getOrSet(options));
}

/** Takes a tenth of a second, and counts how often it runs in all processes together. */
async function prices() {
  cache.increment("loads");
  await new Promise((resolve) => setTimeout(resolve, 100));
  return { EUR: 1, CHF: 0.94 };
}

if (process.send === undefined) {
  const workers = Array.from({ length: 4 }, () => fork(fileURLToPath(import.meta.url)));
  await Promise.all(workers.map((worker) => once(worker, "exit")));
  console.log(`80 callers in 4 processes: loaded ${cache.get("loads")} time`);
  await bento.deleteByTag({ tags: ["prices"] });
  console.log(`after deleteByTag: ${await bento.get({ key: "prices" })}`);
  destroyCache("example-bentocache");
} else {
  const ask = () => getOrLoad({ key: "prices", ttl: "1h", tags: ["prices"], factory: prices });
  const answers = await Promise.all(Array.from({ length: 20 }, ask));
  console.log(`process ${process.pid}: ${answers.length} answers, CHF ${answers[19].CHF}`);
  process.disconnect();
}
cache.close();
