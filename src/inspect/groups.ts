/**
 * What the control groups (cgroups) of a process do to it: a freezer that has stopped it, and the memory that it may use. Their files
 * can be read by everybody. Version 1 and version 2, also both at once. Linux only.
 *
 * A process is named by its path below the root of the control groups, as this process sees that root. A group outside of it, as of the
 * machine around a container, cannot be read: then nothing is known of it.
 */

import { readFileSync } from "node:fs";

/** Returns the text of a file; throws where there is no such file. */
export type Read = (path: string) => string;

const ROOT = "/sys/fs/cgroup";
const readText: Read = (path) => readFileSync(path, "latin1");

/** The memory that a group allows and uses, in bytes. */
export interface GroupMemory {
  /** The folder of the group. */
  group: string;
  limit: number;
  /** Without files that the kernel can drop at once; `undefined` when it cannot be read. */
  used: number | undefined;
}

/**
 * The file that lets a process go on which the freezer of a control group has stopped, such as
 * `/sys/fs/cgroup/app.slice/cgroup.freeze`: into version 2 `0` is written, into version 1 `THAWED`. `null` when none has.
 */
export function freezerOf(pid: number, read: Read = readText): string | null {
  for (const folder of groupsOf(pid, "", read)) {
    // It says whether the processes have stopped, on behalf of this group or of one above.
    if (!/^frozen 1$/m.test(text(`${folder}/cgroup.events`, read))) break;
    if (text(`${folder}/cgroup.freeze`, read).trim() === "1") return `${folder}/cgroup.freeze`;
  }
  for (const folder of groupsOf(pid, "freezer", read)) {
    if (text(`${folder}/freezer.state`, read).trim() !== "FROZEN") break;
    if (text(`${folder}/freezer.self_freezing`, read).trim() === "1") return `${folder}/freezer.state`;
  }
  return null;
}

/** Of all groups of a process with a limit of memory the one with the least room; `undefined` when there is no limit. */
export function memoryOf(pid: number | "self", read: Read = readText): GroupMemory | undefined {
  const found: GroupMemory[] = [];
  for (const folder of groupsOf(pid, "", read)) {
    found.push(memoryIn(folder, ["memory.max", "memory.current", "inactive_file"], read));
  }
  for (const folder of groupsOf(pid, "memory", read)) {
    found.push(memoryIn(folder, ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"], read));
  }
  const room = ({ limit, used = 0 }: GroupMemory): number => limit - used;
  // "max" is no number. Version 1 writes "no limit" as a number near 2^63.
  return found.filter(({ limit }) => limit > 0 && limit < 2 ** 60).sort((a, b) => room(a) - room(b))[0];
}

function memoryIn(
  folder: string,
  [max, current, droppable]: readonly [string, string, string],
  read: Read,
): GroupMemory {
  const limit = Number.parseInt(text(`${folder}/${max}`, read), 10);
  const all = Number.parseInt(text(`${folder}/${current}`, read), 10);
  const files = Number(new RegExp(`^${droppable} (\\d+)$`, "m").exec(text(`${folder}/memory.stat`, read))?.[1] ?? 0);
  return { group: folder, limit, used: all >= 0 ? Math.max(0, all - files) : undefined };
}

/**
 * The folders of the groups of a process, from its own to the root.
 *
 * @param controller of version 1; the empty text stands for version 2
 */
function groupsOf(pid: number | "self", controller: string, read: Read): string[] {
  for (const line of text(`/proc/${pid}/cgroup`, read).split("\n")) {
    // `0::/path` in version 2, `4:memory:/path` in version 1.
    const [, names, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (names === undefined || path === undefined || !names.split(",").includes(controller)) continue;
    if (path.split("/").includes("..")) return [];
    const folders: string[] = [];
    for (let group = path === "/" ? "" : path; group !== ""; group = group.slice(0, group.lastIndexOf("/")))
      folders.push(group);
    // In a container the path may be that on the machine around it. Then its own group is mounted as the root.
    folders.push("");
    // Where both versions are used at once, version 2 has a place of its own.
    const isBoth = controller === "" && text(`${ROOT}/cgroup.controllers`, read) === "";
    const root = controller !== "" ? `${ROOT}/${controller}` : isBoth ? `${ROOT}/unified` : ROOT;
    return folders.map((group) => root + group);
  }
  return [];
}

function text(path: string, read: Read): string {
  try {
    return read(path);
  } catch {
    return "";
  }
}
