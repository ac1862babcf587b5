/** One cache for the page and all workers, or, for comparison, one cache for each worker, which the page does not use. */

import { createCache } from "cache-machine";

const MIB = 2 ** 20;

export class Caches {
  isShared = true;
  sizeMib;
  #shared;
  #own = new Map();

  constructor(sizeMib) {
    this.sizeMib = sizeMib;
    this.#shared = createCache({ size: sizeMib * MIB, nearCache: 0 });
  }

  /** The cache for a worker, and whether it is shared. */
  of(number, workers) {
    if (this.isShared) return { cache: this.#shared, shared: true };
    if (!this.#own.has(number)) {
      // All these caches together have the size of the shared one.
      const size = Math.max(MIB, Math.floor((this.sizeMib * MIB) / workers));
      this.#own.set(number, createCache({ size, nearCache: 0 }));
    }
    return { cache: this.#own.get(number), shared: false };
  }

  /** Closes the cache of a terminated worker, if it had its own. */
  forget(number) {
    this.#own.get(number)?.close();
    this.#own.delete(number);
  }

  /** Reads a tile from the shared cache. */
  read(key) {
    return this.isShared ? this.#shared.get(key) : undefined;
  }

  get keys() {
    return this.isShared ? [...this.#shared.keys()] : [...this.#own.values()].flatMap((cache) => [...cache.keys()]);
  }

  clear() {
    for (const cache of this.all.values()) cache.clear();
  }

  /**
   * Changes the size. The size of a cache is fixed, so this creates another cache and copies the entries; it evicts those for
   * which it has no room.
   */
  resize(sizeMib) {
    this.sizeMib = sizeMib;
    if (!this.isShared) return this.#start();
    const old = this.#shared;
    this.#shared = createCache({ size: sizeMib * MIB, nearCache: 0 });
    for (const [key, value] of old) this.#shared.set(key, value);
    old.close();
  }

  /** Starts again with empty caches: one for all, or one for each worker. */
  share(isShared) {
    this.isShared = isShared;
    this.#start();
  }

  #start() {
    for (const cache of this.all.values()) cache.close();
    this.#own.clear();
    this.#shared = this.isShared ? createCache({ size: this.sizeMib * MIB, nearCache: 0 }) : undefined;
  }

  /** All caches by name. */
  get all() {
    return new Map(this.#shared === undefined ? this.#own : [["shared", this.#shared]]);
  }
}
