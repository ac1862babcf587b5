/**
 * Whether two caches encode objects alike. The bytes of a `codec` say nothing about themselves. So the header of a snapshot holds
 * what the codec made of a known value, the probe, and an import tries whether its own codec makes the same of it.
 */

import type { View } from "../cache/view.ts";
import { badData, CacheError } from "../errors.ts";
import { FORMAT } from "../values/portable.ts";
import { CUSTOM } from "../values/value-types.ts";
import type { Header } from "./format.ts";

/** An object of a kind that a codec for any data can encode. */
const PROBE: object = { probe: "cache-machine", text: "äß€", list: [1, -0.5, null, true], inner: { empty: "" } };
/** Bytes of the header that are left for a probe. */
const LONGEST = 2048;
const PORTABLE_HEAD = 2;

/** What the header says of the codec of a cache: nothing without one, and no probe when the codec refuses it. */
export function describeCodec(view: View): Header["codec"] {
  const probe = encodeProbe(view);
  if (probe === undefined) return {};
  if (probe[1] !== CUSTOM) return undefined;
  const bytes = Buffer.from(probe.subarray(PORTABLE_HEAD));
  return bytes.length <= LONGEST ? { probe: bytes.toString("base64") } : {};
}

/**
 * Checks that the codec of a cache reads what that of the snapshot has written.
 *
 * @throws {CacheError} `ERR_DATA` when it does not.
 */
export function checkCodec(view: View, codec: Header["codec"], source: string): void {
  if (codec === undefined) return;
  const ours = encodeProbe(view);
  if (ours !== undefined && ours[1] !== CUSTOM) {
    throw badData(
      `codec: ${source} was written by a cache with a \`codec\`, and this cache has none. Open it with the same \`codec\`.`,
    );
  }
  // A codec that refuses the probe is for data of its own, here or there.
  if (codec.probe === undefined || ours === undefined) return;
  const theirs = Buffer.from(codec.probe, "base64");
  if (theirs.equals(ours.subarray(PORTABLE_HEAD))) return;
  let cause: unknown;
  try {
    if (textOf(decode(view, theirs)) === textOf(decode(view, ours.subarray(PORTABLE_HEAD)))) return;
  } catch (error) {
    cause = error;
  }
  throw badData(
    `codec: ${source} was written with another \`codec\` than that of this cache. Open the cache with the same \`codec\`.`,
    cause === undefined ? undefined : { cause },
  );
}

function encodeProbe(view: View): Uint8Array | undefined {
  try {
    return view.toPortable(PROBE);
  } catch (error) {
    if (error instanceof CacheError && error.code === "ERR_CLOSED") throw error;
    return undefined;
  }
}

function decode(view: View, bytes: Uint8Array): unknown {
  const portable = new Uint8Array(PORTABLE_HEAD + bytes.length);
  portable.set([FORMAT, CUSTOM]);
  portable.set(bytes, PORTABLE_HEAD);
  return view.fromPortable(portable);
}

/** A text that is the same for equal values. */
function textOf(value: unknown): string {
  return JSON.stringify(value) ?? String(value);
}
