/**
 * Structured data ↔ text, by `devalue`: Map, Set, Date, RegExp, bigint, bytes, -0, holes, cycles and repeated references
 * come back as they were, what cannot be kept is refused with its place, and no text that anybody may have put there can
 * do more than fail. Here is what devalue leaves to its users: what is what, `toJSON`, class instances, errors, views, the
 * depth, and messages.
 */
import { DevalueError, type ParseOptions, type StringifyOperations, stringify, unflatten } from "devalue";
import { CacheError } from "../errors.ts";
import { contentOf, isStackOverflow, isThenable, kindOf, tagOf } from "./describe.ts";
import { describe } from "./runtime.ts";

/** What `devalue` calls reducers, and revivers the other way. */
export type Reducers = Record<string, (value: unknown) => unknown>;

/**
 * The most levels of a value. Whoever can store a value can also read it, whichever thread that is: the smallest stack that
 * a thread is known to be given holds so many.
 */
export const DEEPEST = 512;
/** Levels of the text that are none of the value: what bytes and bigints are made of. */
const LEVELS_OF_TEXT = 4;
/** The entry of the text that stands for an array with holes: `{itself, length, index, item, index, item …}`. */
const SPARSE = -7;
/** An expression that is longer can be nested so deeply that not every stack holds it. */
const LONG_EXPRESSION = 1000;
/** Characters of a place, and of another error's message, that are told. */
const TOLD = 200;

/** The levels of the objects that were met while a value is written. */
let levels: Map<object, number> = new Map();
/** Whether a Map was met whose keys are objects: then what is in a key can be deeper than its level says. */
let hasObjectKeys = false;

const flagsOf = Object.getOwnPropertyDescriptor(RegExp.prototype, "flags")?.get as (this: unknown) => string;

/** Notes that `item` is one level below `holder`, unless it was met before. */
function enter<T>(item: T, holder: object): T {
  if (typeof item !== "object" || item === null || levels.has(item)) return item;
  const level = (levels.get(holder) ?? 0) + 1;
  if (level > DEEPEST) throw tooDeep();
  levels.set(item, level);
  return item;
}

const WRITING: Partial<StringifyOperations> = {
  tagOf: kindOf,
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
  unbox: (boxed) => contentOf(boxed, kindOf(boxed)),
  toISOString(date) {
    const time = contentOf(date, "Date") as number;
    return Number.isNaN(time) ? "" : new Date(time).toISOString();
  },
  toStringValue: (value) => String(contentOf(value, kindOf(value))),
  regExpInfo: (expression) => ({ source: String(contentOf(expression, "RegExp")), flags: flagsOf.call(expression) }),
  shapeOf(object) {
    const keys = Object.keys(object);
    const prototype: unknown = Object.getPrototypeOf(object);
    if (prototype === null) return { kind: "null-proto", keys };
    const isData = keys.length > 0 || prototype === Object.prototype || tagOf(object) === "Object";
    return isData ? { kind: "plain", keys } : { kind: "not-plain" };
  },
  // Only what the view shows, and private: the buffer can be large, shared, or full of other people's data.
  viewInfo(view) {
    const { buffer, length } = plainBytes(view).slice();
    return { buffer, byteOffset: 0, byteLength: length, bufferByteLength: length };
  },
};

const READING: ParseOptions = {
  operations: {
    // Assigning would ask what `Object.prototype` has under that name.
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
        throw new Error("an expression that is too much for this thread");
      }
    },
  },
};

/** What stands for the value: itself, or what its `toJSON` returns, as with JSON.stringify. */
export function toData(value: unknown, key: unknown = ""): unknown {
  if (typeof value !== "object" || value === null) return value;
  const { toJSON } = value as { toJSON?: unknown };
  // Whoever forgot to wait is told so, whatever else a class of promises can do.
  if (typeof toJSON !== "function" || isThenable(value)) return value;
  const kind = kindOf(value);
  // All others come back as what they are.
  return kind === "Object" || kind === "Array" ? toJSON.call(value, String(key)) : value;
}

export function toText(value: object, reducers: Reducers): string {
  // A getter may store something meanwhile.
  const [outerLevels, outerKeys] = [levels, hasObjectKeys];
  levels = new Map([[value, 1]]);
  hasObjectKeys = false;
  try {
    const text = stringify(value, reducers, { operations: WRITING });
    if (hasObjectKeys && isTooDeep(JSON.parse(text))) throw tooDeep();
    return text;
  } catch (error) {
    if (!(error instanceof DevalueError)) throw error;
    const place = `value${error.path.replaceAll(PLACE_OF_OWN, "")}`.slice(0, TOLD);
    throw unstorable(error.value, place, error.value === value);
  } finally {
    [levels, hasObjectKeys] = [outerLevels, outerKeys];
  }
}

export function fromText(text: string, revivers: Reducers): unknown {
  try {
    const entries: unknown = JSON.parse(text);
    if (isTooDeep(entries)) throw unreadable(`it has more than ${DEEPEST} levels`);
    return unflatten(entries as unknown[], revivers, READING);
  } catch (error) {
    // Not the value's fault: the caller has not left enough stack.
    if (error instanceof CacheError || isStackOverflow(error)) throw error;
    throw unreadable(`this runtime does not know an object in it (${told(error)})`, error);
  }
}

/** Whether reading these entries takes too many calls within one another: references are followed in order, each once. */
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

/** Whether there is an entry with references at that place, which was not seen yet. */
function leadsOn(entries: unknown[], to: unknown, seen: Uint8Array): boolean {
  return typeof to === "number" && seen[to] === 0 && typeof entries[to] === "object" && entries[to] !== null;
}

// ---- errors --------------------------------------------------------------------------------------------------------

/** Always text: runtimes turn them into text when they make the `stack`, which is endless for some objects. */
const ERROR_TEXTS: readonly string[] = ["name", "message", "stack"];
/** Not enumerable either. */
const ERROR_PARTS: readonly string[] = ["cause", "errors", "error", "suppressed"];
/** What the runtime has. The last one gets its name and message from its constructor. */
const DOM_EXCEPTION = "DOMException";
const ERROR_KINDS: readonly string[] = [
  ..."Error EvalError RangeError ReferenceError SyntaxError TypeError URIError AggregateError SuppressedError".split(
    " ",
  ),
  DOM_EXCEPTION,
];
/** Under this name the other properties lie, apart from those above, which come before them. */
const OWN = "\0";
const PLACE_OF_OWN = `[${JSON.stringify(OWN)}]`;
/** By their data, which is revived twice when the error is part of its own cause. */
const revivedErrors: WeakMap<object, Error> = new WeakMap();

/** What is kept of an error. Of one with a `toJSON`, the properties that it returns and not its own. */
export function errorData(error: Error): object {
  const { toJSON } = error as { toJSON?: unknown };
  const json: unknown = typeof toJSON === "function" ? toJSON.call(error, "") : undefined;
  const own: Record<string, unknown> = { ...((typeof json === "object" && json) || error) };
  const data = { kind: errorKind(error) };
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

/** The nearest kind of error that every runtime has. */
function errorKind(error: object): string {
  for (let at: object | null = error; at !== null; at = Object.getPrototypeOf(at) as object | null) {
    const name: unknown = Object.hasOwn(at, "constructor") && at.constructor?.name;
    if (ERROR_KINDS.includes(name as string)) return name as string;
  }
  return "Error";
}

export function toError(data: unknown): Error {
  if (typeof data !== "object" || data === null || kindOf(data) !== "Object") throw new Error("an error of nothing");
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
      if (ERROR_TEXTS.includes(key) && !isText) throw new Error(`an error whose ${key} is no text`);
      const isThere = ERROR_TEXTS.includes(key) && error[key as keyof Error] === value;
      if (!isThere) define(error, key, value, isOwn);
    }
  }
  return error;
}

function newError(kind: unknown, { message, name }: Record<string, unknown>): Error {
  const Kinds = globalThis as unknown as Record<string, new (...args: unknown[]) => Error>;
  const Kind = ERROR_KINDS.includes(kind as string) ? Kinds[kind as string] : undefined;
  if (Kind === undefined) return new Error();
  if (kind === DOM_EXCEPTION) return new Kind(String(message ?? ""), String(name ?? "Error"));
  return kind === "AggregateError" ? new Kind([]) : new Kind();
}

// ---- messages ------------------------------------------------------------------------------------------------------

/** For a value that is there, but is not to be had here. */
export function unreadable(why: string, cause?: unknown): CacheError {
  const message = `The value cannot be read here: ${why}. Other entries are not affected; store this one anew, or delete it.`;
  return new CacheError("ERR_DATA", message, { cause });
}

/** For a value of a type that this runtime lacks. */
export function missing(type: string): CacheError {
  return unreadable(`it is a ${type}, which this runtime does not have`);
}

/** For what was given as a value, or is within one. */
export function unstorable(value: unknown, place: string, isWhole: boolean): Error {
  if (typeof value === "object" && value !== null) {
    if (Object.hasOwn(value, "__proto__")) {
      return new CacheError("ERR_DATA", `${place} has a property named __proto__, which cannot be stored. Rename it.`);
    }
    if (isThenable(value)) {
      const what = `${describe(value)}${tagOf(value) === "Promise" ? "" : " with a method named then"}`;
      return refusal(`${place} is ${what}, which cannot be stored. Await it, and store the result.`, isWhole);
    }
  }
  return refusal(`${place} is ${describe(value)}, which cannot be stored. Store plain data instead.`, isWhole);
}

/** A value that is no data at all is a wrong argument; what is found within one is a matter of the data. */
function refusal(message: string, isWhole: boolean): Error {
  return isWhole ? new TypeError(message) : new CacheError("ERR_DATA", message);
}

function tooDeep(): CacheError {
  return new CacheError("ERR_DATA", `value has more than ${DEEPEST} levels, which cannot be stored. Store it flatter.`);
}

/** The message of another error. */
export function told(error: unknown): string {
  return String((error as Error | undefined)?.message).slice(0, TOLD);
}

/** The bytes of a view, never as a `Buffer`. */
export function plainBytes(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

function define(object: object, key: PropertyKey, value: unknown, enumerable: boolean): void {
  Object.defineProperty(object, key, { value, enumerable, configurable: true, writable: true });
}
