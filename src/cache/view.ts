/**
 * The floor below `Cache`: one participant's view of one scope, which is the cache itself or a namespace. Every operation of a
 * cache stands on it. A view writes keys, tags and values to the scratch area, calls the engine, and turns results into values
 * or errors. It checks keys, tags and the options of a store; `Cache` checks all other arguments. It does not know where the
 * memory is or what is in it.
 *
 * Every change keeps the same order: read the options, ask the clock, encode the value, then write the key and the tags to the
 * area, then make one call into the engine. The first three may run the user's code, and that code may use the cache, which
 * writes to the area as well.
 */

import { Batch } from "../coordinate/batch.ts";
import type { Flights, Load, LoadView } from "../coordinate/flights.ts";
import type { Loading, Storing as LoadStoring } from "../coordinate/loading.ts";
import { hiddenScope } from "../coordinate/outcomes.ts";
import type { RateLimitResult, Rule } from "../coordinate/rate-limit.ts";
import type { Scoped } from "../coordinate/scoped.ts";
import {
  ABSENT,
  ANYTHING,
  BUSY,
  DONE,
  KEY_KIND_BITS,
  KEY_NAMESPACED,
  LIMIT_BYTES,
  NOT_A_LIMIT,
  NOT_A_NUMBER,
  OUT_OF_RANGE,
  PRESENT,
  TOO_LARGE,
  UNEXPECTED,
  UNTOUCHED,
  VERSION,
  WANT_AFTER_FIND,
  WANT_QUIET,
  WANT_STALE,
  WANT_TAGS,
  WANT_VALUE,
} from "../engine/contract.ts";
import type { Engine } from "../engine/engine.ts";
import { BUSY_MS } from "../engine/waiting.ts";
import { badData, busy, CacheError, isRefusal, noRoomForExpiry, tooLarge } from "../errors.ts";
import type { Near, Source } from "../near/near.ts";
import { UNKNOWN } from "../near/table.ts";
import { type Beginnings, beginningsOf } from "../values/beginnings.ts";
import type { ValueCodec } from "../values/codec.ts";
import { deepFreeze } from "../values/freeze.ts";
import { KEY_LIMIT, KeyCodec, keyKind, keyLength } from "../values/key.ts";
import { fromPortable, toPortable } from "../values/portable.ts";
import { ROOT, type Scope } from "../values/scope.ts";
import { canBeWritten, readTags, writeTags } from "../values/tags.ts";
import { isPlain } from "./load-options.ts";
import type { Opening } from "./opening.ts";
import { type Counting, checkStore, NOTHING_SAID, type SetOptions, type Storing } from "./options.ts";
import type { Entry, Key, StaleEntry } from "./types.ts";

/** A large value that is replaced while it is read is read again; after this many times the read is a miss. */
const READS = 16;
/** Minimum number of attempts of {@link View.retry}, even after its deadline: a slow machine must not become an error. */
const MIN_ATTEMPTS = 100;
/** Maximum number of attempts of {@link View.retry}, in case the clock stands still because a test has replaced it. */
const MAX_ATTEMPTS = 100_000;
/** The expiry of an entry that has expired before it could be stored. */
const EXPIRED = -Infinity;
/** For a value that is encoded outside of the area. */
const NO_ROOM: Uint8Array = new Uint8Array(0);
/** Bytes of a number. */
const NUMBER_BYTES = 8;
/** The result of an attempt of {@link View.retry} when another participant was faster. */
export const AGAIN: unique symbol = Symbol("again");

/** One participant's view of one scope. */
export class View implements Source, Scoped, LoadView {
  readonly opening: Opening;
  readonly engine: Engine;
  readonly scope: Scope;
  /** Milliseconds that an entry lives when a store does not say: the default of the cache, or of a namespace. */
  readonly ttl: number;
  readonly near: Near | undefined;
  readonly #codec: ValueCodec;
  readonly #keys: KeyCodec = new KeyCodec();
  /** The key part of the area without the room for the scope's prefix. */
  readonly #keyArea: Uint8Array;
  /** The bytes of a large value that {@link View.#lookup} has found, until they are decoded. */
  #large: Uint8Array | undefined;

  constructor(opening: Opening, scope: Scope, ttl: number = opening.options.ttl) {
    this.opening = opening;
    this.engine = opening.engine;
    this.scope = scope;
    this.ttl = ttl;
    this.near = opening.near;
    this.#codec = opening.options.codec;
    this.#keyArea = opening.engine.key.subarray(scope.prefix.length);
  }

  // ---- reading

  /** The value of a key, from the near cache if it is there; `undefined` for a miss. */
  get(key: Key): unknown {
    const near = this.near;
    if (near === undefined || typeof key !== "string") return this.read(key, WANT_VALUE);
    return near.get(key, this, UNKNOWN);
  }

  /** As {@link View.get}, for a leased read at this time of `performance.now()`. */
  getAt(key: Key, at: number): unknown {
    const near = this.near;
    if (near === undefined || typeof key !== "string") return this.read(key, WANT_VALUE);
    return near.get(key, this, at);
  }

  /** The value of a key, decoded anew; `want` are flags of the engine's `get`. */
  read(key: Key, want: number): unknown {
    const written = this.writeKey(key);
    return written < 0 ? undefined : this.fetch(key, written, want);
  }

  /** The value of the key that is in the area. With `near`, that near cache may keep the value. */
  fetch(key: Key, written: number, want: number, near?: Near): unknown {
    // The near cache needs the tags: it keeps their counters beside the value.
    const length = this.#lookup(written, near === undefined ? want : want | WANT_TAGS);
    if (length < 0) return undefined;
    if (near === undefined || this.#large !== undefined) return this.decode(length);
    return near.keep(key as string, this.scope, length);
  }

  /** The entry of a key, also within its grace: then it is stale. */
  staleEntry(key: Key, quiet = false): StaleEntry<unknown> | undefined {
    const more = { stale: false, grace: 0 };
    const entry = this.entry(key, quiet ? WANT_STALE | WANT_QUIET : WANT_STALE, more);
    return entry && { ...entry, stale: more.stale };
  }

  /**
   * The entry of a key.
   *
   * @param want further flags of the engine's `get`
   * @param more gets what an `Entry` does not tell
   */
  entry(key: Key, want = 0, more?: { stale: boolean; grace: number }): Entry<unknown> | undefined {
    const written = this.writeKey(key);
    if (written < 0) return undefined;
    const length = this.#lookup(written, want | WANT_VALUE | WANT_TAGS);
    if (length >= 0 && more !== undefined) ({ isStale: more.stale, grace: more.grace } = this.engine);
    if (length < 0) return undefined;
    return this.entryFound(length);
  }

  /** The entry that the engine has just found, with its tags. */
  entryFound(length: number): Entry<unknown> {
    const { engine } = this;
    // Decoding may run the user's code, which may use the cache and so overwrite the out part and the tags.
    const { version, expiry: expiresAt } = engine;
    const tags = readTags(engine.tags, engine.tagBytes);
    return { value: this.decode(length), version, expiresAt, tags };
  }

  /**
   * When the entry of a key expires, in milliseconds of the cache's clock; `undefined` when the key is absent. Does not count
   * as a read.
   */
  expiry(key: Key): number | undefined {
    const written = this.writeKey(key);
    return written < 0 || this.engine.get(written, WANT_QUIET) < 0 ? undefined : this.engine.expiry;
  }

  /**
   * Looks up the key that is in the area. Returns the length of its value in bytes, or -1 for a miss. The value is in the
   * area, or in {@link View.#large} when it is stored in chunks.
   */
  #lookup(written: number, want: number): number {
    const { engine } = this;
    // The stack may have ended between the last lookup and its decoding.
    this.#large = undefined;
    let wanted = want;
    for (let reads = 0; reads < READS; reads++) {
      const length = engine.get(written, wanted);
      if (length < 0 || !engine.isChunked) return length;
      const bytes = allocate(length);
      if (engine.readLarge(written, bytes)) {
        this.#large = bytes;
        return length;
      }
      // This read was counted already.
      if ((want & WANT_QUIET) === 0) wanted |= WANT_AFTER_FIND;
    }
    return -1;
  }

  /** Decodes the value that the engine has just found, or {@link View.#lookup} in its chunks. */
  decode(length: number): unknown {
    const { engine } = this;
    const large = this.#large;
    if (large !== undefined) this.#large = undefined;
    const value = this.#codec.decode(engine.valueType, large ?? engine.value, 0, length, large !== undefined);
    if (this.opening.options.frozenObjects) deepFreeze(value);
    return value;
  }

  // ---- changing

  /**
   * Stores a value if the entry is as expected. Returns whether it stored the value. When it throws, the old value is still
   * there.
   *
   * @param expect `ANYTHING`, `ABSENT`, `PRESENT`, or `VERSION` for `version`
   * @throws {TypeError} and {RangeError} for wrong options, tags and values.
   * @throws {CacheError} `ERR_CLOSED`, `ERR_DATA`, `ERR_TOO_LARGE` or `ERR_BUSY`.
   */
  store(key: Key, value: unknown, options: SetOptions | undefined, expect: number, version: number): boolean {
    return this.storeAs(key, value, options === undefined ? undefined : checkStore(options), expect, version);
  }

  /** As {@link View.store}, with options that were checked. */
  storeAs(key: Key, value: unknown, how: Storing | undefined, expect: number, version: number): boolean {
    let expiry: number;
    let grace = 0;
    let tags: readonly string[] | undefined;
    if (how === undefined) expiry = this.expiryIn(this.ttl);
    else {
      if (how.keepTtl === true || how.keepTags === true) return this.#storeOver(key, value, how, expect, version);
      expiry = how.expiresAt === undefined ? this.expiryIn(how.ttl ?? this.ttl) : this.#expiryAt(how.expiresAt);
      if (how.grace !== undefined) grace = how.grace;
      tags = how.tags;
    }
    return this.#put(key, value, tags, expiry, grace, expect, version);
  }

  #put(
    key: Key,
    value: unknown,
    tags: readonly string[] | undefined,
    expiry: number,
    grace: number,
    expect: number,
    version: number,
  ): boolean {
    const { engine, opening } = this;
    // Getters of the options and the clock are the user's code, which may have closed the cache. So this comes after them.
    if (opening.closed || engine.asking) opening.checkOpen();
    const length = typeof value === "object" ? opening.encode(value) : this.#codec.encode(value, engine.value);
    const { bytes, type } = this.#codec;
    if (length > opening.options.maxEntrySize || length > engine.maxValue) this.#tooLarge(length);
    const written = this.writeNewKey(key);
    const tagBytes = this.#writeTags(tags);
    if (expiry === EXPIRED) return this.#expireAtOnce(written, expect, version);
    const tagged = tagBytes > 0;
    const inline = bytes === undefined && length + keyLength(written) + tagBytes <= engine.maxInline;
    const result = inline
      ? engine.set(written, type, length, expiry, grace, tagged, expect, version)
      : engine.setLarge(written, type, bytes ?? copyOf(engine.value, length), expiry, grace, tagged, expect, version);
    if (result === TOO_LARGE) this.#tooLarge(length);
    if (result === BUSY) throw busy("another participant is in the way");
    return result === DONE;
  }

  /** The expiry of an entry that expires at this time: {@link EXPIRED} when the time has come already. */
  #expiryAt(expiresAt: number): number {
    return expiresAt === Infinity || expiresAt > this.now() ? expiresAt : EXPIRED;
  }

  /**
   * As {@link View.storeAs}, for options by which an entry that is there keeps something. Its version makes sure that it is
   * still there when the value is stored.
   */
  #storeOver(key: Key, value: unknown, how: Storing, expect: number, version: number): boolean {
    return this.retry(() => {
      const { engine } = this;
      const isThere = engine.get(this.writeNewKey(key), WANT_QUIET | WANT_TAGS) >= 0;
      const there = isThere
        ? { expiresAt: engine.expiry, grace: engine.grace, tags: readTags(engine.tags, engine.tagBytes) }
        : undefined;
      const isOther = expect === VERSION && engine.version !== version;
      const isRefused = isThere ? expect === ABSENT || isOther : expect === PRESENT || expect === VERSION;
      let [wanted, at] = isThere ? [how.keepTtl === true ? UNTOUCHED : VERSION, engine.version] : [ABSENT, 0];
      // No entry has version 0, so the store is refused, after all arguments were checked.
      if (isRefused) [wanted, at] = [VERSION, 0];
      if (this.storeAs(key, value, kept(how, there), wanted, at)) return true;
      return isRefused ? false : AGAIN;
    });
  }

  /**
   * Does what remains of a store whose entry has expired by now: removes what was there, if it is as expected. Returns whether
   * it was.
   */
  #expireAtOnce(written: number, expect: number, version: number): boolean {
    if (expect === ABSENT) {
      const isAbsent = this.engine.get(written, WANT_QUIET) < 0;
      // What has expired here would be found again after the clock was set back.
      if (isAbsent) this.#remove(written, ABSENT, 0);
      return isAbsent;
    }
    return this.#remove(written, expect, version) || expect === ANYTHING;
  }

  /**
   * Removes an entry if it is as expected, as for {@link View.store}. Returns whether there was such an entry.
   *
   * @throws {CacheError} `ERR_CLOSED` or `ERR_BUSY`.
   */
  remove(key: Key, expect: number, version: number): boolean {
    const written = this.writeKey(key);
    return written >= 0 && this.#remove(written, expect, version);
  }

  /** Removes the entry of the key that is in the area, as {@link View.remove}. */
  #remove(written: number, expect: number, version: number): boolean {
    const removed = this.engine.remove(written, expect, version);
    if (removed < 0) throw busy("another participant is in the way");
    return removed === 1;
  }

  /**
   * As {@link View.store}, but where that is refused, the old value is removed. Returns whether the value was stored.
   *
   * @throws as {@link View.store}, but not `ERR_TOO_LARGE` and not `ERR_BUSY`.
   */
  tryStore(key: Key, value: unknown, options: SetOptions | undefined): boolean {
    try {
      return this.store(key, value, options, ANYTHING, 0);
    } catch (error) {
      if (!isRefusal(error)) throw error;
    }
    try {
      this.remove(key, ANYTHING, 0);
    } catch (error) {
      if (!isRefusal(error)) throw error;
    }
    return false;
  }

  /**
   * Repeats an attempt that reads an entry and then changes it, until no other participant was faster.
   *
   * @param attempt returns its result, or {@link AGAIN} when another participant was faster
   * @throws {CacheError} `ERR_BUSY` when others are faster for {@link BUSY_MS} milliseconds.
   */
  retry<T>(attempt: () => T | typeof AGAIN): T {
    const deadline = performance.now() + BUSY_MS;
    for (let tries = 0; tries < MAX_ATTEMPTS && (tries < MIN_ATTEMPTS || performance.now() < deadline); tries++) {
      const result = attempt();
      if (result !== AGAIN) return result;
    }
    throw busy("other participants change this key all the time");
  }

  /**
   * Replaces the value by the result of `change`, and returns the new value. The entry keeps its expiry and its tags, unless the
   * options say otherwise. When the result is `undefined`, the entry stays as it is, and its value is returned.
   *
   * @throws as {@link View.store} and {@link View.retry}. An error of `change` or of `options` is passed on.
   */
  update(
    key: Key,
    change: (value: unknown, entry: Entry<unknown> | undefined) => unknown,
    options: SetOptions | ((value: unknown) => SetOptions | undefined) | undefined,
  ): unknown {
    // `change` must not run for a key that no entry can have.
    this.writeNewKey(key);
    const told = options === undefined || typeof options === "function" ? NOTHING_SAID : checkStore(options);
    return this.retry(() => {
      const more = { stale: false, grace: 0 };
      const entry = this.entry(key, 0, more);
      // The entry is for `change`, which may change it.
      const there = entry && { expiresAt: entry.expiresAt, grace: more.grace, tags: [...entry.tags] };
      const { value: before, version = 0 } = entry ?? {};
      const value = change(before, entry);
      if (value === undefined) return before;
      let how = told;
      if (typeof options === "function") {
        const chosen = options(value);
        how = chosen === undefined ? NOTHING_SAID : checkStore(chosen);
      }
      const { ttl, expiresAt, tags, keepTtl, keepTags } = how;
      const keeps = {
        ...how,
        keepTtl: keepTtl ?? (ttl === undefined && expiresAt === undefined),
        keepTags: keepTags ?? tags === undefined,
      };
      // Not by `Cache.compareAndSet`, which checks the version: damaged memory may hold any number there.
      const expect = version === 0 ? ABSENT : keeps.keepTtl ? UNTOUCHED : VERSION;
      return this.storeAs(key, value, kept(keeps, there), expect, version) ? value : AGAIN;
    });
  }

  /**
   * The value of a key. An absent key gets the result of `compute` first. When another participant stores a value meanwhile,
   * that one is returned.
   *
   * @throws as {@link View.store} and {@link View.retry}. An error of `compute` is passed on.
   */
  insert(key: Key, compute: (key: Key) => unknown, options: SetOptions | undefined): unknown {
    // `compute` must not run for a key that no entry can have.
    this.writeNewKey(key);
    const how = options === undefined ? undefined : checkStore(options);
    return this.retry(() => {
      const found = this.get(key);
      if (found !== undefined) return found;
      const value = compute(key);
      return this.storeAs(key, value, how, ABSENT, 0) ? value : AGAIN;
    });
  }

  /**
   * Removes an entry and returns its value; `undefined` when it is absent.
   *
   * @throws {CacheError} `ERR_CLOSED`, `ERR_BUSY`, or `ERR_DATA` for a value that cannot be read here.
   */
  take(key: Key): unknown {
    return this.retry(() => {
      const entry = this.entry(key);
      if (entry === undefined) {
        // A load of this key that has begun before must not store its value after this.
        this.remove(key, ABSENT, 0);
        return this.expiry(key) === undefined ? undefined : AGAIN;
      }
      return this.remove(key, VERSION, entry.version) ? entry.value : AGAIN;
    });
  }

  /**
   * Adds to a number and returns the sum. An absent key counts from `initial`. The version and the expiry of the entry are in
   * the engine.
   *
   * @throws {TypeError} when the value of the key is not a number.
   * @throws {RangeError} when the sum would be outside of `min` and `max`.
   * @throws {CacheError} `ERR_CLOSED`, `ERR_BUSY`, or `ERR_TOO_LARGE` for the key and the tags.
   */
  increment(key: Key, by: number, { initial, min, max, ttl, tags }: Counting): number {
    const { engine } = this;
    const expiry = this.expiryIn(ttl ?? this.ttl);
    const written = this.writeNewKey(key);
    const tagged = this.#writeTags(tags) > 0;
    const result = engine.increment(written, by, initial, min, max, expiry, tagged);
    if (result === DONE) return engine.sum;
    if (result === NOT_A_NUMBER) {
      throw new TypeError("key: its value is not a number. Use another key, or set a number first.");
    }
    if (result === OUT_OF_RANGE) {
      throw new RangeError(`by: the sum would not be from ${min} to ${max}. Nothing was changed.`);
    }
    return this.#notCounted(result, NUMBER_BYTES);
  }

  /**
   * Judges a request at the rate limit of the key, and counts it.
   *
   * @throws {TypeError} when the key has a value that is no rate limit.
   * @throws {CacheError} `ERR_CLOSED`, `ERR_BUSY`, or `ERR_TOO_LARGE` for the key.
   */
  limit(key: Key, rule: Rule): RateLimitResult {
    const { engine } = this;
    const written = this.writeNewKey(key);
    const tagged = this.#writeTags(undefined) > 0;
    const result = engine.limit(written, rule, tagged);
    if (result !== DONE && result !== UNEXPECTED) {
      if (result === NOT_A_LIMIT) {
        throw new TypeError("key: its value is not a rate limit. Use another key, or delete the entry first.");
      }
      this.#notCounted(result, LIMIT_BYTES);
    }
    const { limit, window, burst } = rule;
    const { remaining, resetAt, resetAfter, retryAfter } = engine;
    return { allowed: result === DONE, limit, window, burst, remaining, resetAt, resetAfter, retryAfter };
  }

  /** Throws for a change in place that was not made. @param length bytes of the value, for the error */
  #notCounted(result: number, length: number): never {
    if (result !== TOO_LARGE) throw busy("another participant is in the way");
    this.#tooLarge(length);
  }

  /**
   * Gives an entry another expiry. Returns whether there was an entry.
   *
   * @throws {CacheError} `ERR_CLOSED`, `ERR_BUSY`, or `ERR_TOO_LARGE` when the entry has no room for an expiry.
   */
  touch(key: Key, expiry: number): boolean {
    const written = this.writeKey(key);
    if (written < 0) return false;
    const result = this.engine.touch(written, expiry);
    if (result === BUSY) throw busy("another participant is in the way");
    if (result === TOO_LARGE) throw noRoomForExpiry();
    return result === DONE;
  }

  /**
   * Lets the entry of a key expire now: it stays for its grace. Returns whether there was a fresh entry.
   *
   * @throws {CacheError} `ERR_CLOSED` or `ERR_BUSY`.
   */
  expire(key: Key): boolean {
    const now = this.now();
    const written = this.writeKey(key);
    if (written < 0) return false;
    const result = this.engine.expire(written, now);
    if (result !== DONE && result !== UNEXPECTED) throw busy("another participant is in the way");
    return result === DONE;
  }

  /**
   * Makes every entry of the scope with one of the tags a miss. The clock is asked first: it may be the user's code.
   *
   * @throws {TypeError} and {RangeError} for a wrong tag.
   */
  invalidate(tags: readonly string[]): void {
    const now = this.now();
    this.opening.checkOpen();
    for (const tag of tags) {
      this.#writeTag(tag);
      this.engine.invalidate(now);
    }
  }

  /** Lets every entry of the scope with one of the tags expire now. @throws as {@link View.invalidate}. */
  expireTags(tags: readonly string[]): void {
    const now = this.now();
    this.opening.checkOpen();
    for (const tag of tags) {
      this.#writeTag(tag);
      this.engine.expireTags(now);
    }
  }

  /** The time of the latest invalidation of one of the tags, 0 when there was none. @throws as {@link View.invalidate}. */
  invalidatedAt(tags: readonly string[]): number {
    let latest = 0;
    for (const tag of tags) {
      this.#writeTag(tag);
      latest = Math.max(latest, this.engine.tagTimes());
    }
    return latest;
  }

  /**
   * A text that changes with each invalidation of a tag of the scope, and with each `clear` of the scope or of one around it.
   *
   * @throws {TypeError} and {RangeError} for a wrong tag.
   */
  invalidations(tag: string): string {
    const { engine, scope } = this;
    writeTags(engine.tags, [tag], scope.tagPrefix, scope.hidden);
    return `${engine.clearEpoch} ${engine.tagChanges()}`;
  }

  /** A text that changes with each `clear` of the scope or of one around it. */
  clearings(): string {
    const { engine, scope } = this;
    if (scope === ROOT) return `${engine.clearEpoch}`;
    writeTags(engine.tags, [], scope.tagPrefix, scope.hidden);
    return `${engine.tagChanges()} ${engine.clearEpoch}`;
  }

  /** Makes every entry of the scope a miss. */
  clear(): void {
    this.opening.checkOpen();
    if (this.scope === ROOT) {
      this.engine.clear();
      this.near?.clear();
    } else {
      // The hidden tag of this namespace.
      writeTags(this.engine.tags, [], this.scope.tagPrefix, this.scope.hidden.slice(-1));
      this.engine.invalidate(0);
    }
  }

  #tooLarge(length: number): never {
    throw tooLarge(length, Math.min(this.opening.options.maxEntrySize, this.engine.maxValue));
  }

  // ---- loading

  /** Whether readers share one frozen object. */
  get sharesObjects(): boolean {
    return this.opening.options.frozenObjects;
  }

  /**
   * Stores a loaded value if its claim stands, and releases the claim. Returns false when the value was not stored: its load was
   * overtaken, or there is no room for it, or another participant is in the way.
   *
   * @param claim the number of the claim
   * @throws {TypeError} and {RangeError} for wrong tags and values.
   * @throws {CacheError} `ERR_CLOSED` or `ERR_DATA`.
   */
  commit(key: Key, value: unknown, { expiresAt, grace, tags }: LoadStoring, claim: number, token: number): boolean {
    try {
      return this.#put(key, value, tags, expiresAt, grace, this.engine.expectClaim(claim), token);
    } catch (error) {
      if (error instanceof CacheError && (error.code === "ERR_TOO_LARGE" || error.code === "ERR_BUSY")) return false;
      throw error;
    }
  }

  /** The value of a key as {@link View.get}; `undefined` also for a value that cannot be read here. */
  readable(key: Key): unknown {
    try {
      return this.get(key);
    } catch (error) {
      return unreadable(error);
    }
  }

  /** The value of a key that the near cache does not have, or that is to be loaded again. */
  load(key: Key, load: Load, options: Loading): Promise<unknown> {
    return this.#flights.get(this, key, load, options, isPlain(options));
  }

  /**
   * The values of many keys, with one loader for all that are absent.
   *
   * @param found the values of those that are there, if they can be returned as they are
   */
  loadMany(
    keys: readonly Key[],
    found: readonly unknown[],
    load: (keys: any[], context: any) => unknown,
    options: Loading,
  ): Promise<unknown[]> {
    const batch = new Batch(load);
    const values = keys.map((key, i) => (found[i] === undefined ? this.load(key, batch.load, options) : found[i]));
    batch.depart();
    return Promise.all(values);
  }

  get #flights(): Flights {
    return this.opening.flights(() => {
      const shelf = new View(this.opening, hiddenScope());
      return {
        entry: (key) => shelf.entry(key),
        has: (key) => shelf.expiry(key) !== undefined,
        put: (key, value, ttl, tags) => shelf.store(key, value, { ttl, tags }, ANYTHING, 0),
      };
    });
  }

  /** Returns a function that makes copies of an object, as readers get them. */
  copier(value: unknown): () => unknown {
    const codec = this.#codec;
    const length = codec.encode(value, NO_ROOM);
    const { type } = codec;
    const bytes = copyOf(codec.bytes ?? NO_ROOM, length);
    const copy = (): unknown => codec.decode(type, bytes, 0, length);
    if (!this.sharesObjects) return copy;
    const shared = copy();
    return deepFreeze(shared) ? () => shared : copy;
  }

  /** Encodes a value for other places than this cache. @throws as {@link ValueCodec.encode}, and `ERR_CLOSED`. */
  toPortable(value: unknown): Uint8Array {
    this.opening.checkOpen();
    return toPortable(value, this.#codec);
  }

  /** Decodes what {@link View.toPortable} of any cache returned. @throws as {@link fromPortable}, and `ERR_CLOSED`. */
  fromPortable(bytes: Uint8Array): unknown {
    this.opening.checkOpen();
    const value = fromPortable(bytes, this.#codec);
    if (this.sharesObjects) deepFreeze(value);
    return value;
  }

  // ---- the clock

  /** The time of this cache's own clock, in milliseconds. @throws as {@link Engine.now}. */
  now(): number {
    const { engine } = this;
    engine.clock = this.opening.options.now;
    return engine.now();
  }

  /** The expiry of an entry that is stored now with this time to live in milliseconds. */
  expiryIn(ttl: number): number {
    return ttl === Infinity ? Infinity : this.now() + ttl;
  }

  // ---- walking

  /** The keys of the scope that begin with the prefix, in no order; without a prefix all keys. @throws as {@link beginningsOf}. */
  keys(prefix?: Key): Generator<Key, void, undefined> {
    return this.#walk(beginningsOf(this.scope, prefix));
  }

  *#walk(beginnings: Beginnings): Generator<Key, void, undefined> {
    const { text } = beginnings;
    for (let way = this.#next(0, beginnings); way >= 0; way = this.#next(way + 1, beginnings)) {
      const key = this.#ownKey();
      if (key !== undefined && (text === undefined || (key as string).startsWith(text))) yield key;
    }
  }

  /** How many keys the scope has. */
  count(): number {
    const beginnings = beginningsOf(this.scope, undefined);
    let count = 0;
    for (let way = this.#next(0, beginnings); way >= 0; way = this.#next(way + 1, beginnings)) count++;
    return count;
  }

  #next(cursor: number, { block, count }: Beginnings): number {
    const { engine, opening } = this;
    opening.checkOpen();
    engine.clock = opening.options.now;
    engine.tags.set(block);
    return engine.next(cursor, count);
  }

  /** The key in the area without the scope's prefix; `undefined` when it is no key, because the memory is damaged. */
  #ownKey(): Key | undefined {
    const { key: area, keyWord } = this.engine;
    const { prefix } = this.scope;
    const own = keyLength(keyWord) - prefix.length;
    if (own < 0 || own > KEY_LIMIT) return undefined;
    const kind = this.scope === ROOT ? keyKind(keyWord) : (area[0] as number);
    return this.#keys.read(kind, area, prefix.length, own);
  }

  /**
   * Counts entries: `own` are the live entries outside of namespaces, `entries` all live entries, `bytes` those of all in the
   * log.
   */
  census(): ReturnType<Engine["census"]> {
    this.opening.checkOpen();
    this.engine.clock = this.opening.options.now;
    return this.engine.census();
  }

  // ---- the area

  /**
   * Writes a key to the area. Returns its length and its key kind in one number, as the engine takes them; negative when
   * the key is too long.
   *
   * @throws {CacheError} `ERR_CLOSED` when the cache was closed.
   */
  writeKey(key: Key): number {
    const { engine, opening, scope } = this;
    if (opening.closed || engine.asking) opening.checkOpen();
    const written = this.#keys.write(key, this.#keyArea);
    // The call that follows may ask for the time.
    engine.clock = opening.options.now;
    if (scope === ROOT || written < 0) return written;
    const { prefix } = scope;
    engine.key.set(prefix);
    engine.key[0] = keyKind(written);
    return ((keyLength(written) + prefix.length) << KEY_KIND_BITS) | KEY_NAMESPACED;
  }

  /** Writes the key of an entry that is to be stored. @throws {CacheError} `ERR_TOO_LARGE` when it is too long. */
  writeNewKey(key: Key): number {
    const written = this.writeKey(key);
    if (written < 0) throw this.#keys.tooLong(key);
    return written;
  }

  /** Writes one tag of the scope to the area. */
  #writeTag(tag: string): void {
    writeTags(this.engine.tags, [tag], this.scope.tagPrefix, []);
  }

  /** Writes the tags of an entry, with the hidden ones, to the area. Returns the most bytes that they take in a record. */
  #writeTags(tags: readonly string[] | undefined): number {
    if (tags === undefined && this.scope === ROOT) return 0;
    return writeTags(this.engine.tags, tags ?? [], this.scope.tagPrefix, this.scope.hidden);
  }
}

/**
 * Options of a store, with what they keep of the entry that is there taken from it. Nothing is kept of an absent one.
 *
 * @throws {CacheError} `ERR_DATA` when tags are to be kept that are damaged.
 */
function kept(how: Storing, there: { expiresAt: number; grace: number; tags: string[] } | undefined): Storing {
  if (how.keepTags === true && there !== undefined && !canBeWritten(there.tags)) {
    throw badData("keepTags: the tags of the entry are damaged. Store it with other tags, or delete it.");
  }
  return {
    ttl: how.ttl,
    expiresAt: how.keepTtl === true ? there?.expiresAt : how.expiresAt,
    // Damaged memory may hold any number.
    grace: how.grace ?? (how.keepTtl === true && there !== undefined && there.grace > 0 ? there.grace : undefined),
    tags: how.keepTags === true ? there?.tags : how.tags,
    keepTtl: undefined,
    keepTags: undefined,
  };
}

/** A copy of the first `length` bytes. (`slice` of a `Buffer` would be a view.) */
function copyOf(bytes: Uint8Array, length: number): Uint8Array {
  return new Uint8Array(bytes.subarray(0, length));
}

function allocate(length: number): Uint8Array {
  return typeof Buffer === "function" ? Buffer.allocUnsafeSlow(length) : new Uint8Array(length);
}

/** For operations that read many values: takes a value that cannot be read here for a miss, and rethrows every other error. */
export function unreadable(error: unknown): undefined {
  if (!(error instanceof CacheError) || error.code !== "ERR_DATA") throw error;
}
