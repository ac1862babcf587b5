/**
 * What `npm run mutants` breaks, one at a time, and which tests are asked first. The lists lie by the folder of the source:
 * `engine/` for the crate in wasm/src, `package/` for src/ and the native part. Every file in them is a list.
 *
 * `breaks` names the promise or the invariant: I1 authentic · I2 no resurrection · I3 one live entry per key · I4 any bytes
 * parse · M1 exclusive bytes · M2 generations may wrap · M3 segments are conserved · M4 reclaim progresses · L1 reads end ·
 * L2 changes end · L3 the living are not reaped · L4 damage does not add up · P1 a hot key stops writing · P2 expired is
 * gone · P3 a refused set keeps the old value · P4 no lost increment · A1 attach · policy: what is worth keeping is kept ·
 * books: live bytes.
 *
 * `find` is in the file exactly once, which a test checks. `also` holds further replacements in the same file. Not here,
 * because no test could tell the difference:
 *
 * - zeros behind a value (`copy_in`): its length is told apart from the length of its record;
 * - clearing the hazard of a dead slot that is reaped: whoever finds it asks for the proof again, and gets it;
 * - the clear epoch that `find` reads before the entry: read after it, it would be only newer;
 * - the mark at the end of a segment: without it a walk goes by way of the index, which is slow and as right;
 * - the version of a chunk: the generation in its place already says which record it is;
 * - the look at the length of a file before its header: the header names the length as well;
 * - the release of the slot in `close`: closing the descriptor gives it back all the same.
 */
import { readdirSync } from "node:fs";

/** @typedef {{ name: string, breaks: string, what: string, file: string, find: string, replace: string,
 *   also?: [string, string][], first?: string[], loom?: boolean }} EngineMutant */

/** @typedef {{ name: string, breaks: string, what: string, file: string, find: string, replace: string,
 *   also?: [string, string][], first?: string[], filter?: string }} PackageMutant */

/** The lists of a folder, one after the other. */
async function listed(folder) {
  const files = readdirSync(new URL(`${folder}/`, import.meta.url)).sort();
  const lists = await Promise.all(files.map((file) => import(new URL(`${folder}/${file}`, import.meta.url))));
  return lists.flatMap((list) => list.default);
}

/** @type {EngineMutant[]} */
export const ENGINE = await listed("engine");
/** @type {PackageMutant[]} */
export const PACKAGE = await listed("package");
