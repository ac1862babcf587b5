/**
 * The near cache: what this thread decoded last, kept beside the proof that it is still what the shared cache holds.
 *
 * The proof is looked at where it lies, in the shared memory: the word of the entry that the value was read through, the
 * generation of the segment its record lies in, and the clear epoch. While all three are what they were, nobody has stored,
 * removed, evicted or moved anything here, in whichever process. So a value that is near costs no call into the engine. Two
 * things the proof does not show: whether one of its tags was invalidated, so their counters are kept beside it and
 * compared, and expiry.
 *
 * The word of an entry holds its heat, and the proof is that of a key at its hottest. So the first reads of a key go
 * through the engine, which makes it hotter with each, and no read of a hot key writes to its entry.
 *
 * Slots come in pairs, and the hash of a key names one pair:
 *
 *     #hashes   hash
 *     #words    entry low │ entry high │ index of the entry │ of the generation │ generation │ clear epoch │ bytes │ used
 *     #kept     key │ namespace │ value │ extra
 *
 * The arrays grow with what is kept, up to the number of entries that the cache was opened with. Values that were used
 * since somebody last wanted their place keep it (CLOCK): what is read once does not drive out what is read often.
 */

import type { Copier } from "./copy.ts";
import { type Engine, OUT_STAMP, STAMP } from "./engine.ts";
import type { Scope } from "./namespace.ts";
import { hashText } from "./text.ts";

/** Words of a slot in `#words`, behind those of the stamp, and where among them is what. */
const WORDS = 8;
const AT = 2;
const STATE = 3;
const GENERATION = 4;
const EPOCH = 5;
const BYTES = 6;
const USED = 7;
/** Places of a slot in `#kept`, and where among them is what. */
const KEPT = 4;
const KEY = 0;
const SCOPE = 1;
const VALUE = 2;
const EXTRA = 3;
/** Slots in the beginning. */
const FEW = 1024;
/** Bytes of values kept for each slot on average, so that large values cannot fill the heap. */
const BYTES_PER_SLOT = 256;
/** Slots that are looked at for one value when there is no room for it. */
const LOOKS = 64;

/** What most values do not have. */
export interface Extra {
  /** Milliseconds, `Infinity` without. */
  readonly expiry: number;
  /** The counters of its tags. */
  readonly tags: Int32Array | undefined;
  /** Makes the copy that a reader gets, where the value itself must stay here. */
  readonly copier: Copier | undefined;
}

/** What has to be kept beside a value: nothing for most. */
export function extraOf(expiry: number, tags: Int32Array | undefined, copier: Copier | undefined): Extra | undefined {
  return expiry === Infinity && tags === undefined && copier === undefined ? undefined : { expiry, tags, copier };
}

/** The decoded values of one thread, for a cache and its namespaces. */
export class Near {
  readonly #engine: Engine;
  readonly #out: Int32Array;
  /** The memory of the engine. Reading words of it needs no atomics: see {@link isCurrent}. */
  readonly #memory32: Int32Array;
  readonly #memory64: Float64Array;
  readonly #epochAt: number;
  readonly #hitsAt: number;
  readonly #most: number;
  readonly #budget: number;
  #slots: number;
  #hashes: Int32Array;
  #words: Int32Array;
  /** The same as `#words`; of use are the entries. */
  #entries: Float64Array;
  #kept: unknown[];
  #taken = 0;
  #bytes = 0;
  /** The slot that is looked at next when room is needed. */
  #hand = 0;

  /** @param entries rounded up to a power of two */
  constructor(entries: number, engine: Engine) {
    this.#engine = engine;
    this.#out = engine.out;
    const { buffer } = engine.region.memory;
    this.#memory32 = new Int32Array(buffer);
    this.#memory64 = new Float64Array(buffer);
    this.#epochAt = engine.clearEpochAt / 4;
    this.#hitsAt = engine.nearHitsAt / 8;
    this.#most = 2 ** Math.ceil(Math.log2(Math.max(entries, 16)));
    this.#budget = this.#most * BYTES_PER_SLOT;
    this.#slots = Math.min(FEW, this.#most);
    this.#hashes = new Int32Array(this.#slots);
    this.#words = new Int32Array(this.#slots * WORDS);
    this.#entries = new Float64Array(this.#words.buffer);
    this.#kept = new Array(this.#slots * KEPT).fill(undefined);
  }

  /** The slot of a key in a namespace, or -1. What it holds may be old: see {@link isCurrent} and {@link renew}. */
  find(key: string, scope: Scope): number {
    const hash = hashText(key) ^ scope.salt;
    const first = hash & (this.#slots - 2);
    if (this.#holds(first, hash, key, scope.id)) return first;
    return this.#holds(first + 1, hash, key, scope.id) ? first + 1 : -1;
  }

  /**
   * Whether the value in a slot that {@link find} gave is still what the shared cache holds, but for its {@link extra}; then
   * it counts as read.
   *
   * Plain loads suffice. An entry word is one load of eight bytes, and no two of those compare equal as numbers unless they
   * are the same (those that are no numbers compare unequal to themselves, and go the long way). The generation only ever
   * grows and was the same when the value was kept: had the segment begun another life in between, whichever load was made
   * first, it would be another. What others stored before this call began is seen by any load made in it.
   */
  isCurrent(slot: number): boolean {
    const words = this.#words;
    const at = slot * WORDS;
    const memory32 = this.#memory32;
    if (
      this.#entries[at / 2] !== this.#memory64[words[at + AT] as number] ||
      words[at + GENERATION] !== memory32[words[at + STATE] as number] ||
      words[at + EPOCH] !== memory32[this.#epochAt]
    ) {
      return false;
    }
    if (words[at + USED] === 0) words[at + USED] = 1;
    // Also keeps optimisers from reading the words above once for many calls.
    (this.#memory64[this.#hitsAt] as number)++;
    return true;
  }

  /** The same after the engine's `find` has looked the key up: whether the stamp it put out is that of the value in the slot. */
  renew(slot: number): boolean {
    const words = this.#words;
    const out = this.#out;
    const at = slot * WORDS;
    for (let i = 0; i < STAMP; i++) if (words[at + i] !== out[OUT_STAMP + i]) return false;
    words[at + USED] = 1;
    return true;
  }

  /** The value in a slot that {@link find} gave. */
  value(slot: number): unknown {
    return this.#kept[slot * KEPT + VALUE];
  }

  /** What else has to be looked at before that value is returned. */
  extra(slot: number): Extra | undefined {
    return this.#kept[slot * KEPT + EXTRA] as Extra | undefined;
  }

  /** Whether none of the tags of a value was invalidated. */
  hasItsTags(extra: Extra): boolean {
    return this.#engine.areCurrent(extra.tags);
  }

  /** Keeps a value of `length` bytes with its stamp, which lies in `out` as the engine's `get` has put it there. */
  keep(key: string, scope: Scope, out: Int32Array, value: unknown, extra: Extra | undefined, length: number): void {
    // An entry that can change in place, such as a counter, has no stamp that could prove anything.
    if (out[OUT_STAMP] === 0 && out[OUT_STAMP + 1] === 0) return;
    if (this.#taken >= this.#slots / 4 && this.#slots < this.#most) this.#grow();
    const hash = hashText(key) ^ scope.salt;
    const slot = this.#slotFor(hash, key, scope.id);
    if (slot < 0) return;
    this.drop(slot);
    if (this.#bytes + length > this.#budget && !this.#makeRoom(length)) return;
    this.#taken++;
    this.#bytes += length;
    this.#hashes[slot] = hash;
    const at = slot * WORDS;
    for (let i = 0; i < STAMP; i++) this.#words[at + i] = out[OUT_STAMP + i] as number;
    this.#words[at + BYTES] = length;
    this.#words[at + USED] = 0;
    const kept = this.#kept;
    kept[slot * KEPT + KEY] = key;
    kept[slot * KEPT + SCOPE] = scope.id;
    kept[slot * KEPT + VALUE] = value;
    kept[slot * KEPT + EXTRA] = extra;
  }

  #isTaken(slot: number): boolean {
    return this.#kept[slot * KEPT + KEY] !== undefined;
  }

  #holds(slot: number, hash: number, key: unknown, scope: unknown): boolean {
    const at = slot * KEPT;
    return this.#hashes[slot] === hash && this.#kept[at + KEY] === key && this.#kept[at + SCOPE] === scope;
  }

  /** The slot for a key: the one it has, else an empty one, else one that was not used; -1 when both were. */
  #slotFor(hash: number, key: unknown, scope: unknown): number {
    const first = hash & (this.#slots - 2);
    const second = first + 1;
    if (this.#holds(first, hash, key, scope)) return first;
    if (this.#holds(second, hash, key, scope)) return second;
    if (!this.#isTaken(first)) return first;
    if (!this.#isTaken(second)) return second;
    const words = this.#words;
    if (words[first * WORDS + USED] === 0) return first;
    if (words[second * WORDS + USED] === 0) return second;
    words[first * WORDS + USED] = 0;
    words[second * WORDS + USED] = 0;
    return -1;
  }

  /** Twice the slots, for what is in them. */
  #grow(): void {
    const [hashes, words, kept] = [this.#hashes, this.#words, this.#kept];
    this.#slots *= 2;
    this.#hashes = new Int32Array(this.#slots);
    this.#words = new Int32Array(this.#slots * WORDS);
    this.#entries = new Float64Array(this.#words.buffer);
    this.#kept = new Array(this.#slots * KEPT).fill(undefined);
    for (let slot = 0; slot < hashes.length; slot++) {
      if (kept[slot * KEPT + KEY] === undefined) continue;
      const hash = hashes[slot] as number;
      // The two of a pair part or stay together: there is room for both.
      const to = this.#slotFor(hash, kept[slot * KEPT + KEY], kept[slot * KEPT + SCOPE]);
      this.#hashes[to] = hash;
      for (let i = 0; i < WORDS; i++) this.#words[to * WORDS + i] = words[slot * WORDS + i] as number;
      for (let i = 0; i < KEPT; i++) this.#kept[to * KEPT + i] = kept[slot * KEPT + i];
    }
  }

  /** Lets go of values that were not used since they were last looked at here, until there is room for one of `length`. */
  #makeRoom(length: number): boolean {
    for (let looks = 0; looks < LOOKS && this.#bytes + length > this.#budget; looks++) {
      const used = this.#hand * WORDS + USED;
      if (this.#words[used] === 0) this.drop(this.#hand);
      else this.#words[used] = 0;
      this.#hand = (this.#hand + 1) & (this.#slots - 1);
    }
    return this.#bytes + length <= this.#budget;
  }

  /** Lets go of what a slot holds. */
  drop(slot: number): void {
    if (!this.#isTaken(slot)) return;
    this.#bytes -= this.#words[slot * WORDS + BYTES] as number;
    this.#taken--;
    for (let i = 0; i < KEPT; i++) this.#kept[slot * KEPT + i] = undefined;
  }
}
