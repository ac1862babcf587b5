/**
 * The names of the tier's keys on the server, and back. Two different keys never get the same name. All names are well-formed
 * text, so every client library can send and receive them.
 *
 *     value    P v:{<scope><key>}     what the hosts' memories follow by the server's tracking of the prefix `P v:`
 *     loading  P l:{<scope><key>}     the loads of the key that are under way; not tracked
 *     tag      P t:{t}<scope>:<tag>   when the tag was last invalidated; tracked by the prefix `P t:`
 *     clock    P c:{t}                the latest time that was given to a tag or to an entry with tags; not tracked
 *
 *     <scope>  for each namespace `n`, the length of its name in UTF-16 units, `:`, the name
 *     <key>    `:` and the text │ `b` and base64url of the bytes │ `w` and base64url of the UTF-16 of text with lone surrogates
 *
 * In a cluster a key's slot is the hash of the text between the first `{` and the next `}`, if there is any text. A value and its
 * loading key have the same text there, whatever the key is: `<scope><key>` is never empty and never begins with `}`. All tags and
 * the clock have `t`.
 */

import { CacheError, type Key } from "../index.ts";
import { describe, typedArrayName } from "../values/describe.ts";

/** The bytes of the longest key, as in `Cache`: text counts in UTF-8, or in UTF-16 if it has lone surrogates. */
const KEY_LIMIT = 4096;
/** The most bytes of a prefix. */
const PREFIX_LIMIT = 255;
/** Characters that a glob pattern of SCAN takes for themselves only after a backslash. Braces are of no use in a pattern: see {@link Names.pattern}. */
const SPECIAL = /[\\*?[\]^{}-]/g;

/** What a name stands for. */
export type Named = { kind: "value"; path: string[]; key: Key } | { kind: "tag"; path: string[]; tag: string };

/** The names under one prefix. */
export class Names {
  /** The prefixes of the names that the server tracks for the hosts: values and tags. */
  readonly tracked: readonly [string, string];
  /** The key of the tags' clock. */
  readonly clock: string;
  readonly #values: string;
  readonly #loadings: string;
  readonly #tags: string;

  /**
   * @param prefix - what all names begin with. A part in braces, as in `"{app}:"`, puts everything into one slot of a cluster.
   * @throws {TypeError} when it is no string.
   * @throws {RangeError} when it is empty, longer than 255 bytes, or not well-formed, or when its first `{` opens no text that
   * a `}` closes: then a cluster would put a value and its loading key into different slots.
   */
  constructor(prefix: string) {
    checkPrefix(prefix);
    this.tracked = [`${prefix}v:`, `${prefix}t:`];
    this.clock = `${prefix}c:{t}`;
    this.#values = `${prefix}v:{`;
    this.#loadings = `${prefix}l:{`;
    this.#tags = `${prefix}t:{t}`;
  }

  /**
   * Whether a key is short enough. With a longer one there is no entry.
   *
   * @throws {TypeError} when it is neither a string nor bytes.
   */
  fits(key: Key): boolean {
    return lengthOf(key) <= KEY_LIMIT;
  }

  /**
   * The name of a value.
   *
   * @throws {TypeError} when the key is neither a string nor bytes.
   * @throws {CacheError} `ERR_TOO_LARGE` when it is too long.
   */
  value(path: readonly string[], key: Key): string {
    return `${this.#values}${scope(path)}${textOf(key)}}`;
  }

  /** The name of the loads of a key. Throws as {@link value}. */
  loading(path: readonly string[], key: Key): string {
    return `${this.#loadings}${scope(path)}${textOf(key)}}`;
  }

  /** The name of the value to which the name of a loading key belongs, and the other way round. */
  partner(name: string): string {
    const isValue = name.startsWith(this.#values);
    return `${isValue ? this.#loadings : this.#values}${name.slice(this.#values.length)}`;
  }

  /** The name of a tag, which the caller has checked: well-formed text that is not empty. */
  tag(path: readonly string[], tag: string): string {
    return `${this.#tags}${scope(path)}:${tag}`;
  }

  /**
   * What a name stands for, such as one of a push or of SCAN. `undefined` for a name that {@link value} and {@link tag} never
   * make, such as that of another program.
   */
  parse(name: string): Named | undefined {
    const found = this.#read(name);
    if (found === undefined) return undefined;
    // There are texts that can be read and are never written, such as a length with a leading zero, or base64 with spare bits.
    const { path } = found;
    const same = found.kind === "tag" ? this.tag(path, found.tag) : this.#valueIfFits(path, found.key);
    return same === name ? found : undefined;
  }

  #read(name: string): Named | undefined {
    if (name.startsWith(this.#tags)) {
      const { path, rest } = unscope(name.slice(this.#tags.length));
      return rest.length > 1 && rest.startsWith(":") ? { kind: "tag", path, tag: rest.slice(1) } : undefined;
    }
    if (!name.startsWith(this.#values) || !name.endsWith("}")) return undefined;
    const { path, rest } = unscope(name.slice(this.#values.length, -1));
    const key = keyOf(rest);
    return key === undefined ? undefined : { kind: "value", path, key };
  }

  #valueIfFits(path: readonly string[], key: Key): string | undefined {
    return this.fits(key) ? this.value(path, key) : undefined;
  }

  /**
   * The pattern by which SCAN finds the values, or the loading keys, of a scope and of the scopes within.
   *
   * Braces are escaped, because newer servers take a pattern with a part in braces for one of a single slot.
   */
  pattern(path: readonly string[], kind: "value" | "loading" = "value"): string {
    const start = `${kind === "value" ? this.#values : this.#loadings}${scope(path)}`;
    return `${start.replace(SPECIAL, "\\$&")}*`;
  }
}

function checkPrefix(prefix: unknown): void {
  if (typeof prefix !== "string") throw new TypeError(`prefix: must be a string, not ${describe(prefix)}`);
  if (prefix === "")
    throw new RangeError("prefix: must not be empty. Use the name of the application, such as `app:`.");
  if (!isWellFormed(prefix)) throw new RangeError("prefix: must be well-formed Unicode, without lone surrogates");
  const bytes = Buffer.byteLength(prefix);
  if (bytes > PREFIX_LIMIT) {
    throw new RangeError(`prefix: has ${bytes} bytes of UTF-8, the limit is ${PREFIX_LIMIT}. Use a shorter one.`);
  }
  const open = prefix.indexOf("{");
  if (open >= 0 && prefix.indexOf("}", open) <= open + 1) {
    throw new RangeError(
      "prefix: its first `{` must be followed by text and a `}`, because a cluster puts all keys with the same text there into " +
        "one slot. Leave the brace out.",
    );
  }
}

function scope(path: readonly string[]): string {
  let text = "";
  for (const name of path) text += `n${name.length}:${name}`;
  return text;
}

/** Takes the namespaces off the front of a text. */
function unscope(text: string): { path: string[]; rest: string } {
  const path: string[] = [];
  let at = 0;
  while (text.charAt(at) === "n") {
    const colon = text.indexOf(":", at);
    const length = Number(text.slice(at + 1, colon));
    if (colon < 0 || !Number.isSafeInteger(length) || length > text.length) return { path, rest: "" };
    path.push(text.slice(colon + 1, colon + 1 + length));
    at = colon + 1 + length;
  }
  return { path, rest: text.slice(at) };
}

function textOf(key: Key): string {
  const length = lengthOf(key);
  if (length > KEY_LIMIT) throw keyTooLong(key, length);
  if (typeof key !== "string") return `b${Buffer.from(key.buffer, key.byteOffset, key.length).toString("base64url")}`;
  return isWellFormed(key) ? `:${key}` : `w${Buffer.from(key, "utf16le").toString("base64url")}`;
}

function keyOf(text: string): Key | undefined {
  const rest = text.slice(1);
  switch (text.charAt(0)) {
    case ":":
      return rest;
    case "b":
      return Buffer.from(rest, "base64url");
    case "w":
      return Buffer.from(rest, "base64url").toString("utf16le");
    default:
      return undefined;
  }
}

/** The length of a key in bytes, or a lower bound above the limit. */
function lengthOf(key: Key): number {
  if (typeof key === "string") {
    if (key.length > KEY_LIMIT) return key.length;
    return isWellFormed(key) ? Buffer.byteLength(key) : key.length * 2;
  }
  if (!(key instanceof Uint8Array) && typedArrayName(key) !== "Uint8Array") {
    throw new TypeError(`key: must be a string or a Uint8Array (such as a Buffer), not ${describe(key)}`);
  }
  return (key as Uint8Array).length;
}

function keyTooLong(key: Key, length: number): CacheError {
  let has = `${length} bytes`;
  if (typeof key === "string") {
    has = isWellFormed(key)
      ? `${Buffer.byteLength(key)} bytes of UTF-8`
      : `${key.length * 2} bytes of UTF-16 (it has lone surrogates)`;
  }
  const remedy = "Use a shorter key, such as a hash of this one.";
  return new CacheError("ERR_TOO_LARGE", `key: has ${has}, the limit is ${KEY_LIMIT}. ${remedy}`);
}

/** Whether UTF-8 can express the text. It cannot express a lone surrogate. */
function isWellFormed(text: string): boolean {
  return (text as unknown as { isWellFormed(): boolean }).isWellFormed();
}
