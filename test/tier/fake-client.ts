/** A client whose connections the test controls: it answers nothing by itself. */

import type { Client, ListenEvents, Listener } from "../../src/tier/clients/client.ts";
import { Deferred } from "./virtual.ts";

/** One call of `listen`. */
export class FakeListener implements Listener {
  readonly events: ListenEvents;
  readonly opened = new Deferred<Listener>();
  /** Beats that were sent and not answered, the first one first. */
  readonly beats: Deferred<number>[] = [];
  sent = 0;
  isOpen = false;
  isClosed = false;
  /** How closing ends; at once by default. */
  closing: Promise<void> = Promise.resolve();

  constructor(events: ListenEvents) {
    this.events = events;
  }

  /** The server has confirmed the subscription. */
  accept(): void {
    this.isOpen = true;
    this.opened.resolve(this);
  }

  refuse(error: Error = new Error("refused")): void {
    this.opened.reject(error);
  }

  /** Answers the oldest beat. */
  answer(time: number = Date.now()): void {
    const beat = this.beats.shift();
    if (beat === undefined) throw new Error("no beat was sent");
    beat.resolve(time);
  }

  push(...keys: string[]): void {
    if (!this.isClosed) this.events.onChanged(keys);
  }

  pushNull(): void {
    if (!this.isClosed) this.events.onChanged(null);
  }

  /** The connection is lost. */
  lose(reason: Error = new Error("lost")): void {
    this.isOpen = false;
    if (!this.isClosed) this.events.onEnd(reason);
    for (const beat of this.beats.splice(0)) beat.reject(reason);
  }

  beat(): Promise<number> {
    this.sent++;
    const beat = new Deferred<number>();
    this.beats.push(beat);
    return beat.promise;
  }

  async close(): Promise<void> {
    this.isClosed = true;
    this.isOpen = false;
    await this.closing;
  }
}

export class FakeClient implements Client {
  readonly library = "fake";
  readonly isCluster = false;
  readonly listeners: FakeListener[] = [];
  /** When set, each listener is accepted, and each beat answered, at once. */
  isPrompt = false;

  get last(): FakeListener {
    const last = this.listeners.at(-1);
    if (last === undefined) throw new Error("nobody listens");
    return last;
  }

  /** Connections that are open. */
  get open(): number {
    return this.listeners.filter(({ isOpen }) => isOpen).length;
  }

  listen(events: ListenEvents): Promise<Listener> {
    const listener = new FakeListener(events);
    this.listeners.push(listener);
    if (this.isPrompt) {
      listener.accept();
      listener.beat = async () => {
        listener.sent++;
        return Date.now();
      };
    }
    return listener.opened.promise;
  }

  send(): never {
    throw new Error("an owner sends no command");
  }

  errorReply(): undefined {
    return undefined;
  }

  scan(): never {
    throw new Error("an owner does not scan");
  }

  async close(): Promise<void> {}
}
