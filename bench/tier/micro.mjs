/**
 * What a read of what the host has costs through a tier, compared with the cache itself: in one process, in turns, in short slices, between
 * which the event loop turns, as the participant that listens to the server needs it.
 *
 *     node micro.mjs <JSON: { server, name, seconds }>
 */

import { setTimeout as sleep, setImmediate as turn } from "node:timers/promises";
import { destroyCache } from "../../dist/index.js";
import { CONTENDERS } from "./contenders.mjs";
import { VALUES } from "./values.mjs";

const { server, name, seconds } = JSON.parse(process.argv[2]);
const KEYS = 1024;
/** Reads of a slice: some milliseconds. */
const SLICE = 50_000;
/** Rounds that do not count: in the first ones the code is compiled. */
const WARM_UP = 10;

const keys = Array.from({ length: KEYS }, (_, i) => `item:${i}`);
const { cache, tier } = await CONTENDERS.tier.open({ server, memory: 64 * 2 ** 20, processes: 1, host: name });
/** An entry of the cache as the tier keeps it: in a namespace, with a ttl. */
const plain = cache.namespace("plain");

const LOOPS = {
  "cache.get": (reads) => {
    let found = 0;
    for (let i = 0; i < reads; i++) if (plain.get(keys[i & (KEYS - 1)]) !== undefined) found++;
    return found;
  },
  "tier.peek": (reads) => {
    let found = 0;
    for (let i = 0; i < reads; i++) if (tier.peek(keys[i & (KEYS - 1)]) !== undefined) found++;
    return found;
  },
  "await cache.get": async (reads) => {
    let found = 0;
    for (let i = 0; i < reads; i++) if ((await plain.get(keys[i & (KEYS - 1)])) !== undefined) found++;
    return found;
  },
  "await tier.get": async (reads) => {
    let found = 0;
    for (let i = 0; i < reads; i++) if ((await tier.get(keys[i & (KEYS - 1)])) !== undefined) found++;
    return found;
  },
};

/** Reads all keys once, so that the host and this process have them. */
async function warm() {
  for (const key of keys) {
    await tier.get(key);
    plain.get(key);
  }
}

/** Waits until the memory is good for longer than a slice takes. */
async function good() {
  for (let i = 0; i < 1000 && tier.stats().leaseLeft < 500; i++) await sleep(20);
}

/** One slice: nanoseconds of processor per read; undefined if some reads found nothing. */
async function slice(what) {
  const since = process.cpuUsage();
  const answer = LOOPS[what](SLICE);
  const found = typeof answer === "number" ? answer : await answer;
  const { user, system } = process.cpuUsage(since);
  await turn();
  await sleep(1);
  return found === SLICE ? ((user + system) / SLICE) * 1000 : undefined;
}

async function measure() {
  for (let i = 0; i < KEYS; i++) {
    const value = VALUES.small.make(i);
    plain.set(keys[i], value, { ttl: 3_600_000 });
    await tier.set(keys[i], value, { ttl: 3_600_000 });
  }
  await good();
  // The echoes of the writes remove what is read before them.
  await sleep(300);
  await warm();
  const slices = Object.fromEntries(Object.keys(LOOPS).map((what) => [what, []]));
  const rounds = Math.ceil(seconds * 50);
  let lost = 0;
  for (let round = -WARM_UP; round < rounds; round++) {
    await good();
    const times = {};
    for (const what in LOOPS) times[what] = await slice(what);
    if (Object.values(times).includes(undefined)) {
      // The machine gave this process no time to renew its lease: the round does not count.
      if (++lost > rounds) throw new Error(`${lost} rounds in which reads found nothing`);
      round--;
      await warm();
    } else if (round >= 0) {
      for (const what in LOOPS) slices[what].push(times[what]);
    }
  }
  const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
  const ratios = (own, other) => median(slices[own].map((ns, i) => ns / slices[other][i]));
  // The ratios are of slices of the same round, so they come before the slices are sorted.
  const ratio = {
    peek: ratios("tier.peek", "cache.get"),
    get: ratios("await tier.get", "await cache.get"),
  };
  const ns = Object.fromEntries(Object.entries(slices).map(([what, values]) => [what, median(values)]));
  return { node: process.versions.node, rounds, lost, ns, ratio };
}

process.on("message", async ({ id, task }) => {
  if (task !== "measure") return;
  try {
    const result = await measure();
    await tier.close();
    cache.close();
    destroyCache(name);
    process.send({ id, result });
  } catch (error) {
    process.send({ id, error: String(error?.stack ?? error) });
  }
});
process.on("disconnect", () => process.exit());
process.send({ ready: true });
