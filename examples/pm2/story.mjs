/**
 * The story, while readers read: a client posts a result that it has computed. The process that received it is killed with -9, and
 * pm2 starts another one.
 */

import { fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { duration } from "./settings.mjs";
import { within } from "./within.mjs";

/** The times of the events as fractions of the duration, and their time limits. */
const CLIENT_AT = 0.15;
const KILL_AT = 0.5;
/** Minimum time between two events, so that they can be seen in the table on a slow machine too. */
const PAUSE_S = 2;
const RESTART_LIMIT_S = 20;
const VISIT_LIMIT_S = 10;

/** Runs the story; the facts for the summary. */
export async function happen({ port, load, right, scores, screen, seconds, signal }) {
  await until(CLIENT_AT * duration);
  const posted = await runClient(port, signal);
  right.set(posted.path, { etag: posted.etag, bytes: posted.bytes });
  const work = `${posted.seconds.toFixed(1)} s of work`;
  screen.event(seconds(), `A client posts its list of similar pages, ${work}, to ${posted.process}.`);
  const servedBy = await visitAll(posted.path);
  screen.event(seconds(), `Every process serves it: ${servedBy.join(", ")}.`);
  load.add(posted.path);

  await until(Math.max(KILL_AT * duration, seconds() + PAUSE_S));
  const killed = await kill(posted.pid);
  const servedAfter = await visitAll(posted.path);
  screen.event(seconds(), "It serves what the client posted, as all others do.");

  await until(Math.max(duration, seconds() + PAUSE_S));
  return { posted: { ...posted, servedBy, servedAfter }, killed };

  async function until(when) {
    await sleep(Math.max(0, when - seconds()) * 1000, undefined, { signal });
  }

  async function kill(pid) {
    const victim = scores.processes.get(pid);
    const others = [...scores.processes.values()].filter((score) => score !== victim);
    const before = others.map((score) => score.answers);
    const back = new Promise((resolve) => {
      scores.onNewcomer = (first) => first.score.name === victim.name && resolve(first);
    });
    const at = performance.now();
    process.kill(pid, "SIGKILL");
    victim.state = "killed";
    screen.event(seconds(), screen.red(`kill -9 ${pid}`) + `: that was ${victim.name}, to which the client posted.`);

    const first = await within(RESTART_LIMIT_S, back, "pm2 did not bring the killed process back");
    first.score.state = "restarted";
    const meanwhile = others.map(({ name, answers }, index) => ({ name, answers: answers - before[index] }));
    const outage = (first.at - at) / 1000;
    screen.event(
      seconds(),
      `${first.score.name} is back as ${first.score.pid}, ${outage.toFixed(2)} s after the kill.`,
    );
    const source = first.fromCache ? "came from the cache" : "had to be rendered";
    screen.event(seconds(), `Its first answer ${source} and took ${first.ms.toFixed(1)} ms.`);
    return { name: victim.name, pid, at, back: first.at, outage, meanwhile, newcomer: first };
  }

  /**
   * Requests the path on new connections, which pm2 gives to its processes in turns, until each process has answered. Returns the
   * names of the processes.
   */
  async function visitAll(path) {
    const living = [...scores.processes.values()].filter((score) => score.state !== "killed");
    const missing = new Set(living);
    const visits = (async () => {
      while (missing.size > 0) missing.delete(await load.read(path));
    })();
    await within(VISIT_LIMIT_S, visits, `not every process serves ${path}`);
    return living.map((score) => score.name);
  }
}

async function runClient(port, signal) {
  const client = fork(fileURLToPath(new URL("./client.mjs", import.meta.url)), {
    env: { ...process.env, PORT: String(port) },
    signal,
  });
  const failed = once(client, "exit").then(([code]) => {
    throw new Error(`the client ended with code ${code}`);
  });
  // The client also ends after it has sent its message.
  failed.catch(() => {});
  const [posted] = await Promise.race([once(client, "message"), failed]);
  return posted;
}
