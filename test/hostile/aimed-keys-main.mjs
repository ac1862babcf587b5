/**
 * A program for `npm run soak`: a rate limiter with a limit of three runs beside a thread that counts colliding keys
 * (aimed-keys.mjs). That thread is terminated again and again.
 *
 *     node aimed-keys-main.mjs '{"name":"…","seed":1,"rounds":20}'
 *
 * Prints `{ terminations, operations }`, or fails when the limiter allows more or fewer than three.
 */
import { fileURLToPath } from "node:url";
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { destroyCache, openCache } from "cache-machine";
import { generator } from "../crash/checked-values.mjs";
import { AimedKeys } from "./aimed-keys.mjs";

const SIZE = "16mb";
const TRIES = 500;
const BETWEEN = 8;

function aim({ name, seed, ready }) {
  const cache = openCache(name, { size: SIZE });
  const keys = new AimedKeys(seed).asciiSiblings().slice(1);
  const words = new Int32Array(ready);
  Atomics.store(words, 0, 1);
  Atomics.notify(words, 0);
  // Each key four times in a row, which makes its entry as hot as possible.
  for (let n = 0; ; n++) {
    try {
      cache.increment(keys[(n >> 2) % keys.length]);
    } catch (error) {
      if (error.code !== "ERR_BUSY") throw error;
    }
    Atomics.add(words, 1, 1);
  }
}

async function limit({ name, seed, rounds }) {
  const random = generator(seed);
  const cache = openCache(name, { size: SIZE });
  let operations = 0;
  try {
    for (let round = 0; round < rounds; round++) {
      const ready = new SharedArrayBuffer(8);
      const familySeed = random.next();
      const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { name, seed: familySeed, ready } });
      const failed = new Promise((_, reject) => worker.once("error", reject));
      if (Atomics.wait(new Int32Array(ready), 0, 0, 60_000) === "timed-out")
        throw new Error("the other thread does not start");
      const victim = new AimedKeys(familySeed).asciiSiblings()[0];
      let passed = 0;
      const words = new Int32Array(ready);
      for (let tries = 0; tries < TRIES; tries++, operations++) {
        if (cache.increment(victim) <= 3) passed++;
        // Waits until the other thread has counted some keys.
        for (const until = Atomics.load(words, 1) + BETWEEN; Atomics.load(words, 1) < until; );
      }
      if (passed !== 3) throw new Error(`seed ${seed}, round ${round}: a limit of three allowed ${passed}`);
      await Promise.race([worker.terminate(), failed]);
    }
    const broken = cache.validate();
    if (broken !== 0) throw new Error(`the structure is broken: ${broken}`);
    console.log(JSON.stringify({ terminations: rounds, operations }));
  } finally {
    cache.close();
    destroyCache(name);
  }
}

if (isMainThread) await limit(JSON.parse(process.argv[2]));
else aim(workerData);
