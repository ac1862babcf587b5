/**
 * `waitFor`: a promise of the value that a key gets. The order is: register, then look. Whoever stores the value either comes
 * before the look, which finds it, or after the registration, and rings.
 */

import { WANT_QUIET } from "../engine/contract.ts";
import { checkOptions } from "../option-names.ts";
import { Listening } from "./listening.ts";
import type { WaitForOptions } from "./options.ts";
import { type AnyKey, checkSignal, checkTimeout, copyOfKey, idOf, Limits, type Scoped, shown } from "./scoped.ts";

const NAMES = ["timeout", "signal", "version"] as const;

/** One promise. */
interface Wait {
  /** The version that does not count. */
  readonly version: number;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** All waits of one opening for one key. They share one registration. */
class KeyWait {
  readonly #view: Scoped;
  readonly #key: AnyKey;
  readonly #waits = new Set<Wait>();
  readonly #forget: () => void;
  #listening: Listening | undefined;

  constructor(view: Scoped, key: AnyKey, forget: () => void) {
    this.#view = view;
    this.#key = key;
    this.#forget = forget;
  }

  add(wait: Wait): void {
    const { engine } = this.#view;
    this.#waits.add(wait);
    if (this.#listening === undefined) {
      this.#listening = new Listening(engine, () => this.#look(), { hold: true, probe: false });
      // No entry has a key that is too long, so there is nothing to hear.
      this.#listening.add(() => {
        const written = this.#view.writeKey(this.#key);
        return written < 0 ? 0 : engine.wait(written);
      });
    }
    this.#look();
  }

  remove(wait: Wait): void {
    this.#waits.delete(wait);
    if (this.#waits.size > 0) return;
    this.#listening?.release();
    this.#forget();
  }

  /** Settles the waits that the present value is for. Returns whether there was one. */
  #look(): boolean {
    const waiting = this.#waits.size;
    try {
      // Most looks find nothing, and they are not reads of the user's.
      const version = versionOf(this.#view, this.#key);
      if (version === 0) return false;
      for (const wait of this.#waits) if (wait.version !== version) read(this.#view, this.#key, wait);
    } catch (error) {
      // The cache's clock has thrown it.
      for (const wait of this.#waits) wait.reject(error);
    }
    return this.#waits.size < waiting;
  }
}

/** The version of a key, 0 when it is absent. */
function versionOf(view: Scoped, key: AnyKey): number {
  const written = view.writeKey(key);
  return written < 0 || view.engine.get(written, WANT_QUIET) < 0 ? 0 : view.engine.version;
}

/** Settles a wait if the key has a value for it. Each wait reads by itself, because each gets a copy of its own. */
function read(view: Scoped, key: AnyKey, wait: Wait): void {
  try {
    const entry = view.entry(key);
    if (entry !== undefined && entry.version !== wait.version) wait.resolve(entry.value);
  } catch (error) {
    wait.reject(error);
  }
}

/** The waits of each opening, by {@link idOf} of scope and key. */
const waitsOf = new WeakMap<Scoped["opening"], Map<string, KeyWait>>();

/**
 * Waits until a key has a value. An error is a rejected promise, also for wrong arguments.
 *
 * @throws {CacheError} `ERR_TIMEOUT`, `ERR_CLOSED`, `ERR_DATA`; or the reason of the signal.
 */
export async function waitFor(view: Scoped, key: AnyKey, options: WaitForOptions | undefined): Promise<unknown> {
  const given = checkOptions<WaitForOptions>(options, NAMES);
  const timeout = checkTimeout(given.timeout);
  const signal = checkSignal(given.signal);
  const { version = 0 } = given;
  if (!Number.isSafeInteger(version) || version < 0) {
    throw new TypeError("version: must be a version that getEntry has returned, or 0");
  }
  if (signal?.aborted) throw signal.reason;
  const present = versionOf(view, key);
  if (present !== 0 && present !== version) {
    const entry = view.entry(key);
    if (entry !== undefined && entry.version !== version) return entry.value;
  }
  // Reading may run the user's code.
  if (signal?.aborted) throw signal.reason;
  const own = copyOfKey(key);
  return new Promise((resolve, reject) => {
    const { opening } = view;
    let waits = waitsOf.get(opening);
    if (waits === undefined) waitsOf.set(opening, (waits = new Map()));
    const id = idOf(view, own);
    let all = waits.get(id);
    if (all === undefined) waits.set(id, (all = new KeyWait(view, own, () => waits.delete(id))));
    const waitingFor = all;
    const over = (): void => {
      limits.lift();
      waitingFor.remove(wait);
    };
    const wait: Wait = {
      version,
      resolve: (value) => {
        over();
        resolve(value);
      },
      reject: (error) => {
        over();
        reject(error);
      },
    };
    const limits = new Limits(view, () => `a value of the key ${shown(own)}`, timeout, signal, wait.reject);
    try {
      all.add(wait);
    } catch (error) {
      wait.reject(error);
    }
  });
}
