/** The types of the kit, as users write them: compiled by kit.test.ts, and not run. */

import nodeTest from "node:test";
import { attachCache, type Cache, type CacheHandle, type CacheOptions } from "cache-machine";
import {
  acrossProcesses,
  type Check,
  type ConformancePart,
  conformance,
  type Store,
  type StoreSubject,
  storeChecks,
} from "cache-machine/testing";
import { test as vitestTest } from "vitest";

/** A store of texts, whose methods have narrower types and return more than a check asks for. */
class TextStore {
  async get(_key: string): Promise<string | undefined> {
    return undefined;
  }
  async set(_key: string, _value: string, _options?: { ttl?: number }): Promise<this> {
    return this;
  }
  delete(_key: string): boolean {
    return true;
  }
  async *keys(): AsyncGenerator<string> {}
  async getMany(_keys: readonly string[]): Promise<(string | undefined)[]> {
    return [];
  }
  getOrSet<T>(_key: string, load: () => Promise<T>): Promise<T> {
    return load();
  }
}

const subject: StoreSubject = { open: async () => new TextStore(), values: "text", members: ["delete", "getOrSet"] };
const checks: Check[] = [
  ...storeChecks(subject),
  ...storeChecks({ open: ({ namespace = "" } = {}) => ({ get: () => namespace, set() {} }), namespaces: true }),
  ...acrossProcesses(new URL("store.mjs", import.meta.url), { env: { NAME: "a", GONE: undefined }, values: "text" }),
];
for (const { name, run } of checks) {
  nodeTest(name, run);
  vitestTest(name, run);
}

/** A cache itself is a store, if `get`, `set` and such are all that is asked for. */
declare const cache: Cache;
export const store: Store = {
  get: (key) => cache.get(key),
  set: (key, value, options) => cache.set(key, value, options),
  keys: () => cache.keys(),
  getOrSet: (key, load, options) => cache.getOrSet(key, load, options),
};

declare const handle: CacheHandle;
const parts: ConformancePart[] = ["locks"];
const open = (options?: CacheOptions): Cache => attachCache(handle, options);
conformance({ reach: "threads", largest: 1_000, open }, { without: parts, options: { nearCache: 0 } });

// @ts-expect-error - the part has another name
conformance({ reach: "threads", largest: 1_000, open }, { only: ["lock"] });
// @ts-expect-error - a store has `get` and `set`
storeChecks({ open: () => ({ get: () => 1 }) });
// @ts-expect-error - a member that no store has
storeChecks({ open: () => new TextStore(), members: ["deleteAll"] });
