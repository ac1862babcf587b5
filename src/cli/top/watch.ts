/**
 * Looks at the cache of a name for as long as somebody wants to see it: opens it, notices that its file was removed or replaced, and opens
 * the next one with that name. Takes no seat.
 */

import { statfsSync, statSync } from "node:fs";
import { dirname } from "node:path";
import type { Hold, SeatReport, SpectatorStats } from "../../inspect/spectator.ts";
import type { HoldLook, Look } from "./sample.ts";

/** What is needed of a spectator. */
export interface Source {
  stats(): SpectatorStats;
  census(): { entries: number; bytes: number };
  participants(): SeatReport[];
  holds(): Hold[];
  close(): void;
}

/** Counting entries walks the index. It may take this part of the time at most. */
const CENSUS_SHARE = 0.05;

/** Looks at one cache after the other, all with the same name. */
export class Watch {
  readonly #find: () => string | undefined;
  readonly #open: (file: string) => Source;
  #source: Source | undefined;
  #file = "";
  #id = "";
  #census: Look["census"];
  #nextCensus = Number.NEGATIVE_INFINITY;

  /**
   * @param find returns the path of the cache's file, `undefined` while there is none
   * @param open opens a file; what it throws is thrown by the first {@link look}
   */
  constructor(find: () => string | undefined, open: (file: string) => Source) {
    this.#find = find;
    this.#open = open;
  }

  /** The file that is being looked at. */
  get file(): string {
    return this.#file;
  }

  /**
   * Looks.
   *
   * @param now milliseconds of a clock that never goes back
   * @returns `undefined` while there is no cache with that name; `isNew` says that it is another cache than that of the look before
   * @throws {CacheError} when the file that was found is no cache, or cannot be read.
   */
  look(now: () => number): { look: Look; isNew: boolean } | undefined {
    if (this.#source !== undefined && identify(this.#file) !== this.#id) this.close();
    const isNew = this.#source === undefined;
    const source = this.#source ?? this.#reopen();
    if (source === undefined) return undefined;
    const began = Date.now();
    const {
      hits,
      misses,
      sets,
      deletes,
      evictions,
      expirations,
      reclaims,
      nearHits,
      used,
      capacity,
      size,
      seats: allSeats,
    } = source.stats();
    const at = now();
    if (at >= this.#nextCensus) {
      this.#census = source.census();
      const took = now() - at;
      this.#nextCensus = now() + took / CENSUS_SHARE;
    }
    const seats = source.participants();
    const holds = source.holds().map(inWords);
    for (const { seat, writing } of seats)
      if (writing) holds.push({ seat, what: "half a large value", waits: false, brief: true });
    const look: Look = {
      at,
      wall: [began, Date.now()],
      counters: { hits, misses, sets, deletes, evictions, expirations, reclaims, nearHits, used, capacity, size },
      seats,
      allSeats,
      holds,
      census: this.#census,
      disk: diskOf(this.#file),
    };
    return { look, isNew };
  }

  close(): void {
    this.#source?.close();
    this.#source = undefined;
    this.#census = undefined;
    this.#nextCensus = Number.NEGATIVE_INFINITY;
  }

  /** Opens the file of the name. A file that is replaced at this moment is opened at the next look. */
  #reopen(): Source | undefined {
    const file = this.#find();
    const id = file === undefined ? undefined : identify(file);
    if (file === undefined || id === undefined) return undefined;
    let source: Source;
    try {
      source = this.#open(file);
    } catch (error) {
      if (identify(file) !== id) return undefined;
      throw error;
    }
    if (identify(file) !== id) {
      source.close();
      return undefined;
    }
    this.#file = file;
    this.#id = id;
    this.#source = source;
    return source;
  }
}

/** Another text for another file. A file system may give the number of a removed file to a new one, so the time of birth belongs to it. */
function identify(file: string): string | undefined {
  try {
    const { dev, ino, birthtimeNs } = statSync(file, { bigint: true });
    return `${dev} ${ino} ${birthtimeNs}`;
  } catch {
    return undefined;
  }
}

function inWords({ kind, seat, number, name, hash, pending, overtaken }: Hold): HoldLook {
  const brief = kind === "bucket" || kind === "segment";
  const which = brief ? `${number ?? ""}` : name !== undefined ? `"${name}"` : (hash ?? "").slice(0, 8);
  return { seat, what: `${kind} ${which}${overtaken ? " (overtaken)" : ""}`, waits: pending === true, brief };
}

function diskOf(file: string): Look["disk"] {
  try {
    const { bavail, blocks, bsize } = statfsSync(dirname(file));
    return { free: bavail * bsize, total: blocks * bsize };
  } catch {
    return undefined;
  }
}
