/**
 * A bell wakes a thread that waits for a change of a cache. Each seat has one. There are two kinds: fifo.ts between processes, and
 * notify.ts between the threads of one process. When a thread is rung, and what it does then, is known one floor above, in
 * src/engine/wakeups.ts.
 *
 * A ring carries nothing. Who changes the cache sets the *ringing word* of a seat from 0 to 1, and rings only if it found 0. The
 * thread that was rung stores 0 before it looks at the cache. So at most one ring is on its way to a seat, and a change that
 * comes after the look rings again.
 *
 * No ring is promised to arrive: a thread may be killed between the word and the ring. So each wait also looks by itself now and
 * then.
 */

/** The bells of one cache, as one participant uses them: it hears its own, and rings those of the others. */
export interface Bell {
  /**
   * Begins to hear. Called again, it mends what has been lost since, such as a file that somebody has removed.
   *
   * @param seat number of this participant's seat
   * @param at index of the seat's ringing word in an `Int32Array` of the whole memory
   * @param heard runs after a ring, in a task of its own. It never throws.
   * @returns false when no bell can be made, as in a directory that is read-only or without a free descriptor
   */
  open(seat: number, at: number, heard: () => void): boolean;
  /**
   * Rings a seat whose ringing word the caller has set from 0 to 1. Never waits.
   *
   * @returns false when nobody hears there: its thread is dead, or has no bell, or this thread has no descriptor to ring it
   */
  ring(seat: number, at: number): boolean;
  /** Removes what the dead owner of a seat has left. The caller owns the seat at the moment. */
  bury(seat: number): void;
  /** Ends hearing, and removes what the bell consists of. May be called twice. */
  close(): void;
}
