/**
 * Counts in two steps under a lock, by processes with two threads each that are killed and frozen at random moments. Then checks that
 * no section was lost and none was counted twice. Run by counter.test.ts, and for long by itself:
 *
 * `node test/coordinate/count.mjs SECTIONS KILLS [SEED]`
 */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { destroyCache, openCache } from "cache-machine";
import { generator } from "../crash/checked-values.mjs";

const SCRIPT = fileURLToPath(new URL("counter.mjs", import.meta.url));
const PROCESSES = 4;
let runs = 0;

/**
 * @param sections the least number of sections that are counted
 * @param kills how many processes are killed, at random moments spread over the run
 * @param progress called now and then
 */
export async function count({ sections, kills, seed, patienceMs = 120_000, progress }) {
  const name = `t-${process.pid}-count-${++runs}`;
  const random = generator(seed);
  const cache = openCache(name, { size: 4 << 20 });
  const children = new Map();
  const problems = [];
  let killed = 0;
  let frozen = 0;

  const start = (number) => {
    const setup = { name, seed: random.next(), id: 2 * number, parent: process.pid };
    const argv = ["--pdeathsig", "KILL", process.execPath, SCRIPT, JSON.stringify(setup)];
    const child = spawn("setpriv", argv, { stdio: ["ignore", "ignore", "pipe"] });
    let said = "";
    child.stderr.on("data", (data) => (said += data));
    const ended = new Promise((resolve) => child.once("close", (code, signal) => resolve({ code, signal })));
    children.set(number, { child, ended });
    void ended.then(({ code, signal }) => {
      if (code !== 0 && signal !== "SIGKILL") problems.push(`process ${number} ended with ${code ?? signal}: ${said}`);
    });
  };
  const total = () => cache.get("counter")?.total ?? 0;
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  try {
    for (let number = 0; number < PROCESSES; number++) start(number);
    const since = performance.now();
    for (let last = 0; total() < sections || killed < kills; ) {
      if (problems.length > 0) throw new Error(problems.join("\n"));
      if (performance.now() - since > patienceMs) {
        throw new Error(`hangs at ${total()} sections: ${JSON.stringify(cache.locks.query())}`);
      }
      // Spreads the kills over the sections.
      if (killed < kills && total() >= ((killed + 1) * sections) / (kills + 1)) {
        const number = random.below(PROCESSES);
        const { child, ended } = children.get(number);
        for (const instant = performance.now() + random.random() * 2; performance.now() < instant; );
        child.kill("SIGKILL");
        await ended;
        killed++;
        start(number);
      } else if (random.below(20) === 0) {
        const { child } = children.get(random.below(PROCESSES));
        child.kill("SIGSTOP");
        await pause(random.below(30));
        child.kill("SIGCONT");
        frozen++;
      }
      await pause(1 + random.below(5));
      if (total() - last > sections / 100) progress?.({ total: (last = total()), killed, frozen });
    }
    cache.set("stop", true);
    for (const { ended } of children.values()) await Promise.race([ended, pause(30_000)]);
    if (problems.length > 0) throw new Error(problems.join("\n"));
    const { by, ...counter } = cache.get("counter");
    for (let id = 0; id < 2 * PROCESSES; id++) {
      const [least, most] = [cache.get(`counted ${id}`) ?? 0, cache.get(`attempted ${id}`) ?? 0];
      const counted = by[id] ?? 0;
      if (counted < least || counted > most) {
        throw new Error(`participant ${id} has counted ${least} to ${most}, and the counter has ${counted}`);
      }
    }
    const sum = Object.values(by).reduce((a, b) => a + b, 0);
    if (sum !== counter.total || sum < sections) throw new Error(`the counter has ${counter.total}, the sum is ${sum}`);
    const state = cache.locks.query();
    if (state.held.length + state.pending.length > 0) throw new Error(`left behind: ${JSON.stringify(state)}`);
    return { ...counter, killed, frozen, by, ms: Math.round(performance.now() - since) };
  } finally {
    for (const { child, ended } of children.values()) {
      child.kill("SIGKILL");
      await ended;
    }
    cache.close();
    destroyCache(name);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [sections, kills, seed = Math.floor(Math.random() * 1e9)] = process.argv.slice(2).map(Number);
  console.log(`SEED=${seed}`);
  const progress = (at) => console.log(JSON.stringify(at));
  console.log(await count({ sections, kills, seed, patienceMs: Infinity, progress }));
}
