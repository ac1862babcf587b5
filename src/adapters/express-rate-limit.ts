/**
 * A store for [express-rate-limit](https://www.npmjs.com/package/express-rate-limit) 7 and 8: all processes of the machine count
 * the requests of a client together.
 *
 * @packageDocumentation
 */

import type { Cache } from "../index.ts";
import { checkNames, checkNamespace, checkStore } from "./checks.ts";
import { storableKey } from "./keys.ts";
import { type Awaitable, after, rescued } from "./promises.ts";
import type { Answer, CacheOrTier } from "./store.ts";

/** Options of {@link CacheMachineStore}. */
export interface CacheMachineStoreOptions {
  /**
   * What tells the counts of this limiter from those of other limiters; `"rl:"` by default. Each limiter needs one of its own. It
   * is the name of a namespace of the cache or of the tier.
   */
  prefix?: string | undefined;
}

/** The requests of one client in the current window. */
export interface ClientHits {
  totalHits: number;
  /** When the window ends; `undefined` for a window without an end. */
  resetTime: Date | undefined;
}

/** The window of express-rate-limit, in milliseconds, unless `windowMs` says otherwise. */
const WINDOW_MS = 60_000;

/**
 * Counts requests in a cache, for the option `store` of `rateLimit`. Over a tier all machines count together: each request is then a
 * round trip to the server.
 *
 * A request is counted in one step, so of requests that come to several processes at the same moment exactly as many are allowed
 * as the limit says. The store does not close the cache.
 *
 * Over a cache all methods answer at once, and throw `CacheError` `ERR_BUSY` when another participant has been in the way for 50 ms,
 * and `ERR_CLOSED` when the cache was closed. Over a tier they answer by promises, which are rejected with `ERR_UNREACHABLE` when the
 * server is away. express-rate-limit passes these errors to Express, or lets the request through with `passOnStoreError: true`.
 */
export class CacheMachineStore<S extends CacheOrTier = Cache<any, any>> {
  /** Tells express-rate-limit that other stores with the same prefix count together with this one. */
  readonly localKeys: boolean = false;
  /** The option `prefix`. */
  readonly prefix: string;
  readonly #hits: CacheOrTier;
  #windowMs = WINDOW_MS;

  /**
   * @param cache a cache or a tier; a cache should be used for limits only
   * @throws {TypeError} naming the argument that is wrong; {RangeError} for a prefix that is empty or has more than 255 bytes.
   */
  constructor(cache: S, options: CacheMachineStoreOptions = {}) {
    checkStore(cache);
    checkNames(options, ["prefix"]);
    const { prefix = "rl:" } = options;
    checkNamespace(prefix, "options.prefix");
    this.prefix = prefix;
    this.#hits = cache.namespace(prefix);
  }

  /**
   * Takes over the window of the limiter. express-rate-limit calls it.
   *
   * @throws {TypeError} when `windowMs` is not a number.
   */
  init(options: { windowMs: number }): void {
    const { windowMs } = options;
    if (typeof windowMs !== "number" || Number.isNaN(windowMs)) {
      throw new TypeError("windowMs: must be a number of milliseconds");
    }
    this.#windowMs = windowMs;
  }

  /** Returns the hits of a client; `undefined` when it has none in the current window. */
  get(key: string): Answer<S, ClientHits | undefined> {
    return after(
      this.#hits.getEntry(storableKey(key)),
      (entry): ClientHits | undefined => entry && clientHits(entry.value, entry.expiresAt),
    ) as Answer<S, ClientHits | undefined>;
  }

  /** Counts a request. The first one begins the window of its client. */
  increment(key: string): Answer<S, ClientHits> {
    return this.#increment(key) as Answer<S, ClientHits>;
  }

  #increment(key: string): Awaitable<ClientHits> {
    // Such a window is over at once.
    if (this.#windowMs <= 0) return clientHits(1, Date.now() + this.#windowMs);
    const counted = this.#hits.incrementEntry(storableKey(key), 1, { ttl: this.#windowMs });
    return after(counted, ({ value, expiresAt }) => clientHits(value, expiresAt));
  }

  /** Takes a request back, for `skipFailedRequests` and `skipSuccessfulRequests`. The hits never fall below 0. */
  decrement(key: string): Answer<S, void> {
    const takeBack = (): Awaitable<unknown> => this.#hits.incrementEntry(storableKey(key), -1, { min: 0 });
    const failed = (error: unknown): void => {
      // There was no hit to take back.
      if (!(error instanceof RangeError)) throw error;
    };
    return after(rescued(takeBack, failed), () => undefined) as Answer<S, void>;
  }

  /** Forgets the hits of a client, in all processes. */
  resetKey(key: string): Answer<S, void> {
    return after(this.#hits.delete(storableKey(key)), () => undefined) as Answer<S, void>;
  }

  /** Forgets the hits of all clients of this limiter, in all processes and in one step. Other prefixes keep theirs. */
  resetAll(): Answer<S, void> {
    return this.#hits.clear() as Answer<S, void>;
  }

  /**
   * Does nothing, because the store has no timer and the cache is not its own. Other processes go on counting, and so does this
   * store if it is used again. It is there for programs that call it with other stores.
   */
  shutdown(): void {}
}

function clientHits(totalHits: number, end: number): ClientHits {
  const resetTime = new Date(end);
  // A `Date` reaches up to the year 275760.
  return { totalHits, resetTime: Number.isNaN(resetTime.getTime()) ? undefined : resetTime };
}
