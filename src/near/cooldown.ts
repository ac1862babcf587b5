/**
 * When the near cache is not asked. A lookup in it takes time, and keeping a value takes more. Where hardly any key is read
 * again, both are wasted. So the near cache counts what it did in a sampling window, and when there were too few hits it
 * cools down: for a number of reads nobody asks it. Then comes the next window.
 *
 * All is counted in reads, never in time, so the same reads have the same outcome on every machine.
 */

/** A window ends after this many misses, weighted. */
const WINDOW = 4096;
/** A window was worth it when the hits were at least this part of its misses. */
const WORTH = 1 / 4;
/** A value that took the slot of another counts as this many misses: keeping takes longer than looking up. */
const REPLACEMENT = 12;
/** While the table has free room, a window ends after this many reads that filled it, and fewer hits suffice. */
const FILLING_WINDOW = 65_536;
const WORTH_FILLING = 1 / 8;
/** A full cooldown lasts this many times the reads of the window. The first is a sixteenth of it, the second a quarter. */
const COOLDOWN = 64;
/** After this many windows in vain, one after the other, the table is emptied, so that the next window begins with nothing. */
const IN_VAIN = 4;
const MAX_COOLDOWN = 1 << 30;

/** Decides for each read whether the near cache is asked. */
export class Cooldown {
  readonly #hits: () => number;
  readonly #empty: () => void;
  /** Misses of this window, weighted, without those that filled free room. */
  #misses = 0;
  /** Misses of this window that filled free room. */
  #filled = 0;
  /** The weight of the last miss. */
  #weight = 1;
  /** Values that took the slot of another in this window. */
  #replaced = 0;
  #hitsBefore: number;
  /** Windows in vain, one after the other. */
  #inVain = 0;

  /**
   * @param hits how many reads found their value near since ever
   * @param empty empties the table
   */
  constructor(hits: () => number, empty: () => void) {
    this.#hits = hits;
    this.#empty = empty;
    this.#hitsBefore = hits();
  }

  /**
   * Counts a read that found no current value near, but one in the engine. A key that is absent there is not counted.
   *
   * @param weight how much this miss speaks against the near cache: more for a value that is decoded quickly
   * @returns for how many reads the near cache is not asked from now on; 0 for none
   */
  missed(weight = 1): number {
    this.#weight = weight;
    this.#misses += weight;
    if (this.#misses >= WINDOW) return this.#judge((this.#misses + this.#replaced * REPLACEMENT) * WORTH);
    return this.#filled >= FILLING_WINDOW ? this.#judge(this.#filled * WORTH_FILLING) : 0;
  }

  /** The value of the last miss takes free room, in this set or soon in others, so the miss was not in vain. */
  filled(): void {
    this.#misses -= this.#weight;
    this.#filled++;
  }

  /** A value takes the slot of another. */
  replaced(): void {
    this.#replaced++;
  }

  /** Ends the window; cools down when it had fewer hits than `enough`. */
  #judge(enough: number): number {
    const hits = this.#hits();
    const wasWorth = hits - this.#hitsBefore >= enough;
    const reads = this.#misses + this.#filled;
    this.#hitsBefore = hits;
    this.#misses = 0;
    this.#filled = 0;
    this.#replaced = 0;
    if (wasWorth) {
      this.#inVain = 0;
      return 0;
    }
    this.#inVain++;
    if (this.#inVain >= IN_VAIN) this.#empty();
    return Math.min((reads * COOLDOWN) / 4 ** Math.max(IN_VAIN - 1 - this.#inVain, 0), MAX_COOLDOWN);
  }
}
