/// <reference lib="esnext.disposable" preserve="true" />
/**
 * The cache as people use it: the interface of a `Map` and more, over one participant's engine. Checks arguments, turns
 * keys and values into bytes, and results into values or errors. Knows neither where the memory is nor what is in it.
 *
 * The order within each operation is always the same: read options, encode the value (both may run the user's code, and
 * that code may use the cache), then write tags and key to the scratch area, then one call into the engine.
 */

import {
  ABSENT,
  ANYTHING,
  BUSY,
  CLASS_SMALL,
  DONE,
  KEY_NAMESPACED,
  NOT_A_NUMBER,
  PHASE_FREE,
  PHASE_OPEN,
  PHASE_RECLAIM,
  PHASE_SEALED,
  PRESENT,
  TOO_LARGE,
  VERSION,
  WANT_AFTER_FIND,
  WANT_QUIET,
  WANT_TAGS,
  WANT_VALUE,
} from "../engine/contract.ts";
import type { Engine } from "../engine/engine.ts";
import { plan } from "../engine/plan.ts";
import { leaveSeat, type Seat, takeSeat } from "../engine/seats.ts";
import { BUSY_MS } from "../engine/waiting.ts";
import { CacheError } from "../errors.ts";
import type { Region } from "../memory/memory.ts";
import { heapBytes, packedBytes } from "../near/heap.ts";
import { extraOf, Near } from "../near/near.ts";
import { type Packed, unpack } from "../near/pack.ts";
import type { ValueCodec } from "../values/codec.ts";
import { deepFreeze } from "../values/freeze.ts";
import { KEY_LIMIT, KeyCodec } from "../values/key.ts";
import { ROOT, type Scope, scopeOf } from "../values/scope.ts";
import { readTags, writeTags } from "../values/tags.ts";
import { flatCopy } from "../values/text.ts";
import { asObject, checkTtl, type IncrementOptions, type Resolved, type SetOptions } from "./options.ts";

/**
 * A key: text of up to 4,096 bytes of UTF-8 (of UTF-16 if it has lone surrogates), or as many bytes; in a namespace as well. A
 * string and its bytes are different keys. A longer one is a miss for whatever reads or removes, and `ERR_TOO_LARGE` for
 * whatever stores.
 */
export type Key = string | Uint8Array;

/** What a worker needs to have the same cache: pass it through `workerData`, `postMessage` or `setEnvironmentData`. */
export interface CacheHandle {
  readonly reach: "threads" | "processes";
  /** Identity of the engine: only the same version of this package can join. */
  readonly build: string;
  // What else is in it is between the threads, and needs types that not every project has.
}

/** An entry with what is known about it. */
export interface Entry<V> {
  value: V;
  /** Changes with every change of the value, and never comes back; for {@link Cache.compareAndSet}. */
  version: number;
  /** Milliseconds of the cache's clock, `Infinity` without expiry. */
  expiresAt: number;
  tags: string[];
}

/** Numbers about a cache, of all its participants together. */
export interface Stats {
  /** Entries that can be read now, those of namespaces included. Counting walks the index. */
  entries: number;
  /** Bytes that these entries take, overhead included. */
  bytes: number;
  /** Bytes that entries can take. */
  capacity: number;
  /** Bytes of the memory that hold anything, dead records included. */
  used: number;
  /** Bytes of shared memory, as asked for with `size`. */
  size: number;
  /** Threads that have the cache open now, in all processes. */
  participants: number;
  /** Reads that found a value; `has`, `ttl` and iteration do not count. */
  hits: number;
  /** Reads that found none. Those of keys that are too long for any entry do not count. */
  misses: number;
  /** Values stored, increments included. */
  sets: number;
  /** Entries removed by `delete` and `take`. */
  deletes: number;
  /** Entries that had to make room for others. */
  evictions: number;
  /** Expired entries whose memory was taken back. */
  expirations: number;
  /** Segments of memory that were emptied. */
  reclaims: number;
  /** Those of them that were emptied by moving what lived in them. */
  compactions: number;
  /** What this thread keeps of its own: decoded values, and the bytes of heap that they take, by estimate. */
  near: { entries: number; bytes: number };
}

/** What a cache is, in a log. */
export interface CacheSummary {
  reach: "threads" | "processes";
  /** As given to `openCache`. */
  name?: string;
  /** The names of a namespace, the outermost first. */
  namespace?: string;
  /** Bytes of shared memory. */
  size: number;
  /** Threads that have the cache open now, in all processes. */
  participants?: number;
  /** It was closed in this thread. */
  closed?: true;
}

/** A piece of the memory, into which entries are written one after the other. */
export interface Segment {
  /** `"open"` takes entries, `"sealed"` is full, and `"reclaim"` is being emptied to be used again. */
  state: "free" | "open" | "sealed" | "reclaim";
  /** `"small"` holds entries on probation, `"main"` those that were read again. */
  class: "small" | "main";
  /** Bytes written. */
  used: number;
  /** Those of them that belong to entries which are still there. */
  live: number;
  /** Grows whenever the segment is emptied. */
  generation: number;
}

/** A look into the memory of a cache. */
export interface Inspection {
  segments: Segment[];
  /** Bytes that each segment has room for. */
  segmentBytes: number;
  /** Parts of the index, all of the same size: entries, and those of entries that were evicted lately. */
  index: { live: number; ghosts: number }[];
  /** How many entries each part of the index has room for. */
  indexPartEntries: number;
}

const SEGMENT_STATES: Record<number, Segment["state"]> = {
  [PHASE_FREE]: "free",
  [PHASE_OPEN]: "open",
  [PHASE_SEALED]: "sealed",
  [PHASE_RECLAIM]: "reclaim",
};
/** No index has fewer buckets. */
const INDEX_PARTS = 256;

/** A large value that is replaced while it is read is read again; after that many times it is a miss. */
const READS = 16;
/** Tries of {@link Cache.update} beyond its time, so that a slow machine does not turn into an error. */
const MIN_TRIES = 100;
/** And the most within its time, in case the clock stands still because a test has replaced it. */
const MAX_TRIES = 100_000;

/** What Node.js shows instead of an object's properties. */
const INSPECT: unique symbol = Symbol.for("nodejs.util.inspect.custom");

/** Makes structured clone refuse an object, from Node.js 22.10 on; elsewhere its copy is an empty object. */
const markAsUncloneable: ((object: object) => void) | undefined = (
  globalThis.process?.getBuiltinModule?.("node:worker_threads") as { markAsUncloneable?: (object: object) => void }
)?.markAsUncloneable;

/**
 * A read of a primitive value gains little by the near cache, so each that found nothing there counts as so many: half of
 * all have to be found, of objects a fifth.
 */
const PRIMITIVE_MISSES = 4;

/** What all views of one opened cache share. */
interface Opened {
  /** The place of this thread in the cache, which all that it has opened of it share. */
  readonly seat: Seat;
  readonly engine: Engine;
  readonly options: Resolved;
  readonly near: Near | undefined;
  readonly name: string | undefined;
  closed: boolean;
  /** The seat was given back, which comes after `closed` when something is being encoded, or when the stack ended. */
  left: boolean;
  /** Values that are being encoded into the area, one within the other. */
  encoding: number;
}

/** What was kept near for caches that were forgotten without `close`. */
const forgotten = new FinalizationRegistry<Near>((near) => near.close());

/**
 * A cache shared between threads, or between processes. Made by `openCache`, `createCache` and `attachCache`.
 *
 * Values are copies: changing one changes nobody else's. A miss is `undefined`. Every operation is atomic, and once a
 * change has returned, every later read in any thread or process sees it, or a later one, or a miss.
 */
export class Cache<V = any> implements Disposable {
  readonly #opened: Opened;
  readonly #engine: Engine;
  readonly #near: Near | undefined;
  readonly #codec: ValueCodec;
  readonly #keys: KeyCodec = new KeyCodec();
  readonly #scope: Scope;
  /** The key part of the scratch area behind the scope's prefix. */
  readonly #keyArea: Uint8Array;

  /** @internal */
  constructor(opened: Opened, scope: Scope) {
    this.#opened = opened;
    this.#engine = opened.engine;
    this.#near = opened.near;
    this.#codec = opened.options.codec;
    this.#scope = scope;
    this.#keyArea = opened.engine.key.subarray(scope.prefix.length);
    markAsUncloneable?.(this);
  }

  /** `"threads"`: this process only. `"processes"`: all processes of this user on this machine. */
  get reach(): "threads" | "processes" {
    return this.#engine.region.reach;
  }

  /** The name given to `openCache`, `undefined` for a cache of this process. */
  get name(): string | undefined {
    return this.#opened.name;
  }

  /** What a worker needs for `attachCache`; passes through structured clone. */
  get handle(): CacheHandle {
    return { ...this.#engine.region.handle, build: plan.build };
  }

  /**
   * The value of `key`, or `undefined`. Never waits for anybody.
   *
   * @throws {TypeError} when the key is neither a string nor bytes.
   * @throws {CacheError} `ERR_DATA` when the value is there, but cannot be read here: it is of a type that this runtime does
   * not have, was stored with another `codec`, or is damaged. `set` and `delete` work as ever.
   */
  get(key: Key): V | undefined {
    const near = this.#near;
    if (near === undefined || typeof key !== "string") return this.#read(key, WANT_VALUE);
    if (this.#opened.closed) this.#live();
    if (near.rests()) return this.#read(key, WANT_VALUE);
    const value = near.read(key, this.#scope);
    if (value !== undefined) return value as V;
    const slot = near.found;
    if (slot < 0) return this.#missed(key, WANT_VALUE);
    return near.isCurrent(slot) ? this.#nearby(key, slot) : this.#again(key, slot);
  }

  /** A value that is not near. */
  #missed(key: string, want: number): V | undefined {
    const written = this.#writeKey(key);
    return written < 0 ? undefined : this.#fetch(key, written, want, this.#near);
  }

  /** A value that is near, and may have changed. By itself, so that what is compiled for {@link get} stays small. */
  #again(key: string, slot: number): V | undefined {
    const near = this.#near as Near;
    const written = this.#writeKey(key);
    if (!this.#engine.find(written)) return undefined;
    if (!near.renew(slot)) return this.#fetch(key, written, WANT_VALUE | WANT_AFTER_FIND, near);
    return this.#nearby(key, slot);
  }

  /** A value that is near, and may be packed or have an expiry or tags. It was counted as a hit. */
  #nearby(key: string, slot: number): V | undefined {
    const near = this.#near as Near;
    // First, as the clock is the user's code and may use the cache.
    const isPacked = near.isPacked(slot);
    const extra = near.extra(slot);
    const value = extra === undefined ? near.value(slot) : extra.value;
    if (extra !== undefined) {
      const isDead = extra.expiry !== Infinity && extra.expiry <= this.#now();
      if (isDead || !near.hasItsTags(extra)) {
        if (isDead) near.drop(slot);
        return this.#missed(key, WANT_VALUE | WANT_AFTER_FIND);
      }
    }
    return (isPacked ? unpack(value as Packed) : value) as V;
  }

  #read(key: Key, want: number): V | undefined {
    const written = this.#writeKey(key);
    return written < 0 ? undefined : this.#fetch(key, written, want);
  }

  /** Reads and decodes the value of the key in the area, and keeps it in `near`. */
  #fetch(key: Key, written: number, want: number, near?: Near): V | undefined {
    const engine = this.#engine;
    const codec = this.#codec;
    // The tags are for the near cache, which keeps their counters.
    let wanted = near === undefined ? want : want | WANT_TAGS;
    for (let reads = 0; reads < READS; reads++) {
      const length = engine.get(written, wanted);
      if (length < 0) return undefined;
      const kind = engine.valueType;
      if (engine.isChunked) {
        const bytes = allocate(length);
        if (engine.readLarge(written, bytes)) return this.#decode(kind, bytes, length, true);
        // What is looked for again was counted already.
        if ((want & WANT_QUIET) === 0) wanted |= WANT_AFTER_FIND;
        continue;
      }
      if (near === undefined) return this.#decode(kind, engine.value, length, false);
      near.missed(codec.isPrimitive(kind) ? PRIMITIVE_MISSES : 1);
      if (codec.isPrimitive(kind)) {
        const value = codec.decode(kind, engine.value, 0, length);
        const slot = near.place(key as string, this.#scope, engine.out);
        if (slot < 0) return value as V;
        const extra = extraOf(this.#scope.id, engine.expiry, engine.tagCounters());
        near.keep(slot, key as string, engine.out, value, extra, heapBytes(value), false);
        return value as V;
      }
      const { frozenObjects } = this.#opened.options;
      if (!frozenObjects && !codec.isStructured(kind)) return this.#decode(kind, engine.value, length, false);
      // Decoding may run the user's code, which may use the cache and so change what the engine has put out.
      const proof = engine.out.slice();
      const extra = extraOf(this.#scope.id, engine.expiry, engine.tagCounters());
      const value = codec.decode(kind, engine.value, 0, length);
      if (frozenObjects && !deepFreeze(value)) return value as V;
      // Also this may run a getter of what a codec has made, so before there is a place.
      const frozenBytes = frozenObjects ? heapBytes(value) : 0;
      const slot = near.place(key as string, this.#scope, proof);
      if (slot < 0) return value as V;
      const packed = frozenObjects ? undefined : near.shapes.pack(value);
      if (frozenObjects) near.keep(slot, key as string, proof, value, extra, frozenBytes, false);
      if (packed === undefined) return value as V;
      const heap = packedBytes(packed) + near.shapes.compiled;
      near.keep(slot, key as string, proof, packed, extra, heap, true);
      return unpack(packed) as V;
    }
    return undefined;
  }

  #decode(kind: number, bytes: Uint8Array, length: number, owned: boolean): V {
    const value = this.#codec.decode(kind, bytes, 0, length, owned);
    if (this.#opened.options.frozenObjects) deepFreeze(value);
    return value as V;
  }

  /**
   * Stores a value; returns the cache, as `Map` does. When it throws, what was there is still there.
   *
   * @throws {TypeError} for a value that is no data at all: `undefined`, a function, a symbol, a Promise, a WeakMap.
   * @throws {CacheError} `ERR_DATA` when there is something of that kind within the value, a property named `__proto__`, or
   * more than 512 levels; `ERR_TOO_LARGE` for the key or the value; `ERR_BUSY` when another participant, alive but stopped,
   * is in the way.
   */
  set(key: Key, value: V, options?: SetOptions): this {
    this.#store(key, value, options, ANYTHING, 0);
    return this;
  }

  /** Stores only if the key is absent; whether it did. Of all that add at the same time one wins. */
  add(key: Key, value: V, options?: SetOptions): boolean {
    return this.#store(key, value, options, ABSENT, 0);
  }

  /** Stores only if the key is present; whether it did. */
  replace(key: Key, value: V, options?: SetOptions): boolean {
    return this.#store(key, value, options, PRESENT, 0);
  }

  /** Stores only if the entry still is the one with this version; whether it did. Version 0 stands for "absent". */
  compareAndSet(key: Key, version: number, value: V, options?: SetOptions): boolean {
    if (!Number.isSafeInteger(version) || version < 0) {
      throw new TypeError("version: must be one that getEntry has returned, or 0 for an absent entry");
    }
    return this.#store(key, value, options, version === 0 ? ABSENT : VERSION, version);
  }

  /**
   * Replaces the value by what `change` makes of it (of `undefined` when there is none), and tries again when another
   * participant was faster; returns the new value. `change` may run more than once. As with `set`, expiry and tags are
   * those of `options`, not those the entry had.
   *
   * @throws {CacheError} `ERR_BUSY` when others are faster all the time; `ERR_DATA` when the value cannot be read here.
   */
  update(key: Key, change: (value: V | undefined) => V, options?: SetOptions): V {
    if (typeof change !== "function") throw new TypeError("change: must be a function that returns the new value");
    // Before `change` runs for nothing.
    this.#writeNewKey(key);
    const deadline = performance.now() + BUSY_MS;
    for (let tries = 0; tries < MAX_TRIES && (tries < MIN_TRIES || performance.now() < deadline); tries++) {
      const entry = this.getEntry(key);
      const value = change(entry?.value);
      // Not by compareAndSet, which refuses versions that nobody was given: damaged memory may hold any.
      const version = entry?.version ?? 0;
      if (this.#store(key, value, options, version === 0 ? ABSENT : VERSION, version)) return value;
    }
    throw busy("others change this key all the time");
  }

  #store(key: Key, value: unknown, options: SetOptions | undefined, expect: number, version: number): boolean {
    const engine = this.#engine;
    let ttl = this.#opened.options.ttl;
    let tags: readonly string[] | undefined;
    if (options !== undefined) {
      const given = asObject(options, "options");
      if (given.ttl !== undefined) ttl = checkTtl(given.ttl);
      if (given.tags !== undefined) {
        if (!Array.isArray(given.tags)) throw new TypeError("tags: must be an array of strings");
        tags = [...given.tags];
      }
    }
    const expiry = this.#expiry(ttl);
    // After the user's code that options and clock may be, and before anything is written to the area.
    if (this.#opened.closed || engine.asking) this.#live();
    const length = typeof value === "object" ? this.#encode(value) : this.#codec.encode(value, engine.value);
    const { bytes, type } = this.#codec;
    if (length > this.#opened.options.maxEntrySize || length > engine.maxValue) this.#tooLarge(length);
    const written = this.#writeNewKey(key);
    const tagBytes = this.#writeTags(tags);
    const tagged = tagBytes > 0;
    const inline = bytes === undefined && length + (written >>> 2) + tagBytes <= engine.maxInline;
    const result = inline
      ? engine.set(written, type, length, expiry, tagged, expect, version)
      : engine.setLarge(written, type, bytes ?? copyOf(engine.value, length), expiry, tagged, expect, version);
    if (result === TOO_LARGE) this.#tooLarge(length);
    if (result === BUSY) throw busy("another participant is in the way");
    return result === DONE;
  }

  /** Encodes an object, which may run the user's code: until that is over the area stays this thread's, come what may. */
  #encode(value: unknown): number {
    const opened = this.#opened;
    opened.encoding++;
    try {
      return this.#codec.encode(value, opened.engine.value);
    } finally {
      if (--opened.encoding === 0 && opened.closed) this.close();
    }
  }

  #expiry(ttl: number): number {
    return ttl === Infinity ? Infinity : this.#now() + ttl;
  }

  /** The time on this cache's own clock. */
  #now(): number {
    const engine = this.#engine;
    engine.clock = this.#opened.options.now;
    return engine.now();
  }

  #tooLarge(length: number): never {
    const limit = Math.min(this.#opened.options.maxEntrySize, this.#engine.maxValue);
    const why =
      length <= limit
        ? "its key and tags leave no room for it"
        : `the limit is ${limit} (an eighth of the cache's size, or maxEntrySize)`;
    throw new CacheError("ERR_TOO_LARGE", `value: has ${length} bytes and ${why}. The old value was kept.`);
  }

  /** Whether the key is present. Does not count as a read. */
  has(key: Key): boolean {
    const written = this.#writeKey(key);
    return written >= 0 && this.#engine.get(written, WANT_QUIET) >= 0;
  }

  /** Removes the key; whether it was there. */
  delete(key: Key): boolean {
    return this.#remove(key, ANYTHING, 0);
  }

  #remove(key: Key, expect: number, version: number): boolean {
    const written = this.#writeKey(key);
    if (written < 0) return false;
    const removed = this.#engine.remove(written, expect, version);
    if (removed < 0) throw busy("another participant is in the way");
    return removed === 1;
  }

  /** Gets and removes in one step: of all that take at the same time one gets the value. */
  take(key: Key): V | undefined {
    const deadline = performance.now() + BUSY_MS;
    for (let tries = 0; tries < MAX_TRIES && (tries < MIN_TRIES || performance.now() < deadline); tries++) {
      const entry = this.getEntry(key);
      if (entry === undefined) return undefined;
      if (this.#remove(key, VERSION, entry.version)) return entry.value;
    }
    throw busy("others change this key all the time");
  }

  /** The value with its version, expiry and tags. */
  getEntry(key: Key): Entry<V> | undefined {
    const engine = this.#engine;
    const written = this.#writeKey(key);
    if (written < 0) return undefined;
    for (let reads = 0; reads < READS; reads++) {
      const length = engine.get(written, WANT_VALUE | WANT_TAGS);
      if (length < 0) return undefined;
      const { valueType: kind, version, expiry: expiresAt } = engine;
      const tags = readTags(engine.tags, engine.tagBytes);
      if (!engine.isChunked) {
        return { value: this.#decode(kind, engine.value, length, false), version, expiresAt, tags };
      }
      const bytes = allocate(length);
      if (engine.readLarge(written, bytes)) {
        return { value: this.#decode(kind, bytes, length, true), version, expiresAt, tags };
      }
    }
    return undefined;
  }

  /** The values of many keys, in their order; `undefined` for those that are absent, or cannot be read here. */
  getMany(keys: Iterable<Key>): (V | undefined)[] {
    return Array.from(asIterable(keys, "keys"), (key) => {
      try {
        return this.get(key);
      } catch (error) {
        return unreadable(error);
      }
    });
  }

  /** Stores many entries, one after the other; each is atomic, all together are not. */
  setMany(entries: Iterable<readonly [Key, V]>, options?: SetOptions): this {
    for (const [key, value] of asIterable(entries, "entries")) this.set(key, value, options);
    return this;
  }

  /**
   * Adds to a number and returns the sum; no increment is lost, whoever makes it. An absent key counts from `initial`.
   *
   * @throws {TypeError} when the value is not a number.
   */
  increment(key: Key, by = 1, options?: IncrementOptions): number {
    if (typeof by !== "number" || !Number.isFinite(by)) throw new TypeError("by: must be a finite number");
    const { initial = 0, ttl } = asObject(options, "options");
    if (typeof initial !== "number" || !Number.isFinite(initial)) {
      throw new TypeError("initial: must be a finite number");
    }
    const expiry = this.#expiry(ttl === undefined ? this.#opened.options.ttl : checkTtl(ttl));
    const written = this.#writeNewKey(key);
    const tagged = this.#writeTags(undefined) > 0;
    const result = this.#engine.increment(written, by, initial, expiry, tagged);
    if (result === NOT_A_NUMBER)
      throw new TypeError("the value of this key is not a number; increment cannot add to it");
    if (result !== DONE) throw busy("another participant is in the way");
    return this.#engine.sum;
  }

  /** Subtracts from a number and returns the difference; see {@link increment}. */
  decrement(key: Key, by = 1, options?: IncrementOptions): number {
    if (typeof by !== "number") throw new TypeError("by: must be a finite number");
    return this.increment(key, -by, options);
  }

  /** Gives an entry a new time to live in milliseconds, `Infinity` for none; whether it was there. */
  touch(key: Key, ttl: number): boolean {
    const expiry = this.#expiry(checkTtl(ttl));
    const written = this.#writeKey(key);
    if (written < 0) return false;
    const result = this.#engine.touch(written, expiry);
    if (result === BUSY) throw busy("another participant is in the way");
    if (result === TOO_LARGE) throw new CacheError("ERR_TOO_LARGE", "the entry has no room for an expiry");
    return result === DONE;
  }

  /** Milliseconds that the entry still lives, `Infinity` without expiry, `undefined` when it is absent. */
  ttl(key: Key): number | undefined {
    const written = this.#writeKey(key);
    if (written < 0 || this.#engine.get(written, WANT_QUIET) < 0) return undefined;
    const expiresAt = this.#engine.expiry;
    if (expiresAt === Infinity) return Infinity;
    const left = expiresAt - this.#now();
    // The clock went on after the engine asked for it.
    return left > 0 ? left : undefined;
  }

  /** Makes every entry with one of these tags a miss, everywhere and at once, whatever their number. */
  invalidateTag(...tags: string[]): void {
    this.#live();
    for (const tag of tags) {
      writeTags(this.#engine.tags, [tag], this.#scope.tagPrefix, []);
      this.#engine.invalidate();
    }
  }

  /**
   * A part of the cache with keys of its own and the same interface; namespaces can be nested. Clearing one is a single
   * step, whatever its size, and clears those within it; its tags are its own. The `size` of a namespace
   * and iterating over it walk the whole cache. Keys, values and tags have the same limits in all of them.
   *
   * @throws {RangeError} deeper than 16, or when the names of all levels have more than 255 bytes of UTF-8, with two to four
   * for each level.
   */
  namespace<W = V>(name: string): Cache<W> {
    this.#live();
    if (typeof name !== "string") throw new TypeError(`name: must be a string, not ${typeof name}`);
    if (name === "") throw new RangeError("name: must not be empty");
    return new Cache<W>(this.#opened, scopeOf([...this.#scope.path, flatCopy(name)]));
  }

  /** Removes everything, in one step. Entries that others store at the same time may stay. */
  clear(): void {
    this.#live();
    if (this.#scope === ROOT) {
      this.#engine.clear();
      this.#near?.clear();
    } else {
      writeTags(this.#engine.tags, [], this.#scope.tagPrefix, this.#scope.hidden.slice(-1));
      this.#engine.invalidate();
    }
  }

  /** How many entries can be read now, without those of namespaces. Counting walks the whole index. */
  get size(): number {
    if (this.#scope === ROOT) return this.#census().own;
    let size = 0;
    for (const _ of this.keys()) size++;
    return size;
  }

  /**
   * The keys, in no order. Iteration is weakly consistent: an entry that is there the whole time is seen exactly once
   * unless it is evicted or overwritten meanwhile; what is stored or removed meanwhile may be seen or not.
   */
  *keys(): Generator<Key, void, undefined> {
    const { prefix } = this.#scope;
    for (let cursor = 0; ; ) {
      this.#live();
      this.#engine.clock = this.#opened.options.now;
      const way = this.#engine.next(cursor);
      if (way < 0) return;
      cursor = way + 1;
      const word = this.#engine.keyWord;
      const key = this.#ownKey(word & 3, word >>> 2, prefix);
      if (key !== undefined) yield key;
    }
  }

  /** The key in the area without the scope's prefix, if it is in the scope. */
  #ownKey(kind: number, length: number, prefix: Uint8Array): Key | undefined {
    const area = this.#engine.key;
    const own = length - prefix.length;
    // The kind of a key in a namespace is none that this one reads.
    if (own < 0 || own > KEY_LIMIT) return undefined;
    if (this.#scope === ROOT) return this.#keys.read(kind, area, 0, length);
    if (kind !== KEY_NAMESPACED) return undefined;
    // The first byte is the kind of the key behind the prefix.
    for (let i = 1; i < prefix.length; i++) if (area[i] !== prefix[i]) return undefined;
    return this.#keys.read(area[0] as number, area, prefix.length, own);
  }

  /** The values; see {@link keys}. */
  *values(): Generator<V, void, undefined> {
    for (const [, value] of this.entries()) yield value;
  }

  /** Keys and values; see {@link keys}. Entries whose values cannot be read here are left out. */
  *entries(): Generator<[Key, V], void, undefined> {
    for (const key of this.keys()) {
      let value: V | undefined;
      try {
        value = this.#read(key, WANT_VALUE | WANT_QUIET);
      } catch (error) {
        value = unreadable(error);
      }
      if (value !== undefined) yield [key, value];
    }
  }

  /** As {@link entries}. */
  [Symbol.iterator](): Generator<[Key, V], void, undefined> {
    return this.entries();
  }

  /** Calls `callback` for each entry; see {@link keys}. */
  forEach(callback: (value: V, key: Key, cache: this) => void, thisArg?: unknown): void {
    if (typeof callback !== "function") throw new TypeError("callback: must be a function");
    for (const [key, value] of this.entries()) callback.call(thisArg, value, key, this);
  }

  /** Numbers about the whole cache, of all participants together. */
  stats(): Stats {
    const { entries, bytes } = this.#census();
    const { participants, capacity, used } = this.#engine.usage();
    const near = this.#near?.usage ?? { entries: 0, bytes: 0 };
    return {
      entries,
      bytes,
      capacity,
      used,
      size: this.#engine.region.size,
      participants,
      ...this.#engine.counts(),
      near,
    };
  }

  #census(): ReturnType<Engine["census"]> {
    this.#live();
    this.#engine.clock = this.#opened.options.now;
    return this.#engine.census();
  }

  /**
   * The memory as it is now, to look at: what each segment holds, and how full the index is. Walks the index, as
   * {@link stats}; others go on meanwhile, so it is no snapshot.
   */
  inspect(): Inspection {
    this.#live();
    const segments: Segment[] = this.#engine.segments().map(({ phase, class: queue, ...rest }) => {
      const state = SEGMENT_STATES[phase] as Segment["state"];
      return { state, class: queue === CLASS_SMALL ? "small" : "main", ...rest };
    });
    const { room, counts } = this.#engine.occupancy(INDEX_PARTS);
    const part = (_: unknown, i: number) => ({ live: counts[2 * i] as number, ghosts: counts[2 * i + 1] as number });
    return {
      segments,
      segmentBytes: this.#engine.usage().capacity / segments.length,
      index: Array.from({ length: INDEX_PARTS }, part),
      indexPartEntries: room,
    };
  }

  /**
   * Leaves the cache, with all its namespaces; the entries stay for the others. Every later use throws `ERR_CLOSED`.
   * May be called twice.
   */
  close(): void {
    const opened = this.#opened;
    opened.closed = true;
    // Called by code that encoding runs, it takes effect when that is over.
    if (opened.left || opened.encoding > 0) return;
    forgotten.unregister(opened);
    this.#near?.close();
    leaveSeat(opened.seat, opened);
    opened.left = true;
  }

  /** As {@link close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** What this cache is, for a log: the same that `console.log` shows. Its entries are not in it. */
  toJSON(): CacheSummary {
    const { reach, size } = this.#engine.region;
    const { name, closed } = this.#opened;
    const { path } = this.#scope;
    const summary: CacheSummary = { reach, ...(name !== undefined && { name }), size };
    if (path.length > 0) summary.namespace = path.join("/");
    if (closed) summary.closed = true;
    else {
      try {
        summary.participants = this.#engine.usage().participants;
      } catch {
        // Not told by a clock or at the end of the stack; whoever looks at a cache must not get an error.
      }
    }
    return summary;
  }

  /** @internal */
  [INSPECT](depth: number, options: object, inspect: (value: unknown, options: object) => string): string {
    if (depth < 0 || !(#opened in this)) return "[Cache]";
    return `Cache ${inspect(this.toJSON(), options)}`;
  }

  #live(): void {
    if (this.#opened.closed) {
      throw new CacheError("ERR_CLOSED", "this cache was closed in this thread; open it again to use it");
    }
    // The area has the key and the value of the call that waits.
    if (this.#engine.asking) this.#engine.refuseClock();
  }

  /** Writes the key to the area: its kind and length in one number, as the engine takes them; negative when it is too long. */
  #writeKey(key: Key): number {
    const opened = this.#opened;
    const engine = this.#engine;
    if (opened.closed || engine.asking) this.#live();
    const written = this.#keys.write(key, this.#keyArea);
    // The call that follows may ask for the time.
    engine.clock = opened.options.now;
    if (this.#scope === ROOT || written < 0) return written;
    const { prefix } = this.#scope;
    engine.key.set(prefix);
    engine.key[0] = written & 3;
    return (((written >>> 2) + prefix.length) << 2) | KEY_NAMESPACED;
  }

  /** Writes the key of an entry that is to be stored. */
  #writeNewKey(key: Key): number {
    const written = this.#writeKey(key);
    if (written < 0) throw this.#keys.tooLong(key);
    return written;
  }

  /** Writes the given tags and those of the scope to the area; the bytes they may take in the record. */
  #writeTags(tags: readonly string[] | undefined): number {
    if (tags === undefined && this.#scope === ROOT) return 0;
    return writeTags(this.#engine.tags, tags ?? [], this.#scope.tagPrefix, this.#scope.hidden);
  }

  /** For tests: the number of the broken invariant, 0 when the structure is sound. @internal */
  validate(): number {
    this.#live();
    return this.#engine.validate();
  }
}

/** Opens a region as a cache; `isNew` when this thread has just created it. @internal */
export function openRegion<V>(region: Region, options: Resolved, name?: string, isNew?: boolean): Cache<V> {
  const seat = takeSeat(region, isNew);
  const { engine } = seat;
  const near = options.nearCache > 0 ? new Near(options.nearCache, engine, options.nearCacheSize) : undefined;
  const opened: Opened = { seat, engine, options, near, name, closed: false, left: false, encoding: 0 };
  seat.forgotten.register(opened, seat, opened);
  if (near !== undefined) forgotten.register(opened, near, opened);
  return new Cache<V>(opened, ROOT);
}

function busy(why: string): CacheError {
  return new CacheError("ERR_BUSY", `${why}; nothing was changed. Try again later.`);
}

/** A value that cannot be read here is none to whoever reads many; every other error is one. */
function unreadable(error: unknown): undefined {
  if (!(error instanceof CacheError) || error.code !== "ERR_DATA") throw error;
}

/** `slice` of a `Buffer` would be a view. */
function copyOf(bytes: Uint8Array, length: number): Uint8Array {
  return new Uint8Array(bytes.subarray(0, length));
}

function allocate(length: number): Uint8Array {
  return typeof Buffer === "function" ? Buffer.allocUnsafeSlow(length) : new Uint8Array(length);
}

function asIterable<T>(values: Iterable<T>, name: string): Iterable<T> {
  if (typeof values?.[Symbol.iterator] !== "function") throw new TypeError(`${name}: must be iterable`);
  return values;
}
