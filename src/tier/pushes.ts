/**
 * What the server has pushed, and how much of it is applied to the memory of the host.
 *
 * A push is applied when it comes, if it is small and nothing waits. The keys of large pushes are applied in slices, with a turn of
 * the event loop between two of them, so that a burst neither blocks this thread nor keeps a beat waiting. A lease is renewed only
 * when all that was pushed before the answer of its beat is applied, so a burst costs lease and not truth.
 */

import type { Memory } from "./memory.ts";

/** Milliseconds of a slice, and how many keys are applied between two looks at the clock. */
const SLICE_MS = 4;
const SLICE_KEYS = 64;
/** The most keys that wait. Beyond that it is cheaper to remove everything. */
const MOST_WAITING = 100_000;

/** As they are when the package is loaded: fake timers of a test do not stop them. */
const { setImmediate } = globalThis;
const monotonic: () => number = performance.now.bind(performance);

/** The pushes of one listener. */
export class Pushes {
  /** How many keys were pushed, and how many of them are applied. */
  received = 0;
  applied = 0;
  readonly #memory: Memory;
  readonly #failed: (error: unknown) => void;
  /** The keys that wait, and before them those that were applied since it was made. */
  #queue: string[] = [];
  #head = 0;
  #scheduled = false;
  #over = false;
  #waiters: { readonly mark: number; readonly done: () => void }[] = [];

  /** @param failed called when the memory cannot be used any more: the cache was closed */
  constructor(memory: Memory, failed: (error: unknown) => void) {
    this.#memory = memory;
    this.#failed = failed;
  }

  /** Takes keys that have changed; `null`: any may have. */
  add(keys: readonly string[] | null): void {
    if (this.#over) return;
    this.received += keys === null ? 1 : keys.length;
    if (keys === null || this.received - this.applied > MOST_WAITING) this.#applyAll();
    else if (this.#queue.length === 0 && keys.length <= SLICE_KEYS) this.#apply(keys);
    else {
      for (const key of keys) this.#queue.push(key);
      this.#schedule();
    }
  }

  /** Resolves when everything that was pushed by now is applied, or will never be. */
  async settled(): Promise<void> {
    const mark = this.received;
    if (this.#over || this.applied >= mark) return;
    await new Promise<void>((done) => this.#waiters.push({ mark, done }));
  }

  /** Applies nothing any more. */
  close(): void {
    this.#over = true;
    this.#forget();
    this.#tell();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#slice();
      if (this.#queue.length > 0) this.#schedule();
    });
  }

  #slice(): void {
    const end = monotonic() + SLICE_MS;
    while (this.#queue.length > 0 && monotonic() < end) {
      const keys = this.#queue.slice(this.#head, this.#head + SLICE_KEYS);
      this.#head += keys.length;
      if (this.#head === this.#queue.length) this.#forget();
      else if (this.#head >= MOST_WAITING) {
        // While pushes keep coming the queue may never be empty.
        this.#queue = this.#queue.slice(this.#head);
        this.#head = 0;
      }
      this.#apply(keys);
    }
  }

  #apply(keys: readonly string[]): void {
    try {
      // When one could not be removed, everything was.
      if (this.#memory.apply(keys)) this.applied += keys.length;
      else this.#allApplied();
      this.#tell();
    } catch (error) {
      this.#fail(error);
    }
  }

  #applyAll(): void {
    try {
      this.#memory.apply(null);
      this.#allApplied();
      this.#tell();
    } catch (error) {
      this.#fail(error);
    }
  }

  #allApplied(): void {
    this.#forget();
    this.applied = this.received;
  }

  #forget(): void {
    this.#queue = [];
    this.#head = 0;
  }

  #fail(error: unknown): void {
    // First, so that whoever waits hears of the failure before it hears of the end.
    this.#failed(error);
    this.close();
  }

  #tell(): void {
    if (this.#waiters.length === 0) return;
    const ready = this.#waiters.filter(({ mark }) => this.#over || mark <= this.applied);
    this.#waiters = this.#waiters.filter((waiter) => !ready.includes(waiter));
    for (const { done } of ready) done();
  }
}
