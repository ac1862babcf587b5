/**
 * An adapter of your own, and the kit that checks it: in this process, and in four processes that share it. The adapter gives a cache the
 * interface of the stores that some library wants, here with promises and a time to live in seconds.
 *
 *     node examples/16-own-adapter.mjs
 */

import { createHash } from "node:crypto";
import { destroyCache, openCache } from "cache-machine";
import { acrossProcesses, storeChecks } from "cache-machine/testing";

/** The adapter. */
class LibraryStore {
  #cache;

  constructor(cache) {
    this.#cache = cache;
  }
  async get(key) {
    return this.#cache.get(short(key)) ?? null;
  }
  async set(key, value, seconds) {
    // What is too large is not cached, which is no error, and the old value does not stay in its place.
    this.#cache.trySet(short(key), value, seconds === undefined ? {} : { ttl: seconds * 1000 });
  }
  async del(key) {
    this.#cache.delete(short(key));
  }
}

/** A key of a cache has at most 4,096 bytes. */
function short(key) {
  return key.length > 1000 ? `sha256:${createHash("sha256").update(key, "utf16le").digest("hex")}` : key;
}

/** How the kit asks the adapter. Each process of the second list imports this file and calls this function. */
export default function open() {
  const cache = openCache("example-own-adapter", { size: "4mb" });
  const store = new LibraryStore(cache);
  return {
    get: (key) => store.get(key),
    set: (key, value, { ttl } = {}) => store.set(key, value, ttl === undefined ? undefined : ttl / 1000),
    delete: (key) => store.del(key),
    close: () => cache.close(),
  };
}

if (process.argv[1] === import.meta.filename) {
  const members = ["delete", "close"];
  const lists = {
    "in this process": storeChecks({ open, values: "structured", members, tooLarge: 1_000_000 }),
    "in four processes": acrossProcesses(import.meta.filename, { members }),
  };
  for (const [where, checks] of Object.entries(lists)) {
    for (const { run } of checks) await run();
    console.log(`${checks.length} checks passed ${where}`);
  }
  destroyCache("example-own-adapter");
}
