export function getStaticProps() {
  return { props: { number: Math.random(), by: process.pid }, revalidate: 3600 };
}

/** A page of the Pages Router. */
export default function Old({ number, by }) {
  return (
    <main>
      {number} by {by}
    </main>
  );
}
