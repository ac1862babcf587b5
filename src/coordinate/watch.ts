/**
 * `watch` and `watchTag`: a listener that runs after changes. A watch is level-triggered: after a ring it compares what is there
 * with what was there when it last looked. So changes that come close together are one, and none that stays is missed.
 */

import { WANT_QUIET } from "../engine/contract.ts";
import { checkOptions } from "../option-names.ts";
import { queueMicrotask } from "../system/timers.ts";
import { Listening } from "./listening.ts";
import type { WatchOptions } from "./options.ts";
import { type AnyKey, checkSignal, copyOfKey, type Scoped, whenAborted } from "./scoped.ts";

const NAMES = ["signal"] as const;

/** A watched thing. */
interface Watched<T> {
  /** What the listener gets. */
  readonly subject: T;
  /** Looks, and returns whether there was a change since the last time. */
  hasChanged(): boolean;
}

/** A clock for which nothing ever expires. */
const BEFORE_ALL = (): number => -Infinity;

/** A watched key. */
class WatchedKey<K extends AnyKey> implements Watched<K> {
  readonly subject: K;
  readonly #view: Scoped;
  /** What was there at the last look; version 0 stands for nothing. */
  #version = 0;
  #expiresAt = Infinity;
  /** Whether that had expired. */
  #expired = false;

  constructor(view: Scoped, key: K) {
    this.#view = view;
    // Refuses what is no key.
    view.writeKey(key);
    this.subject = copyOfKey(key);
  }

  /**
   * Expiry is no change. So an entry that has expired and is still in memory counts as it did before, and its later
   * disappearance is no change either. But `expire` is one: it moves the expiry into the past.
   */
  hasChanged(): boolean {
    const view = this.#view;
    const { engine } = view;
    const written = view.writeKey(this.subject);
    engine.clock = BEFORE_ALL;
    const isThere = written >= 0 && engine.get(written, WANT_QUIET) >= 0;
    const version = isThere ? engine.version : 0;
    const expiresAt = isThere ? engine.expiry : Infinity;
    const expired = expiresAt !== Infinity && expiresAt <= view.now();
    let changed = expired && !this.#expired && expiresAt !== this.#expiresAt;
    if (version !== this.#version) changed = isThere || !this.#expired;
    this.#version = version;
    this.#expiresAt = expiresAt;
    this.#expired = expired;
    return changed;
  }
}

/** A watched tag. */
class WatchedTag implements Watched<string> {
  readonly subject: string;
  readonly #view: Scoped;
  #seen = "";

  constructor(view: Scoped, tag: string) {
    this.#view = view;
    this.subject = tag;
  }

  hasChanged(): boolean {
    const before = this.#seen;
    this.#seen = this.#view.invalidations(this.subject);
    return this.#seen !== before;
  }
}

/** Calls a listener after changes, until it is disposed of. */
class Watch<T> implements Disposable {
  readonly #endings: Set<() => void>;
  readonly #forgetSignal: (() => void) | undefined;
  readonly #listener: (subject: T) => unknown;
  readonly #watched: readonly Watched<T>[];
  readonly #listening: Listening;
  readonly #end = (): void => this[Symbol.dispose]();
  #ended = false;

  constructor(
    view: Scoped,
    watched: readonly Watched<T>[],
    listener: (subject: T) => unknown,
    signal: AbortSignal | undefined,
    register: (subject: T) => number,
  ) {
    this.#endings = view.opening.endings;
    this.#listener = listener;
    this.#watched = watched;
    this.#listening = new Listening(view.engine, () => this.#look(), { hold: false, probe: false });
    try {
      for (const each of watched) {
        this.#listening.add(() => register(each.subject));
        each.hasChanged();
      }
    } catch (error) {
      this.#listening.release();
      throw error;
    }
    this.#endings.add(this.#end);
    this.#forgetSignal = signal && whenAborted(signal, this.#end);
  }

  /** Calls the listener for what has changed. Returns whether anything has. */
  #look(): boolean {
    // First all looks: the listener may change what is watched. A look fails when the cache's clock throws.
    const changed = this.#watched.filter((each) => attempt(() => each.hasChanged()) === true);
    for (const { subject } of changed) {
      if (this.#ended) break;
      attempt(() => this.#listener.call(undefined, subject));
    }
    return changed.length > 0;
  }

  [Symbol.dispose](): void {
    this.#ended = true;
    this.#listening.release();
    this.#endings.delete(this.#end);
    this.#forgetSignal?.();
  }
}

/** Runs the user's code. What it throws becomes an uncaught error, and the others still run. */
function attempt(run: () => unknown): unknown {
  try {
    return run();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
    return undefined;
  }
}

/** A watch that has ended before it began. */
const ENDED: Disposable = { [Symbol.dispose]() {} };

/** Checks listener and options. Returns the signal. */
function checked(view: Scoped, listener: unknown, options: WatchOptions | undefined): AbortSignal | undefined {
  view.opening.checkOpen();
  if (typeof listener !== "function") throw new TypeError("listener: must be a function");
  return checkSignal(checkOptions<WatchOptions>(options, NAMES).signal);
}

/**
 * Calls `listener` after changes of keys.
 *
 * @throws {TypeError} for wrong arguments, {CacheError} `ERR_CLOSED`.
 */
export function watch<K extends AnyKey>(
  view: Scoped,
  keys: K | Iterable<K>,
  listener: (key: K) => unknown,
  options: WatchOptions | undefined,
): Disposable {
  const signal = checked(view, listener, options);
  const isKey = typeof keys === "string" || ArrayBuffer.isView(keys);
  if (!isKey && typeof (keys as Iterable<K>)?.[Symbol.iterator] !== "function") {
    throw new TypeError("keys: must be a key, or an iterable of keys");
  }
  const all = isKey ? [keys as K] : [...(keys as Iterable<K>)];
  const watched = all.map((key) => new WatchedKey(view, key));
  if (signal?.aborted) return ENDED;
  const register = (key: K): number => {
    const written = view.writeKey(key);
    // No entry has a key that is too long, so there is nothing to hear.
    return written < 0 ? 0 : view.engine.wait(written);
  };
  return new Watch(view, watched, listener, signal, register);
}

/**
 * Calls `listener` after invalidations of a tag.
 *
 * @throws {TypeError} and {RangeError} for wrong arguments, {CacheError} `ERR_CLOSED`.
 */
export function watchTag(
  view: Scoped,
  tag: string,
  listener: (tag: string) => unknown,
  options: WatchOptions | undefined,
): Disposable {
  const signal = checked(view, listener, options);
  const watched = [new WatchedTag(view, tag)];
  if (signal?.aborted) return ENDED;
  return new Watch(view, watched, listener, signal, () => view.engine.wait());
}
