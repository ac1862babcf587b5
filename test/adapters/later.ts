/**
 * A double of a tier for the tests of adapters: a cache whose answers come later, by promises, and that can be away as a server can.
 * It has the members of a tier that adapters use and no others, so an adapter that needs more fails.
 */

import { type Cache, CacheError } from "cache-machine";

/** Members that read. When the server is away, a tier answers that there is nothing. */
const READING: Record<string, unknown> = { get: undefined, getEntry: undefined, has: false, ttl: undefined };
/** Members that write, or that would not be true without the server. They are rejected when it is away. */
const ASKING = [
  "set",
  "add",
  "touch",
  "delete",
  "deleteMany",
  "clear",
  "incrementEntry",
  "invalidateTag",
  "tagInvalidatedAt",
];

/** What the parts of a double share. */
export interface Server {
  /** Whether the server is away. */
  away: boolean;
  /** How far the clock of the server is ahead of that of this machine, in milliseconds; `undefined` before it was asked. */
  ahead: number | undefined;
  /** The members that were called, with their first arguments. */
  readonly calls: string[];
}

export function later(cache: Cache<any, any>, server: Server = { away: false, ahead: 0, calls: [] }): Server & any {
  const answer = (name: string, argument: unknown, call: () => unknown): Promise<unknown> => {
    server.calls.push(`${name} ${argument}`);
    // Not a microtask: a caller that does not wait sees nothing of it.
    return new Promise((resolve) => setImmediate(resolve)).then(() => {
      if (!server.away) return call();
      if (name in READING) return READING[name];
      throw new CacheError("ERR_UNREACHABLE" as never, "the server is away");
    });
  };
  const tier: Record<PropertyKey, unknown> = {
    server,
    now: () => (server.ahead === undefined ? undefined : Date.now() + server.ahead),
    namespace: (name: string) => later(cache.namespace(name), server),
    getMany: (keys: Iterable<string>) =>
      answer("getMany", keys, () => cache.getMany(keys)).catch(() => [...keys].map(() => undefined)),
    async *keys(options?: object) {
      yield* (await answer("keys", "", () => [...cache.keys(options)])) as string[];
    },
    async [Symbol.asyncDispose]() {},
  };
  for (const name of [...Object.keys(READING), ...ASKING]) {
    tier[name] = (...args: unknown[]) =>
      answer(name, args[0], () => {
        const result = (cache as any)[name](...args);
        return name === "tagInvalidatedAt" && result > 0
          ? result + (server.ahead ?? 0)
          : result === cache
            ? undefined
            : result;
      });
  }
  return tier as any;
}
