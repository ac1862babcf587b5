/**
 * One mapping per process and file. Each costs 8 GiB and more of address space, so a thread that has mapped a file offers
 * that to itself and to the workers it starts from then on, as environment data, in which a `WebAssembly.Memory` travels
 * by sharing. A thread that finds none makes its own, which is as right and only costs more. Node.js only.
 *
 * The users of a mapping are counted, because the engine collects a memory that nobody needs late or never, and until
 * then the blocks of its file are taken, even those of a destroyed cache. The last one to leave unmaps the file. The native
 * part counts, and leaves for threads that end without a word.
 */

import { getEnvironmentData, setEnvironmentData } from "node:worker_threads";
import { Native } from "../system/native.ts";
import type { Mapping } from "./memory.ts";

/** A mapping and the file that it shows. */
export interface FileMapping extends Mapping {
  /** Device and inode. Until the file is unmapped the inode is in use, so this names no other file. */
  readonly id: string;
  /** One `Int32`: how many regions use the mapping, in all threads; `-1` once the file was unmapped, for ever. */
  readonly users: SharedArrayBuffer;
}

/** How many regions of this thread use each mapping that this thread has offered. */
const ownUsers = new WeakMap<FileMapping, number>();

/** A mapping with one user, the caller. */
export function newMapping(mapping: Omit<FileMapping, "users">): FileMapping {
  const joined = { ...mapping, users: new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT) };
  joinMapping(joined);
  return joined;
}

/** Adds a user; false when the file was unmapped. */
export function joinMapping(mapping: FileMapping): boolean {
  const { users, memory, base, size } = mapping;
  if (!Native.load().join(users, memory, base, size)) return false;
  const own = ownUsers.get(mapping);
  if (own !== undefined) ownUsers.set(mapping, own + 1);
  return true;
}

/** Removes a user, and the offer with the last one of the thread that made it; the very last one unmaps the file. */
export function leaveMapping(mapping: FileMapping, key: string): void {
  const own = ownUsers.get(mapping);
  if (own !== undefined) {
    ownUsers.set(mapping, own - 1);
    if (own === 1 && getEnvironmentData(key) === mapping) setEnvironmentData(key, undefined);
  }
  Native.load().leave(mapping.users);
}

/** Joins what this thread offered under `key`, or one of its ancestors before this thread started, if it shows that file. */
export function findMapping(key: string, id: string): FileMapping | undefined {
  const mapping = getEnvironmentData(key) as FileMapping | undefined;
  // Another id: the file was destroyed and created again since.
  return mapping?.id === id && joinMapping(mapping) ? mapping : undefined;
}

/** Offers a new mapping, in place of any older one, until the last user in this thread leaves. */
export function offerMapping(key: string, mapping: FileMapping): void {
  ownUsers.set(mapping, 1);
  setEnvironmentData(key, mapping as never);
}
