/** Work in small pieces, so that the event loop of an application that is at work is not held up. */

import { runLater } from "../system/timers.ts";

/** Milliseconds of work after which others get their turn. */
const SLICE_MS = 4;

/** The pace of one export or import. */
export class Pace {
  readonly #signal: AbortSignal | undefined;
  #since = performance.now();

  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal;
  }

  /** Whether it is time to call {@link rest}. */
  get isDue(): boolean {
    return performance.now() - this.#since > SLICE_MS;
  }

  /** Lets the event loop turn. @throws the reason of the signal when it was aborted. */
  async rest(): Promise<void> {
    await new Promise<void>(runLater);
    this.#since = performance.now();
    this.#signal?.throwIfAborted();
  }
}
