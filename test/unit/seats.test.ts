/**
 * Each thread has one seat in a cache, however often and in whichever realm that thread opens it. What belongs to each
 * `Cache` object nevertheless, and handles that come from another realm.
 */

import { execFile } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { inspect, promisify } from "node:util";
import { attachCache, type Cache, type CacheHandle, createCache, destroyCache, openCache } from "cache-machine";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { execute, Projects } from "../package/projects.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const MODULE = pathToFileURL(path.join(root, "dist/index.js")).href;
const WATCHDOG_MS = 60_000;
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "cache-machine-seats-"));
const names: string[] = [];
const opened: Cache[] = [];

function keep(cache: Cache): Cache {
  opened.push(cache);
  return cache;
}

function newName(): string {
  names.push(`t-${process.pid}-seats-${names.length}`);
  return names.at(-1) as string;
}

const projects = new Projects("seats");

afterEach(() => {
  for (const cache of opened.splice(0)) cache.close();
});

afterAll(() => {
  projects.remove();
  for (const name of names) destroyCache(name);
  fs.rmSync(scratch, { recursive: true, force: true });
});

/** Runs a script; answers what it prints. Errors and warnings are failures. */
async function run(body: string, ...flags: string[]): Promise<string> {
  const file = path.join(scratch, `script-${Math.random()}.mjs`);
  fs.writeFileSync(file, body);
  const args = ["--no-warnings", "--expose-gc", ...flags, file];
  const { stdout, stderr } = await promisify(execFile)(process.execPath, args, { timeout: WATCHDOG_MS });
  expect(stderr).toBe("");
  return stdout.trim();
}

/** How one thread opens one cache again and again, for each reach. */
const REACHES: [string, () => { first: Cache; again: (options?: object) => Cache }][] = [
  [
    "threads",
    () => {
      const first = keep(createCache({ size: "1mb" }));
      let times = 0;
      // Each second time a handle as it comes from another thread: structured clone makes a new object of it.
      const handle = (): CacheHandle => (++times % 2 ? first.handle : structuredClone(first.handle));
      return { first, again: (options) => keep(attachCache(handle(), options)) };
    },
  ],
  [
    "processes",
    () => {
      const name = newName();
      const first = keep(openCache(name, { size: "1mb" }));
      let times = 0;
      return {
        first,
        again: (options) => keep(++times % 2 ? openCache(name, options) : attachCache(first.handle, options)),
      };
    },
  ],
];

describe.each(REACHES)("one thread that opens a cache often, reach %s", (_, make) => {
  test("has one seat, which its last Cache object gives back", () => {
    const { first, again } = make();
    const many = Array.from({ length: 300 }, () => again());
    first.set("a", { b: [1] });
    expect(many.every((cache, i) => cache.set(`k${i}`, i).get(`k${i}`) === i)).toBe(true);
    expect([many[299]?.get("a"), many[7]?.stats().participants]).toEqual([{ b: [1] }, 1]);
    first.close();
    for (const cache of many.slice(1)) cache.close();
    expect([many[0]?.get("a"), many[0]?.stats().participants]).toEqual([{ b: [1] }, 1]);
    expect(() => first.get("a")).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    // Closing twice is like closing once.
    first.close();
    expect(many[0]?.get("a")).toEqual({ b: [1] });
  });

  test("has options of its own for each Cache object", () => {
    const { first, again } = make();
    const time = { slow: 1_000, fast: 5_000 };
    const slow = again({ now: () => time.slow, ttl: 2_000, nearCache: 0 });
    const fast = again({ now: () => time.fast, frozenObjects: true, maxEntrySize: 100 });
    slow.set("a", { b: 1 });
    const reads: [string, (cache: Cache) => unknown, unknown, unknown][] = [
      ["get", (cache) => cache.get("a"), { b: 1 }, undefined],
      [
        "get, so often that it is near",
        (cache) => Array.from({ length: 9 }, () => cache.get("a")).at(-1),
        { b: 1 },
        undefined,
      ],
      ["has", (cache) => cache.has("a"), true, false],
      ["ttl", (cache) => cache.ttl("a"), 2_000, undefined],
      ["getEntry", (cache) => cache.getEntry("a")?.expiresAt, 3_000, undefined],
      ["size", (cache) => cache.size, 1, 0],
      ["census", (cache) => cache.census().entries, 1, 0],
      ["keys", (cache) => [...cache.keys()], ["a"], []],
      ["add", (cache) => cache.add("a", 1), false, true],
    ];
    for (const [what, read, atFirst, later] of reads) {
      slow.set("a", { b: 1 });
      // In turns, so that each call comes after a call of the other Cache object.
      expect([read(slow), read(fast), read(slow)], what).toEqual([atFirst, later, what === "add" ? false : atFirst]);
      if (what === "add") expect(fast.delete("a")).toBe(true);
    }
    slow.set("n", 1);
    expect([fast.increment("n"), slow.increment("n")]).toEqual([1, 2]);
    slow.set("t", 1);
    expect([fast.touch("t", 10), slow.touch("t", 10), slow.ttl("t")]).toEqual([false, true, 10]);
    slow.set("d", 1);
    expect([fast.delete("d"), slow.set("d", 2).delete("d")]).toEqual([false, true]);
    fast.set("f", { c: [] });
    expect([Object.isFrozen(fast.get("f")), Object.isFrozen(first.get("f"))]).toEqual([true, false]);
    expect(() => fast.set("g", "x".repeat(200))).toThrow(expect.objectContaining({ code: "ERR_TOO_LARGE" }));
    expect(first.set("g", "x".repeat(200)).get("g")).toHaveLength(200);
    expect(first.validate()).toBe(0);
  });

  test("may use and close its other Cache objects while a value is encoded", () => {
    const { first, again } = make();
    const closing = again();
    const other = again();
    const value = {
      get a() {
        other.set("other", "x".repeat(1_000)).set("key of the other", { long: "y".repeat(500) });
        closing.close();
        first.close();
        expect(other.get("other")).toHaveLength(1_000);
        other.close();
        return "of the value";
      },
    };
    expect(() => closing.set("closed", value)).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    // All Cache objects are closed now, and a new one works.
    const { first: last } = make();
    expect([last.set("a", 1).stats().participants, last.census().entries]).toEqual([1, 1]);
  });

  test("stores the value it was given, also when its other Cache objects store while that is encoded", () => {
    const { first, again } = make();
    const other = again();
    const value = {
      toJSON() {
        other.set("b", { inner: "b".repeat(300) }, { tags: ["t"], ttl: 1e6 });
        other.get("b");
        return { outer: "a" };
      },
    };
    first.set("a", value, { tags: ["u"] });
    expect([other.get("a"), first.get("b")]).toEqual([{ outer: "a" }, { inner: "b".repeat(300) }]);
    expect(first.getEntry("a")).toMatchObject({ tags: ["u"], expiresAt: Infinity });
  });
});

test("a cache that was destroyed and created again is another cache, with another seat", () => {
  const name = newName();
  const before = keep(openCache(name, { size: "1mb" })).set("a", "old");
  destroyCache(name);
  const after = keep(openCache(name, { size: "1mb" }));
  const alsoAfter = keep(openCache(name));
  expect([before.get("a"), after.get("a"), alsoAfter.set("a", "new").get("a"), before.get("a")]).toEqual([
    "old",
    undefined,
    "new",
    "old",
  ]);
  expect([before.stats().participants, after.stats().participants]).toEqual([1, 1]);
  expect(() => openCache(name, { size: "2mb" })).toThrow(expect.objectContaining({ code: "ERR_SIZE_MISMATCH" }));
  expect(after.get("a")).toBe("new");
});

test("Cache objects that are forgotten without close() give back their near cache, and the last one its seat", async () => {
  const name = newName();
  const body = `
    import { createCache, attachCache, openCache } from ${JSON.stringify(MODULE)};
    import { readdirSync, readlinkSync } from "node:fs";
    const target = (fd) => { try { return readlinkSync("/proc/self/fd/" + fd); } catch { return ""; } };
    const files = () => readdirSync("/proc/self/fd").filter((fd) => target(fd).includes("${name}")).length;
    const settle = async () => { for (let i = 0; i < 5; i++) { gc(); await new Promise((resolve) => setTimeout(resolve, 5)); } };
    const forget = (times) => { for (let i = 0; i < times; i++) openCache("${name}", { size: "1mb", nearCache: 16 }).set("a", i); };
    forget(1);
    await settle();
    const before = files();
    const kept = (() => openCache("${name}"))();
    forget(100);
    await settle();
    const during = files() - before;
    console.log(kept.get("a"), kept.stats().participants, during);
    const threads = createCache({ size: "1mb" });
    (() => { for (let i = 0; i < 100; i++) attachCache(threads.handle).set("a", i); })();
    await settle();
    console.log(threads.get("a"), threads.stats().participants);
    kept.close();
    for (let i = 0; i < 100 && files() > before; i++) await settle();
    console.log(files() - before);`;
  expect(await run(body)).toBe("99 1 1\n99 1\n0");
});

describe("a cache that is shown (console.log, JSON)", () => {
  test("says what it is, wherever it is shown, open or closed, and in a namespace", () => {
    const name = newName();
    const cache = keep(openCache(name, { size: "1mb" })).set("secret", "value");
    const threads = keep(createCache({ size: "1mb" }));
    const size = 1 << 20;
    const shown: [Cache, object][] = [
      [cache, { reach: "processes", name, size, participants: 1 }],
      [cache.namespace("de").namespace("x"), { reach: "processes", name, size, namespace: "de/x", participants: 1 }],
      [threads, { reach: "threads", size, participants: 1 }],
      [threads.namespace("日本"), { reach: "threads", size, namespace: "日本", participants: 1 }],
    ];
    for (const isOpen of [true, false]) {
      for (const [view, expected] of shown) {
        const { participants, ...rest } = expected as { participants: number };
        const summary = isOpen ? { ...rest, participants } : { ...rest, closed: true };
        expect(JSON.parse(JSON.stringify({ view }))).toEqual({ view: summary });
        expect(inspect(view)).toBe(`Cache ${inspect(summary)}`);
        expect(inspect(view, { compact: false, colors: true })).toBe(
          `Cache ${inspect(summary, { compact: false, colors: true })}`,
        );
        expect(inspect([[[view]]])).toBe("[ [ [ [Cache] ] ] ]");
        expect(inspect({ a: { b: { view } } }, { depth: 2 })).toContain("[Cache]");
        // Objects that are no cache, but are made of one.
        expect(inspect(Object.create(view))).toBe("[Cache]");
        expect(inspect(new Proxy(view, {}))).toContain("Cache");
      }
      cache.close();
      threads.close();
    }
    expect(() => inspect(Object.getPrototypeOf(cache))).not.toThrow();
  });

  test("says what it is within its own clock too", () => {
    const shown: string[] = [];
    const cache: Cache = keep(
      createCache({
        size: "1mb",
        now: () => {
          shown.push(inspect(cache), JSON.stringify(cache));
          return 5;
        },
      }),
    );
    cache.set("a", 1, { ttl: 10 });
    expect([cache.get("a"), cache.size, cache.validate()]).toEqual([1, 1, 0]);
    expect(shown.length).toBeGreaterThan(3);
    for (const text of shown) expect(text).toMatch(/threads/);
  });

  test("cannot be cloned, or its clone is empty and is refused as a handle", () => {
    const cache = keep(createCache({ size: "1mb" }));
    let copy: any;
    try {
      copy = structuredClone({ cache }).cache;
    } catch (error) {
      expect((error as Error).name).toBe("DataCloneError");
      copy = {};
    }
    expect(() => attachCache(copy)).toThrow(/^handle: is an empty object.*posted itself.*`cache\.handle`/);
    expect(() => attachCache(cache as never)).toThrow(/^handle: is a Cache: use its `handle`/);
    expect(() => attachCache(cache.namespace("n") as never)).toThrow(/^handle: is a Cache: use its `handle`/);
  });
});

/** For scripts: loads the package again, each time into a realm of its own, as test runners do. */
const REALMS = `
  import fs from "node:fs";
  import { createRequire } from "node:module";
  import { fileURLToPath } from "node:url";
  import vm from "node:vm";
  import { MessageChannel, receiveMessageOnPort } from "node:worker_threads";
  const url = ${JSON.stringify(MODULE)};
  const require = createRequire(url);
  const source = fs.readFileSync(fileURLToPath(url), "utf8");
  /** With a copy of \`process\`, as in jest. */
  async function realm() {
    const copy = Object.create(process, Object.getOwnPropertyDescriptors(process));
    const globals = { process: copy, Buffer, crypto, TextEncoder, TextDecoder, performance, URL, URLSearchParams };
    const context = vm.createContext(globals);
    const module = new vm.SourceTextModule(source, { context, identifier: url, initializeImportMeta: (meta) => { meta.url = url; } });
    await module.link(async (specifier) => {
      const from = specifier.startsWith("node:") ? specifier : require.resolve(specifier);
      const exports = await import(from);
      return new vm.SyntheticModule(Object.keys(exports), function () {
        for (const name of Object.keys(exports)) this.setExport(name, exports[name]);
      }, { context });
    });
    await module.evaluate();
    return module.namespace;
  }
  const posted = (value) => {
    const { port1, port2 } = new MessageChannel();
    port1.postMessage(value);
    const { message } = receiveMessageOnPort(port2);
    port1.close();
    return message;
  };`;

test("copies of the package in one thread share its seats: imported with a query, and in realms of their own", async () => {
  const name = newName();
  const body = `${REALMS}
    const caches = [];
    for (let i = 0; i < 97; i++) {
      const { openCache } = await import(url + "?reload=" + i);
      caches.push(openCache("${name}", { size: "1mb" }));
    }
    for (let i = 0; i < 65; i++) {
      const { openCache, attachCache } = await realm();
      caches.push(i % 2 ? openCache("${name}") : attachCache(posted(caches[0].handle)));
    }
    caches[0].set("a", { b: 1 });
    for (const [i, cache] of caches.entries()) {
      if (cache.get("a").b !== 1 || cache.set("k", i).get("k") !== i || caches[0].get("k") !== i) throw new Error("lost " + i);
    }
    console.log(caches.at(-1).stats().participants);
    // When the copy that made the seat leaves, the other copies go on.
    for (const cache of caches.splice(0, 160)) cache.close();
    console.log(caches[1].set("z", 5).get("z"), caches[0].get("z"), caches[0].stats().participants);
    for (const cache of caches) cache.close();
    const names = Object.getOwnPropertyNames(process.getBuiltinModule("node:worker_threads"));
    console.log(names.filter((name) => name.includes("cache-machine")).length);`;
  expect(await run(body, "--experimental-vm-modules")).toBe("1\n5 5 1\n0");
});

test("a handle of another realm is accepted, and an object that only resembles a handle is not", async () => {
  const body = `${REALMS}
    const first = await realm();
    const second = await realm();
    const main = await import(url);
    const cache = main.createCache({ size: "1mb" });
    cache.set("a", { b: [new Date(5)] });
    for (const { attachCache, createCache } of [first, second]) {
      for (const handle of [cache.handle, posted(cache.handle), { ...cache.handle }]) {
        const joined = attachCache(handle);
        console.log(joined.get("a").b[0].getTime(), joined.set("a", { b: [new Date(5)] }).stats().participants);
      }
      const theirs = createCache({ size: "1mb" });
      theirs.set("x", 1);
      console.log(main.attachCache(theirs.handle).get("x"), first.attachCache(posted(theirs.handle)).get("x"));
      const unshared = { ...cache.handle, memory: new WebAssembly.Memory({ initial: 1 }) };
      const faked = { ...cache.handle, memory: { buffer: new SharedArrayBuffer(1 << 20), [Symbol.toStringTag]: "WebAssembly.Memory" } };
      for (const wrong of [unshared, faked, { ...cache.handle, memory: undefined }, { ...cache.handle, reach: "x" }, {}, posted({}), cache, theirs, null, "app"]) {
        try { attachCache(wrong); console.log("accepted"); } catch (error) { console.log(error.message.slice(0, 40)); }
      }
    }`;
  const refusals = [
    ...Array.from({ length: 4 }, () => "handle: must be the `handle` of a cache,"),
    ...Array.from({ length: 2 }, () => "handle: is an empty object, as a Cache b"),
    ...Array.from({ length: 2 }, () => "handle: is a Cache: use its `handle`, as"),
    ...Array.from({ length: 2 }, () => "handle: must be the `handle` of a cache,"),
  ];
  // The copy that created a memory keeps a seat of its own. All other copies of the thread share one.
  const once = ["5 2", "5 2", "5 2", "1 1", ...refusals];
  const lines = (await run(body, "--experimental-vm-modules")).split("\n");
  expect(lines).toEqual([...once, ...once]);
});

describe("files of tests that vitest runs", () => {
  const FILES = 4;

  test.each(["forks", "threads", "vmForks", "vmThreads"])(
    "in the pool %s, test files share a cache by name and by handle with at most one seat each, and have the application's cache",
    {
      timeout: 2 * WATCHDOG_MS,
    },
    async (pool) => {
      const folder = projects.linked(`vitest-${pool}`, { type: "module" });
      const name = `${projects.mark}-${pool}`;
      for (let i = 0; i < FILES; i++) {
        fs.writeFileSync(
          path.join(folder, `${i}.test.ts`),
          `import { MessageChannel, receiveMessageOnPort, Worker } from "node:worker_threads";
         import { attachCache, CacheError, createCache, openCache, get, set } from "cache-machine";
         import { expect, test } from "vitest";
         const cache = createCache({ size: "1mb" });
         const named = openCache("${name}", { size: "1mb" });
         test("joins by a handle that was posted", () => {
           const { port1, port2 } = new MessageChannel();
           port1.postMessage(cache.handle);
           const joined = attachCache(receiveMessageOnPort(port2)!.message);
           joined.set("a", { b: new Map([[1, 2]]) });
           expect(cache.get("a")).toEqual({ b: new Map([[1, 2]]) });
           expect(() => cache.set("c", "x".repeat(1e6))).toThrow(CacheError);
         });
         test("shares it with a worker", async () => {
           const worker = new Worker('import("cache-machine").then(({ attachCache }) => attachCache(require("node:worker_threads").workerData).set("w", 1))', { eval: true, workerData: cache.handle });
           await new Promise((resolve, reject) => worker.once("exit", resolve).once("error", reject));
           expect(cache.get("w")).toBe(1);
         });
         test("has a seat, and the application's cache", () => {
           const many = Array.from({ length: 70 }, () => openCache("${name}"));
           expect(many[69].set("k${i}", ${i}).get("k${i}")).toBe(${i});
           expect(named.stats().participants).toBeLessThanOrEqual(${FILES});
           set("file ${i}", openCache().name);
           expect(get("file ${i}")).toMatch(/^${projects.mark}-vitest-${pool}-/);
         });`,
        );
      }
      const bin = path.join(folder, "node_modules/vitest/vitest.mjs");
      const args = [bin, "run", "--pool", pool, "--maxWorkers", "2", "--root", folder];
      const { status, stdout, stderr } = await execute(process.execPath, args, { cwd: folder, env: { NO_COLOR: "1" } });
      expect(`${stdout}${stderr}`).toContain(`Tests  ${FILES * 3} passed`);
      expect(status).toBe(0);
      const told = await execute(
        process.execPath,
        ["-e", 'console.log(JSON.stringify(require("cache-machine").get()))'],
        { cwd: folder },
      );
      expect(Object.keys(JSON.parse(told.stdout)).sort()).toEqual(Array.from({ length: FILES }, (_, i) => `file ${i}`));
    },
  );
});
