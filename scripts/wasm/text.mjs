/**
 * The compiled engine as text, for pages. Pages are compressed on their way to browsers, and base64 spoils the compression,
 * because it cuts bytes apart. Here each frequent byte is one character, and each other byte is two. The compressed text is
 * about as long as the compressed module, and three quarters as long as compressed base64.
 */
import { readFileSync } from "node:fs";

/** Number of the characters from `#` to `~` without the backslash. In a string literal each of them stands for itself. */
const DIGITS = 91;
/** Digits that are a byte of their own; the last two digits are prefixes. */
const SINGLES = DIGITS - 2;
const digit = (n) => String.fromCharCode(n + (n < 57 ? 35 : 36));

/** Turns bytes into text; returns the frequent bytes too, in the order of their digits. The other bytes follow by number. */
function encode(bytes) {
  const counts = new Array(256).fill(0);
  for (const byte of bytes) counts[byte]++;
  const frequent = [...counts.keys()].sort((a, b) => counts[b] - counts[a]).slice(0, SINGLES);
  const order = [...frequent, ...[...counts.keys()].filter((byte) => !frequent.includes(byte))];
  const codes = [];
  for (const [rank, byte] of order.entries()) {
    const two = digit(SINGLES - 1 + Math.floor(rank / SINGLES)) + digit(rank % SINGLES);
    codes[byte] = rank < SINGLES ? digit(rank) : two;
  }
  return { text: Array.from(bytes, (byte) => codes[byte]).join(""), frequent };
}

/** Turns the text back into bytes. The source of this function becomes part of the bundle. */
function decode(text, frequent, length) {
  const bytes = new Uint8Array(length);
  const order = Array.from(atob(frequent), (c) => c.charCodeAt(0));
  for (let byte = 0; byte < 256; byte++) if (!order.includes(byte)) order.push(byte);
  let prefix = 0;
  let at = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    const digit = code - (code < 92 ? 35 : 36);
    if (digit >= 89) prefix = 89 * (digit - 88);
    else {
      bytes[at++] = order[prefix + digit];
      prefix = 0;
    }
  }
  return bytes;
}

/** A plugin for esbuild: the import of a `.wasm` file is its bytes, which the bundle has as text. */
export const wasmAsText = {
  name: "wasm as text",
  setup({ onLoad }) {
    onLoad({ filter: /\.wasm$/ }, ({ path }) => {
      const bytes = readFileSync(path);
      const { text, frequent } = encode(bytes);
      const order = Buffer.from(frequent).toString("base64");
      const contents = `${decode}\nexport default decode(${JSON.stringify(text)}, "${order}", ${bytes.length});`;
      return { contents, loader: "js" };
    });
  },
};
