/**
 * What the benchmark of the tier compares: ways in which the processes of a host read values that live on a server. Each is set up as
 * its documentation says, and gets the same memory per host: one memory for all processes, or a part for each of them.
 *
 * A cache that keeps values in the heap is limited by their number, so {@link heapBytes} measures what one takes there.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { keyOf, VALUES } from "./values.mjs";

/** Lifetime of what the peers keep in their processes, in milliseconds: longer than a run. */
const TTL = 600_000;
/** How much of the memory this cache shares; the rest is for the near caches of the processes, as in the application benchmark. */
const SHARED_SHARE = 0.75;
/** The channel on which writers say which key they changed, for `lru-cache`. */
const CHANNEL = "changed";

/**
 * `open({ server, memory, processes, bytesOfOne, host })` answers, in each process, `{ read(key), write(key, value) }`, which return
 * promises. `server` is the path of the socket, `memory` the bytes of the host, `bytesOfOne` what a value takes in the heap, `host` a name.
 */
export const CONTENDERS = {
  tier: {
    label: "cache-machine/tier: one memory for the host",
    ours: true,
    async open({ server, memory, processes, host }) {
      const { openCache } = await import("../../dist/index.js");
      const { openTier } = await import("../../dist/tier/index.js");
      const size = Math.floor(memory * SHARED_SHARE);
      const nearCacheSize = Math.floor((memory * (1 - SHARED_SHARE)) / processes);
      const cache = openCache(host, { size, nearCacheSize });
      const tier = openTier(cache, { client: await connect(server) });
      return {
        read: (key) => tier.get(key),
        write: (key, value) => tier.set(key, value),
        /** The process that listens to the server for the host, when there is one. */
        owner: () => tier.stats().owner?.pid,
        isReady: () => tier.stats().isGood,
        cache,
        tier,
      };
    },
  },
  server: {
    label: "the server alone (node-redis)",
    packages: ["redis"],
    async open({ server }) {
      const client = await connect(server);
      return {
        read: async (key) => parse(await client.get(key)),
        write: (key, value) => client.set(key, JSON.stringify(value)),
      };
    },
  },
  "client-side": {
    label: "node-redis with its client-side cache in each process",
    packages: ["redis"],
    async open({ server, memory, processes, bytesOfOne }) {
      const { BasicClientSideCache } = await import("redis");
      const maxEntries = entries(memory / processes, bytesOfOne);
      const clientSideCache = new BasicClientSideCache({ maxEntries, ttl: TTL, evictPolicy: "LRU" });
      const client = await connect(server, { RESP: 3, clientSideCache });
      return {
        read: async (key) => parse(await client.get(key)),
        write: (key, value) => client.set(key, JSON.stringify(value)),
      };
    },
  },
  "lru-cache": {
    label: "lru-cache in each process, invalidated by pub/sub",
    packages: ["lru-cache", "redis"],
    async open({ server, memory, processes, bytesOfOne }) {
      const { LRUCache } = await import("lru-cache");
      const client = await connect(server);
      const cache = new LRUCache({
        max: entries(memory / processes, bytesOfOne),
        ttl: TTL,
        // A load that an invalidation overtakes is answered to those who wait for it, and not kept.
        ignoreFetchAbort: true,
        fetchMethod: async (key) => parse(await client.get(key)),
      });
      const subscriber = client.duplicate();
      subscriber.on("error", () => {});
      // What was published while there was no connection is lost.
      for (const event of ["reconnecting", "ready"]) subscriber.on(event, () => cache.clear());
      await subscriber.connect();
      await subscriber.subscribe(CHANNEL, (key) => cache.delete(key));
      return {
        read: (key) => cache.fetch(key),
        write: async (key, value) => {
          await Promise.all([client.set(key, JSON.stringify(value)), client.publish(CHANNEL, key)]);
          cache.delete(key);
        },
      };
    },
  },
  bentocache: {
    label: "bentocache: L1 in each process, L2 and bus over Redis",
    packages: ["bentocache", "ioredis"],
    async open({ server, memory, processes, bytesOfOne }) {
      const { BentoCache, bentostore } = await import("bentocache");
      const { memoryDriver } = await import("bentocache/drivers/memory");
      const { redisDriver, redisBusDriver } = await import("bentocache/drivers/redis");
      const maxItems = entries(memory / processes, bytesOfOne);
      const connection = { path: server };
      // ioredis prints the errors of connections to which nobody listens, and nobody can listen to those of the bus.
      const print = console.error;
      console.error = (...what) => String(what[0]).startsWith("[ioredis]") || print(...what);
      const bento = new BentoCache({
        default: "main",
        ttl: TTL,
        stores: {
          main: bentostore()
            .useL1Layer(memoryDriver({ maxItems }))
            .useL2Layer(redisDriver({ connection }))
            .useBus(redisBusDriver({ connection })),
        },
      });
      return {
        read: (key) => bento.get({ key }),
        write: (key, value) => bento.set({ key, value }),
      };
    },
  },
};

async function connect(server, options = {}) {
  const { createClient } = await import("redis");
  const client = createClient({ socket: { path: server }, ...options });
  // The client reconnects by itself, as it does by default.
  client.on("error", () => {});
  await client.connect();
  return client;
}

function parse(text) {
  return text === null ? undefined : JSON.parse(text);
}

function entries(memory, bytesOfOne) {
  return Math.max(1, Math.floor(memory / bytesOfOne));
}

/** How a contender keeps one value in the heap of a process. */
const STORES = {
  "client-side": async (count) => {
    const { BasicClientSideCache } = await import("redis");
    const cache = new BasicClientSideCache({ maxEntries: count, ttl: TTL });
    // Such is the key for the answer to GET.
    const put = (key, value) =>
      cache.set(`3_${key.length}_GET_${key}`, cache.createValueEntry(undefined, JSON.stringify(value)), [key]);
    return { put };
  },
  "lru-cache": async (count) => {
    const { LRUCache } = await import("lru-cache");
    const cache = new LRUCache({ max: count, ttl: TTL });
    return { put: (key, value) => cache.set(key, value) };
  },
  bentocache: async (count) => {
    const { BentoCache, bentostore } = await import("bentocache");
    const { memoryDriver } = await import("bentocache/drivers/memory");
    const main = bentostore().useL1Layer(memoryDriver({ maxItems: count }));
    const cache = new BentoCache({ default: "main", ttl: TTL, stores: { main } });
    return { put: (key, value) => cache.set({ key, value }) };
  },
};

/** Bytes of heap that a contender takes in a process for one value, with its key and its place; 0 if it has none there. Needs --expose-gc. */
export async function heapBytes(contender, kind, count = 20_000) {
  if (!(contender in STORES)) return 0;
  const used = async () => {
    for (let i = 0; i < 4; i++) {
      globalThis.gc();
      await sleep(10);
    }
    return process.memoryUsage().heapUsed;
  };
  const { put } = await STORES[contender](count);
  const make = VALUES[kind].make;
  // The first values bring code and tables into the heap that do not grow with the rest.
  for (let i = 0; i < count / 10; i++) await put(keyOf(i), JSON.parse(JSON.stringify(make(i))));
  const before = await used();
  for (let i = count / 10; i < count; i++) await put(keyOf(i), JSON.parse(JSON.stringify(make(i))));
  const taken = (await used()) - before;
  // Up to here the cache must not be collected.
  await put(keyOf(0), make(0));
  return Math.ceil(taken / (count * 0.9));
}
