/**
 * Plain data ↔ JSON, by the runtime itself, which is several times faster than any library. Only what comes back exactly
 * as it was: objects and arrays of nothing but such, text, booleans, `null` and the numbers that JSON has. All else is for
 * `structured.ts`.
 */
import { DEEPEST, told, unreadable } from "./structured.ts";

/** Deeper data is not plain, so that neither looking at it nor writing it runs out of stack. */
const DEPTH = 64;
/**
 * The text of plain data; `undefined` for anything else, and when an object is in two places, which would become two.
 *
 * What becomes text is a copy that nobody else has. So here each getter and each trap of a proxy is asked once, and what
 * was looked at is what is written.
 */
export function toJson(value: object): string | undefined {
  const copy = copyOf(value, new Set(), DEPTH);
  return copy && JSON.stringify(copy);
}

/** A copy, `undefined` when the value is not plain. `seen` are the objects that were met before. */
function copyOf(value: object, seen: Set<object>, depth: number): object | undefined {
  const isArray = Array.isArray(value);
  if (Object.getPrototypeOf(value) !== (isArray ? Array : Object).prototype) return undefined;
  if (depth === 0 || seen.has(value) || (value as { toJSON?: unknown }).toJSON !== undefined) return undefined;
  seen.add(value);
  // Spreading takes the whole shape of an object at once, which is what makes this cheap.
  const copy: Record<string | number, unknown> = isArray ? ([] as never) : { ...value };
  const keys = isArray ? undefined : Object.keys(copy);
  const { length } = keys ?? (value as unknown[]);
  for (let i = 0; i < length; i++) {
    const key = keys === undefined ? i : (keys[i] as string);
    let item = keys === undefined ? (value as unknown[])[i] : copy[key];
    const isObject = typeof item === "object" && item !== null;
    if (isObject) item = copyOf(item as object, seen, depth - 1);
    // Of a property named `__proto__` the error is to tell, as no other way of storing it would bring it back.
    if (!isInJson(item) || key === "__proto__") return undefined;
    if (isArray || isObject) copy[key] = item;
  }
  return copy;
}

/** Whether JSON has this; what is an object was copied. A hole is `undefined`, as is what was not plain. */
function isInJson(item: unknown): boolean {
  // Not NaN, not infinite, and not -0.
  if (typeof item === "number") return item - item === 0 && (item !== 0 || 1 / item > 0);
  return typeof item === "string" || typeof item === "boolean" || typeof item === "object";
}

/** Any text is safe: what is no JSON, no object, too deep, or has a property named `__proto__`, throws. */
export function fromJson(text: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw unreadable(`it is an object that is no JSON (${told(error)})`, error);
  }
  if (typeof value !== "object" || value === null) throw unreadable("it is an object that is none");
  // A text that is short has not so many levels. One that has neither the name nor an escape, which can stand for a part of
  // it, has no such property.
  if (text.length > 2 * DEEPEST) checkDepth(value, DEEPEST);
  if (text.includes("__proto__") || text.includes("\\u")) checkNames(value);
  return value;
}

/** Throws when there are more levels than anybody can have stored. Ends with them, so it takes little stack. */
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

/** Throws for a property that nobody can have stored, and that would change the prototype of whatever it is copied to. */
function checkNames(value: object): void {
  if (Object.hasOwn(value, "__proto__")) throw unreadable("it has a property named __proto__");
  for (const item of Object.values(value) as unknown[]) if (typeof item === "object" && item !== null) checkNames(item);
}
