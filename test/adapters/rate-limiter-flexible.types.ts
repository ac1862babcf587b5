/** Compiled by the test of the adapter: the limiter has the types of rate-limiter-flexible's own, without a cast. */

import { type Cache, createCache, type Key } from "cache-machine";
import { createRateLimiter } from "cache-machine/rate-limiter-flexible";
import {
  BurstyRateLimiter,
  type RateLimiterAbstract,
  RateLimiterMemcache,
  RateLimiterMemory,
  RateLimiterQueue,
  type RateLimiterRes,
  type RateLimiterStoreAbstract,
  RateLimiterUnion,
} from "rate-limiter-flexible";

const RateLimiterCacheMachine = createRateLimiter(RateLimiterMemcache);
const limiter = new RateLimiterCacheMachine({
  storeClient: createCache(),
  points: 5,
  duration: 1,
  keyPrefix: "login",
  blockDuration: 60,
  inMemoryBlockOnConsumed: 6,
  insuranceLimiter: new RateLimiterMemory({ points: 1, duration: 1 }),
});
export const result: RateLimiterRes = await limiter.consume("a", 2, { customDuration: 5 });
export const one: RateLimiterAbstract = limiter;
export const store: RateLimiterStoreAbstract = limiter;
new RateLimiterUnion(limiter, limiter);
new RateLimiterQueue(limiter);
new BurstyRateLimiter(limiter, limiter);

// Caches with other types of values and keys, and namespaces.
declare const numbers: Cache<number>;
declare const bytes: Cache<{ a: 1 }, Key>;
new RateLimiterCacheMachine({ storeClient: numbers, points: 1, duration: 1 });
new RateLimiterCacheMachine({ storeClient: bytes.namespace("limits"), points: 1, duration: 1 });

// @ts-expect-error -- no cache
new RateLimiterCacheMachine({ storeClient: new Map(), points: 1, duration: 1 });
// @ts-expect-error -- an option of the wrong type
new RateLimiterCacheMachine({ storeClient: createCache(), points: "1", duration: 1 });
// @ts-expect-error -- no class
createRateLimiter({});
