/**
 * What a participant sees when its cache is removed or replaced while it runs: `cache.destroyed`, and everything that goes on in the
 * old memory. Also the files that other layouts of this package leave. The same under pm2 is in living-pm2.test.ts.
 */

import { spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { attachCache, type Cache, createCache, destroyCache, exportCache, importCache, openCache } from "cache-machine";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const CLI = path.resolve(import.meta.dirname, "../../dist/cli/index.js");
const MODULE = pathToFileURL(path.resolve(import.meta.dirname, "../../dist/index.js")).href;

let directory = "";
const opened: Cache[] = [];

beforeEach(() => {
  directory = fs.mkdtempSync("/dev/shm/cache-machine-living-");
});

afterEach(() => {
  for (const cache of opened.splice(0)) cache.close();
  fs.rmSync(directory, { recursive: true });
});

function open(size: string | undefined = "1mb", name = "app"): Cache {
  const cache = openCache(name, { path: directory, size });
  opened.push(cache);
  return cache;
}

/** The file of the only cache in the directory. */
function file(): string {
  const [name = "", ...others] = fs.readdirSync(directory).filter((entry) => !entry.includes(".bell."));
  expect(others).toEqual([]);
  return path.join(directory, name);
}

const destroy = (): boolean => destroyCache("app", { path: directory });

describe("cache.destroyed", () => {
  test("is false for a cache that is there, and true once it was destroyed, also in namespaces", () => {
    const cache = open();
    const part = cache.namespace("part");
    expect([cache.destroyed, part.destroyed]).toEqual([false, false]);
    destroy();
    expect([cache.destroyed, part.destroyed]).toEqual([true, true]);
  });

  test("tells the old cache from the one that has its name now", () => {
    const old = open();
    destroy();
    const next = open("2mb");
    expect([old.destroyed, next.destroyed]).toEqual([true, false]);
  });

  test("is true when the file was removed, moved away or replaced by hand", () => {
    const removed = open();
    fs.rmSync(file());
    expect(removed.destroyed).toBe(true);

    const moved = open();
    const aside = path.join(directory, "aside");
    fs.renameSync(file(), aside);
    expect(moved.destroyed).toBe(true);

    const replaced = open("2mb", "app");
    fs.renameSync(
      aside,
      fs
        .readdirSync(directory)
        .filter((name) => name !== "aside")
        .map((name) => path.join(directory, name))[0] as string,
    );
    expect(replaced.destroyed).toBe(true);
  });

  test("is true when the whole folder was removed", () => {
    const folder = path.join(directory, "inner");
    fs.mkdirSync(folder, { mode: 0o700 });
    const cache = openCache("app", { path: folder, size: "1mb" });
    opened.push(cache);
    fs.rmSync(folder, { recursive: true });
    expect(cache.destroyed).toBe(true);
  });

  test("answers after close: what became of the file", () => {
    const cache = open();
    cache.close();
    expect(cache.destroyed).toBe(false);
    destroy();
    expect(cache.destroyed).toBe(true);
    open();
    expect(cache.destroyed).toBe(true);
  });

  test("is not true of a cache that another participant has closed, nor of one that this thread opened again", () => {
    const first = open();
    const second = open();
    first.close();
    expect([first.destroyed, second.destroyed]).toEqual([false, false]);
    const again = attachCache(second.handle);
    opened.push(again);
    expect(again.destroyed).toBe(false);
    destroy();
    expect([first.destroyed, second.destroyed, again.destroyed]).toEqual([true, true, true]);
  });

  test("is told by every thread of a process, each of which has a descriptor of its own", async () => {
    const cache = open();
    const worker = new Worker(
      `import(${JSON.stringify(MODULE)}).then(({ attachCache }) => {
        const { parentPort, workerData } = require("node:worker_threads");
        const cache = attachCache(workerData);
        parentPort.on("message", (end) => (end ? (cache.close(), parentPort.close()) : parentPort.postMessage(cache.destroyed)));
        parentPort.postMessage("ready");
      });`,
      { eval: true, workerData: cache.handle },
    );
    const exit = once(worker, "exit");
    await once(worker, "message");
    const ask = async (): Promise<boolean> => {
      worker.postMessage(false);
      return (await once(worker, "message"))[0];
    };
    expect(await ask()).toBe(false);
    cache.close();
    destroy();
    expect(await ask()).toBe(true);
    worker.postMessage(true);
    await exit;
  });

  test("is false for ever where there is no file", () => {
    const cache = createCache({ size: "1mb" });
    expect(cache.destroyed).toBe(false);
    cache.close();
    expect(cache.destroyed).toBe(false);
  });

  test.skipIf(process.getuid?.() === 0)("never throws when the folder cannot be looked at any more", () => {
    const cache = open();
    fs.chmodSync(directory, 0);
    try {
      expect(cache.destroyed).toBe(false);
      cache.close();
      expect(cache.destroyed).toBe(false);
    } finally {
      fs.chmodSync(directory, 0o700);
    }
  });

  test("never throws when looking fails, and then asks the descriptor", () => {
    const cache = open();
    const lstatSync = fs.lstatSync;
    const closedDoor = (): never => {
      throw Object.assign(new Error("EACCES"), { code: "EACCES" });
    };
    const withClosedDoor = (look: () => void): void => {
      (fs as { lstatSync: unknown }).lstatSync = closedDoor;
      syncBuiltinESMExports();
      try {
        look();
      } finally {
        (fs as { lstatSync: unknown }).lstatSync = lstatSync;
        syncBuiltinESMExports();
      }
    };
    withClosedDoor(() => expect(cache.destroyed).toBe(false));
    fs.rmSync(file());
    withClosedDoor(() => expect(cache.destroyed).toBe(true));
    const next = open();
    next.close();
    withClosedDoor(() => expect(next.destroyed).toBe(false));
  });

  test("is read-only and is no part of what a cache prints", () => {
    const cache = open();
    expect(() => Object.assign(cache, { destroyed: true })).toThrow(TypeError);
    expect(cache.destroyed).toBe(false);
    expect(JSON.parse(JSON.stringify(cache))).not.toHaveProperty("destroyed");
  });
});

/** What the other participant, a worker, is told to do. */
type Order = "set" | "lock" | "release" | "load" | "end";

/** A worker that has the cache open too. Each order is answered. */
class Other {
  readonly #worker: Worker;
  readonly #exit: Promise<unknown>;

  constructor(cache: Cache) {
    this.#worker = new Worker(
      `import(${JSON.stringify(MODULE)}).then(({ attachCache }) => {
        const { parentPort, workerData } = require("node:worker_threads");
        const cache = attachCache(workerData);
        let release;
        const orders = {
          set: () => void cache.set("awaited", "came"),
          lock: () => new Promise((held) => {
            cache.locks.request("lock", () => (held(), new Promise((resolve) => (release = resolve))));
          }),
          release: () => release(),
          load: () => cache.getOrSet("page", () => "loaded by the worker"),
          end: () => (cache.close(), parentPort.close()),
        };
        parentPort.on("message", async (order) => parentPort.postMessage(await orders[order]()));
      });`,
      { eval: true, workerData: cache.handle },
    );
    this.#exit = once(this.#worker, "exit");
  }

  async order(order: Order): Promise<unknown> {
    const answer = once(this.#worker, "message");
    this.#worker.postMessage(order);
    return (await answer)[0];
  }

  async end(): Promise<void> {
    this.#worker.postMessage("end");
    await this.#exit;
  }
}

describe("participants of a cache that was destroyed", () => {
  let cache: Cache;
  let other: Other;

  beforeEach(async () => {
    cache = open();
    other = new Other(cache);
    // The worker has the cache open before it is destroyed.
    await other.order("load");
    cache.delete("page");
  });

  afterEach(() => other.end());

  test("go on sharing entries, also with a new cache of that name beside them", async () => {
    destroy();
    const next = open("2mb");
    next.set("awaited", "not for the old ones");
    await other.order("set");
    expect([cache.get("awaited"), next.get("awaited")]).toEqual(["came", "not for the old ones"]);
    expect([cache.stats().participants, next.stats().participants]).toEqual([2, 1]);
  });

  test("are woken from waits and watches that began before and after", async () => {
    const seen: unknown[] = [];
    const before = cache.waitFor("awaited");
    const watched = new Promise<void>((resolve) => {
      cache.watch("awaited", () => {
        seen.push(cache.get("awaited"));
        resolve();
      });
    });
    destroy();
    const after = cache.waitFor("awaited");
    await other.order("set");
    expect(await Promise.all([before, after])).toEqual(["came", "came"]);
    await watched;
    expect(seen).toEqual(["came"]);
  });

  test("keep their locks apart from those of the new cache", async () => {
    await other.order("lock");
    destroy();
    const order: string[] = [];
    const waiting = cache.locks.request("lock", () => void order.push("the old cache"));
    const next = open("2mb");
    await next.locks.request("lock", () => void order.push("the new cache"));
    await other.order("release");
    await waiting;
    expect(order).toEqual(["the new cache", "the old cache"]);
  });

  test("load once for all of them", async () => {
    let finish = (_page: string): void => {};
    const loading = cache.getOrSet("page", () => new Promise<string>((resolve) => (finish = resolve)));
    destroy();
    const joined = other.order("load");
    // The new cache knows nothing of that load.
    expect(await open("2mb").getOrSet("page", () => "loaded for the new cache")).toBe("loaded for the new cache");
    finish("loaded once");
    expect(await loading).toBe("loaded once");
    expect(await joined).toBe("loaded once");
  });

  test("cannot be joined any more by its handle", () => {
    destroy();
    expect(() => attachCache(cache.handle)).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
  });

  test("can export their entries, and the new cache, which begins empty and has another size, can import them", async () => {
    cache.set("a", 1, { ttl: 60_000 });
    destroy();
    const next = open("2mb");
    expect(next.size).toBe(0);
    const snapshot = path.join(directory, "snapshot");
    await exportCache(cache, snapshot);
    await importCache(next, snapshot);
    expect(next.get("a")).toBe(1);
    expect(next.ttl("a")).toBeGreaterThan(50_000);
  });
});

describe("files of other layouts of this package", () => {
  /** Puts a file beside the cache as another layout of this package would have left it. */
  function leaveLayout(version: number): string {
    const name = path.basename(file());
    const other = name.replace(/\.v\d+$/, `.v${version}`);
    expect(other).not.toBe(name);
    // A version before this one has another header. So a file of this layout under that name is what it looks like.
    fs.copyFileSync(path.join(directory, name), path.join(directory, other));
    return path.join(directory, other);
  }

  test("stay when a cache of that name is opened or destroyed, and do not become a part of it", () => {
    const cache = open();
    cache.set("a", 1);
    const old = leaveLayout(1);
    cache.set("a", 2);
    expect(cache.destroyed).toBe(false);
    cache.close();
    expect(open().get("a")).toBe(2);
    expect(destroy()).toBe(true);
    expect(fs.readdirSync(directory)).toEqual([path.basename(old)]);
    expect(destroy()).toBe(false);
    expect(open("2mb").size).toBe(0);
    expect(fs.existsSync(old)).toBe(true);
  });

  test("are removed by the command line, unless somebody has them open, and the cache of this layout stays", () => {
    const cache = open();
    const old = leaveLayout(1);
    const inUse = openCache("used", { path: directory, size: "1mb" });
    opened.push(inUse);
    const [used = ""] = fs.readdirSync(directory).filter((name) => name.includes("-used."));
    const renamed = path.join(directory, used.replace(/\.v\d+$/, ".v1"));
    fs.renameSync(path.join(directory, used), renamed);
    const removeStale = (): string[] => {
      // What is kept is told by the exit code too.
      spawnSync(process.execPath, [CLI, "rm", "--all-stale", "--path", directory], { timeout: 60_000 });
      return fs.readdirSync(directory).sort();
    };
    const current = path.basename(old).replace(/\.v1$/, "");
    expect(removeStale()).toEqual([expect.stringContaining(`${current}.v`), path.basename(renamed)].sort());
    expect(fs.existsSync(old)).toBe(false);
    expect([cache.destroyed, inUse.destroyed]).toEqual([false, true]);
    inUse.close();
    expect(removeStale()).toEqual([expect.stringContaining(`${current}.v`)]);
    expect(cache.destroyed).toBe(false);
  });
});
