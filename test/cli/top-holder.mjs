/** A participant that holds a lock until it is killed. */
import { openCache } from "cache-machine";

const [name, path] = process.argv.slice(2);
const cache = openCache(name, { size: "1mb", path });
await cache.locks.request("report", () => {
  process.send("locked");
  return new Promise(() => setInterval(() => {}, 1000));
});
