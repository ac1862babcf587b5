/** Checks the options of a tier and of its writes. Their types are in types.ts. Times are in milliseconds. */

import type { Key } from "../index.ts";
import { checkOptions } from "../option-names.ts";
import { describe } from "../values/describe.ts";
import { ABSENT } from "./memory.ts";
import type { Writing } from "./server.ts";
import type { TierOptions, TierSetOptions } from "./types.ts";

/** {@link TierOptions}, checked, with defaults. */
export interface Resolved {
  readonly client: unknown;
  readonly prefix: string;
  readonly ttl: number;
  readonly maxAge: number;
  readonly serve: boolean;
  readonly lease: number;
  readonly timeout: number;
  readonly all: boolean;
}

const TIER_OPTIONS = [
  "client",
  "prefix",
  "ttl",
  "maxAge",
  "onDisconnect",
  "lease",
  "timeout",
  "singleFlight",
] as const satisfies readonly (keyof TierOptions)[];
const SET_OPTIONS = ["ttl", "expiresAt", "grace", "tags"] as const satisfies readonly (keyof TierSetOptions)[];
/** A shorter lease would be over before a busy event loop can renew it. */
const LEAST_LEASE = 100;
const LONGEST_TIME = 2 ** 31 - 1;
const MAX_TAGS = 128;
const MAX_TAG_BYTES = 256;

/**
 * Checks the options of `openTier`, each read once.
 *
 * @throws {TypeError} and {RangeError} naming the option that is wrong.
 */
export function resolve(options: TierOptions): Resolved {
  if (options === undefined) throw new TypeError("options: must be an object with a `client`");
  const {
    client,
    prefix = "cache-machine:",
    ttl,
    maxAge,
    onDisconnect,
    lease,
    timeout,
    singleFlight,
  } = checkOptions(options, TIER_OPTIONS);
  return {
    client,
    prefix,
    ttl: ttl === undefined ? Infinity : checkTime("ttl", ttl),
    maxAge: maxAge === undefined ? Infinity : checkTime("maxAge", maxAge),
    serve: oneOf("onDisconnect", onDisconnect, ["expire", "serve"]) === "serve",
    lease: lease === undefined ? 1000 : checkTime("lease", lease, LEAST_LEASE, LONGEST_TIME),
    timeout: timeout === undefined ? 1000 : checkTime("timeout", timeout, 1, LONGEST_TIME),
    all: oneOf("singleFlight", singleFlight, ["host", "all"]) === "all",
  };
}

function oneOf(name: string, value: unknown, values: readonly [string, string]): string {
  if (value === undefined) return values[0];
  if (values.includes(value as string)) return value as string;
  const got = typeof value === "string" ? JSON.stringify(value.slice(0, 30)) : describe(value);
  throw new TypeError(`${name}: must be "${values[0]}" or "${values[1]}", not ${got}`);
}

/**
 * Checks a time in milliseconds that must be more than 0.
 *
 * @throws {TypeError} and {RangeError}.
 */
export function checkTime(name: string, value: unknown, least = 0, most: number = Infinity): number {
  if (typeof value !== "number") {
    throw new TypeError(`${name}: must be a number of milliseconds, not ${describe(value)}`);
  }
  if (least > 0 && (!(value >= least) || value > most)) {
    throw new RangeError(`${name}: must be from ${least} to ${most} milliseconds, not ${value}`);
  }
  if (!(value > 0)) throw new RangeError(`${name}: must be more than 0 milliseconds, not ${value}`);
  return value;
}

/** Checks a key. @throws {TypeError}. */
export function checkKey(key: unknown): asserts key is Key {
  if (
    typeof key === "string" ||
    key instanceof Uint8Array ||
    Object.prototype.toString.call(key) === "[object Uint8Array]"
  ) {
    return;
  }
  throw new TypeError(`key: must be a string or a Uint8Array, not ${describe(key)}`);
}

/**
 * Checks a value as far as a codec would not. @throws {RangeError} for the one text that stands for an absent key in the memory of a
 * host.
 */
export function checkValue(value: unknown): void {
  if (value === ABSENT) throw new RangeError("value: this text is reserved. Store another one.");
}

/**
 * Checks tags: the bytes of each, and their number. Returns each once.
 *
 * @param most the most tags
 * @throws {TypeError} and {RangeError}.
 */
export function checkTags(tags: unknown, most: number = MAX_TAGS): string[] {
  if (!Array.isArray(tags)) throw new TypeError("tags: must be an array of strings");
  const own = [...new Set(tags)];
  for (const tag of own) {
    if (typeof tag !== "string") throw new TypeError(`tags: each must be a string, not ${describe(tag)}`);
    if (/\p{Surrogate}/u.test(tag)) throw new RangeError("tags: must be well-formed Unicode, without lone surrogates");
    if (Buffer.byteLength(tag) > MAX_TAG_BYTES) {
      throw new RangeError(`tags: a tag has at most ${MAX_TAG_BYTES} bytes, one has ${Buffer.byteLength(tag)}`);
    }
  }
  if (own.length > most) throw new RangeError(`tags: an entry has at most ${most} tags, not ${own.length}`);
  return own;
}

/**
 * Checks the options of a write. Returns how to store the value; a `ttl` of 0 or less says that its time has come already.
 *
 * @param ttl what counts when the options do not say
 * @throws {TypeError} and {RangeError}.
 */
export function checkSet(options: TierSetOptions | undefined, ttl: number): Writing {
  if (options === undefined) return { ttl, grace: 0, tags: [] };
  const given = checkOptions(options, SET_OPTIONS);
  const { ttl: own, expiresAt, grace, tags } = given;
  if (own !== undefined && expiresAt !== undefined) {
    throw new TypeError("ttl: cannot stand together with `expiresAt`. Give one of them.");
  }
  if (expiresAt !== undefined && (typeof expiresAt !== "number" || Number.isNaN(expiresAt))) {
    throw new TypeError(`expiresAt: must be a time in milliseconds, not ${describe(expiresAt)}`);
  }
  if (grace !== undefined && typeof grace !== "number") {
    throw new TypeError(`grace: must be a number of milliseconds, not ${describe(grace)}`);
  }
  if (grace !== undefined && !(grace >= 0)) throw new RangeError(`grace: must be 0 milliseconds or more, not ${grace}`);
  return {
    ttl: expiresAt === undefined ? (own === undefined ? ttl : checkTime("ttl", own)) : expiresAt - Date.now(),
    grace: grace ?? 0,
    tags: tags === undefined ? [] : checkTags(tags),
  };
}
