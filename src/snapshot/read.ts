/** Reading the blocks of a snapshot from a stream of bytes, also when some of them are damaged or missing. */

import { badData } from "../errors.ts";
import { describe, typedArrayName } from "../values/describe.ts";
import { FORMAT as VALUES } from "../values/portable.ts";
import { crc32c } from "./crc32c.ts";
import {
  BLOCK_END,
  BLOCK_ENTRIES,
  BLOCK_HEADER,
  FORMAT,
  HEAD_BYTES,
  HEADER_BYTES,
  type Head,
  type Header,
  MAGIC,
  MAGIC_BYTES,
  parseContent,
  readHead,
} from "./format.ts";
import type { Pace } from "./pace.ts";

const CRC_SLICE = 1 << 20;
const NOTHING: Buffer = Buffer.alloc(0);

/** The bytes of a stream, of which as many are kept as the reader asks for. */
class Bytes {
  /** Bytes that the stream has given. */
  read = 0;
  /** Bytes that were read and not skipped yet. */
  kept: Buffer = NOTHING;
  readonly #source: AsyncIterator<unknown>;
  #ended = false;

  constructor(source: AsyncIterator<unknown>) {
    this.#source = source;
  }

  /** Reads until `length` bytes are kept. Returns false when the stream ends before. */
  async have(length: number): Promise<boolean> {
    const parts: Buffer[] = [this.kept];
    let sum = this.kept.length;
    while (sum < length && !this.#ended) {
      const { done, value } = await this.#source.next();
      if (done) {
        this.#ended = true;
        break;
      }
      if (typedArrayName(value) !== "Uint8Array") {
        throw new TypeError(`from: the stream must give bytes (Uint8Array), not ${describe(value)}`);
      }
      const chunk = value as Uint8Array;
      parts.push(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length));
      sum += chunk.length;
      this.read += chunk.length;
    }
    if (parts.length > 1) this.kept = Buffer.concat(parts, sum);
    return sum >= length;
  }

  /** Reads the rest: who writes to the other end of a pipe has more to do after the last block. */
  async drain(): Promise<void> {
    do this.kept = NOTHING;
    while (await this.have(1));
  }

  skip(length: number): void {
    this.kept = this.kept.subarray(length);
  }
}

/** The blocks of one snapshot. */
export class Blocks {
  /** Blocks that are damaged or missing. */
  damaged = 0;
  /** Whether the stream has ended before the snapshot. */
  truncated = false;
  readonly #bytes: Bytes;
  readonly #pace: Pace;
  #id: Uint8Array = NOTHING;
  /** The number of the block of entries that comes next. */
  #next = 0;

  constructor(source: AsyncIterator<unknown>, pace: Pace) {
    this.#bytes = new Bytes(source);
    this.#pace = pace;
  }

  /** Bytes that were read. */
  get read(): number {
    return this.#bytes.read;
  }

  /**
   * Reads the header.
   *
   * @param source names the snapshot in errors
   * @throws {CacheError} `ERR_DATA` when this is no snapshot, or one of another format.
   */
  async header(source: string): Promise<Header> {
    const bytes = this.#bytes;
    await bytes.have(2 * HEADER_BYTES);
    const { kept } = bytes;
    if (kept.length === 0) throw badData(`from: ${source} is empty, so it is no snapshot. Export the cache again.`);
    for (const at of [0, HEADER_BYTES]) {
      const block = kept.subarray(at, at + HEADER_BYTES);
      const head = readHead(block);
      const content = block.subarray(HEAD_BYTES);
      if (head?.kind !== BLOCK_HEADER || head.length !== content.length || head.crc !== crc32c(content)) continue;
      const header = checkHeader(parseContent(content), source);
      this.#id = head.id;
      bytes.skip(2 * HEADER_BYTES);
      return header;
    }
    const begins = [0, HEADER_BYTES].some((at) => kept.subarray(at, at + MAGIC_BYTES).equals(MAGIC));
    throw badData(
      begins
        ? `from: the beginning of ${source} is damaged or cut off, so the snapshot cannot be read. Use an older one.`
        : `from: ${source} is not a snapshot of cache-machine. Pass what exportCache has written.`,
    );
  }

  /** The contents of the blocks of entries that are whole. */
  async *contents(): AsyncGenerator<Uint8Array, void, undefined> {
    const bytes = this.#bytes;
    for (;;) {
      await bytes.have(HEAD_BYTES);
      const head = this.#head();
      if (head === undefined) {
        if (!(await this.#findNext())) break;
        continue;
      }
      if (!(await bytes.have(HEAD_BYTES + head.length))) break;
      const content = bytes.kept.subarray(HEAD_BYTES, HEAD_BYTES + head.length);
      const isWhole = head.crc === (await this.#checksum(content));
      bytes.skip(HEAD_BYTES + head.length);
      if (head.number >= this.#next) {
        // Numbers that are left out belong to blocks whose heads are damaged.
        this.damaged += head.number - this.#next;
        this.#next = head.number;
        if (head.kind === BLOCK_END) return bytes.drain();
        this.#next++;
        if (isWhole && head.kind === BLOCK_ENTRIES) yield content;
        else this.damaged++;
      }
      if (this.#pace.isDue) await this.#pace.rest();
    }
    this.truncated = true;
  }

  #head(): Head | undefined {
    const head = readHead(this.#bytes.kept.subarray(0, HEAD_BYTES));
    return head?.id.every((byte, i) => byte === this.#id[i]) ? head : undefined;
  }

  /** Skips bytes until the next magic number. Returns whether there is one. */
  async #findNext(): Promise<boolean> {
    const bytes = this.#bytes;
    if (bytes.kept.length > 0) bytes.skip(1);
    while (await bytes.have(MAGIC_BYTES)) {
      const at = bytes.kept.indexOf(MAGIC);
      bytes.skip(at < 0 ? bytes.kept.length - MAGIC_BYTES + 1 : at);
      if (this.#pace.isDue) await this.#pace.rest();
      if (at >= 0) return true;
    }
    return false;
  }

  async #checksum(content: Uint8Array): Promise<number> {
    let crc = 0;
    for (let at = 0; at < content.length; at += CRC_SLICE) {
      crc = crc32c(content, at, Math.min(at + CRC_SLICE, content.length), crc);
      if (this.#pace.isDue) await this.#pace.rest();
    }
    return crc;
  }
}

/** Checks what a header says. @throws {CacheError} `ERR_DATA` when this version cannot read the snapshot. */
function checkHeader(header: Record<string, unknown> | undefined, source: string): Header {
  const { format, values, writer, created, clock, name, codec } = header ?? {};
  if (format !== FORMAT || values !== VALUES) {
    const made = typeof writer === "string" ? ` by ${writer.slice(0, 100)}` : "";
    throw badData(
      `from: ${source} has format ${String(format).slice(0, 20)}.${String(values).slice(0, 20)}, written${made}, and this version ` +
        `of cache-machine reads format ${FORMAT}.${VALUES}. Import it with the version that has written it.`,
    );
  }
  const isCodec = codec === undefined || (typeof codec === "object" && codec !== null);
  const { probe } = (isCodec ? (codec ?? {}) : {}) as { probe?: unknown };
  const isProbe = probe === undefined || typeof probe === "string";
  const isName = name === undefined || typeof name === "string";
  if (!Number.isFinite(created) || !Number.isFinite(clock) || !isCodec || !isProbe || !isName) {
    throw badData(`from: the header of ${source} is damaged, so the snapshot cannot be read. Use an older one.`);
  }
  return header as unknown as Header;
}
