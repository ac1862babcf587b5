/**
 * The files of caches in a directory: what they are called, whose they are, whether this build can open them and whether anybody
 * has them open. Nothing is mapped and no seat is taken. A file is opened for reading only, for its first bytes and for the byte
 * locks of its participants. Node.js only.
 *
 * A directory such as /dev/shm is open to all users, and so anything may have the name of a cache: a link, a directory, a file of
 * another user or of another version. Nothing of it makes the list fail. The list says what is wrong with it instead.
 */

import {
  type BigIntStats,
  closeSync,
  constants,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  unlinkSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { parseBellName, removeBells } from "../bells/fifo.ts";
import { plan } from "../engine/plan.ts";
import { badLayout, CacheError } from "../errors.ts";
import { bootId, DEFAULT_DIRECTORY, findDirectory, isMemory, type NameParts, parseFileName } from "../memory/place.ts";
import { identityIn, identityOf } from "../memory/private-file.ts";
import { ask, belongsTo, codeOf, octal, ourUid, unusable } from "../system/access.ts";
import { Native } from "../system/native.ts";

/**
 * What this build can do with a file:
 *
 * - `current`: it has the layout of this build, and it is of this boot.
 * - `stale layout`: its name has another layout version. Another version of the package has made it, and may still use it.
 * - `other boot`: it outlived a restart of the machine. No process can have it open.
 * - `foreign`: it has the name of a cache and is none: a link, a directory, a file with other bytes.
 * - `no file`: only bells are there; the cache itself was removed.
 */
export type CacheFileState = "current" | "stale layout" | "other boot" | "foreign" | "no file";

/** A cache file, or what has the name of one. */
export interface CacheFile {
  /** Absolute path without links in its directory. */
  readonly path: string;
  /** The name of the cache, as `openCache` takes it. */
  readonly name: string;
  /** The directory, as the option `path` of `openCache` takes it. */
  readonly directory: string;
  /** The id of the user to whom the file belongs. Without a file, the one in its name. */
  readonly uid: number;
  /** Whether it belongs to the user of this process. */
  readonly ours: boolean;
  /** The layout version in the name. */
  readonly layout: number;
  /** The id of the boot in the name; only where files outlive the machine's memory. */
  readonly boot: string | undefined;
  /** Bytes; 0 without a file. */
  readonly size: number;
  /** The last change that the file system knows of: usually when the cache was created. Writes through the mapping change nothing. */
  readonly modified: Date;
  readonly state: CacheFileState;
  /** Why the file could not be looked into, or why participants refuse it; `undefined` when nothing is wrong with it. */
  readonly reason: string | undefined;
  /** Participants that have it open, by their byte locks; `undefined` where that cannot be known. */
  readonly users: number | undefined;
  /** Paths of the bells beside it. */
  readonly bells: readonly string[];
  /** Those of the bells that belong to another file, which had this path before. */
  readonly orphans: readonly string[];
  /** Device and inode by which {@link removeFile} finds the same file again; `undefined` without a file. */
  readonly identity: string | undefined;
}

/**
 * Lists the caches in a directory, of all users, layouts and boots, ordered by name and path.
 *
 * @param directory /dev/shm by default
 * @throws {CacheError} `ERR_UNSUPPORTED` when the directory does not exist or cannot be read.
 */
export function listCaches(directory: string = DEFAULT_DIRECTORY): CacheFile[] {
  const place = findDirectory(directory);
  const names = ask(place, () => readdirSync(place));
  const boot = isMemory(place) ? undefined : bootId();
  const found = new Map<string, { parts: NameParts; bells: { path: string; inode: bigint }[] }>();
  const note = (name: string): { path: string; inode: bigint }[] | undefined => {
    const known = found.get(name);
    if (known !== undefined) return known.bells;
    const parts = parseFileName(name);
    if (parts === undefined) return undefined;
    const bells: { path: string; inode: bigint }[] = [];
    found.set(name, { parts, bells });
    return bells;
  };
  for (const name of names) {
    // The name of a cache may itself end as a bell does, but not with a layout version behind that.
    if (note(name) !== undefined) continue;
    const bell = parseBellName(name);
    if (bell === undefined) continue;
    const path = join(place, name);
    if (isFifo(path)) note(bell.file)?.push({ path, inode: bell.inode });
  }
  const files = [...found].map(([name, { parts, bells }]) => look(join(place, name), parts, boot, bells));
  // The file of a cache without bells may have gone since the directory was read.
  return files
    .filter(({ state, bells }) => state !== "no file" || bells.length > 0)
    .sort((a, b) => compare(a.name, b.name) || compare(a.path, b.path));
}

/**
 * Removes a file of the list, with its bells. It looks again first: what has taken the path in the meantime stays. Participants
 * that have the file open can still use it. A link is removed and not followed.
 *
 * @returns whether there was still something to remove
 * @throws {CacheError} `ERR_NOT_OWNER` when the file belongs to another user, `ERR_LAYOUT` for a directory, and for a path that is
 * not named like a cache, `ERR_UNSUPPORTED` when the directory refuses.
 */
export function removeFile(file: Pick<CacheFile, "path" | "identity" | "bells">): boolean {
  const { path, identity, bells } = file;
  if (parseFileName(basename(path)) === undefined) throw badLayout(`${path} is not named like a cache. It was kept.`);
  try {
    const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
    if (stat === undefined) {
      removeBells(path);
      return bells.some((bell) => lstatSync(bell, { throwIfNoEntry: false }) === undefined);
    }
    if (Number(stat.uid) !== ourUid()) throw belongsTo(path, Number(stat.uid));
    if (identityIn(stat) !== identity) return false;
    if (stat.isDirectory()) throw badLayout(`${path} is a directory. Remove it by hand (rm -r).`);
    unlinkSync(path);
    removeBells(path, stat.ino);
    return true;
  } catch (error) {
    if (error instanceof CacheError) throw error;
    if (codeOf(error) === "ENOENT") return false;
    throw unusable(error, dirname(path));
  }
}

/** What is known of one file. */
function look(
  path: string,
  parts: NameParts,
  boot: string | undefined,
  bells: readonly { path: string; inode: bigint }[],
): CacheFile {
  const common = { path, name: parts.name, directory: dirname(path), layout: parts.version, boot: parts.boot };
  const paths = bells.map((bell) => bell.path).sort();
  const none = { size: 0, modified: new Date(0), users: undefined, bells: paths, identity: undefined };
  let stat: BigIntStats | undefined;
  try {
    stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  } catch (error) {
    // The directory may be read but not searched.
    const { message } = unusable(error, dirname(path));
    return { ...common, ...none, uid: parts.uid, ours: false, state: "foreign", reason: message, orphans: [] };
  }
  const uid = stat === undefined ? parts.uid : Number(stat.uid);
  const ours = uid === ourUid();
  if (stat === undefined) {
    return { ...common, ...none, uid, ours, state: "no file", reason: undefined, orphans: paths };
  }
  const { ino, mtime } = stat;
  const isCurrent = parts.version === plan.version;
  const { users, wrong, reason } = lookInto(path, stat, isCurrent);
  let state: CacheFileState = "current";
  if (wrong) state = "foreign";
  else if (parts.boot !== boot) state = "other boot";
  else if (!isCurrent) state = "stale layout";
  return {
    ...common,
    uid,
    ours,
    size: Number(stat.size),
    modified: mtime,
    state,
    reason,
    users,
    bells: paths,
    orphans: bells.flatMap((bell) => (bell.inode === ino ? [] : [bell.path])).sort(),
    identity: identityIn(stat),
  };
}

/** What a look into a file has found. */
interface Content {
  /** Participants that have it open. */
  readonly users: number | undefined;
  /** Whether it is no cache at all. */
  readonly wrong: boolean;
  readonly reason: string | undefined;
}

/**
 * Opens a file for reading and looks at its first bytes and its locks.
 *
 * @param isCurrent whether its name has the layout of this build; of other layouts only the locks are known
 */
function lookInto(path: string, stat: BigIntStats, isCurrent: boolean): Content {
  if (!stat.isFile()) {
    const kind = stat.isSymbolicLink() ? "a link" : stat.isDirectory() ? "a directory" : "a special file";
    return { users: undefined, wrong: true, reason: `it is ${kind}, not a regular file` };
  }
  let fd: number;
  try {
    // What has taken the path meanwhile is not followed and not waited for.
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    return { users: undefined, wrong: false, reason: `it cannot be read (${codeOf(error)})` };
  }
  try {
    if (identityOf(fd) !== identityIn(stat)) {
      return { users: undefined, wrong: false, reason: "it was replaced during the look" };
    }
    const size = Number(stat.size);
    const wrong = isCurrent ? whyNoCache(fd, size, path) : undefined;
    return { users: countUsers(fd, size), wrong: wrong !== undefined, reason: wrong ?? whyRefused(stat) };
  } catch (error) {
    return { users: undefined, wrong: false, reason: `it cannot be read (${codeOf(error)})` };
  } finally {
    closeSync(fd);
  }
}

/** Why the bytes of a file are no cache of this layout; `undefined` when they are one. */
function whyNoCache(fd: number, size: number, path: string): string | undefined {
  const header = new Uint8Array(plan.headerBytes);
  readSync(fd, header, 0, header.length, 0);
  try {
    plan.inspect(header, size, path);
    return undefined;
  } catch (error) {
    if (!(error instanceof CacheError)) throw error;
    return /: (.*?)\. Remove/.exec(error.message)?.[1] ?? error.message;
  }
}

/** Why participants refuse a file that may be a good cache. */
function whyRefused({ mode, nlink }: BigIntStats): string | undefined {
  if ((mode & 0o077n) !== 0n) return `others may open it (mode ${octal(Number(mode))}). Use chmod 0600`;
  if (nlink > 1n) return `it has ${nlink} names (hard links), and may have one`;
  return undefined;
}

/** How many seats of a file have a living owner: how many of its byte locks are held. */
function countUsers(fd: number, size: number): number | undefined {
  try {
    const native = Native.load();
    const { seats } = plan.of(size);
    let users = 0;
    for (let seat = 0; seat < seats; seat++) if (native.isLocked(fd, seat)) users++;
    return users;
  } catch {
    // No native part here, or a file system without such locks.
    return undefined;
  }
}

function isFifo(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false })?.isFIFO() === true;
  } catch {
    return false;
  }
}

/** The order of code units, which is the same in every language. */
function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}
