/**
 * Access to the file system for caches: which user this process runs as, and the errors that tell a user of the package what
 * is wrong with a directory or a file. Node.js only.
 */

import type { CacheError } from "../errors.ts";
import { noDescriptor, noSpace, notOwner, unsupported } from "../errors.ts";

/**
 * The effective user id of this process; -1 where there are none.
 *
 * @throws {CacheError} `ERR_UNSUPPORTED` when Deno does not tell.
 */
export function ourUid(): number {
  try {
    return process.geteuid?.() ?? -1;
  } catch (cause) {
    throw unsupported("Deno does not tell which user this is: it needs --allow-sys", { cause });
  }
}

/** The code of a system error, such as `ENOENT`. */
export function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

/** Writes the permission bits of a file as `chmod` takes them, such as `0600`. */
export function octal(mode: number): string {
  return (mode & 0o7777).toString(8).padStart(4, "0");
}

/** Asks the file system. Turns its error into the error of {@link unusable}, which names `path`. */
export function ask<T>(path: string, question: () => T): T {
  try {
    return question();
  } catch (error) {
    throw unusable(error, path);
  }
}

/** Makes the error for a file that belongs to another user, the one with the id `uid`. */
export function belongsTo(path: string, uid: number): CacheError {
  return notOwner(
    `${path} belongs to the user with id ${uid}, not to this one (${ourUid()}). Run both as the same user, or choose a ` +
      "directory of this user alone with the option `path`, such as the one in $XDG_RUNTIME_DIR.",
  );
}

/** Makes the error for a file or directory where the file system answered with the error `cause`. */
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
        `Node.js runs with --permission and does not grant ${path}: it needs --allow-fs-read and --allow-fs-write`,
      );
    case undefined:
      return unfit(`${path} cannot be used (${cause instanceof Error ? cause.message : String(cause)})`);
    default:
      return unfit(
        `no cache file can be created in ${path} (${code}): that needs a local file system with O_TMPFILE, such as tmpfs`,
      );
  }
}
