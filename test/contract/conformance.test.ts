/**
 * Runs the conformance suite (conformance.ts) in Node.js: in both reaches, by one participant, and by several threads and processes
 * at once. Then tests every way in which a cache gets from one thread or process to another.
 */

import { type ChildProcess, execFile, fork } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { setEnvironmentData, Worker } from "node:worker_threads";
import type { Cache, CacheOptions, OpenOptions } from "cache-machine";
import * as together from "cache-machine";
import { buildSync } from "esbuild";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import type { Subject } from "../../src/testing/check.ts";
import { conformance } from "../../src/testing/conformance.ts";
import * as apart from "../host/apart.mjs";
import { attachCache, createCache, destroyCache, openCache } from "../host/apart.mjs";
import { seeded } from "./seeded.ts";

const WATCHDOG_MS = 60_000;
const root = fileURLToPath(new URL("../..", import.meta.url));

// Which keys and tags collide in the index depends on the cache's random seed. With a fixed seed all runs are the same.
const SEED = Number(process.env.SEED ?? 20_240_517);
console.log(`conformance: SEED=${SEED}`);

// ---- The other side: the suite bundled as one module, and small scripts beside it ------------------------------------------

const scripts = fs.mkdtempSync(path.join(os.tmpdir(), "cache-machine-conformance-"));
fs.mkdirSync(path.join(scripts, "node_modules"));
fs.symlinkSync(root, path.join(scripts, "node_modules", "cache-machine"));
const suite = path.join(scripts, "suite.mjs");
buildSync({
  stdin: {
    contents: 'export * from "./src/testing/conformance.ts"; export * from "./src/testing/concurrent-checks.ts";',
    resolveDir: root,
  },
  bundle: true,
  format: "esm",
  platform: "neutral",
  outfile: suite,
});
const participant = path.join(scripts, "participant.mjs");
fs.copyFileSync(path.join(root, "test/contract/participant.mjs"), participant);

let scriptCount = 0;
function script(body: string, extension = "mjs"): string {
  const file = path.join(scripts, `script-${scriptCount++}.${extension}`);
  fs.writeFileSync(file, body);
  return file;
}

const names = new Set<string>();
function newName(): string {
  const name = `t-${process.pid}-conformance-${nameCount++}`;
  names.add(name);
  return name;
}
let nameCount = 0;

const children = new Set<ChildProcess>();
const workers = new Set<Worker>();
const opened = new Set<Cache>();

afterEach(async () => {
  for (const child of children) if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
  await Promise.all([...workers].map((worker) => worker.terminate()));
  for (const cache of opened) cache.close();
  for (const name of names) destroyCache(name);
  for (const set of [children, workers, opened, names]) set.clear();
});

afterAll(() => {
  for (const name of names) destroyCache(name);
  fs.rmSync(scripts, { recursive: true, force: true });
});

function startWorker(file: string, workerData?: unknown): Worker {
  const worker = new Worker(file, { workerData });
  workers.add(worker);
  return worker;
}

function startProcess(file: string, ...args: string[]): ChildProcess {
  const child = fork(file, args, { execArgv: [], stdio: ["ignore", "inherit", "inherit", "ipc"] });
  children.add(child);
  return child;
}

/** Waits for the next message; an error when the other side ends or sends nothing. */
async function message<T>(from: Worker | ChildProcess): Promise<T> {
  const over = new AbortController();
  const { signal } = over;
  try {
    return await Promise.race([
      once(from, "message", { signal }).then(([value]) => value as T),
      once(from, "exit", { signal }).then(([code]) =>
        Promise.reject(new Error(`ended with ${code} and sent no message`)),
      ),
      new Promise<T>((_, reject) => {
        const timer = setTimeout(() => reject(new Error(`no message within ${WATCHDOG_MS} ms`)), WATCHDOG_MS);
        signal.addEventListener("abort", () => clearTimeout(timer));
      }),
    ]);
  } finally {
    over.abort();
  }
}

function fileOf(name: string): string {
  const [file] = fs.readdirSync("/dev/shm").filter((entry) => entry.includes(`-${name}.v`));
  return path.join("/dev/shm", file as string);
}

function keep(cache: Cache): Cache {
  opened.add(cache);
  return cache;
}

const create = (size: string): Cache => keep(seeded(SEED, () => createCache({ size })));
const openNamed = (name: string, options?: OpenOptions): Cache => keep(seeded(SEED, () => openCache(name, options)));

// ---- One participant at a time --------------------------------------------------------------------------------------

const MIB = 1 << 20;
// In a container /dev/shm may have as little as 64 MiB.
const { bavail, bsize } = fs.statfsSync("/dev/shm");
const ROOM = bavail * bsize;
const SOLO_MIB = ROOM > 100 * MIB ? 64 : 32;
const SHARED_MIB = ROOM > 200 * MIB ? 128 : 32;
if (SHARED_MIB < 128) console.warn(`conformance: /dev/shm has only ${ROOM >> 20} MiB, so smaller caches are tested`);

const PARTICIPANTS: [string, CacheOptions][] = [
  ["with the defaults", {}],
  ["without a near cache", { nearCache: 0 }],
];

describe.each([
  ["threads", "each participant with a seat of its own", apart],
  ["processes", "each participant with a seat of its own", apart],
  ["threads", "all participants with one seat", together],
  ["processes", "all participants with one seat", together],
] as const)(
  "the whole interface in reach %s, %s",
  (reach, _seats, { attachCache, createCache, destroyCache, openCache }) => {
    const participants = openCache === together.openCache ? 1 : 2;
    const name = `t-${process.pid}-conformance-${reach}-${participants}`;
    const size = `${reach === "threads" ? 64 : SOLO_MIB}mb`;
    let cache: Cache | undefined;
    const open = (options?: CacheOptions): Cache => {
      cache ??= seeded(SEED, () => (reach === "threads" ? createCache({ size }) : openCache(name, { size })));
      return reach === "threads" ? attachCache(cache.handle, options) : openCache(name, options);
    };
    afterAll(() => {
      cache?.close();
      destroyCache(name);
    });

    describe.each(PARTICIPANTS)("%s", (_, options) => {
      const subject: Subject = { reach, largest: Number.parseInt(size, 10) * (MIB / 8), open };
      for (const { name: promise, run } of conformance(subject, { options })) test(promise, run);
    });

    test("after the conformance suite and a clear, the cache is empty and nobody else participates", () => {
      const last = open();
      last.clear();
      expect([last.census(), last.stats().participants]).toEqual([{ entries: 0, bytes: 0 }, participants]);
      last.close();
    });
  },
);

// ---- The near cache -------------------------------------------------------------------------------------------------

describe("the near cache", () => {
  // Of the pairs of a stored key and an absent one, about a dozen have the same bucket (of 1,024) and the same fingerprint
  // (16 bits). The index cannot tell the two keys of such a pair apart.
  const THERE = 8_000;
  const ABSENT = 100_000;

  /** Stores all values, and reads each twice, so that they are in the near cache. Returns the number of values that were read. */
  function makeNear(cache: Cache, viewOf: (i: number) => Cache, keyOf: (i: number) => string): number {
    for (let i = 0; i < THERE; i++) viewOf(i).set(keyOf(i), i);
    let near = 0;
    for (let i = 0; i < THERE; i++) {
      viewOf(i).get(keyOf(i));
      if (viewOf(i).get(keyOf(i)) === i) near++;
    }
    expect(cache.census().entries).toBe(near);
    return near;
  }

  test("an absent key with the fingerprint and bucket of a near one is a miss", () => {
    const cache = create("1mb");
    const near = makeNear(
      cache,
      () => cache,
      (i) => `key ${i}`,
    );
    expect(near).toBeGreaterThan(0.9 * THERE);
    const found: string[] = [];
    for (let i = 0; i < ABSENT; i++) if (cache.get(`absent ${i}`) !== undefined) found.push(`absent ${i}`);
    expect(found).toEqual([]);
  });

  test("a key is a miss in a namespace where it has the fingerprint and bucket of the same key in another namespace", () => {
    const cache = create("2mb");
    const views = Array.from({ length: THERE }, (_, i) => cache.namespace(`${i}`));
    const near = makeNear(
      cache,
      (i) => views[i] as Cache,
      () => "key",
    );
    expect(near).toBeGreaterThan(0.9 * THERE);
    const found: string[] = [];
    for (let i = 0; i < 2 * ABSENT; i++) if (cache.namespace(`n${i}`).get("key") !== undefined) found.push(`n${i}`);
    expect(found).toEqual([]);
  });

  test("the near cache keeps at most nearCacheSize bytes, whatever the number of entries", () => {
    const cache = create("1mb");
    const keys = Array.from({ length: 12 }, (_, i) => `key ${i}`);
    /** How many of the objects are identical when they are read again, last ones first. */
    const kept = (nearCacheSize: number | string): number => {
      const reader = keep(attachCache(cache.handle, { nearCacheSize, frozenObjects: true }));
      const first = keys.map((key) => reader.get(key));
      return keys.filter((_, i) => reader.get(keys.at(-1 - i) as string) === first.at(-1 - i)).length;
    };
    for (const key of keys) cache.set(key, { text: "x".repeat(6_000) });
    // Beside the table, two objects fit into 64 KiB, and all into 256 KiB.
    expect(kept(65_536)).toBeGreaterThan(0);
    expect(kept(65_536)).toBeLessThanOrEqual(2);
    expect(kept("256kb")).toBe(keys.length);
  });

  test("an expired entry frees its room in the near cache", () => {
    const cache = create("1mb");
    let now = 0;
    const reader = keep(attachCache(cache.handle, { nearCache: 16, frozenObjects: true, now: () => now }));
    for (let i = 0; i < 10; i++) {
      reader.set("key", { text: "x".repeat(3_000) }, { ttl: 10 });
      const first = reader.get("key");
      expect(first).toBeDefined();
      expect(reader.get("key")).toBe(first);
      expect(reader.stats().near.entries).toBe(1);
      now += 10;
      expect(reader.get("key")).toBeUndefined();
      expect(reader.stats().near.entries).toBe(0);
    }
  });
});

// ---- Several participants at once ------------------------------------------------------------------------------------------------

interface Report {
  checks: number;
  failures: string[];
}

/** The jobs of the participants that run at once. They open the cache by `name`, or join it by `handle`. */
function jobs(count: number, cache: Cache, name?: string): object[] {
  const { reach } = cache;
  const how = name === undefined ? { handle: cache.handle } : { name };
  const url = pathToFileURL(suite).href;
  return Array.from({ length: count }, (_, number) => ({ ...how, number, count, reach, largest: MIB, suite: url }));
}

async function expectSuccess(sides: (Worker | ChildProcess)[]): Promise<void> {
  const reports = await Promise.all(sides.map((side) => message<Report>(side)));
  for (const { checks, failures } of reports) {
    expect(failures.join("\n")).toBe("");
    expect(checks).toBeGreaterThan(30);
  }
}

describe("several participants, each on its own part of the cache, then all on the whole", () => {
  test.each([1, 2, 4])(
    "%i threads that share a cache of reach threads pass the conformance suite and the concurrent checks",
    async (count) => {
      const cache = create(`${SHARED_MIB}mb`);
      await expectSuccess(jobs(count, cache).map((job) => startWorker(participant, job)));
    },
  );

  test.each([1, 2, 4])(
    "%i processes that share a cache of reach processes pass the conformance suite and the concurrent checks",
    async (count) => {
      const name = newName();
      const cache = openNamed(name, { size: `${SHARED_MIB}mb` });
      await expectSuccess(jobs(count, cache, name).map((job) => startProcess(participant, JSON.stringify(job))));
    },
  );

  test("2 processes and 2 threads that share a cache of reach processes, by name and by handle, pass the conformance suite and the concurrent checks", async () => {
    const name = newName();
    const cache = openNamed(name, { size: `${SHARED_MIB}mb` });
    const byName = jobs(4, cache, name);
    const byHandle = jobs(4, cache);
    await expectSuccess([
      startWorker(participant, byHandle[0]),
      startWorker(participant, byName[1]),
      ...byName.slice(2).map((job) => startProcess(participant, JSON.stringify(job))),
    ]);
  });
});

// ---- How a cache gets to another thread or process ------------------------------------------------------------------

/** Code for scripts: counts a script in the cache, and sends the reach of the cache and a value that it has read. */
const ANSWER = `
  const answer = (cache, send) => { cache.increment("seen"); send([cache.reach, cache.get("from the test")]); };`;
const THREAD = `
  import { attachCache, openCache } from "cache-machine";
  import { getEnvironmentData, parentPort, Worker, workerData } from "node:worker_threads";
  const send = (value) => parentPort.postMessage(value);
  ${ANSWER}`;

describe("passing a handle", () => {
  const cases = (["threads", "processes"] as const).flatMap((reach) => [
    [reach, "workerData", "answer(attachCache(workerData.cache), send)"],
    [reach, "postMessage", 'parentPort.once("message", ({ cache }) => answer(attachCache(cache), send))'],
    [reach, "environment data", 'answer(attachCache(getEnvironmentData("the cache")), send)'],
    [
      reach,
      "a worker that passes it on to its own worker",
      `if (workerData.depth > 0) answer(attachCache(workerData.cache), send);
       else new Worker(new URL(import.meta.url), { workerData: { ...workerData, depth: 1 } }).once("message", send);`,
    ],
  ]);
  test.each(cases)("a worker joins a cache of reach %s by the handle that it gets by %s", async (reach, _, body) => {
    const cache = reach === "threads" ? create("1mb") : openNamed(newName(), { size: "1mb" });
    cache.set("from the test", { n: 1 });
    setEnvironmentData("the cache", cache.handle as never);
    try {
      const worker = startWorker(script(`${THREAD} ${body}`), { cache: cache.handle, depth: 0 });
      worker.postMessage({ cache: cache.handle });
      expect(await message(worker)).toEqual([reach, { n: 1 }]);
      expect(cache.get("seen")).toBe(1);
    } finally {
      setEnvironmentData("the cache", undefined as never);
    }
  });

  test("a handle stays valid after the participant that made it has closed the cache", async () => {
    const cache = createCache({ size: "1mb" });
    cache.set("from the test", "still there");
    const { handle } = cache;
    cache.close();
    const worker = startWorker(script(`${THREAD} answer(attachCache(workerData), send)`), handle);
    expect(await message(worker)).toEqual(["threads", "still there"]);
    const back = keep(attachCache(handle));
    expect(back.getMany(["from the test", "seen"])).toEqual(["still there", 1]);
  });
});

describe("opening a cache by name", () => {
  test("a worker thread opens the cache by name, and shares the mapping of its process", async () => {
    const name = newName();
    const cache = openNamed(name, { size: "1mb" });
    cache.set("from the test", "hello");
    const body = `const cache = openCache(workerData); answer(cache, send); parentPort.on("message", () => {});`;
    const worker = startWorker(script(`${THREAD} ${body}`), name);
    expect(await message(worker)).toEqual(["processes", "hello"]);
    expect(cache.get("seen")).toBe(1);
    // Columns: addresses, permissions, offset, device, inode, name. Found by inode, because the file had no name when it was mapped.
    const inode = String(fs.statSync(fileOf(name)).ino);
    const maps = fs.readFileSync("/proc/self/maps", "latin1").split("\n");
    expect(maps.filter((line) => line.split(/ +/)[4] === inode)).toHaveLength(1);
  });

  test("a process that child_process.fork started shares the cache by name, in both directions", async () => {
    const name = newName();
    const cache = openNamed(name, { size: "1mb" });
    cache.set("from the test", new Map([["k", 1n]]));
    const child = startProcess(
      script(`import { openCache } from "cache-machine";
        const cache = openCache(process.argv[2]);
        process.on("message", (key) => process.send([cache.get(key)?.get?.("k") === 1n, cache.get(key)]));
        cache.set("from the child", { at: new Date(5) });
        process.send("ready");`),
      name,
    );
    expect(await message(child)).toBe("ready");
    expect(cache.get("from the child")).toEqual({ at: new Date(5) });
    child.send("from the test");
    expect((await message<[boolean]>(child))[0]).toBe(true);
    cache.set("from the test", "changed");
    child.send("from the test");
    expect((await message<[boolean, string]>(child))[1]).toBe("changed");
  });

  test("the workers of node:cluster share the cache by name", async () => {
    const name = newName();
    const cache = openNamed(name, { size: "1mb" });
    const child = startProcess(
      script(`import cluster from "node:cluster";
        import { openCache } from "cache-machine";
        const cache = openCache(process.argv[2]);
        if (cluster.isPrimary) {
          for (let i = 0; i < 3; i++) cluster.fork();
          let ended = 0;
          cluster.on("exit", () => {
            if (++ended === 3) process.send(cache.get("workers"), () => process.disconnect());
          });
        } else {
          cache.increment("workers");
          cache.set("by " + cluster.worker.id, { pid: process.pid });
          cluster.worker.disconnect();
        }`),
      name,
    );
    expect(await message(child)).toBe(3);
    expect(cache.get("workers")).toBe(3);
    expect(new Set([1, 2, 3].map((id) => cache.get(`by ${id}`).pid)).size).toBe(3);
  });

  test("an ES module reads the entries that a CommonJS script stored before it ended", async () => {
    const name = newName();
    const writer = script(
      `const { openCache } = require("cache-machine");
      const cache = openCache(process.argv[2], { size: "1mb" });
      cache.set("key", { list: [1, 2] }, { tags: ["t"] });
      cache.increment("n", 5);`,
      "cjs",
    );
    const reader = script(`import { openCache } from "cache-machine";
      const cache = openCache(process.argv[2]);
      console.log(JSON.stringify([cache.get("key"), cache.getEntry("key").tags, cache.increment("n"), cache.stats().size]));`);
    await run(writer, name);
    expect(JSON.parse(await run(reader, name))).toEqual([{ list: [1, 2] }, ["t"], 6, MIB]);
    expect(JSON.parse(await run(reader, name))[2]).toBe(7);
  });

  test("four processes that open a new name at the same time get the same cache", async () => {
    const name = newName();
    const body = `import { openCache } from "cache-machine";
      const cache = openCache(process.argv[2], { size: "2mb" });
      console.log(cache.add("first", process.pid), cache.increment("all"));`;
    const file = script(body);
    const outputs = await Promise.all(Array.from({ length: 4 }, () => run(file, name)));
    expect(outputs.filter((output) => output.startsWith("true"))).toHaveLength(1);
    expect(outputs.map((output) => Number(output.split(" ")[1])).sort()).toEqual([1, 2, 3, 4]);
  });
});

/** The output of a script; rejects when the script fails, or prints errors or warnings. */
function run(file: string, ...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(process.execPath, [file, ...args], { timeout: WATCHDOG_MS }, (error, stdout, stderr) => {
      if (error === null && stderr === "") resolve(stdout);
      else reject(error ?? new Error(stderr));
    });
    children.add(child);
  });
}
