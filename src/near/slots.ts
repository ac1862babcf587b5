/**
 * What is where in a page of the near cache (`near.ts`). A file of its own without imports, because esbuild puts the numbers
 * of such a file in place; otherwise a bundle has them as variables, which V8 reads and checks each time.
 */

/** Slots of a set, as a power of two. */
export const SET_LOG = 2;
/** Sets of a page, as a power of two. */
export const SETS_LOG = 8;
/** Slots of a page, as a power of two. */
export const PAGE_LOG = 10;

/** Where in a page the set's prints are, a word for each set: a byte of each hash, zero for an empty slot. */
export const PRINTS_AT = 0;
/** Where the newcomers are that found no place, a word for each set: the hash of the last one. */
export const NEWCOMERS_AT = 256;
/** Where the words are that every read looks at. */
export const WORDS_AT = 512;
/** Where the words are that few reads look at. */
export const RARE_AT = 4608;
/** Words of a page. */
export const PAGE_WORDS = 8704;

/** Words of a slot, of either kind, as a power of two. */
export const WORDS_LOG = 2;
/** Where the changes of the entry's bucket are counted: an index in the memory, in units of four bytes. */
export const CHANGES_AT = 0;
/** How many there were. */
export const CHANGES = 1;
export const NOTES = 2;
export const HASH = 3;
/** Note: the value was read since somebody wanted its place. */
export const USED = 1;
/** Note: it has an extra. */
export const EXTRA = 2;
/** Note: the value is packed. */
export const PACKED = 4;

/** Of the rare words the first are the stamp; behind it the bytes of heap that key and value take. */
export const BYTES = 3;
