/**
 * Tags on their way to the engine and back. What the blocks look like is told in `wasm/src/entries/tags.rs`: a count, and for
 * each tag its length and UTF-8; in a record the engine puts its counters between the count and the names. In front of
 * the tags of a namespace are a few bytes that make them its own, and that the record does not keep.
 */

import { encoder, newDecoder } from "./encoding.ts";
import { isWellFormed } from "./runtime.ts";

/** Set in a length: the tag invalidates, but its name is not kept in the record. */
const HIDDEN = 0x8000;
/** What a tag costs in a record beside its name. */
const TAG_OVERHEAD = 10;
const BLOCK_OVERHEAD = 16;
/** Tags of an entry. The engine takes one more for each namespace that the entry is in. */
const MOST_TAGS = 16;
/** Bytes of UTF-8. The engine takes those of the prefix beside them. */
const LONGEST_TAG = 256;
const NOTHING: Uint8Array = new Uint8Array(0);

// Without ignoreBOM a leading U+FEFF would be swallowed.
const decoder: TextDecoder = newDecoder("utf-8", { ignoreBOM: true });

/**
 * Writes tags of a namespace, and its hidden ones, to `area`.
 *
 * @returns the most bytes that they take in a record, 0 for none
 * @throws {TypeError} when a tag is no string. @throws {RangeError} when there are too many, one is too long, or not
 * well-formed. The limits are the same in every namespace.
 */
export function writeTags(
  area: Uint8Array,
  visible: readonly string[],
  tagPrefix: Uint8Array,
  hidden: readonly Uint8Array[],
): number {
  const count = visible.length + hidden.length;
  if (visible.length > MOST_TAGS) {
    throw new RangeError(`tags: an entry can have ${MOST_TAGS}, not ${visible.length}`);
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
  for (const tag of visible) {
    if (typeof tag !== "string") throw new TypeError(`tags: must be strings, not ${typeof tag}`);
    if (!isWellFormed(tag)) throw new RangeError("tags: must be well-formed Unicode");
    const text = encoder.encode(tag);
    if (text.length === 0 || text.length > LONGEST_TAG) {
      throw new RangeError(`tags: must have 1 to ${LONGEST_TAG} bytes of UTF-8, not ${text.length}`);
    }
    put(tagPrefix, text, 0);
  }
  for (const tag of hidden) put(NOTHING, tag, HIDDEN);
  area[0] = count;
  area[1] = 0;
  area[2] = tagPrefix.length & 0xff;
  area[3] = tagPrefix.length >> 8;
  return bytes;
}

/** The visible tags of a record, from the `length` bytes of its tag block. */
export function readTags(area: Uint8Array, length: number): string[] {
  const tags: string[] = [];
  if (length < 8) return tags;
  const word = (at: number): number => (area[at] as number) | ((area[at + 1] as number) << 8);
  const counters = word(4);
  for (let at = 8 + counters * 8; at + 2 < length; ) {
    const bytes = word(at);
    if (bytes === 0 || at + 2 + bytes > length) break;
    // A copy: text decoders refuse shared memory in browsers.
    tags.push(decoder.decode(new Uint8Array(area.subarray(at + 2, at + 2 + bytes))));
    at += 2 + bytes;
  }
  return tags;
}
