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
import { configuration, participants, reentrancy, valuesAndKeys } from "./usage-checks.ts";

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
        const opened: Cache<any, any>[] = [];
        const clock = { now: 1_700_000_000_000 };
        const another = (more: CacheOptions = {}): Cache<any, any> => {
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
        } catch (error) {
          close();
          throw error;
        }
        if (waits) return waits.finally(close);
        close();
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
