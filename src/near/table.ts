/**
 * The table of the near cache: values that this thread has decoded, each with the proof that the shared cache still holds it.
 *
 * The proof lies in shared memory: the count of changes of the key's bucket, and the clear epoch. While both are what they
 * were, nobody in any process has stored, removed or moved anything in that bucket. So a read of such a value makes no call
 * into the engine. After a change in the bucket, the engine's `find` tells whether the entry of this key changed, and gives
 * a new proof. The proof says nothing about expiry and about tags: see {@link Extra}.
 *
 * A read here does not raise the heat of the entry in the shared cache. So the first reads of a key go through the engine,
 * which raises its heat, and proves only entries whose heat is the highest.
 *
 * A page has 256 sets of four slots, and the hash of a key names one set. Reads are bound by memory latency: fields that every
 * read uses are adjacent, and a slot that does not match costs one byte. `slots.ts` draws a page. Beside its words lie, for
 * each slot, the key and the value, or the {@link Extra} that holds the value.
 *
 * The table grows by a page at a time (linear hashing): half of the values of one page move to the new page, so no call moves
 * more than that. It grows while there is budget (`budget.ts`).
 *
 * In a full table or set CLOCK decides which values stay: a value keeps its slot if it was read since another key last wanted
 * this slot. There is also admission: in a full table or set a new key gets a slot only when it comes a second time. So keys
 * that are read once do not replace keys that are read often.
 *
 * Hashing a whole key takes about as long as the rest of a read. So only the last characters are hashed. When that gives too
 * many collisions, more characters are hashed, and in the end all. The hash is keyed by a secret of this thread, so an attacker
 * cannot choose keys of one set. Such keys would only cause misses in this table, and the engine answers those reads.
 */

import { OUT_CHANGES, OUT_CHANGES_AT, OUT_CLEAR_EPOCH, OUT_STAMP, STAMP_WORDS } from "../engine/contract.ts";
import type { Engine } from "../engine/engine.ts";
import { KEY_LIMIT } from "../values/key.ts";
import type { Scope } from "../values/scope.ts";
import { flatCopy, hashText } from "../values/text.ts";
import { Budget } from "./budget.ts";
import { Cooldown } from "./cooldown.ts";
import { textBytes } from "./heap.ts";
import { type Packed, Shapes, unpack } from "./pack.ts";
import {
  BYTES,
  CANDIDATES_AT,
  CHANGES,
  CHANGES_AT,
  coldAt,
  EXTRA,
  FINGERPRINTS_AT,
  FLAGS,
  fingerprintOf,
  firstOf,
  HASH,
  HOT_AT,
  hotAt,
  matches,
  PACKED,
  PAGE,
  PAGE_LOG,
  PAGE_WORDS,
  REFERENCED,
  SET,
  SET_LOG,
  SETS_LOG,
  setFingerprint,
  WORDS_LOG,
} from "./slots.ts";

/** Bytes of a page: its words, two pointers for each slot (key and value), and the objects around them. */
const PAGE_BYTES = PAGE_WORDS * 4 + PAGE * 16 + 250;
/** The table grows when more than this part of its slots is taken. */
const LOAD = 1 / 2;
/** A value that takes more than this part of the budget is not kept. */
const LARGEST = 1 / 4;
/** The table counts as full when it takes more than this part of its budget, whatever the size of the next value. */
const FULL = 15 / 16;
/** Maximum number of slots that CLOCK visits, in this table or in others of the thread, to make room for one value. */
const MAX_ADVANCES = 64;
/** Bytes of an {@link Extra}, and of the object around the counters of its tags. */
const EXTRA_BYTES = 96;
const COUNTERS_BYTES = 48;
/** How many of a key's last characters are hashed: at first, after too many collisions, and after too many collisions again. */
const HASHED = 8;
const HASHED_THEN = 32;
const HASHED_AT_MOST = KEY_LIMIT;
/** Hash more characters once collisions exceed this many per thousand slots. */
const MAX_COLLISIONS = 20;
/** A full table considers only one of this many new keys. A key that is read often is considered soon. */
const CANDIDATES = 4;

/** A value for which more has to be checked than its proof, together with the data to check. Most values have no `Extra`. */
export interface Extra {
  /** The id of the namespace; empty for the cache itself. */
  readonly scope: string;
  /** When the value expires, in milliseconds of the cache's clock; `Infinity` for never. */
  readonly expiry: number;
  /** The counters of its tags, as `Engine.tagCounters` gives them. */
  readonly tags: readonly number[] | undefined;
  /**
   * When the value expires by the clock of leased reads: see {@link Near.get}. `Infinity` for never; `NaN` until the first
   * leased read computes it, because most values have no such read.
   */
  until: number;
  /** The value that is kept, packed or not. */
  value: unknown;
}

/** The extra of a value; `undefined` for one outside of namespaces, without expiry and without tags. */
export function extraOf(scope: string, expiry: number, tags: readonly number[] | undefined): Extra | undefined {
  if (scope === "" && expiry === Infinity && tags === undefined) return undefined;
  return { scope, expiry, tags, until: expiry === Infinity ? Infinity : Number.NaN, value: undefined };
}

/** Who reads the table: one view of the cache. */
export interface Reader {
  readonly scope: Scope;
  /** The time of the view's clock, in milliseconds. */
  now(): number;
}

/** The time of a read that asks the clock of its reader whether a value has expired. */
export const UNKNOWN: number = Number.NaN;

/** {@link Table.found} for a key without a slot. */
const NOWHERE = -1;
/** {@link Table.found} for a key whose value may not be returned, although its proof holds. */
const REFUSED = -2;

/** Stands in place of the first page until there is one. */
const NO_PAGE: Int32Array = new Int32Array(PAGE_WORDS);
const NOTHING: readonly unknown[] = [];

/** Whether a value with an expiry has expired. @param at as for {@link Table.read} */
function hasExpired(extra: Extra, reader: Reader, at: number): boolean {
  if (Number.isNaN(at)) return extra.expiry <= reader.now();
  if (Number.isNaN(extra.until)) extra.until = at + (extra.expiry - reader.now());
  return extra.until <= at;
}

/** The decoded values of one opening of a cache, each with its proof. */
export class Table {
  /** The shapes of the objects that the near cache has packed. */
  shapes: Shapes = new Shapes();
  readonly #cooldown: Cooldown;
  /** For how many more reads the table is not asked: the rest of a cooldown. */
  #pause = 0;
  readonly #engine: Engine;
  /** The memory of the engine. Reading words of it needs no atomics: see {@link Table.#isProved}. */
  readonly #memory32: Int32Array;
  readonly #memory64: Float64Array;
  readonly #clearEpochAt: number;
  readonly #hitsAt: number;
  /** The most values. */
  readonly #most: number;
  readonly #budget: Budget;
  #words: Int32Array[] = [NO_PAGE];
  #kept: unknown[][] = [NOTHING as unknown[]];
  /**
   * These bits of a hash, behind the bits that name the set, name the page. When there is no such page yet, all of them but the
   * highest name it.
   */
  #mask = 0;
  /** The clear epoch in which all values of the table were read. */
  #clearEpoch = 0;
  /** How many slots have a value. */
  #taken = 0;
  /** The hand of CLOCK: the slot that it visits next when room is needed. */
  #hand = 0;
  /** How many of a key's last characters are hashed. */
  #hashed = HASHED;
  /** How often a new key found another key with the same hash in its set. */
  #collisions = 0;
  /** The slot of the key whose value {@link Table.read} could not prove, or {@link NOWHERE}, or {@link REFUSED}. */
  #found = NOWHERE;
  /** The hash of the key with which {@link Table.place} was called last. */
  #hash = 0;
  /** New keys that came while the table was full. */
  #candidates = 0;
  #closed = false;

  /**
   * @param entries the most values
   * @param bytes the most bytes of heap, by estimate; an eighth of the cache's size by default
   */
  constructor(entries: number, engine: Engine, bytes?: number) {
    this.#engine = engine;
    const { buffer } = engine.region.memory;
    this.#memory32 = new Int32Array(buffer);
    this.#memory64 = new Float64Array(buffer);
    this.#clearEpochAt = engine.clearEpochAt / 4;
    this.#hitsAt = engine.nearHitsAt / 8;
    this.#most = entries;
    this.#budget = new Budget(bytes, engine.region.size, () => this.#advance());
    this.#cooldown = new Cooldown(
      () => this.#memory64[this.#hitsAt] as number,
      () => this.#reset(this.#clearEpoch),
    );
  }

  /** How many values are kept, and the bytes of heap that they and the table take, by estimate. */
  get usage(): { entries: number; bytes: number } {
    return { entries: this.#taken, bytes: this.#budget.bytes };
  }

  /** Whether the next read must not ask the table, because of a cooldown. Call it exactly once before each read. */
  isCooling(): boolean {
    if (this.#pause === 0) return false;
    this.#pause--;
    return true;
  }

  /** Counts a read that found its value in the engine and not in the table: see {@link Cooldown.missed}. */
  missed(weight: number): void {
    this.#pause = this.#cooldown.missed(weight);
  }

  /**
   * The value of a key (of an object, a copy) when it is in the table, its proof holds, and its {@link Extra} allows it. Such a
   * read is counted as a hit. Otherwise `undefined`, and {@link Table.found} is the slot of the key.
   *
   * Most reads need nothing else. So this is one function, which loads each array only once.
   *
   * @param at the time by the clock of leased reads, or {@link UNKNOWN}
   */
  read(key: string, reader: Reader, at: number): unknown {
    const { scope } = reader;
    const hash = hashText(key, this.#hashed) ^ scope.salt;
    const page = this.#pageOf(hash);
    const words = this.#words[page] as Int32Array;
    const set = hash & ((1 << SETS_LOG) - 1);
    for (let same = matches(words[FINGERPRINTS_AT + set] as number, hash); same !== 0; same &= same - 1) {
      const slot = (set << SET_LOG) | firstOf(same);
      const kept = this.#kept[page] as unknown[];
      if (kept[slot << 1] !== key) continue;
      const hot = HOT_AT + (slot << WORDS_LOG);
      const flags = words[hot + FLAGS] as number;
      const value = kept[(slot << 1) | 1];
      if (((flags & EXTRA) === 0 ? "" : (value as Extra).scope) !== scope.id) continue;
      if (!this.#isProved(words, hot)) {
        this.#found = (page << PAGE_LOG) | slot;
        return undefined;
      }
      if ((flags & EXTRA) !== 0) return this.#readExtra(value as Extra, words, (page << PAGE_LOG) | slot, reader, at);
      this.#countHit(words, hot, flags);
      return (flags & PACKED) === 0 ? value : unpack(value as Packed);
    }
    this.#found = NOWHERE;
    return undefined;
  }

  /** The rest of {@link Table.read} for a value whose proof holds. */
  #readExtra(extra: Extra, words: Int32Array, slot: number, reader: Reader, at: number): unknown {
    const hot = hotAt(slot);
    // Before the clock is asked: the clock is the user's code, which may use the cache and so change the slot.
    const isPacked = ((words[hot + FLAGS] as number) & PACKED) !== 0;
    const { value } = extra;
    if (this.allows(extra, slot, reader, at)) {
      // In the worst case this marks another value that has come to the slot.
      this.#countHit(words, hot, words[hot + FLAGS] as number);
      return isPacked ? unpack(value as Packed) : value;
    }
    this.#found = REFUSED;
    return undefined;
  }

  /**
   * Whether a value may be returned: no tag of it was invalidated, and it has not expired. An expired value is dropped.
   *
   * @param at as for {@link Table.read}
   */
  allows(extra: Extra, slot: number, reader: Reader, at: number): boolean {
    if (!this.#engine.areCurrent(extra.tags)) return false;
    if (at < extra.until || extra.expiry === Infinity) return true;
    if (!hasExpired(extra, reader, at)) return true;
    this.drop(slot);
    return false;
  }

  /**
   * After {@link Table.read} returned `undefined`: the slot of the key, whose value may be outdated (see {@link Table.renew}), or
   * a negative number when the table has no value that could be returned.
   */
  get found(): number {
    return this.#found;
  }

  /**
   * Whether the proof holds: the count of changes and the clear epoch are the same as when the value was proved. Plain loads
   * suffice: each is of one word, and a load in this call sees everything that was stored before the call began. Only the low
   * half of the count is compared. It would come back after 2³² changes of one bucket between two reads.
   */
  #isProved(words: Int32Array, at: number): boolean {
    const memory32 = this.#memory32;
    return (
      words[at + CHANGES] === memory32[words[at + CHANGES_AT] as number] &&
      this.#clearEpoch === memory32[this.#clearEpochAt]
    );
  }

  #countHit(words: Int32Array, at: number, flags: number): void {
    if ((flags & REFERENCED) === 0) words[at + FLAGS] = flags | REFERENCED;
    // This store also keeps V8 from moving the loads of the proof out of a loop of reads.
    (this.#memory64[this.#hitsAt] as number)++;
  }

  /** The slot of a key, or -1. */
  #find(hash: number, key: string, scope: string): number {
    const page = this.#pageOf(hash);
    const set = hash & ((1 << SETS_LOG) - 1);
    const fingerprints = (this.#words[page] as Int32Array)[FINGERPRINTS_AT + set] as number;
    for (let same = matches(fingerprints, hash); same !== 0; same &= same - 1) {
      const slot = (page << PAGE_LOG) | (set << SET_LOG) | firstOf(same);
      if (this.#holds(slot, key, scope)) return slot;
    }
    return -1;
  }

  #pageOf(hash: number): number {
    const page = (hash >>> SETS_LOG) & this.#mask;
    return page < this.#words.length ? page : page & (this.#mask >>> 1);
  }

  #holds(slot: number, key: string, scope: string): boolean {
    const kept = this.#kept[slot >>> PAGE_LOG] as unknown[];
    return kept[(slot & (PAGE - 1)) << 1] === key && scope === (this.extra(slot)?.scope ?? "");
  }

  /**
   * After the engine's `find` has looked the key up: whether the stamp in {@link Engine.out} is the stamp of the value in the
   * slot. If so, the value gets the proof in `out`.
   */
  renew(slot: number): boolean {
    const words = this.#words[slot >>> PAGE_LOG] as Int32Array;
    const { out } = this.#engine;
    const cold = coldAt(slot);
    for (let i = 0; i < STAMP_WORDS; i++) if (words[cold + i] !== out[OUT_STAMP + i]) return false;
    if (this.#clearEpoch !== out[OUT_CLEAR_EPOCH]) return false;
    const at = hotAt(slot);
    words[at + CHANGES] = out[OUT_CHANGES] as number;
    words[at + FLAGS] = (words[at + FLAGS] as number) | REFERENCED;
    return true;
  }

  /** The value in a slot, or its {@link Extra}; packed when {@link Table.isPacked} says so. */
  value(slot: number): unknown {
    return (this.#kept[slot >>> PAGE_LOG] as unknown[])[((slot & (PAGE - 1)) << 1) | 1];
  }

  /** Whether the value in a slot is packed: each reader gets a copy of it from `unpack`. */
  isPacked(slot: number): boolean {
    return (this.#flags(slot) & PACKED) !== 0;
  }

  /** The {@link Extra} of a slot, which has to be checked before its value is returned; `undefined` when there is none. */
  extra(slot: number): Extra | undefined {
    return (this.#flags(slot) & EXTRA) === 0 ? undefined : (this.value(slot) as Extra);
  }

  #flags(slot: number): number {
    return (this.#words[slot >>> PAGE_LOG] as Int32Array)[hotAt(slot) + FLAGS] as number;
  }

  /**
   * Returns the slot for a value that was just read, or -1 when it gets none. Call {@link Table.put} for the slot before any
   * other method.
   *
   * @param out the out part, or a copy of it, as the engine's `get` has filled it for this value
   */
  place(key: string, scope: Scope, out: Int32Array): number {
    // An entry that can change in place, such as a counter, has no stamp, because no stamp could prove its value.
    if (this.#closed || (out[OUT_STAMP] === 0 && out[OUT_STAMP + 1] === 0)) return -1;
    const clearEpoch = out[OUT_CLEAR_EPOCH] as number;
    if (clearEpoch !== this.#clearEpoch) this.#reset(clearEpoch);
    if (this.#words[0] === NO_PAGE) {
      if (!this.#budget.hasRoomFor(PAGE_BYTES)) return -1;
      this.#addPage([], []);
    }
    if (this.#hashed < HASHED_AT_MOST && this.#collisions > (this.#words.length * PAGE * MAX_COLLISIONS) / 1000) {
      // This is rare. So the table is simply emptied, and has no code to move its values to the sets of another hash.
      this.#reset(clearEpoch);
      this.#hashed = this.#hashed === HASHED ? HASHED_THEN : HASHED_AT_MOST;
      return -1;
    }
    const isFull = this.#taken >= this.#most || this.#budget.bytes > this.#budget.most * FULL;
    // Most new keys are refused before they are hashed. A key that has a slot with an outdated value is not a new key.
    if (isFull && this.#found === NOWHERE && ++this.#candidates % CANDIDATES !== 0) return -1;
    if (!isFull && this.#taken > this.#words.length * PAGE * LOAD && this.#budget.hasRoomFor(PAGE_BYTES)) this.#split();
    const hash = hashText(key, this.#hashed) ^ scope.salt;
    this.#hash = hash;
    const found = this.#find(hash, key, scope.id);
    return found >= 0 ? found : this.#newPlace(hash, isFull);
  }

  /**
   * A slot for a key that has none, or -1: an empty slot, or a slot whose value was not read lately. In a full table or set the
   * key gets it only when it is the candidate of its set already.
   */
  #newPlace(hash: number, isFull: boolean): number {
    const page = this.#pageOf(hash);
    const words = this.#words[page] as Int32Array;
    const set = hash & ((1 << SETS_LOG) - 1);
    const first = (page << PAGE_LOG) | (set << SET_LOG);
    let empty = -1;
    for (let slot = first; slot < first + SET; slot++) {
      if (!this.#isTaken(slot)) empty = slot;
      else if (words[hotAt(slot) + HASH] === hash) this.#collisions++;
    }
    if (!isFull) {
      this.#cooldown.filled();
      if (empty >= 0) return empty;
    }
    if (words[CANDIDATES_AT + set] !== hash) {
      words[CANDIDATES_AT + set] = hash;
      return -1;
    }
    this.#cooldown.replaced();
    if (empty >= 0) return empty;
    for (let slot = first; slot < first + SET; slot++) if (!this.#isReferenced(slot)) return slot;
    for (let slot = first; slot < first + SET; slot++) this.#clearReference(slot);
    return -1;
  }

  /**
   * Keeps a value in the slot that {@link Table.place} returned, unless there is no room for it.
   *
   * @param out as for {@link Table.place}
   * @param heap bytes of heap that the value takes, by estimate
   */
  put(
    slot: number,
    key: string,
    out: Int32Array,
    value: unknown,
    extra: Extra | undefined,
    heap: number,
    isPacked: boolean,
  ): void {
    this.drop(slot);
    const own = flatCopy(key);
    let bytes = heap + textBytes(own);
    if (extra !== undefined)
      bytes += EXTRA_BYTES + (extra.tags === undefined ? 0 : COUNTERS_BYTES + extra.tags.length * 8);
    if (bytes > this.#budget.most * LARGEST || !this.#makeRoom(bytes)) return;
    const words = this.#words[slot >>> PAGE_LOG] as Int32Array;
    const at = hotAt(slot);
    const cold = coldAt(slot);
    this.#budget.take(bytes);
    this.#taken++;
    const changesAt = out[OUT_CHANGES_AT] as number;
    words[at + CHANGES_AT] = changesAt;
    // The count never comes back to an earlier number. So the value has no proof yet; the next read gets one.
    words[at + CHANGES] = (this.#memory32[changesAt] as number) - 1;
    words[at + FLAGS] = (extra === undefined ? 0 : EXTRA) | (isPacked ? PACKED : 0);
    words[at + HASH] = this.#hash;
    for (let i = 0; i < STAMP_WORDS; i++) words[cold + i] = out[OUT_STAMP + i] as number;
    words[cold + BYTES] = bytes;
    const kept = this.#kept[slot >>> PAGE_LOG] as unknown[];
    const place = (slot & (PAGE - 1)) << 1;
    kept[place] = own;
    if (extra !== undefined) extra.value = value;
    kept[place | 1] = extra ?? value;
    setFingerprint(words, slot, fingerprintOf(this.#hash));
  }

  /** Drops all values. */
  clear(): void {
    this.#reset(this.#clearEpoch);
  }

  /** Drops all values, and keeps none from now on. */
  close(): void {
    this.#reset(this.#clearEpoch);
    this.#closed = true;
    this.#budget.close();
  }

  /** Empties the table. Its next values are read in this clear epoch. */
  #reset(clearEpoch: number): void {
    // Calls come first, because the stack may end in any of them. Then nothing is changed.
    const shapes = new Shapes();
    this.#budget.take(-this.#budget.bytes);
    this.shapes = shapes;
    this.#clearEpoch = clearEpoch;
    this.#taken = 0;
    this.#hand = 0;
    this.#collisions = 0;
    this.#mask = 0;
    this.#words = [NO_PAGE];
    this.#kept = [NOTHING as unknown[]];
  }

  /**
   * Adds a page to these arrays, and makes them the arrays of the table. The stack may end in a call of a function, so all such
   * calls come first.
   */
  #addPage(words: Int32Array[], kept: unknown[][]): void {
    const page = new Int32Array(PAGE_WORDS);
    const slots = new Array(PAGE * 2).fill(undefined);
    this.#budget.take(PAGE_BYTES);
    words.push(page);
    kept.push(slots);
    this.#words = words;
    this.#kept = kept;
  }

  /** Adds a page and moves half of another page to it. Each value keeps its slot within the page, so no two need the same. */
  #split(): void {
    const to = this.#words.length;
    if (to > this.#mask) this.#mask = this.#mask * 2 + 1;
    const from = to & (this.#mask >>> 1);
    this.#addPage(this.#words, this.#kept);
    const [words, kept] = [this.#words[from] as Int32Array, this.#kept[from] as unknown[]];
    const [otherWords, otherKept] = [this.#words[to] as Int32Array, this.#kept[to] as unknown[]];
    for (let slot = 0; slot < PAGE; slot++) {
      const at = hotAt(slot);
      const hash = words[at + HASH] as number;
      if (kept[slot * 2] === undefined || this.#pageOf(hash) !== to) continue;
      for (let i = 0; i < 1 << WORDS_LOG; i++) {
        otherWords[at + i] = words[at + i] as number;
        otherWords[coldAt(slot) + i] = words[coldAt(slot) + i] as number;
      }
      otherKept[slot * 2] = kept[slot * 2];
      otherKept[slot * 2 + 1] = kept[slot * 2 + 1];
      kept[slot * 2] = undefined;
      kept[slot * 2 + 1] = undefined;
      setFingerprint(otherWords, slot, fingerprintOf(hash));
      setFingerprint(words, slot, 0);
    }
  }

  #isTaken(slot: number): boolean {
    return this.#kept[slot >>> PAGE_LOG]?.[(slot & (PAGE - 1)) << 1] !== undefined;
  }

  /** Whether the value was read since another key last wanted its slot. */
  #isReferenced(slot: number): boolean {
    return (this.#flags(slot) & REFERENCED) !== 0;
  }

  #clearReference(slot: number): void {
    const words = this.#words[slot >>> PAGE_LOG] as Int32Array;
    const at = hotAt(slot) + FLAGS;
    words[at] = (words[at] as number) & ~REFERENCED;
  }

  /**
   * Drops values that were not read lately until there is room. False when there is still no room after
   * {@link MAX_ADVANCES} steps.
   */
  #makeRoom(bytes: number): boolean {
    for (let advances = 0; advances < MAX_ADVANCES; advances++) {
      if (this.#taken < this.#most && this.#budget.hasRoomFor(bytes)) return true;
      if (this.#taken >= this.#most || !this.#budget.allows(bytes)) this.#advance();
      else this.#budget.releaseFromLargest();
    }
    return this.#taken < this.#most && this.#budget.hasRoomFor(bytes);
  }

  /** Moves the hand of CLOCK by one slot: drops the value in it, unless it was read since the hand last passed. */
  #advance(): void {
    if (this.#isTaken(this.#hand)) {
      if (this.#isReferenced(this.#hand)) this.#clearReference(this.#hand);
      else this.drop(this.#hand);
    }
    this.#hand = (this.#hand + 1) % (this.#words.length * PAGE);
  }

  /** Drops the value in a slot, if there is one. */
  drop(slot: number): void {
    if (!this.#isTaken(slot)) return;
    const words = this.#words[slot >>> PAGE_LOG] as Int32Array;
    this.#budget.take(-(words[coldAt(slot) + BYTES] as number));
    this.#taken--;
    const kept = this.#kept[slot >>> PAGE_LOG] as unknown[];
    const place = (slot & (PAGE - 1)) << 1;
    kept[place] = undefined;
    kept[place | 1] = undefined;
    setFingerprint(words, slot, 0);
  }
}
