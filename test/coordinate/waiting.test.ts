/**
 * Tests of `waitFor` and `watch` between processes and threads: no wake-up is lost, whoever dies. What one participant can see is
 * in the conformance suite (src/testing/coordination-checks.ts).
 */

import { type Cache, createCache, destroyCache, openCache } from "cache-machine";
import { afterEach, describe, expect, test } from "vitest";
import { endOthers, inTime, type Other, startProcess, startThread, until } from "./others.ts";

const NAME = `t-${process.pid}-waiting`;
const opened = new Set<Cache>();

afterEach(async () => {
  await endOthers();
  for (const cache of opened) cache.close();
  opened.clear();
  destroyCache(NAME);
});

function open(): Cache {
  const cache = openCache(NAME, { size: "4mb" });
  opened.add(cache);
  return cache;
}

/** How often the slow look, once a second, has found what no ring had told. */
const helped = (cache: Cache): number => (cache as unknown as { helped: number }).helped;

describe.each(["processes", "threads"])("participants in reach %s", (reach) => {
  const start = (cache: Cache): Other => (reach === "threads" ? startThread(cache.handle) : startProcess(NAME));
  const make = (): Cache => {
    if (reach === "processes") return open();
    const cache = createCache({ size: "4mb" });
    opened.add(cache);
    return cache;
  };

  test("a value that goes from hand to hand 500 times is never missed, and no wake-up is lost", async () => {
    const cache = make();
    const others = [start(cache), start(cache), start(cache)];
    await Promise.all(others.map((other) => other.run(() => {})));
    const pass = async (cache: Cache, me: number, count: number): Promise<number> => {
      for (let round = 0; round < 500; round++) {
        const n = round * count + me;
        if (n > 0) await cache.waitFor(`ball ${n - 1}`);
        cache.set(`ball ${n}`, n);
      }
      return (cache as unknown as { helped: number }).helped;
    };
    const all = [...others.map((other, i) => other.run(pass, i, 4)), pass(cache, 3, 4)];
    expect(await inTime(Promise.all(all), "the ball")).toEqual([0, 0, 0, 0]);
  });

  test("one value wakes all who wait for it in all participants", async () => {
    const cache = make();
    const others = [start(cache), start(cache), start(cache)];
    const waits = others.map((other) =>
      other.run(async (cache) => {
        const waits = Array.from({ length: 50 }, () => cache.waitFor("a"));
        cache.increment("waiting");
        return (await Promise.all(waits)).every((value) => value === "here");
      }),
    );
    await until(() => cache.get("waiting") === 3, "all wait");
    cache.set("a", "here");
    expect(await inTime(Promise.all(waits), "all waits")).toEqual([true, true, true]);
  });

  test("the last of many quick changes is what each watcher reads last", async () => {
    const cache = make();
    const others = [start(cache), start(cache)];
    for (const other of others) {
      await other.run((cache) => {
        const state = globalThis as { last?: unknown };
        cache.watch(["a", "b"], () => {
          state.last = [cache.get("a"), cache.get("b")];
        });
      });
    }
    for (let round = 1; round <= 200; round++) {
      cache.set("a", round);
      cache.set("b", -round);
      if (round % 50 !== 0) continue;
      for (const other of others) {
        let last: unknown;
        await inTime(
          (async () => {
            do last = await other.run(() => (globalThis as { last?: unknown }).last);
            while (JSON.stringify(last) !== JSON.stringify([round, -round]));
          })(),
          `the last value of round ${round}`,
        );
      }
    }
    expect(helped(cache)).toBe(0);
  });
});

describe("processes that die or freeze", () => {
  test("a wait is not disturbed by others who wait for the same key and are killed, frozen or terminated", async () => {
    const cache = open();
    const [killed, frozen, thread] = [startProcess(NAME), startProcess(NAME), startThread(cache.handle)];
    const all = [killed, frozen, thread];
    for (const other of all) await other.run((cache) => void cache.waitFor("a").catch(() => {}));
    const here = cache.waitFor("a");
    await killed.kill();
    await thread.kill();
    await frozen.freeze();
    cache.set("a", 1);
    expect(await inTime(here, "the wait here")).toBe(1);
    frozen.thaw();
    expect(
      await inTime(
        frozen.run((cache) => cache.waitFor("a")),
        "the wait of the frozen",
      ),
    ).toBe(1);
  });

  test("a process that is killed at a random moment after it has stored a value: who waits gets it", async () => {
    const cache = open();
    for (let round = 0; round < 10; round++) {
      const writer = startProcess(NAME);
      await writer.run(() => {});
      const wait = cache.waitFor(`value ${round}`);
      void writer.run((cache, key) => {
        cache.set(key, "stored");
        process.kill(process.pid, "SIGKILL");
      }, `value ${round}`);
      expect(await inTime(wait, "the value")).toBe("stored");
      await writer.ended;
    }
  });
});

test("an error of a listener is reported as uncaught, and its other keys and other listeners are still called", async () => {
  const cache = open();
  const child = startProcess(NAME);
  const calls = await inTime(
    child.run(async (cache) => {
      const calls: string[] = [];
      process.on("uncaughtException", (error) => calls.push(error.message));
      cache.watch(["a", "b"], (key) => {
        throw new Error(`listener of ${key}`);
      });
      cache.watch(["a", "b"], (key) => calls.push(`other listener of ${key}`));
      cache.set("a", 1).set("b", 1);
      while (calls.length < 4) await new Promise(setImmediate);
      return calls.sort();
    }),
    "the listeners",
  );
  expect(calls).toEqual(["listener of a", "listener of b", "other listener of a", "other listener of b"]);
  expect(cache.get("b")).toBe(1);
});
