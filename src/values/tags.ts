/**
 * Tags ↔ blocks of bytes. `wasm/src/entries/tags.rs` draws both kinds of block: the one that the engine is given, and the one
 * in a record, which holds the counters of the tags as well. A prefix makes the tags of a namespace different from the same
 * tags elsewhere. The block in a record does not keep this prefix.
 */

import {
  MAX_TAG_NAME,
  TAG_BLOCK_HEADER,
  TAG_HIDDEN,
  TAG_LENGTH_BYTES,
  TAG_SNAPSHOT,
  TAGS_HEADER,
} from "../engine/contract.ts";
import { encoder, runtime } from "./runtime.ts";
import { isWellFormed } from "./text.ts";

/** Bytes that a tag takes in a record in addition to its name. */
const TAG_OVERHEAD = TAG_SNAPSHOT + TAG_LENGTH_BYTES;
/** Bytes that a block takes in a record in addition to its tags: its header, and the padding to a whole word. */
const BLOCK_OVERHEAD = TAG_BLOCK_HEADER + 8;
/** The most tags of an entry. The engine has room for one more for each namespace that the entry is in. */
const MOST_TAGS = 16;
const NOTHING: Uint8Array = new Uint8Array(0);

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
  if (visible.length > MOST_TAGS) {
    throw new RangeError(`tags: at most ${MOST_TAGS} are allowed, not ${visible.length}`);
  }
  let at = TAGS_HEADER;
  let bytes = count === 0 ? 0 : BLOCK_OVERHEAD;
  const put = (prefix: Uint8Array, text: Uint8Array, flag: number): void => {
    const length = prefix.length + text.length;
    area[at] = length & 0xff;
    area[at + 1] = (length | flag) >> 8;
    area.set(prefix, at + TAG_LENGTH_BYTES);
    area.set(text, at + TAG_LENGTH_BYTES + prefix.length);
    at += TAG_LENGTH_BYTES + length;
    bytes += TAG_OVERHEAD + length;
  };
  for (const tag of visible) {
    if (typeof tag !== "string") throw new TypeError(`tags: must be strings, not ${typeof tag}`);
    if (!isWellFormed(tag)) throw new RangeError("tags: must be well-formed Unicode, without lone surrogates");
    const text = encoder.encode(tag);
    if (text.length === 0 || text.length > MAX_TAG_NAME) {
      throw new RangeError(`tags: each must have 1 to ${MAX_TAG_NAME} bytes of UTF-8, not ${text.length}`);
    }
    put(tagPrefix, text, 0);
  }
  for (const tag of hidden) put(NOTHING, tag, TAG_HIDDEN);
  area[0] = count;
  area[1] = 0;
  area[2] = tagPrefix.length & 0xff;
  area[3] = tagPrefix.length >> 8;
  return bytes;
}

/** Whether tags that were read from a record can be written again. Damaged memory may hold others. */
export function canBeWritten(tags: readonly string[]): boolean {
  return tags.length <= MOST_TAGS && tags.every((tag) => tag !== "" && runtime.utf8Length(tag) <= MAX_TAG_NAME);
}

/** Reads the visible tags from the block of a record, which has `length` bytes. Any bytes are safe. */
export function readTags(area: Uint8Array, length: number): string[] {
  const tags: string[] = [];
  if (length < TAG_BLOCK_HEADER) return tags;
  const word = (at: number): number => (area[at] as number) | ((area[at + 1] as number) << 8);
  // The number of tags, hidden ones included.
  const counters = word(TAG_BLOCK_HEADER / 2);
  for (let at = TAG_BLOCK_HEADER + counters * TAG_SNAPSHOT; at + TAG_LENGTH_BYTES < length; ) {
    const bytes = word(at);
    if (bytes === 0 || at + TAG_LENGTH_BYTES + bytes > length) break;
    tags.push(runtime.readUtf8(area, at + TAG_LENGTH_BYTES, bytes));
    at += TAG_LENGTH_BYTES + bytes;
  }
  return tags;
}
