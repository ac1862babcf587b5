/**
 * A participant of a host, as a process or as a thread, that reads a key of a tier all the time. It records, for each value, when the
 * last read began that has returned it. The test asks for that.
 */

import { parentPort, workerData } from "node:worker_threads";
import { attachCache, openCache } from "cache-machine";
import { openTier } from "cache-machine/tier";
import { createClient } from "redis";

const { socket, handle, name, size, lease } = workerData ?? JSON.parse(process.argv[2]);
const say = (message) => (parentPort === null ? process.send(message) : parentPort.postMessage(message));
const hear = (listener) => (parentPort ?? process).on("message", listener);
/** The clock that all processes of the machine share, in milliseconds. */
const now = () => Number(process.hrtime.bigint()) / 1e6;

const cache = handle === undefined ? openCache(name, { size }) : attachCache(handle);
const client = createClient({ socket: { path: socket } });
client.on("error", () => {});
await client.connect();
const tier = openTier(cache, { client, lease });
/** By value: when the last read began that has returned it. */
let last = {};
let reads = 0;
let isOver = false;

async function read() {
  while (!isOver) {
    // Many reads at once, and then some time for the others: the machine may be small.
    for (let i = 0; i < 50; i++) {
      const began = now();
      const value = await tier.get("k");
      last[value] = began;
      reads++;
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

const calls = {
  stats: () => tier.stats(),
  /** What was read since the last call. */
  seen: () => {
    const seen = { last, reads };
    [last, reads] = [{}, 0];
    return seen;
  },
  block: (ms) => {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
    return true;
  },
  /** Closes the client only, and leaves the rest to the end of the process. */
  forget: async () => {
    isOver = true;
    await reading;
    client.destroy();
    setImmediate(() => (parentPort === null ? process.disconnect() : parentPort.close()));
    return true;
  },
  close: async () => {
    isOver = true;
    await reading;
    await tier.close();
    cache.close();
    await client.close();
    // After the answer. Nothing else may keep this thread or process alive.
    setImmediate(() => (parentPort === null ? process.disconnect() : parentPort.close()));
    return true;
  },
};
hear(async ({ id, call, argument }) => {
  try {
    say({ id, result: await calls[call](argument) });
  } catch (error) {
    say({ id, error: String(error?.stack ?? error) });
  }
});
const reading = read();
reading.catch((error) => say({ error: String(error?.stack ?? error) }));
say({ ready: true });
