/**
 * Looks into a cache without being a participant: no seat, no write access, no trace. The file is opened for reading only and mapped
 * privately, so even a fault of this code could not change the cache. Nothing is written to the mapping, therefore each of its pages
 * stays the page of the file, and every look sees the present.
 *
 * Lookups of the engine need no seat: they copy what they find, and check afterwards that it still stood there. All numbers are read
 * while others write, so no report is a snapshot. Any bytes are safe. Only one thing ends a spectator, as it ends participants: a file
 * that somebody truncates while it is mapped (SIGBUS). Caches themselves never shrink a file.
 *
 * Node.js on Linux only.
 */

import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { dirname } from "node:path";
import { machineTime } from "../coordinate/clock.ts";
import {
  CLAIM_SEEN_LOADING,
  CLAIM_SEEN_PENDING,
  CLASS_SMALL,
  KEY_BYTES,
  KEY_ILL_FORMED,
  KEY_KIND_BITS,
  KEY_NAMESPACED,
  KEY_STRING,
  LAYOUT_VERSION,
  LIMIT_TYPE,
  MAX_CLAIM_NAME,
  NUMBER_TYPE,
  PHASE_FREE,
  PHASE_OPEN,
  PHASE_RECLAIM,
  PHASE_SEALED,
} from "../engine/contract.ts";
import { plan } from "../engine/plan.ts";
import { READER_BASE, Reader, type SeatWords, type SeenClaim } from "../engine/reader.ts";
import { closed, noCache, noFile, notOwner, replacedTooOften } from "../errors.ts";
import { allocateMemory } from "../memory/memory.ts";
import { identityOf } from "../memory/private-file.ts";
import { PAGE } from "../size.ts";
import { codeOf, unusable } from "../system/access.ts";
import { Native } from "../system/native.ts";
import { beginningsOf } from "../values/beginnings.ts";
import { ValueCodec } from "../values/codec.ts";
import { KeyCodec, keyKind, keyLength } from "../values/key.ts";
import { runtime } from "../values/runtime.ts";
import { pathOf, ROOT, type Scope, scopeOf } from "../values/scope.ts";
import { readTags } from "../values/tags.ts";
import {
  ARRAY_BUFFER,
  BIGINT,
  BINARY_CLASSES,
  BUFFER,
  CUSTOM,
  FALSE,
  LATIN1,
  NULL,
  STRUCTURED,
  TRUE,
  UTF16,
} from "../values/value-types.ts";
import { type ProcessState, processState } from "./processes.ts";
import type {
  CensusReport,
  EntryReport,
  Hold,
  KeyReport,
  KeysOptions,
  SeatReport,
  SeatState,
  SegmentReport,
  SpectatorStats,
  Verification,
} from "./reports.ts";

export type * from "./reports.ts";

/** Milliseconds between two looks at what is held: a change holds a bucket for less than a microsecond. */
const HOLD_MS = 5;
/** Looks of {@link Spectator.verify}, and milliseconds between them. */
const VERIFY_LOOKS = 3;
const VERIFY_MS = 50;
/** How often a large value is read again when it was replaced meanwhile, as a participant does. */
const READS = 8;
/** Most parts into which the index is divided for {@link Spectator.occupancy}: no index has fewer buckets. */
const INDEX_PARTS = 256;
/** Bytes of a mark in front of the name of a lock: see `coordinate/lock-name.ts`. */
const LOCK_MARK_BYTES = 8;

const SEGMENT_STATES: Record<number, SegmentReport["state"]> = {
  [PHASE_FREE]: "free",
  [PHASE_OPEN]: "open",
  [PHASE_SEALED]: "sealed",
  [PHASE_RECLAIM]: "reclaim",
};

const STATES: Record<ProcessState["state"], SeatState> = { running: "alive", stopped: "frozen", unseen: "unknown" };

/** The invariants of `wasm/src/entries/validate.rs`, by number. */
const BROKEN: Record<number, string> = {
  1: "an entry of the index leads to no record",
  2: "an entry of the index leads to the record of another key",
  3: "two entries of the index have the same key",
  4: "the state of a segment is none that the engine writes, or two lanes fill the same segment",
  5: "a large value has a chunk of another value",
  6: "the state of an entry does not fit its record",
};

/** A spectator of one cache file. Only the thread that opened it may use it. */
export class Spectator {
  /** The path of the file. */
  readonly path: string;
  /** Bytes of shared memory. */
  readonly size: number;
  /** The layout version of the file. */
  readonly layout: number = LAYOUT_VERSION;

  readonly #native: Native;
  readonly #fd: number;
  readonly #memory: WebAssembly.Memory;
  readonly #reader: Reader;
  readonly #identity: string;
  readonly #keys: KeyCodec = new KeyCodec();
  readonly #values: ValueCodec = new ValueCodec();
  #closed = false;

  /**
   * Opens the file of a cache for looking.
   *
   * The file may belong to another user, if this one may read it. Then its owner can end this process by truncating the file.
   *
   * @param file the path of the file, such as `/dev/shm/cache-machine-1000-app.v6`
   * @throws {TypeError} when `file` is not a string.
   * @throws {CacheError} `ERR_CLOSED` when there is no such file; `ERR_LAYOUT` when it is no cache of this layout version;
   * `ERR_NOT_OWNER` when this user may not read it; `ERR_UNSUPPORTED` on platforms without caches of processes; `ERR_NO_SPACE`
   * without descriptors or address space.
   */
  static open(file: string): Spectator {
    if (typeof file !== "string") throw new TypeError(`file: must be a path, not ${typeof file}`);
    const native = Native.load();
    const fd = openForReading(file);
    try {
      return new Spectator(native, fd, file);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  private constructor(native: Native, fd: number, path: string) {
    const size = sizeOf(fd, path);
    this.path = path;
    this.size = size;
    this.#native = native;
    this.#fd = fd;
    this.#identity = identityOf(fd);
    this.#memory = allocateMemory(READER_BASE, size);
    native.mapPrivate(fd, this.#memory, READER_BASE, size);
    this.#reader = new Reader(this.#memory, size, Date.now);
  }

  /** Unmaps the file and closes it. Everything else throws `ERR_CLOSED` from then on. May be called twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.unmap(this.#memory, READER_BASE, this.size);
    closeSync(this.#fd);
  }

  /** Closes the spectator: for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  get #open(): Reader {
    if (this.#closed) throw closed();
    return this.#reader;
  }

  /**
   * Sums of what participants have counted, and how much memory is in use. Does not walk the index.
   *
   * @throws {CacheError} `ERR_CLOSED`.
   */
  stats(): SpectatorStats {
    const reader = this.#open;
    let participants = 0;
    for (let at = reader.takenSeat(0); at !== undefined; at = reader.takenSeat(at.seat + 1)) participants++;
    const { size } = this;
    return {
      ...reader.counts(),
      nearHits: reader.nearHits(),
      ...reader.usage(),
      size,
      participants,
      seats: reader.seats,
    };
  }

  /** Counts the live entries. Walks the index. @throws {CacheError} `ERR_CLOSED`. */
  census(): CensusReport {
    return this.#open.census();
  }

  /** The segments of the memory as they are now. @throws {CacheError} `ERR_CLOSED`. */
  segments(): SegmentReport[] {
    return this.#open.segments().map(({ phase, class: queue, owner, ...rest }) => ({
      state: SEGMENT_STATES[phase] ?? "reclaim",
      class: className(queue),
      ...rest,
      owner: owner < 0 ? undefined : owner,
    }));
  }

  /**
   * How full the index is: entries and ghosts (traces of evicted entries) of each of its parts, and how many entries a part has room
   * for.
   *
   * @param parts a power of two up to 256; 256 by default
   * @throws {RangeError} for another number.
   * @throws {CacheError} `ERR_CLOSED`.
   */
  occupancy(parts: number = INDEX_PARTS): { room: number; parts: { live: number; ghosts: number }[] } {
    if (!(parts >= 1 && parts <= INDEX_PARTS && Number.isInteger(Math.log2(parts)))) {
      throw new RangeError(`parts: must be a power of two from 1 to ${INDEX_PARTS}`);
    }
    const { room, counts } = this.#open.occupancy(parts);
    const part = (_: unknown, i: number) => ({ live: counts[2 * i] as number, ghosts: counts[2 * i + 1] as number });
    return { room, parts: Array.from({ length: parts }, part) };
  }

  /**
   * The seats that are taken, with what their threads have counted. Nobody is reaped: a participant that has died is listed as dead
   * until another participant gives its seat back.
   *
   * @throws {CacheError} `ERR_CLOSED`.
   */
  participants(): SeatReport[] {
    const reader = this.#open;
    const stateOf = this.#states();
    const requests = reader.claims().filter(({ kind }) => kind === CLAIM_SEEN_PENDING);
    const queued = new Set(requests.map(({ seat }) => seat));
    const reports: SeatReport[] = [];
    for (let at = reader.takenSeat(0); at !== undefined; at = reader.takenSeat(at.seat + 1)) {
      const { seat, pid, threadId, hazard, ...rest } = at;
      const waiting = at.waiting || queued.has(seat);
      const told = { seat, pid, threadId, ...stateOf(at) };
      reports.push({ ...told, ...rest, waiting, hazard: hazard < 0 ? null : hazard });
    }
    return reports;
  }

  /** Tells the state of seats. All workers of a process have the same answer, so it is asked twice for a process at most. */
  #states(): (words: SeatWords) => Pick<SeatReport, "state" | "freezer"> {
    const known = new Map<string, Pick<SeatReport, "state" | "freezer">>();
    return ({ seat, pid, threadId }) => {
      if (!this.#native.isLocked(this.#fd, seat)) return { state: "dead", freezer: null };
      const name = `${pid} ${threadId === 0 ? "main" : "worker"}`;
      let told = known.get(name);
      if (told === undefined) {
        const { state, freezer } = processState(pid, threadId, this.#identity);
        told = { state: STATES[state], freezer };
        known.set(name, told);
      }
      return told;
    };
  }

  /**
   * What participants hold now: locks, loads, buckets of the index and segments. What a change holds for a moment is left out: a
   * bucket or a segment is reported when it is held by the same participant in two looks 5 ms apart. Blocks for these 5 ms.
   *
   * @throws {CacheError} `ERR_CLOSED`.
   */
  holds(): Hold[] {
    const before = this.#briefHolds();
    if (before.size > 0) sleep(HOLD_MS);
    const after = before.size > 0 ? this.#briefHolds() : before;
    const brief = [...after].filter(([name]) => before.has(name)).map(([, hold]) => hold);
    const now = machineTime();
    const claims = this.#open.claims().map((claim) => describeClaim(claim, now));
    const stateOf = this.#states();
    return [...brief, ...claims].map(({ seat, ...rest }) => {
      const words = this.#reader.seat(seat);
      const { pid = 0, threadId = 0 } = words ?? {};
      // A seat that does not exist is damage: nobody is there.
      return { seat, pid, threadId, state: words === undefined ? "dead" : stateOf(words).state, ...rest };
    });
  }

  /** The buckets and segments that are held at this moment. The names tell whether a hold is the same in the next look. */
  #briefHolds(): Map<string, Held> {
    const reader = this.#open;
    const holds = new Map<string, Held>();
    for (const { bucket, seat, gone, ticket } of reader.lockedBuckets()) {
      // Whoever needs this lock takes it: nobody waits for the holder.
      if (!gone) holds.set(`bucket ${bucket} ${seat} ${ticket}`, { kind: "bucket", seat, number: bucket });
    }
    for (let at = reader.takenSeat(0); at !== undefined; at = reader.takenSeat(at.seat + 1)) {
      const { seat, hazard, sets } = at;
      // A participant that goes on writes into the same segment again and again, and counts.
      if (hazard >= 0) holds.set(`hazard ${seat} ${hazard} ${sets}`, { kind: "segment", seat, number: hazard });
    }
    for (const [number, { phase, generation, owner }] of reader.segments().entries()) {
      if (phase !== PHASE_RECLAIM || owner < 0) continue;
      holds.set(`reclaim ${number} ${generation} ${owner}`, { kind: "segment", seat: owner, number });
    }
    return holds;
  }

  /**
   * The keys that can be read now, in no order, each with what the index and its record tell. An entry that is stored or removed during
   * the walk may be listed or not; no other entry is missed or listed twice.
   *
   * @throws {TypeError} for wrong options.
   * @throws {RangeError} when `namespace` is none.
   * @throws {CacheError} `ERR_CLOSED`, also during the walk.
   */
  keys(options: KeysOptions = {}): Iterable<KeyReport> {
    const { prefix, namespace } = options;
    if (prefix !== undefined && typeof prefix !== "string") throw new TypeError("prefix: must be a string");
    this.#open;
    return this.#walk(prefix, namespace === undefined ? undefined : scopeAt(namespace));
  }

  *#walk(prefix: string | undefined, scope: Scope | undefined): Generator<KeyReport, void, undefined> {
    const { block, count, text } = scope === undefined ? EVERYTHING : beginningsOf(scope, prefix);
    const begins = scope === undefined ? prefix : text;
    for (let cursor = 0; ; cursor++) {
      const reader = this.#open;
      // Each time: the caller may look something else up between two keys.
      reader.tags.set(block);
      cursor = reader.next(cursor, count);
      if (cursor < 0) return;
      const key = reader.word;
      const own = this.#readKey(key);
      if (begins !== undefined && (typeof own.key !== "string" || !own.key.startsWith(begins))) continue;
      const found = this.#describe(key, own);
      if (found !== undefined) yield found;
    }
  }

  /**
   * An entry with its value, without a trace: the read is not counted and does not warm the entry.
   *
   * @param namespace the names of the key's namespaces, the outermost first; outside of namespaces by default
   * @returns `undefined` when the key is absent
   * @throws {TypeError} when the key is neither a string nor bytes.
   * @throws {RangeError} when `namespace` is none.
   * @throws {CacheError} `ERR_CLOSED`; `ERR_BUSY` when the entry was replaced during each of eight reads.
   */
  entry(key: string | Uint8Array, namespace: readonly string[] = []): EntryReport | undefined {
    const reader = this.#open;
    const scope = scopeAt(namespace);
    const { prefix } = scope;
    const written = this.#keys.write(key, reader.key.subarray(prefix.length));
    if (written < 0) return undefined;
    reader.key.set(prefix);
    if (scope !== ROOT) reader.key[0] = keyKind(written);
    const length = prefix.length + keyLength(written);
    const word = (length << KEY_KIND_BITS) | (scope === ROOT ? keyKind(written) : KEY_NAMESPACED);
    for (let reads = 0; reads < READS; reads++) {
      const bytes = reader.get(word, true);
      if (bytes < 0) return undefined;
      const { version, valueType, isChunked, expiry } = reader;
      const tags = readTags(reader.tags, reader.word);
      const value = new Uint8Array(Math.min(bytes, reader.maxValue));
      if (!isChunked) value.set(reader.value.subarray(0, value.length));
      else if (!reader.readLarge(word, version, value)) continue;
      const residence = reader.residence(word);
      if (residence === undefined) continue;
      return {
        key,
        namespace: [...namespace],
        bytes: residence.bytes,
        heat: residence.heat,
        class: className(residence.class),
        ttl: ttlOf(expiry),
        tags,
        valueType: typeName(valueType),
        value,
        version,
        foreign: valueType === CUSTOM,
        decode: () => this.#values.decode(valueType, value, 0, value.length),
      };
    }
    throw replacedTooOften(READS);
  }

  /** The report of the key in the area; `undefined` when it is gone. */
  #describe(key: number, own: { key: string | Uint8Array; namespace: string[] }): KeyReport | undefined {
    const reader = this.#reader;
    if (reader.get(key, false) < 0) return undefined;
    const { valueType, expiry } = reader;
    const tags = readTags(reader.tags, reader.word);
    const residence = reader.residence(key);
    if (residence === undefined) return undefined;
    const { bytes, heat } = residence;
    const valueName = typeName(valueType);
    return { ...own, bytes, heat, class: className(residence.class), ttl: ttlOf(expiry), tags, valueType: valueName };
  }

  /** Reads the key in the area, apart from its namespace. A key that is none, because the memory is damaged, is shown as bytes. */
  #readKey(key: number): { key: string | Uint8Array; namespace: string[] } {
    const { key: area } = this.#reader;
    const length = keyLength(key);
    if (keyKind(key) !== KEY_NAMESPACED) {
      return { key: this.#keys.read(keyKind(key), area, 0, length) as string | Uint8Array, namespace: [] };
    }
    // [kind of the own key │ bytes of the id, 2 bytes │ id │ own key], as `scopeOf` writes it.
    const start = 3 + (area[1] as number) + ((area[2] as number) << 8);
    const path = start <= length ? pathOf(runtime.readUtf8(area, 3, start - 3)) : undefined;
    // The namespace without a name is nobody's: loads use it.
    const namespace = path?.includes("") ? undefined : path;
    const own = namespace && this.#keys.read(area[0] as number, area, start, length - start);
    if (own === undefined) return { key: runtime.copy(area, 0, length), namespace: [] };
    return { key: own, namespace: namespace as string[] };
  }

  /**
   * Checks every invariant of the memory, three times 50 ms apart: only what is broken each time counts, because a change under way
   * can look like damage. Walks the whole index, and blocks the thread meanwhile.
   *
   * @throws {CacheError} `ERR_CLOSED`.
   */
  verify(): Verification {
    const reader = this.#open;
    const before = this.#changes();
    let found = reader.validate();
    for (let look = 1; look < VERIFY_LOOKS && found !== 0; look++) {
      sleep(VERIFY_MS);
      if (reader.validate() !== found) found = 0;
    }
    const broken = found === 0 ? [] : [BROKEN[found] ?? `invariant ${found}`];
    return { broken, certain: this.#changes() === before && reader.lockedBuckets().length === 0 };
  }

  /** Another text after each change of the cache that participants count. */
  #changes(): string {
    const { sets, deletes, evictions, expirations, reclaims } = this.#open.counts();
    return [sets, deletes, evictions, expirations, reclaims].join();
  }
}

/** A hold before its holder is looked at. */
type Held = Omit<Hold, "pid" | "threadId" | "state">;

/** Beginnings that every key has: one for each kind. */
const EVERYTHING = everything();

function everything(): { block: Uint8Array; count: number; text: undefined } {
  const kinds = [KEY_STRING, KEY_BYTES, KEY_ILL_FORMED, KEY_NAMESPACED];
  const block = new Uint8Array(8 * kinds.length);
  // Key words without a length.
  for (const [i, kind] of kinds.entries()) block[8 * i] = kind;
  return { block, count: kinds.length, text: undefined };
}

/** Opens a file for reading only. */
function openForReading(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const code = codeOf(error);
    if (code === "ENOENT") throw noFile(path);
    if (code === "EACCES" || code === "EPERM") {
      throw notOwner(`file: this user may not read ${path} (${code}). Look as the user of the cache, or as root.`);
    }
    if (code === "ELOOP" || code === "ENXIO" || code === "ENODEV") {
      throw noCache(path, "a regular file is expected, not a link or a special one");
    }
    throw unusable(error, dirname(path));
  }
}

/** The size of the cache in a file. @throws {CacheError} `ERR_LAYOUT` when it is no cache of this layout version. */
function sizeOf(fd: number, path: string): number {
  const stat = fstatSync(fd);
  if (!stat.isFile()) throw noCache(path, "a regular file is expected");
  if (stat.size < PAGE || stat.size % PAGE !== 0) throw noCache(path, `it has ${stat.size} bytes`);
  const header = new Uint8Array(plan.headerBytes);
  readSync(fd, header, 0, header.length, 0);
  plan.inspect(header, stat.size, path);
  return stat.size;
}

function scopeAt(namespace: readonly string[]): Scope {
  if (!Array.isArray(namespace) || namespace.some((name) => typeof name !== "string" || name === "")) {
    throw new TypeError("namespace: must be an array of names, the outermost first");
  }
  return namespace.length === 0 ? ROOT : scopeOf(namespace);
}

function describeClaim({ kind, seat, hash, deadline, overtaken, name, nameBytes }: SeenClaim, now: number): Held {
  if (kind === CLAIM_SEEN_LOADING) return { kind: "load", seat, hash, deadline: deadline - now, overtaken };
  // The name as `coordinate/lock-name.ts` writes it: a mark of the scope, and the text, of which the end may be cut.
  const text =
    name.length > LOCK_MARK_BYTES ? runtime.readUtf8(name, LOCK_MARK_BYTES, name.length - LOCK_MARK_BYTES) : "";
  const known = nameBytes > MAX_CLAIM_NAME ? `${text.replace(/\uFFFD+$/, "")}…` : text;
  return { kind: "lock", seat, name: known, hash, pending: kind === CLAIM_SEEN_PENDING, overtaken };
}

function className(number: number): "small" | "main" {
  return number === CLASS_SMALL ? "small" : "main";
}

function ttlOf(expiry: number): number {
  return expiry === Infinity ? Infinity : expiry - Date.now();
}

/** What a value type stands for, in words. */
function typeName(type: number): string {
  if (type === NUMBER_TYPE) return "number";
  if (type >= LATIN1 && type <= UTF16) return "string";
  if (type === NULL) return "null";
  if (type === TRUE || type === FALSE) return "boolean";
  if (type === BIGINT) return "bigint";
  if (type === LIMIT_TYPE) return "rate limit";
  if (type >= BUFFER && type <= ARRAY_BUFFER) return BINARY_CLASSES[type - BUFFER] as string;
  if (type > STRUCTURED && type < CUSTOM) return "object";
  return type === CUSTOM ? "codec" : `unknown type ${type}`;
}

/** Blocks this thread. */
function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
