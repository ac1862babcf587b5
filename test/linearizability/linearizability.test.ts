/**
 * Tests linearizability while participants die: processes and threads change a few keys of one cache, and some of them are killed,
 * terminated and stopped at random moments (driver.mjs). Every operation is recorded (recorder.mjs). Then the checker (checker.mjs)
 * must find an order of the operations that explains all results. The checker itself is tested first, with histories written by hand, and
 * with random ones that are known to be right or wrong.
 *
 * `LINEARIZABILITY_SEED=7 npx vitest run test/linearizability` repeats a plan; the moments of death also depend on the scheduler.
 * `LINEARIZABILITY_ROUNDS` multiplies the number of deaths, 1 by default.
 */
import { execFileSync, fork } from "node:child_process";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { contradiction } from "./checker.mjs";
import { ABSENT, BUSY, DONE, Log, NO, OP, PENDING, pagesOf, Recorder, YES } from "./recorder.mjs";
import { MEASURED, Stalls } from "./stalls.mjs";

const seed = Number(process.env.LINEARIZABILITY_SEED ?? Math.floor(Math.random() * 1e9));
const rounds = Number(process.env.LINEARIZABILITY_ROUNDS ?? 1);
console.log(`LINEARIZABILITY_SEED=${seed} LINEARIZABILITY_ROUNDS=${rounds}`);

type Model = { roomy?: boolean; counter?: boolean };
type Event = Record<string, unknown> & { invoked: number; returned: number; op: string; outcome: number };

const roomy: Model = { roomy: true };
const tight: Model = { roomy: false };
const counters: Model = { roomy: true, counter: true };

const event = (invoked: number, returned: number, op: string, outcome: number, rest: object = {}): Event => ({
  place: 0,
  incarnation: 0,
  key: 0,
  invoked,
  returned,
  op,
  outcome,
  argument: invoked,
  ...rest,
});
/** The name of a stored value is the stamp of its call. */
const set = (from: number, to: number, outcome = DONE): Event => event(from, to, "set", outcome);
const got = (from: number, to: number, result: number): Event => event(from, to, "get", YES, { result });
const missed = (from: number, to: number): Event => event(from, to, "get", NO);
const did = (op: string, from: number, to: number, outcome = YES): Event => event(from, to, op, outcome);
const entry = (from: number, to: number, result: number, version: number): Event =>
  event(from, to, "getEntry", YES, { result, version });
const swap = (from: number, to: number, expected: number | undefined, outcome: number): Event =>
  event(from, to, "compareAndSet", outcome, { expected, version: 8 });
const drop = (from: number, to: number, expected: number, outcome: number): Event =>
  event(from, to, "compareAndDelete", outcome, { expected, version: 8 });
const add = (from: number, to: number, by: number, result: number | undefined, outcome = DONE): Event =>
  event(from, to, "increment", outcome, { argument: by, expected: 0, result });
const within = (from: number, to: number, by: number, result: number | undefined, outcome = YES): Event =>
  event(from, to, "incrementWithin", outcome, { argument: by, expected: 0, result });
const ask = (from: number, to: number, cost: number, used: number | undefined, outcome = YES): Event =>
  event(from, to, "rateLimit", outcome, { argument: cost, result: used });

describe("histories that an order explains", () => {
  it.each<[string, Event[], Model]>([
    ["an empty history", [], roomy],
    ["a read of what was stored", [set(1, 2), got(3, 4, 1)], roomy],
    ["either value while one is replaced", [set(1, 2), set(3, 8), got(4, 5, 1), got(6, 7, 3)], roomy],
    ["two stores that overlap, in either order", [set(1, 4), set(2, 3), got(5, 6, 2), got(7, 8, 2)], roomy],
    ["a pending store that happened", [set(1, 2), set(3, 9, PENDING), got(4, 5, 3)], roomy],
    ["a pending store that never happened", [set(1, 2), set(3, 9, PENDING), got(10, 11, 1)], roomy],
    ["a pending store that happened late", [set(1, 2), set(3, 9, PENDING), got(4, 5, 1), got(10, 11, 3)], roomy],
    ["a pending store whose writer may be alive", [set(1, 2), set(3, Infinity, PENDING), got(40, 41, 3)], roomy],
    ["a busy store that did nothing", [set(1, 2), set(3, 4, BUSY), got(5, 6, 1)], roomy],
    ["a value that is evicted, in a tight cache", [set(1, 2), missed(3, 4), did("add", 5, 6)], tight],
    ["a swap that fails because the value was evicted", [set(1, 2), swap(3, 4, 1, NO), missed(5, 6)], tight],
    [
      "an increment out of its bounds, and one within",
      [within(1, 2, 150_000, 150_000), within(3, 4, 1, ABSENT, NO), within(5, 6, -1, 149_999)],
      counters,
    ],
    [
      "an increment out of its bounds after one that was cut off",
      [
        within(1, 2, 150_000, 150_000),
        within(3, 9, -5, ABSENT, PENDING),
        within(4, 5, 1, ABSENT, NO),
        within(6, 7, 1, 149_996),
      ],
      counters,
    ],
    [
      "requests that overlap at a limit",
      [ask(1, 6, 15_000, 15_000), ask(2, 5, 6_000, 15_000, NO), ask(7, 8, 5_000, 20_000)],
      counters,
    ],
    [
      "a request that was cut off and counted",
      [ask(1, 9, 20_000, ABSENT, PENDING), ask(10, 11, 1, 20_000, NO)],
      counters,
    ],
    ["increments that overlap", [add(1, 6, 5, 7), add(2, 5, 2, 2), add(7, 8, 1, 8)], counters],
    ["an increment that was cut off and took effect", [add(1, 9, 5, ABSENT, PENDING), add(10, 11, 2, 7)], counters],
    [
      "an increment that was cut off and did not take effect",
      [add(1, 9, 5, ABSENT, PENDING), add(10, 11, 2, 2)],
      counters,
    ],
    ["a counter that starts again, in a tight cache", [add(1, 2, 5, 5), add(3, 4, 2, 2)], { counter: true }],
    [
      "a swap refused after a writer died while counting",
      [add(1, 2, 5, 5), add(3, 6, 2, ABSENT, PENDING), swap(7, 8, 5, NO), add(9, 10, 1, 6)],
      counters,
    ],
    [
      "a store that is gone because a clear overlapped it",
      [set(1, 2), did("clear", 3, 8), did("add", 4, 9), missed(10, 11)],
      roomy,
    ],
    [
      "a replace that fails after a take",
      [set(1, 2), event(3, 4, "take", YES, { result: 1 }), did("replace", 5, 6, NO)],
      roomy,
    ],
    ["a removal of the version that was seen", [set(1, 2), drop(3, 4, 1, YES), missed(5, 6)], roomy],
    [
      "a removal refused because the value was replaced",
      [set(1, 2), set(3, 4), drop(5, 6, 1, NO), got(7, 8, 3)],
      roomy,
    ],
    ["a removal refused because the value was evicted", [set(1, 2), drop(3, 4, 1, NO), missed(5, 6)], tight],
    ["a removal that was cut off and took effect", [set(1, 2), drop(3, 9, 1, PENDING), missed(10, 11)], roomy],
    ["a removal that was cut off and did not", [set(1, 2), drop(3, 9, 1, PENDING), got(10, 11, 1)], roomy],
    [
      "a removal refused after a writer died while counting",
      [add(1, 2, 5, 5), add(3, 6, 2, ABSENT, PENDING), drop(7, 8, 5, NO), add(9, 10, 1, 6)],
      counters,
    ],
    ["a removal of many keys, of an absent one too", [did("deleteMany", 1, 2, DONE), missed(3, 4)], roomy],
    ["an update of the stored value", [set(1, 2), event(3, 4, "update", YES, { expected: 1 }), got(5, 6, 3)], roomy],
    ["a touch that keeps the version", [set(1, 2), entry(3, 4, 1, 8), did("touch", 5, 6), entry(7, 8, 1, 8)], roomy],
  ])("the checker accepts %s", (_, history, model) => {
    expect(contradiction(history, model)).toBeUndefined();
  });
});

describe("histories that no order explains", () => {
  it.each<[string, Event[], Model]>([
    ["a stale read after a set returned", [set(1, 2), set(3, 4), got(5, 6, 1)], tight],
    ["a value that comes back after another was read", [set(1, 2), set(3, 8), got(4, 5, 3), got(6, 7, 1)], tight],
    ["a value that comes back after a delete", [set(1, 2), did("delete", 3, 4), got(5, 6, 1)], tight],
    ["a value that comes back after a clear", [set(1, 2), did("clear", 3, 4), got(5, 6, 1)], tight],
    ["a value that comes back after a miss", [set(1, 2), missed(3, 4), got(5, 6, 1)], tight],
    ["a sum out of its bounds", [within(1, 2, 150_001, 150_001)], counters],
    ["an increment that was refused within its bounds", [within(1, 2, 5, 5), within(3, 4, 1, ABSENT, NO)], counters],
    ["more requests than the limit", [ask(1, 2, 20_000, 20_000), ask(3, 4, 1, 20_001)], counters],
    ["a request that was not counted", [ask(1, 2, 10, 10), ask(3, 4, 10, 10)], counters],
    ["a request that was refused with room left", [ask(1, 2, 10, 10), ask(3, 4, 19_990, 10, NO)], counters],
    ["two requests for the same rest", [ask(1, 6, 15_000, 15_000), ask(2, 5, 15_000, 15_000)], counters],
    ["a lost increment", [add(1, 2, 5, 5), add(3, 4, 2, 7), add(5, 6, 1, 6)], { counter: true }],
    ["an increment that counted twice", [add(1, 2, 5, 5), add(3, 4, 2, 9)], { counter: true }],
    ["two increments with one sum", [add(1, 5, 5, 5), add(2, 6, 5, 5)], counters],
    ["two swaps of the same version", [set(1, 2), swap(3, 6, 1, YES), swap(4, 7, 1, YES)], tight],
    ["two successful adds of the same key", [did("add", 1, 4), did("add", 2, 3)], roomy],
    ["a value that nobody stored", [set(1, 2), got(3, 4, 77)], tight],
    ["a value that was read before it was stored", [got(1, 2, 3), set(3, 4)], tight],
    ["a busy store that took effect", [set(1, 2), set(3, 4, BUSY), got(5, 6, 3)], tight],
    ["a busy delete that took effect", [set(1, 2), did("delete", 3, 4, BUSY), missed(5, 6)], roomy],
    [
      "a dead writer's store after its death was seen",
      [set(1, 2), set(3, 9, PENDING), got(10, 11, 1), got(12, 13, 3)],
      tight,
    ],
    ["a pending store that was undone", [set(1, 2), set(3, 9, PENDING), got(4, 5, 3), got(6, 7, 1)], tight],
    ["a value that is evicted, in a roomy cache", [set(1, 2), missed(3, 4)], roomy],
    ["a counter that starts again, in a roomy cache", [add(1, 2, 5, 5), add(3, 4, 2, 2)], counters],
    ["a swap refused without reason", [set(1, 2), swap(3, 4, 1, NO), got(5, 6, 1)], tight],
    ["a removal refused without reason", [set(1, 2), drop(3, 4, 1, NO), got(5, 6, 1)], tight],
    ["a removal of a value that had been replaced", [set(1, 2), set(3, 4), drop(5, 6, 1, YES)], tight],
    ["two removals of the same version", [set(1, 2), drop(3, 6, 1, YES), drop(4, 7, 1, YES)], tight],
    ["a value that comes back after a removal of its version", [set(1, 2), drop(3, 4, 1, YES), got(5, 6, 1)], tight],
    [
      "a value that comes back after a removal of many",
      [set(1, 2), did("deleteMany", 3, 4, DONE), got(5, 6, 1)],
      tight,
    ],
    ["a swap of a value that had been replaced", [set(1, 2), set(3, 4), swap(5, 6, 1, YES)], tight],
    [
      "an update of a value that had been replaced",
      [set(1, 2), set(3, 4), event(5, 6, "update", YES, { expected: 1 })],
      tight,
    ],
    [
      "an update that took a stored value for absent",
      [set(1, 2), set(3, 4), event(5, 6, "update", YES, { expected: ABSENT }), missed(7, 8)],
      roomy,
    ],
    ["a delete that fails for a stored value", [set(1, 2), did("delete", 3, 4, NO)], roomy],
    ["a delete that succeeds for an absent key", [did("delete", 1, 2)], tight],
    [
      "two takes that return the same value",
      [set(1, 2), ...[3, 4].map((at) => event(at, at + 4, "take", YES, { result: 1 }))],
      tight,
    ],
    ["a replace that succeeds for an absent key", [did("replace", 1, 2)], tight],
    ["a replace that fails for a stored value", [set(1, 2), did("replace", 3, 4, NO)], roomy],
    ["an add that fails for an absent key", [did("add", 1, 2, NO)], tight],
    ["a touch that succeeds for an absent key", [did("touch", 1, 2)], tight],
    [
      "a touch that brings back a deleted value",
      [set(1, 2), did("delete", 3, 4), did("touch", 5, 6), got(7, 8, 1)],
      tight,
    ],
    ["a value whose version changes without a store", [set(1, 2), entry(3, 4, 1, 8), entry(5, 6, 1, 10)], tight],
    ["a version that two values have", [set(1, 2), entry(3, 4, 1, 8), set(5, 6), entry(7, 8, 5, 8)], tight],
  ])("the checker refuses %s", (_, history, model) => {
    expect(contradiction(history, model)).toBeDefined();
  });

  it("the checker shows only the operations that contradict each other", () => {
    const before = Array.from({ length: 50 }, (_, i) => [
      set(10 * i + 1, 10 * i + 2),
      got(10 * i + 3, 10 * i + 4, 10 * i + 1),
    ]);
    const history = [
      ...before.flat(),
      set(1001, 1002),
      missed(1003, 1030),
      did("delete", 1004, 1005),
      got(1006, 1007, 1001),
    ];
    const found = contradiction(history, tight);
    expect(found?.why).toContain("get");
    expect(found?.lines).toEqual(["  1004 … 1005 │ 0.0 │ delete  → yes", "→ 1006 … 1007 │ 0.0 │ get  → #1001"]);
  });
});

it("the checker accepts that a delete or take which was cut off removed a value that was stored at the same time", () => {
  for (const op of ["take", "delete"]) {
    const history = [event(19, 41, "set", DONE), event(39, 40, op, PENDING, { result: ABSENT }), missed(119, 120)];
    expect(contradiction(history, roomy)).toBeUndefined();
  }
});

/** Random histories: operations that happened one after the other, recorded as if they had overlapped. */
function random(model: Model): fc.Arbitrary<{ history: Event[]; replaced: [number, number][] }> {
  const names = ["get", "set", "delete", "take", "add", "replace", "compareAndSet", "update", "increment", "touch"];
  names.push("compareAndDelete", "deleteMany");
  const step = fc.record({
    op: fc.constantFrom(
      ...names.filter((name) => (name === "increment") === (model.counter ?? false) || name === "get"),
    ),
    actor: fc.integer({ min: 0, max: 4 }),
    before: fc.integer({ min: 0, max: 30 }),
    after: fc.integer({ min: 0, max: 30 }),
    fate: fc.integer({ min: 0, max: 19 }),
    stale: fc.boolean(),
  });
  return fc.array(step, { minLength: 5, maxLength: 60 }).map((steps) => {
    const history: Event[] = [];
    const free = new Map<number, number>();
    /** Values, and when they were certainly gone: each was replaced by an operation that began while it was stored. */
    const replaced: [number, number][] = [];
    let state: number | undefined;
    let seen: number | undefined;
    let stored = Infinity;
    steps.forEach(({ op, actor, before, after, fate, stale }, i) => {
      const at = (i + 1) * 20;
      // Stamps are unique: those of one step differ in the last digits.
      const invoked = Math.max(at - before, free.get(actor) ?? 0) + i / 1_000;
      if (invoked >= at) return;
      const returned = at + after + 0.5 + i / 1_000;
      free.set(actor, returned + 0.001);
      if (!model.roomy && fate === 0) state = ABSENT;
      const was = state;
      const add = { argument: invoked, expected: ABSENT as number | undefined, result: ABSENT as number | undefined };
      let outcome = DONE;
      const decide = (does: boolean, next: number | undefined): void => {
        outcome = does ? YES : NO;
        if (does) state = next;
      };
      if (fate === 1 && op !== "get") {
        // Busy: nothing happens.
        history.push(event(invoked, returned, op, BUSY, add));
        return;
      }
      // Cut off: before it could do anything, or after.
      const cut = fate === 2 && op !== "get";
      if (cut && stale) {
        history.push(event(invoked, returned, op, PENDING, { ...add, expected: op === "increment" ? 0 : ABSENT }));
        return;
      }
      if (op === "get") {
        decide(state !== ABSENT, state);
        add.result = state;
        if (state !== ABSENT) seen = state;
      } else if (op === "set") state = invoked;
      else if (op === "delete") decide(state !== ABSENT, ABSENT);
      else if (op === "take") {
        add.result = state;
        decide(state !== ABSENT, ABSENT);
      } else if (op === "add") decide(state === ABSENT, invoked);
      else if (op === "replace") decide(state !== ABSENT, invoked);
      else if (op === "touch") decide(state !== ABSENT, state);
      else if (op === "compareAndSet") {
        add.expected = stale ? seen : state;
        decide(state === add.expected, invoked);
      } else if (op === "compareAndDelete") {
        // Nothing to compare with: a version that no entry has.
        add.expected = (stale ? seen : state) ?? -1;
        decide(state === add.expected, ABSENT);
      } else if (op === "deleteMany") {
        state = ABSENT;
      } else if (op === "update") {
        add.expected = state;
        decide(true, invoked);
      } else {
        // Sums must not come again.
        add.argument = (i + 1) ** 5 * 7 + i;
        add.expected = 0;
        state = (state ?? 0) + add.argument;
        add.result = state;
      }
      if (was !== state) {
        if (was !== ABSENT && stored < invoked && !cut) replaced.push([was, returned]);
        stored = cut ? Infinity : returned;
      }
      history.push(
        cut
          ? event(invoked, returned, op, PENDING, { ...add, result: ABSENT })
          : event(invoked, returned, op, outcome, add),
      );
    });
    return { history, replaced };
  });
}

describe.each<[string, Model]>([
  ["roomy", roomy],
  ["tight", tight],
  ["counters", counters],
  ["tight counters", { counter: true }],
])("random histories, %s", (_, model) => {
  it("the checker accepts every random history that happened", () => {
    fc.assert(
      fc.property(random(model), ({ history }) => {
        expect(contradiction(history, model)).toBeUndefined();
      }),
      { seed, numRuns: 300 },
    );
  });

  it("the checker refuses every random history in which a read returns a value that had been replaced before", () => {
    let refused = 0;
    fc.assert(
      fc.property(random(model), fc.nat(), ({ history, replaced }, pick) => {
        const lies = history.flatMap((read, i) =>
          replaced.filter(([, at]) => read.op === "get" && read.invoked > at).map(([value]) => [i, value] as const),
        );
        if (lies.length === 0) return;
        const [i, value] = lies[pick % lies.length] as readonly [number, number];
        const lie = history.map((read, at) => (at === i ? { ...read, outcome: YES, result: value } : read));
        expect(contradiction(lie, model)).toBeDefined();
        refused++;
      }),
      { seed, numRuns: 300 },
    );
    expect(refused).toBeGreaterThan(30);
  });
});

describe("recording", () => {
  const memory = (): WebAssembly.Memory => {
    const pages = pagesOf(10);
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  };

  it("the log keeps an operation of a dead participant open until its death is recorded", () => {
    const log = new Log(memory(), 10);
    const recorder = new Recorder(log, 3, 1, { near: true });
    recorder.end(recorder.begin(OP.set, 1, 7), DONE);
    recorder.begin(OP.increment, 1, 5, 2);
    const [, before] = log.read(2, 2);
    expect(before).toMatchObject([
      { place: 3, op: "set", invoked: 1, returned: 2, argument: 7, outcome: DONE, near: true },
      { place: 3, op: "increment", invoked: 3, returned: Infinity, argument: 5, expected: 2, outcome: PENDING },
    ]);
    log.recordEnd(3);
    const [, after] = log.read(2, 2);
    expect(after).toMatchObject([{ returned: 2 }, { invoked: 3, returned: 4, outcome: PENDING }]);
  });

  it("the log reports when it is full", () => {
    const log = new Log(memory(), 10);
    const recorder = new Recorder(log, 0, 1, { near: false });
    for (let i = 0; i < 10; i++) recorder.end(recorder.begin(OP.get, 0), NO);
    expect([log.full, recorder.room(1), log.full]).toEqual([false, false, true]);
  });

  it("stalls count operations that take too long, and separately those of them that ran or slept in that time", () => {
    const sleeper = new Int32Array(new SharedArrayBuffer(4));
    const during = (act: () => void) => {
      const stalls = new Stalls();
      const from = stalls.begin();
      act();
      stalls.end(from, "this");
      const { unexplained, ours } = stalls.report;
      return [unexplained, ours];
    };
    const spin = () => {
      const used = () => process.cpuUsage().user + process.cpuUsage().system;
      for (const until = used() + 130_000; used() < until; );
    };
    expect(during(() => {})).toEqual([0, 0]);
    expect(during(() => Atomics.wait(sleeper, 0, 0, 130))).toEqual([1, 1]);
    expect(during(spin)).toEqual([1, 1]);
    // The thread waits for another program: this time is not explained by the machine, and is not caused by the cache either.
    expect(during(() => execFileSync("sleep", ["0.2"]))).toEqual([1, 0]);
  });
});

describe("a cache whose participants are killed, terminated and stopped", () => {
  const plans = [
    ["a tight cache", { roomy: false, clears: false }],
    ["a roomy cache", { roomy: true, clears: false }],
    ["a tight cache with clears", { roomy: false, clears: true }],
    ["a roomy cache with clears", { roomy: true, clears: true }],
  ] as const;

  /** Runs a plan in a process of its own, with flags of V8 that the measurements need (stalls.mjs). */
  function runApart(plan: object): Promise<Record<string, any>> {
    const main = fork(new URL("driver-process.mjs", import.meta.url), [JSON.stringify(plan)], {
      execArgv: MEASURED,
    });
    return new Promise((resolve, reject) => {
      main.on("message", (message: { result?: Record<string, any>; broken?: string }) => {
        if (message.result) resolve(message.result);
        else reject(new Error(message.broken));
      });
      main.once("exit", (...how) => reject(new Error(`the driver ended without a result: ${how}`)));
    });
  }

  it.each(plans)(
    "the operations on %s are linearizable while participants die",
    { timeout: 180_000 },
    async (what, plan) => {
      const [kills, terminations, freezes] = [8 * rounds, 12 * rounds, 5 * rounds];
      const result = await runApart({ ...plan, kills, terminations, freezes, seed });
      console.log(what, JSON.stringify(result));
      expect(result).toMatchObject({ kills, terminations, freezes });
      expect(result.operations).toBeGreaterThan(2_000);
      // Only operations on the locked bucket of a stopped process may be busy.
      expect(result.busy).toBeLessThan(result.survivorSteps / 50);
      // Operations that took too long by running or sleeping, which the cache is responsible for. One step may wait 50 ms twice.
      expect(result.ours).toBeLessThanOrEqual(1);
    },
  );
});
