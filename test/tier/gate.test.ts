/** The gate in front of a server: when it shuts, what it lets pass, how it opens, and which errors shut it. A clock and timers of the test. */

import { describe, expect, test, vi } from "vitest";
import { Away, errorOf, Gate, isUnreachable, type Line, unreachable } from "../../src/tier/gate.ts";

vi.mock("../../src/index.ts", () => import("../../src/errors.ts"));

const ok = async (): Promise<string> => "answer";
const away = async (): Promise<string> => {
  throw new Away("the line is dead.");
};
const refused = async (): Promise<string> => {
  throw unreachable("the server is full.");
};
const wrong = async (): Promise<string> => {
  throw new TypeError("no");
};

/** The way to a server whose probe does this. */
const line = (probe: () => Promise<unknown>): Line => ({ probe, errorOf: (cause) => cause });

/** A promise with its handles. */
function pending(): { promise: Promise<string>; resolve(value: string): void; reject(error: unknown): void } {
  let resolve!: (value: string) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<string>((yes, no) => {
    [resolve, reject] = [yes, no];
  });
  return { promise, resolve, reject };
}

/** A gate whose time passes by `pass`. Full jitter would be `random` 0 to 1; 1 gives the longest waits. */
function setup(random: () => number = () => 1) {
  let time = 1_000;
  let timers: { at: number; act: () => void }[] = [];
  const waits: number[] = [];
  const gate = new Gate({
    clock: () => time,
    random,
    later(ms, act) {
      waits.push(ms);
      const timer = { at: time + ms, act };
      timers.push(timer);
      return () => {
        timers = timers.filter((each) => each !== timer);
      };
    },
  });
  const settle = () => new Promise((resolve) => setImmediate(resolve));
  return {
    gate,
    waits,
    get timers() {
      return timers.length;
    },
    /** Timers do not run by themselves. */
    stand(ms: number) {
      time += ms;
    },
    async pass(ms: number) {
      time += ms;
      const due = timers.filter(({ at }) => at <= time);
      timers = timers.filter(({ at }) => at > time);
      for (const { act } of due) act();
      await settle();
    },
    settle,
  };
}

test("an open gate hands on what a command returns and throws", async () => {
  const { gate, timers } = setup();
  expect(await gate.run(ok, line(away))).toBe("answer");
  await expect(gate.run(wrong, line(away))).rejects.toThrow(TypeError);
  await expect(gate.run(refused, line(away))).rejects.toThrow("full");
  expect(gate.isOpen).toBe(true);
  expect(timers).toBe(0);
});

test("a command without an answer shuts the gate: others fail at once and are not run", async () => {
  const { gate } = setup();
  await expect(gate.run(away, line(away))).rejects.toThrow("dead");
  expect(gate.isOpen).toBe(false);
  const command = vi.fn(ok);
  const error = await gate.run(command, line(away)).catch((error) => error);
  expect(command).not.toHaveBeenCalled();
  expect(error).toMatchObject({ name: "CacheError", code: "ERR_UNREACHABLE", cause: { message: "the line is dead." } });
  expect(error.message).toBe(
    "this command was not sent and changed nothing, because the server is away. It is asked again every 2 seconds. The last thing " +
      "that was heard: the line is dead.",
  );
});

test("what shuts the gate is the meaning of an error, and the meaning is what the caller gets", async () => {
  const { gate } = setup();
  const meaning = new Away("as it seems.");
  const command = async () => {
    throw new Error("ECONNRESET");
  };
  const errorOf = vi.fn(() => meaning);
  await expect(gate.run(command, { probe: ok, errorOf })).rejects.toBe(meaning);
  expect(errorOf).toHaveBeenCalledWith(expect.objectContaining({ message: "ECONNRESET" }));
  expect(gate.isOpen).toBe(false);
});

test("the refusals of a shut gate do not make it shut for longer", async () => {
  const { gate, waits, pass } = setup();
  await gate.run(away, line(ok)).catch(() => {});
  for (let i = 0; i < 100; i++) await expect(gate.run(ok, line(ok))).rejects.toThrow("not sent");
  expect(waits).toEqual([50]);
  await pass(50);
  expect(gate.isOpen).toBe(true);
});

test("commands that fail together shut the gate once", async () => {
  const { gate, waits } = setup();
  const commands = Array.from({ length: 100 }, pending);
  const runs = commands.map(({ promise }) => gate.run(() => promise, line(away)));
  for (const { reject } of commands) reject(new Away("dead."));
  await Promise.allSettled(runs);
  expect(waits).toEqual([50]);
});

test("it waits 50 ms, and the double after each probe without an answer, up to 2 seconds", async () => {
  const { gate, waits, pass } = setup();
  const probe = vi.fn(away);
  await gate.run(away, line(probe)).catch(() => {});
  for (let i = 0; i < 9; i++) await pass(waits.at(-1) as number);
  expect(waits).toEqual([50, 100, 200, 400, 800, 1600, 2000, 2000, 2000, 2000]);
  expect(probe).toHaveBeenCalledTimes(9);
});

test("after an answer it begins with 50 ms again", async () => {
  const { gate, waits, pass } = setup();
  let isAway = true;
  const probe = (): Promise<string> => (isAway ? away() : ok());
  await gate.run(away, line(probe)).catch(() => {});
  await pass(50);
  await pass(100);
  isAway = false;
  await pass(200);
  expect(await gate.run(ok, line(probe))).toBe("answer");
  await gate.run(away, line(probe)).catch(() => {});
  expect(waits).toEqual([50, 100, 200, 50]);
});

test("full jitter: the wait is any part of the longest one", async () => {
  const values = [0.5, 0, 0.25, 0.999];
  const { gate, waits, pass } = setup(() => values.shift() as number);
  await gate.run(away, line(away)).catch(() => {});
  for (let i = 0; i < 3; i++) await pass(waits.at(-1) as number);
  expect(waits).toEqual([25, 0, 50, 399.6]);
});

test("no probe before its time, and one at a time however long it takes", async () => {
  const { gate, pass } = setup();
  const hanging = pending();
  const probe = vi.fn(() => hanging.promise);
  await gate.run(away, line(probe)).catch(() => {});
  await pass(49);
  expect(probe).not.toHaveBeenCalled();
  await pass(1);
  for (let i = 0; i < 10; i++) {
    await pass(1_000);
    await expect(gate.run(ok, line(probe))).rejects.toThrow("not sent");
  }
  expect(probe).toHaveBeenCalledTimes(1);
  hanging.resolve("PONG");
  await pass(0);
  expect(await gate.run(ok, line(probe))).toBe("answer");
});

test.each([
  ["an error reply", refused],
  ["an answer that nobody understands", wrong],
])("%s to a probe is an answer", async (_, probe) => {
  const { gate, pass } = setup();
  await gate.run(away, line(probe)).catch(() => {});
  await pass(50);
  expect(gate.isOpen).toBe(true);
});

test("an answer on another way opens the gate at once, and what the probe then says does not count", async () => {
  const test = setup();
  const { gate, waits, pass } = test;
  const hanging = pending();
  await gate
    .run(
      away,
      line(() => hanging.promise),
    )
    .catch(() => {});
  await pass(50);
  gate.opened();
  expect(gate.isOpen).toBe(true);
  hanging.reject(new Away("dead."));
  await pass(0);
  expect(gate.isOpen).toBe(true);
  expect(waits).toEqual([50]);
  expect(test.timers).toBe(0);
});

test("a command that began before the gate shut, and is answered afterwards, opens it", async () => {
  const { gate } = setup();
  const slow = pending();
  const run = gate.run(() => slow.promise, line(away));
  await gate.run(away, line(away)).catch(() => {});
  expect(gate.isOpen).toBe(false);
  slow.resolve("late");
  expect(await run).toBe("late");
  expect(gate.isOpen).toBe(true);
});

test("an error reply to a command that began before the gate shut opens it, too", async () => {
  const { gate } = setup();
  const slow = pending();
  const run = gate.run(() => slow.promise, line(away));
  await gate.run(away, line(away)).catch(() => {});
  slow.reject(unreachable("the server is full."));
  await expect(run).rejects.toThrow("full");
  expect(gate.isOpen).toBe(true);
});

test("a command that began before the server came back, and fails afterwards, does not shut the gate again", async () => {
  const { gate } = setup();
  const slow = pending();
  const run = gate.run(() => slow.promise, line(away));
  await gate.run(away, line(away)).catch(() => {});
  gate.opened();
  slow.reject(new Away("timeout."));
  await expect(run).rejects.toThrow("timeout");
  expect(gate.isOpen).toBe(true);
});

test("where no timer runs, a command starts the probe after a while, and is refused itself", async () => {
  const { gate, stand, settle } = setup();
  const probe = vi.fn(ok);
  await gate.run(away, line(probe)).catch(() => {});
  stand(549);
  await expect(gate.run(ok, line(probe))).rejects.toThrow("not sent");
  expect(probe).not.toHaveBeenCalled();
  stand(1);
  await expect(gate.run(ok, line(probe))).rejects.toThrow("not sent");
  await settle();
  expect(probe).toHaveBeenCalledTimes(1);
  expect(gate.isOpen).toBe(true);
});

test("close ends the timer", async () => {
  const test = setup();
  await test.gate.run(away, line(away)).catch(() => {});
  expect(test.timers).toBe(1);
  test.gate.close();
  expect(test.timers).toBe(0);
});

test("with the timers of the runtime: it opens by itself, also while a test has fake timers", async () => {
  vi.useFakeTimers();
  try {
    const gate = new Gate();
    const probed = new Promise<void>((resolve) => {
      gate
        .run(
          away,
          line(async () => resolve()),
        )
        .catch(() => {});
    });
    await probed;
    await vi.waitFor(() => expect(gate.isOpen).toBe(true));
  } finally {
    vi.useRealTimers();
  }
});

describe("what an error of a client means", () => {
  const cause = new Error("Socket closed unexpectedly");

  test("no reply: the server is away, and nobody knows what it has done", () => {
    const error = errorOf(cause, undefined);
    expect(error).toBeInstanceOf(Away);
    expect(error).toMatchObject({ code: "ERR_UNREACHABLE", cause, name: "CacheError" });
    expect(error.message).toContain("(Socket closed unexpectedly), so nobody knows whether a change was made");
    expect(isUnreachable(error)).toBe(true);
    expect(errorOf("text", undefined).message).toContain("(text)");
  });

  test.each([
    ["READONLY You can't write against a read only replica.", "follows the master"],
    ["LOADING Redis is loading the dataset in memory", "started"],
    ["MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "master"],
    ["CLUSTERDOWN The cluster is down", "nodes"],
    ["TRYAGAIN Multiple keys request during rehashing of slot", "slots"],
    ["BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", "script"],
    ["NOREPLICAS Not enough good replicas to write.", "min-replicas"],
    [
      "ERR Error running script (call to f_x): @user_script:3: -READONLY You can't write against a read only replica.",
      "follows",
    ],
  ])("the server serves nobody: %s", (reply, remedy) => {
    const error = errorOf(cause, reply);
    expect(error).toBeInstanceOf(Away);
    expect(error.message).toContain(reply);
    expect(error.message).toContain("changed nothing");
    expect(error.message).toContain(remedy);
  });

  test.each([
    ["OOM command not allowed when used memory > 'maxmemory'.", "maxmemory-policy"],
    ["OOM command not allowed when used memory > 'maxmemory'. script: 0e5b, on @user_script:3.", "maxmemory-policy"],
    ["MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.", "log"],
    ["NOAUTH Authentication required.", "password"],
    ["WRONGPASS invalid username-password pair or user is disabled.", "password"],
    ["NOPERM User u has no permissions to run the 'evalsha' command", "prefix"],
    ["MOVED 3999 127.0.0.1:6381", "cluster client"],
    ["CROSSSLOT Keys in request don't hash to the same slot", "cluster client"],
    ["ERR unknown command 'EVALSHA', with args beginning with:", "refused"],
  ])("the server serves others: %s", (reply, remedy) => {
    const error = errorOf(cause, reply);
    expect(error).not.toBeInstanceOf(Away);
    expect(error).toMatchObject({ code: "ERR_UNREACHABLE", cause });
    expect(error.message).toContain(reply);
    expect(error.message).toContain(remedy);
  });

  test("a key of another program, and a value that the server does not take", () => {
    for (const reply of [
      "WRONGTYPE Operation against a key holding the wrong kind of value",
      "ERR Error running script (call to f_x): @user_script:9: WRONGTYPE Operation against a key holding the wrong kind of value",
    ]) {
      const error = errorOf(cause, reply);
      expect(error).toMatchObject({ code: "ERR_DATA", cause });
      expect(error.message).toContain("another `prefix`");
      expect(isUnreachable(error)).toBe(false);
    }
    const error = errorOf(cause, "ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    expect(error.code).toBe("ERR_TOO_LARGE");
  });
});
