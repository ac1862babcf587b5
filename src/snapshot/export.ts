/** Writing a snapshot: the entries of a cache as blocks of bytes, to a file or to a stream. Node.js only. */

import type { FileHandle } from "node:fs/promises";
import type { Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import type { Cache } from "../cache/cache.ts";
import type { View } from "../cache/view.ts";
import { describe } from "../values/describe.ts";
import { FORMAT as VALUES } from "../values/portable.ts";
import { encoder } from "../values/runtime.ts";
import { ROOT } from "../values/scope.ts";
import { describeCodec } from "./codec.ts";
import { crc32c } from "./crc32c.ts";
import { replaceFile } from "./file.ts";
import {
  BLOCK_END,
  BLOCK_ENTRIES,
  BLOCK_HEADER,
  EntryBlock,
  FORMAT,
  HEAD_BYTES,
  HEADER_BYTES,
  type Header,
  jsonBlock,
  newId,
  sizeOf,
  writeHead,
} from "./format.ts";
import { checkCache, checkExport, type ExportOptions, type ExportResult, type SnapshotTarget } from "./options.ts";
import { Pace } from "./pace.ts";
import { Walk } from "./walk.ts";

/** Bytes of a content whose checksum is computed at once. */
const CRC_SLICE = 1 << 20;
/** Entries after which the clock is looked at, when none of them fills a block. */
const LOOK_EVERY = 64;

/**
 * Writes all entries of a cache, or of a namespace and the namespaces within it, to a file or a stream: a snapshot, from which
 * {@link importCache} fills a cache again. With each entry its namespace, tags, expiry and grace are kept. Left out are: entries that
 * have expired, locks, loads that are under way, near caches, and what a tier keeps in the cache.
 *
 * The hottest entries come first: those that were read most since they were stored, as far as the cache knows, which counts to three.
 * So a snapshot that is cut off has them, and so does a smaller cache that imports it.
 *
 * The cache stays in use meanwhile. Like iteration, the snapshot is weakly consistent: an entry that exists during the whole export and
 * is not overwritten is in it exactly once; one that is stored, overwritten, removed or evicted meanwhile may be in it or not, with a
 * value that it had meanwhile. Values pass as their encoded bytes. No getter and no `codec` runs for them, and the export needs
 * little memory: a block of 64 KiB, or one large value, and up to a 64th of the cache's size for the order.
 *
 * A file is replaced in one step at the end. Whatever happens before, also a `kill -9`, the file that was there stays as it was; a
 * temporary file that stays behind is removed by the next export to the same file. Only this user may read the file, because the
 * cache's content is in it.
 *
 * @param cache - what `openCache`, `createCache` or `attachCache` has returned, or a namespace of it.
 * @param to - the path or the `file:` URL of a file, a `Writable` of Node.js, or a `WritableStream`. A stream is ended at the end, and
 * destroyed after an error.
 * @returns what was written.
 * @throws {TypeError} (as a rejection, like all others) for a wrong argument.
 * @throws {CacheError} `ERR_CLOSED` when the cache is closed in this thread before the end. Errors of the file system, of the stream,
 * of the clock and of `onProgress`, and the reason of the `signal`, are passed on.
 */
export async function exportCache(
  cache: Cache<any, any>,
  to: SnapshotTarget,
  options?: ExportOptions,
): Promise<ExportResult> {
  const view = checkCache(cache);
  const checked = checkExport(options);
  const { signal } = checked;
  view.opening.checkOpen();
  signal?.throwIfAborted();
  const result: ExportResult = { entries: 0, bytes: 0, skipped: 0 };
  const bytes = snapshotOf(view, result, checked);
  try {
    if (typeof to === "string" || to instanceof URL) {
      const path = typeof to === "string" ? to : fileURLToPath(to);
      await replaceFile(path, (file) => writeAll(file, bytes));
    } else if (isWritable(to)) {
      const { Readable, promises } = process.getBuiltinModule("node:stream");
      await promises.pipeline(Readable.from(bytes, { objectMode: false }), to, { signal });
    } else if (isWebStream(to)) {
      const { Readable } = process.getBuiltinModule("node:stream");
      const web = Readable.toWeb(Readable.from(bytes)) as ReadableStream<Uint8Array>;
      // `pipeTo` waits for a write that is under way, also after an abort.
      await unlessAborted(web.pipeTo(to, signal ? { signal } : {}), signal);
    } else throw new TypeError(`to: must be the path of a file, a Writable or a WritableStream, not ${describe(to)}`);
  } catch (error) {
    throw signal?.aborted === true ? signal.reason : error;
  }
  return result;
}

/** The promise, or a rejection as soon as the signal is aborted. */
async function unlessAborted(promise: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) return promise;
  let stop: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop);
  });
  try {
    await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", stop as () => void);
  }
}

function isWebStream(to: unknown): to is WritableStream<Uint8Array> {
  return typeof (to as Partial<WritableStream> | null)?.getWriter === "function";
}

function isWritable(to: unknown): to is Writable {
  const { write, on } = (to ?? {}) as Partial<Writable>;
  return typeof write === "function" && typeof on === "function";
}

async function writeAll(file: FileHandle, bytes: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const block of bytes) {
    for (let at = 0; at < block.length; ) at += (await file.write(block, at)).bytesWritten;
  }
}

/** The bytes of a snapshot, block by block. Counts in `result`. */
async function* snapshotOf(
  view: View,
  result: ExportResult,
  { signal, onProgress }: ExportOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  const pace = new Pace(signal);
  const id = newId();
  const header = headerOf(view);
  const total = onProgress === undefined || view.scope !== ROOT ? undefined : view.census().entries;
  for (const number of [0, 1]) {
    const block = jsonBlock(BLOCK_HEADER, number, id, header, HEADER_BYTES);
    yield block;
    result.bytes += block.length;
  }
  let number = 0;
  for await (const block of blocksOf(view, result, pace)) {
    const { bytes } = block;
    writeHead(bytes, BLOCK_ENTRIES, number++, id, await checksum(bytes, pace));
    yield bytes;
    result.bytes += bytes.length;
    result.entries += block.entries;
    onProgress?.({ entries: result.entries, total, bytes: result.bytes });
    if (pace.isDue) await pace.rest();
  }
  const end = jsonBlock(BLOCK_END, number, id, { blocks: number, entries: result.entries });
  yield end;
  result.bytes += end.length;
}

/** The entries of a cache in blocks, whose heads are not written yet. */
async function* blocksOf(view: View, result: ExportResult, pace: Pace): AsyncGenerator<EntryBlock, void, undefined> {
  const walk = new Walk(view);
  let block: EntryBlock | undefined;
  let steps = 0;
  for (let step = walk.next(); step !== undefined; step = walk.next()) {
    const { entry } = step;
    if (step.failed) result.skipped++;
    if (entry !== undefined) {
      const tags = entry.tags.map((tag) => encoder.encode(tag));
      const size = sizeOf(entry, tags);
      let full: EntryBlock | undefined;
      if (block?.hasRoom(size) === false) [full, block] = [block, undefined];
      block ??= new EntryBlock(size);
      // Before anything is awaited: others use the memory in which the entry lies.
      block.add(entry, tags);
      if (full !== undefined) yield full;
    }
    if (++steps % LOOK_EVERY === 0 && pace.isDue) await pace.rest();
  }
  if (block !== undefined) yield block;
}

async function checksum(block: Uint8Array, pace: Pace): Promise<number> {
  let crc = 0;
  for (let at = HEAD_BYTES; at < block.length; at += CRC_SLICE) {
    crc = crc32c(block, at, Math.min(at + CRC_SLICE, block.length), crc);
    if (pace.isDue) await pace.rest();
  }
  return crc;
}

function headerOf(view: View): Header {
  const { name } = view.opening;
  const codec = describeCodec(view);
  return {
    format: FORMAT,
    values: VALUES,
    writer: "cache-machine",
    created: Date.now(),
    clock: view.now(),
    ...(name !== undefined && { name }),
    ...(codec !== undefined && { codec }),
  };
}
