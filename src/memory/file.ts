/**
 * The memory of a cache of process reach: a file in /dev/shm, mapped over the region of a `WebAssembly.Memory`. This file
 * tells how such a cache file is opened, created, attached and destroyed. Where it lies is in place.ts, whose it must be in
 * private-file.ts, and who may create next in turn.ts.
 *
 * A file gets its name only when it is complete. It is created without a name (`O_TMPFILE`), filled, and linked into place
 * in a single step that fails when another creator was faster. A creator that dies before that step leaves nothing at all,
 * and one that dies after it leaves a good file. No process ever truncates, overwrites or renames a file that has its name.
 *
 * Every participant has a descriptor of its own, opened in its own thread, whose byte locks stand for its life: see
 * lock-file.ts. The mapping is shared within the process where possible: see mappings.ts. Node.js only. Nothing here knows
 * what the bytes mean: that is a {@link Plan}.
 */

import { closeSync, fstatSync, lstatSync, type Stats, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { badLayout, CacheError, destroyed, neverThere } from "../errors.ts";
import { LockFile } from "../liveness/lock-file.ts";
import { requireMemory } from "../system/cgroup.ts";
import { Native } from "../system/native.ts";
import { belongsTo, codeOf, ourUid, unusable } from "./access.ts";
import { findMapping, joinMapping, leaveMapping, newMapping, offerMapping } from "./mappings.ts";
import { allocateMemory, type FileHandle, type FileMapping, type Plan, type Region } from "./memory.ts";
import { type FileName, findDirectory, pathOf, removeOlder, requireOurs } from "./place.ts";
import { checkFile, createUnnamed, giveMode, identityOf, openFile, requirePrivate } from "./private-file.ts";
import { Patience, takeTurn } from "./turn.ts";

/** How often another process may be faster, and the result be gone again when we look, before that is an error. */
const MAX_LOST_RACES = 100;

/** How to open a cache file. */
export interface FileOptions extends FileName {
  readonly plan: Plan;
  /** Bytes of the region, a multiple of 64 KiB; what is there is taken as it is when left out. */
  readonly size?: number | undefined;
  /** Bytes of the region when the file has to be created and no `size` was given. */
  readonly defaultSize: number;
}

/**
 * Opens the region of that name, creating it if there is none.
 *
 * @throws {RangeError} when `name` cannot be a file name, or `size` is more than a memory can have.
 * @throws {CacheError} `ERR_UNSUPPORTED` without the native part or on an unsuitable directory; `ERR_SIZE_MISMATCH` when
 * it exists with another size; `ERR_LAYOUT` when the file is not a cache; `ERR_NOT_OWNER` when it is another user's or
 * open to others, or others could put their own in its place; `ERR_NO_SPACE` when the file system, the memory of the
 * container, the address space or the descriptors do not suffice; `ERR_BUSY` when others keep on creating and
 * destroying it.
 */
export function openFileRegion(options: FileOptions): Region {
  const native = Native.load();
  const directory = findDirectory(options.path);
  requireOurs(directory);
  const path = pathOf(directory, options.name, options.plan.version);
  const patience = new Patience();
  // Each round ends with the file open, with an error, with less patience, or with a race lost.
  for (let lost = 0; lost < MAX_LOST_RACES; ) {
    const existing = openExisting(native, path, options);
    if (existing !== undefined) return existing;
    const turn = takeTurn(native, directory);
    if (typeof turn === "string" && patience.wait(turn)) continue;
    try {
      const region = openExisting(native, path, options) ?? create(native, path, options);
      if (region !== undefined) return region;
      lost++;
    } finally {
      if (typeof turn === "number") closeSync(turn);
    }
  }
  throw neverThere(path);
}

/**
 * Joins the mapping of another thread of this process, with a descriptor of its own. If that was closed before, the file
 * is mapped once more, so the memory of the region need not be the one of the handle.
 *
 * @throws {CacheError} `ERR_CLOSED` when the file was destroyed in the meantime, else as {@link openFileRegion}.
 */
export function attachFileRegion(handle: FileHandle): Region {
  const native = Native.load();
  const { path, id, base, size } = handle;
  const fd = openFile(path);
  if (fd !== undefined) {
    let mapping: FileMapping | undefined;
    try {
      // A mapping that exists keeps the inode in use, so no other file can have its number. After that some file systems
      // use the number again: then this is the cache of that name that is there now.
      const stat = fstatSync(fd);
      if (identityOf(fd) === id && stat.size === size) {
        requirePrivate(stat, path);
        mapping = joinMapping(handle) ? handle : mapFile(native, fd, base, size);
        return new FileRegion(native, fd, mapping, handle);
      }
    } catch (error) {
      // The descriptor first, and by no other function: at the end of the stack there is room for this one call.
      closeSync(fd);
      if (mapping !== undefined) leaveMapping(mapping, handle.key);
      throw error;
    }
    closeSync(fd);
  }
  throw destroyed(path);
}

/**
 * Removes the name. Participants that have the cache open keep it, and whoever opens the name later gets a new cache. A
 * file of this user is removed whatever others may do with it, because removing it is the remedy.
 *
 * @returns whether there was one
 * @throws {CacheError} `ERR_NOT_OWNER` when it is another user's, `ERR_UNSUPPORTED` when `path` is not a directory.
 */
export function destroyFile(name: FileName, version: number): boolean {
  let directory: string;
  try {
    directory = findDirectory(name.path);
  } catch (error) {
    if (codeOf((error as Error).cause) === "ENOENT") return false;
    throw error;
  }
  const path = pathOf(directory, name.name, version);
  removeOlder(path);
  // Between the two calls another file may take the name: it is one of ours again, or the directory is not ours to trust.
  let stat: Stats | undefined;
  try {
    stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined) return false;
    if (stat.uid !== ourUid()) throw belongsTo(path, stat.uid);
    unlinkSync(path);
    return true;
  } catch (error) {
    if (error instanceof CacheError) throw error;
    if (codeOf(error) === "ENOENT") return false;
    if (stat?.isDirectory()) throw badLayout(`${path} is a directory. Remove it by hand (rm -r).`);
    throw unusable(error, directory);
  }
}

/** Opens the file of that path; `undefined` when there is none. */
function openExisting(native: Native, path: string, options: FileOptions): Region | undefined {
  const { plan } = options;
  const fd = openFile(path);
  if (fd === undefined) return undefined;
  const key = mappingKey(path, plan);
  let mapping: FileMapping | undefined;
  try {
    const size = checkFile(fd, path, plan, options.size);
    // Destroyed since it was opened: nobody else will ever find this one.
    if (size === undefined) {
      closeSync(fd);
      return undefined;
    }
    const { base, seats } = plan.of(size);
    mapping = findMapping(key, identityOf(fd));
    if (mapping === undefined) {
      mapping = mapFile(native, fd, base, size);
      offerMapping(key, mapping);
    }
    return new FileRegion(native, fd, mapping, { path, seats, key });
  } catch (error) {
    closeSync(fd);
    if (mapping !== undefined) leaveMapping(mapping, key);
    throw error;
  }
}

/** Creates the file of that path; `undefined` when another process was faster. */
function create(native: Native, path: string, options: FileOptions): Region | undefined {
  const { plan, size = options.defaultSize } = options;
  requireMemory(size);
  const { base, seats } = plan.of(size);
  const key = mappingKey(path, plan);
  const memory = allocateMemory(base, size);
  let mapping: FileMapping | undefined;
  const fd = createUnnamed(dirname(path));
  // Until link() the file is ours alone and goes with the descriptor and the mapping, whatever happens to us.
  try {
    giveMode(fd);
    native.reserve(fd, size);
    native.map(fd, memory, base, size);
    plan.format(memory, base, size);
    if (native.link(fd, path)) {
      // From here on others may be in it, and it needs nothing more from us.
      mapping = newMapping({ memory, base, size, id: identityOf(fd) });
      offerMapping(key, mapping);
      removeOlder(path);
      return new FileRegion(native, fd, mapping, { path, seats, key });
    }
  } catch (error) {
    closeSync(fd);
    // A mapping that may have been offered goes with its last user.
    if (mapping === undefined) native.unmap(memory, base, size);
    else leaveMapping(mapping, key);
    throw error;
  }
  closeSync(fd);
  native.unmap(memory, base, size);
  return undefined;
}

/** Maps a file over a memory of its own; the caller is its first user. */
function mapFile(native: Native, fd: number, base: number, size: number): FileMapping {
  const memory = allocateMemory(base, size);
  native.map(fd, memory, base, size);
  return newMapping({ memory, base, size, id: identityOf(fd) });
}

/**
 * The name under which a mapping is offered. It holds the build of the engine, because threads that share a mapping share
 * its private part too, which each build lays out in its own way.
 */
function mappingKey(path: string, plan: Plan): string {
  return `cache-machine ${plan.build} ${path}`;
}

/** A mapped file as one participant has it open, by a descriptor of its own. Its creator has joined the mapping for it. */
class FileRegion implements Region {
  readonly reach = "processes";
  readonly memory: WebAssembly.Memory;
  readonly base: number;
  readonly size: number;
  readonly membership: LockFile;
  readonly handle: FileHandle;
  readonly #fd: number;
  readonly #mapping: FileMapping;
  #open = true;

  constructor(native: Native, fd: number, mapping: FileMapping, file: { path: string; seats: number; key: string }) {
    const { memory, base, size, id, users } = mapping;
    const { path, seats, key } = file;
    this.memory = memory;
    this.base = base;
    this.size = size;
    this.membership = new LockFile(native, fd, seats);
    this.handle = { reach: "processes", memory, base, size, id, users, path, seats, key };
    this.#fd = fd;
    this.#mapping = mapping;
  }

  close(): void {
    if (!this.#open) return;
    // Closing the descriptor gives the seats back as well; what comes before it only marks them as not ours any more. When
    // the stack ends in the middle, the next call of `close` goes on.
    try {
      this.membership.close();
    } finally {
      closeSync(this.#fd);
    }
    // Set before the mapping is left, which may be done only once. When the stack ends here, the native part leaves the
    // mapping at the end of the thread.
    this.#open = false;
    leaveMapping(this.#mapping, this.handle.key);
  }
}
