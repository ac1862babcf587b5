/**
 * Decides when the near cache is not asked. A lookup in it takes time, and keeping a value takes more. If hardly any key is
 * read again, both are wasted. So the near cache counts hits and misses in a sampling window. After a window with too few hits
 * there is a cooldown: for a number of reads the near cache is not asked. Then the next window begins.
 *
 * Everything is counted in reads and never in time, so the same reads have the same result on every machine.
 */

/** A window ends when the weights of its misses add up to this. */
const WINDOW = 4096;
/** A window was worth it when its hits were at least this part of its weighted misses. */
const WORTH = 1 / 4;
/** A value that took the slot of another counts as this many misses more: keeping a value takes longer than a lookup. */
const REPLACEMENT = 12;
/** While the table has free room, a window ends after this many misses that filled it, and fewer hits suffice. */
const FILLING_WINDOW = 65_536;
const WORTH_FILLING = 1 / 8;
/**
 * A full cooldown lasts for this many reads for each weighted miss of the window. The first cooldown lasts for a sixteenth of
 * that, the second for a quarter.
 */
const COOLDOWN = 64;
/**
 * After this many windows in a row that were not worth it, the table is emptied, so that the next window starts without
 * values.
 */
const IN_VAIN = 4;
const MAX_COOLDOWN = 1 << 30;

/** Decides for each read whether the near cache is asked. */
export class Cooldown {
  readonly #hits: () => number;
  readonly #empty: () => void;
  /** The weights of the misses of this window, without those that filled free room. */
  #misses = 0;
  /** Misses of this window that filled free room. */
  #filled = 0;
  /** The weight of the last miss. */
  #weight = 1;
  /** Values that took the slot of another in this window. */
  #replaced = 0;
  #hitsBefore: number;
  /** How many windows in a row were not worth it. */
  #inVain = 0;

  /**
   * @param hits returns how many reads the near caches of this participant have answered so far
   * @param empty empties the table
   */
  constructor(hits: () => number, empty: () => void) {
    this.#hits = hits;
    this.#empty = empty;
    this.#hitsBefore = hits();
  }

  /**
   * Counts a read that found its value in the engine and not in the near cache. Call it only when the key is present.
   *
   * @param weight how many misses this one counts as: more for a value that is decoded quickly
   * @returns for how many reads the near cache is not asked from now on; 0 for none
   */
  missed(weight: number): number {
    this.#weight = weight;
    this.#misses += weight;
    if (this.#misses >= WINDOW) return this.#judge((this.#misses + this.#replaced * REPLACEMENT) * WORTH);
    return this.#filled >= FILLING_WINDOW ? this.#judge(this.#filled * WORTH_FILLING) : 0;
  }

  /** Takes the last miss back, because the table is not full: values take free room, in this set or soon in others. */
  filled(): void {
    this.#misses -= this.#weight;
    this.#filled++;
  }

  /** Counts a value that takes the slot of another. */
  replaced(): void {
    this.#replaced++;
  }

  /** Ends the window; cools down when it had fewer hits than `enough`. */
  #judge(enough: number): number {
    const hits = this.#hits();
    const wasWorth = hits - this.#hitsBefore >= enough;
    const misses = this.#misses + this.#filled;
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
    return Math.min((misses * COOLDOWN) / 4 ** Math.max(IN_VAIN - 1 - this.#inVain, 0), MAX_COOLDOWN);
  }
}
