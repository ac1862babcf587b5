/**
 * The tools that build the engine: a Rust toolchain with the sources of its core library, wasm-pack and wasm-bindgen in
 * the pinned versions, and the flags that make the result the same on every machine.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join } from "node:path";

const TOOLS = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "cache-machine", "tools");

export const WASM_PACK = "0.15.1";
export const WASM_BINDGEN = "0.2.130";

/** Globals of the linker that are needed: one places the stack of each instance, the other says where the data ends. */
export const LINKER_GLOBALS = ["__stack_pointer", "__heap_base"];
/** These features are added to `mvp`. So a newer compiler does not turn on more than every supported runtime has. */
const TARGET_FEATURES = ["atomics", "bulk-memory", "mutable-globals", "sign-ext", "nontrapping-fptoint", "simd128"];

const MISSING_TOOLCHAIN = `No Rust toolchain that can build the WebAssembly module with atomics was found. One of these is needed:

  Debian:     sudo sh scripts/install-wasm-toolchain.sh
              (apt-get install rustc-web cargo-web rust-web-src lld-22)
  elsewhere:  rustup toolchain install nightly --component rust-src

To use the committed module none of it is needed.`;

/** The reason why a build cannot succeed, for the user. */
export class BuildError extends Error {}

function output(command, args, env = process.env) {
  const { status, stdout } = spawnSync(command, args, { encoding: "utf8", env, stdio: ["ignore", "pipe", "ignore"] });
  return status === 0 ? stdout.trim() : undefined;
}

/** The toolchain in `bin`; `undefined` when it lacks the sources of its own core library, or when there is none. */
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

/** The linker: rustc's own one, else the wasm-ld of the same LLVM, else the newest wasm-ld, else any rust-lld. */
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

export function findToolchain() {
  const nightly = output("rustup", ["which", "--toolchain", "nightly", "rustc"]);
  const toolchain = toolchainIn("/usr/bin") ?? (nightly && toolchainIn(dirname(nightly)));
  if (!toolchain) throw new BuildError(MISSING_TOOLCHAIN);
  return toolchain;
}

/** The folder of a tool in the pinned version; installs it when it is not on the PATH. */
export function toolFolder(command, crate, version, env) {
  const here = join(TOOLS, "bin");
  for (const directory of [here, ...(process.env.PATH ?? "").split(delimiter)]) {
    if (output(join(directory, command), ["--version"])?.split(" ")[1] === version) return directory;
  }
  const args = ["install", crate, "--version", version, "--root", TOOLS];
  console.log(`build-wasm: installing ${crate} ${version} into ${TOOLS} (once, some minutes)`);
  if (spawnSync("cargo", [...args, "--locked"], { env, stdio: "inherit" }).status === 0) return here;
  // A registry may lack one of the versions that the crate was locked to. The version of the tool itself stays pinned. If other
  // dependencies changed its output, --check would find other bytes.
  console.warn(`build-wasm: ${crate} ${version} cannot be installed with its own lock file; resolving it anew`);
  if (spawnSync("cargo", args, { env, stdio: "inherit" }).status === 0) return here;
  throw new BuildError(`${crate} ${version} could not be installed; see above`);
}

/** The environment without the variables that would change the pinned tools or their flags. */
export function cleanEnvironment(toolchain) {
  const meddling =
    /^(RUSTC|RUSTDOC|RUSTFLAGS|CARGO|RUSTUP_TOOLCHAIN|CARGO_(BUILD|PROFILE|TARGET|ENCODED|UNSTABLE)_.*|RUSTC_.*)$/;
  const env = Object.fromEntries(Object.entries(process.env).filter(([variable]) => !meddling.test(variable)));
  return { ...env, PATH: [toolchain.bin, env.PATH].join(delimiter) };
}

/** The environment in which cargo builds the crate in folder `crate` with the pinned flags. */
export function buildFlags(toolchain, crate, target) {
  const cargoHome = process.env.CARGO_HOME ?? join(homedir(), ".cargo");
  const flags = [
    ["-C", "target-cpu=mvp"],
    ["-C", `target-feature=${TARGET_FEATURES.map((feature) => `+${feature}`).join(",")}`],
    // The default is 225. With 160 the module is a tenth smaller and measured no slower. Hot functions ask to be inlined.
    ["-C", "llvm-args=-inline-threshold=160"],
    // A panic is a trap. No message is formatted, so the data of the module has no messages.
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
    ["--remap-path-prefix", `${crate}=/wasm`],
    ["--remap-path-prefix", `${cargoHome}=/cargo`],
    ["--remap-path-prefix", `${toolchain.sysroot}/lib/rustlib/src/rust=/rust`],
  ];
  return { RUSTC_BOOTSTRAP: "1", CARGO_TARGET_DIR: target, CARGO_ENCODED_RUSTFLAGS: flags.flat().join("\x1f") };
}
