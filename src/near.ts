/**
 * The near cache: what this thread decoded last, kept beside the proof that it is still what the shared cache holds.
 *
 * Every slot of the index has a slot here, in plain arrays, so there is no hashing and no eviction in JavaScript. A
 * value stays with the key and the stamp of the entry it was decoded from; the engine's `find` gives the stamp of the
 * entry that is there now, and the same stamp for the same key means the same value, in whichever process it was set.
 * Two things a stamp does not show: whether one of its tags was invalidated, so their counters are kept beside it and
 * compared, and expiry.
 */

import { type Engine, OUT_STAMP } from "./engine.ts";

/** A stamp without its way: entry low and high, generation, clear epoch. */
const STAMP = 4;
/** Bytes of values kept for each slot on average, so that large values cannot fill the heap. */
const BYTES_PER_SLOT = 256;

/** The decoded values of one thread, for a cache and its namespaces. */
export class Near {
  readonly #mask: number;
  readonly #stamps: Int32Array;
  readonly #keys: (string | undefined)[];
  readonly #scopes: string[];
  readonly #values: unknown[];
  readonly #tags: (Int32Array | undefined)[];
  readonly #expiries: Float64Array;
  readonly #lengths: Uint32Array;
  readonly #budget: number;
  #bytes = 0;

  readonly #engine: Engine;

  /** @param entries rounded up to a power of two */
  constructor(entries: number, engine: Engine) {
    this.#engine = engine;
    const slots = 2 ** Math.ceil(Math.log2(Math.max(entries, 16)));
    this.#mask = slots - 1;
    this.#stamps = new Int32Array(slots * STAMP);
    this.#keys = new Array(slots).fill(undefined);
    this.#scopes = new Array(slots).fill("");
    this.#values = new Array(slots).fill(undefined);
    this.#tags = new Array(slots).fill(undefined);
    this.#expiries = new Float64Array(slots);
    this.#lengths = new Uint32Array(slots);
    this.#budget = slots * BYTES_PER_SLOT;
  }

  /** The slot that holds the value of `key` in a namespace, proved by the stamp in `out`, or -1. */
  find(key: string, scope: string, way: number, out: Int32Array): number {
    const slot = way & this.#mask;
    if (this.#keys[slot] !== key || this.#scopes[slot] !== scope) return -1;
    const stamps = this.#stamps;
    const at = slot * STAMP;
    return stamps[at] === out[OUT_STAMP] &&
      stamps[at + 1] === out[OUT_STAMP + 1] &&
      stamps[at + 2] === out[OUT_STAMP + 2] &&
      stamps[at + 3] === out[OUT_STAMP + 3] &&
      this.#engine.areCurrent(this.#tags[slot])
      ? slot
      : -1;
  }

  /** The value in a slot that {@link find} gave. */
  value(slot: number): unknown {
    return this.#values[slot];
  }

  /** When the value in a slot expires, in milliseconds. */
  expiry(slot: number): number {
    return this.#expiries[slot] as number;
  }

  /** Keeps a value of `length` bytes with the stamp that `get` left in `out`, and the counters of its tags. */
  keep(
    key: string,
    scope: string,
    out: Int32Array,
    tags: Int32Array | undefined,
    value: unknown,
    expiry: number,
    length: number,
  ): void {
    // An entry that can change in place, such as a counter, has no stamp that could prove anything.
    if (out[OUT_STAMP] === 0 && out[OUT_STAMP + 1] === 0) return;
    const slot = (out[OUT_STAMP - 1] as number) & this.#mask;
    const bytes = this.#bytes - (this.#lengths[slot] as number) + length;
    if (bytes > this.#budget) return;
    this.#bytes = bytes;
    this.#lengths[slot] = length;
    this.#keys[slot] = key;
    this.#scopes[slot] = scope;
    this.#values[slot] = value;
    this.#tags[slot] = tags;
    this.#expiries[slot] = expiry;
    const at = slot * STAMP;
    for (let i = 0; i < STAMP; i++) this.#stamps[at + i] = out[OUT_STAMP + i] as number;
  }

  /** Lets go of what a slot holds. */
  drop(slot: number): void {
    this.#bytes -= this.#lengths[slot] as number;
    this.#lengths[slot] = 0;
    this.#keys[slot] = undefined;
    this.#values[slot] = undefined;
  }
}
