/**
 * One process of a simulated host. A host is a cache of its own name, which all processes of the host open. The process reads prices,
 * each about a thousand times a second, and tells the driver (main.mjs) what it sees.
 */

import { rmSync } from "node:fs";
import { dirname } from "node:path";
import { destroyCache, openCache } from "cache-machine";
import { openTier } from "cache-machine/tier";
import { createClient } from "redis";
import { now } from "./measure.mjs";

const PRODUCTS = 50;
const REPORT_MS = 100;
const [host, socket, firstPid] = process.argv.slice(2);
let serverPid = Number(firstPid);
let isReading = true;

// Ctrl-C reaches all processes in the terminal. The driver tells when it is time.
process.on("SIGINT", () => {});
process.on("disconnect", () => {
  if (!isReading) return process.exit();
  // The driver was killed. What it cannot remove any more, its processes remove.
  try {
    process.kill(serverPid, "SIGKILL");
  } catch {
    // Another process did it.
  }
  rmSync(dirname(socket), { recursive: true, force: true });
  destroyCache("example-tier-" + host);
  process.exit(1);
});

// The whole of it: the cache of this host, a client of node-redis, and the tier of both.
const cache = openCache("example-tier-" + host, { size: "8mb" });
const client = createClient({ socket: { path: socket } });
client.on("error", () => {}); // Without a listener an error ends the process. node-redis connects again by itself.
await client.connect();
const tier = openTier(cache, { client, prefix: "shop:" });

/** Answers by where they came from. */
const answered = { memory: 0, server: 0, source: 0, failed: 0 };
/** The latest price that this process saw: when it saw it first, and when the latest read that saw it began. */
let seen = { version: 0, first: 0, last: 0 };

/** Reads a price. What neither the host nor the server has comes from the database. */
async function read(product) {
  let from = "memory";
  const value = tier.peek(product) ?? (await load());
  answered[from]++;
  return value;

  function load() {
    from = "server";
    return tier.getOrSet(product, () => {
      from = "source";
      return askDatabase(product);
    });
  }
}

/** The price that changes, with a note of what was seen. */
async function readPrice() {
  const began = now();
  const version = await read("price");
  if (version !== seen.version) {
    tell({ type: "saw", ...seen });
    seen = { version, first: now(), last: began };
  }
  seen.last = began;
}

/** Prices that stay as they are. */
function readProducts() {
  return Promise.all(Array.from({ length: PRODUCTS }, (_, i) => read(`product:${i}`)));
}

/** The database lies in the driver. */
let questions = 0;
const asked = new Map();
function askDatabase(product) {
  return new Promise((resolve) => {
    asked.set(++questions, resolve);
    tell({ type: "ask", id: questions, product });
  });
}

/** Tells the driver, as long as it is there. */
function tell(message) {
  if (process.connected) process.send(message, () => {});
}

/** What the driver says, by its type. */
const orders = {
  server({ pid }) {
    serverPid = pid;
  },

  answer({ id, value }) {
    asked.get(id)?.(value);
    asked.delete(id);
  },

  async write({ version }) {
    const began = now();
    try {
      await tier.set("price", version);
      tell({ type: "wrote", version, began, ended: now() });
    } catch (error) {
      tell({ type: "wrote", version, error: error.code ?? error.message });
    }
  },

  async end() {
    isReading = false;
    tell({ type: "saw", ...seen });
    await tier.close();
    client.destroy();
    cache.close();
    process.disconnect();
  },
};

process.on("message", ({ type, ...order }) => orders[type](order));

/** Tells the driver the state ten times a second, and at once when it changes. */
let reported = { at: 0, isGood: false, owns: false };
let tookOver = 0;
function report() {
  const { isGood, leaseLeft, owner } = tier.stats();
  const owns = owner?.pid === process.pid && owner.state === "following";
  if (now() - reported.at < REPORT_MS && isGood === reported.isGood && owns === reported.owns) return;
  if (owns && !reported.owns) tookOver = now();
  reported = { at: now(), isGood, owns };
  tell({ type: "state", ...seen, ...answered, isGood, leaseLeft, owns, tookOver });
}

/** Does it again and again, with a pause of a millisecond. */
async function loop(work) {
  while (isReading) {
    await Promise.resolve()
      .then(work)
      .catch(() => answered.failed++);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

loop(readPrice);
loop(readProducts);
loop(report);
