/**
 * Keeps commands off a server that is away: a circuit breaker. A host with a thousand requests a second must not let each of them
 * wait for its timeout, and must not greet a server that comes back with all of them at once.
 *
 *     open ──(a command fails without an answer)──► shut for a random time of at most 50 ms
 *     shut ──(time is up)──► a probe of its own, commands are refused ──(answered)──► open
 *                                                                   └─(not)──► shut for up to twice the time, at most 2 s
 *
 * The probe is a PING by a timer, so that no command of a user has to wait for a server that is still away, and none is refused long
 * after it has come back. The timer does not keep the process alive.
 *
 * "Full jitter" of the exponential backoff: AWS Architecture Blog, "Exponential Backoff And Jitter" (Brooker, 2015).
 */

import { machineTime } from "../coordinate/clock.ts";
import { CacheError } from "../index.ts";
import { hasCode } from "./errors.ts";
import { badData, tooLarge } from "./format.ts";

/** The most milliseconds of the first time for which the gate is shut, and of the longest. */
const SHORTEST = 50;
const LONGEST = 2000;
/** So many milliseconds after a probe was due a command starts it. */
const LATE = 500;

/** `ERR_UNREACHABLE`: the server did not answer, or its answer was a refusal. */
export function unreachable(message: string, options?: ErrorOptions): CacheError {
  return new CacheError("ERR_UNREACHABLE", message, options);
}

/** Whether an error says that the server did not answer, or has refused: `ERR_UNREACHABLE`. */
export function isUnreachable(error: unknown): boolean {
  return hasCode(error, "ERR_UNREACHABLE");
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
    "Allow the client's user the keys under the `prefix`, and the commands that the tier needs (`+@read +@write +@scripting +@connection +time`).",
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

/** The way to a server behind a {@link Gate}. */
export interface Line {
  /** Asks the server for any answer. */
  probe(): Promise<unknown>;
  /** The error of the tier for an error of a command. */
  errorOf(cause: unknown): unknown;
}

/** What a {@link Gate} runs on; only tests pass others. */
export interface GateOptions {
  /** Milliseconds of a monotonic clock. */
  readonly clock?: () => number;
  /** A number from 0 (included) to 1 (excluded). */
  readonly random?: () => number;
  /** Runs a function after so many milliseconds. Returns a function that prevents that. */
  readonly later?: (ms: number, act: () => void) => () => void;
}

/** Lets commands pass, or refuses them while the server is away. */
export class Gate {
  readonly #clock: () => number;
  readonly #random: () => number;
  readonly #later: (ms: number, act: () => void) => () => void;
  /** Failures in a row; 0 when the gate is open. */
  #failures = 0;
  /** While the gate is shut: when the next probe is due. */
  #until = 0;
  #isProbing = false;
  #cancel: (() => void) | undefined;
  /** Grows with each change between open and shut. What a command reports counts only in the state in which it began. */
  #state = 0;
  #reason: unknown;

  constructor({ clock = machineTime, random = Math.random, later = afterwards }: GateOptions = {}) {
    this.#clock = clock;
    this.#random = random;
    this.#later = later;
  }

  /** Whether commands pass. */
  get isOpen(): boolean {
    return this.#failures === 0;
  }

  /**
   * Runs a command, if the gate is open. The gate shuts when the command fails with {@link Away}.
   *
   * @param command - ends by itself, by a timeout at the latest.
   * @throws {CacheError} `ERR_UNREACHABLE` when the gate is shut; the command was not run. Otherwise what `line.errorOf` makes of the error
   * of the command.
   */
  async run<T>(command: () => Promise<T>, line: Line): Promise<T> {
    if (!this.isOpen) {
      // The timer is late by far: it is a fake one of a test, or was prevented by `close`.
      if (this.#clock() >= this.#until + LATE) this.#probe(line);
      throw this.#refusal();
    }
    const state = this.#state;
    try {
      const result = await command();
      // It may have begun before another one failed.
      this.opened();
      return result;
    } catch (cause) {
      const error = line.errorOf(cause);
      if (!(error instanceof Away)) this.opened();
      else if (this.#state === state) this.#shut(error, line);
      throw error;
    }
  }

  /** The server has answered on another way: commands pass again. */
  opened(): void {
    if (this.isOpen) return;
    this.#failures = 0;
    this.#isProbing = false;
    this.#reason = undefined;
    this.#state++;
    this.close();
  }

  /** Ends the timer. Commands still pass or are refused. */
  close(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #shut(reason: unknown, line: Line): void {
    const wait = this.#random() * Math.min(LONGEST, SHORTEST * 2 ** this.#failures);
    this.#failures++;
    this.#until = this.#clock() + wait;
    this.#reason = reason;
    this.#state++;
    this.close();
    this.#cancel = this.#later(wait, () => this.#probe(line));
  }

  /** Probes the server, unless a probe is under way. Never rejects. */
  async #probe(line: Line): Promise<void> {
    if (this.isOpen || this.#isProbing) return;
    this.#isProbing = true;
    const state = this.#state;
    let failure: unknown;
    try {
      await line.probe();
    } catch (cause) {
      failure = line.errorOf(cause);
    }
    // Somebody else has had an answer meanwhile.
    if (this.#state !== state) return;
    this.#isProbing = false;
    if (failure instanceof Away) this.#shut(failure, line);
    else this.opened();
  }

  #refusal(): CacheError {
    const why = this.#reason instanceof Error ? `: ${this.#reason.message}` : ".";
    return unreachable(
      `this command was not sent and changed nothing, because the server is away. It is asked again every ${LONGEST / 1000} ` +
        `seconds. The last thing that was heard${why}`,
      { cause: this.#reason },
    );
  }
}

/** The timer of the runtime, as it was when the package was loaded: a test may replace it by a fake one. */
const { setTimeout, clearTimeout } = globalThis;

function afterwards(ms: number, act: () => void): () => void {
  const timer = setTimeout(act, ms);
  timer.unref?.();
  return () => clearTimeout(timer);
}
