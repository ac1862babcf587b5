/**
 * The crash tests for as long as one likes: writers are killed, terminated and stopped at random instants while
 * survivors check everything they read. Ends with 1 at the first broken promise, and leaves nothing behind.
 *
 *   npm run soak -- --minutes 30 --seed 7
 */
import { parseArgs } from "node:util";
import { crash, freeze } from "../test/fixtures/crash-arena.mjs";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    seed: { type: "string", default: String(Math.floor(Math.random() * 1e9)) },
    /** Deaths before the caches are looked through and made anew. */
    round: { type: "string", default: "50" },
  },
});
const minutes = Number(values.minutes);
const round = Number(values.round);
let seed = Number(values.seed);
if (!(minutes > 0) || !(round > 0) || !Number.isSafeInteger(seed)) {
  console.error("usage: npm run soak -- [--minutes N] [--seed S] [--round DEATHS]");
  process.exit(2);
}

const KINDS = [
  { what: "kill -9, small cache", how: "kill", reach: "processes", roomy: false },
  { what: "terminate, small cache of a process", how: "terminate", reach: "threads", roomy: false },
  { what: "kill -9, roomy cache", how: "kill", reach: "processes", roomy: true },
  { what: "terminate, roomy cache", how: "terminate", reach: "processes", roomy: true },
  { what: "SIGSTOP, small cache", how: "stop" },
  { what: "terminate, small cache", how: "terminate", reach: "processes", roomy: false },
  { what: "terminate, roomy cache of a process", how: "terminate", reach: "threads", roomy: true },
];

const started = performance.now();
const elapsed = () => (performance.now() - started) / 60_000;
let interrupted = false;
process.once("SIGINT", () => {
  interrupted = true;
});
const over = () => interrupted || elapsed() >= minutes;
const totals = new Map();

function add(what, { deaths = 0, frozen = 0, survivorSteps, busy, longestMs }) {
  const total = totals.get(what) ?? { deaths: 0, stops: 0, checked: 0, busy: 0, longestMs: 0 };
  total.deaths += deaths;
  total.stops += frozen;
  total.checked += survivorSteps;
  total.busy += busy;
  total.longestMs = Math.max(total.longestMs, longestMs);
  totals.set(what, total);
}

const live = process.stdout.isTTY;
function show(what, count) {
  const line = `${elapsed().toFixed(1)} of ${minutes} min │ seed ${seed} │ ${what}: ${count}`;
  if (live) process.stdout.write(`\r\x1b[K${line}`);
  else if (count === round || count % 100 === 0) console.log(line);
}

console.log(`--seed ${seed} --minutes ${minutes} --round ${round}`);
for (let i = 0; !over(); i++, seed++) {
  const { what, ...kind } = KINDS[i % KINDS.length];
  const plan = { seed, until: over, progress: (count) => show(what, count) };
  try {
    add(
      what,
      await (kind.how === "stop" ? freeze({ ...plan, rounds: round }) : crash({ ...plan, ...kind, deaths: round })),
    );
  } catch (error) {
    console.error(`\nBROKEN after ${elapsed().toFixed(1)} minutes, in ${what}, with --seed ${seed}: ${error.stack}`);
    process.exitCode = 1;
    break;
  }
}
if (live) process.stdout.write("\r\x1b[K");
console.table(Object.fromEntries(totals));
