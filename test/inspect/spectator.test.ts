/**
 * The spectator: it reports what the cache itself reports, leaves no trace, needs no right to write, and survives any bytes. Other
 * participants are processes that are stopped and killed, and threads that are stopped with a lock.
 */

import { createHash } from "node:crypto";
import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Cache, CacheError, destroyCache, openCache } from "cache-machine";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { LAYOUT_VERSION, SEAT_BYTES, SEATS_AT } from "../../src/engine/contract.ts";
import { type KeyReport, Spectator } from "../../src/inspect/spectator.ts";
import { endOthers, inTime, startProcess, startThread, until } from "../coordinate/others.ts";
import { generator } from "../crash/checked-values.mjs";
import { Attacker, PLACES } from "../hostile/attacker.mjs";

const uid = process.getuid?.() as number;
const isRoot = uid === 0;
const directory = mkdtempSync("/dev/shm/spectator-test-");
const closing: (() => void)[] = [];
let names = 0;

/** Opens a cache that is destroyed at the end of the test. */
function open(size = "8mb"): { cache: Cache; name: string; file: string } {
  const name = `spectator-${process.pid}-${names++}`;
  const cache = openCache(name, { size });
  closing.push(() => {
    cache.close();
    destroyCache(name);
  });
  return { cache, name, file: `/dev/shm/cache-machine-${uid}-${name}.v${LAYOUT_VERSION}` };
}

function look(file: string): Spectator {
  const spectator = Spectator.open(file);
  closing.push(() => spectator.close());
  return spectator;
}

/** A copy of a cache's file under another name. */
function copy(file: string): string {
  const path = join(directory, `copy-${names++}`);
  copyFileSync(file, path);
  return path;
}

/** A key as text: bytes of any class are shown alike. */
const shown = (key: string | Uint8Array): string => (typeof key === "string" ? key : `bytes ${key.join()}`);

const hash = (file: string): string => createHash("sha256").update(readFileSync(file)).digest("hex");

/** The descriptors with which this process has a file open. */
function descriptorsOf(file: string): string[] {
  const { ino } = statSync(file);
  return readdirSync("/proc/self/fd").filter((fd) => {
    return statSync(`/proc/self/fd/${fd}`, { throwIfNoEntry: false })?.ino === ino;
  });
}

/** The lines of the mappings of a file in this process. */
function mappingsOf(file: string): string[] {
  const { ino } = statSync(file);
  return readFileSync("/proc/self/maps", "latin1")
    .split("\n")
    .filter((line) => line.split(/ +/)[4] === String(ino));
}

function codeOf(call: () => unknown): string | undefined {
  try {
    call();
  } catch (error) {
    return error instanceof CacheError ? error.code : (error as Error).name;
  }
  return undefined;
}

/** Calls everything that a spectator can do. */
function lookAtEverything(spectator: Spectator): void {
  spectator.stats();
  spectator.census();
  spectator.segments();
  spectator.occupancy();
  spectator.participants();
  spectator.holds();
  spectator.verify();
  for (const { key, namespace } of spectator.keys()) {
    try {
      spectator.entry(key, namespace)?.decode();
    } catch (error) {
      // Damaged bytes have this error. A damaged namespace may be none.
      if (!(error instanceof CacheError) && !(error instanceof RangeError)) throw error;
    }
  }
}

afterEach(async () => {
  await endOthers();
  for (const close of closing.splice(0).reverse()) close();
  for (const name of readdirSync(directory)) rmSync(join(directory, name));
});

afterAll(() => rmSync(directory, { recursive: true }));

// ---- what it reports

test("reports what the cache itself reports", () => {
  const { cache, file } = open();
  for (let i = 0; i < 500; i++) cache.set(`k${i}`, i);
  for (let i = 0; i < 100; i++) cache.get(`k${i}`);
  cache.get("absent");
  cache.delete("k0");
  cache.namespace("a").set("x", 1);
  const spectator = look(file);
  const { participants, hits, misses, sets, deletes, capacity, used, size } = cache.stats();
  expect(spectator.stats()).toMatchObject({ participants, hits, misses, sets, deletes, capacity, used, size });
  expect(spectator.census()).toMatchObject({ entries: 500, namespaced: 1 });
  expect(spectator.census().bytes).toBeGreaterThan(500 * 32);
  const { segments, index, indexPartEntries } = cache.inspect();
  expect(spectator.segments()).toEqual(segments.map((segment) => ({ ...segment, owner: undefined })));
  expect(spectator.occupancy()).toEqual({ room: indexPartEntries, parts: index });
  expect(spectator.participants()).toMatchObject([
    {
      ...{ seat: 0, pid: process.pid, threadId: 0, state: "alive", hits, misses, sets, deletes, evictions: 0 },
      ...{ nearHits: spectator.stats().nearHits, writing: false, waiting: false, hazard: null },
    },
  ]);
  expect(spectator.holds()).toEqual([]);
  expect(spectator.verify()).toEqual({ broken: [], certain: true });
  // What is changed later is seen too.
  cache.set("later", "seen");
  expect(spectator.entry("later")?.decode()).toBe("seen");
  cache.clear();
  expect(spectator.census().entries).toBe(0);
});

test("lists keys of every kind with their namespaces, and finds each of them", () => {
  const { cache, file } = open();
  const bytes = Uint8Array.of(0, 255, 7);
  const places: [Cache | ReturnType<Cache["namespace"]>, string[]][] = [
    [cache, []],
    [cache.namespace("user"), ["user"]],
    [cache.namespace("user").namespace("3:é"), ["user", "3:é"]],
    [cache.namespace("user3"), ["user3"]],
  ];
  const keys = ["", "text", "käse 🧀", "\ud800 alone", bytes, "t".repeat(4096)];
  for (const [place] of places) for (const key of keys) place.set(key, "v", { ttl: 60_000, tags: ["one", "two"] });
  const spectator = look(file);
  const listed = [...spectator.keys()];
  const told = (key: string | Uint8Array, path: readonly string[]): string => JSON.stringify([shown(key), path]);
  const wanted = places.flatMap(([, path]) => keys.map((key) => told(key, path)));
  expect(listed.map(({ key, namespace }) => told(key, namespace)).sort()).toEqual(wanted.sort());
  for (const { key, namespace, ttl, tags, bytes, class: queue, heat, valueType } of listed) {
    const entry = spectator.entry(key, namespace);
    expect(entry).toMatchObject({ key, namespace, tags, bytes, class: "small", heat: 0, valueType: "string" });
    expect(entry?.decode()).toBe("v");
    expect([tags, queue, heat, valueType]).toEqual([["one", "two"], "small", 0, "string"]);
    expect(ttl > 0 && ttl <= 60_000).toBe(true);
  }
  const keysOf = (options: object): string[] => [...spectator.keys(options)].map(({ key }) => shown(key)).sort();
  expect(keysOf({ namespace: [] })).toEqual(keys.map(shown).sort());
  expect(keysOf({ namespace: ["user"] })).toEqual(keys.map(shown).sort());
  expect(keysOf({ namespace: ["absent"] })).toEqual([]);
  expect(keysOf({ namespace: ["user", "3:é"], prefix: "tex" })).toEqual(["text"]);
  expect(keysOf({ prefix: "kä" })).toEqual(Array(4).fill("käse 🧀"));
  expect(spectator.entry("absent")).toBeUndefined();
  expect(spectator.entry("text", ["absent"])).toBeUndefined();
  expect(spectator.entry("x".repeat(5000))).toBeUndefined();
});

test("values of every type, with heat, class and time to live", () => {
  const { cache, file } = open();
  const values: Record<string, [unknown, string]> = {
    text: ["päper", "string"],
    number: [1.5, "number"],
    bigint: [-(2n ** 70n), "bigint"],
    yes: [true, "boolean"],
    nothing: [null, "null"],
    json: [{ a: [1, { b: "c" }] }, "object"],
    map: [new Map([[1, new Date(5)]]), "object"],
    buffer: [Buffer.from("xyz"), "Buffer"],
    floats: [new Float64Array([1, 2]), "Float64Array"],
    big: [new Uint8Array(300_000).fill(3), "Uint8Array"],
  };
  for (const [key, [value]] of Object.entries(values)) cache.set(key, value);
  cache.rateLimit("limit", { limit: 5, window: 60_000 });
  const spectator = look(file);
  for (const [key, [value, type]] of Object.entries(values)) {
    const entry = spectator.entry(key);
    expect(entry?.valueType).toBe(type);
    expect(entry?.decode()).toEqual(value);
  }
  expect(spectator.entry("limit")?.valueType).toBe("rate limit");
  const big = spectator.entry("big") as KeyReport;
  expect(big.bytes).toBeGreaterThan(300_000);
  expect(big.ttl).toBe(Infinity);
  for (let i = 0; i < 5; i++) cache.getEntry("json");
  expect(spectator.entry("json")?.heat).toBe(3);
  cache.set("short", 1, { ttl: 1 });
  const end = Date.now() + 2;
  while (Date.now() < end);
  expect(spectator.entry("short")).toBeUndefined();

  const encoded = openCache(`spectator-${process.pid}-codec`, {
    size: "1mb",
    codec: { encode: () => Buffer.from("own"), decode: () => ({}) },
  });
  closing.push(() => {
    encoded.close();
    destroyCache(`spectator-${process.pid}-codec`);
  });
  encoded.set("k", { a: 1 });
  const other = look(`/dev/shm/cache-machine-${uid}-spectator-${process.pid}-codec.v${LAYOUT_VERSION}`).entry("k");
  expect(other).toMatchObject({ foreign: true, valueType: "codec" });
  expect(Buffer.from(other?.value as Uint8Array).toString()).toBe("own");
  expect(codeOf(() => other?.decode())).toBe("ERR_DATA");
});

// ---- what it leaves behind

test("leaves no trace in the file, and takes no seat", () => {
  const { cache, file } = open();
  for (let i = 0; i < 2000; i++) cache.set(`k${i}`, { i }, { tags: ["t"], ttl: 60_000 });
  cache.set("big", new Uint8Array(500_000));
  const { participants } = cache.stats();
  const before = hash(file);
  const spectator = look(file);
  lookAtEverything(spectator);
  expect(spectator.entry("absent")).toBeUndefined();
  expect(codeOf(() => spectator.occupancy(3))).toBe("RangeError");
  // Nobody but the participant has locked a byte, and the descriptor may not write.
  const fds = descriptorsOf(file);
  const flags = fds.map((fd) => /flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"))?.[1]);
  expect(flags.map((octal) => Number.parseInt(octal as string, 8) & 3).sort()).toEqual([0, 2]);
  const locks = fds.flatMap((fd) => readFileSync(`/proc/self/fdinfo/${fd}`, "latin1").match(/lock:.*/g) ?? []);
  expect(locks.length).toBe(1);
  // The memory is a private mapping, which the kernel shows by `p`.
  const maps = mappingsOf(file);
  expect(maps.map((line) => line.split(" ")[1]).sort()).toEqual(["rw-p", "rw-s"]);
  spectator.close();
  expect(hash(file)).toBe(before);
  expect(cache.stats().participants).toBe(participants);
});

test("no page of its mapping becomes a private copy", () => {
  const { cache, file } = open("1mb");
  for (let i = 0; i < 1000; i++) cache.set(`k${i}`, i);
  const spectator = look(file);
  lookAtEverything(spectator);
  // A store would show as anonymous memory in the mapping.
  const maps = readFileSync("/proc/self/smaps", "latin1").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const mine = maps.filter((map) => map.includes(file) && / rw-p /.test(map));
  expect(mine.length).toBe(1);
  expect(/^Anonymous:\s+(\d+) kB/m.exec(mine[0] as string)?.[1]).toBe("0");
  expect(Number(/^Rss:\s+(\d+) kB/m.exec(mine[0] as string)?.[1])).toBeGreaterThan(0);
});

test("close unmaps and closes the file, and everything throws ERR_CLOSED afterwards", () => {
  const { cache, file } = open("1mb");
  cache.set("k", 1);
  const uses = (): number => mappingsOf(file).length + descriptorsOf(file).length;
  const before = uses();
  for (let i = 0; i < 20; i++) {
    const spectator = Spectator.open(file);
    expect(spectator.census().entries).toBe(1);
    const walk = spectator.keys()[Symbol.iterator]();
    spectator.close();
    spectator.close();
    const calls: (() => unknown)[] = [
      () => spectator.stats(),
      () => spectator.census(),
      () => spectator.segments(),
      () => spectator.occupancy(),
      () => spectator.participants(),
      () => spectator.holds(),
      () => spectator.keys(),
      () => walk.next(),
      () => spectator.entry("k"),
      () => spectator.verify(),
    ];
    for (const call of calls) expect(codeOf(call)).toBe("ERR_CLOSED");
  }
  expect(uses()).toBe(before);
});

// ---- what it opens

test.runIf(isRoot)("another user needs the right to read, and no right to write", () => {
  const { cache, file } = open("1mb");
  cache.set("k", "read");
  const readable = copy(file);
  chmodSync(readable, 0o400);
  chownSync(readable, 65_534, 65_534);
  chmodSync(directory, 0o755);
  process.seteuid?.(65_534);
  try {
    expect(codeOf(() => openSync(readable, "r+"))).toBe("Error");
    const spectator = look(readable);
    expect(spectator.entry("k")?.decode()).toBe("read");
    lookAtEverything(spectator);
    // The seat was copied too, and nobody holds its lock in the copy.
    expect(spectator.participants()).toMatchObject([{ seat: 0, pid: process.pid, state: "dead" }]);
    expect(codeOf(() => Spectator.open(file))).toBe("ERR_NOT_OWNER");
  } finally {
    process.seteuid?.(0);
  }
  // Root looks at the file of another user.
  expect(look(readable).entry("k")?.decode()).toBe("read");
});

test("refuses what is no cache of this version", () => {
  const { file } = open("1mb");
  expect(codeOf(() => Spectator.open(join(directory, "absent")))).toBe("ERR_CLOSED");
  expect(codeOf(() => Spectator.open(join(file, "within")))).toBe("ERR_UNSUPPORTED");
  expect(codeOf(() => Spectator.open(directory))).toBe("ERR_LAYOUT");
  expect(codeOf(() => Spectator.open("/dev/null"))).toBe("ERR_LAYOUT");
  expect(codeOf(() => Spectator.open(undefined as never))).toBe("TypeError");
  const link = join(directory, "link");
  symlinkSync(file, link);
  expect(codeOf(() => Spectator.open(link))).toBe("ERR_LAYOUT");
  for (const [at, bytes] of [
    [0, [1]],
    [8, [LAYOUT_VERSION + 1]],
    [18, [0x20]],
  ] as const) {
    const other = copy(file);
    const fd = openSync(other, "r+");
    writeSync(fd, Uint8Array.from(bytes), 0, 1, at);
    closeSync(fd);
    expect(codeOf(() => Spectator.open(other))).toBe("ERR_LAYOUT");
  }
  for (const size of [0, 63, 65_536, 524_288, (1 << 20) - 1]) {
    const short = copy(file);
    truncateSync(short, size);
    expect(codeOf(() => Spectator.open(short))).toBe("ERR_LAYOUT");
  }
  const fds = readdirSync("/proc/self/fd").length;
  for (let i = 0; i < 50; i++) codeOf(() => Spectator.open(directory));
  expect(readdirSync("/proc/self/fd").length).toBe(fds);
});

test("no code of the package makes a file shorter, so the mapping of a cache never ends within the file", () => {
  const root = fileURLToPath(new URL("../../", import.meta.url));
  for (const folder of ["src", "native"]) {
    for (const name of readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })) {
      if (!/\.(ts|c)$/.test(name)) continue;
      const code = readFileSync(join(root, folder, name), "utf8").replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");
      expect(/ftruncate|truncateSync|O_TRUNC|PUNCH_HOLE/.test(code), name).toBe(false);
    }
  }
});

describe("any bytes", () => {
  test("behind a good header", () => {
    const { file } = open("1mb");
    for (let seed = 1; seed <= 12; seed++) {
      const path = copy(file);
      const bytes = readFileSync(path);
      const { next } = generator(seed);
      for (let at = 64; at < bytes.length; at += 4) bytes.writeUInt32LE(next(), at);
      writeFileSync(path, bytes);
      lookAtEverything(look(path));
    }
  });

  test("in a cache that is damaged step by step while it is looked at", () => {
    const { cache, file } = open("1mb");
    for (let i = 0; i < 400; i++) cache.set(`k${i}`, i % 3 === 0 ? { i } : "t".repeat(i), { tags: [`t${i % 5}`] });
    for (let i = 0; i < 50; i++) cache.namespace(`n${i % 4}`).set(`k${i}`, i);
    cache.set("big", "x".repeat(100_000));
    const path = copy(file);
    const fd = openSync(path, "r+");
    const memory = {
      read(at: number, length: number): Buffer {
        const bytes = Buffer.alloc(length);
        readSync(fd, bytes, 0, length, at);
        return bytes;
      },
      write: (at: number, bytes: Uint8Array): unknown => writeSync(fd, bytes, 0, bytes.length, at),
    };
    const attacker = new Attacker(generator(19), memory);
    const spectator = look(path);
    try {
      const parts = Attacker.parts.filter((part) => part !== "identity");
      for (let round = 0; round < 60; round++) {
        for (const part of parts) for (let i = 0; i < 5; i++) attacker.attack(part);
        lookAtEverything(spectator);
      }
    } finally {
      closeSync(fd);
    }
  });

  test("verify finds an entry that leads nowhere, and nothing when it is as it was", () => {
    const { cache, file } = open("1mb");
    for (let i = 0; i < 100; i++) cache.set(`k${i}`, i);
    const path = copy(file);
    const bytes = readFileSync(path);
    const [from, to] = PLACES.index as [number, number];
    let at = from;
    while (at < to && (at % 128 === 120 || ((bytes.readUInt32LE(at + 4) >>> 12) & 3) === 0)) at += 8;
    const entry = bytes.subarray(at, at + 8);
    const spectator = look(path);
    const put = (word: Uint8Array): void => {
      const fd = openSync(path, "r+");
      writeSync(fd, word, 0, 8, at);
      closeSync(fd);
    };
    const wrong = Buffer.from(entry);
    wrong.writeUInt32LE((entry.readUInt32LE(0) & 0xf0000000) | 1, 0);
    put(wrong);
    expect(spectator.verify()).toEqual({ broken: ["an entry of the index leads to no record"], certain: true });
    put(entry);
    expect(spectator.verify()).toEqual({ broken: [], certain: true });
  });
});

// ---- other participants

test("lists 50,000 keys while four processes write, each key once, and no value is torn", async () => {
  const { cache, name, file } = open("64mb");
  const KEYS = 50_000;
  for (let i = 0; i < KEYS; i++) cache.set(`k${i}`, `k${i} 0;`.repeat(1 + (i % 9)));
  const writing = [1, 2, 3, 4].map((writer) =>
    startProcess(name).run(
      (cache, writer, keys) => {
        const end = Date.now() + 60_000;
        // Another writer that the system has stopped in a change is in the way of this one.
        const set = (key: string, value: string): void => {
          try {
            cache.set(key, value);
          } catch (error) {
            if ((error as CacheError).code !== "ERR_BUSY") throw error;
          }
        };
        let writes = 0;
        do {
          for (let i = 0; i < 200; i++, writes++) {
            const key = `k${Math.floor(Math.random() * keys)}`;
            set(key, `${key} ${writer * 1e9 + writes};`.repeat(1 + (writes % 30)));
          }
          set("large", `large ${writer * 1e9 + writes};`.repeat(20_000));
        } while (!cache.has("stop") && Date.now() < end);
        return writes;
      },
      writer,
      KEYS,
    ),
  );
  await until(() => cache.stats().participants === 5 && cache.has("large"), "the writers write");
  const spectator = look(file);
  const before = spectator.stats().sets;
  let large = 0;
  const check = (key: string): void => {
    const value = spectator.entry(key)?.decode();
    if (value === undefined) return;
    const first = (value as string).slice(0, (value as string).indexOf(";") + 1);
    expect(first.startsWith(`${key} `) && first.repeat((value as string).length / first.length) === value, key).toBe(
      true,
    );
  };
  for (let walk = 0; walk < 2; walk++) {
    const seen = new Set<string>();
    for (const { key } of spectator.keys({ prefix: "k" })) {
      expect(seen.has(key as string)).toBe(false);
      seen.add(key as string);
      check(key as string);
      if (seen.size % 5000 === 0 && codeOf(() => check("large")) === undefined) large++;
    }
    expect(seen.size).toBe(KEYS);
    spectator.holds();
    spectator.participants();
  }
  expect(spectator.stats().sets).toBeGreaterThan(before);
  expect(large).toBeGreaterThan(0);
  expect(spectator.verify().broken).toEqual([]);
  await until(() => codeOf(() => cache.set("stop", 1)) === undefined, "the writers are told to stop");
  for (const writes of await inTime(Promise.all(writing), "the writers end")) expect(writes).toBeGreaterThan(0);
  expect(cache.stats().participants).toBe(5);
});

test("tells participants that live, are frozen and are dead", async () => {
  const { cache, name, file } = open("1mb");
  const [alive, frozen, killed] = [startProcess(name), startProcess(name), startProcess(name)];
  const thread = startThread(cache.handle);
  for (const other of [alive, frozen, killed, thread]) await other.run((cache) => void cache.set("k", 1));
  const spectator = look(file);
  const pidOf = ({ side }: typeof alive): number => (side as { pid: number }).pid;
  const states = (): Record<string, string> =>
    Object.fromEntries(spectator.participants().map(({ pid, threadId, state }) => [`${pid} ${threadId > 0}`, state]));
  const expected = {
    [`${process.pid} false`]: "alive",
    [`${process.pid} true`]: "alive",
    [`${pidOf(alive)} false`]: "alive",
    [`${pidOf(frozen)} false`]: "alive",
    [`${pidOf(killed)} false`]: "alive",
  };
  expect(states()).toEqual(expected);
  await frozen.freeze();
  await killed.kill();
  const now = { ...expected, [`${pidOf(frozen)} false`]: "frozen", [`${pidOf(killed)} false`]: "dead" };
  expect(states()).toEqual(now);
  // Looking reaps nobody, another participant does.
  expect(spectator.stats().participants).toBe(5);
  expect(cache.stats().participants).toBe(4);
  expect(spectator.participants().map(({ pid }) => pid)).not.toContain(pidOf(killed));
  frozen.thaw();
  await until(() => states()[`${pidOf(frozen)} false`] === "alive", "it goes on");

  // A process id that is another process's here, as that of another container is: without the file it is not the one that is meant.
  const seat = spectator.participants().find(({ pid }) => pid === pidOf(alive))?.seat as number;
  const fd = openSync(file, "r+");
  const word = Buffer.alloc(4);
  word.writeUInt32LE(process.ppid);
  writeSync(fd, word, 0, 4, SEATS_AT + SEAT_BYTES * seat + 48);
  expect(states()[`${process.ppid} false`]).toBe("unknown");
  word.writeUInt32LE(pidOf(alive));
  writeSync(fd, word, 0, 4, SEATS_AT + SEAT_BYTES * seat + 48);
  closeSync(fd);
});

test("finds the lock of a bucket that a stopped process holds, and not one whose holder has left", async () => {
  const { name, file } = open("1mb");
  const other = startProcess(name);
  await other.run((cache) => void cache.set("k", 1));
  await other.freeze();
  const spectator = look(file);
  expect(spectator.holds()).toEqual([]);
  const { pid } = other.side as { pid: number };
  const seat = spectator.participants().find((each) => each.pid === pid)?.seat as number;
  const fd = openSync(file, "r+");
  try {
    const word = Buffer.alloc(8);
    readSync(fd, word, 0, 8, SEATS_AT + SEAT_BYTES * seat);
    const incarnation = BigInt(word.readUInt32LE(0));
    const control = (PLACES.index as [number, number])[0] + 17 * 128 + 120;
    const hold = (of: bigint): void => {
      word.writeBigUInt64LE((BigInt(seat + 1) << 48n) | (of << 16n) | 5n);
      writeSync(fd, word, 0, 8, control);
    };
    hold(incarnation);
    expect(spectator.holds()).toEqual([{ kind: "bucket", number: 17, seat, pid, threadId: 0, state: "frozen" }]);
    expect(spectator.verify().certain).toBe(false);
    hold(incarnation + 1n);
    expect(spectator.holds()).toEqual([]);
    // The hazard of a writer that was stopped in a segment.
    word.writeBigUInt64LE(4n);
    writeSync(fd, word, 0, 8, SEATS_AT + SEAT_BYTES * seat + 8);
    expect(spectator.holds()).toEqual([{ kind: "segment", number: 3, seat, pid, threadId: 0, state: "frozen" }]);
    expect(spectator.participants().find((each) => each.pid === pid)?.hazard).toBe(3);
    writeSync(fd, Buffer.alloc(8), 0, 8, SEATS_AT + SEAT_BYTES * seat + 8);
    writeSync(fd, Buffer.alloc(8), 0, 8, control);
    expect(spectator.holds()).toEqual([]);
    // A segment that was being emptied: RECLAIM in its first life, and who does it.
    word.writeBigUInt64LE((1n << 32n) | ((incarnation & 0xffffn) << 16n) | (BigInt(seat) << 4n) | 3n);
    writeSync(fd, word, 0, 8, (PLACES.states as [number, number])[0] + 8 * 40);
    expect(spectator.segments()[40]).toMatchObject({ state: "reclaim", owner: seat });
    expect(spectator.holds()).toEqual([{ kind: "segment", number: 40, seat, pid, threadId: 0, state: "frozen" }]);
  } finally {
    closeSync(fd);
  }
});

test("finds the lock of a bucket in which a thread was really stopped", async () => {
  const { cache, file } = open("1mb");
  const [CALLS, STOPPED, OPEN] = [0, 1, 2];
  const gate = new Int32Array(new SharedArrayBuffer(12)).fill(-1, 0, 1);
  const other = startThread(cache.handle, gate);
  await other.run((cache) => void cache.set("k", 0, { ttl: 3_600_000 }));
  const spectator = look(file);
  let held: ReturnType<Spectator["holds"]> = [];
  for (let nth = 0; nth < 20 && !held.some(({ kind }) => kind === "bucket"); nth++) {
    for (const at of [STOPPED, OPEN]) Atomics.store(gate, at, 0);
    Atomics.store(gate, CALLS, nth);
    let over = false;
    const touched = other.run((cache) => cache.touch("k", 3_600_000)).then(() => (over = true));
    await until(() => over || Atomics.load(gate, STOPPED) === 1, "it stops or is done");
    held = spectator.holds();
    Atomics.store(gate, OPEN, 1);
    Atomics.notify(gate, OPEN);
    await inTime(touched, "it goes on");
  }
  expect(held.filter(({ kind }) => kind === "bucket")).toMatchObject([{ pid: process.pid, state: "alive" }]);
  expect(held.find(({ kind }) => kind === "bucket")?.threadId).toBeGreaterThan(0);
  expect(spectator.holds()).toEqual([]);
});

test("lists locks, requests for them and loads, also those of a stopped process", async () => {
  const { cache, name, file } = open("1mb");
  const other = startProcess(name);
  await other.run((cache) => {
    void cache.locks.request("the lock", () => new Promise(() => {}));
    void cache.locks.request("n".repeat(200), () => new Promise(() => {}));
    void cache.getOrSet("loaded", () => new Promise(() => {}));
    return new Promise((resolve) => setImmediate(resolve));
  });
  await until(() => cache.locks.query().held.length === 2, "it has the locks");
  const waiting = cache.locks.request("the lock", () => {});
  waiting.catch(() => {});
  const spectator = look(file);
  await until(() => spectator.holds().length === 4, "the request and the load are there");
  const holds = (): unknown[] =>
    spectator
      .holds()
      .map(({ kind, name, pid, state, pending }) => [kind, name, pid, state, pending].map(String).join(" "))
      .sort();
  const { pid } = other.side as { pid: number };
  const told = (state: string): unknown[] => [
    `load undefined ${pid} ${state} undefined`,
    `lock ${"n".repeat(72)}… ${pid} ${state} false`,
    `lock the lock ${pid} ${state} false`,
    `lock the lock ${process.pid} alive true`,
  ];
  expect(holds()).toEqual(told("alive").sort());
  const load = spectator.holds().find(({ kind }) => kind === "load");
  expect(load?.hash).toMatch(/^[0-9a-f]{16}$/);
  expect(load?.deadline).toBeGreaterThan(0);
  expect(spectator.participants().find((each) => each.pid === process.pid)?.waiting).toBe(true);
  await other.freeze();
  expect(holds()).toEqual(told("frozen").sort());
  await other.kill();
  expect(await inTime(waiting, "the lock of the dead is granted")).toBeUndefined();
  await until(() => spectator.holds().every((hold) => hold.state === "dead" || hold.pid === process.pid), "it is dead");
});

test("reads large values whole while they are replaced", async () => {
  const { cache, name, file } = open("64mb");
  const LENGTH = 6_000_000;
  cache.set("large", new Uint8Array(LENGTH).fill(1));
  const other = startProcess(name);
  const writing = other.run((cache, length) => {
    const end = Date.now() + 60_000;
    let n = 1;
    for (; !cache.has("stop") && Date.now() < end; n++) cache.set("large", new Uint8Array(length).fill(n % 256));
    return n;
  }, LENGTH);
  const spectator = look(file);
  const start = spectator.stats().sets;
  let read = 0;
  await until(() => {
    const code = codeOf(() => {
      const entry = spectator.entry("large");
      if (entry === undefined) return;
      expect(entry.value.length).toBe(LENGTH);
      expect(entry.value.every((byte) => byte === entry.value[0])).toBe(true);
      read++;
    });
    expect([undefined, "ERR_BUSY"]).toContain(code);
    return read >= 5 && spectator.stats().sets > start + 5;
  }, "it is read and replaced");
  await until(() => codeOf(() => cache.set("stop", 1)) === undefined, "the writers are told to stop");
  expect(await inTime(writing, "the writer ends")).toBeGreaterThan(1);
});
