/**
 * The terminal of `top`: takes it over, draws lines on it, reads keys, and gives it back as it was on every way out. That is: `leave`, a
 * signal that ends the process, an error that nobody catches, `process.exit`, and a terminal that is gone.
 */

import { writeSync } from "node:fs";
import { emitKeypressEvents } from "node:readline";
import type { ReadStream, WriteStream } from "node:tty";
import escapes from "ansi-escapes";

/** What the terminal tells its user. */
export interface TerminalEvents {
  /** A key: its name, such as `up`, or the character. */
  key(name: string): void;
  /** The screen is empty: because of another size, or because the process was in the background. */
  redraw(): void;
  /** The terminal is gone, or a signal has come that ends the process. */
  end(signal: NodeJS.Signals | undefined): void;
}

const ENDING: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"];

/** Where `top` draws. */
export type Output = WriteStream & { readonly fd: number };

/** A terminal that can be taken over. */
export class Terminal {
  readonly #input: ReadStream;
  readonly #output: Output;
  readonly #events: TerminalEvents;
  /** The lines that are on the screen; `undefined` where it is not known. */
  #shown: string[] = [];
  #taken = false;
  readonly #listeners: (() => void)[] = [];

  /** @param input may be no terminal: then there are no keys */
  constructor(input: ReadStream, output: Output, events: TerminalEvents) {
    this.#input = input;
    this.#output = output;
    this.#events = events;
  }

  /** Takes the terminal over. */
  enter(): void {
    const [input, output, events] = [this.#input, this.#output, this.#events];
    const gone = (): void => events.end(undefined);
    this.#on(process, "exit", () => this.#release());
    this.#on(process, "uncaughtExceptionMonitor", () => this.#release());
    for (const signal of ENDING) this.#on(process, signal, () => events.end(signal));
    this.#on(process, "SIGCONT", () => this.#take());
    this.#on(output, "error", gone);
    this.#on(output, "resize", () => this.#clear());
    if (input.isTTY) {
      emitKeypressEvents(input);
      this.#on(input, "error", gone);
      this.#on(input, "end", gone);
      this.#on(input, "keypress", (text: string | undefined, key: { name?: string; ctrl?: boolean } | undefined) => {
        if (key?.ctrl && key.name === "z") this.#suspend();
        else if (key?.ctrl) events.key(`ctrl-${key.name}`);
        else events.key(key?.name !== undefined && key.name.length > 1 ? key.name : (text ?? ""));
      });
      input.resume();
    }
    this.#take();
  }

  get columns(): number {
    return this.#output.columns || 80;
  }

  get rows(): number {
    return this.#output.rows || 24;
  }

  /** Shows lines from the top of the screen on. Only those that are different from what is there are written, in one piece. */
  show(lines: readonly string[]): void {
    if (!this.#taken) return;
    let text = "";
    for (const [row, line] of lines.entries()) {
      if (line === this.#shown[row]) continue;
      // The line is erased behind its end: erased before, it would flicker.
      text += escapes.cursorTo(0, row) + line + (line === "" ? escapes.eraseLine : escapes.eraseEndLine);
    }
    if (text === "") return;
    this.#shown = [...lines];
    this.#output.write(escapes.synchronizedOutput(text));
  }

  /** Gives the terminal back. */
  leave(): void {
    this.#release();
    for (const off of this.#listeners.splice(0)) off();
    if (this.#input.isTTY) this.#input.pause();
    // A terminal that is gone may say so once more.
    this.#output.on("error", () => {});
  }

  #on(emitter: NodeJS.EventEmitter, event: string, listener: (...args: any[]) => void): void {
    emitter.on(event, listener);
    this.#listeners.push(() => emitter.off(event, listener));
  }

  /** Takes the terminal, also after a shell has set it otherwise while this process was stopped. */
  #take(): void {
    try {
      if (this.#input.isTTY) this.#input.setRawMode(true);
    } catch {
      this.#events.end(undefined);
      return;
    }
    this.#taken = true;
    this.#output.write(escapes.enterAlternativeScreen + escapes.cursorHide);
    this.#clear();
  }

  #clear(): void {
    this.#shown = [];
    this.#output.write(escapes.clearViewport);
    this.#events.redraw();
  }

  /** Gives the terminal back at once, without an event loop: the process may be about to end. */
  #release(): void {
    if (!this.#taken) return;
    this.#taken = false;
    try {
      if (this.#input.isTTY) this.#input.setRawMode(false);
      writeSync(this.#output.fd, escapes.endSynchronizedOutput + escapes.cursorShow + escapes.exitAlternativeScreen);
    } catch {
      // The terminal is gone.
    }
  }

  /** Ctrl-Z: stops the whole job, as the terminal does by itself in its usual mode. It goes on with SIGCONT. */
  #suspend(): void {
    this.#release();
    process.kill(0, "SIGTSTP");
    // A process without a shell is not stopped.
    setImmediate(() => this.#taken || this.#take());
  }
}
