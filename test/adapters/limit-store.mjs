/** One of the adapters for rate limits, as a store for the checks of `cache-machine/testing`. */

import { openCache } from "cache-machine";
import { CacheMachineStore } from "cache-machine/express-rate-limit";
import { createStore } from "cache-machine/fastify-rate-limit";
import { createRateLimiter } from "cache-machine/rate-limiter-flexible";
import { RateLimiterMemcache } from "rate-limiter-flexible";

const RateLimiterCacheMachine = createRateLimiter(RateLimiterMemcache);
/** A request of a limiter over a cache, or over a tier. */
export const HITS = {
  express: (cache) => async (key, limit, window) => {
    const store = new CacheMachineStore(cache);
    store.init({ windowMs: window });
    return (await store.increment(key)).totalHits <= limit;
  },
  fastify: (cache) => {
    const store = new (createStore(cache))({});
    return (key, limit, window) =>
      new Promise((resolve, reject) => {
        const answer = (error, result) => (error === null ? resolve(result.current <= limit) : reject(error));
        store.incr(key, answer, window, limit);
      });
  },
  flexible: (cache) => async (key, limit, window) => {
    const limiter = new RateLimiterCacheMachine({ storeClient: cache, points: limit, duration: window / 1000 });
    try {
      await limiter.consume(key);
      return true;
    } catch (refused) {
      if (refused instanceof Error) throw refused;
      return false;
    }
  },
};

/** Each process of the checks has a store over the cache with this name. */
export default () => {
  const cache = openCache(process.env.NAME);
  const { get, set } = cache;
  return { get: get.bind(cache), set: set.bind(cache), hit: HITS[process.env.ADAPTER](cache) };
};
