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

import { browserThread } from "./browser.ts";
import { openBoards, type ThreadIdentity } from "./identity.ts";
import { nativeThread } from "./linux.ts";
import { Membership } from "./membership.ts";
import { nodeWorker } from "./node-worker.ts";

/** The seats of a cache in the memory of this process, as seen by one participant. */
export class Board extends Membership {
  /** Bytes of shared memory that a board of this many seats needs, all zero at the start. */
  static bytes(seats: number): number {
    return seats * BigInt64Array.BYTES_PER_ELEMENT;
  }

  readonly seats: number;
  readonly #tokens: BigInt64Array;
  readonly #thread: ThreadIdentity;

  /** @param tokens the shared memory of the board: {@link Board.bytes}, zeroed by the thread that creates the cache */
  constructor(tokens: SharedArrayBuffer) {
    super();
    this.#tokens = new BigInt64Array(tokens);
    this.#thread = identifyThread();
    this.seats = this.#tokens.length;
    openBoards.add(this.#tokens);
  }

  override claim(): number {
    const seat = super.claim();
    this.#thread.announce?.();
    return seat;
  }

  protected override tryTake(seat: number): boolean {
    const owner = Atomics.load(this.#tokens, seat);
    if (owner !== 0n && !this.#thread.provesDead(owner)) return false;
    return Atomics.compareExchange(this.#tokens, seat, owner, this.#thread.token) === owner;
  }

  protected override giveBack(seat: number): void {
    Atomics.store(this.#tokens, seat, 0n);
  }

  override close(): void {
    super.close();
    openBoards.delete(this.#tokens);
  }
}

let identity: ThreadIdentity | undefined;

/** The identity of the calling thread, by the best proof of death that its host offers. */
function identifyThread(): ThreadIdentity {
  identity ??= nativeThread() ?? nodeWorker() ?? browserThread();
  return identity;
}
