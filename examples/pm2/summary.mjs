/**
 * Judges a run: the promises, whether they were kept, and the numbers that show it. `--json` prints the same data.
 */

import { bytes, count, inOrder } from "./screen.mjs";
import { processes } from "./settings.mjs";

/** The longest time from the end of a rendering in a worker thread until its process has stored the page. */
const LONGEST_STORE_MS = 2000;

/** All numbers of a run, and `promises` as `{ promise, kept, shown }`; `kept` is null if the promise does not apply. */
export function judge({ bytesOfAll, msOfAll, pages, scores, events, books, seconds, stats }, leftovers) {
  const { posted, waited, limits, killed } = events;
  const { newcomer } = killed;
  const all = [...scores.processes.values()];
  const living = all.filter((score) => score.state !== "killed");
  const latencies = Float64Array.from(scores.latencies).sort();
  const asked = scores.paths.filter((path) => path.startsWith("/docs/")).length;

  const byTheKill = scores.failures.filter(({ asked, known }) => asked < killed.back && known > killed.at);
  // A request without an answer before it was interrupted was only slow, unless a process was killed meanwhile.
  const others = scores.failures.filter((failure) => !byTheKill.includes(failure) && failure.why !== "no answer");
  // A cache that is too small for all pages evicts some, which are then rendered again.
  const ifAllFits = (kept) => (stats.evictions > 0 ? null : kept);
  const work = renderings(books.renderings, killed);
  const house = housekeeping(books.housekeeping, all, killed);
  const allOf = (names) => names.length === processes;

  const promises = [
    {
      promise: "Every answer is the right one",
      kept: scores.wrong.length === 0 && scores.compared > 0,
      shown: `${count(scores.wrong.length)} wrong; ${count(scores.total("answers"))} ETags, ${count(scores.compared)} bodies`,
    },
    {
      promise: "What one process has, all have",
      kept: living.every((score) => score.fromOthers > 0) && posted.servedBy.length === processes,
      shown: "pages of others, and what was posted",
    },
    {
      promise: "Nothing is rendered twice",
      kept: ifAllFits(work.again === 0 && work.atOnce === 0 && scores.total("renderedAgain") === 0),
      shown: `${work.again} pages again, ${work.atOnce} by two processes at once`,
    },
    {
      promise: "Who comes too early waits",
      kept: waited.wrong === 0 && allOf(waited.by),
      shown: `${waited.requests} requests, awake ${waited.ms.toFixed(1)} ms after the post`,
    },
    {
      promise: "One limit holds for all",
      kept:
        limits.accepted === limits.limit && limits.refused === limits.posts - limits.limit && allOf(limits.postedTo),
      shown: `${limits.accepted} of ${limits.posts} posts to ${limits.postedTo.length} processes`,
    },
    {
      promise: "A change is loaded by all",
      kept: allOf(limits.loadedBy),
      shown: `${limits.loadedBy.length} processes within ${limits.ms.toFixed(1)} ms`,
    },
    {
      promise: "One keeps house for all",
      kept: house.atOnce > 0 ? false : house.rounds > 0 || ifAllFits(false),
      shown: `${house.rounds} rounds, ${house.atOnce} by two processes at once`,
    },
    {
      promise: "One is killed, the others go on",
      kept: killed.meanwhile.every(({ answers }) => answers > 0) && others.length === 0 && living.length === processes,
      shown: `${killed.meanwhile.map(({ answers }) => count(answers)).join(" + ")} answers meanwhile`,
    },
    {
      promise: "A restarted process starts warm",
      kept: ifAllFits(newcomer.fromCache && newcomer.score.renderedAgain === 0),
      shown: `${newcomer.score.rendered} pages rendered, ${count(newcomer.score.fromCache)} from the cache`,
    },
    {
      promise: "Nothing is left behind",
      kept: leftovers.length === 0,
      shown: leftovers.length === 0 ? "no process, no file, no shared memory" : leftovers.join(", "),
    },
  ];

  return {
    promises,
    seconds: round(seconds),
    requests: scores.total("answers") + byTheKill.length + others.length,
    failed: {
      byTheKill: byTheKill.length,
      others: others.length,
      why: [...new Set([...byTheKill, ...others].map(({ why }) => why))],
    },
    wrong: scores.wrong.slice(0, 10),
    latencyMs: {
      median: round(latencies[latencies.length >> 1]),
      p99: round(latencies[Math.floor(latencies.length * 0.99)]),
    },
    pages: { known: pages, asked, rendered: scores.total("rendered"), ...work },
    waited: {
      forPages: scores.total("waited"),
      forPagesOfOthers: scores.total("waitedForOthers"),
      forTheResult: waited,
    },
    limits,
    housekeeping: house,
    processes: inOrder(all),
    saved: {
      answers: scores.total("fromCache"),
      // Estimated by the driver's average rendering time.
      renderingSeconds: round((scores.bytesFromCache / bytesOfAll) * (msOfAll / 1000)),
    },
    posted,
    killed: { name: killed.name, pid: killed.pid, outageSeconds: round(killed.outage), meanwhile: killed.meanwhile },
    restarted: {
      pid: newcomer.score.pid,
      firstAnswerMs: round(newcomer.ms),
      firstFromCache: newcomer.fromCache,
      rendered: newcomer.score.rendered,
    },
    cache: { entries: stats.entries, bytes: stats.bytes, size: stats.size, evictions: stats.evictions },
    // The memory of a separate cache in each process, without overhead.
    memory: { shared: stats.size, copies: processes * (bytesOfAll + posted.bytes) },
    leftovers,
  };
}

/**
 * What the books tell about the rendering: pages that were rendered again, pages that two rendered at the same time, and
 * renderings that ended with the killed process before it had stored the page, so that another process had to do them.
 */
function renderings(books, killed) {
  const wasInterrupted = (record, next) =>
    next?.began > killed.killedAt &&
    pidOf(record) === killed.pid &&
    !(record.ended < killed.killedAt - LONGEST_STORE_MS);
  const interrupted = books.flatMap((records) =>
    inOrderOfTime(records).filter((record, i, all) => wasInterrupted(record, all[i + 1])),
  ).length;
  const again = books.reduce((sum, records) => sum + Math.max(0, records.length - 1), 0) - interrupted;
  return { again, atOnce: books.reduce((sum, records) => sum + atOnce(records, killed), 0), interrupted };
}

/** The rounds of the housekeeping, in all and by the name of the process. */
function housekeeping(records, scores, killed) {
  const by = {};
  for (const record of records) {
    const name = scores.find(({ pid }) => pid === pidOf(record))?.name ?? "?";
    by[name] = (by[name] ?? 0) + 1;
  }
  return { rounds: records.length, by, atOnce: atOnce(records, killed) };
}

/** How many of these pieces of work began before an earlier one had ended; the death of its process ends a piece of work too. */
function atOnce(records, killed) {
  let end = -Infinity;
  let count = 0;
  for (const record of inOrderOfTime(records)) {
    if (record.began < end) count++;
    end = Math.max(end, record.ended ?? (pidOf(record) === killed.pid ? killed.killedAt : Infinity));
  }
  return count;
}

function inOrderOfTime(records) {
  return records.toSorted((a, b) => a.began - b.began);
}

function pidOf({ by }) {
  return Number(by.split("/")[0]);
}

/** Prints the summary as readable text. */
export function printSummary(screen, summary) {
  const { requests, failed, latencyMs, pages, waited, limits, housekeeping: house, saved, killed, restarted } = summary;
  const { cache, memory, promises } = summary;
  const again = cache.evictions > 0 ? ", some of them again, because the cache is too small for all" : ", each once";
  const line = (name, text) => `  ${screen.dim(name.padEnd(10))}  ${text}`;
  screen.print(
    "",
    ...screen.scores(summary.processes),
    "",
    line(
      "requests",
      `${count(requests)} in ${summary.seconds} s; median ${latencyMs.median} ms, 99 % within ${latencyMs.p99} ms`,
    ),
    line("failed", `${failed.byTheKill} with the killed process, ${failed.others} others`),
    line("rendered", `${pages.asked} of ${pages.known} pages${again}; ${pages.atOnce} by two processes at once`),
    ...(pages.interrupted > 0 ? [line("", `${pages.interrupted} of them by another process after the kill`)] : []),
    line("waited", `${count(waited.forPages)} requests for a page that was just being rendered,`),
    line("", `${count(waited.forPagesOfOthers)} of them in another process than the one that rendered it`),
    line(
      "",
      `${waited.forTheResult.requests} requests for the client's result, in ${waited.forTheResult.by.length} processes`,
    ),
    line(
      "from cache",
      `${count(saved.answers)} answers, which would have been ${Math.round(saved.renderingSeconds)} s of rendering`,
    ),
    line(
      "limit",
      `${limits.accepted} of ${limits.posts} posts accepted: ${limits.limit} an hour, by all ${limits.postedTo.length} processes together`,
    ),
    line("housework", `${house.rounds} rounds: ${turns(house.by)}`),
    line("restart", `first answer in ${restarted.firstAnswerMs} ms, ${killed.outageSeconds} s after the kill`),
    line(
      "cache",
      `${count(cache.entries)} entries, ${bytes(cache.bytes)} of ${bytes(cache.size)}, ${cache.evictions} evicted`,
    ),
    line(
      "memory",
      `${bytes(cache.size)} reserved, once; copies in ${processes} processes would be ${bytes(memory.copies)}`,
    ),
    "",
    ...promises.map(
      ({ promise, kept, shown }) =>
        `  ${kept === null ? "-" : kept ? screen.green("✓") : screen.red("✗")} ${promise.padEnd(32)} ${screen.dim(shown)}`,
    ),
    "",
  );
}

/** "3 by docs-0, 5 by docs-1" */
function turns(by) {
  const names = Object.keys(by).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  return names.map((name) => `${by[name]} by ${name}`).join(", ");
}

function round(number) {
  return Math.round(number * 100) / 100;
}
