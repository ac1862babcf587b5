/**
 * A pm2 of its own, in a temporary folder, that runs living-server.mjs in cluster mode; and a visitor who asks for pages all the
 * time. {@link Host.end} ends the pm2, and whatever it has started.
 */

import { execFile } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { type Cache, destroyCache, openCache } from "cache-machine";
import { freePort } from "../package/projects.ts";

const ROOT = path.resolve(import.meta.dirname, "../..");
const PM2 = path.join(ROOT, "node_modules/pm2/bin/pm2");
const SERVER = path.join(import.meta.dirname, "living-server.mjs");
const WATCHDOG_MS = 60_000;

/** What the application is: a deploy replaces it. */
export interface Application {
  name: string;
  size?: string;
  version?: string;
  /** Whether a process opens the cache again when it was destroyed. */
  watch?: boolean;
}

/** An answer of the application; its process. */
export interface Answer {
  pid: number;
  size: number;
  version?: string;
  value: { page: string; version?: string };
  destroyed: boolean;
}

export class Host {
  /** The folder of the caches, of the files of the application, and of pm2. */
  readonly directory: string = fs.mkdtempSync("/dev/shm/cache-machine-pm2-");
  /** How long a request may take, in ms. */
  patience: number = WATCHDOG_MS;
  #port = 0;

  /**
   * Starts the application in two processes.
   *
   * @param listenTimeout how long pm2 waits in a reload for the next process, in ms, until it ends the old one all the same
   */
  async start(application: Application, listenTimeout = 30_000): Promise<void> {
    this.#port = await freePort();
    this.deploy(application);
    const env = { DIRECTORY: this.directory, PORT: String(this.#port), MODULE: path.join(ROOT, "dist/index.js") };
    const app = {
      ...{ name: "pages", script: SERVER, exec_mode: "cluster", instances: 2, wait_ready: true, pmx: false, env },
      // A process that cannot start is given up soon, so that a test sees it.
      ...{ max_restarts: 2, min_uptime: 5000, restart_delay: 50, kill_timeout: 20_000, listen_timeout: listenTimeout },
    };
    fs.writeFileSync(path.join(this.directory, "ecosystem.config.json"), JSON.stringify({ apps: [app] }));
    await this.pm2("start", path.join(this.directory, "ecosystem.config.json"));
  }

  /** Replaces the application on the disk. Processes that run keep the one with which they were started. */
  deploy(application: Application): void {
    fs.writeFileSync(path.join(this.directory, "application.json"), JSON.stringify(application));
  }

  /** Runs a command of pm2; what it prints. */
  async pm2(...words: string[]): Promise<string> {
    const env = { ...process.env, PM2_HOME: path.join(this.directory, "pm2"), PM2_DISABLE_VERSION_CHECK: "true" };
    const { stdout } = await promisify(execFile)(process.execPath, [PM2, ...words], { env, timeout: WATCHDOG_MS });
    return stdout;
  }

  /** The processes of the application as pm2 sees them. */
  async processes(): Promise<{ pid: number; status: string; restarts: number }[]> {
    const list = JSON.parse((await this.pm2("jlist")).replace(/^[^[]*(?=\[\{|\[\])/, ""));
    return list.map(({ pid, pm2_env }: { pid: number; pm2_env: { status: string; restart_time: number } }) => {
      return { pid, status: pm2_env.status, restarts: pm2_env.restart_time };
    });
  }

  async ask(page: string): Promise<Answer> {
    const signal = AbortSignal.timeout(this.patience);
    const response = await fetch(`http://127.0.0.1:${this.#port}/${page}`, {
      headers: { connection: "close" },
      signal,
    });
    return (await response.json()) as Answer;
  }

  /** Asks for pages from now on, several at a time, until the result is called. It answers what came, and what failed. */
  visit(pages: number): () => Promise<{ answers: Answer[]; failed: string[] }> {
    const answers: Answer[] = [];
    const failed: string[] = [];
    let going = true;
    const visitor = async (first: number): Promise<void> => {
      for (let i = first; going; i++) {
        await this.ask(`page-${i % pages}`).then(
          (answer) => answers.push(answer),
          (error) => failed.push(`${error} ${(error as Error).cause ?? ""}`),
        );
        // The rest of the machine wants to work too.
        await sleep(5);
      }
    };
    const visitors = [0, 1, 2, 3].map(visitor);
    return async () => {
      going = false;
      await Promise.all(visitors);
      return { answers, failed };
    };
  }

  /** The loads so far: `size version page`, one for each call of the loader. */
  loads(): string[] {
    return fs.readFileSync(path.join(this.directory, "loads.txt"), "utf8").trimEnd().split("\n");
  }

  /** What pm2 has noted of the errors of the application. */
  errors(): string {
    const logs = path.join(this.directory, "pm2/logs");
    const files = fs.readdirSync(logs).filter((name) => name.includes("error"));
    return files.map((name) => fs.readFileSync(path.join(logs, name), "utf8")).join("");
  }

  destroy(name: string): boolean {
    return destroyCache(name, { path: this.directory });
  }

  /** Uses a cache of the application from outside. */
  look<T>(name: string, use: (cache: Cache) => T): T {
    const cache = openCache(name, { path: this.directory, size: "1mb" });
    try {
      return use(cache);
    } finally {
      cache.close();
    }
  }

  /** The names of the caches that have a file. */
  caches(): string[] {
    const files = fs
      .readdirSync(this.directory)
      .flatMap((file) => /^cache-machine-\d+-(.+)\.v\d+$/.exec(file)?.[1] ?? []);
    return files.sort();
  }

  async end(): Promise<void> {
    try {
      await this.pm2("kill");
    } finally {
      fs.rmSync(this.directory, { recursive: true, force: true });
    }
  }
}
