/**
 * A client of the service, in a process of its own. It computes which packages are similar, which takes seconds, and posts the
 * result to any process of the service. Then every process has it: computed once, available to all.
 *
 * Packages are similar if their documents share words that are rare elsewhere: cosine similarity of tf-idf vectors.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { findPages, root } from "./docs.mjs";
import { etagOf } from "./page.mjs";

const RELATED = 5;

const started = performance.now();
// The page of a package has all of its files; the page of a single file has its name.
const packages = findPages().filter(({ title, files }) => files.length > 1 || !title.endsWith(files[0]));
const body = Buffer.from(JSON.stringify(relatedPages(packages), null, 1));
const seconds = (performance.now() - started) / 1000;

const path = process.env.RESULT;
const response = await fetch(`http://127.0.0.1:${process.env.PORT}${path}`, { method: "POST", body });
if (response.status !== 201) throw new Error(`the service answered ${response.status}: ${await response.text()}`);
process.send({
  path,
  seconds,
  bytes: body.length,
  etag: etagOf(body),
  process: response.headers.get("x-process"),
  pid: Number(response.headers.get("x-pid")),
  storedAt: Number(response.headers.get("x-stored-at")),
});
process.disconnect();

/** The most similar pages for each page: `{ title: [{ title, likeness }] }`. */
function relatedPages(pages) {
  const vectors = pages.map((page) => countWords(page.files));
  const documents = new Map();
  for (const vector of vectors) for (const word of vector.keys()) documents.set(word, (documents.get(word) ?? 0) + 1);
  for (const vector of vectors) weigh(vector, documents, pages.length);
  return Object.fromEntries(
    vectors.map((vector, index) => {
      const others = vectors
        .map((other, at) => ({ title: pages[at].title, likeness: at === index ? 0 : rounded(product(vector, other)) }))
        .sort((a, b) => b.likeness - a.likeness);
      return [pages[index].title, others.slice(0, RELATED)];
    }),
  );
}

function countWords(files) {
  const counts = new Map();
  for (const file of files) {
    for (const [word] of readFileSync(join(root, file), "utf8")
      .toLowerCase()
      .matchAll(/\p{L}{3,}/gu)) {
      counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  }
  return counts;
}

/** Turns counts into a vector of length 1. */
function weigh(vector, documents, total) {
  let squares = 0;
  for (const [word, count] of vector) {
    const weight = (1 + Math.log(count)) * Math.log(total / documents.get(word));
    vector.set(word, weight);
    squares += weight ** 2;
  }
  const length = Math.sqrt(squares) || 1;
  for (const [word, weight] of vector) vector.set(word, weight / length);
}

function product(a, b) {
  if (a.size > b.size) return product(b, a);
  let sum = 0;
  for (const [word, weight] of a) sum += weight * (b.get(word) ?? 0);
  return sum;
}

function rounded(likeness) {
  return Math.round(likeness * 1000) / 1000;
}
