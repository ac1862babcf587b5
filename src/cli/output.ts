/**
 * Where the results of a command go: lines for people, or JSON. Waits for a slow reader, and ends quietly when the reader has
 * gone, as `cache-machine keys | head` makes it go.
 */

import type { ChalkInstance } from "chalk";
import { coloursFor, invisibleEscaped } from "./render.ts";

/** Lines are written together up to this many characters. */
const CHUNK = 65_536;

export class Output {
  readonly colours: ChalkInstance;
  readonly #stream: NodeJS.WriteStream;
  #pending = "";

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
    this.colours = coloursFor(stream);
  }

  /** Columns of the terminal; `Infinity` when the output goes to a file or a pipe, where nothing is cut. */
  get width(): number {
    return this.#stream.isTTY ? this.#stream.columns || 80 : Infinity;
  }

  /** Rows of the terminal; `Infinity` when there is none. */
  get rows(): number {
    return this.#stream.isTTY ? this.#stream.rows || 24 : Infinity;
  }

  get isTerminal(): boolean {
    return this.#stream.isTTY === true;
  }

  /** Writes lines. A caller that writes many awaits each call. */
  async lines(...lines: readonly string[]): Promise<void> {
    for (const line of lines) this.#pending += `${line}\n`;
    if (this.#pending.length >= CHUNK) await this.flush();
  }

  /** Writes a document of JSON on one line, in which no character can steer a terminal. */
  async json(document: unknown): Promise<void> {
    await this.lines(invisibleEscaped(JSON.stringify(document)));
  }

  /** Writes bytes or text as they are. */
  async raw(content: string | Uint8Array): Promise<void> {
    await this.flush();
    await this.#write(content);
  }

  /** Hands everything to the reader. */
  async flush(): Promise<void> {
    const text = this.#pending;
    this.#pending = "";
    if (text !== "") await this.#write(text);
  }

  #write(content: string | Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      if (this.#stream.write(content)) resolve();
      else this.#stream.once("drain", resolve);
    });
  }
}
