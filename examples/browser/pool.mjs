/**
 * The pool of workers; each has one job at a time. The job of a terminated worker is given to another one.
 */

import { wrap } from "comlink";
import { keyOf } from "./fractal.mjs";

/** Duration of one batch of reads at full speed, in milliseconds. */
const READ_MS = 30;

export class Pool {
  /** The living workers by number. */
  members = new Map();
  #jobs = [];
  #keysToRead = [];
  #nextNumber = 1;
  #cacheFor;
  #onTile;

  /**
   * @param cacheFor returns the cache for a worker, and whether it is shared
   * @param onTile called with a tile's place and the worker's answer; without an answer the tile has to be requested again
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

  /** Terminates a worker at any moment; the place of the tile that it was rendering, if any. */
  terminate(number) {
    const { worker, job } = this.members.get(number);
    this.members.delete(number);
    worker.terminate();
    if (job !== undefined) this.#jobs.unshift(job);
    this.#wake();
    return job;
  }

  /** Replaces all jobs that no worker has begun; the first is the most urgent. */
  want(places) {
    const begun = new Set([...this.members.values()].map(({ job }) => job && keyOf(job)));
    this.#jobs = places.filter((place) => !begun.has(keyOf(place)));
    this.#wake();
  }

  /** Makes idle workers read these keys at random, until this is called with no keys. */
  read(keys) {
    this.#keysToRead = keys;
    this.#wake();
  }

  /** Makes every worker join its cache again before the next job, after the caches have changed. */
  rejoin() {
    for (const member of this.members.values()) member.cache = undefined;
    this.#wake();
  }

  #wake() {
    for (const member of this.members.values()) member.wake?.();
  }

  /** Gives jobs to a worker until it is terminated. A terminated worker never answers, so this function then never continues. */
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
    // If the caches have changed meanwhile, the answer is useless.
    this.#onTile(job, member.cache === cache ? answer : undefined);
  }

  async #read(member) {
    const { reads } = await member.api.read(this.#keysToRead, READ_MS);
    member.operations += reads;
  }
}
