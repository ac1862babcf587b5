/**
 * One opening of a cache by this thread. The `Cache` object and all its namespaces share it. It knows whether the cache was
 * closed, and gives the seat back when it is.
 */

import { Flights } from "../coordinate/flights.ts";
import { Outcomes, type Shelf } from "../coordinate/outcomes.ts";
import type { Engine } from "../engine/engine.ts";
import { leaveSeat, type Seat, takeSeat } from "../engine/seats.ts";
import { closed } from "../errors.ts";
import type { Region } from "../memory/memory.ts";
import { Near } from "../near/near.ts";
import type { Resolved } from "./options.ts";

/** Closes the near caches of openings that were garbage-collected without `close`. */
const forgotten = new FinalizationRegistry<Near>((near) => near.close());

/** What all views of one opened cache have in common: the engine, the options, the near cache. */
export class Opening {
  readonly engine: Engine;
  readonly options: Resolved;
  readonly name: string | undefined;
  readonly near: Near | undefined;
  /** Whether `close` was called. */
  closed = false;
  /** What ends when the cache is closed: waits, watches and locks. Each function removes itself. */
  readonly endings: Set<() => void> = new Set();
  /** This thread's seat in the cache, which all its openings of the same memory share. */
  readonly #seat: Seat;
  /**
   * Whether the seat was given back. That is later than `closed` when `close` was called while a value is encoded, and when
   * the stack ended within `close`.
   */
  #left = false;
  #flights: Flights | undefined;
  /** How many values are being encoded into the area: a getter of one may store another. */
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
      // The stack may have ended, so no function can be called here. The next opening of this thread uses the seat again.
      seat.users--;
      throw error;
    }
    if (this.near !== undefined) forgotten.register(this, this.near, this);
  }

  /**
   * Checks that the cache can be used.
   *
   * @throws {CacheError} `ERR_CLOSED` when the cache was closed.
   * @throws {Error} when the clock uses the cache that asks it for the time.
   */
  checkOpen(): void {
    if (this.closed) throw closed();
    // The area holds the key and the value of the call that waits for the clock.
    if (this.engine.asking) this.engine.refuseClock();
  }

  /**
   * Encodes an object into the area. That may run the user's code, which may close the cache: then the seat, with the area, is
   * given back only after the encoding. Returns the length in bytes.
   */
  encode(value: unknown): number {
    this.#encoding++;
    try {
      return this.options.codec.encode(value, this.engine.value);
    } finally {
      if (--this.#encoding === 0 && this.closed) this.close();
    }
  }

  /**
   * The loads of this opening.
   *
   * @param shelf makes the shelf for what is not stored, when it is first needed
   */
  flights(shelf: () => Shelf): Flights {
    if (this.#flights === undefined) {
      const flights = new Flights(new Outcomes(shelf()));
      this.#flights = flights;
      this.endings.add(() => flights.close());
    }
    return this.#flights;
  }

  /** Leaves the cache. May be called twice, also after a call that was cut off. */
  close(): void {
    // The near cache comes first, because a read of it does not look at `closed`.
    this.near?.close();
    this.closed = true;
    for (const end of this.endings) end();
    // When the user's code calls this while a value is encoded, `encode` calls it again at its end.
    if (this.#left || this.#encoding > 0) return;
    forgotten.unregister(this);
    leaveSeat(this.#seat, this);
    this.#left = true;
  }
}
