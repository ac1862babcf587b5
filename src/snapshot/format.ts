/**
 * The bytes of a snapshot. It is a row of blocks. Each begins with a head that alone says where the next one begins, so a damaged
 * block costs no other:
 *
 *     byte  0  the magic number
 *           8  the id of the snapshot, random: a value may hold another snapshot, whose blocks must not count as blocks of this one
 *          16  what the block is: BLOCK_…
 *          20  its number, from 0 for the first block of entries
 *          24  bytes of the content
 *          28  CRC-32C of the content
 *          32  CRC-32C of the bytes 0 to 31
 *          36  the content
 *
 * The first two blocks are the header, twice, each of `HEADER_BYTES`. Then come blocks of entries, and a block with the totals. Header
 * and totals are JSON. All numbers are little-endian. A head, and where the header lies, stay the same in every version of the
 * format. The header says which version the rest has.
 *
 * An entry:
 *
 *     byte  0  bytes of the value
 *           4  bytes of the key
 *           6  bytes of the tags, with their lengths
 *           8  key kind (`values/key.ts`), 9 value type (`values/value-types.ts`)
 *          10  bytes of the namespace
 *          11  flags: 1 it has an expiry, 2 it has a grace
 *          12  expiry and grace in milliseconds, eight bytes each, only those that it has; the expiry in time of the cache's clock
 *              the namespace, the key, the tags (two bytes of length before each), the value as its codec encoded it
 */

import { KEY_BYTES, KEY_ILL_FORMED, KEY_STRING, LIMIT_BYTES, LIMIT_TYPE, NUMBER_TYPE } from "../engine/contract.ts";
import { KEY_LIMIT } from "../values/key.ts";
import { encoder, runtime } from "../values/runtime.ts";
import { canBeWritten } from "../values/tags.ts";
import { crc32c } from "./crc32c.ts";

/** The version of the format that this version of the package writes, and the only one that it reads. */
export const FORMAT = 1;

export const BLOCK_HEADER = 1;
export const BLOCK_ENTRIES = 2;
export const BLOCK_END = 3;

export const HEAD_BYTES = 36;
/** Bytes of a header with its head, filled up with spaces. */
export const HEADER_BYTES = 4096;
/** Bytes of a block of many entries, with its head. An entry that is larger has a block of its own. */
export const BLOCK_BYTES = 65_536;
/** No content is longer: the longest value has 256 MiB. */
export const MAX_CONTENT: number = (256 << 20) + BLOCK_BYTES;

export const MAGIC_BYTES = 8;
/** The first byte is in no text, and the last one is changed where a text's ends of lines are changed. */
export const MAGIC: Uint8Array = Uint8Array.of(0x93, 0x43, 0x4d, 0x53, 0x4e, 0x41, 0x50, 0x0a);
const ID_BYTES = 8;
const HEAD_CRC_AT = 32;

const ENTRY_BYTES = 12;
const TIME_BYTES = 8;
const TAG_LENGTH = 2;
const EXPIRES = 1;
const HAS_GRACE = 2;

/** The head of a block. */
export interface Head {
  readonly kind: number;
  readonly number: number;
  readonly length: number;
  readonly crc: number;
  readonly id: Uint8Array;
}

/** An entry as it lies in a snapshot. Its bytes may be a part of other memory, and are valid until that changes. */
export interface RawEntry {
  /** The id of its namespace within the one that was exported: see `namespaceId`. Empty for none. */
  readonly namespace: Uint8Array;
  readonly kind: number;
  readonly key: Uint8Array;
  readonly type: number;
  readonly value: Uint8Array;
  /** Milliseconds of the cache's clock; `Infinity` for never. */
  readonly expiry: number;
  readonly grace: number;
  readonly tags: readonly string[];
}

/** What the header of a snapshot says. */
export interface Header {
  readonly format: number;
  /** The version of the bytes of values: `values/portable.ts`. */
  readonly values: number;
  readonly writer: string;
  /** When the export began, by `Date.now()`, and by the clock of the cache at the same moment. */
  readonly created: number;
  readonly clock: number;
  readonly name?: string;
  /** Whether the cache had a `codec`, and what it made of a known value, in base64. */
  readonly codec?: { readonly probe?: string };
}

/** Writes the head of the block whose content lies in `block` behind the room for it. */
export function writeHead(block: Uint8Array, kind: number, number: number, id: Uint8Array, crc: number): void {
  const view = viewOf(block);
  block.set(MAGIC);
  block.set(id, MAGIC_BYTES);
  view.setUint32(16, kind, true);
  view.setUint32(20, number, true);
  view.setUint32(24, block.length - HEAD_BYTES, true);
  view.setUint32(28, crc, true);
  view.setUint32(HEAD_CRC_AT, crc32c(block, 0, HEAD_CRC_AT), true);
}

/** Reads the head at the beginning of `bytes`; `undefined` when there is none, or a damaged one. */
export function readHead(bytes: Uint8Array): Head | undefined {
  const view = viewOf(bytes);
  if (bytes.length < HEAD_BYTES || !MAGIC.every((byte, i) => byte === bytes[i])) return undefined;
  if (view.getUint32(HEAD_CRC_AT, true) !== crc32c(bytes, 0, HEAD_CRC_AT)) return undefined;
  const length = view.getUint32(24, true);
  if (length > MAX_CONTENT) return undefined;
  return {
    kind: view.getUint32(16, true),
    number: view.getUint32(20, true),
    length,
    crc: view.getUint32(28, true),
    id: bytes.slice(MAGIC_BYTES, MAGIC_BYTES + ID_BYTES),
  };
}

/** A new id of a snapshot. */
export function newId(): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(ID_BYTES));
}

/** A whole block with JSON. @param size bytes of the block, filled up with spaces; by default as many as it needs */
export function jsonBlock(kind: number, number: number, id: Uint8Array, content: object, size?: number): Uint8Array {
  const text = encoder.encode(JSON.stringify(content));
  const block = new Uint8Array(size ?? HEAD_BYTES + text.length).fill(0x20);
  block.set(text, HEAD_BYTES);
  writeHead(block, kind, number, id, crc32c(block, HEAD_BYTES));
  return block;
}

/** The JSON in the content of a block; `undefined` when it is no object. */
export function parseContent(content: Uint8Array): Record<string, unknown> | undefined {
  try {
    const parsed: unknown = JSON.parse(runtime.readUtf8(content, 0, content.length));
    return typeof parsed === "object" && parsed !== null ? (parsed as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** A block of entries that is being filled. */
export class EntryBlock {
  entries = 0;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = HEAD_BYTES;

  /** @param first bytes of the entry that comes first */
  constructor(first: number) {
    this.#bytes = new Uint8Array(Math.max(BLOCK_BYTES, HEAD_BYTES + first));
    this.#view = viewOf(this.#bytes);
  }

  /** Whether there is room for an entry of `size` bytes. */
  hasRoom(size: number): boolean {
    return size <= this.#bytes.length - this.#at;
  }

  /** Adds an entry, for which there is room. Copies its bytes. */
  add(entry: RawEntry, tags: readonly Uint8Array[]): void {
    const { namespace, kind, key, type, value, expiry, grace } = entry;
    const view = this.#view;
    const start = this.#at;
    view.setUint32(start, value.length, true);
    view.setUint16(start + 4, key.length, true);
    view.setUint16(start + 6, bytesOfTags(tags), true);
    view.setUint8(start + 8, kind);
    view.setUint8(start + 9, type);
    view.setUint8(start + 10, namespace.length);
    view.setUint8(start + 11, (expiry === Infinity ? 0 : EXPIRES) | (grace > 0 ? HAS_GRACE : 0));
    let at = start + ENTRY_BYTES;
    if (expiry !== Infinity) {
      view.setFloat64(at, expiry, true);
      at += TIME_BYTES;
    }
    if (grace > 0) {
      view.setFloat64(at, grace, true);
      at += TIME_BYTES;
    }
    const put = (bytes: Uint8Array): void => {
      this.#bytes.set(bytes, at);
      at += bytes.length;
    };
    put(namespace);
    put(key);
    for (const tag of tags) {
      view.setUint16(at, tag.length, true);
      at += TAG_LENGTH;
      put(tag);
    }
    put(value);
    this.#at = at;
    this.entries++;
  }

  /** The block without its head, which {@link writeHead} writes. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#at);
  }
}

/** Bytes of an entry in a block. */
export function sizeOf({ namespace, key, value, expiry, grace }: RawEntry, tags: readonly Uint8Array[]): number {
  const times = (expiry === Infinity ? 0 : TIME_BYTES) + (grace > 0 ? TIME_BYTES : 0);
  return ENTRY_BYTES + times + namespace.length + key.length + bytesOfTags(tags) + value.length;
}

function bytesOfTags(tags: readonly Uint8Array[]): number {
  return tags.reduce((sum, tag) => sum + TAG_LENGTH + tag.length, 0);
}

/**
 * Reads the entries of a block. Any bytes are safe: the last result is `undefined` when what follows is no entry. The bytes of an
 * entry are those of `content`.
 */
export function* readEntries(content: Uint8Array): Generator<RawEntry | undefined, void, undefined> {
  const view = viewOf(content);
  for (let start = 0; start < content.length; ) {
    if (content.length - start < ENTRY_BYTES) return yield undefined;
    const [valueBytes, keyBytes, tagBytes] = [
      view.getUint32(start, true),
      view.getUint16(start + 4, true),
      view.getUint16(start + 6, true),
    ];
    const [kind, type, namespaceBytes, flags] = content.subarray(
      start + 8,
      start + ENTRY_BYTES,
    ) as unknown as number[] as [number, number, number, number];
    const times = (flags & EXPIRES ? TIME_BYTES : 0) + (flags & HAS_GRACE ? TIME_BYTES : 0);
    let at = start + ENTRY_BYTES;
    const end = at + times + namespaceBytes + keyBytes + tagBytes + valueBytes;
    if (end > content.length || flags > (EXPIRES | HAS_GRACE)) return yield undefined;
    const time = (): number => {
      at += TIME_BYTES;
      return view.getFloat64(at - TIME_BYTES, true);
    };
    const part = (length: number): Uint8Array => {
      at += length;
      return content.subarray(at - length, at);
    };
    const expiry = flags & EXPIRES ? time() : Infinity;
    const grace = flags & HAS_GRACE ? time() : 0;
    const namespace = part(namespaceBytes);
    const key = part(keyBytes);
    const tags = readTagList(part(tagBytes));
    const entry = { namespace, kind, key, type, value: part(valueBytes), expiry, grace, tags: tags ?? [] };
    yield tags !== undefined && isEntry(entry) ? entry : undefined;
    start = end;
  }
}

/** Whether the parts of an entry are what an entry can have. */
function isEntry({ kind, key, type, value, expiry, grace }: RawEntry): boolean {
  if (kind !== KEY_STRING && kind !== KEY_BYTES && kind !== KEY_ILL_FORMED) return false;
  if (key.length > KEY_LIMIT || Number.isNaN(expiry) || !(grace >= 0)) return false;
  // The engine itself reads these two types.
  if (type === NUMBER_TYPE) return value.length === 8;
  return type === LIMIT_TYPE ? value.length === LIMIT_BYTES : type > 0;
}

function readTagList(bytes: Uint8Array): string[] | undefined {
  const view = viewOf(bytes);
  const tags: string[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = at + TAG_LENGTH <= bytes.length ? view.getUint16(at, true) : bytes.length;
    at += TAG_LENGTH;
    if (at + length > bytes.length) return undefined;
    tags.push(runtime.readUtf8(bytes, at, length));
    at += length;
  }
  return canBeWritten(tags) ? tags : undefined;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
