/**
 * Drives the hostile tests: starts users of one cache in processes and threads, damages the memory of the cache meanwhile, and has a
 * watchdog that tells which operation did not end.
 */
import { fork } from "node:child_process";
import { closeSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { createCache, destroyCache, openCache } from "cache-machine";
import { generator } from "../crash/checked-values.mjs";
import { mapJournal } from "../crash/journal.mjs";
import { Attacker, SIZE } from "./attacker.mjs";
import { PrivateMemory } from "./private-memory.mjs";
import { USE_NAMES, User } from "./user.mjs";

const PARTICIPANT = fileURLToPath(new URL("participant.mjs", import.meta.url));
/** A user that makes no progress for this long is stuck. */
const PATIENCE_MS = 30_000;
/** Minimum number of operations of all users between two changes of the memory. */
const STEPS_BETWEEN = 20;
/** Number of changes after which the memory is restored; otherwise soon no entry would be found. */
const CHANGES_BEFORE_WHOLE = 70;

let runs = 0;

/** Damages a cache while nobody uses it, `images` times, and uses it after each time. */
export async function damageAtRest(plan) {
  const progress = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const user = start({ ...plan, role: "images", id: 0, progress }, undefined);
  const watch = new Watch(progress, [user]);
  try {
    return await watch.until(user.reported, plan.seed);
  } finally {
    await user.kill();
  }
}

/** Damages a cache while others use it, `changes` times; the reports of the users, and the state of the cache afterwards. */
export async function damageInUse({ reach, changes, seed }) {
  const name = `t-${process.pid}-hostile-${++runs}`;
  const file = `/dev/shm/${name}.progress`;
  const random = generator(seed);
  const users = [];
  let cache;
  let fd;
  try {
    const progress = mapJournal(file);
    cache = reach === "threads" ? createCache({ size: SIZE }) : openCache(name, { size: SIZE });
    new User(cache, { random }).fill();
    const { memory, base, path } = cache.handle;
    let target;
    if (reach === "threads") {
      const region = Buffer.from(memory.buffer, base, SIZE);
      target = {
        read: (at, length) => Buffer.from(region.subarray(at, at + length)),
        write: (at, bytes) => region.set(bytes, at),
      };
    } else {
      fd = openSync(path, "r+");
      target = {
        read: (at, length) => {
          const bytes = Buffer.alloc(length);
          readSync(fd, bytes, 0, length, at);
          return bytes;
        },
        write: (at, bytes) => writeSync(fd, bytes, 0, bytes.length, at),
      };
    }
    const kinds =
      reach === "threads"
        ? [{}, { near: 0, frozenObjects: true }, { frozenObjects: true, reopens: true }]
        : [{ inProcess: true }, { inProcess: true, near: 0, frozenObjects: true }, { reopens: true }];
    for (const [i, kind] of kinds.entries()) {
      const inProcess = kind.inProcess === true;
      const setup = { ...kind, role: "use", id: i + 1, seed: random.next(), name };
      setup.progress = inProcess ? file : progress;
      if (reach === "threads") setup.handle = cache.handle;
      users.push(start(setup, inProcess));
    }
    const watch = new Watch(progress, users);
    await watch.until(Promise.all(users.map((user) => user.ready)), seed);
    // The seats of this process: its own, those of its threads, and those that are opened repeatedly.
    const below = new PrivateMemory(cache.handle, 64, [0, 1, 2, 3, 4, 5, 6, 7]);
    const whole = target.read(0, SIZE);
    const attacker = new Attacker(random, target);
    const from = watch.steps();
    const attack = async () => {
      for (let change = 0; change < changes; change++) {
        if (change % CHANGES_BEFORE_WHOLE === 0) target.write(0, whole);
        attacker.attack(Attacker.parts[change % Attacker.parts.length]);
        const before = watch.steps();
        while (watch.steps() < before + STEPS_BETWEEN) await delay(1);
      }
    };
    await watch.until(attack(), seed);
    const steps = watch.steps() - from;
    for (const user of users) user.stop();
    const reports = await watch.until(Promise.all(users.map((user) => user.reported)), seed);
    const ends = await watch.until(Promise.all(users.map((user) => user.ended)), seed);

    // The memory still has the last damage.
    const refused = {};
    cache.clear();
    for (let i = 0; i < 200; i++) {
      try {
        cache.set(`after ${i}`, i);
      } catch (error) {
        refused[error.code ?? error.stack] = (refused[error.code ?? error.stack] ?? 0) + 1;
      }
    }
    const damage = below.damage();
    cache.close();
    let anew = "works";
    if (reach === "processes") {
      const destroyed = destroyCache(name);
      cache = openCache(name, { size: SIZE });
      cache.set("k", { anew: true });
      const { entries } = cache.census();
      const { participants } = cache.stats();
      const isWhole = destroyed && cache.get("k").anew && entries === 1 && participants === 1 && cache.validate() === 0;
      if (!isWhole) anew = JSON.stringify({ entries, participants });
    }
    return { reports, ends, hits: attacker.hits, steps, refused, damage, painted: below.painted, anew };
  } finally {
    for (const user of users) await user.kill();
    if (fd !== undefined) closeSync(fd);
    cache?.close();
    if (reach === "processes") destroyCache(name);
    rmSync(file, { force: true });
  }
}

/** Watches that every user makes progress. */
class Watch {
  #words;
  #users;

  constructor(progress, users) {
    this.#words = new Int32Array(progress.buffer);
    this.#users = users;
  }

  #word(user, word) {
    return Atomics.load(this.#words, user.id * 16 + word);
  }

  /** Number of operations that all users have begun. */
  steps() {
    return this.#users.reduce((sum, user) => sum + this.#word(user, 0), 0);
  }

  /** Waits for a promise; rejects if a user fails or is stuck before. */
  async until(promised, seed) {
    const seen = new Map();
    let stuck;
    const watching = new Promise((_, reject) => {
      const poll = () => {
        for (const user of this.#users) {
          const steps = this.#word(user, 0);
          if (seen.get(user)?.steps !== steps) seen.set(user, { steps, since: performance.now() });
          else if (user.isAlive() && performance.now() - seen.get(user).since > PATIENCE_MS) {
            const [use, image] = [USE_NAMES[this.#word(user, 1)], this.#word(user, 2)];
            reject(new Error(`never ends: ${use} of user ${user.id} (seed ${seed}, image ${image}, step ${steps})`));
          }
        }
      };
      stuck = setInterval(poll, 500);
    });
    const failures = this.#users.map((user) => user.failed);
    try {
      return await Promise.race([promised, watching, ...failures]);
    } finally {
      clearInterval(stuck);
    }
  }
}

/** Starts a participant. It has failed if it ends before it was told to. */
function start(setup, inProcess) {
  const started = inProcess
    ? fork(PARTICIPANT, [JSON.stringify(setup)], { execArgv: [], stdio: ["ignore", "ignore", "pipe", "ipc"] })
    : new Worker(PARTICIPANT, { workerData: setup, stderr: true });
  let said = "";
  started.stderr.on("data", (data) => (said += data));
  let alive = true;
  let told = false;
  const { promise: ready, resolve: isReady } = withResolvers();
  const { promise: reported, resolve: report } = withResolvers();
  const { promise: failed, reject: fail } = withResolvers();
  failed.catch(() => {});
  const ended = new Promise((resolve) => started.once("exit", (code, signal) => resolve([code, signal ?? null])));
  ended.then(([code, signal]) => {
    alive = false;
    if (!told) fail(new Error(`user ${setup.id} ended by itself (${signal ?? code}): ${said}`));
  });
  started.once("error", (error) => fail(error));
  started.on("message", (message) => {
    if (message.ready) isReady();
    if (message.violation) fail(new Error(message.violation));
    if (message.report) {
      told = true;
      report(message);
    }
  });
  return {
    id: setup.id,
    ready,
    reported,
    ended,
    failed,
    isAlive: () => alive,
    stop: () => (inProcess ? started.send("stop") : started.postMessage("stop")),
    async kill() {
      told = true;
      if (!alive) return;
      if (inProcess) started.kill("SIGKILL");
      else await started.terminate();
      await ended;
    },
  };
}

/** `Promise.withResolvers`, which Node.js 20 does not have. */
function withResolvers() {
  let resolve;
  let reject;
  const promise = new Promise((...both) => ([resolve, reject] = both));
  return { promise, resolve, reject };
}
