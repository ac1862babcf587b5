/**
 * What is where in a slot of the near cache (`near.ts`). A file of its own without imports, because esbuild puts the numbers
 * of such a file in place; otherwise a bundle has them as variables, which V8 reads and checks each time.
 */

/** Slots of a set, as a power of two. */
export const SET_LOG = 2;
/** Words of a slot, as a power of two. */
export const WORDS_LOG = 3;
/** Behind the word of the entry: its index in the memory, in units of eight bytes. */
export const AT = 2;
/** The index in the memory of the generation of its segment, in units of four bytes. */
export const STATE = 3;
export const GENERATION = 4;
export const HASH = 5;
/** Bytes of the value. */
export const BYTES = 6;
export const NOTES = 7;
/** Note: the value was read since somebody wanted its place. */
export const USED = 1;
/** Note: it has an extra. */
export const EXTRA = 2;
