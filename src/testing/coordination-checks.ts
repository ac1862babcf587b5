/** The part of the conformance suite about waiting for values, watching keys and tags, and locks. */

import type { Cache, Lock } from "../index.ts";
import { ok, same, throws } from "./assert.ts";
import type { Define } from "./check.ts";
import { inTime, rejects, until } from "./patience.ts";

/** Lets all watches of this thread look, and returns when they have. */
async function looked(cache: Cache): Promise<void> {
  let called = false;
  const watch = cache.watch("a look", () => {
    called = true;
  });
  cache.set("a look", Math.random());
  await until(() => called, "a look of all watches");
  watch[Symbol.dispose]();
}

const never = (): Promise<never> => new Promise(() => {});

export function waiting(check: Define): void {
  check("waitFor resolves at once when there is a value", async ({ cache, another }) => {
    another().set("a", { n: 1 });
    same(await inTime(cache.waitFor("a"), "waitFor"), { n: 1 });
  });

  check(
    "waitFor resolves with the value that another participant stores, whatever the operation",
    async ({ cache, another }) => {
      const other = another();
      const operations: [string, () => unknown, unknown][] = [
        ["set", () => other.set("set", { n: [1] }), { n: [1] }],
        ["add", () => other.add("add", "x"), "x"],
        ["compareAndSet", () => other.compareAndSet("compareAndSet", 0, null), null],
        ["update", () => other.update("update", () => 7), 7],
        ["increment", () => other.increment("increment", 3), 3],
        ["setMany", () => other.setMany([["setMany", new Uint8Array(2)]]), new Uint8Array(2)],
      ];
      const waits = operations.map(([key]) => cache.waitFor(key));
      for (const [, store] of operations) store();
      for (const [i, [key, , value]] of operations.entries()) {
        const got = (await inTime(waits[i] as Promise<unknown>, key)) as Uint8Array;
        same(got instanceof Uint8Array ? new Uint8Array(got) : got, value, key);
      }
    },
  );

  check("waitFor resolves with a value of the same participant, and with a large one", async ({ cache }) => {
    const text = "x".repeat(100_000);
    const wait = cache.waitFor("a");
    cache.set("a", text);
    same(await inTime(wait, "waitFor"), text);
  });

  check("a value that is stored while waitFor begins is found at once", async ({ cache, another }) => {
    const other = another();
    for (let moment = 1; moment <= 4; moment++) {
      // Asked at several moments, so that it stores between the first look and the registration.
      let asked = 0;
      const signal = {
        get aborted() {
          if (++asked === moment) other.set(`a ${moment}`, moment);
          return false;
        },
        addEventListener() {},
      };
      const wait = cache.waitFor(`a ${moment}`, { signal: signal as unknown as AbortSignal });
      if (asked < moment) other.set(`a ${moment}`, moment);
      let settled = false;
      void wait.then(() => {
        settled = true;
      });
      // Before any task, and so before any ring.
      for (let i = 0; i < 20; i++) await undefined;
      if (asked >= moment) ok(settled, `a value that was stored at moment ${moment}`);
      same(await inTime(wait, "waitFor"), moment);
    }
  });

  check("waitFor with a version waits for a value of another version", async ({ cache, another }) => {
    const other = another();
    cache.set("a", 1);
    const { version } = cache.getEntry("a") as { version: number };
    same(await inTime(cache.waitFor("a", { version: 0 }), "any version"), 1);
    let settled = false;
    const wait = cache.waitFor("a", { version }).finally(() => {
      settled = true;
    });
    other.touch("a", 1_000_000);
    await looked(cache);
    same(settled, false);
    other.delete("a");
    await looked(cache);
    same(settled, false);
    other.set("a", 2);
    same(await inTime(wait, "the next version"), 2);
    const now = (cache.getEntry("a") as { version: number }).version;
    same(await inTime(cache.waitFor("a", { version: now + 1000 }), "an older version is another one"), 2);
  });

  check("each of many waits for one key gets a copy of its own", async ({ cache }) => {
    const waits = Array.from({ length: 100 }, () => cache.waitFor("a"));
    cache.set("a", { list: [1] });
    const values = await inTime(Promise.all(waits), "all waits");
    for (const value of values) same(value, { list: [1] });
    same(new Set(values).size, 100);
  });

  check("a wait ends with its timeout, its signal, or the cache, and the others go on", async ({ cache, another }) => {
    const other = another();
    const goesOn = other.waitFor("a");
    await rejects(cache.waitFor("a", { timeout: 5 }), "ERR_TIMEOUT", '"a"', "5 ms");
    await rejects(cache.waitFor("a", { timeout: 0 }), "ERR_TIMEOUT");
    await rejects(other.waitFor("a", { timeout: 5 }), "ERR_TIMEOUT");
    const reason = new RangeError("because");
    await rejects(cache.waitFor("a", { signal: AbortSignal.abort(reason) }), "RangeError", "because");
    const abort = new AbortController();
    const aborted = Array.from({ length: 20 }, () => cache.waitFor("a", { signal: abort.signal }));
    abort.abort();
    for (const each of aborted) await rejects(each, "AbortError");
    const closed = cache.waitFor("a");
    cache.close();
    await rejects(closed, "ERR_CLOSED");
    await rejects(cache.waitFor("a"), "ERR_CLOSED");
    other.set("a", 1);
    same(await inTime(goesOn, "the wait that goes on"), 1);
  });

  check(
    "wrong arguments of waitFor are rejected promises, and a key that is too long has no value",
    async ({ cache }) => {
      const wait = cache.waitFor.bind(cache) as (...args: unknown[]) => Promise<unknown>;
      await rejects(wait(5), "TypeError", "key");
      await rejects(wait("a", 5), "TypeError", "options");
      await rejects(wait("a", { timeOut: 5 }), "TypeError", "timeOut", "`timeout`");
      await rejects(wait("a", { timeout: "5" }), "TypeError", "timeout");
      for (const timeout of [-1, Number.NaN]) await rejects(wait("a", { timeout }), "RangeError", "timeout");
      await rejects(wait("a", { signal: {} }), "TypeError", "signal");
      for (const version of [-1, 1.5, "1"]) await rejects(wait("a", { version }), "TypeError", "version");
      await rejects(wait("x".repeat(5000), { timeout: 1 }), "ERR_TIMEOUT");
    },
  );

  check("a namespace waits for and watches its own keys and tags", async ({ cache, another }) => {
    const [mine, other] = [cache.namespace("n"), another()];
    const calls: string[] = [];
    const watches = [mine.watch("a", (key) => calls.push(key)), mine.watchTag("t", (tag) => calls.push(tag))];
    const wait = mine.waitFor("a");
    other.set("a", "outside");
    other.invalidateTag("t");
    await looked(cache);
    same(calls, []);
    other.namespace("n").set("a", "inside");
    same(await inTime(wait, "waitFor"), "inside");
    await until(() => calls.length > 0, "the listener");
    other.namespace("n").invalidateTag("t");
    await until(() => calls.length > 1, "the listener of the tag");
    same(calls, ["a", "t"]);
    other.namespace("m").clear();
    await looked(cache);
    same(calls, ["a", "t"]);
    other.namespace("n").clear();
    await until(() => calls.length > 3, "both listeners");
    same(calls.slice(2).sort(), ["a", "t"]);
    for (const watch of watches) watch[Symbol.dispose]();
  });
}

export function watching(check: Define): void {
  check("after each change by another participant, the listener reads the new value", async ({ cache, another }) => {
    const other = another();
    const read: unknown[] = [];
    cache.set("a", 0, { tags: ["t"] });
    const watch = cache.watch("a", (key) => read.push(cache.get(key)));
    const changes: [() => unknown, unknown][] = [
      [() => other.set("a", 1), 1],
      [() => other.update("a", () => 2), 2],
      [() => other.increment("a"), 3],
      [() => other.delete("a"), undefined],
      [() => other.add("a", 4, { tags: ["t"] }), 4],
      [() => other.invalidateTag("t"), undefined],
      [() => other.set("a", 5), 5],
      [() => other.clear(), undefined],
      [() => other.set("a", 6, { grace: 1000 }), 6],
      [() => other.expire("a"), undefined],
      [() => other.set("a", 8, { grace: 1000, tags: ["t"] }), 8],
      [() => other.expireTag("t"), undefined],
      [() => other.set("a", 9), 9],
      [() => other.take("a"), undefined],
      [() => cache.set("a", 7), 7],
    ];
    for (const [i, [change]] of changes.entries()) {
      change();
      await until(() => read.length > i, `the listener after change ${i}`);
    }
    await looked(cache);
    same(
      read,
      changes.map(([, value]) => value),
    );
    watch[Symbol.dispose]();
  });

  check("changes that come close together are one call, after the last of them", async ({ cache, another }) => {
    const other = another();
    const read: unknown[] = [];
    const watch = cache.watch("a", () => read.push(cache.get("a")));
    for (let i = 1; i <= 1000; i++) other.set("a", i);
    same(read, []);
    await until(() => read.at(-1) === 1000, "the last value");
    await looked(cache);
    same(read, [1000]);
    watch[Symbol.dispose]();
  });

  check(
    "several keys are watched at once, and the listener gets the one that has changed",
    async ({ cache, another }) => {
      const other = another() as Cache<any, string | Uint8Array>;
      const keys = ["a", "b", Uint8Array.of(1, 2), ""];
      const calls: unknown[] = [];
      const watch = (cache as Cache<any, string | Uint8Array>).watch(keys, (key) => calls.push(key));
      for (const [i, key] of keys.entries()) {
        other.set(key, i);
        await until(() => calls.length > i, `the listener of key ${i}`);
      }
      same(calls.map(String), keys.map(String));
      watch[Symbol.dispose]();
    },
  );

  check("touch, expiry, and the same key in a namespace are no changes", async ({ cache, another, clock }) => {
    let calls = 0;
    cache.set("a", 1, { ttl: 100 });
    const watch = cache.watch("a", () => calls++);
    another().touch("a", 50);
    cache.namespace("n").set("a", 2);
    await looked(cache);
    clock.now += 60;
    same(cache.has("a"), false);
    await looked(cache);
    same(calls, 0);
    cache.delete("a");
    await looked(cache);
    same(calls, 0);
    cache.set("a", 1);
    await until(() => calls > 0, "the listener");
    watch[Symbol.dispose]();
  });

  check("a watch ends when it is disposed of, by its signal, and with the cache", async ({ cache, another }) => {
    const other = another();
    const calls: string[] = [];
    const abort = new AbortController();
    const gone = another();
    const first = cache.watch("a", () => calls.push("disposed"));
    cache.watch("a", () => calls.push("aborted"), { signal: abort.signal });
    cache.watch("a", () => calls.push("never"), { signal: AbortSignal.abort() });
    gone.watch("a", () => calls.push("closed"));
    const once = cache.watch("a", () => {
      calls.push("once");
      once[Symbol.dispose]();
      once[Symbol.dispose]();
    });
    first[Symbol.dispose]();
    abort.abort();
    gone.close();
    other.set("a", 1);
    await until(() => calls.length > 0, "the listener");
    other.set("a", 2);
    await looked(cache);
    same(calls, ["once"]);
    throws(() => gone.watch("a", () => {}), "ERR_CLOSED");
  });

  check("a watch that ends itself in its listener is not called for further keys", async ({ cache, another }) => {
    const calls: string[] = [];
    const watch = cache.watch(["a", "b", "c"], (key) => {
      calls.push(key);
      watch[Symbol.dispose]();
    });
    for (const key of ["a", "b", "c"]) another().set(key, 1);
    await looked(cache);
    await until(() => calls.length > 0, "the listener");
    same(calls.length, 1);
  });

  check(
    "a listener that changes what it watches is called again in a later task, not within itself",
    async ({ cache }) => {
      const read: number[] = [];
      let depth = 0;
      const watch = cache.watch("a", () => {
        same(depth++, 0);
        const n = cache.get("a") as number;
        read.push(n);
        if (n < 5) cache.set("a", n + 1);
        depth--;
      });
      cache.set("a", 1);
      await until(() => read.length === 5, "five calls");
      same(read, [1, 2, 3, 4, 5]);
      watch[Symbol.dispose]();
    },
  );

  check(
    "watchTag calls the listener after an invalidation of the tag, and after a clear",
    async ({ cache, another }) => {
      const other = another();
      const calls: string[] = [];
      const watch = cache.watchTag("t", (tag) => calls.push(tag));
      other.set("a", 1, { tags: ["t"] });
      await looked(cache);
      same(calls, []);
      for (const [i, change] of [
        () => other.invalidateTag("t"),
        () => other.invalidateTag("u", "t"),
        () => other.expireTag("t"),
        () => other.clear(),
      ].entries()) {
        change();
        await until(() => calls.length > i, `the listener after change ${i}`);
      }
      same(calls, ["t", "t", "t", "t"]);
      watch[Symbol.dispose]();
      other.invalidateTag("t");
      await looked(cache);
      same(calls.length, 4);
    },
  );

  check("wrong arguments of watch and watchTag are thrown", ({ cache }) => {
    const { watch, watchTag } = cache as unknown as Record<"watch" | "watchTag", (...args: unknown[]) => unknown>;
    throws(() => watch.call(cache, 5, () => {}), "TypeError", "keys");
    throws(() => watch.call(cache, ["a", 5], () => {}), "TypeError", "key");
    throws(() => watch.call(cache, "a"), "TypeError", "listener");
    throws(() => watch.call(cache, "a", () => {}, { sinal: 1 }), "TypeError", "`signal`");
    throws(() => watch.call(cache, "a", () => {}, { signal: 1 }), "TypeError", "signal");
    throws(() => watchTag.call(cache, 5, () => {}), "TypeError", "tag");
    throws(() => watchTag.call(cache, "t", 5), "TypeError", "listener");
    cache.watch("x".repeat(5000), () => {})[Symbol.dispose]();
  });
}

export function locks(check: Define): void {
  check("a lock is held by one callback at a time, and the promise gives its result", async ({ cache, another }) => {
    const other = another();
    const order: string[] = [];
    const section = (name: string) => async (lock: Lock) => {
      order.push(`${name} in`);
      same(lock.name, "a");
      await new Promise((resolve) => setTimeout(resolve, 2));
      order.push(`${name} out`);
      return name;
    };
    const all = [
      cache.locks.request("a", section("1")),
      other.locks.request("a", section("2")),
      cache.locks.request("a", section("3")),
    ];
    same(order, []);
    same(await inTime(Promise.all(all), "three sections"), ["1", "2", "3"]);
    for (let i = 0; i < order.length; i += 2) {
      const [name] = (order[i] as string).split(" ");
      same(order.slice(i, i + 2), [`${name} in`, `${name} out`]);
    }
    same(await cache.locks.request("a", () => 5), 5);
    same(cache.locks.query(), { held: [], pending: [] });
  });

  check("one thread gets a lock in the order of its requests", async ({ cache }) => {
    const order: number[] = [];
    const all = Array.from({ length: 50 }, (_, i) => cache.locks.request("a", () => void order.push(i)));
    await inTime(Promise.all(all), "all requests");
    same(
      order,
      all.map((_, i) => i),
    );
  });

  check("a request does not overtake one of its thread that waits for another thread", async ({ cache, another }) => {
    const other = another();
    let release: (() => void) | undefined;
    const held = other.locks.request("a", () => new Promise<void>((resolve) => (release = resolve)));
    await until(() => release !== undefined, "the lock");
    const order: number[] = [];
    const first = cache.locks.request("a", () => void order.push(1));
    (release as unknown as () => void)();
    // Released, and nobody has heard of it yet.
    await held;
    const second = cache.locks.request("a", () => void order.push(2));
    await inTime(Promise.all([first, second]), "both");
    same(order, [1, 2]);
  });

  check("the fence grows with each lock", async ({ cache, another }) => {
    const fences: number[] = [];
    for (const one of [cache, another(), cache, cache.namespace("n")]) {
      fences.push(await one.locks.request("a", ({ fence }) => fence));
    }
    same(
      fences,
      [...fences].sort((a, b) => a - b),
    );
    same(new Set(fences).size, fences.length);
    ok(fences.every(Number.isSafeInteger), "fences are whole numbers");
  });

  check("a callback that throws releases the lock, whether it throws at once or later", async ({ cache }) => {
    const fail = () => {
      throw new RangeError("failed");
    };
    await rejects(cache.locks.request("a", fail), "RangeError", "failed");
    await rejects(
      cache.locks.request("a", async () => fail()),
      "RangeError",
    );
    await rejects(
      cache.locks.request("a", () => ({
        // biome-ignore lint/suspicious/noThenProperty: it is what is tested.
        get then(): never {
          return fail();
        },
      })),
      "RangeError",
    );
    await rejects(
      // biome-ignore lint/suspicious/noThenProperty: it is what is tested.
      cache.locks.request("a", () => ({ then: fail })),
      "RangeError",
    );
    same(
      await inTime(
        cache.locks.request("a", { timeout: 1000 }, () => "free"),
        "the lock",
      ),
      "free",
    );
  });

  check(
    "ifAvailable gives null when the lock is held or waited for, and the lock otherwise",
    async ({ cache, another }) => {
      const other = another();
      const ask = (one: Cache) => one.locks.request("a", { ifAvailable: true }, (lock) => lock?.name ?? null);
      same(await ask(cache), "a");
      await cache.locks.request("a", async () => {
        same([await ask(cache), await ask(other)], [null, null]);
      });
      same(await ask(other), "a");
      await rejects(
        cache.locks.request("a", { ifAvailable: true, steal: true }, () => {}),
        "TypeError",
        "steal",
      );
    },
  );

  check(
    "steal takes the lock away: the holder's signal is aborted and its request is rejected",
    async ({ cache, another }) => {
      for (const thief of [cache, another()]) {
        let victim: Lock | undefined;
        const held = cache.locks.request("a", (lock) => {
          victim = lock;
          same(lock.signal.aborted, false);
          return never();
        });
        await until(() => victim !== undefined, "the lock");
        const waits = another().locks.request("a", ({ fence }) => fence);
        const stolen = await thief.locks.request("a", { steal: true }, ({ fence }) => fence);
        ok(stolen > (victim as unknown as Lock).fence, "the fence of the thief is larger");
        await rejects(inTime(held, "the victim"), "AbortError");
        const { signal } = victim as unknown as Lock;
        same([signal.aborted, (signal.reason as Error).name], [true, "AbortError"]);
        ok((await inTime(waits, "who has waited")) > stolen, "who waits comes after the thief");
      }
      same(cache.locks.query(), { held: [], pending: [] });
    },
  );

  check(
    "waiting for a lock ends with its timeout and its signal, and the lock is not taken later",
    async ({ cache, another }) => {
      const other = another();
      let release = (): void => {};
      const held = cache.locks.request("a", () => new Promise<void>((resolve) => (release = resolve)));
      await until(() => cache.locks.query().held.length === 1, "the lock");
      for (const one of [cache, other]) {
        const fails = () => {
          throw new Error("must not be called");
        };
        await rejects(one.locks.request("a", { timeout: 5 }, fails), "ERR_TIMEOUT", '"a"');
        const abort = new AbortController();
        const aborted = one.locks.request("a", { signal: abort.signal }, fails);
        abort.abort(new RangeError("because"));
        await rejects(aborted, "RangeError", "because");
        await rejects(one.locks.request("a", { signal: AbortSignal.abort() }, fails), "AbortError");
      }
      release();
      await inTime(held, "the holder");
      const abort = new AbortController();
      const done = await other.locks.request("a", { signal: abort.signal }, async ({ signal }) => {
        abort.abort();
        return signal.aborted;
      });
      same(done, false);
      same(cache.locks.query(), { held: [], pending: [] });
    },
  );

  check("query tells who holds and who waits", async ({ cache, another }) => {
    const other = another();
    same(cache.locks.query(), { held: [], pending: [] });
    let release = (): void => {};
    const held = cache.locks.request("a", ({ fence }) => new Promise((resolve) => (release = () => resolve(fence))));
    const waits = [other.locks.request("a", () => {}), other.locks.request("a", () => {})];
    const seen = other.locks.query();
    same(
      [seen.held.length, seen.held[0]?.name, new Set(seen.pending.map(({ name }) => name))],
      [1, "a", new Set(["a"])],
    );
    same(seen.held, cache.locks.query().held);
    same(Object.keys(seen.held[0] ?? {}), ["name", "fence", "pid", "threadId"]);
    same(Object.keys(seen.pending[0] ?? {}), ["name", "pid", "threadId"]);
    same([seen.pending[0]?.pid, seen.pending[0]?.threadId], [seen.held[0]?.pid, seen.held[0]?.threadId]);
    same(cache.namespace("n").locks.query(), { held: [], pending: [] });
    await until(() => release.length === 0, "the callback");
    await new Promise((resolve) => setTimeout(resolve));
    release();
    same(await inTime(held, "the holder"), seen.held[0]?.fence);
    await inTime(Promise.all(waits), "who has waited");
    same(cache.locks.query(), { held: [], pending: [] });
  });

  check(
    "names are like keys: any text up to 4,096 bytes; a namespace has its own locks",
    async ({ cache, another }) => {
      const names = ["", "ä→😀", "\ud800", "x".repeat(72), "x".repeat(73), "é".repeat(60), "y".repeat(4096), "then"];
      const parts = [cache, cache.namespace("n"), cache.namespace("n").namespace("m"), cache.namespace("nm")];
      const all = parts.flatMap((part) => names.map((name) => part.locks.request(name, never).catch(() => {})));
      same(
        cache.locks.query().held.map(({ name }) => name),
        names,
      );
      for (const part of parts) same(part.locks.query().held.length, names.length);
      const [, ...others] = another().namespace("n").locks.query().held;
      ok(
        others.every(({ name }, i) => (names[i + 1] as string).startsWith(name.replace(/…$|\ufffd.*$/, ""))),
        "beginnings",
      );
      for (const name of ["z".repeat(4097), "é".repeat(2049)]) {
        await rejects(
          cache.locks.request(name, () => {}),
          "ERR_TOO_LARGE",
          "name",
        );
      }
      cache.close();
      await inTime(Promise.all(all), "the end of all");
    },
  );

  check(
    "closing the cache releases its locks, aborts their signals, and ends its requests",
    async ({ cache, another }) => {
      const other = another();
      let signal: AbortSignal | undefined;
      const held = other.locks.request("a", (lock) => {
        signal = lock.signal;
        return never();
      });
      const waits = other.locks.request("a", () => {});
      await until(() => signal !== undefined, "the lock");
      const next = cache.locks.request("a", () => "next");
      other.close();
      await rejects(held, "ERR_CLOSED");
      await rejects(waits, "ERR_CLOSED");
      same(signal?.aborted, true);
      same(await inTime(next, "the next holder"), "next");
      await rejects(
        other.locks.request("a", () => {}),
        "ERR_CLOSED",
      );
      throws(() => other.locks.query(), "ERR_CLOSED");
    },
  );

  check("a clear, an eviction and an entry of the same name do not touch a lock", async ({ cache, another }) => {
    await cache.locks.request("a", async ({ signal }) => {
      another().set("a", 1);
      cache.clear();
      cache.delete("a");
      same(await another().locks.request("a", { ifAvailable: true }, (lock) => lock), null);
      same(signal.aborted, false);
    });
  });

  check("wrong arguments of a request are rejected promises", async ({ cache }) => {
    const request = cache.locks.request.bind(cache.locks) as (...args: unknown[]) => Promise<unknown>;
    await rejects(
      request(5, () => {}),
      "TypeError",
      "name",
    );
    await rejects(request("a"), "TypeError", "callback");
    await rejects(request("a", {}), "TypeError", "callback");
    await rejects(
      request("a", null, () => {}),
      "TypeError",
      "options",
    );
    for (const [options, ...texts] of [
      [{ mode: "shared" }, "mode"],
      [{ ifAvailable: 1 }, "ifAvailable"],
      [{ steal: "yes" }, "steal"],
      [{ signal: 5 }, "signal"],
      [{ timeout: "5" }, "timeout"],
    ] as [object, string][]) {
      await rejects(
        request("a", options, () => {}),
        "TypeError",
        ...texts,
      );
    }
    await rejects(
      request("a", { timeout: -1 }, () => {}),
      "RangeError",
      "timeout",
    );
  });
}
