/** What a store promises to processes that share it, as checks for any test runner. Each check starts its processes and ends them. */

import { isAbsolute } from "node:path";
import { pathToFileURL } from "node:url";
import { same } from "./assert.ts";
import type { Check } from "./check.ts";
import { type Mate, withCrew } from "./crew.ts";
import { absent, freshPrefix, isAbsent, retried, type StoreMember, skip, TRIES, type Values, value } from "./store.ts";

/** How {@link acrossProcesses} starts its processes, and what it has to know about the store. */
export interface ProcessesOptions extends Values {
  /** How many processes. Default: 4. */
  readonly processes?: number;
  /** How long a check may take, in milliseconds, the start of its processes included. Default: 30,000. */
  readonly timeout?: number;
  /** Environment variables of the processes, beside those of this process. For example the name of the cache to open. */
  readonly env?: Record<string, string | undefined>;
  /** The Node.js to run. Default: the one that runs this. */
  readonly execPath?: string;
  /** Options of Node.js, such as `["--import", "tsx"]`. Default: none. */
  readonly execArgv?: readonly string[];
  /** As `members` of `StoreSubject`: the checks of these members are made, the others are left out. */
  readonly members?: readonly StoreMember[];
}

const CALLS = 80;
const LONG_MS = 3_600_000;
const TTL_MS = 300;
const POLL_MS = 5;
/** How late a value may expire. On a busy machine an answer takes long. */
const LATE_MS = 5_000;

interface Given {
  readonly mates: Mate[];
  readonly first: Mate;
  readonly options: ProcessesOptions;
  /** The beginning of all keys of this check. */
  readonly prefix: string;
  /** Reads a key in all processes, and throws unless all have read this. */
  all(key: string, expected: unknown, what?: string): Promise<void>;
  /** Throws unless the key has no value in any of the processes. */
  none(key: string, what?: string): Promise<void>;
}

/** Adds a check, which may be tried so often, each time with other keys. */
type Define = (
  name: string,
  needs: readonly StoreMember[],
  body: (given: Given) => Promise<void>,
  tries?: number,
) => void;

/**
 * The checks of a store that processes share: what one stores all have, a limit is exact, an invalidation is seen by all, one loads
 * for all.
 *
 * @param module - a module whose default export opens the store: `export default (number) => store`, where `store` is as `Store`
 * says. Each process imports it and calls the function with its number, 0 to `processes` − 1. It is an absolute path or a `file:` URL of an ES
 * module, a CommonJS module, or of TypeScript where Node.js runs that.
 * @throws {TypeError} when `module` is neither an absolute path nor a URL.
 * @throws {RangeError} when `processes` is not a whole number from 2 to 64.
 */
export function acrossProcesses(module: URL | string, options: ProcessesOptions = {}): Check[] {
  const address = addressOf(module);
  const { processes: count = 4, timeout, env, execPath, execArgv, members } = options;
  if (!Number.isInteger(count) || count < 2 || count > 64) {
    throw new RangeError(`processes: must be a whole number from 2 to 64, not ${count}`);
  }
  const checks: Check[] = [];
  const define: Define = (name, needs, body, tries = 1) => {
    if (members !== undefined && needs.some((member) => !members.includes(member))) return;
    const run = (...context: unknown[]): Promise<void> =>
      withCrew(
        { address, count, env, execPath, execArgv },
        async (mates, there) => {
          const missing = needs.filter((member) => !there.includes(member));
          if (missing.length === 0) return retried(tries, () => body(given(mates, options)));
          const why = `the store has no ${missing.join(", no ")}`;
          if (members !== undefined) throw new Error(why);
          skip(context, why);
        },
        timeout,
        name,
      );
    checks.push({ name: `${count} processes: ${name}`, run });
  };
  values(define);
  removal(define);
  together(define);
  return checks;
}

function addressOf(module: URL | string): string {
  if (module instanceof URL) return module.href;
  if (typeof module === "string" && isAbsolute(module)) return pathToFileURL(module).href;
  if (typeof module === "string" && /^file:/.test(module)) return module;
  throw new TypeError("module: must be an absolute path or a URL, such as new URL('store.mjs', import.meta.url)");
}

function given(mates: Mate[], options: ProcessesOptions): Given {
  const read = (key: string): Promise<unknown[]> => Promise.all(mates.map((mate) => mate.call("get", key)));
  return {
    mates,
    options,
    first: mates[0] as Mate,
    prefix: freshPrefix(),
    async all(key, expected, what = key) {
      for (const [number, got] of (await read(key)).entries())
        same(got, expected, `${what}, read by process ${number}`);
    },
    async none(key, what = key) {
      for (const [number, got] of (await read(key)).entries())
        absent(options, got, `${what}, read by process ${number}`);
    },
  };
}

function values(check: Define): void {
  check("what one stores, all read", [], async ({ mates, options, prefix, all, none }) => {
    for (const [number, mate] of mates.entries()) {
      await none(`${prefix}${number}`);
      await mate.call("set", `${prefix}${number}`, value(options, `by ${number}`));
      await all(`${prefix}${number}`, value(options, `by ${number}`));
    }
  });

  check(
    "what one stores again, all read, also those that have read the old value",
    [],
    async ({ mates, options, prefix, all }) => {
      for (let round = 0; round < 3; round++) {
        for (const [number, mate] of mates.entries()) {
          const stored = value(options, `by ${number} in round ${round}`);
          await mate.call("set", `${prefix}key`, stored);
          // The second reading may be from a near copy.
          for (let time = 0; time < 2; time++) await all(`${prefix}key`, stored);
        }
      }
    },
  );

  check(
    "after all have stored a value for the same key at once, all read the same one",
    [],
    async ({ mates, options, prefix, first, all }) => {
      for (let round = 0; round < 10; round++) {
        const key = `${prefix}${round}`;
        await Promise.all(mates.map((mate, number) => mate.call("set", key, value(options, `by ${number}`))));
        const winner = await first.call<unknown>("get", key);
        await all(key, winner);
        const stored = mates.map((_, number) => JSON.stringify(value(options, `by ${number}`)));
        same(stored.includes(JSON.stringify(winner)), true, "it is one of those that were stored");
      }
    },
  );

  check("what a process has stored stays when it is killed", [], async ({ mates, options, prefix, first }) => {
    const killed = mates.at(-1) as Mate;
    await killed.call("set", `${prefix}key`, value(options, "by the killed one"));
    await killed.kill();
    same(await first.call("get", `${prefix}key`), value(options, "by the killed one"));
    await first.call("set", `${prefix}key`, value(options, "again"));
    same(await first.call("get", `${prefix}key`), value(options, "again"));
  });

  check("a value expires in all, and in none too early", [], async ({ mates, options, prefix, first, all, none }) => {
    const since = performance.now();
    await first.call("set", `${prefix}key`, value(options, "a"), { ttl: TTL_MS });
    await Promise.all(
      mates.map(async (mate, number) => {
        while (!isAbsent(options, await mate.call("get", `${prefix}key`))) {
          const tooLate = performance.now() - since > TTL_MS + LATE_MS;
          same(tooLate, false, `still there in process ${number}, long after ${TTL_MS} ms`);
          await new Promise((resolve) => setTimeout(resolve, POLL_MS));
        }
        const after = performance.now() - since;
        same(after > TTL_MS - 5, true, `not gone too early in process ${number} (${after} of ${TTL_MS} ms)`);
      }),
    );
    await none(`${prefix}key`);
    await first.call("set", `${prefix}key`, value(options, "again"), { ttl: LONG_MS });
    await all(`${prefix}key`, value(options, "again"));
  });
}

function removal(check: Define): void {
  check("what one deletes, none reads", ["delete"], async ({ mates, options, prefix, first, all, none }) => {
    for (const [number, mate] of mates.entries()) {
      await first.call("set", `${prefix}${number}`, value(options, "a"));
      await all(`${prefix}${number}`, value(options, "a"));
      await mate.call("delete", `${prefix}${number}`);
      await none(`${prefix}${number}`);
    }
  });

  check("what one clears, none reads", ["clear"], async ({ mates, options, prefix, first, all, none }) => {
    for (const mate of mates) {
      for (const name of ["a", "b"]) await first.call("set", prefix + name, value(options, name));
      for (const name of ["a", "b"]) await all(prefix + name, value(options, name));
      await mate.call("clear");
      for (const name of ["a", "b"]) await none(prefix + name);
    }
  });

  check(
    "a tag that one invalidates is a miss in all at once",
    ["invalidateTag"],
    async ({ mates, options, prefix, all, none }) => {
      for (const mate of mates) {
        await Promise.all(
          mates.map(async (each, number) => {
            await each.call("set", `${prefix}${number}`, value(options, "a"), {
              tags: [`${prefix}tag`, `${prefix}${number}`],
            });
            await each.call("set", `${prefix}kept ${number}`, value(options, "b"), { tags: [`${prefix}other`] });
          }),
        );
        for (const number of mates.keys()) await all(`${prefix}${number}`, value(options, "a"));
        await mate.call("invalidateTag", `${prefix}tag`);
        for (const number of mates.keys()) await none(`${prefix}${number}`);
        for (const number of mates.keys()) await all(`${prefix}kept ${number}`, value(options, "b"));
      }
    },
    TRIES,
  );

  check(
    "keys lists what others have stored and not deleted",
    ["keys", "delete"],
    async ({ mates, options, prefix, first }) => {
      for (const [number, mate] of mates.entries()) {
        for (const name of ["a", "b"]) await mate.call("set", `${prefix}${number}${name}`, value(options, name));
      }
      await first.call("delete", `${prefix}1a`);
      const expected = [...mates.keys()].flatMap((number) => [`${prefix}${number}a`, `${prefix}${number}b`]);
      for (const mate of mates) {
        same(
          await mate.order({ do: "keys", prefix }),
          expected.filter((key) => key !== `${prefix}1a`).sort(),
          "the keys",
        );
      }
    },
  );
}

function together(check: Define): void {
  check("a limit of n lets exactly n through", ["hit"], async ({ mates, prefix }) => {
    for (const limit of [1, 10, 100]) {
      const order = { do: "hit", key: `${prefix}${limit}`, calls: limit, limit, window: LONG_MS } as const;
      const through = await Promise.all(mates.map((mate) => mate.order<number>(order)));
      same(sum(through), limit, `requests that were allowed of ${mates.length * limit}`);
    }
  });

  check(`${CALLS} calls of getOrSet load once`, ["getOrSet"], async ({ mates, options, prefix, all }) => {
    const loaded = value(options, "loaded");
    const order = { do: "load", key: `${prefix}key`, calls: Math.ceil(CALLS / mates.length), value: loaded } as const;
    const answers = mates.map((mate) => mate.order<{ loads: number; values: unknown[] }>(order));
    // The loads end when all processes have made their calls, and have had time to ask for the key.
    await Promise.race([Promise.all(mates.map(({ called }) => called)), Promise.all(answers)]);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await Promise.all(mates.map((mate) => mate.order({ do: "finish" })));
    const done = await Promise.all(answers);
    for (const { values } of done) for (const got of values) same(got, loaded);
    same(sum(done.map(({ loads }) => loads)), 1, "loads in all processes");
    await all(`${prefix}key`, loaded);
  });
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}
