/**
 * Membership in thread reach: a board in shared memory with one 64-bit word for each seat. The word is the token of the
 * thread that owns the seat, or 0.
 *
 *     token > 0   a native thread of Linux:   thread id 22 bits | start time in clock ticks since boot 40 bits
 *     token < 0   a Node.js worker elsewhere: -1 - threadId; in a browser: random
 *
 * A seat is taken by one compare-and-swap from 0, or from the token of a thread whose death is proved. So a thread that ends at
 * any instruction leaves either its own token, and its death can be proved, or no token.
 *
 * How soon a death is proved depends on the host: see linux.ts, node-worker.ts and browser.ts. A thread whose death no host
 * reports counts as alive.
 */

import { closed } from "../errors.ts";
import { browserThread } from "./browser.ts";
import { openBoards, type ThreadIdentity } from "./identity.ts";
import { nativeThread } from "./linux.ts";
import { claimLowest, type Membership } from "./membership.ts";
import { nodeWorker } from "./node-worker.ts";

/** The seats of a cache in the memory of this process, as seen by one participant. */
export class Board implements Membership {
  /** Bytes of shared memory that a board of this many seats needs, all zero at the start. */
  static bytes(seats: number): number {
    return seats * BigInt64Array.BYTES_PER_ELEMENT;
  }

  readonly seats: number;
  readonly #tokens: BigInt64Array;
  readonly #thread: ThreadIdentity;
  /** The seats of this participant. The board cannot tell: all participants of a thread write the same token. */
  readonly #held = new Set<number>();
  #closed = false;

  /** @param tokens the shared memory of the board: {@link Board.bytes}, zeroed by the thread that creates the cache */
  constructor(tokens: SharedArrayBuffer) {
    this.#tokens = new BigInt64Array(tokens);
    this.#thread = identifyThread();
    this.seats = this.#tokens.length;
    openBoards.add(this.#tokens);
  }

  claim(): number {
    const seat = claimLowest(this);
    this.#thread.announce?.();
    return seat;
  }

  take(seat: number): boolean {
    if (this.#closed) throw closed();
    if (!(seat >= 0 && seat < this.seats)) return false;
    const owner = Atomics.load(this.#tokens, seat);
    if (owner !== 0n && !this.#thread.provesDead(owner)) return false;
    if (Atomics.compareExchange(this.#tokens, seat, owner, this.#thread.token) !== owner) return false;
    this.#held.add(seat);
    return true;
  }

  release(seat: number): void {
    if (!this.#held.has(seat)) return;
    Atomics.store(this.#tokens, seat, 0n);
    this.#held.delete(seat);
  }

  keepOnly(seat: number): void {
    for (const held of this.#held) if (held !== seat) this.release(held);
  }

  close(): void {
    this.#closed = true;
    for (const seat of this.#held) this.release(seat);
    openBoards.delete(this.#tokens);
  }
}

let identity: ThreadIdentity | undefined;

/** The identity of the calling thread, by the best proof of death that its host offers. */
function identifyThread(): ThreadIdentity {
  identity ??= nativeThread() ?? nodeWorker() ?? browserThread();
  return identity;
}
