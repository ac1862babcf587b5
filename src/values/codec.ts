/**
 * Values ↔ bytes. Every value becomes one type byte, which the record keeps, and its bytes: text, numbers and binary
 * data have types of their own and go straight into the target; plain objects become JSON; everything else becomes text
 * through the library `devalue`, or bytes through the user's own `codec`. Types and bytes are part of the memory layout:
 * whoever changes them, or takes another major version of `devalue`, raises the layout version.
 *
 * Relies on `text.ts` for text. Must not know where the bytes live; numbers are little-endian, as are the typed arrays of
 * every host with WebAssembly.
 */

import { isStackOverflow, isThenable, kindOf } from "./describe.ts";
import { fromJson, toJson } from "./json.ts";
import { describe, type Host, host, isWellFormed, SHORT_TEXT, typedArrayKind } from "./runtime.ts";
import {
  errorData,
  fromText,
  missing,
  plainBytes,
  type Reducers,
  toData,
  toError,
  told,
  toText,
  unreadable,
  unstorable,
} from "./structured.ts";

/** Replaces JSON and `devalue`. Strings, numbers, booleans, bigints, `null` and bytes never reach it. */
export interface Codec {
  /**
   * @param value - an object that is not bytes: plain, array, Map, Date, class instance …
   * @returns its bytes. They are copied before anything else runs, so the memory may be reused.
   */
  encode(value: unknown): Uint8Array;
  /**
   * @param bytes - what {@link encode} returned, here or in another process: a private copy that may be kept.
   * @returns the value. What it throws becomes the `cause` of an `ERR_DATA`.
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
/** Hexadecimal text, which is read and written in time that depends on its length; decimal text takes much longer. */
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
/** Added to the type of a text: the text is the JSON of an object. */
const JSON_TEXT = 40;
const CUSTOM = 48;

/** Up to here `encodeInto`, which also tells whether the text is ASCII, beats asking first and then writing Latin-1. */
const ENCODE_TEXT = 512;
/** Below this many characters UTF-8 saves too little memory to be worth its slower decoding. */
const UTF8_TEXT = 64;
/** Bytes of UTF-8 per character, at most: UTF-16 takes 2 and decodes several times faster. */
const UTF8_GROWTH = 1.5;

/** V8 answers this in constant time for strings it stores with one byte per character. */
const WIDE = /[^\0-\xff]/;
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
   * @param custom - replaces JSON and `devalue`; the types that have their own stay as they are. Values that were
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
      BigInt: (value) => typeof value === "bigint" && value.toString(16),
      Buffer: (value) => ArrayBuffer.isView(value) && on.isBuffer(value) && plainBytes(value),
      Error: (value) =>
        typeof value === "object" && value !== null && kindOf(value) === "Error" && errorData(value as Error),
    };
    this.#revivers = {
      BigInt: toBigInt,
      Buffer: (bytes) => {
        if (typedArrayKind(bytes) !== "Uint8Array") throw new Error("a Buffer without bytes");
        return on.adopt(bytes as Uint8Array);
      },
      Error: toError,
    };
  }

  /**
   * Turns a value into bytes; sets {@link type} and {@link bytes}. Nothing is written to `target` before all user code
   * (getters, `toJSON`, the codec) has run, so that this code may use the same cache.
   * @param value - anything but `undefined`, functions, symbols, properties named `__proto__`, what has a method named
   * `then`, and objects without content of their own, such as a WeakMap. Class instances become what their `toJSON`
   * returns, or else plain objects of their enumerable properties, without private ones; getters become what they return.
   * Errors stay errors, of the nearest kind that every runtime has. Not kept: symbol keys, properties of arrays (also those
   * of matches), Maps and the like, the `lastIndex` of expressions, the one ArrayBuffer behind two views. The rest of a
   * view's buffer is not stored.
   * @param target - where the bytes go if they fit; private or shared. Bytes after the value may be overwritten.
   * @returns the length in bytes.
   * @throws TypeError when `value` is no data at all, or naming `codec.encode`.
   * @throws CacheError `ERR_DATA` naming the place within `value` that cannot be stored, or that it has too many levels.
   * An error of a getter, of a `toJSON` and of the codec passes as it is.
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
        throw unstorable(value, "value", true);
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
      const { read, written } = this.#host.encodeInto(text, target);
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
    const length = this.#encodeText(value.toString(16), target);
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
      if (isThenable(value)) throw unstorable(value, "value", true);
      const bytes: unknown = this.#custom.encode(value);
      if (typedArrayKind(bytes) !== "Uint8Array") {
        throw new TypeError(`codec.encode must return a Uint8Array, not ${describe(bytes)}.`);
      }
      return this.#place(CUSTOM, bytes as Uint8Array, target);
    }
    const data = toData(value);
    // What `toJSON` returned; like JSON.stringify, it is asked once.
    if (typeof data !== "object" || data === null) return this.encode(data, target);
    const json = toJson(data);
    if (json !== undefined) return this.#encodeStructured(json, JSON_TEXT, target);
    return this.#encodeStructured(toText(data, this.#reducers), STRUCTURED, target);
  }

  #encodeStructured(text: string, type: number, target: Uint8Array): number {
    // A getter may have encoded something with this codec meanwhile.
    this.bytes = undefined;
    const length = this.#encodeText(text, target);
    this.type += type;
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
   * @throws CacheError `ERR_DATA` for a value this participant cannot read: bytes that no value has, a type that its runtime
   * lacks, a value of a `codec` that it does not have, or one that its `codec` does not decode (the error of that is the
   * `cause`).
   */
  decode(type: number, source: Uint8Array, start: number, length: number, owned = false): unknown {
    if (start + length > source.length) throw unreadable("its length goes beyond its memory");
    switch (type) {
      case LATIN1:
        return this.#host.readLatin1(source, start, length);
      case NUMBER:
        if (length !== 8) throw unreadable("it is a number of another length than 8 bytes");
        return this.#viewOfSource(source, owned).getFloat64(start, true);
      case STRUCTURED + LATIN1:
      case STRUCTURED + UTF8:
      case STRUCTURED + UTF16:
        return fromText(this.decode(type - STRUCTURED, source, start, length) as string, this.#revivers);
      case JSON_TEXT + LATIN1:
      case JSON_TEXT + UTF8:
      case JSON_TEXT + UTF16:
        return fromJson(this.decode(type - JSON_TEXT, source, start, length) as string);
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
          throw unreadable("it was stored with a codec, which this cache was opened without (codec is an option)");
        }
        return decodeWith(this.#custom, owned ? source : this.#host.copy(source, start, length));
      default:
        if (type >= BUFFER && type <= LAST_BYTES) return toBytes(type, source, start, length, this.#host, owned);
        throw unreadable(`it is of the unknown type ${type}`);
    }
  }

  /**
   * Whether values of this type cannot be changed by whoever gets them: one decoded value may then serve many readers.
   * @param type - what {@link type} was after {@link encode}.
   */
  isPrimitive(type: number): boolean {
    return type > 0 && type <= LAST_PRIMITIVE;
  }

  /** Whether values of this type are objects that were made by decoding text, and so run nobody's code when copied. */
  isStructured(type: number): boolean {
    return type > STRUCTURED && type < CUSTOM;
  }

  // Both views are made once for the few arrays that are used again and again: the scratch areas.
  #viewOfTarget(target: Uint8Array): DataView {
    if (this.#target !== target || this.#targetView === undefined) {
      // The view first: where the stack ends between the two, the old pair stays.
      this.#targetView = viewOf(target);
      this.#target = target;
    }
    return this.#targetView;
  }

  #viewOfSource(source: Uint8Array, owned: boolean): DataView {
    // What the caller gave away must not be kept alive by a view.
    if (owned) return viewOf(source);
    if (this.#source !== source || this.#sourceView === undefined) {
      this.#sourceView = viewOf(source);
      this.#source = source;
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

// ---- bytes ---------------------------------------------------------------------------------------------------------

/** The type of bytes, or 0 for anything else. */
function bytesKind(value: object, on: Host): number {
  if (ArrayBuffer.isView(value)) {
    if (on.isBuffer(value)) return BUFFER;
    return kindByName.get(typedArrayKind(value) ?? "DataView") ?? 0;
  }
  return kindOf(value) === "ArrayBuffer" ? LAST_BYTES : 0;
}

function bytesOf(value: ArrayBufferView | ArrayBuffer): Uint8Array {
  if (value instanceof Uint8Array) return value;
  return ArrayBuffer.isView(value) ? plainBytes(value) : new Uint8Array(value);
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
  if (View === undefined) throw missing(name);
  if (length % (View.BYTES_PER_ELEMENT ?? 1) !== 0) throw unreadable(`it is a ${name} with a part of an element`);
  return new View(buffer);
}

function toBigInt(text: unknown): bigint {
  try {
    const digits = text as string;
    return digits.startsWith("-") ? -BigInt(`0x${digits.slice(1)}`) : BigInt(`0x${digits}`);
  } catch (error) {
    throw unreadable("it is a bigint of something else than digits", error);
  }
}

function decodeWith(codec: Codec, bytes: Uint8Array): unknown {
  try {
    return codec.decode(bytes);
  } catch (error) {
    if (isStackOverflow(error)) throw error;
    throw unreadable(`codec.decode says: ${told(error)}`, error);
  }
}
