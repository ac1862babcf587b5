/**
 * Namespaces. Keys of a namespace begin with its prefix; the key kind tells the engine that there is a prefix, so no key of
 * the cache itself can be the same. Every entry has a hidden tag for each namespace that it is in; invalidating this tag
 * clears the namespace in one step. The tags of a namespace have a prefix, too.
 */

import { encoder } from "./runtime.ts";
import { hashText, isWellFormed } from "./text.ts";

/** The part of a cache that a view shows: a namespace, or all keys outside of namespaces. */
export interface Scope {
  /** Different for each scope; empty for the cache itself. */
  readonly id: string;
  /** A hash of the id, so that the same key of many scopes does not always get the same slots of the near cache. */
  readonly salt: number;
  /** The names of the namespaces, the outermost first. */
  readonly path: readonly string[];
  /** The bytes with which every key of the scope begins. The first byte is filled in for each key. */
  readonly prefix: Uint8Array;
  /** The bytes with which every visible tag of the scope begins. */
  readonly tagPrefix: Uint8Array;
  /** The hidden tags: one for each namespace of the path, in the same order. */
  readonly hidden: readonly Uint8Array[];
}

const NOTHING: Uint8Array = new Uint8Array(0);
/** The scope of the cache itself. */
export const ROOT: Scope = { id: "", salt: 0, path: [], prefix: NOTHING, tagPrefix: NOTHING, hidden: [] };

/**
 * The most bytes of an id, and the most namespaces within one another. The engine has room for them in addition to the longest
 * key and the most tags. So the limits of keys and tags are the same in every namespace.
 */
const LONGEST_ID = 255;
const DEEPEST = 16;

/**
 * The byte before and after the id in a tag prefix. UTF-8 never has this byte, so the tags of the cache itself are
 * different.
 */
const MARK = 0xff;

/**
 * Makes the scope of the namespace at `path`.
 *
 * @throws {RangeError} when the path has too many names, the names together are too long, or a name is not well-formed.
 */
export function scopeOf(path: readonly string[]): Scope {
  // The length comes before each name, so that two different paths never give the same id.
  const ids = path.map((_, depth) =>
    path.slice(0, depth + 1).reduce((text, name) => `${text}${name.length}:${name}`, ""),
  );
  const id = ids.at(-1) as string;
  // UTF-8 turns every lone surrogate into the same character, so different names would become the same namespace.
  if (!isWellFormed(id)) throw new RangeError("name: must be well-formed Unicode, without lone surrogates");
  const text = encoder.encode(id);
  if (text.length > LONGEST_ID || path.length > DEEPEST) {
    throw new RangeError(
      `name: namespaces must be nested at most ${DEEPEST} deep, and all names together must take at most ${LONGEST_ID} bytes. ` +
        "Each name takes its UTF-8 and 2 to 4 bytes more. Use fewer or shorter names.",
    );
  }
  // [the key kind, filled in for each key │ length of the text, 2 bytes │ text]
  const prefix = new Uint8Array(3 + text.length);
  prefix[1] = text.length & 0xff;
  prefix[2] = text.length >> 8;
  prefix.set(text, 3);
  const hidden = ids.map((outer) => Uint8Array.of(MARK, ...encoder.encode(outer)));
  return { id, salt: hashText(id, id.length), path, prefix, tagPrefix: Uint8Array.of(MARK, ...text, MARK), hidden };
}

/** The names of the namespaces in an id that {@link scopeOf} has made, the outermost first; `undefined` for a text that is no id. */
export function pathOf(id: string): string[] | undefined {
  const path: string[] = [];
  for (let at = 0; at < id.length; ) {
    const [head, length] = /^(\d{1,3}):/.exec(id.slice(at, at + 4)) ?? [];
    if (head === undefined) return undefined;
    const start = at + head.length;
    at = start + Number(length);
    if (at > id.length) return undefined;
    path.push(id.slice(start, at));
  }
  return path;
}
