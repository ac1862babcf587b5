export const dynamic = "force-static";
export const revalidate = 3600;

/** An answer that does not depend on the request. */
export function GET() {
  return Response.json({ number: Math.random(), by: process.pid });
}
