/**
 * Plain data ↔ JSON, by the `JSON` of the runtime, which is several times faster than any library. Plain data is what JSON
 * gives back exactly as it was: text, booleans, `null`, the numbers that JSON has, and objects and arrays of plain data only.
 * All other data is left to `structured.ts`.
 */
import { DEEPEST, quoted, unreadable } from "./value-errors.ts";

/** Data with more levels does not count as plain, so that the recursion here and in `JSON` never runs out of stack. */
const DEPTH = 64;

/**
 * Returns the JSON of plain data. Returns `undefined` for other data, and when one object is in two places: JSON would make
 * two objects of it.
 *
 * The JSON is made from a private copy. Therefore each getter and each trap of a proxy runs once, and what was checked is
 * what is written.
 */
export function toJson(value: object): string | undefined {
  const copy = copyOf(value, new Seen(), DEPTH);
  return copy && JSON.stringify(copy);
}

/** Up to this many objects, to search a list takes less time than to fill a Set. */
const LISTED = 12;

/** The objects that were met before. */
class Seen {
  readonly #list: object[] = [];
  #set: Set<object> | undefined;

  /** Adds an object. Returns false when it was there already. */
  add(value: object): boolean {
    if (this.#set === undefined) {
      if (this.#list.includes(value)) return false;
      if (this.#list.push(value) === LISTED) this.#set = new Set(this.#list);
      return true;
    }
    const { size } = this.#set;
    return this.#set.add(value).size > size;
  }
}

/** Copies plain data; `undefined` if it is not plain. */
function copyOf(value: object, seen: Seen, depth: number): object | undefined {
  const isArray = Array.isArray(value);
  if (Object.getPrototypeOf(value) !== (isArray ? Array : Object).prototype) return undefined;
  if (depth === 0 || (value as { toJSON?: unknown }).toJSON !== undefined) return undefined;
  if (!seen.add(value)) return undefined;
  return isArray ? copyOfArray(value, seen, depth) : copyOfObject(value as Record<string, unknown>, seen, depth);
}

function copyOfArray(value: readonly unknown[], seen: Seen, depth: number): object | undefined {
  const copy: unknown[] = [];
  const { length } = value;
  for (let i = 0; i < length; i++) {
    const item = value[i];
    if (typeof item === "object" && item !== null) {
      const within = copyOf(item, seen, depth - 1);
      if (within === undefined) return undefined;
      copy.push(within);
    } else if (isInJson(item)) copy.push(item);
    else return undefined;
  }
  return copy;
}

function copyOfObject(value: Record<string, unknown>, seen: Seen, depth: number): object | undefined {
  // Spreading copies the whole shape of an object at once, and runs all of its getters. V8 reads the properties of the copy
  // fastest in a `for…in` loop.
  const copy = { ...value };
  for (const key in copy) {
    const item = copy[key];
    if (typeof item === "object" && item !== null) {
      const within = copyOf(item, seen, depth - 1);
      if (within === undefined) return undefined;
      // The loop also visits what somebody has added to `Object.prototype`.
      if (Object.hasOwn(copy, key)) copy[key] = within;
    } else if (!isInJson(item)) return undefined;
    // A property named `__proto__` cannot be stored at all. `structured.ts` throws the error that names its place.
    if (key === "__proto__") return undefined;
  }
  return copy;
}

/** Whether JSON gives an item that is no object back as it was. A hole is `undefined`. */
function isInJson(item: unknown): boolean {
  // JSON has no NaN, no infinite numbers, and no -0.
  if (typeof item === "number") return item - item === 0 && (item !== 0 || 1 / item > 0);
  return typeof item === "string" || typeof item === "boolean" || item === null;
}

/**
 * Turns JSON back into an object or array. Any text is safe.
 * @throws {CacheError} `ERR_DATA` for text that is not JSON, not an object or array, has too many levels, or has a property
 * named `__proto__`.
 */
export function fromJson(text: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw unreadable(`its text is not JSON (${quoted(error)})`, error);
  }
  if (typeof value !== "object" || value === null) throw unreadable("its text is not the JSON of an object");
  // Short text cannot have too many levels. Text with neither the name nor an escape (which can stand for a part of the name)
  // cannot have such a property.
  if (text.length > 2 * DEEPEST) checkDepth(value, DEEPEST);
  if (text.includes("__proto__") || text.includes("\\u")) checkNames(value);
  return value;
}

/** Throws if there are more levels than a stored value can have. The recursion ends there, so it takes little stack. */
function checkDepth(value: object, depth: number): void {
  if (depth === 0) throw unreadable(`it has more than ${DEEPEST} levels`);
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const item: unknown = value[i];
      if (typeof item === "object" && item !== null) checkDepth(item, depth - 1);
    }
    return;
  }
  for (const key in value) {
    const item = (value as Record<string, unknown>)[key];
    if (typeof item === "object" && item !== null && Object.hasOwn(value, key)) checkDepth(item, depth - 1);
  }
}

/** Throws for a property that no stored value can have, and that would change the prototype of an object it is assigned to. */
function checkNames(value: object): void {
  if (Object.hasOwn(value, "__proto__")) throw unreadable("it has a property named __proto__");
  for (const item of Object.values(value) as unknown[]) if (typeof item === "object" && item !== null) checkNames(item);
}
