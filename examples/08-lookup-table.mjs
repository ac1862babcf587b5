/**
 * A large table that every process looks things up in: once for all instead of a copy in each. Says what that saves.
 *
 *     node examples/08-lookup-table.mjs
 */

import { fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { destroyCache, openCache } from "cache-machine";

const ROWS = Number(process.env.ROWS ?? 150_000);
const PROCESSES = 4;
const OPTIONS = { size: "96mb" };

function* rows() {
  for (let i = 0; i < ROWS; i++) {
    yield [`sku-${i}`, { name: `Article ${i}`, price: i / 100, stock: i % 50, tags: ["new", `shelf ${i % 500}`] }];
  }
}

if (process.argv[2] === undefined) {
  const cache = openCache("example-table", OPTIONS);
  cache.setMany(rows());
  const copies = await measure("copy");
  const shared = await measure("shared");
  console.log(`${ROWS} rows in ${PROCESSES} processes`);
  console.log(`a Map in each process    ${Math.round(copies)} MB`);
  console.log(`one cache for all        ${Math.round(shared)} MB`);
  console.log(`saved                    ${Math.round(copies - shared)} MB`);
  // A full cache evicts: leave room to spare, and know where to find a row that is not there.
  console.log(`evicted                  ${cache.stats().evictions} rows`);
  destroyCache("example-table");
} else {
  const table = process.argv[2] === "copy" ? new Map(rows()) : openCache("example-table", OPTIONS);
  for (let i = 0; i < ROWS; i += 7) if (table.get(`sku-${i}`).price !== i / 100) throw new Error(`sku-${i} is wrong`);
  process.send("ready");
  await once(process, "message");
  globalThis.gc();
  process.send(memory());
  process.disconnect();
}

/** Megabytes that all processes use together while they have the table. */
async function measure(kind) {
  const children = Array.from({ length: PROCESSES }, () => {
    return fork(new URL(import.meta.url), [kind], { execArgv: ["--expose-gc"] });
  });
  await Promise.all(children.map((child) => once(child, "message")));
  const answers = children.map((child) => once(child, "message"));
  for (const child of children) child.send("measure");
  return (await Promise.all(answers)).reduce((sum, [megabytes]) => sum + megabytes, 0);
}

/** Of this process, with its fair part of what it shares with others. */
function memory() {
  return Number(/^Pss: +(\d+) kB$/m.exec(readFileSync("/proc/self/smaps_rollup", "utf8"))[1]) / 1024;
}
