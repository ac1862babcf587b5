/**
 * Values ↔ bytes. Every value becomes one type byte, which the record keeps, and its bytes: text, numbers and binary
 * data have types of their own and go straight into the target; everything else becomes text through the library
 * `devalue`, or bytes through the user's own `codec`. Types and bytes are part of the memory layout: whoever changes
 * them, or takes another major version of `devalue`, raises the layout version.
 *
 * Relies on `text.ts` for text. Must not know where the bytes live; numbers are little-endian, as are the typed arrays of
 * every host with WebAssembly.
 */
import { DevalueError, parse, type StringifyOperations, type StringifyOptions, stringify } from "devalue";
import { CacheError } from "./errors.ts";
import { describe, type Host, host, isWellFormed, SHORT_TEXT, typedArrayKind } from "./text.ts";

/** Replaces `devalue`. Strings, numbers, booleans, bigints, `null` and bytes never reach it. */
export interface Codec {
  /**
   * @param value - an object that is not bytes: plain, array, Map, Date, class instance …
   * @returns its bytes. They are copied before anything else runs, so the memory may be reused.
   */
  encode(value: unknown): Uint8Array;
  /**
   * @param bytes - what {@link encode} returned, here or in another process: a private copy that may be kept.
   * @returns the value.
   */
  decode(bytes: Uint8Array): unknown;
}

/** The type of a number, 8 bytes of float64: also what the engine writes for a counter. */
export const NUMBER_TYPE: number = 1;

// 0 stays unused, so that zeroed memory is never a value.
const NUMBER = 1;
const LATIN1 = 2;
const UTF8 = 3;
const UTF16 = 4;
const NULL = 5;
const TRUE = 6;
const FALSE = 7;
/** Decimal text. */
const BIGINT = 8;
const LAST_PRIMITIVE = BIGINT;
const BUFFER = 16;
const BYTES = 17;
const BYTE_KINDS = [
  "Buffer",
  "Uint8Array",
  "Uint8ClampedArray",
  "Int8Array",
  "Int16Array",
  "Uint16Array",
  "Int32Array",
  "Uint32Array",
  "Float16Array",
  "Float32Array",
  "Float64Array",
  "BigInt64Array",
  "BigUint64Array",
  "DataView",
  "ArrayBuffer",
] as const;
const LAST_BYTES: number = BUFFER + BYTE_KINDS.length - 1;
/** Added to the type of a text: the text is what `devalue` made of an object. */
const STRUCTURED = 32;
const CUSTOM = 48;

/** Up to here `encodeInto`, which also tells whether the text is ASCII, beats asking first and then writing Latin-1. */
const ENCODE_TEXT = 512;
/** Below this many characters UTF-8 saves too little memory to be worth its slower decoding. */
const UTF8_TEXT = 64;
/** Bytes of UTF-8 per character, at most: UTF-16 takes 2 and decodes several times faster. */
const UTF8_GROWTH = 1.5;

/** V8 answers this in constant time for strings it stores with one byte per character. */
const WIDE = /[^\0-\xff]/;
const encoder: TextEncoder = new TextEncoder();
const toTag: () => string = Object.prototype.toString;
const kindByName: Map<string, number> = new Map(BYTE_KINDS.map((name, index) => [name, BUFFER + index]));

/**
 * Encodes and decodes the values of one cache in one thread. May be re-entered by code that encoding runs: getters,
 * `toJSON`, a codec.
 */
export class ValueCodec {
  /** After {@link encode}: the type byte to keep with the bytes. */
  type = 0;
  /**
   * After {@link encode}: `undefined` when the bytes are in the target, otherwise the bytes, because they did not fit.
   * To be read only, and only until the next call: it can be the caller's own array.
   */
  bytes: Uint8Array | undefined = undefined;

  readonly #custom: Codec | undefined;
  readonly #host: Host;
  readonly #reducers: Reducers;
  readonly #revivers: Reducers;
  #target: Uint8Array | undefined;
  #targetView: DataView | undefined;
  #source: Uint8Array | undefined;
  #sourceView: DataView | undefined;

  /**
   * @param custom - replaces `devalue`; the types that have their own stay as they are. Values that were
   * stored without it can still be read.
   * @param on - the host whose primitives are used; only tests give another than their own.
   * @throws TypeError naming `codec` when it lacks `encode` or `decode`.
   */
  constructor(custom?: Codec, on: Host = host) {
    if (custom !== undefined && (typeof custom?.encode !== "function" || typeof custom.decode !== "function")) {
      throw new TypeError("codec must be an object with the functions encode and decode.");
    }
    this.#custom = custom;
    this.#host = on;
    this.#reducers = {
      Buffer: (value) => on.isBuffer(value) && plainBytes(value as Uint8Array),
      Error: (value) => isError(value) && errorData(value),
    };
    this.#revivers = {
      Buffer: (bytes) => {
        if (typedArrayKind(bytes) !== "Uint8Array") throw damaged("a Buffer without bytes");
        return on.adopt(bytes as Uint8Array);
      },
      Error: toError,
    };
  }

  /**
   * Turns a value into bytes; sets {@link type} and {@link bytes}. Nothing is written to `target` before all user code
   * (getters, `toJSON`, the codec) has run, so that this code may use the same cache.
   * @param value - anything but `undefined`, functions, symbols, properties named `__proto__` and objects without content
   * of their own, such as a Promise or a WeakMap. Class instances become what their `toJSON` returns, or else plain
   * objects of their enumerable properties; getters become what they return. Not kept: symbol keys, properties of arrays,
   * Maps and the like, the `lastIndex` of expressions, the one ArrayBuffer behind two views. The rest of a view's buffer
   * is not stored.
   * @param target - where the bytes go if they fit; private or shared. Bytes after the value may be overwritten.
   * @returns the length in bytes.
   * @throws TypeError naming the place within `value` that cannot be stored, or `codec.encode`.
   * @throws RangeError when the value is nested deeper than the stack of this thread allows.
   */
  encode(value: unknown, target: Uint8Array): number {
    this.bytes = undefined;
    switch (typeof value) {
      case "string":
        return this.#encodeText(value, target);
      case "number":
        if (target.length < 8) {
          const bytes = new Uint8Array(8);
          new DataView(bytes.buffer).setFloat64(0, value, true);
          return this.#place(NUMBER, bytes, target);
        }
        this.type = NUMBER;
        this.#viewOfTarget(target).setFloat64(0, value, true);
        return 8;
      case "boolean":
        this.type = value ? TRUE : FALSE;
        return 0;
      case "bigint":
        return this.#encodeBigInt(value, target);
      case "object":
        return this.#encodeObject(value, target);
      case "undefined":
        throw new TypeError("value is undefined, which means a miss. Store null, or delete the key.");
      default:
        throw unstorable(value, "value");
    }
  }

  #encodeText(text: string, target: Uint8Array): number {
    const length = text.length;
    if (length <= SHORT_TEXT && length <= target.length) {
      let i = 0;
      for (; i < length; i++) {
        const unit = text.charCodeAt(i);
        if (unit > 0xff) break;
        target[i] = unit;
      }
      if (i === length) {
        this.type = LATIN1;
        return length;
      }
      return this.#encodeWide(text, target);
    }
    if (length <= ENCODE_TEXT && length <= target.length) {
      const { read, written } = encoder.encodeInto(text, target);
      if (written === length && read === length) {
        this.type = LATIN1;
        return length;
      }
      if (WIDE.test(text)) {
        if (read < length) return this.#encodeWide(text, target);
        if (length < UTF8_TEXT || written > length * UTF8_GROWTH || !isWellFormed(text)) {
          return this.#encodeUtf16(text, target);
        }
        this.type = UTF8;
        return written;
      }
    } else if (WIDE.test(text)) return this.#encodeWide(text, target);
    this.type = LATIN1;
    this.#host.writeLatin1(text, this.#room(length, target), 0);
    return length;
  }

  #encodeWide(text: string, target: Uint8Array): number {
    const length = utf8Saves(text, this.#host);
    if (length === 0) return this.#encodeUtf16(text, target);
    this.type = UTF8;
    this.#host.writeUtf8(text, this.#room(length, target), 0);
    return length;
  }

  #encodeUtf16(text: string, target: Uint8Array): number {
    this.type = UTF16;
    this.#host.writeUtf16(text, this.#room(text.length * 2, target), 0);
    return text.length * 2;
  }

  #encodeBigInt(value: bigint, target: Uint8Array): number {
    const length = this.#encodeText(String(value), target);
    this.type = BIGINT;
    return length;
  }

  #encodeObject(value: object | null, target: Uint8Array): number {
    if (value === null) {
      this.type = NULL;
      return 0;
    }
    const kind = bytesKind(value, this.#host);
    if (kind > 0) return this.#place(kind, bytesOf(value as ArrayBufferView | ArrayBuffer), target);
    if (this.#custom !== undefined) {
      const bytes: unknown = this.#custom.encode(value);
      if (typedArrayKind(bytes) !== "Uint8Array") {
        throw new TypeError(`codec.encode must return a Uint8Array, not ${describe(bytes)}.`);
      }
      return this.#place(CUSTOM, bytes as Uint8Array, target);
    }
    const data = toData(value);
    // What `toJSON` returned; like JSON.stringify, it is asked once.
    if (typeof data !== "object" || data === null) return this.encode(data, target);
    const text = toText(data, this.#reducers);
    // A getter may have encoded something with this codec meanwhile.
    this.bytes = undefined;
    const length = this.#encodeText(text, target);
    this.type += STRUCTURED;
    return length;
  }

  #place(type: number, bytes: Uint8Array, target: Uint8Array): number {
    this.type = type;
    if (bytes.length <= target.length) {
      target.set(bytes);
      this.bytes = undefined;
    } else this.bytes = bytes;
    return bytes.length;
  }

  #room(length: number, target: Uint8Array): Uint8Array {
    if (length <= target.length) return target;
    this.bytes = this.#host.allocate(length);
    return this.bytes;
  }

  /**
   * Turns bytes back into the value. Any bytes are safe: the worst that wrong ones do is to throw.
   * @param type - what {@link type} was after {@link encode}.
   * @param source - private or shared memory, which must not change meanwhile.
   * @param start - in bytes.
   * @param length - in bytes, as {@link encode} returned it.
   * @param owned - whether `source` is private memory that nobody else will use any more, and exactly the value: then
   * bytes are returned without copying them once more.
   * @returns a value of its own: it never aliases `source`, unless that is `owned`.
   * @throws CacheError `ERR_LAYOUT` for bytes that no value has; `ERR_UNSUPPORTED` for a value this participant cannot
   * read: written with a `codec` it does not have, or of a type its runtime lacks.
   */
  decode(type: number, source: Uint8Array, start: number, length: number, owned = false): unknown {
    if (start + length > source.length) throw damaged("a length beyond its memory");
    switch (type) {
      case LATIN1:
        return this.#host.readLatin1(source, start, length);
      case NUMBER:
        if (length !== 8) throw damaged("a number of another length than 8 bytes");
        return this.#viewOfSource(source, owned).getFloat64(start, true);
      case STRUCTURED + LATIN1:
      case STRUCTURED + UTF8:
      case STRUCTURED + UTF16:
        return fromText(this.decode(type - STRUCTURED, source, start, length) as string, this.#revivers);
      case NULL:
        return null;
      case TRUE:
        return true;
      case FALSE:
        return false;
      case UTF8:
        return this.#host.readUtf8(source, start, length);
      case UTF16:
        return this.#host.readUtf16(source, start, length);
      case BIGINT:
        return toBigInt(this.#host.readLatin1(source, start, length));
      case CUSTOM:
        if (this.#custom === undefined) {
          throw new CacheError(
            "ERR_UNSUPPORTED",
            "The value was stored with a codec, and this cache was opened without one. Open it with the same codec everywhere.",
          );
        }
        return this.#custom.decode(owned ? source : this.#host.copy(source, start, length));
      default:
        if (type >= BUFFER && type <= LAST_BYTES) return toBytes(type, source, start, length, this.#host, owned);
        throw damaged(`the unknown type ${type}`);
    }
  }

  /**
   * Whether values of this type cannot be changed by whoever gets them: one decoded value may then serve many readers.
   * @param type - what {@link type} was after {@link encode}.
   */
  isCacheable(type: number): boolean {
    return type > 0 && type <= LAST_PRIMITIVE;
  }

  // Both views are made once for the few arrays that are used again and again: the scratch areas.
  #viewOfTarget(target: Uint8Array): DataView {
    if (this.#target !== target || this.#targetView === undefined) {
      this.#target = target;
      this.#targetView = viewOf(target);
    }
    return this.#targetView;
  }

  #viewOfSource(source: Uint8Array, owned: boolean): DataView {
    // What the caller gave away must not be kept alive by a view.
    if (owned) return viewOf(source);
    if (this.#source !== source || this.#sourceView === undefined) {
      this.#source = source;
      this.#sourceView = viewOf(source);
    }
    return this.#sourceView;
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Mostly ASCII text would double in UTF-16. Answers the length in UTF-8, or 0 when UTF-16 is the better choice. */
function utf8Saves(text: string, on: Host): number {
  if (text.length < UTF8_TEXT) return 0;
  const length = on.utf8Length(text);
  return length <= text.length * UTF8_GROWTH && isWellFormed(text) ? length : 0;
}

function damaged(found: string, cause?: unknown): CacheError {
  return new CacheError(
    "ERR_LAYOUT",
    `The stored value cannot be decoded: ${found} was found. It is damaged: store it anew.`,
    { cause },
  );
}

function unstorable(value: unknown, place: string): TypeError {
  return new TypeError(`${place} is ${describe(value)}, which cannot be stored. Store plain data instead.`);
}

// ---- bytes ---------------------------------------------------------------------------------------------------------

/** The type of bytes, or 0 for anything else. */
function bytesKind(value: object, on: Host): number {
  if (ArrayBuffer.isView(value)) {
    if (on.isBuffer(value)) return BUFFER;
    return kindByName.get(typedArrayKind(value) ?? "DataView") ?? 0;
  }
  // The tag finds ArrayBuffers of other realms, too, but costs too much to be asked for each plain object or array.
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === Array.prototype) return 0;
  return toTag.call(value) === "[object ArrayBuffer]" ? LAST_BYTES : 0;
}

function bytesOf(value: ArrayBufferView | ArrayBuffer): Uint8Array {
  if (value instanceof Uint8Array) return value;
  return ArrayBuffer.isView(value) ? plainBytes(value) : new Uint8Array(value);
}

/** The bytes of a view, never as a `Buffer`. */
function plainBytes(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

type TypedArrayConstructor = (new (buffer: ArrayBufferLike) => ArrayBufferView) & { BYTES_PER_ELEMENT?: number };

function toBytes(type: number, source: Uint8Array, start: number, length: number, on: Host, owned: boolean): object {
  const whole = owned && start === 0 && length === source.buffer.byteLength;
  if (type === BUFFER) return whole ? on.adopt(source) : on.copy(source, start, length);
  const bytes = whole ? new Uint8Array(source.buffer) : new Uint8Array(source.subarray(start, start + length));
  // Before its buffer is asked for: small arrays do without one until then.
  if (type === BYTES) return bytes;
  const { buffer } = bytes;
  if (type === LAST_BYTES) return buffer;
  const name = BYTE_KINDS[type - BUFFER] as string;
  const View = (globalThis as unknown as Record<string, TypedArrayConstructor | undefined>)[name];
  if (View === undefined) {
    throw new CacheError("ERR_UNSUPPORTED", `The value is a ${name}, which this runtime does not have.`);
  }
  if (length % (View.BYTES_PER_ELEMENT ?? 1) !== 0) throw damaged(`a ${name} with a part of an element`);
  return new View(buffer);
}

// ---- structured data -----------------------------------------------------------------------------------------------

/** What `devalue` calls reducers, and revivers the other way. */
type Reducers = Record<string, (value: unknown) => unknown>;

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
function toData(value: unknown, key: unknown = ""): unknown {
  if (typeof value !== "object" || value === null) return value;
  const { toJSON } = value as { toJSON?: unknown };
  return typeof toJSON !== "function" || KEPT.test(toTag.call(value)) ? value : toJSON.call(value, String(key));
}

function toText(value: object, reducers: Reducers): string {
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

function fromText(text: string, revivers: Reducers): unknown {
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

function isError(value: unknown): value is Error {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === Array.prototype) return false;
  return value instanceof Error || toTag.call(value) === "[object Error]";
}

function errorData(error: Error): object {
  const data: Record<string, unknown> = {};
  for (const key of ERROR_PROPERTIES) {
    const value: unknown = error[key as keyof Error];
    if (value !== undefined) data[key] = ERROR_TEXTS.includes(key) ? String(value) : value;
  }
  // Twice: the first settles the order, the second the values.
  return { ...data, ...error, ...data };
}

function toError(data: unknown): Error {
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

function toBigInt(text: string): bigint {
  try {
    return BigInt(text);
  } catch (error) {
    throw damaged("something else than the digits of a bigint", error);
  }
}

function define(object: object, key: string, value: unknown, enumerable: boolean): void {
  Object.defineProperty(object, key, { value, enumerable, configurable: true, writable: true });
}

// ---- sharing decoded objects ---------------------------------------------------------------------------------------

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
      for (const method of methods) define(object, method, refuse, false);
    }
    for (const key of Object.getOwnPropertyNames(object)) add((object as Record<string, unknown>)[key]);
    Object.freeze(object);
  }
  return complete;
}

function refuse(): never {
  throw new TypeError("The value is shared with others and frozen. Change a copy of it.");
}
