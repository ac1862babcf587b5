/**
 * The types as a user's compiler sees them. Compiled against the packed package by test/package/package.test.ts, never run. A line
 * behind `@ts-expect-error` must not compile. test/package/exports.test.ts checks that every export is imported here, and that
 * every member of `Cache` is used.
 */

import {
  attachCache,
  type Cache,
  CacheError,
  type CacheErrorCode,
  type CacheHandle,
  type CacheOptions,
  type CacheSummary,
  type Census,
  type Codec,
  type CountedEntry,
  type CreateOptions,
  createCache,
  destroyCache,
  type Entry,
  type ExportOptions,
  type ExportProgress,
  type ExportResult,
  exportCache,
  type FileUrl,
  get,
  type HeldLock,
  type ImportOptions,
  type ImportProgress,
  type ImportResult,
  type IncrementOptions,
  type Inspection,
  importCache,
  type Key,
  type KeysOptions,
  type Lease,
  type Leased,
  type LoadContext,
  type LoadedMany,
  type LoadManyContext,
  type LoadOptions,
  type LoadOutcome,
  type LoadTrace,
  type Lock,
  type LockOptions,
  type LockState,
  type Locks,
  type MemoizeOptions,
  type NamespaceOptions,
  type OpenOptions,
  openCache,
  type PendingLock,
  type RateLimitAlgorithm,
  type RateLimitHeadersOptions,
  type RateLimitOptions,
  type RateLimitResult,
  type RateLimitState,
  rateLimitHeaders,
  type Segment,
  type SetOptions,
  type SnapshotSource,
  type SnapshotTarget,
  type StaleEntry,
  type Stats,
  set,
  type WaitForOptions,
  type WatchOptions,
} from "cache-machine";

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
declare function is<A, B>(same: Equal<A, B>): void;

interface User {
  name: string;
  age?: number;
}

const users = openCache<User>("app", { size: "64mb", ttl: 1000, path: "/dev/shm" });
is<typeof users, Cache<User>>(true);
is<typeof users, Cache<User, string>>(true);
const user = users.get("a");
is<typeof user, User | undefined>(true);
const entry = users.getEntry("a");
is<typeof entry, Entry<User> | undefined>(true);
const updated = users.update("a", (value) => ({ name: value?.name ?? "none" }), { tags: ["t"] });
is<typeof updated, User>(true);
// A change that may decline, with the entry at hand, and options that are chosen for the new value.
const declined = users.update(
  "a",
  (value, present) => {
    is<[typeof value, typeof present], [User | undefined, Entry<User> | undefined]>(true);
    return present !== undefined && present.expiresAt > 5 ? { name: "A" } : undefined;
  },
  (next) => {
    is<typeof next, User>(true);
    return next.age === undefined ? undefined : { ttl: next.age };
  },
);
is<typeof declined, User | undefined>(true);
const many = users.getMany(["a", "b"]);
is<typeof many, (User | undefined)[]>(true);
const manyEntries = users.getManyEntries(new Set(["a"]));
is<typeof manyEntries, (Entry<User> | undefined)[]>(true);
const present: boolean[] = users.hasMany(users.keys({ prefix: "a" }));
const keysOptions: KeysOptions<string> = { prefix: undefined };
is<ReturnType<typeof users.entries>, Generator<[string, User], undefined, undefined>>(true);
users.entries(keysOptions);
const taken = users.take("a");
is<typeof taken, User | undefined>(true);
const added: boolean = users.add("a", { name: "A" }, { ttl: 5 }) && users.replace("a", { name: "B" });
const stored: Cache<User> = users
  .set("a", { name: "A" }, { expiresAt: Date.now() + 5, keepTags: true })
  .setMany(new Map([["b", { name: "B" }]]))
  .setMany(
    [
      ["c", { name: "C" }],
      ["d", { name: "D" }, { ttl: 5, tags: ["t"] }],
    ],
    { keepTtl: true },
  );
const sum: number = users.increment("n") + users.decrement("n", 2, { initial: 5, ttl: 100 });
const counted: CountedEntry = users.incrementEntry("n", 1, { min: 0, max: 9, tags: ["t"] });
const algorithm: RateLimitAlgorithm = "sliding";
const rule: RateLimitOptions = { limit: 5, window: 1000, algorithm, cost: undefined };
const limited: RateLimitResult = users.rateLimit("n", rule);
const headersOptions: RateLimitHeadersOptions = { name: "api", draft: 7 };
const headers: Record<string, string> = rateLimitHeaders(limited, headersOptions);
const limitState: RateLimitState = { algorithm, startedAt: counted.expiresAt, count: 1, previous: 0 };
const left: number | undefined = users.ttl("a");
const touched: boolean = users.touch("a", Number.POSITIVE_INFINITY);
const portable: Uint8Array = users.encode({ name: "A" });
const decoded: User = users.decode(portable);
const lease: Lease = { until: Number.POSITIVE_INFINITY };
const leased: Leased<User> = users.leased(lease);
const leasedUser: User | undefined = leased.get("a");
const tried: boolean = users.trySet("a", { name: "A" }, { ttl: 5 });
const inserted: User = users.getOrInsert("a", { name: "A" });
const computed: User = users.getOrInsertComputed("a", (key) => ({ name: key }), { ttl: 5 });
const changed: boolean =
  users.compareAndSet("a", entry?.version ?? 0, { name: "A" }) &&
  users.compareAndDelete("a", entry?.version ?? 0) &&
  users.has("a") &&
  users.delete("a");
const removed: number = users.deleteMany(["a", "b"]) + users.deleteMany(users.keys());
const pairs = users.entries();
is<typeof pairs, Generator<[string, User], undefined, undefined>>(true);
is<ReturnType<typeof users.keys>, Generator<string, undefined, undefined>>(true);
is<ReturnType<typeof users.values>, Generator<User, undefined, undefined>>(true);
const inspection: Inspection = users.inspect();
const segment: Segment | undefined = inspection.segments[0];
const used: number = users.size + (segment?.used ?? 0);
const numbers = users.namespace<number>("numbers", { ttl: 1000 });
is<typeof numbers, Cache<number>>(true);
const same = users.namespace("same");
is<typeof same, Cache<User>>(true);
for (const [key, value] of users) {
  is<typeof key, string>(true);
  is<typeof value, User>(true);
}
users.forEach((value, key, cache) => {
  is<[typeof value, typeof key, typeof cache], [User, string, Cache<User>]>(true);
});
// Keys of bytes, of both kinds, and of some texts only.
const digests = openCache<number, Uint8Array>("digests");
is<typeof digests, Cache<number, Uint8Array>>(true);
for (const digest of digests.keys()) is<typeof digest, Uint8Array>(true);
const count: number | undefined = digests.set(new Uint8Array(1), 5).get(Buffer.alloc(2));
const mixed = digests.namespace<User, Key>("mixed").set("a", { name: "A" }).set(new Uint8Array(1), { name: "B" });
is<typeof mixed, Cache<User, Key>>(true);
const byId = createCache<User, `user:${number}`>().set("user:1", { name: "A" });
for (const [id] of byId) is<typeof id, `user:${number}`>(true);
const bytesAttached = attachCache<User, Uint8Array>(users.handle);
is<typeof bytesAttached, Cache<User, Uint8Array>>(true);
// Where people hand in a Map.
const mapLike: Pick<Map<string, User>, "get" | "set" | "has" | "delete" | "clear"> = users;
const anyMapLike: Pick<Map<string, User>, "get" | "set" | "has" | "delete" | "clear"> = openCache("app");
const whole: Map<string, User> = users;
const fromEntries: Map<string, User> = new Map(users);
const setLike: Iterable<[string, User]> & { readonly size: number } = users;
const label: string = users[Symbol.toStringTag];
// Loading.
const loadOptions: LoadOptions<User> = {
  ttl: (user, key) => user.name.length + key.length,
  tags: ["users"],
  grace: 5,
  fresh: true,
  signal: undefined,
  onOutcome: (outcome, { value, version }, key) => {
    is<typeof outcome, LoadOutcome>(true);
    is<typeof value, User>(true);
    is<typeof version, number>(true);
    is<typeof key, string>(true);
  },
};
const loader = async ({ key, signal, stale, unchanged }: LoadContext<User>): Promise<User> =>
  signal.aborted && stale?.stale ? unchanged() : { name: key };
const loadedUser = users.getOrSet("a", loader, loadOptions);
is<typeof loadedUser, Promise<User>>(true);
const maybeLoaded = users.getOrSet("a", (context) => {
  context.ttl = 5;
  context.tags = ["a"];
  return context.background ? undefined : { name: "A" };
});
is<typeof maybeLoaded, Promise<{ name: string } | undefined>>(true);
maybeLoaded satisfies Promise<User | undefined>;
const anyLoaded = openCache("app").getOrSet("a", async () => ({ id: 5 }));
is<typeof anyLoaded, Promise<{ id: number }>>(true);
// @ts-expect-error: the loader has to return a user.
users.getOrSet("a", () => 5);
const manyLoaded = users.getOrSetMany(["a"], async (keys: string[], { signal }: LoadManyContext) =>
  keys.map((name) => ({ name, ...(signal.aborted && { age: 5 }) })),
);
is<Awaited<typeof manyLoaded>[number], User | undefined>(true);
const byKey: LoadedMany<User> = new Map([["a", { name: "A" }]]);
users.getOrSetMany(new Set(["a"]), () => byKey);
const memoizeOptions: MemoizeOptions<User, [id: number]> = { key: (id) => `user ${id}`, ttl: 5 };
const findUser = users.memoize(async (id: number): Promise<User> => ({ name: `${id}` }), memoizeOptions);
is<typeof findUser, (id: number) => Promise<User>>(true);
// Waiting, watching and locks.
const waitOptions: WaitForOptions = { timeout: 5, signal: new AbortController().signal, version: entry?.version };
const awaited = users.waitFor("a", waitOptions);
is<typeof awaited, Promise<User>>(true);
const watchOptions: WatchOptions = { signal: undefined };
{
  using watch = users.watch("a", (key) => is<typeof key, string>(true), watchOptions);
  using many = digests.watch([new Uint8Array(1)], (key) => is<typeof key, Uint8Array>(true));
  using tags = users.watchTag("t", (tag) => is<typeof tag, string>(true));
  const all: Disposable[] = [watch, many, tags];
  all.length;
}
const locks: Locks = users.locks;
const lockOptions: LockOptions = { timeout: 5, signal: undefined };
const locked = locks.request("job", lockOptions, (lock) => lock?.fence);
is<typeof locked, Promise<number | undefined>>(true);
const surelyLocked = locks.request("job", async (lock) => {
  is<typeof lock, Lock>(true);
  return lock.signal.aborted;
});
is<typeof surelyLocked, Promise<boolean>>(true);
const maybeLocked = locks.request("job", { ifAvailable: true }, (lock) => lock === null);
is<typeof maybeLocked, Promise<boolean>>(true);
const state: LockState = locks.query();
const [held, pending]: [HeldLock | undefined, PendingLock | undefined] = [state.held[0], state.pending[0]];
const stats: Stats = users.stats();
const hits: number = stats.hits + stats.participants + stats.reclaims;
const census: Census = users.census();
const _entryBytes: number = census.bytes / census.entries;
// @ts-expect-error: what walks the index is in `census`.
const _walked = stats.entries;
const _listen = (trace: LoadTrace): [string | undefined, readonly string[], unknown] => [
  trace.cache,
  trace.namespace,
  trace.result,
];
users.invalidateTag("a", "b");
users.expireTag("a", "b");
const invalidatedAt: number = users.tagInvalidatedAt("a", "b");
const stale: StaleEntry<User> | undefined = users.getStale("a");
stale satisfies (Entry<User> & { stale: boolean }) | undefined;
const expired: boolean = users.expire("a");
users.clear();
users.close();
const reach: "threads" | "processes" = users.reach;
const removedOrReplaced: boolean = users.destroyed;
// @ts-expect-error only the file system decides
users.destroyed = true;
const handle: CacheHandle = users.handle;
const attached = attachCache<User>(handle, { nearCache: 0, nearCacheSize: "16mb", frozenObjects: true, now: () => 0 });
is<typeof attached, Cache<User>>(true);
{
  using disposable = createCache({ size: 1 << 20, maxEntrySize: 5 });
  // Without a type argument any value is taken, and any comes back.
  disposable.set("a", 1).set("b", { c: "d" });
  const value: string = disposable.get("b").c;
  value.length;
}
const target: SnapshotTarget = { href: "file:///x", protocol: "file:" } satisfies FileUrl;
const exported: Promise<ExportResult> = exportCache(users, target, {
  onProgress({ entries, total, bytes }: ExportProgress) {
    is<[typeof entries, typeof total, typeof bytes], [number, number | undefined, number]>(true);
  },
} satisfies ExportOptions);
void exportCache(attached, { getWriter: () => null });
const source: SnapshotSource = { getReader: () => null };
const imported: Promise<ImportResult> = importCache(users.namespace<string>("n"), source, {
  maxAge: 5,
  onProgress: (progress: ImportProgress) => void progress.total?.toFixed(),
} satisfies ImportOptions);
void exported.then(({ skipped }) => is<typeof skipped, number>(true));
void imported.then(({ outdated, name }) => is<[typeof outdated, typeof name], [boolean, string | undefined]>(true));
void imported.then(({ full }) => is<typeof full, number>(true));
// @ts-expect-error: entries that are there always stay
void importCache(users, "file", { overwrite: true });
// @ts-expect-error: a Map has no snapshot
void exportCache(new Map(), "file");
const codec: Codec = { encode: () => new Uint8Array(0), decode: (bytes: Uint8Array): unknown => bytes.length };
const options: CacheOptions & CreateOptions & OpenOptions = { codec, ttl: undefined, size: undefined };
const atHome = openCache("app", { fallback: "threads" });
is<typeof atHome, Cache<any>>(true);
// @ts-expect-error: processes are what it falls back from
openCache("app", { fallback: "processes" });
// @ts-expect-error: a cache of threads has nothing to fall back to
createCache({ fallback: "threads" });
const setOptions: SetOptions = { tags: ["a"] as const, ttl: undefined, expiresAt: undefined, keepTtl: false };
const namespaceOptions: NamespaceOptions = { ttl: Number.POSITIVE_INFINITY };
const incrementOptions: IncrementOptions = { initial: 1 };
const destroyed: boolean = destroyCache("app", { path: "/tmp" });
const own = openCache();
is<typeof own, Cache<any>>(true);
const ownUsers = openCache<User>();
is<typeof ownUsers, Cache<User>>(true);
const summary: CacheSummary = own.toJSON();
const ended: boolean = destroyCache();

set("key", "value", { ttl: 5 });
const one: number | undefined = get<number>("key");
const everything = get<number>();
is<typeof everything, Record<string, number>>(true);

try {
  users.get("a");
} catch (error) {
  if (error instanceof CacheError) {
    is<typeof error.code, CacheErrorCode>(true);
    const closed: boolean = error.code === "ERR_CLOSED" || error.code === "ERR_LOAD_FAILED";
    closed.valueOf();
  }
}

// @ts-expect-error a value of another type
users.set("a", { nick: "A" });
// @ts-expect-error a key that is neither a string nor bytes
users.get(1);
// @ts-expect-error bytes as a key, where keys are texts
users.get(new Uint8Array(1));
// @ts-expect-error a text as a key, where keys are bytes
digests.has("a");
// @ts-expect-error bytes among many keys, where keys are texts
users.getMany(["a", new Uint8Array(2)]);
// @ts-expect-error a change that may decline has no value for sure
const surely: User = users.update("a", () => undefined);
// @ts-expect-error a date in place of a time
users.set("a", { name: "A" }, { expiresAt: new Date() });
// @ts-expect-error an option that only stores have
users.namespace("n", { tags: ["t"] });
// @ts-expect-error keys that are neither strings nor bytes
createCache<User, number>();
// @ts-expect-error a function that computes another type
users.getOrInsertComputed("a", () => 5);
// @ts-expect-error a misspelt option
users.set("a", { name: "A" }, { expires: 1 });
// @ts-expect-error a tag that is not a string
users.set("a", { name: "A" }, { tags: [1] });
// @ts-expect-error a name that may be missing
openCache(undefined as string | undefined);
// @ts-expect-error options without a name
openCache({ ttl: 5 });
// @ts-expect-error a name that may be missing, of the cache to destroy
destroyCache(undefined as string | undefined);
// @ts-expect-error `path` is for caches of process reach
createCache({ path: "/tmp" });
// @ts-expect-error a codec has two sides
createCache({ codec: { encode: () => new Uint8Array(0) } });
// @ts-expect-error not a code
new CacheError("ERR_OTHER", "message");
// @ts-expect-error caches are opened, not constructed
new Cache();

export {
  added,
  anyMapLike,
  changed,
  computed,
  count,
  decoded,
  destroyed,
  ended,
  expired,
  fromEntries,
  headers,
  held,
  hits,
  incrementOptions,
  inserted,
  invalidatedAt,
  label,
  leased,
  leasedUser,
  left,
  limitState,
  mapLike,
  mixed,
  namespaceOptions,
  one,
  options,
  pending,
  portable,
  present,
  reach,
  removed,
  removedOrReplaced,
  setLike,
  setOptions,
  stale,
  stored,
  sum,
  summary,
  surely,
  touched,
  tried,
  used,
  whole,
};
