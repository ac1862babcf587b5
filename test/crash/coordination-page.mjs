/**
 * The page of a test of coordination: what each participant is doing, in memory that survives its writers. It uses plain atomics and
 * not the cache under test. Threads share it as memory, processes as a mapped file.
 *
 * ```text
 * i32   0 clock │ 1 stop │ 2 final stamp │ 16 floors of the changing keys │ 32 for each lock: holder, counter, last fence
 *      64 + 32 × participant: steps │ incarnation that is about to end │ incarnation that was
 *                            frozen │ for each still key the incarnation that loads it
 *    4096 grants of each limit
 * ```
 */
import { demand } from "./checked-values.mjs";

/** Keys of each kind, locks, keys that are waited for, and the number that a limit lets through. */
export const KEYS = 8;
export const LOCKS = 3;
export const WAITED = 4;
export const LIMIT = 60;

const PARTICIPANTS = 16;
const [CLOCK, STOP, FINAL] = [0, 1, 2];
const FLOORS = 16;
const LOCK_AT = 32;
const LOCK_WORDS = 4;
const [HOLDER, COUNTER, FENCE] = [0, 1, 2];
const PARTICIPANT_AT = 64;
const PARTICIPANT_WORDS = 32;
const [STEPS, ENDING, FROZEN, LOADS] = [0, 1, 2, 3];
const GRANTS = 4096;
const EPOCHS = 8192;
/** Stamps for which one limit is used. */
const EPOCH_STAMPS = 4_000;

export class Page {
  #words;
  #id;
  #incarnation;

  constructor(memory, id, incarnation) {
    this.#words = new Int32Array(memory.buffer);
    this.#id = id;
    this.#incarnation = incarnation;
  }

  #load(at) {
    return Atomics.load(this.#words, at);
  }

  #own(id, word) {
    return PARTICIPANT_AT + id * PARTICIPANT_WORDS + word;
  }

  /** The next stamp. */
  stamp() {
    return Atomics.add(this.#words, CLOCK, 1) + 1;
  }

  get stopped() {
    return this.#load(STOP) === 1;
  }

  stop() {
    Atomics.store(this.#words, STOP, 1);
  }

  /** The stamp of the last values of the watched keys. */
  get final() {
    return this.#load(FINAL) || Infinity;
  }

  finish(stamp) {
    Atomics.store(this.#words, FINAL, stamp);
  }

  stepped() {
    Atomics.add(this.#words, this.#own(this.#id, STEPS), 1);
  }

  steps(id) {
    return this.#load(this.#own(id, STEPS));
  }

  /** Before a participant is killed or terminated: its loads and its locks end. */
  end(id, incarnation) {
    Atomics.store(this.#words, this.#own(id, ENDING), incarnation);
  }

  /** Before a participant is frozen: its loads may be replaced, but it keeps its locks. */
  freeze(id, incarnation) {
    Atomics.store(this.#words, this.#own(id, FROZEN), incarnation);
  }

  /** Whether this incarnation of a participant, or a later one, is about to end or has ended. */
  #isEnding(id, incarnation) {
    return incarnation <= this.#load(this.#own(id, ENDING));
  }

  /** A loader of a key begins. */
  beginLoad(key) {
    for (let other = 0; other < PARTICIPANTS; other++) {
      const running = this.#load(this.#own(other, LOADS + key));
      const excepted = this.#isEnding(other, running) || running <= this.#load(this.#own(other, FROZEN));
      demand(running === 0 || excepted, "one living loader of a key runs at a time", () => ({
        key,
        other: [other, running],
        me: [this.#id, this.#incarnation],
      }));
    }
    Atomics.store(this.#words, this.#own(this.#id, LOADS + key), this.#incarnation);
  }

  endLoad(key) {
    Atomics.store(this.#words, this.#own(this.#id, LOADS + key), 0);
  }

  /** The last stamp at which a change of a key began that has returned. */
  floor(key) {
    return this.#load(FLOORS + key);
  }

  raiseFloor(key, stamp) {
    for (let seen = this.floor(key); seen < stamp; ) {
      const was = Atomics.compareExchange(this.#words, FLOORS + key, seen, stamp);
      if (was === seen) return;
      seen = was;
    }
  }

  #lock(lock, word) {
    return LOCK_AT + lock * LOCK_WORDS + word;
  }

  /** Enters a section under a lock. */
  enter(lock, fence) {
    const at = this.#lock(lock, HOLDER);
    const seen = this.#load(at);
    const [holder, incarnation] = [(seen & 31) - 1, seen >> 5];
    const told = () => ({ lock, holder, incarnation, me: [this.#id, this.#incarnation], fence });
    demand(seen === 0 || this.#isEnding(holder, incarnation), "a lock has one holder", told);
    const mine = (this.#incarnation << 5) | (this.#id + 1);
    demand(Atomics.compareExchange(this.#words, at, seen, mine) === seen, "a lock has one holder", told);
    const last = this.#load(this.#lock(lock, FENCE));
    demand(fence > last, "fences grow", () => ({ ...told(), last }));
    Atomics.store(this.#words, this.#lock(lock, FENCE), fence);
  }

  counted(lock) {
    return this.#load(this.#lock(lock, COUNTER));
  }

  /** Writes the counter of a lock one higher than it was `seen`, and leaves the section. */
  leave(lock, seen) {
    const was = Atomics.compareExchange(this.#words, this.#lock(lock, COUNTER), seen, seen + 1);
    demand(was === seen, "a counter under a lock is exact", () => ({ lock, seen, was }));
    Atomics.store(this.#words, this.#lock(lock, HOLDER), 0);
  }

  /** The number of the limit that is used now. */
  epoch() {
    return Math.floor(this.#load(CLOCK) / EPOCH_STAMPS) % EPOCHS;
  }

  grant(epoch) {
    return Atomics.add(this.#words, GRANTS + epoch, 1) + 1;
  }

  granted(epoch) {
    return this.#load(GRANTS + epoch);
  }
}
