/**
 * Where things lie in a page of the near cache's table (`table.ts`), and how a slot is found in it. This file has no imports,
 * because esbuild replaces the constants of such a file by their numbers. Otherwise the bundle would have them as variables,
 * which V8 reads and checks each time.
 *
 *     word    0  fingerprints   one word for each of 256 sets: a byte of each hash, 0 for an empty slot
 *           256  candidates     one word for each set: the hash of the last key that found no slot
 *           512  hot words      four for each of 1,024 slots: index of the changes │ changes │ flags │ hash
 *         4,608  cold words     four for each slot: the stamp (three words) │ bytes
 */

/** Slots of a set, as a power of two. */
export const SET_LOG = 2;
/** Sets of a page, as a power of two. */
export const SETS_LOG = 8;
/** Slots of a page, as a power of two. */
export const PAGE_LOG = 10;
/** Slots of a set. */
export const SET: number = 1 << SET_LOG;
/** Slots of a page. */
export const PAGE: number = 1 << PAGE_LOG;

/** Where the fingerprints of the sets begin. */
export const FINGERPRINTS_AT = 0;
/** Where the candidates of the sets begin. */
export const CANDIDATES_AT = 256;
/** Where the hot words begin: every read needs them. */
export const HOT_AT = 512;
/** Where the cold words begin: few reads need them. */
const COLD_AT = 4608;
/** Words of a page. */
export const PAGE_WORDS = 8704;

/** Hot words of a slot, and also its cold words, as a power of two. */
export const WORDS_LOG = 2;
/** Hot word: where the changes of the entry's bucket are counted, as an index in the memory, in words of four bytes. */
export const CHANGES_AT = 0;
/** Hot word: the count of changes that proves the value. */
export const CHANGES = 1;
/** Hot word: the flags below. */
export const FLAGS = 2;
/** Hot word: the hash of the key. */
export const HASH = 3;
/** Flag, the reference bit of CLOCK: the value was read since another key last wanted its slot. */
export const REFERENCED = 1;
/** Flag: the value is in an `Extra`. */
export const EXTRA = 2;
/** Flag: the value is packed. */
export const PACKED = 4;

/** Cold word, behind the stamp: bytes of heap that key and value take. */
export const BYTES = 3;

/** The fingerprint of a hash: a byte that is never 0, from bits that name neither the set nor the page. */
export function fingerprintOf(hash: number): number {
  return (hash >>> 24) | 1;
}

/**
 * The slots of a set whose fingerprint is that of the hash, as the highest bit of each such byte (Mycroft's test for a zero
 * byte in a word). Sometimes the bit of another slot is set as well, so the caller has to compare the keys.
 */
export function matches(fingerprints: number, hash: number): number {
  const other = fingerprints ^ Math.imul(fingerprintOf(hash), 0x01010101);
  return (other - 0x01010101) & ~other & 0x80808080;
}

/** The first slot in a result of {@link matches} that is not 0. */
export function firstOf(same: number): number {
  return (31 - Math.clz32(same & -same)) >> 3;
}

/** Sets the fingerprint of a slot in its page; 0 for an empty slot. */
export function setFingerprint(words: Int32Array, slot: number, fingerprint: number): void {
  const shift = (slot & (SET - 1)) << 3;
  const at = FINGERPRINTS_AT + ((slot & (PAGE - 1)) >> SET_LOG);
  words[at] = ((words[at] as number) & ~(0xff << shift)) | (fingerprint << shift);
}

/** Where the hot words of a slot are in its page. */
export function hotAt(slot: number): number {
  return HOT_AT + ((slot & (PAGE - 1)) << WORDS_LOG);
}

/** Where the cold words of a slot are in its page. */
export function coldAt(slot: number): number {
  return COLD_AT + ((slot & (PAGE - 1)) << WORDS_LOG);
}
