/** What sending a command has in common for all libraries: the time limit, and the bound on what waits. */

/** Commands that may wait for a server which is not connected, and commands that nobody waits for any more but the library. */
const MOST_WAITING = 1000;

/** Limits the time and the number of the commands of one client. */
export class Sending {
  #waiting = 0;
  #abandoned = 0;

  /**
   * Runs one command. Rejects when it is not answered within `timeout` milliseconds, or at once when too many wait already.
   *
   * @param isReady whether the client is connected. If not, the command has to wait in the queue of the client.
   */
  run<T>(command: () => Promise<T>, timeout: number, isReady: boolean): Promise<T> {
    if (this.#abandoned >= MOST_WAITING || (!isReady && this.#waiting >= MOST_WAITING)) {
      return Promise.reject(new Error(`more than ${MOST_WAITING} commands wait for an answer of the server`));
    }
    return new Promise((resolve, reject) => {
      let isAbandoned = false;
      const timer = setTimeout(() => {
        isAbandoned = true;
        this.#abandoned++;
        reject(noAnswer(timeout));
      }, timeout);
      const settle = (): void => {
        clearTimeout(timer);
        this.#waiting--;
        if (isAbandoned) this.#abandoned--;
      };
      this.#waiting++;
      command().then(
        (value) => {
          settle();
          resolve(value);
        },
        (error) => {
          settle();
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
