/**
 * All that a tier says to the server, against real servers and a cluster: what each operation does, how many commands it takes, which
 * changes the server tells the hosts, and what happens when something else than an entry is there.
 */

import type { CacheError } from "cache-machine";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import type { Client, Reply } from "../../src/tier/clients/client.ts";
import { Gate } from "../../src/tier/gate.ts";
import { Names } from "../../src/tier/names.ts";
import { isInvalidation, Server, type Stored } from "../../src/tier/server.ts";
import { type Backend, codec, Host, type HostOptions, listen, PLACES, start, TIMEOUT } from "./server-hosts.ts";
import { endServers, NO_SERVER } from "./servers.ts";

// What is under test is no subpath of the package. It takes the package from dist/, as it does when it is built.
vi.mock("../../src/index.ts", () => import("cache-machine"));

const FOREVER = { ttl: Infinity, grace: 0, tags: [] };
const MINUTE = { ttl: 60_000, grace: 0, tags: [] };
/** Expired already, and within its grace. */
const STALE = { ttl: -1_000, grace: 60_000, tags: [] };
const COUNT = { initial: 0, min: Number.MIN_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER, ttl: Infinity, tags: [] };
const LOAD = { all: false, lease: 60_000 };
const names = new Names("test:");

const dataError = expect.objectContaining({ name: "CacheError", code: "ERR_DATA" });
const unreachableError = expect.objectContaining({ name: "CacheError", code: "ERR_UNREACHABLE" });

/** What a reader sees: an entry whose tags are all good. */
async function good(host: Host, path: string[], key: string | Uint8Array): Promise<Stored | undefined> {
  const stored = await host.server.read(path, key);
  if (stored === undefined) return undefined;
  const times = await host.server.tagTimes(path, stored.tags);
  return times.every((time) => time !== undefined && time < stored.stamp) ? stored : undefined;
}

async function all<T>(list: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of list) items.push(item);
  return items;
}

async function token(host: Host, key: string, options: object = {}): Promise<{ token: string; since: number }> {
  const begun = await host.server.begin([], key, { ...LOAD, ...options });
  if (!("token" in begun)) throw new Error(`no token: ${JSON.stringify(begun)}`);
  return begun;
}

describe.skipIf(NO_SERVER).each(PLACES)("on $name", (place) => {
  let backend: Backend;
  let hosts: Host[] = [];
  let a: Host;
  let b: Host;
  let s: Server;

  const host = async (options?: HostOptions): Promise<Host> => {
    const made = new Host(await backend.connect(), names, options);
    hosts.push(made);
    return made;
  };

  beforeAll(async () => {
    backend = await start(place);
  });
  beforeEach(async () => {
    await Promise.all(backend.masters.map((master) => master.command("FLUSHALL")));
    [a, b] = await Promise.all([host(), host()]);
    s = a.server;
  });
  afterEach(() => {
    for (const each of hosts) each.close();
    hosts = [];
  });
  afterAll(endServers);

  describe("reading and writing", () => {
    test("another host reads what was written", async () => {
      await s.write([], "k", { a: [1] }, FOREVER);
      expect(await b.server.read([], "k")).toEqual({
        value: { a: [1] },
        ttl: Infinity,
        grace: 0,
        tags: [],
        stamp: expect.any(Number),
      });
      expect(await b.server.read([], "other")).toBe(undefined);
      expect(await b.server.read(["space"], "k")).toBe(undefined);
    });

    test("the expiry is by the server's clock, and the server removes the entry at the end of the grace", async () => {
      await s.write([], "k", 1, { ttl: 60_000, grace: 30_000, tags: [] });
      const { ttl, grace } = (await b.server.read([], "k")) as Stored;
      expect(ttl).toBeGreaterThan(50_000);
      expect(ttl).toBeLessThanOrEqual(60_000);
      expect(grace).toBe(30_000);
      const left = (await a.raw(names.value([], "k"), "PTTL", names.value([], "k"))) as number;
      expect(left).toBeGreaterThan(80_000);
      expect(left).toBeLessThanOrEqual(90_000);
      await s.write([], "k", 1, FOREVER);
      expect(await a.raw(names.value([], "k"), "PTTL", names.value([], "k"))).toBe(-1);
    });

    test("the stamp of an entry without tags is the server's time", async () => {
      await s.write([], "k", 1, FOREVER);
      const { stamp } = (await s.read([], "k")) as Stored;
      const [seconds, micros] = (await a.raw(names.value([], "k"), "TIME")) as Reply[];
      const now = Number(seconds) * 1e6 + Number(micros);
      expect(stamp).toBeLessThanOrEqual(now);
      expect(stamp).toBeGreaterThan(now - 10e6);
    });

    test("an entry within its grace is read with a ttl of 0 or less, afterwards it is absent", async () => {
      await s.write([], "k", "old", STALE);
      const { value, ttl, grace } = (await s.read([], "k")) as Stored;
      expect([value, grace]).toEqual(["old", 60_000]);
      expect(ttl).toBeLessThanOrEqual(-1_000);
      await s.write([], "k", "gone", { ttl: -10, grace: 9, tags: [] });
      expect(await s.read([], "k")).toBe(undefined);
      await s.write([], "k", "gone", { ttl: -Infinity, grace: 0, tags: [] });
      expect(await s.read([], "k")).toBe(undefined);
      await vi.waitFor(async () => expect(await a.raw("test:", "EXISTS", names.value([], "k"))).toBe(0), TIMEOUT);
    });

    test("every ttl and grace that a cache takes", async () => {
      for (const ttl of [0.4, 1e-9, 1e12, 2 ** 60, Number.MAX_VALUE, Infinity]) {
        for (const grace of [0, 0.5, 1e15, Infinity]) {
          await s.write([], "k", 1, { ttl, grace, tags: [] });
          // The shortest may have ended.
          if (ttl + grace > 1e9) expect((await s.read([], "k"))?.grace).toBe(grace);
        }
      }
      for (const ttl of [-Infinity, -Number.MAX_VALUE, -1, 0]) {
        await s.write([], "k", 1, { ttl, grace: Infinity, tags: [] });
        expect((await s.read([], "k"))?.ttl).toBeLessThanOrEqual(0);
      }
      await expect(s.write([], "k", 1, { ...FOREVER, ttl: Number.NaN })).rejects.toThrow(/^ttl: .*NaN/);
      for (const grace of [Number.NaN, -1])
        await expect(s.write([], "k", 1, { ...FOREVER, grace })).rejects.toThrow(/^grace: /);
    });

    test("every key, in every scope", async () => {
      const keys = [
        "",
        "}",
        "{",
        "\0",
        "\uD800",
        "😀",
        "*",
        Buffer.from([0, 255]),
        new Uint8Array(0),
        "x".repeat(4096),
      ];
      const paths = [[], ["}"], ["a", "b"]];
      await Promise.all(paths.flatMap((path) => keys.map((key, i) => s.write(path, key, [path, i], FOREVER))));
      for (const path of paths) {
        expect((await b.server.readMany(path, keys)).map((each) => each?.value)).toEqual(keys.map((_, i) => [path, i]));
        const found = await all(b.server.keys(path));
        const nameOf = (key: string | Uint8Array) => names.value([], key);
        expect(found.map(nameOf).sort()).toEqual(keys.map(nameOf).sort());
      }
    });

    test("a key that is too long is absent, and cannot be stored", async () => {
      const long = "x".repeat(4097);
      const tooLong = expect.objectContaining({ code: "ERR_TOO_LARGE", message: expect.stringMatching(/^key: /) });
      expect(await s.read([], long)).toBe(undefined);
      expect(await s.readMany([], [long])).toEqual([undefined]);
      expect(await s.remove([], long)).toBe(false);
      expect(await s.touch([], long, 1)).toBe(false);
      await expect(s.write([], long, 1, FOREVER)).rejects.toEqual(tooLong);
      await expect(
        s.writeMany(
          [],
          [
            ["k", 1, FOREVER],
            [long, 1, FOREVER],
          ],
        ),
      ).rejects.toEqual(tooLong);
      await expect(s.add([], long, 1, FOREVER)).rejects.toEqual(tooLong);
      await expect(s.increment([], long, 1, COUNT)).rejects.toEqual(tooLong);
      await expect(s.begin([], long, LOAD)).rejects.toEqual(tooLong);
      expect(a.sent).toEqual([]);
    });

    test("what is no key or no value is refused before anything is sent", async () => {
      await expect(s.read([], 1 as never)).rejects.toThrow(TypeError);
      await expect(s.readMany([], [null as never])).rejects.toThrow(TypeError);
      await expect(s.write([], "k", undefined, FOREVER)).rejects.toThrow(TypeError);
      await expect(s.write([], "k", 1, { ...FOREVER, tags: [""] })).rejects.toThrow(RangeError);
      await expect(s.invalidateTags([], ["a", "\uD800"])).rejects.toThrow(RangeError);
      expect(a.sent).toEqual([]);
    });

    test("many are read in their order, absent ones and repeated ones too", async () => {
      const keys = Array.from({ length: 700 }, (_, i) => `key ${i}`);
      await s.writeMany(
        [],
        keys.filter((_, i) => i % 3 > 0).map((key) => [key, key, MINUTE] as const),
      );
      const read = await b.server.readMany([], ["key 1", "x".repeat(5_000), ...keys, "key 1"]);
      expect(read.map((each) => each?.value)).toEqual([
        "key 1",
        undefined,
        ...keys.map((key, i) => (i % 3 > 0 ? key : undefined)),
        "key 1",
      ]);
      expect(await b.server.readMany([], [])).toEqual([]);
    });

    test("a value that is changed after the call is stored as it was", async () => {
      const value = { a: 1 };
      const writing = s.write([], "k", value, { ...FOREVER, tags: ["t"] });
      value.a = 2;
      await writing;
      expect((await s.read([], "k"))?.value).toEqual({ a: 1 });
    });

    test("8 MiB", async () => {
      const value = Buffer.alloc(8 << 20, 7);
      await s.write([], "k", value, { ...MINUTE, tags: ["t"] });
      expect(value.equals((await b.server.read([], "k"))?.value as Buffer)).toBe(true);
      expect(await s.touch([], "k", 1_000)).toBe(true);
      expect(await s.add([], "k", 1, FOREVER)).toBe(false);
    });

    test("an entry whose expiry only the server knows", async () => {
      const name = names.value([], "k");
      await s.write([], "k", "value", { ttl: 60_000, grace: 20_000, tags: [] });
      const nan = Buffer.alloc(8);
      nan.writeDoubleLE(Number.NaN);
      await a.raw(name, "SETRANGE", name, "3", nan);
      const { ttl } = (await s.read([], "k")) as Stored;
      expect(ttl).toBeGreaterThan(50_000);
      expect(ttl).toBeLessThanOrEqual(60_000);
      await a.raw(name, "PERSIST", name);
      expect((await s.read([], "k"))?.ttl).toBe(Infinity);
      expect(await s.add([], "k", 1, FOREVER)).toBe(false);
      expect(await s.begin([], "k", LOAD)).toMatchObject({ found: { value: "value" } });
    });
  });

  describe("commands", () => {
    test("a read is one command while the server's time is known, and two otherwise", async () => {
      const knowing = await host({ now: () => Date.now() });
      const name = names.value([], "k");
      await s.write([], "k", 1, MINUTE);
      await knowing.server.read([], "k");
      expect(knowing.sent).toEqual([`GET ${name}`]);
      expect(knowing.server.commands).toBe(1);
      await b.server.read([], "k");
      expect(b.sent.sort()).toEqual([`GET ${name}`, "TIME"].sort());
    });

    test.skipIf(place.isCluster)("many are read by one MGET", async () => {
      const knowing = await host({ now: () => Date.now() });
      await knowing.server.readMany([], ["a", "b", "c"]);
      expect(knowing.sent).toEqual([`MGET ${["a", "b", "c"].map((key) => names.value([], key)).join(" ")}`]);
      await knowing.server.readMany(
        [],
        Array.from({ length: 1_000 }, (_, i) => `${i}`),
      );
      expect(knowing.server.commands).toBe(1 + 4);
    });

    test.skipIf(!place.isCluster)("many are read by one GET each, side by side", async () => {
      const knowing = await host({ now: () => Date.now() });
      await knowing.server.readMany([], ["a", "b", "c"]);
      expect(knowing.sent).toEqual(["a", "b", "c"].map((key) => `GET ${names.value([], key)}`));
    });

    test("a script goes by its hash, and once as text after the server was started anew", async () => {
      await s.write([], "k", 1, FOREVER);
      a.sent.length = 0;
      await s.write([], "k", 2, FOREVER);
      const keys = `${names.value([], "k")} ${names.loading([], "k")}`;
      expect(a.sent).toEqual([`EVALSHA ${keys}`]);
      await Promise.all(backend.masters.map((master) => master.command("SCRIPT", "FLUSH")));
      a.sent.length = 0;
      const before = s.commands;
      await s.write([], "k", 3, FOREVER);
      expect(a.sent).toEqual([`EVALSHA ${keys}`, `EVAL ${keys}`]);
      expect(s.commands - before).toBe(2);
      expect((await s.read([], "k"))?.value).toBe(3);
    });

    test("entries with tags that are written together ask once for their tags", async () => {
      const entries = Array.from(
        { length: 20 },
        (_, i) => [`${i}`, i, { ...MINUTE, tags: [`t${i % 5}`, "all"] }] as const,
      );
      await s.writeMany([], entries);
      a.sent.length = 0;
      await s.writeMany([], [...entries, ["plain", 1, MINUTE]]);
      expect(a.sent.filter((each) => each.includes(names.clock))).toHaveLength(1);
      expect(a.sent).toHaveLength(22);
      expect((await good(b, [], "7"))?.tags).toEqual(["t2", "all"]);
      expect((await good(b, [], "plain"))?.tags).toEqual([]);
    });
  });

  describe("add, remove and touch", () => {
    test("add stores only where there is nothing, or what has expired", async () => {
      expect(await s.add([], "k", "first", MINUTE)).toBe(true);
      expect(await b.server.add([], "k", "second", MINUTE)).toBe(false);
      expect((await s.read([], "k"))?.value).toBe("first");
      await s.write([], "k", "old", STALE);
      expect(await s.add([], "k", "third", MINUTE)).toBe(true);
      expect((await s.read([], "k"))?.value).toBe("third");
    });

    test("of many that add at the same time one does", async () => {
      const others = await Promise.all(Array.from({ length: 4 }, () => host()));
      for (let round = 0; round < 20; round++) {
        const added = await Promise.all(
          others.map((each, i) => each.server.add([], `k${round}`, i, { ...MINUTE, tags: ["t"] })),
        );
        expect(added.filter(Boolean)).toHaveLength(1);
        expect((await s.read([], `k${round}`))?.value).toBe(added.indexOf(true));
      }
    });

    test("remove says whether there was something", async () => {
      await s.write([], "k", 1, FOREVER);
      expect(await b.server.remove([], "k")).toBe(true);
      expect(await b.server.remove([], "k")).toBe(false);
      await s.write([], "k", 1, STALE);
      expect(await s.remove([], "k")).toBe(false);
      expect(await s.read([], "k")).toBe(undefined);
    });

    test("many are removed and counted", async () => {
      const keys = Array.from({ length: 600 }, (_, i) => `${i}`);
      const how = [MINUTE, { ...MINUTE, tags: ["good"] }, { ...MINUTE, tags: ["good", "bad"] }, STALE];
      await s.writeMany(
        [],
        keys.slice(0, 400).map((key, i) => [key, i, how[i % 4] as never] as const),
      );
      await s.invalidateTags([], ["bad"]);
      expect(await b.server.removeMany([], [...keys, ...keys, "x".repeat(5_000)])).toBe(200);
      expect(await s.readMany([], keys)).toEqual(keys.map(() => undefined));
      expect(await s.removeMany([], [])).toBe(0);
    });

    test("touch changes the expiry, and keeps value, grace and tags", async () => {
      await s.write([], "k", "value", { ttl: 60_000, grace: 5_000, tags: ["t"] });
      expect(await b.server.touch([], "k", 120_000)).toBe(true);
      const touched = (await good(a, [], "k")) as Stored;
      expect(touched).toMatchObject({ value: "value", grace: 5_000, tags: ["t"] });
      expect(touched.ttl).toBeGreaterThan(110_000);
      const name = names.value([], "k");
      expect(await a.raw(name, "PTTL", name)).toBeGreaterThan(115_000);
      expect(await s.touch([], "k", Infinity)).toBe(true);
      expect((await good(a, [], "k"))?.ttl).toBe(Infinity);
      expect(await a.raw(name, "PTTL", name)).toBe(-1);
      // With 0 it has expired, and is within its grace.
      expect(await s.touch([], "k", 0)).toBe(true);
      expect((await s.read([], "k"))?.ttl).toBeLessThanOrEqual(0);
      expect(await s.touch([], "k", 1_000)).toBe(false);
      await s.write([], "k", "value", MINUTE);
      expect(await s.touch([], "k", -1)).toBe(true);
      expect(await s.read([], "k")).toBe(undefined);
      expect(await s.touch([], "absent", 1_000)).toBe(false);
    });
  });

  describe("increment", () => {
    test("counts from the initial number, and keeps expiry and tags of the first", async () => {
      const how = { ...COUNT, initial: 10, ttl: 60_000, tags: ["t"] };
      const first = await s.increment([], "n", 5, how);
      expect(first.value).toBe(15);
      expect(first.ttl).toBe(60_000);
      const second = await b.server.increment([], "n", -1, { ...COUNT, ttl: 5, tags: ["other"] });
      expect(second.value).toBe(14);
      expect(second.ttl).toBeGreaterThan(50_000);
      const stored = (await good(a, [], "n")) as Stored;
      expect(stored).toMatchObject({ value: 14, tags: ["t"] });
      expect(stored.ttl).toBeGreaterThan(50_000);
      const name = names.value([], "n");
      expect(await a.raw(name, "PTTL", name)).toBeGreaterThan(50_000);
      expect(await s.increment([], "m", 1, COUNT)).toEqual({ value: 1, ttl: Infinity });
      expect(await s.increment([], "m", 1, COUNT)).toEqual({ value: 2, ttl: Infinity });
    });

    test("adds to every number that was stored, exactly as JavaScript does", async () => {
      for (const [number, by] of [
        [0.1, 0.2],
        [1e-7, 3],
        [-0, -0],
        [5e-324, 0],
        [9007199254740990, 1],
        [-9007199254740990, -1],
        [123456789.123, 0.877],
        [1e15, 0.3],
      ] as const) {
        await s.write([], "n", number, FOREVER);
        expect((await s.increment([], "n", by, COUNT)).value).toBe(number + by);
        expect((await s.read([], "n"))?.value).toBe(number + by);
      }
    });

    test("a sum outside of its bounds is a RangeError, and changes nothing", async () => {
      await s.write([], "n", 5, FOREVER);
      await expect(s.increment([], "n", 6, { ...COUNT, max: 10 })).rejects.toThrow(
        new RangeError(`by: the sum would not be from ${Number.MIN_SAFE_INTEGER} to 10. Nothing was changed.`),
      );
      await expect(s.increment([], "n", -6, { ...COUNT, min: 0 })).rejects.toThrow(RangeError);
      await expect(s.increment([], "n", Number.MAX_SAFE_INTEGER, COUNT)).rejects.toThrow(RangeError);
      expect((await s.read([], "n"))?.value).toBe(5);
      await expect(s.increment([], "absent", 1, { ...COUNT, max: 0 })).rejects.toThrow(RangeError);
      expect(await s.read([], "absent")).toBe(undefined);
      for (const number of [Number.NaN, Infinity, -Infinity, 2 ** 60]) {
        await s.write([], "n", number, FOREVER);
        await expect(s.increment([], "n", 1, COUNT)).rejects.toThrow(RangeError);
        expect((await s.read([], "n"))?.value).toBe(number);
      }
    });

    test("what is no number is a TypeError", async () => {
      for (const value of ["1", 1n, true, null, [1]]) {
        await s.write([], "n", value, { ...FOREVER, tags: ["t"] });
        await expect(s.increment([], "n", 1, COUNT)).rejects.toThrow(
          new TypeError("key: its value is not a number. Use another key, or set a number first."),
        );
        expect((await s.read([], "n"))?.value).toEqual(value);
      }
    });

    test("a number that has expired, or whose tag was invalidated, begins anew", async () => {
      await s.write([], "n", 100, STALE);
      expect((await s.increment([], "n", 1, COUNT)).value).toBe(1);
      await s.write([], "n", 100, { ...FOREVER, tags: ["t"] });
      await s.invalidateTags([], ["t"]);
      expect((await b.server.increment([], "n", 1, { ...COUNT, tags: ["t"] })).value).toBe(1);
      expect((await b.server.increment([], "n", 1, { ...COUNT, tags: ["t"] })).value).toBe(2);
      expect((await good(a, [], "n"))?.value).toBe(2);
    });

    test("none is lost when hosts count at the same time", async () => {
      const seed = 20_260_101;
      let state = seed;
      const random = (): number => (state = (state * 1103515245 + 12345) % 2 ** 31) / 2 ** 31;
      const counters = await Promise.all(Array.from({ length: 4 }, () => host()));
      const sums = [0, 0, 0, 0, 0];
      const seen: number[][] = [[], [], [], [], []];
      await Promise.all(
        counters.map(async ({ server }) => {
          for (let i = 0; i < 150; i++) {
            const key = Math.floor(random() * 5);
            const by = Math.floor(random() * 9) + 1;
            sums[key] = (sums[key] as number) + by;
            const { value } = await server.increment([], `n${key}`, by, { ...COUNT, tags: key === 4 ? ["t"] : [] });
            seen[key]?.push(value);
          }
        }),
      );
      const read = await s.readMany([], ["n0", "n1", "n2", "n3", "n4"]);
      expect([seed, read.map((each) => each?.value)]).toEqual([seed, sums]);
      // All increments are positive, so no two have the same sum.
      for (const each of seen) expect(new Set(each).size).toBe(each.length);
    });
  });

  describe("tags", () => {
    const TAGGED = { ...MINUTE, tags: ["t", "u"] };

    test("an invalidation makes what was stored before absent, and not what is stored afterwards", async () => {
      await s.write([], "k", 1, TAGGED);
      expect((await good(b, [], "k"))?.value).toBe(1);
      await b.server.invalidateTags([], ["other", "u"]);
      expect(await good(a, [], "k")).toBe(undefined);
      await s.write([], "k", 2, TAGGED);
      expect((await good(b, [], "k"))?.value).toBe(2);
      await b.server.invalidateTags([], ["t", "t"]);
      await b.server.invalidateTags([], []);
      expect(await good(a, [], "k")).toBe(undefined);
    });

    test("tags of different scopes are different", async () => {
      await Promise.all([s.write([], "k", 1, TAGGED), s.write(["a"], "k", 1, TAGGED)]);
      await s.invalidateTags(["a"], ["t"]);
      expect(await good(b, ["a"], "k")).toBe(undefined);
      expect((await good(b, [], "k"))?.value).toBe(1);
    });

    test("the times tell invalidations from tags that were only made known", async () => {
      await s.write([], "k", 1, TAGGED);
      await s.invalidateTags([], ["u", "v"]);
      const [t, u, v, w] = await b.server.tagTimes([], ["t", "u", "v", "w"]);
      expect([t, u, v].map((time) => isInvalidation(time as number))).toEqual([false, true, true]);
      expect(w).toBe(undefined);
      expect(u).toBe(v);
      expect(u).toBeGreaterThan(t as number);
      expect(await s.tagTimes([], [])).toEqual([]);
      await s.write([], "k", 2, TAGGED);
      // A tag that is known stays as it is.
      expect(await s.tagTimes([], ["t", "u", "v", "w"])).toEqual([t, u, v, w]);
    });

    test("a tag that the server has lost makes its entries absent, also after it is known again", async () => {
      await s.write([], "old", 1, TAGGED);
      await a.raw(names.clock, "DEL", names.tag([], "t"));
      expect(await good(b, [], "old")).toBe(undefined);
      await s.write([], "new", 1, TAGGED);
      expect(await good(b, [], "old")).toBe(undefined);
      expect((await good(b, [], "new"))?.value).toBe(1);
    });

    test("times grow, also when the server's clock is set back", async () => {
      // A clock that was an hour ahead, as another master may have had.
      const ahead = (Date.now() + 3_600_000) * 1_000;
      await a.raw(names.clock, "SET", names.clock, String(ahead));
      await s.write([], "k", 1, TAGGED);
      const { stamp } = (await good(b, [], "k")) as Stored;
      expect(stamp).toBeGreaterThan(ahead);
      await s.invalidateTags([], ["t"]);
      expect(await good(b, [], "k")).toBe(undefined);
      const { since } = await token(a, "l");
      await s.invalidateTags([], ["t"]);
      const [time] = (await s.tagTimes([], ["t"])) as [number];
      expect(time).toBeGreaterThan(since);
      // Without the clock's key a new entry is still later than its tags.
      await a.raw(names.clock, "DEL", names.clock);
      await s.write([], "k", 2, TAGGED);
      expect((await good(b, [], "k"))?.value).toBe(2);
    });

    test("many tags at once", async () => {
      const tags = Array.from({ length: 1_500 }, (_, i) => `tag ${i}`);
      const entries = tags.map(
        (tag, i) => [`${i}`, i, { ...MINUTE, tags: [tag, `tag ${(i + 1) % tags.length}`] }] as const,
      );
      await s.writeMany([], entries);
      for (const i of [0, 255, 256, 511, 512, 1_499]) expect((await good(b, [], `${i}`))?.value).toBe(i);
      await b.server.invalidateTags([], tags);
      const times = await s.tagTimes([], tags);
      expect(times.every((time) => isInvalidation(time as number))).toBe(true);
      const most = Array.from({ length: 128 }, (_, i) => "x".repeat(250) + i);
      await s.write([], "most", 1, { ...MINUTE, tags: most });
      expect((await good(b, [], "most"))?.tags).toEqual(most);
    });

    test("add, touch, remove and increment take an entry whose tag was invalidated for absent", async () => {
      for (const key of ["add", "touch", "remove", "n"]) await s.write([], key, 1, TAGGED);
      expect(await s.add([], "add", 2, TAGGED)).toBe(false);
      expect(await s.touch([], "touch", 50_000)).toBe(true);
      expect((await s.increment([], "n", 1, COUNT)).value).toBe(2);
      await s.invalidateTags([], ["u"]);
      expect(await s.add([], "add", 2, TAGGED)).toBe(true);
      expect(await s.touch([], "touch", 50_000)).toBe(false);
      expect(await s.remove([], "remove")).toBe(false);
      expect((await s.increment([], "n", 1, COUNT)).value).toBe(1);
      expect((await good(b, [], "add"))?.value).toBe(2);
      expect(await s.remove([], "add")).toBe(true);
    });

    test("a tag lives as long as the entries that have it, and a day at least", async () => {
      const DAY = 86_400_000;
      const left = async (): Promise<number> => (await a.raw(names.clock, "PTTL", names.tag([], "t"))) as number;
      const write = (ttl: number, grace = 0) => s.write([], `${ttl}`, 1, { ttl, grace, tags: ["t"] });
      const near = (ms: number) => expect(left()).resolves.toSatisfy((is: number) => is > ms - 60_000 && is <= ms);
      await write(1_000);
      await near(DAY);
      await write(DAY / 2, DAY);
      await near(3 * DAY);
      await write(1_000);
      await near(3 * DAY);
      await s.invalidateTags([], ["t"]);
      await near(3 * DAY);
      // It would not last for as long as the entry, so it is made longer.
      await write(3 * DAY);
      await near(6 * DAY);
      await write(Infinity);
      expect(await left()).toBe(-1);
      await s.invalidateTags([], ["t"]);
      expect(await left()).toBe(-1);
    });

    test("touch makes the tags of its entry live longer", async () => {
      const left = async (): Promise<number> => (await a.raw(names.clock, "PTTL", names.tag([], "t"))) as number;
      await s.write([], "k", 1, TAGGED);
      expect(await s.touch([], "k", 200_000_000)).toBe(true);
      expect(await left()).toBeGreaterThan(390_000_000);
      expect(await s.touch([], "k", Infinity)).toBe(true);
      expect(await left()).toBe(-1);
      expect((await good(b, [], "k"))?.ttl).toBe(Infinity);
    });

    test("the invalidation of a tag that nobody has is forgotten after a day", async () => {
      await s.invalidateTags([], ["unused"]);
      const left = (await a.raw(names.clock, "PTTL", names.tag([], "unused"))) as number;
      expect(left).toBeGreaterThan(86_300_000);
      expect(left).toBeLessThanOrEqual(86_400_000);
    });

    test("a key of another program in place of a tag or the clock", async () => {
      const tag = names.tag([], "t");
      for (const text of ["", "x", "1.5", "-1", "12c3", "99999999999999999", "1".repeat(400)]) {
        await a.raw(tag, "SET", tag, text);
        await expect(s.tagTimes([], ["t"])).rejects.toEqual(dataError);
        await expect(s.write([], "k", 1, TAGGED)).rejects.toEqual(dataError);
        await expect(s.invalidateTags([], ["t"])).rejects.toEqual(dataError);
        expect(String(await a.raw(tag, "GET", tag))).toBe(text);
      }
      await a.raw(tag, "DEL", tag);
      for (const text of ["nonsense", "9".repeat(16), "1e300"]) {
        await a.raw(names.clock, "SET", names.clock, text);
        await s.write([], "k", 1, TAGGED);
        expect((await good(b, [], "k"))?.value).toBe(1);
        expect(Number(await a.raw(names.clock, "GET", names.clock))).toBeLessThan(Date.now() * 1_000 + 60e6);
      }
    });
  });

  describe("loads", () => {
    test("whoever begins gets a token, and its value is stored", async () => {
      const begun = await token(a, "k");
      expect(await s.commit([], "k", begun.token, begun.since, "loaded", MINUTE)).toBe(true);
      expect((await b.server.read([], "k"))?.value).toBe("loaded");
      expect(await b.server.begin([], "k", LOAD)).toMatchObject({ found: { value: "loaded" } });
      expect(await a.raw(names.loading([], "k"), "EXISTS", names.loading([], "k"))).toBe(0);
    });

    test("only one loads at a time with `all`, until it commits or gives up, or its lease ends", async () => {
      const one = { all: true, lease: 5_000 };
      const first = await token(a, "k", one);
      const led = await b.server.begin([], "k", one);
      expect(led).toEqual({ leader: true, left: expect.any(Number) });
      expect((led as { left: number }).left).toBeGreaterThan(1_000);
      await s.abandon([], "k", first.token, true);
      const second = await token(b, "k", { all: true, lease: 1 });
      await vi.waitFor(async () => expect(await b.server.renew([], "k", second.token, 1)).toBe(false), TIMEOUT);
      const third = await token(a, "k", one);
      expect(await b.server.commit([], "k", second.token, second.since, "late", MINUTE)).toBe(false);
      expect(await s.commit([], "k", third.token, third.since, "in time", MINUTE)).toBe(true);
      expect((await b.server.read([], "k"))?.value).toBe("in time");
    });

    test("a lease is renewed, and never made shorter", async () => {
      const { token: mine } = await token(a, "k", { lease: 50_000 });
      const left = async (): Promise<number> =>
        (await a.raw(names.loading([], "k"), "PTTL", names.loading([], "k"))) as number;
      expect(await s.renew([], "k", mine, 1_000)).toBe(true);
      expect(await left()).toBeGreaterThan(40_000);
      expect(await s.renew([], "k", mine, 100_000)).toBe(true);
      expect(await left()).toBeGreaterThan(90_000);
      expect(await b.server.renew([], "k", "another", 200_000)).toBe(false);
      expect(await left()).toBeLessThanOrEqual(100_000);
      await token(b, "k", { lease: Infinity });
      expect(await left()).toBeLessThanOrEqual(86_400_000);
      for (const lease of [0, -1, Number.NaN]) {
        await expect(s.begin([], "k", { all: false, lease })).rejects.toThrow(/^lease: /);
        await expect(s.renew([], "k", mine, lease)).rejects.toThrow(RangeError);
      }
    });

    test("an entry within its grace, or one that the caller does not take, does not count", async () => {
      await s.write([], "k", "old", STALE);
      expect(await s.begin([], "k", LOAD)).toHaveProperty("token");
      await s.write([], "k", "invalid", { ...MINUTE, tags: ["t"] });
      const { stamp } = (await s.read([], "k")) as Stored;
      expect(await s.begin([], "k", LOAD)).toMatchObject({ found: { value: "invalid" } });
      expect(await s.begin([], "k", { ...LOAD, unless: stamp })).toHaveProperty("token");
      expect(await s.begin([], "k", { ...LOAD, unless: stamp - 1 })).toHaveProperty("found");
      expect(await s.begin([], "k", { ...LOAD, unless: true })).toHaveProperty("token");
    });

    test("the commit of a later load overtakes an earlier one, and not the other way round", async () => {
      const [first, second] = [await token(a, "k"), await token(b, "k")];
      expect(await s.commit([], "k", first.token, first.since, 1, MINUTE)).toBe(true);
      expect(await b.server.commit([], "k", second.token, second.since, 2, MINUTE)).toBe(true);
      expect((await s.read([], "k"))?.value).toBe(2);
      const [third, fourth] = [await token(a, "k", { unless: true }), await token(b, "k", { unless: true })];
      expect(await b.server.commit([], "k", fourth.token, fourth.since, 4, MINUTE)).toBe(true);
      expect(await s.commit([], "k", third.token, third.since, 3, MINUTE)).toBe(false);
      expect((await s.read([], "k"))?.value).toBe(4);
    });

    test("a load that gives up leaves the others alone", async () => {
      const [first, second] = [await token(a, "k"), await token(b, "k")];
      await s.abandon([], "k", first.token, false);
      expect(await s.commit([], "k", first.token, first.since, 1, MINUTE)).toBe(false);
      expect(await b.server.commit([], "k", second.token, second.since, 2, MINUTE)).toBe(true);
      await s.abandon([], "k", "nobody's", true);
      expect((await s.read([], "k"))?.value).toBe(2);
    });

    test("no commit without a token", async () => {
      expect(await s.commit([], "k", "made up", 1, "value", MINUTE)).toBe(false);
      expect(await s.read([], "k")).toBe(undefined);
    });

    test("a tag that was invalidated after the load began refuses it, and gives its token back", async () => {
      for (const known of [false, true]) {
        const how = { ...MINUTE, tags: [`t${known}`, "u"] };
        if (known) await s.write([], "other", 1, how);
        const begun = await token(a, `k${known}`);
        await b.server.invalidateTags([], [`t${known}`]);
        expect(await s.commit([], `k${known}`, begun.token, begun.since, "old", how)).toBe(false);
        expect(await s.read([], `k${known}`)).toBe(undefined);
        expect(await s.renew([], `k${known}`, begun.token, 1_000)).toBe(false);
        const again = await token(a, `k${known}`);
        expect(await s.commit([], `k${known}`, again.token, again.since, "new", how)).toBe(true);
        expect((await good(b, [], `k${known}`))?.value).toBe("new");
      }
    });

    test("a tag that others have made known meanwhile refuses nothing", async () => {
      const how = { ...MINUTE, tags: ["new"] };
      const loads = await Promise.all(Array.from({ length: 10 }, (_, i) => token(a, `k${i}`)));
      for (const [i, { token, since }] of loads.entries())
        expect(await s.commit([], `k${i}`, token, since, i, how)).toBe(true);
      for (const i of loads.keys()) expect((await good(b, [], `k${i}`))?.value).toBe(i);
    });
  });

  describe("what hosts are told", () => {
    test("each change of a value and of a tag, and nothing else", async () => {
      const ear = await listen(b.client, names);
      const told = async (act: () => Promise<unknown>): Promise<string[]> => {
        await act();
        return ear.heard();
      };
      const [k, t] = [names.value([], "k"), names.tag([], "t")];
      const tagged = { ...MINUTE, tags: ["t"] };
      expect(await told(() => s.write([], "k", 1, MINUTE))).toEqual([k]);
      expect(await told(() => s.add([], "k", 1, MINUTE))).toEqual([]);
      expect(await told(() => s.read([], "k"))).toEqual([]);
      expect(await told(() => s.touch([], "k", 1_000_000))).toEqual([k]);
      expect(await told(() => s.increment([], "k", 1, COUNT))).toEqual([k]);
      expect(await told(() => s.remove([], "k"))).toEqual([k]);
      expect(await told(() => s.remove([], "k"))).toEqual([]);
      expect(await told(() => s.touch([], "k", 1_000))).toEqual([]);
      expect(await told(() => s.add([], "k", 1, MINUTE))).toEqual([k]);
      expect(await told(() => s.write([], "k", 1, tagged))).toEqual([k, t].sort());
      expect(await told(() => s.write([], "k", 2, tagged))).toEqual([k]);
      expect(await told(() => s.invalidateTags([], ["t"]))).toEqual([t]);
      let begun = { token: "", since: 0 };
      expect(
        await told(async () => {
          begun = await token(a, "k", { unless: true });
          await s.renew([], "k", begun.token, 100_000);
        }),
      ).toEqual([]);
      expect(await told(() => s.commit([], "k", begun.token, begun.since, 3, MINUTE))).toEqual([k]);
      expect(await told(() => s.clear([]))).toEqual([k]);
      await ear.close();
    });

    test("the removal of an absent key whose value is being loaded, so that the loads of other hosts are overtaken", async () => {
      const ear = await listen(b.client, names);
      const begun = await token(a, "k");
      expect(await ear.heard()).toEqual([]);
      expect(await b.server.remove([], "k")).toBe(false);
      expect(await ear.heard()).toEqual([names.value([], "k")]);
      expect(await s.commit([], "k", begun.token, begun.since, "overtaken", MINUTE)).toBe(false);
      // Nobody can read what was there for a moment, and nothing is left of it.
      expect(await s.read([], "k")).toBe(undefined);
      expect(await Promise.all(backend.masters.map((master) => master.command("KEYS", "test:[vl]*")))).toEqual(
        backend.masters.map(() => []),
      );
      await token(a, "k");
      await b.server.clear([]);
      expect(await ear.heard()).toEqual([names.value([], "k")]);
      await ear.close();
    });

    test("that a load was given up for which they wait", async () => {
      const ear = await listen(b.client, names);
      const value = names.value([], "k");
      for (const how of [undefined, STALE, { ...STALE, tags: ["t"] }]) {
        if (how !== undefined) await s.write([], "k", "old", how);
        await ear.heard();
        const begun = await token(a, "k", { all: true });
        const before = await a.raw(value, "DUMP", value);
        await s.abandon([], "k", begun.token, true);
        expect(await ear.heard()).toEqual([value]);
        expect(await a.raw(value, "DUMP", value)).toEqual(before);
        const other = await token(a, "k");
        await s.abandon([], "k", other.token, false);
        expect(await ear.heard()).toEqual([]);
      }
      await ear.close();
    });

    test("a tag seldom, however often entries are stored", async () => {
      const ear = await listen(b.client, names);
      const tag = names.tag([], "t");
      for (let i = 0; i < 100; i++) await s.write([], `k${i % 7}`, i, { ttl: 1_000 * (i + 1), grace: i, tags: ["t"] });
      expect((await ear.heard()).filter((name) => name === tag)).toHaveLength(1);
      for (let i = 0; i < 100; i++) await s.write([], `k${i % 7}`, i, { ttl: 86_400_000 + i, grace: 0, tags: ["t"] });
      expect((await ear.heard()).filter((name) => name === tag)).toHaveLength(1);
      await ear.close();
    });
  });

  describe("scopes", () => {
    test("keys finds those of the scope, each once", async () => {
      const keys = Array.from({ length: 500 }, (_, i) => `k${i}`);
      await s.writeMany(
        ["a"],
        keys.map((key) => [key, 1, MINUTE] as const),
      );
      await Promise.all([
        s.write([], "root", 1, MINUTE),
        s.write(["a", "b"], "deep", 1, MINUTE),
        s.write(["aa"], "x", 1, MINUTE),
      ]);
      await a.raw("test:v:{x}", "SET", "test:v:{x}", "of another program");
      expect((await all(b.server.keys(["a"]))).sort()).toEqual(keys.sort());
      expect(await all(b.server.keys([]))).toEqual(["root"]);
      expect(await all(b.server.keys(["a", "b"]))).toEqual(["deep"]);
      expect(await all(b.server.keys(["none"]))).toEqual([]);
    });

    test("clear removes a scope and those within, overtakes their loads, and leaves the rest", async () => {
      const paths = [["a"], ["a", "b"], [], ["aa"], ["b"], ["*"], ["a", "*"]];
      const loads = new Map<string[], { token: string; since: number }>();
      for (const path of paths) {
        await s.writeMany(
          path,
          Array.from({ length: 100 }, (_, i) => [`${i}`, i, { ...MINUTE, tags: ["t"] }] as const),
        );
        loads.set(path, (await s.begin(path, "load", LOAD)) as never);
      }
      await b.server.clear(["a"]);
      for (const path of paths) {
        const isWithin = path[0] === "a";
        expect(await all(s.keys(path))).toHaveLength(isWithin ? 0 : 100);
        const { token, since } = loads.get(path) as { token: string; since: number };
        expect(await s.commit(path, "load", token, since, 1, MINUTE)).toBe(!isWithin);
      }
      await b.server.clear(["*"]);
      expect(await all(s.keys(["*"]))).toEqual([]);
      expect(await all(s.keys(["b"]))).toHaveLength(101);
      await b.server.clear([]);
      for (const path of paths) expect(await all(s.keys(path))).toEqual([]);
    });
  });

  describe("keys of other programs", () => {
    const name = names.value([], "k");
    const loading = names.loading([], "k");

    test("of another type: nothing reads or changes them, but a plain write", async () => {
      const uses: [string, () => Promise<unknown>][] = [
        ["read", () => s.read([], "k")],
        ["add", () => s.add([], "k", 1, MINUTE)],
        ["remove", () => s.remove([], "k")],
        ["touch", () => s.touch([], "k", 1_000)],
        ["increment", () => s.increment([], "k", 1, COUNT)],
        ["begin", () => s.begin([], "k", LOAD)],
      ];
      await a.raw(name, "RPUSH", name, "a", "b");
      for (const [what, use] of uses) {
        const error = await use().catch((error) => error);
        expect([what, error]).toEqual([what, dataError]);
        expect(error.message).toContain("another `prefix`");
      }
      expect(await a.raw(name, "LLEN", name)).toBe(2);
      // MGET takes what is no string for absent.
      if (place.isCluster) await expect(s.readMany([], ["k"])).rejects.toEqual(dataError);
      else expect(await s.readMany([], ["k"])).toEqual([undefined]);
      await s.write([], "k", 1, MINUTE);
      expect((await s.read([], "k"))?.value).toBe(1);
      await a.raw(loading, "SET", loading, "text");
      await expect(s.begin([], "k", { ...LOAD, unless: true })).rejects.toEqual(dataError);
      expect(a.gate.isOpen).toBe(true);
    });

    test("text and bytes: an ERR_DATA, and a write or a removal makes room", async () => {
      const version2 = Buffer.concat([Buffer.from([0xca, 2]), Buffer.alloc(40)]);
      for (const bytes of [
        "",
        "0",
        "text",
        Buffer.alloc(100),
        Buffer.from([0xca]),
        Buffer.from([0xca, 1, 0]),
        version2,
      ]) {
        await a.raw(name, "SET", name, bytes);
        await expect(s.read([], "k")).rejects.toEqual(dataError);
        await expect(s.readMany([], ["x", "k"])).rejects.toEqual(dataError);
        if (bytes.length > 0) {
          await expect(s.add([], "k", 1, MINUTE)).rejects.toEqual(dataError);
          await expect(s.touch([], "k", 1_000)).rejects.toEqual(dataError);
          await expect(s.increment([], "k", 1, COUNT)).rejects.toEqual(dataError);
          await expect(s.begin([], "k", LOAD)).rejects.toEqual(dataError);
          expect(await a.raw(name, "GET", name)).toEqual(Buffer.from(bytes as never));
        }
        expect(await s.remove([], "k")).toBe(bytes.length > 0);
        expect(await s.read([], "k")).toBe(undefined);
        await a.raw(name, "SET", name, bytes);
        await s.write([], "k", 1, MINUTE);
        expect((await s.read([], "k"))?.value).toBe(1);
      }
    });

    test("damaged entries: every operation ends as it should, whatever the bytes are", async () => {
      const seed = 20_260_202;
      let state = seed;
      const random = (below: number): number => (state = (state * 1103515245 + 12345) % 2 ** 31) % below;
      await s.write([], "number", 1, { ...MINUTE, tags: ["one", "two"] });
      await s.write([], "object", { a: 1 }, MINUTE);
      const valid = await Promise.all(
        ["number", "object"].map((key) => a.raw(names.value([], key), "GET", names.value([], key)) as Promise<Buffer>),
      );
      for (let round = 0; round < 300; round++) {
        const bytes = Buffer.from(valid[round % 2] as Buffer);
        for (let i = 0; i <= random(3); i++) bytes[random(bytes.length)] = random(256);
        await a.raw(name, "SET", name, bytes.subarray(0, random(4) === 0 ? random(bytes.length) : bytes.length));
        const uses = [
          () => s.read([], "k"),
          () => s.begin([], "k", LOAD),
          () => s.touch([], "k", 1_000),
          () => s.increment([], "k", 1, COUNT),
          () => s.add([], "k", 1, MINUTE),
          () => s.remove([], "k"),
        ];
        for (const use of uses) {
          const error = await use().catch((error) => error);
          if (!(error instanceof Error)) continue;
          const isKnown =
            error instanceof TypeError || error instanceof RangeError || (error as CacheError).code === "ERR_DATA";
          expect([seed, round, bytes.toString("hex"), isKnown || error]).toEqual([
            seed,
            round,
            bytes.toString("hex"),
            true,
          ]);
        }
        expect(await s.read([], "k")).toBe(undefined);
      }
    });
  });
});

describe.skipIf(NO_SERVER).each(PLACES.filter(({ isCluster }) => !isCluster))("$name that refuses", (place) => {
  let backend: Backend;
  let a: Host;
  let s: Server;

  beforeEach(async () => {
    backend = await start(place);
    a = new Host(await backend.connect(), names, { timeout: 500, gate: { random: () => 1 } });
    s = a.server;
  });
  afterEach(async () => {
    a.close();
    await endServers();
  });

  test("full: stores are refused with the remedy, removals and reads go on, and loads are overtaken", async () => {
    const [server] = backend.masters as [Backend["masters"][number]];
    await s.write([], "k", 1, MINUTE);
    const begun = await token(a, "absent");
    const ear = await listen(a.client, names);
    await server.command("CONFIG", "SET", "maxmemory", "1");
    const error = await s.write([], "k", 2, MINUTE).catch((error) => error);
    expect(error).toEqual(unreachableError);
    expect(error.message).toContain("maxmemory");
    await expect(s.increment([], "n", 1, COUNT)).rejects.toEqual(unreachableError);
    expect(a.gate.isOpen).toBe(true);
    expect((await s.read([], "k"))?.value).toBe(1);
    expect(await s.remove([], "k")).toBe(true);
    expect(await s.remove([], "absent")).toBe(false);
    expect(await ear.heard()).toEqual([names.value([], "absent"), names.value([], "k")]);
    await server.command("CONFIG", "SET", "maxmemory", "0");
    expect(await s.commit([], "absent", begun.token, begun.since, 1, MINUTE)).toBe(false);
    await ear.close();
  });

  test("a user with the least rights: everything works under the prefix, and nothing else", async () => {
    const [server] = backend.masters as [Backend["masters"][number]];
    // What the error of a missing right recommends.
    const rights = ["+@read", "+@write", "+@scripting", "+@connection", "+time"];
    const account = { username: "tier", password: "secret" };
    await server.command(
      "ACL",
      "SETUSER",
      "tier",
      "reset",
      "on",
      ">secret",
      "~test:*",
      ...rights,
      "+hello",
      "+client",
      "+ping",
    );
    const user = new Host(await backend.connect(account), names);
    try {
      const { server: u } = user;
      const tagged = { ...MINUTE, tags: ["t"] };
      await u.write([], "k", 1, tagged);
      expect(await u.add([], "k", 2, tagged)).toBe(false);
      expect((await u.increment([], "k", 1, COUNT)).value).toBe(2);
      expect(await u.touch([], "k", 50_000)).toBe(true);
      expect((await u.readMany([], ["k"])).map((each) => each?.value)).toEqual([2]);
      const begun = await token(user, "l");
      await u.renew([], "l", begun.token, 100_000);
      await u.remove([], "l");
      const again = await token(user, "l");
      expect(await u.commit([], "l", again.token, again.since, "loaded", tagged)).toBe(true);
      await u.invalidateTags([], ["t"]);
      await u.abandon([], "m", (await token(user, "m")).token, true);
      expect((await all(u.keys([]))).sort()).toEqual(["k", "l"]);
      await u.clear([]);
      expect(await s.readMany([], ["k", "l"])).toEqual([undefined, undefined]);
      const other = new Host(await backend.connect(account), new Names("other:"));
      const error = await other.server.write([], "k", 1, MINUTE).catch((error) => error);
      other.close();
      expect(error).toEqual(unreachableError);
      expect(error.message).toContain("NOPERM");
      expect(error.message).toContain(`\`${rights.join(" ")}\``);
      expect(other.gate.isOpen).toBe(true);
    } finally {
      user.close();
    }
  });

  test("a replica: writes fail and shut the gate", async () => {
    const [server] = backend.masters as [Backend["masters"][number]];
    await s.write([], "k", 1, MINUTE);
    await server.command("REPLICAOF", "127.0.0.1", "1");
    const error = await s.write([], "k", 2, MINUTE).catch((error) => error);
    expect(error).toEqual(unreachableError);
    expect(error.message).toContain("READONLY");
    expect(a.gate.isOpen).toBe(false);
    await expect(s.read([], "k")).rejects.toThrow("not sent");
    // A replica answers a PING.
    await vi.waitFor(() => expect(a.gate.isOpen).toBe(true), TIMEOUT);
    await server.command("REPLICAOF", "NO", "ONE");
    await s.write([], "k", 3, MINUTE);
  });

  test("a server that is killed and started again: commands fail meanwhile, and the same client goes on", async () => {
    const [server] = backend.masters as [Backend["masters"][number]];
    await s.write([], "k", 1, { ...MINUTE, tags: ["t"] });
    await server.crash();
    const failed = await Promise.all(
      [s.read([], "k"), s.write([], "k", 2, MINUTE), s.begin([], "l", LOAD), s.tagTimes([], ["t"])].map((each) =>
        each.catch((error) => error),
      ),
    );
    expect(failed).toEqual(failed.map(() => unreachableError));
    await expect(all(s.keys([]))).rejects.toEqual(unreachableError);
    await server.restart();
    await vi.waitFor(() => expect(a.gate.isOpen).toBe(true), TIMEOUT);
    // The server has forgotten the scripts.
    await s.write([], "k", 3, { ...MINUTE, tags: ["t"] });
    expect((await good(a, [], "k"))?.value).toBe(3);
  });

  test("a paused server: commands end by their timeout, later ones at once, and it is found when it goes on", async () => {
    const [server] = backend.masters as [Backend["masters"][number]];
    await s.write([], "k", 1, MINUTE);
    await server.pause();
    const began = performance.now();
    const failed = await Promise.all(
      [s.read([], "k"), s.write([], "k", 2, MINUTE), s.remove([], "x")].map((each) => each.catch((error) => error)),
    );
    expect(performance.now() - began).toBeLessThan(10_000);
    expect(failed).toEqual([unreachableError, unreachableError, unreachableError]);
    expect((failed[1] as Error).message).toContain("nobody knows whether a change was made");
    const { commands } = s;
    for (let i = 0; i < 1_000; i++) await expect(s.read([], "k")).rejects.toThrow("not sent");
    // No command but those of the probe.
    expect(s.commands - commands).toBeLessThan(20);
    await server.resume();
    await vi.waitFor(() => expect(a.gate.isOpen).toBe(true), TIMEOUT);
    expect((await s.read([], "k"))?.value).toBeTypeOf("number");
  });
});

describe("a client that answers nonsense", () => {
  /** A server behind a client that answers every command with the same. */
  function answering(reply: unknown, isCluster = false): Server {
    const client: Client = {
      library: "a mock",
      isCluster,
      send: async () => reply as Reply,
      errorReply: () => undefined,
      async *scan() {
        yield reply as string[];
      },
      listen: async () => {
        throw new Error("not here");
      },
    };
    return new Server(client, names, { timeout: 1_000, codec, now: () => 1e12, gate: new Gate() });
  }

  const uses: [string, (server: Server) => Promise<unknown>][] = [
    ["read", (s) => s.read([], "k")],
    ["readMany", (s) => s.readMany([], ["k", "l"])],
    ["increment", (s) => s.increment([], "k", 1, COUNT)],
    ["tagTimes", (s) => s.tagTimes([], ["t", "u"])],
    ["write with tags", (s) => s.write([], "k", 1, { ...MINUTE, tags: ["t"] })],
    ["begin", (s) => s.begin([], "k", LOAD)],
  ];
  const replies = [
    "text",
    7,
    [],
    [null],
    [{}],
    ["1", "2", "3"],
    undefined,
    {},
    true,
    Buffer.from("x"),
    [Buffer.from("x")],
  ];

  test.each(uses)("%s is an ERR_DATA", async (_, use) => {
    for (const reply of replies) {
      for (const isCluster of [false, true]) {
        const error = await use(answering(reply, isCluster)).catch((error) => error);
        expect([reply, error]).toEqual([reply, dataError]);
      }
    }
  });

  test("an operation without an answer of its own fails or ends", async () => {
    const others: ((server: Server) => Promise<unknown>)[] = [
      (s) => s.write([], "k", 1, MINUTE),
      (s) => s.add([], "k", 1, MINUTE),
      (s) => s.remove([], "k"),
      (s) => s.touch([], "k", 1),
      (s) => s.renew([], "k", "t", 1),
      (s) => s.commit([], "k", "t", 1, 1, MINUTE),
      (s) => s.abandon([], "k", "t", true),
      (s) => s.invalidateTags([], ["t"]),
      (s) => s.clear([]),
    ];
    for (const use of others) {
      for (const reply of replies) {
        const result = await use(answering(reply)).catch((error) => error);
        if (result instanceof Error) expect([reply, result]).toEqual([reply, dataError]);
      }
    }
  });
});
