import { revalidatePath, revalidateTag } from "next/cache";

/**
 * Invalidates, in all processes at once:
 *
 *     POST /revalidate?tag=quotes             entries with the tag expire now
 *     POST /revalidate?tag=quotes&life=max    they are used once more, and made anew in the background
 *     POST /revalidate?path=/                 the page is rendered anew
 */
export async function POST(request) {
  const { searchParams } = new URL(request.url);
  const tag = searchParams.get("tag");
  const path = searchParams.get("path");
  if (tag !== null) revalidateTag(tag, searchParams.get("life") ?? { expire: 0 });
  if (path !== null) revalidatePath(path);
  return Response.json({ revalidated: tag ?? path });
}
