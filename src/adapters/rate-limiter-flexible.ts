/**
 * A limiter for [rate-limiter-flexible](https://www.npmjs.com/package/rate-limiter-flexible) 7 to 11: all processes of the machine
 * consume the points of a key together.
 *
 * @packageDocumentation
 */

import { checkStore } from "./checks.ts";
import { storableKey } from "./keys.ts";
import { after } from "./promises.ts";
import type { CacheOrTier } from "./store.ts";

/** The options of a store limiter, with a cache or a tier as `storeClient`. */
export type CacheLimiterOptions<O> = Omit<O, "storeClient"> & {
  /** A cache that is used for limits only, or a tier. The limiter does not close it. */
  storeClient: CacheOrTier;
};

/** What rate-limiter-flexible is told about a key. */
interface Consumed {
  consumedPoints: number;
  /** Milliseconds until the points are free again; -1 when they never are. */
  msBeforeNext: number;
}

/** The part of a store limiter that is used here. */
interface StoreLimiter {
  _getRateLimiterRes(key: string, changedPoints: number, result: Consumed): Consumed;
}

/**
 * Returns a class of limiters that keep their points in a cache. It has all options and methods of rate-limiter-flexible's store
 * limiters. Over a tier all machines consume together: each call is then a round trip to the server.
 *
 * The class is made from `RateLimiterMemcache`, whose access to memcached it replaces: a key is one entry instead of two, a
 * duration need not be whole seconds, and consuming is one step. So of calls at the same moment, in all processes, exactly as many
 * are resolved as there are points.
 *
 * Errors of the cache reject the promises, or go to the `insuranceLimiter`: `CacheError` `ERR_BUSY` when another participant has been
 * in the way for 50 ms, `ERR_CLOSED` when the cache was closed; of a tier `ERR_UNREACHABLE` when its server is away.
 *
 * @param RateLimiterMemcache the class of this name of rate-limiter-flexible
 * @throws {TypeError} when it is another class. The constructor of the result throws one when `storeClient` is neither a cache
 * nor a tier.
 */
export function createRateLimiter<O extends object, L extends object>(
  RateLimiterMemcache: new (options: O) => L,
): new (
  options: CacheLimiterOptions<O>,
) => L {
  checkBase(RateLimiterMemcache);
  const Base = RateLimiterMemcache as unknown as new (options: object) => object;

  class RateLimiterCacheMachine extends Base {
    readonly #points: CacheOrTier;

    constructor(options: CacheLimiterOptions<O>) {
      checkStore(options?.storeClient, "storeClient");
      super(options);
      this.#points = options.storeClient;
    }

    async _upsert(key: string, points: number | string, milliseconds: number, replace = false): Promise<Consumed> {
      const by = wholePoints(points);
      const ttl = milliseconds > 0 ? milliseconds : Infinity;
      if (!replace) {
        const counted = this.#points.incrementEntry(storableKey(key), by, { ttl });
        return after(counted, ({ value, expiresAt }) => consumed(value, expiresAt));
      }
      return after(this.#points.set(storableKey(key), by, { ttl }), () => consumed(by, Date.now() + ttl));
    }

    async _get(key: string): Promise<Consumed | null> {
      return after(this.#points.getEntry(storableKey(key)), (entry) =>
        entry ? consumed(entry.value, entry.expiresAt) : null,
      );
    }

    async _delete(key: string): Promise<boolean> {
      return this.#points.delete(storableKey(key));
    }
  }
  return RateLimiterCacheMachine as unknown as new (
    options: CacheLimiterOptions<O>,
  ) => L;
}

/** Checks that a class makes its answers from results such as those of this file, as only `RateLimiterMemcache` does. */
function checkBase(Base: { readonly prototype: object }): void {
  const tried: Consumed = { consumedPoints: 3, msBeforeNext: 7 };
  try {
    const { _getRateLimiterRes } = Base.prototype as StoreLimiter;
    const { consumedPoints, msBeforeNext } = _getRateLimiterRes.call({ points: 5 } as never, "", 1, tried);
    if (consumedPoints === tried.consumedPoints && msBeforeNext === tried.msBeforeNext) return;
  } catch {
    // Not even a class of limiters.
  }
  throw new TypeError("RateLimiterMemcache: must be the class of this name of rate-limiter-flexible");
}

function wholePoints(points: number | string): number {
  const number = typeof points === "string" && /^\d+$/.test(points) ? Number(points) : points;
  if (typeof number !== "number" || !Number.isSafeInteger(number)) {
    throw new TypeError(`points: must be a whole number, not ${String(points)}`);
  }
  return number;
}

function consumed(consumedPoints: number, expiresAt: number): Consumed {
  return { consumedPoints, msBeforeNext: expiresAt === Infinity ? -1 : Math.max(expiresAt - Date.now(), 0) };
}
