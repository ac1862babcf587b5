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
import type { Residence } from "../engine/numbers.ts";
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

/** How many ways of the index are marked at first: those of a cache of 4 MiB. */
const FIRST_WAYS = 65_536;
/** The order of entries: heat of 0 to 3 and, of the same heat, main before small. As the engine keeps them when room is needed. */
const RANKS = 8;

/** A step of a walk. */
export interface Step {
  /** The entry; `undefined` for a step without one. Valid until anybody uses the cache. */
  entry: RawEntry | undefined;
  /** Whether there is an entry that should have been exported, and that cannot be read. */
  failed: boolean;
}

const NO_ENTRY: Step = Object.freeze({ entry: undefined, failed: false });

/**
 * A walk over all entries of a view and of the namespaces within it, each with its encoded bytes, the hottest first.
 *
 * First the index is surveyed: each way that has an entry gets a mark, which says how hot the entry is. Then the ways are read, one mark
 * after the other, each in the order of the index. Only then values are copied. An entry keeps its way as long as it stands, also when
 * it is overwritten or moved, and a way is read once. So whatever its heat becomes meanwhile, an entry that stands during the whole
 * walk comes exactly once. Entries that are stored after the survey of their way do not come.
 *
 * The marks take a byte for each way, which is at most a 64th of the cache's size.
 */
export class Walk {
  readonly #view: View;
  /** The groups of key kinds. The engine finds keys of three kinds at once, and there are four. */
  readonly #groups: readonly (readonly number[])[];
  /** The mark of each way; 0 for a way without an entry. In a `Buffer`, because its `indexOf` is fast. */
  #marks: Buffer = Buffer.alloc(FIRST_WAYS);
  /** The group that is surveyed. */
  #surveyed = 0;
  /** The mark of the ways that are read. */
  #mark = RANKS * 2;
  #cursor = 0;

  constructor(view: View) {
    this.#view = view;
    this.#groups =
      view.scope === ROOT ? [[KEY_STRING, KEY_BYTES, KEY_ILL_FORMED], [KEY_NAMESPACED]] : [[KEY_NAMESPACED]];
  }

  /**
   * The next step; `undefined` behind the last one. A step takes about as long as one look-up, so callers can pause between any two.
   *
   * @throws {CacheError} `ERR_CLOSED`. @throws what the clock throws.
   */
  next(): Step | undefined {
    const { engine, opening } = this.#view;
    opening.checkOpen();
    engine.clock = opening.options.now;
    if (this.#surveyed < this.#groups.length) return this.#survey();
    for (; this.#mark > 0; this.#mark--, this.#cursor = 0) {
      const way = this.#marks.indexOf(this.#mark, this.#cursor);
      if (way < 0) continue;
      const found = this.#find(groupOf(this.#mark), way);
      // From `way` to `found` there is nothing any more, so other ways with this mark are passed too.
      this.#cursor = found === way ? way + 1 : found < 0 ? this.#marks.length : found;
      return found === way ? this.#read(engine.keyWord) : NO_ENTRY;
    }
    return undefined;
  }

  /** Marks one way. */
  #survey(): Step {
    const { engine } = this.#view;
    const way = this.#find(this.#surveyed, this.#cursor);
    if (way < 0) {
      this.#surveyed++;
      this.#cursor = 0;
      return NO_ENTRY;
    }
    this.#cursor = way + 1;
    if (way >= this.#marks.length) {
      const marks = Buffer.alloc(2 ** Math.ceil(Math.log2(way + 1)));
      marks.set(this.#marks);
      this.#marks = marks;
    }
    // An entry that is moved at this moment may have no residence.
    this.#marks[way] = markOf(engine.residence(engine.keyWord), this.#surveyed);
    return NO_ENTRY;
  }

  /** The first way at or after `cursor` with a key of the group, which is in the area then; -1 when there is none. */
  #find(group: number, cursor: number): number {
    const { engine } = this.#view;
    const kinds = this.#groups[group] as readonly number[];
    engine.tags.fill(0, 0, BEGINNING * kinds.length);
    for (const [i, kind] of kinds.entries()) engine.tags[BEGINNING * i] = kind;
    return engine.next(cursor, kinds.length);
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
      if (id === undefined || own === undefined) return NO_ENTRY;
      const [outermost] = pathOf(runtime.readUtf8(id, 0, id.length)) ?? [];
      // The namespace without a name holds what loads leave for those who wait for them.
      if (!outermost || OF_A_TIER.test(outermost)) return NO_ENTRY;
      kind = engine.key[0] as number;
      namespace = own;
      prefix = PREFIX_HEAD + id.length;
    }
    const key = new Uint8Array(engine.key.subarray(prefix, length));
    const value = this.#value(word);
    if (value === undefined) return NO_ENTRY;
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

/** The mark of an entry: the hotter, the higher, and of the same rank the first group before the second. Never 0. */
function markOf(residence: Residence | undefined, group: number): number {
  const rank = residence === undefined ? 0 : 2 * residence.heat + residence.class;
  return 2 * rank + 2 - group;
}

function groupOf(mark: number): number {
  return mark % 2;
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
