/** Threads that are terminated while they open their first cache, in a process whose end is checked. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { demand } from "../crash/checked-values.mjs";
import { inTime, KILLED_WITH_PARENT } from "../crash/driver.mjs";

const PROGRAM = fileURLToPath(new URL("native-terminations.mjs", import.meta.url));

let arenas = 0;

/** Runs native-terminations.mjs as a process. Returns how it ends and what it prints. */
export async function endings(setup) {
  const name = `t-${process.pid}-opening-${++arenas}`;
  const [command, ...args] = [...KILLED_WITH_PARENT, process.execPath, PROGRAM, JSON.stringify({ name, ...setup })];
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (data) => (stdout += data));
  child.stderr.setEncoding("utf8").on("data", (data) => (stderr += data));
  try {
    const exit = await inTime(once(child, "close"), "a process whose threads are terminated");
    return { exit, stdout, stderr };
  } catch (error) {
    child.kill("SIGKILL");
    throw error;
  } finally {
    // The files that the process had no time to remove when it was told to exit.
    for (const file of readdirSync("/dev/shm")) if (file.includes(name)) rmSync(`/dev/shm/${file}`);
  }
}

/** Terminates `terminations` threads, each while it opens its first caches, or a little before or after. */
export async function opening({ seed, terminations }) {
  const { exit, stdout, stderr } = await endings({ seed, times: terminations });
  demand(exit[0] === 0 && stderr === "", "a process survives the end of its threads", () => ({ exit, stderr }));
  const { states, participants, broken } = JSON.parse(stdout);
  demand(participants === 1 && broken === 0, "a terminated thread leaves nothing", () => ({ participants, broken }));
  return { terminations: states.reduce((sum, count) => sum + count, 0), states };
}
