/** Sizes in bytes: their unit, how users write them, and how messages show them. */

/** Bytes of a page, the unit of a `WebAssembly.Memory`. Sizes and bases of regions are multiples of it. */
export const PAGE: number = 65_536;

/** The largest size of a `WebAssembly.Memory`, in bytes. */
export const MAX_MEMORY: number = 65_536 * PAGE;

const UNITS: Readonly<Record<string, number>> = { "": 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 };

/** Reads the option `size` as {@link parseBytes} does, and rounds it up to a multiple of 64 KiB. */
export function parseSize(size: string | number): number {
  return Math.ceil(parseBytes(size, "size") / PAGE) * PAGE;
}

/**
 * Reads an option that is a number of bytes. The errors name it by `option`.
 *
 * @param size a number of bytes, or a text such as `"64mb"`, `"1.5 GiB"`, `"512k"`; the units are powers of 1024
 * @throws {TypeError} when it is neither a number nor such a text.
 * @throws {RangeError} when it is not more than 0 and at most 4 GiB.
 */
export function parseBytes(size: string | number, option: string): number {
  let bytes: number;
  if (typeof size === "number") {
    bytes = size;
  } else {
    const match = typeof size === "string" ? /^\s*(\d+(?:\.\d+)?)\s*([kmg]?)(?:i?b)?\s*$/i.exec(size) : null;
    if (match === null) {
      throw new TypeError(
        `${option}: must be a number of bytes, or a text such as "64mb", not ${JSON.stringify(size)}`,
      );
    }
    const [, amount = "", unit = ""] = match;
    bytes = Number(amount) * (UNITS[unit.toLowerCase()] as number);
  }
  if (!(bytes > 0 && bytes <= MAX_MEMORY)) {
    throw new RangeError(`${option}: must be more than 0 and at most ${readableSize(MAX_MEMORY)}, not ${size}`);
  }
  return bytes;
}

/** Writes a size for messages, such as `64 MiB (67108864 bytes)`. */
export function readableSize(bytes: number): string {
  for (const [unit, scale] of [
    ["GiB", 1024 ** 3],
    ["MiB", 1024 ** 2],
    ["KiB", 1024],
  ] as const) {
    if (bytes >= scale) return `${Number((bytes / scale).toFixed(2))} ${unit} (${bytes} bytes)`;
  }
  return `${bytes} bytes`;
}
