/**
 * The driver: starts the service under pm2, puts it under load, runs the story, and prints the results at the end. It leaves nothing
 * behind, however it ends.
 *
 *     npm start                  from the root of the repository
 *     node main.mjs --json       the last line on standard output is JSON; everything else goes to standard error
 */

import { spawn } from "node:child_process";
import { once, setMaxListeners } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { findPages } from "./docs.mjs";
import { findLeftovers, removeMemory } from "./leftovers.mjs";
import { Load } from "./load.mjs";
import { etagOf, renderPage } from "./page.mjs";
import { Scores } from "./scores.mjs";
import { bytes, Screen } from "./screen.mjs";
import { Service } from "./service.mjs";
import { cacheName, cacheSize, duration, processes, threads } from "./settings.mjs";
import { cache, recordsOf } from "./store.mjs";
import { happen } from "./story.mjs";
import { judge, printSummary } from "./summary.mjs";
import { within } from "./within.mjs";

/** Time limits in seconds. The story may take longer than the load, because it waits for processes. */
const START_S = 40;
const STORY_EXTRA_S = 60;
const STOP_S = 10;
const REDRAW_MS = 100;

const json = process.argv.includes("--json");
const screen = new Screen(json ? process.stderr : process.stdout);
process.on("exit", () => screen.close());
const home = mkdtempSync(join(tmpdir(), "pm2-example-"));
const janitor = startJanitor();
const service = new Service(home);
const stop = new AbortController();
// Each request of the story listens to it.
setMaxListeners(Infinity, stop.signal);
let starting;

let exitCode = 1;
let outcome;
try {
  outcome = await Promise.race([run(stop.signal), interruption()]);
} catch (error) {
  stop.abort();
  screen.clear();
  screen.print(error.exitCode ? `  ${error.message}` : `${error.stack}\n${service.errors()}`);
  exitCode = error.exitCode ?? 1;
}
await cleanUp();
const leftovers = await findLeftovers(home, cacheName);
janitor.stdin.end();
await once(janitor, "exit");

if (outcome === undefined) {
  for (const left of leftovers) screen.print(screen.red(`  left behind: ${left}`));
} else {
  const summary = judge(outcome, leftovers);
  printSummary(screen, summary);
  if (json) process.stdout.write(`${JSON.stringify(summary)}\n`);
  exitCode = summary.promises.every(({ kept }) => kept !== false) ? 0 : 1;
}
process.exit(exitCode);

/** Runs everything; ends early at the next step after the signal. */
async function run(signal) {
  const pages = findPages();
  screen.print(
    "",
    screen.bold(
      `  One cache of ${cacheSize} for ${processes} processes under pm2, with ${threads} worker threads in each`,
    ),
    `  ${pages.length} pages: the documentation in node_modules, rendered when somebody asks`,
    "",
  );

  starting = service.start();
  const started = within(START_S, starting, "the service did not start");
  const [port, { right, bytesOfAll, msOfAll }] = await Promise.all([started, renderAll(pages)]);
  const scores = new Scores(right);
  for (const { name, pid } of await service.list()) scores.process(name, pid);
  signal.throwIfAborted();
  screen.print(
    `  http://127.0.0.1:${port} is up. The driver has rendered all pages too, to know`,
    `  the right answers: ${bytes(bytesOfAll)} of HTML, ${(msOfAll / 1000).toFixed(1)} s of work. Now readers come.`,
    "",
  );

  const load = new Load(port, right.keys(), scores);
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  const drawing = setInterval(() => screen.progress(seconds(), duration, scores, cacheLine()), REDRAW_MS);
  signal.addEventListener("abort", () => {
    clearInterval(drawing);
    load.end();
  });
  const loading = load.run();
  const story = happen({ port, load, right, scores, screen, seconds, signal });
  const limit = duration + STORY_EXTRA_S;
  const events = await within(limit, Promise.race([story, loading]), "the run was not over");
  load.end();
  await loading;
  signal.throwIfAborted();
  clearInterval(drawing);
  screen.clear();
  screen.event(seconds(), "The readers leave, and pm2 is stopped.");
  const books = {
    renderings: pages.map(({ path }) => recordsOf(path)),
    housekeeping: recordsOf("housekeeping"),
  };
  return {
    bytesOfAll,
    msOfAll,
    pages: pages.length,
    scores,
    events,
    books,
    seconds: seconds(),
    stats: { ...cache.stats(), ...cache.census() },
  };
}

/** Renders all pages here, for comparison with the answers; in small steps, because pm2 is starting meanwhile. */
async function renderAll(pages) {
  const right = new Map();
  let bytesOfAll = 0;
  let msOfAll = 0;
  for (const page of pages) {
    const started = performance.now();
    const html = renderPage(page);
    msOfAll += performance.now() - started;
    bytesOfAll += html.length;
    right.set(page.path, { etag: etagOf(html), bytes: html.length });
    await sleep(0);
  }
  return { right, bytesOfAll, msOfAll };
}

function cacheLine() {
  const { entries, bytes: used } = cache.census();
  const { size } = cache.stats();
  return `cache: ${entries} entries, ${bytes(used)} of ${bytes(size)}`;
}

/** Starts the janitor, which cleans up if this process cannot. */
function startJanitor() {
  const file = fileURLToPath(new URL("./janitor.mjs", import.meta.url));
  const limit = START_S + duration + STORY_EXTRA_S + 3 * STOP_S;
  return spawn(process.execPath, [file, home, cacheName, String(limit)], {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
}

/** Rejects when the user interrupts the run, by a signal or by closing the output. */
function interruption() {
  return new Promise((_, reject) => {
    const because = (why, exitCode) => () => reject(Object.assign(new Error(`Stopped by ${why}.`), { exitCode }));
    process.on("SIGINT", because("SIGINT", 130));
    process.on("SIGTERM", because("SIGTERM", 143));
    process.on("SIGHUP", because("SIGHUP", 129));
    process.stdout.on("error", because("the end of the output", 141));
    process.stderr.on("error", because("the end of the output", 141));
  });
}

async function cleanUp() {
  // Waits for the start first, because pm2 cannot be stopped reliably while it starts.
  await within(STOP_S, starting, "").catch(() => {});
  await within(STOP_S, service.stop(), "pm2 was not stopped").catch(({ message }) => screen.print(screen.red(message)));
  rmSync(home, { recursive: true, force: true });
  cache.close();
  await removeMemory(cacheName);
}
