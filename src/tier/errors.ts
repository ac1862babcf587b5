/** What the files of the tier ask of an error. */

import { CacheError } from "../index.ts";

/** Whether an error is a {@link CacheError} with one of these codes. */
export function hasCode(error: unknown, ...codes: CacheError["code"][]): boolean {
  return error instanceof CacheError && codes.includes(error.code);
}
