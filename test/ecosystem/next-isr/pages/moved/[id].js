export function getStaticPaths() {
  return { paths: [], fallback: "blocking" };
}

export function getStaticProps({ params }) {
  return { redirect: { destination: `/old?from=${params.id}&by=${process.pid}`, permanent: false }, revalidate: 3600 };
}

/** A page that has moved. */
export default function Moved() {
  return null;
}
