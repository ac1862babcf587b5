/**
 * The model that a cache is compared with: a plain Map with the entries of all namespaces, their expiry, tags and versions. A
 * cache may evict an entry. Then the model removes it, so an entry that was missed once must not come back.
 */

import type { Key } from "cache-machine";
import { ok } from "../contract/assert.ts";

/** An entry of the model. */
export interface Known {
  readonly key: Key;
  readonly path: readonly string[];
  /** Makes the value, a new one with each call. */
  value: () => unknown;
  expiresAt: number;
  tags: readonly string[];
  /** `undefined` after a change, until the version is read. */
  version: number | undefined;
  /**
   * Whether the entry has ever expired. The cache may have reclaimed its memory since then. So when the clock steps back, the
   * entry may be present or absent, and the first answer of the cache decides.
   */
  doubtful: boolean;
}

export class Model {
  readonly #known = new Map<string, Known>();
  /** For each key all versions that it ever had. */
  readonly #versions = new Map<string, Set<number>>();
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
    for (const entry of this.#known.values()) if (entry.expiresAt <= this.now) entry.doubtful = true;
  }

  /** The entry of a key, if it may be present. */
  at(path: readonly string[], key: Key): Known | undefined {
    const entry = this.#known.get(name(path, key));
    return entry !== undefined && entry.expiresAt > this.now ? entry : undefined;
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
  put(path: readonly string[], key: Key, value: () => unknown, expiresAt: number, tags: readonly string[] = []): void {
    this.#known.set(name(path, key), { key, path, value, expiresAt, tags, version: undefined, doubtful: false });
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
  }

  #removeIf(condition: (entry: Known) => boolean): void {
    for (const [id, entry] of this.#known) if (condition(entry)) this.#known.delete(id);
  }

  /** The entries that may be present, in one namespace or in the whole cache. */
  live(path?: readonly string[]): Known[] {
    return [...this.#known.values()].filter(
      (entry) => entry.expiresAt > this.now && (path === undefined || String(entry.path) === String(path)),
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
