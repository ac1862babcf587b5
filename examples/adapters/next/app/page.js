import { quoteOf } from "../lib/quotes.js";

/** A page without anything that depends on the request: it is rendered once, for all processes. */
export default async function Page() {
  const { author, number, by } = await quoteOf("nobody");
  return (
    <main>
      {author} said {number}, computed by process {by}
    </main>
  );
}
