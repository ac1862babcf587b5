/**
 * Tests of the event loop: what keeps a process alive, and what does not. `NODES=/path/to/node,24 npx vitest run
 * test/coordinate/loop.test.ts` tests other versions of Node.js too.
 */

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type Cache, destroyCache, openCache } from "cache-machine";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { nodeBinary, versions } from "../package/nodes.ts";
import { Projects } from "../package/projects.ts";
import { inTime, until } from "./others.ts";

const SCRIPT = fileURLToPath(new URL("loop.mjs", import.meta.url));
const NAME = `t-${process.pid}-loop`;
const projects = new Projects("loop");
let cache: Cache;

beforeEach(() => {
  cache = openCache(NAME, { size: "1mb" });
});
afterEach(() => {
  cache.close();
  destroyCache(NAME);
});
afterAll(() => projects.remove());

/** Starts the program. Returns what it prints, when it has ended. */
function start(binary: string, what: string): { output: Promise<string>; ended(): boolean } {
  const child = spawn(binary, [SCRIPT, NAME, what], { stdio: ["ignore", "pipe", "inherit"], timeout: 60_000 });
  let output = "";
  let ended = false;
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
  const closed = new Promise<string>((resolve) =>
    child.once("close", (code) => {
      ended = true;
      resolve(`${output}${code}`);
    }),
  );
  return { output: inTime(closed, `the program "${what}"`), ended: () => ended };
}

describe.each([["this version", process.execPath], ...versions.map((version) => [version, version])])(
  "Node.js, %s",
  (_, version) => {
    let installed: string;
    const binary = (): string => installed;
    beforeAll(async () => {
      installed = await nodeBinary(version as string);
    }, 120_000);

    test.each(["wait", "wait, with a watch"])(
      "a process lives as long as its waitFor is pending, and no longer: %s",
      async (what) => {
        const { output, ended } = start(binary(), what);
        await until(() => cache.get("it waits") || ended(), "it waits");
        // The slow look of its wait comes in this time.
        await new Promise((resolve) => setTimeout(resolve, 1500));
        expect(ended()).toBe(false);
        cache.set("a", "the value");
        expect(await output).toBe("the value\nexit\n0");
      },
    );

    test.each([
      ["timeout", "ERR_TIMEOUT"],
      ["abort", "AbortError"],
      ["close", "ERR_CLOSED"],
    ])("a process ends after a waitFor that was rejected: %s", async (what, code) => {
      expect(await start(binary(), what).output).toBe(`${code}\nexit\n0`);
    });

    test("a watch does not keep a process alive", async () => {
      expect(await start(binary(), "watch").output).toBe("exit\n0");
    });

    test("a process lives as long as it waits for a lock of another process", async () => {
      await cache.locks
        .request("a", async () => {
          const { output, ended } = start(binary(), "lock");
          await until(() => cache.get("it waits") || ended(), "it waits");
          await new Promise((resolve) => setTimeout(resolve, 1500));
          expect(ended()).toBe(false);
          return { output };
        })
        .then(async ({ output }) => expect(await output).toBe("a\nexit\n0"));
    });

    test("a lock that is held does not keep a process alive, and is free afterwards", async () => {
      // 13: an await at the end of the program is not settled.
      expect(await start(binary(), "hold").output).toBe("exit\n0");
      expect(await cache.locks.request("a", () => "free")).toBe("free");
    });
  },
);
