/** Filling a cache from a snapshot. Node.js only. */

import { createReadStream } from "node:fs";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import type { Cache } from "../cache/cache.ts";
import type { View } from "../cache/view.ts";
import { describe } from "../values/describe.ts";
import { checkCodec } from "./codec.ts";
import { type Header, readEntries } from "./format.ts";
import { checkCache, checkImport, type ImportOptions, type ImportResult, type SnapshotSource } from "./options.ts";
import { Pace } from "./pace.ts";
import { Blocks } from "./read.ts";
import { type Fate, Restore } from "./restore.ts";

/** Bytes that are read from a file at once. */
const READ_BYTES = 1 << 20;
/** Two clocks that differ by less count as the same. They are read one after the other. */
const SAME_CLOCK_MS = 1000;
/** Entries after which the clock is looked at. */
const LOOK_EVERY = 64;
/** Bytes of a value that takes a noticeable time. */
const LARGE = 65_536;

/** Where a snapshot is read from. */
interface Source {
  readonly stream: Readable;
  /** Names it in errors. */
  readonly name: string;
  readonly total: number | undefined;
}

/**
 * Adds the entries of a snapshot, which {@link exportCache} has written, to a cache or a namespace. A key that has an entry keeps it:
 * what is there is newer than the snapshot. The cache stays in use meanwhile, and several processes may import at once.
 *
 * An entry gets the namespace, the tags, the grace and the expiry that it had. It expires at the moment of the wall clock at which it
 * would have expired in the cache that was exported; entries whose time has come are not added. What was deleted or invalidated
 * after the export is in the snapshot, and so comes back: entries without an expiry need a `maxAge`, or keys with a version.
 *
 * When the cache is full, that is when it begins to evict, nothing more is added. A snapshot has the hottest entries first, so a
 * smaller cache gets those. The rest of the snapshot is read and counted.
 *
 * Any bytes are safe. Each block of a snapshot has a checksum: a damaged one costs the entries in it, and a snapshot that was cut off
 * costs what is missing. The result tells.
 *
 * @param cache - what `openCache`, `createCache` or `attachCache` has returned, or a namespace of it, in which the namespaces of the
 * snapshot are then.
 * @param from - the path or the `file:` URL of a file, a `Readable` of Node.js that gives bytes, or a `ReadableStream`. A stream is
 * read to its end, and destroyed then and after an error.
 * @returns how many entries were added, and why others were not.
 * @throws {TypeError} and {RangeError} (as a rejection, like all others) for a wrong argument.
 * @throws {CacheError} `ERR_DATA`, before anything is added, when this is no snapshot, one of another format, or one of a cache with
 * another `codec`; `ERR_CLOSED` when the cache is closed in this thread before the end. Errors of the file system (such as `ENOENT`), of
 * the stream, of the clock and of `onProgress`, and the reason of the `signal`, are passed on. Entries that were added before stay.
 */
export async function importCache(
  cache: Cache<any, any>,
  from: SnapshotSource,
  options?: ImportOptions,
): Promise<ImportResult> {
  const view = checkCache(cache);
  const checked = checkImport(options);
  const { signal } = checked;
  view.opening.checkOpen();
  signal?.throwIfAborted();
  const source = await open(from);
  if (signal !== undefined) process.getBuiltinModule("node:stream").addAbortSignal(signal, source.stream);
  try {
    return await fill(view, source, checked);
  } catch (error) {
    throw signal?.aborted === true ? signal.reason : error;
  } finally {
    source.stream.destroy();
  }
}

async function open(from: SnapshotSource): Promise<Source> {
  if (typeof from === "string" || from instanceof URL) {
    const path = typeof from === "string" ? from : fileURLToPath(from);
    const stats = await process.getBuiltinModule("node:fs/promises").stat(path);
    return {
      stream: createReadStream(path, { highWaterMark: READ_BYTES }),
      name: path,
      total: stats.isFile() ? stats.size : undefined,
    };
  }
  const { getReader, on, destroy } = (from ?? {}) as Partial<ReadableStream & Readable>;
  if (typeof getReader === "function") {
    // The two declarations of a ReadableStream, of Node.js and of the web, differ in name only.
    const web = from as unknown as Parameters<typeof Readable.fromWeb>[0];
    return {
      stream: process.getBuiltinModule("node:stream").Readable.fromWeb(web),
      name: "the stream",
      total: undefined,
    };
  }
  if (typeof on === "function" && typeof destroy === "function" && Symbol.asyncIterator in from) {
    return { stream: from as unknown as Readable, name: "the stream", total: undefined };
  }
  throw new TypeError(`from: must be the path of a file, a Readable or a ReadableStream, not ${describe(from)}`);
}

async function fill(
  view: View,
  { stream, name, total }: Source,
  { maxAge, signal, onProgress }: ImportOptions & { maxAge: number },
): Promise<ImportResult> {
  const pace = new Pace(signal);
  const blocks = new Blocks(stream[Symbol.asyncIterator](), pace);
  const header = await blocks.header(name);
  checkCodec(view, header.codec, name);
  const counts: Record<Fate, number> = { added: 0, present: 0, expired: 0, full: 0, tooLarge: 0, busy: 0, damaged: 0 };
  const outdated = Date.now() - header.created > maxAge;
  const before = view.engine.counts().evictions;
  if (!outdated) {
    const restore = new Restore(view, shiftOf(view, header));
    for await (const content of blocks.contents()) {
      if (!(await addBlock(restore, content, counts, pace))) blocks.damaged++;
      onProgress?.({ entries: counts.added, bytes: blocks.read, total });
    }
  }
  view.opening.checkOpen();
  const { added, present, expired, full, tooLarge, busy } = counts;
  return {
    entries: added,
    present,
    expired,
    full,
    tooLarge,
    busy,
    evicted: view.engine.counts().evictions - before,
    damaged: blocks.damaged,
    truncated: blocks.truncated,
    outdated,
    createdAt: header.created,
    name: header.name,
    bytes: blocks.read,
  };
}

/** Adds the entries of a block. Returns false when one of them is none. */
async function addBlock(
  restore: Restore,
  content: Uint8Array,
  counts: Record<Fate, number>,
  pace: Pace,
): Promise<boolean> {
  restore.begin();
  let steps = 0;
  let isWhole = true;
  for (const entry of readEntries(content)) {
    const fate = entry === undefined ? "damaged" : restore.put(entry);
    counts[fate]++;
    if (fate === "damaged") isWhole = false;
    const isLarge = entry !== undefined && entry.value.length > LARGE;
    if ((++steps % LOOK_EVERY === 0 || isLarge) && pace.isDue) {
      await pace.rest();
      restore.begin();
    }
  }
  restore.end();
  return isWhole;
}

/**
 * Milliseconds from times of the exported cache's clock to times of this one's. Both clocks are compared with the wall clock. Where
 * they are wall clocks, times stay what they are. A clock that begins anew with each start of the machine gives other times to the
 * same moments.
 */
function shiftOf(view: View, { clock, created }: Header): number {
  const shift = view.now() - Date.now() - (clock - created);
  return Math.abs(shift) < SAME_CLOCK_MS ? 0 : shift;
}
