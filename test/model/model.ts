/**
 * The model that a cache is compared with: a plain Map with the entries of all namespaces, their expiry, tags and versions. A
 * cache may evict an entry. Then the model removes it, so an entry that was missed once must not come back.
 */

import type { Key } from "cache-machine";
import { ok } from "../../src/testing/assert.ts";

/** An entry of the model. */
export interface Known {
  readonly key: Key;
  readonly path: readonly string[];
  /** Makes the value, a new one with each call. */
  value: () => unknown;
  expiresAt: number;
  /** Milliseconds for which the entry is stale after it has expired. */
  readonly grace: number;
  tags: readonly string[];
  /** When each of its tags that have expired since it was stored expired last. */
  readonly expired: Map<string, number>;
  /** `undefined` after a change, until the version is read. */
  version: number | undefined;
  /**
   * Whether the grace of the entry was ever over. The cache may have reclaimed its memory since then. So when the clock steps
   * back, or one of its tags expires again, the entry may be present or absent, and the first answer of the cache decides.
   */
  doubtful: boolean;
}

export class Model {
  readonly #known = new Map<string, Known>();
  /** For each key all versions that it ever had. */
  readonly #versions = new Map<string, Set<number>>();
  /** When each tag of each namespace expired last. */
  readonly #expired = new Map<string, number>();
  /** When each tag of each namespace was invalidated last. */
  readonly #invalidated = new Map<string, number>();
  readonly #lossy: boolean;
  /** How many entries were missed although they had not expired. */
  forgotten = 0;
  /** The clock of the run, in milliseconds. */
  now = 1_700_000_000_000;

  /** @param lossy - whether the cache may evict entries, so that any entry may be missed. */
  constructor(lossy: boolean) {
    this.#lossy = lossy;
  }

  /** Moves the clock by milliseconds, forward or back. */
  wait(by: number): void {
    this.now += by;
    this.#doubt();
  }

  #doubt(): void {
    for (const entry of this.#known.values()) if (!this.#isUsable(entry)) entry.doubtful = true;
  }

  #isFresh(entry: Known): boolean {
    return entry.expiresAt > this.now && entry.expired.size === 0;
  }

  /** Whether the entry is fresh, or stale and within its grace. */
  #isUsable(entry: Known): boolean {
    const expires = Math.min(entry.expiresAt, ...entry.expired.values());
    return this.#isFresh(entry) || (entry.grace > 0 && this.now < expires + entry.grace);
  }

  /** The entry of a key, if it may be present. */
  at(path: readonly string[], key: Key): Known | undefined {
    const entry = this.#known.get(name(path, key));
    return entry !== undefined && this.#isFresh(entry) ? entry : undefined;
  }

  /**
   * As {@link Model.settle}, for an answer of `getStale`.
   * @param stale - whether the entry that was found is stale; `undefined` when none was found.
   */
  settleStale(path: readonly string[], key: Key, stale: boolean | undefined): Known | undefined {
    const entry = this.#known.get(name(path, key));
    if (entry === undefined || !this.#isUsable(entry)) {
      ok(stale === undefined, "getStale: found an entry that cannot be there");
      return undefined;
    }
    if (this.#isFresh(entry)) {
      ok(stale !== true, "getStale: the entry is stale too early");
      return this.settle(path, key, stale !== undefined, "getStale");
    }
    ok(stale !== false, "getStale: an entry that has expired is not stale");
    if (stale !== undefined) {
      entry.doubtful = false;
      return entry;
    }
    ok(this.mayMiss(entry), "getStale: the stale entry is missing");
    this.#known.delete(name(path, key));
    return undefined;
  }

  /**
   * Takes an answer of the cache: whether the entry is present. Throws if the answer cannot be right, and otherwise remembers
   * it.
   * @param what - the operation that answered, for the error.
   * @returns the entry if it is present.
   */
  settle(path: readonly string[], key: Key, present: boolean, what: string): Known | undefined {
    const entry = this.at(path, key);
    if (present) {
      ok(entry !== undefined, `${what}: found an entry that cannot be present`);
      entry.doubtful = false;
      return entry;
    }
    if (entry !== undefined) {
      ok(this.mayMiss(entry), `${what}: the entry is missing`);
      this.#known.delete(name(path, key));
      this.forgotten++;
    }
    return undefined;
  }

  /** Whether a miss of the entry is allowed. */
  mayMiss(entry: Known): boolean {
    return this.#lossy || entry.doubtful;
  }

  /** Stores an entry. */
  put(
    path: readonly string[],
    key: Key,
    value: () => unknown,
    expiresAt: number,
    tags: readonly string[] = [],
    grace = 0,
  ): void {
    const entry = { key, path, value, expiresAt, grace, tags, expired: new Map(), version: undefined, doubtful: false };
    this.#known.set(name(path, key), entry);
    this.#doubt();
  }

  /** Gives an entry another value. Its expiry and tags stay. */
  revalue(entry: Known, value: unknown): void {
    entry.value = () => value;
    entry.version = undefined;
  }

  /** Gives an entry another expiry. */
  expire(entry: Known, expiresAt: number): void {
    entry.expiresAt = expiresAt;
    this.#doubt();
  }

  /**
   * Takes the version that the cache tells. It must be the same as before if the entry has not changed, and otherwise one that
   * its key never had.
   */
  checkVersion(entry: Known, version: number, what: string): void {
    const id = name(entry.path, entry.key);
    const had = this.#versions.get(id) ?? new Set();
    this.#versions.set(id, had);
    if (entry.version === undefined) {
      ok(
        Number.isSafeInteger(version) && version > 0 && !had.has(version),
        `${what}: version ${version} was used before`,
      );
    } else ok(version === entry.version, `${what}: version ${version} instead of ${entry.version}`);
    entry.version = version;
    had.add(version);
  }

  /** Removes an entry, expired or not. */
  remove(path: readonly string[], key: Key): void {
    this.#known.delete(name(path, key));
  }

  /** Removes the entries of a namespace, and of the namespaces within it. */
  clear(path: readonly string[]): void {
    this.#removeIf((entry) => path.every((part, depth) => entry.path[depth] === part));
  }

  /** Removes the entries with this tag from a namespace, but not from the namespaces within it. */
  invalidate(path: readonly string[], tag: string): void {
    this.#removeIf((entry) => String(entry.path) === String(path) && entry.tags.includes(tag));
    this.#invalidated.set(name(path, tag), Math.max(this.now, this.invalidatedAt(path, tag)));
  }

  /** When the tag was invalidated last; 0 for never. */
  invalidatedAt(path: readonly string[], tag: string): number {
    return this.#invalidated.get(name(path, tag)) ?? 0;
  }

  /** Lets the entries with this tag expire. The clock may have stepped back since the tag expired last. */
  expireTag(path: readonly string[], tag: string): void {
    const id = name(path, tag);
    const at = Math.max(this.now, this.#expired.get(id) ?? 0);
    this.#expired.set(id, at);
    for (const entry of this.#known.values()) {
      if (String(entry.path) === String(path) && entry.tags.includes(tag)) entry.expired.set(tag, at);
    }
    this.#doubt();
  }

  #removeIf(condition: (entry: Known) => boolean): void {
    for (const [id, entry] of this.#known) if (condition(entry)) this.#known.delete(id);
  }

  /** The entries that may be present, in one namespace or in the whole cache. */
  live(path?: readonly string[]): Known[] {
    return [...this.#known.values()].filter(
      (entry) => this.#isFresh(entry) && (path === undefined || String(entry.path) === String(path)),
    );
  }

  /** Checks a number of entries: at least those that must be present, at most those that may be. */
  checkCount(count: number, path: readonly string[] | undefined, what: string): void {
    const live = this.live(path);
    const certain = live.filter((entry) => !this.mayMiss(entry)).length;
    ok(certain <= count && count <= live.length, `${what}: ${count} entries instead of ${certain} to ${live.length}`);
  }
}

/** A text for a key of a namespace, different for each. It relies on names of namespaces without slashes. */
export function name(path: readonly string[], key: Key): string {
  return `${path.join("/")}|${typeof key === "string" ? `text ${key}` : `bytes ${String([...key])}`}`;
}
