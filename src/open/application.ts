/**
 * The name of the cache that needs no configuration. Each application has one such cache, and all its processes and threads
 * find it. The application is the project whose code runs. A project is a folder with a package.json. It is found in this
 * order:
 *
 * 1. The project of the script that was started.
 * 2. A script that is a dependency (in `node_modules`, or reached by a link from there) is a tool: a test runner, a
 *    command, the process of a pool. Then, and where there is no script, the project of the code that asks: of the nearest
 *    caller outside of `node_modules`.
 * 3. Where only dependencies call, for example in a timer of a dependency, the project in which they are installed.
 * 4. Otherwise the project of the working directory.
 *
 * Only the script of the main thread is remembered and passed on to workers. So all processes and threads that run code of one
 * project find the same cache, whichever of them asks first.
 */

import { existsSync, readFileSync, readlinkSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { getEnvironmentData, isMainThread, setEnvironmentData } from "node:worker_threads";

/** The environment data by which the main thread tells its workers the script: a worker only knows its own script. */
const STARTED = "cache-machine started script";
/** Matches a path in a folder for dependencies; captures the part up to the first such folder. */
const ABOVE_DEPENDENCIES = /^(.*?)[\\/]node_modules[\\/]/s;
/** Options with which Node.js runs code from its command line. The first argument after them is not a script. */
const EVALUATES = /^(-e|-p|-pe|--eval|--print)(=|$)/;
/** How many links are followed from a script. More than that are a circle. */
const MAX_LINKS = 40;
/** The longest readable part of a name, in bytes of a file name. */
const READABLE_BYTES = 120;

if (isMainThread) setEnvironmentData(STARTED, startedScript() as never);

/** The script that was started. pm2 starts each script through a script of pm2, and names the real one in the environment. */
function startedScript(): string | undefined {
  const script = process.argv[1];
  // The variable counts only if the script is one of pm2, because child processes inherit the variable. It is not read otherwise,
  // because Deno may not grant that.
  if (script !== undefined && /[\\/]ProcessContainer\w*\.js$/.test(script)) {
    const { pm_exec_path: real } = process.env;
    if (real !== undefined) return real;
  }
  return process.execArgv.some((option) => EVALUATES.test(option)) ? undefined : script;
}

/** The script of the process, read from procfs: for a worker whose main thread has not loaded this module. */
function scriptOfProcess(): string | undefined {
  try {
    const words = readFileSync("/proc/self/cmdline", "utf8").split("\0").slice(1);
    // The options of Node.js come first. A worker has the options of its process, unless it was started with others. A process
    // that sets its title overwrites this list.
    const isAsStarted = process.execArgv.every((option, i) => words[i] === option && !EVALUATES.test(option));
    const script = resolve(words[process.execArgv.length] as string);
    return isAsStarted && existsSync(script) ? script : undefined;
  } catch {
    // Not Linux, or no script.
    return undefined;
  }
}

/** The project of the script that was started; `undefined` when there is no script, and when it is a tool. */
function startedProject(): string | undefined {
  const told = getEnvironmentData(STARTED) as string | undefined;
  const script = told ?? (isMainThread ? undefined : scriptOfProcess()) ?? startedScript();
  // Not a path: "[worker eval]", or the first argument of a script that came by standard input.
  if (script === undefined || !isAbsolute(script)) return undefined;
  try {
    const isFolder = statSync(script, { throwIfNoEntry: false })?.isDirectory() === true;
    // A tool may be started by a link: in `node_modules/.bin`, or in a folder of commands. That link may lead to a
    // dependency, or through a dependency to a checkout of it.
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
 * The files of the calls that lead to `entry`, the nearest first, as real paths. None where `Error` cannot be changed, as
 * with --frozen-intrinsics.
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

/** The file of a call, as a real path; `undefined` when the call is in no file. */
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
    // Commands and packages that are installed for all users have no project around them.
    if (manifestOf(folder) !== undefined) return folder;
  }
  let folder = "/";
  try {
    folder = process.cwd();
  } catch {
    // The working directory was removed.
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

/** Whether a package.json only says which kind of modules its folder has. Build tools put such files beside their output. */
function isMarker(manifest: object): boolean {
  const keys = Object.keys(manifest);
  return keys.length > 0 && keys.every((key) => key === "type" || key === "sideEffects");
}

/** The content of a folder's package.json; `undefined` when there is none. */
function manifestOf(folder: string): { name?: unknown } | undefined {
  try {
    const text = readFileSync(join(folder, "package.json"), "utf8");
    try {
      return Object(JSON.parse(text)) as object;
    } catch {
      // A broken package.json still marks a project.
      return { name: undefined };
    }
  } catch {
    return undefined;
  }
}

/** The beginning of a text that takes at most {@link READABLE_BYTES} of a file name. It ends with a whole character. */
function beginning(text: string): string {
  let bytes = 0;
  let result = "";
  // Through a buffer, which replaces lone surrogates.
  for (const char of Buffer.from(text).toString()) {
    // As place.ts writes names: each byte of any other character takes three bytes.
    bytes += /[A-Za-z0-9._-]/.test(char) ? 1 : 3 * Buffer.byteLength(char);
    if (bytes > READABLE_BYTES) break;
    result += char;
  }
  return result;
}

/**
 * The name of the application's cache. It is readable, and each project on the machine has another one.
 *
 * @param entry the function of the public interface that was called. The code that calls it belongs to the application.
 */
export function applicationName(entry: (...args: never[]) => unknown): string {
  const folder = applicationFolder(entry);
  const name = manifestOf(folder)?.name;
  const readable = typeof name === "string" && name !== "" ? name : basename(folder) || "root";
  // Loaded here, because a cache that is opened by its name does not need it.
  const { createHash } = process.getBuiltinModule("node:crypto");
  const hash = createHash("sha256").update(folder).digest("hex").slice(0, 12);
  return `${beginning(readable)}-${hash}`;
}
