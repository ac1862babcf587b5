/**
 * Keys ↔ bytes, and the text primitives underneath, which values use as well. Two strings that differ never get the
 * same kind and bytes, lone surrogates included, so that the engine may compare keys byte by byte.
 *
 * Relies on nothing but the host: where there is a real `Buffer` its native text methods are used; elsewhere, and in
 * tests that ask for it, plain JavaScript gives the same bytes. The memory read and written here may be shared, which a
 * `TextDecoder` refuses in browsers: there, text is copied out before it is decoded. Knows nothing of the engine.
 */
import { CacheError } from "./errors.ts";

/** The longest key, in bytes: of UTF-8 for a string, of UTF-16 for a string with lone surrogates. */
export const KEY_LIMIT = 4096;

/** A string, stored as UTF-8. */
export const KEY_STRING = 0;
/** Bytes, stored as they are. */
export const KEY_BYTES = 1;
/** A string with lone surrogates, which UTF-8 cannot express: stored as UTF-16, little-endian. */
export const KEY_ILL_FORMED = 2;

/** Below this many characters a loop beats the call into the host's encoder. */
const SHORT_TEXT = 20;
/** `apply` spreads its arguments on the stack: this many always fit. */
const CHUNK = 4096;

/**
 * How one host moves text and bytes. All positions and lengths are in bytes; the sources may be shared memory, the
 * results never are.
 */
export interface Host {
  /** Characters 0-255, one byte each. */
  readLatin1(source: Uint8Array, start: number, length: number): string;
  /** UTF-8; malformed bytes become U+FFFD, a byte order mark stays. */
  readUtf8(source: Uint8Array, start: number, length: number): string;
  /** UTF-16, little-endian, lone surrogates included. An odd last byte is ignored. */
  readUtf16(source: Uint8Array, start: number, length: number): string;
  /** Every character must be below 256 and the target large enough. */
  writeLatin1(text: string, target: Uint8Array, start: number): void;
  /** The target must be large enough. */
  writeUtf8(text: string, target: Uint8Array, start: number): void;
  /** The target must be large enough. */
  writeUtf16(text: string, target: Uint8Array, start: number): void;
  /** The number of bytes of the text as UTF-8. */
  utf8Length(text: string): number;
  /** Uninitialised private memory that is not part of a pool: a `Buffer` where there is one. */
  allocate(length: number): Uint8Array;
  /** A private copy: a `Buffer` where there is one. */
  copy(source: Uint8Array, start: number, length: number): Uint8Array;
  /** The same private memory, as what {@link copy} returns. */
  adopt(bytes: Uint8Array): Uint8Array;
  /** Whether the value is this host's `Buffer`. */
  isBuffer(value: unknown): boolean;
  /** Whether {@link readLatin1} of a kilobyte costs about as much as of a few bytes. */
  readonly fastLatin1: boolean;
}

/** Node's text methods: on the prototype of every `Buffer`, but not in its public types. */
interface NativeText {
  latin1Slice(start: number, end: number): string;
  utf8Slice(start: number, end: number): string;
  ucs2Slice(start: number, end: number): string;
  latin1Write(text: string, start: number): number;
  utf8Write(text: string, start: number): number;
  ucs2Write(text: string, start: number): number;
}

const encoder: TextEncoder = new TextEncoder();
// Without ignoreBOM a leading U+FEFF would be swallowed, and two keys would read back as one.
const utf8Decoder: TextDecoder = new TextDecoder("utf-8", { ignoreBOM: true });
const utf16Decoder: TextDecoder = new TextDecoder("utf-16le", { ignoreBOM: true, fatal: true });

/** The host without `Buffer`: browsers. Any runtime can use it. */
export const plainHost: Host = {
  readLatin1(source, start, length) {
    if (length <= CHUNK) return fromUnits(source, start, length, 1);
    // There is no decoder for Latin-1 (that label means windows-1252), but widened to UTF-16 it is exact.
    const units = new Uint8Array(length * 2);
    for (let i = 0; i < length; i++) units[i * 2] = source[start + i] as number;
    return utf16Decoder.decode(units);
  },
  readUtf8(source, start, length) {
    return utf8Decoder.decode(source.slice(start, start + length));
  },
  readUtf16(source, start, length) {
    const units = length >>> 1;
    if (units > SHORT_TEXT) {
      try {
        return utf16Decoder.decode(source.slice(start, start + units * 2));
      } catch {
        // Lone surrogates: the decoder refuses them, the loop below does not.
      }
    }
    let text = "";
    for (let done = 0; done < units; done += CHUNK) {
      text += fromUnits(source, start + done * 2, Math.min(CHUNK, units - done), 2);
    }
    return text;
  },
  writeLatin1(text, target, start) {
    for (let i = 0; i < text.length; i++) target[start + i] = text.charCodeAt(i);
  },
  writeUtf8(text, target, start) {
    encoder.encodeInto(text, target.subarray(start));
  },
  writeUtf16(text, target, start) {
    for (let i = 0, at = start; i < text.length; i++, at += 2) {
      const unit = text.charCodeAt(i);
      target[at] = unit;
      target[at + 1] = unit >>> 8;
    }
  },
  utf8Length(text) {
    let length = text.length;
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i);
      if (unit < 0x80) continue;
      if (unit < 0x800) length++;
      else {
        length += 2;
        if (isPair(unit, text, i)) i++;
      }
    }
    return length;
  },
  allocate: (length) => new Uint8Array(length),
  copy: (source, start, length) => new Uint8Array(source.subarray(start, start + length)),
  adopt: (bytes) => bytes,
  isBuffer: () => false,
  fastLatin1: false,
};

/** The host with Node's own `Buffer`; `undefined` where there is none, or only a polyfill without the native methods. */
export const bufferHost: Host | undefined = createBufferHost(globalThis.Buffer);

/** What this runtime is. */
export const host: Host = bufferHost ?? plainHost;

function createBufferHost(NodeBuffer: typeof Buffer | undefined): Host | undefined {
  const native = NodeBuffer?.prototype as unknown as Partial<NativeText> | undefined;
  if (NodeBuffer === undefined || typeof native?.ucs2Slice !== "function") return undefined;
  // The methods are borrowed, because a source can also be a Uint8Array that is no Buffer.
  const { latin1Slice, utf8Slice, ucs2Slice, latin1Write, utf8Write, ucs2Write } = native as NativeText;
  return {
    readLatin1: (source, start, length) => latin1Slice.call(source, start, start + length),
    readUtf8: (source, start, length) => utf8Slice.call(source, start, start + length),
    readUtf16: (source, start, length) => ucs2Slice.call(source, start, start + (length & ~1)),
    writeLatin1(text, target, start) {
      latin1Write.call(target, text, start);
    },
    writeUtf8(text, target, start) {
      utf8Write.call(target, text, start);
    },
    writeUtf16(text, target, start) {
      ucs2Write.call(target, text, start);
    },
    utf8Length: (text) => NodeBuffer.byteLength(text),
    allocate: (length) => NodeBuffer.allocUnsafeSlow(length),
    copy(source, start, length) {
      // From the pool when small: a separate ArrayBuffer of a few hundred bytes costs twice the copy.
      const copy = NodeBuffer.allocUnsafe(length);
      copy.set(source.subarray(start, start + length));
      return copy;
    },
    adopt: (bytes) => NodeBuffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
    isBuffer: (value) => value instanceof NodeBuffer,
    fastLatin1: true,
  };
}

/** At most {@link CHUNK} code units of `width` bytes. A plain array is far cheaper to spread than a typed one. */
function fromUnits(source: Uint8Array, start: number, count: number, width: 1 | 2): string {
  const units: number[] = [];
  for (let i = 0, at = start; i < count; i++, at += width) {
    units.push(width === 1 ? (source[at] as number) : (source[at] as number) | ((source[at + 1] as number) << 8));
  }
  return String.fromCharCode.apply(null, units);
}

function isPair(unit: number, text: string, index: number): boolean {
  return (unit & 0xfc00) === 0xd800 && (text.charCodeAt(index + 1) & 0xfc00) === 0xdc00;
}

/** Whether UTF-8 can express the text: false when it has a lone surrogate. */
export const isWellFormed: (text: string) => boolean =
  typeof (String.prototype as { isWellFormed?: unknown }).isWellFormed === "function"
    ? (text) => (text as unknown as { isWellFormed(): boolean }).isWellFormed()
    : (text) => !/\p{Surrogate}/u.test(text);

/**
 * What a value is, for an error message: `null`, `a number`, `an Array`, `a Promise`.
 * @internal
 */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  const name = typeof value === "object" ? Object.prototype.toString.call(value).slice(8, -1) : typeof value;
  return `${/^[aeiou]/i.test(name) ? "an" : "a"} ${name}`;
}

const typedArrayName = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag)
  ?.get as (this: unknown) => string | undefined;

/**
 * The name of a typed array's kind (`"Uint8Array"` for a `Buffer` too), or `undefined` for anything else. Unlike
 * `instanceof` it is right for arrays of another realm, which test runners and `node:vm` make.
 * @internal
 */
export function typedArrayKind(value: unknown): string | undefined {
  return typedArrayName.call(value);
}

/** The kind of a key written by {@link KeyCodec.write}: {@link KEY_STRING}, {@link KEY_BYTES} or {@link KEY_ILL_FORMED}. */
export function keyKind(written: number): number {
  return written & 3;
}

/** The length in bytes of a key written by {@link KeyCodec.write}. */
export function keyLength(written: number): number {
  return written >>> 2;
}

/** Keys ↔ bytes. Holds no state: one can serve a whole thread. */
export class KeyCodec {
  readonly #host: Host;

  /** @param on - the host whose primitives are used; only tests give another than their own. */
  constructor(on: Host = host) {
    this.#host = on;
  }

  /**
   * Writes a key to the start of `target`.
   * @param key - a string, or bytes (`Uint8Array`, which includes `Buffer`); may be empty.
   * @param target - at least {@link KEY_LIMIT} bytes, private or shared. Bytes after the key may be overwritten.
   * @returns kind and length in one number, so that nothing is allocated: see {@link keyKind} and {@link keyLength}.
   * @throws TypeError when the key is neither a string nor bytes.
   * @throws CacheError `ERR_TOO_LARGE` above {@link KEY_LIMIT} bytes.
   */
  write(key: string | Uint8Array, target: Uint8Array): number {
    if (typeof key === "string") {
      const length = key.length;
      if (length > SHORT_TEXT) return this.#writeLong(key, target);
      for (let i = 0; i < length; i++) {
        const unit = key.charCodeAt(i);
        if (unit > 0x7f) return this.#writeLong(key, target);
        target[i] = unit;
      }
      return length << 2;
    }
    if (!(key instanceof Uint8Array) && typedArrayKind(key) !== "Uint8Array") {
      throw new TypeError(`key must be a string or a Uint8Array (such as a Buffer), not ${describe(key)}.`);
    }
    const bytes: Uint8Array = key;
    if (bytes.length > KEY_LIMIT) throw tooLarge(bytes.length, "bytes");
    target.set(bytes);
    return (bytes.length << 2) | KEY_BYTES;
  }

  #writeLong(key: string, target: Uint8Array): number {
    const length = key.length;
    // No character takes less than a byte, so there is no need to encode what cannot fit.
    if (length > KEY_LIMIT) throw tooLarge(this.#host.utf8Length(key), "bytes of UTF-8");
    const { read, written } = encoder.encodeInto(key, target);
    if (written !== length && !isWellFormed(key)) {
      if (length * 2 > KEY_LIMIT) throw tooLarge(length * 2, "bytes of UTF-16 (it has lone surrogates)");
      this.#host.writeUtf16(key, target, 0);
      return ((length * 2) << 2) | KEY_ILL_FORMED;
    }
    if (read < length || written > KEY_LIMIT) throw tooLarge(this.#host.utf8Length(key), "bytes of UTF-8");
    return written << 2;
  }

  /**
   * The key that {@link write} wrote.
   * @param kind - {@link KEY_STRING}, {@link KEY_BYTES} or {@link KEY_ILL_FORMED}.
   * @param source - private or shared memory; the result never aliases it.
   * @param start - in bytes.
   * @param length - in bytes.
   * @returns a string, or bytes (a `Buffer` where there is one).
   * @throws CacheError `ERR_LAYOUT` for a kind that does not exist.
   */
  read(kind: number, source: Uint8Array, start: number, length: number): string | Uint8Array {
    switch (kind) {
      case KEY_STRING:
        return this.#host.readUtf8(source, start, length);
      case KEY_BYTES:
        return this.#host.copy(source, start, length);
      case KEY_ILL_FORMED:
        return this.#host.readUtf16(source, start, length);
      default:
        throw new CacheError("ERR_LAYOUT", `A key of unknown kind ${kind} was found: the memory is damaged.`);
    }
  }
}

function tooLarge(length: number, unit: string): CacheError {
  return new CacheError(
    "ERR_TOO_LARGE",
    `The key has ${length} ${unit}, the limit is ${KEY_LIMIT}. Use a shorter key, such as a hash of this one.`,
  );
}
