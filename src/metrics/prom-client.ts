/**
 * Metrics of caches and tiers for [prom-client](https://www.npmjs.com/package/prom-client), and with it for Prometheus. Each scrape
 * reads the numbers anew: nothing is counted twice, and nothing runs between two scrapes.
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

/** What is needed of a registry of prom-client. */
export interface PromRegistry {
  getSingleMetric(name: string): unknown;
  removeSingleMetric(name: string): void;
}

/** What is needed of prom-client: the module itself. */
export interface PromClient {
  Counter: new (configuration: any) => { reset(): void; inc(labels: any, value?: number): void };
  Gauge: new (configuration: any) => { reset(): void; set(labels: any, value: number): void };
  register: PromRegistry;
}

/** Options of {@link collectMetrics}. */
export interface PromOptions extends MetricsOptions {
  /** The module: `import * as client from "prom-client"`, or what `require` returns. */
  client: PromClient;
  /** Where the metrics are registered; `client.register` by default. */
  register?: PromRegistry | undefined;
  /** What the names begin with; `"cache_machine_"` by default. */
  prefix?: string | undefined;
}

const UNITS: Record<string, string> = { By: "_bytes", s: "_seconds" };

/** The name as Prometheus wants it, with its base unit, and `_total` for a counter. */
function nameOf({ name, kind, unit }: Metric<any>): string {
  // The unit says that it is a size.
  const words = unit === "By" && name.at(-1) === "size" && name[0] !== "memory" ? name.slice(0, -1) : name;
  return words.join("_") + (UNITS[unit] ?? "") + (kind === "counter" ? "_total" : "");
}

/** The metrics of one registry, by prefix. */
interface Registered {
  readonly collection: Collection;
  metrics: Map<string, object>;
}
const registered: WeakMap<PromRegistry, Map<string, Registered>> = new WeakMap();

/**
 * Tells the numbers of caches and tiers to prom-client. Returns a function that ends that; the metrics go with the last cache. May
 * be called several times for one registry, with different caches. A cache that is closed is left out of the next scrape, and no
 * scrape fails because of a cache.
 *
 * The label `cache` has the name of the cache, `tier` that of the tier. The numbers are those of the whole host, whichever process is
 * scraped. So for the `AggregatorRegistry` of a cluster their `aggregator` is `"max"`, that of gauges `"first"`. Only the numbers of one
 * thread, such as its near cache, are added up.
 *
 * @param caches - a cache that was opened by name, or an array of them, or an object with caches and tiers by the name to tell.
 * @throws {TypeError} and {RangeError} for wrong arguments, and for a name that is told already; the errors of prom-client for a
 * wrong `prefix` and for a metric of that name that is not from here.
 */
export function collectMetrics(caches: Sources, options: PromOptions): () => void {
  const sources = checkSources(caches);
  const { client, register, prefix, censusMs } = check(options);
  const byPrefix = registered.get(register) ?? new Map<string, Registered>();
  registered.set(register, byPrefix);
  const entry: Registered = byPrefix.get(prefix) ?? { collection: new Collection(), metrics: new Map() };
  const { collection } = entry;
  const end = collection.add(sources, censusMs);
  const leave = (): void => {
    end();
    if (!collection.isEmpty) return;
    for (const [name, metric] of entry.metrics) {
      if (register.getSingleMetric(name) === metric) register.removeSingleMetric(name);
    }
    if (byPrefix.get(prefix) === entry) byPrefix.delete(prefix);
    entry.metrics = new Map();
  };
  byPrefix.set(prefix, entry);
  try {
    for (const metric of [...CACHE_METRICS, ...TIER_METRICS]) ensure(entry, metric, client, register, prefix);
  } catch (error) {
    leave();
    throw error;
  }
  return leave;
}

/** Registers a metric that is not registered, or not any more: a registry may be cleared. */
function ensure(
  { collection, metrics }: Registered,
  metric: Metric<any>,
  client: PromClient,
  register: PromRegistry,
  prefix: string,
): void {
  const name = prefix + nameOf(metric);
  const there = metrics.get(name);
  if (there !== undefined && register.getSingleMetric(name) === there) return;
  const isTier = metric.name[0] === "tier";
  const owner = isTier ? "tier" : "cache";
  const labelNames = metric.name.at(-1) === "requests" ? [owner, "result"] : [owner];
  const aggregator = !metric.isOfHost ? "sum" : metric.kind === "counter" ? "max" : "first";
  const common = { name, help: metric.help, labelNames, aggregator, registers: [register] };
  const labelled = (): [Record<string, string>, number][] =>
    collection
      .points()
      .filter((point) => point.metric === metric)
      .map(({ name, result, value }) => [{ [owner]: name, ...(result && { result }) }, value]);
  if (metric.kind === "counter") {
    const made: InstanceType<PromClient["Counter"]> = new client.Counter({
      ...common,
      collect: () => {
        made.reset();
        for (const [labels, value] of labelled()) made.inc(labels, value);
      },
    });
    metrics.set(name, made);
  } else {
    const made: InstanceType<PromClient["Gauge"]> = new client.Gauge({
      ...common,
      collect: () => {
        made.reset();
        for (const [labels, value] of labelled()) made.set(labels, value);
      },
    });
    metrics.set(name, made);
  }
}

function check(options: PromOptions): { client: PromClient; register: PromRegistry; prefix: string; censusMs: number } {
  const { given, prefix, censusMs } = checkMetricsOptions(options, ["client", "register"], "cache_machine_");
  const { client, register = client?.register } = given;
  if (typeof client?.Counter !== "function" || typeof client.Gauge !== "function") {
    throw new TypeError('client: must be the module: import * as client from "prom-client"');
  }
  if (typeof register?.getSingleMetric !== "function" || typeof register.removeSingleMetric !== "function") {
    throw new TypeError(`register: must be a Registry of prom-client, not ${describe(register)}`);
  }
  return { client, register, prefix, censusMs };
}
