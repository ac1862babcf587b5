/** Compiled by the test of the adapter: the store fits the types of @fastify/rate-limit without a cast. */

import rateLimit, { type FastifyRateLimitStoreCtor, type RateLimitPluginOptions } from "@fastify/rate-limit";
import { type Cache, createCache, type Key } from "cache-machine";
import { createStore, type RateLimitStoreClass, type StoreOptions } from "cache-machine/fastify-rate-limit";
import Fastify from "fastify";

const options: StoreOptions = { nameSpace: "api" };
export const Store: RateLimitStoreClass = createStore(createCache(), options);
export const ctor: FastifyRateLimitStoreCtor = Store;
const plugin: RateLimitPluginOptions = { max: 10, timeWindow: "1 minute", store: createStore(createCache()) };
await Fastify().register(rateLimit, plugin);
await Fastify().register(rateLimit, { store: createStore(createCache(), options) });

// Caches with other types of values and keys, and namespaces.
declare const numbers: Cache<number>;
declare const bytes: Cache<{ a: 1 }, Key>;
createStore(numbers);
createStore(bytes.namespace("limits"));

// @ts-expect-error -- the option is `nameSpace`, as that of the plugin
createStore(createCache(), { namespace: "a" });
// @ts-expect-error -- no cache
createStore(new Map());
