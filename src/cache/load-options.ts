/**
 * The options of `getOrSet`, `getOrSetMany` and `memoize`: their types, and the function that checks them. They are checked at
 * each call, also when the value is there. So the check is written to be fast: most calls have one or two options.
 */

import type { Loading, OutcomeKind } from "../coordinate/loading.ts";
import { checkSignal } from "../coordinate/scoped.ts";
import { checkOptions, refuseUnknown } from "../option-names.ts";
import { describe } from "../values/describe.ts";
import type { Entry, Key, StaleEntry } from "./types.ts";

/** What became of a call of {@link Cache.getOrSet}. */
export type LoadOutcome = OutcomeKind;

/** How a value is loaded, and how it is stored. All times are in milliseconds. */
export interface LoadOptions<V = any, K extends Key = string> {
  /**
   * How long the loaded value lives, `Infinity` for ever; or a function that returns this for the value and its key. A value with
   * 0 or less is handed to those who wait and not stored. The default is the `ttl` of the namespace or of the cache.
   */
  ttl?: number | ((value: V, key: K) => number | undefined) | undefined;
  /** The tags of the entry, as in {@link SetOptions}; or a function that returns them for the value and its key. */
  tags?: readonly string[] | ((value: V, key: K) => readonly string[] | undefined) | undefined;
  /**
   * How long after its `ttl` the value may still be used, while another one is loaded or when that fails; 0 by default,
   * `Infinity` for ever.
   */
  grace?: number | undefined;
  /**
   * How long to wait for the new value when there is an old one within its grace. With 0, the default, the old value is returned at
   * once and the new one is loaded in the background. With `Infinity` the old value is returned only when the load fails.
   */
  graceWait?: number | undefined;
  /**
   * How long all threads and processes go on with the old value after a load has failed, before one of them tries again; 10,000
   * by default.
   */
  graceBackoff?: number | undefined;
  /**
   * A fraction of the `ttl`, from 0 to 1: when only this part of its time is left, a value is returned and loaded again in the
   * background. 0 by default: never.
   */
  refreshAhead?: number | undefined;
  /**
   * How long this call waits, `Infinity` by default. Then it gets the old value within its grace, or `ERR_TIMEOUT`. The load goes
   * on, and its value is stored.
   */
  timeout?: number | undefined;
  /**
   * How long a loader may be silent, because its process is stopped or its event loop is blocked, until another one replaces it;
   * 30,000 by default. The result of the one that was replaced is not stored. A loader that waits is not silent, however long it
   * takes.
   */
  lease?: number | undefined;
  /**
   * A fraction of the `ttl`, from 0 to 1: each value lives shorter by a random part of this fraction, so that values that were
   * loaded together do not expire together. 0 by default.
   */
  jitter?: number | undefined;
  /** Whether the value must come from a load that begins after this call; false by default. */
  fresh?: boolean | undefined;
  /** Ends this call with the reason of the signal. The load goes on for others, and is told to stop when nobody waits for it. */
  signal?: AbortSignal | undefined;
  /**
   * Called once for a call that gets a value, before its promise is fulfilled: `"hit"` for a value that was there, `"stale"` for
   * an old one, `"loaded"` when its own loader has run, `"joined"` when it got what another call has loaded. The `version` of
   * the entry is 0 when the value was not stored.
   */
  onOutcome?: ((outcome: LoadOutcome, entry: Entry<V>, key: K) => void) | undefined;
}

/** The options of {@link Cache.memoize}. */
export interface MemoizeOptions<V = any, A extends unknown[] = any[], K extends Key = string>
  extends LoadOptions<V, K> {
  /** Returns the key for the arguments of a call. Two calls with the same key get the same value. */
  key: (...args: A) => K;
}

/** What a loader is told, and what it may say. */
export interface LoadContext<V = any, K extends Key = string> {
  readonly key: K;
  /** Aborted when nobody waits for the load any more, and when the cache is closed. */
  readonly signal: AbortSignal;
  /** Whether nobody waits for this load: an old value was returned, and is refreshed. */
  readonly background: boolean;
  /** The entry of the key as the load begins: one within its grace, or one that is to be refreshed. `undefined` without one. */
  readonly stale: StaleEntry<V> | undefined;
  /** To be set by the loader: as the option `ttl`, which it overrides. */
  ttl: number | undefined;
  /** To be set by the loader: as the option `tags`, which it overrides. */
  tags: readonly string[] | undefined;
  /**
   * Returns the old value, for a loader to return: the source has said that it is still right (HTTP 304). It is stored with a new
   * time to live, and keeps its tags unless `tags` was set.
   *
   * @throws {TypeError} when there is no old value.
   */
  unchanged(): V;
}

/** What the loader of {@link Cache.getOrSetMany} is told, and what it may say: for all its keys together. */
export interface LoadManyContext {
  /** Aborted when nobody waits for any of the keys any more, and when the cache is closed. */
  readonly signal: AbortSignal;
  /** Whether nobody waits for this load: old values were returned, and are refreshed. */
  readonly background: boolean;
  /** To be set by the loader: as the option `ttl`, which it overrides. */
  ttl: number | undefined;
  /** To be set by the loader: as the option `tags`, which it overrides. */
  tags: readonly string[] | undefined;
}

/** What the loader of {@link Cache.getOrSetMany} returns: values in the order of the keys, or by key. */
export type LoadedMany<T, K extends Key = string> = readonly (T | undefined)[] | ReadonlyMap<K, T | undefined>;

type Mutable<T> = { -readonly [P in keyof T]: T[P] };

/** The options of a call without options. A literal, because to spread another object takes longer. */
function plain(): Mutable<Loading> {
  return {
    ttl: undefined,
    tags: undefined,
    grace: 0,
    graceWait: 0,
    graceBackoff: 10_000,
    refreshAhead: 0,
    timeout: Infinity,
    lease: 30_000,
    jitter: 0,
    fresh: false,
    signal: undefined,
    onOutcome: undefined,
  };
}

const PLAIN: Loading = plain();

const NAMES = Object.keys(PLAIN) as (keyof LoadOptions)[];

/**
 * Checks the options of a load.
 *
 * @throws {TypeError} and {RangeError} naming the option that is wrong.
 */
export function checkLoad(options: LoadOptions<any, any> | undefined): Loading {
  if (options === undefined) return PLAIN;
  if (typeof options !== "object" || options === null) checkOptions(options, NAMES);
  const checked = plain();
  for (const name in options) {
    const value: any = options[name as keyof LoadOptions];
    switch (value === undefined && Object.hasOwn(PLAIN, name) ? undefined : name) {
      case undefined:
        break;
      case "ttl":
        if (typeof value !== "function") checkNumber(name, value, -Infinity, Infinity);
        checked.ttl = value;
        break;
      case "tags":
        checked.tags = typeof value === "function" ? value : checkTags(value);
        break;
      case "grace":
        checked.grace = checkNumber(name, value, 0, Infinity);
        break;
      case "graceWait":
        checked.graceWait = checkNumber(name, value, 0, Infinity);
        break;
      case "graceBackoff":
        checked.graceBackoff = checkNumber(name, value, 0, Infinity);
        break;
      case "timeout":
        checked.timeout = checkNumber(name, value, 0, Infinity);
        break;
      case "lease":
        checked.lease = checkNumber(name, value, 1, Infinity);
        break;
      case "refreshAhead":
        checked.refreshAhead = checkNumber(name, value, 0, 1);
        break;
      case "jitter":
        checked.jitter = checkNumber(name, value, 0, 1);
        break;
      case "fresh":
        if (typeof value !== "boolean") throw new TypeError("fresh: must be a boolean");
        checked.fresh = value;
        break;
      case "signal":
        checked.signal = checkSignal(value);
        break;
      case "onOutcome":
        if (typeof value !== "function") throw new TypeError(`onOutcome: must be a function, not ${describe(value)}`);
        checked.onOutcome = value;
        break;
      default:
        refuseUnknown(options, name, NAMES);
    }
  }
  return checked;
}

function checkNumber(name: string, value: unknown, least: number, most: number): number {
  if (typeof value !== "number") throw new TypeError(`${name}: must be a number, not ${describe(value)}`);
  if (value >= least && value <= most) return value;
  const range = most === Infinity ? `at least ${least}` : `from ${least} to ${most}`;
  throw new RangeError(`${name}: must be ${range}, not ${value}`);
}

/** Returns a copy. The engine's limits of tags are checked when they are written: see values/tags.ts. */
function checkTags(tags: unknown): string[] {
  if (Array.isArray(tags) && tags.every((tag) => typeof tag === "string")) return [...tags];
  throw new TypeError("tags: must be an array of strings, or a function that returns one");
}

/** Checks that a loader is a function. */
export function checkLoader(load: unknown): void {
  if (typeof load !== "function") throw new TypeError(`load: must be a function, not ${describe(load)}`);
}

/** Checks the options of `memoize`. Returns a copy. */
function checkMemoize<T extends MemoizeOptions<any, any, any>>(options: T): T {
  if (typeof options !== "object" || options === null) {
    throw new TypeError("options: must be an object with the function `key`, which returns the key of a call");
  }
  const { key, ...others } = options;
  if (typeof key !== "function") {
    throw new TypeError("key: must be a function that returns the key for the arguments of a call");
  }
  checkLoad(others);
  return { ...others, key } as T;
}

/**
 * The function that `memoize` returns: its key and its loader get the arguments and the `this` of a call. An error of the key rejects.
 *
 * @param getOrSet of the cache
 * @throws {TypeError} and {RangeError} for wrong arguments.
 */
export function memoized<A extends unknown[], T, K extends Key>(
  getOrSet: (key: K, load: () => T | PromiseLike<T>, options: LoadOptions<Exclude<T, undefined>, K>) => Promise<T>,
  load: (...args: A) => T | PromiseLike<T>,
  options: MemoizeOptions<Exclude<T, undefined>, A, K>,
): (...args: A) => Promise<T> {
  checkLoader(load);
  const { key, ...others } = checkMemoize(options);
  return function (this: unknown, ...args) {
    try {
      return getOrSet(key.apply(this, args), () => load.apply(this, args), others);
    } catch (error) {
      return Promise.reject(error);
    }
  };
}

/** Whether a value that is there can be returned as it is, without a look at its entry. */
export function isPlain({ fresh, refreshAhead, signal, onOutcome }: Loading): boolean {
  return !fresh && refreshAhead === 0 && onOutcome === undefined && !signal?.aborted;
}
