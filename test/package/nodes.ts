/**
 * Other versions of Node.js to try things with: `NODES` names them, by the path of a binary or by a version that npm then
 * gets, as in `NODES=22,24,26 npx vitest run newcomer`.
 */

import path from "node:path";
import { execute, type Projects } from "./projects.ts";

export const versions: readonly string[] = (process.env.NODES ?? "").split(",").filter((version) => version !== "");

/** The binary of a version, from the package `node` of the registry. */
export async function nodeBinary(version: string, projects: Projects): Promise<string> {
  if (version.includes("/")) return version;
  const cwd = projects.create(`node-${version}`);
  const args = ["install", `node@${version}`, "--no-audit", "--no-fund", "--loglevel=error"];
  const { status, stderr } = await execute("npm", args, { cwd });
  if (status !== 0) throw new Error(`npm did not get node@${version}: ${stderr}`);
  return path.join(cwd, "node_modules/node/bin/node");
}
