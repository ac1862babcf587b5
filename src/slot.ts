/**
 * What is where in a slot of the near cache (`near.ts`). A file of its own without imports, because esbuild puts the numbers
 * of such a file in place; otherwise a bundle has them as variables, which V8 reads and checks each time.
 */

/** Slots of a set, as a power of two. */
export const SET_LOG = 2;
/** Words of a slot that every read looks at, as a power of two: those of a set are one line of the processor's cache. */
export const WORDS_LOG = 2;
/** In the first slot of a set: a byte of the hash of each of its keys. */
export const PRINTS = 0;
/** Where the changes of the entry's bucket are counted: an index in the memory, in units of four bytes. */
export const CHANGES_AT = 1;
/** How many there were. */
export const CHANGES = 2;
export const NOTES = 3;
/** Note: the value was read since somebody wanted its place. */
export const USED = 1;
/** Note: it has an extra. */
export const EXTRA = 2;

/** Words of a slot that few reads look at: the stamp, and behind it these. */
export const RARE = 5;
export const HASH = 3;
/** Bytes of the value. */
export const BYTES = 4;
