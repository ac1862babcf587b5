/**
 * The cache that needs no configuration: one for the whole application, found by every process and thread that runs
 * code of the same package, as the first cache-machine had it.
 */

import { createHash } from "node:crypto";
import { existsSync, readFileSync, realpathSync } from "node:fs";
import { basename, dirname, join, sep } from "node:path";
import { getEnvironmentData, isMainThread, setEnvironmentData } from "node:worker_threads";

/** Under which the main thread tells its workers what was started: a worker only knows its own script. */
const STARTED = "cache-machine started script";

if (isMainThread) setEnvironmentData(STARTED, startedScript() as never);

/** pm2 starts every script through one of its own, and names the real one in its environment. */
function startedScript(): string | undefined {
  const script = process.argv[1];
  const { pm_exec_path: real } = process.env;
  // Looked at only here: children of such a process inherit the variable.
  return script !== undefined && real !== undefined && /[\\/]ProcessContainer\w*\.js$/.test(script) ? real : script;
}

/** The folder of the nearest package.json above the script that was started, else the script's own folder. */
function applicationFolder(): string {
  const started = getEnvironmentData(STARTED) as string | undefined;
  const script = started ?? startedScript();
  let folder = process.cwd();
  if (script !== undefined) {
    try {
      folder = dirname(realpathSync(script));
    } catch {
      // Started without a file: the working directory is the best there is.
    }
  }
  if (started === undefined && !isMainThread) {
    // The main thread has not loaded this module, so this is the worker's script: often that of a pool's package.
    const dependency = folder.lastIndexOf(`${sep}node_modules${sep}`);
    if (dependency > 0) folder = folder.slice(0, dependency);
  }
  for (let above = folder; ; above = dirname(above)) {
    if (existsSync(join(above, "package.json"))) return above;
    if (dirname(above) === above) return folder;
  }
}

function packageName(folder: string): string {
  try {
    const { name } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { name?: unknown };
    if (typeof name === "string" && name !== "") return name;
  } catch {
    // No package, or one that is not for us to judge.
  }
  return basename(folder) || "root";
}

/** Name of the application's cache: readable, and different for each installation on the machine. */
export function applicationName(): string {
  const folder = applicationFolder();
  const hash = createHash("sha256").update(folder).digest("hex").slice(0, 12);
  return `${packageName(folder).slice(0, 64)}-${hash}`;
}
