/** bentocache with a cache as its L1, or as its only L2, as a store for the checks of `cache-machine/testing`. */
import { BentoCache, bentostore } from "bentocache";
import { openCache } from "cache-machine";
import { cacheMachineDriver, cacheMachineL2Driver } from "cache-machine/bentocache";

/** Each process of the checks has a store over the cache with this name. */
export default () => storeOf(openCache(process.env.NAME), process.env.LAYER);

export function storeOf(cache, layer) {
  const store = bentostore();
  if (layer === "l1") store.useL1Layer(cacheMachineDriver({ cache }));
  else store.useL2Layer(cacheMachineL2Driver({ cache }));
  const bento = new BentoCache({ default: "store", stores: { store } });
  return {
    get: (key) => bento.get({ key }),
    set: (key, value, { ttl = null, tags = [] } = {}) => bento.set({ key, value, ttl, tags }),
    // bentocache does not tell whether there was a value.
    delete: async (key) => void (await bento.delete({ key })),
    has: (key) => bento.has({ key }),
    clear: () => bento.clear(),
    deleteMany: (keys) => bento.deleteMany({ keys }),
    invalidateTag: async (tag) => {
      await bento.deleteByTag({ tags: [tag] });
      // For bentocache, what is stored in the millisecond of an invalidation was there before it.
      const now = Date.now();
      while (Date.now() === now);
    },
    // As docs/adapters/bentocache.md has it.
    async getOrSet(key, load, { ttl = null } = {}) {
      const known = await bento.get({ key, grace: false });
      if (known !== undefined) return known;
      return cache.locks.request(key, () => bento.getOrSet({ key, ttl, factory: load })).catch(unwrapped);
    },
  };
}

/** bentocache wraps the error of a factory. */
function unwrapped(error) {
  throw error.code === "E_FACTORY_ERROR" ? error.cause : error;
}
