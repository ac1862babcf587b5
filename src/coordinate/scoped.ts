/**
 * What waits, watches and locks need of the cache above them: a view of one scope, and the opening that it belongs to. `View` and
 * `Opening` of src/cache/ implement it. And what ends a wait from outside: its time, its signal, or the end of the cache.
 */

import type { Engine } from "../engine/engine.ts";
import { closed, timedOut } from "../errors.ts";
import { clearTimeout, setTimeout, type Timer } from "../system/timers.ts";
import type { Scope } from "../values/scope.ts";

/** A key, as `Key` of src/cache/types.ts. */
export type AnyKey = string | Uint8Array;

/** A view of one scope. */
export interface Scoped {
  readonly engine: Engine;
  readonly scope: Scope;
  readonly opening: {
    readonly name: string | undefined;
    readonly closed: boolean;
    /** Called, once each, when the cache is closed, while its engine can still be used. */
    readonly endings: Set<() => void>;
    /** @throws {CacheError} `ERR_CLOSED` */
    checkOpen(): void;
  };
  /** Writes a key to the area for the call that follows; negative when the key is too long. */
  writeKey(key: AnyKey): number;
  /** The entry of a key, `undefined` for a miss. Counts as a read. */
  entry(key: AnyKey): { value: unknown; version: number } | undefined;
  /** A text that changes with each invalidation of a tag, and with each `clear` of the scope or of one around it. */
  invalidations(tag: string): string;
  /** The time of this cache's clock, in milliseconds. */
  now(): number;
}

/** The longest time that a timer can measure, in milliseconds. */
export const LONGEST_TIMER: number = 2 ** 31 - 1;

/** A copy of a key that the caller may change. */
export function copyOfKey<K extends AnyKey>(key: K): K {
  return typeof key === "string" ? key : (Uint8Array.prototype.slice.call(key) as K);
}

/** A text that is different for each key of each scope. */
export function idOf({ scope }: Scoped, key: AnyKey): string {
  // The id of a scope begins with the length of its first name, so where it ends is never in doubt.
  // Bytes may be more than a call can have arguments.
  const text = typeof key === "string" ? `=${key}` : `#${key.join()}`;
  return scope.id + text;
}

/** How many characters of a key an error shows. */
const SHOWN = 80;

/** A key for the text of an error. */
export function shown(key: AnyKey): string {
  if (typeof key !== "string") return `of ${key.length} bytes`;
  return JSON.stringify(key.length > SHOWN ? `${key.slice(0, SHOWN)}…` : key);
}

/** Checks the option `timeout`. @throws {TypeError} and {RangeError}. */
export function checkTimeout(timeout: unknown): number {
  if (timeout === undefined) return Infinity;
  if (typeof timeout !== "number") throw new TypeError("timeout: must be a number of milliseconds");
  // Written so that NaN fails too.
  if (!(timeout >= 0)) throw new RangeError(`timeout: must be at least 0 milliseconds, not ${timeout}`);
  return timeout;
}

/** Checks the option `signal`. Signals of other realms are signals too. @throws {TypeError}. */
export function checkSignal(signal: unknown): AbortSignal | undefined {
  if (signal === undefined) return undefined;
  const { aborted, addEventListener } = (signal ?? {}) as AbortSignal;
  if (typeof aborted !== "boolean" || typeof addEventListener !== "function") {
    throw new TypeError("signal: must be an AbortSignal");
  }
  return signal as AbortSignal;
}

/** What runs when a signal is aborted. Node.js warns when more than ten listen to one signal, so this thread listens once. */
const onAbort = new WeakMap<AbortSignal, Set<() => void>>();

/** Runs a function when a signal is aborted, once. Returns a function that takes this back. The signal is not aborted yet. */
export function whenAborted(signal: AbortSignal, run: () => void): () => void {
  let all = onAbort.get(signal);
  if (all === undefined) {
    const runs = new Set<() => void>();
    all = runs;
    onAbort.set(signal, runs);
    signal.addEventListener("abort", () => {
      for (const each of runs) each();
    });
  }
  const runs = all;
  runs.add(run);
  return () => runs.delete(run);
}

/** Limits of a wait: it ends after a time, by a signal, or when the cache is closed. */
export class Limits {
  readonly #endings: Set<() => void>;
  readonly #end: (reason: unknown) => void;
  readonly #onClose = (): void => this.#over(closed());
  readonly #forgetSignal: (() => void) | undefined;
  #timer: Timer | undefined;

  /**
   * @param what what is waited for, for the error: see {@link timedOut}
   * @param timeout milliseconds, or `Infinity`
   * @param end called at most once, with the error
   */
  constructor(
    { opening }: Scoped,
    what: () => string,
    timeout: number,
    signal: AbortSignal | undefined,
    end: (reason: unknown) => void,
  ) {
    this.#endings = opening.endings;
    this.#end = end;
    this.#endings.add(this.#onClose);
    this.#forgetSignal = signal && whenAborted(signal, () => this.#over(signal.reason));
    if (timeout !== Infinity) this.#start(timeout, () => this.#over(timedOut(what(), timeout)));
  }

  #start(left: number, done: () => void): void {
    const now = Math.min(left, LONGEST_TIMER);
    this.#timer = setTimeout(() => (left > now ? this.#start(left - now, done) : done()), now);
  }

  #over(reason: unknown): void {
    this.lift();
    this.#end(reason);
  }

  /** The wait is over: takes the limits back. */
  lift(): void {
    this.#endings.delete(this.#onClose);
    this.#forgetSignal?.();
    clearTimeout(this.#timer);
  }
}
