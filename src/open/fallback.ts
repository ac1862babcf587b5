/**
 * The option `fallback: "threads"` of `openCache`: where processes cannot share a cache, a cache in memory of this process
 * stands in for it. It has a name and stays until it is destroyed, as a file would.
 *
 * A thread that makes such a cache offers it to itself and to the workers that it starts from then on. The offer is environment
 * data, which all copies of this package and all realms of a thread see, and of which each new worker gets a copy. A worker that
 * was started before has no offer, and makes a cache of its own. Node.js only.
 */

import { join, resolve } from "node:path";
import { getEnvironmentData, isMainThread, setEnvironmentData, threadId } from "node:worker_threads";
import { CacheError, sizeMismatch } from "../errors.ts";
import { type FileOptions, openFileRegion } from "../memory/file.ts";
import { attachThreadRegion, type Plan, type Region, type ThreadHandle } from "../memory/memory.ts";
import { DEFAULT_DIRECTORY, type FileName, fileNameOf } from "../memory/place.ts";
import { newRegion } from "./threads.ts";

/** The code of the warning, for `process.on("warning")` and `node --disable-warning`. */
const WARNING = "CACHE_MACHINE_FALLBACK";
/** The environment data by which a thread and its workers know that a warning was given. It is the number of that thread. */
const WARNED = "cache-machine fallback warned";

/** What a thread offers to itself and to the workers that it starts. */
interface Offer {
  readonly handle: ThreadHandle;
  /** One `Int32`: 1 once some thread has destroyed the cache. Threads that run then keep their copies of the offer. */
  readonly destroyed: SharedArrayBuffer;
}

/**
 * Opens the region of a file; where processes cannot share one, a region of this process with the same name and path. A thread
 * that has such a region does not try the file again, so that all openings of a name get the same cache.
 *
 * @throws as {@link openFileRegion}, but `ERR_UNSUPPORTED` only where threads cannot share a memory either.
 */
export function openWithFallback(file: FileOptions): Region {
  const { name, plan, size, defaultSize } = file;
  const key = offerKey(file, plan);
  const offer = getEnvironmentData(key) as Offer | undefined;
  if (offer !== undefined && Atomics.load(new Int32Array(offer.destroyed), 0) === 0) {
    const { handle } = offer;
    if (size !== undefined && size !== handle.size) throw sizeMismatch(handle.size, size);
    return attachThreadRegion(handle);
  }
  try {
    return openFileRegion(file);
  } catch (reason) {
    // Every other error is about this moment or about this file. Another process may share the cache all the same.
    if (!isUnsupported(reason)) throw reason;
    const region = newRegion(size ?? defaultSize);
    const fresh = { handle: region.handle, destroyed: new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT) };
    setEnvironmentData(key, fresh as never);
    warn(name, reason);
    return region;
  }
}

/**
 * Removes the cache of this process with this name. Threads that have it open can still use it.
 *
 * @returns whether this thread, or one that has started it, had made such a cache, and no thread had destroyed it
 * @throws {RangeError} when the name cannot be a file name.
 */
export function destroyFallback(file: FileName, plan: Plan): boolean {
  const key = offerKey(file, plan);
  const offer = getEnvironmentData(key) as Offer | undefined;
  if (offer === undefined) return false;
  setEnvironmentData(key, undefined);
  return Atomics.exchange(new Int32Array(offer.destroyed), 0, 1) === 0;
}

/** Whether an error says that something is missing here which a cache needs. */
export function isUnsupported(error: unknown): error is CacheError {
  return error instanceof CacheError && error.code === "ERR_UNSUPPORTED";
}

/**
 * The name of the environment data with the offer: one for each file. It contains the build of the engine, because only threads
 * with the same engine can share a memory.
 */
function offerKey({ name, path = DEFAULT_DIRECTORY }: FileName, plan: Plan): string {
  let directory = path;
  try {
    directory = resolve(path);
  } catch {
    // The working directory was removed.
  }
  return `cache-machine fallback ${plan.build} ${join(
    directory,
    fileNameOf(0, name, plan.version, () => undefined),
  )}`;
}

/**
 * Warns that a cache is not shared with other processes: once in a process whose main thread opens it first. A worker that finds
 * no offer has a cache of its own, so each such worker warns once.
 */
function warn(name: string, reason: CacheError): void {
  const warned = getEnvironmentData(WARNED) as number | undefined;
  if (warned === threadId || (isMainThread && warned !== undefined)) return;
  setEnvironmentData(WARNED, threadId);
  const whose = isMainThread ? "process" : "worker";
  const advice = isMainThread
    ? ""
    : " No thread that has started this worker had opened it before: open it before the workers start.";
  process.emitWarning(
    `openCache(${JSON.stringify(name)}) has opened a cache of this ${whose} alone, because processes cannot share one here.${advice}`,
    { code: WARNING, detail: reason.message },
  );
}
