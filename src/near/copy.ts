/**
 * Copies plain data, so that a value that was decoded once can serve many readers, each with a copy of its own. To spread an
 * object, or to slice an array, copies its whole shape at once and takes nanoseconds. To search it for nested objects takes
 * longer. So each value is searched once, and the result is its copier.
 */

/** How to copy an object or array: `within[i]` copies the nested object under the name or index `at[i]`. */
export interface Copier {
  readonly at: readonly (string | number)[];
  readonly within: readonly Copier[];
}

const FLAT: Copier = { at: [], within: [] };
/** A value with more levels has no copier and is decoded for each reader. So the recursion never runs out of stack. */
const DEPTH = 64;

/**
 * Returns the copier of a value. Returns `undefined` for a primitive value, for a value that holds anything but plain
 * objects, arrays without holes and primitive values, and for a value with one object in two places.
 *
 * @param seen - objects that must not be met again. The objects of the value are added.
 */
export function copierOf(value: unknown, seen: Set<object> = new Set()): Copier | undefined {
  return typeof value === "object" && value !== null ? plan(value, seen, DEPTH) : undefined;
}

function plan(value: object, seen: Set<object>, depth: number): Copier | undefined {
  if (depth === 0 || seen.has(value)) return undefined;
  seen.add(value);
  const keys = Object.keys(value);
  if (Array.isArray(value)) {
    // To slice a large array of holes visits each hole.
    if (keys.length !== value.length) return undefined;
  } else if (Object.getPrototypeOf(value) !== Object.prototype) return undefined;
  const at: (string | number)[] = [];
  const within: Copier[] = [];
  for (const key of keys) {
    const item = (value as Record<string, unknown>)[key];
    if (typeof item !== "object" || item === null) continue;
    // Only damaged bytes decode to this name. To assign it to a copy would change the prototype of the copy.
    if (key === "__proto__") return undefined;
    const copier = plan(item, seen, depth - 1);
    if (copier === undefined) return undefined;
    at.push(Array.isArray(value) ? Number(key) : key);
    within.push(copier);
  }
  // Arrays that have grown have spare room; their slices have none.
  return at.length === 0 ? FLAT : { at: at.slice(), within: within.slice() };
}

/** Copies a value with the copier that {@link copierOf} returned for it. The value must not have changed since then. */
export function copy(value: unknown, { at, within }: Copier): unknown {
  const copied = (Array.isArray(value) ? value.slice() : { ...(value as object) }) as Record<string | number, unknown>;
  for (let i = 0; i < at.length; i++) {
    const key = at[i] as string | number;
    copied[key] = copy(copied[key], within[i] as Copier);
  }
  return copied;
}
