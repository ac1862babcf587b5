/**
 * One mapping per process and file, where possible. Each mapping costs 8 GiB and more of address space. So a thread that has
 * mapped a file offers the mapping to itself and to the workers that it starts from then on. The offer is environment data,
 * which shares a `WebAssembly.Memory` between threads. A thread that finds no offer makes a mapping of its own: that is just as
 * correct, and only costs more. Node.js only.
 *
 * The users of a mapping are counted, and the last user that leaves unmaps the file. V8 alone would collect an unused memory
 * late or never. Until then the blocks of its file would stay in use, even those of a destroyed cache. The native part counts,
 * and removes the users of a thread that ends without leaving.
 */

import { getEnvironmentData, setEnvironmentData } from "node:worker_threads";
import { Native } from "../system/native.ts";
import type { FileMapping } from "./memory.ts";

/** How many regions of this thread use each mapping that this thread has offered. */
const ownUsers = new WeakMap<FileMapping, number>();

/** Starts the count of a mapping's users, with the caller as the first one. */
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

/**
 * Removes a user. The offer ends with the last user in the thread that made it. The file is unmapped with the last user of
 * all threads.
 */
export function leaveMapping(mapping: FileMapping, key: string): void {
  const own = ownUsers.get(mapping);
  if (own !== undefined) {
    ownUsers.set(mapping, own - 1);
    if (own === 1 && getEnvironmentData(key) === mapping) setEnvironmentData(key, undefined);
  }
  Native.load().leave(mapping.users);
}

/**
 * Joins the mapping that is offered under `key`, by this thread or by one of its ancestors before this thread started.
 *
 * @returns `undefined` when there is no offer, or when it shows another file than `id`
 */
export function findMapping(key: string, id: string): FileMapping | undefined {
  const mapping = getEnvironmentData(key) as FileMapping | undefined;
  // With another id: the file was destroyed and created again since the offer.
  return mapping?.id === id && joinMapping(mapping) ? mapping : undefined;
}

/** Offers a new mapping, in place of any older one, until the last user in this thread leaves. */
export function offerMapping(key: string, mapping: FileMapping): void {
  ownUsers.set(mapping, 1);
  setEnvironmentData(key, mapping as never);
}
