/**
 * Access to the file system for caches: who this user is, and what an error of the file system means for whoever chose
 * the place. Node.js only.
 */

import type { CacheError } from "../errors.ts";
import { noDescriptor, noSpace, notOwner, unsupported } from "../errors.ts";

/** The effective user id of this process; -1 where there are none. */
export function ourUid(): number {
  return process.geteuid?.() ?? -1;
}

/** The code of a system error, such as `ENOENT`. */
export function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

/** The permission bits of a file as `chmod` takes them. */
export function octal(mode: number): string {
  return (mode & 0o7777).toString(8).padStart(4, "0");
}

/** Asks the file system about a place for caches. `path` is named in the error that an error becomes. */
export function ask<T>(path: string, question: () => T): T {
  try {
    return question();
  } catch (error) {
    throw unusable(error, path);
  }
}

/** The error of a file that belongs to the user `uid`. */
export function belongsTo(path: string, uid: number): CacheError {
  return notOwner(
    `${path} belongs to the user with id ${uid}, not to this one (${ourUid()}). Run both as the same user, or choose a ` +
      "directory that is this user's alone with the option `path`, such as that in $XDG_RUNTIME_DIR.",
  );
}

/** The error of a place for caches where the file system answered with the error `cause`. */
export function unusable(cause: unknown, place: string): CacheError {
  const code = codeOf(cause);
  const path = place.length > 200 ? `${place.slice(0, 200)}…` : place;
  const unfit = (what: string): CacheError =>
    unsupported(`path: ${what}. Choose another directory with the option \`path\`.`, { cause });
  switch (code) {
    case "EMFILE":
    case "ENFILE":
      return noDescriptor(code, cause);
    case "ENOSPC":
    case "EDQUOT":
      return noSpace(`path: there is no room for another file in ${path} (${code}). Remove some files.`, { cause });
    case "ENOMEM":
      return noSpace(`path: the kernel has no memory for ${path} (${code}). Try again later.`, { cause });
    case "ENOENT":
      return unfit(`${path} does not exist`);
    case "ENOTDIR":
      return unfit(`${path} is not a directory`);
    case "ELOOP":
      return unfit(`${path} is a link that leads nowhere, or there are too many of them`);
    case "ENAMETOOLONG":
      return unfit(`${path} is too long (${place.length} characters)`);
    case "EACCES":
    case "EPERM":
      return unfit(`this user may not read, write and search ${path} (${code})`);
    case "EROFS":
      return unfit(`${path} is on a file system that is read-only`);
    case "ERR_ACCESS_DENIED":
      return unfit(
        `Node.js runs with --permission and does not grant ${path}: it takes --allow-fs-read and --allow-fs-write`,
      );
    default:
      return unfit(
        `no cache file can be had in ${path} (${code}): that takes a local file system with O_TMPFILE, such as tmpfs`,
      );
  }
}
