/** What a {@link Spectator} tells about a cache. The types only; spectator.ts fills them in. */

import type { SeatWords } from "../engine/reader.ts";

/** Sums of what all participants have counted since the cache was created, and how much memory is in use. */
export interface SpectatorStats {
  /** Reads that found a value, those of near caches included. */
  hits: number;
  /** Those of the `hits` that near caches have answered. */
  nearHits: number;
  /** Reads that found no value. */
  misses: number;
  /** Values stored, increments included. */
  sets: number;
  /** Entries removed by `delete` and `take`. */
  deletes: number;
  /** Entries that had to make room for others. */
  evictions: number;
  /** Expired entries whose memory was taken back. */
  expirations: number;
  /** Segments that were emptied to be used again. */
  reclaims: number;
  /** Those of the `reclaims` that moved all live entries to other segments. */
  compactions: number;
  /** Bytes of all segments: the most that entries can take. */
  capacity: number;
  /** Bytes of the segments that are in use. */
  used: number;
  /** Bytes of shared memory. */
  size: number;
  /** Seats that a participant has taken and not given back: the living and the dead. */
  participants: number;
  /** How many participants can have the cache open at once. */
  seats: number;
}

/** The live entries, counted by a walk of the index. */
export interface CensusReport {
  /** Entries that can be read now, those of namespaces included. */
  entries: number;
  /** Bytes that they take, overhead included. */
  bytes: number;
  /** Those of the entries that belong to a namespace. */
  namespaced: number;
}

/** A segment: a piece of the memory into which entries are written one after the other. */
export interface SegmentReport {
  state: "free" | "open" | "sealed" | "reclaim";
  /** `"small"` holds entries on probation, `"main"` those that were read again. */
  class: "small" | "main";
  /** Bytes written. */
  used: number;
  /** Bytes of `used` that belong to entries which still exist. */
  live: number;
  /** Grows each time the segment is emptied. */
  generation: number;
  /** The seat that is emptying the segment; `undefined` in every other state. */
  owner: number | undefined;
}

/**
 * What is known of the thread in a seat. `"alive"`: the kernel says that it holds the lock of its seat. `"frozen"`: it does, but it is
 * stopped by a signal, a debugger or the freezer of a control group. `"dead"`: the lock is free, and the next participant that meets the seat gives it back.
 * `"unknown"`: it holds the lock, but its process cannot be seen from here, as one of another container.
 */
export type SeatState = "alive" | "frozen" | "dead" | "unknown";

/** A seat that a participant has taken: a thread that has the cache open. In another container, its `pid` means another process. */
export interface SeatReport extends Omit<SeatWords, "hazard"> {
  state: SeatState;
  /** Of a frozen one: the file of the control group that has stopped it, such as `…/cgroup.freeze`; `null` for a signal. */
  freezer: string | null;
  /** The segment into which it is writing at this moment; `null` for none. */
  hazard: number | null;
}

/** Something that a participant holds. */
export interface Hold {
  /**
   * `"bucket"`: the lock of a bucket of the index, which a change takes for less than a microsecond. `"segment"`: a segment into which it
   * is writing, or which it is emptying. `"lock"`: a lock with a name. `"load"`: the load of a key.
   */
  kind: "bucket" | "segment" | "lock" | "load";
  seat: number;
  pid: number;
  threadId: number;
  state: SeatState;
  /** The number of the bucket or of the segment. */
  number?: number;
  /** Of a lock: its name, of which at most 72 bytes are known. A name that was cut ends with `…`. */
  name?: string;
  /** Of a lock or a load: the hash of name or key, 16 hexadecimal digits. */
  hash?: string;
  /** Of a load: milliseconds until another participant may take over; negative when the time is over. */
  deadline?: number;
  /** Of a lock: whether this is a request that waits for it. */
  pending?: boolean;
  /** Of a lock or a load: whether it was overtaken, by a theft or by a change of the key. */
  overtaken?: boolean;
}

/** An entry without its value. */
export interface KeyReport {
  key: string | Uint8Array;
  /** The names of the namespaces, the outermost first; empty outside of namespaces. */
  namespace: string[];
  /** Bytes that the entry takes in the memory, overhead included. */
  bytes: number;
  /** How often it was read lately, from 0 to 3. */
  heat: number;
  /** `"small"`: on probation. `"main"`: read again since. */
  class: "small" | "main";
  /** Milliseconds until it expires, by the clock of this process; `Infinity` for an entry that does not expire. */
  ttl: number;
  tags: string[];
  /** `"string"`, `"number"`, `"bigint"`, `"boolean"`, `"null"`, `"object"`, `"rate limit"`, `"codec"`, or a class of binary data. */
  valueType: string;
}

/** An entry with its value. */
export interface EntryReport extends KeyReport {
  /** The bytes of the value as they are stored. */
  value: Uint8Array;
  /** Another number after every change of the value. */
  version: number;
  /** Whether {@link decode} needs the application's own codec, and throws. */
  foreign: boolean;
  /**
   * The value.
   *
   * @throws {CacheError} `ERR_DATA` for a value that an application has encoded with its own codec, and for damaged bytes.
   */
  decode(): unknown;
}

/** What {@link Spectator.verify} has found. */
export interface Verification {
  /** What is broken, in words; empty when nothing was found. */
  broken: string[];
  /** False when participants have changed the cache meanwhile: then what seems broken may have been a change under way. */
  certain: boolean;
}

/** Which keys {@link Spectator.keys} lists. */
export interface KeysOptions {
  /** With which the keys begin. A prefix finds only string keys. */
  prefix?: string | undefined;
  /** The names of a namespace, the outermost first, `[]` for the keys outside of namespaces. Without it all keys are listed. */
  namespace?: readonly string[] | undefined;
}
