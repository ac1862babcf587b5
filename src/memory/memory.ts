/**
 * The memory of a cache: a shared `WebAssembly.Memory` whose part from `base` on is the region that the participants
 * share, while what lies below is private to the process (module data, stacks, scratch).
 *
 * Here is what both reaches have in common and the whole of the thread reach; files are the business of `file.ts`.
 * Usable in a browser. Knows nothing of what the bytes mean.
 */

import { CacheError } from "../errors.ts";
import { Board, type Membership } from "../liveness/liveness.ts";
import { MAX_MEMORY, PAGE, readableSize } from "../size.ts";
import type { FileMapping } from "./mappings.ts";

/** A memory and the place of the shared region in it. */
export interface Mapping {
  readonly memory: WebAssembly.Memory;
  /** Where the region begins, in bytes. */
  readonly base: number;
  /** Length of the region in bytes. */
  readonly size: number;
}

/** What the owner of the bytes has to say about a region; the engine does. */
export interface Plan {
  /** Version of the bytes in the region, part of a file's name: caches of another version are other files. */
  readonly version: number;
  /** Identity of the engine: threads share a memory only with the same one, because they share its private part. */
  readonly build: string;
  /** The place of a region of `size` bytes in a memory, and its number of slots; always the same for one build. */
  of(size: number): { base: number; slots: number };
  /** Makes an empty cache of a zeroed region that nobody else sees yet. */
  format(memory: WebAssembly.Memory, base: number, size: number): void;
  /**
   * Looks at the first 64 bytes of a region of `size` bytes.
   *
   * @throws {CacheError} `ERR_LAYOUT` when they are not the start of a cache of this version and size.
   */
  inspect(header: Uint8Array, size: number): void;
}

/** What a worker needs to join a {@link createThreadRegion} region; passes through structured clone. */
export interface ThreadHandle extends Mapping {
  readonly reach: "threads";
  /** Names the memory, whose objects differ between the handles that structured clone makes of one. */
  readonly id: string;
  /** The tokens of the participants. */
  readonly board: SharedArrayBuffer;
}

/** What a worker needs to join the mapping of a file; passes through structured clone. */
export interface FileHandle extends FileMapping {
  readonly reach: "processes";
  /** Absolute path of the file. */
  readonly path: string;
  readonly slots: number;
  /** Under which the mapping is offered to the threads of this process. */
  readonly key: string;
}

/** The shared region as one participant has it open. Belongs to the thread that opened it. */
export interface Region extends Mapping {
  readonly reach: "threads" | "processes";
  /** Who else is there. */
  readonly membership: Membership;
  readonly handle: ThreadHandle | FileHandle;
  /**
   * Leaves: gives back the slots and everything that was opened for this participant. Its memory must not be used after
   * that: it may be zeros of its own by then. May be called twice.
   */
  close(): void;
}

/**
 * A zeroed region for the threads of this process.
 *
 * @param options.base bytes before the region, a multiple of 64 KiB
 * @param options.size bytes of the region, a multiple of 64 KiB
 * @param options.slots how many threads can have it open at once
 * @throws {RangeError} when base and size exceed 4 GiB together.
 * @throws {CacheError} `ERR_NO_SPACE` when the memory cannot be had.
 */
export function createThreadRegion(options: { base: number; size: number; slots: number }): Region {
  const { base, size, slots } = options;
  const memory = allocateMemory(base, size);
  return attachThreadRegion({
    reach: "threads",
    id: newId(),
    memory,
    base,
    size,
    board: new SharedArrayBuffer(Board.bytes(slots)),
  });
}

let created = 0;

/** Names a memory; the random part is for threads of browsers and for copies of this module, whose counts are the same. */
function newId(): string {
  const thread = globalThis.process?.getBuiltinModule?.("node:worker_threads").threadId ?? 0;
  return [thread, ++created, ...crypto.getRandomValues(new Uint32Array(4))].join("-");
}

/** The region of another thread of this process. */
export function attachThreadRegion(handle: ThreadHandle): Region {
  const { memory, base, size } = handle;
  const membership = new Board(handle.board);
  return { reach: "threads", memory, base, size, membership, handle, close: () => membership.close() };
}

/**
 * A shared memory that never grows, with `base` private bytes and a region of `size` bytes, all zero.
 *
 * @throws {RangeError} when they exceed 4 GiB together.
 * @throws {CacheError} `ERR_NO_SPACE` when the engine cannot get the memory or the address space for it.
 */
export function allocateMemory(base: number, size: number): WebAssembly.Memory {
  if (base + size > MAX_MEMORY) {
    throw new RangeError(
      `size: ${readableSize(size)} is too much, a cache can have up to ${readableSize(MAX_MEMORY - base)}`,
    );
  }
  const pages = (base + size) / PAGE;
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw noAddressSpace(cause, size);
  }
}

/** What V8's refusals of memory mean: that of a memory, and those of code. */
export function noAddressSpace(cause: unknown, size?: number): CacheError {
  const what = size === undefined ? "the engine's code" : `a cache of ${readableSize(size)}`;
  return new CacheError(
    "ERR_NO_SPACE",
    `no address space for ${what}: whatever its size, each open cache needs up to 10 GiB of address space (not of ` +
      "RAM), and Node.js one more, so raise the limit of this process (`ulimit -v`), or close other caches",
    { cause },
  );
}
