/**
 * What a participant sees when its cache is removed or replaced while it runs: `cache.destroyed`, and everything that goes on in the
 * old memory. Also the files that other layouts of this package leave. The same under pm2 is in living-pm2.test.ts.
 */

import { once } from "node:events";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { attachCache, type Cache, createCache, destroyCache, openCache } from "cache-machine";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

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
