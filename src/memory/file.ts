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
 * a {@link Plan}.
 */

import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  realpathSync,
  type Stats,
  statfsSync,
  statSync,
  unlinkSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { CacheError } from "../errors.ts";
import { LockFile } from "../liveness/liveness.ts";
import { PAGE, readableSize } from "../size.ts";
import { requireMemory } from "../system/cgroup.ts";
import { Native } from "../system/native.ts";
import { type FileMapping, findMapping, joinMapping, leaveMapping, newMapping, offerMapping } from "./mappings.ts";
import { allocateMemory, type FileHandle, type Plan, type Region } from "./memory.ts";

/** Where the files are, unless told otherwise: memory, on every Linux. */
export const DEFAULT_DIRECTORY = "/dev/shm";

/** Bytes at the start of a file that {@link Plan.inspect} gets to see. */
export const HEADER_BYTES = 64;

/** `O_TMPFILE` of Linux, which `node:fs` does not name; `O_CLOEXEC` is set by Node.js on every file it opens. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

/** How often somebody else may be faster, and the result be gone again when we look, before that is an error. */
const MAX_LOST_RACES = 100;

/**
 * How long a creator waits in all for others of its user in the same directory, which are at work or stopped, and for
 * those who are not known to be: anybody may lock a directory for all.
 */
const PATIENCE_MS = { ours: 10_000, others: 50 };
const TURN_POLL_MS = 2;

/** What a file of ours may be used by, and nobody else: one that others may open, they may truncate. */
const MODE = 0o600;
const STICKY = 0o1000;

/** What `statfs` says of tmpfs. */
const TMPFS = 0x01021994;

/** Which file a cache is. */
export interface FileName {
  /** The name of the cache. */
  readonly name: string;
  /** Directory, {@link DEFAULT_DIRECTORY} by default, in which others cannot rename our files. */
  readonly path?: string | undefined;
}

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
  // Each round ends with the file open, with an error, a little less to wait, or with a race lost. Not told by a clock,
  // which may stand still in tests.
  const waited = { ours: 0, others: 0 };
  for (let lost = 0; lost < MAX_LOST_RACES; ) {
    const existing = openExisting(native, path, options);
    if (existing !== undefined) return existing;
    const turn = takeTurn(native, directory);
    if (typeof turn === "string" && waited[turn] < PATIENCE_MS[turn]) {
      sleep(TURN_POLL_MS);
      waited[turn] += TURN_POLL_MS;
      continue;
    }
    try {
      const region = openExisting(native, path, options) ?? create(native, path, options);
      if (region !== undefined) return region;
      lost++;
    } finally {
      if (typeof turn === "number") closeSync(turn);
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
      if (identityOf(fd) === id && stat.size === size) {
        requirePrivate(stat, path);
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
 * Removes the name. Those who have the cache open keep it, those who open it later get a new one. A file of ours is
 * removed whatever others may do with it, since that is the remedy.
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
    if (stat.uid !== ourUid()) throw notOwner(path, stat.uid);
    unlinkSync(path);
    return true;
  } catch (error) {
    if (error instanceof CacheError) throw error;
    if (codeOf(error) === "ENOENT") return false;
    if (stat?.isDirectory()) throw new CacheError("ERR_LAYOUT", `${path} is a directory: remove it by hand (rm -r)`);
    throw unusable(error, directory);
  }
}

/** Undefined when there is no such file. */
function openExisting(native: Native, path: string, options: FileOptions): Region | undefined {
  const { plan } = options;
  const fd = openFile(path);
  if (fd === undefined) return undefined;
  try {
    const size = checkFile(fd, path, options);
    // Destroyed since it was opened: nobody else will ever find this one.
    if (size === undefined) {
      closeSync(fd);
      return undefined;
    }
    const { base, slots } = plan.of(size);
    const id = identityOf(fd);
    const key = mappingKey(path, plan);
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
 * it is on the directory since that leaves nothing behind. In a directory for all, anybody can hold it, so it is waited
 * for only as long as it pays: for one of ours until it has created, for anybody else hardly at all.
 *
 * @returns a descriptor that holds the turn until it is closed, or who has it
 */
function takeTurn(native: Native, directory: string): number | "ours" | "others" {
  const fd = openDirectory(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  if (native.tryLockDirectory(fd)) return fd;
  try {
    return isLockedByUs(fd) ? "ours" : "others";
  } finally {
    closeSync(fd);
  }
}

/** Whether a process of this user holds the lock of a directory; false where the kernel does not tell. */
function isLockedByUs(fd: number): boolean {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & 0xfffff000n);
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffffff00n);
  const inode = [major, minor]
    .map((number) => number.toString(16).padStart(2, "0"))
    .concat(String(ino))
    .join(":");
  try {
    for (const line of readFileSync("/proc/locks", "latin1").split("\n")) {
      // `1: FLOCK  ADVISORY  WRITE 4711 00:1b:1 0 EOF`
      const [, type, , , pid, place] = line.split(/\s+/);
      if (type !== "FLOCK" || place !== inode) continue;
      const [, uid] = /^Uid:\t\d+\t(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1")) ?? [];
      if (Number(uid) === ourUid()) return true;
    }
  } catch {
    // Hidden, or gone in the meantime.
  }
  return false;
}

/** Undefined when somebody else was faster. */
function create(native: Native, path: string, options: FileOptions): Region | undefined {
  const { plan, size = options.defaultSize } = options;
  requireMemory(size);
  const { base, slots } = plan.of(size);
  const memory = allocateMemory(base, size);
  const fd = openDirectory(dirname(path), constants.O_RDWR | O_TMPFILE, MODE);
  // Up to link() the file is ours alone and goes with the descriptor and the mapping, whatever happens to us.
  try {
    giveMode(fd);
    native.reserve(fd, size);
    native.map(fd, memory, base, size);
    plan.format(memory, base, size);
    if (native.link(fd, path)) {
      // From here on others may be in it, and it needs nothing more from us.
      const key = mappingKey(path, plan);
      const mapping = newMapping({ memory, base, size, id: identityOf(fd) });
      offerMapping(key, mapping);
      removeOlder(path);
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
    // Closing the descriptor gives the slots back as well; what comes before it only marks them as not ours any more. Where
    // the stack ends in the middle, the next call goes on.
    try {
      this.membership.close();
    } finally {
      closeSync(this.#fd);
    }
    // Before the mapping, which may be left only once: what is left of that is done at the end of the thread.
    this.#open = false;
    leaveMapping(this.#mapping, this.handle.key);
  }
}

/**
 * The directory without links and relative parts, so that one directory has one name.
 *
 * @throws {CacheError} `ERR_UNSUPPORTED` when it is none, or not to be reached.
 */
function findDirectory(path: string = DEFAULT_DIRECTORY): string {
  // With a slash at its end a path leads to a directory or nowhere.
  return ask(path, () => realpathSync.native(`${path}/`));
}

/** What the file system answers about a place for caches. */
function ask<T>(path: string, question: () => T): T {
  try {
    return question();
  } catch (error) {
    throw unusable(error, path);
  }
}

/**
 * A directory in which nobody but this user and root can put a file of theirs, or another one of ours, in place of a
 * cache. The folders above it are not looked at: what others may put there in its place is theirs, and refused.
 */
function requireOurs(directory: string): void {
  const { uid, mode } = ask(directory, () => statSync(directory));
  const choose = "or choose a directory of this user with the option `path`";
  if (uid !== ourUid() && uid !== 0) {
    throw new CacheError(
      "ERR_NOT_OWNER",
      `path: ${directory} belongs to the user with id ${uid}, who can rename and remove caches in it: chown it, ${choose}`,
    );
  }
  if ((mode & 0o022) !== 0 && (mode & STICKY) === 0) {
    throw new CacheError(
      "ERR_NOT_OWNER",
      `path: others may rename and remove caches in ${directory} (mode ${octal(mode)}): chmod it to 0700, or to 1777 ` +
        `when it is for all, ${choose}`,
    );
  }
}

/**
 * `cache-machine-<uid>-<name>.v<version>`: never hidden, never outside its directory, apart for every user. Where files
 * outlive the machine's memory the id of the boot follows: what the kernel had written of a mapping when the power went
 * is no cache any more, and neither is a copy of it.
 */
function pathOf(directory: string, name: string, version: number): string {
  // Lone surrogates would all become the same replacement character, and so the same file.
  if (/\p{Surrogate}/u.test(name)) throw new RangeError("name: must be well-formed Unicode");
  const encoded = Array.from(Buffer.from(name), (byte) => {
    const char = String.fromCharCode(byte);
    return /[A-Za-z0-9._-]/.test(char) ? char : `%${byte.toString(16).padStart(2, "0").toUpperCase()}`;
  }).join("");
  const boot = isMemory(directory) ? undefined : bootId();
  const fileName = `cache-machine-${ourUid()}-${encoded}.v${version}${boot === undefined ? "" : `.${boot}`}`;
  if (fileName.length > 255) {
    throw new RangeError(
      `name: too long, as the name of a file it takes ${fileName.length} bytes and may take 255. What is not one of ` +
        "A-Z a-z 0-9 . _ - takes three for each of its bytes: use a shorter name",
    );
  }
  return join(directory, fileName);
}

/** Whether files in a directory go with the memory of the machine. */
function isMemory(directory: string): boolean {
  return ask(directory, () => statfsSync(directory).type === TMPFS);
}

/** Names the time since the machine was started, undefined where the kernel does not tell. */
function bootId(): string | undefined {
  try {
    const id = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").replace(/[-\n]/g, "");
    return BOOT_ID.test(id) ? id : undefined;
  } catch {
    return undefined;
  }
}

const BOOT_ID = /^[0-9a-f]{32}$/;

/** Removes, as far as possible, the files of that name from before the machine was started, which nobody can have open. */
function removeOlder(path: string): void {
  const [directory, current] = [dirname(path), basename(path)];
  const before = current.replace(/[^.]*$/, "");
  if (!BOOT_ID.test(current.slice(before.length))) return;
  try {
    for (const entry of readdirSync(directory)) {
      if (entry === current || !entry.startsWith(before) || !BOOT_ID.test(entry.slice(before.length))) continue;
      unlinkSync(join(directory, entry));
    }
  } catch {
    // They take room on a disk, and do no other harm.
  }
}

/** A mapping is for equal modules only: threads that share it share its private part too, which each build lays out anew. */
function mappingKey(path: string, plan: Plan): string {
  return `cache-machine ${plan.build} ${path}`;
}

/** Opens the file of a cache in and for the calling thread; undefined when there is none. */
function openFile(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const code = codeOf(error);
    if (code === "ENOENT") return undefined;
    const owner = ownerOf(path);
    // What cannot even be looked at is not the file's fault.
    if (owner === undefined) throw unusable(error, dirname(path));
    if (owner !== ourUid()) throw notOwner(path, owner);
    if (code === "ELOOP" || code === "EISDIR" || code === "ENXIO" || code === "ENODEV") {
      throw noCache(path, "a regular file is expected, not a link or a special one");
    }
    if (code === "EACCES") {
      throw new CacheError(
        "ERR_NOT_OWNER",
        `no permission to read and write ${path}: chmod it to 0600, or remove it with destroyCache(name)`,
      );
    }
    throw unusable(error, dirname(path));
  }
}

/** Undefined when there is no such file, or none that we may look at. */
function ownerOf(path: string): number | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false })?.uid;
  } catch {
    return undefined;
  }
}

/** Opens a directory, or with `O_TMPFILE` a new file in it, which vanishes with the descriptor unless it gets a name. */
function openDirectory(directory: string, flags: number, mode?: number): number {
  return ask(directory, () => openSync(directory, flags, mode));
}

/** Gives a new file the bits that a umask has taken; one for which we cannot do so would be lost to us. */
function giveMode(fd: number): void {
  const { mode } = fstatSync(fd);
  if ((mode & 0o777) === MODE) return;
  try {
    fchmodSync(fd, MODE);
  } catch (cause) {
    throw new CacheError(
      "ERR_UNSUPPORTED",
      `the umask of this process takes its own user's permissions (a new file has mode ${octal(mode)}), and Node.js ` +
        "does not let a program with --permission give them back: set another umask, such as 077",
      { cause },
    );
  }
}

/** The size of a file that is fit to be attached; undefined when it has no name any more. */
function checkFile(fd: number, path: string, options: FileOptions): number | undefined {
  const { size } = options;
  const stat = fstatSync(fd);
  if (stat.nlink === 0) return undefined;
  requirePrivate(stat, path);
  if (stat.size < PAGE || stat.size % PAGE !== 0) throw noCache(path, `it has ${stat.size} bytes`);
  const header = new Uint8Array(HEADER_BYTES);
  readSync(fd, header, 0, HEADER_BYTES, 0);
  options.plan.inspect(header, stat.size);
  if (size !== undefined && size !== stat.size) {
    throw new CacheError(
      "ERR_SIZE_MISMATCH",
      `the cache exists with ${readableSize(stat.size)}, asked for was ${readableSize(size)}: ask for the same, leave ` +
        "`size` out to take what is there, or remove it with destroyCache(name)",
    );
  }
  return stat.size;
}

/** A regular file that nobody but this user can open, and under no other name. */
function requirePrivate(stat: Stats, path: string): void {
  if (stat.uid !== ourUid()) throw notOwner(path, stat.uid);
  if (!stat.isFile()) throw noCache(path, "a regular file is expected");
  const excess = stat.mode & 0o077;
  const remedy = "or remove it with destroyCache(name)";
  if (excess !== 0) {
    const who = [excess & 0o070 ? "its group" : "", excess & 0o007 ? "everybody" : ""].filter(Boolean).join(" and ");
    const may = excess & 0o022 ? "write to" : "read";
    const error = `${who} may ${may} ${path} (mode ${octal(stat.mode)}): chmod it to 0600, ${remedy}`;
    throw new CacheError("ERR_NOT_OWNER", error);
  }
  if (stat.nlink > 1) {
    const error = `${path} has ${stat.nlink} names (hard links), and may have one: remove the others, ${remedy}`;
    throw new CacheError("ERR_NOT_OWNER", error);
  }
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

/** What an error of the file system at a place for caches means for whoever has chosen it. */
function unusable(cause: unknown, place: string): CacheError {
  const code = codeOf(cause);
  const path = place.length > 200 ? `${place.slice(0, 200)}…` : place;
  const unsupported = (what: string): CacheError =>
    new CacheError("ERR_UNSUPPORTED", `path: ${what}. Choose another directory with the option \`path\`.`, { cause });
  switch (code) {
    case "EMFILE":
    case "ENFILE":
      return new CacheError("ERR_NO_SPACE", `no file descriptor left (${code}): raise the limit (\`ulimit -n\`)`, {
        cause,
      });
    case "ENOSPC":
    case "EDQUOT":
      return new CacheError("ERR_NO_SPACE", `no room for another file in ${path} (${code})`, { cause });
    case "ENOMEM":
      return new CacheError("ERR_NO_SPACE", `the kernel has no memory for ${path} (${code})`, { cause });
    case "ENOENT":
      return unsupported(`${path} does not exist`);
    case "ENOTDIR":
      return unsupported(`${path} is not a directory`);
    case "ELOOP":
      return unsupported(`${path} is a link that leads nowhere, or there are too many of them`);
    case "ENAMETOOLONG":
      return unsupported(`${path} is too long (${place.length} characters)`);
    case "EACCES":
    case "EPERM":
      return unsupported(`this user may not read, write and search ${path} (${code})`);
    case "EROFS":
      return unsupported(`${path} is on a file system that is read-only`);
    case "ERR_ACCESS_DENIED":
      return unsupported(
        `Node.js runs with --permission and does not grant ${path}: it takes --allow-fs-read and --allow-fs-write`,
      );
    default:
      return unsupported(
        `no cache file can be had in ${path} (${code}): that takes a local file system with O_TMPFILE, such as tmpfs`,
      );
  }
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
    `${path} belongs to the user with id ${uid}, not to this one (${ourUid()}): run both as the same user, or choose a ` +
      "directory that is this user's alone with the option `path`, such as that in $XDG_RUNTIME_DIR",
  );
}

function octal(mode: number): string {
  return (mode & 0o7777).toString(8).padStart(4, "0");
}
