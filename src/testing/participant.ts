/**
 * The program of a process that opens a store and does what across-processes.ts tells it, by messages. It has two arguments: the address
 * of the user's module, and the number of the process. It ends when it is told to, and when the other side is gone.
 */

import type { Store, StoreMember } from "./store.ts";

/** What the other side asks for. Each order is answered once. */
export type Order =
  | { do: "call"; member: keyof Store; args: unknown[] }
  /** Calls `getOrSet` so often at once. The loads wait until they are told to go on. */
  | { do: "load"; key: string; calls: number; value: unknown }
  | { do: "finish" }
  /** Asks so often at once for a request to go through. */
  | { do: "hit"; key: string; calls: number; limit: number; window: number }
  | { do: "keys"; prefix: string }
  | { do: "end" };

/** An error as it goes from one process to another. */
export interface PlainError {
  name: string;
  message: string;
  stack: string;
}

/** What this program sends. */
export type Report =
  | { is: "ready"; members: StoreMember[] }
  /** It could not open the store. */
  | { is: "broken"; error: PlainError }
  /** The calls of `getOrSet` of this order are made. */
  | { is: "called" }
  | { is: "answer"; number: number; result?: unknown; error?: PlainError };

const MEMBERS: StoreMember[] = [
  "delete",
  "has",
  "clear",
  "getMany",
  "setMany",
  "deleteMany",
  "keys",
  "invalidateTag",
  "getOrSet",
  "hit",
  "close",
];

const [, , address, number] = process.argv as [string, string, string, string];
let finish = (): void => {};
const finished = new Promise<void>((resolve) => (finish = resolve));

function send(report: Report): void {
  if (process.connected) process.send?.(report, () => {});
}

function plain(error: unknown): PlainError {
  const { name = "Error", message = String(error), stack = message } = (error ?? {}) as Partial<PlainError>;
  return { name, message, stack };
}

/** The function that the module exports as its default, also when a compiler has put it one level deeper. */
async function opener(): Promise<(number: number) => Store | Promise<Store>> {
  const { default: found } = await import(address);
  const open = typeof found === "function" ? found : found?.default;
  if (typeof open === "function") return open;
  throw new TypeError(`${address}: its default export must be a function that opens the store`);
}

async function obey(store: Store, order: Order): Promise<unknown> {
  switch (order.do) {
    case "call":
      return (store[order.member] as (...args: unknown[]) => unknown)(...order.args);
    case "load": {
      let loads = 0;
      const load = async (): Promise<unknown> => {
        loads++;
        await finished;
        return order.value;
      };
      const calls = Array.from({ length: order.calls }, async () =>
        store.getOrSet?.(order.key, load, { ttl: 3_600_000 }),
      );
      send({ is: "called" });
      return { values: await Promise.all(calls), loads };
    }
    case "finish":
      return finish();
    case "hit": {
      const { key, limit, window, calls } = order;
      const all = await Promise.all(Array.from({ length: calls }, async () => store.hit?.(key, limit, window)));
      return all.filter((allowed) => allowed).length;
    }
    case "keys": {
      const found: string[] = [];
      for await (const key of (await store.keys?.()) ?? []) if (key.startsWith(order.prefix)) found.push(key);
      return found.sort();
    }
    case "end":
      try {
        return await store.close?.();
      } finally {
        process.exit();
      }
  }
}

process.on("disconnect", () => process.exit());
try {
  const store = await (await opener())(Number(number));
  process.on("message", async ({ number, order }: { number: number; order: Order }) => {
    try {
      const result = await obey(store, order);
      // A cache, a connection and other things that members may return do not pass through a message, and nobody asks for them.
      const answer = order.do !== "call" || ["get", "has", "getMany"].includes(order.member) ? { result } : {};
      send({ is: "answer", number, ...answer });
    } catch (error) {
      send({ is: "answer", number, error: plain(error) });
    }
  });
  send({ is: "ready", members: MEMBERS.filter((member) => typeof store[member] === "function") });
} catch (error) {
  // Any order ends this process. The report goes out before it comes.
  process.on("message", () => process.exit());
  send({ is: "broken", error: plain(error) });
}
