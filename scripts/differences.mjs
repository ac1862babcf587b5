/** Compares the record of a build with the files as they are now: for build-wasm.mjs and build-native.mjs. */

/** The keys at which two flat objects differ, each with both values. */
export function differences(before, after) {
  const keys = [...new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])].sort();
  return keys
    .filter((key) => before?.[key] !== after?.[key])
    .map((key) => `${key}: ${before?.[key] ?? "-"} → ${after?.[key] ?? "-"}`);
}
