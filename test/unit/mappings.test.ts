/** Mappings of a cache file: one for all threads of a process, for as long as one of them uses it. */

import fs from "node:fs";
import { getEnvironmentData } from "node:worker_threads";
import { describe, expect, test } from "vitest";
import { attachFileRegion, destroyFile } from "../../src/memory/file.ts";
import type { FileHandle, Region } from "../../src/memory/memory.ts";
import { PAGE } from "../../src/size.ts";
import { Native } from "../../src/system/native.ts";
import {
  at,
  directory,
  failure,
  isRoot,
  keep,
  message,
  mountTmpfs,
  OPEN,
  open,
  pathOf,
  plan,
  script,
  startProcess,
  startWorker,
  useRegions,
} from "./regions.ts";

useRegions();

describe("mappings of a file", () => {
  test("opening a name maps the file that has it now, not the one that had it before", async () => {
    const region = open();
    destroyFile({ name: "app", path: directory }, 7);
    const child = startProcess(`${OPEN} at(open())[0] = 13; send("created");`, directory);
    await message(child);
    const next = open();
    expect(next.memory).not.toBe(region.memory);
    expect(at(next)[0]).toBe(13);
    expect(at(region)[0]).toBe(0);
    // Closing the older region does not remove the newer mapping, which later openings share.
    region.close();
    expect(open().memory).toBe(next.memory);
  });

  test("the threads of a process that open one name share one mapping", async () => {
    const region = open();
    expect(open().memory).toBe(region.memory);
    // The byte below the region is private to the mapping, so it tells whether the worker has the same one.
    new Uint8Array(region.memory.buffer)[0] = 77;
    const nested = script(`${OPEN} send(new Uint8Array(open().memory.buffer)[0]); stay();`);
    const worker = startWorker(
      `${OPEN} const region = open();
       const again = (region.close(), open());
       const child = new Worker(${JSON.stringify(nested)}, { workerData });
       send([new Uint8Array(again.memory.buffer)[0], (await once(child, "message"))[0]]); stay();`,
      { directory },
    );
    expect(await message(worker)).toEqual([77, 77]);
  });

  test("a worker that started before the mapping was made shares it by handle", async () => {
    const worker = startWorker(
      `const { attachFileRegion, at } = await library(); send("ready");
       const region = attachFileRegion(await receive()); at(region)[0] = 6;
       send([region.membership.claim(), new Uint8Array(region.memory.buffer)[0]]); stay();`,
      { directory },
    );
    await message(worker);
    const region = open();
    region.membership.claim();
    new Uint8Array(region.memory.buffer)[0] = 78;
    worker.postMessage(region.handle);
    expect(await message(worker)).toEqual([1, 78]);
    expect(at(region)[0]).toBe(6);
  });

  test("different builds of the engine do not share a mapping", () => {
    const region = open();
    const other = open({ plan: { ...plan, build: "another" } });
    expect(other.memory).not.toBe(region.memory);
    at(region)[0] = 4;
    expect(at(other)[0]).toBe(4);
  });

  test("a thread offers its mapping to new threads until it closes its last region", () => {
    const key = (region: Region) => `cache-machine test ${pathOf(region)}`;
    const [first, second] = [open(), open()];
    first.close();
    first.close();
    expect(getEnvironmentData(key(second))).toMatchObject({ memory: second.memory });
    second.close();
    expect(getEnvironmentData(key(second))).toBeUndefined();
    expect(open().memory).not.toBe(second.memory);
  });

  test("the last user of a mapping unmaps the file, in whichever thread that is", async () => {
    const region = open();
    const worker = startWorker(
      `${OPEN} const region = open(); send("joined"); await receive();
       const seen = at(region)[0]; region.close(); send(seen); stay();`,
      { directory },
    );
    await message(worker);
    at(region)[0] = 11;
    region.close();
    expect(at(region)[0]).toBe(11);
    const seen = message(worker);
    worker.postMessage("go");
    expect(await seen).toBe(11);
    expect(at(region)[0]).toBe(0);
    expect(at(open())[0]).toBe(11);
  });

  test("attaching by the handle of a mapping that has ended maps the file again", async () => {
    const region = open();
    at(region)[0] = 12;
    region.close();
    const again = keep(attachFileRegion(region.handle as FileHandle));
    expect(again.memory).not.toBe(region.memory);
    expect(at(again)[0]).toBe(12);
  });

  test.skipIf(!isRoot)("closed regions of destroyed caches keep no blocks of the file system (needs root)", () => {
    mountTmpfs("1m");
    for (let i = 0; i < 10; i++) {
      const region = open({ size: 768 << 10 });
      destroyFile({ name: "app", path: directory }, 7);
      region.close();
    }
    expect(fs.statfsSync(directory).bfree).toBe(fs.statfsSync(directory).blocks);
  });

  test("attaching by the handle of a destroyed cache is ERR_CLOSED, also when its name has another file", () => {
    const region = open();
    fs.unlinkSync(pathOf(region));
    expect(failure(() => attachFileRegion(region.handle as FileHandle))).toMatchObject({ code: "ERR_CLOSED" });
    open();
    expect(failure(() => attachFileRegion(region.handle as FileHandle))).toMatchObject({ code: "ERR_CLOSED" });
  });

  test("mapping a descriptor that does not exist fails with EBADF, and leaves the memory usable", () => {
    const memory = new WebAssembly.Memory({ initial: 2, maximum: 2, shared: true });
    expect(() => Native.load().map(999_999, memory, PAGE, PAGE)).toThrow("EBADF");
    const bytes = new Uint8Array(memory.buffer);
    bytes.fill(1);
    expect(bytes.every((byte) => byte === 1)).toBe(true);
  });
});
