/**
 * Reads that a lease allows: for a cache in front of a server. Whoever hears of the changes on the server renews the lease. When
 * nobody does, the values here may be outdated, and every read is a miss.
 */

import { describe } from "../values/describe.ts";
import type { Key } from "./types.ts";
import type { View } from "./view.ts";

/** How long values may be read: see {@link Cache.leased}. */
export interface Lease {
  /** The time of `performance.now()` at which the lease ends; `Infinity` for never, `-Infinity` when there is no lease. */
  readonly until: number;
}

/**
 * Reads a cache or a namespace for as long as a {@link Lease} lasts: see {@link Cache.leased}.
 *
 * A read of a value that the near cache has asks one clock for lease and expiry together: the monotonic clock of this machine, as
 * `performance.now` was when the package was loaded. So fake timers, steps of the wall clock and the option `now` do not count
 * there once the value was read, and neither does time in which the machine was suspended. Other reads follow the clock of the
 * cache, as {@link Cache.get} does.
 */
export interface Leased<V = any, K extends Key = string> {
  /**
   * Returns the value of the key as {@link Cache.get}, or `undefined` when it is absent or the lease has ended. A read without a
   * lease does not count as a miss.
   *
   * @throws {TypeError} and {CacheError} as {@link Cache.get}, also when the lease has ended; `ERR_CLOSED`. An error of a getter of
   * the lease is passed on.
   */
  get(key: K): V | undefined;
}

/** A clock that nobody sets, and that no fake timers replace after this package was imported. */
const monotonic: () => number = performance.now.bind(performance);

/**
 * A view of one scope under a lease.
 *
 * @internal
 */
export class LeasedView {
  readonly #view: View;
  readonly #lease: Lease;

  constructor(view: View, lease: Lease) {
    this.#view = view;
    this.#lease = lease;
  }

  get(key: Key): unknown {
    const view = this.#view;
    const at = monotonic();
    if (at < this.#lease.until) return view.getAt(key, at);
    // Only for its errors.
    view.writeKey(key);
    return undefined;
  }
}

/** Checks the argument of {@link Cache.leased}. */
export function checkLease(lease: Lease): Lease {
  if (typeof lease?.until !== "number") {
    throw new TypeError(`lease: must be an object whose \`until\` is a number, not ${describe(lease)}`);
  }
  return lease;
}
