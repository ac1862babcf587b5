/**
 * The memory of a cache of process reach: a file in /dev/shm that is mapped over the region of a `WebAssembly.Memory`. This
 * file opens, creates, attaches and destroys such cache files. Their place is in place.ts, the rules about their owner in
 * private-file.ts, and the order in which processes create them in turn.ts.
 *
 * A file gets its name only when it is complete. It is created without a name (`O_TMPFILE`), filled, and linked into place
 * in a single step that fails when another creator was faster. A creator that dies before that step leaves nothing at all,
 * and one that dies after it leaves a complete file. No process ever truncates, overwrites or renames a file that has its name.
 *
 * Every participant has a descriptor of its own, which its own thread opened. The byte locks of this descriptor prove that the
 * participant is alive: see lock-file.ts. The threads of a process share the mapping where possible: see mappings.ts. Node.js
 * only. This file does not know what the bytes mean: a {@link Plan} does.
 */

import { closeSync, fstatSync, lstatSync, type Stats, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { FifoBell, removeBells } from "../bells/fifo.ts";
import { badLayout, CacheError, destroyed, neverThere } from "../errors.ts";
import { LockFile } from "../liveness/lock-file.ts";
import { belongsTo, codeOf, ourUid, unusable } from "../system/access.ts";
import { requireMemory } from "../system/cgroup.ts";
import { Native } from "../system/native.ts";
import { findMapping, joinMapping, leaveMapping, newMapping, offerMapping } from "./mappings.ts";
import { allocateMemory, type FileHandle, type FileMapping, type Plan, type Region } from "./memory.ts";
import { type FileName, findDirectory, pathOf, removeOlder, requireOurs } from "./place.ts";
import {
  checkFile,
  createUnnamed,
  giveMode,
  identityIn,
  identityOf,
  openFile,
  requirePrivate,
} from "./private-file.ts";
import { Patience, takeTurn } from "./turn.ts";

/** How many times another process may create the file first and then destroy it again, before opening it is an error. */
const MAX_LOST_RACES = 100;

/** How to open a cache file. */
export interface FileOptions extends FileName {
  readonly plan: Plan;
  /** Bytes of the region, a multiple of 64 KiB. Without it, an existing file of any size is opened. */
  readonly size?: number | undefined;
  /** Bytes of the region when the file has to be created and no `size` was given. */
  readonly defaultSize: number;
}

/**
 * Opens the region with this name, and creates it if there is none.
 *
 * @throws {RangeError} when `name` cannot be a file name, or `size` is more than a memory can have.
 * @throws {CacheError} `ERR_UNSUPPORTED` without the native part or on an unsuitable directory; `ERR_SIZE_MISMATCH` when
 * the file exists with another size; `ERR_LAYOUT` when the file is not a cache; `ERR_NOT_OWNER` when it belongs to another
 * user, or others can open it or put another file in its place; `ERR_NO_SPACE` when the file system, the memory of the
 * container, the address space or the descriptors do not suffice; `ERR_BUSY` when other processes create and destroy it all
 * the time.
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
 * Joins the mapping of another thread of this process, with a descriptor of its own. If all threads have left that mapping, the
 * file is mapped again. So the memory of the region can be another than that of the handle.
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
      // As long as a mapping exists, the inode is in use and no other file can have its number. Later some file systems use the
      // number again. Then this opens the cache that has the name now.
      const stat = fstatSync(fd);
      if (identityOf(fd) === id && stat.size === size) {
        requirePrivate(stat, path);
        mapping = joinMapping(handle) ? handle : mapFile(native, fd, base, size);
        return new FileRegion(native, fd, mapping, handle);
      }
    } catch (error) {
      // The descriptor comes first, and is closed directly: where the stack ends, there is still room for this one call.
      closeSync(fd);
      if (mapping !== undefined) leaveMapping(mapping, handle.key);
      throw error;
    }
    closeSync(fd);
  }
  throw destroyed(path);
}

/**
 * Removes the file with this name. Participants that have it open can still use it, and an opening of the name later creates a
 * new file. A file of this user is removed even if others may open it, because removing it is the remedy.
 *
 * @returns whether there was such a file
 * @throws {RangeError} when `name` cannot be a file name.
 * @throws {CacheError} `ERR_NOT_OWNER` when the file belongs to another user, `ERR_UNSUPPORTED` when the directory cannot be
 * used, `ERR_LAYOUT` when there is a directory in place of the file.
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
  // Between `lstat` and `unlink` another file may take the name. It is one of this user's again: in a directory that
  // `requireOurs` accepts, nobody else can do that.
  let stat: Stats | undefined;
  try {
    stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined) {
      removeBells(path);
      return false;
    }
    if (stat.uid !== ourUid()) throw belongsTo(path, stat.uid);
    unlinkSync(path);
    removeBells(path, stat.ino);
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
    // The file was destroyed after it was opened. No other participant could find it any more.
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
  // Until `link` no other process sees the file, and it vanishes with its descriptor and its mapping, however this process
  // ends.
  try {
    giveMode(fd);
    native.reserve(fd, size);
    native.map(fd, memory, base, size);
    plan.format(memory, base, size);
    if (native.link(fd, path)) {
      // From here on others may have the file open. It is complete.
      mapping = newMapping({ memory, base, size, id: identityOf(fd) });
      offerMapping(key, mapping);
      removeOlder(path);
      removeBells(path);
      return new FileRegion(native, fd, mapping, { path, seats, key });
    }
  } catch (error) {
    closeSync(fd);
    // A mapping that was made may have been offered to other threads: its last user unmaps it.
    if (mapping === undefined) native.unmap(memory, base, size);
    else leaveMapping(mapping, key);
    throw error;
  }
  closeSync(fd);
  native.unmap(memory, base, size);
  return undefined;
}

/** Maps a file over a new memory. The caller is the first user of the mapping. */
function mapFile(native: Native, fd: number, base: number, size: number): FileMapping {
  const memory = allocateMemory(base, size);
  native.map(fd, memory, base, size);
  return newMapping({ memory, base, size, id: identityOf(fd) });
}

/**
 * The name under which a mapping is offered. It contains the build of the engine, because threads that share a mapping also
 * share the private part of its memory, and each build uses that part in its own way.
 */
function mappingKey(path: string, plan: Plan): string {
  return `cache-machine ${plan.build} ${path}`;
}

/** A mapped file as one participant has it open, with a descriptor of its own. The caller has joined the mapping for it. */
class FileRegion implements Region {
  readonly reach = "processes";
  readonly memory: WebAssembly.Memory;
  readonly base: number;
  readonly size: number;
  readonly membership: LockFile;
  readonly bell: FifoBell;
  readonly handle: FileHandle;
  readonly #fd: number;
  readonly #mapping: FileMapping;
  #open = true;
  #destroyed = false;

  constructor(native: Native, fd: number, mapping: FileMapping, file: { path: string; seats: number; key: string }) {
    const { memory, base, size, id, users } = mapping;
    const { path, seats, key } = file;
    this.memory = memory;
    this.base = base;
    this.size = size;
    this.membership = new LockFile(native, fd, seats);
    this.bell = new FifoBell(native, path, fstatSync(fd, { bigint: true }).ino);
    this.handle = { reach: "processes", memory, base, size, id, users, path, seats, key };
    this.#fd = fd;
    this.#mapping = mapping;
  }

  /**
   * Whether the path leads to another file or to none. Once that is so it stays so: the file never gets its name back through
   * this package, and after `close` its inode number may be used for another file.
   */
  get destroyed(): boolean {
    this.#destroyed ||= this.#isGone();
    return this.#destroyed;
  }

  #isGone(): boolean {
    const { path, id } = this.handle;
    try {
      const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
      return stat === undefined || identityIn(stat) !== id;
    } catch {
      // The path cannot be looked at any more, for example because a folder above was closed to this user. The descriptor can.
      return this.#open && hasNoName(this.#fd);
    }
  }

  close(): void {
    if (!this.#open) return;
    // Closing the descriptor also gives the seats back. `membership.close` notes that they are not owned any more. When the
    // stack ends in the middle, the next call of `close` goes on.
    try {
      this.membership.close();
    } finally {
      closeSync(this.#fd);
    }
    // Set first, because the mapping must be left only once. When the stack ends here, the native part leaves the mapping
    // at the end of the thread.
    this.#open = false;
    leaveMapping(this.#mapping, this.handle.key);
  }
}

/** Whether an open file has no name any more. `false` when that cannot be found out. */
function hasNoName(fd: number): boolean {
  try {
    return fstatSync(fd).nlink === 0;
  } catch {
    return false;
  }
}
