/**
 * What every cache promises, wherever it lives: the whole interface but for waiting, checked against a cache that
 * somebody else opens. It uses no test runner and nothing of Node.js, so the same checks run in a test, in a worker
 * thread, in another process and in a page; `conformance-meeting.ts` has what several of them check together.
 *
 * A subject can be a part of a cache that others use at the same time, as long as that part is its own.
 */

import type { Cache, CacheOptions } from "cache-machine";
import { asMap, changes, numbers, tagsAndNamespaces, time } from "./entries.ts";
import { model } from "./model.ts";
import { configuration, participants, reentrancy, valuesAndKeys } from "./uses.ts";

/** A cache, or a part of one that only this run uses. */
export interface Subject {
  /** Opens it for one more participant. Each check closes what it opens. */
  open(options?: CacheOptions): Cache;
  /** The longest value to store, in bytes; the cache must take it and not much more than eight of them. */
  readonly largest: number;
  /** What `reach` is to be. */
  readonly reach: "threads" | "processes";
}

/** One promise. */
export interface Check {
  readonly name: string;
  run(): void;
}

/** What a check works with: an empty cache, more participants of it, and a clock that only moves by hand. */
export interface Given {
  readonly cache: Cache;
  readonly clock: { now: number };
  another(options?: CacheOptions): Cache;
}

/** All checks, for one kind of participant. */
export function conformance(subject: Subject, options: CacheOptions = {}): Check[] {
  const checks: Check[] = [];
  const check = (name: string, body: (given: Given) => void): void => {
    checks.push({
      name,
      run() {
        const opened: Cache[] = [];
        const clock = { now: 1_700_000_000_000 };
        const another = (more: CacheOptions = {}): Cache => {
          const cache = subject.open({ now: () => clock.now, ...options, ...more });
          opened.push(cache);
          return cache;
        };
        try {
          const cache = another();
          cache.clear();
          body({ cache, clock, another });
        } finally {
          for (const cache of opened) cache.close();
        }
      },
    });
  };
  asMap(check);
  changes(check);
  numbers(check);
  time(check);
  tagsAndNamespaces(check);
  valuesAndKeys(check, subject.largest);
  participants(check, subject);
  configuration(check);
  reentrancy(check);
  model(check);
  return checks;
}

/** Adds a check. */
export type Define = (name: string, body: (given: Given) => void) => void;
