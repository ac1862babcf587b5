/**
 * The compiled engine as one participant uses it: typed calls over its exports, and the scratch area through which keys
 * and values pass. The only file that knows export names and result codes; what lies where in the area it asks the
 * engine. Arguments are taken to be valid: `cache.ts` checks them.
 */

import type { Region } from "../memory/memory.ts";
import { PAGE, readableSize } from "../size.ts";
import type { Exports } from "./exports.ts";
import { areaOf } from "./plan.ts";
import { type Host, instantiate } from "./wasm.ts";

/** How long a writer waits for another participant before `ERR_BUSY`, in milliseconds. */
export const BUSY_MS = 50;
/** Pauses that are spins; the later ones sleep. */
const SPINNING_PAUSES = 20;
/** A writer looks at least so often before it gives up, even if it was descheduled past the deadline. */
const MIN_PAUSES = 40;
/**
 * And at most so often, in case the clock that the deadline is read from stands still: tests replace `performance.now`.
 * A sleep takes a millisecond or more, a poll where nobody may sleep about a microsecond.
 */
const MAX_SLEEPS = 200;
const MAX_POLLS = 100_000;
/** The same for a large value, whose tries may each fail without a pause. */
const MAX_LARGE_TRIES = 1000;

/** What a store expects to find. */
export const ANYTHING = 0;
export const ABSENT = 1;
export const PRESENT = 2;
export const VERSION = 3;

/** What a lookup is to bring. */
export const WANT_VALUE = 1;
export const WANT_TAGS = 2;
export const WANT_QUIET = 4;
export const WANT_AFTER_FIND = 8;

/** Results of the engine's changing calls. */
export const DONE = 0;
export const UNEXPECTED = 1;
export const TOO_LARGE = 2;
export const NOT_A_NUMBER = 3;
export const BUSY = 4;

/** The flag beside the type byte that says "in chunks". */
const CHUNKED = 0x100;
/** Key kind of the keys of a namespace; the other three are those of `key.ts`. */
export const KEY_NAMESPACED = 3;

/** Places in the out part, in units of four or eight bytes. */
const OUT_KIND = 0;
const OUT_TAGS = 1;
const OUT_VERSION = 1;
const OUT_NUMBER = 2;
/**
 * The stamp of an entry, in words of four bytes: what identifies its record. The word of the entry at its hottest, low and
 * high, zero when the entry can change in place; the generation of its segment. Behind it the clear epoch.
 */
export const OUT_STAMP = 6;
export const STAMP = 3;
export const OUT_EPOCH: number = OUT_STAMP + STAMP;
/** Where the changes of the entry's bucket are counted: an index in the memory, in units of four bytes. */
export const OUT_CHANGES_AT: number = OUT_EPOCH + 1;
/** After {@link Engine.find}: as long as they count as many, the stamp stays true. */
export const OUT_CHANGES: number = OUT_EPOCH + 2;
/** Not zero while a call is under way, and after one that was cut off. */
const OUT_INSIDE = 12;

/** A participant's slot in the region, in words of four bytes: see `wasm/src/format/layout.rs`. */
const SLOT_EPOCH = 0;
const SLOT_HAZARD = 2;
const SLOT_PENDING = 4;

/** Name of a function, to be found on the stack. */
const ASKING = "cache-machine asks the clock";

/** Taken here, so that it is a plain call wherever it is made: see {@link Engine.set}. */
const { store } = Atomics;

/** Of the tags part. */
const TAGS_BYTES = 12 << 10;

const COUNTERS = ["hits", "misses", "sets", "deletes", "evictions", "expirations", "reclaims", "compactions"] as const;
/** The numbers that participants count. */
export type Counts = Record<(typeof COUNTERS)[number], number>;

/** One participant of one region. Belongs to the thread that made it. */
export class Engine {
  readonly region: Region;
  /** Where keys are written before a call and read after {@link next}. */
  readonly key: Uint8Array;
  readonly tags: Uint8Array;
  /** Where values are written before a call and read after {@link get}. */
  readonly value: Uint8Array;
  /** Key, tags and value together that fit one record, in bytes. */
  readonly maxInline: number;
  readonly maxValue: number;
  readonly maxTags: number;
  readonly chunkBytes: number;
  /** Where the clear epoch lies in the memory, four bytes. */
  readonly clearEpochAt: number;
  /** Where this participant counts what it read without asking the engine, as a double. */
  readonly nearHitsAt: number;
  /** The out part in words of four bytes, for {@link OUT_STAMP}. */
  readonly out: Int32Array;
  /** The clock for expiry, in milliseconds. Set before each call that may ask for it: each user of a seat has its own. */
  clock: () => number = Date.now;

  /** A call waits for the clock's answer, perhaps with a lock held; what is in the area belongs to it. */
  asking = false;

  readonly #out64: Float64Array;
  /** The tags part in words: after {@link get} with `WANT_TAGS` the tag block of the record. */
  readonly #block: Int32Array;
  /** The counters of all tags of the region, two words each. */
  readonly #counters: Int32Array;
  readonly #exports: Exports;
  readonly #area: number;
  readonly #stackTop: number;
  readonly #slot: number;
  /** This participant's slot in the region; nobody else writes to it while this thread lives. */
  readonly #own: Int32Array;
  #detached = false;
  #closed = false;
  /** A large value is being written, call by call. */
  #writing = false;
  #waitingSince = 0;
  /** How often this operation has paused. */
  #pauses = 0;
  /** When an operation that is tried again began to wait: all its tries together may take {@link BUSY_MS}. */
  #triedSince: number | undefined;
  #clockError: { error: unknown } | undefined;

  /**
   * Joins a region.
   *
   * @throws {CacheError} `ERR_BUSY` when all slots are taken by the living.
   */
  constructor(region: Region) {
    this.region = region;
    this.#slot = region.membership.claim();
    const x = instantiate(region.memory, this.#host());
    this.#exports = x;
    const { area, stackTop } = areaOf(this.#slot);
    this.#area = area;
    this.#stackTop = stackTop;
    // From here on this instance has a stack of its own; the default one would be everybody's.
    x.__stack_pointer.value = stackTop;
    if (!x.attach(area, region.base, region.size, this.#slot)) {
      region.membership.release(this.#slot);
      throw new RangeError(`size: there is no cache of ${readableSize(region.size)}`);
    }
    const { buffer } = region.memory;
    const bytes = (at: number, length: number): Uint8Array =>
      typeof Buffer === "function" ? Buffer.from(buffer, at, length) : new Uint8Array(buffer, at, length);
    this.key = bytes(x.key_at(area), x.max_key());
    this.tags = bytes(x.tags_at(area), TAGS_BYTES);
    this.value = bytes(x.value_at(area), PAGE);
    this.out = new Int32Array(buffer, x.out_at(area), 16);
    this.#out64 = new Float64Array(buffer, x.out_at(area), 8);
    this.#block = new Int32Array(buffer, x.tags_at(area), TAGS_BYTES / 4);
    this.#counters = new Int32Array(buffer, x.tag_counters_at(area), x.tag_counters(area) * 2);
    this.maxInline = x.max_inline(region.size);
    this.maxValue = x.max_value(region.size);
    this.maxTags = x.max_tags();
    this.chunkBytes = x.chunk_bytes(area);
    this.clearEpochAt = x.clear_epoch_at(area) >>> 0;
    this.nearHitsAt = x.near_hits_at(area) >>> 0;
    this.#own = new Int32Array(buffer, x.slot_at(area) >>> 0, 6);
  }

  #host(): Host {
    const { membership } = this.region;
    const sleeper = new Int32Array(new SharedArrayBuffer(4));
    let maySleep = true;
    return {
      now: this.#ask[ASKING],
      take: (slot) => {
        try {
          return membership.take(slot) ? 1 : 0;
        } catch {
          // No proof, so alive.
          return 0;
        }
      },
      release: (slot) => {
        try {
          membership.release(slot);
        } catch {
          // The lock goes with this participant at the latest.
        }
      },
      pause: (attempt) => {
        if (attempt === 0) {
          this.#waitingSince = this.#triedSince ?? performance.now();
          if (this.#waitingSince !== this.#triedSince) this.#pauses = 0;
        } else if (attempt >= MIN_PAUSES && performance.now() - this.#waitingSince > BUSY_MS) return 0;
        if (++this.#pauses >= (maySleep ? MAX_SLEEPS : MAX_POLLS)) return 0;
        if (attempt >= SPINNING_PAUSES && maySleep) {
          try {
            Atomics.wait(sleeper, 0, 0, attempt < MIN_PAUSES ? 0.1 : 1);
          } catch {
            // A browser's main thread must not sleep; it polls.
            maySleep = false;
          }
        }
        return 1;
      },
    };
  }

  /** What the engine asks for the time, under a name that no tool shortens: {@link refuseClock} looks for it on the stack. */
  readonly #ask = {
    [ASKING]: (): number => {
      this.asking = true;
      try {
        return this.#time();
      } finally {
        this.asking = false;
      }
    },
  };

  /**
   * While {@link asking}: refuses a clock that uses its cache. A script that is terminated while the clock runs leaves
   * `asking` behind, as nothing runs then that could reset it; so the stack is asked whether the call still waits.
   */
  refuseClock(): void {
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = Infinity;
    const { stack } = new Error();
    Error.stackTraceLimit = stackTraceLimit;
    if (typeof stack !== "string" || stack.includes(ASKING)) {
      throw new Error("now: must not use the cache whose clock it is");
    }
    this.asking = false;
  }

  /** The clock, for the engine: it must not throw, so an error is kept for the caller of the operation. */
  #time(): number {
    try {
      const { clock } = this;
      const now = clock();
      if (typeof now === "number" && !Number.isNaN(now)) return now;
      throw new TypeError("now: must return a number of milliseconds");
    } catch (error) {
      this.#clockError = { error };
      return 0;
    }
  }

  /** The clock, for everybody else. */
  now(): number {
    const now = this.#time();
    this.#settle();
    return now;
  }

  /** After a call that may have asked for the time. */
  #settle(): void {
    if (this.#clockError !== undefined) {
      const { error } = this.#clockError;
      this.#clockError = undefined;
      throw error;
    }
  }

  /** Before each call: puts right what one that was cut off has left. */
  #enter(): void {
    if (this.out[OUT_INSIDE] !== 0) this.#comeBack();
  }

  /**
   * After a call that did not return: the JavaScript stack ended within it, or the host terminated the script. Its frames
   * are gone, so the engine's stack is empty again. Whatever it held is given up, as if this participant had died and come
   * back. When there is no stack for that, this throws, nothing else was begun, and the next call tries again.
   */
  #comeBack(): void {
    if (this.asking) this.refuseClock();
    this.#clockError = undefined;
    this.#exports.__stack_pointer.value = this.#stackTop;
    this.region.membership.keepOnly(this.#slot);
    this.#writing = false;
    this.#exports.recover(this.#area);
  }

  /** Runs a call that changes something. */
  #change(call: () => number): number {
    this.#enter();
    let result: number;
    try {
      result = call();
    } catch (error) {
      // As in `set`, and also between two of the calls that write a large value.
      if (this.#writing) this.out[OUT_INSIDE] = 1;
      if (this.out[OUT_INSIDE] !== 0) {
        const own = this.#own;
        store(own, SLOT_HAZARD, 0);
        store(own, SLOT_PENDING, 0);
        store(own, SLOT_PENDING + 1, 0);
        store(own, SLOT_EPOCH, (own[SLOT_EPOCH] as number) + 1);
      }
      throw error;
    }
    if (this.#clockError !== undefined) this.#settle();
    return result;
  }

  /** A glance at the index: whether the key seems to be there; the stamp of its likely entry is in {@link out}, with a proof. */
  find(key: number): boolean {
    this.#enter();
    return this.#exports.find(this.#area, key) !== 0;
  }

  /** Looks a key up: the length of its value, or -1. */
  get(key: number, want: number): number {
    this.#enter();
    const length = this.#exports.get(this.#area, key, want);
    if (this.#clockError !== undefined) this.#settle();
    return length;
  }

  /** After {@link get}: the type byte of the value. */
  get kind(): number {
    return (this.out[OUT_KIND] as number) & 0xff;
  }

  /** After {@link get}: the value is in chunks; its length is the total. */
  get chunked(): boolean {
    return ((this.out[OUT_KIND] as number) & CHUNKED) !== 0;
  }

  /** After {@link get} or {@link beginLarge}. */
  get version(): number {
    return this.#out64[OUT_VERSION] as number;
  }

  /** After {@link get}: the expiry in milliseconds, `Infinity` without. After {@link increment}: the sum. */
  get number(): number {
    return this.#out64[OUT_NUMBER] as number;
  }

  /** After {@link get} with `WANT_TAGS`: bytes of the tag block in {@link tags}. After {@link next}: the key. */
  get word(): number {
    return this.out[OUT_TAGS] as number;
  }

  /** After {@link get} with `WANT_TAGS`: `{place, count}` of the counter of each tag, as the record remembers them. */
  tagCounters(): Int32Array | undefined {
    const bytes = this.word;
    if (bytes === 0) return undefined;
    // What others wrote is not trusted: not more tags than there can be, and no place behind the last one.
    const count = Math.min((this.#block[1] as number) >>> 0, this.maxTags);
    const counters = this.#block.slice(2, 2 + 2 * count);
    for (let i = 0; i < counters.length; i += 2)
      counters[i] = (2 * (counters[i] as number)) & (this.#counters.length - 1);
    return counters;
  }

  /** Whether the counters that {@link tagCounters} gave are what they were: none of the tags was invalidated since. */
  areCurrent(counters: Int32Array | undefined): boolean {
    if (counters === undefined) return true;
    for (let i = 0; i < counters.length; i += 2) {
      if (Atomics.load(this.#counters, counters[i] as number) !== counters[i + 1]) return false;
    }
    return true;
  }

  set(
    key: number,
    kind: number,
    length: number,
    expiry: number,
    tagged: boolean,
    expect: number,
    version: number,
  ): number {
    this.#enter();
    let result: number;
    try {
      result = this.#exports.set(this.#area, key, kind, length, expiry, tagged ? 1 : 0, expect, version);
    } catch (error) {
      // The stack may have ended, so no function can be called here: only built-in ones, which need no frame. If the call
      // was cut off, what it held is given up at once, because this thread may be idle from now on: the hazard, the large
      // value, and with the epoch every lock and segment. The engine hears of it in `#comeBack`. Each store is an atomic one,
      // and so comes after all that the call has written.
      if (this.out[OUT_INSIDE] !== 0) {
        const own = this.#own;
        store(own, SLOT_HAZARD, 0);
        store(own, SLOT_PENDING, 0);
        store(own, SLOT_PENDING + 1, 0);
        store(own, SLOT_EPOCH, (own[SLOT_EPOCH] as number) + 1);
      }
      throw error;
    }
    if (this.#clockError !== undefined) this.#settle();
    return result;
  }

  /**
   * Stores a value in chunks. The key must be in the area, the value outside of it. When so much is written by others
   * that chunks are gone before the last one is there, it starts again.
   */
  setLarge(
    key: number,
    kind: number,
    value: Uint8Array,
    expiry: number,
    tagged: boolean,
    expect: number,
    version: number,
  ): number {
    const x = this.#exports;
    const count = Math.ceil(value.length / this.chunkBytes);
    const attempt = (): number => {
      this.#writing = true;
      x.begin_large(this.#area, value.length);
      const newVersion = this.version;
      let written = 0;
      let result = DONE;
      while (written < count && result === DONE) {
        const start = written * this.chunkBytes;
        const chunk = value.subarray(start, start + this.chunkBytes);
        this.value.set(chunk);
        result = x.write_chunk(this.#area, key, newVersion, written, chunk.length);
        if (result === DONE) written++;
      }
      if (result === DONE) {
        const flag = tagged ? 1 : 0;
        result = x.commit_large(this.#area, key, kind, count, newVersion, expiry, flag, expect, version);
      }
      if (result !== DONE) x.abandon_large(this.#area, written);
      this.#writing = false;
      return result;
    };
    const since = performance.now();
    this.#pauses = 0;
    let result = this.#change(attempt);
    this.#triedSince = since;
    try {
      for (let tries = 1; result === BUSY && tries < MAX_LARGE_TRIES && performance.now() < since + BUSY_MS; tries++) {
        result = this.#change(attempt);
      }
    } finally {
      this.#triedSince = undefined;
    }
    return result;
  }

  /**
   * After {@link get} found a value in chunks: copies them into `target`, which has the value's length. False when the
   * value was replaced meanwhile.
   */
  readLarge(key: number, target: Uint8Array): boolean {
    const version = this.version;
    this.#enter();
    for (let number = 0, at = 0; at < target.length; number++) {
      const length = this.#exports.read_chunk(this.#area, key, version, number);
      if (length < 0 || length !== Math.min(this.chunkBytes, target.length - at)) return false;
      target.set(this.value.subarray(0, length), at);
      at += length;
    }
    return true;
  }

  /** 1 when the key was there as expected and is removed, 0 when not, -1 when busy. */
  remove(key: number, expect: number, version: number): number {
    return this.#change(() => this.#exports.remove(this.#area, key, expect, version));
  }

  increment(key: number, by: number, initial: number, expiry: number, tagged: boolean): number {
    return this.#change(() => this.#exports.increment(this.#area, key, by, initial, expiry, tagged ? 1 : 0));
  }

  touch(key: number, expiry: number): number {
    return this.#change(() => this.#exports.touch(this.#area, key, expiry));
  }

  clear(): void {
    this.#change(() => {
      this.#exports.clear(this.#area);
      return DONE;
    });
  }

  /** Invalidates the tags in {@link tags}. */
  invalidate(): void {
    this.#change(() => {
      this.#exports.invalidate(this.#area);
      return DONE;
    });
  }

  /** The way of the next entry at or after `cursor`, or -1; its key is in {@link key}, as `length << 2 | kind` in {@link word}. */
  next(cursor: number): number {
    this.#enter();
    const way = this.#exports.next(this.#area, cursor);
    this.#settle();
    return way;
  }

  /** Live entries outside of namespaces, live entries in all, and their bytes in the log. */
  census(): { own: number; entries: number; bytes: number } {
    this.#enter();
    const entries = this.#exports.census(this.#area);
    this.#settle();
    return { own: entries - this.word, entries, bytes: this.number };
  }

  counts(): Counts {
    this.#enter();
    return Object.fromEntries(COUNTERS.map((name, i) => [name, this.#exports.counter(this.#area, i)])) as Counts;
  }

  /** Participants attached now, bytes that entries can use, and bytes of the segments in use. */
  usage(): { participants: number; capacity: number; used: number } {
    const x = this.#exports;
    return {
      participants: this.#change(() => x.participants(this.#area)),
      capacity: x.capacity(this.#area),
      used: x.used(this.#area),
    };
  }

  /** Four numbers for each segment: its phase and `class << 8`, bytes appended, live bytes, generation. */
  segments(): Int32Array {
    this.#enter();
    const count = this.#exports.segments(this.#area);
    return new Int32Array(this.value.buffer, this.value.byteOffset, 4 * count).slice();
  }

  /** Entries and ghosts in each of `parts` equal parts of the index; `room` is how many entries one of them takes. */
  occupancy(parts: number): { room: number; counts: Int32Array } {
    this.#enter();
    const room = this.#exports.occupancy(this.#area, parts);
    return { room, counts: new Int32Array(this.value.buffer, this.value.byteOffset, 2 * parts).slice() };
  }

  /** Checks the structure while nobody writes: 0, or the number of the broken invariant. */
  validate(): number {
    this.#enter();
    return this.#exports.validate(this.#area);
  }

  /** Leaves the region. */
  close(): void {
    if (this.#closed) return;
    // A call that was cut off can be made again. But once the slot is given back it may be another's.
    if (!this.#detached) {
      this.#change(() => {
        this.#exports.detach(this.#area);
        return DONE;
      });
      this.#detached = true;
    }
    this.region.membership.release(this.#slot);
    this.region.close();
    this.#closed = true;
  }
}
