/** Caches whose hashes of keys and tags are the same in every run. Runs in browsers too. */

/**
 * Makes a cache with a fixed seed. Which keys and tags collide depends on the seed of a cache, which is random otherwise.
 *
 * @param seed a whole number below 2³²
 */
export function seeded<T>(seed: number, make: () => T): T {
  const original = crypto.getRandomValues;
  crypto.getRandomValues = ((array: ArrayBufferView) =>
    array instanceof Uint32Array ? array.fill(seed) : original.call(crypto, array as never)) as typeof original;
  try {
    return make();
  } finally {
    crypto.getRandomValues = original;
  }
}
