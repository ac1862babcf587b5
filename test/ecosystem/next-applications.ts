/** Applications of the real Next.js, with the packed package: how the tests make, build and serve them. */

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { expect } from "vitest";
import { address, execute, freePort, type Projects, Running, root } from "../package/projects.ts";

export const ECOSYSTEM: string = path.join(root, "test/ecosystem");
export const BUILD_MS = 200_000;
const SERVE_MS = 300_000;

/** Creates a project with the packed package, Next.js and React, and with copies of the files of an application; its folder. */
export async function application(projects: Projects, name: string, source: string): Promise<string> {
  const folder = await projects.installed(name);
  const modules = path.join(ECOSYSTEM, "node_modules");
  const there = fs.readdirSync(path.join(folder, "node_modules"));
  const missing = fs.readdirSync(modules).filter((entry) => !there.includes(entry) && !entry.startsWith("."));
  const from = missing.map((entry) => path.join(modules, entry));
  try {
    execFileSync("cp", ["-al", ...from, path.join(folder, "node_modules")], { stdio: "pipe" });
  } catch {
    // Another file system, where there can be no links to these files.
    execFileSync("cp", ["-a", ...from, path.join(folder, "node_modules")]);
  }
  fs.cpSync(source, folder, { recursive: true });
  return folder;
}

const next = (folder: string): string => path.join(folder, "node_modules/next/dist/bin/next");

export async function build(folder: string, args: string[], env: Record<string, string>): Promise<string> {
  const command = [next(folder), "build", ...args];
  const execution = { cwd: folder, env: { ...env, NEXT_TELEMETRY_DISABLED: "1" }, timeoutMs: BUILD_MS };
  const { status, stdout, stderr } = await execute(process.execPath, command, execution);
  expect(status, stdout + stderr).toBe(0);
  return stdout + stderr;
}

/** A process that serves an application. */
export class Serving {
  readonly running: Running;
  readonly url: string;

  private constructor(running: Running, url: string) {
    this.running = running;
    this.url = url;
  }

  static async start(folder: string, env: Record<string, string>): Promise<Serving> {
    const port = String(await freePort());
    const alone = path.join(folder, "server.js");
    const command = fs.existsSync(alone) ? [alone] : [next(folder), "start", "-p", port, "-H", "127.0.0.1"];
    const environment = { ...env, PORT: port, HOSTNAME: "127.0.0.1", NEXT_TELEMETRY_DISABLED: "1" };
    const running = new Running(process.execPath, command, { cwd: folder, env: environment, timeoutMs: SERVE_MS });
    await address(running);
    return new Serving(running, `http://127.0.0.1:${port}`);
  }

  async json(route: string, method = "GET"): Promise<any> {
    const response = await fetch(this.url + route, { method });
    expect(response.status, this.running.stderr).toBe(200);
    return response.json();
  }

  /** The text in the `<main>` of a page. */
  async page(route: string): Promise<string> {
    const response = await fetch(this.url + route);
    expect(response.status, this.running.stderr).toBe(200);
    const [, main] = /<main>(.*?)<\/main>/.exec(await response.text()) ?? [];
    expect(main, route).toBeDefined();
    return (main as string).replaceAll("<!-- -->", "");
  }

  async stop(): Promise<void> {
    this.running.kill();
    await this.running.ended;
  }
}

/** Asks until the answer is another one; the new answer. */
export async function another<T>(before: T, ask: () => Promise<T>): Promise<T> {
  for (const end = Date.now() + 20_000; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 20))) {
    const answer = await ask();
    if (JSON.stringify(answer) !== JSON.stringify(before)) return answer;
  }
  throw new Error(`still ${JSON.stringify(before)}`);
}
