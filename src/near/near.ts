/**
 * The near cache returns a value that this thread has decoded before, as long as the shared cache still holds this value.
 *
 * This file decides whether a read asks the near cache at all, whether a value that was found may be returned, and whether a
 * decoded value is kept, and in which form. `table.ts` holds the values and their proofs. `cooldown.ts` counts whether the near
 * cache helps.
 *
 * A primitive value is kept as it is. An object is kept packed, so that each reader gets a copy of its own. An object that
 * cannot be copied (bytes, an error, a Map, an object of a `codec`) is not kept. With `frozenObjects` each object that can be
 * frozen is kept frozen.
 */

import { WANT_AFTER_FIND, WANT_VALUE } from "../engine/contract.ts";
import type { Engine } from "../engine/engine.ts";
import type { ValueCodec } from "../values/codec.ts";
import { deepFreeze } from "../values/freeze.ts";
import type { Scope } from "../values/scope.ts";
import { heapBytes, packedBytes } from "./heap.ts";
import { type Packed, unpack } from "./pack.ts";
import { extraOf, type Reader, Table } from "./table.ts";

/**
 * A miss of a primitive value counts as this many misses, because such a value is decoded quickly. So the near cache pays off
 * when half of the reads of primitive values, or a fifth of the reads of objects, are hits.
 */
const PRIMITIVE_MISSES = 4;

/** The source of the values that the near cache does not have: the shared cache as one view sees it. */
export interface Source extends Reader {
  /**
   * Writes a key to the area for the call that follows. Returns its length and its key kind in one number; negative when
   * the key is too long.
   */
  writeKey(key: string): number;
  /**
   * Reads a key from the shared cache.
   *
   * @param written the key as `writeKey` gave it, which is still in the area
   * @param want flags of the engine's `get`
   * @param near the near cache that may keep the value, by {@link Near.keep}; none when it is missing
   */
  fetch(key: string, written: number, want: number, near?: Near): unknown;
}

/**
 * The near cache of one opening of a cache: of a `Cache` and its namespaces, in one thread. It is a table and does not own one,
 * because each object that a `get` has to follow costs a nanosecond or more.
 */
export class Near extends Table {
  readonly #engine: Engine;
  readonly #codec: ValueCodec;
  readonly #frozenObjects: boolean;

  /**
   * @param entries the most values
   * @param bytes the most bytes of heap, by estimate; an eighth of the cache's size when undefined
   */
  constructor(entries: number, bytes: number | undefined, engine: Engine, codec: ValueCodec, frozenObjects: boolean) {
    super(entries, engine, bytes);
    this.#engine = engine;
    this.#codec = codec;
    this.#frozenObjects = frozenObjects;
  }

  /**
   * The value of a key, from the table or from the source.
   *
   * @param at the time of `performance.now()` for a leased read. Then the table asks no other clock whether a value has expired:
   * it keeps the time at which the value expires by this clock. {@link UNKNOWN} for every other read.
   */
  get(key: string, source: Source, at: number): unknown {
    if (this.isCooling()) return this.#fetch(key, source, WANT_VALUE, undefined);
    const value = this.read(key, source, at);
    return value === undefined ? this.revisit(key, source, at) : value;
  }

  /**
   * After the table returned nothing: the value in the slot that it has found, if its proof can be renewed and its `Extra` allows
   * it. Otherwise the value of the source. A function of its own, so that the compiled code of {@link Near.get} stays small.
   */
  revisit(key: string, source: Source, at: number): unknown {
    const slot = this.found;
    if (slot < 0) return this.#fetch(key, source, WANT_VALUE, this);
    const written = source.writeKey(key);
    if (!this.#engine.find(written)) return undefined;
    if (!this.renew(slot)) return source.fetch(key, written, WANT_VALUE | WANT_AFTER_FIND, this);
    // Read before the clock is asked: the clock is the user's code, which may use the cache and so change the slot.
    const isPacked = this.isPacked(slot);
    const extra = this.extra(slot);
    const value = extra === undefined ? this.value(slot) : extra.value;
    if (extra !== undefined && !this.allows(extra, slot, source, at)) {
      // This read was counted already.
      return this.#fetch(key, source, WANT_VALUE | WANT_AFTER_FIND, this);
    }
    return isPacked ? unpack(value as Packed) : value;
  }

  #fetch(key: string, source: Source, want: number, near: Near | undefined): unknown {
    const written = source.writeKey(key);
    return written < 0 ? undefined : source.fetch(key, written, want, near);
  }

  /**
   * Decodes the value that the engine's `get` has just read, together with its tags, and keeps it if that may help.
   *
   * @param length bytes of the value in the area
   * @returns the value for the reader: a copy of its own, or the frozen object
   */
  keep(key: string, scope: Scope, length: number): unknown {
    const engine = this.#engine;
    const codec = this.#codec;
    const type = engine.valueType;
    const isPrimitive = codec.isPrimitive(type);
    this.missed(isPrimitive ? PRIMITIVE_MISSES : 1);
    if (isPrimitive) {
      const value = codec.decode(type, engine.value, 0, length);
      const slot = this.place(key, scope, engine.out);
      if (slot < 0) return value;
      const extra = extraOf(scope.id, engine.expiry, engine.tagCounters());
      this.put(slot, key, engine.out, value, extra, heapBytes(value), false);
      return value;
    }
    const frozen = this.#frozenObjects;
    if (!frozen && !codec.isStructured(type)) return codec.decode(type, engine.value, 0, length);
    // Decoding may run the user's code, which may use the cache and so overwrite the out part.
    const out = engine.out.slice();
    const extra = extraOf(scope.id, engine.expiry, engine.tagCounters());
    const value = codec.decode(type, engine.value, 0, length);
    if (frozen && !deepFreeze(value)) return value;
    // The estimate may run a getter of an object that a codec has made, so it comes before there is a slot.
    const frozenBytes = frozen ? heapBytes(value) : 0;
    const slot = this.place(key, scope, out);
    if (slot < 0) return value;
    if (frozen) {
      this.put(slot, key, out, value, extra, frozenBytes, false);
      return value;
    }
    const packed = this.shapes.pack(value);
    if (packed === undefined) return value;
    this.put(slot, key, out, packed, extra, packedBytes(packed) + this.shapes.compiled, true);
    return unpack(packed);
  }
}
