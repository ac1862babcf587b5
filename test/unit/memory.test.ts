/** The memory of a cache of threads, and what it needs of its host. */

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { build } from "esbuild";
import { expect, test } from "vitest";
import { createThreadRegion } from "../../src/memory/memory.ts";
import { PAGE } from "../../src/size.ts";
import { binary, directory, LIMIT_ADDRESS_SPACE, library, OPEN, root, run, script, useRegions } from "./regions.ts";

useRegions();

test("a region larger than a memory can be is a RangeError, a region without address space is ERR_NO_SPACE", () => {
  expect(() => createThreadRegion({ base: PAGE, size: 2 ** 32, seats: 1 })).toThrow(/^size: 4 GiB/);
  const stdout = run(`
    const { createThreadRegion } = await library();
    ${LIMIT_ADDRESS_SPACE}
    try { createThreadRegion({ base: 65536, size: 65536, seats: 1 }); } catch (e) { console.log(e.code, e.message); }`);
  expect(stdout).toMatch(/^ERR_NO_SPACE .*ulimit -v/);
});

test("a bundle of the thread reach for browsers holds only what it needs, and nothing of Node.js", async () => {
  const { outputFiles, metafile } = await build({
    entryPoints: [path.join(root, "src/memory/memory.ts")],
    bundle: true,
    platform: "browser",
    format: "esm",
    write: false,
    metafile: true,
  });
  expect(
    Object.keys(metafile.inputs)
      .map((input) => path.basename(input))
      .sort(),
  ).toEqual([
    "board.ts",
    "browser.ts",
    "errors.ts",
    "identity.ts",
    "linux.ts",
    "membership.ts",
    "memory.ts",
    "node-worker.ts",
    "notify.ts",
    "size.ts",
    "timers.ts",
  ]);
  expect(outputFiles[0]?.text).not.toMatch(/from "node:/);
});

test("without the native part a region of threads works, and opening a file says where the native part was looked for", () => {
  const bare = fs.mkdtempSync(path.join(os.tmpdir(), "cache-machine-bare-"));
  try {
    fs.copyFileSync(library, path.join(bare, "library.mjs"));
    const file = script(
      `${OPEN}
       const { createThreadRegion } = await library();
       console.log(createThreadRegion({ base: 0, size: 65536, seats: 1 }).membership.claim());
       try { open(); } catch (e) { console.log(e.code, e.message); }`,
      bare,
    );
    const { stdout } = spawnSync(process.execPath, [file, directory], { encoding: "utf8" });
    expect(stdout).toMatch(/^0\nERR_UNSUPPORTED /);
    expect(stdout).toContain(path.join(bare, binary));
    expect(fs.readdirSync(directory)).toEqual([]);
  } finally {
    fs.rmSync(bare, { recursive: true });
  }
});
