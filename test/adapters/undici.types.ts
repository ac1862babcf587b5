/** Compiled by undici.test.ts: the store fits the types of undici 7 and 8 without a cast. */

import { type Cache, createCache, type Key } from "cache-machine";
import {
  type CacheControlDirectives,
  CacheMachineStore,
  type CacheMachineStoreOptions,
  type RequestKey,
  type ResponseValue,
  type StoredResponse,
} from "cache-machine/undici";
import { Agent as Agent7, interceptors as interceptors7 } from "undici";
import type Types7 from "undici/types/cache-interceptor.d.ts";
import { Agent as Agent8, interceptors as interceptors8 } from "undici8";
import type Types8 from "undici8/types/cache-interceptor.d.ts";

const options: CacheMachineStoreOptions = { maxEntrySize: 1_000_000 };
const store = new CacheMachineStore(createCache(), options);
new Agent7().compose(interceptors7.cache({ store, methods: ["GET", "HEAD"] }));
new Agent8().compose(interceptors8.cache({ store, type: "private" }));

export const seven: Types7.default.CacheStore = store;
export const eight: Types8.default.CacheStore = store;
declare const own: {
  key: RequestKey;
  value: ResponseValue;
  result: StoredResponse;
  directives: CacheControlDirectives;
};
export const key: Types8.default.CacheKey = own.key;
export const value: Types8.default.CacheValue = own.value;
export const result: Types8.default.GetResult = own.result;
export const directives: Types8.default.CacheControlDirectives = own.directives;
declare const theirs: { key: Types8.default.CacheKey; value: Types8.default.CacheValue };
store.createWriteStream(theirs.key, theirs.value)?.end();
store.get(theirs.key)?.body[0]?.toString();

// Caches with other types of values and keys, and namespaces.
declare const numbers: Cache<number>;
declare const bytes: Cache<{ a: 1 }, Key>;
new CacheMachineStore(numbers);
new CacheMachineStore(bytes.namespace("api"));

// @ts-expect-error -- an option of another store
new CacheMachineStore(createCache(), { maxCount: 5 });
// @ts-expect-error -- no cache
new CacheMachineStore(new Map());
