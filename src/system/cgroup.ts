/**
 * The memory that the kernel lets a container or a service have: its control groups. A cache that takes more would be
 * the end of the process, without a word, when it has filled up. Usable in a browser, where nothing is known.
 */

import { CacheError } from "../errors.ts";
import { readableSize } from "../size.ts";

const ROOT = "/sys/fs/cgroup";

/**
 * Refuses a cache that can never fit.
 *
 * @throws {CacheError} `ERR_NO_SPACE` when a control group of this process allows less than `size` bytes.
 */
export function requireMemory(size: number): void {
  const fs = globalThis.process?.getBuiltinModule?.("node:fs");
  if (fs === undefined) return;
  const limit = memoryLimit((path) => fs.readFileSync(path, "latin1"));
  if (size <= limit) return;
  throw new CacheError(
    "ERR_NO_SPACE",
    `size: a cache of ${readableSize(size)} does not fit the memory that this container or service may use (its control ` +
      `group allows ${readableSize(limit)}): choose a smaller \`size\`, or raise the limit (\`docker run --memory\`, ` +
      "`resources.limits.memory`, `MemoryMax=`)",
  );
}

/**
 * The lowest limit of the groups that this process is in, in bytes; `Infinity` when there is none, or none can be read.
 *
 * @param read the text of a file; throws where there is none
 */
export function memoryLimit(read: (path: string) => string): number {
  const text = (path: string): string => {
    try {
      return read(path);
    } catch {
      return "";
    }
  };
  let limit = Number.POSITIVE_INFINITY;
  // `0::/path` in version 2, `4:memory:/path` in version 1.
  for (const [, controllers, path = "/"] of text("/proc/self/cgroup").matchAll(
    /^\d+:(|(?:.*,)?memory(?:,.*)?):(.*)$/gm,
  )) {
    const [folder, file] = controllers === "" ? [ROOT, "memory.max"] : [`${ROOT}/memory`, "memory.limit_in_bytes"];
    // In a container the path may be that of the host, of which only the last part, or nothing, is mounted: groups that
    // cannot be read say nothing, and the innermost that is mounted lies at the root.
    for (let group = path; ; group = group.slice(0, group.lastIndexOf("/"))) {
      // "max", or nothing, is not a number, and what is not positive no limit.
      const bytes = Number.parseInt(text(`${folder}${group === "/" ? "" : group}/${file}`), 10);
      if (bytes > 0 && bytes < limit) limit = bytes;
      if (group === "" || group === "/") break;
    }
  }
  return limit;
}
