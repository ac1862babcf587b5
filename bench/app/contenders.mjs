/**
 * The caches of the application benchmark, each as its users would set it up for four processes. All get the same memory in total: what is
 * in the processes, what they share, and what is in the server.
 *
 * A cache that keeps values in the heap is limited by the number of its values, so {@link heapBytes} measures what one takes there.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { makeItem } from "./items.mjs";

/** Lifetime of everything, in milliseconds: longer than a run. */
const TTL = 600_000;
/** How much of the memory is in the server where there is one; the rest is divided among the processes. */
const SERVER_SHARE = 0.5;
/** How much of the memory this cache shares; the rest is for the near caches of the processes. */
const SHARED_SHARE = 0.75;

/**
 * `open({ memory, processes, bytesOfOne, name, redis })` answers `{ read(key, load) }`, in each process. `memory` is the whole
 * budget in bytes, `bytesOfOne` what a value takes in the heap.
 */
export const CONTENDERS = {
  "lru-cache": {
    label: "lru-cache in each process",
    async open({ memory, processes, bytesOfOne }) {
      const { LRUCache } = await import("lru-cache");
      const cache = new LRUCache({
        max: entries(memory / processes, bytesOfOne),
        ttl: TTL,
        fetchMethod: (_, __, { context }) => context(),
      });
      return { read: (key, load) => cache.fetch(key, { context: load }) };
    },
  },
  cacheable: {
    label: "cacheable: memory in each process, Redis behind",
    server: SERVER_SHARE,
    async open({ memory, processes, bytesOfOne, redis }) {
      const { Cacheable, createKeyv } = await import("cacheable");
      const { default: KeyvRedis } = await import("@keyv/redis");
      const { Keyv } = await import("keyv");
      const lruSize = entries((memory * (1 - SERVER_SHARE)) / processes, bytesOfOne);
      const secondary = new Keyv({ store: new KeyvRedis({ socket: { path: redis } }) });
      const cache = new Cacheable({ primary: createKeyv({ lruSize, useClone: false }), secondary, ttl: TTL });
      return { read: (key, load) => cache.getOrSet(key, load) };
    },
  },
  bentocache: {
    label: "bentocache: L1 in each process, L2 and bus over Redis",
    server: SERVER_SHARE,
    async open({ memory, processes, bytesOfOne, redis }) {
      const { BentoCache, bentostore } = await import("bentocache");
      const { memoryDriver } = await import("bentocache/drivers/memory");
      const { redisDriver, redisBusDriver } = await import("bentocache/drivers/redis");
      const maxItems = entries((memory * (1 - SERVER_SHARE)) / processes, bytesOfOne);
      const connection = { path: redis };
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
      return { read: (key, load) => bento.getOrSet({ key, factory: load }) };
    },
  },
  "cache-machine": {
    label: "cache-machine: one cache for all processes",
    ours: true,
    async open({ memory, processes, name }) {
      const { openCache } = await import("../../dist/index.js");
      const size = Math.floor(memory * SHARED_SHARE);
      const nearCacheSize = Math.floor((memory * (1 - SHARED_SHARE)) / processes);
      const cache = openCache(name, { size, nearCacheSize });
      return { read: (key, load) => cache.getOrSet(key, load, { ttl: TTL }) };
    },
  },
};

function entries(memory, bytesOfOne) {
  return Math.max(1, Math.floor(memory / bytesOfOne));
}

/** Bytes of heap that a cache in a process takes for one value, with its key and its place. Needs --expose-gc. */
export async function heapBytes(contender, count = 20_000) {
  const used = async () => {
    for (let i = 0; i < 4; i++) {
      globalThis.gc();
      await sleep(10);
    }
    return process.memoryUsage().heapUsed;
  };
  const stores = {
    "lru-cache": async () => {
      const { LRUCache } = await import("lru-cache");
      const cache = new LRUCache({ max: count, ttl: TTL });
      return { put: (key, value) => cache.set(key, value) };
    },
    cacheable: async () => {
      const { Cacheable, createKeyv } = await import("cacheable");
      const cache = new Cacheable({ primary: createKeyv({ lruSize: count, useClone: false }), ttl: TTL });
      return { put: (key, value) => cache.set(key, value) };
    },
    bentocache: async () => {
      const { BentoCache, bentostore } = await import("bentocache");
      const { memoryDriver } = await import("bentocache/drivers/memory");
      const main = bentostore().useL1Layer(memoryDriver({ maxItems: count }));
      const cache = new BentoCache({ default: "main", ttl: TTL, stores: { main } });
      return { put: (key, value) => cache.set({ key, value }) };
    },
  };
  if (!(contender in stores)) return 0;
  const { put } = await stores[contender]();
  // The first values bring code and tables into the heap that do not grow with the rest.
  for (let i = 0; i < count / 10; i++) await put(`item:${i}`, JSON.parse(makeItem(i)));
  const before = await used();
  for (let i = count / 10; i < count; i++) await put(`item:${i}`, JSON.parse(makeItem(i)));
  const taken = (await used()) - before;
  // Up to here the cache must not be collected.
  await put("item:0", JSON.parse(makeItem(0)));
  return Math.ceil(taken / (count * 0.9));
}
