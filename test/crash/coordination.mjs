/**
 * Drives the tests of coordination under fire: participants load, wait, lock and limit, and are killed, terminated or frozen at random
 * moments, while survivors in another process and another thread go on. All of them check what they see (coordinating.mjs).
 */
import { readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { createCache, destroyCache, openCache } from "cache-machine";
import { demand, generator, makeValue } from "./checked-values.mjs";
import { LIMIT, LOCKS, Page, WAITED } from "./coordination-page.mjs";
import { forked, inTime, resources, spawned, thread } from "./driver.mjs";
import { mapJournal } from "./journal.mjs";

const PARTICIPANT = fileURLToPath(new URL("coordinating.mjs", import.meta.url));
const DIRECTORY = "/dev/shm";
/** How long a participant is frozen: longer than its lease, so that its loads are replaced. */
const FROZEN_MS = 3_300;
const SURVIVORS = [14, 15];

let runs = 0;

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/**
 * Ends participants while others coordinate.
 *
 * @param plan.how `"kill"` kills processes with SIGKILL, `"terminate"` terminates threads, `"freeze"` stops processes, lets them go on,
 * and kills them
 * @param plan.reach `"processes"` or `"threads"`
 * @param plan.roomy whether the cache is so large that it evicts nothing
 * @param plan.deaths number of participants to end
 * @param plan.width number of participants, besides the survivors, that live at the same time
 * @param plan.maxSteps maximum number of steps of a participant before it is ended
 * @param plan.progress called with the number of deaths so far
 * @param plan.until called to ask whether to end early
 */
export async function coordinate(plan) {
  const { how, reach, roomy, deaths, width = 2, maxSteps = 300, seed, progress, until } = plan;
  const size = roomy ? 32 << 20 : 2 << 20;
  const name = `t-${process.pid}-coordinate-${++runs}`;
  const file = `${DIRECTORY}/${name}.page`;
  const random = generator(seed);
  const children = new Set();
  const before = resources();
  let witness;
  try {
    witness = reach === "threads" ? createCache({ size }) : openCache(name, { size });
    const memory = mapJournal(file);
    const page = new Page(memory, 13, 1);
    const common = { roomy, large: 20_000 };
    const inThread = { ...common, handle: witness.handle, page: memory };
    const inProcess = { ...common, name, page: file };
    const start = (setup, survives) => {
      const { id } = setup;
      const isThread =
        reach === "threads" || how === "terminate" ? !(survives && id === 14 && reach === "processes") : id === 15;
      if (isThread) return thread({ ...inThread, ...setup }, children, PARTICIPANT);
      return (survives ? forked : spawned)({ ...inProcess, ...setup }, children, PARTICIPANT);
    };
    const survivors = SURVIVORS.map((id) => start({ id, incarnation: 1, seed: random.next(), survivor: true }, true));
    await Promise.all(survivors.map((survivor) => inTime(survivor.ready, "a survivor starts")));
    const failed = Promise.race(survivors.map((survivor) => survivor.failed));

    let begun = 0;
    let dead = 0;
    const victims = Array.from({ length: width }, async (_, id) => {
      const mine = generator(random.next() + id);
      for (let incarnation = 1; begun < deaths && !until?.(); incarnation++) {
        begun++;
        const target = page.steps(id) + 1 + mine.below(maxSteps);
        const victim = start({ id, incarnation, seed: mine.next() }, false);
        const worked = (async () => {
          while (page.steps(id) < target) await sleep(1);
        })();
        await inTime(Promise.race([victim.failed, worked]), `participant ${id} works`);
        for (const instant = performance.now() + mine.random() * 0.5; performance.now() < instant; );
        if (how === "freeze") {
          page.freeze(id, incarnation);
          await inTime(victim.stopNow(), "a participant is stopped");
          await sleep(FROZEN_MS);
          victim.wake();
          await sleep(mine.below(50));
        }
        page.end(id, incarnation);
        await inTime(victim.kill(), "a participant ends");
        dead++;
        progress?.(dead);
      }
    });
    await Promise.race([failed, Promise.all(victims)]);
    page.stop();
    const idle = survivors.map((survivor) => survivor.idle);
    await Promise.race([failed, inTime(Promise.all(idle), "the survivors come to rest")]);
    const last = page.stamp();
    for (let i = 0; i < WAITED; i++) witness.set(`waited:${i}`, makeValue(1, `waited:${i}`, 13, last, 10));
    const done = Promise.all(survivors.map((survivor) => survivor.stop()));
    page.finish(last);
    const reports = await Promise.race([failed, inTime(done, "the survivors stop")]);

    const broken = witness.validate();
    demand(broken === 0, "the structure is sound", () => ({ broken }));
    const { participants } = witness.stats();
    demand(participants === 1, "only the living are counted", () => ({ participants }));
    const sections = Array.from({ length: LOCKS }, (_, lock) => page.counted(lock));
    const { held, pending } = witness.locks.query();
    demand(held.length + pending.length === 0, "nobody holds a lock after the end", () => ({ held, pending }));
    // Each lock can still be had.
    for (let lock = 0; lock < LOCKS; lock++) {
      await inTime(Promise.resolve(witness.locks.request(`lock ${lock}`, () => {})), `lock ${lock}`);
    }
    let limits = 0;
    for (let epoch = 0; epoch < page.epoch(); epoch++) {
      const granted = page.granted(epoch);
      demand(granted <= LIMIT || !roomy, "a limit lets no more through", () => ({ epoch, granted }));
      if (granted === LIMIT) limits++;
    }
    const bells = readdirSync(DIRECTORY).filter((entry) => entry.includes(name) && entry.includes(".bell."));
    demand(bells.length <= 1, "the dead leave no bell", () => ({ bells }));
    const leaks = resources(witness.handle.id);
    demand(leaks.files <= before.files + 12, "no descriptor leaks", () => ({ before, leaks }));
    const sum = (column) => reports.reduce((total, { report }) => total + report[column], 0);
    const columns = ["loads", "joined", "granted", "waits", "busy"];
    return {
      deaths: dead,
      survivorSteps: sum("steps"),
      ...Object.fromEntries(columns.map((column) => [column, sum(column)])),
      sections: sections.reduce((a, b) => a + b),
      limits,
    };
  } finally {
    for (const child of children) await child.kill().catch(() => {});
    witness?.close();
    if (reach === "processes") destroyCache(name);
    rmSync(file, { force: true });
  }
}
