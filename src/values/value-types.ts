/**
 * The type byte of a value: a record keeps it beside the bytes of its value. The numbers are part of the memory layout, so
 * a change of them raises the layout version.
 *
 *     0          unused, so that zeroed memory is never a value
 *     1          number: 8 bytes of float64, little-endian
 *     2  3  4    text: Latin-1, UTF-8, UTF-16 (little-endian)
 *     5  6  7    null, true, false: no bytes
 *     8          bigint: hexadecimal digits in Latin-1, with a leading `-` if it is negative
 *     9          rate limit: a head and two states (wasm/src/entries/limit.rs)
 *     16 … 30    binary data, in the order of BINARY_CLASSES
 *     34 35 36   object: what `devalue` made of it, as text of type 2, 3 or 4
 *     42 43 44   object: its JSON, as text of type 2, 3 or 4
 *     48         object: what the user's codec made of it
 *
 * This file imports nothing. Therefore esbuild puts the numbers in place of their names, as it does for `near/slots.ts`.
 */

// 1 is NUMBER_TYPE and 9 is LIMIT_TYPE of engine/contract.ts: the engine understands these types.
export const LATIN1 = 2;
export const UTF8 = 3;
export const UTF16 = 4;
export const NULL = 5;
export const TRUE = 6;
export const FALSE = 7;
/**
 * Its text is hexadecimal, because reading and writing that takes time in proportion to its length. Decimal takes far
 * longer.
 */
export const BIGINT = 8;
/** Values of types up to this one are primitive. */
export const LAST_PRIMITIVE = 8;

export const BUFFER = 16;
export const BYTES = 17;
export const ARRAY_BUFFER = 30;
/** The class of each binary type, from {@link BUFFER} to {@link ARRAY_BUFFER}. */
export const BINARY_CLASSES = [
  "Buffer",
  "Uint8Array",
  "Uint8ClampedArray",
  "Int8Array",
  "Int16Array",
  "Uint16Array",
  "Int32Array",
  "Uint32Array",
  "Float16Array",
  "Float32Array",
  "Float64Array",
  "BigInt64Array",
  "BigUint64Array",
  "DataView",
  "ArrayBuffer",
] as const;

/** Added to the type of a text: the text is what `devalue` made of an object. */
export const STRUCTURED = 32;
/** Added to the type of a text: the text is the JSON of an object. */
export const JSON_TEXT = 40;
export const CUSTOM = 48;
