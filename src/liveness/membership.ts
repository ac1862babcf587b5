/**
 * The seats of a cache and their owners. A cache has a fixed number of seats. Each participant (one thread that has the cache
 * open) owns one seat, and may take the seats of dead participants to tidy up after them.
 *
 * All recovery rests on one question: is the owner of this seat *provably* gone? The answer never comes from a timeout and
 * never from a process id. A frozen participant counts as alive, and so does a participant whose death cannot be proved.
 *
 * There are two ways to prove a death: {@link LockFile} in lock-file.ts between processes, {@link Board} in board.ts
 * between the threads of one process. Only the engine knows what a seat holds, and what has to be tidied up after a dead owner.
 * This file does not need Node.js.
 */

import { closed, noSeat } from "../errors.ts";

/**
 * The seats of one cache as seen by one participant. A subclass knows how a death is proved.
 *
 * The last owner of a seat that {@link Membership.claim} or {@link Membership.take} gives out may have died. So the new owner
 * tidies up after it before it does anything else.
 */
export abstract class Membership {
  /** How many participants there can be at once. */
  abstract readonly seats: number;
  /** The seats of this participant. Only it knows them: other participants of this thread or process may look the same. */
  readonly #held = new Set<number>();
  #closed = false;

  /** Takes a seat that this participant does not own, if it has no owner or its owner is provably gone; whether it did. */
  protected abstract tryTake(seat: number): boolean;

  /** Gives back a seat that this participant owns. */
  protected abstract giveBack(seat: number): void;

  /**
   * Takes the lowest seat without a living owner, until {@link Membership.release}, `close` or the end of this thread.
   *
   * @throws {CacheError} `ERR_BUSY` when all seats have living owners, `ERR_CLOSED` after {@link Membership.close}.
   */
  claim(): number {
    for (let seat = 0; seat < this.seats; seat++) if (this.take(seat)) return seat;
    throw noSeat(this.seats);
  }

  /**
   * Takes a seat that has no owner, or whose owner is gone. True is the proof of that: the seat now belongs to this participant
   * alone, until {@link Membership.release}. False for a seat whose owner lives (which can be this participant), and for a seat
   * that does not exist.
   *
   * @throws {CacheError} `ERR_CLOSED` after {@link Membership.close}.
   */
  take(seat: number): boolean {
    if (this.#closed) throw closed();
    const isTaken = seat >= 0 && seat < this.seats && !this.#held.has(seat) && this.tryTake(seat);
    if (isTaken) this.#held.add(seat);
    return isTaken;
  }

  /** Gives a seat back. Nothing happens to a seat that this participant does not own. */
  release(seat: number): void {
    if (!this.#held.has(seat)) return;
    this.giveBack(seat);
    this.#held.delete(seat);
  }

  /**
   * Gives back all seats but one. After a call that was cut off, these are seats of dead participants that it had taken to tidy
   * up.
   */
  keepOnly(seat: number): void {
    for (const held of this.#held) if (held !== seat) this.release(held);
  }

  /** Gives all seats back. May be called twice. */
  close(): void {
    this.#closed = true;
    for (const seat of this.#held) this.release(seat);
  }
}
