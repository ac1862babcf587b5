/** What sending a command has in common for all libraries: the time limit, and the bound on what waits. */

/** Commands that may wait for a server which is not connected, and commands that nobody waits for any more but the library. */
const MOST_WAITING = 1000;

/** Is told what becomes of the commands. */
export interface Watch {
  begun(): void;
  /** @param error what the command rejected with; none for an answer */
  ended(error?: unknown): void;
  /** A command was not answered within its limit. */
  late(timeout: number): void;
}

/** Limits the time and the number of the commands of one client. */
export class Sending {
  #waiting = 0;
  #abandoned = 0;

  /**
   * Runs one command. Rejects when it is not answered within `timeout` milliseconds, or at once when too many wait already.
   *
   * @param isReady whether the client is connected. If not, the command has to wait in the queue of the client.
   */
  run<T>(command: () => Promise<T>, timeout: number, isReady: boolean, watch?: Watch): Promise<T> {
    if (this.#abandoned >= MOST_WAITING || (!isReady && this.#waiting >= MOST_WAITING)) {
      return Promise.reject(new Error(`more than ${MOST_WAITING} commands wait for an answer of the server`));
    }
    return new Promise((resolve, reject) => {
      let isAbandoned = false;
      const timer = setTimeout(() => {
        isAbandoned = true;
        this.#abandoned++;
        reject(noAnswer(timeout));
        watch?.late(timeout);
      }, timeout);
      const settle = (): void => {
        clearTimeout(timer);
        this.#waiting--;
        if (isAbandoned) this.#abandoned--;
      };
      this.#waiting++;
      watch?.begun();
      command().then(
        (value) => {
          settle();
          watch?.ended();
          resolve(value);
        },
        (error) => {
          settle();
          watch?.ended(error);
          reject(error instanceof Error && error.message === "" ? noAnswer(timeout) : error);
        },
      );
    });
  }
}

/** The error of a command that was not answered in time. */
export function noAnswer(timeout: number): Error {
  return new Error(`no answer of the server within ${timeout} ms`);
}
