/**
 * A participant of a test of coordination (coordination.mjs), as a process or a thread. It loads, changes, waits, locks and limits, many
 * calls at a time, until it is killed or told to stop. It checks whatever it sees, and exits with a violation.
 */
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import { attachCache, openCache } from "cache-machine";
import { checkValue, demand, generator, makeValue, Violation } from "./checked-values.mjs";
import { KEYS, LIMIT, LOCKS, Page, WAITED } from "./coordination-page.mjs";
import { mapJournal } from "./journal.mjs";

/** Calls that are under way at the same time. */
const WIDTH = 6;
/** Milliseconds after which a load without a sign of life is replaced; a participant that is frozen stays so for longer. */
const LEASE_MS = 3_000;
/** A call that takes longer has been left behind. */
const PATIENCE_MS = 40_000;
/** Loaded values are named by writers from here on, stored ones by lower numbers. */
const LOADED = 100;
const HOUR_MS = 3_600_000;

const setup = isMainThread ? JSON.parse(process.argv[2]) : workerData;
const { id, incarnation, survivor } = setup;
const send = (message) => (isMainThread ? process.send(message) : parentPort.postMessage(message));
const page = new Page(typeof setup.page === "string" ? mapJournal(setup.page) : setup.page, id, incarnation);
const random = generator(setup.seed);
const cache = setup.handle ? attachCache(setup.handle) : openCache(setup.name);
/** Keys that change while they are loaded. They can be cleared without the rest. */
const changing = cache.namespace("changing");
const stopping = new AbortController();
const report = { steps: 0, loads: 0, joined: 0, sections: 0, granted: 0, waits: 0, busy: 0 };

/** Waits for nothing, for a task, or for some milliseconds. */
async function linger() {
  const dice = random.below(10);
  if (dice < 4) await new Promise(setImmediate);
  else if (dice < 7) await new Promise((resolve) => setTimeout(resolve, random.below(4)));
}

function someValue(key, writer, sequence) {
  const size = random.below(8) ? random.below(400) : random.below(setup.large);
  return makeValue(random.below(4), key, writer, sequence, size);
}

/** Fails when a call has been left behind. */
async function inPatience(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Violation(`left behind: ${what}`)), PATIENCE_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A loader of a key: no other living loader of the key may run. */
function loader(key, name, exclusive) {
  return async () => {
    report.loads++;
    if (exclusive) page.beginLoad(key);
    const started = page.stamp();
    await linger();
    if (exclusive) page.endLoad(key);
    if (random.below(40) === 0) throw new Error("the source fails");
    return someValue(name, LOADED + id, started);
  };
}

/** Calls `getOrSet`; an error of the source is the only one that may come out. */
async function load(from, name, loadValue, options) {
  const onOutcome = (outcome) => {
    if (outcome === "joined") report.joined++;
  };
  try {
    return await inPatience(from.getOrSet(name, loadValue, { lease: LEASE_MS, ...options, onOutcome }), name);
  } catch (error) {
    const fails = error.code === "ERR_LOAD_FAILED" || error.message === "the source fails";
    if (!fails && error.code !== "ERR_BUSY") throw error;
    if (!fails) report.busy++;
    return undefined;
  }
}

/** Loads a key that nobody changes: its values expire after some milliseconds. */
async function loadStill() {
  const key = random.below(KEYS);
  const name = `still:${key}`;
  const value = await load(cache, name, loader(key, name, true), { ttl: random.below(15) });
  if (value !== undefined) checkValue(name, value, 0);
}

/** The value of a changing key must not come from a load that began before a change which has returned. */
function checkFloor(name, value, floor) {
  if (value === undefined) return;
  const { writer, sequence } = checkValue(name, value, 0);
  demand(writer < LOADED || sequence > floor, "an overtaken load is neither stored nor joined later", () => ({
    name,
    writer,
    sequence,
    floor,
  }));
}

async function loadChanging() {
  const key = random.below(KEYS);
  const name = `changing:${key}`;
  const floor = page.floor(key);
  const tags = random.below(2) ? ["all"] : () => ["all", `tag ${key}`];
  checkFloor(name, await load(changing, name, loader(key, name, false), { tags, ttl: 2 + random.below(50) }), floor);
}

function readChanging() {
  const key = random.below(KEYS);
  const name = `changing:${key}`;
  const floor = page.floor(key);
  checkFloor(name, changing.get(name), floor);
}

/** Changes a key, or all. From its return on, no load that began before may be seen. */
function change() {
  const key = random.below(KEYS);
  const name = `changing:${key}`;
  const before = page.stamp();
  const dice = random.below(20);
  if (dice === 0) changing.clear();
  else if (dice === 1) changing.invalidateTag("all");
  else if (dice < 9) changing.delete(name);
  else if (dice < 11) changing.take(name);
  else changing.set(name, someValue(name, id, page.stamp()), { tags: ["all"], ttl: 1 + random.below(10) });
  // Every value of the namespace that was loaded has the tag, so an invalidation is a change of all keys, too.
  if (dice < 2) for (let other = 0; other < KEYS; other++) page.raiseFloor(other, before);
  else page.raiseFloor(key, before);
}

/** A section under a lock: reads a counter, and writes it in a second step. */
async function section() {
  const lock = random.below(LOCKS);
  const act = async ({ fence }) => {
    page.enter(lock, fence);
    const seen = page.counted(lock);
    await linger();
    page.leave(lock, seen);
    report.sections++;
  };
  await inPatience(cache.locks.request(`lock ${lock}`, act), `lock ${lock}`);
}

function limit() {
  const epoch = page.epoch();
  const result = cache.rateLimit(`limit:${epoch}`, { limit: LIMIT, window: HOUR_MS, algorithm: "fixed" });
  if (!result.allowed) return;
  report.granted++;
  const granted = page.grant(epoch);
  demand(granted <= LIMIT || !setup.roomy, "a limit lets no more through", () => ({ epoch, granted }));
}

/** Waits until another value comes. Somebody stores one again and again. */
async function wait() {
  const name = `waited:${random.below(WAITED)}`;
  const version = cache.getEntry(name)?.version;
  try {
    const { signal } = stopping;
    checkValue(name, await inPatience(cache.waitFor(name, { version, signal }), name), 0);
    report.waits++;
  } catch (error) {
    if (!stopping.signal.aborted) throw error;
  }
}

function tell() {
  const name = `waited:${random.below(WAITED)}`;
  cache.set(name, someValue(name, id, page.stamp()));
}

/** Fills a tight cache. */
function churn() {
  const name = `churn:${random.below(setup.roomy ? 50 : 5_000)}`;
  cache.set(name, someValue(name, id, page.stamp()));
}

async function step() {
  const dice = random.below(100);
  if (dice < 25) await loadStill();
  else if (dice < 42) await loadChanging();
  else if (dice < 55) readChanging();
  else if (dice < 64) change();
  else if (dice < 76) await section();
  else if (dice < 82) limit();
  else if (dice < 84) await wait();
  else if (dice < 93) tell();
  else churn();
}

async function work() {
  while (!page.stopped) {
    try {
      await step();
    } catch (error) {
      if (error?.code !== "ERR_BUSY") throw error;
      report.busy++;
    }
    report.steps++;
    page.stepped();
    await new Promise(setImmediate);
  }
}

/** The last value of each key that is watched. */
const watched = new Map();

async function main() {
  const names = Array.from({ length: WAITED }, (_, i) => `waited:${i}`);
  cache.watch(names, (name) => {
    const value = cache.get(name);
    if (value !== undefined) watched.set(name, checkValue(name, value, 0).sequence);
  });
  if (survivor) send({ ready: true });
  const polling = setInterval(() => page.stopped && stopping.abort(), 20);
  await Promise.all(Array.from({ length: WIDTH }, work));
  clearInterval(polling);
  if (!survivor) return;
  // The driver stores a last value of each watched key, when everybody has stopped.
  send({ idle: true });
  const until = async (holds) => {
    while (!holds()) await new Promise((done) => setTimeout(done, 5));
  };
  const isOver = () => page.final !== Infinity;
  // A tight cache may have evicted the last values.
  const isSeen = (name) => !setup.roomy || (watched.get(name) ?? 0) >= page.final;
  await inPatience(
    until(() => isOver() && names.every(isSeen)),
    "a watch",
  );
  cache.close();
  send({ report });
}

if (isMainThread) {
  // Ctrl-C is for the parent process, which ends its participants itself.
  process.on("SIGINT", () => {});
  // The kernel kills this process when its parent dies, but not if the parent had died before that was set.
  if (process.ppid !== setup.parent) process.exit(1);
}

main().then(
  () => {
    if (!isMainThread) parentPort.close();
    else if (process.connected) process.disconnect();
  },
  (error) => {
    console.error(error instanceof Violation ? `violation: ${error.message}` : `${error?.stack ?? error}`);
    process.exit(1);
  },
);
if (survivor && isMainThread) process.on("message", () => {});
