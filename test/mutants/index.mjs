/**
 * The mutants: what `npm run mutants` breaks, one at a time. The lists have the names of the folders of their sources: `engine/` is for
 * the crate in wasm/src, `package/` for src/ and the native part. Every file in these two folders is a list.
 *
 * `what` says what the mutant does wrong. `first` names the tests that run first: for the package files, for the engine parts of
 * names. `filter` is a pattern for vitest's `-t`, plain text that is part of a title in each of these files. `find` is the text that is
 * replaced, and is in the file exactly once. `also` has more replacements in the same file. mutants.test.ts checks all of these.
 *
 * `breaks` names the promise or the invariant: I1 authentic · I2 no resurrection · I3 one live entry per key · I4 any bytes
 * parse · M1 exclusive bytes · M2 generations may wrap · M3 segments are conserved · M4 reclaim progresses · L1 reads end ·
 * L2 changes end · L3 the living are not reaped · L4 damage does not add up · P1 a hot key stops writing · P2 expired is
 * gone · P3 a refused set keeps the old value · P4 no lost increment · P6 a limit lets exactly so many through · A1 attach · policy:
 * what is worth keeping is kept · books: live bytes · C1 one living holder of a claim or a lock · C2 an overtaken or outdated load is
 * not stored · C3 the flags of a bucket are never missing · C4 the dead leave no claim · C5 who waits is rung.
 *
 * No mutant breaks the following lines, because no test could notice it:
 *
 * - the zeros behind a value (`copy_in`): the record has the length of the value itself;
 * - clearing the hazard of a dead participant when its seat is reaped: a participant that meets the hazard proves the death again;
 * - reading the clear epoch before the entry in `find`: read after the entry, it would only be newer;
 * - the mark at the end of a segment: without it a walk uses the index, which is slower and also correct;
 * - the version of a chunk: the generation in the reference to the chunk already identifies the record;
 * - checking the length of a file before its header: the header contains the length too;
 * - giving the seat back in `close`: closing the descriptor also does that;
 * - the hash domain of the names of locks: the state of a claim also tells a lock from a load.
 */
import { readdirSync } from "node:fs";

/** @typedef {{ name: string, breaks: string, what: string, file: string, find: string, replace: string,
 *   also?: [string, string][], first?: string[], loom?: boolean }} EngineMutant */

/** @typedef {{ name: string, breaks: string, what: string, file: string, find: string, replace: string,
 *   also?: [string, string][], first?: string[], filter?: string }} PackageMutant */

/** All mutants of the lists in a folder. */
async function listed(folder) {
  const files = readdirSync(new URL(`${folder}/`, import.meta.url)).sort();
  const lists = await Promise.all(files.map((file) => import(new URL(`${folder}/${file}`, import.meta.url))));
  return lists.flatMap((list) => list.default);
}

/** @type {EngineMutant[]} */
export const ENGINE = await listed("engine");
/** @type {PackageMutant[]} */
export const PACKAGE = await listed("package");
