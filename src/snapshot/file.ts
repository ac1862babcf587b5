/**
 * Writing a file so that it is never half written: a temporary file beside it gets the content, is forced to the disk, and then takes
 * the name. Who is killed meanwhile leaves the temporary file behind, and the next export to the same file removes it. Node.js only.
 */

import { constants, readFileSync } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { codeOf } from "../system/access.ts";

/** Loaded when it is needed first, because most programs write no snapshot. */
const files = (): typeof import("node:fs/promises") => process.getBuiltinModule("node:fs/promises");

/** Only the user may read what was in his cache. */
const MODE = 0o600;
/** A temporary file of another machine or container counts as left behind when it was not written to for so long. */
const FORGOTTEN_MS = 3_600_000;

/**
 * Replaces the file at `path` by what `write` writes. When anything fails, the file stays as it was.
 *
 * @throws {TypeError} when `path` is something else than a file.
 * @throws errors of the file system, and of `write`.
 */
export async function replaceFile<T>(path: string, write: (file: FileHandle) => Promise<T>): Promise<T> {
  const target = await placeOf(path);
  await removeLeftovers(target);
  const temporary = join(dirname(target), `${beginningOf(target)}${writer()}.${randomName()}.tmp`);
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
  const file = await files().open(temporary, flags, MODE);
  try {
    let result: T;
    try {
      result = await write(file);
      await file.sync();
    } finally {
      await file.close();
    }
    await files().rename(temporary, target);
    await syncDirectory(dirname(target));
    return result;
  } catch (error) {
    await files()
      .unlink(temporary)
      .catch(() => {});
    throw error;
  }
}

/** Where the file lies: behind a link, the file to which it leads. */
async function placeOf(path: string): Promise<string> {
  let target: string;
  try {
    target = await files().realpath(path);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return path;
    throw error;
  }
  if (!(await files().stat(target)).isFile()) {
    throw new TypeError(
      `file: ${path} is not a regular file. Choose another path, or pass a stream that writes to it.`,
    );
  }
  return target;
}

function beginningOf(target: string): string {
  return `.${basename(target).slice(0, 150)}.`;
}

function randomName(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(6))).toString("hex");
}

/**
 * Names this process: the pid, when the process with this pid began, and the machine and container whose pid that is. Where the system
 * does not tell, only the pid.
 */
function writer(pid: number | string = process.pid): string {
  return `${pid}-${startOf(pid) ?? ""}-${placeOfPids()}`;
}

/** When the process began, in ticks since the machine has started; `undefined` when there is none or the system does not tell. */
function startOf(pid: number | string): string | undefined {
  try {
    // The second field is a name in parentheses, which may contain anything.
    return readFileSync(`/proc/${pid}/stat`, "latin1").split(") ").at(-1)?.split(" ")[19];
  } catch {
    return undefined;
  }
}

function placeOfPids(): string {
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").slice(0, 8);
    // The first line of the process's status that lists its ids in each namespace of pids: more than one within a container.
    const ids = /^NSpid:\s*(.*)$/m.exec(readFileSync("/proc/self/status", "latin1"))?.[1] ?? "";
    const init = readFileSync("/proc/1/stat", "latin1").split(") ").at(-1)?.split(" ")[19] ?? "";
    return `${boot}.${ids.split(/\s+/).length}.${init}`;
  } catch {
    return "";
  }
}

/** Removes the temporary files of earlier exports to `target` whose writers are dead. */
async function removeLeftovers(target: string): Promise<void> {
  const { readdir, unlink } = files();
  const directory = dirname(target);
  const beginning = beginningOf(target);
  for (const name of await readdir(directory)) {
    if (!name.startsWith(beginning)) continue;
    const [, pid, rest] = /^(\d+)-(.*)\.[0-9a-f]{12}\.tmp$/.exec(name.slice(beginning.length)) ?? [];
    if (pid === undefined) continue;
    const path = join(directory, name);
    const isOurs = rest?.split("-")[1] === placeOfPids();
    const isLeft = isOurs ? !isAlive(pid, `${pid}-${rest}`) : await isForgotten(path);
    if (isLeft) await unlink(path).catch(() => {});
  }
}

function isAlive(pid: string, name: string): boolean {
  try {
    process.kill(Number(pid), 0);
  } catch (error) {
    if (codeOf(error) === "ESRCH") return false;
  }
  return writer(pid) === name;
}

async function isForgotten(path: string): Promise<boolean> {
  try {
    return Date.now() - (await files().stat(path)).mtimeMs > FORGOTTEN_MS;
  } catch {
    return false;
  }
}

/** Makes the new name outlive a crash of the machine. Not every file system can. */
async function syncDirectory(path: string): Promise<void> {
  try {
    const directory = await files().open(path, constants.O_RDONLY);
    await directory.sync().finally(() => directory.close());
  } catch {
    // The file has its name; only a crash of the machine could take it away.
  }
}
