/**
 * The engine of a spectator: it reads a region without a seat and writes nothing to it. It uses the same exports as a participant, and
 * only those that write nothing. The region is a private mapping: a store would make a private copy of its page, which would not
 * follow the file any more. So even the repair of a call that was cut off is different: there is nothing to give up.
 */

import {
  AREA_BYTES,
  AREA_KEY,
  AREA_OUT,
  AREA_TAGS,
  AREA_VALUE,
  AREAS_AT,
  CHUNKED,
  COUNTER_DELETES,
  COUNTER_EVICTIONS,
  COUNTER_HITS,
  COUNTER_MISSES,
  COUNTER_SETS,
  MAX_CLAIM_NAME,
  MAX_KEY,
  OUT_BYTES,
  OUT_CLASS,
  OUT_INSIDE,
  OUT_NUMBER,
  OUT_OWNER_SEAT,
  OUT_START_CLEAR_EPOCH,
  OUT_START_SEQUENCE,
  OUT_TYPE,
  OUT_VERSION,
  OUT_WORD,
  PAGE,
  SEAT_BYTES,
  SEAT_CLOCK,
  SEAT_COUNTERS,
  SEAT_HAZARD,
  SEAT_INCARNATION,
  SEAT_INTEREST,
  SEAT_NEAR_HITS,
  SEAT_PENDING,
  SEAT_THREAD,
  SEATS_AT,
  TAGS_BYTES,
  VALUE_BYTES,
  WANT_QUIET,
  WANT_TAGS,
  WANT_VALUE,
} from "./contract.ts";
import type { Exports } from "./exports.ts";
import { type Counts, countsOf, type Residence, residenceOf, type SegmentNumbers, segmentsOf } from "./numbers.ts";
import { plan } from "./plan.ts";
import { instantiate } from "./wasm.ts";

/** Where the region of a spectator begins in its memory, in bytes: behind the module's data and one area. */
export const READER_BASE: number = Math.ceil((AREAS_AT + AREA_BYTES) / PAGE) * PAGE;

/** The most segments that a hazard can name; a region has fewer. A larger number is damage. */
const MAX_HAZARD = 1 << 20;

/** A seat that somebody has taken, as its words say. */
export interface SeatWords {
  seat: number;
  /** The process as it calls itself, 0 when it has not told. */
  pid: number;
  /** 0 for the main thread. */
  threadId: number;
  /** The time by its own clock when it last asked it, in milliseconds; 0 when it has not. Only expiries make it ask. */
  clock: number;
  /** The counters belong to the seat: they go on from those of the threads that had it before. */
  hits: number;
  nearHits: number;
  misses: number;
  sets: number;
  deletes: number;
  evictions: number;
  /** Whether it is writing a large value, chunk by chunk. */
  writing: boolean;
  /** The segment into which it is writing; -1 for none. */
  hazard: number;
  /** Whether it waits for a change: of a key, a lock, or the load of another participant. */
  waiting: boolean;
}

/** A claim of a participant that has not left. */
export interface SeenClaim {
  number: number;
  token: number;
  seat: number;
  /** `CLAIM_SEEN_…`, without the flag. */
  kind: number;
  overtaken: boolean;
  /** The hash of the key or the name, 16 hexadecimal digits. */
  hash: string;
  /** Milliseconds of the clock of leases. */
  deadline: number;
  /** The first bytes of the name. */
  name: Uint8Array;
  /** Bytes of the whole name. */
  nameBytes: number;
}

/** A bucket whose lock is held. */
export interface LockedBucket {
  bucket: number;
  seat: number;
  /** Whether the holder has left. Then whoever needs the lock takes it. */
  gone: boolean;
  /** Another number each time the lock is taken. */
  ticket: number;
}

/** One spectator of one region. Only the thread that made it may use it. */
export class Reader {
  /** The key part: keys are written to it before a call, and read from it after {@link next}. */
  readonly key: Uint8Array;
  /** The tags part: beginnings are written to it before {@link next}, and the tag block is read from it after {@link get}. */
  readonly tags: Uint8Array;
  /** The value part: the value is read from it after {@link get}. */
  readonly value: Uint8Array;
  /** How many seats the region has. */
  readonly seats: number;
  /** Largest value in bytes that a region of this size takes. */
  readonly maxValue: number;

  readonly #exports: Exports;
  readonly #out: Int32Array;
  readonly #out64: Float64Array;
  readonly #seatWords: Int32Array;
  readonly #seatNumbers: BigUint64Array;
  readonly #seatDoubles: Float64Array;
  readonly #chunkBytes: number;

  /**
   * @param memory has the region of `size` bytes at {@link READER_BASE}
   * @param now the clock for expiry, in milliseconds; must not throw
   * @throws {RangeError} when no cache has that size.
   * @throws {CacheError} `ERR_UNSUPPORTED` and `ERR_NO_SPACE` as {@link instantiate}.
   */
  constructor(memory: WebAssembly.Memory, size: number, now: () => number) {
    // No proof of death: nothing is taken from anybody. No call waits for a lock.
    const x = instantiate(memory, { now, take: () => 0, release: () => {}, pause: () => 0 });
    this.#exports = x;
    x.__stack_pointer.value = AREAS_AT + AREA_BYTES;
    if (!x.spectate(AREAS_AT, READER_BASE, size)) throw new RangeError(`size: no cache has ${size} bytes`);
    const { buffer } = memory;
    this.key = new Uint8Array(buffer, AREAS_AT + AREA_KEY, MAX_KEY);
    this.tags = new Uint8Array(buffer, AREAS_AT + AREA_TAGS, TAGS_BYTES);
    this.value = new Uint8Array(buffer, AREAS_AT + AREA_VALUE, VALUE_BYTES);
    this.#out = new Int32Array(buffer, AREAS_AT + AREA_OUT, OUT_BYTES / 4);
    this.#out64 = new Float64Array(buffer, AREAS_AT + AREA_OUT, OUT_BYTES / 8);
    this.seats = plan.of(size).seats;
    const seatsAt = READER_BASE + SEATS_AT;
    this.#seatWords = new Int32Array(buffer, seatsAt, (this.seats * SEAT_BYTES) / 4);
    this.#seatNumbers = new BigUint64Array(buffer, seatsAt, (this.seats * SEAT_BYTES) / 8);
    this.#seatDoubles = new Float64Array(buffer, seatsAt, (this.seats * SEAT_BYTES) / 8);
    this.#chunkBytes = x.chunk_bytes(AREAS_AT);
    this.maxValue = x.max_value(size);
  }

  /** Before each call: a call that was cut off, because the stack has ended, has left the stack pointer where it was. */
  get #x(): Exports {
    if (this.#out[OUT_INSIDE] !== 0) {
      this.#exports.__stack_pointer.value = AREAS_AT + AREA_BYTES;
      this.#out[OUT_INSIDE] = 0;
    }
    return this.#exports;
  }

  /** The sums of what all participants have counted. */
  counts(): Counts {
    return countsOf(this.#x, AREAS_AT);
  }

  /** The hits of the near caches of all participants that ever were. */
  nearHits(): number {
    let sum = 0;
    for (let seat = 0; seat < this.seats; seat++) sum += this.#nearHits(seat);
    return sum;
  }

  #nearHits(seat: number): number {
    const hits = this.#seatDoubles[(SEAT_BYTES * seat + SEAT_NEAR_HITS) / 8] as number;
    // As the engine adds them up, also when the memory is damaged.
    return hits > 0 && hits < Number.MAX_SAFE_INTEGER ? Math.floor(hits) : 0;
  }

  /** Bytes of all segments, and bytes of the segments in use. */
  usage(): { capacity: number; used: number } {
    const x = this.#x;
    return { capacity: x.capacity(AREAS_AT), used: x.used(AREAS_AT) };
  }

  /** The live entries, those of them in namespaces, and their bytes. */
  census(): { entries: number; namespaced: number; bytes: number } {
    const entries = this.#x.census(AREAS_AT);
    return { entries, namespaced: this.#out[OUT_WORD] as number, bytes: this.#out64[OUT_NUMBER] as number };
  }

  /** The segments as they are now. */
  segments(): SegmentNumbers[] {
    return segmentsOf(this.#x, AREAS_AT, this.value);
  }

  /** Live entries and ghosts, in turn, for each of `parts` equal parts of the index, and how many entries a part has room for. */
  occupancy(parts: number): { room: number; counts: Int32Array } {
    const room = this.#x.occupancy(AREAS_AT, parts);
    return { room, counts: new Int32Array(this.value.buffer, this.value.byteOffset, 2 * parts).slice() };
  }

  /** The first seat from `seat` on that somebody has taken and not given back; `undefined` behind the last one. */
  takenSeat(from: number): SeatWords | undefined {
    for (let seat = Math.max(0, from); seat < this.seats; seat++) {
      const at = (SEAT_BYTES / 4) * seat;
      const word = (number: number): number => Atomics.load(this.#seatWords, at + number);
      // The tenure.
      if (word(SEAT_INCARNATION + 1) === 0) continue;
      return this.#describe(seat, word);
    }
    return undefined;
  }

  /** A seat, taken or not; `undefined` for a number that no seat has. */
  seat(seat: number): SeatWords | undefined {
    if (!(seat >= 0 && seat < this.seats)) return undefined;
    const at = (SEAT_BYTES / 4) * seat;
    return this.#describe(seat, (number) => Atomics.load(this.#seatWords, at + number));
  }

  #describe(seat: number, word: (number: number) => number): SeatWords {
    const counter = (number: number): number =>
      Number(Atomics.load(this.#seatNumbers, (SEAT_BYTES / 8) * seat + SEAT_COUNTERS + number));
    const isZero = (number: number): boolean => word(number) === 0 && word(number + 1) === 0;
    const hazard = word(SEAT_HAZARD);
    return {
      seat,
      pid: word(SEAT_THREAD),
      threadId: word(SEAT_THREAD + 1),
      clock: this.#seatDoubles[(SEAT_BYTES * seat + SEAT_CLOCK) / 8] as number,
      hits: counter(COUNTER_HITS) + this.#nearHits(seat),
      nearHits: this.#nearHits(seat),
      misses: counter(COUNTER_MISSES),
      sets: counter(COUNTER_SETS),
      deletes: counter(COUNTER_DELETES),
      evictions: counter(COUNTER_EVICTIONS),
      writing: !isZero(SEAT_PENDING),
      hazard: hazard > 0 && hazard < MAX_HAZARD ? hazard - 1 : -1,
      waiting: !isZero(SEAT_INTEREST),
    };
  }

  /** All claims of participants that have not left: loads, locks and requests for locks. */
  claims(): SeenClaim[] {
    const claims: SeenClaim[] = [];
    const next = (cursor: number): number => this.#x.next_claim(AREAS_AT, cursor);
    const out = this.#out;
    const half = (number: number): string => ((out[number] as number) >>> 0).toString(16).padStart(8, "0");
    for (let number = next(0); number >= 0; number = next(number + 1)) {
      const nameBytes = (out[OUT_WORD] as number) >>> 0;
      const flags = out[OUT_CLASS] as number;
      claims.push({
        number,
        token: this.#out64[OUT_VERSION] as number,
        seat: out[OUT_OWNER_SEAT] as number,
        kind: flags & 3,
        overtaken: flags > 3,
        hash: half(OUT_START_CLEAR_EPOCH) + half(OUT_START_SEQUENCE),
        deadline: this.#out64[OUT_NUMBER] as number,
        name: new Uint8Array(this.value.subarray(0, Math.min(nameBytes, MAX_CLAIM_NAME))),
        nameBytes,
      });
    }
    return claims;
  }

  /** The buckets whose locks are held at this moment. */
  lockedBuckets(): LockedBucket[] {
    const locked: LockedBucket[] = [];
    const next = (cursor: number): number => this.#x.next_locked_bucket(AREAS_AT, cursor);
    for (let bucket = next(0); bucket >= 0; bucket = next(bucket + 1)) {
      const out = this.#out;
      locked.push({
        bucket,
        seat: out[OUT_OWNER_SEAT] as number,
        gone: out[OUT_CLASS] !== 0,
        ticket: out[OUT_WORD] as number,
      });
    }
    return locked;
  }

  /**
   * The way of the first live entry at or after `cursor` whose key begins with one of the `count` beginnings in {@link tags}, or -1.
   * Its key is in {@link key}, its length and key kind in {@link word}.
   */
  next(cursor: number, count: number): number {
    return this.#x.next(AREAS_AT, cursor, count);
  }

  /** After {@link next}: the key, as `length << KEY_KIND_BITS | key kind`. After {@link get}: bytes of the tag block in {@link tags}. */
  get word(): number {
    return this.#out[OUT_WORD] as number;
  }

  /** Looks up the key in {@link key}: the length of its value, or -1. Its tags are in {@link tags}, its value in {@link value}. */
  get(key: number, withValue: boolean): number {
    return this.#x.get(AREAS_AT, key, WANT_QUIET | WANT_TAGS | (withValue ? WANT_VALUE : 0));
  }

  /** After {@link get}: the value type. */
  get valueType(): number {
    return (this.#out[OUT_TYPE] as number) & (CHUNKED - 1);
  }

  /** After {@link get}: whether the value is in chunks, for {@link readLarge}. */
  get isChunked(): boolean {
    return ((this.#out[OUT_TYPE] as number) & CHUNKED) !== 0;
  }

  /** After {@link get}: the version. */
  get version(): number {
    return this.#out64[OUT_VERSION] as number;
  }

  /** After {@link get}: the expiry in milliseconds, `Infinity` for none. */
  get expiry(): number {
    return this.#out64[OUT_NUMBER] as number;
  }

  /** Copies the value in chunks that has this version to `target`, which has its length. False when it has changed meanwhile. */
  readLarge(key: number, version: number, target: Uint8Array): boolean {
    for (let number = 0, at = 0; at < target.length; number++) {
      const length = this.#x.read_chunk(AREAS_AT, key, version, number);
      if (length < 0 || length !== Math.min(this.#chunkBytes, target.length - at)) return false;
      target.set(this.value.subarray(0, length), at);
      at += length;
    }
    return true;
  }

  /** How the entry of the key in {@link key} lies in the memory; `undefined` when it is absent. */
  residence(key: number): (Residence & { bytes: number }) | undefined {
    const found = residenceOf(this.#x, AREAS_AT, key);
    return found && { ...found, bytes: this.#out64[OUT_NUMBER] as number };
  }

  /** Checks the region: 0, or the number of the broken invariant. */
  validate(): number {
    return this.#x.validate(AREAS_AT);
  }
}
