/**
 * Listens to the changes of keys: what is said to the server, and how it is proven that nothing was missed. Knows no library.
 *
 * The server reports keys by *client side caching in broadcasting mode* (`CLIENT TRACKING ON BCAST`): all keys that begin with one
 * of some prefixes, whoever has read them. There are two ways to hear it:
 *
 *     RESP3   one connection, which is tracked and receives pushes
 *     RESP2   a tracked connection, whose reports are redirected to a second one, which is subscribed to `__redis__:invalidate`
 *
 * The order of messages is the proof. Redis and Valkey write the reports of a cycle of their event loop before the replies of that
 * cycle (`trackingBroadcastInvalidationMessages` in `beforeSleep`). So when a write was acknowledged before a command was sent on
 * the connection of the reports, its report arrives before the reply of that command.
 *
 * In a cluster there is one such ear for each master, also for those without slots, because slots may move to them at any time.
 */

import { CacheError } from "../../index.ts";
import type { ListenEvents, Listener, Reply } from "./interface.ts";
import { noAnswer } from "./sending.ts";

/** A connection that never reconnects. When it is lost, `onClosed` is called, once. */
export interface Connection {
  /** Sends commands in one go. The replies come in the same order. An error reply rejects with the error of the library. */
  ask(commands: readonly (readonly string[])[]): Promise<Reply[]>;
  /** RESP2 only: subscribes to a channel, whose messages go to `onKeys`. Afterwards only `ping` is allowed. */
  subscribe(channel: string): Promise<void>;
  /** A round trip on a subscribed connection. */
  ping(): Promise<unknown>;
  /** Ends the connection at once. May be called again. */
  destroy(): void;
}

/** What a connection reports. */
export interface ConnectionEvents {
  /** The payload of a push, or of a message of the channel: an array of keys as Buffers or text, or `null`. */
  onKeys(keys: unknown): void;
  onClosed(reason: Error): void;
}

/** A server of a cluster. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

/** Opens connections with the options of the user's client. */
export interface Dialer {
  /** Whether connections receive pushes (RESP3). */
  readonly hasPushes: boolean;
  /** Addresses of some masters of a cluster; `undefined` when the client has a single server. */
  seeds(): Promise<readonly Address[] | undefined>;
  /**
   * Opens a connection to an address, or to the only server. `started` is called at once with what ends the connection, also while
   * it is being opened.
   */
  open(to: Address | undefined, events: ConnectionEvents, started: (destroy: () => void) => void): Promise<Connection>;
  errorReply(error: unknown): string | undefined;
}

const CHANNEL = "__redis__:invalidate";

/** One master: its connections, and what was found when they were opened. */
interface Ear {
  /** The connection that is tracked. */
  readonly tracked: Connection;
  /** RESP2: the connection that receives the reports. */
  readonly subscribed: Connection | undefined;
  /** The id of the tracked connection. */
  readonly id: number;
  /** The id of the subscribed connection, or -1. */
  readonly redirect: number;
  /** In a cluster, the id of the node. */
  readonly node: string | undefined;
}

/** The connections to one server while they are being opened. */
interface Attempt {
  isHeard: boolean;
  /** Why one of them was lost. */
  failure: Error | undefined;
  readonly endings: (() => void)[];
}

/** Opens a {@link Listener}. */
export async function listen(dialer: Dialer, events: ListenEvents, timeout: number): Promise<Listener> {
  const listening = new Listening(dialer, events);
  try {
    await within(listening.start(), timeout);
    return listening;
  } catch (error) {
    await listening.close();
    throw refusalOf(error, dialer);
  }
}

class Listening implements Listener {
  readonly #dialer: Dialer;
  readonly #events: ListenEvents;
  readonly #ears: Ear[] = [];
  /** Ends all connections, also those that are being opened. */
  readonly #endings = new Set<() => void>();
  #hasStarted = false;
  /** Why it has ended. */
  #ended: Error | undefined;

  constructor(dialer: Dialer, events: ListenEvents) {
    this.#dialer = dialer;
    this.#events = events;
  }

  async start(): Promise<void> {
    const seeds = await this.#dialer.seeds();
    if (seeds === undefined) await this.#hear(undefined);
    else await this.#hearCluster(seeds);
    if (this.#ended !== undefined) throw this.#ended;
    this.#hasStarted = true;
  }

  async beat(timeout: number): Promise<number> {
    if (this.#ended !== undefined) throw this.#ended;
    try {
      const proofs = await within(Promise.all(this.#ears.map((ear) => this.#prove(ear))), timeout);
      if (this.#ended !== undefined) throw this.#ended;
      checkMasters(
        this.#ears,
        proofs.map((proof) => proof.nodes),
      );
      return Math.max(...proofs.map((proof) => proof.time));
    } catch (error) {
      this.#end(asError(error));
      throw this.#ended ?? error;
    }
  }

  async close(): Promise<void> {
    this.#ended ??= new Error("the listener was closed");
    for (const end of this.#endings) end();
    this.#endings.clear();
  }

  #end(reason: Error): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    void this.close();
    if (this.#hasStarted) this.#events.onEnd(reason);
  }

  /**
   * Opens ears for all masters of a cluster, also for those that only other masters know. The library may still know servers that
   * are masters no longer. So a server that cannot be heard matters only if the others say that it is a master.
   */
  async #hearCluster(seeds: readonly Address[]): Promise<void> {
    const tried = new Set<string>();
    const views: string[] = [];
    let failure: unknown;
    for (let next = [...seeds]; next.length > 0; ) {
      for (const { host, port } of next) tried.add(`${host}:${port}`);
      const outcomes = await Promise.allSettled(next.map((address) => this.#hear(address)));
      const missing = new Map<string, Address>();
      outcomes.forEach((outcome, index) => {
        if (outcome.status === "rejected") {
          failure ??= outcome.reason;
          return;
        }
        const nodes = outcome.value ?? "";
        views.push(nodes);
        for (const { id, host, port } of mastersOf(nodes)) {
          // A node that was never reached from outside does not know its own host.
          const address = { host: host || (next[index] as Address).host, port };
          const isKnown = this.#ears.some(({ node }) => node === id) || tried.has(`${address.host}:${port}`);
          if (!isKnown) missing.set(id, address);
        }
      });
      next = [...missing.values()];
    }
    try {
      checkMasters(this.#ears, views);
    } catch (error) {
      throw failure ?? error;
    }
    if (this.#ears.length === 0) throw failure ?? new Error("the client knows no master of the cluster");
  }

  /** Opens the ear for one server. Returns what it says of its cluster. */
  async #hear(to: Address | undefined): Promise<string | undefined> {
    const attempt: Attempt = { isHeard: false, failure: undefined, endings: [] };
    try {
      const [tracked, subscribed] = await Promise.all([
        this.#open(to, attempt),
        this.#dialer.hasPushes ? undefined : this.#open(to, attempt),
      ]);
      let redirect = -1;
      if (subscribed !== undefined) {
        redirect = Number((await subscribed.ask([["CLIENT", "ID"]]))[0]);
        await subscribed.subscribe(CHANNEL);
      }
      const target = subscribed === undefined ? [] : ["REDIRECT", String(redirect)];
      const prefixes = this.#events.prefixes.flatMap((prefix) => ["PREFIX", prefix]);
      const [id] = await tracked.ask([
        ["CLIENT", "ID"],
        // A library may have switched on a tracking of its own.
        ["CLIENT", "TRACKING", "OFF"],
        ["CLIENT", "TRACKING", "ON", ...target, "BCAST", ...prefixes],
      ]);
      const ear = { tracked, subscribed, id: Number(id), redirect, node: undefined };
      const { nodes } = await this.#prove(ear, to !== undefined);
      const node = nodes === undefined ? undefined : myselfOf(nodes);
      if (attempt.failure !== undefined) throw attempt.failure;
      // Two addresses may lead to the same server.
      if (node !== undefined && this.#ears.some((other) => other.node === node)) this.#giveUp(attempt);
      else this.#ears.push({ ...ear, node });
      attempt.isHeard = true;
      return nodes;
    } catch (error) {
      this.#giveUp(attempt);
      throw attempt.failure ?? error;
    }
  }

  #giveUp({ endings }: Attempt): void {
    for (const end of endings) {
      this.#endings.delete(end);
      end();
    }
  }

  async #open(to: Address | undefined, attempt: Attempt): Promise<Connection> {
    const onClosed = (reason: Error): void => {
      if (attempt.isHeard) this.#end(reason);
      else attempt.failure ??= reason;
    };
    return this.#dialer.open(to, { onKeys: (keys) => this.#onKeys(keys), onClosed }, (end) => {
      attempt.endings.push(end);
      this.#endings.add(end);
      if (this.#ended !== undefined) end();
    });
  }

  #onKeys(keys: unknown): void {
    if (this.#ended !== undefined) return;
    try {
      this.#events.onChanged(Array.isArray(keys) ? keys.map(String) : null);
    } catch (error) {
      // An exception would end in the parser of the library.
      this.#end(asError(error));
    }
  }

  /** One round trip on each connection of an ear, at the same time. */
  async #prove(ear: Ear, isCluster = ear.node !== undefined): Promise<{ time: number; nodes: string | undefined }> {
    const [[hello, info, time, nodes]] = await Promise.all([
      ear.tracked.ask([
        // Without an argument HELLO changes nothing: it describes the connection and the server.
        ["HELLO"],
        ["CLIENT", "TRACKINGINFO"],
        ["TIME"],
        ...(isCluster ? [["CLUSTER", "NODES"]] : []),
      ]),
      ear.subscribed?.ping(),
    ]);
    checkServer(fields(hello), ear, isCluster);
    checkTracking(fields(info), ear, this.#events.prefixes);
    const [seconds, microseconds] = time as Reply[];
    return {
      time: Number(seconds) * 1000 + Number(microseconds) / 1000,
      nodes: nodes === undefined ? undefined : String(nodes),
    };
  }
}

function checkServer(hello: Map<string, Reply>, ear: Ear, isCluster: boolean): void {
  if (!isCluster && String(hello.get("mode")) === "cluster") {
    throw new CacheError(
      "ERR_UNSUPPORTED",
      "client: the server is part of a cluster. Use the client of the library for clusters.",
    );
  }
  if (Number(hello.get("id")) !== ear.id) throw new Error("the tracked connection is another one than before");
  const role = String(hello.get("role"));
  if (role !== "master") throw new Error(`the server is no master: it is a ${role}`);
}

function checkTracking(info: Map<string, Reply>, ear: Ear, prefixes: readonly string[]): void {
  const flags = texts(info.get("flags"));
  const tracked = texts(info.get("prefixes"));
  const isOn = flags.includes("on") && flags.includes("bcast") && !flags.includes("broken_redirect");
  const isSame = tracked.length === prefixes.length && prefixes.every((prefix) => tracked.includes(prefix));
  const redirect = Number(info.get("redirect"));
  if (!isOn || !isSame || (ear.subscribed !== undefined && redirect !== ear.redirect)) {
    throw new Error(`the server does not track the keys any more: its flags are ${flags.join(" ")}`);
  }
}

/** The masters that the nodes know have to be those that have an ear. */
function checkMasters(ears: readonly Ear[], views: readonly (string | undefined)[]): void {
  const heard = new Set(ears.map((ear) => ear.node));
  for (const nodes of views) {
    if (nodes === undefined) continue;
    const masters = mastersOf(nodes);
    if (masters.length !== heard.size || masters.some(({ id }) => !heard.has(id))) {
      throw new Error("the cluster has other masters than before");
    }
  }
}

/** The masters in a reply of `CLUSTER NODES`, without those that have failed for good, or that are not part of the cluster yet. */
function mastersOf(nodes: string): { id: string; host: string; port: number }[] {
  return lines(nodes)
    .filter(
      ({ flags }) => flags.includes("master") && !["fail", "noaddr", "handshake"].some((flag) => flags.includes(flag)),
    )
    .map(({ id, address }) => {
      const [, host = "", port] = /^(.*):(\d+)(?:@|,|$)/.exec(address) ?? [];
      return { id, host, port: Number(port) };
    });
}

function myselfOf(nodes: string): string | undefined {
  return lines(nodes).find(({ flags }) => flags.includes("myself"))?.id;
}

/** The lines of `CLUSTER NODES`: `<id> <host>:<port>@<port of the bus>[,<name>] <flags> …`. */
function lines(nodes: string): { id: string; address: string; flags: string[] }[] {
  return nodes
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [id = "", address = "", flags = ""] = line.split(" ");
      return { id, address, flags: flags.split(",") };
    });
}

/** A flat array of names and values. */
function fields(reply: Reply | undefined): Map<string, Reply> {
  const found = new Map<string, Reply>();
  if (Array.isArray(reply)) {
    for (let i = 0; i + 1 < reply.length; i += 2) found.set(String(reply[i]), reply[i + 1] as Reply);
  }
  return found;
}

function texts(reply: Reply | undefined): string[] {
  return Array.isArray(reply) ? reply.map(String) : [];
}

/** The error of a server that cannot be listened to, whoever tries it again; otherwise the error itself. */
function refusalOf(error: unknown, dialer: Dialer): Error {
  const text = dialer.errorReply(error);
  if (text?.startsWith("NOPERM")) {
    return new CacheError(
      "ERR_UNSUPPORTED",
      `client: the user of the server may not use what is needed (${text}). Allow it: ACL SETUSER <name> +hello +client|id ` +
        "+client|tracking +client|trackinginfo +time +cluster|nodes +subscribe +ping, and the channel __redis__:invalidate.",
      { cause: error },
    );
  }
  if (text !== undefined && /^(ERR|NOPROTO) (unknown|unsupported|syntax error|wrong number)/i.test(text)) {
    return new CacheError(
      "ERR_UNSUPPORTED",
      `client: the server does not know a command that is needed to follow changes (${text}). Use Redis 6.2 or later, or Valkey.`,
      { cause: error },
    );
  }
  return asError(error);
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

/** Rejects when a promise is not settled within `ms` milliseconds. */
function within<T>(promise: Promise<T>, ms: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(noAnswer(ms)), ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
