/**
 * Structured data ↔ text, by `devalue`: Map, Set, Date, RegExp, bigint, bytes, -0, holes, cycles and repeated references
 * come back as they were, what cannot be kept is refused with its place, and no text that anybody may have put there can
 * do more than fail. Here is what devalue leaves to its users: `toJSON`, class instances, errors, views, and messages.
 */
import { DevalueError, parse, type StringifyOperations, type StringifyOptions, stringify } from "devalue";
import { CacheError } from "./errors.ts";
import { describe } from "./text.ts";

const toTag: () => string = Object.prototype.toString;

/** What `devalue` calls reducers, and revivers the other way. */
export type Reducers = Record<string, (value: unknown) => unknown>;

const OPERATIONS: Partial<StringifyOperations> = {
  get: (object, key) => toData(object[key], key),
  valuesOf: (set) => Array.from(set, (item) => toData(item)),
  entriesOf: (map) => Array.from(map as Map<unknown, unknown>, ([key, item]) => [toData(key), toData(item)]),
  // An object that has a method is refused for the method, a Promise for having no content.
  isThenable: () => false,
  shapeOf(object) {
    const keys = Object.keys(object);
    const prototype: unknown = Object.getPrototypeOf(object);
    if (prototype === null) return { kind: "null-proto", keys };
    const isData = keys.length > 0 || prototype === Object.prototype || toTag.call(object) === "[object Object]";
    return isData ? { kind: "plain", keys } : { kind: "not-plain" };
  },
  // Only what the view shows, and private: the buffer can be large, shared, or full of other people's data.
  viewInfo(view) {
    const { buffer, length } = plainBytes(view).slice();
    return { buffer, byteOffset: 0, byteLength: length, bufferByteLength: length };
  },
};
const OPTIONS: StringifyOptions = { operations: OPERATIONS };

/** These have a `toJSON`, but come back as what they are. */
const KEPT = /^\[object (Date|URL|Uint8Array|Temporal\.\w+)\]$/;

/** What stands for the value: itself, or what its `toJSON` returns, as with JSON.stringify. */
export function toData(value: unknown, key: unknown = ""): unknown {
  if (typeof value !== "object" || value === null) return value;
  const { toJSON } = value as { toJSON?: unknown };
  return typeof toJSON !== "function" || KEPT.test(toTag.call(value)) ? value : toJSON.call(value, String(key));
}

export function toText(value: object, reducers: Reducers): string {
  try {
    return stringify(value, reducers, OPTIONS);
  } catch (error) {
    if (isStackOverflow(error)) throw tooDeep(error);
    if (!(error instanceof DevalueError)) throw error;
    const place = `value${error.path}`;
    if (typeof error.value === "object" && Object.hasOwn(error.value, "__proto__")) {
      throw new TypeError(`${place} has a property named __proto__, which cannot be stored. Rename it.`);
    }
    throw unstorable(error.value, place);
  }
}

export function fromText(text: string, revivers: Reducers): unknown {
  try {
    return parse(text, revivers);
  } catch (error) {
    if (isStackOverflow(error)) throw tooDeep(error);
    throw damaged(`an object that this runtime cannot read (${(error as Error).message})`, error);
  }
}

/** Also where a native function ran out of stack and says so in an error of its own. */
function isStackOverflow(error: unknown): boolean {
  const message = error instanceof Error ? String(error.message) : "";
  return message.includes("Maximum call stack size exceeded") || message === "too much recursion";
}

function tooDeep(cause: unknown): RangeError {
  return new RangeError(
    "value is nested too deeply for the stack of this thread. Store it flatter, or open the cache with a codec.",
    { cause },
  );
}

/** Always text: runtimes turn them into text when they make the `stack`, which is endless for some objects. */
const ERROR_TEXTS: readonly string[] = ["name", "message", "stack"];
/** In the order in which they are revived, and none of them enumerable. */
const ERROR_PROPERTIES: readonly string[] = [...ERROR_TEXTS, "cause", "errors"];
const ERRORS: ReadonlyMap<string, new () => Error> = new Map(
  [Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError].map((error) => [error.name, error]),
);
/** By their data, which is revived twice when the error is part of its own cause. */
const revivedErrors: WeakMap<object, Error> = new WeakMap();

export function isError(value: unknown): value is Error {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === Array.prototype) return false;
  return value instanceof Error || toTag.call(value) === "[object Error]";
}

export function errorData(error: Error): object {
  const data: Record<string, unknown> = {};
  for (const key of ERROR_PROPERTIES) {
    const value: unknown = error[key as keyof Error];
    if (value !== undefined) data[key] = ERROR_TEXTS.includes(key) ? String(value) : value;
  }
  // Twice: the first settles the order, the second the values.
  return { ...data, ...error, ...data };
}

export function toError(data: unknown): Error {
  if (toTag.call(data) !== "[object Object]") throw damaged("an error without properties");
  const properties = data as Record<string, unknown>;
  let error = revivedErrors.get(properties);
  if (error === undefined) {
    const { name } = properties;
    error = name === "AggregateError" ? new AggregateError([]) : new (ERRORS.get(name as string) ?? Error)();
    revivedErrors.set(properties, error);
  }
  for (const [key, value] of Object.entries(properties)) {
    const isText = typeof value === "string" || value === undefined;
    if (ERROR_TEXTS.includes(key) && !isText) throw damaged(`an error whose ${key} is no text`);
    if (key !== "name" || error.name !== value) define(error, key, value, !ERROR_PROPERTIES.includes(key));
  }
  return error;
}

export function damaged(found: string, cause?: unknown): CacheError {
  return new CacheError(
    "ERR_LAYOUT",
    `The stored value cannot be decoded: ${found} was found. It is damaged: store it anew.`,
    { cause },
  );
}

export function unstorable(value: unknown, place: string): TypeError {
  return new TypeError(`${place} is ${describe(value)}, which cannot be stored. Store plain data instead.`);
}

/** The bytes of a view, never as a `Buffer`. */
export function plainBytes(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

function define(object: object, key: string, value: unknown, enumerable: boolean): void {
  Object.defineProperty(object, key, { value, enumerable, configurable: true, writable: true });
}
