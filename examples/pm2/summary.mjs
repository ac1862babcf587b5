/**
 * Judges a run: the promises, whether they were kept, and the numbers that show it. `--json` prints the same data.
 */

import { bytes, count, inOrder } from "./screen.mjs";
import { processes } from "./settings.mjs";

/** All numbers of a run, and `promises` as `{ promise, kept, shown }`; `kept` is null if the promise does not apply. */
export function judge({ bytesOfAll, msOfAll, pages, scores, events, seconds, stats }, leftovers) {
  const { posted, killed } = events;
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
      promise: "Nothing is rendered again",
      kept: ifAllFits(scores.total("renderedAgain") === 0),
      shown: `${scores.total("renderedAgain")} of ${count(scores.total("answers"))} answers`,
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
    pages: { known: pages, asked, rendered: scores.total("rendered") },
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

/** Prints the summary as readable text. */
export function printSummary(screen, summary) {
  const { requests, failed, latencyMs, pages, saved, killed, restarted, cache, memory, promises } = summary;
  const again = Math.max(0, pages.rendered - pages.asked);
  const why = cache.evictions > 0 ? "the cache being too small for all" : "by two processes at once";
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
    line("rendered", `${pages.asked} of ${pages.known} pages, and ${count(again)} again, ${why}`),
    line(
      "from cache",
      `${count(saved.answers)} answers, which would have been ${Math.round(saved.renderingSeconds)} s of rendering`,
    ),
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

function round(number) {
  return Math.round(number * 100) / 100;
}
