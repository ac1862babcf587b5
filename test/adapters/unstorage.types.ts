/** Compiled by unstorage.test.ts: the driver fits the types of unstorage without a cast. */

import { type Cache, createCache, type Key } from "cache-machine";
import driver, {
  type CacheMachineDriver,
  type CacheMachineDriverOptions,
  cacheMachineDriver,
} from "cache-machine/unstorage";
import { createStorage, type Driver, defineDriver, type Storage } from "unstorage";

const options: CacheMachineDriverOptions = { name: "app", size: "64mb", base: "items", ttl: 60 };
export const ours: CacheMachineDriver = driver(options);
export const theirs: Driver<CacheMachineDriverOptions, Cache> = cacheMachineDriver({ cache: createCache() });
export const factory: (options: CacheMachineDriverOptions) => Driver = defineDriver(driver);
export const storage: Storage<string> = createStorage<string>({ driver: driver() });
createStorage().mount("cache", driver({ name: "app", driver: "cache-machine/unstorage" }));

// Caches with other types of values and keys, and namespaces.
declare const numbers: Cache<number>;
declare const bytes: Cache<{ a: 1 }, Key>;
driver({ cache: numbers });
driver({ cache: bytes.namespace("items") });

// @ts-expect-error -- a misspelt option
driver({ nam: "app" });
// @ts-expect-error -- no cache
driver({ cache: new Map() });
