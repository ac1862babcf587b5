/**
 * Bells, and the waits that they wake. The other side of most tests is another process or thread. What a test waits for is a
 * message or a condition; the watchdog of the test ends a wait that hangs. Latencies are printed, and nothing is concluded from
 * them.
 */

import { AsyncLocalStorage } from "node:async_hooks";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { Worker } from "node:worker_threads";
import { afterEach, describe, expect, test, vi } from "vitest";
import type { Bell } from "../../src/bells/bell.ts";
import { FifoBell } from "../../src/bells/fifo.ts";
import { NotifyBell } from "../../src/bells/notify.ts";
import { type SeatWords, Wakeups } from "../../src/engine/wakeups.ts";
import { attachFileRegion, destroyFile } from "../../src/memory/file.ts";
import { createThreadRegion, type FileHandle, type Region } from "../../src/memory/memory.ts";
import { PAGE } from "../../src/size.ts";
import type { Native } from "../../src/system/native.ts";
import { generator } from "../crash/checked-values.mjs";
import {
  directory,
  eventually,
  isRoot,
  keep,
  kill9,
  LIMIT,
  message,
  OPEN,
  open,
  pathOf,
  run,
  SEATS,
  script,
  startProcess,
  startWorker,
  useRegions,
} from "./regions.ts";

const seed = Number(process.env.BELLS_SEED ?? Math.floor(Math.random() * 1e9));
console.log(`BELLS_SEED=${seed}`);
const { random } = generator(seed);

useRegions();

/** Where the tests keep the words of the seats in their regions, in bytes from the start of the region. */
const SEATS_AT = 8192;

function seatWords(region: Region, seat: number): SeatWords {
  const first = (region.base + SEATS_AT) / 4;
  return {
    seat,
    words: new Int32Array(region.memory.buffer),
    interestAt: first + 32 * seat + 8,
    ringingAt: (each) => first + 32 * each + 10,
  };
}

/** For scripts: `region`, its `seat`, `wakeups`, `words` and `ring`, as {@link join} makes them here. */
const JOIN = `
  ${OPEN}
  const { Wakeups } = await library();
  const region = open();
  const seat = region.membership.claim();
  const words = new Int32Array(region.memory.buffer);
  const first = (region.base + ${SEATS_AT}) / 4;
  const ringingAt = (each) => first + 32 * each + 10;
  const wakeups = new Wakeups(region.bell, { seat, words, interestAt: first + 32 * seat + 8, ringingAt });
  const ring = (each) => Atomics.exchange(words, ringingAt(each), 1) === 1 || wakeups.ring(each);
  const wait = (look, options) => wakeups.register(look, { hold: false, probe: false, ...options });`;

/** For scripts: `fill` takes all descriptors that the process may have, and `empty` gives them back. */
const FILL = `
  ${LIMIT}
  const fs = await import("node:fs");
  const filled = [];
  const fill = () => {
    limit("nofile", 200);
    try { for (;;) filled.push(fs.openSync("/dev/null")); } catch {}
  };
  const empty = () => filled.splice(0).forEach((fd) => fs.closeSync(fd));`;

/** Rings back whoever has rung: seat 0. */
const ECHO = `${JOIN} wait(() => ring(0), { hold: true }); send(seat);`;

interface Joined {
  region: Region;
  seat: number;
  words: Int32Array;
  at: SeatWords;
  wakeups: Wakeups;
  /** Rings as the engine does: only who finds 0 in the ringing word rings. */
  ring(seat: number): boolean;
}

const opened = new Set<Wakeups>();
afterEach(() => {
  for (const wakeups of opened) wakeups.close();
  opened.clear();
});

/** Takes a seat of a region, with its waits. */
function join(region: Region = open()): Joined {
  const seat = region.membership.claim();
  const at = seatWords(region, seat);
  const wakeups = new Wakeups(region.bell, at);
  opened.add(wakeups);
  const { words } = at;
  const ring = (each: number): boolean => Atomics.exchange(words, at.ringingAt(each), 1) === 1 || wakeups.ring(each);
  return { region, seat, words, at, wakeups, ring };
}

/** A promise of the next time that the waits look. */
function nextLook({ wakeups }: Joined): Promise<void> {
  return new Promise((resolve) => {
    const waiter = wakeups.register(
      () => {
        waiter.release();
        resolve();
        return true;
      },
      { hold: true, probe: false },
    );
  });
}

/** The FIFOs that lie beside the cache file of the running test. */
const bells = (): string[] => fs.readdirSync(directory).filter((name) => name.includes(".bell."));
/** The path of the FIFO of a seat, for a cache that is there. */
const bellOf = (region: Region, seat: number): string =>
  `${pathOf(region)}.bell.${fs.statSync(pathOf(region), { bigint: true }).ino.toString(36)}.${seat.toString(36)}`;

/** Descriptors of this process that lead to a FIFO of the running test, also to one that was removed. */
function descriptors(): number {
  return fs.readdirSync("/proc/self/fd").filter((fd) => {
    try {
      const target = fs.readlinkSync(`/proc/self/fd/${fd}`);
      return target.startsWith(directory) && target.includes(".bell.");
    } catch {
      // It was the descriptor that has listed the others.
      return false;
    }
  }).length;
}

describe("a bell between processes", () => {
  test.each([
    ["process", () => startProcess(ECHO, directory)],
    ["worker", () => startWorker(ECHO, { directory })],
  ])("wakes a %s, and is rung back: no wake-up needs the slow look", async (kind, start) => {
    const me = join();
    const other = await message<number>(start());
    const times: number[] = [];
    for (let i = 0; i < 2_000; i++) {
      const heard = nextLook(me);
      const begin = performance.now();
      expect(me.ring(other)).toBe(true);
      await heard;
      times.push((performance.now() - begin) / 2);
    }
    times.sort((a, b) => a - b);
    const part = (share: number): string =>
      `${((times[Math.floor(share * times.length)] as number) * 1000).toFixed(1)} µs`;
    console.log(`one way to a ${kind}: median ${part(0.5)}, p99 ${part(0.99)}`);
    expect(me.wakeups.helped).toBe(0);
  });

  test("of a thread that was killed or terminated is not heard by anybody, and only its name is left, which bury removes", async () => {
    const me = join();
    const child = startProcess(ECHO, directory);
    await message(child);
    const worker = startWorker(ECHO, { directory });
    await message(worker);
    const heard = nextLook(me);
    expect([me.ring(1), me.ring(2)]).toEqual([true, true]);
    await heard;
    await Promise.all([kill9(child), worker.terminate()]);
    for (const seat of [1, 2]) {
      Atomics.store(me.words, me.at.ringingAt(seat), 0);
      expect(me.ring(seat)).toBe(false);
      expect(me.region.membership.take(seat)).toBe(true);
      expect(fs.existsSync(bellOf(me.region, seat))).toBe(true);
      me.region.bell.bury(seat);
      expect(fs.existsSync(bellOf(me.region, seat))).toBe(false);
    }
    // Nor is a bell heard that was never made.
    expect(me.ring(3)).toBe(false);
  });

  test("of a worker with trackUnmanagedFds: false, which keeps its seat, is not heard any more once it is terminated", async () => {
    const me = join();
    const worker = new Worker(script(ECHO), { workerData: { directory }, trackUnmanagedFds: false });
    await message(worker);
    const heard = nextLook(me);
    expect(me.ring(1)).toBe(true);
    await heard;
    await worker.terminate();
    Atomics.store(me.words, me.at.ringingAt(1), 0);
    expect(me.ring(1)).toBe(false);
    expect(me.region.membership.take(1)).toBe(false);
  });

  test("of a stopped process takes any number of rings without blocking, and the process looks when it goes on", async () => {
    const me = join();
    const child = startProcess(`${JOIN} wait(() => send("looked"), { hold: true }); send(seat);`, directory);
    await message(child);
    child.kill("SIGSTOP");
    // A pipe has room for 65,536 bytes.
    for (let i = 0; i < 70_000; i++) expect(me.region.bell.ring(1, 0)).toBe(true);
    const looked = message(child);
    child.kill("SIGCONT");
    expect(await looked).toBe("looked");
  });

  test("is removed when its thread closes it, ends, or calls process.exit, and descriptors are closed", async () => {
    const before = descriptors();
    const me = join();
    expect(bells()).toEqual([]);
    const opened = descriptors();
    me.wakeups.register(() => false, { hold: false, probe: false });
    expect(bells()).toEqual([path.basename(bellOf(me.region, 0))]);
    expect(descriptors()).toBe(opened + 1);
    expect(fs.lstatSync(bellOf(me.region, 0)).mode & 0o777).toBe(0o600);
    for (const end of ["process.exit(0);", "", "setTimeout(() => process.exit(0));"]) {
      for (const start of [
        (body: string) => startProcess(body, directory),
        (body: string) => startWorker(body, { directory }),
      ]) {
        // A watch does not keep the process alive.
        const other = start(
          `${JOIN} wait(() => false); send(seat); ${end} ${end === "" ? "process.disconnect?.();" : ""}`,
        );
        const ended = once(other, "exit");
        await message(other);
        expect(bells().length).toBeGreaterThanOrEqual(1);
        await ended;
        expect(bells()).toHaveLength(1);
      }
    }
    me.wakeups.close();
    expect(bells()).toEqual([]);
    me.region.close();
    await eventually(() => descriptors() === before);
  });

  test("that a worker opens and closes often leaves no descriptor that Node.js counts, and prints no warning", async () => {
    const before = descriptors();
    const worker = new Worker(
      script(`
      import fs from "node:fs";
      ${OPEN}
      process.on("warning", ({ message }) => send(message));
      for (let i = 0; i < 20; i++) {
        const region = open();
        region.bell.open(region.membership.claim(), 0, () => {});
        region.bell.close();
        region.close();
        await new Promise((resolve) => setImmediate(resolve));
        fs.closeSync(fs.openSync("/dev/null"));
      }
      send("done"); stay();`),
      { workerData: { directory } },
    );
    expect(await message(worker)).toBe("done");
    await worker.terminate();
    await eventually(() => descriptors() === before);
    expect(bells()).toEqual([]);
  });

  test("is removed with its cache, also when its thread lives; the cache that has the name since has bells of its own", async () => {
    const old = join();
    const former = startProcess(ECHO, directory);
    await message(former);
    // One that was killed leaves its name.
    const dead = startProcess(ECHO, directory);
    await message(dead);
    await kill9(dead);
    expect(destroyFile({ name: "app", path: directory }, 7)).toBe(true);
    expect(bells()).toEqual([]);
    expect(old.ring(1)).toBe(false);
    // The next slow look of a user of the destroyed cache makes no other bell.
    expect(old.region.bell.open(old.seat, 0, () => {})).toBe(false);
    expect(bells()).toEqual([]);
    const me = join();
    const present = startProcess(ECHO, directory);
    await message(present);
    const heard = nextLook(me);
    expect([me.seat, me.ring(1)]).toEqual([0, true]);
    await heard;
    expect(bells()).toHaveLength(2);
    expect(me.wakeups.helped).toBe(0);
    await kill9(former);
    old.wakeups.close();
    expect(bells()).toHaveLength(2);
  });

  test("is not rung through a link or in a file that has taken its place, nor in the FIFO of another user", async () => {
    const me = join();
    const place = bellOf(me.region, 1);
    const target = path.join(directory, "target");
    const ring = (): boolean => me.region.bell.ring(1, 0);
    execFileSync("mkfifo", [target]);
    const behind = fs.openSync(target, fs.constants.O_RDWR | fs.constants.O_NONBLOCK);
    fs.symlinkSync(target, place);
    expect(ring()).toBe(false);
    fs.closeSync(behind);
    fs.unlinkSync(place);
    fs.writeFileSync(place, "kept");
    expect(ring()).toBe(false);
    expect(fs.readFileSync(place, "utf8")).toBe("kept");
    fs.unlinkSync(place);
    execFileSync("mkfifo", [place]);
    const reader = fs.openSync(place, fs.constants.O_RDWR | fs.constants.O_NONBLOCK);
    expect(ring()).toBe(true);
    fs.closeSync(reader);
    expect(ring()).toBe(false);
    if (isRoot) {
      fs.chownSync(place, 12_345, 12_345);
      const foreign = fs.openSync(place, fs.constants.O_RDWR | fs.constants.O_NONBLOCK);
      const before = descriptors();
      expect(ring()).toBe(false);
      expect(() => fs.readSync(foreign, Buffer.alloc(1))).toThrow(/EAGAIN/);
      expect(descriptors()).toBe(before);
      fs.closeSync(foreign);
    }
    // The owner of the seat makes its own in any case.
    const child = startProcess(ECHO, directory);
    await message(child);
    expect(fs.lstatSync(place).uid).toBe(process.geteuid?.());
    const heard = nextLook(me);
    expect(ring()).toBe(true);
    await heard;
  });

  test("whose FIFO was removed or replaced is made again by the slow look", async () => {
    const me = join();
    const own = bellOf(me.region, 0);
    const open = (): boolean => me.region.bell.open(0, 0, heard);
    const heard = vi.fn();
    expect([open(), open()]).toEqual([true, true]);
    const before = descriptors();
    for (const isReplaced of [false, true]) {
      fs.unlinkSync(own);
      if (isReplaced) fs.writeFileSync(own, "");
      expect(open()).toBe(true);
      expect(fs.lstatSync(own).isFIFO()).toBe(true);
      heard.mockClear();
      fs.writeSync(fs.openSync(own, "w"), "1");
      await eventually(() => heard.mock.calls.length > 0);
    }
    // The two descriptors of this test; the FIFOs from before are closed.
    expect(descriptors()).toBe(before + 2);
  });

  test("cannot be made without a descriptor: then the wait looks by itself, and hears once there is one", async () => {
    const me = join();
    const child = startProcess(
      `${JOIN} ${FILL}
       fill();
       wait(() => {
         if (words[first] === 1 && filled.length > 0) { empty(); send("looked"); }
         else if (words[first] === 2) send("heard");
         return false;
       }, { hold: true });
       send(seat);`,
      directory,
    );
    expect(await message(child)).toBe(1);
    expect(bells()).toEqual([]);
    expect(me.ring(1)).toBe(false);
    const first = (me.region.base + SEATS_AT) / 4;
    const looked = message(child);
    Atomics.store(me.words, first, 1);
    expect(await looked).toBe("looked");
    await eventually(() => bells().length === 1);
    const heard = message(child);
    Atomics.store(me.words, first, 2);
    expect(me.ring(1)).toBe(true);
    expect(await heard).toBe("heard");
  });

  test.each(["EPERM", "EACCES", "ENOSPC", "EROFS"])(
    "cannot be made where the file system answers %s: then the wait looks by itself",
    async (code) => {
      const region = open();
      const native = {
        makeFifo() {
          throw Object.assign(new Error(code), { code });
        },
      };
      const bell = new FifoBell(native as unknown as Native, pathOf(region), 1n);
      const wakeups = new Wakeups(bell, seatWords(region, 0));
      opened.add(wakeups);
      let looks = 0;
      wakeups.register(() => ++looks < 0, { hold: true, probe: false });
      await eventually(() => looks > 2);
      expect([wakeups.helped, bells()]).toEqual([0, []]);
    },
  );

  test("is rung a little later by a thread that has no descriptor left at first", async () => {
    const me = join();
    const heard = nextLook(me);
    const child = startProcess(
      `${JOIN} ${FILL}
       fill();
       send(ring(0));
       await receive();
       empty();
       stay();`,
      directory,
    );
    expect(await message(child)).toBe(true);
    child.send("go on");
    await heard;
    expect(me.wakeups.helped).toBe(0);
  });

  test("keeps at most 32 descriptors for ringing, and uses a seat's new FIFO after its old one", async () => {
    const region = open();
    const bell = region.bell as FifoBell;
    const readers: number[] = [];
    const before = descriptors();
    for (let seat = 0; seat < 40; seat++) {
      execFileSync("mkfifo", [bellOf(region, seat)]);
      readers.push(fs.openSync(bellOf(region, seat), fs.constants.O_RDWR | fs.constants.O_NONBLOCK));
      expect(bell.ring(seat)).toBe(true);
    }
    expect(descriptors()).toBe(before + 40 + 32);
    // The descriptor of the last seat is kept. Its FIFO ends and another one takes its place.
    fs.closeSync(readers.pop() as number);
    fs.unlinkSync(bellOf(region, 39));
    execFileSync("mkfifo", [bellOf(region, 39)]);
    readers.push(fs.openSync(bellOf(region, 39), fs.constants.O_RDWR | fs.constants.O_NONBLOCK));
    expect(bell.ring(39)).toBe(true);
    expect(fs.readSync(readers[39] as number, Buffer.alloc(9))).toBe(1);
    for (const fd of readers) fs.closeSync(fd);
    bell.close();
    expect(descriptors()).toBe(before);
  });

  test("leaves no descriptor, and no FIFO once its seat is taken again, after 201 kills and terminations at random moments", async () => {
    const me = join();
    me.wakeups.register(() => false, { hold: false, probe: false });
    const body = `
      ${OPEN}
      process.on("warning", ({ message }) => send(message));
      send("ready");
      for (let i = 0; ; i++) {
        const region = open();
        const seat = region.membership.claim();
        region.bell.bury(seat);
        region.bell.open(seat, 0, () => {});
        region.bell.ring(0, 0);
        if (i % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
        region.bell.close();
        region.close();
      }`;
    const workerFile = script(body);
    const allDescriptors = (): number => fs.readdirSync("/proc/self/fd").length;
    const [before, all] = [descriptors(), allDescriptors()];
    const messages = new Set<unknown>();
    const endOne = async (isProcess: boolean): Promise<void> => {
      const other = isProcess ? startProcess(body, directory) : new Worker(workerFile, { workerData: { directory } });
      messages.add(await message(other));
      other.on("message", (text: unknown) => messages.add(text));
      for (const until = performance.now() + random() ** 2 * 5; performance.now() < until; );
      await (other instanceof Worker ? other.terminate() : kill9(other));
    };
    for (let round = 0; round < 67; round++) {
      await Promise.all([endOne(false), endOne(false), endOne(round % 2 === 0)]);
    }
    expect([...messages]).toEqual(["ready"]);
    for (let seat = 1; seat < SEATS; seat++) {
      expect(me.region.membership.take(seat)).toBe(true);
      me.region.bell.bury(seat);
    }
    expect(bells()).toEqual([path.basename(bellOf(me.region, 0))]);
    await eventually(() => descriptors() <= before);
    await eventually(() => allDescriptors() <= all);
  });

  test("that is made near the end of the stack leaves no descriptor when the stack ends", () => {
    const me = join();
    let cut = 0;
    const before = descriptors();
    const descend = (): void => {
      try {
        descend();
      } catch {}
      // On the way back, with a little more room each time.
      try {
        me.wakeups.register(() => false, { hold: true, probe: true }).release();
      } catch {
        cut++;
      }
    };
    descend();
    expect(cut).toBeGreaterThan(0);
    expect(descriptors()).toBe(before + 1);
    expect(bells()).toHaveLength(1);
  });

  test("is not passed on to a program that the process starts", async () => {
    const me = join();
    me.wakeups.register(() => false, { hold: false, probe: false });
    me.region.bell.ring(0, 0);
    const links = execFileSync("ls", ["-l", "/proc/self/fd"], { encoding: "utf8" });
    expect(links).not.toContain(".bell.");
  });

  test("a thread that joins by handle hears with a FIFO of its own seat", async () => {
    const me = join();
    const other = join(keep(attachFileRegion(me.region.handle as FileHandle)));
    const heard = nextLook(other);
    expect(me.ring(other.seat)).toBe(true);
    await heard;
    expect(bells()).toHaveLength(1);
  });
});

describe("a bell between threads", () => {
  const region = (): Region => keep(createThreadRegion({ base: 0, size: PAGE, seats: SEATS }));

  test("wakes a thread of the same process, and is rung back: no wake-up needs the slow look", async () => {
    const me = join(region());
    const other = startWorker(
      `const { attachThreadRegion, Wakeups } = await library();
       const region = attachThreadRegion(workerData.handle);
       const seat = region.membership.claim();
       const words = new Int32Array(region.memory.buffer);
       const first = (region.base + ${SEATS_AT}) / 4;
       const ringingAt = (each) => first + 32 * each + 10;
       const wakeups = new Wakeups(region.bell, { seat, words, interestAt: first + 32 * seat + 8, ringingAt });
       wakeups.register(() => {
         if (Atomics.exchange(words, ringingAt(0), 1) === 0) wakeups.ring(0);
       }, { hold: true, probe: false });
       send(seat);`,
      { handle: me.region.handle },
    );
    expect(await message(other)).toBe(1);
    const times: number[] = [];
    for (let i = 0; i < 2_000; i++) {
      const heard = nextLook(me);
      const begin = performance.now();
      expect(me.ring(1)).toBe(true);
      await heard;
      times.push((performance.now() - begin) / 2);
    }
    console.log(
      `one way between threads: median ${((times.sort((a, b) => a - b)[1_000] as number) * 1000).toFixed(1)} µs`,
    );
    expect(me.wakeups.helped).toBe(0);
  });

  test("hears a ring that came before it listened, and none after it was closed", async () => {
    const { memory } = region();
    const words = new Int32Array(memory.buffer);
    const bell = new NotifyBell(memory);
    const heard = vi.fn(() => void Atomics.store(words, 7, 0));
    words[7] = 1;
    expect([bell.open(0, 7, heard), bell.open(0, 7, heard)]).toEqual([true, true]);
    expect(heard).not.toHaveBeenCalled();
    await eventually(() => heard.mock.calls.length === 1);
    const ring = (): void => {
      words[7] = 1;
      expect(bell.ring(0, 7)).toBe(true);
    };
    ring();
    await eventually(() => heard.mock.calls.length === 2);
    bell.close();
    bell.close();
    ring();
    bell.bury();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(heard).toHaveBeenCalledTimes(2);
  });

  test("cannot be made where there is no Atomics.waitAsync: then the wait looks by itself", async () => {
    const { waitAsync } = Atomics as unknown as { waitAsync?: unknown };
    Object.assign(Atomics, { waitAsync: undefined });
    try {
      const me = join(region());
      await nextLook(me);
      expect(me.wakeups.helped).toBe(0);
    } finally {
      Object.assign(Atomics, { waitAsync });
    }
  });
});

describe("waits", () => {
  /** A bell without a host: the test rings it. */
  class TestBell implements Bell {
    hear: (() => void) | undefined;
    rung: number[] = [];
    closed = 0;
    buried: number[] = [];
    canHear = true;
    opened = 0;

    open(_seat: number, _at: number, heard: () => void): boolean {
      this.opened++;
      this.hear = this.canHear ? heard : undefined;
      return this.canHear;
    }
    ring(seat: number): boolean {
      this.rung.push(seat);
      return seat !== 3;
    }
    bury(seat: number): void {
      this.buried.push(seat);
    }
    close(): void {
      this.closed++;
    }
  }

  const SEAT = 2;
  const at: SeatWords = { seat: SEAT, words: new Int32Array(256), interestAt: 8, ringingAt: (seat) => 10 + 32 * seat };
  const ringing = at.ringingAt(SEAT);

  function make(): { bell: TestBell; wakeups: Wakeups } {
    at.words.fill(0);
    const bell = new TestBell();
    const wakeups = new Wakeups(bell, at);
    opened.add(wakeups);
    return { bell, wakeups };
  }

  const WATCH = { hold: false, probe: false };
  const interest = (): number[] => [...at.words.subarray(8, 10)];

  test("open the bell before they return, and all look after a ring, when the ringing word is 0 again", () => {
    const { bell, wakeups } = make();
    expect(bell.opened).toBe(0);
    const seen: number[] = [];
    const look = (): boolean => seen.push(at.words[ringing] as number) < 0;
    wakeups.register(look, WATCH);
    expect([bell.opened, seen]).toEqual([1, []]);
    wakeups.register(look, { hold: true, probe: true });
    at.words[ringing] = 1;
    bell.hear?.();
    expect([bell.opened, seen]).toEqual([1, [0, 0]]);
  });

  test("that are released do not look any more, and those that are registered within a look wait for the next ring", () => {
    const { bell, wakeups } = make();
    const looks: string[] = [];
    const first = wakeups.register(() => {
      looks.push("first");
      first.release();
      second.release();
      wakeups.register(() => looks.push("third") < 0, WATCH);
      return true;
    }, WATCH);
    const second = wakeups.register(() => looks.push("second") < 0, WATCH);
    bell.hear?.();
    expect(looks).toEqual(["first"]);
    bell.hear?.();
    expect(looks).toEqual(["first", "third"]);
    first.release();
  });

  test("keep the interest in a class of buckets as long as one of them listens to it", () => {
    const { wakeups } = make();
    const waiters = [1, 2, 3].map(() => wakeups.register(() => false, WATCH));
    // As the engine sets the bits, and one that nobody counts.
    at.words.set([(1 << 3) | (1 << 31), (1 << 0) | (1 << 31)], 8);
    const [a, b, c] = waiters as [(typeof waiters)[0], (typeof waiters)[0], (typeof waiters)[0]];
    for (const [waiter, bucketClass] of [
      [a, 3],
      [a, 3],
      [b, 3],
      [b, 31],
      [c, 32],
      [c, 63],
      [a, 63],
    ] as const)
      waiter.listen(bucketClass);
    a.release();
    a.release();
    expect(interest()).toEqual([(1 << 3) | (1 << 31), (1 << 0) | (1 << 31)]);
    c.release();
    expect(interest()).toEqual([(1 << 3) | (1 << 31), 0]);
    c.listen(5);
    b.release();
    expect(interest()).toEqual([0, 0]);
  });

  test("of this thread itself are rung in a later task, once for all rings until then", async () => {
    const { bell, wakeups } = make();
    let looks = 0;
    const waiter = wakeups.register(() => ++looks < 0, WATCH);
    expect([wakeups.ring(SEAT), wakeups.ring(SEAT), wakeups.ring(1), wakeups.ring(3)]).toEqual([
      true,
      true,
      true,
      false,
    ]);
    await Promise.resolve();
    expect([looks, bell.rung]).toEqual([0, [1, 3]]);
    await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => setImmediate(resolve));
    expect(looks).toBe(1);
    waiter.release();
    wakeups.ring(SEAT);
    wakeups.close();
    await new Promise((resolve) => setImmediate(resolve));
    expect(looks).toBe(1);
  });

  test("that depend on another participant probe, again and again, and the others do not", async () => {
    const { wakeups } = make();
    let [probes, others] = [0, 0];
    wakeups.register(() => ++others < 0, WATCH);
    const began = performance.now();
    await new Promise<void>((resolve) => {
      const waiter = wakeups.register(
        () => {
          if (++probes < 4) return false;
          waiter.release();
          resolve();
          return true;
        },
        { hold: true, probe: true },
      );
    });
    // 5 + 10 + 20 + 40 milliseconds: a timer never comes too early, but by less than a millisecond.
    expect(performance.now() - began).toBeGreaterThan(70);
    expect([probes, wakeups.helped]).toEqual([4, 0]);
    expect(others).toBeLessThanOrEqual(1);
  });

  test("find a change of which no ring tells in the slow look, which is counted", async () => {
    const { bell, wakeups } = make();
    const waiter = wakeups.register(() => {
      waiter.release();
      return true;
    }, WATCH);
    at.words[8] = 1 << 5;
    waiter.listen(5);
    await eventually(() => bell.opened > 1);
    // Not yet: the ring may be under way. So long the class is announced.
    expect([wakeups.helped, interest()]).toEqual([0, [1 << 5, 0]]);
    await eventually(() => wakeups.helped === 1);
    expect(interest()).toEqual([0, 0]);
  });

  test("do not count a slow look whose ring comes a moment later", async () => {
    const { bell, wakeups } = make();
    let changed = true;
    const look = vi.fn(() => {
      const found = changed;
      changed = false;
      return found;
    });
    wakeups.register(look, WATCH);
    await eventually(() => look.mock.calls.length === 1);
    bell.hear?.();
    // The next slow look finds nothing.
    await eventually(() => look.mock.calls.length === 3);
    expect(wakeups.helped).toBe(0);
  });

  test("give a ring that is under way the time to come before the slow look, and count it if it does not", async () => {
    const { bell, wakeups } = make();
    let changed = true;
    const look = vi.fn(() => {
      const found = changed;
      changed = false;
      return found;
    });
    wakeups.register(look, WATCH);
    at.words[ringing] = 1;
    await eventually(() => bell.opened === 2);
    expect(look).not.toHaveBeenCalled();
    bell.hear?.();
    await eventually(() => bell.opened === 3);
    expect([look.mock.calls.length >= 1, wakeups.helped]).toEqual([true, 0]);
    // Who set the word was killed: nobody rings.
    at.words[ringing] = 1;
    changed = true;
    await eventually(() => !changed);
    expect([wakeups.helped, at.words[ringing]]).toEqual([1, 0]);
  });

  test("end with the cache, and registering after that does nothing", async () => {
    const { bell, wakeups } = make();
    const look = vi.fn(() => false);
    wakeups.register(look, { hold: true, probe: true }).listen(3);
    at.words.fill(-1, 8, 10);
    wakeups.close();
    wakeups.close();
    const late = wakeups.register(look, { hold: true, probe: true });
    late.listen(4);
    late.release();
    bell.hear?.();
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(look).not.toHaveBeenCalled();
    expect([bell.opened, bell.closed > 0]).toEqual([1, true]);
    // The words may belong to another thread by now.
    expect(at.words[9]).toBe(-1);
  });

  test("do not touch the words of another thread that has the seat after the cache was closed", async () => {
    const { bell, wakeups } = make();
    const waiter = wakeups.register(() => {
      waiter.release();
      return true;
    }, WATCH);
    // A slow look has found something, and would withdraw the interest a moment later.
    await eventually(() => bell.opened === 2);
    wakeups.ring(SEAT);
    wakeups.close();
    at.words.fill(-1);
    await new Promise((resolve) => setTimeout(resolve, 400));
    expect(at.words.every((word) => word === -1)).toBe(true);
    expect(wakeups.helped).toBe(0);
  });

  test("whose look throws do not stop the others, and the error is an uncaught one", async () => {
    const child = startProcess(
      `${JOIN}
       process.on("uncaughtException", (error) => send(error.message));
       let looks = 0;
       wait(() => { throw new Error("from a look"); });
       wait(() => { send("looked"); return true; }, { hold: true });
       send(seat);`,
      directory,
    );
    await message(child);
    const me = join();
    const messages: unknown[] = [];
    child.on("message", (each) => messages.push(each));
    expect(me.ring(0)).toBe(true);
    await eventually(() => messages.length === 2);
    expect(messages).toEqual(["looked", "from a look"]);
  });

  test("that hold keep their process alive until they are released, and watches do not", async () => {
    const child = startProcess(
      `${JOIN}
       wait(() => false);
       const waiter = wait(() => { send("looked"); waiter.release(); return true; }, { hold: true });
       process.on("beforeExit", () => send("idle"));
       process.channel.unref();
       send(seat);`,
      directory,
    );
    const me = join();
    const messages: unknown[] = [];
    const ended = once(child, "exit");
    child.on("message", (each) => messages.push(each));
    await eventually(() => messages.length === 1);
    expect(me.ring(messages[0] as number)).toBe(true);
    await ended;
    expect(messages.slice(1)).toEqual(["looked", "idle"]);
  });

  test("look outside of the asynchronous context in which they were registered", async () => {
    const contexts = new AsyncLocalStorage<string>();
    const me = join();
    const seen: unknown[] = [];
    contexts.run("a request", () => {
      const look = (): boolean => seen.push(contexts.getStore()) < 0;
      me.wakeups.register(look, { hold: true, probe: true });
    });
    me.region.bell.ring(0, 0);
    await eventually(() => seen.length > 2);
    contexts.run("another request", () => me.wakeups.ring(0));
    seen.length = 0;
    await eventually(() => seen.length > 0);
    expect(new Set(seen)).toEqual(new Set([undefined]));
  });

  test("are not stopped by fake timers", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "queueMicrotask", "performance"] });
    try {
      const { wakeups } = make();
      let probes = 0;
      wakeups.register(() => ++probes < 0, { hold: true, probe: true });
      await eventually(() => probes > 1);
    } finally {
      vi.useRealTimers();
    }
  });

  test("of an infinitely busy ring are not starved: each task looks once", () => {
    expect(
      run(`${JOIN}
      let looks = 0;
      const waiter = wait(() => { if (++looks === 3) { waiter.release(); console.log("done"); } else wakeups.ring(seat); });
      wakeups.ring(seat);`),
    ).toBe("done\n");
  });
});
