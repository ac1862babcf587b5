/**
 * What the opening of a cache loads. How long it takes is measured by `npm run bench` and told in docs/performance.md. What took
 * longest, and is not needed, must not come back: further files, and parts of Node.js that load much.
 */

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { destroyCache, openCache } from "cache-machine";
import { describe, expect, it } from "vitest";

const MODULE = path.resolve("dist/index.js");
/** Prints which parts of Node.js a program with a cache has loaded that it had not loaded before. */
const PROGRAM = `
  const before = new Set(process.moduleLoadList);
  const { openCache } = await import(process.env.MODULE);
  const cache = openCache(process.env.NAME);
  cache.set("key", { value: [1] });
  // So often that the value is near.
  for (let i = 0; i < 20; i++) cache.get("key");
  const loaded = process.moduleLoadList.filter((each) => !before.has(each));
  cache.close();
  console.log(JSON.stringify(loaded));`;

describe("opening a cache", () => {
  it("an import of the package reads one file, whose characters are all in Latin-1", () => {
    const text = fs.readFileSync(MODULE, "utf8");
    expect(text.match(/^\s*(import\b(?!\.meta)|export\b.*\bfrom\b).*/gm)).toBeNull();
    expect([...text.matchAll(/\bimport\(/g)]).toEqual([]);
    expect(text).toMatch(/^[\0-\xff]*$/);
  });

  it("a program that opens an existing cache, stores and reads loads no cryptography and no network", () => {
    const name = `opening-${process.pid}`;
    const env = { ...process.env, NAME: name, MODULE: pathToFileURL(MODULE).href };
    openCache(name, { size: "1mb" }).close();
    let printed: string;
    try {
      printed = execFileSync(process.execPath, ["--input-type=module", "-e", PROGRAM], { env, encoding: "utf8" });
    } finally {
      destroyCache(name);
    }
    const loaded: string[] = JSON.parse(printed);
    // Otherwise the list tells nothing.
    expect(loaded).toContain("NativeModule worker_threads");
    expect(loaded.filter((each) => /crypto|\bnet$|\btls\b|\bhttp|child_process/.test(each))).toEqual([]);
  });
});
