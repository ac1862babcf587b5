/** Makes the page of the Pages Router anew. */
export default async function handler(_request, response) {
  await response.revalidate("/old");
  response.json({ revalidated: "/old" });
}
