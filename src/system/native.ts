/**
 * The operating system's calls that Node.js does not offer, and nothing else: reserving blocks, mapping a file over a
 * `WebAssembly.Memory`, giving an unnamed file its name, locking single bytes of a file, and counting the users of a
 * mapping until their threads end.
 *
 * A small native part, native/cache_machine.c, makes these calls; binary.ts finds and loads it. It is loaded when the first
 * cache of process reach is opened and not before, so importing this module never fails. Nothing here knows of names of
 * caches, of what the bytes mean, or of participants.
 */

import { getSystemErrorName } from "node:util";
import { noAddressSpace, noSpace, unsupported } from "../errors.ts";
import { readableSize } from "../size.ts";
import { loadBinary } from "./binary.ts";

/** The answer of the native part to wrong arguments, with which it makes no call. */
const WRONG_ARGUMENT = -4096;

/**
 * Blocks are reserved in steps of this many bytes. tmpfs undoes a call that a signal cuts short. One call for all blocks
 * would start from zero at each tick of a profiler and never end. A step takes less time than such a tick.
 */
const RESERVE_STEP = 1 << 20;
/** How often the steps of one reservation may be cut short by signals before that is an error. */
const MAX_INTERRUPTIONS = 10_000;

/** The functions of the native part. Each answers 0 or more, a negated errno, or {@link WRONG_ARGUMENT}. */
interface Calls {
  reserve(fd: number, offset: number, length: number): number;
  map(fd: number, range: Uint8Array): number;
  unmap(range: Uint8Array): number;
  link(fd: number, path: string): number;
  lock(fd: number, byte: number): number;
  unlock(fd: number, byte: number): number;
  lockDirectory(fd: number): number;
  join(users: Int32Array, range: Uint8Array): number;
  leave(users: Int32Array): number;
}

const CALLS: readonly (keyof Calls)[] = [
  "reserve",
  "map",
  "unmap",
  "link",
  "lock",
  "unlock",
  "lockDirectory",
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
   * Makes the file exactly `size` bytes long (if it is not longer) with every block reserved, so that no later store
   * into its mapping can meet a full file system, which would be a SIGBUS.
   *
   * @param size in bytes
   * @throws {CacheError} `ERR_NO_SPACE` when the file system has no room; the file is then of any length up to `size`.
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
   * Maps the first `size` bytes of the file over `memory`, from its byte `base` on. What the memory held there is gone.
   * The engine unmaps the range when it frees the memory. After a failure the memory is whole, its content lost.
   *
   * @param base in bytes, a multiple of 64 KiB
   * @param size in bytes, a multiple of 64 KiB
   * @throws {CacheError} `ERR_NO_SPACE` when the process has no address space left.
   */
  map(fd: number, memory: WebAssembly.Memory, base: number, size: number): void {
    const error = errorOf(this.#calls.map(fd, rangeOf(memory, base, size)));
    if (error !== 0) throw mapError(error, size);
  }

  /**
   * Puts private zeros in place of a mapping that nobody has joined. For a memory that is not going to be used any more:
   * it would keep the blocks of its file in use until it is collected.
   */
  unmap(memory: WebAssembly.Memory, base: number, size: number): void {
    errorOf(this.#calls.unmap(rangeOf(memory, base, size)));
  }

  /**
   * Counts this thread as one more user of a mapping, in one step, until {@link Native.leave} or the end of the thread,
   * however it ends. The last user of all threads unmaps the file. Until then both memories are kept.
   *
   * @param users one `Int32`, the users in all threads; `-1` once the file was unmapped, for ever
   * @returns false when the file was unmapped
   */
  join(users: SharedArrayBuffer, memory: WebAssembly.Memory, base: number, size: number): boolean {
    const result = this.#calls.join(new Int32Array(users), rangeOf(memory, base, size));
    if (errorOf(result) !== 0) throw mapError(errorOf(result), size);
    return result === 1;
  }

  /** Takes one user of this thread from a mapping; the memory may be zeros from then on. */
  leave(users: SharedArrayBuffer): void {
    errorOf(this.#calls.leave(new Int32Array(users)));
  }

  /**
   * Gives a file opened with `O_TMPFILE` its name, in one step: before it nobody sees the file, and a process that dies
   * before it leaves nothing behind.
   *
   * @returns false when something of that name exists already
   * @throws {CacheError} `ERR_UNSUPPORTED` when the file system refuses or /proc is missing.
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
   * A byte that the same description holds already is taken once more without an effect.
   *
   * @returns false when another open file description holds it
   * @throws {CacheError} `ERR_UNSUPPORTED` when the file system or the kernel has no such locks.
   */
  tryLock(fd: number, byte: number): boolean {
    return this.#lock("lock", fd, byte);
  }

  /** Gives back a lock that {@link Native.tryLock} took. Nothing happens to a byte that is not held. */
  unlock(fd: number, byte: number): void {
    this.#lock("unlock", fd, byte);
  }

  /**
   * Takes the lock of a whole directory for the open file description of `fd`, until that closes.
   *
   * @returns false when another one holds it; true also where directories cannot be locked
   */
  tryLockDirectory(fd: number): boolean {
    return nameOf(errorOf(this.#calls.lockDirectory(fd))) !== "EAGAIN";
  }

  #lock(call: "lock" | "unlock", fd: number, byte: number): boolean {
    // The call does not wait, so local file systems never answer EINTR. Others may, and then a few more tries settle it.
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

/** The errno of a call's answer, 0 for none. */
function errorOf(result: number): number {
  if (result === WRONG_ARGUMENT) throw new TypeError("cache-machine: wrong argument for the native part");
  return result < 0 ? -result : 0;
}

function nameOf(error: number): string | undefined {
  return error > 0 ? getSystemErrorName(-error) : undefined;
}

/** An error for which there is no advice, in the shape of Node.js's own system errors. */
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
