/**
 * A store for [@fastify/rate-limit](https://www.npmjs.com/package/@fastify/rate-limit) 10 and 11: all processes of the machine count
 * the requests of a client together.
 *
 * @packageDocumentation
 */

import { checkNames, checkNamespace, checkStore } from "./checks.ts";
import { storableKey } from "./keys.ts";
import { type Awaitable, after, isPromise } from "./promises.ts";
import { asCache, type CacheOrTier } from "./store.ts";

/** Options of {@link createStore}. */
export interface StoreOptions {
  /**
   * What tells the counts of this registration of the plugin from those of others; `"fastify-rate-limit-"` by default, as for its
   * Redis store. It is the name of a namespace of the cache or of the tier.
   */
  nameSpace?: string | undefined;
}

/** What the plugin is told about a client. */
export interface RequestCount {
  /** Requests in the current window, with this one. */
  current: number;
  /** Milliseconds until the window ends. */
  ttl: number;
}

/** Is called exactly once: over a cache before the call that it was given to returns, over a tier later. */
export type CountCallback = (error: Error | null, result?: RequestCount) => void;

/** A store, as the plugin makes one for itself and one for each route that has options of its own. */
export interface RateLimitStore {
  /**
   * Counts a request. The plugin gives all four arguments; the types of its version 10 know two of them.
   *
   * @param timeWindow milliseconds from the first request of a client until its window ends
   * @param max how many requests the window has room for; it matters to `continueExceeding` and `exponentialBackoff` only
   */
  incr(key: string, callback: CountCallback, timeWindow?: number, max?: number): void;
  /** Tells the count without counting, for `{ increment: false }`. A client without requests has the count 0 and the ttl 0. */
  read(key: string, callback: CountCallback, timeWindow?: number, max?: number): void;
  /** Returns a store for a route, with counts of its own. */
  child(routeOptions: object): RateLimitStore;
}

/** What the plugin takes for its option `store`. */
export type RateLimitStoreClass = new (options: object) => RateLimitStore;

/** A count with the end of its window. The version is that of a cache. */
interface Counted {
  value: number;
  expiresAt: number;
  version?: number;
}

/** What a store reads of the options of the plugin or of a route. */
interface Settings {
  continueExceeding?: boolean;
  exponentialBackoff?: boolean;
  routeInfo?: { method?: string | string[]; url?: string };
}

/**
 * Returns the class for the option `store` of the plugin. The plugin makes its stores with it, all of them on this cache.
 *
 * A request is counted in one step, so of requests that come to several processes at the same moment exactly as many are allowed
 * as `max` says. The stores do not close the cache. Over a tier all machines count together: each request is then a round trip to
 * the server.
 *
 * Errors of the cache go to the plugin, which answers with 500, or lets the request through with `skipOnError: true`: `CacheError`
 * `ERR_BUSY` when another participant has been in the way for 50 ms, `ERR_CLOSED` when the cache was closed; of a tier
 * `ERR_UNREACHABLE` when its server is away.
 *
 * @param cache a cache or a tier; a cache should be used for limits only
 * @throws {TypeError} naming the argument that is wrong; {RangeError} for a `nameSpace` that is empty or has more than 255 bytes.
 */
export function createStore(cache: CacheOrTier, options: StoreOptions = {}): RateLimitStoreClass {
  checkStore(cache);
  checkNames(options, ["nameSpace"]);
  const { nameSpace = "fastify-rate-limit-" } = options;
  checkNamespace(nameSpace, "options.nameSpace");
  const counts = cache.namespace(nameSpace);
  return class CacheMachineStore extends Store {
    constructor(settings: object) {
      super(counts, "", settings);
    }
  };
}

class Store implements RateLimitStore {
  readonly #counts: CacheOrTier;
  /** The route whose requests this store counts; empty for the store of the plugin. */
  readonly #scope: string;
  readonly #settings: Settings;
  /** How many stores without a route this one has made. */
  #unnamed = 0;

  constructor(counts: CacheOrTier, scope: string, settings: Settings = {}) {
    this.#counts = counts;
    this.#scope = scope;
    this.#settings = settings;
  }

  incr(key: string, callback: CountCallback, timeWindow?: number, max: number = Infinity): void {
    answer(callback, () => {
      if (typeof timeWindow !== "number" || Number.isNaN(timeWindow)) {
        throw new TypeError("timeWindow: must be a number of milliseconds");
      }
      // Such a window is over at once.
      if (timeWindow <= 0) return { current: 1, ttl: 0 };
      const place = this.#place(key);
      return after(this.#counts.incrementEntry(place, 1, { ttl: timeWindow }), (counted: Counted) => {
        const { value, expiresAt } = counted;
        const ttl = value > max ? this.#longer(value - max, timeWindow) : undefined;
        if (ttl === undefined) return { current: value, ttl: left(expiresAt) };
        return after(this.#prolong(place, counted, ttl), () => ({ current: value, ttl }));
      });
    });
  }

  read(key: string, callback: CountCallback): void {
    answer(callback, () => {
      return after(this.#counts.getEntry(this.#place(key)), (entry) =>
        entry ? { current: entry.value, ttl: left(entry.expiresAt) } : { current: 0, ttl: 0 },
      );
    });
  }

  child(routeOptions: Settings): RateLimitStore {
    const { method, url } = routeOptions.routeInfo ?? {};
    // `createRateLimit` and `rateLimit` name no route. Processes that run the same program call them in the same order.
    const scope = url === undefined ? `${++this.#unnamed}` : `${method} ${url}`;
    return new Store(this.#counts, scope, routeOptions);
  }

  /** The key of a client. No scope has a NUL, so no key of a client is one of another scope. */
  #place(key: unknown): string {
    return storableKey(`${this.#scope}\0${String(key)}`);
  }

  /**
   * Lets a window end `ttl` milliseconds from now. If another request was counted meanwhile, that one sets the end: a cache tells by
   * the version. A tier does not, so there the end is that of the request whose answer came last. If the window is over meanwhile,
   * it goes on all the same.
   */
  #prolong(place: string, { value, version }: Counted, ttl: number): Awaitable<unknown> {
    const cache = asCache(this.#counts);
    const isSet = cache?.compareAndSet(place, version as number, value, { ttl }) ?? this.#counts.touch(place, ttl);
    return after(isSet, (done) => done || this.#counts.add(place, value, { ttl }));
  }

  /** How long the window goes on after a request too many, the `excess`-th; `undefined` when it ends as it would have ended. */
  #longer(excess: number, timeWindow: number): number | undefined {
    if (this.#settings.continueExceeding) return timeWindow;
    if (!this.#settings.exponentialBackoff) return undefined;
    return Math.min(timeWindow * 2 ** (excess - 1), Number.MAX_SAFE_INTEGER);
  }
}

/** Calls the callback with what `count` returns, or with its error. */
function answer(callback: CountCallback, count: () => Awaitable<RequestCount>): void {
  let result: Awaitable<RequestCount>;
  try {
    result = count();
  } catch (error) {
    callback(error as Error);
    return;
  }
  // An error of the callback is no error of the count: there it is one that nobody handles, as in any other callback.
  if (isPromise(result)) result.then((counted) => callback(null, counted), callback);
  else callback(null, result);
}

function left(expiresAt: number): number {
  return Math.max(expiresAt - Date.now(), 0);
}
