/**
 * Metrics of caches and tiers for [OpenTelemetry](https://www.npmjs.com/package/@opentelemetry/api): observable instruments, which the
 * SDK reads when it collects. There are no semantic conventions for caches, so the names begin with that of this package, as the
 * conventions ask for.
 *
 * @packageDocumentation
 */

import { describe } from "../values/describe.ts";
import {
  CACHE_METRICS,
  Collection,
  checkMetricsOptions,
  checkSources,
  type Metric,
  type MetricsOptions,
  type Source,
  type Sources,
  TIER_METRICS,
} from "./sources.ts";

export type { MetricsOptions, Source, Sources };

/** What is needed of a meter of OpenTelemetry. */
export interface OtelMeter {
  createObservableCounter(name: string, options?: any): any;
  createObservableGauge(name: string, options?: any): any;
  createObservableUpDownCounter(name: string, options?: any): any;
  addBatchObservableCallback(callback: (result: any) => void, observables: any[]): void;
  removeBatchObservableCallback(callback: (result: any) => void, observables: any[]): void;
}

/** Options of {@link observeMetrics}. */
export interface OtelOptions extends MetricsOptions {
  /** As `metrics.getMeter("cache-machine")` of `@opentelemetry/api`, or of a `MeterProvider`, returns it. */
  meter: OtelMeter;
  /** What the names of instruments and attributes begin with; `"cache_machine."` by default. */
  prefix?: string | undefined;
}

interface Observed {
  readonly collection: Collection;
  /** Stops to observe. */
  readonly stop: () => void;
}
const observed: WeakMap<OtelMeter, Map<string, Observed>> = new WeakMap();

/**
 * Tells the numbers of caches and tiers to a meter of OpenTelemetry. Returns a function that ends that. May be called several times for
 * one meter, with different caches. A cache that is closed is not observed from then on; where values are cumulative, the SDK repeats the
 * last ones.
 *
 * The attribute `cache_machine.cache.name` has the name of the cache, `cache_machine.tier.name` that of the tier, and
 * `cache_machine.request.result` of the requests is `"hit"` or `"miss"`. The numbers are those of the whole host. When several processes
 * of it export them, take the largest and not the sum, or let one process observe.
 *
 * @param caches - a cache that was opened by name, or an array of them, or an object with caches and tiers by the name to tell.
 * @throws {TypeError} and {RangeError} for wrong arguments, and for a name that is told already.
 */
export function observeMetrics(caches: Sources, options: OtelOptions): () => void {
  const sources = checkSources(caches);
  const { meter, prefix, censusMs } = check(options);
  const byPrefix = observed.get(meter) ?? new Map<string, Observed>();
  observed.set(meter, byPrefix);
  const entry = byPrefix.get(prefix) ?? observe(meter, prefix);
  const end = entry.collection.add(sources, censusMs);
  byPrefix.set(prefix, entry);
  return () => {
    end();
    if (!entry.collection.isEmpty || byPrefix.get(prefix) !== entry) return;
    byPrefix.delete(prefix);
    entry.stop();
  };
}

/** Makes all instruments, and begins to observe. */
function observe(meter: OtelMeter, prefix: string): Observed {
  const collection = new Collection();
  const all: readonly Metric<any>[] = [...CACHE_METRICS, ...TIER_METRICS];
  const instruments = new Map(all.map((metric) => [metric, instrumentOf(meter, metric, prefix)]));
  const callback = (result: { observe(instrument: unknown, value: number, attributes: object): void }): void => {
    for (const { metric, name, isTier, result: found, value } of collection.points()) {
      const attributes = { [`${prefix}${isTier ? "tier" : "cache"}.name`]: name };
      if (found !== undefined) attributes[`${prefix}request.result`] = found;
      result.observe(instruments.get(metric), value, attributes);
    }
  };
  const observables = [...instruments.values()];
  meter.addBatchObservableCallback(callback, observables);
  return { collection, stop: () => meter.removeBatchObservableCallback(callback, observables) };
}

/** Numbers that add up are up-down counters. Those of the whole host do not, so they are gauges. */
function instrumentOf(meter: OtelMeter, { name, kind, unit, help, isOfHost }: Metric<any>, prefix: string): object {
  const full = prefix + name.join(".");
  const options = { unit, description: help };
  if (kind === "counter") return meter.createObservableCounter(full, options);
  return isOfHost ? meter.createObservableGauge(full, options) : meter.createObservableUpDownCounter(full, options);
}

function check(options: OtelOptions): { meter: OtelMeter; prefix: string; censusMs: number } {
  const { given, prefix, censusMs } = checkMetricsOptions(options, ["meter"], "cache_machine.");
  const { meter } = given;
  if (typeof meter?.addBatchObservableCallback !== "function") {
    throw new TypeError(`meter: must be a Meter of OpenTelemetry, not ${describe(meter)}`);
  }
  return { meter, prefix, censusMs };
}
