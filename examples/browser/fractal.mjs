/**
 * Renders tiles of the Mandelbrot set: the work that is worth caching. It does not use the cache.
 *
 * One unit of the map is one unit of the complex plane, and a tile of level 0; each level halves its tiles.
 */

/** Pixels along the edge of a tile. */
export const TILE = 96;
/** The highest level at which 64-bit numbers can still distinguish neighbouring pixels. */
export const MAX_LEVEL = 42;
/** Steps on the colour wheel for each doubling of the iterations. */
const SHADES = 44;
/** Each pixel is the mean of SAMPLES × SAMPLES samples. */
const SAMPLES = 2;

export const keyOf = ({ level, x, y }) => `${level}/${x}/${y}`;

/**
 * Renders a tile as bytes: first the number of the worker, then one byte per pixel, 0 for the set itself and 1 to 255 around the
 * colour wheel outside of it.
 */
export function renderTile({ level, x, y }, worker) {
  const bytes = new Uint8Array(1 + TILE * TILE);
  bytes[0] = worker;
  const limit = 160 + 70 * level;
  const step = 2 ** -level / (TILE * SAMPLES);
  for (let row = 0, at = 1; row < TILE; row++) {
    for (let column = 0; column < TILE; column++, at++) {
      let sum = 0;
      let outside = 0;
      for (let sample = 0; sample < SAMPLES * SAMPLES; sample++) {
        const re = x * 2 ** -level + (column * SAMPLES + (sample % SAMPLES) + 0.5) * step;
        const im = y * 2 ** -level + (row * SAMPLES + Math.floor(sample / SAMPLES) + 0.5) * step;
        const time = escapeTime(re, im, limit);
        if (time < limit) {
          sum += time;
          outside++;
        }
      }
      if (2 * outside >= SAMPLES * SAMPLES) {
        bytes[at] = 1 + (Math.floor(Math.log2(1 + sum / outside) * SHADES) % 255);
      }
    }
  }
  return bytes;
}

/** The number of iterations until a point escapes, with a fraction; `limit` if it does not. */
function escapeTime(re, im, limit) {
  const q = (re - 0.25) ** 2 + im * im;
  // Points in the main cardioid and the largest circle never escape, and would take all iterations.
  if (q * (q + re - 0.25) <= 0.25 * im * im || (re + 1) ** 2 + im * im <= 0.0625) return limit;
  let [a, b, aa, bb] = [0, 0, 0, 0];
  for (let n = 0; n < limit; n++) {
    b = 2 * a * b + im;
    a = aa - bb + re;
    aa = a * a;
    bb = b * b;
    if (aa + bb > 256) return Math.max(0, n + 3 - Math.log2(Math.log2(aa + bb)));
  }
  return limit;
}
