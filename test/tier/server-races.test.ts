/**
 * Races of two hosts on a real server. Every order in which the steps of two loads and of a change can follow each other is played, and
 * compared with a model that is a few lines long. Operations of two steps (an entry with tags in another slot than its tags) are also
 * stopped between them.
 */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { Names } from "../../src/tier/names.ts";
import * as scripts from "../../src/tier/scripts.ts";
import type { Server, Stored, Writing } from "../../src/tier/server.ts";
import { type Backend, Host, PLACES, start } from "./server-hosts.ts";
import { endServers, NO_SERVER } from "./servers.ts";

vi.mock("../../src/index.ts", () => import("cache-machine"));

const MINUTE: Writing = { ttl: 60_000, grace: 0, tags: [] };
const TAGGED: Writing = { ttl: 60_000, grace: 0, tags: ["t"] };
const COUNT = { initial: 0, min: -1e9, max: 1e9, ttl: 60_000, tags: [] };
const LOAD = { all: false, lease: 60_000 };

type Begun = { token: string; since: number };

/** What a server should do, if it has one key with the tag `t`, which invalidations concern. */
class Model {
  value: string | number | undefined;
  /** The order of beginning of each load under way. */
  readonly loads = new Map<string, number>();
  /** The loads that began before the latest invalidation. */
  old = new Set<string>();
  #begun = 0;

  begin(load: string): void {
    this.loads.set(load, ++this.#begun);
  }

  /** A change that overtakes all loads. */
  change(value: string | number | undefined): void {
    this.value = value;
    this.loads.clear();
  }

  commit(load: string): boolean {
    const order = this.loads.get(load);
    if (order === undefined) return false;
    if (this.old.has(load)) {
      this.loads.delete(load);
      return false;
    }
    this.value = `value of ${load}`;
    for (const [other, began] of this.loads) if (began <= order) this.loads.delete(other);
    return true;
  }

  invalidate(): void {
    this.value = undefined;
    this.old = new Set(this.loads.keys());
  }
}

/** A change: what it does to a server, and what it should do. Both return what the caller gets. */
interface Change {
  name: string;
  run(server: Server, key: string): Promise<unknown>;
  expect(model: Model): unknown;
}

const isText = (value: unknown): boolean => typeof value === "string";
const CHANGES: Change[] = [
  {
    name: "remove",
    run: (server, key) => server.remove([], key),
    expect: (model) => {
      const wasThere = model.value !== undefined;
      model.change(undefined);
      return wasThere;
    },
  },
  {
    name: "write",
    run: (server, key) => server.write([], key, "written", TAGGED),
    expect: (model) => model.change("written"),
  },
  {
    name: "add",
    run: (server, key) => server.add([], key, "added", TAGGED),
    expect: (model) => {
      const isAbsent = model.value === undefined;
      if (isAbsent) model.change("added");
      return isAbsent;
    },
  },
  {
    name: "touch",
    run: (server, key) => server.touch([], key, 50_000),
    expect: (model) => {
      const isThere = model.value !== undefined;
      if (isThere) model.change(model.value);
      return isThere;
    },
  },
  {
    name: "increment",
    run: (server, key) =>
      server.increment([], key, 1, { ...COUNT, tags: ["t"] }).then(
        ({ value }) => value,
        () => "failed",
      ),
    expect: (model) => {
      if (isText(model.value)) return "failed";
      model.change(((model.value as number | undefined) ?? 0) + 1);
      return model.value;
    },
  },
  {
    name: "clear",
    run: (server) => server.clear([]),
    expect: (model) => model.change(undefined),
  },
  {
    name: "invalidateTags",
    run: (server) => server.invalidateTags([], ["t"]),
    expect: (model) => model.invalidate(),
  },
  {
    name: "the invalidation of another tag",
    run: (server) => server.invalidateTags([], ["other"]),
    expect: () => undefined,
  },
  { name: "read", run: async (server, key) => void (await server.read([], key)), expect: () => undefined },
];

/** All orders of the steps of several programs, each of which keeps its own order. */
function interleavings(programs: readonly (readonly string[])[]): string[][] {
  if (programs.every((program) => program.length === 0)) return [[]];
  return programs.flatMap((program, i) => {
    const [first, ...rest] = program;
    if (first === undefined) return [];
    const left = programs.map((each, j) => (i === j ? rest : each));
    return interleavings(left).map((order) => [first, ...order]);
  });
}

async function good(host: Host, key: string): Promise<Stored | undefined> {
  const stored = await host.server.read([], key);
  if (stored === undefined) return undefined;
  const times = await host.server.tagTimes([], stored.tags);
  return times.every((time) => time !== undefined && time < stored.stamp) ? stored : undefined;
}

test("there are as many orders as there should be", () => {
  expect(interleavings([["a", "b"], ["c"]])).toEqual([
    ["a", "b", "c"],
    ["a", "c", "b"],
    ["c", "a", "b"],
  ]);
  expect(interleavings([["a", "b"], ["c", "d"], ["e"]])).toHaveLength(30);
});

describe.skipIf(NO_SERVER).each(PLACES)("on $name", (place) => {
  let backend: Backend;
  let hosts: [Host, Host, Host];
  let names: Names;
  let count = 0;

  beforeAll(async () => {
    backend = await start(place);
  });
  beforeEach(async () => {
    // A prefix of its own for each test, as clear() concerns all keys of a tier.
    names = new Names(`races${count++}:`);
    await Promise.all(backend.masters.map((master) => master.command("FLUSHALL")));
    const clients = await Promise.all([1, 2, 3].map(() => backend.connect()));
    hosts = clients.map((client) => new Host(client, names)) as typeof hosts;
  });
  afterEach(() => {
    for (const host of hosts) host.close();
  });
  afterAll(endServers);

  describe.each(CHANGES)("two loads and: $name", (change) => {
    test.each([
      ["nothing", undefined],
      ["a text", "old"],
      ["a number", 5],
    ] as const)("in every order, when there was %s", async (_, initial) => {
      const [a, b, c] = hosts;
      const loads: Record<string, Host> = { A: a, B: b };
      const orders = interleavings([["begin A", "commit A"], ["begin B", "commit B"], ["change"]]);
      for (const [i, order] of orders.entries()) {
        // `clear` takes all keys away, so one order after the other.
        const key = `key ${i}`;
        const model = new Model();
        const tokens: Record<string, Begun> = {};
        if (initial !== undefined) await c.server.write([], key, initial, TAGGED);
        model.value = initial;
        for (const step of order) {
          const [what, load] = step.split(" ") as [string, string];
          let result: unknown;
          let expected: unknown;
          if (what === "begin") {
            tokens[load] = (await loads[load]?.server.begin([], key, { ...LOAD, unless: true })) as Begun;
            model.begin(load);
          } else if (what === "commit") {
            const { token, since } = tokens[load] as Begun;
            result = await loads[load]?.server.commit([], key, token, since, `value of ${load}`, TAGGED);
            expected = model.commit(load);
          } else {
            result = await change.run(c.server, key);
            expected = change.expect(model);
          }
          const seen = (await good(c, key))?.value;
          expect({ order, step, result, seen }).toEqual({ order, step, result: expected, seen: model.value });
        }
      }
    });
  });

  describe("an entry with tags, stopped between the tags and the entry", () => {
    /** What another host may do meanwhile: whether a commit still stores, and what is seen afterwards if it does. */
    const between: [string, (server: Server) => Promise<unknown>, boolean, boolean][] = [
      ["nothing", async () => {}, true, true],
      ["an invalidation of its tag", (server) => server.invalidateTags([], ["t"]), true, false],
      ["an invalidation of another tag", (server) => server.invalidateTags([], ["u"]), true, true],
      ["a removal", (server) => server.remove([], "k"), false, true],
      ["a write", (server) => server.write([], "k", "other", TAGGED), false, true],
      ["an addition", (server) => server.add([], "k", "other", TAGGED), false, true],
      ["a clear", (server) => server.clear([]), false, true],
      ["an increment", (server) => server.increment([], "k", 1, COUNT), false, true],
      ["an entry with the same tag", (server) => server.write([], "l", "other", TAGGED), true, true],
      [
        "an invalidation and an entry with the same tag",
        async (server) => {
          await server.invalidateTags([], ["t"]);
          await server.write([], "l", "other", TAGGED);
        },
        true,
        false,
      ],
      [
        "the loss of the tag",
        async () => {
          await hosts[2].raw(names.clock, "DEL", names.tag([], "t"));
        },
        true,
        false,
      ],
      [
        "the loss of the tag, and an entry that makes it known again",
        async (server) => {
          await hosts[2].raw(names.clock, "DEL", names.tag([], "t"));
          await server.write([], "l", "other", TAGGED);
        },
        true,
        false,
      ],
    ];

    test.each(between)("a commit, and %s", async (_, act, stores, isSeen) => {
      const [a, b] = hosts;
      const { token, since } = (await a.server.begin([], "k", LOAD)) as Begun;
      const stop = a.stopAt(scripts.COMMIT);
      const committing = a.server.commit([], "k", token, since, "loaded", TAGGED);
      await stop.reached;
      await act(b.server);
      const before = (await good(b, "k"))?.value;
      stop.go();
      expect(await committing).toBe(stores);
      expect((await good(b, "k"))?.value).toBe(stores ? (isSeen ? "loaded" : undefined) : before);
    });

    test.each(between)("a write, and %s", async (_, act, __, isSeen) => {
      const [a, b] = hosts;
      const stop = a.stopAt(scripts.WRITE);
      const writing = a.server.write([], "k", "written", TAGGED);
      await stop.reached;
      await act(b.server);
      stop.go();
      await writing;
      // It is the later one, so it is seen, unless its tag was invalidated.
      expect((await good(b, "k"))?.value).toBe(isSeen ? "written" : undefined);
    });

    test.each(between)("an addition, and %s", async (what, act, _, isSeen) => {
      const [a, b] = hosts;
      const stop = a.stopAt(scripts.ADD);
      const adding = a.server.add([], "k", "added", TAGGED);
      await stop.reached;
      await act(b.server);
      const before = (await good(b, "k"))?.value;
      stop.go();
      expect([what, await adding]).toEqual([what, before === undefined]);
      expect((await good(b, "k"))?.value).toBe(before ?? (isSeen ? "added" : undefined));
    });

    test.each(between)("many entries, and %s", async (_, act, __, isSeen) => {
      const [a, b] = hosts;
      const stop = a.stopAt(scripts.WRITE);
      const writing = a.server.writeMany(
        [],
        [
          ["k", "written", TAGGED],
          ["plain", 1, MINUTE],
        ],
      );
      await stop.reached;
      await act(b.server);
      stop.go();
      await writing;
      expect((await good(b, "k"))?.value).toBe(isSeen ? "written" : undefined);
    });
  });

  describe("an entry with tags that another host changes while one finds out whether it is good", () => {
    test("add", async () => {
      const [a, b] = hosts;
      for (const [act, added, seen] of [
        [() => b.server.invalidateTags([], ["t"]), true, "added"],
        [() => b.server.remove([], "k"), true, "added"],
        [() => b.server.write([], "k", "other", TAGGED), false, "other"],
        [() => b.server.write([], "k", "plain", MINUTE), false, "plain"],
      ] as const) {
        await b.server.write([], "k", "old", TAGGED);
        // The first run answers that the entry has tags, the second one is told that it is good or not.
        const first = a.stopAt(scripts.ADD);
        const adding = a.server.add([], "k", "added", MINUTE);
        await first.reached;
        const second = a.stopAt(scripts.ADD);
        first.go();
        await Promise.race([second.reached, adding]);
        await act();
        second.go();
        const result = await adding;
        const isInvalidation = act.toString().includes("invalidateTags");
        // The times of the tags were read before: the addition has found an entry that was good then.
        expect([act.toString(), result]).toEqual([act.toString(), isInvalidation ? false : added]);
        expect((await good(b, "k"))?.value).toBe(isInvalidation ? undefined : seen);
      }
    });

    test("an entry that was not good is not taken for the one that has replaced it", async () => {
      const [a, b] = hosts;
      const uses: [typeof scripts.ADD, () => Promise<unknown>, unknown, unknown][] = [
        [scripts.ADD, () => a.server.add([], "k", "added", MINUTE), false, 5],
        [scripts.INCREMENT, () => a.server.increment([], "k", 1, COUNT).then(({ value }) => value), 6, 6],
        [scripts.TOUCH, () => a.server.touch([], "k", 50_000), true, 5],
      ];
      for (const [script, use, result, seen] of uses) {
        await b.server.write([], "k", 100, TAGGED);
        await b.server.invalidateTags([], ["t"]);
        const first = a.stopAt(script);
        const using = use();
        await first.reached;
        const second = a.stopAt(script);
        first.go();
        await second.reached;
        await b.server.write([], "k", 5, TAGGED);
        second.go();
        expect(await using).toBe(result);
        expect((await good(b, "k"))?.value).toBe(seen);
      }
    });

    test("increment: no sum of an entry that is gone, and none is lost", async () => {
      const [a, b] = hosts;
      for (const [act, sum] of [
        [() => b.server.increment([], "k", 10, COUNT), 111],
        [() => b.server.touch([], "k", 55_000), 101],
        [() => b.server.write([], "k", 7, TAGGED), 8],
        [() => b.server.write([], "k", 7, MINUTE), 8],
        [() => b.server.remove([], "k"), 1],
      ] as const) {
        await b.server.write([], "k", 100, TAGGED);
        const first = a.stopAt(scripts.INCREMENT);
        const counting = a.server.increment([], "k", 1, COUNT);
        await first.reached;
        const second = a.stopAt(scripts.INCREMENT);
        first.go();
        await second.reached;
        await act();
        second.go();
        expect([act.toString(), (await counting).value]).toEqual([act.toString(), sum]);
        expect((await good(b, "k"))?.value).toBe(sum);
      }
    });

    test("one that is changed all the time is ERR_BUSY in the end, and unchanged", async () => {
      const [a, b] = hosts;
      let writes = 0;
      const inner = a.server.tagTimes.bind(a.server);
      a.server.tagTimes = async (path, tags) => {
        await b.server.write([], "k", writes++, TAGGED);
        return inner(path, tags);
      };
      await b.server.write([], "k", -1, TAGGED);
      await expect(a.server.increment([], "k", 1, COUNT)).rejects.toMatchObject({ code: "ERR_BUSY" });
      expect(writes).toBeGreaterThan(10);
      expect((await good(b, "k"))?.value).toBe(writes - 1);
    });
  });

  test("random operations of three hosts at the same time: what is left is what the last of them has done", async () => {
    const seed = 20_260_303;
    let state = seed;
    const random = (below: number): number => {
      state = (state * 1103515245 + 12345) % 2 ** 31;
      return Math.floor((state / 2 ** 31) * below);
    };
    const keys = ["p", "q"];
    for (let round = 0; round < 40; round++) {
      const invalidated = random(2) === 0;
      const values = new Map<string, Set<unknown>>(keys.map((key) => [key, new Set()]));
      await Promise.all(
        hosts.map(async ({ server }, h) => {
          for (let i = 0; i < 6; i++) {
            const key = keys[random(2)] as string;
            const value = `${round} ${h} ${i}`;
            const what = random(4);
            if (what === 0) {
              values.get(key)?.add(value);
              await server.write([], key, value, TAGGED);
            } else if (what === 1) await server.remove([], key);
            else if (what === 2 && invalidated) await server.invalidateTags([], ["t"]);
            else {
              const begun = await server.begin([], key, { ...LOAD, unless: true });
              if (!("token" in begun)) throw new Error("no token");
              // Kept only if it says so.
              if (await server.commit([], key, begun.token, begun.since, value, TAGGED)) values.get(key)?.add(value);
            }
          }
        }),
      );
      for (const key of keys) {
        const left = (await good(hosts[0], key))?.value;
        if (left !== undefined)
          expect([seed, round, key, left, values.get(key)?.has(left)]).toEqual([seed, round, key, left, true]);
        // No load is under way, so no token is left that did not belong to a load which was refused.
        expect(await hosts[0].raw(names.loading([], key), "EXISTS", names.loading([], key))).toBe(0);
      }
      // After a removal of all by one host, nothing comes back.
      await Promise.all(keys.map((key) => hosts[round % 3]?.server.remove([], key)));
      for (const key of keys) expect(await hosts[0].server.read([], key)).toBe(undefined);
    }
  });
});
