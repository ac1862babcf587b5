/**
 * Counts what the service answered, process by process, and compares every answer with what is right. It sees only
 * what any client sees: the headers of the responses.
 */

/** What one process answered, which a restart under the same name does not continue. */
class Score {
  answers = 0;
  /** Pages that it has rendered, as it says itself: an answer that nobody waited for any more is work too. */
  rendered = 0;
  fromCache = 0;
  /** Of those from the cache, how many another process had rendered. */
  fromOthers = 0;
  /** Pages rendered although some process had answered with them before. */
  renderedAgain = 0;
  state = "online";

  constructor(name, pid) {
    this.name = name;
    this.pid = pid;
  }
}

export class Scores {
  /** Called with the first answer of a process that is not known yet: `{ score, ms, fromCache, at }`. */
  onNewcomer = () => {};
  /** By process id, in the order of their appearance. */
  processes = new Map();
  /** Answers with other bytes than the right ones. */
  wrong = [];
  /** Requests that got no answer, or a bad one: `{ asked, known, why }`, in milliseconds of `performance.now()`. */
  failures = [];
  /** Milliseconds of each answer of the load, as it comes from autocannon. */
  latencies = [];
  /** Bytes of rendered pages that came from the cache. */
  bytesFromCache = 0;
  /** Answers whose bytes were compared with the driver's own rendering. */
  compared = 0;
  /** When a path was answered first: it was in the cache before that. */
  #answeredAt = new Map();
  #right;

  /** @param right `{ etag, bytes }` by path: the right answers */
  constructor(right) {
    this.#right = right;
  }

  /** The score of a process; from then on it is known. */
  process(name, pid) {
    let score = this.processes.get(pid);
    if (score === undefined) this.processes.set(pid, (score = new Score(name, pid)));
    return score;
  }

  /** Takes note of a response to somebody who asked for it at the time `asked`; returns the score of who answered. */
  answered(status, headers, asked) {
    const path = headers["content-location"];
    const name = headers["x-process"];
    if (status !== 200) return this.failed(asked, performance.now(), `status ${status}`);
    const pid = Number(headers["x-pid"]);
    const known = this.processes.has(pid);
    const score = this.process(name, pid);
    const right = this.#right.get(path);
    if (headers.etag !== right?.etag) this.wrong.push(`${path} from ${name}`);

    score.answers++;
    score.rendered = Math.max(score.rendered, Number(headers["x-rendered"]));
    if (headers["x-cache"] === "hit") {
      score.fromCache++;
      const [by] = headers["x-rendered-by"]?.split("/") ?? [];
      if (by && by !== headers["x-pid"]) score.fromOthers++;
      if (by) this.bytesFromCache += right?.bytes ?? 0;
    } else {
      // Two processes may render a page at the same time. But who was asked when it had been answered should have had it.
      if (this.#answeredAt.get(path) < asked) score.renderedAgain++;
    }
    if (!this.#answeredAt.has(path)) this.#answeredAt.set(path, performance.now());

    const now = performance.now();
    if (!known) this.onNewcomer({ score, ms: now - asked, fromCache: headers["x-cache"] === "hit", at: now });
    return score;
  }

  /** Takes note of what the bytes of an answer were, after its headers. */
  compare(path, etag) {
    this.compared++;
    if (etag !== this.#right.get(path)?.etag) this.wrong.push(`${path}: other bytes than its ETag says`);
  }

  /** A request that was made at the time `asked` failed, as was known at the time `known`. */
  failed(asked, known, why) {
    this.failures.push({ asked, known, why });
  }

  /** Distinct paths that were answered. */
  get paths() {
    return [...this.#answeredAt.keys()];
  }

  total(what) {
    return [...this.processes.values()].reduce((sum, score) => sum + score[what], 0);
  }
}
