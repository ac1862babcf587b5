/**
 * The command line as it is built, run as a process against real caches: what each command prints for people and as JSON, its exit
 * codes, that it takes no seat where it only looks, and that no key or value steers a terminal. `top` and `doctor` have tests of their own.
 */

import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { stripVTControlCharacters } from "node:util";
import { spawn as spawnPty } from "@lydell/node-pty";
import { type Cache, openCache } from "cache-machine";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { until } from "../coordinate/others.ts";
import { execute, type Output, Projects, Running, root } from "../package/projects.ts";

const CLI = path.join(root, "dist/cli/index.js");
const FOLDER = `/dev/shm/t-${process.pid}-cli`;
const NAME = "shop";
const HOSTILE = "evil\x1b[31m\n\u009b2J\u202ekey\ud800";
const projects = new Projects("cli");
/** Characters that a terminal obeys or that have no shape, except the line breaks of the output itself. */
const OBEYED = /[\p{Cf}\p{Cs}]|(?!\n)\p{Cc}/u;

let cache: Cache<unknown, string | Uint8Array>;

beforeEach(() => {
  fs.mkdirSync(FOLDER, { mode: 0o700 });
  cache = openCache(NAME, { path: FOLDER, size: "4mb" });
});

afterEach(() => {
  cache.close();
  fs.rmSync(FOLDER, { recursive: true });
});

afterAll(() => projects.remove());

/** Runs a command in the folder of the test. */
function cli(...args: string[]): Promise<Output> {
  return execute(process.execPath, [CLI, ...args, "--path", FOLDER], { cwd: root });
}

/** The lines of a command that must end with 0 and without a remark. */
async function lines(...args: string[]): Promise<string[]> {
  const { status, stdout, stderr } = await cli(...args);
  expect(stderr).toBe("");
  expect(status).toBe(0);
  expect(stdout).not.toMatch(OBEYED);
  return stdout.split("\n").slice(0, -1);
}

/** The documents of a command with --json, one for each line. */
async function documents(...args: string[]): Promise<any[]> {
  return (await lines(...args, "--json")).map((line) => JSON.parse(line));
}

/** Runs a command that must fail with this exit code; what it says. */
async function refusal(code: number, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await cli(...args);
  expect(status, stdout + stderr).toBe(code);
  expect(stdout).toBe("");
  // One line with a remedy.
  expect(stderr).toMatch(/^cache-machine: .+\n$/);
  expect(stderr).not.toMatch(OBEYED);
  return stderr;
}

/** Runs a command in a terminal: everything that it writes. */
function inTerminal(args: string[], env: Record<string, string> = {}): Promise<string> {
  const { CI: _, ...own } = process.env;
  return new Promise((resolve) => {
    const pty = spawnPty(process.execPath, [CLI, ...args, "--path", FOLDER], {
      cols: 80,
      rows: 24,
      env: { ...own, TERM: "xterm-256color", ...env },
    });
    let text = "";
    pty.onData((data) => (text += data));
    pty.onExit(() => resolve(text.replaceAll("\r\n", "\n")));
  });
}

function fill(): void {
  cache.set("user:1", { name: "Ada", roles: ["admin"] }, { ttl: 3_600_000, tags: ["users"] });
  cache.set("big", "x".repeat(50_000));
  cache.set(HOSTILE, `${HOSTILE}value`);
  cache.set(Uint8Array.of(1, 255), Uint8Array.of(0, 27, 91));
  cache
    .namespace("eu")
    .namespace("de")
    .set("inner", new Map([["a", 1n]]));
  for (let i = 0; i < 3; i++) cache.get("user:1");
  cache.get("nothing");
}

describe("which cache", () => {
  test("without a name a command is about the only cache, and with several it lists them", async () => {
    fill();
    expect((await documents("stat"))[0].name).toBe(NAME);
    const other = openCache("other", { path: FOLDER, size: "4mb" });
    expect(await refusal(2, "stat")).toContain("2 caches are in");
    expect(await refusal(2, "stat")).toContain("There are: other, shop.");
    expect((await documents("stat", "other"))[0].name).toBe("other");
    expect(await refusal(1, "stat", "nope")).toContain('there is no cache "nope"');
    other.close();
  });

  test("a directory that does not exist is exit code 3, an empty one 1", async () => {
    expect(await refusal(1, "stat", "x", "--path", fs.mkdtempSync(`${FOLDER}/empty-`))).toContain("no cache");
    const { status, stderr } = await execute(process.execPath, [CLI, "ls", "--path", "/does/not/exist"], { cwd: root });
    expect(stderr).toContain("/does/not/exist does not exist");
    expect(status).toBe(3);
  });

  test("a file that is no cache, or of another user's choice, is not looked into", async () => {
    const [file] = fs.readdirSync(FOLDER).filter((name) => /\.v\d+$/.test(name)) as [string];
    fs.writeFileSync(path.join(FOLDER, file.replace(NAME, "junk")), "x".repeat(100_000));
    const [, junk] = (await documents("ls"))[0].sort(
      (a: any, b: any) => Number(a.name === "junk") - Number(b.name === "junk"),
    );
    expect(junk).toMatchObject({ name: "junk", state: "foreign" });
    expect(await refusal(1, "stat", "junk")).toContain("junk");
  });
});

describe("mistakes", () => {
  test.each([
    [["statt"], "unknown command 'statt'. Did you mean stat?"],
    [["ls", "--jsn"], "unknown option '--jsn'. Did you mean --json?"],
    [["get"], "key: is missing"],
    [["get", "a", "b", "c"], "too many arguments"],
    [["ttl"], "key: is missing"],
    [["set", "key"], "value: is missing"],
    [["set", "key", "{"], "value: is no JSON"],
    [["set", "key", "1", "--ttl", "5"], "--ttl: must be a time such as"],
    [["stat", "-i", "0"], "--interval: must be"],
    [["big", "-n", "none"], "--limit: must be a whole number"],
    [["get", "§", "--base64"], "key: is no base64"],
    [["rm"], "cache: say which one"],
    [["rm", "shop", "--all-stale"], "cache: say which one"],
  ])("%j is exit code 2", async (args, text) => {
    expect(await refusal(2, ...args)).toContain(text);
  });

  test("--help of each command is exit code 0, and names the options", async () => {
    const { status, stdout } = await execute(process.execPath, [CLI, "--help"], { cwd: root });
    expect(status).toBe(0);
    const names = [...(stdout.split("Commands:")[1] as string).matchAll(/^ {2}([a-z]+) /gm)].map(
      ([, name]) => name as string,
    );
    expect(names).toEqual(
      expect.arrayContaining("ls stat keys get set del ttl watch big hot who verify rm export import".split(" ")),
    );
    for (const name of names.filter((name) => name !== "help")) {
      const help = await execute(process.execPath, [CLI, name, "--help"], { cwd: root });
      expect(help.status, name).toBe(0);
      expect(help.stdout, name).toMatch(new RegExp(`^Usage: cache-machine ${name} \\[options\\]`));
      expect(help.stdout, name).toContain("--json");
    }
    const { version } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"));
    expect((await execute(process.execPath, [CLI, "--version"], { cwd: root })).stdout).toBe(`${version}\n`);
  });
});

describe("looking", () => {
  test("ls lists the caches", async () => {
    expect(await lines("ls")).toEqual([
      expect.stringMatching(/^name {3}size {3}open in .*state$/),
      expect.stringMatching(/^shop {2}4 MiB {2}1 thread .* ok$/),
    ]);
    const [[file]] = await documents("ls");
    expect(file).toMatchObject({ name: NAME, size: 4 << 20, users: 1, state: "current", ours: true, reason: null });
    expect(fs.existsSync(file.path)).toBe(true);
  });

  test("stat prints the counters, as cache.stats() has them", async () => {
    fill();
    const [stat] = await documents("stat");
    expect(stat).toMatchObject({ name: NAME, entries: 5, namespaced: 1, hits: 3, misses: 1, sets: 5, participants: 1 });
    const text = await lines("stat");
    expect(text).toContainEqual(expect.stringMatching(/^hits +3 \(75\.0 %\), \d of them near$/));
    expect(text).toContainEqual(expect.stringMatching(/^entries +5 with .* KiB, 1 in namespaces$/));
  });

  test("stat -i prints the differences, and ends with its count or with Ctrl-C", async () => {
    const running = new Running(process.execPath, [CLI, "stat", "-i", "0.1", "--json", "--path", FOLDER], {
      cwd: root,
    });
    await until(() => running.stdout.includes("\n"), "the first line");
    for (let i = 0; i < 7; i++) cache.set("key", i);
    const sum = () =>
      running.stdout
        .split("\n")
        .slice(0, -1)
        .reduce((all, line) => all + JSON.parse(line).sets, 0);
    await until(() => sum() === 7, "the sets in the lines");
    running.child.kill("SIGINT");
    const { status, stderr } = await running.ended;
    expect([status, stderr]).toEqual([0, ""]);
    const text = await lines("stat", "-i", "0.1", "-n", "3");
    expect(text).toHaveLength(4);
    expect(text[0]).toMatch(/hits\/s +misses\/s +hit +sets\/s/);
  });

  test("keys lists every key so that no key can steer a terminal, and as JSON each exactly", async () => {
    fill();
    const shown = ["<Buffer 01 ff>", "big", "eu / de / inner", "evil\\x1b[31m\\n\\x9b2J\\u202ekey\\ud800", "user:1"];
    expect((await lines("keys")).sort()).toEqual(shown);
    const found = await documents("keys");
    const exact = [HOSTILE, "big", "inner", "user:1", { base64: "Af8=" }];
    expect(found.map(({ key }) => key).sort()).toEqual(exact.sort());
    expect(found.find(({ key }) => key === "user:1")).toMatchObject({ tags: ["users"], type: "object", namespace: [] });
    expect(found.find(({ key }) => key === "inner").namespace).toEqual(["eu", "de"]);
    expect(await lines("keys", "--prefix", "user")).toEqual(["user:1"]);
    expect(await lines("keys", "--namespace", "eu", "--namespace", "de")).toEqual(["eu / de / inner"]);
    expect(await lines("keys", "-n", "2")).toHaveLength(2);
    expect(await lines("keys", "-l", "--prefix", "user")).toEqual([
      expect.stringMatching(/^key +bytes +heat/),
      expect.stringMatching(/^user:1 .* 59 m \d+ s +object +users$/),
    ]);
  });

  test("big and hot have the largest and the hottest entries first", async () => {
    fill();
    expect((await documents("big", "-n", "1"))[0].map(({ key }: any) => key)).toEqual(["big"]);
    expect((await lines("big"))[1]).toMatch(/^big +48\.9 KiB/);
    const [hot] = await documents("hot", "-n", "1");
    expect(hot).toEqual([expect.objectContaining({ key: "user:1" })]);
    expect(hot[0].heat).toBeGreaterThan(0);
    expect((await lines("hot"))[1]).toMatch(/^user:1 /);
  });

  test("get prints a value for people, as JSON and raw; an absent key is exit code 1", async () => {
    fill();
    expect(await lines("get", "user:1")).toEqual(["{ name: 'Ada', roles: [ 'admin' ] }"]);
    expect(await documents("get", NAME, "user:1")).toEqual([{ name: "Ada", roles: ["admin"] }]);
    expect(await documents("get", "inner", "--namespace", "eu", "--namespace", "de")).toEqual([[["a", "1"]]]);
    expect(await documents("get", "Af8=", "--base64")).toEqual([{ base64: "ABtb" }]);
    expect((await cli("get", "Af8=", "--base64", "--raw")).stdout).toBe("\0\x1b[");
    expect((await cli("get", "big", "--raw")).stdout).toBe("x".repeat(50_000));
    expect((await lines("get", "big")).join("\n")).toMatch(/40000 more characters/);
    expect(await documents("get", "user:1", "-l")).toEqual([
      expect.objectContaining({
        key: "user:1",
        tags: ["users"],
        version: expect.any(Number),
        value: expect.any(Object),
      }),
    ]);
    expect(await refusal(1, "get", "nothing")).toContain("there is no entry nothing");
    expect(await refusal(1, "get", "user:1", "--namespace", "eu")).toContain("there is no entry");
  });

  test("no value can steer a terminal, an error least of all, whose text Node.js prints as it is", async () => {
    cache.set("error", new Error("\x1b[2J\u202e"));
    cache.set("text", HOSTILE.replace("\ud800", ""));
    cache.set("object", { [HOSTILE.replace("\ud800", "")]: /\u202e/ });
    for (const key of ["error", "text", "object"]) {
      expect((await lines("get", key)).join("")).toContain("\\u202e");
      await documents("get", key);
    }
  });

  test("values that JSON does not know have a JSON", async () => {
    cache.set("odd", { a: [Number.NaN, 1n, new Date(0), new Set([1]), undefined], b: /x/g, c: new URL("http://a/") });
    const text = "1970-01-01T00:00:00.000Z";
    expect(await documents("get", "odd")).toEqual([{ a: ["NaN", "1", text, [1], null], b: "/x/g", c: "http://a/" }]);
    const circle: any = {};
    circle.self = circle;
    cache.set("circle", circle);
    expect(await documents("get", "circle")).toEqual([{ self: "[Circular]" }]);
  });

  test("ttl prints the time that is left", async () => {
    fill();
    expect((await lines("ttl", "user:1"))[0]).toMatch(/^(1 h|59 m 5\d s)$/);
    expect(await lines("ttl", "big")).toEqual(["never"]);
    expect((await documents("ttl", "user:1"))[0].ttl).toBeGreaterThan(3_500_000);
    expect(await documents("ttl", "big")).toEqual([{ ttl: null }]);
    await refusal(1, "ttl", "nothing");
  });

  test("watch prints each change until Ctrl-C", async () => {
    const args = [CLI, "watch", "key", "-i", "0.1", "--json", "--path", FOLDER];
    const running = new Running(process.execPath, args, { cwd: root });
    const seen = () =>
      running.stdout
        .split("\n")
        .slice(0, -1)
        .map((line) => JSON.parse(line));
    await until(() => seen().length === 1, "the first state");
    cache.set("key", { n: 1 });
    await until(() => seen().length === 2, "the value");
    cache.set("key", 2);
    await until(() => seen().length === 3, "the next value");
    cache.delete("key");
    await until(() => seen().length === 4, "the removal");
    running.child.kill("SIGINT");
    expect((await running.ended).status).toBe(0);
    expect(seen().map(({ present, value }) => [present, value])).toEqual([
      [false, undefined],
      [true, { n: 1 }],
      [true, 2],
      [false, undefined],
    ]);
  });

  test("who lists the participants with what they hold", async () => {
    fill();
    await cache.locks.request("report\x1b[1m", async () => {
      const [[seat]] = await documents("who");
      expect(seat).toMatchObject({ pid: process.pid, state: "alive", sets: 5 });
      expect(seat.holds).toEqual([expect.objectContaining({ kind: "lock", name: "report\x1b[1m" })]);
      expect((await lines("who"))[1]).toMatch(new RegExp(`^ *${process.pid} .* lock "report\\\\x1b\\[1m"`));
    });
  });

  test("verify finds nothing in a good cache, and ends with 1 when something is broken", async () => {
    fill();
    expect(await lines("verify")).toEqual([expect.stringMatching(/^Nothing is broken\./)]);
    expect((await documents("verify"))[0].broken).toEqual([]);
    const [[{ path: file }]] = await documents("ls");
    cache.close();
    // The index and the segments are behind the first pages.
    const descriptor = fs.openSync(file, "r+");
    fs.writeSync(descriptor, Buffer.alloc(1 << 20, 0xa5), 0, 1 << 20, 1 << 19);
    fs.closeSync(descriptor);
    const { status, stdout } = await cli("verify", "--json");
    expect(status).toBe(1);
    expect(JSON.parse(stdout).broken.length).toBeGreaterThan(0);
  });

  test("what only looks takes no seat and changes no byte of the file", async () => {
    fill();
    const [[{ path: file }]] = await documents("ls");
    const before = fs.readFileSync(file);
    for (const args of [
      ["stat"],
      ["keys", "-l"],
      ["big"],
      ["hot"],
      ["get", "user:1"],
      ["get", "nothing"],
      ["ttl", "big"],
      ["who"],
      ["verify"],
    ]) {
      await cli(...args);
      expect(fs.readFileSync(file).equals(before), args.join(" ")).toBe(true);
    }
    // It works without the right to write, too.
    fs.chmodSync(file, 0o400);
    expect((await documents("stat"))[0].participants).toBe(1);
  });
});

describe("changing", () => {
  test("set stores JSON or text, with a time to live and tags, and del removes it", async () => {
    expect(await lines("set", "key", '{"a":[1]}', "--ttl", "1h30m", "--tags", "x,y")).toEqual([]);
    expect(cache.getEntry("key")).toMatchObject({ value: { a: [1] }, tags: ["x", "y"] });
    expect(cache.ttl("key")).toBeGreaterThan(5_300_000);
    await lines("set", NAME, "key", "{", "--text");
    expect(cache.get("key")).toBe("{");
    expect(cache.ttl("key")).toBe(Number.POSITIVE_INFINITY);
    expect(await documents("set", "Af8=", "1", "--base64")).toEqual([{ key: { base64: "Af8=" }, stored: true }]);
    expect(cache.get(Uint8Array.of(1, 255))).toBe(1);
    await lines("set", "key", "2", "--namespace", "eu");
    expect(cache.namespace("eu").get("key")).toBe(2);
    expect(await lines("del", "key")).toEqual([]);
    expect(cache.has("key")).toBe(false);
    await refusal(1, "del", "key");
    expect(await documents("del", "key", "--namespace", "eu")).toEqual([{ key: "key", removed: true }]);
    expect(await refusal(2, "set", "key", "1", "--tags", "x".repeat(300))).toContain("tag");
    expect(await refusal(3, "set", "k".repeat(5000), "1")).toContain("key");
    expect(cache.stats().participants).toBe(1);
  });

  test("set reads a value from a pipe", async () => {
    const child = spawn(process.execPath, [CLI, "set", "piped", "-", "--text", "--path", FOLDER]);
    child.stdin.end("from a pipe\n");
    expect(await new Promise((resolve) => child.once("close", resolve))).toBe(0);
    expect(cache.get("piped")).toBe("from a pipe\n");
  });

  test("rm refuses a cache that somebody has open, unless it is forced", async () => {
    const kept = await cli("rm", NAME);
    expect([kept.status, kept.stdout]).toEqual([
      3,
      expect.stringMatching(/^kept {2}shop .* open in 1 thread; --force/),
    ]);
    expect((await documents("rm", NAME, "--dry-run", "--force"))[0]).toMatchObject([
      { removed: false, kept: "dry run" },
    ]);
    expect((await documents("ls"))[0]).toHaveLength(1);
    expect(await lines("rm", NAME, "--force")).toEqual([expect.stringMatching(/^removed {2}shop /)]);
    expect((await documents("ls"))[0]).toEqual([]);
    await refusal(1, "rm", NAME);
    openCache("unused", { path: FOLDER, size: "4mb" }).close();
    await lines("rm", "unused");
  });

  test("rm --all-stale removes files of other layouts, but not those that are open, and nothing else", async () => {
    const [file] = fs.readdirSync(FOLDER).filter((name) => /\.v\d+$/.test(name)) as [string];
    const stale = path.join(FOLDER, file.replace(/v\d+$/, "v1"));
    fs.writeFileSync(stale, Buffer.alloc(1 << 20), { mode: 0o600 });
    fs.writeFileSync(path.join(FOLDER, "note.txt"), "not a cache");
    expect((await documents("ls"))[0].map(({ state }: any) => state).sort()).toEqual(["current", "stale layout"]);
    expect(await lines("rm", "--all-stale", "--dry-run")).toEqual([
      expect.stringContaining(`would remove  shop  1 MiB  ${stale}`),
    ]);
    expect(fs.existsSync(stale)).toBe(true);
    expect((await documents("rm", "--all-stale"))[0]).toMatchObject([{ path: stale, removed: true }]);
    expect(fs.readdirSync(FOLDER).filter((name) => !name.includes(".bell."))).toEqual([file, "note.txt"].sort());
  });

  test("export writes the entries to a file, import adds them to another cache, also one that it creates", async () => {
    fill();
    const file = path.join(projects.folder, "entries.snapshot");
    expect((await documents("export", file))[0]).toMatchObject({ name: NAME, entries: 5, skipped: 0 });
    expect((await lines("import", NAME, file))[0]).toMatch(/^imported 0 entries, .*; 5 were there already$/);
    expect((await documents("import", "copy", file, "--size", "4mb"))[0]).toMatchObject({ entries: 5, damaged: 0 });
    expect(await documents("get", "copy", "user:1")).toEqual([{ name: "Ada", roles: ["admin"] }]);
    expect(await refusal(1, "import", "nope", file)).toContain("no cache");
    fs.truncateSync(file, fs.statSync(file).size - 10);
    const cut = await cli("import", "copy", file);
    expect([cut.status, cut.stdout]).toEqual([1, expect.stringContaining("the file ends too early")]);
    fs.writeFileSync(file, "something else");
    expect(await refusal(3, "import", NAME, file)).toContain("entries.snapshot");
    expect(await refusal(3, "import", NAME, `${file}.missing`)).toContain("missing");
  });

  test("import into a cache that is too small says how many entries found no room", async () => {
    const source = openCache("source", { path: FOLDER, size: "16mb" });
    for (let i = 0; i < 10_000; i++) source.set(`big:${i}`, `${i}`.padEnd(1000));
    source.close();
    const file = path.join(projects.folder, "large.snapshot");
    const [{ entries }] = await documents("export", "source", file);
    expect((await lines("import", "small", file, "--size", "1mb"))[0]).toMatch(
      /^imported [\d,]+ entries, .*; [\d,]+ found no room;/,
    );
    const [result] = await documents("import", "other", file, "--size", "1mb");
    expect(result.full).toBeGreaterThan(entries / 2);
    expect(result.entries + result.full).toBe(entries);
  });

  test("export and import work through a pipe", async () => {
    fill();
    openCache("copy", { path: FOLDER, size: "4mb" }).close();
    const run = `"$1" "$2" export ${NAME} - --path "$3" | "$1" "$2" import copy - --json --path "$3"`;
    const { status, stdout } = await execute("sh", ["-c", run, "sh", process.execPath, CLI, FOLDER], { cwd: root });
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ entries: 5, damaged: 0, truncated: false });
  });
});

describe("where the output goes", () => {
  test("a reader that has seen enough ends the command quietly", async () => {
    for (let i = 0; i < 20_000; i++) cache.set(`key ${i} ${"x".repeat(40)}`, i);
    const run = '{ "$1" "$2" keys --path "$3"; echo "ended with $?" >&2; } | head -n 1';
    const { stdout, stderr } = await execute("sh", ["-c", run, "sh", process.execPath, CLI, FOLDER], { cwd: root });
    expect(stdout).toMatch(/^key \d+ x+\n$/);
    expect(stderr).toBe("ended with 0\n");
  });

  test("a table fits into the terminal, and only a terminal gets colours", async () => {
    for (let i = 0; i < 3; i++)
      cache.set(`${i} ${"long ".repeat(100)} 日本語`, i, { tags: ["some tag", "another one ".repeat(9)] });
    const screen = await inTerminal(["keys", "-l"]);
    expect(screen).toContain("\x1b[1m");
    const plain = stripVTControlCharacters(screen).split("\n").slice(0, -1);
    expect(plain).toHaveLength(4);
    for (const line of plain) expect(line.length).toBeLessThanOrEqual(80);
    expect(plain[1]).toContain("…");
    expect(await inTerminal(["keys", "-l"], { NO_COLOR: "1" })).not.toContain("\x1b[");
    const piped = await lines("keys", "-l");
    expect(piped[1]?.length).toBeGreaterThan(500);
    expect(piped.join("")).not.toContain("…");
  });

  test("the help needs neither the engine nor the package", async () => {
    // Node.js writes down which modules it has run.
    const coverage = path.join(projects.folder, "coverage");
    const env = { NODE_V8_COVERAGE: coverage };
    const { stdout } = await execute(process.execPath, [CLI, "--help"], { cwd: root, env });
    expect(stdout).toContain("Usage: cache-machine");
    const [report] = fs.readdirSync(coverage) as [string];
    const { result } = JSON.parse(fs.readFileSync(path.join(coverage, report), "utf8"));
    const loaded = result.map(({ url }: { url: string }) => url).filter((url: string) => url.startsWith("file:"));
    expect(loaded).toEqual([pathToFileURL(CLI).href]);
    // The module itself names both only in import().
    expect(fs.readFileSync(CLI, "utf8")).not.toMatch(/from\s*"\.\.\/(index|inspect)\.js"/);
    expect(fs.statSync(CLI).size).toBeLessThan(150_000);
  });
});

test("the packed package has the command in an empty project: npx cache-machine", async () => {
  const project = await projects.installed("project");
  const npx = (...args: string[]) =>
    execute("npx", ["--no-install", "--no-update-notifier", "cache-machine", ...args, "--path", FOLDER], {
      cwd: project,
    });
  fill();
  expect((await npx("ls")).stdout).toContain("shop");
  expect(JSON.parse((await npx("get", "user:1", "--json")).stdout)).toEqual({ name: "Ada", roles: ["admin"] });
  expect((await npx("set", "from", '"npx"')).status).toBe(0);
  expect(cache.get("from")).toBe("npx");
  expect(fs.readFileSync(path.join(project, "node_modules/cache-machine/dist/cli/THIRD-PARTY.txt"), "utf8")).toMatch(
    /\nchalk 5[\s\S]*\ncommander 14/,
  );
});
