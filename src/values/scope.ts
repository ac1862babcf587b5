/**
 * Namespaces: keys with a prefix, which no key of the cache itself can have because the engine tells their kinds apart,
 * a hidden tag for each namespace that a key is in, which clears it in one step, and a prefix for the tags as well.
 */

import { encoder } from "./encoding.ts";
import { hashText, isWellFormed } from "./runtime.ts";

/** Which keys a view sees: all that begin with `prefix`, invalidated by any of `hidden`. */
export interface Scope {
  /** Tells scopes apart; empty for the cache itself. */
  readonly id: string;
  /** A number from the id, so that the same key of many scopes does not have one place in the near cache. */
  readonly salt: number;
  readonly path: readonly string[];
  readonly prefix: Uint8Array;
  /** What the tags of its entries begin with. */
  readonly tagPrefix: Uint8Array;
  /** The tags of the namespaces it is in, itself last. */
  readonly hidden: readonly Uint8Array[];
}

const NOTHING: Uint8Array = new Uint8Array(0);
/** The scope of the cache itself. */
export const ROOT: Scope = { id: "", salt: 0, path: [], prefix: NOTHING, tagPrefix: NOTHING, hidden: [] };

/** The engine has room in front of a key, and tags, for so much, so that the limits of keys and tags are the same everywhere. */
const LONGEST_ID = 255;
const DEEPEST = 16;

/** Before and behind the text of a path in a tag. UTF-8 never has this byte, so the cache's own tags are others. */
const MARK = 0xff;

/**
 * The scope of the namespace at `path`.
 *
 * @throws {RangeError} when it is nested too deeply, its names are too long together, or one is not well-formed.
 */
export function scopeOf(path: readonly string[]): Scope {
  // Lengths in front, so that no two paths give the same text.
  const ids = path.map((_, depth) =>
    path.slice(0, depth + 1).reduce((text, name) => `${text}${name.length}:${name}`, ""),
  );
  const id = ids.at(-1) as string;
  // Lone surrogates would all become the same replacement character, and so the same namespace.
  if (!isWellFormed(id)) throw new RangeError("name: must be well-formed Unicode");
  const text = encoder.encode(id);
  if (text.length > LONGEST_ID || path.length > DEEPEST) {
    throw new RangeError(
      `name: namespaces can be nested ${DEEPEST} deep, and their names have ${LONGEST_ID} bytes in all, with 2 to 4 for each`,
    );
  }
  // {kind of the key, filled in later | length of the text, low and high | text}
  const prefix = new Uint8Array(3 + text.length);
  prefix[1] = text.length & 0xff;
  prefix[2] = text.length >> 8;
  prefix.set(text, 3);
  const hidden = ids.map((outer) => Uint8Array.of(MARK, ...encoder.encode(outer)));
  return { id, salt: hashText(id, id.length), path, prefix, tagPrefix: Uint8Array.of(MARK, ...text, MARK), hidden };
}
