/**
 * What the build replaces names in src/ by (src/engine/artefact.d.ts declares the names). For the bundles, and for tests that
 * import the sources.
 */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

/** @returns {Record<string, string>} expressions, by name */
export function constants() {
  const { sha256 } = JSON.parse(readFileSync(join(ROOT, "wasm/cache_machine.wasm.json"), "utf8"));
  const sources = createHash("sha256");
  const files = readdirSync(join(ROOT, "src"), { recursive: true, withFileTypes: true }).filter((each) =>
    each.isFile(),
  );
  for (const file of files.map((each) => join(each.parentPath, each.name)).sort()) sources.update(readFileSync(file));
  return {
    WASM_SHA256: JSON.stringify(sha256),
    SOURCES_SHA256: JSON.stringify(sources.digest("hex")),
  };
}
