/**
 * A process with two threads, each of them a participant: counts in two steps under a lock until it is told to stop. Driven by
 * count.mjs, which kills it at any moment.
 */
import { once } from "node:events";
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { openCache } from "cache-machine";
import { generator } from "../crash/checked-values.mjs";

const setup = isMainThread ? JSON.parse(process.argv[2]) : workerData;
const { name, seed, parent } = setup;
if (isMainThread && process.ppid !== parent) process.exit(1);
const id = setup.id + (isMainThread ? 0 : 1);
const random = generator(seed + id);
const cache = openCache(name);
/** The other thread of this process, which ends as this one does. */
const ended = isMainThread && once(new Worker(new URL(import.meta.url), { workerData: setup }), "exit");

/** A section. Returns whether it is time to stop. */
async function section({ fence }) {
  const seen = cache.get("counter") ?? { total: 0, by: {}, fence: 0 };
  if (seen.fence >= fence) throw new Error(`the fence ${fence} came after ${seen.fence}`);
  if (cache.has("stop")) return true;
  // Most sections are short, some wait for a task, a few for a millisecond.
  const dice = random.below(100);
  if (dice < 20) await new Promise(setImmediate);
  else if (dice < 22) await new Promise((resolve) => setTimeout(resolve, 1));
  const by = { ...seen.by, [id]: (seen.by[id] ?? 0) + 1 };
  cache.set("counter", { total: seen.total + 1, by, fence });
  return false;
}

const attempted = cache.get(`attempted ${id}`) ?? 0;
for (let n = attempted + 1; ; n++) {
  cache.set(`attempted ${id}`, n);
  if (await cache.locks.request("counter", section)) {
    cache.set(`attempted ${id}`, n - 1);
    break;
  }
  cache.increment(`counted ${id}`);
}
cache.close();
if (ended) [process.exitCode] = await ended;
