/** A terminal for tests: a program runs in a pty, and what it draws is read from the screen of an emulator. */

import { type IPty, spawn } from "@lydell/node-pty";
import xterm from "@xterm/headless";

const PATIENCE_MS = 30_000;

/** How the program has ended. */
export interface Ending {
  exitCode: number;
  /** Number of the signal, 0 for none. */
  signal: number;
}

/** A program in a terminal. */
export class TerminalOf {
  readonly screen: xterm.Terminal;
  readonly pty: IPty;
  readonly ended: Promise<Ending>;
  /** Everything that the program has written. */
  written = "";
  readonly #waiting = new Set<() => void>();

  constructor(file: string, args: string[], { columns = 80, rows = 24 }: { columns?: number; rows?: number } = {}) {
    this.screen = new xterm.Terminal({ cols: columns, rows, allowProposedApi: true });
    const env = { ...process.env, TERM: "xterm-256color", LANG: "C.UTF-8" };
    this.pty = spawn(file, args, { name: "xterm-256color", cols: columns, rows, env: env as Record<string, string> });
    this.pty.onData((data) => {
      this.written += data;
      this.screen.write(data, () => {
        for (const look of this.#waiting) look();
      });
    });
    this.ended = new Promise((resolve) => {
      this.pty.onExit(({ exitCode, signal }) =>
        this.screen.write("", () => resolve({ exitCode, signal: signal ?? 0 })),
      );
    });
  }

  /** The lines on the screen. */
  get lines(): string[] {
    const { active } = this.screen.buffer;
    return Array.from(
      { length: this.screen.rows },
      (_, row) => active.getLine(active.viewportY + row)?.translateToString(true) ?? "",
    );
  }

  get text(): string {
    return this.lines.join("\n");
  }

  /** Whether the program has the alternate screen. */
  get isTaken(): boolean {
    return this.screen.buffer.active.type === "alternate";
  }

  /** Waits until the screen is as wanted. Throws with the screen when it does not become so. */
  async until(what: string | RegExp | ((terminal: TerminalOf) => boolean)): Promise<void> {
    const isSo = () =>
      typeof what === "string" ? this.text.includes(what) : what instanceof RegExp ? what.test(this.text) : what(this);
    await new Promise<void>((resolve, reject) => {
      const look = (): void => {
        if (!isSo()) return;
        clearTimeout(watchdog);
        this.#waiting.delete(look);
        resolve();
      };
      const watchdog = setTimeout(() => {
        this.#waiting.delete(look);
        reject(new Error(`the screen did not become ${what} in ${PATIENCE_MS} ms:\n${this.text}`));
      }, PATIENCE_MS);
      this.#waiting.add(look);
      look();
    });
  }

  keys(text: string): void {
    this.pty.write(text);
  }

  resize(columns: number, rows: number): void {
    this.screen.resize(columns, rows);
    this.pty.resize(columns, rows);
  }

  /** Ends the program, if it still runs. */
  async end(): Promise<void> {
    try {
      process.kill(this.pty.pid, "SIGKILL");
    } catch {
      // It has ended already.
    }
    await this.ended;
    this.screen.dispose();
  }
}
