/** Caches in the memory of one process, for its threads. They work wherever WebAssembly and shared memory do. */

import { type Cache, openRegion } from "../cache/cache.ts";
import {
  CACHE_OPTIONS,
  type CacheOptions,
  CREATE_OPTIONS,
  type CreateOptions,
  checkOptions,
  DEFAULT_SIZE,
  resolve,
  resolveSize,
} from "../cache/options.ts";
import type { CacheHandle, Key } from "../cache/types.ts";
import { checkMapping, plan } from "../engine/plan.ts";
import { badLayout, unsupported } from "../errors.ts";
import {
  attachThreadRegion,
  createThreadRegion,
  type FileHandle,
  type Region,
  type ThreadHandle,
} from "../memory/memory.ts";
import { requireMemory } from "../system/cgroup.ts";
import { describe } from "../values/describe.ts";

/**
 * Creates a cache in the memory of this process. Workers join it with `attachCache(cache.handle)`. Its memory is freed when no
 * thread uses the cache any more.
 *
 * ```js
 * import { createCache } from "cache-machine";
 *
 * const cache = createCache({ size: "16mb" });
 * cache.set("answer", { value: 42 });
 * cache.get("answer"); // { value: 42 }
 * ```
 *
 * @throws {TypeError} and {RangeError} naming the option that is wrong.
 * @throws {CacheError} `ERR_NO_SPACE` when there is not enough memory or address space, or the container may not use so much;
 * `ERR_UNSUPPORTED` where there is no SharedArrayBuffer, no TextEncoder, or no WebAssembly with SIMD.
 */
export function createCache<V = any, K extends Key = string>(options?: CreateOptions): Cache<V, K> {
  const given = checkOptions(options, CREATE_OPTIONS);
  const resolved = resolve(given);
  return openRegion<V, K>(newRegion(resolveSize(given.size) ?? DEFAULT_SIZE), resolved, undefined, true);
}

/** Makes an empty region of `size` bytes for the threads of this process. @throws {CacheError} as {@link createCache}. @internal */
export function newRegion(size: number): Region {
  requireSharedMemory();
  requireMemory(size);
  const { base, seats } = plan.of(size);
  const region = createThreadRegion({ base, size, seats });
  plan.format(region.memory, base, size);
  return region;
}

/** Joins a cache of another thread of this process. @internal */
export function attachThreads<V, K extends Key>(handle: ThreadHandle, options: CacheOptions | undefined): Cache<V, K> {
  const resolved = resolve(checkOptions(options, CACHE_OPTIONS));
  checkMapping(handle);
  return openRegion<V, K>(attachThreadRegion(handle), resolved);
}

/**
 * Checks that a value is a handle, and that this build can join its cache.
 *
 * @throws {TypeError} when it is no handle.
 * @throws {CacheError} `ERR_LAYOUT` when it comes from another version of this package.
 * @internal
 */
export function checkHandle(handle: CacheHandle): ThreadHandle | FileHandle {
  const inside = handle as (CacheHandle & (ThreadHandle | FileHandle)) | null | undefined;
  const { reach, memory, build } = inside ?? {};
  if (!isSharedMemory(memory) || (reach !== "threads" && reach !== "processes")) {
    throw new TypeError(`handle: ${whyNot(handle)}`);
  }
  if (build !== plan.build) {
    throw badLayout(
      "handle: comes from another version of cache-machine. All threads of a process must load the same one.",
    );
  }
  return inside as ThreadHandle | FileHandle;
}

/** Whether a value is a shared memory of any realm. Test runners and `node:vm` make realms, which have classes of their own. */
function isSharedMemory(value: unknown): value is WebAssembly.Memory {
  try {
    const bufferOf = Object.getOwnPropertyDescriptor(WebAssembly.Memory.prototype, "buffer")?.get;
    return Object.prototype.toString.call(bufferOf?.call(value)) === "[object SharedArrayBuffer]";
  } catch {
    return false;
  }
}

/** Says what is wrong with a value that is no handle, for the error message. */
function whyNot(handle: unknown): string {
  const right = "the `handle` of a cache, passed by workerData, postMessage or environment data";
  if (typeof handle !== "object" || handle === null) return `must be ${right}, not ${describe(handle)}`;
  if (typeof (handle as Partial<Cache>).handle === "object")
    return "is a Cache: use its `handle`, as with workerData and postMessage";
  if (!Array.isArray(handle) && Object.keys(handle).length === 0) {
    return "is an empty object, as a Cache becomes when it is posted itself. Pass `cache.handle` by workerData or postMessage.";
  }
  return `must be ${right}`;
}

function requireSharedMemory(): void {
  if (typeof SharedArrayBuffer === "function") return;
  throw unsupported(
    "there is no SharedArrayBuffer here. A page has it when it is cross-origin isolated: serve it with the headers " +
      "`Cross-Origin-Opener-Policy: same-origin` and `Cross-Origin-Embedder-Policy: require-corp`.",
  );
}
