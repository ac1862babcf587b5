/**
 * One run: a cache, its participants, and its model. It opens the cache for each participant, with different options, and gives
 * the operations a view of each namespace.
 */

import type { Cache, CacheOptions, Codec, Key } from "cache-machine";
import * as together from "cache-machine";
import { same } from "../../src/testing/assert.ts";
import { ValueCodec } from "../../src/values/codec.ts";
import * as apart from "../host/apart.mjs";
import { Model } from "./model.ts";
import { build, NAMESPACE_TTLS, type Recipe, type ReopenOptions } from "./values.ts";

/** What the sequences of a test have in common. */
export interface Configuration {
  readonly reach: "threads" | "processes";
  readonly size: number;
  /** Whether the cache is too small for all entries, so that it evicts some. */
  readonly lossy: boolean;
  readonly codec?: Codec;
  /** Whether all participants share one seat, like several `Cache` objects of one thread. Otherwise each has its own. */
  readonly together?: boolean;
}

/** One participant, or one `Cache` object if they share a seat. */
export interface Participant {
  cache: Cache<any, Key>;
  options: ReopenOptions;
  /** The name that `openCache` was called with; `undefined` if the cache was opened by a handle. */
  name: string | undefined;
}

/** The options with which the participants open the cache first. */
const OPTIONS: readonly ReopenOptions[] = [{}, { nearCache: 0 }, { frozenObjects: true, nearCache: 16 }];
export const PARTICIPANTS: number = OPTIONS.length;

let names = 0;

/** The cache of one run with its participants and its model. */
export class World {
  readonly configuration: Configuration;
  readonly model: Model;
  readonly participants: readonly Participant[];
  /** What `stats` must count, for all participants together. */
  readonly counts = { hits: 0, misses: 0, sets: 0, deletes: 0 };
  readonly #package: Pick<typeof together, "attachCache" | "createCache" | "destroyCache" | "openCache">;
  readonly #codec: ValueCodec;
  readonly #scratch = new Uint8Array(64);
  readonly #name: string;
  readonly #used: Set<PropertyKey> | undefined;

  /** @param used - takes the names of the members of `Cache` that are used. */
  constructor(configuration: Configuration, used?: Set<PropertyKey>) {
    const { reach, size, lossy, codec } = configuration;
    this.configuration = configuration;
    this.#package = configuration.together ? together : apart;
    const { attachCache, createCache, openCache } = this.#package;
    this.model = new Model(lossy);
    this.#codec = new ValueCodec(codec);
    this.#used = used;
    this.#name = `t-${process.pid}-model-${names++}`;
    const participants: Participant[] = [];
    this.participants = participants;
    try {
      for (const options of OPTIONS) {
        const all = this.#all(options);
        const first = participants[0];
        const name = reach === "processes" ? this.#name : undefined;
        const cache =
          name !== undefined
            ? openCache(name, first === undefined ? { ...all, size } : all)
            : first === undefined
              ? createCache({ ...all, size })
              : attachCache(first.cache.handle, all);
        participants.push({ cache: this.#watched(cache), options, name });
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #all(options: ReopenOptions): CacheOptions {
    const { codec } = this.configuration;
    return { now: () => this.model.now, ...(codec && { codec }), ...options };
  }

  /** Opens the cache again for a participant that has closed it: by its name, or by the handle of another participant. */
  reopen(participant: Participant, options: ReopenOptions, byName: boolean): void {
    const other = this.participants.find((each) => each !== participant) as Participant;
    participant.name = byName && this.configuration.reach === "processes" ? this.#name : undefined;
    const all = this.#all(options);
    const { attachCache, openCache } = this.#package;
    const cache =
      participant.name === undefined ? attachCache(other.cache.handle, all) : openCache(participant.name, all);
    participant.cache = this.#watched(cache);
    participant.options = options;
  }

  /** The view that a participant has of a namespace. */
  view(participant: Participant, path: readonly string[]): Cache<any, Key> {
    const within = (cache: Cache<any, Key>, name: string): Cache<any, Key> => {
      const ttl = NAMESPACE_TTLS[name];
      return this.#watched(ttl === undefined ? cache.namespace(name) : cache.namespace(name, { ttl }));
    };
    return path.reduce(within, participant.cache);
  }

  /** Wraps a cache so that the names of its used members are noted. */
  #watched(cache: Cache<any, Key>): Cache<any, Key> {
    const used = this.#used;
    if (used === undefined) return cache;
    const watched: Cache<any, Key> = new Proxy(cache, {
      get(target, name) {
        used.add(name);
        const member: unknown = Reflect.get(target, name, target);
        if (typeof member !== "function") return member;
        return (...args: unknown[]): unknown => {
          const result: unknown = Reflect.apply(member, target, args);
          return result === target ? watched : result;
        };
      },
    });
    return watched;
  }

  /** Makes a value. Replaces one that the codec of the user does not give back unchanged. */
  build(recipe: Recipe, serial: number): unknown {
    const { codec } = this.configuration;
    const value = build(recipe, serial);
    return codec === undefined || !("named" in recipe) || keeps(codec, value) ? value : serial;
  }

  /** Whether a participant refuses a value because it is too large. */
  refuses(participant: Participant, value: unknown): boolean {
    const { maxEntrySize = Number.POSITIVE_INFINITY } = participant.options;
    const most = maxEntrySize === "5kb" ? 5120 : Number(maxEntrySize);
    return this.#codec.encode(value, this.#scratch) > Math.min(most, this.configuration.size / 8);
  }

  /** The expiry of an entry that a participant stores now in a namespace. */
  expiry(participant: Participant, path: readonly string[], ttl: number | undefined): number {
    const inherited = path.reduce<number | undefined>((outer, name) => NAMESPACE_TTLS[name] ?? outer, undefined);
    return this.model.now + (ttl ?? inherited ?? participant.options.ttl ?? Number.POSITIVE_INFINITY);
  }

  close(): void {
    for (const { cache } of this.participants) cache.close();
    if (this.configuration.reach === "processes") this.#package.destroyCache(this.#name);
  }
}

/** Whether the codec gives the value back unchanged. */
function keeps(codec: Codec, value: unknown): boolean {
  if (typeof value !== "object" || value === null) return true;
  try {
    same(codec.decode(codec.encode(value)), value);
    return true;
  } catch {
    return false;
  }
}
