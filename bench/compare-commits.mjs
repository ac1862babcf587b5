/**
 * Compares the speed of the working tree with that of another commit. Both packages are measured in turns in one process, so
 * that the noise of the machine affects both. A ratio above 1 means that the working tree is slower.
 *
 *   npm run build && node --expose-gc bench/compare-commits.mjs [--ref HEAD~1] [--rounds 40] [--only get,set] [--write file.md]
 *
 * The other commit is extracted from git into a temporary folder, and installed and built there.
 */

import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const KEYS = 1000;
const MANY = 100_000;
const VALUE = "v".repeat(100);
const OBJECT = { id: 1, name: "Ada", tags: ["a", "b"], nested: { x: 1.5, y: [1, 2, 3] } };

const { values: flags } = parseArgs({
  options: {
    ref: { type: "string", default: "HEAD~1" },
    rounds: { type: "string", default: "40" },
    only: { type: "string" },
    write: { type: "string" },
  },
});
const rounds = Number(flags.rounds);

/** Builds the package of a commit in `folder`; the URL of its entry. */
function buildThere(ref, folder) {
  const { status } = spawnSync("sh", ["-c", `git archive ${ref} | tar x -C '${folder}'`], {
    cwd: ROOT,
    stdio: "inherit",
  });
  if (status !== 0) throw new Error(`git archive does not know the commit ${ref}`);
  const quiet = ["--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"];
  execFileSync("npm", ["ci", ...quiet], { cwd: folder, stdio: "inherit" });
  execFileSync(process.execPath, ["scripts/build.mjs"], { cwd: folder, stdio: "inherit" });
  return pathToFileURL(path.join(folder, "dist/index.js")).href;
}

const repeat = (calls, use) => () => {
  for (let i = 0; i < calls; i++) use(i);
};

/** The measured operations by name; each function performs its operation a fixed number of times. */
function uses({ createCache, openCache, destroyCache }, label) {
  const keys = Array.from({ length: KEYS }, (_, i) => `user:${i}:profile`);
  const objects = keys.map((key) => `object:${key}`);
  const far = createCache({ size: "32mb", nearCache: 0 });
  const near = createCache({ size: "32mb" });
  const frozen = createCache({ size: "32mb", frozenObjects: true });
  const many = createCache({ size: "64mb" });
  const manyFar = createCache({ size: "64mb", nearCache: 0 });
  for (const cache of [far, near, frozen]) {
    for (const key of keys) cache.set(key, VALUE);
    for (const key of objects) cache.set(key, OBJECT);
    for (let reads = 0; reads < 6; reads++) for (const key of [...keys, ...objects]) cache.get(key);
  }
  for (const cache of [many, manyFar]) {
    for (let i = 0; i < MANY; i++) cache.set(`key:${i}`, VALUE);
    for (let reads = 0; reads < 4; reads++) for (let i = 0; i < MANY; i++) cache.get(`key:${i}`);
  }
  let at = 0;
  // Visits all keys, in the same order for both packages.
  const next = () => (at = (at + 61_803) % MANY);
  const long = "x".repeat(80);
  for (const key of keys) far.set(key + long, VALUE);
  const name = `bench-before-${label}-${process.pid}`;
  return {
    "get, near": repeat(20_000, (i) => near.get(keys[i % KEYS])),
    "get, near, key built per call": repeat(20_000, (i) => near.get(`user:${i % KEYS}:profile`)),
    "get, near, an object": repeat(20_000, (i) => near.get(objects[i % KEYS])),
    "get, near, a frozen object": repeat(20_000, (i) => frozen.get(objects[i % KEYS])),
    "get, near cache off": repeat(20_000, (i) => far.get(keys[i % KEYS])),
    "get, near cache off, a key of 97 B": repeat(20_000, (i) => far.get(`user:${i % KEYS}:profile${long}`)),
    "get, near cache off, a miss": repeat(20_000, (i) => far.get(`absent:${i % KEYS}`)),
    "get, 100,000 keys": repeat(20_000, () => many.get(`key:${next()}`)),
    "get, 100,000 keys, near cache off": repeat(20_000, () => manyFar.get(`key:${next()}`)),
    set: repeat(10_000, (i) => far.set(keys[i % KEYS], VALUE)),
    "set, with tags": repeat(10_000, (i) => far.set(keys[i % KEYS], VALUE, { tags: ["a", "b"] })),
    "set, an object": repeat(5_000, (i) => far.set(keys[i % KEYS], OBJECT)),
    "set, 100,000 keys": repeat(10_000, () => manyFar.set(`key:${next()}`, VALUE)),
    increment: repeat(20_000, () => far.increment("count")),
    "open and close": repeat(5, () => openCache(name, { size: "1mb" }).close()),
    "create and destroy": repeat(2, () => {
      openCache(`${name}-new`, { size: "1mb" }).close();
      destroyCache(`${name}-new`);
    }),
    end: () => {
      for (const cache of [far, near, frozen, many, manyFar]) cache.close();
      destroyCache(name);
    },
  };
}

const CALLS = { "open and close": 5, "create and destroy": 2, "set, an object": 5_000 };
const callsOf = (name) => CALLS[name] ?? (name.startsWith("set") ? 10_000 : 20_000);

function quantile(times, part) {
  return times.sort((a, b) => a - b)[Math.floor(times.length * part)];
}

const folder = mkdtempSync(path.join(tmpdir(), "cache-machine-before-"));
try {
  const before = uses(await import(buildThere(flags.ref, folder)), "before");
  const after = uses(await import(pathToFileURL(path.join(ROOT, "dist/index.js")).href), "after");
  const only = flags.only?.split(",");
  const lines = [
    `The working tree compared with ${flags.ref}: ${rounds} rounds of each in turns, Node.js ${process.version}; 25th percentiles of the time per call.`,
    "",
    "| | before | working tree | ratio |",
    "|---|---:|---:|---:|",
  ];
  for (const name of Object.keys(after)) {
    if (name === "end" || (only !== undefined && !only.some((part) => name.includes(part)))) continue;
    const times = [[], []];
    for (let round = 0; round < rounds; round++) {
      // The two take turns at going first.
      for (const which of round % 2 === 0 ? [0, 1] : [1, 0]) {
        const since = process.hrtime.bigint();
        (which === 0 ? before : after)[name]();
        times[which].push(Number(process.hrtime.bigint() - since) / callsOf(name));
      }
    }
    const [was, is] = times.map((each) => quantile(each, 0.25));
    const ns = (time) =>
      time < 100_000 ? `${time.toFixed(time < 1000 ? 1 : 0)} ns` : `${(time / 1000).toFixed(0)} µs`;
    lines.push(`| ${name} | ${ns(was)} | ${ns(is)} | ${(is / was).toFixed(2)} |`);
    console.log(lines.at(-1));
  }
  before.end();
  after.end();
  if (flags.write !== undefined) writeFileSync(flags.write, `${lines.join("\n")}\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
