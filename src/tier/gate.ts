/**
 * Keeps commands off a server that is away: a circuit breaker. A host with a thousand requests a second must not let each of them
 * wait for its timeout, and must not greet a server that comes back with all of them at once.
 *
 *     open ──(a command fails without an answer)──► shut for a random time up to 50 ms
 *     shut ──(time is up)──► one command probes, the others are refused ──(answered)──► open
 *                                                                       └─(not)──► shut for up to twice the time, at most 2 s
 *
 * "Full jitter" of the exponential backoff: AWS Architecture Blog, "Exponential Backoff And Jitter" (Brooker, 2015). No timers: the
 * clock is read at each command.
 */

import { machineTime } from "../coordinate/clock.ts";
import { CacheError } from "../index.ts";
import { badData, tooLarge } from "./format.ts";

/** The most milliseconds of the first time for which the gate is shut, and of the longest. */
const SHORTEST = 50;
const LONGEST = 2000;

/** `ERR_UNREACHABLE`: the server did not answer, or its answer was a refusal. */
export function unreachable(message: string, options?: ErrorOptions): CacheError {
  return new CacheError("ERR_UNREACHABLE", message, options);
}

/** Whether an error says that the server did not answer, or has refused: `ERR_UNREACHABLE`. */
export function isUnreachable(error: unknown): boolean {
  return error instanceof CacheError && error.code === "ERR_UNREACHABLE";
}

/** `ERR_UNREACHABLE` of a server that cannot serve anybody now. A {@link Gate} shuts for it, and for no other error. */
export class Away extends CacheError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_UNREACHABLE", message, options);
  }
}

/** Error replies of a server that serves nobody now, and what to do. */
const AWAY: Readonly<Record<string, string>> = {
  READONLY: "It is a replica now: give the tier a client that follows the master.",
  LOADING: "It has just been started, and reads its data.",
  MASTERDOWN: "It is a replica without its master: give the tier a client that follows the master.",
  CLUSTERDOWN: "Its cluster lacks nodes.",
  TRYAGAIN: "Its cluster moves slots.",
  BUSY: "A script of somebody keeps it busy.",
  UNBLOCKED: "It has just become a replica.",
  NOREPLICAS: "It does not take writes without its replicas (`min-replicas-to-write`).",
};
/** Error replies of a server that serves others, and what to do. */
const REFUSED: Readonly<Record<string, string>> = {
  OOM: "Raise its `maxmemory`, or let it evict (`maxmemory-policy allkeys-lru`).",
  MISCONF: "It cannot save its data, and so takes no writes: see its log.",
  NOAUTH: "Give the client the password.",
  WRONGPASS: "Give the client the right password.",
  NOPERM:
    "Allow the client's user the keys under the `prefix`, and the commands that the tier needs (`+@read +@write +@scripting +time`).",
  MOVED: "It is part of a cluster: give the tier a cluster client.",
  ASK: "It is part of a cluster: give the tier a cluster client.",
  CROSSSLOT: "It is part of a cluster: give the tier a cluster client.",
  NOSCRIPT: "It forgets scripts at once. Let it keep them.",
};
const KNOWN = new RegExp(`\\b(?:${[...Object.keys(AWAY), ...Object.keys(REFUSED), "WRONGTYPE"].join("|")})\\b`);

/**
 * The error of the tier for an error of a client library.
 *
 * @param reply - the text of the server's error reply; `undefined` when the server did not answer.
 */
export function errorOf(cause: unknown, reply: string | undefined): CacheError {
  if (reply === undefined) {
    const why = cause instanceof Error ? cause.message : String(cause);
    return new Away(`the server did not answer (${why}), so nobody knows whether a change was made. Try again later.`, {
      cause,
    });
  }
  // An error within a script may have the code of the script's failure first, and the one that tells in the middle.
  const code = KNOWN.exec(reply)?.[0] ?? "";
  if (code === "WRONGTYPE") {
    return badData("is of another program (no string)", "Give the tier another `prefix`, or delete the key.", cause);
  }
  if (reply.includes("exceeds maximum allowed size")) return tooLarge();
  const remedy = AWAY[code] ?? REFUSED[code];
  const text = `the server has refused the command and changed nothing: ${reply}${/[.!?]$/.test(reply) ? "" : "."}`;
  const message = remedy === undefined ? text : `${text} ${remedy}`;
  return code in AWAY ? new Away(message, { cause }) : unreachable(message, { cause });
}

/** What a {@link Gate} reads; only tests pass others. */
export interface GateOptions {
  /** Milliseconds of a monotonic clock. */
  readonly clock?: () => number;
  /** A number from 0 (included) to 1 (excluded). */
  readonly random?: () => number;
}

/** Lets commands pass, or refuses them while the server is away. */
export class Gate {
  readonly #clock: () => number;
  readonly #random: () => number;
  /** Failures in a row; 0 when the gate is open. */
  #failures = 0;
  /** While the gate is shut: when the next probe may run. */
  #until = 0;
  #isProbing = false;
  /** Grows with each change of state. What a command reports counts only in the state in which it began. */
  #state = 0;
  #reason: unknown;

  constructor({ clock = machineTime, random = Math.random }: GateOptions = {}) {
    this.#clock = clock;
    this.#random = random;
  }

  /** Whether a command that begins now would be tried. */
  get isOpen(): boolean {
    return this.#failures === 0 || (!this.#isProbing && this.#clock() >= this.#until);
  }

  /**
   * Runs a command that ends by itself (by a timeout at the latest).
   *
   * @throws {CacheError} `ERR_UNREACHABLE` when the gate is shut; the command was not run. Otherwise as the command.
   */
  async run<T>(command: () => Promise<T>): Promise<T> {
    if (!this.isOpen) throw this.#refusal();
    const isProbe = this.#failures > 0;
    if (isProbe) this.#isProbing = true;
    const state = this.#state;
    try {
      const result = await command();
      this.opened();
      return result;
    } catch (error) {
      if (!(error instanceof Away)) this.opened();
      else if (this.#state === state) this.#shut(error);
      throw error;
    } finally {
      if (isProbe && this.#state === state) this.#isProbing = false;
    }
  }

  /** The server has answered, here or on another way: commands pass again. */
  opened(): void {
    if (this.#failures === 0) return;
    this.#failures = 0;
    this.#isProbing = false;
    this.#reason = undefined;
    this.#state++;
  }

  #shut(reason: unknown): void {
    const most = Math.min(LONGEST, SHORTEST * 2 ** this.#failures);
    this.#failures++;
    this.#until = this.#clock() + this.#random() * most;
    this.#isProbing = false;
    this.#reason = reason;
    this.#state++;
  }

  #refusal(): CacheError {
    const why = this.#reason instanceof Error ? ` (${this.#reason.message})` : "";
    return unreachable(
      `the server is away${why}, so this command was not sent and nothing was changed. It is tried again within ` +
        `${LONGEST / 1000} seconds.`,
      { cause: this.#reason },
    );
  }
}
