import { unstable_cache } from "next/cache";

export const dynamic = "force-dynamic";

const tags = Array.from({ length: 128 }, (_, i) => `${i} of many tags ${"x".repeat(100)}`);
const computed = unstable_cache(async () => ({ number: Math.random() }), ["computed"], { tags: ["computed"] });

/** Answers with what is behind two caches: `fetch` with 128 tags, and a function. */
export async function GET() {
  const answer = await fetch(`${process.env.SOURCE}/tags`, { cache: "force-cache", next: { tags } });
  return Response.json({ calls: Number(await answer.text()), ...(await computed()), by: process.pid });
}
