/**
 * Structured data ↔ text, by the library `devalue`. Map, Set, Date, RegExp, bigint, binary data, -0, holes, cycles and
 * repeated references come back as they were. What cannot be stored is refused, and the error names its place. Any text is
 * safe to read, even from a hostile participant: it becomes a value or an error. devalue leaves some decisions to its
 * users, and this file makes them: the class of an object, `toJSON`, class instances, errors, views, the limit of levels.
 *
 * Relies on `describe.ts` for the class of an object. Must not know how text becomes bytes.
 */
import { DevalueError, type ParseOptions, type StringifyOperations, stringify, unflatten } from "devalue";
import { CacheError } from "../errors.ts";
import { plainBytes } from "./binary.ts";
import { claimedName, classOf, contentOf, isStackOverflow, isThenable } from "./describe.ts";
import { DEEPEST, missing, quoted, tooDeep, unreadable, unstorable } from "./value-errors.ts";

/**
 * Functions for `devalue`, by the name of a class. A reducer returns the data of an object of the class, and something
 * falsy for every other value. A reviver turns the data back into an object.
 */
export type Reducers = Record<string, (value: unknown) => unknown>;

/** Levels that the text has in addition to those of the value: binary data and bigints are nested in it. */
const LEVELS_OF_TEXT = 4;
/** The first number of an entry for an array with holes: `[SPARSE, length, index, item, index, item …]`. */
const SPARSE = -7;
/** A longer regular expression can be nested too deeply for some stacks. */
const LONG_EXPRESSION = 1000;

/** While a value is written: the level of each object that was met. */
let levels: Map<object, number> = new Map();
/** Whether a key of a Map was an object. Then an object that is met within the key can be deeper than its level says. */
let hasObjectKeys = false;

const flagsOf = Object.getOwnPropertyDescriptor(RegExp.prototype, "flags")?.get as (this: unknown) => string;

/** Notes that `item` is one level below `holder`, unless `item` was met before. Returns `item`. */
function enter<T>(item: T, holder: object): T {
  if (typeof item !== "object" || item === null || levels.has(item)) return item;
  const level = (levels.get(holder) ?? 0) + 1;
  if (level > DEEPEST) throw tooDeep();
  levels.set(item, level);
  return item;
}

const WRITING: Partial<StringifyOperations> = {
  tagOf: classOf,
  get: (object, key) => enter(toData(object[key], key), object),
  *valuesOf(set) {
    for (const item of [...(contentOf(set, "Set") as Iterable<unknown>)]) yield enter(toData(item), set);
  },
  *entriesOf(map) {
    for (const entry of [...(contentOf(map, "Map") as Iterable<[unknown, unknown]>)]) {
      const key = enter(toData(entry[0]), map);
      if (typeof key === "object" && key !== null) hasObjectKeys = true;
      entry[0] = key;
      entry[1] = enter(toData(entry[1]), map);
      yield entry;
    }
  },
  isThenable,
  unbox: (boxed) => contentOf(boxed, classOf(boxed)),
  toISOString(date) {
    const time = contentOf(date, "Date") as number;
    return Number.isNaN(time) ? "" : new Date(time).toISOString();
  },
  toStringValue: (value) => String(contentOf(value, classOf(value))),
  regExpInfo: (expression) => ({ source: String(contentOf(expression, "RegExp")), flags: flagsOf.call(expression) }),
  shapeOf(object) {
    const keys = Object.keys(object);
    const prototype: unknown = Object.getPrototypeOf(object);
    if (prototype === null) return { kind: "null-proto", keys };
    const isData = keys.length > 0 || prototype === Object.prototype || claimedName(object) === "Object";
    return isData ? { kind: "plain", keys } : { kind: "not-plain" };
  },
  // A private copy of only what the view shows: its buffer can be large, shared, or hold other data.
  viewInfo(view) {
    const { buffer, length } = plainBytes(view).slice();
    return { buffer, byteOffset: 0, byteLength: length, bufferByteLength: length };
  },
};

const READING: ParseOptions = {
  operations: {
    // An assignment would run a setter of `Object.prototype`, or fail for a constant of it.
    set(target: object, key: PropertyKey, value: unknown) {
      if (key in target) define(target, key, value, true);
      else (target as Record<PropertyKey, unknown>)[key] = value;
    },
    fromViewInfo(tag: string, buffer: ArrayBuffer, byteOffset?: number, length?: number) {
      const Views = globalThis as unknown as Record<string, (new (...args: unknown[]) => object) | undefined>;
      const View = Views[tag];
      if (View === undefined) throw missing(tag);
      return byteOffset === undefined ? new View(buffer) : new View(buffer, byteOffset, length);
    },
    fromRegExpInfo(source: string, flags: string) {
      try {
        return new RegExp(source, flags);
      } catch (error) {
        if (!isStackOverflow(error) || source.length < LONG_EXPRESSION) throw error;
        throw new Error("the stack of this thread is too small for a regular expression");
      }
    },
  },
};

/**
 * Returns the data to store for a value: the result of its `toJSON`, as with JSON.stringify, or the value itself.
 * @param key - the name or index under which the value was found.
 */
export function toData(value: unknown, key: unknown = ""): unknown {
  if (typeof value !== "object" || value === null) return value;
  const { toJSON } = value as { toJSON?: unknown };
  // A thenable is refused later, even if it has a `toJSON`: most likely an `await` was forgotten.
  if (typeof toJSON !== "function" || isThenable(value)) return value;
  const name = classOf(value);
  // Objects of the other classes are stored as such.
  return name === "Object" || name === "Array" ? toJSON.call(value, String(key)) : value;
}

/**
 * Turns an object into text.
 * @throws the errors of {@link unstorable} and {@link tooDeep}. Errors of getters and of `toJSON` are passed on.
 */
export function toText(value: object, reducers: Reducers): string {
  // A getter may store another value during this call.
  const [outerLevels, outerKeys] = [levels, hasObjectKeys];
  levels = new Map([[value, 1]]);
  hasObjectKeys = false;
  try {
    const text = stringify(value, reducers, { operations: WRITING });
    if (hasObjectKeys && isTooDeep(JSON.parse(text))) throw tooDeep();
    return text;
  } catch (error) {
    if (!(error instanceof DevalueError)) throw error;
    throw unstorable(error.value, `value${error.path.replaceAll(PLACE_OF_OWN, "")}`, error.value === value);
  } finally {
    [levels, hasObjectKeys] = [outerLevels, outerKeys];
  }
}

/**
 * Turns text back into an object.
 * @throws {CacheError} `ERR_DATA` for text that {@link toText} cannot have written, or that this runtime cannot read.
 */
export function fromText(text: string, revivers: Reducers): unknown {
  try {
    const entries: unknown = JSON.parse(text);
    if (isTooDeep(entries)) throw unreadable(`it has more than ${DEEPEST} levels`);
    return unflatten(entries as unknown[], revivers, READING);
  } catch (error) {
    // The caller had too little stack left. That says nothing about the value.
    if (error instanceof CacheError || isStackOverflow(error)) throw error;
    throw unreadable(`this runtime cannot read an object in it (${quoted(error)})`, error);
  }
}

/**
 * Whether reading these entries would nest too many calls. It follows references as `unflatten` does: in order, and to each
 * entry once.
 */
function isTooDeep(entries: unknown): boolean {
  if (!Array.isArray(entries) || entries.length <= DEEPEST) return false;
  return isDeeper(entries, 0, DEEPEST + LEVELS_OF_TEXT, new Uint8Array(entries.length));
}

function isDeeper(entries: unknown[], at: number, levels: number, seen: Uint8Array): boolean {
  if (levels === 0) return true;
  seen[at] = 1;
  const entry = entries[at] as Record<string, unknown> | unknown[];
  if (Array.isArray(entry)) {
    const isSparse = entry[0] === SPARSE;
    for (let i = isSparse ? 3 : 0; i < entry.length; i += isSparse ? 2 : 1) {
      if (leadsOn(entries, entry[i], seen) && isDeeper(entries, entry[i] as number, levels - 1, seen)) return true;
    }
    return false;
  }
  for (const key in entry) {
    if (leadsOn(entries, entry[key], seen) && isDeeper(entries, entry[key] as number, levels - 1, seen)) return true;
  }
  return false;
}

/** Whether the reference `to` leads to an entry that has references, and that was not seen yet. */
function leadsOn(entries: unknown[], to: unknown, seen: Uint8Array): boolean {
  return typeof to === "number" && seen[to] === 0 && typeof entries[to] === "object" && entries[to] !== null;
}

// ---- errors --------------------------------------------------------------------------------------------------------

/** These are always stored as text. A runtime turns them into text to make the `stack`, which for some objects never ends. */
const ERROR_TEXTS: readonly string[] = ["name", "message", "stack"];
/** These are not enumerable either, but can hold any value. */
const ERROR_PARTS: readonly string[] = ["cause", "errors", "error", "suppressed"];
/** Its constructor takes the message and the name, which nobody can set later. */
const DOM_EXCEPTION = "DOMException";
const ERROR_CLASSES: readonly string[] = [
  ..."Error EvalError RangeError ReferenceError SyntaxError TypeError URIError AggregateError SuppressedError".split(
    " ",
  ),
  DOM_EXCEPTION,
];
/** The name under which the stored data holds all other properties. */
const OWN = "\0";
const PLACE_OF_OWN = `[${JSON.stringify(OWN)}]`;
/** Errors by their data: `devalue` revives the same data twice when an error is part of its own cause. */
const revivedErrors: WeakMap<object, Error> = new WeakMap();

/**
 * Returns the data to store for an error: its class, texts and parts, and its other properties. If the error has a `toJSON`,
 * the other properties are those that `toJSON` returns.
 *
 * The names in this data (`kind`, {@link OWN}) are part of the memory layout.
 */
export function errorData(error: Error): object {
  const { toJSON } = error as { toJSON?: unknown };
  const json: unknown = typeof toJSON === "function" ? toJSON.call(error, "") : undefined;
  const own: Record<string, unknown> = { ...((typeof json === "object" && json) || error) };
  const data = { kind: errorClass(error) };
  for (const key of ERROR_TEXTS) {
    const value: unknown = error[key as keyof Error];
    if (value !== undefined) define(data, key, String(value), true);
    delete own[key];
  }
  for (const key of ERROR_PARTS) {
    if (!Object.hasOwn(own, key) && Object.hasOwn(error, key)) define(data, key, error[key as keyof Error], true);
  }
  if (Object.keys(own).length > 0) define(data, OWN, own, true);
  return enter(data, error);
}

/** The name of the nearest class of error that runtimes have. */
function errorClass(error: object): string {
  for (let at: object | null = error; at !== null; at = Object.getPrototypeOf(at) as object | null) {
    const name: unknown = Object.hasOwn(at, "constructor") && at.constructor?.name;
    if (ERROR_CLASSES.includes(name as string)) return name as string;
  }
  return "Error";
}

/**
 * Turns what {@link errorData} returned back into an error.
 * @throws {Error} for other data.
 */
export function toError(data: unknown): Error {
  if (typeof data !== "object" || data === null || classOf(data) !== "Object") throw new Error("an error without data");
  const { kind, [OWN]: own, ...properties } = data as Record<string, unknown>;
  let error = revivedErrors.get(data);
  if (error === undefined) {
    error = newError(kind, properties);
    revivedErrors.set(data, error);
  }
  for (const [part, isOwn] of [
    [properties, false],
    [own, true],
  ] as const) {
    for (const [key, value] of Object.entries(part ?? {})) {
      const isText = typeof value === "string" || value === undefined;
      if (ERROR_TEXTS.includes(key) && !isText) throw new Error(`an error whose ${key} is not text`);
      const isThere = ERROR_TEXTS.includes(key) && error[key as keyof Error] === value;
      if (!isThere) define(error, key, value, isOwn);
    }
  }
  return error;
}

function newError(kind: unknown, { message, name }: Record<string, unknown>): Error {
  const classes = globalThis as unknown as Record<string, new (...args: unknown[]) => Error>;
  const ErrorClass = ERROR_CLASSES.includes(kind as string) ? classes[kind as string] : undefined;
  if (ErrorClass === undefined) return new Error();
  if (kind === DOM_EXCEPTION) return new ErrorClass(String(message ?? ""), String(name ?? "Error"));
  return kind === "AggregateError" ? new ErrorClass([]) : new ErrorClass();
}

function define(object: object, key: PropertyKey, value: unknown, enumerable: boolean): void {
  Object.defineProperty(object, key, { value, enumerable, configurable: true, writable: true });
}
