/**
 * The memory of a cache of process reach: a file in /dev/shm, mapped over the region of a `WebAssembly.Memory`. How such
 * a file comes to be, is found, checked, shared between the threads of a process, and removed.
 *
 * A file gets its name only when it is complete: it is created without one (`O_TMPFILE`), filled, and linked into place
 * in a single step that fails when somebody else was faster. A creator that dies before that step leaves nothing at all,
 * one that dies after it leaves a good file. Nobody ever truncates, overwrites or renames a file that has its name.
 *
 * Every participant has a descriptor of its own, opened in its own thread, whose byte locks stand for its life (see
 * `liveness.ts`). The mapping is made once per process where possible, since each costs address space, and handed to
 * workers that start later through their environment data. Node.js only. Knows nothing of what the bytes mean: that is
 * a {@link Layout}.
 */

import { closeSync, constants, fchmodSync, fstatSync, lstatSync, openSync, readSync, unlinkSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { CacheError } from "./errors.ts";
import { LockFile } from "./liveness.ts";
import { type FileMapping, findMapping, joinMapping, leaveMapping, newMapping, offerMapping } from "./mappings.ts";
import { allocateMemory, type FileHandle, type Layout, type Region } from "./memory.ts";
import { Native } from "./native.ts";
import { PAGE, readableSize } from "./size.ts";

/** Where the files are, unless told otherwise: memory, on every Linux. */
export const DEFAULT_DIRECTORY = "/dev/shm";

/** Bytes at the start of a file that {@link Layout.inspect} gets to see. */
export const HEADER_BYTES = 64;

/** `O_TMPFILE` of Linux, which `node:fs` does not name; `O_CLOEXEC` is set by Node.js on every file it opens. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

/** How often somebody else may be faster, and the result be gone again when we look, before that is an error. */
const MAX_LOST_RACES = 100;

/** How long a creator waits for another one in the same directory, which is at work, stopped or malicious. */
const TURN_TIMEOUT_MS = 10_000;
const TURN_POLL_MS = 2;

/** Which file a cache is. */
export interface FileName {
  /** The name of the cache. */
  readonly name: string;
  /** Directory, {@link DEFAULT_DIRECTORY} by default. It must be one in which others cannot rename our files. */
  readonly path?: string | undefined;
}

/** How to open a cache file. */
export interface FileOptions extends FileName {
  readonly layout: Layout;
  /** Bytes of the region, a multiple of 64 KiB; what is there is taken as it is when left out. */
  readonly size?: number | undefined;
  /** Bytes of the region when the file has to be created and no `size` was given. */
  readonly defaultSize: number;
  /** Permission bits of a file that is created and the most that is accepted of one that exists; 0600 by default. */
  readonly mode?: number | undefined;
}

/**
 * Opens the region of that name, creating it if there is none.
 *
 * @throws {RangeError} when `name` cannot be a file name, or `size` is more than a memory can have.
 * @throws {CacheError} `ERR_UNSUPPORTED` without the native part or on an unsuitable directory; `ERR_SIZE_MISMATCH` when
 * it exists with another size; `ERR_LAYOUT` when the file is not a cache; `ERR_NOT_OWNER` when it is another user's or
 * open to others; `ERR_NO_SPACE` when the file system, the address space or the descriptors are used up; `ERR_BUSY`
 * when others keep on creating and destroying it.
 */
export function openFileRegion(options: FileOptions): Region {
  const native = Native.load();
  const path = pathOf(options, options.layout.version);
  const deadline = performance.now() + TURN_TIMEOUT_MS;
  // Each round ends with the file open, with an error, a little closer to the deadline, or with a race lost.
  for (let lost = 0; lost < MAX_LOST_RACES; ) {
    const existing = openExisting(native, path, options);
    if (existing !== undefined) return existing;
    const turn = takeTurn(native, path);
    if (turn === undefined && performance.now() < deadline) {
      sleep(TURN_POLL_MS);
      continue;
    }
    try {
      const region = openExisting(native, path, options) ?? create(native, path, options);
      if (region !== undefined) return region;
      lost++;
    } finally {
      if (turn !== undefined) closeSync(turn);
    }
  }
  throw new CacheError("ERR_BUSY", `${path} is created and destroyed by others all the time: try again later`);
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
    try {
      // A mapping that exists keeps the inode in use, so no other file can have its number. After that some file systems
      // use it again: then this is the cache of that name that is there now.
      const stat = fstatSync(fd);
      if (identityOf(fd) === id && stat.size === size && stat.uid === ourUid()) {
        const mapping = joinMapping(handle) ? handle : mapFile(native, fd, base, size);
        return new FileRegion(native, fd, mapping, handle);
      }
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    closeSync(fd);
  }
  throw new CacheError("ERR_CLOSED", `the cache was destroyed (${path} is gone): open it again by its name`);
}

/**
 * Removes the name. Those who have the cache open keep it, those who open it later get a new one.
 *
 * @returns whether there was one
 * @throws {CacheError} `ERR_NOT_OWNER` when it is another user's.
 */
export function destroyFile(name: FileName, version: number): boolean {
  const path = pathOf(name, version);
  // Between the two calls another file may take the name: it is one of ours again, or the directory is not ours to trust.
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return false;
  if (stat.uid !== ourUid()) throw notOwner(path, stat.uid);
  try {
    unlinkSync(path);
    return true;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return false;
    throw error;
  }
}

/** Undefined when there is no such file. */
function openExisting(native: Native, path: string, options: FileOptions): Region | undefined {
  const { layout } = options;
  const fd = openFile(path);
  if (fd === undefined) return undefined;
  try {
    const size = checkFile(fd, path, options);
    // Destroyed since it was opened: nobody else will ever find this one.
    if (size === undefined) {
      closeSync(fd);
      return undefined;
    }
    const { base, slots } = layout.plan(size);
    const id = identityOf(fd);
    const key = mappingKey(path, layout);
    let mapping = findMapping(key, id);
    if (mapping === undefined) {
      mapping = mapFile(native, fd, base, size);
      offerMapping(key, mapping);
    }
    return new FileRegion(native, fd, mapping, { path, slots, key });
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/**
 * Processes that start together create one after the other, so that the file system need not have room for as many
 * files as there are processes: all but the first then find a file. Only that rests on this lock, nothing else does;
 * it is on the directory since that leaves nothing behind, which lets other users of the directory delay us, no more.
 *
 * @returns a descriptor that holds the turn until it is closed, undefined when another creator has it
 */
function takeTurn(native: Native, path: string): number | undefined {
  const fd = openDirectory(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  if (native.tryLockDirectory(fd)) return fd;
  closeSync(fd);
  return undefined;
}

/** Undefined when somebody else was faster. */
function create(native: Native, path: string, options: FileOptions): Region | undefined {
  const { layout, mode = 0o600, size = options.defaultSize } = options;
  const { base, slots } = layout.plan(size);
  const memory = allocateMemory(base, size);
  const fd = openDirectory(dirname(path), constants.O_RDWR | O_TMPFILE, mode);
  // Up to link() the file is ours alone and goes with the descriptor and the mapping, whatever happens to us.
  try {
    // Not left to the umask: whoever opens the file compares its mode with the one asked for.
    fchmodSync(fd, mode);
    native.reserve(fd, size);
    native.map(fd, memory, base, size);
    layout.format(memory, base, size);
    if (native.link(fd, path)) {
      // From here on others may be in it, and it needs nothing more from us.
      const key = mappingKey(path, layout);
      const mapping = newMapping({ memory, base, size, id: identityOf(fd) });
      offerMapping(key, mapping);
      return new FileRegion(native, fd, mapping, { path, slots, key });
    }
  } catch (error) {
    native.unmap(memory, base, size);
    closeSync(fd);
    throw error;
  }
  native.unmap(memory, base, size);
  closeSync(fd);
  return undefined;
}

function mapFile(native: Native, fd: number, base: number, size: number): FileMapping {
  const memory = allocateMemory(base, size);
  native.map(fd, memory, base, size);
  return newMapping({ memory, base, size, id: identityOf(fd) });
}

/** A mapped file as one participant has it open, by a descriptor of its own; the mapping has been joined for it. */
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

  constructor(native: Native, fd: number, mapping: FileMapping, file: { path: string; slots: number; key: string }) {
    const { memory, base, size, id, users } = mapping;
    const { path, slots, key } = file;
    this.memory = memory;
    this.base = base;
    this.size = size;
    this.membership = new LockFile(native, fd, slots);
    this.handle = { reach: "processes", memory, base, size, id, users, path, slots, key };
    this.#fd = fd;
    this.#mapping = mapping;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    // Closing the descriptor gives the slots back as well; what comes before it only marks them as not ours any more.
    try {
      this.membership.close();
    } finally {
      closeSync(this.#fd);
    }
    leaveMapping(this.#mapping, this.handle.key);
  }
}

/** `cache-machine-<uid>-<name>.v<version>`: never hidden, never outside its directory, apart for every user. */
function pathOf(file: FileName, version: number): string {
  const { name, path = DEFAULT_DIRECTORY } = file;
  // Lone surrogates would all become the same replacement character, and so the same file.
  if (/\p{Surrogate}/u.test(name)) throw new RangeError("name: must be well-formed Unicode");
  const encoded = Array.from(Buffer.from(name), (byte) => {
    const char = String.fromCharCode(byte);
    return /[A-Za-z0-9._-]/.test(char) ? char : `%${byte.toString(16).padStart(2, "0").toUpperCase()}`;
  }).join("");
  const fileName = `cache-machine-${ourUid()}-${encoded}.v${version}`;
  if (fileName.length > 255) {
    throw new RangeError(`name: too long, as a file name it has ${fileName.length} bytes and may have 255`);
  }
  return resolve(path, fileName);
}

/** A mapping is for equal modules only: threads that share it share its private part too, which each build lays out anew. */
function mappingKey(path: string, layout: Layout): string {
  return `cache-machine ${layout.build} ${path}`;
}

/** Opens the file of a cache in and for the calling thread; undefined when there is none. */
function openFile(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    switch (codeOf(error)) {
      case "ENOENT":
        return undefined;
      case "ELOOP":
      case "EISDIR":
      case "ENXIO":
      case "ENODEV":
        throw noCache(path, "a regular file is expected, not a link or a special one");
      case "EACCES": {
        const owner = lstatSync(path, { throwIfNoEntry: false })?.uid;
        if (owner !== undefined && owner !== ourUid()) throw notOwner(path, owner);
        throw new CacheError("ERR_NOT_OWNER", `no permission to read and write ${path}: check its mode`);
      }
      default:
        throw outOfDescriptors(error) ?? error;
    }
  }
}

/** Opens a directory, or with `O_TMPFILE` a new file in it, which vanishes with the descriptor unless it gets a name. */
function openDirectory(directory: string, flags: number, mode?: number): number {
  try {
    return openSync(directory, flags, mode);
  } catch (error) {
    const code = codeOf(error);
    if (code === "ENOSPC" || code === "EDQUOT") {
      throw new CacheError("ERR_NO_SPACE", `no room for another file in ${directory} (${code})`, { cause: error });
    }
    throw (
      outOfDescriptors(error) ??
      new CacheError(
        "ERR_UNSUPPORTED",
        `cannot create the cache file in ${directory} (${code}): it must be an existing directory that this user may ` +
          "read and write, on a local file system with O_TMPFILE such as tmpfs; choose another one with the option `path`",
        { cause: error },
      )
    );
  }
}

/** The size of a file that is fit to be attached; undefined when it has no name any more. */
function checkFile(fd: number, path: string, options: FileOptions): number | undefined {
  const { mode = 0o600, size } = options;
  const stat = fstatSync(fd);
  if (stat.nlink === 0) return undefined;
  if (!stat.isFile()) throw noCache(path, "a regular file is expected");
  if (stat.uid !== ourUid()) throw notOwner(path, stat.uid);
  const excess = stat.mode & 0o077 & ~mode;
  if (excess !== 0) {
    const who = [excess & 0o070 ? "its group" : "", excess & 0o007 ? "everybody" : ""].filter(Boolean).join(" and ");
    const may = excess & 0o022 ? "write to" : "read";
    const octal = (stat.mode & 0o777).toString(8).padStart(4, "0");
    throw new CacheError(
      "ERR_NOT_OWNER",
      `${who} may ${may} ${path} (mode ${octal}): chmod it to 0600, remove it, or allow that with the option \`mode\``,
    );
  }
  if (stat.size < PAGE || stat.size % PAGE !== 0) throw noCache(path, `it has ${stat.size} bytes`);
  const header = new Uint8Array(HEADER_BYTES);
  readSync(fd, header, 0, HEADER_BYTES, 0);
  options.layout.inspect(header, stat.size);
  if (size !== undefined && size !== stat.size) {
    throw new CacheError(
      "ERR_SIZE_MISMATCH",
      `the cache exists with ${readableSize(stat.size)}, asked for was ${readableSize(size)}: ask for the same, leave ` +
        "`size` out to take what is there, or remove it with destroyCache(name)",
    );
  }
  return stat.size;
}

/** Device and inode, exactly. */
function identityOf(fd: number): string {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev}:${ino}`;
}

/** Node.js lets its main thread wait like this too; opening a cache is synchronous. */
function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function ourUid(): number {
  return process.geteuid?.() ?? -1;
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

function outOfDescriptors(error: unknown): CacheError | undefined {
  const code = codeOf(error);
  if (code !== "EMFILE" && code !== "ENFILE") return undefined;
  return new CacheError("ERR_NO_SPACE", `no file descriptor left (${code}): raise the limit (\`ulimit -n\`)`, {
    cause: error,
  });
}

function noCache(path: string, reason: string): CacheError {
  return new CacheError(
    "ERR_LAYOUT",
    `${path} is not a cache (${reason}): remove it with destroyCache(name), or choose another name`,
  );
}

function notOwner(path: string, uid: number): CacheError {
  return new CacheError(
    "ERR_NOT_OWNER",
    `${path} belongs to the user with id ${uid}, not to this one: choose another place with the option \`path\``,
  );
}
