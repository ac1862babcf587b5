/**
 * The numbers of `src/engine/contract.ts`, for helpers that Node.js runs as they are: it does not load TypeScript in every
 * version that is supported. Tests import the file itself.
 */
import { readFileSync } from "node:fs";
import { readContract } from "../../scripts/wasm/contract.mjs";

const text = readFileSync(new URL("../../src/engine/contract.ts", import.meta.url), "utf8");
/** @type {typeof import("../../src/engine/contract.ts")} */
export const numbers = await readContract(text);
