/**
 * A source that is slow and sometimes fails, behind a cache that keeps its last answer for a while: who asks after the time to
 * live gets the old answer at once, and one process asks the source again in the background. While the source fails, the old
 * answer stays, and the source is left alone for a while after each failure.
 *
 *     node examples/14-stale-while-revalidate.mjs
 */

import { setTimeout as sleep } from "node:timers/promises";
import { createCache } from "cache-machine";

const SECOND = 1000;
const MINUTE = 60 * SECOND;

// A clock that this example moves by hand, because it would take minutes otherwise.
let now = Date.now();
const cache = createCache({ size: "1mb", now: () => now });

let isUp = true;
let asked = 0;

async function source() {
  asked++;
  await sleep(20);
  if (!isUp) throw new Error("the source is down");
  return `${16 + asked} °C`;
}

async function ask(when) {
  let how;
  const value = await cache.getOrSet("temperature", source, {
    ttl: MINUTE,
    // How long an answer may be given after its time to live, while the source is asked again or fails.
    grace: 60 * MINUTE,
    // How long nobody asks again after a failure.
    graceBackoff: 10 * SECOND,
    onOutcome: (outcome) => (how = outcome),
  });
  // Gives the source time to answer, if it is asked in the background.
  await sleep(100);
  console.log(`${when.padEnd(36)} ${value} (${how}), the source was asked ${asked} ${asked === 1 ? "time" : "times"}`);
}

await ask("first");
await ask("again");
now += 2 * MINUTE;
await ask("2 minutes later");
await ask("then");
isUp = false;
now += 2 * MINUTE;
await ask("2 minutes later, the source is down");
await ask("again, within the 10 seconds");
now += 20 * SECOND;
await ask("20 seconds later");
isUp = true;
now += 20 * SECOND;
await ask("the source is up again");
await ask("then");

cache.close();
