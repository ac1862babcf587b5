/** The numbers of `top` from looks, and its screen as text. */

import { Chalk } from "chalk";
import stringWidth from "string-width";
import { describe, expect, test } from "vitest";
import { type Counters, type HoldLook, type Look, Sampler, type SeatLook } from "../../src/cli/top/sample.ts";
import { draw, plain, SORTS, short, sort, spark, type View } from "../../src/cli/top/screen.ts";

const NONE: Counters = {
  hits: 0,
  misses: 0,
  sets: 0,
  deletes: 0,
  evictions: 0,
  expirations: 0,
  reclaims: 0,
  nearHits: 0,
  used: 10 << 20,
  capacity: 60 << 20,
  size: 64 << 20,
};
const seat = (more: Partial<SeatLook> = {}): SeatLook => ({
  seat: 0,
  pid: 100,
  threadId: 0,
  state: "alive",
  hits: 0,
  misses: 0,
  sets: 0,
  deletes: 0,
  nearHits: 0,
  clock: 0,
  freezer: null,
  ...more,
});
const look = (
  at: number,
  more: Partial<Omit<Look, "at" | "counters">> = {},
  counters: Partial<Counters> = {},
): Look => ({
  at,
  wall: [1_000_000 + at, 1_000_000 + at],
  counters: { ...NONE, ...counters },
  seats: [seat()],
  allSeats: 1024,
  holds: [],
  census: { entries: 5, bytes: 500 },
  disk: undefined,
  ...more,
});
const hold = (more: Partial<HoldLook> = {}): HoldLook => ({
  seat: 0,
  what: 'lock "a"',
  waits: false,
  brief: false,
  ...more,
});

describe("frames", () => {
  test("the first has shares of the whole past and no rates", () => {
    const frame = new Sampler().frame(look(1000, {}, { hits: 3, misses: 1, nearHits: 2 }));
    expect(frame).toMatchObject({
      elapsed: 0,
      rates: null,
      hitRatio: 0.75,
      nearShare: 0.5,
      evictions: null,
      entries: 5,
    });
  });

  test("rates are per second of the time between the looks", () => {
    const sampler = new Sampler();
    sampler.frame(look(1000, {}, { hits: 1000, misses: 1000 }));
    const frame = sampler.frame(
      look(3000, {}, { hits: 1090, misses: 1010, sets: 40, deletes: 10, evictions: 6, reclaims: 1, nearHits: 30 }),
    );
    expect(frame.rates).toEqual({ operations: 75, reads: 50, sets: 20, deletes: 5 });
    expect(frame).toMatchObject({ elapsed: 2000, hitRatio: 0.9, nearShare: 0.3, evictions: 3, reclaims: 0.5 });
    expect(sampler.history).toEqual([{ at: 3000, operations: 75, hitRatio: 0.9 }]);
  });

  test("an interval without reads has no hit ratio, and one without time no rates", () => {
    const sampler = new Sampler();
    sampler.frame(look(1000, {}, { hits: 5 }));
    expect(sampler.frame(look(2000, {}, { hits: 5 })).hitRatio).toBe(null);
    expect(sampler.frame(look(2000, {}, { hits: 9 })).rates).toBe(null);
  });

  test("counters that go back are no rates", () => {
    const sampler = new Sampler();
    sampler.frame(look(1000, { seats: [seat({ hits: 9 })] }, { hits: 9 }));
    const frame = sampler.frame(look(2000, { seats: [seat({ hits: 2 })] }, { hits: 2 }));
    expect(frame.rates).toBe(null);
    expect(frame.participants[0]?.rates).toBe(null);
  });

  test("memory that is given back is no reason to leave out the rates", () => {
    const sampler = new Sampler();
    sampler.frame(look(1000));
    expect(sampler.frame(look(2000, {}, { sets: 4, used: 1 << 20 })).rates).toMatchObject({ sets: 4 });
  });

  test("a participant has rates of its own, and one that has taken over its seat has none of the former", () => {
    const sampler = new Sampler();
    sampler.frame(look(0, { seats: [seat({ hits: 10 }), seat({ seat: 1, pid: 200, hits: 10 })] }));
    const frame = sampler.frame(
      look(1000, { seats: [seat({ hits: 14, misses: 4, nearHits: 2 }), seat({ seat: 1, pid: 201, hits: 30 })] }),
    );
    expect(frame.participants[0]).toMatchObject({ pid: 100, rates: { operations: 8 }, nearShare: 0.25 });
    expect(frame.participants[1]).toMatchObject({ pid: 201, rates: null });
  });

  test("a lock is held since it was first seen; when it was away in between, since then", () => {
    const sampler = new Sampler();
    const since = (at: number, holds: HoldLook[]) =>
      sampler.frame(look(at, { holds })).participants[0]?.holds[0]?.since;
    expect(since(1000, [hold()])).toBe(0);
    expect(since(4000, [hold()])).toBe(3000);
    expect(since(5000, [])).toBe(undefined);
    expect(since(6000, [hold()])).toBe(0);
  });

  test("what is waited for is not held", () => {
    const frame = new Sampler().frame(look(1000, { holds: [hold({ waits: true })] }));
    expect(frame.participants[0]).toMatchObject({ holds: [], waitsFor: [{ what: 'lock "a"' }] });
  });

  test("the same bucket in two looks is another hold, unless the participant has stood still", () => {
    const sampler = new Sampler();
    const holds = [hold({ what: "bucket 7", brief: true })];
    const since = (at: number, sets: number) =>
      sampler.frame(look(at, { holds, seats: [seat({ sets })] })).participants[0]?.holds[0]?.since;
    expect([since(1000, 1), since(2000, 2), since(3000, 2), since(5000, 2)]).toEqual([0, 0, 1000, 3000]);
    const codes = sampler.frame(look(6000, { holds, seats: [seat({ sets: 2 })] })).warnings.map(({ code }) => code);
    expect(codes).toEqual(["long-hold"]);
  });
});

describe("warnings", () => {
  /** The warnings after looks at the given counters, 10 s apart. */
  const codes = (...looks: Look[]) => {
    const sampler = new Sampler();
    return looks
      .map((each) => sampler.frame(each))
      .at(-1)
      ?.warnings.map(({ code }) => code);
  };

  test("none when all is well", () => {
    expect(codes(look(0), look(10_000, {}, { hits: 900, misses: 100, sets: 100 }))).toEqual([]);
  });

  test("a frozen holder, before one that only is frozen, before the dead", () => {
    const seats = [
      seat({ seat: 2, pid: 300, state: "dead" }),
      seat({ seat: 1, pid: 200, state: "frozen" }),
      seat({ state: "frozen" }),
    ];
    const sampler = new Sampler();
    sampler.frame(look(0, { seats, holds: [hold()] }));
    const { warnings } = sampler.frame(look(3000, { seats, holds: [hold()] }));
    expect(warnings.map(({ code }) => code)).toEqual(["frozen-holder", "frozen", "dead"]);
    expect(warnings[0]?.text).toBe(
      'process 100 is stopped and holds lock "a" for 3 s: kill -CONT 100, or end it with kill -9 100.',
    );
  });

  test.each([
    ["/sys/fs/cgroup/web/cgroup.freeze", "0"],
    ["/sys/fs/cgroup/freezer/web/freezer.state", "THAWED"],
  ])("one that a freezer has stopped, by %s", (freezer, value) => {
    const seats = [seat({ state: "frozen", freezer }), seat({ seat: 1, pid: 200, state: "frozen", freezer })];
    const { warnings } = new Sampler().frame(look(0, { seats, holds: [hold()] }));
    const remedy = `docker unpause, systemctl thaw, or write ${value} into ${freezer}.`;
    expect(warnings.map(({ text }) => text)).toEqual([
      `process 100 is stopped by the freezer of its control group and holds lock "a": ${remedy}`,
      `1 participant is stopped: pid 200. A freezer has stopped it: ${remedy}`,
    ]);
  });

  test("one that is stopped while it waits holds nobody up", () => {
    const frame = look(0, { seats: [seat({ state: "frozen" })], holds: [hold({ waits: true })] });
    expect(codes(frame)).toEqual(["frozen"]);
  });

  const pressed = { hits: 100, misses: 900, sets: 900, evictions: 800, used: 59 << 20 };
  test.each([
    ["too small", {}, ["too-small"]],
    ["most reads find a value", { hits: 2000 }, []],
    ["hardly anything has to make room", { evictions: 5 }, []],
    ["the memory is not full", { used: 10 << 20 }, []],
    ["nobody reads", { hits: 0, misses: 0 }, []],
  ])("evictions: %s", (_, change, expected) => {
    expect(codes(look(0), look(10_000, {}, { ...pressed, ...change }))).toEqual(expected);
  });

  test.each([
    ["thrashing", { hits: 20_000, nearHits: 500 }, 10_000, ["near-thrashing"]],
    ["turned off", { hits: 20_000, nearHits: 0 }, 10_000, []],
    ["good", { hits: 20_000, nearHits: 10_000 }, 10_000, []],
    ["few reads", { hits: 2_000, nearHits: 50 }, 10_000, []],
    ["reads that find nothing", { hits: 500, misses: 20_000, nearHits: 50 }, 10_000, []],
    ["a cold start", { hits: 20_000, nearHits: 500 }, 1_000, []],
  ])("near cache: %s", (_, counts, after, expected) => {
    expect(codes(look(0), look(after, { seats: [seat(counts)] }, { hits: counts.hits }))).toEqual(expected);
  });

  test("clocks that were asked between the looks, and are others", () => {
    const at = (clock: number, pid = 100) => seat({ clock, pid, seat: pid });
    const frame = (before: SeatLook[], after: SeatLook[]) => {
      const sampler = new Sampler();
      sampler.frame(look(0, { seats: before }));
      return sampler.frame(look(2000, { seats: after })).warnings.map(({ text }) => text);
    };
    const remedy = "what it stores expires for others at another time. Give all of them one clock.";
    // The wall clock is at 1,000,000 and at 1,002,000.
    expect(frame([at(5)], [at(1_001_000)])).toEqual([]);
    expect(frame([at(5)], [at(5)])).toEqual([]);
    expect(frame([at(5)], [at(998_999)])).toEqual([`the clock of process 100 is 3 s behind: ${remedy}`]);
    expect(frame([at(5), at(5, 200)], [at(4_602_000), at(4_602_000, 200)])).toEqual([
      `the clock of process 100 is 3,600 s ahead, and that of 1 more differs: ${remedy}`,
    ]);
    expect(codes(look(0, { seats: [at(5)] }))).toEqual([]);
  });

  test("all seats are taken", () => {
    const seats = Array.from({ length: 4 }, (_, at) => seat({ seat: at }));
    expect(codes(look(0, { seats, allSeats: 4 }))).toEqual(["seats"]);
    expect(codes(look(0, { seats, allSeats: 5 }))).toEqual([]);
    const withDead = [...seats.slice(1), seat({ state: "dead" })];
    expect(codes(look(0, { seats: withDead, allSeats: 4 }))).toEqual(["dead"]);
  });

  test("a file system with less than a twentieth free", () => {
    expect(codes(look(0, { disk: { free: 5 << 20, total: 101 << 20 } }))).toEqual(["disk-full"]);
    expect(codes(look(0, { disk: { free: 6 << 20, total: 101 << 20 } }))).toEqual([]);
  });
});

/** A cache under load: four writers, and one process that stands still with a lock. */
function busy(participants: number): { sampler: Sampler; frame: ReturnType<Sampler["frame"]> } {
  const sampler = new Sampler();
  let frame: ReturnType<Sampler["frame"]> | undefined;
  for (let i = 0; i <= 90; i++) {
    const seats = Array.from({ length: participants }, (_, n) =>
      seat({
        seat: n,
        pid: 4000 + n,
        threadId: n % 3,
        state: n === 1 ? "frozen" : n === 2 ? "dead" : "alive",
        hits: n === 1 || n === 2 ? 100 : i * 1000 * (n + 1),
        misses: i * 10,
        sets: n === 1 || n === 2 ? 50 : i * 100,
        nearHits: n === 1 || n === 2 ? 20 : i * 400 * (n + 1),
      }),
    );
    const holds =
      participants > 1
        ? [hold({ seat: 1, what: 'lock "report"' }), hold({ seat: 0, what: "load 9f2c", waits: true })]
        : [];
    const counters = {
      hits: i * 9000 + 500 * Math.abs((i % 20) - 10),
      misses: i * 1000,
      sets: i * 400,
      nearHits: i * 4000,
    };
    frame = sampler.frame(look(i * 1000, { seats, holds, census: { entries: 123_456, bytes: 40 << 20 } }, counters));
  }
  return { sampler, frame: frame as ReturnType<Sampler["frame"]> };
}

const view = (columns: number, rows: number, participants: number, more: Partial<View> = {}): View => {
  const { sampler, frame } = busy(participants);
  return {
    name: "sessions",
    frame,
    history: sampler.history,
    time: "12:34:56",
    interval: 1,
    sort: "ops",
    offset: 0,
    paused: false,
    help: false,
    columns,
    rows,
    ...more,
  };
};
const uncoloured = new Chalk({ level: 0 });
const screen = (...args: Parameters<typeof view>): string[] => draw(view(...args), uncoloured);

describe("the screen", () => {
  test("looks as in top-screens.txt", async () => {
    const sizes = [
      [80, 24, 1],
      [80, 24, 5],
      [60, 20, 5],
      [120, 40, 5],
      [120, 40, 200],
    ] as const;
    const screens = sizes.map(([columns, rows, participants]) => {
      const lines = screen(columns, rows, participants).map((line) => line.trimEnd());
      return [`${columns} × ${rows}, participants: ${participants}`, "", ...lines, ""].join("\n");
    });
    await expect(screens.join("\n")).toMatchFileSnapshot("top-screens.txt");
  });

  test("has as many lines as the terminal, none of them too wide, whatever the size", () => {
    for (const [columns, rows] of [
      [80, 24],
      [60, 20],
      [120, 40],
      [300, 100],
      [40, 10],
      [20, 5],
      [10, 3],
      [3, 2],
      [1, 1],
    ] as const) {
      for (const participants of [0, 1, 200]) {
        for (const more of [{}, { help: true }, { frame: undefined, message: "gone ".repeat(50) }]) {
          const lines = screen(columns, rows, participants, more);
          expect(lines).toHaveLength(rows);
          expect(lines.filter((line) => stringWidth(line) > columns)).toEqual([]);
        }
      }
    }
  });

  test("scrolls to the last of 200 participants and not past it", () => {
    const shown = (offset: number) => screen(80, 24, 200, { offset, sort: "pid" }).join("\n");
    expect(shown(0)).toContain(" 4000 ");
    expect(shown(0)).not.toContain(" 4199 ");
    expect(shown(199)).toContain(" 4199 ");
    expect(shown(199)).toBe(shown(10_000));
    expect(shown(199)).toMatch(/\d+ to 200 of 200 participants/);
  });

  test("names of caches and locks cannot steer the terminal, and wide ones are cut", () => {
    const hostile = "\u001b[2J\u0007\r\n\u202eevil\u200b\ud800 日本語のキャッシュ ".repeat(5);
    const sampler = new Sampler();
    const holds = [hold({ what: `lock "${hostile}"` })];
    sampler.frame(look(0, { holds, seats: [seat({ state: "frozen" })] }));
    const frame = sampler.frame(look(5000, { holds, seats: [seat({ state: "frozen" })] }));
    for (const columns of [40, 60, 80, 120]) {
      const lines = screen(columns, 24, 1, { name: hostile, frame });
      expect(lines.join("")).not.toMatch(/[\p{Cc}\p{Cf}\p{Cs}]/u);
      expect(lines.filter((line) => stringWidth(line) > columns)).toEqual([]);
    }
    expect(plain(hostile, "now", frame).split(" ")).toHaveLength(plain("a", "now", frame).split(" ").length);
    expect(plain(hostile, "now", frame)).not.toMatch(/[\p{Cc}\p{Cf}\p{Cs}]/u);
  });

  test("warnings are wrapped, and those without room are counted", () => {
    const frame = busy(5).frame;
    const text =
      "one warning that is rather long and has to be wrapped at its words, which takes three lines of sixty columns or so";
    const warnings = Array.from({ length: 6 }, () => ({ code: "disk-full" as const, text }));
    const lines = screen(60, 20, 5, { frame: { ...frame, warnings } });
    expect(lines[1]).toMatch(/^! one warning/);
    expect(lines.join("\n")).toContain("(+5 more)");
    expect(lines.join("\n")).toContain("PID");
  });

  test("colours are of the sixteen, none of them yellow, white, black, blue or grey", () => {
    const lines = draw(view(80, 24, 5), new Chalk({ level: 1 }));
    const codes = new Set(
      lines
        .join("")
        .split("\u001b[")
        .map((each) => Number.parseInt(each, 10)),
    );
    expect([...codes].filter((code) => code >= 30 && code !== 39).sort()).toEqual([31, 32, 35]);
    expect(lines.filter((line) => stringWidth(line) > 80)).toEqual([]);
  });
});

describe("parts of the screen", () => {
  test("participants are sorted by the column, ties by seat", () => {
    const { participants } = busy(5).frame;
    const pids = Object.fromEntries(SORTS.map((by) => [by, sort(participants, by).map(({ pid }) => pid - 4000)]));
    expect(pids).toEqual({
      ops: [4, 3, 0, 1, 2],
      near: [1, 2, 0, 3, 4],
      held: [1, 0, 2, 3, 4],
      state: [1, 2, 0, 3, 4],
      pid: [0, 1, 2, 3, 4],
    });
  });

  test("a curve has its latest time at the right, and fills columns that nobody looked at", () => {
    const at = (second: number, operations: number) => ({ at: second * 1000, operations, hitRatio: null });
    const curve = (points: ReturnType<typeof at>[]) => spark(points, 12, 80, ({ operations }) => operations);
    expect(curve([])).toBe(" ".repeat(12));
    expect(curve([at(1000, 80)])).toBe(`${" ".repeat(11)}█`);
    expect(curve([at(970, 0), at(1000, 80)])).toBe(`${" ".repeat(8)}▁▁▁█`);
    expect(curve([at(1000, 0), at(1001, 80), at(1011, 40)])).toBe(`${" ".repeat(10)}▅▅`);
  });

  test.each([
    [0, "0"],
    [0.5, "0.5"],
    [9.96, "10"],
    [999.4, "999"],
    [999.6, "1.0k"],
    [12_345, "12.3k"],
    [123_456, "123k"],
    [999_999, "1.0M"],
    [4_200_000_000, "4.2G"],
  ])("%f is written %s", (value, text) => {
    expect(short(value)).toBe(text);
  });

  test("a frame as a plain line", () => {
    expect(plain("sessions", "2026-01-01T00:00:00.000Z", busy(3).frame)).toMatchInlineSnapshot(
      `"2026-01-01T00:00:00.000Z cache=sessions hit=89.5 ops/s=9900 reads/s=9500 sets/s=400 deletes/s=0 near=42.1 entries=123456 bytes=41943040 used=10485760 capacity=62914560 evictions/s=0 expirations/s=0 reclaims/s=0 participants=3 frozen=1 dead=1 warnings=frozen-holder,dead"`,
    );
  });
});
