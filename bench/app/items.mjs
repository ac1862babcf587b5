/** What the source of the application benchmark answers: an object of about one kilobyte, as JSON. */

const WORDS =
  "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa".split(" ");

/** The item with this number, as JSON text. The same number gives the same text. */
export function makeItem(number) {
  const word = (i) => WORDS[(number * 7 + i * 13) % WORDS.length];
  const text = (count, from) => Array.from({ length: count }, (_, i) => word(from + i)).join(" ");
  return JSON.stringify({
    id: number,
    title: text(5, 1),
    description: text(90, 3),
    price: (number % 10_000) / 100,
    stock: number % 97,
    tags: [word(2), word(5), word(9)],
    dimensions: { width: number % 31, height: number % 37, depth: number % 41 },
    changed: new Date(1_700_000_000_000 + number * 1000).toISOString(),
    ratings: Array.from({ length: 12 }, (_, i) => (number + i) % 6),
  });
}
