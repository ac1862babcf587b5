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

import { closed } from "../errors.ts";
import type { Native } from "../system/native.ts";
import { claimLowest, type Membership } from "./membership.ts";

/** The seats of a cache file as seen by one participant. */
export class LockFile implements Membership {
  readonly seats: number;
  readonly #native: Native;
  readonly #fd: number;
  /**
   * The seats of this participant. The kernel cannot tell: it grants a description a lock that this description holds
   * already.
   */
  readonly #held = new Set<number>();
  #closed = false;

  /** @param fd the descriptor whose locks stand for this participant; it stays open until after `close()` */
  constructor(native: Native, fd: number, seats: number) {
    this.#native = native;
    this.#fd = fd;
    this.seats = seats;
  }

  claim(): number {
    return claimLowest(this);
  }

  take(seat: number): boolean {
    // After `close` the number of the descriptor may stand for another file, or for another participant.
    if (this.#closed) throw closed();
    if (!(seat >= 0 && seat < this.seats)) return false;
    if (this.#held.has(seat) || !this.#native.tryLock(this.#fd, seat)) return false;
    this.#held.add(seat);
    return true;
  }

  release(seat: number): void {
    if (!this.#held.has(seat)) return;
    this.#native.unlock(this.#fd, seat);
    this.#held.delete(seat);
  }

  keepOnly(seat: number): void {
    for (const held of this.#held) if (held !== seat) this.release(held);
  }

  close(): void {
    this.#closed = true;
    for (const seat of this.#held) this.release(seat);
  }
}
