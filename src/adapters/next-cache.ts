/**
 * What the two handlers for Next.js share: which cache they use, since when a tag has been stale or expired, and how values with
 * buffers become bytes. The interfaces of the handlers are in next.ts and next-incremental.ts.
 */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { type Cache, CacheError, createCache, openCache } from "../index.ts";
import { checkCache, checkNames } from "./checks.ts";

/** Which cache a handler uses. Both handlers of an application should use the same one. */
export interface NextCacheOptions {
  /** A cache that is open already, instead of `name`, `size` and `path`. The handler never closes it. */
  cache?: Cache<any, any> | undefined;
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
  if (cache !== undefined) checkCache(cache, "options.cache");
  return { ...options };
}

/**
 * A cache as the handlers use it. It is opened when it is used for the first time, and stays open. The tags are those of the namespace
 * `next`, which programs without Next.js may use too. The entries have a namespace of their own within it.
 */
export class NextCache {
  readonly #options: NextCacheOptions;
  #opened: { entries: Cache<any, string>; tags: Tags } | undefined;

  constructor(options: NextCacheOptions) {
    this.#options = options;
  }

  get entries(): Cache<Uint8Array, string> {
    return this.#open().entries;
  }

  get tags(): Tags {
    return this.#open().tags;
  }

  #open(): { entries: Cache<any, string>; tags: Tags } {
    if (this.#opened === undefined) {
      const place = openFor(this.#options).namespace("next");
      const entries = place.namespace("entries");
      this.#opened = { entries, tags: new Tags(place, entries) };
    }
    return this.#opened;
  }
}

/**
 * Opens the cache. `next build` gets a cache in the memory of each of its processes: nothing of a build outlives it. Where the
 * processes cannot share a cache, each of them gets one of its own, with a warning.
 */
function openFor(options: NextCacheOptions): Cache<any, string> {
  const { cache, name = process.env.CACHE_MACHINE_NAME || `next-${applicationName()}` } = options;
  const { size = process.env.CACHE_MACHINE_SIZE || undefined, path = process.env.CACHE_MACHINE_PATH || undefined } =
    options;
  if (cache !== undefined) return cache;
  if (process.env.NEXT_PHASE === BUILDING) return createCache();
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
 * When tags became something, which nothing evicts. In one namespace of a cache some tags share a time: there a tag may seem to be
 * invalidated with another one. So each time is kept in two namespaces, and the earlier one counts: hardly any tag shares both.
 */
class Times {
  readonly #first: Cache<any, string>;
  readonly #second: Cache<any, string>;

  constructor(place: Cache<any, string>) {
    this.#first = place;
    this.#second = place.namespace("second time");
  }

  /** Sets the time of these tags to now. */
  set(names: readonly string[]): void {
    this.#first.invalidateTag(...names);
    this.#second.invalidateTag(...names);
  }

  /** The time of a tag; 0 for none. */
  of(name: string): number {
    const first = this.#first.tagInvalidatedAt(name);
    return first === 0 ? 0 : Math.min(first, this.#second.tagInvalidatedAt(name));
  }

  /** The tags whose time is not before this one. */
  since(names: readonly string[], time: number): string[] {
    // Of most entries no tag has such a time, which one call tells.
    if (this.#first.tagInvalidatedAt(...names) < time) return [];
    return names.filter((name) => this.of(name) >= time);
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
  readonly #usable: Cache<[staleAt: number, until: number | null], string>;

  constructor(place: Cache<any, string>, entries: Cache<any, string>) {
    this.#expired = new Times(place);
    this.#stale = new Times(place.namespace("stale"));
    this.#usable = entries;
  }

  /** Lets tags expire, or lets them become stale and expire `durations.expire` seconds later. */
  update(tags: readonly string[], durations: TagDurations | undefined): void {
    const names = tags.map(tagName);
    if (durations === undefined || (durations.expire !== undefined && !(durations.expire > 0))) {
      this.#expired.set(names);
      return;
    }
    this.#stale.set(names);
    for (const name of names) {
      const staleAt = this.#stale.of(name);
      const until = durations.expire === undefined ? null : staleAt + durations.expire * 1000;
      this.#usable.trySet(usableKey(name), [staleAt, until]);
    }
  }

  /** How an entry with these tags stands, whose making began at this time. */
  freshness(tags: readonly string[], since: number): Freshness {
    const names = tags.map(tagName);
    // The times of tags are whole milliseconds.
    const time = Math.floor(since);
    if (this.#expired.since(names, time).length > 0) return "expired";
    const stale = this.#stale.since(names, time);
    if (stale.length === 0) return "fresh";
    return stale.every((name) => this.#isUsable(name)) ? "stale" : "expired";
  }

  /** When one of these tags last expired; 0 for never. */
  expiredAt(tags: readonly string[]): number {
    return Math.max(0, ...tags.map((tag) => this.#expired.of(tagName(tag))));
  }

  /** Whether entries that became stale with the tag may still be used. */
  #isUsable(name: string): boolean {
    const [staleAt, until] = this.#usable.get(usableKey(name)) ?? [0, 0];
    return staleAt >= this.#stale.of(name) && (until === null || Date.now() < until);
  }
}

/** The key of the entry that says until when what became stale with a tag may be used. */
function usableKey(name: string): string {
  return `stale ${name}`;
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
 * How far the clock of Next.js is ahead of that of the cache, in milliseconds. Next.js adds the time since the process began to the
 * time at which it began, so its clock does not follow when the machine's clock is set, and differs between processes.
 */
export function clockDifference(): number {
  return performance.timeOrigin + performance.now() - Date.now();
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
