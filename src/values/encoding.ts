/**
 * `TextEncoder` and `TextDecoder`: those of this realm or, where somebody made a realm without them (jsdom under Jest),
 * those of Node.js. Importing the package never fails for want of them; opening a cache says so.
 */

import { CacheError } from "../errors.ts";

const host =
  typeof TextEncoder === "function" && typeof TextDecoder === "function"
    ? globalThis
    : globalThis.process?.getBuiltinModule?.("node:util");

/** Undefined where {@link requireEncoding} throws. */
export const encoder: TextEncoder = (host && new host.TextEncoder()) as TextEncoder;

/** Undefined where {@link requireEncoding} throws. */
export function newDecoder(label?: string, options?: TextDecoderOptions): TextDecoder {
  return (host && new host.TextDecoder(label, options)) as TextDecoder;
}

/** @throws {CacheError} `ERR_UNSUPPORTED` where text cannot be encoded. */
export function requireEncoding(): void {
  if (host !== undefined) return;
  throw new CacheError(
    "ERR_UNSUPPORTED",
    "there is no TextEncoder or no TextDecoder here. jest-environment-jsdom leaves them out: use the environment `node`, " +
      'or `testEnvironmentOptions: { customExportConditions: ["node"] }`.',
  );
}
