/** Freezes decoded values that many readers share: the option `frozenObjects`. Relies on `describe.ts` for classes. */
import { classOf, contentOf } from "./describe.ts";

const MUTATORS: Readonly<Record<string, readonly string[]>> = {
  Map: ["set", "delete", "clear"],
  Set: ["add", "delete", "clear"],
  Date: Object.getOwnPropertyNames(Date.prototype).filter((name) => name.startsWith("set")),
};

const UNFREEZABLE: readonly string[] = ["ArrayBuffer", "URL", "URLSearchParams"];

/**
 * Freezes a decoded value and everything within it, so that many readers can share it. Objects, arrays and errors are frozen
 * by `Object.freeze`, as are the contents of Maps and Sets. The methods that change a Map, Set or Date throw a `TypeError`.
 * (The methods of the prototype still work: this guards against mistakes, not against malice.)
 * @param value - changed in place; it should have no other user yet.
 * @returns whether everything is frozen. `false` when the value contains something that JavaScript cannot freeze (binary data,
 * URLs) or that is of no use when frozen (regular expressions with the flag g or y). Such a value must not be shared.
 */
export function deepFreeze(value: unknown): boolean {
  let complete = true;
  const found = new Set<object>();
  const add = (item: unknown): void => {
    if (typeof item === "object" && item !== null) found.add(item);
  };
  add(value);
  // The loop also visits objects that are added during it. There is no recursion, so any depth is fine.
  for (const object of found) {
    const name = classOf(object);
    // A regular expression with the flag g or y keeps its position in itself, in `lastIndex`.
    const hasPosition = name === "RegExp" && /[gy]/.test((object as RegExp).flags);
    if (hasPosition || UNFREEZABLE.includes(name) || ArrayBuffer.isView(object)) {
      complete = false;
      continue;
    }
    if (name === "Map") {
      for (const [key, item] of contentOf(object, name) as Iterable<[unknown, unknown]>) {
        add(key);
        add(item);
      }
    } else if (name === "Set") for (const item of contentOf(object, name) as Iterable<unknown>) add(item);
    if (!Object.isFrozen(object)) {
      for (const method of MUTATORS[name] ?? []) Object.defineProperty(object, method, { value: refuse });
    }
    for (const key of Object.getOwnPropertyNames(object)) add((object as Record<string, unknown>)[key]);
    Object.freeze(object);
  }
  return complete;
}

function refuse(): never {
  throw new TypeError("value: is frozen, because other readers share it. Change a copy of it.");
}
