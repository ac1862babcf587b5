/**
 * Renders Markdown as HTML: the work that is worth caching. It does not use the cache, so that the driver can compute the right
 * answers with it.
 */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { marked } from "marked";
import { root } from "./docs.mjs";

/** The page as bytes. */
export function renderPage({ title, files }) {
  const articles = files.map((file) => {
    const html = marked.parse(readFileSync(join(root, file), "utf8"));
    return `<article id="${escapeHtml(file)}">\n${html}</article>\n`;
  });
  return Buffer.from(
    `<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>${escapeHtml(title)}</title>\n${articles.join("")}</html>\n`,
  );
}

/** The ETag of these bytes. */
export function etagOf(bytes) {
  return `"${createHash("sha1").update(bytes).digest("base64url")}"`;
}

function escapeHtml(text) {
  return text.replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`);
}
