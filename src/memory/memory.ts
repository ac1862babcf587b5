/**
 * The memory of a cache: a shared `WebAssembly.Memory`. Its part from `base` on is the region that the participants share.
 * The part below is private to the process (module data, stacks, scratch areas).
 *
 * This file has the types of both reaches, and makes the memories of the thread reach. The process reach is in file.ts. This
 * file does not need Node.js, and it does not know what the bytes mean: a {@link Plan} does.
 */

import type { Bell } from "../bells/bell.ts";
import { NotifyBell } from "../bells/notify.ts";
import { noAddressSpace } from "../errors.ts";
import { Board } from "../liveness/board.ts";
import type { Membership } from "../liveness/membership.ts";
import { MAX_MEMORY, PAGE, readableSize } from "../size.ts";

/** A memory and the place of the shared region in it. */
export interface Mapping {
  readonly memory: WebAssembly.Memory;
  /** Where the region begins, in bytes. */
  readonly base: number;
  /** Length of the region in bytes. */
  readonly size: number;
}

/** A mapping of a file, which mappings.ts shares between the threads of a process. */
export interface FileMapping extends Mapping {
  /** Device and inode of the file. Until the file is unmapped its inode is in use, so this names no other file. */
  readonly id: string;
  /** One `Int32`: how many regions use the mapping, in all threads; `-1` for ever once the file was unmapped. */
  readonly users: SharedArrayBuffer;
}

/** What is known of a region before there is one. The engine provides the plan, and files and memories are made by it. */
export interface Plan {
  /** Version of the bytes in the region. It is part of a file's name: caches of another version are other files. */
  readonly version: number;
  /** Identity of the engine: threads share a memory only with the same one, because they share its private part. */
  readonly build: string;
  /** The place of a region of `size` bytes in a memory, and its number of seats; always the same for one build. */
  of(size: number): { base: number; seats: number };
  /** Bytes at the start of a region that {@link inspect} checks. */
  readonly headerBytes: number;
  /** Turns a zeroed region, which no other participant sees yet, into an empty cache. */
  format(memory: WebAssembly.Memory, base: number, size: number): void;
  /**
   * Checks the first {@link headerBytes} of a region of `size` bytes. The error names the region by `subject`.
   *
   * @throws {CacheError} `ERR_LAYOUT` when they are not the start of a cache of this version and size.
   */
  inspect(header: Uint8Array, size: number, subject: string): void;
}

/** The data with which a worker joins a region of {@link createThreadRegion}. It passes through structured clone. */
export interface ThreadHandle extends Mapping {
  readonly reach: "threads";
  /** Names the memory. Structured clone makes another object of the same memory in each thread. */
  readonly id: string;
  /** The tokens of the participants. */
  readonly board: SharedArrayBuffer;
}

/** The data with which a worker joins the mapping of a file. It passes through structured clone. */
export interface FileHandle extends FileMapping {
  readonly reach: "processes";
  /** Absolute path of the file. */
  readonly path: string;
  readonly seats: number;
  /** The name of the environment data by which the threads of this process find the mapping. */
  readonly key: string;
}

/** The shared region as one participant has it open. Belongs to the thread that opened it. */
export interface Region extends Mapping {
  readonly reach: "threads" | "processes";
  /** The seats, and who owns them. */
  readonly membership: Membership;
  /** Wakes threads that wait for a change. It is not closed with the region: its user closes it before. */
  readonly bell: Bell;
  readonly handle: ThreadHandle | FileHandle;
  /** Whether its file was removed or replaced, so that nobody new can join it. `false` where there is no file. Never throws. */
  readonly destroyed: boolean;
  /**
   * Leaves the region: gives back the seats and everything that was opened for this participant. The memory must not be used
   * after that, because the file may be unmapped and the memory zeros. May be called twice.
   */
  close(): void;
}

/**
 * Creates a zeroed region for the threads of this process.
 *
 * @param options.base bytes before the region, a multiple of 64 KiB
 * @param options.size bytes of the region, a multiple of 64 KiB
 * @param options.seats how many threads can have it open at once
 * @throws {RangeError} when base and size exceed 4 GiB together.
 * @throws {CacheError} `ERR_NO_SPACE` when there is not enough memory or address space.
 */
export function createThreadRegion(options: { base: number; size: number; seats: number }): Region {
  const { base, size, seats } = options;
  const memory = allocateMemory(base, size);
  return attachThreadRegion({
    reach: "threads",
    id: newId(),
    memory,
    base,
    size,
    board: new SharedArrayBuffer(Board.bytes(seats)),
  });
}

/** How many memories this copy of the module has created in this thread. */
let created = 0;

/**
 * Makes a name for a memory. It has a random part, because threads of a browser have no number, and copies of this module count
 * the same numbers.
 */
function newId(): string {
  const thread = globalThis.process?.getBuiltinModule?.("node:worker_threads").threadId ?? 0;
  return [thread, ++created, ...crypto.getRandomValues(new Uint32Array(4))].join("-");
}

/** Joins the region of another thread of this process. */
export function attachThreadRegion(handle: ThreadHandle): Region {
  const { memory, base, size } = handle;
  const membership = new Board(handle.board);
  const bell = new NotifyBell(memory);
  return {
    reach: "threads",
    memory,
    base,
    size,
    membership,
    bell,
    handle,
    destroyed: false,
    close: () => membership.close(),
  };
}

/**
 * Allocates a shared memory that never grows, with `base` private bytes and a region of `size` bytes, all zero.
 *
 * @throws {RangeError} when they exceed 4 GiB together.
 * @throws {CacheError} `ERR_NO_SPACE` when V8 cannot get the memory or the address space for it.
 */
export function allocateMemory(base: number, size: number): WebAssembly.Memory {
  if (base + size > MAX_MEMORY) {
    throw new RangeError(`size: ${readableSize(size)} is too much. Choose at most ${readableSize(MAX_MEMORY - base)}.`);
  }
  const pages = (base + size) / PAGE;
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw noAddressSpace(cause, `a cache of ${readableSize(size)}`);
  }
}
