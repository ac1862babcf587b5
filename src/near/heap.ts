/**
 * Estimates the bytes that values take on the heap. The near cache has a budget in bytes of heap, and JavaScript does not
 * tell the size of a value. The numbers below are those of V8 without compressed pointers, as in Node.js.
 * `test/resources/near-memory.test.ts` compares the estimates with the growth of the heap.
 */

import { WIDE } from "../values/text.ts";
import type { Copier } from "./copy.ts";
import type { Packed } from "./pack.ts";

const POINTER = 8;
/** An object: pointers to its hidden class, its properties and its elements. An array also has its length. */
const OBJECT = 24;
const ARRAY = 32;
/** The elements of an array, and a text, begin with a word for the hidden class and a word for the length. */
const HEADER = 16;
const NUMBER = 16;
/** A hidden class, in addition to 24 bytes for each name. A frozen object has a second hidden class. */
const SHAPE = 200;
const FROZEN_SHAPE = 200;
/** An object with more names than this is a hash table, with this many bytes for each name. */
const MAX_FAST = 128;
const TABLE_ITEM = 45;
/** An object that is neither plain nor an array, if nothing better is known. */
const OTHER = 200;
const ERROR = 150;

/** Names that were met before. V8 keeps a name once, and a hidden class once, however many objects have it. */
const known: Set<string> = new Set();
const MOST_KNOWN = 2048;
const LONGEST_KNOWN = 64;

const rounded = (bytes: number): number => (bytes + 7) & ~7;

/** Estimates the bytes of a text. */
export function textBytes(text: string): number {
  return rounded(HEADER + (WIDE.test(text) ? 2 : 1) * text.length);
}

/** Estimates the bytes of a primitive value, in addition to the pointer to it. */
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

/** Whether V8 stores the number in place of the pointer to it (a Smi). */
function isSmall(item: number): boolean {
  return (item | 0) === item && (item !== 0 || 1 / item > 0);
}

/** Estimates the bytes of any value, with everything within it. */
export function heapBytes(value: unknown): number {
  if (typeof value !== "object" || value === null) return leafBytes(value);
  let bytes = 0;
  // The loop also visits objects that are added during it. There is no recursion, so any depth is fine.
  const found = new Set<object>([value]);
  const add = (item: unknown): void => {
    if (typeof item === "object" && item !== null) found.add(item);
    else bytes += leafBytes(item);
  };
  for (const object of found) {
    // Two statements, because `add` changes `bytes` during the call.
    const own = objectBytes(object, add);
    bytes += own;
  }
  return bytes;
}

/** Estimates the bytes of an object itself. Calls `add` with everything that it points to. */
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
  // An array of numbers only, if it is not frozen, holds the numbers themselves instead of pointers.
  if (array.every((item) => typeof item === "number") && !Object.isFrozen(array)) return bytes;
  for (const item of array) add(item);
  return bytes;
}

/** Estimates the bytes of the hash table of a Map or Set, with `words` words for each entry. */
function tableBytes(size: number, words: number): number {
  const room = 2 ** Math.max(2, Math.ceil(Math.log2(size)));
  return HEADER + POINTER * (3 + room * (words + 0.5));
}

/** Estimates the bytes of a packed value. */
export function packedBytes(packed: Packed): number {
  let bytes = ARRAY + HEADER + packed.length * POINTER;
  for (let i = 1; i < packed.length; i++) {
    const part = packed[i];
    if (typeof part !== "object" || part === null) bytes += leafBytes(part);
    else {
      // The part after an array or object is its copier.
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
