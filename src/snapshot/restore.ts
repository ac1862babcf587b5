/** Puts entries of a snapshot into a cache: each as it is, with its encoded bytes, and only where there is none. */

import type { Key } from "../cache/types.ts";
import { View } from "../cache/view.ts";
import {
  ABSENT,
  DONE,
  LIMIT_FIXED,
  LIMIT_GCRA,
  LIMIT_SECOND,
  LIMIT_SLIDING,
  LIMIT_TYPE,
  TOO_LARGE,
  UNEXPECTED,
  WANT_QUIET,
} from "../engine/contract.ts";
import { KeyCodec, keyLength } from "../values/key.ts";
import { runtime } from "../values/runtime.ts";
import { pathOf, scopeOf } from "../values/scope.ts";
import { writeTags } from "../values/tags.ts";
import type { RawEntry } from "./format.ts";
import { Room } from "./room.ts";

/** Most views of namespaces that are kept. */
const MOST_VIEWS = 1000;
/** More than any limit, and a whole number with which the engine counts exactly. */
const MANY = 2 ** 40;
/** Milliseconds of a window that cannot be over while a limit is put back. */
const WINDOW = 2 ** 40;

/** What became of an entry: it was added, or why not. */
export type Fate = "added" | "present" | "expired" | "full" | "tooLarge" | "busy" | "damaged";

/** Adds entries to one cache or namespace. */
export class Restore {
  readonly #view: View;
  readonly #keys = new KeyCodec();
  readonly #views = new Map<string, View>();
  /** Milliseconds that are added to each time: from the clock of the cache that was exported to the clock of this one. */
  readonly #shift: number;
  readonly #room: Room;
  #now = 0;

  constructor(view: View, shift: number) {
    this.#view = view;
    this.#shift = shift;
    this.#room = new Room(view.engine);
  }

  /** Before the entries of a block: asks the clock, which may be the user's code. @throws {CacheError} `ERR_CLOSED`. */
  begin(): void {
    this.#view.opening.checkOpen();
    this.#now = this.#view.now();
    this.#view.opening.checkOpen();
  }

  /** After the entries of a block. */
  end(): void {
    this.#room.look();
  }

  /** Adds an entry unless there is one with its key, or there is no room for more. @throws {CacheError} `ERR_CLOSED`. */
  put(entry: RawEntry): Fate {
    const expiry = entry.expiry + this.#shift;
    if (expiry <= this.#now) return "expired";
    const view = this.#viewOf(entry.namespace);
    const key = this.#keys.read(entry.kind, entry.key, 0, entry.key.length);
    if (view === undefined || key === undefined) return "damaged";
    if (this.#room.isOver) return "full";
    this.#room.before();
    const fate = this.#add(view, key, entry, expiry);
    this.#room.after();
    return fate;
  }

  #add(view: View, key: Key, { value, type, grace, tags }: RawEntry, expiry: number): Fate {
    const { engine, opening } = view;
    if (value.length > opening.options.maxEntrySize || value.length > engine.maxValue) return "tooLarge";
    const written = view.writeNewKey(key);
    const tagBytes = writeTags(engine.tags, tags, view.scope.tagPrefix, view.scope.hidden);
    const tagged = tagBytes > 0;
    if (type === LIMIT_TYPE) return this.#putLimit(view, written, value, expiry, tagged);
    let result: number;
    if (value.length + keyLength(written) + tagBytes <= engine.maxInline) {
      engine.value.set(value);
      result = engine.set(written, type, value.length, expiry, grace, tagged, ABSENT, 0);
    } else result = engine.setLarge(written, type, value, expiry, grace, tagged, ABSENT, 0);
    return fateOf(result);
  }

  /**
   * Puts a rate limit back. The engine keeps limits in records of another kind than `set` writes, so the limit is made by requests
   * at the time at which its window began, all in the past. A limit that begins at the same moment elsewhere gets these requests on
   * top of its own: then it is too strict until its window ends.
   */
  #putLimit(view: View, written: number, value: Uint8Array, expiry: number, tagged: boolean): Fate {
    const { engine } = view;
    if (engine.get(written, WANT_QUIET) >= 0) return "present";
    const data = new DataView(value.buffer, value.byteOffset, value.length);
    const head = data.getUint32(0, true);
    const algorithm = head & (LIMIT_SECOND - 1);
    const at = (head & LIMIT_SECOND) === 0 ? 8 : 32;
    const [start, count, previous] = [0, 8, 16].map((by) => data.getFloat64(at + by, true)) as [number, number, number];
    const known = algorithm === LIMIT_GCRA || algorithm === LIMIT_FIXED || algorithm === LIMIT_SLIDING;
    if (!known || !Number.isFinite(start) || !isCount(count) || !isCount(previous)) return "damaged";
    const began = start + this.#shift;
    const ask = (time: number, cost: number): number => {
      engine.clock = () => time;
      const rule = { algorithm, limit: MANY, window: WINDOW, burst: MANY, cost, peek: false };
      return engine.limit(written, rule, tagged);
    };
    const earlier = previous > 0 ? ask(began - WINDOW, previous) : DONE;
    const result = earlier === DONE ? ask(began, count) : earlier;
    if (result === DONE) engine.touch(written, expiry);
    return fateOf(result);
  }

  /** The view of a namespace, by its id within the cache or namespace of the import; `undefined` when there can be none. */
  #viewOf(namespace: Uint8Array): View | undefined {
    if (namespace.length === 0) return this.#view;
    const id = runtime.readLatin1(namespace, 0, namespace.length);
    const known = this.#views.get(id);
    if (known !== undefined) return known;
    const path = pathOf(runtime.readUtf8(namespace, 0, namespace.length));
    if (path === undefined || path.includes("")) return undefined;
    let scope: ReturnType<typeof scopeOf>;
    try {
      scope = scopeOf([...this.#view.scope.path, ...path]);
    } catch (error) {
      if (error instanceof RangeError) return undefined;
      throw error;
    }
    if (this.#views.size >= MOST_VIEWS) this.#views.clear();
    const view = new View(this.#view.opening, scope);
    this.#views.set(id, view);
    return view;
  }
}

/** Whether a number of requests is one that a limit can have. */
function isCount(count: number): boolean {
  return Number.isSafeInteger(count) && count >= 0 && count < MANY;
}

function fateOf(result: number): Fate {
  if (result === DONE) return "added";
  if (result === UNEXPECTED) return "present";
  return result === TOO_LARGE ? "tooLarge" : "busy";
}
