/**
 * The file of a cache must belong to its user alone. A process that can open it can truncate it, which ends all processes that
 * have it mapped. So a file is created with mode 0600, and a file that exists is used only if it is a regular file of this
 * user, with one name and no rights for others. Node.js only.
 */

import { constants, fchmodSync, fstatSync, lstatSync, openSync, readSync, type Stats } from "node:fs";
import { dirname } from "node:path";
import { noCache, notOwner, sizeMismatch, unsupported } from "../errors.ts";
import { PAGE } from "../size.ts";
import { ask, belongsTo, codeOf, octal, ourUid, unusable } from "../system/access.ts";
import type { Plan } from "./memory.ts";

/** `O_TMPFILE` of Linux, which `node:fs` does not name; `O_CLOEXEC` is set by Node.js on every file it opens. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

/** The mode of a cache's file: only its user may read and write it. */
const MODE = 0o600;

const REMEDY = "or remove it with destroyCache(name)";

/**
 * Creates a file without a name in a directory, and returns its descriptor. The file vanishes with it unless it gets a
 * name.
 */
export function createUnnamed(directory: string): number {
  return ask(directory, () => openSync(directory, constants.O_RDWR | O_TMPFILE, MODE));
}

/**
 * Gives a new file the rights that a umask has taken away from its user.
 *
 * @throws {CacheError} `ERR_UNSUPPORTED` where Node.js does not allow that. Such a file could never be opened again.
 */
export function giveMode(fd: number): void {
  const { mode } = fstatSync(fd);
  if ((mode & 0o777) === MODE) return;
  try {
    fchmodSync(fd, MODE);
  } catch (cause) {
    throw unsupported(
      `the umask of this process takes its own user's permissions (a new file has mode ${octal(mode)}), and Node.js ` +
        "does not let a program with --permission give them back. Set another umask, such as 077.",
      { cause },
    );
  }
}

/**
 * Opens the file of a cache for the calling thread: Node.js closes the descriptor when this thread ends.
 *
 * @returns the descriptor; `undefined` when there is no such file
 * @throws {CacheError} `ERR_LAYOUT` for a link or a special file, `ERR_NOT_OWNER` for a file that this user may not open, and
 * otherwise as {@link unusable}.
 */
export function openFile(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const code = codeOf(error);
    if (code === "ENOENT") return undefined;
    const owner = ownerOf(path);
    // Without `lstat` there is nothing to say about the file, so the directory is to blame.
    if (owner === undefined) throw unusable(error, dirname(path));
    if (owner !== ourUid()) throw belongsTo(path, owner);
    if (code === "ELOOP" || code === "EISDIR" || code === "ENXIO" || code === "ENODEV") {
      throw noCache(path, "a regular file is expected, not a link or a special one");
    }
    if (code === "EACCES") throw notOwner(`no permission to read and write ${path}. Use chmod 0600, ${REMEDY}.`);
    throw unusable(error, dirname(path));
  }
}

/** The user to whom a file belongs; `undefined` when there is no such file, or none that this user may look at. */
function ownerOf(path: string): number | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false })?.uid;
  } catch {
    return undefined;
  }
}

/**
 * Checks that a file is a cache of `size` bytes that can be opened, or of any size when `size` is `undefined`.
 *
 * @returns its size in bytes; `undefined` when the file was destroyed meanwhile
 * @throws {CacheError} `ERR_NOT_OWNER`, `ERR_LAYOUT` or `ERR_SIZE_MISMATCH`.
 */
export function checkFile(fd: number, path: string, plan: Plan, size: number | undefined): number | undefined {
  const stat = fstatSync(fd);
  if (stat.nlink === 0) return undefined;
  requirePrivate(stat, path);
  if (stat.size < PAGE || stat.size % PAGE !== 0) throw noCache(path, `it has ${stat.size} bytes`);
  const header = new Uint8Array(plan.headerBytes);
  readSync(fd, header, 0, header.length, 0);
  plan.inspect(header, stat.size, path);
  if (size !== undefined && size !== stat.size) throw sizeMismatch(stat.size, size);
  return stat.size;
}

/**
 * Checks that a file is a regular file that no other user can open, and that it has no other name.
 *
 * @throws {CacheError} `ERR_NOT_OWNER`; `ERR_LAYOUT` when it is no regular file.
 */
export function requirePrivate(stat: Stats, path: string): void {
  if (stat.uid !== ourUid()) throw belongsTo(path, stat.uid);
  if (!stat.isFile()) throw noCache(path, "a regular file is expected");
  const excess = stat.mode & 0o077;
  if (excess !== 0) {
    const who = [excess & 0o070 ? "its group" : "", excess & 0o007 ? "everybody" : ""].filter(Boolean).join(" and ");
    const may = excess & 0o022 ? "write to" : "read";
    throw notOwner(`${who} may ${may} ${path} (mode ${octal(stat.mode)}). Use chmod 0600, ${REMEDY}.`);
  }
  if (stat.nlink > 1) {
    throw notOwner(`${path} has ${stat.nlink} names (hard links), and may have one. Remove the others, ${REMEDY}.`);
  }
}

/** Device and inode of an open file, as text. */
export function identityOf(fd: number): string {
  return identityIn(fstatSync(fd, { bigint: true }));
}

/** Device and inode of a file that was looked at, as {@link identityOf} tells them. */
export function identityIn({ dev, ino }: { readonly dev: bigint; readonly ino: bigint }): string {
  return `${dev}:${ino}`;
}
