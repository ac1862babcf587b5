/**
 * A store for the cache interceptor of [undici](https://www.npmjs.com/package/undici) 7 and 8: a response that one process has
 * fetched is answered from memory in all processes of the machine.
 *
 * An origin and a path have one entry, the *page*: which of its responses exist, told by their method and by the request headers
 * that they vary on. Each response is an entry of its own, as bytes: the length of its description, the description as JSON, and
 * the body. A response belongs to one generation of its page. Deleting a page begins a new generation, so that one small store
 * makes all its responses misses, also those that are just being received.
 *
 * @packageDocumentation
 */

import { createHash, randomUUID } from "node:crypto";
import { Writable } from "node:stream";
import { type Cache, CacheError } from "../index.ts";
import { checkCache, checkNames } from "./checks.ts";
import { storableKey } from "./keys.ts";

/** Options of {@link CacheMachineStore}. */
export interface CacheMachineStoreOptions {
  /**
   * Bytes that the body of a response may have to be stored; 5 MiB by default, as in undici's `MemoryCacheStore`. Bodies are
   * collected in the memory of the process until they are complete. In any case a response is stored only if the cache accepts
   * an entry of its size.
   */
  maxEntrySize?: number | undefined;
}

/** Which response is meant: `CacheKey` of undici. */
export interface RequestKey {
  origin: string;
  method: string;
  path: string;
  /** The headers of the request, with names in lower case. */
  headers?: Record<string, string | string[]>;
}

/** The directives of `Cache-Control`: `CacheControlDirectives` of undici. */
export interface CacheControlDirectives {
  "max-stale"?: number;
  "min-fresh"?: number;
  "max-age"?: number;
  "s-maxage"?: number;
  "stale-while-revalidate"?: number;
  "stale-if-error"?: number;
  public?: true;
  private?: true | string[];
  "no-store"?: true;
  "no-cache"?: true | string[];
  "must-revalidate"?: true;
  "proxy-revalidate"?: true;
  immutable?: true;
  "no-transform"?: true;
  "must-understand"?: true;
  "only-if-cached"?: true;
}

/** A response without its body: `CacheValue` of undici. Times are those of `Date.now()`. */
export interface ResponseValue {
  statusCode: number;
  statusMessage: string;
  headers: Record<string, string | string[]>;
  /** The request headers that the response varies on, with their values; `null` for one that the request did not have. */
  vary?: Record<string, string | string[] | null>;
  etag?: string;
  cacheControlDirectives?: CacheControlDirectives;
  cachedAt: number;
  /** From when on it has to be revalidated. */
  staleAt: number;
  /** From when on it is gone. */
  deleteAt: number;
}

/** A stored response: `GetResult` of undici. */
export interface StoredResponse extends ResponseValue {
  cacheControlDirectives: CacheControlDirectives;
  /** The body as a list of buffers: one buffer, or none for an empty body. */
  body: Buffer[];
}

/** What is known about an origin and a path. */
interface Page {
  generation: string;
  /** Whether the generation began with a deletion. */
  deleted: boolean;
  /** When the last of its responses is gone, in milliseconds of `Date.now()`. */
  until: number;
  /** Which responses may exist: a method and the names of the request headers that they vary on, in order. */
  selections: [method: string, ...names: string[]][];
}

/** The description of a stored response. */
interface Description extends ResponseValue {
  generation: string;
}

const MAX_ENTRY_SIZE = 5 * 1024 * 1024;
/**
 * How long a page without responses remembers that it was deleted: as long as undici waits for the headers of a response
 * (`headersTimeout`), so that one that was requested before the deletion is recognised.
 */
const REMEMBERED_MS = 300_000;
/** An origin that names other headers each time may not let a page grow for ever: the oldest selections are forgotten. */
const MOST_SELECTIONS = 32;
const LENGTH_BYTES = 4;

/**
 * Keeps responses in a cache, for the option `store` of undici's `interceptors.cache`.
 *
 * - Responses live in the namespace `undici` of the cache. Several stores over one cache have the same responses, in this process
 *   and in others.
 * - Of responses that a request matches, the latest is taken.
 * - A response is stored when its body is complete. One that is cut off, or overtaken by a deletion, is not stored. One that is too
 *   large is not stored either, and removes the one that it was to replace.
 * - The store does not close the cache.
 */
export class CacheMachineStore {
  readonly #cache: Cache;
  readonly #maxEntrySize: number;
  /** The generation that a page had when a request began: undici hands the same key object to `get` and `createWriteStream`. */
  readonly #begun = new WeakMap<RequestKey, string | undefined>();

  /**
   * @throws {TypeError} naming the argument that is wrong; {RangeError} when `maxEntrySize` is no whole number from 0 on.
   */
  constructor(cache: Cache<any, any>, options: CacheMachineStoreOptions = {}) {
    checkCache(cache);
    checkNames(options, ["maxEntrySize"]);
    const { maxEntrySize = MAX_ENTRY_SIZE } = options;
    if (!Number.isInteger(maxEntrySize) || maxEntrySize < 0) {
      throw new RangeError("options.maxEntrySize: must be a whole number of bytes, 0 or more");
    }
    this.#cache = cache.namespace("undici");
    // A cache never takes an entry above an eighth of its size, so larger bodies need not be collected.
    this.#maxEntrySize = Math.min(maxEntrySize, cache.toJSON().size / 8);
  }

  /**
   * Returns the response for a request, also a stale one before its `deleteAt`; `undefined` when there is none.
   *
   * @throws {TypeError} when `key` is no key; {CacheError} `ERR_CLOSED` when the cache was closed.
   */
  get(key: RequestKey): StoredResponse | undefined {
    checkKey(key);
    const page: Page | undefined = this.#cache.get(pageKey(key));
    this.#begun.set(key, page?.generation);
    if (page === undefined) return undefined;
    const keys = page.selections
      .filter(([method]) => method === key.method)
      .map(([, ...names]) => responseKey(key, names, key.headers));
    let latest: StoredResponse | undefined;
    for (const bytes of this.#cache.getMany(keys)) {
      if (bytes === undefined) continue;
      const { generation, ...response } = unpacked(bytes);
      if (generation !== page.generation || response.deleteAt <= Date.now()) continue;
      if (latest === undefined || response.cachedAt >= latest.cachedAt) latest = response;
    }
    return latest;
  }

  /**
   * Returns a stream that takes the body, and stores the response when it ends. `undefined` when the response cannot be stored:
   * its page was deleted since the request began, it is too large, or another participant is in the way.
   *
   * @throws {TypeError} when `key` or `value` is none.
   */
  createWriteStream(key: RequestKey, value: ResponseValue): Writable | undefined {
    checkKey(key);
    checkValue(value);
    if (key.method !== "HEAD" && Number(value.headers["content-length"]) > this.#maxEntrySize) {
      this.#remove(key, value);
      return undefined;
    }
    const generation = this.#admit(key, value);
    if (generation === undefined) return undefined;
    const chunks: Buffer[] = [];
    const limit = this.#maxEntrySize;
    const store = (): void => this.#store(key, { ...value, generation }, chunks);
    const remove = (): void => this.#remove(key, value);
    let size = 0;
    return new Writable({
      write(chunk: Buffer, _encoding, done) {
        size += chunk.byteLength;
        if (size <= limit) {
          // A copy, because undici hands the same bytes to the application, which may change them.
          chunks.push(Buffer.from(chunk));
        } else {
          remove();
          // Without an error: undici takes an error as a reason to delete the whole page.
          this.destroy();
        }
        done();
      },
      final(done) {
        try {
          store();
          done();
        } catch (error) {
          done(error as Error);
        }
      },
    });
  }

  /**
   * Makes all responses of an origin and a path misses, for all methods, in all processes. Does nothing when the cache was closed:
   * undici also calls it where an error would end the process.
   *
   * @throws {TypeError} when `key` is no key.
   */
  delete(key: RequestKey): void {
    checkKey(key);
    const page: Page = { generation: randomUUID(), deleted: true, until: Date.now() + REMEMBERED_MS, selections: [] };
    try {
      this.#cache.set(pageKey(key), page, { ttl: REMEMBERED_MS, tags: [pageTag(key)] });
    } catch (error) {
      // Nothing can be in the way of a tag. It may cost other pages a miss.
      if (isCode(error, "ERR_BUSY")) this.#cache.invalidateTag(pageTag(key));
      else ignored(error);
    }
    // undici deletes before it asks again for a response that could not be revalidated: that request begins now.
    this.#begun.set(key, page.generation);
  }

  /** Enters a response into its page. Returns the page's generation; `undefined` when the response must not be stored. */
  #admit(key: RequestKey, { vary, deleteAt }: ResponseValue): string | undefined {
    if (!(deleteAt > Date.now())) return undefined;
    const begun = this.#begun.get(key);
    const isKnown = this.#begun.delete(key);
    const selection: Page["selections"][number] = [key.method, ...Object.keys(vary ?? {}).sort()];
    const isSame = (other: string[]): boolean =>
      other.length === selection.length && other.every((part, i) => part === selection[i]);
    let isOvertaken = false;
    const entered = (page: Page | undefined): Page | undefined => {
      isOvertaken = isKnown && page?.deleted === true && page.generation !== begun;
      if (isOvertaken) return undefined;
      if (page === undefined)
        return { generation: randomUUID(), deleted: false, until: deleteAt, selections: [selection] };
      if (page.until >= deleteAt && page.selections.some(isSame)) return undefined;
      const others = page.selections.filter((other) => !isSame(other)).slice(1 - MOST_SELECTIONS);
      return { ...page, until: Math.max(page.until, deleteAt), selections: [...others, selection] };
    };
    const options = ({ until }: Page): { ttl: number; tags: string[] } => ({
      // Not `expiresAt`: `until` is a time of `Date`, and the cache may have another clock.
      ttl: Math.max(1, until - Date.now()),
      tags: [pageTag(key)],
    });
    try {
      const page: Page = this.#cache.update(pageKey(key), entered, options);
      return isOvertaken ? undefined : page.generation;
    } catch (error) {
      return ignored(error);
    }
  }

  #store(key: RequestKey, description: Description, chunks: Buffer[]): void {
    const { vary, deleteAt, generation } = description;
    const ttl = deleteAt - Date.now();
    try {
      if (ttl <= 0 || this.#cache.get(pageKey(key))?.generation !== generation) return;
      this.#cache.trySet(keyOf(key, vary), packed(description, chunks), { ttl });
    } catch (error) {
      ignored(error);
    }
  }

  /** Removes the response that one which cannot be stored was to replace. */
  #remove(key: RequestKey, { vary }: ResponseValue): void {
    try {
      this.#cache.delete(keyOf(key, vary));
    } catch (error) {
      ignored(error);
    }
  }
}

/** Passes errors on, but for those that mean "not stored". The cache may be closed while a response is received. */
function ignored(error: unknown): undefined {
  if (["ERR_TOO_LARGE", "ERR_BUSY", "ERR_CLOSED"].some((code) => isCode(error, code))) return;
  throw error;
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof CacheError && error.code === code;
}

// ---- Keys

function pageKey({ origin, path }: RequestKey): string {
  return storableKey(JSON.stringify([origin, path]));
}

/** Tags are shorter than keys can be. */
function pageTag(key: RequestKey): string {
  return createHash("sha256").update(pageKey(key)).digest("base64url");
}

/** The key of a response whose request has these values for the headers that the response varies on. */
function responseKey(
  { origin, path, method }: RequestKey,
  names: string[],
  headers: Record<string, string | string[] | null> = {},
): string {
  const values = names.map((name) => [name, Object.hasOwn(headers, name) ? headers[name] : null]);
  return storableKey(JSON.stringify([origin, path, method, values]));
}

/** The key of a response that varies on these headers. */
function keyOf(key: RequestKey, vary: ResponseValue["vary"]): string {
  return responseKey(key, Object.keys(vary ?? {}).sort(), vary);
}

// ---- Bytes

function packed(description: Description, chunks: Buffer[]): Buffer {
  const text = Buffer.from(JSON.stringify(description));
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt32LE(text.length);
  return Buffer.concat([length, text, ...chunks]);
}

function unpacked({ buffer, byteOffset, byteLength }: Uint8Array): StoredResponse & { generation: string } {
  const bytes = Buffer.from(buffer, byteOffset, byteLength);
  const end = LENGTH_BYTES + bytes.readUInt32LE();
  const description: Description = JSON.parse(bytes.toString("utf8", LENGTH_BYTES, end));
  const body = end < byteLength ? [bytes.subarray(end)] : [];
  return { ...description, cacheControlDirectives: description.cacheControlDirectives ?? {}, body };
}

// ---- Arguments

function checkKey(key: RequestKey): void {
  if (typeof key !== "object" || key === null) throw new TypeError("key: must be an object");
  for (const name of ["origin", "method", "path"] as const) {
    if (typeof key[name] !== "string") throw new TypeError(`key.${name}: must be a string, not ${typeof key[name]}`);
  }
  if (key.headers !== undefined && (typeof key.headers !== "object" || key.headers === null)) {
    throw new TypeError("key.headers: must be an object");
  }
}

function checkValue(value: ResponseValue): void {
  if (typeof value !== "object" || value === null) throw new TypeError("value: must be an object");
  for (const name of ["statusCode", "cachedAt", "staleAt", "deleteAt"] as const) {
    if (typeof value[name] !== "number")
      throw new TypeError(`value.${name}: must be a number, not ${typeof value[name]}`);
  }
  if (typeof value.headers !== "object" || value.headers === null)
    throw new TypeError("value.headers: must be an object");
}
