/**
 * A store for Keyv 5 and 6, and so for what stands on Keyv: cache-manager, cacheable, NestJS. It stands on the public interface of a
 * cache or of a tier and loads Keyv only in `createKeyv`.
 *
 * - The store uses a part of the cache, a namespace. Keyv's own namespaces are namespaces within it, so clearing one of them is a
 *   single step that touches no other.
 * - Keyv hands over either a text that it has serialized or, with its serialization turned off, an object with the value and its
 *   expiry. A text is stored as it is. Of the object the value is stored, so the entries are those of `cache.get` and `cache.set`.
 *   The two kinds lie in different namespaces: a process that still has the other setting finds nothing instead of nonsense.
 */

import { EventEmitter } from "node:events";
import { createRequire } from "node:module";
import { checkNames, checkNamespace, checkStore } from "./checks.ts";
import { storableKey } from "./keys.ts";
import { type Awaitable, after, all } from "./promises.ts";
import { asCache, type CacheOrTier, tryStore } from "./store.ts";

/** The part of the cache or of the tier that a store uses when nobody says which. */
const NAMESPACE = "keyv";
/** The namespace within it for the texts that Keyv has serialized. */
const SERIALIZED = "serialized";

/** Options of {@link KeyvCacheMachine}. */
export interface KeyvCacheMachineOptions {
  /** The part of the cache that the store uses: `cache.namespace(namespace)`. `"keyv"` by default. */
  namespace?: string | undefined;
  /**
   * Whether Keyv serializes the values to texts, which it does by default: `true`. With `false` the store keeps the values
   * themselves, and `keyv.get` and `cache.get` read the same entries. Keyv has to know it too: Keyv 6 by `serialization: false`,
   * Keyv 5 by `serialize: undefined, deserialize: undefined`. {@link createKeyv} does both.
   */
  serialization?: boolean | undefined;
}

/** Options of {@link createKeyv}. */
export interface CreateKeyvOptions {
  /** The part of the cache that the Keyv uses: `cache.namespace(namespace)`. `"keyv"` by default. */
  namespace?: string | undefined;
  /** Milliseconds after which entries expire, unless `keyv.set` says otherwise. By default the `ttl` of the cache, or never. */
  ttl?: number | undefined;
  /** The class `Keyv`. By default that of the package `keyv`, which `require` finds. */
  Keyv?: (new (options: any) => unknown) | undefined;
}

/** An entry of `setMany`. Keyv 5 says when it expires by `ttl`, in milliseconds from now on, and Keyv 6 by `expires`, a time. */
export interface KeyvEntry {
  key: string;
  value: unknown;
  ttl?: number | undefined;
  expires?: number | undefined;
}

/** What Keyv hands over when it does not serialize: the value, and the time at which it expires, as `Date.now()` counts. */
interface Plain {
  value: unknown;
  expires?: number | undefined;
}

type Listener = (...args: any[]) => void;

const METHODS = ["get", "getMany", "has", "hasMany", "set", "setMany", "delete", "deleteMany", "clear", "disconnect"];
/** How Keyv 6 describes a store that is told times instead of durations. */
const CAPABILITIES = {
  compatible: true,
  store: "keyvStorage",
  methods: {
    ...Object.fromEntries(METHODS.map((name) => [name, { exists: true, methodType: "async" }])),
    iterator: { exists: true, methodType: "sync" },
  } as any,
  expires: true,
} as const;

/**
 * A store for Keyv 5 and 6 in a cache of this package: `new Keyv({ store: new KeyvCacheMachine(cache) })`. Each Keyv needs a store of
 * its own. The store does not close the cache. Over a tier (`cache-machine/tier`) all machines have the same values.
 *
 * A value that is too large, or that cannot be stored because another participant is in the way, is not stored: the old value is
 * removed, and `set` resolves to `false`. Other errors are passed on to Keyv, such as `ERR_UNREACHABLE` of a tier whose server is away.
 */
export class KeyvCacheMachine extends EventEmitter {
  /** For Keyv 5. It lets users iterate only over stores of the dialects that it knows. */
  readonly opts: any = { dialect: "redis" };
  readonly #part: CacheOrTier;
  readonly #plain: boolean;
  /** The entries of the namespace that Keyv has set. */
  #entries: CacheOrTier;
  #namespace: string | undefined;
  /** Whether Keyv says at which time an entry expires, instead of after how many milliseconds. */
  #isToldTimes = false;

  /** @throws {TypeError} and {RangeError} naming the argument that is wrong. */
  constructor(cache: CacheOrTier, options: KeyvCacheMachineOptions = {}) {
    super();
    checkStore(cache);
    checkNames(options, ["namespace", "serialization"]);
    const { namespace = NAMESPACE, serialization = true } = options;
    checkNamespace(namespace, "options.namespace");
    if (typeof serialization !== "boolean") throw new TypeError("options.serialization: must be a boolean");
    this.#plain = !serialization;
    this.#part = serialization ? cache.namespace(namespace).namespace(SERIALIZED) : cache.namespace(namespace);
    this.#entries = this.#part;
  }

  /** The namespace that Keyv has set: a part of the store's own part of the cache. */
  get namespace(): string | undefined {
    return this.#namespace;
  }

  set namespace(namespace: string | undefined) {
    this.#entries = this.#entriesOf(namespace);
    this.#namespace = namespace;
  }

  /** For Keyv 6, which reads it before anything else and then tells times. Keyv 5 does not read it. */
  get capabilities(): typeof CAPABILITIES {
    this.#isToldTimes = true;
    return CAPABILITIES;
  }

  async get(key: string): Promise<any> {
    const name = storableKey(key);
    const value = this.#entries.get(name);
    return this.#plain ? after(value, (found) => this.#withExpiry(name, found)) : value;
  }

  async getMany(keys: string[]): Promise<any[]> {
    const names = keys.map(storableKey);
    return after(this.#entries.getMany(names), (values) =>
      this.#plain ? all(names.map((name, i) => this.#withExpiry(name, values[i]))) : values,
    );
  }

  /** @param expiry - milliseconds from now on for Keyv 5, a time for Keyv 6. */
  async set(key: string, value: unknown, expiry?: number): Promise<boolean> {
    return this.#store(key, value, expiry);
  }

  async setMany(entries: KeyvEntry[]): Promise<any> {
    return all(
      entries.map(({ key, value, ttl, expires }) => this.#store(key, value, this.#isToldTimes ? expires : ttl)),
    );
  }

  async delete(key: string): Promise<boolean> {
    return this.#entries.delete(storableKey(key));
  }

  /** Resolves to what the version of Keyv wants: one boolean for each key, or whether all of them were there. */
  async deleteMany(keys: string[]): Promise<any> {
    const deleted = all(keys.map((key) => this.#entries.delete(storableKey(key))));
    return after(deleted, (each) => (this.#isToldTimes ? each : each.every(Boolean)));
  }

  async has(key: string): Promise<boolean> {
    return this.#entries.has(storableKey(key));
  }

  async hasMany(keys: string[]): Promise<boolean[]> {
    const names = keys.map(storableKey);
    return asCache(this.#entries)?.hasMany(names) ?? all(names.map((name) => this.#entries.has(name)));
  }

  /** Removes the entries of the namespace that Keyv has set, and of nothing else. */
  async clear(): Promise<void> {
    return this.#entries.clear();
  }

  /** Does nothing: the cache belongs to who has opened it. */
  async disconnect(): Promise<void> {}

  // The types of Keyv 6 want listeners to be more than a `Function`. The store itself emits nothing.
  override listeners(event: string | symbol): Listener[] {
    return super.listeners(event) as Listener[];
  }

  override rawListeners(event: string | symbol): Listener[] {
    return super.rawListeners(event) as Listener[];
  }

  /** Iterates over the keys and what is stored, in no order. Keys of more than 1,024 characters are left out. */
  async *iterator(namespace?: string): AsyncGenerator<any[], void> {
    const entries = namespace === undefined ? this.#entries : this.#entriesOf(namespace);
    for await (const [key, value] of asCache(entries)?.entries() ?? pairs(entries)) {
      // A hash stands for a long key, and nobody knows that key any more.
      if (storableKey(key) !== key) continue;
      const found = this.#plain ? plain(value, await entries.ttl(key)) : value;
      if (found !== undefined) yield [key, found];
    }
  }

  #entriesOf(namespace: string | undefined): CacheOrTier {
    return namespace === undefined || namespace === "" ? this.#part : this.#part.namespace(namespace);
  }

  #withExpiry(name: string, value: unknown): Awaitable<Plain | undefined> {
    if (value === undefined) return undefined;
    return after(this.#entries.ttl(name), (ttl) => plain(value, ttl));
  }

  #store(key: string, data: unknown, expiry: number | undefined): Awaitable<boolean> {
    const name = storableKey(key);
    const { value, ttl } = this.#plain ? unwrapped(data) : { value: data, ttl: this.#ttl(expiry) };
    if (value === undefined || (ttl !== undefined && ttl <= 0)) {
      return after(this.#entries.delete(name), () => true);
    }
    return tryStore(this.#entries, name, value, ttl === undefined ? undefined : { ttl });
  }

  /** The `ttl` for `cache.set`. 0 and what is no number stand for none, as in Keyv. */
  #ttl(expiry: number | undefined): number | undefined {
    if (!expiry) return undefined;
    return this.#isToldTimes ? expiry - Date.now() : expiry;
  }
}

/** The keys of a tier with their values. */
async function* pairs(entries: CacheOrTier): AsyncGenerator<[key: string, value: unknown], void> {
  for await (const key of entries.keys()) {
    const value = await entries.get(key);
    if (value !== undefined) yield [key, value];
  }
}

/** What Keyv gets for an entry; `undefined` when the entry has gone since its value was read. */
function plain(value: unknown, ttl: number | undefined): Plain | undefined {
  if (ttl === undefined) return undefined;
  return { value, expires: ttl === Infinity ? undefined : Date.now() + ttl };
}

/** @throws {TypeError} when Keyv has serialized the value. */
function unwrapped(data: unknown): { value: unknown; ttl: number | undefined } {
  if (typeof data !== "object" || data === null || !("value" in data)) {
    throw new TypeError("Keyv serializes its values, although the store has the option `serialization: false`");
  }
  const { value, expires } = data as Plain;
  return { value, ttl: typeof expires !== "number" || Number.isNaN(expires) ? undefined : expires - Date.now() };
}

/**
 * Creates a Keyv whose values lie in the cache as they are, without serialization: `keyv.get(key)` and
 * `cache.namespace(namespace).get(key)` read the same entries. For cache-manager, cacheable and NestJS it is a store.
 *
 * Give the class, `createKeyv(cache, { Keyv })`, in TypeScript, whose result is of that class then, and in bundled programs. Without
 * it the package `keyv` is loaded by `require`, and the result has the type `any`: the types of this package do not name those of
 * another one.
 *
 * @throws {TypeError} and {RangeError} naming the argument that is wrong.
 * @throws {Error} when there is no package `keyv` of version 5 or newer.
 */
export function createKeyv<T>(cache: CacheOrTier, options: CreateKeyvOptions & { Keyv: new (options: any) => T }): T;
export function createKeyv(cache: CacheOrTier, options?: CreateKeyvOptions): any;
export function createKeyv(cache: CacheOrTier, options: CreateKeyvOptions = {}): unknown {
  checkNames(options, ["namespace", "ttl", "Keyv"]);
  const { namespace, ttl, Keyv = installedKeyv() } = options;
  if (typeof Keyv !== "function") throw new TypeError("options.Keyv: must be the class Keyv");
  const keyv: any = new Keyv({
    store: new KeyvCacheMachine(cache, { namespace, serialization: false }),
    ttl,
    // For Keyv 6.
    serialization: false,
    // For Keyv 5. cacheable takes an object for a Keyv only if these are functions, unless it has loaded the same module of Keyv.
    serialize: same,
    deserialize: same,
    namespace: undefined,
    useKeyPrefix: false,
  });
  // Keyv 5 calls `deserialize` only for texts.
  if ("deserializeData" in keyv) keyv.deserializeData = async (data: unknown) => data;
  return keyv;
}

const same = (data: unknown): unknown => data;

/** The class of the package `keyv` that the program has installed. */
function installedKeyv(): new (options: any) => unknown {
  let found: { Keyv?: unknown } = {};
  let cause: unknown;
  try {
    found = createRequire(import.meta.url)("keyv");
  } catch (error) {
    cause = error;
  }
  if (typeof found.Keyv === "function") return found.Keyv as new (options: any) => unknown;
  throw new Error(
    "createKeyv: there is no package `keyv` of version 5 or newer. Install it, or give the class: createKeyv(cache, { Keyv })",
    { cause },
  );
}
