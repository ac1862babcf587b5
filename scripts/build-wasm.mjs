/**
 * Builds the Rust crate in wasm/ to wasm/cache_machine.wasm, which is committed so that nobody needs Rust to use or to
 * change the TypeScript side, together with a record of what it was built from, so that it cannot drift unnoticed.
 *
 *   node scripts/build-wasm.mjs            build; write the module, its record and src/exports.ts
 *   node scripts/build-wasm.mjs --check    build again elsewhere and compare with what is committed
 *   node scripts/build-wasm.mjs --verify   compare the committed files with the record; needs no Rust
 *
 * The module is linked as if its memory were not shared and becomes shared afterwards: a linker that is told of the
 * shared memory adds a start function with a lock that has no owner, and one terminated worker would then block every
 * later start. The host gives each instance its own stack through the exported `__stack_pointer`.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { delimiter, dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const CRATE = join(ROOT, "wasm");
const ARTEFACT = join(CRATE, "cache_machine.wasm");
const RECORD = `${ARTEFACT}.json`;
const EXPORTS_TS = join(ROOT, "src", "exports.ts");
const TOOLS = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "cache-machine", "tools");

const WASM_PACK = "0.15.1";
const WASM_BINDGEN = "0.2.130";

/** The only module imported from, for the memory and for the functions of the host. */
const HOST = "host";
/** The linker's globals that the host needs: to place the stack of each instance, and to know where private data ends. */
const LINKER_GLOBALS = ["__stack_pointer", "__heap_base"];
/** What wasm-bindgen's runtime exports whether used or not. The start only zeroes the .bss, which nothing here uses. */
const BINDGEN_LEFTOVERS = ["__abort_handler", "__instance_terminated", "__wbindgen_start"];

/** `mvp` plus a list, so that a newer compiler does not turn on more than what every supported host has. */
const TARGET_FEATURES = ["atomics", "bulk-memory", "mutable-globals", "sign-ext", "nontrapping-fptoint"];
const WASM_OPT_FLAGS = [
  "-O3",
  // Both evaluate `atomic.fence` at compile time, to nothing, and so remove it. LLVM has folded the constants already.
  "--skip-pass=precompute",
  "--skip-pass=precompute-propagate",
  // Merges equal tails of branches: harmless, but then counting could not prove that no atomic got lost.
  "--skip-pass=code-folding",
  "--mvp-features",
  "--enable-threads",
  "--enable-bulk-memory",
  "--enable-bulk-memory-opt",
  "--enable-mutable-globals",
  "--enable-sign-ext",
  "--enable-nontrapping-float-to-int",
];

const MISSING_TOOLCHAIN = `No Rust toolchain that can build the WebAssembly module with atomics was found. One of these is needed:

  Debian:     sudo sh scripts/install-wasm-toolchain.sh
              (apt-get install rustc-web cargo-web rust-web-src lld-22)
  elsewhere:  rustup toolchain install nightly --component rust-src

To use the committed module none of it is needed.`;

class BuildError extends Error {}

// ---- toolchain ------------------------------------------------------------------------------------------------------

function output(command, args, env = process.env) {
  const { status, stdout } = spawnSync(command, args, { encoding: "utf8", env, stdio: ["ignore", "pipe", "ignore"] });
  return status === 0 ? stdout.trim() : undefined;
}

/** The toolchain in `bin`, if it has the sources of its own core library. */
function toolchainIn(bin) {
  const rustc = join(bin, "rustc");
  const verbose = output(rustc, ["--version", "--verbose"]);
  const cargo = output(join(bin, "cargo"), ["--version"]);
  const sysroot = output(rustc, ["--print", "sysroot"]);
  if (verbose === undefined || cargo === undefined || sysroot === undefined) return undefined;
  if (!existsSync(join(sysroot, "lib", "rustlib", "src", "rust", "library", "core"))) return undefined;
  const field = (name) => new RegExp(`^${name}: (.*)$`, "m").exec(verbose)?.[1] ?? "";
  const linker = linkerFor(sysroot, field("host"), Number.parseInt(field("LLVM version"), 10));
  return linker && { bin, sysroot, linker, versions: { rustc: verbose.split("\n")[0], cargo } };
}

/** rustc's own linker, else the wasm-ld of the same LLVM, else the newest one, else any rust-lld. */
function linkerFor(sysroot, host, llvm) {
  const folders = (process.env.PATH ?? "").split(delimiter);
  const numbered = folders.flatMap((folder) => {
    const names = existsSync(folder) ? readdirSync(folder).filter((each) => /^wasm-ld(-\d+)?$/.test(each)) : [];
    return names.map((each) => ({ path: join(folder, each), version: Number(each.split("-")[2] ?? 0) }));
  });
  numbered.sort((a, b) => Number(b.version === llvm) - Number(a.version === llvm) || b.version - a.version);
  const candidates = [
    join(sysroot, "lib", "rustlib", host, "bin", "rust-lld"),
    ...numbered.map((each) => each.path),
    ...folders.map((folder) => join(folder, "rust-lld")),
  ];
  for (const path of candidates) {
    const version = output(path, [...(path.endsWith("rust-lld") ? ["-flavor", "wasm"] : []), "--version"]);
    if (version !== undefined) return { path, version };
  }
  return undefined;
}

function findToolchain() {
  const nightly = output("rustup", ["which", "--toolchain", "nightly", "rustc"]);
  const toolchain = toolchainIn("/usr/bin") ?? (nightly && toolchainIn(dirname(nightly)));
  if (!toolchain) throw new BuildError(MISSING_TOOLCHAIN);
  return toolchain;
}

/** The folder of the wanted version of a tool, installed into .tools when it is not on the PATH. */
function toolFolder(command, crate, version, env) {
  const here = join(TOOLS, "bin");
  for (const directory of [here, ...(process.env.PATH ?? "").split(delimiter)]) {
    if (output(join(directory, command), ["--version"])?.split(" ")[1] === version) return directory;
  }
  const args = ["install", crate, "--version", version, "--root", TOOLS];
  console.log(`build-wasm: installing ${crate} ${version} into .tools (once, some minutes)`);
  if (spawnSync("cargo", [...args, "--locked"], { env, stdio: "inherit" }).status === 0) return here;
  // A registry may lack one of the versions that the crate was locked to. The version of the tool itself stays pinned,
  // and a difference in what it writes would show in the bytes, which --check compares.
  console.warn(`build-wasm: ${crate} ${version} cannot be installed with its own lock file; resolving it anew`);
  if (spawnSync("cargo", args, { env, stdio: "inherit" }).status === 0) return here;
  throw new BuildError(`${crate} ${version} could not be installed; see above`);
}

/** The environment without what would be added to, or used in place of, what is pinned here. */
function cleanEnvironment(toolchain) {
  const meddling =
    /^(RUSTC|RUSTDOC|RUSTFLAGS|CARGO|RUSTUP_TOOLCHAIN|CARGO_(BUILD|PROFILE|TARGET|ENCODED|UNSTABLE)_.*|RUSTC_.*)$/;
  const env = Object.fromEntries(Object.entries(process.env).filter(([variable]) => !meddling.test(variable)));
  return { ...env, PATH: [toolchain.bin, env.PATH].join(delimiter) };
}

function buildFlags(toolchain, target) {
  const cargoHome = process.env.CARGO_HOME ?? join(homedir(), ".cargo");
  const flags = [
    ["-C", "target-cpu=mvp"],
    ["-C", `target-feature=${TARGET_FEATURES.map((feature) => `+${feature}`).join(",")}`],
    // A panic is a trap: no message is formatted, so none is kept in the module's data.
    ["-Z", "unstable-options"],
    ["-C", "panic=immediate-abort"],
    ["-C", `linker=${toolchain.linker.path}`],
    ...[
      "--import-memory",
      "--max-memory=4294967296",
      ...LINKER_GLOBALS.map((name) => `--export=${name}`),
      "-zstack-size=16384",
      `-Map=${join(target, "link.map")}`,
    ].map((argument) => ["-C", `link-arg=${argument}`]),
    ["--remap-path-prefix", `${CRATE}=/wasm`],
    ["--remap-path-prefix", `${cargoHome}=/cargo`],
    ["--remap-path-prefix", `${toolchain.sysroot}/lib/rustlib/src/rust=/rust`],
  ];
  return { RUSTC_BOOTSTRAP: "1", CARGO_TARGET_DIR: target, CARGO_ENCODED_RUSTFLAGS: flags.flat().join("\x1f") };
}

// ---- the binary format: sections, and as much of their inside as has to be changed ----------------------------------

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }
  get done() {
    return this.at >= this.bytes.length;
  }
  byte() {
    return this.bytes[this.at++];
  }
  u32() {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  }
  take(length) {
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }
  name() {
    return new TextDecoder().decode(this.take(this.u32()));
  }
  /** The value of an initialiser that has to be `i32.const n; end`. */
  constant() {
    if (this.byte() !== 0x41) throw new BuildError("an initialiser is not an i32 constant");
    const start = this.at;
    while (this.byte() >= 0x80);
    let value = 0n;
    for (let at = this.at - 1; at >= start; at--) value = (value << 7n) | BigInt(this.bytes[at] & 0x7f);
    if (this.byte() !== 0x0b) throw new BuildError("an initialiser is not a single constant");
    return Number(BigInt.asUintN(32, BigInt.asIntN(7 * (this.at - 1 - start), value)));
  }
}

const u32 = (value) => {
  const bytes = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest % 128) | 0x80);
  }
};
const name = (text) => [...u32(Buffer.byteLength(text)), ...Buffer.from(text)];
/** Padded to five bytes, so that no bit of an address below 2 GiB is taken for the sign. */
const constant = (value) => [
  0x41,
  ...[0, 7, 14, 21, 28].map((s, i) => ((value >>> s) & 0x7f) | (i < 4 ? 0x80 : 0)),
  0x0b,
];
const vector = (items) => [...u32(items.length), ...items.flat()];

const SECTION = { CUSTOM: 0, IMPORT: 2, GLOBAL: 6, EXPORT: 7, START: 8, DATA: 11, DATA_COUNT: 12 };
const KIND = ["function", "table", "memory", "global"];
const MEMORY = 2;
const GLOBAL = 3;

function readSections(bytes) {
  const reader = new Reader(bytes);
  if (Buffer.compare(reader.take(8), Buffer.from("\0asm\x01\0\0\0", "latin1")) !== 0)
    throw new BuildError("not a wasm module");
  const sections = [];
  while (!reader.done) sections.push({ id: reader.byte(), body: reader.take(reader.u32()) });
  return sections;
}

function writeSections(sections) {
  const parts = sections.map(({ id, body }) => Buffer.from([id, ...u32(body.length), ...body]));
  return Buffer.concat([Buffer.from("\0asm\x01\0\0\0", "latin1"), ...parts]);
}

function readVector(sections, id, item) {
  const body = sections.find((section) => section.id === id)?.body;
  if (body === undefined) return [];
  const reader = new Reader(body);
  return Array.from({ length: reader.u32() }, () => {
    const start = reader.at;
    const value = item(reader);
    return { ...value, bytes: [...body.subarray(start, reader.at)] };
  });
}

const readImports = (sections) =>
  readVector(sections, SECTION.IMPORT, (reader) => {
    const entry = { module: reader.name(), name: reader.name(), kind: reader.byte() };
    if (entry.kind === MEMORY) {
      entry.limits = reader.byte();
      entry.initial = reader.u32();
      entry.maximum = entry.limits & 1 ? reader.u32() : undefined;
    } else if (entry.kind === GLOBAL) {
      reader.take(2);
    } else if (entry.kind === 0) {
      reader.u32();
    } else {
      throw new BuildError(`the module imports a ${KIND[entry.kind] ?? "tag"}: ${entry.module}.${entry.name}`);
    }
    return entry;
  });

const readExports = (sections) =>
  readVector(sections, SECTION.EXPORT, (reader) => ({ name: reader.name(), kind: reader.byte(), index: reader.u32() }));

const readGlobals = (sections) =>
  readVector(sections, SECTION.GLOBAL, (reader) => ({
    type: reader.byte(),
    mutable: reader.byte() === 1,
    value: reader.constant(),
  }));

const readData = (sections) =>
  readVector(sections, SECTION.DATA, (reader) => {
    if (reader.u32() !== 0) throw new BuildError("a data segment is not an active one of memory 0");
    return { offset: reader.constant(), length: reader.take(reader.u32()).length };
  });

/** The value of an exported constant of the linked module. */
function linkedGlobal(bytes, wanted) {
  const sections = readSections(bytes);
  const index = readExports(sections).find((entry) => entry.name === wanted && entry.kind === GLOBAL)?.index;
  if (index === undefined) throw new BuildError(`the linked module does not export ${wanted}`);
  return readGlobals(sections)[index].value;
}

/**
 * From what wasm-bindgen leaves to what is shipped: the memory is shared and imported from the host's module, the
 * runtime's unused exports and data are gone, as are names, and `__heap_base`, which wasm-bindgen removes, is back.
 */
function putInOrder(bytes, { heapBase, constants }) {
  const sections = readSections(bytes);
  if (sections.some(({ id }) => id === SECTION.DATA_COUNT))
    throw new BuildError("the module has passive data segments");

  const imports = readImports(sections).map((entry) => {
    if (entry.kind !== MEMORY) return entry.bytes;
    if (entry.limits !== 0x01) throw new BuildError(`the imported memory has the limits flag ${entry.limits}, not 1`);
    return [...name(HOST), ...name("memory"), MEMORY, 0x03, ...u32(entry.initial), ...u32(entry.maximum)];
  });
  const globals = readGlobals(sections).map((entry) => entry.bytes);
  const exported = readExports(sections).filter((entry) => !BINDGEN_LEFTOVERS.includes(entry.name));
  const exports = exported.map((entry) => entry.bytes);
  exports.push([...name("__heap_base"), GLOBAL, ...u32(globals.length)]);
  globals.push([0x7f, 0, ...constant(heapBase)]);
  const data = readData(sections).filter(({ offset }) => offset >= constants.start && offset < constants.end);

  const changed = new Map([
    [SECTION.IMPORT, vector(imports)],
    [SECTION.GLOBAL, vector(globals)],
    [SECTION.EXPORT, vector(exports)],
    [SECTION.DATA, vector(data.map((entry) => entry.bytes))],
  ]);
  const kept = sections.filter(({ id }) => id !== SECTION.CUSTOM);
  return writeSections(kept.map(({ id, body }) => ({ id, body: changed.get(id) ?? body })));
}

/**
 * Where the linker put the constants. Everything else in the module's data has to belong to wasm-bindgen's runtime: a
 * mutable static of the engine would be shared by all threads and written anew by each of them on instantiation.
 */
function readLinkMap(map) {
  const constants = { start: 0, end: 0 };
  let section = "";
  for (const line of map.split("\n")) {
    const [, address, size, text] = /^\s*([0-9a-f]+|-)\s+[0-9a-f]+\s+([0-9a-f]+)(\s+.*)$/.exec(line) ?? [];
    if (text === undefined) continue;
    const output = /^ ([.\w]+)$/.exec(text);
    if (output) {
      section = output[1];
      if (section === ".rodata") {
        constants.start = Number.parseInt(address, 16);
        constants.end = constants.start + Number.parseInt(size, 16);
      }
    } else if (
      [".data", ".bss", ".tdata", ".tbss"].includes(section) &&
      /:\(\./.test(text) &&
      !/libwasm_bindgen-/.test(text)
    ) {
      throw new BuildError(`the module has mutable data, which no instance may have:\n  ${text.trim()}`);
    }
  }
  return constants;
}

// ---- what the result has to be --------------------------------------------------------------------------------------

/** Throws unless `bytes` is a module as the engine's host expects it; answers what the record says of it. */
async function inspect(bytes) {
  const demand = (condition, message) => {
    if (!condition) throw new BuildError(`the built module is wrong: ${message}`);
  };
  new WebAssembly.Module(bytes);
  const sections = readSections(bytes);
  demand(!sections.some(({ id }) => id === SECTION.START), "it has a start function");
  demand(!sections.some(({ id }) => id === SECTION.CUSTOM), "it has custom sections");

  const imports = readImports(sections);
  for (const entry of imports) demand(entry.module === HOST, `it imports ${entry.module}.${entry.name}`);
  const memory = imports.find((entry) => entry.kind === MEMORY);
  demand(memory?.limits === 0x03, "its memory is not imported and shared");
  demand(
    imports.every((entry) => entry === memory || entry.kind === 0),
    "it imports more than a memory and functions",
  );

  const globals = readGlobals(sections);
  const exports = readExports(sections);
  const exportedGlobals = exports.filter((entry) => entry.kind === GLOBAL).map((entry) => entry.name);
  demand(
    exportedGlobals.sort().join() === [...LINKER_GLOBALS].sort().join(),
    `it exports the globals ${exportedGlobals}`,
  );
  const global = (wanted) => globals[exports.find((entry) => entry.name === wanted).index];
  demand(global("__stack_pointer").mutable, "__stack_pointer is not mutable");
  for (const entry of exports)
    demand(entry.kind === 0 || entry.kind === GLOBAL, `it exports the ${KIND[entry.kind]} ${entry.name}`);
  for (const entry of exports.filter((each) => each.kind === 0))
    demand(!entry.name.startsWith("__"), `it exports ${entry.name}`);

  const segments = readData(sections);
  const heapBase = global("__heap_base").value;
  const dataEnd = Math.max(global("__stack_pointer").value, ...segments.map(({ offset, length }) => offset + length));
  demand(dataEnd <= heapBase, "its data reaches past __heap_base");

  const instructions = await countInstructions(bytes);
  // A core library compiled without atomics turns them into plain accesses, and says nothing.
  demand(
    Object.keys(instructions).some((kind) => /atomic\.(rmw|load|store)/.test(kind)),
    "it has no atomic instructions",
  );

  return {
    memory: { initialPages: memory.initial, maximumPages: memory.maximum },
    stackTop: global("__stack_pointer").value,
    dataBytes: segments.reduce((sum, { length }) => sum + length, 0),
    heapBase,
    imports: imports.map((entry) => `${entry.module}.${entry.name}`).sort(),
    exports: exports.map((entry) => entry.name).sort(),
    instructions,
  };
}

/** How often each atomic or bulk memory instruction occurs in functions that can be reached. */
async function countInstructions(bytes) {
  const { default: binaryen } = await import("binaryen");
  const module = binaryen.readBinary(bytes);
  module.runPasses(["remove-unused-module-elements"]);
  const counts = {};
  for (const [, kind] of module
    .emitText()
    .matchAll(/\(((?:i32|i64|memory)\.atomic\.[\w.]+|atomic\.fence|memory\.(?:copy|fill))\b/g)) {
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  module.dispose();
  return Object.fromEntries(Object.entries(counts).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/**
 * Throws when the optimiser lost atomics: inlining may add some and merging equal code may take a few, but a kind that
 * shrinks by more than that, or a single fence that disappears, was turned into something else.
 */
async function compareAtomics(before, after) {
  const [had, has] = await Promise.all([countInstructions(before), countInstructions(after)]);
  for (const [kind, count] of Object.entries(had)) {
    const least = kind === "atomic.fence" ? count : Math.floor(count * 0.9);
    if (kind.includes("atomic") && (has[kind] ?? 0) < least) {
      throw new BuildError(`wasm-opt left ${has[kind] ?? 0} of ${count} ${kind}`);
    }
  }
}

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

function hashSources() {
  const files = [join(CRATE, "Cargo.toml"), join(CRATE, "Cargo.lock")];
  for (const entry of readdirSync(join(CRATE, "src"), { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) files.push(join(entry.parentPath, entry.name));
  }
  const hashes = files.map((file) => [relative(ROOT, file).split(sep).join("/"), sha256(readFileSync(file))]);
  return Object.fromEntries(hashes.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** The names and types as the host sees them, from what wasm-bindgen wrote for its own glue. */
function exportsInterface(declarations, exports) {
  const pattern = /(\/\*\*(?:[^*]|\*(?!\/))*\*\/\n)?export function (\w+)\((.*)\): (\w+);/g;
  const functions = [...declarations.matchAll(pattern)].filter((match) => exports.includes(match[2]));
  const types = { number: "number", boolean: "number", void: "void", bigint: "bigint" };
  const members = functions.map(([, comment = "", symbol, parameters, result]) => {
    const raw = parameters.replace(/\bboolean\b/g, "number");
    const unknown = [
      result,
      ...raw
        .split(", ")
        .filter(Boolean)
        .map((each) => each.split(": ")[1]),
    ].find((type) => !(type in types));
    if (unknown !== undefined) throw new BuildError(`${symbol} is not over plain numbers: ${unknown}`);
    return `${comment}${symbol}(${raw}): ${types[result]};\n`.replace(/^/gm, "  ").trimEnd();
  });
  const untyped = exports.filter(
    (each) => !LINKER_GLOBALS.includes(each) && !functions.some((match) => match[2] === each),
  );
  if (untyped.length > 0) throw new BuildError(`no declaration was found for ${untyped}`);
  return `// biome-ignore-all format: generated
/**
 * What the WebAssembly module exports, generated by scripts/build-wasm.mjs from the Rust sources: do not edit.
 * These are the raw exports: a \`u32\` result arrives signed (\`>>> 0\` it), a \`bool\` as 0 or 1.
 */

export interface Exports {
${LINKER_GLOBALS.map((each) => `  readonly ${each}: WebAssembly.Global;`).join("\n")}
${members.join("\n")}
}
`;
}

// ---- the three commands ---------------------------------------------------------------------------------------------

function run(command, args, env) {
  const { status, error } = spawnSync(command, args, { env, stdio: "inherit" });
  if (status !== 0) throw new BuildError(`${command} failed${error ? `: ${error.message}` : ""}`);
}

/** Builds in `target`; answers the files' contents and writes none of them. */
async function build(target) {
  const sources = hashSources();
  const toolchain = findToolchain();
  const clean = cleanEnvironment(toolchain);
  const folders = [
    toolFolder("wasm-pack", "wasm-pack", WASM_PACK, clean),
    toolFolder("wasm-bindgen", "wasm-bindgen-cli", WASM_BINDGEN, clean),
  ];
  // The toolchain comes first: the tools' folder may be rustup's, which has another cargo.
  const path = [toolchain.bin, ...folders, clean.PATH].join(delimiter);
  const env = { ...clean, ...buildFlags(toolchain, target), PATH: path };

  const pkg = join(target, "pkg");
  mkdirSync(target, { recursive: true });
  run(
    join(folders[0], "wasm-pack"),
    [
      ...[
        "build",
        CRATE,
        "--mode",
        "force",
        "--target",
        "web",
        "--release",
        "--out-dir",
        pkg,
        "--no-pack",
        "--",
        "--locked",
      ],
      // `alloc` only because wasm-bindgen links it; the engine does not.
      ...["-Zbuild-std=core,alloc,compiler_builtins", "-Zbuild-std-features=compiler-builtins-mem"],
    ],
    env,
  );

  const linked = readFileSync(join(target, "wasm32-unknown-unknown", "release", "cache_machine_core.wasm"));
  const constants = readLinkMap(readFileSync(join(target, "link.map"), "utf8"));
  const bound = readFileSync(join(pkg, "cache_machine_core_bg.wasm"));
  const ordered = putInOrder(bound, { heapBase: linkedGlobal(linked, "__heap_base"), constants });
  const [input, optimised] = [join(target, "ordered.wasm"), join(target, "optimised.wasm")];
  writeFileSync(input, ordered);
  const wasmOpt = join(ROOT, "node_modules", "binaryen", "bin", "wasm-opt");
  run(process.execPath, [wasmOpt, input, "--output", optimised, ...WASM_OPT_FLAGS], process.env);

  const wasm = readFileSync(optimised);
  await compareAtomics(ordered, wasm);
  const facts = await inspect(wasm);
  if (JSON.stringify(hashSources()) !== JSON.stringify(sources))
    throw new BuildError("the sources changed during the build");
  const binaryen = JSON.parse(readFileSync(join(ROOT, "node_modules", "binaryen", "package.json"), "utf8")).version;
  const tools = {
    ...toolchain.versions,
    "wasm-ld": toolchain.linker.version,
    "wasm-pack": WASM_PACK,
    "wasm-bindgen": WASM_BINDGEN,
    binaryen,
  };
  const declarations = readFileSync(join(pkg, "cache_machine_core.d.ts"), "utf8");
  return {
    wasm,
    exportsTs: exportsInterface(declarations, facts.exports),
    record: { sha256: sha256(wasm), size: wasm.length, ...facts, tools, sources },
  };
}

function readRecord() {
  if (!existsSync(RECORD) || !existsSync(ARTEFACT)) {
    throw new BuildError("there is no committed module with a record: npm run build:wasm");
  }
  return JSON.parse(readFileSync(RECORD, "utf8"));
}

/** The keys at which two flat objects differ, each with both values. */
function differences(before, after) {
  const keys = [...new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])].sort();
  return keys
    .filter((key) => before?.[key] !== after?.[key])
    .map((key) => `${key}: ${before?.[key] ?? "-"} → ${after?.[key] ?? "-"}`);
}

const STALE = "The committed module was built from other sources: run `npm run build:wasm` and commit the result.";

async function verify() {
  const record = readRecord();
  const stale = differences(record.sources, hashSources());
  if (stale.length > 0) throw new BuildError([STALE, ...stale].join("\n  "));
  const wasm = readFileSync(ARTEFACT);
  if (sha256(wasm) !== record.sha256)
    throw new BuildError("wasm/cache_machine.wasm is not the module that its record describes");
  const facts = await inspect(wasm);
  for (const [key, value] of Object.entries(facts)) {
    if (JSON.stringify(record[key]) !== JSON.stringify(value)) throw new BuildError(`the record is wrong about ${key}`);
  }
  console.log(`build-wasm: the committed module (${wasm.length} bytes) agrees with its record and the sources`);
}

async function check() {
  const record = readRecord();
  const target = mkdtempSync(join(tmpdir(), "cache-machine-wasm-"));
  try {
    const built = await build(target);
    const problems = [];
    const note = (title, lines) => {
      if (lines.length > 0) problems.push([title, ...lines].join("\n  "));
    };
    const stale = differences(record.sources, built.record.sources);
    note(STALE, stale);
    note("The instructions differ:", differences(record.instructions, built.record.instructions));
    if (!built.wasm.equals(readFileSync(ARTEFACT)))
      problems.push("The bytes of wasm/cache_machine.wasm differ from what was built.");
    if (built.record.sha256 !== record.sha256) problems.push("The sha256 in the record differs from what was built.");
    if (!existsSync(EXPORTS_TS) || built.exportsTs !== readFileSync(EXPORTS_TS, "utf8"))
      problems.push("src/exports.ts differs from what was built.");
    const tools = differences(record.tools, built.record.tools);
    if (problems.length > 0) {
      if (stale.length === 0) {
        note("The sources are the same but the tools are not: run `npm run build:wasm` with these and commit.", tools);
      }
      throw new BuildError(problems.join("\n"));
    }
    console.log(`build-wasm: built again, the same ${built.wasm.length} bytes`);
    if (tools.length > 0) {
      console.warn(
        ["build-wasm: only the tools differ from the record: build with these and commit:", ...tools].join("\n  "),
      );
    }
  } finally {
    rmSync(target, { recursive: true, force: true });
  }
}

async function main(command) {
  if (command === "--verify") return verify();
  if (command === "--check") return check();
  if (command !== undefined) throw new BuildError(`unknown option ${command}; there are --check and --verify`);
  const { wasm, exportsTs, record } = await build(join(CRATE, "target", "wasm"));
  writeFileSync(ARTEFACT, wasm);
  writeFileSync(RECORD, `${JSON.stringify(record, null, 2)}\n`);
  writeFileSync(EXPORTS_TS, exportsTs);
  console.log(`build-wasm: ${wasm.length} bytes, ${record.exports.length} exports, ${record.dataBytes} bytes of data`);
}

try {
  await main(process.argv[2]);
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  console.error(`build-wasm: ${error.message}`);
  process.exitCode = 1;
}
