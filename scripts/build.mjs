/**
 * Builds dist/: one ES module for Node.js (which CommonJS can `require` as well), one for browsers, and the types. The
 * compiled engine becomes part of both modules.
 */
import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { constants } from "./constants.mjs";
import { wasmAsText } from "./wasm/text.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const shared = {
  absWorkingDir: root,
  bundle: true,
  format: "esm",
  target: "es2022",
  loader: { ".wasm": "binary" },
  define: constants(),
  legalComments: "none",
  // Replaces the constants of files without imports by their numbers: see src/engine/contract.ts.
  minifySyntax: true,
  logLevel: "warning",
};

rmSync(join(root, "dist"), { recursive: true, force: true });
await Promise.all([
  build({ ...shared, entryPoints: ["src/index.ts"], outfile: "dist/index.js", platform: "node", packages: "external" }),
  build({
    ...shared,
    entryPoints: ["src/browser.ts"],
    outfile: "dist/browser.js",
    platform: "browser",
    packages: "external",
    plugins: [wasmAsText],
    // The bundle does not look for what only Node.js has, and esbuild leaves out the code that uses it.
    define: { ...shared.define, "globalThis.process": "undefined", "globalThis.Buffer": "undefined" },
  }),
]);
const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin", "tsc");
execFileSync(process.execPath, [tsc, "-p", root], { stdio: "inherit" });
