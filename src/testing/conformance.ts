/**
 * The conformance suite: what every cache promises, in every reach and every runtime. It checks the whole interface against a
 * cache that the caller opens. It uses no test runner and nothing of Node.js, so that the same checks run in a test, in a worker
 * thread, in another process and in a page. The checks that several participants make together are in concurrent-checks.ts.
 *
 * The subject may be one part of a cache, such as a namespace, while others use the rest.
 */

import type { Cache, CacheOptions } from "../index.ts";
import type { Check, Define, Subject } from "./check.ts";
import { locks, waiting, watching } from "./coordination-checks.ts";
import { asMap, changes, limits, numbers, tagsAndNamespaces, time } from "./entry-checks.ts";
import { loading } from "./load-checks.ts";
import { model } from "./random-checks.ts";
import { tier } from "./tier-checks.ts";
import { configuration, participants, reentrancy, valuesAndKeys } from "./usage-checks.ts";

/**
 * A part of the contract of a `Cache`, by which it can be left out:
 *
 * - `"map"`: the members of `Map`, iteration, and the operations on many keys.
 * - `"changes"`: `add`, `replace`, `compareAndSet`, `update`, `take` and their like.
 * - `"numbers"`: `increment` and `decrement`.
 * - `"limits"`: `rateLimit`.
 * - `"time"`: `ttl`, `touch`, `expire`, `getStale`.
 * - `"tags"`: tags and namespaces.
 * - `"values"`: every type and length of values and keys.
 * - `"participants"`: several participants of one thread, `handle`, `stats`, `close`.
 * - `"configuration"`: the options of a participant.
 * - `"reentrancy"`: functions of the user that use the cache while it calls them.
 * - `"loading"`: `getOrSet`, `getOrSetMany`, `memoize`, `refresh`.
 * - `"waiting"`: `waitFor`.
 * - `"watching"`: `watch` and `watchTag`.
 * - `"locks"`: `locks`.
 * - `"tier"`: `encode`, `decode`, `leased`.
 * - `"model"`: random operations, compared with a `Map`.
 */
export type ConformancePart =
  | "map"
  | "changes"
  | "numbers"
  | "limits"
  | "time"
  | "tags"
  | "values"
  | "participants"
  | "configuration"
  | "reentrancy"
  | "loading"
  | "waiting"
  | "watching"
  | "locks"
  | "tier"
  | "model";

/** Adds the checks of a part, in this order. */
const PARTS: Record<ConformancePart, (check: Define, subject: Subject) => void> = {
  map: asMap,
  changes,
  numbers,
  limits,
  time,
  tags: tagsAndNamespaces,
  values: (check, { largest }) => valuesAndKeys(check, largest),
  participants,
  configuration,
  reentrancy,
  loading,
  waiting,
  watching,
  locks,
  tier: (check, { largest }) => tier(check, largest),
  model,
};

/** Which checks {@link conformance} returns. */
export interface ConformanceOptions {
  /** Options for each participant that is opened. A check may add others. */
  readonly options?: CacheOptions;
  /** The parts to check. Default: all. */
  readonly only?: readonly ConformancePart[];
  /** Parts that the subject does not have. Default: none. */
  readonly without?: readonly ConformancePart[];
}

/**
 * The whole contract of `Cache`, for whoever implements or wraps it. All members answer as those of `Cache` do: what is no promise
 * there must not be one here. For a store that answers by promises there is `storeChecks`.
 *
 * @throws {TypeError} when `only` or `without` names something that is no part.
 */
export function conformance(subject: Subject, { options, only, without = [] }: ConformanceOptions = {}): Check[] {
  for (const part of [...(only ?? []), ...without]) {
    if (!Object.hasOwn(PARTS, part))
      throw new TypeError(`${part}: is no part. The parts are ${Object.keys(PARTS).join(", ")}`);
  }
  const checks: Check[] = [];
  const check: Define = (name, body) => {
    checks.push({
      name,
      async run() {
        const opened: Cache<any, any>[] = [];
        const clock = { now: 1_700_000_000_000 };
        const another = (more: CacheOptions = {}): Cache<any, any> => {
          const cache = subject.open({ now: () => clock.now, ...options, ...more });
          opened.push(cache);
          return cache;
        };
        try {
          const cache = another();
          cache.clear();
          await body({ cache, clock, another });
        } finally {
          for (const cache of opened) cache.close();
        }
      },
    });
  };
  for (const [name, define] of Object.entries(PARTS) as [ConformancePart, (typeof PARTS)[ConformancePart]][]) {
    if ((only?.includes(name) ?? true) && !without.includes(name)) define(check, subject);
  }
  return checks;
}
