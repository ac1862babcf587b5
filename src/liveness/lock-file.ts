/**
 * Membership in process reach: seat *i* has a living owner while somebody holds the lock of byte *i* of the cache file.
 *
 * The lock belongs to an open file description (OFD lock). The kernel frees it when the last descriptor of that description
 * closes, however its process ends. So it is a proof across containers, and when process ids are used again. When a worker
 * ends, Node.js closes the descriptors that the worker opened, after its last instruction. So the lock also proves the
 * death of a thread, if the thread that participates has opened the descriptor with `node:fs`, for this participant alone.
 *
 * Two kinds of dead workers count as alive until their process ends: one started with
 * `new Worker(file, { trackUnmanagedFds: false })`, whose descriptors Node.js leaves open, and one whose descriptor was
 * inherited by a process that native code forked.
 */

import type { Native } from "../system/native.ts";
import { Membership } from "./membership.ts";

/** The seats of a cache file as seen by one participant. */
export class LockFile extends Membership {
  readonly seats: number;
  readonly #native: Native;
  readonly #fd: number;

  /** @param fd the descriptor whose locks stand for this participant; it stays open until after `close()` */
  constructor(native: Native, fd: number, seats: number) {
    super();
    this.seats = seats;
    this.#native = native;
    this.#fd = fd;
  }

  /** Only for a seat that this participant does not own: the kernel grants a description a lock that it holds already. */
  protected override tryTake(seat: number): boolean {
    return this.#native.tryLock(this.#fd, seat);
  }

  protected override giveBack(seat: number): void {
    this.#native.unlock(this.#fd, seat);
  }
}
