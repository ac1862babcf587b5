/** What the tests of snapshots share. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable, Writable } from "node:stream";
import {
  type Cache,
  type CreateOptions,
  createCache,
  type ExportOptions,
  exportCache,
  type ImportOptions,
  importCache,
} from "cache-machine";
import { afterAll, afterEach } from "vitest";
import { seeded } from "../contract/seeded.ts";

export const SEED: number = Number(process.env.SEED ?? 20_261_127);
const opened = new Set<Cache<any, any>>();
let caches = 0;

/** A folder for the files of a test file. */
export function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "cache-machine-snapshot-"));
  afterAll(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Closes after each test what {@link create} has made. */
export function closeEach(): void {
  afterEach(() => {
    for (const cache of opened) cache.close();
    opened.clear();
  });
}

export function create(options: CreateOptions = {}): Cache<any, any> {
  const cache = seeded(SEED + caches++, () => createCache<any, any>({ size: "4mb", ...options }));
  opened.add(cache);
  return cache;
}

/** The bytes of a snapshot. */
export async function bytesOf(cache: Cache<any, any>, options?: ExportOptions): Promise<Buffer> {
  const parts: Buffer[] = [];
  const to = new Writable({
    write(chunk, _encoding, done) {
      parts.push(Buffer.from(chunk));
      done();
    },
  });
  await exportCache(cache, to, options);
  return Buffer.concat(parts);
}

/** Imports bytes, in pieces if it is told how long they are. */
export function importBytes(cache: Cache<any, any>, bytes: Uint8Array, options?: ImportOptions, piece = bytes.length) {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += piece) pieces.push(bytes.subarray(at, at + piece));
  return importCache(cache, Readable.from(pieces, { objectMode: true }), options);
}

/** What a result says of a snapshot from which everything was added. */
export const WHOLE = {
  present: 0,
  expired: 0,
  full: 0,
  tooLarge: 0,
  busy: 0,
  evicted: 0,
  damaged: 0,
  truncated: false,
  outdated: false,
};
