/**
 * What a load is told, and what it finds. These types are reached from the public ones, so they must not lead to the types of the
 * engine: those need a library of types that not every project has.
 */

/** An entry, and whether it has expired and is within its grace. */
export interface Found {
  value: unknown;
  /** 0 for a value that was not stored. */
  version: number;
  expiresAt: number;
  tags: string[];
  stale: boolean;
}

/** How a loaded value is stored. */
export interface Storing {
  /** When the entry expires, by the clock of the cache. */
  readonly expiresAt: number;
  /** Milliseconds after that in which the value may still be used. */
  readonly grace: number;
  readonly tags: readonly string[] | undefined;
}

/** The options of a call, checked. Times in milliseconds. */
export interface Loading {
  readonly ttl: number | ((value: any, key: any) => number | undefined) | undefined;
  readonly tags: readonly string[] | ((value: any, key: any) => readonly string[] | undefined) | undefined;
  readonly grace: number;
  readonly graceWait: number;
  readonly graceBackoff: number;
  readonly refreshAhead: number;
  readonly timeout: number;
  readonly lease: number;
  readonly jitter: number;
  readonly fresh: boolean;
  readonly signal: AbortSignal | undefined;
  readonly onOutcome: ((outcome: OutcomeKind, entry: any, key: any) => void) | undefined;
}

/** What came of a call. */
export type OutcomeKind = "hit" | "stale" | "loaded" | "joined";

/**
 * What subscribers of `tracingChannel("cache-machine:load")` get: one object for all events of one call of a loader. An entry of
 * `getOrSet` has a `key`, one of `getOrSetMany` has `keys`.
 */
export interface LoadTrace {
  /** The name by which `openCache` opened the cache; `undefined` for a cache from `createCache` or `attachCache`. */
  readonly cache: string | undefined;
  /** The names of the namespaces, the outermost first. */
  readonly namespace: readonly string[];
  readonly key?: string | Uint8Array;
  readonly keys?: readonly (string | Uint8Array)[];
  /**
   * Why the loader is called: `"miss"` when there is no value that may be returned, `"fresh"` when the call wants one from a load
   * that begins after it, `"refresh"` when an old value was returned and nobody waits.
   */
  readonly reason: "miss" | "fresh" | "refresh";
  /** What the loader has returned, or what its promise was fulfilled with: the object itself, not a copy. */
  result?: unknown;
  /** What the loader has thrown, or what its promise was rejected with. */
  error?: unknown;
}
