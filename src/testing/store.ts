/** A key-value store as the checks see it: what it may be asked, and what the checks have to know about it. */

import { ok } from "./assert.ts";

/**
 * A store under test. Whatever you test, write the few lines that make it answer like this. Each member may answer at once or by a
 * promise. A check needs only the members that it names.
 */
export interface Store {
  /** The value, or {@link StoreSubject.absent} when there is none. */
  get(key: string): unknown;
  /** Stores a value, for `ttl` milliseconds if there is one, and under the `tags` if there are any. */
  set(key: string, value: unknown, options?: { ttl?: number; tags?: string[] }): unknown;
  /** Removes a value. Where it answers with a boolean, that says whether there was one. */
  delete?(key: string): unknown;
  /** Whether there is a value: `true` or `false`. */
  has?(key: string): unknown;
  /** Removes all values of this store, or of its namespace. */
  clear?(): unknown;
  /** The values of the keys, in their order. */
  getMany?(keys: string[]): unknown;
  /** Stores many values, each with its `ttl` in milliseconds if it has one. */
  setMany?(entries: [key: string, value: unknown, ttl?: number][]): unknown;
  /** Removes many values. */
  deleteMany?(keys: string[]): unknown;
  /** The keys of all values that can be read. */
  keys?(): Iterable<string> | AsyncIterable<string> | Promise<Iterable<string>>;
  /** Removes all values with this tag. */
  invalidateTag?(tag: string): unknown;
  /** The value; when there is none, what `load` returns, which is stored. */
  getOrSet?(key: string, load: () => unknown, options?: { ttl?: number }): unknown;
  /** One request of a rate limit: whether it is among the `limit` that are allowed within `window` milliseconds. */
  hit?(key: string, limit: number, window: number): boolean | Promise<boolean>;
  /** Lets go of what the store holds. */
  close?(): unknown;
}

/** A member that not every store has. */
export type StoreMember = Exclude<keyof Store, "get" | "set">;

/** What the checks have to know about a store. */
export interface StoreSubject {
  /**
   * Opens the store. Each check opens one, or two, and closes them if they have `close`. Whether they share their values is up to
   * you: the checks rely on neither.
   *
   * @param options - the `namespace` is there only when {@link namespaces} is `true`.
   */
  open(options?: { namespace?: string }): Store | Promise<Store>;
  /** What `get` returns when there is no value. Default: either of `undefined` and `null`. */
  readonly absent?: unknown;
  /**
   * Which values come back as they were: `"text"`: strings; `"json"`: what JSON can express, which is the default;
   * `"structured"`: also `Map`, `Set`, `Date`, bytes, bigints and cycles.
   */
  readonly values?: "text" | "json" | "structured";
  /** Whether an object that was stored or returned is a copy, which others do not see changing. Default: `true`. */
  readonly copies?: boolean;
  /** Whether `open` takes a `namespace`, whose keys, and whose `clear`, have nothing to do with those of others. Default: `false`. */
  readonly namespaces?: boolean;
  /**
   * The members that the store must have, of those that not every store has. A check fails when one of them is missing, and the
   * checks of all others are left out. Default: those that an opened store turns out to have.
   */
  readonly members?: readonly StoreMember[];
  /** Whether the store takes this key. Default: it takes all strings. */
  validKey?(key: string): boolean;
  /** Length of a text that is too large for the store. Without it, nothing is checked about such values. */
  readonly tooLarge?: number;
  /** The shortest `ttl`, in milliseconds, which is also how much too early or late a value may expire. Default: 2. */
  readonly minTtl?: number;
  /**
   * Moves the clock that the store asks. Without it the checks of expiry wait.
   *
   * @param ms - by how many milliseconds.
   */
  advance?(ms: number): void | Promise<void>;
  /** How long a check may take, in milliseconds. Default: 30,000. */
  readonly timeout?: number;
}

/** The parts of {@link StoreSubject} that say how the values of a store look. */
export type Values = Pick<StoreSubject, "absent" | "values">;

/** Whether `get` has answered that there is no value. */
export function isAbsent(subject: Values, answer: unknown): boolean {
  return "absent" in subject ? Object.is(answer, subject.absent) : answer === undefined || answer === null;
}

/** Throws unless `get` has answered that there is no value. */
export function absent(subject: Values, answer: unknown, what: string): void {
  ok(isAbsent(subject, answer), `${what}: expected none, got ${inspect(answer)}`);
}

function inspect(value: unknown): string {
  try {
    return typeof value === "string"
      ? JSON.stringify(value.slice(0, 100))
      : String(JSON.stringify(value)).slice(0, 100);
  } catch {
    return typeof value;
  }
}

/** A value that tells where it comes from: an object, or a text where the store takes only texts. */
export function value(subject: Values, name: string): unknown {
  return subject.values === "text" ? `value ${name}` : { name, list: [name] };
}

/**
 * How often a check may be tried that looks at what stays when something else is removed. A cache may remove a bit more than it was
 * told, when two tags or namespaces have the same hash. With other names each time, only a fault does so that often in a row.
 */
export const TRIES = 3;

/** Tries so often. The last error counts. */
export async function retried(tries: number, attempt: () => Promise<void>): Promise<void> {
  for (let left = tries; left > 0; left--) {
    try {
      return await attempt();
    } catch (error) {
      if (left === 1) throw error;
    }
  }
}

/** Tells the test runner that the check does not apply. */
export function skip(context: readonly unknown[], why: string): void {
  (context[0] as { skip?(note: string): void } | undefined)?.skip?.(why);
}

let last = 0;
/** A beginning for keys that no other check uses, nor another run of the same check. */
export function freshPrefix(): string {
  return `check-${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 6)}-${last++}-`;
}
