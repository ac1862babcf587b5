/** Compiled by tier.test.ts: a tier, and a cache or a tier, go wherever an adapter takes one, and what they answer fits the packages. */

import type { RateLimitPluginOptions } from "@fastify/rate-limit";
import { type Cache, openCache } from "cache-machine";
import { CacheMachineStore } from "cache-machine/express-rate-limit";
import { createStore } from "cache-machine/fastify-rate-limit";
import { createKeyv, KeyvCacheMachine } from "cache-machine/keyv";
import { createCacheHandler } from "cache-machine/next";
import { createIncrementalCacheHandler } from "cache-machine/next/incremental";
import { createRateLimiter } from "cache-machine/rate-limiter-flexible";
import { openTier, type Tier } from "cache-machine/tier";
import { CacheMachineStore as UndiciStore } from "cache-machine/undici";
import driver from "cache-machine/unstorage";
import { rateLimit, type Store } from "express-rate-limit";
import { Keyv, type KeyvStoreAdapter } from "keyv";
import {
  type IRateLimiterStoreOptions,
  RateLimiterMemcache,
  type RateLimiterStoreAbstract,
} from "rate-limiter-flexible";
import { createStorage, type Driver } from "unstorage";

declare const client: object;
const cache: Cache = openCache("a");
const tier: Tier = openTier(cache, { client });
const users: Tier<{ name: string }> = tier.namespace("users");
declare const either: Cache | Tier;

export const keyv: KeyvStoreAdapter = new KeyvCacheMachine(tier);
export const typed: Keyv = createKeyv(users, { Keyv });
createKeyv(either);

export const counts: Store = new CacheMachineStore(tier);
rateLimit({ store: new CacheMachineStore(tier) });
rateLimit({ store: new CacheMachineStore(either) });
export const later: Promise<{ totalHits: number }> = new CacheMachineStore(tier).increment("a");
export const now: number = new CacheMachineStore(cache).increment("a").totalHits;
// @ts-expect-error -- over a tier the count comes later
new CacheMachineStore(tier).increment("a").totalHits;

export const plugin: RateLimitPluginOptions = { store: createStore(tier) };
const Limiter = createRateLimiter<IRateLimiterStoreOptions, RateLimiterStoreAbstract>(RateLimiterMemcache);
new Limiter({ storeClient: tier, points: 5, duration: 60 });

export const items: Driver = driver({ cache: tier });
createStorage({ driver: driver({ cache: tier, ttl: 60 }) });
export const keys: Promise<string[]> = driver({ cache: tier }).getKeys();
export const keysNow: string[] = driver({ cache }).getKeys();

createCacheHandler({ cache: tier });
createCacheHandler({ cache: () => tier });
createIncrementalCacheHandler({ cache: async () => tier });
// @ts-expect-error -- neither a cache nor a tier
createCacheHandler({ cache: new Map() });

// @ts-expect-error -- undici wants answers at once
new UndiciStore(tier);
