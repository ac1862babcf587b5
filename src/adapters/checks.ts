/** The checks of arguments that adapters have in common. */

import type { Cache } from "../index.ts";

/**
 * Checks that an argument is a cache. Its methods are looked at, and not its class, because the cache may come from another copy of
 * this package.
 *
 * @throws {TypeError} naming the argument.
 */
export function checkCache(cache: unknown, argument = "cache"): asserts cache is Cache<any, any> {
  const { incrementEntry, namespace } = (cache ?? {}) as Partial<Cache>;
  if (typeof incrementEntry !== "function" || typeof namespace !== "function") {
    throw new TypeError(`${argument}: must be a cache, as openCache, createCache or attachCache return it`);
  }
}

/**
 * Checks that options are an object without other names than the known ones.
 *
 * @throws {TypeError} naming the option that does not exist.
 */
export function checkNames(options: object, known: readonly string[], argument = "options"): void {
  if (typeof options !== "object" || options === null) throw new TypeError(`${argument}: must be an object`);
  for (const name of Object.keys(options)) {
    if (known.includes(name)) continue;
    const list = known.map((each) => `\`${each}\``).join(", ");
    throw new TypeError(`${argument}.${name.slice(0, 30)}: there is no such option. The options are ${list}.`);
  }
}

/**
 * Checks the name of a namespace.
 *
 * @throws {TypeError} and {RangeError} naming the argument.
 */
export function checkNamespace(name: unknown, argument: string): asserts name is string {
  if (typeof name !== "string") throw new TypeError(`${argument}: must be a string, not ${typeof name}`);
  if (name === "") throw new RangeError(`${argument}: must not be empty`);
}
