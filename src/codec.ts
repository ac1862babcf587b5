/**
 * Values ↔ bytes. Every value becomes one type byte, which the record keeps, and its bytes: text, numbers and binary
 * data have types of their own and go straight into the target; everything else is one structured encoding, or the
 * user's own `codec`.
 *
 * The structured encoding is ours because none at hand keeps the promise "a value comes back as it was" in Node.js and
 * in browsers alike: it keeps -0, lone surrogates, `__proto__` keys, holes, cycles and bigints of any size, refuses what
 * it cannot keep instead of dropping it, runs no code made from data, and reads any bytes within time and memory
 * proportional to their number. Its bytes are part of the memory layout: whoever changes them raises the layout version.
 *
 * Relies on `key.ts` for text. Must not know where the bytes live; numbers are little-endian, as are the typed arrays of
 * every host with WebAssembly.
 */
import { CacheError } from "./errors.ts";
import { describe, type Host, host, isWellFormed, typedArrayKind } from "./key.ts";

/** Replaces the structured encoding. Strings, numbers, booleans, bigints, `null` and bytes never reach it. */
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

// Type bytes of records; the structured encoding uses the same ones for what it contains. 0 stays unused, so that
// zeroed memory is never a value.
const NUMBER = 1;
const LATIN1 = 2;
const UTF8 = 3;
const UTF16 = 4;
const NULL = 5;
const TRUE = 6;
const FALSE = 7;
const INT64 = 8;
const POSITIVE = 9;
const NEGATIVE = 10;
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
const STRUCTURED = 32;
const CUSTOM = 33;

// Tags that only occur inside the structured encoding.
const UNDEFINED = 34;
/** varint: that many array items do not exist. */
const HOLES = 35;
/** varint: the n-th object of this value, in the order of their tags. */
const REFERENCE = 36;
/** varint length, items. */
const ARRAY = 37;
/** varint count, keys, values. */
const DICTIONARY = 38;
/** u16 length of the key block, the key block (u8 count, keys), values. Defines the next shape. */
const SHAPE = 39;
/** varint number of a shape defined before, values. */
const SHAPED = 40;
/** Keys and values in turn, END. */
const MAP = 41;
/** Items, END. */
const SET = 42;
const END = 43;
/** float64 milliseconds. */
const DATE = 44;
/** Source, flags. */
const REGEXP = 45;
/** Name, then property name and value in turn, END. */
const ERROR = 46;
/** Zigzag varint: a 32-bit integer. */
const INTEGER = 47;
/** 64 to 127: Latin-1 text of 0 to 63 characters. */
const SHORT_TEXT = 64;
/** 128 to 255: the integers 0 to 127. */
const SMALL_INTEGER = 128;

/** Deep enough for data; not yet optimised, it takes about a quarter of the default stack. */
const DEPTH_LIMIT = 500;
/** Up to this many characters a loop beats a call into the host. */
const LOOP_TEXT = 20;
/** Up to here `encodeInto`, which also tells whether the text is ASCII, beats asking first and then writing Latin-1. */
const ENCODE_TEXT = 512;
/** Below this many characters UTF-8 saves too little memory to be worth its slower decoding. */
const UTF8_TEXT = 64;
/** Bytes of UTF-8 per character, at most: UTF-16 takes 2 and decodes several times faster. */
const UTF8_GROWTH = 1.5;
/** V8 copies shorter substrings; longer ones would keep the whole window alive. */
const SUBSTRING_TEXT = 13;
/** Bytes of text decoded at once to cut short strings from. */
const WINDOW = 1024;
/** Objects with more keys, or more characters in them, are dictionaries rather than shapes. */
const SHAPE_KEYS = 32;
const SHAPE_TEXT = 1024;
/** Shapes remembered between values, each way. A power of two. */
const SHAPES = 256;
/** Up to this many objects a scan is faster than a Map. */
const SCANNED_OBJECTS = 16;
/** So many missing items are made one by one; more make the array sparse. */
const FEW_HOLES = 16;
const LAST_INDEX: number = 2 ** 32 - 2;

/** V8 answers this in constant time for strings it stores with one byte per character. */
const WIDE = /[^\0-\xff]/;
const encoder: TextEncoder = new TextEncoder();
const toTag: () => string = Object.prototype.toString;
const kindByName: Map<string, number> = new Map(BYTE_KINDS.map((name, index) => [name, BUFFER + index]));

/**
 * Encodes and decodes the values of one cache in one thread. Holds buffers that are reused, so it is not for sharing
 * between caches with different codecs, but may be re-entered by code that encoding runs (getters, `toJSON`, a codec).
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
  readonly #writer: Writer;
  readonly #reader: Reader;
  #writing = false;
  #target: Uint8Array | undefined;
  #targetView: DataView | undefined;
  #source: Uint8Array | undefined;
  #sourceView: DataView | undefined;

  /**
   * @param custom - replaces the structured encoding; the types that have their own stay as they are. Values that were
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
    this.#writer = new Writer(on);
    this.#reader = new Reader(on);
  }

  /**
   * Turns a value into bytes; sets {@link type} and {@link bytes}. Nothing is written to `target` before all user code
   * (getters, `toJSON`, the codec) has run, so that this code may use the same cache.
   * @param value - anything but `undefined`, functions, symbols and objects without content of their own, such as a
   * Promise or a WeakMap. Class instances become what their `toJSON` returns, or else plain objects of their enumerable
   * properties; getters become what they return. Not kept: symbol keys, properties of arrays, Maps and the like, the
   * `lastIndex` of expressions, the one ArrayBuffer behind two views. The rest of a view's buffer is not stored.
   * @param target - where the bytes go if they fit; private or shared. Bytes after the value may be overwritten.
   * @returns the length in bytes.
   * @throws TypeError naming the place within `value` that cannot be stored, or `codec.encode`.
   * @throws RangeError when the value is nested more than 500 levels deep.
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
    if (length <= LOOP_TEXT && length <= target.length) {
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
    if (target.length >= 8 && BigInt.asIntN(64, value) === value) {
      this.type = INT64;
      this.#viewOfTarget(target).setBigInt64(0, value, true);
      return 8;
    }
    return this.#place(value < 0n ? NEGATIVE : POSITIVE, magnitude(value), target);
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
    // User code may come back here: the inner value gets an encoder of its own.
    const writer = this.#writing ? new Writer(this.#host) : this.#writer;
    const outer = this.#writing;
    this.#writing = true;
    let bytes: Uint8Array;
    try {
      bytes = writer.write(value);
    } finally {
      this.#writing = outer;
    }
    // What did not fit keeps its buffer, and a writer only ever keeps one that is in proportion to the target.
    if (bytes.length > target.length) writer.release();
    return this.#place(STRUCTURED, bytes, target);
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
      case STRUCTURED:
        return this.#reader.read(source, this.#viewOfSource(source, owned), start, length);
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
      case INT64:
        if (length !== 8) throw damaged("an integer of another length than 8 bytes");
        return this.#viewOfSource(source, owned).getBigInt64(start, true);
      case POSITIVE:
        return fromMagnitude(source, start, length);
      case NEGATIVE:
        return -fromMagnitude(source, start, length);
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
    return type > 0 && type <= NEGATIVE;
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
  const options = cause === undefined ? undefined : { cause };
  return new CacheError(
    "ERR_LAYOUT",
    `The stored value cannot be decoded: ${found} was found. It is damaged: store it anew.`,
    options,
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
  return ArrayBuffer.isView(value)
    ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
    : new Uint8Array(value);
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

// ---- bigints: big-endian, because hexadecimal text is the one conversion whose time grows linearly -----------------

function magnitude(value: bigint): Uint8Array {
  const text = (value < 0n ? -value : value).toString(16);
  const bytes = new Uint8Array((text.length + 1) >>> 1);
  for (let at = bytes.length, end = text.length; end > 0; end -= 2) {
    bytes[--at] = Number.parseInt(text.slice(Math.max(0, end - 2), end), 16);
  }
  return bytes;
}

function fromMagnitude(source: Uint8Array, start: number, length: number): bigint {
  const digits: string[] = ["0x0"];
  for (let i = start; i < start + length; i++) digits.push(HEX[source[i] as number] as string);
  try {
    return BigInt(digits.join(""));
  } catch (error) {
    throw damaged("a bigint beyond the limit of this runtime", error);
  }
}

const HEX: readonly string[] = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

// ---- the structured encoding ---------------------------------------------------------------------------------------

/** A set of keys that was seen before. Numbered anew in every value that uses it. */
interface Shape {
  readonly keys: readonly string[];
  /** The encoded key block, kept from the second value on. */
  block: Uint8Array | undefined;
  /** The value in which `id` counts. */
  epoch: number;
  id: number;
}

/** Places on the trail to an item that has no property name. */
const MAP_KEY = -1;
const MAP_VALUE = -2;
const SET_ITEM = -3;
const PLACES: Readonly<Record<number, string>> = {
  [MAP_KEY]: "<Map key>",
  [MAP_VALUE]: "<Map value>",
  [SET_ITEM]: "<Set item>",
};

/** Properties of errors that are not enumerable, and are told apart by name. `name` itself is stored separately. */
const ERROR_PROPERTIES: readonly string[] = ["message", "stack", "cause", "errors"];

class Writer {
  readonly #host: Host;
  #bytes: Uint8Array;
  #view: DataView;
  #at = 0;
  #depth = 0;
  /** How the value at each depth was reached, for error messages. */
  readonly #trail: (string | number)[] = [];
  readonly #seen: object[] = [];
  #seenMap: Map<object, number> | undefined;
  readonly #shapes: (Shape | undefined)[] = new Array(SHAPES).fill(undefined);
  #shapeCount = 0;
  #epoch = 0;

  constructor(on: Host) {
    this.#host = on;
    this.#bytes = on.allocate(4096);
    this.#view = viewOf(this.#bytes);
  }

  /** Returns a part of the private buffer: it is good until the next call. */
  write(value: object): Uint8Array {
    this.#at = 0;
    this.#depth = 0;
    this.#shapeCount = 0;
    this.#epoch++;
    let done = false;
    try {
      this.#value(value);
      done = true;
    } finally {
      this.#seen.length = 0;
      this.#seenMap = undefined;
      // A value that failed may have been as large as it liked.
      if (!done) this.release();
    }
    return this.#bytes.subarray(0, this.#at);
  }

  /** Leaves the buffer to whoever holds the last result. */
  release(): void {
    this.#bytes = this.#host.allocate(4096);
    this.#view = viewOf(this.#bytes);
  }

  #reserve(length: number): void {
    const needed = this.#at + length;
    if (needed <= this.#bytes.length) return;
    const larger = this.#host.allocate(Math.max(needed, this.#bytes.length * 2));
    larger.set(this.#bytes.subarray(0, this.#at));
    this.#bytes = larger;
    this.#view = viewOf(larger);
  }

  #tag(tag: number): void {
    this.#reserve(1);
    this.#bytes[this.#at++] = tag;
  }

  #varint(tag: number, value: number): void {
    this.#reserve(6);
    this.#bytes[this.#at++] = tag;
    let rest = value;
    while (rest > 0x7f) {
      this.#bytes[this.#at++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.#bytes[this.#at++] = rest;
  }

  #value(value: unknown): void {
    switch (typeof value) {
      case "string":
        this.#text(value);
        break;
      case "number":
        this.#number(value);
        break;
      case "object":
        if (value === null) this.#tag(NULL);
        else this.#object(value);
        break;
      case "boolean":
        this.#tag(value ? TRUE : FALSE);
        break;
      case "undefined":
        this.#tag(UNDEFINED);
        break;
      case "bigint":
        this.#bigint(value);
        break;
      default:
        throw unstorable(value, this.#place());
    }
  }

  #number(value: number): void {
    const integer = value | 0;
    if (integer !== value || (value === 0 && 1 / value < 0)) {
      this.#reserve(9);
      this.#bytes[this.#at] = NUMBER;
      this.#view.setFloat64(this.#at + 1, value, true);
      this.#at += 9;
    } else if (integer >= 0 && integer < 128) this.#tag(SMALL_INTEGER | integer);
    else this.#varint(INTEGER, ((integer << 1) ^ (integer >> 31)) >>> 0);
  }

  #bigint(value: bigint): void {
    if (BigInt.asIntN(64, value) === value) {
      this.#reserve(9);
      this.#bytes[this.#at] = INT64;
      this.#view.setBigInt64(this.#at + 1, value, true);
      this.#at += 9;
    } else this.#blob(value < 0n ? NEGATIVE : POSITIVE, magnitude(value));
  }

  #blob(tag: number, bytes: Uint8Array): void {
    this.#varint(tag, bytes.length);
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  #text(text: string): void {
    const length = text.length;
    if (length <= LOOP_TEXT) {
      this.#reserve(1 + length);
      const bytes = this.#bytes;
      let at = this.#at;
      bytes[at++] = SHORT_TEXT | length;
      for (let i = 0; i < length; i++) {
        const unit = text.charCodeAt(i);
        if (unit > 0xff) {
          this.#wideText(text);
          return;
        }
        bytes[at++] = unit;
      }
      this.#at = at;
    } else if (WIDE.test(text)) this.#wideText(text);
    else {
      if (length < 64) this.#tag(SHORT_TEXT | length);
      else this.#varint(LATIN1, length);
      this.#reserve(length);
      this.#host.writeLatin1(text, this.#bytes, this.#at);
      this.#at += length;
    }
  }

  #wideText(text: string): void {
    const utf8 = utf8Saves(text, this.#host);
    const length = utf8 > 0 ? utf8 : text.length * 2;
    this.#varint(utf8 > 0 ? UTF8 : UTF16, length);
    this.#reserve(length);
    if (utf8 > 0) this.#host.writeUtf8(text, this.#bytes, this.#at);
    else this.#host.writeUtf16(text, this.#bytes, this.#at);
    this.#at += length;
  }

  #object(value: object): void {
    const known = this.#known(value);
    if (known >= 0) {
      this.#varint(REFERENCE, known);
      return;
    }
    if (++this.#depth > DEPTH_LIMIT) {
      throw new RangeError(
        `value is nested more than ${DEPTH_LIMIT} levels deep. Store it flatter, or open the cache with a codec.`,
      );
    }
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype === Object.prototype) this.#properties(value as Record<string, unknown>);
    else if (Array.isArray(value)) this.#array(value);
    else if (prototype === null) this.#properties(value as Record<string, unknown>);
    else this.#special(value);
    this.#depth--;
  }

  /** The number of an object that was written before; otherwise it is given the next one. */
  #known(value: object): number {
    const seen = this.#seen;
    if (this.#seenMap === undefined) {
      for (let i = 0; i < seen.length; i++) if (seen[i] === value) return i;
      seen.push(value);
      if (seen.length > SCANNED_OBJECTS) this.#seenMap = new Map(seen.map((object, index) => [object, index]));
      return -1;
    }
    const known = this.#seenMap.get(value);
    if (known !== undefined) return known;
    this.#seenMap.set(value, this.#seenMap.size);
    return -1;
  }

  #properties(value: Record<string, unknown>): void {
    const keys = Object.keys(value);
    this.#shape(keys);
    const depth = this.#depth;
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] as string;
      this.#trail[depth] = key;
      this.#value(value[key]);
    }
  }

  /** Tells the reader which keys the values to come belong to: in full, or as a shape it knows. */
  #shape(keys: readonly string[]): void {
    const count = keys.length;
    const first = keys[0] ?? "";
    const last = keys[count - 1] ?? "";
    // An empty key has no character codes: NaN, which the bit operation turns into 0.
    const hash = count * 31 + first.length * 17 + first.charCodeAt(0) * 7 + last.charCodeAt(last.length - 1);
    const slot = hash & (SHAPES - 1);
    const shape = this.#shapes[slot];
    if (shape === undefined || !sameKeys(shape.keys, keys)) {
      if (isShape(keys)) {
        this.#shapes[slot] = { keys, block: undefined, epoch: this.#epoch, id: this.#shapeCount++ };
        this.#block(keys);
      } else {
        this.#varint(DICTIONARY, count);
        for (const key of keys) this.#text(key);
      }
    } else if (shape.epoch === this.#epoch) this.#varint(SHAPED, shape.id);
    else {
      shape.epoch = this.#epoch;
      shape.id = this.#shapeCount++;
      if (shape.block === undefined) {
        const start = this.#block(keys);
        shape.block = new Uint8Array(this.#bytes.subarray(start, this.#at));
      } else {
        this.#reserve(shape.block.length);
        this.#bytes.set(shape.block, this.#at);
        this.#at += shape.block.length;
      }
    }
  }

  /** Returns where the block starts, its tag included. */
  #block(keys: readonly string[]): number {
    const start = this.#at;
    this.#reserve(4);
    this.#bytes[start] = SHAPE;
    this.#bytes[start + 3] = keys.length;
    this.#at += 4;
    for (const key of keys) this.#text(key);
    this.#view.setUint16(start + 1, this.#at - start - 3, true);
    return start;
  }

  #array(value: readonly unknown[]): void {
    const { length } = value;
    const depth = this.#depth;
    this.#varint(ARRAY, length);
    let present: string[] | undefined;
    let next = 0;
    for (let i = 0; i < length; i++) {
      const item = value[i];
      if (item === undefined && !Object.hasOwn(value, i)) {
        // Asking each of four billion indices would take minutes: the keys tell where the next item is.
        present ??= Object.keys(value);
        while (next < present.length && Number(present[next]) <= i) next++;
        // Not a number: a property of the array, which comes after all its items.
        const index = next < present.length ? Number(present[next]) : length;
        const end = Number.isNaN(index) ? length : Math.min(index, length);
        this.#varint(HOLES, end - i);
        i = end - 1;
        continue;
      }
      this.#trail[depth] = i;
      this.#value(item);
    }
  }

  /** Anything that is neither an array nor a plain object of this realm. */
  #special(value: object): void {
    const kind = bytesKind(value, this.#host);
    if (kind > 0) {
      this.#blob(kind, bytesOf(value as ArrayBufferView | ArrayBuffer));
      return;
    }
    const tag = toTag.call(value);
    switch (tag) {
      case "[object Date]":
        this.#reserve(9);
        this.#bytes[this.#at] = DATE;
        this.#view.setFloat64(this.#at + 1, Date.prototype.getTime.call(value), true);
        this.#at += 9;
        break;
      case "[object Map]":
        this.#map(value as Map<unknown, unknown>);
        break;
      case "[object Set]":
        this.#set(value as Set<unknown>);
        break;
      case "[object RegExp]":
        this.#tag(REGEXP);
        this.#text((value as RegExp).source);
        this.#text((value as RegExp).flags);
        break;
      case "[object Number]":
      case "[object String]":
      case "[object Boolean]":
      case "[object BigInt]":
        this.#forget(value);
        this.#value((value as { valueOf(): unknown }).valueOf());
        break;
      case "[object SharedArrayBuffer]":
        throw new TypeError(`${this.#place()} is a SharedArrayBuffer. Store a typed array over it, which is copied.`);
      default:
        if (value instanceof Error || tag === "[object Error]") this.#error(value as Error);
        else this.#instance(value, tag);
    }
  }

  #map(map: Map<unknown, unknown>): void {
    const depth = this.#depth;
    this.#tag(MAP);
    for (const [key, item] of Map.prototype.entries.call(map)) {
      this.#trail[depth] = MAP_KEY;
      this.#value(key);
      this.#trail[depth] = MAP_VALUE;
      this.#value(item);
    }
    this.#tag(END);
  }

  #set(set: Set<unknown>): void {
    this.#tag(SET);
    this.#trail[this.#depth] = SET_ITEM;
    for (const item of Set.prototype.values.call(set)) this.#value(item);
    this.#tag(END);
  }

  #instance(value: object, tag: string): void {
    const { toJSON } = value as { toJSON?: unknown };
    const json: unknown = typeof toJSON === "function" ? toJSON.call(value) : value;
    if (json !== value) {
      this.#forget(value);
      this.#value(json);
      return;
    }
    // What names itself but shows nothing (Promise, WeakMap, Headers …) would come back empty.
    if (tag !== "[object Object]" && tag !== "[object Arguments]" && Object.keys(value).length === 0) {
      throw unstorable(value, this.#place());
    }
    this.#properties(value as Record<string, unknown>);
  }

  #error(error: Error): void {
    this.#tag(ERROR);
    this.#text(String(error.name));
    const own = ERROR_PROPERTIES.filter((name) => Object.hasOwn(error, name));
    // DOMException has its message on the prototype.
    for (const name of new Set(["message", ...own, ...Object.keys(error)])) {
      if (name === "name") continue;
      this.#trail[this.#depth] = name;
      this.#text(name);
      this.#value((error as unknown as Record<string, unknown>)[name]);
    }
    this.#tag(END);
  }

  /** Takes back the number of the newest object, because something else is written in its place. */
  #forget(value: object): void {
    if (this.#seenMap === undefined) this.#seen.pop();
    else this.#seenMap.delete(value);
  }

  #place(): string {
    let place = "value";
    for (const step of this.#trail.slice(1, this.#depth + 1)) {
      if (typeof step === "number") place += PLACES[step] ?? `[${step}]`;
      else place += /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.test(step) ? `.${step}` : `[${JSON.stringify(step)}]`;
    }
    return place;
  }
}

function isShape(keys: readonly string[]): boolean {
  if (keys.length > SHAPE_KEYS) return false;
  let characters = 0;
  for (const key of keys) characters += key.length;
  return characters <= SHAPE_TEXT;
}

function sameKeys(a: readonly string[], b: readonly string[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** The keys of a shape that was read before, found again by the bytes of its block. */
interface KnownKeys {
  readonly keys: readonly string[];
  /** The block as 32-bit words, the last one padded: plain numbers compare faster than bytes. */
  readonly words: readonly number[];
  readonly length: number;
}

const NOTHING: Uint8Array = new Uint8Array(0);

/** Asked at the end of the stack, where V8 ends the process if a regular expression must be compiled: so none is used. */
function isStackOverflow(error: unknown): boolean {
  const { message } = error as Error;
  return message.startsWith("Maximum call stack size exceeded") || message === "too much recursion";
}

class Reader {
  readonly #host: Host;
  #bytes: Uint8Array = NOTHING;
  #view: DataView = viewOf(NOTHING);
  #at = 0;
  #end = 0;
  #depth = 0;
  #objects: object[] = [];
  #shapes: (readonly string[])[] = [];
  readonly #known: (KnownKeys | undefined)[] = new Array(SHAPES).fill(undefined);
  #window = "";
  #windowStart = 0;
  #windowEnd = 0;

  constructor(on: Host) {
    this.#host = on;
  }

  read(bytes: Uint8Array, view: DataView, start: number, length: number): unknown {
    this.#bytes = bytes;
    this.#view = view;
    this.#at = start;
    this.#end = start + length;
    this.#depth = 0;
    this.#windowEnd = 0;
    try {
      const value = this.#value();
      if (this.#at !== this.#end) throw damaged("a value shorter than its record");
      return value;
    } catch (error) {
      // A caller deep in its stack may have no room left: that says nothing about the value.
      if (error instanceof CacheError || isStackOverflow(error)) throw error;
      // What the language itself refuses: an invalid regular expression, a string too long.
      throw damaged(`something impossible (${String(error)})`, error);
    } finally {
      this.#objects = [];
      this.#shapes = [];
      this.#window = "";
      this.#bytes = NOTHING;
    }
  }

  /** Moves past `length` bytes, after a check that they exist, and returns where they start. */
  #take(length: number): number {
    const start = this.#at;
    if (length > this.#end - start) throw damaged("a length beyond its end");
    this.#at = start + length;
    return start;
  }

  #varint(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.#bytes[this.#take(1)] as number;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw damaged("a number of more than five bytes");
  }

  /** A count of things that take at least a byte each, so that no more memory is asked for than the bytes justify. */
  #count(): number {
    const count = this.#varint();
    if (count > this.#end - this.#at) throw damaged("a count beyond its end");
    return count;
  }

  #value(): unknown {
    const tag = this.#bytes[this.#take(1)] as number;
    if (tag >= SMALL_INTEGER) return tag & 0x7f;
    if (tag >= SHORT_TEXT) return this.#latin1(tag & 0x3f);
    switch (tag) {
      case NULL:
        return null;
      case TRUE:
        return true;
      case FALSE:
        return false;
      case UNDEFINED:
        return undefined;
      case NUMBER:
        return this.#view.getFloat64(this.#take(8), true);
      case INTEGER: {
        const zigzag = this.#varint();
        return (zigzag >>> 1) ^ -(zigzag & 1);
      }
      case INT64:
        return this.#view.getBigInt64(this.#take(8), true);
      case REFERENCE: {
        const object = this.#objects[this.#varint()];
        if (object === undefined) throw damaged("a reference to nothing");
        return object;
      }
      case LATIN1:
      case UTF8:
      case UTF16:
        return this.#longText(tag);
      case POSITIVE: {
        const length = this.#varint();
        return fromMagnitude(this.#bytes, this.#take(length), length);
      }
      case NEGATIVE: {
        const length = this.#varint();
        return -fromMagnitude(this.#bytes, this.#take(length), length);
      }
      case DATE:
        return this.#keep(new Date(this.#view.getFloat64(this.#take(8), true)));
      case REGEXP:
        return this.#regexp();
    }
    if (tag >= BUFFER && tag <= LAST_BYTES) {
      const length = this.#varint();
      return this.#keep(toBytes(tag, this.#bytes, this.#take(length), length, this.#host, false));
    }
    if (++this.#depth > DEPTH_LIMIT) throw damaged(`nesting deeper than ${DEPTH_LIMIT} levels`);
    const object = this.#container(tag);
    this.#depth--;
    return object;
  }

  #keep<T extends object>(object: T): T {
    this.#objects.push(object);
    return object;
  }

  #container(tag: number): object {
    switch (tag) {
      case SHAPED: {
        const keys = this.#shapes[this.#varint()];
        if (keys === undefined) throw damaged("a shape that was never defined");
        return this.#properties(keys);
      }
      case SHAPE: {
        const length = this.#view.getUint16(this.#take(2), true);
        const keys = this.#block(this.#take(length), length);
        this.#shapes.push(keys);
        return this.#properties(keys);
      }
      case DICTIONARY: {
        const count = this.#count();
        const object = this.#keep({});
        return this.#properties(this.#keys(count), object);
      }
      case ARRAY:
        return this.#array();
      case MAP: {
        const map = this.#keep(new Map<unknown, unknown>());
        while (!this.#atEnd()) map.set(this.#value(), this.#value());
        return map;
      }
      case SET: {
        const set = this.#keep(new Set<unknown>());
        while (!this.#atEnd()) set.add(this.#value());
        return set;
      }
      case ERROR:
        return this.#error();
      default:
        throw damaged(`the unknown tag ${tag}`);
    }
  }

  #atEnd(): boolean {
    if (this.#at < this.#end && this.#bytes[this.#at] === END) {
      this.#at++;
      return true;
    }
    return false;
  }

  #latin1(length: number): string {
    const start = this.#take(length);
    if (length >= SUBSTRING_TEXT || !this.#host.fastLatin1) return this.#host.readLatin1(this.#bytes, start, length);
    // One call for all short strings nearby: cutting one out costs a quarter of a call.
    if (start < this.#windowStart || start + length > this.#windowEnd) {
      this.#windowStart = start;
      this.#windowEnd = Math.min(start + WINDOW, this.#end);
      this.#window = this.#host.readLatin1(this.#bytes, start, this.#windowEnd - start);
    }
    const from = start - this.#windowStart;
    return this.#window.substring(from, from + length);
  }

  #longText(tag: number): string {
    const length = this.#varint();
    if (tag === LATIN1) return this.#latin1(length);
    const start = this.#take(length);
    return tag === UTF8
      ? this.#host.readUtf8(this.#bytes, start, length)
      : this.#host.readUtf16(this.#bytes, start, length);
  }

  /** Where only text may be: anything else could nest without being counted. */
  #text(): string {
    const tag = this.#bytes[this.#take(1)] as number;
    if (tag >= SHORT_TEXT && tag < SMALL_INTEGER) return this.#latin1(tag & 0x3f);
    if (tag < LATIN1 || tag > UTF16) throw damaged("something else in place of a text");
    return this.#longText(tag);
  }

  #keys(count: number): string[] {
    const keys: string[] = [];
    for (let i = 0; i < count; i++) keys.push(this.#text());
    return keys;
  }

  #block(start: number, length: number): readonly string[] {
    if (length === 0) throw damaged("an empty shape");
    const bytes = this.#bytes;
    const slot =
      (length * 31 + (bytes[start + 2] as number) * 7 + (bytes[start + length - 1] as number)) & (SHAPES - 1);
    const known = this.#known[slot];
    if (known?.length === length && this.#sameWords(known.words, start, length)) return known.keys;
    const end = this.#end;
    this.#at = start;
    this.#end = start + length;
    const keys = this.#keys(this.#bytes[this.#take(1)] as number);
    if (this.#at !== this.#end) throw damaged("a shape shorter than its block");
    this.#end = end;
    if (length <= 2 * SHAPE_TEXT) {
      const words: number[] = [];
      for (let i = 0; i < length; i += 4) words.push(this.#word(start + i, start + length));
      this.#known[slot] = { keys, words, length };
    }
    return keys;
  }

  #sameWords(words: readonly number[], start: number, length: number): boolean {
    for (let i = 0, at = start; i < words.length; i++, at += 4) {
      if (words[i] !== this.#word(at, start + length)) return false;
    }
    return true;
  }

  #word(at: number, end: number): number {
    if (at + 4 <= end) return this.#view.getInt32(at, true);
    let word = 0;
    for (let i = at; i < end; i++) word = (word << 8) | (this.#bytes[i] as number);
    return word;
  }

  #properties(keys: readonly string[], object: Record<string, unknown> = this.#keep({})): object {
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] as string;
      // Assigned, it would become the prototype instead of a property.
      if (key === "__proto__") define(object, key, this.#value(), true);
      else object[key] = this.#value();
    }
    return object;
  }

  #array(): unknown[] {
    const length = this.#varint();
    const array: unknown[] = this.#keep([]);
    let items = 0;
    let sparse = false;
    for (let i = 0; i < length; ) {
      if (this.#at < this.#end && this.#bytes[this.#at] === HOLES) {
        this.#at++;
        i += this.#varint();
        if (i > length) throw damaged("more holes than items");
        // Setting a length reserves room for all items up to it; a far item first makes the array sparse, so that a
        // few bytes cannot ask for gigabytes.
        if (i - items > FEW_HOLES && !sparse) {
          array[LAST_INDEX] = undefined;
          delete array[LAST_INDEX];
          sparse = true;
        }
        array.length = i;
      } else {
        array[i++] = this.#value();
        items++;
      }
    }
    return array;
  }

  #regexp(): RegExp {
    const source = this.#text();
    return this.#keep(new RegExp(source, this.#text()));
  }

  #error(): Error {
    const name = this.#text();
    const error = this.#keep(createError(name));
    if (error.name !== name) define(error, "name", name, false);
    while (!this.#atEnd()) {
      const key = this.#text();
      define(error, key, this.#value(), !ERROR_PROPERTIES.includes(key));
    }
    return error;
  }
}

function createError(name: string): Error {
  if (name === "AggregateError") return new AggregateError([]);
  return new (ERRORS.get(name) ?? Error)();
}

const ERRORS: ReadonlyMap<string, new () => Error> = new Map(
  [Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError].map((error) => [error.name, error]),
);

function define(object: object, key: string, value: unknown, enumerable: boolean): void {
  Object.defineProperty(object, key, { value, enumerable, configurable: true, writable: true });
}

// ---- sharing decoded objects ---------------------------------------------------------------------------------------

const MUTATORS: readonly (readonly [object, readonly string[]])[] = [
  [Map.prototype, ["set", "delete", "clear"]],
  [Set.prototype, ["add", "delete", "clear"]],
  [Date.prototype, Object.getOwnPropertyNames(Date.prototype).filter((name) => name.startsWith("set"))],
];

/**
 * Freezes a decoded value with everything in it, so that many readers can share it: objects, arrays and errors by
 * `Object.freeze`, the contents of Maps and Sets as well, and the mutating methods of Maps, Sets and Dates throw a
 * `TypeError` (those borrowed from a prototype still work: this guards against mistakes, not against malice).
 * @param value - changed in place; it should have no other user yet.
 * @returns whether all of it is frozen now. `false` when it contains bytes, which JavaScript cannot freeze: such a value
 * must not be shared.
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
    if (ArrayBuffer.isView(object) || object instanceof ArrayBuffer) {
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
