/**
 * What metrics are made of: the table of all metrics, and the caches and tiers whose numbers are told. `prom-client.ts` and
 * `opentelemetry.ts` say it in the terms of their library.
 *
 * Most numbers are those of the whole host: every process tells the same ones. Few are those of this thread only, and add up.
 * Keys are never told.
 */

import type { Cache, Stats } from "../index.ts";
import { checkOptions } from "../option-names.ts";
import type { Tier, TierStats } from "../tier/index.ts";
import { describe } from "../values/describe.ts";

/** A cache or a tier. Its methods are looked at, and not its class, because it may come from another copy of this package. */
export type Source = Pick<Cache<any, any>, "stats" | "census" | "name"> | Pick<Tier<any, any>, "stats" | "peek">;

/** Caches and tiers: one cache that has a name, several of them, or an object with caches and tiers by the name to tell. */
export type Sources = Source | readonly Source[] | { readonly [name: string]: Source };

/** Options that all collectors have. */
export interface MetricsOptions {
  /**
   * Whether to tell the number of entries and their bytes, which takes a walk through the index: half a second with a million
   * entries. `true` walks at most every 10 seconds, a number at most every so many milliseconds, and in any case a walk is followed
   * by a rest of a hundred times its duration, during which its numbers are told again. `false` by default.
   */
  census?: boolean | number | undefined;
}

/** What one cache tells at one moment. */
export interface CacheReading extends Stats {
  entries?: number;
  entryBytes?: number;
}

/** A metric of caches, or of tiers. */
export interface Metric<R> {
  /** Words of the name. */
  readonly name: readonly string[];
  readonly kind: "counter" | "gauge";
  /** As OpenTelemetry writes it. */
  readonly unit: string;
  readonly help: string;
  /** Whether every process of the host tells the same number. Otherwise the numbers of the threads add up. */
  readonly isOfHost: boolean;
  /** The value, or the values by the result of a request. Seconds and bytes, as all metrics. */
  readonly value: (reading: R) => number | { readonly hit: number; readonly miss: number } | undefined;
}

type Value<R> = Metric<R>["value"];

function counter<R>(name: string, unit: string, help: string, isOfHost: boolean, value: Value<R>): Metric<R> {
  return { name: name.split("."), kind: "counter", unit, help, isOfHost, value };
}

function gauge<R>(name: string, unit: string, help: string, isOfHost: boolean, value: Value<R>): Metric<R> {
  return { name: name.split("."), kind: "gauge", unit, help, isOfHost, value };
}

export const CACHE_METRICS: readonly Metric<CacheReading>[] = [
  counter("requests", "{request}", "Reads, by whether they found a value.", true, ({ hits, misses }) => ({
    hit: hits,
    miss: misses,
  })),
  counter("sets", "{set}", "Values stored.", true, ({ sets }) => sets),
  counter("deletes", "{delete}", "Entries removed by delete and take.", true, ({ deletes }) => deletes),
  counter("evictions", "{entry}", "Entries that made room for others.", true, ({ evictions }) => evictions),
  counter("expirations", "{entry}", "Expired entries whose memory was taken back.", true, (all) => all.expirations),
  counter("reclaims", "{segment}", "Segments of memory emptied to be used again.", true, ({ reclaims }) => reclaims),
  counter(
    "compactions",
    "{segment}",
    "Reclaims that moved all live entries of the segment.",
    true,
    ({ compactions }) => compactions,
  ),
  gauge("memory.size", "By", "Shared memory of the cache.", true, ({ size }) => size),
  gauge("memory.capacity", "By", "The most memory that entries can take.", true, ({ capacity }) => capacity),
  gauge("memory.used", "By", "Memory of the segments that are in use.", true, ({ used }) => used),
  gauge("participants", "{thread}", "Threads that have the cache open.", true, ({ participants }) => participants),
  gauge("entries", "{entry}", "Entries that can be read.", true, ({ entries }) => entries),
  gauge("entry.size", "By", "Memory that these entries take.", true, ({ entryBytes }) => entryBytes),
  gauge("near.entries", "{entry}", "Values in the near cache of this thread.", false, ({ near }) => near.entries),
  gauge("near.size", "By", "Heap that the near cache of this thread takes.", false, ({ near }) => near.bytes),
];

export const TIER_METRICS: readonly Metric<TierStats>[] = [
  counter(
    "tier.requests",
    "{request}",
    "Reads of this thread, by whether the host's memory answered.",
    false,
    (all) => ({
      hit: all.own.hits,
      miss: all.own.misses,
    }),
  ),
  counter("tier.loads", "{load}", "Loaders that ran in this thread.", false, ({ own }) => own.loads),
  counter("tier.commands", "{command}", "Commands that this thread sent.", false, ({ own }) => own.commands),
  counter("tier.errors", "{error}", "Reads and writes the server did not answer.", false, ({ own }) => own.errors),
  gauge("tier.good", "1", "1 while the host's memory may be read.", true, ({ isGood }) => (isGood ? 1 : 0)),
  gauge("tier.lease", "s", "Time for which the memory stays good.", true, ({ leaseLeft }) => leaseLeft / 1000),
  counter("tier.epochs", "{epoch}", "New connections, which emptied the memory.", true, ({ owner }) => owner?.epochs),
  counter("tier.invalidations", "{key}", "Changed keys that were pushed.", true, ({ owner }) => owner?.invalidations),
  counter("tier.beats", "{beat}", "Beats that were answered.", true, ({ owner }) => owner?.beats),
  gauge("tier.round_trip", "s", "Duration of the latest beat.", true, ({ owner }) => owner && owner.roundTrip / 1000),
];

/** Milliseconds between two walks through the index, if the user says `census: true`. */
const CENSUS_MS = 10_000;
/** A walk is followed by a rest of so many times its duration: it takes one per cent of a thread at most. */
const REST = 100;

/** One value of one metric. */
export interface Point {
  readonly metric: Metric<any>;
  readonly name: string;
  /** Whether `name` is that of a tier. */
  readonly isTier: boolean;
  readonly result: "hit" | "miss" | undefined;
  readonly value: number;
}

/** A cache or tier, and the latest census of it. */
class Watched {
  readonly source: Source;
  readonly isTier: boolean;
  readonly #censusMs: number;
  #census: { entries: number; bytes: number } | undefined;
  #next = -Infinity;

  constructor(source: Source, censusMs: number) {
    this.source = source;
    this.isTier = !isCache(source);
    this.#censusMs = censusMs;
  }

  /** @throws {CacheError} and whatever else may come: a source is not trusted. */
  read(): CacheReading | TierStats {
    const { source } = this;
    if (!isCache(source)) return source.stats();
    const stats = source.stats();
    if (this.#censusMs === Infinity) return stats;
    const begun = performance.now();
    if (begun >= this.#next) {
      this.#census = source.census();
      const ended = performance.now();
      this.#next = ended + Math.max(this.#censusMs, REST * (ended - begun));
    }
    const { entries, bytes } = this.#census as { entries: number; bytes: number };
    return { ...stats, entries, entryBytes: bytes };
  }
}

/** The sources of one register, or one meter. */
export class Collection {
  readonly #watched = new Map<string, Watched>();
  #points: Point[] | undefined;

  get isEmpty(): boolean {
    return this.#watched.size === 0;
  }

  /**
   * Adds sources. Returns a function that takes them out again.
   *
   * @throws {RangeError} when a name is taken by a source that is still open. Then none is added.
   */
  add(sources: ReadonlyMap<string, Source>, censusMs: number): () => void {
    for (const [name, source] of sources) {
      const there = this.#watched.get(name);
      if (there !== undefined && there.isTier === !isCache(source) && isOpen(there)) {
        throw new RangeError(
          `caches: ${JSON.stringify(name)} is told already. End that first, or give this one another name: { name: cache }.`,
        );
      }
    }
    const added = [...sources].map(([name, source]): [string, Watched] => [name, new Watched(source, censusMs)]);
    for (const [name, watched] of added) this.#watched.set(name, watched);
    this.#points = undefined;
    return () => {
      for (const [name, watched] of added) if (this.#watched.get(name) === watched) this.#watched.delete(name);
      this.#points = undefined;
    };
  }

  /** All values now. Never throws. All who ask in one task get the same. A source that cannot be read is left out. */
  points(): readonly Point[] {
    if (this.#points === undefined) {
      this.#points = [...this.#watched].flatMap(([name, watched]) => {
        try {
          return pointsOf(name, watched);
        } catch (error) {
          if ((error as { code?: unknown } | undefined)?.code === "ERR_CLOSED") this.#watched.delete(name);
          // Or it is damaged. A scrape tells what there is.
          return [];
        }
      });
      queueMicrotask(() => (this.#points = undefined));
    }
    return this.#points;
  }
}

function pointsOf(name: string, watched: Watched): Point[] {
  const { isTier } = watched;
  const metrics: readonly Metric<any>[] = isTier ? TIER_METRICS : CACHE_METRICS;
  const reading = watched.read();
  return metrics.flatMap((metric) => {
    const value = metric.value(reading);
    const point = (each: number | undefined, result: Point["result"]): Point[] =>
      // Damaged memory may hold any number.
      Number.isFinite(each) && (each as number) >= 0 ? [{ metric, name, isTier, result, value: each as number }] : [];
    if (typeof value !== "object") return point(value, undefined);
    return [...point(value.hit, "hit"), ...point(value.miss, "miss")];
  });
}

function isOpen({ source }: Watched): boolean {
  try {
    source.stats();
    return true;
  } catch {
    return false;
  }
}

function isCache(source: Source): source is Extract<Source, { census: unknown }> {
  return typeof (source as { census?: unknown }).census === "function";
}

function isSource(value: unknown): value is Source {
  const { stats, census, peek } = (value ?? {}) as Record<string, unknown>;
  return typeof stats === "function" && (typeof census === "function" || typeof peek === "function");
}

const WANTED =
  "must be a cache that was opened by name, or an array of them, or an object with caches and tiers by the name to tell";

/** Checks the caches of a user. Returns them by name. @throws {TypeError} and {RangeError} naming the argument. */
export function checkSources(sources: Sources): Map<string, Source> {
  const found = new Map<string, Source>();
  if (typeof sources !== "object" || sources === null)
    throw new TypeError(`caches: ${WANTED}, not ${describe(sources)}`);
  if (isSource(sources) || Array.isArray(sources)) {
    for (const source of isSource(sources) ? [sources] : (sources as readonly Source[])) {
      if (!isSource(source)) throw new TypeError(`caches: ${WANTED}, not ${describe(source)}`);
      const { name } = source as { name?: string };
      if (name === undefined) {
        throw new TypeError(
          "caches: a tier, and a cache that was not opened by name, needs a name to tell: { name: cache }",
        );
      }
      if (found.has(name)) throw new RangeError(`caches: ${JSON.stringify(name)} is in the list twice`);
      found.set(name, source);
    }
    return found;
  }
  for (const [name, source] of Object.entries(sources)) {
    if (!isSource(source))
      throw new TypeError(`caches.${name.slice(0, 30)}: must be a cache or a tier, not ${describe(source)}`);
    found.set(name, source);
  }
  return found;
}

/**
 * Checks what both entries have among their options, and the names of all of them.
 *
 * @param own the names of the options that only this entry has; the first one has to be there
 * @param prefix the default of `prefix`
 */
export function checkMetricsOptions<O extends MetricsOptions & { prefix?: string | undefined }>(
  options: O,
  own: readonly (keyof O & string)[],
  prefix: string,
): { given: Partial<O>; prefix: string; censusMs: number } {
  if (options === undefined) throw new TypeError(`options: must be an object with the option \`${own[0]}\``);
  // Options may be inherited, so they are not copied.
  const given = checkOptions<O>(options, [...own, "prefix", "census"]);
  const { prefix: text = prefix, census } = given;
  if (typeof text !== "string") throw new TypeError(`prefix: must be a string, not ${describe(text)}`);
  return { given, prefix: text, censusMs: checkCensus(census) };
}

/** Checks the option `census`. Returns the milliseconds between two walks; `Infinity` for none. @throws {TypeError} and {RangeError}. */
function checkCensus(census: boolean | number | undefined): number {
  if (census === undefined || census === false) return Infinity;
  if (census === true) return CENSUS_MS;
  if (typeof census !== "number")
    throw new TypeError(`census: must be a boolean or milliseconds, not ${describe(census)}`);
  if (!(census >= 0)) throw new RangeError(`census: must be at least 0 milliseconds, not ${census}`);
  return census;
}
