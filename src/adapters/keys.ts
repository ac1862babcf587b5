/** The keys of the adapters: whatever a client sends, or another package takes for a key, becomes a key that a cache can store. */

import { createHash } from "node:crypto";

/** So many UTF-16 units take at most 3,072 of the 4,096 bytes that a key may have. */
const LONGEST = 1024;
/** What a hashed key begins with. */
const HASHED = "\0sha256:";

/**
 * Returns the key under which a cache stores what belongs to `key`: the key itself as a string, or its hash if it is long. A key that looks
 * like a hashed one is hashed too, so nobody can name the key of somebody else by its hash.
 */
export function storableKey(key: unknown): string {
  const text = String(key);
  if (text.length <= LONGEST && !text.startsWith(HASHED)) return text;
  // As UTF-16, because in UTF-8 all lone surrogates become the same character.
  return HASHED + createHash("sha256").update(text, "utf16le").digest("base64url");
}
