/** Compiles a file as a strict user's compiler does, for tests of types. */

import { execFileSync } from "node:child_process";
import path from "node:path";
import { root } from "../package/projects.ts";

const OPTIONS = [
  ...["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--skipLibCheck"],
  ...["--target", "es2023", "--lib", "es2023,esnext.disposable,dom", "--module", "nodenext", "--types", "node"],
  // The project's own configuration is that of src/.
  "--ignoreConfig",
];

/** Fails with the messages of the compiler. `file` is in this folder, or an absolute path. */
export function compile(file: string): void {
  const tsc = path.join(root, "node_modules/typescript/bin/tsc");
  try {
    execFileSync(process.execPath, [tsc, ...OPTIONS, path.resolve(import.meta.dirname, file)], {
      cwd: root,
      encoding: "utf8",
      timeout: 60_000,
    });
  } catch (error) {
    throw new Error((error as { stdout: string }).stdout);
  }
}
