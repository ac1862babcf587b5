/**
 * How a thread is named on a {@link Board}, and what it can prove about the other threads that are named there. Each host
 * has a way of its own: linux.ts asks the kernel, node-worker.ts listens to Node.js, browser.ts watches Web Locks.
 *
 * Also the list of this thread's open boards, from which a host clears the tokens of the dead that it learns about later.
 */

/** How the calling thread is named on a board, and what it can prove about the others. */
export interface ThreadIdentity {
  /** Names this thread and no other, and is never 0. */
  readonly token: bigint;
  /** Tells the other threads that this token is on a board; only on hosts where they could not prove anything otherwise. */
  announce?(): void;
  /** Whether the thread that this token names is provably gone. */
  provesDead(token: bigint): boolean;
}

/** The tokens of each board that is open in this thread. */
export const openBoards: Set<BigInt64Array> = new Set();

/** Removes the token of a thread that is provably gone from all boards that are open in this thread. */
export function clearFromBoards(token: bigint): void {
  for (const tokens of openBoards) {
    for (let seat = 0; seat < tokens.length; seat++) Atomics.compareExchange(tokens, seat, token, 0n);
  }
}
