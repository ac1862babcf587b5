/**
 * Tags on their way to the engine and back. What the blocks look like is told in `wasm/src/tags.rs`: a count, and for
 * each tag its length and UTF-8; in a record the engine puts its counters between the count and the names. In front of
 * the tags of a namespace are a few bytes that make them its own.
 */

import { encoder, newDecoder } from "./encoding.ts";
import { isWellFormed } from "./text.ts";

/** Set in a length: the tag invalidates, but its name is not kept in the record. */
const HIDDEN = 0x8000;
/** What a tag costs in a record beside its name. */
const TAG_OVERHEAD = 10;
const BLOCK_OVERHEAD = 16;
const NOTHING: Uint8Array = new Uint8Array(0);

const decoder: TextDecoder = newDecoder();

/**
 * Writes tags of a namespace, and its hidden ones, to `area`.
 *
 * @returns the most bytes that they take in a record, 0 for none
 * @throws {TypeError} when a tag is no string. @throws {RangeError} when there are too many, one is too long, or not
 * well-formed.
 */
export function writeTags(
  area: Uint8Array,
  visible: readonly string[],
  tagPrefix: Uint8Array,
  hidden: readonly Uint8Array[],
  limits: { maxTags: number; maxTag: number },
): number {
  const count = visible.length + hidden.length;
  // One is always left for a namespace, so that the limit does not depend on where an entry is stored.
  if (visible.length > limits.maxTags - Math.max(hidden.length, 1)) {
    throw new RangeError(
      `tags: an entry can have ${limits.maxTags - Math.max(hidden.length, 1)}, not ${visible.length}`,
    );
  }
  let at = 4;
  let bytes = count === 0 ? 0 : BLOCK_OVERHEAD;
  const put = (prefix: Uint8Array, text: Uint8Array, flag: number): void => {
    const length = prefix.length + text.length;
    area[at] = length & 0xff;
    area[at + 1] = (length | flag) >> 8;
    area.set(prefix, at + 2);
    area.set(text, at + 2 + prefix.length);
    at += 2 + length;
    bytes += TAG_OVERHEAD + length;
  };
  const longest = limits.maxTag - tagPrefix.length;
  for (const tag of visible) {
    if (typeof tag !== "string") throw new TypeError(`tags: must be strings, not ${typeof tag}`);
    if (!isWellFormed(tag)) throw new RangeError("tags: must be well-formed Unicode");
    const text = encoder.encode(tag);
    if (text.length === 0 || text.length > longest) {
      const where = tagPrefix.length > 0 ? " in this namespace" : "";
      throw new RangeError(`tags: must have 1 to ${longest} bytes of UTF-8${where}, not ${text.length}`);
    }
    put(tagPrefix, text, 0);
  }
  for (const tag of hidden) put(NOTHING, tag, HIDDEN);
  area[0] = count;
  area.fill(0, 1, 4);
  return bytes;
}

/** The visible tags of a record of a namespace, from the `length` bytes of its tag block. */
export function readTags(area: Uint8Array, length: number, tagPrefix: Uint8Array): string[] {
  const tags: string[] = [];
  if (length < 8) return tags;
  const word = (at: number): number => (area[at] as number) | ((area[at + 1] as number) << 8);
  const counters = word(4);
  for (let at = 8 + counters * 8; at + 2 < length; ) {
    const bytes = word(at);
    if (bytes === 0 || at + 2 + bytes > length) break;
    // A copy: text decoders refuse shared memory in browsers.
    tags.push(decoder.decode(new Uint8Array(area.subarray(at + 2 + tagPrefix.length, at + 2 + bytes))));
    at += 2 + bytes;
  }
  return tags;
}
