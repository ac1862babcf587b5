/**
 * The near cache: what this thread decoded last, kept beside the proof that it is still what the shared cache holds.
 *
 * The proof is looked at where it lies, in the shared memory: how often the bucket of the key was changed, and the clear
 * epoch. While both are what they were, nobody has stored, removed or moved anything there, in whichever process. So a value
 * that is near costs no call into the engine. When the bucket was changed, the engine's `find` tells whether it was
 * another key's entry that changed, and gives a new proof. Two things the proof does not show: whether one of its tags was
 * invalidated, so their counters are kept beside it and compared, and expiry.
 *
 * What is read here does not get hotter in the shared cache. So the first reads of a key go through the engine, which makes
 * its entry hotter with each, and proves those that are at their hottest.
 *
 * Slots come in sets of four, and the hash of a key names one set. What a read waits for is memory, so what every read needs
 * of a slot lies together, and of slots that hold other keys it needs no more than a byte:
 *
 *     #prints   a byte of each hash, four of a set in one word; zero for an empty slot
 *     #words    index of the changes │ changes │ notes │ hash
 *     #kept     key │ value
 *     #rare     entry low │ entry high │ generation │ bytes
 *     #extras   what few values have
 *
 * The arrays grow with what is kept, up to the number of entries that the cache was opened with. Values that were used
 * since somebody last wanted their place keep it (CLOCK): what is read once does not drive out what is read often.
 *
 * Hashing a key takes about as long as all the rest, so of long ones only the last characters are looked at, more when
 * that turns out to be too few, and all when even those are. The hash is keyed by a secret of this thread, so nobody can aim
 * keys at one set; who could would only make misses here, which the engine answers.
 */

import { type Engine, OUT_CHANGES, OUT_CHANGES_AT, OUT_EPOCH, OUT_STAMP, STAMP } from "./engine.ts";
import { KEY_LIMIT } from "./key.ts";
import type { Scope } from "./namespace.ts";
import { BYTES, CHANGES, CHANGES_AT, EXTRA, HASH, NOTES, PACKED, RARE, SET_LOG, USED, WORDS_LOG } from "./slot.ts";
import { hashText } from "./text.ts";

/** Slots of a set. */
const SET = 1 << SET_LOG;
/** Slots in the beginning. */
const FEW = 1024;
/** Bytes of values kept for each entry on average, so that large values cannot fill the heap. */
const BYTES_PER_ENTRY = 1024;
/** And of the bytes of the whole cache so many parts. */
const SHARE = 0.5;
/** Slots that are looked at for one value when there is no room for it. */
const LOOKS = 64;
/** The last characters of a key that its hash is made of: at first, then, and at last all that a key can have. */
const HASHED = 8;
const HASHED_THEN = 32;
const HASHED_AT_MOST = KEY_LIMIT;
/** When in so many slots of a thousand a key found another one of the same hash, more characters are hashed. */
const ALIKE = 20;

/** What most values do not have. */
export interface Extra {
  /** The id of the namespace; empty for the cache itself. */
  readonly scope: string;
  /** Milliseconds, `Infinity` without. */
  readonly expiry: number;
  /** The counters of its tags. */
  readonly tags: Int32Array | undefined;
}

/** What has to be kept beside a value: nothing for most. */
export function extraOf(scope: string, expiry: number, tags: Int32Array | undefined): Extra | undefined {
  return scope === "" && expiry === Infinity && tags === undefined ? undefined : { scope, expiry, tags };
}

/** The decoded values of one thread, for a cache and its namespaces. */
export class Near {
  readonly #engine: Engine;
  /** The memory of the engine. Reading words of it needs no atomics: see {@link isCurrent}. */
  readonly #memory32: Int32Array;
  readonly #memory64: Float64Array;
  readonly #epochAt: number;
  readonly #hitsAt: number;
  readonly #most: number;
  readonly #budget: number;
  #slots = 0;
  #prints = new Int32Array(0);
  #words = new Int32Array(0);
  #rare = new Int32Array(0);
  #kept: unknown[] = [];
  #extras: (Extra | undefined)[] = [];
  /** The clear epoch in which all that is here was read. */
  #epoch = 0;
  #taken = 0;
  #bytes = 0;
  /** The slot that is looked at next when room is needed. */
  #hand = 0;
  /** The last characters of a key that its hash is made of. */
  #hashed = HASHED;
  /** How often a key found another one of the same hash. */
  #alike = 0;

  /** @param entries rounded up to a power of two */
  constructor(entries: number, engine: Engine) {
    this.#engine = engine;
    const { buffer } = engine.region.memory;
    this.#memory32 = new Int32Array(buffer);
    this.#memory64 = new Float64Array(buffer);
    this.#epochAt = engine.clearEpochAt / 4;
    this.#hitsAt = engine.nearHitsAt / 8;
    this.#most = 2 ** Math.ceil(Math.log2(Math.max(entries, 16)));
    this.#budget = Math.min(this.#most * BYTES_PER_ENTRY, engine.region.size * SHARE);
    this.#begin(0);
  }

  /** The slot of a key in a namespace, or -1. What it holds may be old: see {@link isCurrent} and {@link renew}. */
  find(key: string, scope: Scope): number {
    return this.#find(hashText(key, this.#hashed) ^ scope.salt, key, scope.id);
  }

  #find(hash: number, key: string, scope: string): number {
    const prints = this.#prints;
    const set = hash & (prints.length - 1);
    // The bytes that are the same become zero, and of these the highest bits are set; now and then of another byte, too
    // (Mycroft's test for a zero byte in a word).
    const other = (prints[set] as number) ^ Math.imul(printOf(hash), 0x01010101);
    for (let same = (other - 0x01010101) & ~other & 0x80808080; same !== 0; same &= same - 1) {
      const slot = (set << SET_LOG) | ((31 - Math.clz32(same & -same)) >> 3);
      if (this.#holds(slot, key, scope)) return slot;
    }
    return -1;
  }

  #holds(slot: number, key: string, scope: string): boolean {
    return this.#kept[slot << 1] === key && scope === (this.extra(slot)?.scope ?? "");
  }

  /**
   * Whether the value in a slot that {@link find} gave is still what the shared cache holds, but for its {@link extra}; then
   * it counts as read.
   *
   * Plain loads suffice: each is of one word, and what others stored before this call began is seen by any load made in it.
   * Of the count of changes it is the low half: 2³² changes of one bucket between two reads bring it back.
   */
  isCurrent(slot: number): boolean {
    const words = this.#words;
    const at = slot << WORDS_LOG;
    const memory32 = this.#memory32;
    if (words[at | CHANGES] !== memory32[words[at | CHANGES_AT] as number] || this.#epoch !== memory32[this.#epochAt]) {
      return false;
    }
    const notes = words[at | NOTES] as number;
    if ((notes & USED) === 0) words[at | NOTES] = notes | USED;
    // Also keeps optimisers from reading the words above once for many calls.
    (this.#memory64[this.#hitsAt] as number)++;
    return true;
  }

  /**
   * The same after the engine's `find` has looked the key up: whether the stamp it put out is that of the value in the slot.
   * If so, what else it put out proves the value from now on.
   */
  renew(slot: number): boolean {
    const words = this.#words;
    const { out } = this.#engine;
    for (let i = 0; i < STAMP; i++) if (this.#rare[slot * RARE + i] !== out[OUT_STAMP + i]) return false;
    if (this.#epoch !== out[OUT_EPOCH]) return false;
    const at = slot << WORDS_LOG;
    words[at | CHANGES] = out[OUT_CHANGES] as number;
    words[at | NOTES] = (words[at | NOTES] as number) | USED;
    return true;
  }

  /** The value in a slot that {@link find} gave, packed when {@link isPacked} says so. */
  value(slot: number): unknown {
    return this.#kept[(slot << 1) | 1];
  }

  /** Whether that value can be returned as it is. */
  isBare(slot: number): boolean {
    return ((this.#words[(slot << WORDS_LOG) | NOTES] as number) & (EXTRA | PACKED)) === 0;
  }

  /** Whether readers get a copy of that value, by `unpack`. */
  isPacked(slot: number): boolean {
    return ((this.#words[(slot << WORDS_LOG) | NOTES] as number) & PACKED) !== 0;
  }

  /** What else has to be looked at before that value is returned. */
  extra(slot: number): Extra | undefined {
    const notes = this.#words[(slot << WORDS_LOG) | NOTES] as number;
    return (notes & EXTRA) === 0 ? undefined : this.#extras[slot];
  }

  /** Whether none of the tags of a value was invalidated. */
  hasItsTags(extra: Extra): boolean {
    return this.#engine.areCurrent(extra.tags);
  }

  /** Keeps a value of `length` bytes with its stamp, which lies in `out` as the engine's `get` has put it there. */
  keep(
    key: string,
    scope: Scope,
    out: Int32Array,
    value: unknown,
    extra: Extra | undefined,
    length: number,
    isPacked: boolean,
  ): void {
    // An entry that can change in place, such as a counter, has no stamp that could prove anything.
    if (out[OUT_STAMP] === 0 && out[OUT_STAMP + 1] === 0) return;
    const epoch = out[OUT_EPOCH] as number;
    if (epoch !== this.#epoch) this.#begin(epoch);
    if (this.#taken >= this.#slots / 2 && this.#slots < this.#most) this.#rebuild(this.#slots * 2, this.#hashed);
    if (this.#alike > (this.#slots * ALIKE) / 1000 && this.#hashed < HASHED_AT_MOST) {
      this.#rebuild(this.#slots, this.#hashed === HASHED ? HASHED_THEN : HASHED_AT_MOST);
    }
    const hash = hashText(key, this.#hashed) ^ scope.salt;
    const slot = this.#slotFor(hash, key, scope.id);
    if (slot < 0) return;
    this.drop(slot);
    if (this.#bytes + length > this.#budget && !this.#makeRoom(length)) return;
    this.#taken++;
    this.#bytes += length;
    const words = this.#words;
    const at = slot << WORDS_LOG;
    const changesAt = out[OUT_CHANGES_AT] as number;
    words[at | CHANGES_AT] = changesAt;
    // A count that will not come back: the engine gives the proof with the next read.
    words[at | CHANGES] = (this.#memory32[changesAt] as number) - 1;
    words[at | NOTES] = (extra === undefined ? 0 : EXTRA) | (isPacked ? PACKED : 0);
    words[at | HASH] = hash;
    const rare = this.#rare;
    for (let i = 0; i < STAMP; i++) rare[slot * RARE + i] = out[OUT_STAMP + i] as number;
    rare[slot * RARE + BYTES] = length;
    this.#kept[slot * 2] = key;
    this.#kept[slot * 2 + 1] = value;
    this.#print(slot, printOf(hash));
    if (extra !== undefined) this.#extras[slot] = extra;
  }

  /** Nothing is kept: in the beginning, and when everything was cleared since the last value was kept. */
  #begin(epoch: number): void {
    this.#epoch = epoch;
    this.#taken = 0;
    this.#bytes = 0;
    this.#hand = 0;
    this.#allocate(Math.min(FEW, this.#most));
  }

  /** Empty slots. */
  #allocate(slots: number): void {
    this.#slots = slots;
    this.#prints = new Int32Array(slots / SET);
    this.#words = new Int32Array(slots << WORDS_LOG);
    this.#rare = new Int32Array(slots * RARE);
    this.#kept = new Array(slots * 2).fill(undefined);
    this.#extras = new Array(slots).fill(undefined);
  }

  #isTaken(slot: number): boolean {
    return this.#kept[slot * 2] !== undefined;
  }

  /** Whether it was read since somebody wanted its place. */
  #isUsed(slot: number): boolean {
    return ((this.#words[(slot << WORDS_LOG) | NOTES] as number) & USED) !== 0;
  }

  #forgetUse(slot: number): void {
    const at = (slot << WORDS_LOG) | NOTES;
    this.#words[at] = (this.#words[at] as number) & ~USED;
  }

  /** The slot for a key: the one it has, else an empty one of its set, else one that was not used; -1 when all were. */
  #slotFor(hash: number, key: string, scope: string): number {
    const found = this.#find(hash, key, scope);
    if (found >= 0) return found;
    const first = (hash << SET_LOG) & (this.#slots - 1);
    for (let slot = first; slot < first + SET; slot++) {
      if (!this.#isTaken(slot)) return slot;
      if (this.#words[(slot << WORDS_LOG) | HASH] === hash) this.#alike++;
    }
    for (let slot = first; slot < first + SET; slot++) if (!this.#isUsed(slot)) return slot;
    for (let slot = first; slot < first + SET; slot++) this.#forgetUse(slot);
    return -1;
  }

  /** Other slots, for what is in these, or the same with longer hashes. */
  #rebuild(slots: number, hashed: number): void {
    const [words, rare, kept, extras, before] = [this.#words, this.#rare, this.#kept, this.#extras, this.#hashed];
    this.#hashed = hashed;
    this.#allocate(slots);
    for (let slot = 0; slot < extras.length; slot++) {
      if (kept[slot * 2] === undefined) continue;
      const key = kept[slot * 2] as string;
      let hash = words[(slot << WORDS_LOG) | HASH] as number;
      // The salt of its namespace is in both.
      if (hashed !== before) hash ^= hashText(key, before) ^ hashText(key, hashed);
      const to = this.#slotFor(hash, key, extras[slot]?.scope ?? "");
      if (to < 0 || this.#isTaken(to)) {
        // Too many of one set now.
        this.#taken--;
        this.#bytes -= rare[slot * RARE + BYTES] as number;
        continue;
      }
      this.#words.set(words.subarray(slot << WORDS_LOG, (slot + 1) << WORDS_LOG), to << WORDS_LOG);
      this.#words[(to << WORDS_LOG) | HASH] = hash;
      this.#rare.set(rare.subarray(slot * RARE, (slot + 1) * RARE), to * RARE);
      this.#kept[to * 2] = key;
      this.#kept[to * 2 + 1] = kept[slot * 2 + 1];
      this.#extras[to] = extras[slot];
      this.#print(to, printOf(hash));
    }
    this.#alike = 0;
  }

  #print(slot: number, print: number): void {
    const shift = (slot & (SET - 1)) << 3;
    const set = slot >> SET_LOG;
    this.#prints[set] = ((this.#prints[set] as number) & ~(0xff << shift)) | (print << shift);
  }

  /** Lets go of values that were not used since they were last looked at here, until there is room for one of `length`. */
  #makeRoom(length: number): boolean {
    for (let looks = 0; looks < LOOKS && this.#bytes + length > this.#budget; looks++) {
      if (this.#isUsed(this.#hand)) this.#forgetUse(this.#hand);
      else this.drop(this.#hand);
      this.#hand = (this.#hand + 1) & (this.#slots - 1);
    }
    return this.#bytes + length <= this.#budget;
  }

  /** Lets go of what a slot holds. */
  drop(slot: number): void {
    if (!this.#isTaken(slot)) return;
    this.#bytes -= this.#rare[slot * RARE + BYTES] as number;
    this.#taken--;
    this.#kept[slot * 2] = undefined;
    this.#kept[slot * 2 + 1] = undefined;
    this.#print(slot, 0);
    if (this.#extras[slot] !== undefined) this.#extras[slot] = undefined;
  }
}

/** A byte of a hash that is not zero, of bits that do not name the set. */
function printOf(hash: number): number {
  return (hash >>> 24) | 1;
}
