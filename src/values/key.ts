/**
 * Keys ↔ bytes. Two strings that differ never get the same kind and bytes, lone surrogates included, so that the engine
 * may compare keys byte by byte. Relies on `text.ts`; knows nothing of the engine.
 */
import { CacheError } from "../errors.ts";
import { describe, type Host, host, isWellFormed, SHORT_TEXT, typedArrayKind } from "./runtime.ts";

/** The longest key, in bytes: of UTF-8 for a string, of UTF-16 for a string with lone surrogates. */
export const KEY_LIMIT = 4096;

/** Instead of kind and length: the key is too long. */
export const KEY_TOO_LONG = -1;

/** A string, stored as UTF-8. */
export const KEY_STRING = 0;
/** Bytes, stored as they are. */
export const KEY_BYTES = 1;
/** A string with lone surrogates, which UTF-8 cannot express: stored as UTF-16, little-endian. */
export const KEY_ILL_FORMED = 2;

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
   * @param target - private or shared memory; the limit is its length if that is below {@link KEY_LIMIT}. Bytes after
   * the key may be overwritten.
   * @returns kind and length in one number, so that nothing is allocated: see {@link keyKind} and {@link keyLength}.
   * Above that limit {@link KEY_TOO_LONG}: no entry has such a key, and {@link KeyCodec.tooLong} is the error of a store.
   * @throws TypeError when the key is neither a string nor bytes.
   */
  write(key: string | Uint8Array, target: Uint8Array): number {
    if (typeof key === "string") {
      const length = key.length;
      if (length > SHORT_TEXT || length > target.length) return this.#writeLong(key, target);
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
    if (bytes.length > limitOf(target)) return KEY_TOO_LONG;
    target.set(bytes);
    return (bytes.length << 2) | KEY_BYTES;
  }

  #writeLong(key: string, target: Uint8Array): number {
    const length = key.length;
    const limit = limitOf(target);
    // No character takes less than a byte, so there is no need to encode what cannot fit.
    if (length > limit) return KEY_TOO_LONG;
    const { read, written } = this.#host.encodeInto(key, target);
    if (written !== length && !isWellFormed(key)) {
      if (length * 2 > limit) return KEY_TOO_LONG;
      this.#host.writeUtf16(key, target, 0);
      return ((length * 2) << 2) | KEY_ILL_FORMED;
    }
    return read < length || written > limit ? KEY_TOO_LONG : written << 2;
  }

  /** What storing under a key throws that {@link write} found too long: `ERR_TOO_LARGE`. */
  tooLong(key: string | Uint8Array): CacheError {
    let told = `${key.length} bytes`;
    if (typeof key === "string") {
      const units = `${key.length * 2} bytes of UTF-16 (it has lone surrogates)`;
      told = isWellFormed(key) ? `${this.#host.utf8Length(key)} bytes of UTF-8` : units;
    }
    const message = `The key has ${told}, the limit is ${KEY_LIMIT}. Use a shorter key, such as a hash of this one.`;
    return new CacheError("ERR_TOO_LARGE", message);
  }

  /**
   * The key that {@link write} wrote.
   * @param kind - {@link KEY_STRING}, {@link KEY_BYTES} or {@link KEY_ILL_FORMED}.
   * @param source - private or shared memory; the result never aliases it.
   * @param start - in bytes.
   * @param length - in bytes.
   * @returns a string, or bytes (a `Buffer` where there is one); `undefined` for a kind that no key has.
   */
  read(kind: number, source: Uint8Array, start: number, length: number): string | Uint8Array | undefined {
    switch (kind) {
      case KEY_STRING:
        return this.#host.readUtf8(source, start, length);
      case KEY_BYTES:
        return this.#host.copy(source, start, length);
      case KEY_ILL_FORMED:
        return this.#host.readUtf16(source, start, length);
      default:
        return undefined;
    }
  }
}

function limitOf(target: Uint8Array): number {
  return Math.min(KEY_LIMIT, target.length);
}
