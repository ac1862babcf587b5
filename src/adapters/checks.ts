/** The checks of arguments that adapters have in common. */

import type { Cache } from "../index.ts";
import { asCache, type CacheOrTier } from "./store.ts";

/**
 * Checks that an argument is a cache or a tier. Its methods are looked at, and not its class, because it may come from another copy
 * of this package.
 *
 * @throws {TypeError} naming the argument.
 */
export function checkStore(store: unknown, argument = "cache"): asserts store is CacheOrTier {
  if (isStore(store)) return;
  throw new TypeError(
    `${argument}: must be a cache, as openCache, createCache or attachCache return it, or a tier, as openTier returns it`,
  );
}

/**
 * Checks that an argument is a cache, and not a tier, for what needs answers at once.
 *
 * @throws {TypeError} naming the argument.
 */
export function checkCache(cache: unknown, argument = "cache"): asserts cache is Cache<any, any> {
  if (!isStore(cache)) {
    throw new TypeError(`${argument}: must be a cache, as openCache, createCache or attachCache return it`);
  }
  if (asCache(cache) === undefined) {
    throw new TypeError(
      `${argument}: must be a cache, and is a tier, which this adapter does not work over. Its page says why.`,
    );
  }
}

function isStore(store: unknown): store is CacheOrTier {
  const { incrementEntry, namespace } = (store ?? {}) as Partial<CacheOrTier>;
  return typeof incrementEntry === "function" && typeof namespace === "function";
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
