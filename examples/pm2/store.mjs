/**
 * The cache and its namespaces. Every process and every worker thread that imports this file opens the same cache by its name,
 * without messages, handles or a server.
 */

import { threadId } from "node:worker_threads";
import { openCache } from "cache-machine";
import { cacheName, cacheSize } from "./settings.mjs";

export const cache = openCache(cacheName, { size: cacheSize });

/** Rendered pages by path, as bytes, because responses are bytes. */
export const pages = cache.namespace("pages");
/** Results that clients have posted, by path. */
export const results = cache.namespace("results");
/** The number of requests that wait for a result, by the name of their process. */
export const waiting = cache.namespace("waiting");
/** The limits that a process has loaded, and when, by the name of the process. */
export const loaded = cache.namespace("loaded");

/**
 * The books: which thread has rendered a page, by path, and which has done the housekeeping, each with its times. The driver looks
 * there whether two processes ever did the same at the same time.
 */
const books = cache.namespace("books");

/** Does a piece of work, and keeps the books on it. */
export async function recorded(work, run) {
  const record = { by: `${process.pid}/${threadId}`, began: monotonic() };
  books.update(work, (all = []) => [...all, record]);
  const result = await run();
  const isThis = ({ by, began }) => by === record.by && began === record.began;
  const ended = monotonic();
  books.update(work, (all = []) => all.map((other) => (isThis(other) ? { ...other, ended } : other)));
  return result;
}

/** The records of a piece of work: `{ by: "pid/thread", began, ended }`, without `ended` if it did not come to its end. */
export function recordsOf(work) {
  return books.get(work) ?? [];
}

/** Milliseconds by a clock that all processes share, and that nobody sets. */
export function monotonic() {
  return Number(process.hrtime.bigint()) / 1e6;
}
