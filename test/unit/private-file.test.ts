/** Files that are not as the file of a cache has to be: of another size or format, not a file, or not this user's alone. */

import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { attachFileRegion, destroyFile } from "../../src/memory/file.ts";
import type { FileHandle } from "../../src/memory/memory.ts";
import { PAGE } from "../../src/size.ts";
import {
  at,
  directory,
  emptyPath,
  failure,
  idOf,
  isRoot,
  OPEN,
  open,
  pathOf,
  run,
  SIZE,
  script,
  scripts,
  useRegions,
} from "./regions.ts";

useRegions();

describe("a file under the name of a cache", () => {
  test("a cache of another size than asked for is ERR_SIZE_MISMATCH, which tells both sizes", () => {
    open({ size: 2 * PAGE });
    const error = failure(() => open({ size: 3 * PAGE }));
    expect(error).toMatchObject({ code: "ERR_SIZE_MISMATCH" });
    for (const told of ["128 KiB (131072 bytes)", "192 KiB (196608 bytes)", "leave `size` out"]) {
      expect(error.message).toContain(told);
    }
    expect(open().size).toBe(2 * PAGE);
    expect(open({ size: 2 * PAGE }).size).toBe(2 * PAGE);
  });

  test.each([
    ["empty", ""],
    ["short", "x".repeat(1000)],
    ["of a size that is no multiple of a page", "x".repeat(PAGE + 1)],
    ["of zeros", "\0".repeat(SIZE)],
    ["of other content than a cache", "x".repeat(SIZE)],
  ])("a file that is %s is ERR_LAYOUT and stays as it is", (_, content) => {
    const file = emptyPath();
    fs.writeFileSync(file, content, { mode: 0o600 });
    expect(failure(() => open()).code).toBe("ERR_LAYOUT");
    expect(fs.readFileSync(file, "latin1")).toBe(content);
    expect(destroyFile({ name: "app", path: directory }, 7)).toBe(true);
    expect(open().size).toBe(SIZE);
  });

  test("a cache that was truncated is ERR_LAYOUT", () => {
    const region = open();
    const file = pathOf(region);
    region.close();
    fs.truncateSync(file, SIZE - PAGE);
    expect(failure(() => open()).code).toBe("ERR_LAYOUT");
  });

  test("links and special files are ERR_LAYOUT, and the file that a link points to is not touched", () => {
    const region = open({ name: "real" });
    const file = emptyPath();
    fs.symlinkSync(pathOf(region), file);
    expect(failure(() => open())).toMatchObject({
      code: "ERR_LAYOUT",
      message: expect.stringContaining("destroyCache"),
    });
    expect(destroyFile({ name: "app", path: directory }, 7)).toBe(true);
    expect(fs.existsSync(pathOf(region))).toBe(true);
    execFileSync("mkfifo", [file]);
    expect(failure(() => open()).code).toBe("ERR_LAYOUT");
    fs.unlinkSync(file);
    fs.mkdirSync(file);
    expect(failure(() => open()).code).toBe("ERR_LAYOUT");
  });

  test("a file that others may read or write to is ERR_NOT_OWNER, which tells who", () => {
    const region = open();
    fs.chmodSync(pathOf(region), 0o622);
    expect(failure(() => open())).toMatchObject({
      code: "ERR_NOT_OWNER",
      message: expect.stringContaining("its group and everybody may write to"),
    });
    fs.chmodSync(pathOf(region), 0o640);
    expect(failure(() => open()).message).toContain("its group may read");
    fs.chmodSync(pathOf(region), 0o600);
    expect(open().memory).toBe(region.memory);
  });

  test.skipIf(!isRoot)("a file of another user is ERR_NOT_OWNER, and is not removed (needs root)", () => {
    const region = open();
    fs.chownSync(pathOf(region), 12345, 12345);
    expect(failure(() => open())).toMatchObject({ code: "ERR_NOT_OWNER", message: expect.stringContaining("12345") });
    expect(failure(() => destroyFile({ name: "app", path: directory }, 7)).code).toBe("ERR_NOT_OWNER");
    expect(fs.existsSync(pathOf(region))).toBe(true);
  });

  test("an opening that fails gives its descriptor back", () => {
    open();
    const count = () => fs.readdirSync("/proc/self/fd").length;
    const before = count();
    for (let i = 0; i < 10; i++) failure(() => open({ size: 8 * PAGE }));
    expect(count()).toBe(before);
  });

  /** What may be found under the name of a cache: how it gets there, and the code of the error. */
  const squatters: [string, (file: string) => void, string][] = [
    ["a link to nothing", (file) => fs.symlinkSync(`${file}-missing`, file), "ERR_LAYOUT"],
    ["a link to itself", (file) => fs.symlinkSync(file, file), "ERR_LAYOUT"],
    ["a link to a cache", (file) => fs.symlinkSync(pathOf(open({ name: "real" })), file), "ERR_LAYOUT"],
    ["a pipe", (file) => execFileSync("mkfifo", ["-m", "600", file]), "ERR_LAYOUT"],
    ["a directory", (file) => fs.mkdirSync(file), "ERR_LAYOUT"],
    ["a socket", (file) => bindSocket(file), "ERR_LAYOUT"],
    ["a file that everybody may write to", (file) => makeCache(file, 0o602), "ERR_NOT_OWNER"],
    ["a file that its group may write to", (file) => makeCache(file, 0o620), "ERR_NOT_OWNER"],
    ["a file that everybody may read", (file) => makeCache(file, 0o604), "ERR_NOT_OWNER"],
  ];
  const squattersOfRoot: typeof squatters = [
    ["another user's cache", (file) => makeCache(file, 0o600, 65_534), "ERR_NOT_OWNER"],
    ["another user's cache with mode 666", (file) => makeCache(file, 0o666, 65_534), "ERR_NOT_OWNER"],
    ["another user's pipe", (file) => makePipe(file, 65_534), "ERR_NOT_OWNER"],
  ];

  // Where devices are not allowed at all, the kernel says that this is not permitted.
  const devices: typeof squatters = [
    [
      "a character device",
      (file) => execFileSync("mknod", ["-m", "600", file, "c", "1", "5"]),
      "ERR_(LAYOUT|NOT_OWNER)",
    ],
    ["a block device", (file) => execFileSync("mknod", ["-m", "600", file, "b", "7", "250"]), "ERR_(LAYOUT|NOT_OWNER)"],
  ];
  const canMakeDevices = spawnSync("mknod", [path.join(scripts, "device"), "c", "1", "5"]).status === 0;

  /** Makes a copy of a cache that nobody has open. */
  function makeCache(file: string, mode: number, uid?: number): void {
    const region = open({ name: "model" });
    fs.copyFileSync(pathOf(region), file);
    region.close();
    fs.chmodSync(file, mode);
    if (uid !== undefined) fs.chownSync(file, uid, uid);
  }

  function makePipe(file: string, uid: number): void {
    execFileSync("mkfifo", ["-m", "666", file]);
    fs.chownSync(file, uid, uid);
  }

  /** Makes a socket. Its owner is killed, or would remove it. It is renamed, since the path of a socket must be short. */
  function bindSocket(file: string): void {
    const script = `require("node:net").createServer().listen("s", () => process.kill(process.pid, "SIGKILL"))`;
    spawnSync(process.execPath, ["-e", script], { cwd: directory });
    fs.renameSync(path.join(directory, "s"), file);
  }

  /** Everything that is in the directory, with all that tells whether it was changed. */
  function inventory(): unknown[] {
    return fs.readdirSync(directory).map((entry) => {
      const file = path.join(directory, entry);
      const { mode, uid, ino, nlink, size } = fs.lstatSync(file);
      const content = fs.lstatSync(file).isFile() ? fs.readFileSync(file, "latin1") : "";
      const target = fs.lstatSync(file).isSymbolicLink() ? fs.readlinkSync(file) : "";
      return { entry, mode, uid, ino, nlink, size, content, target };
    });
  }

  const inUse = (): { files: number; maps: number } => ({
    files: fs.readdirSync("/proc/self/fd").length,
    maps: fs
      .readFileSync("/proc/self/maps", "latin1")
      .split("\n")
      .filter((line) => line.includes(directory)).length,
  });

  for (const [available, list] of [
    [true, squatters],
    [isRoot, squattersOfRoot],
    [canMakeDevices, devices],
  ] as const) {
    test.skipIf(!available).each(list)(
      "%s is an error, and opening it changes nothing and leaves nothing open",
      (_, make, code) => {
        const file = emptyPath();
        make(file);
        const [before, held] = [inventory(), inUse()];
        for (let i = 0; i < 3; i++) {
          const error = { name: "CacheError", code: expect.stringMatching(`^${code}$`) };
          expect(failure(() => open())).toMatchObject(error);
          expect(failure(() => open({ size: SIZE }))).toMatchObject(error);
        }
        expect(inUse()).toEqual(held);
        expect(inventory()).toEqual(before);
      },
    );
  }

  test("a cache with a second name (hard link) is ERR_NOT_OWNER, and destroying the second name leaves the first", () => {
    const region = open();
    at(region)[0] = 21;
    const second = pathOf(region).replace("-app.", "-second.");
    fs.linkSync(pathOf(region), second);
    for (const name of ["app", "second"]) {
      expect(failure(() => open({ name }))).toMatchObject({
        code: "ERR_NOT_OWNER",
        message: expect.stringContaining("2 names"),
      });
    }
    expect(failure(() => attachFileRegion(region.handle as FileHandle)).code).toBe("ERR_NOT_OWNER");
    expect(destroyFile({ name: "second", path: directory }, 7)).toBe(true);
    expect(fs.statSync(pathOf(region)).nlink).toBe(1);
    expect(at(open())[0]).toBe(21);
  });

  test("renaming a file over a cache does not affect its participants, and later openings get the new file", () => {
    const region = open();
    at(region)[0] = 22;
    const next = path.join(directory, "next");
    makeCache(next, 0o600);
    fs.renameSync(next, pathOf(region));
    const other = open();
    expect([idOf(other) === idOf(region), at(other)[0], at(region)[0]]).toEqual([false, 0, 22]);
    fs.writeFileSync(next, "x".repeat(SIZE), { mode: 0o600 });
    fs.renameSync(next, pathOf(region));
    expect(failure(() => open()).code).toBe("ERR_LAYOUT");
    expect(failure(() => attachFileRegion(region.handle as FileHandle)).code).toBe("ERR_CLOSED");
    expect([at(other)[0], at(region)[0]]).toEqual([0, 22]);
    expect(fs.readFileSync(pathOf(region), "latin1")).toBe("x".repeat(SIZE));
    other.close();
    region.close();
    expect(inUse().maps).toBe(0);
  });

  test.skipIf(!isRoot)(
    "in a directory for all users, another user cannot open, destroy or replace a cache (needs root)",
    () => {
      fs.chmodSync(directory, 0o1777);
      const region = open();
      at(region)[0] = 23;
      // As that user would name it, so that it is found.
      const planted = pathOf(region).replace(/cache-machine-\d+-/, "cache-machine-65534-");
      makeCache(planted, 0o600);
      const readable = planted.replace("-app.", "-readable.");
      makeCache(readable, 0o666);
      const before = inventory();
      const stdout = run(`
      const { openFileRegion, destroyFile, plan } = await library();
      const { Native } = await library();
      const fs = await import("node:fs");
      Native.load();
      process.setgroups([]); process.setgid(65534); process.setuid(65534);
      const path = process.argv[2];
      const told = (run) => { try { run(); console.log("done"); } catch (e) { console.log(e.code); } };
      for (const name of ["app", "readable"]) {
        told(() => openFileRegion({ name, path, plan, defaultSize: ${SIZE} }));
        told(() => destroyFile({ name, path }, 7));
      }
      told(() => fs.openSync(${JSON.stringify(pathOf(region))}, "r"));
      told(() => fs.unlinkSync(${JSON.stringify(pathOf(region))}));
      told(() => openFileRegion({ name: "own", path, plan, defaultSize: ${SIZE} }));`);
      const refused = ["ERR_NOT_OWNER", "ERR_NOT_OWNER"];
      expect(stdout.trim().split("\n")).toEqual([
        ...refused,
        ...refused,
        "EACCES",
        expect.stringMatching(/EPERM|EACCES/),
        "done",
      ]);
      expect(inventory().filter((file) => !(file as { entry: string }).entry.includes("-own."))).toEqual(before);
      expect(at(region)[0]).toBe(23);
    },
  );

  test.each([0, PAGE])(
    "a cache that is truncated to %i bytes while it is open crashes its users, as docs/limits.md says",
    (left) => {
      const crash = `${OPEN}
      const { truncateSync } = await import("node:fs");
      const region = open();
      const bytes = new Uint8Array(region.memory.buffer, region.base, region.size);
      bytes[bytes.length - 1] = 1;
      truncateSync(region.handle.path, ${left});
      console.log("truncated");
      bytes[bytes.length - 1]++;
      console.log("alive");`;
      const { stdout, signal } = spawnSync(process.execPath, [script(crash), directory], { encoding: "utf8" });
      expect([stdout, signal]).toEqual(["truncated\n", "SIGBUS"]);
      // A later opening is an error, and a new cache can be created.
      expect(failure(() => open()).code).toBe("ERR_LAYOUT");
      expect(destroyFile({ name: "app", path: directory }, 7)).toBe(true);
      expect(open().size).toBe(SIZE);
    },
  );
});
