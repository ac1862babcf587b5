/**
 * A participant of runtimes.test.ts. The same program runs in each runtime, alone or beside Node.js: as the main process, which
 * says what it has seen as one line of JSON; as another process of it (`act`, `name`); and as their worker threads.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { attachCache, CacheError, createCache, destroyCache, openCache } from "cache-machine";

const ROUNDS = 500;
const KEYS = 60;
const me = fileURLToPath(import.meta.url);
const [act, name = ""] = process.argv.slice(2);
const open = () => openCache(name, { size: "1mb" });
const forever = () => setInterval(() => {}, 1_000);

/** How another process runs this file. The first word of `OTHERS` is the program, the next ones are its options. */
const others = JSON.parse(process.env.OTHERS ?? "[]");
const start = (which, ...args) => {
  const [command, ...options] = others[which % others.length];
  const child = spawn(command, [...options, me, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  return { child, ready: new Promise((resolve) => child.stdout.once("data", resolve)), ended: exit(child) };
};
const thread = (data) => new Worker(me, { workerData: data });
const exit = async (each) => (await once(each, "exit"))[0];

/** Adds one. On a busy machine another participant may be stopped for 50 ms while it changes the number. */
function count(cache, key = "count") {
  try {
    return cache.increment(key);
  } catch (error) {
    if (error.code !== "ERR_BUSY") throw error;
    return count(cache, key);
  }
}

/** Waits until `question` answers true. */
async function until(question) {
  while (!question()) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** A worker thread: counts, and ends by itself, with or without `close`, or goes on until it is terminated. */
async function work({ handle, opened, fallback, how }) {
  const options = { size: "1mb", path: "/nowhere", fallback: "threads" };
  const cache = handle ? attachCache(handle) : fallback ? openCache(fallback, options) : openCache(opened);
  for (let i = 0; i < ROUNDS; i++) count(cache);
  cache.set("value", { date: new Date(5), map: new Map([["a", 1n]]) });
  if (how === "close") cache.close();
  if (how === "nested") {
    const inner = thread({ fallback, how: "end" });
    await exit(inner);
  }
  if (how === "stay") {
    parentPort.postMessage("ready");
    forever();
  }
}

const ACTS = {
  /** Counts, and asks for values together with others: each at another moment of the load that one of them runs. */
  async load() {
    const cache = open();
    for (let i = 0; i < ROUNDS; i++) count(cache);
    const value = await cache.getOrSet("loaded", async () => {
      count(cache, "loads");
      await new Promise((resolve) => setTimeout(resolve, 200));
      return { by: process.pid };
    });
    cache.set(`loaded by ${process.pid}`, value);
    const number = count(cache, "numbers");
    const begin = await cache.waitFor("begin");
    for (let i = 0; i < KEYS; i++) {
      const moment = begin + 20 * i + ((5 * i + 3 * number) % 8);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, moment - Date.now())));
      await cache.getOrSet(`key ${i}`, async () => {
        count(cache, "loads of keys");
        await new Promise((resolve) => setTimeout(resolve, 4));
        return i;
      });
    }
    cache.close();
  },
  /** Waits for a value and answers it. */
  async answer() {
    const cache = open();
    console.log("ready");
    cache.set("answer", 2 * (await cache.waitFor("question")));
    cache.close();
  },
  /** Holds a lock until it is killed. */
  async hold() {
    await open().locks.request("lock", () => {
      console.log("ready");
      forever();
      return new Promise(() => {});
    });
  },
  async main() {
    const said = {};
    const threads = createCache({ size: "1mb" });
    for (const how of ["close", "end"]) await exit(thread({ handle: threads.handle, how }));
    const stays = thread({ handle: threads.handle, how: "stay" });
    await once(stays, "message");
    await stays.terminate();
    // Some runtimes are at the end of a thread only after they have said so.
    await until(() => threads.stats().participants === 1);
    said.threads = [threads.get("count"), threads.get("value").map.get("a") === 1n];

    const cache = open();
    said.reach = cache.reach;
    const started = [0, 1, 2, 3].map((i) => start(i, "load", name).ended);
    await until(() => cache.get("numbers") === started.length);
    cache.set("begin", Date.now());
    const ends = await Promise.all(started);
    said.processes = [ends.join(), cache.get("count"), cache.get("loads"), cache.get("loads of keys")];
    said.same = new Set(
      Array.from(cache.entries(), ([key, value]) => (key.startsWith("loaded by") ? value.by : 0)),
    ).size;

    said.woken = [];
    for (const which of [0, 1]) {
      const other = start(which, "answer", name);
      await other.ready;
      const answer = cache.waitFor("answer");
      cache.set("question", 21);
      said.woken.push(await answer, await other.ended);
      cache.deleteMany(["question", "answer"]);
    }

    said.locks = [];
    for (const which of [0, 1]) {
      const holder = start(which, "hold", name);
      await holder.ready;
      const { held } = await cache.locks.query();
      const mine = cache.locks.request("lock", () => "mine");
      holder.child.kill("SIGKILL");
      said.locks.push(held.length, await mine);
      await holder.ended;
    }
    await until(() => cache.stats().participants === 1);

    await exit(thread({ opened: name, how: "close" }));
    const afterClose = cache.stats().participants;
    await exit(thread({ opened: name, how: "end" }));
    const doomed = thread({ opened: name, how: "stay" });
    await once(doomed, "message");
    await doomed.terminate();
    if (process.versions.bun === undefined) await until(() => cache.stats().participants === 1);
    said.seats = [afterClose, cache.stats().participants];
    cache.close();
    said.destroyed = [destroyCache(name), destroyCache(name)];

    const warnings = [];
    process.on("warning", (warning) => warnings.push(warning.code));
    const fallback = openCache(name, { size: "1mb", path: "/nowhere", fallback: "threads" });
    for (const how of ["end", "nested"]) await exit(thread({ fallback: name, how }));
    said.fallback = [fallback.reach, fallback.get("count"), warnings.join()];
    try {
      openCache(name, { path: "/nowhere" });
    } catch (error) {
      said.error = [error instanceof CacheError, error.code];
    }
    console.log(JSON.stringify(said));
    process.exit();
  },
};

if (isMainThread) await ACTS[act]();
else await work(workerData);
