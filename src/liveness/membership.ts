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

import { noSeat } from "../errors.ts";

/**
 * The seats of one cache as seen by one participant.
 *
 * The last owner of a seat that {@link Membership.claim} or {@link Membership.take} gives out may have died. So the new owner
 * tidies up after it before it does anything else.
 */
export interface Membership {
  /** How many participants there can be at once. */
  readonly seats: number;

  /**
   * Takes the lowest seat without a living owner, until {@link Membership.release}, `close` or the end of this thread.
   *
   * @throws {CacheError} `ERR_BUSY` when all seats have living owners, `ERR_CLOSED` after {@link Membership.close}.
   */
  claim(): number;

  /**
   * Takes a seat that has no owner, or whose owner is gone. True is the proof of that: the seat now belongs to this participant
   * alone, until {@link Membership.release}. False for a seat whose owner lives (which can be this participant), and for a seat
   * that does not exist.
   *
   * @throws {CacheError} `ERR_CLOSED` after {@link Membership.close}.
   */
  take(seat: number): boolean;

  /** Gives a seat back. Nothing happens to a seat that this participant does not own. */
  release(seat: number): void;

  /**
   * Gives back all seats but one. After a call that was cut off, these are seats of dead participants that it had taken to tidy
   * up.
   */
  keepOnly(seat: number): void;

  /** Gives all seats back. May be called twice. */
  close(): void;
}

/**
 * Takes the lowest seat that can be taken. All kinds of membership do so in {@link Membership.claim}.
 *
 * @throws {CacheError} `ERR_BUSY` when all seats have living owners.
 */
export function claimLowest(membership: Membership): number {
  for (let seat = 0; seat < membership.seats; seat++) {
    if (membership.take(seat)) return seat;
  }
  throw noSeat(membership.seats);
}
