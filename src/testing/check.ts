/** What a check is, and what the checks of a `Cache` get. The checks themselves are in the other files. */

import type { Cache, CacheOptions } from "../index.ts";

/**
 * One promise, and the function that checks it. Any test runner takes it:
 * `for (const { name, run } of checks) test(name, run);`
 */
export interface Check {
  /** The promise, in plain English. */
  readonly name: string;
  /**
   * Checks it. The promise that it returns is rejected when this one is not kept. The checks of a list may run in any order, and each
   * of them alone, but not at the same time.
   *
   * @param context - what the test runner hands to a test. With node:test and vitest, a check of something that the store does not
   * have is reported as skipped. Other runners report it as passed.
   */
  run(...context: readonly unknown[]): Promise<void>;
}

/** The cache under test, or a part of it that only this run uses. */
export interface Subject {
  /** Opens the cache once more. Each check closes what it has opened. */
  open(options?: CacheOptions): Cache<any, any>;
  /** Length of the longest value to store, in bytes. The cache has room for at least eight of them. */
  readonly largest: number;
  /** The expected `reach`. */
  readonly reach: "threads" | "processes";
}

/** What a check gets: an empty cache, a function that opens it again, and a clock that only the check moves. */
export interface Given {
  readonly cache: Cache<any, any>;
  readonly clock: { now: number };
  another(options?: CacheOptions): Cache<any, any>;
}

/** Adds a check. */
export type Define = (name: string, body: (given: Given) => void | Promise<void>) => void;
