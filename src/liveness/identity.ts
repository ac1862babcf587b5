/**
 * The token that names a thread on a {@link Board}, and the proofs that the thread has about the owners of other tokens.
 * There is one file for each way to prove a death: linux.ts asks the kernel, node-worker.ts listens to Node.js, browser.ts
 * watches Web Locks.
 *
 * Also the list of this thread's open boards: when a death becomes known later, the token is cleared from all of them.
 */

/** The token of the calling thread, and its proofs about other threads. */
export interface ThreadIdentity {
  /** Names this thread and no other, and is never 0. */
  readonly token: bigint;
  /** Tells the other threads that this token is on a board. Only browsers need it: see browser.ts. */
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
