/**
 * `cache-machine/next/incremental`: a class for `cacheHandler` of Next.js, which keeps rendered pages, answers of route handlers, and
 * what `fetch` and `unstable_cache` return. All processes that serve a build of an application have the same entries, and an
 * invalidation reaches all of them at once. Over a tier so do all machines.
 *
 * @packageDocumentation
 */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { storableKey } from "./keys.ts";
import {
  checkNextOptions,
  clockDifference,
  type Freshness,
  NextCache,
  type NextCacheOptions,
  type Opened,
  pack,
  type TagDurations,
  unlessAway,
  unpack,
} from "./next-cache.ts";
import { run, type Steps } from "./promises.ts";

export type { NextCacheOptions, TagDurations } from "./next-cache.ts";

/** How long a page may be used, in seconds. */
export interface NextCacheControl {
  /** Seconds after which a page is made anew while the old one is still used; `false` for never. */
  revalidate: number | false;
  /** Seconds after which a page must not be used. */
  expire: number | undefined;
}

/** What the constructor reads of what Next.js hands to it. */
export interface IncrementalContext {
  /** `…/.next/server`: the build whose entries the handler sees. */
  serverDistDir?: string;
  /** Tags that the request says have expired. */
  revalidatedTags?: string[];
}

/** What `get` reads of what Next.js says about an entry. */
export interface IncrementalGetContext {
  kind: string;
  tags?: string[];
  softTags?: string[];
  revalidate?: number | false;
}

/** What `set` reads of what Next.js says about an entry. */
export interface IncrementalSetContext {
  fetchCache?: boolean;
  tags?: string[];
  cacheControl?: NextCacheControl;
}

/** An entry as Next.js gets it. */
export interface IncrementalEntry {
  /** When the entry was made: milliseconds of the clock of Next.js in this process. */
  lastModified: number;
  /** What Next.js has stored: of the kind `APP_PAGE`, `APP_ROUTE`, `PAGES`, `FETCH`, `REDIRECT` or `IMAGE`, or `null` for "not found". */
  value: any;
  cacheControl?: NextCacheControl;
}

/** A handler for `cacheHandler`, as Next.js 16 wants it. Next.js makes one for each request. */
export interface IncrementalHandler {
  /** Returns an entry, or `null` when there is none, or one of its tags has expired since it was made. */
  get(cacheKey: string, context: IncrementalGetContext): Promise<IncrementalEntry | null>;
  /** Stores an entry. Stores nothing when it is too large. */
  set(cacheKey: string, data: any, context: IncrementalSetContext): Promise<void>;
  /**
   * Lets tags expire in all processes. With `durations` the tags become stale instead: entries are used once more and made anew, and
   * expire `durations.expire` seconds later. Rejected with `ERR_UNREACHABLE` when the server of a tier is away.
   */
  revalidateTag(tags: string | string[], durations?: TagDurations): Promise<void>;
  /** Does nothing: a handler keeps nothing for a request. */
  resetRequestCache(): void;
}

/** The class of a handler: the value of `cacheHandler` in the configuration is the path of a module that exports one. */
export type IncrementalHandlerClass = new (context: IncrementalContext) => IncrementalHandler;

/** What is stored of an entry beside its bytes. The times are of the clock of the cache or of the tier. */
interface Stored {
  /** When the entry was stored. */
  storedAt: number;
  /** When the making of the entry began, as far as that is known. */
  since: number;
  tags: string[];
  cacheControl: NextCacheControl | undefined;
  /** The properties of the value that are JSON; `null` for a value that is `null`. */
  plain: Record<string, unknown> | null;
  /** The other properties, in the order of the parts: texts and buffers with one part, Maps with a part for each of their keys. */
  texts: string[];
  buffers: string[];
  maps: [name: string, keys: string[]][];
}

/** The header in which Next.js keeps the tags of a page. */
const TAGS_HEADER = "x-next-cache-tags";
/** How many characters of a build's id become part of a name. */
const MAX_BUILD_CHARACTERS = 50;

/**
 * Creates a class for `cacheHandler`. The cache is opened when a handler is used for the first time, and stays open until the process
 * ends.
 *
 * ```js
 * // incremental-cache-handler.mjs
 * import { createIncrementalCacheHandler } from "cache-machine/next/incremental";
 *
 * export default createIncrementalCacheHandler({ name: "shop", size: "256mb" });
 * ```
 *
 * @throws {TypeError} naming the option that is wrong. A wrong `name` or `size` is an error when the handler is used.
 */
export function createIncrementalCacheHandler(options: NextCacheOptions = {}): IncrementalHandlerClass {
  const next = new NextCache(checkNextOptions(options));
  /** The names of builds, by the folder of the server. Reading the id of a build is left to the first request. */
  const builds = new Map<string, string>();
  const buildOf = (folder: string): string => {
    let build = builds.get(folder);
    if (build === undefined) builds.set(folder, (build = buildName(folder)));
    return build;
  };

  return class CacheMachineHandler implements IncrementalHandler {
    readonly #build: string;
    readonly #revalidatedTags: readonly string[];
    /** When this request last asked for a key, by `Date.now()`: then the making of the entry began that is stored for it. */
    readonly #asked = new Map<string, number>();

    constructor({ serverDistDir = "", revalidatedTags = [] }: IncrementalContext) {
      this.#build = buildOf(serverDistDir);
      this.#revalidatedTags = revalidatedTags;
    }

    async get(cacheKey: string, context: IncrementalGetContext): Promise<IncrementalEntry | null> {
      const key = this.#keyOf(cacheKey, context.kind === "FETCH");
      this.#asked.set(key, Date.now());
      return unlessAway(() => run(this.#find(key, context)), null);
    }

    async set(cacheKey: string, data: any, context: IncrementalSetContext): Promise<void> {
      const key = this.#keyOf(cacheKey, context.fetchCache ?? false);
      return unlessAway(() => run(this.#store(key, data, context)), undefined);
    }

    async revalidateTag(tags: string | string[], durations?: TagDurations): Promise<void> {
      return next.update(typeof tags === "string" ? [tags] : tags, durations);
    }

    resetRequestCache(): void {}

    *#find(key: string, context: IncrementalGetContext): Steps<IncrementalEntry | null> {
      const { tags = [], softTags = [], revalidate } = context;
      const opened: Opened = yield next.open();
      const bytes: Uint8Array | undefined = yield opened.entries.get(key);
      const now = opened.now();
      if (bytes === undefined || now === undefined) return null;
      const { header, parts } = unpack<Stored>(bytes);
      const asked = [...tags, ...softTags];
      if (asked.some((tag) => this.#revalidatedTags.includes(tag))) return null;
      const freshness: Freshness = yield opened.tags.freshness([...header.tags, ...asked], header.since, now);
      if (freshness === "expired") return null;
      const { storedAt, cacheControl } = header;
      const lastModified = storedAt + clockDifference(now);
      const entry: IncrementalEntry = { lastModified, value: joinValue(header, parts) };
      // JSON has no `undefined`, and Next.js looks for the property.
      if (cacheControl !== undefined) entry.cacheControl = { ...cacheControl, expire: cacheControl.expire };
      return freshness === "stale" ? asStale(entry, revalidate) : entry;
    }

    *#store(key: string, data: any, { tags = [], cacheControl }: IncrementalSetContext): Steps<void> {
      const opened: Opened = yield next.open();
      const now = opened.now();
      if (now === undefined) return;
      const atDate = Date.now();
      const since = now - (atDate - (this.#asked.get(key) ?? atDate));
      const ofHeader = data?.headers?.[TAGS_HEADER];
      const all = typeof ofHeader === "string" ? [...tags, ...ofHeader.split(",")] : tags;
      // What another process has made since then stays.
      if ((yield opened.tags.freshness(all, since, now)) === "expired") return;
      const expire = cacheControl?.expire ?? Infinity;
      const { split, parts } = splitValue(data);
      const bytes = pack({ storedAt: now, since, tags: all, cacheControl, ...split }, parts);
      yield* opened.store(key, bytes, expire * 1000, all);
    }

    #keyOf(cacheKey: string, isFetch: boolean): string {
      return storableKey(`${isFetch ? "fetch" : "response"} ${this.#build} ${cacheKey}`);
    }
  };
}

/**
 * The name of a build: its id, which `next build` has written beside the folder of the server. So two builds on one machine do not
 * see each other's pages. Without an id (in development) the folder stands for the build.
 */
function buildName(serverDistDir: string): string {
  let id: string;
  try {
    id = readFileSync(join(serverDistDir, "..", "BUILD_ID"), "utf8").trim();
  } catch {
    id = serverDistDir;
  }
  const readable = /^[\w-]+$/.test(id) && id.length <= MAX_BUILD_CHARACTERS;
  return readable ? id : createHash("sha256").update(id).digest("hex").slice(0, 32);
}

/**
 * Lets Next.js see that an entry is stale, which it computes from the age: the entry seems to be older than it may become without
 * being made anew. It still seems to be younger than `expire`.
 */
function asStale(entry: IncrementalEntry, revalidate: number | false | undefined): IncrementalEntry {
  const now = performance.timeOrigin + performance.now();
  if (entry.value?.kind === "FETCH") {
    const limit = Math.max(Number(revalidate) || 0, Number(entry.value.revalidate) || 0);
    return { ...entry, lastModified: now - (limit + 1) * 1000 };
  }
  const { expire } = entry.cacheControl ?? { expire: undefined };
  return { ...entry, lastModified: now - 1001, cacheControl: { revalidate: 1, expire } };
}

/** Takes what is large out of a value, so that it does not become JSON: the text of a page, buffers, and Maps of buffers. */
function splitValue(data: Record<string, unknown> | null): {
  split: Pick<Stored, "plain" | "texts" | "buffers" | "maps">;
  parts: Uint8Array[];
} {
  const plain: Record<string, unknown> = {};
  const texts: [string, Buffer][] = [];
  const buffers: [string, Uint8Array][] = [];
  const maps: [string, Map<string, Uint8Array>][] = [];
  for (const [name, value] of Object.entries(data ?? {})) {
    if (value instanceof Uint8Array) buffers.push([name, value]);
    else if (value instanceof Map) maps.push([name, value]);
    else if (name === "html" && typeof value === "string") texts.push([name, Buffer.from(value)]);
    else plain[name] = value;
  }
  return {
    split: {
      plain: data === null ? null : plain,
      texts: texts.map(([name]) => name),
      buffers: buffers.map(([name]) => name),
      maps: maps.map(([name, map]) => [name, [...map.keys()]]),
    },
    parts: [
      ...texts.map(([, part]) => part),
      ...buffers.map(([, part]) => part),
      ...maps.flatMap(([, map]) => [...map.values()]),
    ],
  };
}

/** The value of which {@link splitValue} has made parts. */
function joinValue({ plain, texts, buffers, maps }: Stored, parts: Buffer[]): Record<string, unknown> | null {
  if (plain === null) return null;
  let next = 0;
  const value = plain;
  for (const name of texts) value[name] = parts[next++]?.toString();
  for (const name of buffers) value[name] = parts[next++];
  for (const [name, keys] of maps) value[name] = new Map(keys.map((key) => [key, parts[next++]]));
  return value;
}

/** The class for `cacheHandler`, on the cache that the environment names: `require.resolve("cache-machine/next/incremental")`. */
const IncrementalCacheHandler: IncrementalHandlerClass = createIncrementalCacheHandler();

export { IncrementalCacheHandler };
export default IncrementalCacheHandler;
