/**
 * Where a cache can be and what it is allowed to take: directories, other users, permissions, boots, limits, and hosts
 * that lack something. Where a cache cannot be, opening it is an error of this package that says what to do, and it leaves
 * nothing behind.
 *
 * Other users are child processes that give up root. Nothing is concluded from a delay.
 */

import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { attachCache, type Cache, type CacheHandle, createCache, destroyCache, openCache } from "cache-machine";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { memoryLimit } from "../../src/system/cgroup.ts";

// Dozens of processes are started here. On a busy machine that takes its time, which says nothing.
vi.setConfig({ testTimeout: 120_000 });

const root = fileURLToPath(new URL("../..", import.meta.url));
const dist = path.join(root, "dist/index.js");
const uid = process.geteuid?.() as number;
const isRoot = uid === 0;
const NOBODY = 65_534;
const SOMEBODY = 12_345;
const TMPFS = 0x01021994;

let directory = "";
const others = new Set<ChildProcess>();
const caches = new Set<Cache>();
const mounts: string[] = [];

beforeEach(() => {
  directory = fs.mkdtempSync("/dev/shm/cache-machine-places-");
});

afterEach(async () => {
  for (const cache of caches) cache.close();
  caches.clear();
  for (const other of others) {
    if (other.exitCode !== null || other.signalCode !== null) continue;
    const exit = once(other, "exit");
    // Together with its children: it leads a group of its own.
    process.kill(-(other.pid as number), "SIGKILL");
    await exit;
  }
  others.clear();
  for (const mount of mounts.splice(0)) execFileSync("umount", ["--lazy", mount]);
  fs.rmSync(directory, { recursive: true });
});

function open(options: Record<string, unknown> = {}, name = "app"): Cache {
  const cache = openCache(name, { path: directory, size: "1mb", ...options });
  caches.add(cache);
  return cache;
}

const fileOf = (cache: Cache): string => (cache.handle as CacheHandle & { path: string }).path;

interface Failure {
  name: string;
  code?: string;
  message: string;
}

function failure(run: () => unknown): Failure {
  try {
    run();
  } catch (error) {
    return error as Failure;
  }
  throw new Error("did not throw");
}

/** The functions that scripts have. `told` makes a call; answers its result or its error as data. */
const PROLOGUE = `
  const { attachCache, createCache, destroyCache, openCache } = await import(${JSON.stringify(dist)});
  const told = (run) => {
    try { return { returned: run() ?? null }; } catch ({ name, code, message }) { return { name, code, message }; }
  };
  const say = (what) => console.log(JSON.stringify(what));
  /** Opens once, so that everything is loaded, and gives up root. */
  const become = (uid) => {
    openCache("loaded", { path: process.env.PLACES_OWN, size: "1mb" }).close();
    destroyCache("loaded", { path: process.env.PLACES_OWN });
    process.setgroups([]); process.setgid(uid); process.setuid(uid);
  };
  const use = (options, name = "app") => {
    const cache = openCache(name, { size: "1mb", ...options });
    try { return cache.set("a", "value").get("a"); } finally { cache.close(); }
  };`;

/** Runs a script as a process of its own; answers what it has said, which is one line of JSON. */
function run<T = any>(body: string, { flags = [], before = "" }: { flags?: string[]; before?: string } = {}): T {
  const script = path.join(directory, "script.mjs");
  fs.writeFileSync(script, PROLOGUE + body);
  const own = fs.mkdtempSync("/dev/shm/cache-machine-places-");
  try {
    const line = [process.execPath, ...flags, script].map((word) => `'${word}'`).join(" ");
    const { stdout, stderr, status, signal } = spawnSync("sh", ["-c", `${before} ${line}`], {
      cwd: root,
      encoding: "utf8",
      env: { ...process.env, NODE_OPTIONS: "", PLACES_OWN: own },
      timeout: 60_000,
      killSignal: "SIGKILL",
    });
    if (status !== 0) throw new Error(`ended with ${status ?? signal}: ${stderr}${stdout}`);
    return JSON.parse(stdout) as T;
  } finally {
    fs.rmSync(script);
    fs.rmSync(own, { recursive: true });
  }
}

/** Starts a process in a group of its own, which goes on; answers once it has said something. */
async function start(command: string, args: string[], options: { uid?: number } = {}): Promise<ChildProcess> {
  const user = options.uid === undefined ? {} : { uid: options.uid, gid: options.uid };
  const other = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"], detached: true, ...user });
  others.add(other);
  await once(other.stdout as NodeJS.ReadableStream, "data");
  return other;
}

function mount(place: string, options: string): void {
  execFileSync("mount", ["-t", "tmpfs", "-o", options, "none", place]);
  mounts.push(place);
}

const isMountable =
  isRoot && spawnSync("unshare", ["-m", "mount", "-t", "tmpfs", "none", os.tmpdir()], { stdio: "ignore" }).status === 0;
if (!isMountable) console.warn("places: not root, or mounting is not allowed: other users and boots are not tested");

describe("the turn of a creator", () => {
  const lock = (kind: string, user: { uid?: number } = {}): Promise<ChildProcess> =>
    start("flock", [kind, directory, "sh", "-c", "echo locked; exec sleep 1000"], user);

  /** Creates a cache; tells how many times it has waited for two milliseconds before. */
  const COUNT = `
    let waits = 0;
    const wait = Atomics.wait;
    Atomics.wait = (...args) => { waits++; return wait(...args); };
    const value = use({ path: process.argv[2] ?? ${JSON.stringify("PLACE")} });
    say({ value, waits });`;
  const count = (): { value: string; waits: number } => run(COUNT.replace("PLACE", directory));

  test("a creator that is alone waits for nobody", () => {
    expect(count()).toEqual({ value: "value", waits: 0 });
  });

  test.skipIf(!isRoot).each(["--exclusive", "--shared"])(
    "a creator waits 50 ms for another user who has locked the directory (%s), not longer (needs root)",
    async (kind) => {
      fs.chmodSync(directory, 0o1777);
      await lock(kind, { uid: NOBODY });
      expect(count()).toEqual({ value: "value", waits: 25 });
      // An opening that finds a cache has nothing to wait for.
      expect(count()).toEqual({ value: "value", waits: 0 });
    },
  );

  test("a creator waits for another process of its user that has the turn, until that process is gone", async () => {
    const holder = await lock("--exclusive");
    const script = path.join(directory, "waiting.mjs");
    fs.writeFileSync(
      script,
      `${PROLOGUE}
       let waits = 0;
       const wait = Atomics.wait;
       Atomics.wait = (...args) => {
         if (++waits === 200) process.stdout.write("waiting");
         return wait(...args);
       };
       process.stdout.write(use({ path: ${JSON.stringify(directory)} }));
       setInterval(() => {}, 1000);`,
    );
    // 200 polls are 400 milliseconds: for another user it would have gone on without a turn long before.
    const waiting = await start(process.execPath, [script]);
    expect(fs.readdirSync(directory)).toEqual(["waiting.mjs"]);
    const said = once(waiting.stdout as NodeJS.ReadableStream, "data");
    process.kill(-(holder.pid as number), "SIGKILL");
    expect(String((await said)[0])).toBe("value");
  });
});

describe("directories", () => {
  const MODES = [0o700, 0o755, 0o711, 0o775, 0o757, 0o777, 0o770, 0o733, 0o500];

  /** What the guide says about a directory, independent of how the package finds out. */
  function isFit(user: number, owner: number, mode: number): "fit" | "ERR_NOT_OWNER" | "ERR_UNSUPPORTED" {
    if (owner !== user && owner !== 0) return "ERR_NOT_OWNER";
    if ((mode & 0o022) !== 0 && (mode & 0o1000) === 0) return "ERR_NOT_OWNER";
    const may = owner === user ? (mode >> 6) & 7 : mode & 7;
    return user === 0 || may === 7 ? "fit" : "ERR_UNSUPPORTED";
  }

  test.skipIf(!isRoot)(
    "directories of all owners and modes are accepted exactly if this user may use them, and no other user can rename a file in them (needs root)",
    () => {
      const places = [0, NOBODY, SOMEBODY].flatMap((owner) =>
        MODES.flatMap((mode) => [mode, mode | 0o1000]).map((mode) => {
          const place = path.join(directory, `${owner}-${mode.toString(8)}`);
          fs.mkdirSync(place);
          fs.chownSync(place, owner, owner);
          fs.chmodSync(place, mode);
          return { owner, mode, place };
        }),
      );
      fs.chmodSync(directory, 0o755);
      for (const user of [0, NOBODY]) {
        const found = run<Failure[]>(`
        if (${user} !== 0) become(${user});
        say(${JSON.stringify(places)}.map(({ place }) => told(() => use({ path: place }))));`);
        const table = places.map(({ owner, mode }, i) => [user, owner, mode.toString(8), found[i]?.code ?? "fit"]);
        expect(table).toEqual(
          places.map(({ owner, mode }) => [user, owner, mode.toString(8), isFit(user, owner, mode)]),
        );
        for (const { code, message } of found) if (code !== undefined) expect(message).toMatch(/^path: .*`path`/);
      }
      // The refused directories are as they were.
      for (const { owner, mode, place } of places) {
        const fit = [0, NOBODY].filter((user) => isFit(user, owner, mode) === "fit");
        expect([place, fs.readdirSync(place)]).toEqual([
          place,
          fit.map((user) => expect.stringContaining(`cache-machine-${user}-app.v`)),
        ]);
      }
    },
  );

  test.skipIf(!isRoot)(
    "a directory of this user is accepted, also within a directory that is refused (needs root)",
    () => {
      // As an `emptyDir` of Kubernetes is: for all, and without the sticky bit.
      fs.chmodSync(directory, 0o777);
      const own = path.join(directory, "own");
      fs.mkdirSync(own, { mode: 0o700 });
      fs.chownSync(own, NOBODY, NOBODY);
      const found = run(`
      become(${NOBODY});
      say([told(() => use({ path: ${JSON.stringify(directory)} })), use({ path: ${JSON.stringify(own)} })]);`);
      expect(found).toEqual([expect.objectContaining({ code: "ERR_NOT_OWNER" }), "value"]);
    },
  );

  const SOCKET = `require("node:net").createServer().listen("s", () => process.kill(process.pid, "SIGKILL"))`;

  /** Paths that are no directory for a cache: how each is made, and what the error says. */
  const none: [string, (place: string) => string | undefined, RegExp][] = [
    ["a missing directory", () => undefined, /does not exist/],
    ["a directory below a missing one", (place) => path.join(place, "below"), /does not exist/],
    ["a file", (place) => void fs.writeFileSync(place, "x"), /is not a directory/],
    [
      "a directory below a file",
      (place) => {
        fs.writeFileSync(place, "x");
        return path.join(place, "below");
      },
      /is not a directory/,
    ],
    ["a pipe", (place) => void execFileSync("mkfifo", [place]), /is not a directory/],
    [
      "a socket",
      (place) => {
        spawnSync(process.execPath, ["-e", SOCKET], { cwd: directory });
        fs.renameSync(path.join(directory, "s"), place);
      },
      /is not a directory/,
    ],
    ["a device", () => "/dev/null", /is not a directory/],
    ["a link to itself", (place) => fs.symlinkSync(place, place), /link that leads nowhere/],
    ["a link to nothing", (place) => fs.symlinkSync(`${place}-missing`, place), /does not exist/],
    [
      "a link to a file",
      (place) => {
        fs.writeFileSync(`${place}-file`, "x");
        fs.symlinkSync(`${place}-file`, place);
      },
      /is not a directory/,
    ],
    ["a long name", (place) => place + "x".repeat(300), /too long/],
    ["a long path", (place) => place + "/x".repeat(4096), /does not exist|too long/],
    ["/proc", () => "/proc", /\/proc/],
    ["/sys", () => "/sys", /\/sys/],
  ];

  test.each(none)(
    "opening a cache with %s as `path` is an error that says so, and destroying one there destroys nothing",
    (_, make, said) => {
      const place = path.join(directory, "place");
      const given = make(place) ?? place;
      const before = fs.readdirSync(directory);
      const descriptors = fs.readdirSync("/proc/self/fd").length;
      for (const size of ["1mb", undefined]) {
        const error = failure(() => open({ path: given, size }));
        expect(error).toMatchObject({ name: "CacheError", code: "ERR_UNSUPPORTED" });
        expect(error.message).toMatch(/^path: .*`path`/);
        expect(error.message).toMatch(said);
        expect(error.message.length).toBeLessThan(400);
      }
      try {
        expect(destroyCache("app", { path: given })).toBe(false);
      } catch (error) {
        expect(error).toMatchObject({ name: "CacheError", code: "ERR_UNSUPPORTED" });
      }
      expect(fs.readdirSync(directory)).toEqual(before);
      expect(fs.readdirSync("/proc/self/fd").length).toBe(descriptors);
    },
  );

  test("a `path` that is not a string, is empty, or contains NUL is a TypeError or a RangeError", () => {
    for (const place of ["", "a\0b", "/dev/shm\0"]) {
      expect(failure(() => open({ path: place }))).toMatchObject({ name: "RangeError", message: /^path: / });
      expect(failure(() => destroyCache("app", { path: place }))).toMatchObject({ name: "RangeError" });
    }
    for (const place of [null, 5, {}, [], Buffer.from("/dev/shm")]) {
      expect(failure(() => open({ path: place }))).toMatchObject({ name: "TypeError", message: /^path: / });
    }
  });

  test("all paths of one directory lead to the same cache", () => {
    const cache = open();
    cache.set("a", 1);
    const link = path.join(directory, "link");
    fs.symlinkSync(directory, link);
    const relative = path.relative(process.cwd(), directory);
    for (const other of [`${directory}/`, `${directory}/.`, link, `${link}/link`, relative]) {
      const again = open({ path: other });
      expect([other, again.get("a"), fileOf(again)]).toEqual([other, 1, fileOf(cache)]);
    }
    expect(destroyCache("app", { path: link })).toBe(true);
    expect(destroyCache("app", { path: directory })).toBe(false);
  });

  test("a relative `path` in a working directory that is gone is ERR_UNSUPPORTED", () => {
    const found = run(`
      const fs = await import("node:fs");
      const gone = fs.mkdtempSync(process.env.PLACES_OWN + "/gone-");
      process.chdir(gone);
      fs.rmdirSync(gone);
      say([told(() => use({ path: "here" })), told(() => use({ path: "." })), told(() => destroyCache("app", { path: "." }))]);`);
    for (const error of found.slice(0, 2)) expect(error).toMatchObject({ name: "CacheError", code: "ERR_UNSUPPORTED" });
    expect(found[2]).toEqual({ returned: false });
  });

  test.skipIf(!isRoot)(
    "a directory that this user may not read, write or search is ERR_UNSUPPORTED (needs root)",
    () => {
      fs.chmodSync(directory, 0o755);
      for (const mode of [0o700, 0o744, 0o711, 0o755]) {
        const place = path.join(directory, mode.toString(8));
        fs.mkdirSync(place);
        fs.mkdirSync(path.join(place, "below"));
        fs.chmodSync(path.join(place, "below"), 0o700);
        fs.chmodSync(place, mode);
      }
      const found = run(`
      become(${NOBODY});
      say([700, 744, 711, 755].flatMap((mode) => [mode, mode + "/below"]).map((place) =>
        [place, told(() => use({ path: "${directory}/" + place })), told(() => destroyCache("app", { path: "${directory}/" + place }))]));`);
      for (const [place, opened, destroyed] of found) {
        expect([place, opened]).toMatchObject([place, { name: "CacheError", code: "ERR_UNSUPPORTED" }]);
        if (destroyed.returned !== false) expect([place, destroyed.name]).toEqual([place, "CacheError"]);
      }
    },
  );

  test.skipIf(!isMountable)(
    "a read-only file system is ERR_UNSUPPORTED, one that is full or without inodes is ERR_NO_SPACE (needs root)",
    () => {
      const readOnly = path.join(directory, "read-only");
      const inodes = path.join(directory, "inodes");
      const full = path.join(directory, "full");
      for (const place of [readOnly, inodes, full]) fs.mkdirSync(place);
      mount(readOnly, "size=4m,mode=700");
      open({ path: readOnly }, "there").close();
      execFileSync("mount", ["-o", "remount,ro", readOnly]);
      for (const name of ["there", "new"]) {
        expect(failure(() => open({ path: readOnly }, name))).toMatchObject({
          name: "CacheError",
          code: "ERR_UNSUPPORTED",
          message: expect.stringContaining("read-only"),
        });
        const destroyed = failure(() => destroyCache("there", { path: readOnly }));
        expect(destroyed).toMatchObject({ name: "CacheError", code: "ERR_UNSUPPORTED" });
      }
      mount(inodes, "size=4m,nr_inodes=2,mode=700");
      fs.writeFileSync(path.join(inodes, "last"), "");
      mount(full, "size=512k,mode=700");
      for (const place of [inodes, full]) {
        const error = failure(() => open({ path: place }));
        expect(error).toMatchObject({ name: "CacheError", code: "ERR_NO_SPACE" });
      }
      expect([fs.readdirSync(inodes), fs.readdirSync(full)]).toEqual([["last"], []]);
    },
  );

  test("opening with few descriptors left fails with ERR_NO_SPACE, whichever call finds none", () => {
    const found = run(
      `const fs = await import("node:fs");
       use({ path: ${JSON.stringify(directory)} });
       const held = [];
       try { for (;;) held.push(fs.openSync("/dev/null")); } catch {}
       const found = [];
       // One more descriptor each time, so that each call that needs one is the first to fail once.
       for (let free = 0; free < 6; free++) {
         found.push(told(() => use({ path: ${JSON.stringify(directory)} }, "app" + free)));
         fs.closeSync(held.pop());
       }
       say(found);`,
      { before: "ulimit -n 256;" },
    );
    expect(found.at(-1)).toEqual({ returned: "value" });
    for (const error of found) if (error.returned === undefined) expect(error).toMatchObject({ code: "ERR_NO_SPACE" });
    expect(found[0].message).toMatch(/ulimit -n/);
  });
});

describe("other users", () => {
  /** What another user has put under the name of a cache first. */
  const taken: [string, (file: string) => void][] = [
    ["a file with mode 600", (file) => fs.writeFileSync(file, "x", { mode: 0o600 })],
    [
      "a file with mode 666",
      (file) => {
        fs.writeFileSync(file, "x");
        fs.chmodSync(file, 0o666);
      },
    ],
    ["a directory", (file) => fs.mkdirSync(file)],
    ["a pipe with mode 666", (file) => execFileSync("mkfifo", ["-m", "666", file])],
    ["a link to nothing", (file) => fs.symlinkSync("/nowhere", file)],
    ["a link to itself", (file) => fs.symlinkSync(file, file)],
  ];

  test.skipIf(!isRoot).each(taken)(
    "%s of another user under the name of a cache: the error says whose it is and what to do (needs root)",
    (_, make) => {
      fs.chmodSync(directory, 0o1777);
      const file = fileOf(open());
      destroyCache("app", { path: directory });
      const file2 = file.replace("-0-", `-${NOBODY}-`);
      make(file2);
      fs.lchownSync(file2, SOMEBODY, SOMEBODY);
      fs.mkdirSync(`${directory}/own`, { mode: 0o700 });
      fs.chownSync(`${directory}/own`, NOBODY, NOBODY);
      const found = run(`
      become(${NOBODY});
      const path = ${JSON.stringify(directory)};
      say({ refused: [told(() => use({ path })), told(() => destroyCache("app", { path }))], own: use({ path: path + "/own" }) });`);
      for (const error of found.refused) {
        expect(error).toMatchObject({ name: "CacheError", code: "ERR_NOT_OWNER" });
        expect(error.message).toContain(`id ${SOMEBODY}`);
        expect(error.message).toMatch(/`path`.*\$XDG_RUNTIME_DIR/);
      }
      expect(found.own).toBe("value");
      expect(fs.lstatSync(file2).uid).toBe(SOMEBODY);
    },
  );

  /** What makes a cache of this user reachable by others, whether this user can do it, and how it is put right. */
  const reached: [string, boolean, (file: string) => void, (file: string) => void][] = [
    ...[0o640, 0o620, 0o604, 0o602, 0o660, 0o606, 0o666, 0o777, 0o610, 0o601].map((mode): (typeof reached)[number] => [
      `mode 0${mode.toString(8)}`,
      true,
      (file) => fs.chmodSync(file, mode),
      (file) => fs.chmodSync(file, 0o600),
    ]),
    ["a second name", true, (file) => fs.linkSync(file, `${file}-2`), (file) => fs.unlinkSync(`${file}-2`)],
    ["another owner", isRoot, (file) => fs.chownSync(file, NOBODY, 0), (file) => fs.chownSync(file, 0, 0)],
  ];

  for (const isAvailable of [true, false]) {
    test.skipIf(!isAvailable).each(reached.filter(([, available]) => available === isAvailable))(
      "a cache with %s is neither opened nor attached to",
      (_, __, harm, mend) => neitherOpenedNorAttached(harm, mend),
    );
  }

  function neitherOpenedNorAttached(harm: (file: string) => void, mend: (file: string) => void): void {
    const cache = open();
    cache.set("a", 1);
    const file = fileOf(cache);
    harm(file);
    for (const join of [() => open(), () => open({ size: undefined }), () => attachCache(cache.handle)]) {
      const error = failure(join);
      expect(error).toMatchObject({ name: "CacheError", code: "ERR_NOT_OWNER" });
      expect(error.message).toMatch(/chmod|remove|`path`/);
      expect(error.message).toContain(file);
    }
    // The participant that has it open goes on.
    expect(cache.get("a")).toBe(1);
    if (fs.statSync(file).uid === uid) {
      // destroyCache is the remedy that needs no shell.
      mend(file);
      const again = attachCache(cache.handle);
      expect(again.get("a")).toBe(1);
      again.close();
      harm(file);
      expect(destroyCache("app", { path: directory })).toBe(true);
    } else {
      expect(failure(() => destroyCache("app", { path: directory })).code).toBe("ERR_NOT_OWNER");
      mend(file);
      expect(open().get("a")).toBe(1);
    }
  }
});

describe("boots", () => {
  const disk = [os.tmpdir(), root].find((place) => fs.statfsSync(place).type !== TMPFS);
  const isTestable = disk !== undefined && canCreate(disk);
  if (!isTestable) console.warn("places: there is no disk here that has O_TMPFILE: boots are not tested");
  let place = "";

  function canCreate(where: string): boolean {
    const folder = fs.mkdtempSync(path.join(where, "cache-machine-places-"));
    try {
      openCache("probe", { path: folder, size: "1mb" }).close();
      return true;
    } catch {
      return false;
    } finally {
      fs.rmSync(folder, { recursive: true });
    }
  }

  beforeEach(() => {
    if (isTestable) place = fs.mkdtempSync(path.join(disk, "cache-machine-places-"));
  });
  afterEach(() => {
    if (isTestable) fs.rmSync(place, { recursive: true });
  });

  /** Runs a script as if the machine had been started anew: `boot` is what the kernel tells of this boot. */
  function inBoot<T = any>(boot: string, body: string, where = place): T {
    const file = path.join(directory, "boot_id");
    fs.writeFileSync(file, boot);
    const script = `const path = ${JSON.stringify(where)}; ${body}`;
    return run<T>(script, {
      before: `unshare -m sh -c 'mount --bind "${file}" /proc/sys/kernel/random/boot_id && exec "$@"' sh`,
    });
  }

  const [FIRST, SECOND] = ["11111111-2222-3333-4444-555555555555\n", "99999999-2222-3333-4444-555555555555\n"];
  const [first, second] = [FIRST, SECOND].map((id) => id.replace(/[-\n]/g, ""));
  const READ = `const cache = openCache("app", { path, size: "1mb" }); say(cache.get("a") ?? null);`;
  const WRITE = `openCache("app", { path, size: "1mb" }).set("a", "of this boot"); say(1);`;
  const list = (): string[] => fs.readdirSync(place).map((file) => file.replace(/^.*\.v\d+/, ""));

  test.skipIf(!isTestable || !isMountable)("a cache on a disk belongs to one boot (needs root)", () => {
    inBoot(FIRST, WRITE);
    expect(inBoot(FIRST, READ)).toBe("of this boot");
    expect(list()).toEqual([`.${first}`]);
    // Files of another cache, and files whose names only look alike, must stay.
    for (const file of [`cache-machine-${uid}-app-2.v1.${first}`, `cache-machine-${uid}-app.v1.x`, "cache-machine"]) {
      fs.writeFileSync(path.join(place, file), "kept");
    }
    expect(inBoot(SECOND, READ)).toBe(null);
    const files = fs.readdirSync(place);
    expect(files.filter((file) => file.endsWith(`.${second}`))).toHaveLength(1);
    expect(files).toHaveLength(4);
    // The cache of the first boot does not come back, either.
    expect(inBoot(FIRST, READ)).toBe(null);
  });

  test.skipIf(!isTestable || !isMountable)(
    "destroying a cache on a disk removes its files of earlier boots too, with their bells (needs root)",
    () => {
      inBoot(FIRST, WRITE);
      const [file] = fs.readdirSync(place) as [string];
      fs.writeFileSync(path.join(place, `${file}.bell.x7.0`), "");
      expect(inBoot(SECOND, `say(destroyCache("app", { path }));`)).toBe(false);
      expect(list()).toEqual([]);
    },
  );

  test.skipIf(!isTestable || !isMountable)(
    "all threads that open a cache on a disk after a boot have one cache (needs root)",
    () => {
      inBoot(FIRST, WRITE);
      const seen = inBoot<number>(
        SECOND,
        `const { Worker } = await import("node:worker_threads");
       const { once } = await import("node:events");
       const meeting = new Int32Array(new SharedArrayBuffer(4));
       const body = \`
         const { parentPort, workerData } = require("node:worker_threads");
         import(${JSON.stringify(dist)}).then(({ openCache }) => {
           Atomics.add(workerData.meeting, 0, 1);
           while (Atomics.load(workerData.meeting, 0) < 4);
           const cache = openCache("app", { path: workerData.path, size: "1mb" });
           cache.increment("n");
           parentPort.postMessage(cache.get("a") ?? null);
         });\`;
       const workers = Array.from({ length: 4 }, () => new Worker(body, { eval: true, workerData: { path, meeting } }));
       for (const seen of await Promise.all(workers.map((worker) => once(worker, "message")))) if (seen[0] !== null) throw seen;
       say(openCache("app", { path }).get("n"));`,
      );
      expect(seen).toBe(4);
      expect(list()).toEqual([`.${second}`]);
    },
  );

  test.skipIf(!isTestable || !isMountable)(
    "a cache on a disk is kept if the kernel does not identify its boot (needs root)",
    () => {
      inBoot("", WRITE);
      expect(list()).toEqual([""]);
      expect(inBoot("unknown\n", READ)).toBe("of this boot");
    },
  );

  test.skipIf(!isMountable)("a cache in memory is kept whatever boot the kernel names (needs root)", () => {
    inBoot(FIRST, WRITE, directory);
    expect(inBoot(SECOND, READ, directory)).toBe("of this boot");
  });
});

describe("Node.js with --permission", () => {
  const flag = ["--permission", "--experimental-permission"].find((each) =>
    process.allowedNodeEnvironmentFlags.has(each),
  );
  const rights = [flag as string, "--allow-addons", "--allow-worker", "--disable-warning=SecurityWarning"];
  const all = [...rights, "--allow-fs-read=*", "--allow-fs-write=*"];
  const isThere = flag !== undefined && process.allowedNodeEnvironmentFlags.has("--allow-addons");

  /** To read the package and what it depends on. Node.js 20 ends when of two such paths one begins like the other. */
  function program(): string[] {
    const [own, modules] = [root, path.join(root, "node_modules")].map((place) => fs.realpathSync(place)) as [
      string,
      string,
    ];
    return [own, ...(modules.startsWith(own) ? [] : [modules])].map((place) => `--allow-fs-read=${place}*`);
  }

  const EVERYTHING = `
    const { Worker } = await import("node:worker_threads");
    const { once } = await import("node:events");
    const path = ${JSON.stringify("PLACE")};
    const cache = openCache("app", { path, size: "1mb" });
    const threads = createCache({ size: "1mb" });
    threads.set("a", 1);
    const body = \`
      const { workerData } = require("node:worker_threads");
      import(${JSON.stringify(dist)}).then(({ attachCache }) => attachCache(workerData).set("a", "of a worker"));\`;
    for (const handle of [cache.handle, threads.handle]) {
      await once(new Worker(body, { eval: true, workerData: handle }), "exit");
    }
    const found = [cache.get("a"), threads.get("a"), cache.stats().participants];
    cache.close();
    say([...found, use({ path }), destroyCache("app", { path }), destroyCache("app", { path })]);`;

  test.skipIf(!isThere)("a cache works with all rights", () => {
    const found = run(EVERYTHING.replace("PLACE", directory), { flags: all });
    expect(found).toEqual(["of a worker", "of a worker", 1, "value", true, false]);
  });

  test.skipIf(!isThere)("a cache works with the rights to its files and to /proc", () => {
    const reading = [...program(), `--allow-fs-read=${directory}*`, "--allow-fs-read=/proc*"];
    const found = run(EVERYTHING.replace("PLACE", directory), {
      flags: [...rights, ...reading, `--allow-fs-write=${directory}*`],
    });
    expect(found).toEqual(["of a worker", "of a worker", 1, "value", true, false]);
  });

  test.skipIf(!isThere)("the application's own cache works if nothing above its folder may be read", () => {
    const found = run(
      `const { get, set } = await import(${JSON.stringify(dist)});
       set("a", "value");
       say([get("a"), destroyCache()]);`,
      {
        flags: [
          ...rights,
          ...program(),
          "--allow-fs-read=/dev/shm*",
          "--allow-fs-read=/proc*",
          "--allow-fs-write=/dev/shm*",
        ],
      },
    );
    expect(found).toEqual(["value", true]);
  });

  test.skipIf(!isThere)("opening without the rights to its files says what is missing", () => {
    const calls = `
      const path = ${JSON.stringify(directory)};
      say([told(() => use({ path })), told(() => destroyCache("app", { path }))]);`;
    const reading = [...program(), `--allow-fs-read=${directory}/script.mjs`];
    for (const flags of [reading, ["--allow-fs-read=*"], [...reading, "--allow-fs-write=*"]]) {
      const [opened, destroyed] = run(calls, { flags: [...rights, ...flags] });
      expect([flags, opened]).toMatchObject([flags, { name: "CacheError", code: "ERR_UNSUPPORTED" }]);
      expect(opened.message).toMatch(/--permission.*--allow-fs-read.*--allow-fs-write/);
      if (destroyed.returned !== false)
        expect(destroyed).toMatchObject({ name: "CacheError", code: "ERR_UNSUPPORTED" });
    }
  });

  test.skipIf(!isThere)(
    "opening without the right to look for the native part is ERR_UNSUPPORTED, and caches of threads work",
    () => {
      const copy = path.join(directory, "copy");
      fs.mkdirSync(path.join(copy, "dist"), { recursive: true });
      fs.copyFileSync(dist, path.join(copy, "dist/index.js"));
      fs.symlinkSync(path.join(root, "node_modules"), path.join(copy, "node_modules"));
      const read = ["script.mjs", "copy/dist*", "copy/node_modules*"].map(
        (place) => `--allow-fs-read=${directory}/${place}`,
      );
      const found = run(
        `const other = await import(${JSON.stringify(path.join(copy, "dist/index.js"))});
       say([told(() => other.openCache("app", { path: ${JSON.stringify(directory)} })), told(() => other.createCache().set("a", 1).get("a"))]);`,
        { flags: [...rights, ...program(), ...read] },
      );
      expect(found).toEqual([
        expect.objectContaining({ name: "CacheError", code: "ERR_UNSUPPORTED" }),
        { returned: 1 },
      ]);
    },
  );

  test.skipIf(!isThere)("opening with a umask that takes the user's own rights is an error that says so", () => {
    for (const mask of [0o000, 0o022, 0o077]) {
      expect(
        run(`say(use({ path: ${JSON.stringify(directory)} }));`, { flags: all, before: `umask 0${mask.toString(8)};` }),
      ).toBe("value");
      destroyCache("app", { path: directory });
    }
    for (const mask of [0o777, 0o200, 0o400]) {
      const found = run(`process.umask(${mask}); say(told(() => use({ path: ${JSON.stringify(directory)} })));`, {
        flags: all,
      });
      expect(found).toMatchObject({ name: "CacheError", code: "ERR_UNSUPPORTED" });
      expect(found.message).toMatch(/umask/);
      expect(fs.readdirSync(directory)).toEqual([]);
    }
  });
});

describe("a host that lacks something", () => {
  const CALLS = `
    const path = ${JSON.stringify("PLACE")};
    say([told(() => use({ path })), told(() => createCache().get("a")), told(() => destroyCache("app", { path }))]);`;
  const lacking: [string, string[], RegExp][] = [["WebAssembly (--jitless)", ["--jitless"], /no WebAssembly here/]];
  if (process.arch === "x64") lacking.push(["SIMD", ["--no-enable-sse4-1"], /no SIMD/]);

  test.each(lacking)("opening without %s says so, and destroying works without it", (_, flags, said) => {
    const file = fileOf(open());
    for (const there of [true, false]) {
      const [opened, created, destroyed] = run(`console.warn = () => {};${CALLS.replace("PLACE", directory)}`, {
        flags: [...flags, "--no-warnings"],
      });
      for (const error of [opened, created]) {
        expect(error).toMatchObject({ name: "CacheError", code: "ERR_UNSUPPORTED" });
        expect(error.message).toMatch(said);
      }
      expect(destroyed).toEqual({ returned: there });
      expect(fs.existsSync(file)).toBe(false);
    }
  });

  test.each(["index.js", "browser.js"])(
    "without TextEncoder or TextDecoder %s can be imported, and works or says what is missing",
    (file) => {
      for (const missing of [["TextEncoder"], ["TextDecoder"], ["TextEncoder", "TextDecoder"]]) {
        const [imported, found] = run(`
        for (const name of ${JSON.stringify(missing)}) delete globalThis[name];
        const other = await import(${JSON.stringify(path.join(root, "dist", file))} + "?without");
        say([Object.keys(other).includes("createCache"), told(() => {
          const cache = other.createCache({ size: "1mb" });
          return cache.set("schlüssel", { value: "wört" }, { tags: ["täg"] }).getEntry("schlüssel").tags[0];
        })]);`);
        expect(imported).toBe(true);
        if (file === "index.js") expect(found).toEqual({ returned: "täg" });
        else
          expect(found).toMatchObject({ name: "CacheError", code: "ERR_UNSUPPORTED", message: /TextEncoder.*`node`/ });
      }
    },
  );
});

describe("address space", () => {
  // Node.js 24 does without the reservation where there is no room for it.
  test("a cache needs at most 11 GiB of address space, and too little is an error that says so", () => {
    const found = [];
    for (let gib = 2; gib <= 12; gib++) {
      const before = `ulimit -v ${gib << 20};`;
      const calls = `say([told(() => use({ path: ${JSON.stringify(directory)} })), told(() => createCache({ size: "1mb" }).set("a", 1).get("a"))]);`;
      const [opened] = run(calls, { before });
      const [, created] = run(calls.replace("use(", "(() => {})("), { before });
      found.push([gib, opened.code ?? opened.returned, created.code ?? created.returned]);
      for (const { code, message } of [opened, created]) {
        if (code !== undefined) expect(message).toMatch(/address space.*10 GiB.*`ulimit -v`/);
      }
    }
    const enough = found.filter(([, opened]) => opened === "value");
    console.log(`address space for one cache: ${enough[0]?.[0]} GiB`);
    for (const [gib, opened, created] of found) {
      const fits = (gib as number) >= 11;
      expect([gib, opened]).toEqual([gib, fits ? "value" : expect.stringMatching(/^(value|ERR_NO_SPACE)$/)]);
      expect([gib, created]).toEqual([gib, fits ? 1 : created === 1 ? 1 : "ERR_NO_SPACE"]);
    }
  });
});

describe("the memory limit of a control group", () => {
  const limit = (files: Record<string, string>): number =>
    memoryLimit((file) => {
      const text = files[file];
      if (text === undefined) throw Object.assign(new Error("ENOENT"), { code: "ENOENT" });
      return text;
    });
  const V1 = "/sys/fs/cgroup/memory";
  const V2 = "/sys/fs/cgroup";
  const UNLIMITED = "9223372036854771712\n";

  test.each<[string, number, Record<string, string>]>([
    ["where nothing can be read", Infinity, {}],
    ["where there are no groups", Infinity, { "/proc/self/cgroup": "" }],
    ["version 2, a group without a limit", Infinity, { "/proc/self/cgroup": "0::/\n" }],
    [
      "version 2, a group whose limit is max",
      Infinity,
      { "/proc/self/cgroup": "0::/a\n", [`${V2}/a/memory.max`]: "max\n" },
    ],
    [
      "version 2, in a container that sees only its own group",
      5,
      { "/proc/self/cgroup": "0::/\n", [`${V2}/memory.max`]: "5\n" },
    ],
    [
      "version 2, a limit of the innermost group",
      5,
      { "/proc/self/cgroup": "0::/a/b\n", [`${V2}/a/b/memory.max`]: "5\n" },
    ],
    [
      "version 2, the limit of an outer group, which is lower than that of an inner one",
      4,
      {
        "/proc/self/cgroup": "0::/a/b/c\n",
        [`${V2}/a/b/c/memory.max`]: "max\n",
        [`${V2}/a/b/memory.max`]: "5\n",
        [`${V2}/a/memory.max`]: "4\n",
        [`${V2}/memory.max`]: "max\n",
      },
    ],
    [
      "version 2, in a container that sees the path of the machine",
      7,
      { "/proc/self/cgroup": "0::/docker/1234\n", [`${V2}/memory.max`]: "7\n" },
    ],
    [
      "version 2, a group outside of what is mounted",
      7,
      { "/proc/self/cgroup": "0::/../../x\n", [`${V2}/memory.max`]: "7\n" },
    ],
    [
      "version 2, a group with unusual characters in its name",
      3,
      { "/proc/self/cgroup": "0::/a b:c\n", [`${V2}/a b:c/memory.max`]: "3\n" },
    ],
    [
      "version 2, a limit that is negative",
      Infinity,
      { "/proc/self/cgroup": "0::/a\n", [`${V2}/a/memory.max`]: "-1\n" },
    ],
    [
      "version 2, a limit that is no number",
      Infinity,
      { "/proc/self/cgroup": "0::/a\n", [`${V2}/a/memory.max`]: "x\n" },
    ],
    [
      "version 1, a limit of the innermost group",
      6,
      {
        "/proc/self/cgroup": "5:cpu:/x\n4:memory:/a/b\n0::/\n",
        [`${V1}/a/b/memory.limit_in_bytes`]: "6\n",
        [`${V1}/memory.limit_in_bytes`]: UNLIMITED,
      },
    ],
    [
      "version 1, the memory controller among others",
      6,
      { "/proc/self/cgroup": "4:cpu,memory,x:/a\n", [`${V1}/a/memory.limit_in_bytes`]: "6\n" },
    ],
    [
      "version 1, in a container that sees the path of the machine",
      8,
      { "/proc/self/cgroup": "4:memory:/docker/1\n", [`${V1}/memory.limit_in_bytes`]: "8\n" },
    ],
    [
      "version 1, another controller with a similar name",
      Infinity,
      { "/proc/self/cgroup": "4:memory2:/a\n5:cpu:/a\n", [`${V1}/a/memory.limit_in_bytes`]: "6\n" },
    ],
  ])("is read from the files of the kernel: %s", (_, expected, files) => {
    expect(limit(files)).toBe(expected);
  });

  test("is more than 64 MiB where these tests run, and lets a small cache be created", () => {
    expect(memoryLimit((file) => fs.readFileSync(file, "latin1"))).toBeGreaterThan(64 << 20);
    const cache = createCache({ size: "1mb" });
    cache.close();
  });

  /** Makes a group with a limit of 64 MiB for one process; undefined where the kernel does not allow it. */
  function makeGroup(): string | undefined {
    const own = fs.readFileSync("/proc/self/cgroup", "latin1");
    const [, version1] = /^\d+:(?:.*,)?memory(?:,.*)?:(.*)$/m.exec(own) ?? [];
    const places =
      version1 === undefined
        ? [["", "memory.max"]]
        : [
            ["/memory", "memory.limit_in_bytes"],
            [`/memory${version1}`, "memory.limit_in_bytes"],
          ];
    for (const [place, file] of places) {
      const group = `/sys/fs/cgroup${place}/cache-machine-places-${process.pid}`;
      try {
        fs.mkdirSync(group);
        fs.writeFileSync(path.join(group, file as string), String(64 << 20));
        return group;
      } catch {
        if (fs.existsSync(group)) fs.rmdirSync(group);
      }
    }
    return undefined;
  }

  test("a cache that is larger than the real limit of its process is refused with ERR_NO_SPACE (needs root)", ({
    skip,
  }) => {
    const made = isRoot ? makeGroup() : undefined;
    skip(made === undefined, "no control group can be made");
    try {
      const [over, threads, under] = run(
        `const path = ${JSON.stringify(directory)};
         say([told(() => use({ path, size: "65mb" })), told(() => createCache({ size: "65mb" })), told(() => use({ path, size: "16mb" }))]);`,
        { before: `echo $$ > ${made}/cgroup.procs;` },
      );
      for (const error of [over, threads]) {
        expect(error).toMatchObject({ name: "CacheError", code: "ERR_NO_SPACE" });
        expect(error.message).toMatch(/^size: .*64 MiB \(67108864 bytes\)/);
      }
      expect(under).toEqual({ returned: "value" });
    } finally {
      fs.rmdirSync(made as string);
    }
  });
});
