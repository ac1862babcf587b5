/** A program of loop.test.ts: does one thing, and prints when it is done. Nothing else keeps it alive. */
import { writeSync } from "node:fs";
import { openCache } from "cache-machine";

const [name, what] = process.argv.slice(2);
const cache = openCache(name);
const print = (text) => writeSync(1, `${text}\n`);
process.on("exit", () => print("exit"));

const cases = {
  async wait() {
    cache.set("it waits", true);
    print(await cache.waitFor("a"));
  },
  async timeout() {
    print(await cache.waitFor("a", { timeout: 50 }).catch((error) => error.code));
  },
  async abort() {
    const abort = new AbortController();
    setTimeout(() => abort.abort(), 20);
    print(await cache.waitFor("a", { signal: abort.signal }).catch((error) => error.name));
  },
  watch() {
    cache.watch("a", () => print("called"));
    cache.watchTag("t", () => print("called"));
  },
  async "wait, with a watch"() {
    cache.watch("b", () => print("called"));
    cache.set("it waits", true);
    print(await cache.waitFor("a"));
  },
  async close() {
    setTimeout(() => cache.close(), 20);
    print(await cache.waitFor("a").catch((error) => error.code));
  },
  async lock() {
    cache.set("it waits", true);
    print(await cache.locks.request("a", ({ name }) => name));
  },
  hold() {
    void cache.locks.request("a", () => new Promise(() => {}));
  },
};
await cases[what]();
