/**
 * The operating system's calls that Node.js does not offer, and nothing else: reserving blocks, mapping a file over a
 * `WebAssembly.Memory`, giving an unnamed file its name, and locking single bytes of a file.
 *
 * They go through koffi, an optional dependency that needs no compiler and no install script. It is loaded when the
 * first cache of process reach is opened and not before, so importing this module never fails. Knows nothing of names,
 * layouts or participants.
 */

import { getSystemErrorName } from "node:util";
import { CacheError } from "./errors.ts";
import { readableSize } from "./size.ts";

// Linux on 64-bit little-endian machines; glibc and musl agree on all of these.
const PROT_READ_WRITE = 0x1 | 0x2;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
const AT_FDCWD = -100;
const AT_SYMLINK_FOLLOW = 0x400;
const F_OFD_SETLK = 37;
const F_WRLCK = 1;
const F_UNLCK = 2;
const LOCK_EX_NB = 2 | 4;

/**
 * Blocks are reserved in steps of this many bytes. tmpfs undoes a call that a signal cuts short, so one call for
 * everything would start from zero at each tick of a profiler and never end; a step takes less than such a tick.
 */
const RESERVE_STEP = 1 << 20;
/** How often the steps of one reservation may be cut short by signals before that is an error. */
const MAX_INTERRUPTIONS = 10_000;

/** A function of libc. Each call below answers a number; pointers are byte arrays or text. */
type Call = (...args: (number | string | ArrayBufferView | ArrayBuffer)[]) => number;

/** The calls, once per thread. */
export class Native {
  static #loaded: Native | undefined;

  /**
   * The calls of this thread.
   *
   * @throws {CacheError} `ERR_UNSUPPORTED` when koffi is not installed or this platform has no process reach.
   */
  static load(): Native {
    Native.#loaded ??= new Native();
    return Native.#loaded;
  }

  readonly #errno: () => number;
  readonly #mmap: Call;
  readonly #fcntl: Call;
  readonly #fallocate: Call;
  readonly #linkat: Call;
  readonly #flock: Call;

  private constructor() {
    const { platform, arch } = process;
    if (platform !== "linux" || (arch !== "x64" && arch !== "arm64")) {
      throw new CacheError(
        "ERR_UNSUPPORTED",
        `sharing a cache between processes works on Linux (x64, arm64), not on ${platform} ${arch}; ` +
          "createCache() shares one between the threads of a process on every platform",
      );
    }
    try {
      const koffi = loadKoffi();
      // The symbols of the running process: whichever libc Node.js itself was linked with.
      const libc = koffi.load(null);
      this.#errno = koffi.errno;
      this.#mmap = libc.func("intptr_t mmap(void *addr, size_t length, int prot, int flags, int fd, int64_t offset)");
      this.#fcntl = libc.func("int fcntl(int fd, int command, ...)");
      this.#fallocate = libc.func("int posix_fallocate(int fd, int64_t offset, int64_t length)");
      this.#linkat = libc.func("int linkat(int fromDir, const char *from, int toDir, const char *to, int flags)");
      this.#flock = libc.func("int flock(int fd, int operation)");
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      if (code === "EMFILE" || code === "ENFILE") {
        throw new CacheError("ERR_NO_SPACE", `no file descriptor left (${code}): raise the limit (\`ulimit -n\`)`, {
          cause,
        });
      }
      throw new CacheError(
        "ERR_UNSUPPORTED",
        "sharing a cache between processes needs the optional package koffi, which could not be loaded: " +
          "run `npm install koffi`, or use createCache() to share one between the threads of this process",
        { cause },
      );
    }
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
      // Answers the error itself instead of setting errno.
      const error: number = this.#fallocate(fd, offset, length);
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
    const range = new Uint8Array(memory.buffer, base, size);
    if (this.#mmap(range, size, PROT_READ_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) !== -1) return;
    const error = this.#errno();
    // A kernel short of memory may have let go of the range before it failed. Left open, the hole could be given to an
    // allocation of someone else, which would be unmapped together with this memory later.
    this.unmap(memory, base, size);
    throw mapError(error, size);
  }

  /**
   * Puts private zeros in place of a mapping, for a memory that is not going to be used any more: it would keep the
   * blocks of its file in use until it is collected.
   */
  unmap(memory: WebAssembly.Memory, base: number, size: number): void {
    const range = new Uint8Array(memory.buffer, base, size);
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    this.#mmap(range, size, PROT_READ_WRITE, flags, -1, 0);
  }

  /**
   * Gives a file opened with `O_TMPFILE` its name, in one step: before it nobody sees the file, and a process that dies
   * before it leaves nothing behind.
   *
   * @returns false when something of that name exists already
   * @throws {CacheError} `ERR_UNSUPPORTED` when the file system refuses or /proc is missing.
   */
  link(fd: number, path: string): boolean {
    if (this.#linkat(AT_FDCWD, `/proc/self/fd/${fd}`, AT_FDCWD, path, AT_SYMLINK_FOLLOW) === 0) return true;
    const code = nameOf(this.#errno());
    if (code === "EEXIST") return false;
    if (code === "ENOSPC" || code === "EDQUOT") {
      throw new CacheError("ERR_NO_SPACE", `no room for the directory entry ${path} (${code})`);
    }
    throw new CacheError(
      "ERR_UNSUPPORTED",
      `${path} could not be created (linkat: ${code}); this needs /proc and a local file system such as tmpfs: ` +
        "choose another directory with the option `path`",
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
    return this.#lock(fd, byte, F_WRLCK);
  }

  /** Gives back what {@link Native.tryLock} took; nothing happens to a byte that is not held. */
  unlock(fd: number, byte: number): void {
    this.#lock(fd, byte, F_UNLCK);
  }

  /**
   * Takes the lock of a whole directory for the open file description of `fd`, until that closes.
   *
   * @returns false when another one holds it; true also where directories cannot be locked
   */
  tryLockDirectory(fd: number): boolean {
    return this.#flock(fd, LOCK_EX_NB) === 0 || nameOf(this.#errno()) !== "EAGAIN";
  }

  #lock(fd: number, byte: number, type: number): boolean {
    // struct flock (64-bit): l_type i16 | l_whence i16 | (4) | l_start i64 | l_len i64 | l_pid i32 | (4).
    // An owner of SEEK_SET and a pid of 0, which these locks demand, are what a zeroed buffer says.
    const flock = new ArrayBuffer(32);
    const view = new DataView(flock);
    view.setInt16(0, type, true);
    view.setBigInt64(8, BigInt(byte), true);
    view.setBigInt64(16, 1n, true);
    // Not a waiting call, so local file systems never answer EINTR; others may, and then a few more tries settle it.
    for (let tries = 0; ; tries++) {
      if (this.#fcntl(fd, F_OFD_SETLK, "void *", flock) === 0) return true;
      const error = this.#errno();
      const code = nameOf(error);
      if (code === "EAGAIN" || code === "EACCES") return false;
      if (code !== "EINTR" || tries === 100) throw lockError(error);
    }
  }
}

function nameOf(error: number): string {
  return error > 0 ? getSystemErrorName(-error) : "no error";
}

/** An error that no caller can do something about in particular, in the shape of Node.js's own system errors. */
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
      return new CacheError(
        "ERR_NO_SPACE",
        `the file system has no room for a cache of ${readableSize(size)} (${code}): choose a smaller \`size\`, give ` +
          "a container more with `docker run --shm-size` (64 MB by default), or choose another place with `path`",
      );
    case "EOPNOTSUPP":
    case "EINVAL":
    case "ENODEV":
      return new CacheError(
        "ERR_UNSUPPORTED",
        `the file system cannot reserve blocks (posix_fallocate: ${code}): choose a local one such as tmpfs with \`path\``,
      );
    default:
      return systemError("posix_fallocate", error);
  }
}

function mapError(error: number, size: number): Error {
  const code = nameOf(error);
  switch (code) {
    case "ENOMEM":
    case "EAGAIN":
      return new CacheError(
        "ERR_NO_SPACE",
        `no address space to map a cache of ${readableSize(size)} (${code}): ` +
          "raise the limits of this process (`ulimit -v`, vm.max_map_count) or choose a smaller `size`",
      );
    case "ENODEV":
    case "EACCES":
    case "EPERM":
    case "EINVAL":
      return new CacheError(
        "ERR_UNSUPPORTED",
        `the file cannot be mapped for sharing (mmap: ${code}): choose a local file system such as tmpfs with \`path\``,
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
    case "EOPNOTSUPP":
      return new CacheError(
        "ERR_UNSUPPORTED",
        `the file system or the kernel has no open file description locks (fcntl: ${code}), ` +
          "which tell the living from the dead: choose a local file system such as tmpfs with `path`",
      );
    default:
      return systemError("fcntl", error);
  }
}

/**
 * From next to this file or, where it has become part of a bundle, next to that. Bundlers do not see it: koffi is native
 * and optional, and stays outside.
 */
function loadKoffi(): typeof import("koffi") {
  const { createRequire } = process.getBuiltinModule("node:module");
  // A bundle of CommonJS has no `import.meta.url`, or the one of the machine on which it was made.
  const places = [import.meta.url, typeof __filename === "string" ? __filename : undefined, process.argv[1]];
  let failure: unknown;
  for (const place of places) {
    if (place === undefined) continue;
    try {
      return createRequire(place)("koffi");
    } catch (error) {
      failure ??= error;
      if ((error as NodeJS.ErrnoException).code !== "MODULE_NOT_FOUND") break;
    }
  }
  throw failure;
}
