/**
 * A participant of a hostile test, as a process or a thread. With the role `use` it uses the cache while the driver damages it, until
 * it is told to stop. With the role `images` it damages a cache of its own and then uses it, again and again; what happens depends
 * only on the seed.
 */
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import { attachCache, createCache, openCache } from "cache-machine";
import { generator } from "../crash/checked-values.mjs";
import { mapJournal } from "../crash/journal.mjs";
import { Attacker, SIZE } from "./attacker.mjs";
import { PrivateMemory } from "./private-memory.mjs";
import { USE_NAMES, User } from "./user.mjs";

const setup = isMainThread ? JSON.parse(process.argv[2]) : workerData;
const port = isMainThread ? process : parentPort;
const send = (message) => (isMainThread ? process.send(message) : port.postMessage(message));
const memory = typeof setup.progress === "string" ? mapJournal(setup.progress) : setup.progress;
/** The progress of this participant: {steps, use, image}. */
const progress = new Int32Array(memory.buffer, setup.id * 64, 16);
const note = (use) => {
  Atomics.store(progress, 1, use);
  Atomics.add(progress, 0, 1);
};
const { near, frozenObjects = false } = setup;
const options = { nearCache: near, frozenObjects };

function tell(user, more) {
  send({ report: user.report, longestMs: user.longestMs, longestUse: user.longestUse, ...more });
}

function use() {
  const open = () => (setup.handle ? attachCache(setup.handle, options) : openCache(setup.name, options));
  const cache = open();
  const seats = cache.stats().size >>> 14;
  // A participant that opens the cache repeatedly uses areas that are not known in advance.
  const below = isMainThread && !setup.reopens ? new PrivateMemory(cache.handle, seats) : undefined;
  const user = new User(cache, { random: generator(setup.seed), reopen: setup.reopens ? open : undefined, note });
  let stopped = false;
  port.on("message", () => (stopped = true));
  send({ ready: true });
  const work = async () => {
    for (let i = 0; i < 50 && !stopped; i++) user.step();
    if (!stopped) return setImmediate(tryWork);
    const damage = below?.damage();
    cache.close();
    await user.end();
    tell(user, { damage: damage ?? below?.damage(), painted: below?.painted });
    if (isMainThread) process.disconnect();
    else parentPort.close();
  };
  const tryWork = () => work().catch(fail);
  tryWork();
}

async function images() {
  const cache = createCache({ size: SIZE, ...options });
  const { memory, base } = cache.handle;
  const region = Buffer.from(memory.buffer, base, SIZE);
  const attacker = {
    read: (at, length) => Buffer.from(region.subarray(at, at + length)),
    write: (at, bytes) => region.set(bytes, at),
  };
  const random = generator(setup.seed);
  const user = new User(cache, { random, reopen: () => attachCache(cache.handle, options), note });
  user.fill();
  const whole = Buffer.from(region);
  // The areas of this participant and of the one that `reopen` opens.
  const below = new PrivateMemory(cache.handle, 64, [0, 1]);
  const hits = {};
  let refused = 0;
  let hostile;
  for (let image = setup.from ?? 0; image < setup.images; image++) {
    Atomics.store(progress, 2, image);
    // Each image has a seed of its own, so that it can be repeated alone.
    user.random = generator(setup.seed + image * 7919);
    region.set(whole);
    hostile = new Attacker(user.random, attacker);
    const count = 1 + user.random.below(30);
    try {
      for (let i = 0; i < count; i++) hostile.attack(Attacker.parts[(image + i) % Attacker.parts.length]);
      for (const name of USE_NAMES) if (name !== "clear") for (let i = 0; i < 3; i++) user.use(name);
      user.use("clear");
      for (let i = 0; i < 5; i++) {
        try {
          cache.set(`after ${i}`, i);
        } catch (error) {
          if (!["ERR_BUSY", "ERR_TOO_LARGE"].includes(error?.code)) throw error;
          refused++;
        }
      }
      if (image % 16 === 0 && below.damage()) throw new Error(`changed private memory: ${below.damage()}`);
    } catch (error) {
      error.message += `\n  in image ${image} of seed ${setup.seed}, after\n  ${hostile.recent.join("\n  ")}`;
      throw error;
    }
    for (const [part, times] of Object.entries(hostile.hits)) hits[part] = (hits[part] ?? 0) + times;
  }
  // With its first bytes restored, the cache must work: no state is kept outside of the region.
  region.set(whole);
  cache.clear();
  const works = cache.set("after", "all").get("after") === "all";
  const [damage, painted] = [below.damage(), below.painted];
  cache.close();
  await user.end();
  tell(user, { hits, refused, works, damage, painted });
}

function fail(error) {
  send({ violation: error.stack.includes(error.message) ? error.stack : `${error.message}\n${error.stack}` });
  if (isMainThread) process.disconnect();
}

try {
  if (setup.role === "images") await images();
  else use();
} catch (error) {
  fail(error);
}
