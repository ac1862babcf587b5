/** Decoded values that many readers share: the option `frozenObjects`. */

const MUTATORS: readonly (readonly [object, readonly string[]])[] = [
  [Map.prototype, ["set", "delete", "clear"]],
  [Set.prototype, ["add", "delete", "clear"]],
  [Date.prototype, Object.getOwnPropertyNames(Date.prototype).filter((name) => name.startsWith("set"))],
];

const UNFREEZABLE: readonly (abstract new (...args: never[]) => object)[] = [ArrayBuffer, URL, URLSearchParams];

/**
 * Freezes a decoded value with everything in it, so that many readers can share it: objects, arrays and errors by
 * `Object.freeze`, the contents of Maps and Sets as well, and the mutating methods of Maps, Sets and Dates throw a
 * `TypeError` (those borrowed from a prototype still work: this guards against mistakes, not against malice).
 * @param value - changed in place; it should have no other user yet.
 * @returns whether all of it is frozen now. `false` when it contains bytes or URLs, which JavaScript cannot freeze: such a
 * value must not be shared.
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
    if (UNFREEZABLE.some((kind) => object instanceof kind) || ArrayBuffer.isView(object)) {
      complete = false;
      continue;
    }
    if (object instanceof Map) {
      for (const [key, item] of object) {
        add(key);
        add(item);
      }
    } else if (object instanceof Set) for (const item of object) add(item);
    for (const [prototype, methods] of MUTATORS) {
      if (!Object.prototype.isPrototypeOf.call(prototype, object) || Object.isFrozen(object)) continue;
      for (const method of methods) Object.defineProperty(object, method, { value: refuse });
    }
    for (const key of Object.getOwnPropertyNames(object)) add((object as Record<string, unknown>)[key]);
    Object.freeze(object);
  }
  return complete;
}

function refuse(): never {
  throw new TypeError("The value is shared with others and frozen. Change a copy of it.");
}
