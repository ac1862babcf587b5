/**
 * The cache that needs no configuration: one for each application, found by all its processes and threads. The
 * application is the project whose code runs, which is a folder with a package.json. In this order:
 *
 * 1. The script that was started is in a project.
 * 2. If it is a dependency (in `node_modules`, or reached by a link from there), it is a tool: a test runner, a command,
 *    the process of a pool. Then, and without a script, the code that asks is: the nearest call outside of `node_modules`.
 * 3. Where only dependencies call, as in a timer of theirs, it is the project that they are installed in.
 * 4. Otherwise the working directory is.
 *
 * Nothing of that is remembered or handed on but the script of the main thread, so all processes and threads that run code
 * of one project find the same, whichever of them asks first.
 */

import { createHash } from "node:crypto";
import { existsSync, readFileSync, readlinkSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { getEnvironmentData, isMainThread, setEnvironmentData } from "node:worker_threads";

/** Under which the main thread tells its workers what was started: a worker only knows its own script. */
const STARTED = "cache-machine started script";
/** The part of a path up to the first of the folders for dependencies. */
const ABOVE_DEPENDENCIES = /^(.*?)[\\/]node_modules[\\/]/s;
/** Node.js runs code of its command line, and what looks like a script is an argument of that. */
const EVALUATES = /^(-e|-p|-pe|--eval|--print)(=|$)/;
/** Links from one script to the next, before that is a circle. */
const MAX_LINKS = 40;
/** What the readable part of a name takes of the name of a file, in bytes. */
const READABLE_BYTES = 120;

if (isMainThread) setEnvironmentData(STARTED, startedScript() as never);

/** pm2 starts every script through one of its own, and names the real one in its environment. */
function startedScript(): string | undefined {
  const script = process.argv[1];
  const { pm_exec_path: real } = process.env;
  // Looked at only here: children of such a process inherit the variable.
  if (script !== undefined && real !== undefined && /[\\/]ProcessContainer\w*\.js$/.test(script)) return real;
  return process.execArgv.some((option) => EVALUATES.test(option)) ? undefined : script;
}

/** The script of the process, for a worker whose main thread has not loaded this module. */
function scriptOfProcess(): string | undefined {
  try {
    const words = readFileSync("/proc/self/cmdline", "utf8").split("\0").slice(1);
    // Options come first, and a worker has those of its process unless told otherwise. A title replaces all.
    const isAsStarted = process.execArgv.every((option, i) => words[i] === option && !EVALUATES.test(option));
    const script = resolve(words[process.execArgv.length] as string);
    return isAsStarted && existsSync(script) ? script : undefined;
  } catch {
    // Not Linux, or no script.
    return undefined;
  }
}

/** The project of the script that was started; undefined when there is none, and when it is a tool. */
function startedProject(): string | undefined {
  const told = getEnvironmentData(STARTED) as string | undefined;
  const script = told ?? (isMainThread ? undefined : scriptOfProcess()) ?? startedScript();
  // Not a path: "[worker eval]", or the first argument of a script that came by standard input.
  if (script === undefined || !isAbsolute(script)) return undefined;
  try {
    const isFolder = statSync(script, { throwIfNoEntry: false })?.isDirectory() === true;
    // In `node_modules/.bin`, in a folder of commands that leads to a dependency, or in one that is linked to a checkout.
    let at = script;
    for (let links = 0; links < MAX_LINKS; links++) {
      if (ABOVE_DEPENDENCIES.test(at)) return undefined;
      const folder = realpathSync(dirname(at));
      at = join(folder, basename(at));
      try {
        at = resolve(folder, readlinkSync(at));
      } catch {
        break;
      }
    }
    if (ABOVE_DEPENDENCIES.test(at)) return undefined;
    return projectAbove(isFolder ? realpathSync(script) : dirname(at));
  } catch {
    return undefined;
  }
}

/**
 * The files of the calls that lead to `entry`, the nearest first: paths, as they are on the disk. None where the host has
 * made `Error` unchangeable.
 */
function callersOf(entry: (...args: never[]) => unknown): string[] {
  const before = { limit: Object.getOwnPropertyDescriptor(Error, "stackTraceLimit"), prepare: Error.prepareStackTrace };
  try {
    Error.stackTraceLimit = Number.POSITIVE_INFINITY;
    Error.prepareStackTrace = (_, sites) => sites;
    const holder: { stack?: NodeJS.CallSite[] } = {};
    Error.captureStackTrace(holder, entry);
    return (holder.stack ?? []).flatMap((site) => fileOf(site) ?? []);
  } catch {
    return [];
  } finally {
    Reflect.set(Error, "prepareStackTrace", before.prepare);
    if (before.limit !== undefined) Reflect.defineProperty(Error, "stackTraceLimit", before.limit);
    else Reflect.deleteProperty(Error, "stackTraceLimit");
  }
}

function fileOf(site: NodeJS.CallSite): string | undefined {
  // Code that a tool has compiled from text names its file in a comment.
  const name = site.getFileName() ?? site.getScriptNameOrSourceURL();
  try {
    if (typeof name !== "string") return undefined;
    const file = name.startsWith("file:") ? fileURLToPath(name) : name.replace(/\?.*$/s, "");
    return isAbsolute(file) ? realpathSync(file) : undefined;
  } catch {
    // A name that is no file.
    return undefined;
  }
}

/** The folder of the application that asks by calling `entry`. */
function applicationFolder(entry: (...args: never[]) => unknown): string {
  const started = startedProject();
  if (started !== undefined) return started;
  const callers = callersOf(entry);
  const own = callers.find((file) => !ABOVE_DEPENDENCIES.test(file));
  if (own !== undefined) return projectAbove(dirname(own));
  for (const file of callers) {
    const [, folder] = ABOVE_DEPENDENCIES.exec(file) as unknown as [string, string];
    // There is none above commands and packages that are installed for everybody.
    if (manifestOf(folder) !== undefined) return folder;
  }
  let folder = "/";
  try {
    folder = process.cwd();
  } catch {
    // It was removed.
  }
  return projectAbove(folder);
}

/** The nearest folder with the package.json of a project, or the folder itself. */
function projectAbove(folder: string): string {
  for (let above = folder; ; above = dirname(above)) {
    const manifest = manifestOf(above);
    if (manifest !== undefined && !isMarker(manifest)) return above;
    if (dirname(above) === above) return folder;
  }
}

/** Whether it says nothing but of what kind the modules are: builds put such files beside what they make. */
function isMarker(manifest: object): boolean {
  const keys = Object.keys(manifest);
  return keys.length > 0 && keys.every((key) => key === "type" || key === "sideEffects");
}

/** What stands in a package.json; undefined when there is none. */
function manifestOf(folder: string): { name?: unknown } | undefined {
  try {
    const text = readFileSync(join(folder, "package.json"), "utf8");
    try {
      return Object(JSON.parse(text)) as object;
    } catch {
      // Not for us to judge.
      return { name: undefined };
    }
  } catch {
    return undefined;
  }
}

/** The beginning of a text that takes so many bytes of a file's name at most; characters are not cut through. */
function beginning(text: string): string {
  let bytes = 0;
  let result = "";
  // What is not well-formed is replaced on the way.
  for (const char of Buffer.from(text).toString()) {
    // As `file.ts` writes names: three for each byte of what is not plain.
    bytes += /[A-Za-z0-9._-]/.test(char) ? 1 : 3 * Buffer.byteLength(char);
    if (bytes > READABLE_BYTES) break;
    result += char;
  }
  return result;
}

/**
 * Name of the application's cache: readable, and different for each project on the machine.
 *
 * @param entry the function of the public interface that was called
 */
export function applicationName(entry: (...args: never[]) => unknown): string {
  const folder = applicationFolder(entry);
  const name = manifestOf(folder)?.name;
  const readable = typeof name === "string" && name !== "" ? name : basename(folder) || "root";
  const hash = createHash("sha256").update(folder).digest("hex").slice(0, 12);
  return `${beginning(readable)}-${hash}`;
}
