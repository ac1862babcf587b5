/**
 * The errors for values that cannot be stored, or that cannot be read here. Relies on `describe.ts` for the words. Must not
 * know how a value is encoded.
 */

import { badData, type CacheError } from "../errors.ts";
import { claimedName, describe, isThenable } from "./describe.ts";

/**
 * The most levels of a value. Every thread can read what any thread has stored: this many levels fit on the smallest stack
 * that a thread is known to get.
 */
export const DEEPEST = 512;
/** At most this many characters of a place, and of the message of another error, are quoted. */
const QUOTED = 200;

/**
 * Makes the error for a value that is present, but that this participant cannot read.
 * @param why - a clause with a subject.
 */
export function unreadable(why: string, cause?: unknown): CacheError {
  const remedy = "Store it again or delete it. Other entries are not affected.";
  return badData(`value: cannot be read here, because ${why}. ${remedy}`, { cause });
}

/** Makes the error for a value of a class that this runtime lacks. */
export function missing(name: string): CacheError {
  return unreadable(`this runtime has no ${name}`);
}

/**
 * Makes the error for what cannot be stored: `item`, which was found at `place`.
 * @param isWhole - whether `item` is the value itself. Then it is a wrong argument, a `TypeError`. Something within a value
 * is `ERR_DATA`.
 */
export function unstorable(item: unknown, place: string, isWhole: boolean): Error {
  const at = place.slice(0, QUOTED);
  const isObject = typeof item === "object" && item !== null;
  if (isObject && Object.hasOwn(item, "__proto__")) {
    return badData(`${at}: a property named __proto__ cannot be stored. Rename it.`);
  }
  let what = describe(item);
  let advice = "Store plain data instead.";
  if (isObject && isThenable(item)) {
    if (claimedName(item) !== "Promise") what += " with a method named then";
    advice = "Await it and store the result.";
  }
  const message = `${at}: ${what} cannot be stored. ${advice}`;
  return isWhole ? new TypeError(message) : badData(message);
}

/** Makes the error for a value that has more levels than {@link DEEPEST}. */
export function tooDeep(): CacheError {
  return badData(`value: more than ${DEEPEST} levels cannot be stored. Make the data flatter.`);
}

/** Quotes the message of another error. */
export function quoted(error: unknown): string {
  return String((error as Error | undefined)?.message).slice(0, QUOTED);
}
