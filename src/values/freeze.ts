/** Decoded values that many readers share: the option `frozenObjects`. */
import { contentOf, kindOf } from "./describe.ts";

const MUTATORS: Readonly<Record<string, readonly string[]>> = {
  Map: ["set", "delete", "clear"],
  Set: ["add", "delete", "clear"],
  Date: Object.getOwnPropertyNames(Date.prototype).filter((name) => name.startsWith("set")),
};

const UNFREEZABLE: readonly string[] = ["ArrayBuffer", "URL", "URLSearchParams"];

/**
 * Freezes a decoded value with everything in it, so that many readers can share it: objects, arrays and errors by
 * `Object.freeze`, the contents of Maps and Sets as well, and the mutating methods of Maps, Sets and Dates throw a
 * `TypeError` (those borrowed from a prototype still work: this guards against mistakes, not against malice).
 * @param value - changed in place; it should have no other user yet.
 * @returns whether all of it is frozen now. `false` when it contains bytes, URLs or expressions with the flag g or y, which
 * JavaScript cannot freeze, or which are of no use then: such a value must not be shared.
 */
export function deepFreeze(value: unknown): boolean {
  let complete = true;
  const found = new Set<object>();
  const add = (item: unknown): void => {
    if (typeof item === "object" && item !== null) found.add(item);
  };
  add(value);
  // A Set visits what is added while it is walked: no recursion, so no depth is too much.
  for (const object of found) {
    const kind = kindOf(object);
    // An expression with the flag g or y notes in itself how far it has got.
    const notes = kind === "RegExp" && /[gy]/.test((object as RegExp).flags);
    if (notes || UNFREEZABLE.includes(kind) || ArrayBuffer.isView(object)) {
      complete = false;
      continue;
    }
    if (kind === "Map") {
      for (const [key, item] of contentOf(object, kind) as Iterable<[unknown, unknown]>) {
        add(key);
        add(item);
      }
    } else if (kind === "Set") for (const item of contentOf(object, kind) as Iterable<unknown>) add(item);
    if (!Object.isFrozen(object)) {
      for (const method of MUTATORS[kind] ?? []) Object.defineProperty(object, method, { value: refuse });
    }
    for (const key of Object.getOwnPropertyNames(object)) add((object as Record<string, unknown>)[key]);
    Object.freeze(object);
  }
  return complete;
}

function refuse(): never {
  throw new TypeError("The value is shared with others and frozen. Change a copy of it.");
}
