/**
 * The connection of a tier for its commands: a duplicate of the user's client, which nobody else uses.
 *
 * A library may hand out commands and answers that no longer belong together after a connection was lost, or may wait for ever for a
 * greeting that was lost. And a network may swallow packets without an end of the connection. So a command is given to the library only
 * while it is connected, and a connection from which nothing comes any more is ended, and another one opened.
 */

import type { Argument, Reply } from "./interface.ts";
import { noAnswer, Sending } from "./sending.ts";

/** So many times the limit of a command, and at least so many milliseconds, a connection may be silent while an answer is due. */
const PATIENCE_OF_LIMITS = 3;
const LEAST_PATIENCE = 2000;

/** A duplicate of the user's client. */
export interface Duplicate {
  /** Whether commands can be sent now. */
  readonly isReady: boolean;
  /** Whether the library takes itself to be connected, also while it still greets the server. */
  readonly isConnected: boolean;
  /** Whether the library will not connect any more. */
  readonly isOver: boolean;
  /** Calls back each time when commands can be sent, and when the library gives up. */
  watch(onReady: () => void, onOver: () => void): void;
  /** Sends a command. The library is ready. */
  call(args: readonly Argument[], timeout: number): Promise<Reply>;
  /** Whether an error is an answer of the server. */
  isReply(error: unknown): boolean;
  /** Ends the connection at once. All commands that have no answer reject. */
  destroy(): void;
}

/** Opens a duplicate with the first command, and another one when the last one is over or silent. */
export class Own<T extends Duplicate> {
  readonly #open: () => T;
  readonly #sending = new Sending();
  #line: Line<T> | undefined;
  #isClosed = false;

  constructor(open: () => T) {
    this.#open = open;
  }

  send(args: readonly Argument[], timeout: number): Promise<Reply> {
    if (this.#isClosed) return Promise.reject(closed());
    const line = this.#current();
    const { duplicate } = line;
    const { isReady } = duplicate;
    // The queue of the library cannot be asked to give a command back. So a command is not given to it before it can be sent.
    const answer = isReady
      ? () => duplicate.call(args, timeout)
      : () => line.ready(timeout).then(() => duplicate.call(args, timeout));
    return this.#sending.run(answer, timeout, isReady, line);
  }

  /** The duplicate, when it is connected. */
  async ready(timeout: number): Promise<T> {
    if (this.#isClosed) throw closed();
    const line = this.#current();
    if (!line.duplicate.isReady) await line.ready(timeout);
    return line.duplicate;
  }

  close(): void {
    this.#isClosed = true;
    this.#line?.duplicate.destroy();
  }

  #current(): Line<T> {
    // It is over when the strategy of the user for reconnecting has given up. Another command is another attempt.
    if (this.#line === undefined || this.#line.duplicate.isOver) this.#line = new Line(this.#open(), this.#replace);
    return this.#line;
  }

  /** The next command opens another one. */
  readonly #replace = (line: Line<T>): void => {
    if (this.#line === line) this.#line = undefined;
    line.duplicate.destroy();
  };
}

/** One duplicate, and since when it is silent. */
class Line<T extends Duplicate> {
  readonly duplicate: T;
  readonly #replace: (line: Line<T>) => void;
  readonly #waiting = new Set<(error?: Error) => void>();
  /** When the first command was begun of those after the last answer. */
  #due: number | undefined;

  constructor(duplicate: T, replace: (line: Line<T>) => void) {
    this.duplicate = duplicate;
    this.#replace = replace;
    duplicate.watch(
      () => {
        this.#due = undefined;
        this.#settle();
      },
      () => this.#settle(closed()),
    );
  }

  ready(timeout: number): Promise<void> {
    if (this.duplicate.isOver) return Promise.reject(closed());
    return new Promise((resolve, reject) => {
      const settle = (error?: Error): void => {
        clearTimeout(timer);
        this.#waiting.delete(settle);
        if (error === undefined) resolve();
        else reject(error);
      };
      const timer = setTimeout(settle, timeout, noAnswer(timeout));
      this.#waiting.add(settle);
    });
  }

  #settle(error?: Error): void {
    for (const settle of [...this.#waiting]) settle(error);
  }

  // ---- What `Sending` tells.

  begun(): void {
    this.#due ??= performance.now();
  }

  /** Undefined for an answer, otherwise the error. */
  ended(error?: unknown): void {
    if (error === undefined || this.duplicate.isReply(error)) this.#due = undefined;
  }

  late(timeout: number): void {
    // Until it is connected, the library tries again by itself.
    if (!this.duplicate.isConnected) this.#due = undefined;
    if (this.#due === undefined) return;
    const patience = Math.max(LEAST_PATIENCE, timeout * PATIENCE_OF_LIMITS);
    if (performance.now() - this.#due >= patience) this.#replace(this);
  }
}

function closed(): Error {
  return new Error("the client was closed");
}
