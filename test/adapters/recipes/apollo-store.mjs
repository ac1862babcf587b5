/** The recipe for Apollo Server as a store for the checks of `cache-machine/testing`. */
import { openCache } from "cache-machine";
import { keyValueCache } from "./apollo-cache.mjs";

export default () => storeOf(openCache(process.env.NAME));

export function storeOf(cache) {
  const { get, set, delete: remove } = keyValueCache(cache);
  const seconds = (options) => options?.ttl !== undefined && { ttl: options.ttl / 1000 };
  return { get, delete: remove, set: (key, value, options) => set(key, value, seconds(options) || undefined) };
}
