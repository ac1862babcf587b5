/**
 * Values of the tier ↔ the bytes of their keys on the server. Hosts with different versions of the package may share a server, so the
 * first two bytes say whose the bytes are and in which version. Little endian; a number at an offset of bytes:
 *
 *     0      1        2      3          11          19          27         29
 *     │ 0xCA │ version │ flags │ expiresAt │ stamp     │ grace     │ tags     │ for each tag: length u16, UTF-8 │ body
 *     │      │ 1       │       │ f64, ms   │ f64, µs   │ f64, ms   │ u16      │                                 │
 *
 * - expiresAt: a time of the server's clock since 1970; `Infinity` for never; NaN: the server's own expiry, less the grace, counts.
 * - stamp: when the entry was stored, by the tags' clock. It is good while each tag was last invalidated before. Without tags: by the
 *   clock of its server.
 * - grace: how long after `expiresAt` the value may still be used. The server's own expiry is at the end of it.
 * - flags, bit 0: the body is the decimal text of a number, which scripts of the server can add to. Otherwise the body is what
 *   `cache.encode` has made. The other bits are 0.
 *
 * A later version keeps the first two bytes. It must take another number whenever this one would misread it.
 *
 * Nothing in the bytes is trusted: other programs write to the same server.
 */

import { CacheError } from "../index.ts";

/** The first byte of every value. It is never the first byte of UTF-8, so no text of another program begins with it. */
export const MARK = 0xca;
/** The version that this code writes and reads. */
export const VERSION = 1;
/** Offsets of bytes. `scripts.ts` has the same ones for Lua. */
export const EXPIRES_AT = 3;
const STAMP = 11;
const GRACE = 19;
const TAGS = 27;
/** The bytes before the tags. */
export const FIXED = 29;
/** The flag of a body that is the text of a number. */
const IS_NUMBER = 1;
/** The text of a number, as JavaScript and the `%.17g` of Lua write it. */
const NUMBER = /^(?:NaN|-?Infinity|-?\d+(?:\.\d+)?(?:e[+-]\d+)?)$/;
/** As for `Cache`: the most tags of an entry, and the most bytes of a tag. */
const MOST_TAGS = 128;
const LONGEST_TAG = 256;
/** The most bytes of a string on the server (`proto-max-bulk-len`). */
export const LARGEST: number = 512 * 1024 * 1024;

const strict: TextDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Turns values into bytes and back: the methods of `Cache` with these names. */
export interface ValueBytes {
  encode(value: unknown): Uint8Array;
  decode(bytes: Uint8Array): unknown;
}

/** What stands before the body. */
export interface Head {
  readonly isNumber: boolean;
  /** Milliseconds of the server's clock; `Infinity` for never, NaN when only the server's own expiry tells. */
  readonly expiresAt: number;
  /** Microseconds. */
  readonly stamp: number;
  /** Milliseconds. */
  readonly grace: number;
  readonly tags: string[];
  /** Where the body begins. */
  readonly length: number;
}

/**
 * The bytes of an entry. A stamp of tags comes with {@link putStamp}. The server fills in the expiry, and the stamp of an entry without tags: see
 * `scripts.ts`.
 *
 * @throws {TypeError} and {RangeError} for tags, as `Cache.set`.
 * @throws {CacheError} `ERR_TOO_LARGE` for a value that no server takes; what `codec.encode` throws.
 */
export function encodeEntry(
  value: unknown,
  { grace, tags }: { readonly grace: number; readonly tags: readonly string[] },
  codec: ValueBytes,
): Buffer {
  const isNumber = typeof value === "number";
  const body = isNumber ? Buffer.from(textOfNumber(value)) : codec.encode(value);
  const names = encodeTags(tags);
  const length = names.reduce((sum, each) => sum + 2 + each.length, FIXED);
  if (length + body.length > LARGEST) throw tooLarge(length + body.length);
  const bytes = Buffer.allocUnsafe(length + body.length);
  bytes[0] = MARK;
  bytes[1] = VERSION;
  bytes[2] = isNumber ? IS_NUMBER : 0;
  bytes.writeDoubleLE(Number.POSITIVE_INFINITY, EXPIRES_AT);
  bytes.writeDoubleLE(0, STAMP);
  bytes.writeDoubleLE(grace, GRACE);
  bytes.writeUInt16LE(names.length, TAGS);
  let at = FIXED;
  for (const name of names) {
    at = bytes.writeUInt16LE(name.length, at);
    bytes.set(name, at);
    at += name.length;
  }
  bytes.set(body, at);
  return bytes;
}

/** Gives the stamp to bytes that {@link encodeEntry} has made. */
export function putStamp(bytes: Buffer, stamp: number): void {
  bytes.writeDoubleLE(stamp, STAMP);
}

/** `ERR_TOO_LARGE` for a value of so many bytes; without a number when the server has found out. */
export function tooLarge(length?: number): CacheError {
  const has = length === undefined ? "more bytes than the server takes" : `${length} bytes with its key's tags`;
  return new CacheError(
    "ERR_TOO_LARGE",
    `value: has ${has}; a server takes ${LARGEST} at most, or what \`proto-max-bulk-len\` says. The old value was kept.`,
  );
}

/** Checks tags and returns their bytes, each tag once. @throws {TypeError} and {RangeError} */
export function encodeTags(tags: readonly string[]): Buffer[] {
  if (tags.length > MOST_TAGS) throw new RangeError(`tags: at most ${MOST_TAGS} are allowed, not ${tags.length}`);
  return [...new Set(tags)].map((tag) => {
    if (typeof tag !== "string") throw new TypeError(`tags: must be strings, not ${typeof tag}`);
    if (!(tag as unknown as { isWellFormed(): boolean }).isWellFormed()) {
      throw new RangeError("tags: must be well-formed Unicode, without lone surrogates");
    }
    const text = Buffer.from(tag);
    if (text.length === 0 || text.length > LONGEST_TAG) {
      throw new RangeError(`tags: each must have 1 to ${LONGEST_TAG} bytes of UTF-8, not ${text.length}`);
    }
    return text;
  });
}

/**
 * Reads what stands before the body.
 *
 * @throws {CacheError} `ERR_DATA` for bytes of another program, of another version, or damaged ones.
 */
export function decodeHead(bytes: Buffer): Head {
  if (bytes[0] !== MARK) {
    throw badData("is of another program", "Give the tier another `prefix`, or delete the key.");
  }
  const version = bytes[1];
  if (version === undefined || version === 0) throw damaged("its version is missing");
  const flags = bytes[2] ?? 0;
  if (version !== VERSION || flags > IS_NUMBER) {
    const which = version === VERSION ? `flags ${flags}` : `version ${version}`;
    throw badData(
      `was stored by another version of cache-machine (${which} of the format; this one knows version ${VERSION})`,
      "Use the same version on all hosts, or give each version another `prefix`.",
    );
  }
  if (bytes.length < FIXED) throw damaged("it is too short");
  const expiresAt = bytes.readDoubleLE(EXPIRES_AT);
  const stamp = bytes.readDoubleLE(STAMP);
  const grace = bytes.readDoubleLE(GRACE);
  if (expiresAt === Number.NEGATIVE_INFINITY) throw damaged("its expiry is no time");
  // Written so that NaN fails too.
  if (!(stamp >= 0 && stamp < Number.POSITIVE_INFINITY)) throw damaged("its stamp is no time");
  if (!(grace >= 0)) throw damaged("its grace is no time");
  const tags: string[] = [];
  let at = FIXED;
  const count = bytes.readUInt16LE(TAGS);
  if (count > MOST_TAGS) throw damaged(`it claims ${count} tags`);
  for (let i = 0; i < count; i++) {
    const length = at + 2 <= bytes.length ? bytes.readUInt16LE(at) : 0;
    at += 2;
    if (length === 0 || length > LONGEST_TAG || at + length > bytes.length) throw damaged("a tag has a wrong length");
    tags.push(textOf(bytes.subarray(at, at + length)));
    at += length;
  }
  return { isNumber: flags === IS_NUMBER, expiresAt, stamp, grace, tags, length: at };
}

/** The bytes of the expiry and the stamp: the same for the same entry, and hardly ever for another one of the key. */
export function markOf(bytes: Buffer): Buffer {
  return bytes.subarray(EXPIRES_AT, GRACE);
}

/**
 * Reads the value that follows a head.
 *
 * @throws {CacheError} `ERR_DATA` when it is damaged or cannot be read here; `cause` is the error of `decode`.
 */
export function decodeBody(bytes: Buffer, head: Head, codec: ValueBytes): unknown {
  const body = bytes.subarray(head.length);
  if (head.isNumber) return numberOf(body.toString("latin1"));
  try {
    return codec.decode(body);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw badData(
      `cannot be read here (${why.replace(/[.]$/, "")})`,
      "Use the `codec` that has stored it, or store it again.",
      error,
    );
  }
}

/** A number as text. `String` would make -0 a 0. */
export function textOfNumber(number: number): string {
  return Object.is(number, -0) ? "-0" : String(number);
}

/** The number that a body, or an answer of a script, has as text. @throws {CacheError} `ERR_DATA` */
export function numberOf(text: string): number {
  if (!NUMBER.test(text)) throw damaged("its number is none");
  return Number(text);
}

function textOf(bytes: Buffer): string {
  try {
    return strict.decode(bytes);
  } catch {
    throw damaged("a tag is no text");
  }
}

/** `ERR_DATA` for what stands at a key. */
export function badData(what: string, remedy: string, cause?: unknown): CacheError {
  const options = cause === undefined ? undefined : { cause };
  return new CacheError("ERR_DATA", `key: its value on the server ${what}. ${remedy}`, options);
}

function damaged(how: string): CacheError {
  return badData(`is damaged (${how})`, "Delete the key, or store it again.");
}
