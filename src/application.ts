/**
 * The cache that needs no configuration: one for the whole application, found by every process and thread that runs
 * code of the same package, as the first cache-machine had it.
 */

import { createHash } from "node:crypto";
import { existsSync, readFileSync, realpathSync } from "node:fs";
import { basename, dirname, join } from "node:path";

/** The folder of the nearest package.json above the script that was started, else the script's own folder. */
function applicationFolder(): string {
  const script = process.argv[1];
  let folder = process.cwd();
  if (script !== undefined) {
    try {
      folder = dirname(realpathSync(script));
    } catch {
      // Started without a file: the working directory is the best there is.
    }
  }
  for (let above = folder; ; above = dirname(above)) {
    if (existsSync(join(above, "package.json"))) return above;
    if (dirname(above) === above) return folder;
  }
}

function packageName(folder: string): string {
  try {
    const { name } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { name?: unknown };
    if (typeof name === "string" && name !== "") return name;
  } catch {
    // No package, or one that is not for us to judge.
  }
  return basename(folder) || "root";
}

/** Name of the application's cache: readable, and different for each installation on the machine. */
export function applicationName(): string {
  const folder = applicationFolder();
  const hash = createHash("sha256").update(folder).digest("hex").slice(0, 12);
  return `${packageName(folder).slice(0, 64)}-${hash}`;
}
