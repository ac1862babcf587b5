/** The keys and values of the benchmark of the tier. */

import { makeItem } from "../app/items.mjs";

const WORDS = "alpha bravo charlie delta echo foxtrot golf hotel".split(" ");

/** Kinds of values: `make(number)` answers an object; the same number gives the same object. */
export const VALUES = {
  small: {
    label: "objects of 100 B",
    make: (number) => ({
      id: number,
      name: `${WORDS[number % 8]} ${WORDS[(number >> 3) % 8]}`,
      price: (number % 10_000) / 100,
      stock: number % 97,
      tags: [WORDS[(number + 3) % 8], WORDS[(number + 5) % 8]],
      changed: 1_700_000_000 + number,
    }),
  },
  large: { label: "objects of 1 KiB", make: (number) => JSON.parse(makeItem(number)) },
};

export function keyOf(number) {
  return `item:${number}`;
}
