/** Checks the events of loads: `tracingChannel("cache-machine:load")`, as a tool that traces a program would use it. */

import { AsyncLocalStorage } from "node:async_hooks";
import { execFileSync } from "node:child_process";
import { type TracingChannelSubscribers, tracingChannel } from "node:diagnostics_channel";
import { createRequire } from "node:module";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Cache, createCache, type LoadTrace } from "../../dist/index.js";

const channel = tracingChannel<string, LoadTrace>("cache-machine:load");
const EVENTS = ["start", "end", "asyncStart", "asyncEnd", "error"] as const;
const root = new URL("../..", import.meta.url);

let cache: Cache;
/** The names of the events and the message of each. */
let seen: [(typeof EVENTS)[number], LoadTrace][];
let subscribers: TracingChannelSubscribers<LoadTrace>;

beforeEach(() => {
  cache = createCache({ size: "1mb" });
  seen = [];
  const note = (event: (typeof EVENTS)[number]) => (message: unknown) => void seen.push([event, message as LoadTrace]);
  subscribers = Object.fromEntries(EVENTS.map((event) => [event, note(event)])) as never;
  channel.subscribe(subscribers);
});

afterEach(() => {
  channel.unsubscribe(subscribers);
  cache.close();
});

const events = () => seen.map(([event]) => event);
const soon = () => new Promise<void>((resolve) => setImmediate(resolve));

describe("the events of one load", () => {
  test("of a promise: start, end, asyncStart, asyncEnd, all with one object", async () => {
    const value = { a: 1 };
    const result = await cache
      .namespace("users")
      .namespace("x")
      .getOrSet("k", async () => value);
    expect(events()).toEqual(["start", "end", "asyncStart", "asyncEnd"]);
    expect(new Set(seen.map(([, message]) => message)).size).toBe(1);
    expect(seen[0]?.[1]).toEqual({
      cache: undefined,
      namespace: ["users", "x"],
      key: "k",
      reason: "miss",
      result: value,
    });
    expect(seen[0]?.[1].result).toBe(result);
  });

  test("of a value that is there at once: start and end", async () => {
    await cache.getOrSet("k", () => 5);
    expect(events()).toEqual(["start", "end"]);
    expect(seen[0]?.[1].result).toBe(5);
  });

  test("of a loader that fails: error before the end, and the caller gets the error", async () => {
    const error = new Error("no");
    const rejecting = cache.getOrSet("k", () => Promise.reject(error));
    await expect(rejecting).rejects.toBe(error);
    expect(events()).toEqual(["start", "end", "error", "asyncStart", "asyncEnd"]);
    expect(seen[0]?.[1].error).toBe(error);
    seen = [];
    const throwing = cache.getOrSet("k", () => {
      throw error;
    });
    await expect(throwing).rejects.toBe(error);
    expect(events()).toEqual(["start", "error", "end"]);
  });

  test("the stores that are bound to the start hold in the loader, behind an await too", async () => {
    const storage = new AsyncLocalStorage<string>();
    channel.start.bindStore(storage, ((message: LoadTrace) => `span of ${String(message.key)}`) as never);
    try {
      const load = async () => {
        await soon();
        return storage.getStore();
      };
      expect(await cache.getOrSet("k", load)).toBe("span of k");
    } finally {
      channel.start.unbindStore(storage);
    }
  });

  test("a thenable is called once", async () => {
    const then = vi.fn((resolve: (value: number) => void) => resolve(7));
    expect(await cache.getOrSet("k", () => ({ then }) as unknown as Promise<number>)).toBe(7);
    expect(then).toHaveBeenCalledTimes(1);
    // biome-ignore lint/suspicious/noThenProperty: as above
    const many = { then: vi.fn((resolve: (value: number[]) => void) => resolve([1, 2])) };
    expect(await cache.getOrSetMany(["a", "b"], () => many as unknown as Promise<number[]>)).toEqual([1, 2]);
    expect(many.then).toHaveBeenCalledTimes(1);
  });
});

describe("which loads have events", () => {
  test("none for a value that is there, one for all calls that share a load", async () => {
    await Promise.all(Array.from({ length: 5 }, () => cache.getOrSet("k", async () => 1)));
    expect(events()).toEqual(["start", "end", "asyncStart", "asyncEnd"]);
    await cache.getOrSet("k", () => 2);
    expect(seen).toHaveLength(4);
  });

  test("one for all keys that getOrSetMany has to load", async () => {
    cache.set("b", 2);
    expect(await cache.getOrSetMany(["a", "b", "c"], async () => [1, 3])).toEqual([1, 2, 3]);
    expect(events()).toEqual(["start", "end", "asyncStart", "asyncEnd"]);
    expect(seen[0]?.[1]).toMatchObject({ keys: ["a", "c"], reason: "miss", result: [1, 3] });
    expect(seen[0]?.[1]).not.toHaveProperty("key");
  });

  test("the reason tells a refresh in the background and a load that must be fresh from a miss", async () => {
    let now = 1000;
    const clocked = createCache({ size: "1mb", now: () => now });
    const options = { ttl: 10, grace: 1000 };
    await clocked.getOrSet("k", () => 1, options);
    now += 20;
    expect(await clocked.getOrSet("k", async () => 2, options)).toBe(1);
    await vi.waitFor(() => expect(clocked.get("k")).toBe(2));
    await clocked.getOrSet("k", () => 3, { fresh: true });
    expect(seen.filter(([event]) => event === "start").map(([, { reason }]) => reason)).toEqual([
      "miss",
      "refresh",
      "fresh",
    ]);
    clocked.close();
  });

  test("a load whose cache is closed meanwhile ends when its loader ends", async () => {
    let finish: (value: number) => void = () => {};
    const loading = cache.getOrSet("k", () => new Promise<number>((resolve) => (finish = resolve)));
    cache.close();
    await expect(loading).rejects.toMatchObject({ code: "ERR_CLOSED" });
    expect(events()).toEqual(["start", "end"]);
    finish(1);
    await soon();
    expect(events()).toEqual(["start", "end", "asyncStart", "asyncEnd"]);
  });

  test("the CommonJS build publishes to the same channel", async () => {
    const commonJs = createRequire(import.meta.url)("../../dist/index.cjs") as typeof import("../../dist/index.js");
    const other = commonJs.createCache({ size: "1mb" });
    await other.getOrSet("k", () => 1);
    expect(events()).toEqual(["start", "end"]);
    other.close();
  });
});

test("an error of a subscriber breaks no load: it is uncaught in the next tick", () => {
  const code = `
    import { tracingChannel } from "node:diagnostics_channel";
    import { createCache } from "./dist/index.js";
    const errors = [];
    process.on("uncaughtException", (error) => errors.push(error.message));
    const fail = (event) => () => { throw new Error(event); };
    const channel = tracingChannel("cache-machine:load");
    channel.subscribe(Object.fromEntries(${JSON.stringify(EVENTS)}.map((event) => [event, fail(event)])));
    const cache = createCache({ size: "1mb" });
    const values = [await cache.getOrSet("a", async () => 1), await cache.getOrSet("b", () => 2),
      ...await cache.getOrSetMany(["c"], async () => [3])];
    const failed = await cache.getOrSet("d", async () => { throw new Error("of the loader"); }).catch((error) => error.message);
    setImmediate(() => console.log(JSON.stringify([values, failed, cache.get("b"), errors.sort()])));
  `;
  const said = execFileSync(process.execPath, ["--input-type=module", "-e", code], { cwd: root, encoding: "utf8" });
  const [values, failed, stored, errors] = JSON.parse(said);
  expect([values, failed, stored]).toEqual([[1, 2, 3], "of the loader", 2]);
  const one = ["start", "end", "asyncStart", "asyncEnd"];
  expect(errors).toEqual([...one, "start", "end", ...one, ...one, "error"].sort());
});
