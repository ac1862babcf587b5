/** One cache for the page and all workers, or, to compare, one for each worker, of which the page does not make use. */

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

  /** The cache that a worker is to use, and whether others use it too. */
  of(number, workers) {
    if (this.isShared) return { cache: this.#shared, shared: true };
    if (!this.#own.has(number)) {
      // Together as much as the one that all share.
      const size = Math.max(MIB, Math.floor((this.sizeMib * MIB) / workers));
      this.#own.set(number, createCache({ size, nearCache: 0 }));
    }
    return { cache: this.#own.get(number), shared: false };
  }

  /** Lets go of what only a terminated worker had. */
  forget(number) {
    this.#own.get(number)?.close();
    this.#own.delete(number);
  }

  /** A tile, if the page may read it. */
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
   * A cache has one size for its whole life, so another size is another cache. It gets the entries of the old one; those
   * for which it has no room it evicts like any others.
   */
  resize(sizeMib) {
    this.sizeMib = sizeMib;
    if (!this.isShared) return this.#start();
    const old = this.#shared;
    this.#shared = createCache({ size: sizeMib * MIB, nearCache: 0 });
    for (const [key, value] of old) this.#shared.set(key, value);
    old.close();
  }

  /** Begins anew, with one cache for all or one for each. */
  share(isShared) {
    this.isShared = isShared;
    this.#start();
  }

  #start() {
    for (const cache of this.all.values()) cache.close();
    this.#own.clear();
    this.#shared = this.isShared ? createCache({ size: this.sizeMib * MIB, nearCache: 0 }) : undefined;
  }

  /** All caches there are, by name. */
  get all() {
    return new Map(this.#shared === undefined ? this.#own : [["shared", this.#shared]]);
  }
}
