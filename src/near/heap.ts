/**
 * What values take on the heap, estimated: the near cache's budget is in bytes of heap, and JavaScript does not tell. The
 * sizes are those of V8 without compressed pointers, as Node.js is built; `test/resources/near-memory.test.ts` compares them with
 * what the heap grows by.
 */

import type { Copier } from "./copy.ts";
import type { Packed } from "./pack.ts";

const POINTER = 8;
/** Of an object: its hidden class, properties and elements. Of an array also the length. */
const OBJECT = 24;
const ARRAY = 32;
/** Of the elements of an array, and of a text: a word for the kind and one for the length. */
const HEADER = 16;
const NUMBER = 16;
/** What a hidden class takes beside 24 bytes for each name, and what freezing adds, which makes another one. */
const SHAPE = 200;
const FROZEN_SHAPE = 200;
/** An object with more names becomes a table, with so much for each. */
const MAX_FAST = 128;
const TABLE_ITEM = 45;
/** Of anything that is neither plain nor an array, when nothing better is known. */
const OTHER = 200;
const ERROR = 150;

/** Names that were met. Those of many objects are there once, as is the hidden class of such objects. */
const known: Set<string> = new Set();
const MOST_KNOWN = 2048;
const LONGEST_KNOWN = 64;

/** V8 answers this in constant time for strings it stores with one byte per character. */
const WIDE = /[^\0-\xff]/;

const rounded = (bytes: number): number => (bytes + 7) & ~7;

/** Bytes of a text. */
export function textBytes(text: string): number {
  return rounded(HEADER + (WIDE.test(text) ? 2 : 1) * text.length);
}

function leafBytes(item: unknown): number {
  switch (typeof item) {
    case "string":
      return textBytes(item);
    case "number":
      return isSmall(item) ? 0 : NUMBER;
    case "bigint":
      return NUMBER + rounded(item.toString(16).length / 2);
    default:
      return 0;
  }
}

/** Whether the number is part of the word that would point to it. */
function isSmall(item: number): boolean {
  return (item | 0) === item && (item !== 0 || 1 / item > 0);
}

/** Bytes of a value with all that is in it, whatever it is. */
export function heapBytes(value: unknown): number {
  if (typeof value !== "object" || value === null) return leafBytes(value);
  let bytes = 0;
  // A Set visits what is added while it is walked: no recursion, so no depth is too much.
  const found = new Set<object>([value]);
  const add = (item: unknown): void => {
    if (typeof item === "object" && item !== null) found.add(item);
    else bytes += leafBytes(item);
  };
  for (const object of found) {
    // Not in one expression with the sum, which `add` changes meanwhile.
    const own = objectBytes(object, add);
    bytes += own;
  }
  return bytes;
}

/** Bytes of an object without what it points to, which is given to `add`. */
function objectBytes(object: object, add: (item: unknown) => void): number {
  if (Array.isArray(object)) return arrayBytes(object, add);
  let bytes = OBJECT;
  const prototype: unknown = Object.getPrototypeOf(object);
  if (prototype !== Object.prototype && prototype !== null) {
    bytes = OTHER;
    if (object instanceof Map) {
      bytes += tableBytes(object.size, 3);
      for (const [key, item] of object) {
        add(key);
        add(item);
      }
    } else if (object instanceof Set) {
      bytes += tableBytes(object.size, 2);
      for (const item of object) add(item);
    } else if (object instanceof Error) {
      bytes = ERROR;
      for (const key of ["message", "stack"] as const) add(object[key]);
    } else if (object instanceof RegExp) add(object.source);
    else if (ArrayBuffer.isView(object)) return bytes + object.byteLength;
    else if (object instanceof ArrayBuffer) return bytes + object.byteLength;
  }
  return bytes + propertyBytes(object, add);
}

function propertyBytes(object: object, add: (item: unknown) => void): number {
  const names = Object.keys(object);
  let bytes = names.length * (names.length > MAX_FAST ? TABLE_ITEM : POINTER);
  let isNew = false;
  for (const name of names) {
    add((object as Record<string, unknown>)[name]);
    if (known.has(name)) continue;
    isNew = true;
    bytes += textBytes(name) + 24;
    if (name.length > LONGEST_KNOWN) continue;
    if (known.size >= MOST_KNOWN) known.clear();
    known.add(name);
  }
  if (!isNew || names.length > MAX_FAST) return bytes;
  return bytes + SHAPE + (Object.isFrozen(object) ? FROZEN_SHAPE : 0);
}

function arrayBytes(array: readonly unknown[], add: (item: unknown) => void): number {
  const bytes = ARRAY + (array.length > 0 ? HEADER : 0) + array.length * POINTER;
  // Numbers that are not small lie in the elements themselves when there is nothing else, and the array can be changed.
  if (array.every((item) => typeof item === "number") && !Object.isFrozen(array)) return bytes;
  for (const item of array) add(item);
  return bytes;
}

/** Bytes of the table of a Map or Set. */
function tableBytes(size: number, words: number): number {
  const room = 2 ** Math.max(2, Math.ceil(Math.log2(size)));
  return HEADER + POINTER * (3 + room * (words + 0.5));
}

/** Bytes of what was packed. */
export function packedBytes(packed: Packed): number {
  let bytes = ARRAY + HEADER + packed.length * POINTER;
  for (let i = 1; i < packed.length; i++) {
    const part = packed[i];
    if (typeof part !== "object" || part === null) bytes += leafBytes(part);
    else {
      // Behind an array or object is how it is copied.
      bytes += heapBytes(part) + copierBytes(packed[++i] as Copier);
    }
  }
  return bytes;
}

function copierBytes({ within }: Copier): number {
  if (within.length === 0) return 0;
  const bytes = OBJECT + 2 * (POINTER + ARRAY + HEADER + within.length * POINTER);
  return within.reduce((sum, copier) => sum + copierBytes(copier), bytes);
}
