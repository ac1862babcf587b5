/**
 * What `get` returns for a rate limit: a description of its state. `wasm/src/entries/limit.rs` draws the bytes; the engine
 * reads and writes them, so there is no way back from a description.
 */

import { LIMIT_BYTES, LIMIT_FIXED, LIMIT_GCRA, LIMIT_SECOND, LIMIT_SLIDING } from "../engine/contract.ts";
import { unreadable } from "./value-errors.ts";

/** How requests are counted. */
export type RateLimitAlgorithm = "gcra" | "fixed" | "sliding";

/** A rate limit as `get`, `getEntry` and iteration show it. */
export interface RateLimitState {
  algorithm: RateLimitAlgorithm;
  /** Milliseconds of the cache's clock: when the window began, or with `"gcra"` the time from which `count` is counted. */
  startedAt: number;
  /** Requests in this window; with `"gcra"` requests whose regular times follow `startedAt`. */
  count: number;
  /** Requests in the window before; 0 but with `"sliding"`. */
  previous: number;
}

/** The number of each algorithm. */
export const ALGORITHMS: Readonly<Record<RateLimitAlgorithm, number>> = {
  gcra: LIMIT_GCRA,
  fixed: LIMIT_FIXED,
  sliding: LIMIT_SLIDING,
};

/** Describes the rate limit whose value begins at `start`. @throws {CacheError} `ERR_DATA` for bytes that are none. */
export function describeLimit(view: DataView, start: number, length: number): RateLimitState {
  const head = length === LIMIT_BYTES ? view.getUint32(start, true) : 0;
  const [algorithm] = Object.entries(ALGORITHMS).find(([, number]) => number === (head & 0xff)) ?? [];
  if (algorithm === undefined) throw unreadable("it is a rate limit of an unknown algorithm");
  const at = start + ((head & LIMIT_SECOND) === 0 ? 8 : 32);
  return {
    algorithm: algorithm as RateLimitAlgorithm,
    startedAt: view.getFloat64(at, true),
    count: view.getFloat64(at + 8, true),
    previous: view.getFloat64(at + 16, true),
  };
}
