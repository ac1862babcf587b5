/**
 * Counts the answers of each process, and compares every answer with the right one. It uses only what any client sees: the headers of
 * the responses.
 */

/** The counts of one process; a process that was restarted under the same name has counts of its own. */
class Score {
  answers = 0;
  /** Pages that it has rendered, by its own count, which includes answers that no client waited for. */
  rendered = 0;
  fromCache = 0;
  /** Answers from the cache whose page another process had rendered. */
  fromOthers = 0;
  /** Answers with a page that was just being rendered, and those of them whose page another process rendered. */
  waited = 0;
  waitedForOthers = 0;
  /** Answers that had to wait for a page, although some process had answered with it before. */
  renderedAgain = 0;
  state = "online";

  constructor(name, pid) {
    this.name = name;
    this.pid = pid;
  }
}

export class Scores {
  /** Called with the first answer of a new process: `{ score, ms, fromCache, at }`. */
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
  /** The time of the first answer for each path; the page was in the cache before. */
  #answeredAt = new Map();
  #right;

  /** @param right `{ etag, bytes }` by path: the right answers */
  constructor(right) {
    this.#right = right;
  }

  /** The score of a process; creates it if the process is new. */
  process(name, pid) {
    let score = this.processes.get(pid);
    if (score === undefined) this.processes.set(pid, (score = new Score(name, pid)));
    return score;
  }

  /** Counts a response to a request made at the time `asked`; the score of the process that answered. */
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
    const [by] = headers["x-rendered-by"]?.split("/") ?? [];
    const isOfOther = Boolean(by) && by !== headers["x-pid"];
    if (headers["x-cache"] === "hit") {
      score.fromCache++;
      if (isOfOther) score.fromOthers++;
      if (by) this.bytesFromCache += right?.bytes ?? 0;
    } else {
      if (headers["x-cache"] === "joined") score.waited++;
      if (headers["x-cache"] === "joined" && isOfOther) score.waitedForOthers++;
      // A request that was made after the first answer should be a hit.
      if (this.#answeredAt.get(path) < asked) score.renderedAgain++;
    }
    if (!this.#answeredAt.has(path)) this.#answeredAt.set(path, performance.now());

    const now = performance.now();
    if (!known) this.onNewcomer({ score, ms: now - asked, fromCache: headers["x-cache"] === "hit", at: now });
    return score;
  }

  /** Compares the bytes of an answer with the right ones, by their ETag. */
  compare(path, etag) {
    this.compared++;
    if (etag !== this.#right.get(path)?.etag) this.wrong.push(`${path}: other bytes than its ETag says`);
  }

  /** Records that a request made at the time `asked` failed; `known` is when that was noticed. */
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
