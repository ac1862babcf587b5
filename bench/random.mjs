/**
 * Seeded random numbers, so that every run makes the same requests: uniform, shuffled and zipfian. They are drawn before
 * anything is measured.
 */

/** A generator of numbers in [0, 1) (mulberry32). */
export function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The numbers below `count` in random order. */
export function shuffled(count, next) {
  const numbers = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [numbers[i], numbers[j]] = [numbers[j], numbers[i]];
  }
  return numbers;
}

/** Draws zipfian ranks below `count`: rank 0 is the most popular. */
export function zipfian(count, exponent, next) {
  const sums = new Float64Array(count);
  let sum = 0;
  for (let i = 0; i < count; i++) sums[i] = sum += 1 / (i + 1) ** exponent;
  return () => {
    const target = next() * sum;
    let low = 0;
    for (let high = count - 1; low < high; ) {
      const middle = (low + high) >> 1;
      if (sums[middle] < target) low = middle + 1;
      else high = middle;
    }
    return low;
  };
}

/** `length` key numbers below `count`, the popular ones scattered over the key space. */
export function zipfianOrder(count, length, seed) {
  const next = random(seed);
  const scattered = shuffled(count, next);
  const draw = zipfian(count, 0.99, next);
  return Uint32Array.from({ length }, () => scattered[draw()]);
}
