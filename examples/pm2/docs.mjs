/**
 * Finds the input: the Markdown files of every npm package that is installed in this repository. All files of a package together
 * are one page; if there are several, each file is a page of its own too.
 */

import { readdirSync, statSync } from "node:fs";
import { join, sep } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../../node_modules", import.meta.url));

/** All pages as `{ path, title, files }`, always in the same order; `files` are relative to {@link root}. */
export function findPages() {
  const pages = [];
  for (const [name, files] of filesByPackage()) {
    pages.push(page(name, files));
    if (files.length > 1) pages.push(...files.map((file) => page(file, [file])));
  }
  return pages;
}

function page(title, files) {
  const path = `/docs/${title.split("/").map(encodeURIComponent).join("/").replaceAll("%40", "@")}`;
  return { path, title, files };
}

function filesByPackage() {
  const packages = new Map();
  for (const entry of readdirSync(root, { recursive: true }).sort()) {
    if (!/\.(md|markdown)$/i.test(entry) || !hasText(join(root, entry))) continue;
    const file = entry.split(sep).join("/");
    // A package may be in the node_modules of another package, and may have a scope.
    const [name] = /^(?:.*\/node_modules\/)?(?:@[^/]+\/)?[^/]+/.exec(file);
    packages.set(name, [...(packages.get(name) ?? []), file]);
  }
  return packages;
}

/** Whether this is a file with text. Some packages have empty files, or folders with such a name. */
function hasText(file) {
  const stat = statSync(file, { throwIfNoEntry: false });
  return stat?.isFile() && stat.size > 0;
}
