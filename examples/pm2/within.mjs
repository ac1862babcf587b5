/** Waits for a promise with a time limit; after that, rejects with the complaint. */

import { setTimeout as sleep } from "node:timers/promises";

export async function within(seconds, promise, complaint) {
  const late = sleep(seconds * 1000, undefined, { ref: false }).then(() => {
    throw new Error(`${complaint} within ${seconds} s`);
  });
  return Promise.race([promise, late]);
}
