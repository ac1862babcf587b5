/**
 * The pool of workers. Nobody divides the work: with a shared cache, every worker is asked for every tile, in the same order. The
 * first one renders it, and the others go on to the next tile while they wait for this one. If it is terminated, one of those who
 * wait renders the tile.
 */

import { wrap } from "comlink";
import { keyOf } from "./fractal.mjs";

/** Duration of one batch of reads at full speed, in milliseconds. */
const READ_MS = 30;

export class Pool {
  /** The living workers by number. */
  members = new Map();
  /** The tiles that the map wants, by key; the first is the most urgent. */
  #wanted = new Map();
  #keysToRead = [];
  #nextNumber = 1;
  #cacheFor;
  #onAnswer;

  /**
   * @param cacheFor returns the cache for a worker, and whether it is shared
   * @param onAnswer called with a tile's place, a worker's answer, and whether it is the first answer
   */
  constructor(cacheFor, onAnswer) {
    this.#cacheFor = cacheFor;
    this.#onAnswer = onAnswer;
  }

  add() {
    const number = this.#nextNumber++;
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module", name: `worker ${number}` });
    const member = {
      number,
      worker,
      api: wrap(worker),
      /** Keys of the tiles that it was asked for and has not answered. */
      asked: new Set(),
      /** Key of the tile that it is rendering. */
      rendering: undefined,
      rendered: 0,
      found: 0,
      joined: 0,
      others: 0,
      operations: 0,
    };
    // Comlink ignores messages that are not its own.
    worker.addEventListener("message", ({ data }) => {
      if (data.rendering !== undefined) member.rendering = data.rendering;
    });
    this.members.set(number, member);
    void this.#work(member);
    // With more workers, each is asked for more tiles at once.
    this.#wake();
    return member;
  }

  /** Terminates a worker at any moment; the key of the tile that it was rendering, if any. */
  terminate(number) {
    const { worker, rendering } = this.members.get(number);
    this.members.delete(number);
    worker.terminate();
    this.#wake();
    return rendering;
  }

  /** Replaces all wanted tiles; the first is the most urgent. */
  want(places) {
    this.#wanted = new Map(places.map((place) => [keyOf(place), place]));
    this.#wake();
  }

  /** Makes idle workers read these keys at random, until this is called with no keys. */
  read(keys) {
    this.#keysToRead = keys;
    this.#wake();
  }

  /** Makes every worker join its cache again before the next tile, after the caches have changed. */
  rejoin() {
    for (const member of this.members.values()) member.cache = undefined;
    this.#wake();
  }

  #wake() {
    for (const member of this.members.values()) member.wake?.();
  }

  /** Asks a worker for tiles until it is terminated. A terminated worker never answers. */
  async #work(member) {
    while (this.members.has(member.number)) {
      const { cache, shared } = this.#cacheFor(member.number);
      if (member.cache !== cache) {
        member.cache = cache;
        member.asked.clear();
        await member.api.join(cache.handle, member.number, shared);
        continue;
      }
      const place = this.#next(member, shared);
      if (place !== undefined) void this.#ask(member, place, cache);
      else if (this.#keysToRead.length > 0 && member.asked.size === 0) await this.#read(member);
      else {
        await new Promise((resolve) => {
          member.wake = resolve;
        });
      }
    }
  }

  /** The next tile for a worker. One more tile than there are workers is enough: all but one of them may be with the others. */
  #next(member, shared) {
    if (member.asked.size > (shared ? this.members.size : 0)) return undefined;
    for (const [key, place] of this.#wanted) {
      if (!member.asked.has(key) && (shared || !this.#isAsked(key))) return place;
    }
    return undefined;
  }

  #isAsked(key) {
    return [...this.members.values()].some(({ asked }) => asked.has(key));
  }

  async #ask(member, place, cache) {
    const key = keyOf(place);
    member.asked.add(key);
    let answer;
    try {
      answer = await member.api.tile(place);
    } catch (error) {
      // The worker has closed this cache, because the caches have changed.
      if (member.cache === cache) throw error;
    }
    if (member.rendering === key) member.rendering = undefined;
    if (member.cache === cache) {
      member.asked.delete(key);
      this.#count(member, answer);
      this.#onAnswer(place, answer, this.#wanted.delete(key));
    }
    member.wake?.();
  }

  #count(member, { outcome, by }) {
    member.operations += outcome === "hit" ? 1 : 2;
    if (outcome === "loaded") member.rendered++;
    else if (outcome === "joined") member.joined++;
    else {
      member.found++;
      if (by !== member.number) member.others++;
    }
  }

  async #read(member) {
    const { reads } = await member.api.read(this.#keysToRead, READ_MS);
    member.operations += reads;
  }
}
