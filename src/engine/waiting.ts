/**
 * How long a writer waits for another participant. The engine asks for a pause wherever it cannot go on; the writer gives
 * up after {@link BUSY_MS}, and its operation becomes `ERR_BUSY`.
 */

import { BUSY } from "./contract.ts";

/** How long a writer waits for another participant before it gives up, in milliseconds. */
export const BUSY_MS = 50;
/** The first pauses of a wait, this many, return at once; the later ones sleep. */
const SPINNING_PAUSES = 20;
/** Minimum number of polls before a writer gives up, even if it was descheduled past the deadline. */
const MIN_PAUSES = 40;
/**
 * Maximum number of pauses of an operation, in case the clock of the deadline stands still: tests replace `performance.now`. A
 * pause takes about a millisecond where the thread may sleep, otherwise about a microsecond.
 */
const MAX_SLEEPS = 200;
const MAX_POLLS = 100_000;
/** Maximum number of tries of an operation, for the same case: a try may fail without a pause. */
const MAX_TRIES = 1000;

/** The waiting of one participant. */
export class Waiting {
  readonly #sleeper = new Int32Array(new SharedArrayBuffer(4));
  /** Whether a wait ends after {@link MIN_PAUSES}, which takes about two milliseconds. */
  brief = false;
  #maySleep = true;
  /** When the wait began. */
  #since = 0;
  /** How often this operation has paused. */
  #pauses = 0;
  /** When the operation began that is being tried again: all its tries together may take {@link BUSY_MS}. */
  #triedSince: number | undefined;

  /**
   * Waits a little for another participant, longer with each attempt.
   *
   * @param attempt number of the pause within the wait, from 0
   * @returns 0 when the writer has to give up, otherwise 1
   */
  pause(attempt: number): number {
    if (attempt === 0) {
      this.#since = this.#triedSince ?? performance.now();
      if (this.#since !== this.#triedSince) this.#pauses = 0;
    } else if (attempt >= MIN_PAUSES && (this.brief || performance.now() - this.#since > BUSY_MS)) return 0;
    if (++this.#pauses >= (this.#maySleep ? MAX_SLEEPS : MAX_POLLS)) return 0;
    if (attempt >= SPINNING_PAUSES && this.#maySleep) {
      try {
        Atomics.wait(this.#sleeper, 0, 0, attempt < MIN_PAUSES ? 0.1 : 1);
      } catch {
        // A browser's main thread must not sleep; it polls.
        this.#maySleep = false;
      }
    }
    return 1;
  }

  /**
   * Repeats an operation while its result is `BUSY` and there is time.
   *
   * @returns the last result
   */
  retryWhileBusy(operation: () => number): number {
    const since = performance.now();
    this.#pauses = 0;
    let result = operation();
    this.#triedSince = since;
    try {
      for (let tries = 1; result === BUSY && tries < MAX_TRIES && performance.now() < since + BUSY_MS; tries++) {
        result = operation();
      }
    } finally {
      this.#triedSince = undefined;
    }
    return result;
  }
}
