/**
 * Namespaces: keys with a prefix, which no key of the cache itself can have because the engine tells their kinds apart,
 * and a hidden tag for each namespace that a key is in, which clears it in one step.
 */

/** Which keys a view sees: all that begin with `prefix`, invalidated by any of `tags`. */
export interface Scope {
  /** Tells scopes apart; empty for the cache itself. */
  readonly id: string;
  readonly path: readonly string[];
  readonly prefix: Uint8Array;
  readonly tags: readonly string[];
}

/** The scope of the cache itself. */
export const ROOT: Scope = { id: "", path: [], prefix: new Uint8Array(0), tags: [] };

/**
 * The scope of the namespace at `path`.
 *
 * @throws {RangeError} when it is nested too deeply, or its names are too long together.
 */
export function scopeOf(path: readonly string[], engine: { maxTags: number; maxTag: number }): Scope {
  // Lengths in front, so that no two paths give the same text.
  const tags = path.map((_, depth) =>
    path.slice(0, depth + 1).reduce((text, name) => `${text}${name.length}:${name}`, ""),
  );
  const id = tags.at(-1) as string;
  const text = new TextEncoder().encode(id);
  if (text.length > engine.maxTag || path.length >= engine.maxTags) {
    const depth = engine.maxTags - 1;
    throw new RangeError(`name: namespaces can be nested ${depth} deep, with ${engine.maxTag} bytes of names in all`);
  }
  // {kind of the key, filled in later | length of the text, low and high | text}
  const prefix = new Uint8Array(3 + text.length);
  prefix[1] = text.length & 0xff;
  prefix[2] = text.length >> 8;
  prefix.set(text, 3);
  return { id, path, prefix, tags };
}
