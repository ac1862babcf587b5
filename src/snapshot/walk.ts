/**
 * The entries of a cache as they lie in its memory: encoded bytes that pass unread. No getter and no codec runs, and a value that
 * this participant could not decode passes too.
 */

import type { View } from "../cache/view.ts";
import {
  KEY_BYTES,
  KEY_ILL_FORMED,
  KEY_NAMESPACED,
  KEY_STRING,
  WANT_QUIET,
  WANT_TAGS,
  WANT_VALUE,
} from "../engine/contract.ts";
import { keyKind, keyLength } from "../values/key.ts";
import { runtime } from "../values/runtime.ts";
import { pathOf, ROOT } from "../values/scope.ts";
import { canBeWritten, readTags } from "../values/tags.ts";
import type { RawEntry } from "./format.ts";

/** A large value that is replaced while it is read is read again, this many times. */
const READS = 16;
/** Bytes of one beginning without bytes: its key word, see `values/beginnings.ts`. */
const BEGINNING = 8;
/** Bytes of a namespace's prefix before its id: see `scopeOf`. */
const PREFIX_HEAD = 3;
const NOTHING: Uint8Array = new Uint8Array(0);
/** The namespaces of a tier. Its lease says that they hold what a server holds, and cannot outlive the machine. */
const OF_A_TIER = /^tier (control|values|loads|brief) /;

/** Where a walk stands. */
export interface Step {
  /** The entry; `undefined` for one that is not exported. Valid until anybody uses the cache. */
  entry: RawEntry | undefined;
  /** Whether there is an entry that should have been exported, and that cannot be read. */
  failed: boolean;
}

/** A walk over all entries of a view and of the namespaces within it, each with its encoded bytes. */
export class Walk {
  readonly #view: View;
  /** The key kinds of each way through the index that is still to be gone. The engine takes three beginnings at once. */
  readonly #ways: number[][];
  #cursor = 0;

  constructor(view: View) {
    this.#view = view;
    this.#ways = view.scope === ROOT ? [[KEY_STRING, KEY_BYTES, KEY_ILL_FORMED], [KEY_NAMESPACED]] : [[KEY_NAMESPACED]];
  }

  /**
   * The next entry; `undefined` behind the last one. This function alone decides the order: that of the index, first the entries
   * outside of namespaces, then the others.
   *
   * @throws {CacheError} `ERR_CLOSED`.
   */
  next(): Step | undefined {
    const { engine, opening } = this.#view;
    opening.checkOpen();
    engine.clock = opening.options.now;
    for (let [kinds] = this.#ways; kinds !== undefined; [kinds] = this.#ways) {
      engine.tags.fill(0, 0, BEGINNING * kinds.length);
      for (const [i, kind] of kinds.entries()) engine.tags[BEGINNING * i] = kind;
      const way = engine.next(this.#cursor, kinds.length);
      this.#cursor = way + 1;
      if (way >= 0) return this.#read(engine.keyWord);
      this.#ways.shift();
    }
    return undefined;
  }

  /** Reads the entry of the key that is in the area. */
  #read(word: number): Step {
    const { engine, scope } = this.#view;
    const length = keyLength(word);
    let kind = keyKind(word);
    let namespace = NOTHING;
    let prefix = 0;
    if (kind === KEY_NAMESPACED) {
      const id = idOf(engine.key, length);
      const own = id === undefined ? undefined : idWithin(id, scope.prefix.subarray(PREFIX_HEAD));
      if (id === undefined || own === undefined) return { entry: undefined, failed: false };
      const [outermost] = pathOf(runtime.readUtf8(id, 0, id.length)) ?? [];
      // The namespace without a name holds what loads leave for those who wait for them.
      if (!outermost || OF_A_TIER.test(outermost)) return { entry: undefined, failed: false };
      kind = engine.key[0] as number;
      namespace = own;
      prefix = PREFIX_HEAD + id.length;
    }
    const key = new Uint8Array(engine.key.subarray(prefix, length));
    const value = this.#value(word);
    if (value === undefined) return { entry: undefined, failed: false };
    const { valueType: type, expiry, grace } = engine;
    const tags = readTags(engine.tags, engine.tagBytes);
    const failed = !canBeWritten(tags) || Number.isNaN(expiry) || !(grace >= 0);
    return { entry: failed ? undefined : { namespace, kind, key, type, value, expiry, grace, tags }, failed };
  }

  /** The encoded value of the key that is in the area; `undefined` when it is gone. What the engine tells of it is about this value. */
  #value(word: number): Uint8Array | undefined {
    const { engine } = this.#view;
    for (let reads = 0; reads < READS; reads++) {
      const length = engine.get(word, WANT_VALUE | WANT_TAGS | WANT_QUIET);
      if (length < 0) return undefined;
      if (!engine.isChunked) return engine.value.subarray(0, length);
      const bytes = runtime.allocate(length);
      // Reading the chunks leaves the out part and the tags as they are.
      if (engine.readLarge(word, bytes)) return bytes;
    }
    return undefined;
  }
}

/** A copy of the id of the namespace in whose prefix a key of `length` bytes begins; `undefined` in damaged memory. */
function idOf(key: Uint8Array, length: number): Uint8Array | undefined {
  const bytes = (key[1] as number) | ((key[2] as number) << 8);
  if (bytes > 255 || PREFIX_HEAD + bytes > length) return undefined;
  return new Uint8Array(key.subarray(PREFIX_HEAD, PREFIX_HEAD + bytes));
}

/** The rest of an id within that of an outer namespace; `undefined` when it is not in there. */
function idWithin(id: Uint8Array, outer: Uint8Array): Uint8Array | undefined {
  if (id.length < outer.length || !outer.every((byte, i) => byte === id[i])) return undefined;
  return id.subarray(outer.length);
}
