import { revalidatePath, revalidateTag } from "next/cache";

/** `POST /revalidate?tag=…`, with `&life=max` for stale, or `?path=…`. */
export async function POST(request) {
  const { searchParams } = new URL(request.url);
  const tag = searchParams.get("tag");
  const path = searchParams.get("path");
  if (tag !== null) revalidateTag(tag, searchParams.get("life") ?? { expire: 0 });
  if (path !== null) revalidatePath(path);
  return Response.json({ revalidated: tag ?? path });
}
