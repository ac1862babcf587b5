/** Compiled by the test of the adapter: the store fits the types of express-rate-limit without a cast. */

import { type Cache, createCache, type Key } from "cache-machine";
import { CacheMachineStore, type CacheMachineStoreOptions, type ClientHits } from "cache-machine/express-rate-limit";
import { type ClientRateLimitInfo, rateLimit, type Store } from "express-rate-limit";

const options: CacheMachineStoreOptions = { prefix: "login:" };
const store: Store = new CacheMachineStore(createCache(), options);
rateLimit({ limit: 10, windowMs: 1000, store });
rateLimit({ store: new CacheMachineStore(createCache()) });
export const info: ClientRateLimitInfo = new CacheMachineStore(createCache()).increment("a");
export const hits: ClientHits | undefined = new CacheMachineStore(createCache()).get("a");

// Caches with other types of values and keys, and namespaces.
declare const numbers: Cache<number>;
declare const bytes: Cache<{ a: 1 }, Key>;
new CacheMachineStore(numbers);
new CacheMachineStore(bytes.namespace("limits"));

// @ts-expect-error -- a misspelt option
new CacheMachineStore(createCache(), { prefx: "a" });
// @ts-expect-error -- no cache
new CacheMachineStore(new Map());
