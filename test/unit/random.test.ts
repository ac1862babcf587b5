/** Secret random numbers (src/system/random.ts): from the kernel, and from `crypto` where the kernel's file is not what it should be. */

import fs from "node:fs";
import { afterEach, expect, test, vi } from "vitest";
import { fillRandom } from "../../src/system/random.ts";

const WORDS = 4;
const getRandomValues = vi.spyOn(crypto, "getRandomValues");
afterEach(() => {
  vi.restoreAllMocks();
  vi.spyOn(crypto, "getRandomValues");
});

const drawn = (): string => fillRandom(new Int32Array(WORDS)).join();
const openFiles = (): number => fs.readdirSync("/proc/self/fd").length;

test("the numbers come from the kernel, are others each time, and no descriptor stays open", () => {
  const before = openFiles();
  expect(new Set(Array.from({ length: 100 }, drawn)).size).toBe(100);
  expect(getRandomValues).not.toHaveBeenCalled();
  expect(openFiles()).toBe(before);
});

test.each<[string, () => void]>([
  [
    "cannot be opened",
    () =>
      vi.spyOn(fs, "openSync").mockImplementation(() => {
        throw new Error("EMFILE");
      }),
  ],
  [
    "is an ordinary file",
    () => {
      const open = fs.openSync;
      vi.spyOn(fs, "openSync").mockImplementation(() => open("package.json", "r"));
    },
  ],
  ["ends too early", () => vi.spyOn(fs, "readSync").mockReturnValue(3)],
])("where the file of the kernel %s, the numbers come from crypto, and no descriptor stays open", (_, spoil) => {
  const before = openFiles();
  const source = vi.spyOn(crypto, "getRandomValues");
  source.mockClear();
  spoil();
  expect(new Set(Array.from({ length: 100 }, drawn)).size).toBe(100);
  expect(source).toHaveBeenCalledTimes(100);
  vi.restoreAllMocks();
  expect(openFiles()).toBe(before);
});
