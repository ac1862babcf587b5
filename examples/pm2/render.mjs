/**
 * A worker thread of the pool: renders a page. The process that has asked for it stores it in the cache, see `getOrSet` in
 * server.mjs.
 */

import { renderPage } from "./page.mjs";
import { recorded } from "./store.mjs";

export default function render(page) {
  return recorded(page.path, () => renderPage(page));
}
