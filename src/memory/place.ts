/**
 * The path of the file of a cache: its directory, and its name in this directory.
 *
 *     /dev/shm/cache-machine-<uid>-<name>.v<layout version>              on tmpfs
 *     <path>/cache-machine-<uid>-<name>.v<layout version>.<boot id>      where files outlive the machine's memory
 *
 * The directory has to be one in which no other user can put another file in place of a cache. Node.js only.
 */

import { readdirSync, readFileSync, realpathSync, statfsSync, statSync, unlinkSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { MAX_ENDING } from "../bells/fifo.ts";
import { notOwner } from "../errors.ts";
import { ask, octal, ourUid } from "../system/access.ts";

/** Where the files are by default: a tmpfs on every Linux. */
export const DEFAULT_DIRECTORY = "/dev/shm";

const STICKY = 0o1000;

/** The type of tmpfs in the result of `statfs`. */
const TMPFS = 0x01021994;

/** The longest name of a file has 255 bytes on Linux. The bells of a cache have the name of its file and an ending. */
const MAX_FILE_NAME = 255 - MAX_ENDING;

/** Names the file of a cache. */
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
  // A path with a slash at its end is a directory, or an error.
  return ask(path, () => realpathSync.native(`${path}/`));
}

/**
 * Checks that nobody but this user and root can put another file in place of a cache. The folders above the directory are not
 * checked: their owner could put another directory there, but its files would belong to that owner and are refused.
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
 * The path of a cache's file. The file is never hidden and never outside its directory, and each user has another one. Where
 * files outlive the machine's memory, the name ends with the id of the boot: after a power failure a file holds only what the
 * kernel had written of the mapping, which is not a cache any more. The same is true of a copy of such a file.
 *
 * @throws {RangeError} when `name` cannot be part of a file name.
 */
export function pathOf(directory: string, name: string, version: number): string {
  return join(
    directory,
    fileNameOf(ourUid(), name, version, () => (isMemory(directory) ? undefined : bootId())),
  );
}

/**
 * The name of a cache's file.
 *
 * @param bootOf returns the id of the boot where it is a part of the name. It is asked when the cache's name is known to be good.
 * @throws {RangeError} when `name` cannot be part of a file name.
 */
export function fileNameOf(uid: number, name: string, version: number, bootOf: () => string | undefined): string {
  // Lone surrogates would all become the same replacement character, and so the same file.
  if (/[\ud800-\udfff]/u.test(name)) throw new RangeError("name: must be well-formed Unicode");
  const encoded = Array.from(Buffer.from(name), (byte) => {
    const char = String.fromCharCode(byte);
    return /[A-Za-z0-9._-]/.test(char) ? char : `%${byte.toString(16).padStart(2, "0").toUpperCase()}`;
  }).join("");
  const boot = bootOf();
  const fileName = `cache-machine-${uid}-${encoded}.v${version}${boot === undefined ? "" : `.${boot}`}`;
  if (fileName.length > MAX_FILE_NAME) {
    throw new RangeError(
      `name: too long, as the name of a file it takes ${fileName.length} bytes and may take ${MAX_FILE_NAME}. Use a shorter ` +
        "name. Each byte that is not one of A-Z a-z 0-9 . _ - takes three.",
    );
  }
  return fileName;
}

/** What the name of a cache's file says. */
export interface NameParts {
  /** The id of the user who has created the file. */
  readonly uid: number;
  /** The name of the cache. */
  readonly name: string;
  /** The layout version. */
  readonly version: number;
  /** The id of the boot, where the name has one. */
  readonly boot: string | undefined;
}

/** What the name of a file says, if {@link fileNameOf} could have made it; `undefined` for any other name. */
export function parseFileName(fileName: string): NameParts | undefined {
  const match = /^cache-machine-(\d{1,10})-(.*)\.v(\d{1,9})(?:\.([0-9a-f]{32}))?$/.exec(fileName);
  if (match === null) return undefined;
  const [, uid, encoded = "", version, boot] = match;
  try {
    const parts = { uid: Number(uid), name: decodeURIComponent(encoded), version: Number(version), boot };
    return fileNameOf(parts.uid, parts.name, parts.version, () => boot) === fileName ? parts : undefined;
  } catch {
    // The escapes are no UTF-8.
    return undefined;
  }
}

/** Whether the files of a directory vanish when the machine restarts. */
export function isMemory(directory: string): boolean {
  return ask(directory, () => statfsSync(directory).type === TMPFS);
}

/** The id of the boot: another one each time the machine starts. `undefined` where the kernel does not tell. */
export function bootId(): string | undefined {
  try {
    const id = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").replace(/[-\n]/g, "");
    return BOOT_ID.test(id) ? id : undefined;
  } catch {
    return undefined;
  }
}

const BOOT_ID = /^[0-9a-f]{32}$/;

/** Removes the files of the same cache from earlier boots, with their bells, as far as possible. No process can have them open. */
export function removeOlder(path: string): void {
  const [directory, current] = [dirname(path), basename(path)];
  const before = current.replace(/[^.]*$/, "");
  if (!BOOT_ID.test(current.slice(before.length))) return;
  try {
    for (const entry of readdirSync(directory)) {
      const [id = ""] = entry.slice(before.length).split(".bell.");
      if (!entry.startsWith(before) || !BOOT_ID.test(id) || before + id === current) continue;
      unlinkSync(join(directory, entry));
    }
  } catch {
    // Such files only take room on a disk.
  }
}
