/**
 * More versions of Node.js for the tests. `NODES` lists them, each as the path of a binary or as a version that npm installs:
 * `NODES=22,24,26 npx vitest run newcomer`.
 */

import path from "node:path";
import { execute, type Projects } from "./projects.ts";

export const versions: readonly string[] = (process.env.NODES ?? "").split(",").filter((version) => version !== "");

/** The path of the binary of a version, which npm installs from its package `node`. */
export async function nodeBinary(version: string, projects: Projects): Promise<string> {
  if (version.includes("/")) return version;
  const cwd = projects.create(`node-${version}`);
  const args = ["install", `node@${version}`, "--no-audit", "--no-fund", "--loglevel=error"];
  const { status, stderr } = await execute("npm", args, { cwd });
  if (status !== 0) throw new Error(`npm did not install node@${version}: ${stderr}`);
  return path.join(cwd, "node_modules/node/bin/node");
}
