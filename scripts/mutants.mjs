/**
 * Mutation testing: breaks one promise at a time, in a copy of the sources, and reports which test notices. The mutants are
 * listed in test/mutants/. The exit code is 1 if a mutant survives or cannot be tested, and 2 if the lists themselves are wrong.
 *
 *   npm run mutants -- --list
 *   npm run mutants -- --only stolen --seed 7
 *   npm run mutants -- --quick --part engine --part loom --part package
 *
 * Everything happens in a temporary folder. Every test run has a time limit; a run that exceeds it is killed with all its
 * processes, and the mutant counts as caught. The unchanged sources are tested first, because a failure says nothing about a
 * mutant if the unchanged sources fail too. With `--quick`, only the tests that the list names for a mutant run; otherwise the
 * rest of the tests run when those have noticed nothing.
 *
 * A name that matches nothing is an error, and never a verdict: `--only` and `--part`, the files of tests and their `filter`,
 * and the folders and files named below.
 *
 * The mutants of the engine are compiled into one program, because building takes longer than testing. Each function with a
 * mutant gets a broken copy beside it, which is called instead when the variable `MUTANT` has the mutant's number. `--scale` is
 * the variable `SCALE` of the engine's tests.
 */
import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { ENGINE, PACKAGE } from "../test/mutants/index.mjs";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
/** The files and folders that are copied. The tests of the package run in the copy as if it were the repository. */
const SOURCES = [
  "src",
  "native",
  "wasm",
  "test",
  "scripts",
  "package.json",
  "tsconfig.json",
  "vitest.config.ts",
  "README.md",
];
/** Folders inside those that are build output, and large. */
const BUILT = /(^|\/)(target|node_modules|dist)$/;
/**
 * The tests that run for a mutant of the package after its own tests have noticed nothing, quick ones first: beginnings of paths
 * below test/.
 */
const PACKAGE_SUITE = [
  "unit/errors",
  "unit/board",
  "unit/lock-file",
  "unit/file",
  "unit/mappings",
  "unit/private-file",
  "unit/memory",
  "host/places",
  "unit/codec",
  "contract/",
  "resources/resources",
  "model/",
  "hostile/hostile",
  "crash/",
];
/** Time limit of a test run: a multiple of the time for the unchanged sources, and the minimum. */
const PATIENCE = 4;
const MIN_LIMIT_MS = 30_000;
const BUILD_LIMIT_MS = 600_000;

const { values: options } = parseArgs({
  options: {
    only: { type: "string", multiple: true },
    part: { type: "string", multiple: true },
    list: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    seed: { type: "string", default: "2" },
    jobs: { type: "string", default: "1" },
    scale: { type: "string", default: "1" },
  },
});

/** The runner or the lists are at fault, not the code under test. */
class RunnerError extends Error {}

const processes = new Set();

function killAll() {
  for (const pid of processes) {
    try {
      process.kill(-pid, "SIGKILL");
    } catch {
      // Ended by itself.
    }
  }
}

/**
 * Runs a program in a process group of its own. The whole group is killed when the program ends, after `limit` milliseconds, or
 * when the output matches `until`.
 */
function run(command, args, { cwd, env, limit, until }) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, env, detached: true, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    let hung = false;
    let said = false;
    const collect = (text) => {
      // Only the end of the output is of interest.
      output = (output + text).slice(-4_000_000);
      if (said || !until?.test(output.slice(-text.length - 1000))) return;
      said = true;
      kill();
    };
    child.stdout.setEncoding("utf8").on("data", collect);
    child.stderr.setEncoding("utf8").on("data", collect);
    const kill = () => {
      try {
        process.kill(-child.pid, "SIGKILL");
      } catch {
        // The group has ended.
      }
    };
    const timer = setTimeout(() => {
      hung = true;
      kill();
    }, limit);
    child.once("error", reject);
    child.once("spawn", () => processes.add(child.pid));
    child.once("exit", kill);
    child.once("close", (code, signal) => {
      clearTimeout(timer);
      processes.delete(child.pid);
      resolve({ ok: code === 0 && !hung && !said, code, signal, hung, output });
    });
  });
}

/** The copy of the sources in which mutants are built and tested, one for each job. */
class Scratch {
  #home = mkdtempSync(join(tmpdir(), "cache-machine-mutants-"));
  #root = join(this.#home, "copy");
  // Beside the copy: projects that tests create there must not find the packages of the copy.
  #temporary = join(this.#home, "tmp");
  #env = {
    ...process.env,
    SEED: options.seed,
    SCALE: options.scale,
    RUST_BACKTRACE: "0",
    CARGO_TERM_COLOR: "never",
    // Nobody debugs these programs.
    CARGO_PROFILE_TEST_DEBUG: "0",
    NO_COLOR: "1",
    FORCE_COLOR: "0",
  };
  /** Milliseconds that each test run took with the unchanged sources. */
  #usual = new Map();
  /** The built test programs of the engine; the key says whether it is the one for loom. */
  #programs = {};

  constructor() {
    for (const name of SOURCES) {
      cpSync(join(ROOT, name), join(this.#root, name), { recursive: true, filter: (path) => !BUILT.test(path) });
    }
    symlinkSync(join(ROOT, "node_modules"), join(this.#root, "node_modules"));
    // What a mutant leaves without use is no error.
    const config = join(this.#root, "tsconfig.json");
    writeFileSync(config, readFileSync(config, "utf8").replace(/"(noUnused\w+)": true/g, '"$1": false'));
    mkdirSync(this.#temporary);
    // Files that killed tests leave behind are removed with the copy.
    this.#env.TMPDIR = this.#temporary;
    this.#env.CARGO_TARGET_DIR ??= join(this.#home, "target");
  }

  /** Applies a mutant's edits to the copy; returns a function that undoes them. */
  apply({ file, edits }) {
    const path = join(this.#root, file);
    const original = readFileSync(path, "utf8");
    this.#write(path, editedBy(original, edits));
    return () => this.#write(path, original);
  }

  #write(path, text) {
    writeFileSync(path, text);
    // cargo compares times of modification, so each write needs a new one.
    const now = new Date();
    utimesSync(path, now, now);
  }

  async #timed(what, command, args, rest = {}) {
    const usual = this.#usual.get(what);
    const limit = rest.limit ?? Math.max(MIN_LIMIT_MS, PATIENCE * (usual ?? 100_000));
    const start = performance.now();
    const result = await run(command, args, { cwd: this.#root, env: this.#env, ...rest, limit });
    if (usual === undefined && result.ok) this.#usual.set(what, performance.now() - start);
    return result;
  }

  /** Compiles all these mutants of the engine into the copy. */
  weave(mutants) {
    for (const file of new Set(mutants.map((mutant) => mutant.file))) {
      const path = join(this.#root, file);
      this.#write(
        path,
        woven(
          readFileSync(path, "utf8"),
          mutants.filter((mutant) => mutant.file === file),
        ),
      );
    }
    const lib = join(this.#root, "wasm/src/lib.rs");
    this.#write(lib, readFileSync(lib, "utf8") + WHICH);
  }

  /** Builds the engine's tests, or the models under loom; the path of the program. */
  async #buildEngine(loom) {
    const args = ["test", "--features", "faults", "--test", loom ? "loom" : "engine", "--no-run"];
    const env = { ...this.#env };
    if (loom) Object.assign(env, { RUSTFLAGS: "--cfg loom", CARGO_TARGET_DIR: `${env.CARGO_TARGET_DIR}-loom` });
    const cwd = join(this.#root, "wasm");
    const built = await run("cargo", [...args, "--message-format=json"], { cwd, env, limit: BUILD_LIMIT_MS });
    if (!built.ok) throw new RunnerError(`does not build:\n${readable(built.output)}`);
    return /.*"executable":"([^"]+)"/s.exec(built.output)[1];
  }

  /** Runs tests of the engine, without a filter all of them: how a test failed, undefined when none did. */
  async #testEngine(loom, filters, number = 0) {
    const program = await (this.#programs[loom] ??= this.#buildEngine(loom));
    const env = { ...this.#env, MUTANT: String(number), LOOM_SECONDS: process.env.LOOM_SECONDS ?? "10" };
    const rest = { cwd: join(this.#root, "wasm"), env, until: /^test \S+(?: - should panic)? \.\.\. FAILED$/m };
    const result = await this.#timed(`${loom} ${filters}`, program, filters, rest);
    if (/^running 0 tests$/m.test(result.output)) throw new RunnerError(`no test has ${filters} in its name`);
    return result.ok ? undefined : complaintOfEngine(result);
  }

  async engine({ first = [], loom = false, number }) {
    for (const filter of first) {
      const caught = await this.#testEngine(loom, [filter], number);
      if (caught !== undefined) return { caught };
    }
    return { caught: options.quick ? undefined : await this.#testEngine(loom, [], number) };
  }

  /** Runs files of tests of the package until a test fails: how it failed, undefined when none did. */
  async #testPackage(files, filter) {
    for (const file of files) {
      const report = join(this.#temporary, "report.json");
      rmSync(report, { force: true });
      const args = [join(this.#root, "node_modules/vitest/vitest.mjs"), "run", file, "--bail=1"];
      args.push("--reporter=json", `--outputFile=${report}`);
      if (filter !== undefined) args.push("-t", filter);
      const result = await this.#timed(`${file} ${filter}`, process.execPath, args);
      if (!result.ok) return complaintOfPackage(result, report, file);
      // Vitest ends with 0 when no test matches.
      const { numPassedTests } = JSON.parse(readFileSync(report, "utf8"));
      if (numPassedTests === 0)
        throw new RunnerError(`no test of ${file} ran${filter ? ` for the filter "${filter}"` : ""}`);
    }
    return undefined;
  }

  #packageSuite() {
    const all = testFiles();
    return PACKAGE_SUITE.flatMap((start) => all.filter((file) => file.startsWith(`test/${start}`)));
  }

  /** Builds the native part of the copy from its source. */
  async #buildNative() {
    const built = await this.#timed("native", process.execPath, ["scripts/build-native.mjs"], {
      limit: BUILD_LIMIT_MS,
    });
    if (!built.ok) throw new RunnerError(`does not build:\n${readable(built.output)}`);
  }

  async package({ first = [], filter, file }) {
    const native = file?.startsWith("native/") ?? false;
    if (native) await this.#buildNative();
    try {
      return await this.#packageBuilt({ first, filter });
    } finally {
      if (native) cpSync(join(ROOT, "native"), join(this.#root, "native"), { recursive: true });
    }
  }

  async #packageBuilt({ first = [], filter }) {
    const built = await this.#timed("build", process.execPath, ["scripts/build.mjs"], { limit: BUILD_LIMIT_MS });
    if (!built.ok) throw new RunnerError(`does not build:\n${readable(built.output)}`);
    const rest = this.#packageSuite().filter((file) => filter !== undefined || !first.includes(file));
    const caught = await this.#testPackage(first, filter);
    return { caught: caught ?? (options.quick ? undefined : await this.#testPackage(rest)) };
  }

  test(mutant) {
    return mutant.part === "engine" ? this.engine(mutant) : this.package(mutant);
  }

  remove() {
    rmSync(this.#home, { recursive: true, force: true });
  }
}

/** All files of tests of the package, as paths from the root. */
function testFiles() {
  const names = readdirSync(join(ROOT, "test"), { recursive: true }).filter((name) => name.endsWith(".test.ts"));
  return names.map((name) => `test/${name}`).sort();
}

/** The errors of the compiler in cargo's JSON; the beginning of any other output. */
function readable(output) {
  const rendered = [...output.matchAll(/"rendered":("(?:[^"\\]|\\.)*")/g)].map((match) => JSON.parse(match[1]));
  return (rendered.length > 0 ? rendered.filter((text) => text.startsWith("error")).join("") : output).slice(0, 4000);
}

/** The name of the test that failed, or how the program ended. */
function complaintOfEngine({ hung, signal, output, code }) {
  if (hung) return "hang";
  const failed =
    /^test (\S+)(?: - should panic)? \.\.\. FAILED$/m.exec(output) ?? /^---- (\S+) stdout ----$/m.exec(output);
  if (failed !== null) return failed[1];
  const watched = /^watchdog: (\S+) hangs$/m.exec(output);
  if (watched !== null) return `${watched[1]} (watchdog)`;
  return signal === null ? `exit code ${code}` : `a crash (${signal})`;
}

function complaintOfPackage({ hung, signal, code, output }, report, file) {
  if (hung) return `${file}: hang`;
  try {
    const { testResults } = JSON.parse(readFileSync(report, "utf8"));
    for (const { assertionResults } of testResults) {
      const failed = assertionResults.find(({ status }) => status === "failed");
      if (failed !== undefined) return `${file}: ${failed.fullName}`;
    }
  } catch {
    // The process ended before it wrote a report.
  }
  if (/Unhandled (Errors|Rejection)/.test(output)) return `${file}: an unhandled error`;
  return signal === null ? `${file}: exit code ${code}` : `${file}: a crash (${signal})`;
}

/** Rust code for the engine: the number of the mutant that is in force; 0 is none. */
const WHICH = `
pub(crate) fn mutant() -> u32 {
    static WHICH: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *WHICH.get_or_init(|| std::env::var("MUTANT").map_or(0, |number| number.parse().unwrap()))
}
`;

/** The position of the bracket that closes the one at `at`. */
function closing(text, at) {
  for (let depth = 0, i = at; i < text.length; i++) {
    if ("([{".includes(text[i])) depth++;
    else if (")]}".includes(text[i]) && --depth === 0) return i;
  }
  throw new RunnerError(`a bracket stays open: ${text.slice(at, at + 80)}`);
}

/** The functions of a Rust file that rustfmt has formatted: where each begins and ends, and how its copy is called. */
function functionsOf(text) {
  const heads = /^( *)(?:pub(?:\([a-z]+\))? )?((?:const |unsafe )*)fn (\w+)/gm;
  return [...text.matchAll(heads)].map(({ 0: head, 1: indent, 2: qualifiers, 3: name, index }) => {
    const open = text.indexOf("(", index + head.length);
    const close = closing(text, open);
    const body = text.indexOf("{\n", close);
    const parameters = text.slice(open + 1, close);
    const names = [...parameters.matchAll(/(?:^|,)\s*(?:mut )?(\w+|\([\w, ]+\)): /g)].map((each) => each[1]);
    const own = /^\s*&?(?:'\w+ )?(?:mut )?self\b/.test(parameters);
    const call = (to) => {
      const called = `${own ? "self." : indent === "" ? "" : "Self::"}${to}(${names.join(", ")})`;
      return qualifiers.includes("unsafe") ? `unsafe { ${called} }` : called;
    };
    return { name, start: index, body: body + 2, end: closing(text, body) + 1, call };
  });
}

/** The text of a Rust file with all these mutants in it; `MUTANT` selects one of them when the program runs. */
function woven(text, mutants) {
  const functions = functionsOf(text).reverse();
  const broken = new Map(functions.map((each) => [each, []]));
  for (const { name, number, edits } of mutants) {
    for (const edit of edits) {
      const at = text.indexOf(edit[0]);
      const around = functions.find(({ start, end }) => start <= at && at + edit[0].length <= end);
      if (around === undefined) throw new RunnerError(`${name} is not inside of a function`);
      const copies = broken.get(around);
      const copy = copies.find((each) => each.number === number);
      if (copy === undefined) copies.push({ number, edits: [edit] });
      else copy.edits.push(edit);
    }
  }
  let result = text;
  for (const each of functions) {
    const original = text.slice(each.start, each.end);
    const copies = broken.get(each);
    if (copies.length === 0) continue;
    // A function that reads the variable cannot be `const`.
    const plain = (source) => source.replace(/^( *(?:pub(?:\([a-z]+\))? )?)const /, "$1");
    const called = (number) => `${each.name}_mutant_${number}`;
    const calls = copies.map(
      ({ number }) => `if crate::mutant() == ${number} { return ${each.call(called(number))}; }\n`,
    );
    const broke = copies.map(({ number, edits }) =>
      plain(editedBy(original, edits)).replace(`fn ${each.name}`, `fn ${called(number)}`),
    );
    const head = plain(text.slice(each.start, each.body));
    const switched = `${head}${calls.join("")}${text.slice(each.body, each.end)}`;
    result = `${result.slice(0, each.start)}${[switched, ...broke].join("\n\n")}${result.slice(each.end)}`;
  }
  return result;
}

function editedBy(text, edits) {
  return edits.reduce((edited, [find, replace]) => {
    const parts = edited.split(find);
    if (parts.length !== 2) throw new RunnerError(`no longer applies: found ${parts.length - 1} times:\n${find}`);
    return parts.join(replace);
  }, text);
}

/** What is wrong with the names in this file and in the lists, apart from the texts that mutants replace. */
function wrongNames(mutants) {
  const problems = [];
  const files = testFiles();
  for (const name of SOURCES) if (!existsSync(join(ROOT, name))) problems.push(`SOURCES: there is no ${name}`);
  for (const start of PACKAGE_SUITE) {
    if (!files.some((file) => file.startsWith(`test/${start}`)))
      problems.push(`PACKAGE_SUITE: no test is test/${start}…`);
  }
  for (const { name, part, first = [], filter } of mutants) {
    if (first.length === 0) problems.push(`${name}: names no test`);
    if (part === "engine") continue;
    for (const file of first) if (!files.includes(file)) problems.push(`${name}: there is no ${file}`);
    if (filter === "") problems.push(`${name}: an empty filter matches every test`);
  }
  const chooses = {
    only: (value) => mutants.some(({ name }) => name.includes(value)),
    part: (value) => ["engine", "loom", "package"].includes(value),
  };
  for (const [option, isKnown] of Object.entries(chooses)) {
    for (const value of options[option] ?? [])
      if (!isKnown(value)) problems.push(`--${option} ${value}: matches no mutant`);
  }
  return problems;
}

/** The chosen mutants. Whatever is wrong with the lists is reported before anything is built. */
function prepare() {
  const mutants = [
    ...ENGINE.map((mutant) => ({ ...mutant, part: "engine" })),
    ...PACKAGE.map((mutant) => ({ ...mutant, part: "package" })),
  ].map(({ find, replace, also = [], ...mutant }, i) => ({
    ...mutant,
    number: i + 1,
    edits: [[find, replace], ...also],
  }));
  const problems = wrongNames(mutants);
  const names = new Set();
  for (const { name, file, edits } of mutants) {
    if (names.has(name)) problems.push(`${name}: listed twice`);
    names.add(name);
    try {
      editedBy(readFileSync(join(ROOT, file), "utf8"), edits);
    } catch (error) {
      problems.push(`${name} in ${file}: ${error.message}`);
    }
  }
  if (problems.length > 0) throw new RunnerError(problems.join("\n"));
  const { only, part: parts } = options;
  const chosen = mutants
    .filter(({ name }) => only === undefined || only.some((part) => name.includes(part)))
    .filter(({ part, loom = false }) => parts === undefined || parts.includes(loom ? "loom" : part));
  if (chosen.length === 0) throw new RunnerError("--only and --part: no mutant has such a name and is of such a part");
  return chosen;
}

const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(0)} s`;

/** Runs all tests that will run for the mutants with the unchanged sources first, and measures how long each run takes. */
async function baseline(scratch, mutants) {
  const parts = new Set(mutants.map(({ part, loom = false }) => `${part} ${loom}`));
  const complain = ({ caught }) => {
    if (caught !== undefined) throw new RunnerError(`the unchanged sources fail: ${caught}`);
  };
  const named = (part, loom) =>
    options.quick
      ? [...new Set(mutants.flatMap((it) => (it.part === part && (it.loom ?? false) === loom ? it.first : [])))]
      : [];
  scratch.weave(mutants.filter(({ part }) => part === "engine"));
  for (const loom of [false, true])
    if (parts.has(`engine ${loom}`)) complain(await scratch.engine({ first: named("engine", loom), loom }));
  if (parts.has("package false")) complain(await scratch.package({ first: named("package", false) }));
}

async function main() {
  const mutants = prepare();
  if (options.list) {
    for (const { name, breaks, file, what } of mutants) console.log(`${name}  [${breaks}] ${file}: ${what}`);
    return;
  }
  const started = performance.now();
  console.log(`${mutants.length} mutants, --seed ${options.seed}`);
  const scratches = [];
  const results = [];
  process.once("exit", () => {
    killAll();
    for (const scratch of scratches) scratch.remove();
  });
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(130));

  const queue = [...mutants];
  let done = 0;
  const work = async () => {
    const scratch = new Scratch();
    scratches.push(scratch);
    await baseline(scratch, mutants);
    console.log(`${seconds(started).padStart(7)}  the unchanged sources pass`);
    for (let mutant = queue.shift(); mutant !== undefined; mutant = queue.shift()) {
      const start = performance.now();
      const undo = mutant.part === "package" ? scratch.apply(mutant) : () => {};
      let outcome;
      try {
        outcome = await scratch.test(mutant);
      } catch (error) {
        if (!(error instanceof RunnerError)) throw error;
        outcome = { broken: error.message };
      }
      undo();
      const { caught, broken } = outcome;
      const verdict = broken ? "BROKEN" : caught === undefined ? "SURVIVED" : "caught";
      const by = broken ?? caught ?? "";
      results.push({ mutant: mutant.name, breaks: mutant.breaks, verdict, by, time: seconds(start) });
      done++;
      const line = `${seconds(started).padStart(7)}  ${String(done).padStart(3)}/${mutants.length}  ${verdict.padEnd(8)}`;
      console.log(`${line}  ${mutant.name}${by === "" ? "" : ` ← ${by}`}  (${seconds(start)})`);
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, Number(options.jobs)) }, work));

  console.log("");
  const width = (key) => Math.max(...results.map((result) => result[key].length));
  const [names, promises] = [width("mutant"), width("breaks")];
  for (const { mutant, breaks, verdict, by, time } of results) {
    const first = by.split("\n", 1)[0];
    console.log(
      `${verdict.padEnd(8)}  ${mutant.padEnd(names)}  ${breaks.padEnd(promises)}  ${time.padStart(5)}  ${first}`,
    );
  }
  const count = (verdict) => results.filter((result) => result.verdict === verdict).length;
  console.log(
    `\n${count("caught")} caught, ${count("SURVIVED")} survived, ` +
      `${count("BROKEN")} could not be tested, in ${seconds(started)}`,
  );
  process.exitCode = count("SURVIVED") + count("BROKEN") > 0 ? 1 : 0;
}

try {
  await main();
} catch (error) {
  if (!(error instanceof RunnerError)) throw error;
  console.error(`mutants: ${error.message}`);
  process.exitCode = 2;
}
