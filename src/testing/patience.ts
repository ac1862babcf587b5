/** Waiting with a limit: a check that would hang fails instead, and says what it has waited for. */

import { throws } from "./assert.ts";

const PATIENCE_MS = 30_000;

/** Settles as the promise does, or is rejected when that takes too long. */
export function inTime<T>(
  promised: PromiseLike<T>,
  what = "a promise that must be settled",
  ms: number = PATIENCE_MS,
): Promise<T> {
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done within ${ms} ms: ${what}`)), ms);
  });
  return Promise.race([promised, late]).finally(() => clearTimeout(timer));
}

/** Waits until something is so. */
export async function until(reached: () => boolean, what: string, ms: number = PATIENCE_MS): Promise<void> {
  for (const since = Date.now(); !reached(); ) {
    if (Date.now() - since > ms) throw new Error(`not so within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve));
  }
}

/** Throws unless the promise is rejected with an error of this class or code whose message contains all texts; returns that error. */
export async function rejects(promised: Promise<unknown>, kind: string, ...texts: string[]): Promise<Error> {
  const result = await inTime(
    promised.then(
      (value) => ({ value }),
      (error: unknown) => ({ error }),
    ),
  );
  const replay = (): unknown => {
    if ("error" in result) throw result.error;
    return result.value;
  };
  return throws(replay, kind, ...texts);
}
