/**
 * A participant of a hostile test, as a process or as a thread. `use`: works on the cache while somebody else damages it,
 * until it is told to stop. `images`: damages a cache of its own at rest and then uses it, again and again, so that
 * what happens follows from the seed alone.
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
/** {steps, use, image} of each participant. */
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
  const slots = cache.stats().size >>> 14;
  // Whoever opens the cache again and again uses areas of its process that nobody can know before.
  const below = isMainThread && !setup.reopens ? new PrivateMemory(cache.handle, slots) : undefined;
  const user = new User(cache, { random: generator(setup.seed), reopen: setup.reopens ? open : undefined, note });
  let stopped = false;
  port.on("message", () => (stopped = true));
  send({ ready: true });
  const work = () => {
    for (let i = 0; i < 50 && !stopped; i++) user.step();
    if (!stopped) return setImmediate(work);
    const damage = below?.damage();
    cache.close();
    tell(user, { damage: damage ?? below?.damage(), painted: below?.painted });
    if (isMainThread) process.disconnect();
    else parentPort.close();
  };
  work();
}

function images() {
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
  // Two areas for itself and the guest that `reopen` makes.
  const below = new PrivateMemory(cache.handle, 64, [0, 1]);
  const hits = {};
  let refused = 0;
  let hostile;
  for (let image = setup.from ?? 0; image < setup.images; image++) {
    Atomics.store(progress, 2, image);
    // Of its own, so that one image can be looked at alone.
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
      if (image % 16 === 0 && below.damage()) throw new Error(`harmed: ${below.damage()}`);
    } catch (error) {
      error.message += `\n  in image ${image} of seed ${setup.seed}, after\n  ${hostile.recent.join("\n  ")}`;
      throw error;
    }
    for (const [part, times] of Object.entries(hostile.hits)) hits[part] = (hits[part] ?? 0) + times;
  }
  // Nothing that happened was kept outside of the region.
  region.set(whole);
  cache.clear();
  const works = cache.set("after", "all").get("after") === "all";
  tell(user, { hits, refused, works, damage: below.damage(), painted: below.painted });
  cache.close();
}

try {
  if (setup.role === "images") images();
  else use();
} catch (error) {
  send({ violation: error.stack.includes(error.message) ? error.stack : `${error.message}\n${error.stack}` });
  if (isMainThread) process.disconnect();
}
