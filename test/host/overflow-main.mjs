/**
 * One thread runs out of stack within every operation, at every depth, and catches it. Another one works beside it and
 * checks all that it reads. After each descent the first thread is idle, and the main thread must be able to change every
 * key at once: nothing may be held.
 *
 *     node overflow-main.mjs '{"reach":"threads","name":"…","shifts":24,"seed":1}'
 *
 * `"how":"terminate"`: instead, its script is terminated in the middle by `node:vm`.
 *
 * Prints one line of JSON: `{ overflows, operations, checks }`, or fails.
 */

import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { attachCache, createCache, destroyCache, openCache } from "cache-machine";
import { generator } from "../crash/checked-values.mjs";
import { descend, isOf, KEYS, operationsOn, terminate, textFor } from "./overflow-uses.mjs";

/** Values of the first word: whose turn it is. The second word counts what the bystander has checked. */
const VICTIM = 0;
const MAIN = 1;
const DONE = 2;
const TURN_MS = 60_000;
/** How long each operation is used before its descents. */
const WARM_MS = 50;
const WARM_CALLS = 20_000;

function passTurn(words, to) {
  Atomics.store(words, 0, to);
  Atomics.notify(words, 0);
}

function awaitTurn(words, mine) {
  const turn = Atomics.load(words, 0);
  if (turn !== mine && turn !== DONE && Atomics.wait(words, 0, turn, TURN_MS) === "timed-out") {
    throw new Error(`no turn for ${TURN_MS} ms`);
  }
}

function victim({ handle, own, turns, shifts, only, how }) {
  const words = new Int32Array(turns);
  const cache = attachCache(handle, { nearCache: 64 });
  const operations = operationsOn(cache);
  let overflows = 0;
  let count = 0;
  for (const [name, operation] of Object.entries(operations)) {
    if (only !== undefined && name !== only) continue;
    // Code of the optimizing compiler needs so little stack that its end is met within the engine.
    const warm = performance.now() + WARM_MS;
    for (let n = 0; n < WARM_CALLS && performance.now() < warm; n++) operation(n);
    for (let shift = 0; shift < shifts; shift++) {
      // The keys are stored again, so that the operation often finds them.
      if (shift % 4 === 0) for (const key of KEYS) if (key !== "number") cache.set(key, textFor(key, shift));
      overflows += how === "terminate" ? terminate(operation, 1 + (shift % 2)) : descend(operation, shift);
      // A script that is terminated runs no `catch`. The next use of the cache gives back what it held.
      if (how === "terminate") cache.has("text");
      count++;
      parentPort.postMessage(`${name}, shift ${shift}`);
      passTurn(words, MAIN);
      awaitTurn(words, VICTIM);
      // Nothing that a read was cut off with may become part of the next reads.
      operations.getMany();
    }
  }
  for (let shift = 0; only === undefined && shift < shifts; shift++) {
    // A `close` that is cut off in the middle goes on with the next call, and then the seat is free.
    const one = own === undefined ? createCache({ size: "1mb" }) : openCache(own, { size: "1mb" });
    const { participants } = one.stats();
    if (participants !== 1) throw new Error(`${participants} participants after ${shift} caches were closed`);
    one.set("text", textFor("text", shift));
    overflows += descend(() => one.close(), shift);
    one.close();
  }
  cache.close();
  parentPort.postMessage({ overflows, count });
  passTurn(words, DONE);
}

/** Stores many keys of its own, so that space is reclaimed, and checks the values that all threads store. */
function bystander({ handle, turns, seed }) {
  const words = new Int32Array(turns);
  const cache = attachCache(handle);
  const random = generator(seed);
  for (let n = 0; Atomics.load(words, 0) !== DONE; n++) {
    const key = `bystander ${random.below(200)}`;
    try {
      cache.set(key, textFor(key, n, random.below(2_000)));
    } catch (error) {
      if (error.code !== "ERR_BUSY") throw error;
    }
    for (const read of [key, KEYS[n % KEYS.length], `bystander ${random.below(200)}`]) {
      const value = cache.get(read);
      if (!isOf(read, value)) throw new Error(`${read}: ${JSON.stringify(value).slice(0, 200)}`);
    }
    Atomics.add(words, 1, 1);
  }
}

async function main({ reach, name, shifts, seed, stackSizeMb, only, how }) {
  const cache = reach === "threads" ? createCache({ size: "1mb" }) : openCache(name, { size: "1mb" });
  try {
    const turns = new SharedArrayBuffer(8);
    const words = new Int32Array(turns);
    const file = fileURLToPath(import.meta.url);
    const data = {
      handle: cache.handle,
      own: reach === "processes" ? `${name}-own` : undefined,
      turns,
      shifts,
      seed,
      only,
      how,
    };
    let last = "the beginning";
    let result;
    const workers = ["victim", "bystander"].map((role) => {
      const worker = new Worker(file, { workerData: { role, ...data }, resourceLimits: { stackSizeMb } });
      worker.on("message", (message) => {
        if (typeof message === "string") last = message;
        else result = message;
      });
      return new Promise((resolve, reject) => {
        worker.on("error", (error) => {
          passTurn(words, DONE);
          reject(new Error(`${role}, after ${last}: ${error.stack}`));
        });
        worker.on("exit", resolve);
      });
    });
    let checks = 0;
    for (let n = 0; Atomics.load(words, 0) !== DONE; ) {
      if (Atomics.load(words, 0) !== MAIN) {
        // Not Atomics.wait: messages and errors have to come in.
        await new Promise(setImmediate);
        continue;
      }
      for (const key of KEYS) {
        const value = cache.get(key);
        if (!isOf(key, value)) throw new Error(`after ${last}, ${key}: ${JSON.stringify(value).slice(0, 200)}`);
        // Throws ERR_BUSY when the victim holds it, which is idle now.
        const stored = key === "number" ? n : textFor(key, n, key === "large" ? 100_000 : 40);
        cache.set(key, stored);
        const read = cache.get(key);
        if (read !== undefined && read !== stored) throw new Error(`after ${last}, ${key}: not what was just stored`);
        checks++;
      }
      n++;
      passTurn(words, VICTIM);
    }
    await Promise.all(workers);
    const broken = cache.validate();
    if (broken !== 0) throw new Error(`the structure is broken: ${broken}`);
    const operations = Atomics.load(words, 1);
    console.log(JSON.stringify({ ...result, operations, checks, participants: cache.stats().participants }));
  } finally {
    cache.close();
    if (reach === "processes") for (const each of [name, `${name}-own`]) destroyCache(each);
  }
}

if (isMainThread) await main(JSON.parse(process.argv[2]));
else if (workerData.role === "victim") victim(workerData);
else bystander(workerData);
