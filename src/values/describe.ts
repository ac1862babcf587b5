/**
 * Finds the class of an object. The answer depends on the content of the object, and not on its description of itself: neither
 * `Symbol.toStringTag`, nor a replaced method, nor another realm (test runners and `node:vm` make realms) changes it. Relies on
 * the runtime only. Must not know how a value is stored.
 */

type Class = abstract new (...args: never[]) => object;
/** Returns the content of an object of one class. Throws for objects of all other classes. */
type Content = (this: unknown) => unknown;

const getter = (of: Class, name: string): Content =>
  Object.getOwnPropertyDescriptor(of.prototype, name)?.get as Content;

const CLASSES: readonly (readonly [string, Class, Content])[] = [
  ["Map", Map, Map.prototype.entries],
  ["Set", Set, Set.prototype.values],
  ["Date", Date, Date.prototype.getTime],
  ["RegExp", RegExp, getter(RegExp, "source")],
  ["ArrayBuffer", ArrayBuffer, getter(ArrayBuffer, "byteLength")],
  ["URL", URL, URL.prototype.toString],
  ["URLSearchParams", URLSearchParams, URLSearchParams.prototype.toString],
  ["Number", Number, Number.prototype.valueOf],
  ["String", String, String.prototype.valueOf],
  ["Boolean", Boolean, Boolean.prototype.valueOf],
  ["BigInt", BigInt as unknown as Class, BigInt.prototype.valueOf],
];
const contents: ReadonlyMap<string, Content> = new Map(CLASSES.map(([name, , content]) => [name, content]));
const namesByPrototype: ReadonlyMap<unknown, string> = new Map([
  ...CLASSES.map(([name, of]) => [of.prototype, name] as const),
  [Error.prototype, "Error"],
]);
const TEMPORAL = "Temporal.";
const objectToString: () => string = Object.prototype.toString;

/**
 * The name that `Object.prototype.toString` gives to a value. Any object can choose this name with `Symbol.toStringTag`.
 */
export function claimedName(value: unknown): string {
  return objectToString.call(value).slice(8, -1);
}

/**
 * The name of an object's built-in class, if objects of this class are read back as such: `"Map"`, `"Uint8Array"` (also for a
 * `Buffer`), `"Error"` (also for each subclass), `"Temporal.Instant"` … Arrays are `"Array"`. Plain objects and all others
 * are `"Object"`.
 */
export function classOf(value: object): string {
  if (Array.isArray(value)) return "Array";
  if (ArrayBuffer.isView(value)) return typedArrayName(value) ?? "DataView";
  let name: string | undefined;
  let at: unknown = Object.getPrototypeOf(value);
  while (at !== null && at !== Object.prototype && name === undefined) {
    name = namesByPrototype.get(at);
    at = Object.getPrototypeOf(at);
  }
  if (name === undefined) {
    const tag = (value as Record<symbol, unknown>)[Symbol.toStringTag];
    const hasTag = typeof tag === "string";
    if (hasTag && tag.startsWith(TEMPORAL)) name = tag;
    // The chain of prototypes ends in this realm, and no built-in class was on it.
    else if (at !== null) return "Object";
    else name = claimedName(value);
    // Without a tag of its own, only an error of another realm is called "Error".
    if (name === "Error" ? !hasTag : isForeignError(value)) return "Error";
  }
  return name === "Error" || holds(value, contents.get(name) ?? contentOfTemporal(name)) ? name : "Object";
}

/** The content of an object of the class `name`: its entries, its time, its text, or its primitive value. */
export function contentOf(value: object, name: string): unknown {
  return (contents.get(name) ?? contentOfTemporal(name))?.call(value);
}

/** Whether this is an error, also of another realm, whatever name it claims. Older runtimes cannot tell: then `false`. */
function isForeignError(value: object): boolean {
  return (Error as { isError?: (value: unknown) => boolean }).isError?.(value) === true;
}

function contentOfTemporal(name: string): Content | undefined {
  const { Temporal } = globalThis as { Temporal?: Record<string, Class | undefined> };
  return Temporal?.[name.slice(TEMPORAL.length)]?.prototype?.toString;
}

function holds(value: object, content: Content | undefined): boolean {
  try {
    content?.call(value);
    return content !== undefined;
  } catch (error) {
    if (isStackOverflow(error)) throw error;
    return false;
  }
}

const nameOfTypedArray = Object.getOwnPropertyDescriptor(
  Object.getPrototypeOf(Uint8Array.prototype),
  Symbol.toStringTag,
)?.get as (this: unknown) => string | undefined;

/**
 * The name of a typed array's class (`"Uint8Array"` also for a `Buffer`), or `undefined` for every other value. Unlike
 * `instanceof` it is right for arrays of another realm.
 * @internal
 */
export function typedArrayName(value: unknown): string | undefined {
  return nameOfTypedArray.call(value);
}

/**
 * The words for a value in an error message: `null`, `a number`, `an Array`, `a Promise`.
 * @internal
 */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  const name = typeof value === "object" ? claimedName(value) : typeof value;
  return `${/^[aeiou]/i.test(name) ? "an" : "a"} ${name}`;
}

/** Whether `await` would wait for this object: a Promise, or any object with a method named `then`. */
export function isThenable(value: object): boolean {
  return typeof (value as { then?: unknown }).then === "function";
}

/** Whether the stack ran out. Some native functions report that by an error of their own, which contains this text. */
export function isStackOverflow(error: unknown): boolean {
  const message = error instanceof Error ? String(error.message) : "";
  return message.includes("Maximum call stack size exceeded") || message === "too much recursion";
}
