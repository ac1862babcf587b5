/**
 * Tests of bells under a whole cache: threads of several processes that wake each other, and what the dead leave behind. Bells alone
 * are in test/unit/bells.test.ts. `BELLS_ROUNDS` multiplies the rounds, 1 by default.
 */

import fs from "node:fs";
import { type Cache, createCache, destroyCache, openCache } from "cache-machine";
import { afterEach, describe, expect, test } from "vitest";
import { endOthers, inTime, startProcess, startThread, until } from "./others.ts";

/** Multiplies the work. */
const rounds = Number(process.env.BELLS_ROUNDS ?? 1);
const NAME = `t-${process.pid}-bells`;
const opened = new Set<Cache>();

afterEach(async () => {
  await endOthers();
  for (const cache of opened) cache.close();
  opened.clear();
  destroyCache(NAME);
  expect(files()).toEqual([]);
});

function open(): Cache {
  const cache = openCache(NAME, { size: "4mb" });
  opened.add(cache);
  return cache;
}

/** The files of the cache of this test. */
const files = (): string[] => fs.readdirSync("/dev/shm").filter((file) => file.includes(NAME));
const bells = (): string[] => files().filter((file) => file.includes(".bell."));
const descriptors = (): number => fs.readdirSync("/proc/self/fd").length;

/** For {@link startProcess}: runs a function in the process and in a worker of it, each with its number. */
type Both = [string, number, number];

describe("threads that wait", () => {
  test("in 4 processes with 2 threads each, every change wakes all others, and never by the slow look", async () => {
    const ROUNDS = 300 * rounds;
    /** In turn one of 8 changes a key for which all others wait; each also watches keys that change all the time. */
    const body = `async (cache, me) => {
      // On a busy machine the thread with the bucket's lock may not run for more than 50 milliseconds.
      const set = (key, value) => {
        for (;;) {
          try {
            return cache.set(key, value);
          } catch (error) {
            if (error.code !== "ERR_BUSY") throw error;
          }
        }
      };
      let seen = 0;
      const end = new AbortController();
      const watched = Array.from({ length: 20 }, (_, i) => "noise " + i);
      cache.watch(watched, () => seen++, { signal: end.signal });
      for (let round = 0; round < ${ROUNDS}; round++) {
        set("noise " + (round % 40), me);
        if (round % 8 === me) set("round " + round, round);
        else if ((await cache.waitFor("round " + round)) !== round) throw new Error("another value");
      }
      end.abort();
      return [seen > 0, cache.helped];
    }`;
    open();
    const processes = [0, 1, 2, 3].map(() => startProcess(NAME));
    const results = processes.map((each, i) =>
      each.run(
        async (cache: Cache, ...[body, mine, other]: Both) => {
          const { Worker } = process.getBuiltinModule("node:worker_threads");
          const worker = new Worker(process.argv[1] as string, { workerData: { handle: cache.handle } });
          const ready = new Promise((resolve) => worker.once("message", resolve));
          await ready;
          const answered = new Promise<{ result?: unknown; error?: unknown }>((resolve) =>
            worker.once("message", resolve),
          );
          worker.postMessage({ number: 0, code: body, args: [other] });
          const here = await Function(`return (${body})`)()(cache, mine);
          const { result, error } = await answered;
          await worker.terminate();
          return [here, result ?? error];
        },
        body,
        2 * i,
        2 * i + 1,
      ),
    );
    const all = (await inTime(Promise.all(results), "the rounds")).flat();
    expect(all).toEqual(Array(8).fill([true, 0]));
  });

  test("and are killed or terminated leave no descriptor, and no FIFO once a ring has missed them", async () => {
    const cache = open();
    cache.waitFor("never").catch(() => {});
    const before = descriptors();
    for (let round = 0; round < 3; round++) {
      const others = [0, 1, 2, 3].map((i) => (i === 0 ? startProcess(NAME) : startThread(cache.handle)));
      for (const other of others) await other.run((cache) => void cache.waitFor("a").catch(() => {}));
      expect(bells()).toHaveLength(5);
      await Promise.all(others.map((other) => other.kill()));
      // The names are still there. Nobody has noticed the deaths.
      expect(bells()).toHaveLength(5);
      cache.set("a", round);
      await until(() => bells().length === 1, "the dead are reaped");
      cache.delete("a");
    }
    // Those of this thread for ringing, too, are closed when the bells of the dead are removed.
    await until(() => descriptors() <= before, "their pipes are closed");
    expect(cache.stats().participants).toBe(1);
  });

  test("and are killed leave a FIFO that the next owner of the seat removes, also if it never waits", async () => {
    const other = startProcess(NAME);
    await other.run((cache) => void cache.waitFor("a").catch(() => {}));
    await other.kill();
    expect(bells()).toHaveLength(1);
    // As large as the other one has made it.
    opened.add(openCache(NAME));
    expect(bells()).toEqual([]);
  });

  test("for a cache that is destroyed meanwhile are still woken, and leave nothing", async () => {
    const cache = open();
    const other = startProcess(NAME);
    const value = other.run((cache) => cache.waitFor("a"));
    await until(() => bells().length === 1, "the other waits");
    expect(destroyCache(NAME)).toBe(true);
    cache.set("a", "of the old one");
    expect(await inTime(value, "the value")).toBe("of the old one");
    const next = open();
    expect(next.get("a")).toBe(undefined);
    await other.run((cache) => cache.close());
    expect(bells()).toEqual([]);
  });

  test("in workers that are terminated while others ring them hold up nobody: threads of one process", async () => {
    const cache = createCache({ size: "1mb" });
    opened.add(cache);
    for (let round = 0; round < 20; round++) {
      const [ended, living] = [startThread(cache.handle), startThread(cache.handle)];
      await ended.run((cache) => void cache.waitFor("a").catch(() => {}));
      const value = living.run((cache, round) => cache.waitFor(`b ${round}`), round);
      const killed = ended.kill();
      for (let i = 0; i < 100; i++) cache.set("a", i);
      cache.set(`b ${round}`, round);
      expect(await inTime(value, "the value")).toBe(round);
      await killed;
      cache.delete("a");
      await living.kill();
    }
  });
});
