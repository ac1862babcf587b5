/**
 * Tests `cache-machine/undici`: the store by itself, beside undici's own store, and in two and four processes that send real
 * requests to a real server through undici's cache interceptor. undici 8 needs a Node.js of 22.19 or later: `NODES` (nodes.ts).
 */

import { type ChildProcess, execFileSync, fork } from "node:child_process";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { finished } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { type Cache, CacheError, createCache, destroyCache, openCache } from "cache-machine";
import { CacheMachineStore, type RequestKey, type ResponseValue } from "cache-machine/undici";
import { cacheStores } from "undici";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { inTime } from "../coordinate/others.ts";
import { nodeBinary, versions } from "../package/nodes.ts";
import { Projects } from "../package/projects.ts";
import { compile } from "./compile.ts";

const key = (path = "/", headers: Record<string, string | string[]> = {}, method = "GET"): RequestKey => ({
  origin: "http://localhost",
  method,
  path,
  headers,
});

function value(more: Partial<ResponseValue> = {}): ResponseValue {
  const now = Date.now();
  const times = { cachedAt: now, staleAt: now + 10_000, deleteAt: now + 20_000 };
  return { statusCode: 200, statusMessage: "OK", headers: { a: "b" }, cacheControlDirectives: {}, ...times, ...more };
}

type Store = Pick<CacheMachineStore, "createWriteStream" | "delete"> & { get(key: RequestKey): any };

/** Writes a response. Returns whether the store took it. */
async function write(store: Store, at: RequestKey, what: ResponseValue, ...body: string[]): Promise<boolean> {
  const stream = store.createWriteStream(at, what);
  if (stream === undefined) return false;
  for (const chunk of body) stream.write(Buffer.from(chunk));
  stream.end();
  await finished(stream).catch(() => {});
  return stream.writableFinished;
}

/** The body that the store has for a request. */
function body(store: Store, at: RequestKey): string | undefined {
  const found = store.get(at);
  return found === undefined ? undefined : Buffer.concat(found.body).toString();
}

describe("the store", () => {
  let cache: Cache;
  let store: CacheMachineStore;

  beforeEach(() => {
    cache = createCache({ size: "4mb" });
    store = new CacheMachineStore(cache);
  });
  afterEach(() => {
    vi.useRealTimers();
    cache.close();
  });

  test("a response comes back with everything that was stored, also to an equal key, and another path has none", async () => {
    const stored = value({
      headers: { "content-type": "text/plain", "x-many": ["a", "ü"] },
      etag: '"1"',
      cacheControlDirectives: { "max-age": 10, private: ["set-cookie"], immutable: true },
    });
    expect(store.get(key())).toBe(undefined);
    expect(await write(store, key(), stored, "asd", "123")).toBe(true);
    expect(store.get(structuredClone(key()))).toEqual({ ...stored, body: [Buffer.from("asd123")] });
    expect(store.get(key("/other"))).toBe(undefined);
    expect(store.get({ ...key(), origin: "http://localhost:81" })).toBe(undefined);
    expect(store.get(key("/", {}, "HEAD"))).toBe(undefined);
  });

  test("the body is a list of buffers, as undici replays it after a 304, and an empty body is an empty list", async () => {
    await write(store, key("/full"), value(), "x".repeat(100_000));
    await write(store, key("/empty"), value());
    expect(store.get(key("/full"))?.body.map((chunk) => Buffer.isBuffer(chunk))).toEqual([true]);
    expect(store.get(key("/empty"))?.body).toEqual([]);
  });

  test("a stale response is found before its deleteAt, replaced by a new one, and gone at its deleteAt", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: 1_000_000 });
    await write(store, key(), value({ staleAt: 1_001_000, deleteAt: 1_005_000 }), "old");
    vi.setSystemTime(1_004_999);
    expect(body(store, key())).toBe("old");
    await write(store, key(), value({ staleAt: 1_006_000, deleteAt: 1_010_000 }), "new");
    expect(body(store, key())).toBe("new");
    vi.setSystemTime(1_009_999);
    expect(body(store, key())).toBe("new");
    vi.setSystemTime(1_010_000);
    expect(store.get(key())).toBe(undefined);
    expect(await write(store, key(), value({ deleteAt: Date.now() }), "late")).toBe(false);
  });

  test("with another clock of the cache, responses live as long as they say", async () => {
    let now = 5;
    const odd = createCache({ size: "1mb", now: () => now });
    const other = new CacheMachineStore(odd);
    await write(other, key(), value(), "a");
    expect(body(other, key())).toBe("a");
    now += 20_001;
    expect(other.get(key())).toBe(undefined);
    await write(other, key(), value(), "b");
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 20_001 });
    expect(other.get(key())).toBe(undefined);
    odd.close();
  });

  test("a response that lives shorter than another one of its page does not shorten its life", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: 1_000_000 });
    await write(store, key("/", { a: "1" }), value({ vary: { a: "1" }, deleteAt: 1_100_000 }), "long");
    await write(store, key("/", { b: "1" }), value({ vary: { b: "1" }, deleteAt: 1_001_000 }), "short");
    vi.setSystemTime(1_001_001);
    expect(store.get(key("/", { b: "1" }))).toBe(undefined);
    expect(body(store, key("/", { a: "1" }))).toBe("long");
  });

  test("of requests that found nothing at the same moment, each stores its response", async () => {
    const [german, french] = [key("/", { a: "de" }), key("/", { a: "fr" })];
    store.get(german);
    store.get(french);
    expect(await write(store, german, value({ vary: { a: "de" } }), "de")).toBe(true);
    expect(await write(store, french, value({ vary: { a: "fr" } }), "fr")).toBe(true);
    expect([german, french].map((request) => body(store, request))).toEqual(["de", "fr"]);
  });

  test("one page has a response for each value of what it varies on, and several values of one header are one", async () => {
    const variants: (string | string[] | undefined)[] = ["de", "fr", ["de", "fr"], undefined];
    const headers = (language: string | string[] | undefined) =>
      language === undefined ? {} : { "accept-language": language };
    for (const language of variants) {
      const vary = { "accept-language": language ?? null };
      expect(await write(store, key("/", headers(language)), value({ vary }), String(language))).toBe(true);
    }
    for (const language of variants) expect(body(store, key("/", headers(language)))).toBe(String(language));
    expect(store.get(key("/", { "accept-language": "it" }))).toBe(undefined);
    expect(body(store, key("/", { "accept-language": "de", "user-agent": "x" }))).toBe("de");
    await write(store, key("/two", { a: "1", b: "2" }), value({ vary: { b: "2", a: "1" } }), "b and a");
    expect(body(store, key("/two", { a: "1", b: "2" }))).toBe("b and a");
    expect(store.get(key("/two", { a: "2", b: "1" }))).toBe(undefined);
  });

  test("of several responses that a request matches, the latest is taken", async () => {
    const now = Date.now();
    const request = key("/", { a: "1", b: "2" });
    await write(store, request, value({ vary: { a: "1" }, cachedAt: now - 10 }), "by a");
    await write(store, request, value({ vary: { b: "2" }, cachedAt: now }), "by b");
    expect(body(store, request)).toBe("by b");
    await write(store, request, value({ vary: { b: "2" }, cachedAt: now - 20 }), "by b, older");
    expect(body(store, request)).toBe("by a");
  });

  test("an origin that varies on other headers each time makes a page no larger", async () => {
    for (let i = 0; i < 200; i++) {
      await write(store, key("/", { [`h${i}`]: "x" }), value({ vary: { [`h${i}`]: "x" }, cachedAt: i }), `${i}`);
    }
    expect(body(store, key("/", { h199: "x" }))).toBe("199");
    expect(store.get(key("/", { h0: "x" }))).toBe(undefined);
    const pages = [...cache.namespace("undici").values()].filter((entry) => "selections" in entry);
    expect(pages).toHaveLength(1);
    expect(pages[0].selections.length).toBeLessThan(50);
  });

  test("a body of maxEntrySize bytes is stored; one more is not, and nor is what was there any more", async () => {
    const small = new CacheMachineStore(cache, { maxEntrySize: 6 });
    expect(await write(small, key(), value(), "asd", "123")).toBe(true);
    expect(await write(small, key(), value(), "asd", "1234")).toBe(false);
    expect(small.get(key())).toBe(undefined);
    const length = (bytes: string): ResponseValue => value({ headers: { "content-length": bytes } });
    expect(await write(small, key(), value(), "asd123")).toBe(true);
    expect(small.createWriteStream(key(), length("7"))).toBe(undefined);
    expect(small.get(key())).toBe(undefined);
    expect(small.createWriteStream(key("/", {}, "HEAD"), length("7"))).not.toBe(undefined);
    expect(small.createWriteStream(key(), length("6"))).not.toBe(undefined);
    expect(small.createWriteStream(key(), length("six"))).not.toBe(undefined);
  });

  test("a response that the cache cannot take is not stored, without an error", async () => {
    const half = "x".repeat(300_000);
    expect(await write(store, key(), value(), half, half)).toBe(false);
    const tight = createCache({ size: "4mb", maxEntrySize: 1000 });
    const other = new CacheMachineStore(tight);
    expect(await write(other, key(), value(), "x")).toBe(true);
    expect(await write(other, key(), value(), "x".repeat(2000))).toBe(true);
    expect(other.get(key())).toBe(undefined);
    tight.close();
  });

  test("a stream that is cut off stores nothing, and leaves what was there", async () => {
    await write(store, key(), value(), "whole");
    for (const error of [undefined, new Error("cut off")]) {
      const stream = store.createWriteStream(key(), value());
      stream?.on("error", () => {});
      stream?.write(Buffer.from("half"));
      stream?.destroy(error);
      await finished(stream as NonNullable<typeof stream>).catch(() => {});
      expect(body(store, key())).toBe("whole");
    }
    const open = store.createWriteStream(key("/open"), value());
    open?.write(Buffer.from("half"));
    expect(store.get(key("/open"))).toBe(undefined);
    open?.destroy();
  });

  test("of writers at the same time the last one to end is stored whole", async () => {
    const streams = ["a", "b", "c"].map((letter) => ({ letter, stream: store.createWriteStream(key(), value()) }));
    for (let i = 0; i < 10; i++) for (const { letter, stream } of streams) stream?.write(letter);
    for (const { letter, stream } of streams.reverse()) {
      stream?.end();
      await finished(stream as NonNullable<typeof stream>);
      expect(body(store, key())).toBe(letter.repeat(10));
    }
  });

  test("who changes a chunk that was written, or a buffer that was read, changes nothing in the cache", async () => {
    const chunk = Buffer.from("abc");
    const stream = store.createWriteStream(key(), value());
    stream?.write(chunk);
    chunk.fill("x");
    stream?.end();
    await finished(stream as NonNullable<typeof stream>);
    const found = store.get(key());
    expect(String(found?.body[0])).toBe("abc");
    found?.body[0]?.fill("y");
    if (found !== undefined) found.headers.a = "changed";
    expect(body(store, key())).toBe("abc");
    expect(store.get(key())?.headers).toEqual({ a: "b" });
  });

  test("delete removes all responses of a page, of every method and variant, and of no other page", async () => {
    await write(store, key("/", { a: "1" }), value({ vary: { a: "1" } }), "1");
    await write(store, key("/", { a: "2" }), value({ vary: { a: "2" } }), "2");
    await write(store, key("/", {}, "HEAD"), value());
    await write(store, key("/other"), value(), "other");
    store.delete(key("/", {}, "POST"));
    expect(store.get(key("/", { a: "1" }))).toBe(undefined);
    expect(store.get(key("/", { a: "2" }))).toBe(undefined);
    expect(store.get(key("/", {}, "HEAD"))).toBe(undefined);
    expect(body(store, key("/other"))).toBe("other");
    await write(store, key("/", { a: "1" }), value({ vary: { a: "1" } }), "new");
    expect(body(store, key("/", { a: "1" }))).toBe("new");
    // The other variant was not stored again: it does not come back with the page.
    expect(store.get(key("/", { a: "2" }))).toBe(undefined);
  });

  test("a response that was requested before a deletion is not stored, whenever its headers come", async () => {
    const other = new CacheMachineStore(cache);
    const early = key();
    const late = key();
    // Asked for, as undici does, before the deletion; of the second one the headers have come too.
    store.get(early);
    store.get(late);
    const stream = store.createWriteStream(late, value());
    other.delete(key("/", {}, "PUT"));
    expect(store.createWriteStream(early, value())).toBe(undefined);
    stream?.end("old");
    await finished(stream as NonNullable<typeof stream>);
    expect(store.get(key())).toBe(undefined);
    // What is asked for afterwards is stored.
    const next = key();
    store.get(next);
    expect(await write(store, next, value(), "new")).toBe(true);
    expect(body(other, key())).toBe("new");
    // Also by a request that had found something before.
    const revalidated = key();
    expect(body(store, revalidated)).toBe("new");
    other.delete(key("/", {}, "PUT"));
    expect(await write(store, revalidated, value(), "newer, but too late")).toBe(false);
    expect(store.get(key())).toBe(undefined);
  });

  test("a request that deletes what it has found, and asks again, stores the answer", async () => {
    await write(store, key(), value(), "old");
    const request = key();
    expect(body(store, request)).toBe("old");
    store.delete(request);
    expect(await write(store, request, value(), "new")).toBe(true);
    expect(body(store, key())).toBe("new");
  });

  test("a deletion that cannot be stored, because another participant is in the way, still makes all responses misses", async () => {
    let isBusy = false;
    const busy = new Proxy(cache.namespace("undici"), {
      get(target, name) {
        const member = Reflect.get(target, name, target);
        if (typeof member !== "function") return member;
        return (...args: unknown[]) => {
          if (isBusy && name === "trySet") return false;
          if (isBusy && ["set", "update"].includes(String(name))) throw new CacheError("ERR_BUSY", "in the way");
          return member.apply(target, args);
        };
      },
    });
    const standIn = { namespace: () => busy, incrementEntry() {}, toJSON: () => cache.toJSON() };
    const other = new CacheMachineStore(standIn as unknown as Cache);
    await write(other, key(), value(), "old");
    const stream = other.createWriteStream(key("/stream"), value());
    isBusy = true;
    other.delete(key());
    expect(store.get(key())).toBe(undefined);
    expect(other.createWriteStream(key("/new"), value())).toBe(undefined);
    stream?.end("not stored");
    await finished(stream as NonNullable<typeof stream>);
    expect(store.get(key("/stream"))).toBe(undefined);
  });

  test("hostile keys and headers are stored as any others", async () => {
    const paths = [
      "",
      "/__proto__",
      "/\u0000",
      "/\ud800",
      "/\udc00",
      "/ü€😀",
      `/${"x".repeat(10_000)}`,
      `/${"ü".repeat(3000)}`,
    ];
    for (const path of paths) expect(await write(store, key(path), value(), path), path.slice(0, 20)).toBe(true);
    for (const path of paths) expect(body(store, key(path)), path.slice(0, 20)).toBe(Buffer.from(path).toString());
    const headers = JSON.parse('{"__proto__":"a","constructor":"b"}');
    const vary = JSON.parse('{"__proto__":"a"}');
    await write(store, key("/h", headers), value({ headers, vary }), "hostile");
    expect(body(store, key("/h", headers))).toBe("hostile");
    expect(Object.entries(store.get(key("/h", headers))?.headers ?? {})).toEqual(Object.entries(headers));
    expect(store.get(key("/h", {}))).toBe(undefined);
    await write(store, key("/n", {}), value({ vary: JSON.parse('{"__proto__":null,"toString":null}') }), "without");
    expect(body(store, key("/n", {}))).toBe("without");
    // The parts of a key cannot be moved from one to the next.
    await write(store, { origin: "a", method: "GET", path: "b" }, value(), "ab");
    for (const [origin = "", path = ""] of [
      ["ab", ""],
      ["", "ab"],
      ['a","b', ""],
    ]) {
      expect(store.get({ origin, method: "GET", path })).toBe(undefined);
    }
  });

  test("wrong arguments are named", () => {
    const make =
      (...args: unknown[]) =>
      () =>
        Reflect.construct(CacheMachineStore, args);
    expect(make()).toThrow(/cache: must be a cache/);
    expect(make({})).toThrow(/cache: must be a cache/);
    expect(make(cache, { maxSize: 5 })).toThrow(/maxSize: there is no such option/);
    for (const maxEntrySize of [-1, 1.5, Number.NaN, "5mb"])
      expect(make(cache, { maxEntrySize })).toThrow(/maxEntrySize/);
    const call = (name: "get" | "delete" | "createWriteStream", ...args: any[]) => {
      return () => (store[name] as (...args: any[]) => unknown)(...args);
    };
    expect(call("get", undefined)).toThrow(TypeError);
    expect(call("get", { ...key(), path: 5 })).toThrow(/key\.path/);
    expect(call("get", { ...key(), headers: "a" })).toThrow(/key\.headers/);
    expect(call("delete", "GET")).toThrow(TypeError);
    expect(call("createWriteStream", key())).toThrow(/value/);
    expect(call("createWriteStream", key(), { ...value(), deleteAt: "soon" })).toThrow(/value\.deleteAt/);
  });

  test("after close, get throws, and what undici calls while a response comes in or is cut off does not", async () => {
    const stream = store.createWriteStream(key(), value());
    cache.close();
    expect(() => store.get(key())).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    stream?.end("late");
    await finished(stream as NonNullable<typeof stream>);
    expect(store.createWriteStream(key(), value())).toBe(undefined);
    store.delete(key());
  });

  test("answers random operations as undici's own store does", async () => {
    const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
    let state = seed;
    const random = (below: number): number => {
      state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
      return Math.floor((state / 2_147_483_648) * below);
    };
    const own = new cacheStores.MemoryCacheStore() as Store;
    const kept: string[] = [];
    for (let i = 0; i < 2000; i++) {
      const path = `/${random(4)}`;
      // What a page varies on stays the same: undici's store takes the first response that matches, and this one the latest.
      const names = ["", "a", "b", "ab"][Number(path[1])] as string;
      const headers = Object.fromEntries([...names].map((name) => [name, `${random(3)}`]));
      const request = key(path, headers, random(5) === 0 ? "HEAD" : "GET");
      const what = random(10);
      if (what < 5) {
        const vary = names === "" ? {} : { vary: headers };
        const response = value({ ...vary, statusCode: 200 + random(4), etag: `"${i}"` });
        const chunks = Array.from({ length: random(4) }, () => "x".repeat(random(2000)));
        await write(store, request, response, ...chunks);
        await write(own, request, response, ...chunks);
      } else if (what < 6) {
        store.delete(request);
        own.delete(request);
      } else {
        const [mine, theirs] = [store.get(request), own.get(request)];
        const hint = `seed ${seed}, operation ${i}`;
        expect(mine?.etag, hint).toBe(theirs?.etag);
        expect(mine?.statusCode, hint).toBe(theirs?.statusCode);
        expect(body(store, request), hint).toBe(body(own, request));
        if (mine?.etag !== undefined) kept.push(mine.etag);
      }
    }
    expect(kept.length).toBeGreaterThan(100);
  });
});

/** A server that counts requests, and answers as its `answers` say. */
class Origin {
  readonly server: Server;
  readonly answers = new Map<string, (request: IncomingMessage, response: ServerResponse) => unknown>();
  /** How often each method and path was asked for, as `GET /a`. */
  readonly counts = new Map<string, number>();

  constructor() {
    this.server = createServer((request, response) => {
      const what = `${request.method} ${request.url}`;
      this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
      this.answers.get(what)?.(request, response);
    });
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  count(what: string): number {
    return this.counts.get(what) ?? 0;
  }
}

interface Job {
  url: string;
  method?: string;
  headers?: Record<string, string>;
}

interface Answer {
  status: number;
  age?: string;
  warning?: string;
  body: string;
  error?: string;
}

/** A process that sends requests: undici-client.mjs. */
class Client {
  readonly process: ChildProcess;
  readonly #ready: Promise<unknown>;
  #number = 0;

  constructor(name: string, peer: string, node: string) {
    const script = fileURLToPath(new URL("undici-client.mjs", import.meta.url));
    const command = ["setpriv", "--pdeathsig", "KILL", node];
    this.process = fork(script, [JSON.stringify({ name, peer, parent: process.pid })], {
      execPath: command[0] as string,
      execArgv: command.slice(1),
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    this.#ready = once(this.process, "message");
  }

  /** Sends requests at the same moment. */
  async all(jobs: Job[]): Promise<Answer[]> {
    await inTime(this.#ready, "the start of a client");
    const number = this.#number++;
    const answered = new Promise<Answer[]>((resolve) => {
      const listen = (message: { number: number; results: Answer[] }): void => {
        if (message.number !== number) return;
        this.process.off("message", listen);
        resolve(message.results);
      };
      this.process.on("message", listen);
    });
    this.process.send({ number, jobs });
    return inTime(answered, "an answer of a client");
  }

  async ask(url: string, more: Omit<Job, "url"> = {}): Promise<Answer> {
    return (await this.all([{ url, ...more }]))[0] as Answer;
  }
}

const projects = new Projects("undici");
afterAll(() => projects.remove());
/** undici 7 here, and both in the versions of Node.js that undici 8 runs in. */
const hosts: [peer: string, version: string][] = [["undici", ""]];
for (const version of versions) hosts.push(["undici", version], ["undici8", version]);

test("the store fits the types of undici 7 and 8", () => compile("undici.types.ts"));

describe.each(hosts)("%s %s", (peer, version) => {
  const name = `undici-${process.pid}-${peer}-${hosts.findIndex((host) => host[0] === peer && host[1] === version)}`;
  let cache: Cache;
  let origin: Origin;
  const clients: Client[] = [];
  let one: Client, two: Client, three: Client;
  let node = process.execPath;
  let isTooOld = false;

  beforeAll(async () => {
    if (version !== "") node = await nodeBinary(version);
    const versionOf = ["-p", "process.versions.node"];
    const [major = 0, minor = 0] = execFileSync(node, versionOf, { encoding: "utf8" }).split(".").map(Number);
    isTooOld = peer === "undici8" && (major < 22 || (major === 22 && minor < 19));
    if (isTooOld) return;
    cache = openCache(name, { size: "16mb" });
    [one, two, three] = [start(), start(), start()];
    start();
  });

  function start(): Client {
    const client = new Client(name, peer, node);
    clients.push(client);
    return client;
  }

  beforeEach(async (context) => {
    context.skip(isTooOld, "undici 8 needs Node.js 22.19");
    // The server may get a port that an earlier one had.
    cache.clear();
    origin = new Origin();
    origin.server.listen(0, "127.0.0.1");
    await once(origin.server, "listening");
  });

  afterEach(() => {
    origin?.server.closeAllConnections();
    origin?.server.close();
  });

  afterAll(async () => {
    for (const { process } of clients) process.kill("SIGKILL");
    await Promise.all(clients.map(({ process }) => process.exitCode ?? process.signalCode ?? once(process, "exit")));
    cache?.close();
    destroyCache(name);
  });

  test("one process fetches, and the other three answer from the cache", async () => {
    const text = "x".repeat(1_000_000);
    origin.answers.set("GET /a", (_request, response) => {
      response.writeHead(200, { "cache-control": "max-age=60" });
      for (let i = 0; i < 10; i++) response.write(text.slice(i * 100_000, (i + 1) * 100_000));
      response.end();
    });
    const first = await one.ask(`${origin.url}/a`);
    expect(first).toMatchObject({ status: 200, body: text });
    expect(first.age).toBe(undefined);
    for (const client of clients) {
      const answer = await client.ask(`${origin.url}/a`);
      expect(answer.body === text).toBe(true);
      expect(Number(answer.age)).toBeLessThan(60);
    }
    expect(origin.count("GET /a")).toBe(1);
  });

  test("processes that ask at the same moment all get the answer, and then nobody asks the origin any more", async () => {
    origin.answers.set("GET /a", (_request, response) => {
      setTimeout(() => response.setHeader("cache-control", "max-age=60").end("same"), 50);
    });
    const many = (): Promise<Answer[][]> =>
      Promise.all(clients.map((client) => client.all(Array.from({ length: 20 }, () => ({ url: `${origin.url}/a` })))));
    expect(new Set((await many()).flat().map(({ body }) => body))).toEqual(new Set(["same"]));
    const asked = origin.count("GET /a");
    expect(new Set((await many()).flat().map(({ body }) => body))).toEqual(new Set(["same"]));
    expect(origin.count("GET /a")).toBe(asked);
  });

  test("each variant is fetched once for all processes", async () => {
    origin.answers.set("GET /v", ({ headers }, response) => {
      response.setHeader("cache-control", "max-age=60").setHeader("vary", "Accept-Language");
      response.end(`in ${headers["accept-language"]}`);
    });
    for (const client of clients) {
      for (const language of ["de", "fr", "it"]) {
        const { body } = await client.ask(`${origin.url}/v`, { headers: { "accept-language": language } });
        expect(body).toBe(`in ${language}`);
      }
    }
    expect(origin.count("GET /v")).toBe(3);
  });

  test("a process revalidates with the ETag that another one has stored, and answers with the stored body", async () => {
    const conditions: (string | undefined)[] = [];
    origin.answers.set("GET /e", ({ headers }, response) => {
      conditions.push(headers["if-none-match"]);
      response.setHeader("cache-control", "no-cache, max-age=60").setHeader("etag", '"v1"');
      if (headers["if-none-match"] === '"v1"') response.writeHead(304).end();
      else response.end("the body");
    });
    expect(await one.ask(`${origin.url}/e`)).toMatchObject({ status: 200, body: "the body" });
    expect(await two.ask(`${origin.url}/e`)).toMatchObject({ status: 200, body: "the body" });
    expect(conditions).toEqual([undefined, '"v1"']);
  });

  test("an unsafe request of one process removes the answer from all of them", async () => {
    let version = 1;
    origin.answers.set("GET /a", (_request, response) => {
      response.setHeader("cache-control", "max-age=60").end(`version ${version}`);
    });
    origin.answers.set("POST /a", (_request, response) => {
      version++;
      response.writeHead(204).end();
    });
    for (const client of clients) expect((await client.ask(`${origin.url}/a`)).body).toBe("version 1");
    await two.ask(`${origin.url}/a`, { method: "POST" });
    for (const client of clients) expect((await client.ask(`${origin.url}/a`)).body).toBe("version 2");
    expect(origin.count("GET /a")).toBe(2);
  });

  test("an answer that was under way during an unsafe request is not stored for anybody", async () => {
    let version = 1;
    const held: (() => void)[] = [];
    origin.answers.set("GET /a", (_request, response) => {
      const text = `version ${version}`;
      const send = (): unknown => response.setHeader("cache-control", "max-age=60").end(text);
      if (version === 1) held.push(send);
      else send();
    });
    origin.answers.set("DELETE /a", (_request, response) => {
      version++;
      response.writeHead(204).end();
    });
    const slow = one.ask(`${origin.url}/a`);
    await vi.waitFor(() => expect(held).toHaveLength(1), 10_000);
    await two.ask(`${origin.url}/a`, { method: "DELETE" });
    held[0]?.();
    expect((await slow).body).toBe("version 1");
    for (const client of clients) expect((await client.ask(`${origin.url}/a`)).body).toBe("version 2");
    expect(origin.count("GET /a")).toBe(2);
  });

  test("an answer that is cut off, by the origin or by the death of the process, is not stored", async () => {
    let cutting = true;
    const open: ServerResponse[] = [];
    const answer = (_request: unknown, response: ServerResponse): void => {
      response.writeHead(200, { "cache-control": "max-age=60", "content-length": "8" });
      response.write("half");
      if (cutting) open.push(response);
      else response.end("half");
    };
    for (const path of ["/origin", "/client"]) origin.answers.set(`GET ${path}`, answer);
    const failed = one.ask(`${origin.url}/origin`);
    const victim = start();
    void victim.ask(`${origin.url}/client`).catch(() => {});
    await vi.waitFor(() => expect(open).toHaveLength(2), 10_000);
    for (const response of open) if (response.req.url === "/origin") response.destroy();
    expect((await failed).error).toBeDefined();
    victim.process.kill("SIGKILL");
    await once(victim.process, "exit");
    clients.pop();
    cutting = false;
    for (const path of ["/origin", "/client"]) {
      for (const client of clients) expect((await client.ask(`${origin.url}${path}`)).body).toBe("halfhalf");
      expect(origin.count(`GET ${path}`)).toBe(2);
    }
  });

  test("within stale-while-revalidate the old answer is given at once, and one refresh is seen by all processes", async () => {
    let version = 1;
    origin.answers.set("GET /s", (_request, response) => {
      // Already older than its max-age, and within the time in which it may be used while it is refreshed.
      if (version === 1) response.setHeader("age", "9");
      response.setHeader("cache-control", "max-age=10, stale-while-revalidate=60").end(`version ${version}`);
    });
    expect((await one.ask(`${origin.url}/s`)).body).toBe("version 1");
    version = 2;
    // Two seconds later the first answer is stale.
    await vi.waitFor(async () => expect((await two.ask(`${origin.url}/s`)).warning).toMatch(/stale/), 10_000);
    await vi.waitFor(async () => expect((await three.ask(`${origin.url}/s`)).body).toBe("version 2"), 10_000);
    for (const client of clients) expect((await client.ask(`${origin.url}/s`)).body).toBe("version 2");
  });
});
