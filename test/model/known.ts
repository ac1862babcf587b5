/**
 * What must be in a cache: a plain map of all namespaces, with expiry. A cache may forget, and an answer that it has
 * forgotten is final: who is missed once must not come back.
 */

import type { Key } from "cache-machine";
import { ok } from "../contract/assert.ts";

/** What is known of an entry. */
export interface Known {
  readonly key: Key;
  readonly path: readonly string[];
  /** Makes the value anew. */
  value: () => unknown;
  expiresAt: number;
  tags: readonly string[];
  /** Unknown after a change, until it is read. */
  version: number | undefined;
  /**
   * It had expired. Nothing tells whether its memory was taken back since; so when the clock steps back it may be there
   * or not. The first answer decides.
   */
  doubtful: boolean;
}

export class Model {
  readonly #known = new Map<string, Known>();
  /** All versions that a key has had. */
  readonly #versions = new Map<string, Set<number>>();
  readonly #lossy: boolean;
  /** How often something was forgotten that the clock did not end. */
  forgotten = 0;
  now = 1_700_000_000_000;

  /** @param lossy whether any entry may be missed */
  constructor(lossy: boolean) {
    this.#lossy = lossy;
  }

  /** Moves the clock. */
  wait(by: number): void {
    this.now += by;
    this.#doubt();
  }

  #doubt(): void {
    for (const entry of this.#known.values()) if (entry.expiresAt <= this.now) entry.doubtful = true;
  }

  /** The entry, if it may be there. */
  at(path: readonly string[], key: Key): Known | undefined {
    const entry = this.#known.get(name(path, key));
    return entry !== undefined && entry.expiresAt > this.now ? entry : undefined;
  }

  /** The cache says whether the entry is there: fails when that cannot be, and remembers it. */
  settle(path: readonly string[], key: Key, there: boolean, what: string): Known | undefined {
    const entry = this.at(path, key);
    if (there) {
      ok(entry !== undefined, `${what}: there is an entry where none can be`);
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

  mayMiss(entry: Known): boolean {
    return this.#lossy || entry.doubtful;
  }

  put(path: readonly string[], key: Key, value: () => unknown, expiresAt: number, tags: readonly string[] = []): void {
    this.#known.set(name(path, key), { key, path, value, expiresAt, tags, version: undefined, doubtful: false });
    this.#doubt();
  }

  /** Another value, with the expiry and the tags it has. */
  revalue(entry: Known, value: unknown): void {
    entry.value = () => value;
    entry.version = undefined;
  }

  expire(entry: Known, expiresAt: number): void {
    entry.expiresAt = expiresAt;
    this.#doubt();
  }

  /** The cache tells the version: the one it had if nothing changed, and otherwise one that it never had. */
  checkVersion(entry: Known, version: number, what: string): void {
    const id = name(entry.path, entry.key);
    const had = this.#versions.get(id) ?? new Set();
    this.#versions.set(id, had);
    if (entry.version === undefined) {
      ok(Number.isSafeInteger(version) && version > 0 && !had.has(version), `${what}: version ${version} came back`);
    } else ok(version === entry.version, `${what}: version ${version} instead of ${entry.version}`);
    entry.version = version;
    had.add(version);
  }

  /** Removed, whether it had expired or not. */
  remove(path: readonly string[], key: Key): void {
    this.#known.delete(name(path, key));
  }

  /** Removes what is in a namespace and in those within it. */
  clear(path: readonly string[]): void {
    this.#removeIf((entry) => path.every((part, depth) => entry.path[depth] === part));
  }

  /** Removes what is in just this namespace and has the tag. */
  invalidate(path: readonly string[], tag: string): void {
    this.#removeIf((entry) => String(entry.path) === String(path) && entry.tags.includes(tag));
  }

  #removeIf(condition: (entry: Known) => boolean): void {
    for (const [id, entry] of this.#known) if (condition(entry)) this.#known.delete(id);
  }

  /** What may be there, in one namespace or everywhere. */
  live(path?: readonly string[]): Known[] {
    return [...this.#known.values()].filter(
      (entry) => entry.expiresAt > this.now && (path === undefined || String(entry.path) === String(path)),
    );
  }

  /** Checks a number of entries against what may be and what must be there. */
  checkCount(count: number, path: readonly string[] | undefined, what: string): void {
    const live = this.live(path);
    const certain = live.filter((entry) => !this.mayMiss(entry)).length;
    ok(certain <= count && count <= live.length, `${what}: ${count} entries instead of ${certain} to ${live.length}`);
  }
}

/** Different for each key of each namespace; what the names of namespaces are made of does not have a slash. */
export function name(path: readonly string[], key: Key): string {
  return `${path.join("/")}|${typeof key === "string" ? `text ${key}` : `bytes ${String([...key])}`}`;
}
