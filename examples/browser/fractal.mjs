/**
 * The work that is worth caching: tiles of the Mandelbrot set. It knows nothing of caches.
 *
 * One unit of the map is one unit of the complex plane, and a tile of level 0; each level halves its tiles.
 */

/** Pixels along the edge of a tile. */
export const TILE = 96;
/** Levels that 64-bit numbers can still tell apart. */
export const MAX_LEVEL = 42;
/** Bytes around the colour wheel for each doubling of the iterations. */
const SHADES = 44;
/** Each pixel is the mean of this many samples squared. */
const SAMPLES = 2;

export const keyOf = ({ level, x, y }) => `${level}/${x}/${y}`;

/**
 * A tile as bytes: first the number of the worker who made it, then one byte per pixel, 0 for the set itself and 1 to 255
 * around the colour wheel outside of it.
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

/** Iterations until a point is far away, with a fraction; `limit` when it stays. */
function escapeTime(re, im, limit) {
  const q = (re - 0.25) ** 2 + im * im;
  // The heart and the largest circle, where every point would take all iterations.
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
