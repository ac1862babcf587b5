/**
 * The waits of one thread in one cache. Whoever waits for a change registers a function that looks whether the change has come.
 * All these functions run after each ring: a ring does not tell what has changed.
 *
 * A seat announces what it waits for as its *interest*: one bit for each of 64 classes of buckets. The engine sets a bit under the
 * lock of the bucket (`Engine.wait`). This file counts the waits of each class, and clears the bit with the last of them.
 *
 * The order that loses no change:
 *
 *     waiter                                      who changes the cache
 *     1 register: from here on a ring is heard    1 locks the bucket and changes the entry
 *     2 Engine.wait: interest, under the lock     2 reads the interest of all seats, sets ringing words, unlocks
 *     3 looks at the entry                        3 rings
 *     4 after a ring: ringing = 0, then looks
 *
 * Three looks do not need a ring. A wait that depends on another participant *probes*: that one may die, and death rings
 * nobody. Every wait looks once in a *slow look* each second, because who changes the cache may be killed before it rings. And
 * where a seat can have no bell, all waits look fifty times a second.
 */

import type { Bell } from "../bells/bell.ts";
import { apart, clearTimeout, keepAlive, queueMicrotask, runLater, setTimeout, type Timer } from "../system/timers.ts";

/** Milliseconds until the first probe of a wait, and between two of its later probes. Each takes twice as long as the one before. */
const FIRST_PROBE_MS = 5;
const LAST_PROBE_MS = 100;
/** Milliseconds between two slow looks, and where the seat has no bell. */
const SLOW_LOOK_MS = 1000;
const DEAF_LOOK_MS = 20;
/** Milliseconds that a ring may take, from the ringing word to the task that it starts, before it counts as lost. */
const RING_MS = 250;

/** How a wait waits. */
export interface WaitOptions {
  /** Whether the wait keeps the process alive until it is released: `true` for a pending promise, `false` for a watch. */
  readonly hold: boolean;
  /**
   * Whether the wait ends when another participant does something (a load, a lock). Such a wait looks after 5, 10, 20 … 100
   * milliseconds too, so that it finds out when that participant is dead.
   */
  readonly probe: boolean;
}

/** One registered wait. */
export interface Waiter {
  /**
   * Counts a class of buckets that `Engine.wait` has just returned for a key of this wait. A wait may have many keys: a class
   * counts once for it.
   */
  listen(bucketClass: number): void;
  /** Ends the wait: its function does not run any more. May be called twice, and by the function itself. */
  release(): void;
}

/** Where the words of the seats lie. */
export interface SeatWords {
  /** The number of this thread's seat. */
  readonly seat: number;
  /** The whole memory, in words of four bytes. */
  readonly words: Int32Array;
  /** Index of the interest of this thread's seat: two words, the low half first. */
  readonly interestAt: number;
  /** Index of the ringing word of a seat. */
  ringingAt(seat: number): number;
}

interface Registered extends Waiter {
  readonly look: () => boolean;
  /** Waits are numbered in the order of their registration. */
  readonly number: number;
}

/** The waits of one engine, and so of all openings and copies of the package which share that engine in this thread. */
export class Wakeups {
  /**
   * How often a slow look has found what no ring had told, although rings could be heard. That is the work of a kill at the wrong
   * moment. In all other cases it is an error, and tests demand 0.
   */
  helped = 0;

  readonly #bell: Bell;
  readonly #at: SeatWords;
  readonly #ringing: number;
  readonly #waiters = new Set<Registered>();
  /** How many waits each class has. */
  readonly #counts = new Uint32Array(64);
  #registered = 0;
  /** How many waits keep the process alive. */
  #holding = 0;
  /** The timer of the next slow look, while anybody waits. It is also what keeps the process alive for waits that hold. */
  #timer: Timer | undefined;
  /** Whether rings are heard. */
  #hears = false;
  /** How many rings were heard. */
  #rings = 0;
  /** Whether a ring of this thread to itself is on its way. */
  #self = false;
  /** Whether classes stay announced after their last wait, because it is not known yet whether a ring comes for it. */
  #lingering = false;
  #closed = false;

  constructor(bell: Bell, at: SeatWords) {
    this.#bell = bell;
    this.#at = at;
    this.#ringing = at.ringingAt(at.seat);
  }

  /**
   * Begins a wait. To be called *before* `Engine.wait`, so that a ring is heard from the moment on in which it is announced:
   *
   *     const waiter = wakeups.register(look, { hold: true, probe: false });
   *     waiter.listen(engine.wait(key)); // not when it returns -1
   *     look();
   *
   * @param look runs after each ring and at the other looks, never within `register` or a change, and outside of the
   * asynchronous context of whoever registers it. It returns whether it has found anything new. What it throws becomes an uncaught
   * error, and other waits are not affected.
   */
  register(look: () => boolean, { hold, probe }: WaitOptions): Waiter {
    if (!this.#hears) apart(() => this.#open());
    let low = 0;
    let high = 0;
    let probing: Timer | undefined;
    const waiter: Registered = {
      look,
      number: ++this.#registered,
      listen: (bucketClass) => {
        if (!this.#waiters.has(waiter)) return;
        const bit = 1 << bucketClass;
        if (((bucketClass < 32 ? low : high) & bit) !== 0) return;
        if (bucketClass < 32) low |= bit;
        else high |= bit;
        (this.#counts[bucketClass] as number)++;
      },
      release: () => {
        if (!this.#waiters.delete(waiter)) return;
        clearTimeout(probing);
        for (let bucketClass = 0; bucketClass < 64; bucketClass++) {
          const mask = bucketClass < 32 ? low : high;
          if ((mask & (1 << bucketClass)) !== 0) (this.#counts[bucketClass] as number)--;
        }
        if ((low | high) !== 0 && !this.#lingering) this.#withdraw(low, high);
        this.#hold(hold ? -1 : 0);
        if (this.#waiters.size === 0) this.#stop();
      },
    };
    if (this.#closed) return waiter;
    const probeAfter = (wait: number): void => {
      probing = setTimeout(() => {
        this.#look([waiter]);
        if (this.#waiters.has(waiter)) probeAfter(Math.min(2 * wait, LAST_PROBE_MS));
      }, wait);
      keepAlive(probing, false);
    };
    this.#waiters.add(waiter);
    this.#hold(hold ? 1 : 0);
    try {
      if (this.#timer === undefined) apart(() => this.#schedule());
      if (probe) apart(() => probeAfter(FIRST_PROBE_MS));
    } catch (error) {
      // The stack has ended.
      waiter.release();
      throw error;
    }
    return waiter;
  }

  /**
   * Rings a seat whose ringing word the engine has set. This thread's own seat is rung in a later task.
   *
   * @returns false when nobody hears there. Then its owner may be dead, which the caller should find out.
   */
  ring(seat: number): boolean {
    if (seat === this.#at.seat) {
      this.#ringSelf();
      return true;
    }
    return this.#bell.ring(seat, this.#at.ringingAt(seat));
  }

  /** Ends all waits, and the hearing. To be called while this thread still owns its seat. May be called twice. */
  close(): void {
    this.#closed = true;
    for (const waiter of this.#waiters) waiter.release();
    this.#bell.close();
  }

  #ringSelf(): void {
    if (this.#self) return;
    const task = (): void => {
      this.#self = false;
      this.#heard();
    };
    apart(() => runLater(task));
    // Last, because the stack may have ended before.
    this.#self = true;
  }

  #open(): void {
    if (this.#closed) return;
    const { seat } = this.#at;
    this.#hears = this.#bell.open(seat, this.#ringing, () => this.#heard());
  }

  #heard(): void {
    if (this.#closed) return;
    this.#rings++;
    this.#lookAll();
  }

  #lookAll(): boolean {
    // Before the looks: a change that comes after one of them finds 0, and rings again. Pairs with the engine's 0 → 1.
    Atomics.store(this.#at.words, this.#ringing, 0);
    return this.#look(this.#waiters);
  }

  /** Runs the functions of these waits, but not of those that are registered meanwhile. Returns whether one has found anything. */
  #look(waiters: Iterable<Registered>): boolean {
    const last = this.#registered;
    let found = false;
    for (const { look, number } of waiters) {
      if (number > last) break;
      try {
        if (look()) found = true;
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
    return found;
  }

  #schedule(): void {
    this.#timer = setTimeout(() => this.#slowLook(), this.#hears ? SLOW_LOOK_MS : DEAF_LOOK_MS);
    keepAlive(this.#timer, this.#holding > 0);
  }

  #stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #hold(change: 1 | 0 | -1): void {
    this.#holding += change;
    if (this.#timer !== undefined) keepAlive(this.#timer, this.#holding > 0);
  }

  /**
   * The slow look. What it finds does not yet mean that a ring was lost: who made the change may not have rung yet. So the classes
   * stay announced for a moment, and it counts only if no ring comes within that moment.
   */
  #slowLook(): void {
    const [couldHear, rings] = [this.#hears, this.#rings];
    const isUnderWay = couldHear && Atomics.load(this.#at.words, this.#ringing) !== 0;
    this.#open();
    this.#schedule();
    // The event loop may have been busy: then the ring comes after this task.
    if (isUnderWay) {
      this.#after(() => {
        if (rings === this.#rings && this.#lookAll()) this.helped++;
      });
      return;
    }
    this.#lingering = true;
    if (!this.#lookAll()) this.#endLingering();
    else {
      this.#after(() => {
        if (couldHear && rings === this.#rings) this.helped++;
        this.#endLingering();
      });
    }
  }

  #after(check: () => void): void {
    // Once this is closed, the words of the seat may belong to another thread.
    keepAlive(
      setTimeout(() => this.#closed || check(), RING_MS),
      false,
    );
  }

  #endLingering(): void {
    this.#lingering = false;
    this.#withdraw(-1, -1);
  }

  /** Withdraws the interest in those of these classes for which nobody waits. */
  #withdraw(low: number, high: number): void {
    const { words, interestAt } = this.#at;
    const idle = [low, high];
    for (let bucketClass = 0; bucketClass < 64; bucketClass++) {
      if (this.#counts[bucketClass] !== 0) (idle[bucketClass >> 5] as number) &= ~(1 << bucketClass);
    }
    idle.forEach((bits, half) => {
      if (bits !== 0) Atomics.and(words, interestAt + half, ~bits);
    });
  }
}
