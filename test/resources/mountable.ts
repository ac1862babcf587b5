/** Whether the tests may mount a file system of their own: as root, where the container allows it. */

import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

export const isMountable: boolean = process.geteuid?.() === 0 && canMount();

function canMount(): boolean {
  const place = fs.mkdtempSync(path.join(os.tmpdir(), "cache-machine-mount-"));
  try {
    if (spawnSync("mount", ["-t", "tmpfs", "none", place]).status !== 0) return false;
    execFileSync("umount", [place]);
    return true;
  } finally {
    fs.rmdirSync(place);
  }
}
