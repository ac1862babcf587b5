/** The cache is too small: 40 MB of values, read in a random order, take turns in 1 MiB. */

import { open, ready, repeat } from "./case.mjs";

const cache = open({ size: "1 MiB", nearCache: 0 });
let seed = 1;
const random = () => {
  seed = (seed * 48_271) % 2_147_483_647;
  return seed % 20_000;
};
const work = () => {
  for (let i = 0; i < 200; i++) cache.getOrSet(`key ${random()}`, () => "x".repeat(2000));
};
for (let i = 0; i < 50; i++) work();
repeat(work);
ready({ pid: process.pid });
