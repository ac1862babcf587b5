/**
 * More versions of Node.js for the tests. `NODES` lists them, each as the path of a binary or as a version that npm installs:
 * `NODES=22,24,26 npx vitest run newcomer`.
 */

import path from "node:path";
import { execute, Projects } from "./projects.ts";

export const versions: readonly string[] = (process.env.NODES ?? "").split(",").filter((version) => version !== "");

/** The binaries that were installed for this file of tests. */
const installed = new Map<string, Promise<string>>();
let projects: Projects | undefined;

/** The path of the binary of a version, which npm installs once. */
export function nodeBinary(version: string): Promise<string> {
  if (version.includes("/")) return Promise.resolve(version);
  const binary = installed.get(version) ?? install(version);
  installed.set(version, binary);
  return binary;
}

async function install(version: string): Promise<string> {
  if (projects === undefined) {
    const created = new Projects("nodes");
    projects = created;
    process.once("exit", () => created.remove());
  }
  const cwd = projects.create(`node-${version}`);
  // The package that the package `node` would install, without its script.
  const name = `node-${process.platform}-${process.arch}`;
  const args = ["install", `${name}@${version}`, "--no-audit", "--no-fund", "--loglevel=error"];
  const { status, stderr } = await execute("npm", args, { cwd });
  if (status !== 0) throw new Error(`npm did not install ${name}@${version}: ${stderr}`);
  return path.join(cwd, "node_modules", name, "bin/node");
}
