/** The list of cache files: what it says of strange files, and that removing one touches nothing else. */

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { type Cache, destroyCache, openCache } from "cache-machine";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { parseBellName } from "../../src/bells/fifo.ts";
import { listCaches, removeFile } from "../../src/inspect/files.ts";
import { fileNameOf, parseFileName } from "../../src/memory/place.ts";

// Vite would load the module itself; esbuild gives its bytes.
vi.mock("../../wasm/cache_machine.wasm", () => ({ default: fs.readFileSync("wasm/cache_machine.wasm") }));

const uid = process.geteuid?.() ?? -1;
const BOOT = "0123456789abcdef0123456789abcdef";
let directory: string;

beforeEach(() => {
  directory = fs.mkdtempSync("/dev/shm/files-test-");
});

afterEach(() => fs.rmSync(directory, { recursive: true, force: true }));

const put = (name: string, bytes = 100): string => {
  const file = path.join(directory, name);
  fs.writeFileSync(file, new Uint8Array(bytes), { mode: 0o600 });
  return file;
};

const open = (name: string): Cache => openCache(name, { path: directory, size: "1 MiB" });

const only = (name: string) => {
  const found = listCaches(directory).filter((file) => file.name === name);
  expect(found).toHaveLength(1);
  return found[0] as (typeof found)[0];
};

describe("names", () => {
  test.each([
    "plain",
    "a.v6",
    `x.v6.${BOOT}`,
    "ümläut ✓",
    "../../etc",
    "%41",
    ".bell.1.2",
    "\n",
    "a/b",
    "🙂".repeat(10),
  ])("%j is found again in the name of its file", (name) => {
    for (const boot of [undefined, BOOT]) {
      const file = fileNameOf(1234, name, 6, () => boot);
      expect(parseFileName(file)).toEqual({ uid: 1234, name, version: 6, boot });
      expect(parseBellName(`${file}.bell.zz.1`)).toEqual({ file, inode: 1295n });
    }
  });

  test.each([
    "cache-machine-foo",
    "cache-machine-0-a",
    "cache-machine-0-a.v",
    "cache-machine-00-a.v6",
    "cache-machine-0-a.v06",
    "cache-machine-0-%ff.v6",
    "cache-machine-0-%41.v6",
    "cache-machine-0-a b.v6",
    "cache-machine-0-%.v6",
    `cache-machine-0-a.v6.${BOOT}0`,
    "other.v6",
  ])("%j is not the name of a cache", (name) => {
    expect(parseFileName(name)).toBeUndefined();
    expect(parseFileName(`${name}.bell.1.1`)).toBeUndefined();
  });
});

describe("the list", () => {
  test("has a cache with its size, and counts who has it open", () => {
    const cache = open("mine ✓");
    const file = only("mine ✓");
    expect(file).toMatchObject({
      path: path.join(fs.realpathSync(directory), `cache-machine-${uid}-mine%20%E2%9C%93.v${file.layout}`),
      directory: fs.realpathSync(directory),
      uid,
      ours: true,
      boot: undefined,
      size: 1024 * 1024,
      state: "current",
      reason: undefined,
      bells: [],
      orphans: [],
      users: 1,
    });
    expect(Math.abs(file.modified.getTime() - Date.now())).toBeLessThan(60_000);
    cache.close();
    expect(only("mine ✓").users).toBe(0);
  });

  test("has all users, layouts and boots, ordered by name, and nothing that is not named like a cache", () => {
    for (const version of [1, 5, 99]) put(`cache-machine-${uid}-old.v${version}`);
    put(`cache-machine-${uid}-boot.v6.${BOOT}`, 0);
    put("cache-machine-foo");
    put("unrelated");
    const other = put("cache-machine-4321-theirs.v6");
    if (uid === 0) fs.chownSync(other, 4321, 4321);
    const files = listCaches(directory);
    expect(files.map(({ name, layout, state }) => [name, layout, state])).toEqual([
      ["boot", 6, "foreign"],
      ["old", 1, "stale layout"],
      ["old", 5, "stale layout"],
      ["old", 99, "stale layout"],
      ["theirs", 6, "foreign"],
    ]);
    expect(files.at(-1)).toMatchObject(uid === 0 ? { uid: 4321, ours: false } : { uid, ours: true });
  });

  test("knows the file of another boot", () => {
    open("a").close();
    const { path: file } = only("a");
    fs.renameSync(file, `${file}.${BOOT}`);
    expect(only("a")).toMatchObject({ state: "other boot", boot: BOOT });
  });

  test("says what is wrong with what has the name of a cache", () => {
    const named = (name: string): string => path.join(directory, `cache-machine-${uid}-${name}.v6`);
    fs.symlinkSync("/etc/passwd", named("link"));
    fs.symlinkSync(named("dangling"), named("dangling"));
    fs.mkdirSync(named("directory"));
    execFileSync("mkfifo", [named("fifo")]);
    put(`cache-machine-${uid}-empty.v6`, 0);
    put(`cache-machine-${uid}-zeros.v6`, 1 << 20);
    open("open").close();
    fs.chmodSync(named("open"), 0o644);
    open("twice").close();
    fs.linkSync(named("twice"), path.join(directory, "second name"));
    const reasons = Object.fromEntries(listCaches(directory).map(({ name, state, reason }) => [name, [state, reason]]));
    expect(reasons).toEqual({
      link: ["foreign", "it is a link, not a regular file"],
      dangling: ["foreign", "it is a link, not a regular file"],
      directory: ["foreign", "it is a directory, not a regular file"],
      fifo: ["foreign", "it is a special file, not a regular file"],
      empty: ["foreign", "it does not begin as a cache does"],
      zeros: ["foreign", "it does not begin as a cache does"],
      open: ["current", "others may open it (mode 0644). Use chmod 0600"],
      twice: ["current", "it has 2 names (hard links), and may have one"],
    });
  });

  test("assigns bells to their file, and lists those whose file is gone", () => {
    open("a").close();
    const { path: file } = only("a");
    const inode = fs.lstatSync(file, { bigint: true }).ino.toString(36);
    const real = fs.realpathSync(directory);
    const [own, older, lost] = [
      `${file}.bell.${inode}.0`,
      `${file}.bell.1.0`,
      `${real}/cache-machine-${uid}-b.v6.bell.9.z`,
    ];
    execFileSync("mkfifo", [own, older, lost]);
    // Not a FIFO, so not a bell.
    put(`cache-machine-${uid}-c.v6.bell.9.1`);
    expect(listCaches(directory)).toMatchObject([
      { name: "a", state: "current", bells: [own, older].sort(), orphans: [older] },
      { name: "b", state: "no file", size: 0, uid, bells: [lost], orphans: [lost], identity: undefined },
    ]);
  });

  test("refuses a directory that is none, and names it", () => {
    expect(() => listCaches("/dev/shm/nowhere")).toThrow("/dev/shm/nowhere does not exist");
  });

  test("finds what lies in /dev/shm by default, and a directory on a disk", () => {
    const disk = fs.mkdtempSync(path.join(os.tmpdir(), "files-test-"));
    const name = `files-test-${process.pid}`;
    try {
      for (const place of [undefined, disk]) {
        openCache(name, { size: "1 MiB", ...(place && { path: place }) }).close();
        expect(listCaches(place).filter((file) => file.name === name)).toMatchObject([{ state: "current" }]);
        destroyCache(name, place === undefined ? {} : { path: place });
      }
    } finally {
      fs.rmSync(disk, { recursive: true });
    }
  });
});

describe("removing", () => {
  test("takes the file and its bells, and nothing else", () => {
    for (const name of ["a", "b"]) open(name).close();
    const { path: file } = only("a");
    execFileSync("mkfifo", [`${file}.bell.${fs.lstatSync(file, { bigint: true }).ino.toString(36)}.0`]);
    expect(removeFile(only("a"))).toBe(true);
    expect(fs.readdirSync(directory)).toEqual([path.basename(only("b").path)]);
  });

  test("keeps what has taken the path since the list was made", () => {
    open("a").close();
    const before = only("a");
    destroyCache("a", { path: directory });
    // The new file must not get the inode of the old one.
    put("holds an inode");
    open("a").close();
    expect(removeFile(before)).toBe(false);
    expect(only("a").state).toBe("current");
  });

  test("says false when the file has gone", () => {
    open("a").close();
    const before = only("a");
    destroyCache("a", { path: directory });
    expect(removeFile(before)).toBe(false);
  });

  test("removes a link and not what it leads to", () => {
    const target = put("target");
    fs.symlinkSync(target, path.join(directory, `cache-machine-${uid}-link.v6`));
    expect(removeFile(only("link"))).toBe(true);
    expect(fs.readdirSync(directory)).toEqual(["target"]);
  });

  test("removes bells without a file unless somebody reads them", () => {
    const [dead, alive] = ["1", "2"].map((seat) => path.join(directory, `cache-machine-${uid}-b.v6.bell.9.${seat}`));
    execFileSync("mkfifo", [dead as string, alive as string]);
    const reader = fs.openSync(alive as string, fs.constants.O_RDWR | fs.constants.O_NONBLOCK);
    try {
      expect(removeFile(only("b"))).toBe(true);
      expect(fs.readdirSync(directory)).toEqual([path.basename(alive as string)]);
    } finally {
      fs.closeSync(reader);
    }
  });

  test("refuses a directory, a name that is no cache's, and the file of another user", () => {
    fs.mkdirSync(path.join(directory, `cache-machine-${uid}-directory.v6`));
    expect(() => removeFile(only("directory"))).toThrow("is a directory");
    const kept = put("important");
    expect(() => removeFile({ path: kept, identity: "1:1", bells: [] })).toThrow("is not named like a cache");
    expect(fs.existsSync(kept)).toBe(true);
    if (uid !== 0) return;
    const theirs = put("cache-machine-4321-theirs.v6");
    fs.chownSync(theirs, 4321, 4321);
    expect(() => removeFile(only("theirs"))).toThrow("belongs to the user with id 4321");
    expect(fs.existsSync(theirs)).toBe(true);
  });
});
