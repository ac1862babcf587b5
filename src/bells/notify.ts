/**
 * Bells between the threads of one process: `Atomics.notify` on the ringing word itself, and `Atomics.waitAsync` to hear it. Works
 * in Node.js and in browsers, also in the main thread of a page, which must not block.
 *
 * A thread waits only as long as its word is 0. So a ring that comes while it does not wait is not lost: the next wait ends at
 * once. A pending `waitAsync` does not keep Node.js alive (nodejs/node#44409); the timers of src/engine/wakeups.ts do that.
 */

import { runLater } from "../system/timers.ts";
import type { Bell } from "./bell.ts";

/** What `Atomics.waitAsync` returns; the types of ES2022 do not have it. */
type WaitAsync = (
  words: Int32Array,
  at: number,
  value: number,
) => { async: false; value: string } | { async: true; value: Promise<string> };

/** The bells of a cache in the memory of this process. */
export class NotifyBell implements Bell {
  readonly #words: Int32Array;
  /** The ringing word of this participant, once it hears. */
  #at: number | undefined;
  #closed = false;

  constructor(memory: WebAssembly.Memory) {
    this.#words = new Int32Array(memory.buffer);
  }

  open(_seat: number, at: number, heard: () => void): boolean {
    const { waitAsync } = Atomics as unknown as { waitAsync?: WaitAsync };
    if (waitAsync === undefined) return false;
    if (this.#at !== undefined || this.#closed) return true;
    this.#at = at;
    const listen = (): void => {
      if (this.#closed) return;
      const waiting = waitAsync(this.#words, at, 0);
      if (waiting.async) void waiting.value.then(rung);
      else runLater(rung);
    };
    const rung = (): void => {
      if (this.#closed) return;
      heard();
      listen();
    };
    listen();
    return true;
  }

  /** Returns true even if nobody was woken: a thread that lives but does not wait at the moment finds its word later. */
  ring(_seat: number, at: number): boolean {
    Atomics.notify(this.#words, at);
    return true;
  }

  bury(): void {
    // A dead thread leaves nothing.
  }

  close(): void {
    this.#closed = true;
    // Ends the pending wait, which would keep the memory. Whoever owns the seat next may be woken by it too, in vain.
    if (this.#at !== undefined) Atomics.notify(this.#words, this.#at);
  }
}
