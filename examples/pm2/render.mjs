/**
 * A worker thread of the pool. It renders a page and stores it itself: from then on every thread of every process has
 * it, and nothing but the answer to the first reader goes through a message.
 */

import { threadId } from "node:worker_threads";
import { CacheError } from "cache-machine";
import { renderPage } from "./page.mjs";
import { origins, pages } from "./store.mjs";

export default function render(page) {
  const html = renderPage(page);
  const origin = `${process.pid}/${threadId}`;
  try {
    // The origin first: who finds the page then finds this too.
    origins.set(page.path, origin);
    pages.set(page.path, html);
  } catch (error) {
    // A page that finds no place, being too large for a small cache for instance, is still a page.
    if (!(error instanceof CacheError)) throw error;
  }
  return { html, origin };
}
