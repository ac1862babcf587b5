/**
 * Questions about text that do not depend on how it is stored: is it well-formed, does it need two bytes a character, what is
 * its hash; and copies that hold no other text. Relies on `runtime.ts` for the copies.
 */

import { fillRandom } from "../system/random.ts";
import { runtime } from "./runtime.ts";

/**
 * Matches text with a character above U+00FF. V8 answers in constant time for text that it stores with one byte a
 * character.
 */
export const WIDE: RegExp = /[^\0-\xff]/;

/** Whether UTF-8 can express the text. It cannot express a lone surrogate. */
export function isWellFormed(text: string): boolean {
  return (text as unknown as { isWellFormed(): boolean }).isWellFormed();
}

/** V8 makes a slice or a rope only of texts from this length on. It copies shorter ones. */
const SLICED = 13;
/** Scratch memory for the copies, as large as the longest text needed. */
let copies: Uint8Array = new Uint8Array(0);

/**
 * Returns the same text, with characters of its own. V8 stores a slice of a text, or a text that was joined from several, as
 * references to the texts that it was made of, and so keeps all of these in memory.
 */
export function flatCopy(text: string): string {
  const { length } = text;
  if (length < SLICED) return text;
  if (copies.length < length * 2) copies = runtime.allocate(Math.max(512, length * 2));
  if (WIDE.test(text)) {
    runtime.writeUtf16(text, copies, 0);
    return runtime.readUtf16(copies, 0, length * 2);
  }
  runtime.writeLatin1(text, copies, 0);
  return runtime.readLatin1(copies, 0, length);
}

/**
 * Returns a 32-bit hash of the text, for a table that compares the texts afterwards. The hash depends on secret numbers of
 * this thread, so that nobody can choose texts that collide: in each group of four characters, every character is multiplied
 * by a secret number of its own. The hash is not a pseudo-random function: the hashes of many texts reveal the secret numbers.
 *
 * @param most - at most this many characters are hashed: the last ones, which differ more often than the first.
 */
export const hashText: (text: string, most: number) => number = keyedHash(randomNumbers().map((random) => random | 1));

/** Four secret numbers. */
function randomNumbers(): Int32Array {
  const numbers = new Int32Array(4);
  try {
    return fillRandom(numbers);
  } catch {
    // Cloudflare Workers refuse that while modules are loaded. No cache can be opened there, but what imports the package may load.
    return numbers.map(() => Math.random() * 2 ** 32);
  }
}

/** The numbers are variables of a closure, because V8 treats those as constants, but not the variables of a bundle. */
function keyedHash(secret: Int32Array): (text: string, most: number) => number {
  const [a, b, c, d] = secret as unknown as [number, number, number, number];
  return (text, most) => {
    const { length } = text;
    let hash = Math.imul(length, a);
    let i = length > most ? length - most : 0;
    for (; i + 4 <= length; i += 4) {
      const low = Math.imul(text.charCodeAt(i), a) + Math.imul(text.charCodeAt(i + 1), b);
      const high = Math.imul(text.charCodeAt(i + 2), c) + Math.imul(text.charCodeAt(i + 3), d);
      hash = (Math.imul(hash ^ (hash >>> 16), 0x9e3779b1) + low + high) | 0;
    }
    for (; i < length; i++) {
      hash = (Math.imul(hash ^ (hash >>> 16), 0x9e3779b1) + Math.imul(text.charCodeAt(i), b)) | 0;
    }
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    return hash ^ (hash >>> 16);
  };
}
