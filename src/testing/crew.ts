/**
 * The processes of a check: it starts them, sends them orders, and ends them. Nothing stays behind: each process ends when it is told
 * to, is killed when it does not, and ends by itself when this process is gone.
 */

import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Order, PlainError, Report } from "./participant.ts";
import { inTime } from "./patience.ts";
import type { StoreMember } from "./store.ts";

const PROGRAM = fileURLToPath(new URL("./participant.js", import.meta.url));
/** How long a process may take to close its store before it is killed. */
const END_MS = 2_000;
/** How much of what a process writes to its standard error becomes part of an error. */
const TAIL = 4_000;

/** How processes are started. */
export interface CrewOptions {
  /** Address of the module that opens the store. */
  readonly address: string;
  readonly count: number;
  readonly env: Record<string, string | undefined> | undefined;
  readonly execPath: string | undefined;
  readonly execArgv: readonly string[] | undefined;
}

/** One process. */
export class Mate {
  /** Fulfilled with the members of its store when it has opened it. */
  readonly ready: Promise<StoreMember[]>;
  /** The next order `load` has made its calls. */
  called: Promise<void>;
  readonly #number: number;
  readonly #process: ChildProcess;
  readonly #ended: Promise<void>;
  readonly #answers = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  #stderr = "";
  #last = 0;

  constructor(number: number, { address, env, execPath, execArgv }: CrewOptions) {
    this.#number = number;
    const child = fork(PROGRAM, [address, String(number)], {
      env: { ...process.env, ...env },
      // The options of this process may be those of a test runner.
      execArgv: [...(execArgv ?? [])],
      ...(execPath === undefined ? {} : { execPath }),
      serialization: "advanced",
      stdio: ["ignore", "inherit", "pipe", "ipc"],
    });
    this.#process = child;
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      process.stderr.write(text);
      this.#stderr = (this.#stderr + text).slice(-TAIL);
    });
    // "close" comes after all output, unlike "exit". Neither comes when the process could not be started.
    this.#ended = new Promise((resolve) => child.once("close", () => resolve()).once("error", () => resolve()));
    let told = (): void => {};
    this.called = new Promise((resolve) => (told = resolve));
    this.ready = new Promise((resolve, reject) => {
      child.once("error", (error) => this.#fail(error, reject));
      child.once("close", (code, signal) => {
        const output = this.#stderr === "" ? "" : `\n${this.#stderr}`;
        this.#fail(new Error(`process ${number} has ended (${signal ?? `code ${code}`})${output}`), reject);
      });
      child.on("message", (report: Report) => {
        if (report.is === "ready") resolve(report.members);
        else if (report.is === "broken") reject(this.#errorOf(report.error));
        else if (report.is === "called") told();
        else {
          const answer = this.#answers.get(report.number);
          this.#answers.delete(report.number);
          if (report.error) answer?.reject(this.#errorOf(report.error));
          else answer?.resolve(report.result);
        }
      });
    });
    this.ready.catch(() => {});
  }

  #fail(error: Error, reject: (error: Error) => void): void {
    reject(error);
    for (const answer of this.#answers.values()) answer.reject(error);
    this.#answers.clear();
  }

  /** An error of the process, with the stack that it has there. */
  #errorOf({ name, message, stack }: PlainError): Error {
    const error = new Error(`process ${this.#number}: ${message}`);
    return Object.assign(error, { name, stack: `${name}: process ${this.#number}: ${stack}` });
  }

  order<T>(order: Order): Promise<T> {
    const number = this.#last++;
    const answer = new Promise<unknown>((resolve, reject) => this.#answers.set(number, { resolve, reject }));
    // A check may have failed before it asks for this answer.
    answer.catch(() => {});
    this.#process.send({ number, order }, (error) => {
      if (error) this.#answers.get(number)?.reject(error);
    });
    return answer as Promise<T>;
  }

  /** Calls a member of its store. Only `get`, `has` and `getMany` have a result here. */
  call<T = void>(member: Extract<Order, { do: "call" }>["member"], ...args: unknown[]): Promise<T> {
    return this.order({ do: "call", member, args });
  }

  /** Ends the process at once. */
  async kill(): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#ended;
  }

  /** Lets it close its store and end by itself. It is killed if that takes too long. */
  async end(): Promise<void> {
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), END_MS);
    if (this.#process.connected) this.order({ do: "end" }).catch(() => {});
    await this.#ended;
    clearTimeout(timer);
  }
}

/** Starts processes, runs `body` with them when their stores are open, and ends them. */
export async function withCrew(
  options: CrewOptions,
  body: (mates: Mate[], members: StoreMember[]) => Promise<void>,
  patience: number | undefined,
  what: string,
): Promise<void> {
  const mates = Array.from({ length: options.count }, (_, number) => new Mate(number, options));
  try {
    const work = Promise.all(mates.map(({ ready }) => ready)).then(([members]) => body(mates, members ?? []));
    await inTime(work, what, patience);
  } finally {
    await Promise.all(mates.map((mate) => mate.end()));
  }
}
