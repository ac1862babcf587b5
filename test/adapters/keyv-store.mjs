/**
 * Keyv over a cache as a store for the checks of `cache-machine/testing`, and what stands on Keyv: cache-manager and cacheable. Each
 * process of the checks has a store over the cache with this name.
 */
import { openCache } from "cache-machine";
import { createKeyv, KeyvCacheMachine } from "cache-machine/keyv";

export default (number) => {
  const kinds = process.env.KIND.split(" and ");
  return storeOf(openCache(process.env.NAME), kinds[number % kinds.length]);
};

/** The version of Keyv and the setting of its serialization, or the program that stands on Keyv. */
export const KINDS = ["5", "5 plain", "6", "6 plain", "cache-manager", "cacheable"];

export function storeOf(cache, kind, namespace = "store") {
  if (kind === "cache-manager") return managed(cache, namespace);
  if (kind === "cacheable") return cacheable(cache, namespace);
  return keyvStore(cache, kind, namespace);
}

/** The class Keyv of the version with which `kind` begins. */
export async function classOf(kind) {
  return (await import(kind.startsWith("6") ? "keyv6" : "keyv")).Keyv;
}

export async function keyvStore(cache, kind, namespace) {
  const Keyv = await classOf(kind);
  const plain = kind.endsWith("plain");
  const keyv = plain
    ? createKeyv(cache, { Keyv, namespace })
    : new Keyv({ store: new KeyvCacheMachine(cache), namespace });
  const store = {
    get: (key) => keyv.get(key),
    set: (key, value, { ttl } = {}) => keyv.set(key, value, ttl),
    delete: (key) => keyv.delete(key),
    has: (key) => keyv.has(key),
    clear: () => keyv.clear(),
    getMany: (keys) => keyv.getMany(keys),
    setMany: (entries) => keyv.setMany(entries.map(([key, value, ttl]) => ({ key, value, ttl }))),
    deleteMany: (keys) => keyv.deleteMany(keys),
    async keys() {
      const keys = [];
      for await (const [key] of keyv.iterator()) keys.push(key);
      return keys;
    },
  };
  if (plain) {
    const part = cache.namespace(namespace);
    store.getOrSet = (key, load, options) => part.getOrSet(key, load, options);
  }
  return store;
}

/** As docs/recipes.md has it. */
export async function managed(cache, namespace) {
  const { createCache } = await import("cache-manager");
  const manager = createCache({ stores: [createKeyv(cache, { namespace })] });
  const part = cache.namespace(namespace);
  return {
    get: (key) => manager.get(key),
    set: (key, value, { ttl } = {}) => manager.set(key, value, ttl),
    // It always answers with `true`.
    delete: async (key) => void (await manager.del(key)),
    clear: () => manager.clear(),
    getMany: (keys) => manager.mget(keys),
    setMany: (entries) => manager.mset(entries.map(([key, value, ttl]) => ({ key, value, ttl }))),
    deleteMany: (keys) => manager.mdel(keys),
    getOrSet: (key, load, { ttl } = {}) => manager.wrap(key, () => part.getOrSet(key, load, { ttl }), ttl),
  };
}

/** As docs/recipes.md has it. */
export async function cacheable(cache, namespace) {
  const { Cacheable } = await import("cacheable");
  const cacheable = new Cacheable({ primary: createKeyv(cache, { namespace }) });
  const part = cache.namespace(namespace);
  return {
    get: (key) => cacheable.get(key),
    set: (key, value, { ttl } = {}) => cacheable.set(key, value, ttl),
    delete: (key) => cacheable.delete(key),
    has: (key) => cacheable.has(key),
    clear: () => cacheable.clear(),
    getMany: (keys) => cacheable.getMany(keys),
    setMany: (entries) => cacheable.setMany(entries.map(([key, value, ttl]) => ({ key, value, ttl }))),
    deleteMany: (keys) => cacheable.deleteMany(keys),
    getOrSet: (key, load, { ttl } = {}) =>
      cacheable.getOrSet(key, () => part.getOrSet(key, load, { ttl }), { ttl, throwErrors: true }),
  };
}
