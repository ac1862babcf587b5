/**
 * The operating system's calls that Node.js does not offer, and nothing else: reserving blocks, mapping a file over a
 * `WebAssembly.Memory`, giving an unnamed file its name, locking single bytes of a file, and counting the users of a
 * mapping until their threads end.
 *
 * A small native part, native/cache_machine.c, makes these calls. binary.ts finds and loads it when the first cache of process
 * reach is opened and not before, so importing this module never fails. This file knows nothing about names of caches, the
 * meaning of the bytes, or participants.
 */

import { getSystemErrorName } from "node:util";
import { noAddressSpace, noSpace, unsupported } from "../errors.ts";
import { readableSize } from "../size.ts";
import { loadBinary } from "./binary.ts";

/** The native part returns this for wrong arguments. Then it has made no system call. */
const WRONG_ARGUMENT = -4096;

/**
 * Blocks are reserved in steps of this many bytes. When a signal interrupts a call, tmpfs undoes the whole call. With the
 * signals of a profiler one call for all blocks would begin again each time and never end. A step takes less time than there is
 * between two such signals.
 */
const RESERVE_STEP = 1 << 20;
/** How many times signals may interrupt the steps of one reservation before that is an error. */
const MAX_INTERRUPTIONS = 10_000;

/** The functions of the native part. Each returns 0 or more, a negated errno, or {@link WRONG_ARGUMENT}. */
interface Calls {
  reserve(fd: number, offset: number, length: number): number;
  map(fd: number, range: Uint8Array): number;
  mapPrivate(fd: number, range: Uint8Array): number;
  unmap(range: Uint8Array): number;
  link(fd: number, path: string): number;
  lock(fd: number, byte: number): number;
  unlock(fd: number, byte: number): number;
  isLocked(fd: number, byte: number): number;
  lockDirectory(fd: number): number;
  makeFifo(path: string): number;
  openFifo(path: string): number;
  passFifo(fd: number): number;
  join(users: Int32Array, range: Uint8Array): number;
  leave(users: Int32Array): number;
}

const CALLS: readonly (keyof Calls)[] = [
  "reserve",
  "map",
  "mapPrivate",
  "unmap",
  "link",
  "lock",
  "unlock",
  "isLocked",
  "lockDirectory",
  "makeFifo",
  "openFifo",
  "passFifo",
  "join",
  "leave",
];

/** The calls, once per thread. */
export class Native {
  static #loaded: Native | undefined;

  /**
   * The calls of this thread.
   *
   * @throws {CacheError} `ERR_UNSUPPORTED` when this platform has no process reach, or the native part is missing or must
   * not be loaded; `ERR_NO_SPACE` without a descriptor or address space to load it.
   */
  static load(): Native {
    Native.#loaded ??= new Native(loadBinary<Calls>(CALLS));
    return Native.#loaded;
  }

  readonly #calls: Calls;

  private constructor(calls: Calls) {
    this.#calls = calls;
  }

  /**
   * Makes the file at least `size` bytes long and reserves all of these blocks. Otherwise a later store into its mapping could
   * find the file system full, and the process would get a SIGBUS.
   *
   * @param size in bytes
   * @throws {CacheError} `ERR_NO_SPACE` when the file system has no room, `ERR_UNSUPPORTED` when it cannot reserve blocks. Some
   * of the blocks may be reserved then.
   */
  reserve(fd: number, size: number): void {
    let interruptions = 0;
    for (let offset = 0; offset < size; ) {
      const length = Math.min(RESERVE_STEP, size - offset);
      const error = errorOf(this.#calls.reserve(fd, offset, length));
      if (error === 0) offset += length;
      else if (nameOf(error) !== "EINTR" || ++interruptions > MAX_INTERRUPTIONS) throw reserveError(error, size);
    }
  }

  /**
   * Maps the first `size` bytes of the file over `memory`, from its byte `base` on. The old content of that part is lost, also
   * after an error; then the part is zeros. V8 unmaps the file when it frees the memory.
   *
   * @param base in bytes, a multiple of 64 KiB
   * @param size in bytes, a multiple of 64 KiB
   * @throws {CacheError} `ERR_NO_SPACE` when the process has no address space left, `ERR_UNSUPPORTED` when the file cannot be
   * mapped.
   */
  map(fd: number, memory: WebAssembly.Memory, base: number, size: number): void {
    const error = errorOf(this.#calls.map(fd, rangeOf(memory, base, size)));
    if (error !== 0) throw mapError(error, size);
  }

  /**
   * As {@link Native.map}, for a descriptor that was opened for reading only. The memory shows the file as it is at each moment, as
   * long as nothing is written to it. A store makes a private copy of its page, which never reaches the file and does not follow it
   * any more.
   */
  mapPrivate(fd: number, memory: WebAssembly.Memory, base: number, size: number): void {
    const error = errorOf(this.#calls.mapPrivate(fd, rangeOf(memory, base, size)));
    if (error !== 0) throw mapError(error, size);
  }

  /**
   * Puts private zeros in place of a mapping that no thread has joined. For a memory that is not used any more: otherwise it
   * would keep the blocks of its file in use until it is collected.
   */
  unmap(memory: WebAssembly.Memory, base: number, size: number): void {
    errorOf(this.#calls.unmap(rangeOf(memory, base, size)));
  }

  /**
   * Adds one user of this thread to a mapping, in one step, until {@link Native.leave} or the end of the thread, however it
   * ends. The last user of all threads unmaps the file. Until then neither `users` nor `memory` is collected.
   *
   * @param users one `Int32`: the users in all threads, or -1 for ever once the file was unmapped
   * @returns false when the file was unmapped already, and no user was added
   */
  join(users: SharedArrayBuffer, memory: WebAssembly.Memory, base: number, size: number): boolean {
    const result = this.#calls.join(new Int32Array(users), rangeOf(memory, base, size));
    if (errorOf(result) !== 0) throw mapError(errorOf(result), size);
    return result === 1;
  }

  /** Removes one user of this thread from a mapping. The memory may be zeros from then on. */
  leave(users: SharedArrayBuffer): void {
    errorOf(this.#calls.leave(new Int32Array(users)));
  }

  /**
   * Gives a file that was opened with `O_TMPFILE` its name, in one step. Before this step no other process sees the file, and a
   * process that dies leaves nothing behind.
   *
   * @returns false when something with that name exists already
   * @throws {CacheError} `ERR_UNSUPPORTED` when the file system refuses or /proc is missing, `ERR_NO_SPACE` when there is
   * no room for the name.
   */
  link(fd: number, path: string): boolean {
    const code = nameOf(errorOf(this.#calls.link(fd, path)));
    if (code === undefined) return true;
    if (code === "EEXIST") return false;
    if (code === "ENOSPC" || code === "EDQUOT") {
      throw noSpace(`path: there is no room for the directory entry ${path} (${code}). Remove some files.`);
    }
    throw unsupported(
      `path: ${path} could not be created (linkat: ${code}), which needs /proc and a local file system such as tmpfs. ` +
        "Choose another directory with the option `path`.",
    );
  }

  /**
   * Takes the lock of one byte, which may lie past the end of the file, for the open file description of `fd`.
   * The kernel gives it back when the last descriptor of that description closes, however its owner ends.
   * When the same description holds the lock already, nothing happens and the result is true.
   *
   * @returns false when another open file description holds it
   * @throws {CacheError} `ERR_UNSUPPORTED` when the file system or the kernel has no such locks.
   */
  tryLock(fd: number, byte: number): boolean {
    return this.#lock("lock", fd, byte);
  }

  /** Gives back a lock that {@link Native.tryLock} took. Nothing happens if the byte is not locked. */
  unlock(fd: number, byte: number): void {
    this.#lock("unlock", fd, byte);
  }

  /**
   * Whether another open file description holds the lock of a byte. Takes no lock; `fd` may be open for reading only.
   *
   * @throws {CacheError} `ERR_UNSUPPORTED` when the file system or the kernel has no such locks.
   */
  isLocked(fd: number, byte: number): boolean {
    const result = this.#calls.isLocked(fd, byte);
    if (errorOf(result) !== 0) throw lockError(errorOf(result));
    return result === 1;
  }

  /**
   * Takes the lock of a whole directory for the open file description of `fd`, until that is closed.
   *
   * @returns false when another open file description holds it; true also where directories cannot be locked
   */
  tryLockDirectory(fd: number): boolean {
    return nameOf(errorOf(this.#calls.lockDirectory(fd))) !== "EAGAIN";
  }

  /**
   * Makes a FIFO that only this user may open, whatever the umask is.
   *
   * @throws the error of the system with its `code`, such as `EEXIST`, or `EPERM` where the file system has no FIFOs.
   */
  makeFifo(path: string): void {
    const error = errorOf(this.#calls.makeFifo(path));
    if (error !== 0) throw systemError("mknodat", error);
  }

  /**
   * Opens a FIFO for reading and writing, without following a link, and passes its descriptor on.
   *
   * `node:fs` must not open it: a worker that ends closes all descriptors of `node:fs` by their number. A descriptor that a
   * `net.Socket` has taken would be closed twice, and the second time it may be another thread's.
   *
   * @param take gives the descriptor to libuv, which closes it from then on
   * @throws the error of the system with its `code`. An error of `take` is passed on; then the descriptor may stay open until
   * this thread ends.
   */
  openFifo<T>(path: string, take: (fd: number) => T): T {
    const fd = this.#calls.openFifo(path);
    const error = errorOf(fd);
    if (error !== 0) throw systemError("openat", error);
    const taken = take(fd);
    this.#calls.passFifo(fd);
    return taken;
  }

  #lock(call: "lock" | "unlock", fd: number, byte: number): boolean {
    // The call does not wait, so local file systems never return EINTR. Other file systems may, but not many times in a row.
    for (let tries = 0; ; tries++) {
      const error = errorOf(this.#calls[call](fd, byte));
      if (error === 0) return true;
      const code = nameOf(error);
      if (code === "EAGAIN" || code === "EACCES") return false;
      if (code !== "EINTR" || tries === 100) throw lockError(error);
    }
  }
}

function rangeOf(memory: WebAssembly.Memory, base: number, size: number): Uint8Array {
  return new Uint8Array(memory.buffer, base, size);
}

/** The errno in the result of a call, or 0 for success. */
function errorOf(result: number): number {
  if (result === WRONG_ARGUMENT) throw new TypeError("cache-machine: wrong argument for the native part");
  return result < 0 ? -result : 0;
}

function nameOf(error: number): string | undefined {
  return error > 0 ? getSystemErrorName(-error) : undefined;
}

/** Makes an error for which there is no advice, like the system errors of Node.js. */
function systemError(syscall: string, errno: number): Error {
  const code = nameOf(errno);
  return Object.assign(new Error(`${code}: ${syscall} failed`), { code, errno: -errno, syscall });
}

function reserveError(error: number, size: number): Error {
  const code = nameOf(error);
  switch (code) {
    case "ENOSPC":
    case "EDQUOT":
    case "EFBIG":
    case "ENOMEM":
      return noSpace(
        `size: the file system has no room for a cache of ${readableSize(size)} (${code}). Choose a smaller \`size\`, give ` +
          "a container more with `docker run --shm-size` (64 MB by default), or choose another place with `path`.",
      );
    case "ENOTSUP":
    case "EINVAL":
    case "ENODEV":
      return unsupported(
        `path: the file system cannot reserve blocks (fallocate: ${code}). Choose a local one such as tmpfs with \`path\`.`,
      );
    default:
      return systemError("fallocate", error);
  }
}

function mapError(error: number, size: number): Error {
  const code = nameOf(error);
  switch (code) {
    case "ENOMEM":
    case "EAGAIN":
      return noAddressSpace(systemError("mmap", error), `a cache of ${readableSize(size)} (mmap: ${code})`);
    case "ENODEV":
    case "EACCES":
    case "EPERM":
    case "EINVAL":
      return unsupported(
        `path: the file cannot be mapped for sharing (mmap: ${code}). Choose a local file system such as tmpfs with \`path\`.`,
      );
    default:
      return systemError("mmap", error);
  }
}

function lockError(error: number): Error {
  const code = nameOf(error);
  switch (code) {
    case "EINVAL":
    case "ENOLCK":
    case "ENOSYS":
    case "ENOTSUP":
      return unsupported(
        `path: the file system or the kernel has no open file description locks (fcntl: ${code}), which tell the living ` +
          "from the dead. Choose a local file system such as tmpfs with `path`.",
      );
    default:
      return systemError("fcntl", error);
  }
}
