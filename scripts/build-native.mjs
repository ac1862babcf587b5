/**
 * Builds native/cache_machine.c for each processor. The binaries are committed, so that nobody needs a compiler to use the
 * package or to change the rest of it. A record of what they were built from is committed beside them, so that binaries
 * and source cannot drift apart unnoticed.
 *
 *   node scripts/build-native.mjs            build; write the binaries and their record
 *   node scripts/build-native.mjs --check    build again elsewhere and compare with what is committed
 *   node scripts/build-native.mjs --verify   compare the committed files with the record; needs no compiler
 *
 * The compilers are those of scripts/install-native-toolchain.sh.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { differences } from "./differences.mjs";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const SOURCE = "native/cache_machine.c";
const RECORD = "native/cache_machine.json";
const HOW = "run `sh scripts/install-native-toolchain.sh`";

/** The compiler and its flags for each processor, by Node.js's name of it. */
const TARGETS = {
  x64: { gnu: "x86_64-linux-gnu", flags: [] },
  // Atomics inline instead of calls into libgcc.
  arm64: { gnu: "aarch64-linux-gnu", flags: ["-mno-outline-atomics"] },
};

const FLAGS = [
  ...["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"],
  // Nothing is linked in: no C library, no start files, no helper functions of the compiler.
  ...["-ffreestanding", "-nostdlib", "-shared", "-fPIC", "-fvisibility=hidden", "-fno-stack-protector"],
  // No debug or build information, and the same bytes on each machine.
  ...["-s", "-fno-ident", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables", "-Wl,--build-id=none"],
  // A small file: otherwise sections with different access rights would begin at pages of their own.
  ...["-Wl,-z,noseparate-code", "-Wl,-z,norelro", "-Wl,--hash-style=gnu"],
  // The binary stays loaded until the process ends: a worker may be the first to load it, and other threads use it later.
  ...["-Wl,-z,nodelete", "-Wl,-z,now", "-Wl,-z,noexecstack"],
];

class BuildError extends Error {}

const artefactOf = (arch) => `native/cache_machine-linux-${arch}.node`;
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const read = (file) => readFileSync(join(ROOT, file));

const flagsFor = (arch) => [...FLAGS, ...TARGETS[arch].flags];

/** The hash of the source, and the flags of each build. */
function sourcesNow() {
  const flags = Object.keys(TARGETS).map((arch) => [`flags for ${arch}`, flagsFor(arch).join(" ")]);
  return { [SOURCE]: sha256(read(SOURCE)), ...Object.fromEntries(flags) };
}

/** Runs a program; answers what it prints. */
function run(command, args) {
  const { status, error, stdout, stderr } = spawnSync(command, args, {
    encoding: "utf8",
    env: { PATH: process.env.PATH, LC_ALL: "C" },
  });
  if (error?.code === "ENOENT") throw new BuildError(`there is no ${command}: ${HOW}`);
  if (status !== 0) throw new BuildError(`${command} failed${error ? `: ${error.message}` : `\n${stderr}`}`);
  return stdout;
}

/** Reads a table of `readelf -W`, as the words of its lines. */
function elf(file, table) {
  const lines = run("readelf", ["-W", table, file]).split("\n");
  return lines.map((line) => line.trim().split(/\s+/));
}

/** The symbols that a binary takes from the process that loads it, and those that it offers to that process. */
function symbolsOf(file) {
  const symbols = elf(file, "--dyn-syms").filter(([number, , , , bind]) => /^\d+:$/.test(number) && bind === "GLOBAL");
  const names = (wanted) =>
    symbols.filter(([, , , , , , section]) => (section === "UND") === wanted).map((row) => row[7]);
  return { imports: names(true).sort(), exports: names(false).sort() };
}

/** Builds in the folder `target`; answers the binaries and their record, and writes no committed file. */
function build(target) {
  const sources = sourcesNow();
  const binaries = {};
  const record = { binaries: {}, tools: {}, sources };
  for (const [arch, { gnu }] of Object.entries(TARGETS)) {
    const compiler = `${gnu}-gcc`;
    const out = join(target, `${arch}.node`);
    run(compiler, [...flagsFor(arch), "-o", out, join(ROOT, SOURCE)]);
    const libraries = elf(out, "--dynamic").filter(([, tag]) => tag === "(NEEDED)");
    if (libraries.length > 0) throw new BuildError(`${arch} needs other libraries: ${libraries.join("; ")}`);
    const { imports, exports } = symbolsOf(out);
    const foreign = imports.filter((name) => !name.startsWith("napi_"));
    if (foreign.length > 0) throw new BuildError(`${arch} needs what is not Node-API: ${foreign}`);
    const bytes = readFileSync(out);
    binaries[arch] = bytes;
    record.binaries[arch] = { sha256: sha256(bytes), size: bytes.length, imports, exports };
    record.tools[`${gnu}-gcc`] = run(compiler, ["--version"]).split("\n")[0];
    record.tools[`${gnu}-ld`] = run(`${gnu}-ld`, ["--version"]).split("\n")[0];
  }
  return { binaries, record };
}

function readRecord() {
  const missing = [RECORD, ...Object.keys(TARGETS).map(artefactOf)].find((file) => !existsSync(join(ROOT, file)));
  if (missing !== undefined) throw new BuildError(`${missing} is missing: npm run build:native`);
  return JSON.parse(read(RECORD).toString());
}

const STALE = "The committed binaries were built from other sources: run `npm run build:native` and commit the result.";

function verify() {
  const record = readRecord();
  const stale = differences(record.sources, sourcesNow());
  if (stale.length > 0) throw new BuildError([STALE, ...stale].join("\n  "));
  for (const arch of Object.keys(TARGETS)) {
    if (sha256(read(artefactOf(arch))) !== record.binaries[arch]?.sha256) {
      throw new BuildError(`${artefactOf(arch)} is not the binary that its record describes`);
    }
  }
  console.log("build-native: the committed binaries agree with their record and the sources");
}

function check() {
  const record = readRecord();
  const target = mkdtempSync(join(tmpdir(), "cache-machine-native-"));
  try {
    const built = build(target);
    const stale = differences(record.sources, built.record.sources);
    const problems = stale.length > 0 ? [STALE, ...stale] : [];
    for (const [arch, bytes] of Object.entries(built.binaries)) {
      if (!bytes.equals(read(artefactOf(arch))))
        problems.push(`The bytes of ${artefactOf(arch)} differ from what was built.`);
      if (JSON.stringify(built.record.binaries[arch]) !== JSON.stringify(record.binaries[arch])) {
        problems.push(`The record is wrong about ${arch}.`);
      }
    }
    const tools = differences(record.tools, built.record.tools);
    if (problems.length > 0) {
      if (stale.length === 0 && tools.length > 0) {
        problems.push(
          "The sources are the same but the tools are not: run `npm run build:native` with these and commit.",
        );
        problems.push(...tools);
      }
      throw new BuildError(problems.join("\n  "));
    }
    console.log("build-native: built again, the same bytes");
    if (tools.length > 0) console.warn(["build-native: only the tools differ from the record:", ...tools].join("\n  "));
  } finally {
    rmSync(target, { recursive: true, force: true });
  }
}

function write() {
  const target = mkdtempSync(join(tmpdir(), "cache-machine-native-"));
  try {
    const { binaries, record } = build(target);
    for (const [arch, bytes] of Object.entries(binaries)) writeFileSync(join(ROOT, artefactOf(arch)), bytes);
    writeFileSync(join(ROOT, RECORD), `${JSON.stringify(record, null, 2)}\n`);
    const sizes = Object.entries(binaries).map(([arch, bytes]) => `${arch} ${bytes.length} bytes`);
    console.log(`build-native: ${sizes.join(", ")}`);
  } finally {
    rmSync(target, { recursive: true, force: true });
  }
}

const COMMANDS = { "--check": check, "--verify": verify, "": write };

try {
  const command = COMMANDS[process.argv[2] ?? ""];
  if (command === undefined) throw new BuildError(`unknown option ${process.argv[2]}; there are --check and --verify`);
  command();
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  console.error(`build-native: ${error.message}`);
  process.exitCode = 1;
}
