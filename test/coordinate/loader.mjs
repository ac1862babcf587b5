/**
 * A participant as a thread or a process, whose loads a test controls: see peers.ts. It gets commands by messages, and answers each
 * with the number of the command.
 */
import { once } from "node:events";
import { isMainThread, parentPort, threadId, Worker, workerData } from "node:worker_threads";
import { attachCache, openCache } from "cache-machine";

const setup = isMainThread ? JSON.parse(process.argv[2]) : workerData;
const port = isMainThread ? process : parentPort;
const send = (message) => {
  if (!isMainThread) port.postMessage(message);
  // A loader may come to its end after `leave`.
  else if (process.connected) process.send(message);
};
const cache = setup.handle ? attachCache(setup.handle) : openCache(setup.name);

/** The other threads of this process. */
const threads = Array.from(
  { length: (setup.threads ?? 1) - 1 },
  () => new Worker(new URL(import.meta.url), { workerData: { name: setup.name } }),
);

/** The loads that run, by the number of the call that has begun them. */
const loads = new Map();
let loadCount = 0;
/** The time of the clock that all processes share, in milliseconds. */
const now = () => Number(process.hrtime.bigint()) / 1e6;

const commands = {
  /** Calls `getOrSet`. The loader says that it runs, and waits for `finish`. */
  getOrSet({ number, key, options }) {
    return cache.getOrSet(
      key,
      () =>
        new Promise((resolve, reject) => {
          loads.set(number, { resolve, reject });
          send({ number, event: "loading" });
        }),
      options,
    );
  },
  /** Ends the load of a call with a value, or with an error. */
  finish({ call, value, error }) {
    const { resolve, reject } = loads.get(call);
    if (error) reject(Object.assign(new Error(error), { name: "TestError" }));
    else resolve(value);
  },
  /** Calls a method of the cache. */
  call({ method, args }) {
    return cache[method](...args);
  },
  /**
   * Makes many calls for one key at once, in each thread. Each load counts itself in the cache. Returns the different values of
   * each thread.
   */
  async crowd({ key, count, wait }) {
    const others = threads.map((thread) => {
      thread.postMessage({ number: 0, command: "crowd", key, count, wait });
      return once(thread, "message").then(([{ value }]) => value);
    });
    const load = async () => {
      cache.increment("loads");
      await new Promise((resolve) => setTimeout(resolve, wait));
      return { by: process.pid };
    };
    const values = await Promise.all(Array.from({ length: count }, () => cache.getOrSet(key, load)));
    return [...new Set(values.map((value) => JSON.stringify(value))), ...(await Promise.all(others)).flat()];
  },
  /** Makes some calls for one key at once. Each load tells when it begins and when it ends. */
  race({ key, calls, wait, lease }) {
    const load = async () => {
      const id = `${process.pid}/${threadId}/${++loadCount}`;
      send({ event: "load", key, id, began: now() });
      await new Promise((resolve) => setTimeout(resolve, wait));
      send({ event: "loaded", key, id, ended: now() });
      return { id, text: id.repeat(50) };
    };
    return Promise.all(Array.from({ length: calls }, () => cache.getOrSet(key, load, { lease })));
  },
  /**
   * Loads a value that lives shortly, and is killed when it has published the value for those who wait and is about to store it. Tells
   * that by the key `"storing"`, and waits for the key `"go"`.
   */
  dieBeforeStoring({ key }) {
    let encoded = 0;
    const value = {
      toJSON() {
        if (++encoded === 2) {
          cache.set("storing", true);
          while (!cache.has("go")) commands.block({ milliseconds: 1 });
          process.kill(process.pid, "SIGKILL");
        }
        return "old";
      },
    };
    const load = async () => {
      send({ event: "load", key, id: "old" });
      await new Promise((resolve) => setTimeout(resolve, 100));
      return value;
    };
    return cache.getOrSet(key, load, { ttl: 500, tags: ["tag"] });
  },
  /** Blocks the event loop. */
  block({ milliseconds }) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
  },
  /** Closes the cache and ends. */
  leave() {
    cache.close();
    setImmediate(() => (isMainThread ? process.disconnect() : parentPort.close()));
  },
};

port.on("message", async (message) => {
  const { number, command } = message;
  try {
    const value = await commands[command](message);
    send({ number, value: value === cache ? undefined : value });
  } catch (error) {
    const { name, code, message, cause } = error;
    send({ number, error: { name, code, message, cause: cause && { name: cause.name, message: cause.message } } });
  }
});
await Promise.all(threads.map((thread) => once(thread, "message")));
send({ event: "ready" });
