/**
 * A worker thread of the pool. It renders a page and stores it in the cache itself. From then on every thread of every process can
 * read it there; only the answer to the first reader is sent as a message.
 */

import { threadId } from "node:worker_threads";
import { CacheError } from "cache-machine";
import { renderPage } from "./page.mjs";
import { origins, pages } from "./store.mjs";

export default function render(page) {
  const html = renderPage(page);
  const origin = `${process.pid}/${threadId}`;
  try {
    // The origin is stored first, so that a reader who finds the page finds its origin too.
    origins.set(page.path, origin);
    pages.set(page.path, html);
  } catch (error) {
    // A page that cannot be stored, for example because it is too large for a small cache, is still sent.
    if (!(error instanceof CacheError)) throw error;
  }
  return { html, origin };
}
