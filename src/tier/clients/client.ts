/**
 * The clients of Redis and Valkey that a tier can use, behind one interface.
 *
 * A client belongs to its user, who has chosen the library, the address, the password and the rest. It is recognised by its
 * structure: no library is imported, neither at run time nor in types. A client is never closed here, and no listener stays on it.
 */

import { describe } from "../../values/describe.ts";
import type { Client } from "./interface.ts";
import { ioredis } from "./ioredis.ts";
import { nodeRedis } from "./node-redis.ts";

export type { Argument, Client, ListenEvents, Listener, Reply } from "./interface.ts";

/** The libraries. Each returns a client, or `undefined` for an object of another library. */
const LIBRARIES: readonly ((client: object) => Client | undefined)[] = [nodeRedis, ioredis];

/**
 * Recognises the library of a client.
 *
 * @throws {TypeError} when it is no client of a supported library, or one that cannot be used.
 */
export function clientOf(client: unknown): Client {
  if (typeof client !== "object" || client === null) throw notAClient(client);
  for (const library of LIBRARIES) {
    const found = library(client);
    if (found !== undefined) return found;
  }
  if (typeof (client as { customCommand?: unknown }).customCommand === "function") throw glide();
  throw notAClient(client);
}

/** Its version 2.5 receives the reports of changed keys, and drops them ("Unknown notification: 'Invalidate'"). */
function glide(): TypeError {
  return new TypeError(
    "client: valkey-glide hands the server's reports of changed keys to nobody, so a tier cannot follow them. Use a client of " +
      "node-redis, ioredis or iovalkey: they work with Valkey too.",
  );
}

function notAClient(value: unknown): TypeError {
  return new TypeError(
    `client: must be a client of node-redis 5 or later, of ioredis 5 or later, or of iovalkey, not ${describe(value)}`,
  );
}
