/**
 * Values ↔ bytes for other places than the memory of a cache, such as a server or a file. The codec writes the value. Two bytes
 * come first, because these bytes outlive the memory and the version of the package that made them:
 *
 *     byte  0  the version of this format
 *           1  the type of the value (`value-types.ts`)
 *           2  the bytes of the codec
 *
 * The meaning of the types, and of the bytes of each, is part of the format: a change of one of them raises the version.
 */

import { badData, CacheError } from "../errors.ts";
import { plainBytes } from "./binary.ts";
import type { ValueCodec } from "./codec.ts";
import { describe, isStackOverflow, typedArrayName } from "./describe.ts";
import { quoted, unreadable } from "./value-errors.ts";

/** The version of this format. Snapshots name it too: they hold values as their codec encoded them. */
export const FORMAT = 1;
const HEAD = 2;
/** The codec allocates memory of its own, so the value may be larger than the area of a cache. */
const NO_ROOM: Uint8Array = new Uint8Array(0);

/** Encodes a value. @throws as {@link ValueCodec.encode}. */
export function toPortable(value: unknown, codec: ValueCodec): Uint8Array {
  const length = codec.encode(value, NO_ROOM);
  const bytes = new Uint8Array(HEAD + length);
  bytes[0] = FORMAT;
  bytes[1] = codec.type;
  if (codec.bytes !== undefined) bytes.set(codec.bytes, HEAD);
  return bytes;
}

/**
 * Decodes what {@link toPortable} returned, here or elsewhere. Any bytes are safe.
 *
 * @throws {TypeError} for what is no bytes.
 * @throws {CacheError} `ERR_DATA` for bytes of another version of the format, and as {@link ValueCodec.decode}.
 */
export function fromPortable(portable: Uint8Array, codec: ValueCodec): unknown {
  if (typedArrayName(portable) !== "Uint8Array") {
    throw new TypeError(`bytes: must be a Uint8Array (such as a Buffer), not ${describe(portable)}`);
  }
  const bytes = plainBytes(portable);
  if (bytes.length < HEAD) {
    throw badData(`bytes: are only ${bytes.length}, so they are no encoded value. Encode the value again.`);
  }
  if (bytes[0] !== FORMAT) {
    throw badData(
      `bytes: have format version ${bytes[0]}, and this version of cache-machine reads version ${FORMAT}. Use the version ` +
        "that encoded them, or encode the value again.",
    );
  }
  try {
    return codec.decode(bytes[1] as number, bytes, HEAD, bytes.length - HEAD);
  } catch (error) {
    if (error instanceof CacheError || isStackOverflow(error)) throw error;
    // The runtime refuses what is too large for it: it has a longest string, for example.
    throw unreadable(`this runtime cannot read it (${quoted(error)})`, error);
  }
}
