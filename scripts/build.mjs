/**
 * Builds dist/: one ES module for Node.js (which CommonJS can `require` as well), one for browsers, and the types. The
 * compiled engine becomes part of both modules.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { wasmFacts } from "./wasm/facts.mjs";
import { wasmAsText } from "./wasm/text.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { sha256 } = JSON.parse(readFileSync(join(root, "wasm/cache_machine.wasm.json"), "utf8"));
const facts = wasmFacts(readFileSync(join(root, "wasm/cache_machine.wasm")));
const sources = createHash("sha256");
for (const file of readdirSync(join(root, "src")).sort()) sources.update(readFileSync(join(root, "src", file)));
const shared = {
  absWorkingDir: root,
  bundle: true,
  format: "esm",
  target: "es2022",
  loader: { ".wasm": "binary" },
  define: {
    WASM_SHA256: JSON.stringify(sha256),
    WASM_FACTS: JSON.stringify(facts),
    SOURCES_SHA256: JSON.stringify(sources.digest("hex")),
  },
  sourcemap: true,
  sourcesContent: false,
  legalComments: "none",
  // Puts numbers in place: see src/slot.ts.
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
    // What only Node.js has is not even looked for, and its code is left out.
    define: { ...shared.define, "globalThis.process": "undefined", "globalThis.Buffer": "undefined" },
  }),
]);
const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin", "tsc");
execFileSync(process.execPath, [tsc, "-p", root], { stdio: "inherit" });
