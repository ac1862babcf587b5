/**
 * Values ↔ bytes. Every value becomes a type byte (`value-types.ts`) and bytes. Text, numbers and binary data go straight
 * into the target. Plain objects become JSON (`json.ts`). All other objects become text through the library `devalue`
 * (`structured.ts`), or bytes through the user's own `codec`. The bytes are part of the memory layout: a change of them, or
 * another major version of `devalue`, raises the layout version.
 *
 * Relies on `runtime.ts` for text and on `binary.ts` for binary data. Must not know where the bytes live.
 */

import { LIMIT_TYPE, NUMBER_TYPE } from "../engine/contract.ts";
import { binaryType, bytesOf, plainBytes, toBinary } from "./binary.ts";
import { classOf, describe, isStackOverflow, isThenable, typedArrayName } from "./describe.ts";
import { fromJson, toJson } from "./json.ts";
import { describeLimit } from "./limit.ts";
import { type Runtime, runtime, SHORT_TEXT } from "./runtime.ts";
import { errorData, fromText, type Reducers, toData, toError, toText } from "./structured.ts";
import { isWellFormed, WIDE } from "./text.ts";
import { quoted, unreadable, unstorable } from "./value-errors.ts";
import {
  ARRAY_BUFFER,
  BIGINT,
  BUFFER,
  CUSTOM,
  FALSE,
  JSON_TEXT,
  LAST_PRIMITIVE,
  LATIN1,
  NULL,
  STRUCTURED,
  TRUE,
  UTF8,
  UTF16,
} from "./value-types.ts";

/** Replaces JSON and `devalue`. Strings, numbers, booleans, bigints, `null` and bytes never reach it. */
export interface Codec {
  /**
   * @param value - an object that is not bytes: plain, array, Map, Date, class instance …
   * @returns its bytes. They are copied before anything else runs, so the memory may be reused.
   */
  encode(value: unknown): Uint8Array;
  /**
   * @param bytes - what {@link encode} returned, here or in another process: a private copy that may be kept.
   * @returns the value. An error that `decode` throws becomes the `cause` of an `ERR_DATA`.
   */
  decode(bytes: Uint8Array): unknown;
}

/**
 * Up to this many characters `encodeInto` comes first: its result also says whether the text is ASCII. That is faster than to
 * ask for the widest character first and then to write Latin-1.
 */
const ENCODE_TEXT = 512;
/** Below this many characters UTF-8 saves too little memory to be worth its slower decoding. */
const UTF8_TEXT = 64;
/** Text with more bytes of UTF-8 per character becomes UTF-16, which takes 2 and decodes several times faster. */
const UTF8_GROWTH = 1.5;

/**
 * Encodes and decodes the values of one cache in one thread. User code that encoding runs (getters, `toJSON`, a codec) may
 * call it again.
 */
export class ValueCodec {
  /** After {@link encode}: the value type, to be kept with the bytes. */
  type = 0;
  /**
   * After {@link encode}: `undefined` when the bytes are in the target, otherwise the bytes, because they did not fit. They
   * may be read until the next call, and must not be written to: they can be the caller's own array.
   */
  bytes: Uint8Array | undefined = undefined;

  readonly #custom: Codec | undefined;
  readonly #runtime: Runtime;
  readonly #reducers: Reducers;
  readonly #revivers: Reducers;
  #target: Uint8Array | undefined;
  #targetView: DataView | undefined;
  #source: Uint8Array | undefined;
  #sourceView: DataView | undefined;

  /**
   * @param custom - replaces JSON and `devalue`. Values of the other types are encoded as without it. Values that were stored
   * without it can still be read.
   * @param on - the runtime whose methods are used; only tests pass another than their own.
   * @throws {TypeError} naming `codec` when it lacks `encode` or `decode`.
   */
  constructor(custom?: Codec, on: Runtime = runtime) {
    if (custom !== undefined && (typeof custom?.encode !== "function" || typeof custom.decode !== "function")) {
      throw new TypeError("codec: must be an object with the functions encode and decode");
    }
    this.#custom = custom;
    this.#runtime = on;
    this.#reducers = {
      BigInt: (value) => typeof value === "bigint" && value.toString(16),
      Buffer: (value) => ArrayBuffer.isView(value) && on.isBuffer(value) && plainBytes(value),
      Error: (value) =>
        typeof value === "object" && value !== null && classOf(value) === "Error" && errorData(value as Error),
    };
    this.#revivers = {
      BigInt: toBigInt,
      Buffer: (bytes) => {
        if (typedArrayName(bytes) !== "Uint8Array") throw new Error("a Buffer without bytes");
        return on.adopt(bytes as Uint8Array);
      },
      Error: toError,
    };
  }

  /**
   * Turns a value into bytes, and sets {@link type} and {@link bytes}. Nothing is written to `target` before all user code
   * (getters, `toJSON`, the codec) has run, so this code may use the same cache.
   * @param value - anything but: `undefined`, functions, symbols, properties named `__proto__`, objects with a method named
   * `then`, and objects without content of their own, such as a WeakMap. A class instance becomes what its `toJSON` returns,
   * or else a plain object of its enumerable properties, without the private ones. A getter becomes what it returns. An error
   * becomes an error of the nearest class that every runtime has. Not kept: symbol keys; properties of arrays (also of the
   * matches of an expression), of Maps and the like; the `lastIndex` of an expression; that two views share an ArrayBuffer.
   * Of a view, only the bytes that it shows are stored.
   * @param target - where the bytes go if they fit; private or shared memory. Bytes after the value may be overwritten.
   * @returns the length in bytes.
   * @throws {TypeError} when `value` itself cannot be stored, or when `codec.encode` returns no bytes.
   * @throws {CacheError} `ERR_DATA` when something within `value` cannot be stored (the message names its place), or when
   * it has too many levels. Errors of getters, of `toJSON` and of the codec are passed on unchanged.
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
          return this.#place(NUMBER_TYPE, bytes, target);
        }
        this.type = NUMBER_TYPE;
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
        throw new TypeError("value: must not be undefined, which means a miss. Store null or delete the key.");
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
      const { read, written } = this.#runtime.encodeInto(text, target);
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
    this.#runtime.writeLatin1(text, this.#room(length, target), 0);
    return length;
  }

  #encodeWide(text: string, target: Uint8Array): number {
    const length = utf8Saves(text, this.#runtime);
    if (length === 0) return this.#encodeUtf16(text, target);
    this.type = UTF8;
    this.#runtime.writeUtf8(text, this.#room(length, target), 0);
    return length;
  }

  #encodeUtf16(text: string, target: Uint8Array): number {
    this.type = UTF16;
    this.#runtime.writeUtf16(text, this.#room(text.length * 2, target), 0);
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
    const binary = binaryType(value, this.#runtime);
    if (binary > 0) return this.#place(binary, bytesOf(value as ArrayBufferView | ArrayBuffer), target);
    if (this.#custom !== undefined) {
      if (isThenable(value)) throw unstorable(value, "value", true);
      const bytes: unknown = this.#custom.encode(value);
      if (typedArrayName(bytes) !== "Uint8Array") {
        throw new TypeError(`codec.encode: must return a Uint8Array, not ${describe(bytes)}`);
      }
      return this.#place(CUSTOM, bytes as Uint8Array, target);
    }
    const data = toData(value);
    // `toJSON` returned something that is not an object.
    if (typeof data !== "object" || data === null) return this.encode(data, target);
    const json = toJson(data);
    if (json !== undefined) return this.#encodeStructured(json, JSON_TEXT, target);
    return this.#encodeStructured(toText(data, this.#reducers), STRUCTURED, target);
  }

  #encodeStructured(text: string, type: number, target: Uint8Array): number {
    // Meanwhile a getter may have used this codec.
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
    this.bytes = this.#runtime.allocate(length);
    return this.bytes;
  }

  /**
   * Turns bytes back into the value. Any bytes are safe: wrong bytes become a value or an error, and nothing worse.
   * @param type - what {@link type} was after {@link encode}.
   * @param source - private or shared memory, which must not change during the call.
   * @param start - in bytes.
   * @param length - in bytes, as {@link encode} returned it.
   * @param owned - whether `source` is private memory that holds exactly the value, and that nobody else will use: then
   * binary data is returned without a copy.
   * @returns a new value. It does not share memory with `source`, unless `owned`.
   * @throws {CacheError} `ERR_DATA` for a value that this participant cannot read: bytes that no value has, a class that its
   * runtime lacks, a value that was stored with a `codec` when this participant has none, or a value that its `codec` cannot
   * decode (then the error of the codec is the `cause`).
   */
  decode(type: number, source: Uint8Array, start: number, length: number, owned = false): unknown {
    if (start + length > source.length) throw unreadable("its length exceeds its memory");
    switch (type) {
      case LATIN1:
        return this.#runtime.readLatin1(source, start, length);
      case NUMBER_TYPE:
        if (length !== 8) throw unreadable("it is a number that does not have 8 bytes");
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
        return this.#runtime.readUtf8(source, start, length);
      case UTF16:
        return this.#runtime.readUtf16(source, start, length);
      case BIGINT:
        return toBigInt(this.#runtime.readLatin1(source, start, length));
      case LIMIT_TYPE:
        return describeLimit(this.#viewOfSource(source, owned), start, length);
      case CUSTOM:
        if (this.#custom === undefined) {
          throw unreadable("it was stored with a codec, and this cache was opened without the option codec");
        }
        return decodeWith(this.#custom, owned ? source : this.#runtime.copy(source, start, length));
      default:
        if (type >= BUFFER && type <= ARRAY_BUFFER) return toBinary(type, source, start, length, this.#runtime, owned);
        throw unreadable(`its type ${type} is unknown`);
    }
  }

  /**
   * Whether values of this type are primitive. Nobody can change a primitive value, so one decoded value can serve many
   * readers.
   * @param type - what {@link type} was after {@link encode}.
   */
  isPrimitive(type: number): boolean {
    return type > 0 && type <= LAST_PRIMITIVE;
  }

  /** Whether values of this type are objects that were decoded from text. A copy of such an object runs no user code. */
  isStructured(type: number): boolean {
    return type > STRUCTURED && type < CUSTOM;
  }

  // The caller passes the same few arrays again and again, its scratch areas. Each view is kept until the array changes.
  #viewOfTarget(target: Uint8Array): DataView {
    if (this.#target !== target || this.#targetView === undefined) {
      // The view comes first: if the stack runs out in `viewOf`, the two fields still belong together.
      this.#targetView = viewOf(target);
      this.#target = target;
    }
    return this.#targetView;
  }

  #viewOfSource(source: Uint8Array, owned: boolean): DataView {
    // A view that was kept would keep memory alive that the caller gave away.
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

/** The length in bytes of UTF-8 if UTF-8 is the better choice for the text, or 0 if UTF-16 is. */
function utf8Saves(text: string, on: Runtime): number {
  if (text.length < UTF8_TEXT) return 0;
  const length = on.utf8Length(text);
  return length <= text.length * UTF8_GROWTH && isWellFormed(text) ? length : 0;
}

function toBigInt(text: unknown): bigint {
  try {
    const digits = text as string;
    return digits.startsWith("-") ? -BigInt(`0x${digits.slice(1)}`) : BigInt(`0x${digits}`);
  } catch (error) {
    throw unreadable("it is a bigint whose text is not digits", error);
  }
}

function decodeWith(codec: Codec, bytes: Uint8Array): unknown {
  try {
    return codec.decode(bytes);
  } catch (error) {
    if (isStackOverflow(error)) throw error;
    throw unreadable(`codec.decode says: ${quoted(error)}`, error);
  }
}
