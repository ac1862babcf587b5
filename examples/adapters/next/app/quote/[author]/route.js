import { quoteOf } from "../../../lib/quotes.js";

/** Answers with a quote, and with the process that answers: `GET /quote/ada`. */
export async function GET(_request, { params }) {
  const { author } = await params;
  return Response.json({ ...(await quoteOf(author)), answeredBy: process.pid });
}
