/**
 * The host: how this runtime moves text and bytes, for keys and values alike. Where there is a real `Buffer` its native
 * text methods are used; elsewhere, and in tests that ask for it, plain JavaScript gives the same bytes. The memory read
 * and written may be shared, which `TextDecoder` and `TextEncoder` refuse in browsers: there, text goes by way of private
 * memory.
 *
 * Relies on the runtime only. Knows nothing of keys, values or the engine.
 */

import { encoder, newDecoder } from "./encoding.ts";

/** Up to this many characters a loop beats a call into the host. */
export const SHORT_TEXT = 20;
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
  /** As `TextEncoder.encodeInto`: writes UTF-8 as long as there is room. */
  encodeInto(text: string, target: Uint8Array): { read: number; written: number };
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

// Without ignoreBOM a leading U+FEFF would be swallowed, and two keys would read back as one.
const utf8Decoder: TextDecoder = newDecoder("utf-8", { ignoreBOM: true });
const utf16Decoder: TextDecoder = newDecoder("utf-16le", { ignoreBOM: true, fatal: true });

/** Private memory for what `encodeInto` may not write to the target itself. */
let scratch = new Uint8Array(0);

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
  encodeInto(text, target) {
    // A unit of UTF-16 takes at most three bytes.
    const room = Math.min(target.length, text.length * 3);
    if (scratch.length < room) scratch = new Uint8Array(room);
    const result = encoder.encodeInto(text, scratch.subarray(0, room));
    target.set(scratch.subarray(0, result.written));
    return result;
  },
  writeUtf8(text, target, start) {
    target.set(encoder.encode(text), start);
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
};

/** The host with Node's own `Buffer`; `undefined` where there is none, or only a polyfill without the native methods. */
export const bufferHost: Host | undefined =
  globalThis.Buffer === undefined ? undefined : createBufferHost(globalThis.Buffer);

/** What this runtime is. */
export const host: Host = bufferHost ?? plainHost;

function createBufferHost(NodeBuffer: typeof Buffer): Host | undefined {
  const native = NodeBuffer.prototype as unknown as Partial<NativeText> | undefined;
  if (typeof native?.ucs2Slice !== "function") return undefined;
  // The methods are borrowed, because a source can also be a Uint8Array that is no Buffer.
  const { latin1Slice, utf8Slice, ucs2Slice, latin1Write, utf8Write, ucs2Write } = native as NativeText;
  return {
    readLatin1: (source, start, length) => latin1Slice.call(source, start, start + length),
    readUtf8: (source, start, length) => utf8Slice.call(source, start, start + length),
    readUtf16: (source, start, length) => ucs2Slice.call(source, start, start + (length & ~1)),
    writeLatin1(text, target, start) {
      latin1Write.call(target, text, start);
    },
    encodeInto: (text, target) => encoder.encodeInto(text, target),
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

/** V8 cuts and joins shorter texts by copying them. */
const SLICED = 13;
/** V8 answers this in constant time for strings it stores with one byte per character. */
const WIDE = /[^\0-\xff]/;
/** Where texts are copied; grows to the longest. */
let copies: Uint8Array = new Uint8Array(0);

/**
 * The same text with characters of its own: what was cut from a text, or joined from several, holds these for as long as it
 * is kept itself.
 */
export function flatCopy(text: string): string {
  const { length } = text;
  if (length < SLICED) return text;
  if (copies.length < length * 2) copies = host.allocate(Math.max(512, length * 2));
  if (WIDE.test(text)) {
    host.writeUtf16(text, copies, 0);
    return host.readUtf16(copies, 0, length * 2);
  }
  host.writeLatin1(text, copies, 0);
  return host.readLatin1(copies, 0, length);
}

/**
 * A number for the text, to find things by that are compared afterwards. Secret numbers of this thread are in it, so nobody can
 * foresee which texts have the same: of groups of four characters, each is multiplied by one of them. It is no pseudo-random
 * function: who could see the numbers of many texts would find out the secrets.
 *
 * @param most looks only at so many characters: the last ones, which differ more often than the first
 */
export const hashText: (text: string, most: number) => number = keyedHash(
  crypto.getRandomValues(new Int32Array(4)).map((random) => random | 1),
);

/** A function of its own, because V8 takes for constants what a closure never assigns, but not the variables of a bundle. */
function keyedHash(secret: Int32Array): (text: string, most: number) => number {
  const [a, b, c, d] = secret as unknown as [number, number, number, number];
  return (text, most) => {
    const { length } = text;
    let hash = Math.imul(length, a);
    let i = length > most ? length - most : 0;
    for (; i + 4 <= length; i += 4) {
      const low = Math.imul(text.charCodeAt(i), a) + Math.imul(text.charCodeAt(i + 1), b);
      const high = Math.imul(text.charCodeAt(i + 2), c) + Math.imul(text.charCodeAt(i + 3), d);
      hash = (Math.imul(hash ^ (hash >>> 16), 0x9e3779b1) + low + high) | 0;
    }
    for (; i < length; i++) {
      hash = (Math.imul(hash ^ (hash >>> 16), 0x9e3779b1) + Math.imul(text.charCodeAt(i), b)) | 0;
    }
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    return hash ^ (hash >>> 16);
  };
}

/** Whether UTF-8 can express the text: false when it has a lone surrogate. */
export function isWellFormed(text: string): boolean {
  return (text as unknown as { isWellFormed(): boolean }).isWellFormed();
}

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
