/**
 * The workers, one job in each at a time. A job that a terminated worker had in hand goes to another one.
 */

import { wrap } from "comlink";
import { keyOf } from "./fractal.mjs";

/** Milliseconds of reading in one go, when reading as fast as possible is asked for. */
const READ_MS = 30;

export class Pool {
  /** Those that are at work, by number. */
  members = new Map();
  #jobs = [];
  #keysToRead = [];
  #nextNumber = 1;
  #cacheFor;
  #onTile;

  /**
   * @param cacheFor gives the cache of a worker, and whether the page and the others have the same
   * @param onTile is told the place and the answer of the worker; without one, that the place has to be asked for again
   */
  constructor(cacheFor, onTile) {
    this.#cacheFor = cacheFor;
    this.#onTile = onTile;
  }

  add() {
    const number = this.#nextNumber++;
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module", name: `worker ${number}` });
    const member = {
      number,
      worker,
      api: wrap(worker),
      job: undefined,
      rendered: 0,
      found: 0,
      others: 0,
      operations: 0,
    };
    this.members.set(number, member);
    void this.#work(member);
    return member;
  }

  /** Ends a worker wherever it is; the place it was working on, if any. */
  terminate(number) {
    const { worker, job } = this.members.get(number);
    this.members.delete(number);
    worker.terminate();
    if (job !== undefined) this.#jobs.unshift(job);
    this.#wake();
    return job;
  }

  /** Replaces all jobs that nobody has begun; the first is the most urgent. */
  want(places) {
    const begun = new Set([...this.members.values()].map(({ job }) => job && keyOf(job)));
    this.#jobs = places.filter((place) => !begun.has(keyOf(place)));
    this.#wake();
  }

  /** Whoever has nothing to render reads these keys at random, again and again; none for not at all. */
  read(keys) {
    this.#keysToRead = keys;
    this.#wake();
  }

  /** After the caches have changed: everybody joins theirs before the next job. */
  rejoin() {
    for (const member of this.members.values()) member.cache = undefined;
    this.#wake();
  }

  #wake() {
    for (const member of this.members.values()) member.wake?.();
  }

  /** What a worker does until it is terminated. The answer of a terminated one never comes, and then this never goes on. */
  async #work(member) {
    while (this.members.has(member.number)) {
      const given = this.#cacheFor(member.number);
      if (member.cache !== given.cache) {
        member.cache = given.cache;
        await member.api.join(given.cache.handle, member.number, given.shared);
      }
      const job = this.#jobs.shift();
      if (job !== undefined) await this.#render(member, job, given.cache);
      else if (this.#keysToRead.length > 0) await this.#read(member);
      else {
        await new Promise((resolve) => {
          member.wake = resolve;
        });
      }
    }
  }

  async #render(member, job, cache) {
    member.job = job;
    const answer = await member.api.tile(job);
    member.job = undefined;
    member.operations += answer.found ? 1 : 2;
    if (!answer.found) member.rendered++;
    else {
      member.found++;
      if (answer.by !== member.number) member.others++;
    }
    // The caches may have changed meanwhile, and then what it did is of no use.
    this.#onTile(job, member.cache === cache ? answer : undefined);
  }

  async #read(member) {
    const { reads } = await member.api.read(this.#keysToRead, READ_MS);
    member.operations += reads;
  }
}
