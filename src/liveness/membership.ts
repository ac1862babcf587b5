/**
 * Who takes part in a cache. A cache has a fixed number of seats. Each participant (one thread that has the cache open)
 * owns one seat, and may take the seats of dead participants to tidy up after them.
 *
 * All recovery rests on one question: is the owner of this seat *provably* gone? The answer never comes from a timeout and
 * never from a process id. A participant that is frozen counts as alive. So does one whose death cannot be proved.
 *
 * There are two ways to prove a death: {@link LockFile} in lock-file.ts between processes, {@link Board} in board.ts
 * between the threads of one process. What a seat holds, and what has to be tidied up after a dead owner, is known to the
 * engine alone. Nothing here needs Node.js.
 */

import { noSeat } from "../errors.ts";

/**
 * The seats of one cache as seen by one participant.
 *
 * A seat that {@link Membership.claim} or {@link Membership.take} gave out may have had an owner that died. Whoever gets
 * a seat tidies up after that owner before it does anything else.
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
   * Takes a seat whose owner is gone or that has none. True is the proof of death: the seat now belongs to this
   * participant alone, until {@link Membership.release}. False for a seat whose owner lives (also if that is this
   * participant), and for a seat that does not exist.
   *
   * @throws {CacheError} `ERR_CLOSED` after {@link Membership.close}.
   */
  take(seat: number): boolean;

  /** Gives a seat back. Nothing happens to a seat that this participant does not own. */
  release(seat: number): void;

  /** Gives back all seats but one: those that were {@link Membership.take | taken} and could not be released since. */
  keepOnly(seat: number): void;

  /** Gives all seats back. May be called twice. */
  close(): void;
}

/**
 * Takes the lowest seat that can be taken; what all kinds of membership do in {@link Membership.claim}.
 *
 * @throws {CacheError} `ERR_BUSY` when all seats have living owners.
 */
export function claimLowest(membership: Membership): number {
  for (let seat = 0; seat < membership.seats; seat++) {
    if (membership.take(seat)) return seat;
  }
  throw noSeat(membership.seats);
}
