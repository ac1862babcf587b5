/**
 * Caches in the memory of the machine, for all processes and threads of one user: they are opened by name, joined by handle,
 * and removed by name. Also the application's own cache, whose name application.ts finds. Node.js only.
 */

import { type Cache, openRegion } from "../cache/cache.ts";
import {
  CACHE_OPTIONS,
  type CacheOptions,
  checkFallback,
  checkName,
  checkOptions,
  checkPlace,
  DEFAULT_SIZE,
  OPEN_OPTIONS,
  type OpenOptions,
  resolve,
  resolveSize,
  type SetOptions,
} from "../cache/options.ts";
import type { CacheHandle, Key } from "../cache/types.ts";
import { checkMapping, plan } from "../engine/plan.ts";
import { attachFileRegion, destroyFile, openFileRegion } from "../memory/file.ts";
import { applicationName } from "./application.ts";
import { destroyFallback, isUnsupported, openWithFallback } from "./fallback.ts";
import { attachThreads, checkHandle } from "./threads.ts";

/**
 * Opens the cache with this name, and creates it if there is none. All processes and threads of this user on this machine get
 * the same cache. It outlives them: it stays until `destroyCache` removes it or the machine restarts.
 *
 * Without a name, opens the application's own cache, which `set` and `get` use. The application is the project whose code
 * runs.
 *
 * ```js
 * import { openCache } from "cache-machine";
 *
 * const cache = openCache("app", { size: "64mb" });
 * cache.set("report", "computed once");
 * cache.get("report"); // "computed once", in every process
 * ```
 *
 * @throws {TypeError} and {RangeError} naming the argument that is wrong.
 * @throws {CacheError} `ERR_SIZE_MISMATCH` when the cache exists with another size (leave `size` out to take the cache as it
 * is); `ERR_UNSUPPORTED` where processes cannot share a cache: this platform, this directory, or a Node.js that may not load
 * native addons (with the option `fallback` only where threads cannot share one either); `ERR_NO_SPACE` when memory, disk space, address space or file descriptors do not suffice; `ERR_LAYOUT` when
 * the file is not a cache of this version; `ERR_NOT_OWNER` when the file or its directory belongs to another user, or others
 * can change it; `ERR_BUSY` when as many threads have the cache open as it has seats, or when other processes create and
 * destroy it all the time.
 */
export function openCache<V = any, K extends Key = string>(): Cache<V, K>;
export function openCache<V = any, K extends Key = string>(name: string, options?: OpenOptions): Cache<V, K>;
export function openCache<V, K extends Key>(...args: [string?, OpenOptions?]): Cache<V, K> {
  // The arguments are counted, so that a name that is `undefined` by mistake is an error and not the application's cache.
  if (args.length === 0) return openNamed<V, K>(applicationName(openCache), undefined);
  return openNamed<V, K>(checkName(args[0]), args[1]);
}

function openNamed<V, K extends Key>(name: string, options: OpenOptions | undefined): Cache<V, K> {
  const { given, path } = checkPlace(options, OPEN_OPTIONS);
  const resolved = resolve(given);
  const file = { name, path, plan, size: resolveSize(given.size), defaultSize: DEFAULT_SIZE };
  const region = checkFallback(given.fallback) ? openWithFallback(file) : openFileRegion(file);
  return openRegion<V, K>(region, resolved, name);
}

/**
 * Joins the cache of a handle, which another thread of this process has passed through `workerData`, `postMessage` or
 * `setEnvironmentData`.
 *
 * @throws {TypeError} and {RangeError} naming the argument that is wrong, such as a `handle` that is none.
 * @throws {CacheError} `ERR_CLOSED` when the cache was destroyed meanwhile; `ERR_LAYOUT` when the handle comes from another
 * version of this package; `ERR_BUSY` when as many threads have the cache open as it has seats. For a cache of `openCache` also
 * `ERR_UNSUPPORTED`, `ERR_NO_SPACE` and `ERR_NOT_OWNER`, as there.
 */
export function attachCache<V = any, K extends Key = string>(handle: CacheHandle, options?: CacheOptions): Cache<V, K> {
  const checked = checkHandle(handle);
  if (checked.reach === "threads") return attachThreads<V, K>(checked, options);
  const resolved = resolve(checkOptions(options, CACHE_OPTIONS));
  // The region may lie in another memory than that of the handle: once no thread of this process has the file open, it is no
  // longer mapped there.
  const region = attachFileRegion(checked);
  try {
    checkMapping(region);
  } catch (error) {
    region.close();
    throw error;
  }
  return openRegion<V, K>(region, resolved);
}

/**
 * Removes the cache with this name. Returns whether there was one. Participants that have it open can still use it. `openCache`
 * with this name creates a new cache from now on, and the two have nothing in common. The memory of the old one is freed when
 * its last participant leaves.
 *
 * A cache of this process, which the option `fallback` of `openCache` has made, is removed by the same name and path.
 *
 * Without a name, removes the application's own cache. The next `set` or `get` of this thread creates a new one.
 *
 * @throws {TypeError} and {RangeError} naming the argument that is wrong.
 * @throws {CacheError} `ERR_NOT_OWNER` when the file belongs to another user; `ERR_UNSUPPORTED` when the directory cannot be
 * used; `ERR_LAYOUT` when there is a directory in place of the file.
 */
export function destroyCache(): boolean;
export function destroyCache(name: string, options?: { path?: string | undefined }): boolean;
export function destroyCache(...args: [string?, { path?: string | undefined }?]): boolean {
  const name = args.length === 0 ? applicationName(destroyCache) : checkName(args[0]);
  const { path } = checkPlace(args[1], ["path"]);
  if (name === application?.name && path === undefined) {
    application?.close();
    application = undefined;
  }
  const hadFallback = destroyFallback({ name, path }, plan);
  try {
    return destroyFile({ name, path }, plan.version) || hadFallback;
  } catch (error) {
    if (hadFallback && isUnsupported(error)) return true;
    throw error;
  }
}

let application: Cache<any, Key> | undefined;

/** Returns the application's own cache. The first call in a thread decides which application that is. */
function applicationCache(entry: typeof set | typeof get): Cache<any, Key> {
  application ??= openNamed(applicationName(entry), undefined);
  return application;
}

/** Stores a value in the application's own cache, which needs no configuration. `openCache()` opens the same cache. */
export function set<V>(key: Key, value: V, options?: SetOptions): void {
  applicationCache(set).set(key, value, options);
}

/**
 * Returns a value of the application's own cache, `undefined` when the key is absent. Without a key, returns an object with all
 * entries whose keys are strings.
 */
export function get<V = any>(key: Key): V | undefined;
export function get<V = any>(): Record<string, V>;
export function get<V = any>(...keys: [Key?]): V | undefined | Record<string, V> {
  // The arguments are counted, so that a key that is `undefined` by mistake is an error and does not return everything.
  if (keys.length > 0) return applicationCache(get).get(keys[0] as Key) as V | undefined;
  const everything: Record<string, V> = {};
  for (const [key, value] of applicationCache(get).entries()) {
    if (typeof key === "string") Object.defineProperty(everything, key, { value, ...PLAIN });
  }
  return everything;
}

/** Makes an ordinary property, even for a key such as `__proto__`. */
const PLAIN = { enumerable: true, configurable: true, writable: true } as const;
