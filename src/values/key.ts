/**
 * Keys ↔ bytes. Two different strings never become the same key kind and bytes, not even strings with lone surrogates. So
 * the engine can compare keys byte by byte. Relies on `runtime.ts` for text. Of the engine it knows the numbers of key kinds.
 */
import { KEY_BYTES, KEY_ILL_FORMED, KEY_KIND_BITS, KEY_STRING } from "../engine/contract.ts";
import { type CacheError, keyTooLong } from "../errors.ts";
import { describe, typedArrayName } from "./describe.ts";
import { type Runtime, runtime, SHORT_TEXT } from "./runtime.ts";
import { isWellFormed } from "./text.ts";

/** The length in bytes of the longest key. A string counts in UTF-8, or in UTF-16 if it has lone surrogates. */
export const KEY_LIMIT = 4096;

/** The result of {@link KeyCodec.write} for a key that is too long. */
export const KEY_TOO_LONG = -1;

/** The key kind in a result of {@link KeyCodec.write}: `KEY_STRING`, `KEY_BYTES` or `KEY_ILL_FORMED`. */
export function keyKind(written: number): number {
  return written & ((1 << KEY_KIND_BITS) - 1);
}

/** The length in bytes in a result of {@link KeyCodec.write}. */
export function keyLength(written: number): number {
  return written >>> KEY_KIND_BITS;
}

/** Turns keys into bytes and back. It holds no state, so one can serve a whole thread. */
export class KeyCodec {
  readonly #runtime: Runtime;

  /** @param on - the runtime whose methods are used; only tests pass another than their own. */
  constructor(on: Runtime = runtime) {
    this.#runtime = on;
  }

  /**
   * Writes a key to the start of `target`.
   * @param key - a string, or bytes (a `Uint8Array`, which includes `Buffer`); may be empty.
   * @param target - private or shared memory. Its length is the limit if it is less than {@link KEY_LIMIT}. Bytes after the
   * key may be overwritten.
   * @returns `length << 2 | key kind`, one number, so that nothing is allocated: see {@link keyLength} and {@link keyKind}.
   * {@link KEY_TOO_LONG} for a key above the limit: no entry has such a key, so a read misses, and a store throws
   * {@link KeyCodec.tooLong}.
   * @throws {TypeError} when the key is neither a string nor bytes.
   */
  write(key: string | Uint8Array, target: Uint8Array): number {
    if (typeof key !== "string") return writeBytes(key, target);
    const length = key.length;
    if (length > SHORT_TEXT || length > target.length) return this.#writeLong(key, target);
    for (let i = 0; i < length; i++) {
      const unit = key.charCodeAt(i);
      if (unit > 0x7f) return this.#writeLong(key, target);
      target[i] = unit;
    }
    return (length << KEY_KIND_BITS) | KEY_STRING;
  }

  #writeLong(key: string, target: Uint8Array): number {
    const length = key.length;
    const limit = limitOf(target);
    // Every character takes at least a byte, so this key is too long in every encoding.
    if (length > limit) return KEY_TOO_LONG;
    const { read, written } = this.#runtime.encodeInto(key, target);
    if (written !== length && !isWellFormed(key)) {
      if (length * 2 > limit) return KEY_TOO_LONG;
      this.#runtime.writeUtf16(key, target, 0);
      return ((length * 2) << KEY_KIND_BITS) | KEY_ILL_FORMED;
    }
    return read < length || written > limit ? KEY_TOO_LONG : (written << KEY_KIND_BITS) | KEY_STRING;
  }

  /**
   * Makes the error of a store under a key that {@link write} found too long: `ERR_TOO_LARGE`. `argument` is what the caller calls
   * the key.
   */
  tooLong(key: string | Uint8Array, argument?: string): CacheError {
    let has = `${key.length} bytes`;
    if (typeof key === "string") {
      const units = `${key.length * 2} bytes of UTF-16 (it has lone surrogates)`;
      has = isWellFormed(key) ? `${this.#runtime.utf8Length(key)} bytes of UTF-8` : units;
    }
    return keyTooLong(has, KEY_LIMIT, argument);
  }

  /**
   * Turns bytes back into the key that {@link write} wrote.
   * @param kind - the key kind: `KEY_STRING`, `KEY_BYTES` or `KEY_ILL_FORMED`.
   * @param source - private or shared memory; the result does not share it.
   * @param start - in bytes.
   * @param length - in bytes.
   * @returns a string, or bytes (a `Buffer` where the runtime has it); `undefined` for a key kind that does not exist.
   */
  read(kind: number, source: Uint8Array, start: number, length: number): string | Uint8Array | undefined {
    switch (kind) {
      case KEY_STRING:
        return this.#runtime.readUtf8(source, start, length);
      case KEY_BYTES:
        return this.#runtime.copy(source, start, length);
      case KEY_ILL_FORMED:
        return this.#runtime.readUtf16(source, start, length);
      default:
        return undefined;
    }
  }
}

/**
 * The part of {@link KeyCodec.write} for what is no string. It is a function of its own because of V8 in Node.js 20: with this code
 * in `write`, its compiler reads the length of a string before it knows that the key is one. Then a number as a key ends the
 * process.
 */
function writeBytes(key: Uint8Array, target: Uint8Array): number {
  if (!(key instanceof Uint8Array) && typedArrayName(key) !== "Uint8Array") {
    throw new TypeError(`key: must be a string or a Uint8Array (such as a Buffer), not ${describe(key)}`);
  }
  const bytes: Uint8Array = key;
  if (bytes.length > limitOf(target)) return KEY_TOO_LONG;
  target.set(bytes);
  return (bytes.length << KEY_KIND_BITS) | KEY_BYTES;
}

function limitOf(target: Uint8Array): number {
  return Math.min(KEY_LIMIT, target.length);
}
