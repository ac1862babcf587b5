/**
 * Where a run keeps its files: one folder in /dev/shm and caches whose names begin with `bench-<pid>`; all of it is gone
 * when the run ends, whatever happened.
 */

import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { zipfianOrder } from "./keys.mjs";
import { DATA } from "./workloads.mjs";

/** Questions drawn beforehand; a power of two, so that a loop wraps around by a mask. */
const QUESTIONS = 1 << 20;

export function makeRoom() {
  const base = existsSync("/dev/shm") ? "/dev/shm" : os.tmpdir();
  const folder = mkdtempSync(path.join(base, `bench-${process.pid}-`));
  const orders = new Map();
  const names = new Set();
  let sockets = {};
  return {
    folder,
    /** What an adapter is told: a name that nobody else has, a folder, and how large it should be. */
    context(name, size) {
      const own = `bench-${process.pid}-${name}`;
      names.add(own);
      return { name: own, folder, size, sockets };
    },
    /** A folder within this one. */
    place(name) {
      const place = path.join(folder, name);
      mkdirSync(place, { recursive: true });
      return place;
    },
    /** Where servers listen, from now on. */
    tellSockets(paths) {
      sockets = paths;
    },
    /** A file with zipfian key numbers for so many keys. */
    orderFile(dataName) {
      const count = DATA[dataName].keys;
      if (!orders.has(count)) {
        const file = path.join(folder, `order-${count}`);
        writeFileSync(file, zipfianOrder(count, QUESTIONS, 42));
        orders.set(count, file);
      }
      return orders.get(count);
    },
    /** Removes the caches and data bases, once nobody has them open. */
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
