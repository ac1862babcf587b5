/**
 * The option `fallback: "threads"` of `openCache`, on hosts where processes cannot share a cache. A host is pretended in a
 * child process: another platform, a native part that is missing or cannot be loaded, a directory that is not there. All
 * threads of such a child have to find the same cache, and are told once.
 *
 * Nothing is concluded from a delay.
 */

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { destroyCache, openCache } from "cache-machine";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

// Each test starts a process with some threads. On a busy machine that takes its time, which says nothing.
vi.setConfig({ testTimeout: 120_000 });

const root = fileURLToPath(new URL("../..", import.meta.url));
const CODE = "CACHE_MACHINE_FALLBACK";

let directory = "";

beforeEach(() => {
  directory = fs.mkdtempSync("/dev/shm/cache-machine-fallback-");
});

afterEach(() => fs.rmSync(directory, { recursive: true }));

/** What scripts have. A script runs as an async function in the main thread; so does what it passes to `inThread`. */
const PROLOGUE = `
  import { createRequire } from "node:module";
  import { once } from "node:events";
  import { isMainThread, parentPort, SHARE_ENV, Worker, workerData } from "node:worker_threads";
  import * as machine from DIST;
  const { destroyCache, openCache } = machine;
  const warnings = [];
  process.on("warning", ({ code, message, detail }) => warnings.push({ code, message, detail }));
  /** The warnings of this thread so far. They are emitted in a later tick. */
  const warned = async () => { await new Promise((resolve) => setImmediate(resolve)); return warnings; };
  const told = (run) => {
    try { return { returned: run() ?? null }; } catch ({ name, code, message }) { return { name, code, message }; }
  };
  const THREADS = { fallback: "threads", size: "1mb", path: PATH };
  const open = (name = "app", options = {}) => openCache(name, { ...THREADS, ...options });
  const destroy = (name = "app") => destroyCache(name, { path: PATH });
  const AsyncFunction = (async () => {}).constructor;
  const tools = () => ({ alone, inThread, started, told, warned, open, destroy, machine, THREADS, once, parentPort, workerData, SHARE_ENV,
    require: createRequire(import.meta.url) });
  const run = (code) => new AsyncFunction(...Object.keys(tools()), code)(...Object.values(tools()));
  /** Waits until only this thread has the cache open: the kernel shows a thread a moment longer than Node.js. */
  const alone = async (cache) => {
    while (cache.stats().participants > 1) await new Promise((resolve) => setImmediate(resolve));
    return 1;
  };
  /** Starts a thread; answers the worker, once it runs. Its messages are what the code posts. */
  const started = (code, options) => 
    new Worker(new URL(import.meta.url), { ...options, workerData: { ...options?.workerData, code } });
  /** Runs code in a thread; answers what it has returned, when the thread is gone. */
  const inThread = async (code, options) => {
    const worker = started(code, options);
    const answer = once(worker, "message");
    const end = once(worker, "exit");
    const [value] = await answer;
    await end;
    return value;
  };
  if (isMainThread) {
    console.log(JSON.stringify(await run(BODY)));
  } else parentPort.postMessage(await run(workerData.code));
`;

interface Host {
  /** Code that runs at the start of each thread, before the package is loaded. */
  before?: string;
  flags?: string[];
  /** The folder with the built package. */
  dist?: string;
  place?: string | undefined;
}

interface Told<T> {
  said: T;
  stderr: string;
}

/** Runs a script on a host; answers what it has returned, and all that its threads have written to stderr. */
function on<T = any>(
  body: string,
  { before = "", flags = [], dist = path.join(root, "dist"), place = directory }: Host,
): Told<T> {
  const folder = fs.mkdtempSync(path.join(fs.realpathSync("/tmp"), "cache-machine-fallback-"));
  try {
    fs.writeFileSync(path.join(folder, "before.cjs"), before);
    const script = path.join(folder, "script.mjs");
    const constants: Record<string, unknown> = {
      DIST: pathToFileURL(path.join(dist, "index.js")).href,
      PATH: place,
      BODY: body,
    };
    fs.writeFileSync(
      script,
      PROLOGUE.replace(/\b(DIST|PATH|BODY)\b/g, (name) => JSON.stringify(constants[name]) ?? "undefined"),
    );
    const args = [...flags, "--require", path.join(folder, "before.cjs"), script];
    const { stdout, stderr, status, signal } = spawnSync(process.execPath, args, {
      cwd: root,
      encoding: "utf8",
      env: { ...process.env, NODE_OPTIONS: "" },
      timeout: 60_000,
      killSignal: "SIGKILL",
    });
    if (status !== 0) throw new Error(`ended with ${status ?? signal}: ${stderr}${stdout}`);
    return { said: JSON.parse(stdout) as T, stderr };
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

const platform = (name: string, arch: string): string =>
  `Object.defineProperty(process, "platform", { value: "${name}" });
   Object.defineProperty(process, "arch", { value: "${arch}" });`;
const dlopen = (message: string): string => `process.dlopen = () => { throw new Error(${JSON.stringify(message)}); };`;
const MAC: Host = { before: platform("darwin", "arm64") };

/** How often the warning was printed. */
const printed = (stderr: string): number => stderr.split(`[${CODE}]`).length - 1;

/** Four threads, one of them with a thread of its own, count in one cache. */
const POOL = `
  const cache = open();
  const count = "const cache = open(); for (let i = 0; i < 500; i++) cache.increment('count');" +
    "return [cache.reach, cache.name, (await warned()).length];";
  const nested = count.replace("return", "const inner = await inThread(" + JSON.stringify(count) + "); return");
  const threads = await Promise.all([count, count, count, nested].map((code) => inThread(code)));
  return { reach: cache.reach, name: cache.name, count: cache.get("count"), participants: await alone(cache),
    threads, warnings: await warned() };`;

const bare = (): string => {
  const folder = path.join(directory, "bare");
  fs.mkdirSync(path.join(folder, "node_modules"), { recursive: true });
  fs.cpSync(path.join(root, "dist"), path.join(folder, "dist"), { recursive: true });
  fs.copyFileSync(path.join(root, "package.json"), path.join(folder, "package.json"));
  fs.symlinkSync(path.join(root, "node_modules/devalue"), path.join(folder, "node_modules/devalue"));
  return path.join(folder, "dist");
};

const HOSTS: [string, () => Host, RegExp][] = [
  ["macOS", () => MAC, /darwin arm64/],
  ["Windows", () => ({ before: platform("win32", "x64"), place: undefined }), /win32 x64/],
  ["another processor", () => ({ before: platform("linux", "ppc64") }), /linux ppc64/],
  ["a bundle without the native part", () => ({ dist: bare() }), /needs the file cache_machine-linux-/],
  [
    "a C library that cannot load the native part",
    () => ({ before: dlopen("Error relocating cache_machine.node: fcntl64: symbol not found") }),
    /could not be loaded \(Error relocating/,
  ],
  ["Node.js with --no-addons", () => ({ flags: ["--no-addons"] }), /--no-addons/],
  ["no /dev/shm", () => ({ place: "/nowhere/shm" }), /\/nowhere\/shm does not exist/],
];

describe("where processes cannot share", () => {
  test.each(HOSTS)("%s: all threads share one cache, and one warning says why", (_, host, reason) => {
    const { said, stderr } = on(POOL, host());
    expect(said).toEqual({
      reach: "threads",
      name: "app",
      count: 5 * 500,
      participants: 1,
      threads: Array.from({ length: 4 }, () => ["threads", "app", 0]),
      warnings: [
        { code: CODE, message: expect.stringContaining('openCache("app")'), detail: expect.stringMatching(reason) },
      ],
    });
    expect(printed(stderr)).toBe(1);
  });

  test("without the option opening is an error, which names the option; get and set never fall back", () => {
    const { said } = on(
      `open();
       return [told(() => open("app", { fallback: undefined })), told(() => machine.get("a")), told(() => machine.set("a", 1))];`,
      MAC,
    );
    for (const each of said) expect(each).toMatchObject({ name: "CacheError", code: "ERR_UNSUPPORTED" });
    expect(said[0].message).toContain('`fallback: "threads"`');
  });

  test("the second cache that falls back gives no second warning, and is another cache", () => {
    const { said, stderr } = on(
      `open("one").set("a", 1); const two = open("two"); const elsewhere = open("one", { path: "/elsewhere" });
       return [two.get("a") ?? null, elsewhere.get("a") ?? null, (await warned()).length,
         await inThread("return [open('one').get('a'), open('two').size, (await warned()).length]")];`,
      MAC,
    );
    expect(said).toEqual([null, null, 1, [1, 0, 0]]);
    expect(printed(stderr)).toBe(1);
  });

  test("one directory has one name, however it is written", () => {
    const { said } = on(
      `open("app", { path: "." }).set("a", 1);
       return [open("app", { path: process.cwd() }).get("a"), open("app", { path: process.cwd() + "/x/.." }).get("a")];`,
      MAC,
    );
    expect(said).toEqual([1, 1]);
  });

  test("names and options are checked as everywhere", () => {
    const { said } = on(
      `return [told(() => open("")), told(() => open("x".repeat(240))), told(() => open("\\ud800")),
         told(() => destroy("\\ud800")),
         told(() => open("app", { size: "1kb" })), told(() => open("app", { maxAge: 5 })), await warned()];`,
      MAC,
    );
    expect(said.map((each: { name: string }) => each.name)).toEqual([
      "RangeError",
      "RangeError",
      "RangeError",
      "RangeError",
      "RangeError",
      "TypeError",
      undefined,
    ]);
    expect(said.at(-1)).toEqual([]);
  });

  test("threads that cannot share a memory either get the error of createCache", () => {
    const { said, stderr } = on(`return told(() => open());`, {
      ...MAC,
      before: `${MAC.before} delete globalThis.SharedArrayBuffer;`,
    });
    expect(said).toMatchObject({ code: "ERR_UNSUPPORTED", message: expect.stringContaining("SharedArrayBuffer") });
    expect(printed(stderr)).toBe(0);
  });
});

describe("how long it lives", () => {
  test("it outlives close, refuses another size, and ends with destroyCache, for all threads", () => {
    const { said } = on(
      `const first = open(); first.set("a", 1); first.close();
       const again = open("app", { size: undefined });
       const sizes = [told(() => open("app", { size: "2mb" })).code,
         told(() => open("app", { size: (1 << 20) - 5 }).get("a"))];
       const inside = await inThread(
         "const cache = open(); cache.set('b', 2); return [cache.get('a'), destroy(), destroy()]");
       const fresh = open("app", { size: "2mb" });
       return { sizes, inside, old: again.get("b"), fresh: fresh.get("a") ?? null,
         thread: await inThread("return open('app', { size: '2mb' }).get('c') ?? null"),
         later: fresh.set("c", 3) && await inThread("return open('app', { size: undefined }).get('c')"),
         ends: [destroy(), destroy()] };`,
      MAC,
    );
    expect(said).toEqual({
      sizes: ["ERR_SIZE_MISMATCH", { returned: 1 }],
      inside: [1, true, false],
      // Who has it open goes on with it.
      old: 2,
      fresh: null,
      thread: null,
      later: 3,
      ends: [true, false],
    });
  });

  test("destroyCache returns true where the file way is an error, and removes no file that is there", () => {
    const { said } = on(`open("app"); return [destroy(), told(() => destroy())];`, {
      ...MAC,
      place: path.join(root, "package.json"),
    });
    expect(said).toEqual([true, expect.objectContaining({ code: "ERR_UNSUPPORTED" })]);
  });

  test("a handle joins it as that of any cache of threads", () => {
    const { said } = on(
      `const cache = open(); cache.set("a", 1);
       return inThread(
         "const cache = machine.attachCache(workerData.handle); return [cache.get('a'), cache.reach]",
         { workerData: { handle: cache.handle } },
       );`,
      MAC,
    );
    expect(said).toEqual([1, "threads"]);
  });

  test("a process leaves nothing behind, and another process has a cache of its own", () => {
    on(`open().set("a", 1); return true;`, MAC);
    expect(fs.readdirSync(directory)).toEqual([]);
    expect(on(`return open().get("a") ?? null;`, MAC).said).toBeNull();
  });
});

describe("who finds it", () => {
  test("workers with an environment of their own, a shared one, or other options of Node.js", () => {
    const { said, stderr } = on(
      `open().set("a", 1);
       const code = "return [open().get('a'), open().reach, process.platform]";
       const ways = [{ env: {} }, { env: SHARE_ENV }, { execArgv: [] }, { resourceLimits: { maxOldGenerationSizeMb: 32 } },
         { trackUnmanagedFds: false }];
       return Promise.all(ways.map((options) => inThread(code, options)));`,
      MAC,
    );
    // Without the options of its process, the third worker is on Linux. It has what its process has, not a file.
    expect(said).toEqual(["darwin", "darwin", "linux", "darwin", "darwin"].map((name) => [1, "threads", name]));
    expect(fs.readdirSync(directory)).toEqual([]);
    expect(printed(stderr)).toBe(1);
  });

  test("a worker that was started before gets a cache of its own, and a warning that says so", () => {
    const { said, stderr } = on(
      `const code = "parentPort.postMessage('runs'); await once(parentPort, 'message'); const cache = open();" +
         "cache.set('mine', 1); open('other'); return [cache.get('a') ?? null, await warned()]";
       const worker = started(code);
       await once(worker, "message");
       const cache = open(); cache.set("a", 1);
       worker.postMessage("go");
       const [early] = await once(worker, "message");
       return { early, late: await inThread("return open().get('a')"),
         mine: cache.get("mine") ?? null, warnings: (await warned()).length };`,
      MAC,
    );
    const warning = {
      code: CODE,
      message: expect.stringContaining("before the workers start"),
      detail: expect.any(String),
    };
    expect(said).toEqual({ early: [null, [warning]], late: 1, mine: null, warnings: 1 });
    // Of the main thread and of that worker.
    expect(printed(stderr)).toBe(2);
  });

  test("a name that only a worker opens is its own cache, and it warns once, although its process was warned", () => {
    const { said, stderr } = on(
      `open("one");
       const code = "open('one'); const silent = (await warned()).length; open('two').set('a', 1); open('three');" +
         "return [silent, (await warned()).map(({ message }) => message)]";
       return [await inThread(code), open("two").get("a") ?? null];`,
      MAC,
    );
    expect(said).toEqual([
      [0, [expect.stringMatching(/"two".* of this worker alone.* before the workers start/)]],
      null,
    ]);
    expect(printed(stderr)).toBe(2);
  });

  test("two versions of the package in a thread have two caches", () => {
    const other = path.join(bare(), "index.js");
    const text = fs.readFileSync(other, "utf8");
    const [build] = /(?<=BUILD = ")[0-9a-f]{64}/.exec(text) as RegExpExecArray;
    fs.writeFileSync(other, text.replace(build, build.replace(/./g, "0")));
    const { said } = on(
      `open().set("a", 1);
       const { openCache, destroyCache } = await import(${JSON.stringify(pathToFileURL(other).href)});
       const cache = openCache("app", THREADS);
       return [cache.reach, cache.get("a") ?? null, destroyCache("app", THREADS.path && { path: THREADS.path }), open().get("a")];`,
      MAC,
    );
    expect(said).toEqual(["threads", null, true, 1]);
  });

  test("the threads that such a worker starts share its cache without a warning", () => {
    const { said, stderr } = on(
      `const inner = "return [open().get('a'), (await warned()).length]";
       const outer = "open().set('a', 1); return [await inThread(workerData.inner), (await warned()).length]";
       return inThread(outer, { workerData: { inner } });`,
      MAC,
    );
    expect(said).toEqual([[1, 0], 1]);
    expect(printed(stderr)).toBe(1);
  });

  test("all copies of the package in a thread, and all realms, with one seat", () => {
    const { said, stderr } = on(
      `open().set("a", 1);
       const commonjs = require(${JSON.stringify(path.join(root, "dist/index.cjs"))});
       const copy = await import(${JSON.stringify(`${pathToFileURL(path.join(root, "dist/index.js")).href}?copy`)});
       const [vm, { dirname }, { createRequire }, { readFileSync }] =
         ["vm", "path", "module", "fs"].map((name) => require("node:" + name));
       const module = { exports: {} };
       const file = ${JSON.stringify(path.join(root, "dist/index.cjs"))};
       const realm = vm.createContext({ process, module, require: createRequire(file), __filename: file,
         __dirname: dirname(file), TextEncoder, TextDecoder, URL, URLSearchParams, Buffer, crypto, performance, setTimeout,
         clearTimeout, queueMicrotask });
       vm.runInContext(readFileSync(file, "utf8"), realm, { filename: file });
       return [commonjs, copy, module.exports].map(({ openCache }) => {
         const cache = openCache("app", THREADS);
         return [cache.get("a"), cache.reach, cache.stats().participants];
       }).concat([(await warned()).length]);`,
      MAC,
    );
    expect(said).toEqual([[1, "threads", 1], [1, "threads", 1], [1, "threads", 1], 1]);
    expect(printed(stderr)).toBe(1);
  });

  test("the workers of a piscina pool", () => {
    const { said } = on(
      `const cache = open();
       const filename = require("node:path").join(require("node:path").dirname(process.argv[1]), "task.cjs");
       require("node:fs").writeFileSync(filename,
         "module.exports = ({ options, dist }) => require(dist).openCache('app', options).increment('count')");
       const { Piscina } = require(${JSON.stringify(path.join(root, "node_modules/piscina"))});
       const pool = new Piscina({ filename, minThreads: 3, maxThreads: 3 });
       const task = { options: THREADS, dist: ${JSON.stringify(path.join(root, "dist/index.cjs"))} };
       const answers = await Promise.all(Array.from({ length: 30 }, () => pool.run(task)));
       await pool.destroy();
       return [answers.sort((a, b) => a - b), cache.get("count")];`,
      MAC,
    );
    expect(said).toEqual([Array.from({ length: 30 }, (_, i) => i + 1), 30]);
  });
});

describe("threads that are killed", () => {
  // With procfs the kernel is asked which threads live, without it Node.js reports their ends.
  const noProcfs = `const fs = require("node:fs"); const { readlinkSync } = fs;
    fs.readlinkSync = (file, ...rest) => readlinkSync(String(file).startsWith("/proc/") ? "/nowhere" : file, ...rest);`;
  test.each([
    ["with procfs", MAC],
    ["without procfs", { before: MAC.before + noProcfs }],
  ])("in the middle of their work, %s: the others go on, and their seats are free again", (_, host) => {
    const { said } = on(
      `const cache = open();
       const code = "const cache = open(); parentPort.postMessage('runs'); for (;;) cache.increment('count');";
       const participants = [];
       for (let i = 0; i < 10; i++) {
         const workers = [started(code), started(code)];
         await Promise.all(workers.map((worker) => once(worker, "message")));
         const before = cache.get("count") ?? 0;
         while ((cache.get("count") ?? 0) === before) await new Promise((resolve) => setImmediate(resolve));
         await Promise.all(workers.map((worker) => worker.terminate()));
         participants.push(await alone(cache));
       }
       const count = cache.get("count");
       return { participants, goesOn: cache.increment("count") === count + 1, valid: cache.validate(),
         thread: await inThread("return open().get('count') > 0") };`,
      host,
    );
    expect(said).toEqual({ participants: Array(10).fill(1), goesOn: true, valid: 0, thread: true });
  });
});

describe("errors that are no reason to fall back", () => {
  const refused = (host: Host, options = "{}"): { name: string; code?: string } => {
    const { said, stderr } = on(`return told(() => open("app", ${options}));`, host);
    expect(printed(stderr)).toBe(0);
    return said;
  };

  test("no file descriptor to load the native part", () => {
    expect(refused({ before: dlopen("Too many open files") }).code).toBe("ERR_NO_SPACE");
  });

  test("a directory in which others can replace the file, and a cache of another size", () => {
    fs.chmodSync(directory, 0o777);
    expect(refused({}).code).toBe("ERR_NOT_OWNER");
    fs.chmodSync(directory, 0o700);
    openCache("app", { path: directory, size: "2mb" }).close();
    expect(refused({}).code).toBe("ERR_SIZE_MISMATCH");
    destroyCache("app", { path: directory });
  });

  test("a file that is no cache", () => {
    const cache = openCache("app", { path: directory, size: "1mb" });
    const { path: file } = cache.handle as unknown as { path: string };
    cache.close();
    fs.writeFileSync(file, Buffer.alloc(1 << 20));
    expect(refused({}).code).toBe("ERR_LAYOUT");
  });

  test.each([null, true, "processes", "thread", 1, {}])("a wrong value of the option: %j", (fallback) => {
    const wrong = { path: directory, size: "1mb", fallback } as never;
    expect(() => openCache("app", wrong)).toThrow(TypeError);
    expect(() => openCache("app", wrong)).toThrow(/^fallback: must be "threads"/);
    expect(fs.readdirSync(directory)).toEqual([]);
  });
});

test("where processes can share, the option changes nothing", () => {
  const cache = openCache("app", { path: directory, size: "1mb" });
  cache.set("a", 1);
  const { said, stderr } = on(
    `const cache = open(); cache.set("b", 2);
     return [cache.reach, cache.get("a"), await inThread("return open().get('b')"), await warned()];`,
    {},
  );
  expect(said).toEqual(["processes", 1, 2, []]);
  expect(stderr).toBe("");
  expect(cache.get("b")).toBe(2);
  cache.close();
  expect(destroyCache("app", { path: directory })).toBe(true);
});
