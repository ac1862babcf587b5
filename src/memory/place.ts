/**
 * Which file a cache is: its directory, and its name there.
 *
 *     /dev/shm/cache-machine-<uid>-<name>.v<layout version>              on tmpfs
 *     <path>/cache-machine-<uid>-<name>.v<layout version>.<boot id>      where files outlive the machine's memory
 *
 * The directory has to be one in which no other user can put another file in place of a cache. Node.js only.
 */

import { readdirSync, readFileSync, realpathSync, statfsSync, statSync, unlinkSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { notOwner } from "../errors.ts";
import { ask, octal, ourUid } from "./access.ts";

/** Where the files are, unless told otherwise: memory, on every Linux. */
const DEFAULT_DIRECTORY = "/dev/shm";

const STICKY = 0o1000;

/** What `statfs` says of tmpfs. */
const TMPFS = 0x01021994;

/** Which file a cache is. */
export interface FileName {
  /** The name of the cache. */
  readonly name: string;
  /** A directory in which other users cannot rename our files; /dev/shm by default. */
  readonly path?: string | undefined;
}

/**
 * Finds the directory of a cache: its path without links and relative parts, so that one directory has one name.
 *
 * @throws {CacheError} `ERR_UNSUPPORTED` when it is no directory, or cannot be reached.
 */
export function findDirectory(path: string = DEFAULT_DIRECTORY): string {
  // With a slash at its end a path leads to a directory or nowhere.
  return ask(path, () => realpathSync.native(`${path}/`));
}

/**
 * Checks that nobody but this user and root can put a file of theirs, or another one of ours, in place of a cache. The
 * folders above the directory are not checked: whoever owns one could put another directory there, whose files would be
 * theirs and are refused.
 *
 * @throws {CacheError} `ERR_NOT_OWNER` when others can.
 */
export function requireOurs(directory: string): void {
  const { uid, mode } = ask(directory, () => statSync(directory));
  const choose = "or choose a directory of this user with the option `path`";
  if (uid !== ourUid() && uid !== 0) {
    throw notOwner(
      `path: ${directory} belongs to the user with id ${uid}, who can rename and remove caches in it. Use chown, ${choose}.`,
    );
  }
  if ((mode & 0o022) !== 0 && (mode & STICKY) === 0) {
    throw notOwner(
      `path: others may rename and remove caches in ${directory} (mode ${octal(mode)}). Use chmod 0700, or 1777 when the ` +
        `directory is for all, ${choose}.`,
    );
  }
}

/**
 * The path of a cache's file: never hidden, never outside its directory, and another one for every user. Where files
 * outlive the machine's memory, the name ends with the id of the boot: what the kernel had written of a mapping when the
 * power went is no cache any more, and neither is a copy of it.
 *
 * @throws {RangeError} when `name` cannot be part of a file name.
 */
export function pathOf(directory: string, name: string, version: number): string {
  // Lone surrogates would all become the same replacement character, and so the same file.
  if (/\p{Surrogate}/u.test(name)) throw new RangeError("name: must be well-formed Unicode");
  const encoded = Array.from(Buffer.from(name), (byte) => {
    const char = String.fromCharCode(byte);
    return /[A-Za-z0-9._-]/.test(char) ? char : `%${byte.toString(16).padStart(2, "0").toUpperCase()}`;
  }).join("");
  const boot = isMemory(directory) ? undefined : bootId();
  const fileName = `cache-machine-${ourUid()}-${encoded}.v${version}${boot === undefined ? "" : `.${boot}`}`;
  if (fileName.length > 255) {
    throw new RangeError(
      `name: too long, as the name of a file it takes ${fileName.length} bytes and may take 255. Use a shorter name. Each ` +
        "byte that is not one of A-Z a-z 0-9 . _ - takes three.",
    );
  }
  return join(directory, fileName);
}

/** Whether files in a directory go with the memory of the machine. */
function isMemory(directory: string): boolean {
  return ask(directory, () => statfsSync(directory).type === TMPFS);
}

/** Names the time since the machine was started; `undefined` where the kernel does not tell. */
function bootId(): string | undefined {
  try {
    const id = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").replace(/[-\n]/g, "");
    return BOOT_ID.test(id) ? id : undefined;
  } catch {
    return undefined;
  }
}

const BOOT_ID = /^[0-9a-f]{32}$/;

/** Removes, as far as possible, the files of that name from earlier boots, which no process can have open. */
export function removeOlder(path: string): void {
  const [directory, current] = [dirname(path), basename(path)];
  const before = current.replace(/[^.]*$/, "");
  if (!BOOT_ID.test(current.slice(before.length))) return;
  try {
    for (const entry of readdirSync(directory)) {
      if (entry === current || !entry.startsWith(before) || !BOOT_ID.test(entry.slice(before.length))) continue;
      unlinkSync(join(directory, entry));
    }
  } catch {
    // Such files take room on a disk, and do no other harm.
  }
}
