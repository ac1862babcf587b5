/**
 * The compared caches, each behind the same two calls: `get` and `set`. A cache that has these two methods itself is used
 * directly, so that no wrapper is measured with it.
 *
 * The fields of an adapter:
 *
 * - `reach`: who shares the cache: nobody (`private`), `threads`, or `processes`
 * - `shares`: `get` returns the same object to every caller, not a copy
 * - `data`: the sets of data that it stores, by their names in workloads.mjs
 * - `open`: opens the cache; throws when an `optional` one is not installed
 * - `standsInFor`: used only if the named adapter is not installed
 * - `later`: its methods return promises
 * - `lanes`: number of requests in flight at the same time
 * - `server`: needs a server process (servers.mjs)
 * - `module`: the module whose loading time belongs to it
 */

import path from "node:path";
import { connect } from "./servers.mjs";

const OURS = new URL("../dist/index.js", import.meta.url).href;
const STRINGS = ["s16", "s100", "few", "s1k", "s16k", "cyrillic"];
const EVERYTHING = [...STRINGS, "object", "buffer4k"];
/** The data for slow or unusual adapters, where more data would only cost time. */
const SOME = ["s100", "object"];

/** This package, with reach `processes`. */
const machineMemory = (options) => async (context) => {
  const { openCache } = await import(OURS);
  return openCache(context.name, { size: context.size, ...options });
};

/** This package, with reach `threads`. */
const ownMemory = (options) => async (context) => {
  const { createCache, attachCache } = await import(OURS);
  return context.handle ? attachCache(context.handle, options) : createCache({ size: context.size, ...options });
};

/** Without fsync and in /dev/shm: the fastest settings for a cache. `putSync`, because its write is complete when it returns. */
const lmdb = (encodings, options, batched) => async (context) => {
  const { open } = await import("lmdb");
  const db = open({
    path: path.join(context.folder, `${context.name}.mdb`),
    encoding: encodings[context.type],
    noSync: true,
    noMemInit: true,
    ...options,
  });
  return {
    get: (key) => db.get(key),
    set: batched ? (key, value) => db.put(key, value) : (key, value) => db.putSync(key, value),
    fill: async (entries) => {
      let last;
      let puts = 0;
      for (const [key, value] of entries) {
        last = db.put(key, value);
        // So that not all entries wait in memory at the same time.
        if (++puts % 100_000 === 0) await last;
      }
      await last;
    },
    path: path.join(context.folder, `${context.name}.mdb`),
    close: () => db.close(),
  };
};
const TEXT = { text: "string", bytes: "binary" };
const MSGPACK = { text: "msgpack", bytes: "msgpack", object: "msgpack" };
/** Stores the names of properties once, which makes reading objects faster. */
const STRUCTURES = { sharedStructuresKey: Symbol.for("structures") };

const sqlitePath = ({ folder, name }) => path.join(folder, `${name}.sqlite`);

/** A table, without fsync, in /dev/shm; objects as JSON. */
function table(context, db) {
  db.exec(
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA busy_timeout = 5000; PRAGMA mmap_size = 1073741824",
  );
  db.exec("CREATE TABLE IF NOT EXISTS cache (key TEXT PRIMARY KEY, value) WITHOUT ROWID");
  const read = db.prepare("SELECT value FROM cache WHERE key = ?");
  const write = db.prepare("INSERT OR REPLACE INTO cache VALUES (?, ?)");
  const json = context.type === "object";
  // better-sqlite3 can give the value alone.
  const plucked = typeof read.pluck === "function" ? read.pluck() : undefined;
  const value = plucked ? (key) => plucked.get(key) : (key) => read.get(key)?.value;
  return {
    get: json
      ? (key) => {
          const text = value(key);
          return text === undefined ? undefined : JSON.parse(text);
        }
      : value,
    set: json ? (key, object) => write.run(key, JSON.stringify(object)) : (key, text) => write.run(key, text),
    fill: (entries) => {
      db.exec("BEGIN");
      for (const [key, entry] of entries) write.run(key, json ? JSON.stringify(entry) : entry);
      db.exec("COMMIT");
    },
    path: sqlitePath(context),
    close: () => db.close(),
  };
}

/** A server on a Unix socket of its own, through a minimal client. */
const server = (kind) => async (context) => {
  if (!context.sockets?.[kind]) throw new Error(`${kind} is not installed`);
  return connect(kind, context.sockets[kind], context.type);
};

export const ADAPTERS = {
  near: {
    module: OURS,
    label: "cache-machine",
    ours: true,
    reach: "processes",
    data: [...EVERYTHING, "many", "million"],
    open: machineMemory({}),
  },
  "near-all": {
    module: OURS,
    label: "cache-machine, all of it near",
    ours: true,
    reach: "processes",
    data: ["s100", "many"],
    open: machineMemory({ nearCacheSize: "256mb" }),
  },
  far: {
    module: OURS,
    label: "cache-machine, near cache off",
    ours: true,
    reach: "processes",
    data: [...EVERYTHING, "many", "million"],
    open: machineMemory({ nearCache: 0 }),
  },
  frozen: {
    module: OURS,
    label: "cache-machine, frozen objects",
    ours: true,
    reach: "processes",
    shares: true,
    data: ["object"],
    open: machineMemory({ frozenObjects: true }),
  },
  threads: {
    module: OURS,
    label: "cache-machine, threads",
    ours: true,
    reach: "threads",
    data: SOME,
    open: ownMemory({}),
  },
  "threads-far": {
    module: OURS,
    label: "cache-machine, threads, near cache off",
    ours: true,
    reach: "threads",
    data: ["s100"],
    open: ownMemory({ nearCache: 0 }),
  },
  "threads-frozen": {
    module: OURS,
    label: "cache-machine, threads, frozen objects",
    ours: true,
    reach: "threads",
    shares: true,
    data: ["object"],
    open: ownMemory({ frozenObjects: true }),
  },
  map: { label: "Map", reach: "private", shares: true, data: EVERYTHING, open: async () => new Map() },
  lru: {
    module: "lru-cache",
    label: "lru-cache",
    reach: "private",
    shares: true,
    data: EVERYTHING,
    open: async ({ count, most }) => {
      const { LRUCache } = await import("lru-cache");
      return new LRUCache({ max: most ?? 2 * count });
    },
  },
  lmdb: {
    module: "lmdb",
    label: "lmdb, strings",
    labels: { buffer4k: "lmdb, binary" },
    reach: "processes",
    data: [...STRINGS, "buffer4k"],
    open: lmdb(TEXT, {}),
  },
  "lmdb-msgpack": {
    module: "lmdb",
    label: "lmdb, msgpack",
    reach: "processes",
    data: SOME,
    open: lmdb(MSGPACK, STRUCTURES),
  },
  "lmdb-cache": {
    module: "lmdb",
    label: "lmdb, msgpack, its cache",
    reach: "processes",
    shares: true,
    data: SOME,
    open: lmdb(MSGPACK, { ...STRUCTURES, cache: true }),
  },
  "lmdb-batched": {
    module: "lmdb",
    label: "lmdb, 256 puts at once",
    reach: "processes",
    data: ["s100"],
    workloads: ["set"],
    later: true,
    lanes: 256,
    open: lmdb({ ...TEXT, object: "msgpack" }, STRUCTURES, true),
  },
  sqlite: {
    optional: true,
    module: "better-sqlite3",
    label: "better-sqlite3",
    reach: "processes",
    data: SOME,
    open: async (context) => {
      const { default: Database } = await import("better-sqlite3");
      return table(context, new Database(sqlitePath(context)));
    },
  },
  "sqlite-builtin": {
    optional: true,
    module: "node:sqlite",
    label: "node:sqlite",
    reach: "processes",
    data: SOME,
    standsInFor: "sqlite",
    open: async (context) => {
      const { DatabaseSync } = await import("node:sqlite");
      return table(context, new DatabaseSync(sqlitePath(context)));
    },
  },
  sharedmap: {
    optional: true,
    module: "sharedmap",
    label: "sharedmap",
    reach: "threads",
    data: ["s16", "s100", "s1k", "object"],
    open: async (context) => {
      const { default: SharedMap } = await import("sharedmap");
      const map = context.handle ?? new SharedMap(2 * context.count, 32, context.longest + 8);
      if (context.handle) Object.setPrototypeOf(map, SharedMap.prototype);
      if (context.type !== "object") return map;
      return {
        get: (key) => {
          const text = map.get(key);
          return text === undefined ? undefined : JSON.parse(text);
        },
        set: (key, object) => map.set(key, JSON.stringify(object)),
        handle: map,
      };
    },
    handle: (cache) => cache.handle ?? cache,
  },
  "node-shared-cache": {
    optional: true,
    module: "node-shared-cache",
    label: "node-shared-cache",
    reach: "processes",
    data: ["s16", "s100", "s1k", "object"],
    open: async (context) => {
      const { default: shared } = await import("node-shared-cache");
      const cache = new shared.Cache(context.name, 256 << 20, shared.SIZE_256);
      return {
        get: (key) => cache[key],
        set: (key, value) => {
          cache[key] = value;
        },
        close: () => shared.release(context.name),
      };
    },
  },
  redis: {
    server: true,
    optional: true,
    label: "redis",
    reach: "processes",
    data: SOME,
    later: true,
    open: server("redis"),
  },
  "redis-64": {
    server: true,
    optional: true,
    label: "redis, 64 at once",
    reach: "processes",
    data: ["s100"],
    later: true,
    lanes: 64,
    open: server("redis"),
  },
  memcached: {
    server: true,
    optional: true,
    label: "memcached",
    reach: "processes",
    data: SOME,
    later: true,
    open: server("memcached"),
  },
  "memcached-64": {
    server: true,
    optional: true,
    label: "memcached, 64 at once",
    reach: "processes",
    data: ["s100"],
    later: true,
    lanes: 64,
    open: server("memcached"),
  },
  ipc: {
    label: "asking the parent by IPC",
    reach: "processes",
    data: SOME,
    later: true,
    open: async ({ name }) => {
      if (!process.send) throw new Error("only a process can ask its parent");
      const waiting = new Map();
      let next = 0;
      process.on("message", ({ answer, value }) => {
        waiting.get(answer)?.(value);
        waiting.delete(answer);
      });
      const ask = (question) =>
        new Promise((resolve) => {
          waiting.set(next, resolve);
          process.send({ question: next++, store: name, ...question });
        });
      return { get: (key) => ask({ key }), set: (key, value) => ask({ key, value }) };
    },
  },
};

export const labelOf = (id, dataName) => ADAPTERS[id].labels?.[dataName] ?? ADAPTERS[id].label;
