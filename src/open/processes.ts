/**
 * Caches in the memory of the machine, for all processes and threads of one user: opened by name, joined by handle, and
 * removed. Also the application's own cache, which has no name to choose. Node.js only.
 */

import { type Cache, openRegion } from "../cache/cache.ts";
import {
  type CacheOptions,
  checkName,
  checkPlace,
  DEFAULT_SIZE,
  type OpenOptions,
  resolve,
  resolveSize,
  type SetOptions,
} from "../cache/options.ts";
import type { CacheHandle, Key } from "../cache/types.ts";
import { checkMapping, plan, sizeLimits } from "../engine/plan.ts";
import { attachFileRegion, destroyFile, openFileRegion } from "../memory/file.ts";
import { applicationName } from "./application.ts";
import { attachThreads, checkHandle } from "./threads.ts";

/**
 * Opens the cache of that name, creating it if there is none: the same one in every process and every thread of this
 * user on this machine. Its entries stay until they are evicted, the machine restarts, or `destroyCache` is called.
 * Without a name: the application's own cache, which `set` and `get` use. The application is the project whose code runs.
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
 * @throws {CacheError} `ERR_SIZE_MISMATCH` when it exists with another size (leave `size` out to take what is there);
 * `ERR_UNSUPPORTED` on this platform, or where native addons are forbidden; `ERR_NO_SPACE`, `ERR_LAYOUT`,
 * `ERR_NOT_OWNER`; `ERR_BUSY` when too many threads have it open.
 */
export function openCache<V = any>(): Cache<V>;
export function openCache<V = any>(name: string, options?: OpenOptions): Cache<V>;
export function openCache<V>(...args: [string?, OpenOptions?]): Cache<V> {
  // By count, so that a name that is `undefined` by mistake is an error and not the application's cache.
  if (args.length === 0) return openNamed<V>(applicationName(openCache), undefined);
  return openNamed<V>(checkName(args[0]), args[1]);
}

function openNamed<V>(name: string, options: OpenOptions | undefined): Cache<V> {
  const resolved = resolve(options);
  const { size, path } = checkPlace(options);
  const region = openFileRegion({
    name,
    path,
    plan,
    size: resolveSize(size, sizeLimits()),
    defaultSize: DEFAULT_SIZE,
  });
  return openRegion<V>(region, resolved, name);
}

/**
 * Joins the cache that a handle stands for: what another thread of this process passed with `workerData`,
 * `postMessage` or `setEnvironmentData`.
 *
 * @throws {TypeError} when it is no handle.
 * @throws {CacheError} `ERR_CLOSED` when the cache was destroyed since; `ERR_LAYOUT` when it comes from another version
 * of this package; `ERR_BUSY` when too many threads have it open.
 */
export function attachCache<V = any>(handle: CacheHandle, options?: CacheOptions): Cache<V> {
  const checked = checkHandle(handle);
  if (checked.reach === "threads") return attachThreads<V>(checked, options);
  const resolved = resolve(options);
  // Not the handle's own memory: the file is no longer mapped there when no thread of this process has it open.
  const region = attachFileRegion(checked);
  try {
    checkMapping(region);
  } catch (error) {
    region.close();
    throw error;
  }
  return openRegion<V>(region, resolved);
}

/**
 * Removes the name of a cache; whether there was one. Participants that have the cache open go on with it, apart from
 * whoever opens the name from now on. Its memory is given back when the last participant leaves. Without a name: of the
 * application's own cache, of which `set` and `get` in this thread begin a new one.
 *
 * @throws {CacheError} `ERR_NOT_OWNER` when the file belongs to another user.
 */
export function destroyCache(): boolean;
export function destroyCache(name: string, options?: { path?: string | undefined }): boolean;
export function destroyCache(...args: [string?, { path?: string | undefined }?]): boolean {
  const name = args.length === 0 ? applicationName(destroyCache) : checkName(args[0]);
  const { path } = checkPlace(args[1]);
  if (name === application?.name && path === undefined) {
    application?.close();
    application = undefined;
  }
  return destroyFile({ name, path }, plan.version);
}

let application: Cache | undefined;

/** The application's own cache. Which one that is, is decided when it is used first. */
function applicationCache(entry: typeof set | typeof get): Cache {
  application ??= openNamed(applicationName(entry), undefined);
  return application;
}

/** Stores a value in the application's own cache, which needs no configuration: that of `openCache()`. */
export function set<V>(key: Key, value: V, options?: SetOptions): void {
  applicationCache(set).set(key, value, options);
}

/** A value of the application's own cache, `undefined` when it is absent. Without a key: everything, as an object. */
export function get<V = any>(key: Key): V | undefined;
export function get<V = any>(): Record<string, V>;
export function get<V = any>(...keys: [Key?]): V | undefined | Record<string, V> {
  // By count, so that a key that is `undefined` by mistake is an error and not everything.
  if (keys.length > 0) return applicationCache(get).get(keys[0] as Key) as V | undefined;
  const everything: Record<string, V> = {};
  for (const [key, value] of applicationCache(get).entries()) {
    if (typeof key === "string") Object.defineProperty(everything, key, { value, ...PLAIN });
  }
  return everything;
}

/** An own property like any other, even for a key such as `__proto__`. */
const PLAIN = { enumerable: true, configurable: true, writable: true } as const;
