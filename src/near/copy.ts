/**
 * Copies of plain data: how a value that was decoded once can be given to many readers, each with a copy of its own.
 * Spreading an object or slicing an array copies the whole shape at once and takes nanoseconds; what takes time is to look
 * for the objects within. So where they are is found out once for each value.
 */

/** Where within a value there are others to copy, by name or index, and how. */
export interface Copier {
  readonly at: readonly (string | number)[];
  readonly within: readonly Copier[];
}

const FLAT: Copier = { at: [], within: [] };
/** Deeper than that values are decoded anew each time, so that copying never runs out of stack. */
const DEPTH = 64;

/**
 * How to copy a value; `undefined` for what is not copied here: whatever holds anything but plain objects, arrays without
 * holes and primitive values, or one object in two places.
 *
 * @param seen - objects that must not be met again; those of the value are added
 */
export function copierOf(value: unknown, seen: Set<object> = new Set()): Copier | undefined {
  return typeof value === "object" && value !== null ? plan(value, seen, DEPTH) : undefined;
}

function plan(value: object, seen: Set<object>, depth: number): Copier | undefined {
  if (depth === 0 || seen.has(value)) return undefined;
  seen.add(value);
  const keys = Object.keys(value);
  if (Array.isArray(value)) {
    // Slicing a large array of holes would visit each of them.
    if (keys.length !== value.length) return undefined;
  } else if (Object.getPrototypeOf(value) !== Object.prototype) return undefined;
  const at: (string | number)[] = [];
  const within: Copier[] = [];
  for (const key of keys) {
    const item = (value as Record<string, unknown>)[key];
    if (typeof item !== "object" || item === null) continue;
    // Only foreign bytes have it, and assigning it to a copy would change the copy's prototype.
    if (key === "__proto__") return undefined;
    const copier = plan(item, seen, depth - 1);
    if (copier === undefined) return undefined;
    at.push(Array.isArray(value) ? Number(key) : key);
    within.push(copier);
  }
  // Slices, as what grew has more room than it needs.
  return at.length === 0 ? FLAT : { at: at.slice(), within: within.slice() };
}

/** A copy of the value that {@link copierOf} was asked about, which nobody may have changed since. */
export function copy(value: unknown, { at, within }: Copier): unknown {
  const copied = (Array.isArray(value) ? value.slice() : { ...(value as object) }) as Record<string | number, unknown>;
  for (let i = 0; i < at.length; i++) {
    const key = at[i] as string | number;
    copied[key] = copy(copied[key], within[i] as Copier);
  }
  return copied;
}
