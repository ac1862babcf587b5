/**
 * Finds and loads the binary of the native part, and explains why it cannot be loaded. The binary comes with the package, one
 * file for each processor, and a bundle may have moved it. This file does not know what the functions in it do.
 */

import { existsSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type CacheError, noAddressSpace, noDescriptor, unsupported } from "../errors.ts";

/**
 * Loads the native part into this thread. Returns its functions.
 *
 * @param names the functions that it must have
 * @throws {CacheError} `ERR_UNSUPPORTED` when this platform has no process reach, or the native part is missing or must
 * not be loaded; `ERR_NO_SPACE` without a descriptor or address space to load it.
 */
export function loadBinary<T extends object>(names: readonly (keyof T)[]): T {
  const { platform, arch } = process;
  if (platform !== "linux" || (arch !== "x64" && arch !== "arm64")) {
    throw unsupported(
      `sharing a cache between processes works on Linux (x64, arm64), not on ${platform} ${arch}. For the threads of one ` +
        'process, createCache() and the option `fallback: "threads"` of openCache() work on every platform.',
    );
  }
  const tried = new Set<string>();
  let first: CacheError | undefined;
  for (const place of placesOf(arch)) {
    const file = fileAt(place, tried);
    if (file === undefined) continue;
    const module: { exports: Partial<T> } = { exports: {} };
    try {
      process.dlopen(module, file);
      if (names.every((name) => typeof module.exports[name] === "function")) return module.exports as T;
      first ??= unsupported(`${file} belongs to another version of cache-machine. Replace it.`);
    } catch (cause) {
      // A bundler may have put something else in its place, so that the next place is the right one.
      first ??= loadError(file, cause as NodeJS.ErrnoException);
    }
  }
  throw first ?? missing(arch, tried);
}

/**
 * The place of the binary in the package, seen from an ES module. All names are spelled out, and in plain statements, so that
 * bundlers and file tracing find the files. The path starts at `dist/`, because this module is a part of the bundles there.
 */
function binaryOfModule(arch: "x64" | "arm64"): string {
  if (arch === "x64") return fileURLToPath(new URL("../native/cache_machine-linux-x64.node", import.meta.url));
  return fileURLToPath(new URL("../native/cache_machine-linux-arm64.node", import.meta.url));
}

/** The same place, seen from a CommonJS module. */
function binaryOfCommonJs(arch: "x64" | "arm64"): string {
  if (arch === "x64") return __dirname + "/../native/cache_machine-linux-x64.node";
  return __dirname + "/../native/cache_machine-linux-arm64.node";
}

const nameOf = (arch: string): string => `cache_machine-linux-${arch}.node`;

/**
 * The places of the binary, the likeliest first; each tells its path, or throws where there is none. Where this module has become
 * part of a bundle, these are also the folder of the bundle, that of the script or executable that was started, and the package, if
 * that is installed there. Asking for the package takes longer than all the rest, so a place is asked only when those before it
 * were in vain.
 */
function placesOf(arch: "x64" | "arm64"): (() => string)[] {
  const name = nameOf(arch);
  // A CommonJS bundle has no `import.meta.url`, or that of the machine on which it was made.
  const scripts = [
    () => fileURLToPath(import.meta.url),
    () => __filename,
    () => process.argv[1],
    () => process.execPath,
  ];
  return [
    () => binaryOfModule(arch),
    () => binaryOfCommonJs(arch),
    ...scripts.map((script) => () => join(dirname(script() as string), name)),
    // Here ncc puts it.
    ...scripts.map((script) => () => join(dirname(script() as string), "native", name)),
    ...scripts.map((script) => () => {
      const { createRequire } = process.getBuiltinModule("node:module");
      return join(dirname(createRequire(script() as string).resolve("cache-machine/package.json")), "native", name);
    }),
  ];
}

/** The path of a place where there is a file that was not tried before. Adds the path to those that were tried. */
function fileAt(place: () => string, tried: Set<string>): string | undefined {
  try {
    const file = place();
    if (tried.has(file)) return undefined;
    tried.add(file);
    return existsSync(file) ? file : undefined;
  } catch {
    // There is no such place here, or Node.js runs with --permission and must not look there.
    return undefined;
  }
}

/** Makes the error for a binary that is in none of its places. */
function missing(arch: string, tried: Set<string>): CacheError {
  const name = nameOf(arch);
  return unsupported(
    `sharing a cache between processes needs the file ${name} of the package, which is in none of its places: ` +
      `${[...tried].join(", ")}. Copy node_modules/cache-machine/native/${name} next to the bundle, install the package ` +
      "where the bundle runs, or use createCache() to share a cache between the threads of this process.",
  );
}

/** Makes the error for a binary that exists but could not be loaded. */
function loadError(file: string, cause: NodeJS.ErrnoException): CacheError {
  const { message } = cause;
  if (/Too many open files|No file descriptors/i.test(message)) {
    return noDescriptor("EMFILE", cause);
  }
  if (/Cannot allocate memory|Out of memory/i.test(message)) {
    return noAddressSpace(cause, `the code of ${basename(file)}`);
  }
  const because = (reason: string, remedy: string): CacheError =>
    unsupported(
      `sharing a cache between processes needs a native part, ${file}, which ${reason}. ${remedy}, or use createCache() ` +
        "to share a cache between the threads of this process.",
      { cause },
    );
  if (cause.code === "ERR_DLOPEN_DISABLED") {
    const options = [...process.execArgv, ...(process.env.NODE_OPTIONS ?? "").split(/\s+/)];
    if (options.includes("--no-addons")) return because("--no-addons forbids", "Start Node.js without that option");
    if ("permission" in process) {
      return because("the permission model of Node.js forbids", "Start Node.js with --allow-addons");
    }
    return because("this Node.js was told not to load", "Allow native addons");
  }
  // The messages of glibc and of musl when the file system is mounted without the right to execute.
  if (/failed to map segment|Operation not permitted/i.test(message)) {
    return because(
      `the system refuses to execute (${message}): its file system may be mounted with \`noexec\``,
      "Install the package on another file system",
    );
  }
  return because(`could not be loaded (${message})`, "Install the package anew");
}
