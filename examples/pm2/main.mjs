/**
 * The driver: starts the service under pm2, asks it for pages under load, has a client post a result, kills one of the
 * processes, checks every answer, and says at the end what came out. It leaves nothing behind, however it ends.
 *
 *     npm start                  from the root of the repository
 *     node main.mjs --json       ends with one line of JSON on the standard output; all else goes to the standard error
 */

import { fork, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { destroyCache } from "cache-machine";
import { findPages } from "./docs.mjs";
import { findLeftovers } from "./leftovers.mjs";
import { Load } from "./load.mjs";
import { etagOf, renderPage } from "./page.mjs";
import { Scores } from "./scores.mjs";
import { bytes, count, Screen } from "./screen.mjs";
import { home, listProcesses, loadPm2, startService, stopService } from "./service.mjs";
import { cacheName, cacheSize, connections, duration, processes, threads } from "./settings.mjs";
import { cache } from "./store.mjs";
import { summarize } from "./summary.mjs";
