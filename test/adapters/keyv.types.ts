/** The types of the store with those of Keyv 5 and 6, cache-manager and cacheable: compiled by keyv.test.ts, never run. */

import { type Cache, type Key, openCache } from "cache-machine";
import { createKeyv, KeyvCacheMachine, type KeyvCacheMachineOptions } from "cache-machine/keyv";
import { createCache } from "cache-manager";
import { Cacheable } from "cacheable";
import { Keyv as Keyv5, type KeyvStoreAdapter } from "keyv";
import { Keyv as Keyv6, type KeyvStorageAdapter } from "keyv6";

const cache = openCache("a");
export const forFive: KeyvStoreAdapter = new KeyvCacheMachine(cache);
export const forSix: KeyvStorageAdapter = new KeyvCacheMachine(cache);

const users: Cache<{ name: string }> = openCache("users");
const options: KeyvCacheMachineOptions = { namespace: "users", serialization: false };
export const five: Keyv5 = new Keyv5({ store: new KeyvCacheMachine(users, options) });
export const six: Keyv6 = new Keyv6({ store: new KeyvCacheMachine(users, options) });
five.store = new KeyvCacheMachine(cache);
six.store = new KeyvCacheMachine(openCache<string, Key>("b"));

// With the class, the result is of that class.
export const typedFive: Keyv5 = createKeyv(cache, { Keyv: Keyv5, namespace: "users", ttl: 1000 });
export const typedSix: Keyv6 = createKeyv(cache, { Keyv: Keyv6 });
// Without it, the result fits wherever a Keyv is wanted.
export const installed: Keyv5 = createKeyv(cache);
createCache({ stores: [createKeyv(cache), createKeyv(cache, { Keyv: Keyv5 })] });
new Cacheable({ primary: createKeyv(cache), secondary: createKeyv(cache, { Keyv: Keyv5 }) });

// @ts-expect-error There is no such option.
createKeyv(cache, { prefix: "users" });
// @ts-expect-error There is no such option.
new KeyvCacheMachine(cache, { ttl: 5 });
// @ts-expect-error This is no cache.
new KeyvCacheMachine(new Map());
