/**
 * What the adapters stand on: a cache, which answers at once, or a tier (`cache-machine/tier`), which answers by promises. An adapter
 * has one body for both: see promises.ts.
 */

import { type Cache, CacheError } from "../index.ts";
import { type Awaitable, after, rescued } from "./promises.ts";

/** Options with which an adapter stores a value: those that a cache and a tier have in common. */
export interface StoredFor {
  /** Milliseconds after which the entry expires; `Infinity` for never. */
  ttl?: number | undefined;
  tags?: readonly string[] | undefined;
}

/**
 * A cache, as `openCache`, `createCache` and `attachCache` return it, or a tier, as `openTier` returns it. It has the members that the
 * adapters use. The members of a cache answer at once, those of a tier by promises.
 */
export interface CacheOrTier {
  get(key: any): any;
  getMany(keys: Iterable<any>): Awaitable<any[]>;
  getEntry(key: any): Awaitable<{ value: any; expiresAt: number } | undefined>;
  has(key: any): Awaitable<boolean>;
  ttl(key: any): Awaitable<number | undefined>;
  set(key: any, value: any, options?: any): unknown;
  add(key: any, value: any, options?: any): Awaitable<boolean>;
  touch(key: any, ttl: number): Awaitable<boolean>;
  delete(key: any): Awaitable<boolean>;
  deleteMany(keys: Iterable<any>): Awaitable<number>;
  clear(): Awaitable<void>;
  keys(options?: any): Iterable<any> | AsyncIterable<any>;
  incrementEntry(key: any, by?: number, options?: any): Awaitable<{ value: number; expiresAt: number }>;
  invalidateTag(...tags: string[]): Awaitable<void>;
  tagInvalidatedAt(...tags: string[]): Awaitable<number>;
  namespace(name: string): CacheOrTier;
}

/** What a method answers that returns a `T` over a cache: over a tier a promise of it, and either where nobody knows which it is. */
export type Answer<S extends CacheOrTier, T> = [ReturnType<S["getEntry"]>] extends [Promise<any>]
  ? Promise<T>
  : [Extract<ReturnType<S["getEntry"]>, Promise<any>>] extends [never]
    ? T
    : Awaitable<T>;

/** The clock of a tier, which is that of its server. A cache has none, because its clock is that of the machine. */
interface Clock {
  /** Milliseconds of the server's clock, never ahead of it; `undefined` as long as the host has not heard from the server. */
  now(): number | undefined;
}

/** Returns the store as a cache; `undefined` for a tier, which is closed by a promise. */
export function asCache(store: CacheOrTier): Cache<any, any> | undefined {
  return Symbol.asyncDispose in store ? undefined : (store as Cache<any, any>);
}

/** The time by which the store counts when tags were invalidated; `undefined` when a tier does not know it yet. */
export function timeOf(store: CacheOrTier): number | undefined {
  return asCache(store) === undefined ? (store as CacheOrTier & Clock).now() : Date.now();
}

/**
 * Stores a value if it can be stored now: `trySet` of a cache. A tier takes what a cache of the host is too small for, because the value
 * lives on its server. Where that does not take it either, the old value is removed, as by `trySet`. When the server is away, the promise
 * is rejected.
 */
export function tryStore(store: CacheOrTier, key: string, value: unknown, options?: StoredFor): Awaitable<boolean> {
  const cache = asCache(store);
  if (cache !== undefined) return cache.trySet(key, value, options as { ttl?: number; tags?: string[] });
  const stored = (): Awaitable<boolean> => after(store.set(key, value, options), () => true);
  return rescued(stored, (error) => {
    if (!(error instanceof CacheError && error.code === "ERR_TOO_LARGE")) throw error;
    return after(store.delete(key), () => false);
  });
}
