/**
 * The memory that a container or a service may have: the limits of its control groups (cgroups). A process with a larger
 * cache would be killed by the kernel without a message once the cache has filled up. Needs no Node.js: in a browser no
 * limit is known.
 */

import { noSpace } from "../errors.ts";
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
  throw noSpace(
    `size: a cache of ${readableSize(size)} does not fit the memory that this container or service may use (its control ` +
      `group allows ${readableSize(limit)}). Choose a smaller \`size\`, or raise the limit (\`docker run --memory\`, ` +
      "`resources.limits.memory`, `MemoryMax=`).",
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
    // In a container the path may be that of the host machine, of which only the last part, or nothing, is mounted. A group
    // that cannot be read sets no limit here, and the innermost group that is mounted lies at the root.
    for (let group = path; ; group = group.slice(0, group.lastIndexOf("/"))) {
      // "max" and an empty text are not a number, and a number that is not positive is no limit.
      const bytes = Number.parseInt(text(`${folder}${group === "/" ? "" : group}/${file}`), 10);
      if (bytes > 0 && bytes < limit) limit = bytes;
      if (group === "" || group === "/") break;
    }
  }
  return limit;
}
