/**
 * Adapters over a tier and a real server: the checks of `cache-machine/testing` in one process and in processes of two simulated hosts,
 * what a read costs, and what happens while the server is away. With a double in place of the tier: store.test.ts.
 */

import { type Cache, createCache, destroyCache } from "cache-machine";
import { CacheMachineStore } from "cache-machine/express-rate-limit";
import { createStore, type RequestCount } from "cache-machine/fastify-rate-limit";
import { createKeyv } from "cache-machine/keyv";
import { createCacheHandler, type NextCacheEntry } from "cache-machine/next";
import { createIncrementalCacheHandler } from "cache-machine/next/incremental";
import { createRateLimiter } from "cache-machine/rate-limiter-flexible";
import { acrossProcesses, type Store, type StoreMember, type StoreSubject, storeChecks } from "cache-machine/testing";
import { openTier, type Tier } from "cache-machine/tier";
import { Keyv } from "keyv";
import { RateLimiterMemcache } from "rate-limiter-flexible";
import { normalizeKey } from "unstorage";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { endServers, NO_SERVER, startServer } from "../tier/servers.ts";
import { compile } from "./compile.ts";
// @ts-expect-error The processes of the checks run this module, so it is JavaScript.
import { connected, KINDS } from "./tier-store.mjs";

const ALL: StoreMember[] = ["delete", "has", "clear", "getMany", "setMany", "deleteMany", "keys"];
const LEASE = 100;
const HOUR = 3_600_000;

test("a tier fits the types of the adapters", () => compile("tier.types.ts"));

/** A simulated host: a cache, a client and a tier of its own. */
async function openHost(path: string, prefix?: string) {
  const cache: Cache = createCache({ size: "8mb" });
  const client = await connected(path);
  const tier: Tier<any> = openTier(cache, { client, lease: LEASE, ...(prefix && { prefix }) });
  const close = async (): Promise<void> => {
    await tier.close();
    client.destroy();
    cache.close();
  };
  return { cache, tier, close, good: () => vi.waitFor(() => expect(tier.stats().isGood).toBe(true), 30_000) };
}
type Host = Awaited<ReturnType<typeof openHost>>;

/** Waits until the lease of a host is renewed. */
async function renewed(tier: Tier<any>): Promise<void> {
  let least = Infinity;
  await vi.waitFor(
    () => {
      const { leaseLeft } = tier.stats();
      const isRenewed = leaseLeft > least;
      least = Math.min(least, leaseLeft);
      expect(isRenewed).toBe(true);
    },
    { timeout: 30_000, interval: 1 },
  );
}

describe.skipIf(NO_SERVER)("one process", () => {
  let server: Awaited<ReturnType<typeof startServer>>;
  let host: Host;
  beforeAll(async () => {
    server = await startServer({});
    host = await openHost(server.path);
  });
  afterAll(async () => {
    await host.close();
    await endServers();
  });

  /** Each check has a part of its own. */
  let parts = 0;
  // A value expires by the clock of the server, which is known as exactly as an answer takes to come.
  const minTtl = 20;
  const notEmpty = (key: string): boolean => key !== "";
  const subjects: [kind: string, members: StoreMember[], more?: Partial<StoreSubject>][] = [
    ["Keyv 5", ALL],
    ["Keyv 5 plain", [...ALL, "getOrSet"], { values: "structured" }],
    ["Keyv 6", ALL, { validKey: notEmpty }],
    ["Keyv 6 plain", [...ALL, "getOrSet"], { values: "structured", validKey: notEmpty }],
    ["cache-manager", ["clear", "getMany", "setMany", "deleteMany", "getOrSet"]],
    ["cacheable", ["delete", "has", "clear", "getMany", "setMany", "deleteMany", "getOrSet"]],
  ];
  describe.each(subjects)("%s", (kind, members, more) => {
    const open: StoreSubject["open"] = ({ namespace = `${kind} ${parts++}` } = {}) => KINDS[kind](host.tier, namespace);
    for (const { name, run } of storeChecks({ open, members, namespaces: true, minTtl, ...more })) test(name, run);
  });

  describe("unstorage", () => {
    // unstorage normalizes keys, and has no item without one.
    const validKey = (key: string): boolean => normalizeKey(key) === key && key !== "" && !key.endsWith("$");
    const open = (): Store => KINDS.unstorage(host.tier, `${parts++}`);
    const members: StoreMember[] = ["delete", "has", "clear", "getMany", "setMany", "keys"];
    // unstorage parses such a text, with every driver.
    const checks = storeChecks({ open, members, validKey, minTtl }).filter(
      ({ name }) => !name.endsWith("text that looks like JSON"),
    );
    for (const { name, run } of checks) test(name, run);
  });

  describe.each(["express", "fastify", "flexible"])("the limiter for %s", (kind) => {
    const checks = storeChecks({ open: () => KINDS[kind](host.tier), members: ["hit"], minTtl });
    // The other checks are of values.
    const limits = checks.filter(({ name }) => name.includes("requests"));
    test("is checked", () => expect(limits).toHaveLength(2));
    for (const { name, run } of limits) test(name, run);
  });

  test("express-rate-limit takes hits back, never below 0, and keeps the end of the window", async () => {
    const store = new CacheMachineStore(host.tier, { prefix: "taken back" });
    store.init({ windowMs: HOUR });
    const { resetTime } = await store.increment("a");
    await store.increment("a");
    for (const left of [1, 0, 0]) {
      await store.decrement("a");
      const hits = await store.get("a");
      expect(hits?.totalHits).toBe(left);
      expect(Math.abs(Number(hits?.resetTime) - Number(resetTime))).toBeLessThan(1000);
    }
    await store.decrement("never counted");
    expect(await store.get("never counted")).toBe(undefined);
    await store.resetAll();
    expect(await store.get("a")).toBe(undefined);
  });

  test("rate-limiter-flexible blocks a key on the server, and counts on from there", async () => {
    const Limiter = createRateLimiter(RateLimiterMemcache);
    const options = { storeClient: host.tier, points: 2, duration: 60, blockDuration: 3600, keyPrefix: "blocks" };
    const limiter = new Limiter(options);
    await limiter.consume("a", 2);
    await expect(limiter.consume("a")).rejects.toMatchObject({ consumedPoints: 3 });
    // Another process, which has nothing in its own memory.
    const refused = await new Limiter(options).consume("a").catch((error) => error);
    expect(refused).toMatchObject({ consumedPoints: 4, remainingPoints: 0 });
    expect(refused.msBeforeNext / HOUR).toBeCloseTo(1, 2);
    expect(await limiter.delete("a")).toBe(true);
    expect((await limiter.reward("a", 1)).consumedPoints).toBe(-1);
  });

  test("a refused request prolongs the window of @fastify/rate-limit on the server", async () => {
    const store = new (createStore(host.tier, { nameSpace: "long" }))({ exponentialBackoff: true });
    const count = (): Promise<RequestCount> =>
      new Promise((resolve, reject) => {
        store.incr("a", (error, result) => (error ? reject(error) : resolve(result as RequestCount)), HOUR, 1);
      });
    for (const [current, hours] of [
      [1, 1],
      [2, 1],
      [3, 2],
    ] as const) {
      const counted = await count();
      expect(counted.current).toBe(current);
      expect(counted.ttl / HOUR).toBeCloseTo(hours, 2);
    }
    expect(((await host.tier.namespace("long").ttl("\0a")) as number) / HOUR).toBeCloseTo(2, 2);
  });
});

describe.skipIf(NO_SERVER)("two processes on two hosts", () => {
  const hosts = ["a", "b"].map((name) => `t-${process.pid}-adapters-${name}`);
  const env = { HOSTS: hosts.join(" "), LEASE: `${LEASE}`, SERVER: "" };
  beforeAll(async () => void (env.SERVER = (await startServer({})).path));
  afterAll(async () => {
    await endServers();
    for (const host of hosts) destroyCache(host);
  });
  const module = new URL("tier-store.mjs", import.meta.url);
  const kinds: [kind: string, members: StoreMember[]][] = [
    ["Keyv 5", ["delete", "clear", "keys"]],
    ["Keyv 6 plain", ["delete", "clear", "keys"]],
    ["unstorage", ["delete", "clear", "keys"]],
    ["next", ["invalidateTag"]],
    ["next/incremental", ["invalidateTag"]],
  ];
  describe.each(kinds)("%s", (kind, members) => {
    for (const { name, run } of acrossProcesses(module, { processes: 2, members, env: withKind(env, kind) }))
      test(name, run);
  });
  describe.each(["express", "fastify", "flexible"])("the limiter for %s", (kind) => {
    const checks = acrossProcesses(module, { processes: 2, members: ["hit"], env: withKind(env, kind) });
    const limits = checks.filter(({ name }) => name.includes("limit"));
    test("is checked", () => expect(limits).toHaveLength(1));
    for (const { name, run } of limits) test(name, run);
  });
});

/** The environment with a kind of store. What it has is read when a check starts its processes. */
function withKind(env: { SERVER: string; [name: string]: string }, KIND: string): Record<string, string> {
  return {
    ...env,
    KIND,
    get SERVER() {
      return env.SERVER;
    },
  };
}

describe.skipIf(NO_SERVER)("two hosts", () => {
  let server: Awaited<ReturnType<typeof startServer>>;
  let one: Host;
  let two: Host;
  beforeEach(async () => {
    server = await startServer({});
    one = await openHost(server.path);
    two = await openHost(server.path);
    await Promise.all([one.good(), two.good()]);
  });
  afterEach(async () => {
    await Promise.all([one.close(), two.close()]);
    await endServers();
  });

  const nextTime = (): number => performance.timeOrigin + performance.now();
  const entry = (text: string): Promise<NextCacheEntry> =>
    Promise.resolve({
      value: new Response(text).body as ReadableStream<Uint8Array>,
      tags: ["tag"],
      stale: 0,
      timestamp: nextTime(),
      expire: 3600,
      revalidate: 60,
    });

  test("Next.js reads an entry, with the tags of its path, without a command to the server", async () => {
    const [writer, reader] = [one, two].map(({ tier }) => createCacheHandler({ cache: tier }));
    await writer?.set("key", entry("one"));
    const softTags = ["_N_T_/layout", "_N_T_/shop"];
    // Every push for the write has arrived when the lease was renewed twice: the second beat began after the write.
    await renewed(two.tier);
    await renewed(two.tier);
    expect(await reader?.get("key", softTags)).toBeDefined();
    await reader?.getExpiration(softTags);
    const before = two.tier.stats().own.commands;
    for (let i = 0; i < 100; i++) {
      const found = await reader?.get("key", softTags);
      expect(await new Response(found?.value).text()).toBe("one");
      expect(await reader?.getExpiration(softTags)).toBe(0);
    }
    expect(two.tier.stats().own.commands).toBe(before);
  });

  test("an invalidation of one host reaches both handlers for Next.js of the other within the bound", async () => {
    const [writer, reader] = [one, two].map(({ tier }) => createCacheHandler({ cache: tier }));
    const page = new (createIncrementalCacheHandler({ cache: two.tier }))({});
    for (let round = 0; round < 10; round++) {
      // What began before the invalidation of the last round was seen is not stored.
      await vi.waitFor(async () => {
        await writer?.set("key", entry("one"));
        await page.set("/", { kind: "PAGES", html: "one", headers: { "x-next-cache-tags": "tag" } }, {});
        expect(await reader?.get("key", [])).toBeDefined();
        expect(await page.get("/", { kind: "PAGES" })).not.toBe(null);
      }, 10_000);
      await writer?.updateTags(["tag"]);
      const since = performance.now();
      const isStale = async (): Promise<boolean> =>
        (await reader?.get("key", [])) !== undefined || (await page.get("/", { kind: "PAGES" })) !== null;
      // A read that began within the bound may be stale.
      for (let began = performance.now(); await isStale(); began = performance.now()) {
        expect(began - since).toBeLessThan(LEASE);
      }
    }
  });

  test("while the server is away pages are made and not cached, Keyv misses, and both work again afterwards", async () => {
    const handler = createCacheHandler({ cache: one.tier });
    const keyv = createKeyv(one.tier, { Keyv });
    const errors: any[] = [];
    keyv.on("error", (error) => errors.push(error));
    await handler.set("key", entry("one"));
    await server.crash();
    await vi.waitFor(async () => expect(await handler.get("key", [])).toBe(undefined), 10_000);
    await handler.set("key", entry("two"));
    await expect(handler.updateTags(["tag"])).rejects.toMatchObject({ code: "ERR_UNREACHABLE" });
    expect(await handler.getExpiration(["another"])).toBe(Infinity);
    expect(await keyv.get("a")).toBe(undefined);
    expect(await keyv.set("a", 1)).toBe(false);
    expect(errors).toMatchObject([{ code: "ERR_UNREACHABLE" }]);
    await server.restart();
    await vi.waitFor(async () => {
      await handler.set("key", entry("three"));
      const found = await handler.get("key", []);
      expect(found && (await new Response(found.value).text())).toBe("three");
    }, 30_000);
    expect(await keyv.set("a", 1)).toBe(true);
    expect(await keyv.get("a")).toBe(1);
  });
});
