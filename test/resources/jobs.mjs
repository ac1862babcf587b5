/**
 * The jobs of resources.test.ts. Each runs in a process of its own, so that nobody else's resources are counted, and limits affect
 * nobody else: `node --expose-gc jobs.mjs <job> '{"name": …}'` prints its results as JSON.
 */
import { execFileSync } from "node:child_process";
import { closeSync, openSync, readdirSync, readFileSync, statfsSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import * as together from "cache-machine";
import { generator } from "../crash/checked-values.mjs";
import { inTime, resources } from "../crash/driver.mjs";
import * as apart from "../host/apart.mjs";

const { attachCache, createCache, destroyCache, openCache } = apart;

const GUEST = fileURLToPath(new URL("opening-worker.mjs", import.meta.url));

/** Limits a resource of this process, like `ulimit`; only the soft limit, so that it can be raised again. */
function limit(resource, value) {
  execFileSync("prlimit", ["--pid", String(process.pid), `--${resource}=${value}:`]);
}

const addressSpace = () => Number(readFileSync("/proc/self/statm", "latin1").split(" ")[0]) * 4096;

/** Calls a function: name, code and message of its error, or its result. */
function outcome(run) {
  try {
    return { returned: run() };
  } catch (error) {
    return { name: error.name, code: error.code, message: error.message };
  }
}

/** Number of mappings of named cache files in this process; a file that it has created itself shows no name there. */
const mappings = () => readFileSync("/proc/self/maps", "latin1").match(/ \/dev\/shm\/.*$/gm)?.length ?? 0;

/** The resources of this process after garbage collection. */
async function settled() {
  for (let i = 0; i < 3; i++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return resources();
}

/** How much `files` and `maps` grew during `times` calls of `run`. A first call is not counted, because what it allocates is kept. */
async function growth(run, times) {
  await run(0);
  const before = await settled();
  const from = performance.now();
  for (let i = 1; i <= times; i++) await run(i);
  const ms = Math.round(performance.now() - from);
  const after = await settled();
  return { files: after.files - before.files, maps: after.maps - before.maps, ms };
}

const works = (cache, i) => {
  if (cache.set(`k${i % 100}`, i).get(`k${i % 100}`) !== i) throw new Error(`lost in round ${i}`);
};

const jobs = {
  /**
   * Opens and closes one cache. `held`: another participant in this process has it open all the time. `oneSeat`: all Cache objects
   * share one seat, as usual.
   */
  async openAndClose({ name, times, held, leaks = false, oneSeat = false }) {
    const openCache = oneSeat ? together.openCache : apart.openCache;
    const holder = held ? openCache(name, { size: "1mb" }) : undefined;
    const kept = [];
    const grown = await growth((i) => {
      const cache = openCache(name, { size: "1mb", nearCache: 16 });
      works(cache, i);
      if (leaks) kept.push(cache);
      else cache.close();
    }, times);
    const mapped = mappings();
    holder?.close();
    const again = openCache(name);
    const { participants } = again.stats();
    again.close();
    return { ...grown, mapped, participants: oneSeat ? participants : participants - kept.length };
  },

  async createAndDestroy({ name, times }) {
    const grown = await growth((i) => {
      const cache = openCache(name, { size: "1mb", nearCache: 16 });
      works(cache, i);
      // Closes the cache before it is destroyed in every second round, and after that in the others.
      if (i % 2 === 0) cache.close();
      if (!destroyCache(name)) throw new Error(`gone in round ${i}`);
      if (i % 2 === 1) cache.close();
    }, times);
    return { ...grown, mapped: mappings() };
  },

  /** Creates caches of reach `threads` in an address space that has room for only a few at a time. */
  async threadCaches({ times, size, room }) {
    gc();
    limit("as", addressSpace() + room);
    const grown = await growth((i) => {
      const cache = createCache({ size, nearCache: 16 });
      works(cache, i);
      cache.close();
    }, times);
    return grown;
  },

  /** Creates caches of reach `processes` in such an address space; each mapping ends with its last user. */
  async files({ name, times, size, room }) {
    gc();
    limit("as", addressSpace() + room);
    return growth((i) => {
      const cache = openCache(name, { size, nearCache: 16 });
      works(cache, i);
      cache.close();
      destroyCache(name);
    }, times);
  },

  /** Terminates workers that have opened the cache. `tracked`: whether Node.js closes a worker's descriptors when it ends. */
  async workers({ name, times, width = 4, tracked = true }) {
    const cache = openCache(name, { size: "1mb" });
    let serial = 0;
    const one = async () => {
      const i = serial++;
      const handle = i % 2 === 0 ? cache.handle : undefined;
      const worker = new Worker(GUEST, {
        workerData: { job: "attach", name, handle },
        trackUnmanagedFds: tracked,
      });
      await inTime(new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject)), "a guest");
      await worker.terminate();
    };
    const grown = await growth(() => Promise.all(Array.from({ length: width }, one)), Math.ceil(times / width));
    const result = { ...grown, terminated: serial, participants: cache.stats().participants, mapped: mappings() };
    cache.close();
    return result;
  },

  /**
   * Ends workers without close(), and destroys their caches: the free blocks of the file system after each, without garbage
   * collection. `who` maps the file: this thread before the worker, which joins by `by`, or the worker alone.
   */
  async leavers({ path, size, endings }) {
    const free = [];
    for (const [i, { ending, by, who, last }] of endings.entries()) {
      const name = `leaver-${i}`;
      const cache = who === "worker" ? undefined : openCache(name, { path, size });
      const handle = by === "handle" ? cache.handle : undefined;
      const worker = new Worker(GUEST, { workerData: { job: "leave", name, path, size, handle } });
      await inTime(new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject)), "a guest");
      const end = async () => {
        const ended = new Promise((resolve) => worker.once("exit", resolve));
        if (ending === "terminate") void worker.terminate();
        else worker.postMessage(ending);
        await inTime(ended, "a guest ends");
      };
      if (!last) await end();
      cache?.close();
      destroyCache(name, { path });
      if (last) await end();
      free.push(statfsSync(path).bfree);
    }
    return { free };
  },

  /** Terminates workers at random moments while they open, close, create and destroy caches. */
  async terminatedWhileOpening({ name, times, seed, width = 3 }) {
    const random = generator(seed);
    const cache = openCache(name, { size: "1mb" });
    const own = `${name}-own`;
    let opened = 0;
    let interrupted = 0;
    const one = async () => {
      const words = new Int32Array(new SharedArrayBuffer(8));
      const worker = new Worker(GUEST, { workerData: { job: "loop", name, own, words } });
      let failed;
      worker.once("error", (error) => (failed = error));
      const target = 1 + random.below(30);
      while (Atomics.load(words, 0) < target && failed === undefined) await new Promise((r) => setTimeout(r, 1));
      for (const instant = performance.now() + random.random(); performance.now() < instant; );
      await inTime(worker.terminate(), "a guest ends");
      if (failed !== undefined) throw failed;
      opened += Atomics.load(words, 0);
      if (Atomics.load(words, 1) === 1) interrupted++;
    };
    const round = () => Promise.all(Array.from({ length: width }, one));
    const grown = await growth(round, Math.ceil(times / width));
    destroyCache(own);
    const left = readdirSync("/dev/shm").filter((file) => file.includes(name));
    const { participants } = cache.stats();
    const broken = cache.validate();
    const seats = 64;
    const guests = Array.from({ length: seats - 1 }, () => openCache(name, { nearCache: 0 }));
    const full = cache.stats().participants;
    const tooMany = outcome(() => openCache(name)).code;
    for (const guest of guests) guest.close();
    const mapped = mappings();
    cache.close();
    const file = basename(cache.handle.path);
    const others = left.filter((name) => name !== file);
    return { ...grown, opened, interrupted, participants, broken, full, tooMany, mapped, others };
  },

  /** Opens caches without free address space: this fails, and open caches still work. */
  async noAddressSpace({ name }) {
    const cache = openCache(name, { size: "1mb" });
    gc();
    limit("as", addressSpace() + 2 ** 31);
    const refused = [
      outcome(() => createCache({ size: "1mb" })),
      outcome(() => openCache(`${name}-other`, { size: "1mb" })),
    ];
    works(cache, 1);
    // This process has the mapping already.
    const again = openCache(name);
    works(again, 2);
    again.close();
    limit("as", "unlimited");
    const after = openCache(`${name}-other`, { size: "1mb" });
    works(after, 3);
    works(createCache({ size: "1mb" }), 4);
    after.close();
    destroyCache(`${name}-other`);
    return { refused };
  },

  /** Opens caches without free descriptors, in this thread and in a worker: this fails, and open caches still work. */
  async noDescriptors({ name }) {
    const cache = openCache(name, { size: "1mb" });
    const local = createCache({ size: "1mb" });
    const worker = new Worker(GUEST, { workerData: { job: "ask", name, handle: cache.handle, local: local.handle } });
    const answer = () =>
      inTime(new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject)), "a guest");
    await answer();
    const before = resources().files;
    limit("nofile", before + 50);
    const taken = [];
    try {
      for (;;) taken.push(openSync("/dev/null"));
    } catch (error) {
      if (error.code !== "EMFILE") throw error;
    }
    const refused = [
      outcome(() => openCache(name)),
      outcome(() => openCache(`${name}-other`, { size: "1mb" })),
      outcome(() => attachCache(cache.handle)),
    ];
    works(cache, 1);
    cache.set("large", Buffer.alloc(100_000, 1));
    cache.increment("counter");
    const { participants } = cache.stats();
    works(local, 1);
    const asked = answer();
    worker.postMessage("open");
    const inWorker = await asked;
    for (const fd of taken) closeSync(fd);
    limit("nofile", before + 200);
    const after = answer();
    worker.postMessage("open");
    const inWorkerAfter = await after;
    // A worker that joined while no descriptor was free is also found dead after its end.
    const localBefore = local.stats().participants;
    await worker.terminate();
    const localAfter = local.stats().participants;
    works(openCache(name), 2);
    return {
      refused,
      inWorker,
      inWorkerAfter,
      participants,
      localBefore,
      localAfter,
      processesAfter: cache.stats().participants,
    };
  },

  /** Writes several times the size of the cache, and reads the last values. */
  async fill({ name, path, times = 3 }) {
    const cache = openCache(name, { path });
    const { capacity } = cache.stats();
    let written = 0;
    for (let i = 0; written < times * capacity; i++, written += 4_000) cache.set(`k${i}`, Buffer.alloc(4_000, i));
    cache.set("large", Buffer.alloc(100_000, 7));
    const { used } = cache.stats();
    const read = [cache.get("large")?.every((byte) => byte === 7), cache.validate()];
    cache.close();
    return { share: used / capacity, read };
  },
};

const [job, options] = process.argv.slice(2);
console.log(JSON.stringify(await jobs[job](JSON.parse(options))));
// Ends the process although a worker may still run.
process.exit(0);
