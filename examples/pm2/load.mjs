/**
 * The load: readers who ask for pages over and over, some pages much more often than others, as it is with pages.
 *
 * autocannon asks as fast as it gets answers, and the headers of each answer are checked. It runs in waves of a second,
 * since connections that stay open would never reach a process that was started after them. Beside it a few careful
 * readers open a new connection for each page, look at every byte, and notice at once when a process is back.
 */

import { get } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import autocannon from "autocannon";
import { etagOf } from "./page.mjs";
import { connections } from "./settings.mjs";

const WAVE_S = 1;
const CAREFUL_READERS = 4;
const CAREFUL_PAUSE_MS = 20;
/** A connection that was just being handed to a process when that was killed never gets an answer. */
const TIMEOUT_S = 2;

export class Load {
  /** Called with the score of who answered a careful reader, and the answer. */
  onCareful = () => {};
  #port;
  #scores;
  #paths;
  #ended = false;

  constructor(port, paths, scores) {
    this.#port = port;
    this.#paths = [...paths];
    this.#scores = scores;
  }

  /** Has one more path asked for. */
  add(path) {
    this.#paths.splice(this.#paths.length / 4, 0, path);
  }

  /** Asks until {@link end}. */
  async run() {
    const readers = Array.from({ length: CAREFUL_READERS }, () => this.#readCarefully());
    while (!this.#ended) await this.#wave();
    await Promise.all(readers);
  }

  end() {
    this.#ended = true;
  }

  async #wave() {
    const scores = this.#scores;
    const from = performance.now();
    let answers = 0;
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
            return { ...request, path: this.#pick() };
          },
          onResponse: (status, _body, context, headers) => {
            answers++;
            scores.answered(status, headers, context.asked);
          },
        },
      ],
    });
    wave.on("response", (_client, _status, _bytes, ms) => scores.latencies.push(ms));
    const { requests } = await wave;
    // At its end a wave leaves one request unanswered on each connection. All others were lost with their connection.
    const lost = requests.sent - answers - connections;
    if (lost > 0) scores.failed(from, performance.now(), lost, "connection lost");
  }

  async #readCarefully() {
    while (!this.#ended) {
      const asked = performance.now();
      try {
        await this.read(this.#pick());
      } catch (error) {
        this.#scores.failed(asked, performance.now(), 1, error.code ?? error.message);
      }
      await sleep(CAREFUL_PAUSE_MS);
    }
  }

  /** Reads one page on a connection of its own, which may reach any process; returns the score of who answered. */
  async read(path) {
    const asked = performance.now();
    const { status, headers, body } = await fetchFresh(this.#port, path);
    const ms = performance.now() - asked;
    const score = this.#scores.answered(status, headers, asked);
    if (status === 200) {
      this.#scores.compare(path, etagOf(body));
      this.onCareful(score, { path, ms, fromCache: headers["x-cache"] === "hit" });
    }
    return score;
  }

  /** A page by its popularity: the first eighth of the list gets half of all requests. */
  #pick() {
    return this.#paths[Math.floor(this.#paths.length * Math.random() ** 3)];
  }
}

function fetchFresh(port, path) {
  return new Promise((resolve, reject) => {
    const request = get({ host: "127.0.0.1", port, path, agent: false, timeout: TIMEOUT_S * 1000 }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () =>
        resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks) }),
      );
    });
    request.on("timeout", () => request.destroy(Object.assign(new Error("no answer"), { code: "TIMEOUT" })));
    request.on("error", reject);
  });
}
