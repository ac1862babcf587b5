import { notFound } from "next/navigation";

export const revalidate = 3600;

/** No page is made by the build: the first request makes it. */
export function generateStaticParams() {
  return [];
}

/** A page with what the source has answered, which counts its calls. */
export default async function Page({ params }) {
  const { id } = await params;
  if (id === "none") notFound();
  const answer = await fetch(`${process.env.SOURCE}/item/${id}`, { next: { tags: [`item ${id}`, "items"] } });
  return (
    <main>
      item {id}, call {await answer.text()}, rendered by {process.pid} as {Math.random()}
    </main>
  );
}
