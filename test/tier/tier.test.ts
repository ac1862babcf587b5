/** Tests what a tier promises while nothing fails, with two simulated hosts on one real server, and what it refuses. */

import { CacheError, createCache, type StaleEntry } from "cache-machine";
import { openTier, type Tier, type TierOptions } from "cache-machine/tier";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { compile } from "../adapters/compile.ts";
import { connect, endHosts, type Host, host, keeps, type RealServer, sees, until } from "./hosts.ts";
import { endServers, NO_SERVER, startServer } from "./servers.ts";

let server: RealServer;
let a: Host;
let b: Host;

beforeAll(async () => {
  if (!NO_SERVER) server = await startServer();
});
afterAll(endServers);
afterEach(endHosts);

/** Two hosts on an empty server. */
async function two(options: Partial<TierOptions> = {}): Promise<void> {
  await server.command("FLUSHALL");
  a = await host(server, options);
  b = await host(server, options);
}

const never = (): never => {
  throw new Error("this loader must not run");
};

/** A loader that the test finishes. */
function gate<T>(): { load: () => Promise<T>; calls: () => number; begun: Promise<void>; finish: (value: T) => void } {
  let calls = 0;
  let begin!: () => void;
  let finish!: (value: T) => void;
  const begun = new Promise<void>((resolve) => (begin = resolve));
  const value = new Promise<T>((resolve) => (finish = resolve));
  const load = (): Promise<T> => {
    calls++;
    begin();
    return value;
  };
  return { load, calls: () => calls, begun, finish };
}

describe.skipIf(NO_SERVER)("values", () => {
  beforeEach(() => two());

  test.each([
    ["text", "héllo\u0000 𝄞"],
    ["an empty text", ""],
    ["an integer", 42],
    ["a fraction", -0.25],
    ["the negative zero", -0],
    ["not a number", Number.NaN],
    ["null", null],
    ["false", false],
    ["a big integer", 2n ** 70n],
    ["an object", { a: [1, { b: null }], "": "x" }],
    ["a Map", new Map([["k", new Set([1])]])],
    ["a Date", new Date(0)],
    ["bytes", new Uint8Array([0, 255, 0xca, 1])],
    ["300,000 characters", "x".repeat(300_000)],
  ])("%s is read back on another host, also from its memory", async (_, value) => {
    await a.tier.set("key", value);
    await sees(b.tier, "key", value);
    await keeps(b.tier, "key");
    expect(b.tier.peek("key")).toEqual(value);
  });

  test("hostile keys are different keys", async () => {
    const keys: any[] = [
      "",
      "}",
      "{",
      "{}",
      "a}b",
      "n1:x:y",
      ":",
      "__proto__",
      "constructor",
      "\u0000",
      "*",
      "[a]",
      "\ud800",
      "\udc00\ud800",
      "é",
      "x".repeat(4096),
    ];
    keys.push(new Uint8Array(0), new Uint8Array([0xff]), Buffer.from("a}b"), new Uint8Array(4096).fill(7));
    for (const [i, key] of keys.entries()) await a.tier.set(key, i);
    for (const [i, key] of keys.entries()) expect(await b.tier.get(key)).toBe(i);
    expect(await b.tier.getMany(keys)).toEqual(keys.map((_, i) => i));
    const found: unknown[] = [];
    for await (const key of a.tier.keys()) found.push(key);
    const shown = (list: unknown[]): string[] =>
      list
        .map((key) => (typeof key === "string" ? `s${key}` : `b${Buffer.from(key as Uint8Array).toString("hex")}`))
        .sort();
    expect(shown(found)).toEqual(shown(keys));
    expect(await a.tier.deleteMany(keys)).toBe(keys.length);
    expect(await a.tier.getMany(keys)).toEqual(keys.map(() => undefined));
  });

  test("a key that is too long is a miss, and cannot be stored", async () => {
    const long = "x".repeat(4097);
    expect(await a.tier.get(long)).toBeUndefined();
    expect(await a.tier.delete(long)).toBe(false);
    await expect(a.tier.set(long, 1)).rejects.toMatchObject({ code: "ERR_TOO_LARGE" });
  });

  test("the absence of a key is remembered, until somebody stores it", async () => {
    await sees(a.tier, "key", undefined);
    await a.tier.get("key");
    const { commands } = a.tier.stats().own;
    for (let i = 0; i < 10; i++) expect(await a.tier.get("key")).toBeUndefined();
    expect(await a.tier.getMany(["key", "key"])).toEqual([undefined, undefined]);
    expect(a.tier.stats().own.commands).toBe(commands);
    await b.tier.set("key", 1);
    await sees(a.tier, "key", 1);
  });

  test("a value in the memory of the host costs no command", async () => {
    await a.tier.set("key", { n: 1 });
    await keeps(b.tier, "key");
    const { commands } = b.tier.stats().own;
    for (let i = 0; i < 10; i++) expect(await b.tier.get("key")).toEqual({ n: 1 });
    expect(await b.tier.getOrSet("key", never)).toEqual({ n: 1 });
    expect(await b.tier.getMany(["key"])).toEqual([{ n: 1 }]);
    expect(await b.tier.getEntry("key")).toEqual({ value: { n: 1 }, expiresAt: Infinity, tags: [] });
    expect(b.tier.stats().own.commands).toBe(commands);
  });

  test("readers get copies of their own", async () => {
    await a.tier.set("key", { n: 1 });
    const value = await b.tier.get("key");
    value.n = 2;
    await b.tier.get("key");
    expect(await b.tier.get("key")).toEqual({ n: 1 });
  });

  test("a host reads its own write at once", async () => {
    for (let i = 0; i < 200; i++) {
      await a.tier.set("key", i);
      expect(await a.tier.get("key")).toBe(i);
    }
    await a.tier.delete("key");
    expect(await a.tier.get("key")).toBeUndefined();
  });

  test("of many readers of a host one asks the server", async () => {
    await a.tier.set("key", "value");
    await until(() => b.tier.stats().owner?.invalidations !== 0, "the change was heard of");
    const { commands } = b.tier.stats().own;
    const values = await Promise.all(Array.from({ length: 50 }, () => b.tier.get("key")));
    expect(new Set(values)).toEqual(new Set(["value"]));
    expect(b.tier.stats().own.commands - commands).toBe(1);
  });

  test("many keys are read and written by few commands", async () => {
    const keys = Array.from({ length: 100 }, (_, i) => `key ${i}`);
    await a.tier.setMany(keys.map((key, i) => [key, i] as const));
    const { commands } = b.tier.stats().own;
    expect(await b.tier.getMany([...keys, "none"])).toEqual([...keys.map((_, i) => i), undefined]);
    expect(b.tier.stats().own.commands - commands).toBeLessThanOrEqual(2);
    expect(await a.tier.deleteMany([...keys, "none"])).toBe(100);
  });

  test("add stores only what is absent; has tells; delete tells whether there was a value", async () => {
    expect(await a.tier.add("key", 1)).toBe(true);
    expect(await b.tier.add("key", 2)).toBe(false);
    expect(await b.tier.has("key")).toBe(true);
    expect(await b.tier.delete("key")).toBe(true);
    expect(await a.tier.delete("key")).toBe(false);
    expect(await b.tier.has("key")).toBe(false);
  });
});

describe.skipIf(NO_SERVER)("expiry", () => {
  beforeEach(() => two());

  test("a value expires on the server and in the memory of each host", async () => {
    await a.tier.set("key", 1, { ttl: 300 });
    expect(await b.tier.get("key")).toBe(1);
    const left = (await b.tier.ttl("key")) as number;
    expect(left).toBeGreaterThan(0);
    expect(left).toBeLessThanOrEqual(1300);
    await sees(b.tier, "key", undefined);
    expect(b.tier.peek("key")).toBeUndefined();
    expect(await server.command("KEYS", "*v:*")).toEqual([]);
  });

  test("expiresAt is a time of this process; one that has come removes the value", async () => {
    await a.tier.set("key", 1, { expiresAt: Date.now() + 60_000 });
    const entry = await b.tier.getEntry("key");
    expect(Math.abs((entry?.expiresAt as number) - Date.now() - 60_000)).toBeLessThan(1000);
    await a.tier.set("key", 2, { expiresAt: Date.now() - 1 });
    expect(await a.tier.get("key")).toBeUndefined();
    expect(await a.tier.add("key", 3, { expiresAt: 0 })).toBe(true);
    expect(await a.tier.get("key")).toBeUndefined();
  });

  test("touch gives a new time to live, on all hosts", async () => {
    await a.tier.set("key", { n: 1 }, { ttl: 60_000 });
    await b.tier.get("key");
    expect(await a.tier.touch("key", Infinity)).toBe(true);
    await until(async () => (await b.tier.ttl("key")) === Infinity, "the other host sees it");
    expect(await b.tier.get("key")).toEqual({ n: 1 });
    expect(await a.tier.touch("none", 1000)).toBe(false);
  });

  test("the default ttl is that of the tier or the namespace", async () => {
    const { tier } = await host(server, { ttl: 50_000 });
    await tier.set("key", 1);
    expect(await tier.ttl("key")).toBeLessThanOrEqual(51_000);
    const part = tier.namespace("part", { ttl: 20_000 });
    await part.set("key", 1);
    expect(await part.ttl("key")).toBeLessThanOrEqual(21_000);
    await part.set("key", 1, { ttl: Infinity });
    expect(await part.ttl("key")).toBe(Infinity);
  });

  test("maxAge lets the host read again", async () => {
    const { tier } = await host(server, { maxAge: 50 });
    await tier.set("key", 1);
    await keeps(tier, "key");
    await until(() => tier.peek("key") === undefined, "its age is over");
    expect(await tier.get("key")).toBe(1);
  });

  test("host clocks do not matter: an hour ahead or behind, a value has the time that is left on the server", async () => {
    for (const hours of [-1, 1]) {
      const { tier } = await host(server, {}, createCache({ size: "4mb", now: () => Date.now() + hours * 3_600_000 }));
      await a.tier.set("key", hours, { ttl: 60_000 });
      await until(async () => (await tier.get("key")) === hours, "the value");
      const left = (await tier.ttl("key")) as number;
      expect(left).toBeGreaterThan(50_000);
      expect(left).toBeLessThanOrEqual(61_000);
    }
  });
});

describe.skipIf(NO_SERVER)("tags and namespaces", () => {
  beforeEach(() => two());

  test("an invalidated tag makes its entries misses on all hosts, however they are read", async () => {
    await a.tier.set("one", 1, { tags: ["x", "y"] });
    await a.tier.set("two", 2, { tags: ["y"] });
    await a.tier.set("three", 3, { tags: ["z"] });
    expect(await b.tier.getMany(["one", "two", "three"])).toEqual([1, 2, 3]);
    await a.tier.invalidateTag("y");
    expect(await a.tier.getMany(["one", "two", "three"])).toEqual([undefined, undefined, 3]);
    await sees(b.tier, "one", undefined);
    await sees(b.tier, "two", undefined);
    expect(await b.tier.get("three")).toBe(3);
    await b.tier.set("two", 22, { tags: ["y"] });
    expect(await b.tier.get("two")).toBe(22);
    await sees(a.tier, "two", 22);
    expect((await a.tier.getEntry("two"))?.tags).toEqual(["y"]);
  });

  test("tagInvalidatedAt is a time of the server's clock", async () => {
    expect(await a.tier.tagInvalidatedAt("never")).toBe(0);
    const before = a.tier.now() as number;
    await b.tier.invalidateTag("tag");
    await until(async () => (await a.tier.tagInvalidatedAt("tag", "never")) > 0, "the other host knows");
    const at = await a.tier.tagInvalidatedAt("tag");
    expect(at).toBeGreaterThanOrEqual(before - 100);
    expect(at).toBeLessThanOrEqual((a.tier.now() as number) + 100);
    const { commands } = a.tier.stats().own;
    await a.tier.tagInvalidatedAt("tag", "never");
    expect(a.tier.stats().own.commands).toBe(commands);
  });

  test("a tag that was evicted from the server makes its entries misses", async () => {
    await a.tier.set("key", 1, { tags: ["x"] });
    await sees(b.tier, "key", 1);
    const [tag] = (await server.command("KEYS", "*t:*x")) as string[];
    await server.command("DEL", tag as string);
    await sees(b.tier, "key", undefined);
  });

  test("namespaces have keys and tags of their own, and clear empties one with those within", async () => {
    const [left, right] = [a.tier.namespace("left"), a.tier.namespace("right")];
    const inner = left.namespace("inner");
    for (const [i, tier] of [a.tier, left, right, inner].entries()) await tier.set("key", i, { tags: ["x"] });
    const there = [
      b.tier,
      b.tier.namespace("left"),
      b.tier.namespace("right"),
      b.tier.namespace("left").namespace("inner"),
    ];
    expect(await Promise.all(there.map((tier) => tier.get("key")))).toEqual([0, 1, 2, 3]);
    await right.invalidateTag("x");
    await sees(there[2] as Tier, "key", undefined);
    expect(await Promise.all(there.map((tier) => tier.get("key")))).toEqual([0, 1, undefined, 3]);
    await left.clear();
    expect(await left.get("key")).toBeUndefined();
    await sees(there[1] as Tier, "key", undefined);
    await sees(there[3] as Tier, "key", undefined);
    expect(await b.tier.get("key")).toBe(0);
    const keys: string[] = [];
    await a.tier.set("k2", 1);
    for await (const key of a.tier.keys({ prefix: "k2" })) keys.push(key);
    expect(keys).toEqual(["k2"]);
  });

  test("two tiers with different prefixes on one cache do not meet", async () => {
    const client = await connect(server);
    const other = openTier(a.cache, { client, prefix: "other:" });
    await other.set("key", "other");
    await a.tier.set("key", "first");
    expect(await other.get("key")).toBe("other");
    expect(await a.tier.get("key")).toBe("first");
    await other.close();
    client.destroy();
  });

  test("what another program does to a key of the server is heard of", async () => {
    await a.tier.set("key", 1);
    await keeps(b.tier, "key");
    await server.command("DEL", "cache-machine:v:{:key}");
    await sees(b.tier, "key", undefined);
    await a.tier.set("key", 2);
    await sees(b.tier, "key", 2);
    await server.command("FLUSHALL");
    await sees(b.tier, "key", undefined);
  });

  test("what another program has stored under a key is refused by get and replaced by getOrSet", async () => {
    await server.command("SET", "cache-machine:v:{:key}", "plain text");
    await expect(a.tier.get("key")).rejects.toMatchObject({ code: "ERR_DATA" });
    await expect(a.tier.getMany(["key", "other"])).rejects.toMatchObject({ code: "ERR_DATA" });
    expect(await a.tier.getOrSet("key", () => "mine")).toBe("mine");
    await sees(b.tier, "key", "mine");
  });
});

describe.skipIf(NO_SERVER)("numbers", () => {
  beforeEach(() => two());

  test("increments of all hosts are exact", async () => {
    await Promise.all(Array.from({ length: 200 }, (_, i) => (i % 2 ? a : b).tier.increment("n", 1)));
    expect(await a.tier.get("n")).toBe(200);
    await sees(b.tier, "n", 200);
    expect(await a.tier.decrement("n", 50)).toBe(150);
    await a.tier.set("n", 5);
    expect(await b.tier.increment("n", 2)).toBe(7);
  });

  test("bounds, an initial number, an expiry", async () => {
    expect(await a.tier.incrementEntry("n", 1, { initial: 10, ttl: 60_000 })).toMatchObject({ value: 11 });
    const { expiresAt } = await a.tier.incrementEntry("n", 1, { ttl: 1 });
    expect(Math.abs(expiresAt - Date.now() - 60_000)).toBeLessThan(2000);
    await expect(a.tier.increment("n", 10, { max: 15 })).rejects.toThrow(RangeError);
    await expect(a.tier.increment("n", -100, { min: 0 })).rejects.toThrow(RangeError);
    expect(await a.tier.get("n")).toBe(12);
    await a.tier.set("text", "x");
    await expect(a.tier.increment("text")).rejects.toThrow(TypeError);
  });
});

describe.skipIf(NO_SERVER)("loading", () => {
  beforeEach(() => two());

  test("what one host has loaded, the other finds", async () => {
    expect(await a.tier.getOrSet("key", () => ({ n: 1 }), { ttl: 60_000, tags: ["t"] })).toEqual({ n: 1 });
    expect(await b.tier.getOrSet("key", never)).toEqual({ n: 1 });
    expect((await b.tier.getEntry("key"))?.tags).toEqual(["t"]);
    await a.tier.invalidateTag("t");
    expect(await a.tier.getOrSet("key", () => 2)).toBe(2);
  });

  test("of all callers of a host one loads", async () => {
    const { load, calls, finish, begun } = gate();
    const callers = Array.from({ length: 30 }, () => a.tier.getOrSet("key", load));
    await begun;
    const later = a.tier.getOrSet("key", never);
    finish("value");
    expect(new Set(await Promise.all([...callers, later]))).toEqual(new Set(["value"]));
    expect(calls()).toBe(1);
  });

  test("get does not wait for a loader", async () => {
    const { load, finish, begun } = gate();
    const call = a.tier.getOrSet("key", load);
    await begun;
    expect(await a.tier.get("key")).toBeUndefined();
    finish(1);
    expect(await call).toBe(1);
    expect(await a.tier.get("key")).toBe(1);
  });

  test.each([
    ["set", (tier: Tier<any, any>) => tier.set("key", "set"), "set"],
    ["delete of the absent key", (tier: Tier<any, any>) => tier.delete("key"), undefined],
    ["invalidateTag", (tier: Tier<any, any>) => tier.invalidateTag("t"), undefined],
    ["increment", (tier: Tier<any, any>) => tier.increment("key", 3), 3],
    ["add", (tier: Tier<any, any>) => tier.add("key", "added"), "added"],
  ] as const)("%s on either host during a load wins", async (_, change, after) => {
    for (const changer of [a, b]) {
      await server.command("FLUSHALL");
      await sees(a.tier, "key", undefined);
      await sees(b.tier, "key", undefined);
      const { load, finish, begun } = gate();
      const call = a.tier.getOrSet("key", load, { tags: ["t"] });
      await begun;
      await change(changer.tier);
      finish("old");
      expect(await call).toBe("old");
      await sees(a.tier, "key", after);
      await sees(b.tier, "key", after);
    }
  });

  test("tags that are known only after loading count", async () => {
    await a.tier.set("other", 1, { tags: ["late"] });
    const { load, finish, begun } = gate();
    const call = a.tier.getOrSet("key", load, { tags: () => ["late"] });
    await begun;
    await b.tier.invalidateTag("late");
    finish("old");
    expect(await call).toBe("old");
    expect(await a.tier.get("key")).toBeUndefined();
    await sees(b.tier, "key", undefined);
  });

  test("null is stored, undefined is not; ttl 0 is handed out and not stored", async () => {
    expect(await a.tier.getOrSet("null", () => null)).toBe(null);
    expect(await b.tier.getOrSet("null", never)).toBe(null);
    expect(await a.tier.getOrSet("undefined", () => undefined)).toBe(undefined);
    expect(await a.tier.getOrSet("undefined", () => 1)).toBe(1);
    expect(await a.tier.getOrSet("short", () => 1, { ttl: 0 })).toBe(1);
    expect(await b.tier.get("short")).toBeUndefined();
    const by: unknown[] = [];
    const ttl = (value: unknown, key: string): number => {
      by.push([value, key]);
      return 60_000;
    };
    await a.tier.getOrSet("function", () => 1, { ttl, jitter: 0.5 });
    expect(by).toEqual([[1, "function"]]);
    const left = (await b.tier.ttl("function")) as number;
    expect(left).toBeLessThanOrEqual(61_000);
    expect(left).toBeGreaterThan(29_000);
  });

  test("a loader says how its value is stored", async () => {
    await a.tier.getOrSet("key", (context) => {
      context.ttl = 60_000;
      context.tags = ["said"];
      expect([context.key, context.background, context.stale]).toEqual(["key", false, undefined]);
      return 1;
    });
    expect(await b.tier.ttl("key")).toBeLessThanOrEqual(61_000);
    expect((await b.tier.getEntry("key"))?.tags).toEqual(["said"]);
  });

  test("a loader that fails rejects its callers, and the next call loads", async () => {
    const fails = () => Promise.reject(new Error("no source"));
    const calls = [a.tier.getOrSet("key", fails), a.tier.getOrSet("key", fails)];
    for (const call of calls) await expect(call).rejects.toThrow("no source");
    expect(await a.tier.getOrSet("key", () => 1)).toBe(1);
  });

  test("an old value stands in within its grace, and a failed load is not repeated at once", async () => {
    let now = 0;
    const options = { ttl: 60, grace: 60_000, graceBackoff: 60_000 };
    await a.tier.getOrSet("key", () => ++now, options);
    await sees(b.tier, "key", undefined);
    await sees(a.tier, "key", undefined);
    let failures = 0;
    const failing = (): never => {
      failures++;
      throw new Error("away");
    };
    // With graceWait the loader runs first.
    expect(await b.tier.getOrSet("key", failing, { ...options, graceWait: Infinity })).toBe(1);
    expect(await b.tier.getOrSet("key", failing, { ...options, graceWait: Infinity })).toBe(1);
    expect(failures).toBe(1);
    // Without, the old value comes at once, and is replaced in the background.
    const old: (StaleEntry<any> | undefined)[] = [];
    const outcomes: string[] = [];
    const found = await a.tier.getOrSet(
      "key",
      (context) => {
        old.push(context.stale);
        return "new";
      },
      {
        ...options,
        ttl: 60_000,
        onOutcome: (outcome) => outcomes.push(outcome),
      },
    );
    expect(found).toBe(1);
    expect(outcomes).toEqual(["stale"]);
    await sees(a.tier, "key", "new");
    expect(old[0]).toMatchObject({ value: 1, stale: true });
    await sees(b.tier, "key", "new");
  });

  test("a slow loader is not waited for longer than graceWait", async () => {
    await a.tier.getOrSet("key", () => "old", { ttl: 20, grace: 60_000 });
    await sees(a.tier, "key", undefined);
    const { load, finish, begun } = gate();
    const call = a.tier.getOrSet("key", load, { grace: 60_000, graceWait: 20 });
    await begun;
    expect(await call).toBe("old");
    finish("new");
    await sees(a.tier, "key", "new");
  });

  test("refreshAhead loads in the background, fresh loads anew", async () => {
    await a.tier.getOrSet("key", () => 1, { ttl: 60_000 });
    const backgrounds: boolean[] = [];
    await keeps(a.tier, "key");
    expect(
      await a.tier.getOrSet(
        "key",
        (context) => {
          backgrounds.push(context.background);
          return 2;
        },
        {
          ttl: 120_000,
          refreshAhead: 1,
        },
      ),
    ).toBe(1);
    await sees(a.tier, "key", 2);
    expect(backgrounds).toEqual([true]);
    expect(await a.tier.getOrSet("key", () => 3, { fresh: true })).toBe(3);
    await sees(b.tier, "key", 3);
  });

  test("outcomes, timeouts and signals", async () => {
    const outcomes: string[] = [];
    const onOutcome = (outcome: string) => outcomes.push(outcome);
    await a.tier.getOrSet("key", () => 1, { onOutcome });
    await a.tier.getOrSet("key", never, { onOutcome });
    expect(outcomes).toEqual(["loaded", "hit"]);
    const { load, finish, begun } = gate();
    const first = a.tier.getOrSet("slow", load);
    await begun;
    await expect(a.tier.getOrSet("slow", never, { timeout: 20 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    const aborter = new AbortController();
    const aborted = a.tier.getOrSet("slow", never, { signal: aborter.signal });
    aborter.abort(new Error("enough"));
    await expect(aborted).rejects.toThrow("enough");
    const joined = a.tier.getOrSet("slow", never, { onOutcome });
    finish(2);
    expect(await first).toBe(2);
    expect(await joined).toBe(2);
    expect(outcomes).toEqual(["loaded", "hit", "joined"]);
  });

  test("a loader that asks for its own key is told so", async () => {
    await expect(a.tier.getOrSet("key", () => a.tier.getOrSet("key", never))).rejects.toThrow(/own/);
    expect(await a.tier.getOrSet("key", () => a.tier.getOrSet("other", () => 5))).toBe(5);
  });

  test("many keys are loaded by one call of the loader", async () => {
    await a.tier.set("b", "B");
    const asked: string[][] = [];
    const load = (keys: string[]): (string | undefined)[] => {
      asked.push(keys);
      return keys.map((key) => (key === "none" ? undefined : key.toUpperCase()));
    };
    expect(await b.tier.getOrSetMany(["a", "b", "none", "a"], load)).toEqual(["A", "B", undefined, "A"]);
    expect(asked).toEqual([["a", "none"]]);
    expect(await a.tier.getOrSetMany(["a", "b"], never)).toEqual(["A", "B"]);
    const byMap = (keys: string[]) => new Map(keys.map((key) => [key, key.length]));
    expect(await a.tier.getOrSetMany(["cc", "ddd"], byMap)).toEqual([2, 3]);
    await expect(a.tier.getOrSetMany(["x", "y"], () => [1])).rejects.toThrow(TypeError);
  });

  test("memoize", async () => {
    let calls = 0;
    const square = a.tier.memoize((n: number) => (calls++ < 0 ? 0 : n * n), { key: (n: number) => `square ${n}` });
    expect(await square(7)).toBe(49);
    expect(await square(7)).toBe(49);
    expect(calls).toBe(1);
    expect(await b.tier.get("square 7")).toBe(49);
  });
});

describe.skipIf(NO_SERVER)('singleFlight: "all"', () => {
  beforeEach(() => two({ singleFlight: "all" }));

  test("of all hosts one loads, and the others get its value soon", async () => {
    const { load, calls, finish, begun } = gate();
    const here = Array.from({ length: 10 }, () => a.tier.getOrSet("key", load));
    await begun;
    const there = Array.from({ length: 10 }, () => b.tier.getOrSet("key", never));
    // The other host has asked, and waits.
    await until(() => b.tier.stats().own.commands >= 2, "the other host waits");
    finish("value");
    expect(new Set(await Promise.all([...here, ...there]))).toEqual(new Set(["value"]));
    expect(calls()).toBe(1);
  });

  test("when the leader fails, another host loads", async () => {
    let fail!: (error: Error) => void;
    const begun = new Promise<void>((begin) => {
      a.tier
        .getOrSet("key", () => {
          begin();
          return new Promise((_, reject) => (fail = reject));
        })
        .catch((error) => expect(error.message).toBe("failed"));
    });
    await begun;
    const other = b.tier.getOrSet("key", () => "from b");
    await until(() => b.tier.stats().own.commands >= 2, "the other host waits");
    fail(new Error("failed"));
    expect(await other).toBe("from b");
  });

  test("a leader that dies is replaced after its lease", async () => {
    const { load, begun } = gate();
    a.tier.getOrSet("key", load, { lease: 300 }).catch(() => {});
    await begun;
    // A process that is gone neither renews its token nor gives it back.
    await a.tier.close();
    a.client.destroy();
    expect(await b.tier.getOrSet("key", () => "from b", { lease: 300 })).toBe("from b");
  });

  test("who waits for another host can be aborted", async () => {
    const { load, begun, finish } = gate();
    const first = a.tier.getOrSet("key", load);
    await begun;
    const aborter = new AbortController();
    const waiting = b.tier.getOrSet("key", never, { signal: aborter.signal });
    await until(() => b.tier.stats().own.commands >= 2, "the other host waits");
    aborter.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
    finish(1);
    expect(await first).toBe(1);
  });
});

describe.skipIf(NO_SERVER)("arguments", () => {
  test("openTier names the argument that is wrong", async () => {
    const client = await connect(server);
    const cache = createCache({ size: "2mb" });
    const wrong: [any, any, RegExp][] = [
      [undefined, { client }, /^cache:/],
      [{}, { client }, /^cache:/],
      [cache, undefined, /^options:/],
      [cache, {}, /^client:/],
      [cache, { client: {} }, /^client:/],
      [cache, { client, prefix: 1 }, /^prefix:/],
      [cache, { client, prefix: "" }, /^prefix:/],
      [cache, { client, ttl: "1" }, /^ttl:/],
      [cache, { client, ttl: 0 }, /^ttl:/],
      [cache, { client, maxAge: Number.NaN }, /^maxAge:/],
      [cache, { client, lease: 99 }, /^lease:/],
      [cache, { client, lease: Infinity }, /^lease:/],
      [cache, { client, timeout: 0 }, /^timeout:/],
      [cache, { client, onDisconnect: "stale" }, /^onDisconnect:/],
      [cache, { client, singleFlight: "one" }, /^singleFlight:/],
      [cache, { client, ttls: 1 }, /ttls/],
    ];
    for (const [cache, options, message] of wrong) expect(() => openTier(cache, options)).toThrow(message);
    client.destroy();
    cache.close();
  });

  test("operations reject wrong arguments, and nothing is sent", async () => {
    await two();
    const tier: any = a.tier;
    const { commands } = a.tier.stats().own;
    const wrong: [() => Promise<unknown>, RegExp][] = [
      [() => tier.set(1, 1), /^key:/],
      [() => tier.set("k", undefined), /^value:/],
      [() => tier.set("k", () => {}), /^value/],
      [() => tier.set("k", "\u0000cache-machine: absent on the server\u0000"), /^value:/],
      [() => tier.set("k", 1, { ttl: 0 }), /^ttl:/],
      [() => tier.set("k", 1, { ttl: 1, expiresAt: 1 }), /^ttl:/],
      [() => tier.set("k", 1, { maxAge: 1 }), /ttl/],
      [() => tier.set("k", 1, { tags: "x" }), /^tags:/],
      [() => tier.set("k", 1, { tags: ["x".repeat(257)] }), /^tags:/],
      [() => tier.set("k", 1, { tags: Array.from({ length: 129 }, (_, i) => `t${i}`) }), /^tags:/],
      [() => tier.set("k", 1, { grace: -1 }), /^grace:/],
      [() => tier.setMany([["k"], 5]), /^value:|^entries:/],
      [() => tier.setMany("text"), /^entries:/],
      [() => tier.get({}), /^key:/],
      [() => tier.getMany("key"), /^keys:/],
      [() => tier.touch("k", -1), /^ttl:/],
      [() => tier.increment("k", "1"), /^by:/],
      [() => tier.increment("k", 1, { max: "x" }), /^max:/],
      [() => tier.getOrSet("k"), /^load:/],
      [() => tier.getOrSet("k", never, { tll: 1 }), /ttl/],
      [() => tier.getOrSet("k", never, { jitter: 2 }), /^jitter:/],
      [() => tier.getOrSetMany(5, never), /^keys:/],
      [() => tier.invalidateTag(1), /^tags:/],
    ];
    for (const [call, message] of wrong) {
      const error = await call().then(
        () => "no error",
        (error: Error) => error,
      );
      expect(error, call.toString()).toBeInstanceOf(Error);
      expect((error as Error).message, call.toString()).toMatch(message);
    }
    expect(a.tier.stats().own.commands).toBe(commands);
    expect(() => tier.namespace("")).toThrow(RangeError);
    expect(() => tier.namespace(1)).toThrow(TypeError);
  });

  test("a closed tier refuses, and leaves the cache and the client open", async () => {
    await two();
    const part = a.tier.namespace("part");
    await a.tier.close();
    await a.tier.close();
    for (const call of [
      () => a.tier.get("k"),
      () => a.tier.set("k", 1),
      () => part.getOrSet("k", never),
      () => part.getMany(["k"]),
    ]) {
      await expect(call()).rejects.toMatchObject({ code: "ERR_CLOSED" });
    }
    expect(() => a.tier.stats()).toThrow(CacheError);
    a.cache.set("still", 1);
    expect(a.cache.get("still")).toBe(1);
    expect(await a.client.ping()).toBe("PONG");
  });

  test("a cache that is closed underneath ends the tier without noise", async () => {
    await two();
    a.cache.close();
    await expect(a.tier.get("k")).rejects.toMatchObject({ code: "ERR_CLOSED" });
    await a.tier.close();
  });
});

test("the types fit the clients of all libraries", () => compile(`${import.meta.dirname}/tier.types.ts`));
