/**
 * Whether a cache has room for more entries. An import must stop when it has none: imported entries were never read, so the cache evicts
 * the oldest of them first, and these are the hottest of the snapshot.
 *
 * A single eviction does not say so, because the bucket of one key can be full while the cache is not. Two things do: additions that
 * cost many evictions, and a segment that was taken back because of its age, not because it was mostly empty.
 */

import type { Engine } from "../engine/engine.ts";

/** So many evictions, beyond one for each `ADDITIONS` entries that were added, say that the cache is full. */
const EVICTIONS = 8;
const ADDITIONS = 8;

/** Looks at one cache during an import. */
export class Room {
  /** Whether the cache has evicted to make room. Stays so. */
  isOver = false;
  readonly #engine: Engine;
  /** Evictions that additions have cost, less one for each `ADDITIONS`. */
  #cost = 0;
  #own: number;
  #counts: ReturnType<Engine["counts"]>;

  constructor(engine: Engine) {
    this.#engine = engine;
    this.#own = engine.ownEvictions;
    this.#counts = engine.counts();
  }

  /** Before an entry is added. */
  before(): void {
    this.#own = this.#engine.ownEvictions;
  }

  /** After an entry was added, or could not be added. */
  after(): void {
    const evicted = (this.#engine.ownEvictions - this.#own) >>> 0;
    this.#cost = Math.max(0, this.#cost + evicted - 1 / ADDITIONS);
    if (this.#cost >= EVICTIONS) this.isOver = true;
  }

  /**
   * After many entries. Notices what {@link after} does not: small entries that seldom cost an eviction, but that of a large value, and
   * evictions by others.
   */
  look(): void {
    const [last, now] = [this.#counts, this.#engine.counts()];
    const aged = now.reclaims - now.compactions - (last.reclaims - last.compactions);
    if (aged > 0 && now.evictions > last.evictions) this.isOver = true;
    this.#counts = now;
  }
}
