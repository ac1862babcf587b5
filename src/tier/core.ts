/** What all objects of one tier share: a tier, its namespaces, its readers and its loaders in one thread. */

import { CacheError } from "../index.ts";
import type { Client } from "./clients/client.ts";
import type { Gate } from "./gate.ts";
import type { Memory } from "./memory.ts";
import type { Resolved } from "./options.ts";
import type { Server } from "./server.ts";
import type { Counts } from "./types.ts";

/** One tier in one thread. */
export interface Core {
  readonly memory: Memory;
  readonly server: Server;
  readonly gate: Gate;
  readonly client: Client;
  readonly options: Resolved;
  readonly counts: Counts;
  closed: boolean;
}

/** @throws {CacheError} `ERR_CLOSED`. */
export function checkOpen(core: Core): void {
  if (core.closed) throw new CacheError("ERR_CLOSED", "this tier was closed in this thread. To use it, open it again.");
}

/** A text that is different for each key of a scope. */
export function idOf(key: string | Uint8Array): string {
  return typeof key === "string"
    ? `:${key}`
    : `b${Buffer.from(key.buffer, key.byteOffset, key.length).toString("latin1")}`;
}
