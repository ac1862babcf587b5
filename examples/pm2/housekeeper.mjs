/**
 * The housekeeping: looks which files have changed since their pages were rendered, and removes these pages. It is a job that every
 * process would do and only one should: each of them tries, twice a second, and the one that gets the lock does it. The death of
 * that process gives the lock back.
 */

import { stat } from "node:fs/promises";
import { join } from "node:path";
import { root } from "./docs.mjs";
import { processName } from "./settings.mjs";
import { cache, monotonic, pages, recorded, recordsOf } from "./store.mjs";

const ROUND_MS = 500;

/** Takes part in the housekeeping of these pages. */
export function keepHouse(contents) {
  setInterval(() => {
    cache.locks
      .request("housekeeping", { ifAvailable: true }, (lock) => lock !== null && clean(contents))
      .catch((error) => {
        if (error.code !== "ERR_CLOSED") console.error(error);
      });
  }, ROUND_MS).unref();
}

async function clean(contents) {
  // Not if another process has just done it.
  if (!cache.add("house is clean", processName, { ttl: ROUND_MS * 0.8 })) return;
  await recorded("housekeeping", async () => {
    for (const page of contents) if (pages.has(page.path) && (await isOutdated(page))) pages.delete(page.path);
  });
}

/** Whether a file of this page has changed since the page was rendered last. */
async function isOutdated({ path, files }) {
  const rendered = recordsOf(path).at(-1);
  if (rendered === undefined) return false;
  const at = Date.now() - (monotonic() - rendered.began);
  const changes = await Promise.all(files.map(async (file) => (await stat(join(root, file))).mtimeMs));
  return Math.max(...changes) > at;
}
