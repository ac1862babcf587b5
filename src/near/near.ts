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
 * Slots come in sets of four, sets in pages, and the hash of a key names one set. What a read waits for is memory, so what
 * every read needs of a slot lies together, and of slots that hold other keys it needs no more than a byte. A page is:
 *
 *     prints    a byte of each hash, four of a set in one word; zero for an empty slot
 *     newcomers the hash of the last one that found no place, for each set
 *     words     index of the changes │ changes │ notes │ hash
 *     rare      entry low │ entry high │ generation │ bytes
 *     #kept     key │ value, or what has the value and more (see {@link Extra})
 *
 * The table grows by a page at a time: half of what is in one page moves to a new one (linear hashing), so no call waits for
 * more than that. It grows as long as there is budget, which counts the heap that keys and values take, by estimate, and the
 * table. Then values that were used since somebody last wanted their place keep it (CLOCK), and a newcomer gets the place of
 * one that was not when it comes a second time: what is read once does not drive out what is read often.
 *
 * Looking here takes time, and keeping takes more. Where hardly anything is found again, the near cache rests for a number of
 * reads, and then tries again.
 *
 * Hashing a key takes about as long as all the rest, so of long ones only the last characters are looked at, more when
 * that turns out to be too few, and all when even those are. The hash is keyed by a secret of this thread, so nobody can aim
 * keys at one set; who could would only make misses here, which the engine answers.
 */

import { OUT_CHANGES, OUT_CHANGES_AT, OUT_CLEAR_EPOCH, OUT_STAMP, STAMP_WORDS } from "../engine/contract.ts";
import type { Engine } from "../engine/engine.ts";
import { KEY_LIMIT } from "../values/key.ts";
import type { Scope } from "../values/scope.ts";
import { flatCopy, hashText } from "../values/text.ts";
import { textBytes } from "./heap.ts";
import { type Packed, Shapes, unpack } from "./pack.ts";
import {
  BYTES,
  CHANGES,
  CHANGES_AT,
  EXTRA,
  HASH,
  NEWCOMERS_AT,
  NOTES,
  PACKED,
  PAGE_LOG,
  PAGE_WORDS,
  PRINTS_AT,
  RARE_AT,
  SET_LOG,
  SETS_LOG,
  USED,
  WORDS_AT,
  WORDS_LOG,
} from "./slots.ts";

/** Slots of a set, and of a page. */
const SET = 1 << SET_LOG;
const PAGE = 1 << PAGE_LOG;
/** Bytes of a page: its words, and key and value of each slot. */
const PAGE_BYTES = PAGE_WORDS * 4 + PAGE * 16 + 250;
/** Of the slots this part is taken before there are more. */
const LOAD = 1 / 2;
/** The budget is a part of the cache's size, and what all near caches of a thread keep is a part of its heap. */
const SHARE = 1 / 8;
/** What is larger than this part of the budget is not kept. */
const LARGEST = 1 / 4;
/** The budget counts as used up when it is but for this part, so that one large value does not decide it. */
const FULL = 15 / 16;
/** Slots that are looked at for one value when there is no room for it. */
const LOOKS = 64;
/** Bytes that an {@link Extra} takes, without the counters of tags. */
const EXTRA_BYTES = 72;
const COUNTERS_BYTES = 200;
/** The last characters of a key that its hash is made of: at first, then, and at last all that a key can have. */
const HASHED = 8;
const HASHED_THEN = 32;
const HASHED_AT_MOST = KEY_LIMIT;
/** When in so many slots of a thousand a key found another one of the same hash, more characters are hashed. */
const ALIKE = 20;
/** So many reads that looked here in vain are judged together. */
const TRIAL = 4096;
/** It helps when there were as many hits as this part of them. */
const WORTH = 1 / 4;
/** A value that took the place of another counts as so many of them: keeping takes longer than looking. */
const REPLACED = 12;
/** While there is free room, so many reads that may have filled it are judged together, and the hits may be fewer. */
const FILLING = 65_536;
const WORTH_FILLING = 1 / 8;
/** Of the newcomers to a full table one in so many is looked at: what is hot comes often. */
const NEWCOMERS = 4;
/** Otherwise it rests for so many times the reads that a trial takes; for a quarter, and a quarter of that, at first. */
const REST = 64;
/** After so many trials in vain, one after the other, it lets go of everything, so that a trial begins with nothing. */
const IN_VAIN = 4;
const MAX_REST = 1 << 30;

/** What most values do not have, and the value. */
export interface Extra {
  /** The id of the namespace; empty for the cache itself. */
  readonly scope: string;
  /** Milliseconds, `Infinity` without. */
  readonly expiry: number;
  /** The counters of its tags. */
  readonly tags: Int32Array | undefined;
  /** The value that is kept, packed or not. */
  value: unknown;
}

/** What has to be kept beside a value: nothing for most. */
export function extraOf(scope: string, expiry: number, tags: Int32Array | undefined): Extra | undefined {
  if (scope === "" && expiry === Infinity && tags === undefined) return undefined;
  return { scope, expiry, tags, value: undefined };
}

/** What all near caches of this thread keep together, and what they may. */
const thread: { bytes: number; limit: number | undefined; all: Set<Near> } = {
  bytes: 0,
  limit: undefined,
  all: new Set(),
};

/** A modest part of what this thread's heap may grow to; in browsers nobody knows. */
function threadLimit(): number {
  const v8 = globalThis.process?.getBuiltinModule?.("node:v8");
  return v8 === undefined ? Infinity : v8.getHeapStatistics().heap_size_limit * SHARE;
}

/** Stands where the first page will be. */
const NO_PAGE: Int32Array = new Int32Array(PAGE_WORDS);
const NOTHING: readonly unknown[] = [];

/** The decoded values of one thread, for a cache and its namespaces. */
export class Near {
  /** The shapes of the objects that were met. */
  shapes: Shapes = new Shapes();
  readonly #engine: Engine;
  /** The memory of the engine. Reading words of it needs no atomics: see {@link isCurrent}. */
  readonly #memory32: Int32Array;
  readonly #memory64: Float64Array;
  readonly #epochAt: number;
  readonly #hitsAt: number;
  readonly #most: number;
  readonly #budget: number;
  #words: Int32Array[] = [NO_PAGE];
  #kept: unknown[][] = [NOTHING as unknown[]];
  /** Of a hash these bits name a page; when there is none yet of that number, all but the highest do. */
  #mask = 0;
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
  /** What {@link read} has found instead of a value. */
  #found = -1;
  /** The hash of the key that {@link place} was asked about last. */
  #hash = 0;
  /** Reads for which it still rests. */
  #rest = 0;
  /** Reads of this trial that looked here in vain, and did not fill free room either; and those that did. */
  #misses = 0;
  #filled = 0;
  /** Of the last miss. */
  #weight = 1;
  /** Values that took the place of another in this trial. */
  #replaced = 0;
  /** Newcomers that came when the table was full. */
  #newcomers = 0;
  #hitsBefore = 0;
  #inVain = 0;
  #closed = false;

  /**
   * @param entries at most
   * @param bytes of heap at most; by default an eighth of the cache's size
   */
  constructor(entries: number, engine: Engine, bytes: number = engine.region.size * SHARE) {
    this.#engine = engine;
    const { buffer } = engine.region.memory;
    this.#memory32 = new Int32Array(buffer);
    this.#memory64 = new Float64Array(buffer);
    this.#epochAt = engine.clearEpochAt / 4;
    this.#hitsAt = engine.nearHitsAt / 8;
    this.#most = entries;
    thread.limit ??= threadLimit();
    this.#budget = Math.min(bytes, thread.limit);
    this.#hitsBefore = this.#memory64[this.#hitsAt] as number;
    thread.all.add(this);
  }

  /** Values that are kept, and the bytes of heap that they take, by estimate, with the table they are in. */
  get usage(): { entries: number; bytes: number } {
    return { entries: this.#taken, bytes: this.#bytes };
  }

  /**
   * Whether the next read shall go to the engine without looking here, as looking did not help lately. To be asked before
   * each.
   */
  rests(): boolean {
    if (this.#rest === 0) return false;
    this.#rest--;
    return true;
  }

  /**
   * Counts a read for which there was nothing here, or nothing that is still right, and a value in the shared cache: one that
   * is absent there costs no more than the look.
   *
   * @param weight how much it speaks against looking here: more for a value that is decoded quickly
   */
  missed(weight = 1): void {
    this.#weight = weight;
    this.#misses += weight;
    if (this.#misses >= TRIAL) this.#judge((this.#misses + this.#replaced * REPLACED) * WORTH);
    else if (this.#filled >= FILLING) this.#judge(this.#filled * WORTH_FILLING);
  }

  /** Whether looking here has helped lately, with so many hits at least; otherwise it rests. */
  #judge(enough: number): void {
    const hits = this.#memory64[this.#hitsAt] as number;
    const helped = hits - this.#hitsBefore >= enough;
    const trial = this.#misses + this.#filled;
    this.#hitsBefore = hits;
    this.#misses = 0;
    this.#filled = 0;
    this.#replaced = 0;
    if (helped) {
      this.#inVain = 0;
      return;
    }
    this.#inVain++;
    this.#rest = Math.min((trial * REST) / 4 ** Math.max(IN_VAIN - 1 - this.#inVain, 0), MAX_REST);
    if (this.#inVain < IN_VAIN) return;
    this.#begin(this.#epoch);
  }

  /**
   * The value of a key in a namespace, counted as read, when it is here, nothing has changed, and nothing else has to be
   * looked at; of an object a copy. Otherwise `undefined`, and {@link found} tells what there is.
   *
   * This is what most reads need, so it is in one piece: each array is looked up once.
   */
  read(key: string, scope: Scope): unknown {
    const hash = hashText(key, this.#hashed) ^ scope.salt;
    const page = this.#pageOf(hash);
    const words = this.#words[page] as Int32Array;
    const set = hash & ((1 << SETS_LOG) - 1);
    for (let same = alike(words[PRINTS_AT + set] as number, hash); same !== 0; same &= same - 1) {
      const slot = (set << SET_LOG) | firstOf(same);
      const kept = this.#kept[page] as unknown[];
      if (kept[slot << 1] !== key) continue;
      const at = WORDS_AT + (slot << WORDS_LOG);
      const notes = words[at + NOTES] as number;
      if ((notes & EXTRA) !== 0 || scope.id !== "") {
        if (!this.#holds((page << PAGE_LOG) | slot, key, scope.id)) continue;
        this.#found = (page << PAGE_LOG) | slot;
        return undefined;
      }
      if (!this.#isProved(words, at)) {
        this.#found = (page << PAGE_LOG) | slot;
        return undefined;
      }
      this.#countRead(words, at, notes);
      const value = kept[(slot << 1) | 1];
      return (notes & PACKED) === 0 ? value : unpack(value as Packed);
    }
    this.#found = -1;
    return undefined;
  }

  /**
   * After {@link read} gave nothing: the slot of the key, or -1. What it holds may be old: see {@link isCurrent} and
   * {@link renew}.
   */
  get found(): number {
    return this.#found;
  }

  /**
   * Plain loads suffice: each is of one word, and what others stored before this call began is seen by any load made in it.
   * Of the count of changes it is the low half: 2³² changes of one bucket between two reads bring it back.
   */
  #isProved(words: Int32Array, at: number): boolean {
    const memory32 = this.#memory32;
    return (
      words[at + CHANGES] === memory32[words[at + CHANGES_AT] as number] && this.#epoch === memory32[this.#epochAt]
    );
  }

  #countRead(words: Int32Array, at: number, notes: number): void {
    if ((notes & USED) === 0) words[at + NOTES] = notes | USED;
    // Also keeps optimisers from reading what proves a value once for many calls.
    (this.#memory64[this.#hitsAt] as number)++;
  }

  #find(hash: number, key: string, scope: string): number {
    const page = this.#pageOf(hash);
    const set = hash & ((1 << SETS_LOG) - 1);
    const prints = (this.#words[page] as Int32Array)[PRINTS_AT + set] as number;
    for (let same = alike(prints, hash); same !== 0; same &= same - 1) {
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
   * Whether the value in a slot that {@link found} gave is still what the shared cache holds, but for its {@link extra}; then
   * it counts as read.
   */
  isCurrent(slot: number): boolean {
    const words = this.#words[slot >>> PAGE_LOG] as Int32Array;
    const at = wordsAt(slot);
    if (!this.#isProved(words, at)) return false;
    this.#countRead(words, at, words[at + NOTES] as number);
    return true;
  }

  /**
   * The same after the engine's `find` has looked the key up: whether the stamp it put out is that of the value in the slot.
   * If so, what else it put out proves the value from now on.
   */
  renew(slot: number): boolean {
    const words = this.#words[slot >>> PAGE_LOG] as Int32Array;
    const { out } = this.#engine;
    const rare = rareAt(slot);
    for (let i = 0; i < STAMP_WORDS; i++) if (words[rare + i] !== out[OUT_STAMP + i]) return false;
    if (this.#epoch !== out[OUT_CLEAR_EPOCH]) return false;
    const at = wordsAt(slot);
    words[at + CHANGES] = out[OUT_CHANGES] as number;
    words[at + NOTES] = (words[at + NOTES] as number) | USED;
    return true;
  }

  /** The value in a slot that {@link found} gave, unless it is in its {@link extra}; packed when {@link isPacked} says so. */
  value(slot: number): unknown {
    return (this.#kept[slot >>> PAGE_LOG] as unknown[])[((slot & (PAGE - 1)) << 1) | 1];
  }

  /** Whether readers get a copy of that value, by `unpack`. */
  isPacked(slot: number): boolean {
    return (this.#notes(slot) & PACKED) !== 0;
  }

  /** What else has to be looked at before that value is returned; the value is in there. */
  extra(slot: number): Extra | undefined {
    return (this.#notes(slot) & EXTRA) === 0 ? undefined : (this.value(slot) as Extra);
  }

  #notes(slot: number): number {
    return (this.#words[slot >>> PAGE_LOG] as Int32Array)[wordsAt(slot) + NOTES] as number;
  }

  /** Whether none of the tags of a value was invalidated. */
  hasItsTags(extra: Extra): boolean {
    return this.#engine.areCurrent(extra.tags);
  }

  /**
   * The slot for a value that was just read, or -1 when it gets none. Its stamp lies in `out` as the engine's `get` has put
   * it there. To be followed by {@link keep} before anything else is asked.
   */
  place(key: string, scope: Scope, out: Int32Array): number {
    // An entry that can change in place, such as a counter, has no stamp that could prove anything.
    if (this.#closed || (out[OUT_STAMP] === 0 && out[OUT_STAMP + 1] === 0)) return -1;
    const epoch = out[OUT_CLEAR_EPOCH] as number;
    if (epoch !== this.#epoch) this.#begin(epoch);
    if (this.#words[0] === NO_PAGE) {
      if (!this.#hasRoomFor(PAGE_BYTES)) return -1;
      this.#addPage([], []);
    }
    if (this.#hashed < HASHED_AT_MOST && this.#alike > (this.#words.length * PAGE * ALIKE) / 1000) {
      // Rare, and not worth a second way of moving what is kept.
      this.#begin(epoch);
      this.#hashed = this.#hashed === HASHED ? HASHED_THEN : HASHED_AT_MOST;
      return -1;
    }
    const isFull = this.#taken >= this.#most || this.#bytes > this.#budget * FULL;
    // Most newcomers are turned away before their key is hashed. What has a slot, and has changed, is kept anew.
    if (isFull && this.#found < 0 && ++this.#newcomers % NEWCOMERS !== 0) return -1;
    if (!isFull && this.#taken > this.#words.length * PAGE * LOAD && this.#hasRoomFor(PAGE_BYTES)) this.#split();
    const hash = hashText(key, this.#hashed) ^ scope.salt;
    this.#hash = hash;
    const found = this.#find(hash, key, scope.id);
    return found >= 0 ? found : this.#newPlace(hash, isFull);
  }

  /** A slot for a key that has none: an empty one, or for who comes a second time the one of a value that was not used. */
  #newPlace(hash: number, isFull: boolean): number {
    const page = this.#pageOf(hash);
    const words = this.#words[page] as Int32Array;
    const set = hash & ((1 << SETS_LOG) - 1);
    const first = (page << PAGE_LOG) | (set << SET_LOG);
    let empty = -1;
    for (let slot = first; slot < first + SET; slot++) {
      if (!this.#isTaken(slot)) empty = slot;
      else if (words[wordsAt(slot) + HASH] === hash) this.#alike++;
    }
    if (!isFull) {
      // While there is free room, in this set or soon in others, a read is not in vain, unless hardly anything is read again.
      this.#misses -= this.#weight;
      this.#filled++;
      if (empty >= 0) return empty;
    }
    if (words[NEWCOMERS_AT + set] !== hash) {
      words[NEWCOMERS_AT + set] = hash;
      return -1;
    }
    this.#replaced++;
    if (empty >= 0) return empty;
    for (let slot = first; slot < first + SET; slot++) if (!this.#isUsed(slot)) return slot;
    for (let slot = first; slot < first + SET; slot++) this.#forgetUse(slot);
    return -1;
  }

  /**
   * Keeps a value in the slot that {@link place} gave, with its stamp in `out`.
   *
   * @param heap bytes that the value takes there
   */
  keep(
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
    if (extra !== undefined) bytes += EXTRA_BYTES + (extra.tags === undefined ? 0 : COUNTERS_BYTES);
    if (bytes > this.#budget * LARGEST || !this.#makeRoom(bytes)) return;
    const words = this.#words[slot >>> PAGE_LOG] as Int32Array;
    const at = wordsAt(slot);
    const rare = rareAt(slot);
    this.#count(bytes);
    this.#taken++;
    const changesAt = out[OUT_CHANGES_AT] as number;
    words[at + CHANGES_AT] = changesAt;
    // A count that will not come back: the engine gives the proof with the next read.
    words[at + CHANGES] = (this.#memory32[changesAt] as number) - 1;
    words[at + NOTES] = (extra === undefined ? 0 : EXTRA) | (isPacked ? PACKED : 0);
    words[at + HASH] = this.#hash;
    for (let i = 0; i < STAMP_WORDS; i++) words[rare + i] = out[OUT_STAMP + i] as number;
    words[rare + BYTES] = bytes;
    const kept = this.#kept[slot >>> PAGE_LOG] as unknown[];
    const place = (slot & (PAGE - 1)) << 1;
    kept[place] = own;
    if (extra !== undefined) extra.value = value;
    kept[place | 1] = extra ?? value;
    setPrint(words, slot, printOf(this.#hash));
  }

  /** Lets go of everything, when it was cleared. */
  clear(): void {
    this.#begin(this.#epoch);
  }

  /** Lets go of everything for good. */
  close(): void {
    this.#begin(this.#epoch);
    this.#closed = true;
    thread.all.delete(this);
  }

  /** Nothing is kept: in the beginning, and when everything was cleared since the last value was kept. */
  #begin(epoch: number): void {
    // What can fail comes first.
    const shapes = new Shapes();
    this.#count(-this.#bytes);
    this.shapes = shapes;
    this.#epoch = epoch;
    this.#taken = 0;
    this.#hand = 0;
    this.#alike = 0;
    this.#mask = 0;
    this.#words = [NO_PAGE];
    this.#kept = [NOTHING as unknown[]];
  }

  #count(bytes: number): void {
    this.#bytes += bytes;
    thread.bytes += bytes;
  }

  /** Whether there is as much of the budget, and of what the thread may keep. */
  #hasRoomFor(bytes: number): boolean {
    return this.#bytes + bytes <= this.#budget && thread.bytes + bytes <= (thread.limit as number);
  }

  /** Adds a page to these, which are the table from then on. The stack may end in any call, so there is none in between. */
  #addPage(words: Int32Array[], kept: unknown[][]): void {
    const page = new Int32Array(PAGE_WORDS);
    const slots = new Array(PAGE * 2).fill(undefined);
    this.#count(PAGE_BYTES);
    words.push(page);
    kept.push(slots);
    this.#words = words;
    this.#kept = kept;
  }

  /** One page more, for half of what is in another. Each keeps its place within the page, so nothing meets anything. */
  #split(): void {
    const to = this.#words.length;
    if (to > this.#mask) this.#mask = this.#mask * 2 + 1;
    const from = to & (this.#mask >>> 1);
    this.#addPage(this.#words, this.#kept);
    const [words, kept] = [this.#words[from] as Int32Array, this.#kept[from] as unknown[]];
    const [otherWords, otherKept] = [this.#words[to] as Int32Array, this.#kept[to] as unknown[]];
    for (let slot = 0; slot < PAGE; slot++) {
      const at = wordsAt(slot);
      const hash = words[at + HASH] as number;
      if (kept[slot * 2] === undefined || this.#pageOf(hash) !== to) continue;
      for (let i = 0; i < 1 << WORDS_LOG; i++) {
        otherWords[at + i] = words[at + i] as number;
        otherWords[rareAt(slot) + i] = words[rareAt(slot) + i] as number;
      }
      otherKept[slot * 2] = kept[slot * 2];
      otherKept[slot * 2 + 1] = kept[slot * 2 + 1];
      kept[slot * 2] = undefined;
      kept[slot * 2 + 1] = undefined;
      setPrint(otherWords, slot, printOf(hash));
      setPrint(words, slot, 0);
    }
  }

  #isTaken(slot: number): boolean {
    return this.#kept[slot >>> PAGE_LOG]?.[(slot & (PAGE - 1)) << 1] !== undefined;
  }

  /** Whether it was read since somebody wanted its place. */
  #isUsed(slot: number): boolean {
    return (this.#notes(slot) & USED) !== 0;
  }

  #forgetUse(slot: number): void {
    const words = this.#words[slot >>> PAGE_LOG] as Int32Array;
    const at = wordsAt(slot) + NOTES;
    words[at] = (words[at] as number) & ~USED;
  }

  /**
   * Lets go of values that were not used since they were last looked at here, until there is room for so many bytes: of its
   * own, or when the thread keeps too much, of the one that keeps most.
   */
  #makeRoom(bytes: number): boolean {
    for (let looks = 0; looks < LOOKS; looks++) {
      if (this.#taken < this.#most && this.#hasRoomFor(bytes)) return true;
      const isOwn = this.#taken >= this.#most || this.#bytes + bytes > this.#budget;
      (isOwn ? this : largest()).#look();
    }
    return this.#taken < this.#most && this.#hasRoomFor(bytes);
  }

  /** Lets go of the next value, unless it was used. */
  #look(): void {
    if (this.#isTaken(this.#hand)) {
      if (this.#isUsed(this.#hand)) this.#forgetUse(this.#hand);
      else this.drop(this.#hand);
    }
    this.#hand = (this.#hand + 1) % (this.#words.length * PAGE);
  }

  /** Lets go of what a slot holds, if anything. */
  drop(slot: number): void {
    if (!this.#isTaken(slot)) return;
    const words = this.#words[slot >>> PAGE_LOG] as Int32Array;
    this.#count(-(words[rareAt(slot) + BYTES] as number));
    this.#taken--;
    const kept = this.#kept[slot >>> PAGE_LOG] as unknown[];
    const place = (slot & (PAGE - 1)) << 1;
    kept[place] = undefined;
    kept[place | 1] = undefined;
    setPrint(words, slot, 0);
  }
}

/** The near cache of this thread that keeps most. */
function largest(): Near {
  let most: Near | undefined;
  for (const near of thread.all) if (most === undefined || near.usage.bytes > most.usage.bytes) most = near;
  return most as Near;
}

/** A byte of a hash that is not zero, of bits that name neither set nor page. */
function printOf(hash: number): number {
  return (hash >>> 24) | 1;
}

/**
 * In which slots of a set keys may have that hash: the highest bit of each byte that is the same, now and then of another one,
 * too (Mycroft's test for a zero byte in a word).
 */
function alike(prints: number, hash: number): number {
  const other = prints ^ Math.imul(printOf(hash), 0x01010101);
  return (other - 0x01010101) & ~other & 0x80808080;
}

/** The first of them. */
function firstOf(same: number): number {
  return (31 - Math.clz32(same & -same)) >> 3;
}

function setPrint(words: Int32Array, slot: number, print: number): void {
  const shift = (slot & (SET - 1)) << 3;
  const at = PRINTS_AT + ((slot & (PAGE - 1)) >> SET_LOG);
  words[at] = ((words[at] as number) & ~(0xff << shift)) | (print << shift);
}

/** Where the words of a slot are in its page. */
function wordsAt(slot: number): number {
  return WORDS_AT + ((slot & (PAGE - 1)) << WORDS_LOG);
}

/** And where the rare ones are. */
function rareAt(slot: number): number {
  return RARE_AT + ((slot & (PAGE - 1)) << WORDS_LOG);
}
