/**
 * A participant of the measurements of waking.mjs: a process, or one of its workers, that waits for something or changes it. All
 * read one clock, which the processes of a machine share.
 */

import cluster from "node:cluster";
import { once } from "node:events";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { attachCache, createCache, openCache } from "../dist/index.js";

const FILE = new URL(import.meta.url);
/** Milliseconds without work before each sample of those that this process measures by itself, so that all threads sleep. */
const IDLE_MS = 1;

const now = () => Number(process.hrtime.bigint());

/** How a process waits for change number `i`, and makes it. `wait` resolves when it may be made, to a promise of the change. */
const ways = {
  cache({ name, size }) {
    const cache = openCache(name, { size });
    return {
      wait: (i) => ({ change: cache.waitFor(`key ${i}`) }),
      change: (i) => cache.set(`key ${i}`, i),
      close: () => cache.close(),
    };
  },

  async redis({ socket, waits }) {
    const connection = net.connect(socket);
    await once(connection, "connect");
    if (waits) {
      connection.write("SUBSCRIBE changes\r\n");
      await once(connection, "data");
    }
    return {
      wait: () => ({ change: once(connection, "data") }),
      change: (i) => connection.write(`PUBLISH changes ${i}\r\n`),
      close: () => connection.destroy(),
    };
  },
};

let way;
let woken;
let worker;

const commands = {
  async open({ inWorker, ...options }) {
    if (!inWorker) way = await ways[options.way](options);
    else {
      worker = new Worker(FILE, { workerData: { serve: true } });
      await ask(worker, { command: "open", ...options });
    }
  },
  expect(message) {
    if (worker !== undefined) return ask(worker, { command: "expect", ...message });
    woken = way.wait(message.i).change.then(now);
  },
  change({ i }) {
    const from = now();
    way.change(i);
    return from;
  },
  woken: () => (worker !== undefined ? ask(worker, { command: "woken" }) : woken),

  /** Measures waits of a worker for changes of this thread. */
  async threads({ count }) {
    const cache = createCache({ size: "8mb" });
    const waiter = new Worker(FILE, { workerData: { handle: cache.handle } });
    const times = [];
    for (let i = 0; i < count; i++) {
      waiter.postMessage(i);
      await once(waiter, "message");
      await sleep(IDLE_MS);
      const from = now();
      cache.set(`key ${i}`, i);
      const [at] = await once(waiter, "message");
      times.push(at - from);
    }
    await waiter.terminate();
    cache.close();
    return times;
  },

  /** Measures messages from one worker of node:cluster to another one, which this process passes on. */
  async cluster({ count }) {
    cluster.setupPrimary({ exec: process.argv[1], args: ["cluster worker"] });
    const [from, to] = [cluster.fork(), cluster.fork()];
    await Promise.all([once(from, "message"), once(to, "message")]);
    from.on("message", (message) => to.send(message));
    const times = [];
    for (let i = 0; i < count; i++) {
      await sleep(IDLE_MS);
      from.send(i);
      const [time] = await once(to, "message");
      times.push(time);
    }
    for (const each of [from, to]) each.process.kill("SIGKILL");
    return times;
  },

  async close() {
    await worker?.terminate();
    way?.close();
    setImmediate(() => process.disconnect());
  },
};

/** Asks a worker. Resolves to its answer. */
async function ask(thread, message) {
  thread.postMessage(message);
  const [answer] = await once(thread, "message");
  return answer;
}

async function serve({ id, command, ...message }, answer) {
  try {
    answer({ id, result: await commands[command](message) });
  } catch (error) {
    answer({ id, error: error.stack });
  }
}

if (!isMainThread && workerData.serve) {
  parentPort.on("message", (message) => serve(message, ({ result }) => parentPort.postMessage(result)));
} else if (!isMainThread) {
  const cache = attachCache(workerData.handle);
  parentPort.on("message", async (i) => {
    const change = cache.waitFor(`key ${i}`);
    parentPort.postMessage("waits");
    await change;
    parentPort.postMessage(now());
  });
} else if (process.argv[2] === "cluster worker") {
  // The first of the two is told to send; the second one gets what the first has sent.
  process.on("message", (message) =>
    process.send(typeof message === "number" ? { from: now() } : now() - message.from),
  );
  process.send("ready");
} else {
  process.on("message", (message) => serve(message, (answer) => process.send(answer)));
}
