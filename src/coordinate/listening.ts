/** What one wait or watch listens to: keys at whose changes it looks again. */

import type { Engine } from "../engine/engine.ts";
import type { Waiter, WaitOptions } from "../engine/wakeups.ts";
import { clearTimeout, keepAlive, setTimeout, type Timer } from "../system/timers.ts";

/** Milliseconds until a registration is tried again that a frozen participant was in the way of: the first time, and at most. */
const FIRST_RETRY_MS = 10;
const LAST_RETRY_MS = 200;

/** A registration: returns the class of what was registered; negative when a frozen participant is in the way. */
type Register = () => number;

/** The registrations of one wait. */
export class Listening {
  readonly #waiter: Waiter;
  readonly #look: () => boolean;
  /** What could not be registered yet. */
  #missing: Register[] = [];
  #retry: Timer | undefined;

  /** @param look as for `Wakeups.register` */
  constructor(engine: Engine, look: () => boolean, options: WaitOptions) {
    this.#look = look;
    this.#waiter = engine.wakeups.register(look, options);
  }

  /**
   * Registers. The caller looks afterwards.
   *
   * A registration needs the lock of a bucket. While a frozen participant holds that lock, nobody can change the keys of the bucket
   * either. So then it is tried again later.
   */
  add(register: Register): void {
    const bucketClass = register();
    if (bucketClass >= 0) this.#waiter.listen(bucketClass);
    else {
      this.#missing.push(register);
      if (this.#retry === undefined) this.#again(FIRST_RETRY_MS);
    }
  }

  /** Counts a class that was registered elsewhere. */
  listen(bucketClass: number): void {
    this.#waiter.listen(bucketClass);
  }

  #again(wait: number): void {
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      const missing = this.#missing;
      this.#missing = [];
      for (const register of missing) this.add(register);
      if (this.#missing.length > 0) {
        clearTimeout(this.#retry);
        this.#again(Math.min(2 * wait, LAST_RETRY_MS));
      }
      this.#look();
    }, wait);
    keepAlive(this.#retry, false);
  }

  /** Ends the wait. May be called twice. */
  release(): void {
    clearTimeout(this.#retry);
    this.#missing = [];
    this.#waiter.release();
  }
}
