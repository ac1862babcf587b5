/** The types of a tier, with the clients of all libraries: compiled by tier.test.ts, never run. */

import { type Cache, type Key, type LoadOptions, openCache } from "cache-machine";
import {
  type Counts,
  type OwnerReport,
  type OwnerState,
  openTier,
  Tier,
  type TierCountedEntry,
  type TierEntry,
  type TierOptions,
  type TierSetOptions,
  type TierStats,
} from "cache-machine/tier";
import { Redis } from "ioredis";
import { Redis as Valkey } from "iovalkey";
import { createClient, createCluster } from "redis";
import { createClient as createClient5 } from "redis5";

interface User {
  name: string;
}

const cache: Cache = openCache("app");
const options: TierOptions = { client: createClient(), prefix: "app:", ttl: 1000, maxAge: 1, lease: 500, timeout: 100 };
const users: Tier<User> = openTier<User>(cache, options);
openTier(openCache<User>("users"), { client: createClient5(), singleFlight: "all" });
openTier(openCache<string, Key>("keys"), { client: createCluster({ rootNodes: [] }), onDisconnect: "serve" });
openTier(cache, { client: new Redis({ lazyConnect: true }) });
openTier(cache, { client: new Valkey({ lazyConnect: true }) });

const how: TierSetOptions = { ttl: 1, tags: ["t"], grace: 5 };
export const user: Promise<User | undefined> = users.get("1");
export const here: User | undefined = users.peek("1");
export const many: Promise<(User | undefined)[]> = users.getMany(["1", "2"]);
export const done: Promise<void>[] = [
  users.set("1", { name: "Ada" }, how),
  users.setMany([["1", { name: "Ada" }, { expiresAt: 5 }]], how),
  users.invalidateTag("t"),
  users.clear(),
  users.close(),
];
export const entry: Promise<TierEntry<User> | undefined> = users.getEntry("1");
const loading: LoadOptions<User> = { ttl: (value) => value.name.length };
export const loaded: Promise<User> = users.getOrSet("1", async ({ key }) => ({ name: key }), loading);
export const manyLoaded: Promise<(User | undefined)[]> = users.getOrSetMany(["1"], (keys) =>
  keys.map((name) => ({ name })),
);
export const memoized: (id: number) => Promise<User> = users.memoize((id: number) => ({ name: `${id}` }), {
  key: String,
});
export const told: Promise<boolean>[] = [
  users.has("1"),
  users.add("1", { name: "" }),
  users.touch("1", 5),
  users.delete("1"),
];
export const numbers: Promise<number>[] = [
  users.deleteMany(["1"]),
  users.increment("n"),
  users.decrement("n", 2, { min: 0 }),
];
export const counted: Promise<TierCountedEntry> = users.incrementEntry("n", 1, { ttl: 5 });
export const left: Promise<number | undefined> = users.ttl("1");
export const at: Promise<number> = users.tagInvalidatedAt("a", "b");
export const now: number | undefined = users.now();
export const part: Tier<number, Key> = users.namespace<number, Key>("numbers", { ttl: 5 });
part.set(new Uint8Array(1), 5);
const stats: TierStats = users.stats();
export const own: Counts = stats.own;
export const owner: OwnerReport | undefined = stats.owner;
export const state: OwnerState | undefined = stats.owner?.state;
export const isTier: boolean = users instanceof Tier;
export async function list(): Promise<string[]> {
  const keys: string[] = [];
  await using tier = users;
  for await (const key of tier.keys({ prefix: "a" })) keys.push(key);
  return keys;
}

// @ts-expect-error A client is needed.
openTier(cache, {});
// @ts-expect-error There is no such option.
openTier(cache, { client: createClient(), maxage: 5 });
// @ts-expect-error Another type of value.
users.set("1", 5);
// @ts-expect-error Bytes are no keys here.
users.get(new Uint8Array(1));
// @ts-expect-error Not of a tier.
users.set("1", { name: "" }, { keepTtl: true });
