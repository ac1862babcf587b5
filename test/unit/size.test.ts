/** Sizes: how users write them, and how messages tell them. */

import { describe, expect, test } from "vitest";
import { PAGE, parseSize, readableSize } from "../../src/size.ts";

describe("sizes in bytes", () => {
  test("parseSize reads sizes in powers of 1024 and rounds them up to 64 KiB", () => {
    expect(parseSize("64mb")).toBe(64 << 20);
    expect(parseSize(" 1.5 GiB ")).toBe(1.5 * 2 ** 30);
    expect(parseSize("512k")).toBe(512 << 10);
    expect(parseSize("100KB")).toBe(2 * PAGE);
    expect(parseSize("4gb")).toBe(2 ** 32);
    expect(parseSize("1b")).toBe(PAGE);
    expect(parseSize("70000")).toBe(2 * PAGE);
    expect(parseSize(1)).toBe(PAGE);
    expect(parseSize(0.5)).toBe(PAGE);
  });

  test("parseSize throws an error that names the option for a size that makes no sense", () => {
    for (const size of ["", "mb", "64 bananas", "-1mb", "1tb", null, undefined, {}, true]) {
      expect(() => parseSize(size as string)).toThrow(TypeError);
      expect(() => parseSize(size as string)).toThrow(/^size:/);
    }
    for (const size of [0, -1, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 32 + 1, "0", "5gb"]) {
      expect(() => parseSize(size)).toThrow(RangeError);
      expect(() => parseSize(size)).toThrow(/^size:/);
    }
  });

  test("readableSize tells a size in its largest unit and in bytes", () => {
    expect(readableSize(64 << 20)).toBe("64 MiB (67108864 bytes)");
    expect(readableSize(100)).toBe("100 bytes");
  });
});
