/**
 * The temporary files of a run: one folder in /dev/shm, and caches whose names begin with `bench-<pid>`. All of them are
 * removed when the run ends, also after an error.
 */

import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { zipfianOrder } from "./random.mjs";
import { DATA } from "./workloads.mjs";

/** Number of requests drawn in advance; a power of two, so that a loop wraps around with a mask. */
const REQUESTS = 1 << 20;

export function createWorkspace() {
  const base = existsSync("/dev/shm") ? "/dev/shm" : os.tmpdir();
  const folder = mkdtempSync(path.join(base, `bench-${process.pid}-`));
  const orders = new Map();
  const names = new Set();
  let sockets = {};
  return {
    folder,
    /** The context that an adapter is opened with: a unique name, a folder, and the size of the cache. */
    context(name, size) {
      const own = `bench-${process.pid}-${name}`;
      names.add(own);
      return { name: own, folder, size, sockets };
    },
    /** Creates a folder within this one; its path. */
    subfolder(name) {
      const subfolder = path.join(folder, name);
      mkdirSync(subfolder, { recursive: true });
      return subfolder;
    },
    /** Sets the sockets of the servers for the contexts that follow. */
    useSockets(paths) {
      sockets = paths;
    },
    /** The path of a file with zipfian key numbers for this set of data. */
    orderFile(dataName) {
      return this.orderOf(DATA[dataName].keys);
    },
    /** The path of a file with zipfian key numbers below `count`. */
    orderOf(count) {
      if (!orders.has(count)) {
        const file = path.join(folder, `order-${count}`);
        writeFileSync(file, zipfianOrder(count, REQUESTS, 42));
        orders.set(count, file);
      }
      return orders.get(count);
    },
    /** Removes the caches and databases; nobody may have them open. */
    async sweep() {
      const { destroyCache } = await import("../dist/index.js");
      for (const name of names) {
        try {
          destroyCache(name);
        } catch {}
      }
      names.clear();
      for (const file of readdirSync(folder)) {
        if (!file.startsWith("order-") && file !== "servers")
          rmSync(path.join(folder, file), { recursive: true, force: true });
      }
    },
    async remove() {
      await this.sweep();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
