/**
 * A tier, and the adapters over one, as stores for the checks of `cache-machine/testing`. Each process of the checks belongs to one of
 * the simulated hosts: a host is a cache. The environment says which server (`SERVER`, the path of its socket), which caches (`HOSTS`),
 * the `LEASE`, and which store (`KIND`).
 */
import { openCache } from "cache-machine";
import { openTier } from "cache-machine/tier";
import { createClient } from "redis";
import { cacheable, keyvStore, managed } from "./keyv-store.mjs";
import { HITS } from "./limit-store.mjs";
import { incremental, useCache } from "./next-store.mjs";
import { storeOf as storageOf } from "./unstorage-store.mjs";

/** Makes the store over a tier. Some take a namespace. */
export const KINDS = {
  tier: tierStore,
  "Keyv 5": (tier, namespace = "store") => keyvStore(tier, "5", namespace),
  "Keyv 5 plain": (tier, namespace = "store") => keyvStore(tier, "5 plain", namespace),
  "Keyv 6": (tier, namespace = "store") => keyvStore(tier, "6", namespace),
  "Keyv 6 plain": (tier, namespace = "store") => keyvStore(tier, "6 plain", namespace),
  "cache-manager": managed,
  cacheable,
  unstorage: (tier, base = "") => storageOf({ cache: tier, base }),
  next: (tier) => useCache({ cache: tier }),
  "next/incremental": (tier) => incremental({ cache: tier }),
  express: (tier) => limited(tier, HITS.express),
  fastify: (tier) => limited(tier, HITS.fastify),
  flexible: (tier) => limited(tier, HITS.flexible),
};
/** What changes something that another host may have in its memory. */
const WRITES = ["set", "setMany", "delete", "deleteMany", "clear", "invalidateTag"];

export async function connected(path) {
  const client = createClient({ socket: { path } });
  client.on("error", () => {});
  await client.connect();
  return client;
}

export default async (number) => {
  const { SERVER, HOSTS, KIND, LEASE } = process.env;
  const hosts = HOSTS.split(" ");
  const lease = Number(LEASE);
  const cache = openCache(hosts[number % hosts.length], { size: "4mb" });
  const singleFlight = hosts.length > 1 ? "all" : "host";
  const client = await connected(SERVER);
  const tier = openTier(cache, { client, lease, singleFlight });
  // Before that the handlers for Next.js store nothing.
  while (tier.now() === undefined) await new Promise((resolve) => setTimeout(resolve, 5));
  const store = await KINDS[KIND](tier);
  // A connection keeps its process alive.
  store.close = async () => {
    await tier.close();
    client.destroy();
  };
  return hosts.length > 1 ? settled(store, lease) : store;
};

/**
 * Lets each write answer when the bound of staleness has passed since the server has confirmed it. So all that the checks read after a
 * write, on whatever host, has to be this write or a later one.
 */
function settled(store, lease) {
  for (const name of WRITES.filter((each) => store[each] !== undefined)) {
    const write = store[name].bind(store);
    store[name] = async (...args) => {
      const answer = await write(...args);
      const since = performance.now();
      while (performance.now() - since < lease) await new Promise((resolve) => setTimeout(resolve, 5));
      return answer;
    };
  }
  return store;
}

export function tierStore(tier, namespace) {
  const part = namespace === undefined ? tier : tier.namespace(namespace);
  return {
    get: (key) => part.get(key),
    set: (key, value, options) => part.set(key, value, options),
    delete: (key) => part.delete(key),
    has: (key) => part.has(key),
    clear: () => part.clear(),
    getMany: (keys) => part.getMany(keys),
    setMany: (entries) =>
      part.setMany(entries.map(([key, value, ttl]) => [key, value, ttl === undefined ? {} : { ttl }])),
    deleteMany: (keys) => part.deleteMany(keys),
    keys: () => part.keys(),
    invalidateTag: (tag) => part.invalidateTag(tag),
    getOrSet: (key, load, options) => part.getOrSet(key, load, options),
    hit: async (key, limit, window) => (await part.incrementEntry(key, 1, { ttl: window })).value <= limit,
    close: () => tier.close(),
  };
}

function limited(tier, hits) {
  return { get: (key) => tier.get(key), set: (key, value) => tier.set(key, value), hit: hits(tier) };
}
