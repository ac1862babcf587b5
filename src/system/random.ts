/**
 * Secret random numbers that are needed when the package is loaded. Node.js loads its whole cryptography when `crypto` is read first,
 * which takes four milliseconds and a megabyte. The random numbers of the kernel are in a file.
 */

/** The generator of the kernel, on Linux and other Unixes. */
const GENERATOR = "/dev/urandom";

/**
 * Fills an array with random numbers that nobody can guess.
 *
 * @throws what `crypto.getRandomValues` throws: Cloudflare Workers refuse it while modules are loaded.
 */
export function fillRandom(numbers: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  const isFilled = globalThis.process !== undefined && readKernel(numbers, globalThis.process);
  return isFilled ? numbers : crypto.getRandomValues(numbers);
}

/** Whether the array was filled from the file of the kernel. Only Node.js reads it: Deno would ask the user for permission. */
function readKernel(numbers: Int32Array<ArrayBuffer>, { versions, getBuiltinModule }: typeof process): boolean {
  try {
    if (versions.node === undefined || versions.bun !== undefined || versions.deno !== undefined) return false;
    const fs = getBuiltinModule("node:fs");
    const fd = fs.openSync(GENERATOR, "r");
    try {
      // In its place there may be another file, for example in a container that was put together by hand.
      return fs.fstatSync(fd).isCharacterDevice() && fs.readSync(fd, numbers) === numbers.byteLength;
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    // There is no such file, no descriptor is free, Node.js runs with --permission, or this is no Node.js at all.
    return false;
  }
}
