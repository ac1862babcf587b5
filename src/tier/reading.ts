/**
 * Reads of the server. Of all threads and processes of a host one asks for a key, by a flight in the host's memory, and the others
 * get its answer. The answer is stored in that memory under the rules of `Cache.getOrSet`: a change that the owner has heard of
 * meanwhile wins, so an answer that is older than the change is never stored.
 *
 * ```text
 * peek ─► flight of the key ─► GET ─► tags: times of their invalidations, from memory or MGET ─► stored in memory
 *                                │                └► invalidated: counts as absent
 *                                └► absent: the mark ABSENT is stored, so the next read costs nothing
 * ```
 *
 * A reader never fails because of the server: what it cannot know is a miss. A reader that is frozen holds the others up for one
 * `timeout`: then another one asks.
 */

import type { Key } from "../index.ts";
import { type Core, idOf } from "./core.ts";
import { hasCode } from "./errors.ts";
import { ABSENT, type Place } from "./memory.ts";
import type { Stored } from "./server.ts";

/** What a read has found. `value` is {@link ABSENT} when the server has none, `undefined` when that could not be found out. */
export interface Found {
  readonly value: unknown;
  /** What the server has sent, when this call has asked it. Its `ttl` is 0 or less when it is within its grace. */
  readonly stored: Stored | undefined;
}

/** The clock of a cache may show whole milliseconds. So much longer a value lives here, so that it does not expire before the server's does. */
const CLOCK_MS = 1;

const UNKNOWN: Found = { value: undefined, stored: undefined };

/** Stands in the memory for the time of a tag that the server does not know: its creation is a change of which the owner hears. */
const NEVER = -1;

/** Errors of a flight after which the same answer may be had without one. */
const WITHOUT_FLIGHT = ["ERR_BUSY", "ERR_TOO_LARGE", "ERR_LOAD_FAILED", "ERR_TIMEOUT"] as const;

/** Reads one key, which the memory does not have. @throws {CacheError} `ERR_DATA`, `ERR_CLOSED`. */
export async function read(core: Core, place: Place, key: Key): Promise<Found> {
  core.counts.misses++;
  let stored: Stored | undefined;
  try {
    const value = await place.current().getOrSet(
      key,
      async (context) => {
        stored = await fresh(core, place, key);
        if (stored !== undefined) {
          context.ttl = Math.min(stored.ttl + CLOCK_MS, core.options.maxAge);
          context.tags = stored.tags;
        }
        return valueIn(stored);
      },
      { ttl: core.options.maxAge, lease: core.options.timeout },
    );
    return { value, stored };
  } catch (error) {
    return without(core, place, key, stored, error);
  }
}

/** After a flight has failed: the answer that this call got within it, or else an answer of its own. */
async function without(core: Core, place: Place, key: Key, stored: Stored | undefined, error: unknown): Promise<Found> {
  if (stored !== undefined) return { value: valueIn(stored), stored };
  if (hasCode(error, "ERR_UNREACHABLE")) return unreachable(core);
  if (!hasCode(error, ...WITHOUT_FLIGHT)) throw error;
  return readAlone(core, place, key);
}

/** Asks the server without a flight, and leaves nothing in memory. @throws {CacheError} as {@link read}. */
export async function readAlone(core: Core, place: Place, key: Key): Promise<Found> {
  try {
    const stored = await fresh(core, place, key);
    return { value: valueIn(stored), stored };
  } catch (error) {
    if (hasCode(error, "ERR_UNREACHABLE")) return unreachable(core);
    throw error;
  }
}

/**
 * The value of what the server has sent. `undefined` within its grace: whoever loads the key needs to find it, so nobody is told that it
 * is absent.
 */
function valueIn(stored: Stored | undefined): unknown {
  if (stored === undefined) return ABSENT;
  return stored.ttl > 0 ? stored.value : undefined;
}

function unreachable(core: Core): Found {
  core.counts.errors++;
  return UNKNOWN;
}

/** What the server has under a key, unless one of its tags was invalidated since it was stored. */
async function fresh(core: Core, place: Place, key: Key): Promise<Stored | undefined> {
  const stored = await core.server.read(place.path, key);
  return stored !== undefined && (await isInvalid(core, place, stored)) ? undefined : stored;
}

/** Whether one of the tags of an entry was invalidated since the entry was stored, or is not known any more. */
export async function isInvalid(core: Core, place: Place, { tags, stamp }: Stored): Promise<boolean> {
  if (tags.length === 0) return false;
  return isOutdated(stamp, await tagTimes(core, place, tags));
}

/** Whether a stamp is not later than all of these times. A time that is not known may be any. */
function isOutdated(stamp: number, times: readonly (number | undefined)[]): boolean {
  return times.some((time) => time === undefined || time >= stamp);
}

/**
 * When each of these tags was invalidated last, in microseconds of the server's clock; `undefined` for a tag that the server does not
 * know. From the memory of the host, as long as that is good.
 */
export async function tagTimes(core: Core, place: Place, tags: readonly string[]): Promise<(number | undefined)[]> {
  const { memory, server } = core;
  if (!memory.isGood) return server.tagTimes(place.path, tags);
  try {
    const load = async (missing: string[]): Promise<number[]> =>
      (await server.tagTimes(place.path, missing)).map((time) => time ?? NEVER);
    const times = await place.times.getOrSetMany(tags, load, { lease: core.options.timeout });
    return times.map((time) => (time === NEVER ? undefined : time));
  } catch (error) {
    if (hasCode(error, ...WITHOUT_FLIGHT)) return server.tagTimes(place.path, tags);
    throw error;
  }
}

/** Reads many keys, which the memory does not have, by one command. As {@link read} for each of them. */
export async function readMany(core: Core, place: Place, keys: readonly Key[]): Promise<Found[]> {
  core.counts.misses += keys.length;
  const answers = new Map<string, Stored | undefined>();
  const answerOf = (key: Key): Stored | undefined => answers.get(idOf(key));
  const load = async (missing: readonly Key[]): Promise<unknown[]> => {
    const list = await freshMany(core, place, missing);
    return missing.map((key, i) => {
      const stored = list[i];
      answers.set(idOf(key), stored);
      return valueIn(stored);
    });
  };
  const { maxAge, timeout } = core.options;
  try {
    const values = await place.current().getOrSetMany([...keys], load, {
      ttl: (_, key) => Math.min((answerOf(key)?.ttl ?? Infinity) + CLOCK_MS, maxAge),
      tags: (_, key) => answerOf(key)?.tags,
      lease: timeout,
    });
    return values.map((value, i) => ({ value, stored: answerOf(keys[i] as Key) }));
  } catch (error) {
    if (hasCode(error, "ERR_UNREACHABLE")) return keys.map(() => unreachable(core));
    if (!hasCode(error, ...WITHOUT_FLIGHT)) throw error;
    return Promise.all(keys.map((key) => read(core, place, key)));
  }
}

async function freshMany(core: Core, place: Place, keys: readonly Key[]): Promise<(Stored | undefined)[]> {
  const list = await core.server.readMany(place.path, keys);
  const tags = [...new Set(list.flatMap((stored) => stored?.tags ?? []))];
  if (tags.length === 0) return list;
  const times = await tagTimes(core, place, tags);
  const timeOf = new Map(tags.map((tag, i) => [tag, times[i]]));
  const timesOf = ({ tags }: Stored): (number | undefined)[] => tags.map((tag) => timeOf.get(tag));
  return list.map((stored) => (stored === undefined || isOutdated(stored.stamp, timesOf(stored)) ? undefined : stored));
}
