/**
 * Reads of many keys in one pass. A single read waits for its bucket, and then for its record, before the next one begins.
 * Here the keys of a group are written to slots of the area first, the engine waits for the memory of all of them together
 * (`wasm/src/index/prefetch.rs`), and then each is looked up as usual.
 *
 * Decoding a value may run the user's code, which may use the cache, begin a group of its own, or close the cache. So each
 * lookup makes sure that its group still stands; what is left of a group that does not is read key by key.
 */

import {
  GROUP,
  KEY_KIND_BITS,
  KEY_NAMESPACED,
  SLOT_KEY,
  WANT_AFTER_FIND,
  WANT_QUIET,
  WANT_TAGS,
  WANT_VALUE,
} from "../engine/contract.ts";
import type { Near } from "../near/near.ts";
import { UNKNOWN } from "../near/table.ts";
import { describe, typedArrayName } from "../values/describe.ts";
import { KEY_TOO_LONG, KeyCodec, keyKind, keyLength } from "../values/key.ts";
import type { Entry, Key } from "./types.ts";
import { unreadable, type View } from "./view.ts";

/** How the answer of one key is made. */
interface Reading<T> {
  /** What the engine's `get` is asked for. */
  readonly want: number;
  /** Answers from what the engine has just found; `length` is -1 for a miss. May run the user's code. */
  found(key: Key, length: number, near: Near | undefined): T;
  /** Reads one key by itself. `isCounted`: the read was counted as a hit already. */
  read(key: Key, isCounted: boolean, near: Near | undefined): T;
}

/** The reads of many keys of one view. */
export class Many {
  readonly #view: View;
  readonly #keys: KeyCodec = new KeyCodec();
  /** The slots of a group. */
  readonly #slots: readonly Uint8Array[];
  /** The slots without the room for the prefix of the scope; `undefined` when the prefix is too long for a slot. */
  readonly #ownSlots: readonly Uint8Array[] | undefined;
  readonly #values: Reading<unknown>;
  readonly #entries: Reading<Entry<unknown> | undefined>;
  readonly #presence: Reading<boolean>;

  constructor(view: View) {
    this.#view = view;
    const { engine, scope } = view;
    this.#slots = engine.slots(0);
    this.#ownSlots = scope.prefix.length > SLOT_KEY ? undefined : engine.slots(scope.prefix.length);
    this.#values = {
      want: WANT_VALUE,
      found: (key, length, near) => {
        if (length < 0) return undefined;
        return near === undefined ? view.decode(length) : near.keep(key as string, scope, length);
      },
      read: (key, isCounted, near) => {
        const written = view.writeKey(key);
        return written < 0
          ? undefined
          : view.fetch(key, written, isCounted ? WANT_VALUE | WANT_AFTER_FIND : WANT_VALUE, near);
      },
    };
    this.#entries = {
      want: WANT_VALUE | WANT_TAGS,
      found: (_, length) => (length < 0 ? undefined : view.entryFound(length)),
      read: (key, isCounted) => view.entry(key, isCounted ? WANT_AFTER_FIND : 0),
    };
    this.#presence = {
      want: WANT_QUIET,
      found: (_, length) => length >= 0,
      read: (key) => view.expiry(key) !== undefined,
    };
  }

  /** The values, `undefined` for a miss and for what cannot be read here. They take the places of the keys in `list`. */
  values(list: unknown[]): unknown[] {
    const { near } = this.#view;
    if (near === undefined) this.#read(list, numbersOf(list), this.#values, undefined);
    else this.#valuesNear(list, near);
    return list;
  }

  /** As {@link values}, first from the near cache. What it has no slot for is read afterwards, and then kept if it may be. */
  #valuesNear(list: unknown[], near: Near): void {
    const view = this.#view;
    const asked: number[] = [];
    const kept: number[] = [];
    for (let i = 0; i < list.length; i++) {
      const key = list[i] as Key;
      // As in `Near.get`, without a call more: most keys are in the table.
      if (typeof key !== "string" || near.isCooling()) asked.push(i);
      else {
        const value = near.read(key, view, UNKNOWN);
        if (value !== undefined) list[i] = value;
        else if (near.found < 0) kept.push(i);
        else list[i] = this.#revisited(key, near);
      }
    }
    if (asked.length > 0) this.#read(list, asked, this.#values, undefined);
    if (kept.length > 0) this.#read(list, kept, this.#values, near);
  }

  #revisited(key: string, near: Near): unknown {
    try {
      return near.revisit(key, this.#view, UNKNOWN);
    } catch (error) {
      return unreadable(error);
    }
  }

  /** The entries, `undefined` for a miss and for what cannot be read here. They take the places of the keys in `list`. */
  entries(list: unknown[]): (Entry<unknown> | undefined)[] {
    this.#read(list, numbersOf(list), this.#entries, undefined);
    return list as (Entry<unknown> | undefined)[];
  }

  /** Whether each key is present. The answers take the places of the keys in `list`. */
  presence(list: unknown[]): boolean[] {
    this.#read(list, numbersOf(list), this.#presence, undefined);
    return list as boolean[];
  }

  /** Reads the keys with the numbers `which`, group by group. The answers take their places. */
  #read(list: unknown[], which: number[], reading: Reading<unknown>, near: Near | undefined): void {
    for (let from = 0; from < which.length; from += GROUP) {
      this.#readGroup(list, which.slice(from, from + GROUP), reading, near);
    }
  }

  #readGroup(list: unknown[], which: number[], reading: Reading<unknown>, near: Near | undefined): void {
    const { engine, opening } = this.#view;
    opening.checkOpen();
    const group = engine.beginGroup();
    for (let i = 0; i < which.length; i++) engine.putInGroup(i, this.#write(list[which[i] as number] as Key, i));
    const want = near === undefined ? reading.want : reading.want | WANT_TAGS;
    engine.prefetchGroup(which.length);
    for (let i = 0; i < which.length; i++) {
      const at = which[i] as number;
      const key = list[at] as Key;
      try {
        if (engine.group !== group || !engine.isInGroup(i)) {
          list[at] = reading.read(key, false, near);
          continue;
        }
        if (opening.closed || engine.asking) opening.checkOpen();
        engine.clock = opening.options.now;
        const length = engine.getInGroup(i, want);
        const isLarge = length >= 0 && engine.isChunked && (want & WANT_VALUE) !== 0;
        list[at] = isLarge ? reading.read(key, true, near) : reading.found(key, length, near);
      } catch (error) {
        list[at] = unreadable(error);
      }
    }
  }

  /** Writes a key to slot `i`. Returns it as the engine takes it, negative when it is too long for a slot. */
  #write(key: Key, i: number): number {
    const { prefix } = this.#view.scope;
    const slots = this.#ownSlots;
    if (slots === undefined) return KEY_TOO_LONG;
    const written = this.#keys.write(key, slots[i] as Uint8Array);
    if (prefix.length === 0 || written < 0) return written;
    const slot = this.#slots[i] as Uint8Array;
    slot.set(prefix);
    slot[0] = keyKind(written);
    return ((keyLength(written) + prefix.length) << KEY_KIND_BITS) | KEY_NAMESPACED;
  }
}

function numbersOf(keys: readonly unknown[]): number[] {
  return Array.from(keys, (_, i) => i);
}

/**
 * A copy of the keys that the caller iterates over.
 *
 * @throws {TypeError} for keys that cannot be iterated, and for one that is neither a string nor bytes, which it names.
 */
export function listOf(keys: Iterable<Key>): Key[] {
  if (typeof keys?.[Symbol.iterator] !== "function") throw new TypeError("keys: must be iterable");
  const list = [...keys];
  for (let i = 0; i < list.length; i++) {
    const key: unknown = list[i];
    if (typeof key !== "string" && typedArrayName(key) !== "Uint8Array") {
      throw new TypeError(`keys[${i}]: must be a string or a Uint8Array (such as a Buffer), not ${describe(key)}`);
    }
  }
  return list;
}
