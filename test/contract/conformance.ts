/**
 * The conformance suite: what every cache promises, in every reach and every runtime. It checks the whole interface against a
 * cache that the caller opens. It uses no test runner and nothing of Node.js, so that the same checks run in a test, in a worker
 * thread, in another process and in a page. The checks that several participants make together are in concurrent-checks.ts.
 *
 * The subject may be one part of a cache, such as a namespace, while others use the rest.
 */

import type { Cache, CacheOptions, Key } from "cache-machine";
import { locks, waiting, watching } from "./coordination-checks.ts";
import { asMap, changes, limits, numbers, tagsAndNamespaces, time } from "./entry-checks.ts";
import { loading } from "./load-checks.ts";
import { model } from "./random-checks.ts";
import { configuration, participants, reentrancy, valuesAndKeys } from "./usage-checks.ts";

/** The cache under test, or a part of it that only this run uses. */
export interface Subject {
  /** Opens the cache once more. Each check closes what it has opened. */
  open(options?: CacheOptions): Cache<any, Key>;
  /** Length of the longest value to store, in bytes. The cache has room for at least eight of them. */
  readonly largest: number;
  /** The expected `reach`. */
  readonly reach: "threads" | "processes";
}

/** One promise of the cache, and the function that checks it. */
export interface Check {
  readonly name: string;
  /** A check of something that waits returns a promise. */
  run(): void | Promise<void>;
}

/** What a check gets: an empty cache, a function that opens it again, and a clock that only the check moves. */
export interface Given {
  readonly cache: Cache<any, Key>;
  readonly clock: { now: number };
  another(options?: CacheOptions): Cache<any, Key>;
}

/** All checks, or a part of them, for participants with these options. */
export function conformance(
  subject: Subject,
  options: CacheOptions = {},
  part: (check: Define) => void = (check) => everything(check, subject),
): Check[] {
  const checks: Check[] = [];
  const check: Define = (name, body) => {
    checks.push({
      name,
      run() {
        const opened: Cache<any, Key>[] = [];
        const clock = { now: 1_700_000_000_000 };
        const another = (more: CacheOptions = {}): Cache<any, Key> => {
          const cache = subject.open({ now: () => clock.now, ...options, ...more });
          opened.push(cache);
          return cache;
        };
        const close = (): void => {
          for (const cache of opened) cache.close();
        };
        let waits: void | Promise<void>;
        try {
          const cache = another();
          cache.clear();
          waits = body({ cache, clock, another });
          return waits?.finally(close);
        } finally {
          if (!waits) close();
        }
      },
    });
  };
  part(check);
  return checks;
}

function everything(check: Define, subject: Subject): void {
  asMap(check);
  changes(check);
  numbers(check);
  limits(check);
  time(check);
  tagsAndNamespaces(check);
  valuesAndKeys(check, subject.largest);
  participants(check, subject);
  configuration(check);
  reentrancy(check);
  loading(check);
  waiting(check);
  watching(check);
  locks(check);
  model(check);
}

/** Adds a check. */
export type Define = (name: string, body: (given: Given) => void | Promise<void>) => void;
