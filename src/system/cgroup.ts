/**
 * The memory that a container or a service may use: the limits of its control groups (cgroups). With a larger cache, the kernel
 * would kill the process without a message once the cache has filled up. In a browser no limit is known.
 */

import { noSpace } from "../errors.ts";
import { readableSize } from "../size.ts";

const ROOT = "/sys/fs/cgroup";

/**
 * Refuses a cache that is larger than the memory that this process may use.
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
 * The lowest memory limit of all control groups of this process, in bytes. `Infinity` when no limit is set or can be read.
 *
 * @param read returns the text of a file; throws where there is no such file
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
    // In a container the path may be the path on the host machine, of which only the last part, or nothing, is mounted.
    // Then the group of the container is at the root. A group that cannot be read sets no limit.
    for (let group = path; ; group = group.slice(0, group.lastIndexOf("/"))) {
      // "max" and an empty text become NaN. Only a positive number is a limit.
      const bytes = Number.parseInt(text(`${folder}${group === "/" ? "" : group}/${file}`), 10);
      if (bytes > 0 && bytes < limit) limit = bytes;
      if (group === "" || group === "/") break;
    }
  }
  return limit;
}
