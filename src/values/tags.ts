/**
 * Tags ↔ blocks of bytes. `wasm/src/entries/tags.rs` draws both kinds of block: the one that the engine is given, and the one
 * in a record, which holds the counters of the tags as well. A prefix, given once, makes the tags of a namespace different from
 * the same tags elsewhere. The block in a record does not keep this prefix.
 */

import {
  MAX_TAG_NAME,
  MAX_VISIBLE_TAGS,
  TAG_BLOCK_HEADER,
  TAG_BYTES,
  TAG_HIDDEN,
  TAG_LENGTH_BYTES,
  TAGS_HEADER,
} from "../engine/contract.ts";
import { encoder, runtime } from "./runtime.ts";
import { isWellFormed } from "./text.ts";

/** Bytes that a tag takes in a record in addition to its name. */
const TAG_OVERHEAD = TAG_BYTES + TAG_LENGTH_BYTES;
/** Bytes that a block takes in a record in addition to its tags: its header, and the padding to a whole word. */
const BLOCK_OVERHEAD = TAG_BLOCK_HEADER + 8;

/**
 * Writes a block with the tags of an entry to `area`.
 *
 * @param visible - the tags that the user gave to the entry.
 * @param tagPrefix - what the visible tags begin with in this namespace.
 * @param hidden - the tags of the namespaces that the entry is in.
 * @returns the most bytes that the tags take in a record; 0 if there are none.
 * @throws {TypeError} when a tag is not a string.
 * @throws {RangeError} when there are too many tags, or a tag is empty, too long or not well-formed. The limits are the same
 * in every namespace.
 */
export function writeTags(
  area: Uint8Array,
  visible: readonly string[],
  tagPrefix: Uint8Array,
  hidden: readonly Uint8Array[],
): number {
  const count = visible.length + hidden.length;
  if (visible.length > MAX_VISIBLE_TAGS) {
    throw new RangeError(`tags: at most ${MAX_VISIBLE_TAGS} are allowed, not ${visible.length}`);
  }
  area.set(tagPrefix, TAGS_HEADER);
  let at = TAGS_HEADER + tagPrefix.length;
  let bytes = count === 0 ? 0 : BLOCK_OVERHEAD;
  const put = (text: Uint8Array, flag: number): void => {
    area[at] = text.length & 0xff;
    area[at + 1] = (text.length | flag) >> 8;
    area.set(text, at + TAG_LENGTH_BYTES);
    at += TAG_LENGTH_BYTES + text.length;
    bytes += TAG_OVERHEAD + (flag === 0 ? text.length : 0);
  };
  for (const tag of visible) {
    if (typeof tag !== "string") throw new TypeError(`tags: must be strings, not ${typeof tag}`);
    if (!isWellFormed(tag)) throw new RangeError("tags: must be well-formed Unicode, without lone surrogates");
    const text = encoder.encode(tag);
    if (text.length === 0 || text.length > MAX_TAG_NAME) {
      throw new RangeError(`tags: each must have 1 to ${MAX_TAG_NAME} bytes of UTF-8, not ${text.length}`);
    }
    put(text, 0);
  }
  for (const tag of hidden) put(tag, TAG_HIDDEN);
  area[0] = count;
  area[1] = 0;
  area[2] = tagPrefix.length & 0xff;
  area[3] = tagPrefix.length >> 8;
  return bytes;
}

/** Whether tags that were read from a record can be written again. Damaged memory may hold others. */
export function canBeWritten(tags: readonly string[]): boolean {
  return tags.length <= MAX_VISIBLE_TAGS && tags.every((tag) => tag !== "" && runtime.utf8Length(tag) <= MAX_TAG_NAME);
}

/** Reads the visible tags from the block of a record, which has `length` bytes. Any bytes are safe. */
export function readTags(area: Uint8Array, length: number): string[] {
  const tags: string[] = [];
  if (length < TAG_BLOCK_HEADER) return tags;
  const word = (at: number): number => (area[at] as number) | ((area[at + 1] as number) << 8);
  // The number of tags, hidden ones included.
  const counters = word(TAG_BLOCK_HEADER / 2);
  for (let at = TAG_BLOCK_HEADER + counters * TAG_BYTES; at + TAG_LENGTH_BYTES < length; ) {
    const bytes = word(at);
    if (bytes === 0 || at + TAG_LENGTH_BYTES + bytes > length) break;
    tags.push(runtime.readUtf8(area, at + TAG_LENGTH_BYTES, bytes));
    at += TAG_LENGTH_BYTES + bytes;
  }
  return tags;
}
