/**
 * The story, while readers read. Requests come for a result that nobody has posted yet, and wait; a client computes it and posts it.
 * A limit is changed, and somebody runs into it. Then the process that received the result is killed with -9, and pm2 starts
 * another one.
 */

import { fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { changeLimits } from "./limits.mjs";
import { etagOf } from "./page.mjs";
import { send } from "./requests.mjs";
import { duration } from "./settings.mjs";
import { loaded, monotonic, waiting } from "./store.mjs";
import { within } from "./within.mjs";

/** The times of the events as fractions of the duration, and their time limits. */
const CLIENT_AT = 0.15;
const KILL_AT = 0.5;
/** Minimum time between two events, so that they can be seen in the table on a slow machine too. */
const PAUSE_S = 2;
const RESTART_LIMIT_S = 20;
const VISIT_LIMIT_S = 10;
const CLIENT_LIMIT_S = 120;

/** The result that the client posts. */
const RESULT = "/results/related";
/** Requests for it that wait in each process. */
const EARLY = 3;
const EARLY_PAUSE_MS = 10;
/** Who runs into the limit: from another address than the client, so with a limit of its own. */
const EAGER = { posts: 60, atOnce: 6, localAddress: "127.0.0.2" };
const NEW_LIMIT = 20;

/** Runs the story; the facts for the summary. */
export async function happen({ port, load, right, scores, screen, seconds, signal }) {
  await until(CLIENT_AT * duration);
  const early = await within(VISIT_LIMIT_S, askEarly(), "no process lets requests wait for a result");
  screen.event(seconds(), `${early.length} requests ask for a list of similar packages, which no process has yet.`);
  const posted = await runClient(port, signal);
  right.set(posted.path, { etag: posted.etag, bytes: posted.bytes });
  const work = `${posted.seconds.toFixed(1)} s of work`;
  screen.event(seconds(), `A client posts it, ${work}, to ${posted.process}.`);
  const waited = await within(VISIT_LIMIT_S, answersTo(early, posted), "a request still waits for the result");
  screen.event(seconds(), `All ${early.length} wake up within ${waited.ms.toFixed(1)} ms, in ${waited.by.join(", ")}.`);
  const servedBy = await visitAll(posted.path);
  screen.event(seconds(), `Every process serves it: ${servedBy.join(", ")}.`);
  load.add(posted.path);

  const limits = await within(VISIT_LIMIT_S, changeLimit(), "not every process loads the changed limit");
  screen.event(
    seconds(),
    `The limit becomes ${NEW_LIMIT} posts an hour; all have loaded it ${limits.ms.toFixed(1)} ms later.`,
  );
  const posts = await postEagerly();
  screen.event(
    seconds(),
    `Somebody posts ${EAGER.posts} times, to all: ${posts.accepted} accepted, ${posts.refused} refused.`,
  );

  await until(Math.max(KILL_AT * duration, seconds() + PAUSE_S));
  const killed = await kill(posted.pid);
  const servedAfter = await visitAll(posted.path);
  screen.event(seconds(), "It serves what the client posted, as all others do.");

  await until(Math.max(duration, seconds() + PAUSE_S));
  return { posted: { ...posted, servedBy, servedAfter }, waited, limits: { ...limits, ...posts }, killed };

  async function until(when) {
    await sleep(Math.max(0, when - seconds()) * 1000, undefined, { signal });
  }

  /** Requests the result until some requests wait for it in every process; the promises of their answers. */
  async function askEarly() {
    const answers = [];
    const counts = () => living().map(({ name }) => waiting.get(name) ?? 0);
    while (counts().some((count) => count < EARLY)) {
      const answer = send(port, RESULT, {
        headers: { prefer: `wait=${CLIENT_LIMIT_S}` },
        timeoutS: CLIENT_LIMIT_S,
        signal,
      });
      // It is looked at later.
      answer.catch(() => {});
      answers.push(answer);
      while (counts().reduce((sum, count) => sum + count) < answers.length) {
        await sleep(EARLY_PAUSE_MS, undefined, { signal });
      }
    }
    return answers;
  }

  /** Waits for the answers to early requests: who gave them, and how long after the post the last one had the result. */
  async function answersTo(early, posted) {
    const answers = await Promise.all(early);
    const wrong = answers.filter(({ status, body }) => status !== 200 || etagOf(body) !== posted.etag);
    const times = answers.map(({ headers }) => Number(headers["x-woken-at"]) - posted.storedAt);
    const by = new Set(answers.map(({ headers }) => headers["x-process"]));
    return { requests: early.length, wrong: wrong.length, by: [...by].sort(), ms: Math.max(...times) };
  }

  /** Changes a limit, and waits until every process has loaded it: how long that took. */
  async function changeLimit() {
    const names = living().map(({ name }) => name);
    const before = names.map((name) => loaded.getEntry(name)?.version ?? 0);
    const at = monotonic();
    changeLimits({ postsPerHour: NEW_LIMIT });
    const all = await Promise.all(names.map((name, i) => loaded.waitFor(name, { version: before[i], signal })));
    return { limit: NEW_LIMIT, loadedBy: names, ms: Math.max(...all.map((each) => each.at)) - at };
  }

  /** Posts more often than the limit allows, on connections that lead to all processes. */
  async function postEagerly() {
    const { localAddress, atOnce } = EAGER;
    const statuses = { 201: 0, 429: 0 };
    const by = new Set();
    let left = EAGER.posts;
    const poster = async () => {
      while (left-- > 0) {
        const options = { method: "POST", body: "me again", localAddress, timeoutS: VISIT_LIMIT_S, signal };
        const { status, headers } = await send(port, "/results/of-somebody", options);
        statuses[status]++;
        by.add(headers["x-process"]);
      }
    };
    await Promise.all(Array.from({ length: atOnce }, poster));
    return { posts: EAGER.posts, accepted: statuses[201], refused: statuses[429], postedTo: [...by].sort() };
  }

  function living() {
    return [...scores.processes.values()].filter((score) => score.state !== "killed");
  }

  async function kill(pid) {
    const victim = scores.processes.get(pid);
    const others = [...scores.processes.values()].filter((score) => score !== victim);
    const before = others.map((score) => score.answers);
    const back = new Promise((resolve) => {
      scores.onNewcomer = (first) => first.score.name === victim.name && resolve(first);
    });
    const at = performance.now();
    const killedAt = monotonic();
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
    return { name: victim.name, pid, at, killedAt, back: first.at, outage, meanwhile, newcomer: first };
  }

  /**
   * Requests the path on new connections, which pm2 gives to its processes in turns, until each process has answered. Returns the
   * names of the processes.
   */
  async function visitAll(path) {
    const missing = new Set(living());
    const names = [...missing].map((score) => score.name);
    const visits = (async () => {
      while (missing.size > 0) missing.delete(await load.read(path));
    })();
    await within(VISIT_LIMIT_S, visits, `not every process serves ${path}`);
    return names;
  }
}

async function runClient(port, signal) {
  const client = fork(fileURLToPath(new URL("./client.mjs", import.meta.url)), {
    env: { ...process.env, PORT: String(port), RESULT },
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
