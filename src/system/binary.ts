/**
 * Finds and loads the binary of the native part, and explains why it cannot be loaded. The binary comes with the package, one
 * file for each processor, and a bundle may have moved it. This file does not know what the functions in it do.
 */

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
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
  const file = findBinary(arch);
  const module: { exports: Partial<T> } = { exports: {} };
  try {
    process.dlopen(module, file);
  } catch (cause) {
    throw loadError(file, cause as NodeJS.ErrnoException);
  }
  if (!names.every((name) => typeof module.exports[name] === "function")) {
    throw unsupported(`${file} belongs to another version of cache-machine. Replace it.`);
  }
  return module.exports as T;
}

/**
 * The places of the binary in the package, seen from an ES module and from a CommonJS module. All names are spelled out, so that
 * bundlers and file tracing find the files. The paths start at `dist/`, because this module is a part of the bundles there.
 */
function packagedBinary(arch: "x64" | "arm64"): (() => string)[] {
  return arch === "x64"
    ? [
        () => fileURLToPath(new URL("../native/cache_machine-linux-x64.node", import.meta.url)),
        () => join(__dirname, "../native/cache_machine-linux-x64.node"),
      ]
    : [
        () => fileURLToPath(new URL("../native/cache_machine-linux-arm64.node", import.meta.url)),
        () => join(__dirname, "../native/cache_machine-linux-arm64.node"),
      ];
}

/**
 * Finds the binary of the package. Where this module has become part of a bundle, the binary is looked for beside the
 * bundle, beside the script or executable that was started, and in the package, if that is installed there.
 */
function findBinary(arch: "x64" | "arm64"): string {
  const name = `cache_machine-linux-${arch}.node`;
  // A CommonJS bundle has no `import.meta.url`, or that of the machine on which it was made.
  const scripts = [
    () => fileURLToPath(import.meta.url),
    () => __filename,
    () => process.argv[1],
    () => process.execPath,
  ];
  const places = [
    ...packagedBinary(arch),
    ...scripts.map((script) => () => join(dirname(script() as string), name)),
    ...scripts.map((script) => () => {
      return join(dirname(createRequire(script() as string).resolve("cache-machine/package.json")), "native", name);
    }),
  ];
  const tried = new Set<string>();
  for (const place of places) {
    try {
      const file = place();
      tried.add(file);
      if (existsSync(file)) return file;
    } catch {
      // There is no such place here, or Node.js runs with --permission and must not look there.
    }
  }
  throw unsupported(
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
