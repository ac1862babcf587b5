/**
 * What a flight hands to those who wait elsewhere, when the value is not stored under its key: an error, `undefined`, or a value
 * that was overtaken or lives too short. It is an entry of a hidden namespace under the token of the claim, written before the
 * claim is released. A value is stored as usual. Its tag tells what it is, and what had been invalidated when the load began.
 *
 * Beside it lie the marks of keys whose refresh has failed, so that all processes leave the source alone for a while.
 */

import { type Scope, scopeOf } from "../values/scope.ts";

/** What had been invalidated at some time: the engine's global invalidation sequence and clear epoch. */
export interface Start {
  readonly sequence: number;
  readonly clearEpoch: number;
}

/** What came of a load that was not stored. */
export interface Outcome {
  /** The value, `undefined` for none, or an array of the name and the message of the error. */
  readonly value: unknown;
  readonly failed: boolean;
  /** Whether the value was stored under its key, but may have expired since. */
  readonly stored: boolean;
  /** Present when not everybody may have it: see `isBefore` in flights.ts. */
  readonly start: Start | undefined;
}

/** What is needed of the cache: the view of the scope {@link hiddenScope}. */
export interface Shelf {
  entry(key: string): { value: unknown; tags: string[] } | undefined;
  put(key: string, value: unknown, ttl: number, tags: readonly string[]): void;
  has(key: string): boolean;
}

/** The hidden namespace. Users cannot name it, because the name of a namespace is never empty. */
export function hiddenScope(): Scope {
  // Not at import: the place may have no TextEncoder, which is told when a cache is opened.
  hidden ??= scopeOf([""]);
  return hidden;
}
let hidden: Scope | undefined;

/** How long an outcome can be fetched, in milliseconds. Who waits is woken within a second, even if every ring is lost. */
const OUTCOME_MS = 10_000;
/** Of a longer id, the middle is left out. */
const LONGEST_ID = 1000;

const NOTHING = "nothing";
const VALUE = "value";
const STORED = "stored";
const FAILURE = "failure";

/** The outcomes of one cache. */
export class Outcomes {
  readonly #shelf: Shelf;

  constructor(shelf: Shelf) {
    this.#shelf = shelf;
  }

  /** Writes the outcome of the claim with this token. When that is not possible, those who wait load again. */
  publish(token: number, { value, failed, stored, start }: Outcome): void {
    const kind = failed ? FAILURE : stored ? STORED : value === undefined ? NOTHING : VALUE;
    const tag = start === undefined ? kind : `${kind} ${start.sequence} ${start.clearEpoch}`;
    try {
      // A text, because a `codec` never sees a text.
      const content = failed ? JSON.stringify(nameAndMessage(value)) : (value ?? null);
      this.#shelf.put(`outcome ${token}`, content, OUTCOME_MS, [tag]);
    } catch {
      // It has no room, or somebody is in the way.
    }
  }

  /** The outcome of a claim; `undefined` when there is none. */
  of(token: number): Outcome | undefined {
    try {
      const found = this.#shelf.entry(`outcome ${token}`);
      const [kind, sequence, clearEpoch] = found?.tags[0]?.split(" ") ?? [];
      if (found === undefined || kind === undefined) return undefined;
      const start =
        clearEpoch === undefined ? undefined : { sequence: Number(sequence), clearEpoch: Number(clearEpoch) };
      const failed = kind === FAILURE;
      const value = failed ? JSON.parse(String(found.value)) : kind === NOTHING ? undefined : found.value;
      return { value, failed, stored: kind === STORED, start };
    } catch {
      return undefined;
    }
  }

  /** Notes that the refresh of an entry has failed. Another version of the entry is not affected. */
  backOff(id: string, version: number, milliseconds: number): void {
    try {
      this.#shelf.put(markOf(id, version), true, milliseconds, []);
    } catch {
      // Then the next read tries again.
    }
  }

  /** Whether the refresh of an entry has failed a short time ago. */
  isBackingOff(id: string, version: number): boolean {
    return this.#shelf.has(markOf(id, version));
  }
}

/** The key of a mark. No two entries have the same version, unless somebody has damaged the memory. */
function markOf(id: string, version: number): string {
  const short =
    id.length <= LONGEST_ID ? id : `${id.slice(0, LONGEST_ID / 2)}${id.length} ${id.slice(-LONGEST_ID / 2)}`;
  return `failed ${version} ${short}`;
}

/** The name and the message of whatever was thrown. */
function nameAndMessage(error: unknown): [name: string, message: string] {
  try {
    const { name, message } = (error ?? {}) as Partial<Error>;
    return [String(name ?? "Error"), String(message ?? error)];
  } catch {
    return ["Error", ""];
  }
}
