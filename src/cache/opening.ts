/**
 * One opening of a cache by this thread: what the cache and all its namespaces share. It knows whether the cache was closed,
 * and gives the seat back when it is.
 */

import type { Engine } from "../engine/engine.ts";
import { leaveSeat, type Seat, takeSeat } from "../engine/seats.ts";
import { closed } from "../errors.ts";
import type { Region } from "../memory/memory.ts";
import { Near } from "../near/near.ts";
import type { Resolved } from "./options.ts";

/** Near caches of openings that were forgotten without `close`. */
const forgotten = new FinalizationRegistry<Near>((near) => near.close());

/** What all views of one opened cache share. */
export class Opening {
  readonly engine: Engine;
  readonly options: Resolved;
  readonly name: string | undefined;
  readonly near: Near | undefined;
  /** Whether `close` was called. */
  closed = false;
  /** This thread's seat in the cache, which all its openings of the same memory share. */
  readonly #seat: Seat;
  /** Whether the seat was given back. That comes after `closed` while a value is being encoded, and when the stack ends. */
  #left = false;
  /** Values that are being encoded into the area, one within the other. */
  #encoding = 0;

  /**
   * Opens a region.
   *
   * @param isNew whether this thread has just created the region
   * @throws {CacheError} `ERR_BUSY` when all seats are taken by living threads.
   */
  constructor(region: Region, options: Resolved, name: string | undefined, isNew: boolean | undefined) {
    const seat = takeSeat(region, isNew);
    try {
      const { engine } = seat;
      const { nearCache, nearCacheSize, codec, frozenObjects } = options;
      this.#seat = seat;
      this.engine = engine;
      this.options = options;
      this.name = name;
      this.near = nearCache > 0 ? new Near(nearCache, nearCacheSize, engine, codec, frozenObjects) : undefined;
      seat.forgotten.register(this, seat, this);
    } catch (error) {
      // The stack may have ended, so nothing can be called here. The next opening takes the seat over.
      seat.users--;
      throw error;
    }
    if (this.near !== undefined) forgotten.register(this, this.near, this);
  }

  /** @throws {CacheError} `ERR_CLOSED` when the cache was closed. @throws {Error} when a clock uses the cache that asks it. */
  checkOpen(): void {
    if (this.closed) throw closed();
    // The area has the key and the value of the call that waits for the clock.
    if (this.engine.asking) this.engine.refuseClock();
  }

  /** Encodes an object to the area, which may run the user's code: until that ends, the area stays this thread's. */
  encode(value: unknown): number {
    this.#encoding++;
    try {
      return this.options.codec.encode(value, this.engine.value);
    } finally {
      if (--this.#encoding === 0 && this.closed) this.close();
    }
  }

  /** Leaves the cache. May be called twice, also after a call that was cut off. */
  close(): void {
    // First: a read of what is near does not look at `closed`.
    this.near?.close();
    this.closed = true;
    // While a value is encoded, the code that runs may call this; it takes effect when the encoding ends.
    if (this.#left || this.#encoding > 0) return;
    forgotten.unregister(this);
    leaveSeat(this.#seat, this);
    this.#left = true;
  }
}
