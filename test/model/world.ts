/** The participants of one run: how they open the cache, with what options, and a look at it from each namespace. */

import type { Cache, CacheOptions, Codec } from "cache-machine";
import * as together from "cache-machine";
import { ValueCodec } from "../../src/values/codec.ts";
import { same } from "../contract/assert.ts";
import * as apart from "../host/apart.mjs";
import { Model } from "./known.ts";
import { build, type Recipe, type ReopenOptions } from "./values.ts";

export interface Configuration {
  readonly reach: "threads" | "processes";
  readonly size: number;
  /** Whether entries may be evicted, because not all of them fit. */
  readonly lossy: boolean;
  readonly codec?: Codec;
  /** Whether the participants have one seat, as `Cache` objects of one thread do. */
  readonly together?: boolean;
}

/** One participant. */
export interface Side {
  cache: Cache;
  options: ReopenOptions;
  /** As given to `openCache`. */
  name: string | undefined;
}

/** How the participants differ at first. */
const OPTIONS: readonly ReopenOptions[] = [{}, { nearCache: 0 }, { frozenObjects: true, nearCache: 16 }];
export const SIDES: number = OPTIONS.length;

let names = 0;

export class World {
  readonly configuration: Configuration;
  readonly model: Model;
  readonly sides: readonly Side[];
  /** What all participants together have counted. */
  readonly counts = { hits: 0, misses: 0, sets: 0, deletes: 0 };
  readonly #package: Pick<typeof together, "attachCache" | "createCache" | "destroyCache" | "openCache">;
  readonly #codec: ValueCodec;
  readonly #scratch = new Uint8Array(64);
  readonly #name: string;
  readonly #used: Set<PropertyKey> | undefined;

  /** @param used takes the names of all members of the interface that are used */
  constructor(configuration: Configuration, used?: Set<PropertyKey>) {
    const { reach, size, lossy, codec } = configuration;
    this.configuration = configuration;
    this.#package = configuration.together ? together : apart;
    const { attachCache, createCache, openCache } = this.#package;
    this.model = new Model(lossy);
    this.#codec = new ValueCodec(codec);
    this.#used = used;
    this.#name = `t-${process.pid}-model-${names++}`;
    const sides: Side[] = [];
    this.sides = sides;
    try {
      for (const options of OPTIONS) {
        const all = this.#all(options);
        const first = sides[0];
        const name = reach === "processes" ? this.#name : undefined;
        const cache =
          name !== undefined
            ? openCache(name, first === undefined ? { ...all, size } : all)
            : first === undefined
              ? createCache({ ...all, size })
              : attachCache(first.cache.handle, all);
        sides.push({ cache: this.#watched(cache), options, name });
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

  /** Opens the cache again for a participant that has closed it, by name where there is one, or by another's handle. */
  reopen(side: Side, options: ReopenOptions, byName: boolean): void {
    const other = this.sides.find((each) => each !== side) as Side;
    side.name = byName && this.configuration.reach === "processes" ? this.#name : undefined;
    const all = this.#all(options);
    const { attachCache, openCache } = this.#package;
    const cache = side.name === undefined ? attachCache(other.cache.handle, all) : openCache(side.name, all);
    side.cache = this.#watched(cache);
    side.options = options;
  }

  /** What a participant sees of a namespace. */
  view(side: Side, path: readonly string[]): Cache {
    return path.reduce<Cache>((cache, name) => this.#watched(cache.namespace(name)), side.cache);
  }

  #watched(cache: Cache): Cache {
    const used = this.#used;
    if (used === undefined) return cache;
    const watched: Cache = new Proxy(cache, {
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

  /** Makes a value, another one when it is of a kind that the user's codec does not keep. */
  build(recipe: Recipe, serial: number): unknown {
    const { codec } = this.configuration;
    const value = build(recipe, serial);
    return codec === undefined || !("kind" in recipe) || keeps(codec, value) ? value : serial;
  }

  /** Whether a value is too large for a participant. */
  refuses(side: Side, value: unknown): boolean {
    const { maxEntrySize = Number.POSITIVE_INFINITY } = side.options;
    const most = maxEntrySize === "5kb" ? 5120 : Number(maxEntrySize);
    return this.#codec.encode(value, this.#scratch) > Math.min(most, this.configuration.size / 8);
  }

  /** When an entry expires that a participant stores now. */
  expiry(side: Side, ttl: number | undefined): number {
    return this.model.now + (ttl ?? side.options.ttl ?? Number.POSITIVE_INFINITY);
  }

  close(): void {
    for (const { cache } of this.sides) cache.close();
    if (this.configuration.reach === "processes") this.#package.destroyCache(this.#name);
  }
}

function keeps(codec: Codec, value: unknown): boolean {
  if (typeof value !== "object" || value === null) return true;
  try {
    same(codec.decode(codec.encode(value)), value);
    return true;
  } catch {
    return false;
  }
}
