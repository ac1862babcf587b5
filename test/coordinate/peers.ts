/**
 * Other participants, as threads or processes, whose loads a test controls.
 */

import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import type { Cache, LoadOptions } from "cache-machine";
import * as apart from "../host/apart.mjs";

const SCRIPT = fileURLToPath(new URL("loader.mjs", import.meta.url));
const PATIENCE_MS = 30_000;

/** How a call of another participant ended that failed. */
export interface Failure {
  name: string;
  code?: string;
  message: string;
  cause?: { name: string; message: string };
}

/** A call of `getOrSet` by another participant. */
export interface Remote {
  readonly number: number;
  /** Fulfilled with the value, or rejected with a {@link Failure}. */
  readonly value: Promise<any>;
  /** Fulfilled when the loader of this call runs. */
  readonly loading: Promise<void>;
  /** Whether the loader of this call has run. */
  hasLoaded: boolean;
}

/** A load has begun or ended, at a time of the clock that all processes share, in milliseconds. */
export interface LoadEvent {
  key: string;
  id: string;
  began?: number;
  ended?: number;
}

/** Fails when a promise is not settled in time. */
export async function inTime<T>(promise: Promise<T>, what: string, patience: number = PATIENCE_MS): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`timeout: ${what}`)), patience);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** One other participant. */
export class Peer {
  readonly #side: Worker | ChildProcess;
  readonly #answers = new Map<number, { resolve(value: any): void; reject(error: any): void; loading(): void }>();
  readonly ready: Promise<void>;
  readonly ended: Promise<void>;
  #last = 0;
  /** Told of each load of a race: when it begins, and when it ends. */
  onLoad: ((load: LoadEvent) => void) | undefined;

  constructor(setup: object, reach: "threads" | "processes") {
    this.#side =
      reach === "threads"
        ? new Worker(SCRIPT, { workerData: setup })
        : fork(SCRIPT, [JSON.stringify(setup)], { execArgv: [], stdio: ["ignore", "inherit", "inherit", "ipc"] });
    let ready = (): void => {};
    this.ready = inTime(new Promise((resolve) => (ready = resolve)), "a participant starts");
    this.ended = new Promise((resolve) => (this.#side as Worker).once("exit", () => resolve()));
    (this.#side as Worker).on("message", ({ number, event, value, error, ...rest }) => {
      if (event === "ready") return ready();
      if (event === "load" || event === "loaded") return this.onLoad?.(rest);
      const answer = this.#answers.get(number);
      if (event === "loading") return answer?.loading();
      this.#answers.delete(number);
      if (error) answer?.reject(error);
      else answer?.resolve(value);
    });
  }

  /** Sends a command. */
  #send(command: string, more: object, loading: () => void = () => {}): { number: number; value: Promise<any> } {
    const number = ++this.#last;
    const value = new Promise((resolve, reject) => this.#answers.set(number, { resolve, reject, loading }));
    value.catch(() => {});
    const message = { number, command, ...more };
    if (this.#side instanceof Worker) this.#side.postMessage(message);
    else this.#side.send(message);
    return { number, value };
  }

  getOrSet(key: string, options?: LoadOptions): Remote {
    let begun = (): void => {};
    const loading = new Promise<void>((resolve) => (begun = resolve));
    const remote = { hasLoaded: false, loading };
    const sent = this.#send("getOrSet", { key, options }, () => {
      remote.hasLoaded = true;
      begun();
    });
    const value = inTime(sent.value, "a call of another participant");
    value.catch(() => {});
    return Object.assign(remote, { number: sent.number, value });
  }

  /** Ends a load with a value, or with an error of this message. */
  finish({ number }: Remote, value: unknown, error?: string): Promise<void> {
    return inTime(this.#send("finish", { call: number, value, error }).value, "finish");
  }

  call(method: keyof Cache, ...args: unknown[]): Promise<any> {
    return inTime(this.#send("call", { method, args }).value, String(method));
  }

  /** Lets the participant make calls for a key at once, with a loader that takes some time. Returns the values. */
  race(key: string, calls: number, wait: number, lease: number): Promise<{ id: string; text: string }[]> {
    return inTime(this.#send("race", { key, calls, wait, lease }).value, `the race for ${key}`);
  }

  crowd(key: string, count: number, wait: number): Promise<string[]> {
    return inTime(this.#send("crowd", { key, count, wait }).value, "a crowd");
  }

  /** Lets the participant load a key, and die before it stores the value: see loader.mjs. */
  dieBeforeStoring(key: string): void {
    this.#send("dieBeforeStoring", { key });
  }

  block(milliseconds: number): Promise<void> {
    return inTime(this.#send("block", { milliseconds }).value, "block");
  }

  /** Waits until all commands before this one have begun. */
  async arrived(): Promise<void> {
    await this.call("has", "nothing");
  }

  leave(): Promise<void> {
    this.#send("leave", {});
    return inTime(this.ended, "a participant leaves");
  }

  /** `kill -9` for a process, `terminate` for a thread. */
  async kill(): Promise<void> {
    if (this.#side instanceof Worker) await this.#side.terminate();
    else {
      this.#side.kill("SIGKILL");
      await inTime(this.ended, "a participant dies");
    }
  }

  signal(signal: "SIGSTOP" | "SIGCONT"): void {
    (this.#side as ChildProcess).kill(signal);
  }
}

/** A cache of one reach, and other participants of it. */
export class Stage {
  readonly reach: "threads" | "processes";
  readonly name: string;
  readonly cache: Cache;
  readonly #peers: Peer[] = [];
  readonly #opened: Cache[] = [];

  constructor(reach: "threads" | "processes", name: string) {
    this.reach = reach;
    this.name = name;
    this.cache = reach === "threads" ? apart.createCache({ size: "4mb" }) : apart.openCache(name, { size: "4mb" });
  }

  /** One more participant of this thread. */
  another(): Cache {
    const cache = this.reach === "threads" ? apart.attachCache(this.cache.handle) : apart.openCache(this.name);
    this.#opened.push(cache);
    return cache;
  }

  /** @param threads how many threads of each process make the calls of a crowd */
  async peers(count: number, threads = 1): Promise<Peer[]> {
    const setup = this.reach === "threads" ? { handle: this.cache.handle } : { name: this.name, threads };
    const peers = Array.from({ length: count }, () => new Peer(setup, this.reach));
    this.#peers.push(...peers);
    await Promise.all(peers.map(({ ready }) => ready));
    return peers;
  }

  async end(): Promise<void> {
    if (this.reach === "processes") for (const peer of this.#peers) peer.signal("SIGCONT");
    await Promise.all(this.#peers.map((peer) => peer.kill()));
    for (const cache of this.#opened) cache.close();
    this.cache.close();
    if (this.reach === "processes") apart.destroyCache(this.name);
  }
}
