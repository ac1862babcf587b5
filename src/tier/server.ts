/**
 * All that is said to the server: each operation of the tier as commands and scripts, and what the answers mean. Every command goes
 * through the gate, has a timeout, and its answer is checked. Knows nothing of the host's memory.
 *
 * **Times of tags in a cluster.** The tags lie in one slot, a value in another, so an entry with tags takes two steps: ENSURE makes its tags
 * known and gives the stamp, then the entry is written. What can happen between:
 *
 * - A tag is invalidated: its time is later than the stamp, so the entry is absent as soon as it is written. Right: the value
 *   was there before the invalidation.
 * - The value is changed: a commit finds its token gone. A plain write overwrites, as it may: it is the later one.
 * - A tag expires or is evicted: the entry is absent. Safe, and rare.
 * - The writer dies: the tags exist without an entry, which hurts nobody.
 *
 * And before: `begin` takes a time of the tags' clock before the loader runs. A tag that was invalidated after this time refuses the commit in
 * its first step, because the loader may have read its source before.
 */

import { randomBytes } from "node:crypto";
import { CacheError, type Key } from "../index.ts";
import type { Argument, Client, Reply } from "./clients/client.ts";
import {
  badData,
  decodeBody,
  decodeHead,
  encodeEntry,
  encodeTags,
  type Head,
  markOf,
  numberOf,
  putStamp,
  textOfNumber,
  type ValueBytes,
} from "./format.ts";
import { errorOf, type Gate, type Line, unreachable } from "./gate.ts";
import type { Names } from "./names.ts";
import * as scripts from "./scripts.ts";

/** The most keys of one command, so that the server serves others in between. */
const MOST_KEYS = 256;
/** The most tags that are ensured for many entries at once. */
const MOST_TAGS = 512;
/** How often an entry with tags may be changed by others while one participant finds out whether it is good. */
const ATTEMPTS = 16;
/** A longer life than this many milliseconds is for ever to the server. */
const LONGEST_LIFE = 2 ** 52;
const LONGEST_LEASE = 86_400_000;

/** An entry as the server has it. */
export interface Stored {
  value: unknown;
  /** Milliseconds that are left, `Infinity` for ever; 0 or less within the grace. */
  ttl: number;
  /** Milliseconds. */
  grace: number;
  tags: string[];
  /**
   * When it was stored, in microseconds: of the tags' clock if it has tags, otherwise of the clock of its server. An entry with tags is good
   * while each of them was last invalidated before.
   */
  stamp: number;
}

/** How an entry is stored: times in milliseconds, `Infinity` for ever. */
export interface Writing {
  ttl: number;
  grace: number;
  tags: readonly string[];
}

/** How a number is counted: as `IncrementOptions`, with the defaults filled in. `ttl` and `tags` are those of a new number. */
export interface Counting {
  initial: number;
  min: number;
  max: number;
  ttl: number;
  tags: readonly string[];
}

/** What a load wants: see {@link Server.begin}. */
export interface BeginOptions {
  /** Whether only one host may load. */
  all: boolean;
  /** Milliseconds until the token is forgotten, unless it is renewed. */
  lease: number;
  /**
   * The stamp of an entry that the caller has read and does not take, because one of its tags was invalidated; `true` when no entry
   * counts, because a fresh one is wanted. One that has expired never counts.
   */
  unless?: number | true | undefined;
}

/** What became of a {@link Server.begin}. */
export type Begun =
  /** There is an entry. Whether its tags are good is for the caller to find out. */
  | { found: Stored }
  /** The caller may load. `since`: microseconds of the tags' clock. */
  | { token: string; since: number }
  /** Another host loads; `left` are the milliseconds of its lease. */
  | { leader: true; left: number };

/** What a {@link Server} works with. */
export interface ServerOptions {
  /** Milliseconds for each command. */
  timeout: number;
  codec: ValueBytes;
  /** The server's time in milliseconds since 1970, `undefined` while nobody knows it. */
  now(): number | undefined;
  /**
   * Whether somebody has measured that time lately, so that it is not that of another server; no by default. Then a change is not
   * made after its `timeout`.
   */
  isInTouch?(): boolean;
  gate: Gate;
}

/**
 * The server. Every promise may be rejected with a `CacheError`: `ERR_UNREACHABLE` when the server is away or refuses, `ERR_DATA` when
 * what stands there is no value of this version, `ERR_TOO_LARGE`. Wrong arguments are a `TypeError` or a `RangeError`, as in `Cache`.
 * With a key that is too long there is no entry, and none can be stored.
 */
export class Server {
  readonly #client: Client;
  readonly #names: Names;
  readonly #timeout: number;
  readonly #codec: ValueBytes;
  readonly #now: () => number | undefined;
  readonly #isInTouch: () => boolean;
  readonly #gate: Gate;
  /** What the gate needs to find out whether the server is back. */
  readonly #line: Line;
  #commands = 0;

  constructor(client: Client, names: Names, { timeout, codec, now, isInTouch = () => false, gate }: ServerOptions) {
    this.#client = client;
    this.#names = names;
    this.#timeout = timeout;
    this.#codec = codec;
    this.#now = now;
    this.#isInTouch = isInTouch;
    this.#gate = gate;
    this.#line = {
      probe: () => {
        this.#commands++;
        return client.send(names.clock, ["PING"], timeout);
      },
      errorOf: (cause) => errorOf(cause, client.errorReply(cause)),
    };
  }

  /** Commands that were sent so far. */
  get commands(): number {
    return this.#commands;
  }

  // ---- reading

  /** The entry of a key, also one within its grace; `undefined` when there is none. */
  async read(path: readonly string[], key: Key): Promise<Stored | undefined> {
    if (!this.#names.fits(key)) return undefined;
    const name = this.#names.value(path, key);
    // The time is asked for at the same time, and only while nobody knows it.
    const [reply, now] =
      this.#now() === undefined
        ? await Promise.all([this.#send(name, ["GET", name]), this.#time(name)])
        : [await this.#send(name, ["GET", name]), undefined];
    return this.#stored(name, reply, this.#now() ?? now ?? (await this.#time(name)));
  }

  /** The entries of many keys, in their order. In a cluster side by side, otherwise by MGET. */
  async readMany(path: readonly string[], keys: readonly Key[]): Promise<(Stored | undefined)[]> {
    const names = keys.map((key) => (this.#names.fits(key) ? this.#names.value(path, key) : undefined));
    const present = names.filter((name) => name !== undefined);
    const [first] = present;
    if (first === undefined) return keys.map(() => undefined);
    const [found, asked] = await Promise.all([
      this.#getAll(present),
      this.#now() === undefined ? this.#time(first) : undefined,
    ]);
    const now = this.#now() ?? asked ?? (await this.#time(first));
    const read = await Promise.all(found.map((bytes, i) => this.#stored(present[i] as string, bytes, now)));
    let at = 0;
    return names.map((name) => (name === undefined ? undefined : read[at++]));
  }

  async #getAll(names: readonly string[]): Promise<Reply[]> {
    if (this.#client.isCluster) return settled(names.map((name) => this.#send(name, ["GET", name])));
    const parts = await settled(chunks(names, MOST_KEYS).map((part) => this.#mget(part)));
    return parts.flat();
  }

  async #mget(names: readonly string[]): Promise<Reply[]> {
    const reply = await this.#send(names[0] as string, ["MGET", ...names]);
    if (!Array.isArray(reply) || reply.length !== names.length) throw this.#wrongAnswer("MGET");
    return reply;
  }

  /** The server's time in milliseconds. */
  async #time(name: string): Promise<number> {
    const reply = await this.#send(name, ["TIME"]);
    const [seconds, micros] = Array.isArray(reply) ? reply.map(Number) : [];
    const time = (seconds as number) * 1000 + (micros as number) / 1000;
    if (!Number.isFinite(time)) throw this.#wrongAnswer("TIME");
    return time;
  }

  /** What was read, at this time of the server. A promise only for an entry whose expiry has to be asked for: reads are many. */
  #stored(name: string, reply: Reply, now: number): Stored | undefined | Promise<Stored | undefined> {
    const bytes = this.#bytesOrNull(reply, "GET");
    if (bytes === null) return undefined;
    const head = decodeHead(bytes);
    if (Number.isNaN(head.expiresAt)) return this.#storedByServer(name, bytes, head);
    return this.#entry(bytes, head, head.expiresAt - now);
  }

  async #storedByServer(name: string, bytes: Buffer, head: Head): Promise<Stored | undefined> {
    const left = await this.#send(name, ["PTTL", name]);
    if (typeof left !== "number") throw this.#wrongAnswer("PTTL");
    if (left === -2) return undefined;
    return this.#entry(bytes, head, left === -1 ? Number.POSITIVE_INFINITY : left - head.grace);
  }

  #entry(bytes: Buffer, head: Head, ttl: number): Stored | undefined {
    const { grace, tags, stamp } = head;
    // The server's own expiry is due.
    if (ttl + grace <= 0) return undefined;
    return { value: decodeBody(bytes, head, this.#codec), ttl, grace, tags, stamp };
  }

  // ---- changing

  /** Stores an entry. */
  async write(path: readonly string[], key: Key, value: unknown, how: Writing): Promise<void> {
    const names = this.#pair(path, key);
    const bytes = encodeEntry(value, how, this.#codec);
    await this.#stamp(path, bytes, how);
    await this.#script(scripts.WRITE, names, [bytes, ...lifeOf(how)]);
  }

  /**
   * Stores many entries side by side. When some cannot be stored, the others are, and the promise is rejected with the error of the
   * first one that was not.
   */
  async writeMany(path: readonly string[], entries: readonly (readonly [Key, unknown, Writing])[]): Promise<void> {
    const all = entries.map(([key, value, how]) => {
      return { names: this.#pair(path, key), bytes: encodeEntry(value, how, this.#codec), how };
    });
    // One ENSURE for the tags of many entries, which then have the same stamp.
    const write = async (group: typeof all): Promise<void> => {
      const tags = [...new Set(group.flatMap(({ how }) => how.tags))];
      const longest = Math.max(...group.filter(({ how }) => how.tags.length > 0).map(({ how }) => how.ttl + how.grace));
      const stamp = tags.length > 0 ? await this.#ensure(path, tags, longest) : 0;
      await settled(
        group.map(({ names, bytes, how }) => {
          putStamp(bytes, how.tags.length > 0 ? (stamp as number) : 0);
          return this.#script(scripts.WRITE, names, [bytes, ...lifeOf(how)]);
        }),
      );
    };
    await settled(groups(all, ({ how }) => how.tags.length, MOST_TAGS).map(write));
  }

  /** Stores an entry if there is none. Returns whether it did. */
  async add(path: readonly string[], key: Key, value: unknown, how: Writing): Promise<boolean> {
    const names = this.#pair(path, key);
    const bytes = encodeEntry(value, how, this.#codec);
    await this.#stamp(path, bytes, how);
    const [what] = await this.#sure(path, (sure) => this.#script(scripts.ADD, names, [bytes, ...lifeOf(how), sure]));
    return what === scripts.DONE;
  }

  /** Removes an entry, and overtakes the loads of the key. Returns whether there was a good one. */
  async remove(path: readonly string[], key: Key): Promise<boolean> {
    return (await this.removeMany(path, [key])) > 0;
  }

  /** Removes many entries. Returns how many good ones there were. */
  async removeMany(path: readonly string[], keys: readonly Key[]): Promise<number> {
    const names = keys.filter((key) => this.#names.fits(key)).map((key) => this.#names.value(path, key));
    const found = await this.#removeNames([...new Set(names)]);
    const tagged: Head[] = [];
    let count = 0;
    for (const what of found) {
      if (what === scripts.PRESENT) count++;
      // Not counted: damaged tags, by which nobody could have read the entry.
      else if (Buffer.isBuffer(what)) tagged.push(...headOf(what));
    }
    return count + (await this.#countGood(path, tagged));
  }

  async #removeNames(names: readonly string[]): Promise<Reply[]> {
    const parts = chunks(names, this.#client.isCluster ? 1 : MOST_KEYS);
    const found = await settled(
      parts.map((part) =>
        this.#script(
          scripts.REMOVE,
          part.flatMap((name) => [name, this.#names.partner(name)]),
          [],
        ),
      ),
    );
    return found.flat();
  }

  /** Gives an entry another expiry: so many milliseconds from now. Returns whether there was one. */
  async touch(path: readonly string[], key: Key, ttl: number): Promise<boolean> {
    if (!this.#names.fits(key)) return false;
    const names = this.#pair(path, key);
    let kept: Head | undefined;
    const [what] = await this.#sure(
      path,
      (sure) => this.#script(scripts.TOUCH, names, [textOf(ttl), sure]),
      (head) => {
        kept = head;
      },
    );
    if (what !== scripts.DONE) return false;
    if (kept !== undefined) {
      const tags = kept.tags.map((tag) => this.#names.tag(path, tag));
      await this.#script(scripts.KEEP, tags, [lifeText(ttl + kept.grace)]);
    }
    return true;
  }

  /**
   * Adds to a number. An absent one counts from `initial`. Returns the sum, and the milliseconds that its entry has left.
   *
   * @throws {TypeError} when the value is not a number.
   * @throws {RangeError} when the sum would leave its bounds. Then nothing is changed.
   */
  async increment(
    path: readonly string[],
    key: Key,
    by: number,
    { initial, min, max, ttl, tags }: Counting,
  ): Promise<{ value: number; ttl: number }> {
    const names = this.#pair(path, key);
    const how = { ttl, grace: 0, tags };
    const bytes = encodeEntry(0, how, this.#codec).subarray(0, -1);
    const numbers = [by, initial, min, max].map(textOfNumber);
    const count = (fresh: Buffer): Promise<Reply[]> =>
      this.#sure(path, (sure) => this.#script(scripts.INCREMENT, names, [...numbers, sure, fresh, ...lifeOf(how)]));
    // The tags of a new number are made known only when there is none: most increments find one.
    let answer = await count(tags.length > 0 ? Buffer.alloc(0) : bytes);
    if (answer[0] === scripts.ABSENT) {
      await this.#stamp(path, bytes, how);
      answer = await count(bytes);
    }
    const [what, sum, left] = answer;
    if (what === scripts.NOT_A_NUMBER) {
      throw new TypeError("key: its value is not a number. Use another key, or set a number first.");
    }
    if (what === scripts.OUT_OF_RANGE) {
      throw new RangeError(`by: the sum would not be from ${min} to ${max}. Nothing was changed.`);
    }
    return { value: numberOf(this.#text(sum)), ttl: numberOf(this.#text(left) || "Infinity") };
  }

  // ---- loads

  /** Asks for the right to load a value: see {@link Begun}. */
  async begin(path: readonly string[], key: Key, { all, lease, unless }: BeginOptions): Promise<Begun> {
    const names = this.#pair(path, key);
    const token = randomBytes(12).toString("base64url");
    const args = [token, leaseText(lease), all ? "1" : "", unless === true ? "*" : String(unless ?? "")];
    const { clock } = this.#names;
    const { isCluster } = this.#client;
    const [[what, first], apart] = await Promise.all([
      this.#script(scripts.BEGIN, isCluster ? names : [...names, clock], args),
      isCluster ? this.#tick() : undefined,
    ]);
    if (what === scripts.LED) {
      if (typeof first !== "number") throw this.#wrongAnswer("a script");
      return { leader: true, left: first };
    }
    if (what !== scripts.PRESENT) return { token, since: apart ?? numberOf(this.#text(first)) };
    const name = names[0] as string;
    const found = await this.#stored(name, first as Reply, this.#now() ?? (await this.#time(name)));
    // It has expired between the two commands, or by a clock that goes wrong.
    return found === undefined ? this.begin(path, key, { all, lease, unless }) : { found };
  }

  /** Keeps a token for a further lease. Returns `false` when it is gone: the load was overtaken. */
  async renew(path: readonly string[], key: Key, token: string, lease: number): Promise<boolean> {
    const args = [token, leaseText(lease)];
    const [what] = await this.#script(scripts.RENEW, [this.#names.loading(path, key)], args);
    return what === scripts.DONE;
  }

  /**
   * Stores what was loaded. Returns `false`, and stores nothing, when the load was overtaken: by a change of the value, by the commit of
   * a load that began later, by the end of its lease, or by an invalidation of one of the tags after `since`.
   */
  async commit(
    path: readonly string[],
    key: Key,
    token: string,
    since: number,
    value: unknown,
    how: Writing,
  ): Promise<boolean> {
    const names = this.#pair(path, key);
    const bytes = encodeEntry(value, how, this.#codec);
    if (!(await this.#stamp(path, bytes, how, since))) {
      await this.abandon(path, key, token, true);
      return false;
    }
    const [what] = await this.#script(scripts.COMMIT, names, [bytes, ...lifeOf(how), token]);
    return what === scripts.DONE;
  }

  /** Gives a token back. `all`: other hosts may be waiting for this load, and are told that they may load. */
  async abandon(path: readonly string[], key: Key, token: string, all: boolean): Promise<void> {
    await this.#script(scripts.ABANDON, this.#pair(path, key), [token, all ? "1" : ""]);
  }

  // ---- tags

  /** Makes all entries with one of the tags absent, and overtakes the loads that began before. */
  async invalidateTags(path: readonly string[], tags: readonly string[]): Promise<void> {
    const parts = chunks(this.#tagNames(path, tags), MOST_TAGS);
    const { clock } = this.#names;
    const answers = await settled(parts.map((part) => this.#script(scripts.INVALIDATE, [clock, ...part], [])));
    for (const [what, value] of answers) if (what !== scripts.DONE) timeOf(this.#text(value));
  }

  /**
   * When each tag was last invalidated, in microseconds of the tags' clock; `undefined` for a tag that is not known. An entry is good while this
   * is known and less than its stamp, for each of its tags. A tag that was made known by an entry, and not invalidated since, has
   * the time of that: see {@link isInvalidation}.
   */
  async tagTimes(path: readonly string[], tags: readonly string[]): Promise<(number | undefined)[]> {
    const names = tags.map((tag) => this.#names.tag(path, tag));
    const parts = await settled(chunks(names, MOST_TAGS).map((part) => this.#mget(part)));
    return parts.flat().map((reply) => {
      const time = this.#bytesOrNull(reply, "MGET");
      return time === null ? undefined : timeOf(time.toString("latin1"));
    });
  }

  #tagNames(path: readonly string[], tags: readonly string[]): string[] {
    // Checks each tag. How many there are matters only to an entry.
    for (const tag of tags) encodeTags([tag]);
    return [...new Set(tags)].map((tag) => this.#names.tag(path, tag));
  }

  /** Makes tags known for entries that live so long, and returns their stamp; `undefined` when one was invalidated after `since`. */
  async #ensure(
    path: readonly string[],
    tags: readonly string[],
    life: number,
    since?: number,
  ): Promise<number | undefined> {
    const names = [this.#names.clock, ...this.#tagNames(path, tags)];
    const args = [lifeText(life), since === undefined ? "" : String(since)];
    const [what, stamp] = await this.#script(scripts.ENSURE, names, args);
    if (what === scripts.OVERTAKEN) return undefined;
    // FOREIGN is answered with what stands at the tag's key, which is no time.
    return timeOf(this.#text(stamp));
  }

  /** Gives an entry its stamp. Returns `false` when one of its tags was invalidated after `since`. */
  async #stamp(path: readonly string[], bytes: Buffer, how: Writing, since?: number): Promise<boolean> {
    if (how.tags.length === 0) return true;
    const stamp = await this.#ensure(path, how.tags, how.ttl + how.grace, since);
    if (stamp !== undefined) putStamp(bytes, stamp);
    return stamp !== undefined;
  }

  async #tick(): Promise<number> {
    const { clock } = this.#names;
    return timeOf(this.#text(await this.#evaluate(scripts.TICK, [clock], [])));
  }

  /** How many of these entries are good: each of their tags was last invalidated before their stamp. */
  async #countGood(path: readonly string[], heads: readonly Head[]): Promise<number> {
    const tags = [...new Set(heads.flatMap((head) => head.tags))];
    if (tags.length === 0) return heads.length;
    const times = await this.tagTimes(path, tags);
    const known = new Map(tags.map((tag, i) => [tag, times[i] ?? Number.POSITIVE_INFINITY]));
    return heads.filter(({ tags, stamp }) => tags.every((tag) => (known.get(tag) as number) < stamp)).length;
  }

  /**
   * Runs a script on an entry that may have tags. The script cannot see their times, which lie in another slot: it answers TAGGED
   * and is run again with what was found out. Most entries of such scripts have no tags.
   *
   * @param onGood - told the head of a good entry with tags.
   */
  async #sure(
    path: readonly string[],
    run: (sure: Buffer) => Promise<Reply[]>,
    onGood?: (head: Head) => void,
  ): Promise<Reply[]> {
    let sure: Buffer = Buffer.alloc(0);
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const answer = await run(sure);
      const [what, bytes] = answer;
      if (what !== scripts.TAGGED && what !== scripts.FOREIGN) return answer;
      const all = this.#bytes(bytes);
      const head = decodeHead(all);
      // The head is right, so it is the body that a script could not read.
      if (what === scripts.FOREIGN)
        throw badData("is damaged (its number is none)", "Delete the key, or store it again.");
      const isGood = (await this.#countGood(path, [head])) > 0;
      if (isGood) onGood?.(head);
      sure = Buffer.concat([Buffer.from(isGood ? "+" : "-"), markOf(all)]);
    }
    throw new CacheError("ERR_BUSY", "others change this key all the time; nothing was changed. Try again later.");
  }

  // ---- all keys

  /**
   * The keys of a scope, without those of the scopes within. Walks through all keys of the server, so others are found too late or not:
   * a key that is there from the beginning to the end is found. Entries within their grace are among them.
   */
  async *keys(path: readonly string[]): AsyncGenerator<Key, void, undefined> {
    const seen = new Set<string>();
    for await (const batch of this.#scan(this.#names.pattern(path))) {
      for (const name of batch) {
        // SCAN may find a key twice while the server makes its table larger.
        if (seen.has(name)) continue;
        seen.add(name);
        const found = this.#names.parse(name);
        if (found?.kind === "value" && found.path.length === path.length) yield found.key;
      }
    }
  }

  /**
   * Removes the entries of a scope and of the scopes within that were there at the call, and overtakes the loads that had begun.
   *
   * The loads go first: one that commits before it is found has stored its value before the values are walked through.
   */
  async clear(path: readonly string[]): Promise<void> {
    for await (const batch of this.#scan(this.#names.pattern(path, "loading"))) {
      await this.#removeNames(batch.map((name) => this.#names.partner(name)));
    }
    for await (const batch of this.#scan(this.#names.pattern(path))) await this.#removeNames(batch);
  }

  async *#scan(pattern: string): AsyncGenerator<string[], void, undefined> {
    const batches = this.#client.scan(pattern, this.#timeout)[Symbol.asyncIterator]();
    try {
      for (;;) {
        const { value, done } = await this.#guarded(() => batches.next());
        if (done === true) return;
        if (!Array.isArray(value) || value.some((each) => typeof each !== "string")) throw this.#wrongAnswer("SCAN");
        yield value;
      }
    } finally {
      await batches.return?.();
    }
  }

  // ---- sending

  #pair(path: readonly string[], key: Key): [string, string] {
    const name = this.#names.value(path, key);
    return [name, this.#names.partner(name)];
  }

  /** Runs a script and returns its answer, a list. */
  async #script(script: scripts.Script, keys: readonly string[], args: readonly Argument[]): Promise<Reply[]> {
    const latest = script.isChange ? this.#latest() : undefined;
    const reply = await this.#evaluate(script, keys, latest === undefined ? args : [...args, latest]);
    if (!Array.isArray(reply) || reply.length === 0) throw this.#wrongAnswer("a script");
    if (reply[0] === scripts.LATE && script.isChange) {
      throw unreachable("the command came to the server after its `timeout`, so nothing was changed. Try again.");
    }
    return reply;
  }

  /** The server's time at which the caller of a change that is sent now gives up; empty when nobody knows the time well enough. */
  #latest(): string {
    const now = this.#isInTouch() ? this.#now() : undefined;
    return now === undefined ? "" : String(now + this.#timeout);
  }

  async #evaluate({ text, sha1 }: scripts.Script, keys: readonly string[], args: readonly Argument[]): Promise<Reply> {
    const key = keys[0] as string;
    const rest = [String(keys.length), ...keys, ...args];
    return this.#guarded(async () => {
      try {
        return await this.#client.send(key, ["EVALSHA", sha1, ...rest], this.#timeout);
      } catch (error) {
        // The server was started anew, or forgets scripts. So it has not run this one.
        if (!this.#client.errorReply(error)?.includes("NOSCRIPT")) throw error;
        this.#commands++;
        return await this.#client.send(key, ["EVAL", text, ...rest], this.#timeout);
      }
    });
  }

  #send(name: string, args: readonly Argument[]): Promise<Reply> {
    return this.#guarded(() => this.#client.send(name, args, this.#timeout));
  }

  /** Runs a command of the client through the gate, with errors of the tier. */
  #guarded<T>(command: () => Promise<T>): Promise<T> {
    return this.#gate.run(() => {
      this.#commands++;
      return command();
    }, this.#line);
  }

  #bytesOrNull(reply: Reply | undefined, command: string): Buffer | null {
    if (reply === null || Buffer.isBuffer(reply)) return reply;
    throw this.#wrongAnswer(command);
  }

  #bytes(reply: Reply | undefined): Buffer {
    if (Buffer.isBuffer(reply)) return reply;
    throw this.#wrongAnswer("a script");
  }

  #text(reply: Reply | undefined): string {
    return this.#bytes(reply).toString("latin1");
  }

  #wrongAnswer(command: string): CacheError {
    return new CacheError(
      "ERR_DATA",
      `client: has answered ${command} with something else than the server may. Use a plain client of ${this.#client.library} without ` +
        "plugins that change answers, and a server that is compatible with Redis 6.2.",
    );
  }
}

/** The head of an entry, or nothing when it is damaged. */
function headOf(bytes: Buffer): Head[] {
  try {
    return [decodeHead(bytes)];
  } catch {
    return [];
  }
}

/** Whether a time of {@link Server.tagTimes} is that of an invalidation, and not that of the first entry with the tag. */
export function isInvalidation(time: number): boolean {
  return Number.isInteger(time);
}

/** A time of the tags' clock, as its key or an answer has it. Half a microsecond more for a tag that was not invalidated. */
function timeOf(text: string): number {
  const [, time, created] = /^(\d{1,15}|[1-3]\d{15})(c?)$/.exec(text) ?? [];
  if (time === undefined) {
    throw new CacheError(
      "ERR_DATA",
      "tags: the key of a tag on the server is of another program. Give the tier another `prefix`, or delete the key.",
    );
  }
  return Number(time) + (created === "" ? 0 : 0.5);
}

/** The arguments of `store` in the scripts: the whole milliseconds until the server removes an entry, and those until it expires. */
function lifeOf({ ttl, grace }: Writing): [string, string] {
  if (Number.isNaN(ttl)) throw new RangeError("ttl: must be a number of milliseconds, not NaN");
  if (!(grace >= 0)) throw new RangeError(`grace: must be 0 milliseconds or more, not ${grace}`);
  return [lifeText(ttl + grace), textOf(Math.max(ttl, -LONGEST_LIFE))];
}

/** Whole milliseconds of life, empty for ever. What has expired already lives one more, so that it replaces what was there. */
function lifeText(life: number): string {
  return life < LONGEST_LIFE ? String(Math.max(1, Math.ceil(life))) : "";
}

/** Whole milliseconds of a lease, a day at most: the host of a load may be gone for ever. */
function leaseText(lease: number): string {
  if (!(lease > 0)) throw new RangeError(`lease: must be more than 0 milliseconds, not ${lease}`);
  return String(Math.ceil(Math.min(lease, LONGEST_LEASE)));
}

function textOf(ttl: number): string {
  return ttl === Number.POSITIVE_INFINITY ? "" : String(ttl);
}

function chunks<T>(list: readonly T[], most: number): T[][] {
  const parts: T[][] = [];
  for (let at = 0; at < list.length; at += most) parts.push(list.slice(at, at + most));
  return parts;
}

/** Neighbours together, as long as their sizes are at most `most` in all. */
function groups<T>(list: readonly T[], size: (each: T) => number, most: number): T[][] {
  const parts: T[][] = [];
  let room = 0;
  for (const each of list) {
    if (parts.length === 0 || size(each) > room) {
      parts.push([]);
      room = most;
    }
    (parts.at(-1) as T[]).push(each);
    room -= size(each);
  }
  return parts;
}

/** Waits until all have ended, then fails with the first one that did. */
async function settled<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}
