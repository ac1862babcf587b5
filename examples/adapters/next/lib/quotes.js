import { cacheLife, cacheTag } from "next/cache";

/** A quote. The number and the process show who has computed it, and when it was computed again. */
export async function quoteOf(author) {
  "use cache";
  cacheLife("days");
  cacheTag("quotes", `quote ${author}`);
  return { author, number: Math.random(), by: process.pid };
}
