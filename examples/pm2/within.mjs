/** Waits for a promise, but not for ever: after so many seconds it is an error that says what did not happen. */

import { setTimeout as sleep } from "node:timers/promises";

export async function within(seconds, promise, complaint) {
  const late = sleep(seconds * 1000, undefined, { ref: false }).then(() => {
    throw new Error(`${complaint} within ${seconds} s`);
  });
  return Promise.race([promise, late]);
}
