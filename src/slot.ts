/**
 * What is where in a slot of the near cache (`near.ts`). A file of its own without imports, because esbuild puts the numbers
 * of such a file in place; otherwise a bundle has them as variables, which V8 reads and checks each time.
 */

/** Slots of a set, as a power of two. */
export const SET_LOG = 2;
/** Words of a slot that every read looks at, as a power of two. */
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

/** Words of a slot that few reads look at: the stamp, and behind it the bytes of the value. */
export const RARE = 4;
export const BYTES = 3;
