/**
 * What the two handlers for Next.js share: which cache they use, since when a tag has been stale or expired, and how values with
 * buffers become bytes. The interfaces of the handlers are in next.ts and next-incremental.ts.
 */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { CacheError, createCache, openCache } from "../index.ts";
import { checkNames, checkStore } from "./checks.ts";
import { type Awaitable, after, isPromise, rescued, run, type Steps } from "./promises.ts";
import { asCache, type CacheOrTier, type StoredFor, timeOf, tryStore } from "./store.ts";

/** Which cache a handler uses. Both handlers of an application should use the same one. */
export interface NextCacheOptions {
  /**
   * A cache or a tier that is open already, instead of `name`, `size` and `path`; or a function that opens it. The function is called
   * when the handler is used for the first time, may return a promise, and is called again when it fails. It is not called while
   * `next build` runs. The handler never closes what it gets.
   */
  cache?: CacheOrTier | (() => CacheOrTier | Promise<CacheOrTier>) | undefined;
  /**
   * Name of the cache. The default is the environment variable `CACHE_MACHINE_NAME`, and without it `next-` and the name of the
   * application in its package.json.
   */
  name?: string | undefined;
  /**
   * Size of the cache, as in `openCache`. The default is the environment variable `CACHE_MACHINE_SIZE`, and without it the size that
   * the cache has, or 32 MiB when it is created.
   */
  size?: number | string | undefined;
  /** Directory of the cache, as in `openCache`. The default is the environment variable `CACHE_MACHINE_PATH`. */
  path?: string | undefined;
}

/** How long what the tag stood for may still be used: what Next.js hands to `updateTags` and `revalidateTag`. */
export interface TagDurations {
  /** Seconds. */
  expire?: number | undefined;
}

const OPTIONS = ["cache", "name", "size", "path"];
/** What is set while `next build` runs, also in its workers. */
const BUILDING = "phase-production-build";
/**
 * How many tags an entry may have, and how many a tier invalidates in one call. Of the others of an entry in a tier the handler still
 * knows when they were invalidated.
 */
const MAX_TAGS = 128;
/**
 * How long entries live in a tier at most, in milliseconds. A tier knows for a day at least when a tag was invalidated. So an entry is
 * gone before the time of an invalidation of a tag that it does not have itself, such as one of its path.
 */
const LONGEST_IN_TIER = 23 * 3_600_000;
/** Longest tag of a cache, in bytes. */
const MAX_TAG_BYTES = 256;
/** Both handlers warn once together, also when they come from different modules. */
const WARNED: unique symbol = Symbol.for("cache-machine/next has warned");

/**
 * Checks the options of a handler. Names and sizes are checked by `openCache`.
 *
 * @throws {TypeError} naming what is wrong.
 */
export function checkNextOptions(options: NextCacheOptions): NextCacheOptions {
  checkNames(options, OPTIONS);
  const { cache, ...place } = options;
  const named = Object.entries(place).find(([, value]) => value !== undefined);
  if (cache !== undefined && named !== undefined) {
    throw new TypeError(`options: \`cache\` and \`${named[0]}\` exclude each other`);
  }
  if (cache !== undefined && typeof cache !== "function") checkStore(cache, "options.cache");
  return { ...options };
}

/** How both handlers begin: the cache or the tier is opened when it is used for the first time, and stays open. */
export class NextCache {
  readonly #options: NextCacheOptions;
  #opened: Opened | undefined;
  #opening: Promise<Opened> | undefined;

  constructor(options: NextCacheOptions) {
    this.#options = options;
  }

  /** Returns what is open: at once, unless a function of the application opens it. */
  open(): Awaitable<Opened> {
    if (this.#opened !== undefined) return this.#opened;
    if (this.#opening !== undefined) return this.#opening;
    const opened = after(openFor(this.#options), (store) => {
      checkStore(store, "options.cache()");
      this.#opened = new Opened(store.namespace("next"));
      return this.#opened;
    });
    if (isPromise(opened)) {
      this.#opening = opened;
      const forget = (): void => void (this.#opening = undefined);
      opened.then(forget, forget);
    }
    return opened;
  }

  /** Lets tags expire or become stale: {@link Tags.update}. */
  async update(tags: readonly string[], durations: TagDurations | undefined): Promise<void> {
    return run(this.#update(tags, durations));
  }

  *#update(tags: readonly string[], durations: TagDurations | undefined): Steps<void> {
    const opened: Opened = yield this.open();
    yield* opened.tags.update(tags, durations);
  }
}

/**
 * The namespace `next` of a cache or of a tier, whose tags programs without Next.js may use too. The entries have a namespace of their
 * own within a cache. In a tier they lie beside the tags: so an entry is gone when the server evicts one of its tags, and with it the
 * time of an invalidation.
 */
export class Opened {
  readonly entries: CacheOrTier;
  readonly tags: Tags;
  readonly #isTier: boolean;

  constructor(place: CacheOrTier) {
    this.#isTier = asCache(place) === undefined;
    this.entries = this.#isTier ? place : place.namespace("entries");
    this.tags = new Tags(place, this.entries);
  }

  /**
   * The time by which entries and invalidations are compared, in milliseconds: that of the cache's clock, or of the server of a tier.
   * `undefined` as long as a tier does not know it.
   */
  now(): number | undefined {
    return timeOf(this.entries);
  }

  /** Stores an entry for `ttl` milliseconds, in a tier for less than a day. Nothing is stored when it is too large, or when another participant is in the way. */
  *store(key: string, bytes: Uint8Array, ttl: number, tags: readonly string[]): Steps<void> {
    const options = this.#isTier
      ? { ttl: Math.min(ttl, LONGEST_IN_TIER), tags: namesOf(tags).slice(0, MAX_TAGS) }
      : { ttl };
    yield ttl > 0 ? tryStore(this.entries, key, bytes, options) : this.entries.delete(key);
  }
}

/** What `call` returns, which reads or stores; `otherwise` when the server of a tier cannot be reached. */
export function unlessAway<T>(call: () => Awaitable<T>, otherwise: T): Awaitable<T> {
  return rescued(call, (error) => {
    if (error instanceof CacheError && error.code === "ERR_UNREACHABLE") return otherwise;
    throw error;
  });
}

/**
 * Opens the cache. `next build` gets a cache in the memory of each of its processes: nothing of a build outlives it. Where the
 * processes cannot share a cache, each of them gets one of its own, with a warning.
 */
function openFor(options: NextCacheOptions): CacheOrTier | Promise<CacheOrTier> {
  const { cache, name = process.env.CACHE_MACHINE_NAME || `next-${applicationName()}` } = options;
  const { size = process.env.CACHE_MACHINE_SIZE || undefined, path = process.env.CACHE_MACHINE_PATH || undefined } =
    options;
  if (cache !== undefined && typeof cache !== "function") return cache;
  if (process.env.NEXT_PHASE === BUILDING) return createCache();
  if (cache !== undefined) return cache();
  const place = path === undefined ? {} : { path };
  try {
    try {
      return openCache(name, size === undefined ? place : { ...place, size });
    } catch (error) {
      if (!(error instanceof CacheError && error.code === "ERR_SIZE_MISMATCH")) throw error;
      warn(`The cache ${JSON.stringify(name)} is used with the size that it has. ${error.message}`);
      return openCache(name, place);
    }
  } catch (error) {
    if (!(error instanceof CacheError)) throw error;
    warn(`Each process of Next.js has a cache of its own now, because they cannot share one. ${error.message}`);
    return createCache(size === undefined ? {} : { size });
  }
}

function warn(message: string): void {
  const reference = globalThis as { [WARNED]?: true };
  if (reference[WARNED]) return;
  reference[WARNED] = true;
  process.emitWarning(message, "CacheMachineWarning");
}

/** The name in the package.json of the working directory, or of the nearest folder above that has one. */
function applicationName(): string {
  for (let folder = process.cwd(); ; folder = dirname(folder)) {
    try {
      const { name } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
      return typeof name === "string" && name !== "" ? name : basename(folder);
    } catch {
      if (dirname(folder) === folder) return "application";
    }
  }
}

/** How the tags of an entry stand: `stale` entries may be used once more while they are made anew, `expired` ones may not. */
export type Freshness = "fresh" | "stale" | "expired";

/**
 * When tags became something, which nothing evicts from a cache. In one namespace of a cache some tags share a time: there a tag may
 * seem to be invalidated with another one. So each time is kept in two namespaces, and the earlier one counts: hardly any tag shares
 * both. In a tier each tag has a time of its own.
 */
class Times {
  readonly #first: CacheOrTier;
  readonly #second: CacheOrTier | undefined;

  constructor(place: CacheOrTier) {
    this.#first = place;
    this.#second = asCache(place)?.namespace("second time");
  }

  /** Sets the time of these tags to now. */
  *set(names: readonly string[]): Steps<void> {
    for (const some of portions(names)) {
      yield this.#first.invalidateTag(...some);
      yield this.#second?.invalidateTag(...some);
    }
  }

  /** The time of a tag; 0 for none. */
  *of(name: string): Steps<number> {
    const first: number = yield this.#first.tagInvalidatedAt(name);
    if (first === 0 || this.#second === undefined) return first;
    return Math.min(first, yield this.#second.tagInvalidatedAt(name));
  }

  /** A time that none of the tags is later than; 0 for none. */
  latest(names: readonly string[]): Awaitable<number> {
    return this.#first.tagInvalidatedAt(...names);
  }

  /** The tags whose time is not before this one. */
  *since(names: readonly string[], time: number): Steps<string[]> {
    const found: string[] = [];
    for (const name of names) if ((yield* this.of(name)) >= time) found.push(name);
    return found;
  }
}

/**
 * Which tags are stale or expired. Next.js asks for tags that entries do not have (of the path that is rendered), and an entry may be
 * stored after its tag was invalidated while it was made. So what counts is whether a tag was invalidated after the making of an entry
 * began.
 *
 * Until when stale entries may be used is an entry of the cache. If it was evicted, stale entries count as expired.
 */
export class Tags {
  readonly #expired: Times;
  readonly #stale: Times;
  /** Values are `[staleAt, until]`; the second is `null` for no end. */
  readonly #usable: CacheOrTier;

  /** How {@link Tags.#usable} is stored: in a tier no longer than the entries that it is about. */
  readonly #inTier: StoredFor | undefined;

  constructor(place: CacheOrTier, entries: CacheOrTier) {
    this.#inTier = asCache(place) === undefined ? { ttl: LONGEST_IN_TIER } : undefined;
    this.#expired = new Times(place);
    this.#stale = new Times(place.namespace("stale"));
    this.#usable = entries;
  }

  /** Lets tags expire, or lets them become stale and expire `durations.expire` seconds later. */
  *update(tags: readonly string[], durations: TagDurations | undefined): Steps<void> {
    const names = namesOf(tags);
    if (durations === undefined || (durations.expire !== undefined && !(durations.expire > 0))) {
      yield* this.#expired.set(names);
      return;
    }
    yield* this.#stale.set(names);
    for (const name of names) {
      const staleAt = yield* this.#stale.of(name);
      const until = durations.expire === undefined ? null : staleAt + durations.expire * 1000;
      yield tryStore(this.#usable, usableKey(name), [staleAt, until], this.#inTier);
    }
  }

  /** How an entry with these tags stands, whose making began at this time. */
  freshness(tags: readonly string[], since: number, now: number): Awaitable<Freshness> {
    const names = namesOf(tags);
    // The times of tags are whole milliseconds in a cache.
    const time = Math.floor(since);
    // Of most entries no tag has such a time, which two calls tell.
    return after(this.#expired.latest(names), (expired) =>
      after(this.#stale.latest(names), (stale) =>
        expired < time && stale < time ? "fresh" : run(this.#freshness(names, time, now)),
      ),
    );
  }

  *#freshness(names: readonly string[], time: number, now: number): Steps<Freshness> {
    if ((yield* this.#expired.since(names, time)).length > 0) return "expired";
    const stale = yield* this.#stale.since(names, time);
    for (const name of stale) if (!(yield* this.#isUsable(name, now))) return "expired";
    return stale.length === 0 ? "fresh" : "stale";
  }

  /** When one of these tags last expired; 0 for never. */
  *expiredAt(tags: readonly string[]): Steps<number> {
    let latest = 0;
    for (const name of namesOf(tags)) latest = Math.max(latest, yield* this.#expired.of(name));
    return latest;
  }

  /** Whether entries that became stale with the tag may still be used. */
  *#isUsable(name: string, now: number): Steps<boolean> {
    const [staleAt, until]: [number, number | null] = (yield this.#usable.get(usableKey(name))) ?? [0, 0];
    return staleAt >= (yield* this.#stale.of(name)) && (until === null || now < until);
  }
}

/** The key of the entry that says until when what became stale with a tag may be used. */
function usableKey(name: string): string {
  return `stale ${name}`;
}

function namesOf(tags: readonly string[]): string[] {
  return tags.map(tagName);
}

/** Lists of at most as many tags as one call of a tier may invalidate. */
function* portions(names: readonly string[]): Generator<readonly string[], void> {
  for (let at = 0; at < names.length; at += MAX_TAGS) yield names.slice(at, at + MAX_TAGS);
}

/** A tag of the cache for a tag of Next.js, which may be longer. */
function tagName(tag: string): string {
  const fits = tag !== "" && (tag.length <= MAX_TAG_BYTES / 3 || Buffer.byteLength(tag) <= MAX_TAG_BYTES);
  if (fits && isWellFormed(tag)) return tag;
  // As UTF-16, because in UTF-8 all lone surrogates become the same character.
  return `sha256:${createHash("sha256").update(tag, "utf16le").digest("hex")}`;
}

function isWellFormed(text: string): boolean {
  return !/[\ud800-\udfff]/.test(text) || Buffer.from(text).toString() === text;
}

/**
 * How far the clock of Next.js is ahead of that of the cache, in milliseconds, where it is `now`. Next.js adds the time since the
 * process began to the time at which it began, so its clock does not follow when the machine's clock is set, and differs between
 * processes.
 */
export function clockDifference(now: number): number {
  return performance.timeOrigin + performance.now() - now;
}

/**
 * Makes one piece of memory of a header, which becomes JSON, and of parts, which stay as they are:
 *
 *     bytes of the header (4) │ header and lengths of the parts, as JSON │ part │ part …
 */
export function pack(header: unknown, parts: readonly Uint8Array[]): Uint8Array {
  const json = Buffer.from(JSON.stringify([header, parts.map(({ length }) => length)]));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  return Buffer.concat([length, json, ...parts]);
}

/** The header and the parts of packed bytes. The parts are views of these bytes. */
export function unpack<H>(bytes: Uint8Array): { header: H; parts: Buffer[] } {
  const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 4 + all.readUInt32LE(0);
  const [header, lengths] = JSON.parse(all.toString("utf8", 4, at)) as [H, number[]];
  const parts = lengths.map((length) => all.subarray(at, (at += length)));
  return { header, parts };
}
