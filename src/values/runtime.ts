/**
 * The methods of this JavaScript runtime that move text and bytes, for keys and values alike. Node.js has native text
 * methods on the prototype of `Buffer`, and these are used where they exist. Elsewhere plain JavaScript gives the same
 * bytes; tests use it in Node.js, too. The memory that is read or written may be shared. Browsers refuse shared memory in
 * `TextDecoder` and `TextEncoder`, so there text goes through private memory.
 *
 * Must not know keys, values or the engine.
 */

import { unsupported } from "../errors.ts";

/**
 * Where `TextEncoder` and `TextDecoder` come from: this realm, or `node:util` in a realm that was made without them (by
 * jest-environment-jsdom, for example). `undefined` where neither has them: then the package can still be imported, and
 * {@link requireEncoding} throws when a cache is opened.
 */
const encodings =
  typeof TextEncoder === "function" && typeof TextDecoder === "function"
    ? globalThis
    : globalThis.process?.getBuiltinModule?.("node:util");

/** `undefined` where {@link requireEncoding} throws. @internal */
export const encoder: TextEncoder = (encodings && new encodings.TextEncoder()) as TextEncoder;

function newDecoder(label: string, options: TextDecoderOptions): TextDecoder {
  return (encodings && new encodings.TextDecoder(label, options)) as TextDecoder;
}

/** @throws {CacheError} `ERR_UNSUPPORTED` where there is no `TextEncoder` or no `TextDecoder`. */
export function requireEncoding(): void {
  if (encodings !== undefined) return;
  throw unsupported(
    "TextEncoder, TextDecoder: this realm must have both. jest-environment-jsdom leaves them out: use the environment `node`, " +
      'or `testEnvironmentOptions: { customExportConditions: ["node"] }`.',
  );
}

/** Up to this many characters a loop is faster than a call of a native method. */
export const SHORT_TEXT = 20;
/** `apply` puts its arguments on the stack. This many always fit. */
const CHUNK = 4096;

/**
 * How one runtime moves text and bytes. All positions and lengths are in bytes. Sources and targets may be shared memory;
 * results are private memory.
 */
export interface Runtime {
  /** Latin-1: one byte for each character U+0000 to U+00FF. */
  readLatin1(source: Uint8Array, start: number, length: number): string;
  /** UTF-8. Malformed bytes become U+FFFD. A byte order mark is kept. */
  readUtf8(source: Uint8Array, start: number, length: number): string;
  /** UTF-16, little-endian. Lone surrogates are kept. An odd last byte is ignored. */
  readUtf16(source: Uint8Array, start: number, length: number): string;
  /** Every character must be at most U+00FF, and the target must be large enough. */
  writeLatin1(text: string, target: Uint8Array, start: number): void;
  /** Like `TextEncoder.encodeInto`: writes UTF-8 until the target is full. */
  encodeInto(text: string, target: Uint8Array): { read: number; written: number };
  /** The target must be large enough. */
  writeUtf8(text: string, target: Uint8Array, start: number): void;
  /** The target must be large enough. */
  writeUtf16(text: string, target: Uint8Array, start: number): void;
  /** The length of the text in bytes of UTF-8. */
  utf8Length(text: string): number;
  /** Uninitialised private memory that is not part of a pool; a `Buffer` where the runtime has it. */
  allocate(length: number): Uint8Array;
  /** A private copy; a `Buffer` where the runtime has it. A short one may share its `ArrayBuffer` with other copies. */
  copy(source: Uint8Array, start: number, length: number): Uint8Array;
  /** The same private memory, without a copy, in the class that {@link copy} returns. */
  adopt(bytes: Uint8Array): Uint8Array;
  /** Whether the value is a `Buffer` of this runtime. */
  isBuffer(value: unknown): boolean;
}

/** The native text methods of Node.js. They are on the prototype of `Buffer`, but not in its public types. */
interface NativeText {
  latin1Slice(start: number, end: number): string;
  utf8Slice(start: number, end: number): string;
  ucs2Slice(start: number, end: number): string;
  latin1Write(text: string, start: number): number;
  utf8Write(text: string, start: number): number;
  ucs2Write(text: string, start: number): number;
}

// With `ignoreBOM` the decoders keep a leading U+FEFF. Otherwise two different keys would read back as the same.
const utf8Decoder: TextDecoder = newDecoder("utf-8", { ignoreBOM: true });
const utf16Decoder: TextDecoder = newDecoder("utf-16le", { ignoreBOM: true, fatal: true });

/** Private memory for `encodeInto`, which refuses a shared target in browsers. */
let scratch = new Uint8Array(0);

/** The runtime without `Buffer`: browsers. It works everywhere. */
export const plainRuntime: Runtime = {
  readLatin1(source, start, length) {
    if (length <= CHUNK) return fromUnits(source, start, length, 1);
    // No decoder is exact for Latin-1 (this label means windows-1252), but one for UTF-16 is, after widening each byte.
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
        // The decoder refuses lone surrogates. The loop below reads them.
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
    // A code unit of UTF-16 becomes at most three bytes of UTF-8.
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

/** The runtime with `Buffer`; `undefined` without `Buffer`, and where a polyfill of it lacks the native methods. */
export const bufferRuntime: Runtime | undefined =
  globalThis.Buffer === undefined ? undefined : createBufferRuntime(globalThis.Buffer);

/** The runtime that this code runs on. */
export const runtime: Runtime = bufferRuntime ?? plainRuntime;

/** Bytes of the pool for copies, and of the longest copy in it. In Node.js 20 and 22 an ArrayBuffer takes longer than its copy. */
const POOL = 65_536;
const MOST_POOLED = 8192;

function createBufferRuntime(NodeBuffer: typeof Buffer): Runtime | undefined {
  const native = NodeBuffer.prototype as unknown as Partial<NativeText> | undefined;
  if (typeof native?.ucs2Slice !== "function") return undefined;
  let pool: Buffer | undefined;
  let used = 0;
  function fromPool(length: number): Buffer {
    if (pool === undefined || used + length > POOL) {
      pool = NodeBuffer.allocUnsafeSlow(POOL);
      used = 0;
      // As for the pool of Node.js: otherwise the transfer of one copy to another thread would take all others with it.
      globalThis.process?.getBuiltinModule?.("node:worker_threads").markAsUntransferable(pool.buffer);
    }
    const start = used;
    // Typed arrays of any sort can lie over the copy.
    used = (start + length + 7) & ~7;
    return pool.subarray(start, start + length);
  }
  // The methods are called on any Uint8Array, because a source need not be a Buffer.
  const { latin1Slice, utf8Slice, ucs2Slice, latin1Write, utf8Write, ucs2Write } = native as NativeText;
  const { copy } = NodeBuffer.prototype;
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
      // Shorter ones than half of `poolSize` come from the pool of Node.js.
      const isPooled = length >= NodeBuffer.poolSize >>> 1 && length <= MOST_POOLED;
      const target = isPooled ? fromPool(length) : NodeBuffer.allocUnsafe(length);
      // Out of shared memory `set` copies word by word. From Node.js 22 on, `copy` does not.
      copy.call(source as Buffer, target, 0, start, start + length);
      return target;
    },
    adopt: (bytes) => NodeBuffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
    isBuffer: (value) => value instanceof NodeBuffer,
  };
}

/**
 * Makes text of at most {@link CHUNK} code units of `width` bytes each. It collects them in a plain array, because spreading
 * a typed array is much slower.
 */
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
