/**
 * The load: readers request pages again and again, a few popular pages much more often than others.
 *
 * autocannon sends the next request as soon as it has an answer, and the headers of each answer are checked. It runs in short waves,
 * because connections that stay open never reach a process that was started later. In addition, a few careful readers open a new
 * connection for each page, compare every byte, and notice at once when a process is back.
 */

import { setTimeout as sleep } from "node:timers/promises";
import autocannon from "autocannon";
import { etagOf } from "./page.mjs";
import { send } from "./requests.mjs";
import { connections } from "./settings.mjs";

const WAVE_S = 2;
const CAREFUL_READERS = 4;
const CAREFUL_PAUSE_MS = 20;
/** A request that has waited this long when it is interrupted counts as not answered. */
const FORGOTTEN_MS = 500;
const TIMEOUT_S = 5;

export class Load {
  #port;
  #scores;
  #paths;
  #end = new AbortController();

  constructor(port, paths, scores) {
    this.#port = port;
    this.#paths = [...paths];
    this.#scores = scores;
  }

  /** Adds a path to the requested ones. */
  add(path) {
    this.#paths.splice(this.#paths.length / 4, 0, path);
  }

  /** Sends requests until {@link end}. */
  async run() {
    const readers = Array.from({ length: CAREFUL_READERS }, () => this.#readCarefully());
    while (!this.#end.signal.aborted) await this.#wave();
    await Promise.all(readers);
  }

  end() {
    this.#end.abort();
  }

  async #wave() {
    const scores = this.#scores;
    const unanswered = new Set();
    const wave = autocannon({
      url: `http://127.0.0.1:${this.#port}`,
      connections,
      duration: WAVE_S,
      sampleInt: 100,
      timeout: TIMEOUT_S,
      requests: [
        {
          setupRequest: (request, context) => {
            context.asked = performance.now();
            unanswered.add(context);
            return { ...request, path: this.#pick() };
          },
          onResponse: (status, _body, context, headers) => {
            unanswered.delete(context);
            scores.answered(status, headers, context.asked);
          },
        },
      ],
    });
    wave.on("response", (_client, _status, _bytes, ms) => scores.latencies.push(ms));
    await wave;
    this.#accountFor([...unanswered].map(({ asked }) => asked));
  }

  /**
   * Judges the requests that a wave leaves unanswered. The newest ones, one for each connection, were interrupted by the end of the
   * wave. All others were lost: with their connection, or because node:cluster had given the connection to a process that was killed
   * at that moment.
   */
  #accountFor(unanswered) {
    const lost = unanswered.length - connections;
    unanswered
      .sort((a, b) => a - b)
      .forEach((asked, index) => {
        if (index < lost) this.#scores.failed(asked, performance.now(), "connection lost");
        else this.#interrupted(asked);
      });
  }

  #interrupted(asked) {
    const now = performance.now();
    if (now - asked > FORGOTTEN_MS) this.#scores.failed(asked, now, "no answer");
  }

  async #readCarefully() {
    while (!this.#end.signal.aborted) {
      const asked = performance.now();
      try {
        await this.read(this.#pick());
      } catch (error) {
        if (error.name === "AbortError") this.#interrupted(asked);
        else this.#scores.failed(asked, performance.now(), error.code ?? error.message);
      }
      await sleep(CAREFUL_PAUSE_MS);
    }
  }

  /** Reads one page on a new connection, which may reach any process; the score of the process that answered. */
  async read(path) {
    const asked = performance.now();
    const { status, headers, body } = await send(this.#port, path, { timeoutS: TIMEOUT_S, signal: this.#end.signal });
    const score = this.#scores.answered(status, headers, asked);
    if (status === 200) this.#scores.compare(path, etagOf(body));
    return score;
  }

  /** A random page by popularity: the first eighth of the list gets half of all requests. */
  #pick() {
    return this.#paths[Math.floor(this.#paths.length * Math.random() ** 3)];
  }
}
