/**
 * What a key-value store over a cache promises to those who use it, as checks for any test runner. It knows nothing about the store
 * but its members in store.ts. Every answer is awaited, so that stores that answer at once and stores that answer later pass the
 * same checks.
 */

import { ok, same } from "./assert.ts";
import type { Check } from "./check.ts";
import { inTime } from "./patience.ts";
import { values as everyValue, text } from "./samples.ts";
import {
  absent,
  freshPrefix,
  isAbsent,
  retried,
  type Store,
  type StoreMember,
  type StoreSubject,
  skip,
  TRIES,
  value,
} from "./store.ts";

/** Values that structured clone does not bring back as they were, by their names in samples.ts. */
const NOT_STRUCTURED = /^(URL|Error|object without prototype|.*Buffer)$/;
/** A time to live that is long enough for every check that does not wait for its end. */
const LONG_MS = 3_600_000;
const POLL_MS = 5;
const CALLS = 30;

/** A store with all its members. A check uses only those that it has named. */
type Full = Required<Store>;

/** What a check gets. */
interface Given {
  readonly subject: StoreSubject;
  readonly store: Full;
  /** The beginning of all keys of this check. */
  readonly prefix: string;
  /** Opens one more store. It is closed after the check. */
  open(namespace?: string): Promise<Full>;
  /** Throws unless `get` says that there is no value. */
  none(key: string, of?: Store): Promise<void>;
}

/** Adds a check, which may be tried so often, each time with other keys. */
type Define = (
  name: string,
  needs: readonly StoreMember[],
  body: (given: Given) => Promise<void>,
  tries?: number,
) => void;

/**
 * The checks of a key-value store: what every store over a cache should promise, from reading back what was stored to hostile
 * keys, expiry and concurrent calls.
 *
 * A check that needs a member which the store does not have is skipped, or left out if {@link StoreSubject.members} says so. To
 * leave out a promise that your store does not give, filter the list by `name`.
 *
 * @throws {TypeError} when the subject has no function `open`.
 */
export function storeChecks(subject: StoreSubject): Check[] {
  if (typeof subject?.open !== "function") throw new TypeError("open: must be a function that opens the store");
  const checks: Check[] = [];
  const define: Define = (name, needs, body, tries = 1) => {
    if (subject.members !== undefined && needs.some((member) => !subject.members?.includes(member))) return;
    checks.push({ name, run: (...context) => runOne(subject, name, needs, body, tries, context) });
  };
  map(define, subject);
  keys(define);
  many(define);
  iteration(define);
  expiry(define);
  if (subject.namespaces) namespaces(define);
  tags(define);
  loading(define);
  limits(define);
  concurrency(define);
  closing(define);
  return checks;
}

async function runOne(
  subject: StoreSubject,
  name: string,
  needs: readonly StoreMember[],
  body: (given: Given) => Promise<void>,
  tries: number,
  context: readonly unknown[],
): Promise<void> {
  const opened: Store[] = [];
  const open = async (namespace?: string): Promise<Full> => {
    const store = await subject.open(namespace === undefined ? undefined : { namespace });
    opened.push(store);
    return store as Full;
  };
  const check = async (): Promise<void> => {
    const store = await open();
    const missing = needs.filter((member) => typeof store[member] !== "function");
    if (missing.length > 0) {
      ok(subject.members === undefined, `the store has no ${missing.join(", no ")}`);
      return skip(context, `the store has no ${missing.join(", no ")}`);
    }
    const none = async (key: string, of: Store = store): Promise<void> => absent(subject, await of.get(key), key);
    await retried(tries, () => body({ subject, store, prefix: freshPrefix(), open, none }));
  };
  try {
    await inTime(check(), name, subject.timeout);
  } finally {
    for (const store of opened) await store.close?.();
  }
}

// ---- One key

function map(check: Define, subject: StoreSubject): void {
  check("a key that was never stored has no value", [], async ({ prefix, none }) => {
    await none(`${prefix}never`);
    await none(`${prefix}never`);
  });

  for (const [name, stored] of samples(subject)) {
    check(`a value comes back as it was: ${name}`, [], async ({ store, prefix }) => {
      await store.set(`${prefix}key`, stored());
      same(await store.get(`${prefix}key`), stored(), name);
      // The second answer may come from another place than the first, such as a near cache.
      same(await store.get(`${prefix}key`), stored(), `${name}, read again`);
    });
  }

  check("a value that is stored again replaces the old one", [], async ({ subject, store, prefix }) => {
    const key = `${prefix}key`;
    for (const name of ["short", "long".repeat(500), "short again"]) {
      await store.set(key, value(subject, name));
      same(await store.get(key), value(subject, name));
    }
  });

  check(
    "delete removes one value and says whether there was one",
    ["delete"],
    async ({ subject, store, prefix, none }) => {
      await store.set(`${prefix}a`, value(subject, "a"));
      await store.set(`${prefix}b`, value(subject, "b"));
      ok((await store.delete(`${prefix}a`)) !== false, "delete answers false, but there was a value");
      await none(`${prefix}a`);
      ok((await store.delete(`${prefix}a`)) !== true, "delete answers true, but there was no value");
      same(await store.get(`${prefix}b`), value(subject, "b"));
      await store.set(`${prefix}a`, value(subject, "again"));
      same(await store.get(`${prefix}a`), value(subject, "again"));
    },
  );

  check("has says whether there is a value", ["has"], async ({ subject, store, prefix }) => {
    same(await store.has(`${prefix}key`), false, "has of an absent key");
    await store.set(`${prefix}key`, value(subject, "a"));
    same(await store.has(`${prefix}key`), true, "has of a present key");
    if (store.delete !== undefined) {
      await store.delete(`${prefix}key`);
      same(await store.has(`${prefix}key`), false, "has of a deleted key");
    }
  });

  check(
    "clear removes all values, and the store can be used after it",
    ["clear"],
    async ({ subject, store, prefix, none }) => {
      const all = Array.from({ length: 50 }, (_, i) => `${prefix}${i}`);
      for (const key of all) await store.set(key, value(subject, key));
      await store.clear();
      for (const key of all) await none(key);
      await store.clear();
      await store.set(`${prefix}0`, value(subject, "again"));
      same(await store.get(`${prefix}0`), value(subject, "again"));
    },
  );

  if (subject.copies !== false && subject.values !== "text") {
    check(
      "an object that is changed after it was stored does not change what is stored",
      [],
      async ({ store, prefix }) => {
        const object = { list: [1], inner: { a: 1 } };
        await store.set(`${prefix}key`, object);
        object.list.push(2);
        object.inner.a = 2;
        same(await store.get(`${prefix}key`), { list: [1], inner: { a: 1 } });
      },
    );

    check(
      "an object that was returned and is changed does not change what is stored",
      [],
      async ({ store, prefix }) => {
        await store.set(`${prefix}key`, { list: [1], inner: { a: 1 } });
        for (let time = 0; time < 3; time++) {
          const got = (await store.get(`${prefix}key`)) as { list: number[]; inner: { a: number } };
          same(got, { list: [1], inner: { a: 1 } }, `reading number ${time + 1}`);
          got.list.push(2);
          got.inner.a = 2;
        }
      },
    );
  }

  const { tooLarge } = subject;
  if (tooLarge !== undefined) {
    check("a value that is too large is not stored, which is no error", [], async ({ store, prefix, none }) => {
      await store.set(`${prefix}key`, text(tooLarge, 1));
      await none(`${prefix}key`);
    });

    check(
      "in place of a value that is too large, the old value is not read either",
      [],
      async ({ subject, store, prefix }) => {
        await store.set(`${prefix}key`, value(subject, "old"));
        await store.set(`${prefix}key`, text(tooLarge, 1));
        const got = await store.get(`${prefix}key`);
        ok(isAbsent(subject, got), "the old value is read although a newer one was set");
        await store.set(`${prefix}key`, value(subject, "new"));
        same(await store.get(`${prefix}key`), value(subject, "new"));
      },
    );
  }
}

/** Functions that make a value, because a check may change what it has stored. */
function samples(subject: StoreSubject): [string, () => unknown][] {
  const texts: [string, () => unknown][] = [
    ["empty text", () => ""],
    ["ASCII", () => "plain text"],
    ["Latin-1, Japanese, emoji", () => "déjà vu, 日本語のテキスト, 👩‍🚀"],
    ["NUL and control characters", () => "\0a\0\u0001\u001f\u007f\r\n"],
    ["text that looks like JSON", () => '{"value":1,"expires":2}'],
    ["text of 10,000 characters", () => text(10_000, 1)],
  ];
  if (subject.values === "text") return texts;
  const json: [string, () => unknown][] = [
    ["zero", () => 0],
    ["integers and fractions", () => [1, -1, 0.1 + 0.2, 2 ** 53 - 1, 1e21, Number.MIN_VALUE]],
    ["true", () => true],
    ["false", () => false],
    ["empty object", () => ({})],
    ["empty array", () => []],
    ["nested object", () => ({ a: 1, b: "two", c: [3, null, { d: { e: [[]] } }], "": "empty name" })],
    ["names of Object.prototype as properties", () => ({ constructor: 1, toString: "x", hasOwnProperty: null })],
    [
      "properties like those of envelopes",
      () => ({ value: 1, expires: 2, ttl: 3, tags: ["a"], type: "Buffer", data: [1] }),
    ],
    ["array of 1,000 objects", () => Array.from({ length: 1_000 }, (_, i) => ({ i, name: `number ${i}` }))],
  ];
  if ("absent" in subject && subject.absent !== null) json.push(["null", () => null]);
  if (subject.values !== "structured") return [...texts, ...json];
  const structured = everyValue()
    .filter(([name]) => !NOT_STRUCTURED.test(name) && (name !== "null" || "absent" in subject))
    .map(([name]): [string, () => unknown] => [
      `structured, ${name}`,
      () => (everyValue().find(([other]) => other === name) as [string, unknown])[1],
    ]);
  return [...texts, ...json, ...structured];
}

// ---- Keys

/** Keys that are all different, and that a store may take for the same, or for something else than a key. */
const HOSTILE: [string, string[]][] = [
  ["the empty key", [""]],
  ["names of Object.prototype", ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "valueOf"]],
  ["lone surrogates", ["\ud800", "\udfff", "\udc00\ud800", "a\ud800", "a\udfff", "\ufffd"]],
  ["NUL and control characters", ["\0", "\0\0", "a\0", "a\0b", "a", "\n", "\r\n", "\t", "\u007f"]],
  [
    "separators and wildcards",
    ["a:b", "a/b", "a::b", "a.b", "*", "a*", "?", "[a]", "%", "%00", "_", "../a", "a b", " a", "a "],
  ],
  ["keys that differ in case, or in the form of an accent", ["key", "Key", "KEY", "\u00e9", "e\u0301", "\ufeffkey"]],
  ["beyond Latin-1", ["ключ", "日本", "🦀", "👩‍🚀"]],
  ["a key of 10,000 characters", ["k".repeat(10_000)]],
  [
    "keys of 10,000 characters that differ in one",
    [
      `${"k".repeat(9_999)}a`,
      `${"k".repeat(9_999)}b`,
      `a${"k".repeat(9_999)}`,
      `b${"k".repeat(9_999)}`,
      "k".repeat(9_999),
    ],
  ],
  ["keys of 5,000 characters outside ASCII that differ at the end", [`${"é".repeat(4_999)}a`, `${"é".repeat(4_999)}b`]],
];

function keys(check: Define): void {
  for (const [name, all] of HOSTILE) {
    check(`a key is a key, whatever it looks like: ${name}`, [], async ({ subject, store, none }) => {
      const valid = all.filter((key) => subject.validKey?.(key) ?? true);
      const number = (key: string): unknown => value(subject, `number ${valid.indexOf(key)}`);
      for (const key of valid) {
        if (store.delete === undefined) break;
        await store.delete(key);
        await none(key);
        if (store.has !== undefined) same(await store.has(key), false, `has of ${show(key)}`);
      }
      for (const key of valid) await store.set(key, number(key));
      for (const key of valid) {
        same(await store.get(key), number(key), show(key));
        if (store.has !== undefined) same(await store.has(key), true, `has of ${show(key)}`);
      }
      if (store.getMany !== undefined) same(await valuesOf(store, valid), valid.map(number), "getMany");
      for (const [i, key] of valid.entries()) {
        if (store.delete === undefined) break;
        await store.delete(key);
        await none(key);
        for (const other of valid.slice(i + 1))
          same(await store.get(other), number(other), `${show(other)} after a delete`);
      }
    });
  }
}

function show(key: string): string {
  return JSON.stringify(key.length > 40 ? `${key.slice(0, 20)}…${key.slice(-20)} (${key.length})` : key);
}

// ---- Many keys

/** The answers of `getMany`. */
async function valuesOf(store: Full, all: string[]): Promise<unknown[]> {
  const answer = await store.getMany(all);
  ok(Array.isArray(answer), "getMany answers with an array");
  same(answer.length, all.length, "the number of values of getMany");
  return Promise.all(answer);
}

function many(check: Define): void {
  check("getMany returns the values in the order of the keys", ["getMany"], async ({ subject, store, prefix }) => {
    for (const name of ["a", "b", "c"]) await store.set(`${prefix}${name}`, value(subject, name));
    const got = await valuesOf(
      store,
      ["c", "none", "a", "a", "b"].map((name) => prefix + name),
    );
    absent(subject, got[1], "the absent key");
    same(
      [got[0], got[2], got[3], got[4]],
      ["c", "a", "a", "b"].map((name) => value(subject, name)),
    );
    same(await valuesOf(store, []), [], "getMany of no keys");
  });

  check("setMany stores all", ["setMany"], async ({ subject, store, prefix }) => {
    const names = Array.from({ length: 200 }, (_, i) => `${prefix}${i}`);
    await store.setMany(names.map((name) => [name, value(subject, name)]));
    for (const name of names) same(await store.get(name), value(subject, name), name);
    await store.setMany([]);
  });

  check("deleteMany removes these and no others", ["deleteMany"], async ({ subject, store, prefix, none }) => {
    const names = Array.from({ length: 20 }, (_, i) => `${prefix}${i}`);
    for (const name of names) await store.set(name, value(subject, name));
    await store.deleteMany([...names.slice(0, 10), `${prefix}never`]);
    for (const name of names.slice(0, 10)) await none(name);
    for (const name of names.slice(10)) same(await store.get(name), value(subject, name), name);
    await store.deleteMany([]);
    same(await store.get(names[10] as string), value(subject, names[10] as string), "after deleteMany of no keys");
  });
}

// ---- Iteration

/** The keys that the store lists, with this beginning, sorted. */
async function listed(store: Full, prefix: string): Promise<string[]> {
  const found: string[] = [];
  for await (const key of await store.keys()) if (key.startsWith(prefix)) found.push(key);
  return found.sort();
}

function iteration(check: Define): void {
  check(
    "keys lists every key once, and no key without a value",
    ["keys", "delete"],
    async ({ subject, store, prefix }) => {
      same(await listed(store, prefix), [], "before anything is stored");
      const all = Array.from({ length: 300 }, (_, i) => `${prefix}${i}`).sort();
      for (const key of all) await store.set(key, value(subject, key));
      await store.set(all[7] as string, value(subject, "again"));
      same(await listed(store, prefix), all);
      for (const key of all.slice(0, 100)) await store.delete(key);
      same(await listed(store, prefix), all.slice(100), "after deletes");
    },
  );

  check(
    "keys lists what stays there, while other keys come and go",
    ["keys", "delete"],
    async ({ subject, store, prefix }) => {
      const all = Array.from({ length: 200 }, (_, i) => `${prefix}${i}`);
      for (const key of all) await store.set(key, value(subject, key));
      const staying = all.filter((_, i) => i % 2 === 0);
      const going = new Set(all.filter((_, i) => i % 2 === 1));
      const found: string[] = [];
      for await (const key of await store.keys()) {
        if (key.startsWith(prefix)) found.push(key);
        // One that was listed goes, or else one that may not have been listed yet.
        const gone = going.has(key) ? key : [...going].at(-1);
        if (gone === undefined) continue;
        going.delete(gone);
        await store.delete(gone);
        await store.set(`${prefix}new ${going.size}`, value(subject, "new"));
      }
      same(found.filter((key) => staying.includes(key)).sort(), staying.sort(), "the keys that stay");
      same(new Set(found).size, found.length, "the number of different keys");
    },
  );
}

// ---- Expiry

/** A time to live for a check that waits until it is over. */
function shortTtl({ advance, minTtl = 2 }: StoreSubject): number {
  return Math.max(advance ? 10_000 : 40, minTtl);
}

/**
 * Checks that something is there as long as the time to live says, and then is gone. Without a clock that the check can move, it
 * asks again and again.
 */
async function expires(
  subject: StoreSubject,
  ttl: number,
  begin: () => unknown,
  isThere: () => Promise<boolean>,
  what: string,
): Promise<void> {
  const slack = subject.minTtl ?? 2;
  const since = performance.now();
  await begin();
  if (subject.advance) {
    ok(await isThere(), `${what}: is gone at once`);
    if (ttl > slack + 1) {
      await subject.advance(ttl - slack - 1);
      ok(await isThere(), `${what}: is gone too early`);
    }
    await subject.advance(Math.min(ttl, slack + 1) + slack);
    ok(!(await isThere()), `${what}: is still there after its time to live`);
    return;
  }
  while (await isThere()) {
    ok(performance.now() - since < ttl + slack + 10_000, `${what}: is still there long after its time to live`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  ok(performance.now() - since >= ttl - slack, `${what}: is gone after ${performance.now() - since} of ${ttl} ms`);
}

function expiry(check: Define): void {
  check(
    "a value whose time to live is over is absent, and not before",
    [],
    async ({ subject, store, prefix, none }) => {
      const ttl = shortTtl(subject);
      const [key, kept] = [`${prefix}key`, `${prefix}kept`];
      await store.set(kept, value(subject, "kept"), { ttl: LONG_MS });
      const isThere = async (): Promise<boolean> => !isAbsent(subject, await store.get(key));
      await expires(subject, ttl, () => store.set(key, value(subject, "a"), { ttl }), isThere, "a value");
      if (store.has !== undefined) same(await store.has(key), false, "has of an expired key");
      if (store.keys !== undefined) same(await listed(store, prefix), [kept], "the keys");
      if (store.getMany !== undefined) absent(subject, (await valuesOf(store, [key]))[0], "getMany of an expired key");
      same(await store.get(kept), value(subject, "kept"), "a value with a longer time to live");
      await store.set(key, value(subject, "again"), { ttl: LONG_MS });
      same(await store.get(key), value(subject, "again"), "stored again after its expiry");
      if (store.delete !== undefined) {
        await store.delete(key);
        await none(key);
      }
    },
  );

  check(
    "a value that is stored again has the new time to live, not the old one",
    [],
    async ({ subject, store, prefix }) => {
      const ttl = shortTtl(subject);
      const isThere = async (): Promise<boolean> => !isAbsent(subject, await store.get(`${prefix}witness`));
      await store.set(`${prefix}longer`, value(subject, "old"), { ttl });
      await store.set(`${prefix}longer`, value(subject, "new"), { ttl: LONG_MS });
      await store.set(`${prefix}shorter`, value(subject, "old"), { ttl: LONG_MS });
      await store.set(`${prefix}shorter`, value(subject, "new"), { ttl });
      await expires(
        subject,
        ttl,
        () => store.set(`${prefix}witness`, value(subject, "w"), { ttl }),
        isThere,
        "a value",
      );
      same(await store.get(`${prefix}longer`), value(subject, "new"), "a value that was stored again for longer");
      absent(subject, await store.get(`${prefix}shorter`), "a value that was stored again for a shorter time");
    },
  );

  check("setMany gives each value its own time to live", ["setMany"], async ({ subject, store, prefix }) => {
    const ttl = shortTtl(subject);
    const [key, kept] = [`${prefix}key`, `${prefix}kept`];
    const isThere = async (): Promise<boolean> => !isAbsent(subject, await store.get(key));
    const begin = (): unknown =>
      store.setMany([
        [key, value(subject, "a"), ttl],
        [kept, value(subject, "b"), LONG_MS],
      ]);
    await expires(subject, ttl, begin, isThere, "a value");
    same(await store.get(kept), value(subject, "b"), "the other value");
  });
}

// ---- Namespaces

function namespaces(check: Define): void {
  /** Names and keys that are the same text when they are put together with a separator. */
  const PLACES: [string, string][] = [
    ["n", "k"],
    ["n:", "k"],
    ["n", ":k"],
    ["n:k", ""],
    ["n:k", "k"],
    ["n", "k:k"],
    ["nk", ""],
    ["n*", "k"],
    ["__proto__", "k"],
  ];

  check("a key in one namespace is another key in another", [], async ({ subject, prefix, open, none }) => {
    const places = PLACES.map(([namespace, key]): [string, string] => [prefix + namespace, key]).filter(
      ([, key]) => subject.validKey?.(key) ?? true,
    );
    for (const [namespace, key] of places) {
      const store = await open(namespace);
      await none(key, store);
      await store.set(key, value(subject, `${namespace}|${key}`));
    }
    for (const [namespace, key] of places) {
      same(await (await open(namespace)).get(key), value(subject, `${namespace}|${key}`), `${key} in ${namespace}`);
    }
  });

  check(
    "clear in one namespace leaves the others as they are",
    ["clear"],
    async ({ subject, store, prefix, open, none }) => {
      const names = ["n", "n:", "nn", "n:n", "m", "n*"].map((name) => prefix + name);
      const all = new Map<string, Full>();
      for (const name of names) all.set(name, await open(name));
      await store.set(`${prefix}outside`, value(subject, "outside"));
      for (const [name, each] of all) for (const key of ["a", "b"]) await each.set(key, value(subject, name));
      const cleared = all.get(names[0] as string) as Full;
      await cleared.clear();
      for (const key of ["a", "b"]) await none(key, cleared);
      same(await store.get(`${prefix}outside`), value(subject, "outside"), "a key outside the namespaces");
      for (const [name, each] of [...all].slice(1)) {
        for (const key of ["a", "b"]) same(await each.get(key), value(subject, name), `${key} in ${name}`);
      }
    },
    TRIES,
  );

  check("keys of one namespace does not list those of others", ["keys"], async ({ subject, prefix, open }) => {
    const [one, two] = [await open(`${prefix}n`), await open(`${prefix}nn`)];
    await one.set("a", value(subject, "a"));
    await two.set("b", value(subject, "b"));
    same(await listed(one, ""), ["a"]);
    same(await listed(two, ""), ["b"]);
  });
}

// ---- Tags

function tags(check: Define): void {
  check(
    "invalidateTag removes the values with this tag and no others",
    ["invalidateTag"],
    async ({ subject, store, prefix, none }) => {
      const [a, b, proto] = [`${prefix}tag`, `${prefix}tag2`, "__proto__"];
      const stored: [string, string[]][] = [
        ["one", [a]],
        ["other", [b]],
        ["both", [b, a]],
        ["none", []],
        ["hostile", [proto]],
      ];
      for (const [name, own] of stored) await store.set(prefix + name, value(subject, name), { tags: own });
      await store.invalidateTag(`${prefix}unknown`);
      for (const [name] of stored) same(await store.get(prefix + name), value(subject, name), name);
      await store.invalidateTag(a);
      for (const name of ["one", "both"]) await none(prefix + name);
      for (const name of ["other", "none", "hostile"]) same(await store.get(prefix + name), value(subject, name), name);
      await store.invalidateTag(proto);
      await none(`${prefix}hostile`);
      await store.set(`${prefix}one`, value(subject, "again"), { tags: [a] });
      same(await store.get(`${prefix}one`), value(subject, "again"), "stored again after the invalidation");
    },
    TRIES,
  );

  check(
    "a value that is stored again has the new tags, not the old ones",
    ["invalidateTag"],
    async ({ subject, store, prefix, none }) => {
      await store.set(`${prefix}key`, value(subject, "old"), { tags: [`${prefix}old`] });
      await store.set(`${prefix}key`, value(subject, "new"), { tags: [`${prefix}new`] });
      await store.invalidateTag(`${prefix}old`);
      same(await store.get(`${prefix}key`), value(subject, "new"));
      await store.invalidateTag(`${prefix}new`);
      await none(`${prefix}key`);
    },
    TRIES,
  );

  check(
    "a value may have 128 tags, each of which removes it",
    ["invalidateTag"],
    async ({ subject, store, prefix, none }) => {
      const all = Array.from({ length: 128 }, (_, i) => `${prefix}tag ${i}`);
      for (const tag of [all[0], all[77], all[127]] as string[]) {
        await store.set(`${prefix}key`, value(subject, "a"), { tags: all });
        same(await store.get(`${prefix}key`), value(subject, "a"));
        await store.invalidateTag(tag);
        await none(`${prefix}key`);
      }
    },
  );
}

// ---- Loading

function loading(check: Define): void {
  check("getOrSet loads what is absent, and stores it", ["getOrSet"], async ({ subject, store, prefix }) => {
    let loads = 0;
    const load = async (): Promise<unknown> => value(subject, `load ${++loads}`);
    for (let time = 0; time < 3; time++) {
      same(await store.getOrSet(`${prefix}key`, load, { ttl: LONG_MS }), value(subject, "load 1"));
    }
    same(loads, 1, "loads");
    same(await store.get(`${prefix}key`), value(subject, "load 1"));
    await store.set(`${prefix}there`, value(subject, "there"));
    same(await store.getOrSet(`${prefix}there`, load, { ttl: LONG_MS }), value(subject, "there"));
    same(loads, 1, "loads, for a key that is there");
  });

  check(`${CALLS} calls of getOrSet for an absent key load once`, ["getOrSet"], async ({ subject, store, prefix }) => {
    let loads = 0;
    let finish = (): void => {};
    const finished = new Promise<void>((resolve) => (finish = resolve));
    const load = async (): Promise<unknown> => {
      loads++;
      await finished;
      return value(subject, "loaded");
    };
    const calls = Array.from({ length: CALLS }, () =>
      Promise.resolve(store.getOrSet(`${prefix}key`, load, { ttl: LONG_MS })),
    );
    // The load ends when all calls have had time to ask for the key.
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    finish();
    for (const got of await Promise.all(calls)) same(got, value(subject, "loaded"));
    same(loads, 1, "loads");
  });

  check(
    "an error of a load reaches the caller, and is not stored",
    ["getOrSet"],
    async ({ subject, store, prefix }) => {
      const failing = async (): Promise<never> => {
        throw new RangeError("the source is away");
      };
      const error = await settled(async () => store.getOrSet(`${prefix}key`, failing, { ttl: LONG_MS }));
      ok(messageOf(error).includes("the source is away"), `the error of the load, got ${String(error)}`);
      const load = async (): Promise<unknown> => value(subject, "loaded");
      same(await store.getOrSet(`${prefix}key`, load, { ttl: LONG_MS }), value(subject, "loaded"), "the next call");
    },
  );

  check("getOrSet loads again when the time to live is over", ["getOrSet"], async ({ subject, store, prefix }) => {
    const ttl = shortTtl(subject);
    let loads = 0;
    const get = async (): Promise<unknown> =>
      store.getOrSet(`${prefix}key`, async () => value(subject, `${++loads}`), { ttl });
    const isThere = async (): Promise<boolean> => {
      await get();
      return loads === 1;
    };
    await expires(subject, ttl, get, isThere, "a loaded value");
  });
}

/** The error of a call that fails, or `undefined`. */
async function settled(call: () => unknown): Promise<unknown> {
  try {
    await call();
    return undefined;
  } catch (error) {
    return error;
  }
}

/** The message of an error, which may be of another realm; an empty text for other things. */
function messageOf(error: unknown): string {
  return String((error as Error | undefined)?.message ?? "");
}

// ---- Rate limits

function limits(check: Define): void {
  check(
    "of requests at the same time, exactly as many go through as the limit says",
    ["hit"],
    async ({ store, prefix }) => {
      for (const limit of [1, 7]) {
        const key = `${prefix}limit ${limit}`;
        const all = await Promise.all(Array.from({ length: 3 * limit }, () => store.hit(key, limit, LONG_MS)));
        same(all.filter((allowed) => allowed).length, limit, `requests that were allowed of ${3 * limit}`);
      }
      same(await store.hit(`${prefix}other`, 1, LONG_MS), true, "the first request of another key");
    },
  );

  check("when the window is over, requests go through again", ["hit"], async ({ subject, store, prefix }) => {
    const window = Math.max(shortTtl(subject), 100);
    const hit = async (): Promise<boolean> => store.hit(`${prefix}key`, 1, window);
    const begin = async (): Promise<void> => same(await hit(), true, "the first request");
    await expires(subject, window, begin, async () => !(await hit()), "a limit");
  });
}

// ---- Calls at the same time

function concurrency(check: Define): void {
  check("calls at the same time do not disturb each other", [], async ({ subject, store, prefix }) => {
    const names = Array.from({ length: CALLS }, (_, i) => prefix + i);
    await Promise.all(names.map((name) => store.set(name, value(subject, name))));
    const got = await Promise.all([...names, ...names].map((name) => store.get(name)));
    same(
      got,
      [...names, ...names].map((name) => value(subject, name)),
    );
  });

  check(
    "of stores for one key that do not wait for each other, the last one counts",
    [],
    async ({ subject, store, prefix }) => {
      const names = Array.from({ length: CALLS }, (_, i) => `${i}`);
      await Promise.all(names.map((name) => store.set(`${prefix}key`, value(subject, name))));
      same(await store.get(`${prefix}key`), value(subject, names.at(-1) as string));
    },
  );
}

// ---- After the end

function closing(check: Define): void {
  check(
    "after close, a call is a miss or an error that can be caught, and does not hang",
    ["close"],
    async ({ subject, store, prefix }) => {
      const key = `${prefix}key`;
      await store.set(key, value(subject, "a"));
      await store.close();
      for (const call of [() => store.get(key), () => store.set(key, value(subject, "b")), () => store.delete?.(key)]) {
        const error = await settled(call);
        ok(error === undefined || messageOf(error) !== "", `an Error with a message, got ${String(error)}`);
      }
      await store.close();
    },
  );

  check("closing one store does not close another", ["close"], async ({ subject, store, prefix, open }) => {
    const other = await open();
    await other.set(`${prefix}key`, value(subject, "a"));
    await store.close();
    same(await other.get(`${prefix}key`), value(subject, "a"));
    await other.set(`${prefix}key`, value(subject, "b"));
    same(await other.get(`${prefix}key`), value(subject, "b"));
  });
}
