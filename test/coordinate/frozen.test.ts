/**
 * Tests of waits, watches and locks while a participant is frozen in the middle of a change, with the lock of a bucket: what needs
 * that bucket is tried again until the participant goes on, and is no error.
 */

import { type Cache, createCache } from "cache-machine";
import { afterEach, beforeEach, expect, test } from "vitest";
import { endOthers, inTime, type Other, sleep, startThread, until } from "./others.ts";

/** More calls of the clock than a change has. */
const MOMENTS = 20;
const hour = { ttl: 3_600_000 };

let cache: Cache;

beforeEach(() => {
  cache = createCache({ size: "1mb" });
  cache.set("k", 0, hour);
});
afterEach(async () => {
  await endOthers();
  cache.close();
});

/** Freezes a thread that holds the lock of the bucket of "k". */
async function freeze(): Promise<{ other: Other; thaw(): Promise<unknown> }> {
  const [CALLS, STOPPED, OPEN] = [0, 1, 2];
  const gate = new Int32Array(new SharedArrayBuffer(12)).fill(-1, 0, 1);
  const other = startThread(cache.handle, gate);
  await other.run(() => {});
  for (let nth = 0; nth < MOMENTS; nth++) {
    for (const [at, value] of [
      [STOPPED, 0],
      [OPEN, 0],
      [CALLS, nth],
    ] as const)
      Atomics.store(gate, at, value);
    let over = false;
    const touched = other
      .run((cache) => cache.touch("k", 3_600_000))
      .then((touched) => {
        over = true;
        return touched;
      });
    await until(() => over || Atomics.load(gate, STOPPED) === 1, "it stops or is done");
    const thaw = (): Promise<unknown> => {
      Atomics.store(gate, OPEN, 1);
      Atomics.notify(gate, OPEN);
      return inTime(touched, "it goes on");
    };
    if (!over && isBusy(() => cache.set("k", 0, hour))) return { other, thaw };
    await thaw();
  }
  throw new Error("it was never stopped with the lock");
}

function isBusy(change: () => unknown): boolean {
  try {
    change();
    return false;
  } catch (error) {
    if ((error as { code?: string }).code !== "ERR_BUSY") throw error;
    return true;
  }
}

test("waitFor of a key whose bucket is held by a frozen thread waits, until its timeout, and gets a later value", async () => {
  const { thaw } = await freeze();
  const { version } = cache.getEntry("k") as { version: number };
  const later = cache.waitFor("k", { version });
  expect(await cache.waitFor("k")).toBe(0);
  await expect(cache.waitFor("k", { version, timeout: 50 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
  await thaw();
  cache.set("k", 1);
  expect(await inTime(later, "the later value")).toBe(1);
});

test("a watch of a key whose bucket is held by a frozen thread hears of later changes", async () => {
  const { thaw } = await freeze();
  const read: unknown[] = [];
  const watch = cache.watch("k", () => read.push(cache.get("k")));
  await thaw();
  // The registration is tried again after at most 200 ms; the change comes before it or after it.
  for (const n of [1, 2]) {
    cache.set("k", n);
    await until(() => read.at(-1) === n, `the listener after change ${n}`);
    await sleep(300);
  }
  // It was rung, and has not only looked by itself once a second.
  expect((cache as unknown as { helped: number }).helped).toBe(0);
  watch[Symbol.dispose]();
});

/** The name of a lock in the bucket that a frozen thread holds. */
async function busyName(): Promise<string> {
  for (let i = 0; i < 100_000; i++) {
    const code = await cache.locks.request(`lock ${i}`, { ifAvailable: true }, () => "").catch((error) => error.code);
    if (code === "") continue;
    expect(code).toBe("ERR_BUSY");
    return `lock ${i}`;
  }
  throw new Error("no lock is in that bucket");
}

test("a lock whose bucket is held by a frozen thread: ifAvailable is ERR_BUSY, a request waits, and gets it later", async () => {
  const { thaw } = await freeze();
  const name = await busyName();
  await expect(cache.locks.request(name, { timeout: 100 }, () => {})).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
  const granted = cache.locks.request(name, () => "granted");
  await sleep(50);
  await thaw();
  expect(await inTime(granted, "the lock")).toBe("granted");
  expect(cache.locks.query()).toEqual({ held: [], pending: [] });
});

test("a lock that is released while a frozen thread holds its bucket is free when that thread goes on", async () => {
  const first = await freeze();
  const name = await busyName();
  await first.thaw();
  const waiting = startThread(cache.handle);
  await waiting.run(() => {});
  let granted: Promise<string> | undefined;
  let thaw = first.thaw;
  await cache.locks.request(name, async () => {
    granted = waiting.run((cache, name) => cache.locks.request(name, () => "granted"), name);
    await until(() => cache.locks.query().pending.length === 1, "it waits");
    ({ thaw } = await freeze());
  });
  expect(cache.locks.query().held).toEqual([]);
  await thaw();
  expect(await inTime(granted as Promise<string>, "the lock")).toBe("granted");
});
