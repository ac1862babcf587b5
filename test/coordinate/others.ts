/** Other participants for tests: processes and threads that run functions of the test, and that can be killed and stopped. */

import { type ChildProcess, fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import type { Cache, CacheHandle } from "cache-machine";

const SCRIPT = fileURLToPath(new URL("other.mjs", import.meta.url));
const PATIENCE_MS = 60_000;

/** Waits for a promise with a time limit; `what` is part of the error. */
export function inTime<T>(promised: PromiseLike<T>, what: string, ms: number = PATIENCE_MS): Promise<T> {
  let timer: NodeJS.Timeout;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`hangs: ${what}`)), ms);
  });
  return Promise.race([promised, late]).finally(() => clearTimeout(timer));
}

/** Waits until a condition holds. */
export async function until(reached: () => unknown, what: string): Promise<void> {
  for (const since = Date.now(); !reached(); ) {
    if (Date.now() - since > PATIENCE_MS) throw new Error(`hangs: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** The error of a function that another participant has run. */
export interface RemoteError {
  name: string;
  code?: string;
  message: string;
}

type Answer = { number: number; result?: unknown; error?: RemoteError };

/** One other participant. */
export class Other {
  /** The process or thread. */
  readonly side: ChildProcess | Worker;
  /** Resolves when it has ended. */
  readonly ended: Promise<void>;
  readonly #ready: Promise<void>;
  readonly #answers = new Map<number, (answer: Answer) => void>();
  #number = 0;

  constructor(side: ChildProcess | Worker) {
    this.side = side;
    this.ended = new Promise((resolve) => side.once("exit", () => resolve()));
    this.#ready = new Promise((resolve, reject) => {
      side.once("error", reject);
      side.once("exit", () => reject(new Error("ended before it was ready")));
      side.on("message", (message: Answer & { ready?: true }) => {
        if (message.ready) resolve();
        else this.#answers.get(message.number)?.(message);
      });
    });
    this.#ready.catch(() => {});
  }

  /**
   * Runs a function there, which sees nothing but its arguments and the globals. The promise is rejected with a
   * {@link RemoteError}. It stays pending when the other participant ends before it answers.
   */
  async run<A extends unknown[], T>(code: (cache: Cache, ...args: A) => T, ...args: A): Promise<Awaited<T>> {
    await inTime(this.#ready, "the start of another participant");
    const number = this.#number++;
    const answer = new Promise<Answer>((resolve) => this.#answers.set(number, resolve));
    const job = { number, code: code.toString(), args };
    if (this.side instanceof Worker) this.side.postMessage(job);
    else this.side.send(job);
    const { result, error } = await answer;
    if (error !== undefined) throw error;
    return result as Awaited<T>;
  }

  /** Kills the process with SIGKILL, or terminates the thread. */
  async kill(): Promise<void> {
    if (this.side instanceof Worker) await this.side.terminate();
    else this.side.kill("SIGKILL");
    await inTime(this.ended, "the end of another participant");
  }

  /** Stops the process with SIGSTOP, and waits until it is stopped. */
  async freeze(): Promise<void> {
    const { pid } = this.side as ChildProcess;
    process.kill(pid as number, "SIGSTOP");
    await until(() => /\) T /.test(readFileSync(`/proc/${pid}/stat`, "latin1")), "the process stops");
  }

  /** Lets the process go on. */
  thaw(): void {
    process.kill((this.side as ChildProcess).pid as number, "SIGCONT");
  }
}

const others = new Set<Other>();

/** Starts a process that opens the cache with this name. */
export function startProcess(name: string, execPath: string = process.execPath): Other {
  const command = ["setpriv", "--pdeathsig", "KILL", execPath];
  const other = new Other(
    fork(SCRIPT, [JSON.stringify({ name, parent: process.pid })], {
      execPath: command[0] as string,
      execArgv: command.slice(1),
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    }),
  );
  others.add(other);
  return other;
}

/**
 * Starts a thread that joins the cache. A `gate` of three numbers stops it within a call of the cache: when its clock has been asked
 * as often as the first one says, the thread sets the second one to 1, and waits until the third one is 1.
 */
export function startThread(handle: CacheHandle, gate?: Int32Array): Other {
  const other = new Other(new Worker(SCRIPT, { workerData: { handle, gate } }));
  others.add(other);
  return other;
}

/** For `afterEach`: ends all that are still there. */
export async function endOthers(): Promise<void> {
  await Promise.all([...others].map((other) => other.kill()));
  others.clear();
}
