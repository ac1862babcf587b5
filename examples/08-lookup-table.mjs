/**
 * A large lookup table for several processes: one shared table instead of a copy in each process. Prints how much memory that saves.
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
  // A full cache evicts: make it large enough, and know where to read a row that is missing.
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

/** The memory of all processes together while they have the table, in megabytes. */
async function measure(kind) {
  const children = Array.from({ length: PROCESSES }, () => {
    return fork(new URL(import.meta.url), [kind], { execArgv: ["--expose-gc"] });
  });
  await Promise.all(children.map((child) => once(child, "message")));
  const answers = children.map((child) => once(child, "message"));
  for (const child of children) child.send("measure");
  return (await Promise.all(answers)).reduce((sum, [megabytes]) => sum + megabytes, 0);
}

/** The memory of this process, including its share of the memory that several processes use, in megabytes. */
function memory() {
  return Number(/^Pss: +(\d+) kB$/m.exec(readFileSync("/proc/self/smaps_rollup", "utf8"))[1]) / 1024;
}
