/**
 * The compiled engine as text, for pages: what a page loads is compressed on the way, and base64 spoils that, because no
 * byte of the module is a character of its own any more. Here the frequent bytes are one character each and the others
 * two, of which 64 kB compress as well as the module itself does: to three quarters of what base64 takes.
 */
import { readFileSync } from "node:fs";

/** Characters from `#` to `~` without the backslash: in a string literal each stands for itself, ASCII or not. */
const DIGITS = 91;
/** The last two are prefixes. */
const SINGLES = DIGITS - 2;
const digit = (n) => String.fromCharCode(n + (n < 57 ? 35 : 36));

/** The bytes as text, and the most frequent of them in the order of their digits; the others follow by number. */
export function encode(bytes) {
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

/** The other way round; becomes part of the bundle as it stands here. */
export function decode(text, frequent, length) {
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

/** Imports of `.wasm` files are their bytes. */
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
