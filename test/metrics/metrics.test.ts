/** The collectors with the real libraries, in one process. In several processes: hosts.test.ts. */

import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  MetricReader,
} from "@opentelemetry/sdk-metrics";
import { type Cache, createCache, destroyCache, openCache } from "cache-machine";
import { observeMetrics } from "cache-machine/opentelemetry";
import { collectMetrics } from "cache-machine/prom-client";
import client, { Registry } from "prom-client";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { compile } from "../adapters/compile.ts";
import { parse } from "./exposition.ts";

const NAME = `t-${process.pid}-metrics`;
let cache: Cache;
let register: Registry;

beforeEach(() => {
  cache = openCache(NAME, { size: "1mb", nearCache: 10 });
  register = new Registry();
  cache.set("a", { b: 1 }).set("secret key", 2).delete("secret key");
  for (let i = 0; i < 3; i++) cache.get("a");
  cache.get("missing");
});

afterEach(() => {
  cache.close();
  destroyCache(NAME);
});

const scrape = async () => parse(await register.metrics());
const label = `cache="${NAME}"`;

/** A tier's numbers, as `tier.stats()` returns them. */
const tierOf = (stats: object) => ({ peek: () => undefined, stats: () => stats }) as never;
const TIER = {
  isGood: true,
  leaseLeft: 700,
  owner: {
    pid: 1,
    threadId: 0,
    state: "following",
    since: 0,
    age: 1,
    epochs: 2,
    invalidations: 30,
    beats: 40,
    roundTrip: 5,
  },
  own: { hits: 5, misses: 6, loads: 7, errors: 8, commands: 9 },
};

test("the collectors fit the types of prom-client and OpenTelemetry", () =>
  compile(new URL("metrics.types.ts", import.meta.url).pathname));

describe("prom-client", () => {
  test("tells the numbers of stats(), by the conventions for names, and no key", async () => {
    collectMetrics(cache, { client, register });
    const text = await register.metrics();
    const { values, types } = parse(text);
    const { hits, misses, sets, deletes, size, capacity, used, near } = cache.stats();
    expect([hits, misses, sets, deletes, near.entries]).toEqual([3, 1, 2, 1, 1]);
    expect(values).toEqual({
      [`cache_machine_requests_total{${label},result="hit"}`]: hits,
      [`cache_machine_requests_total{${label},result="miss"}`]: misses,
      [`cache_machine_sets_total{${label}}`]: sets,
      [`cache_machine_deletes_total{${label}}`]: deletes,
      [`cache_machine_evictions_total{${label}}`]: 0,
      [`cache_machine_expirations_total{${label}}`]: 0,
      [`cache_machine_reclaims_total{${label}}`]: 0,
      [`cache_machine_compactions_total{${label}}`]: 0,
      [`cache_machine_memory_size_bytes{${label}}`]: size,
      [`cache_machine_memory_capacity_bytes{${label}}`]: capacity,
      [`cache_machine_memory_used_bytes{${label}}`]: used,
      [`cache_machine_participants{${label}}`]: 1,
      [`cache_machine_near_entries{${label}}`]: near.entries,
      [`cache_machine_near_bytes{${label}}`]: near.bytes,
    });
    for (const [name, type] of Object.entries(types)) {
      expect(type, name).toBe(name.endsWith("_total") ? "counter" : "gauge");
    }
    expect(text).not.toContain("secret");
  });

  test("each scrape is of the present, and a scrape that is repeated counts nothing", async () => {
    collectMetrics(cache, { client, register });
    await scrape();
    const before = await scrape();
    cache.set("c", 1);
    const after = await scrape();
    const sets = `cache_machine_sets_total{${label}}`;
    expect([before.values[sets], after.values[sets]]).toEqual([2, 3]);
  });

  test("all metrics of one scrape are of one reading", async () => {
    const stats = vi.spyOn(cache, "stats");
    collectMetrics(cache, { client, register });
    stats.mockClear();
    await scrape();
    expect(stats).toHaveBeenCalledTimes(1);
    await register.getMetricsAsJSON();
    expect(stats).toHaveBeenCalledTimes(2);
  });

  test("entries and their bytes need `census`, which walks at most every so often", async () => {
    const census = vi.spyOn(cache, "census");
    const end = collectMetrics(cache, { client, register });
    expect(Object.keys((await scrape()).values).filter((name) => /entr/.test(name))).toEqual([
      `cache_machine_near_entries{${label}}`,
    ]);
    end();
    collectMetrics(cache, { client, register, census: 600_000 });
    const { values } = await scrape();
    const { entries, bytes } = cache.census();
    expect(values).toMatchObject({
      [`cache_machine_entries{${label}}`]: entries,
      [`cache_machine_entry_bytes{${label}}`]: bytes,
    });
    census.mockClear();
    cache.set("another", 1);
    expect((await scrape()).values[`cache_machine_entries{${label}}`]).toBe(entries);
    expect(census).not.toHaveBeenCalled();
  });

  test("a walk is followed by a rest of a hundred times its duration", async () => {
    let now = 0;
    const clock = vi.spyOn(performance, "now").mockImplementation(() => now);
    try {
      const census = vi.spyOn(cache, "census").mockImplementation(() => {
        now += 50;
        return { entries: 1, bytes: 2 };
      });
      collectMetrics(cache, { client, register, census: 1000 });
      const walks = [];
      for (const at of [0, 5_049, 5_051, 10_000, 10_102]) {
        now = at;
        await scrape();
        walks.push(census.mock.calls.length);
      }
      expect(walks).toEqual([1, 1, 2, 2, 3]);
    } finally {
      clock.mockRestore();
    }
  });

  test("several caches, in one call or in several, and default labels of the registry", async () => {
    const other = createCache({ size: "2mb" });
    const third = createCache({ size: "1mb" });
    register.setDefaultLabels({ app: "x" });
    collectMetrics({ [NAME]: cache, other }, { client, register });
    collectMetrics({ third }, { client, register });
    const { values } = await scrape();
    const name = "cache_machine_memory_size_bytes";
    expect(
      Object.keys(values)
        .filter((key) => key.startsWith(name))
        .sort(),
    ).toEqual([NAME, "other", "third"].map((each) => `${name}{app="x",cache="${each}"}`).sort());
    other.close();
    third.close();
  });

  test("a cache that is closed is left out, and its name is free again", async () => {
    const other = createCache({ size: "1mb" });
    collectMetrics({ a: cache, b: other }, { client, register });
    other.close();
    const { values } = await scrape();
    expect(Object.keys(values).filter((key) => key.includes('"b"'))).toEqual([]);
    expect(values['cache_machine_sets_total{cache="a"}']).toBe(2);
    const again = createCache({ size: "1mb" });
    again.set("x", 1);
    collectMetrics({ b: again }, { client, register });
    expect((await scrape()).values['cache_machine_sets_total{cache="b"}']).toBe(1);
    again.close();
  });

  test("a name that is told by an open cache is refused, and nothing of that call is kept", async () => {
    collectMetrics({ a: cache }, { client, register });
    const other = createCache({ size: "1mb" });
    expect(() => collectMetrics({ new: other, a: other }, { client, register })).toThrow(
      new RangeError('caches: "a" is told already. End that first, or give this one another name: { name: cache }.'),
    );
    expect(await register.metrics()).not.toContain('"new"');
    collectMetrics({ a: other }, { client, register, prefix: "other_" });
    expect((await scrape()).values).toMatchObject({
      'cache_machine_sets_total{cache="a"}': 2,
      'other_sets_total{cache="a"}': 0,
    });
    other.close();
  });

  test("the end removes the metrics with the last cache, and works after the registry was cleared", async () => {
    const other = createCache({ size: "1mb" });
    const [first, second] = [cache, other].map((each, i) => collectMetrics({ [i]: each }, { client, register }));
    first?.();
    first?.();
    expect(Object.keys((await scrape()).values).every((key) => key.includes('cache="1"'))).toBe(true);
    second?.();
    expect(register.getMetricsAsArray()).toEqual([]);
    const end = collectMetrics({ 1: other }, { client, register });
    register.clear();
    expect(await register.metrics()).toBe("\n");
    collectMetrics({ 0: cache }, { client, register });
    expect(Object.keys((await scrape()).values)).toHaveLength(28);
    end();
    other.close();
  });

  test("numbers of damaged memory and errors of any kind do not fail a scrape", async () => {
    const stats = vi.spyOn(cache, "stats");
    const real = cache.stats();
    collectMetrics({ a: cache }, { client, register });
    stats.mockReturnValueOnce({ ...real, hits: Number.NaN, sets: -1, used: Infinity });
    const { values } = await scrape();
    expect(values['cache_machine_requests_total{cache="a",result="hit"}']).toBe(undefined);
    expect(values['cache_machine_sets_total{cache="a"}']).toBe(undefined);
    expect(values['cache_machine_deletes_total{cache="a"}']).toBe(1);
    stats.mockImplementationOnce(() => {
      throw new Error("no");
    });
    expect((await scrape()).values).toEqual({});
    expect(Object.keys((await scrape()).values)).toHaveLength(14);
  });

  test("the names also fit the OpenMetrics format", async () => {
    const open = new Registry("application/openmetrics-text; version=1.0.0; charset=utf-8" as never);
    collectMetrics({ a: cache }, { client, register: open });
    await open.metrics();
    const text = await open.metrics();
    const { values, types } = parse(text.replace("# EOF\n", ""));
    expect(values['cache_machine_sets_total{cache="a"}']).toBe(2);
    expect(types.cache_machine_sets).toBe("counter");
  });

  test("a tier has metrics of its own", async () => {
    const stats = { ...TIER };
    collectMetrics({ t: tierOf(stats) }, { client, register });
    const t = 'tier="t"';
    expect((await scrape()).values).toEqual({
      [`cache_machine_tier_requests_total{result="hit",${t}}`]: 5,
      [`cache_machine_tier_requests_total{result="miss",${t}}`]: 6,
      [`cache_machine_tier_loads_total{${t}}`]: 7,
      [`cache_machine_tier_errors_total{${t}}`]: 8,
      [`cache_machine_tier_commands_total{${t}}`]: 9,
      [`cache_machine_tier_good{${t}}`]: 1,
      [`cache_machine_tier_lease_seconds{${t}}`]: 0.7,
      [`cache_machine_tier_epochs_total{${t}}`]: 2,
      [`cache_machine_tier_invalidations_total{${t}}`]: 30,
      [`cache_machine_tier_beats_total{${t}}`]: 40,
      [`cache_machine_tier_round_trip_seconds{${t}}`]: 0.005,
    });
    Object.assign(stats, { owner: undefined, isGood: false, leaseLeft: 0 });
    const { values } = await scrape();
    expect([values[`cache_machine_tier_good{${t}}`], values[`cache_machine_tier_beats_total{${t}}`]]).toEqual([
      0,
      undefined,
    ]);
  });

  test("wrong arguments are refused by name", () => {
    const unnamed = createCache({ size: "1mb" });
    const wrong: [string, () => unknown][] = [
      ["caches:", () => collectMetrics(undefined as never, { client })],
      ["caches:", () => collectMetrics([5 as never], { client })],
      ["caches:", () => collectMetrics(unnamed, { client, register })],
      ["caches:", () => collectMetrics([cache, cache], { client, register })],
      ["caches.x:", () => collectMetrics({ x: {} as never }, { client })],
      ["options:", () => collectMetrics(cache, undefined as never)],
      ["client:", () => collectMetrics(cache, { client: register as never })],
      ["register:", () => collectMetrics(cache, { client, register: {} as never })],
      ["prefix:", () => collectMetrics(cache, { client, register, prefix: 5 as never })],
      ["census:", () => collectMetrics(cache, { client, register, census: -1 })],
      ["census:", () => collectMetrics(cache, { client, register, census: "1s" as never })],
      ["cenus", () => collectMetrics(cache, { client, register, cenus: true } as never)],
      ["meter:", () => observeMetrics(cache, { meter: {} as never })],
      ["caches:", () => observeMetrics(unnamed, { meter: {} as never })],
    ];
    for (const [argument, call] of wrong) expect(call, argument).toThrow(argument);
    // The error of prom-client, and nothing is left.
    expect(() => collectMetrics(cache, { client, register, prefix: "a b" })).toThrow("Invalid metric name");
    new client.Gauge({ name: "cache_machine_evictions_total", help: "of somebody else", registers: [register] });
    expect(() => collectMetrics(cache, { client, register })).toThrow("already been registered");
    expect(register.getMetricsAsArray()).toHaveLength(1);
    unnamed.close();
  });
});

/** A reader that collects when it is asked. */
class Reader extends MetricReader {
  protected async onForceFlush() {}
  protected async onShutdown() {}
}

describe("OpenTelemetry", () => {
  let reader: Reader;
  let provider: MeterProvider;

  beforeEach(() => {
    reader = new Reader();
    provider = new MeterProvider({ readers: [reader] });
  });
  afterEach(() => provider.shutdown());

  /** Values by name and attributes, and the unit and type of each name. */
  async function collect() {
    const { resourceMetrics, errors } = await reader.collect();
    expect(errors).toEqual([]);
    const values: Record<string, number> = {};
    const kinds: Record<string, string> = {};
    for (const { descriptor, dataPoints, ...rest } of resourceMetrics.scopeMetrics.flatMap(({ metrics }) => metrics)) {
      const { isMonotonic } = rest as { isMonotonic?: boolean };
      kinds[descriptor.name] =
        `${isMonotonic === undefined ? "gauge" : isMonotonic ? "counter" : "sum"} ${descriptor.unit}`;
      for (const { attributes, value } of dataPoints) {
        values[[descriptor.name, ...Object.entries(attributes).map((each) => each.join("="))].join(" ")] =
          value as number;
      }
    }
    return { values, kinds };
  }

  test("tells the numbers of stats(), with units, and no key", async () => {
    observeMetrics({ c: cache, t: tierOf(TIER) }, { meter: provider.getMeter("test"), census: true });
    const { values, kinds } = await collect();
    const { used, near } = cache.stats();
    const of = "cache_machine.cache.name=c";
    expect(values).toMatchObject({
      [`cache_machine.requests ${of} cache_machine.request.result=hit`]: 3,
      [`cache_machine.requests ${of} cache_machine.request.result=miss`]: 1,
      [`cache_machine.sets ${of}`]: 2,
      [`cache_machine.memory.used ${of}`]: used,
      [`cache_machine.near.size ${of}`]: near.bytes,
      [`cache_machine.entries ${of}`]: 1,
      "cache_machine.tier.loads cache_machine.tier.name=t": 7,
    });
    expect(kinds).toMatchObject({
      "cache_machine.requests": "counter {request}",
      "cache_machine.memory.used": "gauge By",
      "cache_machine.near.size": "sum By",
      "cache_machine.tier.lease": "gauge s",
    });
    expect(Object.keys(values)).toHaveLength(16 + 11);
    expect(JSON.stringify(values)).not.toContain("secret");
  });

  test("several calls for one meter, closed caches, and the end", async () => {
    // The SDK repeats the last value of attributes that are gone where values are cumulative.
    reader = new Reader({ aggregationTemporalitySelector: () => AggregationTemporality.DELTA });
    const meter = new MeterProvider({ readers: [reader] }).getMeter("test");
    const other = createCache({ size: "1mb" });
    const ends = [observeMetrics({ a: cache }, { meter }), observeMetrics({ b: other }, { meter })];
    expect(() => observeMetrics({ a: other }, { meter })).toThrow("is told already");
    const named = (values: object, name: string) =>
      Object.keys(values).filter((key) => key.includes(`cache.name=${name}`)).length;
    let { values } = await collect();
    expect([named(values, "a"), named(values, "b")]).toEqual([14, 14]);
    other.close();
    ({ values } = await collect());
    expect([named(values, "a"), named(values, "b")]).toEqual([14, 0]);
    for (const end of ends) end();
    expect((await collect()).values).toEqual({});
    observeMetrics({ a: cache }, { meter });
    ({ values } = await collect());
    expect(named(values, "a")).toBe(14);
  });

  test("an exporter gets the same", async () => {
    const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
    expect(exporter.getMetrics()).toEqual([]);
    observeMetrics(cache, { meter: provider.getMeter("test") });
    const { resourceMetrics } = await reader.collect();
    await new Promise((resolve) => exporter.export(resourceMetrics, resolve as never));
    expect(exporter.getMetrics()[0]?.scopeMetrics[0]?.metrics.length).toBeGreaterThan(10);
  });
});
