/**
 * What the adapters stand on: a cache, which answers at once, or a tier (`cache-machine/tier`), which answers by promises. An adapter
 * has one body for both. With a cache the body runs in the call itself and makes no promise: what is awaited is awaited by
 * {@link after} and {@link run}, which go on at once with what is no promise.
 */

import type { Cache } from "../index.ts";

/** What is there at once, or comes by a promise. */
export type Awaitable<T> = T | Promise<T>;

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
 * lives on its server; it rejects when the server cannot be reached.
 */
export function tryStore(store: CacheOrTier, key: string, value: unknown, options?: StoredFor): Awaitable<boolean> {
  const cache = asCache(store);
  if (cache !== undefined) return cache.trySet(key, value, options as { ttl?: number; tags?: string[] });
  return after(store.set(key, value, options), () => true);
}

// ---- What may be a promise

export function isPromise(value: unknown): value is Promise<any> {
  // Not `instanceof`: a promise may come from another realm, such as that of a test runner.
  return typeof (value as Promise<unknown> | undefined)?.then === "function";
}

/** Goes on with a value: at once, or when its promise is fulfilled. */
export function after<T, R>(value: Awaitable<T>, next: (value: T) => Awaitable<R>): Awaitable<R> {
  return isPromise(value) ? value.then(next) : next(value);
}

/** Goes on with an error, whether `call` throws it or its promise is rejected with it. */
export function rescued<T>(call: () => Awaitable<T>, next: (error: unknown) => Awaitable<T>): Awaitable<T> {
  let result: Awaitable<T>;
  try {
    result = call();
  } catch (error) {
    return next(error);
  }
  return isPromise(result) ? result.catch(next) : result;
}

/** All values: at once if none of them is a promise. */
export function all<T>(values: readonly Awaitable<T>[]): Awaitable<T[]> {
  return values.some(isPromise) ? Promise.all(values) : (values as T[]);
}

/** All that an iterable has: at once if it answers at once. */
export function listed<T>(values: Iterable<T> | AsyncIterable<T>): Awaitable<T[]> {
  return Symbol.asyncIterator in values ? listedLater(values) : [...values];
}

async function listedLater<T>(values: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const value of values) list.push(value);
  return list;
}

/** The steps of {@link run}. */
export type Steps<T> = Generator<unknown, T, any>;

/**
 * Runs steps that `yield` what may be a promise, and get its value back: at once up to the first promise. It is an `async` function
 * whose `await` costs nothing where there is nothing to wait for.
 */
export function run<T>(steps: Steps<T>): Awaitable<T> {
  const goOn = (step: () => IteratorResult<unknown, T>): Awaitable<T> => {
    for (let result = step(); ; ) {
      if (result.done) return result.value;
      const { value } = result;
      if (isPromise(value)) {
        return value.then(
          (found) => goOn(() => steps.next(found)),
          (error) => goOn(() => steps.throw(error)),
        );
      }
      result = steps.next(value);
    }
  };
  return goOn(() => steps.next());
}
