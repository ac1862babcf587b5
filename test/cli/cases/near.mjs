/** A participant reads more keys than its near cache holds, in turn, so that it finds hardly any of them there again. */

import { open, ready, repeat } from "./case.mjs";

const KEYS = 4000;
const cache = open({ nearCache: 64 });
for (let i = 0; i < KEYS; i++) cache.set(`key ${i}`, { number: i });
let i = 0;
repeat(() => {
  for (let n = 0; n < 2000; n++, i++) {
    cache.get(`key ${i % KEYS}`);
    // Now and then a key comes twice.
    if (n % 100 === 0) cache.get(`key ${i % KEYS}`);
  }
});
ready({ pid: process.pid });
