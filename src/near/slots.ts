/**
 * Where things lie in a page of the near cache's table (`table.ts`). This file has no imports, because esbuild replaces the
 * constants of such a file by their numbers. Otherwise the bundle has them as variables, which V8 reads and checks each time.
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

/** Where the fingerprints of the sets begin. */
export const FINGERPRINTS_AT = 0;
/** Where the candidates of the sets begin. */
export const CANDIDATES_AT = 256;
/** Where the words begin that every read looks at. */
export const HOT_AT = 512;
/** Where the words begin that few reads look at. */
export const COLD_AT = 4608;
/** Words of a page. */
export const PAGE_WORDS = 8704;

/** Hot words of a slot, and also its cold words, as a power of two. */
export const WORDS_LOG = 2;
/** Hot word: where the changes of the entry's bucket are counted, as an index in the memory in units of four bytes. */
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
