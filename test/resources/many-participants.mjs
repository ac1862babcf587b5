/** A process with many participants: opens the cache as often as it is told to, and stores an entry by each participant. */
import { openCache } from "../host/apart.mjs";

const name = process.argv[2];
const crowd = [];

process.on("message", ({ open, close }) => {
  let error;
  try {
    for (let i = 0; i < (open ?? 0); i++) {
      const cache = openCache(name, { nearCache: 0 });
      crowd.push(cache);
      const key = `${process.pid} ${crowd.length}`;
      if (cache.set(key, i).get(key) !== i) throw new Error("lost");
    }
  } catch ({ code, message }) {
    error = { code, message };
  }
  if (close) for (const cache of crowd.splice(0)) cache.close();
  process.send({ open: crowd.length, error });
});
process.send("ready");
