/** The types of the collectors with those of the real libraries: compiled by metrics.test.ts, and not run. */

import { metrics } from "@opentelemetry/api";
import { MeterProvider } from "@opentelemetry/sdk-metrics";
import { type Cache, openCache } from "cache-machine";
import { type MetricsOptions, type OtelOptions, observeMetrics, type Source } from "cache-machine/opentelemetry";
import { collectMetrics, type PromClient, type PromOptions, type Sources } from "cache-machine/prom-client";
import type { Tier } from "cache-machine/tier";
import * as all from "prom-client";
import client, { Registry } from "prom-client";

declare const tier: Tier<{ a: number }>;
const cache: Cache<{ a: number }> = openCache("types", { size: "1mb" });
const binary = openCache<string, Uint8Array>("binary", { size: "1mb" });

const end: () => void = collectMetrics(cache, { client });
collectMetrics([cache, binary], { client: all, register: new Registry(), prefix: "app_", census: true });
collectMetrics({ cache, tier }, { client, register: undefined, census: 60_000 });
const given: PromClient = client;
const options: PromOptions = { client: given };
const sources: Sources = { tier };
collectMetrics(sources, options);
// @ts-expect-error: the library is missing.
collectMetrics(cache, {});
// @ts-expect-error: no cache
collectMetrics({ a: 1 }, { client });
// @ts-expect-error: there is no such option.
collectMetrics(cache, { client, cenus: true });

observeMetrics(cache, { meter: metrics.getMeter("app") })();
observeMetrics({ tier }, { meter: new MeterProvider().getMeter("app"), prefix: "x.", census: false });
const source: Source = cache;
const common: MetricsOptions = { census: 5 };
const otel: OtelOptions = { meter: metrics.getMeter("app"), ...common };
observeMetrics(source, otel);
// @ts-expect-error: the meter is missing.
observeMetrics(cache, {});
end();
