/**
 * Calls the operation of its argument with good keys until it is compiled, and with wrong ones in between. Prints how many of the
 * wrong ones were a `TypeError`. Started by outside.test.ts, because a fault of compiled code ends the whole process.
 */
import { createCache } from "cache-machine";

const ROUNDS = 40;
const WRONG = [5, undefined, null, {}, 5.5, 7n, Symbol("key"), true];
const [, , name, scope, nearCache] = process.argv;
const opened = createCache({ size: "16mb", nearCache: Number(nearCache) });
const cache = scope === "namespace" ? opened.namespace("a") : opened;
const leased = cache.leased({ until: Infinity });
const call = name === "leased" ? (key) => leased.get(key) : (key) => cache[name](key, 1);

for (let i = 0; i < 2000; i++) cache.set(`key${i}`, i);
let refused = 0;
for (let round = 0; round < ROUNDS; round++) {
  for (let i = 0; i < 2000; i++) {
    call(i % 7 > 0 ? `key${i}` : i % 2 > 0 ? Uint8Array.of(1, 2, i) : `ключ${i}`);
  }
  for (const key of WRONG) {
    try {
      call(key);
    } catch (error) {
      if (error instanceof TypeError && error.message.startsWith("key: must be")) refused++;
    }
  }
}
console.log(refused === ROUNDS * WRONG.length ? "all refused" : `${refused} refused`);
