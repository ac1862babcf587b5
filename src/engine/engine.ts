/**
 * The compiled engine as one participant uses it: typed calls of its exports, and the scratch area through which keys and
 * values pass. No other file calls the exports of an attached engine. Arguments must be valid: src/cache/ checks them.
 */

import type { Region } from "../memory/memory.ts";
import { readableSize } from "../size.ts";
import { clearTimeout, keepAlive, setTimeout, type Timer } from "../system/timers.ts";
import {
  AREA_GROUP,
  AREA_KEY,
  AREA_OUT,
  AREA_SLOTS,
  AREA_TAGS,
  AREA_VALUE,
  CHUNKED,
  CLAIM,
  CLAIM_PENDING,
  CLAIM_SHIFT,
  CLEAR_EPOCH_AT,
  COUNTER_EVICTIONS,
  DONE,
  GROUP,
  INVALIDATIONS_AT,
  KEY_KIND_BITS,
  KEY_NAMESPACED,
  MAX_CLAIM_NAME,
  MAX_KEY,
  MAX_TAGS,
  OUT_BYTES,
  OUT_CLASS,
  OUT_INSIDE,
  OUT_MORE,
  OUT_NUMBER,
  OUT_OWNER_SEAT,
  OUT_OWNER_TENURE,
  OUT_START_CLEAR_EPOCH,
  OUT_START_SEQUENCE,
  OUT_TYPE,
  OUT_VERSION,
  OUT_WORD,
  RING,
  SEAT_BYTES,
  SEAT_CLOCK,
  SEAT_COUNTERS,
  SEAT_HAZARD,
  SEAT_INCARNATION,
  SEAT_INTEREST,
  SEAT_NEAR_HITS,
  SEAT_PENDING,
  SEAT_RINGING,
  SEAT_THREAD,
  SEATS_AT,
  SLOT_BYTES,
  SLOT_KEY,
  STALE,
  TAG_BLOCK_HEADER,
  TAG_COUNTER_WORDS,
  TAGS_BYTES,
  VALUE_BYTES,
} from "./contract.ts";
import type { Exports } from "./exports.ts";
import { type Counts, countsOf, type Residence, residenceOf, type SegmentNumbers, segmentsOf } from "./numbers.ts";
import { areaOf } from "./plan.ts";
import { Waiting } from "./waiting.ts";
import { Wakeups } from "./wakeups.ts";
import { type Imports, instantiate } from "./wasm.ts";

/** The name of the function that calls the clock: {@link Engine.refuseClock} looks for it on the stack. */
const ASKING = "cache-machine asks the clock";

/** A variable, because where the stack has ended only a direct call of a built-in function works: see {@link Engine.set}. */
const { store } = Atomics;

/** Milliseconds after a ring that nobody has heard until this participant looks for the dead: then there may be more of them. */
const MOURNING_MS = 1000;

/** A lock, or a request for one, as {@link Engine.claims} lists it. */
export interface ListedClaim {
  number: number;
  token: number;
  /** Whether it is a request that waits. */
  pending: boolean;
  /** The process id and the thread id of its owner, both 0 where there are none. */
  pid: number;
  threadId: number;
  /** The first bytes of the name under which it was claimed, at most `MAX_CLAIM_NAME`. */
  name: Uint8Array;
  /** Bytes of the whole name. */
  nameBytes: number;
}

/** What a request at a rate limit asks for. `algorithm` is `LIMIT_…`, `window` in milliseconds. */
export interface LimitRule {
  readonly algorithm: number;
  readonly limit: number;
  readonly window: number;
  readonly burst: number;
  readonly cost: number;
  readonly peek: boolean;
}

/** One participant of one region. Only the thread that made it may use it. */
export class Engine {
  readonly region: Region;
  /** The key part: keys are written to it before a call, and read from it after {@link next}. */
  readonly key: Uint8Array;
  /** The tags part: tags are written to it before a call, and the tag block is read from it after {@link get}. */
  readonly tags: Uint8Array;
  /**
   * The number of the group of lookups that {@link beginGroup} has begun. While it is the same, the slots hold the keys of that
   * group.
   */
  group = 0;
  /** The value part: values are written to it before a call, and read from it after {@link get}. */
  readonly value: Uint8Array;
  /** Most bytes of key, tags and value together in one record. A larger value is stored in chunks. */
  readonly maxInline: number;
  /** Largest value, in bytes. */
  readonly maxValue: number;
  /** Bytes of a large value in each of its chunks but the last. */
  readonly #chunkBytes: number;
  /** Where the clear epoch lies in the memory, in bytes. It is a word of four bytes. */
  readonly clearEpochAt: number;
  /** Where the hits of this participant's near caches are counted in the memory, in bytes. The count is a double. */
  readonly nearHitsAt: number;
  /**
   * The out part in words of four bytes. The near cache reads the stamp and the proof from it: `OUT_STAMP` and the words
   * after it.
   */
  readonly out: Int32Array;
  /**
   * The clock for expiry, in milliseconds. Callers set it before each call that may ask for the time, because each user of a
   * seat has a clock of its own.
   */
  clock: () => number = Date.now;

  /** The waits of this thread. */
  readonly wakeups: Wakeups;

  /** Whether a call waits for the clock, possibly with a lock held. Until it returns, the area belongs to that call. */
  asking = false;

  /** The number of this participant's seat. */
  readonly seat: number;

  readonly #out64: Float64Array;
  /** The keys of a group, as they are passed. */
  readonly #groupKeys: Uint32Array;
  /** The tags part in words of four bytes: after {@link get} with `WANT_TAGS` the tag block of the record. */
  readonly #block: Int32Array;
  /** The counters of all tags of the region, `TAG_COUNTER_WORDS` words of four bytes each. */
  readonly #counters: Int32Array;
  readonly #exports: Exports;
  /** Where the area lies in the memory, in bytes. */
  readonly #area: number;
  /** Where the engine's stack begins in the memory, in bytes. It grows down. */
  readonly #stackTop: number;
  /** One word of four bytes each: the clear epoch, and the global invalidation sequence. */
  readonly #clearEpoch: Int32Array;
  readonly #sequence: Int32Array;
  /** The seat in the region, in words of four bytes. Nobody else writes to it while this thread lives. */
  readonly #seatWords: Int32Array;
  /** Where the seat shows the time by the clock of this participant, for those who look for a wrong clock. */
  #seatClock: Float64Array;
  readonly #waiting = new Waiting();
  /** Runs out when the dead are looked for, after a ring that nobody has heard. */
  #mourning: Timer | undefined;
  #detached = false;
  #closed = false;
  /** Whether a large value is being written, call by call. */
  #writing = false;
  /** The error that the clock has thrown within the call that is under way. */
  #clockError: { error: unknown } | undefined;

  /**
   * Joins a region. After an error the caller has to close the region, which gives the seat back.
   *
   * @throws {RangeError} when no cache has the size of the region.
   * @throws {CacheError} `ERR_BUSY` when living threads own all seats; `ERR_UNSUPPORTED` and `ERR_NO_SPACE` as
   * {@link instantiate}.
   */
  constructor(region: Region) {
    this.region = region;
    this.seat = region.membership.claim();
    region.bell.bury(this.seat);
    const x = instantiate(region.memory, this.#imports());
    this.#exports = x;
    const { area, stackTop } = areaOf(this.seat);
    this.#area = area;
    this.#stackTop = stackTop;
    // From here on this instance has a stack of its own. All instances begin with the same one.
    x.__stack_pointer.value = stackTop;
    if (!x.attach(area, region.base, region.size, this.seat)) {
      region.membership.release(this.seat);
      throw new RangeError(`size: a cache cannot have ${readableSize(region.size)}. Choose another size.`);
    }
    const { buffer } = region.memory;
    const bytes = (at: number, length: number): Uint8Array =>
      typeof Buffer === "function" ? Buffer.from(buffer, at, length) : new Uint8Array(buffer, at, length);
    this.key = bytes(area + AREA_KEY, MAX_KEY);
    this.tags = bytes(area + AREA_TAGS, TAGS_BYTES);
    this.value = bytes(area + AREA_VALUE, VALUE_BYTES);
    this.out = new Int32Array(buffer, area + AREA_OUT, OUT_BYTES / 4);
    this.#out64 = new Float64Array(buffer, area + AREA_OUT, OUT_BYTES / 8);
    this.#groupKeys = new Uint32Array(buffer, area + AREA_GROUP, GROUP);
    this.#block = new Int32Array(buffer, area + AREA_TAGS, TAGS_BYTES / 4);
    this.#counters = new Int32Array(buffer, x.tag_counters_at(area) >>> 0, x.tag_counters(area) * TAG_COUNTER_WORDS);
    this.maxInline = x.max_inline(region.size);
    this.maxValue = x.max_value(region.size);
    this.#chunkBytes = x.chunk_bytes(area);
    this.clearEpochAt = region.base + CLEAR_EPOCH_AT;
    const seatAt = x.seat_at(area) >>> 0;
    this.nearHitsAt = seatAt + SEAT_NEAR_HITS;
    this.#seatWords = new Int32Array(buffer, seatAt, SEAT_BYTES / 4);
    this.#seatClock = new Float64Array(buffer, seatAt + SEAT_CLOCK, 1);
    this.#seatClock[0] = 0;
    this.#clearEpoch = new Int32Array(buffer, this.clearEpochAt, 1);
    this.#sequence = new Int32Array(buffer, region.base + INVALIDATIONS_AT, 1);
    const process = globalThis.process;
    store(this.#seatWords, SEAT_THREAD, process?.pid ?? 0);
    store(this.#seatWords, SEAT_THREAD + 1, process?.getBuiltinModule?.("node:worker_threads").threadId ?? 0);
    const wordOf = (seat: number, word: number): number => (region.base + SEATS_AT + SEAT_BYTES * seat) / 4 + word;
    this.wakeups = new Wakeups(region.bell, {
      seat: this.seat,
      words: new Int32Array(buffer),
      interestAt: wordOf(this.seat, SEAT_INTEREST),
      ringingAt: (seat) => wordOf(seat, SEAT_RINGING),
    });
  }

  #imports(): Imports {
    const { membership, bell } = this.region;
    return {
      now: this.#ask[ASKING],
      take: (seat) => {
        try {
          return membership.take(seat) ? 1 : 0;
        } catch {
          // Without proof of death the owner counts as alive.
          return 0;
        }
      },
      release: (seat) => {
        try {
          bell.bury(seat);
          membership.release(seat);
        } catch {
          // Then the seat is released when this participant ends.
        }
      },
      pause: (attempt) => this.#waiting.pause(attempt),
    };
  }

  /** The function that the engine calls for the time. Its name is a string, which no minifier shortens: see {@link ASKING}. */
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
   * While {@link asking} is set: refuses a call that the clock makes. A script that is terminated while the clock runs leaves
   * `asking` set, because no code of it runs any more. So the stack is searched for the call that waits for the clock.
   *
   * @throws {Error} when that call is on the stack.
   */
  refuseClock(): void {
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = Infinity;
    const { stack } = new Error();
    Error.stackTraceLimit = stackTraceLimit;
    if (typeof stack !== "string" || stack.includes(ASKING)) {
      throw new Error("now: must not use the cache whose clock it is. Use another source of time.");
    }
    this.asking = false;
  }

  /** The time for the engine, NaN after an error. Never throws: {@link #settle} throws the error when the call has returned. */
  #time(): number {
    try {
      const now = this.now();
      this.#seatClock[0] = now;
      return now;
    } catch (error) {
      this.#clockError = { error };
      return Number.NaN;
    }
  }

  /**
   * The time in milliseconds, for callers in TypeScript.
   *
   * @throws {TypeError} when the clock does not return a number. An error of the clock is passed on.
   */
  now(): number {
    const { clock } = this;
    const now = clock();
    if (typeof now === "number" && !Number.isNaN(now)) return now;
    throw new TypeError("now: must return a number of milliseconds");
  }

  /** After a call that may have asked for the time: throws the error of the clock. */
  #settle(): void {
    if (this.#clockError !== undefined) {
      const { error } = this.#clockError;
      this.#clockError = undefined;
      throw error;
    }
  }

  /** Before each call: repairs the engine if the call before was cut off. */
  #enter(): void {
    if (this.out[OUT_INSIDE] !== 0) this.#comeBack();
  }

  /**
   * Repairs the engine after a call that did not return, because the JavaScript stack ended within it or `node:vm` terminated
   * the script. The frames of that call are gone, so the engine's stack is empty again. Everything that the call held is given
   * up, as if this participant had died and come back. When there is not enough stack to do so, this throws, and the next call
   * tries again.
   */
  #comeBack(): void {
    if (this.asking) this.refuseClock();
    this.#clockError = undefined;
    this.#exports.__stack_pointer.value = this.#stackTop;
    this.region.membership.keepOnly(this.seat);
    this.#writing = false;
    this.#exports.recover(this.#area);
  }

  /** Makes a call that may change the region. If the call is cut off, gives up what it held, as {@link set} does. */
  #change(call: () => number): number {
    this.#enter();
    let result: number;
    try {
      result = call();
    } catch (error) {
      // As in `set`. A large value takes several calls, and one that was cut off between them is marked here.
      if (this.#writing) this.out[OUT_INSIDE] = 1;
      if (this.out[OUT_INSIDE] !== 0) {
        const seat = this.#seatWords;
        store(seat, SEAT_HAZARD, 0);
        store(seat, SEAT_PENDING, 0);
        store(seat, SEAT_PENDING + 1, 0);
        store(seat, SEAT_INCARNATION, (seat[SEAT_INCARNATION] as number) + 1);
      }
      throw error;
    }
    if (result >= RING) {
      result -= RING;
      try {
        this.#ring();
      } catch {
        // As in `set`.
      }
    }
    if (this.#clockError !== undefined) this.#settle();
    return result;
  }

  /** As {@link #change}, but gives up soon when another participant is in the way: for calls that are repeated later. */
  #briefly(call: () => number): number {
    this.#waiting.brief = true;
    try {
      return this.#change(call);
    } finally {
      this.#waiting.brief = false;
    }
  }

  /** After a change that somebody waits for: rings them. */
  #ring(): void {
    const x = this.#exports;
    for (let seat = x.next_bell(this.#area); seat >= 0; seat = x.next_bell(this.#area)) {
      // Where nobody hears, somebody may have died while waiting.
      if (!this.wakeups.ring(seat)) this.#mourning ??= this.#reapLater();
    }
  }

  /** Reaps the seats of the dead a little later, so that nobody rings them any more. */
  #reapLater(): Timer {
    const timer = setTimeout(() => {
      this.#mourning = undefined;
      try {
        this.usage();
      } catch {
        // The next ring that nobody hears tries again. There is nobody who could catch an error here.
      }
    }, MOURNING_MS);
    keepAlive(timer, false);
    return timer;
  }

  /**
   * Whether the key seems to be in the index. The key itself is not compared: an entry with its fingerprint is most likely its
   * own. The stamp and the proof of that entry are in {@link out}.
   */
  find(key: number): boolean {
    this.#enter();
    return this.#exports.find(this.#area, key) !== 0;
  }

  /** Looks a key up. Returns the length of its value in bytes, or -1 for a miss. `want` is a sum of `WANT_…`. */
  get(key: number, want: number): number {
    this.#enter();
    const length = this.#exports.get(this.#area, key, want);
    if (this.#clockError !== undefined) this.#settle();
    return length;
  }

  /** The slots for the keys of a group, each without its first `skip` bytes. */
  slots(skip: number): Uint8Array[] {
    const at = this.#area + AREA_SLOTS;
    const slot = (_: unknown, i: number) =>
      new Uint8Array(this.#groupKeys.buffer, at + i * SLOT_BYTES + skip, SLOT_KEY - skip);
    return Array.from({ length: GROUP }, slot);
  }

  /** Begins a group of lookups: its keys are written to the slots next. Ends the group before. Returns {@link group}. */
  beginGroup(): number {
    return ++this.group;
  }

  /** Tells the key that was written to slot `i`, as {@link get} takes it; negative when it did not fit. */
  putInGroup(i: number, key: number): void {
    this.#groupKeys[i] = key;
  }

  /** Whether slot `i` holds a key. */
  isInGroup(i: number): boolean {
    return (this.#groupKeys[i] as number) <= (SLOT_KEY << KEY_KIND_BITS) + KEY_NAMESPACED;
  }

  /** Waits for the memory of the first `count` keys of the group together. {@link getInGroup} follows for each. */
  prefetchGroup(count: number): void {
    this.#enter();
    this.#exports.prefetch_group(this.#area, count);
  }

  /** As {@link get}, for the key in slot `i`. */
  getInGroup(i: number, want: number): number {
    this.#enter();
    const length = this.#exports.get_in_group(this.#area, i, want);
    if (this.#clockError !== undefined) this.#settle();
    return length;
  }

  /** After {@link get}: the value type. */
  get valueType(): number {
    return (this.out[OUT_TYPE] as number) & (CHUNKED - 1);
  }

  /**
   * After {@link get}: whether the value is in chunks. Then {@link get} has returned the length of all chunks together, and
   * {@link readLarge} reads them.
   */
  get isChunked(): boolean {
    return ((this.out[OUT_TYPE] as number) & CHUNKED) !== 0;
  }

  /** After {@link get} with `WANT_STALE`: whether the entry has expired, and is within its grace. */
  get isStale(): boolean {
    return ((this.out[OUT_TYPE] as number) & STALE) !== 0;
  }

  /** After {@link get} and {@link increment}: the version of the entry. Within {@link setLarge}: the version of the value that is being written. */
  get version(): number {
    return this.#out64[OUT_VERSION] as number;
  }

  /** After {@link get}: the expiry in milliseconds, `Infinity` for an entry that does not expire. */
  get expiry(): number {
    return this.#out64[OUT_NUMBER] as number;
  }

  /** After {@link get}: the grace in milliseconds, 0 for none. */
  get grace(): number {
    return this.#out64[OUT_MORE] as number;
  }

  /** After {@link increment}: the sum. */
  get sum(): number {
    return this.#out64[OUT_NUMBER] as number;
  }

  /** After {@link increment}: the expiry of the entry in milliseconds. */
  get sumExpiry(): number {
    return this.#out64[OUT_MORE] as number;
  }

  /** After {@link limit}: how many requests may follow. */
  get remaining(): number {
    return this.#out64[OUT_NUMBER] as number;
  }

  /** After {@link limit}: when the limit says nothing any more, in milliseconds. */
  get resetAt(): number {
    return this.#out64[OUT_VERSION] as number;
  }

  /** After {@link limit}: the milliseconds until then. */
  get resetAfter(): number {
    return this.#out64[OUT_MORE + 1] as number;
  }

  /** After {@link limit}: the milliseconds until the request would be allowed. */
  get retryAfter(): number {
    return this.#out64[OUT_MORE] as number;
  }

  /** After {@link get} with `WANT_TAGS`: bytes of the tag block in {@link tags}, 0 without tags. */
  get tagBytes(): number {
    return this.out[OUT_WORD] as number;
  }

  /** After {@link next}: the key in {@link key}, as `length << 2 | key kind`. */
  get keyWord(): number {
    return this.out[OUT_WORD] as number;
  }

  /**
   * After {@link get} with `WANT_TAGS`: for each tag the index of its counter, and the two words of the counter as the record
   * remembers them. `undefined` without tags.
   */
  tagCounters(): readonly number[] | undefined {
    if (this.tagBytes === 0) return undefined;
    // The bytes may be damaged, so they are bounded: at most as many tags as an entry can have, and no index out of range.
    const block = this.#block;
    const count = Math.min((block[TAG_BLOCK_HEADER / 8] as number) >>> 0, MAX_TAGS);
    const last = this.#counters.length / TAG_COUNTER_WORDS - 1;
    const counters = new Array<number>(3 * count).fill(0);
    const snapshots = TAG_BLOCK_HEADER / 4;
    for (let i = 0; i < count; i++) {
      counters[3 * i] = TAG_COUNTER_WORDS * ((block[snapshots + 2 * count + i] as number) & last);
      counters[3 * i + 1] = block[snapshots + 2 * i] as number;
      counters[3 * i + 2] = block[snapshots + 2 * i + 1] as number;
    }
    return counters;
  }

  /**
   * Whether the counters have not changed since {@link tagCounters} returned them, so none of the tags was invalidated or
   * expired. The halves of a counter are loaded one by one: each of them alone has to be what it was. Plain loads suffice, as for
   * the proof of a value in the near cache (`near/table.ts`), and take a fraction of the time of atomic ones.
   */
  areCurrent(counters: readonly number[] | undefined): boolean {
    if (counters === undefined) return true;
    const all = this.#counters;
    for (let i = 0; i < counters.length; i += 3) {
      const at = counters[i] as number;
      if (all[at] !== counters[i + 1] || all[at + 1] !== counters[i + 2]) return false;
    }
    return true;
  }

  /**
   * Stores the first `length` bytes of {@link value}. The old value is still there unless the result is `DONE`.
   *
   * @param grace milliseconds for which the entry can be read as a stale one after its expiry; 0 for none
   * @param expect `ANYTHING`, `ABSENT`, `PRESENT`, `VERSION` for `version`, or {@link expectClaim} with the token for `version`
   * @returns `DONE`, `UNEXPECTED`, `TOO_LARGE` or `BUSY`; with a claim also `OVERTAKEN` or `INVALIDATED`
   */
  set(
    key: number,
    valueType: number,
    length: number,
    expiry: number,
    grace: number,
    tagged: boolean,
    expect: number,
    version: number,
  ): number {
    this.#enter();
    let result: number;
    try {
      result = this.#exports.set(this.#area, key, valueType, length, expiry, grace, tagged ? 1 : 0, expect, version);
    } catch (error) {
      // The stack may have ended. So nothing may be called here but built-in functions, which need no frame. If the call was
      // cut off, this thread may be idle from now on, so what the call held is given up at once: the hazard, the large value,
      // and with the incarnation every lock and segment. The engine hears of it in `#comeBack`. Each store is atomic, and so
      // comes after everything that the call has written.
      if (this.out[OUT_INSIDE] !== 0) {
        const seat = this.#seatWords;
        store(seat, SEAT_HAZARD, 0);
        store(seat, SEAT_PENDING, 0);
        store(seat, SEAT_PENDING + 1, 0);
        store(seat, SEAT_INCARNATION, (seat[SEAT_INCARNATION] as number) + 1);
      }
      throw error;
    }
    if (result >= RING) {
      result -= RING;
      try {
        this.#ring();
      } catch {
        // The change is done, so nothing is thrown. Where the stack has ended, a ring is lost. Whoever waits looks by itself.
      }
    }
    if (this.#clockError !== undefined) this.#settle();
    return result;
  }

  /**
   * Stores a value in chunks. The key must be in the area, the value outside of it. When other participants write so much that
   * chunks are evicted before the last one is written, all chunks are written again.
   *
   * @returns as {@link set}
   */
  setLarge(
    key: number,
    valueType: number,
    value: Uint8Array,
    expiry: number,
    grace: number,
    tagged: boolean,
    expect: number,
    version: number,
  ): number {
    const x = this.#exports;
    const count = Math.ceil(value.length / this.#chunkBytes);
    const attempt = (): number => {
      this.#writing = true;
      x.begin_large(this.#area, value.length);
      const newVersion = this.version;
      let written = 0;
      let result = DONE;
      while (written < count && result === DONE) {
        const start = written * this.#chunkBytes;
        const chunk = value.subarray(start, start + this.#chunkBytes);
        this.value.set(chunk);
        result = x.write_chunk(this.#area, key, newVersion, written, chunk.length);
        if (result === DONE) written++;
      }
      if (result === DONE) {
        const flag = tagged ? 1 : 0;
        result = x.commit_large(this.#area, key, valueType, count, newVersion, expiry, grace, flag, expect, version);
      }
      if (result !== DONE && result !== (DONE | RING)) x.abandon_large(this.#area, written);
      this.#writing = false;
      return result;
    };
    return this.#waiting.retryWhileBusy(() => this.#change(attempt));
  }

  /**
   * After {@link get} has found a value in chunks: copies the chunks to `target`, which must have the length of the value.
   *
   * @returns false when the value was replaced, removed or evicted meanwhile
   */
  readLarge(key: number, target: Uint8Array): boolean {
    const version = this.version;
    this.#enter();
    for (let number = 0, at = 0; at < target.length; number++) {
      const length = this.#exports.read_chunk(this.#area, key, version, number);
      if (length < 0 || length !== Math.min(this.#chunkBytes, target.length - at)) return false;
      target.set(this.value.subarray(0, length), at);
      at += length;
    }
    return true;
  }

  /** Removes the entry if it is as expected. Returns 1 when it was removed, 0 when not, -1 instead of `BUSY`. */
  remove(key: number, expect: number, version: number): number {
    return this.#change(() => this.#exports.remove(this.#area, key, expect, version));
  }

  /**
   * Adds to a number, or stores `initial + by`. Returns a result as {@link set} does, `NOT_A_NUMBER`, or `OUT_OF_RANGE` for a
   * sum outside of `min` and `max`. See {@link sum}, {@link version} and {@link sumExpiry}.
   */
  increment(
    key: number,
    by: number,
    initial: number,
    min: number,
    max: number,
    expiry: number,
    tagged: boolean,
  ): number {
    const x = this.#exports;
    const area = this.#area;
    return this.#change(() => x.increment(area, key, by, initial, min, max, expiry, tagged ? 1 : 0));
  }

  /**
   * Judges a request at the rate limit of a key, and counts it if it may go through, unless the rule says `peek`.
   *
   * @returns `DONE` when it may go through, `UNEXPECTED` when it may not, `NOT_A_LIMIT`, `TOO_LARGE` or `BUSY`; see {@link remaining}
   */
  limit(key: number, rule: LimitRule, tagged: boolean): number {
    const x = this.#exports;
    const area = this.#area;
    return this.#change(() => {
      const { algorithm, limit, window, burst, cost, peek } = rule;
      return x.limit(area, key, algorithm, limit, window, burst, cost, peek ? 1 : 0, tagged ? 1 : 0);
    });
  }

  /** Gives the entry another expiry in milliseconds: `DONE`, `UNEXPECTED` when there is no entry, `TOO_LARGE` or `BUSY`. */
  touch(key: number, expiry: number): number {
    return this.#change(() => this.#exports.touch(this.#area, key, expiry));
  }

  /**
   * Lets the entry expire at `now`, in milliseconds: from then on it is stale for its grace, or gone without one. `DONE`,
   * `UNEXPECTED` when there is no fresh entry, `TOO_LARGE` (only in damaged memory) or `BUSY`.
   */
  expire(key: number, now: number): number {
    return this.#change(() => this.#exports.expire(this.#area, key, now));
  }

  /** Makes every entry a miss. */
  clear(): void {
    this.#change(() => this.#exports.clear(this.#area));
  }

  /**
   * Makes every entry with one of the tags in {@link tags} a miss. `now` becomes the time of the tags, in milliseconds; 0 leaves
   * it as it is.
   */
  invalidate(now: number): void {
    this.#change(() => this.#exports.invalidate(this.#area, now));
  }

  /** What {@link set} expects of a claim with this number. Its token is passed as the version. A store that is done frees the claim. */
  expectClaim(number: number): number {
    return CLAIM | (number << CLAIM_SHIFT);
  }

  /**
   * Claims the load of a key for this participant.
   *
   * @param flags a sum of `CLAIM_FRESH` and `CLAIM_WAIT`
   * @param deadline until when another participant must not take over, in milliseconds of a clock that all share
   * @param now the present time of that clock
   * @returns `CLAIMED`; `PRESENT` when the key has a value, unless `CLAIM_FRESH` is given; `TAKEN` when a living participant has
   * the claim, and its lease is not over; `CLAIMS_FULL` when there is no room for a claim; or `BUSY`. After the first and the third the
   * claim is in {@link claimNumber}, {@link claimToken} and the properties after them.
   */
  claim(key: number, flags: number, deadline: number, now: number): number {
    return this.#change(() => this.#exports.claim(this.#area, key, flags, deadline, now));
  }

  /**
   * Claims the lock whose name is the key in {@link key}. When it is taken and `CLAIM_WAIT` is given, this participant is registered
   * as by {@link wait}. Gives up soon when another participant is in the way.
   *
   * @param flags a sum of `CLAIM_WAIT`, `CLAIM_STEAL` and `CLAIM_PENDING`
   * @param nameBytes bytes of the name by which {@link claims} lists it, in {@link value}
   * @returns `CLAIMED`, `TAKEN`, `CLAIMS_FULL` or `BUSY`, as {@link claim}
   */
  claimLock(key: number, flags: number, nameBytes: number): number {
    return this.#briefly(() => this.#exports.claim_lock(this.#area, key, flags, nameBytes));
  }

  /** After {@link claim} and {@link claimLock}: the number of the claim, this participant's own or the one that it has met. */
  get claimNumber(): number {
    return this.out[OUT_WORD] as number;
  }

  /** After {@link claim} and {@link claimLock}: the token of the claim. Each claim has a higher one than those before it. */
  get claimToken(): number {
    return this.#out64[OUT_VERSION] as number;
  }

  /** After {@link claim} and {@link claimLock}: the seat of the owner. */
  get ownerSeat(): number {
    return this.out[OUT_OWNER_SEAT] as number;
  }

  /** After {@link claim} and {@link claimLock}: which owner of that seat it is. */
  get ownerIncarnation(): number {
    return this.out[OUT_OWNER_TENURE] as number;
  }

  /** After {@link claim}: the {@link sequence} when the claim was made. */
  get startSequence(): number {
    return (this.out[OUT_START_SEQUENCE] as number) >>> 0;
  }

  /** After {@link claim}: the {@link clearEpoch} when the claim was made. */
  get startClearEpoch(): number {
    return (this.out[OUT_START_CLEAR_EPOCH] as number) >>> 0;
  }

  /** After {@link claim} and {@link claimLock}: the class of the key, as {@link wait} returns it. */
  get claimClass(): number {
    return this.out[OUT_CLASS] as number;
  }

  /** Frees a claim of this participant. Returns false when it was not its own any more. */
  release(number: number, token: number): boolean {
    return this.#change(() => this.#exports.release(this.#area, number, token)) === DONE;
  }

  /** Frees a lock of this participant, or a request for one. Returns `RELEASED_…`. When others wait, rings the first of them. */
  releaseLock(number: number, token: number): number {
    return this.#change(() => this.#exports.release_lock(this.#area, number, token));
  }

  /**
   * If the lock whose name is the key in {@link key} is free: rings the first who waits for it and has not been rung. For a release
   * that has rung somebody who did not come. Returns 1 when there was one to ring.
   */
  passLock(key: number): number {
    return this.#briefly(() => this.#exports.pass_lock(this.#area, key));
  }

  /**
   * Registers this participant as one that waits for changes of its lock, so that it hears of a theft. Returns the class as
   * {@link wait}; negative instead of `BUSY`, and when the lock is not its own any more.
   */
  listen(number: number, token: number): number {
    return this.#briefly(() => this.#exports.listen(this.#area, number, token));
  }

  /** Renews the lease of a claim until `deadline`. Returns false when the claim is not this participant's any more. */
  extend(number: number, token: number, deadline: number): boolean {
    this.#enter();
    return this.#exports.extend(this.#area, number, token, deadline) !== 0;
  }

  /** Whether a claim stands: `GONE`, `STANDS` or `WAS_OVERTAKEN`. A dead owner counts as one that lives until {@link claim} meets it. */
  stands(number: number, token: number): number {
    this.#enter();
    return this.#exports.stands(this.#area, number, token);
  }

  /**
   * As {@link stands}, for those who wait for a claim: it is `GONE`, too, when its owner is dead or its lease is over. Then
   * {@link claim} takes over.
   *
   * @param now the present time of the clock of {@link claim}
   */
  probe(number: number, token: number, now: number): number {
    return this.#change(() => this.#exports.probe_claim(this.#area, number, token, now));
  }

  /**
   * Before a claim of this participant is released without a store: lets nobody join it any more. Returns 1 when others wait for
   * it, 0 when nobody does, and -1 when it is not its own any more.
   */
  seal(number: number, token: number): number {
    return this.#change(() => this.#exports.close_claim(this.#area, number, token));
  }

  /** Whether another participant waits for a claim, or has waited for it. */
  isWaitedFor(number: number, token: number): boolean {
    this.#enter();
    return this.#exports.is_waited_for(this.#area, number, token) !== 0;
  }

  /** The process id and the thread id of this participant. */
  get thread(): { pid: number; threadId: number } {
    const words = this.#seatWords;
    return { pid: words[SEAT_THREAD] as number, threadId: words[SEAT_THREAD + 1] as number };
  }

  /** The locks that living participants hold, and the requests for locks that wait. */
  claims(): ListedClaim[] {
    const listed: ListedClaim[] = [];
    const next = (cursor: number): number => this.#change(() => this.#exports.next_lock(this.#area, cursor));
    for (let number = next(0); number >= 0; number = next(number + 1)) {
      const nameBytes = this.out[OUT_WORD] as number;
      listed.push({
        number,
        token: this.claimToken,
        pending: (this.out[OUT_CLASS] as number) === CLAIM_PENDING,
        pid: this.out[OUT_START_SEQUENCE] as number,
        threadId: this.out[OUT_START_CLEAR_EPOCH] as number,
        name: new Uint8Array(this.value.subarray(0, Math.min(nameBytes, MAX_CLAIM_NAME))),
        nameBytes,
      });
    }
    return listed;
  }

  /**
   * Registers this participant as one that waits for changes of a key. The caller has registered with {@link wakeups} before, passes
   * the class to `Waiter.listen`, and looks at the key afterwards.
   *
   * @param key without one: registers for invalidations of tags and `clear` alone, which ring everybody who waits for anything
   * @returns the class of the key, from 0 to 63, or -1 instead of `BUSY`. Many keys have the same class.
   */
  wait(key?: number): number {
    if (key !== undefined) return this.#briefly(() => this.#exports.wait(this.#area, key));
    // Sequentially consistent: pairs with the load of the interest after an invalidation.
    Atomics.or(this.#seatWords, SEAT_INTEREST, 1);
    return 0;
  }

  /** A number that grows with each invalidation of one of the tags in {@link tags}. Tags may share a counter. */
  tagChanges(): number {
    this.#enter();
    return this.#exports.tag_changes(this.#area);
  }

  /** The global invalidation sequence: it is another number after each invalidation. */
  get sequence(): number {
    return Atomics.load(this.#sequence, 0) >>> 0;
  }

  /** The clear epoch: it is another number after each {@link clear}. */
  get clearEpoch(): number {
    return Atomics.load(this.#clearEpoch, 0) >>> 0;
  }

  /** Lets every entry with one of the tags in {@link tags} expire at `now`, in milliseconds: as {@link expire}. */
  expireTags(now: number): void {
    this.#change(() => this.#exports.expire_tags(this.#area, now));
  }

  /** The latest time in milliseconds at which one of the tags in {@link tags} was invalidated; 0 when none was. */
  tagTimes(): number {
    this.#enter();
    return this.#exports.tag_times(this.#area);
  }

  /**
   * The way of the first live entry at or after `cursor` whose key begins with one of the `count` beginnings in {@link tags}, or
   * -1 when there is none. Its key is in {@link key}, its length and key kind in {@link keyWord}.
   */
  next(cursor: number, count: number): number {
    this.#enter();
    const way = this.#exports.next(this.#area, cursor, count);
    this.#settle();
    return way;
  }

  /** How the entry of the key in {@link key} lies in the memory; `undefined` when it is absent. Copies nothing. */
  residence(key: number): Residence | undefined {
    this.#enter();
    return residenceOf(this.#exports, this.#area, key);
  }

  /**
   * Counts entries: `own` are the live entries outside of namespaces, `entries` all live entries, `bytes` those of all in
   * the log.
   */
  census(): { own: number; entries: number; bytes: number } {
    this.#enter();
    const entries = this.#exports.census(this.#area);
    this.#settle();
    return {
      own: entries - (this.out[OUT_WORD] as number),
      entries,
      bytes: this.#out64[OUT_NUMBER] as number,
    };
  }

  /** The sums of what all participants have counted. */
  counts(): Counts {
    this.#enter();
    return countsOf(this.#exports, this.#area);
  }

  /** How many entries this participant has evicted, modulo 2 ** 32. Costs one load, unlike {@link counts}. */
  get ownEvictions(): number {
    return (this.#seatWords[2 * (SEAT_COUNTERS + COUNTER_EVICTIONS)] as number) >>> 0;
  }

  /** Participants that are attached now, bytes of all segments, and bytes of the segments in use. */
  usage(): { participants: number; capacity: number; used: number } {
    const x = this.#exports;
    return {
      participants: this.#change(() => x.participants(this.#area)),
      capacity: x.capacity(this.#area),
      used: x.used(this.#area),
    };
  }

  /** The segments as they are now. */
  segments(): SegmentNumbers[] {
    this.#enter();
    return segmentsOf(this.#exports, this.#area, this.value);
  }

  /**
   * Live entries and ghosts, in turn, for each of `parts` equal parts of the index. `room` is how many entries a part can
   * hold.
   */
  occupancy(parts: number): { room: number; counts: Int32Array } {
    this.#enter();
    const room = this.#exports.occupancy(this.#area, parts);
    return { room, counts: new Int32Array(this.value.buffer, this.value.byteOffset, 2 * parts).slice() };
  }

  /** Checks the region while nobody writes. Returns 0, or the number of the broken invariant. */
  validate(): number {
    this.#enter();
    return this.#exports.validate(this.#area);
  }

  /** Leaves the region. May be called twice. */
  close(): void {
    if (this.#closed) return;
    // When `detach` is cut off, the next `close` calls it again. Once the seat is released, another participant may own it, so
    // `detach` must not be called any more.
    // From here on the seat may be another's. An operation on the closed cache may still ask the clock.
    this.#seatClock = new Float64Array(1);
    if (!this.#detached) {
      this.#change(() => {
        this.#exports.detach(this.#area);
        return DONE;
      });
      this.#detached = true;
    }
    this.wakeups.close();
    clearTimeout(this.#mourning);
    this.region.membership.release(this.seat);
    this.region.close();
    this.#closed = true;
  }
}
