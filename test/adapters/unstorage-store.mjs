/** A storage of unstorage over the driver, as a store for the checks of `cache-machine/testing`. */
import driver from "cache-machine/unstorage";
import { createStorage } from "unstorage";

/** Each process of the checks has a storage over the cache with this name. */
export default () => storeOf({ name: process.env.NAME });

export function storeOf(options) {
  const storage = createStorage({ driver: driver(options) });
  return {
    get: (key) => storage.getItem(key),
    set: (key, value, { ttl } = {}) => storage.setItem(key, value, ttl === undefined ? {} : { ttl: ttl / 1000 }),
    // unstorage does not tell whether there was an item.
    delete: (key) => storage.removeItem(key),
    has: (key) => storage.hasItem(key),
    clear: () => storage.clear(),
    getMany: async (keys) => (await storage.getItems(keys)).map(({ value }) => value),
    setMany: (entries) =>
      storage.setItems(
        entries.map(([key, value, ttl]) => ({ key, value, options: ttl === undefined ? {} : { ttl: ttl / 1000 } })),
      ),
    keys: () => storage.getKeys(),
    close: () => storage.dispose(),
  };
}
