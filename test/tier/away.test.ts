/** Tests what a tier does while its server is away, refuses, hangs or loses its data, and how it comes back. */

import { Worker } from "node:worker_threads";
import { createCache } from "cache-machine";
import { openTier, type Tier } from "cache-machine/tier";
import { afterEach, expect, test } from "vitest";
import { connect, endHosts, host, keeps, type RealServer, until } from "./hosts.ts";
import { endProxies, endServers, NO_SERVER, startProxy, startServer } from "./servers.ts";

afterEach(async () => {
  await endHosts();
  await endProxies();
  await endServers();
});

const never = (): never => {
  throw new Error("this loader must not run");
};
const isBack = (tier: Tier<any, any>): Promise<void> => until(() => tier.stats().isGood, "the tier is back");
const LEASE = 400;
const it = test.skipIf(NO_SERVER);

it("while the server is away, the memory answers for a lease, then reads are misses, loaders run, and writes say so", async () => {
  const server = await startServer();
  const { tier } = await host(server, { lease: LEASE, timeout: 300 });
  await tier.set("key", 1);
  await keeps(tier, "key");
  await server.crash();
  // What was good stays good until its lease ends.
  const left = tier.stats().leaseLeft;
  if (left > 50) expect(await tier.get("key")).toBe(1);
  await until(() => !tier.stats().isGood, "the lease is over");
  expect(tier.peek("key")).toBeUndefined();
  expect(await tier.get("key")).toBeUndefined();
  expect(await tier.getMany(["key", "other"])).toEqual([undefined, undefined]);
  expect(await tier.has("key")).toBe(false);
  expect(await tier.getEntry("key")).toBeUndefined();
  for (const write of [
    () => tier.set("key", 2),
    () => tier.setMany([["key", 2]]),
    () => tier.add("key", 2),
    () => tier.delete("key"),
    () => tier.deleteMany(["key"]),
    () => tier.touch("key", 1000),
    () => tier.increment("n"),
    () => tier.invalidateTag("t"),
    () => tier.clear(),
    () => tier.tagInvalidatedAt("t2"),
    async () => {
      for await (const _ of tier.keys()) break;
    },
  ]) {
    await expect(write()).rejects.toMatchObject({ code: "ERR_UNREACHABLE" });
  }
  expect(await tier.getOrSet("key", () => "loaded")).toBe("loaded");
  await server.restart();
  await isBack(tier);
  await until(async () => (await tier.set("key", 3).catch(() => false)) === undefined, "writes pass");
  expect(await tier.get("key")).toBe(3);
});

it("without a server one load of a key in half a lease goes to the source, for all callers", async () => {
  const server = await startServer();
  const { tier } = await host(server, { lease: 1000, timeout: 200 });
  await server.crash();
  await until(() => !tier.stats().isGood, "the lease is over");
  await tier.get("opens the gate");
  let loads = 0;
  const begun = performance.now();
  const load = async (): Promise<number> => ++loads;
  let calls = 0;
  while (performance.now() - begun < 1500) {
    const values = await Promise.all(Array.from({ length: 20 }, () => tier.getOrSet("key", load)));
    calls += values.length;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const halves = Math.ceil((performance.now() - begun) / 500) + 1;
  expect(calls).toBeGreaterThan(100);
  expect(loads).toBeLessThanOrEqual(halves);
});

it.each([
  ["delete", (tier: Tier<any, any>) => tier.delete("key")],
  ["set", (tier: Tier<any, any>) => tier.set("key", "new")],
  ["invalidateTag", (tier: Tier<any, any>) => tier.invalidateTag("t")],
] as const)("what %s has overtaken is not kept when the server goes away before the load ends", async (_, change) => {
  const server = await startServer();
  const { tier } = await host(server, { lease: 2000, timeout: 200 });
  // In the first round the load begins while the server is there, in the second one without it.
  for (const isAway of [false, true]) {
    if (isAway) await tier.get("another").catch(() => {});
    let finish!: (value: string) => void;
    const begun = new Promise<void>((begin) => {
      const load = (): Promise<string> => {
        begin();
        return new Promise((resolve) => (finish = resolve));
      };
      tier.getOrSet("key", load, { tags: ["t"] }).then((value) => expect(value).toBe("old"));
    });
    await begun;
    await change(tier).catch((error) => expect([isAway, error.code]).toEqual([true, "ERR_UNREACHABLE"]));
    if (!isAway) await server.crash();
    finish("old");
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(tier.peek("key")).not.toBe("old");
    expect(await tier.get("key")).not.toBe("old");
    await until(() => !tier.stats().isGood, "the lease is over");
    expect(await tier.get("key")).not.toBe("old");
  }
});

it("a command that nobody answers is not sent again and again: the tier asks by itself whether the server is back", async () => {
  const server = await startServer();
  const proxy = await startProxy(server.path, `${server.path}.proxy`);
  const cache = createCache({ size: "4mb" });
  const client = await connect(server, proxy.path);
  const tier = openTier(cache, { client, lease: LEASE, timeout: 200 });
  await isBack(tier);
  proxy.stall();
  await expect(tier.set("key", 1)).rejects.toMatchObject({ code: "ERR_UNREACHABLE" });
  const { commands } = tier.stats().own;
  const begun = performance.now();
  for (let i = 0; i < 500; i++) await tier.get(`key ${i}`);
  // 500 timeouts would take 100 seconds.
  expect(performance.now() - begun).toBeLessThan(20_000);
  expect(tier.stats().own.commands - commands).toBeLessThan(50);
  proxy.resume();
  await isBack(tier);
  await until(async () => (await tier.set("key", 2).catch(() => false)) === undefined, "writes pass");
  expect(await tier.get("key")).toBe(2);
  await tier.close();
  client.destroy();
  cache.close();
});

it('with onDisconnect: "serve" the memory answers as long as the server is away', async () => {
  const server = await startServer();
  const { tier } = await host(server, { lease: LEASE, timeout: 200, onDisconnect: "serve" });
  await tier.set("key", { n: 1 });
  await keeps(tier, "key");
  await server.crash();
  await until(() => !tier.stats().isGood, "the lease is over");
  expect(tier.peek("key")).toEqual({ n: 1 });
  expect(await tier.get("key")).toEqual({ n: 1 });
  expect(await tier.getOrSet("key", never)).toEqual({ n: 1 });
  expect(await tier.getOrSet("other", () => 2)).toBe(2);
  await server.restart();
  await isBack(tier);
  // The server has lost its data, and the memory does not keep what it has not.
  await until(async () => (await tier.get("key")) === undefined, "the value is gone");
});

it("a server that comes back without its data leaves nothing behind in memory", async () => {
  const server = await startServer();
  const { tier } = await host(server, { lease: LEASE, timeout: 200 });
  const names = Array.from({ length: 50 }, (_, i) => `key ${i}`);
  await tier.setMany(names.map((name, i) => [name, i] as const));
  await tier.getMany(names);
  await server.restart({ empty: true });
  await isBack(tier);
  await until(async () => (await tier.getMany(names)).every((value) => value === undefined), "all values are gone");
});

it.each([
  ["a full server (OOM)", ["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]],
  ["a replica (READONLY)", ["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]],
])("%s refuses writes with its reason, and is used again when it accepts them", async (_, worsen, mend) => {
  const server = await startServer();
  const { tier } = await host(server, { lease: LEASE, timeout: 300 });
  await tier.set("key", 1);
  await server.command(...(worsen as [string]));
  await expect(tier.set("key", 2)).rejects.toMatchObject({
    code: "ERR_UNREACHABLE",
    message: expect.stringMatching(/OOM|READONLY|away/),
  });
  await server.command(...(mend as [string]));
  await until(async () => (await tier.set("key", 3).catch(() => false)) === undefined, "writes pass");
  await isBack(tier);
  expect(await tier.get("key")).toBe(3);
});

it("a load whose value cannot be stored on the server is handed out", async () => {
  const server = await startServer();
  const { tier } = await host(server, { lease: LEASE, timeout: 300 });
  const value = await tier.getOrSet("key", async () => {
    await server.crash();
    return "loaded";
  });
  expect(value).toBe("loaded");
  const many = await tier.getOrSetMany(["a", "b"], (keys) => keys.map((key) => key.toUpperCase()));
  expect(many).toEqual(["A", "B"]);
});

it("a change that was given up is not made when the network goes on", async () => {
  const server = await startServer();
  const proxy = await startProxy(server.path, `${server.path}.proxy`);
  const a = await host(server, { lease: 2000 });
  const [cache, client] = [createCache({ size: "4mb" }), await connect(server, proxy.path)];
  const tier = openTier(cache, { client, lease: 2000, timeout: 200 });
  await isBack(tier);
  await a.tier.set("n", 1);
  await a.tier.set("removed", 1);
  proxy.stall();
  const given = [
    tier.set("key", "given up"),
    tier.add("added", "given up"),
    tier.increment("n"),
    tier.delete("removed"),
    tier.touch("removed", 5),
    tier.setMany([["many", 1]]),
  ];
  for (const settled of await Promise.allSettled(given)) {
    expect(settled).toMatchObject({ status: "rejected", reason: { code: "ERR_UNREACHABLE" } });
  }
  await a.tier.set("key", "newer");
  await a.tier.set("removed", 2);
  proxy.resume();
  // Commands of a connection are run in their order, so after this one all those before it were run.
  await until(async () => (await tier.set("last", 1).catch(() => false)) === undefined, "writes pass");
  const now = Object.fromEntries(
    await Promise.all(
      ["key", "added", "n", "removed", "many"].map(async (key) => [key, await a.tier.get(key)] as const),
    ),
  );
  expect(now).toEqual({ key: "newer", added: undefined, n: 1, removed: 2, many: undefined });
  expect(await a.tier.ttl("removed")).toBe(Infinity);
  await tier.close();
  client.destroy();
  cache.close();
});

it("connections that stay open and silent for ever are replaced, and the tier is back", async () => {
  const server = await startServer();
  const proxy = await startProxy(server.path, `${server.path}.proxy`);
  const [cache, client] = [createCache({ size: "4mb" }), await connect(server, proxy.path)];
  const tier = openTier(cache, { client, lease: LEASE, timeout: 200 });
  await isBack(tier);
  await tier.set("key", 1);
  // Nobody is told that these are dead. New connections open, and work.
  for (const pair of proxy.pairs) pair.stall();
  await expect(tier.set("key", 2)).rejects.toMatchObject({ code: "ERR_UNREACHABLE" });
  const since = performance.now();
  await until(async () => (await tier.set("key", 3).catch(() => false)) === undefined, "writes pass");
  // 2 s of silence, a pause of at most 2 s between two probes, a probe, and the connection.
  expect(performance.now() - since).toBeLessThan(10_000);
  await isBack(tier);
  expect(await tier.get("key")).toBe(3);
  await tier.close();
  client.destroy();
  cache.close();
});

it("another host reads a write within the lease while its connection for changes hangs", async () => {
  const server = await startServer();
  const proxy = await startProxy(server.path, `${server.path}.proxy`);
  const [a, cache, client] = [
    await host(server, { lease: LEASE }),
    createCache({ size: "4mb" }),
    await connect(server, proxy.path),
  ];
  const tier = openTier(cache, { client, lease: LEASE, timeout: 300 });
  await isBack(tier);
  await a.tier.set("key", "old");
  await keeps(tier, "key");
  proxy.stall();
  await a.tier.set("key", "new");
  const written = performance.now();
  while (tier.peek("key") === "old") {
    expect(performance.now() - written).toBeLessThan(LEASE + 200);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  expect(tier.peek("key")).toBeUndefined();
  proxy.resume();
  await until(async () => (await tier.get("key")) === "new", "the new value");
  await tier.close();
  client.destroy();
  cache.close();
});

it("a worker reads what another thread has in memory, and takes over when the owner leaves", async () => {
  const server: RealServer = await startServer();
  const { tier, cache } = await host(server, { lease: LEASE });
  await tier.set("key", { n: 1 });
  await keeps(tier, "key");
  const worker = new Worker(
    `const { workerData, parentPort, threadId } = require("node:worker_threads");
     Promise.all([import("cache-machine"), import("cache-machine/tier"), import("redis")]).then(async ([{ attachCache }, { openTier }, { createClient }]) => {
       const client = createClient({ socket: { path: workerData.path } });
       client.on("error", () => {});
       await client.connect();
       const tier = openTier(attachCache(workerData.cache), { client, lease: ${LEASE} });
       const found = tier.peek("key");
       parentPort.on("message", async () => { await tier.close(); client.destroy(); parentPort.close(); });
       parentPort.postMessage({ found, commands: tier.stats().own.commands, threadId });
     });`,
    { eval: true, workerData: { cache: cache.handle, path: server.path } },
  );
  const { found, commands, threadId } = await new Promise<any>((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
  expect(found).toEqual({ n: 1 });
  expect(commands).toBe(0);
  const heir = openTier(cache, { client: await connect(server), lease: LEASE });
  await tier.close();
  await until(() => heir.stats().owner?.state === "following" && heir.stats().owner?.age !== undefined, "an owner");
  await until(() => [0, threadId].includes(heir.stats().owner?.threadId ?? -1) && heir.stats().isGood, "it follows");
  const ended = new Promise((resolve) => worker.once("exit", resolve));
  worker.postMessage("end");
  expect(await ended).toBe(0);
  await heir.close();
});

it("nothing keeps the process alive, and nothing is left open, after close", async () => {
  const server = await startServer();
  const worker = new Worker(
    `const { workerData } = require("node:worker_threads");
     Promise.all([import("cache-machine"), import("cache-machine/tier"), import("redis")]).then(async ([{ createCache }, { openTier }, { createClient }]) => {
       const client = createClient({ socket: { path: workerData } });
       await client.connect();
       const cache = createCache({ size: "2mb" });
       const tier = openTier(cache, { client });
       while (!tier.stats().isGood) await new Promise((resolve) => setTimeout(resolve, 5));
       await tier.set("key", 1);
       const early = openTier(cache, { client, prefix: "early:" });
       await early.close();
       await tier.close();
       client.destroy();
     });`,
    { eval: true, workerData: server.path },
  );
  // The thread ends by itself.
  expect(await new Promise((resolve) => worker.once("exit", resolve))).toBe(0);
  await until(
    async () => /connected_clients:1\r/.test(String(await server.command("INFO", "clients"))),
    "no connection",
  );
});
